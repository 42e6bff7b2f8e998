//! The settings, their defaults, and the one place where they are checked.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::types::MAX_STRIPES;

mod compaction;
mod log;
pub mod text;

pub use compaction::CompactionConfig;
pub(crate) use log::{DEFAULT_REPLAY_RATE, LogBounds};

/// Records in a memtable before it is sealed, unless configured otherwise.
pub(crate) const DEFAULT_MEMTABLE_RECORDS: usize = 1000;
/// The most that adaptive memtables take, in records, unless more is configured.
pub(crate) const ADAPTIVE_RECORDS: usize = 10_000;
/// Filter bits per key, unless configured otherwise.
pub(crate) const DEFAULT_BITS_PER_KEY: usize = 10;

/// The most that [`DatabaseConfig::max_batch_bytes`] may be: no record of the log has a longer payload.
pub(crate) const MAX_BATCH_BYTES: u64 = 1 << 30;
/// The most that [`DatabaseConfig::max_key_bytes`] may be.
pub(crate) const MAX_KEY_BYTES: usize = 64 << 10;

/// A database with a limit on its space has at most a stripe for so much of it, unless their number is set.
const QUOTA_PER_STRIPE: u64 = 512 * KIB;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The highest memory budget that is chosen by default, see [`DatabaseConfig::memory_budget_bytes`]: half of what
/// stripes of 10,000 records take fits into it.
const DEFAULT_BUDGET_CAP: usize = 512 << 20;

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The bytes have reached the operating system: the death of the process loses nothing. A power cut may
    /// lose the writes of the last [`DatabaseConfig::sync_interval`], always the newest ones.
    #[default]
    Buffered,
    /// The bytes have reached the disk: a power cut loses nothing either. Concurrent writers share syncs. Others may
    /// read a write before it has reached the disk, and may have read one whose writer then learns that its sync failed.
    Sync,
}

/// Which blocks of new SSTs are compressed with LZ4. A block that would not shrink by at least a third is stored
/// as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Compression {
    /// None.
    Never,
    /// Those of merges that take in a stripe's oldest run: most of the data, and the part of it that is read least.
    #[default]
    Older,
    /// All, those of flushes too.
    Always,
}

/// How SSTs are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReadMode {
    /// Through a mapping: fastest, and the operating system's cache is the cache. The first get of one of eight blocks
    /// loads all of them, up to 64 KiB, later ones what they touch; queries from their third block on, scans and merges
    /// load up to 256 KiB in front of them. A bad sector kills the process with `SIGBUS`, and a block's checksum is
    /// verified when it is first touched only.
    #[default]
    Mmap,
    /// With `pread` into a cache of [`DatabaseConfig::block_cache_bytes`]: for network file systems, for an
    /// error instead of a signal, and for data far larger than memory, where filters and indexes then stay in memory
    /// whatever else is read. Each block read from the file is verified. At most 32 SSTs are kept open; a block of
    /// another costs an `open` as well.
    Pread,
}

/// What decides when a stripe's memtable is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MemtableMode {
    /// [`DatabaseConfig::max_memtable_records`] as it is.
    #[default]
    Fixed,
    /// A limit that follows each stripe's write rate and the memory that the machine (or its control group) has left,
    /// set anew with each flush. At 10,000 writes a second, evenly spread, and 1 GB of memory: 10,000 records. With
    /// less than 100 MB: 500. Otherwise [`DatabaseConfig::max_memtable_records`] and what the square root of the
    /// write rate allows above it, within [`DatabaseConfig::memory_budget`]. Fewer flushes under load, for more
    /// memory and a longer log.
    Adaptive,
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
    /// The files of the log never take more than this many bytes: stripes that need its oldest part are flushed in
    /// time, and writers wait for that, up to [`DatabaseConfig::write_stall_limit`]. It must hold two segments and
    /// the largest item; batches that it cannot hold are refused with [`Error::BatchTooLarge`]. A lower limit set
    /// while the database is open is reached by itself. Default: three times the memory budget, but at least eight
    /// segments, and what a single larger batch takes.
    pub max_wal_size_bytes: Option<u64>,
    /// All files of the database together never take more than this many bytes, each counted in whole units of 4 KiB:
    /// at the limit, puts fail with [`Error::DiskFull`], while reads, deletes and compaction go on. Default: none; at
    /// least 512 KiB, or eight log segments of [`DatabaseConfig::wal_segment_size`].
    ///
    /// Some of it is kept free, so that what was accepted can always be flushed, and what is deleted be merged away:
    /// the room to merge the largest stripe whole, a log segment, and space for tombstones and manifest. Of 64 MiB,
    /// values of 400 bytes fill about 70 % when spread over many partitions, and about 40 % with all data in one
    /// partition, and so in one stripe, which takes its size again to be merged. A refused put
    /// flushes and merges what can free space first, and waits for that as long as
    /// [`DatabaseConfig::write_stall_limit`]; puts work again by themselves once there is space.
    ///
    /// Of a small limit, more is kept: for each stripe that holds something 8 KiB until it is flushed and a file in whole
    /// pages after that. A database that is created with a limit has therefore one stripe for each 64 KiB of it, 256 from
    /// 16 MiB on, unless [`DatabaseConfig::stripes`] says how many. Values of 100 bytes then fill about a sixth of 512 KiB
    /// and a quarter of 1 MiB; with 256 stripes, 1 MiB is full after a few hundred.
    ///
    /// A database that is larger than the limit, or leaves less than that free when the limit is set, opens all the
    /// same, and takes deletes: to come down it may then grow by what it needs for merging, never by puts. Smaller: shorter log segments and less log, at most an eighth of it.
    pub max_total_disk_bytes: Option<u64>,
    /// The bytes of records that one write call to the log gathers from concurrent writers, 64 bytes to 16 MiB.
    /// Default 1024. More: fewer calls under load, larger buffers. A longer record is written alone, and what was
    /// acknowledged never waits in it. SSTs are written in units of this many bytes, but at least 256 KiB.
    pub write_buffer_size: usize,
    /// Filter bits per key of new SSTs, 1 to 64. Default 10, about 1 % false positives.
    pub bloom_bits_per_key: usize,
    /// All memtables together hold at most about this many bytes; above it the fullest are flushed.
    /// Default: half of what all stripes at their record limit would hold, at most 512 MiB: 45 MB with 1000 records;
    /// with adaptive memtables, that of their highest limit, 448 MB.
    pub memory_budget: Option<usize>,
    /// Whether [`DatabaseConfig::max_memtable_records`] holds as it is. Default: it does.
    pub memtable_mode: MemtableMode,
    /// Recovery after a crash should take no longer than this, 1 ms to one day: bounds the log, below
    /// [`DatabaseConfig::max_wal_size_bytes`], by the rate at which this machine replayed it the last times; until
    /// that is known, by 100 MB a second. The log may always take eight segments of 64 KiB. Default: no such bound.
    pub recovery_target: Option<Duration>,
    /// What a power cut may lose at [`Durability::Buffered`], 1 ms to one day. Default 1 s. Zero means never to sync in
    /// the background.
    pub sync_interval: Duration,
    /// How often flushed SSTs are made durable and the log before them is given back. Default 2 s.
    pub checkpoint_interval: Duration,
    /// Bytes in a data block, uncompressed. Default 4 KiB; 64 bytes to 1 MiB.
    pub block_size: usize,
    /// Which blocks of new SSTs are compressed. Default: those of older runs.
    pub compression: Compression,
    /// How SSTs are read. Default: mapped.
    pub read_mode: ReadMode,
    /// Bytes of blocks kept in memory: those read with [`ReadMode::Pread`], and decompressed ones. Default 8 MiB;
    /// 64 KiB to 1 TiB. Scans and merges put nothing into it. Indexes and filters of SSTs read with `pread`, about 7
    /// bytes a record, come on top.
    pub block_cache_bytes: usize,
    /// Bytes in a log segment, 16 KiB to 1 GiB. Default: an eighth of the log's limit, 64 KiB to 16 MiB.
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
    /// How often the counters are written to `STATS.json` in the directory, for tools that look at it from outside,
    /// from its opening until it is closed; 1 ms to one day. Not for databases in memory.
    /// Default: never.
    pub stats_snapshot_interval: Option<Duration>,
    /// On each thread, one of this many puts, gets, deletes, batches and queries is timed for
    /// [`LsmEngine::latencies`](crate::lsm::LsmEngine::latencies), 0 to 1,000,000; 0: none. Background work is always
    /// timed. Default 64, which costs about a nanosecond an operation.
    pub latency_sampling: u32,
    /// Stripes of a new database: a power of two, 1 to 256. Default 256, or fewer where `max_total_disk_bytes` is less
    /// than 512 KiB for each; cannot change later.
    pub stripes: Option<usize>,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            max_memtable_size_bytes: None,
            max_memtable_records: DEFAULT_MEMTABLE_RECORDS,
            max_wal_size_bytes: None,
            max_total_disk_bytes: None,
            write_buffer_size: 1024,
            bloom_bits_per_key: DEFAULT_BITS_PER_KEY,
            memory_budget: None,
            memtable_mode: MemtableMode::Fixed,
            recovery_target: None,
            sync_interval: Duration::from_secs(1),
            checkpoint_interval: Duration::from_secs(2),
            block_size: 4096,
            compression: Compression::Older,
            read_mode: ReadMode::Mmap,
            block_cache_bytes: 8 << 20,
            wal_segment_size: None,
            target_sst_size: 32 * MIB,
            max_key_bytes: MAX_KEY_BYTES,
            max_item_bytes: 16 << 20,
            max_batch_bytes: 64 << 20,
            write_stall_limit: Duration::from_secs(10),
            stats_snapshot_interval: None,
            latency_sampling: 64,
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

pub(crate) use with;

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
        /// Sets [`DatabaseConfig::max_total_disk_bytes`].
        with_max_total_disk_bytes(max_total_disk_bytes: u64) Some(max_total_disk_bytes);
        /// Sets [`DatabaseConfig::write_buffer_size`].
        with_write_buffer_size(write_buffer_size: usize) write_buffer_size;
        /// Sets [`DatabaseConfig::bloom_bits_per_key`].
        with_bloom_bits_per_key(bloom_bits_per_key: usize) bloom_bits_per_key;
        /// Sets [`DatabaseConfig::memory_budget`].
        with_memory_budget(memory_budget: usize) Some(memory_budget);
        /// Sets [`DatabaseConfig::memtable_mode`].
        with_memtable_mode(memtable_mode: MemtableMode) memtable_mode;
        /// Sets [`DatabaseConfig::recovery_target`].
        with_recovery_target(recovery_target: Duration) Some(recovery_target);
        /// Sets [`DatabaseConfig::sync_interval`].
        with_sync_interval(sync_interval: Duration) sync_interval;
        /// Sets [`DatabaseConfig::checkpoint_interval`].
        with_checkpoint_interval(checkpoint_interval: Duration) checkpoint_interval;
        /// Sets [`DatabaseConfig::block_size`].
        with_block_size(block_size: usize) block_size;
        /// Sets [`DatabaseConfig::compression`].
        with_compression(compression: Compression) compression;
        /// Sets [`DatabaseConfig::read_mode`].
        with_read_mode(read_mode: ReadMode) read_mode;
        /// Sets [`DatabaseConfig::block_cache_bytes`].
        with_block_cache_bytes(block_cache_bytes: usize) block_cache_bytes;
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
        /// Sets [`DatabaseConfig::stats_snapshot_interval`].
        with_stats_snapshot_interval(stats_snapshot_interval: Duration) Some(stats_snapshot_interval);
        /// Sets [`DatabaseConfig::latency_sampling`].
        with_latency_sampling(latency_sampling: u32) latency_sampling;
        /// Sets [`DatabaseConfig::stripes`].
        with_stripes(stripes: usize) Some(stripes);
    }

    /// The bytes all memtables together may hold. Half of the sum of the stripes' limits, because hashing
    /// fills all of them at the same time and most would be flushed full at once; flushing the fullest first
    /// spreads that out at nearly full size.
    pub fn memory_budget_bytes(&self) -> usize {
        /// What a record takes in a memtable, about: 200 bytes of key and value plus the tree around it.
        const RECORD: usize = 350;
        let records = match self.memtable_mode {
            MemtableMode::Fixed => self.max_memtable_records,
            MemtableMode::Adaptive => self.max_memtable_records.max(ADAPTIVE_RECORDS),
        };
        self.memory_budget.unwrap_or_else(|| {
            let stripe = self.max_memtable_size_bytes.unwrap_or(usize::MAX);
            let stripe = stripe.min(records.saturating_mul(RECORD));
            // One memtable of the configured size always fits, however large it is.
            (stripe.saturating_mul(MAX_STRIPES) / 2).min(DEFAULT_BUDGET_CAP).max(stripe.saturating_mul(2))
        })
    }

    /// Checks every field; names the first that is out of range, and why.
    pub fn validate(&self) -> Result<()> {
        range("max_memtable_records", self.max_memtable_records as u64, 1, 100_000_000)?;
        if let Some(bytes) = self.max_memtable_size_bytes {
            range("max_memtable_size_bytes", bytes as u64, 1, 64 << 30)?;
        }
        range("bloom_bits_per_key", self.bloom_bits_per_key as u64, 1, 64)?;
        if let Some(bytes) = self.memory_budget {
            range("memory_budget", bytes as u64, 1, 1 << 40)?;
        }
        range("write_buffer_size", self.write_buffer_size as u64, 64, 16 * MIB)?;
        range("block_cache_bytes", self.block_cache_bytes as u64, 64 * KIB, 1 << 40)?;
        range("latency_sampling", self.latency_sampling.into(), 0, 1_000_000)?;
        if let Some(interval) = self.stats_snapshot_interval {
            range_ms("stats_snapshot_interval", interval)?;
        }
        if let Some(target) = self.recovery_target {
            range_ms("recovery_target", target)?;
        }
        range("block_size", self.block_size as u64, 64, MIB)?;
        range("target_sst_size", self.target_sst_size, 4 * KIB, 1 << 30)?;
        range("max_key_bytes", self.max_key_bytes as u64, 1, MAX_KEY_BYTES as u64)?;
        range("max_item_bytes", self.max_item_bytes as u64, 1, 256 * MIB)?;
        range("max_batch_bytes", self.max_batch_bytes as u64, 1, MAX_BATCH_BYTES)?;
        if !self.sync_interval.is_zero() {
            range_ms("sync_interval", self.sync_interval)?;
        }
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
        if let Some(quota) = self.max_total_disk_bytes {
            let least = self.wal_segment_size.unwrap_or(0).max(64 * KIB).saturating_mul(8);
            if quota < least {
                let why = format!(
                    "{quota} bytes do not hold two log segments and what must stay free; at least {least} are needed"
                );
                return Err(Error::config("max_total_disk_bytes", why));
            }
        }
        if self.max_batch_bytes < self.max_item_bytes {
            return Err(Error::config(
                "max_batch_bytes",
                "smaller than max_item_bytes: no single item of that size could be written",
            ));
        }
        self.validate_log()
    }

    /// The stripes of a new database: 256, or fewer below a small limit on disk space. 8 KiB are set aside for the SST
    /// that each memtable becomes: all together are at most half of what puts may take ahead of merges.
    pub(crate) fn default_stripes(&self) -> usize {
        let most = self.max_total_disk_bytes.map_or(MAX_STRIPES as u64, |quota| quota / QUOTA_PER_STRIPE);
        let most = most.clamp(1, MAX_STRIPES as u64) as usize;
        1 << most.ilog2()
    }

    /// Itself, if it is valid.
    pub(crate) fn validated(self) -> Result<Self> {
        self.validate().map(|()| self)
    }

    /// The settings stored in a manifest, as far as they are valid, and which are not.
    pub(crate) fn stored(settings: &[(String, u64)]) -> (Self, Vec<InvalidSetting>) {
        stored(settings, |settings| Self::from_settings(settings).validated())
    }

    /// All settings as named numbers, for the manifest.
    pub(crate) fn to_settings(&self) -> Vec<(String, u64)> {
        let all = [
            ("max_memtable_size_bytes", self.max_memtable_size_bytes.map(|v| v as u64)),
            ("max_memtable_records", Some(self.max_memtable_records as u64)),
            ("max_wal_size_bytes", self.max_wal_size_bytes),
            ("bloom_bits_per_key", Some(self.bloom_bits_per_key as u64)),
            ("max_total_disk_bytes", self.max_total_disk_bytes),
            ("write_buffer_size", Some(self.write_buffer_size as u64)),
            ("memory_budget", self.memory_budget.map(|v| v as u64)),
            ("memtable_mode", Some(self.memtable_mode as u64)),
            ("recovery_target_ms", self.recovery_target.map(millis)),
            ("compression", Some(self.compression as u64)),
            ("read_mode", Some(self.read_mode as u64)),
            ("block_cache_bytes", Some(self.block_cache_bytes as u64)),
            ("stats_snapshot_interval_ms", self.stats_snapshot_interval.map(millis)),
            ("latency_sampling", Some(self.latency_sampling.into())),
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
                "bloom_bits_per_key" => config.bloom_bits_per_key = value as usize,
                "max_total_disk_bytes" => config.max_total_disk_bytes = Some(value),
                "write_buffer_size" => config.write_buffer_size = value as usize,
                "memtable_mode" if value == MemtableMode::Adaptive as u64 => {
                    config.memtable_mode = MemtableMode::Adaptive;
                }
                "recovery_target_ms" => config.recovery_target = Some(Duration::from_millis(value)),
                "compression" if value == Compression::Never as u64 => {
                    config.compression = Compression::Never
                }
                "compression" if value == Compression::Always as u64 => {
                    config.compression = Compression::Always
                }
                "read_mode" if value == ReadMode::Pread as u64 => config.read_mode = ReadMode::Pread,
                "block_cache_bytes" => config.block_cache_bytes = value as usize,
                "stats_snapshot_interval_ms" => {
                    config.stats_snapshot_interval = Some(Duration::from_millis(value));
                }
                // Too large is refused by the check of all settings that follows.
                "latency_sampling" => config.latency_sampling = u32::try_from(value).unwrap_or(u32::MAX),
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

/// A stored setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvalidSetting {
    pub(crate) name: String,
    pub(crate) value: u64,
    pub(crate) why: String,
    /// What is used in its place; `None`: the default.
    pub(crate) instead: Option<u64>,
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, why, instead } = self;
        write!(f, "the setting {name} is stored as {value} ({why}); ")?;
        match instead {
            Some(instead) => write!(f, "{instead} is used"),
            None => f.write_str("the default is used"),
        }
    }
}

/// Stored settings with those left out that cannot be used: nothing that is stored may keep a database from being read.
/// The quota is not left out but raised to what is accepted: without it the database would grow without bound.
fn stored<C>(
    settings: &[(String, u64)],
    make: impl Fn(&[(String, u64)]) -> Result<C>,
) -> (C, Vec<InvalidSetting>)
where
    C: Default,
{
    let (mut settings, mut invalid) = (settings.to_vec(), Vec::new());
    loop {
        let (field, why) = match make(&settings) {
            Ok(config) => return (config, invalid),
            Err(Error::InvalidConfig { field, why }) => (field, why),
            Err(_) => return (C::default(), invalid),
        };
        let is_named = |name: &str| name == field || name.strip_suffix("_ms") == Some(field);
        // Where the one that is named is the default, the one that contradicts it is at fault.
        let stored = |name: &&str| settings.iter().any(|(stored, _)| stored == name);
        let named = settings.iter().rev().map(|(name, _)| name.as_str()).find(|name| is_named(name));
        let Some(name) = named.or_else(|| CONTRADICTORY.iter().copied().find(stored)).map(str::to_owned)
        else {
            return (C::default(), invalid);
        };
        let value = settings.iter().rev().find(|(stored, _)| *stored == name).map_or(0, |(_, value)| *value);
        settings.retain(|(stored, _)| *stored != name);
        let accepted = |value| {
            let with = [settings.as_slice(), &[(name.clone(), value)]].concat();
            !matches!(make(&with), Err(Error::InvalidConfig { field: QUOTA, .. }))
        };
        let instead = if name == QUOTA { raised(value, accepted) } else { None };
        settings.extend(instead.map(|value| (name.clone(), value)));
        invalid.push(InvalidSetting { name, value, why, instead });
    }
}

/// Settings that are checked against each other.
const CONTRADICTORY: [&str; 4] =
    ["max_item_bytes", "wal_segment_size", "max_wal_size_bytes", "max_batch_bytes"];
const QUOTA: &str = "max_total_disk_bytes";

/// The value doubled until it is accepted.
fn raised(value: u64, accepted: impl Fn(u64) -> bool) -> Option<u64> {
    std::iter::successors(Some(value.max(1)), |value| value.checked_mul(2)).find(|&value| accepted(value))
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
            .with_write_stall_limit(Duration::from_millis(21))
            .with_max_total_disk_bytes(22 << 30)
            .with_write_buffer_size(230)
            .with_memtable_mode(MemtableMode::Adaptive)
            .with_recovery_target(Duration::from_millis(24))
            .with_compression(Compression::Always)
            .with_read_mode(ReadMode::Pread)
            .with_block_cache_bytes(25 << 20)
            .with_stats_snapshot_interval(Duration::from_millis(26))
            .with_latency_sampling(27);
        config.validate().unwrap();
        assert_eq!(DatabaseConfig::from_settings(&config.to_settings()), config);
        let compaction = CompactionConfig::disabled()
            .with_sst_threshold(3)
            .with_check_interval(4)
            .with_max_concurrent(5)
            .with_tombstone_age(Duration::from_millis(6))
            .with_tombstone_percent(7)
            .with_garbage_percent(8)
            .with_idle_compaction(false)
            .with_dephasing(true);
        assert_eq!(CompactionConfig::from_settings(&compaction.to_settings()), compaction);
        DatabaseConfig::default().validate().unwrap();
        CompactionConfig::default().validate().unwrap();
    }

    /// The name of what is refused, and why.
    fn refused(result: Result<()>) -> (&'static str, String) {
        match result {
            Err(Error::InvalidConfig { field, why }) => (field, why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn zeros_and_what_is_absurdly_large_are_refused_by_name_with_the_range() {
        let c = DatabaseConfig::new;
        let ms = Duration::from_millis;
        for (field, config) in [
            ("max_memtable_records", c().with_max_memtable_records(0)),
            ("max_memtable_records", c().with_max_memtable_records(usize::MAX)),
            ("max_memtable_size_bytes", c().with_max_memtable_size_bytes(0)),
            ("max_memtable_size_bytes", c().with_max_memtable_size_bytes(usize::MAX)),
            ("bloom_bits_per_key", c().with_bloom_bits_per_key(0)),
            ("bloom_bits_per_key", c().with_bloom_bits_per_key(65)),
            ("memory_budget", c().with_memory_budget(0)),
            ("memory_budget", c().with_memory_budget(usize::MAX)),
            ("write_buffer_size", c().with_write_buffer_size(63)),
            ("write_buffer_size", c().with_write_buffer_size((16 << 20) + 1)),
            ("block_cache_bytes", c().with_block_cache_bytes(0)),
            ("block_cache_bytes", c().with_block_cache_bytes(usize::MAX)),
            ("latency_sampling", c().with_latency_sampling(u32::MAX)),
            ("block_size", c().with_block_size(63)),
            ("block_size", c().with_block_size((1 << 20) + 1)),
            ("target_sst_size", c().with_target_sst_size(4095)),
            ("target_sst_size", c().with_target_sst_size(u64::MAX)),
            ("wal_segment_size", c().with_wal_segment_size((16 << 10) - 1)),
            ("wal_segment_size", c().with_wal_segment_size(u64::MAX)),
            ("max_key_bytes", c().with_max_key_bytes(0)),
            ("max_key_bytes", c().with_max_key_bytes((64 << 10) + 1)),
            ("max_item_bytes", c().with_max_item_bytes(0)),
            ("max_item_bytes", c().with_max_item_bytes(usize::MAX)),
            ("max_batch_bytes", c().with_max_batch_bytes(0)),
            ("max_batch_bytes", c().with_max_batch_bytes(usize::MAX)),
            ("checkpoint_interval", c().with_checkpoint_interval(Duration::ZERO)),
            ("checkpoint_interval", c().with_checkpoint_interval(Duration::MAX)),
            ("sync_interval", c().with_sync_interval(Duration::from_micros(999))),
            ("sync_interval", c().with_sync_interval(Duration::MAX)),
            ("write_stall_limit", c().with_write_stall_limit(Duration::ZERO)),
            ("write_stall_limit", c().with_write_stall_limit(Duration::MAX)),
            ("recovery_target", c().with_recovery_target(Duration::ZERO)),
            ("recovery_target", c().with_recovery_target(Duration::MAX)),
            ("stats_snapshot_interval", c().with_stats_snapshot_interval(Duration::ZERO)),
            ("stats_snapshot_interval", c().with_stats_snapshot_interval(ms(86_400_001))),
            ("stripes", c().with_stripes(0)),
            ("stripes", c().with_stripes(3)),
            ("stripes", c().with_stripes(512)),
        ] {
            let (named, why) = refused(config.validate());
            assert_eq!(named, field);
            assert!(
                why.contains("is not between") || why.contains("is not a power of two"),
                "{field}: {why}"
            );
        }
        let c = CompactionConfig::new;
        for (field, config) in [
            ("sst_threshold", c().with_sst_threshold(1)),
            ("sst_threshold", c().with_sst_threshold(1001)),
            ("check_interval_secs", c().with_check_interval(0)),
            ("check_interval_secs", c().with_check_interval(u64::MAX)),
            ("max_concurrent_compactions", c().with_max_concurrent(0)),
            ("max_concurrent_compactions", c().with_max_concurrent(257)),
            ("tombstone_percent", c().with_tombstone_percent(0)),
            ("tombstone_percent", c().with_tombstone_percent(101)),
            ("garbage_percent", c().with_garbage_percent(0)),
            ("garbage_percent", c().with_garbage_percent(10_001)),
            ("tombstone_age", c().with_tombstone_age(Duration::ZERO)),
            ("tombstone_age", c().with_tombstone_age(Duration::MAX - ms(1))),
        ] {
            let (named, why) = refused(config.validate());
            assert_eq!(named, field);
            assert!(why.contains("is not between"), "{field}: {why}");
        }
    }

    /// Symptom: with a stored setting out of range every command failed as if it had been called wrongly. Cause: stored
    /// settings were checked as given ones are. Fix: those that cannot be used are left out, and named by verify.
    #[test]
    fn stored_settings_that_cannot_be_used_are_left_out() {
        let stored = |settings: &[(&str, u64)]| {
            let settings: Vec<_> =
                settings.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            let (config, invalid) = DatabaseConfig::stored(&settings);
            config.validate().unwrap();
            (config, invalid)
        };
        let (config, invalid) =
            stored(&[("block_size", 0), ("max_key_bytes", 77), ("sync_interval_ms", u64::MAX)]);
        assert_eq!((config.block_size, config.max_key_bytes), (DatabaseConfig::new().block_size, 77));
        let names: Vec<_> = invalid.iter().map(|setting| setting.name.as_str()).collect();
        assert_eq!(names.len(), 2, "{invalid:?}");
        assert!(names.contains(&"block_size") && names.contains(&"sync_interval_ms"), "{invalid:?}");
        assert!(invalid[0].to_string().contains("is not between"), "{}", invalid[0]);
        // A quota is never dropped.
        let (config, invalid) = stored(&[("max_total_disk_bytes", 1000)]);
        let quota = config.max_total_disk_bytes.unwrap();
        assert!(
            (1000..=4 << 20).contains(&quota) && invalid[0].instead == Some(quota),
            "{quota} {invalid:?}"
        );
        // Of two that contradict each other, the one that is not the default.
        let (config, invalid) = stored(&[("max_item_bytes", 200 << 20), ("block_size", 4096)]);
        assert_eq!((config.max_item_bytes, config.block_size), (DatabaseConfig::new().max_item_bytes, 4096));
        assert_eq!(invalid.len(), 1, "{invalid:?}");
        // However many there are.
        let many: Vec<_> = (0..100_000).map(|n| ("block_size", n % 2)).collect();
        assert_eq!(stored(&many).1.len(), 1);
        let settings = vec![("tombstone_percent".to_owned(), 101)];
        assert_eq!(CompactionConfig::stored(&settings).1.len(), 1);
        let all = DatabaseConfig::new().to_settings();
        assert_eq!(DatabaseConfig::stored(&all), (DatabaseConfig::new(), Vec::new()));
    }

    /// A batch and the log must take one largest item each. A memtable need not, nor must the memory budget: an item
    /// larger than they are is taken and flushed at once.
    #[test]
    fn contradictions_are_refused_by_name_with_the_other_side() {
        let c = DatabaseConfig::new;
        for (field, reason, config) in [
            ("max_batch_bytes", "max_item_bytes", c().with_max_batch_bytes((16 << 20) - 1)),
            ("max_wal_size_bytes", "largest item", c().with_max_wal_size_bytes(0)),
            ("max_wal_size_bytes", "max_item_bytes", c().with_max_wal_size_bytes(16 << 20)),
            (
                "max_wal_size_bytes",
                "wal_segment_size",
                c().with_max_wal_size_bytes(40 << 20).with_wal_segment_size(16 << 20),
            ),
            ("max_total_disk_bytes", "524288", c().with_max_total_disk_bytes(0)),
            ("max_total_disk_bytes", "two log segments", c().with_max_total_disk_bytes((512 << 10) - 1)),
            (
                "max_total_disk_bytes",
                "must stay free",
                c().with_max_total_disk_bytes((8 << 20) - 1).with_wal_segment_size(1 << 20),
            ),
        ] {
            let (named, why) = refused(config.validate());
            assert_eq!(named, field);
            assert!(why.contains(reason), "{field}: {why}");
        }
        c().with_max_batch_bytes(16 << 20).validate().unwrap();
        c().with_max_wal_size_bytes(40 << 20).validate().unwrap();
        c().with_max_total_disk_bytes(512 << 10).validate().unwrap();
        c().with_max_total_disk_bytes(8 << 20).with_wal_segment_size(1 << 20).validate().unwrap();
        c().with_max_memtable_size_bytes(1).validate().unwrap();
        c().with_memory_budget(1).validate().unwrap();
    }
}
