//! Single operations that fail at the worst moment, and settings at their limits: nothing is lost, nothing blocks for
//! ever, nothing spins.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kstone_core::clock::ManualClock;
use kstone_core::lsm::{EngineOptions, LsmEngine, WriteOptions};
use kstone_core::vfs::{CrashMode, Errno, FaultVfs, Op, Rule, StrictVfs, Vfs};
use kstone_core::{DatabaseConfig, Key};

use crate::model::{contents, manual};

fn db() -> &'static Path {
    Path::new("db")
}

fn key(n: u64) -> Key<'static> {
    Key::new(format!("key{n}").into_bytes())
}

fn faulty() -> FaultVfs {
    FaultVfs::new(Arc::new(StrictVfs::new()))
}

fn options(vfs: &FaultVfs, config: DatabaseConfig) -> EngineOptions {
    let mut options = manual(Arc::new(vfs.clone()), 1);
    options.config = Some(config);
    options
}

fn files(vfs: &dyn Vfs, suffix: &str) -> Vec<String> {
    let mut names: Vec<_> = vfs.list(db()).unwrap().into_iter().map(|entry| entry.name).collect();
    names.retain(|name| name.ends_with(suffix));
    names.sort();
    names
}

/// Replay fails when only a part of the log is in memory: the following close must not mistake this for the whole log.
#[test]
fn a_replay_that_fails_leaves_the_log_as_it_was() {
    let strict = StrictVfs::new();
    let vfs = FaultVfs::new(Arc::new(strict.clone()));
    let config = DatabaseConfig::new().with_stripes(4).with_wal_segment_size(16 << 10);
    let engine = LsmEngine::create(db(), options(&vfs, config.clone())).unwrap();
    for n in 0..200 {
        engine.put(&key(n), &[n as u8; 500], WriteOptions::sync()).unwrap();
    }
    assert!(engine.stats().unwrap().log_segments > 4);
    std::mem::forget(engine);
    for pass in 0.. {
        let vfs = FaultVfs::new(Arc::new(strict.crash(CrashMode::All)));
        let rule = Rule::fail(Errno::Io).on(&[Op::Read]).files("*.log").from(1 + pass);
        vfs.add(rule);
        let opened = LsmEngine::open(db(), options(&vfs, config.clone()));
        vfs.clear();
        if opened.is_ok() {
            assert!(pass > 20, "only {pass} reads");
            return;
        }
        let engine = LsmEngine::open(db(), options(&vfs, config.clone()))
            .unwrap_or_else(|e| panic!("after read {pass} failed: {e}"));
        for n in 0..200 {
            assert!(engine.get(&key(n)).unwrap().is_some(), "key {n} is lost after read {pass} failed");
        }
    }
}

/// A second sync of the file would succeed although its pages are lost, whatever the error of the first one.
#[test]
fn a_failed_sync_of_an_sst_poisons_also_when_the_disk_is_full() {
    let vfs = faulty();
    let engine = LsmEngine::create(db(), options(&vfs, DatabaseConfig::new().with_stripes(1))).unwrap();
    engine.put(&key(1), b"value", WriteOptions::new()).unwrap();
    let rule = vfs.add(Rule::fail(Errno::NoSpace).on(&[Op::Sync]).files("*.sst"));
    engine.flush().unwrap_err();
    vfs.clear();
    assert_eq!(engine.flush().unwrap_err().code(), "poisoned");
    assert_eq!(engine.put(&key(2), b"value", WriteOptions::new()).unwrap_err().code(), "poisoned");
    assert_eq!(engine.get(&key(1)).unwrap().unwrap().to_vec(), b"value");
    assert_eq!(rule.hits(), 1);
}

/// The log cannot shrink below its active segment: this alone must not block writers.
#[test]
fn a_log_limit_that_one_segment_exceeds_stops_no_writer_for_good() {
    for config in [
        DatabaseConfig::new().with_memory_budget(1),
        DatabaseConfig::new().with_memory_budget(40_000),
        DatabaseConfig::new().with_max_memtable_records(1),
        DatabaseConfig::new()
            .with_wal_segment_size(16 << 10)
            .with_max_wal_size_bytes(400_000)
            .with_max_item_bytes(310_000)
            .with_max_key_bytes(100),
    ] {
        let config = config.with_stripes(2);
        let vfs = faulty();
        let engine = LsmEngine::create(db(), options(&vfs, config.clone())).unwrap();
        for n in 0..600 {
            let len = if n == 100 { 300_000 } else { 300 };
            let done = engine.put(&key(n), &vec![7; len], WriteOptions::new());
            assert!(done.is_ok(), "write {n} with {config:?}: {done:?}");
        }
        engine.close().unwrap();
        let engine = LsmEngine::open(db(), options(&vfs, config)).unwrap();
        assert_eq!(engine.scan(b"", kstone_core::lsm::Direction::Forward, None).unwrap().count(), 600);
        engine.put(&key(1), b"again", WriteOptions::new()).unwrap();
    }
}

/// A clean open does not look for files to remove, so a close must leave none behind.
#[test]
fn a_close_beside_a_living_iterator_leaves_no_file_behind() {
    let vfs = faulty();
    let engine = LsmEngine::create(db(), options(&vfs, DatabaseConfig::new().with_stripes(1))).unwrap();
    for n in 0..3 {
        engine.put(&key(n), b"value", WriteOptions::new()).unwrap();
        engine.flush().unwrap();
    }
    let mut rows = engine.scan(b"", kstone_core::lsm::Direction::Forward, None).unwrap();
    assert!(rows.next().unwrap().is_ok());
    engine.trigger_compaction(0).unwrap();
    engine.close().unwrap();
    assert_eq!(rows.next().unwrap().unwrap_err().code(), "closed");
    assert_eq!(files(&**vfs.inner(), ".sst").len(), 1, "{:?}", files(&**vfs.inner(), ".sst"));
}

/// Symptom: a database that was opened, compacted and closed kept a log segment that it no longer listed, for ever.
/// Cause: only segments that had been written to, and older ones, were released, not the segment reserved for further
/// writes.
#[test]
fn a_log_that_was_not_written_on_is_given_back_at_close() {
    let vfs = faulty();
    let engine = LsmEngine::create(db(), options(&vfs, DatabaseConfig::new().with_stripes(1))).unwrap();
    engine.put(&key(1), b"value", WriteOptions::new()).unwrap();
    engine.close().unwrap();
    assert_eq!(files(&**vfs.inner(), ".log").len(), 1);
    let engine = LsmEngine::open(db(), options(&vfs, DatabaseConfig::new())).unwrap();
    engine.flush().unwrap();
    engine.close().unwrap();
    assert_eq!(files(&**vfs.inner(), ".log"), [""; 0]);
    let engine = LsmEngine::open(db(), options(&vfs, DatabaseConfig::new())).unwrap();
    assert_eq!(engine.get(&key(1)).unwrap().as_deref(), Some(&b"value"[..]));
}

/// Until the first write after a clean open, the manifest records a clean end. Nothing else may be written before this
/// is cancelled, neither by background work nor by a caller: if the edit fails, nothing is written.
#[test]
fn background_work_cancels_a_clean_end_before_it_writes() {
    let vfs = faulty();
    let mut first = options(&vfs, DatabaseConfig::new().with_stripes(1));
    first.compaction = Some(kstone_core::CompactionConfig::new().with_sst_threshold(2));
    let engine = LsmEngine::create(db(), first).unwrap();
    for n in 0..3 {
        engine.put(&key(n), b"value", WriteOptions::new()).unwrap();
        engine.flush().unwrap();
    }
    assert!(engine.needs_compaction(0).unwrap());
    engine.close().unwrap();
    let before = files(&**vfs.inner(), "");
    let clock = Arc::new(ManualClock::new(1));
    let mut again = manual(Arc::new(vfs.clone()), 2);
    again.clock = clock.clone();
    let engine = LsmEngine::open(db(), again).unwrap();
    vfs.add(Rule::fail(Errno::NoSpace).on(&[Op::Create, Op::Write]).files("MANIFEST*").from(1));
    for n in 0..50 {
        clock.advance(Duration::from_secs(100));
        engine.step(n);
    }
    for suffix in [".sst", ".log"] {
        let mut files_before = before.clone();
        files_before.retain(|name| name.ends_with(suffix));
        assert_eq!(files(&**vfs.inner(), suffix), files_before);
    }
    assert!(engine.stats().unwrap().background_error.is_some());
    vfs.clear();
    clock.advance(Duration::from_secs(100));
    while engine.step(0) {}
    assert!(!engine.needs_compaction(0).unwrap());
    assert_eq!(engine.stats().unwrap().background_error, None);
}

/// The log that an interrupted creation left behind does not prevent another creation.
#[test]
fn a_leftover_segment_without_records_does_not_stand_in_the_way_of_creation() {
    let strict = StrictVfs::new();
    let vfs = FaultVfs::new(Arc::new(strict.clone()));
    drop(LsmEngine::create(db(), options(&vfs, DatabaseConfig::new())).map(std::mem::forget));
    let image = strict.crash(CrashMode::All);
    assert_eq!(files(&image, ".log").len(), 1);
    image.remove(&db().join("MANIFEST")).unwrap();
    let vfs = FaultVfs::new(Arc::new(image));
    let mut second = options(&vfs, DatabaseConfig::new());
    second.clock = Arc::new(ManualClock::new(77)); // another database
    let engine = LsmEngine::create(db(), second).unwrap();
    engine.put(&key(1), b"value", WriteOptions::new()).unwrap();
    engine.close().unwrap();
    let engine = LsmEngine::open(db(), manual(Arc::new(vfs), 3)).unwrap();
    assert!(engine.get(&key(1)).unwrap().is_some());
}

/// An unclean database on a full file system: `count` keys in SSTs and as many in the log.
fn unclean(count: u64, config: &DatabaseConfig) -> StrictVfs {
    let strict = StrictVfs::new();
    let vfs = FaultVfs::new(Arc::new(strict.clone()));
    let engine = LsmEngine::create(db(), options(&vfs, config.clone())).unwrap();
    for n in 0..count {
        engine.put(&key(n), &[n as u8; 100], WriteOptions::new()).unwrap();
    }
    engine.flush().unwrap();
    for n in count..2 * count {
        engine.put(&key(n), &[n as u8; 100], WriteOptions::sync()).unwrap();
    }
    std::mem::forget(engine);
    strict.crash(CrashMode::All)
}

fn check_keys(engine: &LsmEngine, count: u64) {
    for n in 0..count {
        assert_eq!(engine.get(&key(n)).unwrap().as_deref(), Some(&[n as u8; 100][..]), "key {n}");
    }
    assert_eq!(contents(engine, None).len() as u64, count);
}

/// Symptom: an unclean database could not be opened on a full file system, not even for reading. Cause: recovery has to
/// write a manifest, and its error became that of the open. Fix: writes by recovery are deferred until there is space.
#[test]
fn an_unclean_database_on_a_full_file_system_is_read_and_goes_on_once_there_is_space() {
    let small = DatabaseConfig::new().with_stripes(4).with_memory_budget(2000);
    for config in [DatabaseConfig::new().with_stripes(4), small] {
        let image = unclean(100, &config);
        let vfs = FaultVfs::new(Arc::new(image.clone()));
        vfs.add(Rule::full());
        let before = vfs.list(db()).unwrap();
        let engine = LsmEngine::open(db(), options(&vfs, config.clone().with_block_size(777))).unwrap();
        check_keys(&engine, 200);
        for _ in 0..3 {
            assert_eq!(engine.put(&key(1000), b"x", WriteOptions::new()).unwrap_err().code(), "disk_full");
            assert_eq!(engine.delete(&key(1), WriteOptions::new()).unwrap_err().code(), "disk_full");
            assert_eq!(engine.flush().unwrap_err().code(), "disk_full");
            assert_eq!(engine.sync().unwrap_err().code(), "disk_full");
            engine.step(0); // may try to finish recovery, and does nothing else before
        }
        check_keys(&engine, 200);
        let after = vfs.list(db()).unwrap();
        let databases =
            |entry: &&kstone_core::vfs::DirEntry| !entry.name.contains('E') || entry.name == "MANIFEST";
        assert!(before.iter().filter(databases).eq(after.iter().filter(databases)), "{before:?} {after:?}");
        // It can be closed, with an error that explains why recovery is unfinished, and opened again.
        assert_eq!(engine.close().unwrap_err().code(), "disk_full");
        drop(engine);
        let engine = LsmEngine::open(db(), options(&vfs, config.clone().with_block_size(777))).unwrap();
        check_keys(&engine, 200);
        vfs.clear();
        engine.delete(&key(199), WriteOptions::new()).unwrap();
        engine.put(&key(300), b"new", WriteOptions::sync()).unwrap();
        engine.delete(&key(300), WriteOptions::sync()).unwrap();
        check_keys(&engine, 199);
        std::mem::forget(engine);
        let image = Arc::new(image.crash(CrashMode::Strict));
        let engine = LsmEngine::open(db(), manual(image, 5)).unwrap();
        check_keys(&engine, 199);
        assert_eq!(engine.config().block_size, 777, "the settings were not stored");
        engine.close().unwrap();
    }
}

/// The same after a clean end: the first write finds no space, later ones do.
#[test]
fn a_closed_database_on_a_full_file_system_is_read_and_goes_on_once_there_is_space() {
    let vfs = faulty();
    let config = DatabaseConfig::new().with_stripes(4);
    let engine = LsmEngine::create(db(), options(&vfs, config.clone())).unwrap();
    for n in 0..50 {
        engine.put(&key(n), &[n as u8; 100], WriteOptions::new()).unwrap();
    }
    engine.close().unwrap();
    vfs.add(Rule::full());
    let engine = LsmEngine::open(db(), options(&vfs, config.with_block_size(777))).unwrap();
    check_keys(&engine, 50);
    assert_eq!(engine.put(&key(1), b"x", WriteOptions::new()).unwrap_err().code(), "disk_full");
    engine.sync().unwrap();
    vfs.clear();
    engine.put(&key(0), &[0; 100], WriteOptions::new()).unwrap();
    engine.close().unwrap();
    let engine = LsmEngine::open(db(), manual(Arc::new(vfs), 5)).unwrap();
    check_keys(&engine, 50);
    assert_eq!(engine.config().block_size, 777);
}

/// If nothing can be written, the error says what to do, and read-only access works.
#[test]
fn a_file_system_mounted_for_reading_only_is_told_and_can_be_read() {
    for errno in [Errno::ReadOnly, Errno::Access] {
        let config = DatabaseConfig::new().with_stripes(4);
        let image = unclean(20, &config);
        let vfs = FaultVfs::new(Arc::new(image));
        vfs.add(Rule::fail(errno).on_changes());
        vfs.add(Rule::fail(errno).on(&[Op::OpenWrite]));
        for _ in 0..2 {
            let error = LsmEngine::open(db(), options(&vfs, config.clone())).unwrap_err();
            assert_eq!(error.code(), "io", "{error}");
            assert!(error.hint().unwrap().contains("open_read_only"), "{error}");
            let engine = LsmEngine::open_read_only(db(), options(&vfs, config.clone())).unwrap();
            check_keys(&engine, 40);
            engine.close().unwrap();
        }
        // The lock can be taken here, as in a directory without write permission.
        vfs.clear();
        vfs.add(Rule::fail(errno).on(&[Op::Create, Op::Truncate, Op::Rename, Op::Remove]));
        let error = LsmEngine::open(db(), options(&vfs, config.clone())).unwrap_err();
        assert!(error.hint().unwrap().contains("open_read_only"), "{error}");
        vfs.clear();
        check_keys(&LsmEngine::open(db(), options(&vfs, config)).unwrap(), 40);
    }
}

/// Symptom: with too many open files, a process permanently lost write access to its database. Cause: failing to open
/// an SST or directory for a sync was treated as a failed sync. Fix: only a sync that was started poisons the handle.
#[test]
fn too_many_open_files_are_no_failed_sync() {
    for (op, files) in [(Op::OpenRead, "*.sst"), (Op::SyncDir, "db")] {
        let vfs = faulty();
        let config = DatabaseConfig::new().with_stripes(1).with_wal_segment_size(16 << 10);
        let engine = LsmEngine::create(db(), options(&vfs, config)).unwrap();
        engine.put(&key(0), b"value", WriteOptions::new()).unwrap();
        let rule = vfs.add(Rule::fail(Errno::TooManyFiles).on(&[op]).files(files));
        let error = engine.flush().unwrap_err();
        assert!(error.hint().unwrap().contains("ulimit"), "{error}");
        if op == Op::SyncDir {
            // Creating a new segment needs it too.
            let refused = (0..).find_map(|n| engine.put(&key(n), &[0; 900], WriteOptions::new()).err());
            assert_eq!(refused.unwrap().code(), "io");
        }
        assert!(rule.hits() > 0);
        vfs.clear();
        engine.put(&key(1), b"value", WriteOptions::sync()).unwrap();
        engine.flush().unwrap();
        engine.close().unwrap();
        let engine = LsmEngine::open(db(), manual(Arc::new(vfs), 2)).unwrap();
        assert!(engine.get(&key(1)).unwrap().is_some());
    }
}

/// Symptom: a creation failed to sync the parent directory, a second one succeeded, and then a power cut lost the whole
/// database. Cause: only the call that created the directory synced its parent.
#[test]
fn creation_makes_the_name_of_an_existing_directory_durable() {
    let strict = StrictVfs::new();
    let vfs = FaultVfs::new(Arc::new(strict.clone()));
    vfs.add(Rule::fail(Errno::Io).on(&[Op::SyncDir]).nth(1));
    let options = || options(&vfs, DatabaseConfig::new().with_stripes(1));
    LsmEngine::create(db(), options()).unwrap_err();
    let engine = LsmEngine::create(db(), options()).unwrap();
    engine.put(&key(1), b"value", WriteOptions::sync()).unwrap();
    std::mem::forget(engine);
    let image = strict.crash(CrashMode::Strict);
    let engine = LsmEngine::open(db(), manual(Arc::new(image), 2)).unwrap();
    assert!(engine.get(&key(1)).unwrap().is_some());
}
