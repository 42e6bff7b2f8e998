//! Watches the threads of a step: decides when measuring starts, records the time line, and decides when the step ends.

#![expect(clippy::disallowed_methods, reason = "it samples at fixed intervals")]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Begin, Slice};
use crate::engine::Engine;
use crate::resources::Usage;

/// The interval between two samples.
const LOOK: Duration = Duration::from_millis(50);
/// Throughput is steady when this many windows in a row agree within [`STEADY`]; a window is [`WINDOW`] samples.
const WINDOWS: usize = 3;
const WINDOW: usize = 4;
const STEADY: f64 = 0.05;
/// The maximum length of the warm-up, as a fraction of a step.
const WARM_UP: f64 = 0.2;
/// Time lines have up to twice this many slices; then pairs are merged.
const SLICES: usize = 200;
/// The engine's counters are read only once in this many samples, because reading them is more expensive.
const COUNTED: usize = 20;

/// State shared by the threads and the sampler.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) stop: AtomicBool,
    /// Whether measuring has started.
    pub(super) measuring: AtomicBool,
    threads: Vec<Thread>,
    finished: AtomicUsize,
}

/// On cache lines of its own, so that threads do not slow each other down by counting.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Thread {
    operations: AtomicU64,
    slowest: AtomicU64,
}

impl Watched {
    pub(super) fn new(threads: usize) -> Self {
        let threads = (0..threads).map(|_| Thread::default()).collect();
        Self {
            stop: AtomicBool::new(false),
            measuring: AtomicBool::new(false),
            threads,
            finished: AtomicUsize::new(0),
        }
    }

    /// Records that the thread did one more operation, in this many nanoseconds. Only this thread writes its counters,
    /// except for the sampler, which may thereby lose the slowest operation of a moment.
    pub(super) fn done(&self, thread: usize, nanos: u64) {
        if let Some(thread) = self.threads.get(thread) {
            let before = thread.operations.load(Ordering::Relaxed);
            thread.operations.store(before + 1, Ordering::Relaxed);
            if nanos > thread.slowest.load(Ordering::Relaxed) {
                thread.slowest.store(nanos, Ordering::Relaxed);
            }
        }
    }

    /// Records that a thread has finished its work.
    pub(super) fn end(&self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of threads that have finished.
    pub(super) fn finished(&self) -> usize {
        self.finished.load(Ordering::Relaxed)
    }

    fn operations(&self) -> u64 {
        self.threads.iter().map(|thread| thread.operations.load(Ordering::Relaxed)).sum()
    }

    fn slowest(&self) -> u64 {
        self.threads.iter().map(|thread| thread.slowest.swap(0, Ordering::Relaxed)).max().unwrap_or(0)
    }
}

/// How long a step runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) operations: Option<u64>,
    pub(super) seconds: Option<f64>,
    /// Whether to wait for steady throughput. An offered rate is steady by itself.
    pub(super) warm_up: bool,
}

/// The observations.
#[derive(Default)]
pub(super) struct Sampled {
    pub(super) slices: Vec<Slice>,
    pub(super) peak_resident: u64,
    pub(super) peak_anonymous: u64,
    /// Where measuring starts, if not at the start of the step.
    pub(super) begin: Option<Begin>,
    /// Operations and seconds before that.
    pub(super) warm_up: (u64, f64),
    pub(super) steady: bool,
}

/// Watches until the threads stop, or stops them. Without limits, only samples.
pub(super) fn watch(watched: &Watched, engine: &dyn Engine, limits: Option<Limits>) -> Result<Sampled> {
    let start = Instant::now();
    let mut sampled = Sampled::default();
    let mut windows = Windows::default();
    let (mut origin, mut counted, mut every) = (start, 0, 1);
    let mut warming = limits.is_some_and(|limits| limits.warm_up);
    let mut runs = None;
    for look in 1.. {
        let due = start + LOOK * look;
        let stopped = wait(watched, due);
        let usage = Usage::memory()?;
        sampled.peak_resident = sampled.peak_resident.max(usage.resident);
        sampled.peak_anonymous = sampled.peak_anonymous.max(usage.anonymous);
        let operations = watched.operations();
        if warming && !stopped {
            let over = limits.is_some_and(|limits| warm_up_is_over(&limits, operations, start.elapsed()));
            sampled.steady = windows.add(look as usize, operations);
            if sampled.steady || over {
                warming = false;
                let counters = engine.counters()?;
                origin = Instant::now();
                counted = watched.operations();
                sampled.warm_up = (counted, origin.duration_since(start).as_secs_f64());
                sampled.begin = Some(Begin { at: origin, usage: Usage::now()?, counters });
                watched.slowest();
                watched.measuring.store(true, Ordering::Relaxed);
            }
            continue;
        }
        if (look as usize).is_multiple_of(COUNTED) && !stopped {
            runs = engine.counters()?.get("runs").copied();
        }
        if stopped || look % every == 0 {
            let end = origin.elapsed().as_secs_f64();
            let (done, slowest) = (operations - counted.min(operations), watched.slowest());
            counted = operations;
            let anonymous_bytes = usage.anonymous;
            sampled.slices.push(Slice { end, operations: done, slowest, anonymous_bytes, runs });
            if sampled.slices.len() >= 2 * SLICES {
                every *= 2;
                sampled.slices = halved(&sampled.slices);
            }
        }
        if stopped {
            return Ok(sampled);
        }
        if limits.and_then(|limits| limits.seconds).is_some_and(|most| start.elapsed().as_secs_f64() >= most)
        {
            watched.stop.store(true, Ordering::Relaxed);
        }
    }
    Ok(sampled)
}

/// Sleeps in small pieces, so that a step that ends early is not held up; returns whether it has ended.
fn wait(watched: &Watched, due: Instant) -> bool {
    while !watched.stop.load(Ordering::Relaxed) {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(left.min(Duration::from_millis(5)));
    }
    true
}

fn warm_up_is_over(limits: &Limits, operations: u64, time: Duration) -> bool {
    limits.operations.is_some_and(|all| operations as f64 >= WARM_UP * all as f64)
        || limits.seconds.is_some_and(|all| time.as_secs_f64() >= WARM_UP * all)
}

/// Throughput in the most recent windows.
#[derive(Debug, Default)]
struct Windows {
    before: u64,
    rates: Vec<u64>,
}

impl Windows {
    /// Records the number of operations at this sample; returns whether throughput is steady.
    fn add(&mut self, look: usize, operations: u64) -> bool {
        if !look.is_multiple_of(WINDOW) {
            return false;
        }
        self.rates.push(operations - self.before);
        self.before = operations;
        let Some(last) = self.rates.len().checked_sub(WINDOWS).and_then(|from| self.rates.get(from..)) else {
            return false;
        };
        let (least, most) = (last.iter().min(), last.iter().max());
        least
            .zip(most)
            .is_some_and(|(least, most)| *least > 0 && *most as f64 <= *least as f64 * (1.0 + STEADY))
    }
}

/// Merges pairs of slices.
fn halved(slices: &[Slice]) -> Vec<Slice> {
    let one = |pair: &[Slice]| {
        let last = pair.last().cloned().unwrap_or_default();
        let operations = pair.iter().map(|slice| slice.operations).sum();
        let slowest = pair.iter().map(|slice| slice.slowest).max().unwrap_or(0);
        Slice { operations, slowest, ..last }
    };
    slices.chunks(2).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_steady_when_three_windows_agree() {
        let steady = |totals: &[u64]| {
            let mut windows = Windows::default();
            totals
                .iter()
                .enumerate()
                .map(|(n, total)| windows.add((n + 1) * WINDOW, *total))
                .collect::<Vec<_>>()
        };
        assert_eq!(steady(&[100, 200, 300]), [false, false, true]);
        assert_eq!(steady(&[100, 300, 400, 500, 604]), [false, false, false, false, true]);
        assert_eq!(steady(&[0, 0, 0, 0]), [false; 4]);
        assert!(!Windows::default().add(1, 5));
    }

    #[test]
    fn warm_up_takes_a_fifth_at_most() {
        let limits = Limits { operations: Some(1000), seconds: Some(10.0), warm_up: true };
        let over = |operations, seconds| warm_up_is_over(&limits, operations, Duration::from_secs(seconds));
        assert!(!over(199, 1) && over(200, 1) && over(0, 2));
    }

    #[test]
    fn two_slices_become_one_and_nothing_is_lost() {
        let slice = |n| Slice { end: n as f64, operations: n, slowest: 10 - n, ..Slice::default() };
        let halved = halved(&[slice(1), slice(2), slice(3)]);
        let seen: Vec<_> = halved.iter().map(|slice| (slice.end, slice.operations, slice.slowest)).collect();
        assert_eq!(seen, [(2.0, 3, 9), (3.0, 3, 7)]);
    }
}
