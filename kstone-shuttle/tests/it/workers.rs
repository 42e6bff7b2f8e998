//! Wake-ups: what becomes due is done by somebody, also when it becomes so between two looks of a worker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kstone_shuttle::lsm::{Event, EventListener, WriteOptions};
use kstone_shuttle::sync::{Condvar, Mutex, Time};
use kstone_shuttle::vfs::{CrashMode, MemVfs, StrictVfs};
use kstone_shuttle::{CompactionConfig, DatabaseConfig};

use super::harness::*;

const DAY: Duration = Duration::from_secs(86_400);

/// Nothing of it becomes due by time alone.
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

/// Something that happens once, and those who wait for it.
#[derive(Default)]
struct Signal {
    given: Mutex<bool>,
    change: Condvar,
}

impl Signal {
    fn give(&self) {
        *self.given.lock() = true;
        self.change.notify_all();
    }

    fn wait(&self) {
        let mut given = self.given.lock();
        while !*given {
            self.change.wait(&mut given);
        }
    }
}

/// Lets time pass.
fn sleep(time: Duration) {
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

/// Symptom it looks for: memtables that stay over their budget while the background sleeps. The write that crosses it
/// asks for sealing once, and nobody asks a second time.
#[test]
fn who_crosses_the_memory_budget_is_heard() {
    explore("budget against a worker falling asleep", || {
        let flushed = Arc::new(Signal::default());
        let mut options = options(Arc::new(MemVfs::new()));
        options.config = Some(without_intervals().with_memory_budget(1_000));
        options.compaction = Some(rare_sweeps());
        options.listener = Some(Arc::new(OnFlush(Arc::clone(&flushed))));
        let engine = create(options);
        let writers = (0..2).map(|writer| {
            let engine = Arc::clone(&engine);
            spawn(move || {
                engine.put(&key(writer, 0), &[1; 500], WriteOptions::new()).unwrap();
            })
        });
        join(writers.collect::<Vec<_>>());
        flushed.wait();
        assert_eq!(Time::waits_out(), [], "it was time that ended somebody's sleep");
        engine.close().unwrap();
    });
}

struct Slow(Arc<Signal>);

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slow")
    }
}

impl EventListener for Slow {
    fn on_event(&self, event: &Event) {
        // That one is told before the engine is handed out.
        if !matches!(event, Event::Opened { .. }) {
            self.0.wait();
        }
    }
}

/// Symptom it looks for: nothing is synced while a listener takes long, because the worker that calls it was the one that
/// keeps the time and the others sleep until they are woken. Other wake-ups often hide that.
#[test]
fn a_slow_listener_does_not_stop_the_clock() {
    explore("slow listener against the sync interval", || {
        let (vfs, released) = (StrictVfs::new(), Arc::new(Signal::default()));
        let mut options = options(Arc::new(vfs.clone()));
        options.listener = Some(Arc::new(Slow(Arc::clone(&released))));
        let engine = create(options);
        // The settings are what the listener is told of first, and takes its time with.
        engine.set_compaction_config(CompactionConfig::new().with_max_concurrent(2)).unwrap();
        sleep(Duration::from_secs(1));
        engine.put(&key(0, 0), b"v", WriteOptions::new()).unwrap();
        sleep(Duration::from_secs(2));
        let image = vfs.crash(CrashMode::Strict);
        released.give();
        engine.close().unwrap();
        assert_eq!(contents(image).len(), 1, "not synced two seconds later");
    });
}

/// Symptom it looks for: a shorter sync interval that is not kept until the old one is over, because the worker that
/// sleeps for as long as that said was not woken. Other wake-ups often hide that.
#[test]
fn intervals_hold_as_soon_as_they_are_set() {
    explore("settings against the one who keeps the time", || {
        let vfs = StrictVfs::new();
        let mut options = options(Arc::new(vfs.clone()));
        options.config = Some(without_intervals());
        // More threads than a change of settings has other reasons to wake.
        options.compaction = Some(rare_sweeps().with_max_concurrent(4));
        let engine = create(options);
        engine.put(&key(0, 0), b"v", WriteOptions::new()).unwrap();
        // Time enough for all to fall asleep.
        sleep(Duration::from_millis(1));
        engine.set_config(without_intervals().with_sync_interval(Duration::from_millis(20))).unwrap();
        sleep(Duration::from_secs(2));
        let image = vfs.crash(CrashMode::Strict);
        engine.close().unwrap();
        assert_eq!(contents(image).len(), 1, "not synced two seconds later");
    });
}
