//! An SST: its identity, and what it is read with.
//!
//! A [`Table`] costs nothing until it is read. Its first touch opens the file and checks its frame and the checksums of
//! all sections but the blocks.

use std::path::{Path, PathBuf};
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

/// An SST that a manifest lists, or will.
#[derive(Debug)]
pub(crate) struct Table {
    pub(super) context: Arc<TableContext>,
    pub(super) path: PathBuf,
    pub(super) meta: Arc<SstMeta>,
    pub(super) open: OnceLock<OpenTable>,
    /// Its bytes, whatever becomes of its name.
    pub(super) held: Option<Arc<Mapping>>,
    /// Known from the section directory as long as it is not open.
    pub(super) lengths: OnceLock<SectionLengths>,
    /// Of a new file, until it is synced.
    pub(super) unsynced: Mutex<Option<Unsynced>>,
}

impl Table {
    /// The SST that `meta` describes. Nothing is read yet.
    pub(crate) fn new(context: &Arc<TableContext>, meta: Arc<SstMeta>) -> Self {
        let path = paths::sst(&context.dir, usize::from(meta.stripe), meta.id);
        let context = Arc::clone(context);
        Self {
            context,
            path,
            meta,
            open: OnceLock::new(),
            held: None,
            lengths: OnceLock::new(),
            unsynced: Mutex::default(),
        }
    }

    /// The same, mapped already. With `ReadMode::Pread` it is read from its file all the same.
    pub(crate) fn holding(context: &Arc<TableContext>, meta: Arc<SstMeta>, held: Arc<Mapping>) -> Self {
        let mut table = Self::new(context, meta);
        table.held = Some(held);
        table
    }

    /// The SST that `meta` describes, just written.
    pub(crate) fn written(context: &Arc<TableContext>, meta: Arc<SstMeta>, unsynced: Unsynced) -> Self {
        let table = Self::new(context, meta);
        *table.unsynced.lock() = Some(unsynced);
        table
    }

    pub(crate) fn meta(&self) -> &Arc<SstMeta> {
        &self.meta
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    #[cold]
    pub(super) fn bad_block(&self, at: usize, why: BadBlock) -> Error {
        match why {
            BadBlock::Checksum { .. } | BadBlock::Malformed(_) => self.corrupt(at, why.to_string()),
            BadBlock::UnknownCodec(_) | BadBlock::UnknownEntry(_) => {
                unsupported(&self.path, why.to_string(), "codecs 0 and 1, puts and tombstones without flags")
            }
        }
    }

    pub(super) fn corrupt(&self, at: usize, detail: impl Into<String>) -> Error {
        Error::corrupt(&self.path, at as u64, detail)
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // Its file may be removed, and takes up space for as long as it is open.
        self.context.files.close(self.meta.id);
    }
}
