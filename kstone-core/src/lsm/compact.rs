//! COMPACT: merges adjacent runs of a stripe into one.
//!
//! picker (decides) -> merge -> write the SSTs -> install (under the stripe's lock) -> a checkpoint lists the output
//! and removes the inputs. Inputs that no manifest ever listed are unlinked at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::job::{Job, Slot, StepResult, run_to_end};
use super::observe::Merged;
use super::options::Workers;
use super::quota::rewritten;
use super::run_writer::{RunFacts, RunWriter, copy};
use super::space::MergeSpace;
use super::state::Shared;
use super::trace;
use crate::backpressure::StallReason;
use crate::compaction::Retain;
use crate::compaction::picker::{self, Ask, Choice, Pick, Reason, StripeSummary};
use crate::error::{Error, Result};
use crate::merge::MergeCursor;
use crate::sst::ChainCursor;
use crate::sst_block::LZ4;
use crate::types::RunId;
use crate::version::{Run, Version, merge_runs};

/// The most attempts of a requested compaction: with a single thread, time may stand still.
const MOST_TRIES: u32 = 1_000;

/// A merge within a stripe, in steps.
#[derive(Debug)]
pub(crate) struct CompactJob {
    stripe: usize,
    ask: Ask,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Next: [`CompactJob::begin`].
    Start,
    /// Next: [`copy`] until the inputs are exhausted.
    Merging(Box<Merging>),
}

struct Merging {
    started: Duration,
    reason: Reason,
    reaches_oldest: bool,
    inputs: Vec<Arc<Run>>,
    merge: MergeCursor<ChainCursor>,
    retain: Retain,
    out: RunWriter,
    space: Option<MergeSpace>,
}

impl std::fmt::Debug for Merging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merging").field("inputs", &self.inputs.len()).finish_non_exhaustive()
    }
}

impl Job<Shared> for CompactJob {
    fn step(&mut self, shared: &Shared) -> Result<StepResult> {
        let _span = trace::job("compaction", Some(self.stripe));
        shared.life.health().check()?; // a poisoned handle writes nothing any more
        match &mut self.state {
            State::Start => self.begin(shared),
            State::Merging(merging) => {
                let Merging { merge, retain, out, space, .. } = &mut **merging;
                let copied = copy(shared, merge, retain, out);
                if let Some(space) = space {
                    space.wrote(out.written());
                }
                if copied? == StepResult::Again {
                    return Ok(StepResult::Again);
                }
                merging.install(shared, self.stripe)?;
                Ok(StepResult::Done)
            }
        }
    }

    /// Aborts: removes the SSTs written so far; the inputs stay.
    fn abort(self: Box<Self>, shared: &Shared) {
        if let State::Merging(merging) = self.state {
            merging.out.abandon(shared);
        }
    }
}

impl CompactJob {
    pub(crate) fn new(stripe: usize, ask: Ask) -> Self {
        Self { stripe, ask, state: State::Start }
    }

    fn begin(&mut self, shared: &Shared) -> Result<StepResult> {
        let started = shared.clock.monotonic();
        let stripe = shared.stripe(self.stripe)?;
        // One version throughout: a flush may add a newer run meanwhile.
        let version = Arc::clone(&stripe.version());
        let Choice::Merge(pick) = shared.choose(self.stripe, &version, self.ask) else {
            return Ok(StepResult::Done);
        };
        let Pick { count, output_depth, reaches_oldest, reason } = pick;
        let inputs: Vec<_> = version.runs.iter().take(count).cloned().collect();
        let seq = inputs.iter().map(|run| run.seq()).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let metas = || inputs.iter().flat_map(|run| &run.parts).map(|table| table.meta());
        let first = metas().map(|meta| &meta.keys.0).min();
        let last = metas().map(|meta| &meta.keys.1).max();
        let (Some(seq), Some(first), Some(last)) = (seq, first, last) else {
            return Err(shared.life.health().internal("the picker chose no run to merge"));
        };
        let bounds = (first.clone(), last.clone());
        let now = shared.now();
        let deleted_since =
            inputs.iter().filter_map(|run| run.deleted_since).max_by_key(|since| since.age(now));
        let lengths: Vec<u64> = metas().map(|meta| meta.len).collect();
        let settings = shared.settings.load_full();
        let Some(space) = shared.reserve_merge(&lengths, rewritten(&settings.database, metas())) else {
            // Retried when there is space; a caller that waits for it gets an error.
            return if self.ask == Ask::Full { Err(Error::DiskFull) } else { Ok(StepResult::Done) };
        };
        let is_compressed = |run: &Arc<Run>| run.parts.iter().any(|sst| sst.meta().codec() == Some(LZ4));
        let settled = reason != Reason::Idle || inputs.last().is_some_and(is_compressed);
        let facts = RunFacts {
            depth: output_depth,
            seq,
            oldest: reaches_oldest,
            merged: true,
            settled,
            deleted_since,
        };
        self.state = State::Merging(Box::new(Merging {
            started,
            reason,
            reaches_oldest,
            merge: merge_runs(&inputs)?,
            retain: Retain::new(shared.commits.horizon(), reaches_oldest),
            out: RunWriter::new(settings, self.stripe, facts, bounds, now),
            space: Some(space),
            inputs,
        }));
        Ok(StepResult::Again)
    }
}

impl Merging {
    fn install(&mut self, shared: &Shared, stripe: usize) -> Result<()> {
        let output = self.out.finish(shared)?;
        let written = output.as_ref().map_or(0, |run| run.total(|meta| meta.len));
        debug_assert!(
            self.space.as_ref().is_none_or(|space| space.holds(written)),
            "{written} bytes: {:?}",
            self.space
        );
        let read: u64 = self.inputs.iter().map(|run| run.total(|meta| meta.len)).sum();
        let inputs: Vec<RunId> = self.inputs.iter().map(|run| run.id()).collect();
        let stripe = shared.stripe(stripe)?;
        let gone = stripe.lock().install_compaction(&inputs, output);
        if self.reaches_oldest {
            stripe.passed_over.store(0, Ordering::Relaxed);
        }
        if let Some(space) = self.space.take() {
            space.installed();
        }
        shared.measure_stripes();
        let merged = Merged {
            stripe: stripe.id,
            reason: self.reason,
            runs: inputs.len(),
            ssts: gone.len(),
            bytes_in: read,
            bytes_out: written,
            tombstones_dropped: self.out.tombstones_dropped,
        };
        shared.observed.compacted(merged, self.started);
        self.inputs.clear(); // so that only `obsolete` and readers hold the SSTs
        shared.removal.add_obsolete(gone);
        Ok(())
    }
}

impl Shared {
    /// The picker's choice for a stripe in this version.
    fn choose(&self, stripe: usize, version: &Version, ask: Ask) -> Choice {
        let now = self.now();
        let mut summary = StripeSummary {
            stripe,
            runs: version.runs.iter().map(|run| run.summary(now)).collect(),
            horizon: self.commits.horizon(),
            passed_over: self
                .stripes
                .if_used(stripe)
                .map_or(0, |used| used.passed_over.load(Ordering::Relaxed)),
        };
        let settings = self.settings.load();
        let reclaim = self.space.is_limited() && self.reclaiming();
        let fewer_files = self.space.lacks_inodes();
        let choose = |stripe: &StripeSummary<'_>| {
            for (asked, ask_first) in [(reclaim, Ask::Reclaim), (fewer_files, Ask::FewerFiles)] {
                if ask == Ask::Due
                    && asked
                    && let freeing @ Choice::Merge(_) =
                        picker::choose(stripe, &settings.compaction, ask_first)
                {
                    return freeing;
                }
            }
            picker::choose(stripe, &settings.compaction, ask)
        };
        let chosen = choose(&summary);
        let (held_at, visible) = (summary.horizon, self.commits.visible());
        if chosen != Choice::Nothing || held_at >= visible {
            return chosen;
        }
        summary.horizon = visible;
        if choose(&summary) == Choice::Nothing {
            return Choice::Nothing;
        }
        self.held.hold_back(stripe);
        // The snapshot may have ended meanwhile, before this stripe was recorded as held back.
        summary.horizon = self.commits.horizon();
        if summary.horizon > held_at { choose(&summary) } else { Choice::Nothing }
    }

    /// Whether the stripe has something to merge: the bytes that would be read, which determine the order of stripes.
    pub(crate) fn compaction_due(&self, stripe: usize, ask: Ask) -> Option<u64> {
        let version = Arc::clone(&self.stripes.if_used(stripe)?.version());
        match self.choose(stripe, &version, ask) {
            Choice::Merge(pick) => {
                let inputs = || version.runs.iter().take(pick.count);
                let metas = inputs().flat_map(|run| &run.parts).map(|table| table.meta());
                let bytes = inputs().map(|run| run.total(|meta| meta.len)).sum();
                self.may_merge(self.rewritten(metas)).then_some(bytes)
            }
            Choice::Nothing => None,
        }
    }

    /// Flushes the stripe and merges all its runs, on the caller's thread.
    pub(crate) fn compact_now(&self, stripe: usize) -> Result<()> {
        self.once_there_is_space(|| self.try_compact(stripe))
    }

    /// Runs `attempt`. If it finds no space, waits for running work that may free some, up to the stall limit, and
    /// retries. Once nothing runs, makes a checkpoint and retries: merged inputs take space until then, also those of
    /// work that took what an earlier checkpoint freed.
    pub(crate) fn once_there_is_space(&self, attempt: impl Fn() -> Result<()>) -> Result<()> {
        let since = self.clock.monotonic();
        let (mut tries, mut checkpoint) = (0, true);
        loop {
            let error = match attempt() {
                Err(error) if error.is_out_of_space() => error,
                done => return done,
            };
            tries += 1;
            let limit = self.settings.load().database.write_stall_limit;
            let in_time = self.since(since) <= limit && tries <= MOST_TRIES;
            // On a single thread, a full disk stays full: no other thread frees anything.
            let others = self.workers != Workers::Manual;
            if in_time && (others || self.space.is_limited() || self.space.lacks_inodes()) {
                let began = self.clock.monotonic();
                let waited = self.wait_for_reclaim();
                self.observed.waited(StallReason::Space, began);
                if waited {
                    checkpoint = true;
                    continue;
                }
            }
            if !std::mem::take(&mut checkpoint) {
                return Err(error);
            }
            self.checkpoint_now()?;
        }
    }

    fn try_compact(&self, stripe: usize) -> Result<()> {
        self.flush_stripe_now(stripe)?;
        self.claim(Slot::Compact(stripe))?;
        let mut job = CompactJob::new(stripe, Ask::Full);
        let result = run_to_end(self.life.health(), || job.step(self));
        if result.is_err() {
            Box::new(job).abort(self);
        }
        self.release(Slot::Compact(stripe), result.is_err());
        result
    }
}
