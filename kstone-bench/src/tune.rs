//! Proves advice on copies of a database: replays its work under today's settings and under the advised ones, in turns,
//! and compares what is measured with what was predicted.
//!
//! look (read-only) -> advice, and the work to replay -> one backup, whose SSTs are hard links -> for each change a copy
//! with that change made, as the advice says -> rounds: for each of them a copy, and a process that replays the work on
//! it -> verdicts. All copies are in one temporary directory, beside the database if possible. The database itself is
//! only read: SSTs are never changed once they are complete, and a backup copies everything else.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use kstone_api::model::Goal;
use kstone_api::{
    BackupOptions, CompactionConfig, Database, DatabaseConfig, DiskUsage, EngineStats, Latencies, Situation,
    StatsSnapshot, read_regular,
};
use tempfile::TempDir;

use crate::chapter::probe::Figures;
use crate::engine::Durability;
use crate::statistics::FEWEST;
use crate::trial;

mod change;
mod figures;
mod keys;
mod replay;
mod verdict;
mod work;

use change::Change;
pub(crate) use replay::Task;
use replay::{Merge, Replay};
use work::Work;

/// More than a file of counters takes with all stripes in use, and what `kstone stats` adds.
const MOST_STATS: u64 = 8 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) database: PathBuf,
    pub(crate) goal: Option<Goal>,
    /// Further changes to measure, each `name=value,...`.
    pub(crate) set: Vec<String>,
    /// Workloads instead of the work observed.
    pub(crate) workload: Vec<String>,
    /// Counters instead of those in the database's directory.
    pub(crate) stats: Option<PathBuf>,
    /// How long all replays take together, in seconds.
    pub(crate) seconds: f64,
    /// Operations of a replay; `None`: as many as fit into its time.
    pub(crate) operations: Option<u64>,
    pub(crate) rounds: usize,
    pub(crate) threads: usize,
    pub(crate) durability: Durability,
    pub(crate) seed: u64,
    /// The directory for the copies, instead of that of the database.
    pub(crate) directory: Option<PathBuf>,
    /// This program.
    pub(crate) program: PathBuf,
    /// Set by a signal.
    pub(crate) interrupted: Arc<AtomicBool>,
}

/// What is known of the database before anything is measured.
struct Look {
    stats: EngineStats,
    disk: DiskUsage,
    database: DatabaseConfig,
    compaction: CompactionConfig,
    latencies: Option<Latencies>,
    work: Option<Work>,
    /// Whether some process has it open.
    open: bool,
}

/// Measures, and returns the text to print. `progress` reports each step.
pub(crate) fn tune(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<String> {
    let db = Database::open_read_only(&options.database)?;
    if let Some(damage) = db.engine().damage().first() {
        bail!("{damage}; nothing was copied or changed. kstone verify shows all damage");
    }
    let look = Look::at(&db, options)?;
    ensure!(options.goal.is_none() || look.work.is_some(), no_record(options));
    let mut situation = Situation::new(&look.stats, &look.disk, &look.database, &look.compaction);
    if let Some(latencies) = &look.latencies {
        situation = situation.latencies(latencies);
    }
    if let Some(goal) = options.goal {
        situation = situation.goal(goal);
    }
    let advice = situation.advise();
    let (mut changes, words) = change::advised(&advice, options.goal);
    for settings in &options.set {
        changes.push(change::given(settings, &look.stats, (&look.database, &look.compaction), options.goal)?);
    }
    let mut text: String = words.iter().map(|line| format!("{line}\n")).collect();
    if changes.is_empty() {
        text +=
            "nothing to measure: no setting or merge is advised for this database, and no --set was given\n";
        return Ok(text);
    }
    let Some(work) = &look.work else { bail!(no_record(options)) };
    let copies = Copies::make(&db, options, progress)?;
    db.close()?;
    let (keys, sampled) = copies.sample(options, progress)?;
    text += &format!(
        "replayed on {}, {}, {}: {}\n",
        counted(sampled as u64, "sampled key"),
        counted(options.threads as u64, "thread"),
        counted(options.rounds as u64, "round"),
        work.text()
    );
    text += &copies.note;
    if look.open {
        text += "another process has the database open: its load disturbs these figures\n";
    }
    for (number, change) in changes.iter_mut().enumerate() {
        options.check()?;
        progress(&format!("preparing {}", change.title()));
        let directory = copies.copy(&copies.base(), &format!("change-{number}"), options)?;
        let (settings, merge) = (change.settings.clone(), change.merge);
        let done = trial::tune(&options.program, &Task::Prepare { directory, settings, merge })?;
        change.merged = done.get("merged")? > 0.0;
    }
    let rounds = rounds(&copies, &keys, work, &changes, options, progress)?;
    for (number, change) in changes.iter().enumerate() {
        let pair = |round: &'_ [Figures]| Some((round.first()?.clone(), round.get(number + 1)?.clone()));
        let turns: Vec<_> = rounds.iter().filter_map(|round| pair(round)).collect();
        text += &change.report(&turns, options, look.open);
    }
    Ok(text)
}

fn no_record(options: &Options) -> String {
    let db = kstone_api::escape::shell_word(&options.database);
    format!(
        "there is no record of the work done on {db}, so none can be replayed; nothing was copied or changed. Set \
         stats_snapshot_interval_ms (kstone config set {db} stats_snapshot_interval_ms=10000): the program that has the \
         database open then writes STATS.json; run this while it does. Or give --stats FILE, a copy of that file or the \
         output of kstone stats --format json, or --workload NAME"
    )
}

impl Look {
    fn at(db: &Database, options: &Options) -> Result<Self> {
        let now = db.stats()?;
        let snapshot = counters(options)?;
        let (stats, latencies, work) = match (snapshot, options.workload.is_empty()) {
            (Some(snapshot), true) => {
                let stats = snapshot.stats_beside(now);
                let work = Work::observed(&stats);
                (stats, Some(snapshot.latencies), work)
            }
            (None, true) => (now, None, None),
            // Then only sizes, which are a fact of the data, are taken from the counters: the rest is of other work.
            (snapshot, false) => {
                let mut stats = now;
                stats.written_sizes =
                    snapshot.map(|snapshot| snapshot.stats.written_sizes).unwrap_or_default();
                let work = Work::named(&options.workload)?.of_sizes(&stats.written_sizes.values);
                work.pretend(&mut stats);
                (stats, None, Some(work))
            }
        };
        Ok(Self {
            stats,
            disk: db.disk_usage()?,
            database: db.config(),
            compaction: db.compaction_config(),
            latencies,
            work,
            open: Database::is_locked(&options.database).unwrap_or(false),
        })
    }
}

/// The counters of the program that has, or had, the database open.
fn counters(options: &Options) -> Result<Option<StatsSnapshot>> {
    let path = options.stats.clone().unwrap_or_else(|| options.database.join(StatsSnapshot::FILE));
    let bytes = match read_regular(&path, MOST_STATS) {
        Err(error) if options.stats.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let unknown = || {
        format!(
            "{} is neither a STATS.json of this version nor the output of kstone stats --format json with runtime \
             counters; nothing was copied or changed",
            path.display()
        )
    };
    let value: serde_json::Value = serde_json::from_slice(&bytes).with_context(unknown)?;
    let inner = value.pointer("/runtime/snapshot").cloned();
    let snapshot: StatsSnapshot = serde_json::from_value(inner.unwrap_or(value)).with_context(unknown)?;
    ensure!(snapshot.schema == StatsSnapshot::SCHEMA, unknown());
    Ok(Some(snapshot))
}

impl Options {
    /// Fails once a signal has arrived.
    fn check(&self) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::SeqCst), "interrupted");
        Ok(())
    }

    /// For progress callbacks: breaks once a signal has arrived.
    fn flow(&self) -> ControlFlow<()> {
        if self.check().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// The temporary directory, with a copy of the database as it was at the start.
struct Copies {
    directory: TempDir,
    /// What the reader must know of where the copies are.
    note: String,
}

impl Copies {
    fn make(db: &Database, options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Self> {
        let (directory, mut note) = place(options)?;
        let copies = Self { directory, note: String::new() };
        progress(&format!("copying to {}", copies.directory.path().display()));
        let report = db.backup_with(copies.base(), BackupOptions::new().progress(&mut |_| options.flow()))?;
        if report.linked < report.ssts {
            note += &format!(
                "{} of {} SSTs were copied, not linked, because {} is on another file system\n",
                report.ssts - report.linked,
                report.ssts,
                copies.directory.path().display()
            );
        }
        Ok(Self { note, ..copies })
    }

    fn base(&self) -> PathBuf {
        self.directory.path().join("base")
    }

    /// Copies a copy, by links again.
    fn copy(&self, of: &Path, name: &str, options: &Options) -> Result<PathBuf> {
        let to = self.directory.path().join(name);
        let db = Database::open_read_only(of)?;
        db.backup_with(&to, BackupOptions::new().progress(&mut |_| options.flow()))?;
        db.close()?;
        Ok(to)
    }

    /// Samples the keys; returns the file that has them, and their number.
    fn sample(&self, options: &Options, progress: &mut dyn FnMut(&str)) -> Result<(PathBuf, usize)> {
        progress("sampling keys");
        let db = Database::open_read_only(self.base())?;
        let sample = keys::draw(&db, options.seed, |_| options.check())?;
        db.close()?;
        ensure!(!sample.is_empty(), "the database is empty, so no work can be replayed on it");
        let path = self.directory.path().join("keys");
        keys::save(&sample, &path)?;
        Ok((path, sample.len()))
    }
}

/// The directory of the copies: as given, beside the database, or where temporary files go.
fn place(options: &Options) -> Result<(TempDir, String)> {
    let make = |directory: &Path| tempfile::Builder::new().prefix("kstone-tune-").tempdir_in(directory);
    if let Some(given) = &options.directory {
        let made = make(given).with_context(|| format!("cannot make a directory in {}", given.display()))?;
        return Ok((made, String::new()));
    }
    let database = options.database.canonicalize()?;
    let beside = database.parent().unwrap_or(&database);
    match make(beside) {
        Ok(made) => Ok((made, String::new())),
        Err(error) => {
            let made = tempfile::Builder::new().prefix("kstone-tune-").tempdir()?;
            Ok((made, format!("{} cannot hold the copies: {error}\n", beside.display())))
        }
    }
}

/// Replays on all variants, today's settings first, then backwards, and so on; a list of figures for each round.
fn rounds(
    copies: &Copies,
    keys: &Path,
    work: &Work,
    changes: &[Change],
    options: &Options,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Vec<Figures>>> {
    let variants = changes.len() + 1;
    let crash = changes.iter().any(Change::needs_a_crash);
    let settle = changes.iter().any(Change::needs_rest);
    let mut all = Vec::new();
    for round in 0..options.rounds {
        let mut figures = vec![Figures::default(); variants];
        let order: Vec<usize> = match round % 2 {
            0 => (0..variants).collect(),
            _ => (0..variants).rev().collect(),
        };
        for variant in order {
            options.check()?;
            let change = variant.checked_sub(1).and_then(|number| changes.get(number));
            let title = change.map_or("today's settings".to_owned(), Change::title);
            progress(&format!("round {} of {}: {title}", round + 1, options.rounds));
            let from = match variant {
                0 => copies.base(),
                _ => copies.directory.path().join(format!("change-{}", variant - 1)),
            };
            let directory = copies.copy(&from, "trial", options)?;
            let replay = Replay {
                directory: directory.clone(),
                keys: keys.to_owned(),
                work: work.clone(),
                threads: options.threads,
                durability: options.durability,
                operations: options.operations,
                seconds: options.seconds / (options.rounds * variants) as f64,
                seed: options.seed.wrapping_add(round as u64),
                crash,
                settle,
            };
            let mut found = trial::tune(&options.program, &Task::Replay(Box::new(replay)))?;
            if crash {
                let again = trial::tune(&options.program, &Task::Recover { directory: directory.clone() })?;
                found = verdict::joined([found, again]);
            }
            std::fs::remove_dir_all(&directory)?;
            if let Some(place) = figures.get_mut(variant) {
                *place = found;
            }
        }
        all.push(figures);
    }
    Ok(all)
}

/// What to say of too few rounds.
fn too_few(rounds: u64) -> String {
    let rounds = counted(rounds, "round");
    format!(
        "{rounds} cannot show that the difference is real: nothing to apply; --rounds {FEWEST} or more can"
    )
}

/// `1 round`, `2 rounds`.
fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
