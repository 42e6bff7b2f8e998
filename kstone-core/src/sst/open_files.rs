//! The SSTs that are open for `pread`: a few, however many there are.
//!
//! A file has one slot, chosen by its number, and drives out whoever is in it. When two files that are read all the
//! time share a slot, each read opens one again, which costs a few microseconds next to a read from disk.

use std::array;
use std::sync::Arc;

use crate::error::Result;
use crate::sync::Mutex;
use crate::types::FileId;
use crate::vfs::VfsFile;

/// Files kept open, at most; each thread that reads may have one more for as long as the read takes.
const SLOTS: usize = 32;

type Slot = Mutex<Option<(FileId, Arc<dyn VfsFile>)>>;

#[derive(Debug)]
pub(super) struct OpenFiles {
    slots: [Slot; SLOTS],
}

impl OpenFiles {
    pub(super) fn new() -> Self {
        Self { slots: array::from_fn(|_| Mutex::new(None)) }
    }

    fn slot(&self, id: FileId) -> Option<&Slot> {
        self.slots.get((id % SLOTS as u64) as usize)
    }

    /// The file, opened if it is not.
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
        drop(before); // closed outside of the lock
        Ok(file)
    }

    /// Closes the file: a removed one takes up space for as long as it is open.
    pub(super) fn close(&self, id: FileId) {
        let closed = self.slot(id).and_then(|slot| {
            let mut slot = slot.lock();
            slot.take_if(|(of, _)| *of == id)
        });
        drop(closed);
    }
}
