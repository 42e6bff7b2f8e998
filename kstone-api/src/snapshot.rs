//! [`Snapshot`]: the database as it was.

use kstone_core::{Error, Key, Result, lsm};

use crate::damage;
use crate::database::Database;
use crate::item::Item;
use crate::query::{Items, Query, Scan};
use crate::view::ItemView;

/// The database as it was at one moment, between two writes. While it lives, versions that it can see are
/// kept on disk.
#[derive(Clone, Debug)]
pub struct Snapshot {
    database: Database,
    snapshot: lsm::Snapshot,
}

impl Snapshot {
    pub(crate) fn new(database: Database, snapshot: lsm::Snapshot) -> Self {
        Self { database, snapshot }
    }

    /// The item that was under a key.
    pub fn get<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<Item>> {
        let key = key.into();
        let Some(view) = self.view_of(&key)? else { return Ok(None) };
        view.to_item().map(Some).map_err(|error| damage::under(&self.database, &key, error))
    }

    /// The item that was under a key, to read attributes of it in place.
    pub fn get_view<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<ItemView>> {
        self.view_of(&key.into())
    }

    fn view_of(&self, key: &Key<'_>) -> Result<Option<ItemView>> {
        let Some(value) = self.database.engine().get_at(key, &self.snapshot)? else { return Ok(None) };
        ItemView::new(value).map(Some).map_err(|error| damage::under(&self.database, key, error))
    }

    /// Whether there was an item under a key.
    pub fn contains<'k>(&self, key: impl Into<Key<'k>>) -> Result<bool> {
        Ok(self.database.engine().get_at(&key.into(), &self.snapshot)?.is_some())
    }

    /// Reads the items of one partition; see [`Database::query`].
    pub fn query(&self, partition: impl AsRef<[u8]>) -> Query<'_> {
        Query::new(&self.database, Some(&self.snapshot), partition.as_ref())
    }

    /// All items whose partition key starts with these bytes; see [`Database::prefix`].
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Items> {
        self.scan().prefix(prefix).run()
    }

    /// Reads all items; see [`Database::scan`].
    pub fn scan(&self) -> Scan<'_> {
        Scan::new(&self.database, Some(&self.snapshot))
    }

    /// One of several shares of the items; see [`Database::segment`].
    pub fn segment(&self, index: usize, count: usize) -> Result<Items> {
        if index >= count {
            let why = format!("{index} is not below the number of segments, {count}");
            return Err(Error::InvalidConfig { field: "segment", why });
        }
        let stripes = self.database.engine().stripe_count();
        // In u128, because both may be anything.
        let bound = |i: usize| (i as u128 * stripes as u128 / count as u128) as usize;
        Ok(Items::of_stripes(self.database.clone(), self.snapshot.clone(), bound(index)..bound(index + 1)))
    }

    /// The items of one stripe, in the order of keys.
    pub fn stripe(&self, stripe: usize) -> Result<Items> {
        let entries = self.database.engine().scan_stripe(stripe, Some(&self.snapshot))?;
        Ok(Items::new(entries, usize::MAX))
    }
}
