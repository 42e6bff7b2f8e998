//! The log: its limit, its write calls, how long its recovery takes, and the writers that wait for it. Single-threaded
//! and with a simulated clock, except for the two tests that need the disk and threads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kstone_core::clock::{Clock, ManualClock, SystemClock};
use kstone_core::lsm::{
    EngineOptions, EngineStats, LsmEngine, StallReason, StallStats, WriteBatch, WriteOptions,
};
use kstone_core::vfs::{CrashMode, Errno, FaultVfs, MemVfs, Op, Rule, StrictVfs, Vfs};
use kstone_core::{CompactionConfig, DatabaseConfig, Error, Key};

use crate::model::{Rng, manual};

const DB: &str = "db";
const KIB: u64 = 1 << 10;

/// Stripes and records whose sizes make only the log cause flushes.
fn log_only(stripes: usize, limit: u64) -> DatabaseConfig {
    DatabaseConfig::new()
        .with_stripes(stripes)
        .with_max_memtable_records(1_000_000)
        .with_memory_budget(1 << 30)
        .with_max_item_bytes(20_000)
        .with_max_key_bytes(100)
        .with_max_batch_bytes(1 << 30)
        .with_max_wal_size_bytes(limit)
}

fn create(vfs: Arc<dyn Vfs>, config: DatabaseConfig) -> LsmEngine {
    let mut options = manual(vfs, 1);
    (options.config, options.compaction) = (Some(config), Some(CompactionConfig::disabled()));
    LsmEngine::create(Path::new(DB), options).unwrap()
}

fn key(n: u64) -> Key<'static> {
    Key::new(format!("key{n}").into_bytes())
}

fn put(engine: &LsmEngine, n: u64, len: usize) -> Result<u64, Error> {
    engine.put(&key(n), &vec![n as u8; len], WriteOptions::new())
}

fn puts(engine: &LsmEngine, count: u64, len: usize) {
    for n in 0..count {
        put(engine, n, len).unwrap();
    }
}

fn stall(stats: &EngineStats, reason: StallReason) -> Option<StallStats> {
    stats.stalls.iter().find(|stall| stall.reason == reason).copied()
}

/// The size of the log's files: as counted by the engine, and as listed by the directory.
fn log_bytes(engine: &LsmEngine, vfs: &dyn Vfs, dir: &Path) -> (u64, u64) {
    let entries = vfs.list(dir).unwrap().into_iter().filter(|entry| entry.name.ends_with(".log"));
    (engine.stats().unwrap().log_bytes, entries.map(|entry| entry.len).sum())
}

#[test]
fn the_log_is_within_its_limit_after_every_operation_and_every_step() {
    for seed in 0..12 {
        let mut rng = Rng(seed);
        let limit = [256 * KIB, 600 * KIB, 1 << 20][rng.below(3) as usize];
        let mut config = log_only(1 << rng.below(5), limit);
        if rng.below(2) == 0 {
            config = config.with_wal_segment_size(16 * KIB + rng.below(20 * KIB));
        }
        let vfs = Arc::new(StrictVfs::new());
        let engine = create(vfs.clone(), config);
        // Whatever happened before, this stripe pins the start of the log.
        put(&engine, u64::MAX, 10).unwrap();
        let (mut most, mut steps) = (0, 0);
        let mut check = |context: &str| {
            let (counted, listed) = log_bytes(&engine, &*vfs, Path::new(DB));
            assert_eq!(counted, listed, "seed {seed}, {context}");
            assert!(counted <= limit, "seed {seed}, {context}: {counted} of {limit}");
            most = most.max(counted);
        };
        for n in 0..1500 {
            let len = match rng.below(40) {
                0 => 20_000,
                _ => rng.below(1500) as usize,
            };
            let written = put(&engine, rng.next(), len);
            written.unwrap_or_else(|e| panic!("seed {seed}, write {n}: {e}, {:?}", engine.stats().unwrap()));
            check("after a write");
            for _ in 0..rng.below(3) {
                steps += u64::from(engine.step(rng.next()));
                check("after a step");
            }
        }
        let stats = engine.stats().unwrap();
        assert!(most > limit / 2 && steps > 100 && stats.checkpoints > 1, "{most} of {limit}, {stats:?}");
        assert_eq!(stats.background_error, None);
        assert!(engine.get(&key(u64::MAX)).unwrap().is_some());
    }
}

#[test]
fn an_idle_stripe_does_not_pin_the_log() {
    let limit = 512 * KIB;
    let vfs = Arc::new(MemVfs::new());
    let engine = create(vfs.clone(), log_only(16, limit).with_max_memtable_records(20));
    let idle = Key::from("idle");
    engine.put(&idle, b"once", WriteOptions::new()).unwrap();
    // All other items are in one other partition, and thus in one other stripe.
    for n in 0..5000u64 {
        let busy = Key::with_sort(b"busy".to_vec(), n.to_be_bytes().to_vec());
        engine.put(&busy, &[1; 500], WriteOptions::new()).unwrap();
        assert!(log_bytes(&engine, &*vfs, Path::new(DB)).1 <= limit);
        engine.step(n);
    }
    let stats = engine.stats().unwrap();
    assert!(stats.log_bytes_written > 4 * limit && stats.stripes.len() == 2, "{stats:?}");
    assert!(stats.stripes.iter().all(|stripe| stripe.runs > 0), "the idle stripe was not flushed: {stats:?}");
    assert_eq!(engine.get(&idle).unwrap().unwrap().to_vec(), b"once");
}

#[test]
fn batches_that_the_log_cannot_hold_are_refused_and_all_others_written() {
    let limit = 256 * KIB;
    let vfs = Arc::new(MemVfs::new());
    let engine = create(vfs.clone(), log_only(2, limit).with_wal_segment_size(16 * KIB));
    let batch = |items: u64| {
        let mut batch = WriteBatch::new();
        (0..items).for_each(|n| {
            batch.put(key(n), vec![n as u8; 10_000]);
        });
        engine.write(&batch, WriteOptions::new())
    };
    let max = (limit - 2 * 16 * KIB - 8 * KIB) as usize;
    let before = engine.stats().unwrap();
    let refused = batch(40);
    assert!(matches!(refused, Err(Error::BatchTooLarge { max: m, .. }) if m == max), "{refused:?}");
    assert_eq!(engine.stats().unwrap().log_records, before.log_records);
    // The largest batches in sequence, each in its own segment, with small ones between them.
    for n in 0..10 {
        batch(22).unwrap();
        put(&engine, n, 10).unwrap();
        let (counted, listed) = log_bytes(&engine, &*vfs, Path::new(DB));
        assert!(counted == listed && counted <= limit, "{counted} of {limit}");
    }
}

#[test]
fn a_lower_limit_is_reached_without_a_write() {
    let config = |limit| log_only(4, limit).with_max_item_bytes(20_000);
    let vfs = Arc::new(StrictVfs::new());
    let engine = create(vfs.clone(), config(32 << 20));
    for n in 0..8000 {
        put(&engine, n, 1000).unwrap();
        // Background work prepares segments in advance.
        engine.step(0);
    }
    let before = engine.stats().unwrap();
    assert!(before.log_bytes > 8 << 20, "{before:?}");
    // So that only the change of the limit can cause more work.
    while engine.step(0) {}
    for limit in [2 << 20, 300 * KIB] {
        engine.set_config(config(limit)).unwrap();
        let mut steps = 0;
        while engine.step(0) {
            steps += 1;
            assert!(steps < 50_000, "background work never ends");
        }
        let (counted, listed) = log_bytes(&engine, &*vfs, Path::new(DB));
        assert!(counted == listed && counted <= limit, "{counted} of {limit} after {steps} steps");
    }
    let image = Arc::new(vfs.crash(CrashMode::Strict));
    let engine = LsmEngine::open(Path::new(DB), manual(image, 2)).unwrap();
    (0..8000).for_each(|n| assert!(engine.get(&key(n)).unwrap().is_some(), "key {n}"));
}

#[test]
fn a_log_that_cannot_shrink_stops_writers_with_an_error_and_then_goes_on() {
    let vfs = FaultVfs::new(Arc::new(MemVfs::new()));
    vfs.add(Rule::fail(Errno::Io).on(&[Op::Write]).files("*.sst"));
    let clock = Arc::new(ManualClock::new(1));
    let mut options = manual(Arc::new(vfs.clone()), 1);
    options.clock = Arc::<ManualClock>::clone(&clock);
    options.config = Some(log_only(2, 256 * KIB));
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    let mut written = 0;
    let why = loop {
        match put(&engine, written, 1000) {
            Ok(_) => written += 1,
            Err(Error::WriteStalled { why }) => break why,
            Err(other) => panic!("{other}"),
        }
        assert!(written < 1000);
    };
    assert!(why.contains("the log is over its limit") && why.contains("last background failure"), "{why}");
    let stats = engine.stats().unwrap();
    let log = stall(&stats, StallReason::Log).unwrap();
    assert!(
        stats.log_bytes <= 256 * KIB && log.stops > 0 && log.count == log.stops + log.delays,
        "{stats:?}"
    );
    vfs.clear();
    clock.advance(Duration::from_secs(60));
    for n in written..1000 {
        put(&engine, n, 1000).unwrap();
    }
    (0..1000).for_each(|n| assert!(engine.get(&key(n)).unwrap().is_some(), "key {n}"));
}

/// A clock that advances by a millisecond with each reading.
#[derive(Debug, Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn unix_ms(&self) -> u64 {
        1_700_000_000_000
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
    fn random(&self) -> u64 {
        self.0.load(Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Each reason first delays in proportion, then stops writes, and is counted.
#[test]
fn every_reason_delays_and_stops_and_is_counted_and_timed() {
    let run = |config: DatabaseConfig, compaction, flush_each: bool, len: usize| {
        let mut options = manual(Arc::new(MemVfs::new()), 1);
        (options.config, options.compaction) = (Some(config), Some(compaction));
        options.clock = Arc::new(Ticking::default());
        let engine = LsmEngine::create(Path::new(DB), options).unwrap();
        for n in 0..1000 {
            put(&engine, n % 50, len).unwrap();
            if flush_each {
                engine.flush().unwrap();
            }
        }
        engine.stats().unwrap()
    };
    let off = CompactionConfig::disabled;
    let one = || DatabaseConfig::new().with_stripes(1);
    for (reason, stats) in [
        (StallReason::Memtables, run(one().with_memory_budget(20_000), off(), false, 500)),
        (StallReason::Runs, run(one(), CompactionConfig::new().with_sst_threshold(2), true, 10)),
        (StallReason::Log, run(log_only(1, 256 * KIB), off(), false, 1500)),
    ] {
        let stalled = stall(&stats, reason).unwrap_or_else(|| panic!("{reason:?} never stalled: {stats:?}"));
        assert!(stalled.delays > 0, "{stalled:?}");
        assert_eq!(stalled.count, stalled.delays + stalled.stops);
        // The clock advances by at least a millisecond in each stall, and by less than a minute.
        assert!(stalled.nanos >= stalled.count * 1_000_000, "{stalled:?}");
        assert!((1_000_000..60_000_000_000).contains(&stalled.longest_nanos), "{stalled:?}");
        // Each clock reading also causes short waits, which are counted, but there must be no other backlog.
        let backlogs = stats.stalls.iter().filter(|stall| stall.reason.is_backlog()).count();
        assert!(stalled.longest_nanos <= stalled.nanos && backlogs == 1, "{stats:?}");
    }
}

#[test]
fn one_writer_makes_one_write_call_a_record() {
    for size in [64, 1024, 1 << 20] {
        let engine = create(Arc::new(MemVfs::new()), log_only(4, 8 << 20).with_write_buffer_size(size));
        for n in 0..100 {
            put(&engine, n, 500).unwrap();
        }
        let mut batch = WriteBatch::new();
        batch.put(key(1), b"a").delete(key(2));
        engine.write(&batch, WriteOptions::new()).unwrap();
        let stats = engine.stats().unwrap();
        assert_eq!((stats.log_writes, stats.log_records), (101, 101));
        assert!((55_000..60_000).contains(&stats.log_bytes_written), "{stats:?}");
    }
}

/// SSTs are written in units of the write buffer, with a minimum size, also after it is changed while the database is
/// open.
#[test]
fn write_buffer_size_is_the_unit_of_sst_writes_from_256_kib_on() {
    let vfs = FaultVfs::new(Arc::new(MemVfs::new()));
    let writes = vfs.add(Rule::hook(|_| Ok(())).on(&[Op::Write]).files("*.sst"));
    let config = |size| {
        DatabaseConfig::new().with_stripes(1).with_max_memtable_records(100_000).with_write_buffer_size(size)
    };
    let engine = create(Arc::new(vfs), config(64));
    let mut calls = |size| {
        engine.set_config(config(size)).unwrap();
        puts(&engine, 2000, 2000);
        let before = writes.seen();
        engine.flush().unwrap();
        writes.seen() - before
    };
    // 4 MB of items.
    let [small, least, large, whole] = [64, 256 << 10, 1 << 20, 16 << 20].map(&mut calls);
    assert_eq!((small, whole), (least, 1));
    assert!((14..=17).contains(&least) && (4..=5).contains(&large), "{least}, {large}");
}

/// A file system on which the clock advances with every read of the log.
fn slow_log(vfs: Arc<dyn Vfs>, clock: &Arc<ManualClock>, per_read: Duration) -> FaultVfs {
    let (vfs, moved) = (FaultVfs::new(vfs), Arc::clone(clock));
    let hook = Rule::hook(move |_| {
        moved.advance(per_read);
        Ok(())
    });
    vfs.add(hook.on(&[Op::Read]).files("*.log"));
    vfs
}

/// Replays a log of this many records of 1000 bytes, while the clock advances with every read of the log.
fn recovered(vfs: &StrictVfs, config: Option<DatabaseConfig>, per_read: Duration) -> LsmEngine {
    let clock = Arc::new(ManualClock::new(5));
    let slow = slow_log(Arc::new(vfs.crash(CrashMode::All)), &clock, per_read);
    let mut options = manual(Arc::new(slow), 2);
    (options.clock, options.config) = (clock, config);
    LsmEngine::open(Path::new(DB), options).unwrap()
}

#[test]
fn the_replay_rate_is_measured_kept_and_estimates_the_next_recovery() {
    let vfs = StrictVfs::new();
    let config = DatabaseConfig::new().with_stripes(1).with_max_memtable_records(100_000);
    let engine = create(Arc::new(vfs.clone()), config);
    puts(&engine, 1000, 1000);
    engine.sync().unwrap();
    let fresh = engine.stats().unwrap();
    assert_eq!(
        (fresh.recovery_replayed_bytes, fresh.recovery.replay_nanos, fresh.replay_rate),
        (0, 0, 100_000_000)
    );
    assert_eq!(fresh.estimated_recovery_nanos, fresh.log_bytes * 10);
    let engine = recovered(&vfs, None, Duration::from_millis(10));
    let stats = engine.stats().unwrap();
    assert!(stats.recovery_replayed_bytes.abs_diff(fresh.log_bytes_written) < 1000, "{stats:?}");
    assert!(stats.recovery.replay_nanos >= 80_000_000, "{stats:?}");
    let rate = (u128::from(stats.recovery_replayed_bytes) * 1_000_000_000
        / u128::from(stats.recovery.replay_nanos)) as u64;
    assert_eq!(stats.replay_rate, rate);
    assert_eq!(
        stats.estimated_recovery_nanos,
        (u128::from(stats.log_bytes) * 1_000_000_000 / u128::from(rate)) as u64
    );
}

#[test]
fn the_rate_survives_a_close_and_settings_that_change() {
    let vfs = StrictVfs::new();
    let config = DatabaseConfig::new().with_stripes(1).with_max_memtable_records(100_000);
    let engine = create(Arc::new(vfs.clone()), config.clone());
    puts(&engine, 1000, 1000);
    engine.sync().unwrap();
    let image = Arc::new(vfs.crash(CrashMode::All));
    let clock = Arc::new(ManualClock::new(5));
    let slow = slow_log(Arc::<_>::clone(&image) as Arc<dyn Vfs>, &clock, Duration::from_millis(10));
    let mut options = manual(Arc::new(slow), 2);
    options.clock = clock;
    let engine = LsmEngine::open(Path::new(DB), options).unwrap();
    let rate = engine.stats().unwrap().replay_rate;
    assert!(rate < 20_000_000, "{rate}");
    engine.flush().unwrap();
    engine.set_config(config.with_bloom_bits_per_key(7)).unwrap();
    engine.close().unwrap();
    let engine = LsmEngine::open(Path::new(DB), manual(image, 3)).unwrap();
    let stats = engine.stats().unwrap();
    assert_eq!((stats.replay_rate, stats.recovery_replayed_bytes), (rate, 0));
}

#[test]
fn the_recovery_target_bounds_the_log_by_the_rate() {
    let config = DatabaseConfig::new()
        .with_stripes(2)
        .with_max_memtable_records(1_000_000)
        .with_memory_budget(1 << 30);
    let most = |target: Option<u64>| {
        let mut config = config.clone();
        config.recovery_target = target.map(Duration::from_millis);
        let engine = create(Arc::new(MemVfs::new()), config);
        let mut most = (0, 0);
        for n in 0..6000 {
            put(&engine, n, 1000).unwrap();
            engine.step(n);
            let stats = engine.stats().unwrap();
            most = (most.0.max(stats.log_bytes), most.1.max(stats.estimated_recovery_nanos));
        }
        most
    };
    // The rate is 100 MB per second until it is measured.
    let (bytes, estimate) = most(Some(20));
    assert!(bytes <= 2_000_000 && bytes > 1_000_000 && estimate <= 20_000_000, "{bytes}, {estimate}");
    // No log is shorter than eight small segments.
    let (bytes, _) = most(Some(1));
    assert!(bytes <= 512 * KIB && bytes > 256 * KIB, "{bytes}");
    let (bytes, _) = most(None);
    assert!(bytes > 6_000_000, "{bytes}");
}

#[test]
fn a_measured_rate_moves_the_bound() {
    let vfs = StrictVfs::new();
    let config = DatabaseConfig::new().with_stripes(2).with_max_memtable_records(1_000_000);
    let config = config.with_memory_budget(1 << 30).with_recovery_target(Duration::from_millis(100));
    let engine = create(Arc::new(vfs.clone()), config);
    puts(&engine, 2000, 1000);
    engine.sync().unwrap();
    let before = engine.stats().unwrap().log_bytes;
    let engine = recovered(&vfs, None, Duration::from_millis(20));
    let rate = engine.stats().unwrap().replay_rate;
    let bound = (rate / 10).max(512 * KIB);
    assert!(bound < before, "{bound}, {before}");
    for n in 0..3000 {
        put(&engine, n, 1000).unwrap();
        engine.step(n);
    }
    let stats = engine.stats().unwrap();
    assert!(
        stats.log_bytes <= bound
            && stats.estimated_recovery_nanos <= 100_000_000.max(512 * KIB * 1_000_000_000 / rate),
        "{stats:?}"
    );
}

#[test]
fn segments_are_as_long_as_set_while_it_is_open() {
    let config = |size| log_only(1, 64 << 20).with_wal_segment_size(size);
    let engine = create(Arc::new(MemVfs::new()), config(1 << 20));
    let segments = |records| {
        let before = engine.stats().unwrap().log_segments;
        puts(&engine, records, 1000);
        engine.stats().unwrap().log_segments - before
    };
    assert!(segments(500) <= 1);
    engine.set_config(config(16 * KIB)).unwrap();
    // The current segment is filled first; then each segment holds 15 records.
    assert!((60..=80).contains(&segments(1500)), "{:?}", engine.stats().unwrap());
}

#[test]
fn the_stall_limit_in_force_is_that_of_the_last_set_config() {
    let mut options = manual(Arc::new(MemVfs::new()), 1);
    options.clock = Arc::new(Ticking::default());
    let config = |limit| {
        DatabaseConfig::new()
            .with_stripes(1)
            .with_memory_budget(10_000)
            .with_max_memtable_records(100_000)
            .with_write_stall_limit(Duration::from_millis(limit))
    };
    (options.config, options.compaction) = (Some(config(3_600_000)), Some(CompactionConfig::disabled()));
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    let mut batch = WriteBatch::new();
    for n in 0..100 {
        batch.put(key(n), vec![0; 1000]);
    }
    engine.write(&batch, WriteOptions::new()).unwrap();
    engine.set_config(config(1)).unwrap();
    assert!(matches!(put(&engine, 1, 10), Err(Error::WriteStalled { .. })));
    engine.set_config(config(3_600_000)).unwrap();
    put(&engine, 1, 10).unwrap();
}

/// Waits until the condition holds; takes long only if the test fails.
fn until(mut is_so: impl FnMut() -> bool, what: &str) {
    let clock = SystemClock::new();
    while !is_so() {
        assert!(clock.monotonic() < Duration::from_secs(60), "in vain: {what}");
        std::thread::yield_now();
    }
}

/// The timekeeping worker is asleep for a day, and must notice the shorter interval.
#[test]
fn shorter_intervals_wake_the_timekeeper() {
    let day = Duration::from_secs(86_400);
    let strict = StrictVfs::new();
    let config = |sync, checkpoint| {
        let config = DatabaseConfig::new().with_stripes(1).with_max_memtable_records(5);
        config.with_sync_interval(sync).with_checkpoint_interval(checkpoint)
    };
    let mut options = EngineOptions::on(Arc::new(strict.clone()));
    (options.config, options.compaction) = (Some(config(day, day)), Some(CompactionConfig::disabled()));
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    put(&engine, 1, 10).unwrap();
    let survives = || {
        let image = manual(Arc::new(strict.crash(CrashMode::Strict)), 2);
        LsmEngine::open(Path::new(DB), image).unwrap().get(&key(1)).unwrap().is_some()
    };
    assert!(!survives());
    engine.set_config(config(Duration::from_millis(1), day)).unwrap();
    until(survives, "the log is synced");
    // A flush, and then nothing to do until tomorrow.
    puts(&engine, 5, 10);
    until(|| engine.stats().unwrap().flushes > 0, "the memtable is flushed");
    assert_eq!(engine.stats().unwrap().checkpoints, 0);
    engine.set_config(config(day, Duration::from_millis(1))).unwrap();
    until(|| engine.stats().unwrap().checkpoints > 0, "a checkpoint is made");
}

/// A lower bound on the size of all segments at some moment. A single listing is not atomic: it may have both a segment
/// that was removed and one that was created after this removal. Segments in both of two listings all existed between
/// them.
fn listed_at_one_time(vfs: &dyn Vfs, dir: &Path) -> u64 {
    let [first, second] = [(); 2].map(|()| vfs.list(dir).unwrap());
    let stayed = |name: &str| name.ends_with(".log") && second.iter().any(|entry| entry.name == name);
    first.iter().filter(|entry| stayed(&entry.name)).map(|entry| entry.len).sum()
}

/// Random puts by several threads on disk, and a thread that polls the log all the time. Returns the maximum that it
/// observed, as counted and as listed.
fn run_on_disk(
    limit: u64,
    item: usize,
    puts: u64,
    threads: u64,
    options: EngineOptions,
) -> (u64, u64, EngineStats) {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join(DB);
    let vfs = Arc::clone(&options.vfs);
    let engine = LsmEngine::create(&path, options).unwrap();
    engine.put(&Key::from("idle"), b"once", WriteOptions::new()).unwrap();
    let running = AtomicU64::new(threads);
    let most = std::thread::scope(|scope| {
        for thread in 0..threads {
            let (engine, running) = (&engine, &running);
            scope.spawn(move || {
                let mut rng = Rng(thread);
                for _ in 0..puts / threads {
                    put(engine, rng.next(), item).unwrap();
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let mut most = (0, 0);
        while running.load(Ordering::Relaxed) > 0 {
            let counted = engine.stats().unwrap().log_bytes;
            most = (most.0.max(counted), most.1.max(listed_at_one_time(&*vfs, &path)));
            std::thread::yield_now();
        }
        most
    });
    assert!(most.0 <= limit && most.1 <= limit, "{most:?} of {limit}");
    let stats = engine.stats().unwrap();
    assert_eq!((&stats.poisoned, &stats.background_error), (&None, &None));
    engine.close().unwrap();
    (most.0, most.1, stats)
}

#[test]
fn the_log_is_within_its_limit_under_threads_on_the_disk() {
    let limit = 4 << 20;
    let mut options = EngineOptions::disk();
    options.config = Some(
        DatabaseConfig::new().with_stripes(16).with_max_wal_size_bytes(limit).with_max_item_bytes(1 << 20),
    );
    let (counted, listed, stats) = run_on_disk(limit, 50, 200_000, 4, options);
    assert!(counted > limit / 2 && stats.log_records == 200_001, "{counted}, {}", stats.log_records);
    println!("log: {counted} and {listed} bytes at most of {limit}, {} calls", stats.log_writes);
}

#[test]
#[ignore = "takes a while: cargo test --release -p kstone-core --test it -- --ignored --nocapture two_million"]
fn two_million_random_puts_stay_within_32_mb() {
    let limit = 32_000_000;
    let mut options = EngineOptions::disk();
    options.config = Some(DatabaseConfig::new().with_max_wal_size_bytes(limit));
    let clock = SystemClock::new();
    let (counted, listed, stats) = run_on_disk(limit, 200, 2_000_000, 2, options);
    println!("{counted} bytes counted and {listed} listed at most of {limit}, in {:.1?}", clock.monotonic());
    println!(
        "{} records in {} calls, {} flushes, {} checkpoints, {:?}",
        stats.log_records, stats.log_writes, stats.flushes, stats.checkpoints, stats.stalls
    );
}
