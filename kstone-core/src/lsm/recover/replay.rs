//! Replays the log: its records take the same insert path as a put.

use crate::clock::Since;
use crate::error::{Error, Result};
use crate::key::{encoded_partition_hash, key_hash, stripe_of};
use crate::lsm::state::Shared;
use crate::parallel;
use crate::paths;
use crate::planted::{Bug, planted};
use crate::prefetch::{LINE, prefetch};
use crate::record::{OpRef, Ops};
use crate::stripe::Locked;
use crate::types::{EntryKind, EntryRef, Lsn, SeqNo};
use crate::vfs::{Vfs, WINDOW};
use crate::wal::{Chain, LogPart};

/// Bytes of the log that are replayed together: enough that it pays to start threads, and little beside the memtables.
const TOGETHER: usize = 8 << 20;

/// Operations whose memory is prefetched before they are inserted.
const AHEAD: usize = 16;

/// Bytes at the start of an operation that are prefetched. For more, the processor does it without being asked.
const PREFETCHED: usize = 256;

/// An operation of the log that is in no SST yet.
#[derive(Clone, Copy)]
struct Unflushed {
    hash: u64,
    lsn: Lsn,
    seq: SeqNo,
    stripe: u16,
    /// Commit time, seconds since the Unix epoch.
    time: u32,
    /// Where it is in the part of the log.
    at: u32,
    len: u32,
}

/// A part of the log, and what it adds to the memtables. Used for one part after another, because memory that is new
/// to the process costs more than all that is done with it.
#[derive(Default)]
struct Replayed {
    bytes: Vec<u8>,
    operations: Vec<Unflushed>,
    /// Their indices, by stripe; those of a stripe are in order.
    by_stripe: Vec<u32>,
    /// Where the indices of each stripe end.
    ends: Vec<u32>,
    records: u64,
    /// Bytes of keys and values of these records.
    data_bytes: usize,
    last_seq: SeqNo,
}

impl Replayed {
    /// Groups the operations by stripe: a counting sort.
    fn group(&mut self, stripes: usize) {
        self.ends.clear();
        self.ends.resize(stripes, 0);
        for operation in &self.operations {
            if let Some(count) = self.ends.get_mut(usize::from(operation.stripe)) {
                *count += 1;
            }
        }
        let mut before = 0;
        for end in &mut self.ends {
            before += std::mem::replace(end, before);
        }
        self.by_stripe.clear();
        self.by_stripe.resize(self.operations.len(), 0);
        for (operation, n) in self.operations.iter().zip(0..) {
            if let Some(end) = self.ends.get_mut(usize::from(operation.stripe)) {
                if let Some(index) = self.by_stripe.get_mut(*end as usize) {
                    *index = n;
                }
                *end += 1;
            }
        }
    }

    /// The operations of a stripe, in order.
    fn of(&self, stripe: usize) -> impl Iterator<Item = (&Unflushed, &[u8])> {
        let end = |stripe: usize| self.ends.get(stripe).map_or(0, |&end| end as usize);
        let range = stripe.checked_sub(1).map_or(0, end)..end(stripe);
        let operations = self.by_stripe.get(range).unwrap_or_default().iter();
        operations.filter_map(|&n| {
            let operation = self.operations.get(n as usize)?;
            Some((operation, self.bytes.get(operation.at as usize..)?.get(..operation.len as usize)?))
        })
    }
}

/// Prefetches what inserting these operations needs from memory that is in no cache of this core: their bytes and the
/// slots of their keys.
fn prefetch_for(stripe: &Locked<'_>, operations: &[(&Unflushed, &[u8])]) {
    let active = &stripe.version().active;
    for (operation, bytes) in operations {
        active.prefetch(operation.hash);
        for at in (0..bytes.len().min(PREFETCHED)).step_by(LINE) {
            prefetch(bytes, at);
        }
    }
}

impl Shared {
    /// Finishes a recovery and replays the log. Both at once if the log is long: one waits for the disk, the other for
    /// the processor.
    pub(in crate::lsm) fn finish_and_replay(&self, log: &dyn Vfs, chain: &Chain) -> Result<()> {
        let finish = || match self.finish_recovery(&mut self.io.manifest(), None) {
            // Postponed until the first write.
            Err(error) if error.is_out_of_space() && self.life.health().check().is_ok() => Ok(()),
            finished => finished,
        };
        if !self.life.is_unfinished() || self.replay_threads(chain) == 1 {
            finish()?;
            return self.replay(log, chain);
        }
        let results = parallel::each(2, vec![true, false], |is_replay| match is_replay {
            false => finish(),
            true => self.replay(log, chain),
        });
        results.into_iter().collect()
    }

    fn replay_threads(&self, chain: &Chain) -> usize {
        let bytes = chain.parts.iter().map(LogPart::len).sum();
        self.workers.threads().for_bytes(bytes)
    }

    /// Inserts the records like puts; full memtables are flushed on the way.
    fn replay(&self, log: &dyn Vfs, chain: &Chain) -> Result<()> {
        let mut flushed = vec![0; self.stripes.count()];
        for stripe in self.stripes.used() {
            if let Some(to) = flushed.get_mut(stripe.id) {
                *to = stripe.lock().state.flushed_to;
            }
        }
        let threads = self.replay_threads(chain);
        // What is replayed together is added to the memory without a check.
        let together = self.settings.load().memory_budget.min(TOGETHER * 8) / 8;
        let together = (together / WINDOW as usize).max(1);
        let mut replayed: Vec<Replayed> = Vec::new();
        let mut full = false;
        for parts in chain.in_order().chunks(together) {
            replayed.resize_with(parts.len(), Replayed::default);
            let read = parallel::each(threads, replayed.iter_mut().zip(parts).collect(), |(to, &part)| {
                self.read_part(log, chain, part, &flushed, to)
            });
            read.into_iter().collect::<Result<()>>()?;
            let stripes = (0..self.stripes.count()).collect();
            let inserted = parallel::each(threads, stripes, |stripe| self.insert_replayed(stripe, &replayed));
            inserted.into_iter().collect::<Result<()>>()?;
            for part in &replayed {
                self.observed.replayed(part.records, part.data_bytes);
                self.commits.replayed(part.last_seq);
            }
            if !full {
                full = !self.flush_ahead()?;
            }
        }
        self.io.reached_segment(chain.end.generation());
        Ok(())
    }

    /// Reads a part of the log. The writes of each stripe up to `flushed` are in SSTs.
    fn read_part(
        &self,
        log: &dyn Vfs,
        chain: &Chain,
        part: LogPart,
        flushed: &[SeqNo],
        to: &mut Replayed,
    ) -> Result<()> {
        to.operations.clear();
        (to.records, to.data_bytes, to.last_seq) = (0, 0, 0);
        for record in chain.read(log, part, &mut to.bytes)? {
            let record = record?;
            let file = || paths::log(self.io.dir(), record.lsn.generation());
            let damaged = |detail: String| Error::corrupt(&file(), record.lsn.offset().into(), detail);
            let end = part.offset_of(&record) + record.payload.len();
            let (mut ops, mut seq) = (Ops::new(record.payload), record.first_seq);
            loop {
                let left = ops.bytes_left();
                let Some(op) = ops.next() else { break };
                let op = op.map_err(|bad| bad.in_file(&file(), record.lsn.offset().into()))?;
                to.data_bytes += op.key.len() + op.value.len();
                let Some(hash) = encoded_partition_hash(op.key) else {
                    return Err(damaged(format!("\"{}\" is not a valid key", crate::escape::key(op.key))));
                };
                let stripe = stripe_of(hash, self.stripes.count());
                if flushed.get(stripe).is_none_or(|&to| seq > to) || planted(Bug::FlushedReplayed) {
                    let (hash, stripe) = (key_hash(op.key), stripe as u16);
                    let (at, len) = ((end - left) as u32, (left - ops.bytes_left()) as u32);
                    to.operations.push(Unflushed {
                        hash,
                        lsn: record.lsn,
                        seq,
                        stripe,
                        time: record.time,
                        at,
                        len,
                    });
                }
                seq += 1;
            }
            let count = seq - record.first_seq;
            if count != u64::from(record.count) {
                return Err(damaged(format!(
                    "the record says {} operations but holds {count}",
                    record.count
                )));
            }
            to.records += 1;
            to.last_seq = record.first_seq + u64::from(record.count.saturating_sub(1));
        }
        to.group(self.stripes.count());
        Ok(())
    }

    /// Inserts the operations of one stripe, in their order.
    fn insert_replayed(&self, id: usize, parts: &[Replayed]) -> Result<()> {
        let operations: Vec<(&Unflushed, &[u8])> = parts.iter().flat_map(|part| part.of(id)).collect();
        if operations.is_empty() {
            return Ok(());
        }
        let settings = self.settings.load();
        let stripe = self.stripe(id)?.lock();
        let mut memory = 0;
        for operations in operations.chunks(AHEAD) {
            prefetch_for(&stripe, operations);
            for &(&Unflushed { hash, lsn, seq, time, .. }, bytes) in operations {
                let op = Ops::new(bytes).next().and_then(|op| op.ok());
                let entry = op.map(|OpRef { kind, key, value }| EntryRef { key, seq, kind, value });
                let inserted = entry.and_then(|entry| Some((entry, stripe.insert(lsn, hash, entry)?)));
                let Some((entry, inserted)) = inserted else {
                    return Err(self
                        .life
                        .health()
                        .internal("a memtable cannot take an operation in the log"));
                };
                if entry.kind == EntryKind::Delete {
                    stripe.deleted(|| Since::stamped(u64::from(time) * 1000, self.now()));
                }
                self.space.began_memtables(u64::from(inserted.first));
                memory += inserted.memory;
                // With a quota as little as possible is written: each run takes at least a page, and space was reserved
                // only for the memtables that existed, possibly under other limits. The next write seals this memtable.
                if settings.database.max_total_disk_bytes.is_none()
                    && stripe.is_full(&settings.database)
                    && !self.life.is_read_only()
                    && let Some(sealed) = stripe.seal()
                {
                    self.space.memory_grew(std::mem::take(&mut memory));
                    self.sealed(id, sealed);
                }
            }
        }
        self.space.memory_grew(memory);
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
