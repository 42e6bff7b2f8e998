//! The amount of work to measure: the same tables in a few minutes or in an hour.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::claims::Claims;

/// The size and the duration of the measurements: a row of `scales` in `claims.toml`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Scale {
    pub(crate) stripes: usize,
    /// Trials of each measurement.
    pub(crate) trials: usize,
    /// Divisor of the chapter's memtable thresholds. 1 except in tests.
    pub(crate) divide: usize,
    /// Items per stripe in measurements that do not depend on a threshold.
    items_per_stripe: u64,
    /// The number of reads behind a latency.
    pub(crate) reads: u64,
    /// Absent keys for filter tests, and the same for 16 and 20 bits, where false positives are rare.
    pub(crate) misses: u64,
    pub(crate) rare_misses: u64,
    /// How long a load is offered, in seconds, and the number of items in a database under load.
    pub(crate) load_seconds: f64,
    pub(crate) load_items: u64,
    /// Seconds between checks when measuring their lag.
    pub(crate) check_interval: u64,
}

impl Scale {
    pub(crate) fn named(name: &str) -> Result<Self> {
        let found = Claims::read()?.scales.remove(name);
        found.with_context(|| format!("--scale {name}: expected quick or full"))
    }

    /// A memtable threshold of the chapter, converted to this scale.
    pub(crate) fn records(&self, threshold: usize) -> usize {
        (threshold / self.divide).max(1)
    }

    /// The number of items in measurements that do not depend on a threshold.
    pub(crate) fn items(&self) -> u64 {
        self.items_per_stripe * self.stripes as u64
    }

    /// The settings of every database: its stripes, and `more`.
    pub(crate) fn settings(&self, more: &str) -> String {
        let comma = if more.is_empty() { "" } else { "," };
        format!("stripes={}{comma}{more}", self.stripes)
    }

    /// A description for the sentence above a table.
    pub(crate) fn text(&self) -> String {
        let tiny = if self.divide > 1 { " Thresholds are divided: these figures mean nothing." } else { "" };
        format!("{} stripes.{tiny}", self.stripes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_names_and_thresholds_of_their_own() {
        let quick = Scale::named("quick").unwrap();
        assert_eq!(quick.records(5000), 5000);
        assert_eq!(Scale::named("full").unwrap().stripes, 256);
        assert_eq!(Scale::named("tiny").unwrap().records(5000), 50);
        assert_eq!(Scale::named("tiny").unwrap().records(50), 1);
        assert!(Scale::named("huge").is_err());
        assert_eq!(quick.settings(""), "stripes=16");
        assert_eq!(quick.settings("sst_threshold=5"), "stripes=16,sst_threshold=5");
    }
}
