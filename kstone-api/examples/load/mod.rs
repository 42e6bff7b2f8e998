//! Shared by the examples that generate load: operations issued at a fixed rate, however fast the database is, and the
//! process's memory.
//!
//! The load is an *open loop*: operation `i` is due at `i / rate`, and its latency counts from then. If the database
//! falls behind, the latencies include the time that operations spend queued; a loop that starts the next operation
//! when the previous one has finished would leave out exactly the slow moments.
#![allow(dead_code, reason = "each example uses a part of it")]

use std::time::{Duration, Instant};

use kstone_api::{Database, Item, ItemBuilder, LatencyTracker, Result};

/// The duration of the load, and whether this is only a quick check that the example works.
pub(crate) fn length() -> (Duration, bool) {
    let quick = std::env::args().any(|arg| arg == "--quick");
    (if quick { Duration::from_secs(1) } else { Duration::from_secs(60) }, quick)
}

/// The directory given as the first argument, which must not exist yet; by default a temporary one.
pub(crate) fn directory() -> Result<(std::path::PathBuf, Option<tempfile::TempDir>)> {
    if let Some(path) = std::env::args().skip(1).find(|arg| !arg.starts_with("--")) {
        return Ok((path.into(), None));
    }
    let failed =
        |source| kstone_api::Error::Io { op: "create a directory in", path: std::env::temp_dir(), source };
    let dir = tempfile::tempdir().map_err(failed)?;
    Ok((dir.path().join("example.keystone"), Some(dir)))
}

/// The result of a load.
pub(crate) struct Outcome {
    pub(crate) offered: u64,
    pub(crate) done: u64,
    pub(crate) took: Duration,
    pub(crate) latencies: LatencyTracker,
}

impl Outcome {
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percentiles = self.latencies.percentiles();
        write!(
            f,
            "offered {:>7}/s  done {:>9.1}/s   P50 {:>6} us  P99 {:>7} us  P99.9 {:>7} us  max {:>8} us",
            self.offered,
            self.rate(),
            percentiles["P50"],
            percentiles["P99"],
            percentiles["P99.9"],
            self.latencies.max(),
        )
    }
}

/// Issues `rate` operations per second. Returns when all are done, later than `length` if the database is slower.
pub(crate) fn offer(
    rate: u64,
    length: Duration,
    mut operation: impl FnMut(u64) -> Result<()>,
) -> Result<Outcome> {
    let mut latencies = LatencyTracker::new();
    let operations = (rate as f64 * length.as_secs_f64()) as u64;
    let start = Instant::now();
    for i in 0..operations {
        let due = start + Duration::from_secs_f64(i as f64 / rate as f64);
        wait_until(due);
        operation(i)?;
        latencies.record(due.elapsed().as_micros() as u64);
    }
    Ok(Outcome { offered: rate, done: operations, took: start.elapsed().max(length), latencies })
}

/// A sleep ends late by the system's timer slack, so the last part is spent spinning.
fn wait_until(due: Instant) {
    const SLACK: Duration = Duration::from_micros(150);
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left > SLACK {
            std::thread::sleep(left - SLACK);
        } else {
            std::hint::spin_loop();
        }
    }
}

/// An item of about `bytes` bytes.
pub(crate) fn item(n: u64, bytes: usize) -> Item {
    let fill = bytes.saturating_sub(20);
    ItemBuilder::new().number("n", n).string("data", format!("{:0fill$}", scatter(n))).into()
}

/// Scatters consecutive numbers over all 64 bits, deterministically.
pub(crate) fn scatter(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The process's memory in bytes: all resident memory, and the part not backed by files (mapped SSTs are). `None`
/// without `/proc`.
pub(crate) fn memory() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
    };
    Some((field("VmRSS:")?, field("RssAnon:")?))
}

/// Prints memory, disk space, and the engine's statistics.
pub(crate) fn report(db: &Database) -> Result<()> {
    const MB: f64 = 1e6;
    match memory() {
        Some((resident, anonymous)) => println!(
            "memory        {:.0} MB resident, {:.0} MB of it anonymous (the rest is mapped files)",
            resident as f64 / MB,
            anonymous as f64 / MB
        ),
        None => println!("memory        not known here: there is no /proc"),
    }
    let stats = db.stats()?;
    let disk = db.disk_usage()?.used;
    println!(
        "disk          {:.1} MB: SSTs {:.1}, log {:.1}",
        disk as f64 / MB,
        stats.sst_bytes as f64 / MB,
        stats.log_bytes as f64 / MB
    );
    let runs = stats.stripes.iter().map(|stripe| stripe.runs).max().unwrap_or(0);
    println!(
        "engine        {} flushes, {} compactions, at most {runs} runs in a stripe",
        stats.flushes, stats.compactions
    );
    for stall in &stats.stalls {
        println!(
            "held up       {} writes for {:.1?} in all: {:?}",
            stall.count,
            Duration::from_nanos(stall.nanos),
            stall.reason
        );
    }
    Ok(())
}
