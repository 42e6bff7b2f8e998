//! One database under a workload.
//!
//! An operation has two halves: [`World::perform`] executes it, with the history as it was before and, for a write, one
//! commit in doubt; [`World::settle`] then records its outcome in the history. A crash during the operation is judged
//! by the history as it is between the two.

use std::path::Path;
use std::sync::Arc;

use super::commit::Attempt;
use super::{
    Change, Fingerprint, History, Least, Mismatch, Operation, Rng, SettingsOf, State, Totals, Way,
    any_settings, check_all, check_gets, check_query, contents,
};
use crate::clock::ManualClock;
use crate::error::{Error, Result};
use crate::lsm::{EngineOptions, LsmEngine, Snapshot, WriteOptions};
use crate::vfs::{StrictVfs, Vfs};

/// Path of a workload's database, on the file system of its [`Harness`].
pub const DATABASE: &str = "db";
/// Maximum number of snapshots held at a time.
const SNAPSHOTS: usize = 4;

/// The file system under a database.
#[derive(Clone, Debug)]
pub struct Harness {
    /// The file system that finally holds the bytes.
    pub strict: StrictVfs,
    /// The file system passed to the engine: `strict`, or one wrapped around it.
    pub vfs: Arc<dyn Vfs>,
}

impl Harness {
    /// An empty file system.
    pub fn new() -> Self {
        Self::on(StrictVfs::new())
    }

    /// A harness directly on `strict`.
    pub fn on(strict: StrictVfs) -> Self {
        Self { vfs: Arc::new(strict.clone()), strict }
    }

    /// A harness on `strict`, accessed through `vfs`.
    pub fn behind(strict: StrictVfs, vfs: Arc<dyn Vfs>) -> Self {
        Self { strict, vfs }
    }

    /// Kills the process that holds the database: nothing more changes, and the lock is released.
    pub fn die(&self, engine: LsmEngine) {
        self.strict.stop_after(Some(0));
        drop(engine);
        self.strict.stop_after(None);
    }

    /// The options with which workloads open a database: all work on one thread, with the given clock.
    pub fn options(&self, clock: Arc<ManualClock>) -> EngineOptions {
        EngineOptions::reproducible(Arc::clone(&self.vfs), clock)
    }
}

impl Default for Harness {
    fn default() -> Self {
        Self::new()
    }
}

/// Which errors of operations do not count as mismatches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tolerance {
    /// Refusals: because of a limit on disk space, or of sizes beyond limits.
    #[default]
    Limits,
    /// All errors: the file system fails on purpose. Acknowledged writes must still be there.
    Faults,
}

/// The outcome of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the history must record it"]
pub enum Outcome {
    /// Nothing that the history has to record.
    Nothing,
    /// The commit was acknowledged.
    Acknowledged {
        /// Whether it is durable, and with it all commits before it.
        durable: bool,
    },
    /// The commit was refused.
    Refused,
    /// The commit failed: it may be there or not.
    InDoubt,
    /// All acknowledged commits are durable.
    Durable,
    /// The database was opened, with these contents.
    Reopened(State),
}

/// See the module.
#[derive(Debug)]
pub struct World {
    bed: Harness,
    engine: Option<LsmEngine>,
    history: History,
    snapshots: Vec<(Snapshot, State)>,
    clock: Arc<ManualClock>,
    rng: Rng,
    settings: SettingsOf,
    tolerance: Tolerance,
    /// A write or a sync failed, and may have poisoned the engine.
    failed: bool,
    /// There has been a limit on disk space since the last open.
    limited: bool,
    newest_segment: u64,
    answers: Fingerprint,
    /// Once within a limit, always within it: for the files on disk, and for the log.
    within: (bool, bool),
    totals: Totals,
}

impl World {
    /// A world without a database yet.
    pub fn new(bed: Harness, seed: u64, settings: SettingsOf, tolerance: Tolerance) -> Self {
        Self {
            bed,
            engine: None,
            history: History::default(),
            snapshots: Vec::new(),
            clock: Arc::new(ManualClock::new(seed)),
            rng: Rng(seed ^ 0x0077_6f72_6c64),
            settings,
            tolerance,
            failed: false,
            limited: false,
            newest_segment: 0,
            answers: Fingerprint::default(),
            within: (false, false),
            totals: Totals { workloads: 1, ..Totals::default() },
        }
    }

    /// A world with an open database that has these contents, all of them durable.
    pub fn resume(bed: Harness, engine: LsmEngine, state: State, seed: u64) -> Self {
        let mut world = Self::new(bed, seed, SettingsOf::Random, Tolerance::Limits);
        world.limited = engine.config().max_total_disk_bytes.is_some();
        world.engine = Some(engine);
        world.history.restart(state);
        world
    }

    /// The settled history, with the running commit in doubt.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The engine, unless it could not be opened.
    pub fn engine(&self) -> Option<&LsmEngine> {
        self.engine.as_ref()
    }

    /// The file system under the engine.
    pub fn bed(&self) -> &Harness {
        &self.bed
    }

    /// Counts so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// A fingerprint of all answers so far: equal for the same operations with other settings.
    pub fn answers(&self) -> Fingerprint {
        self.answers
    }

    /// Creates the database. [`World::created`] settles it.
    ///
    /// # Errors
    /// The error of the engine, unless faults are tolerated: then there is no engine, and operations do nothing until
    /// one of them opens or creates it.
    pub fn create(&mut self) -> Result<(), Mismatch> {
        let (config, compaction) = self.settings.first(&mut self.rng);
        self.limited = config.max_total_disk_bytes.is_some();
        let mut options = self.bed.options(Arc::clone(&self.clock));
        (options.config, options.compaction) = (Some(config), Some(compaction));
        match LsmEngine::open_or_create(Path::new(DATABASE), options) {
            Ok(engine) => self.engine = Some(engine),
            Err(_) if self.tolerance == Tolerance::Faults => self.totals.failed += 1,
            Err(error) => return Err(Mismatch::error("create", &error)),
        }
        Ok(())
    }

    /// Records the end of the creation.
    pub fn created(&mut self) {
        if self.engine.is_some() {
            self.history.created();
        }
    }

    /// Performs one operation, and returns the outcome for the history.
    ///
    /// # Errors
    /// Wrong data was read, or an error is not tolerated.
    pub fn perform(&mut self, operation: &Operation) -> Result<Outcome, Mismatch> {
        self.totals.operations += 1;
        if let Operation::Reopen { clean, settings } = operation {
            return self.reopen(*clean, *settings);
        }
        let Some(engine) = &self.engine else { return self.reopen(true, None) };
        match operation {
            Operation::Write { change, sync, way } => return self.write(change, *sync, *way),
            Operation::Get { .. } | Operation::Query { .. } | Operation::Check => {
                return self.read(operation);
            }
            Operation::Step { choice } => {
                engine.step(*choice);
            }
            Operation::Advance { by } => self.clock.advance(*by),
            Operation::SetClock { unix_ms } => self.clock.set_unix_ms(*unix_ms),
            Operation::Sync => {
                let done = engine.sync();
                return self.durable_if("sync", done);
            }
            Operation::Flush => {
                let done = engine.flush();
                return self.durable_if("flush", done);
            }
            Operation::Compact { stripe } => {
                let stripe = (stripe % engine.stripe_count() as u64) as usize;
                let done = engine.trigger_compaction(stripe);
                // The compaction does not make log records of other stripes any more durable.
                return self.durable_if("compact", done).map(|_| Outcome::Nothing);
            }
            Operation::Settings { seed } => return self.change_settings(*seed),
            Operation::Limit { bytes } => return self.limit(*bytes),
            Operation::TakeSnapshot | Operation::CheckSnapshot { .. } | Operation::DropSnapshot { .. } => {
                return self.snapshot(operation);
            }
            Operation::ReadOnly => return self.read_only(),
            Operation::Reopen { .. } => {}
        }
        Ok(Outcome::Nothing)
    }

    /// Records the outcome of an operation in the history.
    pub fn settle(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Nothing | Outcome::InDoubt => {}
            Outcome::Acknowledged { durable } => {
                self.history.acknowledge();
                if durable {
                    self.history.synced();
                }
            }
            Outcome::Refused => self.history.refuse(),
            Outcome::Durable => self.history.synced(),
            Outcome::Reopened(found) => self.history.restart(found),
        }
    }

    /// Compares every way of reading with the acknowledged contents and, for commits in doubt, with what the engine
    /// made of them.
    ///
    /// # Errors
    /// Wrong data was read.
    pub fn check(&mut self) -> Result<(), Mismatch> {
        self.read(&Operation::Check).map(|_| ())
    }

    /// Checks that the engine's figures match the directory, and that usage once within a limit on the disk or the log
    /// stays within it.
    ///
    /// # Errors
    /// The figures.
    pub fn check_limits(&mut self) -> Result<(), Mismatch> {
        let Some(engine) = &self.engine else { return Ok(()) };
        let config = engine.config();
        let usage = engine.disk_usage().map_err(|error| Mismatch::error("disk_usage", &error))?;
        let files = self.bed.strict.list(Path::new(DATABASE)).unwrap_or_default();
        let listed: u64 = files.iter().map(|entry| entry.len.next_multiple_of(4096)).sum();
        // The quota counts whole pages, the limit on the log counts lengths: a close trims the last segment.
        let log: u64 = files.iter().filter(|file| file.name.starts_with("wal-")).map(|file| file.len).sum();
        let wrong = |expected: String| Err(Mismatch { expected, found: format!("{usage}, {config:?}") });
        if usage.used != listed {
            return wrong(format!("{listed} bytes in the directory"));
        }
        let fits = config.max_total_disk_bytes.is_none_or(|limit| usage.used <= limit);
        if !fits && self.within.0 {
            return wrong("the limit on the disk to be kept".into());
        }
        // While less than the reserve is left, files may grow beyond the limit for merging.
        self.within.0 |= usage.available_for_writes.is_none_or(|available| available > 0);
        let fits = config.max_wal_size_bytes.is_none_or(|limit| log <= limit);
        if !fits && self.within.1 {
            return wrong(format!("the limit on the log to be kept, and not {log} bytes of it"));
        }
        self.within.1 = fits;
        Ok(())
    }

    /// Ends the process; returns the history and the totals. The database is left in the harness.
    pub fn end(mut self) -> (History, Totals) {
        self.let_go(false);
        (self.history, self.totals)
    }

    fn write(&mut self, change: &Change, sync: bool, way: Way) -> Result<Outcome, Mismatch> {
        let Some(engine) = &self.engine else { return Ok(Outcome::Nothing) };
        let known = self.history.doubts().is_empty();
        let options = if sync { WriteOptions::sync() } else { WriteOptions::buffered() };
        let held = self.snapshots.iter().map(|(snapshot, _)| snapshot).min_by_key(|held| held.seq());
        let state = (known && way != Way::Plain).then(|| self.history.state().clone());
        let attempt = Attempt { engine, change, way, held, state: state.as_ref(), options };
        let refusal = attempt.is_refused().map_err(|error| Mismatch::error("snapshot", &error))?;
        // What is refused is not in doubt: no crash leaves any of it.
        if !refusal {
            self.history.begin(change.clone());
        }
        let done = attempt.make()?;
        self.totals.conditional += u64::from(way != Way::Plain);
        match self.tolerate("write", done)? {
            Ok(()) if refusal => {
                self.totals.unmet += 1;
                Ok(Outcome::Nothing)
            }
            Ok(()) => {
                self.totals.commits += 1;
                self.totals.changes += change.len() as u64;
                Ok(Outcome::Acknowledged { durable: sync })
            }
            Err(error) if refusal => {
                self.failed |= !refused(&error);
                Ok(Outcome::Nothing)
            }
            Err(error) if refused(&error) => Ok(Outcome::Refused),
            // Poisoned by an earlier failure: this one was never tried.
            Err(Error::Poisoned { .. }) if std::mem::replace(&mut self.failed, true) => Ok(Outcome::Refused),
            Err(_) => {
                self.failed = true;
                Ok(Outcome::InDoubt)
            }
        }
    }

    /// The result, or the error as a mismatch if it is not tolerated.
    fn tolerate<T>(&mut self, doing: &str, done: Result<T>) -> Result<Result<T, Error>, Mismatch> {
        let Err(error) = &done else { return Ok(done) };
        let limit = match error {
            Error::DiskFull => self.limited,
            Error::BatchTooLarge { .. } | Error::ItemTooLarge { .. } | Error::KeyTooLarge { .. } => true,
            Error::InvalidConfig { .. } => matches!(self.settings, SettingsOf::Given(..)),
            _ => false,
        };
        if limit {
            self.totals.refused += 1;
        } else if self.tolerance == Tolerance::Faults {
            self.totals.failed += 1;
        } else {
            return Err(Mismatch::error(doing, error));
        }
        Ok(done)
    }

    fn durable_if(&mut self, doing: &str, done: Result<()>) -> Result<Outcome, Mismatch> {
        match self.tolerate(doing, done)? {
            Ok(()) => Ok(Outcome::Durable),
            Err(error) => {
                self.failed |= !refused(&error);
                Ok(Outcome::Nothing)
            }
        }
    }

    fn read(&mut self, operation: &Operation) -> Result<Outcome, Mismatch> {
        let Some(engine) = &self.engine else { return Ok(Outcome::Nothing) };
        self.totals.reads += 1;
        let resolved;
        let state = if self.history.doubts().is_empty() {
            self.history.state()
        } else {
            resolved = contents(engine, None).map_err(|error| Mismatch::error("scan", &error))?;
            self.history.check(&resolved, Least::Acknowledged)?;
            &resolved
        };
        match operation {
            Operation::Get { seed } => check_gets(engine, state, None, &mut Rng(*seed), 1)?,
            Operation::Query { seed } => check_query(engine, state, None, &mut Rng(*seed))?,
            _ => check_all(engine, state, None, &mut self.rng)?,
        }
        self.answers.also(Fingerprint::of(state));
        Ok(Outcome::Nothing)
    }

    fn snapshot(&mut self, operation: &Operation) -> Result<Outcome, Mismatch> {
        let Some(engine) = &self.engine else { return Ok(Outcome::Nothing) };
        let of = |pick: u64, snapshots: usize| (pick % snapshots.max(1) as u64) as usize;
        match operation {
            Operation::TakeSnapshot if self.snapshots.len() < SNAPSHOTS => {
                let snapshot = engine.snapshot().map_err(|error| Mismatch::error("snapshot", &error))?;
                let state = contents(engine, None).map_err(|error| Mismatch::error("scan", &error))?;
                self.history.check(&state, Least::Acknowledged)?;
                self.snapshots.push((snapshot, state));
                self.totals.snapshots += 1;
            }
            Operation::CheckSnapshot { pick } => {
                let at = of(*pick, self.snapshots.len());
                if let Some((snapshot, state)) = self.snapshots.get(at) {
                    let mut rng = Rng(*pick);
                    check_all(engine, state, Some(snapshot), &mut rng)?;
                    check_query(engine, state, Some(snapshot), &mut rng)?;
                    self.totals.reads += 2;
                }
            }
            Operation::DropSnapshot { pick } if !self.snapshots.is_empty() => {
                self.snapshots.swap_remove(of(*pick, self.snapshots.len()));
            }
            _ => {}
        }
        Ok(Outcome::Nothing)
    }

    fn change_settings(&mut self, seed: u64) -> Result<Outcome, Mismatch> {
        let (Some(engine), SettingsOf::Random) = (&self.engine, &self.settings) else {
            return Ok(Outcome::Nothing);
        };
        let mut rng = Rng(seed);
        let (config, compaction) = any_settings(&mut rng);
        let done = if rng.one_in(2) {
            self.limited |= config.max_total_disk_bytes.is_some();
            engine.set_config(config.with_stripes(engine.stripe_count()))
        } else {
            engine.set_compaction_config(compaction)
        };
        self.totals.settings += 1;
        self.within = (false, false);
        self.tolerate("change settings", done).map(|_| Outcome::Nothing)
    }

    fn limit(&mut self, bytes: Option<u64>) -> Result<Outcome, Mismatch> {
        let (Some(engine), SettingsOf::Random) = (&self.engine, &self.settings) else {
            return Ok(Outcome::Nothing);
        };
        self.limited |= bytes.is_some();
        let mut config = engine.config();
        config.max_total_disk_bytes = bytes;
        let done = engine.set_config(config);
        self.totals.settings += 1;
        self.within = (false, false);
        self.tolerate("set a limit", done).map(|_| Outcome::Nothing)
    }

    /// Ends the engine, counting what it did. Returns whether it closed cleanly.
    fn let_go(&mut self, clean: bool) -> bool {
        self.snapshots.clear();
        let Some(engine) = self.engine.take() else { return false };
        if let Ok(stats) = engine.stats() {
            self.totals.flushes += stats.flushes;
            self.totals.compactions += stats.compactions;
            self.totals.checkpoints += stats.checkpoints;
        }
        self.count_segments();
        if clean {
            let closed = engine.close().is_ok();
            self.totals.closes += u64::from(closed);
            closed
        } else {
            self.totals.deaths += 1;
            self.bed.die(engine);
            false
        }
    }

    fn count_segments(&mut self) {
        let listed = self.bed.strict.list(Path::new(DATABASE)).unwrap_or_default();
        let number =
            |name: &str| -> Option<u64> { name.strip_prefix("wal-")?.strip_suffix(".log")?.parse().ok() };
        let newest = listed.iter().filter_map(|entry| number(&entry.name)).max().unwrap_or(0);
        self.totals.rotations += newest.saturating_sub(self.newest_segment);
        self.newest_segment = self.newest_segment.max(newest);
    }

    fn reopen(&mut self, clean: bool, settings: Option<u64>) -> Result<Outcome, Mismatch> {
        self.check_background()?;
        let had = self.engine.is_some();
        let closed = self.let_go(clean);
        if had && clean && !closed && self.tolerance == Tolerance::Limits && !self.limited {
            return Err(Mismatch { expected: "a clean close".into(), found: "it failed".into() });
        }
        let mut options = self.bed.options(Arc::clone(&self.clock));
        if let (Some(seed), SettingsOf::Random) = (settings, &self.settings) {
            let (config, compaction) = any_settings(&mut Rng(seed));
            (options.config, options.compaction) = (Some(config), Some(compaction));
            options.config.iter_mut().for_each(|config| config.stripes = None);
        }
        self.open(options)
    }

    fn open(&mut self, options: EngineOptions) -> Result<Outcome, Mismatch> {
        let engine = match LsmEngine::open(Path::new(DATABASE), options) {
            Ok(engine) => engine,
            Err(Error::NotFound { .. } | Error::NotADatabase { .. })
                if self.history.may_be_absent(Least::Acknowledged) =>
            {
                self.create()?;
                self.history.created();
                return Ok(Outcome::Nothing);
            }
            Err(_) if self.tolerance == Tolerance::Faults => {
                self.totals.failed += 1;
                return Ok(Outcome::Nothing);
            }
            Err(error) => return Err(Mismatch::error("open", &error)),
        };
        self.totals.reopens += 1;
        self.failed = false;
        self.limited = engine.config().max_total_disk_bytes.is_some();
        let found = match contents(&engine, None) {
            Ok(found) => found,
            Err(error) => return Err(Mismatch::error("scan", &error)),
        };
        self.history.check(&found, Least::Acknowledged)?;
        check_all(&engine, &found, None, &mut self.rng)?;
        self.answers.also(Fingerprint::of(&found));
        self.engine = Some(engine);
        self.within = (false, false);
        Ok(Outcome::Reopened(found))
    }

    fn read_only(&mut self) -> Result<Outcome, Mismatch> {
        self.check_background()?;
        let clean = self.rng.one_in(2);
        let closed = self.let_go(clean);
        let before = self.bed.strict.ops();
        let options = || self.bed.options(Arc::clone(&self.clock));
        match LsmEngine::open_read_only(Path::new(DATABASE), options()) {
            Ok(engine) => {
                self.totals.read_only_opens += 1;
                let found = contents(&engine, None).map_err(|error| Mismatch::error("scan", &error))?;
                self.history.check(&found, Least::Acknowledged)?;
                check_all(&engine, &found, None, &mut self.rng)?;
                let written = engine.put(&crate::Key::from("key"), b"value", WriteOptions::new());
                if !matches!(written, Err(Error::ReadOnly)) {
                    let found = format!("{written:?}");
                    return Err(Mismatch { expected: "no write to a read-only handle".into(), found });
                }
            }
            Err(_) if self.tolerance == Tolerance::Faults => self.totals.failed += 1,
            Err(error) => return Err(Mismatch::error("read-only open", &error)),
        }
        let changes = self.bed.strict.ops() - before;
        if changes > 0 {
            let found = format!("{changes} mutating I/O operations, after a clean close: {closed}");
            return Err(Mismatch { expected: "a read-only open changes nothing".into(), found });
        }
        self.open(options())
    }

    /// Without faults and limits, background work does not fail.
    fn check_background(&self) -> Result<(), Mismatch> {
        let Some(engine) = self.engine.as_ref().filter(|_| self.tolerance == Tolerance::Limits) else {
            return Ok(());
        };
        let stats = engine.stats().map_err(|error| Mismatch::error("stats", &error))?;
        let failed = stats.poisoned.or(stats.background_error.filter(|_| !self.limited));
        match failed {
            None => Ok(()),
            Some(found) => Err(Mismatch { expected: "background work without an error".into(), found }),
        }
    }
}

/// Whether the error means that the commit was not made and the engine is as healthy as before.
fn refused(error: &Error) -> bool {
    matches!(
        error,
        Error::DiskFull
            | Error::WriteStalled { .. }
            | Error::BatchTooLarge { .. }
            | Error::ItemTooLarge { .. }
            | Error::KeyTooLarge { .. }
            | Error::ReadOnly
            | Error::Closed
    )
}
