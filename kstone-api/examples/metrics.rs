//! Metrics: the program's own operations, the engine's statistics, and the text for Prometheus.
//!
//! `cargo run -p kstone-api --example metrics [--features prometheus]`
#![expect(clippy::disallowed_methods, reason = "an example that measures reads the clock")]

use std::time::Instant;

use kstone_api::{Database, DatabaseMetrics, ItemBuilder, LatencyTracker, Result};

fn main() -> Result<()> {
    let db = Database::temporary()?;
    // By default, one operation in 64 is timed.
    db.set_config(db.config().with_latency_sampling(8))?;

    // The program's own metrics: counts and averages shared by all threads, percentiles per thread.
    let metrics = DatabaseMetrics::new();
    let mut reads = LatencyTracker::new();
    for n in 0..10_000 {
        let start = Instant::now();
        db.put(format!("key{n}"), ItemBuilder::new().number("n", n))?;
        metrics.record_write(start.elapsed().as_micros() as u64);
    }
    db.flush()?;
    for n in 0..20_000 {
        let start = Instant::now();
        db.get(format!("key{n}"))?;
        let took = start.elapsed().as_micros() as u64;
        metrics.record_read(took);
        reads.record(took);
    }
    metrics.report();
    println!("{reads}");

    // The engine's metrics.
    println!("\n{}", db.stats()?);
    println!("{}", db.latencies());

    // The same metrics for a monitoring system: serve this text at /metrics.
    #[cfg(feature = "prometheus")]
    print!("{}", db.openmetrics());
    #[cfg(not(feature = "prometheus"))]
    println!("(with --features prometheus here follows the text for Prometheus)");
    db.close()
}
