//! CLOSE: stops the background, makes everything durable, records the end of the log.
//!
//! After a clean close, the next open reads the log to its recorded end and does not scan for anything.

use std::sync::Arc;

use super::LsmEngine;
use super::state::Shared;
use crate::error::Result;
use crate::manifest::{Change, CleanEnd};
use crate::parallel;
use crate::planted::{Race, raced};
use crate::types::Lsn;
use crate::wal::LogEnd;

/// Memtables whose replay would take longer than this are flushed at close.
const REPLAY_NANOS: u64 = 10_000_000;
/// The measured cost of replaying a record, and of reading a byte of log, with records of 200 bytes.
const NANOS_PER_RECORD: u64 = 400;
const NANOS_PER_KIB: u64 = 400;

impl LsmEngine {
    /// Makes everything durable and closes the database; from then on, calls on it return `Closed`, including those on
    /// remaining snapshots and iterators. Closing twice is a no-op.
    ///
    /// # Errors
    /// `Forked` in any process but the opener's, where nothing is done. Otherwise the error that prevented a clean
    /// close. All acknowledged writes are still in the log then; only the next open takes longer.
    pub fn close(&self) -> Result<()> {
        let shared = &*self.shared;
        shared.life.check_process()?;
        let closing = match self.closing.try_lock() {
            Some(closing) => closing,
            // The other close may be waiting for the worker that is calling this listener.
            None if shared.observed.events().telling_here() => return Ok(()),
            // A concurrent close waits for the first.
            None => self.closing.lock(),
        };
        if !shared.life.close() {
            return Ok(());
        }
        // A running write, flush or compaction ends as usual; the next one finds the database closed. Nothing may touch
        // the directory after the lock is released.
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
            // The threads do not exist here and cannot be joined, locks may be held forever, and the files belong to
            // the opener.
            std::mem::forget(std::mem::take(&mut self.pool));
            self.shared.leak();
            return;
        }
        // A caller that wants the error calls `close`; acknowledged writes are in the log.
        let _ = self.close();
    }
}

impl Shared {
    /// Keeps the state from ever being dropped: in a forked process, see [`Process`](crate::process::Process).
    pub(crate) fn leak(self: &Arc<Self>) {
        std::mem::forget(Arc::clone(self));
    }

    fn end_cleanly(&self) -> Result<()> {
        self.life.health().check()?;
        if !self.life.is_opened() {
            if !self.life.is_unfinished() {
                return Ok(()); // nothing was written: the manifest still records the end of the log
            }
            self.ensure_opened()?;
        }
        let mut log = self.io.wal().close()?;
        if self.replay_nanos() > REPLAY_NANOS {
            let threads = self.workers.threads().for_bytes(self.io.wal().live_bytes());
            let stripes = self.stripes.used().map(|stripe| stripe.id).collect();
            let flushed = parallel::each(threads, stripes, |stripe| self.flush_stripe_now(stripe));
            flushed.into_iter().collect::<Result<()>>()?;
        }
        self.checkpoint_now()?;
        self.give_back_unneeded_log(&mut log)?;
        self.remove_all_obsolete();
        if !self.removal.is_tidy() {
            return Ok(()); // orphans remain: the next open removes them, as after a crash
        }
        // Removed names must stay removed: a clean open does not look for orphans.
        self.io.sync_dir(&self.life)?;
        let next_file = self.io.unused_file_id();
        self.edit_manifest(vec![Change::CleanEnd(CleanEnd {
            end: (log.end > Lsn::ZERO).then_some(log.end),
            next_seq: log.next_seq,
            next_generation: log.next_generation,
            next_file,
        })])
    }

    /// When everything is in SSTs, removes all segments: the log ends where its next segment will start.
    fn give_back_unneeded_log(&self, log: &mut LogEnd) -> Result<()> {
        let needed = self.stripes.used().any(|stripe| stripe.version().memtables().any(|m| !m.is_empty()));
        if needed || self.io.wal().segment_count() == 0 {
            return Ok(());
        }
        // At the highest possible generation, the segment stays.
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
