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

use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::sync::{Condvar, Mutex};

use queue::Queue;

pub(super) use threads::Pool;

#[derive(Debug, Default)]
pub(crate) struct Background {
    queue: Mutex<Queue>,
    /// Something became due.
    wake: Condvar,
    /// A job has ended.
    progress: Condvar,
    /// Set without the queue's lock by writers, at most once per relief. Cleared by a swap, so that the
    /// thread that clears it sees the memory of all writers that found it set and did not ask again.
    relief_wanted: AtomicBool,
    /// A writer waits for the log to become shorter. `Relaxed`: it asks for relief afterwards, which is heard under the
    /// queue's lock.
    log_full: AtomicBool,
    /// `Relaxed`: workers look under the queue's lock, which is taken after it is set; between two steps of a job a look
    /// that comes late only costs a step.
    stop: AtomicBool,
    /// Counts the steps of calls that wait, with [`Workers::Manual`].
    turn: AtomicU64,
}
