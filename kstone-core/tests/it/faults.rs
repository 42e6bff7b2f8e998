//! One failing operation at the worst moment, and settings at their edges: nothing is lost, nobody waits for ever,
//! nothing spins.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kstone_core::clock::ManualClock;
use kstone_core::lsm::{EngineOptions, LsmEngine, WriteOptions};
use kstone_core::vfs::{CrashMode, Mapping, OpenMode, StrictVfs, Vfs, VfsFile};
use kstone_core::{DatabaseConfig, Key};

use crate::model::manual;

/// Fails one kind of operation on the files whose names end so, while it is told to.
#[derive(Clone, Debug)]
struct FaultyVfs {
    inner: Arc<dyn Vfs>,
    rule: Rule,
}

#[derive(Clone, Debug)]
struct Rule {
    op: &'static str,
    suffix: &'static str,
    kind: io::ErrorKind,
    on: Arc<AtomicBool>,
    /// How many it lets pass first.
    pass: Arc<AtomicU64>,
    /// How often it struck.
    hits: Arc<AtomicU64>,
}

impl Rule {
    fn check(&self, op: &str, path: &str) -> io::Result<()> {
        if self.op == op && path.ends_with(self.suffix) && self.on.load(Ordering::SeqCst) {
            if self.pass.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
                return Ok(());
            }
            self.hits.fetch_add(1, Ordering::SeqCst);
            return Err(self.kind.into());
        }
        Ok(())
    }
}

impl FaultyVfs {
    fn new(inner: Arc<dyn Vfs>, op: &'static str, suffix: &'static str, kind: io::ErrorKind) -> Self {
        let rule = Rule { op, suffix, kind, on: Arc::default(), pass: Arc::default(), hits: Arc::default() };
        Self { inner, rule }
    }

    fn fail(&self, on: bool) {
        self.rule.on.store(on, Ordering::SeqCst);
    }

    fn hits(&self) -> u64 {
        self.rule.hits.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct FaultyFile {
    inner: Arc<dyn VfsFile>,
    name: String,
    rule: Rule,
}

impl Vfs for FaultyVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let name = path.to_string_lossy().into_owned();
        if mode == OpenMode::Create {
            self.rule.check("create", &name)?;
        }
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(FaultyFile { inner, name, rule: self.rule.clone() }))
    }
    crate::model::pass_on_names!();
}

impl VfsFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.rule.check("read", &self.name)?;
        self.inner.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.rule.check("write", &self.name)?;
        self.inner.write_at(buf, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.rule.check("sync", &self.name)?;
        self.inner.sync()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn map(&self, len: u64) -> io::Result<Mapping> {
        self.inner.map(len)
    }
}

fn db() -> &'static Path {
    Path::new("db")
}

fn key(n: u64) -> Key<'static> {
    Key::new(format!("key{n}").into_bytes())
}

fn options(vfs: &FaultyVfs, config: DatabaseConfig) -> EngineOptions {
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

/// Only a part of the log is in memory when it fails: the close that follows must not take that for all.
#[test]
fn a_replay_that_fails_leaves_the_log_as_it_was() {
    let strict = StrictVfs::new();
    let vfs = FaultyVfs::new(Arc::new(strict.clone()), "read", ".log", io::ErrorKind::Other);
    let config = DatabaseConfig::new().with_stripes(4).with_wal_segment_size(16 << 10);
    let engine = LsmEngine::create(db(), options(&vfs, config.clone())).unwrap();
    for n in 0..200 {
        engine.put(&key(n), &[n as u8; 500], WriteOptions::sync()).unwrap();
    }
    assert!(engine.stats().unwrap().log_segments > 4);
    std::mem::forget(engine);
    for pass in 0.. {
        let vfs = FaultyVfs { inner: Arc::new(strict.crash(CrashMode::All)), ..vfs.clone() };
        vfs.rule.pass.store(pass, Ordering::SeqCst);
        vfs.fail(true);
        let opened = LsmEngine::open(db(), options(&vfs, config.clone()));
        vfs.fail(false);
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

/// The second sync of a file would succeed though its pages are gone, whatever the first one's error was.
#[test]
fn a_failed_sync_of_an_sst_poisons_also_when_the_disk_is_full() {
    let vfs = FaultyVfs::new(Arc::new(StrictVfs::new()), "sync", ".sst", io::ErrorKind::StorageFull);
    let engine = LsmEngine::create(db(), options(&vfs, DatabaseConfig::new().with_stripes(1))).unwrap();
    engine.put(&key(1), b"value", WriteOptions::new()).unwrap();
    vfs.fail(true);
    engine.flush().unwrap_err();
    vfs.fail(false);
    assert_eq!(engine.flush().unwrap_err().code(), "poisoned");
    assert_eq!(engine.put(&key(2), b"value", WriteOptions::new()).unwrap_err().code(), "poisoned");
    assert_eq!(engine.get(&key(1)).unwrap().unwrap().to_vec(), b"value");
    assert_eq!(vfs.hits(), 1);
}

/// The log cannot shrink below the segment that is written to: that alone must stop nobody.
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
        let vfs = FaultyVfs::new(Arc::new(StrictVfs::new()), "none", "", io::ErrorKind::Other);
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

/// A clean open looks for nothing to remove, so a close must leave nothing behind.
#[test]
fn a_close_beside_a_living_iterator_leaves_no_file_behind() {
    let vfs = FaultyVfs::new(Arc::new(StrictVfs::new()), "none", "", io::ErrorKind::Other);
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
    assert_eq!(files(&*vfs.inner, ".sst").len(), 1, "{:?}", files(&*vfs.inner, ".sst"));
}

/// Symptom: a database that was opened, compacted and closed kept a segment of the log that it no longer listed, for
/// good. Cause: only segments that were written to or older ones were given back, not the one that could have been
/// written on.
#[test]
fn a_log_that_was_not_written_on_is_given_back_at_close() {
    let vfs = FaultyVfs::new(Arc::new(StrictVfs::new()), "none", "", io::ErrorKind::Other);
    let engine = LsmEngine::create(db(), options(&vfs, DatabaseConfig::new().with_stripes(1))).unwrap();
    engine.put(&key(1), b"value", WriteOptions::new()).unwrap();
    engine.close().unwrap();
    assert_eq!(files(&*vfs.inner, ".log").len(), 1);
    let engine = LsmEngine::open(db(), options(&vfs, DatabaseConfig::new())).unwrap();
    engine.flush().unwrap();
    engine.close().unwrap();
    assert_eq!(files(&*vfs.inner, ".log"), [""; 0]);
    let engine = LsmEngine::open(db(), options(&vfs, DatabaseConfig::new())).unwrap();
    assert_eq!(engine.get(&key(1)).unwrap().as_deref(), Some(&b"value"[..]));
}

/// Before the first write of a clean open the manifest says how the database ends: nothing may be written then.
#[test]
fn a_clean_open_does_no_background_work_before_its_first_write() {
    let vfs = FaultyVfs::new(Arc::new(StrictVfs::new()), "none", "", io::ErrorKind::Other);
    let mut first = options(&vfs, DatabaseConfig::new().with_stripes(1));
    first.compaction = Some(kstone_core::CompactionConfig::new().with_sst_threshold(2));
    let engine = LsmEngine::create(db(), first).unwrap();
    for n in 0..3 {
        engine.put(&key(n), b"value", WriteOptions::new()).unwrap();
        engine.flush().unwrap();
    }
    assert!(engine.needs_compaction(0).unwrap());
    engine.close().unwrap();
    let before = files(&*vfs.inner, "");
    let clock = Arc::new(ManualClock::new(1));
    let mut again = manual(Arc::new(vfs.clone()), 2);
    again.clock = clock.clone();
    let engine = LsmEngine::open(db(), again).unwrap();
    clock.advance(Duration::from_secs(100));
    for n in 0..50 {
        engine.step(n);
    }
    assert_eq!(files(&*vfs.inner, ""), before);
    assert_eq!(engine.stats().unwrap().background_error, None);
    engine.put(&key(9), b"value", WriteOptions::new()).unwrap();
    while engine.step(0) {}
    assert!(!engine.needs_compaction(0).unwrap());
}

/// What a creation that was cut off left of the log is in nobody's way.
#[test]
fn a_leftover_segment_without_records_does_not_stand_in_the_way_of_creation() {
    let strict = StrictVfs::new();
    let vfs = FaultyVfs::new(Arc::new(strict.clone()), "none", "", io::ErrorKind::Other);
    drop(LsmEngine::create(db(), options(&vfs, DatabaseConfig::new())).map(std::mem::forget));
    let image = strict.crash(CrashMode::All);
    assert_eq!(files(&image, ".log").len(), 1);
    image.remove(&db().join("MANIFEST")).unwrap();
    let vfs = FaultyVfs { inner: Arc::new(image), ..vfs };
    let mut second = options(&vfs, DatabaseConfig::new());
    second.clock = Arc::new(ManualClock::new(77)); // another database
    let engine = LsmEngine::create(db(), second).unwrap();
    engine.put(&key(1), b"value", WriteOptions::new()).unwrap();
    engine.close().unwrap();
    let engine = LsmEngine::open(db(), manual(Arc::new(vfs), 3)).unwrap();
    assert!(engine.get(&key(1)).unwrap().is_some());
}
