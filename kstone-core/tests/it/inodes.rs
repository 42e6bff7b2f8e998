//! Symptom: on a file system with 50 inodes, thousands of deletes were accepted, and puts and compactions failed with
//! `DiskFull` for as long as the handle was open; no error mentioned inodes. Cause: files were created until no inode
//! was left, not even for the output of a merge that would have released two; and only bytes were reserved for work
//! that frees space. Fix: inodes are budgeted like bytes. Puts leave enough to flush and merge the data in memory, and
//! the error reports which resource is exhausted.

use std::path::Path;
use std::sync::Arc;

use kstone_core::lsm::{EngineOptions, Event, EventListener, Exhausted, LsmEngine, WriteOptions};
use kstone_core::torture::Watchdog;
use kstone_core::vfs::MemVfs;
use kstone_core::{DatabaseConfig, Error, Key};

use crate::model::{Rng, manual};

const DB: &str = "db";

fn key(n: u64) -> Key<'static> {
    Key::new(format!("key{n:06}").into_bytes())
}

fn value(n: u64) -> Vec<u8> {
    let mut rng = Rng(n);
    (0..100).map(|_| rng.next() as u8).collect()
}

#[derive(Debug, Default)]
struct Ear(std::sync::Mutex<Vec<Event>>);

impl EventListener for Ear {
    fn on_event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

fn fill(engine: &LsmEngine, next: &mut u64, rng: &mut Rng) {
    let first = *next;
    loop {
        match engine.put(&key(*next), &value(*next), WriteOptions::new()) {
            Ok(_) => *next += 1,
            Err(Error::DiskFull) => break,
            Err(error) => panic!("put {next}: {error}"),
        }
        if rng.below(3) == 0 {
            engine.step(rng.next());
        }
        assert!(*next < first + 100_000, "the disk never fills up");
    }
}

fn check(engine: &LsmEngine, keys: std::ops::Range<u64>, there: impl Fn(u64) -> bool) {
    for n in keys {
        let found = engine.get(&key(n)).unwrap();
        assert_eq!(found.as_deref(), there(n).then(|| value(n)).as_deref(), "key {n}");
    }
}

fn options(vfs: &MemVfs, config: DatabaseConfig, threads: bool) -> EngineOptions {
    let vfs = Arc::new(vfs.clone());
    let mut options = if threads { EngineOptions::on(vfs) } else { manual(vfs, 1) };
    options.config = Some(config);
    options
}

fn heals(inodes: u64, config: DatabaseConfig, threads: bool, seed: u64) -> u64 {
    let (vfs, mut rng, ear) = (MemVfs::new(), Rng(seed), Arc::<Ear>::default());
    vfs.limit_inodes(Some(inodes));
    let mut options = options(&vfs, config, threads);
    options.listener = Some(Arc::<Ear>::clone(&ear) as Arc<dyn EventListener>);
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    let (mut next, mut gone) = (0, 0);
    for round in 0..4 {
        let start = next;
        fill(&engine, &mut next, &mut rng);
        let context =
            format!("{inodes} inodes, threads: {threads}, seed {seed}, round {round}: {start}..{next}");
        assert!(next > start, "{context}");
        let usage = engine.disk_usage().unwrap();
        assert_eq!(usage.exhausted, Some(Exhausted::Inodes), "{context}: {usage}");
        assert!(usage.free_inodes.is_some() && usage.to_string().contains("inodes"), "{usage}");
        check(&engine, gone..next, |_| true);
        // All keys, or nearly all.
        let left = if round % 2 == 0 { 0 } else { 3 };
        while gone < next - left {
            let deleted = engine.delete(&key(gone), WriteOptions::new());
            deleted.unwrap_or_else(|error| panic!("delete {gone}: {error}, {context}"));
            gone += 1;
        }
        if round == 1 {
            // Puts recover without intervention, and so do requested compactions.
            for stripe in 0..engine.stripe_count() {
                let compacted = engine.trigger_compaction(stripe);
                compacted.unwrap_or_else(|error| {
                    let stats = engine.stats().unwrap();
                    panic!("stripe {stripe}: {error}, {:?}, {context}", stats.background_error)
                });
            }
        }
        if round == 3 {
            let flushed = engine.flush();
            flushed.unwrap_or_else(|error| panic!("{error}, {}, {context}", engine.disk_usage().unwrap()));
        }
        let put = engine.put(&key(next), &value(next), WriteOptions::new());
        put.unwrap_or_else(|error| panic!("{error}, {}, {context}", engine.disk_usage().unwrap()));
        next += 1;
        check(&engine, start..next, |n| n >= gone);
    }
    engine.close().unwrap();
    let told = ear.0.lock().unwrap();
    let inodes = told.iter().any(|event| {
        matches!(event, Event::DiskFull { exhausted: Some(Exhausted::Inodes), detail, .. } if detail.contains("inodes"))
    });
    assert!(inodes, "{told:?}");
    next
}

#[test]
fn without_inodes_deletes_and_merges_make_room() {
    let config = |stripes| DatabaseConfig::new().with_stripes(stripes).with_max_memtable_records(50);
    for seed in 0..10 {
        heals(50, config(256), false, seed);
        heals(20, config(16), false, seed);
        heals(40, config(256).with_wal_segment_size(16 << 10), false, seed);
        heals(50, config(256).with_max_total_disk_bytes(64 << 20), false, seed);
    }
}

#[test]
fn without_inodes_on_threads() {
    let _watchdog = Watchdog::start("inodes::without_inodes_on_threads");
    for seed in 0..3 {
        let config = DatabaseConfig::new().with_stripes(256).with_max_memtable_records(50);
        heals(50, config.clone(), true, seed);
        heals(50, config.with_memory_budget(100_000), true, seed);
    }
}

/// Few stripes need few files, however much data they hold: no call is refused for lack of inodes that are not needed.
#[test]
fn merges_keep_the_files_of_few_stripes_few() {
    let vfs = MemVfs::new();
    vfs.limit_inodes(Some(24));
    let config = DatabaseConfig::new().with_stripes(4).with_max_memtable_records(50);
    let mut options = options(&vfs, config, false);
    options.compaction = Some(kstone_core::CompactionConfig::new().with_sst_threshold(30));
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    let mut rng = Rng(1);
    for n in 0..20_000 {
        engine.put(&key(n), &value(n), WriteOptions::new()).unwrap_or_else(|error| {
            panic!(
                "{n}: {error}, {}, {:?}",
                engine.disk_usage().unwrap(),
                engine.stats().unwrap().background_error
            )
        });
        engine.step(rng.next());
    }
    check(&engine, 0..20_000, |_| true);
    engine.close().unwrap();
}

/// Inodes taken by other programs are missing until they are released, and no longer.
#[test]
fn inodes_that_come_back_are_used_at_once() {
    let vfs = MemVfs::new();
    let config = DatabaseConfig::new().with_stripes(16).with_max_memtable_records(50);
    let engine = LsmEngine::create(Path::new(DB), options(&vfs, config, false)).unwrap();
    let mut next = 0;
    for _ in 0..100 {
        engine.put(&key(next), &value(next), WriteOptions::new()).unwrap();
        next += 1;
    }
    vfs.limit_inodes(Some(0));
    assert!(matches!(engine.flush(), Err(Error::DiskFull)));
    let error = engine.disk_usage().unwrap().to_string();
    assert!(error.contains("no inodes left"), "{error}");
    vfs.limit_inodes(None);
    engine.flush().unwrap();
    engine.put(&key(next), &value(next), WriteOptions::new()).unwrap();
    assert_eq!(engine.disk_usage().unwrap().exhausted, None);
    check(&engine, 0..next + 1, |_| true);
}

#[test]
fn what_the_file_system_has_left_is_told() {
    let vfs = MemVfs::new();
    let config = DatabaseConfig::new().with_stripes(1);
    let engine = LsmEngine::create(Path::new(DB), options(&vfs, config.clone(), false)).unwrap();
    let unlimited = engine.disk_usage().unwrap();
    assert_eq!((unlimited.free_bytes, unlimited.free_inodes), (None, None));
    vfs.limit_inodes(Some(30));
    // The directory, LOCK, MANIFEST and the log.
    assert_eq!(engine.disk_usage().unwrap().free_inodes, Some(26));
    let dir = tempfile::tempdir().unwrap();
    let mut options = EngineOptions::disk();
    options.config = Some(config);
    let engine = LsmEngine::create(&dir.path().join("db"), options).unwrap();
    let usage = engine.disk_usage().unwrap();
    assert!(usage.free_bytes > Some(0) && usage.free_bytes < Some(1 << 60), "{usage:?}");
}
