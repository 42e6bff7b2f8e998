//! What is due when: only the decision, with a pool that never starts and a clock that the test advances.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::schedule::{NOTHING_TO_DO, concurrent_compactions};
use crate::clock::{Clock, ManualClock};
use crate::config::{CompactionConfig, DatabaseConfig};
use crate::error::Error;
use crate::key::Key;
use crate::lsm::LsmEngine;
use crate::lsm::idle::IdleStripes;
use crate::lsm::job::{Slot, StepResult};
use crate::lsm::options::{EngineOptions, Workers, WriteOptions};
use crate::sync::atomic::Ordering;
use crate::vfs::MemVfs;
use crate::wal::testing::TestVfs;

mod merges;

struct Idle {
    engine: LsmEngine,
    clock: Arc<ManualClock>,
}

impl Idle {
    fn new(config: DatabaseConfig, compaction: CompactionConfig) -> Self {
        let clock = Arc::new(ManualClock::new(1));
        let mut options = EngineOptions::memory();
        (options.config, options.compaction) = (Some(config), Some(compaction));
        options.clock = Arc::<ManualClock>::clone(&clock);
        Self::stopped(LsmEngine::create(Path::new("db"), options).unwrap(), clock)
    }

    /// Four stripes with two runs each.
    fn indebted(compaction: CompactionConfig) -> Self {
        let idle = Self::new(one().with_stripes(4).with_sync_interval(Duration::ZERO), compaction);
        idle.two_rounds();
        idle
    }

    /// Adds two more runs to each of four stripes.
    fn two_rounds(&self) {
        for keys in [0..100, 50..150] {
            self.put(keys);
            self.flush();
        }
    }

    fn stopped(engine: LsmEngine, clock: Arc<ManualClock>) -> Self {
        engine.shared.background.stop.store(true, Ordering::Relaxed);
        let now = clock.monotonic();
        {
            let mut queue = engine.shared.background.queue.lock();
            (queue.last_sync, queue.last_checkpoint, queue.last_sweep) = (now, now, now);
        }
        Self { engine, clock }
    }

    fn put(&self, keys: std::ops::Range<usize>) {
        for n in keys {
            let key = Key::from(&format!("key{n}")).into_owned();
            self.engine.put(&key, &[0; 100], WriteOptions::new()).unwrap();
        }
        // Requested by the first write to each segment of the log.
        self.engine.shared.seal_memtables();
        // As many compactions as allowed, whatever the machine.
        self.engine.shared.background.queue.lock().calm = None;
    }

    fn flush(&self) {
        for stripe in self.engine.shared.stripes.used() {
            self.engine.shared.flush_stripe_now(stripe.id).unwrap();
        }
        self.engine.shared.background.queue.lock().flush.clear();
    }

    fn due(&self) -> Vec<Slot> {
        self.engine.shared.ready(&mut self.engine.shared.background.queue.lock())
    }

    fn due_after(&self, millis: u64) -> Vec<Slot> {
        self.clock.advance(Duration::from_millis(millis));
        self.due()
    }

    /// Runs a job as a worker does.
    fn run(&self, slot: Slot) {
        let shared = &self.engine.shared;
        let mut job = shared.begin(&mut shared.background.queue.lock(), slot);
        while job.step(shared).unwrap() == StepResult::Again {}
        shared.end(slot, job, Ok(()));
    }
}

fn one() -> DatabaseConfig {
    DatabaseConfig::new().with_stripes(1)
}

#[test]
fn the_log_is_synced_once_an_interval_while_there_is_something_to_sync() {
    let idle = Idle::new(one().with_sync_interval(Duration::from_millis(500)), CompactionConfig::disabled());
    assert_eq!(idle.due_after(10_000), []);
    // From the first write on, which would start the pool.
    idle.put(0..1);
    assert_eq!(idle.due_after(499), []);
    assert_eq!(idle.due_after(1), [Slot::LogSync]);
    idle.run(Slot::LogSync);
    assert_eq!(idle.due_after(499), []);
    // Idle now: this is recorded once.
    assert_eq!(idle.due_after(1), [Slot::Watermark]);
    idle.run(Slot::Watermark);
    assert_eq!(idle.due_after(10_000), []);
    idle.put(1..2);
    idle.run(Slot::LogSync);
    idle.put(2..3);
    assert_eq!(idle.due_after(499), []);
    assert_eq!(idle.due_after(1), [Slot::LogSync]);
}

#[test]
fn a_sync_interval_of_zero_is_never_over() {
    let idle = Idle::new(one().with_sync_interval(Duration::ZERO), CompactionConfig::disabled());
    idle.put(0..1);
    assert_eq!(idle.due_after(1 << 40), []);
}

#[test]
fn a_checkpoint_comes_once_an_interval_while_there_is_something_new() {
    let config =
        one().with_sync_interval(Duration::ZERO).with_checkpoint_interval(Duration::from_millis(700));
    let idle = Idle::new(config, CompactionConfig::disabled());
    assert_eq!(idle.due_after(10_000), []);
    for _ in 0..2 {
        idle.put(0..3);
        idle.flush();
        idle.engine.shared.background.queue.lock().last_checkpoint = idle.clock.monotonic();
        assert_eq!(idle.due_after(699), []);
        assert_eq!(idle.due_after(1), [Slot::Checkpoint]);
        idle.run(Slot::Checkpoint);
        assert_eq!(idle.due_after(10_000), [Slot::ReleaseMemory], "once after the last flush");
        idle.run(Slot::ReleaseMemory);
        assert_eq!(idle.due_after(10_000), []);
    }
}

#[test]
fn memory_that_a_load_needed_returns_to_the_system() {
    let config = one().with_max_memtable_records(10_000).with_memory_budget(64 << 20);
    let idle = Idle::new(config.with_sync_interval(Duration::ZERO), CompactionConfig::disabled());
    for n in 0..10_000 {
        idle.engine.put(&Key::from(&format!("key{n}")), &[7; 1000], WriteOptions::new()).unwrap();
    }
    idle.flush();
    let (used, _) = idle.engine.shared.stripes.chunks().free_chunks();
    assert!(used > 600, "{used} chunks of 16 KiB for 10 MB");
    assert!(idle.due_after(2000).contains(&Slot::ReleaseMemory));
    idle.run(Slot::ReleaseMemory);
    let (left, unused) = idle.engine.shared.stripes.chunks().free_chunks();
    assert!(left == 256 && unused >= used - 256, "{left} {unused}");
}

#[test]
fn a_log_that_is_half_full_does_not_wait_for_the_checkpoint_interval() {
    let config = one().with_sync_interval(Duration::ZERO).with_checkpoint_interval(Duration::from_secs(3600));
    let config = config.with_wal_segment_size(32 << 10).with_max_wal_size_bytes(128 << 10);
    let config = config.with_max_item_bytes(1000).with_max_key_bytes(100);
    let idle = Idle::new(config, CompactionConfig::disabled());
    idle.put(0..1);
    idle.flush();
    assert_eq!(idle.due(), []);
    while idle.engine.shared.io.wal().live_bytes() <= 64 << 10 {
        assert!(!idle.due().contains(&Slot::Checkpoint));
        idle.put(0..1);
    }
    assert!(idle.due().contains(&Slot::Checkpoint));
}

#[test]
fn a_sweep_looks_at_every_stripe_once_an_interval() {
    let compaction = CompactionConfig::new().with_sst_threshold(2).with_check_interval(30);
    let idle = Idle::new(one().with_sync_interval(Duration::ZERO), compaction);
    for _ in 0..2 {
        idle.put(0..1);
        idle.flush();
    }
    {
        let mut queue = idle.engine.shared.background.queue.lock();
        queue.compact.clear();
        queue.idle = IdleStripes::default();
        queue.dirty = false;
    }
    assert_eq!(idle.due_after(29_999), []);
    assert_eq!(idle.due_after(1), [Slot::Compact(0)]);
}

/// The latest settings apply; intervals count from when the work was last done.
#[test]
fn intervals_and_parallelism_change_live() {
    let millis = Duration::from_millis;
    let config = |sync, checkpoint| one().with_sync_interval(sync).with_checkpoint_interval(checkpoint);
    let day = Duration::from_secs(86_400);
    let idle = Idle::new(config(day, day), CompactionConfig::disabled());
    idle.put(0..3);
    idle.flush();
    idle.put(3..6);
    let set = |config| {
        idle.engine.set_config(config).unwrap();
        idle.engine.shared.seal_memtables();
    };
    assert_eq!(idle.due_after(500), []);
    set(config(millis(600), day));
    assert_eq!(idle.due_after(99), []);
    assert_eq!(idle.due_after(1), [Slot::LogSync]);
    set(config(millis(601), day));
    assert_eq!(idle.due(), []);
    set(config(day, millis(700)));
    assert_eq!(idle.due_after(99), []);
    assert_eq!(idle.due_after(1), [Slot::Checkpoint]);
    set(config(day, millis(701)));
    assert_eq!(idle.due(), []);

    let compaction = |most| CompactionConfig::new().with_sst_threshold(2).with_max_concurrent(most);
    let idle = Idle::indebted(compaction(1));
    let shared = &idle.engine.shared;
    let first = idle.due()[0];
    assert!(matches!(first, Slot::Compact(_)), "{first:?}");
    shared.begin(&mut shared.background.queue.lock(), first);
    assert_eq!(idle.due(), []);
    idle.engine.set_compaction_config(compaction(2)).unwrap();
    shared.seal_memtables();
    assert_eq!(idle.due().len(), 3);
    idle.engine.set_compaction_config(compaction(1)).unwrap();
    shared.seal_memtables();
    assert_eq!(idle.due(), []);
}

#[test]
fn nothing_is_due_for_a_while_after_a_failure() {
    let idle = Idle::new(one().with_sync_interval(Duration::from_millis(10)), CompactionConfig::disabled());
    idle.put(0..1);
    assert_eq!(idle.due_after(10_000), [Slot::LogSync]);
    let shared = &idle.engine.shared;
    let job = shared.begin(&mut shared.background.queue.lock(), Slot::LogSync);
    shared.end(Slot::LogSync, job, Err(Error::DiskFull));
    assert!(shared.background_error().is_some());
    assert_eq!(idle.due_after(99), []);
    assert_eq!(idle.due_after(1), [Slot::LogSync]);
    // The pause doubles after the second failure.
    let job = shared.begin(&mut shared.background.queue.lock(), Slot::LogSync);
    shared.end(Slot::LogSync, job, Err(Error::DiskFull));
    assert_eq!(idle.due_after(199), []);
    assert_eq!(idle.due_after(1), [Slot::LogSync]);
    idle.run(Slot::LogSync);
    assert_eq!(shared.background_error(), None);
}

/// Work done without a write is covered by `tests/it/due.rs`; this test covers the thread that does it.
#[test]
fn one_thread_keeps_the_time_where_time_will_make_something_due() {
    let calm = || CompactionConfig::new().with_idle_compaction(false);
    let stats = one().with_stats_snapshot_interval(Duration::from_secs(1));
    type Fill = fn(&Idle);
    let put: Fill = |idle| idle.put(0..10);
    let flushed: Fill = |idle| {
        idle.put(0..10);
        idle.engine.flush().unwrap();
    };
    let deleted: Fill = |idle| {
        idle.put(0..10);
        idle.engine.delete(&Key::from("key1"), WriteOptions::new()).unwrap();
    };
    let two_runs: Fill = |idle| {
        for keys in [0..5, 5..10] {
            idle.put(keys);
            idle.engine.flush().unwrap();
        }
    };
    let rows: [(&str, Fill, DatabaseConfig, CompactionConfig, usize); 8] = [
        ("nothing", |_| {}, one(), CompactionConfig::new(), 0),
        ("puts in the log", put, one(), CompactionConfig::new(), 0),
        ("a run", flushed, one(), CompactionConfig::new(), 0),
        ("a delete", deleted, one(), calm(), 1),
        ("a delete, and no compaction", deleted, one(), CompactionConfig::disabled(), 0),
        ("two runs", two_runs, one(), calm(), 0),
        ("two runs, one too many", two_runs, one(), calm().with_sst_threshold(2), 1),
        ("counters", put, stats, calm(), 1),
    ];
    for (name, fill, config, compaction, threads) in rows {
        let vfs: Arc<dyn crate::vfs::Vfs> = Arc::new(crate::vfs::StrictVfs::new());
        let clock = Arc::new(ManualClock::new(1));
        let options = || {
            let mut options = EngineOptions::on(Arc::clone(&vfs));
            options.clock = Arc::<ManualClock>::clone(&clock);
            (options.config, options.compaction) = (Some(config.clone()), Some(compaction.clone()));
            options
        };
        let mut first = options();
        // None of this is done before the database is opened again.
        (first.config, first.compaction) = (Some(one()), Some(CompactionConfig::disabled()));
        let idle = Idle::stopped(LsmEngine::create(Path::new("db"), first).unwrap(), Arc::clone(&clock));
        fill(&idle);
        idle.engine.close().unwrap();
        let engine = LsmEngine::open(Path::new("db"), options()).unwrap();
        let count = || engine.pool.threads.lock().len();
        assert_eq!(count(), threads, "{name}");
        engine.put(&Key::from("key"), &[], WriteOptions::new()).unwrap();
        let compactions = concurrent_compactions(&engine.compaction_config());
        assert_eq!(count(), 2 + compactions, "{name}");
        engine.close().unwrap();
        let reader = LsmEngine::open_read_only(Path::new("db"), options()).unwrap();
        assert_eq!(reader.pool.threads.lock().len(), 0, "{name}");
    }
}

/// Symptom: the first sync of the log was late. Cause: the only thread, which kept the time, slept until the next sweep
/// when the first write came, although the sync must not wait longer than its interval.
#[test]
fn before_the_first_write_only_sweeps_and_counters_wake_a_thread() {
    let config = one().with_sync_interval(Duration::from_secs(1));
    let idle = Idle::new(config, CompactionConfig::new().with_check_interval(30));
    idle.put(0..1);
    let shared = &idle.engine.shared;
    let nap = || shared.nap(&shared.background.queue.lock());
    assert_eq!(nap(), Duration::from_secs(1));
    shared.life.set_opened(false);
    assert_eq!(nap(), Duration::from_secs(30));
    shared.life.set_opened(true);
}

/// Whatever is left to do, a poisoned handle cannot do it: its threads must not keep checking for it.
#[test]
fn the_threads_of_a_poisoned_handle_sleep() {
    let idle = Idle::new(one(), CompactionConfig::disabled());
    idle.put(0..3);
    idle.flush();
    idle.clock.advance(Duration::from_secs(3600));
    let shared = &idle.engine.shared;
    assert_eq!(shared.nap(&shared.background.queue.lock()), Duration::from_millis(1));
    shared.life.health().poison(&Error::DiskFull);
    assert_eq!(idle.due(), []);
    assert_eq!(shared.nap(&shared.background.queue.lock()), NOTHING_TO_DO);
}

/// Symptom: a writer waited for the log to be truncated until it was rejected, and nothing was flushed meanwhile.
/// Cause: a waiting writer requests sealing whenever a job ends, sealing is more urgent than flushes, and sealing is
/// itself a job that ends: a worker slower than the writer kept sealing forever. Fix: after sealing, another job comes
/// first.
#[test]
fn sealing_again_and_again_does_not_keep_flushes_waiting() {
    let idle = Idle::new(one(), CompactionConfig::disabled());
    idle.put(0..3);
    let shared = &idle.engine.shared;
    shared.stripes.used().for_each(|stripe| shared.seal(stripe));
    let wanted = || shared.background.seal_wanted.store(true, Ordering::Relaxed);
    wanted();
    assert_eq!(idle.due(), [Slot::Seal, Slot::Flush(0)]);
    idle.run(Slot::Seal);
    wanted();
    assert_eq!(idle.due(), [Slot::Flush(0), Slot::Seal]);
    idle.run(Slot::Flush(0));
    assert_eq!(idle.due().first(), Some(&Slot::Seal));
}

/// Symptom: an operator freed space on a full file system, and writes were refused for up to half a minute more. Cause:
/// flushes and merges that had failed were pausing, and a write that finds nothing running is refused at once. Fix: a
/// write that asks for space ends these pauses, if the file system has more space than when the jobs failed.
#[test]
fn jobs_that_found_no_space_are_retried_once_there_is_more() {
    let vfs = TestVfs::default();
    let free = |bytes| vfs.plan.lock().free = Some(bytes);
    free(1000);
    let clock = Arc::new(ManualClock::new(1));
    let mut options = EngineOptions::reproducible(Arc::new(vfs.clone()), Arc::<ManualClock>::clone(&clock));
    options.config = Some(one());
    let idle = Idle::stopped(LsmEngine::create(Path::new("/db"), options).unwrap(), clock);
    idle.put(0..1);
    let shared = &idle.engine.shared;
    shared.seal(shared.stripe(0).unwrap());
    let flush = Slot::Flush(0);
    let fails = |error: Error| {
        let job = shared.begin(&mut shared.background.queue.lock(), flush);
        shared.end(flush, job, Err(error));
    };
    let is_due_after_a_search = || {
        shared.retry_where_space_was_freed();
        idle.due().contains(&flush)
    };
    assert!(idle.due().contains(&flush));
    fails(Error::DiskFull);
    assert!(!is_due_after_a_search(), "retried in vain with each write");
    free(1001);
    assert!(!idle.due().contains(&flush));
    assert!(is_due_after_a_search());
    // It fails again with that much.
    fails(Error::DiskFull);
    assert!(!is_due_after_a_search());
    // Space does not help after another failure.
    free(1002);
    assert!(is_due_after_a_search());
    fails(Error::Busy);
    free(1003);
    assert!(!is_due_after_a_search());
}

/// Symptom: under load, a requested compaction of a full database failed with `DiskFull`, once in thirty times. Cause:
/// its only checkpoint freed space, a merge of another stripe took it, and what that merge freed waited for a
/// checkpoint. Fix: another checkpoint once nothing runs.
#[test]
fn who_waits_for_space_makes_a_checkpoint_again_after_others_took_what_it_freed() {
    let clock = Arc::new(ManualClock::new(1));
    let mut options = EngineOptions::reproducible(Arc::new(MemVfs::new()), clock);
    options.config = Some(one().with_max_total_disk_bytes(8 << 20));
    options.compaction = Some(CompactionConfig::disabled());
    let engine = LsmEngine::create(Path::new("db"), options).unwrap();
    let finish = || while engine.step(0) {};
    finish();
    let attempts = Cell::new(0);
    let done = engine.shared.once_there_is_space(|| {
        attempts.set(attempts.get() + 1);
        match attempts.get() {
            // Nothing runs: a checkpoint follows.
            1 => {}
            // Another took what it freed, and can be waited for.
            2 => {
                engine.put(&Key::from("another"), b"", WriteOptions::new())?;
                engine.shared.seal(engine.shared.stripe(0)?);
            }
            // Nothing runs again.
            3 => finish(),
            _ => return Ok(()),
        }
        Err(Error::DiskFull)
    });
    done.unwrap();
    // Where nothing helps, that is said.
    let full = engine.shared.once_there_is_space(|| Err(Error::DiskFull));
    assert!(matches!(full, Err(Error::DiskFull)), "{full:?}");
}

/// A worker starts a job that is due, and starts it again whenever it is due again: if a segment were due but could not
/// be created for lack of space, that would never end. With a recovery target, the sizes used by the two checks
/// differed.
#[test]
fn a_segment_that_is_due_is_made() {
    let mut options = EngineOptions::memory();
    options.workers = Workers::Manual;
    let config = one().with_max_total_disk_bytes(8 << 20).with_wal_segment_size(512 << 10);
    options.config = Some(config.with_recovery_target(Duration::from_millis(1)));
    options.compaction = Some(CompactionConfig::disabled());
    let engine = LsmEngine::create(Path::new("db"), options).unwrap();
    let shared = &*engine.shared;
    let settings = shared.settings.load_full();
    assert!(settings.log.segment < settings.database.wal_segment_bytes());
    let (mut made, mut without_space) = (0, 0);
    for n in 0..2000 {
        let key = Key::from(&format!("key{n}")).into_owned();
        if engine.put(&key, &[0; 9_000], WriteOptions::new()).is_err() {
            break;
        }
        if shared.io.wal().needs_segment() {
            let due = shared.may_take_segment();
            shared.prepare_segment().unwrap();
            assert_eq!(due, !shared.io.wal().needs_segment(), "put {n}");
            made += u32::from(due);
            without_space += u32::from(!due);
        }
    }
    println!("{made} segments were made, {without_space} were not due for want of space");
    assert!(made > 5 && without_space > 0);
}
