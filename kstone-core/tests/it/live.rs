//! Settings take effect without a reopen, settings given at open replace the stored ones, and each write is as durable
//! as it or its handle requests. Each setting that may change while the database is open has a row in a table here: its
//! effect with one value, and then, on the same engine, with another.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kstone_core::clock::{Clock, ManualClock};
use kstone_core::lsm::{EngineOptions, EngineStats, LsmEngine, StatsSnapshot, WriteBatch, WriteOptions};
use kstone_core::vfs::{
    CrashMode, FaultVfs, MemVfs, Op, OpenMode, Rule, RuleHandle, StrictVfs, Vfs, read_all,
};
use kstone_core::{
    CompactionConfig, Compression, DatabaseConfig, Durability, Error, Key, MemtableMode, ReadMode,
};

use crate::model::manual;

const DB: &str = "db";
const SECOND: Duration = Duration::from_secs(1);

/// A clock that advances on request, and by this many milliseconds with each reading.
#[derive(Debug)]
struct Watch {
    inner: ManualClock,
    tick: AtomicU64,
}

impl Clock for Watch {
    fn unix_ms(&self) -> u64 {
        self.inner.unix_ms()
    }
    fn monotonic(&self) -> Duration {
        self.inner.advance(Duration::from_millis(self.tick.load(Ordering::Relaxed)));
        self.inner.monotonic()
    }
    fn random(&self) -> u64 {
        self.inner.random()
    }
}

struct Bed {
    engine: LsmEngine,
    vfs: StrictVfs,
    clock: Arc<Watch>,
    sst_writes: RuleHandle,
    next: Cell<usize>,
}

fn key(n: usize) -> Key<'static> {
    Key::new(format!("k{n:07}").into_bytes())
}

fn noise(n: usize, len: usize) -> Vec<u8> {
    let mut random = crate::model::Rng(n as u64);
    (0..len).map(|_| random.next() as u8).collect()
}

impl Bed {
    fn new(database: DatabaseConfig, compaction: CompactionConfig) -> Self {
        let vfs = StrictVfs::new().with_shared_bytes();
        let probe = FaultVfs::new(Arc::new(vfs.clone()));
        let sst_writes = probe.add(Rule::hook(|_| Ok(())).on(&[Op::Write]).files("*.sst"));
        let clock = Arc::new(Watch { inner: ManualClock::new(1), tick: AtomicU64::new(0) });
        let mut options = manual(Arc::new(probe), 1);
        options.clock = Arc::<Watch>::clone(&clock);
        (options.config, options.compaction) = (Some(database), Some(compaction));
        let engine = LsmEngine::create(Path::new(DB), options).unwrap();
        Self { engine, vfs, clock, sst_writes, next: Cell::new(0) }
    }

    fn fresh(&self) -> usize {
        self.next.replace(self.next.get() + 1)
    }

    fn put_at(&self, n: usize, len: usize) -> bool {
        match self.engine.put(&key(n), &noise(n, len), WriteOptions::new()) {
            Ok(_) => true,
            Err(Error::DiskFull | Error::WriteStalled { .. }) => false,
            Err(Error::KeyTooLarge { .. } | Error::ItemTooLarge { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn put(&self, len: usize) -> bool {
        self.put_at(self.fresh(), len)
    }

    fn puts(&self, count: usize, len: usize) {
        (0..count).for_each(|_| assert!(self.put(len)));
    }

    fn drain(&self) -> EngineStats {
        let mut steps = 0;
        while self.engine.step(0) {
            steps += 1;
            assert!(steps < 100_000, "background work never ends");
        }
        self.engine.stats().unwrap()
    }

    fn flush(&self) -> EngineStats {
        self.engine.flush().unwrap();
        self.drain()
    }

    fn wait(&self, time: Duration) -> u64 {
        self.clock.inner.advance(time);
        self.drain().compactions
    }

    /// Merges everything into one run per stripe, leaving nothing in memory.
    fn tidy(&self) -> EngineStats {
        self.flush();
        (0..self.engine.stripe_count()).for_each(|stripe| self.engine.trigger_compaction(stripe).unwrap());
        self.drain()
    }

    /// The number of puts that fill a memtable.
    fn puts_to_a_flush(&self, len: usize) -> u64 {
        let before = self.flush().flushes;
        (1..1000)
            .find(|_| {
                self.put(len);
                self.drain().flushes > before
            })
            .unwrap_or(1000)
    }

    /// The maximum size of the log while this many records are written.
    fn longest_log(&self, puts: usize) -> u64 {
        self.flush();
        let bytes = (0..puts).map(|_| {
            self.puts(1, 1000);
            self.engine.stats().unwrap().log_bytes
        });
        bytes.max().unwrap_or(0)
    }

    /// The size of the SSTs that this many records of text are flushed to.
    fn flushed(&self, puts: usize) -> u64 {
        let before = self.flush().sst_bytes;
        for _ in 0..puts {
            let n = self.fresh();
            self.engine.put(&key(n), &[b'x'; 20], WriteOptions::new()).unwrap();
        }
        self.flush().sst_bytes - before
    }

    fn ssts(&self) -> u64 {
        self.engine.stats().unwrap().stripes.iter().map(|stripe| stripe.ssts as u64).sum()
    }

    /// The number of compactions that the work makes due.
    fn compactions(&self, work: impl FnOnce(&Self)) -> u64 {
        let before = self.drain().compactions;
        work(self);
        self.drain().compactions - before
    }

    /// The number of flushes of this many records before one causes a compaction.
    fn flushes_to_a_compaction(&self, records: usize) -> u64 {
        self.puts(records, 10);
        let before = self.tidy().compactions;
        (1..50)
            .find(|_| {
                self.puts(records, 10);
                self.flush().compactions > before
            })
            .unwrap_or(50)
    }
}

type Set = fn(&mut DatabaseConfig, &mut CompactionConfig);

/// A setting with its values before and after, its effect as a number, and the relation that the two numbers must
/// satisfy.
struct Case {
    setting: &'static str,
    before: Set,
    after: Set,
    effect: fn(&Bed) -> u64,
    holds: fn(u64, u64) -> bool,
}

/// One stripe; only the setting under test causes flushes or compactions.
fn quiet() -> (DatabaseConfig, CompactionConfig) {
    let database = DatabaseConfig::new()
        .with_stripes(1)
        .with_max_memtable_records(1 << 20)
        .with_memory_budget(1 << 30)
        .with_max_key_bytes(100)
        .with_max_item_bytes(4000)
        .with_compression(Compression::Never);
    let compaction = CompactionConfig::new()
        .with_sst_threshold(1000)
        .with_tombstone_age(Duration::MAX)
        .with_tombstone_percent(100)
        .with_garbage_percent(10_000)
        .with_idle_compaction(false);
    (database, compaction)
}

const CASES: &[Case] = &[
    Case {
        setting: "max_memtable_size_bytes",
        before: |d, _| d.max_memtable_size_bytes = Some(1000),
        after: |d, _| d.max_memtable_size_bytes = Some(3000),
        effect: |bed| bed.puts_to_a_flush(100),
        holds: |a, b| (8..=10).contains(&a) && (25..=30).contains(&b),
    },
    Case {
        setting: "max_memtable_records",
        before: |d, _| d.max_memtable_records = 10,
        after: |d, _| d.max_memtable_records = 25,
        effect: |bed| bed.puts_to_a_flush(1),
        holds: |a, b| (a, b) == (10, 25),
    },
    Case {
        setting: "memory_budget",
        before: |d, _| d.memory_budget = Some(10_000),
        after: |d, _| d.memory_budget = Some(40_000),
        effect: |bed| bed.puts_to_a_flush(500),
        holds: |a, b| (12..=20).contains(&a) && (50..=80).contains(&b),
    },
    Case {
        setting: "memtable_mode",
        before: |d, _| (d.max_memtable_records, d.memtable_mode) = (1000, MemtableMode::Fixed),
        after: |d, _| (d.max_memtable_records, d.memtable_mode) = (1000, MemtableMode::Adaptive),
        effect: |bed| {
            for _ in 0..300 {
                bed.puts(100, 1);
                bed.drain();
                bed.clock.inner.advance(Duration::from_millis(5));
            }
            bed.drain().stripes[0].memtable_limit as u64
        },
        holds: |a, b| a == 1000 && b > 2000,
    },
    Case {
        setting: "max_wal_size_bytes",
        before: |d, _| (d.wal_segment_size, d.max_wal_size_bytes) = (Some(16 << 10), Some(96 << 10)),
        after: |d, _| (d.wal_segment_size, d.max_wal_size_bytes) = (Some(16 << 10), Some(256 << 10)),
        effect: |bed| bed.longest_log(600),
        holds: |a, b| (32 << 10..=96 << 10).contains(&a) && (128 << 10..=256 << 10).contains(&b),
    },
    Case {
        setting: "recovery_target",
        before: |d, _| d.recovery_target = Some(Duration::from_millis(10)),
        after: |d, _| d.recovery_target = Some(Duration::from_millis(20)),
        // The rate is 100 MB per second until it is measured.
        effect: |bed| bed.longest_log(4000),
        holds: |a, b| (500_000..=1_000_000).contains(&a) && (1_100_000..=2_000_000).contains(&b),
    },
    Case {
        setting: "wal_segment_size",
        before: |d, _| d.wal_segment_size = Some(16 << 10),
        after: |d, _| d.wal_segment_size = Some(64 << 10),
        effect: |bed| {
            let before = bed.engine.stats().unwrap().log_segments;
            bed.puts(200, 1000);
            (bed.engine.stats().unwrap().log_segments - before) as u64
        },
        holds: |a, b| (12..=15).contains(&a) && (2..=4).contains(&b),
    },
    Case {
        setting: "max_total_disk_bytes",
        before: |d, _| d.max_total_disk_bytes = Some(1 << 20),
        after: |d, _| d.max_total_disk_bytes = Some(3 << 20),
        effect: |bed| {
            let _full = (0..5000).find(|_| !bed.put(1000));
            bed.engine.disk_usage().unwrap().used
        },
        holds: |a, b| (300 << 10..=1 << 20).contains(&a) && (1200 << 10..=3 << 20).contains(&b),
    },
    Case {
        setting: "write_buffer_size",
        before: |d, _| d.write_buffer_size = 64,
        after: |d, _| d.write_buffer_size = 16 << 20,
        effect: |bed| {
            bed.puts(1000, 2000);
            let before = bed.sst_writes.seen();
            bed.flush();
            bed.sst_writes.seen() - before
        },
        holds: |a, b| (7..=9).contains(&a) && b == 1,
    },
    Case {
        setting: "wal_buffer_size",
        before: |d, _| d.wal_buffer_size = 0,
        after: |d, _| d.wal_buffer_size = 8 << 10,
        effect: |bed| {
            let before = bed.engine.stats().unwrap().log_writes;
            bed.puts(400, 100);
            bed.engine.stats().unwrap().log_writes - before
        },
        holds: |a, b| a == 400 && (7..=12).contains(&b),
    },
    Case {
        setting: "bloom_bits_per_key",
        before: |d, _| d.bloom_bits_per_key = 10,
        after: |d, _| d.bloom_bits_per_key = 40,
        effect: |bed| bed.flushed(1000),
        holds: |a, b| (b - a).abs_diff(30 * 1000 / 8) <= 256,
    },
    Case {
        setting: "block_size",
        before: |d, _| d.block_size = 4096,
        after: |d, _| d.block_size = 64,
        effect: |bed| bed.flushed(1000),
        holds: |a, b| b > a + 2000,
    },
    Case {
        setting: "target_sst_size",
        before: |d, _| d.target_sst_size = 1 << 20,
        after: |d, _| d.target_sst_size = 64 << 10,
        effect: |bed| {
            let before = bed.ssts();
            bed.puts(200, 1000);
            bed.flush();
            bed.ssts() - before
        },
        holds: |a, b| a == 1 && (3..=5).contains(&b),
    },
    Case {
        setting: "compression",
        before: |d, _| d.compression = Compression::Never,
        after: |d, _| d.compression = Compression::Always,
        effect: |bed| bed.flushed(2000),
        holds: |a, b| b < a / 3 * 2,
    },
    Case {
        setting: "read_mode",
        before: |d, _| d.read_mode = ReadMode::Mmap,
        after: |d, _| d.read_mode = ReadMode::Pread,
        effect: |bed| {
            bed.puts(10, 100);
            bed.flush();
            bed.engine.get(&key(bed.next.get() - 1)).unwrap().unwrap();
            bed.engine.stats().unwrap().block_cache.misses
        },
        holds: |a, b| a == 0 && b > 0,
    },
    Case {
        setting: "block_cache_bytes",
        before: |d, _| (d.read_mode, d.block_cache_bytes) = (ReadMode::Pread, 64 << 10),
        after: |d, _| (d.read_mode, d.block_cache_bytes) = (ReadMode::Pread, 1 << 20),
        effect: |bed| {
            bed.puts(300, 1000);
            bed.flush();
            (0..bed.next.get()).for_each(|n| assert!(bed.engine.get(&key(n)).unwrap().is_some()));
            bed.engine.stats().unwrap().block_cache.bytes
        },
        holds: |a, b| (1..=64 << 10).contains(&a) && b > 300_000,
    },
    Case {
        setting: "max_key_bytes",
        before: |d, _| d.max_key_bytes = 10,
        after: |d, _| d.max_key_bytes = 20,
        effect: |bed| {
            let fits = |len| bed.engine.put(&Key::new(vec![b'k'; len]), b"", WriteOptions::new()).is_ok();
            (1..50).take_while(|&len| fits(len)).count() as u64
        },
        holds: |a, b| (a, b) == (10, 20),
    },
    Case {
        setting: "max_item_bytes",
        before: |d, _| d.max_item_bytes = 100,
        after: |d, _| d.max_item_bytes = 200,
        effect: |bed| (1..300).take_while(|&len| bed.put(len)).count() as u64,
        holds: |a, b| (a, b) == (100, 200),
    },
    Case {
        setting: "max_batch_bytes",
        before: |d, _| d.max_batch_bytes = 4000,
        after: |d, _| d.max_batch_bytes = 8000,
        effect: |bed| {
            let mut batch = WriteBatch::new();
            let fits = |n: &usize| {
                batch.put(key(*n), [0; 100]);
                bed.engine.write(&batch, WriteOptions::new()).is_ok()
            };
            (0..200).take_while(fits).count() as u64
        },
        holds: |a, b| (30..=40).contains(&a) && (2 * a..=2 * a + 1).contains(&b),
    },
    Case {
        setting: "write_stall_limit",
        before: |d, _| (d.memory_budget, d.write_stall_limit) = (Some(10_000), Duration::from_millis(1)),
        after: |d, _| (d.memory_budget, d.write_stall_limit) = (Some(10_000), 3600 * SECOND),
        effect: |bed| {
            let mut batch = WriteBatch::new();
            (0..100).for_each(|n| _ = batch.put(key(n), [0; 1000]));
            bed.engine.write(&batch, WriteOptions::new()).unwrap();
            bed.clock.tick.store(1, Ordering::Relaxed);
            let done = bed.put(1);
            bed.clock.tick.store(0, Ordering::Relaxed);
            bed.drain();
            u64::from(done)
        },
        holds: |a, b| (a, b) == (0, 1),
    },
    Case {
        setting: "sync_interval",
        before: |d, _| d.sync_interval = Duration::ZERO,
        after: |d, _| d.sync_interval = SECOND,
        effect: |bed| {
            bed.puts(1, 10);
            bed.drain();
            let image = manual(Arc::new(bed.vfs.crash(CrashMode::Strict)), 2);
            let crashed = LsmEngine::open(Path::new(DB), image).unwrap();
            u64::from(crashed.get(&key(bed.next.get() - 1)).unwrap().is_some())
        },
        holds: |a, b| (a, b) == (0, 1),
    },
    Case {
        setting: "stats_snapshot_interval",
        before: |d, _| d.stats_snapshot_interval = Some(1000 * SECOND),
        after: |d, _| d.stats_snapshot_interval = Some(10 * SECOND),
        effect: |bed| {
            let text = || {
                let file = bed.vfs.open(&Path::new(DB).join(StatsSnapshot::FILE), OpenMode::Read).ok()?;
                Some(read_all(&*file, 1 << 20).unwrap())
            };
            bed.puts(1, 10);
            bed.drain();
            let before = text();
            bed.wait(10 * SECOND);
            u64::from(text() != before)
        },
        holds: |a, b| (a, b) == (0, 1),
    },
    Case {
        setting: "latency_sampling",
        before: |d, _| d.latency_sampling = 1,
        after: |d, _| d.latency_sampling = 4,
        effect: |bed| {
            let before = bed.engine.latencies().put.count;
            bed.puts(12, 1);
            bed.engine.latencies().put.count - before
        },
        holds: |a, b| (a, b) == (12, 3),
    },
    Case {
        setting: "enabled",
        before: |_, c| (c.enabled, c.sst_threshold) = (false, 2),
        after: |_, c| (c.enabled, c.sst_threshold) = (true, 2),
        effect: |bed| bed.flushes_to_a_compaction(1),
        holds: |a, b| (a, b) == (50, 1),
    },
    Case {
        setting: "sst_threshold",
        before: |_, c| c.sst_threshold = 6,
        after: |_, c| c.sst_threshold = 3,
        effect: |bed| bed.flushes_to_a_compaction(1),
        holds: |a, b| (a, b) == (5, 2),
    },
    Case {
        setting: "check_interval_secs",
        before: |_, c| (c.tombstone_age, c.check_interval_secs) = (Some(SECOND), 300),
        after: |_, c| (c.tombstone_age, c.check_interval_secs) = (Some(SECOND), 30),
        effect: |bed| {
            bed.puts(20, 10);
            bed.flush();
            bed.engine.delete(&key(0), WriteOptions::new()).unwrap();
            bed.flush();
            bed.compactions(|bed| _ = bed.wait(30 * SECOND))
        },
        holds: |a, b| (a, b) == (0, 1),
    },
    Case {
        setting: "tombstone_age",
        before: |_, c| c.tombstone_age = Some(100 * 3600 * SECOND),
        after: |_, c| c.tombstone_age = Some(3600 * SECOND),
        effect: |bed| {
            bed.puts(20, 10);
            bed.flush();
            bed.engine.delete(&key(0), WriteOptions::new()).unwrap();
            bed.flush();
            bed.compactions(|bed| _ = bed.wait(2 * 3600 * SECOND))
        },
        holds: |a, b| (a, b) == (0, 1),
    },
    Case {
        setting: "tombstone_percent",
        before: |_, c| c.tombstone_percent = 60,
        after: |_, c| c.tombstone_percent = 10,
        effect: |bed| {
            bed.puts(100, 10);
            bed.tidy();
            bed.compactions(|bed| {
                for n in 1_000_000..1_000_050 {
                    bed.engine.delete(&key(n), WriteOptions::new()).unwrap();
                }
                bed.flush();
            })
        },
        holds: |a, b| (a, b) == (0, 1),
    },
    Case {
        setting: "garbage_percent",
        before: |_, c| c.garbage_percent = 1000,
        after: |_, c| c.garbage_percent = 50,
        effect: |bed| {
            let write = || {
                (0..1000).for_each(|n| assert!(bed.put_at(n, 10)));
                bed.flush();
            };
            write();
            bed.tidy();
            bed.compactions(|_| write())
        },
        holds: |a, b| (a, b) == (0, 1),
    },
    Case {
        setting: "idle_compaction",
        before: |_, c| (c.sst_threshold, c.idle_compaction) = (10, false),
        after: |_, c| (c.sst_threshold, c.idle_compaction) = (10, true),
        effect: |bed| {
            bed.tidy();
            bed.compactions(|bed| {
                for _ in 0..6 {
                    bed.puts(10, 10);
                    bed.flush();
                }
                (0..3).for_each(|_| _ = bed.wait(60 * SECOND));
            })
        },
        holds: |a, b| (a, b) == (0, 1),
    },
    Case {
        setting: "dephasing",
        before: |d, c| (d.stripes, c.sst_threshold, c.dephasing) = (Some(4), 8, false),
        after: |d, c| (d.stripes, c.sst_threshold, c.dephasing) = (Some(4), 8, true),
        effect: |bed| bed.flushes_to_a_compaction(200),
        holds: |a, b| (a, b) == (7, 5),
    },
];

#[test]
fn every_setting_but_intervals_and_parallelism_changes_live() {
    let mut failed = Vec::new();
    for case in CASES {
        let (mut database, mut compaction) = quiet();
        (case.before)(&mut database, &mut compaction);
        let bed = Bed::new(database, compaction);
        let before = (case.effect)(&bed);
        let (mut database, mut compaction) = quiet();
        (case.after)(&mut database, &mut compaction);
        bed.engine.set_config(database).unwrap();
        bed.engine.set_compaction_config(compaction).unwrap();
        let after = (case.effect)(&bed);
        if !(case.holds)(before, after) {
            failed.push((case.setting, before, after));
        }
    }
    assert!(failed.is_empty(), "setting, effect before, effect after: {failed:?}");
}

fn create(
    vfs: Arc<dyn Vfs>,
    config: Option<DatabaseConfig>,
    compaction: Option<CompactionConfig>,
) -> LsmEngine {
    let mut options = manual(vfs, 1);
    (options.config, options.compaction) = (config, compaction);
    LsmEngine::create(Path::new(DB), options).unwrap()
}

fn open(
    vfs: &Arc<MemVfs>,
    config: Option<DatabaseConfig>,
    compaction: Option<CompactionConfig>,
) -> LsmEngine {
    let mut options = manual(Arc::<MemVfs>::clone(vfs), 2);
    (options.config, options.compaction) = (config, compaction);
    LsmEngine::open(Path::new(DB), options).unwrap()
}

/// Flushes and compactions after 30 puts.
fn work(engine: &LsmEngine) -> (u64, u64) {
    let before = engine.stats().unwrap();
    for n in 0..30 {
        engine.put(&key(n), b"value", WriteOptions::new()).unwrap();
        while engine.step(0) {}
    }
    let after = engine.stats().unwrap();
    (after.flushes - before.flushes, after.compactions - before.compactions)
}

#[test]
fn settings_given_at_open_replace_the_stored_ones_whole_and_none_means_stored() {
    let vfs = Arc::new(MemVfs::new());
    let first =
        DatabaseConfig::new().with_stripes(1).with_max_memtable_records(10).with_bloom_bits_per_key(7);
    let twice =
        CompactionConfig::new().with_sst_threshold(2).with_garbage_percent(10_000).with_dephasing(true);
    let engine = create(Arc::<MemVfs>::clone(&vfs), Some(first.clone()), Some(twice.clone()));
    assert_eq!(work(&engine), (3, 2));
    engine.close().unwrap();
    for _ in 0..2 {
        let engine = open(&vfs, None, None);
        assert_eq!((engine.config(), engine.compaction_config()), (first.clone(), twice.clone()));
        let (flushes, compactions) = work(&engine);
        assert!(
            flushes == 3 && compactions >= 2,
            "the stored settings are not in force: {flushes} {compactions}"
        );
        engine.close().unwrap();
    }
    // Only one of the two is given: the other is kept. Fields that the given one does not set are defaults, not the
    // stored values.
    let second = DatabaseConfig::new().with_max_memtable_records(30);
    let engine = open(&vfs, Some(second.clone()), None);
    assert_eq!(engine.config(), second.clone().with_stripes(1));
    assert_eq!(engine.compaction_config(), twice);
    assert_eq!(work(&engine).0, 1);
    engine.close().unwrap();
    let off = CompactionConfig::disabled();
    let engine = open(&vfs, None, Some(off.clone()));
    assert_eq!((engine.config(), engine.compaction_config()), (second.clone().with_stripes(1), off.clone()));
    assert_eq!(work(&engine), (1, 0));
    engine.close().unwrap();
    // The settings were stored without a call of `set_config`.
    let engine = open(&vfs, None, None);
    assert_eq!((engine.config(), engine.compaction_config()), (second.with_stripes(1), off));
    assert_eq!(work(&engine), (1, 0));
}

#[test]
fn a_write_is_as_durable_as_it_asks_or_else_as_its_handle() {
    for (handle, write, durable) in [
        (Durability::Buffered, WriteOptions::new(), false),
        (Durability::Sync, WriteOptions::new(), true),
        (Durability::Buffered, WriteOptions::sync(), true),
        (Durability::Sync, WriteOptions::buffered(), false),
    ] {
        let vfs = StrictVfs::new();
        let mut options: EngineOptions = manual(Arc::new(vfs.clone()), 1);
        options.durability = handle;
        let engine = LsmEngine::create(Path::new(DB), options).unwrap();
        assert_eq!(engine.durability(), handle);
        engine.put(&key(0), b"first", WriteOptions::sync()).unwrap();
        engine.put(&key(1), b"put", write).unwrap();
        let crashed = |n| {
            let image = manual(Arc::new(vfs.crash(CrashMode::Strict)), 2);
            let engine = LsmEngine::open(Path::new(DB), image).unwrap();
            assert!(engine.get(&key(0)).unwrap().is_some());
            engine.get(&key(n)).unwrap().is_some()
        };
        assert_eq!(crashed(1), durable, "{handle:?} {write:?}");
        let mut batch = WriteBatch::new();
        batch.put(key(2), b"batch");
        engine.write(&batch, write).unwrap();
        assert_eq!(crashed(2), durable, "{handle:?} {write:?}");
    }
}

/// The reason why limits of memtables may be smaller than the largest item.
#[test]
fn an_item_larger_than_its_memtable_is_taken_and_flushed_at_once() {
    for set in [|d| d.max_memtable_size_bytes = Some(1), |d| d.memory_budget = Some(1)]
        as [fn(&mut DatabaseConfig); 2]
    {
        let mut config = DatabaseConfig::new().with_stripes(1);
        set(&mut config);
        let engine = create(Arc::new(MemVfs::new()), Some(config), Some(CompactionConfig::disabled()));
        for n in 1..=3 {
            engine.put(&key(n), &[1; 100_000], WriteOptions::new()).unwrap();
            while engine.step(0) {}
            let stats = engine.stats().unwrap();
            assert_eq!((stats.flushes, stats.stripes[0].memtable_records), (n as u64, 0));
        }
    }
}

#[test]
fn a_quota_below_what_is_used_is_accepted_reported_and_enforced() {
    let vfs = Arc::new(MemVfs::new());
    let engine = create(Arc::<MemVfs>::clone(&vfs), Some(quiet().0), None);
    for n in 0..3000 {
        engine.put(&key(n), &noise(n, 1000), WriteOptions::new()).unwrap();
    }
    let limited = || quiet().0.with_max_total_disk_bytes(1 << 20);
    let put = |engine: &LsmEngine| engine.put(&key(9999), b"one more", WriteOptions::new());
    let enforced = |engine: &LsmEngine| {
        let usage = engine.disk_usage().unwrap();
        assert!(usage.used > 2 << 20, "{usage:?}");
        assert_eq!((usage.limit, usage.available_for_writes), (Some(1 << 20), Some(0)));
        assert!(matches!(put(engine), Err(Error::DiskFull)));
        assert_eq!(engine.get(&key(7)).unwrap().unwrap()[..], noise(7, 1000));
    };
    engine.set_config(limited()).unwrap();
    enforced(&engine);
    engine.set_config(quiet().0).unwrap();
    put(&engine).unwrap();
    engine.close().unwrap();
    let engine = open(&vfs, Some(limited()), None);
    enforced(&engine);
}

/// As documented for the setting; in detail in `quota.rs`.
#[test]
fn a_quota_below_what_is_used_takes_deletes() {
    let engine = create(Arc::new(MemVfs::new()), Some(quiet().0), None);
    for n in 0..3000 {
        engine.put(&key(n), &noise(n, 1000), WriteOptions::new()).unwrap();
    }
    engine.set_config(quiet().0.with_max_total_disk_bytes(1 << 20)).unwrap();
    engine.delete(&key(8), WriteOptions::new()).unwrap();
}
