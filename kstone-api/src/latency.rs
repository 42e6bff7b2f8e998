//! [`LatencyTracker`]: percentiles of latencies, in bounded memory.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;

/// Records latencies in microseconds and computes their percentiles.
///
/// Samples are counted in a histogram of three significant digits: a percentile is at most 0.1 % above the sample it
/// represents, and exact below 2048 us. Memory is constant, less than 256 KiB. Samples above
/// [`LatencyTracker::MAX_US`] count as that value.
///
/// ```
/// let mut tracker = kstone_api::LatencyTracker::new();
/// for us in 1..=1000 {
///     tracker.record(us);
/// }
/// let percentiles = tracker.percentiles();
/// assert_eq!((percentiles["P50"], percentiles["P99"], percentiles["P99.9"]), (500, 990, 999));
/// ```
#[derive(Clone, Debug)]
pub struct LatencyTracker {
    histogram: Histogram<u64>,
}

impl LatencyTracker {
    /// The largest latency that is recorded exactly: one hour.
    pub const MAX_US: u64 = 3_600_000_000;

    /// A tracker without samples.
    #[expect(clippy::expect_used, reason = "the arguments are constants, which a test shows to be valid")]
    pub fn new() -> Self {
        Self { histogram: Histogram::new_with_bounds(1, Self::MAX_US, 3).expect("constant bounds") }
    }

    /// Records one operation of this many microseconds.
    pub fn record(&mut self, latency_us: u64) {
        self.histogram.saturating_record(latency_us.min(Self::MAX_US));
    }

    /// The 50th, 90th, 99th and 99.9th percentiles in microseconds, under `P50`, `P90`, `P99` and `P99.9`; all 0 without
    /// samples.
    pub fn percentiles(&self) -> BTreeMap<&'static str, u64> {
        [("P50", 0.5), ("P90", 0.9), ("P99", 0.99), ("P99.9", 0.999)]
            .map(|(name, quantile)| (name, self.histogram.value_at_quantile(quantile)))
            .into()
    }

    /// The number of samples.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The longest sample in microseconds; 0 without samples.
    pub fn max(&self) -> u64 {
        self.histogram.max()
    }

    /// Adds the samples of another tracker. With one tracker per thread, merged at the end, no lock is needed.
    pub fn add(&mut self, other: &Self) {
        // Cannot fail: both have the same bounds.
        self.histogram.add(&other.histogram).unwrap_or_default();
    }
}

impl Default for LatencyTracker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for LatencyTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, us) in self.percentiles() {
            write!(f, "{name} {us} us  ")?;
        }
        write!(f, "max {} us  of {}", self.max(), self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_samples_percentiles_are_zero() {
        let tracker = LatencyTracker::new();
        let expected = [("P50", 0), ("P90", 0), ("P99", 0), ("P99.9", 0)];
        assert_eq!(tracker.percentiles(), BTreeMap::from(expected));
        assert_eq!(tracker.to_string(), "P50 0 us  P90 0 us  P99 0 us  P99.9 0 us  max 0 us  of 0");
    }

    #[test]
    fn percentiles_keep_three_digits_up_to_an_hour() {
        for scale in [1, 7, 1000, 123_456] {
            let mut tracker = LatencyTracker::new();
            for i in 1..=10_000 {
                tracker.record(i * scale);
            }
            for (name, share) in [("P50", 5000), ("P90", 9000), ("P99", 9900), ("P99.9", 9990)] {
                let (exact, told) = (share * scale, tracker.percentiles()[name]);
                assert!(told >= exact && told - exact <= exact / 1000, "{name}: {told} for {exact}");
            }
        }
    }

    #[test]
    fn any_number_is_taken_in_the_same_memory() {
        let mut tracker = LatencyTracker::new();
        let cells = tracker.histogram.distinct_values();
        for us in [0, 1, LatencyTracker::MAX_US, LatencyTracker::MAX_US + 1, u64::MAX] {
            tracker.record(us);
        }
        assert_eq!(tracker.count(), 5);
        let longest = LatencyTracker::MAX_US..LatencyTracker::MAX_US / 1000 * 1001;
        assert!(longest.contains(&tracker.max()), "{}", tracker.max());
        assert_eq!(tracker.histogram.distinct_values(), cells);
        assert!(cells * size_of::<u64>() < 256 << 10, "{cells} cells");
    }

    #[test]
    fn trackers_of_several_threads_add_up() {
        let (mut all, mut one, mut other) =
            (LatencyTracker::new(), LatencyTracker::new(), LatencyTracker::new());
        for us in 0..1000 {
            all.record(us);
            if us % 3 == 0 { &mut one } else { &mut other }.record(us);
        }
        one.add(&other);
        assert_eq!((one.percentiles(), one.count()), (all.percentiles(), all.count()));
    }
}
