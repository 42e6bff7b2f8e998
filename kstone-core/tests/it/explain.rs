//! The account of a read matches the read: in random states, with filters that often err, and with damage.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kstone_core::clock::ManualClock;
use kstone_core::lsm::{Direction, EngineOptions, Explain, LsmEngine, Snapshot, Verdict, WriteOptions};
use kstone_core::vfs::{MemVfs, OpenMode, Vfs};
use kstone_core::{CompactionConfig, DatabaseConfig, Error, Key, SortRange};

use crate::model::{Rng, batch_of, manual, random_change, random_key, tiny};

fn options(config: DatabaseConfig) -> EngineOptions {
    let mut options = manual(Arc::new(MemVfs::new()), 1);
    (options.config, options.compaction) = (Some(config), Some(CompactionConfig::disabled()));
    options
}

fn engine(config: DatabaseConfig) -> LsmEngine {
    LsmEngine::create(Path::new("db"), options(config.with_stripes(1))).unwrap()
}

fn put(engine: &LsmEngine, keys: std::ops::Range<usize>) {
    for n in keys {
        engine.put(&Key::from(format!("k{n:05}").as_str()), b"value", WriteOptions::new()).unwrap();
    }
}

/// Invariants of every account of a get.
fn check(engine: &LsmEngine, key: &Key<'_>, snapshot: Option<&Snapshot>) -> Explain {
    let explain = match snapshot {
        Some(snapshot) => engine.explain_get_at(key, snapshot).unwrap(),
        None => engine.explain_get(key).unwrap(),
    };
    let got = match snapshot {
        Some(snapshot) => engine.get_at(key, snapshot).unwrap(),
        None => engine.get(key).unwrap(),
    };
    assert_eq!(explain.value_bytes, got.map(|value| value.len()), "{explain}");
    assert_eq!(explain.error, None);
    // The search stops at the memtable or run that has the key, and everything before it was searched without success.
    let in_memtable = explain.memtables.iter().position(|memtable| memtable.found);
    assert!(in_memtable.is_none_or(|at| at + 1 == explain.memtables.len()), "{explain}");
    let found = explain.runs.iter().position(|run| matches!(run.verdict, Verdict::Found { .. }));
    for (n, run) in explain.runs.iter().enumerate() {
        let behind = in_memtable.is_some() || found.is_some_and(|found| n > found);
        assert_eq!(run.verdict == Verdict::NotOpened, behind, "{explain}");
        let read = matches!(run.verdict, Verdict::Found { .. } | Verdict::FalsePositive | Verdict::OnlyNewer);
        assert_eq!(!run.blocks.is_empty(), read, "{explain}");
        assert!(!matches!(run.verdict, Verdict::Found { .. }) || run.in_range, "{explain}");
        let asked = run.filter_bits.is_some();
        assert_eq!(asked, !matches!(run.verdict, Verdict::NotOpened | Verdict::BetweenFiles), "{explain}");
    }
    assert_eq!(explain.found_seq.is_some(), in_memtable.is_some() || found.is_some(), "{explain}");
    assert!(explain.older_versions.iter().all(|older| Some(older.seq) < explain.found_seq), "{explain}");
    assert_eq!(explain.deleted, explain.found_seq.is_some() && explain.value_bytes.is_none());
    assert!(explain.wasted_block_reads <= explain.block_reads && explain.filter_tests <= explain.runs.len());
    explain
}

#[test]
fn the_account_is_that_of_the_get_in_thousands_of_states() {
    let (mut checked, mut found_in_runs, mut false_positives, mut only_newer, mut between) = (0, 0, 0, 0, 0);
    for seed in 0..40 {
        let mut rng = Rng(seed);
        let (config, compaction) = tiny(&mut rng);
        let mut options = manual(Arc::new(MemVfs::new()), seed);
        (options.config, options.compaction) = (Some(config), Some(compaction));
        let engine = LsmEngine::create(Path::new("db"), options).unwrap();
        let mut snapshot = None;
        for round in 0..60 {
            let change = random_change(&mut rng, 6);
            engine.write(&batch_of(&change), WriteOptions::new()).unwrap();
            for _ in 0..rng.below(12) {
                engine.step(rng.next());
            }
            if round % 20 == 5 {
                snapshot = Some(engine.snapshot().unwrap());
            }
            let key = random_key(&mut rng);
            for snapshot in [None, snapshot.as_ref()] {
                let explain = check(&engine, &key, snapshot);
                checked += 1;
                false_positives += explain.false_positives;
                found_in_runs += usize::from(explain.found_seq.is_some() && explain.block_reads > 0);
                let count =
                    |verdict: Verdict| explain.runs.iter().filter(|run| run.verdict == verdict).count();
                only_newer += count(Verdict::OnlyNewer);
                between += count(Verdict::BetweenFiles);
            }
            let partition = key.partition().to_vec();
            let explain = engine.explain_query(&partition, &SortRange::All).unwrap();
            let rows = engine.query(&partition, &SortRange::All, Direction::Forward, None).unwrap().count();
            assert_eq!((explain.rows, &explain.error), (rows as u64, &None), "{explain}");
            assert_eq!(explain.rows + explain.tombstones + explain.shadowed, explain.entries, "{explain}");
        }
    }
    println!(
        "{checked} gets, {found_in_runs} found in runs, {false_positives} false positives, {only_newer} only newer, {between} between files"
    );
    assert!(checked == 4800 && found_in_runs > 500 && false_positives > 50 && only_newer > 5);
}

#[test]
fn every_step_of_a_get_is_shown_with_its_cost() {
    let clock = Arc::new(ManualClock::new(1));
    let mut options = options(DatabaseConfig::new().with_stripes(1).with_bloom_bits_per_key(20));
    options.clock = Arc::clone(&clock) as _;
    let engine = LsmEngine::create(Path::new("db"), options).unwrap();
    for run in 0..3 {
        put(&engine, run * 100..(run + 1) * 100 + 1);
        engine.flush().unwrap();
        clock.advance(Duration::from_secs(100));
    }
    let text = |key: &str| check(&engine, &Key::from(key), None).to_string();
    // The oldest run has the key, two newer ones do not.
    let old = check(&engine, &Key::from("k00050"), None);
    let verdicts: Vec<_> = old.runs.iter().map(|run| run.verdict.clone()).collect();
    assert_eq!(verdicts, [Verdict::FilterNo, Verdict::FilterNo, Verdict::Found { seq: 51 }]);
    assert_eq!((old.filter_tests, old.block_reads, old.wasted_block_reads), (3, 1, 0));
    assert!(!old.runs[0].in_range && old.runs[2].in_range && old.runs[2].age_ms == 300_000);
    let block = old.runs[2].blocks[0];
    assert!(block.offset >= 128 && old.block_bytes == block.bytes && block.bytes > 500, "{block:?}");
    // Two runs have this key: the older is not opened.
    let both = check(&engine, &Key::from("k00100"), None);
    assert_eq!(both.runs[2].verdict, Verdict::NotOpened);
    assert_eq!((both.older_versions.len(), both.older_versions[0].seq), (1, 101));
    assert_eq!(both.older_versions[0].file, both.runs[2].file);

    let shown = text("k00100");
    for part in [
        "get \"k00100\"",
        "stripe 000",
        "FOUND  seq 102",
        "1 older run not opened",
        "older versions of this key: 1",
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    put(&engine, 50..51);
    let shown = text("k00050");
    assert!(shown.contains("1  memtable (from wal-") && shown.contains("1 record   FOUND"), "{shown}");
    assert!(
        shown.contains("cost: 3 runs in the stripe, 0 looked at, 0 filter tests, 0 block reads"),
        "{shown}"
    );
    assert!(text("nope").contains("result: no such key"));
    engine.delete(&Key::from("k00050"), WriteOptions::new()).unwrap();
    assert!(text("k00050").contains("result: deleted"));

    let missing = check(&engine, &Key::from("nope"), None).missing;
    assert!(missing.filter_tests == 3.0 && missing.false_positives < 0.001, "{missing:?}");
    let odd = engine.explain_get(&Key::with_sort(b"a\0b".to_vec(), b"\xff".to_vec())).unwrap();
    assert_eq!((odd.key.as_str(), odd.sort.as_deref()), ("a\\x00b", Some("\\xff")));
}

#[test]
fn poor_filters_err_as_often_as_they_are_expected_to() {
    let engine = engine(DatabaseConfig::new().with_bloom_bits_per_key(1).with_max_memtable_records(100_000));
    // All runs cover the same range of keys, so that key ranges exclude nothing.
    for run in 0..4 {
        (0..1000).for_each(|n| put(&engine, 4 * n + run..4 * n + run + 1));
        engine.flush().unwrap();
    }
    let (mut passed, mut wasted, mut expected) = (0, 0, None);
    for n in 0..3000 {
        let explain = check(&engine, &Key::from(format!("k{n:05}x").as_str()), None);
        passed += explain.false_positives;
        wasted += explain.wasted_block_reads;
        expected = Some(explain.missing);
    }
    let expected = expected.unwrap();
    let (passed, wasted) = (passed as f64 / 3000.0, wasted as f64 / 3000.0);
    println!("{passed:.3} passed and {wasted:.4} blocks wasted a get, expected {expected:?}");
    assert!((passed / expected.false_positives - 1.0).abs() < 0.1);
    assert!((wasted / expected.block_reads - 1.0).abs() < 0.3);
}

#[test]
fn damage_is_a_step() {
    let vfs = Arc::new(MemVfs::new());
    let mut options = manual(Arc::clone(&vfs) as _, 1);
    options.config = Some(DatabaseConfig::new().with_stripes(1));
    let engine = LsmEngine::create(Path::new("db"), options.clone()).unwrap();
    put(&engine, 0..10);
    engine.flush().unwrap();
    put(&engine, 100..110);
    engine.close().unwrap();
    let name =
        vfs.list(Path::new("db")).unwrap().into_iter().find(|entry| entry.name.ends_with(".sst")).unwrap();
    // A byte of the first block, after the file's header.
    let file = vfs.open(&Path::new("db").join(&name.name), OpenMode::Write).unwrap();
    file.write_at(&[0xaa; 8], 140).unwrap();

    let engine = LsmEngine::open(Path::new("db"), options).unwrap();
    let key = Key::from("k00005");
    let error = engine.get(&key).unwrap_err();
    assert!(matches!(error, Error::Corruption { .. }));
    let explain = engine.explain_get(&key).unwrap();
    assert_eq!(explain.error, Some(error.to_string()));
    let Verdict::Failed { error: step } = &explain.runs[0].verdict else { panic!("{explain}") };
    assert_eq!(*step, error.to_string());
    assert!(explain.to_string().contains("FAILED"), "{explain}");
    let query = engine.explain_query(b"k00005", &SortRange::All).unwrap();
    assert!(query.error.is_some() && query.to_string().contains("FAILED"), "{query}");
    // Items in memory are still found.
    assert_eq!(check(&engine, &Key::from("k00105"), None).value_bytes, Some(5));
}

#[test]
fn a_query_says_what_it_read_for_what_it_returned() {
    let engine = engine(DatabaseConfig::new().with_max_memtable_records(100_000).with_block_size(256));
    let key = |n: usize| Key::with_sort(b"p".to_vec(), format!("{n:04}").into_bytes());
    let write = |keys: std::ops::Range<usize>| {
        for n in keys {
            engine.put(&key(n), b"value", WriteOptions::new()).unwrap();
        }
    };
    write(0..200);
    engine.flush().unwrap();
    write(100..150);
    engine.flush().unwrap();
    for n in 0..10 {
        engine.delete(&key(n), WriteOptions::new()).unwrap();
    }
    let all = engine.explain_query(b"p", &SortRange::All).unwrap();
    assert_eq!((all.rows, all.entries, all.tombstones, all.shadowed), (190, 260, 10, 60), "{all}");
    let entries: Vec<_> = all.sources.iter().map(|source| source.entries).collect();
    assert_eq!(entries, [10, 50, 200], "memtable, newer run, older run");
    assert!(all.blocks > 10 && all.sources[0].blocks == 0 && all.block_bytes > 2000, "{all}");
    assert!((all.cost_per_row().0 - 260.0 / 190.0).abs() < 1e-9);

    let few = engine.explain_query(b"p", &SortRange::Prefix(b"000".to_vec())).unwrap();
    assert_eq!((few.rows, few.tombstones, few.sources[1].in_range), (0, 10, false), "{few}");
    assert!(few.blocks <= 2 && few.cost_per_row() == (0.0, 0.0), "{few}");
    let shown = few.to_string();
    for part in ["query \"p\"", "out of range", "result: 0 items of 20 records read"] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    let nothing = engine.explain_query(b"q", &SortRange::All).unwrap();
    assert_eq!((nothing.rows, nothing.entries, nothing.blocks), (0, 0, 0), "{nothing}");
}
