//! The disk space of one database: who may use it, what is reclaimed when it runs out, and how this is reported.
//!
//! A write that does not fit asks for space to be reclaimed and waits in the meantime: memtables are flushed, a
//! checkpoint retires the log before them and unlinks merged SSTs, and stripes with garbage are fully merged, a few at
//! a time. When there is nothing left to do, the write fails with `DiskFull`.
//!
//! Most puts to a full database do not have to wait. The space that flushes and merges will free, as far as it is known
//! ([`Load::passing`]), counts as free already, up to a sixteenth of the limit, which is kept for this. So deleting an
//! item frees space for another at once, and stripes are rewritten for a fair amount of garbage rather than for each
//! delete. To know this space, a nearly full database looks up the version that each write replaces. And once
//! everything that can be freed has been freed, later puts are rejected without another search.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smallvec::SmallVec;

use super::batch::{BatchRecord, PendingOp};
use super::space::{Admitted, FREED_AT_ONCE, MergeSpace};
use super::state::Shared;
use crate::backpressure::StallReason;
use crate::compaction::picker::StripeSummary;
use crate::config::DatabaseConfig;
use crate::error::{Error, Result};
use crate::memtable::{Memtable, RECORD_OVERHEAD};
use crate::quota::{
    Claim, ENTRY_FRAME, FEW_INODES, Inodes, Load, SST_FRAME, flush_bytes, merge_bytes, rewritten_bytes,
};
use crate::stripe::Stripe;
use crate::sync::MutexGuard;
use crate::sync::atomic::AtomicBool;
use crate::types::{EntryKind, SeqNo, SstMeta};
use crate::vfs::{Below, Floor, FreeSpace};
use crate::wal::{Payload, Reservation};

/// The most steps that a write performs or waits for: with a single thread, time may stand still.
const MOST_STEPS: u32 = 1_000_000;
/// How often a write that still finds no space requests it again after the background has found enough.
const MOST_REQUESTS: u32 = 3;

impl Shared {
    fn load(&self) -> Load {
        self.space.load(&self.settings.load(), || self.io.wal().live_bytes_lately(), self.stripes.count())
    }

    pub(super) fn keep(&self, claim: Claim) -> u64 {
        self.load().keep(claim)
    }

    /// Puts the disk limit of the settings in force. `kept_so_far`: the database never exceeded it.
    pub(crate) fn limit_disk(&self, kept_so_far: bool) {
        // No limit is the highest limit.
        let limit = self.settings.load().database.max_total_disk_bytes.unwrap_or(u64::MAX);
        self.measure_stripes();
        self.space.set_limit(limit, kept_so_far, &|| self.load());
    }

    /// For checks that report a broken space guarantee.
    pub(crate) fn space_report(&self) -> (u64, Load) {
        (self.space.used(), self.load())
    }

    /// See [`Space::keeps_its_promises`](super::space::Space::keeps_its_promises).
    pub(crate) fn keeps_its_promises(&self) -> bool {
        self.space.keeps_its_promises(|| self.load())
    }

    /// Retires a log segment that was created before the limit was lowered.
    pub(crate) fn give_back_log(&self) -> Result<()> {
        let _open = self.life.enter();
        self.life.check_open()?;
        match self.io.wal().rotate() {
            // Deletes will rotate it.
            Err(Error::DiskFull) => Ok(()),
            rotated => match rotated.and_then(|_| self.checkpoint_now()) {
                // The next one finds space, or reports that there is none.
                Err(Error::DiskFull) => Ok(()),
                done => done,
            },
        }
    }

    pub(super) fn free_space(&self) -> Option<FreeSpace> {
        // If this is unknown, whatever needs space finds out by itself.
        self.io.vfs().free_space(self.io.dir()).ok().flatten()
    }

    /// The number of inodes that must stay free after creating a file for this purpose.
    fn inodes_for(&self, purpose: Inodes) -> u64 {
        let first_run = |stripe: &&Stripe| {
            let version = stripe.version();
            version.runs.is_empty() && version.memtables().any(|memtable| !memtable.is_empty())
        };
        let promised = if purpose == Inodes::Put { self.stripes.used().filter(first_run).count() } else { 0 };
        purpose.leave() + promised as u64
    }

    /// Must be called before a file is created; the returned guard is held until the file exists. `DiskFull` if too few
    /// inodes would be left for others.
    pub(crate) fn take_inode(&self, purpose: Inodes) -> Result<Option<MutexGuard<'_, ()>>> {
        let free = || self.free_space().and_then(|free| free.inodes).unwrap_or(u64::MAX);
        if free() >= FEW_INODES {
            return Ok(None);
        }
        let making = self.space.quota().making.lock();
        if free() > self.inodes_for(purpose) {
            return Ok(Some(making));
        }
        self.space.set_lacks_inodes(true);
        Err(Error::DiskFull)
    }

    /// Called when a memtable has received its first record: it will need a file some day, and so may the next one.
    pub(crate) fn check_inodes(&self) {
        let inodes = self.free_space().and_then(|free| free.inodes);
        let few = inodes.is_some_and(|free| free < FEW_INODES && free <= self.inodes_for(Inodes::Put));
        self.space.set_lacks_inodes(few);
    }

    /// While inodes are scarce: whether a put to these stripes needs none, or there are enough again.
    fn may_begin(&self, stripes: &[u16]) -> bool {
        let has_data = |&id: &u16| {
            self.stripes.if_used(id.into()).is_some_and(|stripe| {
                let version = stripe.version();
                !version.runs.is_empty() || version.memtables().any(|memtable| !memtable.is_empty())
            })
        };
        if stripes.iter().all(has_data) {
            return true;
        }
        self.check_inodes();
        !self.space.lacks_inodes()
    }

    /// Bytes that a full merge of a stripe would write, after a flush of its memtables.
    fn full_merge_bytes(&self, stripe: &Stripe) -> u64 {
        let target = self.settings.load().database.target_sst_size;
        let version = stripe.version();
        let memory: usize = version.memtables().map(|memtable| memtable.memory()).sum();
        let ssts = self.rewritten(version.tables().map(|table| table.meta()));
        merge_bytes(ssts.saturating_add(flush_bytes(memory as u64, 0, target)), target)
    }

    /// Approximate bytes that a flush and a full merge of the stripe would free.
    fn garbage(&self, stripe: &Stripe) -> u64 {
        let version = Arc::clone(&stripe.version());
        let horizon = self.commits.horizon();
        let passing: u64 = version.memtables().map(|memtable| memtable.passing.load(Ordering::Relaxed)).sum();
        let now = self.now();
        let runs: Vec<_> = version.runs.iter().map(|run| run.summary(now)).collect();
        let summary = StripeSummary { stripe: stripe.id, runs, horizon, passed_over: 0 };
        summary.freed().saturating_add(passing)
    }

    /// The most that these SSTs take when they are rewritten.
    pub(crate) fn rewritten<'a>(&self, metas: impl Iterator<Item = &'a Arc<SstMeta>>) -> u64 {
        rewritten(&self.settings.load().database, metas)
    }

    /// Recomputes the largest stripe: flushes and merges change their sizes.
    pub(crate) fn measure_stripes(&self) {
        if self.settings.load().database.max_total_disk_bytes.is_none() {
            return;
        }
        let largest = self.stripes.used().map(|stripe| self.full_merge_bytes(stripe)).max().unwrap_or(0);
        let garbage = self.stripes.used().map(|stripe| self.garbage(stripe)).sum();
        self.space.measured(largest, garbage, &|| self.load());
    }

    /// Admits one write and reserves log space for its record; `DiskFull` when no space can be found. The write's share
    /// covers its memtable entries until the memtables count them. `stripes` names each stripe once. With `spare` bytes,
    /// the record may become longer by as many.
    pub(super) fn reserve_space(
        &self,
        batch: BatchRecord<'_>,
        spare: usize,
        stripes: &[u16],
    ) -> Result<(Option<Admitted>, Reservation<'_>)> {
        let len = batch.encoded_len() + spare;
        let quota = self.space.quota();
        let flag = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let inodes = || self.inodes_for(Inodes::Put);
        if !(quota.is_limited() || flag(&quota.starved) || flag(&quota.few_inodes)) {
            match self.reserve(len, Floor { inodes: &inodes, ..Floor::NONE }) {
                Err(Error::DiskFull) => self.space.log_found_no_space(),
                done => return done.map(|reservation| (None, reservation)),
            }
        }
        let deletes = batch.ops.iter().all(|op| op.as_ref().kind == EntryKind::Delete);
        let claim = if deletes { Claim::Delete } else { Claim::Put };
        let keep = || self.keep(claim);
        let inodes = || self.inodes_for(if deletes { Inodes::Delete } else { Inodes::Put });
        let below = if deletes { Below::Ceiling } else { Below::Limit };
        let mut floor = Floor { keep: &keep, inodes: &inodes, below };
        let near = quota.is_limited() && self.is_nearly_full();
        if !near {
            quota.searched.store(false, Ordering::Relaxed);
        }
        let passing = near.then(|| self.passing(batch.ops));
        let mut wait = SpaceWait::new(self, claim);
        loop {
            let memory = len as u64 + (RECORD_OVERHEAD * batch.ops.len()) as u64;
            if let Some(share) = self.admit(memory, stripes, claim, floor) {
                match self.reserve(len, floor) {
                    Err(Error::DiskFull) => self.space.log_found_no_space(),
                    done => return done.map(|reservation| (Some(share), reservation)),
                }
            }
            if let Err(error) = wait.go_on(&mut floor.below) {
                passing.into_iter().for_each(Passing::take_back);
                return Err(error);
            }
        }
    }

    /// Whether less space is left for puts than may be used ahead of merges.
    fn is_nearly_full(&self) -> bool {
        let load = self.load();
        let keep = &|| load.keep(Claim::Put);
        let floor = Floor { keep, below: Below::Limit, ..Floor::NONE };
        !self.space.quota().meter.fits(load.room_for_garbage(), floor)
    }

    /// Looks up the versions that the operations replace, and counts them as garbage, together with the part of the
    /// operations that takes space in memory only. Used only in a nearly full database.
    fn passing(&self, ops: &[PendingOp<'_>]) -> Passing<'_> {
        let mut passing = Passing { shared: self, of: SmallVec::new() };
        let horizon = self.commits.horizon();
        let held = horizon < self.commits.visible();
        for pending in ops {
            // A stripe without data has nothing to replace.
            let Some(stripe) = self.stripes.if_used(pending.stripe()) else { continue };
            let op = pending.as_ref();
            let version = stripe.version();
            let record = RECORD_OVERHEAD as u64;
            let mut bytes = match op.kind {
                EntryKind::Put => record - ENTRY_FRAME,
                EntryKind::Delete => record + op.key.len() as u64,
            };
            // Errors are reported to readers; here one only makes the estimate too low.
            if let Ok(Some(old)) = version.get(op.key, pending.key.hash, SeqNo::MAX, &mut ())
                && old.kind == EntryKind::Put
                && !(held && old.seq <= horizon)
            {
                bytes += (op.key.len() + old.value.len()) as u64 + ENTRY_FRAME;
            }
            version.active.passing.fetch_add(bytes, Ordering::Relaxed);
            self.space.quota().garbage.fetch_add(bytes, Ordering::Relaxed);
            passing.of.push((Arc::clone(&version.active), bytes));
        }
        passing
    }

    /// Reserves space for the SSTs of a write that takes `memory` bytes. `None` when it does not fit.
    fn admit(&self, memory: u64, stripes: &[u16], claim: Claim, floor: Floor<'_>) -> Option<Admitted> {
        if claim == Claim::Put && self.space.is_starved() {
            // One write must try whether there is space again.
            let since = self.clock.monotonic();
            let prepared = self.io.wal().prepare_segment(Floor::NONE);
            self.observed.waited(StallReason::Segment, since);
            // Whatever the error: there is still no space, and this write waits or is rejected.
            prepared.ok()?;
            self.space.quota().starved.store(false, Ordering::Relaxed);
        }
        if claim == Claim::Put && self.space.lacks_inodes() && !self.may_begin(stripes) {
            return None;
        }
        let target = self.settings.load().database.target_sst_size;
        let mut fresh = 0;
        for &id in stripes {
            match self.stripes.if_used(usize::from(id)) {
                Some(stripe) => {
                    fresh += u64::from(stripe.version().active.is_empty());
                    if self.space.is_limited() {
                        let largest =
                            self.full_merge_bytes(stripe).saturating_add(merge_bytes(memory, target));
                        self.space.quota().largest.fetch_max(largest, Ordering::Relaxed);
                    }
                }
                None => fresh += 1,
            }
        }
        let bytes = flush_bytes(memory, fresh, target);
        let admitted = self.space.admit(bytes, bytes.saturating_sub(memory));
        // Its log record must fit too if the log takes space only when it is written.
        let fits = !self.space.is_limited() || self.space.quota().meter.fits(memory, floor);
        fits.then_some(admitted)
    }

    /// Reserves space for the output of a merge of SSTs of these lengths, which take `rewritten` bytes when rewritten,
    /// and records how much the merge will free.
    pub(crate) fn reserve_merge(&self, inputs: &[u64], rewritten: u64) -> Option<MergeSpace> {
        let need = merge_bytes(rewritten, self.settings.load().database.target_sst_size);
        self.space.reserve_merge(inputs, need, &|| self.load())
    }

    /// Whether [`Shared::reserve_merge`] of this size would succeed now.
    pub(crate) fn may_merge(&self, rewritten: u64) -> bool {
        let need = merge_bytes(rewritten, self.settings.load().database.target_sst_size);
        self.space.may_merge(need, &|| self.load())
    }

    /// Prepares the log's next segment if there is space to spare.
    pub(crate) fn prepare_segment(&self) -> Result<()> {
        let (keep, inodes) = (|| self.keep(Claim::Put), || self.inodes_for(Inodes::Put));
        let floor = Floor { inodes: &inodes, ..Floor::NONE };
        let floor =
            if self.space.is_limited() { Floor { keep: &keep, below: Below::Limit, ..floor } } else { floor };
        let prepared = self.io.wal().prepare_segment(floor);
        if prepared.as_ref().is_err_and(Error::is_out_of_space) {
            self.space.starve();
        }
        prepared
    }

    /// Whether the log may take another segment ahead of need: exactly the condition of [`Shared::prepare_segment`], or
    /// a worker would start that again and again.
    pub(crate) fn may_take_segment(&self) -> bool {
        self.space.may_take(self.settings.load().log.segment, Claim::Put, &|| self.load())
    }

    /// Starts reclaiming everything that can be freed, in the background.
    fn request_reclaim(&self) {
        self.remove_obsolete(); // and measures the stripes
        self.retry_where_space_was_freed();
        self.space.quota().reclaim.store(true, Ordering::Relaxed);
        self.queue_all_stripes();
        self.background.request_seal();
    }

    /// Whether space is being reclaimed. Ends without being cancelled once enough is free.
    pub(crate) fn reclaiming(&self) -> bool {
        self.space.reclaiming(&|| self.load())
    }

    /// Seals some of the memtables that must be flushed to free space: for the log's segments, for tombstones that
    /// merges should meet, and because SSTs take less than is reserved for them. Stripes with the oldest deletes come
    /// first, then those with the oldest puts, and no more stripes than can be merged in a short time: that may already
    /// free what a write needs.
    pub(crate) fn seal_for_space(&self) {
        if !self.space.quota().seal_some.swap(false, Ordering::Relaxed) {
            return;
        }
        let now = self.now();
        let mut stripes: Vec<_> = self
            .stripes
            .used()
            .filter_map(|stripe| {
                let version = stripe.version();
                let deletes = version.active.deleted_since().map(|since| since.age(now));
                Some(((Reverse(deletes), version.active.first_lsn()?), stripe))
            })
            .collect();
        stripes.sort_by_key(|&(age, _)| age);
        let mut bytes = 0;
        for (_, stripe) in stripes {
            if bytes >= FREED_AT_ONCE {
                break;
            }
            bytes += SST_FRAME + stripe.version().tables().map(|table| table.meta().len).sum::<u64>();
            self.seal(stripe);
        }
    }

    /// Whether everything that could be freed already counts as free.
    fn nothing_to_reclaim(&self) -> bool {
        self.measure_stripes(); // a snapshot may have ended
        let load = self.load();
        load.passing() <= load.room_for_garbage()
    }

    fn has_unsealed(&self) -> bool {
        self.stripes.used().any(|stripe| !stripe.version().active.is_empty())
    }
}

/// A write that found no space and waits for some to be freed. Reports the time it waited when it is dropped.
struct SpaceWait<'a> {
    shared: &'a Shared,
    claim: Claim,
    /// When it first asked for space.
    since: Option<Duration>,
    /// The time it has taken since, not counting other waits, which are reported separately.
    time: Duration,
    steps: u32,
    /// Requests made after the background had found enough.
    asked: u32,
    flushed: bool,
    again: bool,
}

impl<'a> SpaceWait<'a> {
    fn new(shared: &'a Shared, claim: Claim) -> Self {
        Self {
            shared,
            claim,
            since: None,
            time: Duration::ZERO,
            steps: 0,
            asked: 0,
            flushed: false,
            again: true,
        }
    }

    /// Waits for anything that may have freed space; `DiskFull` when there is nothing left to wait for.
    fn go_on(&mut self, below: &mut Below) -> Result<()> {
        let began = self.shared.clock.monotonic();
        let result = self.wait(began, below);
        self.time += self.shared.since(began);
        result
    }

    fn wait(&mut self, now: Duration, below: &mut Below) -> Result<()> {
        let Self { shared, .. } = *self;
        let quota = shared.space.quota();
        shared.life.check_open()?;
        shared.life.health().check()?;
        self.steps += 1;
        if self.since.is_none()
            && self.claim == Claim::Put
            && quota.searched.load(Ordering::Relaxed)
            && shared.nothing_to_reclaim()
        {
            // The space that puts need is known more precisely once some memtables are flushed.
            quota.seal_some.store(true, Ordering::Relaxed);
            shared.request_reclaim();
            quota.refusals.fetch_add(1, Ordering::Relaxed);
            return Err(Error::DiskFull);
        }
        let since = *self.since.get_or_insert_with(|| {
            shared.request_reclaim();
            now
        });
        let limit = shared.settings.load().database.write_stall_limit;
        let in_time = now.saturating_sub(since) <= limit && self.steps <= MOST_STEPS;
        if in_time && shared.wait_for_reclaim() {
            self.again = true;
            return Ok(());
        }
        if std::mem::take(&mut self.again) {
            // Reclaiming may have ended after this write asked for space, having freed enough for others.
            if self.asked < MOST_REQUESTS && !quota.reclaim.load(Ordering::Relaxed) {
                self.asked += 1;
                shared.request_reclaim();
            }
            return Ok(());
        }
        self.again = true;
        if *below == Below::Ceiling {
            *below = Below::Most;
        } else if in_time && (shared.has_unsealed() || !self.flushed) {
            // Once more after everything is flushed: the memtables sealed last may have been merged by others.
            self.flushed = !shared.has_unsealed();
            quota.seal_some.store(true, Ordering::Relaxed);
            shared.request_reclaim();
        } else {
            quota.searched.store(in_time && quota.is_limited(), Ordering::Relaxed);
            quota.refusals.fetch_add(1, Ordering::Relaxed);
            return Err(Error::DiskFull);
        }
        Ok(())
    }
}

impl Drop for SpaceWait<'_> {
    fn drop(&mut self) {
        if self.since.is_some() {
            self.shared.observed.stopped(StallReason::Space, self.time);
        }
    }
}

/// Space that will be free after a write, counted as garbage even before the write is admitted.
struct Passing<'a> {
    shared: &'a Shared,
    of: SmallVec<[(Arc<Memtable>, u64); 1]>,
}

impl Passing<'_> {
    /// Reverts the counts after the write was rejected.
    fn take_back(self) {
        for (memtable, bytes) in self.of {
            memtable.passing.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.shared.measure_stripes();
    }
}

/// The most that these SSTs take when they are rewritten with these settings.
pub(crate) fn rewritten<'a>(to: &DatabaseConfig, metas: impl Iterator<Item = &'a Arc<SstMeta>>) -> u64 {
    metas.map(|meta| rewritten_bytes(meta, to.block_size, to.bloom_bits_per_key)).sum()
}
