//! The space that an open database takes and has promised, on disk and in memory.
//!
//! What is promised is handed out as a [`Share`] of a figure, which takes itself back. How much must stay free for it is
//! the rule of [`Load`]; when writers wait for space, and what is done to free some, is in `quota.rs` of this directory.
//! No lock is taken here: what adds to two figures adds to the first in such an order that space counts twice for a
//! moment rather than not at all.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::settings::Settings;
use crate::quota::{Claim, Load, Quota, Share};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use crate::vfs::{Below, Floor, Meter, Usage, pages};

/// While space is wanted, in bytes: of the stripes whose memtables are sealed together for it, and of merged inputs that a
/// checkpoint gives back before more is merged. Merging so much takes some ten milliseconds, several times as long as a
/// checkpoint, and may free what a write needs: its caller waits for no more.
pub(crate) const FREED_AT_ONCE: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Space {
    quota: Arc<Quota>,
    /// Bytes of all memtables, and of the sealed ones among them.
    memory: AtomicUsize,
    sealed: AtomicUsize,
}

impl Space {
    /// `manifest`: what the manifest takes until it is rewritten.
    pub(crate) fn new(meter: Arc<Meter>, manifest: u64) -> Self {
        let space = Self {
            quota: Arc::new(Quota::new(meter)),
            memory: AtomicUsize::new(0),
            sealed: AtomicUsize::new(0),
        };
        space.manifest_takes(manifest);
        space
    }

    /// For the rules in `quota.rs` of this directory, which decide by several of its figures at a time.
    #[inline]
    pub(super) fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }

    /// There is a limit on disk space.
    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.quota.is_limited()
    }

    /// Space is being reclaimed for somebody who waits for it, or was refused.
    pub(crate) fn is_short(&self) -> bool {
        self.quota.is_short()
    }

    /// The file system has no room for another log segment.
    pub(crate) fn is_starved(&self) -> bool {
        flag(&self.quota.starved)
    }

    /// The file system has too few inodes left for what is in memory.
    pub(crate) fn lacks_inodes(&self) -> bool {
        flag(&self.quota.few_inodes)
    }

    pub(crate) fn set_lacks_inodes(&self, few: bool) {
        self.quota.few_inodes.store(few, Ordering::Relaxed);
    }

    /// A checkpoint would give back a good deal of space.
    pub(crate) fn checkpoint_frees_much(&self) -> bool {
        self.quota.pending_delete.load(Ordering::Relaxed) >= FREED_AT_ONCE
    }

    /// Writes that were refused for want of space.
    pub(crate) fn refusals(&self) -> u64 {
        self.quota.refusals.load(Ordering::Relaxed)
    }

    /// What the files take, by their kinds.
    pub(crate) fn usage(&self) -> Usage {
        self.quota.meter.usage()
    }

    /// Bytes of all memtables.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// Of the memtables that are written to alone.
    pub(crate) fn unsealed_memory(&self) -> usize {
        self.memory().saturating_sub(self.sealed.load(Ordering::Relaxed))
    }

    /// That many memtables have got their first record.
    #[inline]
    pub(crate) fn began_memtables(&self, count: u64) {
        self.quota.memtables.fetch_add(count, Ordering::Relaxed);
    }

    /// Memtables take that much more; returns what all of them take.
    #[inline]
    pub(crate) fn memory_grew(&self, bytes: usize) -> usize {
        self.memory.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// A memtable of that much memory was sealed.
    pub(crate) fn sealed(&self, memory: usize) {
        self.sealed.fetch_add(memory, Ordering::Relaxed);
    }

    /// A sealed memtable of that much memory has become a run.
    pub(crate) fn flushed(&self, memory: usize) {
        self.memory.fetch_sub(memory, Ordering::Relaxed);
        self.sealed.fetch_sub(memory, Ordering::Relaxed);
        self.quota.memtables.fetch_sub(1, Ordering::Relaxed);
    }

    /// What a flush under way has written: no space need be kept free for that any more.
    pub(crate) fn begin_flush(&self) -> Share {
        Share::new(&self.quota, |quota| &quota.flushing, 0)
    }

    /// A merged input of that length was removed.
    pub(crate) fn removed(&self, len: u64) {
        self.quota.pending_delete.fetch_sub(pages(len), Ordering::Relaxed);
    }

    /// The manifest takes that much until it is rewritten.
    pub(crate) fn manifest_takes(&self, bytes: u64) {
        self.quota.manifest.store(bytes, Ordering::Relaxed);
    }

    /// All that decides how much must stay free. `log` is what its segments take.
    pub(crate) fn load(&self, settings: &Settings, log: impl FnOnce() -> u64, stripes: usize) -> Load {
        let quota = &self.quota;
        let get = |figure: &AtomicU64| figure.load(Ordering::SeqCst);
        Load {
            limit: quota.meter.limit() % u64::MAX,
            // Before the memtables: what moves from one to the other counts twice rather than not at all.
            admitted: get(&quota.admitted),
            memory: self.memory() as u64,
            memtables: get(&quota.memtables),
            flushing: get(&quota.flushing),
            merging: get(&quota.merging),
            pending_delete: get(&quota.pending_delete),
            largest: get(&quota.largest),
            garbage: get(&quota.garbage),
            admitted_frames: get(&quota.admitted_frames),
            log: log(),
            manifest: get(&quota.manifest),
            segment: settings.database.wal_segment_bytes(),
            stripes: stripes as u64,
            target_sst: settings.database.target_sst_size,
        }
    }

    /// Whether a claim may take that much.
    pub(crate) fn may_take(&self, bytes: u64, claim: Claim, load: &dyn Fn() -> Load) -> bool {
        let below = if claim == Claim::Put { Below::Limit } else { Below::Most };
        let keep = &|| load().keep(claim);
        !self.is_limited() || self.quota.meter.fits(bytes, Floor { keep, below, ..Floor::NONE })
    }

    /// Sets the limit on disk space, `u64::MAX` for none. `kept_so_far`: the database was never over it.
    pub(crate) fn set_limit(&self, limit: u64, kept_so_far: bool, load: &dyn Fn() -> Load) {
        let meter = &self.quota.meter;
        if limit != meter.limit() {
            let slack = if kept_so_far { 0 } else { load().keep(Claim::Put) };
            meter.set_limit(limit, slack);
        }
        meter.keep(load().keep(Claim::Put));
    }

    /// What merging the largest stripe whole would write, and what merging all of them would free, about.
    pub(crate) fn measured(&self, largest: u64, garbage: u64, load: &dyn Fn() -> Load) {
        self.quota.largest.store(largest, Ordering::Relaxed);
        self.quota.garbage.store(garbage, Ordering::Relaxed);
        let keep = &|| load().keep(Claim::Put);
        self.quota.meter.keep(keep());
        self.quota.meter.settle(keep);
    }

    /// What is used.
    pub(crate) fn used(&self) -> u64 {
        self.quota.meter.used()
    }

    /// Whether all that was promised has its space: true at all times, once it was since the database was opened. What
    /// a crash left in the log may fill other memtables than before, and takes less than is set aside for them.
    pub(crate) fn keeps_its_promises(&self, load: impl FnOnce() -> Load) -> bool {
        let meter = &self.quota.meter;
        if !self.is_limited() || meter.allows(meter.used().saturating_add(load().promised())) {
            self.quota.kept.store(true, Ordering::Relaxed);
            return true;
        }
        !flag(&self.quota.kept)
    }

    /// Without a limit nothing else says that there is not enough yet: reclaiming would end at once, and a write that only
    /// has to wait for a merge would be refused.
    pub(crate) fn log_found_no_space(&self) {
        if !self.is_limited() && !self.lacks_inodes() {
            self.starve();
        }
    }

    /// The file system had no room for another log segment.
    pub(crate) fn starve(&self) {
        self.quota.starved.store(true, Ordering::Relaxed);
    }

    /// Whether space is wanted. Ends by itself once there is a good deal.
    pub(crate) fn reclaiming(&self, load: &dyn Fn() -> Load) -> bool {
        if !self.is_short() {
            return false;
        }
        let enough = if self.is_limited() {
            self.may_take(self.quota.meter.limit() / 32, Claim::Put, load)
        } else {
            !self.is_starved() && !self.lacks_inodes()
        };
        if enough {
            self.quota.reclaim.store(false, Ordering::Relaxed);
        }
        !enough
    }

    /// Sets aside what the SSTs of a write take, of it `frames` beside the records, until memtables count it.
    pub(crate) fn admit(&self, bytes: u64, frames: u64) -> Admitted {
        // In this order: what is free only later is never more than what is set aside for it.
        let space = Share::new(&self.quota, |quota| &quota.admitted, bytes);
        let frames = Share::new(&self.quota, |quota| &quota.admitted_frames, frames);
        Admitted { _space: space, _frames: frames }
    }

    /// Space for the output of a merge of SSTs of those lengths, which may `need` as much, and a note of what it will
    /// free.
    pub(crate) fn reserve_merge(
        &self,
        inputs: &[u64],
        need: u64,
        load: &dyn Fn() -> Load,
    ) -> Option<MergeSpace> {
        let output = Share::new(&self.quota, |quota| &quota.merging, need);
        if !self.may_take(0, Claim::Merge, load) {
            return None;
        }
        let inputs = inputs.iter().map(|&len| pages(len)).sum();
        let pending_delete = Share::new(&self.quota, |quota| &quota.pending_delete, 0);
        Some(MergeSpace { need, inputs, output, pending_delete })
    }

    /// Whether [`Space::reserve_merge`] of that much would work now.
    pub(crate) fn may_merge(&self, need: u64, load: &dyn Fn() -> Load) -> bool {
        self.may_take(0, Claim::Merge, &|| {
            let load = load();
            Load { merging: load.merging + need, ..load }
        })
    }
}

fn flag(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}

/// Space for what a write adds to memtables, until they count it; and how much of it their merging will free.
#[derive(Debug)]
pub(crate) struct Admitted {
    _space: Share,
    _frames: Share,
}

/// What a merge may write, and what it will free.
#[derive(Debug)]
pub(crate) struct MergeSpace {
    need: u64,
    inputs: u64,
    output: Share,
    pending_delete: Share,
}

impl MergeSpace {
    /// So much was written. It will go again, or as much of the inputs will.
    pub(crate) fn wrote(&mut self, bytes: u64) {
        self.output.set(self.need.saturating_sub(bytes));
        self.pending_delete.set(bytes.min(self.inputs));
    }

    /// Whether an output of that much was foreseen.
    pub(crate) fn holds(&self, bytes: u64) -> bool {
        bytes <= self.need
    }

    /// The output is in place; the inputs count as pending deletes until they are removed.
    pub(crate) fn installed(mut self) {
        self.pending_delete.set(self.inputs);
        self.pending_delete.leave();
    }
}
