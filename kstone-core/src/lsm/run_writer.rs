//! Writes the output of a flush or a merge: one run, split into SSTs of the configured size.

use std::io::ErrorKind;
use std::sync::Arc;

use super::job::StepResult;
use super::settings::Settings;
use super::state::Shared;
use crate::clock::{Now, Since};
use crate::compaction::{Retain, Retention};
use crate::config::Compression;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::paths;
use crate::quota::Inodes;
use crate::sst::{SstParams, SstWriter, Table, Unsynced};
use crate::types::{EntryRef, SeqNo, SstMeta};
use crate::version::Run;
use crate::vfs::pages;

/// Taken names to skip before creating a file fails.
const MOST_SKIPPED: u32 = 1000;

/// Facts about the run that its SSTs record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunFacts {
    pub(crate) depth: u32,
    /// The lowest and highest sequence of the inputs.
    pub(crate) seq: (SeqNo, SeqNo),
    /// Whether no older run of the stripe remains outside the inputs.
    pub(crate) oldest: bool,
    /// Whether it is the output of a merge rather than of a flush.
    pub(crate) merged: bool,
    /// Whether its data has settled: it was merged, and not only while the database was idle, when it had just been
    /// written and is likely to be read.
    pub(crate) settled: bool,
    /// When the oldest tombstone of the inputs was written, if there is any.
    pub(crate) deleted_since: Option<Since>,
}

impl RunFacts {
    /// Whether its blocks are compressed.
    fn compress(&self, compression: Compression) -> bool {
        match compression {
            Compression::Never => false,
            Compression::Older => self.settled && self.oldest,
            Compression::Always => true,
        }
    }
}

#[derive(Debug)]
pub(crate) struct RunWriter {
    stripe: usize,
    /// The settings at the start, used for all parts: its space was computed from them.
    settings: Arc<Settings>,
    facts: RunFacts,
    /// The first and last key of the inputs: the prefix common to all keys is stored only once.
    bounds: (Vec<u8>, Vec<u8>),
    current: Option<SstWriter>,
    /// The timestamp recorded for each tombstone.
    tombstone_ms: Option<u64>,
    done: Vec<(SstMeta, Unsynced)>,
    pub(crate) tombstones_dropped: u64,
}

impl RunWriter {
    pub(crate) fn new(
        settings: Arc<Settings>,
        stripe: usize,
        facts: RunFacts,
        bounds: (Vec<u8>, Vec<u8>),
        now: Now,
    ) -> Self {
        Self {
            stripe,
            settings,
            facts,
            bounds,
            current: None,
            tombstone_ms: facts.deleted_since.map(|since| since.stamp(now)),
            done: Vec::new(),
            tombstones_dropped: 0,
        }
    }

    /// Adds the next version, in order. All versions of a key go to the same SST.
    pub(crate) fn add(&mut self, shared: &Shared, entry: EntryRef<'_>) -> Result<()> {
        let target = self.settings.database.target_sst_size;
        if self.current.as_ref().is_some_and(|sst| sst.is_full(target) && sst.last_key() != entry.key) {
            self.finish_part()?;
        }
        let sst = match &mut self.current {
            Some(sst) => sst,
            None => {
                let sst = self.create(shared)?;
                self.current.insert(sst)
            }
        };
        sst.add(entry, self.tombstone_ms)
    }

    /// Creates the next file. Skips names taken by files of other databases, which are never removed.
    fn create(&self, shared: &Shared) -> Result<SstWriter> {
        let config = &self.settings.database;
        let purpose = match self.facts {
            RunFacts { merged: true, .. } => Inodes::Merge,
            RunFacts { oldest: true, .. } => Inodes::FirstRun,
            _ => Inodes::Run,
        };
        let _making = shared.take_inode(purpose)?;
        let mut skipped = 0;
        loop {
            let id = shared.io.next_file_id(&shared.life, &shared.space)?;
            let params = SstParams {
                id,
                stripe: self.stripe as u16,
                keyspace: 0,
                run: self.done.first().map_or(id, |(first, _)| first.id),
                part: self.done.len() as u32,
                depth: self.facts.depth,
                run_seq: self.facts.seq,
                key_bounds: self.bounds.clone(),
                block_size: config.block_size,
                bits_per_key: config.bloom_bits_per_key as u32,
                compress: self.facts.compress(config.compression),
                // Below a limit, all space is for data; and what a merge writes never exceeds its inputs by padding.
                pad: config.max_total_disk_bytes.is_none(),
                write_unit: config.write_buffer_size,
                database_id: shared.life.identity().database_id,
                incarnation: shared.life.identity().incarnation,
                created_ms: shared.clock.unix_ms(),
            };
            match SstWriter::create(shared.io.vfs(), shared.io.dir(), params) {
                Err(Error::Io { source, .. })
                    if source.kind() == ErrorKind::AlreadyExists && skipped < MOST_SKIPPED =>
                {
                    skipped += 1;
                }
                // The file may exist despite the error.
                created => return created.inspect_err(|_| shared.removal.note_orphans()),
            }
        }
    }

    /// Bytes written to the files so far.
    pub(crate) fn written(&self) -> u64 {
        let done: u64 = self.done.iter().map(|(meta, _)| pages(meta.len)).sum();
        done + self.current.as_ref().map_or(0, |sst| pages(sst.written()))
    }

    fn finish_part(&mut self) -> Result<()> {
        if let Some(sst) = &mut self.current {
            self.done.push(sst.finish()?);
            self.current = None;
        }
        Ok(())
    }

    /// Returns the run, readable but not yet durable; `None` if nothing was added.
    pub(crate) fn finish(&mut self, shared: &Shared) -> Result<Option<Run>> {
        self.finish_part()?;
        if self.done.is_empty() {
            return Ok(None);
        }
        let parts = self.done.len() as u32;
        let tables = std::mem::take(&mut self.done).into_iter().map(|(meta, unsynced)| {
            // The number of parts is known only now.
            let meta = Arc::new(SstMeta { parts, ..meta });
            Arc::new(Table::written(shared.io.tables(), meta, unsynced))
        });
        let tables: Vec<Arc<Table>> = tables.collect();
        let deletes = tables.iter().any(|table| table.meta().tombstones > 0);
        Ok(Some(Run::new(tables, self.facts.deleted_since.filter(|_| deletes))))
    }

    /// Removes what was written, which no reader has seen. A poisoned handle leaves it to the next open.
    pub(crate) fn abandon(mut self, shared: &Shared) {
        let current = self.current.take().filter(|_| shared.life.may_remove());
        let mut has_orphans = current.is_some_and(|sst| sst.abandon().is_err());
        for (meta, _) in &self.done {
            let path = paths::sst(shared.io.dir(), self.stripe, meta.id);
            has_orphans |= shared.life.may_remove() && shared.io.vfs().remove(&path).is_err();
        }
        if has_orphans {
            shared.removal.note_orphans();
        }
    }
}

/// Copies the next entries of a flush or a merge that must be kept, at most one step's worth; done when the source is
/// exhausted.
pub(crate) fn copy(
    shared: &Shared,
    source: &mut impl Cursor,
    retain: &mut Retain,
    out: &mut RunWriter,
) -> Result<StepResult> {
    for _ in 0..shared.chunk {
        let Some(entry) = source.entry() else { return Ok(StepResult::Done) };
        match retain.keep(entry.key, entry.seq, entry.kind) {
            Retention::Keep => out.add(shared, entry)?,
            Retention::DropTombstone => {
                out.tombstones_dropped += 1;
                shared.observed.counters().tombstone_dropped();
            }
            Retention::DropShadowed => {}
        }
        source.advance()?;
    }
    Ok(StepResult::Again)
}
