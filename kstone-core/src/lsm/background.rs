//! Background work: which jobs are due, in which order, and which threads run them.
//!
//! Every job is a state machine with `step()`. In production a small pool of threads runs them; tests run the very same
//! steps one at a time on one thread ([`super::Workers::Manual`]), in an order determined by a seed.
//!
//! 1. At most one flush and one compaction per stripe, one checkpoint and one log sync run at a time: a job holds its
//!    [`super::job::Slot`] from start to end.
//! 2. A failed job leaves everything as it was and is retried after [`jobs::RETRY_AFTER`], then after intervals that
//!    double up to [`jobs::RETRY_AT_LEAST`]. Other jobs continue meanwhile.
//! 3. No stripe is locked while the queue's lock is held, because writers queue flushes under their stripe's lock.
//! 4. Work that becomes due by time does so even without writes: a database that is opened and then only read keeps one
//!    thread while any work is pending that time will make due ([`super::LsmEngine::keep_time`]), and no thread
//!    otherwise. After a clean open the first job of this kind is [`super::job::Slot::Open`]; until then nothing is
//!    written.
//! 5. A waiting caller asks for sealing once, and again when a job other than sealing has ended, or after
//!    [`waiting::RECHECK`]: this prevents a worker and a writer from keeping each other busy while both wait for a
//!    third.
//!
//! Order: first the jobs that only one thread can do at a time and many wait for (space in the log, its sync,
//! checkpoints, and sealing, though never twice in a row), then flushes, which free memory, then compactions: of
//! stripes that writers wait for, then the smallest first (Luo and Carey, "On Performance Stability in LSM-based
//! Storage Systems", 2019).
//!
//! ```text
//! queue      the scheduler's state
//! due        decides which job is due next, and nothing else
//! schedule   the inputs of that decision, and how long a worker may sleep
//! jobs       a job from start to end, its successors, and cleanup after a failure
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

/// The background state of a handle. `C` is the engine that jobs operate on.
#[derive(Debug)]
pub(crate) struct Background<C> {
    queue: Mutex<Queue>,
    /// Signalled when something becomes due.
    wake: Condvar,
    /// Signalled when a job has ended.
    progress: Condvar,
    /// Set by writers without the queue's lock, at most once per relief. Cleared by a swap, so that the thread that
    /// clears it sees the memory usage of all writers that found it set and did not ask again.
    seal_wanted: AtomicBool,
    /// Whether a writer waits for the log to be truncated. `Relaxed`: the writer then asks for relief, which is read
    /// under the queue's lock.
    log_full: AtomicBool,
    /// `Relaxed`: workers check it under the queue's lock, which is acquired after it is set. Between two steps of a
    /// job, a late check only costs one step.
    stop: AtomicBool,
    /// Counts the steps of waiting calls, with [`Workers::Manual`].
    turn: AtomicU64,
    /// Jobs that tests have started and not ended. A leaf lock, acquired under the queue's lock.
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
    /// Wakes a worker, even one that is just falling asleep. The caller holds neither a stripe's lock nor the queue's.
    pub(crate) fn wake_surely(&self) {
        if !raced(Race::WakeWithoutLock) {
            drop(self.queue.lock());
        }
        self.wake.notify_one();
    }

    /// Requests a check for memtables to seal. When it ends, all workers are woken, as after any job.
    pub(crate) fn request_seal(&self) {
        self.seal_wanted.store(true, Ordering::Relaxed);
        self.wake_surely();
    }

    /// Requests that the log be truncated, whatever that takes.
    pub(crate) fn log_is_full(&self) {
        self.log_full.store(true, Ordering::Relaxed);
    }

    pub(crate) fn queue_flush(&self, stripe: usize) {
        self.queue.lock().flush.push_back(stripe);
        self.wake.notify_one();
    }

    /// Checks the stripe for compaction soon.
    pub(crate) fn queue_compaction(&self, stripe: usize) {
        self.queue.lock().compact.insert(stripe);
        self.wake.notify_one();
    }

    /// Explores the stripe for gaps soon. May be called under its lock.
    pub(crate) fn queue_exploration(&self, stripe: usize) {
        self.queue.lock().explore.insert(stripe);
        self.wake.notify_one();
    }

    /// Requests the removal of SSTs that are no longer read.
    pub(crate) fn remove_soon(&self) {
        self.queue.lock().removal = Some(Duration::ZERO);
        self.wake.notify_one();
    }

    /// Forgets the recorded error of a failure that stopped nothing.
    pub(crate) fn forget_noted_error(&self) {
        self.queue.lock().error.take_if(|(slot, _)| *slot == Slot::Seal);
    }
}
