//! The event queue, and the one place that delivers events: to the listener, to the file `EVENTS.jsonl` and to
//! `tracing`.
//!
//! 1. [`Events::raise`] acquires one leaf lock and does no I/O: it may be called anywhere.
//! 2. [`Events::deliver`] calls the listener. It is called only where no lock is held and no slot is taken, so that a
//!    listener may call the engine: on a worker between two jobs or, without workers, at the end of the call that
//!    caused the events.
//! 3. One thread delivers at a time, in the order of the events.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::event_log::EventLog;
use super::events::{Event, EventListener, Stamped};
use super::trace;
use crate::backpressure::StallReason;
use crate::clock::Clock;
use crate::health::Health;
use crate::quota::Exhausted;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, ThreadId};

/// Stalls for one reason within this time are combined into one event: under load every write may be held up a little.
const STALLS_TOGETHER: Duration = Duration::from_secs(1);
/// The queue length at which events are dropped: nothing delivers them, or they are raised faster than they are
/// written.
const MOST_PENDING: usize = 1024;

/// The queue of one handle.
#[derive(Debug)]
pub(crate) struct Events {
    clock: Arc<dyn Clock>,
    health: Arc<Health>,
    listener: Option<Arc<dyn EventListener>>,
    pending: Mutex<VecDeque<Stamped>>,
    /// Whether `pending` is not empty. A thread that raises an event sets this and then reads `delivering`; a thread
    /// that delivers clears `delivering` and then reads this. With less than `SeqCst`, both could miss the other's
    /// store, and nobody would deliver.
    any: AtomicBool,
    /// As above.
    delivering: AtomicBool,
    /// The thread that is calling the listener.
    teller: Mutex<Option<ThreadId>>,
    poisoned_told: AtomicBool,
    /// `None`: this handle keeps no event log.
    log: Option<Mutex<EventLog>>,
    /// For each reason, when stalls were last reported, and the total since.
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
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        health: Arc<Health>,
        listener: Option<Arc<dyn EventListener>>,
        log: Option<EventLog>,
    ) -> Self {
        Self {
            clock,
            health,
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

    /// Queues an event. Acquires only a leaf lock.
    pub(crate) fn raise(&self, event: Event) {
        let unix_ms = self.clock.unix_ms();
        let mut pending = self.pending.lock();
        if pending.len() < MOST_PENDING {
            pending.push_back(Stamped { unix_ms, event });
            self.any.store(true, Ordering::SeqCst);
        }
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
            // A listener's state is its own concern: it holds no reference to that of the engine.
            let _ = catch_unwind(AssertUnwindSafe(|| listener.on_event(event)));
            *self.teller.lock() = None;
        }
    }

    /// Whether this thread is inside a call of the listener.
    pub(crate) fn telling_here(&self) -> bool {
        *self.teller.lock() == Some(thread::current().id())
    }

    /// Records a write that was held up.
    pub(crate) fn raise_stall(&self, reason: StallReason, time: Duration) {
        let now = self.clock.monotonic();
        let mut stalls = self.stalls.lock();
        // There is an entry for each reason; without it, only statistics would be lost.
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

    /// Raises events for the stalls accumulated since the last report.
    fn raise_rest_of_stalls(&self) {
        let rest = std::mem::take(&mut *self.stalls.lock());
        for (&reason, gathered) in StallReason::ALL.iter().zip(rest).filter(|(_, g)| g.writes > 0) {
            self.raise(Event::Stall { reason, writes: gathered.writes, duration: gathered.time });
        }
    }

    /// Records an operation that failed for lack of space. `why` describes the resource that ran out, and is not called
    /// each time.
    pub(crate) fn raise_disk_full(&self, why: impl FnOnce() -> (Exhausted, String)) {
        let now = self.clock.monotonic();
        let mut last = self.disk_full.lock();
        if last.is_none_or(|last| now.saturating_sub(last) >= STALLS_TOGETHER) {
            *last = Some(now);
            drop(last);
            let (exhausted, detail) = why();
            self.raise(Event::DiskFull { exhausted: Some(exhausted), detail });
        }
    }

    fn raise_poisoned(&self) {
        if let Some(cause) = self.health.cause()
            && !self.poisoned_told.swap(true, Ordering::Relaxed)
        {
            self.raise(Event::Poisoned { cause: cause.to_string() });
        }
    }

    /// Whether [`Events::deliver`] has work to do.
    pub(crate) fn has_any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
            || (self.health.cause().is_some() && !self.poisoned_told.load(Ordering::Relaxed))
    }

    /// The same, and no other thread is delivering.
    pub(crate) fn may_deliver(&self) -> bool {
        self.has_any() && !self.delivering.load(Ordering::SeqCst)
    }

    /// Delivers the queued events. Must be called with no lock held and no slot taken.
    pub(crate) fn deliver(&self) {
        // A thread that finds another one delivering may leave: that thread checks again after it has stopped.
        while self.has_any() && !self.delivering.swap(true, Ordering::SeqCst) {
            self.raise_poisoned();
            // One by one: if the listener closes the engine, close handles the rest.
            while let Some(stamped) = self.next() {
                self.write_event(&stamped);
                self.tell(&stamped.event);
            }
            self.delivering.store(false, Ordering::SeqCst);
        }
    }

    fn write_event(&self, stamped: &Stamped) {
        trace::event(&stamped.event);
        if let Some(log) = &self.log {
            log.lock().append(stamped);
        }
    }

    /// At close, while the directory still belongs to the handle: writes the remaining events, and that the database
    /// was closed. Returns the events that the listener must still receive.
    pub(crate) fn write_last(&self, clean: bool) -> VecDeque<Stamped> {
        self.raise_rest_of_stalls();
        self.raise_poisoned();
        self.raise(Event::Closed { clean });
        let last = self.take();
        last.iter().for_each(|stamped| self.write_event(stamped));
        last
    }

    pub(crate) fn tell_last(&self, last: VecDeque<Stamped>) {
        last.iter().for_each(|stamped| self.tell(&stamped.event));
    }
}
