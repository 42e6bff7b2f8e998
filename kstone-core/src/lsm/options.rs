//! Options for opening a database, and for a single write.

use std::sync::Arc;

use super::events::EventListener;
use crate::clock::{Clock, SystemClock};
use crate::config::{CompactionConfig, DatabaseConfig, Durability};
use crate::memory::{FixedMemory, MemoryProbe, SystemMemory};
use crate::parallel::Threads;
use crate::vfs::{DiskVfs, MemVfs, Vfs};

/// Where background work runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// On threads of the engine. They start with the first write; one starts at open if work will become due by time.
    #[default]
    Threads,
    /// Only inside [`LsmEngine::step`](super::LsmEngine::step) and inside calls that would otherwise wait: for
    /// deterministic tests.
    Manual,
}

impl Workers {
    /// The threads that opening a database may use.
    pub(super) fn threads(self) -> Threads {
        match self {
            Self::Threads => Threads::Cores,
            Self::Manual => Threads::One,
        }
    }
}

/// Options for opening a database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Replaces the stored settings entirely; `None` keeps them, or uses the defaults for a new database.
    pub config: Option<DatabaseConfig>,
    /// The same for compaction.
    pub compaction: Option<CompactionConfig>,
    /// The default durability of writes. Default: [`Durability::Buffered`].
    pub durability: Durability,
    /// The file system of the database.
    pub vfs: Arc<dyn Vfs>,
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// Where background work runs.
    pub workers: Workers,
    /// Receives an event for each flush, compaction, stall, error and so on. Default: none.
    pub listener: Option<Arc<dyn EventListener>>,
    /// Whether reads and writes are counted, in [`EngineStats::operations`](super::EngineStats::operations),
    /// [`EngineStats::reads`](super::EngineStats::reads) and the figures computed from them; this costs a few
    /// nanoseconds per call. Default: true.
    pub counters: bool,
    /// Whether a read-only handle with [`ReadMode::Mmap`](crate::ReadMode::Mmap) maps all SSTs when it is opened, so that
    /// it can read them even after a writer has removed them. Without, each SST is opened at the first read that needs
    /// it, and such a read may fail with [`Error::Busy`](crate::Error::Busy): much faster for a look at few of many SSTs,
    /// or at the figures alone. Default: true.
    pub hold_ssts: bool,
    /// Reports available memory: to [`MemtableMode::Adaptive`](crate::MemtableMode::Adaptive), and to gets from mapped
    /// SSTs, which load the blocks around theirs only while all SSTs fit into it.
    pub memory_probe: Arc<dyn MemoryProbe>,
}

impl EngineOptions {
    /// A database on disk.
    pub fn disk() -> Self {
        Self::on(Arc::new(DiskVfs::new()))
    }

    /// A database in memory, on a file system of its own that ends with the engine.
    pub fn memory() -> Self {
        Self::on(Arc::new(MemVfs::new()))
    }

    /// A database on this file system.
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
            hold_ssts: true,
            memory_probe: Arc::new(SystemMemory),
        }
    }

    /// A database on this file system that does the same whenever the same calls are made: everything runs on the
    /// threads that call it, at the times of this clock, on a machine with 8 GiB available.
    pub fn reproducible(vfs: Arc<dyn Vfs>, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            workers: Workers::Manual,
            memory_probe: Arc::new(FixedMemory(8 << 30)),
            ..Self::on(vfs)
        }
    }
}

/// Options of a single write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteOptions {
    /// Overrides the default durability of the handle. Default: `None`.
    pub durability: Option<Durability>,
}

impl WriteOptions {
    /// Uses the default durability of the handle.
    ///
    /// ```
    /// # use kstone_core::lsm::WriteOptions;
    /// assert_eq!(WriteOptions::new().durability, None);
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// The write is on disk when the call returns, and survives a power cut.
    ///
    /// ```
    /// # use kstone_core::{Durability, lsm::WriteOptions};
    /// assert_eq!(WriteOptions::sync().durability, Some(Durability::Sync));
    /// ```
    pub fn sync() -> Self {
        Self { durability: Some(Durability::Sync) }
    }

    /// The write is with the operating system when the call returns, and survives the death of the process.
    ///
    /// ```
    /// # use kstone_core::{Durability, lsm::WriteOptions};
    /// assert_eq!(WriteOptions::buffered().durability, Some(Durability::Buffered));
    /// ```
    pub fn buffered() -> Self {
        Self { durability: Some(Durability::Buffered) }
    }
}
