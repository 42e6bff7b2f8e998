//! Types shared by jobs and the scheduler.
//!
//! A step of a job on a poisoned handle only fails: what is on disk stays as it was when the handle was poisoned.

use crate::error::Result;
use crate::health::{Health, PoisonOnUnwind};

/// What a step of a job left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepResult {
    Again,
    Done,
}

/// A piece of background work, in steps. `C` is the engine it operates on.
pub(crate) trait Job<C>: std::fmt::Debug + Send {
    fn step(&mut self, engine: &C) -> Result<StepResult>;

    /// Aborts the job: leaves everything as it was.
    fn abort(self: Box<Self>, engine: &C);
}

/// Identifies work that may run only once at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    Flush(usize),
    /// Preparing another log segment.
    Segment,
    /// Sealing of memtables, for the memory budget and the log's limit.
    Seal,
    Checkpoint,
    LogSync,
    /// A record of how far an idle log is synced.
    Watermark,
    Compact(usize),
    /// Exploring for gaps where keys were deleted.
    Explore(usize),
    /// Writing the statistics file.
    Stats,
    /// Precedes every other write after a clean open: cancels the end recorded in the manifest.
    Open,
    /// Removing SSTs that were still being read when they became obsolete.
    Removal,
    /// Returning free memory of memtables to the system.
    ReleaseMemory,
}

impl Slot {
    /// The name used in events.
    pub(crate) fn name(self) -> String {
        let name = format!("{self:?}");
        match self {
            Self::Compact(_) => "compaction".into(),
            _ => snake_case(name.split('(').next().unwrap_or_default()),
        }
    }
}

/// Converts `RunCount` to `run_count`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 2);
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// Runs all steps of a job on the caller's thread.
pub(crate) fn run_to_end(health: &Health, mut step: impl FnMut() -> Result<StepResult>) -> Result<()> {
    // A job that panics would hold its slot forever: its waiters must find the handle poisoned.
    let unwinding = PoisonOnUnwind::new(health, "a job");
    let mut result = Ok(StepResult::Again);
    while matches!(result, Ok(StepResult::Again)) {
        result = step();
    }
    std::mem::forget(unwinding);
    result.map(drop)
}
