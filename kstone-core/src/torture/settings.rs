//! Settings for workloads: random tiny ones that reach every path within a hundred operations, or the user's.

use std::time::Duration;

use super::Rng;
use crate::config::{CompactionConfig, Compression, DatabaseConfig, MemtableMode, ReadMode, text};
use crate::error::Result;

/// The source of a workload's settings.
#[derive(Clone, Debug, Default)]
pub enum SettingsOf {
    /// [`any_settings`]: different for each seed, and changed to others during the run.
    #[default]
    Random,
    /// These, for all seeds. They are not changed.
    Given(Box<DatabaseConfig>, Box<CompactionConfig>),
}

impl SettingsOf {
    /// Parses `random`, `default`, or settings as `name=value,...` with the names and numbers that the manifest stores,
    /// and `stripes`.
    ///
    /// # Errors
    /// `InvalidConfig`: there is no such setting, or its value is not a number or out of range.
    pub fn named(name: &str) -> Result<Self> {
        if name == "random" {
            return Ok(Self::Random);
        }
        let defaults = (DatabaseConfig::default(), CompactionConfig::default());
        let (config, compaction) = text::changed(name, &defaults.0, &defaults.1)?;
        Ok(Self::Given(Box::new(config), Box::new(compaction)))
    }

    /// The settings to create a database with.
    pub fn first(&self, rng: &mut Rng) -> (DatabaseConfig, CompactionConfig) {
        match self {
            Self::Random => any_settings(rng),
            Self::Given(database, compaction) => (DatabaseConfig::clone(database), (**compaction).clone()),
        }
    }
}

/// Settings so small that every path is reached within a hundred operations.
pub fn tiny_settings(rng: &mut Rng) -> (DatabaseConfig, CompactionConfig) {
    let config = DatabaseConfig::new()
        .with_stripes(1 << rng.below(4))
        .with_max_memtable_records(2 + rng.below(19) as usize)
        .with_block_size(64 + rng.below(200) as usize)
        .with_target_sst_size(4096)
        .with_bloom_bits_per_key(1 + rng.below(12) as usize)
        .with_wal_segment_size(16 << 10)
        .with_compression(rng.pick(Compression::Never, &[Compression::Older, Compression::Always]))
        .with_read_mode(rng.pick(ReadMode::Mmap, &[ReadMode::Pread]))
        .with_block_cache_bytes(64 << 10 << rng.below(3));
    (config, CompactionConfig::new().with_sst_threshold(2 + rng.below(2) as usize))
}

/// Like [`tiny_settings`], but with random limits and intervals too: one in three with a limit on disk space, some of
/// them tight.
pub fn any_settings(rng: &mut Rng) -> (DatabaseConfig, CompactionConfig) {
    let (mut config, mut compaction) = tiny_settings(rng);
    if rng.one_in(3) {
        config = config.with_max_total_disk_bytes((512 << 10) << rng.pick(0u64, &[0, 1, 4]));
    }
    if rng.one_in(2) {
        config = config.with_write_buffer_size(64 << rng.below(8));
    }
    if rng.one_in(2) {
        config = config.with_wal_buffer_size(512 * rng.below(4) as usize);
    }
    if rng.one_in(3) {
        // Two segments plus the largest batch of these workloads, up to twice that.
        config = config.with_max_item_bytes(4096).with_max_key_bytes(100);
        config = config.with_max_wal_size_bytes((96 << 10) + 4096 * rng.below(24));
    }
    if rng.one_in(3) {
        config = config.with_recovery_target(Duration::from_millis(1 + rng.below(20)));
    }
    if rng.one_in(3) {
        config = config.with_memtable_mode(MemtableMode::Adaptive);
    }
    if rng.one_in(4) {
        config = config.with_memory_budget(1000 + rng.below(20_000) as usize);
    }
    if rng.one_in(3) {
        config = config.with_stats_snapshot_interval(Duration::from_millis(1 + rng.below(50)));
    }
    config = config.with_latency_sampling(rng.pick(0, &[1, 3, 64]));
    if rng.one_in(2) {
        compaction = compaction
            .with_tombstone_age(Duration::from_millis(1 + rng.below(5000)))
            .with_tombstone_percent(1 + rng.below(100) as u32)
            .with_garbage_percent(1 + rng.below(300) as u32)
            .with_idle_compaction(rng.one_in(2))
            .with_dephasing(rng.one_in(2))
            .with_check_interval(1 + rng.below(60))
            .with_max_concurrent(1 + rng.below(4) as usize);
    }
    if rng.one_in(8) {
        compaction.enabled = false;
    }
    (config, compaction)
}
