//! Bad input of every kind returns a typed error that says what is wrong and where, and loses nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kstone_core::lsm::{EngineOptions, LsmEngine, WriteBatch, WriteOptions};
use kstone_core::vfs::{DiskVfs, MemVfs, OpenMode, Vfs, read_all, write_all_at};
use kstone_core::{DatabaseConfig, Error, Key};

use crate::model::manual;

const DB: &str = "db";

fn small() -> DatabaseConfig {
    DatabaseConfig::new().with_stripes(2).with_max_memtable_records(10)
}

/// A database with SSTs, cleanly closed, with records left in its log.
fn database() -> Arc<dyn Vfs> {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let mut options = manual(Arc::clone(&vfs), 1);
    options.config = Some(small());
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    for i in 0..100 {
        engine.put(&Key::from(&format!("key{i}")), b"value", WriteOptions::new()).unwrap();
    }
    engine.flush().unwrap();
    engine.put(&Key::from("last"), b"value", WriteOptions::new()).unwrap();
    engine.close().unwrap();
    vfs
}

fn open(vfs: &Arc<dyn Vfs>) -> Result<LsmEngine, Error> {
    LsmEngine::open(Path::new(DB), manual(Arc::clone(vfs), 2))
}

/// All files and their bytes.
fn files(vfs: &dyn Vfs) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = vfs
        .list(Path::new(DB))
        .unwrap()
        .into_iter()
        .filter(|entry| entry.is_file && entry.name != "LOCK")
        .map(|entry| {
            let path = Path::new(DB).join(entry.name);
            let bytes = read_all(&*vfs.open(&path, OpenMode::Read).unwrap(), 1 << 30).unwrap();
            (path, bytes)
        })
        .collect();
    files.sort();
    files
}

fn file_like(vfs: &dyn Vfs, part: &str) -> PathBuf {
    files(vfs).into_iter().map(|(path, _)| path).find(|path| path.to_string_lossy().contains(part)).unwrap()
}

fn set(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) {
    write_all_at(&*vfs.open(path, OpenMode::Truncate).unwrap(), bytes, 0).unwrap();
}

#[test]
fn keys_values_and_batches_over_their_limits_are_refused() {
    let mut options = EngineOptions::memory();
    options.config = Some(small().with_max_item_bytes(1000).with_max_batch_bytes(3000));
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    let put = |key: Key<'_>, len: usize| engine.put(&key, &vec![0; len], WriteOptions::new());
    assert!(matches!(put(Key::from(""), 1), Err(Error::InvalidKey { .. })));
    assert!(matches!(put(Key::from(("", "sort")), 1), Err(Error::InvalidKey { .. })));
    let long = vec![b'k'; (64 << 10) + 1];
    assert!(matches!(put(Key::from(&long), 1), Err(Error::KeyTooLarge { len: 65_537, max: 65_536 })));
    assert!(matches!(engine.get(&Key::from(&long)), Err(Error::KeyTooLarge { .. })));
    assert!(matches!(put(Key::from("a"), 1001), Err(Error::ItemTooLarge { len: 1001, max: 1000 })));
    let mut batch = WriteBatch::new();
    for key in ["a", "b", "c", "d"] {
        batch.put(key, vec![0; 900]);
    }
    assert!(matches!(engine.write(&batch, WriteOptions::new()), Err(Error::BatchTooLarge { max: 3000, .. })));
    let mut mixed = WriteBatch::new();
    mixed.put("good", *b"value").put("", *b"value");
    assert!(engine.write(&mixed, WriteOptions::new()).is_err());
    assert!(engine.get(&Key::from("good")).unwrap().is_none(), "a part of a refused batch was written");
    put(Key::from(&long[1..]), 1000).unwrap();
    assert_eq!(engine.get(&Key::from(&long[1..])).unwrap().unwrap().len(), 1000);
    assert!(matches!(engine.trigger_compaction(2), Err(Error::InvalidConfig { field: "stripe", .. })));
}

#[test]
fn what_is_no_database_is_left_alone() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    assert!(matches!(open(&vfs), Err(Error::NotFound { .. })));
    vfs.create_dir(Path::new(DB)).unwrap();
    assert!(matches!(open(&vfs), Err(Error::NotADatabase { .. })));
    set(&*vfs, Path::new("db/notes.txt"), b"mine");
    assert!(matches!(open(&vfs), Err(Error::NotADatabase { .. })));
    let created = LsmEngine::create(Path::new(DB), manual(Arc::clone(&vfs), 1));
    let Err(Error::AlreadyExists { detail, .. }) = created else { panic!("{created:?}") };
    assert!(detail.contains("notes.txt"), "{detail}");
    assert_eq!(files(&*vfs), vec![(PathBuf::from("db/notes.txt"), b"mine".to_vec())]);
    set(&*vfs, Path::new("file"), b"mine");
    let options = || manual(Arc::clone(&vfs), 1);
    assert!(matches!(LsmEngine::open(Path::new("file"), options()), Err(Error::NotADatabase { .. })));
    assert!(matches!(LsmEngine::create(Path::new("file"), options()), Err(Error::AlreadyExists { .. })));
}

/// For an unreadable directory, the error has the path, the operation, and the system's reason.
#[cfg(unix)]
#[test]
fn an_unreadable_directory_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("closed.keystone");
    LsmEngine::create(&path, EngineOptions::disk()).unwrap().close().unwrap();
    let allow = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    allow(0o000);
    if DiskVfs::new().list(&path).is_ok() {
        println!("skipped: this user may read everything");
    } else {
        let Err(Error::Io { path: named, source, .. }) = LsmEngine::open(&path, EngineOptions::disk()) else {
            panic!("opened");
        };
        assert!(named.starts_with(&path));
        assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied);
    }
    allow(0o700);
    LsmEngine::open(&path, EngineOptions::disk()).unwrap();
}

#[test]
fn an_existing_database_is_not_created_again() {
    let vfs = database();
    let before = files(&*vfs);
    let created = LsmEngine::create(Path::new(DB), manual(Arc::clone(&vfs), 1));
    assert!(matches!(created, Err(Error::AlreadyExists { .. })));
    assert_eq!(files(&*vfs), before);
}

#[test]
fn a_second_opener_is_told_at_once() {
    let vfs = database();
    let first = open(&vfs).unwrap();
    let Err(Error::Locked { pid, .. }) = open(&vfs) else { panic!("opened twice") };
    assert_eq!(pid, Some(std::process::id()));
    first.close().unwrap();
    open(&vfs).unwrap();
}

#[test]
fn reading_only_changes_nothing() {
    let vfs = database();
    // Also after an unclean shutdown: the log is replayed in memory.
    let engine = open(&vfs).unwrap();
    engine.put(&Key::from("unclean"), b"value", WriteOptions::new()).unwrap();
    std::mem::forget(engine);
    let image = MemVfs::new();
    image.create_dir(Path::new(DB)).unwrap();
    for (path, bytes) in files(&*vfs) {
        set(&image, &path, &bytes);
    }
    let vfs: Arc<dyn Vfs> = Arc::new(image);
    let before = files(&*vfs);
    let engine = LsmEngine::open_read_only(Path::new(DB), manual(Arc::clone(&vfs), 3)).unwrap();
    for key in ["key0", "key99", "last", "unclean"] {
        assert!(engine.get(&Key::from(key)).unwrap().is_some(), "{key}");
    }
    assert!(matches!(engine.put(&Key::from("a"), b"", WriteOptions::new()), Err(Error::ReadOnly)));
    assert!(matches!(engine.flush(), Err(Error::ReadOnly)));
    engine.close().unwrap();
    assert_eq!(files(&*vfs), before);
    assert!(matches!(engine.get(&Key::from("key0")), Err(Error::Closed)));
}

#[test]
fn a_clean_open_and_close_writes_nothing() {
    let vfs = database();
    let before = files(&*vfs);
    let engine = open(&vfs).unwrap();
    assert!(engine.get(&Key::from("last")).unwrap().is_some());
    engine.close().unwrap();
    assert_eq!(files(&*vfs), before);
}

#[test]
fn a_missing_or_shortened_sst_is_named_and_nothing_changes() {
    for cut in [None, Some(0), Some(1), Some(64), Some(200)] {
        let vfs = database();
        let path = file_like(&*vfs, ".sst");
        match cut {
            None => vfs.remove(&path).unwrap(),
            Some(by) => {
                let bytes = read_all(&*vfs.open(&path, OpenMode::Read).unwrap(), 1 << 30).unwrap();
                set(&*vfs, &path, &bytes[..bytes.len() - 1 - by]);
            }
        }
        let before = files(&*vfs);
        let Err(Error::Corruption { file, .. }) = open(&vfs) else { panic!("opened") };
        assert_eq!(file, path);
        assert_eq!(files(&*vfs), before);
    }
}

#[test]
fn a_newer_format_is_refused_and_nothing_changes() {
    let vfs = database();
    let path = Path::new(DB).join("MANIFEST");
    let mut bytes = read_all(&*vfs.open(&path, OpenMode::Read).unwrap(), 1 << 30).unwrap();
    bytes[10] = 9;
    let seeded = crc32c::crc32c_append(crc32c::crc32c(&0u64.to_le_bytes()), &bytes[..124]);
    bytes[124..128].copy_from_slice(&seeded.to_le_bytes());
    set(&*vfs, &path, &bytes);
    let before = files(&*vfs);
    let opened = open(&vfs);
    assert!(matches!(&opened, Err(Error::UnsupportedFormat { file, .. }) if *file == path), "{opened:?}");
    assert_eq!(files(&*vfs), before);
}

/// Symptom: a database whose SSTs have a newer format opened, and then its reads failed one by one.
/// Cause: an SST is opened at its first read.
/// Fix: every open checks the format of the newest SSTs, which are those that a newer version would have written.
#[test]
fn ssts_of_a_newer_format_are_refused_when_the_database_is_opened() {
    let vfs = database();
    let path = file_like(&*vfs, ".sst");
    let good = read_all(&*vfs.open(&path, OpenMode::Read).unwrap(), 1 << 30).unwrap();
    let mut newer = good.clone();
    newer[10] = 9;
    let seeded = crc32c::crc32c_append(crc32c::crc32c(&0u64.to_le_bytes()), &newer[..124]);
    newer[124..128].copy_from_slice(&seeded.to_le_bytes());
    set(&*vfs, &path, &newer);
    let before = files(&*vfs);
    let read_only = LsmEngine::open_read_only(Path::new(DB), manual(Arc::clone(&vfs), 2));
    for opened in [open(&vfs), read_only] {
        assert!(matches!(&opened, Err(Error::UnsupportedFormat { file, .. }) if *file == path), "{opened:?}");
    }
    assert_eq!(files(&*vfs), before);
    // Damage is not mistaken for a newer format, and the rest of the database opens.
    newer[124] ^= 1;
    set(&*vfs, &path, &newer);
    open(&vfs).unwrap();
    set(&*vfs, &path, &good);
}

/// Every byte of every file, damaged one at a time: either an error that names a file, or all items intact.
#[test]
fn damage_is_found_or_harmless() {
    let vfs = database();
    let original = files(&*vfs);
    let (mut found, mut harmless) = (0, 0);
    for (path, bytes) in &original {
        let step = 1 + bytes.len() / 400;
        for at in (0..bytes.len()).step_by(step) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x41;
            let copy = MemVfs::new();
            copy.create_dir(Path::new(DB)).unwrap();
            for (other, bytes) in &original {
                set(&copy, other, if other == path { &bad } else { bytes });
            }
            let copy: Arc<dyn Vfs> = Arc::new(copy);
            let context = format!("byte {at} of {}", path.display());
            match read_everything(&copy) {
                // Not part of the database: nothing depends on its contents.
                result if path.ends_with("EVENTS.jsonl") => result.unwrap(),
                Ok(()) => harmless += 1,
                Err(Error::Corruption { .. } | Error::UnsupportedFormat { .. }) => found += 1,
                Err(other) => panic!("{other:?}, {context}"),
            }
        }
    }
    println!("damage: {found} found, {harmless} harmless");
    // Harmless are the second copies of headers, padding, retired log records, and bytes that no reader uses.
    assert!(found > 4 * harmless && found > 500, "{found} found, {harmless} harmless");
}

/// Returns an error, or checks that all items are as written.
fn read_everything(vfs: &Arc<dyn Vfs>) -> Result<(), Error> {
    let engine = open(vfs)?;
    for i in 0..100 {
        let value = engine.get(&Key::from(&format!("key{i}")))?;
        assert_eq!(value.as_deref(), Some(&b"value"[..]), "key{i} was lost silently");
    }
    assert_eq!(engine.get(&Key::from("last"))?.as_deref(), Some(&b"value"[..]));
    assert_eq!(engine.get(&Key::from("never"))?, None);
    let mut items = 0;
    for entry in engine.scan(b"", kstone_core::lsm::Direction::Forward, None)? {
        entry?;
        items += 1;
    }
    assert_eq!(items, 101);
    Ok(())
}

#[test]
fn stripes_are_fixed_at_creation() {
    let vfs = database();
    let mut options = manual(Arc::clone(&vfs), 1);
    options.config = Some(small().with_stripes(4));
    let opened = LsmEngine::open(Path::new(DB), options);
    assert!(matches!(opened, Err(Error::InvalidConfig { field: "stripes", .. })), "{opened:?}");
    assert_eq!(open(&vfs).unwrap().stripe_count(), 2);
}

#[test]
fn settings_are_stored_and_replaced_whole() {
    let vfs = database();
    assert_eq!(open(&vfs).unwrap().config().max_memtable_records, 10);
    let mut options = manual(Arc::clone(&vfs), 1);
    options.config = Some(DatabaseConfig::new().with_bloom_bits_per_key(16));
    LsmEngine::open(Path::new(DB), options).unwrap().close().unwrap();
    let config = open(&vfs).unwrap().config();
    assert_eq!((config.max_memtable_records, config.bloom_bits_per_key), (1000, 16));
}

#[test]
fn a_crash_during_creation_can_be_created_over() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    vfs.create_dir(Path::new(DB)).unwrap();
    set(&*vfs, Path::new("db/LOCK"), b"1\n");
    set(&*vfs, Path::new("db/MANIFEST.tmp"), b"half");
    assert!(matches!(open(&vfs), Err(Error::NotADatabase { .. })));
    LsmEngine::create(Path::new(DB), manual(Arc::clone(&vfs), 1)).unwrap().close().unwrap();
    open(&vfs).unwrap();
}

#[test]
fn data_without_a_manifest_is_corruption_and_left_alone() {
    let vfs = database();
    vfs.remove(Path::new("db/MANIFEST")).unwrap();
    let before = files(&*vfs);
    assert!(matches!(open(&vfs), Err(Error::Corruption { .. })));
    let created = LsmEngine::create(Path::new(DB), manual(Arc::clone(&vfs), 1));
    assert!(matches!(created, Err(Error::Corruption { .. })), "{created:?}");
    let opened = LsmEngine::open_or_create(Path::new(DB), manual(Arc::clone(&vfs), 1));
    assert!(matches!(opened, Err(Error::Corruption { .. })), "{opened:?}");
    assert_eq!(files(&*vfs), before);
}
