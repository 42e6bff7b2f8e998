//! Mixed load while every live setting changes at random: nothing may be lost, fail or stand still.
//!
//! Each writer owns a share of the keys and counts their versions, so that a reader can tell what it must find: at
//! least what was acknowledged before it asked, at most what was begun before it looked at the answer.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests, which measure how long calls take"
)]

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kstone_api::{
    CompactionConfig, Compression, Database, DatabaseConfig, Error, Item, ItemBuilder, MemtableMode,
    ReadMode, WriteBatch, WriteOptions,
};
use kstone_bench::key;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

#[test]
fn nothing_is_lost_while_settings_change() {
    let storm = Storm { keys: 4000, until: After::Writes(40_000), change: After::Writes(200) };
    let outcome = storm.run();
    println!("{outcome}");
    assert!(outcome.writes > 40_000 && outcome.changes + outcome.refused >= 199, "{outcome}");
    assert!(outcome.refused < outcome.changes / 4, "{outcome}");
}

#[test]
#[ignore = "takes ten minutes, and no call may take longer than a second: for a release build on an idle machine"]
fn no_call_takes_a_second_in_ten_minutes() {
    let (until, change) = (After::Time(Duration::from_secs(600)), After::Time(Duration::from_secs(1)));
    let outcome = Storm { keys: 1_000_000, until, change }.run();
    println!("{outcome}");
    assert!(outcome.longest <= Duration::from_secs(1), "{outcome}");
}

/// Of all random choices.
const SEED: u64 = 1;
/// Threads that write, and as many that read.
const THREADS: u64 = 2;

struct Storm {
    /// Different keys.
    keys: u64,
    /// When it ends.
    until: After,
    /// When a setting changes.
    change: After,
}

/// A time, or a number of writes: of each writer where a storm ends, of the first one where a setting changes.
#[derive(Clone, Copy)]
enum After {
    Writes(u64),
    Time(Duration),
}

impl After {
    fn is_over(self, writes: u64, since: Instant) -> bool {
        match self {
            Self::Writes(most) => writes >= most,
            Self::Time(time) => since.elapsed() >= time,
        }
    }
}

/// What a storm did and found. It returns errors for what must not happen.
#[derive(Debug, Default)]
struct Outcome {
    /// Each of a batch as one.
    writes: u64,
    /// Gets, each checked.
    reads: u64,
    changes: u64,
    /// Changes that contradicted other settings.
    refused: u64,
    /// The longest of all calls.
    longest: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writes, reads, changes, refused, longest } = self;
        write!(f, "{writes} writes, {reads} gets, {changes} settings changed, {refused} refused, ")?;
        write!(f, "longest call {longest:.1?}")
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The versions of one key: even ones are items, odd ones deletes; 0 is never written.
#[derive(Debug, Default)]
struct Versions {
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

struct Shared<'a> {
    storm: &'a Storm,
    db: &'a Database,
    versions: Vec<Versions>,
    stop: AtomicBool,
    start: Instant,
}

impl Storm {
    /// Runs it, then closes the database and compares what it holds after opening it again.
    fn run(&self) -> Outcome {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let db = Database::create(&path).unwrap();
        let shared = Shared {
            storm: self,
            db: &db,
            versions: (0..self.keys).map(|_| Versions::default()).collect(),
            stop: AtomicBool::new(false),
            start: Instant::now(),
        };
        let mut outcome = std::thread::scope(|scope| {
            let shared = &shared;
            let writer = |t| scope.spawn(move || shared.unless_failed(shared.write(t)));
            let reader = |t| scope.spawn(move || shared.unless_failed(shared.read(t)));
            let writers: Vec<_> = (0..THREADS).map(writer).collect();
            let readers: Vec<_> = (0..THREADS).map(reader).collect();
            let written: Vec<_> = writers.into_iter().map(|thread| thread.join()).collect();
            shared.stop.store(true, Ordering::Relaxed);
            let read: Vec<_> = readers.into_iter().map(|thread| thread.join()).collect();
            let mut all = Outcome::default();
            for part in written.into_iter().chain(read) {
                let part = part.unwrap().unwrap();
                all.writes += part.writes;
                all.reads += part.reads;
                all.changes += part.changes;
                all.refused += part.refused;
                all.longest = all.longest.max(part.longest);
            }
            all
        });
        outcome.reads += shared.check_all(&db).unwrap();
        let versions = shared.versions;
        db.close().unwrap();
        let db = Database::open(&path).unwrap();
        let reopened =
            Shared { storm: self, db: &db, versions, stop: AtomicBool::new(true), start: Instant::now() };
        outcome.reads += reopened.check_all(&db).unwrap();
        outcome
    }
}

impl Shared<'_> {
    /// A failure in one thread ends them all.
    fn unless_failed(&self, result: Result<Outcome, Failure>) -> Result<Outcome, Failure> {
        result.inspect_err(|_| self.stop.store(true, Ordering::Relaxed))
    }

    fn ended(&self, writes: u64) -> bool {
        self.stop.load(Ordering::Relaxed) || self.storm.until.is_over(writes, self.start)
    }

    fn write(&self, thread: u64) -> Result<Outcome, Failure> {
        let mut rng = SmallRng::seed_from_u64(SEED ^ (thread << 32));
        let mut outcome = Outcome::default();
        let mut changed = (0, self.start);
        while !self.ended(outcome.writes) {
            let due = self.storm.change.is_over(outcome.writes - changed.0, changed.1);
            if thread == 0 && due {
                changed = (outcome.writes, Instant::now());
                match change_a_setting(self.db, &mut rng) {
                    Ok(()) => outcome.changes += 1,
                    Err(Error::InvalidConfig { .. }) => outcome.refused += 1,
                    Err(other) => return Err(other.into()),
                }
                outcome.longest = outcome.longest.max(changed.1.elapsed());
            }
            let start = Instant::now();
            self.write_once(thread, &mut rng)?;
            outcome.longest = outcome.longest.max(start.elapsed());
            outcome.writes += 1;
        }
        Ok(outcome)
    }

    fn write_once(&self, thread: u64, rng: &mut SmallRng) -> Result<(), Failure> {
        let count = if rng.random_ratio(1, 10) { rng.random_range(2..20) } else { 1 };
        let mut batch = WriteBatch::new();
        let mut written: Vec<(u64, u64)> = Vec::new();
        for _ in 0..count {
            let own = rng.random_range(0..self.storm.keys / THREADS);
            let n = own * THREADS + thread;
            if written.iter().any(|(other, _)| *other == n) {
                continue;
            }
            let delete = rng.random_ratio(1, 10);
            let begun = &self.versions[n as usize].begun;
            // The next even or odd number.
            let version = (begun.load(Ordering::Relaxed) / 2 + 1) * 2 + u64::from(delete);
            begun.store(version, Ordering::SeqCst);
            if delete {
                batch.delete(key(n))?;
            } else {
                batch.put(key(n), item(n, version))?;
            }
            written.push((n, version));
        }
        let options = if rng.random_ratio(1, 500) { WriteOptions::sync() } else { WriteOptions::new() };
        self.db.write_with(batch, options)?;
        for (n, version) in written {
            self.versions[n as usize].acknowledged.store(version, Ordering::SeqCst);
        }
        Ok(())
    }

    fn read(&self, thread: u64) -> Result<Outcome, Failure> {
        let mut rng = SmallRng::seed_from_u64(SEED ^ (thread << 32) ^ 1);
        let mut outcome = Outcome::default();
        while !self.stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            self.check(self.db, rng.random_range(0..self.storm.keys))?;
            outcome.longest = outcome.longest.max(start.elapsed());
            outcome.reads += 1;
        }
        Ok(outcome)
    }

    fn check(&self, db: &Database, n: u64) -> Result<(), Failure> {
        let versions = &self.versions[n as usize];
        let least = versions.acknowledged.load(Ordering::SeqCst);
        let found = db.get(key(n))?;
        let most = versions.begun.load(Ordering::SeqCst);
        let fine = match &found {
            Some(found) => {
                let version = found.get("version").and_then(|v| v.as_number()?.try_into().ok()).unwrap_or(0);
                (least..=most).contains(&version) && *found == item(n, version)
            }
            // Never written, deleted, or overtaken by what may be a delete.
            None => least == 0 || least % 2 == 1 || most > least,
        };
        if fine {
            return Ok(());
        }
        Err(format!("key {n}: expected version {least} to {most}, found {found:?}").into())
    }

    fn check_all(&self, db: &Database) -> Result<u64, Failure> {
        (0..self.storm.keys).try_for_each(|n| self.check(db, n))?;
        Ok(self.storm.keys)
    }
}

fn item(n: u64, version: u64) -> Item {
    let len = (n.wrapping_mul(31).wrapping_add(version) % 300) as usize;
    ItemBuilder::new().number("version", version).string("payload", format!("{version:0len$}")).build()
}

/// Sets one setting of the running database to another valid value; may be refused when it contradicts another.
fn change_a_setting(db: &Database, rng: &mut SmallRng) -> kstone_api::Result<()> {
    if rng.random_ratio(1, 3) {
        return db.set_compaction_config(changed_compaction(db.compaction_config(), rng));
    }
    db.set_config(changed_config(db.config(), rng))
}

fn changed_config(config: DatabaseConfig, rng: &mut SmallRng) -> DatabaseConfig {
    const MIB: u64 = 1 << 20;
    let ms = |rng: &mut SmallRng, to: u64| Duration::from_millis(rng.random_range(5..to));
    match rng.random_range(0..21) {
        0 => config.with_max_memtable_records(rng.random_range(50..10_000)),
        1 => config.with_max_memtable_size_bytes(rng.random_range(10_000..4_000_000)),
        2 => config.with_max_wal_size_bytes(rng.random_range(40 * MIB..200 * MIB)),
        3 => config.with_max_total_disk_bytes(rng.random_range(8 << 30..64 << 30)),
        4 => config.with_write_buffer_size(rng.random_range(64..1 << 16)),
        5 => config.with_bloom_bits_per_key(rng.random_range(1..24)),
        6 => config.with_memory_budget(rng.random_range(2..64) << 20),
        7 => config.with_memtable_mode(pick(rng, &[MemtableMode::Fixed, MemtableMode::Adaptive])),
        8 => config.with_recovery_target(ms(rng, 5000)),
        9 => config.with_sync_interval(ms(rng, 2000)),
        10 => config.with_checkpoint_interval(ms(rng, 5000)),
        11 => config.with_block_size(rng.random_range(256..16_384)),
        12 => {
            config.with_compression(pick(rng, &[Compression::Never, Compression::Older, Compression::Always]))
        }
        13 => config.with_read_mode(pick(rng, &[ReadMode::Mmap, ReadMode::Pread])),
        14 => config.with_block_cache_bytes(rng.random_range(1..32) << 20),
        15 => config.with_wal_segment_size(rng.random_range(MIB / 4..4 * MIB)),
        16 => config.with_target_sst_size(rng.random_range(MIB / 8..32 * MIB)),
        17 => config.with_write_stall_limit(Duration::from_millis(rng.random_range(5_000..20_000))),
        18 => config.with_stats_snapshot_interval(ms(rng, 3000)),
        19 => config.with_latency_sampling(rng.random_range(0..100)),
        _ => DatabaseConfig::new(),
    }
}

fn changed_compaction(config: CompactionConfig, rng: &mut SmallRng) -> CompactionConfig {
    match rng.random_range(0..9) {
        0 => config.with_sst_threshold(rng.random_range(2..20)),
        1 => config.with_check_interval(rng.random_range(1..60)),
        2 => config.with_max_concurrent(rng.random_range(1..9)),
        3 => config.with_tombstone_age(Duration::from_millis(rng.random_range(10..10_000))),
        4 => config.with_tombstone_percent(rng.random_range(5..101)),
        5 => config.with_garbage_percent(rng.random_range(20..500)),
        6 => config.with_idle_compaction(rng.random()),
        7 => config.with_dephasing(rng.random()),
        // Off for long, the runs would pile up; on again with everything else as it was before.
        _ if rng.random_ratio(1, 3) => CompactionConfig::disabled(),
        _ => CompactionConfig::new(),
    }
}

fn pick<T: Copy>(rng: &mut SmallRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}
