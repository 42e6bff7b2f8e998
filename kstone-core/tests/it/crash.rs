//! Power cuts: a workload is cut off at a changing I/O operation, what survived is opened, compared with the
//! model, written to, and opened again. The strict file system keeps only what was synced; others keep more. A process
//! that dies leaves everything readable but no more durable than it was: that is opened and cut off once more, too.
//!
//! What must hold: everything durable is there; what is there is a prefix of the commits; a commit is there whole
//! or not at all. `KSTONE_SEED=n` runs one workload alone.

use std::path::Path;
use std::sync::Arc;

use kstone_core::lsm::{LsmEngine, WriteOptions};
use kstone_core::vfs::{CrashMode, OpenMode, StrictVfs, Vfs, read_all, write_all_at};
use kstone_core::{CompactionConfig, DatabaseConfig, Error, Key};

use crate::model::*;

const WORKLOADS: u64 = 60;
/// Workloads that once failed.
///
/// 2099: with the disk dead, a writer over its memory budget waited for flushes that failed again and again, on a clock
/// that stands still: what has just failed is now left alone by calls that wait.
const REGRESSIONS: [u64; 1] = [2099];
const OPS: u64 = 60;
/// Crash points of a workload, spread over its operations by the seed.
const POINTS: u64 = 60;

/// Commits in the order they were tried, and how far they are known to be safe.
#[derive(Default)]
struct History {
    changes: Vec<Change>,
    /// How many of them were acknowledged. Only the one after these can have been applied unacknowledged.
    acknowledged: usize,
    /// How many are durable.
    durable: usize,
}

#[test]
fn every_crash_leaves_a_prefix_with_all_that_was_durable() {
    let only = std::env::var("KSTONE_SEED").ok().map(|seed| seed.parse().expect("KSTONE_SEED is a number"));
    let (mut states, mut inside_recovery) = (0u64, 0u64);
    let seeds = only.map_or_else(|| (0..WORKLOADS).chain(REGRESSIONS).collect(), |seed| vec![seed]);
    for seed in seeds {
        let all = StrictVfs::new();
        run(&all, seed, &mut History::default());
        let total = all.ops();
        let mut rng = Rng(seed ^ 0xc4a5);
        for _ in 0..POINTS {
            let point = 1 + rng.below(total);
            let vfs = StrictVfs::new();
            vfs.stop_after(Some(point));
            let mut history = History::default();
            run(&vfs, seed, &mut history);
            for mode in [
                CrashMode::Strict,
                CrashMode::All,
                CrashMode::Random { seed: rng.next() },
                CrashMode::Random { seed: rng.next() },
            ] {
                let context = format!("crash {mode:?} at operation {point} of {total}, KSTONE_SEED={seed}");
                let image = vfs.crash(mode);
                states += 1;
                inside_recovery += cut_recovery(&image, &history, mode, &mut rng, &context);
                check(&image, &history, mode, &mut rng, &context);
            }
            vfs.stop_after(None);
            let context = format!("process dead at operation {point} of {total}, KSTONE_SEED={seed}");
            check(&vfs, &history, CrashMode::All, &mut rng, &context);
        }
    }
    println!("crash: {states} states, and {inside_recovery} inside recovery");
    if only.is_none() {
        assert!(
            states >= 14_000 && inside_recovery >= 10_000,
            "{states} states, {inside_recovery} inside recovery"
        );
    }
}

/// A workload; every operation goes on after a failure as a program would that ignores errors.
fn run(vfs: &StrictVfs, seed: u64, history: &mut History) {
    let mut rng = Rng(seed);
    // From another source, so that workloads of the same seed do the same with other settings.
    let mut knobs = Rng(seed ^ 0x006b_6e6f_6273);
    let (config, compaction) = any(&mut knobs);
    tiny(&mut rng);
    let mut options = manual(Arc::new(vfs.clone()), seed);
    (options.config, options.compaction) = (Some(config), Some(compaction));
    let Ok(mut engine) = LsmEngine::create(Path::new("db"), options.clone()) else { return };
    for _ in 0..OPS {
        if knobs.below(12) == 0 {
            let (config, compaction) = any(&mut knobs);
            let _ = engine.set_config(config.with_stripes(engine.stripe_count()));
            let _ = engine.set_compaction_config(compaction);
        }
        match rng.below(20) {
            0..11 => {
                let ops = if rng.below(3) == 0 { 1 + rng.below(8) } else { 1 };
                let change = random_change(&mut rng, ops);
                let sync = rng.below(5) == 0;
                let write = if sync { WriteOptions::sync() } else { WriteOptions::buffered() };
                // A write refused before it reached the log is none; one that failed in its sync may be there.
                let result = engine.write(&batch_of(&change), write);
                if matches!(result, Err(Error::DiskFull)) {
                    continue;
                }
                let healthy = history.acknowledged == history.changes.len();
                if healthy {
                    history.changes.push(change);
                }
                if result.is_ok() {
                    assert!(healthy, "a write after a failed one was acknowledged");
                    history.acknowledged = history.changes.len();
                    if sync {
                        history.durable = history.acknowledged;
                    }
                }
            }
            11..15 => {
                engine.step(rng.next());
            }
            15 => {
                if engine.sync().is_ok() {
                    history.durable = history.acknowledged;
                }
            }
            16 => {
                if engine.flush().is_ok() {
                    history.durable = history.acknowledged;
                }
            }
            17 => {
                let stripe = rng.below(engine.stripe_count() as u64) as usize;
                let _ = engine.trigger_compaction(stripe);
            }
            18 => {
                if engine.close().is_ok() {
                    history.durable = history.acknowledged;
                }
                drop(engine);
                match LsmEngine::open(Path::new("db"), manual(Arc::new(vfs.clone()), rng.next())) {
                    Ok(reopened) => engine = reopened,
                    Err(_) => return,
                }
            }
            _ => {
                engine.step(rng.next());
                engine.step(rng.next());
            }
        }
    }
    die(vfs, engine);
}

/// The end of the process: the engine changes nothing any more, and its lock is free.
fn die(vfs: &StrictVfs, engine: LsmEngine) {
    vfs.stop_after(Some(0));
    drop(engine);
}

/// Everything that must happen in a certain order, with nothing left to chance: a log of several segments, flushes
/// in several stripes, checkpoints, a compaction, a clean close, and a reopen. Every write is durable when it returns.
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

/// Every single operation of that script as the last one.
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
        assert!(sst_numbers(&vfs).is_empty(), "what no checkpoint listed is removed");
    }
}

/// A sequence that a write was given is never given to another, also when the first was lost, twice in a row.
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

/// A record behind the place where the log was cut stays dead, also when a record of the same length comes to lie
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

/// Opens what survived and compares it with every prefix that is allowed; returns the engine and its state.
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
            "{} items are no prefix of {} commits with at least {least}, {context}",
            found.len(),
            history.changes.len()
        );
    };
    check_all(&engine, &state, None, context);
    engine.verify().unwrap_or_else(|e| panic!("{e}, {context}"));
    let listed: usize = engine.stats().unwrap().stripes.iter().map(|stripe| stripe.ssts).sum();
    assert_eq!(sst_numbers(image).len(), listed, "SSTs are left over, or gone, {context}");
    Some((engine, state))
}

/// Crashes recovery itself at some of its operations; what is left must open like the image.
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
