//! What the verbs report of themselves: counters, latencies and events, from one call each.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::LsmEngine;
use super::events::{Event, SettingChange};
use super::job::Slot;
use super::settings::Settings;
use super::state::Shared;
use crate::backpressure::StallReason;
use crate::compaction::picker::Reason;
use crate::counters::{Count, Local, OpCounters, Operation};
use crate::error::{Error, Result};
use crate::latency::{Latencies, LatencyBuckets, Recorder};
use crate::memtable::Memtable;
use crate::types::SeqNo;

/// The memory of what was observed, of one handle.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) ops: OpCounters,
    pub(crate) latencies: Arc<Recorder>,
    /// When opening began.
    pub(crate) since: Duration,
    /// What opening found.
    pub(crate) opened: OnceLock<Opening>,
    pub(crate) replayed_records: AtomicU64,
    pub(crate) replayed_bytes: AtomicU64,
    /// A file with the counters may be in the directory.
    pub(crate) stats_file: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) clean: bool,
    pub(crate) took: Duration,
}

impl Observed {
    pub(crate) fn new(counters: bool, latencies: Arc<Recorder>, since: Duration) -> Self {
        Self {
            ops: OpCounters::new(counters),
            latencies,
            since,
            opened: OnceLock::new(),
            replayed_records: AtomicU64::new(0),
            replayed_bytes: AtomicU64::new(0),
            stats_file: AtomicBool::new(false),
        }
    }

    /// One record of the log was replayed, with this many bytes of keys and values.
    pub(crate) fn replayed(&self, bytes: usize) {
        self.replayed_records.fetch_add(1, Ordering::Relaxed);
        self.replayed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// An operation of the hot path that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running<'a> {
    pub(crate) local: Local<'a>,
    operation: Operation,
    /// When it began, if it is one of those that are timed.
    pub(crate) since: Option<Duration>,
}

/// What a write held.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    puts: u64,
    deletes: u64,
    bytes: u64,
}

impl Written {
    pub(crate) fn add(&mut self, key: usize, value: Option<usize>) {
        match value {
            Some(_) => self.puts += 1,
            None => self.deletes += 1,
        }
        // A delete has no value.
        self.bytes += (key + value.unwrap_or(0)) as u64;
    }

    pub(crate) fn one(key: usize, value: Option<usize>) -> Self {
        let mut written = Self::default();
        written.add(key, value);
        written
    }
}

impl Shared {
    #[inline]
    pub(crate) fn begin_operation(&self, operation: Operation, settings: &Settings) -> Running<'_> {
        let local = self.observed.ops.local();
        let timed = local.is_timed(operation, settings.database.latency_sampling);
        Running { local, operation, since: timed.then(|| self.clock.monotonic()) }
    }

    #[inline]
    pub(crate) fn end_operation(&self, running: &Running<'_>) {
        if let Some(since) = running.since {
            self.observed.latencies.sample(running.operation, self.since(since));
        }
    }

    /// A write has ended.
    #[inline]
    pub(crate) fn wrote(&self, running: &Running<'_>, written: Written, result: &Result<SeqNo>) {
        if let Err(error) = result {
            if error.is_out_of_space() {
                self.raise_disk_full();
            }
            return;
        }
        for (count, n) in [(Count::Puts, written.puts), (Count::Deletes, written.deletes)] {
            if n > 0 {
                running.local.add(count, n);
            }
        }
        if running.operation == Operation::Batch {
            running.local.add(Count::Batches, 1);
        }
        running.local.add(Count::BytesWritten, written.bytes);
        self.end_operation(running);
    }

    pub(crate) fn since(&self, moment: Duration) -> Duration {
        self.clock.monotonic().saturating_sub(moment)
    }

    /// The database is open.
    pub(crate) fn opened(&self, created: bool, clean: bool) {
        let took = self.since(self.observed.since);
        // A handle is opened once.
        let _ = self.observed.opened.set(Opening { clean, took });
        self.observed.stats_file.store(!clean, Ordering::Relaxed);
        self.raise(Event::Opened {
            created,
            clean,
            read_only: self.life.is_read_only(),
            replayed_records: self.observed.replayed_records.load(Ordering::Relaxed),
            replayed_bytes: self.observed.replayed_bytes.load(Ordering::Relaxed),
            duration: took,
        });
        self.deliver_events();
    }

    pub(crate) fn flushed(&self, stripe: usize, memtable: &Memtable, bytes: u64, started: Duration) {
        let duration = self.since(started);
        let counters = &self.counters;
        counters.flushes.fetch_add(1, Ordering::Relaxed);
        counters.flush_bytes_written.fetch_add(bytes, Ordering::Relaxed);
        counters.flush_nanos.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
        self.observed.latencies.record(Operation::Flush, duration);
        self.raise(Event::Flush { stripe, records: memtable.len() as u64, bytes, duration });
    }

    pub(crate) fn compacted(&self, merged: Merged, started: Duration) {
        let duration = self.since(started);
        let Merged { stripe, reason, runs, ssts, bytes_in, bytes_out, tombstones_dropped } = merged;
        let counters = &self.counters;
        counters.compactions.fetch_add(1, Ordering::Relaxed);
        counters.ssts_merged.fetch_add(ssts as u64, Ordering::Relaxed);
        counters.compaction_bytes_read.fetch_add(bytes_in, Ordering::Relaxed);
        counters.compaction_bytes_written.fetch_add(bytes_out, Ordering::Relaxed);
        counters.compactions_by_reason.add(reason, bytes_in, bytes_out);
        counters.compaction_nanos.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
        self.observed.latencies.record(Operation::Compaction, duration);
        self.raise(Event::Compaction {
            stripe,
            reason,
            runs,
            ssts,
            bytes_in,
            bytes_out,
            tombstones_dropped,
            duration,
        });
    }

    pub(crate) fn checkpointed(&self, ssts: usize, log_bytes_freed: u64, started: Duration) {
        let duration = self.since(started);
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.counters.checkpoint_nanos.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
        self.observed.latencies.record(Operation::Checkpoint, duration);
        self.raise(Event::Checkpoint { ssts, log_bytes_freed, duration });
    }

    /// A write was slowed down.
    pub(crate) fn delayed(&self, reason: StallReason, time: Duration) {
        self.counters.delayed(reason, time);
        self.raise_stall(reason, time);
    }

    /// A write had to wait until the pressure was gone, or in vain.
    pub(crate) fn stopped(&self, reason: StallReason, time: Duration) {
        self.counters.stopped(reason, time);
        self.raise_stall(reason, time);
    }

    /// A job gave up, to be tried again later. Returns what is to be said of that.
    pub(crate) fn job_failed(&self, slot: Slot, error: &Error) -> String {
        let mut text = error.to_string();
        if error.is_out_of_space() {
            self.raise_disk_full();
            text = format!("{text}: {}", self.why_full().1);
        }
        // Else it was stopped by a close.
        if !matches!(error, Error::Closed) {
            self.raise(Event::BackgroundError { job: job_name(slot), error: text.clone() });
        }
        text
    }

    pub(crate) fn raise_config_changed(&self, old: &Settings, new: &Settings) {
        let (old, new) = (old.stored(), new.stored());
        let value = |of: &[(String, u64)], name: &str| of.iter().find(|(n, _)| n == name).map(|&(_, v)| v);
        let mut names: Vec<&String> = old.iter().chain(&new).map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        let changes: Vec<_> = names
            .into_iter()
            .map(|name| SettingChange { name: name.clone(), old: value(&old, name), new: value(&new, name) })
            .filter(|change| change.old != change.new)
            .collect();
        if !changes.is_empty() {
            self.raise(Event::ConfigChanged { changes });
        }
    }
}

/// What a compaction did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Merged {
    pub(crate) stripe: usize,
    pub(crate) reason: Reason,
    pub(crate) runs: usize,
    pub(crate) ssts: usize,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) tombstones_dropped: u64,
}

fn job_name(slot: Slot) -> String {
    let name = format!("{slot:?}");
    match slot {
        Slot::Compact(_) => "compaction".into(),
        _ => snake_case(name.split('(').next().unwrap_or_default()),
    }
}

/// `RunCount` as `run_count`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 2);
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

impl LsmEngine {
    /// How long operations took since open. Of puts, gets, deletes, batches and queries one in
    /// [`latency_sampling`](crate::DatabaseConfig::latency_sampling) is timed on each thread, of background work all.
    /// Copies the histograms, about a megabyte at most.
    pub fn latencies(&self) -> Latencies {
        if self.is_forked() {
            return Latencies::default();
        }
        self.shared.observed.latencies.latencies()
    }

    /// The same by ranges of times, under the names of [`Latencies::all`]: for each of the bounds, which must rise,
    /// how many took no longer than it and longer than the one before. Bounds are in nanoseconds.
    pub fn latency_buckets(&self, bounds_nanos: &[u64]) -> [(&'static str, LatencyBuckets); 9] {
        self.shared.observed.latencies.buckets(bounds_nanos)
    }
}
