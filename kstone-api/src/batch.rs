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
///
/// // The same in one expression.
/// let balance = |balance: i64| ItemBuilder::new().number("balance", balance);
/// db.write(
///     WriteBatch::new()
///         .put("account#1", balance(70))?
///         .put("account#2", balance(30))?
///         .delete("transfer#9"),
/// )?;
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

    /// Adds storing an item. Fails, adding nothing, when no database stores such a key ([`Key::check`]), and when the
    /// item holds what cannot be stored. A lower limit that is set for the database is told by the write.
    pub fn put<'k>(&mut self, key: impl Into<Key<'k>>, item: impl Into<Item>) -> Result<&mut Self> {
        let key = key.into();
        key.check()?;
        let bytes = item.into().encode()?;
        self.batch.put(key, bytes);
        Ok(self)
    }

    /// Adds storing an item that is in its stored form already. Fails, adding nothing, as [`put`](Self::put) does.
    pub fn put_encoded<'k>(&mut self, key: impl Into<Key<'k>>, item: EncodedItem) -> Result<&mut Self> {
        let key = key.into();
        key.check()?;
        self.batch.put(key, item.into_bytes());
        Ok(self)
    }

    /// Adds removing an item. There is none under a key that cannot be stored: the write is refused with
    /// [`Error::InvalidKey`](crate::Error::InvalidKey), naming the operation, and nothing of it is made.
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

/// What it held: the batch is empty then. For batches that are made and written in one expression.
impl From<&mut WriteBatch> for WriteBatch {
    fn from(batch: &mut WriteBatch) -> Self {
        std::mem::take(batch)
    }
}
