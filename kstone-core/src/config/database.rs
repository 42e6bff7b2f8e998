//! [`DatabaseConfig`]: its table, and values and rules that involve several of its settings.

use std::time::Duration;

#[cfg(doc)]
use super::Durability;
use super::setting::{Bound, Live, Setting, SettingRange};
use super::stored::{InvalidSetting, from_settings, to_settings, usable};
use super::value::{Choices, SettingValue, check, rust_code};
use super::{Compression, KIB, MemtableMode, ReadMode};
use crate::error::{Error, Result};
use crate::types::MAX_STRIPES;

/// The record limit of adaptive memtables, unless a higher one is configured.
pub(crate) const ADAPTIVE_RECORDS: usize = 10_000;

/// A database with a limit on its space has at most one stripe for each of this many bytes, unless the number is set.
const QUOTA_PER_STRIPE: u64 = 512 * KIB;
/// The highest default memory budget, see [`DatabaseConfig::memory_budget_bytes`]: half of what stripes of 10,000
/// records take fits into it.
const DEFAULT_BUDGET_CAP: usize = 512 << 20;

settings! {
    /// Settings of the log, the memtables and the SSTs. They are stored in the database, and used whenever it is opened
    /// without explicit settings.
    pub struct DatabaseConfig;

    /// A stripe's memtable is sealed and flushed at this many bytes of keys and values.
    max_memtable_size_bytes: Option<usize> {
        builder: with_max_memtable_size_bytes(usize),
        stored: "max_memtable_size_bytes",
        default: (None: "none"),
        range: (1 byte ..= 64 GiB),
        live: Now,
        group: "memtables",
        more: "like more records, but by bytes of keys and values: for records of very different sizes. Whichever \
               limit is reached first applies",
        seen_in: "`stripes[].memtable_bytes`",
    }

    /// A stripe's memtable is sealed and flushed at this many records.
    max_memtable_records: usize {
        builder: with_max_memtable_records(usize),
        stored: "max_memtable_records",
        default: (1000 records),
        range: (1 ..= 100_000_000 records),
        live: Now,
        group: "memtables",
        more: "fewer, larger flushes, so less merging and fewer runs for reads; more memory; a longer log, so a \
               longer recovery. Tombstones count",
        seen_in: "`flushes`, `stripes[].memtable_records`",
    }

    /// The files of the log never take more than this many bytes: stripes that pin its oldest part are flushed in time,
    /// and writers wait for that, up to [`DatabaseConfig::write_stall_limit`]. Batches that do not fit are rejected
    /// with [`Error::BatchTooLarge`]. With the default, the log may also grow for a single larger batch.
    max_wal_size_bytes: Option<u64> {
        builder: with_max_wal_size_bytes(u64),
        stored: "max_wal_size_bytes",
        default: (None: "three times the memory budget, at least eight segments"),
        range: (bytes: "at least two segments and the largest item"),
        live: Now,
        group: "log",
        more: "fewer early flushes; a longer recovery, more space. The log never takes more: stripes are flushed in \
               time, or writers wait. After lowering the limit, the log shrinks to it by itself",
        seen_in: "`log_bytes`; `stalls` for the log",
    }

    /// Filter bits per key of new SSTs.
    bloom_bits_per_key: usize {
        builder: with_bloom_bits_per_key(usize),
        stored: "bloom_bits_per_key",
        default: (10 bits),
        range: (1 ..= 64 bits),
        live: NewSsts,
        group: "ssts",
        more: "fewer wasted block reads for keys that a run does not hold: about 1 % of them with 10 bits; memory, \
               bits / 8 bytes a key",
        seen_in: "`filter.measured_rate` against `filter.predicted_rate`",
    }

    /// All files of the database together never take more than this many bytes, each counted in units of 4 KiB: at the
    /// limit, puts fail with [`Error::DiskFull`], while reads, deletes and compaction continue.
    ///
    /// Part of it is kept free, so that accepted writes can always be flushed and deleted items merged away: enough to
    /// merge the largest stripe entirely, a log segment, and space for tombstones and the manifest. Of 64 MiB, values
    /// of 400 bytes fill about 70 % when spread over many partitions, and about 40 % when all data is in one partition
    /// and thus in one stripe, which needs its own size again to be merged. Before a put is rejected, it flushes and
    /// merges whatever can free space, and waits for that up to [`DatabaseConfig::write_stall_limit`]; puts work again
    /// without intervention once there is space.
    ///
    /// A larger part of a small limit is kept free: for each stripe in use, 8 KiB until it is flushed, and a file in
    /// whole pages after that. Therefore a database created with a limit has one stripe for each 512 KiB of it, 256
    /// from 128 MiB on, unless [`DatabaseConfig::stripes`] is set. Values of 100 bytes then fill about a sixth of 512
    /// KiB and a quarter of 1 MiB; with 256 stripes, 1 MiB is full after a few hundred.
    ///
    /// A database that is larger than the limit, or leaves less free than must be kept when the limit is set, still
    /// opens and accepts deletes: to shrink, it may then grow by what it needs for merging, but never by puts. A
    /// smaller limit means shorter log segments and a shorter log, at most an eighth of the limit.
    ///
    /// Without a limit, blocks of short items are padded to pages of 4 KiB: SSTs of items of 200 bytes take 5 % more, and
    /// a get from data that does not fit into memory loads one page instead of two. With a limit, they are not.
    max_total_disk_bytes: Option<u64> {
        builder: with_max_total_disk_bytes(u64),
        stored: "max_total_disk_bytes",
        default: (None: "none"),
        range: (bytes: "at least 512 KiB and eight log segments"),
        live: Now,
        group: "limits",
        more: "more data before puts fail with `DiskFull`; part of it is kept free for merges",
        seen_in: "`disk_full_refusals`; `db.disk_usage()`",
    }

    /// The bytes of records that one write call to the log collects from concurrent writers. A longer record is written
    /// alone.
    write_buffer_size: usize {
        builder: with_write_buffer_size(usize),
        stored: "write_buffer_size",
        default: (1 KiB),
        range: (64 bytes ..= 16 MiB),
        live: Now,
        group: "log",
        more: "fewer, larger write calls when several threads write at the same time; more memory for the buffer. A \
               lone writer never waits for others, and acknowledged writes are never in the buffer. SSTs are written \
               in units of this size, but at least 256 KiB",
        seen_in: "`log_records` against `log_writes`",
    }

    /// The size in bytes of the log buffer: a file `wal.buffer`, mapped into memory, that takes the records of writes
    /// with `Durability::Buffered` until one call writes many of them to the log. They survive the death of the process
    /// there like in the log.
    ///
    /// The buffer takes at most an eighth of a log segment, in units of 512 bytes. There is none on file systems where
    /// a store into a mapped file can fail (known to be suitable: ext2, ext3, ext4, XFS, tmpfs), nor where its file
    /// cannot be created; each record is then written by a call of its own. It is removed by a clean close.
    wal_buffer_size: usize {
        builder: with_wal_buffer_size(usize),
        stored: "wal_buffer_size",
        default: (128 KiB),
        range: (0 bytes ..= 16 MiB),
        live: Now,
        group: "log",
        more: "fewer write calls for writes that are not synced, up to some 64 KiB: puts are faster. The same bytes \
               again on disk, and a longer wait for the put that finds the buffer full. 0: each record is written by a \
               call",
        seen_in: "`log_records` against `log_writes`",
    }

    /// The approximate maximum size of all memtables together, in bytes.
    memory_budget: Option<usize> {
        builder: with_memory_budget(usize),
        stored: "memory_budget",
        default: (None: "half of what all stripes at their record limit hold (350 bytes a record assumed), at most \
                         512 MiB: 45 MB with 1000 records, 448 MB with adaptive memtables"),
        range: (1 byte ..= 1 TiB),
        live: Now,
        group: "memtables",
        more: "like more records, for all memtables together; when it is exceeded, the fullest are flushed",
        seen_in: "the sum of `stripes[].memtable_bytes`; `stalls` for memtables",
    }

    /// How the size limit of memtables is determined.
    memtable_mode: MemtableMode {
        builder: with_memtable_mode(MemtableMode),
        stored: "memtable_mode",
        default: (Fixed),
        range: (any),
        live: Now,
        group: "memtables",
        more: "`Adaptive` lets each stripe's limit follow its write rate and the free memory",
        seen_in: "`stripes[].memtable_limit`",
    }

    /// Target for the duration of recovery after a crash: bounds the log, below [`DatabaseConfig::max_wal_size_bytes`],
    /// by the rate at which this machine replayed it in recent recoveries, or 100 MB a second until that is known. The
    /// log may always take eight segments of 64 KiB.
    recovery_target: Option<Duration> {
        builder: with_recovery_target(Duration),
        stored: "recovery_target_ms",
        default: (None: "none"),
        range: (1 ms ..= 1 day),
        live: Now,
        group: "log",
        more: "the log may be as long as this machine replays in that time; flushes keep it from growing longer",
        seen_in: "`estimated_recovery_nanos`, `replay_rate`",
    }

    /// Which blocks of new SSTs are compressed.
    compression: Compression {
        builder: with_compression(Compression),
        stored: "compression",
        default: (Older),
        range: (any),
        live: NewSsts,
        group: "ssts",
        more: "`Always`: less space and disk traffic, but more reads must decompress a block. `Never`: the reverse. \
               `Older` compresses merges that include the oldest run, most bytes and fewest reads, but not what is \
               merged for the first time while the database is idle",
        seen_in: "`amplification.space`",
    }

    /// How SSTs are read.
    read_mode: ReadMode {
        builder: with_read_mode(ReadMode),
        stored: "read_mode",
        default: (Mmap),
        range: (any),
        live: OpenedSsts,
        group: "ssts",
        more: "`Mmap` is fastest and relies on the system's page cache. `Pread` is for network file systems, for an \
               error instead of a signal on a bad sector, and for a lower P99 of gets from data larger than memory: \
               it keeps filters and indexes in memory",
        seen_in: "`block_cache.misses`",
    }

    /// Bytes of blocks cached in memory: those read with [`ReadMode::Pread`], and decompressed ones.
    block_cache_bytes: usize {
        builder: with_block_cache_bytes(usize),
        stored: "block_cache_bytes",
        default: (8 MiB),
        range: (64 KiB ..= 1 TiB),
        live: Now,
        group: "ssts",
        more: "fewer blocks read or decompressed again; memory. Scans and merges add nothing to it; with `Pread`, \
               indexes and filters, about 7 bytes a record, take memory in addition",
        seen_in: "`block_cache.hits`",
    }

    /// How often the statistics are written to `STATS.json` in the directory, for tools that read it from outside, as
    /// long as the database is open. Not for in-memory databases.
    stats_snapshot_interval: Option<Duration> {
        builder: with_stats_snapshot_interval(Duration),
        stored: "stats_snapshot_interval_ms",
        default: (None: "never"),
        range: (1 ms ..= 1 day),
        live: Now,
        group: "watching",
        more: "older figures in `STATS.json`, which `kstone stats`, `kstone alerts` and other tools read from outside",
        seen_in: "`uptime_ms` in the file",
    }

    /// On each thread, one of this many puts, gets, deletes, batches and queries is timed for
    /// [`LsmEngine::latencies`](crate::lsm::LsmEngine::latencies). Background work is always timed. With the default,
    /// the cost is about a nanosecond per operation.
    latency_sampling: u32 {
        builder: with_latency_sampling(u32),
        stored: "latency_sampling",
        default: (64 operations),
        range: (0 ..= 1_000_000 operations),
        live: Now,
        group: "watching",
        more: "less overhead per operation, since one in this many is timed; fewer samples behind a percentile. 0: \
               none are timed",
        seen_in: "`latencies.get`",
    }

    /// How often the log is synced: the writes of this period may be lost in a power cut at
    /// [`Durability::Buffered`]. Zero means never to sync in the background.
    sync_interval: Duration {
        builder: with_sync_interval(Duration),
        stored: "sync_interval_ms",
        default: (1 s),
        range: (1 ms ..= 1 day, or zero: "zero: never"),
        live: Now,
        group: "log",
        more: "less work for the disk; a power cut loses more of the newest writes at `Durability::Buffered`",
        seen_in: "`latencies.log_sync`",
    }

    /// How often flushed SSTs are made durable and the log before them is retired.
    checkpoint_interval: Duration {
        builder: with_checkpoint_interval(Duration),
        stored: "checkpoint_interval_ms",
        default: (2 s),
        range: (1 ms ..= 1 day),
        live: Now,
        group: "log",
        more: "less work for the disk, since SSTs merged away in between need no sync; the log is freed later",
        seen_in: "`checkpoints`, `log_bytes`",
    }

    /// Bytes in a data block, uncompressed.
    block_size: usize {
        builder: with_block_size(usize),
        stored: "block_size",
        default: (4 KiB),
        range: (64 bytes ..= 1 MiB),
        live: NewSsts,
        group: "ssts",
        more: "less overhead per block, better compression; more to read and check for one item. The size is that \
               before compression",
        seen_in: "`amplification.read_blocks`",
    }

    /// The size of a log segment, in bytes.
    wal_segment_size: Option<u64> {
        builder: with_wal_segment_size(u64),
        stored: "wal_segment_size",
        default: (None: "an eighth of the log's limit, 64 KiB to 16 MiB"),
        range: (16 KiB ..= 1 GiB),
        live: Now,
        group: "log",
        more: "fewer files, but space is freed in larger pieces. A change takes effect with the next segment",
        seen_in: "`log_segments`",
    }

    /// The size of an SST, in bytes; a longer run is split into several parts.
    target_sst_size: u64 {
        builder: with_target_sst_size(u64),
        stored: "target_sst_size",
        default: (32 MiB),
        range: (4 KiB ..= 1 GiB),
        live: NewSsts,
        group: "ssts",
        more: "fewer files; a merge frees space in larger pieces",
        seen_in: "`stripes[].ssts`",
    }

    /// The maximum size of a key, partition key and sort key together, in bytes.
    max_key_bytes: usize {
        builder: with_max_key_bytes(usize),
        stored: "max_key_bytes",
        default: (64 KiB),
        range: (1 byte ..= 64 KiB),
        live: Now,
        group: "limits",
        more: "longer keys are accepted; keys over the limit are rejected with `KeyTooLarge`",
        seen_in: "",
    }

    /// The maximum size of an encoded item, in bytes.
    max_item_bytes: usize {
        builder: with_max_item_bytes(usize),
        stored: "max_item_bytes",
        default: (16 MiB),
        range: (1 byte ..= 256 MiB),
        live: Now,
        group: "limits",
        more: "larger items are accepted; items over the limit are rejected with `ItemTooLarge`",
        seen_in: "",
    }

    /// The maximum size of an encoded batch, in bytes.
    max_batch_bytes: usize {
        builder: with_max_batch_bytes(usize),
        stored: "max_batch_bytes",
        default: (64 MiB),
        range: (1 byte ..= 1 GiB, "at least `max_item_bytes`"),
        live: Now,
        group: "limits",
        more: "larger batches are accepted; batches over the limit are rejected with `BatchTooLarge`. A batch is in \
               memory twice while it is written",
        seen_in: "",
    }

    /// A write that waits longer than this for background work fails with [`Error::WriteStalled`].
    write_stall_limit: Duration {
        builder: with_write_stall_limit(Duration),
        stored: "write_stall_limit_ms",
        default: (10 s),
        range: (1 ms ..= 1 day),
        live: Now,
        group: "log",
        more: "writers wait longer for background work before `WriteStalled`",
        seen_in: "`stalls`",
    }

    /// The number of stripes of a new database.
    stripes: Option<usize> {
        builder: with_stripes(usize),
        stored: "stripes",
        default: (None: "256, or with `max_total_disk_bytes` at most one for each 512 KiB of it"),
        range: (1 ..= 256, "a power of two"),
        live: AtCreation,
        group: "limits",
        more: "smaller flushes and merges, more of them in parallel; more files and memory for little data",
        seen_in: "`stripe_count`",
    }
}

impl DatabaseConfig {
    /// Checks every setting; names the first that is out of range or contradicts another, and why.
    pub fn validate(&self) -> Result<()> {
        check(&self.rows())?;
        if let Some(stripes) = self.stripes.filter(|stripes| !stripes.is_power_of_two()) {
            return Err(Error::config("stripes", format!("{stripes} is not a power of two")));
        }
        if let Some(quota) = self.max_total_disk_bytes {
            let least = self.wal_segment_size.unwrap_or(0).max(64 * KIB).saturating_mul(8);
            if quota < least {
                let why = format!(
                    "{quota} bytes do not hold two log segments and the space kept free; at least {least} are needed"
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

    /// The maximum size of all memtables together, in bytes. Half of the sum of the stripes' limits, because hashing
    /// fills all stripes at the same rate and most would be flushed full at the same time; flushing the fullest first
    /// spreads the flushes out at nearly full size.
    pub fn memory_budget_bytes(&self) -> usize {
        /// The approximate size of a record in a memtable: 200 bytes of key and value, plus tree overhead.
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

    /// The number of stripes of a new database: 256, or fewer with a small limit on disk space. 8 KiB are reserved for
    /// the SST that each memtable becomes: in total, at most half of what puts may take ahead of merges.
    pub(crate) fn default_stripes(&self) -> usize {
        let most = self.max_total_disk_bytes.map_or(MAX_STRIPES as u64, |quota| quota / QUOTA_PER_STRIPE);
        let most = most.clamp(1, MAX_STRIPES as u64) as usize;
        1 << most.ilog2()
    }
}
