//! The database as users see it.

use std::collections::BTreeMap;

use kstone_api::{
    CompactionConfig, Database, DatabaseConfig, Durability, Error, Item, ItemBuilder, Key, Value, ValueView,
    WriteBatch, WriteOptions,
};

fn numbered(n: i64) -> Item {
    ItemBuilder::new().number("n", n).build()
}

fn n(item: &Item) -> i64 {
    item.get("n").and_then(Value::as_i64).unwrap()
}

fn text(key: &Key<'_>) -> String {
    let part = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    match key.sort() {
        None => part(key.partition()),
        Some(sort) => format!("{}/{}", part(key.partition()), part(sort)),
    }
}

fn texts(items: impl Iterator<Item = Result<(Key<'static>, Item), Error>>) -> Vec<String> {
    items.map(|entry| text(&entry.unwrap().0)).collect()
}

#[test]
fn put_get_delete() {
    let db = Database::in_memory().unwrap();
    assert!(db.get("a").unwrap().is_none());
    db.put("a", numbered(1)).unwrap();
    db.put(b"a", ItemBuilder::new().number("n", 2)).unwrap();
    db.put(("a", "sort"), numbered(3)).unwrap();
    assert_eq!(n(&db.get(b"a".as_slice()).unwrap().unwrap()), 2);
    assert_eq!(n(&db.get(("a", "sort")).unwrap().unwrap()), 3);
    let view = db.get_view("a").unwrap().unwrap();
    db.delete("a").unwrap();
    db.delete("never").unwrap();
    assert!(!db.contains("a").unwrap() && db.contains(("a", "sort")).unwrap());
    // The view keeps alive the memory that it refers to.
    assert_eq!(view.get("n").unwrap().and_then(ValueView::as_i64), Some(2));
}

#[test]
fn errors_name_what_is_wrong() {
    let db = Database::in_memory().unwrap();
    let bad = ItemBuilder::new().number("x", f64::NAN).build();
    assert!(matches!(db.put("a", &bad), Err(Error::InvalidNumber { attribute, .. }) if attribute == "x"));
    assert!(WriteBatch::new().put("a", &bad).is_err());
    assert!(matches!(db.put("", numbered(1)), Err(Error::InvalidKey { .. })));
    assert!(matches!(db.put("k".repeat(70_000), numbered(1)), Err(Error::KeyTooLarge { .. })));
    let large = ItemBuilder::new().string("x", "x".repeat(17 << 20)).build();
    assert!(matches!(db.put("a", large), Err(Error::ItemTooLarge { .. })));
    assert!(db.get("a").unwrap().is_none());
}

#[test]
fn batches_are_whole() {
    let db = Database::in_memory().unwrap();
    db.put("gone", numbered(0)).unwrap();
    let mut batch = WriteBatch::new();
    for i in 0..100 {
        batch.put(format!("k{i}"), numbered(i)).unwrap();
    }
    batch.delete("gone").unwrap().delete("k7").unwrap();
    assert_eq!(batch.len(), 102);
    let before = db.snapshot().unwrap();
    db.write_with(batch, WriteOptions::sync()).unwrap();
    assert!(before.get("k1").unwrap().is_none() && before.contains("gone").unwrap());
    assert!(!db.contains("gone").unwrap() && !db.contains("k7").unwrap());
    assert_eq!(n(&db.get("k99").unwrap().unwrap()), 99);
    db.write(WriteBatch::new()).unwrap();
}

#[test]
fn queries_read_one_partition_in_order() {
    let db = Database::in_memory().unwrap();
    for sort in ["KJFC", "KJFK", "KLAX", "EHAM", "KJ"] {
        db.put(("US", sort), numbered(1)).unwrap();
        db.put(("USA", sort), numbered(2)).unwrap();
    }
    db.put("US", numbered(0)).unwrap();
    let query = || db.query("US");
    let run = |query: kstone_api::Query<'_>| texts(query.run().unwrap());
    assert_eq!(run(query()), ["US", "US/EHAM", "US/KJ", "US/KJFC", "US/KJFK", "US/KLAX"]);
    assert_eq!(run(query().sort_prefix("KJ")), ["US/KJ", "US/KJFC", "US/KJFK"]);
    assert_eq!(run(query().sort_prefix("KJ").reverse().limit(2)), ["US/KJFK", "US/KJFC"]);
    assert_eq!(run(query().sort_prefix("KJ").sort_after("KJ").limit(1)), ["US/KJFC"]);
    assert_eq!(run(query().sort_between("KJ", "KJFK")), ["US/KJ", "US/KJFC", "US/KJFK"]);
    assert_eq!(run(query().sort_from("KJFK")), ["US/KJFK", "US/KLAX"]);
    assert_eq!(run(query().sort_to("KJ")), ["US/EHAM", "US/KJ"]);
    assert_eq!(run(query().sort_before("KJ").reverse()), ["US/EHAM"]);
    assert_eq!(run(query().sort_from("Z").sort_to("A")), [""; 0]);
    assert_eq!(run(query().limit(0)), [""; 0]);
    assert_eq!(run(db.query("nowhere")), [""; 0]);
    let views = query().sort_prefix("KJF").run().unwrap().views();
    assert_eq!(views.map(|e| e.unwrap().1.get("n").unwrap().unwrap().as_i64().unwrap()).sum::<i64>(), 2);
    assert_eq!(
        query().run().unwrap().keys().map(|key| text(&key.unwrap())).last().as_deref(),
        Some("US/KLAX")
    );
}

#[test]
fn scans_are_in_key_order_and_segments_share_everything() {
    let db = Database::in_memory().unwrap();
    let mut model = BTreeMap::new();
    for i in 0..500 {
        let key = format!("user#{i:03}");
        db.put(key.as_str(), numbered(i)).unwrap();
        model.insert(key, i);
    }
    db.put("other", numbered(-1)).unwrap();
    let all = texts(db.scan().run().unwrap());
    assert_eq!(all.len(), 501);
    assert!(all.is_sorted());
    assert_eq!(texts(db.prefix("user#").unwrap()), model.keys().cloned().collect::<Vec<_>>());
    let mut reversed = texts(db.scan().reverse().run().unwrap());
    reversed.reverse();
    assert_eq!(reversed, all);
    assert_eq!(
        texts(db.scan().prefix("user#1").limit(3).run().unwrap()),
        ["user#100", "user#101", "user#102"]
    );
    for count in [1, 2, 7, 256, 1000] {
        let mut shares: Vec<_> = (0..count).flat_map(|i| texts(db.segment(i, count).unwrap())).collect();
        shares.sort();
        assert_eq!(shares, all);
    }
    assert!(matches!(db.segment(2, 2), Err(Error::InvalidConfig { .. })));
    assert!(matches!(db.segment(0, 0), Err(Error::InvalidConfig { .. })));
}

#[test]
fn keys_of_any_shape_come_back() {
    let db = Database::in_memory().unwrap();
    // With and without a sort key and zero bytes, so that no key can be read like the one before it.
    let partitions = ["a", "a\0", "ab", "b\0b\0", "longer than eight bytes", "z"];
    let sorts = [None, Some(""), Some("\0"), Some("s"), Some("s\0\x01")];
    let mut keys = Vec::new();
    for partition in partitions {
        for sort in sorts {
            keys.push(sort.map_or(Key::new(partition), |sort| Key::with_sort(partition, sort)));
        }
    }
    for (n, key) in (0..).zip(&keys) {
        db.put(key, numbered(n)).unwrap();
    }
    keys.sort();
    let mut rows = db.scan().run().unwrap();
    for key in &keys {
        let (found, view) = rows.next_row().unwrap().unwrap();
        assert_eq!((&found, view.as_map().unwrap().len()), (key, 1));
    }
    assert!(rows.next_row().unwrap().is_none());
    assert!(db.scan().run().unwrap().keys().map(Result::unwrap).eq(keys.iter().cloned()));
}

#[test]
fn a_read_ends_at_an_item_that_cannot_be_decoded() {
    let db = Database::in_memory().unwrap();
    db.put(("p", "1"), numbered(1)).unwrap();
    db.engine().put(&Key::with_sort("p", "2"), b"not an item", WriteOptions::new()).unwrap();
    db.put(("p", "3"), numbered(3)).unwrap();
    let items = || db.query("p").run().unwrap();
    let named = |error: Error| assert!(error.to_string().contains("the item under \"p\" \"2\""), "{error}");

    let mut rows = items();
    assert!(rows.next_row().unwrap().is_some());
    named(rows.next_row().unwrap_err());
    assert!(rows.next_row().unwrap().is_none());

    let (mut items, mut views) = (items(), items().views());
    assert!(items.next().unwrap().is_ok() && views.next().unwrap().is_ok());
    named(items.next().unwrap().unwrap_err());
    named(views.next().unwrap().unwrap_err());
    assert!(items.next().is_none() && views.next().is_none());
}

#[test]
fn snapshots_do_not_move() {
    let db = Database::in_memory().unwrap();
    for i in 0..50 {
        db.put(("p", format!("{i:02}")), numbered(i)).unwrap();
    }
    let snapshot = db.snapshot().unwrap();
    let iterating = db.query("p").run().unwrap();
    for i in 0..50 {
        db.put(("p", format!("{i:02}")), numbered(-1)).unwrap();
        db.delete(("p", format!("{i:02}"))).unwrap();
    }
    db.flush().unwrap();
    db.compact_all().unwrap();
    assert!(db.query("p").run().unwrap().next().is_none());
    assert_eq!(n(&snapshot.get(("p", "07")).unwrap().unwrap()), 7);
    let numbers = |items: kstone_api::Items| items.map(|e| n(&e.unwrap().1)).collect::<Vec<_>>();
    let expected: Vec<i64> = (0..50).collect();
    assert_eq!(numbers(iterating), expected);
    assert_eq!(numbers(snapshot.query("p").run().unwrap()), expected);
    assert_eq!(numbers(snapshot.scan().run().unwrap()), expected);
    assert_eq!(numbers(snapshot.segment(0, 1).unwrap()), expected);
}

#[test]
fn everything_survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mydb.keystone");
    assert!(matches!(Database::open(&path), Err(Error::NotFound { .. })));
    let db = Database::builder(&path)
        .config(DatabaseConfig::new().with_max_memtable_records(20))
        .compaction(CompactionConfig::new().with_sst_threshold(5).with_check_interval(30))
        .durability(Durability::Sync)
        .create()
        .unwrap();
    assert_eq!(db.path(), path);
    for i in 0..200 {
        db.put(("p", format!("{i:03}")), numbered(i)).unwrap();
    }
    assert!(matches!(Database::open(&path), Err(Error::Locked { .. })));
    let clone = db.clone();
    db.close().unwrap();
    assert!(matches!(clone.put("x", numbered(1)), Err(Error::Closed)));
    drop(clone);
    assert!(matches!(Database::create(&path), Err(Error::AlreadyExists { .. })));
    let reader = Database::open_read_only(&path).unwrap();
    assert_eq!(n(&reader.get(("p", "042")).unwrap().unwrap()), 42);
    assert!(matches!(reader.put("x", numbered(1)), Err(Error::ReadOnly)));
    drop(reader);
    let db = Database::open_or_create(&path).unwrap();
    assert_eq!(db.config().max_memtable_records, 20);
    assert_eq!(db.query("p").run().unwrap().count(), 200);
    assert!(db.stats().unwrap().items_estimate >= 200);
    db.sync().unwrap();
}

#[test]
fn temporary_databases_go_away() {
    let db = Database::temporary().unwrap();
    let path = db.path().to_path_buf();
    let clone = db.clone();
    clone.put("a", numbered(1)).unwrap();
    drop(db);
    assert!(path.exists() && clone.contains("a").unwrap());
    drop(clone);
    assert!(!path.exists());
}

#[test]
fn drop_does_not_panic_in_a_deleted_directory() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::create(dir.path()).unwrap();
    drop(dir);
    for i in 0..100 {
        // The put may fail, but must not panic.
        let _ = db.put(format!("k{i}"), numbered(i));
    }
    drop(db);
}

#[test]
fn threads_share_a_database() {
    let db = Database::in_memory().unwrap();
    std::thread::scope(|scope| {
        for t in 0..4 {
            let db = db.clone();
            scope.spawn(move || {
                for i in 0..250 {
                    db.put(format!("{t}-{i}"), numbered(i)).unwrap();
                    assert_eq!(n(&db.get(format!("{t}-{i}")).unwrap().unwrap()), i);
                }
            });
        }
    });
    assert_eq!(db.scan().run().unwrap().count(), 1000);
}

#[test]
fn a_backup_of_any_database_opens_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my.keystone");
    let item = || ItemBuilder::new().number("n", 1);
    let on_disk = Database::create(&path).unwrap();
    let in_memory = Database::in_memory().unwrap();
    for (name, db) in [("of disk", &on_disk), ("of memory", &in_memory)] {
        db.put("a", item()).unwrap();
        db.flush().unwrap();
        db.put("b", item()).unwrap();
        let copy = dir.path().join(name);
        let report = db.backup(&copy).unwrap();
        assert_eq!((report.ssts, report.linked), (1, u64::from(name == "of disk")));
        let copy = Database::open(&copy).unwrap();
        assert!(copy.contains("a").unwrap() && copy.contains("b").unwrap());
        assert_eq!(copy.engine().verify().unwrap(), 1);
    }
    assert!(Database::is_locked(&path).unwrap());
    let reader = Database::open_read_only(&path).unwrap();
    on_disk.put("c", item()).unwrap();
    reader.backup(dir.path().join("of a reader")).unwrap();
    assert!(!reader.contains("c").unwrap());
    drop(on_disk);
    assert!(!Database::is_locked(&path).unwrap());
    // A backup by a reader copies the current database, not the reader's snapshot.
    assert!(Database::open(dir.path().join("of a reader")).unwrap().contains("c").unwrap());
}
