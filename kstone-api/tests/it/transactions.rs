//! Updates, conditional writes and transactions of several threads, and what their errors leave behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use kstone_api::{
    CancelReason, CompactionConfig, Condition, Database, DatabaseConfig, EngineOptions, Error, Item, Key,
    LsmEngine, Params, Returning, TransactWrite, TransactionOptions, Update, Value, WriteBatch, WriteOptions,
    attr,
};
use kstone_core::clock::ManualClock;
use kstone_core::vfs::{CrashMode, StrictVfs};

/// A database whose memtables are flushed after a few records, so that conditions meet flushes.
fn small() -> Database {
    let mut options = EngineOptions::memory();
    options.config = Some(DatabaseConfig::new().with_stripes(4).with_max_memtable_records(50));
    options.compaction = Some(CompactionConfig::new().with_sst_threshold(2));
    LsmEngine::create(std::path::Path::new("db"), options).unwrap().into()
}

fn n_of(db: &Database, key: &str) -> Option<i64> {
    db.get(key).unwrap().and_then(|item| item.get("n").and_then(Value::as_i64))
}

fn on_threads(threads: usize, run: impl Fn(usize) + Sync) {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        for n in 0..threads {
            let (run, start) = (&run, &start);
            scope.spawn(move || {
                start.wait();
                run(n);
            });
        }
    });
}

#[test]
fn no_addition_to_a_counter_is_lost() {
    let db = small();
    on_threads(4, |_| {
        for _ in 0..2_500 {
            db.update("counter").add("n", 1).run().unwrap();
        }
    });
    assert_eq!(n_of(&db, "counter"), Some(10_000));
}

#[test]
fn of_several_that_register_a_name_one_succeeds() {
    let db = small();
    let taken = std::sync::Mutex::new(BTreeMap::<usize, usize>::new());
    on_threads(4, |thread| {
        for name in 0..200 {
            if db.put_if_absent(format!("name#{name}"), Item::builder().number("n", thread as i64)).unwrap() {
                assert_eq!(taken.lock().unwrap().insert(name, thread), None, "{name} was given out twice");
            }
        }
    });
    let taken = taken.into_inner().unwrap();
    assert_eq!(taken.len(), 200);
    for (name, thread) in taken {
        assert_eq!(n_of(&db, &format!("name#{name}")), Some(thread as i64));
    }
}

#[test]
fn what_is_taken_is_given_to_one() {
    let db = small();
    for n in 0..400 {
        db.put(format!("job#{n}"), Item::builder().number("n", n)).unwrap();
    }
    let given = std::sync::atomic::AtomicUsize::new(0);
    on_threads(4, |_| {
        for n in 0..400 {
            if let Some(job) = db.take(format!("job#{n}")).unwrap() {
                assert_eq!(job.get("n").and_then(Value::as_i64), Some(n));
                given.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    assert_eq!(given.into_inner(), 400);
}

#[test]
fn transfers_keep_the_sum_in_every_snapshot() {
    const ACCOUNTS: i64 = 8;
    let db = small();
    for n in 0..ACCOUNTS {
        db.put(format!("account#{n}"), Item::builder().number("n", 100)).unwrap();
    }
    let keys = || (0..ACCOUNTS).map(|n| format!("account#{n}"));
    let sum = |items: Vec<Option<Item>>| -> i64 {
        items.iter().map(|item| item.as_ref().unwrap().get("n").and_then(Value::as_i64).unwrap()).sum()
    };
    on_threads(4, |thread| {
        for round in 0..150_usize {
            let from = (thread * 3 + round) as i64 % ACCOUNTS;
            let to = (from + 1 + (round / 8) as i64 % (ACCOUNTS - 1)) % ACCOUNTS;
            let (from, to) = (format!("account#{from}"), format!("account#{to}"));
            if round % 2 == 0 {
                let done = db.transaction_with(TransactionOptions::new().attempts(1_000), |tx| {
                    let n = |item: Option<Item>| item.unwrap().get("n").and_then(Value::as_i64).unwrap();
                    let (a, b) = (n(tx.get(from.as_str())?), n(tx.get(to.as_str())?));
                    tx.put(from.as_str(), Item::builder().number("n", a - 1))?;
                    tx.put(to.as_str(), Item::builder().number("n", b + 1))
                });
                done.unwrap();
            } else {
                let write = TransactWrite::new()
                    .update_if(from.as_str(), Update::new().add("n", -1), attr("n").gt(0))
                    .unwrap()
                    .update(to.as_str(), Update::new().add("n", 1))
                    .unwrap();
                match db.transact_write(&write) {
                    Ok(()) | Err(Error::TransactionCancelled { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(sum(db.transact_get(keys()).unwrap()), 100 * ACCOUNTS);
            assert_eq!(sum(db.snapshot().unwrap().batch_get(keys()).unwrap()), 100 * ACCOUNTS);
        }
    });
}

/// Two doctors are on call; each may leave if the other stays.
#[test]
fn a_write_skew_is_impossible() {
    for round in 0..60 {
        let db = small();
        for doctor in 0..2 {
            db.put(format!("doctor#{doctor}"), Item::builder().number("n", 1)).unwrap();
        }
        on_threads(2, |doctor| {
            let left = db.transaction(|tx| {
                let other = tx.get(format!("doctor#{}", 1 - doctor))?.unwrap();
                if other.get("n").and_then(Value::as_i64) == Some(1) {
                    tx.put(format!("doctor#{doctor}"), Item::builder().number("n", 0))?;
                }
                Ok::<_, Error>(())
            });
            left.unwrap();
        });
        let on_call = n_of(&db, "doctor#0").unwrap() + n_of(&db, "doctor#1").unwrap();
        assert_eq!(on_call, 1, "round {round}");
    }
}

#[test]
fn two_that_insert_if_a_query_is_empty_do_not_both() {
    for round in 0..60 {
        let db = small();
        on_threads(3, |guest| {
            let booked = db.transaction(|tx| {
                if tx.query("room").sort_prefix("2026-02-01").run()?.is_empty() {
                    tx.put(("room", format!("2026-02-01/{guest}")), Item::new())?;
                }
                Ok::<_, Error>(())
            });
            booked.unwrap();
        });
        assert_eq!(db.query("room").run().unwrap().count(), 1, "round {round}");
    }
}

/// A conflict that an own write in the closure causes, each time that it runs.
#[test]
fn a_conflict_is_told_after_the_last_attempt() {
    let db = small();
    let mut runs = 0;
    let result = db.transaction_with(TransactionOptions::new().attempts(5), |tx| {
        runs += 1;
        tx.get("a")?;
        db.put("a", Item::builder().number("n", runs))?;
        tx.put("b", Item::new())
    });
    assert!(matches!(result, Err(Error::Conflict { attempts: 5 })), "{result:?}");
    assert_eq!((runs, db.contains("b").unwrap()), (5, false));

    // A read through the snapshot does not count, nor does a write elsewhere.
    let mut runs = 0;
    db.transaction(|tx| {
        runs += 1;
        tx.snapshot().get("a")?;
        tx.get("c")?;
        tx.query("d").sort_to("m").run()?;
        db.put("a", Item::new())?;
        db.put(("d", "n"), Item::new())?;
        tx.put("b", Item::new())
    })
    .unwrap();
    assert_eq!((runs, db.contains("b").unwrap()), (1, true));

    // Nothing that only reads conflicts.
    db.transaction(|tx| {
        tx.get("a")?;
        db.put("a", Item::new())
    })
    .unwrap();
}

#[test]
fn what_a_limited_query_did_not_reach_does_not_count() {
    let db = small();
    for n in 0..6 {
        db.put(("p", format!("{n}")), Item::builder().number("n", n)).unwrap();
    }
    let runs_when = |reverse: bool, insert: &str| {
        let mut runs = 0;
        db.transaction(|tx| {
            runs += 1;
            let query = tx.query("p").limit(2);
            let found = if reverse { query.reverse() } else { query }.run()?;
            assert_eq!(found.len(), 2);
            if runs == 1 {
                db.put(("p", insert), Item::new())?;
            }
            tx.put("other", Item::new())
        })
        .unwrap();
        db.delete(("p", insert)).unwrap();
        runs
    };
    assert_eq!((runs_when(false, "00"), runs_when(false, "3x")), (2, 1));
    assert_eq!((runs_when(true, "4x"), runs_when(true, "3x")), (2, 1));
    assert_eq!((runs_when(false, "1"), runs_when(true, "4")), (2, 2)); // the last one read
}

#[test]
fn a_transaction_reads_its_own_writes_in_order() {
    let db = small();
    for sort in ["b", "d", "f"] {
        db.put(("p", sort), Item::builder().string("from", "stored")).unwrap();
    }
    db.put("p", Item::builder().string("from", "stored")).unwrap();
    let read = db
        .transaction(|tx| {
            tx.put(("p", "a"), Item::builder().string("from", "own"))?;
            tx.put(("p", "d"), Item::builder().string("from", "own"))?;
            tx.delete(("p", "f"))?;
            tx.put(("p", "g"), Item::builder().string("from", "own"))?;
            tx.put(("q", "a"), Item::new())?;
            let sorts = |rows: Vec<(Key<'static>, Item)>| -> Vec<String> {
                rows.iter()
                    .map(|(key, item)| {
                        let sort = key.sort().map_or("-", |sort| std::str::from_utf8(sort).unwrap());
                        format!("{sort}{}", &item.get("from").and_then(Value::as_str).unwrap()[..1])
                    })
                    .collect()
            };
            assert_eq!(tx.get(("p", "d"))?.unwrap().get("from").and_then(Value::as_str), Some("own"));
            assert!(tx.get(("p", "f"))?.is_none() && !tx.contains(("p", "f"))?);
            Ok::<_, Error>([
                sorts(tx.query("p").run()?),
                sorts(tx.query("p").reverse().limit(3).run()?),
                sorts(tx.query("p").sort_from("b").sort_before("g").run()?),
                sorts(tx.query("p").filter(attr("from").eq("own")).limit(2).run()?),
                sorts(tx.query("p").sort_prefix("f").run()?),
            ])
        })
        .unwrap();
    let expected: [&[&str]; 5] =
        [&["-s", "ao", "bs", "do", "go"], &["go", "do", "bs"], &["bs", "do"], &["ao", "do"], &[]];
    assert_eq!(read, expected);
    let stored: Vec<_> = db.query("p").run().unwrap().keys().map(|key| key.unwrap()).collect();
    assert_eq!(stored.len(), 5);
}

#[test]
fn a_refused_write_changes_nothing_and_says_why() {
    let db = small();
    db.put("a", Item::builder().string("s", "text").number("n", 1)).unwrap();
    let before = || (db.get("a").unwrap(), db.get("b").unwrap(), db.stats().unwrap().operations.puts);
    let was = before();
    let code = |result: kstone_api::Result<()>| result.unwrap_err().code();

    assert_eq!(code(db.put_if("a", Item::new(), attr("n").eq(2))), "condition_failed");
    assert_eq!(code(db.put_if("b", Item::new(), Condition::item_exists())), "condition_failed");
    assert_eq!(code(db.delete_if("a", attr("n").absent())), "condition_failed");
    assert_eq!(code(db.update("a").add("s", 1).run().map(drop)), "update_failed");
    assert_eq!(code(db.update("a").set("n", "x").remove("n").run().map(drop)), "invalid_expression");
    let mut batch = WriteBatch::new();
    batch.put("b", Item::new()).unwrap().require("a", attr("n").eq(2)).unwrap();
    batch.delete("a").unwrap();
    let Err(Error::TransactionCancelled { reasons }) = db.write(batch) else { panic!() };
    assert!(matches!(reasons[..], [None, Some(CancelReason::Condition { old: Some(_) }), None]));

    let large = Update::new().set("large", "x".repeat(20 << 20));
    assert_eq!(code(db.update("a").apply(large.clone()).run().map(drop)), "item_too_large");
    let write = TransactWrite::new()
        .put("b", Item::new())
        .unwrap()
        .update("a", large)
        .unwrap()
        .update("c", Update::new().add("n", 1))
        .unwrap()
        .check("d", Condition::item_exists())
        .unwrap();
    let Err(Error::TransactionCancelled { reasons }) = db.transact_write(&write) else { panic!() };
    assert!(matches!(
        reasons[..],
        [None, Some(CancelReason::TooLarge { .. }), None, Some(CancelReason::Condition { old: None })]
    ));
    let twice = TransactWrite::new().put("a", Item::new()).unwrap().delete("a").unwrap_err();
    assert_eq!(twice.code(), "invalid_key");
    assert!(twice.to_string().contains("operation 2"), "{twice}");
    let failed = db.transaction(|tx| {
        tx.put("b", Item::new())?;
        tx.update("a", &Update::new().add("s", 1))
    });
    assert_eq!(failed.unwrap_err().code(), "update_failed");
    assert_eq!(before(), was);
}

#[test]
fn an_update_returns_what_was_asked_for() {
    let db = small();
    let item = |n: i64| Item::builder().number("n", n).string("s", "same").build();
    let update = |returning| db.update("a").add("n", 1).returning(returning).run().unwrap();
    let only_n = |n: i64| Item::builder().number("n", n).build();
    assert_eq!(update(Returning::Old), None);
    assert_eq!(update(Returning::New), Some(only_n(2)));
    db.put("a", item(5)).unwrap();
    assert_eq!(update(Returning::Nothing), None);
    assert_eq!(update(Returning::Old), Some(item(6)));
    assert_eq!(update(Returning::New), Some(item(8)));
    assert_eq!(update(Returning::UpdatedOld), Some(only_n(8)));
    assert_eq!(update(Returning::UpdatedNew), Some(only_n(10)));
    let parsed = Update::parse("SET n = n - :one", &Params::new().value(":one", 1)).unwrap();
    assert_eq!(db.update("a").apply(parsed).returning(Returning::New).run().unwrap(), Some(item(9)));
    assert_eq!(db.replace("a", only_n(1)).unwrap(), Some(item(9)));
    assert_eq!((db.take("a").unwrap(), db.take("a").unwrap()), (Some(only_n(1)), None));
}

/// A database on this clock and file system.
fn on(vfs: &StrictVfs, clock: &Arc<ManualClock>) -> EngineOptions {
    EngineOptions::reproducible(Arc::new(vfs.clone()), Arc::<ManualClock>::clone(clock))
}

#[test]
fn a_transaction_that_takes_too_long_is_not_written() {
    let (vfs, clock) = (StrictVfs::new(), Arc::new(ManualClock::new(1)));
    let db: Database = LsmEngine::create(std::path::Path::new("db"), on(&vfs, &clock)).unwrap().into();
    let run = |options: TransactionOptions, takes: u64| {
        db.transaction_with(options, |tx| {
            clock.advance(Duration::from_secs(takes));
            tx.put("a", Item::new())
        })
    };
    let late = run(TransactionOptions::new(), 61);
    assert!(matches!(late, Err(Error::Conflict { attempts: 1 })), "{late:?}");
    assert!(!db.contains("a").unwrap());
    run(TransactionOptions::new().timeout(Duration::from_secs(62)), 61).unwrap();
    assert!(db.contains("a").unwrap());
    // One that writes nothing holds at the moment of its snapshot, however long ago that was.
    db.transaction(|tx| {
        clock.advance(Duration::from_secs(61));
        tx.contains("a")
    })
    .unwrap();
}

#[test]
fn each_kind_of_write_is_as_durable_as_was_asked_for() {
    let clock = Arc::new(ManualClock::new(1));
    let writes: [fn(&Database, WriteOptions) -> kstone_api::Result<()>; 4] = [
        |db, options| db.update("a").set("n", 1).options(options).run().map(drop),
        |db, options| db.transact_write_with(&TransactWrite::new().put("a", Item::new())?, options),
        |db, options| {
            db.transaction_with(TransactionOptions::new().write(options), |tx| tx.put("a", Item::new()))
        },
        |db, options| {
            let mut batch = WriteBatch::new();
            batch.require("b", Condition::item_absent())?.put("a", Item::new())?;
            db.write_with(batch, options)
        },
    ];
    for (n, write) in writes.into_iter().enumerate() {
        for (options, survives) in [(WriteOptions::sync(), true), (WriteOptions::buffered(), false)] {
            let vfs = StrictVfs::new();
            let db: Database =
                LsmEngine::create(std::path::Path::new("db"), on(&vfs, &clock)).unwrap().into();
            db.put_with("first", Item::new(), WriteOptions::sync()).unwrap();
            write(&db, options).unwrap();
            let image = vfs.crash(CrashMode::Strict);
            let mut after = on(&vfs, &clock);
            after.vfs = Arc::new(image);
            let found: Database = LsmEngine::open(std::path::Path::new("db"), after).unwrap().into();
            assert!(found.contains("first").unwrap());
            assert_eq!(found.contains("a").unwrap(), survives, "write {n}, {options:?}");
        }
    }
}
