//! A stripe's newest records, in memory.
//!
//! Owns the versions of keys, and the figures that sealing, flushing and the log need. It does not decide when to seal
//! (the stripe does) or what is visible (the reader passes a sequence).
//!
//! Records are appended to an arena and found by the hash of their key; the versions of a key are linked, from the newest
//! to the oldest. They are put in order only when they are read in order: a put costs the same however many records there
//! are, and most memtables are put in order once, by their flush.
//! 1. A version is never replaced in place, so readers at an older sequence still find theirs.
//! 2. Inserting a (key, sequence) that is already present is a no-op, so replay may repeat records. Sequences of a key
//!    rise otherwise.
//! 3. Records are inserted under the stripe's lock; gets take no lock, and cursors only while they are made.

use std::cmp::Ordering as Order;
use std::sync::{Arc, OnceLock};

use crate::clock::Since;
use crate::coding::fence;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::KeyRange;
use crate::prefetch::LINE;
use crate::slice::{Found, Slice};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::types::{Direction, EntryKind, EntryRef, Lsn, SeqNo};

mod arena;
mod order;
mod slots;

pub(crate) use arena::ChunkPool;
use arena::{Address, Arena};
use order::{Ordered, Position, Sorted};
use slots::Slots;

/// Memory per record beyond key and value, at most, in memtables of some hundred records: header and padding 28 bytes,
/// slots up to 24 and as much for the smaller tables that remain, a place in the order 8, and unused space in chunks.
pub(crate) const RECORD_OVERHEAD: usize = 96;

/// Length of a record's header.
pub(crate) const HEADER: usize = 24;

#[derive(Debug)]
pub(crate) struct Memtable {
    arena: Arena,
    slots: Slots,
    ordered: Mutex<Ordered>,
    count: AtomicUsize,
    /// Bytes of keys and values.
    data_bytes: AtomicUsize,
    /// The LSN from which a replay of this memtable must start; 0 while empty.
    first_lsn: AtomicU64,
    /// The lowest sequence; 0 while empty. Sequences in a stripe rise, so the first insert sets it.
    first_seq: AtomicU64,
    last_seq: AtomicU64,
    /// When the first tombstone was written.
    deleted_since: OnceLock<Since>,
    /// Bytes that flushing and merging this memtable will free: garbage of its own and versions that its records
    /// replace, as far as those were looked up.
    pub(crate) passing: AtomicU64,
}

/// One version, as it lies in the arena:
///
/// ```text
/// 8  sequence
/// 8  kind, and above it, from bit 8 on, the address of the next older version; 0 if there is none
/// 4  length of the key
/// 4  length of the value
///    key, value
/// ```
#[derive(Clone, Copy, Debug)]
struct Record<'a> {
    seq: SeqNo,
    kind: EntryKind,
    older: Option<Address>,
    key: &'a [u8],
    value: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the start of `bytes`.
    #[inline]
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&seq, rest) = bytes.split_first_chunk()?;
        let (&kind_and_older, rest) = rest.split_first_chunk()?;
        let (&key_len, rest) = rest.split_first_chunk()?;
        let (&value_len, rest) = rest.split_first_chunk()?;
        let kind_and_older = u64::from_le_bytes(kind_and_older);
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(key_len) as usize)?;
        let (value, _) = rest.split_at_checked(u32::from_le_bytes(value_len) as usize)?;
        let older = kind_and_older >> 8;
        Some(Self {
            seq: u64::from_le_bytes(seq),
            kind: EntryKind::from_u8(kind_and_older as u8)?,
            older: (older != 0).then_some(Address(older)),
            key,
            value,
        })
    }

    fn header(entry: &EntryRef<'_>, older: Option<Address>) -> [u8; HEADER] {
        let older = older.map_or(0, |address| address.0);
        let mut header = [0; HEADER];
        let (seq, rest) = header.split_at_mut(8);
        let (kind_and_older, lengths) = rest.split_at_mut(8);
        let (key_len, value_len) = lengths.split_at_mut(4);
        seq.copy_from_slice(&entry.seq.to_le_bytes());
        kind_and_older.copy_from_slice(&(older << 8 | u64::from(entry.kind as u8)).to_le_bytes());
        // Keys are at most 64 KiB long, twice that if every byte is escaped, and values at most 1 GiB.
        key_len.copy_from_slice(&(entry.key.len() as u32).to_le_bytes());
        value_len.copy_from_slice(&(entry.value.len() as u32).to_le_bytes());
        header
    }

    fn len(&self) -> usize {
        HEADER + self.key.len() + self.value.len()
    }
}

/// The first 24 bytes of a key, zero-padded. If two heads differ, they order their keys; if they are equal, the keys
/// must be compared. Two keys of eight bytes each fit, so that sorting rarely looks at the records.
type KeyHead = [u64; 3];

fn head(key: &[u8]) -> KeyHead {
    [0, 8, 16].map(|at| fence(key.get(at..).unwrap_or_default()))
}

impl Memtable {
    /// An empty memtable, whose memory comes from the pool.
    pub(crate) fn new(pool: &Arc<ChunkPool>) -> Self {
        Self {
            arena: Arena::new(pool),
            slots: Slots::default(),
            ordered: Mutex::default(),
            count: AtomicUsize::new(0),
            data_bytes: AtomicUsize::new(0),
            first_lsn: AtomicU64::new(0),
            first_seq: AtomicU64::new(0),
            last_seq: AtomicU64::new(0),
            deleted_since: OnceLock::new(),
            passing: AtomicU64::new(0),
        }
    }

    #[inline]
    fn record(&self, at: Address) -> Option<Record<'_>> {
        let record = Record::parse(self.arena.bytes(at));
        debug_assert!(record.is_some(), "no record is at {at:?}");
        record
    }

    /// Adds a version whose log record is at `lsn`; `hash` is that of its key. Returns the increase of
    /// [`Memtable::memory`], which is 0 if the version was already present. The caller holds the stripe's lock.
    pub(crate) fn insert(&self, lsn: Lsn, hash: u64, entry: EntryRef<'_>) -> Option<usize> {
        let mut appender = self.arena.append();
        self.slots.reserve();
        let same_key = |at| self.record(at).is_some_and(|record| record.key == entry.key);
        let slot = self.slots.find(hash, same_key)?;
        let newest = slot.newest.and_then(|at| self.record(at));
        if newest.is_some_and(|newest| newest.seq >= entry.seq) {
            debug_assert!(self.has(slot.newest, entry.seq), "sequences of a key do not rise");
            return Some(0);
        }
        let header = Record::header(&entry, slot.newest);
        self.slots.set(slot, appender.push([&header, entry.key, entry.value])?);
        // Only one thread at a time changes the figures.
        let (count, data_bytes) = (self.len(), self.data_bytes());
        let len = entry.key.len() + entry.value.len();
        if count == 0 {
            self.first_lsn.store(lsn.0, Ordering::Relaxed);
            self.first_seq.store(entry.seq, Ordering::Relaxed);
        }
        self.last_seq.store(self.last_seq().max(entry.seq), Ordering::Relaxed);
        self.data_bytes.store(data_bytes + len, Ordering::Relaxed);
        self.count.store(count + 1, Ordering::Relaxed);
        Some(len + RECORD_OVERHEAD)
    }

    /// Prefetches what [`Memtable::insert`] and [`Memtable::get`] of a key with this hash need first.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        self.slots.prefetch(hash);
    }

    /// Whether the version of this sequence is among these, linked from the newest on.
    fn has(&self, newest: Option<Address>, seq: SeqNo) -> bool {
        let newest = newest.and_then(|at| self.record(at));
        let mut versions =
            std::iter::successors(newest, |record| record.older.and_then(|at| self.record(at)));
        versions.any(|record| record.seq == seq)
    }

    /// Whether the memtable should take no further records, whatever the settings: its addresses run out.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= arena::MANY_CHUNKS as usize && self.arena.is_full()
    }

    /// Records that a tombstone was inserted.
    pub(crate) fn deleted(&self, since: Since) {
        // Later calls change nothing: the first tombstone is the oldest.
        let _ = self.deleted_since.set(since);
    }

    /// Returns when the oldest tombstone was written, if there is any.
    pub(crate) fn deleted_since(&self) -> Option<Since> {
        self.deleted_since.get().copied()
    }

    /// Returns the newest version of a key, whose hash is `hash`, at or below `max_seq`.
    pub(crate) fn get(&self, key: &[u8], hash: u64, max_seq: SeqNo) -> Option<Found> {
        let same_key = |at| self.record(at).is_some_and(|record| record.key == key);
        let mut at = self.slots.find(hash, same_key)?.newest?;
        loop {
            let record = self.record(at)?;
            if record.seq <= max_seq {
                return Some(Found { seq: record.seq, kind: record.kind, value: self.value(at, &record) });
            }
            at = record.older?;
        }
    }

    /// The value of the record at `at`: a copy, unless it is large. Sharing a chunk would keep 16 KiB alive for one small
    /// value, and threads that read neighbouring values would contend for its count of references.
    fn value(&self, at: Address, record: &Record<'_>) -> Slice {
        let Some(whole) = self.arena.shared(at) else { return Slice::from(record.value) };
        let value = whole.slice(record.len() - record.value.len(), record.value.len());
        debug_assert!(value.is_some(), "a record is shorter than it says");
        value.unwrap_or_default()
    }

    /// The records so far, in order.
    fn sorted(&self) -> Arc<Sorted> {
        let mut ordered = self.ordered.lock();
        let Ordered { sorted, seen } = &mut *ordered;
        let mut added: Vec<(KeyHead, Address)> = Vec::new();
        self.arena.appended_since(seen, |start, bytes| {
            // Memory is loaded ahead where it is read from front to back; in the order of keys each record would be
            // waited for.
            std::hint::black_box(bytes.iter().step_by(LINE).fold(0, |sum, byte| sum ^ byte));
            let mut at = 0;
            while let Some(record) = Record::parse(bytes.get(at..).unwrap_or_default()) {
                added.push((head(record.key), start.plus(at)));
                at += record.len().next_multiple_of(arena::ALIGN);
            }
        });
        if !added.is_empty() {
            self.sort(&mut added);
            let added: Vec<_> = added.into_iter().map(|(_, at)| at).collect();
            Arc::make_mut(sorted).add(&added, |a, b| self.cmp(a, b));
        }
        Arc::clone(sorted)
    }

    /// Sorts by the first 8 bytes and then, where those are equal, by the rest: comparing single numbers takes no jump.
    fn sort(&self, added: &mut [(KeyHead, Address)]) {
        added.sort_unstable_by_key(|&([first, ..], _)| first);
        for equal in added.chunk_by_mut(|(a, _), (b, _)| a.first() == b.first()) {
            if equal.len() > 1 {
                let rest = |[_, high, low]: KeyHead| u128::from(high) << 64 | u128::from(low);
                equal.sort_unstable_by(|a, b| rest(a.0).cmp(&rest(b.0)).then_with(|| self.cmp(a.1, b.1)));
            }
        }
    }

    /// The order of records: by key, then from the newest version to the oldest.
    fn cmp(&self, a: Address, b: Address) -> Order {
        match (self.record(a), self.record(b)) {
            (Some(a), Some(b)) => a.key.cmp(b.key).then_with(|| b.seq.cmp(&a.seq)),
            _ => Order::Equal,
        }
    }

    /// Returns a cursor over the versions within the range and at or below `max_seq`, in order. It does not see what is
    /// inserted from now on: a reader takes its sequence before.
    pub(crate) fn cursor(
        self: &Arc<Self>,
        range: &KeyRange,
        max_seq: SeqNo,
        direction: Direction,
    ) -> MemCursor {
        let sorted = self.sorted();
        let below = |end: &[u8]| sorted.seek(|at| self.record(at).is_some_and(|record| record.key < end));
        let low = if range.start.is_empty() { Position::START } else { below(&range.start) };
        let high = range.end.as_deref().map_or(Position::END, below);
        let mut cursor =
            MemCursor { memtable: Arc::clone(self), sorted, low, high, max_seq, direction, at: None };
        cursor.at = match direction {
            Direction::Forward => Some(low),
            Direction::Reverse => cursor.sorted.previous(high),
        };
        cursor.settle();
        cursor
    }

    /// Whether a range has a version in (`after`, `up_to`].
    pub(crate) fn has_newer(self: &Arc<Self>, range: &KeyRange, after: SeqNo, up_to: SeqNo) -> bool {
        let mut cursor = self.cursor(range, up_to, Direction::Forward);
        while let Some((_, record)) = cursor.record() {
            if record.seq > after {
                return true;
            }
            // Cannot fail in memory.
            let Some(at) = cursor.at else { return false };
            cursor.step(at);
            cursor.settle();
        }
        false
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of records, including tombstones.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes of keys and values, as `max_memtable_size_bytes` counts them.
    pub(crate) fn data_bytes(&self) -> usize {
        self.data_bytes.load(Ordering::Relaxed)
    }

    /// Approximate size in memory, as the memory budget counts it.
    pub(crate) fn memory(&self) -> usize {
        self.data_bytes() + self.len() * RECORD_OVERHEAD
    }

    /// The oldest LSN that this memtable pins; `None` while it is empty.
    pub(crate) fn first_lsn(&self) -> Option<Lsn> {
        match self.first_lsn.load(Ordering::Relaxed) {
            0 => None,
            lsn => Some(Lsn(lsn)),
        }
    }

    /// The lowest sequence; 0 while empty.
    pub(crate) fn first_seq(&self) -> SeqNo {
        self.first_seq.load(Ordering::Relaxed)
    }

    /// The highest sequence; 0 while empty.
    pub(crate) fn last_seq(&self) -> SeqNo {
        self.last_seq.load(Ordering::Relaxed)
    }

    /// The first and the last key; `None` while empty.
    pub(crate) fn key_bounds(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (first, last) = self.sorted().ends()?;
        Some((self.record(first)?.key.to_vec(), self.record(last)?.key.to_vec()))
    }
}

/// Iterates over the records that a memtable had when the cursor was made.
#[derive(Debug)]
pub(crate) struct MemCursor {
    memtable: Arc<Memtable>,
    sorted: Arc<Sorted>,
    /// The range, from `low` to before `high`.
    low: Position,
    high: Position,
    max_seq: SeqNo,
    direction: Direction,
    /// `None` past the last record.
    at: Option<Position>,
}

impl MemCursor {
    fn record(&self) -> Option<(Address, Record<'_>)> {
        let at = self.sorted.get(self.at?)?;
        Some((at, self.memtable.record(at)?))
    }

    /// Moves on from records that are out of the range, or too new.
    fn settle(&mut self) {
        while let Some(at) = self.at {
            if at < self.low || at >= self.high {
                self.at = None;
                return;
            }
            // A flush takes all records: their sequences need not be read.
            if self.max_seq == SeqNo::MAX {
                self.at = self.sorted.get(at).map(|_| at);
                return;
            }
            match self.record() {
                Some((_, record)) if record.seq <= self.max_seq => return,
                Some(_) => self.step(at),
                None => self.at = None,
            }
        }
    }

    fn step(&mut self, at: Position) {
        self.at = match self.direction {
            Direction::Forward => Some(self.sorted.next(at)),
            Direction::Reverse => self.sorted.previous(at),
        };
    }
}

impl Cursor for MemCursor {
    fn entry(&self) -> Option<EntryRef<'_>> {
        let (_, record) = self.record()?;
        Some(EntryRef { key: record.key, seq: record.seq, kind: record.kind, value: record.value })
    }

    fn value(&self) -> Slice {
        self.record().map_or_else(Slice::default, |(at, record)| self.memtable.value(at, &record))
    }

    fn advance(&mut self) -> Result<()> {
        if let Some(at) = self.at {
            self.step(at);
            self.settle();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::key_hash;
    use proptest::prelude::*;

    fn insert(table: &Memtable, lsn: Lsn, entry: EntryRef<'_>) -> usize {
        table.insert(lsn, key_hash(entry.key), entry).unwrap()
    }

    fn get(table: &Memtable, key: &[u8], max_seq: SeqNo) -> Option<Found> {
        table.get(key, key_hash(key), max_seq)
    }

    fn put(key: &[u8], seq: SeqNo) -> EntryRef<'_> {
        EntryRef { key, seq, kind: EntryKind::Put, value: key }
    }

    #[test]
    fn finds_the_newest_version_that_may_be_seen() {
        let table = Memtable::new(&Arc::default());
        for seq in [3, 5, 9] {
            insert(&table, Lsn::new(1, 100 + seq as u32), put(b"k", seq));
        }
        insert(&table, Lsn::new(1, 200), put(b"l", 7));
        let seen = |max| get(&table, b"k", max).map(|f| f.seq);
        assert_eq!(
            [seen(2), seen(3), seen(4), seen(5), seen(8), seen(u64::MAX)],
            [None, Some(3), Some(3), Some(5), Some(5), Some(9)]
        );
        assert_eq!(table.first_lsn(), Some(Lsn::new(1, 103)));
        assert_eq!((table.len(), table.last_seq()), (4, 9));
        assert_eq!(get(&table, b"l", 9).map(|f| f.value.to_vec()), Some(b"l".to_vec()));
    }

    #[test]
    fn inserting_again_changes_nothing() {
        let table = Memtable::new(&Arc::default());
        assert_eq!(insert(&table, Lsn::new(1, 1), put(b"k", 3)), table.memory());
        let before = (table.len(), table.memory(), table.data_bytes());
        assert_eq!(insert(&table, Lsn::new(1, 1), EntryRef { value: b"other", ..put(b"k", 3) }), 0);
        assert_eq!((table.len(), table.memory(), table.data_bytes()), before);
        assert_eq!(get(&table, b"k", 3).map(|f| f.value.to_vec()), Some(b"k".to_vec()));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put {
            key: u16,
            value: usize,
        },
        Get {
            key: u16,
            back: u64,
        },
        /// Reads a range from now on, `steps` records before the next step and the others at the end.
        Scan {
            from: u16,
            to: u16,
            back: u64,
            direction: Direction,
            steps: usize,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || prop_oneof![0u16..20, any::<u16>()];
        let back = || prop_oneof![Just(0u64), 0u64..100];
        let direction = prop_oneof![Just(Direction::Forward), Just(Direction::Reverse)];
        prop_oneof![
            20 => (key(), prop_oneof![0usize..9, Just(3000)]).prop_map(|(key, value)| Step::Put { key, value }),
            4 => (key(), back()).prop_map(|(key, back)| Step::Get { key, back }),
            1 => (key(), key(), back(), direction, 0usize..20)
                .prop_map(|(from, to, back, direction, steps)| Step::Scan { from, to, back, direction, steps }),
        ]
    }

    type Version = ((u16, std::cmp::Reverse<SeqNo>), usize);

    fn read(cursor: &mut MemCursor, most: usize) -> Vec<Version> {
        let mut found = Vec::new();
        while let Some(entry) = cursor.entry().filter(|_| found.len() < most) {
            assert_eq!(&*cursor.value(), entry.value);
            let key = u16::from_be_bytes(entry.key[8..].try_into().unwrap());
            found.push(((key, std::cmp::Reverse(entry.seq)), entry.value.len()));
            cursor.advance().unwrap();
        }
        found
    }

    fn key_of(n: u16) -> Vec<u8> {
        // Keys have the first 8 bytes in common with some others.
        [b"prefix_", [(n >> 12) as u8].as_slice(), &n.to_be_bytes()].concat()
    }

    proptest! {
        #[test]
        fn gets_and_cursors_agree_with_an_ordered_map(
            steps in proptest::collection::vec(step(), 0..600),
        ) {
            let table = Arc::new(Memtable::new(&Arc::default()));
            let mut model = std::collections::BTreeMap::new();
            let (mut seq, mut running) = (0, Vec::new());
            for step in steps {
                match step {
                    Step::Put { key, value } => {
                        seq += 1;
                        let (bytes, value) = (key_of(key), vec![key as u8; value]);
                        let entry = EntryRef { key: &bytes, seq, kind: EntryKind::Put, value: &value };
                        prop_assert_eq!(insert(&table, Lsn::new(1, 8), entry), 10 + value.len() + RECORD_OVERHEAD);
                        model.insert((key, std::cmp::Reverse(seq)), value.len());
                    }
                    Step::Get { key, back } => {
                        let max_seq = seq.saturating_sub(back);
                        let expected = model.range((key, std::cmp::Reverse(max_seq))..).next();
                        let expected = expected.filter(|((found, _), _)| *found == key);
                        let found = get(&table, &key_of(key), max_seq);
                        prop_assert_eq!(
                            found.map(|found| (found.seq, found.value.len())),
                            expected.map(|((_, seq), len)| (seq.0, *len))
                        );
                    }
                    Step::Scan { from, to, back, direction, steps } => {
                        let range = KeyRange {
                            start: if from < 5 { Vec::new() } else { key_of(from) },
                            end: (to >= 5).then(|| key_of(to)),
                        };
                        let max_seq = seq.saturating_sub(back);
                        let mut expected: Vec<Version> = (model.iter())
                            .filter(|((key, seq), _)| range.contains(&key_of(*key)) && seq.0 <= max_seq)
                            .map(|(key, len)| (*key, *len))
                            .collect();
                        if direction == Direction::Reverse {
                            expected.reverse();
                        }
                        let mut cursor = table.cursor(&range, max_seq, direction);
                        let begun = read(&mut cursor, steps);
                        running.push((cursor, begun, expected));
                    }
                }
            }
            for (mut cursor, mut found, expected) in running {
                found.extend(read(&mut cursor, usize::MAX));
                prop_assert_eq!(found, expected);
            }
            let keys = model.keys().next().zip(model.keys().next_back());
            prop_assert_eq!(table.key_bounds(), keys.map(|(first, last)| (key_of(first.0), key_of(last.0))));
        }
    }

    /// Symptom elsewhere: with a concurrent skip list most gets of a key that was being replaced found nothing
    /// (crossbeam, issue 1023).
    #[test]
    fn a_key_that_is_always_there_is_always_found() {
        let table = Arc::new(Memtable::new(&Arc::default()));
        insert(&table, Lsn::new(1, 8), put(b"k", 1));
        let visible = std::sync::atomic::AtomicU64::new(1);
        let last: SeqNo = if cfg!(miri) { 300 } else { 30_000 };
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for seq in 2..=last {
                    // New keys in between, so that the table grows.
                    let other = seq.to_le_bytes();
                    insert(&table, Lsn::new(1, 8), put(if seq % 3 == 0 { &other } else { b"k" }, seq));
                    visible.store(seq, Ordering::Release);
                }
            });
            let mut seq = 0;
            while seq < last && !writer.is_finished() {
                seq = visible.load(Ordering::Acquire);
                let found = get(&table, b"k", seq).unwrap();
                assert_eq!(found.seq, if seq % 3 == 0 { seq - 1 } else { seq });
                if seq % 8 == 0 {
                    let range = KeyRange { start: b"k".to_vec(), end: Some(b"l".to_vec()) };
                    let cursor = table.cursor(&range, seq, Direction::Forward);
                    assert_eq!(cursor.entry().unwrap().seq, found.seq);
                }
            }
        });
    }
}
