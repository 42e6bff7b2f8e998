//! The sweeps that measure the chapter's claims: each defines its points and returns the figures found there.
//!
//! Trials are interleaved: each trial visits all points, one after the other, so that changes on the machine affect all
//! points alike. Loads on engines are trials of the driver; measurements that need the engine itself are [`Probe`]s.
//! Both run in processes of their own. Tables of the same sweep share its results.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result, bail, ensure};
use kstone_api::Preset;
use kstone_core::config::text;
use kstone_core::model::{Model, Point as Settings, Prediction, Workload};
use kstone_core::{CompactionConfig, DatabaseConfig};
use minijinja::Value;

use super::Scale;
use super::probe::{
    Checks, Debt, Disk, Figures, Fill, Filters, LogLimit, MemtableBytes, Probe, Puts, Quota, RECORD, Reopen,
    Runs, Setup, VALUE, WriteBuffer, theory,
};
use crate::engine::{EngineSpec, counter};
use crate::record::{Step, StepSpec, Trial, TrialSpec};
use crate::statistics::{FEWEST, median};
use crate::trial;
use crate::units::Unit;

const MEMTABLES: [usize; 4] = [500, 1000, 5000, 10_000];
const THRESHOLDS: [usize; 3] = [5, 10, 20];
const CONFIGURATIONS: [&str; 3] = ["write-optimized", "balanced", "read-optimized"];
/// Writes a second that are offered where not the writer is measured, but what its load costs: those of the chapter's first
/// example, which all settings do with room to spare.
const OFFERED_WRITES: f64 = 100_000.0;
/// The load offered to a configuration, in operations a second; a tenth are writes.
const OFFERED: f64 = 10_000.0;
/// The loads of the examples, and the memory that they may use.
const EXAMPLES: [(&str, f64, Option<u64>); 3] = [
    ("log-ingestion", 100_000.0, None),
    ("low-latency-cache", 55_000.0, None),
    ("embedded", 600.0, Some(256 << 20)),
];
const RUNS: [(usize, &str); 5] = [(2, "2-3"), (5, "5-10"), (10, "5-10"), (20, "15-20"), (30, "30+")];
const BITS: [usize; 6] = [6, 8, 10, 12, 16, 20];
/// Runs per stripe when filters are tested, as in the chapter's scenario.
const FILTERED_RUNS: usize = 10;
/// Runs per stripe of a merge debt.
const DEBT_RUNS: usize = 8;
/// The chapter's buffer sizes: its default, its example, and the largest that it recommends.
const BUFFERS: [usize; 3] = [1024, 4096, 65_536];
const INTERVALS: [usize; 3] = [10, 60, 300];
const MIB: u64 = 1 << 20;
/// The seed of the first trial.
const SEED: u64 = 42;

/// The results of a sweep.
#[derive(Default)]
pub(super) struct Swept {
    pub(super) points: Vec<SweepPoint>,
    /// Names that describe the sweep as a whole, for templates.
    pub(super) names: BTreeMap<String, Value>,
    /// The number of trials, if it differs from the scale's.
    pub(super) trials: Option<usize>,
}

/// One point: its name, and the figures of each trial.
#[derive(Clone, Debug, Default)]
pub(super) struct SweepPoint {
    pub(super) key: String,
    pub(super) row: String,
    /// The value that differs from point to point, if it is a number.
    pub(super) value: usize,
    /// The same, for plots.
    pub(super) at: Option<f64>,
    pub(super) found: Vec<Figures>,
    /// Why nothing was measured there.
    pub(super) absent: Option<String>,
    /// Figures common to all trials: predictions, limits.
    pub(super) fixed: Figures,
}

impl SweepPoint {
    pub(super) fn named(key: &str) -> Self {
        Self { key: key.to_owned(), row: key.to_owned(), ..Self::default() }
    }

    /// Creates a point for each value and marks the row of the default.
    fn all(values: &[usize], default: usize) -> Vec<Self> {
        let point = |&value: &usize| {
            let mut point = Self { value, at: Some(value as f64), ..Self::named(&value.to_string()) };
            if value == default {
                point.row += " (default)";
            }
            point.fixed.set("at", value as f64);
            point
        };
        values.iter().map(point).collect()
    }

    /// The figures of each trial.
    pub(super) fn trials(&self) -> impl Iterator<Item = Figures> {
        self.found.iter().map(|found| {
            let mut all = found.clone();
            all.0.extend(self.fixed.0.clone());
            all
        })
    }

    /// The median of each figure.
    pub(super) fn medians(&self) -> Figures {
        let mut all: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
        let found = self.found.iter().flat_map(|found| &found.0);
        for (name, value) in found.filter(|(_, value)| value.is_finite()) {
            all.entry(name).or_default().push(*value);
        }
        let middle = all.into_iter().filter_map(|(name, values)| Some((name.clone(), median(&values)?)));
        Figures(middle.chain(self.fixed.0.clone()).collect())
    }

    /// The maximum and the minimum of a figure over all trials.
    fn extremes(&self, figure: &str) -> Result<(f64, f64)> {
        let values = self.found.iter().map(|found| found.get(figure)).collect::<Result<Vec<_>>>()?;
        Ok(values
            .iter()
            .fold((0.0, f64::INFINITY), |(most, least), value| (value.max(most), value.min(least))))
    }
}

impl Swept {
    fn of(points: Vec<SweepPoint>) -> Self {
        Self { points, ..Self::default() }
    }

    fn name(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.names.insert(name.to_owned(), value.into());
        self
    }

    /// Whether the condition holds in every trial of every point.
    fn all(&self, holds: impl Fn(&Figures) -> Result<bool>) -> Result<bool> {
        self.points
            .iter()
            .flat_map(|point| &point.found)
            .try_fold(true, |all, found| Ok(all && holds(found)?))
    }
}

/// Runs sweeps and keeps their results.
pub(super) struct Sweeps<'a> {
    pub(super) scale: Scale,
    /// The program that measures: this one, unless a test runs another.
    pub(super) program: PathBuf,
    /// The directory where databases are created and removed.
    pub(super) directory: PathBuf,
    pub(super) progress: &'a mut dyn FnMut(&str),
    /// The trials that the driver ran.
    pub(super) trials: Vec<Trial>,
    pub(super) done: BTreeMap<String, Rc<Swept>>,
}

impl Sweeps<'_> {
    /// Returns the results of a sweep, running it if necessary.
    pub(super) fn get(&mut self, name: &str) -> Result<Rc<Swept>> {
        if let Some(done) = self.done.get(name) {
            return Ok(Rc::clone(done));
        }
        let swept = match name {
            "memtables" => self.memtables(),
            "thresholds" => self.thresholds(),
            "configurations" => self.configurations(),
            "examples" => self.examples(),
            "runs" => self.runs(),
            "filters" => self.filters(),
            "disk" => self.disk(),
            "debts" => self.debts(),
            "checks" => self.checks(),
            "limits" => self.limits(),
            "buffers" => self.buffers(),
            "puts" => self.puts(),
            _ => bail!("there is no sweep {name:?}"),
        };
        let swept = Rc::new(swept?);
        self.done.insert(name.to_owned(), Rc::clone(&swept));
        Ok(swept)
    }

    fn fresh(&self) -> Result<tempfile::TempDir> {
        let made = tempfile::Builder::new().prefix("chapter-").tempdir_in(&self.directory);
        made.with_context(|| format!("cannot make a directory in {}", self.directory.display()))
    }

    /// Runs a probe with a database of its own.
    fn measure(&mut self, what: &str, probe: impl Into<Probe>, seed: u64) -> Result<Figures> {
        let directory = self.fresh()?;
        self.measure_in(&directory.path().join("db"), what, probe, seed)
    }

    fn measure_in(&mut self, at: &Path, what: &str, probe: impl Into<Probe>, seed: u64) -> Result<Figures> {
        (self.progress)(what);
        let setup = Setup { directory: at.to_owned(), settings: self.scale.settings(""), seed };
        trial::probe(&self.program, probe.into(), setup).with_context(|| what.to_owned())
    }

    /// Runs all trials of the points with one kind of probe.
    fn probed<P: Into<Probe>>(
        &mut self,
        mut points: Vec<SweepPoint>,
        what: impl Fn(&SweepPoint) -> String,
        probe: impl Fn(&SweepPoint) -> P,
    ) -> Result<Swept> {
        for seed in self.seeds() {
            for point in points.iter_mut().filter(|point| point.absent.is_none()) {
                point.found.push(self.measure(&what(point), probe(point), seed)?);
            }
        }
        Ok(Swept::of(points))
    }

    /// The seeds, one for each trial.
    fn seeds(&self) -> std::ops::Range<u64> {
        SEED..SEED + self.scale.trials as u64
    }

    /// Runs all trials of loads by the driver, with a spec for each point. The figures of a step start with its prefix.
    fn driven(
        &mut self,
        what: &str,
        mut points: Vec<SweepPoint>,
        specs: &[TrialSpec],
        prefixes: &[&str],
    ) -> Result<Swept> {
        let options = trial::Options {
            before: None,
            directory: self.directory.clone(),
            trials: self.scale.trials,
            keep: false,
            program: self.program.clone(),
        };
        let all = trial::run_all(specs, &options, self.progress)?;
        self.trials.extend_from_slice(&all);
        // One trial of each point, then the next of each.
        for (trial, at) in all.iter().zip((0..points.len()).cycle()) {
            let label = trial.spec.engine.label();
            if let Some(error) = &trial.error {
                bail!("{what}: {label} failed: {error}");
            }
            let wrong: u64 = trial.steps.iter().map(|step| step.wrong).sum();
            ensure!(wrong == 0, "{what}: {wrong} answers of {label} were wrong");
            let done: Vec<_> = trial.steps.iter().map(|step| &step.workload).collect();
            let asked: Vec<_> = specs[at].steps.iter().map(|step| &step.workload).collect();
            ensure!(done == asked, "{what}: {done:?} was done instead of {asked:?}");
            let mut found = Figures::default();
            trial.steps.iter().zip(prefixes).for_each(|(step, prefix)| of_step(&mut found, prefix, step));
            points[at].found.push(found);
        }
        ensure!(points.iter().all(|point| !point.found.is_empty()), "{what}: a spec has no trial");
        let limited = all.iter().all(|trial| trial.memory_limited || trial.spec.memory_limit.is_none());
        Ok(Swept::of(points).name("limited", limited))
    }

    /// The three ways to write with a threshold: as fast as one thread can, as fast as a thread for each core can, and at
    /// an offered rate.
    ///
    /// For each threshold, one process writes until the rounds are steady, and dies with nearly full memtables. Others
    /// open the database it left: once left while being written to, and once at rest, with its files in the page cache
    /// and dropped from it.
    fn memtables(&mut self) -> Result<Swept> {
        let scale = self.scale.clone();
        let mut points = SweepPoint::all(&MEMTABLES, 1000);
        for seed in self.seeds() {
            for point in &mut points {
                let directory = self.fresh()?;
                let at = directory.path().join("db");
                let what = format!("memtables of {} records", point.key);
                let mut found = self.measure_in(&at, &what, fill(&scale, point.value), seed)?;
                let openings = [("busy", false, true), ("warm", false, false), ("cold", true, false)];
                for (prefix, cold, rest) in openings {
                    let what = format!("recovery of {what}");
                    found.add(prefix, self.measure_in(&at, &what, Reopen { cold, rest }, seed)?);
                }
                let fill = fill(&scale, point.value);
                let beside = Fill { threads: cores(), ..fill.clone() };
                found.add("cores", self.measure(&format!("{what}, a writer for each core"), beside, seed)?);
                let offered = offered(&scale, fill);
                found.add("offered", self.measure(&format!("{what}, at an offered rate"), offered, seed)?);
                let (warm, cold) = (found.get("warm_replayed_records")?, found.get("cold_replayed_records")?);
                ensure!(warm == cold, "recovery replayed {warm} records, and {cold} when it was done again");
                point.found.push(found);
            }
        }
        let mut bursts = Vec::new();
        for point in &mut points {
            let fill = fill(&scale, point.value);
            let database = DatabaseConfig::new().with_max_memtable_records(fill.threshold);
            let predict =
                |rate| predicted(fill.items(), scale.stripes, rate, &database, &CompactionConfig::new());
            let rest = predict(0.0);
            let busy = predict(point.medians().get("rate")?);
            for (name, value) in [
                ("records", fill.threshold as f64),
                ("written", fill.items() as f64),
                ("model_flush_records", rest.flush_records),
                ("model_write_amplification", rest.write_amplification),
                ("model_memtable_bytes", rest.memtable_bytes),
                ("model_log_bytes", rest.log_bytes),
                ("model_replay_ns", rest.replay_ns),
                ("model_busy_log_bytes", busy.log_bytes),
            ] {
                point.fixed.set(name, value);
            }
            bursts.extend(point.found.first().map(|found| burst(&point.key, found)).transpose()?);
        }
        let swept = Swept::of(points);
        // Most of the log was read from the device.
        let forgotten = swept
            .all(|found| Ok(found.get("cold_device_bytes")? / found.get("cold_replayed_log_bytes")? > 0.5))?;
        let largest = fill(&scale, 10_000);
        let filled = format!(
            "{} items of {RECORD} bytes, each once and in no order, by one thread, buffered, into {} Counted over {} of \
             them: whole rounds, from the middle of one to the middle of another, at least 5 of every memtable, after at \
             least two.",
            largest.items(),
            scale.text(),
            largest.counted,
        );
        let swept = swept.name("filled", filled).name("bursts", bursts).name("forgotten", forgotten);
        Ok(swept.name("cores", cores()).name("offered", OFFERED_WRITES as u64))
    }

    /// Gets are compared without compression, which the specification's design does not have, and with it.
    fn thresholds(&mut self) -> Result<Swept> {
        let scale = self.scale.clone();
        let records = scale.records(1000);
        // Flushes per stripe: enough that the largest threshold has merged the outputs of merges.
        let items = (60 * records * scale.stripes) as u64;
        let mut points = SweepPoint::all(&THRESHOLDS, 0);
        let database = DatabaseConfig::new().with_max_memtable_records(records);
        let (mut specs, mut plain) = (Vec::new(), Vec::new());
        for point in &mut points {
            let threshold = point.value;
            let compaction = CompactionConfig::new().with_sst_threshold(threshold);
            let model = predicted(items, scale.stripes, 0.0, &database, &compaction);
            point.fixed.set("model_write_amplification", model.write_amplification);
            let offered = [
                closed("fillrandom", items),
                closed("waitforcompaction", 1),
                open("readwhilewriting", OFFERED_WRITES, scale.load_seconds),
            ];
            let full_speed = [
                closed("readwhilewriting", scale.reads),
                closed("waitforcompaction", 1),
                closed("readmissing", scale.reads),
            ];
            // Idle merges would leave one run before the gets, whatever the threshold.
            let settings =
                format!("sst_threshold={threshold},max_memtable_records={records},idle_compaction=0");
            let settings = scale.settings(&settings);
            plain.push(spec(format!("{settings},compression=0"), items, offered.to_vec()));
            specs.push(spec(settings, items, [offered, full_speed].concat()));
        }
        let plain_prefixes = ["plain_fill", "plain_caught_up", "plain"];
        let plain = self.driven("sst_threshold, uncompressed", points.clone(), &plain, &plain_prefixes)?;
        let prefixes = ["fill", "caught_up", "offered", "load", "wait", "rest"];
        let mut swept = self.driven("sst_threshold", points, &specs, &prefixes)?;
        for (point, plain) in swept.points.iter_mut().zip(plain.points) {
            for (found, plain) in point.found.iter_mut().zip(plain.found) {
                found.0.extend(plain.0);
            }
        }
        Ok(swept.name("items", items).name("records", records).name("offered", OFFERED_WRITES as u64))
    }

    fn configurations(&mut self) -> Result<Swept> {
        let scale = self.scale.clone();
        // Enough for several rounds of the largest memtables.
        let items = (6 * scale.records(10_000) * scale.stripes) as u64;
        let mut specs = Vec::new();
        for name in CONFIGURATIONS {
            let load = open("readrandomwriterandom", OFFERED, scale.load_seconds);
            specs.push(spec(preset(name, scale.stripes)?, items, vec![closed("fillrandom", items), load]));
        }
        let points = CONFIGURATIONS.map(SweepPoint::named).to_vec();
        Ok(self.driven("the three configurations", points, &specs, &["fill", "load"])?.name("items", items))
    }

    fn examples(&mut self) -> Result<Swept> {
        let scale = self.scale.clone();
        let (mut points, mut specs) = (Vec::new(), Vec::new());
        for (name, offered, memory_limit) in EXAMPLES {
            // Tests offer less: an unoptimized build on a busy machine can keep up with that.
            let offered = if scale.divide > 1 { f64::min(offered, 1000.0) } else { offered };
            let mut point = SweepPoint::named(name);
            point.fixed.set("offered", offered);
            points.push(point);
            let steps = vec![closed("fillrandom", scale.load_items), open(name, offered, scale.load_seconds)];
            let spec = spec(preset(name, scale.stripes)?, scale.load_items, steps);
            specs.push(TrialSpec { memory_limit, ..spec });
        }
        self.driven("the three examples", points, &specs, &["fill", "load"])
    }

    fn runs(&mut self) -> Result<Swept> {
        let (items, reads) = (self.scale.items(), self.scale.reads);
        let cold_reads = (reads / 200).max(20);
        let mut points = SweepPoint::all(&RUNS.map(|(runs, _)| runs), 0);
        for (point, (_, name)) in points.iter_mut().zip(RUNS) {
            point.row += &format!(" ({name})");
        }
        let what = |point: &SweepPoint| format!("reads with {} runs", point.key);
        let swept =
            self.probed(points, what, |point| Runs { runs: point.value, items, reads, cold_reads })?;
        // At least the filters and indexes of all runs were read from the device.
        let forgotten = |figure| swept.all(|found| Ok(found.get(figure)? > 0.0));
        let (hit, miss) = (forgotten("cold_hit_device_bytes")?, forgotten("cold_miss_device_bytes")?);
        let swept = swept.name("cold_hit_forgotten", hit).name("cold_miss_forgotten", miss);
        Ok(swept.name("items", items).name("cold_reads", cold_reads))
    }

    fn filters(&mut self) -> Result<Swept> {
        let scale = self.scale.clone();
        let probe = |bits: usize| Filters {
            bits,
            runs: FILTERED_RUNS,
            items: scale.items(),
            misses: if bits >= 16 { scale.rare_misses } else { scale.misses },
        };
        let mut points = SweepPoint::all(&BITS, 10);
        for point in &mut points {
            let database = DatabaseConfig::new().with_bloom_bits_per_key(point.value);
            let model = Model::new(Workload::inserts(1_000_000, 16, VALUE as u64));
            let rate = model.predict(&Settings::of(&database, &CompactionConfig::new())).false_positive_rate;
            point.fixed.set("model_false_positive_percent", 100.0 * rate);
            point.fixed.set("theory_percent", theory(point.value));
        }
        let (few, many) = (probe(6), probe(16));
        let asked = format!(
            "{} items in {FILTERED_RUNS} runs of each of {} One thread got {} different keys that are in none of them, \
             which tests {} filters; with 16 and 20 bits {} keys and {} filters. From memory.",
            few.items,
            scale.text(),
            few.misses,
            few.misses * FILTERED_RUNS as u64,
            many.misses,
            many.misses * FILTERED_RUNS as u64,
        );
        let what = |point: &SweepPoint| format!("filters of {} bits", point.key);
        // Times from memory differ by less than from one moment to the next: only trials that took turns can tell.
        let trials = if scale.divide > 1 { scale.trials } else { scale.trials.max(FEWEST) };
        self.scale.trials = trials;
        let swept = self.probed(points, what, |point| probe(point.value));
        self.scale.trials = scale.trials;
        Ok(Swept { trials: Some(trials), ..swept? }.name("asked", asked))
    }

    /// Measures how long the disk takes for a read that is in no cache.
    fn disk(&mut self) -> Result<Swept> {
        let reads = self.scale.reads.min(2000);
        let found = self.measure("reads of 4 KiB from the disk", Disk { pages: 8 * reads, reads }, SEED)?;
        let (read, share) = (found.get("read_p50")?, found.get("device_share")?);
        let point = SweepPoint { row: "4 KiB".to_owned(), found: vec![found], ..SweepPoint::named("disk") };
        Ok(Swept::of(vec![point]).name("disk_read", read).name("cold", share > 0.5))
    }

    fn debts(&mut self) -> Result<Swept> {
        let cores = cores();
        let mut points = SweepPoint::all(&[1, 2, 4, 8, 16], 4);
        // The chapter has no row for two, but it tells something on a machine with two cores.
        points.retain(|point| point.value != 2 || cores >= 2);
        for point in points.iter_mut().filter(|point| point.value > cores) {
            point.absent = Some(format!("it needs that many cores, and there are {cores}"));
        }
        let items = if self.scale.divide > 1 { self.scale.items() } else { 3 * self.scale.items() };
        let what = |point: &SweepPoint| format!("{} compactions at the same time", point.key);
        let debt = |point: &SweepPoint| Debt { concurrent: point.value, runs: DEBT_RUNS, items };
        Ok(self.probed(points, what, debt)?.name("items", items).name("cores", cores))
    }

    /// Waiting for minutes, or repeating this, would show nothing new.
    fn checks(&mut self) -> Result<Swept> {
        let tiny = self.scale.divide > 1;
        // All stripes, whatever the scale, because they determine the cost.
        let stripes = if tiny { 4 } else { 256 };
        let interval = self.scale.check_interval;
        let checks = Checks { stripes, runs: 9, interval, samples: 16 };
        let found = self.measure("the lag of checks", checks, SEED)?;
        let mut points = SweepPoint::all(&INTERVALS, 0);
        for point in &mut points {
            point.row += if point.value == 60 { "s (default)" } else { "s" };
            let waited = point.value as u64 == interval || (tiny && point.value == 10);
            point.fixed.set("waited", f64::from(u8::from(waited)));
            point.found = vec![found.clone()];
        }
        let swept = Swept { trials: Some(1), ..Swept::of(points) };
        Ok(swept.name("stripes", stripes).name("interval", interval))
    }

    fn limits(&mut self) -> Result<Swept> {
        let tiny = self.scale.divide > 1;
        let limit = |bytes: u64| if tiny { bytes / 16 } else { bytes };
        let [memtable, log, quota] = [MIB, 16 * MIB, 64 * MIB].map(limit);
        let points = [("memtable", memtable), ("log", log), ("quota", quota)].map(|(name, limit)| {
            let mut point = SweepPoint::named(name);
            point.row = format!("limit {}", Unit::Bytes.text(limit as f64));
            point.fixed.set("limit", limit as f64);
            point
        });
        let what = |_: &SweepPoint| "a limit of section 23.4".to_owned();
        let mut swept = self.probed(points.to_vec(), what, |point| match point.key.as_str() {
            "memtable" => Probe::from(MemtableBytes { limit: memtable as usize, flushes: 40 }),
            "log" => LogLimit { limit: log, items: 8 * log / RECORD as u64 }.into(),
            _ => Quota { limit: quota }.into(),
        })?;
        let longest = swept.points[0].extremes("longest_record")?.0;
        swept.points[0].fixed.set("beyond", longest);
        let written: f64 =
            swept.points[1].found.iter().map(|found| found.get("log_bytes_written")).sum::<Result<_>>()?;
        Ok(swept.name("times", written / self.scale.trials as f64 / log as f64))
    }

    fn buffers(&mut self) -> Result<Swept> {
        let items = self.scale.items().min(200_000);
        let what = |point: &SweepPoint| format!("a write buffer and a log buffer of {} bytes", point.key);
        let buffer = |point: &SweepPoint| WriteBuffer { buffer: point.value, threads: 4, items };
        self.probed(SweepPoint::all(&BUFFERS, 0), what, buffer)
    }

    fn puts(&mut self) -> Result<Swept> {
        let times = if self.scale.divide > 1 { 3 } else { 100 };
        let what = |_: &SweepPoint| "1000 items into a new database".to_owned();
        let swept = self.probed(vec![SweepPoint::named("put_1000_items")], what, |_| Puts { times })?;
        let (slowest, fastest) =
            (swept.points[0].extremes("slowest_nanos")?.0, swept.points[0].extremes("fastest_nanos")?.1);
        Ok(swept.name("times", times).name("fastest", fastest).name("slowest", slowest))
    }
}

/// Counts five rounds of the largest memtable, after a warm-up of two and a half.
fn fill(scale: &Scale, threshold: usize) -> Fill {
    let records = scale.records(threshold);
    let largest = (scale.records(10_000) * scale.stripes) as u64;
    // Tests do not wait as long for checkpoints.
    let checkpoints = if scale.divide > 1 { ",checkpoint_interval_ms=50" } else { "" };
    let settings = format!("max_memtable_records={records}{checkpoints}");
    let (warm_up, counted) = (5 * largest / 2, 5 * largest);
    Fill { settings, stripes: scale.stripes, threshold: records, warm_up, counted, threads: 1, rate: None }
}

/// The same at an offered rate, and in fewer rounds, since it takes longer: the memory in use is the same in all of them.
fn offered(scale: &Scale, fill: Fill) -> Fill {
    let largest = (scale.records(10_000) * scale.stripes) as u64;
    Fill { warm_up: largest, counted: largest, rate: Some(OFFERED_WRITES), ..fill }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn predicted(
    items: u64,
    stripes: usize,
    writes_per_second: f64,
    database: &DatabaseConfig,
    compaction: &CompactionConfig,
) -> Prediction {
    let mut workload = Workload::inserts(items, (RECORD - VALUE) as u64, VALUE as u64);
    (workload.stripes, workload.writes_per_second) = (stripes, writes_per_second);
    Model::new(workload).predict(&Settings::of(database, compaction))
}

/// When flushes happen within a round: a time line of one round, in tenths.
fn burst(threshold: &str, found: &Figures) -> Result<String> {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shares =
        (0..10).map(|piece| found.get(&format!("flushes_in_tenth_{piece}"))).collect::<Result<Vec<_>>>()?;
    let most = shares.iter().copied().fold(0.0, f64::max);
    let bar = |share: &f64| BARS.get((share / most * 8.0).round() as usize).copied().unwrap_or(' ');
    let line: String = shares.iter().map(bar).collect();
    Ok(format!(
        "Flushes within a round, threshold {threshold}: |{line}| the fullest tenth has {:.0} % of them.",
        100.0 * most
    ))
}

/// A buffered trial of kstone, with records of the chapter's length.
fn spec(settings: String, items: u64, steps: Vec<StepSpec>) -> TrialSpec {
    let engine = EngineSpec { settings, ..EngineSpec::new("kstone") };
    TrialSpec { value_bytes: VALUE, ..TrialSpec::of(engine, steps, items) }
}

/// The settings of a preset, with this many stripes.
fn preset(name: &str, stripes: usize) -> Result<String> {
    let preset = Preset::by_name(name)?;
    Ok(text::differing(&preset.database.with_stripes(stripes), &preset.compaction))
}

fn closed(workload: &str, operations: u64) -> StepSpec {
    StepSpec { operations: Some(operations), ..StepSpec::of(workload) }
}

fn open(workload: &str, rate: f64, seconds: f64) -> StepSpec {
    StepSpec { seconds: Some(seconds), rate: Some(rate), ..StepSpec::of(workload) }
}

/// Adds the figures of a step.
fn of_step(found: &mut Figures, prefix: &str, step: &Step) {
    let mut set = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            found.set(&format!("{prefix}_{name}"), value);
        }
    };
    let merged = step.share(counter::COMPACTION_BYTES, counter::USER_BYTES_WRITTEN);
    let flushed = step.share(counter::FLUSH_BYTES, counter::USER_BYTES_WRITTEN);
    let used = step.resources.cpu_user + step.resources.cpu_system;
    let all = (step.operations + step.warm_up_operations) as f64;
    set("rate", Some(step.rate));
    set("rate_of_processor", (used > 0.0).then_some(all / used));
    set("anonymous", Some(step.resources.peak_anonymous as f64));
    set("space", step.space_amplification);
    set("bytes_per_hour", Some(step.resources.write_bytes as f64 / step.seconds * 3600.0));
    set("runs_per_get", step.runs_per_get());
    set("merged_bytes", step.counters.get(counter::COMPACTION_BYTES).copied());
    set("user_bytes", step.counters.get(counter::USER_BYTES_WRITTEN).copied());
    set("write_amplification", flushed.zip(merged).map(|(flushed, merged)| flushed + merged));
    for (kind, latency) in step.latencies.iter().filter(|(_, latency)| latency.count > 0) {
        set(&format!("{kind}_rate"), Some(latency.count as f64 / step.seconds));
        set(&format!("{kind}_mean"), Some(latency.mean));
        set(&format!("{kind}_p50"), Some(latency.p50 as f64));
        set(&format!("{kind}_p99"), Some(latency.p99 as f64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Latency;

    #[test]
    fn figures_come_from_the_step_and_absent_ones_are_errors() {
        let settings = preset("write-heavy", 16).unwrap();
        assert!(settings.contains("stripes=16") && settings.contains("=10000"));
        assert!(preset("fastest", 16).is_err());
        let counters = [("flush_bytes", 300.0), ("compaction_bytes", 500.0), ("user_bytes_written", 200.0)];
        let latency = Latency { count: 5, mean: 2.0, p99: 7, ..Latency::default() };
        let step = Step {
            rate: 9.0,
            counters: counters.map(|(name, value)| (name.to_owned(), value)).into(),
            latencies: [("put".to_owned(), latency), ("get".to_owned(), Latency::default())].into(),
            ..Step::default()
        };
        let mut found = Figures::default();
        of_step(&mut found, "fill", &step);
        for (name, value) in [
            ("rate", 9.0),
            ("write_amplification", 4.0),
            ("merged_bytes", 500.0),
            ("user_bytes", 200.0),
            ("put_p99", 7.0),
            ("put_mean", 2.0),
        ] {
            assert_eq!(found.get(&format!("fill_{name}")).unwrap(), value, "{name}");
        }
        assert!(found.get("fill_get_p99").is_err() && found.get("fill_runs_per_get").is_err());
    }
}
