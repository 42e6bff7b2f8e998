//! [`Database`]: items under keys.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kstone_core::lsm::{
    BackupOptions, BackupReport, CompactionStats, DiskUsage, EngineOptions, EngineStats, EventListener,
    Latencies, LsmEngine, PendingRewrite, WriteOptions,
};
use kstone_core::verify::{VerifyOptions, VerifyReport};
use kstone_core::vfs::DiskVfs;
use kstone_core::{CompactionConfig, DatabaseConfig, Durability, Error, Key, Result};
use tempfile::TempDir;

use crate::batch::WriteBatch;
use crate::codec::EncodedItem;
use crate::damage;
use crate::item::Item;
use crate::preset::Preset;
use crate::query::{Items, Query, Scan};
use crate::snapshot::Snapshot;
use crate::view::ItemView;

/// An open database. Clones share it, and it may be used from any number of threads.
///
/// When the last clone goes, what is in memory is written out and background work ends; a failure then is
/// not seen, and never a panic. [`Database::close`] does the same and returns the error.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped first: the engine still writes when it goes.
    engine: LsmEngine,
    /// It is that of [`Database::in_memory`].
    in_memory: bool,
    /// The directory of [`Database::temporary`], removed when this is dropped.
    temporary: Option<TempDir>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.engine.is_forked() {
            // The directory is of the process that opened it.
            std::mem::forget(self.temporary.take());
        }
    }
}

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Database>();
    assert_send_sync::<Snapshot>();
    assert_send_sync::<WriteBatch>();
};

impl Database {
    /// Creates a database in a directory that does not exist or is empty.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).create()
    }

    /// Opens a database that exists. One handle at a time writes to it: another gets
    /// [`Error::Locked`](crate::Error::Locked).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open()
    }

    /// Opens the database, creating it if there is none.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open_or_create()
    }

    /// Opens the database as it is now, for reading, also while another handle, of this process or another, writes to
    /// it: later writes do not show in it. Nothing in its directory is changed, and it may be on a read-only file
    /// system; see [`LsmEngine::open_read_only`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open_read_only()
    }

    /// Whether some handle, of this process or another, has the database open for writing.
    pub fn is_locked(path: impl AsRef<Path>) -> Result<bool> {
        LsmEngine::is_locked(path.as_ref(), &DiskVfs::new())
    }

    /// A new database in memory. It is gone with the last handle.
    pub fn in_memory() -> Result<Self> {
        let engine = LsmEngine::create(Path::new("memory"), EngineOptions::memory())?;
        Ok(Self { inner: Arc::new(Inner { engine, in_memory: true, temporary: None }) })
    }

    /// A new database in a directory of its own, among the system's temporary files, that is removed with
    /// the last handle: for tests that want the real file system.
    pub fn temporary() -> Result<Self> {
        let failed = |source| Error::Io { op: "create a directory in", path: std::env::temp_dir(), source };
        let dir = tempfile::Builder::new().prefix("keystone-").tempdir().map_err(failed)?;
        let engine = LsmEngine::create(dir.path(), EngineOptions::disk())?;
        Ok(Self { inner: Arc::new(Inner { engine, in_memory: false, temporary: Some(dir) }) })
    }

    /// Starts to create or open a database with settings.
    pub fn builder(path: impl AsRef<Path>) -> DatabaseBuilder {
        DatabaseBuilder { path: path.as_ref().to_path_buf(), options: EngineOptions::disk() }
    }

    /// Stores an item under a key, replacing the one that is there.
    ///
    /// Fails with [`Error::InvalidNumber`](crate::Error::InvalidNumber) or
    /// [`Error::InvalidItem`](crate::Error::InvalidItem), naming the attribute, when the item holds what
    /// cannot be stored.
    pub fn put<'k>(&self, key: impl Into<Key<'k>>, item: impl Into<Item>) -> Result<()> {
        self.put_with(key, item, WriteOptions::default())
    }

    /// [`Database::put`] with a durability of its own.
    pub fn put_with<'k>(
        &self,
        key: impl Into<Key<'k>>,
        item: impl Into<Item>,
        options: WriteOptions,
    ) -> Result<()> {
        let bytes = item.into().encode()?;
        self.engine().put(&key.into(), &bytes, options)?;
        Ok(())
    }

    /// [`Database::put`] of an item that is in its stored form already.
    pub fn put_encoded<'k>(&self, key: impl Into<Key<'k>>, item: &EncodedItem) -> Result<()> {
        self.engine().put(&key.into(), item.as_bytes(), WriteOptions::default())?;
        Ok(())
    }

    /// The item under a key.
    pub fn get<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<Item>> {
        let key = key.into();
        let Some(view) = self.view_of(&key)? else { return Ok(None) };
        view.to_item().map(Some).map_err(|error| damage::under(self, &key, error))
    }

    /// The item under a key, to read attributes of it in place.
    pub fn get_view<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<ItemView>> {
        self.view_of(&key.into())
    }

    fn view_of(&self, key: &Key<'_>) -> Result<Option<ItemView>> {
        let Some(value) = self.engine().get(key)? else { return Ok(None) };
        ItemView::new(value).map(Some).map_err(|error| damage::under(self, key, error))
    }

    /// What the database takes on disk, and how much of
    /// [`max_total_disk_bytes`](crate::DatabaseConfig::max_total_disk_bytes) puts may still take.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        self.engine().disk_usage()
    }

    /// Whether there is an item under a key.
    pub fn contains<'k>(&self, key: impl Into<Key<'k>>) -> Result<bool> {
        Ok(self.engine().get(&key.into())?.is_some())
    }

    /// Removes the item under a key, if there is one.
    pub fn delete<'k>(&self, key: impl Into<Key<'k>>) -> Result<()> {
        self.delete_with(key, WriteOptions::default())
    }

    /// [`Database::delete`] with a durability of its own.
    pub fn delete_with<'k>(&self, key: impl Into<Key<'k>>, options: WriteOptions) -> Result<()> {
        self.engine().delete(&key.into(), options)?;
        Ok(())
    }

    /// Makes all writes of a batch, or none of them: readers and crashes see no half.
    pub fn write(&self, batch: impl Into<WriteBatch>) -> Result<()> {
        self.write_with(batch, WriteOptions::default())
    }

    /// [`Database::write`] with a durability of its own.
    pub fn write_with(&self, batch: impl Into<WriteBatch>, options: WriteOptions) -> Result<()> {
        let batch = batch.into();
        if !batch.is_empty() {
            self.engine().write(batch.as_core(), options)?;
        }
        Ok(())
    }

    /// The database as it is now: later writes do not show in it.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot::new(self.clone(), self.engine().snapshot()?))
    }

    /// Reads the items of one partition, in the order of their sort keys.
    pub fn query(&self, partition: impl AsRef<[u8]>) -> Query<'_> {
        Query::new(self, None, partition.as_ref())
    }

    /// All items whose partition key starts with these bytes, in the order of keys. See [`Database::scan`]
    /// for what it costs.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Items> {
        self.scan().prefix(prefix).run()
    }

    /// Reads all items, in the order of keys.
    ///
    /// Partitions are spread over the stripes by hash, so the order comes from merging all of them: to start
    /// a scan touches every stripe. Read one partition with [`Database::query`], and everything, in no
    /// matter what order, with [`Database::segment`].
    pub fn scan(&self) -> Scan<'_> {
        Scan::new(self, None)
    }

    /// The `index`-th of `count` shares of the database, for reading all of it on several threads. The
    /// shares hold every item just once; a share is in no particular order, except that the items of a
    /// partition come together and in order. Take the shares of one [`Snapshot`] if they must be of one moment.
    pub fn segment(&self, index: usize, count: usize) -> Result<Items> {
        self.snapshot()?.segment(index, count)
    }

    /// Makes every write that has returned durable: a power cut loses none of them.
    pub fn sync(&self) -> Result<()> {
        self.engine().sync()
    }

    /// Writes out what is in memory, to SSTs.
    pub fn flush(&self) -> Result<()> {
        self.engine().flush()
    }

    /// Merges every stripe's SSTs into one run, and returns when done.
    pub fn compact_all(&self) -> Result<()> {
        (0..self.engine().stripe_count()).try_for_each(|stripe| self.trigger_compaction(stripe))
    }

    /// Whether the rules ask for a compaction of the stripe now; see [`LsmEngine::needs_compaction`].
    pub fn needs_compaction(&self, stripe: usize) -> Result<bool> {
        self.engine().needs_compaction(stripe)
    }

    /// Merges the stripe's SSTs into one run, and returns when done; see [`LsmEngine::trigger_compaction`].
    pub fn trigger_compaction(&self, stripe: usize) -> Result<()> {
        self.engine().trigger_compaction(stripe)
    }

    /// Makes a copy of the database as it is now in a new directory, while it is written to. The copy is a database
    /// like any other: to restore it, open it, or a copy of it. On one file system SSTs are not copied but get a second
    /// name, which takes neither time nor space; a database in memory is written to disk. See
    /// [`LsmEngine::backup_with`] for the details.
    pub fn backup(&self, destination: impl AsRef<Path>) -> Result<BackupReport> {
        self.backup_with(destination, BackupOptions::new())
    }

    /// [`Database::backup`] with options: progress, and real copies.
    pub fn backup_with(
        &self,
        destination: impl AsRef<Path>,
        options: BackupOptions<'_>,
    ) -> Result<BackupReport> {
        let options = if self.inner.in_memory { options.to(Arc::new(DiskVfs::new())) } else { options };
        self.engine().backup_with(destination.as_ref(), options)
    }

    /// Reads the database's files and says everything that is wrong with them, while reads and writes go on; see
    /// [`verify`](crate::verify), which does the same for a directory that nobody has open.
    pub fn verify(&self, options: &VerifyOptions) -> Result<VerifyReport> {
        self.engine().verify_files(&damage::of_items(options))
    }

    /// Writes out what is in memory, ends background work and closes the files. Other clones, snapshots and
    /// iterators of it get [`Error::Closed`](crate::Error::Closed) from here on.
    pub fn close(self) -> Result<()> {
        self.engine().close()
    }

    /// The engine below: stripes, compaction, figures.
    pub fn engine(&self) -> &LsmEngine {
        &self.inner.engine
    }

    /// The settings in use.
    pub fn config(&self) -> DatabaseConfig {
        self.engine().config()
    }

    /// The settings that SSTs written earlier do not have yet; see [`LsmEngine::pending_rewrites`].
    pub fn pending_rewrites(&self) -> Result<Vec<PendingRewrite>> {
        self.engine().pending_rewrites()
    }

    /// The compaction settings in use.
    pub fn compaction_config(&self) -> CompactionConfig {
        self.engine().compaction_config()
    }

    /// Changes the settings of the running database; see [`LsmEngine::set_config`].
    pub fn set_config(&self, config: DatabaseConfig) -> Result<()> {
        self.engine().set_config(config)
    }

    /// Changes the compaction settings of the running database; see [`LsmEngine::set_compaction_config`].
    pub fn set_compaction_config(&self, config: CompactionConfig) -> Result<()> {
        self.engine().set_compaction_config(config)
    }

    /// Sizes now, and totals since the database was opened.
    pub fn stats(&self) -> Result<EngineStats> {
        self.engine().stats()
    }

    /// Bytes of the filters of all SSTs; see [`LsmEngine::estimate_bloom_memory`].
    pub fn estimate_bloom_memory(&self) -> Result<u64> {
        self.engine().estimate_bloom_memory()
    }

    /// Bytes of the indexes of all SSTs; see [`LsmEngine::estimate_index_memory`].
    pub fn estimate_index_memory(&self) -> Result<u64> {
        self.engine().estimate_index_memory()
    }

    /// How long operations took since open; see [`LsmEngine::latencies`].
    pub fn latencies(&self) -> Latencies {
        self.engine().latencies()
    }

    /// What compactions have done since the database was opened, and why they ran.
    pub fn compaction_stats(&self) -> CompactionStats {
        self.engine().compaction_stats()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.engine().path()
    }
}

/// For engines that were opened with options of their own.
impl From<LsmEngine> for Database {
    fn from(engine: LsmEngine) -> Self {
        Self { inner: Arc::new(Inner { engine, in_memory: false, temporary: None }) }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// Creates or opens a database with settings; see [`Database::builder`].
///
/// ```no_run
/// use kstone_api::{CompactionConfig, Database, DatabaseConfig};
///
/// let db = Database::builder("mydb.keystone")
///     .config(DatabaseConfig::new().with_max_memtable_records(5000))
///     .compaction(CompactionConfig::new().with_sst_threshold(5).with_check_interval(30))
///     .open_or_create()?;
/// # Ok::<(), kstone_api::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct DatabaseBuilder {
    path: PathBuf,
    options: EngineOptions,
}

impl DatabaseBuilder {
    /// Settings of the log, the memtables and the SSTs. Without: those stored in the database, or the
    /// defaults for a new one.
    pub fn config(mut self, config: DatabaseConfig) -> Self {
        self.options.config = Some(config);
        self
    }

    /// When and how much SSTs are merged. Without: as stored in the database, or the defaults for a new one.
    pub fn compaction(mut self, config: CompactionConfig) -> Self {
        self.options.compaction = Some(config);
        self
    }

    /// All settings of a preset: [`DatabaseBuilder::config`] and [`DatabaseBuilder::compaction`] at once.
    pub fn preset(self, preset: Preset) -> Self {
        self.config(preset.database).compaction(preset.compaction)
    }

    /// When a write counts as done, for writes that do not say themselves.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// Is told of flushes, compactions, stalls, errors and so on; see [`EventListener`] for what it may do.
    pub fn listener(mut self, listener: Arc<dyn EventListener>) -> Self {
        self.options.listener = Some(listener);
        self
    }

    /// See [`Database::create`].
    pub fn create(self) -> Result<Database> {
        LsmEngine::create(&self.path, self.options).map(Database::from)
    }

    /// See [`Database::open`].
    pub fn open(self) -> Result<Database> {
        LsmEngine::open(&self.path, self.options).map(Database::from)
    }

    /// See [`Database::open_or_create`].
    pub fn open_or_create(self) -> Result<Database> {
        LsmEngine::open_or_create(&self.path, self.options).map(Database::from)
    }

    /// See [`Database::open_read_only`].
    pub fn open_read_only(self) -> Result<Database> {
        LsmEngine::open_read_only(&self.path, self.options).map(Database::from)
    }
}
