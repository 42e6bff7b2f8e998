//! Totals since open: background work done, and waits of callers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::backpressure::StallReason;
use crate::compaction::picker::Reason;

/// Each counter is updated where its event happens.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(super) flushes: AtomicU64,
    pub(super) flush_bytes_written: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) ssts_merged: AtomicU64,
    pub(super) tombstones_removed: AtomicU64,
    pub(super) compaction_bytes_read: AtomicU64,
    pub(super) compaction_bytes_written: AtomicU64,
    pub(super) compactions_by_reason: ByReason,
    pub(super) checkpoints: AtomicU64,
    pub(super) flush_nanos: AtomicU64,
    pub(super) compaction_nanos: AtomicU64,
    pub(super) checkpoint_nanos: AtomicU64,
    pub(super) stalls: [StallCounters; StallReason::ALL.len()],
}

#[derive(Debug, Default)]
pub(super) struct StallCounters {
    pub(super) delays: AtomicU64,
    pub(super) stops: AtomicU64,
    pub(super) nanos: AtomicU64,
    pub(super) longest_nanos: AtomicU64,
}

impl Counters {
    pub(super) fn flushed(&self, bytes: u64, took: Duration) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.flush_bytes_written.fetch_add(bytes, Ordering::Relaxed);
        self.flush_nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(super) fn compacted(&self, reason: Reason, ssts: usize, read: u64, written: u64, took: Duration) {
        self.compactions.fetch_add(1, Ordering::Relaxed);
        self.ssts_merged.fetch_add(ssts as u64, Ordering::Relaxed);
        self.compaction_bytes_read.fetch_add(read, Ordering::Relaxed);
        self.compaction_bytes_written.fetch_add(written, Ordering::Relaxed);
        self.compactions_by_reason.add(reason, read, written);
        self.compaction_nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(super) fn tombstone_dropped(&self) {
        self.tombstones_removed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn checkpointed(&self, took: Duration) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.checkpoint_nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Counts a write that was delayed.
    pub(super) fn delayed(&self, reason: StallReason, time: Duration) {
        self.stalled(reason, time, |stall| &stall.delays);
    }

    /// Counts a write that had to wait until the pressure was gone, or that gave up.
    pub(super) fn stopped(&self, reason: StallReason, time: Duration) {
        self.stalled(reason, time, |stall| &stall.stops);
    }

    fn stalled(&self, reason: StallReason, time: Duration, kind: fn(&StallCounters) -> &AtomicU64) {
        if let Some(stall) = self.stalls.get(reason as usize) {
            let nanos = time.as_nanos() as u64;
            kind(stall).fetch_add(1, Ordering::Relaxed);
            stall.nanos.fetch_add(nanos, Ordering::Relaxed);
            stall.longest_nanos.fetch_max(nanos, Ordering::Relaxed);
        }
    }
}

/// Counters by reason.
#[derive(Debug, Default)]
pub(crate) struct ByReason([Counts; Reason::ALL.len()]);

#[derive(Debug, Default)]
struct Counts {
    count: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

impl ByReason {
    fn add(&self, reason: Reason, read: u64, written: u64) {
        if let Some(counts) = self.0.get(reason as usize) {
            counts.count.fetch_add(1, Ordering::Relaxed);
            counts.bytes_read.fetch_add(read, Ordering::Relaxed);
            counts.bytes_written.fetch_add(written, Ordering::Relaxed);
        }
    }

    /// The count, bytes read and bytes written of each reason that occurred.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Reason, u64, u64, u64)> {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let all = Reason::ALL.into_iter().zip(&self.0);
        all.map(move |(reason, counts)| {
            (reason, get(&counts.count), get(&counts.bytes_read), get(&counts.bytes_written))
        })
        .filter(|(_, count, ..)| *count > 0)
    }
}
