//! The space that an open database uses and has promised, on disk and in memory.
//!
//! A promise is a [`Share`] of a figure, which is returned when the share is dropped. How much must stay free for the
//! promises is the rule of [`Load`]. `quota.rs` in this directory decides when writers wait for space and what is done
//! to free some. No lock is acquired here: an operation that moves space between two figures does so in an order in
//! which the space may count twice for a moment, but is never missed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::settings::Settings;
use crate::quota::{Claim, Load, Quota, Share};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use crate::vfs::{Below, Floor, Meter, Usage, pages};

/// While space is wanted, the bytes of stripes whose memtables are sealed together, and of merged inputs that a
/// checkpoint removes before more is merged. Merging this much takes some ten milliseconds, several times as long as a
/// checkpoint, and may free what a write needs: its caller waits for no more than this.
pub(crate) const FREED_AT_ONCE: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Space {
    quota: Arc<Quota>,
    /// Bytes of all memtables, and those of the sealed ones.
    memory: AtomicUsize,
    sealed: AtomicUsize,
}

impl Space {
    /// `manifest`: bytes that the manifest takes until it is rewritten.
    pub(crate) fn new(meter: Arc<Meter>, manifest: u64) -> Self {
        let space = Self {
            quota: Arc::new(Quota::new(meter)),
            memory: AtomicUsize::new(0),
            sealed: AtomicUsize::new(0),
        };
        space.manifest_takes(manifest);
        space
    }

    /// For the rules in `quota.rs` in this directory, which combine several of its figures.
    #[inline]
    pub(super) fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }

    /// Whether there is a limit on disk space.
    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.quota.is_limited()
    }

    /// Whether space is being reclaimed for a write that waits for it or was rejected.
    pub(crate) fn is_short(&self) -> bool {
        self.quota.is_short()
    }

    /// Whether the file system has no space for another log segment.
    pub(crate) fn is_starved(&self) -> bool {
        flag(&self.quota.starved)
    }

    /// Whether the file system has too few inodes left to flush the memtables.
    pub(crate) fn lacks_inodes(&self) -> bool {
        flag(&self.quota.few_inodes)
    }

    pub(crate) fn set_lacks_inodes(&self, few: bool) {
        self.quota.few_inodes.store(few, Ordering::Relaxed);
    }

    /// Whether a checkpoint would free a large amount of space.
    pub(crate) fn checkpoint_frees_much(&self) -> bool {
        self.quota.pending_delete.load(Ordering::Relaxed) >= FREED_AT_ONCE
    }

    /// Writes rejected for lack of space.
    pub(crate) fn refusals(&self) -> u64 {
        self.quota.refusals.load(Ordering::Relaxed)
    }

    /// The size of the files, by kind.
    pub(crate) fn usage(&self) -> Usage {
        self.quota.meter.usage()
    }

    /// Bytes of all memtables.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    /// Bytes of the active memtables only.
    pub(crate) fn unsealed_memory(&self) -> usize {
        self.memory().saturating_sub(self.sealed.load(Ordering::Relaxed))
    }

    /// Counts memtables that have received their first record.
    #[inline]
    pub(crate) fn began_memtables(&self, count: u64) {
        self.quota.memtables.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds to the memory of the memtables; returns the new total.
    #[inline]
    pub(crate) fn memory_grew(&self, bytes: usize) -> usize {
        self.memory.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    /// Counts a memtable of this size as sealed.
    pub(crate) fn sealed(&self, memory: usize) {
        self.sealed.fetch_add(memory, Ordering::Relaxed);
    }

    /// Counts a sealed memtable of this size as flushed.
    pub(crate) fn flushed(&self, memory: usize) {
        self.memory.fetch_sub(memory, Ordering::Relaxed);
        self.sealed.fetch_sub(memory, Ordering::Relaxed);
        self.quota.memtables.fetch_sub(1, Ordering::Relaxed);
    }

    /// The share for bytes that a running flush has written: space for those no longer has to be kept free.
    pub(crate) fn begin_flush(&self) -> Share {
        Share::new(&self.quota, |quota| &quota.flushing, 0)
    }

    /// Counts a merged input of this length as removed.
    pub(crate) fn removed(&self, len: u64) {
        self.quota.pending_delete.fetch_sub(pages(len), Ordering::Relaxed);
    }

    /// Sets the bytes that the manifest takes until it is rewritten.
    pub(crate) fn manifest_takes(&self, bytes: u64) {
        self.quota.manifest.store(bytes, Ordering::Relaxed);
    }

    /// All figures that determine how much must stay free. `log` returns the size of the log's segments.
    pub(crate) fn load(&self, settings: &Settings, log: impl FnOnce() -> u64, stripes: usize) -> Load {
        let quota = &self.quota;
        let get = |figure: &AtomicU64| figure.load(Ordering::SeqCst);
        Load {
            limit: quota.meter.limit() % u64::MAX,
            // Read before the memtables: what moves from one to the other may count twice, but is never missed.
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

    /// Whether a claim may take this much.
    pub(crate) fn may_take(&self, bytes: u64, claim: Claim, load: &dyn Fn() -> Load) -> bool {
        let below = if claim == Claim::Put { Below::Limit } else { Below::Most };
        let keep = &|| load().keep(claim);
        !self.is_limited() || self.quota.meter.fits(bytes, Floor { keep, below, ..Floor::NONE })
    }

    /// Sets the limit on disk space, `u64::MAX` for none. `kept_so_far`: the database never exceeded it.
    pub(crate) fn set_limit(&self, limit: u64, kept_so_far: bool, load: &dyn Fn() -> Load) {
        let meter = &self.quota.meter;
        if limit != meter.limit() {
            let slack = if kept_so_far { 0 } else { load().keep(Claim::Put) };
            meter.set_limit(limit, slack);
        }
        meter.keep(load().keep(Claim::Put));
    }

    /// Stores the bytes that a full merge of the largest stripe would write, and approximately those that merging all
    /// stripes would free.
    pub(crate) fn measured(&self, largest: u64, garbage: u64, load: &dyn Fn() -> Load) {
        self.quota.largest.store(largest, Ordering::Relaxed);
        self.quota.garbage.store(garbage, Ordering::Relaxed);
        let keep = &|| load().keep(Claim::Put);
        self.quota.meter.keep(keep());
        self.quota.meter.settle(keep);
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.quota.meter.used()
    }

    /// Whether everything promised has its space. Always true, once it has been since the database was opened: records
    /// that a crash left in the log may go to other memtables than before, and take less than was reserved for them.
    pub(crate) fn keeps_its_promises(&self, load: impl FnOnce() -> Load) -> bool {
        let meter = &self.quota.meter;
        if !self.is_limited() || meter.allows(meter.used().saturating_add(load().promised())) {
            self.quota.kept.store(true, Ordering::Relaxed);
            return true;
        }
        !flag(&self.quota.kept)
    }

    /// Notes that the log found no space. Without a limit nothing else indicates that there is still too little:
    /// reclaiming would end at once, and a write that only has to wait for a merge would be rejected.
    pub(crate) fn log_found_no_space(&self) {
        if !self.is_limited() && !self.lacks_inodes() {
            self.starve();
        }
    }

    /// Records that the file system had no space for another log segment.
    pub(crate) fn starve(&self) {
        self.quota.starved.store(true, Ordering::Relaxed);
    }

    /// Whether space is wanted. Becomes false by itself once enough is free.
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

    /// Reserves what the SSTs of a write take, `frames` of it beside the records, until memtables count it.
    pub(crate) fn admit(&self, bytes: u64, frames: u64) -> Admitted {
        // In this order: what will be free only later never exceeds what is reserved for it.
        let space = Share::new(&self.quota, |quota| &quota.admitted, bytes);
        let frames = Share::new(&self.quota, |quota| &quota.admitted_frames, frames);
        Admitted { _space: space, _frames: frames }
    }

    /// Reserves space for the output of a merge of SSTs of these lengths, which may take up to `need`, and records what
    /// the merge will free.
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

    /// Whether [`Space::reserve_merge`] of this much would succeed now.
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

/// Space for a write's memtable entries until the memtables count them, and how much of it their merging will free.
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
    /// Records the bytes written so far. They will be freed again, or as much of the inputs will.
    pub(crate) fn wrote(&mut self, bytes: u64) {
        self.output.set(self.need.saturating_sub(bytes));
        self.pending_delete.set(bytes.min(self.inputs));
    }

    /// Whether an output of this size was reserved.
    pub(crate) fn holds(&self, bytes: u64) -> bool {
        bytes <= self.need
    }

    /// The output is installed; the inputs count as pending deletes until they are removed.
    pub(crate) fn installed(mut self) {
        self.pending_delete.set(self.inputs);
        self.pending_delete.leave();
    }
}
