//! The SSTs held open for `pread`: a bounded number, however many SSTs there are.
//!
//! Each file has one slot, selected by its number, and evicts the file in it. If two files in constant use share a
//! slot, each read reopens one of them, which costs a few microseconds, little compared with a read from disk.

use std::array;
use std::sync::Arc;

use crate::error::Result;
use crate::sync::Mutex;
use crate::types::FileId;
use crate::vfs::VfsFile;

/// Maximum number of files kept open; each reading thread may have another one open for the duration of a read.
const SLOTS: usize = 32;

type OpenSlot = Mutex<Option<(FileId, Arc<dyn VfsFile>)>>;

#[derive(Debug)]
pub(super) struct OpenFiles {
    slots: [OpenSlot; SLOTS],
}

impl OpenFiles {
    pub(super) fn new() -> Self {
        Self { slots: array::from_fn(|_| Mutex::new(None)) }
    }

    fn slot(&self, id: FileId) -> Option<&OpenSlot> {
        self.slots.get((id % SLOTS as u64) as usize)
    }

    /// Returns the file, opening it if necessary.
    pub(super) fn get(
        &self,
        id: FileId,
        open: impl FnOnce() -> Result<Arc<dyn VfsFile>>,
    ) -> Result<Arc<dyn VfsFile>> {
        let found = self.slot(id).and_then(|slot| {
            let slot = slot.lock();
            slot.as_ref().filter(|(of, _)| *of == id).map(|(_, file)| Arc::clone(file))
        });
        if let Some(file) = found {
            return Ok(file);
        }
        let file = open()?;
        let before = self.slot(id).and_then(|slot| slot.lock().replace((id, Arc::clone(&file))));
        drop(before); // closed outside the lock
        Ok(file)
    }

    /// Closes the file: a removed file occupies disk space for as long as it is open.
    pub(super) fn close(&self, id: FileId) {
        let closed = self.slot(id).and_then(|slot| {
            let mut slot = slot.lock();
            slot.take_if(|(of, _)| *of == id)
        });
        drop(closed);
    }
}
