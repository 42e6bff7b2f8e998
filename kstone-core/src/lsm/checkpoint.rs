//! CHECKPOINT: makes flushed and merged SSTs durable and gives the log before them back.
//!
//! The order is the crash argument:
//! 1. [`CheckpointJob::collect`] reads the log's tail, then each stripe under its lock. The log must be kept from
//!    the lowest position that any unflushed record has; it is fixed here and never recomputed.
//! 2. [`CheckpointJob::sync_log`]: the log is durable up to every sequence in the SSTs to be listed, so that no
//!    later record outlives an earlier one of another stripe, nor half a batch the other half.
//! 3. [`CheckpointJob::sync_next_sst`], one a step, then [`CheckpointJob::sync_names`].
//! 4. [`CheckpointJob::edit`]: one manifest edit, durable. This is the commit point.
//! 5. Only then the log before it, and SSTs that it no longer lists, are removed ([`Shared::remove_obsolete`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::job::{Progress, Slot, run_to_end};
use super::state::Shared;
use super::trace;
use crate::error::Result;
use crate::manifest::Change;
use crate::planted::{Bug, planted};
use crate::sst::Table;
use crate::types::{FileId, Lsn, SeqNo};
use crate::version::Version;

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
    /// Held so that no SST to be listed is unlinked meanwhile by a compaction.
    _versions: Vec<Arc<Version>>,
    added: Vec<Arc<Table>>,
    /// How many of `added` are synced.
    synced: usize,
    removed: Vec<FileId>,
    flushed_to: Vec<(u16, u32, SeqNo)>,
    log_start: Lsn,
}

impl CheckpointJob {
    pub(crate) fn step(&mut self, shared: &Shared) -> Result<Progress> {
        let _span = trace::job("checkpoint", None);
        shared.life.health().check()?; // a poisoned handle writes nothing any more
        *self = match std::mem::replace(self, Self::Start) {
            Self::Start => match Self::collect(shared) {
                Some(batch) => Self::SyncLog(batch),
                None => return Ok(Progress::Done),
            },
            Self::SyncLog(batch) => Self::sync_log(shared, batch)?,
            Self::SyncSsts(batch) => Self::sync_next_sst(shared, batch)?,
            Self::SyncNames(batch) => Self::sync_names(shared, batch)?,
            Self::Edit(batch) => {
                Self::edit(shared, *batch)?;
                return Ok(Progress::Done);
            }
        };
        Ok(Progress::Again)
    }

    /// What has changed since the last checkpoint; `None` when nothing has.
    fn collect(shared: &Shared) -> Option<Box<Batch>> {
        let started = shared.clock.monotonic();
        let mut log_start = shared.wal.tail();
        let mut versions = Vec::new();
        let mut flushed = Vec::new();
        for stripe in shared.used_stripes() {
            let locked = stripe.lock();
            let version = Arc::clone(&locked.version());
            log_start = version.memtables().filter_map(|m| m.first_lsn()).fold(log_start, Lsn::min);
            let sealed = version.sealed.first().filter(|_| planted(Bug::FlushedToAhead));
            let flushed_to = sealed.map_or(locked.state.flushed_to, |memtable| memtable.last_seq());
            flushed.push((stripe.id as u16, 0, flushed_to));
            versions.push(version);
        }
        let manifest = shared.manifest.lock();
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
            shared.wal.sync()?;
        }
        Ok(Self::SyncSsts(batch))
    }

    fn sync_next_sst(shared: &Shared, mut batch: Box<Batch>) -> Result<Self> {
        let Some(table) = batch.added.get(batch.synced) else {
            return Ok(if batch.added.is_empty() { Self::Edit(batch) } else { Self::SyncNames(batch) });
        };
        let file = table.open_to_sync()?;
        if !planted(Bug::SstNotSynced) {
            shared.life.poison_on_error(table.sync(&*file))?;
        }
        batch.synced += 1;
        Ok(Self::SyncSsts(batch))
    }

    fn sync_names(shared: &Shared, batch: Box<Batch>) -> Result<Self> {
        let merged = batch.added.iter().any(|table| table.meta().depth > 0);
        if !planted(if merged { Bug::MergedNamesNotSynced } else { Bug::FlushedNamesNotSynced }) {
            shared.sync_dir()?;
        }
        Ok(Self::Edit(batch))
    }

    fn edit(shared: &Shared, mut batch: Batch) -> Result<()> {
        if planted(Bug::LogStartRecomputed) {
            batch.log_start = shared.wal.tail();
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
        changes.push(Change::LogStart { start: batch.log_start, durable: shared.wal.synced() });
        changes.extend(shared.file_ids.top_up());
        let mut manifest = shared.manifest.lock();
        changes.extend(shared.settings_change(manifest.state()));
        shared.append_edit(&mut manifest, changes)?;
        drop(manifest);
        Self::give_log_back(shared, &batch);
        Ok(())
    }

    fn give_log_back(shared: &Shared, batch: &Batch) {
        let log_bytes = shared.wal.live_bytes();
        let retired = shared.retire_log(batch.log_start.generation());
        if retired && shared.wal.live_bytes() > shared.settings.load().log.limit {
            shared.background.want_relief(); // the limit was lowered: there is more to give back
        }
        let freed = log_bytes.saturating_sub(shared.wal.live_bytes());
        shared.observed.checkpointed(batch.added.len(), freed, batch.started);
    }
}

impl Shared {
    /// A whole checkpoint on the caller's thread.
    pub(crate) fn checkpoint_now(&self) -> Result<()> {
        self.claim(Slot::Checkpoint)?;
        let mut job = CheckpointJob::Start;
        let result = run_to_end(self.life.health(), || job.step(self));
        self.release(Slot::Checkpoint, result.is_err());
        result?;
        self.remove_obsolete();
        Ok(())
    }

    /// Removes SSTs that neither the manifest nor any reader or backup refers to.
    pub(crate) fn remove_obsolete(&self) {
        self.remove_obsolete_ssts(false);
    }

    /// The same at close, when no job runs any more: also what a reader still holds, for its next step says
    /// `Closed`, and a clean open looks for nothing to remove.
    pub(crate) fn remove_all_obsolete(&self) {
        self.remove_obsolete_ssts(true);
    }

    fn remove_obsolete_ssts(&self, also_held: bool) {
        if !self.life.may_remove() {
            return;
        }
        self.remove_leftovers();
        let mut obsolete = self.obsolete.lock();
        let (mut remove, mut read) = (Vec::new(), false);
        obsolete.retain(|table| {
            // In this order: once nobody else holds it, no checkpoint can be about to list it.
            let held = Arc::strong_count(table) > 1 && !planted(Bug::CheckpointListsRemoved);
            let listed = self.may_be_listed(table.meta().id);
            let pinned = || self.pins.hold(table.meta().id);
            let unused = (!listed || planted(Bug::ListedSstRemoved)) && (also_held || !pinned());
            read |= unused && held;
            let unused = unused && (also_held || !held);
            if unused {
                remove.push((table.path().to_path_buf(), table.meta().len));
            }
            !unused
        });
        drop(obsolete);
        for (path, len) in remove {
            self.remove_file(&path);
            self.space.removed(len);
        }
        self.remove_once_unread(read && !also_held);
        self.measure_stripes();
    }

    /// Whether the manifest on disk may list that SST. An edit that failed and may be there all the same poisons before
    /// it lets go of the manifest: who gets it afterwards learns of that here, whenever it looked before.
    fn may_be_listed(&self, id: FileId) -> bool {
        let manifest = self.manifest.lock();
        !self.life.may_remove() || manifest.state().lists(id)
    }

    pub(crate) fn remove_file(&self, path: &std::path::Path) {
        if !self.life.may_remove() {
            return;
        }
        if let Err(source) = self.vfs.remove(path) {
            self.leftovers.lock().push(path.to_path_buf());
            self.note_background_error(&crate::Error::io("remove", path)(source));
        }
    }

    /// Files that could not be removed take up space: they are tried again, and the next open does it at the latest.
    fn remove_leftovers(&self) {
        let mut left = std::mem::take(&mut *self.leftovers.lock());
        left.retain(|path| {
            !self.life.may_remove()
                || self.vfs.remove(path).is_err_and(|e| e.kind() != std::io::ErrorKind::NotFound)
        });
        let mut leftovers = self.leftovers.lock();
        leftovers.append(&mut left);
        let none = leftovers.is_empty();
        drop(leftovers);
        if none {
            self.background.forget_noted_error();
        }
    }
}
