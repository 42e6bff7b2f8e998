//! Runs in which the n-th I/O operation fails, for every n of a workload, in every possible way.
//!
//! These must hold: nothing panics; every call succeeds or returns an error that states the cause, never `Corruption`;
//! no wrong data is read; acknowledged writes can be read on the handle, and after a reopen without the fault; durable
//! writes survive a power cut; refused writes are absent. Interrupted calls, short reads and short writes go unnoticed.
//! A failed sync poisons: the first cause is kept, nothing is written or removed any more, reads still work, a reopen
//! recovers. After any other failure, once the fault is gone, writes are accepted again on the same handle, background
//! work continues, and a close succeeds.
//!
//! Jobs run on one thread, but not one after the other: while a job writes, syncs or removes an SST, which it does
//! without holding a lock, others make steps ([`beside`]), as they would on other threads. So an operation may fail in
//! a checkpoint that interrupts another job, and that job continues afterwards without having checked for it.

use std::panic::AssertUnwindSafe;

mod beside;
mod injection;
mod perform;
mod run;
mod totals;
mod verdict;

pub use injection::{Fault, Injection};
pub use totals::FaultTotals;

use super::{DATABASE, Failure, Mismatch, Rng, SettingsOf, Watchdog};
use crate::error::Result;
use crate::vfs::Op;
use run::FaultRun;

/// Stands for "no injection" where one is named.
const NO_FAULT: &str = "none";

/// One workload, with every fault at every operation.
#[derive(Clone, Debug)]
pub struct FaultRuns {
    /// Determines everything.
    pub seed: u64,
    /// Number of operations in the workload.
    pub operations: u64,
    /// One in this many runs is made, chosen by the seed. 1: all.
    pub one_in: u64,
    /// Settings of the database, without their limit on disk space.
    pub settings: SettingsOf,
    /// The command that replays a run; the seed and the injection are appended.
    pub command: String,
}

impl FaultRuns {
    /// All runs of a workload of 60 operations over random settings.
    pub fn new(seed: u64) -> Self {
        let command = "kstone-bench torture --replay".into();
        Self { seed, operations: 60, one_in: 1, settings: SettingsOf::Random, command }
    }

    /// Runs the workload without a fault, then with each fault.
    ///
    /// # Errors
    /// The first violation.
    pub fn run(&self) -> Result<FaultTotals, Failure> {
        let watchdog = Watchdog::start(self.replay(None));
        let (mut totals, ops) = self.without_fault()?;
        let mut rng = Rng(self.seed ^ 0x6f6e_655f_696e);
        for (at, (op, ours)) in (1..).zip(ops) {
            // A directory entry lost by the parent directory is not the database's to restore.
            let befalls = |fault: &Fault| fault.befalls(op) && (ours || *fault != Fault::LostSync);
            for fault in Fault::ALL.into_iter().filter(befalls) {
                for lasting in [false, true] {
                    if (lasting && fault == Fault::Interrupted) || !rng.one_in(self.one_in) {
                        continue;
                    }
                    let injection = Injection { fault, at, lasting };
                    watchdog.step(self.replay(Some(injection)));
                    totals.add(&self.run_one(injection)?);
                }
            }
        }
        Ok(totals)
    }

    /// Runs the workload without a fault, checking the order of operations. Returns the kinds of all I/O operations,
    /// and whether each concerns the database's directory or its contents.
    ///
    /// # Errors
    /// A violation.
    pub fn without_fault(&self) -> Result<(FaultTotals, Vec<(Op, bool)>), Failure> {
        let mut run = FaultRun::new(self, None);
        run.vfs.record(true);
        self.guarded(None, &mut run)?;
        let records = run.vfs.take_records().into_iter().take(run.workload_ops as usize);
        let ops: Vec<(Op, bool)> =
            records.map(|record| (record.op, record.path.starts_with(DATABASE))).collect();
        run.totals.points = ops.len() as u64;
        Ok((run.totals, ops))
    }

    /// The run with that name: `EIO:17:once`, or `none` for one without a fault. `None` if there is no such run.
    ///
    /// # Errors
    /// A violation.
    pub fn run_named(&self, name: &str) -> Option<Result<FaultTotals, Failure>> {
        if name == NO_FAULT {
            return Some(self.without_fault().map(|(totals, _)| totals));
        }
        Some(self.run_one(name.parse().ok()?))
    }

    /// One run.
    ///
    /// # Errors
    /// A violation.
    pub fn run_one(&self, injection: Injection) -> Result<FaultTotals, Failure> {
        let mut run = FaultRun::new(self, Some(injection));
        self.guarded(Some(injection), &mut run)?;
        *run.totals.runs.entry(injection.fault.name()).or_default() += 1;
        Ok(run.totals)
    }

    fn guarded(&self, injection: Option<Injection>, run: &mut FaultRun) -> Result<(), Failure> {
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| run.all(self.operations)));
        let done = done.unwrap_or_else(|panic| {
            // The panicking code may have left locks held forever.
            std::mem::forget(run.engine.take());
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(Mismatch { expected: "no panic".into(), found: message.unwrap_or_else(|| "a panic".into()) })
        });
        done.map_err(|mismatch| Failure {
            seed: self.seed,
            operation: run.number,
            crashes: run.crash.map(|mode| (0, mode)).into_iter().collect(),
            expected: mismatch.expected.into(),
            found: mismatch.found.into(),
            replay: self.replay(injection).into(),
        })
    }

    fn replay(&self, injection: Option<Injection>) -> String {
        let what = injection.map_or_else(|| NO_FAULT.to_string(), |injection| injection.to_string());
        format!("{} {}:0:{what}", self.command, self.seed)
    }
}
