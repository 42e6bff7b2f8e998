//! Reading with an exact number of overlapping runs in every stripe: compaction off, and a flush of all stripes after
//! each equal share of the items, which all cover the whole range of keys.

use std::path::Path;

use anyhow::{Result, ensure};
use kstone_api::LsmEngine;
use serde::{Deserialize, Serialize};

use super::{
    Found, VALUE, absent, device_bytes, drop_caches, histogram, open, put, record, set_latency, timed_get,
};
use crate::data::{Values, splitmix};

/// Reads of one thread, one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Runs {
    /// Settings of the database, without compaction.
    pub settings: String,
    /// Runs of each stripe.
    pub runs: usize,
    /// Items in all of them together: the data is the same whatever the number of runs.
    pub items: u64,
    /// Reads of each kind.
    pub reads: u64,
    /// Reads of each kind right after the system has forgotten the files.
    pub cold_reads: u64,
    /// Of all random choices.
    pub seed: u64,
}

impl Runs {
    pub(super) fn measure(&self, directory: &Path) -> Result<Found> {
        // No memtable is flushed before it is told to.
        let settings = format!("{},compaction_enabled=0,max_memtable_records=100000000", self.settings);
        let (engine, _) = open(directory, &settings)?;
        let values = Values::new(VALUE, self.seed)?;
        build(&engine, &values, self.runs, self.items)?;
        let mut found = Found::default();
        let before = engine.stats()?;
        // Once, so that everything is in memory and checked.
        self.reads(&engine, &values, self.reads, true, "discarded", &mut found)?;
        self.reads(&engine, &values, self.reads, true, "hit", &mut found)?;
        let between = engine.stats()?;
        self.reads(&engine, &values, self.reads, false, "miss", &mut found)?;
        let after = engine.stats()?;
        let looked = |later: &kstone_api::EngineStats, earlier: &kstone_api::EngineStats| {
            let gets = later.operations.gets - earlier.operations.gets;
            (later.reads.runs_looked_at - earlier.reads.runs_looked_at) as f64 / gets.max(1) as f64
        };
        found.set("hit_runs", looked(&between, &before));
        found.set("miss_runs", looked(&after, &between));
        engine.close()?;
        for (name, there) in [("cold_hit", true), ("cold_miss", false)] {
            self.cold(directory, &values, there, name, &mut found)?;
        }
        Ok(found)
    }

    fn cold(
        &self,
        directory: &Path,
        values: &Values,
        there: bool,
        name: &str,
        found: &mut Found,
    ) -> Result<()> {
        drop_caches(directory)?;
        let (engine, _) = open(directory, &format!("{},compaction_enabled=0", self.settings))?;
        let before = device_bytes();
        self.reads(&engine, values, self.cold_reads, there, name, found)?;
        let bytes = device_bytes().zip(before).map_or(0.0, |(after, before)| after - before);
        found.set(&format!("{name}_device_bytes"), bytes);
        Ok(engine.close()?)
    }

    fn reads(
        &self,
        engine: &LsmEngine,
        values: &Values,
        reads: u64,
        there: bool,
        name: &str,
        found: &mut Found,
    ) -> Result<()> {
        let mut latencies = histogram()?;
        let mut random = self.seed ^ u64::from(there);
        for _ in 0..reads {
            random = splitmix(random);
            let n = if there { random % self.items } else { absent(random % (1 << 39)) };
            record(&mut latencies, timed_get(engine, values, n, there)?);
        }
        set_latency(found, name, &latencies);
        Ok(())
    }
}

/// Puts so many runs into every stripe, in equal shares of the items.
pub(super) fn build(engine: &LsmEngine, values: &Values, runs: usize, items: u64) -> Result<()> {
    let share = items / runs as u64;
    for run in 0..runs as u64 {
        let end = if run + 1 == runs as u64 { items } else { (run + 1) * share };
        put(engine, values, run * share..end)?;
        engine.flush()?;
    }
    let stats = engine.stats()?;
    let wrong = stats.stripes.iter().find(|stripe| stripe.runs != runs);
    ensure!(stats.stripes.len() == engine.stripe_count(), "a stripe holds nothing: there are too few items");
    if let Some(stripe) = wrong {
        anyhow::bail!("stripe {} has {} runs instead of {runs}", stripe.stripe, stripe.runs);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stripe_gets_exactly_as_many_runs_as_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        for runs in [2, 5] {
            let found =
                Runs { settings: "stripes=4".into(), runs, items: 400, reads: 200, cold_reads: 20, seed: 7 }
                    .measure(&directory.path().join(runs.to_string()))
                    .unwrap();
            // Two of three hits were discarded or counted: on average half of the runs and one.
            assert_eq!(found.get("miss_runs").unwrap(), runs as f64);
            let hit = found.get("hit_runs").unwrap();
            assert!(hit > 1.0 && hit < runs as f64, "{hit}");
            assert!(found.get("cold_miss_p99").unwrap() > 0.0);
        }
        let (engine, _) = open(&directory.path().join("few"), "stripes=16,compaction_enabled=0").unwrap();
        let values = Values::new(VALUE, 1).unwrap();
        assert!(build(&engine, &values, 2, 4).is_err(), "two items cannot be in sixteen stripes");
    }
}
