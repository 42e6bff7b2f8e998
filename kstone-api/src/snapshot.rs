//! [`Snapshot`]: the database at one moment.

use kstone_core::{Error, Key, KeyPart, Result, lsm};

use crate::damage;
use crate::database::Database;
use crate::item::Item;
use crate::query::{Items, Query, Scan};
use crate::view::ItemView;

/// The database at one moment, between two writes. Cheap to take and to clone. While a snapshot lives, the versions
/// that it can see stay on disk, so drop it when it is no longer needed.
///
/// ```
/// # use kstone_api::{Database, Item};
/// let db = Database::in_memory()?;
/// db.put("user#1", Item::new())?;
/// let snapshot = db.snapshot()?;
/// db.delete("user#1")?;
/// assert!(snapshot.contains("user#1")? && !db.contains("user#1")?);
/// # Ok::<(), kstone_api::Error>(())
/// ```
///
/// Errors are those of the same calls of [`Database`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    database: Database,
    snapshot: lsm::Snapshot,
}

impl Snapshot {
    pub(crate) fn new(database: Database, snapshot: lsm::Snapshot) -> Self {
        Self { database, snapshot }
    }

    pub(crate) fn as_core(&self) -> &lsm::Snapshot {
        &self.snapshot
    }

    /// Gets the item under a key, decoded.
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder, Value};
    /// # let db = Database::in_memory()?;
    /// db.put("page", ItemBuilder::new().number("views", 1))?;
    /// let snapshot = db.snapshot()?;
    /// db.put("page", ItemBuilder::new().number("views", 2))?;
    /// let views = snapshot.get("page")?.and_then(|item| item.get("views").and_then(Value::as_i64));
    /// assert_eq!(views, Some(1));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn get<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<Item>> {
        let key = key.into();
        let Some(view) = self.view_of(&key)? else { return Ok(None) };
        view.to_item().map(Some).map_err(|error| damage::under(&self.database, &key, error))
    }

    /// Gets the item under a key, to be read in place.
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder, ValueView};
    /// # let db = Database::in_memory()?;
    /// db.put("page", ItemBuilder::new().number("views", 1))?;
    /// let view = db.snapshot()?.get_view("page")?.expect("it was just stored");
    /// assert_eq!(view.get("views")?.and_then(ValueView::as_i64), Some(1));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn get_view<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<ItemView>> {
        self.view_of(&key.into())
    }

    /// Gets the items under several keys; see [`Database::batch_get`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// let snapshot = db.snapshot()?;
    /// db.put("user#1", Item::new())?;
    /// assert_eq!(snapshot.batch_get(["user#1"])?, [None]);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn batch_get<'k, K: Into<Key<'k>>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Item>>> {
        self.database.batch_get_at(keys, Some(&self.snapshot))
    }

    fn view_of(&self, key: &Key<'_>) -> Result<Option<ItemView>> {
        let Some(value) = self.database.engine().get_at(key, &self.snapshot)? else { return Ok(None) };
        ItemView::new(value).map(Some).map_err(|error| damage::under(&self.database, key, error))
    }

    /// Whether there is an item under a key.
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// let snapshot = db.snapshot()?;
    /// db.put("user#1", Item::new())?;
    /// assert!(!snapshot.contains("user#1")?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn contains<'k>(&self, key: impl Into<Key<'k>>) -> Result<bool> {
        Ok(self.database.engine().get_at(&key.into(), &self.snapshot)?.is_some())
    }

    /// Reads the items of one partition; see [`Database::query`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// db.put(("US", "KJFK"), Item::new())?;
    /// let snapshot = db.snapshot()?;
    /// db.put(("US", "KLAX"), Item::new())?;
    /// assert_eq!(snapshot.query("US").run()?.count(), 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn query<'k>(&self, partition: impl KeyPart<'k>) -> Query<'_> {
        Query::new(&self.database, Some(&self.snapshot), &partition.into_bytes())
    }

    /// Reads all items whose partition key starts with these bytes, in key order; see [`Database::prefix`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// db.put("user#1", Item::new())?;
    /// let snapshot = db.snapshot()?;
    /// db.put("user#2", Item::new())?;
    /// assert_eq!(snapshot.prefix("user#")?.count(), 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Items> {
        self.scan().prefix(prefix).run()
    }

    /// Reads all items, in key order; see [`Database::scan`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// db.put("user#1", Item::new())?;
    /// assert_eq!(db.snapshot()?.scan().run()?.count(), 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn scan(&self) -> Scan<'_> {
        Scan::new(&self.database, Some(&self.snapshot))
    }

    /// Reads share `index` of `count` shares of the items; see [`Database::segment`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// # for n in 0..100 { db.put(format!("user#{n}"), Item::new())?; }
    /// let snapshot = db.snapshot()?;
    /// let counts = std::thread::scope(|scope| {
    ///     let share = |index| snapshot.segment(index, 4).map(|items| items.keys().count());
    ///     let threads: Vec<_> = (0..4).map(|index| scope.spawn(move || share(index))).collect();
    ///     threads.into_iter().map(|thread| thread.join().unwrap()).sum::<Result<usize, _>>()
    /// });
    /// assert_eq!(counts?, 100);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn segment(&self, index: usize, count: usize) -> Result<Items> {
        if index >= count {
            let why = format!("{index} is not below the number of segments, {count}");
            return Err(Error::InvalidConfig { field: "segment", why });
        }
        let stripes = self.database.engine().stripe_count();
        // In u128, as both may be any number.
        let bound = |i: usize| (i as u128 * stripes as u128 / count as u128) as usize;
        Ok(Items::of_stripes(self.database.clone(), self.snapshot.clone(), bound(index)..bound(index + 1)))
    }

    /// Reads the items of one stripe, in key order. `InvalidConfig` for a stripe that does not exist.
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// db.put("user#1", Item::new())?;
    /// let snapshot = db.snapshot()?;
    /// let counts = (0..256).map(|stripe| snapshot.stripe(stripe).map(Iterator::count));
    /// assert_eq!(counts.sum::<Result<usize, _>>()?, 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn stripe(&self, stripe: usize) -> Result<Items> {
        let entries = self.database.engine().scan_stripe(stripe, Some(&self.snapshot))?;
        Ok(Items::new(entries, usize::MAX))
    }
}
