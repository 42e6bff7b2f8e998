//! What a stripe holds at one moment: an immutable list of memtables and runs, newest first.
//!
//! Sequences fall from source to source, so the first version of a key that a look-up meets is its newest.

use std::sync::Arc;

use crate::error::Result;
use crate::key::KeyRange;
use crate::memtable::Memtable;
use crate::merge::{Cursor, MergeCursor};
use crate::slice::Found;
use crate::sst::{ChainCursor, Table};
use crate::types::{Direction, RunId, SeqNo, SstMeta};

/// A key-ordered list of SSTs that were written together.
#[derive(Debug)]
pub(crate) struct Run {
    /// At least one, ascending and disjoint in keys, all of the same run, depth and run sequences.
    pub(crate) parts: Vec<Arc<Table>>,
}

impl Run {
    pub(crate) fn new(parts: Vec<Arc<Table>>) -> Self {
        Self { parts }
    }

    fn first(&self) -> Option<&SstMeta> {
        self.parts.first().map(|table| &**table.meta())
    }

    pub(crate) fn id(&self) -> RunId {
        self.first().map_or(0, |meta| meta.run)
    }

    pub(crate) fn depth(&self) -> u32 {
        self.first().map_or(0, |meta| meta.depth)
    }

    /// The lowest and highest sequence of what it was made from.
    pub(crate) fn seq(&self) -> (SeqNo, SeqNo) {
        self.first().map_or((0, 0), |meta| meta.run_seq)
    }

    pub(crate) fn total(&self, of: impl Fn(&SstMeta) -> u64) -> u64 {
        self.parts.iter().map(|table| of(table.meta())).sum()
    }

    /// The newest version of a key at or below `max_seq`. Parts do not share keys, so one part is asked.
    fn get(&self, key: &[u8], hash: u64, max_seq: SeqNo) -> Result<Option<Found>> {
        if let [table] = self.parts.as_slice() {
            // Its filter answers with fewer loads than comparing key ranges takes.
            return table.get(key, hash, max_seq);
        }
        let at = self.parts.partition_point(|table| table.meta().keys.1.as_slice() < key);
        match self.parts.get(at) {
            Some(table) if table.meta().keys.0.as_slice() <= key => table.get(key, hash, max_seq),
            _ => Ok(None),
        }
    }

    pub(crate) fn cursor(&self, range: KeyRange, direction: Direction) -> Result<ChainCursor> {
        ChainCursor::new(&self.parts, range, direction)
    }
}

/// Replaced as a whole under the stripe's lock; a reader that holds one keeps all of it.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) active: Arc<Memtable>,
    /// Full memtables that wait to be flushed, newest first.
    pub(crate) sealed: Vec<Arc<Memtable>>,
    /// Newest first.
    pub(crate) runs: Vec<Arc<Run>>,
}

impl Version {
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(&self.sealed)
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.runs.iter().flat_map(|run| &run.parts)
    }

    /// The newest version of a key at or below `max_seq`, tombstones included.
    pub(crate) fn get(&self, key: &[u8], hash: u64, max_seq: SeqNo) -> Result<Option<Found>> {
        for memtable in self.memtables() {
            if let Some(found) = memtable.get(key, max_seq) {
                return Ok(Some(found));
            }
        }
        for run in &self.runs {
            if let Some(found) = run.get(key, hash, max_seq)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// All versions within a range, in order.
    pub(crate) fn cursors(
        &self,
        range: &KeyRange,
        max_seq: SeqNo,
        direction: Direction,
    ) -> Result<Vec<Box<dyn Cursor>>> {
        let mut cursors: Vec<Box<dyn Cursor>> = Vec::with_capacity(1 + self.sealed.len() + self.runs.len());
        for memtable in self.memtables().filter(|memtable| !memtable.is_empty()) {
            cursors.push(Box::new(memtable.cursor(range.clone(), max_seq, direction)));
        }
        for run in &self.runs {
            cursors.push(Box::new(run.cursor(range.clone(), direction)?));
        }
        Ok(cursors)
    }
}

/// The merge of some runs, over all keys: what a compaction reads.
pub(crate) fn merge_runs(runs: &[Arc<Run>]) -> Result<MergeCursor> {
    let sources = runs.iter().map(|run| {
        let cursor: Box<dyn Cursor> = Box::new(run.cursor(KeyRange::all(), Direction::Forward)?);
        Ok(cursor)
    });
    Ok(MergeCursor::new(sources.collect::<Result<_>>()?, Direction::Forward))
}
