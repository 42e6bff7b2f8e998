//! [`WriteBatch`]: writes applied together.

use kstone_core::lsm::{self, Changes, WriteOptions};
use kstone_core::slice::Slice;
use kstone_core::{Key, Result};

use crate::change::{Refused, unmet};
use crate::codec::EncodedItem;
use crate::database::Database;
use crate::expression::Condition;
use crate::item::Item;

/// Puts and deletes that [`Database::write`](crate::Database::write) applies atomically, whichever partitions they
/// touch. If several writes of a batch have the same key, the last one wins. A batch is at most `max_batch_bytes` long,
/// 64 MiB by default.
///
/// The call that adds a write reports what is wrong with its key or item, and adds nothing then. [`put`](Self::put) and
/// [`delete`](Self::delete) return a reference, for loops and for batches that are written where they are built;
/// [`with_put`](Self::with_put) and [`with_delete`](Self::with_delete) return the batch itself, to be kept or returned.
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
///         .delete("transfer#9")?,
/// )?;
/// # Ok::<(), kstone_api::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    batch: lsm::WriteBatch,
    requirements: Vec<Requirement>,
}

/// A condition that the batch depends on.
#[derive(Clone, Debug)]
struct Requirement {
    key: Key<'static>,
    condition: Condition,
    /// How many puts, deletes and requirements were added before.
    place: usize,
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

    /// Adds a delete. The key need not exist.
    ///
    /// ```
    /// # use kstone_api::WriteBatch;
    /// let mut batch = WriteBatch::new();
    /// batch.delete("cart#1")?.delete(("cart", "2"))?;
    /// assert_eq!(batch.len(), 2);
    /// assert_eq!(batch.delete("").unwrap_err().code(), "invalid_key");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidKey` or `KeyTooLarge` if no database accepts the key ([`Key::check`]); nothing is added then. A lower
    /// limit of a particular database is checked by the write.
    pub fn delete<'k>(&mut self, key: impl Into<Key<'k>>) -> Result<&mut Self> {
        let key = key.into();
        key.check()?;
        self.batch.delete(key);
        Ok(self)
    }

    /// The batch with a put added, for a batch that one expression builds and returns. Errors are those of
    /// [`put`](Self::put).
    ///
    /// ```
    /// # use kstone_api::{ItemBuilder, Result, WriteBatch};
    /// fn transfer(from: i64, to: i64) -> Result<WriteBatch> {
    ///     WriteBatch::new()
    ///         .with_put("account#1", ItemBuilder::new().number("balance", from))?
    ///         .with_put("account#2", ItemBuilder::new().number("balance", to))?
    ///         .with_delete("transfer#9")
    /// }
    /// assert_eq!(transfer(70, 30)?.len(), 3);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn with_put<'k>(mut self, key: impl Into<Key<'k>>, item: impl Into<Item>) -> Result<Self> {
        self.put(key, item)?;
        Ok(self)
    }

    /// The batch with a delete added. Errors are those of [`delete`](Self::delete).
    ///
    /// ```
    /// # use kstone_api::WriteBatch;
    /// let batch = WriteBatch::new().with_delete("cart#1")?.with_delete("cart#2")?;
    /// assert_eq!(batch.len(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn with_delete<'k>(mut self, key: impl Into<Key<'k>>) -> Result<Self> {
        self.delete(key)?;
        Ok(self)
    }

    /// Makes the whole batch depend on a condition: on the item that is under a key before the batch, which the batch may
    /// write or not. If any requirement is not met, nothing is written, and the write fails with
    /// [`Error::TransactionCancelled`](crate::Error::TransactionCancelled): a reason for each call that added to the batch, in order.
    ///
    /// ```
    /// # use kstone_api::{Condition, Database, Item, WriteBatch, attr};
    /// # let db = Database::in_memory()?;
    /// # db.put("room#1", Item::builder().bool("open", true))?;
    /// let mut post = WriteBatch::new();
    /// post.require("room#1", attr("open").eq(true))?.put(("chat#1", "m1"), Item::builder().string("text", "hello"))?;
    /// db.write(post)?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of a key that no database accepts, and of a condition that exceeds a limit; nothing is added then.
    pub fn require<'k>(&mut self, key: impl Into<Key<'k>>, condition: Condition) -> Result<&mut Self> {
        let key = key.into();
        key.check()?;
        condition.check()?;
        let place = self.batch.len() + self.requirements.len();
        self.requirements.push(Requirement { key: key.into_owned(), condition, place });
        Ok(self)
    }

    pub(crate) fn has_requirements(&self) -> bool {
        !self.requirements.is_empty()
    }

    /// Writes the batch if its requirements are met.
    pub(crate) fn write_if_met(self, database: &Database, options: WriteOptions) -> Result<()> {
        let calls = self.batch.len() + self.requirements.len();
        let keys: Vec<Key<'_>> = (self.requirements.iter().map(|requirement| &requirement.key))
            .chain(self.batch.operations().map(|(key, _)| key))
            .cloned()
            .collect();
        let decide = |values: &[Option<Slice>], changes: &mut Changes| {
            let mut refused = Refused::default();
            for (requirement, old) in self.requirements.iter().zip(values) {
                if let Some(reason) = unmet(&requirement.condition, old.as_ref())? {
                    refused.refuse(requirement.place, reason);
                }
            }
            refused.finish(calls)?;
            for (n, (_, value)) in self.batch.operations().enumerate() {
                match value {
                    Some(bytes) => changes.put(self.requirements.len() + n, bytes.to_vec()),
                    None => changes.delete(self.requirements.len() + n),
                }
            }
            Ok(())
        };
        database.engine().write_with(&keys, options, decide)
    }

    /// The number of writes.
    ///
    /// ```
    /// # use kstone_api::WriteBatch;
    /// assert_eq!(WriteBatch::new().delete("cart#1")?.len(), 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether the batch has no writes.
    ///
    /// ```
    /// # use kstone_api::WriteBatch;
    /// assert!(!WriteBatch::new().delete("cart#1")?.is_empty());
    /// # Ok::<(), kstone_api::Error>(())
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
