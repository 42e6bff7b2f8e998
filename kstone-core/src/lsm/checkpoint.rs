//! CHECKPOINT: makes flushed and merged SSTs durable and retires the log before them.
//!
//! The order is the crash argument:
//! 1. [`CheckpointJob::collect`] reads the log's tail, then each stripe under its lock. The log must be kept from the
//!    lowest position of any unflushed record; that position is fixed here and never recomputed.
//! 2. [`CheckpointJob::sync_log`]: the log is durable up to every sequence in the SSTs to be listed, so that no later
//!    record outlives an earlier one of another stripe, and no half of a batch the other half.
//! 3. [`CheckpointJob::sync_next_ssts`], some of them per step, then [`CheckpointJob::sync_names`].
//! 4. [`CheckpointJob::edit`]: one manifest edit, durable. This is the commit point.
//! 5. Only then are the log before it, and SSTs that it no longer lists, removed ([`Shared::remove_obsolete`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::job::{Job, Slot, StepResult, run_to_end};
use super::options::Workers;
use super::state::Shared;
use super::trace;
use crate::error::Result;
use crate::manifest::Change;
use crate::parallel;
use crate::planted::{Bug, planted};
use crate::sst::Table;
use crate::types::{FileId, Lsn, SeqNo};
use crate::version::Version;

/// SSTs that are synced at the same time. A file system with a journal commits it once for several syncs that wait at the
/// same time, and once for each of them otherwise.
const SYNCS: usize = 4;
/// SSTs that one step syncs: enough that starting threads costs little beside it, few enough to stop soon.
const PER_STEP: usize = 64;

#[derive(Debug)]
pub(crate) enum CheckpointJob {
    Start,
    SyncLog(Box<Batch>),
    SyncSsts(Box<Batch>),
    SyncNames(Box<Batch>),
    Edit(Box<Batch>),
}

/// What one checkpoint makes durable.
#[derive(Debug)]
pub(crate) struct Batch {
    started: Duration,
    /// Held so that no compaction unlinks an SST that will be listed.
    _versions: Vec<Arc<Version>>,
    added: Vec<Arc<Table>>,
    /// The number of `added` SSTs synced so far.
    synced: usize,
    removed: Vec<FileId>,
    flushed_to: Vec<(u16, u32, SeqNo)>,
    log_start: Lsn,
}

impl Job<Shared> for CheckpointJob {
    fn step(&mut self, shared: &Shared) -> Result<StepResult> {
        let _span = trace::job("checkpoint", None);
        shared.life.health().check()?; // a poisoned handle writes nothing any more
        *self = match std::mem::replace(self, Self::Start) {
            Self::Start => match Self::collect(shared) {
                Some(batch) => Self::SyncLog(batch),
                None => return Ok(StepResult::Done),
            },
            Self::SyncLog(batch) => Self::sync_log(shared, batch)?,
            Self::SyncSsts(batch) => Self::sync_next_ssts(shared, batch)?,
            Self::SyncNames(batch) => Self::sync_names(shared, batch)?,
            Self::Edit(batch) => {
                Self::edit(shared, *batch)?;
                return Ok(StepResult::Done);
            }
        };
        Ok(StepResult::Again)
    }

    fn abort(self: Box<Self>, _: &Shared) {}
}

impl CheckpointJob {
    /// Collects the changes since the last checkpoint; `None` if there are none.
    fn collect(shared: &Shared) -> Option<Box<Batch>> {
        let started = shared.clock.monotonic();
        let mut log_start = shared.io.wal().tail();
        let mut versions = Vec::new();
        let mut flushed = Vec::new();
        for stripe in shared.stripes.used() {
            let locked = stripe.lock();
            let version = Arc::clone(&locked.version());
            log_start = version.memtables().filter_map(|m| m.first_lsn()).fold(log_start, Lsn::min);
            let sealed = version.sealed.first().filter(|_| planted(Bug::FlushedToAhead));
            let flushed_to = sealed.map_or(locked.state.flushed_to, |memtable| memtable.last_seq());
            flushed.push((stripe.id as u16, 0, flushed_to));
            versions.push(version);
        }
        let manifest = shared.io.manifest();
        let state = manifest.state();
        let current: BTreeSet<FileId> =
            versions.iter().flat_map(|v| v.tables()).map(|table| table.meta().id).collect();
        let added: Vec<_> =
            versions.iter().flat_map(|v| v.tables()).filter(|t| !state.lists(t.meta().id)).cloned().collect();
        let removed: Vec<_> = state.ssts.keys().copied().filter(|id| !current.contains(id)).collect();
        flushed.retain(|&(stripe, keyspace, seq)| seq > state.flushed_to(stripe, keyspace));
        let log_moves = log_start > state.log_start;
        if added.is_empty() && removed.is_empty() && flushed.is_empty() && !log_moves {
            return None;
        }
        let flushed_to = flushed;
        let batch = Batch { started, _versions: versions, added, synced: 0, removed, flushed_to, log_start };
        Some(Box::new(batch))
    }

    fn sync_log(shared: &Shared, batch: Box<Batch>) -> Result<Self> {
        if !planted(Bug::CheckpointBeforeLogSync) {
            shared.io.wal().sync()?;
        }
        Ok(Self::SyncSsts(batch))
    }

    fn sync_next_ssts(shared: &Shared, mut batch: Box<Batch>) -> Result<Self> {
        let (threads, most) = if shared.workers == Workers::Manual { (1, 1) } else { (SYNCS, PER_STEP) };
        let next: Vec<_> = batch.added.iter().skip(batch.synced).take(most).collect();
        if next.is_empty() {
            return Ok(if batch.added.is_empty() { Self::Edit(batch) } else { Self::SyncNames(batch) });
        }
        let count = next.len();
        let sync = |table: &Arc<Table>| {
            shared.life.health().check()?;
            let file = table.open_to_sync()?;
            if !planted(Bug::SstNotSynced) {
                shared.life.poison_on_error(table.sync(&*file))?;
            }
            Ok(())
        };
        parallel::each(threads, next, sync).into_iter().collect::<Result<()>>()?;
        batch.synced += count;
        Ok(Self::SyncSsts(batch))
    }

    fn sync_names(shared: &Shared, batch: Box<Batch>) -> Result<Self> {
        let merged = batch.added.iter().any(|table| table.meta().depth > 0);
        if !planted(if merged { Bug::MergedNamesNotSynced } else { Bug::FlushedNamesNotSynced }) {
            shared.io.sync_dir(&shared.life)?;
        }
        Ok(Self::Edit(batch))
    }

    fn edit(shared: &Shared, mut batch: Batch) -> Result<()> {
        if planted(Bug::LogStartRecomputed) {
            batch.log_start = shared.io.wal().tail();
        }
        if planted(Bug::LogDroppedBeforeEdit) {
            Self::give_log_back(shared, &batch);
        }
        let mut changes: Vec<Change> = Vec::new();
        changes.extend(batch.added.iter().flat_map(|table| Change::adding(table.meta())));
        changes.extend(batch.removed.iter().map(|&id| Change::RemoveSst(id)));
        if !batch.flushed_to.is_empty() {
            changes.push(Change::FlushedTo(std::mem::take(&mut batch.flushed_to)));
        }
        changes.push(Change::LogStart { start: batch.log_start, durable: shared.io.wal().synced() });
        changes.extend(shared.io.reserve_file_ids());
        let mut manifest = shared.io.manifest();
        changes.extend(shared.settings_change(manifest.state()));
        shared.append_edit(&mut manifest, changes)?;
        drop(manifest);
        Self::give_log_back(shared, &batch);
        Ok(())
    }

    fn give_log_back(shared: &Shared, batch: &Batch) {
        let log_bytes = shared.io.wal().live_bytes();
        let retired = shared.retire_log(batch.log_start.generation());
        if retired && shared.io.wal().live_bytes() > shared.settings.load().log.limit {
            shared.background.request_seal(); // the limit was lowered: there is more to retire
        }
        let freed = log_bytes.saturating_sub(shared.io.wal().live_bytes());
        shared.observed.checkpointed(batch.added.len(), freed, batch.started);
    }
}

impl Shared {
    /// Runs a whole checkpoint on the caller's thread.
    pub(crate) fn checkpoint_now(&self) -> Result<()> {
        self.claim(Slot::Checkpoint)?;
        let mut job = CheckpointJob::Start;
        let result = run_to_end(self.life.health(), || job.step(self));
        self.release(Slot::Checkpoint, result.is_err());
        result?;
        self.remove_obsolete();
        Ok(())
    }
}
