//! Real threads: conditional writes and transactions beside each other, flushes and compactions.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kstone_core::lsm::{Direction, ReadSet, Snapshot, WriteBatch};
use kstone_core::torture::{Rng, Watchdog};
use kstone_core::{Error, SortRange};

use super::*;

/// Small memtables, flushed and merged by threads.
fn busy(records: usize) -> LsmEngine {
    let mut options = EngineOptions::memory();
    options.config = Some(
        DatabaseConfig::new()
            .with_stripes(8)
            .with_max_memtable_records(records)
            .with_wal_segment_size(64 << 10)
            .with_checkpoint_interval(Duration::from_millis(1))
            .with_sync_interval(Duration::from_millis(1)),
    );
    options.compaction = Some(CompactionConfig::new().with_sst_threshold(3));
    LsmEngine::create(Path::new("db"), options).unwrap()
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().unwrap())
}

/// Runs the work on that many threads, beside one that merges.
fn on_threads(engine: &LsmEngine, threads: u64, work: impl Fn(u64) + Sync) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let work = &work;
                scope.spawn(move || work(thread))
            })
            .collect();
        scope.spawn(|| {
            for stripe in (0..8).cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                engine.trigger_compaction(stripe).unwrap();
                std::thread::yield_now();
            }
        });
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|result| result.unwrap());
    });
    let stats = engine.stats().unwrap();
    assert_eq!((stats.poisoned, stats.background_error), (None, None));
}

/// Runs `act` until what it read has not changed; returns how many attempts it took.
fn transact<T>(
    engine: &LsmEngine,
    mut act: impl FnMut(&Snapshot, &mut ReadSet, &mut WriteBatch) -> T,
) -> (T, u64) {
    for attempt in 1.. {
        let (snapshot, mut reads, mut batch) =
            (engine.snapshot().unwrap(), ReadSet::new(), WriteBatch::new());
        let result = act(&snapshot, &mut reads, &mut batch);
        match engine.write_if_unchanged(&snapshot, &reads, &batch, WriteOptions::new()) {
            Ok(_) => return (result, attempt),
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!()
}

#[test]
fn four_threads_that_add_ten_thousand_each_reach_forty_thousand() {
    let _watchdog = Watchdog::start("conditional::four_threads_that_add_ten_thousand_each");
    let engine = busy(50);
    let (counter, beside) = (Key::from("counter"), Key::from("beside"));
    let (decisions, twice) = (AtomicU64::new(0), Mutex::new(BTreeSet::new()));
    on_threads(&engine, 4, |thread| {
        let mut sums = Vec::with_capacity(10_000);
        for n in 0..10_000 {
            // One in four also moves another counter along, in another stripe.
            let keys = [counter.clone(), beside.clone()];
            let keys = &keys[..if n % 4 == 0 { 2 } else { 1 }];
            let sum = engine.write_with(keys, WriteOptions::new(), |values, changes| {
                decisions.fetch_add(1, Ordering::Relaxed);
                let sums = values.iter().map(|value| value.as_deref().map_or(0, number) + 1);
                let sums: Vec<u64> = sums.collect();
                sums.iter().enumerate().for_each(|(at, sum)| changes.put(at, sum.to_le_bytes().to_vec()));
                Ok(sums[0])
            });
            sums.push(sum.unwrap());
        }
        assert!(sums.is_sorted(), "thread {thread} went back");
        twice.lock().unwrap().extend(sums);
    });
    let of = |key: &Key<'_>| number(&engine.get(key).unwrap().unwrap());
    assert_eq!((of(&counter), of(&beside)), (40_000, 10_000));
    assert_eq!(twice.lock().unwrap().len(), 40_000, "two were given the same sum");
    let stats = engine.stats().unwrap();
    assert_eq!((stats.operations.puts, stats.operations.batches), (50_000, 10_000));
    assert!(stats.flushes > 100, "{} flushes", stats.flushes);
    println!("additions: {} decisions, {} flushes", decisions.into_inner(), stats.flushes);
    engine.close().unwrap();
}

const ACCOUNTS: u64 = 20;
const TOTAL: u64 = ACCOUNTS * 100;

fn account(n: u64) -> Key<'static> {
    Key::with_sort(format!("account{n}").into_bytes(), b"balance".to_vec())
}

/// Half of the transfers are conditional writes, half transactions; every snapshot has the same total, and no account
/// is ever overdrawn.
#[test]
fn transfers_keep_the_sum_in_every_snapshot() {
    let _watchdog = Watchdog::start("conditional::transfers_keep_the_sum_in_every_snapshot");
    let engine = busy(30);
    let mut batch = WriteBatch::new();
    for n in 0..ACCOUNTS {
        batch.put(account(n), 100u64.to_le_bytes());
    }
    engine.write(&batch, WriteOptions::new()).unwrap();
    let (done, attempts, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let check = || {
        let snapshot = engine.snapshot().unwrap();
        let scan = engine.scan(b"account", Direction::Forward, Some(&snapshot)).unwrap();
        let balances: Vec<u64> = scan.map(|entry| number(&entry.unwrap().1)).collect();
        assert_eq!((balances.len() as u64, balances.iter().sum::<u64>()), (ACCOUNTS, TOTAL), "{balances:?}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                check();
            }
        });
        on_threads(&engine, 4, |thread| {
            let mut rng = Rng(thread);
            for n in 0..1_500 {
                let (from, to, amount) = (rng.below(ACCOUNTS), rng.below(ACCOUNTS - 1), 1 + rng.below(60));
                let to = if to >= from { to + 1 } else { to };
                let keys = [account(from), account(to)];
                let moved = |balances: [u64; 2]| {
                    let [a, b] = balances;
                    a.checked_sub(amount).map(|rest| [rest, b + amount])
                };
                if n % 2 == 0 {
                    let done = engine.write_with(&keys, WriteOptions::new(), |values, changes| {
                        let balances = [0, 1].map(|at: usize| number(values[at].as_ref().unwrap()));
                        let after = moved(balances);
                        for (at, balance) in after.iter().flatten().enumerate() {
                            changes.put(at, balance.to_le_bytes().to_vec());
                        }
                        Ok(after.is_some())
                    });
                    refused.fetch_add(u64::from(!done.unwrap()), Ordering::Relaxed);
                } else {
                    let (_, took) = transact(&engine, |snapshot, reads, batch| {
                        let balances = keys.each_ref().map(|key| {
                            reads.get(key).unwrap();
                            number(&engine.get_at(key, snapshot).unwrap().unwrap())
                        });
                        for (key, balance) in keys.iter().zip(moved(balances).iter().flatten()) {
                            batch.put(key.clone(), balance.to_le_bytes());
                        }
                    });
                    attempts.fetch_add(took, Ordering::Relaxed);
                }
            }
        });
        done.store(true, Ordering::Relaxed);
    });
    check();
    let (attempts, refused) = (attempts.into_inner(), refused.into_inner());
    println!(
        "transfers: {attempts} attempts of 3000 transactions, {refused} of 3000 conditional writes refused"
    );
    assert!(refused > 0);
    engine.close().unwrap();
}

/// Write skew: two are on duty, and each may leave only while the other stays. Then both return.
#[test]
fn one_of_two_always_stays_on_duty() {
    let _watchdog = Watchdog::start("conditional::one_of_two_always_stays_on_duty");
    let engine = busy(20);
    // Of two stripes: a write locks that of the other only because it has read from it.
    let keys = [Key::from("first"), Key::from("second")];
    keys.iter().for_each(|key| put(&engine, key, b"on duty"));
    let left = AtomicU64::new(0);
    on_threads(&engine, 2, |mine| {
        let mine = mine as usize;
        for _ in 0..1_500 {
            let (leaves, _) = transact(&engine, |snapshot, reads, batch| {
                let there = keys.each_ref().map(|key| {
                    reads.get(key).unwrap();
                    engine.get_at(key, snapshot).unwrap().is_some()
                });
                assert_ne!(there, [false; 2], "nobody is on duty");
                match there {
                    [true, true] => _ = batch.delete(keys[mine].clone()),
                    _ if !there[mine] => _ = batch.put(keys[mine].clone(), *b"on duty"),
                    _ => {}
                }
                there == [true; 2]
            });
            left.fetch_add(u64::from(leaves), Ordering::Relaxed);
        }
    });
    let left = left.into_inner();
    assert!(left > 300, "left {left} times");
    engine.close().unwrap();
}

/// Phantoms: each of two books a room if a query finds no booking of that hour.
#[test]
fn an_hour_is_booked_once() {
    let _watchdog = Watchdog::start("conditional::an_hour_is_booked_once");
    let engine = busy(20);
    let booked: Vec<AtomicU64> = (0..1_000).map(|_| AtomicU64::new(0)).collect();
    on_threads(&engine, 2, |mine| {
        for (hour, booked) in booked.iter().enumerate() {
            let hour = format!("{hour:04}/");
            let (free, _) = transact(&engine, |snapshot, reads, batch| {
                let range = SortRange::Prefix(hour.clone().into_bytes());
                reads.query(b"room", range.clone());
                let free =
                    engine.query(b"room", &range, Direction::Forward, Some(snapshot)).unwrap().count() == 0;
                if free {
                    let sort = format!("{hour}{mine}").into_bytes();
                    batch.put(Key::with_sort(b"room".to_vec(), sort), [mine as u8]);
                }
                free
            });
            booked.fetch_add(u64::from(free), Ordering::Relaxed);
        }
    });
    assert!(booked.iter().all(|booked| booked.load(Ordering::Relaxed) == 1), "{booked:?}");
    let all = engine.query(b"room", &SortRange::All, Direction::Forward, None).unwrap();
    assert_eq!(all.count(), booked.len());
    engine.close().unwrap();
}
