//! [`TransactWrite`]: several writes with their conditions, all or none.

use std::collections::BTreeSet;

use kstone_core::lsm::{Changes, WriteOptions};
use kstone_core::slice::Slice;
use kstone_core::{CancelReason, Error, Key, Result};

use crate::change::{Refused, unmet};
use crate::database::Database;
use crate::expression::{Condition, Update};
use crate::item::Item;

/// Writes to different items that [`Database::transact_write`] makes together if all of their conditions hold, and none
/// of them otherwise. Conditions and updates see the items as they were before.
///
/// ```
/// use kstone_api::{CancelReason, Database, Error, Item, TransactWrite, Update, attr};
///
/// let db = Database::in_memory()?;
/// db.put("account#1", Item::builder().number("balance", 100))?;
/// db.put("account#2", Item::builder().number("balance", 0))?;
/// let pay = |amount: i64| {
///     TransactWrite::new()
///         .update_if("account#1", Update::new().add("balance", -amount), attr("balance").ge(amount))?
///         .update("account#2", Update::new().add("balance", amount))
/// };
/// db.transact_write(&pay(70)?)?;
/// let Err(Error::TransactionCancelled { reasons }) = db.transact_write(&pay(70)?) else { panic!() };
/// assert!(matches!(reasons[..], [Some(CancelReason::Condition { old: Some(_) }), None]));
/// # Ok::<(), Error>(())
/// ```
///
/// Each method fails for a key or an item that no database accepts, and for a key that the transaction has already.
#[derive(Clone, Debug, Default)]
#[must_use = "a transaction does nothing until it is written"]
pub struct TransactWrite {
    keys: Vec<Key<'static>>,
    steps: Vec<Step>,
    /// To find keys that come twice.
    known: BTreeSet<Key<'static>>,
}

/// What is done to the key at the same place.
#[derive(Clone, Debug)]
struct Step {
    condition: Option<Condition>,
    action: Action,
}

#[derive(Clone, Debug)]
enum Action {
    Put(Vec<u8>),
    Update(Update),
    Delete,
    Check,
}

impl TransactWrite {
    /// Nothing to write yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores an item.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, TransactWrite};
    /// # let db = Database::in_memory()?;
    /// db.transact_write(&TransactWrite::new().put("a", Item::new())?.put("b", Item::new())?)?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn put<'k>(self, key: impl Into<Key<'k>>, item: impl Into<Item>) -> Result<Self> {
        let bytes = item.into().encode()?;
        self.add(key.into(), None, Action::Put(bytes))
    }

    /// Stores an item if the present one, or its absence, meets the condition.
    ///
    /// ```
    /// # use kstone_api::{Condition, Database, Item, TransactWrite};
    /// # let db = Database::in_memory()?;
    /// let registered = TransactWrite::new()
    ///     .put_if("name#ann", Item::builder().string("user", "user#42"), Condition::item_absent())?
    ///     .put("user#42", Item::builder().string("name", "ann"))?;
    /// db.transact_write(&registered)?;
    /// assert_eq!(db.transact_write(&registered).unwrap_err().code(), "transaction_cancelled");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn put_if<'k>(
        self,
        key: impl Into<Key<'k>>,
        item: impl Into<Item>,
        condition: Condition,
    ) -> Result<Self> {
        let bytes = item.into().encode()?;
        self.add(key.into(), Some(condition), Action::Put(bytes))
    }

    /// Changes some attributes of an item; without an item, it starts from an empty one.
    ///
    /// ```
    /// # use kstone_api::{Database, TransactWrite, Update};
    /// # let db = Database::in_memory()?;
    /// db.transact_write(&TransactWrite::new().update("page", Update::new().add("views", 1))?)?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn update<'k>(self, key: impl Into<Key<'k>>, update: Update) -> Result<Self> {
        update.check()?;
        self.add(key.into(), None, Action::Update(update))
    }

    /// Changes some attributes of an item if it, or its absence, meets the condition.
    ///
    /// ```
    /// # use kstone_api::{Condition, Database, TransactWrite, Update};
    /// # let db = Database::in_memory()?;
    /// let visit = TransactWrite::new().update_if("page", Update::new().add("views", 1), Condition::item_exists())?;
    /// assert!(db.transact_write(&visit).is_err());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn update_if<'k>(
        self,
        key: impl Into<Key<'k>>,
        update: Update,
        condition: Condition,
    ) -> Result<Self> {
        update.check()?;
        self.add(key.into(), Some(condition), Action::Update(update))
    }

    /// Deletes an item, which need not exist.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, TransactWrite};
    /// # let db = Database::in_memory()?;
    /// // An item moves to another partition.
    /// db.transact_write(&TransactWrite::new().delete(("todo", "7"))?.put(("done", "7"), Item::new())?)?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn delete<'k>(self, key: impl Into<Key<'k>>) -> Result<Self> {
        self.add(key.into(), None, Action::Delete)
    }

    /// Deletes an item if it, or its absence, meets the condition.
    ///
    /// ```
    /// # use kstone_api::{Condition, Database, TransactWrite};
    /// # let db = Database::in_memory()?;
    /// let end = TransactWrite::new().delete_if("session#1", Condition::item_exists())?;
    /// assert!(db.transact_write(&end).is_err());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn delete_if<'k>(self, key: impl Into<Key<'k>>, condition: Condition) -> Result<Self> {
        self.add(key.into(), Some(condition), Action::Delete)
    }

    /// Only checks a condition, on an item that the transaction does not write.
    ///
    /// ```
    /// # use kstone_api::{Condition, Database, Item, TransactWrite};
    /// # let db = Database::in_memory()?;
    /// db.put("room#1", Item::new())?;
    /// let post = TransactWrite::new()
    ///     .check("room#1", Condition::item_exists())?
    ///     .put(("chat#1", "m1"), Item::builder().string("text", "hello"))?;
    /// db.transact_write(&post)?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn check<'k>(self, key: impl Into<Key<'k>>, condition: Condition) -> Result<Self> {
        self.add(key.into(), Some(condition), Action::Check)
    }

    fn add(mut self, key: Key<'_>, condition: Option<Condition>, action: Action) -> Result<Self> {
        key.check()?;
        condition.as_ref().map_or(Ok(()), Condition::check)?;
        let key = key.into_owned();
        if !self.known.insert(key.clone()) {
            let n = self.keys.len() + 1;
            return Err(Error::InvalidKey {
                why: format!("operation {n}: {key} is in the transaction already"),
            });
        }
        self.keys.push(key);
        self.steps.push(Step { condition, action });
        Ok(self)
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no operations.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What each operation does to these items, or why some of them are refused.
    fn decide(&self, values: &[Option<Slice>], max_item: usize, changes: &mut Changes) -> Result<()> {
        let mut refused = Refused::default();
        for (n, (step, old)) in self.steps.iter().zip(values).enumerate() {
            if let Some(reason) = step.decide(n, old.as_ref(), max_item, changes)? {
                refused.refuse(n, reason);
            }
        }
        refused.finish(self.len())
    }
}

impl Step {
    fn decide(
        &self,
        n: usize,
        old: Option<&Slice>,
        max_item: usize,
        changes: &mut Changes,
    ) -> Result<Option<CancelReason>> {
        if let Some(condition) = &self.condition
            && let Some(reason) = unmet(condition, old)?
        {
            return Ok(Some(reason));
        }
        match &self.action {
            Action::Put(bytes) => changes.put(n, bytes.clone()),
            Action::Delete if old.is_some() => changes.delete(n),
            Action::Delete | Action::Check => {}
            Action::Update(update) => match update.apply_stored(old.map(AsRef::as_ref)) {
                Ok(applied) if applied.item.len() > max_item => {
                    return Ok(Some(CancelReason::TooLarge { len: applied.item.len(), max: max_item }));
                }
                Ok(applied) => changes.put(n, applied.item),
                Err(Error::UpdateFailed { path, why }) => {
                    return Ok(Some(CancelReason::Update { path, why }));
                }
                Err(Error::InvalidItem { why }) => return Ok(Some(CancelReason::Invalid { why })),
                Err(error) => return Err(error),
            },
        }
        Ok(None)
    }
}

impl Database {
    /// Makes all writes of a transaction, if all of its conditions hold, as one atomic step; otherwise none of them. Its
    /// operations together are at most `max_batch_bytes` long, 64 MiB by default; their number has no limit.
    ///
    /// Use [`Database::transaction`] if what is written depends on what is read in other ways.
    ///
    /// ```
    /// # use kstone_api::{Condition, Database, Item, TransactWrite};
    /// # let db = Database::in_memory()?;
    /// let first = TransactWrite::new().put_if("config", Item::new(), Condition::item_absent())?;
    /// db.transact_write(&first)?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TransactionCancelled`], with a reason for each operation that is refused: a condition, an update that does
    /// not fit its item, an item that an update makes too large. And [those of every
    /// write](Database#errors-of-every-write).
    pub fn transact_write(&self, transaction: &TransactWrite) -> Result<()> {
        self.transact_write_with(transaction, WriteOptions::default())
    }

    /// Like [`Database::transact_write`], with a durability for this write only.
    ///
    /// ```
    /// # use kstone_api::{Database, Item, TransactWrite, WriteOptions};
    /// # let db = Database::in_memory()?;
    /// db.transact_write_with(&TransactWrite::new().put("a", Item::new())?, WriteOptions::sync())?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn transact_write_with(&self, transaction: &TransactWrite, options: WriteOptions) -> Result<()> {
        let max_item = self.engine().max_item_bytes();
        let decide =
            |values: &[Option<Slice>], changes: &mut Changes| transaction.decide(values, max_item, changes);
        self.engine().write_with(&transaction.keys, options, decide)
    }

    /// Gets several items as of one moment: no write, and no other transaction, comes between them. The same as
    /// [`Database::batch_get`], under the name that users of DynamoDB look for.
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// db.put("account#1", Item::new())?;
    /// assert_eq!(db.transact_get(["account#1", "account#2"])?, [Some(Item::new()), None]);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Database::batch_get`].
    pub fn transact_get<'k, K: Into<Key<'k>>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Item>>> {
        self.batch_get(keys)
    }
}
