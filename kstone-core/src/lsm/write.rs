//! PUT, DELETE, WRITE: from bytes under keys to an acknowledged commit.
//!
//! health and limits -> backpressure -> room in the log -> stripe locks, ascending -> log lock: sequence, append ->
//! insert -> publish -> release -> wait for visibility -> with `Sync`, wait for the disk.
//!
//! All waiting for space happens before the stripe locks. After the append nothing may fail. The log comes before
//! the memtable, so what a reader can see, a killed process leaves behind.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::{LsmEngine, PoisonOnUnwind, Shared, WriteOptions};
use crate::backpressure::{Load, Pressure};
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::key::{EncodedKey, Key, stripe_of};
use crate::record::{self, Ops};
use crate::types::{EntryRef, SeqNo};

/// Puts and deletes that happen all together or not at all, whatever their stripes. Later ones win over earlier
/// ones of the same key.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    ops: Vec<(Key<'static>, Option<Vec<u8>>)>,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key to a value.
    pub fn put<'k>(&mut self, key: impl Into<Key<'k>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.ops.push((key.into().into_owned(), Some(value.into())));
        self
    }

    /// Removes a key, which need not exist.
    pub fn delete<'k>(&mut self, key: impl Into<Key<'k>>) -> &mut Self {
        self.ops.push((key.into().into_owned(), None));
        self
    }

    /// How many puts and deletes it holds.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// The stripe of each operation of a record.
type OpStripes = SmallVec<[u16; 8]>;

thread_local! {
    /// The record under construction, reused from write to write.
    static PAYLOAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Above this a write's buffer is given back instead of being kept for the thread's next write.
const KEEP_BUFFER: usize = 1 << 20;

impl LsmEngine {
    /// Sets `key` to `value`; returns the sequence of the write.
    ///
    /// # Errors
    /// `InvalidKey`, `KeyTooLarge`, `ItemTooLarge`: refused as given. `DiskFull`, `WriteStalled`: not made, may be
    /// tried again. `Poisoned`, `ReadOnly`, `Closed`: this handle accepts no writes. With [`Durability::Sync`], an
    /// error of the sync itself leaves open whether the write is found after a reopen.
    pub fn put(&self, key: &Key<'_>, value: &[u8], options: WriteOptions) -> Result<SeqNo> {
        self.write_one(key, Some(value), options)
    }

    /// Removes `key`, which need not exist; returns the sequence of the write. Errors as [`LsmEngine::put`].
    pub fn delete(&self, key: &Key<'_>, options: WriteOptions) -> Result<SeqNo> {
        self.write_one(key, None, options)
    }

    fn write_one(&self, key: &Key<'_>, value: Option<&[u8]>, options: WriteOptions) -> Result<SeqNo> {
        let (shared, _open) = self.writable()?;
        let limits = shared.settings.load();
        let encoded = key.encode(limits.database.max_key_bytes)?;
        PAYLOAD.with_borrow_mut(|payload| {
            payload.clear();
            encode_op(payload, &encoded, value, limits.database.max_item_bytes)?;
            let stripe = stripe_of(encoded.partition_hash, shared.stripes.len()) as u16;
            drop(limits);
            let result = shared.commit(payload, &[stripe], options.durability.unwrap_or(shared.durability));
            payload.shrink_to(KEEP_BUFFER);
            result
        })
    }

    /// Makes all of `batch` happen, or nothing; returns the sequence of its last operation. Errors as
    /// [`LsmEngine::put`], and `BatchTooLarge`. An empty batch is done at once.
    pub fn write(&self, batch: &WriteBatch, options: WriteOptions) -> Result<SeqNo> {
        let (shared, _open) = self.writable()?;
        if batch.is_empty() {
            return Ok(shared.commits.visible());
        }
        let limits = shared.settings.load();
        let mut payload = Vec::new();
        let mut stripes = OpStripes::with_capacity(batch.len());
        for (key, value) in &batch.ops {
            let encoded = key.encode(limits.database.max_key_bytes)?;
            encode_op(&mut payload, &encoded, value.as_deref(), limits.database.max_item_bytes)?;
            stripes.push(stripe_of(encoded.partition_hash, shared.stripes.len()) as u16);
            if payload.len() > limits.database.max_batch_bytes {
                let all =
                    batch.ops.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
                return Err(Error::BatchTooLarge { len: all, max: limits.database.max_batch_bytes });
            }
        }
        drop(limits);
        shared.commit(&payload, &stripes, options.durability.unwrap_or(shared.durability))
    }

    /// Makes everything written before this call durable.
    pub fn sync(&self) -> Result<()> {
        if !self.shared.opened.load(Ordering::Acquire) && !self.shared.read_only {
            return self.shared.check_open(); // nothing was written since a clean close made all of it durable
        }
        let (shared, _open) = self.writable()?;
        shared.wal.sync()
    }
}

fn encode_op(payload: &mut Vec<u8>, key: &EncodedKey, value: Option<&[u8]>, max_item: usize) -> Result<()> {
    match value {
        None => record::encode_delete(payload, 0, &key.bytes),
        Some(value) if value.len() > max_item => {
            return Err(Error::ItemTooLarge { len: value.len(), max: max_item });
        }
        Some(value) => record::encode_put(payload, 0, &key.bytes, value),
    }
    Ok(())
}

impl Shared {
    /// One record through log and memtables. `stripes` names the stripe of each of its operations.
    fn commit(&self, payload: &[u8], stripes: &[u16], durability: Durability) -> Result<SeqNo> {
        self.throttle(stripes)?;
        let reservation = self.wal.reserve(payload.len())?;
        let mut order: SmallVec<[u16; 8]> = SmallVec::from_slice(stripes);
        order.sort_unstable();
        order.dedup();
        let locked: SmallVec<[_; 8]> = order.iter().map(|&id| self.stripe(id as usize).lock()).collect();

        let mut log = self.wal.lock();
        let appended = log.append(reservation, stripes.len() as u32, payload)?;
        let last = appended.first_seq + stripes.len() as u64 - 1;
        self.commits.register(last);
        drop(log);

        // From here on log and memtables must not part.
        let unwinding = PoisonOnUnwind { shared: self, what: "a write" };
        let mut added = 0;
        for (i, op) in Ops::new(payload).flatten().enumerate() {
            let position = stripes.get(i).and_then(|stripe| order.binary_search(stripe).ok());
            if let Some(stripe) = position.and_then(|position| locked.get(position)) {
                let seq = appended.first_seq + i as u64;
                added += stripe
                    .insert(appended.lsn, EntryRef { key: op.key, seq, kind: op.kind, value: op.value });
            }
        }
        let memory = self.memory.fetch_add(added, Ordering::Relaxed) + added;
        let settings = self.settings.load();
        for (stripe, &id) in locked.iter().zip(&order) {
            if stripe.is_full(&settings.database)
                && let Some(sealed) = stripe.seal()
            {
                self.sealed(id as usize, sealed);
            }
        }
        self.commits.publish(last);
        drop(locked);
        std::mem::forget(unwinding);

        self.request_relief(memory, settings.memory_budget, appended.lsn);
        self.commits.wait_visible(last, &self.health)?;
        if durability == Durability::Sync {
            self.wal.sync_to(appended.end)?;
        }
        Ok(last)
    }

    /// Slows the writer down as far as background work is behind, or refuses when it stays behind.
    fn throttle(&self, stripes: &[u16]) -> Result<()> {
        let mut pressure = self.pressure(stripes);
        if pressure == Pressure::None {
            return Ok(());
        }
        let start = self.clock.monotonic();
        let limit = self.settings.load().database.write_stall_limit;
        let (Pressure::Delay(_, reason) | Pressure::Stop(reason)) = pressure else { return Ok(()) };
        if let Pressure::Delay(delay, _) = pressure {
            self.background.pause(self, delay);
        }
        while let Pressure::Stop(reason) = pressure {
            let waited = self.clock.monotonic().saturating_sub(start);
            let stuck = !self.wait_for_progress();
            if waited > limit || stuck {
                self.counters.stalled(reason, waited);
                let error = self.background_error();
                let cause = error.map(|e| format!("; the last failure was: {e}")).unwrap_or_default();
                return Err(Error::WriteStalled { why: format!("{}{cause}", reason.describe()) });
            }
            self.check_open()?;
            self.health.check()?;
            pressure = self.pressure(stripes);
        }
        self.counters.stalled(reason, self.clock.monotonic().saturating_sub(start));
        Ok(())
    }

    fn pressure(&self, stripes: &[u16]) -> Pressure {
        let settings = self.settings.load();
        let runs = stripes
            .iter()
            .filter_map(|&id| Some(self.stripe_if_used(id as usize)?.version().runs.len()))
            .max()
            .unwrap_or(0);
        let compaction = &settings.compaction;
        let load = Load {
            memory: self.memory.load(Ordering::Relaxed) as u64,
            memory_budget: settings.memory_budget as u64,
            runs: runs as u64,
            run_threshold: compaction.enabled.then_some(compaction.sst_threshold as u64),
            // What flushes cannot make shorter is nothing to wait for.
            log: if self.wal.can_retire() { self.wal.live_bytes() } else { 0 },
            log_limit: settings.wal_limit,
        };
        load.pressure()
    }
}
