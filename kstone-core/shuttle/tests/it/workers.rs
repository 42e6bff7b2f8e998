//! Wake-ups: due work is done, even if it becomes due between two checks of a worker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kstone_shuttle::lsm::{Event, EventListener, WriteOptions};
use kstone_shuttle::sync::{Condvar, Mutex, Time};
use kstone_shuttle::vfs::{Call, CrashMode, FaultVfs, MemVfs, Op, Rule, StrictVfs};
use kstone_shuttle::{CompactionConfig, DatabaseConfig};

use super::harness::*;

const DAY: Duration = Duration::from_secs(86_400);

/// Nothing becomes due by time alone.
fn without_intervals() -> DatabaseConfig {
    DatabaseConfig::new()
        .with_stripes(4)
        .with_latency_sampling(0)
        .with_sync_interval(DAY)
        .with_checkpoint_interval(DAY)
}

fn rare_sweeps() -> CompactionConfig {
    CompactionConfig::new().with_max_concurrent(1).with_check_interval(86_400)
}

/// An event that happens once, and the threads waiting for it.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    given: Mutex<bool>,
    change: Condvar,
}

impl Signal {
    pub(crate) fn give(&self) {
        *self.given.lock() = true;
        self.change.notify_all();
    }

    pub(crate) fn wait(&self) {
        let mut given = self.given.lock();
        while !*given {
            self.change.wait(&mut given);
        }
    }
}

/// Blocks writes to SSTs until the signal is given.
pub(crate) fn slow_writes(released: &Arc<Signal>) -> Rule {
    let released = Arc::clone(released);
    let wait = move |_: &Call<'_>| {
        released.wait();
        Ok(())
    };
    Rule::hook(wait).on(&[Op::Write]).files("*.sst")
}

/// Lets time pass.
pub(crate) fn sleep(time: Duration) {
    let (nothing, never) = (Mutex::new(()), Condvar::new());
    never.wait_for(&mut nothing.lock(), time);
}

struct OnFlush(Arc<Signal>);

impl fmt::Debug for OnFlush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnFlush")
    }
}

impl EventListener for OnFlush {
    fn on_event(&self, event: &Event) {
        if let Event::Flush { .. } = event {
            self.0.give();
        }
    }
}

/// Symptom it looks for: memtables that stay over their budget while background work sleeps. The write that crosses the
/// budget requests sealing once, and nothing requests it a second time.
#[test]
fn who_crosses_the_memory_budget_is_heard() {
    explore_some("budget against a worker falling asleep", 500, budget_against_a_worker_falling_asleep);
}

pub(crate) fn budget_against_a_worker_falling_asleep() {
    let flushed = Arc::new(Signal::default());
    let mut options = options(Arc::new(MemVfs::new()));
    options.config = Some(without_intervals().with_memory_budget(1_000));
    options.compaction = Some(rare_sweeps());
    options.listener = Some(Arc::new(OnFlush(Arc::clone(&flushed))));
    // The system has only one thread left: with more, waking another one would hide the bug.
    Time::only_threads(1);
    let engine = create(options);
    let writers = (0..2).map(|writer| {
        let engine = Arc::clone(&engine);
        spawn(move || {
            engine.put(&key(writer, 0), &[1; 500], WriteOptions::new()).unwrap();
        })
    });
    join(writers.collect::<Vec<_>>());
    flushed.wait();
    assert_eq!(Time::waits_out(), [], "a timeout ended the sleep of a worker");
    engine.close().unwrap();
}

struct Slow(Arc<Signal>);

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slow")
    }
}

impl EventListener for Slow {
    fn on_event(&self, event: &Event) {
        if let Event::Stall { .. } = event {
            self.0.wait();
        }
    }
}

/// Symptom it looks for: nothing is synced while a listener is slow, because the worker that calls it was the
/// timekeeper, and the others sleep until they are woken. The event comes from a call: the end of a job would have
/// woken all workers.
#[test]
fn a_slow_listener_does_not_stop_the_clock() {
    explore_some("slow listener against the sync interval", 500, slow_listener_against_the_sync_interval);
}

pub(crate) fn slow_listener_against_the_sync_interval() {
    let (vfs, released) = (StrictVfs::new(), Arc::new(Signal::default()));
    let faulty = FaultVfs::new(Arc::new(vfs.clone()));
    let mut options = options(Arc::new(faulty.clone()));
    let config = without_intervals().with_sync_interval(Duration::from_millis(100));
    options.config = Some(config.with_checkpoint_interval(DAY));
    options.compaction = Some(CompactionConfig::disabled());
    options.listener = Some(Arc::new(Slow(Arc::clone(&released))));
    let engine = create(options);
    for _ in 0..6 {
        engine.put(&key(0, 0), b"v", WriteOptions::new()).unwrap();
        engine.flush().unwrap();
    }
    // A merge that is equally slow: its end would wake all workers.
    faulty.add(slow_writes(&released));
    engine.set_compaction_config(rare_sweeps().with_sst_threshold(2)).unwrap();
    sleep(Duration::from_millis(1));
    // The put is delayed a little because of the runs, and the listener receives that event.
    engine.put(&key(0, 1), b"v", WriteOptions::new()).unwrap();
    sleep(Duration::from_secs(2));
    let image = vfs.crash(CrashMode::Strict);
    released.give();
    engine.close().unwrap();
    assert_eq!(contents(image).len(), 2, "not synced two seconds later");
}

/// Symptom it looks for: a shorter sync interval that does not apply until the old one is over, because the worker
/// sleeping for the old interval was not woken.
#[test]
fn intervals_hold_as_soon_as_they_are_set() {
    explore_some(
        "settings against the one who keeps the time",
        500,
        settings_against_the_one_who_keeps_the_time,
    );
}

pub(crate) fn settings_against_the_one_who_keeps_the_time() {
    let vfs = StrictVfs::new();
    let mut options = options(Arc::new(vfs.clone()));
    options.config = Some(without_intervals());
    // More threads than a change of settings has other reasons to wake.
    options.compaction = Some(rare_sweeps().with_max_concurrent(4));
    let engine = create(options);
    engine.put(&key(0, 0), b"v", WriteOptions::new()).unwrap();
    // Enough time for all of them to fall asleep.
    sleep(Duration::from_millis(1));
    engine.set_config(without_intervals().with_sync_interval(Duration::from_millis(20))).unwrap();
    sleep(Duration::from_secs(2));
    let image = vfs.crash(CrashMode::Strict);
    engine.close().unwrap();
    assert_eq!(contents(image).len(), 1, "not synced two seconds later");
}
