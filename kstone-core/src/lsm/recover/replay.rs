//! Replays the log: its records take the same insert path as a put.

use std::collections::BTreeMap;

use crate::clock::Since;
use crate::error::{Error, Result};
use crate::key::{encoded_partition_hash, key_hash, stripe_of};
use crate::lsm::state::Shared;
use crate::paths;
use crate::planted::{Bug, planted};
use crate::record::Ops;
use crate::types::{EntryKind, EntryRef, SeqNo};
use crate::vfs::Vfs;
use crate::wal::{self, Chain, RecordRef};

impl Shared {
    /// Inserts the records like puts; full memtables are flushed on the way.
    pub(in crate::lsm) fn replay(&self, log: &dyn Vfs, chain: &Chain) -> Result<()> {
        let flushed: BTreeMap<usize, SeqNo> =
            self.stripes.used().map(|stripe| (stripe.id, stripe.lock().state.flushed_to)).collect();
        let mut full = false;
        wal::replay(log, chain, |record| {
            self.replay_record(&record, &flushed)?;
            if !full {
                full = !self.flush_ahead()?;
            }
            Ok(())
        })?;
        self.io.reached_segment(chain.end.generation());
        Ok(())
    }

    fn replay_record(&self, record: &RecordRef<'_>, flushed: &BTreeMap<usize, SeqNo>) -> Result<()> {
        let file = || paths::log(self.io.dir(), record.lsn.generation());
        let damaged = |detail: String| Error::corrupt(&file(), record.lsn.offset().into(), detail);
        let settings = self.settings.load();
        let (mut ops, mut bytes) = (0, 0);
        for (i, op) in Ops::new(record.payload).enumerate() {
            ops += 1;
            let op = op.map_err(|bad| bad.in_file(&file(), record.lsn.offset().into()))?;
            let seq = record.first_seq + i as u64;
            bytes += op.key.len() + op.value.len();
            let Some(hash) = encoded_partition_hash(op.key) else {
                return Err(damaged(format!("\"{}\" is not a valid key", crate::escape::key(op.key))));
            };
            let id = stripe_of(hash, self.stripes.count());
            if flushed.get(&id).is_some_and(|&to| seq <= to) && !planted(Bug::FlushedReplayed) {
                continue;
            }
            let stripe = self.stripe(id)?.lock();
            let entry = EntryRef { key: op.key, seq, kind: op.kind, value: op.value };
            let Some(inserted) = stripe.insert(record.lsn, key_hash(op.key), entry) else {
                return Err(self.life.health().internal("a memtable cannot take an operation in the log"));
            };
            if op.kind == EntryKind::Delete {
                stripe.deleted(|| Since::stamped(u64::from(record.time) * 1000, self.now()));
            }
            self.space.began_memtables(u64::from(inserted.first));
            self.space.memory_grew(inserted.memory);
            // With a quota as little as possible is written: each run takes at least a page, and space was reserved
            // only for the memtables that existed, possibly under other limits. The next write seals this memtable.
            if settings.database.max_total_disk_bytes.is_none()
                && stripe.is_full(&settings.database)
                && !self.life.is_read_only()
                && let Some(memory) = stripe.seal()
            {
                self.sealed(id, memory);
            }
        }
        if ops != record.count {
            return Err(damaged(format!("the record says {} operations but holds {ops}", record.count)));
        }
        self.observed.replayed(bytes);
        self.commits.replayed(record.first_seq + u64::from(record.count.saturating_sub(1)));
        Ok(())
    }

    /// Keeps the replay within the memory budget, since there are no workers yet. Returns false when there is no space
    /// for that, so that the whole log must stay in memory.
    fn flush_ahead(&self) -> Result<bool> {
        let budget = self.settings.load().memory_budget;
        while !self.life.is_read_only() && self.space.memory() > budget {
            let fullest = self.stripes.used().max_by_key(|stripe| {
                stripe.version().memtables().map(|memtable| memtable.memory()).sum::<usize>()
            });
            let Some(stripe) = fullest else { break };
            match self.ensure_opened().and_then(|()| self.flush_stripe_now(stripe.id)) {
                // Only if it did not occur in a sync, after which nothing may be written.
                Err(error) if error.is_out_of_space() && self.life.health().check().is_ok() => {
                    return Ok(false);
                }
                flushed => flushed?,
            }
        }
        Ok(true)
    }
}
