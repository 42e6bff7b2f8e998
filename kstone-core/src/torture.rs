//! Torture tests of the engine: seeded workloads, a model that knows which states are allowed, and runners that crash
//! the database and check what is left.
//!
//! ```text
//! workload   seed -> operations, as values: the same for all settings
//! settings   seed -> tiny random settings, or the user's
//! commit     the ways of committing a change: plain, conditional, as a transaction, refused
//! history    operations tried, acknowledged, made durable -> contents allowed after each crash
//! world      one database under a workload: performs operations, keeps the history, compares
//! reads      every way of reading, compared with a model
//! explorer   a crash at every mutating I/O operation of a workload, and again during recovery; each state checked
//! oracle     a long workload without crashes, every answer compared
//! order      nothing that relies on durable state is done before that state is durable; checked beside any workload
//! faults     the n-th I/O operation fails, for every n, in every possible way
//! watchdog   a hang ends the process and is reported by name
//! ```
//!
//! 1. A failure is a value, [`Failure`]: it states what was expected, what was found, and which command replays it.
//!    Nothing in this module panics because the engine is wrong.
//! 2. A seed determines everything: operations, settings, order of background steps, crash points, what the disk keeps.
//!    Time stands still unless an operation advances it, and no thread is started.
//! 3. The history never receives more than a caller of the engine knows. State that background work makes durable
//!    meanwhile only means that more survives than is required.

use std::fmt;

use crate::vfs::CrashMode;

mod commit;
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

pub use commit::Way;
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

/// A violation, and how to reproduce it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The seed of the workload.
    pub seed: u64,
    /// The number of the operation in the workload during or after which it was found, from 1; 0 is the creation.
    pub operation: u64,
    /// The crashes that preceded it, in order: the number of mutating operations of the file system before the crash,
    /// and what the crash left. Empty if there was none.
    pub crashes: Vec<(u64, CrashMode)>,
    /// The expected outcome.
    pub expected: Box<str>,
    /// The actual outcome.
    pub found: Box<str>,
    /// The command that reproduces it.
    pub replay: Box<str>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, operation, crashes, expected, found, replay } = self;
        writeln!(f, "seed {seed}, operation {operation}")?;
        for (point, mode) in crashes {
            writeln!(f, "  crash {mode:?} after {point} mutating I/O operations")?;
        }
        write!(f, "  expected: {expected}\n  found:    {found}\n  replay:   {replay}")
    }
}

impl std::error::Error for Failure {}
