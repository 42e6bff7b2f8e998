//! Writing with one memtable threshold until the rounds are steady, then dying with memtables nearly full; and opening
//! what that left.
//!
//! A *round* is as many writes as all stripes' memtables hold. Hashing fills all of them at nearly the same moment, so
//! flushes come in bursts at the end of each round: counting from the middle of a round to the middle of another
//! counts whole bursts. Small thresholds have many rounds, in which the stripes drift apart.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kstone_api::{Key, LsmEngine, WriteOptions};
use serde::{Deserialize, Serialize};

use super::{Found, Heard, VALUE, anonymous_memory, device_bytes, drop_caches, is_flush, open, put};
use crate::data::Values;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Pieces of a round in the time line of flushes.
const PIECES: f64 = 10.0;

/// Writes of one thread, buffered, each item once and in no order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fill {
    /// Settings of the database.
    pub settings: String,
    /// Its stripes.
    pub stripes: usize,
    /// Records of a memtable.
    pub threshold: usize,
    /// Writes before the counting begins, made up to the middle of a round.
    pub warm_up: u64,
    /// Writes that count, made up to whole rounds.
    pub counted: u64,
    /// Of the values.
    pub seed: u64,
}

impl Fill {
    fn round(&self) -> u64 {
        (self.stripes * self.threshold) as u64
    }

    /// The numbers of writes at which counting begins, ends, and at which the process may die.
    fn moments(&self) -> [u64; 3] {
        let round = self.round();
        let begin = self.warm_up / round * round + round / 2;
        let end = begin + self.counted.div_ceil(round) * round;
        [begin, end, end + round * 2 / 5]
    }

    /// Items that it writes in all.
    pub fn items(&self) -> u64 {
        self.moments()[2]
    }

    pub(super) fn measure(&self, directory: &Path) -> Result<Found> {
        let (engine, heard) = open(directory, &self.settings)?;
        let values = Values::new(VALUE, self.seed)?;
        let [begin, end, last] = self.moments();
        let before = anonymous_memory()?;
        let stop = AtomicBool::new(false);
        let (found, memory) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| watch(&engine, &stop));
            let written = self.write(&engine, &heard, &values, [begin, end]);
            let written = written.and_then(|found| put(&engine, &values, end..last).map(|()| found));
            stop.store(true, Ordering::Relaxed);
            (written, watch.join())
        });
        let mut found = found?;
        let memory = memory.map_err(|_| anyhow::anyhow!("the thread that watches memory panicked"))??;
        found.set("accounted_bytes", memory.accounted);
        found.set("stripe_bytes", memory.stripe);
        found.set("anonymous_bytes", (memory.anonymous - before).max(0.0));
        found.set("log_bytes", memory.log);
        found.set("filter_bytes", engine.estimate_bloom_memory()? as f64);
        found.set("index_bytes", engine.estimate_index_memory()? as f64);
        // The parent kills this process: nothing must be closed.
        std::mem::forget(engine);
        Ok(found)
    }

    fn write(
        &self,
        engine: &LsmEngine,
        heard: &Heard,
        values: &Values,
        [begin, end]: [u64; 2],
    ) -> Result<Found> {
        put(engine, values, 0..begin)?;
        let before = engine.stats()?;
        let start = Instant::now();
        put(engine, values, begin..end)?;
        let elapsed = start.elapsed();
        let after = engine.stats()?;
        let mut found = Found::default();
        let per = |bytes: u64, earlier: u64| (bytes - earlier) as f64;
        let flushed = per(after.flush_bytes_written, before.flush_bytes_written);
        let merged = per(after.compaction_bytes_written, before.compaction_bytes_written);
        let user = per(after.operations.user_bytes_written, before.operations.user_bytes_written);
        found.set("rate", (end - begin) as f64 / elapsed.as_secs_f64());
        found.set("flushes_per_100k", 1e5 * per(after.flushes, before.flushes) / (end - begin) as f64);
        found.set("write_amplification", (flushed + merged) / user);
        let round = elapsed.as_secs_f64() * self.round() as f64 / (end - begin) as f64;
        found.series.insert("flush_bursts".into(), bursts(heard, start, elapsed, round));
        Ok(found)
    }
}

/// Flushes in each tenth of a round, as shares of all.
fn bursts(heard: &Heard, start: Instant, elapsed: Duration, round: f64) -> Vec<f64> {
    let mut pieces = vec![0.0; PIECES as usize];
    let mut all: f64 = 0.0;
    for (at, event) in heard.events() {
        let Some(since) = at.checked_duration_since(start).filter(|since| *since <= elapsed) else {
            continue;
        };
        if is_flush(&event) {
            all += 1.0;
            let piece = (since.as_secs_f64() / round).fract() * PIECES;
            pieces[(piece as usize).min(PIECES as usize - 1)] += 1.0;
        }
    }
    pieces.iter_mut().for_each(|piece| *piece /= all.max(1.0));
    pieces
}

struct Memory {
    accounted: f64,
    stripe: f64,
    anonymous: f64,
    log: f64,
}

/// The most that memtables took, all together and one stripe's, the most anonymous memory, and the longest log.
fn watch(engine: &LsmEngine, stop: &AtomicBool) -> Result<Memory> {
    let mut most = Memory { accounted: 0.0, stripe: 0.0, anonymous: 0.0, log: 0.0 };
    while !stop.load(Ordering::Relaxed) {
        let stats = engine.stats()?;
        let bytes = stats.stripes.iter().map(|stripe| stripe.memtable_bytes as f64);
        most.accounted = most.accounted.max(bytes.clone().sum());
        most.stripe = most.stripe.max(bytes.fold(0.0, f64::max));
        most.anonymous = most.anonymous.max(anonymous_memory()?);
        most.log = most.log.max(stats.log_bytes as f64);
        std::thread::sleep(LOOK);
    }
    Ok(most)
}

/// Opening after a crash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reopen {
    /// The system forgets the files first.
    pub cold: bool,
    /// Then, and after its figures, the database is written to once and left alone until its log is no longer given
    /// back: from there on the log has hardly more than what memtables hold.
    pub rest: bool,
}

impl Reopen {
    pub(super) fn measure(&self, directory: &Path) -> Result<Found> {
        if self.cold {
            drop_caches(directory)?;
        }
        let device = device_bytes();
        let heard = std::sync::Arc::new(Heard::default());
        let mut options = super::options("", &heard)?;
        // As stored.
        (options.config, options.compaction) = (None, None);
        let start = Instant::now();
        let engine = LsmEngine::open(directory, options)?;
        let nanos = start.elapsed().as_nanos() as f64;
        let from_device = device_bytes().zip(device).map_or(0.0, |(after, before)| after - before);
        let stats = engine.stats()?;
        ensure!(!stats.recovery.clean, "the database had been closed: there was nothing to recover");
        let mut found = Found::default();
        found.set("open_nanos", nanos);
        found.set("replay_nanos", stats.recovery.replay_nanos as f64);
        found.set("replayed_records", stats.recovery.replayed_records as f64);
        found.set("replayed_log_bytes", stats.recovery_replayed_bytes as f64);
        found.set("log_bytes", stats.log_bytes as f64);
        found.set("device_bytes", from_device);
        if self.rest {
            rest(&engine)?;
        }
        std::mem::forget(engine);
        Ok(found)
    }
}

/// Waits until no checkpoint gives anything of the log back any more.
fn rest(engine: &LsmEngine) -> Result<()> {
    engine.delete(&Key::new(b"no such item"), WriteOptions::new())?;
    // What is flushed is given back by the checkpoint after it.
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
                seed: 1,
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
