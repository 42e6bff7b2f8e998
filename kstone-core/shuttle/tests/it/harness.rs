//! Shared by all scenarios: the number of schedules, the schedulers, the clock, and replay.
//!
//! `KSTONE_SCHEDULES=20000` explores more. A failure prints where its schedule was saved; this replays it alone:
//! `KSTONE_REPLAY=FILE cargo test -p kstone-shuttle --test it NAME`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kstone_shuttle::clock::Clock;
use kstone_shuttle::lsm::{Direction, EngineOptions, LsmEngine, Workers};
use kstone_shuttle::sync::{Time, Timed};
use kstone_shuttle::torture::Watchdog;
use kstone_shuttle::vfs::{StrictVfs, Vfs};
use kstone_shuttle::{CompactionConfig, DatabaseConfig, Key};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use xxhash_rust::xxh3::xxh3_64;

/// Path of the database.
pub(crate) const DB: &str = "db";
/// Interval at which waits of the engine check again, in case a wake-up is missed. None should be.
pub(crate) const RECHECK: Duration = Duration::from_millis(50);
/// For the parts of the engine most sensitive to interleavings; others run fewer.
const SCHEDULES: usize = 2_000;

/// Simulated time, and random numbers that repeat in each execution.
#[derive(Debug, Default)]
pub(crate) struct SimulatedClock {
    random: AtomicU64,
}

impl Clock for SimulatedClock {
    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + Time::now().as_millis() as u64
    }

    fn monotonic(&self) -> Duration {
        Time::now()
    }

    fn random(&self) -> u64 {
        let n = self.random.fetch_add(1, Ordering::Relaxed) + 1;
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A database of four stripes that seals after two records, merges at two runs, and has one thread besides those for
/// flushes and syncs.
pub(crate) fn options(vfs: Arc<dyn Vfs>) -> EngineOptions {
    let mut options = EngineOptions::on(vfs);
    options.clock = Arc::new(SimulatedClock::default());
    options.config = Some(
        DatabaseConfig::new()
            .with_stripes(4)
            .with_max_memtable_records(2)
            .with_block_size(64)
            .with_latency_sampling(0)
            .with_sync_interval(Duration::from_millis(20))
            .with_checkpoint_interval(Duration::from_millis(30))
            .with_wal_segment_size(16 << 10),
    );
    options.compaction = Some(CompactionConfig::new().with_sst_threshold(2).with_max_concurrent(1));
    options
}

pub(crate) fn create(options: EngineOptions) -> Arc<LsmEngine> {
    Arc::new(LsmEngine::create(Path::new(DB), options).unwrap())
}

/// A key in that stripe, one of four; different for each `n`.
pub(crate) fn key(stripe: u64, n: usize) -> Key<'static> {
    let in_stripe = |name: &String| xxh3_64(name.as_bytes()) >> 62 == stripe;
    let name = (0..).map(|i| format!("k{i}")).filter(in_stripe).nth(n).unwrap();
    Key::new(name.into_bytes())
}

/// Starts a thread of the scenario.
pub(crate) fn spawn(act: impl FnOnce() + Send + 'static) -> shuttle::thread::JoinHandle<()> {
    shuttle::thread::spawn(act)
}

pub(crate) fn join(threads: impl IntoIterator<Item = shuttle::thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Asserts that no wait ended only because the engine checks again periodically.
pub(crate) fn assert_no_wake_up_was_missed() {
    let waits = Time::waits_out();
    assert!(!waits.contains(&RECHECK), "a wake-up was missed: no thread could run until a wait timed out");
}

fn config(persistence: FailurePersistence) -> Config {
    let mut config = Config::new();
    config.stack_size = 512 << 10;
    config.silence_warnings = true;
    config.max_steps = MaxSteps::FailAfter(400_000);
    config.failure_persistence = persistence;
    config
}

/// Runs the scenario under many schedules: half of them random, with time standing still unless all threads wait; half
/// with few thread switches (PCT), with time passing now and then. Prints their number, and fails if there were fewer.
pub(crate) fn explore(name: &str, scenario: fn()) {
    explore_some(name, SCHEDULES, scenario);
}

/// The same, with a different default number of schedules.
#[expect(clippy::disallowed_methods, reason = "the time that the test took")]
pub(crate) fn explore_some(name: &str, schedules: usize, scenario: fn()) {
    let _watchdog = Watchdog::start(name);
    let keep = FailurePersistence::File(Some(env!("CARGO_TARGET_TMPDIR").into()));
    if let Ok(file) = std::env::var("KSTONE_REPLAY") {
        let replay = Timed::replay(ReplayScheduler::new_from_file(file).unwrap());
        Runner::new(replay, config(keep)).run(move || Time::run(scenario));
        return;
    }
    let schedules = std::env::var("KSTONE_SCHEDULES").map_or(schedules, |number| number.parse().unwrap());
    let (started, done) = (Instant::now(), Arc::new(Done::default()));
    run(schedules / 2, true, keep.clone(), &done, scenario);
    run(schedules / 2, false, keep, &done, scenario);
    let ran = done.executions.load(Ordering::Relaxed);
    let switches = done.switches.load(Ordering::Relaxed) / ran;
    println!("{name}: {ran} schedules, {switches} decisions each, in {:.1?}", started.elapsed());
    assert!(ran >= schedules as u64, "only {ran} schedules were run");
}

/// Counts of what was run.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) executions: AtomicU64,
    switches: AtomicU64,
}

/// Runs the scenario under random schedules, or under PCT schedules.
pub(crate) fn run(
    schedules: usize,
    random: bool,
    keep: FailurePersistence,
    done: &Arc<Done>,
    scenario: fn(),
) {
    let execution = {
        let done = Arc::clone(done);
        move || {
            Time::run(scenario);
            done.executions.fetch_add(1, Ordering::Relaxed);
            done.switches.fetch_add(shuttle::current::context_switches() as u64, Ordering::Relaxed);
        }
    };
    let seed = std::env::var("KSTONE_SEED").map_or(1, |seed| seed.parse().unwrap());
    let (scheduler, once_in): (Box<dyn Scheduler + Send>, u64) = match random {
        true => (Box::new(RandomScheduler::new_from_seed(seed, schedules)), 0),
        false => (Box::new(PctScheduler::new_from_seed(seed, 5, schedules)), 200),
    };
    Runner::new(Timed::new(scheduler, once_in, seed), config(keep)).run(execution);
}

/// The contents of a database, by key.
pub(crate) fn contents(vfs: StrictVfs) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut options = options(Arc::new(vfs));
    options.workers = Workers::Manual;
    let engine = LsmEngine::open(Path::new(DB), options).unwrap();
    let entries = engine.scan(b"", Direction::Forward, None).unwrap().map(|entry| {
        let (key, value) = entry.unwrap();
        (key.partition().to_vec(), value.to_vec())
    });
    entries.collect()
}

/// An acknowledged write.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) seq: u64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Asserts that the contents are a prefix of the commits.
pub(crate) fn assert_prefix(written: &[Written], found: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let is_there = |write: &&Written| found.get(&write.key) == Some(&write.value);
    let newest = written.iter().filter(is_there).map(|write| write.seq).max().unwrap_or(0);
    for write in written.iter().filter(|write| write.seq <= newest) {
        assert!(is_there(&write), "{} is lost, {newest} is present", write.seq);
    }
}
