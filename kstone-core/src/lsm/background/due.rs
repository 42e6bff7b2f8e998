//! Decides what is due, in order of urgency, and nothing else. It acquires no lock, reads no clock and changes nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::lsm::job::Slot;

/// The inputs of the decision.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// The handle is neither read-only nor poisoned.
    pub(super) may_write: bool,
    /// The manifest no longer records a clean end.
    pub(super) opened: bool,
    /// Tests decide when a step is taken: the intervals of syncs and checkpoints are always over.
    pub(super) manual: bool,
    pub(super) now: Duration,

    pub(super) sync_interval: Duration,
    pub(super) last_sync: Duration,
    pub(super) checkpoint_interval: Duration,
    pub(super) last_checkpoint: Duration,
    /// `None` if no statistics file is written.
    pub(super) stats_interval: Option<Duration>,
    pub(super) last_stats: Duration,
    /// When to remove SSTs that were still being read.
    pub(super) removal: Option<Duration>,

    /// The log needs another segment, and there is space for one.
    pub(super) wants_segment: bool,
    pub(super) log_half_full: bool,
    pub(super) seal_wanted: bool,
    /// The last job started was sealing.
    pub(super) sealed_last: bool,
    /// The database has become idle.
    pub(super) memory_idle: bool,
    /// There is something for a checkpoint to record.
    pub(super) dirty: bool,
    pub(super) few_inodes: bool,
    /// A checkpoint would free a large amount of space.
    pub(super) frees_much: bool,
    /// There is a limit on disk space.
    pub(super) limited: bool,

    pub(super) running: &'a BTreeSet<Slot>,
    /// Stripes to flush, once per sealed memtable.
    pub(super) flush: &'a VecDeque<usize>,
    pub(super) explore: &'a BTreeSet<usize>,
    /// Stripes that may have something to merge.
    pub(super) compact: &'a BTreeSet<usize>,
    /// Stripes whose merges writers wait for.
    pub(super) awaited: &'a BTreeMap<usize, usize>,

    pub(super) most_flushes: usize,
    pub(super) most_compactions: usize,
    /// The maximum number of compactions while no writer needs more; `None` for no such limit.
    pub(super) calm: Option<usize>,
    /// The number of runs at which a stripe's writers need a merge.
    pub(super) crowded: u64,
}

/// Facts that are looked up only when the decision depends on them: they require reading the state of the log or the
/// runs of a stripe.
pub(super) trait Probe {
    fn unsynced(&self) -> bool;
    /// An idle log lacks the record of how far it is synced, and there is space for it.
    fn wants_watermark(&self) -> bool;
    /// Whether space is wanted.
    fn reclaiming(&self) -> bool;
    fn runs(&self, stripe: usize) -> u64;
    /// The bytes that a merge of the stripe would read; `None` if there is nothing to merge.
    fn merge(&mut self, stripe: usize) -> Option<u64>;
    /// The idle stripe with the least to merge.
    fn idle(&mut self) -> Option<usize>;
}

/// The slots that could be taken now, most urgent first.
pub(super) fn due(view: &View<'_>, probe: &mut impl Probe) -> Vec<Slot> {
    if !view.may_write {
        return Vec::new();
    }
    let mut due = Vec::new();
    single(view, probe, &mut due);
    let flushing = view.running.iter().filter(|slot| matches!(slot, Slot::Flush(_))).count();
    if flushing < view.most_flushes {
        due.extend(view.flush.iter().map(|&stripe| Slot::Flush(stripe)));
    }
    due.extend(view.explore.iter().map(|&stripe| Slot::Explore(stripe)));
    merges(view, probe, &mut due);
    if view.dirty && view.few_inodes && !due.contains(&Slot::Checkpoint) {
        due.push(Slot::Checkpoint); // it removes the files that were merged
    }
    if view.seal_wanted && view.sealed_last {
        due.push(Slot::Seal);
    }
    due.retain(|slot| !view.running.contains(slot));
    if due.is_empty() && view.running.is_empty() {
        due.extend(probe.idle().map(Slot::Compact));
    }
    if view.opened { due } else { before_opened(view, &due) }
}

/// Jobs that only one thread can do at a time and many wait for.
fn single(view: &View<'_>, probe: &impl Probe, due: &mut Vec<Slot>) {
    let over = |last: Duration, interval: Duration| view.now.saturating_sub(last) >= interval;
    if view.wants_segment {
        due.push(Slot::Segment);
    }
    if !view.sync_interval.is_zero() && (view.manual || over(view.last_sync, view.sync_interval)) {
        if probe.unsynced() {
            due.push(Slot::LogSync);
        } else if probe.wants_watermark() {
            due.push(Slot::Watermark);
        }
    }
    // Queued flushes come first, so that the checkpoint covers them.
    let log_half_full = view.log_half_full && view.flush.is_empty();
    let checkpoint_over = over(view.last_checkpoint, view.checkpoint_interval);
    if view.dirty && (view.manual || log_half_full || checkpoint_over) {
        due.push(Slot::Checkpoint);
    }
    if view.seal_wanted && !view.sealed_last {
        due.push(Slot::Seal);
    }
    if view.stats_interval.is_some_and(|interval| over(view.last_stats, interval)) {
        due.push(Slot::Stats);
    }
    if view.removal.is_some_and(|at| at <= view.now) {
        due.push(Slot::Removal);
    }
    if view.memory_idle {
        due.push(Slot::ReleaseMemory);
    }
}

/// Compactions, preceded by the checkpoint that frees the inputs of finished merges.
fn merges(view: &View<'_>, probe: &mut impl Probe, due: &mut Vec<Slot>) {
    let compacting = view.running.iter().filter(|slot| matches!(slot, Slot::Compact(_))).count();
    if compacting >= view.most_compactions {
        return;
    }
    let freely = view.calm.is_none_or(|calm| compacting < calm) || view.limited && probe.reclaiming();
    let mut sizes: Vec<(bool, u64, usize)> = Vec::new();
    for &stripe in view.compact {
        let awaited = view.awaited.contains_key(&stripe);
        if view.running.contains(&Slot::Compact(stripe))
            || !(freely || awaited || probe.runs(stripe) >= view.crowded)
        {
            continue;
        }
        sizes.extend(probe.merge(stripe).map(|bytes| (!awaited, bytes, stripe)));
    }
    sizes.sort_unstable();
    // Merged inputs take space until a checkpoint. Several merges share one, but when no merge fits, it is due at once.
    let none_fits = freely && sizes.is_empty() && view.flush.is_empty();
    let gives_back = none_fits || view.frees_much;
    if gives_back && view.dirty && !due.contains(&Slot::Checkpoint) && probe.reclaiming() {
        due.push(Slot::Checkpoint);
    }
    due.extend(sizes.into_iter().map(|(.., stripe)| Slot::Compact(stripe)));
}

/// Nothing may be written while the manifest still records the end of the log. The log itself needs nothing before the
/// first write: its contents are durable, and its next segment may never be needed.
fn before_opened(view: &View<'_>, due: &[Slot]) -> Vec<Slot> {
    let writes =
        |slot: &Slot| matches!(slot, Slot::Flush(_) | Slot::Compact(_) | Slot::Seal | Slot::Checkpoint);
    let open = due.iter().any(writes) && !view.running.contains(&Slot::Open);
    let others = due.iter().copied().filter(|slot| matches!(slot, Slot::Stats | Slot::ReleaseMemory));
    open.then_some(Slot::Open).into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests;
