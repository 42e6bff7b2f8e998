//! Measures the cost of checking for work, and how late checks find work.
//!
//! A stripe that a flush brings to the threshold is merged at once, whatever the interval. The interval decides how
//! late work is found that arises only by the passage of time: here tombstones that grow too old, in one stripe after
//! another, spread over one interval.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kstone_api::{CompactionConfig, Event, LsmEngine, WriteOptions};
use serde::{Deserialize, Serialize};

use super::{EventLog, Figures, Setup, put};
use crate::data::Values;
use crate::resources::processor_time;

/// The number of checks of all stripes used to measure the cost.
const SWEEPS: u32 = 200;
/// The age at which a tombstone is old.
const AGE: Duration = Duration::from_millis(200);
/// Items per run in each stripe, on average.
const ITEMS: u64 = 40;

/// A database that does nothing but its checks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Checks {
    pub(crate) stripes: usize,
    /// Runs per stripe, one fewer than the threshold: the most that are not merged.
    pub(crate) runs: usize,
    /// Seconds between checks.
    pub(crate) interval: u64,
    /// The number of stripes whose tombstones grow old.
    pub(crate) samples: usize,
}

impl Checks {
    pub(super) fn measure(&self, setup: &Setup) -> Result<Figures> {
        let (engine, log) = setup.open(&format!("stripes={}", self.stripes))?;
        engine.set_compaction_config(self.rules(Duration::MAX))?;
        let values = setup.values()?;
        for run in 0..self.runs as u64 {
            self.add_a_run(&engine, &values, run)?;
        }
        let mut found = Figures::default();
        let start = Instant::now();
        for _ in 0..SWEEPS {
            for stripe in 0..self.stripes {
                ensure!(!engine.needs_compaction(stripe)?, "stripe {stripe} is due although it is at rest");
            }
        }
        found.set("sweep_nanos", start.elapsed().as_nanos() as f64 / f64::from(SWEEPS));
        self.by_count(&engine, &log, &values, &mut found)?;
        self.by_age(&engine, &log, &mut found)?;
        engine.close()?;
        Ok(found)
    }

    fn rules(&self, age: Duration) -> CompactionConfig {
        CompactionConfig::new()
            .with_sst_threshold(self.runs + 1)
            .with_check_interval(self.interval)
            .with_tombstone_age(age)
            .with_tombstone_percent(100)
            .with_garbage_percent(10_000)
            .with_idle_compaction(false)
    }

    fn add_a_run(&self, engine: &LsmEngine, values: &Values, run: u64) -> Result<()> {
        let share = ITEMS * self.stripes as u64;
        put(engine, values, run * share..(run + 1) * share)?;
        Ok(engine.flush()?)
    }

    /// Measures from the flush that makes a stripe due to the start of its merge.
    fn by_count(
        &self,
        engine: &LsmEngine,
        log: &EventLog,
        values: &Values,
        found: &mut Figures,
    ) -> Result<()> {
        self.add_a_run(engine, values, self.runs as u64)?;
        log.wait_for_compactions(engine.stats()?.stripes.len(), Duration::from_secs(60))?;
        let events = log.events();
        let mut lags = Vec::new();
        for (ended, event) in &events {
            let Event::Compaction { stripe, duration, .. } = event else { continue };
            let flushed = events.iter().rev().find(|(at, event)| {
                at <= ended && matches!(event, Event::Flush { stripe: flushed, .. } if flushed == stripe)
            });
            let (at, _) = flushed.context("a stripe was merged that was never flushed")?;
            lags.push((*ended - *duration).saturating_duration_since(*at).as_nanos() as f64);
        }
        found.set_lags("count_lag", lags);
        Ok(())
    }

    /// Measures from the moment when a tombstone is too old to the start of the merge that drops it.
    fn by_age(&self, engine: &LsmEngine, log: &EventLog, found: &mut Figures) -> Result<()> {
        engine.set_compaction_config(self.rules(AGE))?;
        let before = log.events().len();
        let (start, used) = (Instant::now(), processor_time());
        let pause = Duration::from_secs(self.interval) / self.samples.max(1) as u32;
        let mut due = Vec::new();
        for (sample, stripe) in (0u32..).zip(0..self.samples.min(self.stripes)) {
            let mut entries = engine.scan_stripe(stripe, None)?;
            let (key, _) = entries.next().context("a stripe holds nothing")??;
            engine.delete(&key, WriteOptions::new())?;
            due.push((stripe, Instant::now() + AGE));
            engine.flush()?;
            std::thread::sleep((start + pause * (sample + 1)).saturating_duration_since(Instant::now()));
        }
        let limit = Duration::from_secs(3 * self.interval + 30);
        log.wait_for_compactions(self.stripes + due.len(), limit)?;
        found.set(
            "idle_cpu_percent",
            100.0 * (processor_time() - used).as_secs_f64() / start.elapsed().as_secs_f64(),
        );
        let events = log.events();
        let mut lags = Vec::new();
        for (stripe, due) in due {
            let merged = events[before..].iter().find_map(|(at, event)| match event {
                Event::Compaction { stripe: merged, duration, .. } if *merged == stripe => {
                    Some(*at - *duration)
                }
                _ => None,
            });
            let merged = merged.context("a stripe was not merged")?;
            lags.push(merged.saturating_duration_since(due).as_nanos() as f64);
        }
        found.set_lags("age_lag", lags);
        Ok(())
    }
}
