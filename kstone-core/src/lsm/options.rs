//! How a database is opened, and how a single write is made.

use std::sync::Arc;

use super::events::EventListener;
use crate::clock::{Clock, SystemClock};
use crate::config::{CompactionConfig, DatabaseConfig, Durability};
use crate::memory::{MemoryProbe, SystemMemory};
use crate::vfs::{DiskVfs, MemVfs, Vfs};

/// How background work runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// On threads of the engine, started with the first write; one with open, if time will make something due.
    #[default]
    Threads,
    /// Only inside of [`LsmEngine::step`](super::LsmEngine::step) and of calls that would otherwise wait: for deterministic tests.
    Manual,
}

/// How to open a database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Replaces the stored settings whole; `None` uses those, or the defaults for a new database.
    pub config: Option<DatabaseConfig>,
    /// The same for compaction.
    pub compaction: Option<CompactionConfig>,
    /// For writes that do not say. Default [`Durability::Buffered`].
    pub durability: Durability,
    /// Where the files are.
    pub vfs: Arc<dyn Vfs>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Who does the background work.
    pub workers: Workers,
    /// Is told of flushes, compactions, stalls, errors and so on. Default: nobody.
    pub listener: Option<Arc<dyn EventListener>>,
    /// Whether reads and writes are counted, in [`EngineStats::operations`](super::EngineStats::operations), [`EngineStats::reads`](super::EngineStats::reads) and what is
    /// computed from them; a few nanoseconds each. Default: they are.
    pub counters: bool,
    /// Where [`MemtableMode::Adaptive`](crate::MemtableMode::Adaptive) learns how much memory is left.
    pub memory_probe: Arc<dyn MemoryProbe>,
}

impl EngineOptions {
    /// On disk.
    pub fn disk() -> Self {
        Self::on(Arc::new(DiskVfs::new()))
    }

    /// In memory, on a file system of its own: gone with the engine.
    pub fn memory() -> Self {
        Self::on(Arc::new(MemVfs::new()))
    }

    /// On that file system.
    pub fn on(vfs: Arc<dyn Vfs>) -> Self {
        Self {
            config: None,
            compaction: None,
            durability: Durability::default(),
            vfs,
            clock: Arc::new(SystemClock::new()),
            workers: Workers::default(),
            listener: None,
            counters: true,
            memory_probe: Arc::new(SystemMemory),
        }
    }
}

/// Options of a single write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteOptions {
    /// Overrides the durability of the handle. Default: `None`, as the handle.
    pub durability: Option<Durability>,
}

impl WriteOptions {
    /// As durable as the handle was opened.
    ///
    /// ```
    /// # use kstone_core::lsm::WriteOptions;
    /// assert_eq!(WriteOptions::new().durability, None);
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// On the disk when the call returns: survives a power cut.
    ///
    /// ```
    /// # use kstone_core::{Durability, lsm::WriteOptions};
    /// assert_eq!(WriteOptions::sync().durability, Some(Durability::Sync));
    /// ```
    pub fn sync() -> Self {
        Self { durability: Some(Durability::Sync) }
    }

    /// With the operating system when the call returns: survives the death of the process.
    ///
    /// ```
    /// # use kstone_core::{Durability, lsm::WriteOptions};
    /// assert_eq!(WriteOptions::buffered().durability, Some(Durability::Buffered));
    /// ```
    pub fn buffered() -> Self {
        Self { durability: Some(Durability::Buffered) }
    }
}
