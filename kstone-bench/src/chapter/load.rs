//! Loads on a database, as trials of the driver, and figures of what came of them.

use anyhow::{Context as _, Result, bail, ensure};
use kstone_api::Preset;
use kstone_core::config::text;

use super::context::Context;
use super::probe::VALUE;
use crate::engine::{Durability, EngineSpec, counter};
use crate::record::{Step, StepSpec, Trial, TrialSpec};

/// A trial of ours, buffered, with records as long as the chapter's.
pub(crate) fn spec(settings: String, items: u64, steps: Vec<StepSpec>) -> TrialSpec {
    TrialSpec {
        engine: EngineSpec { settings, ..EngineSpec::new("kstone") },
        steps,
        items,
        value_bytes: VALUE,
        threads: 1,
        durability: Durability::Buffered,
        seed: 42,
        memory_limit: None,
    }
}

/// The settings of a preset, with that many stripes.
///
/// # Errors
/// There is no such preset.
pub(crate) fn preset(name: &str, stripes: usize) -> Result<String> {
    let preset = Preset::by_name(name)?;
    Ok(text::differing(&preset.database.with_stripes(stripes), &preset.compaction))
}

/// So many operations, one after the other.
pub(crate) fn closed(workload: &str, operations: u64) -> StepSpec {
    StepSpec { workload: workload.into(), operations: Some(operations), seconds: None, rate: None }
}

/// So many operations a second are offered, for that long.
pub(crate) fn open(workload: &str, rate: f64, seconds: f64) -> StepSpec {
    StepSpec { workload: workload.into(), operations: None, seconds: Some(seconds), rate: Some(rate) }
}

/// Trials of all these, interleaved; of each spec one a trial, in their order.
///
/// # Errors
/// One failed, or an answer was wrong.
pub(crate) fn run(context: &mut Context<'_>, what: &str, specs: Vec<TrialSpec>) -> Result<Vec<Vec<Trial>>> {
    let all = context.drive(&specs)?;
    let mut of_spec: Vec<Vec<Trial>> = specs.iter().map(|_| Vec::new()).collect();
    // A trial of each, then the next of each.
    for (trial, at) in all.into_iter().zip((0..specs.len()).cycle()) {
        if let Some(error) = &trial.error {
            bail!("{what}: {} failed: {error}", trial.spec.engine.label());
        }
        let wrong: u64 = trial.steps.iter().map(|step| step.wrong).sum();
        ensure!(wrong == 0, "{what}: {wrong} answers of {} were wrong", trial.spec.engine.label());
        let done: Vec<_> = trial.steps.iter().map(|step| &step.workload).collect();
        let asked: Vec<_> = specs[at].steps.iter().map(|step| &step.workload).collect();
        ensure!(done == asked, "{what}: {done:?} was done instead of {asked:?}");
        of_spec[at].push(trial);
    }
    ensure!(of_spec.iter().all(|trials| !trials.is_empty()), "{what}: a spec has no trial");
    Ok(of_spec)
}

/// A figure of one step of all trials.
///
/// # Errors
/// A trial has no such step, or it has no such figure.
pub(crate) fn figures(
    trials: &[Trial],
    step: usize,
    figure: impl Fn(&Step) -> Option<f64>,
) -> Result<Vec<f64>> {
    let of = |trial: &Trial| {
        let step = trial.steps.get(step).with_context(|| format!("a trial has no step {step}"))?;
        figure(step).with_context(|| format!("step {} lacks a figure", step.workload))
    };
    trials.iter().map(of).collect()
}

/// Operations a second.
pub(crate) fn rate(step: &Step) -> Option<f64> {
    Some(step.rate)
}

/// The slowest but one in a hundred of one kind of operation.
pub(crate) fn p99(kind: &'static str) -> impl Fn(&Step) -> Option<f64> {
    move |step| step.latencies.get(kind).filter(|latency| latency.count > 0).map(|latency| latency.p99 as f64)
}

/// The mean of one kind of operation.
pub(crate) fn mean(kind: &'static str) -> impl Fn(&Step) -> Option<f64> {
    move |step| step.latencies.get(kind).filter(|latency| latency.count > 0).map(|latency| latency.mean)
}

/// The most anonymous memory.
pub(crate) fn anonymous(step: &Step) -> Option<f64> {
    Some(step.resources.peak_anonymous as f64)
}

/// A counter for each unit of another.
pub(crate) fn per(counted: &'static str, of: &'static str) -> impl Fn(&Step) -> Option<f64> {
    move |step| Some(step.counters.get(counted)? / step.counters.get(of).filter(|of| **of > 0.0)?)
}

/// Bytes of SSTs that flushes and merges wrote for each byte of keys and values.
pub(crate) fn write_amplification(step: &Step) -> Option<f64> {
    let per_user_byte = |name| per(name, counter::USER_BYTES_WRITTEN)(step);
    Some(per_user_byte(counter::FLUSH_BYTES)? + per_user_byte(counter::COMPACTION_BYTES)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Latency;

    fn step() -> Step {
        let counters = [("flush_bytes", 300.0), ("compaction_bytes", 500.0), ("user_bytes_written", 200.0)];
        let latency = Latency { count: 5, mean: 2.0, p99: 7, ..Latency::default() };
        Step {
            workload: "fillrandom".into(),
            rate: 9.0,
            counters: counters.map(|(name, value)| (name.to_owned(), value)).into(),
            latencies: [("put".to_owned(), latency)].into(),
            ..Step::default()
        }
    }

    #[test]
    fn figures_come_from_the_step_and_absent_ones_are_errors() {
        let spec = spec(preset("write-heavy", 16).unwrap(), 10, vec![closed("fillrandom", 10)]);
        assert!(spec.engine.settings.contains("stripes=16") && spec.engine.settings.contains("=10000"));
        let trial = Trial { spec, number: 0, steps: vec![step()], error: None, memory_limited: false };
        let trials = [trial];
        assert_eq!(figures(&trials, 0, rate).unwrap(), [9.0]);
        assert_eq!(figures(&trials, 0, write_amplification).unwrap(), [4.0]);
        assert_eq!(figures(&trials, 0, p99("put")).unwrap(), [7.0]);
        assert_eq!(figures(&trials, 0, mean("put")).unwrap(), [2.0]);
        assert!(figures(&trials, 0, p99("get")).is_err());
        assert!(figures(&trials, 0, per("nothing", "user_bytes_written")).is_err());
        assert!(figures(&trials, 1, rate).is_err());
        assert!(preset("fastest", 16).is_err());
    }
}
