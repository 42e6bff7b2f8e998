//! Latencies counted in buckets chosen by the caller, for monitoring systems that aggregate the reports of many
//! processes: percentiles cannot be added.

use super::{Latencies, Operation, Recorder};

/// The timed calls of one operation, by duration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatencyBuckets {
    /// One count per bound: of times up to and including it, and above the previous one. The last count is of times
    /// above all bounds.
    pub counts: Vec<u64>,
    /// Sum of all times, in nanoseconds, each to three digits.
    pub sum_nanos: u64,
}

impl Recorder {
    /// For each operation, under its name in [`Latencies`], the counts per bucket; bounds are ascending.
    pub(crate) fn buckets(&self, bounds_nanos: &[u64]) -> [(&'static str, LatencyBuckets); Operation::COUNT] {
        let mut histograms = self.histograms.iter();
        Latencies::default().all().map(|(name, _)| {
            let histogram = histograms.next().and_then(|histogram| histogram.lock().clone());
            let mut buckets = LatencyBuckets { counts: vec![0; bounds_nanos.len() + 1], sum_nanos: 0 };
            for value in histogram.iter().flat_map(|histogram| histogram.iter_recorded()) {
                let (nanos, count) = (value.value_iterated_to(), value.count_at_value().into());
                let at = bounds_nanos.partition_point(|&bound| bound < nanos);
                if let Some(bucket) = buckets.counts.get_mut(at) {
                    *bucket += count;
                }
                buckets.sum_nanos = buckets.sum_nanos.saturating_add(nanos.saturating_mul(count));
            }
            (name, buckets)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_time_is_counted_in_one_bucket_the_bound_included() {
        let recorder = Recorder::default();
        for nanos in [0, 9, 10, 11, 100, 101, 5000] {
            recorder.record(Operation::Checkpoint, Duration::from_nanos(nanos));
        }
        let all = recorder.buckets(&[10, 100, 1000]);
        let names: Vec<_> = Latencies::default().all().iter().map(|(name, _)| *name).collect();
        assert_eq!(all.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
        for (name, buckets) in all {
            if name == "checkpoint" {
                assert_eq!(buckets.counts, [3, 2, 1, 1]);
                assert!((5231..5240).contains(&buckets.sum_nanos), "{}", buckets.sum_nanos);
            } else {
                assert_eq!((buckets.counts, buckets.sum_nanos), (vec![0; 4], 0), "{name}");
            }
        }
    }
}
