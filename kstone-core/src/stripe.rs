//! One stripe, and the only code that inserts, seals, and installs flushes and compactions.
//!
//! 1. The version changes only under the stripe's lock; readers load it without a lock.
//! 2. Memtables are flushed oldest first and installed in that order, so the writes that are in SSTs are always a
//!    prefix of the stripe's writes: all up to `flushed_to`.
//! 3. At most one flush and one compaction of a stripe run at a time; the scheduler ensures that.

use std::sync::Arc;

use crate::clock::Since;
use crate::config::{DatabaseConfig, MemtableMode};
use crate::error::Result;
use crate::gaps::Gaps;
use crate::key::KeyRange;
use crate::memtable::{ChunkPool, Memtable};
use crate::planted::{Bug, planted};
use crate::slice::Found;
use crate::sst::Table;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{ArcSwap, Mutex, MutexGuard};
use crate::types::{EntryKind, EntryRef, Lsn, RunId, SeqNo};
use crate::version::{Run, Version};

#[derive(Debug)]
pub(crate) struct Stripe {
    pub(crate) id: usize,
    version: ArcSwap<Version>,
    /// Where memtables take their memory from.
    chunks: Arc<ChunkPool>,
    state: Mutex<StripeState>,
    /// Record limit of the active memtable with `MemtableMode::Adaptive`; 0 before the first flush.
    adaptive_limit: AtomicUsize,
    /// Records flushed since open.
    pub(crate) flushed_records: AtomicU64,
    /// Key ranges that readers have found to be empty.
    pub(crate) gaps: Gaps,
    /// Entries that readers have skipped since open or the last merge of the whole stripe: tombstones, and the versions
    /// hidden by them. Statistics only.
    pub(crate) passed_over: AtomicU64,
    /// Gets of its keys that were timed, since open. Statistics only.
    pub(crate) timed_gets: AtomicU64,
    /// Writes to it that backpressure held up since open, and for how long, in nanoseconds. Statistics only.
    pub(crate) held_up: AtomicU64,
    pub(crate) held_up_nanos: AtomicU64,
}

/// State guarded by the stripe's lock, besides the version.
#[derive(Debug, Default)]
pub(crate) struct StripeState {
    /// All writes of this stripe up to here are in SSTs, or were dropped as superfluous by a flush.
    pub(crate) flushed_to: SeqNo,
}

/// The effect of a record on a memtable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inserted {
    /// Memory that the record takes in the memtable.
    pub(crate) memory: usize,
    /// The memtable was empty before.
    pub(crate) first: bool,
}

/// The stripe, locked.
pub(crate) struct Locked<'a> {
    stripe: &'a Stripe,
    pub(crate) state: MutexGuard<'a, StripeState>,
}

/// What a locked stripe knows of a key above a sequence.
pub(crate) enum Newer {
    /// There is nothing newer.
    None,
    /// The newest version.
    Found(Found),
    /// What is newer may have been flushed.
    Flushed,
}

impl Stripe {
    /// A stripe with these runs, newest first, as listed in the manifest.
    pub(crate) fn new(id: usize, runs: Vec<Arc<Run>>, flushed_to: SeqNo, chunks: &Arc<ChunkPool>) -> Self {
        let version = Version { active: Arc::new(Memtable::new(chunks)), sealed: Vec::new(), runs };
        let state = StripeState { flushed_to };
        Self {
            id,
            version: ArcSwap::from_pointee(version),
            chunks: Arc::clone(chunks),
            state: Mutex::new(state),
            adaptive_limit: AtomicUsize::new(0),
            flushed_records: AtomicU64::new(0),
            gaps: Gaps::default(),
            passed_over: AtomicU64::new(0),
            timed_gets: AtomicU64::new(0),
            held_up: AtomicU64::new(0),
            held_up_nanos: AtomicU64::new(0),
        }
    }

    /// The current contents of the stripe.
    pub(crate) fn version(&self) -> arc_swap::Guard<Arc<Version>> {
        self.version.load()
    }

    /// Record limit of the active memtable.
    pub(crate) fn memtable_limit(&self, config: &DatabaseConfig) -> usize {
        match config.memtable_mode {
            MemtableMode::Fixed => config.max_memtable_records,
            MemtableMode::Adaptive => match self.adaptive_limit.load(Ordering::Relaxed) {
                0 => config.max_memtable_records,
                limit => limit,
            },
        }
    }

    pub(crate) fn set_adaptive_limit(&self, records: usize) {
        self.adaptive_limit.store(records, Ordering::Relaxed);
    }

    /// Acquires the lock if it is free.
    pub(crate) fn try_lock(&self) -> Option<Locked<'_>> {
        Some(Locked { stripe: self, state: self.state.try_lock()? })
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked { stripe: self, state: self.state.lock() }
    }
}

impl Locked<'_> {
    pub(crate) fn version(&self) -> arc_swap::Guard<Arc<Version>> {
        self.stripe.version.load()
    }

    /// Inserts a record that is in the log at `lsn`; `hash` is that of its key. `None` if the memtable can take no more,
    /// which [`Locked::is_full`] prevents.
    pub(crate) fn insert(&self, lsn: Lsn, hash: u64, entry: EntryRef<'_>) -> Option<Inserted> {
        let active = &self.version().active;
        let first = active.is_empty();
        let memory = active.insert(lsn, hash, entry)?;
        if entry.kind == EntryKind::Put {
            self.stripe.gaps.put(entry.key);
        }
        Some(Inserted { memory, first })
    }

    /// The newest version of a key in (`after`, `up_to`], where `after` was visible. Reads memtables only.
    pub(crate) fn newer(&self, key: &[u8], hash: u64, after: SeqNo, up_to: SeqNo) -> Result<Newer> {
        let version = self.version();
        if planted(Bug::RunsAskedForFlushes) {
            let found = version.get(key, hash, up_to, &mut ())?;
            return Ok(found.filter(|found| found.seq > after).map_or(Newer::None, Newer::Found));
        }
        if self.state.flushed_to > after {
            return Ok(Newer::Flushed);
        }
        for memtable in self.newer_memtables(&version, after) {
            if let Some(found) = memtable.get(key, hash, up_to).filter(|found| found.seq > after) {
                return Ok(Newer::Found(found));
            }
        }
        Ok(Newer::None)
    }

    /// Whether a range has a version in (`after`, `up_to`]; `None` if that may have been flushed.
    pub(crate) fn has_newer(&self, range: &KeyRange, after: SeqNo, up_to: SeqNo) -> Option<bool> {
        if self.state.flushed_to > after && !planted(Bug::RunsAskedForFlushes) {
            return None;
        }
        let version = self.version();
        Some(self.newer_memtables(&version, after).any(|memtable| memtable.has_newer(range, after, up_to)))
    }

    /// The memtables that may have something above `after`, newest first.
    fn newer_memtables<'v>(
        &self,
        version: &'v Version,
        after: SeqNo,
    ) -> impl Iterator<Item = &'v Arc<Memtable>> {
        let most = if planted(Bug::SealedNotChecked) { 1 } else { usize::MAX };
        version.memtables().take(most).filter(move |memtable| memtable.last_seq() > after)
    }

    pub(crate) fn id(&self) -> usize {
        self.stripe.id
    }

    pub(crate) fn gaps(&self) -> &Gaps {
        &self.stripe.gaps
    }

    /// Registers a watch for a reader that has not taken its sequence yet. Also returns the sequence of the stripe's
    /// last write, which that reader must see.
    pub(crate) fn watch(&self, range: KeyRange) -> (u64, SeqNo) {
        (self.stripe.gaps.watch(range), self.last_seq())
    }

    /// The sequence of the stripe's last write, visible or not.
    pub(crate) fn last_seq(&self) -> SeqNo {
        let last = self.version().memtables().map(|memtable| memtable.last_seq()).max();
        last.unwrap_or(0).max(self.state.flushed_to)
    }

    /// Notes that the record just inserted is a delete; `since` is when it was made.
    pub(crate) fn deleted(&self, since: impl FnOnce() -> Since) {
        let active = &self.version().active;
        if active.deleted_since().is_none() {
            active.deleted(since());
        }
    }

    /// Whether the active memtable has reached one of its own limits.
    pub(crate) fn is_full(&self, config: &DatabaseConfig) -> bool {
        let version = self.version();
        version.active.len() >= self.stripe.memtable_limit(config)
            || config.max_memtable_size_bytes.is_some_and(|max| version.active.data_bytes() >= max)
            || version.active.is_full()
    }

    /// Sets the active memtable aside for its flush and returns its memory; `None` if it is empty.
    pub(crate) fn seal(&self) -> Option<usize> {
        let version = self.version();
        if version.active.is_empty() {
            return None;
        }
        let memory = version.active.memory();
        let mut sealed = Vec::with_capacity(version.sealed.len() + 1);
        sealed.push(Arc::clone(&version.active));
        sealed.extend_from_slice(&version.sealed);
        let active = Arc::new(Memtable::new(&self.stripe.chunks));
        self.replace(Version { active, sealed, runs: version.runs.clone() });
        Some(memory)
    }

    /// The oldest sealed memtable: the next to flush.
    pub(crate) fn oldest_sealed(&self) -> Option<Arc<Memtable>> {
        let version = self.version();
        let next = if planted(Bug::FlushOutOfOrder) { version.sealed.first() } else { version.sealed.last() };
        next.cloned()
    }

    /// Replaces the oldest sealed memtable by its run; `None` if nothing in it was worth keeping.
    pub(crate) fn install_flush(&mut self, flushed: &Arc<Memtable>, run: Option<Run>) {
        let version = self.version();
        debug_assert!(version.sealed.last().is_some_and(|oldest| Arc::ptr_eq(oldest, flushed)));
        let sealed = version.sealed.iter().filter(|m| !Arc::ptr_eq(m, flushed)).cloned().collect();
        let runs = run.map(Arc::new).into_iter().chain(version.runs.iter().cloned()).collect();
        self.replace(Version { active: Arc::clone(&version.active), sealed, runs });
        self.state.flushed_to = self.state.flushed_to.max(flushed.last_seq());
    }

    /// Replaces the inputs of a merge, which are adjacent, by its output; returns the SSTs of the inputs.
    pub(crate) fn install_compaction(&mut self, inputs: &[RunId], output: Option<Run>) -> Vec<Arc<Table>> {
        let version = self.version();
        let mut output = output.map(Arc::new);
        let mut runs = Vec::with_capacity(version.runs.len());
        let mut gone = Vec::new();
        for run in &version.runs {
            if inputs.contains(&run.id()) {
                runs.extend(output.take());
                gone.extend(run.parts.iter().cloned());
            } else {
                runs.push(Arc::clone(run));
            }
        }
        self.replace(Version { active: Arc::clone(&version.active), sealed: version.sealed.clone(), runs });
        gone
    }

    fn replace(&self, version: Version) {
        self.stripe.version.store(Arc::new(version));
    }
}
