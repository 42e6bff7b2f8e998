//! Counters since open, and sizes now.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{LsmEngine, Shared};
use crate::backpressure::StallReason;
use crate::error::{Error, Result};
use crate::file_header::FORMAT_VERSION;
use crate::paths::{self, FileName};
use crate::types::SeqNo;

/// Totals since open; each is added to where the thing happens.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) flushes: AtomicU64,
    pub(crate) flush_bytes_written: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) ssts_merged: AtomicU64,
    pub(crate) tombstones_removed: AtomicU64,
    pub(crate) compaction_bytes_read: AtomicU64,
    pub(crate) compaction_bytes_written: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    stalls: [AtomicU64; StallReason::ALL.len()],
    stall_nanos: [AtomicU64; StallReason::ALL.len()],
}

impl Counters {
    pub(crate) fn stalled(&self, reason: StallReason, time: Duration) {
        if let (Some(count), Some(nanos)) =
            (self.stalls.get(reason as usize), self.stall_nanos.get(reason as usize))
        {
            count.fetch_add(1, Ordering::Relaxed);
            nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        }
    }
}

/// One stripe that holds something.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct StripeStats {
    /// Its number, as in the names of its SSTs.
    pub stripe: usize,
    /// Runs: what `sst_threshold` counts.
    pub runs: usize,
    /// SST files; a large run has several.
    pub ssts: usize,
    /// Their bytes.
    pub sst_bytes: u64,
    /// Their entries: versions and tombstones.
    pub entries: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// Records in memtables, sealed ones included.
    pub memtable_records: usize,
    /// Memory those take, in bytes, about.
    pub memtable_bytes: usize,
}

/// Writers that were slowed down or stopped, for one reason, since open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct StallStats {
    /// What background work was behind with.
    pub reason: StallReason,
    /// How many writes were held up.
    pub count: u64,
    /// For how long in all, in nanoseconds.
    pub nanos: u64,
}

/// What the engine holds and has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct EngineStats {
    /// Stripes that hold something, by number.
    pub stripes: Vec<StripeStats>,
    /// The version of its file formats.
    pub format_version: u16,
    /// Stripes of the database.
    pub stripe_count: usize,
    /// Bytes in SSTs.
    pub sst_bytes: u64,
    /// Bytes that the log's files take, space reserved ahead included.
    pub log_bytes: u64,
    /// Files of the log.
    pub log_segments: usize,
    /// Bytes in the manifest.
    pub manifest_bytes: u64,
    /// Versions in SSTs and memtables less tombstones: an upper estimate, since older versions count too.
    pub items_estimate: u64,
    /// The last write that can be seen.
    pub last_seq: SeqNo,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes of SSTs that flushes wrote.
    pub flush_bytes_written: u64,
    /// Compactions done.
    pub compactions: u64,
    /// SSTs they merged.
    pub ssts_merged: u64,
    /// Tombstones dropped, by flushes and compactions.
    pub tombstones_removed: u64,
    /// Bytes of SSTs that compactions read.
    pub compaction_bytes_read: u64,
    /// Bytes of SSTs that compactions wrote.
    pub compaction_bytes_written: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Writers held up, by reason; reasons that never occurred are left out.
    pub stalls: Vec<StallStats>,
    /// Why no more writes are accepted, if so.
    pub poisoned: Option<String>,
    /// The last failure of background work that has not been made good.
    pub background_error: Option<String>,
    /// Names in the directory that are not ours; they are left alone.
    pub foreign_files: Vec<String>,
}

impl LsmEngine {
    /// Sizes now and totals since open. Reads the directory's names; no SST is touched.
    pub fn stats(&self) -> Result<EngineStats> {
        let shared = &*self.shared;
        shared.check_open()?;
        let stripes: Vec<_> = shared.used_stripes().filter_map(stripe_stats).collect();
        let sum = |of: fn(&StripeStats) -> u64| stripes.iter().map(of).sum::<u64>();
        let c = &shared.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(EngineStats {
            format_version: FORMAT_VERSION,
            stripe_count: shared.stripes.len(),
            sst_bytes: sum(|s| s.sst_bytes),
            log_bytes: shared.wal.live_bytes(),
            log_segments: shared.wal.segment_count(),
            manifest_bytes: shared.manifest.lock().len(),
            items_estimate: sum(|s| s.entries + s.memtable_records as u64)
                .saturating_sub(2 * sum(|s| s.tombstones)),
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
            poisoned: shared.health.cause().map(str::to_string),
            background_error: shared.background_error(),
            foreign_files: foreign_files(shared)?,
            stripes,
        })
    }
}

fn stripe_stats(stripe: &crate::stripe::Stripe) -> Option<StripeStats> {
    let version = stripe.version();
    let total = |of: fn(&crate::types::SstMeta) -> u64| version.tables().map(|table| of(table.meta())).sum();
    let stats = StripeStats {
        stripe: stripe.id,
        runs: version.runs.len(),
        ssts: version.tables().count(),
        sst_bytes: total(|meta| meta.len),
        entries: total(|meta| meta.entries),
        tombstones: total(|meta| meta.tombstones),
        memtable_records: version.memtables().map(|m| m.len()).sum(),
        memtable_bytes: version.memtables().map(|m| m.memory()).sum(),
    };
    (stats.runs > 0 || stats.memtable_records > 0).then_some(stats)
}

fn stall_stats(counters: &Counters) -> Vec<StallStats> {
    let all = StallReason::ALL.iter().zip(counters.stalls.iter().zip(&counters.stall_nanos));
    all.map(|(&reason, (count, nanos))| StallStats {
        reason,
        count: count.load(Ordering::Relaxed),
        nanos: nanos.load(Ordering::Relaxed),
    })
    .filter(|stats| stats.count > 0)
    .collect()
}

fn foreign_files(shared: &Shared) -> Result<Vec<String>> {
    let entries = match shared.vfs.list(&shared.dir) {
        Ok(entries) => entries,
        // The directory was removed under us: nothing in it, then.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", &shared.dir)(e)),
    };
    let names = entries.into_iter().map(|entry| entry.name);
    Ok(names.filter(|name| paths::parse(name) == FileName::Foreign).collect())
}
