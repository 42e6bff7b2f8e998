//! The settings, their defaults, and the one place where they are checked.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::types::MAX_STRIPES;

/// Records in a memtable before it is sealed, unless configured otherwise.
pub(crate) const DEFAULT_MEMTABLE_RECORDS: usize = 1000;
/// Filter bits per key, unless configured otherwise.
pub(crate) const DEFAULT_BITS_PER_KEY: u32 = 10;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The highest memory budget that is chosen by default; see [`DatabaseConfig::memory_budget_bytes`].
const DEFAULT_BUDGET_CAP: usize = 64 << 20;
/// A record is stored with about this much more than its key and value.
const LOG_OVERHEAD: u64 = 4 * KIB;

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The bytes have reached the operating system: the death of the process loses nothing. A power cut may
    /// lose the writes of the last [`DatabaseConfig::sync_interval`], always the newest ones.
    #[default]
    Buffered,
    /// The bytes have reached the disk: a power cut loses nothing either. Concurrent writers share syncs.
    Sync,
}

/// Settings of the log, the memtables and the SSTs. Every handle has its own; they are stored in the
/// database and used again when it is opened without any.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatabaseConfig {
    /// A stripe's memtable is sealed and flushed at this many bytes of keys and values. Default: no such
    /// limit, only records and the memory budget count.
    pub max_memtable_size_bytes: Option<usize>,
    /// A stripe's memtable is sealed and flushed at this many records, tombstones included. Default 1000.
    /// More: fewer and larger SSTs, more memory, longer recovery.
    pub max_memtable_records: usize,
    /// The log is kept below this many bytes by flushing the stripes that need its oldest part. Default:
    /// three times the memory budget, but at least eight segments.
    pub max_wal_size_bytes: Option<u64>,
    /// Filter bits per key of new SSTs, 1 to 64. Default 10, about 1 % false positives.
    pub bloom_bits_per_key: u32,
    /// All memtables together hold at most about this many bytes; above it the fullest are flushed.
    /// Default: half of what all stripes at their record limit would hold, at most 64 MiB.
    pub memory_budget: Option<usize>,
    /// What a power cut may lose at [`Durability::Buffered`]. Default 1 s. Zero means never to sync in the
    /// background.
    pub sync_interval: Duration,
    /// How often flushed SSTs are made durable and the log before them is given back. Default 2 s.
    pub checkpoint_interval: Duration,
    /// Bytes in a data block, uncompressed. Default 4 KiB; 64 bytes to 1 MiB.
    pub block_size: usize,
    /// Bytes in a log segment. Default 16 MiB, or less with a small log limit; at least 16 KiB.
    pub wal_segment_size: Option<u64>,
    /// Bytes in one SST; what is longer becomes several parts of one run. Default 32 MiB; at least 4 KiB.
    pub target_sst_size: u64,
    /// Bytes in a key, partition and sort key together. Default and most: 64 KiB.
    pub max_key_bytes: usize,
    /// Bytes in an encoded item. Default 16 MiB, at most 256 MiB.
    pub max_item_bytes: usize,
    /// Bytes in an encoded batch. Default 64 MiB, at most 1 GiB.
    pub max_batch_bytes: usize,
    /// A write that waits longer than this for background work fails with `WriteStalled`. Default 10 s.
    pub write_stall_limit: Duration,
    /// Stripes of a new database: a power of two, 1 to 256. Default 256; cannot change later.
    pub stripes: Option<usize>,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            max_memtable_size_bytes: None,
            max_memtable_records: DEFAULT_MEMTABLE_RECORDS,
            max_wal_size_bytes: None,
            bloom_bits_per_key: DEFAULT_BITS_PER_KEY,
            memory_budget: None,
            sync_interval: Duration::from_secs(1),
            checkpoint_interval: Duration::from_secs(2),
            block_size: 4096,
            wal_segment_size: None,
            target_sst_size: 32 * MIB,
            max_key_bytes: 64 << 10,
            max_item_bytes: 16 << 20,
            max_batch_bytes: 64 << 20,
            write_stall_limit: Duration::from_secs(10),
            stripes: None,
        }
    }
}

macro_rules! with {
    ($($(#[$doc:meta])* $name:ident($field:ident: $type:ty) $value:expr;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $field: $type) -> Self {
            self.$field = $value;
            self
        }
    )*};
}

impl DatabaseConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    with! {
        /// Sets [`DatabaseConfig::max_memtable_size_bytes`].
        with_max_memtable_size_bytes(max_memtable_size_bytes: usize) Some(max_memtable_size_bytes);
        /// Sets [`DatabaseConfig::max_memtable_records`].
        with_max_memtable_records(max_memtable_records: usize) max_memtable_records;
        /// Sets [`DatabaseConfig::max_wal_size_bytes`].
        with_max_wal_size_bytes(max_wal_size_bytes: u64) Some(max_wal_size_bytes);
        /// Sets [`DatabaseConfig::bloom_bits_per_key`].
        with_bloom_bits_per_key(bloom_bits_per_key: u32) bloom_bits_per_key;
        /// Sets [`DatabaseConfig::memory_budget`].
        with_memory_budget(memory_budget: usize) Some(memory_budget);
        /// Sets [`DatabaseConfig::sync_interval`].
        with_sync_interval(sync_interval: Duration) sync_interval;
        /// Sets [`DatabaseConfig::checkpoint_interval`].
        with_checkpoint_interval(checkpoint_interval: Duration) checkpoint_interval;
        /// Sets [`DatabaseConfig::block_size`].
        with_block_size(block_size: usize) block_size;
        /// Sets [`DatabaseConfig::wal_segment_size`].
        with_wal_segment_size(wal_segment_size: u64) Some(wal_segment_size);
        /// Sets [`DatabaseConfig::target_sst_size`].
        with_target_sst_size(target_sst_size: u64) target_sst_size;
        /// Sets [`DatabaseConfig::max_key_bytes`].
        with_max_key_bytes(max_key_bytes: usize) max_key_bytes;
        /// Sets [`DatabaseConfig::max_item_bytes`].
        with_max_item_bytes(max_item_bytes: usize) max_item_bytes;
        /// Sets [`DatabaseConfig::max_batch_bytes`].
        with_max_batch_bytes(max_batch_bytes: usize) max_batch_bytes;
        /// Sets [`DatabaseConfig::write_stall_limit`].
        with_write_stall_limit(write_stall_limit: Duration) write_stall_limit;
        /// Sets [`DatabaseConfig::stripes`].
        with_stripes(stripes: usize) Some(stripes);
    }

    /// The bytes all memtables together may hold. Half of the sum of the stripes' limits, because hashing
    /// fills all of them at the same time and most would be flushed full at once; flushing the fullest first
    /// spreads that out at nearly full size.
    pub fn memory_budget_bytes(&self) -> usize {
        /// What a record takes in a memtable, about: 200 bytes of key and value plus the tree around it.
        const RECORD: usize = 350;
        self.memory_budget.unwrap_or_else(|| {
            let stripe = self.max_memtable_size_bytes.unwrap_or(usize::MAX);
            let stripe = stripe.min(self.max_memtable_records.saturating_mul(RECORD));
            // One memtable of the configured size always fits, however large it is.
            (stripe.saturating_mul(MAX_STRIPES) / 2).min(DEFAULT_BUDGET_CAP).max(stripe.saturating_mul(2))
        })
    }

    /// The bytes the log may take before stripes are flushed to shorten it.
    pub fn wal_limit_bytes(&self) -> u64 {
        // A log of few segments is at its limit whatever was flushed: only whole segments can be given back.
        const SEGMENTS: u64 = 8;
        self.max_wal_size_bytes.unwrap_or_else(|| {
            let segments = self.wal_segment_size.unwrap_or(64 * KIB).saturating_mul(SEGMENTS);
            (self.memory_budget_bytes() as u64).saturating_mul(3).max(segments)
        })
    }

    /// The bytes of one log segment: what is configured, else 16 MiB, or an eighth of a small log limit.
    pub fn wal_segment_bytes(&self) -> u64 {
        self.wal_segment_size.unwrap_or_else(|| (self.wal_limit_bytes() / 8).clamp(64 * KIB, 16 * MIB))
    }

    /// Checks every field; names the first that is out of range, and why.
    pub fn validate(&self) -> Result<()> {
        range("max_memtable_records", self.max_memtable_records as u64, 1, 100_000_000)?;
        if let Some(bytes) = self.max_memtable_size_bytes {
            range("max_memtable_size_bytes", bytes as u64, 1, 64 << 30)?;
        }
        range("bloom_bits_per_key", u64::from(self.bloom_bits_per_key), 1, 64)?;
        if let Some(bytes) = self.memory_budget {
            range("memory_budget", bytes as u64, 1, 1 << 40)?;
        }
        range("block_size", self.block_size as u64, 64, MIB)?;
        range("target_sst_size", self.target_sst_size, 4 * KIB, 1 << 30)?;
        range("max_key_bytes", self.max_key_bytes as u64, 1, 64 * KIB)?;
        range("max_item_bytes", self.max_item_bytes as u64, 1, 256 * MIB)?;
        range("max_batch_bytes", self.max_batch_bytes as u64, 1, 1 << 30)?;
        range_ms("checkpoint_interval", self.checkpoint_interval)?;
        range_ms("write_stall_limit", self.write_stall_limit)?;
        if let Some(stripes) = self.stripes
            && !(stripes.is_power_of_two() && stripes <= MAX_STRIPES)
        {
            return Err(Error::config("stripes", format!("{stripes} is not a power of two from 1 to 256")));
        }
        if let Some(bytes) = self.wal_segment_size {
            range("wal_segment_size", bytes, 16 * KIB, 1 << 30)?;
        }
        if self.max_batch_bytes < self.max_item_bytes {
            return Err(Error::config(
                "max_batch_bytes",
                "smaller than max_item_bytes: no single item of that size could be written",
            ));
        }
        if let Some(limit) = self.max_wal_size_bytes {
            let least = 2 * (self.wal_segment_bytes() + LOG_OVERHEAD);
            if limit < least {
                let why = format!("{limit} bytes do not hold two segments; at least {least} are needed");
                return Err(Error::config("max_wal_size_bytes", why));
            }
        }
        Ok(())
    }

    /// Itself, if it is valid.
    pub(crate) fn validated(self) -> Result<Self> {
        self.validate().map(|()| self)
    }

    /// All settings as named numbers, for the manifest.
    pub(crate) fn to_settings(&self) -> Vec<(String, u64)> {
        let all = [
            ("max_memtable_size_bytes", self.max_memtable_size_bytes.map(|v| v as u64)),
            ("max_memtable_records", Some(self.max_memtable_records as u64)),
            ("max_wal_size_bytes", self.max_wal_size_bytes),
            ("bloom_bits_per_key", Some(u64::from(self.bloom_bits_per_key))),
            ("memory_budget", self.memory_budget.map(|v| v as u64)),
            ("sync_interval_ms", Some(millis(self.sync_interval))),
            ("checkpoint_interval_ms", Some(millis(self.checkpoint_interval))),
            ("block_size", Some(self.block_size as u64)),
            ("wal_segment_size", self.wal_segment_size),
            ("target_sst_size", Some(self.target_sst_size)),
            ("max_key_bytes", Some(self.max_key_bytes as u64)),
            ("max_item_bytes", Some(self.max_item_bytes as u64)),
            ("max_batch_bytes", Some(self.max_batch_bytes as u64)),
            ("write_stall_limit_ms", Some(millis(self.write_stall_limit))),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?))).collect()
    }

    /// The settings stored in a manifest; names it does not know are skipped, missing ones keep the default.
    pub(crate) fn from_settings(settings: &[(String, u64)]) -> Self {
        let mut config = Self::default();
        for (name, value) in settings {
            let value = *value;
            match name.as_str() {
                "max_memtable_size_bytes" => config.max_memtable_size_bytes = Some(value as usize),
                "max_memtable_records" => config.max_memtable_records = value as usize,
                "max_wal_size_bytes" => config.max_wal_size_bytes = Some(value),
                "bloom_bits_per_key" => config.bloom_bits_per_key = value.min(64) as u32,
                "memory_budget" => config.memory_budget = Some(value as usize),
                "sync_interval_ms" => config.sync_interval = Duration::from_millis(value),
                "checkpoint_interval_ms" => config.checkpoint_interval = Duration::from_millis(value),
                "block_size" => config.block_size = value as usize,
                "wal_segment_size" => config.wal_segment_size = Some(value),
                "target_sst_size" => config.target_sst_size = value,
                "max_key_bytes" => config.max_key_bytes = value as usize,
                "max_item_bytes" => config.max_item_bytes = value as usize,
                "max_batch_bytes" => config.max_batch_bytes = value as usize,
                "write_stall_limit_ms" => config.write_stall_limit = Duration::from_millis(value),
                _ => {}
            }
        }
        config
    }
}

/// When and how much SSTs are merged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionConfig {
    /// Whether stripes are compacted without being asked to. Default true. When off, writes are never slowed
    /// by the number of runs.
    pub enabled: bool,
    /// A stripe is compacted when it has this many runs, at least 2. Default 10. Fewer: faster reads, more
    /// rewriting.
    pub sst_threshold: usize,
    /// Seconds between sweeps that look for stripes due for compaction. Default 60. A flush makes its stripe
    /// due at once, so this bounds only what no flush would notice.
    pub check_interval_secs: u64,
    /// How many compactions run at the same time, each on a stripe of its own. Default 4, at most 256.
    pub max_concurrent_compactions: usize,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        Self { enabled: true, sst_threshold: 10, check_interval_secs: 60, max_concurrent_compactions: 4 }
    }
}

impl CompactionConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is compacted unless it is asked for.
    pub fn disabled() -> Self {
        Self { enabled: false, ..Self::default() }
    }

    with! {
        /// Sets [`CompactionConfig::sst_threshold`].
        with_sst_threshold(sst_threshold: usize) sst_threshold;
        /// Sets [`CompactionConfig::check_interval_secs`], in seconds.
        with_check_interval(check_interval_secs: u64) check_interval_secs;
        /// Sets [`CompactionConfig::max_concurrent_compactions`].
        with_max_concurrent(max_concurrent_compactions: usize) max_concurrent_compactions;
    }

    /// Checks every field; names the first that is out of range, and why.
    pub fn validate(&self) -> Result<()> {
        range("sst_threshold", self.sst_threshold as u64, 2, 1000)?;
        range("check_interval_secs", self.check_interval_secs, 1, 86_400 * 365)?;
        range("max_concurrent_compactions", self.max_concurrent_compactions as u64, 1, MAX_STRIPES as u64)
    }

    /// Itself, if it is valid.
    pub(crate) fn validated(self) -> Result<Self> {
        self.validate().map(|()| self)
    }

    pub(crate) fn to_settings(&self) -> Vec<(String, u64)> {
        [
            ("compaction_enabled", u64::from(self.enabled)),
            ("sst_threshold", self.sst_threshold as u64),
            ("check_interval_secs", self.check_interval_secs),
            ("max_concurrent_compactions", self.max_concurrent_compactions as u64),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .to_vec()
    }

    pub(crate) fn from_settings(settings: &[(String, u64)]) -> Self {
        let mut config = Self::default();
        for (name, value) in settings {
            match name.as_str() {
                "compaction_enabled" => config.enabled = *value != 0,
                "sst_threshold" => config.sst_threshold = *value as usize,
                "check_interval_secs" => config.check_interval_secs = *value,
                "max_concurrent_compactions" => config.max_concurrent_compactions = *value as usize,
                _ => {}
            }
        }
        config
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

fn range(field: &'static str, value: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::config(field, format!("{value} is not between {least} and {most}")))
}

fn range_ms(field: &'static str, value: Duration) -> Result<()> {
    if (Duration::from_millis(1)..=Duration::from_secs(86_400)).contains(&value) {
        return Ok(());
    }
    Err(Error::config(field, format!("{value:?} is not between 1 ms and one day")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_settings_round_trip() {
        let config = DatabaseConfig::new()
            .with_max_memtable_records(7)
            .with_max_memtable_size_bytes(8)
            .with_max_wal_size_bytes(9 << 20)
            .with_bloom_bits_per_key(11)
            .with_memory_budget(12)
            .with_sync_interval(Duration::from_millis(13))
            .with_checkpoint_interval(Duration::from_millis(14))
            .with_block_size(150)
            .with_wal_segment_size(16 << 10)
            .with_target_sst_size(17 << 10)
            .with_max_key_bytes(18)
            .with_max_item_bytes(19)
            .with_max_batch_bytes(20)
            .with_write_stall_limit(Duration::from_millis(21));
        config.validate().unwrap();
        assert_eq!(DatabaseConfig::from_settings(&config.to_settings()), config);
        let compaction =
            CompactionConfig::disabled().with_sst_threshold(3).with_check_interval(4).with_max_concurrent(5);
        assert_eq!(CompactionConfig::from_settings(&compaction.to_settings()), compaction);
        DatabaseConfig::default().validate().unwrap();
        CompactionConfig::default().validate().unwrap();
    }

    #[test]
    fn a_small_memory_budget_leaves_room_for_segments_in_the_log() {
        let limits = |config: DatabaseConfig| (config.wal_limit_bytes(), config.wal_segment_bytes());
        assert_eq!(limits(DatabaseConfig::new()), (134_400_000, 16 << 20));
        assert_eq!(limits(DatabaseConfig::new().with_memory_budget(1)), (512 << 10, 64 << 10));
        let large = DatabaseConfig::new().with_memory_budget(1 << 20).with_wal_segment_size(64 << 20);
        assert_eq!(limits(large), (512 << 20, 64 << 20));
    }

    #[test]
    fn zeros_and_contradictions_are_refused_by_name() {
        let c = DatabaseConfig::new;
        for (field, config) in [
            ("max_memtable_records", c().with_max_memtable_records(0)),
            ("max_memtable_size_bytes", c().with_max_memtable_size_bytes(0)),
            ("max_wal_size_bytes", c().with_max_wal_size_bytes(0)),
            ("max_wal_size_bytes", c().with_max_wal_size_bytes(20 << 20).with_wal_segment_size(16 << 20)),
            ("bloom_bits_per_key", c().with_bloom_bits_per_key(0)),
            ("memory_budget", c().with_memory_budget(0)),
            ("checkpoint_interval", c().with_checkpoint_interval(Duration::ZERO)),
            ("block_size", c().with_block_size(0)),
            ("wal_segment_size", c().with_wal_segment_size(0)),
            ("target_sst_size", c().with_target_sst_size(0)),
            ("max_key_bytes", c().with_max_key_bytes(0)),
            ("max_item_bytes", c().with_max_item_bytes(0)),
            ("max_batch_bytes", c().with_max_batch_bytes(0)),
            ("max_batch_bytes", c().with_max_batch_bytes(1000)),
            ("write_stall_limit", c().with_write_stall_limit(Duration::ZERO)),
            ("stripes", c().with_stripes(0)),
            ("stripes", c().with_stripes(3)),
            ("stripes", c().with_stripes(512)),
        ] {
            let Err(Error::InvalidConfig { field: named, .. }) = config.validate() else {
                panic!("{field} was accepted: {config:?}");
            };
            assert_eq!(named, field);
        }
        for (field, config) in [
            ("sst_threshold", CompactionConfig::new().with_sst_threshold(0)),
            ("check_interval_secs", CompactionConfig::new().with_check_interval(0)),
            ("max_concurrent_compactions", CompactionConfig::new().with_max_concurrent(0)),
        ] {
            assert!(matches!(config.validate(), Err(Error::InvalidConfig { field: f, .. }) if f == field));
        }
    }
}
