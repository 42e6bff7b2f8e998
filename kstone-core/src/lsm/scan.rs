//! QUERY and SCAN: ordered walks over one partition, one stripe, or everything.
//!
//! A walk sees one commit point: it registers its sequence first and only then takes the versions, so nothing it
//! needs is dropped by a flush or a compaction meanwhile.

use std::fmt;
use std::sync::Arc;

use super::read::{Pin, Snapshot};
use super::{LsmEngine, Shared};
use crate::error::{Error, Result};
use crate::key::{Key, KeyRange, SortRange, partition_hash, partition_prefix_range, stripe_of};
use crate::merge::{Cursor, MergeCursor, VisibleCursor};
use crate::slice::Slice;
use crate::types::Direction;

/// Keys and values in order, all of one commit point. Ends after the first error.
pub struct Entries {
    cursor: Option<VisibleCursor>,
    /// Keeps the versions it sees from being dropped.
    pin: Arc<Pin>,
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("seq", &self.pin.seq()).finish_non_exhaustive()
    }
}

impl Iterator for Entries {
    type Item = Result<(Key<'static>, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        let cursor = self.cursor.as_mut()?;
        let next = self.pin.shared().check_open().and_then(|()| cursor.next());
        let next = next.and_then(|entry| {
            let Some((key, value)) = entry else { return Ok(None) };
            let key = Key::decode(&key).ok_or_else(|| {
                Error::corrupt(&self.pin.shared().dir, 0, format!("\"{}\" is no key", key.escape_ascii()))
            })?;
            Ok(Some((key, value)))
        });
        match next {
            Ok(Some(entry)) => Some(Ok(entry)),
            Ok(None) => {
                self.cursor = None;
                None
            }
            Err(error) => {
                self.cursor = None;
                // A close takes away files that only an iterator still needed: that is no damage.
                Some(Err(self.pin.shared().check_open().err().unwrap_or(error)))
            }
        }
    }
}

impl LsmEngine {
    /// The items of one partition, in the order of their sort keys; all of them live in one stripe.
    ///
    /// # Errors
    /// `InvalidKey` for an empty partition key; the iterator yields `Corruption` and `Io` where they are met.
    pub fn query(
        &self,
        partition: &[u8],
        range: &SortRange,
        direction: Direction,
        snapshot: Option<&Snapshot>,
    ) -> Result<Entries> {
        if partition.is_empty() {
            return Err(Error::InvalidKey { why: "the partition key is empty".into() });
        }
        let stripe = stripe_of(partition_hash(partition), self.shared.stripes.len());
        self.entries(stripe..stripe + 1, range.to_key_range(partition), direction, snapshot)
    }

    /// The whole database in key order, or the part whose partition keys start with `prefix`. Partitions are
    /// spread over all stripes by hash, so this merges as many streams as there are stripes in use.
    pub fn scan(&self, prefix: &[u8], direction: Direction, snapshot: Option<&Snapshot>) -> Result<Entries> {
        self.entries(0..self.shared.stripes.len(), partition_prefix_range(prefix), direction, snapshot)
    }

    /// One stripe in key order. All stripes, one after the other or in parallel, are the database: the cheap way
    /// to read everything when order does not matter.
    pub fn scan_stripe(&self, stripe: usize, snapshot: Option<&Snapshot>) -> Result<Entries> {
        self.check_stripe(stripe)?;
        self.entries(stripe..stripe + 1, KeyRange::all(), Direction::Forward, snapshot)
    }

    fn entries(
        &self,
        stripes: std::ops::Range<usize>,
        range: KeyRange,
        direction: Direction,
        snapshot: Option<&Snapshot>,
    ) -> Result<Entries> {
        self.shared.check_open()?;
        let pin = snapshot.map_or_else(|| Pin::new(&self.shared), |snapshot| Arc::clone(snapshot.pin()));
        let cursor = self.shared.cursor(stripes, &range, direction, &pin)?;
        Ok(Entries { cursor: Some(cursor), pin })
    }
}

impl Shared {
    fn cursor(
        &self,
        stripes: std::ops::Range<usize>,
        range: &KeyRange,
        direction: Direction,
        pin: &Pin,
    ) -> Result<VisibleCursor> {
        let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
        for stripe in stripes.filter_map(|id| self.stripe_if_used(id)) {
            // A full load, not a guard: the walk may take long.
            let version = Arc::clone(&stripe.version());
            sources.extend(version.cursors(range, pin.seq(), direction)?);
        }
        Ok(VisibleCursor::new(MergeCursor::new(sources, direction), pin.seq()))
    }
}
