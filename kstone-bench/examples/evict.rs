//! A cache under a limit on disk space: a put that is refused deletes the oldest items and is tried again.
//!
//! `cargo run --release -p kstone-bench --example evict [MB] [SECONDS] [VALUE] [EVICTED]`: 50 MB, 20 seconds, values of
//! 1,000 bytes and 50 items at a time by default. Prints how long puts took once the database was full, and the stalls,
//! which must add up to about the same.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use kstone_api::{DatabaseConfig, EngineOptions, EngineStats, Error, Key, LsmEngine, WriteOptions};
use kstone_bench::noise;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const LONG: Duration = Duration::from_millis(100);

fn key(n: u64) -> Key<'static> {
    Key::new(format!("key{n:08}").into_bytes())
}

fn print(what: &str, took: &Histogram<u64>) {
    let at = |quantile| Duration::from_nanos(took.value_at_quantile(quantile));
    let all: u64 = took.iter_recorded().map(|step| step.value_iterated_to() * step.count_at_value()).sum();
    println!(
        "{what}: {}, p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}, longest {:.1?}; {} over 100 ms; {:.1?} in all",
        took.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        Duration::from_nanos(took.max()),
        took.count_between(LONG.as_nanos() as u64, u64::MAX),
        Duration::from_nanos(all),
    );
}

fn stalled(stats: &EngineStats) -> Duration {
    Duration::from_nanos(stats.stalls.iter().map(|stall| stall.nanos).sum())
}

fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<u64>());
    let mut next = |default| numbers.next().transpose().map(|given| given.unwrap_or(default));
    let (mb, seconds, len, evicted) = (next(50)?, next(20)?, next(1000)?, next(50)?);
    let dir = tempfile::tempdir()?;
    let mut options = EngineOptions::disk();
    options.config = Some(DatabaseConfig::new().with_max_total_disk_bytes(mb * 1_000_000));
    let engine = LsmEngine::create(&dir.path().join("db"), options)?;
    let (mut oldest, mut newest) = (0, 0);
    let put = |n: u64| engine.put(&key(n), &noise(n, len as usize), WriteOptions::new());
    loop {
        match put(newest) {
            Ok(_) => newest += 1,
            Err(Error::DiskFull) => break,
            Err(error) => return Err(error.into()),
        }
    }
    println!("full with {newest} items: {}", engine.disk_usage()?);
    let before = engine.stats()?;
    let began = Instant::now();
    let mut puts = Histogram::<u64>::new(3)?;
    let (mut refused, mut deletes) = (puts.clone(), puts.clone());
    while began.elapsed() < Duration::from_secs(seconds) {
        let since = Instant::now();
        let result = put(newest);
        match result {
            Ok(_) => {
                puts.record(since.elapsed().as_nanos() as u64)?;
                newest += 1;
            }
            Err(Error::DiskFull) => {
                refused.record(since.elapsed().as_nanos() as u64)?;
                for _ in 0..evicted.min(newest - oldest) {
                    let since = Instant::now();
                    engine.delete(&key(oldest), WriteOptions::new())?;
                    deletes.record(since.elapsed().as_nanos() as u64)?;
                    oldest += 1;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    let after = engine.stats()?;
    println!("{} items at the end: {}", newest - oldest, engine.disk_usage()?);
    print("puts", &puts);
    print("refused", &refused);
    print("deletes", &deletes);
    println!(
        "stalls: {:.1?} in all; {} flushes, {} compactions of {} MB, {} checkpoints",
        stalled(&after).saturating_sub(stalled(&before)),
        after.flushes - before.flushes,
        after.compactions - before.compactions,
        (after.compaction_bytes_read - before.compaction_bytes_read) / 1_000_000,
        after.checkpoints - before.checkpoints,
    );
    for stall in &after.stalls {
        println!(
            "  {:?}: {} of {:.1?}, longest {:.1?}",
            stall.reason,
            stall.count,
            Duration::from_nanos(stall.nanos),
            Duration::from_nanos(stall.longest_nanos)
        );
    }
    for n in oldest..newest {
        if engine.get(&key(n))?.as_deref() != Some(&noise(n, len as usize)) {
            return Err(format!("key {n} is not what was put").into());
        }
    }
    engine.close()?;
    Ok(())
}
