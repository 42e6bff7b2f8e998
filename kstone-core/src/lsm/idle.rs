//! Idle stripes: those that were not flushed for a whole interval between two sweeps, and all of them once nothing at all
//! was flushed for [`QUIET`].

use std::collections::BTreeSet;
use std::time::Duration;

/// How long nothing is flushed until the whole database is idle. Longer than a writer pauses between two batches, and
/// much shorter than the interval of sweeps: readers that follow a load find it merged.
pub(crate) const QUIET: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct IdleStripes {
    flushed: BTreeSet<usize>,
    /// Not flushed in the whole interval before the last sweep, nor since; candidates for merging.
    idle: BTreeSet<usize>,
    /// The other candidates, while the whole database is idle.
    others: BTreeSet<usize>,
    /// The last flush, until the database was idle.
    last_flush: Option<Duration>,
}

impl IdleStripes {
    pub(crate) fn flushed(&mut self, stripe: usize, now: Duration) {
        self.flushed.insert(stripe);
        self.idle.remove(&stripe);
        self.others.clear();
        self.last_flush = Some(now);
    }

    /// Ends an interval.
    pub(crate) fn sweep(&mut self, stripes: impl Iterator<Item = usize>) {
        let flushed = std::mem::take(&mut self.flushed);
        self.idle = stripes.filter(|stripe| !flushed.contains(stripe)).collect();
    }

    /// When the whole database will be idle, if nothing is flushed until then; `None` if it has been idle already.
    pub(crate) fn quiet_at(&self) -> Option<Duration> {
        self.last_flush.map(|flush| flush.saturating_add(QUIET))
    }

    /// Whether the whole database has become idle.
    pub(crate) fn check(&mut self, now: Duration, stripes: impl Iterator<Item = usize>) -> bool {
        let quiet = self.quiet_at().is_some_and(|at| at <= now);
        if quiet {
            self.last_flush = None;
            self.others = stripes.filter(|stripe| !self.idle.contains(stripe)).collect();
        }
        quiet
    }

    /// The stripe with the least to merge. `size` returns the bytes a stripe has to merge, if any; stripes with nothing
    /// to merge are not considered again before the next sweep or pause.
    pub(crate) fn smallest(&mut self, size: impl Fn(usize) -> Option<u64>) -> Option<usize> {
        let mut smallest = None;
        let mut has_work = |&stripe: &usize| {
            let size = size(stripe).map(|bytes| (bytes, stripe));
            smallest = [smallest, size].into_iter().flatten().min();
            size.is_some()
        };
        self.idle.retain(&mut has_work);
        self.others.retain(&mut has_work);
        smallest.map(|(_, stripe)| stripe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_but_3(stripe: usize) -> Option<u64> {
        (stripe != 3).then_some(100 - stripe as u64)
    }

    #[test]
    fn idle_is_what_was_not_flushed_for_a_whole_interval() {
        let mut stripes = IdleStripes::default();
        assert_eq!(stripes.smallest(all_but_3), None);
        stripes.flushed(5, Duration::ZERO);
        stripes.sweep(1..=5);
        assert_eq!(stripes.smallest(all_but_3), Some(4));
        assert_eq!(stripes.smallest(all_but_3), Some(4), "until nothing is left to merge");
        stripes.flushed(4, Duration::ZERO);
        assert_eq!(stripes.smallest(all_but_3), Some(2));
        assert_eq!(stripes.smallest(|stripe| (stripe == 3).then_some(0)), None, "it was done with");
        stripes.sweep(1..=5);
        assert_eq!(stripes.smallest(all_but_3), Some(5));
    }

    #[test]
    fn everything_is_idle_once_nothing_was_flushed_for_a_while() {
        let mut stripes = IdleStripes::default();
        let at = Duration::from_secs;
        assert!(!stripes.check(at(100), 1..=5));
        assert_eq!((stripes.quiet_at(), stripes.smallest(all_but_3)), (None, None), "there was no flush");
        stripes.flushed(5, at(100));
        stripes.flushed(4, at(101));
        assert_eq!(stripes.quiet_at(), Some(at(101) + QUIET));
        assert!(!stripes.check(at(102), 1..=5));
        assert_eq!(stripes.smallest(all_but_3), None, "not yet");
        assert!(stripes.check(at(103), 1..=5) && !stripes.check(at(103), 1..=5));
        assert_eq!((stripes.quiet_at(), stripes.smallest(all_but_3)), (None, Some(5)));
        stripes.flushed(5, at(104));
        assert_eq!(stripes.smallest(all_but_3), None, "writers are back");
        // But for stripes that they leave alone.
        stripes.sweep(1..=5);
        stripes.flushed(5, at(105));
        stripes.sweep(1..=5);
        assert!(stripes.check(at(200), 1..=5));
        stripes.flushed(5, at(201));
        assert_eq!(stripes.smallest(all_but_3), Some(4));
    }
}
