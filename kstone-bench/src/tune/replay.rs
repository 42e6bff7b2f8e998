//! What the processes of `tune` do with a working copy: change its settings, replay the work on it, or open it after a
//! kill. Each reports figures by the names that advice gives them, see [`name`].

#![expect(clippy::disallowed_methods, reason = "it measures how long operations take")]

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use kstone_api::{Database, EngineStats, Key, SortRange, WriteOptions};
use kstone_core::config::text;
use kstone_core::types::Direction;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::figures::{self, Seen};
use super::keys::{self, Sampled, fresh};
use super::work::{Deed, Work};
use crate::chapter::probe::Figures;
use crate::data::splitmix;
use crate::engine::Durability;
use crate::workload::keys::Chooser;

/// Gets of absent keys after the work, from which filters and runs are judged. One more look at the keys of the work
/// would not do: a work with few such gets says nothing about filters.
const PROBES: usize = 20_000;
/// The most items that the scan after the work reads.
const SCANNED: u64 = 50_000;
/// The longest value that is written, whatever the counters say.
const LONGEST: usize = 16 << 20;

/// The work of a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Changes the settings of a copy and merges it, as the advice says.
    Prepare {
        directory: PathBuf,
        settings: String,
        merge: Merge,
    },
    Replay(Box<Replay>),
    /// Opens a copy whose last process was killed.
    Recover {
        directory: PathBuf,
    },
}

/// Whether everything is merged after a change of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Merge {
    No,
    Yes,
    /// If the SSTs were not written with the new settings.
    IfPending,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Replay {
    pub(super) directory: PathBuf,
    /// The file of sampled keys.
    pub(super) keys: PathBuf,
    pub(super) work: Work,
    pub(super) threads: usize,
    pub(super) durability: Durability,
    /// Operations of all threads together.
    pub(super) operations: Option<u64>,
    /// Seconds after which it ends in any case.
    pub(super) seconds: f64,
    pub(super) seed: u64,
    /// Whether the process dies afterwards, with the database open.
    pub(super) crash: bool,
    /// Whether the flushes and merges that the work causes are waited for, and counted.
    pub(super) settle: bool,
}

impl Task {
    pub(crate) fn run(&self) -> Result<Figures> {
        match self {
            Self::Prepare { directory, settings, merge } => prepare(directory, settings, *merge),
            Self::Replay(replay) => replay.run(),
            Self::Recover { directory } => recover(directory),
        }
    }

    pub(crate) fn crashes(&self) -> bool {
        matches!(self, Self::Replay(replay) if replay.crash)
    }
}

/// Whether it merged is the figure `merged`.
fn prepare(directory: &Path, settings: &str, merge: Merge) -> Result<Figures> {
    let db = Database::open(directory)?;
    let pending = |db: &Database| -> Result<u64> {
        Ok(db.pending_rewrites()?.iter().map(|pending| pending.ssts).sum())
    };
    let before = pending(&db)?;
    let old = (db.config(), db.compaction_config());
    let new = text::changed(settings, &old.0, &old.1)?;
    if new.0 != old.0 {
        db.set_config(new.0)?;
    }
    if new.1 != old.1 {
        db.set_compaction_config(new.1)?;
    }
    let merges = match merge {
        Merge::No => false,
        Merge::Yes => true,
        Merge::IfPending => pending(&db)? > before,
    };
    if merges {
        db.flush()?;
        db.compact_all()?;
    }
    db.close()?;
    let mut figures = Figures::default();
    figures.set("merged", f64::from(u8::from(merges)));
    Ok(figures)
}

fn recover(directory: &Path) -> Result<Figures> {
    let db = Database::open(directory)?;
    let nanos = db.stats()?.recovery.open_nanos as f64;
    db.close()?;
    Ok(figures::recovery(nanos))
}

/// What a thread saw.
struct Tally {
    operations: u64,
    gets: Histogram<u64>,
    puts: Histogram<u64>,
}

impl Tally {
    fn new() -> Result<Self> {
        let histogram = || Histogram::new(3).context("a histogram");
        Ok(Self { operations: 0, gets: histogram()?, puts: histogram()? })
    }
}

impl Replay {
    fn run(&self) -> Result<Figures> {
        let durability = match self.durability {
            Durability::Buffered => kstone_api::Durability::Buffered,
            Durability::Sync => kstone_api::Durability::Sync,
        };
        let sample = keys::load(&self.keys)?;
        ensure!(!sample.is_empty(), "there are no keys to work on");
        let db = Database::builder(&self.directory).durability(durability).open()?;
        let begin = state(&db)?;
        let (tally, seconds) = self.work(&db, &sample)?;
        let worked = state(&db)?;
        let mut random = StdRng::seed_from_u64(splitmix(self.seed ^ 1));
        for _ in 0..PROBES {
            let model = sample.get(random.random_range(0..sample.len())).context("no key")?;
            db.engine().get(&fresh(&model.key, &mut random))?;
        }
        let probed = state(&db)?;
        scan(&db)?;
        let scanned = state(&db)?;
        let seen = Seen { begin, worked, probed, scanned, limit: db.config().wal_limit_bytes() };
        let mut figures = figures::of(&seen);
        figures::memory(&seen, db.estimate_bloom_memory()? + db.estimate_index_memory()?, &mut figures);
        let rate = tally.operations as f64 / seconds.max(1e-9);
        figures.set(figures::RATE, rate);
        for (latencies, of) in [(&tally.gets, figures::GET), (&tally.puts, figures::PUT)] {
            if !latencies.is_empty() {
                figures.set(of.mean, latencies.mean() / 1e3);
                figures.set(of.p99, latencies.value_at_quantile(0.99) as f64 / 1e3);
            }
        }
        if self.crash {
            // The caller ends this process; whatever closes the database would spoil the recovery.
            std::mem::forget(db);
            return Ok(figures);
        }
        if self.settle {
            figures::rewritten(&seen.begin, &settled(&db)?, &mut figures);
        }
        db.close()?;
        Ok(figures)
    }

    fn work(&self, db: &Database, sample: &[Sampled]) -> Result<(Tally, f64)> {
        let start = Instant::now();
        let deadline = start + Duration::from_secs_f64(self.seconds);
        let threads = self.threads.clamp(1, sample.len());
        let tallies = std::thread::scope(|scope| {
            let work = |thread: usize| {
                // Each thread has keys of its own, so none of them misses what another has deleted.
                let mine = sample.iter().skip(thread).step_by(threads).cloned().collect();
                scope.spawn(move || Worker::new(self, db, mine, thread, threads)?.work(deadline))
            };
            let workers: Vec<_> = (0..threads).map(work).collect();
            workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
        });
        let seconds = start.elapsed().as_secs_f64();
        let mut all = Tally::new()?;
        for tally in tallies {
            let tally = tally.map_err(|_| anyhow!("a thread panicked"))??;
            all.operations += tally.operations;
            all.gets.add(&tally.gets)?;
            all.puts.add(&tally.puts)?;
        }
        Ok((all, seconds))
    }
}

/// One thread of the work.
struct Worker<'a> {
    replay: &'a Replay,
    db: &'a Database,
    keys: Vec<Sampled>,
    random: StdRng,
    chooser: Chooser,
    /// The most keys to remember: inserted ones are added.
    most: usize,
    operations: u64,
    /// Random bytes. Values begin with pieces of it, and the other half of each is constant, so that they compress.
    bytes: Vec<u8>,
    /// The longest value.
    longest: usize,
}

impl<'a> Worker<'a> {
    fn new(
        replay: &'a Replay,
        db: &'a Database,
        keys: Vec<Sampled>,
        thread: usize,
        threads: usize,
    ) -> Result<Self> {
        let seed = splitmix(replay.seed ^ ((thread as u64) << 32));
        let (all, threads, nth) = (replay.operations.unwrap_or(u64::MAX), threads as u64, thread as u64);
        let chooser = Chooser::new(replay.work.keys, keys.len() as u64, replay.seed, 0, 1)?;
        Ok(Self {
            operations: all / threads + u64::from(nth < all % threads),
            random: StdRng::seed_from_u64(seed),
            bytes: crate::noise(seed, 1 << 16),
            longest: LONGEST.min(db.config().max_item_bytes),
            most: keys.len().saturating_mul(2),
            replay,
            db,
            keys,
            chooser,
        })
    }

    fn work(mut self, deadline: Instant) -> Result<Tally> {
        let (mut tally, draw) = (Tally::new()?, self.replay.work.chooser()?);
        let mut value = Vec::new();
        for _ in 0..self.operations {
            if Instant::now() >= deadline {
                break;
            }
            let deed = draw(&mut self.random);
            let at = self.chooser.next(&mut self.random, self.keys.len().max(1) as u64).unwrap_or(0) as usize;
            let at = at % self.keys.len().max(1);
            // Without a key left, as after many deletes, what needs one becomes an insert.
            let (deed, key) = match self.keys.get(at) {
                Some(model) if matches!(deed, Deed::Insert | Deed::Miss) => {
                    (deed, fresh(&model.key, &mut self.random))
                }
                Some(model) => (deed, model.key.clone()),
                None => (Deed::Insert, fresh(&Key::new("kstone-bench"), &mut self.random)),
            };
            if matches!(deed, Deed::Insert | Deed::Overwrite) {
                self.fill(at, &mut value);
            }
            let begun = Instant::now();
            self.ask(deed, &key, &value)?;
            let nanos = begun.elapsed().as_nanos() as u64;
            match deed {
                Deed::Hit | Deed::Miss => tally.gets.record(nanos.max(1))?,
                Deed::Insert | Deed::Overwrite => tally.puts.record(nanos.max(1))?,
                Deed::Delete | Deed::Query => {}
            }
            tally.operations += 1;
            match deed {
                Deed::Delete => drop(self.keys.swap_remove(at)),
                Deed::Insert if self.keys.len() < self.most => {
                    self.keys.push(Sampled { key, value_bytes: value.len() as u32 });
                }
                _ => {}
            }
        }
        Ok(tally)
    }

    fn ask(&mut self, deed: Deed, key: &Key<'static>, value: &[u8]) -> Result<()> {
        let engine = self.db.engine();
        match deed {
            Deed::Insert | Deed::Overwrite => drop(engine.put(key, value, WriteOptions::new())?),
            Deed::Delete => drop(engine.delete(key, WriteOptions::new())?),
            Deed::Hit => {
                let found = engine.get(key)?;
                if found.is_none() {
                    bail!(
                        "a get did not find {key:?}, which is in the working copy: that is a bug of the engine or \
                         damage; run kstone verify on the database"
                    );
                }
            }
            Deed::Miss => drop(engine.get(key)?),
            Deed::Query => {
                let from = key
                    .sort()
                    .map(|sort| SortRange::Between(Bound::Included(sort.to_vec()), Bound::Unbounded));
                let range = from.unwrap_or(SortRange::All);
                let mut entries = engine.query(key.partition(), &range, Direction::Forward, None)?;
                for _ in 0..self.replay.work.query_items {
                    if entries.next_entry()?.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// A value of a size that is usual: drawn from the sizes written, or that of an item that is there.
    fn fill(&mut self, at: usize, value: &mut Vec<u8>) {
        let size = match &self.replay.work.sizes {
            Some(sizes) => sizes.draw(&mut self.random),
            None => self.keys.get(at).map_or(100, |model| model.value_bytes as usize),
        };
        let size = size.min(self.longest);
        let (half, start) = (size.div_ceil(2), self.random.random_range(0..self.bytes.len() / 2));
        value.clear();
        while value.len() < half {
            let piece = self.bytes.get(start..).unwrap_or_default();
            value.extend_from_slice(piece.get(..half - value.len()).unwrap_or(piece));
        }
        value.resize(size, b'v');
    }
}

fn state(db: &Database) -> Result<EngineStats> {
    Ok(db.stats()?)
}

/// Reads some of what is there, as a scan does.
fn scan(db: &Database) -> Result<()> {
    let engine = db.engine();
    let mut left = SCANNED;
    for stripe in 0..engine.stripe_count() {
        let mut entries = engine.scan_stripe(stripe, None)?;
        while left > 0 && entries.next_entry()?.is_some() {
            left -= 1;
        }
    }
    Ok(())
}

/// The state once everything is flushed and no background work is left.
fn settled(db: &Database) -> Result<EngineStats> {
    let engine = db.engine();
    engine.flush()?;
    crate::engine::at_rest(|| {
        let stats = engine.stats()?;
        if let Some(error) = &stats.background_error {
            bail!("background work fails: {error}");
        }
        Ok(engine.is_settled()?.then_some(stats.flushes + stats.compactions + stats.checkpoints))
    })?;
    state(db)
}
