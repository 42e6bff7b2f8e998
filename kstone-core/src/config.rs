//! The settings: two tables, [`DatabaseConfig`] and [`CompactionConfig`], and what follows from them.

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
