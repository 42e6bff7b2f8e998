//! Fences: for each block where it starts and a key that separates it from the block before. Scans search
//! them; gets only look up offsets.
//!
//! ```text
//! u32               blocks n
//! u32               length of the common prefix
//! n x 8 bytes       fences: the first 8 bytes of each separator, zero-padded, comparing as big-endian numbers
//! (n + 1) x u64     where each block starts in the file; where the last one ends
//! (n + 1) x u32     where each separator starts in the separators; where the last one ends
//! bytes             common prefix of all keys in the file
//! bytes             separators
//! ```
//!
//! A separator is without the common prefix. It is above the last key of the block before and at most the
//! first key of its block, and the shortest such start of that key; where a key's versions go on from one
//! block into the next, it is that key. The first block's is empty.

use std::ops::Range;

use crate::coding::{Reader, fence, part, shared_prefix};

const HEADER_LEN: usize = 8;

#[derive(Debug, Default)]
pub(super) struct FencesBuilder {
    offsets: Vec<u64>,
    /// Where each separator starts.
    starts: Vec<u32>,
    separators: Vec<u8>,
}

impl FencesBuilder {
    pub(super) fn blocks(&self) -> usize {
        self.offsets.len()
    }

    /// A block starts at `offset` with the key `first`; the key before is `last`. Both are without the prefix.
    /// `None` when the separators outgrow their offsets.
    pub(super) fn push(&mut self, last: Option<&[u8]>, first: &[u8], offset: u64) -> Option<()> {
        self.starts.push(u32::try_from(self.separators.len()).ok()?);
        self.offsets.push(offset);
        let len = last.map_or(0, |last| shared_prefix(last, first) + 1);
        self.separators.extend_from_slice(first.get(..len).unwrap_or(first));
        u32::try_from(self.separators.len()).ok().map(drop)
    }

    /// About the length of the section.
    pub(super) fn len(&self) -> usize {
        self.offsets.len() * 20 + self.separators.len() + HEADER_LEN + 12
    }

    /// The section; the last block ends at `end`.
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

/// Where the parts of a fences section lie. Its methods take that section, and give `None` when what it says
/// makes no sense.
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

    /// What all keys of the file start with.
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

    /// Where a block lies in the file.
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

    /// Whether a block's fence is the start of its separator, as a search takes for granted.
    pub(super) fn agrees(&self, section: &[u8], n: usize) -> bool {
        self.separator(section, n).is_some_and(|separator| self.fence(section, n) == Some(fence(separator)))
    }

    pub(super) fn separator<'a>(&self, section: &'a [u8], n: usize) -> Option<&'a [u8]> {
        let separators = section.get(self.separators_at..)?;
        separators.get(self.start(section, n)?..self.start(section, n.checked_add(1)?)?)
    }

    /// The last block whose separator is below `key` (without the prefix), else the first: no entry before it
    /// has that key or a higher one, and the first entry of the next has.
    pub(super) fn locate(&self, section: &[u8], key: &[u8]) -> Option<usize> {
        let wanted = fence(key);
        let (mut low, mut high) = (0, self.blocks);
        while low < high {
            let middle = low.midpoint(high);
            let found = self.fence(section, middle)?;
            let below = found < wanted || (found == wanted && self.separator(section, middle)? < key);
            if below { low = middle + 1 } else { high = middle }
        }
        Some(low.saturating_sub(1))
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
            // Each block holds two keys; a key may fill several.
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
