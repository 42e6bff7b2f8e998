//! Files that nobody needs any more, and what keeps them from being removed.
//!
//! 1. `obsolete` is held while files are looked for, and `retiring` also while segments are removed; under `obsolete` only
//!    the manifest and leaves are taken.
//! 2. What cannot be removed is tried again, and by the next open at the latest: it is a matter of space alone.

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
    /// SSTs that no version holds any more, to be unlinked once nobody refers to them.
    obsolete: Mutex<Vec<Arc<Table>>>,
    /// What backups under way keep from being removed.
    pins: Pins,
    /// Held while segments are given back, so that two do not mix up what is gone.
    retiring: Mutex<()>,
    /// Files that nobody needs and that could not be removed yet.
    leftovers: Mutex<Vec<PathBuf>>,
    /// A file that belongs to nothing could not be removed.
    orphans: AtomicBool,
}

/// SSTs that nobody needs and nobody reads.
#[derive(Debug, Default)]
pub(crate) struct Unused {
    /// Their files and lengths.
    pub(crate) files: Vec<(PathBuf, u64)>,
    /// There are others that are only read.
    pub(crate) some_are_read: bool,
}

impl Removal {
    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// No version holds those SSTs any more. The caller has let go of them.
    pub(crate) fn add_obsolete(&self, tables: Vec<Arc<Table>>) {
        self.obsolete.lock().extend(tables);
    }

    /// Whether an SST that was still read may be so no more. Takes no lock that somebody else has.
    pub(crate) fn may_have_unread(&self) -> bool {
        let obsolete = self.obsolete.try_lock();
        obsolete.is_none_or(|obsolete| obsolete.iter().any(|table| Arc::strong_count(table) == 1))
    }

    /// SSTs that neither the manifest nor any reader or backup refers to: no longer obsolete, and to be removed now.
    /// `also_held`: at close, also those that a reader or a backup still holds.
    pub(crate) fn take_unused(&self, io: &Io, life: &Lifecycle, also_held: bool) -> Unused {
        let mut unused = Unused::default();
        self.obsolete.lock().retain(|table| {
            // In this order: once nobody else holds it, no checkpoint can be about to list it.
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

    /// Has `remove` called with the segments below that generation, which the manifest needs no more, as far as nobody
    /// has pinned them. Whether there were any. A poisoned handle removes nothing.
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

    /// Removes a file, or keeps it in mind.
    pub(crate) fn remove(&self, io: &Io, life: &Lifecycle, path: &Path) -> Result<()> {
        if !life.may_remove() {
            return Ok(());
        }
        io.vfs().remove(path).map_err(|source| {
            self.leftovers.lock().push(path.to_path_buf());
            Error::io("remove", path)(source)
        })
    }

    /// Tries again to remove what could not be; whether nothing of it is left.
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

    /// A file that belongs to nothing may have been left.
    pub(crate) fn note_orphans(&self) {
        self.orphans.store(true, Ordering::Relaxed);
    }

    /// Whether the directory holds nothing but what is needed, as far as this handle knows.
    pub(crate) fn is_tidy(&self) -> bool {
        !self.orphans.load(Ordering::Relaxed) && self.leftovers.lock().is_empty()
    }
}

/// Whether the manifest on disk may list that SST. An edit that failed and may be there all the same poisons before
/// it lets go of the manifest: who gets it afterwards learns of that here, whenever it looked before.
fn may_be_listed(io: &Io, life: &Lifecycle, id: FileId) -> bool {
    let manifest = io.manifest();
    !life.may_remove() || manifest.state().lists(id)
}
