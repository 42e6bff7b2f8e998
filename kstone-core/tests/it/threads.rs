//! Real threads: concurrent writers, readers, flushes and compactions.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kstone_core::lsm::{Direction, EngineOptions, LsmEngine, WriteBatch, WriteOptions};
use kstone_core::torture::Watchdog;
use kstone_core::{CompactionConfig, DatabaseConfig, Key, SortRange};

const ACCOUNTS: u64 = 50;
const TOTAL: u64 = ACCOUNTS * 1000;

fn options() -> EngineOptions {
    let mut options = EngineOptions::memory();
    options.config = Some(
        DatabaseConfig::new()
            .with_stripes(8)
            .with_max_memtable_records(30)
            .with_wal_segment_size(64 << 10)
            .with_checkpoint_interval(Duration::from_millis(1))
            .with_sync_interval(Duration::from_millis(1)),
    );
    options.compaction = Some(CompactionConfig::new().with_sst_threshold(3));
    options
}

fn account(n: u64) -> Key<'static> {
    Key::new(format!("account{n}").into_bytes())
}

fn amount(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().unwrap())
}

/// Each writer owns a part of the accounts and moves money between two of them in one batch; every snapshot must see
/// the same total, regardless of flushes and compactions.
#[test]
fn snapshots_see_whole_batches_only() {
    let _watchdog = Watchdog::start("threads::snapshots_see_whole_batches_only");
    let engine = LsmEngine::create(Path::new("db"), options()).unwrap();
    let mut batch = WriteBatch::new();
    for n in 0..ACCOUNTS {
        batch.put(account(n), 1000u64.to_le_bytes());
    }
    engine.write(&batch, WriteOptions::new()).unwrap();
    let (done, snapshots) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let engine = &engine;
                scope.spawn(move || {
                    let mine: Vec<u64> = (0..ACCOUNTS).filter(|n| n % 3 == writer).collect();
                    for i in 0..4000usize {
                        let (from, to) = (mine[i % mine.len()], mine[(i * 7 + 1) % mine.len()]);
                        if from == to {
                            continue;
                        }
                        let read = |n| amount(&engine.get(&account(n)).unwrap().unwrap());
                        let (a, b) = (read(from), read(to));
                        let moved = a.min(i as u64 % 10);
                        let mut batch = WriteBatch::new();
                        batch.put(account(from), (a - moved).to_le_bytes());
                        batch.put(account(to), (b + moved).to_le_bytes());
                        let options = if i % 50 == 0 { WriteOptions::sync() } else { WriteOptions::new() };
                        engine.write(&batch, options).unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let snapshot = engine.snapshot().unwrap();
                let by_get: u64 = (0..ACCOUNTS)
                    .map(|n| amount(&engine.get_at(&account(n), &snapshot).unwrap().unwrap()))
                    .sum();
                let scan = engine.scan(b"account", Direction::Forward, Some(&snapshot)).unwrap();
                let by_scan: u64 = scan.map(|entry| amount(&entry.unwrap().1)).sum();
                assert_eq!((by_get, by_scan), (TOTAL, TOTAL));
                snapshots.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let mut stripe = 0;
            while !done.load(Ordering::Relaxed) {
                engine.trigger_compaction(stripe % 8).unwrap();
                stripe += 1;
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    // However much background work has run meanwhile.
    (0..16).for_each(|n| engine.trigger_compaction(n % 8).unwrap());
    let stats = engine.stats().unwrap();
    assert!(stats.flushes > 10 && stats.compactions > 10, "{stats:?}");
    assert_eq!((stats.poisoned, stats.background_error), (None, None));
    println!(
        "threads: {} snapshots, {} flushes, {} compactions",
        snapshots.load(Ordering::Relaxed),
        stats.flushes,
        stats.compactions
    );
    engine.close().unwrap();
}

/// A key that always exists is always found, even while it is rewritten, flushed and merged.
#[test]
fn a_key_that_is_always_there_is_never_missing() {
    let _watchdog = Watchdog::start("threads::a_key_that_is_always_there_is_never_missing");
    let engine = LsmEngine::create(Path::new("db"), options()).unwrap();
    let key = Key::from(("hot", "row"));
    engine.put(&key, &0u64.to_le_bytes(), WriteOptions::new()).unwrap();
    let done = AtomicBool::new(false);
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        // More threads than cores: a fault between two steps of a get shows if it is preempted there.
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let got = amount(&engine.get(&key).unwrap().expect("the key is missing"));
                    assert!(got >= last, "went back in time, from {last} to {got}");
                    last = got;
                    seen.fetch_max(got, Ordering::Relaxed);
                }
            });
        }
        let reader = scope.spawn(|| {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                let got = amount(&engine.get(&key).unwrap().expect("the key is missing"));
                assert!(got >= last, "went back in time, from {last} to {got}");
                last = got;
                let row = engine.query(b"hot", &SortRange::All, Direction::Reverse, None).unwrap().next();
                assert!(amount(&row.expect("the row is missing").unwrap().1) >= last);
            }
        });
        for i in 1..60_000u64 {
            engine.put(&key, &i.to_le_bytes(), WriteOptions::new()).unwrap();
        }
        // However rarely the readers have run meanwhile, one of them reaches the last value.
        while seen.load(Ordering::Relaxed) < 59_999 && !reader.is_finished() {
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    engine.flush().unwrap();
    assert!(engine.stats().unwrap().flushes > 100);
}

/// Concurrent `Sync` writers share syncs, and every write is durable when it returns.
#[test]
fn sync_writers_share_syncs() {
    let _watchdog = Watchdog::start("threads::sync_writers_share_syncs");
    let vfs = kstone_core::vfs::StrictVfs::new();
    let mut options = EngineOptions::on(std::sync::Arc::new(vfs.clone()));
    options.config = Some(DatabaseConfig::new().with_stripes(8));
    let engine = LsmEngine::create(Path::new("db"), options.clone()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4u64 {
            let engine = &engine;
            scope.spawn(move || {
                for i in 0..200u64 {
                    let key = Key::with_sort(format!("w{writer}").into_bytes(), i.to_be_bytes().to_vec());
                    engine.put(&key, b"value", WriteOptions::sync()).unwrap();
                }
            });
        }
    });
    let image = vfs.crash(kstone_core::vfs::CrashMode::Strict);
    options.vfs = std::sync::Arc::new(image);
    let recovered = LsmEngine::open(Path::new("db"), options).unwrap();
    assert_eq!(recovered.scan(b"", Direction::Forward, None).unwrap().count(), 800);
}
