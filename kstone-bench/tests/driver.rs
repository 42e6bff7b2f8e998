//! The driver: workloads end to end in processes of their own, and what it notices about an engine.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests, and an engine that stalls for a known time"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use kstone_bench::cgroup::ControlGroup;
use kstone_bench::data::{BenchKey, Values};
use kstone_bench::driver::Bench;
use kstone_bench::engine::{Engine, EngineSpec, Session};
use kstone_bench::record::{Step, StepSpec, Trial, TrialSpec};
use kstone_bench::trial::{Options, run_all};
use kstone_bench::workload::{Task, WORKLOADS, plan};

fn step(workload: &str, operations: Option<u64>, rate: Option<f64>) -> StepSpec {
    StepSpec { operations, rate, ..StepSpec::of(workload) }
}

fn spec(engine: &str, items: u64, steps: Vec<StepSpec>) -> TrialSpec {
    TrialSpec {
        value_bytes: 100,
        threads: 2,
        seed: 1,
        ..TrialSpec::of(EngineSpec::parse(engine), steps, items)
    }
}

fn options(directory: &Path, trials: usize) -> Options {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_kstone-bench"));
    Options { directory: directory.to_owned(), trials, keep: false, program, before: None }
}

/// Those that fit on one database, so that it is not filled again for each.
fn groups() -> Vec<Vec<StepSpec>> {
    let mut groups: BTreeMap<String, Vec<StepSpec>> = BTreeMap::new();
    for workload in WORKLOADS.iter() {
        let alone = workload.example.is_some() || workload.large || workload.deletes() || workload.fills();
        let key = if alone { workload.name.clone() } else { format!("{:?}", workload.place) };
        let (operations, rate) = match workload.task {
            _ if workload.example.is_some() => (Some(200), Some(20_000.0)),
            Task::Operations | Task::Scan if !workload.fills() => (Some(300), None),
            _ => (None, None),
        };
        groups.entry(key).or_default().push(step(&workload.name, operations, rate));
    }
    groups.into_values().collect()
}

#[test]
fn every_workload_runs_and_every_answer_is_right() {
    let directory = tempfile::tempdir().unwrap();
    for engine in ["kstone", "noop"] {
        let mut seen = Vec::new();
        for steps in groups() {
            let mut spec = spec(engine, 2000, steps);
            // Examples have a limit of their own; whether that can be set is another test's matter.
            spec.memory_limit = Some(32 << 30);
            let trials = run_all(&[spec], &options(directory.path(), 1), &mut |_| ()).unwrap();
            for trial in &trials {
                assert_eq!(trial.error, None, "{:?}", trial.spec);
                assert_eq!(trial.steps.len(), trial.spec.steps.len());
                for step in &trial.steps {
                    assert_eq!(step.wrong, 0, "{engine} {}", step.workload);
                    assert!(step.operations > 0 && !step.latencies.is_empty(), "{engine} {step:?}");
                    seen.push(step.workload.clone());
                }
                let text = serde_json::to_string(trial).unwrap();
                let back: Trial = serde_json::from_str(&text).unwrap();
                assert_eq!(serde_json::to_string(&back).unwrap(), text);
            }
        }
        assert!(WORKLOADS.iter().all(|workload| seen.contains(&workload.name)), "{seen:?}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "databases are removed");
}

#[test]
fn trials_of_engines_take_turns() {
    let directory = tempfile::tempdir().unwrap();
    let specs = ["noop#1", "noop#2"].map(|name| spec(name, 100, vec![step("fillrandom", None, None)]));
    let trials = run_all(&specs, &options(directory.path(), 2), &mut |_| ()).unwrap();
    let order: Vec<_> = trials.iter().map(|trial| (trial.spec.engine.label(), trial.number)).collect();
    let expected = [("noop#1", 0), ("noop#2", 0), ("noop#1", 1), ("noop#2", 1)];
    assert_eq!(order, expected.map(|(name, number)| (name.to_owned(), number)));
}

#[test]
fn a_process_killed_for_its_memory_is_an_error_and_the_limit_is_one() {
    if let Err(error) = ControlGroup::new(1 << 30) {
        println!("not tested, no control groups: {error:#}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let run = |limit: u64| {
        let mut spec = spec("kstone", 20_000, vec![step("fillrandom", None, None)]);
        spec.memory_limit = Some(limit);
        run_all(&[spec], &options(directory.path(), 1), &mut |_| ()).unwrap().remove(0)
    };
    let (small, large) = (run(2 << 20), run(1 << 30));
    assert!(small.memory_limited && small.error.as_ref().is_some_and(|error| error.contains("signal: 9")));
    assert!(small.steps.is_empty(), "{small:?}");
    assert!(large.memory_limited && large.error.is_none() && large.steps.len() == 1, "{large:?}");
}

#[test]
fn a_program_that_is_none_or_says_nothing_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let spec = spec("noop", 100, vec![step("fillrandom", None, None)]);
    for program in ["/bin/false", "/nowhere/at/all"] {
        let options = Options { program: program.into(), ..options(directory.path(), 1) };
        let trials = run_all(std::slice::from_ref(&spec), &options, &mut |_| ()).unwrap();
        assert!(trials[0].error.is_some() && trials[0].steps.is_empty(), "{program}");
    }
}

/// What an engine does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// One get takes that long.
    Stall(Duration),
    /// A get answers with another item.
    Other,
    /// A get answers with a version that nobody wrote.
    Version,
    /// A get does not find an item that is there.
    Lost,
}

/// A database in memory with a fault in its 100th get.
struct Faulty {
    fault: Fault,
    items: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    gets: AtomicU64,
    values: Values,
}

impl Faulty {
    fn run(fault: Fault, items: u64, step: &StepSpec) -> Step {
        let mut spec = spec("faulty", items, vec![step.clone()]);
        spec.threads = 1;
        let spec = plan::resolve(&spec).unwrap();
        let values = Values::new(spec.value_bytes, spec.seed).unwrap();
        let engine = Self { fault, items: Mutex::default(), gets: AtomicU64::new(0), values: values.clone() };
        let layout = plan::layout(&spec).unwrap();
        let bench =
            Bench { spec: &spec, engine: &engine, layout, values, end: AtomicU64::new(0), checks: true };
        let steps = spec.steps.iter().enumerate().map(|(number, step)| bench.step(number, step).unwrap());
        steps.last().unwrap()
    }
}

impl Engine for Faulty {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(FaultySession(self)))
    }
}

struct FaultySession<'a>(&'a Faulty);

impl Session for FaultySession<'_> {
    fn put(&mut self, key: &BenchKey, value: &[u8]) -> Result<()> {
        self.0.items.lock().unwrap().insert(key.flat().to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &BenchKey) -> Result<()> {
        self.0.items.lock().unwrap().remove(key.flat());
        Ok(())
    }

    fn get(&mut self, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let Some(mut value) = self.0.items.lock().unwrap().get(key.flat()).cloned() else { return Ok(false) };
        if self.0.gets.fetch_add(1, Ordering::Relaxed) == 100 {
            let (item, version) = self.0.values.read(&value).unwrap();
            match self.0.fault {
                Fault::None => {}
                Fault::Stall(time) => std::thread::sleep(time),
                Fault::Other => self.0.values.fill(item ^ 1, version, &mut value),
                Fault::Version => self.0.values.fill(item, 99, &mut value),
                Fault::Lost => return Ok(false),
            }
        }
        visit(&value);
        Ok(true)
    }

    fn multi_get(&mut self, keys: &[BenchKey], visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        keys.iter().try_fold(0, |found, key| Ok(found + u64::from(self.get(key, visit)?)))
    }

    fn query(&mut self, _: &BenchKey, _: u64, _: &mut dyn FnMut(&[u8])) -> Result<u64> {
        Ok(0)
    }

    fn scan(&mut self, _: u64, _: &mut dyn FnMut(&[u8])) -> Result<u64> {
        Ok(0)
    }
}

/// Operations that were due while the engine stood still waited for it. Whoever counts from when they were sent sees one
/// slow operation; from when they were due, all of them are slow (coordinated omission).
#[test]
fn a_stall_is_seen_by_all_that_were_due_meanwhile() {
    // 400 of 1000 are due within the stall, evenly: three in ten wait for more than a quarter of it.
    let stall = Duration::from_millis(400);
    let done = Faulty::run(Fault::Stall(stall), 500, &step("readrandom", Some(1000), Some(1000.0)));
    let due = &done.latencies["get"];
    let service = due.service.as_ref().unwrap();
    assert!(due.from_intended && due.count == 1000 && done.offered == Some(1000.0), "{done:?}");
    let quarter = stall.as_nanos() as u64 / 4;
    let p75 = kstone_bench::results::histogram(due).unwrap().value_at_quantile(0.75);
    assert!(p75 > quarter && due.max >= 4 * quarter, "{p75} {due:?}");
    assert!(service.p50 < quarter && service.max >= 4 * quarter, "{service:?}");
    assert_eq!(done.wrong, 0);
}

#[test]
fn wrong_answers_are_noticed() {
    for workload in ["readrandom", "multireadrandom", "updaterandom"] {
        for fault in [Fault::None, Fault::Other, Fault::Version, Fault::Lost] {
            // Of several keys at once only the items are compared.
            if workload == "multireadrandom" && fault == Fault::Version {
                continue;
            }
            let done = Faulty::run(fault, 500, &step(workload, Some(200), None));
            assert_eq!(done.wrong, u64::from(fault != Fault::None), "{workload} {fault:?}");
        }
    }
}

#[test]
fn a_fill_that_is_cut_short_leaves_items_out_and_that_is_no_wrong_answer() {
    let directory = tempfile::tempdir().unwrap();
    let steps = vec![step("fillrandom", Some(1000), None), step("readrandom", Some(1000), None)];
    let spec = spec("kstone", 2000, steps);
    let trial = run_all(&[spec], &options(directory.path(), 1), &mut |_| ()).unwrap().remove(0);
    let read = &trial.steps[1];
    assert_eq!((trial.error.as_deref(), read.wrong), (None, 0));
    assert!((300..700).contains(&read.not_found), "{read:?}");
}
