//! Filters of one size, asked for keys that are in none of the runs.
//!
//! Each get asks the filter of every run of its stripe, so that with 10 runs a million gets are ten million questions.
//! What was asked and what was wrong is counted by the engine (`EngineStats::filter`).

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::runs::build;
use super::{Found, VALUE, absent, histogram, open, record, set_latency, timed_get};
use crate::data::Values;

/// Gets of one thread, one after the other, from memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filters {
    /// Settings of the database but for the bits.
    pub settings: String,
    /// Bits for each key.
    pub bits: usize,
    /// Runs of each stripe.
    pub runs: usize,
    /// Items in all of them together.
    pub items: u64,
    /// Different keys asked for that are not there.
    pub misses: u64,
    /// Of the values.
    pub seed: u64,
}

impl Filters {
    pub(super) fn measure(&self, directory: &Path) -> Result<Found> {
        let settings = format!(
            "{},compaction_enabled=0,max_memtable_records=100000000,bloom_bits_per_key={}",
            self.settings, self.bits
        );
        let (engine, _) = open(directory, &settings)?;
        let values = Values::new(VALUE, self.seed)?;
        let start = Instant::now();
        build(&engine, &values, self.runs, self.items)?;
        let mut found = Found::default();
        found.set("build_seconds", start.elapsed().as_secs_f64());
        let built = engine.stats()?;
        found.set("flush_nanos_per_key", built.flush_nanos as f64 / self.items as f64);
        found.set(
            "filter_bytes_per_million",
            1e6 * engine.estimate_bloom_memory()? as f64 / self.items as f64,
        );

        // Some before the figures begin, so that everything is in memory and checked.
        for n in 0..self.misses / 10 {
            timed_get(&engine, &values, absent(self.misses + n), false)?;
        }
        let before = engine.stats()?;
        let mut latencies = histogram()?;
        for n in 0..self.misses {
            record(&mut latencies, timed_get(&engine, &values, absent(n), false)?);
        }
        let after = engine.stats()?;
        set_latency(&mut found, "miss", &latencies);
        let wrong = (after.filter.false_positives - before.filter.false_positives) as f64;
        let asked = wrong + (after.filter.negatives - before.filter.negatives) as f64;
        ensure!(
            asked == (self.misses * self.runs as u64) as f64,
            "{asked} filters were asked by {} gets over {} runs",
            self.misses,
            self.runs
        );
        found.set("asked", asked);
        found.set("false_positives", wrong);
        found.set("false_positive_percent", 100.0 * wrong / asked);
        found.set("predicted_percent", 100.0 * after.filter.predicted_rate);
        let blocks = (after.reads.blocks_read - before.reads.blocks_read) as f64;
        found.set("blocks_per_get", blocks / self.misses as f64);
        found.set("false_positives_per_get", wrong / self.misses as f64);
        engine.close()?;
        Ok(found)
    }
}

/// What a filter of so many bits per key lets pass with the best number of probes (Bloom 1970), in percent.
pub fn theory(bits: usize) -> f64 {
    let probes = (bits as f64 * std::f64::consts::LN_2).round().max(1.0);
    100.0 * (1.0 - (-probes / bits as f64).exp()).powf(probes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn theory_is_that_of_bloom() {
        for (bits, percent) in [(6, 5.6), (8, 2.2), (10, 0.82), (16, 0.046), (20, 0.0067)] {
            assert!((theory(bits) / percent - 1.0).abs() < 0.05, "{bits}: {}", theory(bits));
        }
    }

    #[test]
    fn false_positives_are_counted_over_all_runs() {
        let directory = tempfile::tempdir().unwrap();
        let probe =
            Filters { settings: "stripes=2".into(), bits: 6, runs: 4, items: 4_000, misses: 5_000, seed: 3 };
        let found = probe.measure(&directory.path().join("6")).unwrap();
        assert_eq!(found.get("asked").unwrap(), 20_000.0);
        let percent = found.get("false_positive_percent").unwrap();
        assert!((4.0..9.0).contains(&percent), "{percent} %");
        let more = Filters { bits: 12, ..probe }.measure(&directory.path().join("12")).unwrap();
        assert!(more.get("false_positive_percent").unwrap() < percent / 5.0);
        assert!(
            more.get("filter_bytes_per_million").unwrap() > found.get("filter_bytes_per_million").unwrap()
        );
    }
}
