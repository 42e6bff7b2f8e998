//! Counters for hot paths: each thread adds to memory that no other thread writes, so counting is a load and a store;
//! readers sum over the threads.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::types::{GetCost, Source};

/// Number of threads with memory of their own; further threads share one shard, where additions are atomic.
const OWNED: usize = 64;
/// Run counts with buckets of their own: 0 to 16, and more.
pub(crate) const RUN_BUCKETS: usize = 18;

/// Numbers of threads that have ended, for reuse.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static NEXT: Mutex<usize> = Mutex::new(0);

/// The number of a live thread, unique among live threads. The lock on the free list makes the counts of the previous
/// owner visible to the next one.
struct ThreadNumber(usize);

impl ThreadNumber {
    fn take() -> Self {
        if let Some(number) = FREE.lock().pop() {
            return Self(number);
        }
        let mut next = NEXT.lock();
        *next += 1;
        Self(*next - 1)
    }
}

impl Drop for ThreadNumber {
    fn drop(&mut self) {
        // Anything that the thread's other destructors count goes to the shared shard.
        NUMBER.set(usize::MAX);
        FREE.lock().push(self.0);
    }
}

thread_local! {
    static OWNER: ThreadNumber = ThreadNumber::take();
    /// The same number without a destructor, which makes access cheaper. `usize::MAX`: not assigned yet, or released.
    static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn thread_number() -> usize {
    match NUMBER.get() {
        usize::MAX => {
            // A thread that is ending no longer has a number and counts in the shared shard.
            let number = OWNER.try_with(|owner| owner.0).unwrap_or(usize::MAX);
            NUMBER.set(number);
            number
        }
        number => number,
    }
}

/// The operations that are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Put,
    Get,
    Delete,
    Query,
    Batch,
    Flush,
    Compaction,
    Checkpoint,
    LogSync,
}

impl Operation {
    pub(crate) const COUNT: usize = 9;
}

/// The counters other than those of gets by runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Puts,
    Deletes,
    Batches,
    Queries,
    Scans,
    EntriesRead,
    EntriesPassed,
    BytesWritten,
    BytesRead,
    RunsLookedAt,
    BlocksRead,
    FromMemtable,
    FromSealed,
}

const COUNTS: usize = 13;

/// What one thread counted.
#[derive(Debug)]
struct Shard {
    counts: [AtomicU64; COUNTS],
    /// Gets answered by a run, by the number of runs consulted.
    hits: [AtomicU64; RUN_BUCKETS],
    /// Gets that found nothing, by the number of runs consulted.
    misses: [AtomicU64; RUN_BUCKETS],
    /// Operations since the last timed one.
    untimed: [AtomicU32; Operation::COUNT],
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            counts: Default::default(),
            hits: std::array::from_fn(|_| AtomicU64::new(0)),
            misses: std::array::from_fn(|_| AtomicU64::new(0)),
            untimed: Default::default(),
        }
    }
}

/// The counters of one handle.
#[derive(Debug)]
pub(crate) struct OpCounters {
    enabled: bool,
    /// Padded, so that no two threads write to the same pair of cache lines.
    owned: [OnceLock<Box<CachePadded<Shard>>>; OWNED],
    shared: CachePadded<Shard>,
}

/// The calling thread's counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local<'a> {
    shard: &'a Shard,
    owned: bool,
    enabled: bool,
}

impl OpCounters {
    pub(crate) fn new(enabled: bool) -> Self {
        Self { enabled, owned: [const { OnceLock::new() }; OWNED], shared: CachePadded::default() }
    }

    #[inline]
    pub(crate) fn local(&self) -> Local<'_> {
        let (shard, owned) = match self.owned.get(thread_number()) {
            Some(shard) => (&***shard.get_or_init(Box::default), true),
            None => (&*self.shared, false),
        };
        Local { shard, owned, enabled: self.enabled }
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.owned.iter().filter_map(|shard| shard.get().map(|shard| &***shard)).chain([&*self.shared])
    }

    pub(crate) fn get(&self, count: Count) -> u64 {
        self.shards().filter_map(|s| s.counts.get(count as usize)).map(|c| c.load(Ordering::Relaxed)).sum()
    }

    /// Gets answered by a run, and gets that found nothing, by the number of runs consulted.
    pub(crate) fn by_runs(&self) -> ([u64; RUN_BUCKETS], [u64; RUN_BUCKETS]) {
        let sum = |of: fn(&Shard) -> &[AtomicU64; RUN_BUCKETS]| {
            self.shards().map(of).fold([0; RUN_BUCKETS], |mut sums, shard| {
                for (sum, counter) in sums.iter_mut().zip(shard) {
                    *sum += counter.load(Ordering::Relaxed);
                }
                sums
            })
        };
        (sum(|shard| &shard.hits), sum(|shard| &shard.misses))
    }
}

impl Local<'_> {
    #[inline]
    pub(crate) fn add(&self, count: Count, n: u64) {
        if let Some(counter) = self.shard.counts.get(count as usize).filter(|_| self.enabled) {
            self.add_to(counter, n);
        }
    }

    #[inline]
    fn add_to(&self, counter: &AtomicU64, n: u64) {
        if self.owned {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        } else {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Counts a get: the bytes it returned, if it found a value, and its cost.
    #[inline]
    pub(crate) fn got(&self, cost: &GetCost, value: Option<usize>) {
        if !self.enabled {
            return;
        }
        let bucket = (cost.runs as usize).min(RUN_BUCKETS - 1);
        if cost.runs > 0 {
            self.add(Count::RunsLookedAt, cost.runs.into());
        }
        if cost.blocks > 0 {
            self.add(Count::BlocksRead, cost.blocks.into());
        }
        match (value, cost.source) {
            (None, _) => self.shard.misses.get(bucket).into_iter().for_each(|c| self.add_to(c, 1)),
            (_, Source::Memtable) => self.add(Count::FromMemtable, 1),
            (_, Source::Sealed) => self.add(Count::FromSealed, 1),
            (_, Source::Runs) => self.shard.hits.get(bucket).into_iter().for_each(|c| self.add_to(c, 1)),
        }
        if let Some(bytes) = value {
            self.add(Count::BytesRead, bytes as u64);
        }
    }

    /// Whether to time this operation, one in `every`; 0 times none.
    #[inline]
    pub(crate) fn is_timed(&self, operation: Operation, every: u32) -> bool {
        let Some(untimed) = self.shard.untimed.get(operation as usize).filter(|_| every > 0) else {
            return false;
        };
        // Threads that share a shard may lose a count: one sample is then a little late.
        let n = untimed.load(Ordering::Relaxed).saturating_add(1);
        let timed = n >= every;
        untimed.store(if timed { 0 } else { n }, Ordering::Relaxed);
        timed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_come_and_go_lose_nothing() {
        let counters = OpCounters::new(true);
        for _ in 0..5 {
            std::thread::scope(|scope| {
                for _ in 0..OWNED + 6 {
                    scope.spawn(|| {
                        for _ in 0..1000 {
                            counters.local().add(Count::Puts, 1);
                        }
                    });
                }
            });
        }
        assert_eq!(counters.get(Count::Puts), 5 * (OWNED as u64 + 6) * 1000);
        // Numbers are reused; otherwise the owned memory would soon run out.
        assert!(*NEXT.lock() < 5 * OWNED);
    }

    #[test]
    fn one_operation_in_so_many_is_timed() {
        let counters = OpCounters::new(true);
        let timed = |every| (0..12).filter(|_| counters.local().is_timed(Operation::Get, every)).count();
        assert_eq!((timed(0), timed(1), timed(4), timed(12)), (0, 12, 3, 1));
    }

    #[test]
    fn gets_are_told_apart_by_where_they_ended() {
        let counters = OpCounters::new(true);
        let mut cost = GetCost::default();
        counters.local().got(&cost, None);
        cost.source = Source::Sealed;
        counters.local().got(&cost, Some(5));
        cost = GetCost { runs: 40, blocks: 2, source: Source::Runs, ..GetCost::default() };
        counters.local().got(&cost, Some(7));
        let (hits, misses) = counters.by_runs();
        assert_eq!((hits[RUN_BUCKETS - 1], misses[0]), (1, 1));
        assert_eq!(counters.get(Count::FromSealed), 1);
        assert_eq!((counters.get(Count::RunsLookedAt), counters.get(Count::BlocksRead)), (40, 2));
        assert_eq!(counters.get(Count::BytesRead), 12);
        let off = OpCounters::new(false);
        off.local().got(&cost, Some(1));
        off.local().add(Count::Puts, 1);
        assert_eq!(
            (off.get(Count::Puts), off.get(Count::BytesRead), off.by_runs().0),
            (0, 0, [0; RUN_BUCKETS])
        );
    }
}
