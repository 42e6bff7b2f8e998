//! Every counter, latency and event: single-threaded, on a simulated clock, or one that advances with each reading. A
//! counter that is never incremented fails here.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::time::Duration;

use kstone_core::clock::{Clock, ManualClock};
use kstone_core::lsm::{
    CompactionReason, Direction, EngineOptions, EngineStats, Event, EventListener, LatencySummary, LsmEngine,
    StallReason, StatsSnapshot, Workers, WriteBatch, WriteOptions,
};
use kstone_core::vfs::{CrashMode, Errno, FaultVfs, MemVfs, Op, OpenMode, Rule, StrictVfs, Vfs, read_all};
use kstone_core::{CompactionConfig, DatabaseConfig, Key, SortRange};

use crate::model::manual;

const DB: &str = "db";

/// One stripe, so that all numbers are exact.
fn one() -> DatabaseConfig {
    DatabaseConfig::new().with_stripes(1)
}

fn on(vfs: Arc<dyn Vfs>, config: DatabaseConfig) -> EngineOptions {
    let mut options = manual(vfs, 1);
    (options.config, options.compaction) = (Some(config), Some(CompactionConfig::disabled()));
    options
}

fn options(config: DatabaseConfig) -> EngineOptions {
    on(Arc::new(MemVfs::new()), config)
}

fn engine(config: DatabaseConfig) -> LsmEngine {
    LsmEngine::create(Path::new(DB), options(config)).unwrap()
}

/// A key of six bytes.
fn key(n: usize) -> Key<'static> {
    Key::new(format!("k{n:05}").into_bytes())
}

fn put(engine: &LsmEngine, keys: std::ops::Range<usize>, len: usize) {
    for n in keys {
        engine.put(&key(n), &vec![n as u8; len], WriteOptions::new()).unwrap();
    }
}

fn drain(engine: &LsmEngine) -> EngineStats {
    let mut steps = 0;
    while engine.step(0) {
        steps += 1;
        assert!(steps < 100_000, "background work never ends");
    }
    engine.stats().unwrap()
}

/// A clock that advances by a microsecond with each reading.
#[derive(Debug)]
struct TickingClock {
    inner: ManualClock,
    ticks: AtomicU64,
}

impl TickingClock {
    fn new() -> Arc<Self> {
        Arc::new(Self { inner: ManualClock::new(1), ticks: AtomicU64::new(0) })
    }
}

impl Clock for TickingClock {
    fn unix_ms(&self) -> u64 {
        self.inner.unix_ms()
    }
    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.ticks.fetch_add(1, Ordering::Relaxed))
    }
    fn random(&self) -> u64 {
        self.inner.random()
    }
}

/// Records the events that it receives.
#[derive(Debug, Default)]
struct Ear(Mutex<Vec<Event>>);

impl Ear {
    fn heard(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    /// The names of the events, in order.
    fn names(&self) -> Vec<String> {
        let name = |event| serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_string();
        self.heard().into_iter().map(name).collect()
    }
}

impl EventListener for Ear {
    fn on_event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

#[test]
fn writes_are_counted_with_their_bytes() {
    let engine = engine(one());
    put(&engine, 0..3, 10);
    engine.delete(&key(0), WriteOptions::new()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(key(7), [0; 4]).put(key(8), [0; 4]).delete(key(9));
    engine.write(&batch, WriteOptions::new()).unwrap();
    engine.write(&WriteBatch::new(), WriteOptions::new()).unwrap();
    engine.put(&Key::new(Vec::new()), b"refused", WriteOptions::new()).unwrap_err();
    let ops = engine.stats().unwrap().operations;
    assert_eq!((ops.puts, ops.deletes, ops.batches), (5, 2, 1));
    assert_eq!(ops.user_bytes_written, 3 * 16 + 6 + 10 + 10 + 6);
}

#[test]
fn gets_are_counted_where_they_end() {
    let engine = engine(one().with_max_memtable_records(10));
    let get = |n: usize| engine.get(&key(n)).unwrap().map(|value| value.len());
    assert_eq!(get(0), None); // there is no stripe yet
    put(&engine, 0..10, 100);
    drain(&engine);
    put(&engine, 10..20, 100);
    drain(&engine);
    put(&engine, 20..30, 100); // sealed
    put(&engine, 30..31, 100); // active
    engine.delete(&key(11), WriteOptions::new()).unwrap();
    assert_eq!([30, 25, 26, 15, 16, 17, 5].map(get), [Some(100); 7]);
    assert_eq!([get(11), get(900)], [None; 2]);
    let stats = engine.stats().unwrap();
    let reads = stats.reads;
    assert_eq!((reads.memtable, reads.sealed), (1, 2));
    assert_eq!(reads.runs[..3], [0, 3, 1]);
    // No stripe yet, a tombstone in the memtable, and a key that is nowhere.
    assert_eq!(reads.misses[..3], [2, 0, 1]);
    assert_eq!((reads.runs_looked_at, reads.gets(), reads.hits()), (3 + 2 + 2, 10, 7));
    // One block per hit, and blocks of the runs passed only if a filter errs.
    assert!((4..=6).contains(&reads.blocks_read), "{reads:?}");
    assert_eq!((stats.operations.gets, stats.operations.user_bytes_read), (10, 7 * 106));
    assert_eq!(stats.amplification.read_runs, Some(0.7));
    assert_eq!(stats.amplification.read_blocks, Some(reads.blocks_read as f64 / 10.0));
}

#[test]
fn many_runs_share_the_last_place() {
    let engine = engine(one().with_max_memtable_records(1));
    put(&engine, 0..20, 10);
    drain(&engine);
    for n in [0, 3, 4, 19] {
        engine.get(&key(n)).unwrap();
    }
    let reads = engine.stats().unwrap().reads;
    assert_eq!((reads.runs[1], reads.runs[16], reads.runs[17]), (1, 1, 2));
    assert_eq!(reads.runs_looked_at, 1 + 16 + 17 + 20);
}

#[test]
fn queries_and_scans_count_what_they_return() {
    let engine = engine(one().with_stripes(2));
    for n in 0..600u32 {
        engine
            .put(&Key::with_sort(b"p".to_vec(), n.to_be_bytes().to_vec()), &[0; 5], WriteOptions::new())
            .unwrap();
    }
    let mut query = engine.query(b"p", &SortRange::All, Direction::Forward, None).unwrap();
    assert_eq!(query.by_ref().take(300).count(), 300);
    assert_eq!(engine.stats().unwrap().operations.entries_read, 256); // while the iteration is in progress
    drop(query);
    assert_eq!(engine.scan(b"", Direction::Reverse, None).unwrap().count(), 600);
    (0..2).for_each(|stripe| drop(engine.scan_stripe(stripe, None).unwrap()));
    let ops = engine.stats().unwrap().operations;
    assert_eq!((ops.queries, ops.scans, ops.entries_read, ops.user_bytes_read), (1, 3, 900, 900 * 10));
}

#[test]
fn what_walks_pass_over_is_counted() {
    let engine = engine(one().with_stripes(2));
    let key = |n: u32| Key::with_sort(b"p".to_vec(), n.to_be_bytes().to_vec());
    for n in (0..10).chain(0..5) {
        engine.put(&key(n), &[0; 5], WriteOptions::new()).unwrap();
    }
    engine.delete(&key(7), WriteOptions::new()).unwrap();
    for (round, direction) in [(1, Direction::Forward), (2, Direction::Reverse)] {
        assert_eq!(engine.query(b"p", &SortRange::All, direction, None).unwrap().count(), 9);
        // Five older versions, a tombstone and the version that it shadows.
        assert_eq!(engine.stats().unwrap().operations.entries_passed, 7 * round);
    }
}

#[test]
fn counters_can_be_left_out() {
    let mut options = options(one());
    options.counters = false;
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    put(&engine, 0..3, 10);
    engine.get(&key(0)).unwrap();
    engine.scan(b"", Direction::Forward, None).unwrap().for_each(drop);
    let stats = engine.stats().unwrap();
    assert_eq!((stats.operations, stats.reads), (Default::default(), Default::default()));
    assert_eq!(stats.amplification.write_total, None);
}

#[test]
fn amplification_follows_from_the_bytes() {
    let engine = engine(one().with_max_memtable_records(50));
    put(&engine, 0..50, 100);
    let written = 50.0 * 106.0;
    let stats = engine.stats().unwrap();
    let a = stats.amplification;
    assert_eq!((a.write_compaction, a.write_tables, a.space), (Some(0.0), Some(0.0), None));
    // A record's header of some ten bytes and the encoding of its key.
    assert!((1.1..2.0).contains(&a.write_total.unwrap()), "{a:?}");
    put(&engine, 0..50, 100);
    drain(&engine);
    let flushed = engine.stats().unwrap();
    assert!(flushed.amplification.space.unwrap() > 0.9, "{:?}", flushed.amplification);
    assert_eq!(
        flushed.amplification.write_tables,
        Some(flushed.flush_bytes_written as f64 / (2.0 * written))
    );
    engine.trigger_compaction(0).unwrap();
    let stats = engine.stats().unwrap();
    let a = stats.amplification;
    let (flushed, merged) = (stats.flush_bytes_written as f64, stats.compaction_bytes_written as f64);
    assert!(flushed > 0.0 && merged > 0.0);
    assert_eq!(a.write_compaction, Some(merged / (2.0 * written)));
    assert_eq!(a.write_tables, Some((flushed + merged) / (2.0 * written)));
    assert!(a.write_total.unwrap() > a.write_tables.unwrap() + 1.1, "{a:?}");
    // An encoded key takes two more bytes.
    assert_eq!(a.space, Some(stats.sst_bytes as f64 / (50.0 * 108.0)));
    assert_eq!(a.entries, Some(1.0));
    // Tombstones, and the versions that they shadow, are not live data.
    for n in 0..25 {
        engine.delete(&key(n), WriteOptions::new()).unwrap();
    }
    engine.flush().unwrap();
    assert!(engine.stats().unwrap().amplification.space.unwrap() > 1.5 * a.space.unwrap());
}

#[test]
fn ssts_per_stripe_is_an_average_over_used_stripes() {
    let engine = engine(one().with_stripes(64));
    assert_eq!(engine.stats().unwrap().ssts_per_stripe, 0.0);
    for n in [0, 0, 0, 1] {
        put(&engine, n..n + 1, 10);
        engine.flush().unwrap();
    }
    let stats = engine.stats().unwrap();
    assert_eq!((stats.stripes.len(), stats.ssts_per_stripe), (2, 2.0));
}

#[test]
fn background_work_is_counted_with_its_time() {
    let mut options = options(one());
    options.clock = TickingClock::new();
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    put(&engine, 0..100, 10);
    engine.flush().unwrap();
    put(&engine, 0..100, 10);
    engine.trigger_compaction(0).unwrap();
    let stats = engine.stats().unwrap();
    assert_eq!((stats.flushes, stats.compactions, stats.checkpoints), (2, 1, 2));
    let latencies = engine.latencies();
    let mut all = 0;
    for (nanos, latency, count) in [
        (stats.flush_nanos, latencies.flush, 2),
        (stats.compaction_nanos, latencies.compaction, 1),
        (stats.checkpoint_nanos, latencies.checkpoint, 2),
    ] {
        assert_eq!(latency.count, count);
        assert!(nanos >= 1000 && latency.max_nanos >= 1000, "{nanos} {latency:?}");
        all += nanos;
    }
    assert!(all / 1_000_000 <= stats.uptime_ms + 1);
    assert_eq!(latencies.log_sync.count, 2);
    assert!(latencies.log_sync.min_nanos >= 1000);
}

#[test]
fn latency_sampling_times_every_nth_operation_and_changes_live() {
    let mut options = options(one().with_latency_sampling(1));
    options.clock = TickingClock::new();
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    let work = || {
        put(&engine, 0..12, 10);
        for n in 0..12 {
            engine.get(&key(n)).unwrap();
            engine.query(b"k00000", &SortRange::All, Direction::Forward, None).unwrap().for_each(drop);
            engine.delete(&key(n), WriteOptions::new()).unwrap();
            let mut batch = WriteBatch::new();
            batch.put(key(n), [1]);
            engine.write(&batch, WriteOptions::new()).unwrap();
        }
        let l = engine.latencies();
        [l.put, l.get, l.query, l.delete, l.batch]
    };
    let first = work();
    assert_eq!(first.map(|latency| latency.count), [12; 5]);
    for latency in first {
        let LatencySummary { min_nanos, mean_nanos, p50_nanos, p90_nanos, p99_nanos, p999_nanos, .. } =
            latency;
        assert!(min_nanos >= 1000 && mean_nanos >= 1000, "{latency:?}");
        assert!(p50_nanos <= p90_nanos && p90_nanos <= p99_nanos && p99_nanos <= p999_nanos, "{latency:?}");
    }
    assert_eq!(engine.stats().unwrap().p99_read_nanos, Some(first[1].p99_nanos));
    engine.set_config(engine.config().with_latency_sampling(4)).unwrap();
    assert_eq!(work().map(|latency| latency.count), [12 + 3; 5]);
    engine.set_config(engine.config().with_latency_sampling(0)).unwrap();
    assert_eq!(work().map(|latency| latency.count), [12 + 3; 5]);
    assert!(engine.latencies().to_string().lines().count() >= 5, "{}", engine.latencies());
}

#[test]
fn recovery_is_told_from_a_clean_open() {
    let vfs = StrictVfs::new();
    let clocked = |vfs: &StrictVfs| {
        let mut options = on(Arc::new(vfs.clone()), one());
        let ear = Arc::new(Ear::default());
        (options.clock, options.listener) =
            (TickingClock::new(), Some(ear.clone() as Arc<dyn EventListener>));
        (options, ear)
    };
    let engine = LsmEngine::create(Path::new(DB), clocked(&vfs).0).unwrap();
    assert!(engine.stats().unwrap().recovery.clean);
    let mut batch = WriteBatch::new();
    batch.put(key(1), [0; 10]).put(key(2), [0; 10]);
    engine.write(&batch, WriteOptions::new()).unwrap();
    engine.put(&key(3), &[0; 10], WriteOptions::new()).unwrap();
    let image = vfs.crash(CrashMode::All);
    let (options, ear) = clocked(&image);
    let engine = LsmEngine::open(Path::new(DB), options).unwrap();
    let stats = engine.stats().unwrap();
    let recovery = stats.recovery;
    assert_eq!((recovery.clean, recovery.replayed_records), (false, 2));
    // Keys in their encoded form, with two bytes for their end.
    assert_eq!(recovery.replayed_bytes, 3 * (6 + 2 + 10));
    assert!(recovery.replay_nanos >= 1000 && recovery.open_nanos > recovery.replay_nanos, "{recovery:?}");
    // Replayed records count as written, or their flush would look like pure overhead.
    assert_eq!(stats.amplification.write_total, Some(0.0));
    let heard = ear.heard();
    assert!(
        matches!(heard[..], [Event::Opened { created: false, clean: false, replayed_records: 2, .. }]),
        "{heard:?}"
    );
    engine.close().unwrap();
    let (options, ear) = clocked(&image);
    let engine = LsmEngine::open(Path::new(DB), options).unwrap();
    assert!(engine.stats().unwrap().recovery.clean);
    assert!(matches!(ear.heard()[..], [Event::Opened { clean: true, .. }]));
}

/// Every kind of event in normal operation, in order.
#[test]
fn a_listener_hears_of_everything() {
    let ear = Arc::new(Ear::default());
    let mut options = options(one());
    options.clock = TickingClock::new();
    options.listener = Some(ear.clone());
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    put(&engine, 0..10, 10);
    engine.delete(&key(0), WriteOptions::new()).unwrap();
    assert_eq!(ear.names(), ["opened"]);
    engine.flush().unwrap();
    engine.trigger_compaction(0).unwrap();
    let config = engine.config().with_max_memtable_records(77);
    engine.set_config(config.clone()).unwrap();
    engine.set_config(config).unwrap(); // changes nothing
    engine.close().unwrap();
    engine.close().unwrap();
    let events = ear.heard();
    let heard = |at: usize| events[at].clone();
    assert_eq!(ear.names()[..5], ["opened", "flush", "checkpoint", "compaction", "checkpoint"]);
    assert!(matches!(heard(0), Event::Opened { created: true, clean: true, read_only: false, .. }));
    let Event::Flush { stripe: 0, records: 11, bytes, duration, .. } = heard(1) else { panic!("{events:?}") };
    assert!(bytes > 0 && duration >= Duration::from_micros(1));
    let Event::Checkpoint { ssts: 1, duration, .. } = heard(2) else { panic!("{events:?}") };
    assert!(duration >= Duration::from_micros(1));
    let Event::Compaction { stripe: 0, reason, runs: 1, ssts: 1, bytes_in, bytes_out, .. } = heard(3) else {
        panic!("{events:?}")
    };
    assert_eq!((reason, bytes_in), (CompactionReason::Requested, bytes));
    assert!(bytes_out > 0);
    let Event::ConfigChanged { changes, .. } = heard(5) else { panic!("{events:?}") };
    let changes: Vec<_> = changes.iter().map(|c| (c.name.as_str(), c.old, c.new)).collect();
    assert_eq!(changes, [("max_memtable_records", Some(1000), Some(77))]);
    assert!(matches!(events.last(), Some(Event::Closed { clean: true, .. })), "{events:?}");
    assert_eq!(ear.names().iter().filter(|name| *name == "config_changed" || *name == "closed").count(), 2);
}

#[test]
fn a_compaction_tells_of_its_tombstones() {
    let ear = Arc::new(Ear::default());
    let mut options = options(one());
    options.listener = Some(ear.clone());
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    put(&engine, 0..10, 10);
    engine.flush().unwrap();
    for n in 0..4 {
        engine.delete(&key(n), WriteOptions::new()).unwrap();
    }
    engine.trigger_compaction(0).unwrap();
    let dropped = ear.heard().into_iter().find_map(|event| match event {
        Event::Compaction { tombstones_dropped, runs, .. } => Some((tombstones_dropped, runs)),
        _ => None,
    });
    assert_eq!(dropped, Some((4, 2)));
}

#[test]
fn stalls_are_told_once_a_second_and_sum_up() {
    let clock = Arc::new(ManualClock::new(1));
    let ear = Arc::new(Ear::default());
    let mut options = options(one().with_max_memtable_records(100_000).with_memory_budget(10_000));
    options.clock = clock.clone();
    options.listener = Some(ear.clone());
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    let told = || {
        let writes = |event| match event {
            Event::Stall { reason: StallReason::Memtables, writes, .. } => Some(writes),
            _ => None,
        };
        ear.heard().into_iter().filter_map(writes).collect::<Vec<u64>>()
    };
    let count = || engine.stats().unwrap().stalls.first().map_or(0, |stall| stall.count);
    put(&engine, 0..100, 500);
    let first = count();
    assert!(first > 2);
    assert_eq!(told(), [1]);
    clock.advance(Duration::from_secs(1));
    while count() == first {
        put(&engine, 0..1, 500);
    }
    assert_eq!(told(), [1, first]);
    put(&engine, 0..100, 500);
    let all = count();
    engine.close().unwrap();
    assert_eq!(told().iter().sum::<u64>(), all);
}

#[test]
fn stalls_know_the_longest() {
    let mut options = options(one().with_max_memtable_records(100_000).with_memory_budget(10_000));
    options.clock = TickingClock::new();
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    put(&engine, 0..100, 500);
    let stall = engine.stats().unwrap().stalls[0];
    assert!(stall.count > 1 && stall.longest_nanos >= 1000, "{stall:?}");
    assert!(
        stall.longest_nanos < stall.nanos && stall.nanos <= stall.longest_nanos * stall.count,
        "{stall:?}"
    );
}

/// Options with a file system that can be stopped, and a listener: the setup for tests of failures.
fn dying(vfs: &StrictVfs, options: &mut EngineOptions) -> Arc<Ear> {
    let ear = Arc::new(Ear::default());
    options.vfs = Arc::new(vfs.clone());
    options.listener = Some(ear.clone());
    ear
}

#[test]
fn failures_of_background_work_and_the_end_of_writing_are_told() {
    let vfs = StrictVfs::new();
    let mut options = options(one().with_max_memtable_records(10));
    let ear = dying(&vfs, &mut options);
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    put(&engine, 0..10, 10);
    vfs.stop_after(Some(0));
    while !ear.names().iter().any(|name| name == "poisoned") {
        assert!(engine.step(0), "{:?}", ear.names());
    }
    let events = ear.heard();
    let failed = |event: &Event| matches!(event, Event::BackgroundError { job, error, .. } if !job.is_empty() && !error.is_empty());
    assert!(events.iter().any(failed), "{events:?}");
    engine.close().unwrap_err();
    assert!(matches!(ear.heard().last(), Some(Event::Closed { clean: false, .. })));
    assert_eq!(ear.names().iter().filter(|name| *name == "poisoned").count(), 1);
}

#[test]
fn a_full_disk_is_told_once_a_second_whoever_meets_it() {
    let vfs = FaultVfs::new(Arc::new(StrictVfs::new()));
    let clock = Arc::new(ManualClock::new(1));
    let ear = Arc::new(Ear::default());
    let config = one().with_max_memtable_records(10).with_wal_segment_size(16 << 10);
    let mut options = on(Arc::new(vfs.clone()), config);
    (options.clock, options.listener) = (clock.clone(), Some(ear.clone() as Arc<dyn EventListener>));
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    let told = || ear.names().iter().filter(|name| *name == "disk_full").count();
    put(&engine, 0..10, 10);
    vfs.add(Rule::fail(Errno::NoSpace).on(&[Op::Create, Op::Truncate]));
    assert_eq!(told(), 0);
    for n in 0..20 {
        engine.step(n);
    }
    assert_eq!(told(), 1, "background work meets it");
    clock.advance(Duration::from_secs(1));
    let refused = (0..100).find_map(|n| engine.put(&key(n), &[0; 1000], WriteOptions::new()).err());
    assert_eq!(refused.unwrap().code(), "disk_full");
    assert_eq!(told(), 2, "a write meets it");
    vfs.clear();
    put(&engine, 0..10, 10);
}

/// Calls back into the engine on every event.
#[derive(Debug, Default)]
struct Caller {
    engine: OnceLock<Weak<LsmEngine>>,
    calls: AtomicU64,
    heard: Mutex<Option<mpsc::Sender<String>>>,
}

impl EventListener for Caller {
    fn on_event(&self, event: &Event) {
        let name = serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_string();
        if let Some(engine) = self.engine.get().and_then(Weak::upgrade)
            && self.calls.fetch_add(1, Ordering::SeqCst) < 30
        {
            // Errors are acceptable, for instance after a close; blocking for ever is not.
            let n = self.calls.load(Ordering::SeqCst) as usize;
            drop(engine.put(&key(5000 + n), b"from the listener", WriteOptions::new()));
            drop(engine.get(&key(5000 + n)));
            drop(engine.stats());
            drop(engine.flush());
            drop(engine.trigger_compaction(0));
            drop(engine.set_config(engine.config().with_block_size(1000 + n)));
            if name == "closed" {
                drop(engine.close());
            }
        }
        if let Some(heard) = &*self.heard.lock().unwrap() {
            drop(heard.send(name));
        }
    }
}

fn called_back(workers: Workers, closed_by_us: bool) {
    let (send, receive) = mpsc::channel();
    let caller = Arc::new(Caller { heard: Mutex::new(Some(send)), ..Caller::default() });
    let mut options = options(one().with_stripes(2).with_max_memtable_records(10));
    options.workers = workers;
    options.listener = Some(caller.clone());
    if workers == Workers::Threads {
        options.clock = Arc::new(kstone_core::clock::SystemClock::new());
    }
    let engine = Arc::new(LsmEngine::create(Path::new(DB), options).unwrap());
    caller.engine.set(Arc::downgrade(&engine)).unwrap();
    put(&engine, 0..200, 10);
    engine.flush().unwrap();
    engine.trigger_compaction(0).unwrap();
    for wanted in ["flush", "compaction", "checkpoint", "config_changed"] {
        while receive.recv_timeout(Duration::from_secs(60)).unwrap() != wanted {
            engine.step(0);
        }
    }
    assert!(engine.get(&key(5001)).unwrap().is_some());
    if closed_by_us {
        engine.close().unwrap();
    }
    drop(engine); // the listener may hold the last reference
    while receive.recv_timeout(Duration::from_secs(60)).unwrap() != "closed" {}
}

#[test]
fn a_listener_may_call_the_engine() {
    for closed_by_us in [true, false] {
        called_back(Workers::Manual, closed_by_us);
        called_back(Workers::Threads, closed_by_us);
    }
}

/// Closes the engine at the first checkpoint event.
#[derive(Debug, Default)]
struct Closer {
    engine: OnceLock<Weak<LsmEngine>>,
    closed: Mutex<Option<mpsc::Sender<bool>>>,
}

impl EventListener for Closer {
    fn on_event(&self, event: &Event) {
        if matches!(event, Event::Checkpoint { .. })
            && let Some(engine) = self.engine.get().and_then(Weak::upgrade)
            && let Some(closed) = self.closed.lock().unwrap().take()
        {
            closed.send(engine.close().is_ok()).unwrap();
        }
    }
}

#[test]
fn a_listener_may_close_the_engine() {
    for workers in [Workers::Manual, Workers::Threads] {
        let (send, receive) = mpsc::channel();
        let closer = Arc::new(Closer { closed: Mutex::new(Some(send)), ..Closer::default() });
        let mut options = options(one());
        options.workers = workers;
        options.listener = Some(closer.clone());
        let engine = Arc::new(LsmEngine::create(Path::new(DB), options).unwrap());
        closer.engine.set(Arc::downgrade(&engine)).unwrap();
        put(&engine, 0..10, 10);
        engine.flush().unwrap();
        assert!(receive.recv_timeout(Duration::from_secs(60)).unwrap(), "{workers:?}");
        assert_eq!(engine.get(&key(1)).unwrap_err().code(), "closed");
    }
}

/// Panics on every event.
#[derive(Debug)]
struct Rude(AtomicU64);

impl EventListener for Rude {
    fn on_event(&self, _: &Event) {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::panic::resume_unwind(Box::new("a listener that panics"));
    }
}

#[test]
fn a_listener_that_panics_harms_nobody() {
    let rude = Arc::new(Rude(AtomicU64::new(0)));
    let mut options = options(one());
    options.listener = Some(rude.clone());
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    put(&engine, 0..10, 10);
    engine.flush().unwrap();
    put(&engine, 0..10, 10);
    let stats = engine.stats().unwrap();
    assert_eq!((stats.poisoned, stats.background_error), (None, None));
    engine.close().unwrap();
    assert!(rude.0.load(Ordering::SeqCst) >= 4);
}

fn text(vfs: &dyn Vfs, name: &str) -> Option<String> {
    let file = vfs.open(&Path::new(DB).join(name), OpenMode::Read).ok()?;
    Some(String::from_utf8(read_all(&*file, 4 << 20).unwrap()).unwrap())
}

fn names(vfs: &dyn Vfs) -> Vec<String> {
    let mut names: Vec<_> = vfs.list(Path::new(DB)).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

#[test]
fn events_are_written_down_but_not_for_an_empty_open_and_close_nor_in_memory() {
    let vfs = StrictVfs::new();
    let reopen = || LsmEngine::open(Path::new(DB), manual(Arc::new(vfs.clone()), 2)).unwrap();
    LsmEngine::create(Path::new(DB), on(Arc::new(vfs.clone()), one())).unwrap().close().unwrap();
    reopen().close().unwrap();
    assert_eq!(text(&vfs, "EVENTS.jsonl"), None);
    let engine = reopen();
    put(&engine, 0..10, 10);
    engine.flush().unwrap();
    assert_eq!(engine.stats().unwrap().foreign_files, [""; 0]);
    engine.close().unwrap();
    let lines: Vec<serde_json::Value> =
        text(&vfs, "EVENTS.jsonl").unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(
            (line["seq"].as_u64(), line["unix_ms"].as_u64()),
            (Some(n as u64 + 1), Some(1_700_000_000_000))
        );
        serde_json::from_value::<Event>(line.clone()).unwrap();
    }
    let kinds: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(kinds[..3], ["opened", "flush", "checkpoint"]);
    assert_eq!(kinds.last(), Some(&"closed"));
    // A read-only handle writes nothing.
    let before = text(&vfs, "EVENTS.jsonl");
    let engine = LsmEngine::open_read_only(Path::new(DB), manual(Arc::new(vfs.clone()), 3)).unwrap();
    engine.close().unwrap();
    assert_eq!(text(&vfs, "EVENTS.jsonl"), before);
    // Nor does a database in memory.
    let memory = Arc::new(MemVfs::new());
    let engine = LsmEngine::create(Path::new(DB), on(memory.clone(), one())).unwrap();
    put(&engine, 0..10, 10);
    engine.flush().unwrap();
    engine.close().unwrap();
    assert!(!names(&*memory).iter().any(|name| name.starts_with("EVENTS")), "{:?}", names(&*memory));
}

#[test]
fn what_is_no_event_file_stands_in_nobodys_way() {
    let vfs = StrictVfs::new();
    vfs.create_dir(Path::new(DB)).unwrap();
    // A directory has that name.
    vfs.create_dir(&Path::new(DB).join("EVENTS.jsonl")).unwrap();
    let engine = LsmEngine::create(Path::new(DB), on(Arc::new(vfs.clone()), one())).unwrap();
    put(&engine, 0..10, 10);
    engine.flush().unwrap();
    assert_eq!(engine.stats().unwrap().background_error, None);
    engine.close().unwrap();
    // Left over from a removed database: this does not prevent creating another.
    let vfs = StrictVfs::new();
    vfs.create_dir(Path::new(DB)).unwrap();
    for name in ["EVENTS.jsonl", "EVENTS.jsonl.3", "STATS.json", "STATS.json.tmp"] {
        vfs.open(&Path::new(DB).join(name), OpenMode::Create).unwrap();
    }
    let engine = LsmEngine::create(Path::new(DB), on(Arc::new(vfs), one())).unwrap();
    assert_eq!(engine.stats().unwrap().foreign_files, [""; 0]);
}

#[test]
fn stats_snapshot_interval_writes_the_counters_to_a_file_until_close() {
    let vfs = StrictVfs::new();
    let clock = Arc::new(ManualClock::new(1));
    let mut options = on(Arc::new(vfs.clone()), one());
    options.clock = clock.clone();
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    let file = || text(&vfs, StatsSnapshot::FILE);
    put(&engine, 0..3, 10);
    clock.advance(Duration::from_secs(100));
    drain(&engine);
    assert_eq!(file(), None, "only when it is asked for");
    engine.set_config(engine.config().with_stats_snapshot_interval(Duration::from_secs(10))).unwrap();
    drain(&engine);
    let read = || serde_json::from_str::<StatsSnapshot>(&file().unwrap()).unwrap();
    let first = read();
    assert_eq!((first.schema.as_str(), first.pid), ("kstone.stats/1", std::process::id()));
    assert_eq!((first.unix_ms, first.uptime_ms), (clock.unix_ms(), 100_000));
    assert_eq!(first.stats.operations.puts, 3);
    put(&engine, 3..7, 10);
    clock.advance(Duration::from_millis(9_999));
    drain(&engine);
    assert_eq!(read(), first);
    clock.advance(Duration::from_millis(1));
    let stats = drain(&engine);
    assert_eq!(read().stats, stats);
    assert_eq!(read().stats.operations.puts, 7);
    assert_eq!(stats.foreign_files, [""; 0]);
    // A process that dies leaves the file behind; the next handle to close removes it.
    let image = vfs.crash(CrashMode::All);
    engine.close().unwrap();
    assert!(!names(&vfs).iter().any(|name| name.starts_with("STATS")), "{:?}", names(&vfs));
    let engine = LsmEngine::open(Path::new(DB), manual(Arc::new(image.clone()), 2)).unwrap();
    engine.close().unwrap();
    assert!(!names(&image).iter().any(|name| name.starts_with("STATS")), "{:?}", names(&image));
}

#[test]
fn a_file_of_counters_that_cannot_be_written_stops_nobody() {
    let vfs = StrictVfs::new();
    vfs.create_dir(Path::new(DB)).unwrap();
    vfs.create_dir(&Path::new(DB).join("STATS.json.tmp")).unwrap();
    let ear = Arc::new(Ear::default());
    let mut options = on(Arc::new(vfs), one().with_stats_snapshot_interval(Duration::from_secs(10)));
    options.listener = Some(ear.clone());
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    put(&engine, 0..3, 10);
    let stats = drain(&engine);
    assert_eq!(stats.background_error, None);
    let heard = ear.heard();
    assert!(
        heard.iter().any(|e| matches!(e, Event::BackgroundError { job, .. } if job == "stats")),
        "{heard:?}"
    );
    engine.close().unwrap();
}

#[test]
fn the_text_of_the_counters_is_short() {
    let engine = engine(one());
    put(&engine, 0..10, 10);
    engine.flush().unwrap();
    engine.get(&key(1)).unwrap();
    let text = engine.stats().unwrap().to_string();
    assert!((15..=25).contains(&text.lines().count()), "{text}");
    assert!(text.contains("10 puts") && text.contains("1 gets"), "{text}");
}
