//! The settings: two tables, [`DatabaseConfig`] and [`CompactionConfig`], and values derived from them.

#[macro_use]
mod table;

mod compaction;
mod database;
mod log;
mod setting;
mod stored;
#[cfg(test)]
mod tests;
pub mod text;
mod value;

pub use compaction::CompactionConfig;
pub(crate) use database::ADAPTIVE_RECORDS;
pub use database::DatabaseConfig;
pub(crate) use log::{DEFAULT_REPLAY_RATE, LogBounds};
pub use setting::{Bound, Live, Setting, SettingRange};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The bytes have reached the operating system: the death of the process loses nothing. A power cut may lose
    /// the writes of the last [`DatabaseConfig::sync_interval`], always the newest ones.
    #[default]
    Buffered,
    /// The bytes have reached the disk: a power cut loses nothing either. Concurrent writers share syncs. Other
    /// callers may read a write before it has reached the disk, even if its sync then fails.
    Sync,
}

/// Which blocks of new SSTs are compressed with LZ4. A block that would not shrink by at least a third is stored
/// uncompressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Compression {
    /// No blocks.
    Never,
    /// Blocks of merges that include a stripe's oldest run: most of the data, and the part that is read least.
    #[default]
    Older,
    /// All blocks, including those of flushes.
    Always,
}

/// How SSTs are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReadMode {
    /// Through a memory mapping: fastest, and the operating system's page cache is the cache. As long as all SSTs fit
    /// into the available memory, the first get of any of eight adjacent blocks loads all of them, up to 64 KiB; other
    /// gets load only what they touch. Queries from their third block on, scans and merges read up to 256 KiB ahead. A
    /// bad sector kills the process with `SIGBUS`, and a block's checksum is verified only when it is first touched.
    #[default]
    Mmap,
    /// With `pread` into a cache of [`DatabaseConfig::block_cache_bytes`]: for network file systems, for an error
    /// instead of a signal, and for a lower P99 of gets from data larger than memory, because filters and indexes then
    /// stay in memory whatever else is read. Every block read from the file is verified. At most 32 SSTs are kept open;
    /// reading a block of another SST costs an `open` as well.
    Pread,
}

/// How the size limit of a stripe's memtable is determined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MemtableMode {
    /// The limit is [`DatabaseConfig::max_memtable_records`].
    #[default]
    Fixed,
    /// The limit follows each stripe's write rate and the memory that the machine (or its control group) has left, and
    /// is recomputed at each flush. At 10,000 writes a second, evenly spread, and 1 GB of memory: 10,000 records. With
    /// less than 100 MB: 500. Otherwise [`DatabaseConfig::max_memtable_records`], plus what the square root of the
    /// write rate allows, within [`DatabaseConfig::memory_budget`]. Fewer flushes under load, at the price of more
    /// memory and a longer log.
    Adaptive,
}
