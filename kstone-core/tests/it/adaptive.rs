//! Memtables that adapt to the write rate and the available memory: single-threaded, with a simulated clock and
//! machine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kstone_core::clock::ManualClock;
use kstone_core::lsm::{EngineStats, LsmEngine, WriteOptions};
use kstone_core::memory::MemoryProbe;
use kstone_core::vfs::MemVfs;
use kstone_core::{CompactionConfig, DatabaseConfig, Key, MemtableMode};

use crate::model::manual;

const MB: u64 = 1_000_000;
const UNKNOWN: u64 = u64::MAX;

/// A machine with this much available memory in bytes, which counts how often it is queried.
#[derive(Debug)]
struct Machine {
    available: AtomicU64,
    asked: AtomicU64,
}

impl MemoryProbe for Machine {
    fn available(&self) -> Option<u64> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Some(self.available.load(Ordering::Relaxed)).filter(|&bytes| bytes != UNKNOWN)
    }
}

struct Bench {
    engine: LsmEngine,
    clock: Arc<ManualClock>,
    machine: Arc<Machine>,
    written: u64,
}

fn adaptive() -> DatabaseConfig {
    DatabaseConfig::new().with_stripes(1).with_memtable_mode(MemtableMode::Adaptive)
}

fn bench(config: DatabaseConfig, available: u64) -> Bench {
    let clock = Arc::new(ManualClock::new(1));
    let machine = Arc::new(Machine { available: AtomicU64::new(available), asked: AtomicU64::new(0) });
    let mut options = manual(Arc::new(MemVfs::new()), 1);
    options.clock = Arc::clone(&clock) as _;
    options.memory_probe = Arc::clone(&machine) as _;
    (options.config, options.compaction) = (Some(config), Some(CompactionConfig::disabled()));
    let engine = LsmEngine::create(Path::new("db"), options).unwrap();
    Bench { engine, clock, machine, written: 0 }
}

impl Bench {
    /// Writes records of 20 bytes for this many seconds at this rate, and does background work as it becomes due.
    fn write(&mut self, partition: &str, per_second: u64, seconds: u64) {
        for _ in 0..seconds * 20 {
            for _ in 0..per_second / 20 {
                let key = Key::with_sort(partition.as_bytes().to_vec(), self.written.to_be_bytes().to_vec());
                self.engine.put(&key, b"value", WriteOptions::new()).unwrap();
                self.written += 1;
                if self.written.is_multiple_of(100) {
                    self.drain();
                }
            }
            self.clock.advance(Duration::from_millis(50));
        }
    }

    fn drain(&self) -> EngineStats {
        while self.engine.step(0) {}
        self.engine.stats().unwrap()
    }

    fn limits(&self) -> Vec<usize> {
        self.engine.stats().unwrap().stripes.iter().map(|stripe| stripe.memtable_limit).collect()
    }

    /// The memtable limit after a quiet period of this many seconds and a flush.
    fn flush_after(&mut self, seconds: u64) -> usize {
        self.clock.advance(Duration::from_secs(seconds));
        self.write("p", 20, 1);
        self.engine.flush().unwrap();
        self.limits()[0]
    }
}

#[test]
fn the_limit_follows_the_write_rate_and_falls_back() {
    let mut bench = bench(adaptive(), 8000 * MB);
    bench.write("p", 20_000, 3);
    assert_eq!(bench.limits(), [10_000]);
    // Memtables are sealed at this limit.
    bench.engine.flush().unwrap();
    let before = bench.drain().flushes;
    bench.write("p", 20_000, 2);
    let stats = bench.drain();
    assert_eq!((stats.flushes - before, stats.stripes[0].memtable_records), (4, 0), "10,000 records each");
    let quiet = bench.flush_after(60);
    assert!((1000..2000).contains(&quiet), "quiet again, within the hysteresis: {quiet}");
    // A rate of 2,500 per second calls for 5,000 records; within a factor of two, the limit does not move.
    bench.write("p", 2500, 60);
    let limit = bench.limits()[0];
    assert!((2500..10_000).contains(&limit), "{limit}");
}

#[test]
fn scarce_memory_makes_memtables_small_until_there_is_twice_as_much() {
    let mut bench = bench(adaptive(), 8000 * MB);
    let mut with = |available: u64| {
        bench.machine.available.store(available, Ordering::Relaxed);
        bench.flush_after(2)
    };
    assert_eq!([8000, 99, 150, 199, 200, 150].map(|mb| with(mb * MB)), [1000, 500, 500, 500, 1000, 1000]);
    let before = bench.drain().flushes;
    bench.machine.available.store(50 * MB, Ordering::Relaxed);
    assert_eq!(bench.flush_after(2), 500);
    bench.write("p", 20_000, 2);
    let stats = bench.drain();
    assert_eq!((stats.flushes - before, bench.limits()), (1 + 80, vec![500]), "however much is written");
}

#[test]
fn memory_that_is_not_known_is_plenty() {
    let mut bench = bench(adaptive(), UNKNOWN);
    bench.write("p", 20_000, 3);
    assert_eq!(bench.limits(), [10_000]);
}

#[test]
fn memory_is_asked_for_once_a_second_at_most_and_never_with_fixed_memtables() {
    let mut bench = bench(adaptive().with_max_memtable_records(100), 50 * MB);
    bench.write("p", 10_000, 5);
    let asked = bench.machine.asked.load(Ordering::Relaxed);
    assert!((4..=5).contains(&asked), "{asked} times in 5 s and {} flushes", bench.drain().flushes);
    bench.engine.set_config(bench.engine.config().with_memtable_mode(MemtableMode::Fixed)).unwrap();
    bench.write("p", 10_000, 5);
    assert_eq!(bench.machine.asked.load(Ordering::Relaxed), asked);
}

#[test]
fn the_mode_changes_live() {
    let mut bench = bench(adaptive().with_memtable_mode(MemtableMode::Fixed), 8000 * MB);
    bench.write("p", 20_000, 3);
    assert_eq!(bench.limits(), [1000]);
    bench.engine.set_config(adaptive()).unwrap();
    assert_eq!(bench.limits(), [1000], "nothing was measured yet");
    bench.write("p", 20_000, 3);
    assert_eq!(bench.limits(), [10_000]);
    bench.engine.set_config(adaptive().with_memtable_mode(MemtableMode::Fixed)).unwrap();
    assert_eq!(bench.limits(), [1000]);
    let before = bench.drain().flushes;
    bench.write("p", 20_000, 1);
    assert_eq!(bench.drain().flushes - before, 20);
}

#[test]
fn the_memory_budget_is_shared_out_and_holds() {
    // A record of 22 bytes takes about 118 in memory; half of the sum of all limits counts.
    let budget = 200_000;
    let mut bench = bench(adaptive().with_memory_budget(budget), 8000 * MB);
    bench.write("p", 20_000, 3);
    let limit = bench.limits()[0];
    assert!((2500..4000).contains(&limit), "{limit}");
    let held = |stats: EngineStats| stats.stripes.iter().map(|stripe| stripe.memtable_bytes).sum::<usize>();
    for _ in 0..5 {
        bench.write("p", 20_000, 1);
        let held = held(bench.engine.stats().unwrap());
        assert!(held <= budget / 2 * 3, "{held} bytes");
    }
    let left = held(bench.drain());
    assert!(left <= budget, "{left} bytes are left");
}

#[test]
fn the_stripes_that_are_written_most_have_the_largest_memtables() {
    let mut bench = bench(adaptive().with_stripes(4), 8000 * MB);
    for _ in 0..30 {
        bench.write("busy", 8000, 1);
        bench.write("idle", 400, 1);
    }
    let stats = bench.drain();
    let mut limits: Vec<(u64, usize)> =
        stats.stripes.iter().map(|stripe| (stripe.entries, stripe.memtable_limit)).collect();
    limits.sort_unstable();
    let [(_, idle), (_, busy)] = limits[..] else { panic!("both in one stripe: {limits:?}") };
    // In one of four stripes, 4,000 per second count as 16,000 in total, and 200 as 800, which calls for 2,828.
    assert_eq!(busy, 10_000);
    assert!((1500..4000).contains(&idle), "{idle}");
}
