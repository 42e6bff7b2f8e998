//! Cursors over an SST and over the parts of a run, within a range of keys, in either direction.
//!
//! A cursor pins its current block. Full scans, including merges, add nothing to the block cache, and queries add only
//! their first blocks: otherwise a single scan could evict the blocks that gets need.

use std::ops::Range;
use std::sync::Arc;
use std::vec;

use super::blocks::{BlockData, CacheFill};
use super::open::OpenTable;
use super::read_ahead::{MOST_AHEAD, ReadAhead};
use super::table::Table;
use crate::coding::part;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::KeyRange;
use crate::prefetch::prefetch;
use crate::slice::Slice;
use crate::sst_block::{BadBlock, Block, GROUP_LEN};
use crate::types::{Direction, EntryHead, EntryKind, EntryRef, FileId, SeqNo};

/// Number of blocks of one file that a query may add to the cache.
const CACHED_BLOCKS: usize = 8;

/// Values up to this length are brought into the processor's cache together with their group.
const PREFETCHED_VALUE: u32 = 512;

/// The entries of an SST in a range. Decodes one group at a time, and values only on request.
#[derive(Debug)]
pub(crate) struct TableCursor {
    table: Arc<Table>,
    walk: Walk,
}

/// The position of a [`TableCursor`].
#[derive(Debug)]
struct Walk {
    direction: Direction,
    /// The payload of the current block.
    payload: Slice,
    /// Number of blocks that may still be added to the cache.
    cacheable: usize,
    ahead: ReadAhead,
    /// The last block, in the cursor's direction, that can have keys in the range, and the bytes of the file that the
    /// cursor can reach.
    last_block: usize,
    extent: Range<usize>,
    /// Where the range ends within the last block: its end or, in reverse, its start, without the file's prefix.
    bound: Option<Box<[u8]>>,
    /// The current group, its number, and the number of groups in its block.
    rows: Rows,
    block: usize,
    /// Offset of the current block in the file.
    block_at: usize,
    group: usize,
    groups: usize,
    /// The current entry, and its full key.
    row: Row,
    key: Vec<u8>,
    prefix_len: usize,
    /// Number of bytes of `key` after the prefix that are those of the group's first key.
    of_first: usize,
    /// Whether there is a current entry.
    live: bool,
    /// Whether the end of the range was reached.
    done: bool,
}

/// Value of `block` before the first block is loaded.
const NONE: usize = usize::MAX;

/// The decoded entries of a group. Those in the range are `from..to`, and the current one is among them.
#[derive(Debug, Default)]
struct Rows {
    rows: [Row; GROUP_LEN],
    from: usize,
    to: usize,
    at: usize,
    /// Entries were left out: the range ends in this group.
    cut: bool,
}

/// A decoded entry. Offsets are relative to the payload of its block, whose length is stored in 32 bits.
#[derive(Clone, Copy, Debug)]
struct Row {
    seq: SeqNo,
    /// Length of the part of its key that is shared with the first row's tail.
    shared: u32,
    tail_at: u32,
    tail_len: u32,
    value_at: u32,
    value_len: u32,
    kind: EntryKind,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            seq: 0,
            shared: 0,
            tail_at: 0,
            tail_len: 0,
            value_at: 0,
            value_len: 0,
            kind: EntryKind::Delete,
        }
    }
}

impl Row {
    fn tail<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        part(payload, self.tail_at as usize..(self.tail_at + self.tail_len) as usize)
    }

    fn value<'a>(&self, payload: &'a [u8]) -> &'a [u8] {
        part(payload, self.value_at as usize..(self.value_at + self.value_len) as usize)
    }
}

impl Rows {
    /// Decodes a group. After an error there are no rows.
    fn decode(&mut self, block: &Block<'_>, n: usize, base_seq: SeqNo) -> Result<(), BadBlock> {
        (self.from, self.to, self.at, self.cut) = (0, 0, 0, false);
        let mut group = block.group(n, base_seq)?;
        let mut len = 0;
        while let Some(entry) = group.next_entry()? {
            // A group has no more entries than this.
            let Some(row) = self.rows.get_mut(len) else { break };
            *row = Row {
                seq: entry.seq,
                shared: entry.head.len() as u32,
                tail_at: entry.tail_at as u32,
                tail_len: entry.tail.len() as u32,
                value_at: entry.value_at as u32,
                value_len: entry.value_len as u32,
                kind: entry.kind,
            };
            len += 1;
        }
        if len == 0 {
            return Err(BadBlock::Malformed("a group has no entries"));
        }
        self.to = len;
        self.prefetch_values(block.payload());
        Ok(())
    }

    /// Prefetches the start of each value. Large values may be on pages that nobody asks for.
    #[inline]
    fn prefetch_values(&self, payload: &[u8]) {
        let rows = || self.rows.iter().take(self.to);
        if rows().all(|row| row.value_len <= PREFETCHED_VALUE) {
            rows().for_each(|row| prefetch(payload, row.value_at as usize));
        }
    }

    /// Whether the key of an entry is below `key`. Both omit the file's prefix.
    fn is_below(&self, n: usize, key: &[u8], payload: &[u8]) -> bool {
        let (Some(first), Some(row)) = (self.rows.first(), self.rows.get(n)) else { return false };
        let head = part(first.tail(payload), ..row.shared as usize);
        match key.split_at_checked(head.len()) {
            Some((key_head, rest)) => (head, row.tail(payload)) < (key_head, rest),
            None => head < key,
        }
    }

    /// Number of entries in front whose keys are below `key`.
    fn below(&self, key: &[u8], payload: &[u8]) -> usize {
        (0..self.to).take_while(|&n| self.is_below(n, key, payload)).count()
    }

    /// Leaves out the entries past the end of the range.
    fn clip(&mut self, bound: &[u8], direction: Direction, payload: &[u8]) {
        let (from, to) = (self.from, self.to);
        match direction {
            Direction::Forward => {
                while self.to > from && !self.is_below(self.to - 1, bound, payload) {
                    self.to -= 1;
                }
            }
            Direction::Reverse => self.from = self.below(bound, payload),
        }
        self.cut = (self.from, self.to) != (from, to);
    }

    #[inline]
    fn current(&self) -> Option<&Row> {
        self.rows.get(self.at).filter(|_| self.at >= self.from && self.at < self.to)
    }

    /// Moves to the next entry of the group, if there is one.
    #[inline]
    fn step(&mut self, direction: Direction) -> bool {
        match direction {
            Direction::Forward if self.at + 1 < self.to => self.at += 1,
            Direction::Reverse if self.at > self.from => self.at -= 1,
            _ => return false,
        }
        true
    }
}

/// Selects a group of a block.
#[derive(Clone, Copy)]
enum Which {
    Nth(usize),
    Last,
}

impl Table {
    /// Returns a cursor over the entries whose keys are in `range`.
    pub(crate) fn iter(self: &Arc<Self>, range: &KeyRange, direction: Direction) -> Result<TableCursor> {
        self.iter_within(range, direction, MOST_AHEAD)
    }

    /// The same, with at most `most_ahead` bytes loaded ahead of the cursor.
    fn iter_within(
        self: &Arc<Self>,
        range: &KeyRange,
        direction: Direction,
        most_ahead: usize,
    ) -> Result<TableCursor> {
        let open = self.opened()?;
        let everything = *range == KeyRange::all();
        let mut walk = Walk {
            direction,
            payload: Slice::default(),
            cacheable: if everything { 0 } else { CACHED_BLOCKS },
            ahead: ReadAhead::new(direction, everything, most_ahead),
            last_block: 0,
            extent: 0..0,
            bound: None,
            rows: Rows::default(),
            block: NONE,
            block_at: 0,
            group: 0,
            groups: 0,
            row: Row::default(),
            key: open.prefix.to_vec(),
            prefix_len: open.prefix.len(),
            of_first: 0,
            live: false,
            done: false,
        };
        walk.limit(self, open, range)?;
        if !walk.done {
            walk.seek(self, open, range)?;
            walk.settle();
        }
        Ok(TableCursor { table: Arc::clone(self), walk })
    }
}

/// The position of a key relative to the keys with a given prefix.
enum Relative<'a> {
    Below,
    Among(&'a [u8]),
    Above,
}

fn relative<'a>(key: &'a [u8], prefix: &[u8]) -> Relative<'a> {
    match key.strip_prefix(prefix) {
        Some(rest) => Relative::Among(rest),
        None if key < prefix => Relative::Below,
        None => Relative::Above,
    }
}

impl Walk {
    /// Finds where the range ends. A bound that excludes nothing in this file need not be compared with any key.
    fn limit(&mut self, table: &Table, open: &OpenTable, range: &KeyRange) -> Result<()> {
        let (first, last) = &table.meta().keys;
        let bound = match self.direction {
            Direction::Forward => range.end.as_deref().filter(|end| *end <= last.as_slice()),
            Direction::Reverse => Some(range.start.as_slice()).filter(|start| *start > first.as_slice()),
        };
        match (bound.map(|bound| relative(bound, &open.prefix)), self.direction) {
            (Some(Relative::Among(key)), _) => {
                self.last_block = locate(table, open, key)?;
                self.bound = Some(key.into());
            }
            (Some(Relative::Below), Direction::Forward) | (Some(Relative::Above), Direction::Reverse) => {
                self.done = true;
            }
            (_, Direction::Forward) => self.last_block = open.fences.blocks() - 1,
            (_, Direction::Reverse) => self.last_block = 0,
        }
        self.extent = table.extent(open, self.last_block, self.direction)?;
        Ok(())
    }

    /// Moves to the first entry, in the cursor's direction, that is not before the range.
    fn seek(&mut self, table: &Table, open: &OpenTable, range: &KeyRange) -> Result<()> {
        match self.direction {
            Direction::Forward => match relative(&range.start, &open.prefix) {
                Relative::Below => self.load(table, open, 0, Which::Nth(0))?,
                Relative::Among(key) => {
                    self.rows.at = self.seek_group(table, open, key)?;
                    if self.rows.current().is_none() {
                        self.leave_group(table, open)?;
                    }
                }
                Relative::Above => self.done = true,
            },
            Direction::Reverse => match range.end.as_deref().map(|end| relative(end, &open.prefix)) {
                None | Some(Relative::Above) => {
                    self.load(table, open, open.fences.blocks() - 1, Which::Last)?;
                }
                Some(Relative::Among(key)) => match self.seek_group(table, open, key)?.checked_sub(1) {
                    Some(at) if at >= self.rows.from => self.rows.at = at,
                    _ => self.leave_group(table, open)?,
                },
                Some(Relative::Below) => self.done = true,
            },
        }
        Ok(())
    }

    /// Loads the group that has `key` (without the prefix) or would have it, and returns the number of its entries
    /// below the key: all if the key is at the start of the next group, none if it is at the very start.
    fn seek_group(&mut self, table: &Table, open: &OpenTable, key: &[u8]) -> Result<usize> {
        let number = locate(table, open, key)?;
        let data = self.read(table, open, number)?;
        let block = table.parse(&data)?;
        let bad = |why| table.bad_block(data.at, why);
        let mut chosen = 0;
        for n in 1..block.groups() {
            let first =
                block.group(n, open.base_seq).and_then(|mut group| group.next_entry()).map_err(bad)?;
            if first.is_some_and(|entry| entry.cmp_key(key).is_ge()) {
                break;
            }
            chosen = n;
        }
        self.enter(table, open, number, &data, Which::Nth(chosen))?;
        Ok(self.rows.below(key, &self.payload))
    }

    /// Reads a block other than the current one.
    fn read<'a>(&mut self, table: &Table, open: &'a OpenTable, number: usize) -> Result<BlockData<'a>> {
        let fill = if self.cacheable > 0 { CacheFill::Cache } else { CacheFill::Bypass };
        self.cacheable = self.cacheable.saturating_sub(1);
        table.load_ahead(open, number, &mut self.ahead, &self.extent)?;
        table.block(open, number, fill)
    }

    /// Makes a group current, at its first entry in the cursor's direction. After an error there is no current entry,
    /// and the next call may be the same.
    fn load(&mut self, table: &Table, open: &OpenTable, number: usize, which: Which) -> Result<()> {
        if number != self.block {
            let data = self.read(table, open, number)?;
            return self.enter(table, open, number, &data, which);
        }
        let block = Block::parse(&self.payload).map_err(|why| table.bad_block(self.block_at, why))?;
        let n = match which {
            Which::Nth(n) => n,
            Which::Last => block.groups().saturating_sub(1),
        };
        let decoded = self.rows.decode(&block, n, open.base_seq);
        decoded.map_err(|why| table.bad_block(self.block_at, why))?;
        self.group = n;
        self.entered();
        Ok(())
    }

    /// The same for a group of a block that was read already.
    fn enter(
        &mut self,
        table: &Table,
        open: &OpenTable,
        number: usize,
        data: &BlockData<'_>,
        which: Which,
    ) -> Result<()> {
        let bad = |why| table.bad_block(data.at, why);
        let block = Block::parse(data.payload()).map_err(bad)?;
        let n = match which {
            Which::Nth(n) => n,
            Which::Last => block.groups().saturating_sub(1),
        };
        self.rows.decode(&block, n, open.base_seq).map_err(bad)?;
        let payload = data.to_slice();
        self.payload = payload.ok_or_else(|| table.corrupt(data.at, "the block is out of bounds"))?;
        (self.block, self.block_at) = (number, data.at);
        (self.group, self.groups) = (n, block.groups());
        self.entered();
        match self.direction {
            Direction::Forward if number < self.last_block => table.prefetch_block(open, number + 1),
            Direction::Reverse if number > self.last_block => table.prefetch_block(open, number - 1),
            _ => {}
        }
        Ok(())
    }

    /// Clips the rows of the current group to the range, and goes to the first of them.
    fn entered(&mut self) {
        self.of_first = 0;
        let rows = &mut self.rows;
        let last = match self.direction {
            Direction::Forward => self.block >= self.last_block,
            Direction::Reverse => self.block <= self.last_block,
        };
        if let Some(bound) = self.bound.as_deref().filter(|_| last) {
            rows.clip(bound, self.direction, &self.payload);
            self.done = rows.from == rows.to;
        }
        rows.at = match self.direction {
            Direction::Forward => rows.from,
            Direction::Reverse => rows.to.saturating_sub(1),
        };
    }

    /// Moves to the next group in the cursor's direction, or ends the cursor. After an error there is no current entry,
    /// and the next call retries.
    fn leave_group(&mut self, table: &Table, open: &OpenTable) -> Result<()> {
        match self.direction {
            _ if self.rows.cut => {}
            Direction::Forward if self.group + 1 < self.groups => {
                return self.load(table, open, self.block, Which::Nth(self.group + 1));
            }
            Direction::Forward if self.block < self.last_block => {
                return self.load(table, open, self.block + 1, Which::Nth(0));
            }
            Direction::Reverse if self.group > 0 => {
                return self.load(table, open, self.block, Which::Nth(self.group - 1));
            }
            Direction::Reverse if self.block > self.last_block => {
                return self.load(table, open, self.block - 1, Which::Last);
            }
            _ => {}
        }
        self.done = true;
        Ok(())
    }

    /// Builds the current entry's key, from as much of the previous one as they share with the group's first key.
    #[inline]
    fn settle(&mut self) {
        let row = self.rows.current().filter(|_| !self.done);
        self.live = row.is_some();
        let Some(&row) = row else { return };
        let shared = row.shared as usize;
        let kept = shared.min(self.of_first);
        self.key.truncate(self.prefix_len + kept);
        if kept < shared {
            let first = self.rows.rows.first().map_or([].as_slice(), |first| first.tail(&self.payload));
            self.key.extend_from_slice(part(first, kept..shared));
        }
        self.key.extend_from_slice(row.tail(&self.payload));
        // The group's first entry has all of its key in its tail.
        self.of_first = if self.rows.at == 0 { row.tail_len as usize } else { shared };
        self.row = row;
    }

    #[inline]
    fn row(&self) -> Option<&Row> {
        self.live.then_some(&self.row)
    }
}

fn locate(table: &Table, open: &OpenTable, key: &[u8]) -> Result<usize> {
    let located = open.fences.locate(open.fence_section(), key);
    located.ok_or_else(|| table.corrupt(0, "the fences are inconsistent"))
}

impl Cursor for TableCursor {
    #[inline]
    fn entry(&self) -> Option<EntryRef<'_>> {
        let walk = &self.walk;
        walk.row().map(|row| EntryRef {
            key: &walk.key,
            seq: row.seq,
            kind: row.kind,
            value: row.value(&walk.payload),
        })
    }

    #[inline]
    fn head(&self) -> Option<EntryHead<'_>> {
        let Row { seq, kind, value_len, .. } = *self.walk.row()?;
        Some(EntryHead { key: &self.walk.key, seq, kind, value_len: value_len as usize })
    }

    fn value(&self) -> Slice {
        let Some(row) = self.walk.row() else { return Slice::default() };
        let value = self.walk.payload.slice(row.value_at as usize, row.value_len as usize);
        debug_assert!(value.is_some(), "a value is out of its block");
        value.unwrap_or_default()
    }

    #[inline]
    fn advance(&mut self) -> Result<()> {
        let walk = &mut self.walk;
        if walk.done {
            return Ok(());
        }
        if !walk.rows.step(walk.direction) {
            walk.live = false;
            walk.leave_group(&self.table, self.table.opened()?)?;
        }
        walk.settle();
        Ok(())
    }

    fn place(&self) -> Option<(FileId, usize)> {
        Some((self.table.meta().id, self.walk.block))
    }
}

/// The entries of a run in a range: its parts in succession, each opened when it is reached.
#[derive(Debug)]
pub(crate) struct ChainCursor {
    current: Option<TableCursor>,
    /// The remaining parts, in the cursor's order.
    parts: vec::IntoIter<Arc<Table>>,
    range: KeyRange,
    direction: Direction,
    most_ahead: usize,
}

impl ChainCursor {
    /// `parts` are in key order, whatever the direction. At most `most_ahead` bytes are loaded ahead of the cursor.
    pub(crate) fn new(
        parts: &[Arc<Table>],
        range: &KeyRange,
        direction: Direction,
        most_ahead: usize,
    ) -> Result<Self> {
        let overlaps = |part: &&Arc<Table>| {
            let (first, last) = &part.meta().keys;
            *last >= range.start && range.end.as_ref().is_none_or(|end| first < end)
        };
        let mut parts: Vec<_> = parts.iter().filter(overlaps).map(Arc::clone).collect();
        if direction == Direction::Reverse {
            parts.reverse();
        }
        let range = range.clone();
        let mut cursor = Self { current: None, parts: parts.into_iter(), range, direction, most_ahead };
        cursor.skip_finished()?;
        Ok(cursor)
    }

    /// Opens the next parts until one has an entry. On error, the next call retries.
    fn skip_finished(&mut self) -> Result<()> {
        while self.entry().is_none()
            && let Some(part) = self.parts.as_slice().first()
        {
            self.current = Some(part.iter_within(&self.range, self.direction, self.most_ahead)?);
            self.parts.next();
        }
        Ok(())
    }
}

impl Cursor for ChainCursor {
    #[inline]
    fn entry(&self) -> Option<EntryRef<'_>> {
        self.current.as_ref()?.entry()
    }

    #[inline]
    fn head(&self) -> Option<EntryHead<'_>> {
        self.current.as_ref()?.head()
    }

    fn value(&self) -> Slice {
        self.current.as_ref().map_or_else(Slice::default, Cursor::value)
    }

    #[inline]
    fn advance(&mut self) -> Result<()> {
        if let Some(current) = &mut self.current {
            current.advance()?;
            if current.walk.live {
                return Ok(());
            }
        }
        self.skip_finished()
    }

    fn place(&self) -> Option<(FileId, usize)> {
        self.current.as_ref()?.place()
    }
}
