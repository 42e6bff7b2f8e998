//! Damage to files and names, one at a time, in databases in which a single rule stands between the damage and a wrong
//! result.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kstone_core::lsm::{LsmEngine, WriteOptions};
use kstone_core::vfs::{CrashMode, OpenMode, StrictVfs, Vfs, read_all, write_all_at};
use kstone_core::{CompactionConfig, DatabaseConfig, Error, Key};

use crate::model::*;

type Found = Result<u64, String>;

fn db() -> &'static Path {
    Path::new("db")
}

fn create(vfs: &StrictVfs, config: DatabaseConfig) -> LsmEngine {
    let mut options = manual(Arc::new(vfs.clone()), 1);
    options.config = Some(config);
    options.compaction = Some(CompactionConfig::disabled());
    LsmEngine::create(db(), options).unwrap()
}

fn open(vfs: &StrictVfs) -> Result<LsmEngine, Error> {
    LsmEngine::open(db(), manual(Arc::new(vfs.clone()), 2))
}

fn die(vfs: &StrictVfs, engine: LsmEngine) {
    vfs.stop_after(Some(0));
    drop(engine);
    vfs.stop_after(None);
}

fn value(n: u64) -> Vec<u8> {
    vec![b'A' + n as u8; 1200]
}

fn put(engine: &LsmEngine, n: u64) {
    engine.put(&key(n), &value(n), WriteOptions::sync()).unwrap();
}

fn key(n: u64) -> Key<'static> {
    Key::new(format!("key{n}").into_bytes())
}

fn paths(vfs: &StrictVfs, suffix: &str) -> Vec<PathBuf> {
    let names = vfs.list(db()).unwrap().into_iter().map(|entry| entry.name);
    let mut paths: Vec<_> = names.filter(|name| name.ends_with(suffix)).map(|name| db().join(name)).collect();
    paths.sort();
    paths
}

fn bytes(vfs: &StrictVfs, path: &Path) -> Vec<u8> {
    read_all(&*vfs.open(path, OpenMode::Read).unwrap(), 1 << 30).unwrap()
}

fn overwrite(vfs: &StrictVfs, path: &Path, at: usize, bytes: &[u8]) {
    write_all_at(&*vfs.open(path, OpenMode::Write).unwrap(), bytes, at as u64).unwrap();
}

/// Opens a damaged database: it must report an error, or have the first `count` items, of which the last `but` may be
/// missing.
fn look(vfs: &StrictVfs, count: u64, but: u64, what: &str) -> Result<(), String> {
    let engine = match open(vfs) {
        Ok(engine) => engine,
        Err(Error::Corruption { .. } | Error::UnsupportedFormat { .. }) => return Ok(()),
        Err(other) => return Err(format!("{what}: {other}")),
    };
    for n in 0..count {
        match engine.get(&key(n)) {
            Ok(Some(found)) if *found == *value(n) => {}
            Ok(None) if n + but >= count => {}
            Err(Error::Corruption { .. } | Error::UnsupportedFormat { .. }) => {}
            other => return Err(format!("{what}: item {n} is {other:?}")),
        }
    }
    Ok(())
}

/// Damages one byte in each value in the log, one at a time.
fn values_in_log(vfs: &StrictVfs, count: u64, but: u64, what: &str) -> Found {
    let mut damaged = 0;
    for log in paths(vfs, ".log") {
        let all = bytes(vfs, &log);
        for n in 0..count {
            let value = value(n);
            let Some(at) = all.windows(value.len()).position(|window| window == value) else { continue };
            for within in [0, 150] {
                let copy = vfs.crash(CrashMode::All);
                overwrite(&copy, &log, at + within, b"damage");
                look(&copy, count, but, &format!("{what}, value {n}"))?;
                damaged += 1;
            }
        }
    }
    assert!(damaged >= count, "{damaged} damaged, {what}");
    Ok(damaged)
}

/// Records in several segments, all synced, with nothing else that vouches for them.
pub(super) fn synced_log() -> Found {
    let vfs = StrictVfs::new();
    let engine = create(&vfs, DatabaseConfig::new().with_stripes(1).with_wal_segment_size(16 << 10));
    (0..40).for_each(|n| put(&engine, n));
    die(&vfs, engine);
    assert!(paths(&vfs, ".log").len() >= 3);
    // There is no record after the last one to prove that it was synced.
    values_in_log(&vfs, 40, 1, "a synced log")
}

/// The log of a closed database.
pub(super) fn closed_log() -> Found {
    let vfs = StrictVfs::new();
    let engine = create(&vfs, DatabaseConfig::new().with_stripes(1));
    (0..10).for_each(|n| put(&engine, n));
    engine.close().unwrap();
    values_in_log(&vfs, 10, 0, "a closed log")
}

/// Records of one stripe whose durability is proved only by a checkpoint of another stripe.
pub(super) fn checkpointed_log() -> Found {
    let vfs = StrictVfs::new();
    let engine = create(&vfs, DatabaseConfig::new().with_stripes(2));
    for n in 0..10 {
        engine.put(&key(n), &value(n), WriteOptions::buffered()).unwrap();
    }
    engine.trigger_compaction(0).unwrap();
    die(&vfs, engine);
    values_in_log(&vfs, 10, 0, "a log that a checkpoint synced")
}

/// An older manifest in place of the newest.
pub(super) fn rolled_back_manifest() -> Found {
    let vfs = StrictVfs::new();
    let config = DatabaseConfig::new().with_stripes(1).with_wal_segment_size(16 << 10);
    let engine = create(&vfs, config.clone());
    let path = db().join("MANIFEST");
    let old = bytes(&vfs, &path);
    put(&engine, 0);
    engine.set_config(config.with_max_memtable_records(77)).unwrap();
    (1..20).for_each(|n| put(&engine, n));
    die(&vfs, engine);
    let file = vfs.open(&path, OpenMode::Truncate).unwrap();
    write_all_at(&*file, &old, 0).unwrap();
    match open(&vfs) {
        Err(Error::Corruption { .. }) => Ok(1),
        other => Err(format!("with an older manifest: {other:?}")),
    }
}

fn flushed() -> StrictVfs {
    let vfs = StrictVfs::new();
    let engine = create(&vfs, DatabaseConfig::new().with_stripes(1).with_block_size(512));
    for n in 0..20 {
        put(&engine, n);
        if n % 7 == 6 {
            engine.flush().unwrap();
        }
    }
    engine.flush().unwrap();
    engine.close().unwrap();
    assert_eq!(paths(&vfs, ".sst").len(), 3);
    vfs
}

/// Listed SSTs that do not exist.
pub(super) fn missing_ssts() -> Found {
    let vfs = flushed();
    let mut missing = 0;
    for sst in paths(&vfs, ".sst") {
        let copy = vfs.crash(CrashMode::All);
        copy.remove(&sst).unwrap();
        match open(&copy) {
            Err(Error::Corruption { file, .. }) if file == sst => missing += 1,
            other => return Err(format!("without {}: {other:?}", sst.display())),
        }
    }
    Ok(missing)
}

/// Damaged bytes of SSTs, read and merged.
pub(super) fn bad_blocks() -> Found {
    let vfs = flushed();
    let mut damaged = 0;
    for sst in paths(&vfs, ".sst") {
        for at in (128..bytes(&vfs, &sst).len()).step_by(331) {
            let what = format!("byte {at} of {}", sst.display());
            let copy = vfs.crash(CrashMode::All);
            let byte = bytes(&copy, &sst)[at];
            overwrite(&copy, &sst, at, &[byte ^ 0x10]);
            look(&copy, 20, 0, &what)?;
            // A merge that cannot read everything must not happen.
            if let Ok(engine) = open(&copy) {
                let _ = engine.trigger_compaction(0);
                let _ = engine.close();
                drop(engine);
                look(&copy, 20, 0, &format!("{what}, merged"))?;
            }
            damaged += 1;
        }
    }
    Ok(damaged)
}

/// Sequence numbers and SST numbers are used only once, whatever was lost in between.
pub(super) fn numbers() -> Found {
    let mut vfs = StrictVfs::new();
    let config = DatabaseConfig::new().with_stripes(1).with_max_memtable_records(5);
    let mut engine = create(&vfs, config);
    let (mut last, mut used) = (0, Vec::new());
    for round in 0..8 {
        for n in 0..5 {
            let seq = engine.put(&key(n), b"value", WriteOptions::buffered()).unwrap();
            if seq <= last {
                return Err(format!("sequence {seq} after {last}"));
            }
            last = seq;
        }
        while paths(&vfs, ".sst").is_empty() && engine.step(u64::MAX) {}
        let numbers = paths(&vfs, ".sst");
        if let Some(again) = numbers.iter().find(|sst| used.contains(*sst)) {
            return Err(format!("{} is used again", again.display()));
        }
        used.extend(numbers);
        die(&vfs, engine);
        vfs = vfs.crash(if round % 2 == 0 { CrashMode::All } else { CrashMode::Strict });
        engine = open(&vfs).unwrap();
        if let Some(left) = paths(&vfs, ".sst").first() {
            return Err(format!("{} is left over", left.display()));
        }
    }
    Ok(8)
}

/// One sync of data in several segments, followed by a power cut.
pub(super) fn synced_segments() -> Found {
    let vfs = StrictVfs::new();
    let config = DatabaseConfig::new().with_stripes(1).with_max_memtable_records(100);
    let engine = create(&vfs, config.with_wal_segment_size(16 << 10));
    for n in 0..40 {
        engine.put(&key(n), &value(n), WriteOptions::buffered()).unwrap();
    }
    assert!(paths(&vfs, ".log").len() >= 3);
    engine.sync().unwrap();
    let image = vfs.crash(CrashMode::Strict);
    open(&image).map_err(|error| format!("after a sync: {error}"))?;
    look(&image, 40, 0, "after a sync").map(|()| 1)
}

/// A checkpoint of several segments, where the process dies after each of its operations in turn.
pub(super) fn cut_off_checkpoints() -> Found {
    for ops in 0..100 {
        let vfs = StrictVfs::new();
        let config = DatabaseConfig::new().with_stripes(1).with_max_memtable_records(100);
        let engine = create(&vfs, config.with_wal_segment_size(16 << 10));
        (0..40).for_each(|n| put(&engine, n));
        vfs.stop_after(Some(vfs.ops() + ops));
        let flushed = engine.flush().is_ok();
        let image = vfs.crash(CrashMode::All);
        die(&vfs, engine);
        let opened = open(&image).map_err(|error| format!("{ops} operations into a checkpoint: {error}"))?;
        drop(opened);
        look(&image, 40, 0, &format!("{ops} operations into a checkpoint"))?;
        if flushed {
            assert!(ops > 5);
            return Ok(ops);
        }
    }
    panic!("a checkpoint takes more than 100 operations")
}

/// Only one handle writes at a time, and a created database exists.
pub(super) fn opening() -> Found {
    let vfs = StrictVfs::new();
    let engine = create(&vfs, DatabaseConfig::new().with_stripes(1));
    put(&engine, 0);
    match open(&vfs) {
        Err(Error::Locked { .. }) => {}
        other => return Err(format!("opened twice: {other:?}")),
    }
    let image = vfs.crash(CrashMode::Strict);
    look(&image, 1, 0, "after its creation")?;
    open(&image).map(|_| 2).map_err(|error| format!("after its creation: {error}"))
}
