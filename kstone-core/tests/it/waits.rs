//! Symptom: a database at its limit delayed puts for 31 s of a minute, but its stalls added up to 0.95 s. Cause: only
//! backlogs of background work were timed; waiting for space to be freed, for a log segment, for a running job, for the
//! lock of another write and for the end of a recovery was not. Fix: each wait is reported with its reason.
//!
//! Time passes only where the file system consumes it. The work of a put itself, writing its record, takes none here:
//! so the duration of a call is its waiting time, and must equal the stalls reported.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kstone_core::clock::{Clock, ManualClock};
use kstone_core::lsm::{EngineOptions, LsmEngine, StallReason, WriteOptions};
use kstone_core::vfs::{FaultVfs, MemVfs, Op, Rule, Vfs};
use kstone_core::{CompactionConfig, DatabaseConfig, Error, Key};

use crate::model::{Rng, manual};

const DB: &str = "db";
const STEP: Duration = Duration::from_millis(3);

/// A file system on which everything except writing to the log and the event log takes time.
fn slow() -> (FaultVfs, Arc<ManualClock>) {
    let (vfs, clock) = (FaultVfs::new(Arc::new(MemVfs::new())), Arc::new(ManualClock::new(1)));
    let time = Arc::clone(&clock);
    vfs.add(
        Rule::hook(move |call| {
            let name = call.name();
            if !(name.starts_with("wal-") && call.op == Op::Write || name.starts_with("EVENTS")) {
                time.advance(STEP);
            }
            Ok(())
        })
        .on_changes(),
    );
    (vfs, clock)
}

fn options(vfs: &FaultVfs, clock: &Arc<ManualClock>, config: DatabaseConfig) -> EngineOptions {
    let mut options = manual(Arc::new(vfs.clone()), 1);
    options.clock = Arc::clone(clock) as Arc<dyn Clock>;
    options.config = Some(config.with_write_stall_limit(Duration::from_secs(80_000)));
    options
}

fn key(n: u64) -> Key<'static> {
    Key::new(format!("key{n:06}").into_bytes())
}

fn value(n: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng(n);
    (0..len).map(|_| rng.next() as u8).collect()
}

fn stalled(engine: &LsmEngine, reason: StallReason) -> Duration {
    let stalls = engine.stats().unwrap().stalls;
    Duration::from_nanos(stalls.iter().filter(|stall| stall.reason == reason).map(|stall| stall.nanos).sum())
}

fn all_stalls(engine: &LsmEngine) -> Duration {
    Duration::from_nanos(engine.stats().unwrap().stalls.iter().map(|stall| stall.nanos).sum())
}

/// Returns the duration of the call, after checking that the stalls have grown by the same amount.
fn adds_up<T>(
    engine: &LsmEngine,
    clock: &ManualClock,
    what: &str,
    call: impl FnOnce() -> T,
) -> (T, Duration) {
    let (before, since) = (all_stalls(engine), clock.monotonic());
    let result = call();
    let took = clock.monotonic() - since;
    assert_eq!(all_stalls(engine) - before, took, "{what}: {:?}", engine.stats().unwrap().stalls);
    (result, took)
}

#[test]
fn what_puts_take_is_what_the_stalls_say() {
    let one = || DatabaseConfig::new().with_stripes(1);
    let off = CompactionConfig::disabled;
    for (reason, config, compaction, len, flush) in [
        (StallReason::Memtables, one().with_memory_budget(20_000), off(), 500, false),
        (StallReason::Runs, one(), CompactionConfig::new().with_sst_threshold(2), 10, true),
        (
            StallReason::Log,
            one()
                .with_max_memtable_records(100_000)
                .with_max_item_bytes(50_000)
                .with_wal_segment_size(16 << 10)
                .with_max_wal_size_bytes(256 << 10),
            off(),
            1500,
            false,
        ),
        (StallReason::Space, one().with_max_total_disk_bytes(1 << 20), CompactionConfig::new(), 500, false),
        (StallReason::Segment, one().with_wal_segment_size(16 << 10), CompactionConfig::new(), 500, false),
    ] {
        let (vfs, clock) = slow();
        let mut options = options(&vfs, &clock, config);
        options.compaction = Some(compaction);
        let engine = LsmEngine::create(Path::new(DB), options).unwrap();
        let (mut waited, mut refused, mut oldest) = (Duration::ZERO, 0, 0);
        for n in 0..3000 {
            let put = || engine.put(&key(n), &value(n, len), WriteOptions::new());
            let (result, took) = adds_up(&engine, &clock, &format!("{reason:?}, put {n}"), put);
            waited += took;
            if let Err(error) = result {
                assert!(matches!(error, Error::DiskFull), "{error}");
                refused += 1;
                for _ in 0..20 {
                    let delete = || engine.delete(&key(oldest), WriteOptions::new()).unwrap();
                    waited += adds_up(&engine, &clock, "delete", delete).1;
                    oldest += 1;
                }
            }
            if flush && n % 3 == 0 && n < 300 {
                engine.flush().unwrap();
            }
        }
        assert!(waited > Duration::ZERO && (refused > 0) == (reason == StallReason::Space), "{refused}");
        let stalled = stalled(&engine, reason);
        println!("{reason:?}: {stalled:?} of {waited:?}, {refused} refused");
        assert!(stalled >= waited / 4, "{reason:?}: {stalled:?} of {waited:?}");
    }
}

#[test]
fn a_call_that_waits_for_a_job_under_way_says_so() {
    let (vfs, clock) = slow();
    let engine =
        LsmEngine::create(Path::new(DB), options(&vfs, &clock, DatabaseConfig::new().with_stripes(1)))
            .unwrap();
    for n in 0..2000 {
        engine.put(&key(n), &value(n, 100), WriteOptions::new()).unwrap();
    }
    // Starts a flush, and other work that is due.
    for choice in 0..5 {
        assert!(engine.step(choice));
    }
    let (before, since) = (all_stalls(&engine), clock.monotonic());
    engine.flush().unwrap();
    let (told, took) = (all_stalls(&engine) - before, clock.monotonic() - since);
    assert!(told > Duration::ZERO && told < took, "{told:?} of {took:?}");
    assert_eq!(stalled(&engine, StallReason::Jobs), told);
}

#[test]
fn the_first_write_tells_of_the_recovery_that_it_finishes() {
    let (vfs, clock) = slow();
    let config = || DatabaseConfig::new().with_stripes(1);
    let engine = LsmEngine::create(Path::new(DB), options(&vfs, &clock, config())).unwrap();
    engine.put(&key(1), b"value", WriteOptions::new()).unwrap();
    let files: Vec<_> = vfs.list(Path::new(DB)).unwrap();
    let copy: Vec<_> = files
        .iter()
        .map(|entry| {
            let path = Path::new(DB).join(&entry.name);
            let file = vfs.open(&path, kstone_core::vfs::OpenMode::Read).unwrap();
            (path, kstone_core::vfs::read_all(&*file, 1 << 30).unwrap())
        })
        .collect();
    drop(engine);
    // As after a kill, and on a full disk.
    let (vfs, clock) = slow();
    vfs.create_dir(Path::new(DB)).unwrap();
    for (path, bytes) in &copy {
        let file = vfs.open(path, kstone_core::vfs::OpenMode::Create).unwrap();
        kstone_core::vfs::write_all_at(&*file, bytes, 0).unwrap();
    }
    let full = vfs.add(Rule::full().files("MANIFEST*"));
    let engine = LsmEngine::open(Path::new(DB), options(&vfs, &clock, config())).unwrap();
    full.set(false);
    let put = || engine.put(&key(2), b"value", WriteOptions::new()).unwrap();
    let (_, took) = adds_up(&engine, &clock, "the first put", put);
    assert!(took > Duration::ZERO);
    assert!(stalled(&engine, StallReason::Recovery) > Duration::ZERO, "{:?}", engine.stats().unwrap().stalls);
}

/// Counts how often other threads than the first have read the clock.
#[derive(Debug)]
struct Watched {
    clock: ManualClock,
    first: std::thread::ThreadId,
    asked: AtomicU64,
}

impl Clock for Watched {
    fn unix_ms(&self) -> u64 {
        self.clock.unix_ms()
    }

    fn monotonic(&self) -> Duration {
        let now = self.clock.monotonic();
        if std::thread::current().id() != self.first {
            self.asked.fetch_add(1, Ordering::SeqCst);
        }
        now
    }

    fn random(&self) -> u64 {
        self.clock.random()
    }
}

#[test]
fn a_write_behind_one_in_io_says_what_it_waited_for() {
    // Two writes to the same stripe contend for that stripe, to two stripes for the log.
    for stripes in [1, 256] {
        let clock = Arc::new(Watched {
            clock: ManualClock::new(1),
            first: std::thread::current().id(),
            asked: AtomicU64::new(0),
        });
        let (vfs, slow) = (FaultVfs::new(Arc::new(MemVfs::new())), Arc::<AtomicBool>::default());
        let (time, takes) = (Arc::clone(&clock), Arc::clone(&slow));
        vfs.add(
            Rule::hook(move |_| {
                if takes.swap(false, Ordering::SeqCst) {
                    // The other writer has found the lock taken, and read the clock.
                    while time.asked.load(Ordering::SeqCst) == 0 {
                        std::thread::yield_now();
                    }
                    time.clock.advance(Duration::from_millis(70));
                }
                Ok(())
            })
            .on(&[Op::Write])
            .files("wal-*"),
        );
        let mut options = manual(Arc::new(vfs), 1);
        options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        options.config = Some(DatabaseConfig::new().with_stripes(stripes).with_latency_sampling(0));
        let engine = LsmEngine::create(Path::new(DB), options).unwrap();
        engine.put(&key(0), b"value", WriteOptions::new()).unwrap();
        slow.store(true, Ordering::SeqCst);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while slow.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                engine.put(&key(2), b"value", WriteOptions::new()).unwrap();
            });
            engine.put(&key(1), b"value", WriteOptions::new()).unwrap();
        });
        assert_eq!(stalled(&engine, StallReason::Locks), Duration::from_millis(70), "{stripes} stripes");
        assert_eq!(all_stalls(&engine), Duration::from_millis(70));
    }
}
