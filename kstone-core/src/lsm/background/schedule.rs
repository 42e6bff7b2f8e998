//! What is due now, and when something will be due by time alone.

use std::sync::LazyLock;
use std::time::Duration;

use super::queue::Queue;
use crate::backpressure::runs_without_delay;
use crate::compaction::picker::Ask;
use crate::config::CompactionConfig;
use crate::lsm::job::Slot;
use crate::lsm::quota::FREED_AT_ONCE;
use crate::lsm::{Shared, Workers};
use crate::stripe::Stripe;
use crate::sync::atomic::Ordering;
use crate::sync::thread;

/// How long a worker sleeps when nothing will become due any more; closing wakes it.
pub(super) const NOTHING_TO_DO: Duration = Duration::from_secs(3600);

impl Shared {
    /// The slots that are due and not resting after a failure, the most urgent first.
    pub(super) fn ready(&self, queue: &mut Queue) -> Vec<Slot> {
        let mut due = self.due(queue);
        let now = self.clock.monotonic();
        due.retain(|slot| queue.resting.get(slot).is_none_or(|rest| rest.until <= now));
        due
    }

    /// The slots that could be taken now, the most urgent first.
    pub(super) fn due(&self, queue: &mut Queue) -> Vec<Slot> {
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
            let crowded = |stripe: usize| self.stripe(stripe).version().runs.len() as u64 >= many;
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

    /// Whether time alone will make something due, now or later.
    pub(super) fn will_be_due(&self) -> bool {
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

    /// How long a worker may sleep before something becomes due by time alone.
    pub(super) fn nap(&self, queue: &Queue) -> Duration {
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

    /// Looks at every stripe for compaction, and has what was merged or flushed already checkpointed.
    pub(crate) fn look_at_all_stripes(&self) {
        let mut queue = self.background.queue.lock();
        queue.compact.extend(self.used_stripes().map(|stripe| stripe.id));
        queue.dirty |= self.wal.can_retire();
    }
}

/// The processor cores of the machine; 1 when that is not known.
pub(super) fn cores() -> usize {
    // Asking the system opens files, and the scheduler asks often.
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    *CORES
}

/// How many compactions run at once while they slow no writer down: a core is left to those who read and write. With a
/// merge on each, a get waits for the slices of time that merges have, and one in a hundred takes milliseconds.
pub(super) fn calm_compactions(cores: usize) -> usize {
    cores.saturating_sub(1).max(1)
}

/// How many compactions run at once at most: no more than have threads of their own beside the two for other work.
pub(super) fn concurrent_compactions(config: &CompactionConfig) -> usize {
    config.max_concurrent_compactions.min(cores() * 2)
}
