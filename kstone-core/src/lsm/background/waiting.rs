//! How callers wait: for a slot, for the end of a job, for space, or for merges of their stripes.

use std::time::Duration;

use smallvec::SmallVec;

use super::Background;
use super::jobs::RETRY_AFTER;
use super::queue::Queue;
use crate::backpressure::StallReason;
use crate::error::Result;
use crate::lsm::job::Slot;
use crate::lsm::options::Workers;
use crate::lsm::state::Shared;
use crate::planted::{Race, raced};
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;

/// How often a waiting caller checks again, in case a wake-up is missed.
const RECHECK: Duration = Duration::from_millis(50);

impl Shared {
    /// Pauses a delayed writer; with a single thread, runs a step of background work instead.
    pub(crate) fn pause(&self, delay: Duration) {
        if self.workers == Workers::Manual {
            self.step_in_turn();
            return;
        }
        self.background.wake.notify_one();
        let mut queue = self.background.queue.lock();
        self.background.progress.wait_for(&mut queue, delay);
    }

    /// Takes a slot for work on the caller's thread, waiting until it is free.
    pub(crate) fn claim(&self, slot: Slot) -> Result<()> {
        let mut since = None;
        let claimed = loop {
            if let Err(error) = self.life.health().check() {
                break Err(error);
            }
            let mut queue = self.background.queue.lock();
            if queue.running.insert(slot) {
                if slot == Slot::Checkpoint {
                    queue.dirty = false;
                }
                break Ok(());
            }
            since.get_or_insert_with(|| self.clock.monotonic());
            self.wait_with(queue);
        };
        if let Some(since) = since {
            self.observed.waited(StallReason::Jobs, since);
        }
        claimed
    }

    /// Releases a claimed slot.
    pub(crate) fn release(&self, slot: Slot, failed: bool) {
        let mut queue = self.background.queue.lock();
        queue.running.remove(&slot);
        queue.ended += 1;
        self.queue_successors(&mut queue, slot, failed);
        drop(queue);
        self.background.progress.notify_all();
        self.background.wake.notify_all();
    }

    /// As long as the guard lives, these stripes are merged before all others, because a caller waits for them.
    pub(crate) fn await_merges(&self, stripes: &[u16]) -> AwaitedMerges<'_> {
        let stripes: SmallVec<[usize; 8]> = stripes.iter().map(|&stripe| stripe.into()).collect();
        let mut queue = self.background.queue.lock();
        for &stripe in &stripes {
            *queue.awaited.entry(stripe).or_default() += 1;
            queue.compact.insert(stripe);
        }
        drop(queue);
        AwaitedMerges { background: &self.background, stripes }
    }

    /// Returns false if the wait timed out.
    fn wait_with(&self, mut queue: MutexGuard<'_, Queue>) -> bool {
        if self.workers == Workers::Manual {
            drop(queue);
            self.step_in_turn();
            return true;
        }
        self.background.wake.notify_all();
        !self.background.progress.wait_for(&mut queue, RECHECK).timed_out()
    }

    /// Waits for a job to end, waking the workers first. Returns false if there is no job that could end, which happens
    /// only with a single thread. `asked` records the state at the caller's last request for sealing, `None` at first.
    pub(crate) fn wait_for_progress(&self, asked: &mut Option<u64>) -> bool {
        if self.workers == Workers::Manual {
            self.seal_memtables();
            return self.step_in_turn();
        }
        let queue = self.background.queue.lock();
        if *asked != Some(queue.ended) || raced(Race::SealingAskedForAlways) {
            *asked = Some(queue.ended);
            self.background.seal_wanted.store(true, Ordering::Relaxed);
        }
        if !self.wait_with(queue) {
            *asked = None;
        }
        true
    }

    /// Waits while running or imminent work may free space; returns false if there is none.
    pub(crate) fn wait_for_reclaim(&self) -> bool {
        if self.workers == Workers::Manual {
            return self.wait_for_progress(&mut None);
        }
        let frees = |slot: &Slot| {
            use Slot::{Checkpoint, Compact, Flush, Removal, Seal};
            matches!(slot, Flush(_) | Compact(_) | Checkpoint | Seal | Removal)
        };
        let mut queue = self.background.queue.lock();
        // SSTs that a reader has just been holding free their space as soon as it ends.
        let soon = self.clock.monotonic().saturating_add(RETRY_AFTER);
        let removes = queue.removal.is_some_and(|at| at <= soon);
        let busy = removes || queue.running.iter().any(frees) || self.ready(&mut queue).iter().any(frees);
        if busy {
            self.wait_with(queue);
        }
        busy
    }
}

/// Stripes whose merges a caller waits for.
#[must_use]
pub(crate) struct AwaitedMerges<'a> {
    background: &'a Background<Shared>,
    stripes: SmallVec<[usize; 8]>,
}

impl Drop for AwaitedMerges<'_> {
    fn drop(&mut self) {
        let mut queue = self.background.queue.lock();
        for stripe in &self.stripes {
            if let Some(waiting) = queue.awaited.get_mut(stripe) {
                *waiting -= 1;
                if *waiting == 0 {
                    queue.awaited.remove(stripe);
                }
            }
        }
    }
}
