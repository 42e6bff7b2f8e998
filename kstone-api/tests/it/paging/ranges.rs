//! Partition keys, and deletion of ranges.

use std::path::{Path, PathBuf};

use kstone_api::{
    CompactionConfig, Database, DatabaseConfig, EngineOptions, Error, ItemBuilder, Key, LsmEngine, SortRange,
    WriteOptions,
};

use super::{keys, numbered, sample};

#[test]
fn partitions_are_listed_without_reading_their_items() {
    let db = Database::in_memory().unwrap();
    let mut names: Vec<String> = (0..50).map(|n| format!("small#{n:02}")).collect();
    for name in &names {
        db.put(name.as_str(), numbered(1)).unwrap();
        db.put((name.as_str(), "s"), numbered(1)).unwrap();
    }
    for n in 0..3_000 {
        db.put(("large#1", format!("{n:04}")), numbered(n)).unwrap();
        db.put(("large#2", format!("{n:04}")), numbered(n)).unwrap();
        if n == 1_000 {
            db.flush().unwrap();
        }
    }
    db.put(("large#1\0", "zero byte"), numbered(1)).unwrap();
    db.put(("gone", "s"), numbered(1)).unwrap();
    db.delete(("gone", "s")).unwrap();
    names.extend(["large#1", "large#1\0", "large#2"].map(String::from));
    names.sort();
    let text = |partitions: kstone_api::Partitions| {
        partitions.map(|p| String::from_utf8(p.unwrap()).unwrap()).collect::<Vec<_>>()
    };
    let before = db.stats().unwrap().operations;
    assert_eq!(text(db.partitions().unwrap()), names);
    let after = db.stats().unwrap().operations;
    let read = after.entries_read - before.entries_read + after.entries_passed - before.entries_passed;
    assert!(read < 200, "{read} entries read of {}", db.scan().count().unwrap());
    assert_eq!(after.scans - before.scans, 1);

    let mut reversed = text(db.scan().reverse().partitions().unwrap());
    reversed.reverse();
    assert_eq!(reversed, names);
    assert_eq!(text(db.scan().prefix("large#1").partitions().unwrap()), ["large#1", "large#1\0"]);
    assert_eq!(text(db.scan().limit(2).partitions().unwrap()), names[..2]);
    assert_eq!(text(db.scan().limit(0).partitions().unwrap()), [""; 0]);
    let token = db.scan().limit(10).page().unwrap().next.unwrap();
    assert_eq!(text(db.scan().after(&token).partitions().unwrap()), names[1..]);
    assert!(matches!(db.scan().examine(1).partitions(), Err(Error::InvalidConfig { field: "examine", .. })));

    let snapshot = db.snapshot().unwrap();
    db.put("aaa", numbered(1)).unwrap();
    db.delete_range("large#2", SortRange::All).unwrap();
    assert_eq!(text(snapshot.partitions().unwrap()), names);
    let mut partitions = db.partitions().unwrap();
    assert_eq!(partitions.next().unwrap().unwrap(), b"aaa");
    db.clone().close().unwrap();
    assert!(partitions.any(|partition| matches!(partition, Err(Error::Closed))), "an error, then nothing");
    assert!(partitions.next().is_none());
}

/// A database whose batches hold only a few deletes.
fn with_small_batches() -> (Database, usize) {
    let max = 4 << 10;
    let config = DatabaseConfig::new().with_max_item_bytes(max).with_max_batch_bytes(max);
    let mut options = EngineOptions::memory();
    options.config = Some(config);
    let engine = LsmEngine::create(Path::new("memory"), options).unwrap();
    (Database::from(engine), max)
}

#[test]
fn a_range_is_deleted_at_once_or_in_steps() {
    let db = sample();
    let before = db.stats().unwrap().operations;
    let deleted = db.delete_range("p", SortRange::before("05")).unwrap();
    assert_eq!((deleted.items, deleted.steps), (5, 1));
    assert_eq!(db.stats().unwrap().operations.batches - before.batches, 1);
    assert_eq!(db.stats().unwrap().operations.deletes - before.deletes, 5);
    assert_eq!(keys(&db.query("p").limit(2).page().unwrap()), [Key::new("p"), Key::with_sort("p", "05")]);
    for (range, items) in [
        (SortRange::between("06", "05"), 0),
        (SortRange::prefix("nothing"), 0),
        (SortRange::prefix("05"), 1),
        (SortRange::after("10"), 1),
        (SortRange::from("10"), 1),
        (SortRange::to("06"), 1),
        (SortRange::All, 4),
        (SortRange::All, 0),
    ] {
        let deleted = db.delete_range("p", range.clone()).unwrap();
        assert_eq!((deleted.items, deleted.steps), (items, items.min(1)), "{range:?}");
    }
    assert_eq!(db.scan().count().unwrap(), 13, "other partitions are untouched");
    assert_eq!(db.delete_range("", SortRange::All).unwrap_err().code(), "invalid_key");

    let (db, max) = with_small_batches();
    let long = "k".repeat(100);
    for n in 0..200 {
        db.put(("p", format!("{long}{n:03}")), numbered(n)).unwrap();
    }
    let deleted = db.delete_range_with("p", SortRange::All, WriteOptions::sync()).unwrap();
    let each = max / (long.len() + 11);
    assert_eq!(deleted.items, 200);
    assert!(deleted.steps >= 200 / each as u64 && deleted.steps <= 2 + 200 / each as u64, "{deleted:?}");
    assert_eq!(db.query("p").count().unwrap(), 0);
    // A single delete that is longer than a batch may be is a step of its own.
    let long = "k".repeat(6 << 10);
    for n in 0..3 {
        db.put(("p", format!("{long}{n}")), numbered(n)).unwrap();
    }
    let deleted = db.delete_range("p", SortRange::All).unwrap();
    assert_eq!((deleted.items, deleted.steps), (3, 3));
}

#[expect(clippy::disallowed_methods, reason = "damages a file from outside")]
fn flip(file: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "looks at files from outside")]
fn only_sst(path: &Path) -> (PathBuf, u64) {
    let files = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut ssts = files.filter(|file| file.extension().is_some_and(|end| end == "sst"));
    let (sst, other) = (ssts.next().unwrap(), ssts.next());
    assert_eq!(other, None);
    let len = std::fs::metadata(&sst).unwrap().len();
    (sst, len)
}

/// After an error in the middle, what was deleted before it stays deleted, the rest is intact, and the call can be
/// repeated.
#[test]
fn an_interrupted_deletion_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my.keystone");
    let db = Database::builder(&path)
        .config(
            DatabaseConfig::new()
                .with_max_item_bytes(1 << 10)
                .with_max_batch_bytes(1 << 10)
                .with_max_memtable_records(10_000),
        )
        .compaction(CompactionConfig::disabled())
        .create()
        .unwrap();
    for n in 0..2_000 {
        let item = ItemBuilder::new().string("text", format!("{n}").repeat(20));
        db.put(("p", format!("{n:04}")), item).unwrap();
    }
    db.flush().unwrap();
    db.close().unwrap();
    // Damage in the middle of the items.
    let (sst, len) = only_sst(&path);
    flip(&sst, len / 2);
    let db = Database::open(&path).unwrap();
    let error = db.delete_range("p", SortRange::All).unwrap_err();
    assert!(matches!(error, Error::Corruption { .. }), "{error}");
    assert!(db.stats().unwrap().operations.batches > 3);
    db.close().unwrap();

    flip(&sst, len / 2);
    let db = Database::open(&path).unwrap();
    let left: Vec<_> = db.query("p").run().unwrap().keys().map(Result::unwrap).collect();
    assert!((100..1_900).contains(&left.len()), "{}", left.len());
    // The first ones are gone, and no others.
    let expected = (2_000 - left.len()..2_000).map(|n| Key::with_sort("p", format!("{n:04}")));
    assert!(expected.eq(left.iter().cloned()));
    let deleted = db.delete_range("p", SortRange::All).unwrap();
    assert_eq!(deleted.items as usize, left.len());
    assert_eq!(db.scan().count().unwrap(), 0);
    let reader = Database::open_read_only(&path).unwrap();
    assert!(matches!(reader.delete_range("p", SortRange::All), Err(Error::ReadOnly)));
}
