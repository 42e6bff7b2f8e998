//! Failures that only occur between threads: the other thread's work is done at exactly the critical moment.

use std::path::Path;
use std::sync::Arc;

use kstone_core::lsm::{LsmEngine, WriteBatch, WriteOptions};
use kstone_core::planted::meanwhile;
use kstone_core::vfs::{CrashMode, FaultVfs, MemVfs, Op, Rule, StrictVfs, Vfs};
use kstone_core::{CompactionConfig, DatabaseConfig, Key};
use parking_lot::Mutex;

use crate::model::*;

type Found = Result<u64, String>;

fn create(vfs: Arc<dyn Vfs>, stripes: usize) -> LsmEngine {
    let mut options = manual(vfs, 1);
    let config = DatabaseConfig::new().with_stripes(stripes).with_max_memtable_records(3);
    // Large enough that no write waits for a flush: on this clock, it would wait for ever.
    options.config = Some(config.with_memory_budget(1 << 30));
    options.compaction = Some(CompactionConfig::disabled());
    LsmEngine::create(Path::new("db"), options).unwrap()
}

/// A write during a sync of the log, with a power cut before the sync ends.
pub(super) fn write_during_a_sync() -> Found {
    let strict = StrictVfs::new();
    let vfs = FaultVfs::new(Arc::new(strict.clone()));
    let engine = Arc::new(create(Arc::new(vfs.clone()), 1));
    let put = |key: &str| engine.put(&Key::from(key), &[7; 700], WriteOptions::buffered()).unwrap();
    put("first");
    engine.sync().unwrap();
    put("second");
    let images = Arc::new(Mutex::new(Vec::new()));
    let (kept, writer, disk) = (Arc::clone(&images), Arc::downgrade(&engine), strict.clone());
    vfs.add(
        Rule::hook(move |_| {
            if let Some(engine) = writer.upgrade() {
                engine.put(&Key::from("third"), &[8; 700], WriteOptions::buffered()).unwrap();
            }
            kept.lock().extend((0..60).map(|seed| disk.crash(CrashMode::Random { seed })));
            Ok(())
        })
        .on(&[Op::Sync])
        .files("*.log")
        .nth(1),
    );
    engine.sync().unwrap();
    let images = std::mem::take(&mut *images.lock());
    assert_eq!(images.len(), 60);
    for (seed, image) in images.iter().enumerate() {
        let opened = LsmEngine::open(Path::new("db"), manual(Arc::new(image.clone()), 2));
        let engine = opened.map_err(|error| format!("cut off during a sync, image {seed}: {error}"))?;
        let found = contents(&engine, None).len();
        let is_there = |key: &str| engine.get(&Key::from(key)).unwrap().is_some();
        if !is_there("first") || (is_there("third") && !is_there("second")) {
            return Err(format!("image {seed} holds {found} items, which are not a prefix"));
        }
    }
    Ok(60)
}

/// A key for each of the two stripes.
fn keys_of_two_stripes(engine: &LsmEngine) -> [Key<'static>; 2] {
    let key_in = |stripe: usize| {
        (0..).map(|n| Key::new(format!("key{n}").into_bytes())).find(|key| {
            engine.put(key, b"", WriteOptions::buffered()).unwrap();
            engine.scan_stripe(stripe, None).unwrap().any(|entry| entry.unwrap().0 == *key)
        })
    };
    [0, 1].map(|stripe| key_in(stripe).unwrap())
}

/// Gets a key that always exists, when its value must be neither missing nor older than the acknowledged one.
fn look(engine: &LsmEngine, key: &Key<'_>, least: u8, what: &str) -> Found {
    match engine.get(key).unwrap() {
        Some(value) if value[0] >= least => Ok(1),
        other => Err(format!("{what}: {other:?} where {least} was acknowledged")),
    }
}

fn put(engine: &LsmEngine, key: &Key<'_>, value: u8) {
    engine.put(key, &[value], WriteOptions::buffered()).unwrap();
}

/// A write and a flush of a key in the middle of a get of the same key.
pub(super) fn a_flush_during_a_get() -> Found {
    let engine = Arc::new(create(Arc::new(MemVfs::new()), 1));
    let key = Key::from("always").into_owned();
    put(&engine, &key, 1);
    let (other, same) = (Arc::downgrade(&engine), key.clone());
    meanwhile(move || {
        if let Some(engine) = other.upgrade() {
            put(&engine, &same, 2);
            engine.flush().unwrap();
        }
    });
    let found = look(&engine, &key, 1, "a flush during a get");
    meanwhile(|| ());
    found
}

/// A batch in one stripe is in the log but not yet visible; a later write to another stripe waits for it, and is
/// flushed.
pub(super) fn a_flush_before_a_write_is_visible() -> Found {
    let engine = Arc::new(create(Arc::new(MemVfs::new()), 2));
    let [slow, hot] = keys_of_two_stripes(&engine);
    put(&engine, &hot, 0);
    engine.flush().unwrap();
    while engine.step(0) {}
    put(&engine, &hot, 0);
    put(&engine, &hot, 1);
    let seen = Arc::new(Mutex::new(Ok(0)));
    let (other, said, key) = (Arc::downgrade(&engine), Arc::clone(&seen), hot.clone());
    meanwhile(move || {
        let Some(engine) = other.upgrade() else { return };
        let records = || engine.stats().unwrap().log_records;
        let before = records();
        let (writer, same) = (Arc::clone(&engine), key.clone());
        // This returns once the batch is visible, which is after all of the following.
        std::thread::Builder::new().spawn(move || put(&writer, &same, 2)).unwrap();
        while records() == before {
            std::thread::yield_now();
        }
        // The memtable is full now. Until it is flushed, no other work is due that would wait for the batch's stripe.
        let flushed = || engine.stats().unwrap().flushes;
        let before = flushed();
        let steps = (0..100).take_while(|&choice| flushed() == before && engine.step(choice)).count();
        assert_eq!(flushed(), before + 1, "after {steps} steps");
        *said.lock() = look(&engine, &key, 1, "a flush before a write is visible");
    });
    let mut batch = WriteBatch::new();
    batch.put(slow, *b"batch");
    engine.write(&batch, WriteOptions::buffered()).unwrap();
    meanwhile(|| ());
    std::mem::replace(&mut *seen.lock(), Ok(0))?;
    look(&engine, &hot, 1, "after a batch")
}
