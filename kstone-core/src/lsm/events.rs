//! What happens in the engine, as it happens: one queue, and one place that hands it on to the listener, to the file
//! `EVENTS.jsonl` and to `tracing`.
//!
//! 1. [`Events::raise`] takes one leaf lock and does no I/O: it may be called anywhere.
//! 2. [`Shared::deliver_events`] calls the listener: only where no lock is held and no slot taken, so that a listener
//!    may call the engine. That is a worker between two jobs; without workers, the end of the call that caused them.
//! 3. One thread delivers at a time, in the order of the events.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::compaction_stats::CompactionReason;
use super::event_log::EventLog;
use super::options::Workers;
use super::state::Shared;
use super::trace;
use crate::backpressure::StallReason;
use crate::quota::Exhausted;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Mutex, RwLockReadGuard};

/// Stalls of one reason within this time are one event: under load every write may be held up a little.
const STALLS_TOGETHER: Duration = Duration::from_secs(1);
/// The queue's length at which events are dropped: nobody takes them, or they are made faster than they are written.
const MOST_PENDING: usize = 1024;

/// Something that happened. As JSON an object whose `event` names it in snake case; times are nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The database was created or opened.
    #[non_exhaustive]
    Opened {
        /// It was made by this call.
        created: bool,
        /// It is new or was closed cleanly; otherwise it was recovered.
        clean: bool,
        /// Whether this handle can only read.
        read_only: bool,
        /// Records of the log that were replayed.
        replayed_records: u64,
        /// Bytes of keys and values in them.
        replayed_bytes: u64,
        /// How long opening took.
        #[serde(rename = "nanos", with = "nanos")]
        duration: Duration,
    },
    /// A memtable became a run.
    #[non_exhaustive]
    Flush {
        /// The stripe.
        stripe: usize,
        /// Records of the memtable, tombstones and superseded versions included.
        records: u64,
        /// Bytes of the SSTs written.
        bytes: u64,
        /// From its first step to its last.
        #[serde(rename = "nanos", with = "nanos")]
        duration: Duration,
    },
    /// Runs were merged into one.
    #[non_exhaustive]
    Compaction {
        /// The stripe.
        stripe: usize,
        /// The rule that asked for it, in snake case: `run_count`, `tombstones`, `requested`.
        reason: CompactionReason,
        /// Runs merged.
        runs: usize,
        /// SSTs merged.
        ssts: usize,
        /// Bytes of the SSTs read.
        bytes_in: u64,
        /// Bytes of the SSTs written.
        bytes_out: u64,
        /// Tombstones that were no longer needed.
        tombstones_dropped: u64,
        /// From its first step to its last.
        #[serde(rename = "nanos", with = "nanos")]
        duration: Duration,
    },
    /// SSTs were made durable, and the log before them given back.
    #[non_exhaustive]
    Checkpoint {
        /// SSTs made durable.
        ssts: usize,
        /// Bytes of the log's files given back.
        log_bytes_freed: u64,
        /// From its first step to its last.
        #[serde(rename = "nanos", with = "nanos")]
        duration: Duration,
    },
    /// Calls were held up: at most one event per second and reason, which sums up.
    #[non_exhaustive]
    Stall {
        /// What they waited for.
        reason: StallReason,
        /// How many writes.
        writes: u64,
        /// For how long in all.
        #[serde(rename = "nanos", with = "nanos")]
        duration: Duration,
    },
    /// There was no space: a write was refused or background work failed. At most one event per second.
    #[non_exhaustive]
    DiskFull {
        /// What has run out; `None` in events of older versions, which did not say.
        #[serde(default)]
        exhausted: Option<Exhausted>,
        /// The same in words, with its figures.
        #[serde(default)]
        detail: String,
    },
    /// Background work failed, and is tried again later.
    #[non_exhaustive]
    BackgroundError {
        /// Which: `flush`, `compaction`, `checkpoint`, `log_sync`, …
        job: String,
        /// Why.
        error: String,
    },
    /// This handle accepts no more writes.
    #[non_exhaustive]
    Poisoned {
        /// The first failure.
        cause: String,
    },
    /// Settings were changed on the open database.
    #[non_exhaustive]
    ConfigChanged {
        /// What is different now.
        changes: Vec<SettingChange>,
    },
    /// The handle was closed.
    #[non_exhaustive]
    Closed {
        /// Everything is durable, and the next open has nothing to recover.
        clean: bool,
    },
}

impl Event {
    /// All kinds, by the names that they have in JSON.
    pub const KINDS: [&str; 10] = [
        "opened",
        "flush",
        "compaction",
        "checkpoint",
        "stall",
        "disk_full",
        "background_error",
        "poisoned",
        "config_changed",
        "closed",
    ];
}

/// One setting's change, as numbers: times in milliseconds (check interval: seconds), sizes in bytes, `false` as 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SettingChange {
    /// Its name.
    pub name: String,
    /// `None`: the default held.
    pub old: Option<u64>,
    /// `None`: the default holds.
    pub new: Option<u64>,
}

mod nanos {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.as_nanos() as u64)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_nanos)
    }
}

/// Is told of everything that happens.
///
/// It is called from one thread at a time, in order, with no lock held: it may call the engine, also to flush or to
/// close it. It should be quick: what it holds up is later events and, on a worker, background work. A panic in it is
/// caught and changes nothing; it is called again for the next event.
///
/// It is usually made before the engine: give it the engine afterwards, through a `Weak` pointer, or dropping
/// the engine would never close it.
pub trait EventListener: Send + Sync + std::fmt::Debug {
    /// Something happened.
    fn on_event(&self, event: &Event) {
        // Named, and not `_event`, for the documentation.
        let _ = event;
    }
}

/// An event, and when it was.
#[derive(Clone, Debug)]
pub(crate) struct Stamped {
    pub(crate) unix_ms: u64,
    pub(crate) event: Event,
}

/// The queue of one handle.
#[derive(Debug)]
pub(crate) struct Events {
    listener: Option<Arc<dyn EventListener>>,
    pending: Mutex<VecDeque<Stamped>>,
    /// Whether `pending` holds something. Who raises sets this and then looks at `delivering`; who delivers clears that
    /// and then looks at this: with less than `SeqCst` both could miss the other, and nobody would deliver.
    any: AtomicBool,
    /// As above.
    delivering: AtomicBool,
    /// The thread that the listener is called on.
    teller: Mutex<Option<ThreadId>>,
    poisoned_told: AtomicBool,
    /// `None`: not kept for this handle.
    log: Option<Mutex<EventLog>>,
    /// What was last told, and what has come together since.
    stalls: Mutex<[Gathered; StallReason::ALL.len()]>,
    disk_full: Mutex<Option<Duration>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Gathered {
    told: Option<Duration>,
    writes: u64,
    time: Duration,
}

impl Events {
    pub(crate) fn new(listener: Option<Arc<dyn EventListener>>, log: Option<EventLog>) -> Self {
        Self {
            listener,
            pending: Mutex::default(),
            any: AtomicBool::new(false),
            delivering: AtomicBool::new(false),
            teller: Mutex::default(),
            poisoned_told: AtomicBool::new(false),
            log: log.map(Mutex::new),
            stalls: Mutex::default(),
            disk_full: Mutex::default(),
        }
    }

    fn raise(&self, unix_ms: u64, event: Event) {
        let mut pending = self.pending.lock();
        if pending.len() < MOST_PENDING {
            pending.push_back(Stamped { unix_ms, event });
            self.any.store(true, Ordering::SeqCst);
        }
    }

    /// Whether somebody should deliver.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    fn next(&self) -> Option<Stamped> {
        let mut pending = self.pending.lock();
        let next = pending.pop_front();
        self.any.store(!pending.is_empty(), Ordering::SeqCst);
        next
    }

    fn take(&self) -> VecDeque<Stamped> {
        let mut pending = self.pending.lock();
        self.any.store(false, Ordering::SeqCst);
        std::mem::take(&mut *pending)
    }

    fn tell(&self, event: &Event) {
        if let Some(listener) = &self.listener {
            *self.teller.lock() = Some(thread::current().id());
            // A listener's state is its own affair: it sees no reference to ours.
            let _ = catch_unwind(AssertUnwindSafe(|| listener.on_event(event)));
            *self.teller.lock() = None;
        }
    }

    /// Whether the listener is what calls.
    pub(crate) fn telling_here(&self) -> bool {
        *self.teller.lock() == Some(thread::current().id())
    }
}

impl Shared {
    /// Something happened. Takes a leaf lock only.
    pub(crate) fn raise(&self, event: Event) {
        self.events.raise(self.clock.unix_ms(), event);
    }

    /// A write was held up.
    pub(crate) fn raise_stall(&self, reason: StallReason, time: Duration) {
        let now = self.clock.monotonic();
        let mut stalls = self.events.stalls.lock();
        // There is one for each reason, and it only counts.
        let Some(gathered) = stalls.get_mut(reason as usize) else { return };
        gathered.writes += 1;
        gathered.time += time;
        if gathered.told.is_none_or(|told| now.saturating_sub(told) >= STALLS_TOGETHER) {
            let Gathered { writes, time, .. } =
                std::mem::replace(gathered, Gathered { told: Some(now), ..Gathered::default() });
            drop(stalls);
            self.raise(Event::Stall { reason, writes, duration: time });
        }
    }

    /// What has come together of stalls since they were last told.
    fn raise_rest_of_stalls(&self) {
        let rest = std::mem::take(&mut *self.events.stalls.lock());
        for (&reason, gathered) in StallReason::ALL.iter().zip(rest).filter(|(_, g)| g.writes > 0) {
            self.raise(Event::Stall { reason, writes: gathered.writes, duration: gathered.time });
        }
    }

    /// Something failed for want of space.
    pub(crate) fn raise_disk_full(&self) {
        let now = self.clock.monotonic();
        let mut last = self.events.disk_full.lock();
        if last.is_none_or(|last| now.saturating_sub(last) >= STALLS_TOGETHER) {
            *last = Some(now);
            drop(last);
            let (exhausted, detail) = self.why_full();
            self.raise(Event::DiskFull { exhausted: Some(exhausted), detail });
        }
    }

    fn raise_poisoned(&self) {
        if let Some(cause) = self.life.health().cause()
            && !self.events.poisoned_told.swap(true, Ordering::Relaxed)
        {
            self.raise(Event::Poisoned { cause: cause.to_string() });
        }
    }

    /// Whether [`Shared::deliver_events`] has something to do.
    pub(crate) fn has_events(&self) -> bool {
        self.events.any()
            || (self.life.health().cause().is_some() && !self.events.poisoned_told.load(Ordering::Relaxed))
    }

    /// The same, and nobody else is at it.
    pub(crate) fn may_deliver_events(&self) -> bool {
        self.has_events() && !self.events.delivering.load(Ordering::SeqCst)
    }

    /// Hands on what has happened. Call it with no lock and no slot held.
    pub(crate) fn deliver_events(&self) {
        // Whoever finds somebody delivering may leave: that one looks again after it has stopped.
        while self.has_events() && !self.events.delivering.swap(true, Ordering::SeqCst) {
            self.raise_poisoned();
            // One by one: when the listener closes the engine, close takes care of the rest.
            while let Some(stamped) = self.events.next() {
                self.write_event(&stamped);
                self.events.tell(&stamped.event);
            }
            self.events.delivering.store(false, Ordering::SeqCst);
        }
    }

    fn write_event(&self, stamped: &Stamped) {
        trace::event(&stamped.event);
        if let Some(log) = &self.events.log {
            log.lock().append(&*self.vfs, stamped, self.quota.meter.limit());
        }
    }

    /// At close, while the directory is still ours: writes down what is left, and that this was the end. Returns what
    /// the listener is still to be told.
    pub(crate) fn write_last_events(&self, clean: bool) -> VecDeque<Stamped> {
        if self.observed.opened.get().is_none() {
            return VecDeque::new(); // opening failed, and said why: the directory stays as it was
        }
        self.raise_rest_of_stalls();
        self.raise_poisoned();
        self.raise(Event::Closed { clean });
        let last = self.events.take();
        last.iter().for_each(|stamped| self.write_event(stamped));
        last
    }

    pub(crate) fn tell_last_events(&self, last: VecDeque<Stamped>) {
        last.iter().for_each(|stamped| self.events.tell(&stamped.event));
    }
}

/// A call that may change the database is under way: close waits for it. At its end, its events are delivered.
pub(crate) struct Call<'a> {
    gate: Option<RwLockReadGuard<'a, ()>>,
    shared: &'a Shared,
}

impl<'a> Call<'a> {
    pub(crate) fn begin(shared: &'a Shared) -> Self {
        Self { gate: Some(shared.life.enter()), shared }
    }

    /// Lets a close go on meanwhile: what is called may take long, or call the engine. The database may be closed
    /// afterwards.
    pub(crate) fn pause(&mut self, meanwhile: impl FnOnce()) {
        self.gate = None;
        meanwhile();
        self.gate = Some(self.shared.life.enter());
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.gate = None;
        if self.shared.has_events() {
            match self.shared.workers {
                Workers::Manual => self.shared.deliver_events(),
                Workers::Threads => self.shared.background.wake_surely(),
            }
        }
    }
}
