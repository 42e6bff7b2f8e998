//! Cursors over an SST and over the parts of a run, within a range of keys, in either direction.
//!
//! A cursor pins its current block. Full scans, including merges, add nothing to the block cache, and queries add only
//! their first blocks: otherwise a single scan could evict the blocks that gets need.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

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
    range: Arc<KeyRange>,
    /// The first and the last block, in the cursor's direction, that can have keys in the range, and the bytes of the
    /// file that the cursor can reach.
    first_block: usize,
    last_block: usize,
    extent: Range<usize>,
    /// Whether the range ends within the last block.
    bounded: bool,
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

/// Bytes set aside for a key beyond the prefix, so that the buffer rarely grows.
const USUAL_KEY: usize = 64;

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
        let mut cursor = self.cursor(&Arc::new(range.clone()), direction, MOST_AHEAD)?;
        cursor.seek()?;
        Ok(cursor)
    }

    /// A cursor that has yet to [seek](TableCursor::seek), and prefetches what that will read. At most `most_ahead` bytes
    /// are loaded ahead of it.
    fn cursor(
        self: &Arc<Self>,
        range: &Arc<KeyRange>,
        direction: Direction,
        most_ahead: usize,
    ) -> Result<TableCursor> {
        let open = self.opened()?;
        let everything = **range == KeyRange::all();
        let mut key = Vec::with_capacity(open.prefix.len() + USUAL_KEY);
        key.extend_from_slice(&open.prefix);
        let mut walk = Walk {
            direction,
            payload: Slice::default(),
            cacheable: if everything { 0 } else { CACHED_BLOCKS },
            ahead: ReadAhead::new(direction, everything, most_ahead),
            range: Arc::clone(range),
            first_block: 0,
            last_block: 0,
            extent: 0..0,
            bounded: false,
            rows: Rows::default(),
            block: NONE,
            block_at: 0,
            group: 0,
            groups: 0,
            row: Row::default(),
            key,
            prefix_len: open.prefix.len(),
            of_first: 0,
            live: false,
            done: false,
        };
        walk.limit(self, open)?;
        if !walk.done {
            self.prefetch_block(open, walk.first_block);
        }
        Ok(TableCursor { table: Arc::clone(self), walk })
    }
}

impl TableCursor {
    /// Moves to the first entry in the range.
    fn seek(&mut self) -> Result<()> {
        if !self.walk.done {
            self.walk.seek(&self.table, self.table.opened()?)?;
            self.walk.settle();
        }
        Ok(())
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
    /// Finds the blocks that the range begins and ends in.
    fn limit(&mut self, table: &Table, open: &OpenTable) -> Result<()> {
        let inconsistent = || table.corrupt(0, "the fences are inconsistent");
        let (fences, section) = (&open.fences, open.fence_section());
        let (low, from_start) = match relative(&self.range.start, &open.prefix) {
            Relative::Below => (0, false),
            Relative::Among(key) => (fences.locate(section, key).ok_or_else(inconsistent)?, !key.is_empty()),
            Relative::Above => return self.finish(),
        };
        let (high, to_end) = match self.range.end.as_deref().map(|end| relative(end, &open.prefix)) {
            None | Some(Relative::Above) => (fences.blocks() - 1, false),
            // An end below the start leaves nothing in between, wherever it is looked for.
            Some(Relative::Among(key)) => {
                (fences.locate_after(section, key, low).ok_or_else(inconsistent)?, true)
            }
            Some(Relative::Below) => return self.finish(),
        };
        (self.first_block, self.last_block, self.bounded) = match self.direction {
            Direction::Forward => (low, high, to_end),
            Direction::Reverse => (high, low, from_start),
        };
        self.extent = table.extent(open, self.last_block, self.direction)?;
        Ok(())
    }

    /// Nothing in the file is in the range.
    fn finish(&mut self) -> Result<()> {
        self.done = true;
        Ok(())
    }

    /// Moves to the first entry, in the cursor's direction, that is not before the range.
    fn seek(&mut self, table: &Table, open: &OpenTable) -> Result<()> {
        let range = Arc::clone(&self.range);
        match self.direction {
            Direction::Forward => match relative(&range.start, &open.prefix) {
                Relative::Among(key) => {
                    self.rows.at = self.seek_group(table, open, key)?;
                    if self.rows.current().is_none() {
                        self.leave_group(table, open)?;
                    }
                }
                _ => self.load(table, open, self.first_block, Which::Nth(0))?,
            },
            Direction::Reverse => match range.end.as_deref().map(|end| relative(end, &open.prefix)) {
                Some(Relative::Among(key)) => match self.seek_group(table, open, key)?.checked_sub(1) {
                    Some(at) if at >= self.rows.from => self.rows.at = at,
                    _ => self.leave_group(table, open)?,
                },
                _ => self.load(table, open, self.first_block, Which::Last)?,
            },
        }
        Ok(())
    }

    /// Loads the group of the first block that has `key` (without the prefix) or would have it, and returns the number of
    /// its entries below the key: all if the key is at the start of the next group, none if it is at the very start.
    fn seek_group(&mut self, table: &Table, open: &OpenTable, key: &[u8]) -> Result<usize> {
        let number = self.first_block;
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
        if last && self.bounded {
            let bound = match self.direction {
                Direction::Forward => self.range.end.as_deref().unwrap_or_default(),
                Direction::Reverse => &self.range.start,
            };
            rows.clip(part(bound, self.prefix_len..), self.direction, &self.payload);
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
    parts: smallvec::IntoIter<[Arc<Table>; 1]>,
    range: Arc<KeyRange>,
    direction: Direction,
    most_ahead: usize,
}

impl ChainCursor {
    /// A cursor that has yet to [seek](Self::seek). `parts` are in key order, whatever the direction. At most `most_ahead`
    /// bytes are loaded ahead of the cursor.
    pub(crate) fn new(
        parts: &[Arc<Table>],
        range: &Arc<KeyRange>,
        direction: Direction,
        most_ahead: usize,
    ) -> Result<Self> {
        let mut chosen: SmallVec<[_; 1]> = overlapping(parts, range).iter().map(Arc::clone).collect();
        if direction == Direction::Reverse {
            chosen.reverse();
        }
        let first = chosen.first().map(|part| part.cursor(range, direction, most_ahead));
        let (range, mut parts) = (Arc::clone(range), chosen.into_iter());
        parts.next();
        Ok(Self { current: first.transpose()?, parts, range, direction, most_ahead })
    }

    /// Moves to the first entry in the range.
    pub(crate) fn seek(&mut self) -> Result<()> {
        if let Some(current) = &mut self.current {
            current.seek()?;
        }
        self.skip_finished()
    }

    /// Opens the next parts until one has an entry. On error, the next call retries.
    fn skip_finished(&mut self) -> Result<()> {
        while self.entry().is_none()
            && let Some(part) = self.parts.as_slice().first()
        {
            let mut cursor = part.cursor(&self.range, self.direction, self.most_ahead)?;
            cursor.seek()?;
            self.current = Some(cursor);
            self.parts.next();
        }
        Ok(())
    }
}

/// The parts that may have keys in the range.
fn overlapping<'a>(parts: &'a [Arc<Table>], range: &KeyRange) -> &'a [Arc<Table>] {
    let starts_below = |end: &Vec<u8>| parts.partition_point(|part| part.meta().keys.0 < *end);
    let from = parts.partition_point(|part| part.meta().keys.1 < range.start);
    let to = range.end.as_ref().map_or(parts.len(), starts_below);
    parts.get(from..to).unwrap_or_default()
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
