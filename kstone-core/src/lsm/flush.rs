//! FLUSH: a sealed memtable becomes a run.
//!
//! seal (under the stripe's lock) -> write the SSTs -> install (under the stripe's lock). The SSTs are readable at
//! once, but durable only after the next checkpoint; until then the log still holds their records.

use std::sync::Arc;
use std::time::Duration;

use super::job::{Job, Slot, StepResult, run_to_end};
use super::run_writer::{RunFacts, RunWriter, copy};
use super::state::Shared;
use super::trace;
use crate::compaction::Retain;
use crate::error::Result;
use crate::key::KeyRange;
use crate::memtable::{MemCursor, Memtable};
use crate::planted::{Bug, Race, planted, raced};
use crate::quota::{Share, flush_bytes};
use crate::types::{Direction, SeqNo};

/// The flush of a stripe's oldest sealed memtable, in steps.
#[derive(Debug)]
pub(crate) struct FlushJob {
    stripe: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Next: [`FlushJob::begin`].
    Start,
    /// Next: [`copy`] until the memtable is exhausted.
    Writing(Box<Writing>),
}

#[derive(Debug)]
struct Writing {
    started: Duration,
    memtable: Arc<Memtable>,
    cursor: MemCursor,
    retain: Retain,
    out: RunWriter,
    /// Bytes already written: space for those no longer has to be kept free.
    written: Share,
}

impl Job<Shared> for FlushJob {
    fn step(&mut self, shared: &Shared) -> Result<StepResult> {
        let _span = trace::job("flush", Some(self.stripe));
        shared.life.health().check()?; // a poisoned handle writes nothing any more
        match &mut self.state {
            State::Start => self.begin(shared),
            State::Writing(writing) => {
                let Writing { cursor, retain, out, written, .. } = &mut **writing;
                let copied = copy(shared, cursor, retain, out);
                written.set(out.written());
                if copied? == StepResult::Again {
                    return Ok(StepResult::Again);
                }
                let run = writing.out.finish(shared)?;
                let memtable = Arc::clone(&writing.memtable);
                let bytes = run.as_ref().map_or(0, |run| run.total(|meta| meta.len));
                debug_assert!(
                    bytes
                        <= flush_bytes(
                            memtable.memory() as u64,
                            1,
                            shared.settings.load().database.target_sst_size
                        ),
                    "{bytes} bytes of {} records, {} of memory",
                    memtable.len(),
                    memtable.memory()
                );
                shared.stripe(self.stripe)?.lock().install_flush(&memtable, run);
                // Better to count it twice for a moment than not at all.
                writing.written.set(0);
                shared.space.flushed(memtable.memory());
                shared.measure_stripes();
                shared.observed.flushed(self.stripe, &memtable, bytes, writing.started);
                let (settings, memory) = (shared.settings.load(), shared.space.memory());
                shared.tuner.retune(
                    &shared.stripes,
                    &settings,
                    memory,
                    &*shared.clock,
                    self.stripe,
                    &memtable,
                );
                Ok(StepResult::Done)
            }
        }
    }

    /// Aborts: removes the SSTs written so far; the memtable stays sealed.
    fn abort(self: Box<Self>, shared: &Shared) {
        if let State::Writing(writing) = self.state {
            writing.out.abandon(shared);
        }
    }
}

impl FlushJob {
    pub(crate) fn new(stripe: usize) -> Self {
        Self { stripe, state: State::Start }
    }

    fn begin(&mut self, shared: &Shared) -> Result<StepResult> {
        let started = shared.clock.monotonic();
        let stripe = shared.stripe(self.stripe)?;
        let locked = stripe.lock();
        // Another flush of this stripe may have finished first.
        let Some(memtable) = locked.oldest_sealed() else { return Ok(StepResult::Done) };
        // Only flushes create a stripe's first run, and this is the only flush: still true at installation.
        let reaches_oldest = locked.version().runs.is_empty() || planted(Bug::TombstoneDroppedEarly);
        drop(locked);
        // Otherwise a version could be dropped in favour of one that is not visible yet. A horizon of at most `visible`
        // would be enough by itself, and so would this wait; `kstone-shuttle` shows that without both a get finds
        // nothing.
        if !planted(Bug::VersionAboveVisibleDropped) && !raced(Race::FlushOfUnseen) {
            shared.commits.wait_visible(memtable.last_seq(), shared.life.health())?;
        }
        let Some(bounds) = memtable.key_bounds() else {
            return Err(shared.life.health().internal("an empty memtable was sealed"));
        };
        let seq = (memtable.first_seq(), memtable.last_seq());
        let deleted_since = memtable.deleted_since();
        let facts =
            RunFacts { depth: 0, seq, oldest: reaches_oldest, merged: false, settled: false, deleted_since };
        self.state = State::Writing(Box::new(Writing {
            started,
            cursor: memtable.cursor(&KeyRange::all(), SeqNo::MAX, Direction::Forward),
            retain: Retain::new(shared.commits.horizon(), reaches_oldest),
            out: RunWriter::new(shared.settings.load_full(), self.stripe, facts, bounds, shared.now()),
            written: shared.space.begin_flush(),
            memtable,
        }));
        Ok(StepResult::Again)
    }
}

impl Shared {
    /// Seals the stripe's memtable and flushes all its sealed memtables, on the caller's thread.
    pub(crate) fn flush_stripe_now(&self, stripe: usize) -> Result<()> {
        // A stripe that was never used has nothing to flush.
        let Some(used) = self.stripes.if_used(stripe) else { return Ok(()) };
        self.seal(used);
        // Writers may keep sealing: memtables sealed after this are not waited for.
        let last = used.version().sealed.first().map_or(0, |newest| newest.last_seq());
        while used.lock().oldest_sealed().is_some_and(|oldest| oldest.first_seq() <= last) {
            self.claim(Slot::Flush(stripe))?;
            let mut job = FlushJob::new(stripe);
            let result = run_to_end(self.life.health(), || job.step(self));
            if result.is_err() {
                Box::new(job).abort(self);
            }
            // After a failure as well: the queue still knows that the memtable is sealed.
            self.release(Slot::Flush(stripe), false);
            result?;
        }
        Ok(())
    }
}
