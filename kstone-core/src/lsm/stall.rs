//! Waiting: what a writer does before its commit when background work is behind.
//!
//! A delay is in proportion to the pressure, at most a millisecond. A stop lasts until the pressure is gone, or the
//! log has room for the record; it wakes the workers for that again and again, and past the stall limit the write
//! fails, so no writer hangs. No lock is held meanwhile but the gate, which close alone waits for.

use std::time::Duration;

use super::state::Shared;
use crate::backpressure::{Pressure, StallReason};
use crate::error::{Error, Result};
use crate::vfs::Floor;
use crate::wal::Reservation;

impl Shared {
    /// Slows the writer down as far as background work is behind, or refuses when it stays behind.
    pub(super) fn throttle(&self, stripes: &[u16]) -> Result<()> {
        let mut pressure = self.pressure(stripes);
        if pressure == Pressure::None {
            return Ok(());
        }
        let start = self.clock.monotonic();
        if let Pressure::Delay(delay, reason) = pressure {
            self.pause(delay);
            self.observed.delayed(reason, self.since(start));
            return Ok(());
        }
        let _awaited = self.await_merges(stripes);
        let (mut result, mut asked, mut since) = (Ok(()), None, start);
        while let (Pressure::Stop(reason), Ok(())) = (pressure, &result) {
            result = self.wait_or_give_up(start, reason, &mut asked);
            pressure = self.pressure(stripes);
            if result.is_err() || pressure != Pressure::Stop(reason) {
                let now = self.clock.monotonic();
                self.observed.stopped(reason, now.saturating_sub(since));
                since = now;
            }
        }
        result
    }

    /// Room in the log for a record of that length, waiting until the log has become short enough; `DiskFull` at once
    /// when what it takes does not leave that much free.
    pub(super) fn reserve(&self, len: usize, floor: Floor<'_>) -> Result<Reservation<'_>> {
        let max = self.settings.load().log.max_record;
        if len > max {
            return Err(Error::BatchTooLarge { len, max });
        }
        match self.io.wal().reserve_at_once(len)? {
            Some(reservation) => Ok(reservation),
            None => self.reserve_slowly(len, floor),
        }
    }

    #[cold]
    fn reserve_slowly(&self, len: usize, floor: Floor<'_>) -> Result<Reservation<'_>> {
        let since = self.clock.monotonic();
        let reserved = self.io.wal().try_reserve(len, floor);
        self.observed.waited(StallReason::Segment, since);
        match reserved? {
            Some(reservation) => Ok(reservation),
            None => self.wait_for_log(len, floor),
        }
    }

    #[cold]
    fn wait_for_log(&self, len: usize, floor: Floor<'_>) -> Result<Reservation<'_>> {
        let (start, mut asked) = (self.clock.monotonic(), None);
        loop {
            self.background.log_is_full();
            let waited = self.wait_or_give_up(start, StallReason::Log, &mut asked);
            let reserved = match self.io.wal().try_reserve(len, floor) {
                Ok(None) if waited.is_ok() => continue,
                reserved => reserved,
            };
            self.observed.stopped(StallReason::Log, self.since(start));
            return match reserved? {
                Some(reservation) => Ok(reservation),
                None => Err(waited.err().unwrap_or(Error::Closed)),
            };
        }
    }

    /// Waits for background work to get on; an error past the stall limit, or when nothing is left to wait for.
    fn wait_or_give_up(&self, start: Duration, reason: StallReason, asked: &mut Option<u64>) -> Result<()> {
        let stuck = !self.wait_for_progress(asked);
        let waited = self.since(start);
        if stuck || waited > self.settings.load().database.write_stall_limit {
            let error = self.background_error();
            let cause = error.map(|e| format!("; the last failure was: {e}")).unwrap_or_default();
            return Err(Error::WriteStalled { why: format!("{}{cause}", reason.describe()) });
        }
        self.life.check_open()?;
        self.life.health().check()
    }
}
