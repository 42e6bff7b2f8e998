//! How much to slow a writer down: a pure function of the backlog of background work.
//!
//! The delay grows in proportion to the pressure, so that writers settle at the speed of background work instead of
//! alternating between full speed and a stop. Past the stop line a writer waits until the pressure is gone or its stall
//! limit has passed.

use std::time::Duration;

/// The reason that a call waited. The first three slow writers down while background work is behind; calls that wait
/// for the others could not have continued at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StallReason {
    /// Memtables hold more than the memory budget: flushes are behind.
    Memtables,
    /// The stripe has too many runs: its compaction is behind.
    Runs,
    /// The log is over its limit: flushes or checkpoints are behind.
    Log,
    /// There is no space left below the database's limit, or on the disk, and some is being freed.
    Space,
    /// A log segment was being created, and is synced before it is written to. Counted from one millisecond on.
    Segment,
    /// Another write held the lock of the stripe or of the log. Counted from one millisecond on.
    Locks,
    /// The call needed a flush, merge or checkpoint, or its result, and one was already running. Counted from one
    /// millisecond on.
    Jobs,
    /// The first write finished a recovery that had run out of space. Counted from one millisecond on.
    Recovery,
}

impl StallReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 8] = [
        Self::Memtables,
        Self::Runs,
        Self::Log,
        Self::Space,
        Self::Segment,
        Self::Locks,
        Self::Jobs,
        Self::Recovery,
    ];

    /// Whether background work was behind, or had to free space: stalls that faster background work would reduce.
    pub fn is_backlog(self) -> bool {
        matches!(self, Self::Memtables | Self::Runs | Self::Log | Self::Space)
    }

    /// The reason in words, for the user.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Memtables => "memtables are over the memory budget; flushes are behind",
            Self::Runs => "the stripe has too many runs; its compaction is behind",
            Self::Log => "the log is over its limit; flushes or checkpoints are behind",
            Self::Space => "space below the limit or on the disk is being freed",
            Self::Segment => "a log segment was being created",
            Self::Locks => "another write held the lock of the stripe or of the log",
            Self::Jobs => "a flush, merge or checkpoint was already running",
            Self::Recovery => "recovery had to be finished first",
        }
    }
}

/// What a writer must do before it may continue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pressure {
    None,
    Delay(Duration, StallReason),
    Stop(StallReason),
}

/// The load at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) memory: u64,
    pub(crate) memory_budget: u64,
    /// Runs of the stripe being written to.
    pub(crate) runs: u64,
    /// `None` when compaction is off: runs then slow no writer down.
    pub(crate) run_threshold: Option<u64>,
    pub(crate) log: u64,
    pub(crate) log_limit: u64,
}

/// The longest single delay, reached just below the stop line.
const MAX_DELAY: Duration = Duration::from_millis(1);

impl Load {
    /// The strongest of the three pressures.
    pub(crate) fn pressure(&self) -> Pressure {
        let memory = ramp(self.memory, self.memory_budget / 4 * 5, self.memory_budget / 2 * 3);
        let runs = self.run_threshold.map_or(0.0, |k| ramp(self.runs, runs_without_delay(k), k * 4));
        let log = ramp(self.log, self.log_limit / 8 * 7, self.log_limit);
        let (strongest, reason) =
            [(memory, StallReason::Memtables), (runs, StallReason::Runs), (log, StallReason::Log)]
                .into_iter()
                .fold((0.0, StallReason::Memtables), |best, next| if next.0 > best.0 { next } else { best });
        if strongest >= 1.0 {
            Pressure::Stop(reason)
        } else if strongest > 0.0 {
            Pressure::Delay(MAX_DELAY.mul_f64(strongest), reason)
        } else {
            Pressure::None
        }
    }
}

/// Number of runs that a stripe may have, at this threshold, without slowing its writers down.
pub(crate) fn runs_without_delay(threshold: u64) -> u64 {
    threshold * 2
}

/// 0 up to `start`, 1 from `stop`, linear in between.
fn ramp(value: u64, start: u64, stop: u64) -> f64 {
    if value <= start {
        return 0.0;
    }
    if value >= stop {
        return 1.0;
    }
    (value - start) as f64 / (stop - start) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Load =
        Load { memory: 0, memory_budget: 1000, runs: 0, run_threshold: Some(10), log: 0, log_limit: 1000 };

    #[test]
    fn grows_in_proportion_and_stops_with_its_reason() {
        assert_eq!(CALM.pressure(), Pressure::None);
        assert_eq!(Load { memory: 1250, ..CALM }.pressure(), Pressure::None);
        assert_eq!(
            Load { memory: 1375, ..CALM }.pressure(),
            Pressure::Delay(MAX_DELAY / 2, StallReason::Memtables)
        );
        assert_eq!(Load { memory: 1500, ..CALM }.pressure(), Pressure::Stop(StallReason::Memtables));
        assert_eq!(Load { runs: 20, ..CALM }.pressure(), Pressure::None);
        assert_eq!(Load { runs: 30, ..CALM }.pressure(), Pressure::Delay(MAX_DELAY / 2, StallReason::Runs));
        assert_eq!(Load { runs: 40, ..CALM }.pressure(), Pressure::Stop(StallReason::Runs));
        assert_eq!(Load { runs: 4000, run_threshold: None, ..CALM }.pressure(), Pressure::None);
        assert_eq!(Load { log: 1000, ..CALM }.pressure(), Pressure::Stop(StallReason::Log));
    }

    #[test]
    fn the_strongest_pressure_wins() {
        let load = Load { memory: 1300, runs: 39, log: 900, ..CALM };
        assert!(matches!(load.pressure(), Pressure::Delay(_, StallReason::Runs)));
    }
}
