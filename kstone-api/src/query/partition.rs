//! [`Query`]: a read of one partition.

use std::ops::Bound::{self, Excluded, Included, Unbounded};

use kstone_core::lsm::{After, Direction, Snapshot};
use kstone_core::{KeyPart, Result, SortRange};

use super::items::Items;
use super::page::Page;
use super::range::{higher, lower, sort_range, successor};
use super::terms::{Source, Terms};
use super::token::{Origin, Reading, Token};
use crate::database::Database;
use crate::expression::{Filter, Projection};

/// A read of one partition, in the order of sort keys; see [`Database::query`]. It touches one stripe.
///
/// Bounds intersect, so `sort_prefix` can be combined with `sort_after` to read page by page.
///
/// ```
/// # fn main() -> kstone_api::Result<()> {
/// use kstone_api::{Database, ItemBuilder};
///
/// let db = Database::in_memory()?;
/// for icao in ["KJFK", "KJFC", "KLAX"] {
///     db.put(("US", icao), ItemBuilder::new().string("icao", icao))?;
/// }
/// let mut found = Vec::new();
/// for entry in db.query("US").sort_prefix("KJ").reverse().run()? {
///     let (key, _item) = entry?;
///     found.push(String::from_utf8_lossy(key.sort().unwrap_or_default()).into_owned());
/// }
/// assert_eq!(found, ["KJFK", "KJFC"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a query does nothing until it is run"]
pub struct Query<'a> {
    source: Source<'a>,
    partition: Vec<u8>,
    prefix: Option<Vec<u8>>,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    terms: Terms,
}

/// What a query reads, for a transaction that notes it.
pub(crate) struct PartitionRead {
    pub(crate) partition: Vec<u8>,
    pub(crate) range: SortRange,
    pub(crate) direction: Direction,
    pub(crate) limit: usize,
}

impl<'a> Query<'a> {
    pub(crate) fn new(database: &'a Database, snapshot: Option<&'a Snapshot>, partition: &[u8]) -> Self {
        Self {
            source: Source { database, snapshot },
            partition: partition.to_vec(),
            prefix: None,
            from: Unbounded,
            to: Unbounded,
            terms: Terms::default(),
        }
    }

    /// Only sort keys that start with these bytes.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").sort_prefix("2026-02").run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn sort_prefix<'k>(mut self, prefix: impl KeyPart<'k>) -> Self {
        if let Some(before) = self.prefix.replace(prefix.into_bytes().into_owned()) {
            let end = successor(&before).map_or(Unbounded, Excluded);
            (self.from, self.to) = (higher(self.from, Included(before)), lower(self.to, end));
        }
        self
    }

    /// Only this sort key and those after it.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").sort_from("2026-02-01").run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn sort_from<'k>(mut self, from: impl KeyPart<'k>) -> Self {
        self.from = higher(self.from, Included(from.into_bytes().into_owned()));
        self
    }

    /// Only sort keys after this one. To continue where an earlier read ended, see [`Query::after`].
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").sort_after("2026-02-01").limit(100).run()?.count(), 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn sort_after<'k>(mut self, after: impl KeyPart<'k>) -> Self {
        self.from = higher(self.from, Excluded(after.into_bytes().into_owned()));
        self
    }

    /// Only this sort key and those before it.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").sort_to("2026-02-01").run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn sort_to<'k>(mut self, to: impl KeyPart<'k>) -> Self {
        self.to = lower(self.to, Included(to.into_bytes().into_owned()));
        self
    }

    /// Only sort keys before this one.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").sort_before("2026-02-01").run()?.count(), 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn sort_before<'k>(mut self, before: impl KeyPart<'k>) -> Self {
        self.to = lower(self.to, Excluded(before.into_bytes().into_owned()));
        self
    }

    /// Only sort keys between these two, both included, like DynamoDB's `BETWEEN`.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").sort_between("2026-01-31", "2026-02-01").run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn sort_between<'k>(self, from: impl KeyPart<'k>, to: impl KeyPart<'k>) -> Self {
        self.sort_from(from).sort_to(to)
    }

    /// In descending order of sort keys: newest first, if sort keys are times.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// let newest = db.query("log").reverse().limit(1).run()?.keys().next().expect("there are three")?;
    /// assert_eq!(newest.sort(), Some(&b"2026-02-28"[..]));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn reverse(mut self) -> Self {
        self.terms.direction = Direction::Reverse;
        self
    }

    /// At most this many items. Default: all. [`Query::examine`] bounds the items that are looked at.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").limit(2).run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn limit(mut self, limit: usize) -> Self {
        self.terms.limit = limit;
        self
    }

    pub(crate) fn partition_read(&self) -> PartitionRead {
        PartitionRead {
            partition: self.partition.clone(),
            range: sort_range(self.prefix.clone(), self.from.clone(), self.to.clone()),
            direction: self.terms.direction,
            limit: self.terms.limit,
        }
    }

    /// Starts reading. The items are those of this moment; later writes do not appear.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// for entry in db.query("log").run()? {
    ///     let (key, item) = entry?;
    ///     println!("{key:?} {item}");
    /// }
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidKey` for an empty partition key, `InvalidToken` for a token of another query, `InvalidExpression`
    /// for a filter or a projection that was refused. The iterator ends after yielding an error, `Corruption` or `Io`.
    pub fn run(self) -> Result<Items> {
        let range = sort_range(self.prefix, self.from, self.to);
        let Source { database, snapshot } = self.source;
        let (engine, direction) = (database.engine(), self.terms.direction);
        let entries = match self.terms.start(|| Origin::of_query(&self.partition, &range, direction))? {
            None => engine.query(&self.partition, &range, direction, snapshot),
            Some(key) => engine.query_after(&self.partition, &range, direction, After::Key(&key), snapshot),
        };
        Ok(Items::of_read(entries?, Reading::Query(self.partition, range, direction), self.terms))
    }

    /// Continues after the last item of an earlier read, to which the token belongs: a read of the same partition, the same
    /// bounds and the same direction. Limits, filters and projections may differ. A token is a position and not a
    /// snapshot: it stays valid when items are written or deleted, the item it was made at included, and when the database
    /// is reopened.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// let first = db.query("log").limit(2).page()?;
    /// let token = first.next.expect("there is a third");
    /// let second = db.query("log").limit(2).after(&token).page()?;
    /// assert_eq!((second.items.len(), second.next), (1, None));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// The call that starts reading fails with [`Error::InvalidToken`](crate::Error::InvalidToken) if the token belongs to
    /// another query.
    pub fn after(mut self, token: &Token) -> Self {
        self.terms.after = Some(token.clone());
        self
    }

    /// Only items for which the condition holds: those for which it does not are read and passed over, so that a filter
    /// saves decoding, but no reading; [`Query::examine`] bounds how many are. It applies before the limit, and to every way
    /// of reading: items, views, rows, keys, pages and counts. Several filters must all hold.
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder, attr};
    /// # let db = Database::in_memory()?;
    /// for (icao, elevation) in [("KDEN", 5434), ("KJFK", 13), ("KLAX", 128)] {
    ///     db.put(("US", icao), ItemBuilder::new().number("elevation", elevation))?;
    /// }
    /// let low = db.query("US").filter(attr("elevation").lt(1000)).run()?.keys().collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(low, [("US", "KJFK").into(), ("US", "KLAX").into()]);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// The call that starts reading fails with [`Error::InvalidExpression`](crate::Error::InvalidExpression) if the condition
    /// was refused.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.terms.filter(filter);
        self
    }

    /// Only these attributes of each item; the others are not decoded. An item that has none of them is returned empty. It
    /// applies to [`Items`] and [`Page`]s, not to views, which decode only what they are asked for. Replaces an earlier
    /// projection.
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder, Projection};
    /// # let db = Database::in_memory()?;
    /// db.put(("US", "KJFK"), ItemBuilder::new().string("city", "New York").number("elevation", 13))?;
    /// let (_, item) = db.query("US").project(Projection::of(["city"])).run()?.next().expect("there is one")?;
    /// assert_eq!(item, ItemBuilder::new().string("city", "New York").build());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// The call that starts reading fails with [`Error::InvalidExpression`](crate::Error::InvalidExpression) if the
    /// projection was refused.
    pub fn project(mut self, projection: Projection) -> Self {
        self.terms.projection = Some(projection);
        self
    }

    /// Looks at no more than this many items, whether or not they pass the filter: what DynamoDB calls `Limit`. Default:
    /// all. It bounds the time that a read with a filter takes. [`Query::limit`] counts the items returned; the read ends at
    /// whichever comes first.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// let page = db.query("log").examine(2).page()?;
    /// assert_eq!((page.examined, page.is_last()), (2, false));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn examine(mut self, items: usize) -> Self {
        self.terms.examine = items;
        self
    }

    /// Reads up to the limits, all at once, and says where to continue. Without a limit the page is the whole result, in
    /// memory: set [`Query::limit`], [`Query::examine`], or both.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let db = Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// let (mut days, mut next) = (Vec::new(), None);
    /// loop {
    ///     let query = db.query("log").limit(2);
    ///     let page = if let Some(token) = &next { query.after(token) } else { query }.page()?;
    ///     days.extend(page.items.into_iter().map(|(key, _item)| key));
    ///     next = page.next;
    ///     if next.is_none() {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(days.len(), 3);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Query::run`] and of its iterator; `InvalidConfig` for a limit of 0, with which pages would never end.
    pub fn page(self) -> Result<Page> {
        self.terms.check_page()?;
        self.run()?.into_page()
    }

    /// The number of items, without decoding them. It reads keys only, unless there is a filter; limits apply.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").sort_prefix("2026-02").count()?, 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Query::run`] and of its iterator.
    pub fn count(self) -> Result<u64> {
        self.run()?.into_count()
    }
}
