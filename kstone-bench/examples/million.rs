//! A million items of 200 bytes through `Database::put` on one thread with default settings, then read back:
//! rates, latencies, memory, and the times of close and open.
//!
//! `cargo run --release -p kstone-bench --example million [DIR]`; the directory must not exist. Durability is the
//! default, `Buffered`.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock and /proc")]

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use kstone_api::Database;
use kstone_bench::{item, key};

const ITEMS: u64 = 1_000_000;
const READS: u64 = 500_000;

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let path = std::env::args_os().nth(1).map_or_else(|| temporary.path().join("million"), PathBuf::from);

    let db = Database::create(&path)?;
    let mut nanos = Histogram::<u64>::new(3)?;
    let mut took = Duration::ZERO;
    for n in 0..ITEMS {
        let (key, item) = (key(n), item(n));
        let start = Instant::now();
        db.put(key, item)?;
        let put = start.elapsed();
        nanos.record(put.as_nanos() as u64)?;
        took += put;
    }
    println!(
        "put                {:.0} K/s ({took:.2?} for {ITEMS})",
        ITEMS as f64 / took.as_secs_f64() / 1e3
    );
    latencies("put", &nanos);
    println!("anonymous memory   {} MB of the whole process", anonymous_bytes()? / 1_000_000);
    let stats = db.stats()?;
    println!(
        "                   {} flushes, {} compactions, {} SSTs, held up: {:?}",
        stats.flushes,
        stats.compactions,
        stats.stripes.iter().map(|stripe| stripe.ssts).sum::<usize>(),
        stats
            .stalls
            .iter()
            .map(|stall| (stall.reason, stall.count, stall.nanos / 1_000_000))
            .collect::<Vec<_>>()
    );
    db.flush()?;
    reads(&db, "get hit, from SSTs", |i| key(i.wrapping_mul(7_919) % ITEMS), true)?;
    reads(&db, "get miss", |i| key(ITEMS + i), false)?;
    println!("anonymous memory   {} MB after the reads", anonymous_bytes()? / 1_000_000);

    let start = Instant::now();
    db.close()?;
    println!("close              {:.2?}", start.elapsed());
    let start = Instant::now();
    let db = Database::open(&path)?;
    println!("open, clean        {:.2?}", start.elapsed());
    reads(&db, "first gets", |i| key(i.wrapping_mul(7_919) % ITEMS), true)?;
    Ok(())
}

/// Service times of single gets, each timed.
fn reads(db: &Database, what: &str, key: impl Fn(u64) -> String, hit: bool) -> Result<(), Box<dyn Error>> {
    let mut nanos = Histogram::<u64>::new(3)?;
    for i in 0..READS {
        let key = key(i);
        let start = Instant::now();
        let found = db.get_view(&key)?.is_some();
        nanos.record(start.elapsed().as_nanos() as u64)?;
        if found != hit {
            return Err(format!("{key}: found is {found}").into());
        }
    }
    latencies(what, &nanos);
    Ok(())
}

fn latencies(what: &str, nanos: &Histogram<u64>) {
    let us = |quantile| nanos.value_at_quantile(quantile) as f64 / 1e3;
    let max = nanos.max() as f64 / 1e6;
    println!(
        "{what:<18} p50 {:.2} us, p99 {:.2} us, p99.9 {:.2} us, max {max:.1} ms",
        us(0.5),
        us(0.99),
        us(0.999)
    );
}

/// Memory of this process that no file backs.
fn anonymous_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
