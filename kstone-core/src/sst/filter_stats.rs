//! What filters are worth: how often they were asked, said no, and were wrong.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use serde::{Deserialize, Serialize};

use crate::types::FilterTally;

/// What filters said, since open. A test is one filter asked for one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct FilterStats {
    /// Filters asked.
    pub tests: u64,
    /// Tests that found the key to be absent, without a look at the index or a block.
    pub negatives: u64,
    /// Tests that let a key pass which was not in the file.
    pub false_positives: u64,
    /// False positives among tests of absent keys, 0 to 1; 0 before the first.
    pub measured_rate: f64,
    /// What that should be by the sizes and shapes of the filters asked.
    pub predicted_rate: f64,
}

/// Totals, in shards by stripe: keys spread evenly over those, so that threads seldom meet on a line of memory.
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

    /// Adds what one look-up in a stripe came to.
    #[inline]
    pub(crate) fn add(&self, stripe: usize, tally: &FilterTally) {
        // The remainder is always within; it only counts.
        let Some(shard) = self.shards.get(stripe % SHARDS) else { return };
        // Most look-ups have only one of these.
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
