//! CONDITIONAL WRITE and TRANSACTION: writes that hold only if what they were computed from is still so.
//!
//! ```text
//! write_with          read, unlocked, as of v -> decide -> space -> stripe locks -> something newer than v?
//!                     no: commit.  in a memtable: decide again, on that.  flushed: start over
//! write_if_unchanged  changed in (v, w], unlocked? -> space -> locks of all that was read or written
//!                     -> newer than w? no: commit.  in a memtable: conflict.  flushed: unlock, check up to a later w
//! ```
//!
//! 1. No SST is read under a lock. What is newer than a sequence that was visible is in a memtable, or the stripe's
//!    `flushed_to` is above that sequence. Runs cannot be asked: a flush may leave nothing of a put and its delete.
//! 2. A stripe's lock is held while its records are inserted, so whoever holds it sees every write that has a sequence,
//!    visible or not. A refusal that rests on a write that is not visible yet is returned only when that is: the caller
//!    must not know more than a reader.
//! 3. Writers of a hot key decide again under the lock and so get on. Starting over takes a flush in between, or a new
//!    decision that the space reserved for the first one does not cover; if it is longer, more is reserved next time.
//! 4. `v` is what was visible BEFORE the version was loaded. What became visible between that load and the read may be
//!    in a memtable that the loaded version does not have yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::LsmEngine;
use super::batch::{BatchRecord, PendingOp, WriteBatch};
use super::observe::WriteTotals;
use super::options::WriteOptions;
use super::read::{Pin, Snapshot};
use super::sizes::SizeRecorder;
use super::state::Shared;
use super::write::{at_stripe, in_lock_order};
use crate::config::Durability;
use crate::counters::Operation;
use crate::error::{Error, Result};
use crate::key::{EncodedKey, Key, KeyRange, SortRange, partition_hash, stripe_of};
use crate::planted::{Bug, Race, later, planted, raced};
use crate::slice::{Found, Slice};
use crate::stripe::{Locked, Newer};
use crate::types::{EntryKind, GetCost, SeqNo};
use crate::wal::Payload;

/// Bytes by which a record may grow between the first decision and the one under the lock: a counter that gets another
/// digit need not start over.
const SPARE: usize = 256;

/// The puts and deletes that a call of [`LsmEngine::write_with`] decides on.
#[derive(Debug, Default)]
pub struct Changes {
    ops: SmallVec<[(usize, Option<Vec<u8>>); 1]>,
}

impl Changes {
    /// Sets the key at this index to a value.
    pub fn put(&mut self, key: usize, value: Vec<u8>) {
        self.ops.push((key, Some(value)));
    }

    /// Deletes the key at this index.
    pub fn delete(&mut self, key: usize) {
        self.ops.push((key, None));
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// What a transaction has read, besides through which snapshot: [`LsmEngine::write_if_unchanged`] checks that none of it
/// has changed. Absence counts as read.
#[derive(Clone, Debug, Default)]
pub struct ReadSet {
    /// Encoded keys, with their hash and that of their partition.
    keys: BTreeMap<Vec<u8>, (u64, u64)>,
    /// The ranges of each partition.
    partitions: BTreeMap<Vec<u8>, Vec<SortRange>>,
    ranges: usize,
    everything: bool,
}

/// From this many ranges on, checking each is not worth it.
const MOST_RANGES: usize = 10_000;

impl ReadSet {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of this key was read. `InvalidKey` and `KeyTooLarge` for a key that cannot exist.
    pub fn get(&mut self, key: &Key<'_>) -> Result<()> {
        key.check()?;
        if self.everything {
            return Ok(());
        }
        let encoded = key.encode(usize::MAX)?;
        self.keys.insert(encoded.bytes.to_vec(), (encoded.hash, encoded.partition_hash));
        Ok(())
    }

    /// This range of a partition was read. More than 10,000 ranges count as everything.
    pub fn query(&mut self, partition: &[u8], range: SortRange) {
        if self.everything {
            return;
        }
        let ranges = self.partitions.entry(partition.to_vec()).or_default();
        // The same query again, as in a loop; comparing with all of them would take longer than checking twice.
        if ranges.last() == Some(&range) {
            return;
        }
        ranges.push(range);
        self.ranges += 1;
        if self.ranges > MOST_RANGES {
            self.scan();
        }
    }

    /// Everything was read.
    pub fn scan(&mut self) {
        self.everything = true;
        // Contained in it.
        self.keys.clear();
        self.partitions.clear();
    }

    /// The stripes of what was read.
    fn stripes(&self, count: usize) -> Vec<u16> {
        if self.everything {
            return (0..count).map(|id| id as u16).collect();
        }
        let keys = self.keys.values().map(|&(_, partition)| partition);
        let partitions = self.partitions.keys().map(|partition| partition_hash(partition));
        keys.chain(partitions).map(|hash| stripe_of(hash, count) as u16).collect()
    }

    /// The ranges read, with the stripe of each.
    fn ranges(&self, count: usize) -> impl Iterator<Item = (usize, KeyRange)> {
        let everywhere = if self.everything { 0..count } else { 0..0 };
        let of_partitions = self.partitions.iter().flat_map(move |(partition, ranges)| {
            let stripe = stripe_of(partition_hash(partition), count);
            ranges.iter().map(move |range| (stripe, range.to_key_range(partition)))
        });
        everywhere.map(|stripe| (stripe, KeyRange::all())).chain(of_partitions)
    }
}

/// What a conditional write read before its locks.
struct Seen {
    /// The commit up to which `values` are the newest.
    seq: SeqNo,
    values: SmallVec<[Option<Slice>; 1]>,
}

/// What became of a decision.
enum Attempt {
    /// It was written, or what was decided anew: the sequence of the last change, and what it counts as.
    Written(SeqNo, Operation, WriteTotals),
    /// Decided anew, there was nothing to write.
    Nothing,
    /// What it rests on may have been flushed meanwhile.
    StartOver,
}

impl LsmEngine {
    /// Reads `keys`, lets `decide` choose what to write to them, and writes it, as one atomic step: what was decided on
    /// is what the writes replace. Returns what `decide` returned.
    ///
    /// `decide` gets the values in the order of the keys, `None` for a key without one. It may be called again, with
    /// newer values, each time on its own `Changes`, and then while stripes are locked: it must not call the engine, wait
    /// for anything, or take long. Its error refuses the write and is returned; deciding on no changes writes nothing.
    /// Both are true at a moment within the call.
    ///
    /// # Errors
    /// Those of `decide`, of [`LsmEngine::put`], and `BatchTooLarge`. `Corruption` and `Io` if a value cannot be read.
    pub fn write_with<T>(
        &self,
        keys: &[Key<'_>],
        options: WriteOptions,
        mut decide: impl FnMut(&[Option<Slice>], &mut Changes) -> Result<T>,
    ) -> Result<T> {
        let (shared, _open) = self.writable()?;
        let durability = options.durability.unwrap_or(shared.durability);
        let limits = shared.settings.load();
        let mut running = shared.observed.begin_operation(Operation::Put, &limits);
        let encoded = keys.iter().map(|key| key.encode(limits.database.max_key_bytes));
        let encoded: SmallVec<[EncodedKey; 1]> = encoded.collect::<Result<_>>()?;
        drop(limits);
        let mut spare = SPARE;
        loop {
            let seen = self.read_for_write(&encoded)?;
            let mut changes = Changes::default();
            let mut decided = decide(&seen.values, &mut changes)?;
            if changes.is_empty() {
                return Ok(decided);
            }
            let again = |values: &[Option<Slice>]| {
                let mut changes = Changes::default();
                let new = decide(values, &mut changes)?;
                if !planted(Bug::FirstResultReturned) {
                    decided = new;
                }
                Ok(changes)
            };
            let result = match shared.commit_decided(&encoded, seen, &changes, again, &mut spare, durability)
            {
                Ok(Attempt::StartOver) => continue,
                Ok(Attempt::Nothing) => return Ok(decided),
                Ok(Attempt::Written(last, operation, written)) => {
                    running.decided(operation);
                    if running.since.is_some() {
                        changes.sample(keys, shared.observed.sizes());
                    }
                    Ok((last, written))
                }
                Err(error) => Err(error),
            };
            let written = result.as_ref().map_or_else(|_| WriteTotals::default(), |&(_, written)| written);
            let result = result.map(|(last, _)| last);
            shared.wrote(&running, written, &result);
            return result.map(|_| decided);
        }
    }

    /// The longest value that a write accepts, in bytes; `max_item_bytes` of the settings in force.
    pub fn max_item_bytes(&self) -> usize {
        self.shared.settings.load().database.max_item_bytes
    }

    /// The time since an arbitrary fixed moment, by the clock of this handle. For callers that try again.
    pub fn monotonic(&self) -> Duration {
        self.shared.clock.monotonic()
    }

    /// Waits up to this long; with a single thread, runs a step of background work instead.
    pub fn pause(&self, time: Duration) {
        self.shared.pause(time);
    }

    /// A random number, by the clock of this handle: the same in tests that set it.
    pub fn random(&self) -> u64 {
        self.shared.clock.random()
    }

    /// The newest visible values, all as of one commit.
    fn read_for_write(&self, keys: &[EncodedKey]) -> Result<Seen> {
        let shared = &*self.shared;
        if let [key] = keys {
            let visible = shared.commits.visible();
            let mut cost = GetCost::default();
            let found = shared.look_up(key, None, &mut cost);
            shared.count_filters(key, &cost);
            let found = found?;
            let seq = if raced(Race::SeenAfterRead) { shared.commits.visible() } else { visible };
            // What was found may be newer than that, and is then the newest up to itself.
            let seq = found.as_ref().map_or(seq, |found| seq.max(found.seq));
            return Ok(Seen { seq, values: SmallVec::from_iter([value_of(found)]) });
        }
        // Pinned while it reads: versions of several stripes as of one sequence.
        let pin = Pin::new(&self.shared);
        let mut values = SmallVec::with_capacity(keys.len());
        for key in keys {
            shared.life.check_open()?;
            let mut cost = GetCost::default();
            let found = shared.look_up(key, Some(pin.seq()), &mut cost);
            shared.count_filters(key, &cost);
            values.push(value_of(found?));
        }
        Ok(Seen { seq: pin.seq(), values })
    }

    /// Applies all of `batch`, or nothing, if nothing of what was read through `snapshot` has changed since; returns the
    /// sequence of its last operation. A transaction that reads through a snapshot and ends with this call is
    /// serializable: it is as if it had run at the moment of its commit.
    ///
    /// An empty batch succeeds without a check: it is as if the transaction had run at the moment of the snapshot.
    ///
    /// # Errors
    /// `Conflict` if something read was changed; nothing was written. Otherwise those of [`LsmEngine::write`].
    pub fn write_if_unchanged(
        &self,
        snapshot: &Snapshot,
        reads: &ReadSet,
        batch: &WriteBatch,
        options: WriteOptions,
    ) -> Result<SeqNo> {
        let (shared, _open) = self.writable()?;
        if batch.is_empty() {
            return Ok(snapshot.seq());
        }
        let running = shared.observed.begin_operation(Operation::Batch, &shared.settings.load());
        let (ops, written) = shared.checked_ops(batch)?;
        let durability = options.durability.unwrap_or(shared.durability);
        let result = shared.commit_unchanged(snapshot, reads, &ops, durability);
        shared.wrote(&running, written, &result);
        result
    }
}

fn conflict() -> Error {
    Error::Conflict { attempts: 1 }
}

fn value_of(found: Option<Found>) -> Option<Slice> {
    found.filter(|found| found.kind == EntryKind::Put).map(|found| found.value)
}

impl Changes {
    /// Which kind of operation it counts as.
    fn operation(&self) -> Operation {
        match self.ops.as_slice() {
            [(_, Some(_))] => Operation::Put,
            [(_, None)] => Operation::Delete,
            _ => Operation::Batch,
        }
    }

    /// Records the sizes of what it writes.
    fn sample(&self, keys: &[Key<'_>], sizes: &SizeRecorder) {
        for (key, value) in &self.ops {
            sizes.sample(keys.get(*key).map_or(0, Key::len), value.as_ref().map(Vec::len));
        }
    }

    fn totals(&self, keys: &[EncodedKey]) -> WriteTotals {
        let mut totals = WriteTotals::default();
        for (key, value) in &self.ops {
            totals.add(keys.get(*key).map_or(0, EncodedKey::data_len), value.as_ref().map(Vec::len));
        }
        totals
    }
}

impl Shared {
    /// Writes the changes that were decided on what was seen, or those that `again` decides on something newer.
    fn commit_decided(
        &self,
        keys: &[EncodedKey],
        mut seen: Seen,
        changes: &Changes,
        again: impl FnOnce(&[Option<Slice>]) -> Result<Changes>,
        spare: &mut usize,
        durability: Durability,
    ) -> Result<Attempt> {
        let ops = self.decided_ops(keys, changes)?;
        let batch = BatchRecord::new(&ops);
        let (space, reservation, reserved) = {
            let written = in_lock_order(ops.iter().map(|op| op.stripe));
            self.throttle(&written)?;
            let max_record = self.settings.load().log.max_record;
            let spare = (*spare).min(max_record.saturating_sub(batch.encoded_len()));
            let (space, reservation) = self.reserve_space(batch, spare, &written)?;
            (space, reservation, batch.encoded_len() + spare)
        };
        // Of the keys that are only read too.
        let stripes = in_lock_order(keys.iter().map(|key| self.stripe_of(key)));
        let locked = self.lock_stripes(&stripes)?;
        let Some(newest) = self.newer(&locked, &stripes, keys, &mut seen)? else {
            return Ok(Attempt::StartOver);
        };
        if newest == 0 || planted(Bug::ConditionsNotCheckedAgain) {
            let last = self.commit_locked(batch, space, reservation, &stripes, locked, durability)?;
            return Ok(Attempt::Written(last, changes.operation(), changes.totals(keys)));
        }
        let changes = match again(&seen.values) {
            Ok(changes) if !changes.is_empty() => changes,
            refused => {
                drop((locked, space, reservation));
                self.wait_for_what_was_seen(newest)?;
                return refused.map(|_| Attempt::Nothing);
            }
        };
        let ops = match self.decided_ops(keys, &changes) {
            Ok(ops) => ops,
            Err(refused) => {
                drop((locked, space, reservation));
                self.wait_for_what_was_seen(newest)?;
                return Err(refused);
            }
        };
        let anew = BatchRecord::new(&ops);
        if anew.encoded_len() > reserved {
            *spare = 2 * (anew.encoded_len() - batch.encoded_len());
            return Ok(Attempt::StartOver);
        }
        if !anew.is_covered_by(&batch) {
            return Ok(Attempt::StartOver);
        }
        let last = self.commit_locked(anew, space, reservation, &stripes, locked, durability)?;
        Ok(Attempt::Written(last, changes.operation(), changes.totals(keys)))
    }

    /// Waits until a write that a refusal rests on is visible.
    fn wait_for_what_was_seen(&self, newest: SeqNo) -> Result<()> {
        if raced(Race::RefusedBeforeVisible) {
            return Ok(());
        }
        self.commits.wait_visible(newest, self.life.health())
    }

    /// Replaces the values seen by those inserted since; returns the sequence of the newest one, 0 if there is none.
    /// `None`: some may have been flushed already.
    fn newer(
        &self,
        locked: &[Locked<'_>],
        stripes: &[u16],
        keys: &[EncodedKey],
        seen: &mut Seen,
    ) -> Result<Option<SeqNo>> {
        let mut newest = 0;
        for (key, value) in keys.iter().zip(&mut seen.values) {
            let Some(stripe) = at_stripe(locked, stripes, self.stripe_of(key)) else {
                return Err(self.life.health().internal("the stripe of a key that was read is not locked"));
            };
            let up_to = if raced(Race::CheckedAtVisible) { self.commits.visible() } else { SeqNo::MAX };
            match stripe.newer(&key.bytes, key.hash, seen.seq, up_to)? {
                Newer::None => {}
                Newer::Flushed => return Ok(None),
                Newer::Found(found) => {
                    newest = newest.max(found.seq);
                    *value = value_of(Some(found));
                }
            }
        }
        Ok(Some(newest))
    }

    fn commit_unchanged(
        &self,
        snapshot: &Snapshot,
        reads: &ReadSet,
        ops: &[PendingOp<'_>],
        durability: Durability,
    ) -> Result<SeqNo> {
        let check_to = |checked: SeqNo| {
            let visible = self.commits.visible();
            if self.changed(reads, checked, visible)? { Err(conflict()) } else { Ok(visible) }
        };
        let mut checked = check_to(snapshot.seq())?;
        let batch = BatchRecord::new(ops);
        let written = in_lock_order(ops.iter().map(|op| op.stripe));
        self.throttle(&written)?;
        let (space, reservation) = self.reserve_space(batch, 0, &written)?;
        let read =
            if planted(Bug::ReadStripesNotLocked) { Vec::new() } else { reads.stripes(self.stripes.count()) };
        let stripes = in_lock_order(written.iter().copied().chain(read));
        loop {
            // Where tests let others write.
            later(());
            let locked = self.lock_stripes(&stripes)?;
            match self.changed_since(reads, &locked, &stripes, checked)? {
                Some(false) => {
                    return self.commit_locked(batch, space, reservation, &stripes, locked, durability);
                }
                Some(true) => {
                    // Or the next attempt, on a new snapshot, would read the same and conflict again.
                    let newest = locked.iter().map(Locked::last_seq).max().unwrap_or(0);
                    drop((locked, space, reservation));
                    self.wait_for_what_was_seen(newest)?;
                    return Err(conflict());
                }
                None => {} // by a flush that ended meanwhile, into runs
            }
            drop(locked);
            checked = check_to(checked)?;
        }
    }

    /// Whether something read has a version in (`after`, `up_to`]. What the snapshot pins, flushes and merges keep, so
    /// runs can be asked.
    fn changed(&self, reads: &ReadSet, after: SeqNo, up_to: SeqNo) -> Result<bool> {
        if after >= up_to {
            return Ok(false);
        }
        for (key, &(hash, partition)) in &reads.keys {
            let Some(stripe) = self.stripes.if_used(stripe_of(partition, self.stripes.count())) else {
                continue;
            };
            let version = Arc::clone(&stripe.version());
            if planted(Bug::AbsenceNotChecked) && value_of(version.get(key, hash, after, &mut ())?).is_none()
            {
                continue;
            }
            if version.get(key, hash, up_to, &mut ())?.is_some_and(|found| found.seq > after) {
                return Ok(true);
            }
        }
        if planted(Bug::RangesNotChecked) {
            return Ok(false);
        }
        for (stripe, range) in reads.ranges(self.stripes.count()) {
            let Some(stripe) = self.stripes.if_used(stripe) else { continue };
            if Arc::clone(&stripe.version()).has_newer(&range, after, up_to)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether something read has a version above `after`, visible or not. `None`: it may have been flushed.
    fn changed_since(
        &self,
        reads: &ReadSet,
        locked: &[Locked<'_>],
        stripes: &[u16],
        after: SeqNo,
    ) -> Result<Option<bool>> {
        let count = self.stripes.count();
        let visible = self.commits.visible();
        let up_to = if raced(Race::CheckedAtVisible) { visible } else { SeqNo::MAX };
        for (key, &(hash, partition)) in &reads.keys {
            let Some(stripe) = at_stripe(locked, stripes, stripe_of(partition, count) as u16) else {
                return self.not_locked();
            };
            if planted(Bug::AbsenceNotChecked)
                && value_of(stripe.version().get(key, hash, after, &mut ())?).is_none()
            {
                continue;
            }
            match stripe.newer(key, hash, after, up_to)? {
                Newer::None => {}
                Newer::Flushed => return Ok(None),
                Newer::Found(_) => return Ok(Some(true)),
            }
        }
        if planted(Bug::RangesNotChecked) {
            return Ok(Some(false));
        }
        for (stripe, range) in reads.ranges(count) {
            let Some(stripe) = at_stripe(locked, stripes, stripe as u16) else { return self.not_locked() };
            match stripe.has_newer(&range, after, up_to) {
                None => return Ok(None),
                Some(true) => return Ok(Some(true)),
                Some(false) => {}
            }
        }
        Ok(Some(false))
    }

    /// What a transaction read is in a stripe that it did not lock.
    #[cold]
    fn not_locked(&self) -> Result<Option<bool>> {
        if planted(Bug::ReadStripesNotLocked) {
            return Ok(Some(false));
        }
        Err(self.life.health().internal("the stripe of something read is not locked"))
    }

    /// The operations of a decision.
    fn decided_ops<'c>(
        &self,
        keys: &[EncodedKey],
        changes: &'c Changes,
    ) -> Result<SmallVec<[PendingOp<'c>; 1]>> {
        let limits = self.settings.load();
        let op = |(key, value): &'c (usize, Option<Vec<u8>>)| {
            // Out of range: an error of the caller, before anything is written.
            let Some(key) = keys.get(*key) else {
                return Err(Error::internal("a conditional write changes a key that it did not name"));
            };
            PendingOp::encoded(key.clone(), value.as_deref(), &limits.database, self.stripes.count())
        };
        let ops: SmallVec<[PendingOp<'c>; 1]> = changes.ops.iter().map(op).collect::<Result<_>>()?;
        let max = limits.database.max_batch_bytes.min(limits.log.max_record);
        let len = BatchRecord::new(&ops).encoded_len();
        if ops.len() > 1 && len > max {
            return Err(Error::BatchTooLarge { len, max });
        }
        Ok(ops)
    }

    fn stripe_of(&self, key: &EncodedKey) -> u16 {
        stripe_of(key.partition_hash, self.stripes.count()) as u16
    }
}
