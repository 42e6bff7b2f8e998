//! QUERY and SCAN: ordered walks over one partition, one stripe, or everything.
//!
//! A walk sees one commit point: it registers its sequence first and only then takes the versions, so nothing it
//! needs is dropped by a flush or a compaction meanwhile.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::read::{Pin, Snapshot};
use super::{LsmEngine, Shared};
use crate::counters::{Count, Operation};
use crate::error::{Error, Result};
use crate::key::{Key, KeyRange, SortRange, partition_hash, partition_prefix_range, stripe_of};
use crate::merge::{Cursor, MergeCursor, VisibleCursor};
use crate::slice::Slice;
use crate::sst::ahead_of_each;
use crate::types::Direction;

/// Keys and values in order, all of one commit point. Ends after the first error.
pub struct Entries {
    cursor: Option<VisibleCursor>,
    /// Keeps the versions it sees from being dropped.
    pin: Arc<Pin>,
    /// Items and bytes returned and not yet counted.
    uncounted: (u64, u64),
    /// Time spent in the engine so far, if this walk is one of those that are timed.
    took: Option<Duration>,
}

/// Items after which a walk counts what it returned.
const COUNT_AFTER: u64 = 256;

impl Entries {
    fn count(&mut self) {
        let (entries, bytes) = std::mem::take(&mut self.uncounted);
        if entries > 0 {
            let local = self.pin.shared().observed.ops.local();
            local.add(Count::EntriesRead, entries);
            local.add(Count::BytesRead, bytes);
        }
    }

    fn advance(&mut self) -> Option<Result<(Key<'static>, Slice)>> {
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
            Ok(Some((key, value))) => {
                self.uncounted.0 += 1;
                self.uncounted.1 += (key.len() + value.len()) as u64;
                if self.uncounted.0 >= COUNT_AFTER {
                    self.count();
                }
                Some(Ok((key, value)))
            }
            Ok(None) => {
                self.end();
                None
            }
            Err(error) => {
                self.end();
                Some(Err(self.pin.shared().closed_or(error)))
            }
        }
    }

    fn end(&mut self) {
        if !self.pin.shared().process.is_current() {
            return std::mem::forget(self.cursor.take());
        }
        self.cursor = None;
        self.count();
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        if !self.pin.shared().process.is_current() {
            return std::mem::forget(self.cursor.take());
        }
        self.count();
        if let Some(took) = self.took {
            self.pin.shared().observed.latencies.sample(Operation::Query, took);
        }
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("seq", &self.pin.seq()).finish_non_exhaustive()
    }
}

impl Iterator for Entries {
    type Item = Result<(Key<'static>, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(took) = self.took else { return self.advance() };
        let since = self.pin.shared().clock.monotonic();
        let next = self.advance();
        self.took = Some(took + self.pin.shared().since(since));
        next
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
        self.entries(Count::Queries, stripe..stripe + 1, range.to_key_range(partition), direction, snapshot)
    }

    /// The whole database in key order, or the part whose partition keys start with `prefix`. Partitions are
    /// spread over all stripes by hash, so this merges as many streams as there are stripes in use.
    pub fn scan(&self, prefix: &[u8], direction: Direction, snapshot: Option<&Snapshot>) -> Result<Entries> {
        self.entries(
            Count::Scans,
            0..self.shared.stripes.len(),
            partition_prefix_range(prefix),
            direction,
            snapshot,
        )
    }

    /// One stripe in key order. All stripes, one after the other or in parallel, are the database: the cheap way
    /// to read everything when order does not matter.
    pub fn scan_stripe(&self, stripe: usize, snapshot: Option<&Snapshot>) -> Result<Entries> {
        self.check_stripe(stripe)?;
        self.entries(Count::Scans, stripe..stripe + 1, KeyRange::all(), Direction::Forward, snapshot)
    }

    fn entries(
        &self,
        count: Count,
        stripes: std::ops::Range<usize>,
        range: KeyRange,
        direction: Direction,
        snapshot: Option<&Snapshot>,
    ) -> Result<Entries> {
        let shared = &*self.shared;
        shared.check_open()?;
        let running = shared.begin_operation(Operation::Query, &shared.settings.load());
        running.local.add(count, 1);
        let pin = snapshot.map_or_else(|| Pin::new(&self.shared), |snapshot| Arc::clone(snapshot.pin()));
        let cursor = self.shared.cursor(stripes, &range, direction, &pin);
        let cursor = cursor.map_err(|error| shared.closed_or(error))?;
        let took = running.since.map(|since| shared.since(since));
        Ok(Entries { cursor: Some(cursor), pin, uncounted: (0, 0), took })
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
        let used = stripes.filter_map(|id| self.stripe_if_used(id));
        // Full loads, not guards: the walk may take long.
        let versions: SmallVec<[_; 1]> = used.map(|stripe| Arc::clone(&stripe.version())).collect();
        let most_ahead = ahead_of_each(versions.iter().map(|version| version.runs.len()).sum());
        let mut sources: Vec<Box<dyn Cursor>> = Vec::new();
        for version in versions {
            sources.extend(version.cursors(range, pin.seq(), direction, most_ahead)?);
        }
        Ok(VisibleCursor::new(MergeCursor::new(sources, direction), pin.seq()))
    }
}
