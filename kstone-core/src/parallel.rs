//! Work that several threads share for a moment, each taking the next piece until none is left.

use std::sync::LazyLock;

use crate::sync::{Mutex, thread};

/// The name of these threads.
#[cfg(not(shuttle))]
const NAME: &str = "kstone-helper";

/// The number of processor cores; 1 if unknown.
pub(crate) fn cores() -> usize {
    // Asking the system opens files, and the scheduler asks often.
    static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    *CORES
}

/// The threads that work may be split over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The caller's only.
    One,
    /// One for each core, if the work is worth it.
    Cores,
    #[cfg(test)]
    Exactly(usize),
}

impl Threads {
    /// At most this many: with more, a recovery waits for memory and the disk.
    const MOST: usize = 8;
    /// Less work than this is done by the time a second thread has started.
    const WORTHWHILE: u64 = 1 << 20;
    /// The same for a manifest: it lists some 250 SSTs.
    const WORTHWHILE_MANIFEST: u64 = 128 << 10;

    /// How many threads process this many bytes of the log.
    pub(crate) fn for_bytes(self, bytes: u64) -> usize {
        match self {
            Self::Cores if bytes >= Self::WORTHWHILE => cores().min(Self::MOST),
            Self::One | Self::Cores => 1,
            #[cfg(test)]
            Self::Exactly(threads) => threads,
        }
    }

    /// How many threads list a directory and load a manifest of this many bytes.
    pub(crate) fn for_manifest(self, bytes: impl FnOnce() -> u64) -> usize {
        match self {
            Self::Cores if bytes() >= Self::WORTHWHILE_MANIFEST => cores().min(2),
            Self::One | Self::Cores => 1,
            #[cfg(test)]
            Self::Exactly(threads) => threads,
        }
    }
}

/// Calls `act` for each item and returns the results in the order of the items. They are taken in their order too, by
/// the calling thread and up to `threads - 1` others. With one thread everything happens on the caller's.
pub(crate) fn each<T: Send, R: Send>(threads: usize, items: Vec<T>, act: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        return items.into_iter().map(act).collect();
    }
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    let queue = Mutex::new(items.into_iter().zip(&mut results));
    let work = || {
        loop {
            let next = queue.lock().next();
            let Some((item, result)) = next else { return };
            *result = Some(act(item));
        }
    };
    beside(threads - 1, &work, work);
    drop(queue);
    // All are there: a panic in `act` has already reached the caller.
    results.into_iter().flatten().collect()
}

/// Returns the results of both: with more than one thread, `second` runs on another one meanwhile. If the system refuses
/// a thread, it runs after `first`, as with one thread.
pub(crate) fn both<A, B: Send>(
    threads: usize,
    first: impl FnOnce() -> A,
    second: impl Fn() -> B + Sync,
) -> (A, B) {
    let slot = Mutex::new(None);
    let first = match threads {
        0 | 1 => first(),
        _ => beside(1, &|| *slot.lock() = Some(second()), first),
    };
    let done = slot.lock().take();
    (first, done.unwrap_or_else(second))
}

/// Runs `act` on this thread and, meanwhile, `work` on up to `others` more: fewer if the system refuses a thread.
#[cfg(not(shuttle))]
fn beside<R>(others: usize, work: &(impl Fn() + Sync), act: impl FnOnce() -> R) -> R {
    thread::scope(|scope| {
        for _ in 0..others {
            if thread::Builder::new().name(NAME.into()).spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        act()
    })
}

/// Threads of the scheduler cannot borrow. The logs of its tests are too short for a second thread anyway.
#[cfg(shuttle)]
fn beside<R>(_others: usize, _work: &(impl Fn() + Sync), act: impl FnOnce() -> R) -> R {
    act()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_done_once_and_the_results_keep_the_order() {
        for threads in [0, 1, 2, 7, 200] {
            for count in [0, 1, 2, 100] {
                let mut items = vec![0u32; count];
                let numbered: Vec<_> = items.iter_mut().zip(0..).collect();
                let results = each(threads, numbered, |(item, n)| {
                    *item += 1;
                    n
                });
                assert!(results.into_iter().eq(0..count), "{threads} threads, {count} items");
                assert!(items.iter().all(|&times| times == 1));
            }
        }
    }

    #[test]
    fn both_results_are_returned() {
        for threads in [0, 1, 2] {
            assert_eq!(both(threads, || 1, || "two"), (1, "two"), "{threads} threads");
        }
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let act = |n| assert_ne!(n, 5, "planted");
        std::panic::catch_unwind(|| each(2, (0..9).collect(), act)).unwrap_err();
        std::panic::catch_unwind(|| both(2, || (), || act(5))).unwrap_err();
    }
}
