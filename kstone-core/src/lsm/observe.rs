//! What operations report about themselves: counters, latencies and events, with one call each.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::counts::Counters;
use super::event_queue::Events;
use super::events::{Event, SettingChange, Stamped};
use super::settings::Settings;
use super::sizes::SizeRecorder;
use crate::backpressure::StallReason;
use crate::clock::Clock;
use crate::compaction::picker::Reason;
use crate::counters::{Count, Local, OpCounters, Operation};
use crate::latency::Recorder;
use crate::memtable::Memtable;

/// Waits for a lock, a job or a file are reported from this duration on: every call waits a little.
const WORTH_TELLING: Duration = Duration::from_millis(1);

/// Observations since the handle was opened.
#[derive(Debug)]
pub(crate) struct Observed {
    clock: Arc<dyn Clock>,
    ops: OpCounters,
    counters: Counters,
    latencies: Arc<Recorder>,
    sizes: SizeRecorder,
    events: Events,
    /// When opening started.
    since: Duration,
    /// What opening found.
    opening: OnceLock<Opening>,
    replayed_records: AtomicU64,
    replayed_bytes: AtomicU64,
    /// The cost of the replay.
    replay: OnceLock<Replay>,
    /// Whether a file with the statistics may be in the directory.
    stats_file: AtomicBool,
}

/// What opening found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    pub(crate) clean: bool,
    pub(crate) took: Duration,
}

/// The cost of replaying the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Replay {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

/// A running operation of the hot path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running<'a> {
    pub(crate) local: Local<'a>,
    operation: Operation,
    /// When it started, if it is one of those that are timed.
    pub(crate) since: Option<Duration>,
}

impl Running<'_> {
    /// It turned out to be of this kind.
    pub(crate) fn decided(&mut self, operation: Operation) {
        self.operation = operation;
    }
}

/// The contents of a write.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WriteTotals {
    puts: u64,
    deletes: u64,
    bytes: u64,
}

impl WriteTotals {
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

impl Observed {
    /// `since`: when opening started.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        counts: bool,
        latencies: Arc<Recorder>,
        events: Events,
        since: Duration,
    ) -> Self {
        Self {
            clock,
            ops: OpCounters::new(counts),
            counters: Counters::default(),
            latencies,
            sizes: SizeRecorder::default(),
            events,
            since,
            opening: OnceLock::new(),
            replayed_records: AtomicU64::new(0),
            replayed_bytes: AtomicU64::new(0),
            replay: OnceLock::new(),
            stats_file: AtomicBool::new(false),
        }
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn ops(&self) -> &OpCounters {
        &self.ops
    }

    pub(crate) fn latencies(&self) -> &Recorder {
        &self.latencies
    }

    /// Sizes of what is written.
    pub(crate) fn sizes(&self) -> &SizeRecorder {
        &self.sizes
    }

    #[inline]
    pub(crate) fn begin_operation(&self, operation: Operation, settings: &Settings) -> Running<'_> {
        let local = self.ops.local();
        let timed = local.is_timed(operation, settings.database.latency_sampling);
        Running { local, operation, since: timed.then(|| self.clock.monotonic()) }
    }

    #[inline]
    pub(crate) fn end_operation(&self, running: &Running<'_>) {
        if let Some(since) = running.since {
            self.latencies.sample(running.operation, self.since(since));
        }
    }

    /// Counts a successful write.
    #[inline]
    pub(crate) fn wrote(&self, running: &Running<'_>, written: WriteTotals) {
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

    /// Counts replayed log records, with this many bytes of keys and values.
    pub(crate) fn replayed(&self, records: u64, bytes: usize) {
        self.replayed_records.fetch_add(records, Ordering::Relaxed);
        self.replayed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Records that the whole log, of this many bytes, was replayed since `began`. Called once per handle.
    pub(crate) fn replay_ended(&self, bytes: u64, began: Duration) -> Replay {
        let replay = Replay { bytes, time: self.since(began) };
        // The first value stays.
        let _ = self.replay.set(replay);
        replay
    }

    pub(crate) fn replay(&self) -> Replay {
        self.replay.get().copied().unwrap_or_default()
    }

    /// Log records replayed, and the bytes of keys and values in them.
    pub(crate) fn replayed_so_far(&self) -> (u64, u64) {
        (self.replayed_records.load(Ordering::Relaxed), self.replayed_bytes.load(Ordering::Relaxed))
    }

    /// `None` until the database is open, or if opening failed.
    pub(crate) fn opening(&self) -> Option<Opening> {
        self.opening.get().copied()
    }

    /// Records that a file with the statistics may be in the directory.
    pub(crate) fn note_stats_file(&self) {
        self.stats_file.store(true, Ordering::Relaxed);
    }

    pub(crate) fn may_have_stats_file(&self) -> bool {
        self.stats_file.load(Ordering::Relaxed)
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.since(self.since)
    }

    fn since(&self, moment: Duration) -> Duration {
        self.clock.monotonic().saturating_sub(moment)
    }

    /// Records that the database is open.
    pub(crate) fn opened(&self, created: bool, clean: bool, read_only: bool) {
        let took = self.uptime();
        // A handle is opened once.
        let _ = self.opening.set(Opening { clean, took });
        if !clean {
            self.note_stats_file();
        }
        let (replayed_records, replayed_bytes) = self.replayed_so_far();
        self.events.raise(Event::Opened {
            created,
            clean,
            read_only,
            replayed_records,
            replayed_bytes,
            duration: took,
        });
        self.events.deliver();
    }

    pub(crate) fn flushed(&self, stripe: usize, memtable: &Memtable, bytes: u64, started: Duration) {
        let duration = self.since(started);
        self.counters.flushed(bytes, duration);
        self.latencies.record(Operation::Flush, duration);
        self.events.raise(Event::Flush { stripe, records: memtable.len() as u64, bytes, duration });
    }

    pub(crate) fn compacted(&self, merged: Merged, started: Duration) {
        let duration = self.since(started);
        let Merged { stripe, reason, runs, ssts, bytes_in, bytes_out, tombstones_dropped } = merged;
        self.counters.compacted(reason, ssts, bytes_in, bytes_out, duration);
        self.latencies.record(Operation::Compaction, duration);
        self.events.raise(Event::Compaction {
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
        self.counters.checkpointed(duration);
        self.latencies.record(Operation::Checkpoint, duration);
        self.events.raise(Event::Checkpoint { ssts, log_bytes_freed, duration });
    }

    /// Records that a call has waited since this moment for something other than a backlog.
    pub(crate) fn waited(&self, reason: StallReason, since: Duration) {
        let time = self.since(since);
        if time >= WORTH_TELLING {
            self.stopped(reason, time);
        }
    }

    /// Records a write that was delayed.
    pub(crate) fn delayed(&self, reason: StallReason, time: Duration) {
        self.counters.delayed(reason, time);
        self.events.raise_stall(reason, time);
    }

    /// Records a write that had to wait until the pressure was gone, or that gave up.
    pub(crate) fn stopped(&self, reason: StallReason, time: Duration) {
        self.counters.stopped(reason, time);
        self.events.raise_stall(reason, time);
    }

    pub(crate) fn settings_changed(&self, old: &Settings, new: &Settings) {
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
            self.events.raise(Event::ConfigChanged { changes });
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

impl Observed {
    /// At close, while the directory is still the handle's: see [`Events::write_last`].
    pub(crate) fn write_last_events(&self, clean: bool) -> VecDeque<Stamped> {
        match self.opening() {
            Some(_) => self.events.write_last(clean),
            None => VecDeque::new(), // opening failed with an error: the directory stays as it was
        }
    }
}
