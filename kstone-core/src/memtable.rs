//! A stripe's newest records, in memory.
//!
//! Owns the versions of keys in order, and the figures that sealing, flushing and the log need. It does not decide when
//! to seal (the stripe does) or what is visible (the reader passes a sequence).
//! 1. A version is never replaced in place, so readers at an older sequence still find theirs.
//! 2. Inserting a (key, sequence) that is already present is a no-op, so replay may repeat records.
//! 3. Records are inserted under the stripe's lock; readers do not need that lock.

use std::borrow::Borrow;
use std::cmp::Ordering as Order;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use crate::clock::Since;
use crate::coding::{fence, part};
use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::KeyRange;
use crate::slice::{Found, Slice};
use crate::sync::RwLock;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::types::{Direction, EntryKind, EntryRef, Lsn, SeqNo};

/// Memory per record beyond key and value: its slot in the tree, whose nodes are two thirds full on average, and the
/// allocation's header. Measured with 200-byte items.
pub(crate) const RECORD_OVERHEAD: usize = 96;

#[derive(Debug)]
pub(crate) struct Memtable {
    records: RwLock<BTreeSet<Record>>,
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

/// One version. Key and value share one allocation, so that an insert allocates once.
#[derive(Clone, Debug)]
struct Record {
    /// The first bytes of the key, stored in the tree itself, so that most comparisons touch no other memory. This made
    /// inserts into a cold memtable twice as fast.
    head: KeyHead,
    bytes: Arc<[u8]>,
    key_len: u32,
    kind: EntryKind,
    seq: SeqNo,
}

/// The first 16 bytes of a key, zero-padded. If two heads differ, they order their keys; if they are equal, the keys
/// must be compared.
type KeyHead = (u64, u64);

fn head(key: &[u8]) -> KeyHead {
    (fence(key), fence(key.get(8..).unwrap_or_default()))
}

impl Record {
    fn key(&self) -> &[u8] {
        part(&self.bytes, ..self.key_len as usize)
    }

    fn value(&self) -> Slice {
        let all = Slice::from(Arc::clone(&self.bytes));
        let value = all.slice(self.key_len as usize, all.len() - self.key_len as usize);
        debug_assert!(value.is_some(), "a record is shorter than its key");
        value.unwrap_or_default()
    }
}

/// Joins key and value in one allocation, copying each once.
fn joined(key: &[u8], value: &[u8]) -> Arc<[u8]> {
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, key.len() + value.len()).collect();
    let halves = Arc::get_mut(&mut bytes).and_then(|bytes| bytes.split_at_mut_checked(key.len()));
    debug_assert!(halves.is_some(), "an allocation just made is shared, or shorter than it was made");
    if let Some((for_key, for_value)) = halves {
        for_key.copy_from_slice(key);
        for_value.copy_from_slice(value);
    }
    bytes
}

/// The order of versions, shared by records and by lookups that only borrow their bytes.
trait Versioned {
    fn head(&self) -> KeyHead;
    fn key(&self) -> &[u8];
    fn seq(&self) -> SeqNo;
}

impl Versioned for Record {
    fn head(&self) -> KeyHead {
        self.head
    }

    fn key(&self) -> &[u8] {
        Record::key(self)
    }

    fn seq(&self) -> SeqNo {
        self.seq
    }
}

/// The position just before all versions of a key at or below a sequence.
struct At<'a> {
    head: KeyHead,
    key: &'a [u8],
    seq: SeqNo,
}

impl<'a> At<'a> {
    fn new(key: &'a [u8], seq: SeqNo) -> Self {
        Self { head: head(key), key, seq }
    }
}

impl Versioned for At<'_> {
    fn head(&self) -> KeyHead {
        self.head
    }

    fn key(&self) -> &[u8] {
        self.key
    }

    fn seq(&self) -> SeqNo {
        self.seq
    }
}

impl Ord for dyn Versioned + '_ {
    fn cmp(&self, other: &Self) -> Order {
        let heads = self.head().cmp(&other.head());
        heads.then_with(|| self.key().cmp(other.key())).then_with(|| other.seq().cmp(&self.seq()))
    }
}

impl PartialOrd for dyn Versioned + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Versioned + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for dyn Versioned + '_ {}

impl<'a> Borrow<dyn Versioned + 'a> for Record {
    fn borrow(&self) -> &(dyn Versioned + 'a) {
        self
    }
}

impl Ord for Record {
    fn cmp(&self, other: &Self) -> Order {
        let heads = self.head.cmp(&other.head);
        heads.then_with(|| self.key().cmp(other.key())).then_with(|| other.seq.cmp(&self.seq))
    }
}

impl PartialOrd for Record {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for Record {}

impl Memtable {
    pub(crate) fn new() -> Self {
        Self {
            records: RwLock::default(),
            count: AtomicUsize::new(0),
            data_bytes: AtomicUsize::new(0),
            first_lsn: AtomicU64::new(0),
            first_seq: AtomicU64::new(0),
            last_seq: AtomicU64::new(0),
            deleted_since: OnceLock::new(),
            passing: AtomicU64::new(0),
        }
    }

    /// Adds a version whose log record is at `lsn`. Returns the increase of [`Memtable::memory`], which is 0 if the
    /// version was already present. The caller holds the stripe's lock.
    pub(crate) fn insert(&self, lsn: Lsn, entry: EntryRef<'_>) -> usize {
        let len = entry.key.len() + entry.value.len();
        let record = Record {
            head: head(entry.key),
            bytes: joined(entry.key, entry.value),
            // Keys are at most 64 KiB long, twice that if every byte is escaped.
            key_len: entry.key.len() as u32,
            kind: entry.kind,
            seq: entry.seq,
        };
        if !self.records.write().insert(record) {
            return 0;
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.data_bytes.fetch_add(len, Ordering::Relaxed);
        self.last_seq.fetch_max(entry.seq, Ordering::Relaxed);
        if self.first_lsn.load(Ordering::Relaxed) == 0 {
            self.first_lsn.store(lsn.0, Ordering::Relaxed);
            self.first_seq.store(entry.seq, Ordering::Relaxed);
        }
        len + RECORD_OVERHEAD
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

    /// Returns the newest version of a key at or below `max_seq`.
    pub(crate) fn get(&self, key: &[u8], max_seq: SeqNo) -> Option<Found> {
        let records = self.records.read();
        let from = At::new(key, max_seq);
        let from: &dyn Versioned = &from;
        let record = records.range::<dyn Versioned, _>((Bound::Included(from), Bound::Unbounded)).next()?;
        (record.key() == key).then(|| Found { seq: record.seq, kind: record.kind, value: record.value() })
    }

    /// Returns a cursor over the versions within the range and at or below `max_seq`, in order.
    pub(crate) fn cursor(
        self: &Arc<Self>,
        range: KeyRange,
        max_seq: SeqNo,
        direction: Direction,
    ) -> MemCursor {
        let mut cursor = MemCursor {
            memtable: Arc::clone(self),
            range,
            max_seq,
            direction,
            batch: Vec::new(),
            last: None,
        };
        cursor.fill();
        cursor
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
        let records = self.records.read();
        Some((records.first()?.key().to_vec(), records.last()?.key().to_vec()))
    }
}

/// Iterates over a memtable that may grow in the meantime: copies a few records at a time under the read lock, then
/// seeks past the last of them for the next few.
#[derive(Debug)]
pub(crate) struct MemCursor {
    memtable: Arc<Memtable>,
    range: KeyRange,
    max_seq: SeqNo,
    direction: Direction,
    /// The upcoming records, in reverse: the next one is LAST.
    batch: Vec<Record>,
    /// The last record of the batch; `None` before the first batch.
    last: Option<Record>,
}

impl MemCursor {
    const BATCH: usize = 32;

    fn fill(&mut self) {
        let records = self.memtable.records.read();
        let start = At::new(&self.range.start, SeqNo::MAX);
        let end = self.range.end.as_deref().map(|end| At::new(end, SeqNo::MAX));
        let mut low: Bound<&dyn Versioned> = Bound::Included(&start);
        let mut high: Bound<&dyn Versioned> = match &end {
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        match (&self.last, self.direction) {
            (Some(last), Direction::Forward) => low = Bound::Excluded(last),
            (Some(last), Direction::Reverse) => high = Bound::Excluded(last),
            (None, _) => {}
        }
        if let (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) =
            (low, high)
            && low >= high
        {
            return; // an empty range, on which `range` below would panic
        }
        let ahead = records.range::<dyn Versioned, _>((low, high));
        let seen = |r: &&Record| r.seq <= self.max_seq;
        self.batch = match self.direction {
            Direction::Forward => ahead.filter(seen).take(Self::BATCH).cloned().collect(),
            Direction::Reverse => ahead.rev().filter(seen).take(Self::BATCH).cloned().collect(),
        };
        self.last = self.batch.last().cloned().or(self.last.take());
        self.batch.reverse();
    }
}

impl Cursor for MemCursor {
    fn entry(&self) -> Option<EntryRef<'_>> {
        let record = self.batch.last()?;
        let value = part(&record.bytes, record.key_len as usize..);
        Some(EntryRef { key: record.key(), seq: record.seq, kind: record.kind, value })
    }

    fn value(&self) -> Slice {
        self.batch.last().map_or_else(|| Slice::from(&[][..]), Record::value)
    }

    fn advance(&mut self) -> Result<()> {
        self.batch.pop();
        if self.batch.is_empty() {
            self.fill();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(key: &[u8], seq: SeqNo) -> EntryRef<'_> {
        EntryRef { key, seq, kind: EntryKind::Put, value: key }
    }

    #[test]
    fn finds_the_newest_version_that_may_be_seen() {
        let table = Memtable::new();
        for seq in [3, 5, 9] {
            table.insert(Lsn::new(1, 100 + seq as u32), put(b"k", seq));
        }
        table.insert(Lsn::new(1, 200), put(b"l", 7));
        let seen = |max| table.get(b"k", max).map(|f| f.seq);
        assert_eq!(
            [seen(2), seen(3), seen(4), seen(5), seen(8), seen(u64::MAX)],
            [None, Some(3), Some(3), Some(5), Some(5), Some(9)]
        );
        assert_eq!(table.first_lsn(), Some(Lsn::new(1, 103)));
        assert_eq!((table.len(), table.last_seq()), (4, 9));
        assert_eq!(table.get(b"l", 9).map(|f| f.value.to_vec()), Some(b"l".to_vec()));
    }

    #[test]
    fn inserting_again_changes_nothing() {
        let table = Memtable::new();
        assert_eq!(table.insert(Lsn::new(1, 1), put(b"k", 3)), table.memory());
        let before = (table.len(), table.memory(), table.data_bytes());
        assert_eq!(table.insert(Lsn::new(1, 1), EntryRef { value: b"other", ..put(b"k", 3) }), 0);
        assert_eq!((table.len(), table.memory(), table.data_bytes()), before);
        assert_eq!(table.get(b"k", 3).map(|f| f.value.to_vec()), Some(b"k".to_vec()));
    }

    proptest! {
        #[test]
        fn cursors_agree_with_a_sorted_list(
            keys in proptest::collection::vec(0u8..40, 0..200), from in 0u8..40, to in 0u8..45, max_seq in 0u64..220,
        ) {
            let table = Arc::new(Memtable::new());
            let mut expected = Vec::new();
            for (i, key) in keys.iter().enumerate() {
                let seq = i as u64 + 1;
                table.insert(Lsn::new(1, 8), put(&[*key], seq));
                if *key >= from && *key < to && seq <= max_seq {
                    expected.push((*key, std::cmp::Reverse(seq)));
                }
            }
            expected.sort_unstable();
            for direction in [Direction::Forward, Direction::Reverse] {
                let range = KeyRange { start: vec![from], end: Some(vec![to]) };
                let mut cursor = table.cursor(range, max_seq, direction);
                let mut got = Vec::new();
                while let Some(entry) = cursor.entry() {
                    prop_assert_eq!(&*cursor.value(), entry.value);
                    got.push((entry.key[0], std::cmp::Reverse(entry.seq)));
                    cursor.advance().unwrap();
                }
                if direction == Direction::Reverse {
                    got.reverse();
                }
                prop_assert_eq!(&got, &expected);
            }
        }
    }
}
