//! Reads while their data is sealed, flushed, merged and removed.

use std::path::Path;
use std::sync::Arc;

use kstone_shuttle::lsm::{Direction, LsmEngine, Workers, WriteBatch, WriteOptions};
use kstone_shuttle::vfs::{MemVfs, Vfs};
use kstone_shuttle::{CompactionConfig, Key, ReadMode, SortRange};

use super::harness::*;

/// Symptom it looks for: a get that finds nothing, or an older value, because between its two loads (version, visible
/// sequence) the memtable was sealed, flushed and the run installed.
#[test]
fn a_key_that_is_always_there_is_always_found() {
    explore("seal against get", seal_against_get);
}

pub(crate) fn seal_against_get() {
    let engine = create(options(Arc::new(MemVfs::new())));
    let hot = key(0, 0);
    engine.put(&hot, &[0], WriteOptions::new()).unwrap();
    let writer = spawn({
        let (engine, hot) = (Arc::clone(&engine), hot.clone());
        move || {
            for value in 1..=5u8 {
                engine.put(&hot, &[value], WriteOptions::new()).unwrap();
            }
        }
    });
    let merger = spawn({
        let engine = Arc::clone(&engine);
        move || engine.trigger_compaction(0).unwrap()
    });
    let readers = (0..2).map(|_| {
        let (engine, hot) = (Arc::clone(&engine), hot.clone());
        spawn(move || {
            let mut last = 0;
            for _ in 0..4 {
                let found = engine.get(&hot).unwrap().expect("the key is missing");
                assert!(found[0] >= last, "went back from {last} to {}", found[0]);
                last = found[0];
            }
            let row =
                engine.query(hot.partition(), &SortRange::All, Direction::Forward, None).unwrap().next();
            assert!(row.expect("the row is missing").unwrap().1[0] >= last);
        })
    });
    join(readers.collect::<Vec<_>>().into_iter().chain([writer, merger]));
    assert_eq!(engine.get(&hot).unwrap().unwrap()[..], [5]);
    engine.close().unwrap();
    assert_no_wake_up_was_missed();
}

/// Symptom it looks for: a snapshot that sees half a batch or a later write, or changes during its life; a dropped
/// version that a snapshot needs.
#[test]
fn a_snapshot_sees_one_commit_whatever_is_flushed_and_merged() {
    explore("flush against snapshot", flush_against_snapshot);
}

pub(crate) fn flush_against_snapshot() {
    let engine = create(options(Arc::new(MemVfs::new())));
    let keys = [key(0, 0), key(1, 0), key(0, 1)];
    let write = |engine: &LsmEngine, keys: &[kstone_shuttle::Key<'static>; 3], value: u8| {
        let mut batch = WriteBatch::new();
        // Every third batch deletes all three.
        for key in keys {
            if value % 3 == 2 {
                batch.delete(key.clone());
            } else {
                batch.put(key.clone(), [value]);
            }
        }
        engine.write(&batch, WriteOptions::new()).unwrap();
    };
    write(&engine, &keys, 0);
    let writer = spawn({
        let (engine, keys) = (Arc::clone(&engine), keys.clone());
        move || {
            for value in 1..=4 {
                write(&engine, &keys, value);
            }
        }
    });
    let merger = spawn({
        let engine = Arc::clone(&engine);
        move || {
            engine.trigger_compaction(0).unwrap();
            engine.flush().unwrap();
        }
    });
    let reader = spawn({
        let (engine, keys) = (Arc::clone(&engine), keys.clone());
        move || {
            let (mut first, mut last_seq) = (None, 0);
            for _ in 0..2 {
                let snapshot = engine.snapshot().unwrap();
                assert!(snapshot.seq() >= last_seq);
                last_seq = snapshot.seq();
                let read = || {
                    keys.each_ref().map(|key| engine.get_at(key, &snapshot).unwrap().map(|value| value[0]))
                };
                let seen = read();
                assert!(
                    seen.iter().all(|value| *value == seen[0]),
                    "half a batch is in the snapshot: {seen:?}"
                );
                let scanned: Vec<u8> = engine
                    .scan(b"", Direction::Forward, Some(&snapshot))
                    .unwrap()
                    .map(|e| e.unwrap().1[0])
                    .collect();
                let found: Vec<u8> = seen.iter().flatten().copied().collect();
                assert_eq!(scanned, found, "the snapshot has changed");
                assert_eq!(read(), seen, "the snapshot has changed");
                first.get_or_insert((snapshot, seen));
            }
            let (snapshot, seen) = first.unwrap();
            let now = keys.each_ref().map(|key| engine.get_at(key, &snapshot).unwrap().map(|v| v[0]));
            assert_eq!(now, seen, "the snapshot has changed");
        }
    });
    join([writer, merger, reader]);
    engine.trigger_compaction(0).unwrap();
    assert_eq!(keys.each_ref().map(|key| engine.get(key).unwrap().map(|v| v[0])), [Some(4); 3]);
    engine.close().unwrap();
    assert_no_wake_up_was_missed();
}

/// Symptom it looks for: an iterator whose SSTs are unlinked during the scan, or that sees more than one commit; an
/// unneeded SST that is not removed.
#[test]
fn an_iterator_keeps_what_it_walks_through() {
    explore("install against iterator", install_against_iterator);
}

pub(crate) fn install_against_iterator() {
    let vfs = MemVfs::new();
    let mut options = options(Arc::new(vfs.clone()));
    options.config = options.config.map(|config| config.with_read_mode(ReadMode::Pread));
    let engine = create(options);
    let keys: Arc<Vec<_>> = Arc::new((0..4).map(|n| key(n as u64 % 2, n)).collect());
    let write = |engine: &LsmEngine, keys: &[kstone_shuttle::Key<'static>], value: u8| {
        let mut batch = WriteBatch::new();
        for key in keys {
            batch.put(key.clone(), [value; 40]);
        }
        engine.write(&batch, WriteOptions::new()).unwrap();
    };
    write(&engine, &keys, 0);
    let writer = spawn({
        let (engine, keys) = (Arc::clone(&engine), Arc::clone(&keys));
        move || {
            for value in 1..=3 {
                write(&engine, &keys, value);
            }
        }
    });
    let merger = spawn({
        let engine = Arc::clone(&engine);
        move || (0..2).for_each(|stripe| engine.trigger_compaction(stripe).unwrap())
    });
    let readers = (0..2).map(|n| {
        let (engine, direction) = (Arc::clone(&engine), [Direction::Forward, Direction::Reverse][n]);
        spawn(move || {
            let seen: Vec<u8> = engine.scan(b"", direction, None).unwrap().map(|e| e.unwrap().1[0]).collect();
            assert!(seen.len() == 4 && seen.iter().all(|value| *value == seen[0]), "{seen:?}");
        })
    });
    join(readers.collect::<Vec<_>>().into_iter().chain([writer, merger]));
    engine.close().unwrap();
    assert_no_wake_up_was_missed();
    let is_sst = |name: &str| name.ends_with(".sst");
    let there = vfs.list(Path::new(DB)).unwrap().into_iter().filter(|entry| is_sst(&entry.name)).count();
    let engine = create_again(vfs);
    let listed: usize = engine.stats().unwrap().stripes.iter().map(|stripe| stripe.ssts).sum();
    assert_eq!(there, listed, "unlisted SSTs are left");
    engine.close().unwrap();
}

/// Without threads, which would flush the replayed records.
fn create_again(vfs: MemVfs) -> LsmEngine {
    let mut options = options(Arc::new(vfs));
    options.workers = Workers::Manual;
    LsmEngine::open(Path::new(DB), options).unwrap()
}

/// An engine without threads: schedules are short, so that many of their points are tried.
fn manual() -> Arc<LsmEngine> {
    let mut options = options(Arc::new(MemVfs::new()));
    options.workers = Workers::Manual;
    options.compaction = Some(CompactionConfig::disabled());
    create(options)
}

/// Symptom it looks for: a flush drops a version that a snapshot sees, because the flush started after the snapshot
/// read the visible sequence and before the snapshot was registered.
#[test]
fn a_snapshot_is_registered_with_what_it_sees() {
    explore_some("registering a snapshot against a flush", 2_000, registering_a_snapshot_against_a_flush);
}

pub(crate) fn registering_a_snapshot_against_a_flush() {
    let engine = manual();
    let hot = key(0, 0);
    let first = engine.put(&hot, &[0], WriteOptions::new()).unwrap();
    let writer = spawn({
        let (engine, hot) = (Arc::clone(&engine), hot.clone());
        move || {
            for value in 1..4 {
                engine.put(&hot, &[value], WriteOptions::new()).unwrap();
                engine.flush().unwrap();
            }
        }
    });
    let reader = spawn({
        let (engine, hot) = (Arc::clone(&engine), hot.clone());
        move || {
            for _ in 0..3 {
                let snapshot = engine.snapshot().unwrap();
                let value = engine.get_at(&hot, &snapshot).unwrap().expect("the snapshot's version is gone");
                assert_eq!(first + u64::from(value[0]), snapshot.seq());
            }
        }
    });
    join([writer, reader]);
    engine.close().unwrap();
}

/// Symptom it looks for: an item that is present but not found, because a reader that did not see it yet reported a gap
/// to others: the item was put after the reader took its sequence, or before that but was not yet visible.
#[test]
fn what_is_put_where_nothing_was_is_found() {
    explore_some("put against a gap", 2_000, put_against_a_gap);
}

pub(crate) fn put_against_a_gap() {
    let engine = manual();
    let item = |n: u8| Key::with_sort(b"p".to_vec(), vec![n]);
    let all = |engine: &LsmEngine| -> Vec<u8> {
        let rows = engine.query(b"p", &SortRange::All, Direction::Forward, None).unwrap();
        rows.map(|row| row.unwrap().0.sort().unwrap()[0]).collect()
    };
    for n in 0..5 {
        engine.put(&item(n), &[n], WriteOptions::new()).unwrap();
    }
    for n in 0..4 {
        engine.delete(&item(n), WriteOptions::new()).unwrap();
    }
    // The next reader will report gaps.
    assert_eq!(all(&engine), [4]);
    let readers = (0..2).map(|_| {
        let engine = Arc::clone(&engine);
        spawn(move || (0..2).for_each(|_| assert!(all(&engine).contains(&4))))
    });
    let writer = spawn({
        let engine = Arc::clone(&engine);
        move || {
            engine.put(&item(2), &[2], WriteOptions::new()).unwrap();
            assert!(all(&engine).contains(&2), "the last put is not found");
        }
    });
    let other = spawn({
        let engine = Arc::clone(&engine);
        move || {
            engine.put(&key(1, 0), &[0], WriteOptions::new()).unwrap();
        }
    });
    join(readers.collect::<Vec<_>>().into_iter().chain([writer, other]));
    assert_eq!(all(&engine), [2, 4], "the put is not found");
    engine.close().unwrap();
}

/// Symptom it looks for: a flush drops a version in favour of a newer one that is not visible yet, because an earlier
/// write to another stripe is still running.
#[test]
fn a_flush_drops_nothing_for_what_cannot_be_seen() {
    explore_some("flush against a write that is not seen yet", 1_000, flush_against_what_is_not_seen_yet);
}

pub(crate) fn flush_against_what_is_not_seen_yet() {
    let engine = manual();
    let hot = key(0, 0);
    engine.put(&hot, &[0], WriteOptions::new()).unwrap();
    let put = |key: Key<'static>| {
        let engine = Arc::clone(&engine);
        spawn(move || {
            engine.put(&key, &[1], WriteOptions::new()).unwrap();
        })
    };
    let writers = [put(key(1, 0)), put(hot.clone())];
    let flusher = spawn({
        let engine = Arc::clone(&engine);
        move || engine.flush().unwrap()
    });
    let reader = spawn({
        let engine = Arc::clone(&engine);
        move || (0..3).for_each(|_| assert!(engine.get(&hot).unwrap().is_some(), "the key is missing"))
    });
    join(writers.into_iter().chain([flusher, reader]));
    engine.close().unwrap();
}
