//! Determines what the steps of a trial need together: one layout of keys, one size of values, a filled database.

use anyhow::{Context, Result, bail, ensure};
use kstone_api::Preset;
use kstone_core::config::text;

use super::{LARGE_DIVISOR, LARGE_VALUE, Operation, Place, Workload};
use crate::data::{Layout, Values};
use crate::record::{StepSpec, TrialSpec};

/// The minimum number of large values.
const LARGE_LEAST: u64 = 50;

/// Adds to a trial what its workloads require and the caller left open: a step that fills the database, the sizes of
/// large values, and the settings of the specification's examples. A resolved trial stays unchanged.
pub fn resolve(spec: &TrialSpec) -> Result<TrialSpec> {
    let mut spec = spec.clone();
    ensure!(!spec.steps.is_empty(), "a trial needs at least one step: name a workload");
    ensure!(spec.items > 0 && spec.threads > 0, "there must be at least one item and one thread");
    large(&mut spec)?;
    examples(&mut spec)?;
    fill(&mut spec)?;
    layout(&spec)?;
    Values::new(spec.value_bytes, spec.seed)?;
    Ok(spec)
}

pub fn layout(spec: &TrialSpec) -> Result<Layout> {
    let workloads = workloads(spec)?;
    let mut decided = spec.place.layout().map(|layout| (layout, "the trial"));
    for workload in &workloads {
        let Some(layout) = workload.place.layout() else { continue };
        match decided {
            Some((other, name)) if other != layout => bail!(
                "{name} and {} cannot share a database: {} and {}. Run them separately",
                workload.name,
                described(other, name),
                described(layout, &workload.name)
            ),
            _ => decided = Some((layout, workload.name.as_str())),
        }
    }
    let (layout, by) = decided.unwrap_or((Layout::Scattered, ""));
    let spread = workloads.iter().find(|workload| workload.place == Place::Spread);
    if let (Some(spread), Layout::Ordered | Layout::OnePartition) = (spread, layout) {
        bail!(
            "{} cannot follow {by}: {}, so missing keys would be behind all others and cost nothing to find. Run them \
             separately",
            spread.name,
            described(layout, by)
        );
    }
    Ok(layout)
}

fn described(layout: Layout, by: &str) -> String {
    match layout {
        Layout::Scattered => format!("{by} has scattered keys"),
        Layout::Ordered => format!("{by} has keys in the order of their items"),
        Layout::Partitions(items) | Layout::Rows(items) => format!("{by} has partitions of {items} items"),
        Layout::OnePartition => format!("{by} has one partition for everything"),
    }
}

fn workloads(spec: &TrialSpec) -> Result<Vec<&'static Workload>> {
    spec.steps.iter().map(|step| Workload::by_name(&step.workload)).collect()
}

fn large(spec: &mut TrialSpec) -> Result<()> {
    let workloads = workloads(spec)?;
    let Some(large) = workloads.iter().find(|workload| workload.large) else { return Ok(()) };
    if spec.value_bytes == LARGE_VALUE {
        return Ok(());
    }
    if let Some(other) = workloads.iter().find(|workload| !workload.large && workload.writes()) {
        bail!(
            "{} writes values of {LARGE_VALUE} bytes and {} those of {} bytes: a trial has values of one size. Run them \
             separately",
            large.name,
            other.name,
            spec.value_bytes
        );
    }
    spec.value_bytes = LARGE_VALUE;
    spec.items = (spec.items / LARGE_DIVISOR).max(LARGE_LEAST);
    Ok(())
}

/// A rate of 0 requests a closed loop.
fn examples(spec: &mut TrialSpec) -> Result<()> {
    let workloads = workloads(spec)?;
    for (step, workload) in spec.steps.iter_mut().zip(&workloads) {
        if let (None, Some(example)) = (step.rate, workload.example) {
            step.rate = Some(example.rate);
        }
    }
    let mut examples = workloads.iter().filter_map(|workload| Some((&workload.name, workload.example?)));
    let Some((name, example)) = examples.next() else { return Ok(()) };
    if let Some((other, _)) = examples.find(|(other, _)| *other != name) {
        bail!("{name} and {other} each have settings of their own. Run them separately");
    }
    if spec.memory_limit.is_none() {
        spec.memory_limit = Some(example.memory);
    }
    if spec.engine.is_ours() && spec.engine.settings.is_empty() {
        spec.engine.settings = preset(name)?;
    }
    Ok(())
}

/// The settings of a preset as text; `default` if all are.
pub fn preset(name: &str) -> Result<String> {
    let preset = Preset::by_name(name).with_context(|| format!("preset {name}"))?;
    let settings = text::differing(&preset.database, &preset.compaction);
    Ok(if settings.is_empty() { "default".to_owned() } else { settings })
}

fn fill(spec: &mut TrialSpec) -> Result<()> {
    let workloads = workloads(spec)?;
    let needs = workloads.iter().position(|workload| workload.filled);
    // Steps that insert also fill it, with the items that they insert.
    let fills = workloads
        .iter()
        .position(|workload| workload.fills() || workload.operations().any(|one| one == Operation::Insert));
    let filled = |needs| fills.is_some_and(|fills| fills < needs);
    if let Some(needs) = needs.filter(|needs| !filled(*needs)) {
        for (at, workload) in ["load", "waitforcompaction"].into_iter().enumerate() {
            spec.steps.insert(needs + at, StepSpec::of(workload));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineSpec;

    fn spec(workloads: &[&str]) -> TrialSpec {
        let steps = workloads.iter().map(|name| StepSpec::of(name)).collect();
        TrialSpec { threads: 2, seed: 1, ..TrialSpec::of(EngineSpec::new("kstone"), steps, 1_000_000) }
    }

    fn names(spec: &TrialSpec) -> Vec<&str> {
        spec.steps.iter().map(|step| step.workload.as_str()).collect()
    }

    #[test]
    fn a_step_that_needs_a_filled_database_gets_one() {
        let filled = |steps: &[&str]| names(&resolve(&spec(steps)).unwrap()).join(" ");
        assert_eq!(filled(&["readrandom"]), "load waitforcompaction readrandom");
        assert_eq!(filled(&["fillrandom", "readrandom"]), "fillrandom readrandom");
        assert_eq!(filled(&["fillsync", "overwrite"]), "fillsync load waitforcompaction overwrite");
        assert_eq!(filled(&["time-ordered", "readseq"]), "time-ordered readseq");
        assert_eq!(filled(&["fillseq", "readseq", "compact"]), "fillseq readseq compact");
        let once = resolve(&spec(&["ycsb-e"])).unwrap();
        assert_eq!(resolve(&once).unwrap(), once);
    }

    #[test]
    fn steps_that_want_different_keys_or_values_are_refused() {
        for (steps, why) in [
            (&["fillseq", "seekrandom"][..], "Run them separately"),
            (&["fillseq", "readmissing"], "behind all others"),
            (&["fillrandom", "fill100K"], "one size"),
            (&["embedded", "log-ingestion"], "settings of their own"),
            (&["readrandom", "nonsense"], "there is no workload named \"nonsense\""),
            (&[], "at least one step"),
        ] {
            let error = resolve(&spec(steps)).unwrap_err().to_string();
            assert!(error.contains(why), "{steps:?}: {error}");
        }
        assert_eq!(layout(&spec(&["load", "ycsb-e"])).unwrap(), Layout::Partitions(1000));
        assert_eq!(layout(&spec(&["fillseq", "readseq"])).unwrap(), Layout::Ordered);
        assert_eq!(layout(&spec(&["readmissing"])).unwrap(), Layout::Scattered);
    }

    #[test]
    fn large_values_are_few() {
        let large = resolve(&spec(&["fill100K", "readrandom"])).unwrap();
        assert_eq!((large.items, large.value_bytes), (1000, 100_000));
        assert_eq!(resolve(&large).unwrap(), large);
    }

    #[test]
    fn examples_bring_rate_settings_and_memory_and_what_is_given_wins() {
        let embedded = resolve(&spec(&["embedded"])).unwrap();
        assert_eq!(embedded.steps[2].rate, Some(600.0));
        assert_eq!(embedded.memory_limit, Some(256 << 20));
        assert!(embedded.engine.settings.contains("max_memtable_records=200"), "{:?}", embedded.engine);
        let mut given = spec(&["embedded"]);
        given.engine.settings = "default".into();
        given.memory_limit = Some(1 << 30);
        given.steps[0].rate = Some(0.0);
        let given = resolve(&given).unwrap();
        assert_eq!((given.engine.settings.as_str(), given.memory_limit), ("default", Some(1 << 30)));
        assert_eq!(given.steps[2].rate, Some(0.0));
    }

    #[test]
    fn every_workload_can_be_planned_and_has_a_name_of_its_own() {
        let mut names: Vec<_> =
            super::super::WORKLOADS.iter().map(|workload| workload.name.as_str()).collect();
        names.iter().for_each(|name| drop(resolve(&spec(&[name])).unwrap()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), super::super::WORKLOADS.len());
    }
}
