//! The contents of a stripe at one moment: an immutable list of memtables and runs, newest first.
//!
//! Sequences decrease from source to source, so the first version of a key that a look-up finds is the newest.

use std::sync::Arc;

use crate::clock::{Now, Since};
use crate::compaction::picker::RunSummary;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::KeyRange;
use crate::memtable::{MemCursor, Memtable};
use crate::merge::MergeCursor;
use crate::slice::{Found, Slice};
use crate::sst::{ChainCursor, Table, Trace, ahead_of_each};
use crate::types::{Direction, EntryHead, EntryRef, FileId, GetCost, RunId, SeqNo, Source, SstMeta};

/// From this many runs on, a get prefetches the filters of all runs before it consults them one by one, so that their
/// cache misses overlap.
const PREFETCH_RUNS: usize = 2;

/// Observes the steps of a get as they happen.
pub(crate) trait ReadTrace: Trace {
    /// The version searched, and the newest sequence visible to the get.
    #[inline]
    fn begin(&mut self, _version: &Arc<Version>, _seq: SeqNo) {}

    /// A memtable was consulted.
    #[inline]
    fn memtable(&mut self, _found: bool) {}

    /// A run is about to be consulted: this part of it, if one covers the key.
    #[inline]
    fn run(&mut self, _part: Option<&Arc<Table>>) {}
}

impl ReadTrace for () {}

impl ReadTrace for GetCost {
    #[inline]
    fn memtable(&mut self, found: bool) {
        if !found {
            self.source = Source::Sealed;
        }
    }

    #[inline]
    fn run(&mut self, _part: Option<&Arc<Table>>) {
        self.source = Source::Runs;
        self.runs += 1;
    }
}

/// A key-ordered list of SSTs that were written together.
#[derive(Debug)]
pub(crate) struct Run {
    /// At least one part; ascending and disjoint in keys, and of equal run, depth and run sequences.
    pub(crate) parts: Vec<Arc<Table>>,
    /// When the oldest tombstone was written, if there is any.
    pub(crate) deleted_since: Option<Since>,
}

impl Run {
    pub(crate) fn new(parts: Vec<Arc<Table>>, deleted_since: Option<Since>) -> Self {
        Self { parts, deleted_since }
    }

    /// A run written by an earlier handle.
    pub(crate) fn found(parts: Vec<Arc<Table>>, now: Now) -> Self {
        let metas = parts.iter().map(|table| table.meta()).filter(|meta| meta.tombstones > 0);
        let stamps = metas.map(|meta| Since::stamped(meta.oldest_tombstone_ms, now));
        let deleted_since = stamps.max_by_key(|since| since.age(now));
        Self::new(parts, deleted_since)
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

    /// The lowest and highest sequence of the inputs that it was made from.
    pub(crate) fn seq(&self) -> (SeqNo, SeqNo) {
        self.first().map_or((0, 0), |meta| meta.run_seq)
    }

    pub(crate) fn total(&self, of: impl Fn(&SstMeta) -> u64) -> u64 {
        // Counts in a manifest are not bounded by the size of the files, so the sum saturates.
        self.parts.iter().map(|table| of(table.meta())).fold(0, u64::saturating_add)
    }

    /// The newest version of a key at or below `max_seq`. Parts share no keys, so only one part is consulted.
    pub(crate) fn get(
        &self,
        key: &[u8],
        hash: u64,
        max_seq: SeqNo,
        trace: &mut impl ReadTrace,
    ) -> Result<Option<Found>> {
        if let [table] = self.parts.as_slice() {
            // The filter answers with fewer loads than comparing key ranges takes.
            trace.run(Some(table));
            return table.get(key, hash, max_seq, trace);
        }
        let at = self.parts.partition_point(|table| table.meta().keys.1.as_slice() < key);
        match self.parts.get(at) {
            Some(table) if table.meta().keys.0.as_slice() <= key => {
                trace.run(Some(table));
                table.get(key, hash, max_seq, trace)
            }
            _ => {
                trace.run(None);
                Ok(None)
            }
        }
    }

    /// A cursor that has yet to [seek](ChainCursor::seek).
    fn cursor(&self, range: &Arc<KeyRange>, direction: Direction, most_ahead: usize) -> Result<ChainCursor> {
        ChainCursor::new(&self.parts, range, direction, most_ahead)
    }

    /// What the picker looks at in a run.
    pub(crate) fn summary(&self, now: Now) -> RunSummary<'_> {
        let metas = || self.parts.iter().map(|table| table.meta());
        RunSummary {
            depth: self.depth(),
            bytes: self.total(|meta| meta.len),
            entries: self.total(|meta| meta.entries),
            tombstones: self.total(|meta| meta.tombstones),
            tombstone_age: self.deleted_since.map(|since| since.age(now)),
            last_seq: self.seq().1,
            // Without those of all parts, nothing is known of their keys.
            details: metas().map(|meta| meta.details.as_deref()).collect::<Option<_>>().unwrap_or_default(),
        }
    }
}

/// Replaced as a whole under the stripe's lock; a reader that holds a version keeps all of it alive.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) active: Arc<Memtable>,
    /// Full memtables waiting for their flush, newest first.
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
    pub(crate) fn get(
        &self,
        key: &[u8],
        hash: u64,
        max_seq: SeqNo,
        trace: &mut impl ReadTrace,
    ) -> Result<Option<Found>> {
        for memtable in self.memtables() {
            let found = memtable.get(key, hash, max_seq);
            trace.memtable(found.is_some());
            if let Some(found) = found {
                return Ok(Some(found));
            }
        }
        if self.runs.len() >= PREFETCH_RUNS {
            self.single_parts().for_each(|table| table.prefetch(hash));
        }
        for run in &self.runs {
            if let Some(found) = run.get(key, hash, max_seq, trace)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Whether a range has a version in (`after`, `up_to`]. Sources without anything above `after` are not read.
    pub(crate) fn has_newer(&self, range: &KeyRange, after: SeqNo, up_to: SeqNo) -> Result<bool> {
        let mut memtables = self.memtables().filter(|memtable| memtable.last_seq() > after);
        if memtables.any(|memtable| memtable.has_newer(range, after, up_to)) {
            return Ok(true);
        }
        let range = Arc::new(range.clone());
        for run in self.runs.iter().filter(|run| run.seq().1 > after) {
            let mut cursor = run.cursor(&range, Direction::Forward, 0)?;
            cursor.seek()?;
            while let Some(head) = cursor.head() {
                if after < head.seq && head.seq <= up_to {
                    return Ok(true);
                }
                cursor.advance()?;
            }
        }
        Ok(false)
    }

    /// Prefetches what [`Version::get`] reads first: the slots of memtables, and filters and indexes.
    pub(crate) fn prefetch(&self, hash: u64) {
        self.memtables().for_each(|memtable| memtable.prefetch(hash));
        for table in self.single_parts() {
            table.prefetch(hash);
            table.prefetch_slot(hash);
        }
    }

    /// Prefetches what it reads then: the heads of the block where the key likely is.
    pub(crate) fn prefetch_heads(&self, hash: u64) {
        self.single_parts().any(|table| table.prefetch_heads(hash));
    }

    /// The parts of runs that have one. Finding the right one of several would take a search.
    fn single_parts(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.runs.iter().filter_map(|run| if let [table] = run.parts.as_slice() { Some(table) } else { None })
    }

    /// All versions within a range, in order. At most `most_ahead` bytes are read ahead of each cursor.
    pub(crate) fn cursors(
        &self,
        range: &Arc<KeyRange>,
        max_seq: SeqNo,
        direction: Direction,
        most_ahead: usize,
    ) -> Result<Vec<SourceCursor>> {
        let mut cursors = Vec::with_capacity(1 + self.sealed.len() + self.runs.len());
        for memtable in self.memtables().filter(|memtable| !memtable.is_empty()) {
            cursors.push(SourceCursor::Memtable(memtable.cursor(range, max_seq, direction)));
        }
        for run in &self.runs {
            cursors.push(SourceCursor::Run(run.cursor(range, direction, most_ahead)?));
        }
        // Afterwards, because each prefetched what its seek reads.
        for cursor in &mut cursors {
            if let SourceCursor::Run(cursor) = cursor {
                cursor.seek()?;
            }
        }
        Ok(cursors)
    }
}

/// A cursor over one of the sources of a version.
#[expect(clippy::large_enum_variant, reason = "most sources are runs, and there are few sources")]
#[derive(Debug)]
pub(crate) enum SourceCursor {
    Memtable(MemCursor),
    Run(ChainCursor),
}

impl Cursor for SourceCursor {
    #[inline]
    fn entry(&self) -> Option<EntryRef<'_>> {
        match self {
            Self::Memtable(cursor) => cursor.entry(),
            Self::Run(cursor) => cursor.entry(),
        }
    }

    #[inline]
    fn head(&self) -> Option<EntryHead<'_>> {
        match self {
            Self::Memtable(cursor) => cursor.head(),
            Self::Run(cursor) => cursor.head(),
        }
    }

    fn value(&self) -> Slice {
        match self {
            Self::Memtable(cursor) => cursor.value(),
            Self::Run(cursor) => cursor.value(),
        }
    }

    #[inline]
    fn advance(&mut self) -> Result<()> {
        match self {
            Self::Memtable(cursor) => cursor.advance(),
            Self::Run(cursor) => cursor.advance(),
        }
    }

    fn place(&self) -> Option<(FileId, usize)> {
        match self {
            Self::Memtable(cursor) => cursor.place(),
            Self::Run(cursor) => cursor.place(),
        }
    }
}

/// The merge of several runs over all keys: the input of a compaction.
pub(crate) fn merge_runs(runs: &[Arc<Run>]) -> Result<MergeCursor<ChainCursor>> {
    let most_ahead = ahead_of_each(runs.len());
    let all = Arc::new(KeyRange::all());
    let source = |run: &Arc<Run>| {
        let mut cursor = run.cursor(&all, Direction::Forward, most_ahead)?;
        cursor.seek()?;
        Ok(cursor)
    };
    Ok(MergeCursor::new(runs.iter().map(source).collect::<Result<_>>()?, Direction::Forward))
}
