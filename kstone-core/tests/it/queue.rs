//! The cost of deleted items for reads: bounded, in entries read, independent of the machine. Default settings and the
//! engine's own threads: flushes and merges may happen at any time.

use std::path::Path;
use std::sync::Arc;

use kstone_core::lsm::{Direction, EngineOptions, Entries, LsmEngine, WriteBatch, WriteOptions};
use kstone_core::vfs::StrictVfs;
use kstone_core::{DatabaseConfig, Key, SortRange};

use crate::model::manual;

/// The number of entries of deleted keys after which a reader records a gap for later readers: each deleted key has a
/// tombstone, and the version that it shadows.
const MOST: u64 = 2 * 64 + 8;

fn db() -> LsmEngine {
    LsmEngine::create(Path::new("db"), EngineOptions::memory()).unwrap()
}

fn key(partition: &str, n: u64) -> Key<'static> {
    Key::with_sort(partition.as_bytes().to_vec(), n.to_be_bytes().to_vec())
}

fn put(engine: &LsmEngine, partition: &str, n: u64) {
    engine.put(&key(partition, n), &[7; 100], WriteOptions::new()).unwrap();
}

fn delete(engine: &LsmEngine, partition: &str, n: u64) {
    engine.delete(&key(partition, n), WriteOptions::new()).unwrap();
}

fn query(engine: &LsmEngine, partition: &str, direction: Direction) -> Entries {
    engine.query(partition.as_bytes(), &SortRange::All, direction, None).unwrap()
}

/// The first item in this direction, and the number of entries passed over.
fn first(engine: &LsmEngine, partition: &str, direction: Direction) -> (Option<u64>, u64) {
    let before = engine.stats().unwrap().operations.entries_passed;
    let found = query(engine, partition, direction).next().transpose().unwrap();
    let passed = engine.stats().unwrap().operations.entries_passed - before;
    (found.map(|(key, _)| u64::from_be_bytes(key.sort().unwrap().try_into().unwrap())), passed)
}

/// Symptom: taking the first item of a queue sometimes took milliseconds. Cause: the query walked over the tombstones
/// of all items taken before, and the versions that they shadow, until a merge happened to drop them. Fix: readers
/// record gaps in which nothing is left.
#[test]
fn taking_the_first_of_a_queue_costs_the_same_however_much_was_taken() {
    for direction in [Direction::Forward, Direction::Reverse] {
        let engine = db();
        let (live, pops) = (500, 6_000);
        // From the middle of the range, so that a queue can grow in both directions.
        let place = |n: u64| if direction == Direction::Forward { n } else { 1_000_000 - n };
        let (mut most, mut all) = (0, 0);
        for n in 0..live + pops {
            put(&engine, "queue", place(n));
            if let Some(expected) = n.checked_sub(live) {
                let (found, passed) = first(&engine, "queue", direction);
                assert_eq!(found, Some(place(expected)));
                most = most.max(passed);
                all += passed;
                delete(&engine, "queue", place(expected));
            }
        }
        println!("{direction:?}: {most} entries at most, {:.1} on average", all as f64 / pops as f64);
        assert!(most <= MOST, "{direction:?}: {most}");
        assert_eq!(query(&engine, "queue", direction).count() as u64, live);
    }
}

/// The newest item is taken first, and others take its place: each put is within a known gap.
#[test]
fn a_stack_finds_what_was_put_where_nothing_was() {
    let engine = db();
    let (mut top, mut reads, mut all) = (0, 0, 0);
    for round in 0..200u64 {
        for _ in 0..40 + round % 7 {
            put(&engine, "stack", top);
            top += 1;
        }
        for _ in 0..38 + round % 5 {
            let (found, passed) = first(&engine, "stack", Direction::Reverse);
            assert_eq!(found, Some(top - 1), "round {round}");
            (reads, all) = (reads + 1, all + passed);
            delete(&engine, "stack", top - 1);
            top -= 1;
        }
    }
    // On average: a key that is put and deleted repeatedly has many versions until they are flushed.
    println!("{} entries on average", all / reads);
    assert!(all / reads <= MOST);
    assert_eq!(query(&engine, "stack", Direction::Forward).count() as u64, top);
}

/// Symptom: the first read after half of a partition was deleted walked over all of it. Cause: as above, and there had
/// been no read yet. Fix: background work looks for gaps where many keys were deleted, and so does a writer that
/// deletes faster than that.
#[test]
fn the_first_item_behind_a_deleted_half_is_found_at_once() {
    for (order, what) in [(0, "ascending"), (1, "descending"), (2, "from both ends"), (3, "in batches")] {
        let engine = db();
        let items = 10_000;
        for n in 0..items {
            put(&engine, "p", n);
        }
        let last = items / 2 - 1;
        let mut batch = WriteBatch::new();
        for n in 0..items / 2 {
            match order {
                0 => delete(&engine, "p", n),
                1 => delete(&engine, "p", last - n),
                2 if n % 2 == 0 => delete(&engine, "p", n / 2),
                2 => delete(&engine, "p", last - n / 2),
                _ => {
                    batch.delete(key("p", n));
                    if batch.len() == 100 {
                        engine.write(&std::mem::take(&mut batch), WriteOptions::new()).unwrap();
                    }
                }
            }
        }
        let (found, passed) = first(&engine, "p", Direction::Forward);
        println!("{what}: {passed} entries");
        assert_eq!(found, Some(items / 2), "{what}");
        // The entries that may be deleted before the writer looks for gaps, with the versions that they shadow, plus
        // those that background work is still processing.
        assert!(passed <= 2 * (128 + 256) + MOST, "{what}: {passed}");
    }
}

/// A walk over several gaps finds everything between them, in both directions and at each moment.
#[test]
fn walks_over_gaps_find_what_is_between_them() {
    let engine = db();
    for n in 0..3_000 {
        put(&engine, "p", n);
    }
    let before = engine.snapshot().unwrap();
    let gone = |n: u64| n % 500 > 3 && n % 500 < 300;
    (0..3_000).filter(|&n| gone(n)).for_each(|n| delete(&engine, "p", n));
    let numbers = |entries: Entries| -> Vec<u64> {
        entries.map(|row| u64::from_be_bytes(row.unwrap().0.sort().unwrap().try_into().unwrap())).collect()
    };
    let expected: Vec<u64> = (0..3_000).filter(|&n| !gone(n)).collect();
    let mut reversed = expected.clone();
    reversed.reverse();
    for round in 0..5 {
        assert_eq!(numbers(query(&engine, "p", Direction::Forward)), expected, "{round}");
        assert_eq!(numbers(query(&engine, "p", Direction::Reverse)), reversed, "{round}");
        let old = engine.query(b"p", &SortRange::All, Direction::Forward, Some(&before)).unwrap();
        assert_eq!(numbers(old).len(), 3_000, "{round}: contents of the snapshot");
        let explained = engine.explain_query(b"p", &SortRange::All).unwrap();
        assert_eq!(explained.rows, expected.len() as u64, "{round}");
    }
    // An item reappears in the middle of each gap.
    for n in (0..3_000).filter(|n| n % 500 == 150) {
        put(&engine, "p", n);
    }
    let mut expected = expected;
    expected.extend((0..3_000).filter(|n| n % 500 == 150));
    expected.sort_unstable();
    assert_eq!(numbers(query(&engine, "p", Direction::Forward)), expected);
}

/// If readers pass over so much that a merge would have been cheaper, the stripe is merged, even below the usual share
/// of tombstones.
#[test]
fn a_stripe_whose_readers_pay_is_merged() {
    let mut options = manual(Arc::new(StrictVfs::new()), 1);
    options.config = Some(DatabaseConfig::new().with_stripes(1));
    let engine = LsmEngine::create(Path::new("db"), options).unwrap();
    for n in 0..2_000 {
        put(&engine, "p", n);
    }
    engine.flush().unwrap();
    // Every twentieth item: no gap is worth recording.
    (0..2_000).filter(|n| n % 20 == 0).for_each(|n| delete(&engine, "p", n));
    engine.flush().unwrap();
    while engine.step(0) {}
    let tombstones = || engine.stats().unwrap().stripes[0].tombstones;
    assert_eq!(tombstones(), 100);
    let mut walks = 0;
    while tombstones() > 0 {
        assert_eq!(query(&engine, "p", Direction::Forward).count(), 1_900);
        while engine.step(0) {}
        walks += 1;
        assert!(walks <= 100, "the stripe is never merged");
    }
    println!("merged after {walks} walks");
    let entries = 2_100 * 8;
    assert_eq!(walks, entries / 200, "200 entries are passed over in each");
}
