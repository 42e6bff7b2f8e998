//! Rules that protect data on disk and that random workloads may not exercise: regression tests for faults found by
//! reviewing the code against them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kstone_core::lsm::{LsmEngine, WriteOptions};
use kstone_core::vfs::{CrashMode, OpenMode, StrictVfs, Vfs, read_all, write_all_at};
use kstone_core::{DatabaseConfig, Error, Key};

use crate::model::*;

fn db() -> &'static Path {
    Path::new("db")
}

fn create(vfs: &StrictVfs, config: DatabaseConfig) -> LsmEngine {
    let mut options = manual(Arc::new(vfs.clone()), 1);
    options.config = Some(config.with_stripes(1));
    LsmEngine::create(db(), options).unwrap()
}

fn open(vfs: &StrictVfs) -> LsmEngine {
    LsmEngine::open(db(), manual(Arc::new(vfs.clone()), 2)).unwrap()
}

/// The process dies: the engine changes nothing any more.
fn die(vfs: &StrictVfs, engine: LsmEngine) {
    vfs.stop_after(Some(0));
    drop(engine);
    vfs.stop_after(None);
}

fn put(engine: &LsmEngine, key: &str, options: WriteOptions) -> u64 {
    engine.put(&Key::from(key), &[7; 100], options).unwrap()
}

fn files(vfs: &StrictVfs) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = vfs.list(db()).unwrap().into_iter().map(|entry| db().join(entry.name));
    let read = |path: &Path| read_all(&*vfs.open(path, OpenMode::Read).unwrap(), 1 << 30).unwrap();
    // Not the files for people and tools.
    let part = |path: &PathBuf| !path.ends_with("EVENTS.jsonl") && !path.ends_with("LOCK");
    paths.filter(part).map(|path| (path.clone(), read(&path))).collect()
}

fn overwrite(vfs: &StrictVfs, path: &Path, at: usize, bytes: &[u8]) {
    write_all_at(&*vfs.open(path, OpenMode::Write).unwrap(), bytes, at as u64).unwrap();
}

/// Symptom: a write got the sequence number of one that a power cut had lost, if the database had been recovered,
/// closed and reopened in between. Cause: the numbers that recovery skips were recorded only in its cut of the log,
/// which was dropped with the log, and in the clean end, which is cancelled by the first write. Fix: the newest cut is
/// kept.
#[test]
fn sequences_are_not_used_again_after_a_recovery_and_a_clean_close() {
    for flushed in [false, true] {
        let mut vfs = StrictVfs::new();
        let engine = create(&vfs, DatabaseConfig::new());
        let mut last = put(&engine, "first", WriteOptions::sync());
        die(&vfs, engine);
        for round in 0..3 {
            vfs = vfs.crash(CrashMode::Strict);
            let engine = open(&vfs); // recovers, and skips numbers
            if flushed {
                engine.flush().unwrap();
            }
            engine.close().unwrap();
            drop(engine);
            let engine = open(&vfs);
            let seq = put(&engine, "lost", WriteOptions::buffered());
            assert!(seq > last, "{seq} after {last}, round {round}");
            last = seq;
            die(&vfs, engine);
        }
    }
}

/// Symptom: damage to records that a close had made durable was treated as a torn tail, and they were lost silently.
/// Cause: the fact that the log was durable up to its clean end was forgotten when the first write cancelled that end.
/// Fix: the edit that cancels the end keeps this fact.
#[test]
fn damage_below_a_clean_end_that_was_cancelled_is_corruption() {
    let vfs = StrictVfs::new();
    let engine = create(&vfs, DatabaseConfig::new());
    put(&engine, "a", WriteOptions::buffered());
    engine.close().unwrap();
    let engine = open(&vfs);
    engine.put(&Key::from("b"), &[b'B'; 100], WriteOptions::buffered()).unwrap();
    engine.close().unwrap();
    let engine = open(&vfs);
    put(&engine, "lost", WriteOptions::buffered());
    die(&vfs, engine);
    let image = vfs.crash(CrashMode::Strict);
    let (log, bytes) = files(&image).into_iter().find(|(path, _)| path.ends_with("wal-000001.log")).unwrap();
    let at = bytes.windows(100).position(|window| window == [b'B'; 100]).unwrap();
    overwrite(&image, &log, at + 50, b"damage");
    let opened = LsmEngine::open(db(), manual(Arc::new(image), 3));
    assert!(matches!(&opened, Err(Error::Corruption { file, .. }) if *file == log), "{opened:?}");
}

/// Symptom: if a database had lost its manifest and had one bad byte in its log, creating another one over it
/// succeeded, and its records were removed. Cause: only a valid first record counted as a record. Fix: any record
/// header that names its own position counts.
#[test]
fn a_damaged_log_without_a_manifest_is_not_created_over() {
    let vfs = StrictVfs::new();
    let engine = create(&vfs, DatabaseConfig::new());
    put(&engine, "a", WriteOptions::sync());
    put(&engine, "b", WriteOptions::sync());
    die(&vfs, engine);
    vfs.remove(&db().join("MANIFEST")).unwrap();
    for damaged in [vec![1024], vec![1024 + 16], vec![10, 522], vec![10, 522, 1024 + 20]] {
        let image = vfs.crash(CrashMode::All);
        let log = db().join("wal-000001.log");
        for at in &damaged {
            overwrite(&image, &log, *at, &[0x5a]);
        }
        let before = files(&image);
        let created = LsmEngine::create(db(), manual(Arc::new(image.clone()), 3));
        assert!(matches!(created, Err(Error::Corruption { .. })), "{damaged:?}: {created:?}");
        let opened = LsmEngine::open(db(), manual(Arc::new(image.clone()), 3));
        assert!(matches!(opened, Err(Error::Corruption { .. })), "{damaged:?}: {opened:?}");
        assert_eq!(files(&image), before);
    }
}

/// Symptom: jobs that were running when a sync failed continued to write files and edits of the manifest. Cause: only
/// new jobs were prevented from starting. Fix: each step checks first.
#[test]
fn nothing_is_written_once_the_handle_is_poisoned() {
    let mut under_way = 0;
    for steps in 0..60 {
        let vfs = StrictVfs::new();
        let engine = create(&vfs, DatabaseConfig::new().with_max_memtable_records(2));
        for n in 0..12 {
            put(&engine, &format!("key{n}"), WriteOptions::sync());
        }
        let mut rng = Rng(steps);
        let done = (0..steps).take_while(|_| engine.step(rng.next())).count() as u64;
        vfs.stop_after(Some(vfs.ops()));
        assert!(engine.put(&Key::from("key"), b"refused", WriteOptions::sync()).is_err());
        vfs.stop_after(None);
        assert!(engine.stats().unwrap().poisoned.is_some());
        let before = files(&vfs);
        while engine.step(rng.next()) {}
        let after = files(&vfs);
        assert!(after.iter().all(|file| before.contains(file)), "after {done} steps");
        under_way += u64::from(done == steps);
        die(&vfs, engine);
        assert_eq!(contents(&open(&vfs), None).len(), 12);
    }
    assert!(under_way > 20, "{under_way} runs had a job in progress");
}
