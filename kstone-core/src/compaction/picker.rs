//! Which runs of a stripe to merge next: a pure function of the runs and the settings.
//!
//! 1. The **depth rule**, when the run count reaches the threshold K: let d be the depth of the run just below
//!    the newest; merge the newest with the whole contiguous block of runs below it whose depth is at most d.
//!    The output is one deeper than its deepest input. Every run is compared with d, not with its neighbour.
//! 2. A **full merge**, when it is asked for, or when tombstones that it could drop are more than a quarter of
//!    the stripe's records. Its depth is that of its deepest input: it takes that one's place.
//!
//! A merge always takes in the newest run, so what it makes is the newest. One decision may not be enough to
//! get below K, after K was lowered for instance: ask again after each merge.

use crate::config::CompactionConfig;
use crate::types::SeqNo;

/// What the picker looks at in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunSummary {
    pub(crate) depth: u32,
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    /// The highest sequence in it.
    pub(crate) last_seq: SeqNo,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Whatever is due on its own.
    Due {
        /// No tombstone can be dropped in runs whose last sequence is at most this: a full merge took them in
        /// already, and what readers held it back has not gone. 0 when there was none, or they have.
        blocked_below: SeqNo,
    },
    /// The user: everything is merged, if it is a single run too and compaction is disabled.
    Full,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    RunCount,
    Tombstones,
    Requested,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Nothing,
    Merge(Pick),
}

/// The newest `count` runs become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) count: usize,
    pub(crate) output_depth: u32,
    /// No run is left below: tombstones may go.
    pub(crate) reaches_oldest: bool,
    pub(crate) reason: Reason,
}

/// Decides for a stripe with these runs, newest first.
pub(crate) fn choose(runs: &[RunSummary], config: &CompactionConfig, ask: Ask) -> Choice {
    match ask {
        Ask::Full => full_merge(runs, Reason::Requested),
        Ask::Due { .. } if !config.enabled => Choice::Nothing,
        Ask::Due { blocked_below } if tombstones_weigh(runs, blocked_below) => {
            full_merge(runs, Reason::Tombstones)
        }
        Ask::Due { .. } => depth_rule(runs, config.sst_threshold),
    }
}

fn full_merge(runs: &[RunSummary], reason: Reason) -> Choice {
    let Some(output_depth) = runs.iter().map(|run| run.depth).max() else {
        return Choice::Nothing;
    };
    Choice::Merge(Pick { count: runs.len(), output_depth, reaches_oldest: true, reason })
}

/// Tombstones that could be dropped are more than a quarter of all records. Those of blocked runs do not
/// count, so that a long-lived snapshot costs no more than one full merge per quarter of the stripe deleted.
fn tombstones_weigh(runs: &[RunSummary], blocked_below: SeqNo) -> bool {
    let sum = |part: fn(&RunSummary) -> u64, above: SeqNo| {
        runs.iter().filter(|run| run.last_seq > above).map(part).fold(0, u64::saturating_add)
    };
    let droppable = sum(|run| run.tombstones, blocked_below);
    droppable > sum(|run| run.entries, 0) / 4
}

fn depth_rule(runs: &[RunSummary], threshold: usize) -> Choice {
    let [newest, rest @ ..] = runs else { return Choice::Nothing };
    let Some(depth) = rest.first().map(|run| run.depth) else { return Choice::Nothing };
    if runs.len() < threshold {
        return Choice::Nothing;
    }
    let count = 1 + rest.iter().take_while(|run| run.depth <= depth).count();
    Choice::Merge(Pick {
        count,
        output_depth: depth.max(newest.depth).saturating_add(1),
        reaches_oldest: count == runs.len(),
        reason: Reason::RunCount,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DUE: Ask = Ask::Due { blocked_below: 0 };

    fn run(depth: u32, entries: u64, tombstones: u64, last_seq: SeqNo) -> RunSummary {
        RunSummary { depth, entries, tombstones, last_seq }
    }

    fn config(threshold: usize) -> CompactionConfig {
        CompactionConfig::new().with_sst_threshold(threshold)
    }

    /// Carries out a choice; returns the entries that were rewritten.
    fn merge(runs: &mut Vec<RunSummary>, pick: Pick) -> u64 {
        let inputs: Vec<_> = runs.drain(..pick.count).collect();
        let entries = inputs.iter().map(|run| run.entries).sum();
        let tombstones = inputs.iter().map(|run| run.tombstones).sum();
        runs.insert(0, run(pick.output_depth, entries, tombstones, inputs[0].last_seq));
        entries
    }

    /// Entries rewritten per entry flushed, and the average number of runs after each flush.
    fn simulate(flushes: u64, threshold: usize) -> (f64, f64) {
        let (mut runs, mut rewritten, mut count) = (Vec::new(), 0, 0);
        for flush in 1..=flushes {
            runs.insert(0, run(0, 1, 0, flush));
            while let Choice::Merge(pick) = choose(&runs, &config(threshold), DUE) {
                assert_eq!(pick.reason, Reason::RunCount);
                rewritten += merge(&mut runs, pick);
            }
            assert!(runs.len() < threshold);
            assert!(runs.is_sorted_by(|newer, older| newer.depth <= older.depth), "{runs:?}");
            count += runs.len();
        }
        (rewritten as f64 / flushes as f64, count as f64 / flushes as f64)
    }

    /// The depth rule's published behaviour: flushes, K, write amplification, average runs.
    #[test]
    fn write_amplification_and_run_counts_are_those_of_the_policy() {
        for (flushes, threshold, amplification, average) in [
            (100, 5, 3.40, 3.3),
            (100, 10, 1.98, 6.2),
            (100, 20, 0.90, 10.5),
            (1000, 4, 12.6, 2.8),
            (1000, 10, 3.63, 7.2),
            (10_000, 5, 15.7, 3.8),
            (10_000, 10, 5.71, 7.8),
        ] {
            let (wa, runs) = simulate(flushes, threshold);
            println!(
                "{flushes} flushes, K {threshold}: {wa:.2} ({runs:.1}), expected {amplification} ({average})"
            );
            assert!((wa / amplification - 1.0).abs() < 0.03, "{flushes} {threshold}: {wa}");
            assert!((runs - average).abs() < 0.3, "{flushes} {threshold}: {runs}");
        }
    }

    #[test]
    fn the_block_is_compared_with_the_run_below_the_newest() {
        let runs = [0, 1, 0, 1, 2, 1].map(|depth| run(depth, 10, 0, 9));
        let expected = Pick { count: 4, output_depth: 2, reaches_oldest: false, reason: Reason::RunCount };
        assert_eq!(choose(&runs, &config(6), DUE), Choice::Merge(expected));
        assert_eq!(choose(&runs, &config(7), DUE), Choice::Nothing);
        assert_eq!(choose(&[], &config(2), DUE), Choice::Nothing);
    }

    #[test]
    fn a_full_merge_takes_all_also_one_run_and_when_disabled() {
        let runs = [run(0, 10, 0, 9), run(3, 10, 0, 8), run(1, 10, 0, 7)];
        let pick = |count, output_depth, reason| {
            Choice::Merge(Pick { count, output_depth, reaches_oldest: true, reason })
        };
        let off = CompactionConfig::disabled().with_sst_threshold(2);
        assert_eq!(choose(&runs, &off, DUE), Choice::Nothing);
        assert_eq!(choose(&runs, &off, Ask::Full), pick(3, 3, Reason::Requested));
        assert_eq!(choose(&runs[..1], &config(10), Ask::Full), pick(1, 0, Reason::Requested));
        assert_eq!(choose(&[], &config(10), Ask::Full), Choice::Nothing);
    }

    #[test]
    fn tombstones_over_a_quarter_are_merged_away_unless_readers_hold_them_back() {
        let due = |blocked_below| Ask::Due { blocked_below };
        let all = |count| {
            Choice::Merge(Pick { count, output_depth: 2, reaches_oldest: true, reason: Reason::Tombstones })
        };
        let quarter = [run(0, 100, 50, 20), run(2, 100, 0, 10)];
        assert_eq!(choose(&quarter, &config(10), DUE), Choice::Nothing);
        let more = [run(0, 100, 51, 20), run(2, 100, 0, 10)];
        assert_eq!(choose(&more, &config(10), DUE), all(2));
        // A full merge was held back: not again until the readers are gone or as many new ones came.
        let merged = [run(2, 200, 51, 20)];
        assert_eq!(choose(&merged, &config(10), due(20)), Choice::Nothing);
        assert_eq!(choose(&merged, &config(10), due(0)), all(1));
        let few_new = [run(0, 100, 75, 30), run(2, 200, 51, 20)];
        assert_eq!(choose(&few_new, &config(10), due(20)), Choice::Nothing);
        let many_new = [run(0, 100, 76, 30), run(2, 200, 51, 20)];
        assert_eq!(choose(&many_new, &config(10), due(20)), all(2));
    }

    proptest! {
        #[test]
        fn merges_of_any_runs_end_below_the_threshold(
            depths in proptest::collection::vec(0u32..6, 0..40), threshold in 2usize..12,
            tombstones in 0u64..10,
        ) {
            let mut runs: Vec<_> = depths.iter().map(|&depth| run(depth, 9.max(tombstones), tombstones, 9)).collect();
            let mut merges = 0;
            // What a full merge could not drop is blocked until readers are gone.
            let mut blocked_below = 0;
            while let Choice::Merge(pick) = choose(&runs, &config(threshold), Ask::Due { blocked_below }) {
                prop_assert_eq!(pick.reaches_oldest, pick.count == runs.len());
                prop_assert!(pick.count <= runs.len());
                if pick.reason == Reason::Tombstones {
                    blocked_below = 9;
                }
                merge(&mut runs, pick);
                merges += 1;
                prop_assert!(merges <= depths.len());
            }
            prop_assert!(runs.len() < threshold);
        }
    }
}
