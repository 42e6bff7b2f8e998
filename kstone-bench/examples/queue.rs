//! What reads pay for what was deleted, under default settings: a queue in one partition (put at the end, take the first,
//! delete it), and the first item of partitions whose oldest half was deleted. Prints percentiles, and the entries that
//! the queries looked at, which do not depend on the machine.
//!
//! `cargo run --release -p kstone-bench --example queue [POPS]`. Durability is `Buffered`; engine calls, without the
//! encoding of items.
#![expect(clippy::disallowed_methods, reason = "measures time")]

use std::error::Error;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use kstone_bench::cpu_time;
use kstone_core::lsm::{Direction, EngineOptions, LsmEngine, WriteOptions};
use kstone_core::{Key, SortRange};

const LIVE: u64 = 1_000;
const VALUE: [u8; 200] = [7; 200];

fn main() -> Result<(), Box<dyn Error>> {
    let pops: u64 = std::env::args().nth(1).map_or(Ok(59_000), |pops| pops.parse())?;
    let dir = tempfile::tempdir()?;
    let open = |name: &str| LsmEngine::create(&dir.path().join(name), EngineOptions::disk());
    let queue = open("queue")?;
    let mut times = Times::new(&queue)?;
    for n in 0..LIVE + pops {
        queue.put(&key("queue", n), &VALUE, WriteOptions::new())?;
        if let Some(expected) = n.checked_sub(LIVE) {
            let first = times.first(&queue, "queue")?;
            assert_eq!(first, Some(key("queue", expected)), "the first in is the first out");
            queue.delete(&key("queue", expected), WriteOptions::new())?;
        }
    }
    times.print(&format!("queue of {LIVE}, {pops} pops"), &queue)?;
    for (partitions, items) in [(100, 1_000), (20, 10_000), (4, 100_000)] {
        let halves = open(&format!("halves of {items}"))?;
        let name = |partition: u64| format!("partition {partition}");
        for n in 0..items {
            for partition in 0..partitions {
                halves.put(&key(&name(partition), n), &VALUE, WriteOptions::new())?;
            }
        }
        let mut before = Times::new(&halves)?;
        for round in 0..2_000 {
            before.first(&halves, &name(round % partitions))?;
        }
        before.print(&format!("first items of {partitions} x {items}, nothing deleted"), &halves)?;
        let (mut once, mut again) = (Times::new(&halves)?, Times::new(&halves)?);
        for partition in 0..partitions {
            for n in 0..items / 2 {
                halves.delete(&key(&name(partition), n), WriteOptions::new())?;
            }
            let first = once.first(&halves, &name(partition))?;
            assert_eq!(first, Some(key(&name(partition), items / 2)));
        }
        once.print(&format!("oldest half of {partitions} x {items} deleted, the first item"), &halves)?;
        again.skipped = Times::new(&halves)?.skipped;
        for partition in 0..partitions {
            again.first(&halves, &name(partition))?;
        }
        again.print("the same read again", &halves)?;
    }
    Ok(())
}

fn key(partition: &str, n: u64) -> Key<'static> {
    Key::with_sort(partition.as_bytes().to_vec(), n.to_be_bytes().to_vec())
}

struct Times {
    nanos: Histogram<u64>,
    cpu: Histogram<u64>,
    skipped: u64,
}

impl Times {
    fn new(engine: &LsmEngine) -> Result<Self, Box<dyn Error>> {
        Ok(Self { nanos: Histogram::new(3)?, cpu: Histogram::new(3)?, skipped: skipped(engine)? })
    }

    fn first(&mut self, engine: &LsmEngine, partition: &str) -> Result<Option<Key<'static>>, Box<dyn Error>> {
        let (since, cpu) = (Instant::now(), cpu_time());
        let mut entries = engine.query(partition.as_bytes(), &SortRange::All, Direction::Forward, None)?;
        let first = entries.next().transpose()?;
        drop(entries);
        self.nanos.record(since.elapsed().as_nanos() as u64)?;
        self.cpu.record(cpu_time().saturating_sub(cpu).as_nanos() as u64)?;
        Ok(first.map(|(key, _)| key))
    }

    fn print(&self, what: &str, engine: &LsmEngine) -> Result<(), Box<dyn Error>> {
        let at = |of: &Histogram<u64>| {
            let at = |percent| Duration::from_nanos(of.value_at_percentile(percent));
            format!("p50 {:?}, p99 {:?}, longest {:?}", at(50.0), at(99.0), Duration::from_nanos(of.max()))
        };
        let each = (skipped(engine)? - self.skipped) as f64 / self.nanos.len() as f64;
        println!("{what}: {each:.1} entries passed over in a query");
        println!("  {}; CPU time of the thread {}", at(&self.nanos), at(&self.cpu));
        Ok(())
    }
}

/// Entries that queries passed over so far.
fn skipped(engine: &LsmEngine) -> Result<u64, Box<dyn Error>> {
    Ok(engine.stats()?.operations.entries_passed)
}
