//! What the scheduler knows: which stripes ask for what, what runs, what rests after a failure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::lsm::idle::IdleStripes;
use crate::lsm::job::Slot;

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// A stripe once per sealed memtable.
    pub(super) flush: VecDeque<usize>,
    /// Stripes to look at for compaction.
    pub(super) compact: BTreeSet<usize>,
    /// Stripes to look through for gaps.
    pub(super) explore: BTreeSet<usize>,
    pub(super) idle: IdleStripes,
    pub(super) running: BTreeSet<Slot>,
    /// How many jobs have ended that are not sealing.
    pub(super) ended: u64,
    /// The last job that was begun is sealing: another comes first now. Callers that wait ask for sealing again as soon as
    /// one has ended, so that by urgency alone nothing that was sealed might ever be flushed.
    pub(super) sealed_last: bool,
    /// A flush or a compaction was installed since the last checkpoint began.
    pub(super) dirty: bool,
    pub(super) last_checkpoint: Duration,
    pub(super) last_sync: Duration,
    pub(super) last_sweep: Duration,
    pub(super) last_stats: Duration,
    /// When to try again to remove SSTs that were still read; how often that was in vain.
    pub(super) removal: Option<Duration>,
    pub(super) removal_tries: u32,
    /// How many compactions run while no writer needs more; no limit without threads, so that seeds mean the same on
    /// every machine.
    pub(super) calm: Option<usize>,
    /// Stripes that stopped writers wait for, and how many do.
    pub(super) awaited: BTreeMap<usize, usize>,
    /// Jobs that failed, and when they may be tried again.
    pub(super) resting: BTreeMap<Slot, Rest>,
    /// A worker sleeps until something becomes due by time alone; the others sleep until they are woken.
    pub(super) has_timekeeper: bool,
    /// The last failure, until something of its kind succeeds.
    pub(super) error: Option<(Slot, String)>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    pub(super) failures: u32,
    pub(super) until: Duration,
}
