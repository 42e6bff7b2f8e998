//! An SST: its identity, and the state for reading it.
//!
//! A [`Table`] costs nothing until it is read. The first access opens the file and verifies its frame and the checksums
//! of all sections except the blocks.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use super::context::TableContext;
use super::format::unsupported;
use super::open::{OpenTable, SectionLengths};
use super::writer::Unsynced;
use crate::error::Error;
use crate::paths;
use crate::sst_block::BadBlock;
use crate::sync::Mutex;
use crate::types::SstMeta;
use crate::vfs::Mapping;

/// An SST that is listed in a manifest, or about to be.
#[derive(Debug)]
pub(crate) struct Table {
    pub(super) context: Arc<TableContext>,
    /// Made when it is first needed: most SSTs of a database are not read for a long time.
    path: OnceLock<PathBuf>,
    pub(super) meta: Arc<SstMeta>,
    pub(super) open: OnceLock<OpenTable>,
    /// The file's contents, available even after its name is gone.
    pub(super) held: Option<Arc<Mapping>>,
    /// The section lengths from the directory, used while the file is not open.
    pub(super) lengths: OnceLock<SectionLengths>,
    /// Set for a new file until it is synced.
    pub(super) unsynced: Mutex<Option<Unsynced>>,
}

impl Table {
    /// The SST that `meta` describes. Reads nothing yet.
    pub(crate) fn new(context: &Arc<TableContext>, meta: Arc<SstMeta>) -> Self {
        let context = Arc::clone(context);
        Self {
            context,
            path: OnceLock::new(),
            meta,
            open: OnceLock::new(),
            held: None,
            lengths: OnceLock::new(),
            unsynced: Mutex::default(),
        }
    }

    /// The same under another name than a manifest would give it.
    pub(super) fn at(context: &Arc<TableContext>, meta: Arc<SstMeta>, path: PathBuf) -> Self {
        let mut table = Self::new(context, meta);
        table.path = OnceLock::from(path);
        table
    }

    /// The same with the file already mapped. With `ReadMode::Pread` it is still read from the file.
    pub(crate) fn holding(context: &Arc<TableContext>, meta: Arc<SstMeta>, held: Arc<Mapping>) -> Self {
        let mut table = Self::new(context, meta);
        table.held = Some(held);
        table
    }

    /// The SST that `meta` describes, newly written.
    pub(crate) fn written(context: &Arc<TableContext>, meta: Arc<SstMeta>, unsynced: Unsynced) -> Self {
        let table = Self::new(context, meta);
        *table.unsynced.lock() = Some(unsynced);
        table
    }

    pub(crate) fn meta(&self) -> &Arc<SstMeta> {
        &self.meta
    }

    pub(crate) fn path(&self) -> &Path {
        let path = || paths::sst(&self.context.dir, usize::from(self.meta.stripe), self.meta.id);
        self.path.get_or_init(path)
    }

    #[cold]
    pub(super) fn bad_block(&self, at: usize, why: BadBlock) -> Error {
        match why {
            BadBlock::Checksum { .. } | BadBlock::Malformed(_) => self.corrupt(at, why.to_string()),
            BadBlock::UnknownCodec(_) | BadBlock::UnknownEntry(_) => {
                unsupported(self.path(), why.to_string(), "codecs 0 and 1, puts and tombstones without flags")
            }
        }
    }

    pub(super) fn corrupt(&self, at: usize, detail: impl Into<String>) -> Error {
        Error::corrupt(self.path(), at as u64, detail)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(map) = self.open.get().and_then(OpenTable::mapped) {
            self.context.mapped_bytes.fetch_sub(map.len() as u64, Ordering::Relaxed);
        }
        // The file may be removed, and occupies disk space for as long as it is open.
        self.context.files.close(self.meta.id);
    }
}
