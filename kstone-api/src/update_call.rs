//! [`UpdateCall`]: a change of some attributes of one item.

use kstone_core::lsm::WriteOptions;
use kstone_core::{Key, Result};

use crate::change::{require, to_item};
use crate::database::Database;
use crate::expression::{Condition, Operand, Path, Update};
use crate::item::Item;
use crate::number::Number;
use crate::value::Value;

/// What [`UpdateCall::run`] returns of the item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Returning {
    /// Nothing.
    #[default]
    Nothing,
    /// The item as it was, if there was one.
    Old,
    /// The item as it is now.
    New,
    /// The attributes that the update names, as they were; an attribute that was absent is absent.
    UpdatedOld,
    /// The attributes that the update names, as they are now.
    UpdatedNew,
}

/// An update of one item, from [`Database::update`]. The methods of [`Update`] say what changes; all of them see the item
/// as it was before.
///
/// ```
/// use kstone_api::{Database, Item, Returning, attr};
///
/// let db = Database::in_memory()?;
/// db.put("account#1", Item::builder().number("balance", 100))?;
/// let paid = db
///     .update("account#1")
///     .add("balance", -30)
///     .set("last", "rent")
///     .when(attr("balance").ge(30))
///     .returning(Returning::UpdatedNew)
///     .run()?;
/// assert_eq!(paid, Some(Item::builder().number("balance", 70).string("last", "rent").build()));
/// # Ok::<(), kstone_api::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "an update does nothing until it is run"]
pub struct UpdateCall<'a, 'k> {
    database: &'a Database,
    key: Key<'k>,
    update: Update,
    condition: Option<Condition>,
    returning: Returning,
    options: WriteOptions,
}

impl<'a, 'k> UpdateCall<'a, 'k> {
    pub(crate) fn new(database: &'a Database, key: Key<'k>) -> Self {
        Self {
            database,
            key,
            update: Update::new(),
            condition: None,
            returning: Returning::default(),
            options: WriteOptions::default(),
        }
    }

    /// Sets an attribute, or a place within one, to a value or to what an operand gives.
    ///
    /// ```
    /// # use kstone_api::{Database, attr};
    /// # let db = Database::in_memory()?;
    /// db.update("user#42").set("name", "Ann").set("tries", attr("tries").or(0).plus(1)).run()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn set(mut self, path: impl Into<Path>, value: impl Into<Operand>) -> Self {
        self.update = self.update.set(path, value);
        self
    }

    /// Sets an attribute that does not exist yet.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let db = Database::in_memory()?;
    /// db.update("user#42").set_if_absent("since", "2026-02-01").run()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn set_if_absent(mut self, path: impl Into<Path>, value: impl Into<Operand>) -> Self {
        self.update = self.update.set_if_absent(path, value);
        self
    }

    /// Adds to a number; an absent one counts as 0. Exact to 38 digits, never rounded.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let db = Database::in_memory()?;
    /// db.update("user#42").add("score", 5).run()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn add(mut self, path: impl Into<Path>, number: impl Into<Number>) -> Self {
        self.update = self.update.add(path, number);
        self
    }

    /// Adds the members of a set to a set; an absent one counts as empty.
    ///
    /// ```
    /// # use std::collections::BTreeSet;
    /// # use kstone_api::Database;
    /// # let db = Database::in_memory()?;
    /// db.update("user#42").insert("tags", BTreeSet::from(["new".to_owned()])).run()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn insert(mut self, path: impl Into<Path>, set: impl Into<Value>) -> Self {
        self.update = self.update.insert(path, set);
        self
    }

    /// Removes the members of a set from a set; an emptied set is removed.
    ///
    /// ```
    /// # use std::collections::BTreeSet;
    /// # use kstone_api::Database;
    /// # let db = Database::in_memory()?;
    /// db.update("user#42").delete_from("tags", BTreeSet::from(["new".to_owned()])).run()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn delete_from(mut self, path: impl Into<Path>, set: impl Into<Value>) -> Self {
        self.update = self.update.delete_from(path, set);
        self
    }

    /// Appends the values of a list to a list; an absent one counts as empty.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let db = Database::in_memory()?;
    /// db.update("user#42").append("log", ["seen"]).run()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn append<V: Into<Value>>(
        mut self,
        path: impl Into<Path>,
        list: impl IntoIterator<Item = V>,
    ) -> Self {
        self.update = self.update.append(path, list);
        self
    }

    /// Puts the values of a list in front of those of a list; an absent one counts as empty.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let db = Database::in_memory()?;
    /// db.update("user#42").prepend("log", ["seen"]).run()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn prepend<V: Into<Value>>(
        mut self,
        path: impl Into<Path>,
        list: impl IntoIterator<Item = V>,
    ) -> Self {
        self.update = self.update.prepend(path, list);
        self
    }

    /// Removes an attribute, or a place within one; if it is absent, nothing happens.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let db = Database::in_memory()?;
    /// db.update("user#42").remove("draft").run()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn remove(mut self, path: impl Into<Path>) -> Self {
        self.update = self.update.remove(path);
        self
    }
    /// Adds the clauses of an update that was made or parsed elsewhere.
    ///
    /// ```
    /// # use kstone_api::{Database, Params, Update};
    /// # let db = Database::in_memory()?;
    /// let visit = Update::parse("ADD visits :n", &Params::new().value(":n", 1))?;
    /// db.update("page").apply(visit).run()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn apply(mut self, update: Update) -> Self {
        self.update = self.update.and(update);
        self
    }

    /// Only if the item, or its absence, meets this condition; of several, all of them.
    ///
    /// ```
    /// # use kstone_api::{Condition, Database, Error};
    /// # let db = Database::in_memory()?;
    /// let missing = db.update("user#42").set("name", "Ann").when(Condition::item_exists()).run();
    /// assert!(matches!(missing, Err(Error::ConditionFailed { old: None })));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn when(mut self, condition: Condition) -> Self {
        self.condition = Some(condition.added_to(self.condition));
        self
    }

    /// What [`UpdateCall::run`] returns. Default: [`Returning::Nothing`], which takes the least time.
    ///
    /// ```
    /// # use kstone_api::{Database, Returning, Value};
    /// # let db = Database::in_memory()?;
    /// let item = db.update("ticket").add("next", 1).returning(Returning::UpdatedNew).run()?.unwrap();
    /// assert_eq!(item.get("next").and_then(Value::as_i64), Some(1));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn returning(mut self, returning: Returning) -> Self {
        self.returning = returning;
        self
    }

    /// The durability of this write, if another than the handle's.
    ///
    /// ```
    /// # use kstone_api::{Database, WriteOptions};
    /// # let db = Database::in_memory()?;
    /// db.update("order#7").set("paid", true).options(WriteOptions::sync()).run()?;
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn options(mut self, options: WriteOptions) -> Self {
        self.options = options;
        self
    }

    /// Makes the change: condition and update see the same item, and no other write comes between them and the write of
    /// the new item. Returns what [`UpdateCall::returning`] asked for. Attributes that the update does not name are not
    /// decoded.
    ///
    /// # Errors
    /// Nothing has changed after any of these: [`ConditionFailed`](crate::Error::ConditionFailed);
    /// [`UpdateFailed`](crate::Error::UpdateFailed) if the update does not fit the item, as adding to a string;
    /// [`InvalidExpression`](crate::Error::InvalidExpression) if its paths overlap or it exceeds a limit; and [those of
    /// every write](Database#errors-of-every-write), `ItemTooLarge` for what the update makes of the item.
    pub fn run(self) -> Result<Option<Item>> {
        let Self { database, key, update, condition, returning, options } = self;
        let update = update.prepare()?;
        condition.as_ref().map_or(Ok(()), Condition::check)?;
        database.decide(&key, options, |old, changes| {
            if let Some(condition) = &condition {
                require(condition, old)?;
            }
            let applied = update.apply_stored(old.map(AsRef::as_ref))?;
            let returned = match returning {
                Returning::Nothing => None,
                Returning::Old => old.map(to_item).transpose()?,
                Returning::New => Some(Item::decode(&applied.item)?),
                Returning::UpdatedOld => Some(applied.attributes(old.map(AsRef::as_ref))?),
                Returning::UpdatedNew => Some(applied.attributes(Some(&applied.item))?),
            };
            changes.put(0, applied.item);
            Ok(returned)
        })
    }
}
