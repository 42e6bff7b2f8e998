//! Reads result files and groups their trials into *series*: the trials of one engine under the same [`Conditions`].

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::Deserialize;

use crate::engine::{Durability, EngineSpec};
use crate::record::{Latency, RunFile, SCHEMA, Step, StepSpec, Trial};
use crate::workload::Place;
use crate::{statistics, units};

pub fn read(path: &Path) -> Result<RunFile> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
    parse(&text).with_context(|| format!("{name}"))
}

pub fn parse(text: &str) -> Result<RunFile> {
    #[derive(Deserialize)]
    struct Head {
        schema: Option<String>,
    }
    let head: Head = match serde_json::from_str(text) {
        Err(error) if error.is_eof() => {
            bail!("the file ends too early ({error}): it is truncated")
        }
        head => head.context("not a result file: it is not JSON")?,
    };
    match head.schema.as_deref() {
        Some(SCHEMA) => {}
        Some(other) => bail!("its format is {other:?}, and this program reads {SCHEMA:?}: measure again"),
        None => bail!("not a result file: it has no \"schema\""),
    }
    serde_json::from_str(text).context("a result file in which something is missing or wrong")
}

/// Everything that must be equal for two figures to be comparable.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    pub workload: String,
    /// The workloads that ran on the same database before.
    pub before: Vec<String>,
    /// The number of operations, if the workload did not define it.
    pub operations: Option<u64>,
    /// The time limit of the step, in seconds.
    pub seconds: Option<f64>,
    /// Offered operations a second; `None`: a closed loop.
    pub offered: Option<f64>,
    pub items: u64,
    pub value_bytes: usize,
    pub threads: usize,
    pub durability: Durability,
    /// The memory limit in bytes, if there was one.
    pub memory_limit: Option<u64>,
    /// Whether the limit was in force.
    pub memory_limited: bool,
    /// The layout of the keys, unless the workload requires one.
    pub place: Place,
    pub incompressible: bool,
}

impl Conditions {
    fn of(trial: &Trial, at: usize, step: &Step) -> Self {
        let spec = &trial.spec;
        let named = |asked: &&StepSpec| asked.workload == step.workload;
        let asked = spec.steps.get(at).filter(named).or_else(|| spec.steps.iter().find(named));
        // A rate of 0 requests a closed loop.
        let offered = step.offered.or_else(|| asked.and_then(|asked| asked.rate)).filter(|rate| *rate > 0.0);
        Self {
            workload: step.workload.clone(),
            before: trial.steps.iter().take(at).map(|step| step.workload.clone()).collect(),
            operations: asked.and_then(|asked| asked.operations),
            seconds: asked.and_then(|asked| asked.seconds),
            offered,
            items: spec.items,
            value_bytes: spec.value_bytes,
            threads: spec.threads,
            durability: step.durability.unwrap_or(spec.durability),
            memory_limit: spec.memory_limit,
            memory_limited: trial.memory_limited,
            place: spec.place,
            incompressible: spec.incompressible,
        }
    }

    /// Everything but the workload, on one line.
    pub fn circumstances(&self) -> String {
        let mut parts = vec![
            format!(
                "{} items x {} B",
                units::count(self.items as f64),
                units::count(self.value_bytes as f64)
            ),
            format!("{} {}", self.threads, if self.threads == 1 { "thread" } else { "threads" }),
            match self.offered {
                Some(rate) => format!("open loop at {}/s", units::count(rate)),
                None => "closed loop".to_owned(),
            },
            format!("durability={}", durability(self.durability)),
        ];
        match (self.memory_limit, self.memory_limited) {
            (None, _) => {}
            (Some(limit), true) => parts.push(format!("memory limited to {}", units::bytes(limit as f64))),
            (Some(_), false) => {
                parts.push("memory limit not in force, the data may fit in memory".to_owned());
            }
        }
        if let Some(operations) = self.operations {
            parts.push(format!("{} operations", units::count(operations as f64)));
        }
        if let Some(seconds) = self.seconds {
            parts.push(format!("at most {} s", units::digits(seconds)));
        }
        if !self.before.is_empty() {
            parts.push(format!("after {}", self.before.join(", ")));
        }
        parts.join(", ")
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.workload, self.circumstances())
    }
}

/// The name on the command line.
pub fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Buffered => "buffered",
        Durability::Sync => "sync",
    }
}

/// One trial's part of a series.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The index of the file.
    pub file: usize,
    pub number: usize,
    pub step: &'a Step,
}

/// The trials of one engine under the same conditions, in the order in which they ran.
#[derive(Clone, Debug)]
pub struct Series<'a> {
    pub engine: &'a EngineSpec,
    /// The commit, if there are several files.
    pub build: Option<&'a str>,
    pub conditions: Conditions,
    pub runs: Vec<Run<'a>>,
}

impl Series<'_> {
    pub fn label(&self) -> String {
        match self.build {
            Some(build) => format!("{} @{build}", self.engine.label()),
            None => self.engine.label(),
        }
    }

    /// One figure per trial; trials that do not have it are omitted.
    pub fn figures(&self, figure: impl Fn(&Step) -> Option<f64>) -> Vec<f64> {
        self.runs.iter().filter_map(|run| figure(run.step)).collect()
    }

    pub fn median(&self, figure: impl Fn(&Step) -> Option<f64>, show: impl FnOnce(f64) -> String) -> String {
        units::optional(statistics::median(&self.figures(figure)), show)
    }

    pub fn rates(&self) -> Vec<f64> {
        self.figures(|step| Some(step.rate))
    }

    /// The kinds of operations that have latencies.
    pub fn kinds(&self) -> BTreeSet<&str> {
        let measured = |step: &Step| step.latencies.iter().any(|(_, latency)| latency.count > 0);
        let steps = self.runs.iter().map(|run| run.step).filter(|step| measured(step));
        steps
            .flat_map(|step| step.latencies.iter().filter(|(_, latency)| latency.count > 0))
            .map(|(kind, _)| kind.as_str())
            .collect()
    }

    /// A figure of the latencies of one kind, for each trial that has any.
    pub fn latencies(&self, kind: &str, figure: impl Fn(&Latency) -> u64) -> Vec<f64> {
        self.figures(|step| latency_of(step, kind).map(|latency| figure(latency) as f64))
    }

    /// The latencies of one kind in all trials together. Adds a note for any that cannot be read.
    pub fn merged(&self, kind: &str, notes: &mut Vec<String>) -> Option<Histogram<u64>> {
        let mut all: Option<Histogram<u64>> = None;
        for run in &self.runs {
            let latency = latency_of(run.step, kind).filter(|latency| !latency.histogram.is_empty());
            let Some(latency) = latency else { continue };
            let added = histogram(latency).and_then(|one| match &mut all {
                Some(sum) => sum.add(&one).context("histograms do not fit together"),
                None => {
                    all = Some(one);
                    Ok(())
                }
            });
            if let Err(error) = added {
                let (label, number) = (self.label(), run.number);
                notes.push(format!("{label}, trial {number}: latencies of {kind} are left out: {error:#}"));
            }
        }
        all.filter(|all| !all.is_empty())
    }

    pub fn wrong(&self) -> u64 {
        self.runs.iter().map(|run| run.step.wrong).sum()
    }
}

/// The latencies of a kind of operation, if there were any.
pub fn latency_of<'a>(step: &'a Step, kind: &str) -> Option<&'a Latency> {
    step.latencies.get(kind).filter(|latency| latency.count > 0)
}

/// Converts service times to the form stored in results.
pub fn latency(histogram: &Histogram<u64>) -> Result<Latency> {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).context("cannot serialize a histogram")?;
    let percentile = |share| histogram.value_at_quantile(share);
    Ok(Latency {
        count: histogram.len(),
        mean: histogram.mean(),
        p50: percentile(0.5),
        p90: percentile(0.9),
        p99: percentile(0.99),
        p999: percentile(0.999),
        max: histogram.max(),
        histogram: BASE64_STANDARD.encode(&bytes),
        ..Latency::default()
    })
}

/// The histogram stored in a result.
pub fn histogram(latency: &Latency) -> Result<Histogram<u64>> {
    let bytes = BASE64_STANDARD.decode(&latency.histogram).context("not base64")?;
    let decoded = Deserializer::new().deserialize(&mut bytes.as_slice());
    decoded.map_err(|error| anyhow::anyhow!("not a histogram: {error}"))
}

/// Groups values with the same key, in the order of first appearance.
pub(crate) fn grouped<K: PartialEq, T>(pairs: impl IntoIterator<Item = (K, T)>) -> Vec<(K, Vec<T>)> {
    let mut groups: Vec<(K, Vec<T>)> = Vec::new();
    for (key, one) in pairs {
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(one),
            None => groups.push((key, vec![one])),
        }
    }
    groups
}

/// All series of some files, in the order in which they first appear.
pub fn series<'a>(files: &[&'a RunFile]) -> Vec<Series<'a>> {
    let mut runs = Vec::new();
    let several = files.iter().any(|file| file.machine.commit != files[0].machine.commit);
    for (file, results) in files.iter().enumerate() {
        let build = several.then_some(results.machine.commit.as_str());
        for trial in &results.trials {
            for (at, step) in trial.steps.iter().enumerate() {
                let series = (&trial.spec.engine, build, Conditions::of(trial, at, step));
                runs.push((series, Run { file, number: trial.number, step }));
            }
        }
    }
    let series = grouped(runs).into_iter();
    series.map(|((engine, build, conditions), runs)| Series { engine, build, conditions, runs }).collect()
}

/// The trials of both series that have the same number, in the same order.
pub fn turns<'a>(one: &Series<'a>, other: &Series<'a>) -> (Series<'a>, Series<'a>) {
    let pairs = one.runs.iter().filter_map(|run| {
        let same = other.runs.iter().find(|also| (also.file, also.number) == (run.file, run.number));
        same.map(|also| (*run, *also))
    });
    let (first, second) = pairs.unzip();
    let with = |series: &Series<'a>, runs| Series { runs, ..series.clone() };
    (with(one, first), with(other, second))
}

/// The failures in trials: a sentence for each trial that ended early or gave wrong answers.
pub fn troubles(trials: &[Trial]) -> Vec<String> {
    let mut troubles = Vec::new();
    for trial in trials {
        let name = format!("{}, trial {}", trial.spec.engine.label(), trial.number);
        if let Some(error) = &trial.error {
            let (done, asked) = (trial.steps.len(), trial.spec.steps.len());
            troubles.push(format!("{name}: ended after {done} of {asked} steps: {error}"));
        }
        for step in &trial.steps {
            if step.wrong > 0 {
                let wrong = units::count(step.wrong as f64);
                troubles.push(format!("{name}: {wrong} answers of {} were WRONG", step.workload));
            }
        }
    }
    troubles
}

/// The number of trials of an engine that ended in an error.
pub fn failed(file: &RunFile, label: &str) -> usize {
    let mine = file.trials.iter().filter(|trial| trial.spec.engine.label() == label);
    mine.filter(|trial| trial.error.is_some()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_of_results_is_told_from_one_that_is_damaged() {
        let whole = format!(
            r#"{{"schema": "{SCHEMA}", "command": "run", "started": "2026-01-01T00:00:00Z", "machine": {{}},
                "warnings": [], "trials": []}}"#
        );
        assert_eq!(parse(&whole).unwrap().trials.len(), 0);
        let told = |text: &str| format!("{:#}", parse(text).unwrap_err());
        for end in (1..whole.len()).step_by(7) {
            assert!(told(&whole[..end]).contains("ends too early"), "{end}");
        }
        assert!(told("").contains("ends too early"));
        assert!(told("kind: yaml").contains("not JSON"));
        assert!(told("{}").contains("no \"schema\""));
        assert!(
            told(r#"{"schema": "kstone-bench/99"}"#).contains("\"kstone-bench/99\", and this program reads")
        );
        let missing = told(&whole.replace("\"command\": \"run\",", ""));
        assert!(missing.contains("missing field `command`"), "{missing}");
        let null = whole.replace("\"machine\": {}", "\"machine\": {\"load\": null}");
        assert!(told(&null).contains("missing or wrong"), "{}", told(&null));
        assert!(format!("{:#}", read(Path::new("/no/such/file")).unwrap_err()).contains("/no/such/file"));
    }
}
