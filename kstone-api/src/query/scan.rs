//! [`Scan`]: a read of all partitions.

use kstone_core::lsm::{After, Direction, Snapshot};
use kstone_core::{Error, PartitionRange, Result};

use super::items::Items;
use super::page::Page;
use super::partitions::Partitions;
use super::terms::{Source, Terms};
use super::token::{Origin, Reading, Token};
use crate::database::Database;
use crate::expression::{Filter, Projection};

/// A read of all items, in the order of keys; see [`Database::scan`].
#[derive(Clone, Debug)]
#[must_use = "a scan does nothing until it is run"]
pub struct Scan<'a> {
    source: Source<'a>,
    partitions: PartitionRange,
    terms: Terms,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(database: &'a Database, snapshot: Option<&'a Snapshot>) -> Self {
        let source = Source { database, snapshot };
        Self { source, partitions: PartitionRange::default(), terms: Terms::default() }
    }

    /// Only partition keys that start with these bytes.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for key in ["order#1", "user#1", "user#2"] { db.put(key, kstone_api::Item::new())?; }
    /// assert_eq!(db.scan().prefix("user#").run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.partitions.prefix = prefix.as_ref().to_vec();
        self
    }

    /// Only this partition key and those after it, as bytes.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for key in ["order#1", "user#1", "user#2"] { db.put(key, kstone_api::Item::new())?; }
    /// assert_eq!(db.scan().from("user#1").run()?.count(), 2);
    /// assert_eq!(db.scan().from("p").to("user#1").run()?.count(), 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn from(mut self, partition: impl AsRef<[u8]>) -> Self {
        self.partitions.from = Some(partition.as_ref().to_vec());
        self
    }

    /// Only this partition key and those before it, as bytes.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for key in ["order#1", "user#1", "user#2"] { db.put(key, kstone_api::Item::new())?; }
    /// assert_eq!(db.scan().to("user#1").run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn to(mut self, partition: impl AsRef<[u8]>) -> Self {
        self.partitions.to = Some(partition.as_ref().to_vec());
        self
    }

    /// In descending order of keys.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for key in ["order#1", "user#1", "user#2"] { db.put(key, kstone_api::Item::new())?; }
    /// let last = db.scan().reverse().run()?.keys().next().expect("there are three")?;
    /// assert_eq!(last.partition(), b"user#2");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn reverse(mut self) -> Self {
        self.terms.direction = Direction::Reverse;
        self
    }

    /// At most this many items. Default: all. [`Scan::examine`] bounds the items that are looked at.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for key in ["order#1", "user#1", "user#2"] { db.put(key, kstone_api::Item::new())?; }
    /// assert_eq!(db.scan().limit(2).run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn limit(mut self, limit: usize) -> Self {
        self.terms.limit = limit;
        self
    }

    /// Starts reading. The items are those of this moment; later writes do not appear.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for key in ["order#1", "user#1", "user#2"] { db.put(key, kstone_api::Item::new())?; }
    /// for entry in db.scan().run()? {
    ///     let (key, item) = entry?;
    ///     println!("{key:?} {item}");
    /// }
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn run(self) -> Result<Items> {
        let Source { database, snapshot } = self.source;
        let (engine, direction) = (database.engine(), self.terms.direction);
        let position = self.terms.start(|| Origin::of_scan(&self.partitions, direction))?;
        let after = position.as_ref().map(After::Key);
        let entries = engine.scan_between(&self.partitions, direction, after, snapshot)?;
        Ok(Items::of_read(entries, Reading::Scan(self.partitions, direction), self.terms))
    }

    /// The distinct partition keys instead of items, in the same order; see [`Database::partitions`]. A prefix, the
    /// direction and a limit, here of partitions, apply; after a token it continues with the partition next to the
    /// token's.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for key in [("order#1", "tea"), ("user#1", "mail"), ("user#1", "name"), ("user#2", "name")] {
    /// #     db.put(key, kstone_api::Item::new())?;
    /// # }
    /// let users = db.scan().prefix("user#").partitions()?.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(users, [b"user#1", b"user#2"]);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidToken`; `InvalidConfig` if the scan looks into items or counts them, with `filter`, `project` or `examine`,
    /// or has bounds, with `from` or `to`.
    pub fn partitions(self) -> Result<Partitions> {
        let Source { database, snapshot } = self.source;
        if let Some(field) = self.terms.needs_items() {
            return Err(Error::InvalidConfig {
                field,
                why: "partitions are listed without reading their items".into(),
            });
        }
        if self.partitions.from.is_some() || self.partitions.to.is_some() {
            let why = "partitions are listed by prefix only".into();
            return Err(Error::InvalidConfig { field: "from", why });
        }
        let direction = self.terms.direction;
        let position = self.terms.start(|| Origin::of_scan(&self.partitions, direction))?;
        let after = position.as_ref().map(|key| After::Partition(key.partition()));
        let partitions = database.engine().partitions(&self.partitions.prefix, direction, after, snapshot)?;
        Ok(Partitions::new(partitions, self.terms.limit))
    }

    /// Continues after the last item of an earlier read, to which the token belongs: a scan of the same prefix in
    /// the same direction. Limits, filters and projections may differ. A token is a position and not a
    /// snapshot: it stays valid when items are written or deleted, the item it was made at included, and when the database
    /// is reopened.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// let first = db.scan().limit(2).page()?;
    /// let token = first.next.expect("there is a third");
    /// let second = db.scan().limit(2).after(&token).page()?;
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
    /// saves decoding, but no reading; [`Scan::examine`] bounds how many are. It applies before the limit, and to every way
    /// of reading: items, views, rows, keys, pages and counts. Several filters must all hold.
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder, attr};
    /// # let db = Database::in_memory()?;
    /// for (icao, elevation) in [("KDEN", 5434), ("KJFK", 13), ("KLAX", 128)] {
    ///     db.put(("US", icao), ItemBuilder::new().number("elevation", elevation))?;
    /// }
    /// let low = db.scan().prefix("US").filter(attr("elevation").lt(1000)).run()?.keys().collect::<Result<Vec<_>, _>>()?;
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
    /// let (_, item) = db.scan().prefix("US").project(Projection::of(["city"])).run()?.next().expect("there is one")?;
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
    /// all. It bounds the time that a read with a filter takes. [`Scan::limit`] counts the items returned; the read ends at
    /// whichever comes first.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// let page = db.scan().examine(2).page()?;
    /// assert_eq!((page.examined, page.is_last()), (2, false));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn examine(mut self, items: usize) -> Self {
        self.terms.examine = items;
        self
    }

    /// Reads up to the limits, all at once, and says where to continue. Without a limit the page is the whole result, in
    /// memory: set [`Scan::limit`], [`Scan::examine`], or both.
    ///
    /// ```
    /// # use kstone_api::Database;
    /// # let db = Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// let (mut days, mut next) = (Vec::new(), None);
    /// loop {
    ///     let scan = db.scan().limit(2);
    ///     let page = if let Some(token) = &next { scan.after(token) } else { scan }.page()?;
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
    /// Those of [`Scan::run`] and of its iterator; `InvalidConfig` for a limit of 0, with which pages would never end.
    pub fn page(self) -> Result<Page> {
        self.terms.check_page()?;
        self.run()?.into_page()
    }

    /// The number of items, without decoding them. It reads keys only, unless there is a filter; limits apply.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.scan().prefix("lo").count()?, 3);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Scan::run`] and of its iterator.
    pub fn count(self) -> Result<u64> {
        self.run()?.into_count()
    }
}
