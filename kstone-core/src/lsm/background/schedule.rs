//! What is due now, and when work will become due by time alone: the engine's side of the decision in `due.rs`.

use std::time::Duration;

use super::due::{Probe, View, due};
use super::queue::Queue;
use crate::backpressure::runs_without_delay;
use crate::compaction::picker::Ask;
use crate::config::CompactionConfig;
use crate::lsm::idle::IdleStripes;
use crate::lsm::job::Slot;
use crate::lsm::options::Workers;
use crate::lsm::settings::Settings;
use crate::lsm::state::Shared;
use crate::parallel::cores;
use crate::stripe::Stripe;
use crate::sync::atomic::Ordering;

/// How long a worker sleeps when nothing will become due by time; closing wakes it.
pub(super) const NOTHING_TO_DO: Duration = Duration::from_secs(3600);

impl Shared {
    /// The slots that are due and not pausing after a failure, most urgent first.
    pub(super) fn ready(&self, queue: &mut Queue) -> Vec<Slot> {
        let mut due = self.due(queue);
        let now = self.clock.monotonic();
        due.retain(|slot| queue.resting.get(slot).is_none_or(|rest| rest.until <= now));
        due
    }

    /// The slots that could be taken now, most urgent first. Stripes with nothing to merge are not checked again until
    /// they are queued again.
    pub(super) fn due(&self, queue: &mut Queue) -> Vec<Slot> {
        let may_write = !self.life.is_read_only() && self.life.health().check().is_ok();
        let opened = self.life.is_opened();
        let settings = self.settings.load();
        let now = self.clock.monotonic();
        if may_write {
            self.sweep(queue, &settings, now);
            queue.memory_idle |= queue.idle.check(now, self.stripes.used().map(|stripe| stripe.id));
        }
        let view = View {
            may_write,
            opened,
            manual: self.workers == Workers::Manual,
            now,
            sync_interval: settings.database.sync_interval,
            last_sync: queue.last_sync,
            checkpoint_interval: settings.database.checkpoint_interval,
            last_checkpoint: queue.last_checkpoint,
            stats_interval: self.stats_interval(&settings),
            last_stats: queue.last_stats,
            removal: queue.removal,
            wants_segment: self.io.wal().needs_segment() && self.may_take_segment(),
            log_half_full: self.io.wal().live_bytes() > settings.log.limit / 2,
            seal_wanted: self.background.seal_wanted.load(Ordering::Relaxed),
            sealed_last: queue.sealed_last,
            memory_idle: queue.memory_idle,
            dirty: queue.dirty,
            few_inodes: self.space.lacks_inodes(),
            frees_much: self.space.checkpoint_frees_much(),
            limited: self.space.is_limited(),
            running: &queue.running,
            flush: &queue.flush,
            explore: &queue.explore,
            compact: &queue.compact,
            awaited: &queue.awaited,
            // Half of the cores, so that flushes never crowd out the writers that cause them.
            most_flushes: cores().div_ceil(2),
            most_compactions: concurrent_compactions(&settings.compaction),
            calm: queue.calm,
            crowded: runs_without_delay(settings.compaction.sst_threshold as u64),
        };
        let mut engine = Engine { shared: self, idle: &mut queue.idle, nothing_to_merge: Vec::new() };
        let due = due(&view, &mut engine);
        for stripe in engine.nothing_to_merge {
            queue.compact.remove(&stripe);
        }
        due
    }

    /// Once per interval, checks all stripes: for work that no flush has noticed, for idle stripes, and for old
    /// deletes.
    fn sweep(&self, queue: &mut Queue, settings: &Settings, now: Duration) {
        let interval = Duration::from_secs(settings.compaction.check_interval_secs);
        if now.saturating_sub(queue.last_sweep) < interval {
            return;
        }
        queue.last_sweep = now;
        queue.compact.extend(self.stripes.used().map(|stripe| stripe.id));
        queue.idle.sweep(self.stripes.used().map(|stripe| stripe.id));
        if self.stripes.used().any(|stripe| self.keeps_old_deletes(settings, stripe)) {
            self.background.seal_wanted.store(true, Ordering::Relaxed);
        }
    }

    /// Whether any work will become due by time alone, now or later.
    pub(super) fn will_be_due(&self) -> bool {
        let settings = self.settings.load();
        let left = self.has_begun(&self.background.queue.lock());
        let deletes = |stripe: &Stripe| {
            let version = stripe.version();
            version.memtables().any(|memtable| memtable.deleted_since().is_some())
                || version.runs.iter().any(|run| run.deleted_since.is_some())
        };
        left || self.stats_interval(&settings).is_some()
            || settings.compaction.enabled
                && self.stripes.used().any(|stripe| deletes(stripe) || self.will_merge(stripe))
            || self.space.is_limited() && self.reclaiming()
    }

    /// Whether neither a job is running, nor anything left that is done without another write but what comes with age.
    pub(crate) fn is_settled(&self) -> bool {
        let queue = self.background.queue.lock();
        self.life.is_read_only()
            || queue.running.is_empty()
                && !self.has_begun(&queue)
                && !self.stripes.used().any(|stripe| self.will_merge(stripe))
    }

    /// Whether work that writers have begun is left.
    fn has_begun(&self, queue: &Queue) -> bool {
        queue.dirty || !queue.flush.is_empty() || self.background.seal_wanted.load(Ordering::Relaxed)
    }

    /// Whether the stripe is merged now, or once it is idle.
    fn will_merge(&self, stripe: &Stripe) -> bool {
        [Ask::Due, Ask::Idle].iter().any(|&ask| self.compaction_due(stripe.id, ask).is_some())
    }

    /// How long a worker may sleep before work becomes due by time alone.
    pub(super) fn nap(&self, queue: &Queue) -> Duration {
        if self.life.health().check().is_err() {
            return NOTHING_TO_DO;
        }
        let settings = self.settings.load();
        let now = self.clock.monotonic();
        let until = |moment: Duration, interval: Duration| (moment + interval).saturating_sub(now);
        let mut nap = until(queue.last_sweep, Duration::from_secs(settings.compaction.check_interval_secs));
        let interval = settings.database.sync_interval;
        let opened = self.life.is_opened();
        if opened && !interval.is_zero() && !queue.running.contains(&Slot::LogSync) {
            // Even while nothing is unsynced: a write wakes no worker for its sync.
            nap = nap.min(until(queue.last_sync, interval).max(interval / 2));
        }
        if let Some(interval) = self.stats_interval(&settings) {
            nap = nap.min(until(queue.last_stats, interval));
        }
        if queue.dirty && !queue.running.contains(&Slot::Checkpoint) {
            nap = nap.min(until(queue.last_checkpoint, settings.database.checkpoint_interval));
        }
        for at in [queue.removal, queue.idle.quiet_at()].into_iter().flatten() {
            nap = nap.min(until(at, Duration::ZERO));
        }
        let rested = queue.resting.values().map(|rest| until(rest.until, Duration::ZERO)).min();
        nap.min(rested.unwrap_or(nap)).max(Duration::from_millis(1))
    }

    /// Queues every stripe for a compaction check, and requests a checkpoint if it could retire log.
    pub(crate) fn queue_all_stripes(&self) {
        let mut queue = self.background.queue.lock();
        queue.compact.extend(self.stripes.used().map(|stripe| stripe.id));
        queue.dirty |= self.io.wal().can_retire();
    }
}

/// Looks up in the engine the facts that a decision depends on.
struct Engine<'a> {
    shared: &'a Shared,
    idle: &'a mut IdleStripes,
    /// Stripes found to have nothing to merge.
    nothing_to_merge: Vec<usize>,
}

impl Probe for Engine<'_> {
    fn unsynced(&self) -> bool {
        self.shared.io.wal().unsynced()
    }

    fn wants_watermark(&self) -> bool {
        self.shared.io.wal().wants_watermark() && self.shared.may_take_segment()
    }

    fn reclaiming(&self) -> bool {
        self.shared.reclaiming()
    }

    fn runs(&self, stripe: usize) -> u64 {
        self.shared.stripes.if_used(stripe).map_or(0, |stripe| stripe.version().runs.len() as u64)
    }

    fn merge(&mut self, stripe: usize) -> Option<u64> {
        let bytes = self.shared.compaction_due(stripe, Ask::Due);
        if bytes.is_none() {
            self.nothing_to_merge.push(stripe);
        }
        bytes
    }

    fn idle(&mut self) -> Option<usize> {
        self.idle.smallest(|stripe| self.shared.compaction_due(stripe, Ask::Idle))
    }
}

/// The maximum number of concurrent compactions while they slow down no writer: one core is left to callers. With a
/// merge on every core, a get waits for the time slices of the merges, and one in a hundred takes milliseconds.
pub(super) fn calm_compactions(cores: usize) -> usize {
    cores.saturating_sub(1).max(1)
}

/// The maximum number of concurrent compactions: no more than have threads of their own beside the two for other work.
pub(super) fn concurrent_compactions(config: &CompactionConfig) -> usize {
    config.max_concurrent_compactions.min(cores() * 2)
}
