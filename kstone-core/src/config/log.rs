//! The bounds of the log, derived from several settings.

use std::time::Duration;

use super::database::DatabaseConfig;
use super::{KIB, MIB};
use crate::error::{Error, Result};

/// Overhead of the record of an item, and of the segments around it.
const LOG_OVERHEAD: u64 = 8 * KIB;
/// A log of few segments would stay at its limit whatever was flushed: only whole segments can be retired.
const SEGMENTS: u64 = 8;
/// The smallest segment, unless configured otherwise.
const LEAST_SEGMENT: u64 = 64 * KIB;
/// The same for a database with limited disk space.
const LEAST_WITH_QUOTA: u64 = 16 * KIB;
/// Bytes of log replayed in a second, until the rate is measured: a quarter of what a machine of 2020 achieves with
/// records of 200 bytes, so that a slow one meets its target from the start.
pub(crate) const DEFAULT_REPLAY_RATE: u64 = 100_000_000;

/// The bounds of the log, with all settings taken into account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogBounds {
    /// The maximum size of the whole log.
    pub(crate) limit: u64,
    /// The maximum while it holds a record that does not fit into `limit`.
    pub(crate) oversized: u64,
    pub(crate) segment: u64,
    /// The longest record, keys included.
    pub(crate) max_record: usize,
}

impl DatabaseConfig {
    /// The maximum size of the log in bytes: the configured one, or enough for the memory budget. A
    /// [`DatabaseConfig::recovery_target`] may lower it.
    pub fn wal_limit_bytes(&self) -> u64 {
        let limit = self.max_wal_size_bytes.unwrap_or_else(|| {
            let segments = self.wal_segment_size.unwrap_or(LEAST_SEGMENT).saturating_mul(SEGMENTS);
            (self.memory_budget_bytes() as u64).saturating_mul(3).max(segments)
        });
        self.max_total_disk_bytes.map_or(limit, |quota| {
            let segments = self.wal_segment_size.unwrap_or(LEAST_WITH_QUOTA).saturating_mul(SEGMENTS / 2);
            limit.min((quota / 8).max(segments))
        })
    }

    /// The size of a log segment in bytes: the configured one, or 16 MiB, or an eighth of a small log limit.
    pub fn wal_segment_bytes(&self) -> u64 {
        self.wal_segment_size.unwrap_or_else(|| self.segment_of(self.wal_limit_bytes()))
    }

    fn segment_of(&self, limit: u64) -> u64 {
        let least = if self.max_total_disk_bytes.is_some() { LEAST_WITH_QUOTA } else { LEAST_SEGMENT };
        (limit / SEGMENTS).clamp(least, 16 * MIB)
    }

    /// The bounds on a machine that replays this many bytes of log per second.
    pub(crate) fn log_bounds(&self, replay_rate: u64) -> LogBounds {
        let (configured, mut segment) = (self.wal_limit_bytes(), self.wal_segment_bytes());
        let mut limit = configured;
        if let Some(target) = self.recovery_target {
            limit = limit.min(bytes_in(target, replay_rate).max(SEGMENTS * LEAST_SEGMENT));
            segment = segment.min(self.segment_of(limit));
        }
        let max_record = self.max_wal_size_bytes.map_or(u64::MAX, |limit| {
            limit.saturating_sub(self.wal_segment_bytes().saturating_mul(2) + LOG_OVERHEAD)
        });
        LogBounds {
            limit,
            oversized: self.max_wal_size_bytes.unwrap_or(u64::MAX),
            segment,
            max_record: usize::try_from(max_record).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn validate_log(&self) -> Result<()> {
        let Some(limit) = self.max_wal_size_bytes else { return Ok(()) };
        // A zero byte of a key takes two bytes in the log.
        let item = self.max_item_bytes as u64 + 2 * self.max_key_bytes as u64;
        let least = 2 * self.wal_segment_bytes() + item + LOG_OVERHEAD;
        if limit >= least {
            return Ok(());
        }
        let why = format!(
            "{limit} bytes do not hold two segments and the largest item; at least {least} are needed, or smaller \
             items (max_item_bytes, max_key_bytes) or segments (wal_segment_size)"
        );
        Err(Error::config("max_wal_size_bytes", why))
    }
}

fn bytes_in(time: Duration, rate: u64) -> u64 {
    u64::try_from(u128::from(rate) * time.as_millis() / 1000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_memory_budget_leaves_room_for_segments_in_the_log() {
        let limits = |config: DatabaseConfig| (config.wal_limit_bytes(), config.wal_segment_bytes());
        assert_eq!(limits(DatabaseConfig::new()), (134_400_000, 16 << 20));
        assert_eq!(limits(DatabaseConfig::new().with_memory_budget(1)), (512 << 10, 64 << 10));
        let large = DatabaseConfig::new().with_memory_budget(1 << 20).with_wal_segment_size(64 << 20);
        assert_eq!(limits(large), (512 << 20, 64 << 20));
        let quota = |bytes| DatabaseConfig::new().with_max_total_disk_bytes(bytes);
        assert_eq!(limits(quota(64 << 20)), (8 << 20, 1 << 20));
        assert_eq!(limits(quota(512 << 10)), (64 << 10, 16 << 10));
        assert_eq!(limits(quota(1 << 40)), limits(DatabaseConfig::new()));
        assert_eq!(limits(quota(512 << 20).with_wal_segment_size(64 << 20)), (256 << 20, 64 << 20));
    }

    #[test]
    fn a_limit_holds_two_segments_and_the_largest_item() {
        for limit in [50 << 20, 100 << 20, 32_000_000] {
            DatabaseConfig::new().with_max_wal_size_bytes(limit).validate().unwrap();
        }
        let small = DatabaseConfig::new().with_max_wal_size_bytes(4 << 20);
        let Err(Error::InvalidConfig { field, why }) = small.validate() else { panic!("accepted") };
        assert_eq!(field, "max_wal_size_bytes");
        assert!(why.contains("max_item_bytes"), "{why}");
        small.clone().with_max_item_bytes(1 << 20).validate().unwrap();
        // To the byte.
        let least = 2 * (16 << 10) + 1000 + 2 * 100 + LOG_OVERHEAD;
        let config = |limit| {
            DatabaseConfig::new()
                .with_wal_segment_size(16 << 10)
                .with_max_item_bytes(1000)
                .with_max_key_bytes(100)
                .with_max_wal_size_bytes(limit)
        };
        config(least).validate().unwrap();
        assert!(config(least - 1).validate().is_err());
        assert_eq!(config(least).log_bounds(1).max_record, 1200);
    }

    #[test]
    fn the_recovery_target_lowers_the_limit_but_not_below_eight_small_segments() {
        let config = DatabaseConfig::new().with_recovery_target(Duration::from_millis(200));
        let bounds = |config: &DatabaseConfig, rate| {
            let LogBounds { limit, segment, .. } = config.log_bounds(rate);
            (limit, segment)
        };
        assert_eq!(bounds(&config, DEFAULT_REPLAY_RATE), (20_000_000, 2_500_000));
        assert_eq!(bounds(&config, 400_000_000), (80_000_000, 10_000_000));
        assert_eq!(bounds(&config, u64::MAX), (134_400_000, 16 << 20));
        assert_eq!(bounds(&config, 1), (512 << 10, 64 << 10));
        let lower = config.with_max_wal_size_bytes(30_000_000).with_wal_segment_size(1 << 20);
        assert_eq!(bounds(&lower, 400_000_000), (30_000_000, 1 << 20));
        assert_eq!(bounds(&lower, 1), (512 << 10, 64 << 10));
    }
}
