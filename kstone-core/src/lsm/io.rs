//! The files of an open database: its directory, log, manifest and SSTs.
//!
//! The manifest is read through [`ManifestGuard`] and changed only by [`Io::append_edit`]. So no edit is made by a
//! handle that is poisoned or whose directory has been replaced, and every edit updates the log and the reservation of
//! file numbers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lifecycle::Lifecycle;
use super::space::Space;
use crate::error::{Error, Result};
use crate::manifest::{Change, Ids, Manifest, ManifestState};
use crate::sst::TableContext;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::types::FileId;
use crate::vfs::Vfs;
use crate::wal::Wal;

#[derive(Debug)]
pub(crate) struct Io {
    dir: PathBuf,
    vfs: Arc<dyn Vfs>,
    wal: Wal,
    /// The log segment that the last write went to.
    newest_generation: AtomicU32,
    manifest: Mutex<Manifest>,
    file_ids: FileIds,
    tables: Arc<TableContext>,
}

impl Io {
    pub(crate) fn new(
        dir: PathBuf,
        vfs: Arc<dyn Vfs>,
        wal: Wal,
        manifest: Manifest,
        file_ids: FileIds,
        tables: Arc<TableContext>,
    ) -> Self {
        let newest_generation = AtomicU32::new(0);
        Self { dir, vfs, wal, newest_generation, manifest: Mutex::new(manifest), file_ids, tables }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    #[inline]
    pub(crate) fn wal(&self) -> &Wal {
        &self.wal
    }

    /// The resources that SSTs are read with.
    #[inline]
    pub(crate) fn tables(&self) -> &Arc<TableContext> {
        &self.tables
    }

    /// Records that a write went to this segment of the log. Returns whether it is the first one.
    #[inline]
    pub(crate) fn reached_segment(&self, generation: u32) -> bool {
        self.newest_generation.fetch_max(generation, Ordering::Relaxed) < generation
    }

    /// Locks the manifest; no edit can be made meanwhile.
    pub(crate) fn manifest(&self) -> ManifestGuard<'_> {
        ManifestGuard(self.manifest.lock())
    }

    /// Appends one durable edit. Running out of space is a transient error, unless it occurred in a sync; any other
    /// error makes the handle read-only, because the effect of a failed sync is unknown.
    pub(crate) fn append_edit(
        &self,
        ManifestGuard(manifest): &mut ManifestGuard<'_>,
        life: &Lifecycle,
        space: &Space,
        changes: Vec<Change>,
    ) -> Result<()> {
        life.health().check()?;
        life.check_place(&*self.vfs, &self.dir)?;
        let result = manifest.append(changes);
        if manifest.is_broken()
            && let Err(error) = &result
        {
            life.health().poison(error);
        }
        self.wal.set_last_edit(result?);
        space.manifest_takes(manifest.room());
        self.file_ids.limit.fetch_max(manifest.state().files_below, Ordering::Release);
        Ok(())
    }

    /// Allocates the number of a new SST.
    pub(crate) fn next_file_id(&self, life: &Lifecycle, space: &Space) -> Result<FileId> {
        let id = self.file_ids.next.fetch_add(1, Ordering::Relaxed);
        if id >= self.file_ids.limit.load(Ordering::Acquire) {
            let mut manifest = self.manifest();
            if id >= manifest.state().files_below {
                let reserve = Change::Reserve { files_below: id + FileIds::BLOCK };
                self.append_edit(&mut manifest, life, space, vec![reserve])?;
            }
        }
        Ok(id)
    }

    /// The lowest number not used by any SST.
    pub(crate) fn unused_file_id(&self) -> FileId {
        self.file_ids.next()
    }

    /// The change that extends the reservation of numbers, once half of it is used up.
    pub(crate) fn reserve_file_ids(&self) -> Option<Change> {
        let next = self.file_ids.next();
        let left = self.file_ids.limit.load(Ordering::Relaxed).saturating_sub(next);
        (left < FileIds::BLOCK / 2).then_some(Change::Reserve { files_below: next + FileIds::BLOCK })
    }

    /// Makes the names in the directory durable.
    pub(crate) fn sync_dir(&self, life: &Lifecycle) -> Result<()> {
        let synced = self.vfs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir));
        if synced.as_ref().is_err_and(Error::is_unbegun_sync) { synced } else { life.poison_on_error(synced) }
    }
}

/// Exclusive access to the manifest.
pub(crate) struct ManifestGuard<'a>(MutexGuard<'a, Manifest>);

impl ManifestGuard<'_> {
    pub(crate) fn state(&self) -> &ManifestState {
        self.0.state()
    }

    pub(crate) fn ids(&self) -> Ids {
        self.0.ids()
    }

    /// The length of its file in bytes.
    pub(crate) fn file_len(&self) -> u64 {
        self.0.len()
    }
}

/// Numbers for new SSTs. They are reserved in the manifest ahead of use, so that none is used twice even if a crash
/// brings a removed file back.
#[derive(Debug)]
pub(crate) struct FileIds {
    next: AtomicU64,
    /// The end of the reservation, exclusive.
    limit: AtomicU64,
}

impl FileIds {
    pub(super) const BLOCK: u64 = 1024;

    pub(super) fn new(next: FileId, limit: FileId) -> Self {
        Self { next: AtomicU64::new(next), limit: AtomicU64::new(limit) }
    }

    fn next(&self) -> FileId {
        self.next.load(Ordering::Relaxed)
    }
}
