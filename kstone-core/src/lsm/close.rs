//! CLOSE: stop the background, make everything durable, record where the log ends.
//!
//! After a clean close the next open reads the log to its recorded end and scans for nothing.

use std::sync::atomic::Ordering;

use super::{LsmEngine, Shared};
use crate::error::Result;
use crate::manifest::{Change, CleanEnd};
use crate::types::Lsn;

/// Memtables whose replay would take longer than this are flushed at close.
const REPLAY_NANOS: u64 = 10_000_000;
/// What replaying a record costs, and reading a byte of the log; measured with 200-byte records.
const NANOS_PER_RECORD: u64 = 400;
const NANOS_PER_KIB: u64 = 400;

impl LsmEngine {
    /// Makes everything durable and closes the database; calls on it return `Closed` from then on, also from
    /// snapshots and iterators that still live. Closing twice is fine.
    ///
    /// # Errors
    /// What stood in the way. All acknowledged writes are then still in the log; only the next open takes longer.
    pub fn close(&self) -> Result<()> {
        let shared = &*self.shared;
        if shared.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        // A write that is under way ends as any other; the next one sees that the database is closed.
        drop(shared.gate.write());
        self.stop_workers();
        let result = if shared.read_only { Ok(()) } else { shared.end_cleanly() };
        *shared.lock.lock() = None;
        result
    }
}

impl Drop for LsmEngine {
    fn drop(&mut self) {
        // Whoever wants the error calls close; what was acknowledged is in the log.
        let _ = self.close();
    }
}

impl Shared {
    fn end_cleanly(&self) -> Result<()> {
        self.health.check()?;
        if !self.opened.load(Ordering::Acquire) {
            return Ok(()); // nothing was written: the manifest still says where the log ends
        }
        let end = self.wal.close()?;
        if self.replay_nanos() > REPLAY_NANOS {
            for stripe in self.used_stripes() {
                self.flush_stripe_now(stripe.id)?;
            }
        }
        self.checkpoint_now()?;
        // Removed names must stay removed: a clean open looks for no orphans.
        self.sync_dir()?;
        let next_file = self.file_ids.next();
        self.edit_manifest(vec![Change::CleanEnd(CleanEnd {
            end: (end.end > Lsn::ZERO).then_some(end.end),
            next_seq: end.next_seq,
            next_generation: end.next_generation,
            next_file,
        })])
    }

    fn replay_nanos(&self) -> u64 {
        let records: u64 =
            self.used_stripes().map(|s| s.version().memtables().map(|m| m.len() as u64).sum::<u64>()).sum();
        records * NANOS_PER_RECORD + self.wal.live_bytes() / 1024 * NANOS_PER_KIB
    }
}
