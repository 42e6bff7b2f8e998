//! PUT, DELETE, WRITE: from keys and values to an acknowledged commit.
//!
//! health and limits -> backpressure -> log space -> stripe locks, ascending -> log lock: sequence, append -> insert ->
//! publish -> release -> wait for visibility -> with `Sync`, wait for the disk.
//!
//! All waiting for space happens before the stripe locks are acquired. Nothing may fail after the append. The log is
//! written before the memtable, so everything that a reader can see survives the death of the process.

use smallvec::SmallVec;

use super::LsmEngine;
use super::batch::{BatchRecord, PendingOp, WriteBatch};
use super::observe::WriteTotals;
use super::options::WriteOptions;
use super::space::Admitted;
use super::state::Shared;
use crate::backpressure::{Load, Pressure, StallReason};
use crate::clock::Since;
use crate::compaction::picker::Ask;
use crate::config::Durability;
use crate::counters::Operation;
use crate::error::{Error, Result};
use crate::health::PoisonOnUnwind;
use crate::key::Key;
use crate::planted::{Bug, Race, later, planted, raced};
use crate::record::ITEMS;
use crate::stripe::Locked;
use crate::types::{EntryKind, EntryRef, SeqNo};
use crate::wal::{Reservation, Route};

/// The locks of stripes, in the order of the list that they were locked by.
pub(super) type LockedStripes<'a> = SmallVec<[Locked<'a>; 1]>;

/// Stripes in the order in which their locks are acquired, each once.
pub(super) fn in_lock_order(stripes: impl Iterator<Item = u16>) -> SmallVec<[u16; 8]> {
    let mut stripes: SmallVec<[u16; 8]> = stripes.collect();
    stripes.sort_unstable();
    stripes.dedup();
    stripes
}

/// The lock of stripe `id`, if it is among those held.
pub(super) fn at_stripe<'l, 'a>(
    locked: &'l [Locked<'a>],
    stripes: &[u16],
    id: u16,
) -> Option<&'l Locked<'a>> {
    stripes.binary_search(&id).ok().and_then(|at| locked.get(at))
}

impl LsmEngine {
    /// Sets `key` to `value`; returns the sequence of the write.
    ///
    /// # Errors
    /// `InvalidKey`, `KeyTooLarge`, `ItemTooLarge`: the arguments are rejected. `DiskFull`, `WriteStalled`: the write
    /// was not made and may be retried. `Poisoned`, `ReadOnly`, `Closed`: this handle accepts no writes. With
    /// [`Durability::Sync`], after an error of the sync itself it is unknown whether the write will be found after a
    /// reopen.
    pub fn put(&self, key: &Key<'_>, value: &[u8], options: WriteOptions) -> Result<SeqNo> {
        self.write_one(key, Some(value), options)
    }

    /// Deletes `key`, which need not exist; returns the sequence of the write. Errors as [`LsmEngine::put`].
    pub fn delete(&self, key: &Key<'_>, options: WriteOptions) -> Result<SeqNo> {
        self.write_one(key, None, options)
    }

    fn write_one(&self, key: &Key<'_>, value: Option<&[u8]>, options: WriteOptions) -> Result<SeqNo> {
        let (shared, _open) = self.writable()?;
        let limits = shared.settings.load();
        let operation = if value.is_some() { Operation::Put } else { Operation::Delete };
        let running = shared.observed.begin_operation(operation, &limits);
        let op = PendingOp::new(key, value, &limits.database, shared.stripes.count())?;
        drop(limits);
        let result = shared.commit(&[op], options.durability.unwrap_or(shared.durability));
        let value = value.map(<[u8]>::len);
        if running.since.is_some() {
            shared.observed.sizes().sample(key.len(), value);
        }
        shared.wrote(&running, WriteTotals::one(key.len(), value), &result);
        result
    }

    /// Applies all of `batch` or nothing; returns the sequence of its last operation. Errors as [`LsmEngine::put`], and
    /// `BatchTooLarge`. An empty batch is a no-op.
    pub fn write(&self, batch: &WriteBatch, options: WriteOptions) -> Result<SeqNo> {
        let (shared, _open) = self.writable()?;
        if batch.is_empty() {
            return Ok(shared.commits.visible());
        }
        if batch.len() > 1 && planted(Bug::BatchInTwoRecords) {
            let (first, rest) = batch.ops.split_at(1);
            self.write(&WriteBatch { ops: first.to_vec() }, options)?;
            return self.write(&WriteBatch { ops: rest.to_vec() }, options);
        }
        let limits = shared.settings.load();
        let running = shared.observed.begin_operation(Operation::Batch, &limits);
        drop(limits);
        let (ops, written) = shared.checked_ops(batch)?;
        if running.since.is_some() {
            for (key, value) in &batch.ops {
                shared.observed.sizes().sample(key.len(), value.as_ref().map(Vec::len));
            }
        }
        let result = shared.commit(&ops, options.durability.unwrap_or(shared.durability));
        shared.wrote(&running, written, &result);
        result
    }

    /// Makes everything written before this call durable.
    pub fn sync(&self) -> Result<()> {
        self.shared.life.check_process()?;
        let opened = self.shared.life.is_opened();
        if !opened && !self.shared.life.is_read_only() && !self.shared.life.is_unfinished() {
            self.shared.life.health().check()?;
            return self.shared.life.check_open(); // a clean close made everything durable, and nothing was written since
        }
        let (shared, _open) = self.writable()?;
        shared.io.wal().sync()
    }
}

impl Shared {
    /// The operations of a batch, checked against the limits.
    pub(super) fn checked_ops<'b>(&self, batch: &'b WriteBatch) -> Result<(Vec<PendingOp<'b>>, WriteTotals)> {
        let limits = self.settings.load();
        let mut written = WriteTotals::default();
        let mut ops = Vec::with_capacity(batch.len());
        let max = limits.database.max_batch_bytes.min(limits.log.max_record);
        let mut encoded_len = 0;
        for (n, (key, value)) in batch.ops.iter().enumerate() {
            let op = PendingOp::new(key, value.as_deref(), &limits.database, self.stripes.count())
                .map_err(|error| batch.at(n, error))?;
            written.add(key.len(), value.as_ref().map(Vec::len));
            encoded_len += op.as_ref().encoded_len(ITEMS);
            if encoded_len > max {
                let all =
                    batch.ops.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
                return Err(Error::BatchTooLarge { len: all, max });
            }
            ops.push(op);
        }
        Ok((ops, written))
    }

    /// Takes one record through log and memtables.
    pub(super) fn commit(&self, ops: &[PendingOp<'_>], durability: Durability) -> Result<SeqNo> {
        let batch = BatchRecord::new(ops);
        let stripes = in_lock_order(ops.iter().map(|op| op.stripe));
        self.throttle(&stripes)?;
        let (space, reservation) = self.reserve_space(batch, 0, &stripes)?;
        let locked = self.lock_stripes(&stripes)?;
        self.commit_locked(batch, space, reservation, &stripes, locked, durability)
    }

    /// The rest of a commit, under the locks of at least the stripes that it writes to.
    #[inline]
    pub(super) fn commit_locked(
        &self,
        batch: BatchRecord<'_>,
        space: Option<Admitted>,
        reservation: Reservation<'_>,
        stripes: &[u16],
        locked: LockedStripes<'_>,
        durability: Durability,
    ) -> Result<SeqNo> {
        let ops = batch.ops;
        // A write that is synced next gains nothing from the buffer, and a failure of its own call can be undone.
        let route = if durability == Durability::Sync { Route::Direct } else { Route::Buffered };
        let register = |last| self.commits.register(last);
        // Another write holds the log: this one waits for it, or is written by it.
        let behind = self.io.wal().is_busy().then(|| self.clock.monotonic());
        let appended = self.io.wal().append(reservation, ops.len() as u32, &batch, route, register);
        if let Some(since) = behind {
            self.observed.waited(StallReason::Locks, since);
        }
        let appended = appended?;
        let last = appended.first_seq + ops.len() as u64 - 1;

        // From here on log and memtables must not diverge.
        let unwinding = PoisonOnUnwind::new(self.life.health(), "a write");
        if raced(Race::PublishedBeforeInserted) {
            let _ = self.commits.publish(last); // it is in flight
        }
        let (mut added, mut fresh, mut behind) = (0, 0, SmallVec::<[usize; 1]>::new());
        for (seq, op) in (appended.first_seq..).zip(ops) {
            let Some(stripe) = at_stripe(&locked, stripes, op.stripe) else {
                return Err(self.parted("the stripe of an operation in the log is not locked"));
            };
            let hash = op.key.hash;
            let op = op.as_ref();
            let entry = EntryRef { key: op.key, seq, kind: op.kind, value: op.value };
            let Some(inserted) = stripe.insert(appended.lsn, hash, entry) else {
                return Err(self.parted("a memtable cannot take an operation in the log"));
            };
            if op.kind == EntryKind::Delete {
                stripe.deleted(|| Since::written(self.now()));
                let deletes = stripe.gaps().deleted(op.key);
                if deletes == self.explore_after() {
                    self.background.queue_exploration(stripe.id());
                } else if deletes == 2 * self.explore_after() {
                    behind.push(stripe.id()); // faster than the background explores
                }
            }
            added += inserted.memory;
            fresh += u64::from(inserted.first);
        }
        if fresh > 0 {
            self.space.began_memtables(fresh);
        }
        let memory = self.space.memory_grew(added);
        drop(space);
        let settings = self.settings.load();
        for (stripe, &id) in locked.iter().zip(stripes) {
            if stripe.is_full(&settings.database)
                && let Some(sealed) = stripe.seal()
            {
                self.sealed(id as usize, sealed);
            }
        }
        if planted(Bug::VersionAboveVisibleDropped) {
            later(());
        }
        if !self.commits.publish(last) && !raced(Race::PublishedBeforeInserted) {
            return Err(self.parted("a write is not in flight when its operations are in memtables"));
        }
        drop(locked);
        std::mem::forget(unwinding);

        if fresh > 0 {
            self.check_inodes();
        }
        self.seal_if_over(memory, settings.memory_budget, appended.lsn);
        self.commits.wait_visible(last, self.life.health())?;
        behind.into_iter().for_each(|stripe| self.explore(stripe));
        if durability == Durability::Sync && !planted(Bug::AckBeforeSync) {
            self.io.wal().sync_to(appended.end)?;
        }
        Ok(last)
    }

    /// Log and memtables have diverged: nothing more may be written. The contents of the log are replayed, or rejected,
    /// when the database is opened again.
    #[cold]
    fn parted(&self, what: &'static str) -> Error {
        self.life.health().internal(what)
    }

    /// Locks these stripes, which are in lock order.
    pub(super) fn lock_stripes(&self, stripes: &[u16]) -> Result<LockedStripes<'_>> {
        let mut locked = LockedStripes::with_capacity(stripes.len());
        for &id in stripes {
            locked.push(self.lock_stripe(id.into())?);
        }
        Ok(locked)
    }

    fn lock_stripe(&self, id: usize) -> Result<Locked<'_>> {
        let stripe = self.stripe(id)?;
        Ok(stripe.try_lock().unwrap_or_else(|| {
            let since = self.clock.monotonic();
            let locked = stripe.lock();
            self.observed.waited(StallReason::Locks, since);
            locked
        }))
    }

    pub(super) fn pressure(&self, stripes: &[u16]) -> Pressure {
        let settings = self.settings.load();
        let runs_of = |&id: &u16| {
            let id = usize::from(id);
            Some((self.stripes.if_used(id)?.version().runs.len(), id))
        };
        // Stripes that were never used have no runs.
        let (runs, fullest) = stripes.iter().filter_map(runs_of).max().unwrap_or_default();
        let compaction = &settings.compaction;
        // Nor is a merge that finds no space worth waiting for: reserving space for the write requests reclaiming.
        let lacks_space = || {
            runs > compaction.sst_threshold
                && self.space.is_limited()
                && self.compaction_due(fullest, Ask::Due).is_none()
        };
        let load = Load {
            memory: self.space.memory() as u64,
            memory_budget: settings.memory_budget as u64,
            runs: runs as u64,
            // Where merges wait for space, so do writers.
            run_threshold: (compaction.enabled && !self.space.is_short() && !lacks_space())
                .then_some(compaction.sst_threshold as u64),
            // A log that flushes cannot shorten is not worth waiting for: writers stop anyway when its space runs out.
            log: if self.io.wal().can_retire() { self.io.wal().used_bytes() } else { 0 },
            log_limit: settings.log.limit,
        };
        load.pressure()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::config::{CompactionConfig, DatabaseConfig};
    use crate::error::testing::returning_internal_errors;
    use crate::key::stripe_of;
    use crate::lsm::{EngineOptions, Workers};

    #[test]
    fn write_buffer_size_says_how_many_records_one_call_to_the_log_takes() {
        let mut options = EngineOptions::memory();
        options.workers = Workers::Manual;
        options.compaction = Some(CompactionConfig::disabled());
        let engine = LsmEngine::create(Path::new("db"), options).unwrap();
        // Each key is in a stripe of its own, so that no write waits for a stripe instead of the log.
        let mut keys: Vec<Key<'static>> = Vec::new();
        let stripe = |key: &Key<'_>| stripe_of(key.encode(64).unwrap().partition_hash, 256);
        for n in 0..100 {
            let key = Key::from(&format!("key{n:02}")).into_owned();
            if !keys.iter().any(|other| stripe(other) == stripe(&key)) {
                keys.push(key);
            }
        }
        let put = |n: usize| {
            engine.put(&keys[n], &[0; 100], WriteOptions::new()).unwrap();
        };
        put(0);
        let before = engine.stats().unwrap();
        put(0);
        let record = (engine.stats().unwrap().log_bytes_written - before.log_bytes_written) as usize;
        for (together, calls) in [(4, 3), (1, 12), (12, 1), (3, 4)] {
            // The setting takes effect while the database is open.
            let bytes = together * record + record / 2;
            engine.set_config(DatabaseConfig::new().with_write_buffer_size(bytes)).unwrap();
            let before = engine.stats().unwrap();
            engine.shared.io.wal().gather(12, put);
            let after = engine.stats().unwrap();
            assert_eq!(after.log_records - before.log_records, 12);
            assert_eq!(after.log_writes - before.log_writes, calls, "calls of {together} records each");
        }
    }

    /// Checks that a write that finds the engine in an impossible state fails and poisons the handle.
    fn poisons(
        config: DatabaseConfig,
        what: &str,
        write: impl Fn(&Shared) -> Result<SeqNo> + std::panic::RefUnwindSafe,
    ) -> crate::vfs::MemVfs {
        let vfs = crate::vfs::MemVfs::new();
        let open = || {
            let mut options = EngineOptions::on(std::sync::Arc::new(vfs.clone()));
            (options.workers, options.config) = (Workers::Manual, Some(config.clone()));
            options
        };
        let engine = LsmEngine::create(Path::new("db"), open()).unwrap();
        let (key, other) = (Key::from("key"), Key::from("other"));
        engine.put(&key, b"value", WriteOptions::new()).unwrap();

        let error = returning_internal_errors(|| write(&engine.shared)).unwrap_err();
        assert_eq!(error.code(), "internal");
        assert!(error.to_string().contains(what), "{error}");
        let refused = engine.put(&other, b"", WriteOptions::new()).unwrap_err();
        assert!(matches!(&refused, Error::Poisoned { cause } if cause.contains(what)), "{refused}");
        assert_eq!(engine.get(&key).unwrap().as_deref(), Some(&b"value"[..]), "reads go on");
        assert_eq!(engine.get(&other).unwrap(), None);
        drop(engine);

        // With debug assertions the write panics, and the handle is poisoned with the same cause.
        let engine = LsmEngine::create(Path::new("again"), open()).unwrap();
        let shared = std::panic::AssertUnwindSafe(&engine.shared);
        let unwound = std::panic::catch_unwind(|| write(&shared));
        assert_eq!(unwound.is_err(), cfg!(debug_assertions));
        let refused = engine.put(&other, b"", WriteOptions::new()).unwrap_err();
        assert!(matches!(&refused, Error::Poisoned { cause } if cause.contains(what)), "{refused}");
        vfs
    }

    /// Symptom: a write to a stripe that a database does not have went to a stripe shared by all databases of a
    /// process. Cause: a fallback for an impossible state. Fix: the write fails before it is in the log, and poisons
    /// the handle.
    #[test]
    fn a_stripe_that_does_not_exist_poisons() {
        let write = |shared: &Shared| {
            let key = Key::from("batch");
            let op = PendingOp::new(&key, Some(b"value"), &DatabaseConfig::new(), 1)?;
            shared.commit(&[PendingOp { stripe: 4, ..op }], Durability::Buffered)
        };
        let vfs = poisons(DatabaseConfig::new().with_stripes(4), "no stripe 4, of 4", write);
        // The database opens again, with the earlier writes and without the write that poisoned it.
        let mut options = EngineOptions::on(std::sync::Arc::new(vfs));
        options.workers = Workers::Manual;
        let engine = LsmEngine::open(Path::new("db"), options).unwrap();
        assert_eq!(engine.get(&Key::from("key")).unwrap().as_deref(), Some(&b"value"[..]));
        assert_eq!(engine.get(&Key::from("batch")).unwrap(), None);
    }

    /// Symptom: with a limit on disk space, a write to a stripe with many runs failed with `WriteStalled`, even a
    /// delete, and waiting did not help. Cause: the merge that would reduce the runs had no space, and nothing had
    /// asked for any yet. Fix: writes do not wait for such a merge; they then ask for space, or fail because there is
    /// none.
    #[test]
    fn nobody_waits_for_a_merge_that_has_no_space() {
        let mut options = EngineOptions::memory();
        options.workers = Workers::Manual;
        options.config = Some(DatabaseConfig::new().with_stripes(1).with_max_total_disk_bytes(16 << 20));
        options.compaction = Some(CompactionConfig::disabled());
        let engine = LsmEngine::create(Path::new("db"), options).unwrap();
        for _ in 0..9 {
            engine.put(&Key::from("key"), &[0; 100], WriteOptions::new()).unwrap();
            engine.flush().unwrap();
        }
        engine.set_compaction_config(CompactionConfig::new().with_sst_threshold(2)).unwrap();
        let shared = &*engine.shared;
        assert!(matches!(shared.pressure(&[0]), Pressure::Stop(crate::backpressure::StallReason::Runs)));
        shared.space.quota().merging.fetch_add(32 << 20, Ordering::SeqCst);
        assert_eq!(shared.pressure(&[0]), Pressure::None);
        shared.space.quota().merging.fetch_sub(32 << 20, Ordering::SeqCst);
        assert!(matches!(shared.pressure(&[0]), Pressure::Stop(_)), "there is space again");
    }
}
