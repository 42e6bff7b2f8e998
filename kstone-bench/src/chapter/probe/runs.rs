//! Reads with an exact number of overlapping runs in every stripe: compaction is off, and all stripes are flushed after
//! each equal share of the items, which all cover the whole key range. Also merges runs created in this way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use kstone_api::{CompactionConfig, EngineStats, Event, LsmEngine};
use serde::{Deserialize, Serialize};

use super::{EventLog, Figures, Setup, absent, histogram, put, record, timed_get};
use crate::data::{Values, splitmix};
use crate::resources::{Usage, drop_from_cache, processor_time};

/// Settings that flush memtables only on request, and merge nothing.
const BY_HAND: &str = "compaction_enabled=0,max_memtable_records=100000000";
/// The interval between two reads beside a merge.
const EVERY: Duration = Duration::from_micros(500);
/// Longer than any debt takes here.
const LIMIT: Duration = Duration::from_secs(600);

/// Sequential reads by one thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Runs {
    /// Runs per stripe.
    pub(crate) runs: usize,
    /// Items in all runs together: the data is the same whatever the number of runs.
    pub(crate) items: u64,
    /// Reads of each kind, warm.
    pub(crate) reads: u64,
    /// Reads of each kind, right after dropping the files from the page cache.
    pub(crate) cold_reads: u64,
}

impl Runs {
    pub(super) fn measure(&self, setup: &Setup) -> Result<Figures> {
        let (engine, _) = setup.open(BY_HAND)?;
        let values = setup.values()?;
        build(&engine, &values, self.runs, self.items)?;
        let mut found = Figures::default();
        let before = engine.stats()?;
        // Warms up, so that everything is in memory and verified.
        self.reads(&engine, setup, self.reads, true)?;
        found.set_latency("hit", &self.reads(&engine, setup, self.reads, true)?);
        let between = engine.stats()?;
        found.set_latency("miss", &self.reads(&engine, setup, self.reads, false)?);
        let after = engine.stats()?;
        let looked = |later: &EngineStats, earlier: &EngineStats| {
            let gets = later.operations.gets - earlier.operations.gets;
            (later.reads.runs_looked_at - earlier.reads.runs_looked_at) as f64 / gets.max(1) as f64
        };
        found.set("hit_runs", looked(&between, &before));
        found.set("miss_runs", looked(&after, &between));
        engine.close()?;
        for (name, there) in [("cold_hit", true), ("cold_miss", false)] {
            drop_from_cache(&setup.directory)?;
            let (engine, _) = setup.open("compaction_enabled=0")?;
            let before = Usage::now()?.read_bytes;
            found.set_latency(name, &self.reads(&engine, setup, self.cold_reads, there)?);
            found.set(&format!("{name}_device_bytes"), (Usage::now()?.read_bytes - before) as f64);
            engine.close()?;
        }
        Ok(found)
    }

    fn reads(&self, engine: &LsmEngine, setup: &Setup, reads: u64, there: bool) -> Result<Histogram<u64>> {
        let (values, mut latencies) = (setup.values()?, histogram()?);
        let mut random = setup.seed ^ u64::from(there);
        for _ in 0..reads {
            random = splitmix(random);
            let n = if there { random % self.items } else { absent(random % (1 << 39)) };
            record(&mut latencies, timed_get(engine, &values, n, there)?);
        }
        Ok(latencies)
    }
}

/// Creates this many runs in every stripe, in equal shares of the items.
fn build(engine: &LsmEngine, values: &Values, runs: usize, items: u64) -> Result<()> {
    let share = items / runs as u64;
    for run in 0..runs as u64 {
        let end = if run + 1 == runs as u64 { items } else { (run + 1) * share };
        put(engine, values, run * share..end)?;
        engine.flush()?;
    }
    let stats = engine.stats()?;
    ensure!(stats.stripes.len() == engine.stripe_count(), "a stripe holds nothing: there are too few items");
    if let Some(wrong) = stats.stripes.iter().find(|stripe| stripe.runs != runs) {
        bail!("stripe {} has {} runs instead of {runs}", wrong.stripe, wrong.runs);
    }
    Ok(())
}

/// Filters of one size, tested from memory with keys that are in none of the runs. Each get tests the filter of every
/// run of its stripe, so with 10 runs a million gets are ten million tests; the engine counts them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Filters {
    /// Filter bits per key.
    pub(crate) bits: usize,
    pub(crate) runs: usize,
    pub(crate) items: u64,
    /// The number of distinct absent keys to get.
    pub(crate) misses: u64,
}

impl Filters {
    pub(super) fn measure(&self, setup: &Setup) -> Result<Figures> {
        let (engine, _) = setup.open(&format!("{BY_HAND},bloom_bits_per_key={}", self.bits))?;
        let values = setup.values()?;
        build(&engine, &values, self.runs, self.items)?;
        let mut found = Figures::default();
        found.set("flush_nanos_per_key", engine.stats()?.flush_nanos as f64 / self.items as f64);
        let memory = engine.estimate_bloom_memory()? as f64;
        found.set("filter_bytes_per_million", 1e6 * memory / self.items as f64);

        // Warms up, so that everything is in memory and verified.
        for n in 0..self.misses / 10 {
            timed_get(&engine, &values, absent(self.misses + n), false)?;
        }
        let before = engine.stats()?;
        let mut latencies = histogram()?;
        for n in 0..self.misses {
            record(&mut latencies, timed_get(&engine, &values, absent(n), false)?);
        }
        let after = engine.stats()?;
        found.set_latency("miss", &latencies);
        let wrong = (after.filter.false_positives - before.filter.false_positives) as f64;
        let asked = wrong + (after.filter.negatives - before.filter.negatives) as f64;
        let (misses, runs) = (self.misses as f64, self.runs as f64);
        ensure!(asked == misses * runs, "{asked} filters were tested by {misses} gets over {runs} runs");
        found.set("asked", asked);
        found.set("false_positive_percent", 100.0 * wrong / asked);
        found.set("blocks_per_get", (after.reads.blocks_read - before.reads.blocks_read) as f64 / misses);
        found.set("false_positives_per_get", wrong / misses);
        engine.close()?;
        Ok(found)
    }
}

/// The false positives of a filter with this many bits per key and the optimal number of probes (Bloom 1970), in
/// percent.
pub(crate) fn theory(bits: usize) -> f64 {
    let probes = (bits as f64 * std::f64::consts::LN_2).round().max(1.0);
    100.0 * (1.0 - (-probes / bits as f64).exp()).powf(probes)
}

/// Merges runs that were created while compaction was off, one merge per stripe, while one reader sends gets at a fixed
/// rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Debt {
    /// Concurrent compactions.
    pub(crate) concurrent: usize,
    /// Runs of each stripe, which are merged into one.
    pub(crate) runs: usize,
    pub(crate) items: u64,
}

impl Debt {
    pub(super) fn measure(&self, setup: &Setup) -> Result<Figures> {
        let (engine, log) = setup.open(BY_HAND)?;
        let values = setup.values()?;
        build(&engine, &values, self.runs, self.items)?;
        let stop = AtomicBool::new(false);
        let (merged, latencies) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| self.read(&engine, setup, &stop));
            let merged = self.merge(&engine, &log);
            stop.store(true, Ordering::Relaxed);
            (merged, reader.join())
        });
        let mut found = merged?;
        found.set_latency("read", &latencies.map_err(|_| anyhow!("the reader panicked"))??);
        engine.close()?;
        Ok(found)
    }

    fn merge(&self, engine: &LsmEngine, log: &EventLog) -> Result<Figures> {
        let (start, used) = (Instant::now(), processor_time());
        // With twice as many runs as the threshold, no core is left free: as many compactions run as are allowed.
        let threshold = (self.runs / 2).max(2);
        let config = CompactionConfig::new().with_sst_threshold(threshold);
        engine.set_compaction_config(config.with_max_concurrent(self.concurrent))?;
        log.wait_for_compactions(engine.stripe_count(), LIMIT)?;
        let cpu_seconds = (processor_time() - used).as_secs_f64();
        let (mut end, mut bytes, mut times) = (start, 0, Vec::new());
        for (at, event) in log.events() {
            if let Event::Compaction { bytes_in, bytes_out, duration, .. } = event {
                end = end.max(at);
                bytes += bytes_in + bytes_out;
                times.push((at.checked_sub(duration).unwrap_or(start), at));
            }
        }
        let seconds = (end - start).as_secs_f64();
        let mut found = Figures::default();
        found.set("together", most_together(&times) as f64);
        found.set("items_per_second", self.items as f64 / seconds);
        found.set("bytes_per_second", bytes as f64 / seconds);
        found.set("cores_used", cpu_seconds / seconds);
        Ok(found)
    }

    /// Measures latencies from the time when each read was due.
    fn read(&self, engine: &LsmEngine, setup: &Setup, stop: &AtomicBool) -> Result<Histogram<u64>> {
        let (values, mut latencies) = (setup.values()?, histogram()?);
        let (start, mut asked, mut random) = (Instant::now(), 0, setup.seed);
        while !stop.load(Ordering::Relaxed) {
            let due = start + EVERY * asked;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            random = splitmix(random);
            timed_get(engine, &values, random % self.items, true)?;
            record(&mut latencies, due.elapsed().as_nanos() as u64);
            asked += 1;
        }
        Ok(latencies)
    }
}

/// The largest number of these periods that contain the middle of any one of them. Events are received slightly late,
/// so a period that follows another without a pause seems to overlap with it at the ends.
fn most_together(times: &[(Instant, Instant)]) -> usize {
    let within = |moment: Instant| times.iter().filter(|(from, to)| *from <= moment && moment < *to).count();
    times.iter().map(|(from, to)| within(*from + (*to - *from) / 2)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stripe_gets_exactly_as_many_runs_as_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        for runs in [2, 5] {
            let setup = Setup::of(&directory.path().join(runs.to_string()), "stripes=4", 7);
            let found = Runs { runs, items: 400, reads: 200, cold_reads: 20 }.measure(&setup).unwrap();
            // Two of three hits were discarded or counted: on average half of the runs plus one.
            assert_eq!(found.get("miss_runs").unwrap(), runs as f64);
            let hit = found.get("hit_runs").unwrap();
            assert!(hit > 1.0 && hit < runs as f64, "{hit}");
            assert!(found.get("cold_miss_p99").unwrap() > 0.0);
        }
        let few = Setup::of(&directory.path().join("few"), "stripes=16", 1);
        let (engine, _) = few.open("compaction_enabled=0").unwrap();
        let values = few.values().unwrap();
        assert!(build(&engine, &values, 2, 4).is_err(), "two items cannot be in sixteen stripes");
    }

    #[test]
    fn theory_is_that_of_bloom() {
        for (bits, percent) in [(6, 5.6), (8, 2.2), (10, 0.82), (16, 0.046), (20, 0.0067)] {
            assert!((theory(bits) / percent - 1.0).abs() < 0.05, "{bits}: {}", theory(bits));
        }
    }

    #[test]
    fn false_positives_are_counted_over_all_runs() {
        let directory = tempfile::tempdir().unwrap();
        let setup = |name| Setup::of(&directory.path().join(name), "stripes=2", 3);
        let probe = Filters { bits: 6, runs: 4, items: 4_000, misses: 5_000 };
        let found = probe.measure(&setup("6")).unwrap();
        assert_eq!(found.get("asked").unwrap(), 20_000.0);
        let percent = found.get("false_positive_percent").unwrap();
        assert!((4.0..9.0).contains(&percent), "{percent} %");
        let more = Filters { bits: 12, ..probe }.measure(&setup("12")).unwrap();
        assert!(more.get("false_positive_percent").unwrap() < percent / 5.0);
        let memory = |found: &Figures| found.get("filter_bytes_per_million").unwrap();
        assert!(memory(&more) > memory(&found));
    }

    #[test]
    fn times_that_overlap_are_counted() {
        let start = Instant::now();
        let time = |from: u64, to: u64| (start + Duration::from_secs(from), start + Duration::from_secs(to));
        assert_eq!(most_together(&[time(0, 1), time(1, 2), time(2, 3)]), 1);
        assert_eq!(most_together(&[time(0, 10), time(9, 19), time(18, 30)]), 1, "at their ends only");
        assert_eq!(most_together(&[time(0, 5), time(1, 2), time(4, 6)]), 2);
        assert_eq!(most_together(&[time(0, 6), time(1, 7), time(2, 8)]), 3);
        assert_eq!(most_together(&[]), 0);
    }

    #[test]
    fn a_debt_is_merged_once_in_every_stripe() {
        let directory = tempfile::tempdir().unwrap();
        let setup = Setup::of(&directory.path().join("db"), "stripes=4", 1);
        let found = Debt { concurrent: 1, runs: 3, items: 600 }.measure(&setup).unwrap();
        assert!(found.get("bytes_per_second").unwrap() > 0.0);
        let (engine, _) = setup.open("").unwrap();
        assert!(engine.stats().unwrap().stripes.iter().all(|stripe| stripe.runs == 1));
    }
}
