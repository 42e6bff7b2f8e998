//! Effectiveness of filters: how often they were tested, returned negative, and were wrong.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use serde::{Deserialize, Serialize};

use crate::types::FilterTally;

/// Results of filter tests since open. A test checks one filter for one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct FilterStats {
    /// Number of tests.
    pub tests: u64,
    /// Negative results: the key is absent, and neither the index nor a block had to be read.
    pub negatives: u64,
    /// Tests that passed a key that was not in the file.
    pub false_positives: u64,
    /// False positives as a share of the tests of absent keys, 0 to 1; 0 before the first such test.
    pub measured_rate: f64,
    /// The expected share, from the sizes and kinds of the filters tested.
    pub predicted_rate: f64,
}

/// Totals, sharded by stripe: keys spread evenly over stripes, so threads seldom contend for a cache line.
#[derive(Debug)]
pub(crate) struct FilterCounters {
    shards: [CachePadded<FilterShard>; SHARDS],
}

const SHARDS: usize = 64;
const BILLION: f64 = 1e9;

#[derive(Debug, Default)]
struct FilterShard {
    negatives: AtomicU64,
    true_positives: AtomicU64,
    false_positives: AtomicU64,
    expected: AtomicU64,
}

impl FilterCounters {
    pub(super) fn new() -> Self {
        Self { shards: array::from_fn(|_| CachePadded::default()) }
    }

    /// Adds the tally of one lookup in a stripe.
    #[inline]
    pub(crate) fn add(&self, stripe: usize, tally: &FilterTally) {
        // The remainder is always in range; if it were not, only statistics would suffer.
        let Some(shard) = self.shards.get(stripe % SHARDS) else { return };
        // Most lookups have only one of these.
        if tally.negatives > 0 {
            shard.negatives.fetch_add(tally.negatives, Ordering::Relaxed);
        }
        if tally.expected > 0 {
            shard.expected.fetch_add(tally.expected, Ordering::Relaxed);
        }
        if tally.true_positives > 0 {
            shard.true_positives.fetch_add(tally.true_positives, Ordering::Relaxed);
        }
        if tally.false_positives > 0 {
            shard.false_positives.fetch_add(tally.false_positives, Ordering::Relaxed);
        }
    }

    pub(crate) fn stats(&self) -> FilterStats {
        let sum = |of: fn(&FilterShard) -> &AtomicU64| -> u64 {
            self.shards.iter().map(|shard| of(shard).load(Ordering::Relaxed)).sum()
        };
        let negatives = sum(|shard| &shard.negatives);
        let false_positives = sum(|shard| &shard.false_positives);
        let absent = negatives + false_positives;
        let of_absent = |count: f64| if absent == 0 { 0.0 } else { count / absent as f64 };
        FilterStats {
            tests: absent + sum(|shard| &shard.true_positives),
            negatives,
            false_positives,
            measured_rate: of_absent(false_positives as f64),
            predicted_rate: of_absent(sum(|shard| &shard.expected) as f64 / BILLION),
        }
    }
}
