//! Conditional writes and transactions, concurrent with each other and with whatever moves their data.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kstone_shuttle::lsm::{Direction, LsmEngine, ReadSet, Snapshot, Workers, WriteBatch, WriteOptions};
use kstone_shuttle::vfs::MemVfs;
use kstone_shuttle::{CompactionConfig, Error, Key, Result, SortRange};

use super::harness::*;

/// An engine without threads: schedules are short, so that many of their points are tried.
fn manual() -> Arc<LsmEngine> {
    let mut options = options(Arc::new(MemVfs::new()));
    options.workers = Workers::Manual;
    options.compaction = Some(CompactionConfig::disabled());
    create(options)
}

/// Adds 1 to the number at `key`; returns the sum.
fn add(engine: &LsmEngine, key: &Key<'_>) -> Result<u8> {
    engine.write_with(std::slice::from_ref(key), WriteOptions::new(), |values, changes| {
        let sum = values[0].as_ref().map_or(0, |value| value[0]) + 1;
        changes.put(0, vec![sum]);
        Ok(sum)
    })
}

fn number(engine: &LsmEngine, key: &Key<'_>) -> Option<u8> {
    engine.get(key).unwrap().map(|value| value[0])
}

/// Symptom it looks for: an addition that is lost, because it was computed from a value that had been replaced: in a
/// memtable that was sealed or flushed meanwhile, or by a write that was not visible yet. Two that return the same sum.
#[test]
fn no_addition_is_lost() {
    explore_some("additions against flush and seal", 2_000, additions_against_flush_and_seal);
}

pub(crate) fn additions_against_flush_and_seal() {
    let engine = manual();
    let counter = key(0, 0);
    let sums = Arc::new(Mutex::new(Vec::new()));
    let adders = (0..2).map(|_| {
        let (engine, counter, sums) = (Arc::clone(&engine), counter.clone(), Arc::clone(&sums));
        spawn(move || {
            for _ in 0..2 {
                let sum = add(&engine, &counter).unwrap();
                assert!(number(&engine, &counter) >= Some(sum), "an acknowledged addition is not visible");
                sums.lock().unwrap().push(sum);
            }
        })
    });
    let mut threads: Vec<_> = adders.collect();
    // Holds up what is visible; and fills the memtable.
    for key in [key(1, 0), key(0, 1)] {
        let engine = Arc::clone(&engine);
        threads.push(spawn(move || {
            engine.put(&key, &[0], WriteOptions::new()).unwrap();
        }));
    }
    threads.push(spawn({
        let engine = Arc::clone(&engine);
        move || engine.flush().unwrap()
    }));
    join(threads);
    let mut sums = std::mem::take(&mut *sums.lock().unwrap());
    sums.sort_unstable();
    assert_eq!((sums, number(&engine, &counter)), (vec![1, 2, 3, 4], Some(4)), "an addition is lost");
    engine.close().unwrap();
}

/// Symptoms it looks for: an addition that is lost or made twice; a wake-up missed or a deadlock between writers that
/// start over, workers that flush and merge, and a close; a call that is refused as `Closed` but has written.
#[test]
fn additions_go_on_beside_workers_until_the_close() {
    explore_some("additions against workers and close", 1_000, additions_against_workers_and_close);
}

pub(crate) fn additions_against_workers_and_close() {
    let vfs = MemVfs::new();
    let engine = create(options(Arc::new(vfs.clone())));
    let (counter, other) = (key(0, 0), key(1, 0));
    let added = Arc::new(AtomicU64::new(0));
    let adders = (0..2).map(|_| {
        let (engine, keys) = (Arc::clone(&engine), [counter.clone(), other.clone()]);
        let added = Arc::clone(&added);
        spawn(move || {
            for n in 0..3 {
                let how = if n == 1 { WriteOptions::sync() } else { WriteOptions::new() };
                // Two stripes: both count.
                let done = engine.write_with(&keys, how, |values, changes| {
                    for (at, value) in values.iter().enumerate() {
                        changes.put(at, vec![value.as_ref().map_or(0, |value| value[0]) + 1]);
                    }
                    Ok(())
                });
                match done {
                    Ok(()) => added.fetch_add(1, Ordering::Relaxed),
                    Err(Error::Closed) => return,
                    Err(error) => panic!("{error}"),
                };
            }
        })
    });
    let mut threads: Vec<_> = adders.collect();
    threads.push(spawn({
        let engine = Arc::clone(&engine);
        move || match engine.trigger_compaction(0) {
            Ok(()) | Err(Error::Closed) => {}
            Err(error) => panic!("{error}"),
        }
    }));
    threads.push(spawn({
        let engine = Arc::clone(&engine);
        move || {
            shuttle::thread::yield_now();
            engine.close().unwrap();
        }
    }));
    join(threads);
    assert_no_wake_up_was_missed();
    drop(engine);
    let mut options = options(Arc::new(vfs));
    options.workers = Workers::Manual;
    let engine = LsmEngine::open(Path::new(DB), options).unwrap();
    let added = added.load(Ordering::Relaxed);
    for key in [counter, other] {
        assert_eq!(u64::from(number(&engine, &key).unwrap_or(0)), added, "not what was acknowledged");
    }
}

/// Symptom it looks for: a write that is refused because of another, which its own thread does not find yet.
#[test]
fn what_a_refusal_rests_on_is_found_after_it() {
    explore_some("refusal against a write that is not seen yet", 1_000, refusal_against_what_is_not_seen_yet);
}

pub(crate) fn refusal_against_what_is_not_seen_yet() {
    let engine = manual();
    let name = key(0, 0);
    // Holds up what is visible.
    let slow = spawn({
        let engine = Arc::clone(&engine);
        move || {
            engine.put(&key(1, 0), &[0], WriteOptions::new()).unwrap();
        }
    });
    let registered = Arc::new(AtomicU64::new(0));
    let takers = (0..3u8).map(|taker| {
        let (engine, name, registered) = (Arc::clone(&engine), name.clone(), Arc::clone(&registered));
        spawn(move || {
            let keys = [name.clone()];
            let free = engine.write_with(&keys, WriteOptions::new(), |values, changes| {
                let free = values[0].is_none();
                match taker {
                    // One is refused with an error, the others write nothing.
                    0 if !free => return Err(Error::Conflict { attempts: 0 }),
                    _ if free => changes.put(0, vec![taker]),
                    _ => {}
                }
                Ok(free)
            });
            let free = match free {
                Err(Error::Conflict { attempts: 0 }) => false,
                other => other.unwrap(),
            };
            let found = number(&engine, &name).expect("what a refusal rests on is not found");
            assert!(!free || found == taker, "the name was taken twice");
            registered.fetch_add(u64::from(free), Ordering::Relaxed);
        })
    });
    join(takers.collect::<Vec<_>>().into_iter().chain([slow]));
    assert_eq!(registered.load(Ordering::Relaxed), 1, "the name was taken twice");
    engine.close().unwrap();
}

/// Runs `act` as a transaction, until nothing that it read has changed. What a conflict rests on must be found by the
/// next snapshot.
fn transact(
    engine: &LsmEngine,
    act: impl Fn(&Snapshot, &mut ReadSet, &mut WriteBatch) -> Vec<u8>,
) -> Vec<u8> {
    let mut before = None;
    loop {
        let snapshot = engine.snapshot().unwrap();
        let (mut reads, mut batch) = (ReadSet::new(), WriteBatch::new());
        let seen = act(&snapshot, &mut reads, &mut batch);
        assert_ne!(before.as_ref(), Some(&seen), "a conflict with nothing that is found");
        match engine.write_if_unchanged(&snapshot, &reads, &batch, WriteOptions::new()) {
            Ok(_) => return seen,
            Err(Error::Conflict { .. }) => before = Some(seen),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Symptom it looks for: write skew. Two are on duty, and each leaves if the other stays; both have left.
#[test]
fn one_of_two_stays_on_duty() {
    explore_some("write skew against flush", 1_000, write_skew_against_flush);
}

pub(crate) fn write_skew_against_flush() {
    let engine = manual();
    let keys = [key(0, 0), key(1, 0)];
    for key in &keys {
        engine.put(key, &[1], WriteOptions::new()).unwrap();
    }
    let leavers = (0..2).map(|mine| {
        let (engine, keys) = (Arc::clone(&engine), keys.clone());
        spawn(move || {
            transact(&engine, |snapshot, reads, batch| {
                let seen = keys.each_ref().map(|key| {
                    reads.get(key).unwrap();
                    engine.get_at(key, snapshot).unwrap().is_some()
                });
                if seen == [true; 2] {
                    batch.delete(keys[mine].clone());
                }
                seen.map(u8::from).to_vec()
            });
        })
    });
    let mut threads: Vec<_> = leavers.collect();
    threads.push(spawn({
        let (engine, mine) = (Arc::clone(&engine), key(0, 1));
        move || {
            engine.put(&mine, &[1], WriteOptions::new()).unwrap();
            engine.flush().unwrap();
        }
    }));
    join(threads);
    let left = keys.iter().filter(|key| number(&engine, key).is_some()).count();
    assert_eq!(left, 1, "nobody is on duty");
    engine.close().unwrap();
}

/// Symptom it looks for: a phantom. Each of two inserts an item if a query finds none; both have inserted.
#[test]
fn one_of_two_inserts_where_nothing_was() {
    explore_some("phantoms against flush", 1_000, phantoms_against_flush);
}

pub(crate) fn phantoms_against_flush() {
    let engine = manual();
    let partition = key(0, 0).partition().to_vec();
    let inserters = (0..2u8).map(|mine| {
        let (engine, partition) = (Arc::clone(&engine), partition.clone());
        spawn(move || {
            transact(&engine, |snapshot, reads, batch| {
                let range = SortRange::Prefix(b"room".to_vec());
                reads.query(&partition, range.clone());
                let found = engine.query(&partition, &range, Direction::Forward, Some(snapshot)).unwrap();
                let found: Vec<u8> = found.map(|entry| entry.unwrap().1[0]).collect();
                if found.is_empty() {
                    batch.put(
                        Key::with_sort(partition.clone(), [b"room".as_slice(), &[mine]].concat()),
                        [mine],
                    );
                    // In another stripe.
                    batch.put(key(1 + u64::from(mine), 0), [mine]);
                }
                found
            });
        })
    });
    let mut threads: Vec<_> = inserters.collect();
    threads.push(spawn({
        let engine = Arc::clone(&engine);
        move || engine.flush().unwrap()
    }));
    join(threads);
    let all = engine.query(&partition, &SortRange::All, Direction::Forward, None).unwrap();
    assert_eq!(all.count(), 1, "two have inserted");
    engine.close().unwrap();
}
