//! Concurrent writers: shared log writes, shared syncs, one order for all.

use std::sync::{Arc, Mutex};

use kstone_shuttle::Error;
use kstone_shuttle::lsm::WriteOptions;
use kstone_shuttle::vfs::{CrashMode, StrictVfs};

use shuttle::rand::Rng;

use super::harness::*;

/// Symptom it looks for: an acknowledged write that is missing for a reader, or after the death of the process or a
/// power cut; a power cut that keeps a write and loses an earlier one.
#[test]
fn acknowledged_writes_are_visible_and_as_durable_as_was_asked_for() {
    explore("group commit", group_commit);
}

pub(crate) fn group_commit() {
    let vfs = StrictVfs::new();
    let engine = create(options(Arc::new(vfs.clone())));
    let written = Arc::new(Mutex::new(Vec::<Written>::new()));
    let images = Arc::new(Mutex::new(Vec::new()));
    let writers = (0..3u64).map(|writer| {
        let (engine, vfs) = (Arc::clone(&engine), vfs.clone());
        let (written, images) = (Arc::clone(&written), Arc::clone(&images));
        spawn(move || {
            for n in 0..2usize {
                // The first two writers share a stripe.
                let (key, value) = (key(writer / 2, writer as usize * 4 + n), vec![writer as u8, n as u8]);
                let sync = (writer as usize + n).is_multiple_of(2);
                let how = if sync { WriteOptions::sync() } else { WriteOptions::buffered() };
                let seq = engine.put(&key, &value, how).unwrap();
                let mode = if sync { CrashMode::Strict } else { CrashMode::All };
                let image = vfs.crash(mode);
                let found = engine.get(&key).unwrap().expect("an acknowledged write is not visible");
                assert_eq!(&found[..], value);
                images.lock().unwrap().push((image, key.partition().to_vec()));
                written.lock().unwrap().push(Written { seq, key: key.partition().to_vec(), value });
            }
        })
    });
    join(writers.collect::<Vec<_>>());
    let last = vfs.crash(CrashMode::Strict);
    engine.close().unwrap();
    assert_no_wake_up_was_missed();
    let written = written.lock().unwrap();
    let mut seqs: Vec<u64> = written.iter().map(|write| write.seq).collect();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), 6, "a sequence was used twice");
    for (image, key) in std::mem::take(&mut *images.lock().unwrap()) {
        let found = contents(image);
        assert!(found.contains_key(&key), "an acknowledged write is lost");
        assert_prefix(&written, &found);
    }
    assert_prefix(&written, &contents(last));
    assert_eq!(contents(vfs).len(), 6);
}

/// The file system fails at some operation, and at all later ones. Symptom it looks for: a writer whose record is
/// reported as written, or synced, by another writer's call that failed; a writer that gets no result and waits
/// forever.
#[test]
fn a_failure_reaches_all_who_share_the_call() {
    explore_some("group commit with failures", 500, group_commit_with_failures);
}

pub(crate) fn group_commit_with_failures() {
    let vfs = StrictVfs::new();
    let engine = create(options(Arc::new(vfs.clone())));
    engine.put(&key(0, 0), b"first", WriteOptions::sync()).unwrap();
    let fails_at = shuttle::rand::thread_rng().gen_range(0..8);
    vfs.stop_after(Some(vfs.ops() + fails_at));
    let acknowledged = Arc::new(Mutex::new(Vec::<(Written, bool)>::new()));
    let failures = Arc::new(Mutex::new(0));
    let writers = (0..3u64).map(|writer| {
        let (engine, acknowledged, failures) =
            (Arc::clone(&engine), Arc::clone(&acknowledged), Arc::clone(&failures));
        spawn(move || {
            for n in 0..2usize {
                let (key, value) = (key(writer, 1 + n), vec![writer as u8, n as u8]);
                let sync = writer != 1;
                let how = if sync { WriteOptions::sync() } else { WriteOptions::buffered() };
                match engine.put(&key, &value, how) {
                    Ok(seq) => {
                        let key = key.partition().to_vec();
                        acknowledged.lock().unwrap().push((Written { seq, key, value }, sync));
                    }
                    Err(Error::Io { .. } | Error::Poisoned { .. }) => *failures.lock().unwrap() += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    join(writers.collect::<Vec<_>>());
    let (strict, all) = (contents(vfs.crash(CrashMode::Strict)), contents(vfs.crash(CrashMode::All)));
    // A write that could not be undone, or a failed sync, ends all writing; a failed flush does not.
    if *failures.lock().unwrap() > 0 {
        let late = engine.put(&key(3, 0), b"late", WriteOptions::new());
        assert!(matches!(late, Err(Error::Poisoned { .. })), "{late:?}");
    }
    let _ = engine.close();
    assert_no_wake_up_was_missed();
    for (written, sync) in acknowledged.lock().unwrap().iter() {
        assert_eq!(all.get(&written.key), Some(&written.value), "an acknowledged write is lost");
        assert!(!sync || strict.get(&written.key) == Some(&written.value), "a synced write is lost");
    }
}
