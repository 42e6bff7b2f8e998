//! Work that becomes due with time is done whether or not there are writes, and whatever the wall clock shows.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use kstone_core::clock::{Clock, ManualClock};
use kstone_core::lsm::{EngineOptions, Event, EventListener, LsmEngine, WriteOptions};
use kstone_core::torture::Watchdog;
use kstone_core::vfs::{StrictVfs, Vfs};
use kstone_core::{CompactionConfig, DatabaseConfig, Error, Key};

use crate::model::manual;

const HOUR: Duration = Duration::from_secs(3600);
const YEAR_MS: i64 = 365 * 86_400_000;

fn db() -> &'static Path {
    Path::new("db")
}

fn key(n: usize) -> Key<'static> {
    Key::from(&format!("key{n:04}")).into_owned()
}

/// A database on a disk that persists while handles and clocks are replaced.
struct Bench {
    disk: StrictVfs,
    clock: Arc<ManualClock>,
}

impl Bench {
    fn new() -> Self {
        Self { disk: StrictVfs::new(), clock: Arc::new(ManualClock::new(1)) }
    }

    fn options(&self) -> EngineOptions {
        let mut options = manual(Arc::new(self.disk.clone()), 1);
        options.clock = Arc::<ManualClock>::clone(&self.clock);
        options
    }

    fn create(&self, config: DatabaseConfig, compaction: CompactionConfig) -> LsmEngine {
        let mut options = self.options();
        (options.config, options.compaction) = (Some(config), Some(compaction));
        LsmEngine::create(db(), options).unwrap()
    }

    fn open(&self) -> LsmEngine {
        LsmEngine::open(db(), self.options()).unwrap()
    }

    /// Every file with its contents.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = self.disk.list(db()).unwrap().into_iter().map(|entry| entry.name).collect();
        files.sort();
        let read = |name: String| {
            let file = self.disk.open(&db().join(&name), kstone_core::vfs::OpenMode::Read).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            let read = file.read_at(&mut bytes, 0).unwrap();
            assert_eq!(read, bytes.len());
            (name, bytes)
        };
        files.into_iter().map(read).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.files().iter().any(|(file, _)| file == name)
    }
}

/// Does all work that is due, in varying order.
fn settle(engine: &LsmEngine) {
    for n in 0..100_000 {
        if !engine.step(n) {
            return;
        }
    }
    panic!("it never rests");
}

fn tombstones(engine: &LsmEngine) -> u64 {
    engine.stats().unwrap().stripes.iter().map(|stripe| stripe.tombstones).sum()
}

fn entries(engine: &LsmEngine) -> u64 {
    let stats = engine.stats().unwrap().stripes;
    stats.iter().map(|stripe| stripe.entries + stripe.memtable_records as u64).sum()
}

fn runs(engine: &LsmEngine) -> usize {
    engine.stats().unwrap().stripes.iter().map(|stripe| stripe.runs).sum()
}

fn put(engine: &LsmEngine, keys: std::ops::Range<usize>) {
    for n in keys {
        engine.put(&key(n), &[n as u8; 50], WriteOptions::new()).unwrap();
    }
}

fn delete(engine: &LsmEngine, keys: std::ops::Range<usize>) {
    for n in keys {
        engine.delete(&key(n), WriteOptions::new()).unwrap();
    }
}

fn one() -> DatabaseConfig {
    DatabaseConfig::new().with_stripes(1)
}

/// Settings under which only the work under test becomes due.
fn calm() -> CompactionConfig {
    CompactionConfig::new()
        .with_tombstone_age(Duration::MAX)
        .with_tombstone_percent(100)
        .with_garbage_percent(10_000)
        .with_sst_threshold(100)
        .with_idle_compaction(false)
}

/// A kind of work that becomes due with time or by changed settings.
struct Kind {
    name: &'static str,
    before: (DatabaseConfig, CompactionConfig),
    fill: fn(&LsmEngine),
    /// The settings passed to the second open, if different.
    after: Option<(DatabaseConfig, CompactionConfig)>,
    /// Due exactly this many seconds after the open, not earlier.
    after_secs: u64,
    done: fn(&LsmEngine, &Bench) -> bool,
}

fn kinds() -> Vec<Kind> {
    let flushed_deletes = |engine: &LsmEngine| {
        put(engine, 0..100);
        engine.flush().unwrap();
        delete(engine, 0..10);
        engine.flush().unwrap();
    };
    let three_runs = |engine: &LsmEngine| {
        for round in 0..4 {
            put(engine, round * 10..round * 10 + 10);
            engine.flush().unwrap();
        }
    };
    let garbage = |engine: &LsmEngine| {
        for _ in 0..3 {
            put(engine, 0..100);
            engine.flush().unwrap();
        }
    };
    let aged = || calm().with_tombstone_age(HOUR);
    vec![
        Kind {
            name: "old tombstones in SSTs",
            before: (one(), aged()),
            fill: flushed_deletes,
            after: None,
            after_secs: 3600,
            done: |engine, _| tombstones(engine) == 0 && entries(engine) == 90,
        },
        Kind {
            name: "old tombstones in memory",
            before: (one(), aged()),
            fill: |engine| {
                put(engine, 0..100);
                engine.flush().unwrap();
                delete(engine, 0..10);
            },
            after: None,
            after_secs: 3600,
            done: |engine, _| tombstones(engine) == 0 && entries(engine) == 90,
        },
        Kind {
            name: "a lowered age limit",
            before: (one(), calm()),
            fill: flushed_deletes,
            after: Some((one(), aged())),
            after_secs: 3600,
            done: |engine, _| tombstones(engine) == 0 && entries(engine) == 90,
        },
        Kind {
            name: "a lower share of tombstones",
            before: (one(), calm()),
            fill: flushed_deletes,
            after: Some((one(), calm().with_tombstone_percent(1))),
            after_secs: 0,
            done: |engine, _| tombstones(engine) == 0,
        },
        Kind {
            name: "a lower share of garbage",
            before: (one(), calm()),
            fill: garbage,
            after: Some((one(), calm().with_garbage_percent(50))),
            after_secs: 0,
            done: |engine, _| entries(engine) == 100,
        },
        Kind {
            name: "a lower threshold",
            before: (one(), calm()),
            fill: three_runs,
            after: Some((one(), calm().with_sst_threshold(3))),
            after_secs: 0,
            done: |engine, _| runs(engine) < 3,
        },
        Kind {
            name: "compaction switched on",
            before: (one(), CompactionConfig::disabled()),
            fill: three_runs,
            after: Some((one(), calm().with_sst_threshold(3))),
            after_secs: 0,
            done: |engine, _| runs(engine) < 3,
        },
        Kind {
            name: "garbage that was not merged yet",
            before: (one(), calm().with_garbage_percent(50)),
            fill: garbage,
            after: None,
            after_secs: 0,
            done: |engine, _| entries(engine) == 100,
        },
        Kind {
            name: "smaller memtables",
            before: (one(), calm()),
            fill: |engine| put(engine, 0..100),
            after: Some((one().with_max_memtable_records(20), calm())),
            after_secs: 0,
            done: |engine, _| runs(engine) == 5,
        },
        Kind {
            name: "idle merges",
            before: (one(), calm().with_sst_threshold(8).with_check_interval(500)),
            fill: three_runs,
            after: Some((
                one(),
                calm().with_sst_threshold(8).with_idle_compaction(true).with_check_interval(500),
            )),
            after_secs: 0, // on a single thread, the first check is immediate
            done: |engine, _| runs(engine) == 1,
        },
        Kind {
            name: "STATS.json",
            before: (one().with_stats_snapshot_interval(Duration::from_secs(60)), calm()),
            fill: |engine| put(engine, 0..1),
            after: None,
            after_secs: 0,
            done: |_, bench| bench.has("STATS.json"),
        },
    ]
}

/// Symptom: a database that was closed, opened and then only read kept its tombstones for ever, and did no other work
/// that was due; one put of any key woke it. Cause: background work started with the first write, as until then the
/// manifest says that the database was closed cleanly. Fix: work that is due with time first cancels the clean end, as
/// a write does.
#[test]
fn what_is_due_by_time_is_done_though_nobody_writes() {
    for kind in kinds() {
        let bench = Bench::new();
        let engine = bench.create(kind.before.0, kind.before.1);
        (kind.fill)(&engine);
        engine.close().unwrap();
        drop(engine);
        let mut options = bench.options();
        if let Some((config, compaction)) = kind.after {
            (options.config, options.compaction) = (Some(config), Some(compaction));
        }
        let before = bench.files();
        let given = options.config.is_some();
        let engine = LsmEngine::open(db(), options).unwrap();
        if kind.after_secs > 0 {
            bench.clock.advance(Duration::from_secs(kind.after_secs - 1));
            settle(&engine);
            assert!(!(kind.done)(&engine, &bench), "{}: too early", kind.name);
            assert!(given || bench.files() == before, "{}: written before anything was due", kind.name);
            bench.clock.advance(Duration::from_secs(62));
        }
        assert!(!(kind.done)(&engine, &bench), "{}: before a step", kind.name);
        settle(&engine);
        assert!((kind.done)(&engine, &bench), "{}: {:?}", kind.name, engine.stats().unwrap().stripes);
        assert_eq!(engine.stats().unwrap().background_error, None, "{}", kind.name);
        engine.verify().unwrap();
        // The process dies: changes since the clean end are recovered as after any crash.
        bench.disk.stop_after(Some(0));
        drop(engine);
        bench.disk.stop_after(None);
        let engine = bench.open();
        settle(&engine);
        assert!((kind.done)(&engine, &bench), "{} was undone by a crash", kind.name);
        engine.close().unwrap();
        assert!(!bench.has("STATS.json"), "{}: it is obsolete", kind.name);
    }
}

/// A process that only read may die and leave its counters in the directory; the clean end before it remains valid.
#[test]
fn counters_that_a_reader_left_go_with_the_next_close() {
    let bench = Bench::new();
    let engine = bench.create(one().with_stats_snapshot_interval(Duration::from_secs(60)), calm());
    put(&engine, 0..1);
    engine.close().unwrap();
    let engine = bench.open();
    settle(&engine);
    bench.disk.stop_after(Some(0));
    drop(engine);
    bench.disk.stop_after(None);
    assert!(bench.has("STATS.json"));
    bench.open().close().unwrap();
    assert!(!bench.has("STATS.json"));
}

/// While no work is due, nothing is written, however long the database is read.
#[test]
fn nothing_is_written_while_nothing_is_due() {
    let bench = Bench::new();
    let engine = bench.create(one(), CompactionConfig::new());
    put(&engine, 0..2000);
    delete(&engine, 0..100);
    settle(&engine);
    // Idle stripes are merged soon after the last flush.
    bench.clock.advance(Duration::from_secs(2));
    settle(&engine);
    engine.close().unwrap();
    let before = bench.files();
    for _ in 0..3 {
        let engine = bench.open();
        for _ in 0..50 {
            bench.clock.advance(HOUR);
            settle(&engine);
            assert!(engine.get(&key(1999)).unwrap().is_some());
        }
        engine.close().unwrap();
        assert!(bench.files() == before);
    }
    // Tombstones in memory expire after seven days.
    let engine = bench.open();
    bench.clock.advance(24 * HOUR);
    settle(&engine);
    assert_eq!(tombstones(&engine), 0);
    assert!(bench.files() != before);
}

/// A merge that is due but finds no space is retried, and reads continue.
#[test]
fn what_cannot_be_written_is_tried_again() {
    let bench = Bench::new();
    let engine = bench.create(one(), calm().with_tombstone_age(HOUR));
    put(&engine, 0..100);
    engine.flush().unwrap();
    delete(&engine, 0..10);
    engine.close().unwrap();
    let vfs = kstone_core::vfs::FaultVfs::new(Arc::new(bench.disk.clone()));
    let mut options = bench.options();
    options.vfs = Arc::new(vfs.clone());
    let engine = LsmEngine::open(db(), options).unwrap();
    bench.clock.advance(2 * HOUR);
    use kstone_core::vfs::{Errno, Op, Rule};
    vfs.add(Rule::fail(Errno::NoSpace).on(&[Op::Write]).files("*").from(1));
    for _ in 0..20 {
        engine.step(0);
        assert!(engine.get(&key(50)).unwrap().is_some());
    }
    assert!(engine.stats().unwrap().background_error.is_some());
    vfs.clear();
    bench.clock.advance(Duration::from_secs(120));
    settle(&engine);
    assert_eq!((tombstones(&engine), entries(&engine)), (0, 90));
}

#[derive(Debug)]
struct Tell(std::sync::Mutex<mpsc::Sender<Event>>);

impl EventListener for Tell {
    fn on_event(&self, event: &Event) {
        let _ = self.0.lock().unwrap().send(event.clone());
    }
}

/// The same with the engine's own thread.
#[test]
fn a_thread_does_what_is_due_though_nobody_writes() {
    let _watchdog = Watchdog::start("due::a_thread_does_what_is_due_though_nobody_writes");
    let bench = Bench::new();
    let engine = bench.create(one(), calm().with_tombstone_age(HOUR));
    put(&engine, 0..100);
    engine.flush().unwrap();
    delete(&engine, 0..10);
    engine.flush().unwrap();
    engine.close().unwrap();
    bench.clock.advance(2 * HOUR);
    let (tell, told) = mpsc::channel();
    let mut options = EngineOptions::on(Arc::new(bench.disk.clone()));
    options.clock = Arc::<ManualClock>::clone(&bench.clock);
    options.listener = Some(Arc::new(Tell(std::sync::Mutex::new(tell))));
    let engine = LsmEngine::open(db(), options).unwrap();
    loop {
        // It only takes this long if the test fails.
        let event = told.recv_timeout(Duration::from_secs(120)).unwrap();
        if let Event::Compaction { tombstones_dropped, .. } = event {
            break assert_eq!(tombstones_dropped, 10);
        }
    }
    assert_eq!((tombstones(&engine), entries(&engine)), (0, 90));
    assert!(matches!(engine.get(&key(3)), Ok(None)));
    engine.close().unwrap();
    assert!(matches!(engine.get(&key(3)), Err(Error::Closed)));
}

/// The lives of handles while a delete ages.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    /// A single handle is open all the time.
    One,
    /// The clock is set while no handle is open.
    SetBetween,
    /// Opened and closed at intervals shorter than the age limit.
    OpenedOften,
    /// The same, but dying each time instead of being closed.
    DiesOften,
}

/// Symptom: items deleted while the clock was ten years ahead stayed on disk for ten years. Cause: a timestamp in the
/// future has no age. Fix: a handle that made the delete uses the monotonic clock; to any other handle, a timestamp in
/// the future is older than any limit.
#[test]
fn deletes_leave_the_disk_in_time_whatever_the_clock_shows() {
    let hours = [
        -10 * YEAR_MS,
        -YEAR_MS,
        -30 * 3_600_000,
        -3_600_000,
        -600_000,
        0,
        1,
        600_000,
        3_600_000,
        30 * 3_600_000,
        YEAR_MS,
        10 * YEAR_MS,
    ];
    let zero = 1_700_000_000_000i64;
    let mut cases = 0;
    for life in [Life::One, Life::SetBetween, Life::OpenedOften, Life::DiesOften] {
        for flushed in [true, false] {
            for (written_at, read_at) in hours.iter().flat_map(|&a| hours.iter().map(move |&b| (a, b))) {
                let what = format!("{life:?}, flushed: {flushed}, {written_at} then {read_at}");
                let bench = Bench::new();
                let compaction = calm().with_tombstone_age(HOUR).with_check_interval(10);
                let mut engine = bench.create(one(), compaction);
                put(&engine, 0..30);
                engine.flush().unwrap();
                bench.clock.set_unix_ms((zero + written_at) as u64);
                delete(&engine, 0..10);
                if flushed {
                    engine.flush().unwrap();
                }
                let end = |engine: LsmEngine| {
                    if life == Life::DiesOften {
                        engine.sync().unwrap();
                        bench.disk.stop_after(Some(0));
                        drop(engine);
                        bench.disk.stop_after(None);
                    } else {
                        engine.close().unwrap();
                    }
                };
                if life != Life::One {
                    end(engine);
                    bench.clock.set_unix_ms((zero + read_at) as u64);
                    engine = bench.open();
                } else {
                    settle(&engine);
                    bench.clock.set_unix_ms((zero + read_at) as u64);
                }
                let gone = |engine: &LsmEngine| tombstones(engine) == 0 && entries(engine) == 20;
                settle(&engine);
                if written_at == read_at {
                    assert!(!gone(&engine), "{what}: at once");
                }
                for quarter in 1..=4 {
                    bench.clock.advance(HOUR / 4 + Duration::from_secs(3));
                    settle(&engine);
                    if written_at == read_at && quarter < 4 {
                        assert!(!gone(&engine), "{what}: too early");
                    }
                    if matches!(life, Life::OpenedOften | Life::DiesOften) {
                        end(engine);
                        engine = bench.open();
                        settle(&engine);
                    }
                }
                assert!(gone(&engine), "{what}: {:?}", engine.stats().unwrap().stripes);
                for n in 0..30 {
                    assert_eq!(engine.get(&key(n)).unwrap().is_some(), n >= 10, "{what}: {n}");
                }
                settle(&engine);
                let quiet = bench.files();
                bench.clock.advance(HOUR);
                settle(&engine);
                if life == Life::One {
                    assert!(bench.files().len() == quiet.len(), "{what}: it continues to merge");
                }
                cases += 1;
            }
        }
    }
    println!("{cases} cases of a clock that was set");
    assert_eq!(cases, 4 * 2 * 144);
}

/// A clock that jumps takes nothing from a reader: the versions that a snapshot sees are pinned by sequence number, not
/// by time.
#[test]
fn a_clock_that_jumps_takes_nothing_from_a_snapshot() {
    let bench = Bench::new();
    let compaction = CompactionConfig::new().with_tombstone_age(HOUR).with_check_interval(10);
    let engine = bench.create(one().with_max_memtable_records(7), compaction);
    put(&engine, 0..30);
    let snapshot = engine.snapshot().unwrap();
    let start = bench.clock.unix_ms();
    delete(&engine, 0..30);
    for jump in [10 * YEAR_MS, -10 * YEAR_MS, 3_600_000, -3_600_000, 0] {
        bench.clock.set_unix_ms((start as i64 + jump) as u64);
        bench.clock.advance(2 * HOUR);
        put(&engine, 100..110);
        settle(&engine);
        for n in 0..30 {
            assert!(engine.get_at(&key(n), &snapshot).unwrap().is_some(), "after {jump}");
            assert!(engine.get(&key(n)).unwrap().is_none(), "after {jump}");
        }
    }
    drop(snapshot);
    bench.clock.advance(2 * HOUR);
    settle(&engine);
    assert_eq!(tombstones(&engine), 0);
}
