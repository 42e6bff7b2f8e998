//! [`Database`]: items under keys.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kstone_core::lsm::{
    BackupOptions, BackupReport, CompactionStats, Destroyed, DiskUsage, EngineOptions, EngineStats,
    EventListener, Latencies, LsmEngine, PendingRewrite, WriteOptions,
};
use kstone_core::verify::{VerifyOptions, VerifyReport};
use kstone_core::vfs::DiskVfs;
use kstone_core::{CompactionConfig, DatabaseConfig, Durability, Error, Key, KeyPart, Result, lsm};
use tempfile::TempDir;

use crate::batch::WriteBatch;
use crate::codec::{self, EncodedItem};
use crate::damage;
use crate::item::Item;
use crate::preset::Preset;
use crate::query::{Items, Query, Scan};
use crate::snapshot::Snapshot;
use crate::transaction::Turns;
use crate::view::ItemView;

/// An open database. Clones share one handle, which any number of threads may use at once. All calls block.
///
/// Dropping the last clone flushes what is in memory and stops background work, ignoring errors; [`Database::close`]
/// does the same and returns them. Neither is needed for safety: acknowledged writes are in the log.
///
/// ```
/// use kstone_api::{Database, ItemBuilder};
///
/// let db = Database::in_memory()?;
/// let other = db.clone();
/// std::thread::spawn(move || other.put("user#42", ItemBuilder::new().string("name", "Ann"))).join().unwrap()?;
/// assert!(db.contains("user#42")?);
/// # Ok::<(), kstone_api::Error>(())
/// ```
///
/// # Errors of every call
///
/// [`Error::Closed`] after a close, and [`Error::Forked`] in a process forked from its opener.
/// Reads that meet damage fail with [`Error::Corruption`], which names the file and the offset; damage is never taken
/// for absence.
///
/// # Errors of every write
///
/// A refused write changes nothing, and a batch is refused as a whole.
///
/// | error | reason |
/// |---|---|
/// | [`InvalidKey`](Error::InvalidKey), [`KeyTooLarge`](Error::KeyTooLarge) | an empty partition key; partition and sort key longer than `max_key_bytes` (64 KiB) together |
/// | [`InvalidNumber`](Error::InvalidNumber), [`InvalidItem`](Error::InvalidItem) | an attribute that cannot be stored; the error names it |
/// | [`ItemTooLarge`](Error::ItemTooLarge), [`BatchTooLarge`](Error::BatchTooLarge) | more than `max_item_bytes` (16 MiB) or `max_batch_bytes` (64 MiB) |
/// | [`DiskFull`](Error::DiskFull), [`WriteStalled`](Error::WriteStalled) | no space; background work took longer than `write_stall_limit` (10 s). Try again later |
/// | [`ReadOnly`](Error::ReadOnly) | the handle was opened with [`Database::open_read_only`] |
/// | [`Poisoned`](Error::Poisoned) | an earlier failure, a failed sync for instance, made writes unsafe: close and reopen the database |
/// | [`Internal`](Error::Internal) | a bug in the engine; the handle is poisoned from then on |
///
/// With [`Durability::Sync`], if the sync itself fails, the write may or may not be there after a reopen.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped first: the engine still writes while being dropped.
    engine: LsmEngine,
    /// Whether this is a database of [`Database::in_memory`].
    in_memory: bool,
    /// The directory of [`Database::temporary`], removed when this is dropped.
    temporary: Option<TempDir>,
    /// Transactions that are tried again.
    turns: Turns,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.engine.is_forked() {
            // The directory belongs to the process that opened it.
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
    /// Creates a database in a directory that does not exist yet, or is empty. Its parent must exist.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("mydb.keystone");
    /// let db = Database::create(&path)?;
    /// assert_eq!(Database::create(&path).unwrap_err().code(), "already_exists");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the directory holds a database or anything else; nothing in it is changed.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).create()
    }

    /// Opens an existing database for reading and writing, with the settings stored in it. After a crash this replays
    /// the log. The database stays locked until it is closed or the process ends.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("mydb.keystone");
    /// # Database::create(&path)?.close()?;
    /// let db = Database::open(&path)?;
    /// assert_eq!(Database::open(&path).unwrap_err().code(), "locked");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADatabase`], [`Error::Corruption`], [`Error::UnsupportedFormat`];
    /// [`Error::Locked`] while another handle, of this process or another, has it open for writing. A failed open
    /// changes nothing.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open()
    }

    /// Opens the database, or creates it if there is none. Errors are those of [`Database::open`] and
    /// [`Database::create`].
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("mydb.keystone");
    /// Database::open_or_create(&path)?.close()?; // creates it
    /// Database::open_or_create(&path)?.close()?; // opens it
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open_or_create()
    }

    /// Opens the database for reading, as it is at this moment. It takes no lock and works beside a writer, in this process
    /// or another; later writes do not appear in it. It changes nothing in the directory, which may be on a read-only file
    /// system. See [`LsmEngine::open_read_only`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("mydb.keystone");
    /// let writer = Database::create(&path)?;
    /// writer.put("user#1", Item::new())?;
    /// let reader = Database::open_read_only(&path)?;
    /// writer.put("user#2", Item::new())?;
    /// assert!(reader.contains("user#1")? && !reader.contains("user#2")?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Database::open`], but never [`Error::Locked`]; [`Error::Busy`] when a writer kept changing the directory for ten
    /// seconds: try again.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open_read_only()
    }

    /// Whether some handle, of this process or another, has the database open for writing.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("mydb.keystone");
    /// let db = Database::create(&path)?;
    /// assert!(Database::is_locked(&path)?);
    /// db.close()?;
    /// assert!(!Database::is_locked(&path)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn is_locked(path: impl AsRef<Path>) -> Result<bool> {
        LsmEngine::is_locked(path.as_ref(), &DiskVfs::new())
    }

    /// Removes a database: its files, and the directory if nothing else is in it. Files that are not the database's, and
    /// the originals that a repair kept, stay and are listed.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("mydb.keystone");
    /// Database::create(&path)?.close()?;
    /// assert_eq!(Database::destroy(&path)?.kept, [""; 0]);
    /// assert!(!path.exists());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `NotFound`, `NotADatabase`, `Locked`: nothing was removed. `Io`: some files may be left; call it again.
    pub fn destroy(path: impl AsRef<Path>) -> Result<Destroyed> {
        LsmEngine::destroy(path.as_ref(), &DiskVfs::new())
    }

    /// Creates a database in memory: the same engine, without files. Its contents are lost when the last handle is
    /// dropped.
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// let db = Database::in_memory()?;
    /// db.put("user#42", Item::new())?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn in_memory() -> Result<Self> {
        let engine = LsmEngine::create(Path::new("memory"), EngineOptions::memory())?;
        Ok(Self {
            inner: Arc::new(Inner { engine, in_memory: true, temporary: None, turns: Turns::default() }),
        })
    }

    /// Creates a database in a new directory among the system's temporary files, which is removed with the last handle:
    /// for tests that need the real file system.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// let db = Database::temporary()?;
    /// assert!(db.path().is_dir());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn temporary() -> Result<Self> {
        let failed = |source| Error::Io { op: "create a directory in", path: std::env::temp_dir(), source };
        let dir = tempfile::Builder::new().prefix("keystone-").tempdir().map_err(failed)?;
        let engine = LsmEngine::create(dir.path(), EngineOptions::disk())?;
        Ok(Self {
            inner: Arc::new(Inner {
                engine,
                in_memory: false,
                temporary: Some(dir),
                turns: Turns::default(),
            }),
        })
    }

    /// Creates or opens a database with settings of your own.
    ///
    /// ```
    /// # use kstone_api::{Database, DatabaseConfig, Durability};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("mydb.keystone");
    /// let db = Database::builder(&path)
    ///     .config(DatabaseConfig::new().with_bloom_bits_per_key(16))
    ///     .durability(Durability::Sync)
    ///     .open_or_create()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn builder(path: impl AsRef<Path>) -> DatabaseBuilder {
        DatabaseBuilder { path: path.as_ref().to_path_buf(), options: EngineOptions::disk() }
    }

    /// Stores an item under a key, replacing any existing item. The write is atomic, and as durable as the handle's
    /// [`Durability`] requires. Errors are [those of every write](Database#errors-of-every-write).
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.put("user#42", ItemBuilder::new().string("name", "Ann").number("age", 42))?;
    /// db.put(("US", "KJFK"), ItemBuilder::new().string("city", "New York"))?; // partition and sort key
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn put<'k>(&self, key: impl Into<Key<'k>>, item: impl Into<Item>) -> Result<()> {
        self.put_with(key, item, WriteOptions::default())
    }

    /// Like [`Database::put`], with a durability for this write only.
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder, WriteOptions};
    /// # let db = Database::in_memory()?;
    /// db.put_with("order#7", ItemBuilder::new().number("total", 120), WriteOptions::sync())?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn put_with<'k>(
        &self,
        key: impl Into<Key<'k>>,
        item: impl Into<Item>,
        options: WriteOptions,
    ) -> Result<()> {
        codec::with_encoded(&item.into(), |bytes| self.engine().put(&key.into(), bytes, options))?;
        Ok(())
    }

    /// Like [`Database::put`], for an item that is already in its stored form, for instance one read from JSON text.
    ///
    /// ```
    /// # use kstone_api::{Database, EncodedItem};
    /// # let db = Database::in_memory()?;
    /// let item = EncodedItem::read_json(&mut &br#"{"name":"Ann"}"#[..], 1 << 20).unwrap()?;
    /// db.put_encoded("user#42", &item)?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn put_encoded<'k>(&self, key: impl Into<Key<'k>>, item: &EncodedItem) -> Result<()> {
        self.engine().put(&key.into(), item.as_bytes(), WriteOptions::default())?;
        Ok(())
    }

    /// Gets the item under a key, decoded; `None` if there is none.
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder, Value};
    /// # let db = Database::in_memory()?;
    /// db.put("user#42", ItemBuilder::new().string("name", "Ann"))?;
    /// let item = db.get("user#42")?.expect("it was just stored");
    /// assert_eq!(item.get("name").and_then(Value::as_str), Some("Ann"));
    /// assert!(db.get("user#43")?.is_none());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidKey`] and [`Error::KeyTooLarge`]: there can be no item under this key. [`Error::Corruption`]:
    /// the block that may hold it is damaged.
    pub fn get<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<Item>> {
        let key = key.into();
        let Some(view) = self.view_of(&key)? else { return Ok(None) };
        view.to_item().map(Some).map_err(|error| damage::under(self, &key, error))
    }

    /// Gets the item under a key without decoding it: attributes are read in place. The view keeps the memory that it
    /// refers to alive. Errors are those of [`Database::get`].
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder, ValueView};
    /// # let db = Database::in_memory()?;
    /// db.put("user#42", ItemBuilder::new().string("name", "Ann").number("age", 42))?;
    /// let view = db.get_view("user#42")?.expect("it was just stored");
    /// assert_eq!(view.get("age")?.and_then(ValueView::as_i64), Some(42));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn get_view<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<ItemView>> {
        self.view_of(&key.into())
    }

    /// Gets the items under several keys, decoded, in the order of the keys: all as of one moment, between two writes.
    /// Takes less time than a get for each, because their cache misses overlap. Any number of keys; a key may occur more
    /// than once.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.put("user#42", Item::new())?;
    /// let items = db.batch_get(["user#41", "user#42"])?;
    /// assert_eq!(items, [None, Some(Item::new())]);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Database::get`], if any of the keys has one; no item is returned then.
    pub fn batch_get<'k, K: Into<Key<'k>>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Item>>> {
        self.batch_get_at(keys, None)
    }

    pub(crate) fn batch_get_at<'k, K: Into<Key<'k>>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        snapshot: Option<&lsm::Snapshot>,
    ) -> Result<Vec<Option<Item>>> {
        let keys: Vec<Key<'_>> = keys.into_iter().map(Into::into).collect();
        let values = self.engine().batch_get(&keys, snapshot)?;
        let item = |(key, value): (&Key<'_>, Option<_>)| {
            let item = value.map(|value| ItemView::new(value)?.to_item());
            item.transpose().map_err(|error| damage::under(self, key, error))
        };
        keys.iter().zip(values).map(item).collect()
    }

    fn view_of(&self, key: &Key<'_>) -> Result<Option<ItemView>> {
        let Some(value) = self.engine().get(key)? else { return Ok(None) };
        ItemView::new(value).map(Some).map_err(|error| damage::under(self, key, error))
    }

    /// Bytes that the database takes on disk, bytes reserved for background work, and bytes that further puts may take
    /// below [`max_total_disk_bytes`](crate::DatabaseConfig::max_total_disk_bytes).
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// let usage = db.disk_usage()?;
    /// println!("{} bytes, limit {:?}", usage.used, usage.limit);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        self.engine().disk_usage()
    }

    /// Whether there is an item under a key. Errors are those of [`Database::get`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.put("user#42", Item::new())?;
    /// assert!(db.contains("user#42")? && !db.contains("user#43")?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn contains<'k>(&self, key: impl Into<Key<'k>>) -> Result<bool> {
        Ok(self.engine().get(&key.into())?.is_some())
    }

    /// Deletes the item under a key; it is not an error if there is none. As atomic and durable as [`Database::put`],
    /// with the same errors. Deletes still work when a limit on disk space is reached.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.put("user#42", Item::new())?;
    /// db.delete("user#42")?;
    /// db.delete("user#42")?; // nothing left to remove
    /// assert!(!db.contains("user#42")?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn delete<'k>(&self, key: impl Into<Key<'k>>) -> Result<()> {
        self.delete_with(key, WriteOptions::default())
    }

    /// Like [`Database::delete`], with a durability for this write only.
    ///
    /// ```
    /// # use kstone_api::{Database, WriteOptions};
    /// # let db = Database::in_memory()?;
    /// db.delete_with("session#9", WriteOptions::sync())?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn delete_with<'k>(&self, key: impl Into<Key<'k>>, options: WriteOptions) -> Result<()> {
        self.engine().delete(&key.into(), options)?;
        Ok(())
    }

    /// Applies a batch atomically: no reader sees a part of it, and a crash keeps all or nothing, whichever partitions
    /// it touches. An empty batch is a no-op. Errors are [those of every write](Database#errors-of-every-write).
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder, WriteBatch};
    /// # let db = Database::in_memory()?;
    /// let mut batch = WriteBatch::new();
    /// batch.put("account#1", ItemBuilder::new().number("balance", 70))?;
    /// batch.put("account#2", ItemBuilder::new().number("balance", 30))?;
    /// db.write(batch)?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn write(&self, batch: impl Into<WriteBatch>) -> Result<()> {
        self.write_with(batch, WriteOptions::default())
    }

    /// Like [`Database::write`], with a durability for this batch only.
    ///
    /// ```
    /// # use kstone_api::{Database, WriteBatch, WriteOptions};
    /// # let db = Database::in_memory()?;
    /// db.write_with(WriteBatch::new().delete("cart#1")?.delete("cart#2")?, WriteOptions::sync())?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn write_with(&self, batch: impl Into<WriteBatch>, options: WriteOptions) -> Result<()> {
        let batch = batch.into();
        if batch.has_requirements() {
            return batch.write_if_met(self, options);
        }
        if !batch.is_empty() {
            self.engine().write(batch.as_core(), options)?;
        }
        Ok(())
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.inner.turns
    }

    /// Takes a snapshot of the database as it is now: later writes do not appear in it.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// let before = db.snapshot()?;
    /// db.put("user#42", Item::new())?;
    /// assert!(db.contains("user#42")? && !before.contains("user#42")?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot::new(self.clone(), self.engine().snapshot()?))
    }

    /// Reads the items of one partition, in the byte order of their sort keys. A query touches one stripe, and sees the
    /// database as of the call of [`Query::run`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// for icao in ["KLAX", "KJFK"] {
    ///     db.put(("US", icao), Item::new())?;
    /// }
    /// let keys = db.query("US").run()?.keys().collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(keys[0].sort(), Some(&b"KJFK"[..]));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn query<'k>(&self, partition: impl KeyPart<'k>) -> Query<'_> {
        Query::new(self, None, &partition.into_bytes())
    }

    /// Reads all items whose partition key starts with these bytes, in key order. It costs the same as a
    /// [`Database::scan`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// for key in ["user#1", "user#2", "order#1"] {
    ///     db.put(key, Item::new())?;
    /// }
    /// assert_eq!(db.prefix("user#")?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Items> {
        self.scan().prefix(prefix).run()
    }

    /// Reads all items, in key order.
    ///
    /// Partitions are spread over the stripes by hash, so key order comes from merging all stripes, and starting a scan
    /// touches each of them. Read one partition with [`Database::query`], and everything, if order does not matter, with
    /// [`Database::segment`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.put("b", Item::new())?;
    /// db.put("a", Item::new())?;
    /// let keys = db.scan().run()?.keys().collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(keys[0].partition(), b"a");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn scan(&self) -> Scan<'_> {
        Scan::new(self, None)
    }

    /// Reads share `index` (from 0) of `count` shares of the database, for reading all of it on several threads. Each
    /// item is in exactly one share. A share is in no particular order, except that the items of a partition come
    /// together and in order. Shares consist of whole stripes: with more shares than stripes, 256 by default, some are
    /// empty. Take the shares of one [`Snapshot`] if they must be consistent with each other.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// for n in 0..100 {
    ///     db.put(format!("user#{n}"), Item::new())?;
    /// }
    /// assert_eq!(db.segment(0, 2)?.count() + db.segment(1, 2)?.count(), 100);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if `index` is not below `count`.
    pub fn segment(&self, index: usize, count: usize) -> Result<Items> {
        self.snapshot()?.segment(index, count)
    }

    /// Makes every write that has returned durable: a power cut loses none of them. It takes one sync of the disk,
    /// whatever the number of writes. If it fails with [`Error::Poisoned`], the handle accepts no more writes.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.put("user#42", Item::new())?;
    /// db.sync()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn sync(&self) -> Result<()> {
        self.engine().sync()
    }

    /// Flushes all memtables to SSTs and makes those durable. Never needed for safety, since the log holds every write;
    /// it shortens the next recovery.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.put("user#42", Item::new())?;
    /// db.flush()?;
    /// assert_eq!(db.stats()?.flushes, 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn flush(&self) -> Result<()> {
        self.engine().flush()
    }

    /// Merges the SSTs of each stripe into one run, and returns when that is durable. This drops deleted and
    /// overwritten data, and applies settings that only affect new SSTs. It rewrites the whole database.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.put("user#42", Item::new())?;
    /// db.delete("user#42")?;
    /// db.compact_all()?;
    /// assert_eq!(db.stats()?.sst_bytes, 0);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn compact_all(&self) -> Result<()> {
        (0..self.engine().stripe_count()).try_for_each(|stripe| self.trigger_compaction(stripe))
    }

    /// Whether the stripe is due for compaction under the rules of [`CompactionConfig`]; see
    /// [`LsmEngine::needs_compaction`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// assert!(!db.needs_compaction(0)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a stripe that does not exist.
    pub fn needs_compaction(&self, stripe: usize) -> Result<bool> {
        self.engine().needs_compaction(stripe)
    }

    /// Merges the SSTs of one stripe into one run, and returns when that is durable. Works even if automatic compaction
    /// is off; see [`LsmEngine::trigger_compaction`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// for stripe in 0..db.engine().stripe_count() {
    ///     db.trigger_compaction(stripe)?;
    /// }
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for a stripe that does not exist.
    pub fn trigger_compaction(&self, stripe: usize) -> Result<()> {
        self.engine().trigger_compaction(stripe)
    }

    /// Copies the database, as it is now, into a new directory while writes continue. The copy is a database like any
    /// other: to restore it, open it, or a copy of it. On the same file system SSTs are hard-linked, which takes
    /// neither time nor space; a database in memory is written to disk.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("copy.keystone");
    /// db.put("user#42", Item::new())?;
    /// db.backup(&path)?;
    /// assert!(Database::open(&path)?.contains("user#42")?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the destination holds anything; see [`LsmEngine::backup_with`] for the others. A failed
    /// backup is removed.
    pub fn backup(&self, destination: impl AsRef<Path>) -> Result<BackupReport> {
        self.backup_with(destination, BackupOptions::new())
    }

    /// Like [`Database::backup`], with options: progress, cancellation, and real copies instead of hard links.
    ///
    /// ```
    /// # use kstone_api::{BackupOptions, Database};
    /// # let db = Database::in_memory()?;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("copy.keystone");
    /// db.backup_with(&path, BackupOptions::new().copy(true))?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn backup_with(
        &self,
        destination: impl AsRef<Path>,
        options: BackupOptions<'_>,
    ) -> Result<BackupReport> {
        let options = if self.inner.in_memory { options.to(Arc::new(DiskVfs::new())) } else { options };
        self.engine().backup_with(destination.as_ref(), options)
    }

    /// Reads the database's files and reports everything wrong with them, while reads and writes continue. Damage is a
    /// finding in the report, not an error. [`verify`](crate::verify) does the same for a directory without opening it.
    ///
    /// ```
    /// # use kstone_api::{Database, VerifyOptions};
    /// let db = Database::temporary()?;
    /// let report = db.verify(&VerifyOptions::deep())?;
    /// assert!(report.is_clean());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn verify(&self, options: &VerifyOptions) -> Result<VerifyReport> {
        self.engine().verify_files(&damage::of_items(options))
    }

    /// Makes everything durable, stops background work and closes the files; the next open needs no recovery. Other
    /// clones, snapshots and iterators fail with [`Error::Closed`] from then on.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// let other = db.clone();
    /// db.close()?;
    /// assert_eq!(other.get("user#42").unwrap_err().code(), "closed");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Any error that prevented a clean close. All acknowledged writes are in the log even then; the next open replays
    /// it.
    pub fn close(self) -> Result<()> {
        self.engine().close()
    }

    /// The underlying engine, for calls that this type does not wrap.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// assert_eq!(db.engine().stripe_count(), 256);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn engine(&self) -> &LsmEngine {
        &self.inner.engine
    }

    /// The current settings. To change one, start from these.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// assert_eq!(db.config().bloom_bits_per_key, 10);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn config(&self) -> DatabaseConfig {
        self.engine().config()
    }

    /// Settings that existing SSTs were not written with, and how many SSTs those are; see
    /// [`LsmEngine::pending_rewrites`]. Compaction rewrites them over time, [`Database::compact_all`] at once.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.put("user#42", Item::new())?;
    /// db.flush()?;
    /// db.set_config(db.config().with_bloom_bits_per_key(16))?;
    /// assert_eq!(db.pending_rewrites()?.len(), 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn pending_rewrites(&self) -> Result<Vec<PendingRewrite>> {
        self.engine().pending_rewrites()
    }

    /// The current compaction settings.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// assert_eq!(db.compaction_config().sst_threshold, 10);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn compaction_config(&self) -> CompactionConfig {
        self.engine().compaction_config()
    }

    /// Changes the settings of the open database, and stores them. They apply from the next decision on; settings of
    /// SSTs apply to files written from now on.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.set_config(db.config().with_max_memtable_records(5000))?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] names the setting that is out of range; nothing changes then.
    pub fn set_config(&self, config: DatabaseConfig) -> Result<()> {
        self.engine().set_config(config)
    }

    /// Changes the compaction settings of the open database, and stores them. Errors are those of [`Database::set_config`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.set_compaction_config(db.compaction_config().with_max_concurrent(1))?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn set_compaction_config(&self, config: CompactionConfig) -> Result<()> {
        self.engine().set_compaction_config(config)
    }

    /// Current sizes, and totals since the database was opened. Reads counters and lists the directory, but reads no
    /// SST: cheap enough to call once per second.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.put("user#42", Item::new())?;
    /// assert_eq!(db.stats()?.operations.puts, 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn stats(&self) -> Result<EngineStats> {
        self.engine().stats()
    }

    /// Bytes of the Bloom filters of all SSTs; see [`LsmEngine::estimate_bloom_memory`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// println!("filters: {} bytes", db.estimate_bloom_memory()?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn estimate_bloom_memory(&self) -> Result<u64> {
        self.engine().estimate_bloom_memory()
    }

    /// Bytes of the hash indexes of all SSTs; see [`LsmEngine::estimate_index_memory`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// println!("indexes: {} bytes", db.estimate_index_memory()?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn estimate_index_memory(&self) -> Result<u64> {
        self.engine().estimate_index_memory()
    }

    /// Percentiles of the durations of operations since the database was opened, in nanoseconds. One operation in
    /// [`latency_sampling`](crate::DatabaseConfig::latency_sampling) (64) is timed.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// println!("{:?}", db.latencies().get);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn latencies(&self) -> Latencies {
        self.engine().latencies()
    }

    /// Totals of compactions since the database was opened, and why they ran.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// println!("{:?}", db.compaction_stats());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn compaction_stats(&self) -> CompactionStats {
        self.engine().compaction_stats()
    }

    /// The database's directory.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// let db = Database::temporary()?;
    /// assert!(db.path().join("MANIFEST").is_file());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn path(&self) -> &Path {
        self.engine().path()
    }
}

/// Wraps an engine that was opened with its own options.
impl From<LsmEngine> for Database {
    fn from(engine: LsmEngine) -> Self {
        Self { inner: Arc::new(Inner { engine, in_memory: false, temporary: None, turns: Turns::default() }) }
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
    /// Settings of the log, the memtables and the SSTs. Default: those stored in the database, or for a new one
    /// [`DatabaseConfig::new`].
    ///
    /// ```
    /// # use kstone_api::{Database, DatabaseConfig};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("mydb.keystone");
    /// let config = DatabaseConfig::new().with_max_memtable_records(5000);
    /// let db = Database::builder(&path).config(config).create()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn config(mut self, config: DatabaseConfig) -> Self {
        self.options.config = Some(config);
        self
    }

    /// When and how SSTs are merged. Default: as stored in the database, or for a new one [`CompactionConfig::new`].
    ///
    /// ```
    /// # use kstone_api::{CompactionConfig, Database};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("mydb.keystone");
    /// let compaction = CompactionConfig::new().with_sst_threshold(5);
    /// let db = Database::builder(&path).compaction(compaction).create()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn compaction(mut self, config: CompactionConfig) -> Self {
        self.options.compaction = Some(config);
        self
    }

    /// All settings of a preset: [`DatabaseBuilder::config`] and [`DatabaseBuilder::compaction`] at once.
    ///
    /// ```
    /// # use kstone_api::{Database, Preset};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("mydb.keystone");
    /// let db = Database::builder(&path).preset(Preset::read_heavy()).create()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn preset(self, preset: Preset) -> Self {
        self.config(preset.database).compaction(preset.compaction)
    }

    /// Durability of writes without [`WriteOptions`] of their own. Default: [`Durability::Buffered`]. It belongs to the
    /// handle and is not stored.
    ///
    /// ```
    /// # use kstone_api::{Database, Durability};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("mydb.keystone");
    /// let db = Database::builder(&path).durability(Durability::Sync).create()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// Whether a read-only handle keeps all SSTs that it may need, even after a writer has removed them. Default: true.
    /// With `false`, an SST is opened when it is first read, and a read may fail with
    /// [`Error::Busy`](crate::Error::Busy) after a writer has removed its SST: open the database again. For a look at the
    /// figures, or at a few items, of a database with thousands of SSTs this is several times as fast.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("mydb.keystone");
    /// # Database::create(&path)?.close()?;
    /// let db = Database::builder(&path).hold_ssts(false).open_read_only()?;
    /// println!("{}", db.stats()?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn hold_ssts(mut self, hold: bool) -> Self {
        self.options.hold_ssts = hold;
        self
    }

    /// Receives an event for each flush, compaction, stall, error and so on; see [`EventListener`] for what it may do.
    pub fn listener(mut self, listener: Arc<dyn EventListener>) -> Self {
        self.options.listener = Some(listener);
        self
    }

    /// Creates the database; see [`Database::create`]. Fails with
    /// [`Error::InvalidConfig`](crate::Error::InvalidConfig), naming the setting, if one is out of range; so do the
    /// other calls.
    pub fn create(self) -> Result<Database> {
        LsmEngine::create(&self.path, self.options).map(Database::from)
    }

    /// Opens the database; see [`Database::open`].
    pub fn open(self) -> Result<Database> {
        LsmEngine::open(&self.path, self.options).map(Database::from)
    }

    /// Opens the database, or creates it if there is none; see [`Database::open_or_create`].
    pub fn open_or_create(self) -> Result<Database> {
        LsmEngine::open_or_create(&self.path, self.options).map(Database::from)
    }

    /// Opens the database for reading; see [`Database::open_read_only`]. The settings apply to this handle only and are
    /// not stored.
    pub fn open_read_only(self) -> Result<Database> {
        LsmEngine::open_read_only(&self.path, self.options).map(Database::from)
    }
}
