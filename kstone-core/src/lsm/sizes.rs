//! Sizes of the keys and values that callers write, from the operations that are timed.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Significant decimal digits that a recorded size keeps.
const DIGITS: u8 = 2;

/// The distribution of sizes in bytes, to two significant digits; all zero without samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SizeSummary {
    /// Number of samples.
    pub count: u64,
    /// Mean.
    pub mean: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Maximum.
    pub max: u64,
}

/// What callers write: sizes in the puts and batches that were timed, one in
/// [`latency_sampling`](crate::DatabaseConfig::latency_sampling).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct WrittenSizes {
    /// Bytes of keys, deleted ones included.
    pub keys: SizeSummary,
    /// Bytes of values.
    pub values: SizeSummary,
}

/// The histograms behind [`WrittenSizes`].
#[derive(Debug, Default)]
pub(crate) struct SizeRecorder {
    histograms: Mutex<Histograms>,
}

#[derive(Debug, Default)]
struct Histograms {
    keys: Option<Histogram<u32>>,
    values: Option<Histogram<u32>>,
}

impl SizeRecorder {
    /// Records one operation; a sample that collides with a reader or another sample is dropped.
    #[cold]
    pub(crate) fn sample(&self, key: usize, value: Option<usize>) {
        if let Some(mut histograms) = self.histograms.try_lock() {
            add(&mut histograms.keys, key);
            value.into_iter().for_each(|value| add(&mut histograms.values, value));
        }
    }

    pub(crate) fn summary(&self) -> WrittenSizes {
        let histograms = self.histograms.lock();
        let of =
            |histogram: &Option<Histogram<u32>>| histogram.as_ref().map(SizeSummary::of).unwrap_or_default();
        WrittenSizes { keys: of(&histograms.keys), values: of(&histograms.values) }
    }
}

fn add(histogram: &mut Option<Histogram<u32>>, bytes: usize) {
    if histogram.is_none() {
        // It grows as needed. The number of digits is valid, so this cannot fail.
        *histogram = Histogram::new(DIGITS).ok();
    }
    if let Some(histogram) = histogram {
        // It can always grow to the size of a value.
        let _ = histogram.record(bytes as u64);
    }
}

impl SizeSummary {
    fn of(histogram: &Histogram<u32>) -> Self {
        Self {
            count: histogram.len(),
            mean: histogram.mean() as u64,
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            max: histogram.max(),
        }
    }
}
