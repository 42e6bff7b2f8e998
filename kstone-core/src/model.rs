//! Closed-form cost model of a configuration under a workload, without a database: pure arithmetic, and a search over
//! some thousand configurations for the best one for a goal.
//!
//! A [`Model`] combines a [`Workload`] with the costs of a [`Machine`]. [`Model::predict`] computes the effect of a
//! [`Point`] in the space of settings; [`Model::best`] searches for a point and explains its choice. Run counts and
//! write amplification are exactly those of the compaction policy (`model/depth.rs`; a test compares them with the
//! picker). Filters follow their theory (`bloom.rs`). Overwrites, space and times are estimates, and are marked as
//! estimates.
//!
//! ```
//! use kstone_core::model::{Constraints, Goal, Model, Point, Workload};
//!
//! let mut workload = Workload::inserts(10_000_000, 24, 176);
//! (workload.writes_per_second, workload.reads_per_second) = (1_000.0, 50_000.0);
//! let model = Model::new(workload);
//! println!("{}", model.predict(&Point::default()));
//! let advice = model.best(Goal::Read, &Constraints::default()).expect("nothing is constrained");
//! assert!(advice.point.sst_threshold < 10);
//! ```

use std::fmt;

use serde::Serialize;

use crate::bloom;
use crate::config::{CompactionConfig, DatabaseConfig};
use crate::memtable::RECORD_OVERHEAD;
use crate::types::MAX_STRIPES;

mod depth;
mod search;

pub use depth::DepthRule;
pub use search::{Advice, Constraints, Goal};

/// Memory of a record in a memtable beyond its key and value, in bytes.
const MEMTABLE_OVERHEAD: f64 = RECORD_OVERHEAD as f64;
/// The same for the log: the record's header, lengths and padding.
const LOG_OVERHEAD: f64 = 56.0;
/// The same for an SST, approximately: kind, sequence and lengths. The index, at 1.25 slots of 4 bytes, is
/// `INDEX_BYTES`; the filter is separate.
const SST_OVERHEAD: f64 = 12.0;
const INDEX_BYTES: f64 = 5.0;
/// Slots of an SST's index that match an absent key by chance before the look-up reaches an empty slot: linear probing
/// at a load of 4/5 (Knuth, The Art of Computer Programming, vol. 3, 6.4) compares 12, and each matches with
/// probability 1/256.
pub(crate) const INDEX_FALSE_MATCHES: f64 = 12.0 / 256.0;
/// The fraction of distinct keys among records drawn from as many keys falls from 1 to 1 - 1/e; this is its mean over
/// the cycle.
const DISTINCT_IN_CYCLE: f64 = 0.82;
/// Live records rewritten per record written, over a cycle between two full merges triggered by garbage, at 100 %
/// garbage.
const GARBAGE_MERGE: f64 = 0.85;

/// The load on the database.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Workload {
    /// Distinct keys at the end.
    pub items: u64,
    /// Writes over the life of the database; those beyond `items` overwrite items.
    pub writes: u64,
    /// Bytes of a key: partition key plus sort key.
    pub key_bytes: u64,
    /// Bytes of an encoded item.
    pub value_bytes: u64,
    /// Current writes a second.
    pub writes_per_second: f64,
    /// Current point reads a second.
    pub reads_per_second: f64,
    /// Fraction of reads that find nothing, 0 to 1.
    pub miss_share: f64,
    /// Whether each write is durable before it returns.
    pub sync: bool,
    /// Stripes of the database, 1 to 256.
    pub stripes: usize,
    /// Total memory in bytes, including the operating system's page cache; `None` if everything fits.
    pub memory_bytes: Option<u64>,
}

impl Workload {
    /// A workload of `items` items, each written once, in 256 stripes; 1,000 writes and 1,000 reads a second, of which
    /// one in ten finds nothing; buffered writes; enough memory for everything.
    pub fn inserts(items: u64, key_bytes: u64, value_bytes: u64) -> Self {
        Self {
            items,
            writes: items,
            key_bytes,
            value_bytes,
            writes_per_second: 1_000.0,
            reads_per_second: 1_000.0,
            miss_share: 0.1,
            sync: false,
            stripes: MAX_STRIPES,
            memory_bytes: None,
        }
    }

    fn record(&self) -> f64 {
        (self.key_bytes + self.value_bytes) as f64
    }

    fn distinct(&self) -> f64 {
        self.items.min(self.writes) as f64
    }

    /// Fraction of writes that replace an existing record.
    fn overwrites(&self) -> f64 {
        if self.writes == 0 { 0.0 } else { 1.0 - self.distinct() / self.writes as f64 }
    }
}

/// The cost of elementary steps. The defaults were measured on two cores of an AMD EPYC with a virtual disk; only their
/// proportions matter for [`Model::best`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// One test of a filter in memory, in nanoseconds.
    pub filter_ns: f64,
    /// Looking up one key in the memtables, in nanoseconds.
    pub memtable_ns: f64,
    /// Finding a record in a block in memory, in nanoseconds.
    pub block_ns: f64,
    /// Reading a block from the disk, in nanoseconds.
    pub disk_ns: f64,
    /// Log and memtable work of one write, in nanoseconds.
    pub write_ns: f64,
    /// Waiting for a sync of the log, in nanoseconds.
    pub sync_ns: f64,
    /// Writing one byte of an SST in a flush or a merge, in nanoseconds.
    pub rewrite_ns: f64,
    /// Adding one key to a filter, per bit per key, in nanoseconds.
    pub filter_bit_ns: f64,
    /// Reading one byte of the log during recovery, in nanoseconds.
    pub replay_byte_ns: f64,
    /// Inserting one log record into a memtable during recovery, in nanoseconds.
    pub replay_record_ns: f64,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            filter_ns: 24.0,
            memtable_ns: 100.0,
            block_ns: 500.0,
            disk_ns: 100_000.0,
            write_ns: 1_500.0,
            sync_ns: 200_000.0,
            rewrite_ns: 2.0,
            filter_bit_ns: 1.0,
            replay_byte_ns: 0.4,
            replay_record_ns: 350.0,
        }
    }
}

/// The settings that the model covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Whether stripes are merged by themselves.
    pub compaction_enabled: bool,
    /// `sst_threshold`, K.
    pub sst_threshold: usize,
    /// `max_memtable_records`.
    pub max_memtable_records: usize,
    /// `bloom_bits_per_key`.
    pub bloom_bits_per_key: usize,
    /// `memory_budget`, in bytes.
    pub memory_budget: u64,
    /// Maximum length of the log, in bytes.
    pub log_limit: u64,
    /// `garbage_percent`.
    pub garbage_percent: u32,
}

impl Point {
    /// The point of these settings.
    pub fn of(database: &DatabaseConfig, compaction: &CompactionConfig) -> Self {
        Self {
            compaction_enabled: compaction.enabled,
            sst_threshold: compaction.sst_threshold,
            max_memtable_records: database.max_memtable_records,
            bloom_bits_per_key: database.bloom_bits_per_key,
            memory_budget: database.memory_budget_bytes() as u64,
            log_limit: database.wal_limit_bytes(),
            garbage_percent: compaction.garbage_percent,
        }
    }

    /// These settings, with the values of the point.
    #[must_use]
    pub fn apply_to(
        &self,
        database: DatabaseConfig,
        compaction: CompactionConfig,
    ) -> (DatabaseConfig, CompactionConfig) {
        let database = database
            .with_max_memtable_records(self.max_memtable_records)
            .with_bloom_bits_per_key(self.bloom_bits_per_key)
            .with_memory_budget(self.memory_budget as usize);
        (database, compaction.with_sst_threshold(self.sst_threshold))
    }
}

impl Default for Point {
    fn default() -> Self {
        Self::of(&DatabaseConfig::default(), &CompactionConfig::default())
    }
}

/// The effect of a point of the settings on a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Prediction {
    /// Records per flush: the memtable's limit, or less if the memory budget is reached first.
    pub flush_records: f64,
    /// Flushes of one stripe over the life of the workload.
    pub flushes_per_stripe: f64,
    /// Bytes that flushes and merges write per byte put: 1 for the flush, plus the merges. The log is not counted.
    /// Exact for inserts; an estimate with overwrites.
    pub write_amplification: f64,
    /// Average number of runs in a stripe over its life.
    pub average_runs: f64,
    /// Fraction of filter tests that pass although the key is not in the SST, 0 to 1.
    pub false_positive_rate: f64,
    /// Filters tested by a read that finds its item.
    pub filter_tests_per_hit: f64,
    /// Filters tested by a read that finds nothing.
    pub filter_tests_per_miss: f64,
    /// Blocks read by a read that finds its item: one, unless a memtable answers, plus wasted reads.
    pub block_reads_per_hit: f64,
    /// Blocks read by a read that finds nothing: a false positive reads one only if the index also has a false match.
    pub block_reads_per_miss: f64,
    /// Fraction of blocks read from disk instead of memory, 0 to 1.
    pub disk_share: f64,
    /// Bytes of all memtables at their fullest: stripes x limit x (record + overhead), at most the memory budget.
    pub memtable_bytes: f64,
    /// Bytes of all filters: records x bits / 8. Mapped.
    pub filter_bytes: f64,
    /// Bytes of all indexes: records x 5. Mapped.
    pub index_bytes: f64,
    /// Maximum bytes of log: data that stripes have not flushed, and log that no checkpoint has removed yet.
    pub log_bytes: f64,
    /// Time to replay that log after a crash, in nanoseconds; an estimate.
    pub replay_ns: f64,
    /// Bytes of SSTs per byte of live items, including overhead and garbage; an estimate.
    pub space_amplification: f64,
    /// Bytes of SSTs; an estimate.
    pub sst_bytes: f64,
    /// Bytes written to disk per second: log, flushes and merges.
    pub disk_bytes_per_second: f64,
    /// Cost of one write including its share of flushes and merges, in nanoseconds; an estimate.
    pub write_ns: f64,
    /// Cost of one read, weighted over hits and misses, in nanoseconds; an estimate.
    pub read_ns: f64,
}

impl Prediction {
    /// Bytes of memtables, filters and indexes.
    pub fn memory_bytes(&self) -> f64 {
        self.memtable_bytes + self.filter_bytes + self.index_bytes
    }
}

/// The cost of a workload on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Model {
    /// The workload.
    pub workload: Workload,
    /// The cost of elementary steps.
    pub machine: Machine,
}

/// The part of a prediction that depends only on the memtables and K.
#[derive(Clone, Copy, Debug)]
struct Shape {
    flush_records: f64,
    flushes: f64,
    /// Records that merges write per record put.
    merged: f64,
    runs: f64,
    position: f64,
}

impl Model {
    /// A model of that workload on the default machine.
    pub fn new(workload: Workload) -> Self {
        Self { workload, machine: Machine::default() }
    }

    /// The effect of a point on the workload.
    pub fn predict(&self, point: &Point) -> Prediction {
        let false_positives = bloom::expected_false_positives(point.bloom_bits_per_key as u32);
        self.predict_from(point, &self.shape(point), false_positives)
    }

    fn stripes(&self) -> f64 {
        self.workload.stripes.clamp(1, MAX_STRIPES) as f64
    }

    fn shape(&self, point: &Point) -> Shape {
        let workload = &self.workload;
        // Half of the sum of all limits counts against the budget: stripes are half full on average.
        let affordable =
            2.0 * point.memory_budget as f64 / (self.stripes() * (workload.record() + MEMTABLE_OVERHEAD));
        let flush_records = (point.max_memtable_records as f64).min(affordable).max(1.0);
        let flushes = |records: f64| records / (self.stripes() * flush_records);
        if !point.compaction_enabled {
            let flushes = flushes(workload.writes as f64);
            // Runs accumulate, all of equal size, and a record is in any of them.
            let runs = if flushes < 1.0 { flushes } else { (flushes + 1.0) / 2.0 };
            return Shape { flush_records, flushes, merged: 0.0, runs, position: 0.5 };
        }
        let k = point.sst_threshold;
        let inserted = flushes(workload.distinct()).round() as u64;
        let inserts = DepthRule::after(inserted, k);
        // Runs above the single run left by the last full merge for garbage.
        let above = if k > 2 { DepthRule::after(inserted, k - 1).average_runs } else { 0.0 };
        let overwrites = workload.overwrites();
        let garbage_merge = GARBAGE_MERGE * 100.0 / f64::from(point.garbage_percent.max(1));
        let mix = |inserting: f64, replacing: f64| inserting + overwrites * (replacing - inserting);
        Shape {
            flush_records,
            flushes: flushes(workload.writes as f64),
            merged: mix(
                inserts.write_amplification,
                DISTINCT_IN_CYCLE * inserts.write_amplification + garbage_merge,
            ),
            runs: mix(inserts.average_runs, 1.0 + above),
            position: inserts.position,
        }
    }

    fn predict_from(&self, point: &Point, shape: &Shape, false_positive_rate: f64) -> Prediction {
        let (workload, machine) = (&self.workload, &self.machine);
        let bits = point.bloom_bits_per_key as f64;
        let (record, live) = (workload.record(), workload.distinct());
        let buffered = (self.stripes() * shape.flush_records).min(workload.writes as f64);
        let in_memtables = if live > 0.0 { (buffered / 2.0 / live).min(1.0) } else { 1.0 };

        let garbage = workload.overwrites() * f64::from(point.garbage_percent) / 200.0;
        let stored_record = record + SST_OVERHEAD + INDEX_BYTES + bits / 8.0;
        let stored = live * (1.0 + garbage);
        let sst_bytes = stored * stored_record;
        let memtable_bytes = (buffered * (record + MEMTABLE_OVERHEAD)).min(point.memory_budget as f64);
        let (filter_bytes, index_bytes) = (stored * bits / 8.0, stored * INDEX_BYTES);
        let disk_share = workload.memory_bytes.map_or(0.0, |memory| {
            let cache = (memory as f64 - memtable_bytes - filter_bytes - index_bytes).max(0.0);
            (1.0 - cache / (stored * (record + SST_OVERHEAD)).max(1.0)).max(0.0)
        });

        let wasted = false_positive_rate * INDEX_FALSE_MATCHES;
        let before = (shape.runs - 1.0).max(0.0) * shape.position;
        let from_ssts = 1.0 - in_memtables;
        let (tests_hit, tests_miss) = (from_ssts * (before + shape.runs.min(1.0)), shape.runs);
        let (blocks_hit, blocks_miss) = (from_ssts * (1.0 + before * wasted), shape.runs * wasted);
        let block_ns = machine.block_ns + disk_share * machine.disk_ns;
        let read =
            |tests: f64, blocks: f64| machine.memtable_ns + tests * machine.filter_ns + blocks * block_ns;
        let misses = workload.miss_share.clamp(0.0, 1.0);

        let log_record = record + LOG_OVERHEAD;
        // Segments are removed by checkpoints, every two seconds.
        let unflushed = buffered + (2.0 * workload.writes_per_second).min(workload.writes as f64);
        let log_bytes = (unflushed * log_record).min(point.log_limit as f64);
        let amplification = 1.0 + shape.merged;
        let stored_per_write = stored_record * machine.rewrite_ns + bits * machine.filter_bit_ns;
        Prediction {
            flush_records: shape.flush_records,
            flushes_per_stripe: shape.flushes,
            write_amplification: amplification,
            average_runs: shape.runs,
            false_positive_rate,
            filter_tests_per_hit: tests_hit,
            filter_tests_per_miss: tests_miss,
            block_reads_per_hit: blocks_hit,
            block_reads_per_miss: blocks_miss,
            disk_share,
            memtable_bytes,
            filter_bytes,
            index_bytes,
            log_bytes,
            replay_ns: log_bytes * machine.replay_byte_ns + log_bytes / log_record * machine.replay_record_ns,
            space_amplification: if live > 0.0 { sst_bytes / (live * record.max(1.0)) } else { 1.0 },
            sst_bytes,
            disk_bytes_per_second: workload.writes_per_second * (log_record + amplification * stored_record),
            write_ns: machine.write_ns
                + f64::from(u8::from(workload.sync)) * machine.sync_ns
                + amplification * stored_per_write,
            read_ns: (1.0 - misses) * read(tests_hit, blocks_hit) + misses * read(tests_miss, blocks_miss),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sst_threshold {}, max_memtable_records {}, bloom_bits_per_key {}, memory_budget {:.0} MB",
            self.sst_threshold,
            self.max_memtable_records,
            self.bloom_bits_per_key,
            self.memory_budget as f64 / 1e6
        )
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MB: f64 = 1e6;
        writeln!(
            f,
            "flushes      {:.1} a stripe, of {:.0} records",
            self.flushes_per_stripe, self.flush_records
        )?;
        writeln!(
            f,
            "writes       {:.2} x amplification, {:.2} us each, {:.1} MB/s to the disk",
            self.write_amplification,
            self.write_ns / 1e3,
            self.disk_bytes_per_second / MB
        )?;
        writeln!(f, "runs         {:.1} a stripe on average", self.average_runs)?;
        writeln!(
            f,
            "a hit        {:.2} filter tests, {:.3} block reads",
            self.filter_tests_per_hit, self.block_reads_per_hit
        )?;
        writeln!(
            f,
            "a miss       {:.2} filter tests, {:.5} block reads; false positives {:.3} %",
            self.filter_tests_per_miss,
            self.block_reads_per_miss,
            100.0 * self.false_positive_rate
        )?;
        writeln!(
            f,
            "a read       {:.2} us, {:.0} % of blocks from the disk",
            self.read_ns / 1e3,
            100.0 * self.disk_share
        )?;
        writeln!(
            f,
            "memory       {:.1} MB memtables, {:.1} MB filters, {:.1} MB indexes",
            self.memtable_bytes / MB,
            self.filter_bytes / MB,
            self.index_bytes / MB
        )?;
        writeln!(
            f,
            "log          {:.1} MB at most, replayed in {:.0} ms",
            self.log_bytes / MB,
            self.replay_ns / 1e6
        )?;
        write!(
            f,
            "disk         {:.1} MB of SSTs, {:.2} x the items",
            self.sst_bytes / MB,
            self.space_amplification
        )
    }
}

#[cfg(test)]
mod tests;
