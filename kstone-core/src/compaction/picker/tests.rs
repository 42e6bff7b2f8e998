//! The rules one by one, and simulations of their cost.

use super::*;
use proptest::prelude::*;

type Run = RunSummary<'static>;

fn run(depth: u32, entries: u64, tombstones: u64, last_seq: SeqNo) -> Run {
    RunSummary {
        depth,
        bytes: entries * 1000,
        entries,
        tombstones,
        tombstone_age: (tombstones > 0).then_some(Duration::ZERO),
        last_seq,
        details: SmallVec::new(),
    }
}

fn stripe(runs: &[Run]) -> StripeSummary<'static> {
    StripeSummary { stripe: 0, runs: runs.to_vec(), horizon: SeqNo::MAX, passed_over: 0 }
}

fn config(threshold: usize) -> CompactionConfig {
    CompactionConfig::new().with_sst_threshold(threshold)
}

fn due(runs: &[Run], config: &CompactionConfig) -> Choice {
    choose(&stripe(runs), config, Ask::Due)
}

/// Carries out a pick; returns the number of entries rewritten.
fn merge(runs: &mut Vec<Run>, pick: Pick) -> u64 {
    let inputs: Vec<_> = runs.drain(..pick.count).collect();
    let entries = inputs.iter().map(|run| run.entries).sum();
    let tombstones = inputs.iter().map(|run| run.tombstones).sum();
    runs.insert(0, run(pick.output_depth, entries, tombstones, inputs[0].last_seq));
    entries
}

/// A stripe with inserts only, one entry per flush.
struct Inserts {
    stripe: StripeSummary<'static>,
    config: CompactionConfig,
    flushes: u64,
    rewritten: u64,
}

impl Inserts {
    fn new(id: usize, config: CompactionConfig) -> Self {
        Self { stripe: StripeSummary { stripe: id, ..stripe(&[]) }, config, flushes: 0, rewritten: 0 }
    }

    fn flush(&mut self) {
        self.flushes += 1;
        self.stripe.runs.insert(0, run(0, 1, 0, self.flushes));
    }

    fn compact(&mut self, ask: Ask) -> u64 {
        let before = self.rewritten;
        while let Choice::Merge(pick) = choose(&self.stripe, &self.config, ask) {
            self.rewritten += merge(&mut self.stripe.runs, pick);
        }
        self.rewritten - before
    }

    fn amplification(&self) -> f64 {
        self.rewritten as f64 / self.flushes as f64
    }
}

/// Entries rewritten per entry flushed, and the average number of runs after each flush.
fn simulate(flushes: u64, threshold: usize) -> (f64, f64) {
    let (mut inserts, mut count) = (Inserts::new(0, config(threshold)), 0);
    for _ in 0..flushes {
        inserts.flush();
        inserts.compact(Ask::Due);
        let runs = &inserts.stripe.runs;
        assert!(runs.len() < threshold);
        assert!(runs.is_sorted_by(|newer, older| newer.depth <= older.depth), "{runs:?}");
        count += runs.len();
    }
    (inserts.amplification(), count as f64 / flushes as f64)
}

#[test]
fn the_model_knows_what_the_depth_rule_does() {
    for threshold in [2, 3, 4, 5, 10, 20, 30] {
        for flushes in [1, 2, 3, 7, 19, 20, 21, 100, 500, 1000, 10_000] {
            if threshold < 4 && flushes > 1000 {
                continue; // The simulation takes too long.
            }
            let (amplification, runs) = simulate(flushes, threshold);
            let model = crate::model::DepthRule::after(flushes, threshold);
            let exact = |a: f64, b: f64| (a - b).abs() < 1e-6 * (1.0 + b);
            assert!(exact(model.write_amplification, amplification), "{flushes} {threshold}: {model:?}");
            assert!(exact(model.average_runs, runs), "{flushes} {threshold}: {model:?}, {runs}");
        }
    }
}

/// The published behaviour of the depth rule: flushes, K, write amplification, average runs.
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

/// A stripe that becomes idle after one in `every` flushes, on average: rewritten entries per entry, and runs left then.
fn simulate_idle(flushes: u64, threshold: usize, every: u64) -> (f64, f64) {
    let (mut inserts, mut random) = (Inserts::new(0, config(threshold)), 1u64);
    let (mut left, mut idle) = (0, 0);
    for _ in 0..flushes {
        inserts.flush();
        inserts.compact(Ask::Due);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (random >> 33).is_multiple_of(every) {
            inserts.compact(Ask::Idle);
            left += inserts.stripe.runs.len();
            idle += 1;
        }
    }
    (inserts.amplification(), left as f64 / idle.max(1) as f64)
}

/// Each idle period rewrites a run only when what came after it has half its size: the cost grows with the logarithm of
/// the number of flushes, however often the stripe is idle.
#[test]
fn idle_compaction_leaves_few_runs_at_a_bounded_cost() {
    for (flushes, threshold, most) in
        [(100, 5, 6.0), (100, 10, 6.0), (100, 20, 6.0), (1000, 10, 9.0), (10_000, 10, 12.0)]
    {
        let (without, average) = simulate(flushes, threshold);
        println!("{flushes} flushes, K {threshold}: {without:.2} ({average:.1} runs)");
        for every in [1, 2, 3, 5, 10, 30, 100] {
            let (amplification, left) = simulate_idle(flushes, threshold, every);
            println!("  idle once in {every}: {amplification:.2}, {left:.1} runs then");
            assert!(amplification <= without.max(most), "{flushes} {threshold} {every}: {amplification}");
            assert!(left <= 1.0 + (flushes as f64).log(3.0) / 2.0, "{flushes} {threshold} {every}: {left}");
        }
    }
}

#[test]
fn the_idle_rule_merges_what_came_after_a_run_once_it_has_half_its_size() {
    let idle = |sizes: &[u64], config: &CompactionConfig| {
        let runs: Vec<_> = sizes.iter().map(|&size| run(0, size, 0, 9)).collect();
        match choose(&stripe(&runs), config, Ask::Idle) {
            Choice::Merge(pick) => {
                assert_eq!((pick.output_depth, pick.reaches_oldest), (0, pick.count == sizes.len()));
                Some((pick.count, pick.reason))
            }
            Choice::Nothing => None,
        }
    };
    let merged = |count| Some((count, Reason::Idle));
    for (sizes, expected) in [
        (&[][..], None),
        (&[1], None),
        (&[1, 1], merged(2)),
        (&[1, 2], merged(2)),
        (&[1, 3], None),
        (&[1, 1, 1, 1], merged(4)),
        (&[1, 1, 100], merged(2)),
        (&[1, 3, 8], merged(3)),
        (&[1, 3, 9], None),
        (&[1, 100, 50], merged(3)),
        (&[0, 0], merged(2)),
    ] {
        assert_eq!(idle(sizes, &config(100)), expected, "{sizes:?}");
        assert_eq!(idle(sizes, &config(100).with_idle_compaction(false)), None);
        assert_eq!(idle(sizes, &CompactionConfig::disabled()), None);
    }
}

#[test]
fn the_block_is_compared_with_the_run_below_the_newest() {
    let runs = [0, 1, 0, 1, 2, 1].map(|depth| run(depth, 10, 0, 9));
    let expected = Pick { count: 4, output_depth: 2, reaches_oldest: false, reason: Reason::RunCount };
    assert_eq!(due(&runs, &config(6)), Choice::Merge(expected));
    assert_eq!(due(&runs, &config(7)), Choice::Nothing);
    assert_eq!(due(&[], &config(2)), Choice::Nothing);
}

#[test]
fn a_full_merge_takes_all_also_one_run_and_when_disabled() {
    let runs = [run(0, 10, 0, 9), run(3, 10, 0, 8), run(1, 10, 0, 7)];
    let full = |runs: &[Run], config: &CompactionConfig| choose(&stripe(runs), config, Ask::Full);
    let pick = |count, output_depth| {
        Choice::Merge(Pick { count, output_depth, reaches_oldest: true, reason: Reason::Requested })
    };
    let off = CompactionConfig::disabled().with_sst_threshold(2);
    assert_eq!(due(&runs, &off), Choice::Nothing);
    assert_eq!(full(&runs, &off), pick(3, 3));
    assert_eq!(full(&runs[..1], &config(10)), pick(1, 0));
    assert_eq!(full(&[], &config(10)), Choice::Nothing);
}

fn all(count: usize, output_depth: u32, reason: Reason) -> Choice {
    Choice::Merge(Pick { count, output_depth, reaches_oldest: true, reason })
}

#[test]
fn tombstones_over_their_share_are_merged_away_unless_readers_hold_them_back() {
    let at = |horizon, runs: &[Run], percent| {
        let config = config(10).with_tombstone_percent(percent);
        choose(&StripeSummary { horizon, ..stripe(runs) }, &config, Ask::Due)
    };
    let quarter = [run(0, 100, 50, 20), run(2, 100, 0, 10)];
    assert_eq!(at(20, &quarter, 25), Choice::Nothing);
    let more = [run(0, 100, 51, 20), run(2, 100, 0, 10)];
    assert_eq!(at(20, &more, 25), all(2, 2, Reason::Tombstones));
    assert_eq!(at(20, &more, 26), Choice::Nothing);
    assert_eq!(at(20, &quarter, 24), all(2, 2, Reason::Tombstones));
    // A reader needs part of the newer run: until the reader is gone, a merge would keep the tombstones and be
    // repeated.
    assert_eq!(at(19, &more, 25), Choice::Nothing);
    // The output extends as far as its newest input.
    let merged = [run(2, 200, 51, 20)];
    assert_eq!(at(19, &merged, 25), Choice::Nothing);
    assert_eq!(at(20, &merged, 25), all(1, 2, Reason::Tombstones));
    assert_eq!(at(20, &[run(0, 10, 10, 5)], 100), Choice::Nothing, "a share is never more than 100 %");
}

#[test]
fn a_tombstone_that_is_too_old_is_merged_away_unless_a_reader_holds_it_back() {
    let at = |horizon, age, limit| {
        let old = RunSummary { tombstone_age: Some(age), ..run(1, 1000, 1, 10) };
        let runs = [run(0, 1000, 0, 20), old, run(2, 1000, 0, 5)];
        let config = config(10).with_tombstone_age(limit);
        choose(&StripeSummary { horizon, ..stripe(&runs) }, &config, Ask::Due)
    };
    let millis = Duration::from_millis;
    assert_eq!(at(10, millis(500), millis(500)), Choice::Nothing);
    assert_eq!(at(10, millis(501), millis(500)), all(3, 2, Reason::TombstoneAge));
    assert_eq!(at(9, millis(501), millis(500)), Choice::Nothing);
    assert_eq!(at(10, Duration::MAX, Duration::MAX), Choice::Nothing, "no age limit");
}

#[test]
fn a_stripe_is_merged_once_its_readers_have_paid_for_it() {
    let at = |horizon, passed_over, tombstones| {
        let runs = [run(0, 1000, tombstones, 20), run(1, 1000, 0, 10)];
        choose(&StripeSummary { horizon, passed_over, ..stripe(&runs) }, &config(10), Ask::Due)
    };
    assert_eq!(at(20, 15_999, 1), Choice::Nothing);
    assert_eq!(at(20, 16_000, 1), all(2, 1, Reason::Tombstones));
    assert_eq!(at(19, 16_000, 1), Choice::Nothing, "a reader holds it back");
    assert_eq!(at(20, 16_000, 0), Choice::Nothing, "there is nothing to drop");
}

fn details(keys: std::ops::Range<u32>) -> SstDetails {
    // Spread like hashes, equal for equal keys.
    let hash = |key: u32| key.wrapping_mul(0x9e37_79b1);
    let mut sample: Vec<u32> = keys.clone().map(hash).collect();
    sample.sort_unstable();
    sample.truncate(64);
    SstDetails { keys: keys.len() as u64, sample, ..SstDetails::default() }
}

fn known(details: &SstDetails, depth: u32, entries: u64, last_seq: SeqNo) -> RunSummary<'_> {
    let details = SmallVec::from_slice(&[details]);
    RunSummary {
        depth,
        bytes: entries * 1000,
        entries,
        tombstones: 0,
        tombstone_age: None,
        last_seq,
        details,
    }
}

#[test]
fn superseded_versions_are_merged_away_when_they_weigh_enough() {
    let (base, same) = (details(0..10_000), details(0..10_000));
    let (inserted, half) = (details(10_000..20_000), details(0..5000));
    let at = |horizon, runs: &[RunSummary<'_>], percent| {
        let config = config(10).with_garbage_percent(percent);
        let stripe = StripeSummary { stripe: 0, runs: runs.to_vec(), horizon, passed_over: 0 };
        choose(&stripe, &config, Ask::Due)
    };
    let all_again = [known(&same, 0, 10_000, 20), known(&base, 1, 10_000, 10)];
    assert_eq!(at(20, &all_again, 100), all(2, 1, Reason::Garbage));
    assert_eq!(at(20, &all_again, 101), Choice::Nothing);
    assert_eq!(at(19, &all_again, 100), Choice::Nothing, "a reader may need what the newer run hides");
    let half_again = [known(&half, 0, 5000, 20), known(&base, 1, 10_000, 10)];
    assert_eq!(at(20, &half_again, 51), Choice::Nothing);
    assert_eq!(at(20, &half_again, 50), all(2, 1, Reason::Garbage));
    let only_inserts = [known(&inserted, 0, 10_000, 20), known(&base, 1, 10_000, 10)];
    assert_eq!(at(20, &only_inserts, 1), Choice::Nothing);
    // Versions held back by a reader when their run was written.
    let versions = [known(&base, 1, 20_000, 10)];
    assert_eq!(at(10, &versions, 100), all(1, 1, Reason::Garbage));
    assert_eq!(at(9, &versions, 100), Choice::Nothing);
    // Without details, no garbage is assumed.
    assert_eq!(at(20, &[run(0, 10_000, 0, 20), run(1, 10_000, 0, 10)], 1), Choice::Nothing);
    assert_eq!(
        at(
            20,
            &[
                known(&same, 0, 10_000, 20),
                RunSummary { details: SmallVec::new(), ..known(&base, 1, 10_000, 10) }
            ],
            1
        ),
        Choice::Nothing
    );
}

#[test]
fn the_quota_asks_for_what_frees_space_also_when_compaction_is_disabled() {
    let off = CompactionConfig::disabled();
    let reclaim = |horizon, runs: &[RunSummary<'_>]| {
        let stripe = StripeSummary { stripe: 0, runs: runs.to_vec(), horizon, passed_over: 0 };
        choose(&stripe, &off, Ask::Reclaim)
    };
    let (base, other) = (details(0..1000), details(1000..1100));
    let again = details(900..1000);
    assert_eq!(reclaim(20, &[known(&other, 0, 100, 20), known(&base, 1, 1000, 10)]), Choice::Nothing);
    let overlap = [known(&again, 0, 100, 20), known(&base, 1, 1000, 10)];
    assert_eq!(reclaim(20, &overlap), all(2, 1, Reason::Quota));
    assert_eq!(reclaim(10, &overlap), Choice::Nothing);
    assert_eq!(reclaim(20, &[run(0, 100, 3, 20)]), all(1, 0, Reason::Quota));
    assert_eq!(reclaim(20, &[run(0, 100, 1, 20)]), Choice::Nothing);
    assert_eq!(reclaim(19, &[run(0, 100, 3, 20)]), Choice::Nothing);
    // Three of four pages are hardly used; the last page of a long run does not count.
    let short = [run(0, 1, 0, 20), run(0, 1, 0, 19), run(0, 1, 0, 18), run(0, 1, 0, 17)];
    assert_eq!(reclaim(20, &short), all(4, 0, Reason::Quota));
    assert_eq!(reclaim(20, &[run(0, 1, 0, 20), run(0, 100, 0, 19)]), Choice::Nothing);
    assert_eq!(reclaim(20, &[]), Choice::Nothing);
}

#[test]
fn thresholds_differ_downwards_only_and_only_when_asked_to() {
    let spread = |threshold: usize, dephasing: bool| {
        let config = config(threshold).with_dephasing(dephasing);
        let mut all: Vec<usize> = (0..256).map(|stripe| super::threshold(stripe, &config)).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    assert_eq!(spread(10, false), [10]);
    assert_eq!(spread(10, true), [8, 9, 10]);
    assert_eq!(spread(20, true), [15, 16, 17, 18, 19, 20]);
    assert_eq!(spread(4, true), [3, 4]);
    assert_eq!(spread(3, true), [3]);
    assert_eq!(spread(2, true), [2]);
}

/// 256 stripes that fill evenly except for chance, with 1,000 records per flush: the number of compactions due in the
/// worst moment (a tenth of the time between two flushes of a stripe), and the cost of de-phasing.
#[test]
fn dephasing_lowers_the_peak_of_compactions_that_fall_due_together() {
    for (flushes, threshold) in [(100, 5), (100, 10), (100, 20), (300, 10)] {
        let outcome = |dephasing: bool| {
            let config = config(threshold).with_dephasing(dephasing);
            let mut due = std::collections::BTreeMap::<u64, (u64, u64)>::new();
            let (mut random, mut rewritten) = (7u64, 0);
            for id in 0..256 {
                let (mut inserts, mut time) = (Inserts::new(id, config.clone()), 0.0f64);
                for _ in 0..flushes {
                    // The sum of twelve uniform numbers is about normal; the time to 1,000 records varies by a 32nd.
                    let mut noise = -6.0;
                    for _ in 0..12 {
                        random = random
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        noise += (random >> 11) as f64 / (1u64 << 53) as f64;
                    }
                    time += 1.0 + noise / 32.0;
                    inserts.flush();
                    let entries = inserts.compact(Ask::Due);
                    if entries > 0 {
                        let moment = due.entry((time * 10.0) as u64).or_default();
                        *moment = (moment.0 + 1, moment.1 + entries);
                    }
                }
                rewritten += inserts.rewritten;
            }
            let peak = due.values().map(|moment| moment.0).max().unwrap();
            let peak_entries = due.values().map(|moment| moment.1).max().unwrap();
            (peak, peak_entries, rewritten as f64 / (256 * flushes) as f64)
        };
        let (off, on) = (outcome(false), outcome(true));
        println!(
            "{flushes} flushes, K {threshold}: peak {} stripes, {} flushes' worth, amplification {:.2}; de-phased {}, {}, {:.2}",
            off.0, off.1, off.2, on.0, on.1, on.2
        );
        assert!(on.0 < off.0 && on.1 < off.1, "{off:?} {on:?}");
        assert!(on.2 < off.2 * 1.3, "{off:?} {on:?}");
    }
}

proptest! {
    #[test]
    fn merges_of_any_runs_end_below_the_threshold(
        depths in proptest::collection::vec(0u32..6, 0..40), threshold in 2usize..12,
        tombstones in 0u64..10, horizon in 0u64..12,
    ) {
        let runs = depths.iter().map(|&depth| run(depth, 9.max(tombstones), tombstones, 9));
        let mut stripe = StripeSummary { horizon, ..stripe(&runs.collect::<Vec<_>>()) };
        let mut merges = 0;
        while let Choice::Merge(pick) = choose(&stripe, &config(threshold), Ask::Due) {
            prop_assert_eq!(pick.reaches_oldest, pick.count == stripe.runs.len());
            prop_assert!(pick.count <= stripe.runs.len());
            merge(&mut stripe.runs, pick);
            if pick.reason == Reason::Tombstones {
                // A full merge drops the tombstones.
                stripe.runs[0].tombstones = 0;
            }
            merges += 1;
            prop_assert!(merges <= depths.len());
        }
        prop_assert!(stripe.runs.len() < threshold);
    }
}
