//! Idle stripes: those that were not flushed between two sweeps.

use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub(crate) struct IdleStripes {
    flushed: BTreeSet<usize>,
    /// Not flushed in the whole interval before the last sweep, nor since; candidates for merging.
    idle: BTreeSet<usize>,
}

impl IdleStripes {
    pub(crate) fn flushed(&mut self, stripe: usize) {
        self.flushed.insert(stripe);
        self.idle.remove(&stripe);
    }

    /// Ends an interval.
    pub(crate) fn sweep(&mut self, stripes: impl Iterator<Item = usize>) {
        let flushed = std::mem::take(&mut self.flushed);
        self.idle = stripes.filter(|stripe| !flushed.contains(stripe)).collect();
    }

    /// The stripe with the least to merge. `size` returns the bytes a stripe has to merge, if any; stripes with nothing
    /// to merge are not considered again before the next sweep.
    pub(crate) fn smallest(&mut self, size: impl Fn(usize) -> Option<u64>) -> Option<usize> {
        let mut smallest = None;
        self.idle.retain(|&stripe| {
            let size = size(stripe).map(|bytes| (bytes, stripe));
            smallest = [smallest, size].into_iter().flatten().min();
            size.is_some()
        });
        smallest.map(|(_, stripe)| stripe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_what_was_not_flushed_for_a_whole_interval() {
        let mut stripes = IdleStripes::default();
        let sizes = |stripe: usize| (stripe != 3).then_some(100 - stripe as u64);
        assert_eq!(stripes.smallest(sizes), None);
        stripes.flushed(5);
        stripes.sweep(1..=5);
        assert_eq!(stripes.smallest(sizes), Some(4));
        assert_eq!(stripes.smallest(sizes), Some(4), "until nothing is left to merge");
        stripes.flushed(4);
        assert_eq!(stripes.smallest(sizes), Some(2));
        assert_eq!(stripes.smallest(|stripe| (stripe == 3).then_some(0)), None, "it was done with");
        stripes.sweep(1..=5);
        assert_eq!(stripes.smallest(sizes), Some(5));
    }
}
