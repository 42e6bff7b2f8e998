//! Writes that depend on the item that they replace: [`Database::put_if`] and its like.

use kstone_core::lsm::{Changes, WriteOptions};
use kstone_core::slice::Slice;
use kstone_core::{CancelReason, Error, Key, Result};

use crate::damage;
use crate::database::Database;
use crate::expression::Condition;
use crate::item::Item;
use crate::update_call::UpdateCall;
use crate::view::ItemView;

impl Database {
    /// Stores an item under a key if the item that is there now, or its absence, meets the condition. The check and the
    /// write are one atomic step: no other write comes between them.
    ///
    /// ```
    /// use kstone_api::{Condition, Database, Error, ItemBuilder, attr};
    ///
    /// let db = Database::in_memory()?;
    /// let page = |version: u32| ItemBuilder::new().string("text", "...").number("version", version);
    /// db.put("page", page(1))?;
    /// // Two people edit version 1; the second to save learns of the first.
    /// db.put_if("page", page(2), attr("version").eq(1))?;
    /// let second = db.put_if("page", page(2), attr("version").eq(1));
    /// assert!(matches!(second, Err(Error::ConditionFailed { old: Some(_) })));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// For a durability of its own, write a [batch](crate::WriteBatch::require) of one.
    ///
    /// # Errors
    /// [`Error::ConditionFailed`], with the item that is there ([`ItemView::of_failed`]), and [those of every
    /// write](Database#errors-of-every-write).
    pub fn put_if<'k>(
        &self,
        key: impl Into<Key<'k>>,
        item: impl Into<Item>,
        condition: Condition,
    ) -> Result<()> {
        condition.check()?;
        let bytes = item.into().encode()?;
        self.decide(&key.into(), WriteOptions::default(), |old, changes| {
            require(&condition, old)?;
            changes.put(0, bytes.clone());
            Ok(())
        })
    }

    /// Stores an item under a key unless there is one already. Returns whether it was stored: of several callers, one.
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// assert!(db.put_if_absent("name#ann", ItemBuilder::new().string("user", "user#42"))?);
    /// assert!(!db.put_if_absent("name#ann", ItemBuilder::new().string("user", "user#43"))?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// [Those of every write](Database#errors-of-every-write).
    pub fn put_if_absent<'k>(&self, key: impl Into<Key<'k>>, item: impl Into<Item>) -> Result<bool> {
        let bytes = item.into().encode()?;
        self.decide(&key.into(), WriteOptions::default(), |old, changes| {
            if old.is_none() {
                changes.put(0, bytes.clone());
            }
            Ok(old.is_none())
        })
    }

    /// Deletes the item under a key if it meets the condition. If there is none, only a condition that holds for an
    /// absent item is met, and nothing is written.
    ///
    /// ```
    /// # use kstone_api::{Database, Error, ItemBuilder, attr};
    /// # let db = Database::in_memory()?;
    /// db.put("lock#7", ItemBuilder::new().string("owner", "worker 1"))?;
    /// let other = db.delete_if("lock#7", attr("owner").eq("worker 2"));
    /// assert!(matches!(other, Err(Error::ConditionFailed { .. })));
    /// db.delete_if("lock#7", attr("owner").eq("worker 1"))?;
    /// assert!(!db.contains("lock#7")?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Database::put_if`].
    pub fn delete_if<'k>(&self, key: impl Into<Key<'k>>, condition: Condition) -> Result<()> {
        condition.check()?;
        self.decide(&key.into(), WriteOptions::default(), |old, changes| {
            require(&condition, old)?;
            if old.is_some() {
                changes.delete(0);
            }
            Ok(())
        })
    }

    /// Stores an item under a key and returns the item that it replaced, if any.
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// let on = |mode: &str| ItemBuilder::new().string("mode", mode);
    /// assert_eq!(db.replace("lamp", on("dim"))?, None);
    /// assert_eq!(db.replace("lamp", on("bright"))?, Some(on("dim").build()));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// [Those of every write](Database#errors-of-every-write), and [`Error::Corruption`] if the replaced item cannot be
    /// read; nothing was written then.
    pub fn replace<'k>(&self, key: impl Into<Key<'k>>, item: impl Into<Item>) -> Result<Option<Item>> {
        let bytes = item.into().encode()?;
        self.decide(&key.into(), WriteOptions::default(), |old, changes| {
            changes.put(0, bytes.clone());
            old.map(to_item).transpose()
        })
    }

    /// Deletes the item under a key and returns it, if there was one: of several callers, one gets it.
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder};
    /// # let db = Database::in_memory()?;
    /// db.put("job#1", ItemBuilder::new().string("do", "resize"))?;
    /// assert!(db.take("job#1")?.is_some());
    /// assert!(db.take("job#1")?.is_none());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Database::replace`].
    pub fn take<'k>(&self, key: impl Into<Key<'k>>) -> Result<Option<Item>> {
        self.decide(&key.into(), WriteOptions::default(), |old, changes| {
            if old.is_some() {
                changes.delete(0);
            }
            old.map(to_item).transpose()
        })
    }

    /// Starts a change of some attributes of the item under a key; [`UpdateCall::run`] makes it. Without an item, it
    /// starts from an empty one.
    ///
    /// ```
    /// use kstone_api::{Database, Returning, Value};
    ///
    /// let db = Database::in_memory()?;
    /// for _visitor in 0..3 {
    ///     db.update("page").add("views", 1).run()?;
    /// }
    /// let page = db.update("page").set("title", "Start").returning(Returning::New).run()?.unwrap();
    /// assert_eq!(page.get("views").and_then(Value::as_i64), Some(3));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn update<'k>(&self, key: impl Into<Key<'k>>) -> UpdateCall<'_, 'k> {
        UpdateCall::new(self, key.into())
    }

    /// Writes to one key what `decide` makes of the stored item; see [`LsmEngine::write_with`](crate::LsmEngine::write_with).
    pub(crate) fn decide<T>(
        &self,
        key: &Key<'_>,
        options: WriteOptions,
        mut decide: impl FnMut(Option<&Slice>, &mut Changes) -> Result<T>,
    ) -> Result<T> {
        let decide = |values: &[Option<Slice>], changes: &mut Changes| {
            decide(values.first().and_then(Option::as_ref), changes)
        };
        let done = self.engine().write_with(std::slice::from_ref(key), options, decide);
        done.map_err(|error| damage::of_item(self, key, error))
    }
}

/// Why operations of a transaction are refused, gathered in their order.
#[derive(Debug, Default)]
pub(crate) struct Refused(Vec<Option<CancelReason>>);

impl Refused {
    /// Operation `n` is refused; those before it that were not named are not.
    pub(crate) fn refuse(&mut self, n: usize, reason: CancelReason) {
        self.0.resize(n, None);
        self.0.push(Some(reason));
    }

    /// Of this many operations; `TransactionCancelled` if any was refused.
    pub(crate) fn finish(mut self, operations: usize) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.resize(operations, None);
        Err(Error::TransactionCancelled { reasons: self.0 })
    }
}

/// Why an operation is refused whose condition does not hold; `None` if it holds.
pub(crate) fn unmet(condition: &Condition, old: Option<&Slice>) -> Result<Option<CancelReason>> {
    Ok((!holds(condition, old)?).then(|| CancelReason::Condition { old: old.map(|old| old.to_vec()) }))
}

/// `ConditionFailed` unless the condition holds for the stored item, or for its absence.
pub(crate) fn require(condition: &Condition, old: Option<&Slice>) -> Result<()> {
    if holds(condition, old)? {
        return Ok(());
    }
    Err(Error::ConditionFailed { old: old.map(|old| old.to_vec()) })
}

fn holds(condition: &Condition, old: Option<&Slice>) -> Result<bool> {
    let view = old.map(|old| ItemView::new(old.as_ref())).transpose()?;
    condition.holds(view.as_ref())
}

pub(crate) fn to_item(stored: &Slice) -> Result<Item> {
    ItemView::new(stored.as_ref())?.to_item()
}

impl ItemView<Vec<u8>> {
    /// The item that a condition did not hold for, from [`Error::ConditionFailed`]; `None` for other errors, and if there
    /// was no item.
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder, ItemView, ValueView, attr};
    /// # let db = Database::in_memory()?;
    /// db.put("page", ItemBuilder::new().number("version", 7))?;
    /// let error = db.delete_if("page", attr("version").eq(6)).unwrap_err();
    /// let there = ItemView::of_failed(&error).expect("the condition failed for an item");
    /// assert_eq!(there.get("version")?.and_then(ValueView::as_i64), Some(7));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn of_failed(error: &Error) -> Option<Self> {
        let Error::ConditionFailed { old: Some(old) } = error else { return None };
        // The condition was evaluated on these bytes.
        Self::new(old.clone()).ok()
    }
}
