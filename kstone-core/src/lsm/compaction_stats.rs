//! Statistics of compactions, by the reason they ran.

use std::sync::atomic::{AtomicU64, Ordering};

use super::LsmEngine;
pub use crate::compaction::picker::Reason as CompactionReason;

/// Compactions done since open.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct CompactionStats {
    /// Compactions done.
    pub total_compactions: u64,
    /// SSTs merged by them.
    pub total_ssts_merged: u64,
    /// Tombstones dropped because there was nothing left for them to shadow: by compactions, and by flushes into an
    /// empty stripe.
    pub total_tombstones_removed: u64,
    /// Bytes of the SSTs that compactions read.
    pub total_bytes_read: u64,
    /// Bytes of the SSTs that compactions wrote.
    pub total_bytes_written: u64,
    /// The same by reason; reasons that never occurred are left out.
    pub by_reason: Vec<CompactionReasonStats>,
}

/// Compactions done for one reason, since open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct CompactionReasonStats {
    /// Why they ran.
    pub reason: CompactionReason,
    /// The number of compactions.
    pub count: u64,
    /// Bytes of SSTs read.
    pub bytes_read: u64,
    /// Bytes of SSTs written.
    pub bytes_written: u64,
}

impl LsmEngine {
    /// Returns what compactions have done since open. Only reads counters; works on a closed database, too.
    pub fn compaction_stats(&self) -> CompactionStats {
        let counters = &self.shared.observed.counters();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let by_reason = counters.compactions_by_reason.iter();
        let by_reason = by_reason.map(|(reason, count, bytes_read, bytes_written)| CompactionReasonStats {
            reason,
            count,
            bytes_read,
            bytes_written,
        });
        CompactionStats {
            total_compactions: get(&counters.compactions),
            total_ssts_merged: get(&counters.ssts_merged),
            total_tombstones_removed: get(&counters.tombstones_removed),
            total_bytes_read: get(&counters.compaction_bytes_read),
            total_bytes_written: get(&counters.compaction_bytes_written),
            by_reason: by_reason.collect(),
        }
    }
}
