//! Counters since open, and current sizes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::LsmEngine;
use super::counts::Counters;
use super::sizes::WrittenSizes;
use super::state::Shared;
use crate::backpressure::StallReason;
use crate::compaction::picker::live_keys;
use crate::config::DatabaseConfig;
use crate::counters::{Count, Operation, RUN_BUCKETS};
use crate::error::{Error, Result};
use crate::file_header::FORMAT_VERSION;
use crate::latency::{Latencies, LatencyBuckets};
use crate::paths::{self, FileName};
use crate::sst::{BlockCacheStats, FilterStats};
use crate::stripe::Stripe;
use crate::types::{SeqNo, SstMeta};
use crate::version::Version;

mod display;

/// A stripe that is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct StripeStats {
    /// Its number, as in the names of its SSTs.
    pub stripe: usize,
    /// Runs, as counted against `sst_threshold`.
    pub runs: usize,
    /// SST files; a large run has several.
    pub ssts: usize,
    /// Size of the SSTs, in bytes.
    pub sst_bytes: u64,
    /// Entries in the SSTs: versions and tombstones.
    pub entries: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// Records in memtables, sealed ones included.
    pub memtable_records: usize,
    /// Approximate memory of those, in bytes.
    pub memtable_bytes: usize,
    /// Records at which its memtable is sealed: `max_memtable_records`, unless the memtable mode is adaptive.
    pub memtable_limit: usize,
    /// Puts and deletes since open, including those replayed then. Statistics of a database that only this process can
    /// change.
    pub writes: u64,
    /// Gets since open that were timed, one in [`latency_sampling`](crate::DatabaseConfig::latency_sampling): the share
    /// of all timed gets is the share of gets.
    pub timed_gets: u64,
    /// Writes since open that waited for flushes, merges or the log; see [`StallReason`].
    pub held_up: u64,
    /// How long those waited, in nanoseconds.
    pub held_up_nanos: u64,
    /// Tombstones and shadowed versions that reads of one partition or of this stripe have passed over since open, or
    /// since the whole stripe was merged.
    pub passed_over: u64,
}

/// Calls that were held up for one reason, since open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StallStats {
    /// What they waited for.
    pub reason: StallReason,
    /// Calls held up; a call that waited for several reasons counts once for each.
    pub count: u64,
    /// Total time, in nanoseconds.
    pub nanos: u64,
    /// The longest single wait, in nanoseconds.
    pub longest_nanos: u64,
    /// Of `count`, the writes delayed in proportion to the pressure.
    pub delays: u64,
    /// Of `count`, the writes that had to wait until the pressure was gone, including those that gave up.
    pub stops: u64,
}

/// What callers did since open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct OperationStats {
    /// Values set, including those in batches.
    pub puts: u64,
    /// Keys deleted, including those in batches, whether or not they existed.
    pub deletes: u64,
    /// Batches that were not empty.
    pub batches: u64,
    /// Gets, whether or not they found something.
    pub gets: u64,
    /// Queries of one partition.
    pub queries: u64,
    /// Scans of everything or of one stripe.
    pub scans: u64,
    /// Items that queries and scans returned. Counted when an iterator ends, and every 256 items.
    pub entries_read: u64,
    /// Entries that queries and scans passed without returning them: tombstones and shadowed versions. Counted like
    /// [`OperationStats::entries_read`].
    pub entries_passed: u64,
    /// Bytes of keys and values written.
    pub user_bytes_written: u64,
    /// Bytes of keys and values that gets, queries and scans returned.
    pub user_bytes_read: u64,
}

/// Where gets ended since open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ReadStats {
    /// Values found in the active memtable.
    pub memtable: u64,
    /// Values found in a memtable that waits to be flushed.
    pub sealed: u64,
    /// Values found in SSTs, by the number of runs searched, including the last: entry `n` is for `n` runs, the last
    /// entry for 17 and more.
    pub runs: [u64; RUN_BUCKETS],
    /// Gets that found nothing, or a tombstone, by the number of runs searched, in the same way.
    pub misses: [u64; RUN_BUCKETS],
    /// Runs that gets searched, including those whose filter ruled the key out.
    pub runs_looked_at: u64,
    /// Blocks that gets searched.
    pub blocks_read: u64,
}

impl ReadStats {
    /// Gets that found a value.
    pub fn hits(&self) -> u64 {
        self.runs.iter().copied().fold(self.memtable.saturating_add(self.sealed), u64::saturating_add)
    }

    /// All gets.
    pub fn gets(&self) -> u64 {
        self.misses.iter().copied().fold(self.hits(), u64::saturating_add)
    }
}

/// How much more is written, read and stored than callers asked for, since open; `None` while they have asked for
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Amplification {
    /// Bytes that compactions wrote per byte of keys and values written, including those replayed at open.
    pub write_compaction: Option<f64>,
    /// Bytes that flushes and compactions wrote, in the same way: the wear on an SSD, not counting the log.
    pub write_tables: Option<f64>,
    /// The same, including the log's records.
    pub write_total: Option<f64>,
    /// Runs searched per get.
    pub read_runs: Option<f64>,
    /// Blocks searched per get.
    pub read_blocks: Option<f64>,
    /// Bytes of SSTs per byte of keys and values in them that a full merge would leave. Below 1 with compression.
    ///
    /// An estimate: the number of keys that the runs of a stripe have in common is sampled, and each key is taken to
    /// have the mean length of all versions. Versions that a snapshot still needs count as shadowed. With values of one
    /// size, and several stripes or a few hundred keys, it is within 15 %.
    pub space: Option<f64>,
    /// Entries in SSTs, tombstones included, per key that a full merge would leave; an estimate in the same way, but
    /// independent of compression.
    pub entries: Option<f64>,
}

/// What opening the database found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RecoveryStats {
    /// Whether the database was new or had been closed cleanly.
    pub clean: bool,
    /// Log records replayed; a batch is one record.
    pub replayed_records: u64,
    /// Bytes of keys and values in them.
    pub replayed_bytes: u64,
    /// Time the replay took, in nanoseconds.
    pub replay_nanos: u64,
    /// Time opening took in all, in nanoseconds.
    pub open_nanos: u64,
}

/// What the engine holds and has done. `Display` is a summary of some twenty lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct EngineStats {
    /// Stripes that are not empty, by number.
    pub stripes: Vec<StripeStats>,
    /// The file format version.
    pub format_version: u16,
    /// The number of stripes.
    pub stripe_count: usize,
    /// Size of all SSTs, in bytes.
    pub sst_bytes: u64,
    /// Size of the log's files in bytes, including space reserved ahead.
    pub log_bytes: u64,
    /// Number of log segments.
    pub log_segments: usize,
    /// Size of the manifest, in bytes.
    pub manifest_bytes: u64,
    /// Versions in SSTs and memtables minus tombstones: an upper estimate, since older versions count too.
    pub items_estimate: u64,
    /// The newest visible write.
    pub last_seq: SeqNo,
    /// How long the database has been open, in milliseconds.
    pub uptime_ms: u64,
    /// What callers did.
    pub operations: OperationStats,
    /// Where gets ended.
    pub reads: ReadStats,
    /// How much more is written, read and stored than callers asked for.
    pub amplification: Amplification,
    /// The 99th percentile of the timed gets, in nanoseconds; `None` when none was timed. See [`LsmEngine::latencies`].
    pub p99_read_nanos: Option<u64>,
    /// What opening the database found and did.
    pub recovery: RecoveryStats,
    /// SSTs per stripe, on average over the stripes that are not empty.
    pub ssts_per_stripe: f64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes of SSTs that flushes wrote.
    pub flush_bytes_written: u64,
    /// Time spent in flushes, in nanoseconds, from the first step of each to its last.
    pub flush_nanos: u64,
    /// Compactions done.
    pub compactions: u64,
    /// SSTs merged by them.
    pub ssts_merged: u64,
    /// Tombstones dropped, by flushes and compactions.
    pub tombstones_removed: u64,
    /// Bytes of SSTs that compactions read.
    pub compaction_bytes_read: u64,
    /// Bytes of SSTs that compactions wrote.
    pub compaction_bytes_written: u64,
    /// Time spent in compactions, in nanoseconds, from the first step of each to its last.
    pub compaction_nanos: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Time spent in checkpoints, in nanoseconds, from the first step of each to its last.
    pub checkpoint_nanos: u64,
    /// Calls held up, by reason; reasons that never occurred are left out.
    pub stalls: Vec<StallStats>,
    /// The cache of SST blocks.
    pub block_cache: BlockCacheStats,
    /// Tests of the SSTs' filters, and how often they were wrong.
    pub filter: FilterStats,
    /// Writes rejected with `DiskFull`.
    pub disk_full_refusals: u64,
    /// Why writes are no longer accepted, if so.
    pub poisoned: Option<String>,
    /// The last background failure, unless the work has succeeded since.
    pub background_error: Option<String>,
    /// Names in the directory that do not belong to the database; they are left alone.
    pub foreign_files: Vec<String>,
    /// Write calls for log records.
    pub log_writes: u64,
    /// Records those wrote: one for each put, delete or batch.
    pub log_records: u64,
    /// Size of those records, in bytes.
    pub log_bytes_written: u64,
    /// Bytes of log replayed when the database was opened.
    pub recovery_replayed_bytes: u64,
    /// Bytes of log that this machine is assumed to replay in a second: measured, or 100 MB until then.
    pub replay_rate: u64,
    /// Sizes of what was written.
    pub written_sizes: WrittenSizes,
    /// Writes since the oldest snapshot that is still held, or the oldest transaction or iterator; 0 without any. What
    /// these writes replaced stays on disk.
    pub snapshot_lag: u64,
    /// Page faults of this process that had to wait for a disk, since it started: a mapped SST that is not in memory
    /// causes one. `None` where the system does not report them.
    pub major_faults: Option<u64>,
    /// How long a recovery would take if the process died now, in nanoseconds: `log_bytes` at `replay_rate`.
    pub estimated_recovery_nanos: u64,
}

impl LsmEngine {
    /// Current sizes, and totals since open. Lists the directory; reads no SST.
    pub fn stats(&self) -> Result<EngineStats> {
        self.shared.life.check_open()?;
        self.shared.engine_stats()
    }

    /// Durations of operations since open. One in [`latency_sampling`](crate::DatabaseConfig::latency_sampling) puts,
    /// gets, deletes, batches and queries is timed on each thread, and all background work. Copies the histograms,
    /// about a megabyte at most.
    pub fn latencies(&self) -> Latencies {
        if self.is_forked() {
            return Latencies::default();
        }
        self.shared.observed.latencies().latencies()
    }

    /// The same as counts per range of durations, under the names of [`Latencies::all`]: for each bound, the number of
    /// operations that took at most this long and longer than the previous bound. Bounds are in nanoseconds and must be
    /// ascending.
    pub fn latency_buckets(&self, bounds_nanos: &[u64]) -> [(&'static str, LatencyBuckets); 9] {
        self.shared.observed.latencies().buckets(bounds_nanos)
    }
}

impl Shared {
    /// Works while the database is closing, too.
    pub(crate) fn engine_stats(&self) -> Result<EngineStats> {
        let shared = self;
        let settings = shared.settings.load();
        let stats_of = |stripe| stripe_stats(stripe, &settings.database);
        let stripes: Vec<_> = shared.stripes.used().filter_map(stats_of).collect();
        // The sizes that a manifest records are not bounded by those of the files: sums of them saturate.
        let sum = |of: fn(&StripeStats) -> u64| stripes.iter().map(of).fold(0, u64::saturating_add);
        let c = shared.observed.counters();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (log, replay) = (shared.io.wal().writes(), shared.recovery());
        let reads = shared.read_stats();
        let operations = shared.operation_stats(&reads);
        let recovery = shared.recovery_stats();
        let timed_gets = shared.observed.latencies().summary(Operation::Get);
        Ok(EngineStats {
            uptime_ms: shared.observed.uptime().as_millis() as u64,
            amplification: shared.amplification(&operations, &reads, &recovery),
            operations,
            reads,
            recovery,
            p99_read_nanos: (timed_gets.count > 0).then_some(timed_gets.p99_nanos),
            ssts_per_stripe: sum(|s| s.ssts as u64) as f64 / stripes.len().max(1) as f64,
            flush_nanos: get(&c.flush_nanos),
            compaction_nanos: get(&c.compaction_nanos),
            checkpoint_nanos: get(&c.checkpoint_nanos),
            format_version: FORMAT_VERSION,
            stripe_count: shared.stripes.count(),
            sst_bytes: sum(|s| s.sst_bytes),
            log_bytes: shared.io.wal().live_bytes(),
            log_segments: shared.io.wal().segment_count(),
            manifest_bytes: shared.io.manifest().file_len(),
            items_estimate: sum(|s| s.entries.saturating_add(s.memtable_records as u64))
                .saturating_sub(sum(|s| s.tombstones).saturating_mul(2)),
            last_seq: shared.commits.visible(),
            flushes: get(&c.flushes),
            flush_bytes_written: get(&c.flush_bytes_written),
            compactions: get(&c.compactions),
            ssts_merged: get(&c.ssts_merged),
            tombstones_removed: get(&c.tombstones_removed),
            compaction_bytes_read: get(&c.compaction_bytes_read),
            compaction_bytes_written: get(&c.compaction_bytes_written),
            checkpoints: get(&c.checkpoints),
            stalls: stall_stats(c),
            block_cache: shared.io.tables().cache_stats(),
            filter: shared.io.tables().filters.stats(),
            disk_full_refusals: shared.space.refusals(),
            poisoned: shared.life.health().cause().map(str::to_string),
            background_error: shared.background_error(),
            foreign_files: foreign_files(shared)?,
            log_writes: log.writes,
            log_records: log.records,
            log_bytes_written: log.bytes,
            recovery_replayed_bytes: replay.replayed_bytes,
            replay_rate: replay.rate,
            estimated_recovery_nanos: replay.estimate.as_nanos() as u64,
            written_sizes: shared.observed.sizes().summary(),
            snapshot_lag: shared.snapshot_lag(),
            major_faults: shared.tuner.major_faults(),
            stripes,
        })
    }

    fn snapshot_lag(&self) -> u64 {
        let horizon = self.commits.horizon();
        // Loaded later, so it is not below.
        self.commits.visible().saturating_sub(horizon)
    }

    fn operation_stats(&self, reads: &ReadStats) -> OperationStats {
        let get = |count| self.observed.ops().get(count);
        OperationStats {
            puts: get(Count::Puts),
            deletes: get(Count::Deletes),
            batches: get(Count::Batches),
            gets: reads.gets(),
            queries: get(Count::Queries),
            scans: get(Count::Scans),
            entries_read: get(Count::EntriesRead),
            entries_passed: get(Count::EntriesPassed),
            user_bytes_written: get(Count::BytesWritten),
            user_bytes_read: get(Count::BytesRead),
        }
    }

    fn read_stats(&self) -> ReadStats {
        let ops = self.observed.ops();
        let (runs, misses) = ops.by_runs();
        ReadStats {
            memtable: ops.get(Count::FromMemtable),
            sealed: ops.get(Count::FromSealed),
            runs,
            misses,
            runs_looked_at: ops.get(Count::RunsLookedAt),
            blocks_read: ops.get(Count::BlocksRead),
        }
    }

    fn recovery_stats(&self) -> RecoveryStats {
        let opening = self.observed.opening();
        let (replayed_records, replayed_bytes) = self.observed.replayed_so_far();
        RecoveryStats {
            clean: opening.is_some_and(|opening| opening.clean),
            replayed_records,
            replayed_bytes,
            replay_nanos: self.observed.replay().time.as_nanos() as u64,
            open_nanos: opening.map_or(0, |opening| opening.took.as_nanos() as u64),
        }
    }

    fn amplification(
        &self,
        operations: &OperationStats,
        reads: &ReadStats,
        recovery: &RecoveryStats,
    ) -> Amplification {
        let per = |n: u64, of: u64| (of > 0).then(|| n as f64 / of as f64);
        let written = operations.user_bytes_written + recovery.replayed_bytes;
        let compacted = self.observed.counters().compaction_bytes_written.load(Ordering::Relaxed);
        let tables = compacted + self.observed.counters().flush_bytes_written.load(Ordering::Relaxed);
        let (mut bytes, mut needed, now) = (0, 0, self.now());
        let (mut entries, mut keys) = (0, 0);
        for stripe in self.stripes.used() {
            let version = Arc::clone(&stripe.version());
            let sum = |of: fn(&SstMeta) -> u64| total(&version, of);
            let runs: Vec<_> = version.runs.iter().map(|run| run.summary(now)).collect();
            // A tombstone takes almost no space.
            let values = sum(|meta| meta.entries.saturating_sub(meta.tombstones)).max(1);
            bytes += sum(|meta| meta.len);
            entries = u64::saturating_add(entries, sum(|meta| meta.entries));
            let stripe_keys = live_keys(&runs);
            keys = u64::saturating_add(keys, stripe_keys);
            let live = sum(|meta| meta.raw_bytes) as f64 * stripe_keys as f64 / values as f64;
            needed = u64::saturating_add(needed, live as u64);
        }
        Amplification {
            write_compaction: per(compacted, written),
            write_tables: per(tables, written),
            write_total: per(tables + self.io.wal().writes().bytes, written),
            read_runs: per(reads.runs_looked_at, reads.gets()),
            read_blocks: per(reads.blocks_read, reads.gets()),
            space: per(bytes, needed),
            entries: per(entries, keys),
        }
    }
}

/// The sum over all SSTs of a version.
fn total(version: &Version, of: fn(&SstMeta) -> u64) -> u64 {
    version.tables().map(|table| of(table.meta())).fold(0, u64::saturating_add)
}

fn stripe_stats(stripe: &Stripe, config: &DatabaseConfig) -> Option<StripeStats> {
    let version = stripe.version();
    let total = |of: fn(&SstMeta) -> u64| total(&version, of);
    let get = |counter: &crate::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let stats = StripeStats {
        stripe: stripe.id,
        runs: version.runs.len(),
        ssts: version.tables().count(),
        sst_bytes: total(|meta| meta.len),
        entries: total(|meta| meta.entries),
        tombstones: total(|meta| meta.tombstones),
        memtable_records: version.memtables().map(|m| m.len()).sum(),
        memtable_bytes: version.memtables().map(|m| m.memory()).sum(),
        memtable_limit: stripe.memtable_limit(config),
        writes: get(&stripe.flushed_records) + version.memtables().map(|m| m.len() as u64).sum::<u64>(),
        timed_gets: get(&stripe.timed_gets),
        held_up: get(&stripe.held_up),
        held_up_nanos: get(&stripe.held_up_nanos),
        passed_over: get(&stripe.passed_over),
    };
    (stats.runs > 0 || stats.memtable_records > 0).then_some(stats)
}

fn stall_stats(counters: &Counters) -> Vec<StallStats> {
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let all = StallReason::ALL.iter().zip(&counters.stalls);
    all.map(|(&reason, stall)| StallStats {
        reason,
        count: get(&stall.delays) + get(&stall.stops),
        nanos: get(&stall.nanos),
        longest_nanos: get(&stall.longest_nanos),
        delays: get(&stall.delays),
        stops: get(&stall.stops),
    })
    .filter(|stats| stats.count > 0)
    .collect()
}

fn foreign_files(shared: &Shared) -> Result<Vec<String>> {
    let names = match shared.io.vfs().names(shared.io.dir()) {
        Ok(names) => names,
        // The directory was removed while the database is open: it contains nothing.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", shared.io.dir())(e)),
    };
    Ok(names.into_iter().filter(|name| paths::parse(name) == FileName::Foreign).collect())
}
