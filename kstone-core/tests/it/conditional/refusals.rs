//! What conditional writes and transactions refuse. Whatever it is, nothing is written.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kstone_core::Error;
use kstone_core::lsm::{ReadSet, WriteBatch};
use kstone_core::vfs::{Effect, Errno, FaultVfs, Op, Rule};

use super::*;

fn refused(
    engine: &LsmEngine,
    keys: &[Key<'_>],
    decide: impl FnMut(&[Option<Slice>], &mut Changes),
) -> Error {
    let before = (written(engine), engine.snapshot().unwrap().seq());
    let error = decide_while(engine, keys, || (), decide).unwrap_err();
    assert_eq!((written(engine), engine.snapshot().unwrap().seq()), before, "{error}");
    error
}

/// The errors of the caller itself are returned as they are, whether they come from the first decision or a later one.
#[test]
fn an_error_of_the_decision_refuses_the_write() {
    let engine = create(config());
    let name = key(0, 0);
    let keys = std::slice::from_ref(&name);
    put(&engine, &name, b"taken");
    let before = written(&engine);
    let free = |values: &[Option<Slice>], changes: &mut Changes| {
        changes.put(0, b"mine".to_vec());
        match &values[0] {
            Some(old) => Err(Error::ConditionFailed { old: Some(old.to_vec()) }),
            None => Ok(()),
        }
    };
    let old = |error: Error| match error {
        Error::ConditionFailed { old: Some(old) } => old,
        other => panic!("{other}"),
    };
    assert_eq!(old(engine.write_with(keys, WriteOptions::new(), free).unwrap_err()), b"taken");
    assert_eq!(written(&engine), before);

    delete(&engine, &name);
    let before = written(&engine);
    let mut calls = 0;
    let error = engine.write_with(keys, WriteOptions::new(), |values, changes| {
        calls += 1;
        if calls == 1 {
            put(&engine, &name, b"theirs");
            assert!(values[0].is_none());
        }
        free(values, changes)
    });
    assert_eq!((old(error.unwrap_err()), calls), (b"theirs".to_vec(), 2));
    assert_eq!((written(&engine).0, get(&engine, &name)), (before.0 + 1, Some(b"theirs".to_vec())));

    // Deciding on nothing the second time is no error, and the last result is returned.
    let done = engine.write_with(keys, WriteOptions::new(), |values, changes| {
        let first = values[0].as_deref() == Some(b"theirs");
        if first {
            put(&engine, &name, b"other");
            changes.put(0, b"mine".to_vec());
        }
        Ok(first)
    });
    assert!(!done.unwrap());
    assert_eq!(get(&engine, &name), Some(b"other".to_vec()));
}

#[test]
fn limits_are_those_of_plain_writes() {
    let engine = create(config().with_max_item_bytes(1000).with_max_batch_bytes(5000).with_max_key_bytes(20));
    let keys: Vec<_> = (0..6).map(|n| key(n % 4, n as usize)).collect();
    let values = |len: usize| {
        move |values: &[Option<Slice>], changes: &mut Changes| {
            (0..values.len()).for_each(|at| changes.put(at, vec![1; len]));
        }
    };
    let error = refused(&engine, &keys[..1], values(1001));
    assert!(matches!(error, Error::ItemTooLarge { len: 1001, max: 1000 }), "{error}");
    let error = refused(&engine, &keys, values(1000));
    assert!(matches!(error, Error::BatchTooLarge { max: 5000, .. }), "{error}");
    let long = Key::new(vec![b'k'; 21]);
    let error = refused(&engine, &[keys[0].clone(), long], |_, _| panic!("nothing is decided on"));
    assert!(matches!(error, Error::KeyTooLarge { len: 21, max: 20 }), "{error}");
    let error = refused(&engine, &[Key::new(Vec::new())], |_, _| panic!("nothing is decided on"));
    assert!(matches!(error, Error::InvalidKey { .. }), "{error}");
    decide_while(&engine, &keys, || (), values(700)).unwrap();

    let (snapshot, mut reads) = (engine.snapshot().unwrap(), ReadSet::new());
    assert!(matches!(reads.get(&Key::new(Vec::new())), Err(Error::InvalidKey { .. })));
    let before = written(&engine);
    let mut batch = WriteBatch::new();
    for key in &keys {
        batch.put(key.clone(), vec![1; 1000]);
    }
    let error = engine.write_if_unchanged(&snapshot, &reads, &batch, WriteOptions::new()).unwrap_err();
    assert!(matches!(error, Error::BatchTooLarge { .. }), "{error}");
    assert_eq!(written(&engine), before);
}

/// A mistake in the caller's code: an error, or a panic with debug assertions, before anything is written; and the
/// handle goes on.
#[test]
fn a_change_of_a_key_that_is_not_named_and_a_panic_leave_everything_as_it_was() {
    let engine = create(config());
    let name = key(0, 0);
    put(&engine, &name, b"old");
    let before = written(&engine);
    let keys = std::slice::from_ref(&name);
    let act = |decide: &mut dyn FnMut(&[Option<Slice>], &mut Changes)| {
        catch_unwind(AssertUnwindSafe(|| decide_while(&engine, keys, || (), decide).is_err()))
    };
    let refused = act(&mut |_, changes| changes.put(1, b"other".to_vec()));
    assert_eq!(refused.is_err(), cfg!(debug_assertions));
    assert!(refused.unwrap_or(true));
    act(&mut |_, _| panic!("at the first decision")).unwrap_err();
    assert_eq!(written(&engine), before);
    let mut calls = 0;
    act(&mut |_, changes| {
        calls += 1;
        assert!(calls == 1, "at the second decision, under the locks");
        put(&engine, &name, b"new");
        changes.put(0, b"mine".to_vec());
    })
    .unwrap_err();
    assert_eq!((calls, written(&engine).0), (2, before.0 + 1));
    // No lock is still held, and nothing reserved: all stripes take writes, and a close finds nothing running.
    (0..4).for_each(|stripe| put(&engine, &key(stripe, 3), b"value"));
    assert_eq!(get(&engine, &name), Some(b"new".to_vec()));
    engine.close().unwrap();
}

#[test]
fn handles_that_refuse_writes_refuse_these_before_they_are_decided_on() {
    let vfs = FaultVfs::new(Arc::new(MemVfs::new()));
    let with = |vfs: &FaultVfs| {
        let mut options = options(config());
        (options.vfs, options.config) = (Arc::new(vfs.clone()), None);
        options
    };
    let path = Path::new("db");
    let engine = LsmEngine::create(path, with(&vfs)).unwrap();
    let name = key(0, 0);
    put(&engine, &name, b"value");
    let snapshot = engine.snapshot().unwrap();
    let check = |engine: &LsmEngine, is: fn(&Error) -> bool| {
        let decided = decide_while(engine, std::slice::from_ref(&name), || (), |_, _| panic!("decided"));
        let error = decided.unwrap_err();
        assert!(is(&error), "{error}");
        let mut batch = WriteBatch::new();
        batch.delete(name.clone());
        for batch in [WriteBatch::new(), batch] {
            let done = engine.write_if_unchanged(&snapshot, &ReadSet::new(), &batch, WriteOptions::new());
            assert!(is(done.as_ref().unwrap_err()), "{done:?}");
        }
    };
    vfs.add(Rule::new(Effect::Fail(Errno::Io)).on(&[Op::Sync]).files("*.log").nth(1));
    engine.sync().unwrap_err();
    check(&engine, |error| matches!(error, Error::Poisoned { .. }));
    let _ = engine.close();
    check(&engine, |error| matches!(error, Error::Closed));
    let reader = LsmEngine::open_read_only(path, with(&vfs)).unwrap();
    check(&reader, |error| matches!(error, Error::ReadOnly));
    assert_eq!(get(&reader, &name), Some(b"value".to_vec()));
}

/// A failed write to the log: the error is returned, nothing of it is found, now or later.
#[test]
fn a_failed_write_to_the_log_leaves_nothing() {
    let vfs = FaultVfs::new(Arc::new(MemVfs::new()));
    let mut options = options(config());
    options.vfs = Arc::new(vfs.clone());
    let engine = LsmEngine::create(Path::new("db"), options).unwrap();
    let keys = [key(0, 0), key(1, 0)];
    put(&engine, &keys[0], b"old");
    vfs.add(Rule::new(Effect::Torn(Errno::NoSpace)).on(&[Op::Write]).files("*.log").nth(1));
    let both = |_: &[Option<Slice>], changes: &mut Changes| {
        (0..2).for_each(|at| changes.put(at, vec![7; 3000]));
    };
    let both = || {
        engine.write_with(&keys, WriteOptions::sync(), |values, changes| {
            both(values, changes);
            Ok(())
        })
    };
    let error = both().unwrap_err();
    assert!(matches!(error, Error::DiskFull), "{error}");
    assert_eq!(keys.each_ref().map(|key| get(&engine, key)), [Some(b"old".to_vec()), None]);
    both().unwrap();
    assert_eq!(keys.each_ref().map(|key| get(&engine, key)), [Some(vec![7; 3000]), Some(vec![7; 3000])]);
}

/// With a limit on disk space: a refusal needs none, a delete finds some when puts do not, and a put that fails has
/// written nothing.
#[test]
fn a_full_database_refuses_puts_and_still_takes_deletes() {
    let engine = create(config().with_max_total_disk_bytes(1 << 20));
    let keys: Vec<_> = (0..200).map(|n| key(n as u64 % 4, n)).collect();
    let fill = |key: &Key<'_>| {
        decide_while(
            &engine,
            std::slice::from_ref(key),
            || (),
            |values, changes| {
                if values[0].is_none() {
                    changes.put(0, vec![1; 20_000]);
                }
            },
        )
    };
    let full = keys.iter().position(|key| fill(key).is_err()).expect("the limit is reached");
    assert!(full > 5, "{full} items");
    assert_eq!(fill(&keys[full]).unwrap_err().code(), "disk_full");
    assert_eq!(get(&engine, &keys[full]), None);
    // Nothing is written for a key that has a value.
    let before = written(&engine);
    fill(&keys[0]).unwrap();
    assert_eq!(written(&engine), before);
    for key in &keys[..full] {
        decide_while(
            &engine,
            std::slice::from_ref(key),
            || (),
            |values, changes| {
                assert!(values[0].is_some());
                changes.delete(0);
            },
        )
        .unwrap();
    }
    fill(&keys[full]).unwrap();
    assert_eq!(get(&engine, &keys[full]), Some(vec![1; 20_000]));
}

/// Symptom: a write waited for merges of stripes that it only read. Cause: backpressure and space were asked for all
/// stripes that it locks. Fix: only for those that it writes to.
#[test]
fn a_backlog_where_nothing_is_written_holds_nothing_up() {
    for transaction in [false, true] {
        let engine = create(config());
        let (read, write) = (key(0, 0), key(1, 0));
        for _ in 0..9 {
            put(&engine, &read, b"value");
            engine.flush().unwrap();
        }
        engine.set_compaction_config(CompactionConfig::new().with_sst_threshold(2)).unwrap();
        let merges = || engine.stats().unwrap().compactions;
        if transaction {
            let (snapshot, mut reads, mut batch) =
                (engine.snapshot().unwrap(), ReadSet::new(), WriteBatch::new());
            reads.get(&read).unwrap();
            batch.put(write.clone(), *b"value");
            engine.write_if_unchanged(&snapshot, &reads, &batch, WriteOptions::new()).unwrap();
        } else {
            let keys = [read.clone(), write.clone()];
            decide_while(&engine, &keys, || (), |_, changes| changes.put(1, b"value".to_vec())).unwrap();
        }
        assert_eq!((merges(), get(&engine, &write)), (0, Some(b"value".to_vec())));
        // A write to the stripe itself waits, and on one thread it merges.
        put(&engine, &read, b"value");
        assert_ne!(merges(), 0);
    }
}
