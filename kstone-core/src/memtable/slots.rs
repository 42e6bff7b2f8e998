//! The hash table of a memtable: from a key's hash to the address of its newest version.
//!
//! Open addressing with linear probing (Knuth, The Art of Computer Programming, vol. 3, 6.4, algorithm L), one word a
//! slot: 28 bits of the hash and the address. A table that fills up is replaced by one of twice the size, made from the
//! words alone; the smaller ones remain, for readers that still look into them.
//!
//! One thread writes at a time. Readers take no lock: a word is complete, and what it points to was written before.

use std::sync::OnceLock;

use super::arena::{ADDRESS_BITS, Address};
use crate::prefetch::prefetch_line;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bits of the hash in a word.
const TAG_BITS: u32 = u64::BITS - ADDRESS_BITS;
/// The number of slots of the smallest table, as a power of two. Tests see it grow often.
const SMALLEST: u32 = if cfg!(any(shuttle, test)) { 1 } else { 6 };

#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Tables of `1 << (SMALLEST + n)` slots.
    tables: [OnceLock<Box<[AtomicU64]>>; (TAG_BITS - SMALLEST) as usize],
    /// The one in use.
    current: AtomicUsize,
    /// Slots taken.
    taken: AtomicUsize,
}

/// The place of a key in the table in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    at: usize,
    tag: u64,
    /// The newest version of the key, if it has any.
    pub(super) newest: Option<Address>,
}

/// The first bits of a hash.
fn tag(hash: u64) -> u64 {
    hash >> ADDRESS_BITS
}

fn unpacked(word: u64) -> (u64, Option<Address>) {
    let address = word & ((1 << ADDRESS_BITS) - 1);
    (word >> ADDRESS_BITS, (address != 0).then_some(Address(address)))
}

/// The slots of a table in the order in which they are searched for a tag.
#[inline]
fn probe(table: &[AtomicU64], tag: u64) -> impl Iterator<Item = (usize, &AtomicU64)> {
    let bits = table.len().trailing_zeros();
    let first = (tag >> TAG_BITS.saturating_sub(bits)) as usize;
    let (before, from) = table.split_at_checked(first).unwrap_or((&[], table));
    (first..).zip(from).chain(before.iter().enumerate())
}

impl Slots {
    #[inline]
    fn table(&self) -> &[AtomicU64] {
        let current = self.current.load(Ordering::Acquire);
        self.tables.get(current).and_then(OnceLock::get).map_or(&[], |table| table)
    }

    /// Finds the slot of the key for which `is_it` holds, or the free one where it belongs. `None` only for a table
    /// without slots.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(Address) -> bool) -> Option<Slot> {
        let tag = tag(hash);
        for (at, slot) in probe(self.table(), tag) {
            let (other, newest) = unpacked(slot.load(Ordering::Acquire));
            match newest {
                None => return Some(Slot { at, tag, newest: None }),
                Some(address) if other == tag && is_it(address) => return Some(Slot { at, tag, newest }),
                Some(_) => {}
            }
        }
        None
    }

    /// Prefetches the word where the search for this hash starts.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some((_, word)) = probe(self.table(), tag(hash)).next() {
            prefetch_line(word);
        }
    }

    /// Makes room for one more key. Called by the one writer, before it looks for the slot.
    pub(super) fn reserve(&self) {
        let table = self.table();
        if self.taken.load(Ordering::Relaxed) * 3 < table.len() * 2 {
            return;
        }
        let current = self.current.load(Ordering::Relaxed);
        let next = if table.is_empty() { current } else { current + 1 };
        let make = || {
            let larger: Box<[_]> =
                std::iter::repeat_with(AtomicU64::default).take(1 << (SMALLEST as usize + next)).collect();
            for slot in table {
                let word = slot.load(Ordering::Relaxed);
                let (tag, address) = unpacked(word);
                let mut places = probe(&larger, tag).filter(|(_, to)| to.load(Ordering::Relaxed) == 0);
                if address.is_some()
                    && let Some((_, to)) = places.next()
                {
                    to.store(word, Ordering::Relaxed);
                }
            }
            larger
        };
        // Beyond the largest table probes only become longer.
        if let Some(cell) = self.tables.get(next) {
            cell.get_or_init(make);
            self.current.store(next, Ordering::Release);
        }
    }

    /// Makes `address` the newest version of the key whose slot this is. Called by the one writer.
    pub(super) fn set(&self, slot: Slot, address: Address) {
        if let Some(word) = self.table().get(slot.at) {
            word.store(slot.tag << ADDRESS_BITS | address.0, Ordering::Release);
        }
        if slot.newest.is_none() {
            self.taken.store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }
}
