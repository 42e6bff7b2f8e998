//! What `write_with` decides on, and what it writes.

use kstone_core::Error;
use kstone_core::lsm::{Direction, StripeStats, WriteBatch};
use kstone_core::vfs::{CrashMode, StrictVfs};

use super::*;

/// Appends a byte to each value.
fn append(values: &[Option<Slice>], changes: &mut Changes) {
    for (at, value) in values.iter().enumerate() {
        let mut value = value.as_ref().map(|value| value.to_vec()).unwrap_or_default();
        value.push(b'!');
        changes.put(at, value);
    }
}

#[test]
fn values_are_seen_in_the_order_of_the_keys_and_written_as_one() {
    let engine = create(config());
    let keys = [key(3, 0), key(0, 0), key(2, 0), key(0, 1), key(3, 0)];
    put(&engine, &keys[0], b"flushed");
    put(&engine, &keys[1], b"gone");
    put(&engine, &keys[3], b"old");
    engine.flush().unwrap();
    delete(&engine, &keys[1]);
    put(&engine, &keys[3], b"new");
    let before = written(&engine);
    let seen = engine
        .write_with(&keys, WriteOptions::new(), |values, changes| {
            assert!(changes.is_empty());
            changes.put(1, b"1".to_vec());
            changes.delete(0);
            changes.delete(3);
            // The same key as the first: the last change holds.
            changes.put(4, b"4".to_vec());
            assert!(!changes.is_empty());
            Ok(bytes(values))
        })
        .unwrap();
    let some = |value: &str| Some(value.as_bytes().to_vec());
    assert_eq!(seen, [some("flushed"), None, None, some("new"), some("flushed")]);
    // One record in the log, so whole or absent after any crash.
    assert_eq!(written(&engine), (before.0 + 1, before.1 + 2, before.2 + 2, before.3 + 1));
    let all = keys.each_ref().map(|key| get(&engine, key));
    assert_eq!(all, [some("4"), some("1"), None, None, some("4")]);
}

#[test]
fn a_key_named_twice_is_seen_and_decided_on_twice_also_when_it_changes_meanwhile() {
    let engine = create(config());
    let keys = [key(1, 0), key(1, 0)];
    put(&engine, &keys[0], b"a");
    let seen = decide_while(&engine, &keys, || put(&engine, &keys[0], b"b"), append).unwrap();
    let twice = |value: &[u8]| vec![Some(value.to_vec()); 2];
    assert_eq!(seen, [twice(b"a"), twice(b"b")]);
    assert_eq!(get(&engine, &keys[0]), Some(b"b!".to_vec()));
}

#[test]
fn without_keys_or_changes_nothing_is_written() {
    let engine = create(config());
    let name = key(0, 0);
    put(&engine, &name, b"value");
    let before = (written(&engine), engine.snapshot().unwrap().seq());
    let none = engine.write_with(&[], WriteOptions::new(), |values, _| Ok(values.len()));
    assert_eq!(none.unwrap(), 0);
    let seen = engine.write_with(&[name], WriteOptions::sync(), |values, _| Ok(bytes(values)));
    assert_eq!(seen.unwrap(), [Some(b"value".to_vec())]);
    assert_eq!((written(&engine), engine.snapshot().unwrap().seq()), before);
}

/// `None` for a stripe without data.
fn in_stripe_0(engine: &LsmEngine) -> Option<StripeStats> {
    engine.stats().unwrap().stripes.into_iter().find(|stripe| stripe.stripe == 0)
}

fn runs_in_stripe_0(engine: &LsmEngine) -> usize {
    in_stripe_0(engine).map_or(0, |stripe| stripe.runs)
}

/// What others do while a conditional write is between its decision and its locks.
type Meanwhile = (&'static str, fn(&LsmEngine, &Key<'_>), Option<&'static [u8]>);

const MEANWHILE: [Meanwhile; 9] = [
    ("a put", |engine, key| put(engine, key, b"new"), Some(b"new")),
    ("the same value again", |engine, key| put(engine, key, b"old"), Some(b"old")),
    ("a delete", delete, None),
    (
        "a put, and a seal by the limit of records",
        |engine, key| {
            put(engine, key, b"new");
            (1..7).for_each(|n| put(engine, &super::key(0, n), b"other"));
            let stripe = in_stripe_0(engine).unwrap();
            assert!(stripe.memtable_records > stripe.memtable_limit, "{stripe:?}");
        },
        Some(b"new"),
    ),
    (
        "a put and a flush",
        |engine, key| {
            put(engine, key, b"new");
            engine.flush().unwrap();
        },
        Some(b"new"),
    ),
    (
        "a delete, flushed to nothing",
        |engine, key| {
            delete(engine, key);
            engine.flush().unwrap();
            assert_eq!(runs_in_stripe_0(engine), 0);
        },
        None,
    ),
    (
        "a put and a compaction",
        |engine, key| {
            put(engine, key, b"new");
            engine.flush().unwrap();
            engine.trigger_compaction(0).unwrap();
        },
        Some(b"new"),
    ),
    (
        "a delete and a compaction, to nothing",
        |engine, key| {
            engine.flush().unwrap();
            delete(engine, key);
            engine.trigger_compaction(0).unwrap();
            assert_eq!(runs_in_stripe_0(engine), 0);
        },
        None,
    ),
    (
        "a batch of several stripes",
        |engine, key| {
            let mut batch = WriteBatch::new();
            batch.put(key.clone(), *b"new").put(super::key(1, 0), *b"other");
            engine.write(&batch, WriteOptions::new()).unwrap();
        },
        Some(b"new"),
    ),
];

/// With one key, which is read without a snapshot, and with two, which are read through one.
#[test]
fn what_changes_meanwhile_is_decided_on_again() {
    for (what, act, now) in MEANWHILE {
        for count in [1, 2] {
            let engine = create(config().with_max_memtable_records(5));
            let keys = &[key(0, 0), key(2, 0)][..count];
            put(&engine, &keys[0], b"old");
            let seen = decide_while(&engine, keys, || act(&engine, &keys[0]), append).unwrap();
            let values: Vec<_> = seen.iter().map(|values| values[0].as_deref()).collect();
            assert_eq!(values, [Some(&b"old"[..]), now], "{what}, {count} keys");
            let expected = [now.unwrap_or_default(), b"!"].concat();
            assert_eq!(get(&engine, &keys[0]), Some(expected), "{what}, {count} keys");
        }
    }
}

/// What was read is still the newest: neither another key nor a flush of what was seen calls for a second decision.
#[test]
fn what_does_not_change_is_decided_on_once() {
    let others: [fn(&LsmEngine); 4] = [
        |engine| put(engine, &key(0, 1), b"other"),
        |engine| engine.flush().unwrap(),
        |engine| engine.trigger_compaction(0).unwrap(),
        |engine| {
            put(engine, &key(3, 0), b"of another stripe");
            engine.flush().unwrap();
        },
    ];
    for (n, others) in others.into_iter().enumerate() {
        for count in [1, 2] {
            let engine = create(config());
            let keys = &[key(0, 0), key(2, 0)][..count];
            put(&engine, &keys[0], b"old");
            let seen = decide_while(&engine, keys, || others(&engine), append).unwrap();
            assert_eq!(seen.len(), 1, "{n}, {count} keys");
        }
    }
}

/// What is returned and counted belongs to the decision that was written.
#[test]
fn the_last_decision_counts_once() {
    let engine = create(config());
    let (name, other) = (key(0, 0), key(1, 0));
    let latencies = |engine: &LsmEngine| {
        let all = engine.latencies();
        [all.put.count, all.delete.count, all.batch.count]
    };
    let bytes_before = |engine: &LsmEngine| engine.stats().unwrap().operations.user_bytes_written;
    put(&engine, &name, b"old");
    // A put is decided first, then a delete; then a put, then a batch.
    let (before, timed) = (written(&engine), latencies(&engine));
    let mut calls = 0;
    let returned = engine.write_with(std::slice::from_ref(&name), WriteOptions::new(), |_, changes| {
        calls += 1;
        if calls == 1 {
            put(&engine, &name, b"new");
            changes.put(0, b"first".to_vec());
        } else {
            changes.delete(0);
        }
        Ok(calls)
    });
    assert_eq!((returned.unwrap(), get(&engine, &name)), (2, None));
    assert_eq!(written(&engine), (before.0 + 2, before.1 + 1, before.2 + 1, before.3));
    assert_eq!(latencies(&engine), [timed[0] + 1, timed[1] + 1, timed[2]]);

    let (before, bytes, timed) = (written(&engine), bytes_before(&engine), latencies(&engine));
    let keys = [name.clone(), other.clone()];
    let mut calls = 0;
    let returned = engine.write_with(&keys, WriteOptions::new(), |_, changes| {
        calls += 1;
        if calls == 1 {
            put(&engine, &other, b"");
            changes.put(0, b"first".to_vec());
        } else {
            changes.put(0, b"12345".to_vec());
            changes.delete(1);
        }
        Ok(calls)
    });
    // Of other keys: what was reserved does not serve, so it starts over.
    assert_eq!((returned.unwrap(), get(&engine, &name)), (3, Some(b"12345".to_vec())));
    assert_eq!(get(&engine, &other), None);
    assert_eq!(written(&engine), (before.0 + 2, before.1 + 2, before.2 + 1, before.3 + 1));
    assert_eq!(latencies(&engine), [timed[0] + 1, timed[1], timed[2] + 1]);
    let put = (other.partition().len() + other.partition().len() + name.partition().len() + 5) as u64;
    assert_eq!(bytes_before(&engine) - bytes, put);
}

/// A put that becomes a delete fits into what was reserved; a delete, which may use space that puts may not, becomes a
/// put only when that is granted.
#[test]
fn a_put_may_become_a_delete_and_a_delete_starts_over_as_a_put() {
    for (first, then, decisions) in [(true, false, 2), (false, true, 3)] {
        let engine = create(config());
        let name = key(0, 0);
        let mut calls = 0;
        let keys = std::slice::from_ref(&name);
        let done = engine.write_with(keys, WriteOptions::new(), |_, changes| {
            calls += 1;
            let puts = if calls == 1 {
                put(&engine, &name, b"meanwhile");
                first
            } else {
                then
            };
            if puts {
                changes.put(0, b"put".to_vec())
            } else {
                changes.delete(0)
            }
            Ok(())
        });
        done.unwrap();
        assert_eq!((calls, get(&engine, &name)), (decisions, then.then(|| b"put".to_vec())));
    }
}

/// A record may grow by 256 bytes between the decisions; beyond that space is reserved anew, for the growth that was
/// seen too, so that a record that keeps growing is written in the end.
#[test]
fn a_record_may_grow_between_decisions() {
    let engine = create(config());
    let name = key(0, 0);
    let keys = std::slice::from_ref(&name);
    for (growth, decisions) in [(0, 2), (250, 2), (256, 2), (257, 3), (100_000, 3)] {
        put(&engine, &name, &[1; 1000]);
        let meanwhile = || put(&engine, &name, &vec![2; 1000 + growth]);
        let again = |values: &[Option<Slice>], changes: &mut Changes| {
            changes.put(0, values[0].as_ref().unwrap().to_vec());
        };
        let seen = decide_while(&engine, keys, meanwhile, again).unwrap();
        assert_eq!(seen.len(), decisions, "{growth} bytes more");
        assert_eq!(get(&engine, &name), Some(vec![2; 1000 + growth]));
    }
    put(&engine, &name, &[1; 1000]);
    let (mut len, mut calls) = (1000, 0);
    engine
        .write_with(keys, WriteOptions::new(), |values, changes| {
            calls += 1;
            // Every first of two decisions is made without locks: others write beside it.
            if calls % 2 == 1 {
                len += 1000;
                put(&engine, &name, &vec![3; len]);
            }
            changes.put(0, [values[0].as_ref().unwrap(), b"!".as_slice()].concat());
            Ok(())
        })
        .unwrap();
    assert_eq!((calls, get(&engine, &name).unwrap().len()), (4, 3001));
}

/// The first decision is not written, and so its size does not matter; nor does that of a later one that starts over.
#[test]
fn a_decision_over_the_limits_is_refused_only_if_it_would_be_written() {
    let engine = create(config().with_max_item_bytes(2000));
    let name = key(0, 0);
    put(&engine, &name, b"old");
    let length = |values: &[Option<Slice>], changes: &mut Changes| {
        let long = values[0].as_ref().is_some_and(|value| value[..] == *b"long");
        changes.put(0, vec![7; if long { 2001 } else { 2000 }]);
    };
    let keys = std::slice::from_ref(&name);
    let before = written(&engine);
    let refused = decide_while(&engine, keys, || put(&engine, &name, b"long"), length).unwrap_err();
    assert!(matches!(refused, Error::ItemTooLarge { len: 2001, max: 2000 }), "{refused}");
    // Only what was written beside it.
    assert_eq!(written(&engine).0, before.0 + 1);
    assert_eq!(get(&engine, &name), Some(b"long".to_vec()));
    let seen = decide_while(
        &engine,
        keys,
        || put(&engine, &name, b"short"),
        |_, changes| {
            changes.put(0, vec![8; 2000]);
        },
    );
    assert_eq!(seen.unwrap().len(), 2);
    assert_eq!(get(&engine, &name), Some(vec![8; 2000]));
}

#[test]
fn a_synced_one_survives_a_power_cut_and_a_buffered_one_a_killed_process() {
    for (how, mode, kept) in [
        (WriteOptions::sync(), CrashMode::Strict, true),
        (WriteOptions::buffered(), CrashMode::Strict, false),
        (WriteOptions::buffered(), CrashMode::All, true),
    ] {
        let vfs = StrictVfs::new();
        let mut options = options(config());
        options.vfs = Arc::new(vfs.clone());
        let engine = LsmEngine::create(Path::new("db"), options).unwrap();
        let keys = [key(0, 0), key(1, 0)];
        engine
            .write_with(&keys, how, |_, changes| {
                (0..2).for_each(|at| changes.put(at, b"value".to_vec()));
                Ok(())
            })
            .unwrap();
        let image = vfs.crash(mode);
        vfs.stop_after(Some(0));
        drop(engine);
        let engine = LsmEngine::open(Path::new("db"), manual(Arc::new(image), 2)).unwrap();
        let count = engine.scan(b"", Direction::Forward, None).unwrap().count();
        assert_eq!(count, if kept { 2 } else { 0 }, "{how:?}, {mode:?}");
    }
}
