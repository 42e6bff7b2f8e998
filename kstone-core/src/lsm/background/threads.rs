//! The threads of an engine: when they start, what they do, and how they end.

use std::sync::Arc;

use super::schedule::{calm_compactions, concurrent_compactions};
use crate::error::{Error, Result};
use crate::health::PoisonOnUnwind;
use crate::lsm::LsmEngine;
use crate::lsm::job::StepResult;
use crate::lsm::options::Workers;
use crate::lsm::state::Shared;
use crate::parallel::cores;
use crate::planted::{Race, raced};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Mutex, MutexGuard};

/// The threads of an engine. They hold the shared state, which does not hold them: dropping the engine joins them.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    pub(super) started: AtomicBool,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Shared {
    fn work(&self) {
        // A job that panics would hold its slot forever: its waiters must find the handle poisoned.
        let unwinding = PoisonOnUnwind::new(self.life.health(), "background work");
        let mut queue = self.background.queue.lock();
        while !self.background.stop.load(Ordering::Relaxed) {
            if self.observed.events().may_deliver() {
                if !queue.has_timekeeper && !raced(Race::ListenerKeepsTime) {
                    // A listener may take long: meanwhile another worker keeps the time.
                    self.background.wake.notify_one();
                }
                MutexGuard::unlocked(&mut queue, || self.observed.events().deliver());
                continue;
            }
            let due = self.ready(&mut queue);
            let Some(&slot) = due.first() else {
                if queue.has_timekeeper {
                    self.background.wake.wait(&mut queue);
                } else {
                    let nap = self.nap(&queue);
                    queue.has_timekeeper = true;
                    self.background.wake.wait_for(&mut queue, nap);
                    queue.has_timekeeper = false;
                }
                continue;
            };
            let mut job = self.begin(&mut queue, slot);
            if due.len() > 1 || !queue.has_timekeeper {
                self.background.wake.notify_one();
            }
            drop(queue);
            let mut result = Ok(StepResult::Again);
            while matches!(result, Ok(StepResult::Again)) && !self.background.stop.load(Ordering::Relaxed) {
                result = job.step(self);
            }
            match result {
                Ok(StepResult::Done) => self.end(slot, job, Ok(())),
                Ok(StepResult::Again) => self.end(slot, job, Err(Error::Closed)),
                Err(error) => self.end(slot, job, Err(error)),
            }
            queue = self.background.queue.lock();
        }
        std::mem::forget(unwinding);
    }
}

impl LsmEngine {
    /// Called at the end of open: intervals count from now on, and settings may have changed while the database was
    /// closed. Starts one thread if any work will become due by time. A database that is only read needs no other
    /// thread.
    pub(crate) fn keep_time(&self) {
        let shared = &*self.shared;
        let mut queue = shared.background.queue.lock();
        // With a single thread, tests decide when steps are taken, and everything that is checked at intervals is due
        // in the first step.
        queue.compact.extend(shared.stripes.used().map(|stripe| stripe.id));
        if shared.workers == Workers::Manual {
            return;
        }
        let now = shared.clock.monotonic();
        (queue.last_sync, queue.last_checkpoint) = (now, now);
        (queue.last_sweep, queue.last_stats) = (now, now);
        queue.calm = Some(calm_compactions(cores()));
        drop(queue);
        // A fast open matters more than work that can wait for the first write, which starts the other threads.
        if !shared.life.is_read_only()
            && shared.will_be_due()
            && let Err(error) = self.start_threads(1)
        {
            shared.note_background_error(&error);
        }
    }

    /// Starts the pool with the first write.
    pub(crate) fn start_workers(&self) -> Result<()> {
        if self.pool.started.load(Ordering::Relaxed) || self.shared.workers == Workers::Manual {
            return Ok(());
        }
        let now = self.shared.clock.monotonic();
        let mut queue = self.shared.background.queue.lock();
        (queue.last_sync, queue.last_checkpoint) = (now, now);
        drop(queue);
        self.pool.started.store(true, Ordering::Relaxed);
        self.grow_pool().inspect_err(|_| self.pool.started.store(false, Ordering::Relaxed))?;
        // The thread that kept the time so far may sleep longer than the log may wait for its sync.
        self.shared.background.wake.notify_all();
        Ok(())
    }

    /// Grows the pool to the size in the settings, if it was started and is smaller. A larger pool is kept: the excess
    /// threads sleep.
    pub(crate) fn grow_pool(&self) -> Result<()> {
        if !self.pool.started.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Two more than compactions, so that a flush and a sync never wait for compactions.
        let compactions = concurrent_compactions(&self.shared.settings.load().compaction);
        self.start_threads(2 + compactions)
    }

    /// Starts threads until there are this many.
    fn start_threads(&self, count: usize) -> Result<()> {
        let mut threads = self.pool.threads.lock();
        if self.shared.background.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        for i in threads.len()..count {
            let shared = Arc::clone(&self.shared);
            let worker = thread::Builder::new().name(format!("kstone-{i}"));
            match worker.spawn(move || shared.work()) {
                Ok(thread) => threads.push(thread),
                // Fewer threads do the same work, only later; with none, nothing would ever be flushed.
                Err(_) if !threads.is_empty() => break,
                Err(source) => return Err(Error::io("start a thread for", self.shared.io.dir())(source)),
            }
        }
        Ok(())
    }

    /// Stops the pool and waits for it. Jobs stop between two steps and leave no trace.
    pub(crate) fn stop_workers(&self) {
        self.shared.background.stop.store(true, Ordering::Relaxed);
        if !raced(Race::StopWithoutLock) {
            // Under the lock, so that no worker is between checking `stop` and falling asleep.
            drop(self.shared.background.queue.lock());
        }
        self.shared.background.wake.notify_all();
        let threads = std::mem::take(&mut *self.pool.threads.lock());
        for thread in threads {
            // A listener may close the engine, or drop the last handle to it: its worker then ends by itself.
            if thread.thread().id() != thread::current().id() {
                // A thread that panicked has poisoned the handle; its result says nothing more.
                let _ = thread.join();
            }
        }
        self.shared.abandon_begun();
    }
}
