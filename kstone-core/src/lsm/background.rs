//! The background work: what is due, in which order, and who runs it.
//!
//! Every job is a state machine with `step()`. In production a small pool of threads runs them; tests run the very
//! same steps one at a time on one thread ([`super::Workers::Manual`]), in an order that a seed chooses.
//!
//! 1. At most one flush and one compaction per stripe, one checkpoint and one log sync at a time: a job holds its
//!    [`Slot`] from start to end.
//! 2. A failed job leaves everything as it was and is tried again: after [`RETRY_AFTER`], then after twice as long
//!    each time up to [`RETRY_AT_LEAST`]. Others go on meanwhile.
//! 3. Under the queue's lock no stripe is locked, for writers queue flushes under their stripe's lock.
//! 4. What is due by time is due whether anybody writes or not: a database that is only read after it was opened keeps
//!    one thread while there is something that time will make due ([`LsmEngine::keep_time`]), and none otherwise. After
//!    a clean open the first such job is [`Slot::Open`]; until then nothing is written.
//! 5. Who waits asks for sealing once, and again when a job has ended that is not sealing itself, or after
//!    [`RECHECK`]: a worker and a writer do not keep each other busy while both wait for a third.
//!
//! Order: first what only one thread can do at a time and many wait for (room in the log, its sync, checkpoints,
//! sealing, though never twice in a row), then flushes, which free memory, then compactions: those of stripes that
//! writers wait for, then the smallest first (Luo and Carey, "On Performance Stability in LSM-based Storage Systems",
//! 2019).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use smallvec::SmallVec;

use super::checkpoint::CheckpointJob;
use super::compact::CompactJob;
use super::flush::FlushJob;
use super::idle::IdleStripes;
use super::job::{Progress, Slot};
use super::quota::FREED_AT_ONCE;
use super::{LsmEngine, PoisonOnUnwind, Settings, Shared, Workers};
use crate::backpressure::{StallReason, runs_without_delay};
use crate::compaction::picker::Ask;
use crate::config::CompactionConfig;
use crate::error::{Error, Result};
use crate::planted::{Race, raced};
use crate::stripe::Stripe;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::types::Lsn;

/// How long a job rests after its first failure.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long it rests at most.
const RETRY_AT_LEAST: Duration = Duration::from_secs(30);
/// How often somebody who waits looks again, should a wake-up be missed.
const RECHECK: Duration = Duration::from_millis(50);
/// How long a worker sleeps when nothing will become due any more; closing wakes it.
const NOTHING_TO_DO: Duration = Duration::from_secs(3600);

#[derive(Debug)]
enum Job {
    Flush(FlushJob),
    Compact(CompactJob),
    Checkpoint(CheckpointJob),
    /// Done in one step.
    Once,
}

#[derive(Debug, Default)]
pub(crate) struct Background {
    queue: Mutex<Queue>,
    /// Something became due.
    wake: Condvar,
    /// A job has ended.
    progress: Condvar,
    /// Set without the queue's lock by writers, at most once per relief. Cleared by a swap, so that who clears it sees
    /// the memory of all who found it set and did not ask again.
    relief_wanted: AtomicBool,
    /// A writer waits for the log to become shorter. `Relaxed`: it asks for relief afterwards, which is heard under the
    /// queue's lock.
    log_full: AtomicBool,
    /// `Relaxed`: workers look under the queue's lock, which is taken after it is set; between two steps of a job a look
    /// that comes late only costs a step.
    stop: AtomicBool,
    /// Counts the steps of calls that wait, with [`Workers::Manual`].
    turn: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    /// A stripe once per sealed memtable.
    flush: VecDeque<usize>,
    /// Stripes to look at for compaction.
    compact: BTreeSet<usize>,
    /// Stripes to look through for gaps.
    explore: BTreeSet<usize>,
    idle: IdleStripes,
    running: BTreeSet<Slot>,
    /// How many jobs have ended that are not sealing.
    ended: u64,
    /// The last job that was begun is sealing: another comes first now. Who waits asks for sealing again as soon as
    /// one has ended, so that by urgency alone nothing that was sealed might ever be flushed.
    sealed_last: bool,
    /// A flush or a compaction was installed since the last checkpoint began.
    dirty: bool,
    last_checkpoint: Duration,
    last_sync: Duration,
    last_sweep: Duration,
    last_stats: Duration,
    /// SSTs that somebody read are to be removed, and are tried again then; how often they were in vain.
    removal: Option<Duration>,
    removal_tries: u32,
    /// How many compactions run while no writer needs more; no limit without threads, so that seeds mean the same on
    /// every machine.
    calm: Option<usize>,
    /// Stripes that stopped writers wait for, and how many do.
    awaited: BTreeMap<usize, usize>,
    /// Jobs that failed, and when they may be tried again.
    resting: BTreeMap<Slot, Rest>,
    /// A worker sleeps until something becomes due by time alone; the others sleep until they are woken.
    has_timekeeper: bool,
    /// The last failure, until something of its kind succeeds.
    error: Option<(Slot, String)>,
    /// Jobs that tests have begun and not ended.
    begun: Vec<(Slot, Job)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    failures: u32,
    until: Duration,
}

impl Background {
    /// Wakes a worker, also one that is just falling asleep. The caller holds no stripe's lock, nor the queue's.
    pub(crate) fn wake_surely(&self) {
        if !raced(Race::WakeWithoutLock) {
            drop(self.queue.lock());
        }
        self.wake.notify_one();
    }

    /// Has memtables looked at for sealing. The end of that wakes all workers, as that of any job.
    pub(crate) fn want_relief(&self) {
        self.relief_wanted.store(true, Ordering::Relaxed);
        self.wake_surely();
    }

    /// Has the log made shorter, whatever that takes.
    pub(crate) fn log_is_full(&self) {
        self.log_full.store(true, Ordering::Relaxed);
    }

    pub(crate) fn queue_flush(&self, stripe: usize) {
        self.queue.lock().flush.push_back(stripe);
        self.wake.notify_one();
    }

    /// Looks at the stripe for compaction soon.
    pub(crate) fn queue_compaction(&self, stripe: usize) {
        self.queue.lock().compact.insert(stripe);
        self.wake.notify_one();
    }

    /// Looks for gaps in the stripe soon. May be called under its lock.
    pub(crate) fn queue_exploration(&self, stripe: usize) {
        self.queue.lock().explore.insert(stripe);
        self.wake.notify_one();
    }

    /// Has SSTs removed that somebody has read until now.
    pub(crate) fn remove_soon(&self) {
        self.queue.lock().removal = Some(Duration::ZERO);
        self.wake.notify_one();
    }

    /// What was noted of failures that stopped nothing holds no longer.
    pub(crate) fn forget_noted_error(&self) {
        self.queue.lock().error.take_if(|(slot, _)| *slot == Slot::Relief);
    }

    /// Lets a slowed-down writer rest; on one thread, lets the work go on instead.
    pub(crate) fn pause(&self, shared: &Shared, delay: Duration) {
        if shared.workers == Workers::Manual {
            shared.step_in_turn();
            return;
        }
        self.wake.notify_one();
        let mut queue = self.queue.lock();
        self.progress.wait_for(&mut queue, delay);
    }
}

impl Shared {
    /// A memtable of that stripe was sealed.
    pub(crate) fn sealed(&self, stripe: usize, memory: usize) {
        self.sealed_memory.fetch_add(memory, Ordering::Relaxed);
        self.background.queue_flush(stripe);
    }

    /// Seals the stripe's memtable and queues its flush.
    pub(crate) fn seal(&self, stripe: &Stripe) {
        let sealed = stripe.lock().seal();
        if let Some(memory) = sealed {
            self.sealed(stripe.id, memory);
        }
    }

    /// Wakes the background when a write has crossed a line: the memory budget, or into a new log segment.
    pub(crate) fn request_relief(&self, memory: usize, budget: usize, lsn: Lsn) {
        let new_segment =
            self.newest_generation.fetch_max(lsn.generation(), Ordering::Relaxed) < lsn.generation();
        if (memory > budget || new_segment) && !self.background.relief_wanted.swap(true, Ordering::AcqRel) {
            // Nobody asks a second time: a worker that has just looked and not yet fallen asleep must hear of it.
            self.background.wake_surely();
        }
    }

    /// The slots that are due and not resting after a failure, the most urgent first.
    fn ready(&self, queue: &mut Queue) -> Vec<Slot> {
        let mut due = self.due(queue);
        let now = self.clock.monotonic();
        due.retain(|slot| queue.resting.get(slot).is_none_or(|rest| rest.until <= now));
        due
    }

    /// The slots that could be taken now, the most urgent first.
    fn due(&self, queue: &mut Queue) -> Vec<Slot> {
        if self.read_only || self.health.check().is_err() {
            return Vec::new();
        }
        let opened = self.opened.load(Ordering::Acquire);
        let mut due = self.due_once_opened(queue);
        if !opened {
            // Nothing may be written while the manifest still says where the log ends. The log itself asks for nothing
            // before there is a write: what it holds is durable, and its next segment may never be needed.
            let waits = due.iter().any(|slot| {
                matches!(slot, Slot::Flush(_) | Slot::Compact(_) | Slot::Relief | Slot::Checkpoint)
            });
            due.retain(|slot| *slot == Slot::Stats);
            if waits && !queue.running.contains(&Slot::Open) {
                due.insert(0, Slot::Open);
            }
        }
        due
    }

    fn due_once_opened(&self, queue: &mut Queue) -> Vec<Slot> {
        let mut due = Vec::new();
        let now = self.clock.monotonic();
        let manual = self.workers == Workers::Manual;
        let settings = self.settings.load();
        let since = |moment: Duration| now.saturating_sub(moment);
        if since(queue.last_sweep) >= Duration::from_secs(settings.compaction.check_interval_secs) {
            queue.last_sweep = now;
            queue.compact.extend(self.used_stripes().map(|stripe| stripe.id));
            queue.idle.sweep(self.used_stripes().map(|stripe| stripe.id));
            if self.used_stripes().any(|stripe| self.keeps_old_deletes(&settings, stripe)) {
                self.background.relief_wanted.store(true, Ordering::Relaxed);
            }
        }
        if self.wal.needs_segment() && self.may_take_segment() {
            due.push(Slot::Segment);
        }
        let interval = settings.database.sync_interval;
        if !interval.is_zero() && (manual || since(queue.last_sync) >= interval) {
            if self.wal.unsynced() {
                due.push(Slot::LogSync);
            } else if self.wal.wants_watermark() && self.may_take_segment() {
                due.push(Slot::Watermark);
            }
        }
        let log_half_full = self.wal.live_bytes() > settings.log.limit / 2 && queue.flush.is_empty();
        let interval = settings.database.checkpoint_interval;
        if queue.dirty && (manual || log_half_full || since(queue.last_checkpoint) >= interval) {
            due.push(Slot::Checkpoint);
        }
        let relief = self.background.relief_wanted.load(Ordering::Relaxed);
        if relief && !queue.sealed_last {
            due.push(Slot::Relief);
        }
        if self.stats_interval(&settings).is_some_and(|interval| since(queue.last_stats) >= interval) {
            due.push(Slot::Stats);
        }
        if queue.removal.is_some_and(|at| at <= now) {
            due.push(Slot::Removal);
        }
        let flushing = queue.running.iter().filter(|slot| matches!(slot, Slot::Flush(_))).count();
        // Half of the cores, so that flushes never crowd out the writers that cause them.
        if flushing < cores().div_ceil(2) {
            due.extend(queue.flush.iter().map(|&stripe| Slot::Flush(stripe)));
        }
        due.extend(queue.explore.iter().map(|&stripe| Slot::Explore(stripe)));
        let compacting = queue.running.iter().filter(|slot| matches!(slot, Slot::Compact(_))).count();
        if compacting < concurrent_compactions(&settings.compaction) {
            let (running, awaited) = (&queue.running, &queue.awaited);
            let freely = queue.calm.is_none_or(|calm| compacting < calm)
                || self.quota.is_limited() && self.reclaiming();
            let many = runs_without_delay(settings.compaction.sst_threshold as u64);
            let crowded = |stripe: usize| {
                self.stripe_if_used(stripe).is_some_and(|stripe| stripe.version().runs.len() as u64 >= many)
            };
            let mut sizes: Vec<(bool, u64, usize)> = Vec::new();
            queue.compact.retain(|&stripe| {
                let awaited = awaited.contains_key(&stripe);
                if running.contains(&Slot::Compact(stripe)) || !(freely || awaited || crowded(stripe)) {
                    return true;
                }
                let size = self.compaction_due(stripe, Ask::Due);
                sizes.extend(size.map(|bytes| (!awaited, bytes, stripe)));
                size.is_some()
            });
            sizes.sort_unstable();
            // What was merged takes space until a checkpoint: some merges share one, but none waits for nothing.
            let none_fits = freely && sizes.is_empty() && queue.flush.is_empty();
            let gives_back = none_fits || self.quota.dying.load(Ordering::Relaxed) >= FREED_AT_ONCE;
            if gives_back && queue.dirty && !due.contains(&Slot::Checkpoint) && self.reclaiming() {
                due.push(Slot::Checkpoint);
            }
            due.extend(sizes.into_iter().map(|(.., stripe)| Slot::Compact(stripe)));
        }
        if queue.dirty && self.quota.few_inodes.load(Ordering::Relaxed) && !due.contains(&Slot::Checkpoint) {
            due.push(Slot::Checkpoint); // it gives back the files that were merged
        }
        if relief && queue.sealed_last {
            due.push(Slot::Relief);
        }
        due.retain(|slot| !queue.running.contains(slot));
        if due.is_empty() && queue.running.is_empty() {
            let idle = queue.idle.smallest(|stripe| self.compaction_due(stripe, Ask::Idle));
            due.extend(idle.map(Slot::Compact));
        }
        due
    }

    /// Marks the slot taken and makes its job.
    fn begin(&self, queue: &mut Queue, slot: Slot) -> Job {
        queue.running.insert(slot);
        queue.sealed_last = slot == Slot::Relief;
        match slot {
            Slot::Flush(stripe) => {
                if let Some(at) = queue.flush.iter().position(|&queued| queued == stripe) {
                    queue.flush.remove(at);
                }
                Job::Flush(FlushJob::new(stripe))
            }
            Slot::Compact(stripe) => {
                let ask = if queue.compact.remove(&stripe) { Ask::Due } else { Ask::Idle };
                Job::Compact(CompactJob::new(stripe, ask))
            }
            Slot::Checkpoint => {
                queue.dirty = false;
                queue.last_checkpoint = self.clock.monotonic();
                Job::Checkpoint(CheckpointJob::Start)
            }
            Slot::LogSync | Slot::Watermark => {
                queue.last_sync = self.clock.monotonic();
                Job::Once
            }
            Slot::Stats => {
                queue.last_stats = self.clock.monotonic();
                Job::Once
            }
            Slot::Explore(stripe) => {
                queue.explore.remove(&stripe);
                Job::Once
            }
            Slot::Removal => {
                queue.removal = None;
                queue.removal_tries += 1;
                Job::Once
            }
            Slot::Segment | Slot::Relief | Slot::Open => Job::Once,
        }
    }

    fn step_job(&self, slot: Slot, job: &mut Job) -> Result<Progress> {
        match (job, slot) {
            (Job::Flush(job), _) => job.step(self),
            (Job::Compact(job), _) => job.step(self),
            (Job::Checkpoint(job), _) => job.step(self),
            (Job::Once, Slot::Segment) => self.prepare_segment().map(|()| Progress::Done),
            (Job::Once, Slot::LogSync) => self.wal.sync().map(|()| Progress::Done),
            (Job::Once, Slot::Watermark) => self.wal.append_watermark().map(|()| Progress::Done),
            (Job::Once, Slot::Stats) => Ok(self.write_stats_file()),
            (Job::Once, Slot::Explore(stripe)) => {
                self.explore(stripe);
                Ok(Progress::Done)
            }
            (Job::Once, Slot::Open) => self.ensure_opened().map(|()| Progress::Done),
            (Job::Once, Slot::Removal) => {
                self.remove_obsolete();
                Ok(Progress::Done)
            }
            (Job::Once, _) => {
                self.relieve();
                Ok(Progress::Done)
            }
        }
    }

    /// Seals memtables: the fullest while the active ones are over the memory budget, and those that a log near its
    /// limit has to be kept for.
    fn relieve(&self) {
        self.background.relief_wanted.swap(false, Ordering::AcqRel);
        self.seal_for_space();
        let settings = self.settings.load();
        for stripe in self.used_stripes().filter(|stripe| self.keeps_old_deletes(&settings, stripe)) {
            self.seal(stripe);
        }
        loop {
            let memory = self.memory.load(Ordering::Relaxed);
            if memory.saturating_sub(self.sealed_memory.load(Ordering::Relaxed)) <= settings.memory_budget {
                break;
            }
            let fullest = self.used_stripes().max_by_key(|stripe| stripe.version().active.memory());
            match fullest {
                Some(stripe) if !stripe.version().active.is_empty() => self.seal(stripe),
                _ => break,
            }
        }
        self.shorten_log(settings.log.limit, self.background.log_full.swap(false, Ordering::Relaxed));
    }

    /// Whether a delete has waited in memory for so long that what it hides should be gone from the disk by now: only
    /// what was flushed can be merged.
    fn keeps_old_deletes(&self, settings: &Settings, stripe: &Stripe) -> bool {
        let limit = settings.compaction.tombstone_age.filter(|_| settings.compaction.enabled);
        let since = stripe.version().active.deleted_since();
        limit.zip(since).is_some_and(|(limit, since)| since.age(self.now()) > limit)
    }

    /// Whether time alone will make something due, now or later.
    fn will_be_due(&self) -> bool {
        let settings = self.settings.load();
        let left = {
            let queue = self.background.queue.lock();
            queue.dirty || !queue.flush.is_empty() || self.background.relief_wanted.load(Ordering::Relaxed)
        };
        let deletes = |stripe: &Stripe| {
            let version = stripe.version();
            version.memtables().any(|memtable| memtable.deleted_since().is_some())
                || version.runs.iter().any(|run| run.deleted_since.is_some())
        };
        let merges = |stripe: &Stripe| {
            [Ask::Due, Ask::Idle].iter().any(|&ask| self.compaction_due(stripe.id, ask).is_some())
        };
        left || self.stats_interval(&settings).is_some()
            || settings.compaction.enabled
                && self.used_stripes().any(|stripe| deletes(stripe) || merges(stripe))
            || self.quota.is_limited() && self.reclaiming()
    }

    /// Seals what the oldest half of the log is kept for when that has grown to three quarters of its limit. Over the
    /// limit, or when a writer waits, all but the segment that is written to must go, and when only that is left, it
    /// must become another one.
    fn shorten_log(&self, limit: u64, full: bool) {
        let live = self.wal.live_bytes();
        if !full && live <= limit / 4 * 3 {
            return;
        }
        let urgent = full || live > limit;
        if urgent {
            match self.wal.rotate_last() {
                Ok(_) => {}
                Err(error) => self.note_background_error(&error),
            }
        }
        let (oldest, newest) = (self.wal.oldest_generation(), self.wal.tail().generation());
        let half = oldest + newest.saturating_sub(oldest).div_ceil(2);
        let keep_from = if urgent { newest } else { half };
        let mut needed_from = newest;
        for stripe in self.used_stripes() {
            let version = Arc::clone(&stripe.version());
            if version.active.first_lsn().is_some_and(|lsn| lsn.generation() < keep_from) {
                self.seal(stripe);
            }
            let needed = version.memtables().filter_map(|memtable| memtable.first_lsn()).min();
            needed_from = needed.map_or(needed_from, |lsn| needed_from.min(lsn.generation()));
        }
        // Segments may be kept only because what was flushed is not checkpointed.
        if needed_from > oldest && !self.pins.hold_log() {
            self.background.queue.lock().dirty = true;
        }
    }

    /// Ends a job: frees its slot, queues what follows from it.
    fn end(&self, slot: Slot, job: Job, result: Result<()>) {
        let failed = result.is_err();
        match (&result, job) {
            (Err(_), Job::Flush(job)) => job.abort(self),
            (Err(_), Job::Compact(job)) => job.abort(self),
            _ => {}
        }
        // Before it counts as done: who waits for space must find what it has freed.
        if !failed && matches!(slot, Slot::Checkpoint | Slot::Compact(_)) {
            self.remove_obsolete();
        }
        let freed_files =
            !failed && slot == Slot::Checkpoint && self.quota.few_inodes.load(Ordering::Relaxed);
        if freed_files {
            self.look_at_inodes();
        }
        let failure = result.as_ref().err().map(|error| (slot, self.job_failed(slot, error)));
        let mut queue = self.background.queue.lock();
        if freed_files {
            // What failed for want of them need not rest any longer.
            queue
                .resting
                .retain(|slot, _| !matches!(slot, Slot::Flush(_) | Slot::Compact(_) | Slot::Segment));
        }
        queue.running.remove(&slot);
        queue.ended += u64::from(slot != Slot::Relief);
        match result {
            Ok(()) => {
                queue.resting.remove(&slot);
                if queue
                    .error
                    .as_ref()
                    .is_some_and(|(kind, _)| std::mem::discriminant(kind) == std::mem::discriminant(&slot))
                {
                    queue.error = None;
                }
            }
            Err(_) => {
                queue.error = failure;
                let rest = queue.resting.entry(slot).or_default();
                let pause = RETRY_AFTER.saturating_mul(1 << rest.failures.min(20)).min(RETRY_AT_LEAST);
                rest.failures += 1;
                rest.until = self.clock.monotonic() + pause;
            }
        }
        self.queue_successors(&mut queue, slot, failed);
        drop(queue);
        self.background.progress.notify_all();
        self.background.wake.notify_all();
    }

    fn queue_successors(&self, queue: &mut Queue, slot: Slot, failed: bool) {
        match slot {
            Slot::Flush(stripe) => {
                if failed {
                    queue.flush.push_front(stripe);
                } else {
                    queue.dirty = true;
                    queue.compact.insert(stripe);
                    queue.idle.flushed(stripe);
                }
            }
            Slot::Compact(stripe) => {
                queue.dirty |= !failed;
                queue.compact.insert(stripe);
            }
            Slot::Checkpoint => {
                queue.dirty |= failed;
                if !failed && self.quota.is_limited() {
                    // There may be space now for merges that found none.
                    queue.compact.extend(self.used_stripes().map(|stripe| stripe.id));
                }
            }
            Slot::Segment | Slot::Relief | Slot::LogSync | Slot::Watermark => {}
            Slot::Stats | Slot::Open | Slot::Explore(_) | Slot::Removal => {}
        }
    }

    /// SSTs that nobody needs any more are read still, or none are: in the first case they are tried again when a reader
    /// lets go, and after a while, which grows, whoever it is that reads them.
    pub(crate) fn remove_once_unread(&self, read: bool) {
        let mut queue = self.background.queue.lock();
        if read {
            let pause = RETRY_AFTER.saturating_mul(1 << queue.removal_tries.min(20)).min(RETRY_AT_LEAST);
            queue.removal = Some(self.clock.monotonic() + pause);
        } else {
            (queue.removal, queue.removal_tries) = (None, 0);
        }
        self.held.wait_for_readers(read);
        drop(queue);
        if read {
            self.background.wake.notify_one();
        }
    }

    /// Takes a slot for work on the caller's thread, waiting until it is free.
    pub(crate) fn claim(&self, slot: Slot) -> Result<()> {
        let mut since = None;
        let claimed = loop {
            if let Err(error) = self.health.check() {
                break Err(error);
            }
            let mut queue = self.background.queue.lock();
            if queue.running.insert(slot) {
                if slot == Slot::Checkpoint {
                    queue.dirty = false;
                }
                break Ok(());
            }
            since.get_or_insert_with(|| self.clock.monotonic());
            self.wait_with(queue);
        };
        if let Some(since) = since {
            self.waited(StallReason::Jobs, since);
        }
        claimed
    }

    /// Has these stripes merged before all others, for as long as the guard lives: somebody waits for that.
    pub(crate) fn await_merges(&self, stripes: &[u16]) -> AwaitedMerges<'_> {
        let stripes: SmallVec<[usize; 8]> = stripes.iter().map(|&stripe| stripe.into()).collect();
        let mut queue = self.background.queue.lock();
        for &stripe in &stripes {
            *queue.awaited.entry(stripe).or_default() += 1;
            queue.compact.insert(stripe);
        }
        drop(queue);
        AwaitedMerges { background: &self.background, stripes }
    }

    /// Gives a claimed slot back.
    pub(crate) fn release(&self, slot: Slot, failed: bool) {
        let mut queue = self.background.queue.lock();
        queue.running.remove(&slot);
        queue.ended += 1;
        self.queue_successors(&mut queue, slot, failed);
        drop(queue);
        self.background.progress.notify_all();
        self.background.wake.notify_all();
    }

    /// False when it was time that ended the wait.
    fn wait_with(&self, mut queue: MutexGuard<'_, Queue>) -> bool {
        if self.workers == Workers::Manual {
            drop(queue);
            self.step_in_turn();
            return true;
        }
        self.background.wake.notify_all();
        !self.background.progress.wait_for(&mut queue, RECHECK).timed_out()
    }

    /// Waits for a job to end, waking the workers first. False when nothing is left that could end: only on one
    /// thread, where nobody else works. `asked` is the caller's note of when it last asked for sealing, `None` at
    /// first.
    pub(crate) fn wait_for_progress(&self, asked: &mut Option<u64>) -> bool {
        if self.workers == Workers::Manual {
            self.relieve();
            return self.step_in_turn();
        }
        let queue = self.background.queue.lock();
        if *asked != Some(queue.ended) || raced(Race::SealingAskedForAlways) {
            *asked = Some(queue.ended);
            self.background.relief_wanted.store(true, Ordering::Relaxed);
        }
        if !self.wait_with(queue) {
            *asked = None;
        }
        true
    }

    /// Looks at every stripe for compaction, and has what was merged or flushed already checkpointed.
    pub(crate) fn look_at_all_stripes(&self) {
        let mut queue = self.background.queue.lock();
        queue.compact.extend(self.used_stripes().map(|stripe| stripe.id));
        queue.dirty |= self.wal.can_retire();
    }

    /// Waits while something goes on, or is about to, that may free space; false when there is no such thing.
    pub(crate) fn wait_for_reclaim(&self) -> bool {
        if self.workers == Workers::Manual {
            return self.wait_for_progress(&mut None);
        }
        let frees = |slot: &Slot| {
            use Slot::{Checkpoint, Compact, Flush, Relief, Removal};
            matches!(slot, Flush(_) | Compact(_) | Checkpoint | Relief | Removal)
        };
        let mut queue = self.background.queue.lock();
        // SSTs that a reader has just held free their space as soon as it lets go.
        let soon = self.clock.monotonic().saturating_add(RETRY_AFTER);
        let removes = queue.removal.is_some_and(|at| at <= soon);
        let busy = removes || queue.running.iter().any(frees) || self.ready(&mut queue).iter().any(frees);
        if busy {
            self.wait_with(queue);
        }
        busy
    }

    /// The last failure of background work that has not been made good.
    pub(crate) fn background_error(&self) -> Option<String> {
        self.background.queue.lock().error.as_ref().map(|(_, error)| error.clone())
    }

    /// A failure that stops nothing: kept for whoever asks.
    pub(crate) fn note_background_error(&self, error: &Error) {
        let text = self.job_failed(Slot::Relief, error);
        self.background.queue.lock().error = Some((Slot::Relief, text));
    }

    /// One step of one job, begun or new, as `choice` picks; false when nothing is due.
    pub(crate) fn step(&self, choice: u64) -> bool {
        let mut queue = self.background.queue.lock();
        let due = self.due(&mut queue);
        self.step_one(queue, &due, choice)
    }

    /// A step of what is ready, each in its turn: for calls that wait while nobody else works. What has just failed
    /// is left alone, or a call would wait for ever on a clock that stands still.
    fn step_in_turn(&self) -> bool {
        let mut queue = self.background.queue.lock();
        let due = self.ready(&mut queue);
        self.step_one(queue, &due, self.background.turn.fetch_add(1, Ordering::Relaxed))
    }

    fn step_one(&self, mut queue: MutexGuard<'_, Queue>, due: &[Slot], choice: u64) -> bool {
        let begun = queue.begun.len();
        let options = begun + due.len();
        if options == 0 {
            return false;
        }
        let at = (choice % options as u64) as usize;
        let (slot, mut job) = match due.get(at.wrapping_sub(begun)) {
            Some(&slot) => (slot, self.begin(&mut queue, slot)),
            None => queue.begun.swap_remove(at),
        };
        drop(queue);
        let unwinding = PoisonOnUnwind { shared: self, what: "background work" };
        let stepped = self.step_job(slot, &mut job);
        std::mem::forget(unwinding);
        debug_assert!(self.keeps_its_promises(), "after a step of {slot:?}: {:?}", self.space_report());
        match stepped {
            Ok(Progress::Again) => self.background.queue.lock().begun.push((slot, job)),
            Ok(Progress::Done) => self.end(slot, job, Ok(())),
            Err(error) => self.end(slot, job, Err(error)),
        }
        true
    }

    /// Gives up what tests have begun: the engine closes.
    pub(crate) fn abandon_begun(&self) {
        let begun = std::mem::take(&mut self.background.queue.lock().begun);
        for (slot, job) in begun {
            self.end(slot, job, Err(Error::Closed));
        }
    }

    /// How long a worker may sleep before something becomes due by time alone.
    fn nap(&self, queue: &Queue) -> Duration {
        if self.health.check().is_err() {
            return NOTHING_TO_DO;
        }
        let settings = self.settings.load();
        let now = self.clock.monotonic();
        let until = |moment: Duration, interval: Duration| (moment + interval).saturating_sub(now);
        let mut nap = until(queue.last_sweep, Duration::from_secs(settings.compaction.check_interval_secs));
        let interval = settings.database.sync_interval;
        let opened = self.opened.load(Ordering::Acquire);
        if opened && !interval.is_zero() && !queue.running.contains(&Slot::LogSync) {
            // Also while nothing is unsynced: a write does not wake anybody for its sync.
            nap = nap.min(until(queue.last_sync, interval).max(interval / 2));
        }
        if let Some(interval) = self.stats_interval(&settings) {
            nap = nap.min(until(queue.last_stats, interval));
        }
        if queue.dirty && !queue.running.contains(&Slot::Checkpoint) {
            nap = nap.min(until(queue.last_checkpoint, settings.database.checkpoint_interval));
        }
        if let Some(at) = queue.removal {
            nap = nap.min(until(at, Duration::ZERO));
        }
        let rested = queue.resting.values().map(|rest| until(rest.until, Duration::ZERO)).min();
        nap.min(rested.unwrap_or(nap)).max(Duration::from_millis(1))
    }

    fn work(&self) {
        // A job that panics would hold its slot for ever: whoever waits for it must hear of that.
        let unwinding = PoisonOnUnwind { shared: self, what: "background work" };
        let mut queue = self.background.queue.lock();
        while !self.background.stop.load(Ordering::Relaxed) {
            if self.may_deliver_events() {
                if !queue.has_timekeeper && !raced(Race::ListenerKeepsTime) {
                    // A listener may take long: another worker keeps the time meanwhile.
                    self.background.wake.notify_one();
                }
                MutexGuard::unlocked(&mut queue, || self.deliver_events());
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
            let mut result = Ok(Progress::Again);
            while matches!(result, Ok(Progress::Again)) && !self.background.stop.load(Ordering::Relaxed) {
                result = self.step_job(slot, &mut job);
            }
            match result {
                Ok(Progress::Done) => self.end(slot, job, Ok(())),
                Ok(Progress::Again) => self.end(slot, job, Err(Error::Closed)),
                Err(error) => self.end(slot, job, Err(error)),
            }
            queue = self.background.queue.lock();
        }
        std::mem::forget(unwinding);
    }
}

/// Stripes that somebody waits for.
#[must_use]
pub(crate) struct AwaitedMerges<'a> {
    background: &'a Background,
    stripes: SmallVec<[usize; 8]>,
}

impl Drop for AwaitedMerges<'_> {
    fn drop(&mut self) {
        let mut queue = self.background.queue.lock();
        for stripe in &self.stripes {
            if let Some(waiting) = queue.awaited.get_mut(stripe) {
                *waiting -= 1;
                if *waiting == 0 {
                    queue.awaited.remove(stripe);
                }
            }
        }
    }
}

/// The processor cores of the machine; 1 when that is not known.
fn cores() -> usize {
    // Asking the system opens files, and the scheduler asks often.
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    *CORES
}

/// How many compactions run at once while they slow no writer down: a core is left to those who read and write. With a
/// merge on each, a get waits for the slices of time that merges have, and one in a hundred takes milliseconds.
fn calm_compactions(cores: usize) -> usize {
    cores.saturating_sub(1).max(1)
}

/// How many compactions run at once at most: no more than have threads of their own beside the two for other work.
fn concurrent_compactions(config: &CompactionConfig) -> usize {
    config.max_concurrent_compactions.min(cores() * 2)
}

/// The threads of an engine. They hold the shared state, which never holds them: dropping the engine joins them.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    started: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl LsmEngine {
    /// At the end of open: time counts from now on, and settings may have changed while the database was closed. Starts
    /// one thread if there is something that time will make due. A database that is only read needs no other.
    pub(crate) fn keep_time(&self) {
        let shared = &*self.shared;
        let mut queue = shared.background.queue.lock();
        // On one thread tests say when a step is made, and all that is looked at in intervals is looked at with the first.
        queue.compact.extend(shared.used_stripes().map(|stripe| stripe.id));
        if shared.workers == Workers::Manual {
            return;
        }
        let now = shared.clock.monotonic();
        (queue.last_sync, queue.last_checkpoint) = (now, now);
        (queue.last_sweep, queue.last_stats) = (now, now);
        queue.calm = Some(calm_compactions(cores()));
        drop(queue);
        // Opening is worth more than what can wait for the first write, which starts the others.
        if !shared.read_only
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
        // Who kept the time alone may sleep for longer than the log may wait for its sync.
        self.shared.background.wake.notify_all();
        Ok(())
    }

    /// Brings the pool to the size that the settings ask for, if it was started and is smaller. Larger ones stay:
    /// what is beyond the settings sleeps.
    pub(crate) fn grow_pool(&self) -> Result<()> {
        if !self.pool.started.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Two beyond the compactions, so that a flush and a sync never wait for them.
        let compactions = concurrent_compactions(&self.shared.settings.load().compaction);
        self.start_threads(2 + compactions)
    }

    /// Starts threads until there are that many.
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
                // Fewer do the same work, only later; with none, nothing would ever be flushed.
                Err(_) if !threads.is_empty() => break,
                Err(source) => return Err(Error::io("start a thread for", &self.shared.dir)(source)),
            }
        }
        Ok(())
    }

    /// Stops the pool and waits for it. Jobs stop between two steps and leave no trace.
    pub(crate) fn stop_workers(&self) {
        self.shared.background.stop.store(true, Ordering::Relaxed);
        if !raced(Race::StopWithoutLock) {
            // Under the lock, so that no worker is between looking at `stop` and falling asleep.
            drop(self.shared.background.queue.lock());
        }
        self.shared.background.wake.notify_all();
        let threads = std::mem::take(&mut *self.pool.threads.lock());
        for thread in threads {
            // A listener may close the engine, or be the last to let go of it: its worker ends by itself.
            if thread.thread().id() != thread::current().id() {
                // One that panicked has poisoned the handle; there is nothing else to learn from it.
                let _ = thread.join();
            }
        }
        self.shared.abandon_begun();
    }
}

#[cfg(test)]
mod tests;
