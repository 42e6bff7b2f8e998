//! Decides which memtables are sealed, and when: for the memory budget, the log's limit, and old deletes.

use std::sync::Arc;

use crate::lsm::settings::Settings;
use crate::lsm::state::Shared;
use crate::stripe::Stripe;
use crate::sync::atomic::Ordering;
use crate::types::Lsn;

impl Shared {
    /// Records that a memtable of the stripe was sealed.
    pub(crate) fn sealed(&self, stripe: usize, memory: usize) {
        self.space.sealed(memory);
        self.background.queue_flush(stripe);
    }

    /// Seals the stripe's memtable and queues its flush.
    pub(crate) fn seal(&self, stripe: &Stripe) {
        let sealed = stripe.lock().seal();
        if let Some(memory) = sealed {
            self.sealed(stripe.id, memory);
        }
    }

    /// Wakes the background when a write has exceeded the memory budget or reached a new log segment.
    pub(crate) fn seal_if_over(&self, memory: usize, budget: usize, lsn: Lsn) {
        let new_segment = self.io.reached_segment(lsn.generation());
        if (memory > budget || new_segment) && !self.background.seal_wanted.swap(true, Ordering::AcqRel) {
            // No other writer asks again: a worker that has just checked and is about to sleep must be woken.
            self.background.wake_surely();
        }
    }

    /// Seals memtables: the fullest ones while the active memtables exceed the memory budget, and those that keep a log
    /// near its limit from being truncated.
    pub(super) fn seal_memtables(&self) {
        self.background.seal_wanted.swap(false, Ordering::AcqRel);
        self.seal_for_space();
        let settings = self.settings.load();
        for stripe in self.stripes.used().filter(|stripe| self.keeps_old_deletes(&settings, stripe)) {
            self.seal(stripe);
        }
        loop {
            if self.space.unsealed_memory() <= settings.memory_budget {
                break;
            }
            let fullest = self.stripes.used().max_by_key(|stripe| stripe.version().active.memory());
            match fullest {
                Some(stripe) if !stripe.version().active.is_empty() => self.seal(stripe),
                _ => break,
            }
        }
        self.shorten_log(settings.log.limit, self.background.log_full.swap(false, Ordering::Relaxed));
    }

    /// Whether a delete has been in memory for so long that the versions it shadows should be gone from disk by now:
    /// only flushed deletes take part in merges.
    pub(super) fn keeps_old_deletes(&self, settings: &Settings, stripe: &Stripe) -> bool {
        let limit = settings.compaction.tombstone_age.filter(|_| settings.compaction.enabled);
        let since = stripe.version().active.deleted_since();
        limit.zip(since).is_some_and(|(limit, since)| since.age(self.now()) > limit)
    }

    /// When the log has grown to three quarters of its limit, seals the memtables that pin its oldest half. Over the
    /// limit, or when a writer waits, all segments but the current one must go; if only that one is left, the log
    /// rotates.
    fn shorten_log(&self, limit: u64, full: bool) {
        let live = self.io.wal().live_bytes();
        if !full && live <= limit / 4 * 3 {
            return;
        }
        let urgent = full || live > limit;
        if urgent {
            match self.io.wal().rotate_last() {
                Ok(_) => {}
                Err(error) => self.note_background_error(&error),
            }
        }
        let (oldest, newest) = (self.io.wal().oldest_generation(), self.io.wal().tail().generation());
        let half = oldest + newest.saturating_sub(oldest).div_ceil(2);
        let keep_from = if urgent { newest } else { half };
        let mut needed_from = newest;
        for stripe in self.stripes.used() {
            let version = Arc::clone(&stripe.version());
            if version.active.first_lsn().is_some_and(|lsn| lsn.generation() < keep_from) {
                self.seal(stripe);
            }
            let needed = version.memtables().filter_map(|memtable| memtable.first_lsn()).min();
            needed_from = needed.map_or(needed_from, |lsn| needed_from.min(lsn.generation()));
        }
        // Segments may be kept only because flushed SSTs are not covered by a checkpoint yet.
        if needed_from > oldest && !self.removal.pins().hold_log() {
            self.background.queue.lock().dirty = true;
        }
    }
}
