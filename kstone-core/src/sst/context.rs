//! State shared by all tables of an engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::block_cache::{BlockCache, BlockCacheStats};
use super::filter_stats::FilterCounters;
use super::open_files::OpenFiles;
use crate::config::{DatabaseConfig, ReadMode};
use crate::manifest::Manifest;
use crate::memory::MemoryProbe;
use crate::types::FileId;
use crate::vfs::Vfs;

/// The location of the files, how to read them, and the caches.
#[derive(Debug)]
pub(crate) struct TableContext {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) dir: PathBuf,
    pread: AtomicBool,
    /// Another process may write to the database, and remove files that this handle reads.
    observing: AtomicBool,
    pub(super) cache: BlockCache,
    pub(super) files: OpenFiles,
    pub(crate) filters: FilterCounters,
    /// Bytes of sections that tables hold in memory.
    pub(super) section_bytes: AtomicU64,
    /// Bytes of all mapped tables.
    pub(super) mapped_bytes: AtomicU64,
    memory: Arc<dyn MemoryProbe>,
    /// How often [`TableContext::has_room`] was called, and its answer.
    asked: AtomicU64,
    has_room: AtomicBool,
}

/// Number of calls of [`TableContext::has_room`] for one look at the available memory, which takes longer than a read
/// from disk.
const CALLS_PER_LOOK: u64 = 64;

impl TableContext {
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        config: &DatabaseConfig,
        memory: Arc<dyn MemoryProbe>,
    ) -> Arc<Self> {
        Arc::new(Self {
            vfs,
            dir: dir.to_path_buf(),
            pread: AtomicBool::new(config.read_mode == ReadMode::Pread),
            observing: AtomicBool::new(false),
            cache: BlockCache::new(config.block_cache_bytes),
            files: OpenFiles::new(),
            filters: FilterCounters::new(),
            section_bytes: AtomicU64::new(0),
            mapped_bytes: AtomicU64::new(0),
            memory,
            asked: AtomicU64::new(0),
            has_room: AtomicBool::new(true),
        })
    }

    /// Whether all mapped tables fit into the available memory, so that what is loaded unasked is still there when it is
    /// needed.
    pub(super) fn has_room(&self) -> bool {
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(CALLS_PER_LOOK) {
            let mapped = self.mapped_bytes.load(Ordering::Relaxed);
            let has_room = self.memory.available().is_none_or(|available| available >= mapped);
            self.has_room.store(has_room, Ordering::Relaxed);
        }
        self.has_room.load(Ordering::Relaxed)
    }

    /// Applies settings: the cache size immediately, the read mode to files opened from now on.
    pub(crate) fn apply(&self, config: &DatabaseConfig) {
        self.pread.store(config.read_mode == ReadMode::Pread, Ordering::Relaxed);
        self.cache.set_capacity(config.block_cache_bytes);
    }

    /// Marks this handle as read-only: another process may remove files that it needs.
    pub(crate) fn observe(&self) {
        self.observing.store(true, Ordering::Relaxed);
    }

    /// Whether a file is missing because another process has legitimately removed it.
    pub(super) fn was_removed(&self, id: FileId) -> bool {
        self.observing.load(Ordering::Relaxed)
            && Manifest::load(&*self.vfs, &self.dir).is_ok_and(|loaded| !loaded.state.lists(id))
    }

    pub(super) fn read_mode(&self) -> ReadMode {
        if self.pread.load(Ordering::Relaxed) { ReadMode::Pread } else { ReadMode::Mmap }
    }

    pub(crate) fn cache_stats(&self) -> BlockCacheStats {
        self.cache.stats(self.section_bytes.load(Ordering::Relaxed))
    }
}

/// Sections in memory, counted in `TableContext::section_bytes` while they exist.
#[derive(Debug)]
pub(super) struct Counted {
    bytes: Box<[u8]>,
    context: Arc<TableContext>,
}

impl Counted {
    pub(super) fn new(bytes: Box<[u8]>, context: &Arc<TableContext>) -> Self {
        context.section_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Self { bytes, context: Arc::clone(context) }
    }
}

impl std::ops::Deref for Counted {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.context.section_bytes.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}
