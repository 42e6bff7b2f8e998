//! [`WriteBatch`]: writes applied together.

use kstone_core::{Key, Result, lsm};

use crate::codec::EncodedItem;
use crate::item::Item;

/// Puts and deletes that [`Database::write`](crate::Database::write) applies atomically, whichever partitions they
/// touch. If several writes of a batch have the same key, the last one wins. A batch is at most `max_batch_bytes` long,
/// 64 MiB by default.
///
/// ```
/// use kstone_api::{Database, ItemBuilder, WriteBatch};
///
/// let db = Database::in_memory()?;
/// let balance = |balance: i64| ItemBuilder::new().number("balance", balance);
/// db.write(
///     WriteBatch::new()
///         .put("account#1", balance(70))?
///         .put("account#2", balance(30))?
///         .delete("transfer#9"),
/// )?;
/// # Ok::<(), kstone_api::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    batch: lsm::WriteBatch,
}

impl WriteBatch {
    /// An empty batch.
    ///
    /// ```
    /// # use kstone_api::WriteBatch;
    /// assert!(WriteBatch::new().is_empty());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a put.
    ///
    /// ```
    /// # use kstone_api::{ItemBuilder, WriteBatch};
    /// let mut batch = WriteBatch::new();
    /// batch.put("account#1", ItemBuilder::new().number("balance", 70))?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidKey` or `KeyTooLarge` if no database accepts the key ([`Key::check`]), `InvalidNumber` or `InvalidItem`
    /// if the item cannot be stored; nothing is added then. Lower limits of a particular database are checked by the
    /// write.
    pub fn put<'k>(&mut self, key: impl Into<Key<'k>>, item: impl Into<Item>) -> Result<&mut Self> {
        let key = key.into();
        key.check()?;
        let bytes = item.into().encode()?;
        self.batch.put(key, bytes);
        Ok(self)
    }

    /// Adds a put of an item that is already in its stored form. Errors are those of [`put`](Self::put).
    ///
    /// ```
    /// # use kstone_api::{EncodedItem, WriteBatch};
    /// let item = EncodedItem::read_json(&mut &br#"{"name":"Ann"}"#[..], 1 << 20).unwrap()?;
    /// WriteBatch::new().put_encoded("user#42", item)?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn put_encoded<'k>(&mut self, key: impl Into<Key<'k>>, item: EncodedItem) -> Result<&mut Self> {
        let key = key.into();
        key.check()?;
        self.batch.put(key, item.into_bytes());
        Ok(self)
    }

    /// Adds a delete. An invalid key makes the write fail with [`Error::InvalidKey`](crate::Error::InvalidKey), which
    /// names the operation; nothing of the batch is written then.
    ///
    /// ```
    /// # use kstone_api::WriteBatch;
    /// let mut batch = WriteBatch::new();
    /// batch.delete("cart#1").delete(("cart", "2"));
    /// assert_eq!(batch.len(), 2);
    /// ```
    pub fn delete<'k>(&mut self, key: impl Into<Key<'k>>) -> &mut Self {
        self.batch.delete(key);
        self
    }

    /// The number of writes.
    ///
    /// ```
    /// # use kstone_api::WriteBatch;
    /// assert_eq!(WriteBatch::new().delete("cart#1").len(), 1);
    /// ```
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether the batch has no writes.
    ///
    /// ```
    /// # use kstone_api::WriteBatch;
    /// assert!(!WriteBatch::new().delete("cart#1").is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    pub(crate) fn as_core(&self) -> &lsm::WriteBatch {
        &self.batch
    }
}

/// Moves the writes out, for batches that are built and written in one expression; the original is empty afterwards.
impl From<&mut WriteBatch> for WriteBatch {
    fn from(batch: &mut WriteBatch) -> Self {
        std::mem::take(batch)
    }
}
