//! Single operations that fail at the moment when only one rule handles the failure.

use std::path::Path;
use std::sync::Arc;

use kstone_core::lsm::{LsmEngine, WriteOptions};
use kstone_core::vfs::{CrashMode, Effect, Errno, FaultVfs, Op, Rule, StrictVfs};
use kstone_core::{CompactionConfig, DatabaseConfig, Error, Key};

use crate::model::*;

type Found = Result<u64, String>;

fn config() -> DatabaseConfig {
    DatabaseConfig::new().with_stripes(1)
}

fn create(strict: &StrictVfs) -> (FaultVfs, LsmEngine) {
    let vfs = FaultVfs::new(Arc::new(strict.clone()));
    let mut options = manual(Arc::new(vfs.clone()), 1);
    options.config = Some(config());
    options.compaction = Some(CompactionConfig::disabled());
    let engine = LsmEngine::create(Path::new("db"), options).unwrap();
    (vfs, engine)
}

/// The process dies, and the remains are opened.
fn reopened(strict: &StrictVfs, engine: LsmEngine, mode: CrashMode) -> Result<LsmEngine, String> {
    let image = strict.crash(mode);
    drop(engine);
    let opened = LsmEngine::open(Path::new("db"), manual(Arc::new(image), 2));
    opened.map_err(|error| format!("after a crash: {error}"))
}

/// A value that ends with zeros, which unwritten space looks like too.
fn value() -> Vec<u8> {
    [vec![7; 100], vec![0; 3000]].concat()
}

fn put(engine: &LsmEngine, key: &str, options: WriteOptions) -> kstone_core::Result<u64> {
    engine.put(&Key::from(key), &value(), options)
}

fn found(engine: &LsmEngine, key: &str) -> bool {
    engine.get(&Key::from(key)).is_ok_and(|found| found.is_some_and(|found| *found == *value()))
}

/// Every write is a short write.
fn short_writes() -> Found {
    let strict = StrictVfs::new();
    let (vfs, engine) = create(&strict);
    vfs.add(Rule::new(Effect::Short(100)).on(&[Op::Write]));
    for key in ["a", "b", "c"] {
        let done = put(&engine, key, WriteOptions::sync()).and_then(|_| engine.flush());
        done.map_err(|error| format!("with short writes: {error}"))?;
    }
    let engine = reopened(&strict, engine, CrashMode::Strict)?;
    match ["a", "b", "c"].iter().find(|key| !found(&engine, key)) {
        Some(key) => Err(format!("with short writes {key} is lost")),
        None => Ok(1),
    }
}

/// A write that is partly done when space runs out.
fn refused_write() -> Found {
    let strict = StrictVfs::new();
    let (vfs, engine) = create(&strict);
    put(&engine, "a", WriteOptions::sync()).unwrap();
    vfs.add(Rule::new(Effect::Torn(Errno::NoSpace)).on(&[Op::Write]).files("*.log").nth(1));
    match put(&engine, "b", WriteOptions::sync()) {
        Err(Error::DiskFull) => {}
        other => return Err(format!("a write without space: {other:?}")),
    }
    for mode in [CrashMode::Strict, CrashMode::All] {
        let image = strict.crash(mode);
        let opened = LsmEngine::open(Path::new("db"), manual(Arc::new(image), 2));
        let engine = opened.map_err(|error| format!("after a crash: {error}"))?;
        if !found(&engine, "a") || found(&engine, "b") {
            return Err(format!(
                "{} items, {mode:?}, after a write was refused",
                contents(&engine, None).len()
            ));
        }
    }
    Ok(2)
}

/// A sync that fails once.
fn failed_sync() -> Found {
    let strict = StrictVfs::new();
    let (vfs, engine) = create(&strict);
    put(&engine, "a", WriteOptions::sync()).unwrap();
    vfs.add(Rule::new(Effect::LoseUnsynced(Errno::Io)).on(&[Op::Sync]).files("*.log").nth(1));
    put(&engine, "b", WriteOptions::sync()).unwrap_err();
    match put(&engine, "c", WriteOptions::sync()) {
        Err(Error::Poisoned { .. }) if found(&engine, "a") => Ok(1),
        other => Err(format!("a write after a failed sync: {other:?}")),
    }
}

/// An edit of the manifest that is partly written when space runs out, and another edit after it.
fn partial_edit() -> Found {
    let strict = StrictVfs::new();
    let (vfs, engine) = create(&strict);
    vfs.add(Rule::new(Effect::Torn(Errno::NoSpace)).on(&[Op::Write]).files("MANIFEST*").nth(1));
    let set = |records| engine.set_config(config().with_max_memtable_records(records));
    set(70).unwrap_err();
    set(7).map_err(|error| format!("an edit after one that failed: {error}"))?;
    put(&engine, "a", WriteOptions::sync()).unwrap();
    let engine = reopened(&strict, engine, CrashMode::Strict)?;
    match engine.config().max_memtable_records {
        7 if found(&engine, "a") => Ok(1),
        other => Err(format!("{other} records in a memtable, as set before the edit that failed")),
    }
}

pub(super) fn each() -> Found {
    Ok(short_writes()? + refused_write()? + failed_sync()? + partial_edit()?)
}
