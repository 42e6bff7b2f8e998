//! Section 23.6 of the specification, "Benchmarking Techniques": its code as printed, with small counts.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::manual_checked_ops,
    reason = "the specification's code, as it is printed: it takes the time itself"
)]

use std::sync::atomic::{AtomicU64, Ordering};

/// "Simple Performance Testing".
#[rustfmt::skip]
mod simple {
    use kstone_api::{Database, ItemBuilder};
    use std::time::Instant;

    pub(super) fn benchmark_writes(db: &Database, count: usize) {
        let start = Instant::now();

        for i in 0..count {
            let key = format!("key{:010}", i);
            let item = ItemBuilder::new().string("data", format!("value{}", i)).build();
            db.put(key.as_bytes(), item).unwrap();
        }

        let duration = start.elapsed();
        let ops_per_sec = count as f64 / duration.as_secs_f64();

        println!("Writes: {:.0} ops/sec", ops_per_sec);
        println!("Average latency: {:.2}μs", duration.as_micros() as f64 / count as f64);
    }

    pub(super) fn benchmark_reads(db: &Database, count: usize) {
        let start = Instant::now();

        for i in 0..count {
            let key = format!("key{:010}", i);
            db.get(key.as_bytes()).unwrap();
        }

        let duration = start.elapsed();
        let ops_per_sec = count as f64 / duration.as_secs_f64();

        println!("Reads: {:.0} ops/sec", ops_per_sec);
        println!("Average latency: {:.2}μs", duration.as_micros() as f64 / count as f64);
    }
}

/// "Latency Percentile Tracking".
#[rustfmt::skip]
mod latency {
    use std::collections::BTreeMap;

    pub(super) struct LatencyTracker {
        samples: Vec<u64>, // Latencies in microseconds
    }

    impl LatencyTracker {
        pub(super) fn new() -> Self {
            Self { samples: Vec::new() }
        }

        pub(super) fn record(&mut self, latency_us: u64) {
            self.samples.push(latency_us);
        }

        pub(super) fn percentiles(&mut self) -> BTreeMap<&str, u64> {
            self.samples.sort_unstable();
            let len = self.samples.len();

            let mut result = BTreeMap::new();
            result.insert("P50", self.samples[len * 50 / 100]);
            result.insert("P90", self.samples[len * 90 / 100]);
            result.insert("P99", self.samples[len * 99 / 100]);
            result.insert("P99.9", self.samples[len * 999 / 1000]);

            result
        }
    }
}

/// "Monitoring Metrics".
#[derive(Default)]
#[rustfmt::skip]
struct DatabaseMetrics {
    write_count: AtomicU64,
    read_count: AtomicU64,
    write_latency_sum: AtomicU64,
    read_latency_sum: AtomicU64,
}

#[rustfmt::skip]
impl DatabaseMetrics {
    fn record_write(&self, latency_us: u64) {
        self.write_count.fetch_add(1, Ordering::Relaxed);
        self.write_latency_sum.fetch_add(latency_us, Ordering::Relaxed);
    }

    fn record_read(&self, latency_us: u64) {
        self.read_count.fetch_add(1, Ordering::Relaxed);
        self.read_latency_sum.fetch_add(latency_us, Ordering::Relaxed);
    }

    fn report(&self) {
        let writes = self.write_count.load(Ordering::Relaxed);
        let reads = self.read_count.load(Ordering::Relaxed);

        if writes > 0 {
            let avg_write = self.write_latency_sum.load(Ordering::Relaxed) / writes;
            println!("Writes: {}, avg latency: {}μs", writes, avg_write);
        }

        if reads > 0 {
            let avg_read = self.read_latency_sum.load(Ordering::Relaxed) / reads;
            println!("Reads: {}, avg latency: {}μs", reads, avg_read);
        }
    }
}

#[test]
fn simple_performance_testing() {
    let db = kstone_api::Database::temporary().unwrap();
    simple::benchmark_writes(&db, 2000);
    simple::benchmark_reads(&db, 2000);
    let last = db.get(b"key0000001999").unwrap().unwrap();
    assert_eq!(last.get("data").and_then(kstone_api::Value::as_str), Some("value1999"));
}

#[test]
#[rustfmt::skip]
fn latency_percentile_tracking() {
    use latency::LatencyTracker;
    use std::time::Instant;

    let db = kstone_api::Database::temporary().unwrap();

    // Usage:
    let mut tracker = LatencyTracker::new();

    for i in 0..10000 {
        let start = Instant::now();
        db.get(format!("key{}", i).as_bytes()).unwrap();
        tracker.record(start.elapsed().as_micros() as u64);
    }

    let percentiles = tracker.percentiles();
    println!("P50: {}μs", percentiles["P50"]);
    println!("P99: {}μs", percentiles["P99"]);
    println!("P99.9: {}μs", percentiles["P99.9"]);
    assert!(percentiles["P50"] <= percentiles["P99.9"]);
}

/// "Using Criterion Benchmarks": its set-up closure drops the directory before the database is used, so writing must
/// work in a removed directory.
#[test]
#[rustfmt::skip]
fn criterion_benchmarks() {
    use kstone_api::{Database, ItemBuilder};
    use tempfile::TempDir;

    let db = {
        // Setup: Create fresh database
        let dir = TempDir::new().unwrap();
        Database::create(dir.path()).unwrap()
    };
    // Benchmark: Write 1000 items
    for i in 0..1000 {
        let key = format!("key{:010}", i);
        let item = ItemBuilder::new().string("value", format!("data{}", i)).build();
        db.put(key.as_bytes(), item).unwrap();
    }
}

#[test]
fn monitoring_metrics() {
    let metrics = DatabaseMetrics::default();
    metrics.record_write(3);
    metrics.record_read(1);
    metrics.report();
    assert_eq!(metrics.write_count.load(Ordering::Relaxed), 1);
}
