//! Tests the tests: each bug of `kstone_core::planted` must make a suite fail, and without a bug, the same rounds of
//! the same suites must find nothing.
//!
//! A suite here is a sequence of rounds, each with a seed; a round returns what it found. For each bug the suites take
//! turns, the likeliest first, until one finds it. The printed table shows which suite that was, and after how many
//! states: crash images, runs with a fault, operations of the oracle, damaged files.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use kstone_core::planted::{Bug, plant};
use kstone_core::torture::{Explorer, FaultRuns, Oracle, SettingsOf, Watchdog};
use parking_lot::Mutex;

mod conditional;
mod damage;
mod failures;
mod races;

/// The number of states that a round checked, or the fault that it found.
type Found = Result<u64, String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Suite {
    CrashExplorer,
    RandomOracle,
    FaultRuns,
    Failures,
    SyncedLog,
    ClosedLog,
    CheckpointedLog,
    RolledBackManifest,
    MissingSsts,
    BadBlocks,
    Numbers,
    Opening,
    SyncedSegments,
    CutOffCheckpoints,
    WriteDuringSync,
    FlushDuringGet,
    FlushBeforeVisible,
    ConditionalWrites,
    Transactions,
}

impl Suite {
    /// Ordered by cost, the cheapest first.
    const ALL: [Self; 19] = [
        Self::Opening,
        Self::SyncedSegments,
        Self::CutOffCheckpoints,
        Self::Numbers,
        Self::SyncedLog,
        Self::ClosedLog,
        Self::CheckpointedLog,
        Self::RolledBackManifest,
        Self::MissingSsts,
        Self::WriteDuringSync,
        Self::FlushDuringGet,
        Self::FlushBeforeVisible,
        Self::ConditionalWrites,
        Self::Transactions,
        Self::BadBlocks,
        Self::Failures,
        Self::RandomOracle,
        Self::CrashExplorer,
        Self::FaultRuns,
    ];

    /// The number of rounds.
    fn rounds(self) -> u64 {
        match self {
            Self::CrashExplorer => 12,
            Self::RandomOracle | Self::FaultRuns => 2,
            _ => 1,
        }
    }

    fn round(self, round: u64) -> Found {
        let seed = 1000 + round;
        match self {
            Self::CrashExplorer => {
                let mut explorer = Explorer::new(seed);
                (explorer.operations, explorer.recoveries, explorer.continuations) = (30, 10, 1);
                let totals = explorer.run().map_err(|failure| failure.to_string())?;
                Ok(totals.all_states() + totals.all_in_recovery())
            }
            Self::RandomOracle => {
                let oracle = Oracle { seed, operations: 1_000, settings: SettingsOf::Random };
                Ok(oracle.run().map_err(|failure| failure.to_string())?.operations)
            }
            Self::FaultRuns => {
                let runs = FaultRuns { operations: 25, ..FaultRuns::new(round) };
                Ok(runs.run().map_err(|failure| failure.to_string())?.all_runs())
            }
            Self::Failures => failures::each(),
            Self::SyncedLog => damage::synced_log(),
            Self::ClosedLog => damage::closed_log(),
            Self::CheckpointedLog => damage::checkpointed_log(),
            Self::RolledBackManifest => damage::rolled_back_manifest(),
            Self::MissingSsts => damage::missing_ssts(),
            Self::BadBlocks => damage::bad_blocks(),
            Self::Numbers => damage::numbers(),
            Self::Opening => damage::opening(),
            Self::SyncedSegments => damage::synced_segments(),
            Self::CutOffCheckpoints => damage::cut_off_checkpoints(),
            Self::WriteDuringSync => races::write_during_a_sync(),
            Self::FlushDuringGet => races::a_flush_during_a_get(),
            Self::FlushBeforeVisible => races::a_flush_before_a_write_is_visible(),
            Self::ConditionalWrites => conditional::conditional_writes(),
            Self::Transactions => conditional::transactions(),
        }
    }

    /// Runs a round; a panic counts as a finding.
    fn guarded(self, round: u64) -> Found {
        catch_unwind(AssertUnwindSafe(|| self.round(round))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(format!("panic: {}", text.or_else(|| panic.downcast_ref().copied()).unwrap_or("?")))
        })
    }

    /// The suite to try first for a bug.
    fn likeliest(bug: Bug) -> Self {
        match bug {
            Bug::CreationNotSynced | Bug::LockNotHeld => Self::Opening,
            Bug::SequencesReissued | Bug::FileIdReused | Bug::OrphansKept | Bug::CutNotRecorded => {
                Self::Numbers
            }
            Bug::OnlyNewestSegmentSynced => Self::SyncedSegments,
            Bug::LogDroppedBeforeEdit => Self::CutOffCheckpoints,
            Bug::TornRecordBelieved | Bug::DamagedRecordSkipped | Bug::DamageTakenForTail => Self::SyncedLog,
            Bug::DurableEndIgnored => Self::CheckpointedLog,
            Bug::CleanEndIgnored => Self::ClosedLog,
            Bug::RolledBackManifestBelieved => Self::RolledBackManifest,
            Bug::MissingSstBelieved => Self::MissingSsts,
            Bug::BlockChecksumIgnored | Bug::ReadErrorIsEnd => Self::BadBlocks,
            Bug::WatermarkBeforeSync => Self::WriteDuringSync,
            Bug::VisibleBeforeVersion => Self::FlushDuringGet,
            Bug::VersionAboveVisibleDropped => Self::FlushBeforeVisible,
            Bug::ConditionsNotCheckedAgain
            | Bug::FirstResultReturned
            | Bug::SealedNotChecked
            | Bug::RunsAskedForFlushes => Self::ConditionalWrites,
            Bug::RangesNotChecked | Bug::AbsenceNotChecked | Bug::ReadStripesNotLocked => Self::Transactions,
            Bug::TombstoneDroppedEarly
            | Bug::ListedSstRemoved
            | Bug::CheckpointListsRemoved
            | Bug::SegmentsOrderedAsText
            | Bug::SnapshotVersionDropped
            | Bug::GapNotCut
            | Bug::FilterOfWrongKey
            | Bug::FlushOutOfOrder
            | Bug::NewFilesNotCounted => Self::RandomOracle,
            Bug::ShortWriteIgnored
            | Bug::RefusedWriteKept
            | Bug::PoisonForgotten
            | Bug::EditAfterPartialEdit => Self::Failures,
            Bug::FailedEditForgotten => Self::FaultRuns,
            _ => Self::CrashExplorer,
        }
    }
}

/// How a bug was found.
struct Caught {
    suite: Suite,
    round: u64,
    states: u64,
    how: String,
}

/// Runs suites with the bug planted until one finds it.
fn hunt(bug: Bug) -> Result<Caught, String> {
    let planted = plant(bug);
    let first = Suite::likeliest(bug);
    let others = Suite::ALL.into_iter().filter(|suite| *suite != first);
    let mut states = 0;
    for suite in std::iter::once(first).chain(others) {
        for round in 0..suite.rounds() {
            match suite.guarded(round) {
                Ok(looked_at) => states += looked_at,
                Err(_) if planted.hits() == 0 => return Err("a suite failed without reaching the bug".into()),
                Err(how) => return Ok(Caught { suite, round, states, how }),
            }
        }
    }
    Err(format!("not found in {states} states; reached {} times", planted.hits()))
}

/// Runs all of `work` on two threads; returns the results in order.
fn on_two_threads<T: Sync, R: Send>(work: &[T], run: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let worker = || {
        while let Some((at, item)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, work.get(at)?)))
        {
            let result = run(item);
            done.lock().insert(at, result);
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(worker))));
    done.into_inner().into_values().collect()
}

#[test]
fn every_planted_bug_is_found_and_nothing_without_one() {
    let _watchdog = Watchdog::start("planted::every_planted_bug_is_found_and_nothing_without_one");
    let only = std::env::var("KSTONE_BUG").ok();
    let chosen = |bug: &Bug| only.as_ref().is_none_or(|only| format!("{bug:?}") == *only);
    let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(chosen).collect();
    let found = on_two_threads(&bugs, |&bug| hunt(bug));
    let mut rounds: Vec<(Suite, u64)> = Suite::ALL.map(|suite| (suite, 0)).to_vec();
    let mut missed = Vec::new();
    for (bug, found) in bugs.iter().zip(&found) {
        match found {
            Ok(Caught { suite, round, states, how }) => {
                let how: String = how.chars().take(140).collect();
                println!("{:28} | {:18} | {states:>6} | {how}", format!("{bug:?}"), format!("{suite:?}"));
                rounds.extend((0..=*round).map(|round| (*suite, round)));
            }
            Err(why) => missed.push(format!("{bug:?} ({}): {why}", bug.what())),
        }
    }
    println!("{} of {} planted bugs found", bugs.len() - missed.len(), bugs.len());
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
    rounds.sort_unstable();
    rounds.dedup();
    let clean = on_two_threads(&rounds, |&(suite, round)| suite.guarded(round));
    let states: u64 = rounds
        .iter()
        .zip(clean)
        .map(|(round, found)| {
            found.unwrap_or_else(|how| panic!("{round:?} reports a fault without a bug: {how}"))
        })
        .sum();
    println!("{} rounds of the same suites, {states} states, find nothing without one", rounds.len());
    assert!(only.is_some() || (bugs.len() >= 45 && states > 5_000), "{} bugs, {states} states", bugs.len());
}

/// Only the engine's tests enable the feature, and only builds with debug assertions contain any of it.
#[test]
fn no_build_for_use_has_planted_bugs() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    for member in ["kstone-api/Cargo.toml", "kstone-cli/Cargo.toml", "kstone-bench/Cargo.toml"] {
        assert!(!read(member).contains("planted"), "{member} asks for planted bugs");
    }
    assert!(read("Cargo.toml").contains("\nkstone-core = { path = \"kstone-core\", version = \"0.1.0\" }\n"));
    let core = read("kstone-core/Cargo.toml");
    assert_eq!(core.matches("planted-bugs").count(), 2);
    let (before, developing) = core.split_once("\n[dev-dependencies]\n").unwrap();
    assert!(developing.contains("\"planted-bugs\""));
    assert!(before.contains("\nplanted-bugs = [\"testing\"]\n") && !before.contains("\ndefault ="));
    // Nor are the suites that find the bugs part of a program that embeds the database.
    for member in ["kstone-api/Cargo.toml", "kstone-cli/Cargo.toml"] {
        let text = read(member);
        let built_with = text.split("\n[dev-dependencies]\n").next().unwrap();
        assert!(!built_with.contains("\"testing\""), "{member} is built with test-only code");
    }
    let switches = read("kstone-core/src/planted.rs");
    let (on, off) = (
        "#[cfg(all(feature = \"planted-bugs\", debug_assertions))]\nmod switch",
        "    pub(crate) const fn planted(_bug: Bug) -> bool {\n        false\n",
    );
    assert!(switches.contains(on) && switches.contains(off));
}
