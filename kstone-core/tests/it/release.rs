//! Work blocked by readers becomes due as soon as the last of them releases its pins, without any time passing; and the
//! files leave the directory.
//!
//! Symptom: 144 MB pinned by a snapshot or an iterator stayed for up to a check interval, a minute, after it was
//! dropped. Cause: dropping it triggered nothing; stripes were checked again at the next sweep, and files at the next
//! checkpoint or merge. Fix: whatever a reader blocked is recorded, and checked when the last reader that blocks it is
//! dropped.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use kstone_core::clock::ManualClock;
use kstone_core::lsm::{BackupOptions, BackupProgress, Direction, LsmEngine, Snapshot, WriteOptions};
use kstone_core::vfs::{FaultVfs, MemVfs, Op, Rule};
use kstone_core::{CompactionConfig, Compression, DatabaseConfig, Key, ReadMode};

use crate::model::*;

const KEYS: u64 = 200;

fn db() -> &'static Path {
    Path::new("db")
}

fn key(n: u64) -> Key<'static> {
    Key::new(format!("key{n:04}").into_bytes())
}

struct Database {
    vfs: FaultVfs,
    clock: Arc<ManualClock>,
    engine: Arc<LsmEngine>,
}

impl Database {
    fn new(config: DatabaseConfig) -> Self {
        let vfs = FaultVfs::new(Arc::new(MemVfs::new()));
        let clock = Arc::new(ManualClock::new(1));
        let mut options = manual(Arc::new(vfs.clone()), 1);
        options.clock = Arc::<ManualClock>::clone(&clock);
        options.config = Some(config.with_stripes(2).with_compression(Compression::Never));
        options.compaction = Some(CompactionConfig::new().with_idle_compaction(false));
        let engine = Arc::new(LsmEngine::create(db(), options).unwrap());
        Self { vfs, clock, engine }
    }

    /// Writes every key, as a new run.
    fn write(&self, byte: u8) {
        for n in 0..KEYS {
            self.engine.put(&key(n), &[byte; 1000], WriteOptions::new()).unwrap();
        }
        self.engine.flush().unwrap();
    }

    fn delete(&self) {
        for n in 0..KEYS {
            self.engine.delete(&key(n), WriteOptions::new()).unwrap();
        }
        self.engine.flush().unwrap();
    }

    fn merge(&self) {
        (0..2).for_each(|stripe| self.engine.trigger_compaction(stripe).unwrap());
    }

    /// Does all work that is due now, without time passing; returns the number of steps.
    fn drain(&self) -> u64 {
        (0..).find(|_| !self.engine.step(0)).unwrap()
    }

    fn ssts(&self) -> BTreeMap<String, u64> {
        let all = self.vfs.inner().list(db()).unwrap().into_iter();
        all.filter(|entry| entry.name.ends_with(".sst")).map(|entry| (entry.name, entry.len)).collect()
    }

    fn bytes(&self) -> u64 {
        self.ssts().values().sum()
    }

    /// The number of files that neither readers nor checkpoints need.
    fn superfluous(&self) -> usize {
        let listed: usize = self.engine.stats().unwrap().stripes.iter().map(|stripe| stripe.ssts).sum();
        self.ssts().len() - listed
    }

    fn check(&self, byte: u8, snapshot: Option<&Snapshot>) {
        let found = contents(&self.engine, snapshot);
        assert!(found.len() as u64 == KEYS && found.iter().all(|(_, value)| value[..] == [byte; 1000]));
    }
}

#[test]
fn versions_that_a_snapshot_held_are_merged_away_when_it_ends() {
    for merged in [false, true] {
        let database = Database::new(DatabaseConfig::new());
        database.write(0);
        database.drain();
        let one = database.bytes();
        let (first, second) = (database.engine.snapshot().unwrap(), database.engine.snapshot().unwrap());
        for byte in 1..=3 {
            database.write(byte);
        }
        if merged {
            database.merge(); // and every version stays
        }
        database.drain();
        assert!(database.bytes() > 3 * one, "{} of {one}", database.bytes());
        let copy = first.clone();
        drop(first);
        drop(second);
        assert_eq!(database.drain(), 0, "a clone still exists");
        database.check(0, Some(&copy));
        drop(copy);
        database.drain();
        assert!(database.bytes() < one + one / 10, "{} of {one}, merged {merged}", database.bytes());
        assert_eq!(database.superfluous(), 0);
        database.check(3, None);
    }
}

#[test]
fn tombstones_and_what_they_hide_go_when_the_oldest_snapshot_ends() {
    let database = Database::new(DatabaseConfig::new());
    database.write(0);
    database.drain();
    let (oldest, newer) = (database.engine.snapshot().unwrap(), {
        database.write(1);
        database.engine.snapshot().unwrap()
    });
    database.delete();
    database.merge();
    database.drain();
    database.check(0, Some(&oldest));
    let before = database.bytes();
    // The newer snapshot blocks nothing that the older one does not block too.
    drop(newer);
    assert_eq!(database.drain(), 0);
    assert_eq!(database.bytes(), before);
    drop(oldest);
    database.drain();
    assert_eq!(database.ssts(), BTreeMap::new(), "everything was deleted");
    // Nothing is left to check.
    drop(database.engine.snapshot().unwrap());
    assert_eq!(database.drain(), 0);
}

#[test]
fn files_that_an_iterator_reads_go_when_it_ends_or_is_dropped() {
    for (snapshot, ends) in [(false, false), (false, true), (true, false), (true, true)] {
        let database = Database::new(DatabaseConfig::new());
        database.write(0);
        database.drain();
        let snapshot = snapshot.then(|| database.engine.snapshot().unwrap());
        let mut walk = database.engine.scan(b"", Direction::Forward, snapshot.as_ref()).unwrap();
        let mut other = database.engine.scan(b"", Direction::Forward, None).unwrap();
        assert!(walk.next().is_some() && other.next().is_some());
        database.write(1);
        database.merge();
        database.drain();
        let held = database.superfluous();
        assert!(held > 0);
        // Scans of the current state during another scan trigger nothing.
        database.check(1, None);
        assert_eq!(database.drain(), 0);
        drop(other);
        database.drain();
        assert_eq!(database.superfluous(), held, "the other one still reads them");
        if ends {
            assert_eq!(walk.by_ref().count() as u64, KEYS - 1);
            database.drain();
            assert_eq!(database.superfluous(), 0, "it has ended, though not been dropped");
        } else {
            drop(walk);
            database.drain();
            assert_eq!(database.superfluous(), 0);
        }
    }
}

/// A get triggers nothing when it ends: work that it blocked is retried after a moment.
#[test]
fn files_that_a_get_reads_go_a_moment_later() {
    let database = Database::new(DatabaseConfig::new().with_read_mode(ReadMode::Pread));
    database.write(0);
    database.drain();
    let during: Arc<Mutex<Option<Weak<LsmEngine>>>> = Arc::default();
    let taken = Arc::clone(&during);
    // All of this happens while the get reads a block.
    let hook = Rule::hook(move |_| {
        let engine = taken.lock().unwrap().take().and_then(|engine| engine.upgrade());
        if let Some(engine) = engine {
            for n in 0..KEYS {
                engine.put(&key(n), &[1; 1000], WriteOptions::new()).unwrap();
            }
            engine.flush().unwrap();
            (0..2).for_each(|stripe| engine.trigger_compaction(stripe).unwrap());
            while engine.step(0) {}
        }
        Ok(())
    });
    database.vfs.add(hook.on(&[Op::Read]).files("*.sst"));
    *during.lock().unwrap() = Some(Arc::downgrade(&database.engine));
    assert_eq!(database.engine.get(&key(7)).unwrap().unwrap()[..], [0; 1000]);
    assert!(during.lock().unwrap().is_none());
    assert!(database.superfluous() > 0);
    database.drain();
    database.clock.advance(Duration::from_millis(200));
    database.drain();
    assert_eq!(database.superfluous(), 0);
}

#[test]
fn files_and_log_that_a_backup_held_are_gone_when_it_returns() {
    let database = Database::new(DatabaseConfig::new());
    database.write(0);
    database.drain();
    let mut held = 0;
    let mut progress = |_: &BackupProgress| {
        if held == 0 {
            database.write(1);
            database.merge();
            database.drain();
            held = database.superfluous();
        }
        ControlFlow::Continue(())
    };
    let options = BackupOptions::new().copy(true).progress(&mut progress);
    database.engine.backup_with(Path::new("copy"), options).unwrap();
    assert!(held > 0);
    assert_eq!(database.superfluous(), 0);
    database.drain();
    let stats = database.engine.stats().unwrap();
    assert!(stats.log_segments <= 2, "{} segments", stats.log_segments);
}
