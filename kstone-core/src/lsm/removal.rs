//! Files that are no longer needed, and what keeps them from being removed.
//!
//! 1. `obsolete` is held while looking for files to remove; `retiring` is held while removing segments as well. Under
//!    `obsolete`, only the manifest and leaf locks are acquired.
//! 2. A failed removal is retried, by the next open at the latest: leftovers only cost space.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::io::Io;
use super::lifecycle::Lifecycle;
use super::pins::Pins;
use crate::error::{Error, Result};
use crate::planted::{Bug, planted};
use crate::sst::Table;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::types::FileId;

#[derive(Debug, Default)]
pub(crate) struct Removal {
    /// SSTs that no version holds any more, to be unlinked once nothing refers to them.
    obsolete: Mutex<Vec<Arc<Table>>>,
    /// Files pinned by running backups.
    pins: Pins,
    /// Held while segments are retired, so that two threads do not disagree about which are gone.
    retiring: Mutex<()>,
    /// Files that are not needed and could not be removed yet.
    leftovers: Mutex<Vec<PathBuf>>,
    /// Set when an orphan could not be removed.
    orphans: AtomicBool,
}

/// SSTs that are neither needed nor being read.
#[derive(Debug, Default)]
pub(crate) struct Unused {
    /// Paths and lengths.
    pub(crate) files: Vec<(PathBuf, u64)>,
    /// Whether there are others, kept only because they are being read.
    pub(crate) some_are_read: bool,
}

impl Removal {
    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Adds SSTs that no version holds any more. The caller has dropped its own references.
    pub(crate) fn add_obsolete(&self, tables: Vec<Arc<Table>>) {
        self.obsolete.lock().extend(tables);
    }

    /// Whether an SST that had readers may have none now. Never waits for a lock.
    pub(crate) fn may_have_unread(&self) -> bool {
        let obsolete = self.obsolete.try_lock();
        obsolete.is_none_or(|obsolete| obsolete.iter().any(|table| Arc::strong_count(table) == 1))
    }

    /// Takes the SSTs that neither the manifest nor any reader or backup refers to. They are no longer obsolete: the
    /// caller removes them. `also_held`: at close, takes those that a reader or a backup still holds as well.
    pub(crate) fn take_unused(&self, io: &Io, life: &Lifecycle, also_held: bool) -> Unused {
        let mut unused = Unused::default();
        self.obsolete.lock().retain(|table| {
            // In this order: once there is no other reference, no checkpoint can be about to list it.
            let held = Arc::strong_count(table) > 1 && !planted(Bug::CheckpointListsRemoved);
            let listed = may_be_listed(io, life, table.meta().id);
            let pinned = || self.pins.hold(table.meta().id);
            let unneeded = (!listed || planted(Bug::ListedSstRemoved)) && (also_held || !pinned());
            unused.some_are_read |= unneeded && held;
            let remove = unneeded && (also_held || !held);
            if remove {
                unused.files.push((table.path().to_path_buf(), table.meta().len));
            }
            !remove
        });
        unused
    }

    /// Calls `remove` with the unpinned segments below this generation, which the manifest no longer needs. Returns
    /// whether there were any. A poisoned handle removes nothing.
    pub(crate) fn retire_log(&self, io: &Io, life: &Lifecycle, below: u32, remove: impl Fn(&Path)) -> bool {
        let _one = self.retiring.lock();
        if !life.may_remove() {
            return false;
        }
        let pinned = if life.is_closed() { u32::MAX } else { self.pins.log_from() };
        let retired = io.wal().retire(below.min(pinned));
        retired.iter().for_each(|path| remove(path));
        io.wal().removed();
        !retired.is_empty()
    }

    /// Removes a file, or records it for a later retry.
    pub(crate) fn remove(&self, io: &Io, life: &Lifecycle, path: &Path) -> Result<()> {
        if !life.may_remove() {
            return Ok(());
        }
        io.vfs().remove(path).map_err(|source| {
            self.leftovers.lock().push(path.to_path_buf());
            Error::io("remove", path)(source)
        })
    }

    /// Retries removals that failed before. Returns whether none is left.
    pub(crate) fn remove_leftovers(&self, io: &Io, life: &Lifecycle) -> bool {
        let mut left = std::mem::take(&mut *self.leftovers.lock());
        left.retain(|path| {
            !life.may_remove()
                || io.vfs().remove(path).is_err_and(|e| e.kind() != std::io::ErrorKind::NotFound)
        });
        let mut leftovers = self.leftovers.lock();
        leftovers.append(&mut left);
        leftovers.is_empty()
    }

    /// Records that an orphan may have been left behind.
    pub(crate) fn note_orphans(&self) {
        self.orphans.store(true, Ordering::Relaxed);
    }

    /// Whether the directory holds only files that are needed, to the knowledge of this handle.
    pub(crate) fn is_tidy(&self) -> bool {
        !self.orphans.load(Ordering::Relaxed) && self.leftovers.lock().is_empty()
    }
}

/// Whether the manifest on disk may list this SST. An edit that failed, and may nevertheless be on disk, poisons the
/// handle before it releases the manifest: a thread that acquires the manifest afterwards sees that here, no matter
/// when it last checked.
fn may_be_listed(io: &Io, life: &Lifecycle, id: FileId) -> bool {
    let manifest = io.manifest();
    !life.may_remove() || manifest.state().lists(id)
}
