//! Fences: for each block, its offset and a key that separates it from the previous block. Scans search them; gets only
//! read the offsets.
//!
//! ```text
//! u32               number of blocks n
//! u32               length of the common prefix
//! n x 8 bytes       fences: the first 8 bytes of each separator, zero-padded, compared as big-endian numbers
//! (n + 1) x u64     offset of each block in the file; end of the last one
//! (n + 1) x u32     offset of each separator among the separators; end of the last one
//! bytes             common prefix of all keys in the file
//! bytes             separators
//! ```
//!
//! Separators omit the common prefix. A separator is above the last key of the previous block and at most the first key
//! of its own block, and is the shortest prefix of that key with this property. If a key's versions continue from one
//! block into the next, the separator is that key. The first block's separator is empty.

use std::ops::Range;

use crate::coding::{Reader, fence, part, shared_prefix};

const HEADER_LEN: usize = 8;

#[derive(Debug, Default)]
pub(super) struct FencesBuilder {
    offsets: Vec<u64>,
    /// Start of each separator.
    starts: Vec<u32>,
    separators: Vec<u8>,
}

impl FencesBuilder {
    pub(super) fn blocks(&self) -> usize {
        self.offsets.len()
    }

    /// Adds a block that starts at `offset` with the key `first`, after the key `last`. Both omit the prefix. `None` if
    /// the separators become too long for their offsets.
    pub(super) fn push(&mut self, last: Option<&[u8]>, first: &[u8], offset: u64) -> Option<()> {
        self.starts.push(u32::try_from(self.separators.len()).ok()?);
        self.offsets.push(offset);
        let len = last.map_or(0, |last| shared_prefix(last, first) + 1);
        self.separators.extend_from_slice(first.get(..len).unwrap_or(first));
        u32::try_from(self.separators.len()).ok().map(drop)
    }

    /// Approximate length of the section.
    pub(super) fn len(&self) -> usize {
        self.offsets.len() * 20 + self.separators.len() + HEADER_LEN + 12
    }

    /// Encodes the section; the last block ends at `end`.
    pub(super) fn finish(&self, prefix: &[u8], end: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() + prefix.len());
        out.extend_from_slice(&(self.offsets.len() as u32).to_le_bytes());
        out.extend_from_slice(&(prefix.len() as u32).to_le_bytes());
        let separators_end = self.separators.len() as u32;
        let ends = self.starts.iter().skip(1).copied().chain([separators_end]);
        for (&start, end) in self.starts.iter().zip(ends) {
            let separator = part(&self.separators, start as usize..end as usize);
            out.extend_from_slice(&fence(separator).to_be_bytes());
        }
        for offset in self.offsets.iter().chain([&end]) {
            out.extend_from_slice(&offset.to_le_bytes());
        }
        for start in self.starts.iter().chain([&separators_end]) {
            out.extend_from_slice(&start.to_le_bytes());
        }
        out.extend_from_slice(prefix);
        out.extend_from_slice(&self.separators);
        out
    }
}

/// The layout of a fences section. Its methods take that section, and return `None` if it is inconsistent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fences {
    blocks: usize,
    offsets_at: usize,
    starts_at: usize,
    prefix_at: usize,
    separators_at: usize,
}

impl Fences {
    pub(super) fn parse(section: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(section);
        let blocks = reader.u32()? as usize;
        let prefix_len = reader.u32()? as usize;
        let offsets_at = blocks.checked_mul(8)?.checked_add(HEADER_LEN)?;
        let starts_at = blocks.checked_add(1)?.checked_mul(8)?.checked_add(offsets_at)?;
        let prefix_at = blocks.checked_add(1)?.checked_mul(4)?.checked_add(starts_at)?;
        let separators_at = prefix_at.checked_add(prefix_len)?;
        let fences = Self { blocks, offsets_at, starts_at, prefix_at, separators_at };
        let separators = section.get(separators_at..)?.len();
        (blocks > 0 && fences.start(section, blocks)? == separators).then_some(fences)
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// The common prefix of all keys in the file.
    pub(super) fn prefix<'a>(&self, section: &'a [u8]) -> Option<&'a [u8]> {
        section.get(self.prefix_at..self.separators_at)
    }

    fn offset(&self, section: &[u8], n: usize) -> Option<u64> {
        Reader::new(section.get(n.checked_mul(8)?.checked_add(self.offsets_at)?..)?).u64()
    }

    fn start(&self, section: &[u8], n: usize) -> Option<usize> {
        let at = n.checked_mul(4)?.checked_add(self.starts_at)?;
        Reader::new(section.get(at..)?).u32().map(|start| start as usize)
    }

    /// The range of a block in the file.
    pub(super) fn block(&self, section: &[u8], n: usize) -> Option<Range<usize>> {
        if n >= self.blocks {
            return None;
        }
        let start = usize::try_from(self.offset(section, n)?).ok()?;
        let end = usize::try_from(self.offset(section, n + 1)?).ok()?;
        Some(start..end)
    }

    fn fence(&self, section: &[u8], n: usize) -> Option<u64> {
        let at = n.checked_mul(8)?.checked_add(HEADER_LEN)?;
        section.get(at..)?.first_chunk().copied().map(u64::from_be_bytes)
    }

    /// Whether a block's fence is the start of its separator, as searches assume.
    pub(super) fn agrees(&self, section: &[u8], n: usize) -> bool {
        self.separator(section, n).is_some_and(|separator| self.fence(section, n) == Some(fence(separator)))
    }

    pub(super) fn separator<'a>(&self, section: &'a [u8], n: usize) -> Option<&'a [u8]> {
        let separators = section.get(self.separators_at..)?;
        separators.get(self.start(section, n)?..self.start(section, n.checked_add(1)?)?)
    }

    /// The last block whose separator is below `key` (without the prefix), or else the first. Entries with that key or
    /// a higher one start in the returned block or at the start of the next, never before.
    pub(super) fn locate(&self, section: &[u8], key: &[u8]) -> Option<usize> {
        self.search(section, key, 0, self.blocks)
    }

    /// The same for a key that is not below one located in block `from`, and likely in a block nearby.
    pub(super) fn locate_after(&self, section: &[u8], key: &[u8], from: usize) -> Option<usize> {
        let (mut low, mut step) = (from, 1);
        while let probed = low.saturating_add(step)
            && probed < self.blocks
        {
            if !self.is_below(section, probed, key)? {
                return self.search(section, key, low, probed);
            }
            (low, step) = (probed, step * 2);
        }
        self.search(section, key, low, self.blocks)
    }

    /// [`Fences::locate`], where all blocks before `low` are known to be below the key, and those from `high` on not to be.
    fn search(&self, section: &[u8], key: &[u8], mut low: usize, mut high: usize) -> Option<usize> {
        while low < high {
            let middle = low.midpoint(high);
            if self.is_below(section, middle, key)? { low = middle + 1 } else { high = middle }
        }
        Some(low.saturating_sub(1))
    }

    /// Whether the separator of block `n` is below `key`.
    fn is_below(&self, section: &[u8], n: usize, key: &[u8]) -> Option<bool> {
        let (found, wanted) = (self.fence(section, n)?, fence(key));
        Some(found < wanted || (found == wanted && self.separator(section, n)? < key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff)], 0..12)
    }

    proptest! {
        #[test]
        fn locates_as_a_linear_search_would(mut keys in proptest::collection::vec(key(), 2..40), wanted in key()) {
            keys.sort();
            let mut builder = FencesBuilder::default();
            // Each block has two keys; a key may fill several blocks.
            let blocks: Vec<_> = keys.chunks(2).collect();
            let mut last = None;
            for (n, block) in blocks.iter().enumerate() {
                builder.push(last, &block[0], n as u64).unwrap();
                last = block.last().map(Vec::as_slice);
            }
            let section = builder.finish(b"prefix", blocks.len() as u64);
            let fences = Fences::parse(&section).unwrap();
            prop_assert_eq!(fences.prefix(&section).unwrap(), b"prefix");
            prop_assert_eq!(fences.blocks(), blocks.len());
            let found = fences.locate(&section, &wanted).unwrap();
            for from in 0..=found {
                prop_assert_eq!(fences.locate_after(&section, &wanted, from), Some(found));
            }
            prop_assert_eq!(fences.block(&section, found), Some(found..found + 1));
            let all_below = |block: &[Vec<u8>]| block.iter().all(|key| *key < wanted);
            prop_assert!(blocks[..found].iter().all(|block| all_below(block)));
            prop_assert!(blocks.get(found + 1).is_none_or(|block| block[0] >= wanted));
            for cut in 0..section.len() {
                prop_assert!(Fences::parse(&section[..cut]).is_none());
            }
        }

        #[test]
        fn fences_order_like_their_strings(a in key(), b in key()) {
            if fence(&a) != fence(&b) {
                prop_assert_eq!(fence(&a).cmp(&fence(&b)), a.cmp(&b));
            }
        }

        #[test]
        fn parse_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80), wanted in key()) {
            if let Some(fences) = Fences::parse(&bytes) {
                fences.locate(&bytes, &wanted);
                fences.block(&bytes, 0);
            }
        }
    }
}
