//! Explains what a query reads, source by source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use super::{name, show};
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::escape;
use crate::key::{KeyRange, SortRange, partition_hash, stripe_of};
use crate::lsm::LsmEngine;
use crate::lsm::read::Pin;
use crate::lsm::state::Shared;
use crate::merge::{MergeCursor, VisibleCursor};
use crate::slice::Slice;
use crate::sst::{Table, ahead_of_each};
use crate::sync::Mutex;
use crate::types::{Direction, EntryKind, EntryRef, FileId, SeqNo};
use crate::version::{SourceCursor, Version};

/// What a query did. `Display` renders it for people, serde for programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ExplainQuery {
    /// The partition key, escaped as ASCII.
    pub partition: String,
    /// The first key of the range and the key after its last, escaped.
    pub range: (String, Option<String>),
    /// The stripe.
    pub stripe: usize,
    /// The newest visible write.
    pub seq: SeqNo,
    /// The sources merged: memtables and runs, newest first.
    pub sources: Vec<SourceStep>,
    /// Items returned.
    pub rows: u64,
    /// Entries read.
    pub entries: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// Entries among them that were not visible: versions shadowed by a newer one, and versions newer than `seq`.
    pub shadowed: u64,
    /// Blocks read, and their size in bytes as stored.
    pub blocks: u64,
    /// See [`ExplainQuery::blocks`].
    pub block_bytes: u64,
    /// The error the query failed with.
    pub error: Option<String>,
}

impl ExplainQuery {
    /// Entries and blocks read per item returned; zeros when there was none.
    pub fn cost_per_row(&self) -> (f64, f64) {
        let rows = self.rows as f64;
        if self.rows == 0 { (0.0, 0.0) } else { (self.entries as f64 / rows, self.blocks as f64 / rows) }
    }
}

/// A memtable or a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SourceStep {
    /// "memtable", "sealed memtable", or the files of the run.
    pub source: String,
    /// Its first and last key, escaped; `None` when it is empty.
    pub keys: Option<(String, String)>,
    /// Whether it overlaps the range of the query. Memtables always count as overlapping.
    pub in_range: bool,
    /// Entries read from it, and the tombstones among them.
    pub entries: u64,
    /// See [`SourceStep::entries`].
    pub tombstones: u64,
    /// Blocks read.
    pub blocks: u64,
    /// Their size in bytes as stored.
    pub block_bytes: u64,
}

/// A cursor that counts what is read through it.
struct Counted {
    inner: SourceCursor,
    tally: Arc<Mutex<Tally>>,
}

#[derive(Debug, Default)]
struct Tally {
    entries: u64,
    tombstones: u64,
    blocks: BTreeSet<(FileId, usize)>,
}

impl Counted {
    fn new(inner: SourceCursor, tally: Arc<Mutex<Tally>>) -> Self {
        let counted = Self { inner, tally };
        counted.count();
        counted
    }

    /// Counts the entry at the cursor.
    fn count(&self) {
        let mut tally = self.tally.lock();
        tally.blocks.extend(self.inner.place());
        if let Some(entry) = self.inner.entry() {
            tally.entries += 1;
            tally.tombstones += u64::from(entry.kind == EntryKind::Delete);
        }
    }
}

impl Cursor for Counted {
    fn entry(&self) -> Option<EntryRef<'_>> {
        self.inner.entry()
    }

    fn value(&self) -> Slice {
        self.inner.value()
    }

    fn advance(&mut self) -> Result<()> {
        let ended = self.inner.entry().is_none();
        self.inner.advance()?;
        if !ended {
            self.count();
        }
        Ok(())
    }
}

impl LsmEngine {
    /// Explains what [`LsmEngine::query`] of this part of a partition does now, by running the query to its end.
    ///
    /// # Errors
    /// `InvalidKey` for an empty partition key, `Closed`. An error of the query itself is in [`ExplainQuery::error`].
    pub fn explain_query(&self, partition: &[u8], range: &SortRange) -> Result<ExplainQuery> {
        self.shared.life.check_open()?;
        if partition.is_empty() {
            return Err(Error::InvalidKey { why: "the partition key is empty".into() });
        }
        let pin = Pin::new(&self.shared);
        let stripe = stripe_of(partition_hash(partition), self.shared.stripes.count());
        let range = range.to_key_range(partition);
        let mut explain = ExplainQuery {
            partition: escape::key(partition),
            range: (show(&range.start), range.end.as_deref().map(show)),
            stripe,
            seq: pin.seq(),
            ..ExplainQuery::default()
        };
        if let Some(used) = self.shared.stripes.if_used(stripe) {
            let version = Arc::clone(&used.version());
            // Ranges known to be empty are skipped, as by the query itself.
            let parts = used.gaps.around(&range, explain.seq).unwrap_or_else(|| vec![range.clone()]);
            if let Err(error) = self.shared.explain_entries(&mut explain, &version, &range, parts) {
                explain.error = Some(error.to_string());
            }
        }
        Ok(explain)
    }
}

impl Shared {
    fn explain_entries(
        &self,
        explain: &mut ExplainQuery,
        version: &Version,
        range: &KeyRange,
        parts: Vec<KeyRange>,
    ) -> Result<()> {
        // The same sources, in the same order, as the cursors of `Version::cursors`.
        for (n, memtable) in version.memtables().enumerate().filter(|(_, memtable)| !memtable.is_empty()) {
            let source = if n == 0 { "memtable" } else { "sealed memtable" };
            explain.sources.push(SourceStep {
                source: source.into(),
                keys: memtable.key_bounds().map(|(first, last)| (show(&first), show(&last))),
                in_range: true,
                ..SourceStep::default()
            });
        }
        let mut tables: BTreeMap<FileId, &Arc<Table>> = BTreeMap::new();
        for run in &version.runs {
            tables.extend(run.parts.iter().map(|part| (part.meta().id, part)));
            let overlaps = |part: &&Arc<Table>| {
                let (first, last) = &part.meta().keys;
                *last >= range.start && range.end.as_ref().is_none_or(|end| first < end)
            };
            let names: Vec<_> = run.parts.iter().map(|part| name(part.path())).collect();
            let ends = run.parts.first().zip(run.parts.last());
            explain.sources.push(SourceStep {
                source: names.join(" "),
                keys: ends.map(|(first, last)| (show(&first.meta().keys.0), show(&last.meta().keys.1))),
                in_range: run.parts.iter().any(|part| overlaps(&part)),
                ..SourceStep::default()
            });
        }
        let tallies: Vec<Arc<Mutex<Tally>>> = explain.sources.iter().map(|_| Arc::default()).collect();
        let mut result = Ok(());
        for part in parts {
            let cursors = version.cursors(
                &Arc::new(part),
                explain.seq,
                Direction::Forward,
                ahead_of_each(version.runs.len()),
            )?;
            let counted = cursors
                .into_iter()
                .zip(&tallies)
                .map(|(cursor, tally)| Counted::new(cursor, Arc::clone(tally)));
            let merge = MergeCursor::new(counted.collect(), Direction::Forward);
            let mut rows = VisibleCursor::new(merge, Direction::Forward, explain.seq);
            result = loop {
                match self.life.check_open().and_then(|()| rows.step()) {
                    Ok(true) => explain.rows += 1,
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(self.life.closed_or(error)),
                }
            };
            if result.is_err() {
                break;
            }
        }
        for (source, tally) in explain.sources.iter_mut().zip(&tallies) {
            let tally = tally.lock();
            (source.entries, source.tombstones) = (tally.entries, tally.tombstones);
            source.blocks = tally.blocks.len() as u64;
            for (file, block) in &tally.blocks {
                let extent = tables.get(file).and_then(|table| table.block_extent(*block).ok().flatten());
                source.block_bytes += extent.map_or(0, |(_, bytes)| bytes);
            }
            explain.entries += source.entries;
            explain.tombstones += source.tombstones;
            explain.blocks += source.blocks;
            explain.block_bytes += source.block_bytes;
        }
        explain.shadowed = explain.entries.saturating_sub(explain.rows + explain.tombstones);
        result
    }
}
