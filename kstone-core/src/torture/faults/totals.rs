//! Counts of what fault runs did.

use std::collections::BTreeMap;
use std::fmt;

use crate::torture::order::Checked;

/// Counts of fault runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultTotals {
    /// Runs by injected fault.
    pub runs: BTreeMap<&'static str, u64>,
    /// I/O operations of the workloads, each of which failed in some runs.
    pub points: u64,
    /// I/O operations that failed.
    pub struck: u64,
    /// Calls that failed because of that.
    pub failed: u64,
    /// Runs in which the handle was poisoned.
    pub poisoned: u64,
    /// Runs in which calls had failed and the handle then accepted writes again.
    pub healed: u64,
    /// Conditional writes and transactions refused, as they should be.
    pub unmet: u64,
    /// Databases opened and compared: after the fault was lifted, and after power cuts.
    pub opened: u64,
    /// Steps of jobs made in the middle of another.
    pub beside: u64,
    /// Databases whose handle was poisoned in the middle of another job.
    pub poisoned_beside: u64,
    /// Checks of the order of operations.
    pub order: Checked,
}

impl FaultTotals {
    /// Total number of runs.
    pub fn all_runs(&self) -> u64 {
        self.runs.values().sum()
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (name, runs) in &other.runs {
            *self.runs.entry(name).or_default() += runs;
        }
        let Self {
            runs: _,
            points,
            struck,
            failed,
            poisoned,
            healed,
            unmet,
            opened,
            beside,
            poisoned_beside,
            order,
        } = other;
        self.points += points;
        self.struck += struck;
        self.failed += failed;
        self.poisoned += poisoned;
        self.healed += healed;
        self.unmet += unmet;
        self.opened += opened;
        self.beside += beside;
        self.poisoned_beside += poisoned_beside;
        self.order.add(order);
    }
}

impl fmt::Display for FaultTotals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            points,
            struck,
            failed,
            poisoned,
            healed,
            unmet,
            opened,
            beside,
            poisoned_beside,
            order,
            ..
        } = self;
        write!(f, "{} fault runs over {points} I/O operations:", self.all_runs())?;
        for (name, runs) in &self.runs {
            write!(f, " {name} {runs}")?;
        }
        write!(
            f,
            "; {struck} operations struck, {failed} calls failed, {poisoned} runs poisoned, {poisoned_beside} of them in \
             the middle of another job, {healed} healed, {unmet} refusals, {opened} databases opened and compared; {beside} steps of jobs \
             in the middle of others; order: {} edits, {} SSTs, {} records before them, {} renames, {} log \
             writes, {} removals",
            order.edits, order.ssts, order.records, order.renames, order.writes, order.removals
        )
    }
}
