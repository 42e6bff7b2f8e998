//! The key-hash index: maps a key's hash to the block and group with the key's newest version.
//!
//! ```text
//! u32 slots, at most 4 in 5 of them used; linear probing from the slot selected by the hash's top bits
//!   bits 24 to 32  fingerprint: the hash's lowest 8 bits
//!   bits  3 to 24  block
//!   bits  0 to  3  group in the block
//!   all ones       empty
//! ```

use crate::prefetch::prefetch;
use crate::sst_block::MAX_GROUPS;

/// Maximum number of blocks in a file. The highest 21-bit number is excluded because it could produce an empty slot.
pub(super) const MAX_BLOCKS: usize = (1 << 21) - 1;

const EMPTY: u32 = u32::MAX;
const SLOT_LEN: usize = 4;
const PLACE_BITS: u32 = 24;
const GROUP_BITS: u32 = MAX_GROUPS.trailing_zeros();

/// The address of a group of entries: its block and its number within the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupAddress {
    pub(super) block: usize,
    pub(super) group: usize,
}

impl GroupAddress {
    /// The form stored in a slot; the block must be below [`MAX_BLOCKS`].
    pub(super) fn pack(self) -> u32 {
        (self.block as u32) << GROUP_BITS | self.group as u32
    }

    fn unpack(packed: u32) -> Self {
        let packed = packed & ((1 << PLACE_BITS) - 1);
        Self { block: (packed >> GROUP_BITS) as usize, group: packed as usize % MAX_GROUPS }
    }
}

fn fingerprint(hash: u64) -> u32 {
    hash as u32 & 0xff
}

fn first_slot(hash: u64, slots: usize) -> usize {
    ((u128::from(hash) * slots as u128) >> 64) as usize
}

fn slot(section: &[u8], n: usize) -> Option<u32> {
    let bytes = section.get(n.checked_mul(SLOT_LEN)?..)?;
    bytes.first_chunk().copied().map(u32::from_le_bytes)
}

/// The length of the section for this many keys.
pub(super) fn section_len(keys: usize) -> usize {
    // One slot more than the load factor requires: a search ends at an empty slot.
    (keys + keys / 4 + 1) * SLOT_LEN
}

/// Builds the section for distinct keys, given the hash and packed address of each.
pub(super) fn build(hashes: &[u64], places: &[u32]) -> Vec<u8> {
    let mut section = vec![0xff; section_len(hashes.len())];
    let slots = section.len() / SLOT_LEN;
    for (&hash, &place) in hashes.iter().zip(places) {
        let mut n = first_slot(hash, slots);
        while slot(&section, n).is_some_and(|found| found != EMPTY) {
            n = (n + 1) % slots;
        }
        if let Some(target) = section.get_mut(n * SLOT_LEN..).and_then(|rest| rest.first_chunk_mut()) {
            *target = (fingerprint(hash) << PLACE_BITS | place).to_le_bytes();
        }
    }
    section
}

/// Prefetches the slot that [`probe`] reads first.
#[inline]
pub(super) fn prefetch_slot(section: &[u8], hash: u64) {
    prefetch(section, first_slot(hash, section.len() / SLOT_LEN) * SLOT_LEN);
}

/// The groups that may have the key with this hash, best guess first. There are few, usually one.
pub(super) fn probe(section: &[u8], hash: u64) -> impl Iterator<Item = GroupAddress> + '_ {
    let slots = section.len() / SLOT_LEN;
    let first = first_slot(hash, slots);
    (first..slots)
        .chain(0..first)
        .map_while(move |n| slot(section, n).filter(|&found| found != EMPTY))
        .filter(move |&found| found >> PLACE_BITS == fingerprint(hash))
        .map(GroupAddress::unpack)
}

/// The addresses of all keys, in no particular order.
pub(super) fn places(section: &[u8]) -> impl Iterator<Item = GroupAddress> + '_ {
    let (slots, _) = section.as_chunks::<SLOT_LEN>();
    slots.iter().map(|slot| u32::from_le_bytes(*slot)).filter(|&slot| slot != EMPTY).map(GroupAddress::unpack)
}

/// The number of keys in the section.
pub(super) fn count(section: &[u8]) -> u64 {
    section.chunks_exact(SLOT_LEN).filter(|slot| *slot != EMPTY.to_le_bytes()).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::key_hash;

    #[test]
    fn finds_every_key_with_few_wrong_guesses() {
        for keys in [1usize, 2, 4, 5, 100, 10_000] {
            let hashes: Vec<u64> = (0..keys).map(|n| key_hash(format!("{n}").as_bytes())).collect();
            let place = |n: usize| GroupAddress { block: n * 7 % MAX_BLOCKS, group: n % MAX_GROUPS };
            let places: Vec<u32> = (0..keys).map(|n| place(n).pack()).collect();
            let section = build(&hashes, &places);
            assert_eq!(section.len(), section_len(keys));
            assert_eq!(count(&section), keys as u64);
            let mut guesses = 0;
            for (n, &hash) in hashes.iter().enumerate() {
                let at = probe(&section, hash).position(|found| found == place(n));
                guesses += at.unwrap_or_else(|| panic!("key {n} of {keys}"));
            }
            assert!(guesses <= keys / 50, "{guesses} wrong guesses for {keys} keys");
        }
    }

    #[test]
    fn the_last_place_is_not_an_empty_slot() {
        let last = GroupAddress { block: MAX_BLOCKS - 1, group: MAX_GROUPS - 1 };
        let section = build(&[u64::MAX], &[last.pack()]);
        assert_eq!(probe(&section, u64::MAX).collect::<Vec<_>>(), [last]);
    }

    #[test]
    fn a_full_or_cut_section_ends_the_search() {
        assert_eq!(probe(&[], 5).count(), 0);
        assert_eq!(probe(&[1, 2, 3], 5).count(), 0);
        assert_eq!(probe(&[5, 0, 0, 5, 5, 0, 0, 5, 9], 5).count(), 2);
    }
}
