//! Numbers on disk that leave no valid next number, and logs that cannot be replayed.

use std::path::Path;
use std::sync::Arc;

use crate::clock::ManualClock;
use crate::error::Error;
use crate::lsm::options::{EngineOptions, Workers, WriteOptions};
use crate::lsm::{LsmEngine, WriteBatch};
use crate::manifest::{Change, Manifest};
use crate::paths;
use crate::record::{OpRef, encode};
use crate::types::{Direction, Lsn, MAX_NUMBER};
use crate::vfs::{Floor, MemVfs, OpenMode, Vfs};
use crate::wal::Route;

fn dir() -> &'static Path {
    Path::new("/db")
}

fn options(vfs: &MemVfs) -> EngineOptions {
    EngineOptions::reproducible(Arc::new(vfs.clone()), Arc::new(ManualClock::new(1)))
}

/// A cleanly closed database with one item.
fn closed() -> MemVfs {
    let vfs = MemVfs::new();
    let engine = LsmEngine::create(dir(), options(&vfs)).unwrap();
    engine.put(&crate::Key::from("k"), b"v", WriteOptions::new()).unwrap();
    engine.close().unwrap();
    vfs
}

/// Symptom: opening added to numbers close to their maximum: a panic with overflow checks, and without them a database
/// that restarted with sequence, file or generation 0. Cause: numbers were counted on from without a check. Fix: they
/// are checked before anything is written.
#[test]
fn numbers_at_the_end_of_their_range_are_refused_and_nothing_is_changed() {
    let flushed = |seq| Change::FlushedTo(vec![(0, 0, seq)]);
    let forged = [
        Change::Reserve { files_below: u64::MAX - 3 },
        flushed(u64::MAX - 5),
        flushed(MAX_NUMBER),
        Change::LogStart { start: Lsn::new(u32::MAX, 0), durable: Lsn::new(u32::MAX, 0) },
    ];
    for change in forged {
        let vfs = closed();
        let loaded = Manifest::load(&vfs, dir()).unwrap();
        let mut manifest = Manifest::resume(Arc::new(vfs.clone()), dir(), loaded);
        manifest.append(vec![Change::Opened, change.clone()]).unwrap();
        let before = Manifest::load(&vfs, dir()).unwrap().state;
        for read_only in [true, false] {
            let open = if read_only { LsmEngine::open_read_only } else { LsmEngine::open };
            let error = open(dir(), options(&vfs)).unwrap_err();
            assert_eq!(error.code(), "corruption", "{change:?}: {error}");
        }
        assert_eq!(Manifest::load(&vfs, dir()).unwrap().state, before);
    }
}

/// The same for the number in the name of an empty file.
#[test]
fn a_file_with_the_name_of_the_last_segment_there_is_is_refused() {
    let vfs = closed();
    let path = paths::log(dir(), u32::MAX);
    vfs.open(&path, OpenMode::Create).unwrap();
    let error = LsmEngine::open(dir(), options(&vfs)).unwrap_err();
    assert!(matches!(&error, Error::Corruption { file, .. } if *file == path), "{error}");
    vfs.remove(&path).unwrap();
    LsmEngine::open(dir(), options(&vfs)).unwrap();
}

/// Names and contents of the database's own files.
fn files(vfs: &MemVfs) -> Vec<(String, Vec<u8>)> {
    let read = |name: &str| {
        let file = vfs.open(&dir().join(name), OpenMode::Read).unwrap();
        crate::vfs::read_all(&*file, 1 << 30).unwrap()
    };
    let names = vfs.list(dir()).unwrap().into_iter().map(|entry| entry.name);
    let ours = names.filter(|name| !name.starts_with("LOCK") && !name.starts_with("EVENTS"));
    ours.map(|name| (name.clone(), read(&name))).collect()
}

/// A database with an item and, in its log, a batch with this payload; closed, or left behind by a process that died.
fn with_batch(payload: &[u8], count: u32, clean: bool) -> MemVfs {
    let vfs = MemVfs::new();
    let engine = LsmEngine::create(dir(), options(&vfs)).unwrap();
    engine.put(&crate::Key::from("k"), b"v", WriteOptions::new()).unwrap();
    let wal = &engine.shared.io.wal();
    let reservation = wal.try_reserve(payload.len(), Floor::NONE).unwrap().unwrap();
    wal.append(reservation, count, payload, Route::Buffered, |_| ()).unwrap();
    if !clean {
        engine.shared.life.health().poison(&Error::Closed); // so that closing changes nothing
    }
    let _ = engine.close();
    vfs
}

/// Symptom: a record of another keyspace was replayed among the items: a key of an index, for example, became an item.
/// Cause: replay ignored the keyspace. Fix: code that reads operations rejects unknown keyspaces, and opening checks
/// all operations before it writes anything, including for other reasons why they could not be replayed.
#[test]
fn operations_that_cannot_be_replayed_are_refused_and_nothing_is_changed() {
    let key = crate::Key::from("other").encode(100).unwrap();
    let mut other_keyspace = Vec::new();
    encode(&mut other_keyspace, 0, OpRef::put(&key.bytes, b"mine"));
    let whole = other_keyspace.clone();
    encode(&mut other_keyspace, 7, OpRef::put(&key.bytes, b"not mine"));
    let mut deleted = Vec::new();
    encode(&mut deleted, 1, OpRef::delete(&key.bytes));
    let mut no_key = Vec::new();
    encode(&mut no_key, 0, OpRef::put(b"", b"v"));
    for (payload, count, code, says) in [
        (&other_keyspace, 2, "unsupported_format", "keyspace 7"),
        (&deleted, 1, "unsupported_format", "keyspace 1"),
        (&vec![9, 0, 0], 1, "unsupported_format", "kind 9"),
        (&no_key, 1, "corruption", "not a valid key"),
        (&whole, 2, "corruption", "2 operations but holds 1"),
    ] {
        for clean in [true, false] {
            let vfs = with_batch(payload, count, clean);
            let (before, log) = (files(&vfs), paths::log(dir(), 1));
            let refused = |error: &Error| {
                assert_eq!(error.code(), code, "{error}");
                let text = error.to_string();
                assert!(text.contains(says) && text.contains(&*log.to_string_lossy()), "{text}");
            };
            refused(&LsmEngine::open_read_only(dir(), options(&vfs)).unwrap_err());
            refused(&LsmEngine::open(dir(), options(&vfs)).unwrap_err());
            assert_eq!(files(&vfs), before, "{says}, closed {clean}");
            let shared: Arc<dyn Vfs> = Arc::new(vfs.clone());
            let verify = crate::verify::VerifyOptions::deep().on(Arc::clone(&shared));
            let report = crate::verify::verify(dir(), &verify).unwrap();
            assert!(
                !report.is_clean() && report.findings.iter().any(|finding| finding.file == log),
                "{says}"
            );
            if code == "unsupported_format" {
                let repair = crate::repair::RepairOptions::new().on(shared);
                refused(&crate::repair::repair(dir(), &repair, &mut |_| ()).unwrap_err());
                assert_eq!(files(&vfs), before, "{says}, closed {clean}, repaired");
            }
        }
    }
}

/// The same for a manifest: its SSTs and flush positions of another keyspace would be taken for those of the items.
#[test]
fn a_manifest_with_other_keyspaces_is_refused_and_nothing_is_changed() {
    for clean in [true, false] {
        let vfs = closed();
        let loaded = Manifest::load(&vfs, dir()).unwrap();
        let end = loaded.state.clean_end.unwrap();
        let mut manifest = Manifest::resume(Arc::new(vfs.clone()), dir(), loaded);
        manifest.append(vec![Change::Opened, Change::Keyspace { id: 7, name: "by_city".into() }]).unwrap();
        if clean {
            manifest.append(vec![Change::CleanEnd(end)]).unwrap();
        }
        let before = files(&vfs);
        for open in [LsmEngine::open_read_only, LsmEngine::open] {
            let error = open(dir(), options(&vfs)).unwrap_err();
            assert_eq!(error.code(), "unsupported_format", "{error}");
            assert!(
                error.to_string().contains("MANIFEST") && error.to_string().contains("by_city"),
                "{error}"
            );
        }
        assert_eq!(files(&vfs), before);
    }
}

/// A log that is long enough for threads, with batches over several stripes, overwritten and deleted keys, is replayed to
/// the same contents by them as by one thread.
#[test]
fn several_threads_replay_what_one_does() {
    let vfs = MemVfs::new();
    let with = |workers| EngineOptions { workers, ..options(&vfs) };
    let config = crate::DatabaseConfig::new().with_max_memtable_records(300).with_wal_segment_size(1 << 20);
    let created = EngineOptions { config: Some(config), ..with(Workers::Manual) };
    let engine = LsmEngine::create(dir(), created).unwrap();
    for n in 0..6000u32 {
        let key = |n: u32| n.to_be_bytes();
        let mut batch = WriteBatch::new();
        batch.put(&key(n % 2500)[..], n.to_be_bytes().repeat(100)).put(&key(n % 1700)[..], "small");
        if n % 7 == 0 {
            batch.delete(&key(n % 900)[..]);
        }
        engine.write(&batch, WriteOptions::new()).unwrap();
    }
    engine.shared.life.health().poison(&Error::Closed); // as if the process had died
    let _ = engine.close();

    let contents = |engine: &LsmEngine| -> Vec<String> {
        let entries = engine.scan(b"", Direction::Forward, None).unwrap();
        entries.map(|entry| format!("{:?}", entry.unwrap())).collect()
    };
    let read = |workers| {
        let engine = LsmEngine::open_read_only(dir(), with(workers)).unwrap();
        let replayed = engine.shared.observed.replayed_so_far();
        (contents(&engine), replayed, engine.shared.space.memory(), engine.shared.commits.visible())
    };
    let one = read(Workers::Manual);
    assert!(one.0.len() > 2000 && one.1.0 > 3000, "{} entries of {} records", one.0.len(), one.1.0);
    assert!(read(Workers::Threads) == one);
    // The same with what recovery writes, meanwhile.
    let engine = LsmEngine::open(dir(), with(Workers::Threads)).unwrap();
    assert!(contents(&engine) == one.0 && !engine.shared.life.is_unfinished());
    engine.close().unwrap();
    assert!(read(Workers::Threads).0 == one.0);
}
