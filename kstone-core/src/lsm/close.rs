//! CLOSE: stop the background, make everything durable, record where the log ends.
//!
//! After a clean close the next open reads the log to its recorded end and scans for nothing.

use std::sync::Arc;

use super::LsmEngine;
use super::state::Shared;
use crate::error::Result;
use crate::manifest::{Change, CleanEnd};
use crate::planted::{Race, raced};
use crate::types::Lsn;
use crate::wal::LogEnd;

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
    /// `Forked`, in any process but the opener's, where nothing is done. Otherwise what stood in the way. All acknowledged writes are then still in the log; only the next open takes longer.
    pub fn close(&self) -> Result<()> {
        let shared = &*self.shared;
        shared.life.check_process()?;
        let closing = match self.closing.try_lock() {
            Some(closing) => closing,
            // The other one may be waiting for the worker that calls the listener.
            None if shared.observed.events().telling_here() => return Ok(()),
            // A second close at the same time waits for the first.
            None => self.closing.lock(),
        };
        if !shared.life.close() {
            return Ok(());
        }
        // A write, flush or compaction that is under way ends as any other; the next one sees that the database
        // is closed. Nothing may touch the directory once the lock is given up.
        if !raced(Race::CloseWithoutGate) {
            shared.life.wait_for_calls();
        }
        self.stop_workers();
        let result = if shared.life.is_read_only() { Ok(()) } else { shared.end_cleanly() };
        let last = shared.observed.write_last_events(result.is_ok());
        shared.remove_stats_file();
        shared.life.unlock();
        drop(closing);
        shared.observed.events().tell_last(last);
        result
    }
}

impl Drop for LsmEngine {
    fn drop(&mut self) {
        if self.is_forked() {
            // Threads that are not there cannot be joined, locks may be held for ever, files are not this process's.
            std::mem::forget(std::mem::take(&mut self.pool));
            self.shared.leak();
            return;
        }
        // Whoever wants the error calls close; what was acknowledged is in the log.
        let _ = self.close();
    }
}

impl Shared {
    /// Never drops it: in a forked process, see [`Process`](crate::process::Process).
    pub(crate) fn leak(self: &Arc<Self>) {
        std::mem::forget(Arc::clone(self));
    }

    fn end_cleanly(&self) -> Result<()> {
        self.life.health().check()?;
        if !self.life.is_opened() {
            if !self.life.is_unfinished() {
                return Ok(()); // nothing was written: the manifest still says where the log ends
            }
            self.ensure_opened()?;
        }
        let mut log = self.io.wal().close()?;
        if self.replay_nanos() > REPLAY_NANOS {
            for stripe in self.stripes.used() {
                self.flush_stripe_now(stripe.id)?;
            }
        }
        self.checkpoint_now()?;
        self.give_back_unneeded_log(&mut log)?;
        self.remove_all_obsolete();
        if !self.removal.is_tidy() {
            return Ok(()); // files were left that belong to nothing: the next open removes them, as after a crash
        }
        // Removed names must stay removed: a clean open looks for no orphans.
        self.io.sync_dir(&self.life)?;
        let next_file = self.io.unused_file_id();
        self.edit_manifest(vec![Change::CleanEnd(CleanEnd {
            end: (log.end > Lsn::ZERO).then_some(log.end),
            next_seq: log.next_seq,
            next_generation: log.next_generation,
            next_file,
        })])
    }

    /// When everything has reached SSTs, no segment is left behind: the log ends where its next one will begin.
    fn give_back_unneeded_log(&self, log: &mut LogEnd) -> Result<()> {
        let needed = self.stripes.used().any(|stripe| stripe.version().memtables().any(|m| !m.is_empty()));
        if needed || self.io.wal().segment_count() == 0 {
            return Ok(());
        }
        // At the last generation there is, the segment stays.
        let Some(next_generation) = log.next_generation.checked_add(1) else { return Ok(()) };
        let start = Lsn::new(log.next_generation, 0);
        self.edit_manifest(vec![Change::LogStart { start, durable: self.io.wal().synced() }])?;
        self.retire_log(start.generation());
        log.end = start;
        log.next_generation = next_generation;
        Ok(())
    }

    fn replay_nanos(&self) -> u64 {
        let records: u64 =
            self.stripes.used().map(|s| s.version().memtables().map(|m| m.len() as u64).sum::<u64>()).sum();
        records * NANOS_PER_RECORD + self.io.wal().live_bytes() / 1024 * NANOS_PER_KIB
    }
}
