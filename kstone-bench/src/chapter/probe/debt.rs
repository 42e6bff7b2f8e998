//! Merging a debt that was prepared while compaction was off, with so many compactions at the same time, while one
//! reader asks at a fixed rate.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use kstone_api::{CompactionConfig, Event, LsmEngine};
use serde::{Deserialize, Serialize};

use super::runs::build;
use super::{Found, VALUE, cpu, histogram, is_compaction, open, record, set_latency, timed_get, wait_for};
use crate::data::{Values, splitmix};

/// A reader asks this often.
const EVERY: Duration = Duration::from_micros(500);
/// Longer than any debt here takes.
const LIMIT: Duration = Duration::from_secs(600);

/// One merge for each stripe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Debt {
    /// Settings of the database.
    pub settings: String,
    /// Compactions at the same time.
    pub concurrent: usize,
    /// Runs of each stripe that become one.
    pub runs: usize,
    /// Items in all of them together.
    pub items: u64,
    /// Of all random choices.
    pub seed: u64,
}

impl Debt {
    pub(super) fn measure(&self, directory: &Path) -> Result<Found> {
        let settings = format!("{},compaction_enabled=0,max_memtable_records=100000000", self.settings);
        let (engine, heard) = open(directory, &settings)?;
        let values = Values::new(VALUE, self.seed)?;
        build(&engine, &values, self.runs, self.items)?;
        let mut found = Found::default();
        let stop = AtomicBool::new(false);
        let (merged, latencies) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| self.read(&engine, &values, &stop));
            let merged = self.merge(&engine, &heard, &mut found);
            stop.store(true, Ordering::Relaxed);
            (merged, reader.join())
        });
        merged?;
        let latencies = latencies.map_err(|_| anyhow!("the reader panicked"))??;
        set_latency(&mut found, "read", &latencies);
        engine.close()?;
        Ok(found)
    }

    fn merge(&self, engine: &LsmEngine, heard: &super::Heard, found: &mut Found) -> Result<()> {
        let (start, used) = (Instant::now(), cpu());
        // With twice as many runs as the threshold no core is left free: as many compactions run as are allowed.
        let threshold = (self.runs / 2).max(2);
        engine.set_compaction_config(
            CompactionConfig::new().with_sst_threshold(threshold).with_max_concurrent(self.concurrent),
        )?;
        wait_for(heard, is_compaction, engine.stripe_count(), LIMIT)?;
        let cpu_seconds = (cpu() - used).as_secs_f64();
        let mut end = start;
        let mut bytes = 0;
        let mut times = Vec::new();
        for (at, event) in heard.events() {
            if let Event::Compaction { bytes_in, bytes_out, duration, .. } = event {
                end = end.max(at);
                bytes += bytes_in + bytes_out;
                times.push((at.checked_sub(duration).unwrap_or(start), at));
            }
        }
        found.set("together", most_together(&times) as f64);
        let seconds = (end - start).as_secs_f64();
        found.set("seconds", seconds);
        found.set("items_per_second", self.items as f64 / seconds);
        found.set("bytes_per_second", bytes as f64 / seconds);
        found.set("cores", cpu_seconds / seconds);
        Ok(())
    }

    /// Latencies from the moment each read was due.
    fn read(
        &self,
        engine: &LsmEngine,
        values: &Values,
        stop: &AtomicBool,
    ) -> Result<hdrhistogram::Histogram<u64>> {
        let mut latencies = histogram()?;
        let (start, mut asked, mut random) = (Instant::now(), 0, self.seed);
        while !stop.load(Ordering::Relaxed) {
            let due = start + EVERY * asked;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            random = splitmix(random);
            timed_get(engine, values, random % self.items, true)?;
            record(&mut latencies, due.elapsed().as_nanos() as u64);
            asked += 1;
        }
        Ok(latencies)
    }
}

/// The most of these times, from and to, that the middle of any of them is within. Events are heard a little late, so
/// that what follows another without a pause seems to overlap with it at its ends.
fn most_together(times: &[(Instant, Instant)]) -> usize {
    let within = |moment: Instant| times.iter().filter(|(from, to)| *from <= moment && moment < *to).count();
    times.iter().map(|(from, to)| within(*from + (*to - *from) / 2)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let debt = Debt { settings: "stripes=4".into(), concurrent: 1, runs: 3, items: 600, seed: 1 };
        let found = debt.measure(&directory.path().join("db")).unwrap();
        assert!(found.get("bytes_per_second").unwrap() > 0.0);
        let (engine, _) = open(&directory.path().join("db"), "stripes=4").unwrap();
        assert!(engine.stats().unwrap().stripes.iter().all(|stripe| stripe.runs == 1));
    }
}
