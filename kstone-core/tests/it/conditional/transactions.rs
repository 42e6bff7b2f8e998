//! What `write_if_unchanged` takes for a conflict, and what not.

use std::ops::Bound;

use kstone_core::lsm::{ReadSet, Snapshot, WriteBatch};
use kstone_core::{Error, SortRange};

use super::*;

fn row(partition: &str, sort: &str) -> Key<'static> {
    Key::with_sort(partition.as_bytes().to_vec(), sort.as_bytes().to_vec())
}

/// Commits a put of a key that nothing else concerns; returns whether there was no conflict. After one, nothing has
/// been written.
fn commits(engine: &LsmEngine, snapshot: &Snapshot, reads: &ReadSet) -> bool {
    let result = row("result", "of all");
    delete(engine, &result);
    let mut batch = WriteBatch::new();
    batch.put(result.clone(), *b"done").put(key(2, 9), *b"done");
    let before = written(engine);
    match engine.write_if_unchanged(snapshot, reads, &batch, WriteOptions::new()) {
        Ok(seq) => {
            assert_eq!(seq, engine.snapshot().unwrap().seq());
            assert_eq!(written(engine), (before.0 + 1, before.1 + 2, before.2, before.3 + 1));
            assert_eq!(get(engine, &result), Some(b"done".to_vec()));
            true
        }
        Err(Error::Conflict { .. }) => {
            assert_eq!((written(engine), get(engine, &result)), (before, None));
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// Reads, by what is added to the read set, and which of the keys below it covers.
type Reads = (&'static str, fn(&mut ReadSet), &'static [&'static str]);

/// Keys that are changed meanwhile, one at a time. `p a` and `q` exist before.
const KEYS: [&str; 6] = ["p a", "p b", "p m", "p", "q", "r x"];

fn named(name: &str) -> Key<'static> {
    match name.split_once(' ') {
        Some((partition, sort)) => row(partition, sort),
        None => Key::new(name.as_bytes().to_vec()),
    }
}

const READS: [Reads; 10] = [
    ("nothing", |_| (), &[]),
    ("a key", |reads| reads.get(&row("p", "a")).unwrap(), &["p a"]),
    ("an absent key", |reads| reads.get(&row("p", "b")).unwrap(), &["p b"]),
    ("a key without a sort key", |reads| reads.get(&named("q")).unwrap(), &["q"]),
    ("an absent one", |reads| reads.get(&named("p")).unwrap(), &["p"]),
    ("a partition", |reads| reads.query(b"p", SortRange::All), &["p a", "p b", "p m", "p"]),
    ("a prefix", |reads| reads.query(b"p", SortRange::Prefix(b"b".to_vec())), &["p b"]),
    (
        "a range",
        |reads| {
            let to = Bound::Excluded(b"m".to_vec());
            reads.query(b"p", SortRange::Between(Bound::Excluded(b"a".to_vec()), to));
        },
        &["p b"],
    ),
    (
        "two ranges and a key",
        |reads| {
            reads.query(b"p", SortRange::Prefix(b"m".to_vec()));
            reads.query(b"r", SortRange::All);
            reads.query(b"r", SortRange::All);
            reads.get(&named("q")).unwrap();
        },
        &["p m", "q", "r x"],
    ),
    (
        "everything",
        |reads| {
            reads.get(&row("p", "a")).unwrap();
            reads.scan();
            reads.query(b"p", SortRange::All);
            reads.get(&named("q")).unwrap();
        },
        &KEYS,
    ),
];

type Move = (&'static str, fn(&LsmEngine));
type Alteration = (&'static str, fn(&LsmEngine, &Key<'_>));

/// Where what is changed meanwhile is when the transaction commits.
const MOVES: [Move; 4] = [
    ("in the memtable", |_| ()),
    ("in a sealed memtable", |engine| {
        // Fills the memtables of all stripes.
        for stripe in 0..4 {
            (0..8).for_each(|n| put(engine, &key(stripe, 20 + n), b"filler"));
        }
    }),
    ("in a run", |engine| engine.flush().unwrap()),
    ("in a merged run", |engine| {
        engine.flush().unwrap();
        (0..STRIPES).for_each(|stripe| engine.trigger_compaction(stripe).unwrap());
    }),
];

#[test]
fn what_was_read_must_not_have_changed() {
    let changes: [Alteration; 3] = [
        ("a put", |engine, key| put(engine, key, b"value")),
        ("a delete", delete),
        // Absent before and after: what is pinned shows that it was there.
        ("a put and a delete", |engine, key| {
            put(engine, key, b"value");
            delete(engine, key);
        }),
    ];
    let mut conflicts = 0;
    for (reading, read, covered) in READS {
        for (moving, moved) in MOVES {
            // A scan meets the fillers.
            if reading == "everything" && moving == "in a sealed memtable" {
                continue;
            }
            for (changing, change) in changes {
                for name in KEYS {
                    let engine = create(config().with_max_memtable_records(8));
                    put(&engine, &row("p", "a"), b"value");
                    put(&engine, &named("q"), b"value");
                    let (snapshot, mut reads) = (engine.snapshot().unwrap(), ReadSet::new());
                    read(&mut reads);
                    change(&engine, &named(name));
                    moved(&engine);
                    let scanned = reading == "everything";
                    let done = !scanned && commits(&engine, &snapshot, &reads);
                    let done = done || (scanned && conflict_free(&engine, &snapshot, &reads));
                    let expected = !covered.contains(&name);
                    assert_eq!(done, expected, "{reading}, {changing} of {name}, {moving}");
                    conflicts += u32::from(!done);
                }
            }
        }
    }
    assert!(conflicts > 200, "{conflicts} conflicts");
}

/// Like [`commits`], without a write of its own before.
fn conflict_free(engine: &LsmEngine, snapshot: &Snapshot, reads: &ReadSet) -> bool {
    let mut batch = WriteBatch::new();
    batch.put(row("result", "of all"), *b"done");
    let before = written(engine);
    match engine.write_if_unchanged(snapshot, reads, &batch, WriteOptions::new()) {
        Ok(_) => true,
        Err(Error::Conflict { attempts: 1 }) => {
            assert_eq!(written(engine), before);
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// Flushes and merges of what was read change nothing, however old the snapshot.
#[test]
fn what_only_moves_has_not_changed() {
    for (reading, read, _) in READS {
        for (moving, moved) in MOVES {
            let engine = create(config().with_max_memtable_records(8));
            KEYS.iter().for_each(|name| put(&engine, &named(name), b"value"));
            if moving == "in a sealed memtable" {
                moved(&engine);
            }
            let (snapshot, mut reads) = (engine.snapshot().unwrap(), ReadSet::new());
            read(&mut reads);
            if moving != "in a sealed memtable" {
                moved(&engine);
            }
            assert!(conflict_free(&engine, &snapshot, &reads), "{reading}, {moving}");
        }
    }
}

/// A transaction that writes what it read conflicts with the second of two such, and with itself run twice.
#[test]
fn the_first_of_two_wins() {
    let engine = create(config());
    let name = key(0, 0);
    put(&engine, &name, b"0");
    let attempt = |snapshot: &Snapshot, value: &[u8]| {
        let (mut reads, mut batch) = (ReadSet::new(), WriteBatch::new());
        reads.get(&name).unwrap();
        batch.put(name.clone(), value);
        engine.write_if_unchanged(snapshot, &reads, &batch, WriteOptions::new())
    };
    let [first, second] = [(); 2].map(|()| engine.snapshot().unwrap());
    attempt(&first, b"1").unwrap();
    for snapshot in [&first, &second] {
        assert!(matches!(attempt(snapshot, b"2"), Err(Error::Conflict { attempts: 1 })));
    }
    assert_eq!(get(&engine, &name), Some(b"1".to_vec()));
    attempt(&engine.snapshot().unwrap(), b"2").unwrap();
    assert_eq!(get(&engine, &name), Some(b"2".to_vec()));
}

/// It has happened at its snapshot, whatever was written since.
#[test]
fn a_transaction_that_writes_nothing_never_conflicts() {
    let engine = create(config());
    let (snapshot, mut reads) = (engine.snapshot().unwrap(), ReadSet::new());
    reads.scan();
    put(&engine, &key(0, 0), b"value");
    let before = written(&engine);
    let seq = engine.write_if_unchanged(&snapshot, &reads, &WriteBatch::new(), WriteOptions::sync());
    assert_eq!((seq.unwrap(), written(&engine)), (snapshot.seq(), before));
}

#[test]
fn more_than_ten_thousand_ranges_count_as_everything() {
    for (count, everything) in [(10_000, false), (10_001, true)] {
        let engine = create(config());
        let (snapshot, mut reads) = (engine.snapshot().unwrap(), ReadSet::new());
        for n in 0..count {
            let sort = format!("{n:05}").into_bytes();
            reads.query(&sort[..2], SortRange::Prefix(sort.clone()));
            // Once more at once, as in a loop: counts once.
            reads.query(&sort[..2], SortRange::Prefix(sort.clone()));
        }
        put(&engine, &row("other", "row"), b"value");
        assert_eq!(conflict_free(&engine, &snapshot, &reads), !everything, "{count} ranges");
        // Each is still checked.
        put(&engine, &row("07", "07123 and more"), b"value");
        assert!(!conflict_free(&engine, &snapshot, &reads), "{count} ranges");
    }
}

/// A conditional write between the snapshot and the commit is a change like any other.
#[test]
fn transactions_and_conditional_writes_see_each_other() {
    let engine = create(config());
    let name = key(0, 0);
    let (snapshot, mut reads) = (engine.snapshot().unwrap(), ReadSet::new());
    reads.get(&name).unwrap();
    let keys = std::slice::from_ref(&name);
    let nothing = |_: &[Option<Slice>], _: &mut Changes| {};
    decide_while(&engine, keys, || (), nothing).unwrap();
    assert!(conflict_free(&engine, &snapshot, &reads), "nothing was written");
    let put_it = |_: &[Option<Slice>], changes: &mut Changes| changes.put(0, b"mine".to_vec());
    decide_while(&engine, keys, || (), put_it).unwrap();
    assert!(!conflict_free(&engine, &snapshot, &reads));

    // The other way round: a transaction commits in the middle of a conditional write.
    let transaction = || {
        let (snapshot, mut batch) = (engine.snapshot().unwrap(), WriteBatch::new());
        batch.put(name.clone(), *b"theirs");
        engine.write_if_unchanged(&snapshot, &ReadSet::new(), &batch, WriteOptions::new()).unwrap();
    };
    let seen = decide_while(&engine, keys, transaction, put_it).unwrap();
    assert_eq!(seen, [[Some(b"mine".to_vec())], [Some(b"theirs".to_vec())]]);
}
