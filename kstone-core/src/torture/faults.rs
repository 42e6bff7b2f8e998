//! Runs in which the n-th I/O operation fails, for every n of a workload and each way in which it can.
//!
//! What must hold: nothing panics; every call succeeds or says in its error what was wrong, and that is never
//! `Corruption`; nothing that is read is wrong; what was acknowledged can be read on the handle, and after a reopen
//! without the fault; what was durable, after a power cut; what was refused is not there. Interrupted, short reads and
//! short writes are not noticed at all. A failed sync poisons: the first cause is kept, nothing is written any more,
//! reads go on, a reopen recovers. After everything else that failed, once the fault is gone, writes are accepted again
//! on the same handle, background work goes on, and a close succeeds.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

mod injection;

pub use injection::{Fault, Injection};

use super::order::{Checked, OrderCheck};
use super::workload::batch_of;
use super::{
    DATABASE, Failure, History, Least, Mismatch, Mix, Operation, Rng, SettingsOf, State, Workload,
    any_settings, check_all, contents, random_key,
};
use crate::clock::ManualClock;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lsm::{EngineOptions, LsmEngine, Snapshot, Workers, WriteOptions};
use crate::vfs::{CrashMode, FaultVfs, Op, Rule, RuleHandle, StrictVfs, Vfs};

/// More steps of background work than a workload can ask for.
const MOST_STEPS: u32 = 5_000;
/// More I/O operations than a run can ask for: a call that tries again for ever ends as a panic, which is told.
const MOST_IO: u64 = 2_000_000;
/// Stands for no injection where one is named.
const NO_FAULT: &str = "none";
/// Snapshots held at the same time.
const SNAPSHOTS: usize = 2;

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultTotals {
    /// Runs by the fault in them.
    pub runs: BTreeMap<&'static str, u64>,
    /// I/O operations of the workloads, each of which failed in some runs.
    pub points: u64,
    /// I/O operations that failed.
    pub struck: u64,
    /// Calls that failed because of it.
    pub failed: u64,
    /// Runs in which the handle was poisoned.
    pub poisoned: u64,
    /// Runs in which calls had failed and the handle then accepted writes again.
    pub healed: u64,
    /// Databases opened and compared: after the fault was lifted, and after power cuts.
    pub opened: u64,
    /// What was checked of the order of operations.
    pub order: Checked,
}

impl FaultTotals {
    /// Runs in all.
    pub fn all_runs(&self) -> u64 {
        self.runs.values().sum()
    }

    /// Adds what another run did.
    pub fn add(&mut self, other: &Self) {
        for (name, runs) in &other.runs {
            *self.runs.entry(name).or_default() += runs;
        }
        let Self { runs: _, points, struck, failed, poisoned, healed, opened, order } = other;
        self.points += points;
        self.struck += struck;
        self.failed += failed;
        self.poisoned += poisoned;
        self.healed += healed;
        self.opened += opened;
        self.order.add(order);
    }
}

impl fmt::Display for FaultTotals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { points, struck, failed, poisoned, healed, opened, order, .. } = self;
        write!(f, "{} fault runs over {points} I/O operations:", self.all_runs())?;
        for (name, runs) in &self.runs {
            write!(f, " {name} {runs}")?;
        }
        write!(
            f,
            "; {struck} operations struck, {failed} calls failed, {poisoned} runs poisoned, {healed} healed, {opened} \
             databases opened and compared; order: {} edits, {} SSTs, {} records before them, {} renames, {} log \
             writes, {} removals",
            order.edits, order.ssts, order.records, order.renames, order.writes, order.removals
        )
    }
}

/// One workload, with every fault at every operation.
#[derive(Clone, Debug)]
pub struct FaultRuns {
    /// Decides everything.
    pub seed: u64,
    /// Operations of the workload.
    pub operations: u64,
    /// Of the runs one in so many, which one the seed says. 1: all.
    pub one_in: u64,
    /// Settings of the database, their limit on disk space left out.
    pub settings: SettingsOf,
    /// What replays a run: the seed and the injection are added to it.
    pub command: String,
}

impl FaultRuns {
    /// All runs of a workload of 60 operations over random settings.
    pub fn new(seed: u64) -> Self {
        let command = "kstone-bench torture --replay".into();
        Self { seed, operations: 60, one_in: 1, settings: SettingsOf::Random, command }
    }

    /// The workload without a fault, and then all runs.
    ///
    /// # Errors
    /// The first that did what must not happen.
    pub fn run(&self) -> Result<FaultTotals, Failure> {
        let (mut totals, ops) = self.without_fault()?;
        let mut rng = Rng(self.seed ^ 0x6f6e_655f_696e);
        for (at, (op, ours)) in (1..).zip(ops) {
            // A name that the directory above has lost is not the database's to bring back.
            let befalls = |fault: &Fault| fault.befalls(op) && (ours || *fault != Fault::LostSync);
            for fault in Fault::ALL.into_iter().filter(befalls) {
                for lasting in [false, true] {
                    if (lasting && fault == Fault::Interrupted) || !rng.one_in(self.one_in) {
                        continue;
                    }
                    totals.add(&self.run_one(Injection { fault, at, lasting })?);
                }
            }
        }
        Ok(totals)
    }

    /// Nothing fails; the order of operations is checked. Returns the kinds of all I/O operations, and whether they are
    /// about what is in the database's directory, or itself.
    ///
    /// # Errors
    /// What must not happen.
    pub fn without_fault(&self) -> Result<(FaultTotals, Vec<(Op, bool)>), Failure> {
        let mut run = Run::new(self, None);
        run.vfs.record(true);
        self.guarded(None, &mut run)?;
        let records = run.vfs.take_records().into_iter().take(run.workload_ops as usize);
        let ops: Vec<(Op, bool)> =
            records.map(|record| (record.op, record.path.starts_with(DATABASE))).collect();
        run.totals.points = ops.len() as u64;
        Ok((run.totals, ops))
    }

    /// The run of that name, or without a fault: `EIO:17:once`, or `none`.
    ///
    /// # Errors
    /// What must not happen. `None` is for a name that is none.
    pub fn run_named(&self, name: &str) -> Option<Result<FaultTotals, Failure>> {
        if name == NO_FAULT {
            return Some(self.without_fault().map(|(totals, _)| totals));
        }
        Some(self.run_one(name.parse().ok()?))
    }

    /// One run.
    ///
    /// # Errors
    /// What must not happen.
    pub fn run_one(&self, injection: Injection) -> Result<FaultTotals, Failure> {
        let mut run = Run::new(self, Some(injection));
        self.guarded(Some(injection), &mut run)?;
        *run.totals.runs.entry(injection.fault.name()).or_default() += 1;
        Ok(run.totals)
    }

    fn guarded(&self, injection: Option<Injection>, run: &mut Run) -> Result<(), Failure> {
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| run.all(self.operations)));
        let done = done.unwrap_or_else(|panic| {
            // What panicked may be locked for ever.
            std::mem::forget(run.engine.take());
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(Mismatch { expected: "no panic".into(), found: message.unwrap_or_else(|| "a panic".into()) })
        });
        let what = injection.map_or_else(|| NO_FAULT.to_string(), |injection| injection.to_string());
        done.map_err(|mismatch| Failure {
            seed: self.seed,
            operation: run.number,
            crashes: run.crash.map(|mode| (0, mode)).into_iter().collect(),
            expected: mismatch.expected.into(),
            found: mismatch.found.into(),
            replay: format!("{} {}:0:{what}", self.command, self.seed).into(),
        })
    }
}

/// A workload on a file system that fails.
struct Run {
    strict: StrictVfs,
    vfs: FaultVfs,
    fault: Option<Fault>,
    struck: Vec<RuleHandle>,
    /// Operations that write to files of the database.
    writes: Vec<RuleHandle>,
    order: OrderCheck,
    engine: Option<LsmEngine>,
    snapshots: Vec<(Snapshot, State)>,
    history: History,
    clock: Arc<ManualClock>,
    rng: Rng,
    seed: u64,
    settings: SettingsOf,
    /// The fault is over.
    lifted: bool,
    /// The cause, and how many writes there were when it was first seen.
    poisoned: Option<(String, u64)>,
    /// The operation of the workload.
    number: u64,
    /// I/O operations until the fault is lifted.
    workload_ops: u64,
    /// The power cut whose image is looked at.
    crash: Option<CrashMode>,
    totals: FaultTotals,
}

type Checks<T = ()> = Result<T, Mismatch>;

fn mismatch<T>(expected: impl Into<String>, found: impl Into<String>) -> Checks<T> {
    Err(Mismatch { expected: expected.into(), found: found.into() })
}

fn dir() -> &'static Path {
    Path::new(DATABASE)
}

impl Run {
    fn new(runs: &FaultRuns, injection: Option<Injection>) -> Self {
        let seed = runs.seed;
        let strict = StrictVfs::new();
        let vfs = FaultVfs::new(Arc::new(strict.clone()));
        let done = AtomicU64::new(0);
        vfs.add(Rule::hook(move |_| {
            // Once: dropping what the panic leaves behind does I/O too.
            assert!(done.fetch_add(1, Ordering::Relaxed) != MOST_IO, "a call does not end");
            Ok(())
        }));
        let rules = injection.map(|Injection { fault, at, lasting }| fault.rules(at, lasting));
        let struck = rules.unwrap_or_default().into_iter().map(|rule| vfs.add(rule)).collect();
        let ops = [Op::Create, Op::Truncate, Op::Write, Op::Sync, Op::SetLen, Op::Allocate, Op::Rename];
        let writes = ["*.log", "*.sst", "MANIFEST*"]
            .map(|files| vfs.add(Rule::hook(|_| Ok(())).on(&ops).files(files)));
        Self {
            order: OrderCheck::watch(&vfs, &strict, dir()),
            strict,
            vfs,
            fault: injection.map(|injection| injection.fault),
            struck,
            writes: writes.into(),
            engine: None,
            snapshots: Vec::new(),
            history: History::default(),
            clock: Arc::new(ManualClock::new(seed)),
            rng: Rng(seed ^ 0x0066_6175_6c74),
            seed,
            settings: runs.settings.clone(),
            lifted: false,
            poisoned: None,
            number: 0,
            workload_ops: 0,
            crash: None,
            totals: FaultTotals::default(),
        }
    }

    fn all(&mut self, operations: u64) -> Checks {
        self.open()?;
        for operation in Workload::new(self.seed, Mix::Crash).take(operations as usize) {
            self.number += 1;
            self.perform(&operation)?;
            self.check_poisoned()?;
        }
        self.workload_ops = self.vfs.total();
        self.totals.struck = self.struck.iter().map(RuleHandle::hits).sum();
        self.struck.iter().for_each(|rule| rule.set(false));
        self.lifted = true;
        self.after()?;
        self.totals.order = self.order.checked();
        match self.order.violations().first() {
            None => Ok(()),
            Some(violation) => mismatch("everything durable in order", violation),
        }
    }

    fn options(&self, vfs: Arc<dyn Vfs>) -> EngineOptions {
        let mut options = EngineOptions::on(vfs);
        (options.clock, options.workers) = (Arc::<ManualClock>::clone(&self.clock), Workers::Manual);
        options
    }

    /// Whether a call may fail so.
    fn tolerate(&mut self, doing: &str, error: &Error) -> Checks {
        let by_size =
            matches!(error.code(), "batch_too_large" | "item_too_large" | "key_too_large" | "invalid_config");
        if by_size {
            return Ok(());
        }
        self.totals.failed += 1;
        let no_space = matches!(self.fault, Some(Fault::NoSpace | Fault::Torn));
        let allowed = match error.code() {
            "io" => !no_space || self.is_poisoned(),
            "disk_full" => no_space,
            "poisoned" => self.is_poisoned(),
            "write_stalled" => true,
            _ => false,
        };
        let visible = self.fault.is_some_and(|fault| !fault.is_invisible());
        if !self.lifted && visible && allowed { Ok(()) } else { Err(Mismatch::error(doing, error)) }
    }

    fn is_poisoned(&self) -> bool {
        self.cause().is_some()
    }

    fn cause(&self) -> Option<String> {
        self.engine.as_ref()?.poisoned().map(str::to_string)
    }

    fn written(&self) -> u64 {
        self.writes.iter().map(RuleHandle::seen).sum()
    }

    /// The first cause stays, and nothing is written any more.
    fn check_poisoned(&mut self) -> Checks {
        let (cause, written) = (self.cause(), self.written());
        match (&self.poisoned, cause) {
            (None, Some(cause)) => {
                self.totals.poisoned = 1;
                self.poisoned = Some((cause, written));
                self.vfs.record(true);
            }
            (Some((first, before)), Some(cause)) => {
                if *first != cause {
                    return mismatch(format!("the first cause, {first}"), cause);
                }
                if *before != written {
                    let done: Vec<_> = self.vfs.take_records().iter().map(ToString::to_string).collect();
                    let done = done.join("\n");
                    return mismatch(format!("no write by a handle poisoned by: {first}"), done);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self) -> Checks {
        let mut options = self.options(Arc::new(self.vfs.clone()));
        if self.rng.one_in(3) || self.history.may_be_absent(Least::Durable) {
            let (config, compaction) = self.settings.first(&mut self.rng);
            let stripes = if self.history.may_be_absent(Least::Durable) { config.stripes } else { None };
            let config = crate::DatabaseConfig { stripes, max_total_disk_bytes: None, ..config };
            (options.config, options.compaction) = (Some(config), Some(compaction));
        }
        let opened = match LsmEngine::open(dir(), options.clone()) {
            Err(Error::NotFound { .. } | Error::NotADatabase { .. })
                if self.history.may_be_absent(Least::Acknowledged) =>
            {
                LsmEngine::create(dir(), options)
            }
            // It may have been created, though the call that did it failed.
            Err(Error::InvalidConfig { field: "stripes", .. }) => {
                options.config =
                    options.config.map(|config| crate::DatabaseConfig { stripes: None, ..config });
                LsmEngine::open(dir(), options)
            }
            opened => opened,
        };
        match opened {
            Ok(engine) => self.engine = Some(engine),
            // Of a handle that is gone, its failed sync among others.
            Err(error) if error.code() == "io" && !self.lifted && self.is_visible() => return Ok(()),
            Err(error) => return self.tolerate("open", &error),
        }
        if self.poisoned.take().is_some() {
            self.vfs.record(false);
            self.vfs.take_records();
        }
        self.take_stock()
    }

    fn is_visible(&self) -> bool {
        self.fault.is_some_and(|fault| !fault.is_invisible())
    }

    /// What a database just opened holds is what the history goes on with.
    fn take_stock(&mut self) -> Checks {
        let Some(engine) = &self.engine else { return Ok(()) };
        match contents(engine, None) {
            Ok(found) => {
                self.history.check(&found, Least::Acknowledged)?;
                let finished = engine.sync();
                match finished {
                    Ok(()) => self.history.restart(found),
                    Err(error) => {
                        self.tolerate("sync", &error)?;
                        // It is as durable as it was.
                        if !self.history.doubts().is_empty() {
                            self.let_go(false)?;
                        }
                    }
                }
                Ok(())
            }
            Err(error) => {
                self.tolerate("scan", &error)?;
                self.let_go(false)
            }
        }
    }

    fn let_go(&mut self, clean: bool) -> Checks {
        self.snapshots.clear();
        let poisoned = self.is_poisoned();
        let Some(engine) = self.engine.take() else { return Ok(()) };
        if !clean {
            self.strict.stop_after(Some(0));
            drop(engine);
            self.strict.stop_after(None);
            return Ok(());
        }
        match engine.close() {
            Ok(()) if poisoned => return mismatch("an error from the close of a poisoned handle", "none"),
            Ok(()) => self.history.synced(),
            Err(error) => {
                let io = error.code() == "io" && self.is_visible() && !self.lifted;
                if !poisoned && !io {
                    self.tolerate("close", &error)?;
                }
            }
        }
        Ok(())
    }

    fn perform(&mut self, operation: &Operation) -> Checks {
        if let Operation::Reopen { clean, .. } = operation {
            self.let_go(*clean)?;
        }
        let Some(engine) = &self.engine else { return self.open() };
        let done = match operation {
            Operation::Write { .. } => return self.write(operation),
            Operation::Get { .. } | Operation::Query { .. } | Operation::Check => return self.read(),
            Operation::TakeSnapshot | Operation::CheckSnapshot { .. } | Operation::DropSnapshot { .. } => {
                return self.snapshot(operation);
            }
            Operation::Step { choice } => {
                engine.step(*choice);
                return self.read_one();
            }
            Operation::Advance { by } => {
                self.clock.advance(*by);
                Ok(false)
            }
            Operation::SetClock { unix_ms } => {
                self.clock.set_unix_ms(*unix_ms);
                Ok(false)
            }
            Operation::Sync => engine.sync().map(|()| true),
            Operation::Flush => engine.flush().map(|()| true),
            Operation::Compact { stripe } => {
                // Only what it merged is durable.
                engine.trigger_compaction((stripe % engine.stripe_count() as u64) as usize).map(|()| false)
            }
            Operation::Settings { .. } if matches!(self.settings, SettingsOf::Given(..)) => Ok(false),
            Operation::Settings { seed } => {
                let (config, compaction) = any_settings(&mut Rng(*seed));
                let config = crate::DatabaseConfig { stripes: None, max_total_disk_bytes: None, ..config };
                engine
                    .set_config(config)
                    .and_then(|()| engine.set_compaction_config(compaction))
                    .map(|()| false)
            }
            Operation::ReadOnly => return self.read_only(),
            Operation::Limit { .. } | Operation::Reopen { .. } => Ok(false),
        };
        match done {
            Ok(durable) => {
                if durable {
                    self.history.synced();
                }
                Ok(())
            }
            Err(error) => self.tolerate(&format!("{operation:?}"), &error),
        }
    }

    fn write(&mut self, operation: &Operation) -> Checks {
        let (Some(engine), Operation::Write { change, sync }) = (&self.engine, operation) else {
            return Ok(());
        };
        let healthy = !self.is_poisoned();
        self.history.begin(change.clone());
        let options = if *sync { WriteOptions::sync() } else { WriteOptions::buffered() };
        match engine.write(&batch_of(change), options) {
            Ok(_) if !healthy => return mismatch("a poisoned handle refuses writes", "it accepted one"),
            Ok(_) => {
                self.history.acknowledge();
                if *sync {
                    self.history.synced();
                }
            }
            Err(error) => {
                // Only a write whose own sync failed, or that could not be undone, may be there or not.
                if !healthy || !self.is_poisoned() {
                    self.history.refuse();
                }
                self.tolerate("write", &error)?;
            }
        }
        Ok(())
    }

    /// All items are what they should be, or cannot be read.
    fn read(&mut self) -> Checks {
        let Some(engine) = &self.engine else { return Ok(()) };
        match contents(engine, None) {
            Ok(found) => self.history.check(&found, Least::Acknowledged),
            Err(error) => self.tolerate("scan", &error),
        }
    }

    fn read_one(&mut self) -> Checks {
        let key = random_key(&mut self.rng);
        let Some(engine) = self.engine.as_ref().filter(|_| self.history.doubts().is_empty()) else {
            return Ok(());
        };
        match engine.get(&key) {
            Ok(found) if found.as_deref() == self.history.state().get(&key).map(Vec::as_slice) => Ok(()),
            Ok(found) => mismatch(format!("get {key:?} to agree with a scan"), format!("{found:?}")),
            Err(error) => self.tolerate("get", &error),
        }
    }

    fn snapshot(&mut self, operation: &Operation) -> Checks {
        let Some(engine) = &self.engine else { return Ok(()) };
        match operation {
            Operation::TakeSnapshot if self.snapshots.len() < SNAPSHOTS => {
                let taken = engine.snapshot().and_then(|snapshot| {
                    let state = contents(engine, Some(&snapshot))?;
                    Ok((snapshot, state))
                });
                match taken {
                    Ok((snapshot, state)) => {
                        self.history.check(&state, Least::Acknowledged)?;
                        self.snapshots.push((snapshot, state));
                    }
                    Err(error) => self.tolerate("snapshot", &error)?,
                }
            }
            Operation::CheckSnapshot { .. } => {
                let Some((snapshot, state)) = self.snapshots.first() else { return Ok(()) };
                match contents(engine, Some(snapshot)) {
                    Ok(found) if found == *state => {}
                    Ok(found) => {
                        return mismatch(format!("{} items", state.len()), format!("{}", found.len()));
                    }
                    Err(error) => self.tolerate("scan of a snapshot", &error)?,
                }
            }
            _ => self.snapshots.truncate(1),
        }
        Ok(())
    }

    fn read_only(&mut self) -> Checks {
        let clean = self.rng.one_in(2);
        self.let_go(clean)?;
        let before = self.strict.ops();
        let opened = LsmEngine::open_read_only(dir(), self.options(Arc::new(self.vfs.clone())));
        let found = opened.and_then(|engine| contents(&engine, None));
        if self.strict.ops() != before {
            return mismatch("a read-only open changes nothing", "it did");
        }
        match found {
            Ok(found) => self.history.check(&found, Least::Acknowledged)?,
            Err(Error::NotFound { .. } | Error::NotADatabase { .. })
                if self.history.may_be_absent(Least::Acknowledged) => {}
            Err(error) => self.tolerate("open to read only", &error)?,
        }
        self.open()
    }

    /// The fault is over: what must hold now, after a power cut, after a close or the death of the process.
    fn after(&mut self) -> Checks {
        let mode = CrashMode::Random { seed: self.rng.next() };
        let mode = if self.rng.one_in(2) { CrashMode::Strict } else { mode };
        self.check_image(mode)?;
        if self.engine.is_some() {
            self.read()?;
            if self.is_poisoned() { self.check_refuses()? } else { self.check_heals()? }
        }
        let clean = self.rng.one_in(2);
        self.let_go(clean)?;
        self.open()?;
        self.totals.opened += 1;
        self.check_all()?;
        // Opening made durable what it found.
        self.check_image(CrashMode::Strict)?;
        self.check_heals()?;
        self.let_go(true)?;
        self.check_image(CrashMode::Strict)
    }

    /// Reads go on, writes are refused.
    fn check_refuses(&mut self) -> Checks {
        let Some(engine) = &self.engine else { return Ok(()) };
        let key = Key::from("refused");
        for done in [
            engine.put(&key, b"value", WriteOptions::new()).map(drop),
            engine.delete(&key, WriteOptions::new()).map(drop),
            engine.sync(),
            engine.flush(),
            engine.trigger_compaction(0),
        ] {
            if !matches!(done, Err(Error::Poisoned { .. })) {
                return mismatch("a poisoned handle refuses", format!("{done:?}"));
            }
        }
        while engine.step(0) {}
        self.check_poisoned()?;
        self.read()
    }

    /// Writes are accepted, background work goes on, and nothing of what failed is left.
    fn check_heals(&mut self) -> Checks {
        self.clock.advance(Duration::from_secs(60));
        // Of work that is not due any more: kept until something of its kind succeeds.
        let before = self.background_error();
        for sync in [false, true] {
            let key = Key::new(format!("healed{sync}").into_bytes());
            self.write(&Operation::Write { change: vec![(key, Some(b"value".to_vec()))], sync })?;
        }
        let Some(engine) = &self.engine else { return mismatch("an engine", "none") };
        let mut steps = 0;
        while engine.step(self.rng.next()) {
            steps += 1;
            if steps > MOST_STEPS {
                return mismatch("background work that ends", format!("{steps} steps"));
            }
        }
        engine.flush().map_err(|error| Mismatch::error("flush", &error))?;
        self.history.synced();
        if let Some(error) = self.background_error().filter(|error| Some(error) != before.as_ref()) {
            return mismatch("background work without an error", error);
        }
        self.totals.healed += u64::from(self.totals.failed > 0);
        self.check_all()
    }

    fn background_error(&self) -> Option<String> {
        self.engine.as_ref()?.stats().ok()?.background_error
    }

    fn check_all(&mut self) -> Checks {
        let Some(engine) = &self.engine else { return mismatch("an engine", "none") };
        let found = contents(engine, None).map_err(|error| Mismatch::error("scan", &error))?;
        self.history.check(&found, Least::Acknowledged)?;
        check_all(engine, &found, None, &mut self.rng)?;
        engine.verify().map(drop).map_err(|error| Mismatch::error("verify", &error))
    }

    /// Opens what a power cut would leave now.
    fn check_image(&mut self, mode: CrashMode) -> Checks {
        self.crash = Some(mode);
        let image = self.strict.crash(mode);
        match LsmEngine::open(dir(), self.options(Arc::new(image))) {
            Ok(engine) => {
                self.totals.opened += 1;
                let found = contents(&engine, None).map_err(|error| Mismatch::error("scan", &error))?;
                self.history.check(&found, Least::Durable)?;
                engine.verify().map_err(|error| Mismatch::error("verify", &error))?;
            }
            Err(Error::NotFound { .. } | Error::NotADatabase { .. })
                if self.history.may_be_absent(Least::Durable) => {}
            Err(error) => return Err(Mismatch::error("open after a power cut", &error)),
        }
        self.crash = None;
        Ok(())
    }
}
