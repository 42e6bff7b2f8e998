//! The scheduler's state: which stripes need work, which jobs run, and which pause after a failure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::lsm::idle::IdleStripes;
use crate::lsm::job::Slot;

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// One entry per sealed memtable.
    pub(super) flush: VecDeque<usize>,
    /// Stripes to check for compaction.
    pub(super) compact: BTreeSet<usize>,
    /// Stripes to explore for gaps.
    pub(super) explore: BTreeSet<usize>,
    pub(super) idle: IdleStripes,
    /// Whether the database has become idle and still holds the memory that it needed before.
    pub(super) memory_idle: bool,
    pub(super) running: BTreeSet<Slot>,
    /// The number of jobs other than sealing that have ended.
    pub(super) ended: u64,
    /// Whether the last job started was sealing: another job comes first now. Waiting callers request sealing again as
    /// soon as a job has ended, so that by urgency alone, sealed memtables might never be flushed.
    pub(super) sealed_last: bool,
    /// Whether a flush or a compaction was installed since the last checkpoint started.
    pub(super) dirty: bool,
    pub(super) last_checkpoint: Duration,
    pub(super) last_sync: Duration,
    pub(super) last_sweep: Duration,
    pub(super) last_stats: Duration,
    /// When to retry the removal of SSTs that were still being read; the number of attempts in vain.
    pub(super) removal: Option<Duration>,
    pub(super) removal_tries: u32,
    /// The maximum number of compactions while no writer needs more; no limit without threads, so that seeds mean the
    /// same on every machine.
    pub(super) calm: Option<usize>,
    /// Stripes whose merges stopped writers wait for, and the number of those writers.
    pub(super) awaited: BTreeMap<usize, usize>,
    /// Failed jobs, and when they may be retried.
    pub(super) resting: BTreeMap<Slot, Rest>,
    /// Whether a worker sleeps only until the next work becomes due by time; the others sleep until they are woken.
    pub(super) has_timekeeper: bool,
    /// The last failure, until something of its kind succeeds.
    pub(super) error: Option<(Slot, String)>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    pub(super) failures: u32,
    pub(super) until: Duration,
    /// If it failed for lack of space: the free bytes of the file system then, if known.
    pub(super) free: Option<u64>,
}
