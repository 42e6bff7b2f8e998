//! Latencies of operations, in histograms of bounded size.
//!
//! Of operations on hot paths, one in [`crate::DatabaseConfig::latency_sampling`] is timed; background jobs always are.
//! Recording a sample on a hot path never blocks: a sample that collides with a reader, or with another sample of its
//! kind, is dropped.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::counters::Operation;

mod buckets;

pub use buckets::LatencyBuckets;

/// Longer times count as this one, which bounds a histogram at 136 KiB.
const LONGEST: Duration = Duration::from_secs(3600);
/// Significant decimal digits that a recorded time keeps.
const DIGITS: u8 = 3;

/// The histograms of one handle, each created with its first sample.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    histograms: [Mutex<Option<Histogram<u32>>>; Operation::COUNT],
}

impl Recorder {
    /// Records a sample on a hot path: never blocks, may drop it.
    pub(crate) fn sample(&self, operation: Operation, took: Duration) {
        if let Some(mut histogram) = self.histograms.get(operation as usize).and_then(Mutex::try_lock) {
            add(&mut histogram, took);
        }
    }

    /// Records a sample of background work: always counted.
    pub(crate) fn record(&self, operation: Operation, took: Duration) {
        if let Some(histogram) = self.histograms.get(operation as usize) {
            add(&mut histogram.lock(), took);
        }
    }

    pub(crate) fn summary(&self, operation: Operation) -> LatencySummary {
        // Copied, to hold the lock, which drops samples, as briefly as possible.
        let copy = self.histograms.get(operation as usize).and_then(|histogram| histogram.lock().clone());
        copy.as_ref().map(LatencySummary::of).unwrap_or_default()
    }

    pub(crate) fn latencies(&self) -> Latencies {
        Latencies {
            put: self.summary(Operation::Put),
            get: self.summary(Operation::Get),
            delete: self.summary(Operation::Delete),
            query: self.summary(Operation::Query),
            batch: self.summary(Operation::Batch),
            flush: self.summary(Operation::Flush),
            compaction: self.summary(Operation::Compaction),
            checkpoint: self.summary(Operation::Checkpoint),
            log_sync: self.summary(Operation::LogSync),
        }
    }
}

fn add(histogram: &mut Option<Histogram<u32>>, took: Duration) {
    let nanos = took.min(LONGEST).as_nanos() as u64;
    if histogram.is_none() {
        // It grows as needed. The number of digits is valid, so this cannot fail.
        *histogram = Histogram::new(DIGITS).ok();
    }
    if let Some(histogram) = histogram {
        // It can always grow up to the longest time.
        let _ = histogram.record(nanos);
    }
}

/// The latency distribution of one operation, in nanoseconds, to three significant digits; all zero without samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LatencySummary {
    /// Number of timed operations: one in [`latency_sampling`](crate::DatabaseConfig::latency_sampling) on hot paths,
    /// all in the background.
    pub count: u64,
    /// Mean.
    pub mean_nanos: u64,
    /// Minimum.
    pub min_nanos: u64,
    /// Maximum; times over an hour count as an hour.
    pub max_nanos: u64,
    /// Median.
    pub p50_nanos: u64,
    /// 90th percentile.
    pub p90_nanos: u64,
    /// 99th percentile.
    pub p99_nanos: u64,
    /// 99.9th percentile.
    pub p999_nanos: u64,
}

impl LatencySummary {
    fn of(histogram: &Histogram<u32>) -> Self {
        let quantile = |q| histogram.value_at_quantile(q);
        Self {
            count: histogram.len(),
            mean_nanos: histogram.mean() as u64,
            min_nanos: histogram.min(),
            max_nanos: histogram.max(),
            p50_nanos: quantile(0.5),
            p90_nanos: quantile(0.9),
            p99_nanos: quantile(0.99),
            p999_nanos: quantile(0.999),
        }
    }
}

impl fmt::Display for LatencySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50_nanos, p99_nanos, p999_nanos, max_nanos, .. } = *self;
        let time = |nanos| format!("{:.1?}", Duration::from_nanos(nanos));
        let (p50, p99, p999, max) = (time(p50_nanos), time(p99_nanos), time(p999_nanos), time(max_nanos));
        write!(f, "{count:>10} timed   p50 {p50:>9}   p99 {p99:>9}   p99.9 {p999:>9}   max {max:>9}")
    }
}

/// Latencies since open, by kind of operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Latencies {
    /// Single puts, from the call to its return.
    pub put: LatencySummary,
    /// Gets, including those that found nothing.
    pub get: LatencySummary,
    /// Single deletes.
    pub delete: LatencySummary,
    /// Queries and scans: time spent in the engine, from the call to the end of the iterator.
    pub query: LatencySummary,
    /// Batches.
    pub batch: LatencySummary,
    /// Flushes of one memtable, from start to end.
    pub flush: LatencySummary,
    /// Compactions of one stripe, from start to end.
    pub compaction: LatencySummary,
    /// Checkpoints, from start to end.
    pub checkpoint: LatencySummary,
    /// Syncs of the log.
    pub log_sync: LatencySummary,
}

impl Latencies {
    /// All latencies with their names, in the order of the fields.
    pub fn all(&self) -> [(&'static str, LatencySummary); 9] {
        [
            ("put", self.put),
            ("get", self.get),
            ("delete", self.delete),
            ("query", self.query),
            ("batch", self.batch),
            ("flush", self.flush),
            ("compaction", self.compaction),
            ("checkpoint", self.checkpoint),
            ("log_sync", self.log_sync),
        ]
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, summary) in self.all().iter().filter(|(_, summary)| summary.count > 0) {
            writeln!(f, "{name:<11}{summary}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_known_times_keep_three_digits() {
        let recorder = Recorder::default();
        assert_eq!(recorder.latencies(), Latencies::default());
        for micros in 1..=1000 {
            recorder.sample(Operation::Get, Duration::from_micros(micros));
        }
        recorder.record(Operation::Flush, Duration::from_secs(1_000_000));
        let get = recorder.latencies().get;
        let near = |nanos: u64, micros: u64| nanos.abs_diff(micros * 1000) <= micros;
        assert_eq!(get.count, 1000);
        assert!(near(get.p50_nanos, 500) && near(get.p90_nanos, 900) && near(get.p99_nanos, 990), "{get:?}");
        assert!(near(get.p999_nanos, 999) && near(get.max_nanos, 1000) && near(get.min_nanos, 1), "{get:?}");
        assert!(get.mean_nanos.abs_diff(500_500) <= 500, "{get:?}");
        let flush = recorder.latencies().flush;
        assert!((3_600_000_000_000..3_604_000_000_000).contains(&flush.max_nanos), "{flush:?}");
    }

    #[test]
    fn a_sample_waits_for_nobody() {
        let recorder = Recorder::default();
        let reading = recorder.histograms[Operation::Put as usize].lock();
        recorder.sample(Operation::Put, Duration::from_micros(1));
        drop(reading);
        assert_eq!(recorder.latencies().put.count, 0);
        recorder.sample(Operation::Put, Duration::ZERO);
        assert_eq!(recorder.latencies().put.count, 1);
    }

    #[test]
    fn a_histogram_stays_small() {
        let mut histogram = None;
        add(&mut histogram, LONGEST);
        assert!(histogram.unwrap().distinct_values() * size_of::<u32>() <= 136 << 10);
    }
}
