//! [`WriteBatch`]: writes that happen together.

use kstone_core::{Key, Result, lsm};

use crate::codec::EncodedItem;
use crate::item::Item;

/// Puts and deletes that [`Database::write`](crate::Database::write) makes all together or not at all. Of
/// writes to the same key the last counts.
///
/// ```
/// # fn main() -> kstone_api::Result<()> {
/// use kstone_api::{Database, ItemBuilder, WriteBatch};
///
/// let db = Database::in_memory()?;
/// let mut batch = WriteBatch::new();
/// batch.put("account#1", ItemBuilder::new().number("balance", 70))?;
/// batch.put("account#2", ItemBuilder::new().number("balance", 30))?;
/// batch.delete("transfer#9");
/// db.write(batch)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    batch: lsm::WriteBatch,
}

impl WriteBatch {
    /// A batch with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds storing an item. Fails, adding nothing, when the item holds what cannot be stored.
    pub fn put<'k>(&mut self, key: impl Into<Key<'k>>, item: impl Into<Item>) -> Result<&mut Self> {
        let bytes = item.into().encode()?;
        self.batch.put(key, bytes);
        Ok(self)
    }

    /// Adds storing an item that is in its stored form already.
    pub fn put_encoded<'k>(&mut self, key: impl Into<Key<'k>>, item: EncodedItem) -> &mut Self {
        self.batch.put(key, item.into_bytes());
        self
    }

    /// Adds removing an item.
    pub fn delete<'k>(&mut self, key: impl Into<Key<'k>>) -> &mut Self {
        self.batch.delete(key);
        self
    }

    /// How many writes it holds.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    pub(crate) fn as_core(&self) -> &lsm::WriteBatch {
        &self.batch
    }
}
