//! Makes a new SST durable.

use std::sync::Arc;

use super::table::Table;
use crate::error::{Error, Result};
use crate::vfs::{OpenMode, VfsFile};

impl Table {
    /// Opens the file for syncing. Unlike a failed sync, a failed open may be retried. The file is no longer written
    /// to, and may have a second name by now.
    pub(crate) fn open_to_sync(&self) -> Result<Arc<dyn VfsFile>> {
        self.context.vfs.open(self.path(), OpenMode::Read).map_err(|e| self.open_error(e))
    }

    /// Makes the file durable; its name requires a sync of the directory as well.
    pub(crate) fn sync(&self, file: &dyn VfsFile) -> Result<()> {
        file.sync().map_err(Error::io("sync", self.path()))?;
        *self.unsynced.lock() = None;
        Ok(())
    }
}
