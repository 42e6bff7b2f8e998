//! Trying to break the engine: seeded workloads, a model that knows which states are allowed, and runners that crash
//! the database and look at what is left.
//!
//! ```text
//! workload   seed -> operations, as values: the same whatever the settings
//! settings   seed -> tiny random settings, or those of the user
//! history    what was tried, acknowledged, made durable -> which contents are allowed after which crash
//! world      one database under a workload: performs operations, keeps the history, compares
//! reads      every way of reading, compared with a model
//! explorer   a crash at every changing I/O operation of a workload, again inside of recovery, each state checked
//! oracle     a long workload without crashes, every answer compared
//! order      what relies on something durable is not done before it is, checked beside any workload
//! faults     the n-th I/O operation fails, for every n, in each way it can
//! watchdog   a hang ends the process, with the name of what hung
//! ```
//!
//! 1. A failure is a value, [`Failure`]: it says what was expected and found and which command replays it. Nothing here
//!    panics because the engine is wrong.
//! 2. A seed decides everything: operations, settings, order of background steps, crash points, what the disk keeps.
//!    Time stands still unless an operation moves it, and no thread is started.
//! 3. The history is never told more than a caller of the engine knows. What the background made durable meanwhile
//!    only makes more survive than is asked for.

use std::fmt;

use crate::vfs::CrashMode;

mod explorer;
mod faults;
mod history;
mod oracle;
mod order;
mod reads;
mod rng;
mod settings;
mod totals;
mod watchdog;
mod workload;
mod world;

pub use explorer::Explorer;
pub use faults::{Fault, FaultRuns, FaultTotals, Injection};
pub use history::{Change, Entry, Fingerprint, History, Least, Mismatch, State};
pub use oracle::Oracle;
pub use order::{Checked, OrderCheck};
pub use reads::{check_all, check_gets, check_query, contents};
pub use rng::Rng;
pub use settings::{SettingsOf, any_settings, tiny_settings};
pub use totals::Totals;
pub use watchdog::Watchdog;
pub use workload::{Mix, Operation, Workload, batch_of, random_change, random_key, random_value};
pub use world::{DATABASE, Harness, Outcome, Tolerance, World};

/// What must not happen and did, and how to see it again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// Of the workload.
    pub seed: u64,
    /// The number of the workload's operation during or after which it was found, from 1; 0 is the creation.
    pub operation: u64,
    /// The crashes before it, the first one first: after how many changing operations of its file system, and what it
    /// left. Empty when there was none.
    pub crashes: Vec<(u64, CrashMode)>,
    /// What should have been.
    pub expected: Box<str>,
    /// What was.
    pub found: Box<str>,
    /// The command that does it again.
    pub replay: Box<str>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, operation, crashes, expected, found, replay } = self;
        writeln!(f, "seed {seed}, operation {operation}")?;
        for (point, mode) in crashes {
            writeln!(f, "  crash {mode:?} after {point} changing I/O operations")?;
        }
        write!(f, "  expected: {expected}\n  found:    {found}\n  replay:   {replay}")
    }
}

impl std::error::Error for Failure {}
