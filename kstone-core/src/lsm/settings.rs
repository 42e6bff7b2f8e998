//! The settings in force, with values derived from them.

use crate::config::{CompactionConfig, DEFAULT_REPLAY_RATE, DatabaseConfig, LogBounds};
use crate::wal::LogLimits;

/// The name of the replay rate among the stored settings, in bytes per second.
const REPLAY_RATE: &str = "replay_rate";
/// Settings are replaced as a whole: code that decides by several of them loads them once.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) database: DatabaseConfig,
    pub(crate) compaction: CompactionConfig,
    pub(crate) memory_budget: usize,
    pub(crate) log: LogBounds,
    /// Bytes of log that this machine replays per second, once measured.
    pub(crate) replay_rate: Option<u64>,
}

impl Settings {
    pub(super) fn new(
        database: DatabaseConfig,
        compaction: CompactionConfig,
        replay_rate: Option<u64>,
    ) -> Self {
        Self {
            memory_budget: database.memory_budget_bytes(),
            log: database.log_bounds(replay_rate.unwrap_or(DEFAULT_REPLAY_RATE)),
            database,
            compaction,
            replay_rate,
        }
    }

    /// All settings as the manifest stores them: named numbers.
    pub(super) fn stored(&self) -> Vec<(String, u64)> {
        let mut stored = self.database.to_settings();
        stored.extend(self.compaction.to_settings());
        stored.extend(self.replay_rate.map(|rate| (REPLAY_RATE.into(), rate)));
        stored
    }

    /// The settings that the log needs.
    pub(super) fn log_limits(&self) -> LogLimits {
        LogLimits {
            segment_size: self.log.segment,
            limit: self.log.limit,
            oversized: self.log.oversized,
            write_buffer: self.database.write_buffer_size as u64,
            buffer: self.database.wal_buffer_size as u64,
        }
    }
}

/// The replay rate among the stored settings.
pub(crate) fn stored_replay_rate(settings: &[(String, u64)]) -> Option<u64> {
    settings.iter().find(|(name, rate)| name == REPLAY_RATE && *rate > 0).map(|(_, rate)| *rate)
}
