//! Deletion of a part of a partition.

use kstone_core::lsm::{DeletedRange, WriteOptions};
use kstone_core::{Result, SortRange};

use crate::database::Database;

impl Database {
    /// Deletes the items of a part of a partition that exist at the time of the call. [`SortRange::All`] is the whole
    /// partition, including the item without a sort key.
    ///
    /// The deletion is atomic if its deletes fit into
    /// [`max_batch_bytes`](crate::DatabaseConfig::max_batch_bytes) (64 MiB, well over a million short keys). Otherwise it is
    /// a series of steps of that size in the order of sort keys, each atomic; [`DeletedRange::steps`] tells how many.
    ///
    /// Items that others put meanwhile: under a new key, they stay; under a key that existed at the time of the call, they
    /// may be deleted.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, SortRange};
    /// # let db = Database::in_memory()?;
    /// for day in ["2026-01-30", "2026-01-31", "2026-02-01"] {
    ///     db.put(("log", day), Item::new())?;
    /// }
    /// let deleted = db.delete_range("log", SortRange::before("2026-02"))?;
    /// assert_eq!((deleted.items, deleted.steps), (2, 1));
    /// assert_eq!(db.query("log").count()?, 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidKey`](crate::Error::InvalidKey) for an empty partition key, and
    /// [those of every write](Database#errors-of-every-write). After an error the steps before it remain, so that the items
    /// that come first are gone; repeating the call deletes the rest.
    pub fn delete_range(&self, partition: impl AsRef<[u8]>, range: SortRange) -> Result<DeletedRange> {
        self.delete_range_with(partition, range, WriteOptions::default())
    }

    /// Like [`Database::delete_range`], with a durability for this deletion only. With [`WriteOptions::sync`], each step is
    /// durable before the next begins.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, SortRange, WriteOptions};
    /// # let db = Database::in_memory()?;
    /// db.put(("session#9", "cart"), Item::new())?;
    /// let deleted = db.delete_range_with("session#9", SortRange::All, WriteOptions::sync())?;
    /// assert_eq!(deleted.items, 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn delete_range_with(
        &self,
        partition: impl AsRef<[u8]>,
        range: SortRange,
        options: WriteOptions,
    ) -> Result<DeletedRange> {
        self.engine().delete_range(partition.as_ref(), &range, options)
    }
}
