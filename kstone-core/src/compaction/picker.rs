//! Which runs of a stripe to merge next: a pure function of the stripe and the settings.
//!
//! 1. A **full merge**, when it was requested or would drop enough: tombstones that are too old or more than
//!    `tombstone_percent` of the stripe's records, or garbage of at least `garbage_percent` of what would be left, or
//!    when readers have skipped so much of both that a merge would have been cheaper ([`PASSED_PER_MERGED`]). Its depth
//!    is that of its deepest input, whose place it takes.
//! 2. The **depth rule**, when the run count reaches the threshold K: let d be the depth of the run just below the
//!    newest; merge the newest with the whole contiguous block of runs below it whose depth is at most d. The output is
//!    one deeper than its deepest input. Every run is compared with d, not with its neighbour.
//! 3. The **idle rule**, for a stripe without writes: merge the newest runs, as many as possible, such that those above
//!    the oldest of them have at least half its bytes. The output takes the place of the oldest. What is left is a handful
//!    of runs, each more than twice as large as all above it.
//!
//! Only runs entirely at or below the horizon count towards what a full merge would drop. The output of a merge that a
//! reader held back extends above the horizon, because it includes the newest run: it counts again only once the
//! horizon has passed all of it, so a long-lived snapshot never causes a merge twice. No state has to be kept for this.
//!
//! A merge always includes the newest run, so its output is the newest run. One decision may not be enough to get below
//! K, for instance after K was lowered: ask again after each merge.

use std::time::Duration;

use smallvec::SmallVec;

use crate::config::CompactionConfig;
use crate::key_sample::repeated_keys;
use crate::types::{SeqNo, SstDetails};
use crate::vfs::{PAGE, pages};

/// Entries that a reader skips in the time that a merge takes for one.
pub(crate) const PASSED_PER_MERGED: u64 = 8;

/// The properties of a run on which the picker decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunSummary<'a> {
    pub(crate) depth: u32,
    /// Total length of its files.
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    /// The age of its oldest tombstone, if there is one.
    pub(crate) tombstone_age: Option<Duration>,
    /// The highest sequence in the run.
    pub(crate) last_seq: SeqNo,
    /// Details of each of its SSTs; empty if the manifest lacks any.
    pub(crate) details: SmallVec<[&'a SstDetails; 1]>,
}

impl RunSummary<'_> {
    fn keys(&self) -> u64 {
        self.details.iter().map(|part| part.keys).fold(0, u64::saturating_add)
    }
}

impl<'a> AsRef<[&'a SstDetails]> for RunSummary<'a> {
    fn as_ref(&self) -> &[&'a SstDetails] {
        &self.details
    }
}

/// A stripe at one moment.
#[derive(Clone, Debug)]
pub(crate) struct StripeSummary<'a> {
    pub(crate) stripe: usize,
    /// Newest first.
    pub(crate) runs: Vec<RunSummary<'a>>,
    /// Every reader sees all sequences up to here.
    pub(crate) horizon: SeqNo,
    /// Entries that readers skipped since all runs of the stripe were last merged.
    pub(crate) passed_over: u64,
}

/// The origin of a request, and what it may trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The scheduler: whatever is due.
    Due,
    /// The scheduler, when there is nothing else to do and the stripe gets no writes.
    Idle,
    /// The disk quota: any merge that frees space, even when compaction is disabled.
    Reclaim,
    /// The file system, when it has hardly any inodes left: any merge that reduces the number of files.
    FewerFiles,
    /// The user: everything is merged, even a single run, and even when compaction is disabled.
    Full,
}

/// Why a stripe was compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The run count reached [`CompactionConfig::sst_threshold`].
    RunCount,
    /// Garbage reached [`CompactionConfig::garbage_percent`] of the rest.
    Garbage,
    /// Tombstones exceeded [`CompactionConfig::tombstone_percent`] of the stripe's records, or readers had skipped them
    /// and what they hide so often that merging costs less.
    Tombstones,
    /// A tombstone was older than [`CompactionConfig::tombstone_age`].
    TombstoneAge,
    /// There was nothing else to do: [`CompactionConfig::idle_compaction`].
    Idle,
    /// The disk quota was short of space, or the file system of inodes.
    Quota,
    /// The user requested it.
    Requested,
}

impl Reason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 7] = [
        Self::RunCount,
        Self::Garbage,
        Self::Tombstones,
        Self::TombstoneAge,
        Self::Idle,
        Self::Quota,
        Self::Requested,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Nothing,
    Merge(Pick),
}

/// Merge the newest `count` runs into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) count: usize,
    pub(crate) output_depth: u32,
    /// No run is left below: tombstones may be dropped.
    pub(crate) reaches_oldest: bool,
    pub(crate) reason: Reason,
}

/// Decides for one stripe.
pub(crate) fn choose(stripe: &StripeSummary<'_>, config: &CompactionConfig, ask: Ask) -> Choice {
    let runs = &stripe.runs;
    let full = |reason| full_merge(runs, reason);
    match ask {
        Ask::Full => full(Reason::Requested),
        Ask::Reclaim if stripe.frees_space() => full(Reason::Quota),
        Ask::FewerFiles if runs.len() > 1 => full(Reason::Quota),
        Ask::Reclaim | Ask::FewerFiles => Choice::Nothing,
        Ask::Due | Ask::Idle if !config.enabled => Choice::Nothing,
        Ask::Idle if config.idle_compaction => idle_rule(runs),
        Ask::Idle => Choice::Nothing,
        Ask::Due => {
            if stripe.tombstones_are_old(config) {
                full(Reason::TombstoneAge)
            } else if stripe.tombstones_weigh(config) || stripe.readers_pay() {
                full(Reason::Tombstones)
            } else if stripe.garbage_weighs(config) {
                full(Reason::Garbage)
            } else if runs.len() >= threshold(stripe.stripe, config) {
                depth_rule(runs)
            } else {
                Choice::Nothing
            }
        }
    }
}

/// The run count at which the stripe is compacted. With de-phasing the stripes are spread over several thresholds, down
/// to three quarters of the configured one.
pub(crate) fn threshold(stripe: usize, config: &CompactionConfig) -> usize {
    let steps = if config.dephasing { config.sst_threshold / 4 } else { 0 };
    (config.sst_threshold - stripe % (steps + 1)).max(2)
}

/// Merges while nothing else is to be done: each run fewer is a filter less for a get that finds nothing, and a cursor
/// less for each row of a query.
///
/// Only the bytes of the runs decide, not their number: a run is rewritten when what came after it has half its size, so
/// it grows by half each time. In the worst case, when a stripe becomes idle after each flush, an entry of 100 flushes is
/// rewritten 5.4 times instead of 2.0 (K = 10), and one of 1000 flushes 7.7 times instead of 3.6; when it becomes idle
/// once in ten flushes, 2.7 and 5.0 times.
fn idle_rule(runs: &[RunSummary<'_>]) -> Choice {
    let mut newer = 0u64;
    let mut count = 0;
    for (at, run) in runs.iter().enumerate() {
        if at > 0 && newer.saturating_mul(2) >= run.bytes {
            count = at + 1;
        }
        newer = newer.saturating_add(run.bytes);
    }
    merge_newest(runs, count, 0, Reason::Idle)
}

impl<'a> StripeSummary<'a> {
    /// Runs whose older versions and tombstones no reader holds back.
    fn settled(&self) -> impl Iterator<Item = &RunSummary<'a>> {
        self.runs.iter().filter(move |run| run.last_seq <= self.horizon)
    }

    fn settled_tombstones(&self) -> u64 {
        self.settled().map(|run| run.tombstones).fold(0, u64::saturating_add)
    }

    fn entries(&self) -> u64 {
        self.runs.iter().map(|run| run.entries).fold(0, u64::saturating_add)
    }

    /// Whether a full merge would free space: a page of garbage and of tombstones with what they hide, or a quarter of
    /// the stripe in unused parts of last pages.
    fn frees_space(&self) -> bool {
        // A few tombstones in each of many stripes take a page each.
        let tombstones = self.runs.len() > 1 && self.settled_tombstones() > 0;
        tombstones || self.garbage() >= PAGE || self.freed() >= PAGE.max(self.taken() / 4)
    }

    /// Approximate bytes, in whole pages, that a full merge would free.
    pub(crate) fn freed(&self) -> u64 {
        self.taken().saturating_sub(pages(self.bytes().saturating_sub(self.garbage())))
    }

    /// Approximate bytes of garbage, and of tombstones with what they hide.
    fn garbage(&self) -> u64 {
        let entries = self.superseded().saturating_add(self.settled_tombstones().saturating_mul(2));
        entries.saturating_mul(self.bytes() / self.entries().max(1))
    }

    fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes).fold(0, u64::saturating_add)
    }

    fn taken(&self) -> u64 {
        self.runs.iter().map(|run| pages(run.bytes)).fold(0, u64::saturating_add)
    }

    fn tombstones_are_old(&self, config: &CompactionConfig) -> bool {
        let oldest = self.settled().filter_map(|run| run.tombstone_age).max();
        config.tombstone_age.zip(oldest).is_some_and(|(limit, age)| age > limit)
    }

    fn tombstones_weigh(&self, config: &CompactionConfig) -> bool {
        percent(self.settled_tombstones()) > u128::from(config.tombstone_percent) * u128::from(self.entries())
    }

    /// Whether readers have skipped as many entries as a merge of the stripe costs: the total cost is then at most
    /// twice the optimum, whatever happens next.
    fn readers_pay(&self) -> bool {
        let limit = self.entries().saturating_mul(PASSED_PER_MERGED);
        self.passed_over >= limit && (self.settled_tombstones() > 0 || self.superseded() > 0)
    }

    fn garbage_weighs(&self, config: &CompactionConfig) -> bool {
        let entries = self.entries();
        let enough = |garbage: u64| {
            let kept = u128::from(entries.saturating_sub(garbage));
            garbage > 0 && percent(garbage) >= u128::from(config.garbage_percent) * kept
        };
        // The upper bound is cheaper to compute, so it is checked first.
        let settled = self.settled().map(|run| run.entries).fold(0, u64::saturating_add);
        let largest = self.settled().map(RunSummary::keys).max().unwrap_or(0);
        enough(settled.saturating_sub(largest)) && enough(self.superseded())
    }

    /// Estimates the number of versions that newer ones hide from every reader: within a run, where a reader held them
    /// back when it was written, and between runs.
    fn superseded(&self) -> u64 {
        let known: Vec<&RunSummary<'_>> = self.settled().filter(|run| !run.details.is_empty()).collect();
        let within = known.iter().map(|run| run.entries.saturating_sub(run.keys()));
        within.fold(repeated_keys(&known), u64::saturating_add)
    }
}

/// Estimates the number of keys that have a value in the runs of one stripe, in any order: distinct keys less
/// tombstones. Where details of files are missing, only tombstones, and one version under each, are subtracted.
///
/// The estimate of the overlap between runs is exact if they share no keys or all keys, and for small files; in between
/// its standard error is at most 8 % of the keys. A tombstone hidden by a newer put counts as a deleted key.
pub(crate) fn live_keys(runs: &[RunSummary<'_>]) -> u64 {
    let sum = |of: fn(&RunSummary<'_>) -> u64| runs.iter().map(of).fold(0, u64::saturating_add);
    let tombstones = sum(|run| run.tombstones);
    if runs.iter().any(|run| run.details.is_empty()) {
        return sum(|run| run.entries).saturating_sub(tombstones.saturating_mul(2));
    }
    sum(|run| run.keys()).saturating_sub(repeated_keys(runs)).saturating_sub(tombstones)
}

fn percent(part: u64) -> u128 {
    100 * u128::from(part)
}

fn full_merge(runs: &[RunSummary<'_>], reason: Reason) -> Choice {
    merge_newest(runs, runs.len(), 0, reason)
}

fn depth_rule(runs: &[RunSummary<'_>]) -> Choice {
    // With fewer than two runs there is nothing to merge.
    let [_, rest @ ..] = runs else { return Choice::Nothing };
    let Some(depth) = rest.first().map(|run| run.depth) else { return Choice::Nothing };
    let block = rest.iter().take_while(|run| run.depth <= depth).count();
    merge_newest(runs, 1 + block, 1, Reason::RunCount)
}

/// The output is `deeper` than its deepest input.
fn merge_newest(runs: &[RunSummary<'_>], count: usize, deeper: u32, reason: Reason) -> Choice {
    let Some(deepest) = runs.iter().take(count).map(|run| run.depth).max() else { return Choice::Nothing };
    Choice::Merge(Pick {
        count,
        output_depth: deepest.saturating_add(deeper),
        reaches_oldest: count == runs.len(),
        reason,
    })
}

#[cfg(test)]
mod tests;
