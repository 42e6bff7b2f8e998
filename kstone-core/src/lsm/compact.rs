//! COMPACT: neighbouring runs of a stripe become one.
//!
//! picker (decides) -> merge -> write the SSTs -> install (under the stripe's lock) -> a checkpoint lists the
//! output and removes the inputs. Inputs that no manifest ever listed are unlinked at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::job::{Progress, Slot, run_to_end};
use super::run_writer::{RunFacts, RunWriter, copy};
use crate::compaction::Retain;
use crate::compaction::picker::{self, Ask, Choice, Pick, RunSummary};
use crate::error::Result;
use crate::merge::MergeCursor;
use crate::stripe::Stripe;
use crate::types::{RunId, SeqNo};
use crate::version::{Run, Version, merge_runs};

/// A merge within a stripe, in steps.
#[derive(Debug)]
pub(crate) struct CompactJob {
    stripe: usize,
    /// Merge the whole stripe, also if no rule asks for it.
    requested: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Next: [`CompactJob::begin`].
    Start,
    /// Next: [`copy`] until the inputs are used up.
    Merging(Box<Merging>),
}

struct Merging {
    inputs: Vec<Arc<Run>>,
    merge: MergeCursor,
    retain: Retain,
    horizon: SeqNo,
    reaches_oldest: bool,
    /// When the oldest tombstone among the inputs was written, as far as is known.
    tombstone_ms: u64,
    out: RunWriter,
}

impl std::fmt::Debug for Merging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merging").field("inputs", &self.inputs.len()).finish_non_exhaustive()
    }
}

impl CompactJob {
    pub(crate) fn new(stripe: usize, requested: bool) -> Self {
        Self { stripe, requested, state: State::Start }
    }

    pub(crate) fn step(&mut self, shared: &Shared) -> Result<Progress> {
        match &mut self.state {
            State::Start => self.begin(shared),
            State::Merging(merging) => {
                let Merging { merge, retain, out, tombstone_ms, .. } = &mut **merging;
                if copy(shared, merge, retain, out, *tombstone_ms)? == Progress::Again {
                    return Ok(Progress::Again);
                }
                merging.install(shared, self.stripe)?;
                Ok(Progress::Done)
            }
        }
    }

    fn begin(&mut self, shared: &Shared) -> Result<Progress> {
        let stripe = shared.stripe(self.stripe);
        // One version throughout: a flush may put a run in front of another.
        let version = Arc::clone(&stripe.version());
        let ask = if self.requested { Ask::Full } else { shared.ask_due(stripe) };
        let Choice::Merge(pick) = shared.choose(&version, ask) else { return Ok(Progress::Done) };
        let Pick { count, output_depth, reaches_oldest, .. } = pick;
        let inputs: Vec<_> = version.runs.iter().take(count).cloned().collect();
        let seq = inputs.iter().map(|run| run.seq()).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let metas = || inputs.iter().flat_map(|run| &run.parts).map(|table| table.meta());
        let first = metas().map(|meta| &meta.keys.0).min();
        let last = metas().map(|meta| &meta.keys.1).max();
        let (Some(seq), Some(first), Some(last)) = (seq, first, last) else { return Ok(Progress::Done) };
        let bounds = (first.clone(), last.clone());
        let tombstone_ms =
            metas().map(|meta| meta.oldest_tombstone_ms).filter(|&ms| ms > 0).min().unwrap_or(0);
        let horizon = shared.commits.horizon();
        let facts = RunFacts { depth: output_depth, seq };
        self.state = State::Merging(Box::new(Merging {
            merge: merge_runs(&inputs)?,
            retain: Retain::new(horizon, reaches_oldest),
            horizon,
            reaches_oldest,
            tombstone_ms,
            out: RunWriter::new(self.stripe, facts, bounds),
            inputs,
        }));
        Ok(Progress::Again)
    }

    /// Gives up: what was written is removed, the inputs stay.
    pub(crate) fn abort(self, shared: &Shared) {
        if let State::Merging(merging) = self.state {
            merging.out.abandon(shared);
        }
    }
}

impl Merging {
    fn install(&mut self, shared: &Shared, stripe: usize) -> Result<()> {
        let output = self.out.finish(shared)?;
        let written = output.as_ref().map_or(0, |run| run.total(|meta| meta.len));
        let read: u64 = self.inputs.iter().map(|run| run.total(|meta| meta.len)).sum();
        let inputs: Vec<RunId> = self.inputs.iter().map(|run| run.id()).collect();
        let stripe = shared.stripe(stripe);
        let gone = stripe.lock().install_compaction(&inputs, output);
        if self.reaches_oldest {
            let newest = self.inputs.first().map_or(0, |run| run.seq().1);
            *stripe.fully_merged.lock() = Some((newest, self.horizon));
        }
        let counters = &shared.counters;
        counters.compactions.fetch_add(1, Ordering::Relaxed);
        counters.ssts_merged.fetch_add(gone.len() as u64, Ordering::Relaxed);
        counters.compaction_bytes_read.fetch_add(read, Ordering::Relaxed);
        counters.compaction_bytes_written.fetch_add(written, Ordering::Relaxed);
        self.inputs.clear(); // so that only `obsolete` and readers hold the SSTs
        shared.obsolete.lock().extend(gone);
        Ok(())
    }
}

impl Shared {
    /// What the picker says of a stripe in this version.
    fn choose(&self, version: &Version, ask: Ask) -> Choice {
        let runs: Vec<RunSummary> = version
            .runs
            .iter()
            .map(|run| RunSummary {
                depth: run.depth(),
                entries: run.total(|meta| meta.entries),
                tombstones: run.total(|meta| meta.tombstones),
                last_seq: run.seq().1,
            })
            .collect();
        picker::choose(&runs, &self.settings.load().compaction, ask)
    }

    /// An automatic compaction. Tombstones that a full merge left, it left for a reader: until the horizon has
    /// moved past the one it had, another merge would leave the same.
    fn ask_due(&self, stripe: &Stripe) -> Ask {
        let blocked = stripe.fully_merged.lock().filter(|(_, horizon)| self.commits.horizon() <= *horizon);
        Ask::Due { blocked_below: blocked.map_or(0, |(newest, _)| newest) }
    }

    /// Whether an automatic compaction of the stripe is due: the bytes it would read, for the order of stripes.
    pub(crate) fn compaction_due(&self, stripe: usize) -> Option<u64> {
        let stripe = self.stripe_if_used(stripe)?;
        let version = Arc::clone(&stripe.version());
        match self.choose(&version, self.ask_due(stripe)) {
            Choice::Merge(pick) => {
                let inputs = version.runs.iter().take(pick.count);
                Some(inputs.map(|run| run.total(|meta| meta.len)).sum())
            }
            Choice::Nothing => None,
        }
    }

    /// Flushes the stripe and merges all its runs, on the caller's thread; returns when that is done.
    pub(crate) fn compact_now(&self, stripe: usize) -> Result<()> {
        self.flush_stripe_now(stripe)?;
        self.claim(Slot::Compact(stripe))?;
        let mut job = CompactJob::new(stripe, true);
        let result = run_to_end(|| job.step(self));
        if result.is_err() {
            job.abort(self);
        }
        self.release(Slot::Compact(stripe), result.is_err());
        result
    }
}
