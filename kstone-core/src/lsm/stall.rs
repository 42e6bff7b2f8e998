//! Backpressure: delays a write before its commit when background work is behind.
//!
//! A delay is proportional to the pressure, a millisecond at most. A stop lasts until the pressure is gone, or the log
//! has space for the record; it wakes the workers repeatedly, and past the stall limit the write fails, so that no
//! writer hangs. Meanwhile the only lock held is the gate, which only close waits for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::state::Shared;
use crate::backpressure::{Pressure, StallReason};
use crate::error::{Error, Result};
use crate::vfs::Floor;
use crate::wal::Reservation;

impl Shared {
    /// Delays the writer according to the backlog of background work, or fails the write if the backlog persists.
    pub(super) fn throttle(&self, stripes: &[u16]) -> Result<()> {
        let mut pressure = self.pressure(stripes);
        if pressure == Pressure::None {
            return Ok(());
        }
        let start = self.clock.monotonic();
        if let Pressure::Delay(delay, reason) = pressure {
            self.pause(delay);
            let took = self.since(start);
            self.observed.delayed(reason, took);
            self.held_up(stripes, took);
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
        self.held_up(stripes, self.since(start));
        result
    }

    /// Counts a write that was held up, for each stripe it is for: a hot one stands out.
    fn held_up(&self, stripes: &[u16], time: Duration) {
        for stripe in stripes.iter().filter_map(|&id| self.stripes.if_used(usize::from(id))) {
            stripe.held_up.fetch_add(1, Ordering::Relaxed);
            stripe.held_up_nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    /// Reserves log space for a record of this length, waiting until the log is short enough. Fails with `DiskFull` at
    /// once if taking the space would leave less free than `floor`.
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

    /// Waits for background work to progress. Fails past the stall limit, or when there is nothing left to wait for.
    fn wait_or_give_up(&self, start: Duration, reason: StallReason, asked: &mut Option<u64>) -> Result<()> {
        let stuck = !self.wait_for_progress(asked);
        let waited = self.since(start);
        if stuck || waited > self.settings.load().database.write_stall_limit {
            let error = self.background_error();
            let cause = error.map(|e| format!("; last background failure: {e}")).unwrap_or_default();
            return Err(Error::WriteStalled { why: format!("{}{cause}", reason.describe()) });
        }
        self.life.check_open()?;
        self.life.health().check()
    }
}
