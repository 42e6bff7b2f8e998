//! One workload on a failing file system: opens, uses and closes the database.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::beside::Beside;
use super::{Fault, FaultRuns, FaultTotals, Injection};
use crate::clock::ManualClock;
use crate::error::{Error, Result};
use crate::lsm::{EngineOptions, LsmEngine, Snapshot};
use crate::torture::order::OrderCheck;
use crate::torture::{DATABASE, History, Least, Mismatch, Mix, Rng, SettingsOf, State, Workload, contents};
use crate::vfs::{CrashMode, FaultVfs, Op, Rule, RuleHandle, StrictVfs, Vfs};

/// More I/O operations than a run can need: a call that retries forever ends as a panic, which is reported.
const MOST_IO: u64 = 2_000_000;

/// A workload on a failing file system.
pub(super) struct FaultRun {
    pub(super) strict: StrictVfs,
    pub(super) vfs: FaultVfs,
    pub(super) fault: Option<Fault>,
    pub(super) struck: Vec<RuleHandle>,
    /// Operations that write to files of the database.
    pub(super) writes: Vec<RuleHandle>,
    pub(super) order: OrderCheck,
    pub(super) beside: Arc<Beside>,
    pub(super) engine: Option<Arc<LsmEngine>>,
    pub(super) snapshots: Vec<(Snapshot, State)>,
    pub(super) history: History,
    pub(super) clock: Arc<ManualClock>,
    pub(super) rng: Rng,
    pub(super) seed: u64,
    pub(super) settings: SettingsOf,
    /// Whether the fault has been lifted.
    pub(super) lifted: bool,
    /// The cause, and the number of writes when it was first seen.
    pub(super) poisoned: Option<(String, u64)>,
    /// The number of the current operation in the workload.
    pub(super) number: u64,
    /// I/O operations before the fault was lifted.
    pub(super) workload_ops: u64,
    /// The power cut whose image is being checked.
    pub(super) crash: Option<CrashMode>,
    pub(super) totals: FaultTotals,
}

pub(super) type Checks<T = ()> = Result<T, Mismatch>;

pub(super) fn mismatch<T>(expected: impl Into<String>, found: impl Into<String>) -> Checks<T> {
    Err(Mismatch { expected: expected.into(), found: found.into() })
}

pub(super) fn dir() -> &'static Path {
    Path::new(DATABASE)
}

impl FaultRun {
    pub(super) fn new(runs: &FaultRuns, injection: Option<Injection>) -> Self {
        let seed = runs.seed;
        let strict = StrictVfs::new().with_shared_bytes();
        let vfs = FaultVfs::new(Arc::new(strict.clone()));
        let done = AtomicU64::new(0);
        vfs.add(Rule::hook(move |_| {
            // Only once: dropping what the panic leaves behind does I/O too.
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
            beside: Beside::watch(&vfs, seed),
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

    pub(super) fn all(&mut self, operations: u64) -> Checks {
        self.open()?;
        for operation in Workload::new(self.seed, Mix::Crash).take(operations as usize) {
            self.number += 1;
            self.beside.free.store(true, Ordering::Relaxed);
            self.perform(&operation)?;
            self.beside.free.store(false, Ordering::Relaxed);
            self.check_poisoned()?;
        }
        self.workload_ops = self.vfs.total();
        self.totals.beside = self.beside.steps.load(Ordering::Relaxed);
        self.totals.poisoned_beside = self.beside.poisoned.load(Ordering::Relaxed);
        self.totals.struck = self.struck.iter().map(RuleHandle::hits).sum();
        self.struck.iter().for_each(|rule| rule.set(false));
        self.lifted = true;
        self.after()?;
        self.check_late()?;
        self.totals.order = self.order.checked();
        match self.order.violations().first() {
            None => Ok(()),
            Some(violation) => mismatch("everything durable in order", violation),
        }
    }

    pub(super) fn options(&self, vfs: Arc<dyn Vfs>) -> EngineOptions {
        EngineOptions::reproducible(vfs, Arc::<ManualClock>::clone(&self.clock))
    }

    /// Checks that a call may fail with this error.
    pub(super) fn tolerate(&mut self, doing: &str, error: &Error) -> Checks {
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

    pub(super) fn is_poisoned(&self) -> bool {
        self.cause().is_some()
    }

    pub(super) fn cause(&self) -> Option<String> {
        self.engine.as_ref()?.poisoned().map(str::to_string)
    }

    pub(super) fn written(&self) -> u64 {
        self.writes.iter().map(RuleHandle::seen).sum()
    }

    pub(super) fn open(&mut self) -> Checks {
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
            // The database may have been created although the call that created it failed.
            Err(Error::InvalidConfig { field: "stripes", .. }) => {
                options.config =
                    options.config.map(|config| crate::DatabaseConfig { stripes: None, ..config });
                LsmEngine::open(dir(), options)
            }
            opened => opened,
        };
        match opened {
            Ok(engine) => {
                let engine = Arc::new(engine);
                *self.beside.engine.lock() = Arc::downgrade(&engine);
                self.engine = Some(engine);
            }
            // Caused by an earlier handle, for instance by its failed sync.
            Err(error) if error.code() == "io" && !self.lifted && self.is_visible() => return Ok(()),
            Err(error) => return self.tolerate("open", &error),
        }
        if self.poisoned.take().is_some() {
            self.vfs.record(false);
            self.vfs.take_records();
        }
        self.take_stock()
    }

    pub(super) fn is_visible(&self) -> bool {
        self.fault.is_some_and(|fault| !fault.is_invisible())
    }

    /// Compares a newly opened database with the history, and restarts the history from its contents.
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
                        // The contents are as durable as before.
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

    pub(super) fn let_go(&mut self, clean: bool) -> Checks {
        self.snapshots.clear();
        // A close does everything itself: no other thread works beside it.
        self.beside.free.store(false, Ordering::Relaxed);
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
}
