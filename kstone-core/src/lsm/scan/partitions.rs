//! The distinct partition keys, found by jumping from one partition to the next.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::Arc;

use super::Entries;
use crate::counters::Count;
use crate::error::{Error, Result};
use crate::key::after::After;
use crate::key::{KeyRange, partition_prefix_range};
use crate::lsm::read::Snapshot;
use crate::lsm::{Direction, LsmEngine};

/// Items of a partition that are read one by one before the rest is jumped over: a jump creates new cursors, which takes
/// about as long as reading them.
const NEAR: usize = 8;

/// Partition keys in order, as of one commit point. Ends after the first error.
pub struct Partitions {
    /// The next partition of each stripe that has one left.
    heads: BinaryHeap<Head>,
    /// Where the partition returned last came from, until the next call.
    last: Option<Head>,
    range: KeyRange,
}

/// A stripe, within its next partition.
struct Head {
    partition: Vec<u8>,
    stripe: usize,
    direction: Direction,
    entries: Entries,
}

impl Head {
    /// `None` for a stripe in which the walk finds nothing.
    fn first(stripe: usize, direction: Direction, mut entries: Entries) -> Result<Option<Self>> {
        if !entries.step()? {
            return Ok(None);
        }
        let partition = entries.entry().map(|(key, _)| key.partition().to_vec());
        Ok(partition.map(|partition| Self { partition, stripe, direction, entries }))
    }

    /// Moves on to the next partition of the stripe.
    fn next(mut self, range: &KeyRange) -> Result<Option<Self>> {
        for _ in 0..NEAR {
            if !self.entries.step()? {
                return Ok(None);
            }
            let Some((key, _)) = self.entries.entry() else { return Ok(None) };
            if key.partition() != self.partition {
                self.partition = key.partition().to_vec();
                return Ok(Some(self));
            }
        }
        let Self { partition, stripe, direction, entries } = self;
        let rest = range.clone().after(After::Partition(&partition), direction)?;
        let pin = Arc::clone(&entries.pin);
        // First, as the two need not keep their files at the same time.
        drop(entries);
        pin.shared().life.check_open()?;
        let entries = Entries::open(pin.shared(), stripe..stripe + 1, rest, direction, || Arc::clone(&pin))?;
        Self::first(stripe, direction, entries)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The greatest is the next one to return. No two stripes have the same partition.
impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.direction {
            Direction::Forward => other.partition.cmp(&self.partition),
            Direction::Reverse => self.partition.cmp(&other.partition),
        }
    }
}

impl Partitions {
    fn advance(&mut self) -> Result<Option<Vec<u8>>> {
        if let Some(last) = self.last.take() {
            self.heads.extend(last.next(&self.range)?);
        }
        self.last = self.heads.pop();
        Ok(self.last.as_ref().map(|head| head.partition.clone()))
    }
}

impl Iterator for Partitions {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.heads.clear();
        }
        next.transpose()
    }
}

impl std::iter::FusedIterator for Partitions {}

impl fmt::Debug for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partitions").field("stripes", &self.heads.len()).finish_non_exhaustive()
    }
}

impl LsmEngine {
    /// Returns the distinct partition keys that start with `prefix`, in order: of each partition only its first items are
    /// read, whatever its size. Starting it touches every stripe in use, as a [`LsmEngine::scan`] does, and each further
    /// partition touches one.
    ///
    /// # Errors
    /// `InvalidKey` or `KeyTooLarge` for a position that is no key; `Corruption` and `Io` where they occur.
    pub fn partitions(
        &self,
        prefix: &[u8],
        direction: Direction,
        after: Option<After<'_>>,
        snapshot: Option<&Snapshot>,
    ) -> Result<Partitions> {
        let taken = if snapshot.is_none() { Some(self.snapshot()?) } else { None };
        let Some(snapshot) = snapshot.or(taken.as_ref()) else {
            return Err(Error::internal("a snapshot is neither given nor taken"));
        };
        let shared = &*self.shared;
        shared.life.check_open()?;
        let mut range = partition_prefix_range(prefix);
        if let Some(after) = after {
            range = range.after(after, direction)?;
        }
        shared.observed.ops().local().add(Count::Scans, 1);
        let mut heads = BinaryHeap::new();
        for stripe in shared.stripes.used().map(|stripe| stripe.id) {
            let pin = || Arc::clone(snapshot.pin());
            let entries = Entries::open(shared, stripe..stripe + 1, range.clone(), direction, pin)?;
            heads.extend(Head::first(stripe, direction, entries)?);
        }
        Ok(Partitions { heads, last: None, range })
    }
}
