//! The order of a memtable's records, made when it is read in order.
//!
//! Inserts leave records unordered. A cursor, and a flush, sorts those that were added since the last time and merges
//! them in. Addresses are kept in blocks, so that few records added to many move few addresses; blocks are shared with
//! the cursors that read them, and copied only if one still does.

use std::cmp::Ordering as Order;
use std::sync::Arc;

use super::arena::{Address, Seen};

/// Addresses in a block, at most. Tests have many blocks.
const BLOCK: usize = if cfg!(test) { 8 } else { 256 };

/// Addresses of records, ordered by key, and versions of a key from the newest to the oldest.
#[derive(Clone, Debug, Default)]
pub(super) struct Sorted {
    /// None is empty.
    blocks: Vec<Arc<Vec<Address>>>,
}

/// A position in [`Sorted`]: a block, and a place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(usize, usize);

impl Position {
    pub(super) const START: Self = Self(0, 0);
    /// Behind all records.
    pub(super) const END: Self = Self(usize::MAX, 0);
}

/// All records up to some moment, in order.
#[derive(Debug, Default)]
pub(super) struct Ordered {
    pub(super) sorted: Arc<Sorted>,
    pub(super) seen: Seen,
}

impl Sorted {
    #[inline]
    pub(super) fn get(&self, at: Position) -> Option<Address> {
        self.blocks.get(at.0)?.get(at.1).copied()
    }

    /// The first position whose record is not `before`.
    pub(super) fn seek(&self, before: impl Fn(Address) -> bool) -> Position {
        let last_before = |block: &Arc<Vec<Address>>| block.last().is_some_and(|&last| before(last));
        let block = self.blocks.partition_point(last_before);
        let at = self.blocks.get(block).map_or(0, |block| block.partition_point(|&record| before(record)));
        Position(block, at)
    }

    #[inline]
    pub(super) fn next(&self, Position(block, at): Position) -> Position {
        match self.blocks.get(block) {
            Some(current) if at + 1 < current.len() => Position(block, at + 1),
            _ => Position(block + 1, 0),
        }
    }

    /// The position before; `None` at the start.
    #[inline]
    pub(super) fn previous(&self, Position(block, at): Position) -> Option<Position> {
        if let Some(at) = at.checked_sub(1) {
            return Some(Position(block, at));
        }
        let block = block.min(self.blocks.len()).checked_sub(1)?;
        Some(Position(block, self.blocks.get(block)?.len().checked_sub(1)?))
    }

    pub(super) fn ends(&self) -> Option<(Address, Address)> {
        Some((*self.blocks.first()?.first()?, *self.blocks.last()?.last()?))
    }

    /// Merges in further records, which are in order themselves.
    pub(super) fn add(&mut self, records: &[Address], cmp: impl Fn(Address, Address) -> Order) {
        let mut rest = records;
        let mut block = 0;
        while let Some(&first) = rest.first() {
            let behind = |other: Address| cmp(other, first).is_lt();
            let starts_before = |block: &Arc<Vec<Address>>| block.first().is_some_and(|&start| behind(start));
            // The last block that starts before the record; the first one takes what is before all.
            let from = self.blocks.get(block..).unwrap_or_default();
            block += from.partition_point(starts_before).saturating_sub(1);
            let end = self.blocks.get(block + 1).and_then(|next| next.first().copied());
            let count = rest.partition_point(|&record| end.is_none_or(|end| cmp(record, end).is_lt()));
            // At least one, lest this never ends; with an order that is none, in the wrong place.
            let (here, behind) = rest.split_at_checked(count.max(1)).unwrap_or((rest, &[]));
            rest = behind;
            block = self.add_to_block(block, here, &cmp);
        }
    }

    /// Merges records into a block; returns the last of the blocks that it became.
    fn add_to_block(
        &mut self,
        block: usize,
        records: &[Address],
        cmp: &impl Fn(Address, Address) -> Order,
    ) -> usize {
        let Some(old) = self.blocks.get_mut(block) else {
            self.blocks.extend(records.chunks(BLOCK / 2).map(|part| Arc::new(part.to_vec())));
            return self.blocks.len().saturating_sub(1);
        };
        if let [record] = records
            && old.len() < BLOCK
        {
            let at = old.partition_point(|&other| cmp(other, *record).is_lt());
            Arc::make_mut(old).insert(at, *record);
            return block;
        }
        let mut merged = Vec::with_capacity(old.len() + records.len());
        let mut others = old.as_slice();
        for &record in records {
            let (before, behind) = others
                .split_at_checked(others.partition_point(|&other| cmp(other, record).is_lt()))
                .unwrap_or((others, &[]));
            merged.extend_from_slice(before);
            merged.push(record);
            others = behind;
        }
        merged.extend_from_slice(others);
        if merged.len() <= BLOCK {
            *old = Arc::new(merged);
            return block;
        }
        let parts: Vec<_> = merged.chunks(BLOCK / 2).map(|part| Arc::new(part.to_vec())).collect();
        let count = parts.len();
        self.blocks.splice(block..=block, parts);
        block + count - 1
    }
}
