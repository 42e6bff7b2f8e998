//! Writes with one memtable threshold until the rounds are steady, then dies with memtables nearly full. Another probe
//! opens the database that this leaves.
//!
//! A *round* is the number of writes that fill the memtables of all stripes. Hashing fills them at nearly the same
//! time, so flushes come in bursts at the end of each round: counting from the middle of one round to the middle of
//! another counts whole bursts. With small thresholds there are many rounds, in which the stripes drift apart.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use kstone_api::{EngineOptions, Event, Key, LsmEngine, WriteOptions};
use serde::{Deserialize, Serialize};

use super::{EventLog, Figures, Setup, put};
use crate::cpu_time;
use crate::data::Values;
use crate::resources::processor_time;
use crate::resources::{Usage, drop_from_cache};

/// The interval between two samples of memory.
const LOOK: Duration = Duration::from_millis(20);
/// The interval between two portions of an offered load.
const PORTION: Duration = Duration::from_millis(1);

/// Buffered writes of each item once and in no order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fill {
    pub(crate) settings: String,
    pub(crate) stripes: usize,
    /// Records per memtable.
    pub(crate) threshold: usize,
    /// Writes before counting starts, adjusted to end in the middle of a round.
    pub(crate) warm_up: u64,
    /// Writes that count, rounded up to whole rounds.
    pub(crate) counted: u64,
    /// Threads that write, each an equal share of the items.
    pub(crate) threads: usize,
    /// Offered writes a second; `None`: each thread sends its next write as soon as it has the answer.
    pub(crate) rate: Option<f64>,
}

impl Fill {
    fn round(&self) -> u64 {
        (self.stripes * self.threshold) as u64
    }

    /// The numbers of writes after which counting starts, counting ends, and the process may die.
    fn moments(&self) -> [u64; 3] {
        let round = self.round();
        let begin = self.warm_up / round * round + round / 2;
        let end = begin + self.counted.div_ceil(round) * round;
        [begin, end, end + round * 2 / 5]
    }

    /// The total number of items written.
    pub(crate) fn items(&self) -> u64 {
        self.moments()[2]
    }

    pub(super) fn measure(&self, setup: &Setup) -> Result<Figures> {
        let (engine, log) = setup.open(&self.settings)?;
        let values = setup.values()?;
        let [begin, end, last] = self.moments();
        let before = Usage::memory()?.anonymous as f64;
        let stop = AtomicBool::new(false);
        let (found, memory) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| watch(&engine, &stop));
            let written = self.write(&engine, &log, &values, [begin, end]);
            let written = written.and_then(|found| self.put(&engine, &values, end..last).map(|()| found));
            stop.store(true, Ordering::Relaxed);
            (written, watch.join())
        });
        let mut found = found?;
        let most = memory.map_err(|_| anyhow!("the thread that watches memory panicked"))??;
        found.set("accounted_bytes", most.accounted);
        found.set("stripe_bytes", most.stripe);
        found.set("anonymous_bytes", (most.anonymous - before).max(0.0));
        found.set("filter_bytes", engine.estimate_bloom_memory()? as f64);
        found.set("index_bytes", engine.estimate_index_memory()? as f64);
        // The parent kills this process; nothing must be closed.
        std::mem::forget(engine);
        Ok(found)
    }

    /// Puts these items with all threads.
    fn put(&self, engine: &LsmEngine, values: &Values, numbers: Range<u64>) -> Result<()> {
        let share =
            |thread| self.put_share(engine, values, numbers.clone().skip(thread).step_by(self.threads));
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..self.threads).map(|thread| scope.spawn(move || share(thread))).collect();
            let mine = share(0);
            others
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a writer panicked"))?)?;
            mine
        })
    }

    /// Puts the items of one thread. An offered rate is offered in portions of [`PORTION`], with sleep in between: a
    /// thread that waits by spinning would take a core from flushes and merges.
    fn put_share(
        &self,
        engine: &LsmEngine,
        values: &Values,
        mut numbers: impl Iterator<Item = u64>,
    ) -> Result<()> {
        let Some(rate) = self.rate else { return put(engine, values, numbers) };
        let portion = (rate / self.threads as f64 * PORTION.as_secs_f64()).ceil() as usize;
        let start = Instant::now();
        for due in 0.. {
            std::thread::sleep((start + PORTION * due).saturating_duration_since(Instant::now()));
            let items: Vec<u64> = numbers.by_ref().take(portion).collect();
            if items.is_empty() {
                break;
            }
            put(engine, values, items.into_iter())?;
        }
        Ok(())
    }

    fn write(
        &self,
        engine: &LsmEngine,
        log: &EventLog,
        values: &Values,
        [begin, end]: [u64; 2],
    ) -> Result<Figures> {
        self.put(engine, values, 0..begin)?;
        let before = engine.stats()?;
        let (start, used, own) = (Instant::now(), processor_time(), cpu_time());
        self.put(engine, values, begin..end)?;
        let (elapsed, used, own) = (start.elapsed(), processor_time() - used, cpu_time() - own);
        let after = engine.stats()?;
        let mut found = Figures::default();
        let (written, seconds) = ((end - begin) as f64, elapsed.as_secs_f64());
        let since = |now: u64, before: u64| (now - before) as f64;
        let flushed = since(after.flush_bytes_written, before.flush_bytes_written);
        let merged = since(after.compaction_bytes_written, before.compaction_bytes_written);
        let user = since(after.operations.user_bytes_written, before.operations.user_bytes_written);
        found.set("rate", written / seconds);
        found.set("rate_of_processor", written / used.as_secs_f64());
        found.set("cores_used", used.as_secs_f64() / seconds);
        found.set("writer_nanos", own.as_nanos() as f64 / written);
        found.set("background_nanos", used.saturating_sub(own).as_nanos() as f64 / written);
        found.set("flushes_per_100k", 1e5 * since(after.flushes, before.flushes) / written);
        found.set("write_amplification", (flushed + merged) / user);
        let round = seconds * self.round() as f64 / written;
        for (piece, share) in bursts(log, start, elapsed, round).iter().enumerate() {
            found.set(&format!("flushes_in_tenth_{piece}"), *share);
        }
        Ok(found)
    }
}

/// The fraction of the flushes in each tenth of a round.
fn bursts(log: &EventLog, start: Instant, elapsed: Duration, round: f64) -> [f64; 10] {
    let mut pieces = [0.0; 10];
    for (at, event) in log.events() {
        let since = at.checked_duration_since(start).filter(|since| *since <= elapsed);
        if let (Some(since), Event::Flush { .. }) = (since, event) {
            pieces[((since.as_secs_f64() / round).fract() * 10.0).min(9.0) as usize] += 1.0;
        }
    }
    let all = pieces.iter().sum::<f64>().max(1.0);
    pieces.map(|piece| piece / all)
}

#[derive(Default)]
struct Most {
    accounted: f64,
    stripe: f64,
    anonymous: f64,
}

/// Samples the maximum memory of all memtables, of one stripe's, and of anonymous memory.
fn watch(engine: &LsmEngine, stop: &AtomicBool) -> Result<Most> {
    let mut most = Most::default();
    while !stop.load(Ordering::Relaxed) {
        let stats = engine.stats()?;
        let bytes = stats.stripes.iter().map(|stripe| stripe.memtable_bytes as f64);
        most.accounted = most.accounted.max(bytes.clone().sum());
        most.stripe = most.stripe.max(bytes.fold(0.0, f64::max));
        most.anonymous = most.anonymous.max(Usage::memory()?.anonymous as f64);
        std::thread::sleep(LOOK);
    }
    Ok(most)
}

/// Opens the database after a crash.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Reopen {
    /// Drops the files from the page cache first.
    pub(crate) cold: bool,
    /// After that, and after taking the figures, writes to the database once and leaves it alone until its log no
    /// longer shrinks: from then on, the log holds little more than the memtables.
    pub(crate) rest: bool,
}

impl Reopen {
    pub(super) fn measure(&self, setup: &Setup) -> Result<Figures> {
        if self.cold {
            drop_from_cache(&setup.directory)?;
        }
        let device = Usage::now()?.read_bytes;
        // With the stored settings.
        let options = EngineOptions::disk();
        let start = Instant::now();
        let engine = LsmEngine::open(&setup.directory, options)?;
        let nanos = start.elapsed().as_nanos() as f64;
        let from_device = Usage::now()?.read_bytes - device;
        let stats = engine.stats()?;
        ensure!(!stats.recovery.clean, "the database had been closed: there was nothing to recover");
        let mut found = Figures::default();
        found.set("open_nanos", nanos);
        found.set("replay_nanos", stats.recovery.replay_nanos as f64);
        found.set("replayed_records", stats.recovery.replayed_records as f64);
        found.set("replayed_log_bytes", stats.recovery_replayed_bytes as f64);
        found.set("device_bytes", from_device as f64);
        if self.rest {
            rest(&engine)?;
        }
        std::mem::forget(engine);
        Ok(found)
    }
}

/// Waits until checkpoints no longer shorten the log.
fn rest(engine: &LsmEngine) -> Result<()> {
    engine.delete(&Key::new(b"no such item"), WriteOptions::new())?;
    // The log of a flushed memtable is retired by the next checkpoint.
    let quiet = engine.config().checkpoint_interval.mul_f64(1.3);
    let start = Instant::now();
    let (mut before, mut since) = (u64::MAX, start);
    while since.elapsed() < quiet && start.elapsed() < 10 * quiet {
        let log = engine.stats()?.log_bytes;
        if log != before {
            (before, since) = (log, Instant::now());
        }
        std::thread::sleep(LOOK);
    }
    Ok(engine.sync()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_begins_and_ends_in_the_middle_of_a_round() {
        for threshold in [500, 1000, 5000, 10_000] {
            let fill = Fill {
                settings: String::new(),
                stripes: 16,
                threshold,
                warm_up: 25_000 * 16,
                counted: 50_000 * 16,
                threads: 1,
                rate: None,
            };
            let round = 16 * threshold as u64;
            let [begin, end, last] = fill.moments();
            assert_eq!((begin % round, end % round), (round / 2, round / 2), "{threshold}");
            assert!(begin >= 2 * round && end - begin >= 5 * round, "{threshold}: steady");
            assert_eq!((last % round) * 10 / round, 9, "{threshold}: memtables are nearly full");
            assert_eq!(end - begin, 50_000 * 16, "{threshold}: the same work for all");
        }
    }
}
