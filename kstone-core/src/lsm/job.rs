//! Types shared by jobs and the scheduler.
//!
//! A step of a job on a poisoned handle does nothing but fail: what is on disk stays as it was when that was found.

use crate::error::Result;
use crate::health::{Health, PoisonOnUnwind};

/// What a step of a job left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepResult {
    Again,
    Done,
}

/// A piece of background work, in steps, `C` being the engine that it works in.
pub(crate) trait Job<C>: std::fmt::Debug + Send {
    fn step(&mut self, engine: &C) -> Result<StepResult>;

    /// Gives up: leaves everything as it was.
    fn abort(self: Box<Self>, engine: &C);
}

/// What may run only once at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    Flush(usize),
    /// A further segment of the log.
    Segment,
    /// Sealing of memtables, for the memory budget and the log's limit.
    Seal,
    Checkpoint,
    LogSync,
    /// A record that says how far an idle log is synced.
    Watermark,
    Compact(usize),
    /// A look for gaps where keys were deleted.
    Explore(usize),
    /// Writing the counters to their file.
    Stats,
    /// What comes before everything else that is written after a clean open: the end that the manifest records is cancelled.
    Open,
    /// Removing SSTs that were still read when nobody needed them any more.
    Removal,
}

impl Slot {
    /// As events name it.
    pub(crate) fn name(self) -> String {
        let name = format!("{self:?}");
        match self {
            Self::Compact(_) => "compaction".into(),
            _ => snake_case(name.split('(').next().unwrap_or_default()),
        }
    }
}

/// `RunCount` as `run_count`.
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

/// All steps of a job, on the caller's thread.
pub(crate) fn run_to_end(health: &Health, mut step: impl FnMut() -> Result<StepResult>) -> Result<()> {
    // A job that panics would hold its slot for ever: its waiters must hear of that.
    let unwinding = PoisonOnUnwind::new(health, "a job");
    let mut result = Ok(StepResult::Again);
    while matches!(result, Ok(StepResult::Again)) {
        result = step();
    }
    std::mem::forget(unwinding);
    result.map(drop)
}
