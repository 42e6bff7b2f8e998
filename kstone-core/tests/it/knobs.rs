//! Every setting has its effect, and every counter counts what happened: single-threaded, on a simulated clock. A
//! setting that is never used fails here. When interval-based work is due is tested next to the code that decides it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kstone_core::clock::{Clock, ManualClock};
use kstone_core::lsm::{EngineOptions, EngineStats, LsmEngine, StallReason, WriteBatch, WriteOptions};
use kstone_core::vfs::{CrashMode, MemVfs, StrictVfs};
use kstone_core::{CompactionConfig, Compression, DatabaseConfig, Error, Key};

use crate::model::manual;

const DB: &str = "db";

/// One stripe, so that all numbers are exact.
fn one() -> DatabaseConfig {
    DatabaseConfig::new().with_stripes(1)
}

fn options(config: DatabaseConfig, compaction: CompactionConfig) -> EngineOptions {
    let mut options = manual(Arc::new(MemVfs::new()), 1);
    (options.config, options.compaction) = (Some(config), Some(compaction));
    options
}

fn engine(config: DatabaseConfig, compaction: CompactionConfig) -> LsmEngine {
    LsmEngine::create(Path::new(DB), options(config, compaction)).unwrap()
}

/// An engine that compacts only on request.
fn plain(config: DatabaseConfig) -> LsmEngine {
    engine(config, CompactionConfig::disabled())
}

fn key(n: usize) -> Key<'static> {
    Key::new(format!("k{n:05}").into_bytes())
}

fn put(engine: &LsmEngine, keys: std::ops::Range<usize>, len: usize) {
    for n in keys {
        engine.put(&key(n), &vec![n as u8; len], WriteOptions::new()).unwrap();
    }
}

fn delete(engine: &LsmEngine, keys: std::ops::Range<usize>) {
    for n in keys {
        engine.delete(&key(n), WriteOptions::new()).unwrap();
    }
}

/// Does all background work that is due.
fn drain(engine: &LsmEngine) -> EngineStats {
    let mut steps = 0;
    while engine.step(0) {
        steps += 1;
        assert!(steps < 100_000, "background work never ends");
    }
    engine.stats().unwrap()
}

fn runs(stats: &EngineStats) -> usize {
    stats.stripes.iter().map(|stripe| stripe.runs).sum()
}

fn stalls(stats: &EngineStats, reason: StallReason) -> u64 {
    stats.stalls.iter().find(|stall| stall.reason == reason).map_or(0, |stall| stall.count)
}

#[test]
fn max_memtable_records_seals() {
    let engine = plain(one().with_max_memtable_records(10));
    put(&engine, 0..9, 10);
    assert_eq!(drain(&engine).flushes, 0);
    put(&engine, 9..10, 10);
    let stats = drain(&engine);
    assert_eq!((stats.flushes, stats.stripes[0].entries, stats.stripes[0].memtable_records), (1, 10, 0));
}

#[test]
fn max_memtable_size_bytes_seals() {
    let engine = plain(one().with_max_memtable_size_bytes(1000));
    put(&engine, 0..9, 100);
    assert_eq!(drain(&engine).flushes, 0);
    put(&engine, 9..10, 100);
    assert_eq!(drain(&engine).flushes, 1);
}

#[test]
fn memory_budget_bounds_all_memtables_and_slows_writers_down() {
    let budget = 10_000;
    let config = one().with_stripes(4).with_max_memtable_records(100_000);
    let engine = plain(config.with_memory_budget(budget));
    for n in 0..200 {
        put(&engine, n..n + 1, 500);
        let stats = engine.stats().unwrap();
        let memory: usize = stats.stripes.iter().map(|stripe| stripe.memtable_bytes).sum();
        assert!(memory < budget * 3 / 2 + 1000, "{memory} bytes after {n} puts");
    }
    let stats = engine.stats().unwrap();
    assert!(stats.flushes > 5 && stalls(&stats, StallReason::Memtables) > 5, "{stats:?}");
    let stats = drain(&engine);
    let memory: usize = stats.stripes.iter().map(|stripe| stripe.memtable_bytes).sum();
    assert!(memory <= budget, "{memory} bytes are left");
}

#[test]
fn max_wal_size_bytes_bounds_the_log() {
    let limit = 96 << 10;
    let config = one().with_max_memtable_records(100_000).with_wal_segment_size(16 << 10);
    let config = config.with_max_item_bytes(2000).with_max_key_bytes(100);
    let bounded = plain(config.clone().with_max_wal_size_bytes(limit));
    for n in 0..400 {
        put(&bounded, n..n + 1, 1000);
        let stats = bounded.stats().unwrap();
        assert!(stats.log_bytes <= limit, "{} bytes after {n} puts", stats.log_bytes);
    }
    let stats = bounded.stats().unwrap();
    assert!(stats.flushes > 2 && stats.checkpoints > 2 && stalls(&stats, StallReason::Log) > 0, "{stats:?}");
    let free = plain(config);
    put(&free, 0..400, 1000);
    let stats = drain(&free);
    assert!(stats.flushes == 0 && stats.log_bytes > 400_000, "{stats:?}");
}

#[test]
fn wal_segment_size_cuts_the_log() {
    let segments = |size| {
        let engine = plain(one().with_wal_segment_size(size));
        put(&engine, 0..100, 1000);
        engine.stats().unwrap().log_segments
    };
    // 15 records of a little over 1000 bytes fit into 16 KiB, 62 into 64 KiB.
    assert!((7..=8).contains(&segments(16 << 10)), "{}", segments(16 << 10));
    assert!((2..=3).contains(&segments(64 << 10)), "{}", segments(64 << 10));
    assert_eq!(segments(1 << 20), 1);
}

/// The size of one flushed SST of 1000 keys.
fn flushed_bytes(config: DatabaseConfig) -> u64 {
    let engine = plain(config.with_max_memtable_records(1000));
    put(&engine, 0..1000, 20);
    let stats = drain(&engine);
    assert_eq!((stats.flushes, stats.stripes[0].ssts), (1, 1));
    stats.sst_bytes
}

#[test]
fn bloom_bits_per_key_sizes_filters() {
    let bytes = [5, 10, 20, 40].map(|bits| flushed_bytes(one().with_bloom_bits_per_key(bits)));
    for (pair, bits) in bytes.windows(2).zip([5, 10, 20]) {
        // This many more bits for each of 1000 keys, up to rounding to whole cache lines.
        let (more, expected) = (pair[1] - pair[0], 1000 * bits / 8);
        assert!(more.abs_diff(expected) <= 128, "{more} bytes more, expected {expected}");
    }
}

#[test]
fn block_size_cuts_blocks() {
    let bytes = [64, 512, 4096].map(|size| flushed_bytes(one().with_block_size(size)));
    // The overhead per block counts twenty times as much in blocks of two items as in large ones.
    assert!(bytes[0] > bytes[1] + 2000 && bytes[1] > bytes[2] + 200, "{bytes:?}");
}

#[test]
fn target_sst_size_cuts_runs() {
    let ssts = |target| {
        let engine = plain(one().with_max_memtable_records(200).with_target_sst_size(target));
        put(&engine, 0..200, 1000);
        let stats = drain(&engine);
        assert_eq!(runs(&stats), 1);
        stats.stripes[0].ssts
    };
    assert_eq!(ssts(1 << 20), 1);
    let (few, many) = (ssts(64 << 10), ssts(8 << 10));
    assert!((3..=5).contains(&few) && (20..=50).contains(&many), "{few}, {many}");
}

#[test]
fn limits_of_keys_items_and_batches_hold_to_the_byte() {
    let config = one().with_max_key_bytes(10).with_max_item_bytes(100).with_max_batch_bytes(400);
    let engine = plain(config);
    let put = |key: &str, len: usize| engine.put(&Key::from(key), &vec![0; len], WriteOptions::new());
    put("0123456789", 100).unwrap();
    assert!(matches!(put("0123456789a", 1), Err(Error::KeyTooLarge { len: 11, max: 10 })));
    assert!(matches!(put("k", 101), Err(Error::ItemTooLarge { len: 101, max: 100 })));
    let write = |items: usize, key: &str, len: usize| {
        let mut batch = WriteBatch::new();
        for _ in 0..items {
            batch.put(key, vec![0; len]);
        }
        engine.write(&batch, WriteOptions::new())
    };
    write(3, "k", 100).unwrap();
    assert!(matches!(write(4, "k", 100), Err(Error::BatchTooLarge { max: 400, .. })));
    assert!(matches!(write(1, "0123456789a", 1), Err(Error::KeyTooLarge { max: 10, .. })));
    assert!(matches!(write(1, "k", 101), Err(Error::ItemTooLarge { max: 100, .. })));
}

#[test]
fn sync_interval_zero_never_syncs() {
    let survives = |interval| {
        let vfs = StrictVfs::new();
        let mut options = manual(Arc::new(vfs.clone()), 1);
        options.config = Some(one().with_sync_interval(interval));
        let engine = LsmEngine::create(Path::new(DB), options).unwrap();
        put(&engine, 0..1, 10);
        drain(&engine);
        let image = manual(Arc::new(vfs.crash(CrashMode::Strict)), 2);
        LsmEngine::open(Path::new(DB), image).unwrap().get(&key(0)).unwrap().is_some()
    };
    assert!(survives(Duration::from_secs(1)));
    assert!(!survives(Duration::ZERO));
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

#[test]
fn write_stall_limit_bounds_the_wait() {
    let stalled = |limit| {
        let config = one().with_memory_budget(10_000).with_write_stall_limit(limit);
        let mut options = options(config, CompactionConfig::disabled());
        options.clock = Arc::new(Ticking::default());
        let engine = LsmEngine::create(Path::new(DB), options).unwrap();
        let mut batch = WriteBatch::new();
        for n in 0..100 {
            batch.put(key(n), vec![0; 1000]);
        }
        engine.write(&batch, WriteOptions::new()).unwrap();
        let result = engine.put(&key(0), b"next", WriteOptions::new());
        let stats = engine.stats().unwrap();
        assert_eq!(stalls(&stats, StallReason::Memtables), 1);
        assert!(stats.stalls[0].nanos > 1_000_000 && stats.stalls[0].nanos < 60_000_000_000, "{stats:?}");
        let got = engine.get(&key(0)).unwrap().unwrap();
        assert_eq!(
            &got[..] == b"next",
            result.is_ok(),
            "a refused write was applied, or an accepted one was not"
        );
        result
    };
    stalled(Duration::from_secs(3600)).unwrap();
    let Err(Error::WriteStalled { why }) = stalled(Duration::from_millis(2)) else { panic!("not refused") };
    assert!(why.contains("memory budget"), "{why}");
}

#[test]
fn stripes_are_as_many_as_asked_for() {
    for stripes in [1, 8, 256] {
        let engine = plain(one().with_stripes(stripes));
        put(&engine, 0..5000, 1);
        let stats = engine.stats().unwrap();
        assert_eq!(
            (engine.stripe_count(), stats.stripe_count, stats.stripes.len()),
            (stripes, stripes, stripes)
        );
    }
    assert_eq!(plain(DatabaseConfig::new()).stripe_count(), 256);
}

/// The statistics after this many flushes of one key each, with all work done.
fn after_flushes(flushes: usize, compaction: CompactionConfig) -> EngineStats {
    let engine = engine(one().with_max_memtable_records(1), compaction);
    for n in 0..flushes {
        put(&engine, n..n + 1, 10);
        drain(&engine);
    }
    engine.stats().unwrap()
}

#[test]
fn sst_threshold_starts_compactions() {
    for threshold in [2, 5] {
        let config = CompactionConfig::new().with_sst_threshold(threshold);
        let before = after_flushes(threshold - 1, config.clone());
        assert_eq!((before.compactions, runs(&before)), (0, threshold - 1));
        let after = after_flushes(threshold, config);
        assert_eq!((after.compactions, after.ssts_merged, runs(&after)), (1, threshold as u64, 1));
    }
}

#[test]
fn compaction_disabled_neither_merges_nor_slows_down() {
    let config = CompactionConfig::disabled().with_sst_threshold(2);
    let stats = after_flushes(20, config);
    assert_eq!((stats.compactions, runs(&stats), stats.stalls), (0, 20, Vec::new()));
}

#[test]
fn too_many_runs_slow_their_writers_down() {
    let engine = engine(one(), CompactionConfig::new().with_sst_threshold(2));
    for n in 0..5 {
        put(&engine, n..n + 1, 10);
        engine.flush().unwrap();
        assert_eq!(engine.stats().unwrap().stalls, Vec::new());
    }
    // Five runs are more than twice the threshold, and less than four times.
    put(&engine, 5..6, 10);
    let stats = engine.stats().unwrap();
    assert_eq!((stats.stalls.len(), stalls(&stats, StallReason::Runs)), (1, 1));
}

#[test]
fn check_interval_sweeps_for_what_no_flush_noticed() {
    let clock = Arc::new(ManualClock::new(1));
    let old = CompactionConfig::new().with_check_interval(30).with_tombstone_age(Duration::from_secs(1));
    let mut options = options(one(), old.with_idle_compaction(false));
    options.clock = Arc::<ManualClock>::clone(&clock);
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    put(&engine, 0..20, 10);
    engine.flush().unwrap();
    delete(&engine, 0..1);
    engine.flush().unwrap();
    let stats = drain(&engine);
    assert_eq!((stats.compactions, stats.stripes[0].tombstones), (0, 1), "the tombstone is not old yet");
    clock.advance(Duration::from_millis(29_999));
    assert_eq!(drain(&engine).compactions, 0);
    clock.advance(Duration::from_millis(1));
    let stats = drain(&engine);
    assert_eq!((stats.compactions, stats.tombstones_removed, stats.stripes[0].tombstones), (1, 1, 0));
}

#[test]
fn counters_count_what_happened() {
    let engine = plain(one());
    put(&engine, 0..10, 100);
    engine.flush().unwrap();
    let first = engine.stats().unwrap();
    assert_eq!((first.flushes, first.checkpoints, first.compactions, first.last_seq), (1, 1, 0, 10));
    assert_eq!((first.flush_bytes_written, first.items_estimate), (first.sst_bytes, 10));
    delete(&engine, 0..4);
    put(&engine, 4..6, 50);
    engine.flush().unwrap();
    let second = engine.stats().unwrap();
    assert_eq!((second.flushes, second.checkpoints, runs(&second)), (2, 2, 2));
    assert_eq!((second.flush_bytes_written, second.tombstones_removed), (second.sst_bytes, 0));
    assert_eq!((second.stripes[0].entries, second.stripes[0].tombstones), (16, 4));
    engine.flush().unwrap();
    assert_eq!(engine.stats().unwrap(), second, "there was nothing to flush");
    engine.trigger_compaction(0).unwrap();
    let third = engine.stats().unwrap();
    assert_eq!((third.flushes, third.checkpoints, third.compactions), (2, 3, 1));
    assert_eq!((third.ssts_merged, third.tombstones_removed, third.items_estimate), (2, 4, 6));
    assert_eq!(third.compaction_bytes_read, second.sst_bytes);
    assert_eq!(third.compaction_bytes_written, third.sst_bytes);
    assert_eq!(third.flush_bytes_written, second.flush_bytes_written);
}

#[test]
fn a_flush_counts_the_tombstones_it_drops() {
    let engine = plain(one());
    put(&engine, 0..3, 10);
    delete(&engine, 0..3);
    engine.flush().unwrap();
    let stats = engine.stats().unwrap();
    assert_eq!((stats.flushes, stats.tombstones_removed, stats.sst_bytes), (1, 3, 0));
    assert_eq!((stats.flush_bytes_written, stats.stripes), (0, Vec::new()));
}

#[test]
fn set_config_changes_the_running_database_and_what_is_stored() {
    let vfs = Arc::new(MemVfs::new());
    let mut options = manual(vfs.clone(), 1);
    options.config = Some(one());
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    put(&engine, 0..20, 10);
    assert_eq!(drain(&engine).flushes, 0);
    engine.set_config(DatabaseConfig::new().with_max_memtable_records(10)).unwrap();
    put(&engine, 20..21, 10);
    assert_eq!(drain(&engine).flushes, 1);
    let refused = engine.set_config(DatabaseConfig::new().with_stripes(2));
    assert!(matches!(refused, Err(Error::InvalidConfig { field: "stripes", .. })));
    assert!(engine.set_config(DatabaseConfig::new().with_max_memtable_records(0)).is_err());
    assert_eq!(engine.config(), one().with_max_memtable_records(10));
    engine.close().unwrap();
    let engine = LsmEngine::open(Path::new(DB), manual(vfs, 2)).unwrap();
    assert_eq!(engine.config(), one().with_max_memtable_records(10));
}

#[test]
fn what_settings_ask_for_and_older_files_lack_is_told_until_they_are_rewritten() {
    let engine = plain(one().with_stripes(2).with_compression(Compression::Never));
    put(&engine, 0..300, 50);
    engine.flush().unwrap();
    assert_eq!(engine.pending_rewrites().unwrap(), []);
    let bytes = engine.stats().unwrap().sst_bytes;
    let config = DatabaseConfig::new().with_bloom_bits_per_key(16).with_block_size(512);
    engine.set_config(config.with_compression(Compression::Always)).unwrap();
    let pending = engine.pending_rewrites().unwrap();
    let settings: Vec<_> = pending.iter().map(|pending| pending.setting).collect();
    assert_eq!(settings, ["bloom_bits_per_key", "block_size", "compression"]);
    assert!(pending.iter().all(|p| p.ssts == 2 && p.bytes == bytes && p.stripes == [0, 1]), "{pending:?}");
    engine.trigger_compaction(1).unwrap();
    assert!(engine.pending_rewrites().unwrap().iter().all(|pending| pending.stripes == [0]));
    engine.trigger_compaction(0).unwrap();
    assert_eq!(engine.pending_rewrites().unwrap(), []);
}
