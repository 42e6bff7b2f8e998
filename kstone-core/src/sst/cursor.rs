//! Cursors over an SST and over the parts of a run, within a range of keys, in either direction.
//!
//! A cursor pins its current block. Full scans, including merges, add nothing to the block cache, and queries add only
//! their first blocks: otherwise a single scan could evict the blocks that gets need.

use std::sync::Arc;
use std::vec;

use smallvec::SmallVec;

use super::blocks::{BlockData, CacheFill};
use super::open::OpenTable;
use super::read_ahead::{MOST_AHEAD, ReadAhead};
use super::table::Table;
use crate::coding::part;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::KeyRange;
use crate::slice::Slice;
use crate::sst_block::{BadBlock, Block, GROUP_LEN};
use crate::types::{Direction, EntryKind, EntryRef, FileId, SeqNo};

/// Number of blocks of one file that a query may add to the cache.
const CACHED_BLOCKS: usize = 8;

/// The entries of an SST in a range. Decodes one group at a time, and values only on request.
#[derive(Debug)]
pub(crate) struct TableCursor {
    table: Arc<Table>,
    /// The payload of the current block.
    payload: Slice,
    /// Number of blocks that may still be added to the cache.
    cacheable: usize,
    ahead: ReadAhead,
    direction: Direction,
    range: KeyRange,
    /// The current group, its number, and the number of groups in its block.
    rows: Rows,
    block: usize,
    /// Offset of the current block in the file.
    block_at: usize,
    group: usize,
    groups: usize,
    /// The index of the current entry in the group, and its full key.
    at: usize,
    key: Vec<u8>,
    prefix_len: usize,
    /// Whether the end of the range was reached.
    done: bool,
}

/// Value of `block` before the first block is loaded.
const NONE: usize = usize::MAX;

type Rows = SmallVec<[Row; GROUP_LEN]>;

/// A decoded entry. Offsets are relative to the payload of its block.
#[derive(Clone, Copy, Debug)]
struct Row {
    kind: EntryKind,
    seq: SeqNo,
    /// Length of the part of its key that is shared with the first row's tail.
    shared: usize,
    tail: (usize, usize),
    value: (usize, usize),
}

/// Selects a group of a block.
#[derive(Clone, Copy)]
enum Which {
    Nth(usize),
    Last,
}

impl Table {
    /// Returns a cursor over the entries whose keys are in `range`.
    pub(crate) fn iter(self: &Arc<Self>, range: KeyRange, direction: Direction) -> Result<TableCursor> {
        self.iter_within(range, direction, MOST_AHEAD)
    }

    /// The same, with at most `most_ahead` bytes loaded ahead of the cursor.
    fn iter_within(
        self: &Arc<Self>,
        range: KeyRange,
        direction: Direction,
        most_ahead: usize,
    ) -> Result<TableCursor> {
        let open = self.opened()?;
        let everything = range == KeyRange::all();
        let mut cursor = TableCursor {
            table: Arc::clone(self),
            payload: Slice::default(),
            cacheable: if everything { 0 } else { CACHED_BLOCKS },
            ahead: ReadAhead::new(direction, everything, most_ahead),
            direction,
            range: KeyRange::all(),
            rows: Rows::new(),
            block: NONE,
            block_at: 0,
            group: 0,
            groups: 0,
            at: 0,
            key: open.prefix.to_vec(),
            prefix_len: open.prefix.len(),
            done: false,
        };
        cursor.seek(open, &range)?;
        cursor.range = self.clip(range);
        cursor.settle();
        Ok(cursor)
    }

    /// Returns the same range without bounds that exclude nothing in this file, so that they need not be compared.
    fn clip(&self, mut range: KeyRange) -> KeyRange {
        let (first, last) = &self.meta().keys;
        if range.start <= *first {
            range.start.clear();
        }
        range.end = range.end.filter(|end| end <= last);
        range
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

impl TableCursor {
    /// Moves to the first entry, in the cursor's direction, that is not before the range. It may be past the range.
    fn seek(&mut self, open: &OpenTable, range: &KeyRange) -> Result<()> {
        match self.direction {
            Direction::Forward => match relative(&range.start, &open.prefix) {
                Relative::Below => self.load(open, 0, Which::Nth(0))?,
                Relative::Among(key) => {
                    self.at = self.seek_group(open, key)?;
                    if self.at == self.rows.len() {
                        self.next_group(open)?;
                    }
                }
                Relative::Above => self.done = true,
            },
            Direction::Reverse => match range.end.as_deref().map(|end| relative(end, &open.prefix)) {
                None | Some(Relative::Above) => {
                    self.load(open, open.fences.blocks() - 1, Which::Last)?;
                    self.at = self.rows.len().saturating_sub(1);
                }
                Some(Relative::Among(key)) => match self.seek_group(open, key)?.checked_sub(1) {
                    Some(last) => self.at = last,
                    None => self.next_group(open)?,
                },
                Some(Relative::Below) => self.done = true,
            },
        }
        Ok(())
    }

    /// Loads the group that has `key` (without the prefix) or would have it, and returns the number of its entries
    /// below the key: all if the key is at the start of the next group, none if it is at the very start.
    fn seek_group(&mut self, open: &OpenTable, key: &[u8]) -> Result<usize> {
        let table = Arc::clone(&self.table);
        let located = open.fences.locate(open.fence_section(), key);
        let number = located.ok_or_else(|| table.corrupt(0, "the fences are inconsistent"))?;
        let data = self.read(open, number)?;
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
        let mut group = block.group(chosen, open.base_seq).map_err(bad)?;
        let mut below = 0;
        while group.next_entry().map_err(bad)?.is_some_and(|entry| entry.cmp_key(key).is_lt()) {
            below += 1;
        }
        self.enter(open, number, &data, Which::Nth(chosen))?;
        Ok(below)
    }

    /// Reads a block other than the current one.
    fn read<'a>(&mut self, open: &'a OpenTable, number: usize) -> Result<BlockData<'a>> {
        let fill = if self.cacheable > 0 { CacheFill::Cache } else { CacheFill::Bypass };
        self.cacheable = self.cacheable.saturating_sub(1);
        self.table.load_ahead(open, number, &mut self.ahead)?;
        self.table.block(open, number, fill)
    }

    /// Makes a group current, at its first entry. On error nothing changes.
    fn load(&mut self, open: &OpenTable, number: usize, which: Which) -> Result<()> {
        if number != self.block {
            let data = self.read(open, number)?;
            return self.enter(open, number, &data, which);
        }
        let (rows, n, groups) = self.rows_of(open, &self.payload, self.block_at, which)?;
        (self.rows, self.group, self.groups, self.at) = (rows, n, groups, 0);
        Ok(())
    }

    /// The same for a group of a block that was read already.
    fn enter(&mut self, open: &OpenTable, number: usize, data: &BlockData<'_>, which: Which) -> Result<()> {
        let (rows, n, groups) = self.rows_of(open, data.payload(), data.at, which)?;
        let payload = data.to_slice();
        self.payload = payload.ok_or_else(|| self.table.corrupt(data.at, "the block is out of bounds"))?;
        (self.block, self.block_at) = (number, data.at);
        (self.rows, self.group, self.groups, self.at) = (rows, n, groups, 0);
        Ok(())
    }

    /// Decodes a group. Returns its entries, its number, and the number of groups in the block, which starts at `at`.
    fn rows_of(
        &self,
        open: &OpenTable,
        payload: &[u8],
        at: usize,
        which: Which,
    ) -> Result<(Rows, usize, usize)> {
        let bad = |why| self.table.bad_block(at, why);
        let block = Block::parse(payload).map_err(bad)?;
        let n = match which {
            Which::Nth(n) => n,
            Which::Last => block.groups().saturating_sub(1),
        };
        let mut group = block.group(n, open.base_seq).map_err(bad)?;
        let mut rows = Rows::new();
        while let Some(entry) = group.next_entry().map_err(bad)? {
            rows.push(Row {
                kind: entry.kind,
                seq: entry.seq,
                shared: entry.head.len(),
                tail: (entry.tail_at, entry.tail.len()),
                value: (entry.value_at, entry.value_len),
            });
        }
        if rows.is_empty() {
            return Err(bad(BadBlock::Malformed("a group has no entries")));
        }
        Ok((rows, n, block.groups()))
    }

    /// Moves to the next group in the cursor's direction, or ends the cursor. On error nothing changes.
    fn next_group(&mut self, open: &OpenTable) -> Result<()> {
        match self.direction {
            Direction::Forward if self.group + 1 < self.groups => {
                self.load(open, self.block, Which::Nth(self.group + 1))
            }
            Direction::Forward if self.block + 1 < open.fences.blocks() => {
                self.load(open, self.block + 1, Which::Nth(0))
            }
            Direction::Reverse if (self.block, self.group) != (0, 0) => {
                match self.group.checked_sub(1) {
                    Some(group) => self.load(open, self.block, Which::Nth(group))?,
                    None => self.load(open, self.block - 1, Which::Last)?,
                }
                self.at = self.rows.len() - 1;
                Ok(())
            }
            _ => {
                self.done = true;
                Ok(())
            }
        }
    }

    /// Builds the current entry's key, and ends the cursor if the key is out of range.
    fn settle(&mut self) {
        let Some(row) = self.rows.get(self.at).filter(|_| !self.done) else { return };
        let (first, _) = self.rows.first().map_or((0, 0), |first| first.tail);
        let bytes = |at: usize, len: usize| part(&self.payload, at..at + len);
        self.key.truncate(self.prefix_len);
        self.key.extend_from_slice(bytes(first, row.shared));
        self.key.extend_from_slice(bytes(row.tail.0, row.tail.1));
        self.done = match self.direction {
            Direction::Forward => self.range.end.as_ref().is_some_and(|end| self.key >= *end),
            Direction::Reverse => self.key < self.range.start,
        };
    }

    fn row(&self) -> Option<&Row> {
        self.rows.get(self.at).filter(|_| !self.done)
    }
}

impl Cursor for TableCursor {
    fn entry(&self) -> Option<EntryRef<'_>> {
        self.row().map(|row| EntryRef {
            key: &self.key,
            seq: row.seq,
            kind: row.kind,
            value: part(&self.payload, row.value.0..row.value.0 + row.value.1),
        })
    }

    fn value(&self) -> Slice {
        let Some(row) = self.row() else { return Slice::default() };
        let value = self.payload.slice(row.value.0, row.value.1);
        debug_assert!(value.is_some(), "a value is out of its block");
        value.unwrap_or_default()
    }

    fn advance(&mut self) -> Result<()> {
        if self.done {
            return Ok(());
        }
        let next = match self.direction {
            Direction::Forward => Some(self.at + 1).filter(|&next| next < self.rows.len()),
            Direction::Reverse => self.at.checked_sub(1),
        };
        match next {
            Some(next) => self.at = next,
            None => {
                let table = Arc::clone(&self.table);
                self.next_group(table.opened()?)?;
            }
        }
        self.settle();
        Ok(())
    }

    fn place(&self) -> Option<(FileId, usize)> {
        Some((self.table.meta().id, self.block))
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
        range: KeyRange,
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
        let mut cursor = Self { current: None, parts: parts.into_iter(), range, direction, most_ahead };
        cursor.skip_finished()?;
        Ok(cursor)
    }

    /// Opens the next parts until one has an entry. On error, the next call retries.
    fn skip_finished(&mut self) -> Result<()> {
        while self.entry().is_none()
            && let Some(part) = self.parts.as_slice().first()
        {
            self.current = Some(part.iter_within(self.range.clone(), self.direction, self.most_ahead)?);
            self.parts.next();
        }
        Ok(())
    }
}

impl Cursor for ChainCursor {
    fn entry(&self) -> Option<EntryRef<'_>> {
        self.current.as_ref()?.entry()
    }

    fn value(&self) -> Slice {
        self.current.as_ref().map_or_else(Slice::default, Cursor::value)
    }

    fn advance(&mut self) -> Result<()> {
        if let Some(current) = &mut self.current {
            current.advance()?;
        }
        self.skip_finished()
    }

    fn place(&self) -> Option<(FileId, usize)> {
        self.current.as_ref()?.place()
    }
}
