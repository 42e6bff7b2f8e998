//! Conditional writes and transactions, with the other writers' work done at exactly the critical moment: in the middle
//! of the first decision, or between a transaction's check and its locks.

use std::path::Path;
use std::sync::Arc;

use kstone_core::lsm::{LsmEngine, ReadSet, Snapshot, WriteBatch, WriteOptions};
use kstone_core::planted::meanwhile;
use kstone_core::vfs::MemVfs;
use kstone_core::{CompactionConfig, DatabaseConfig, Error, Key, SortRange};
use xxhash_rust::xxh3::xxh3_64;

use crate::model::*;

type Found = Result<u64, String>;
/// What others do meanwhile to an item.
type Others = fn(&LsmEngine, &Key<'_>);

fn create() -> Arc<LsmEngine> {
    let mut options = manual(Arc::new(MemVfs::new()), 1);
    options.config = Some(DatabaseConfig::new().with_stripes(4).with_max_memtable_records(4));
    options.compaction = Some(CompactionConfig::disabled());
    Arc::new(LsmEngine::create(Path::new("db"), options).unwrap())
}

/// An item of a partition in that stripe, different for each `n`.
fn item(stripe: u64, n: usize) -> Key<'static> {
    let in_stripe = |name: &String| xxh3_64(name.as_bytes()) >> 62 == stripe;
    let partition = (0..).map(|i| format!("p{i}")).find(in_stripe).unwrap();
    Key::with_sort(partition.into_bytes(), format!("s{n}").into_bytes())
}

fn put(engine: &LsmEngine, key: &Key<'_>, value: u8) {
    engine.put(key, &[value], WriteOptions::new()).unwrap();
}

fn delete(engine: &LsmEngine, key: &Key<'_>) {
    engine.delete(key, WriteOptions::new()).unwrap();
}

fn number(engine: &LsmEngine, key: &Key<'_>) -> u8 {
    engine.get(key).unwrap().map_or(0, |value| value[0])
}

const OTHERS: [(&str, Others, u8); 6] = [
    ("a put", |engine, key| put(engine, key, 10), 10),
    ("a delete", delete, 0),
    (
        "a put and a seal",
        |engine, key| {
            put(engine, key, 10);
            (10..15).for_each(|n| put(engine, &item(0, n), 0));
        },
        10,
    ),
    (
        "a put and a flush",
        |engine, key| {
            put(engine, key, 10);
            engine.flush().unwrap();
        },
        10,
    ),
    (
        "a delete flushed to nothing",
        |engine, key| {
            delete(engine, key);
            engine.flush().unwrap();
        },
        0,
    ),
    (
        "a delete merged to nothing",
        |engine, key| {
            engine.flush().unwrap();
            delete(engine, key);
            engine.trigger_compaction(0).unwrap();
        },
        0,
    ),
];

/// Additions to a number that others replace after the first decision: of one key, and of two at a time.
pub(super) fn conditional_writes() -> Found {
    for (what, others, replaced) in OTHERS {
        for count in [1, 2] {
            let engine = create();
            let keys = &[item(0, 0), item(1, 0)][..count];
            keys.iter().for_each(|key| put(&engine, key, 1));
            let mut first = true;
            let sum = engine.write_with(keys, WriteOptions::new(), |values, changes| {
                if std::mem::take(&mut first) {
                    others(&engine, &keys[0]);
                }
                let sums = values.iter().map(|value| value.as_ref().map_or(0, |value| value[0]) + 1);
                let sums: Vec<u8> = sums.collect();
                sums.iter().enumerate().for_each(|(at, &sum)| changes.put(at, vec![sum]));
                Ok(sums[0])
            });
            let found = (sum.unwrap(), number(&engine, &keys[0]));
            if found != (replaced + 1, replaced + 1) {
                return Err(format!("{what}, {count} keys: {found:?} after an addition to {replaced}"));
            }
        }
    }
    Ok(2 * OTHERS.len() as u64)
}

/// Transactions that read a key, an absent key, or a range, in a stripe that they do not write to. What others do is
/// done before the transaction commits, or between its check and its locks.
pub(super) fn transactions() -> Found {
    type Read = fn(&mut ReadSet, &Key<'_>);
    let by_key: Read = |reads, key| reads.get(key).unwrap();
    let by_range: Read = |reads, key| {
        let sort = key.sort().unwrap().to_vec();
        reads.query(key.partition(), SortRange::Prefix(sort));
    };
    let mut checked = 0;
    for (reading, exists, read) in [
        ("a key", true, by_key),
        ("an absent key", false, by_key),
        ("a range", true, by_range),
        ("an empty range", false, by_range),
    ] {
        for (what, others, _) in OTHERS {
            for late in [false, true] {
                let engine = create();
                let (key, written) = (item(0, 0), item(1, 0));
                if exists {
                    put(&engine, &key, 1);
                }
                let (snapshot, mut reads) = (engine.snapshot().unwrap(), ReadSet::new());
                read(&mut reads, &key);
                if late {
                    let (engine, key) = (Arc::downgrade(&engine), key.clone());
                    meanwhile(move || {
                        if let Some(engine) = engine.upgrade() {
                            others(&engine, &key);
                        }
                    });
                } else {
                    others(&engine, &key);
                }
                let done = commit(&engine, &snapshot, &reads, &written);
                meanwhile(|| ());
                if done {
                    return Err(format!("{what} is no conflict for {reading}, late: {late}"));
                }
                // Without changes, and with others', it commits.
                let snapshot = engine.snapshot().unwrap();
                put(&engine, &item(0, 20), 1);
                engine.flush().unwrap();
                assert!(commit(&engine, &snapshot, &reads, &written), "{what}, {reading}");
                checked += 2;
            }
        }
    }
    Ok(checked)
}

fn commit(engine: &LsmEngine, snapshot: &Snapshot, reads: &ReadSet, key: &Key<'_>) -> bool {
    let mut batch = WriteBatch::new();
    batch.put(key.clone(), [7]);
    match engine.write_if_unchanged(snapshot, reads, &batch, WriteOptions::new()) {
        Ok(_) => true,
        Err(Error::Conflict { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}
