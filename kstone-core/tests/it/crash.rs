//! Power cuts: a workload is cut off at a varying I/O operation; the surviving files are opened, compared with the
//! model, written to, and opened again. The strict file system keeps only synced data; other modes keep more. If only
//! the process dies, everything remains readable but is no more durable than before: this state is opened and cut off
//! once more, too.
//!
//! Invariants: everything durable is there; the contents are a prefix of the commits; a commit is there as a whole or
//! not at all. `KSTONE_SEED=n` runs only one workload.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kstone_core::lsm::{EngineOptions, LsmEngine, WriteOptions};
use kstone_core::planted::{Bug, plant};
use kstone_core::torture::{Explorer, Totals};
use kstone_core::vfs::{CrashMode, OpenMode, StrictVfs, Vfs, read_all, write_all_at};
use kstone_core::{CompactionConfig, DatabaseConfig, Error, Key};

use crate::model::*;

/// Commits in the order in which they were attempted, and how many are known to be safe.
#[derive(Default)]
struct History {
    changes: Vec<Change>,
    /// How many of them were acknowledged. Only the next one may have been applied without being acknowledged.
    acknowledged: usize,
    /// How many are durable.
    durable: usize,
}

/// Workloads in continuous integration; `KSTONE_SEED=n` runs only one.
const WORKLOADS: u64 = 200;
const OPS: u64 = 45;
/// Seeds of workloads that once failed.
const REGRESSIONS: [u64; 0] = [];

#[test]
fn every_crash_leaves_a_prefix_with_all_that_was_durable() {
    let only = only_seed();
    let seeds = only.map_or_else(|| (0..WORKLOADS).chain(REGRESSIONS).collect(), |seed| vec![seed]);
    let next = AtomicUsize::new(0);
    let explore = || {
        let mut totals = Totals::default();
        while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut explorer = Explorer::new(seed);
            explorer.operations = OPS;
            explorer.command = format!("cargo run -p kstone-bench -- torture --operations {OPS} --replay");
            totals.add(&explorer.run().unwrap_or_else(|failure| panic!("{failure}")));
        }
        totals
    };
    let mut totals = Totals::default();
    std::thread::scope(|scope| {
        let threads = [scope.spawn(explore), scope.spawn(explore)];
        threads.into_iter().for_each(|thread| totals.add(&thread.join().unwrap()));
    });
    println!("crash: {totals}");
    if only.is_none() {
        assert!(totals.workloads >= 200 && totals.all_states() >= 120_000, "{totals}");
        assert!(totals.all_in_recovery() >= 20_000 && totals.in_recovery.len() >= 3, "{totals}");
        assert!(totals.conditional > 1_000 && totals.unmet > 100, "{totals}");
        let kinds = CrashMode::KINDS as usize;
        assert!(totals.states.len() == kinds && totals.states.values().all(|&n| n > 2_000), "{totals}");
    }
}

/// With worker threads, a checkpoint syncs several SSTs at the same time. The explorer, with its single thread, does not.
#[test]
fn ssts_that_several_threads_sync_survive() {
    let vfs = StrictVfs::new();
    let engine = LsmEngine::create(Path::new("db"), EngineOptions::on(Arc::new(vfs.clone()))).unwrap();
    let keys: Vec<Key<'_>> = (0..500).map(|n| Key::from(&format!("key{n}")).into_owned()).collect();
    for key in &keys {
        engine.put(key, b"value", WriteOptions::new()).unwrap();
    }
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(engine);
    let vfs = vfs.crash(CrashMode::Strict);
    let engine = LsmEngine::open(Path::new("db"), EngineOptions::on(Arc::new(vfs))).unwrap();
    assert!(engine.stats().unwrap().stripes.iter().map(|stripe| stripe.runs).sum::<usize>() > 100);
    for key in &keys {
        assert!(engine.get(key).unwrap().is_some(), "{key:?}");
    }
    engine.verify().unwrap();
    engine.close().unwrap();
}

/// The process dies: the engine changes nothing any more, and its lock is released.
fn die(vfs: &StrictVfs, engine: LsmEngine) {
    vfs.stop_after(Some(0));
    drop(engine);
}

/// A deterministic script of everything that must happen in a certain order: a log of several segments, flushes in
/// several stripes, checkpoints, a compaction, a clean close, and a reopen. Every write is durable when it returns.
fn run_script(vfs: &StrictVfs, history: &mut History) {
    let mut options = manual(Arc::new(vfs.clone()), 1);
    let config = DatabaseConfig::new().with_stripes(2).with_max_memtable_records(1000);
    options.config = Some(config.with_wal_segment_size(16 << 10));
    options.compaction = Some(CompactionConfig::disabled());
    let Ok(mut engine) = LsmEngine::create(Path::new("db"), options) else { return };
    let mut alive = true;
    for round in 0..3u8 {
        for n in 0..20 {
            let change: Change = vec![
                (Key::from(&format!("a{n}")).into_owned(), Some(vec![round; 1200])),
                (Key::from(&format!("b{n}")).into_owned(), (round != 1).then(|| vec![round])),
            ];
            let result = engine.write(&batch_of(&change), WriteOptions::sync());
            if alive {
                history.changes.push(change);
            }
            alive &= result.is_ok();
            if alive {
                history.acknowledged = history.changes.len();
                history.durable = history.acknowledged;
            }
        }
        let _ = engine.flush();
        if round == 1 {
            (0..2).for_each(|stripe| drop(engine.trigger_compaction(stripe)));
            let _ = engine.close();
            drop(engine);
            match LsmEngine::open(Path::new("db"), manual(Arc::new(vfs.clone()), 2)) {
                Ok(reopened) => engine = reopened,
                Err(_) => return,
            }
        }
    }
    die(vfs, engine);
}

/// Each operation of the script in turn is the last one.
#[test]
fn every_operation_of_a_checkpoint_a_compaction_and_a_close_can_be_the_last() {
    let all = StrictVfs::new();
    run_script(&all, &mut History::default());
    let total = all.ops();
    assert!(total > 100, "{total} operations");
    let mut rng = Rng(5);
    for point in 1..total {
        let vfs = StrictVfs::new();
        vfs.stop_after(Some(point));
        let mut history = History::default();
        run_script(&vfs, &mut history);
        for mode in [CrashMode::Strict, CrashMode::All, CrashMode::Random { seed: rng.next() }] {
            let context = format!("crash {mode:?} at operation {point} of {total} of the script");
            let image = vfs.crash(mode);
            cut_recovery(&image, &history, mode, &mut rng, &context);
            check(&image, &history, mode, &mut rng, &context);
        }
    }
}

/// The numbers of the SSTs in the directory.
fn sst_numbers(vfs: &dyn Vfs) -> Vec<u64> {
    let names = vfs.list(Path::new("db")).unwrap().into_iter().map(|entry| entry.name);
    let number = |name: String| name.strip_suffix(".sst")?.split_once('-')?.1.parse().ok();
    names.filter_map(number).collect()
}

#[test]
fn numbers_of_lost_files_are_not_used_again() {
    let mut vfs = StrictVfs::new();
    let mut options = manual(Arc::new(vfs.clone()), 1);
    options.config = Some(DatabaseConfig::new().with_stripes(1).with_max_memtable_records(5));
    let mut engine = LsmEngine::create(Path::new("db"), options).unwrap();
    let mut used = Vec::new();
    for round in 0..4 {
        for n in 0..5 {
            engine.put(&Key::from(&format!("key{n}")), &[round; 10], WriteOptions::sync()).unwrap();
        }
        while sst_numbers(&vfs).is_empty() {
            assert!(engine.step(u64::MAX), "nothing is flushed");
        }
        let numbers = sst_numbers(&vfs);
        assert!(numbers.iter().all(|number| !used.contains(number)), "{numbers:?} after {used:?}");
        used.extend(numbers);
        die(&vfs, engine);
        vfs = vfs.crash(CrashMode::All);
        engine = LsmEngine::open(Path::new("db"), manual(Arc::new(vfs.clone()), 2)).unwrap();
        assert!(sst_numbers(&vfs).is_empty(), "SSTs not listed by a checkpoint are removed");
    }
}

/// The sequence number of a write is never reused, even if the write was lost, twice in a row.
#[test]
fn sequences_of_lost_writes_are_not_used_again() {
    let mut vfs = StrictVfs::new();
    let mut engine = LsmEngine::create(Path::new("db"), manual(Arc::new(vfs.clone()), 1)).unwrap();
    let mut last = 0;
    for _ in 0..4 {
        for _ in 0..3 {
            let seq = engine.put(&Key::from("key"), b"lost", WriteOptions::buffered()).unwrap();
            assert!(seq > last, "{seq} after {last}");
            last = seq;
        }
        die(&vfs, engine);
        vfs = vfs.crash(CrashMode::Strict);
        engine = LsmEngine::open(Path::new("db"), manual(Arc::new(vfs.clone()), 2)).unwrap();
        assert_eq!(contents(&engine, None), []);
    }
}

/// A record after the point where the log was cut stays dead, even if a record of the same length is later written
/// right before it, after any number of closes and opens.
#[test]
fn what_was_cut_off_stays_dead() {
    let key = |name: &str| Key::from(name).into_owned();
    for closes in 0..3 {
        let vfs = StrictVfs::new();
        let engine = LsmEngine::create(Path::new("db"), manual(Arc::new(vfs.clone()), 1)).unwrap();
        engine.put(&key("a"), &[b'A'; 100], WriteOptions::sync()).unwrap();
        engine.put(&key("b"), &[b'B'; 100], WriteOptions::buffered()).unwrap();
        engine.put(&key("c"), &[b'C'; 100], WriteOptions::buffered()).unwrap();
        die(&vfs, engine);
        let vfs = vfs.crash(CrashMode::All);
        let log = vfs.open(Path::new("db/wal-000001.log"), OpenMode::Write).unwrap();
        let bytes = read_all(&*log, 1 << 20).unwrap();
        let at = bytes.windows(100).position(|window| window == [b'B'; 100]).unwrap();
        write_all_at(&*log, b"torn", at as u64 + 50).unwrap();
        for _ in 0..closes {
            let engine = LsmEngine::open(Path::new("db"), manual(Arc::new(vfs.clone()), 2)).unwrap();
            assert_eq!(contents(&engine, None).len(), 1);
            engine.close().unwrap();
        }
        let engine = LsmEngine::open(Path::new("db"), manual(Arc::new(vfs.clone()), 3)).unwrap();
        engine.put(&key("d"), &[b'D'; 100], WriteOptions::buffered()).unwrap();
        die(&vfs, engine);
        for mode in [CrashMode::Strict, CrashMode::All] {
            let image = Arc::new(vfs.crash(mode));
            let engine = LsmEngine::open(Path::new("db"), manual(image, 4)).unwrap();
            let keys: Vec<_> = contents(&engine, None).into_iter().map(|(key, _)| key).collect();
            match mode {
                CrashMode::Strict => assert_eq!(keys, [key("a")], "{closes} closes"),
                _ => assert_eq!(keys, [key("a"), key("d")], "{closes} closes"),
            }
        }
    }
}

/// Opens the surviving files and compares them with every allowed prefix; returns the engine and its state.
fn open(image: &StrictVfs, history: &History, mode: CrashMode, context: &str) -> Option<(LsmEngine, State)> {
    let engine = match LsmEngine::open(Path::new("db"), manual(Arc::new(image.clone()), 7)) {
        Ok(engine) => engine,
        Err(error) if matches!(error.code(), "not_found" | "not_a_database") => {
            assert_eq!(history.durable, 0, "{error}, {context}");
            assert!(history.acknowledged == 0 || !matches!(mode, CrashMode::All), "{error}, {context}");
            return None;
        }
        Err(error) => panic!("{error}, {context}"),
    };
    let found = contents(&engine, None);
    let least = if matches!(mode, CrashMode::All) { history.acknowledged } else { history.durable };
    let mut state = State::new();
    let mut matching = None;
    for (count, change) in std::iter::once(None).chain(history.changes.iter().map(Some)).enumerate() {
        if let Some(change) = change {
            apply(&mut state, change);
        }
        if count >= least && entries(&state) == found {
            matching = Some(state.clone());
        }
    }
    let Some(state) = matching else {
        panic!(
            "{} items are not a prefix of {} commits with at least {least}, {context}",
            found.len(),
            history.changes.len()
        );
    };
    check_all(&engine, &state, None, context);
    engine.verify().unwrap_or_else(|e| panic!("{e}, {context}"));
    let listed: usize = engine.stats().unwrap().stripes.iter().map(|stripe| stripe.ssts).sum();
    assert_eq!(sst_numbers(image).len(), listed, "SSTs are left over or missing, {context}");
    Some((engine, state))
}

/// Crashes recovery itself at some of its operations; the remains must open to the same state as the image.
fn cut_recovery(image: &StrictVfs, history: &History, mode: CrashMode, rng: &mut Rng, context: &str) -> u64 {
    let again = image.crash(CrashMode::All);
    let before = again.ops();
    drop(open(&again, history, mode, context));
    let total = again.ops() - before;
    if total == 0 {
        return 0;
    }
    let point = rng.below(total);
    let copy = image.crash(CrashMode::All);
    copy.stop_after(Some(copy.ops() + point));
    if let Ok(engine) = LsmEngine::open(Path::new("db"), manual(Arc::new(copy.clone()), 9)) {
        std::mem::forget(engine);
    }
    let second = CrashMode::Random { seed: rng.next() };
    let image = copy.crash(second);
    drop(open(
        &image,
        history,
        mode,
        &format!("then {second:?} at operation {point} of {total} of recovery, {context}"),
    ));
    1
}

/// Recovers, writes more, reopens, compares.
fn check(image: &StrictVfs, history: &History, mode: CrashMode, rng: &mut Rng, context: &str) {
    let Some((engine, mut state)) = open(image, history, mode, context) else { return };
    for _ in 0..10 {
        let ops = 1 + rng.below(3);
        let change = random_change(rng, ops);
        match engine.write(&batch_of(&change), WriteOptions::new()) {
            Ok(_) => apply(&mut state, &change),
            Err(Error::DiskFull) => assert!(engine.config().max_total_disk_bytes.is_some(), "{context}"),
            Err(error) => panic!("{error}, {context}"),
        }
        engine.step(rng.next());
    }
    check_all(&engine, &state, None, context);
    if rng.below(2) == 0 {
        engine.close().unwrap_or_else(|e| panic!("{e}, {context}"));
        drop(engine);
    } else {
        engine.sync().unwrap_or_else(|e| panic!("{e}, {context}"));
        std::mem::forget(engine);
    }
    let image = image.crash(CrashMode::Strict);
    let engine = LsmEngine::open(Path::new("db"), manual(Arc::new(image), 8))
        .unwrap_or_else(|e| panic!("{e}, {context}"));
    check_all(&engine, &state, None, context);
}

#[test]
fn a_failure_is_found_again_by_what_it_says() {
    let explorer = |seed| Explorer::new(seed);
    let planted = plant(Bug::EditNotSynced);
    for seed in 0..5 {
        let failure = explorer(seed).run().unwrap_err();
        let (_, mode) = failure.crashes[0];
        let context = failure.to_string();
        assert!(
            failure.replay.ends_with(&format!("{seed}:{}:{}", failure.operation, mode.kind())),
            "{context}"
        );
        // The same failure again, in a full run and on its own.
        assert_eq!(explorer(seed).run().unwrap_err(), failure);
        let mut alone = explorer(seed);
        (alone.only_operation, alone.only_kind) = (Some(failure.operation), Some(mode.kind().to_owned()));
        assert_eq!(alone.run().unwrap_err(), failure);
        // At other operations there is no failure.
        alone.only_operation = Some(10_000);
        alone.run().unwrap();
    }
    assert!(planted.hits() > 0);
    drop(planted);
    (0..2).for_each(|seed| drop(explorer(seed).run().unwrap()));
}
