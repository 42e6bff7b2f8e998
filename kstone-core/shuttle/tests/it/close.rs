//! Close concurrent with calls and background work.

use std::path::Path;
use std::sync::{Arc, Mutex};

use kstone_shuttle::lsm::{Direction, LsmEngine, WriteOptions};
use kstone_shuttle::vfs::MemVfs;
use kstone_shuttle::{CompactionConfig, Error};

use super::harness::*;

/// The value, or `None` if the call failed because the database is closed.
fn done_or_closed<T>(result: kstone_shuttle::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Closed) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Symptoms it looks for: a deadlock; a call that neither succeeds nor returns `Closed`; a lost acknowledged write; an
/// unclean close.
#[test]
fn close_ends_whatever_goes_on_and_loses_nothing() {
    explore("close against calls and background work", close_against_calls);
}

pub(crate) fn close_against_calls() {
    let vfs = MemVfs::new();
    let engine = create(options(Arc::new(vfs.clone())));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let writers = (0..2u64).map(|writer| {
        let (engine, acknowledged) = (Arc::clone(&engine), Arc::clone(&acknowledged));
        spawn(move || {
            for n in 0..3 {
                let key = key(writer, n);
                let how = if n == 1 { WriteOptions::sync() } else { WriteOptions::new() };
                if done_or_closed(engine.put(&key, b"v", how)).is_some() {
                    acknowledged.lock().unwrap().push(key);
                }
            }
        })
    });
    let mut threads: Vec<_> = writers.collect();
    threads.push(spawn({
        let engine = Arc::clone(&engine);
        move || {
            if let Some(entries) = done_or_closed(engine.scan(b"", Direction::Forward, None)) {
                entries.for_each(|entry| drop(done_or_closed(entry)));
            }
            (0..2).for_each(|n| drop(done_or_closed(engine.get(&key(n, 0)))));
            let _ =
                done_or_closed(engine.set_compaction_config(CompactionConfig::new().with_max_concurrent(2)));
        }
    }));
    threads.push(spawn({
        let engine = Arc::clone(&engine);
        move || {
            let _ = done_or_closed(engine.trigger_compaction(0));
            let _ = done_or_closed(engine.flush());
        }
    }));
    threads.extend((0..2).map(|_| {
        let engine = Arc::clone(&engine);
        spawn(move || {
            engine.close().unwrap();
            assert!(matches!(engine.get(&key(0, 0)), Err(Error::Closed)));
        })
    }));
    join(threads);
    assert_no_wake_up_was_missed();
    drop(engine);
    let engine = LsmEngine::open(Path::new(DB), options(Arc::new(vfs))).unwrap();
    assert!(engine.stats().unwrap().recovery.clean, "the close was not clean");
    for key in acknowledged.lock().unwrap().iter() {
        assert!(engine.get(key).unwrap().is_some(), "{key:?} is lost");
    }
    engine.close().unwrap();
}
