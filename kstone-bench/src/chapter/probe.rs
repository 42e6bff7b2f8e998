//! Measurements that need the engine itself: an exact number of runs, a process that dies, filters asked for what is not
//! there. Each runs in a process of its own, so that memory is that of one database and a crash is one.
//!
//! The parent writes a [`Job`] as one line of JSON to the child's input and reads one line with what was [`Found`]. The
//! child lives on until its input ends, or until it is killed, which is how a database is left as a crash leaves it.

#![expect(
    clippy::disallowed_methods,
    reason = "it measures time, reads files of the system and drops caches"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use kstone_api::{
    CompactionConfig, DatabaseConfig, EngineOptions, Event, EventListener, LsmEngine, WriteOptions,
};
use kstone_core::config::text;
use rustix::fs::{Advice, fadvise};
use serde::{Deserialize, Serialize};

use crate::data::{BenchKey, Layout, Values};

mod debt;
mod disk;
mod fill;
mod filters;
mod lag;
mod limits;
mod puts;
mod runs;

pub use debt::Debt;
pub use disk::Disk;
pub use fill::{Fill, Reopen};
pub use filters::{Filters, theory};
pub use lag::Lag;
pub use limits::{LogLimit, MemtableBytes, Quota, WriteBuffer};
pub use puts::Puts;
pub use runs::Runs;

/// Bytes of a record, key and value: what the chapter assumes.
pub const RECORD: usize = 200;
/// Of them the value's; the rest is the key.
pub const VALUE: usize = RECORD - 16;

/// A measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// Writes with one memtable threshold.
    Fill(Fill),
    /// Opens what a [`Probe::Fill`] left that was killed.
    Reopen(Reopen),
    /// Reads with an exact number of runs.
    Runs(Runs),
    /// Filters of one size.
    Filters(Filters),
    /// Merges what was left to merge.
    Debt(Debt),
    /// How late a check finds what it is for.
    Lag(Lag),
    /// A memtable limit in bytes.
    MemtableBytes(MemtableBytes),
    /// A limit of the log.
    LogLimit(LogLimit),
    /// A limit of the directory.
    Quota(Quota),
    /// A buffer size.
    WriteBuffer(WriteBuffer),
    /// The chapter's benchmark.
    Puts(Puts),
    /// What the disk needs for a read.
    Disk(Disk),
}

/// A measurement and where it has its database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// What to do.
    pub probe: Probe,
    /// In which directory, which exists.
    pub directory: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Figures by name.
    pub figures: BTreeMap<String, f64>,
    /// Sequences of figures by name.
    #[serde(default)]
    pub series: BTreeMap<String, Vec<f64>>,
}

impl Found {
    /// A figure.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn get(&self, name: &str) -> Result<f64> {
        self.figures.get(name).copied().with_context(|| format!("the measurement has no figure {name:?}"))
    }

    fn set(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), value);
    }
}

impl Probe {
    fn measure(&self, directory: &Path) -> Result<Found> {
        match self {
            Self::Fill(fill) => fill.measure(directory),
            Self::Reopen(reopen) => reopen.measure(directory),
            Self::Runs(runs) => runs.measure(directory),
            Self::Filters(filters) => filters.measure(directory),
            Self::Debt(debt) => debt.measure(directory),
            Self::Lag(lag) => lag.measure(directory),
            Self::MemtableBytes(limit) => limit.measure(directory),
            Self::LogLimit(limit) => limit.measure(directory),
            Self::Quota(quota) => quota.measure(directory),
            Self::WriteBuffer(buffer) => buffer.measure(directory),
            Self::Puts(puts) => puts.measure(directory),
            Self::Disk(disk) => disk.measure(directory),
        }
    }

    /// Whether the process is to die with its database open.
    fn crashes(&self) -> bool {
        matches!(self, Self::Fill(_) | Self::Reopen(_))
    }
}

/// What the child answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Found(Found),
    Failed(String),
}

/// Measures in a child: `program` with the one argument `chapter-probe`.
///
/// # Errors
/// The measurement fails, or its process does.
pub fn run(program: &Path, job: &Job) -> Result<Found> {
    let mut child = Command::new(program)
        .arg("chapter-probe")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let found = talk(&mut child, job);
    if found.is_err() || job.probe.crashes() {
        child.kill().context("cannot kill the process that measured")?;
    }
    drop(child.stdin.take());
    let status = child.wait().context("waiting for the process that measured")?;
    let found = found?;
    ensure!(job.probe.crashes() || status.success(), "the process that measured ended with {status}");
    Ok(found)
}

fn talk(child: &mut Child, job: &Job) -> Result<Found> {
    let mut input = child.stdin.as_ref().context("the child has no input")?;
    writeln!(input, "{}", serde_json::to_string(job)?).context("cannot tell the child what to measure")?;
    let mut line = String::new();
    let output = child.stdout.as_mut().context("the child has no output")?;
    BufReader::new(output).read_line(&mut line).context("cannot hear from the child")?;
    match serde_json::from_str(&line) {
        Ok(Reply::Found(found)) => Ok(found),
        Ok(Reply::Failed(error)) => Err(anyhow!("{error}")),
        Err(_) => Err(anyhow!("the process that measured died, or said what nobody understands: {line:?}")),
    }
}

/// The child's side of [`run`].
///
/// # Errors
/// Nobody says what to measure. That a measurement fails is an answer.
pub fn serve() -> Result<()> {
    let mut input = std::io::stdin().lock();
    let mut line = String::new();
    input.read_line(&mut line).context("nobody said what to measure")?;
    let job: Job = serde_json::from_str(&line).context("what to measure is no job")?;
    let reply = match job.probe.measure(&job.directory) {
        Ok(found) => Reply::Found(found),
        Err(error) => Reply::Failed(format!("{error:#}")),
    };
    println!("{}", serde_json::to_string(&reply)?);
    // A database that is to be left as it is stays open until the parent kills this process.
    input.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Events with the time at which they came.
#[derive(Debug, Default)]
struct Heard(Mutex<Vec<(Instant, Event)>>);

impl Heard {
    fn events(&self) -> Vec<(Instant, Event)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, wanted: fn(&Event) -> bool) -> usize {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter(|(_, event)| wanted(event))
            .count()
    }
}

impl EventListener for Heard {
    fn on_event(&self, event: &Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), event.clone()));
    }
}

fn is_flush(event: &Event) -> bool {
    matches!(event, Event::Flush { .. })
}

fn is_compaction(event: &Event) -> bool {
    matches!(event, Event::Compaction { .. })
}

/// Settings as they are given to an engine.
fn options(settings: &str, listener: &Arc<Heard>) -> Result<EngineOptions> {
    let defaults = (DatabaseConfig::default(), CompactionConfig::default());
    let (database, compaction) = text::changed(settings, &defaults.0, &defaults.1)?;
    let mut options = EngineOptions::disk();
    options.config = Some(database);
    options.compaction = Some(compaction);
    options.listener = Some(Arc::clone(listener) as Arc<dyn EventListener>);
    Ok(options)
}

/// A database in a directory that exists, with these settings, and what it tells.
fn open(directory: &Path, settings: &str) -> Result<(LsmEngine, Arc<Heard>)> {
    let heard = Arc::new(Heard::default());
    let engine = LsmEngine::open_or_create(directory, options(settings, &heard)?)?;
    Ok((engine, heard))
}

/// Puts items with these numbers, in no order of keys.
fn put(engine: &LsmEngine, values: &Values, numbers: impl Iterator<Item = u64>) -> Result<()> {
    let mut value = Vec::new();
    for n in numbers {
        values.fill(n, 0, &mut value);
        engine.put(&BenchKey::new(Layout::Scattered, n).key(), &value, WriteOptions::new())?;
    }
    Ok(())
}

/// The number of an item that no database here has.
fn absent(n: u64) -> u64 {
    n + (1 << 40)
}

/// Gets an item, checks the answer and says how long it took, in nanoseconds.
fn timed_get(engine: &LsmEngine, values: &Values, n: u64, there: bool) -> Result<u64> {
    let key = BenchKey::new(Layout::Scattered, n);
    let key = key.key();
    let start = Instant::now();
    let found = engine.get(&key)?;
    let nanos = start.elapsed().as_nanos() as u64;
    match found.map(|value| values.read(&value).map(|(item, _)| item)) {
        Some(item) => ensure!(there && item == Some(n), "item {n} was read as {item:?}"),
        None => ensure!(!there, "item {n} was not found"),
    }
    Ok(nanos)
}

/// For times from a nanosecond to a minute.
fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| anyhow!("a histogram: {error}"))
}

fn record(histogram: &mut Histogram<u64>, nanos: u64) {
    histogram.saturating_record(nanos.max(1));
}

/// Mean and percentiles of it, by names that begin alike.
fn set_latency(found: &mut Found, name: &str, histogram: &Histogram<u64>) {
    found.set(&format!("{name}_mean"), histogram.mean());
    found.set(&format!("{name}_p50"), histogram.value_at_quantile(0.5) as f64);
    found.set(&format!("{name}_p99"), histogram.value_at_quantile(0.99) as f64);
}

/// Processor time of this process so far, of all its threads.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Anonymous memory of this process now, in bytes.
fn anonymous_memory() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(1024.0 * kib.context("the system does not tell anonymous memory")?)
}

/// Bytes that this process has had from the device; `None` where the system does not tell.
fn device_bytes() -> Option<f64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("read_bytes:"))?.trim().parse().ok()
}

/// Has the system forget what it keeps of the directory's files, as far as it will: pages that are mapped stay.
fn drop_caches(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory).context("cannot list a database")? {
        let path = entry?.path();
        if path.is_file() {
            let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
            // Only what is on the disk already can be forgotten.
            file.sync_data()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// Waits until so many events of a kind were heard.
fn wait_for(heard: &Heard, wanted: fn(&Event) -> bool, count: usize, limit: Duration) -> Result<()> {
    let start = Instant::now();
    while heard.count(wanted) < count {
        if start.elapsed() > limit {
            bail!("after {limit:?} there were {} of {count} events", heard.count(wanted));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}
