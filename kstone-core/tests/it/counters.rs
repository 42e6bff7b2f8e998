//! `docs/counters.md` has a row for every counter, event, alert and metric, and the test that each row names exists.
//! The tests in this file check exact values that other files only bound.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstone_core::clock::{Clock, ManualClock};
use kstone_core::lsm::{
    Direction, EngineStats, Event, EventListener, LsmEngine, StallReason, StallStats, WriteBatch,
    WriteOptions,
};
use kstone_core::vfs::{Call, CrashMode, FaultVfs, MemVfs, Op, OpenMode, Rule, StrictVfs, Vfs};
use kstone_core::{CompactionConfig, DatabaseConfig, Error, Key, SortRange};

use crate::model::{Rng, manual};

const TABLE: &str = "docs/counters.md";
const DB: &str = "db";

fn read(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// The text from `start` in a source file up to `end`.
fn item(file: &str, start: &str, end: &str) -> String {
    let source = read(file);
    let from = source.find(start).unwrap_or_else(|| panic!("{file}: no {start}"));
    let body = &source[from..];
    body[..body.find(end).unwrap()].to_string()
}

/// The public fields of a struct, as `Struct.field`.
fn fields(file: &str, name: &str) -> Vec<String> {
    let body = item(file, &format!("pub struct {name} {{"), "\n}");
    let fields = body.lines().filter_map(|line| line.strip_prefix("    pub ")?.split_once(':'));
    fields.map(|(field, _)| format!("{name}.{field}")).collect()
}

/// The variants of `Event`.
fn events() -> Vec<String> {
    let body = item("kstone-core/src/lsm/events.rs", "pub enum Event {", "\n}");
    let lines = body.lines().skip(1).filter_map(|line| line.strip_prefix("    "));
    let variants = lines.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    variants.map(|line| format!("Event::{}", line.trim_end_matches([' ', '{', ',']))).collect()
}

/// The first string on each line that has one of the prefixes.
fn strings(body: &str, prefixes: &[&str]) -> Vec<String> {
    let of = |line: &str| {
        let rest = prefixes.iter().find_map(|prefix| line.trim().strip_prefix(prefix))?;
        Some(rest.split('"').next()?.to_string())
    };
    body.lines().filter_map(of).collect()
}

fn alerts() -> Vec<String> {
    // One tuple per line, however it is formatted.
    let all = item("kstone-api/src/alerts.rs", "let all = [", "];");
    let words: Vec<&str> = all.split_whitespace().collect();
    strings(&words.join(" ").replace("( \"", "(\"").replace("(\"", "\n(\""), &["(\""])
}

fn metrics() -> Vec<String> {
    let source = read("kstone-api/src/openmetrics.rs");
    // One call per line, even if its arguments are on the following lines.
    let source = source.replace("(\n", "(").replace("(        ", "(");
    let mut names = Vec::new();
    for kind in ["counter", "gauge", "counters", "gauges"] {
        for call in source.split(&format!("out.{kind}(")).skip(1) {
            names.push(call.trim_start().trim_start_matches('"').split('"').next().unwrap().to_string());
        }
    }
    names.extend(strings(
        &item("kstone-api/src/openmetrics.rs", "for (name, operation, help) in [", "] {"),
        &["(\""],
    ));
    names.into_iter().collect::<BTreeSet<_>>().into_iter().map(|name| format!("keystonedb_{name}")).collect()
}

/// The files and structs that declare counters.
const STRUCTS: &[(&str, &[&str])] = &[
    (
        "kstone-core/src/lsm/stats.rs",
        &[
            "EngineStats",
            "StripeStats",
            "StallStats",
            "OperationStats",
            "ReadStats",
            "Amplification",
            "RecoveryStats",
        ],
    ),
    ("kstone-core/src/sst/block_cache.rs", &["BlockCacheStats"]),
    ("kstone-core/src/sst/filter_stats.rs", &["FilterStats"]),
    ("kstone-core/src/lsm/compaction_stats.rs", &["CompactionStats", "CompactionReasonStats"]),
    ("kstone-core/src/lsm/disk_usage.rs", &["DiskUsage"]),
    ("kstone-core/src/lsm/sizes.rs", &["SizeSummary", "WrittenSizes"]),
    ("kstone-core/src/latency.rs", &["LatencySummary", "Latencies"]),
    ("kstone-core/src/lsm/pending.rs", &["PendingRewrite"]),
];

#[test]
fn every_counter_has_a_row_and_each_row_a_test() {
    let table = read(TABLE);
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_string).collect::<Vec<_>>();
    let mut named = BTreeSet::new();
    let mut tests = BTreeSet::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 5, "{row}");
        for name in quoted(cells[0]) {
            assert!(named.insert(name.clone()), "{name} has two rows");
        }
        let places = quoted(cells[4]);
        assert!(!places.is_empty(), "no test: {row}");
        for place in places {
            let (file, function) = place.split_once("::").unwrap_or_else(|| panic!("{place}: {row}"));
            let test = read(file)
                .find(&format!("#[test]\nfn {function}()"))
                .or_else(|| read(file).find(&format!("#[test]\n    fn {function}()")));
            assert!(test.is_some(), "{place} is not a test that runs: {row}");
            tests.insert(place);
        }
    }
    let mut expected: Vec<String> = Vec::new();
    for (file, names) in STRUCTS {
        expected.extend(names.iter().flat_map(|name| fields(file, name)));
    }
    expected.extend(events().into_iter().chain(alerts()).chain(metrics()));
    let missing: Vec<_> = expected.iter().filter(|name| !named.contains(*name)).collect();
    assert!(missing.is_empty(), "no row for {missing:#?}");
    let unknown: Vec<_> = named.iter().filter(|name| !expected.contains(name)).collect();
    assert!(unknown.is_empty(), "rows for names that do not exist: {unknown:?}");
    assert!(expected.len() > 200 && events().len() == 10 && alerts().len() == 10, "{expected:?}");
    println!("{} counters, {} tests", expected.len(), tests.len());
}

/// One stripe, merged and flushed only on request.
fn one() -> DatabaseConfig {
    DatabaseConfig::new().with_stripes(1)
}

fn engine_on(vfs: Arc<dyn Vfs>, clock: Arc<dyn Clock>, config: DatabaseConfig) -> LsmEngine {
    let mut options = manual(vfs, 1);
    options.clock = clock;
    (options.config, options.compaction) = (Some(config), Some(CompactionConfig::disabled()));
    LsmEngine::create(Path::new(DB), options).unwrap()
}

fn engine(config: DatabaseConfig) -> LsmEngine {
    engine_on(Arc::new(MemVfs::new()), Arc::new(ManualClock::new(1)), config)
}

/// A key of six bytes, eight when encoded.
fn key(n: usize) -> Key<'static> {
    Key::new(format!("k{n:05}").into_bytes())
}

fn put(engine: &LsmEngine, keys: std::ops::Range<usize>, len: usize) {
    for n in keys {
        engine.put(&key(n), &vec![n as u8; len], WriteOptions::new()).unwrap();
    }
}

fn batch(keys: std::ops::Range<usize>, len: usize) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for n in keys {
        batch.put(key(n), vec![n as u8; len]);
    }
    batch
}

/// A clock that advances by a settable step with each reading.
#[derive(Debug)]
struct Stepping {
    now: AtomicU64,
    step: AtomicU64,
}

impl Stepping {
    fn new(step_nanos: u64) -> Arc<Self> {
        Arc::new(Self { now: AtomicU64::new(0), step: AtomicU64::new(step_nanos) })
    }
}

impl Clock for Stepping {
    fn unix_ms(&self) -> u64 {
        1_700_000_000_000
    }
    fn monotonic(&self) -> Duration {
        let step = self.step.load(Ordering::Relaxed);
        Duration::from_nanos(self.now.fetch_add(step, Ordering::Relaxed))
    }
    fn random(&self) -> u64 {
        self.now.load(Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A slow file system on a simulated clock: a read takes 1 ms, a write 3 ms, a sync 20 ms.
#[derive(Clone, Debug)]
struct Slow {
    vfs: FaultVfs,
    clock: Arc<ManualClock>,
    took: Arc<Mutex<Vec<(String, u64)>>>,
}

impl Slow {
    fn new(inner: Arc<dyn Vfs>) -> Self {
        let (vfs, clock) = (FaultVfs::new(inner), Arc::new(ManualClock::new(1)));
        let took = Arc::<Mutex<Vec<(String, u64)>>>::default();
        for (op, ms) in [(Op::Read, 1), (Op::Write, 3), (Op::Sync, 20)] {
            let (clock, took) = (Arc::clone(&clock), Arc::clone(&took));
            let hook = move |call: &Call<'_>| {
                // Writing the event log does not count.
                if !call.name().starts_with("EVENTS") {
                    clock.advance(Duration::from_millis(ms));
                    took.lock().unwrap().push((call.name().into_owned(), ms));
                }
                Ok(())
            };
            vfs.add(Rule::hook(hook).on(&[op]));
        }
        Self { vfs, clock, took }
    }

    /// Nanoseconds spent since the last call on files with this ending, and on all files.
    fn took(&self, ending: &str) -> (u64, u64) {
        let took = std::mem::take(&mut *self.took.lock().unwrap());
        let sum = |ending: &str| {
            took.iter().filter(|(name, _)| name.ends_with(ending)).map(|(_, ms)| ms).sum::<u64>()
        };
        (sum(ending) * 1_000_000, sum("") * 1_000_000)
    }
}

/// Records the events that it receives.
#[derive(Debug, Default)]
struct Ear(Mutex<Vec<Event>>);

impl EventListener for Ear {
    fn on_event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

#[test]
fn background_work_takes_the_time_of_its_reads_writes_and_syncs() {
    let slow = Slow::new(Arc::new(MemVfs::new()));
    let engine = engine_on(Arc::new(slow.vfs.clone()), Arc::<ManualClock>::clone(&slow.clock), one());
    let mut checkpoints = 0;
    put(&engine, 0..100, 100);
    slow.took("");
    engine.flush().unwrap();
    let mut syncs_of_log = 20_000_000;
    let (sst, all) = slow.took(".sst");
    // A flush writes an SST; a checkpoint syncs the log and that SST, and writes and syncs the manifest.
    let stats = engine.stats().unwrap();
    assert_eq!(stats.flush_nanos, sst - 20_000_000);
    assert!(stats.flush_nanos >= 3_000_000);
    checkpoints += all - stats.flush_nanos;
    assert_eq!((stats.checkpoint_nanos, stats.compaction_nanos), (checkpoints, 0));
    put(&engine, 50..150, 100);
    engine.flush().unwrap();
    let before = engine.stats().unwrap();
    syncs_of_log += 20_000_000;
    slow.took("");
    engine.trigger_compaction(0).unwrap();
    let (sst, all) = slow.took(".sst");
    let stats = engine.stats().unwrap();
    assert_eq!((stats.flush_nanos, stats.compaction_nanos), (before.flush_nanos, sst - 20_000_000));
    assert_eq!(stats.checkpoint_nanos, before.checkpoint_nanos + all - stats.compaction_nanos);
    let latencies = engine.latencies();
    let close = |nanos: u64, exact: u64| nanos.abs_diff(exact) <= exact / 1000;
    for (latency, count, nanos) in [
        (latencies.flush, 2, stats.flush_nanos),
        (latencies.compaction, 1, stats.compaction_nanos),
        (latencies.checkpoint, 3, stats.checkpoint_nanos),
        // The third checkpoint found nothing to sync.
        (latencies.log_sync, 2, syncs_of_log),
    ] {
        assert_eq!(latency.count, count);
        assert!(close(latency.mean_nanos * count, nanos), "{nanos}: {latency:?}");
    }
}

#[test]
fn latencies_are_told_to_the_nanosecond() {
    let clock = Stepping::new(0);
    let engine =
        engine_on(Arc::new(MemVfs::new()), Arc::<Stepping>::clone(&clock), one().with_latency_sampling(1));
    assert_eq!(engine.stats().unwrap().p99_read_nanos, None);
    put(&engine, 0..1, 10);
    // The first delete of a memtable also reads the clock, for its age.
    engine.delete(&key(9), WriteOptions::new()).unwrap();
    // The clock is read once before and once after: each get takes one step.
    for nanos in 1..=1000 {
        clock.step.store(nanos, Ordering::Relaxed);
        engine.get(&key(0)).unwrap();
    }
    clock.step.store(0, Ordering::Relaxed);
    let get = engine.latencies().get;
    assert_eq!((get.count, get.min_nanos, get.max_nanos, get.mean_nanos), (1000, 1, 1000, 500));
    assert_eq!((get.p50_nanos, get.p90_nanos, get.p99_nanos, get.p999_nanos), (500, 900, 990, 999));
    assert_eq!(engine.stats().unwrap().p99_read_nanos, Some(990));
    // The other operations: the same number of each, and each took some steps.
    clock.step.store(100, Ordering::Relaxed);
    for n in 0..3 {
        put(&engine, n..n + 1, 10);
        engine.delete(&key(n), WriteOptions::new()).unwrap();
        engine.write(&batch(0..2, 10), WriteOptions::new()).unwrap();
        engine.query(b"k00000", &SortRange::All, Direction::Forward, None).unwrap().for_each(drop);
    }
    let all = engine.latencies();
    // There is one more put and delete, for the gets and the age. An iterator reads the clock around each call.
    for (latency, count, nanos) in
        [(all.put, 4, 100), (all.delete, 4, 100), (all.batch, 3, 100), (all.query, 3, 300)]
    {
        assert_eq!((latency.count, latency.max_nanos), (count, nanos), "{latency:?}");
    }
}

#[test]
fn an_open_takes_the_time_of_its_reads_and_tells_that_of_the_replay() {
    let vfs = StrictVfs::new();
    let engine = engine_on(Arc::new(vfs.clone()), Arc::new(ManualClock::new(1)), one());
    put(&engine, 0..300, 1000);
    let slow = Slow::new(Arc::new(vfs.crash(CrashMode::All)));
    let mut options = manual(Arc::new(slow.vfs.clone()), 1);
    options.clock = Arc::<ManualClock>::clone(&slow.clock);
    let engine = LsmEngine::open(Path::new(DB), options).unwrap();
    // The replay starts after the log's only segment is found, which reads its header.
    let took = std::mem::take(&mut *slow.took.lock().unwrap());
    let first = took.iter().position(|(name, _)| name.ends_with(".log")).unwrap();
    let sum = |took: &[(String, u64)]| took.iter().map(|(_, ms)| ms * 1_000_000).sum::<u64>();
    let (replay, all) = (sum(&took[first + 1..]), sum(&took));
    let recovery = engine.stats().unwrap().recovery;
    assert_eq!((recovery.replay_nanos, recovery.open_nanos), (replay, all));
    assert!(replay >= 5_000_000 && all > replay, "{recovery:?}");
    assert_eq!((recovery.replayed_records, recovery.replayed_bytes), (300, 300 * (8 + 1000)));
    slow.clock.advance(Duration::from_secs(100));
    assert_eq!(engine.stats().unwrap().uptime_ms, all / 1_000_000 + 100_000);
}

#[test]
fn a_stripe_is_described() {
    let config = one().with_stripes(4).with_max_memtable_records(50).with_target_sst_size(8 << 10);
    let engine = engine(config);
    assert_eq!(engine.stats().unwrap().stripes, []);
    // All keys are in one stripe.
    let key = |n: usize| Key::with_sort(b"p".to_vec(), format!("{n:04}").into_bytes());
    let put = |keys: std::ops::Range<usize>| {
        keys.for_each(|n| assert!(engine.put(&key(n), &[7; 500], WriteOptions::new()).is_ok()));
    };
    let delete = |keys: std::ops::Range<usize>| {
        keys.for_each(|n| assert!(engine.delete(&key(n), WriteOptions::new()).is_ok()));
    };
    put(0..40);
    delete(0..5);
    engine.flush().unwrap();
    put(0..50); // sealed
    put(0..7);
    let stats = engine.stats().unwrap();
    let [stripe] = &stats.stripes[..] else { panic!("{stats:?}") };
    let used = (0..4).find(|&n| engine.scan_stripe(n, None).unwrap().count() > 0);
    assert_eq!((Some(stripe.stripe), stats.stripe_count, stats.format_version), (used, 4, 1));
    // The first flush of a stripe drops tombstones, and the versions that they shadow.
    assert_eq!((stripe.runs, stripe.entries, stripe.tombstones), (1, 35, 0));
    assert!((2..=5).contains(&stripe.ssts), "{stripe:?}");
    // Key and value, and 96 bytes per record for the tree.
    assert_eq!((stripe.memtable_records, stripe.memtable_limit), (57, 50));
    let record = stripe.memtable_bytes / 57;
    assert!((96 + 500 + 5..96 + 500 + 30).contains(&record) && stripe.memtable_bytes % 57 == 0, "{stripe:?}");
    delete(0..5);
    engine.flush().unwrap();
    let stats = engine.stats().unwrap();
    let stripe = &stats.stripes[0];
    assert_eq!((stripe.runs, stripe.entries, stripe.tombstones), (3, 35 + 50 + 7, 5));
    assert_eq!((stripe.memtable_records, stripe.memtable_bytes), (0, 0));
    // 87 values, plus headers, index and filter.
    assert!((87 * 500..87 * 700).contains(&stripe.sst_bytes), "{stripe:?}");
    assert_eq!((stats.sst_bytes, stats.ssts_per_stripe), (stripe.sst_bytes, stripe.ssts as f64));
}

/// Which stripe is hot: by its writes, and by the gets that were timed.
#[test]
fn the_heat_of_a_stripe_is_counted() {
    let engine = engine(DatabaseConfig::new().with_stripes(2).with_latency_sampling(1));
    let in_stripe = |stripe: usize| {
        let is_there =
            |n: &usize| engine.scan_stripe(stripe, None).unwrap().any(|row| row.unwrap().0 == key(*n));
        (0..30).filter(is_there).collect::<Vec<_>>()
    };
    put(&engine, 0..30, 10);
    let (first, second) = (in_stripe(0), in_stripe(1));
    assert!(!first.is_empty() && first.len() + second.len() == 30);
    engine.flush().unwrap();
    engine.delete(&key(first[0]), WriteOptions::new()).unwrap();
    for _ in 0..3 {
        assert!(engine.get(&key(second[0])).unwrap().is_some());
    }
    assert!(engine.get(&key(first[0])).unwrap().is_none());
    assert_eq!(engine.scan_stripe(0, None).unwrap().count(), first.len() - 1);
    let stats = engine.stats().unwrap();
    let figures = |n: usize| {
        let stripe = &stats.stripes[n];
        (stripe.writes, stripe.timed_gets, stripe.passed_over)
    };
    // The tombstone, and the version under it.
    assert_eq!(figures(0), (first.len() as u64 + 1, 1, 2));
    assert_eq!(figures(1), (second.len() as u64, 3, 0));
    assert!(stats.stripes.iter().all(|stripe| (stripe.held_up, stripe.held_up_nanos) == (0, 0)));
}

#[test]
fn sizes_of_what_is_written_are_sampled() {
    let engine = engine(one().with_latency_sampling(1));
    assert_eq!(engine.stats().unwrap().written_sizes, Default::default());
    put(&engine, 0..10, 100);
    engine.delete(&key(0), WriteOptions::new()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(key(1), [0; 300]).delete(key(2));
    engine.write(&batch, WriteOptions::new()).unwrap();
    let add = |_: &[_], changes: &mut kstone_core::lsm::Changes| {
        changes.put(0, vec![0; 100]);
        Ok(())
    };
    engine.write_with(&[key(3)], WriteOptions::new(), add).unwrap();
    let sizes = engine.stats().unwrap().written_sizes;
    assert_eq!((sizes.keys.count, sizes.keys.mean, sizes.keys.p50, sizes.keys.max), (14, 6, 6, 6));
    assert_eq!((sizes.values.count, sizes.values.p50, sizes.values.mean), (12, 100, 116));
    // To two digits.
    assert!((295..=305).contains(&sizes.values.p99) && (295..=305).contains(&sizes.values.max), "{sizes:?}");
}

#[test]
fn a_snapshot_lags_behind_by_the_writes_since() {
    let engine = engine(one());
    put(&engine, 0..5, 10);
    assert_eq!(engine.stats().unwrap().snapshot_lag, 0);
    let snapshot = engine.snapshot().unwrap();
    put(&engine, 0..7, 10);
    assert_eq!(engine.stats().unwrap().snapshot_lag, 7);
    drop(snapshot);
    assert_eq!(engine.stats().unwrap().snapshot_lag, 0);
}

#[test]
fn page_faults_are_those_that_the_system_reports() {
    #[derive(Debug)]
    struct Faults;
    impl kstone_core::memory::MemoryProbe for Faults {
        fn available(&self) -> Option<u64> {
            None
        }
        fn major_faults(&self) -> Option<u64> {
            Some(123)
        }
    }
    assert_eq!(engine(one()).stats().unwrap().major_faults, None);
    let mut options = manual(Arc::new(MemVfs::new()), 1);
    options.memory_probe = Arc::new(Faults);
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    assert_eq!(engine.stats().unwrap().major_faults, Some(123));
    // Here, as anywhere on Linux, a number.
    let known = kstone_core::memory::MemoryProbe::major_faults(&kstone_core::memory::SystemMemory);
    assert_eq!(known.is_some(), cfg!(target_os = "linux"));
}

#[test]
fn sizes_are_those_of_the_directory() {
    let vfs = MemVfs::new();
    let engine = engine_on(
        Arc::new(vfs.clone()),
        Arc::new(ManualClock::new(1)),
        one().with_wal_segment_size(16 << 10),
    );
    vfs.open(&Path::new(DB).join("notes.txt"), OpenMode::Create).unwrap();
    let check = || {
        let listed = vfs.list(Path::new(DB)).unwrap();
        let of = |is: &dyn Fn(&str) -> bool| {
            listed.iter().filter(|e| is(&e.name)).map(|e| e.len).collect::<Vec<_>>()
        };
        let pages = |lens: &[u64]| lens.iter().map(|len| len.next_multiple_of(4096)).sum::<u64>();
        let (logs, ssts) = (of(&|name| name.ends_with(".log")), of(&|name| name.ends_with(".sst")));
        let manifest = of(&|name| name.starts_with("MANIFEST"));
        let stats = engine.stats().unwrap();
        assert_eq!((stats.log_bytes, stats.log_segments), (logs.iter().sum::<u64>(), logs.len()));
        assert_eq!(stats.sst_bytes, ssts.iter().sum::<u64>());
        assert_eq!(stats.stripes[0].sst_bytes, stats.sst_bytes);
        assert!(ssts.is_empty() || stats.sst_bytes > 90_000, "{stats:?}");
        assert_eq!(stats.manifest_bytes, manifest.iter().sum::<u64>());
        assert_eq!(stats.foreign_files, ["notes.txt"]);
        let disk = engine.disk_usage().unwrap();
        assert_eq!((disk.log, disk.ssts, disk.manifest), (pages(&logs), pages(&ssts), pages(&manifest)));
        let all = pages(&of(&|_| true));
        assert_eq!((disk.used, disk.other), (all, all - disk.log - disk.ssts - disk.manifest));
        (stats, disk)
    };
    put(&engine, 0..100, 1000);
    let (stats, _) = check();
    assert!(stats.log_segments > 5 && stats.sst_bytes == 0 && stats.manifest_bytes > 0);
    engine.flush().unwrap();
    engine.set_config(one().with_wal_segment_size(16 << 10).with_max_total_disk_bytes(8 << 20)).unwrap();
    let (stats, disk) = check();
    assert!(stats.sst_bytes > 90_000, "{stats:?}");
    assert!(disk.other > 0, "the file that holds the lock: {disk:?}");
}

#[test]
fn what_a_limit_leaves_for_writes_is_told_and_refusals_are_counted() {
    const LIMIT: u64 = 4 << 20;
    let engine = engine(one().with_wal_segment_size(64 << 10));
    let free = engine.disk_usage().unwrap();
    assert_eq!((free.limit, free.reserved, free.available_for_writes), (None, 0, None));
    engine.set_config(engine.config().with_max_total_disk_bytes(LIMIT)).unwrap();
    let usage = || {
        let usage = engine.disk_usage().unwrap();
        assert_eq!(usage.limit, Some(LIMIT));
        assert_eq!(usage.available_for_writes, Some(LIMIT.saturating_sub(usage.used + usage.reserved)));
        usage
    };
    let first = usage();
    // At least the space reserved for deletes: more than two segments, and a thirty-second of the limit.
    assert!(first.reserved > (128 << 10) + LIMIT / 32 && first.reserved < LIMIT / 2, "{first}");
    let mut rng = Rng(3);
    let mut noise = || (0..125).flat_map(|_| rng.next().to_le_bytes()).collect::<Vec<_>>();
    engine.put(&key(0), &noise(), WriteOptions::new()).unwrap();
    assert!(usage().reserved > first.reserved + 1000, "the memtable has to be flushed: {}", usage());
    let mut written = 0;
    let refused = (1..10_000).find_map(|n| {
        written += 1000;
        engine.put(&key(n), &noise(), WriteOptions::new()).err()
    });
    assert!(matches!(refused, Some(Error::DiskFull)), "{refused:?}");
    let full = usage();
    assert!(full.available_for_writes < Some(100 << 10) && written < LIMIT, "{written}, {full}");
    assert_eq!(engine.stats().unwrap().disk_full_refusals, 1);
    engine.put(&key(20_000), &[0; 100_000], WriteOptions::new()).unwrap_err();
    assert_eq!(engine.stats().unwrap().disk_full_refusals, 2);
}

fn stall(stats: &EngineStats) -> StallStats {
    assert_eq!(stats.stalls.len(), 1, "{stats:?}");
    stats.stalls[0]
}

#[test]
fn a_delay_and_a_stop_are_told_apart() {
    // 12.5 kB of memtables delay writers, 15 kB stop them.
    for (records, delays, stops) in [(19, 1, 0), (30, 0, 1)] {
        let engine = engine(one().with_max_memtable_records(100_000).with_memory_budget(10_000));
        let mut whole = WriteBatch::new();
        for n in 0..records {
            whole.put(key(n), [1; 600]);
        }
        engine.write(&whole, WriteOptions::new()).unwrap();
        assert_eq!(engine.stats().unwrap().stalls, []);
        put(&engine, 0..1, 1);
        let stats = engine.stats().unwrap();
        let stall = stall(&stats);
        assert_eq!((stall.reason, stall.count), (StallReason::Memtables, 1));
        let [stripe] = &stats.stripes[..] else { panic!("{stats:?}") };
        assert_eq!((stripe.held_up, stripe.held_up_nanos >= stall.nanos), (1, true), "{stripe:?} {stall:?}");
        assert_eq!((stall.delays, stall.stops), (delays, stops));
    }
}

#[test]
fn stalls_last_as_long_as_the_events_say() {
    // The clock advances by a second with each reading, so no two stalls are reported together.
    let ear = Arc::new(Ear::default());
    let mut options = manual(Arc::new(MemVfs::new()), 1);
    options.clock = Stepping::new(1_000_000_000);
    options.listener = Some(Arc::<Ear>::clone(&ear) as Arc<dyn EventListener>);
    let config = one().with_max_memtable_records(100_000).with_memory_budget(10_000);
    options.config = Some(config.with_write_stall_limit(Duration::from_secs(80_000)));
    options.compaction = Some(CompactionConfig::disabled());
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    for n in 0..20 {
        put(&engine, n * 10..n * 10 + 10, 500);
        engine.write(&batch(0..30, 600), WriteOptions::new()).unwrap();
    }
    let stall = stall(&engine.stats().unwrap());
    engine.close().unwrap();
    let told: Vec<u64> = ear
        .0
        .lock()
        .unwrap()
        .iter()
        .filter_map(|event| match event {
            Event::Stall { reason: StallReason::Memtables, writes: 1, duration, .. } => {
                Some(duration.as_nanos() as u64)
            }
            _ => None,
        })
        .collect();
    assert!(told.len() > 15 && told.iter().min() < told.iter().max(), "{told:?}");
    assert_eq!(stall.count, told.len() as u64);
    assert_eq!((stall.nanos, stall.longest_nanos), (told.iter().sum(), *told.iter().max().unwrap()));
}

#[test]
fn failures_stay_in_the_statistics() {
    let vfs = StrictVfs::new();
    let engine =
        engine_on(Arc::new(vfs.clone()), Arc::new(ManualClock::new(1)), one().with_max_memtable_records(10));
    put(&engine, 0..10, 10);
    let stats = engine.stats().unwrap();
    assert_eq!((stats.poisoned, stats.background_error), (None, None));
    vfs.stop_after(Some(0));
    while engine.stats().unwrap().poisoned.is_none() {
        assert!(engine.step(0));
    }
    let stats = engine.stats().unwrap();
    let (poisoned, error) = (stats.poisoned.unwrap(), stats.background_error.unwrap());
    assert!(poisoned.contains("sync") || poisoned.contains("write"), "{poisoned}");
    assert!(!error.is_empty(), "{error}");
}

#[test]
fn a_get_looks_at_one_block_of_the_run_that_has_its_key() {
    let engine = engine(one().with_bloom_bits_per_key(16));
    put(&engine, 0..20, 10);
    engine.flush().unwrap();
    let before = engine.stats().unwrap().reads;
    assert_eq!((before.blocks_read, before.runs_looked_at), (0, 0));
    (0..20).for_each(|n| assert!(engine.get(&key(n)).unwrap().is_some()));
    (20..40).for_each(|n| assert!(engine.get(&key(n)).unwrap().is_none()));
    let stats = engine.stats().unwrap();
    assert_eq!((stats.reads.blocks_read, stats.reads.runs_looked_at), (20, 40));
    assert_eq!((stats.filter.tests, stats.filter.negatives, stats.filter.false_positives), (40, 20, 0));
    assert_eq!((stats.amplification.read_blocks, stats.amplification.read_runs), (Some(0.5), Some(1.0)));
}

#[test]
fn write_amplification_counts_every_byte() {
    let engine = engine(one());
    put(&engine, 0..100, 100);
    engine.flush().unwrap();
    engine.trigger_compaction(0).unwrap();
    let stats = engine.stats().unwrap();
    let user = stats.operations.user_bytes_written;
    assert_eq!(user, 100 * 106);
    let a = stats.amplification;
    let per = |bytes: u64| Some(bytes as f64 / user as f64);
    let (merged, flushed) = (stats.compaction_bytes_written, stats.flush_bytes_written);
    assert_eq!((a.write_compaction, a.write_tables), (per(merged), per(merged + flushed)));
    assert_eq!(a.write_total, per(merged + flushed + stats.log_bytes_written));
    // A record: its header, and keys and values rounded up to multiples of 8.
    assert!((106 * 100..180 * 100).contains(&stats.log_bytes_written), "{}", stats.log_bytes_written);
    assert_eq!((stats.log_records, stats.log_writes), (100, 100));
}

/// Random overwrites: compares the estimate with the result of a full merge.
#[test]
fn space_amplification_knows_superseded_versions() {
    for (keys, runs, stripes) in [(1_000, 6, 1), (5_000, 8, 1), (4_000, 5, 16)] {
        for seed in 0..4 {
            let engine =
                engine(DatabaseConfig::new().with_stripes(stripes).with_max_memtable_records(1_000_000));
            let (mut rng, mut live) = (Rng(seed), BTreeSet::new());
            for _ in 0..runs {
                for _ in 0..keys / 2 {
                    let n = rng.below(keys) as usize;
                    live.insert(n);
                    put(&engine, n..n + 1, 50);
                }
                engine.flush().unwrap();
            }
            let stats = engine.stats().unwrap();
            // An encoded key has eight bytes.
            let truth = stats.sst_bytes as f64 / (live.len() * 58) as f64;
            let told = stats.amplification.space.unwrap();
            let entries: u64 = stats.stripes.iter().map(|stripe| stripe.entries).sum();
            let (versions, in_fact) =
                (stats.amplification.entries.unwrap(), entries as f64 / live.len() as f64);
            assert!(in_fact > 1.8 && (versions / in_fact - 1.0).abs() < 0.15, "{versions} for {in_fact}");
            println!("{keys} keys, {runs} runs, {stripes} stripes: {told:.2}, in fact {truth:.2}");
            assert!(truth > 1.8 && (told / truth - 1.0).abs() < 0.15, "{told} for {truth}");
            (0..stripes).for_each(|stripe| engine.trigger_compaction(stripe).unwrap());
            let stats = engine.stats().unwrap();
            let merged = stats.amplification.space.unwrap();
            let exact = stats.sst_bytes as f64 / (live.len() * 58) as f64;
            assert!((merged - exact).abs() < 0.001, "nothing is left to estimate: {merged} for {exact}");
        }
    }
}

#[test]
fn space_amplification_knows_what_was_deleted() {
    let engine = engine(one());
    put(&engine, 0..400, 100);
    engine.flush().unwrap();
    for n in 0..300 {
        engine.delete(&key(n), WriteOptions::new()).unwrap();
    }
    engine.flush().unwrap();
    let stats = engine.stats().unwrap();
    let truth = stats.sst_bytes as f64 / (100.0 * 108.0);
    let told = stats.amplification.space.unwrap();
    assert!(truth > 4.0 && (told / truth - 1.0).abs() < 0.15, "{told} for {truth}");
}
