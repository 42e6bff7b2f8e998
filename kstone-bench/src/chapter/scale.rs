//! How much is done: the same measurements, for a few minutes or for an hour.

use anyhow::{Context, Result};

/// How large and how long the measurements are.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    /// What `--scale` takes.
    name: &'static str,
    pub(crate) stripes: usize,
    /// Of each measurement.
    pub(crate) trials: usize,
    /// Memtable thresholds of the chapter are divided by this. 1 but for tests.
    pub(crate) divide: usize,
    /// Of measurements that do not depend on a threshold.
    items_per_stripe: u64,
    /// Reads that a latency is made of.
    pub(crate) reads: u64,
    /// Absent keys that filters are asked for, and with 16 and 20 bits, where false positives are rare.
    pub(crate) misses: u64,
    pub(crate) rare_misses: u64,
    /// Seconds that a load is offered for, and items that a database holds under it.
    pub(crate) load_seconds: f64,
    pub(crate) load_items: u64,
    /// Seconds between the checks of the measurement of the lag.
    pub(crate) check_interval: u64,
}

/// One trial with 16 stripes, and as many flushes in each stripe as with all.
const QUICK: Scale = Scale {
    name: "quick",
    stripes: 16,
    trials: 1,
    divide: 1,
    items_per_stripe: 20_000,
    reads: 100_000,
    misses: 100_000,
    rare_misses: 1_000_000,
    load_seconds: 10.0,
    load_items: 200_000,
    check_interval: 10,
};

/// All stripes, three trials.
const FULL: Scale = Scale {
    name: "full",
    stripes: 256,
    trials: 3,
    items_per_stripe: 8_000,
    reads: 300_000,
    misses: 1_000_000,
    load_seconds: 60.0,
    load_items: 1_000_000,
    ..QUICK
};

/// For tests: everything runs, in seconds, and the figures mean nothing.
const TINY: Scale = Scale {
    name: "tiny",
    stripes: 2,
    divide: 100,
    items_per_stripe: 600,
    reads: 300,
    misses: 1_000,
    rare_misses: 1_000,
    load_seconds: 0.2,
    load_items: 1_000,
    check_interval: 1,
    ..QUICK
};

impl Scale {
    pub(crate) fn named(name: &str) -> Result<Self> {
        let found = [QUICK, FULL, TINY].into_iter().find(|scale| scale.name == name);
        found.with_context(|| format!("--scale {name}: there are quick and full"))
    }

    /// A memtable threshold of the chapter at this scale.
    pub(crate) fn records(&self, threshold: usize) -> usize {
        (threshold / self.divide).max(1)
    }

    /// Items of measurements that do not depend on a threshold.
    pub(crate) fn items(&self) -> u64 {
        self.items_per_stripe * self.stripes as u64
    }

    /// What every database is given: its stripes.
    pub(crate) fn settings(&self, more: &str) -> String {
        let comma = if more.is_empty() { "" } else { "," };
        format!("stripes={}{comma}{more}", self.stripes)
    }

    /// For the sentence above a table.
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
        assert_eq!(Scale::named("quick").unwrap().records(5000), 5000);
        assert_eq!(Scale::named("full").unwrap().stripes, 256);
        assert_eq!(Scale::named("tiny").unwrap().records(5000), 50);
        assert_eq!(TINY.records(50), 1);
        assert!(Scale::named("huge").is_err());
        assert_eq!(QUICK.settings(""), "stripes=16");
        assert_eq!(QUICK.settings("sst_threshold=5"), "stripes=16,sst_threshold=5");
    }
}
