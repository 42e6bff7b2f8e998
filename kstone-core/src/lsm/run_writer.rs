//! Writes the output of a flush or a merge: one run, cut into SSTs of the configured size.

use std::sync::Arc;

use super::Shared;
use crate::error::{Error, Result};
use crate::sst::{SstParams, SstWriter, Table};
use crate::types::{EntryRef, SeqNo, SstMeta};
use crate::version::Run;

/// What the run's SSTs say of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunFacts {
    pub(crate) depth: u32,
    /// The lowest and highest sequence of the inputs.
    pub(crate) seq: (SeqNo, SeqNo),
}

#[derive(Debug)]
pub(crate) struct RunWriter {
    stripe: usize,
    facts: RunFacts,
    /// The first and last key of the inputs: what all keys have in common at the start is stored once.
    bounds: (Vec<u8>, Vec<u8>),
    current: Option<SstWriter>,
    last_key: Vec<u8>,
    done: Vec<SstMeta>,
}

impl RunWriter {
    pub(crate) fn new(stripe: usize, facts: RunFacts, bounds: (Vec<u8>, Vec<u8>)) -> Self {
        Self { stripe, facts, bounds, current: None, last_key: Vec::new(), done: Vec::new() }
    }

    /// Adds the next version, in order. All versions of a key go into the same SST.
    pub(crate) fn add(
        &mut self,
        shared: &Shared,
        entry: EntryRef<'_>,
        tombstone_ms: Option<u64>,
    ) -> Result<()> {
        let config = &shared.settings.load().database;
        let full = self.current.as_ref().is_some_and(|sst| sst.is_full(config.target_sst_size));
        if full && self.last_key != entry.key {
            self.finish_part()?;
        }
        let sst = match &mut self.current {
            Some(sst) => sst,
            none => {
                let id = shared.next_file_id()?;
                let params = SstParams {
                    id,
                    stripe: self.stripe as u16,
                    keyspace: 0,
                    run: self.done.first().map_or(id, |first| first.id),
                    part: self.done.len() as u32,
                    depth: self.facts.depth,
                    run_seq: self.facts.seq,
                    key_bounds: self.bounds.clone(),
                    block_size: config.block_size,
                    bits_per_key: config.bloom_bits_per_key,
                    database_id: shared.identity.database_id,
                    incarnation: shared.identity.incarnation,
                    created_ms: shared.clock.unix_ms(),
                };
                none.insert(SstWriter::create(&shared.vfs, &shared.dir, params)?)
            }
        };
        sst.add(entry, tombstone_ms)?;
        self.last_key.clear();
        self.last_key.extend_from_slice(entry.key);
        Ok(())
    }

    fn finish_part(&mut self) -> Result<()> {
        if let Some(sst) = self.current.take() {
            self.done.push(sst.finish()?);
        }
        Ok(())
    }

    /// The run, readable but not yet durable; `None` when nothing was added.
    pub(crate) fn finish(&mut self, shared: &Shared) -> Result<Option<Run>> {
        self.finish_part()?;
        if self.done.is_empty() {
            return Ok(None);
        }
        let parts = self.done.len() as u32;
        let tables = std::mem::take(&mut self.done).into_iter().map(|meta| {
            // How many parts there are is known only now.
            let meta = Arc::new(SstMeta { parts, ..meta });
            Arc::new(Table::new(Arc::clone(&shared.vfs), &shared.dir, meta))
        });
        Ok(Some(Run::new(tables.collect())))
    }

    /// Removes what was written: nobody has seen it.
    pub(crate) fn abandon(mut self, shared: &Shared) {
        if let Some(sst) = self.current.take() {
            sst.abandon();
        }
        for meta in self.done {
            let path = crate::paths::sst(&shared.dir, self.stripe, meta.id);
            // What cannot be removed now is an orphan, and removed by the next recovery.
            let _: Result<(), _> = shared.vfs.remove(&path).map_err(Error::io("remove", &path));
        }
    }
}
