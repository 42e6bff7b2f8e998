//! Background work: what is due, in which order, and which threads run it.
//!
//! Every job is a state machine with `step()`. In production a small pool of threads runs them; tests run the very
//! same steps one at a time on one thread ([`super::Workers::Manual`]), in an order that a seed chooses.
//!
//! 1. At most one flush and one compaction per stripe, one checkpoint and one log sync at a time: a job holds its
//!    [`super::job::Slot`] from start to end.
//! 2. A failed job leaves everything as it was and is tried again: after [`jobs::RETRY_AFTER`], then after twice as
//!    long each time up to [`jobs::RETRY_AT_LEAST`]. Others go on meanwhile.
//! 3. Under the queue's lock no stripe is locked, for writers queue flushes under their stripe's lock.
//! 4. What is due by time is due also without writes: a database that is only read after it was opened keeps one thread
//!    while there is something that time will make due ([`super::LsmEngine::keep_time`]), and none otherwise. After a
//!    clean open the first such job is [`super::job::Slot::Open`]; until then nothing is written.
//! 5. A caller that waits asks for sealing once, and again when a job has ended that is not sealing itself, or after
//!    [`waiting::RECHECK`]: a worker and a writer do not keep each other busy while both wait for a third.
//!
//! Order: first what only one thread can do at a time and many wait for (room in the log, its sync, checkpoints,
//! sealing, though never twice in a row), then flushes, which free memory, then compactions: those of stripes that
//! writers wait for, then the smallest first (Luo and Carey, "On Performance Stability in LSM-based Storage Systems",
//! 2019).
//!
//! ```text
//! queue      what the scheduler knows
//! due        what is due, in which order: the decision alone
//! schedule   what that depends on, and how long a worker may sleep
//! jobs       a job from beginning to end, its successors, the rest after a failure
//! sealing    which memtables are sealed, for memory and for the log
//! waiting    how callers wait for jobs
//! steps      one step at a time, without threads
//! threads    the pool
//! ```

mod due;
mod jobs;
mod queue;
mod schedule;
mod sealing;
mod steps;
#[cfg(test)]
mod tests;
mod threads;
mod waiting;

use std::time::Duration;

use super::job::{Job, Slot};
use crate::planted::{Race, raced};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex};

use queue::Queue;

pub(super) use threads::Pool;

/// What a handle's background is, `C` being the engine that jobs work in.
#[derive(Debug)]
pub(crate) struct Background<C> {
    queue: Mutex<Queue>,
    /// Something became due.
    wake: Condvar,
    /// A job has ended.
    progress: Condvar,
    /// Set without the queue's lock by writers, at most once per relief. Cleared by a swap, so that the
    /// thread that clears it sees the memory of all writers that found it set and did not ask again.
    seal_wanted: AtomicBool,
    /// A writer waits for the log to become shorter. `Relaxed`: it asks for relief afterwards, which is heard under the
    /// queue's lock.
    log_full: AtomicBool,
    /// `Relaxed`: workers look under the queue's lock, which is taken after it is set; between two steps of a job a look
    /// that comes late only costs a step.
    stop: AtomicBool,
    /// Counts the steps of calls that wait, with [`Workers::Manual`].
    turn: AtomicU64,
    /// Jobs that tests have begun and not ended. A leaf, taken under the queue's lock.
    begun: Mutex<Vec<Begun<C>>>,
}

type Begun<C> = (Slot, Box<dyn Job<C>>);

impl<C> Default for Background<C> {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            wake: Condvar::default(),
            progress: Condvar::default(),
            seal_wanted: AtomicBool::new(false),
            log_full: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            turn: AtomicU64::new(0),
            begun: Mutex::default(),
        }
    }
}

impl<C> Background<C> {
    /// Wakes a worker, also one that is just falling asleep. The caller holds no stripe's lock, nor the queue's.
    pub(crate) fn wake_surely(&self) {
        if !raced(Race::WakeWithoutLock) {
            drop(self.queue.lock());
        }
        self.wake.notify_one();
    }

    /// Has memtables looked at for sealing. The end of that wakes all workers, as that of any job.
    pub(crate) fn request_seal(&self) {
        self.seal_wanted.store(true, Ordering::Relaxed);
        self.wake_surely();
    }

    /// Has the log made shorter, whatever that takes.
    pub(crate) fn log_is_full(&self) {
        self.log_full.store(true, Ordering::Relaxed);
    }

    pub(crate) fn queue_flush(&self, stripe: usize) {
        self.queue.lock().flush.push_back(stripe);
        self.wake.notify_one();
    }

    /// Looks at the stripe for compaction soon.
    pub(crate) fn queue_compaction(&self, stripe: usize) {
        self.queue.lock().compact.insert(stripe);
        self.wake.notify_one();
    }

    /// Looks for gaps in the stripe soon. May be called under its lock.
    pub(crate) fn queue_exploration(&self, stripe: usize) {
        self.queue.lock().explore.insert(stripe);
        self.wake.notify_one();
    }

    /// Has SSTs removed that were read until now.
    pub(crate) fn remove_soon(&self) {
        self.queue.lock().removal = Some(Duration::ZERO);
        self.wake.notify_one();
    }

    /// What was noted of failures that stopped nothing holds no longer.
    pub(crate) fn forget_noted_error(&self) {
        self.queue.lock().error.take_if(|(slot, _)| *slot == Slot::Seal);
    }
}
