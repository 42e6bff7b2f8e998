//! Reads the blocks of an SST: from the mapping, the cache or the file. Each block is verified before it is used.
//!
//! In a mapping, a block's checksum is verified on first access; with `pread`, on every read.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::open::{OpenTable, TableBytes};
use super::read_ahead::ReadAhead;
use super::table::Table;
use crate::error::{Error, Result};
use crate::file_header::HEADER_LEN;
use crate::prefetch::{LINE, prefetch};
use crate::slice::Slice;
use crate::sst_block::{self, Block, Stored};
use crate::types::Direction;
use crate::vfs::{Mapping, VfsFile, read_full_at};

/// Number of blocks that are loaded together, a divisor of 64, and the maximum number of their bytes.
const AROUND: usize = 8;
const MOST_AROUND: usize = 64 << 10;

/// The heads of a block of 4 KiB with values of 200 bytes take about this many lines.
const PREFETCHED_LINES: usize = 6;

/// What to do with a block that is not in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheFill {
    /// Insert it.
    Cache,
    /// Leave the cache unchanged: a scan that reads everything once must not evict blocks that are read often.
    Bypass,
}

/// The payload of a block, wherever it is stored.
pub(super) struct BlockData<'a> {
    bytes: BlockPayload<'a>,
    /// Offset of the block in the file.
    pub(super) at: usize,
}

enum BlockPayload<'a> {
    /// In the mapping, at this offset.
    Mapped(&'a Arc<Mapping>, usize, &'a [u8]),
    Owned(Slice),
}

impl BlockData<'_> {
    #[inline]
    pub(super) fn payload(&self) -> &[u8] {
        match &self.bytes {
            BlockPayload::Mapped(_, _, bytes) => bytes,
            BlockPayload::Owned(slice) => slice,
        }
    }

    /// A part of the payload that keeps the underlying memory alive.
    #[inline]
    pub(super) fn slice(&self, start: usize, len: usize) -> Option<Slice> {
        match &self.bytes {
            BlockPayload::Mapped(map, at, _) => Slice::mapped(map, at + start, len),
            BlockPayload::Owned(slice) => slice.slice(start, len),
        }
    }

    /// The whole payload, likewise.
    pub(super) fn to_slice(&self) -> Option<Slice> {
        self.slice(0, self.payload().len())
    }
}

/// Prefetches the last lines of a block, where its trailer, its group table and most heads are: a look-up needs one after
/// the other.
#[inline]
fn prefetch_heads(block: &[u8]) {
    for n in 0..PREFETCHED_LINES {
        prefetch(block, block.len().wrapping_sub(1 + n * LINE));
    }
}

impl Table {
    /// Parses the groups of a block.
    #[inline]
    pub(super) fn parse<'a>(&self, data: &'a BlockData<'_>) -> Result<Block<'a>> {
        Block::parse(data.payload()).map_err(|why| self.bad_block(data.at, why))
    }

    /// Returns a decoded block. All reads of blocks come through here.
    #[inline]
    pub(super) fn block<'a>(&self, open: &'a OpenTable, n: usize, fill: CacheFill) -> Result<BlockData<'a>> {
        let range = self.block_range(open, n)?;
        let TableBytes::Mapped(map) = &open.source else { return self.cached_block(range, n, fill) };
        let (stored, at) = (self.mapped_block(open, map, n, &range, fill)?, range.start);
        if stored.is_compressed() {
            return self.decompressed_block(&stored, at, n, fill);
        }
        Ok(BlockData { bytes: BlockPayload::Mapped(map, at, stored.payload), at })
    }

    /// Prefetches the heads of a block in the mapping, if the block was verified before and is thus in memory.
    #[inline]
    pub(super) fn prefetch_block(&self, open: &OpenTable, n: usize) {
        let TableBytes::Mapped(map) = &open.source else { return };
        let Some(range) = open.fences.block(open.fence_section(), n).filter(|_| open.was_checked(n)) else {
            return;
        };
        prefetch_heads(map.get(range).unwrap_or_default());
    }

    /// Returns a block in the mapping, verifying it on first access.
    #[inline]
    fn mapped_block<'a>(
        &self,
        open: &OpenTable,
        map: &'a Mapping,
        n: usize,
        range: &Range<usize>,
        fill: CacheFill,
    ) -> Result<Stored<'a>> {
        let bytes = map.get(range.clone()).unwrap_or_default();
        let bit = 1 << (n % 64);
        let word = open.checked.get(n / 64);
        let touched = word.map_or(0, |word| word.load(Ordering::Relaxed));
        if touched & bit == 0 {
            if fill == CacheFill::Cache {
                // As a whole: a block usually extends over two pages, which would be read one after the other.
                map.load_soon(self.to_load(open, n, range, touched));
            }
            self.load(map, range)?;
            let stored = self.check_block(bytes, range.start)?;
            // Relaxed suffices: the bytes never change, so the bit orders no other memory.
            if let Some(word) = word {
                word.fetch_or(bit, Ordering::Relaxed);
            }
            return Ok(stored);
        }
        prefetch_heads(bytes);
        Stored::parse(bytes).map_err(|why| self.bad_block(range.start, why))
    }

    /// Decompresses a block unless the cache has it: looking there costs less.
    fn decompressed_block(
        &self,
        stored: &Stored<'_>,
        at: usize,
        n: usize,
        fill: CacheFill,
    ) -> Result<BlockData<'static>> {
        self.through_cache(at, n, fill, || {
            Ok(Slice::from(stored.decompress().map_err(|why| self.bad_block(at, why))?))
        })
    }

    /// Returns a block from the cache, or reads it from the file.
    fn cached_block(&self, range: Range<usize>, n: usize, fill: CacheFill) -> Result<BlockData<'static>> {
        self.through_cache(range.start, n, fill, || self.read_block(range))
    }

    fn through_cache(
        &self,
        at: usize,
        n: usize,
        fill: CacheFill,
        load: impl FnOnce() -> Result<Slice>,
    ) -> Result<BlockData<'static>> {
        let cache = &self.context.cache;
        if let Some(found) = cache.get(self.meta.id, n, fill == CacheFill::Cache) {
            return Ok(BlockData { bytes: BlockPayload::Owned(found), at });
        }
        let payload = load()?;
        if fill == CacheFill::Cache {
            cache.insert(self.meta.id, n, &payload);
        }
        Ok(BlockData { bytes: BlockPayload::Owned(payload), at })
    }

    /// Reads a block from the file, verifies and decodes it.
    fn read_block(&self, range: Range<usize>) -> Result<Slice> {
        let at = range.start;
        let bytes = self.read(&*self.open_file()?, range)?;
        let stored = self.check_block(&bytes, at)?;
        if stored.is_compressed() {
            return Ok(Slice::from(stored.decompress().map_err(|why| self.bad_block(at, why))?));
        }
        let len = stored.payload.len();
        let slice = Slice::from(bytes);
        slice.slice(0, len).ok_or_else(|| self.corrupt(at, "the block is shorter than its payload"))
    }

    /// Reads bytes of the file, whose length was checked when it was opened.
    pub(super) fn read(&self, file: &dyn VfsFile, range: Range<usize>) -> Result<Arc<[u8]>> {
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, range.len()).collect();
        let buffer = Arc::get_mut(&mut bytes).unwrap_or_default(); // not shared yet
        let read = read_full_at(file, buffer, range.start as u64).map_err(Error::io("read", self.path()))?;
        if read < range.len() {
            return Err(self.corrupt(range.start + read, "the file became shorter"));
        }
        Ok(bytes)
    }

    #[inline]
    fn block_range(&self, open: &OpenTable, n: usize) -> Result<Range<usize>> {
        let range = open.fences.block(open.fence_section(), n);
        range
            .filter(|range| {
                range.start >= HEADER_LEN && range.start <= range.end && range.end <= open.blocks_end
            })
            .ok_or_else(|| self.corrupt(open.blocks_end, format!("the position of block {n} is invalid")))
    }

    /// The bytes that a scan can reach whose last block, in its direction, is `last`.
    pub(super) fn extent(&self, open: &OpenTable, last: usize, direction: Direction) -> Result<Range<usize>> {
        let last = self.block_range(open, last)?;
        Ok(match direction {
            Direction::Forward => HEADER_LEN..last.end,
            Direction::Reverse => last.start..open.blocks_end,
        })
    }

    /// Called when a scan reaches block `n`: has the blocks ahead loaded, as far as the scan can reach. Files read with `pread` need no help: the
    /// system detects the sequential reads.
    #[inline]
    pub(super) fn load_ahead(
        &self,
        open: &OpenTable,
        n: usize,
        ahead: &mut ReadAhead,
        extent: &Range<usize>,
    ) -> Result<()> {
        let TableBytes::Mapped(map) = &open.source else { return Ok(()) };
        let block = self.block_range(open, n)?;
        if let Some(wanted) = ahead.arrive(&block, open.was_checked(n), extent) {
            map.load_soon(wanted);
        }
        Ok(())
    }

    /// The range to load for a get of a block that was never accessed: if that holds for all of [`AROUND`] blocks, all
    /// of them, which brings a newly opened database into memory with fewer reads. In a database larger than memory, the
    /// others would only evict what later gets need. `touched` are the bits of its neighbours in
    /// [`OpenTable::checked`].
    #[cold]
    pub(super) fn to_load(
        &self,
        open: &OpenTable,
        n: usize,
        block: &Range<usize>,
        touched: u64,
    ) -> Range<usize> {
        let untouched = touched >> (n % 64 / AROUND * AROUND) & ((1 << AROUND) - 1) == 0;
        if !untouched || !self.context.has_room() {
            return block.clone();
        }
        let first = n / AROUND * AROUND;
        let last = (first + AROUND).min(open.fences.blocks()).saturating_sub(1);
        match (self.block_range(open, first), self.block_range(open, last)) {
            (Ok(first), Ok(last)) if last.end.saturating_sub(first.start) <= MOST_AROUND => {
                first.start..last.end
            }
            _ => block.clone(),
        }
    }

    /// As [`Table::load`], for ranges longer than a block: requested as a whole, not page by page.
    pub(super) fn load_whole(&self, map: &Mapping, range: &Range<usize>) -> Result<()> {
        map.load_soon(range.clone());
        self.load(map, range)
    }

    /// Must be called before the first access to bytes of a mapping: see [`Mapping::load`].
    #[cold]
    pub(super) fn load(&self, map: &Mapping, range: &Range<usize>) -> Result<()> {
        map.load(range.clone()).map_err(|e| {
            let detail = format!("bytes {} to {} cannot be read: {e}", range.start, range.end);
            Error::io("read", self.path())(io::Error::new(e.kind(), detail))
        })
    }

    #[cold]
    fn check_block<'a>(&self, bytes: &'a [u8], at: usize) -> Result<Stored<'a>> {
        sst_block::check(bytes, self.meta.id, at as u64).map_err(|why| self.bad_block(at, why))
    }

    /// Reads a block from the file itself and verifies it, even if that was done before.
    pub(super) fn recheck_block(&self, open: &OpenTable, n: usize) -> Result<()> {
        let range = self.block_range(open, n)?;
        let at = range.start;
        match &open.source {
            TableBytes::Mapped(map) => {
                self.load(map, &range)?;
                self.check_block(map.get(range).unwrap_or_default(), at).map(drop)
            }
            TableBytes::Pread(_) => self.check_block(&self.read(&*self.open_file()?, range)?, at).map(drop),
        }
    }
}
