//! How much is done: the same measurements, for a few minutes or for an hour.

use anyhow::{Result, bail};

/// How large and how long the measurements are.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    /// What `--scale` takes.
    pub name: &'static str,
    /// Stripes of the databases.
    pub stripes: usize,
    /// Trials of each measurement.
    pub trials: usize,
    /// Memtable thresholds of the chapter are divided by this. 1 but for tests.
    pub divide: usize,
    /// Items of measurements that do not depend on a threshold, for each stripe.
    pub items_per_stripe: u64,
    /// Reads that a latency is made of.
    pub reads: u64,
    /// Absent keys that filters are asked for.
    pub misses: u64,
    /// The same with 16 and 20 bits, where false positives are rare.
    pub rare_misses: u64,
    /// Seconds that a load is offered for.
    pub load_seconds: f64,
    /// Items that a database holds under such a load.
    pub load_items: u64,
    /// Seconds between the checks of the measurement of the lag.
    pub check_interval: u64,
}

impl Scale {
    /// One trial with 16 stripes, and as many flushes in each stripe as [`Scale::full`] has.
    pub fn quick() -> Self {
        Self {
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
        }
    }

    /// All stripes, three trials.
    pub fn full() -> Self {
        Self {
            name: "full",
            stripes: 256,
            trials: 3,
            items_per_stripe: 8_000,
            reads: 300_000,
            misses: 1_000_000,
            load_seconds: 60.0,
            load_items: 1_000_000,
            ..Self::quick()
        }
    }

    /// For tests: everything runs, in seconds, and the figures mean nothing.
    pub fn tiny() -> Self {
        Self {
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
            ..Self::quick()
        }
    }

    /// The scale of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self> {
        let all = [Self::quick(), Self::full(), Self::tiny()];
        match all.into_iter().find(|scale| scale.name == name) {
            Some(scale) => Ok(scale),
            None => bail!("--scale {name}: there are quick and full"),
        }
    }

    /// A memtable threshold of the chapter at this scale.
    pub fn records(&self, threshold: usize) -> usize {
        (threshold / self.divide).max(1)
    }

    /// Items of measurements that do not depend on a threshold.
    pub fn items(&self) -> u64 {
        self.items_per_stripe * self.stripes as u64
    }

    /// What every database is given: its stripes.
    pub fn settings(&self, more: &str) -> String {
        let comma = if more.is_empty() { "" } else { "," };
        format!("stripes={}{comma}{more}", self.stripes)
    }

    /// For the sentence above a table.
    pub fn text(&self) -> String {
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
        assert_eq!(Scale::tiny().records(50), 1);
        assert!(Scale::named("huge").is_err());
        assert_eq!(Scale::quick().settings(""), "stripes=16");
        assert_eq!(Scale::quick().settings("sst_threshold=5"), "stripes=16,sst_threshold=5");
    }
}
