//! Measurements that need the engine itself: an exact number of runs, a process that dies, filter tests with absent
//! keys. Each runs in a process of its own ([`crate::trial::probe`]), so that its memory is that of one database and a
//! crash is a real one.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use kstone_api::{
    CompactionConfig, Database, DatabaseConfig, EngineOptions, Event, EventListener, ItemBuilder, LsmEngine,
    WriteOptions,
};
use kstone_core::config::text;
use serde::{Deserialize, Serialize};

use crate::data::{BenchKey, Layout, Values};
use crate::machine;

mod checks;
mod fill;
mod limits;
mod runs;

pub(crate) use checks::Checks;
pub(crate) use fill::{Fill, Reopen};
pub(crate) use limits::{LogLimit, MemtableBytes, Quota, WriteBuffer};
pub(crate) use runs::{Debt, Filters, Runs, theory};

/// Bytes of a record, key and value, as assumed in the chapter.
pub(crate) const RECORD: usize = 200;
/// Bytes of the value; the rest is the key.
pub(crate) const VALUE: usize = RECORD - 16;

macro_rules! probes {
    ($($probe:ident),+) => {
        /// A measurement.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub(crate) enum Probe { $($probe($probe)),+ }

        impl Probe {
            pub(crate) fn measure(&self, setup: &Setup) -> Result<Figures> {
                match self { $(Self::$probe(probe) => probe.measure(setup)),+ }
            }
        }

        $(impl From<$probe> for Probe {
            fn from(probe: $probe) -> Self { Self::$probe(probe) }
        })+
    };
}

probes!(Fill, Reopen, Runs, Filters, Debt, Checks, MemtableBytes, LogLimit, Quota, WriteBuffer, Puts, Disk);

impl Probe {
    /// Whether the process should be killed with its database open.
    pub(crate) fn crashes(&self) -> bool {
        matches!(self, Self::Fill(_) | Self::Reopen(_))
    }
}

/// Figures by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures(pub(crate) BTreeMap<String, f64>);

impl Figures {
    pub(crate) fn get(&self, name: &str) -> Result<f64> {
        self.0.get(name).copied().with_context(|| format!("the measurement has no figure {name:?}"))
    }

    pub(crate) fn set(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    /// Adds another measurement's figures, prefixing their names.
    pub(crate) fn add(&mut self, prefix: &str, other: Self) {
        self.0.extend(other.0.into_iter().map(|(name, value)| (format!("{prefix}_{name}"), value)));
    }

    /// Sets the mean and the percentiles, under names with a common prefix.
    fn set_latency(&mut self, name: &str, histogram: &Histogram<u64>) {
        self.set(&format!("{name}_mean"), histogram.mean());
        self.set(&format!("{name}_own_mean"), own_mean(histogram));
        self.set(&format!("{name}_p50"), histogram.value_at_quantile(0.5) as f64);
        self.set(&format!("{name}_p99"), histogram.value_at_quantile(0.99) as f64);
    }

    /// Sets the median and the maximum.
    fn set_lags(&mut self, name: &str, mut nanos: Vec<f64>) {
        nanos.sort_by(f64::total_cmp);
        self.set(&format!("{name}_p50"), nanos[nanos.len() / 2]);
        self.set(&format!("{name}_max"), nanos[nanos.len() - 1]);
    }
}

/// Events with the time at which they were received.
#[derive(Debug, Default)]
struct EventLog(Mutex<Vec<(Instant, Event)>>);

impl EventLog {
    fn events(&self) -> Vec<(Instant, Event)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn compactions(&self) -> usize {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().filter(|(_, event)| matches!(event, Event::Compaction { .. })).count()
    }

    fn wait_for_compactions(&self, count: usize, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while self.compactions() < count {
            if start.elapsed() > limit {
                bail!("after {limit:?} there were {} of {count} compactions", self.compactions());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }
}

impl EventListener for EventLog {
    fn on_event(&self, event: &Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), event.clone()));
    }
}

/// The common parameters of all measurements.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// An existing directory for the database.
    pub(crate) directory: PathBuf,
    /// Settings common to all databases of the sweep.
    pub(crate) settings: String,
    pub(crate) seed: u64,
}

impl Setup {
    /// The options of an engine with these additional settings, and the log of its events.
    fn options(&self, settings: &str) -> Result<(EngineOptions, Arc<EventLog>)> {
        let settings = format!("{},{settings}", self.settings);
        let (database, compaction) =
            text::changed(&settings, &DatabaseConfig::default(), &CompactionConfig::default())?;
        let log = Arc::new(EventLog::default());
        let mut options = EngineOptions::disk();
        options.config = Some(database);
        options.compaction = Some(compaction);
        options.listener = Some(Arc::clone(&log) as Arc<dyn EventListener>);
        Ok((options, log))
    }

    fn open(&self, settings: &str) -> Result<(LsmEngine, Arc<EventLog>)> {
        let (options, log) = self.options(settings)?;
        Ok((LsmEngine::open_or_create(&self.directory, options)?, log))
    }

    fn values(&self) -> Result<Values> {
        Values::new(VALUE, self.seed)
    }

    #[cfg(test)]
    fn of(directory: &std::path::Path, settings: &str, seed: u64) -> Self {
        Self { directory: directory.to_owned(), settings: settings.to_owned(), seed }
    }
}

/// Puts items with these numbers, in no key order.
fn put(engine: &LsmEngine, values: &Values, numbers: impl Iterator<Item = u64>) -> Result<()> {
    let mut value = Vec::new();
    for n in numbers {
        values.fill(n, 0, &mut value);
        engine.put(&BenchKey::new(Layout::Scattered, n).key(), &value, WriteOptions::new())?;
    }
    Ok(())
}

/// The number of an item that is in none of these databases.
fn absent(n: u64) -> u64 {
    n + (1 << 40)
}

/// Gets an item, checks the answer and returns the time it took, in nanoseconds.
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

/// A histogram for times from a nanosecond to a minute.
fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(|error| anyhow!("a histogram: {error}"))
}

/// The mean without the slowest thousandth: those waited for a processor that did something else, for thousands of times
/// as long as they took themselves.
fn own_mean(histogram: &Histogram<u64>) -> f64 {
    let limit = histogram.value_at_quantile(0.999);
    let own = histogram.iter_recorded().take_while(|step| step.value_iterated_to() <= limit);
    let (sum, count) = own.fold((0.0, 0.0), |(sum, count), step| {
        let times = step.count_at_value() as f64;
        (sum + times * step.value_iterated_to() as f64, count + times)
    });
    // 0 without any, as the mean is.
    sum / f64::max(count, 1.0)
}

fn record(histogram: &mut Histogram<u64>, nanos: u64) {
    histogram.saturating_record(nanos.max(1));
}

/// The chapter's own benchmark: 1000 items into a new database, through the library's interface, with all defaults.
/// Creating and removing the database is not timed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Puts {
    pub(crate) times: usize,
}

impl Puts {
    fn measure(&self, setup: &Setup) -> Result<Figures> {
        let mut nanos = Vec::new();
        // The first few are not counted: they allocate memory that later ones reuse.
        let uncounted = (self.times / 10).max(1);
        for time in 0..self.times + uncounted {
            let db = Database::create(setup.directory.join(time.to_string()))?;
            let start = Instant::now();
            for i in 0..1000 {
                let key = format!("key{i:010}");
                let item = ItemBuilder::new().string("value", format!("data{i}")).build();
                db.put(key.as_bytes(), item)?;
            }
            let took = start.elapsed().as_nanos() as f64;
            db.close()?;
            if time >= uncounted {
                nanos.push(took);
            }
        }
        let mut found = Figures::default();
        found.set("mean_nanos", nanos.iter().sum::<f64>() / nanos.len() as f64);
        found.set("fastest_nanos", nanos.iter().copied().fold(f64::INFINITY, f64::min));
        found.set("slowest_nanos", nanos.iter().copied().fold(0.0, f64::max));
        Ok(found)
    }
}

/// Reads of 4 KiB at random places of a file just dropped from the page cache, each place once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Disk {
    pub(crate) pages: u64,
    pub(crate) reads: u64,
}

impl Disk {
    fn measure(&self, setup: &Setup) -> Result<Figures> {
        let reads = machine::read_4k(&setup.directory, self.pages, self.reads, Duration::MAX)?;
        let reads = reads.context("the page cache cannot be made to drop a file")?;
        let mut found = Figures::default();
        found.set("read_p50", reads.middle.as_nanos() as f64);
        found.set("device_share", reads.device_share.unwrap_or(0.0));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_of_its_own_leaves_out_the_slowest_thousandth() {
        let mut latencies = histogram().unwrap();
        latencies.record_n(100, 998).unwrap();
        latencies.record_n(600, 1).unwrap();
        latencies.record_n(50_000_000, 1).unwrap();
        assert!((own_mean(&latencies) - 100.5).abs() < 0.1, "{}", own_mean(&latencies));
        assert!(latencies.mean() > 50_000.0);
        assert_eq!(own_mean(&histogram().unwrap()), 0.0);
        let mut one = histogram().unwrap();
        record(&mut one, 7);
        assert_eq!(own_mean(&one), 7.0);
    }
}
