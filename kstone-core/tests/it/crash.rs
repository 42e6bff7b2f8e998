//! Power cuts: a workload is cut off at a changing I/O operation, what survived is opened, compared with the
//! model, written to, and opened again. The strict file system keeps only what was synced; others keep more.
//!
//! What must hold: everything durable is there; what is there is a prefix of the commits; a commit is there whole
//! or not at all. `KSTONE_SEED=n` runs one workload alone.

use std::path::Path;
use std::sync::Arc;

use kstone_core::lsm::{LsmEngine, WriteOptions};
use kstone_core::vfs::{CrashMode, StrictVfs};

use crate::model::*;

const WORKLOADS: u64 = 24;
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
    for seed in only.map_or(0..WORKLOADS, |seed| seed..seed + 1) {
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
        }
    }
    println!("crash: {states} states, and {inside_recovery} inside recovery");
    if only.is_none() {
        assert!(
            states >= 5_000 && inside_recovery >= 1_000,
            "{states} states, {inside_recovery} inside recovery"
        );
    }
}

/// A workload; every operation goes on after a failure as a program would that ignores errors.
fn run(vfs: &StrictVfs, seed: u64, history: &mut History) {
    let mut rng = Rng(seed);
    let (config, compaction) = tiny(&mut rng);
    let mut options = manual(Arc::new(vfs.clone()), seed);
    (options.config, options.compaction) = (Some(config), Some(compaction));
    let Ok(mut engine) = LsmEngine::create(Path::new("db"), options.clone()) else { return };
    for _ in 0..OPS {
        match rng.below(20) {
            0..11 => {
                let ops = if rng.below(3) == 0 { 1 + rng.below(8) } else { 1 };
                let change = random_change(&mut rng, ops);
                let sync = rng.below(5) == 0;
                let write = if sync { WriteOptions::sync() } else { WriteOptions::buffered() };
                // A write refused before it reached the log is none; one that failed in its sync may be there.
                let result = engine.write(&batch_of(&change), write);
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
    // Not closed: the crash comes while it is open. Its locks do not survive in the image.
    std::mem::forget(engine);
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
        engine.write(&batch_of(&change), WriteOptions::new()).unwrap_or_else(|e| panic!("{e}, {context}"));
        apply(&mut state, &change);
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
