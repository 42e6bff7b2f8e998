//! The visibility of writes: the order of commits, and the snapshots that pin a point in it.
//!
//! 1. `visible` is one less than the smallest sequence in flight: everything at or below it is in a memtable.
//! 2. Sequences are registered in order, under the log lock, and published in any order. `visible` is stored under the
//!    lock of `in_flight` and loaded without it: `Release` and `Acquire` ensure that a reader finds every write it may
//!    see in the memtables.
//! 3. The horizon (the oldest snapshot, or `visible`) is read under the lock that registers snapshots, so no snapshot
//!    can appear below a horizon that has just been acted on.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::error::Result;
use crate::health::Health;
use crate::planted::{Bug, Race, planted, raced};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex};
use crate::types::SeqNo;

/// How often a waiting writer checks whether the handle was poisoned.
const RECHECK: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(crate) struct Commits {
    visible: AtomicU64,
    /// The last sequence of each write between its append and its publication, in order, and whether its records are in
    /// the memtables yet.
    in_flight: Mutex<VecDeque<(SeqNo, bool)>>,
    published: Condvar,
    /// The number of snapshots at each sequence.
    snapshots: Mutex<BTreeMap<SeqNo, usize>>,
}

impl Commits {
    /// All writes up to here are visible.
    pub(crate) fn visible(&self) -> SeqNo {
        self.visible.load(Ordering::Acquire)
    }

    /// Recovery only: records that everything up to `seq` has been replayed.
    pub(crate) fn replayed(&self, seq: SeqNo) {
        self.visible.fetch_max(seq, Ordering::Release);
    }

    /// Registers a write that has been appended; `last` is its last sequence. The caller holds the log lock.
    pub(crate) fn register(&self, last: SeqNo) {
        self.in_flight.lock().push_back((last, false));
    }

    /// Publishes a write whose records are in the memtables. Returns whether it was in flight: if not, it may never
    /// become visible.
    #[must_use]
    pub(crate) fn publish(&self, last: SeqNo) -> bool {
        let mut in_flight = self.in_flight.lock();
        let Some(entry) = in_flight.iter_mut().find(|entry| entry.0 == last) else { return false };
        entry.1 = true;
        let mut reached = None;
        while let Some(&(seq, true)) = in_flight.front() {
            reached = Some(seq);
            in_flight.pop_front();
        }
        if let Some(seq) = reached {
            self.visible.store(seq, Ordering::Release);
            self.published.notify_all();
        }
        true
    }

    /// Waits until the write that ends at `seq` is visible. Only writes between two memory operations can hold this up,
    /// so the wait is short, unless one of them panicked; then the handle is poisoned.
    pub(crate) fn wait_visible(&self, seq: SeqNo, health: &Health) -> Result<()> {
        if self.visible() >= seq {
            return Ok(());
        }
        let mut in_flight = self.in_flight.lock();
        while self.visible() < seq {
            health.check()?;
            self.published.wait_for(&mut in_flight, RECHECK);
        }
        Ok(())
    }

    /// Registers a snapshot of the currently visible state.
    pub(crate) fn pin(&self) -> SeqNo {
        let early = raced(Race::SnapshotBeforeLock).then(|| self.visible());
        let mut snapshots = self.snapshots.lock();
        let seq = early.unwrap_or_else(|| self.visible());
        *snapshots.entry(seq).or_default() += 1;
        seq
    }

    /// Ends a snapshot that `pin` registered. Returns whether the horizon may have risen.
    pub(crate) fn unpin(&self, seq: SeqNo) -> bool {
        let mut snapshots = self.snapshots.lock();
        let holders = snapshots.get_mut(&seq);
        debug_assert!(holders.is_some(), "no snapshot holds sequence {seq}");
        // No snapshot was registered here, so the horizon cannot rise.
        let Some(holders) = holders else { return false };
        *holders -= 1;
        if *holders > 0 {
            return false;
        }
        snapshots.remove(&seq);
        snapshots.keys().next().is_none_or(|&oldest| oldest > seq)
    }

    /// No reader reads below this sequence, now or later: of the versions at or below it only the newest matters.
    pub(crate) fn horizon(&self) -> SeqNo {
        let snapshots = self.snapshots.lock();
        let oldest = snapshots.keys().next().copied().filter(|_| !planted(Bug::SnapshotVersionDropped));
        let above = planted(Bug::VersionAboveVisibleDropped) || raced(Race::HorizonAboveVisible);
        let visible = if above { SeqNo::MAX } else { self.visible() };
        oldest.unwrap_or(SeqNo::MAX).min(visible)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_never_comes_ends_in_an_error() {
        let commits = Commits::default();
        commits.register(1);
        let health = Health::default();
        health.poison(&crate::Error::Closed);
        assert!(matches!(commits.wait_visible(1, &health), Err(crate::Error::Poisoned { .. })));
    }

    #[test]
    fn visible_stops_at_the_oldest_write_in_flight() {
        let commits = Commits::default();
        for last in [3, 4, 9] {
            commits.register(last);
        }
        assert!(commits.publish(4));
        assert_eq!(commits.visible(), 0);
        assert!(commits.publish(3));
        assert_eq!(commits.visible(), 4);
        assert!(commits.publish(9) && !commits.publish(10));
        assert_eq!(commits.visible(), 9);
        commits.wait_visible(9, &Health::default()).unwrap();
    }

    #[test]
    fn the_horizon_is_the_oldest_snapshot() {
        let commits = Commits::default();
        commits.replayed(5);
        let first = commits.pin();
        let second = commits.pin();
        commits.replayed(8);
        let third = commits.pin();
        assert_eq!((first, second, third, commits.horizon()), (5, 5, 8, 5));
        assert!(!commits.unpin(first));
        assert_eq!(commits.horizon(), 5);
        assert!(commits.unpin(second));
        assert_eq!(commits.horizon(), 8);
        assert!(commits.unpin(third));
        commits.replayed(10);
        assert_eq!(commits.horizon(), 10);
    }
}
