//! A database under `max_total_disk_bytes`, filled until it is full, half deleted and filled again, while another
//! thread lists its directory all the time.
//!
//! `cargo run --release -p kstone-bench --example quota [MIB] [ROUNDS]`: 64 MiB and 3 rounds by default, with keys spread
//! evenly, then all in one partition. Ends with an error when a listing finds more than the limit, something is not
//! there, a delete is refused, or nothing can be put after deletes.

#![expect(clippy::disallowed_methods, reason = "it lists a directory and says how long it took")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kstone_api::{DatabaseConfig, EngineOptions, Error, Key, LsmEngine, WriteOptions};
use kstone_bench::noise;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const VALUE: usize = 400;
const BETWEEN_LISTINGS: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug)]
enum Shape {
    Spread,
    OnePartition,
}

impl Shape {
    fn key(self, n: u64) -> Key<'static> {
        match self {
            Self::Spread => Key::new(format!("key{n:08}").into_bytes()),
            Self::OnePartition => Key::with_sort(&b"hot"[..], format!("key{n:08}").into_bytes()),
        }
    }
}

/// What all files take, each in whole units of 4 KiB. Those that vanish meanwhile take nothing.
fn listed(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len().next_multiple_of(4096))).sum()
}

#[derive(Debug, Default)]
struct Seen {
    done: AtomicBool,
    samples: AtomicU64,
    highest: AtomicU64,
}

impl Seen {
    fn watch(&self, dir: &Path) {
        while !self.done.load(Ordering::Relaxed) {
            self.highest.fetch_max(listed(dir), Ordering::Relaxed);
            self.samples.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(BETWEEN_LISTINGS);
        }
    }
}

fn run(shape: Shape, quota: u64, rounds: u64, seen: &Seen, path: &Path) -> Result<(), Failure> {
    let mut options = EngineOptions::disk();
    options.config = Some(DatabaseConfig::new().with_max_total_disk_bytes(quota));
    let mut engine = LsmEngine::create(path, options)?;
    let (mut next, mut live) = (0, 0);
    for round in 0..rounds {
        let (start, began) = (next, Instant::now());
        loop {
            match engine.put(&shape.key(next), &noise(next, VALUE), WriteOptions::new()) {
                Ok(_) => next += 1,
                Err(Error::DiskFull) => break,
                Err(error) => return Err(error.into()),
            }
        }
        live += next - start;
        let (filled, usage, stats) = (began.elapsed(), engine.disk_usage()?, engine.stats()?);
        if next - start < live / 5 {
            return Err(format!("round {round}: only {} could be put", next - start).into());
        }
        if round % 2 == 1 {
            engine.close()?;
            engine = LsmEngine::open(path, EngineOptions::disk())?;
        }
        let began = Instant::now();
        for n in start..next {
            if engine.get(&shape.key(n))?.as_deref() != Some(&noise(n, VALUE)) {
                return Err(format!("key {n} is not what was put").into());
            }
        }
        let read = began.elapsed();
        let began = Instant::now();
        for n in (start..next).filter(|n| n % 2 == 0) {
            engine.delete(&shape.key(n), WriteOptions::new())?;
            live -= 1;
        }
        let share = (live + (next - start).div_ceil(2)) as f64 * VALUE as f64 * 100.0 / quota as f64;
        println!(
            "{shape:?}, round {round}: {} put in {filled:.1?}, {share:.0} % of the limit are values; all read in \
             {read:.1?}{}; {} deleted in {:.1?}; {} flushes, {} compactions; {usage}; at most {:.2} MiB in {} listings",
            next - start,
            if round % 2 == 1 { " after a reopen while full" } else { "" },
            (next - start).div_ceil(2),
            began.elapsed(),
            stats.flushes,
            stats.compactions,
            seen.highest.load(Ordering::Relaxed) as f64 / f64::from(1 << 20),
            seen.samples.load(Ordering::Relaxed),
        );
    }
    let put = |n: u64| engine.put(&shape.key(n), &noise(n, VALUE), WriteOptions::new());
    let more = (next..next + 1000).find_map(|n| put(n).err());
    if let Some(error) = more {
        return Err(format!("after the last deletes: {error}").into());
    }
    engine.close()?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<u64>());
    let mib = numbers.next().transpose()?.unwrap_or(64);
    let rounds = numbers.next().transpose()?.unwrap_or(3);
    let quota = mib << 20;
    for shape in [Shape::Spread, Shape::OnePartition] {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("db");
        let seen = Seen::default();
        std::thread::scope(|scope| {
            scope.spawn(|| seen.watch(&path));
            let result = run(shape, quota, rounds, &seen, &path);
            seen.done.store(true, Ordering::Relaxed);
            result
        })?;
        let (samples, highest) = (seen.samples.into_inner(), seen.highest.into_inner());
        println!("{shape:?}: the highest of {samples} listings is {highest} of {quota} bytes");
        if highest > quota {
            return Err("the limit was exceeded".into());
        }
    }
    Ok(())
}
