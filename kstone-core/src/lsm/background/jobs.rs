//! Jobs from start to end, and what follows them: other jobs, or a retry after a pause.

use std::time::Duration;

use super::queue::Queue;
use crate::compaction::picker::Ask;
use crate::error::{Error, Result};
use crate::lsm::checkpoint::CheckpointJob;
use crate::lsm::compact::CompactJob;
use crate::lsm::flush::FlushJob;
use crate::lsm::job::{Job, Slot, StepResult};
use crate::lsm::state::Shared;

/// The pause after a job's first failure.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(100);
/// The longest pause.
const RETRY_AT_LEAST: Duration = Duration::from_secs(30);

/// A job with a single step.
#[derive(Debug)]
struct Once(Slot);

impl Job<Shared> for Once {
    fn step(&mut self, engine: &Shared) -> Result<StepResult> {
        match self.0 {
            Slot::Segment => engine.prepare_segment()?,
            Slot::LogSync => engine.io.wal().sync()?,
            Slot::Watermark => engine.io.wal().append_watermark()?,
            Slot::Stats => engine.write_stats_file(),
            Slot::Explore(stripe) => engine.explore(stripe),
            Slot::Open => engine.ensure_opened()?,
            Slot::Removal => engine.remove_obsolete(),
            Slot::Seal => engine.seal_memtables(),
            Slot::ReleaseMemory => engine.stripes.release_memory(),
            Slot::Flush(_) | Slot::Compact(_) | Slot::Checkpoint => {}
        }
        Ok(StepResult::Done)
    }

    fn abort(self: Box<Self>, _: &Shared) {}
}

impl Shared {
    /// Marks the slot as taken and creates its job.
    pub(super) fn begin(&self, queue: &mut Queue, slot: Slot) -> Box<dyn Job<Self>> {
        queue.running.insert(slot);
        queue.sealed_last = slot == Slot::Seal;
        match slot {
            Slot::Flush(stripe) => {
                if let Some(at) = queue.flush.iter().position(|&queued| queued == stripe) {
                    queue.flush.remove(at);
                }
                return Box::new(FlushJob::new(stripe));
            }
            Slot::Compact(stripe) => {
                let ask = if queue.compact.remove(&stripe) { Ask::Due } else { Ask::Idle };
                return Box::new(CompactJob::new(stripe, ask));
            }
            Slot::Checkpoint => {
                queue.dirty = false;
                queue.last_checkpoint = self.clock.monotonic();
                return Box::new(CheckpointJob::Start);
            }
            Slot::LogSync | Slot::Watermark => {
                queue.last_sync = self.clock.monotonic();
            }
            Slot::Stats => {
                queue.last_stats = self.clock.monotonic();
            }
            Slot::Explore(stripe) => {
                queue.explore.remove(&stripe);
            }
            Slot::Removal => {
                queue.removal = None;
                queue.removal_tries += 1;
            }
            Slot::ReleaseMemory => queue.memory_idle = false,
            Slot::Segment | Slot::Seal | Slot::Open => {}
        }
        Box::new(Once(slot))
    }

    /// Ends a job: frees its slot and queues its successors.
    pub(super) fn end(&self, slot: Slot, job: Box<dyn Job<Self>>, result: Result<()>) {
        let failed = result.is_err();
        if failed {
            job.abort(self);
        }
        // Before the job counts as done: callers that wait for space must find what it freed.
        if !failed && matches!(slot, Slot::Checkpoint | Slot::Compact(_)) {
            self.remove_obsolete();
        }
        let freed_files = !failed && slot == Slot::Checkpoint && self.space.lacks_inodes();
        if freed_files {
            self.check_inodes();
        }
        let full = result.as_ref().is_err_and(Error::is_out_of_space);
        let free = if full { self.free_space().map(|free| free.bytes) } else { None };
        let failure = result.as_ref().err().map(|error| (slot, self.job_failed(slot, error)));
        let mut queue = self.background.queue.lock();
        if freed_files {
            // Jobs that failed for lack of inodes may be retried at once.
            queue
                .resting
                .retain(|slot, _| !matches!(slot, Slot::Flush(_) | Slot::Compact(_) | Slot::Segment));
        }
        queue.running.remove(&slot);
        queue.ended += u64::from(slot != Slot::Seal);
        match result {
            Ok(()) => {
                queue.resting.remove(&slot);
                if queue
                    .error
                    .as_ref()
                    .is_some_and(|(kind, _)| std::mem::discriminant(kind) == std::mem::discriminant(&slot))
                {
                    queue.error = None;
                }
            }
            Err(_) => {
                queue.error = failure;
                let rest = queue.resting.entry(slot).or_default();
                let pause = RETRY_AFTER.saturating_mul(1 << rest.failures.min(20)).min(RETRY_AT_LEAST);
                rest.failures += 1;
                rest.free = free;
                rest.until = self.clock.monotonic() + pause;
            }
        }
        self.queue_successors(&mut queue, slot, failed);
        drop(queue);
        self.background.progress.notify_all();
        self.background.wake.notify_all();
    }

    /// Ends the pauses of jobs that failed for lack of space, if the file system has more of it than then: others may
    /// have freed some, and a write that needs what these jobs free would be refused until they are over.
    pub(crate) fn retry_where_space_was_freed(&self) {
        if !self.background.queue.lock().resting.values().any(|rest| rest.free.is_some()) {
            return;
        }
        let Some(now) = self.free_space() else { return };
        let until = self.clock.monotonic();
        for rest in self.background.queue.lock().resting.values_mut() {
            if rest.free.is_some_and(|free| free < now.bytes) {
                rest.until = rest.until.min(until);
            }
        }
    }

    pub(super) fn queue_successors(&self, queue: &mut Queue, slot: Slot, failed: bool) {
        match slot {
            Slot::Flush(stripe) => {
                if failed {
                    queue.flush.push_front(stripe);
                } else {
                    queue.dirty = true;
                    queue.compact.insert(stripe);
                    queue.idle.flushed(stripe, self.clock.monotonic());
                }
            }
            Slot::Compact(stripe) => {
                queue.dirty |= !failed;
                queue.compact.insert(stripe);
            }
            Slot::Checkpoint => {
                queue.dirty |= failed;
                if !failed && self.space.is_limited() {
                    // Merges that found no space may find some now.
                    queue.compact.extend(self.stripes.used().map(|stripe| stripe.id));
                }
            }
            Slot::Segment | Slot::Seal | Slot::LogSync | Slot::Watermark => {}
            Slot::Stats | Slot::Open | Slot::Explore(_) | Slot::Removal | Slot::ReleaseMemory => {}
        }
    }

    /// Records whether any obsolete SSTs are still being read. If so, their removal is retried when a reader ends, and
    /// also after growing pauses, for readers that do not report their end.
    pub(crate) fn remove_once_unread(&self, read: bool) {
        let mut queue = self.background.queue.lock();
        if read {
            let pause = RETRY_AFTER.saturating_mul(1 << queue.removal_tries.min(20)).min(RETRY_AT_LEAST);
            queue.removal = Some(self.clock.monotonic() + pause);
        } else {
            (queue.removal, queue.removal_tries) = (None, 0);
        }
        self.held.wait_for_readers(read);
        drop(queue);
        if read {
            self.background.wake.notify_one();
        }
    }

    /// The last background failure, unless the work has succeeded since.
    pub(crate) fn background_error(&self) -> Option<String> {
        self.background.queue.lock().error.as_ref().map(|(_, error)| error.clone())
    }

    /// Records a failure that stops nothing, for the statistics.
    pub(crate) fn note_background_error(&self, error: &Error) {
        let text = self.job_failed(Slot::Seal, error);
        self.background.queue.lock().error = Some((Slot::Seal, text));
    }
}
