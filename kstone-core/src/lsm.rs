//! The engine (interface; being written).
#![allow(missing_docs, unused_variables, clippy::todo, reason = "interface only, until the engine lands")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::config::{CompactionConfig, DatabaseConfig, Durability};
use crate::error::Result;
use crate::key::{Key, SortRange};
use crate::slice::Slice;
use crate::types::SeqNo;
use crate::vfs::{DiskVfs, MemVfs, Vfs};

/// How background work runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// On threads of the engine.
    #[default]
    Threads,
    /// Only inside calls of `LsmEngine::step`, one step at a time: for tests.
    Manual,
}

/// How to open a database.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Replaces the stored settings; `None` uses them (or the defaults, at creation).
    pub config: Option<DatabaseConfig>,
    pub compaction: Option<CompactionConfig>,
    /// For writes that do not say.
    pub durability: Durability,
    pub vfs: Arc<dyn Vfs>,
    pub clock: Arc<dyn Clock>,
    pub workers: Workers,
}

/// One write's options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteOptions {
    /// Overrides the handle's durability.
    pub durability: Option<Durability>,
}

impl WriteOptions {
    pub fn new() -> Self { Self::default() }
    pub fn sync() -> Self { Self { durability: Some(Durability::Sync) } }
    pub fn buffered() -> Self { Self { durability: Some(Durability::Buffered) } }
}

/// The order of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction { #[default] Forward, Reverse }

/// Puts and deletes that happen all together or not at all, whatever their stripes.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {}

impl WriteBatch {
    pub fn new() -> Self { Self::default() }
    pub fn put<'k>(&mut self, key: impl Into<Key<'k>>, value: &[u8]) -> &mut Self { todo!() }
    pub fn delete<'k>(&mut self, key: impl Into<Key<'k>>) -> &mut Self { todo!() }
    pub fn len(&self) -> usize { todo!() }
    pub fn is_empty(&self) -> bool { todo!() }
}

/// A view of the database as it was at one commit. Send + Sync + Clone.
#[derive(Clone, Debug)]
pub struct Snapshot {}

impl Snapshot {
    pub fn seq(&self) -> SeqNo { todo!() }
}

/// Keys and values in order, of one snapshot. Send.
pub struct Entries {}

impl Iterator for Entries {
    type Item = Result<(Key<'static>, Slice)>;
    fn next(&mut self) -> Option<Self::Item> { todo!() }
}

/// One stripe's figures.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[non_exhaustive]
pub struct StripeStats {
    pub stripe: usize,
    pub runs: usize,
    pub ssts: usize,
    pub sst_bytes: u64,
    pub entries: u64,
    pub tombstones: u64,
    pub memtable_records: usize,
    pub memtable_bytes: usize,
}

/// Totals since open, and sizes now.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[non_exhaustive]
pub struct EngineStats {
    pub stripes: Vec<StripeStats>, // only stripes that hold something
    pub stripe_count: usize,
    pub sst_bytes: u64,
    pub log_bytes: u64,
    pub log_segments: usize,
    pub other_bytes: u64, // manifest etc.
    /// Entries in SSTs plus records in memtables, less tombstones: counts older versions too.
    pub items_estimate: u64,
    pub last_seq: SeqNo,
    pub flushes: u64,
    pub flush_bytes_written: u64,
    pub compactions: u64,
    pub ssts_merged: u64,
    pub tombstones_removed: u64,
    pub compaction_bytes_read: u64,
    pub compaction_bytes_written: u64,
    pub checkpoints: u64,
    pub stalls: u64,
    pub stall_nanos: u64,
    pub poisoned: Option<String>,
    pub foreign_files: Vec<String>,
}

/// The engine: bytes under keys.
#[derive(Debug)]
pub struct LsmEngine {}

impl EngineOptions {
    pub fn disk() -> Self {
        Self { config: None, compaction: None, durability: Durability::default(), vfs: Arc::new(MemVfs::new()), clock: Arc::new(SystemClock::new()), workers: Workers::Threads }
    }
    /// A new in-memory file system.
    pub fn memory() -> Self { todo!() }
}

impl LsmEngine {
    pub fn create(path: &Path, options: EngineOptions) -> Result<Self> { todo!() }
    pub fn open(path: &Path, options: EngineOptions) -> Result<Self> { todo!() }
    pub fn open_or_create(path: &Path, options: EngineOptions) -> Result<Self> { todo!() }
    pub fn open_read_only(path: &Path, options: EngineOptions) -> Result<Self> { todo!() }
    pub fn path(&self) -> &Path { todo!() }
    pub fn put(&self, key: &Key<'_>, value: &[u8], options: WriteOptions) -> Result<SeqNo> { todo!() }
    pub fn delete(&self, key: &Key<'_>, options: WriteOptions) -> Result<SeqNo> { todo!() }
    pub fn write(&self, batch: &WriteBatch, options: WriteOptions) -> Result<SeqNo> { todo!() }
    pub fn get(&self, key: &Key<'_>) -> Result<Option<Slice>> { todo!() }
    pub fn get_at(&self, key: &Key<'_>, snapshot: &Snapshot) -> Result<Option<Slice>> { todo!() }
    pub fn snapshot(&self) -> Result<Snapshot> { todo!() }
    /// One partition, in order of sort keys.
    pub fn query(&self, partition: &[u8], range: &SortRange, direction: Direction, snapshot: Option<&Snapshot>) -> Result<Entries> { todo!() }
    /// The whole database in key order; `prefix` bounds the partition key.
    pub fn scan(&self, prefix: &[u8], direction: Direction, snapshot: Option<&Snapshot>) -> Result<Entries> { todo!() }
    /// One stripe in key order.
    pub fn scan_stripe(&self, stripe: usize, snapshot: Option<&Snapshot>) -> Result<Entries> { todo!() }
    pub fn sync(&self) -> Result<()> { todo!() }
    pub fn flush(&self) -> Result<()> { todo!() }
    pub fn trigger_compaction(&self, stripe: usize) -> Result<()> { todo!() }
    pub fn needs_compaction(&self, stripe: usize) -> Result<bool> { todo!() }
    pub fn stripe_count(&self) -> usize { todo!() }
    pub fn config(&self) -> DatabaseConfig { todo!() }
    pub fn compaction_config(&self) -> CompactionConfig { todo!() }
    pub fn set_compaction_config(&self, config: CompactionConfig) -> Result<()> { todo!() }
    pub fn durability(&self) -> Durability { todo!() }
    pub fn stats(&self) -> Result<EngineStats> { todo!() }
    pub fn close(&self) -> Result<()> { todo!() }
}
