//! Reads of a partition within a transaction.

use std::cmp::Ordering;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::ops::RangeBounds as _;

use kstone_core::lsm::Direction;
use kstone_core::{Key, KeyPart, Result, SortRange};

use super::Transaction;
use crate::expression::Condition;
use crate::item::Item;
use crate::query::{Query, successor};

/// A read of one partition within a transaction, from [`Transaction::query`]. The methods are those of
/// [`Query`](crate::Query).
#[derive(Debug)]
#[must_use = "a query does nothing until it is run"]
pub struct TransactionQuery<'t, 'a> {
    transaction: &'t Transaction<'a>,
    query: Query<'a>,
    filter: Option<Condition>,
}

impl<'t, 'a> TransactionQuery<'t, 'a> {
    pub(super) fn new<'k>(transaction: &'t Transaction<'a>, partition: impl KeyPart<'k>) -> Self {
        Self { transaction, query: transaction.snapshot.query(partition), filter: None }
    }

    /// Only sort keys that start with these bytes.
    pub fn sort_prefix<'k>(mut self, prefix: impl KeyPart<'k>) -> Self {
        self.query = self.query.sort_prefix(prefix);
        self
    }

    /// Only this sort key and those after it.
    pub fn sort_from<'k>(mut self, from: impl KeyPart<'k>) -> Self {
        self.query = self.query.sort_from(from);
        self
    }

    /// Only sort keys after this one.
    pub fn sort_after<'k>(mut self, after: impl KeyPart<'k>) -> Self {
        self.query = self.query.sort_after(after);
        self
    }

    /// Only this sort key and those before it.
    pub fn sort_to<'k>(mut self, to: impl KeyPart<'k>) -> Self {
        self.query = self.query.sort_to(to);
        self
    }

    /// Only sort keys before this one.
    pub fn sort_before<'k>(mut self, before: impl KeyPart<'k>) -> Self {
        self.query = self.query.sort_before(before);
        self
    }

    /// Only sort keys between these two, both included.
    pub fn sort_between<'k>(mut self, from: impl KeyPart<'k>, to: impl KeyPart<'k>) -> Self {
        self.query = self.query.sort_between(from, to);
        self
    }

    /// In descending order of sort keys.
    pub fn reverse(mut self) -> Self {
        self.query = self.query.reverse();
        self
    }

    /// At most this many items. What comes after them was not read, and does not count.
    pub fn limit(mut self, limit: usize) -> Self {
        self.query = self.query.limit(limit);
        self
    }

    /// Only items that meet this condition; of several, all of them. The others were read too, and count.
    pub fn filter(mut self, filter: Condition) -> Self {
        self.filter = Some(filter.added_to(self.filter));
        self
    }

    /// Reads the keys and items, in order; writes of the transaction show.
    ///
    /// # Errors
    /// `InvalidKey` for an empty partition key, `Corruption` and `Io`, and `InvalidExpression` for a filter that exceeds a
    /// limit.
    pub fn run(self) -> Result<Vec<(Key<'static>, Item)>> {
        let Self { transaction, query, filter } = self;
        filter.as_ref().map_or(Ok(()), Condition::check)?;
        let read = query.partition_read();
        let direction = read.direction;
        let before = |a: &Key<'_>, b: &Key<'_>| {
            let order = if direction == Direction::Forward { a.cmp(b) } else { b.cmp(a) };
            order == Ordering::Less
        };
        let mut own: Vec<(&Key<'static>, Option<&[u8]>)> = (transaction.writes.iter())
            .filter(|(key, _)| key.partition() == read.partition && includes(&read.range, key.sort()))
            .map(|(key, item)| (key, item.as_deref()))
            .collect();
        // The next one last.
        if direction == Direction::Forward {
            own.reverse();
        }
        let mut stored = query.limit(usize::MAX).run()?.peekable();
        let (mut items, mut last) = (Vec::new(), None);
        while items.len() < read.limit {
            let next_stored = match stored.peek() {
                Some(Ok((key, _))) => Some(key),
                // An error comes where it is taken, before any write behind it.
                Some(Err(_)) => {
                    own.clear();
                    None
                }
                None => None,
            };
            let own_first = match (own.last(), next_stored) {
                (Some((key, _)), Some(stored)) => !before(stored, key),
                (own, _) => own.is_some(),
            };
            let found = if own_first {
                let Some((key, bytes)) = own.pop() else { break };
                if next_stored == Some(key) {
                    stored.next(); // replaced, or deleted
                }
                last = Some(key.clone());
                let item = bytes.map(Item::decode).transpose()?;
                item.map(|item| (key.clone(), item))
            } else {
                let Some(entry) = stored.next() else {
                    last = None;
                    break;
                };
                let (key, item) = entry?;
                last = Some(key.clone());
                Some((key, item))
            };
            if let Some((key, item)) = found {
                let holds = match &filter {
                    Some(filter) => filter.matches_item(&item)?,
                    None => true,
                };
                if holds {
                    items.push((key, item));
                }
            }
        }
        if items.len() < read.limit {
            last = None;
        }
        transaction.read_part(&read.partition, read.range, direction, last.as_ref())?;
        Ok(items)
    }
}

impl Transaction<'_> {
    /// Notes that a range was read: all of it, or up to the last key.
    fn read_part(
        &self,
        partition: &[u8],
        range: SortRange,
        direction: Direction,
        last: Option<&Key<'_>>,
    ) -> Result<()> {
        let Some(sort) = last.and_then(|last| last.sort()).map(<[u8]>::to_vec) else {
            self.read_range(partition, range);
            return Ok(());
        };
        let (from, to) = match &range {
            SortRange::All => (Unbounded, Unbounded),
            SortRange::Prefix(prefix) => {
                (Included(prefix.clone()), successor(prefix).map_or(Unbounded, Excluded))
            }
            SortRange::Between(from, to) => (from.clone(), to.clone()),
        };
        if range == SortRange::All && direction == Direction::Forward {
            // The item without a sort key comes first.
            self.read(&Key::new(partition))?;
        }
        self.read_range(
            partition,
            match direction {
                Direction::Forward => SortRange::Between(from, Included(sort)),
                Direction::Reverse => SortRange::Between(Included(sort), to),
            },
        );
        Ok(())
    }
}

/// Whether a range includes a sort key, or the item without one.
fn includes(range: &SortRange, sort: Option<&[u8]>) -> bool {
    match (range, sort) {
        (SortRange::All, _) => true,
        (_, None) => false,
        (SortRange::Prefix(prefix), Some(sort)) => sort.starts_with(prefix),
        (SortRange::Between(from, to), Some(sort)) => (from.as_ref(), to.as_ref()).contains(&sort.to_vec()),
    }
}
