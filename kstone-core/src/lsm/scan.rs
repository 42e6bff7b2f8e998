//! QUERY and SCAN: ordered walks over one partition, one stripe, or everything.
//!
//! A walk sees one commit point: it registers its sequence first and only then takes the versions, so that no flush or
//! compaction drops anything it needs meanwhile.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::LsmEngine;
use super::options::Workers;
use super::read::{Pin, Snapshot};
use super::state::Shared;
use crate::compaction::picker::PASSED_PER_MERGED;
use crate::counters::{Count, Operation};
use crate::error::{Error, Result};
use crate::escape;
use crate::gaps::above;
use crate::key::after::After;
use crate::key::{
    Key, KeyRange, PartitionRange, SortRange, partition_hash, partition_prefix_range, plain_partition,
    stripe_of,
};
use crate::merge::{MergeCursor, VisibleCursor};
use crate::planted::{Race, raced};
use crate::slice::Slice;
use crate::sst::ahead_of_each;
use crate::stripe::Stripe;
use crate::sync::atomic::Ordering;
use crate::types::{Direction, SeqNo};
use crate::version::{SourceCursor, Version};

mod explore;
mod partitions;

pub use partitions::Partitions;

/// The visible entries of one or more stripes. Keys of a partition are all in one stripe, so stripes are merged apart
/// from the sources of each: the winner among them stays the same for the whole partition.
type Visible = VisibleCursor<MergeCursor<MergeCursor<SourceCursor>>>;

fn visible(stripes: Vec<Vec<SourceCursor>>, direction: Direction, seq: SeqNo) -> Visible {
    let stripes = stripes.into_iter().map(|sources| MergeCursor::new(sources, direction)).collect();
    VisibleCursor::new(MergeCursor::new(stripes, direction), direction, seq)
}

/// Keys and values in order, all as of one commit point. Ends after the first error.
///
/// As an iterator it returns keys of their own and values that keep their memory alive; [`Entries::next_entry`] lends
/// both, which takes less time.
pub struct Entries {
    cursor: Option<Visible>,
    /// The [`plain_partition`] of the current key: found once, and used for each time that the key is asked for.
    partition: Option<usize>,
    /// Keeps the versions that it sees from being dropped.
    pin: Arc<Pin>,
    /// The state of the walk, if it covers a single stripe.
    walk: Option<StripeWalk>,
    uncounted: Uncounted,
    /// Time spent in the engine so far, if this walk is timed.
    took: Option<Duration>,
}

/// The number of items after which a walk updates the counters.
const COUNT_AFTER: u64 = 256;
/// Entries passed over without finding an item that make a gap worth recording: creating new cursors behind it costs as
/// much as half of them.
const GAP: u64 = 64;
/// The same for tests, whose databases are small.
const GAP_MANUAL: u64 = 3;

/// Work done that has not been counted yet.
#[derive(Clone, Copy, Debug, Default)]
struct Uncounted {
    /// Items returned, and their size in bytes.
    entries: u64,
    bytes: u64,
    /// Entries passed over.
    passed: u64,
}

/// A walk over one stripe, which skips known gaps and reports new ones.
struct StripeWalk {
    stripe: usize,
    direction: Direction,
    /// The parts behind the gaps, still to be walked; the next one last.
    parts: Vec<KeyRange>,
    version: Option<Arc<Version>>,
    /// The watch, and the range since the last item, in which none was found.
    learning: Option<(u64, KeyRange)>,
}

impl StripeWalk {
    /// Must be called before the reader takes its sequence. Also returns the lowest sequence with which a reader may
    /// report gaps.
    fn begin(
        shared: &Shared,
        stripe: usize,
        range: &KeyRange,
        direction: Direction,
    ) -> Option<(Self, SeqNo)> {
        let used = shared.stripes.if_used(stripe)?;
        if used.gaps.wanted() && !shared.life.is_read_only() {
            return Some(Self::watch(used, range, direction));
        }
        Some((Self { stripe, direction, parts: Vec::new(), version: None, learning: None }, 0))
    }

    fn watch(stripe: &Stripe, range: &KeyRange, direction: Direction) -> (Self, SeqNo) {
        let (watch, written) = stripe.lock().watch(range.clone());
        let learning = Some((watch, range.clone()));
        (Self { stripe: stripe.id, direction, parts: Vec::new(), version: None, learning }, written)
    }

    fn is_learning(&self) -> bool {
        self.learning.is_some()
    }

    /// Starts a part.
    fn enter(&mut self, part: &KeyRange) {
        if let Some((_, open)) = &mut self.learning {
            open.clone_from(part);
        }
    }

    /// Reports that an item (`None`: the end of the part) was reached after `gone` entries of deleted keys.
    fn came_to(&mut self, key: Option<&[u8]>, gone: u64, shared: &Shared, seq: SeqNo) {
        let worth = gone >= if shared.workers == Workers::Manual { GAP_MANUAL } else { GAP };
        if !worth && self.learning.is_none() {
            return;
        }
        // A stripe that was never used has no gaps to record.
        let Some(stripe) = shared.stripes.if_used(self.stripe) else { return };
        let Some((watch, open)) = &mut self.learning else { return stripe.gaps.want() };
        let mut gap = open.clone();
        match (self.direction, key) {
            (_, None) => {}
            (Direction::Forward, Some(key)) => (gap.end, open.start) = (Some(key.to_vec()), above(key)),
            (Direction::Reverse, Some(key)) => (gap.start, open.end) = (above(key), Some(key.to_vec())),
        }
        if worth {
            stripe.gaps.learn(*watch, gap, seq);
        }
    }

    /// Ends the watch after enough items were found: the rest is not known to be worth one.
    fn end_watch(&mut self, shared: &Shared) {
        if let Some((watch, _)) = self.learning.take()
            && let Some(stripe) = shared.stripes.if_used(self.stripe)
        {
            stripe.gaps.unwatch(watch);
        }
    }
}

impl Entries {
    /// The directory of the database that this reads.
    pub fn path(&self) -> &Path {
        self.pin.shared().io.dir()
    }

    fn count(&mut self) {
        let Uncounted { entries, bytes, passed } = std::mem::take(&mut self.uncounted);
        let shared = self.pin.shared();
        if entries > 0 {
            let local = shared.observed.ops().local();
            local.add(Count::EntriesRead, entries);
            local.add(Count::BytesRead, bytes);
        }
        if passed > 0 {
            shared.observed.ops().local().add(Count::EntriesPassed, passed);
            if let Some(walk) = &self.walk {
                shared.passed_over(walk.stripe, passed);
            }
        }
    }

    /// The next key and value, lent until the next call; `None` at the end.
    ///
    /// # Errors
    /// `Corruption` and `Io` where they occur; after an error there are no more entries.
    #[inline(always)]
    pub fn next_entry(&mut self) -> Result<Option<(Key<'_>, &[u8])>> {
        Ok(if self.step()? { self.entry() } else { None })
    }

    /// Moves to the next entry, or to the first; false at the end. Errors as [`Entries::next_entry`].
    #[inline]
    pub fn step(&mut self) -> Result<bool> {
        let found = if self.took.is_none() { self.advance() } else { self.timed_advance() }?;
        if found {
            self.found()?;
        }
        Ok(found)
    }

    /// The key and value that the last step came to.
    // Always, as the compiler would not do it in each loop over rows, which then passes keys through memory.
    #[inline(always)]
    pub fn entry(&self) -> Option<(Key<'_>, &[u8])> {
        let cursor = self.cursor.as_ref()?;
        let (key, _) = cursor.key()?;
        let key = match self.partition {
            Some(len) => Key::decode_plain(key, len),
            None => Key::decode_any(key),
        };
        Some((key?, cursor.lent_value()))
    }

    #[cold]
    fn timed_advance(&mut self) -> Result<bool> {
        let since = self.pin.shared().clock.monotonic();
        let advanced = self.advance();
        let step = self.pin.shared().since(since);
        self.took = self.took.map(|took| took + step);
        advanced
    }

    #[inline]
    fn advance(&mut self) -> Result<bool> {
        loop {
            let Some(cursor) = &mut self.cursor else { return Ok(false) };
            let shared = self.pin.shared();
            let next = shared.life.check_open().and_then(|()| cursor.step());
            if cursor.has_passed() || self.walk.as_ref().is_some_and(StripeWalk::is_learning) {
                self.note_passed(&next);
            }
            match next {
                Ok(true) => return Ok(true),
                Ok(false) => match self.next_part() {
                    Ok(true) => {}
                    Ok(false) => {
                        self.end();
                        return Ok(false);
                    }
                    Err(error) => return Err(self.fail(error)),
                },
                Err(error) => return Err(self.fail(error)),
            }
        }
    }

    /// The stored form of that key ([`Key::decode`]); `None` before the first step, and after the last.
    pub fn encoded_key(&self) -> Option<&[u8]> {
        self.cursor.as_ref()?.key().map(|(key, _)| key)
    }

    /// That value, which keeps its memory alive; empty if there is none.
    pub fn value(&self) -> Slice {
        self.cursor.as_ref().map_or_else(Slice::default, VisibleCursor::value)
    }

    /// Checks and counts the entry that a step came to.
    #[inline]
    fn found(&mut self) -> Result<()> {
        let Some((key, value)) = self.cursor.as_ref().and_then(VisibleCursor::key) else {
            return Err(self.not_a_key());
        };
        self.partition = plain_partition(key);
        let len = match self.partition {
            // All but the two bytes in between.
            Some(_) => key.len().saturating_sub(2),
            None => match Key::decode_any(key) {
                Some(key) => key.len(),
                None => return Err(self.not_a_key()),
            },
        };
        let bytes = len + value;
        self.uncounted.entries += 1;
        self.uncounted.bytes += bytes as u64;
        if self.uncounted.entries >= COUNT_AFTER {
            self.count_midway();
        }
        Ok(())
    }

    #[cold]
    fn not_a_key(&mut self) -> Error {
        let key = self.cursor.as_ref().and_then(VisibleCursor::key).map_or([].as_slice(), |(key, _)| key);
        let detail = format!("\"{}\" is not a valid key", escape::key(key));
        let error = Error::corrupt(self.pin.shared().io.dir(), 0, detail);
        self.fail(error)
    }

    /// Records entries that were passed over, or looks for gaps. Most steps of most walks have neither to do.
    #[cold]
    #[inline(never)]
    fn note_passed(&mut self, next: &Result<bool>) {
        // Without a cursor nothing is read, and nothing was passed over.
        let Some(cursor) = &mut self.cursor else { return };
        let passed = cursor.passed();
        self.uncounted.passed += passed.gone + passed.older;
        if let (Ok(found), Some(walk)) = (next, &mut self.walk) {
            let key = cursor.key().filter(|_| *found).map(|(key, _)| key);
            walk.came_to(key, passed.gone, self.pin.shared(), self.pin.seq());
        }
    }

    #[cold]
    fn count_midway(&mut self) {
        if let Some(walk) = &mut self.walk {
            walk.end_watch(self.pin.shared());
        }
        self.count();
    }

    /// Continues behind a gap; false at the end of the walk.
    fn next_part(&mut self) -> Result<bool> {
        // Without a walk, or after its last part, the reader is at its end.
        let Some(walk) = &mut self.walk else { return Ok(false) };
        let Some(part) = walk.parts.pop() else { return Ok(false) };
        walk.enter(&part);
        let Some(version) = &walk.version else {
            return Err(Error::internal("a walk has parts before it has a version"));
        };
        let most_ahead = ahead_of_each(version.runs.len());
        let sources = version.cursors(&Arc::new(part), self.pin.seq(), walk.direction, most_ahead)?;
        self.cursor = Some(visible(vec![sources], walk.direction, self.pin.seq()));
        Ok(true)
    }

    fn fail(&mut self, error: Error) -> Error {
        self.end();
        self.pin.shared().life.closed_or(error)
    }

    fn end(&mut self) {
        if self.pin.shared().life.is_forked() {
            return std::mem::forget((self.cursor.take(), self.walk.take()));
        }
        if self.cursor.take().is_some() {
            self.pin.shared().reader_let_go(false);
        }
        self.count();
        if let Some(mut walk) = self.walk.take() {
            walk.end_watch(self.pin.shared());
        }
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        self.end();
        if self.pin.shared().life.is_forked() {
            return;
        }
        if let Some(took) = self.took {
            self.pin.shared().observed.latencies().sample(Operation::Query, took);
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
        match self.step() {
            Ok(true) => {
                let key = self.entry().map(|(key, _)| key.into_owned());
                Some(Ok((key?, self.value())))
            }
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl LsmEngine {
    /// Returns the items of one partition, in the order of their sort keys; all of them are in one stripe.
    ///
    /// # Errors
    /// `InvalidKey` for an empty partition key; the iterator yields `Corruption` and `Io` where they occur.
    pub fn query(
        &self,
        partition: &[u8],
        range: &SortRange,
        direction: Direction,
        snapshot: Option<&Snapshot>,
    ) -> Result<Entries> {
        let stripe = self.stripe_of_partition(partition)?;
        self.entries(Count::Queries, stripe..stripe + 1, range.to_key_range(partition), direction, snapshot)
    }

    /// Like [`LsmEngine::query`], from behind a position on: what precedes it is not read. A position outside the range
    /// leaves all of it or nothing.
    ///
    /// # Errors
    /// As [`LsmEngine::query`], and `InvalidKey` or `KeyTooLarge` for a position that is no key.
    pub fn query_after(
        &self,
        partition: &[u8],
        range: &SortRange,
        direction: Direction,
        after: After<'_>,
        snapshot: Option<&Snapshot>,
    ) -> Result<Entries> {
        let stripe = self.stripe_of_partition(partition)?;
        let range = range.to_key_range(partition).after(after, direction)?;
        self.entries(Count::Queries, stripe..stripe + 1, range, direction, snapshot)
    }

    /// Returns the whole database in key order, or the part whose partition keys start with `prefix`. Partitions are
    /// spread over all stripes by hash, so this merges as many streams as there are stripes in use.
    pub fn scan(&self, prefix: &[u8], direction: Direction, snapshot: Option<&Snapshot>) -> Result<Entries> {
        self.entries(Count::Scans, self.all_stripes(), partition_prefix_range(prefix), direction, snapshot)
    }

    /// Like [`LsmEngine::scan`], from behind a position on: what precedes it is not read.
    ///
    /// # Errors
    /// `InvalidKey` or `KeyTooLarge` for a position that is no key.
    pub fn scan_after(
        &self,
        prefix: &[u8],
        direction: Direction,
        after: After<'_>,
        snapshot: Option<&Snapshot>,
    ) -> Result<Entries> {
        let range = partition_prefix_range(prefix).after(after, direction)?;
        self.entries(Count::Scans, self.all_stripes(), range, direction, snapshot)
    }

    /// Like [`LsmEngine::scan`], of these partitions, and from behind a position on, if there is one.
    ///
    /// # Errors
    /// As [`LsmEngine::scan_after`].
    pub fn scan_between(
        &self,
        partitions: &PartitionRange,
        direction: Direction,
        after: Option<After<'_>>,
        snapshot: Option<&Snapshot>,
    ) -> Result<Entries> {
        let range = partitions.to_key_range();
        let range = match after {
            None => range,
            Some(after) => range.after(after, direction)?,
        };
        self.entries(Count::Scans, self.all_stripes(), range, direction, snapshot)
    }

    /// Returns one stripe in key order. All stripes together are the whole database: scanning them one by one or in
    /// parallel is the cheap way to read everything when order does not matter.
    pub fn scan_stripe(&self, stripe: usize, snapshot: Option<&Snapshot>) -> Result<Entries> {
        self.check_stripe(stripe)?;
        self.entries(Count::Scans, stripe..stripe + 1, KeyRange::all(), Direction::Forward, snapshot)
    }

    fn all_stripes(&self) -> std::ops::Range<usize> {
        0..self.shared.stripes.count()
    }

    fn stripe_of_partition(&self, partition: &[u8]) -> Result<usize> {
        if partition.is_empty() {
            return Err(Error::InvalidKey { why: "the partition key is empty".into() });
        }
        Ok(stripe_of(partition_hash(partition), self.shared.stripes.count()))
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
        shared.life.check_open()?;
        let running = shared.observed.begin_operation(Operation::Query, &shared.settings.load());
        running.local.add(count, 1);
        let early = raced(Race::WatchAfterSequence).then(|| Pin::new(&self.shared));
        let pin = || {
            let pin = snapshot.map(|snapshot| Arc::clone(snapshot.pin())).or(early);
            pin.unwrap_or_else(|| Pin::new(&self.shared))
        };
        let mut entries = Entries::open(shared, stripes, range, direction, pin)?;
        entries.took = running.since.map(|since| shared.since(since));
        Ok(entries)
    }
}

impl Entries {
    /// Starts a walk. `pin` gives its sequence, and must not take it earlier.
    fn open(
        shared: &Shared,
        stripes: std::ops::Range<usize>,
        range: KeyRange,
        direction: Direction,
        pin: impl FnOnce() -> Arc<Pin>,
    ) -> Result<Self> {
        let single = Some(stripes.start).filter(|_| stripes.len() == 1);
        let walk = single.and_then(|stripe| StripeWalk::begin(shared, stripe, &range, direction));
        let (walk, written) = walk.unzip();
        let pin = pin();
        let mut entries =
            Self { cursor: None, partition: None, pin, walk, uncounted: Uncounted::default(), took: None };
        if written.is_some_and(|written| entries.pin.seq() < written) && !raced(Race::WatchAfterSequence) {
            entries.walk.iter_mut().for_each(|walk| walk.end_watch(shared));
        }
        entries.begin(stripes, range, direction).map_err(|error| shared.life.closed_or(error))?;
        Ok(entries)
    }

    fn begin(
        &mut self,
        stripes: std::ops::Range<usize>,
        range: KeyRange,
        direction: Direction,
    ) -> Result<()> {
        let shared = self.pin.shared();
        if let Some(walk) = &mut self.walk
            && let Some(stripe) = shared.stripes.if_used(walk.stripe)
            && let Some(mut parts) = stripe.gaps.around(&range, self.pin.seq())
        {
            if direction == Direction::Forward {
                parts.reverse();
            }
            walk.parts = parts;
            // A full load, not a guard: the walk may take long.
            walk.version = Some(Arc::clone(&stripe.version()));
            return self.next_part().map(drop);
        }
        self.cursor = Some(shared.cursor(stripes, &Arc::new(range), direction, &self.pin)?);
        Ok(())
    }
}

impl Shared {
    /// Counts entries that readers of the stripe have passed over. Requests a merge each time they have paid for one.
    fn passed_over(&self, stripe: usize, entries: u64) {
        let Some(used) = self.stripes.if_used(stripe) else { return };
        let before = used.passed_over.fetch_add(entries, Ordering::Relaxed);
        let version = used.version();
        let records = version.runs.iter().map(|run| run.total(|meta| meta.entries));
        let limit = records.fold(0, u64::saturating_add).saturating_mul(PASSED_PER_MERGED).max(1);
        // Requested once each time, because a snapshot may prevent it.
        if before.saturating_add(entries) / limit > before / limit {
            self.background.queue_compaction(stripe);
        }
    }

    fn cursor(
        &self,
        stripes: std::ops::Range<usize>,
        range: &Arc<KeyRange>,
        direction: Direction,
        pin: &Pin,
    ) -> Result<Visible> {
        let used = stripes.filter_map(|id| self.stripes.if_used(id));
        // Full loads, not guards: the walk may take long.
        let versions: SmallVec<[_; 1]> = used.map(|stripe| Arc::clone(&stripe.version())).collect();
        let most_ahead = ahead_of_each(versions.iter().map(|version| version.runs.len()).sum());
        let sources = versions.iter().map(|version| version.cursors(range, pin.seq(), direction, most_ahead));
        Ok(visible(sources.collect::<Result<_>>()?, direction, pin.seq()))
    }
}
