//! The same interface under the scheduler of the `shuttle` crate, only for tests of interleavings.
//!
//! 1. Every use of a lock, an atomic or an [`ArcSwap`] is a scheduling point. All orderings count as sequentially
//!    consistent: weaker ones are justified where they are used, not tested here.
//! 2. Time is simulated. A timed wait times out only when the scheduler runs the clock's thread ([`Time::run`]): by
//!    chance, or because no other thread can run. So if a timeout makes up for a missed wake-up, [`Time::waits_out`]
//!    reports it.
//! 3. A condition variable wakes only threads that were notified, and `notify_one` picks one of them at random.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shuttle::current::TaskId;
use shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};
use shuttle::rand::Rng;
use shuttle::scheduler::{Schedule, Scheduler, Task};

pub use shuttle::sync::atomic;

/// Threads under the scheduler.
pub mod thread {
    use std::io;
    use std::num::NonZero;

    pub use shuttle::thread::*;

    /// Like `std::thread::Builder`; fails once the limit set by [`super::Time::only_threads`] is reached.
    #[derive(Debug, Default)]
    pub struct Builder(shuttle::thread::Builder);

    impl Builder {
        /// A builder without a name.
        pub fn new() -> Self {
            Self::default()
        }

        /// Sets the name of the thread.
        pub fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        /// Starts the thread.
        pub fn spawn<F, T>(self, act: F) -> io::Result<JoinHandle<T>>
        where
            F: FnOnce() -> T + Send + 'static,
            T: Send + 'static,
        {
            if super::Time::take_thread() { self.0.spawn(act) } else { Err(io::ErrorKind::WouldBlock.into()) }
        }
    }

    /// A fixed number of cores: schedules must not depend on the machine.
    pub fn available_parallelism() -> io::Result<NonZero<usize>> {
        NonZero::new(2).ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// Like `parking_lot::Mutex`.
#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

/// Like `parking_lot::MutexGuard`.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// `None` only during a wait.
    guard: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// An unlocked mutex.
    #[track_caller]
    pub const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    /// Acquires the mutex, blocking.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, guard: Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)) }
    }

    /// Whether the mutex is locked.
    pub fn is_locked(&self) -> bool {
        self.try_lock().is_none()
    }

    /// Acquires the mutex if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(MutexGuard { mutex: self, guard: Some(guard) }),
            Err(std::sync::TryLockError::Poisoned(error)) => {
                Some(MutexGuard { mutex: self, guard: Some(error.into_inner()) })
            }
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> MutexGuard<'_, T> {
    /// Releases the mutex while `f` runs.
    pub fn unlocked<R>(guard: &mut Self, f: impl FnOnce() -> R) -> R {
        guard.guard = None;
        let result = f();
        guard.guard = guard.mutex.lock().guard;
        result
    }
}

#[expect(
    clippy::expect_used,
    reason = "tests only: a guard belongs to one thread, which does not use it while it waits"
)]
impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("the guard is waiting")
    }
}

#[expect(clippy::expect_used, reason = "as above")]
impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("the guard is waiting")
    }
}

/// Like `parking_lot::RwLock`. A thread that acquires it twice for reading fails the test: with a writer waiting in
/// between, it would deadlock with itself.
#[derive(Debug, Default)]
pub struct RwLock<T>(shuttle::sync::RwLock<T>);

pub use shuttle::sync::{RwLockReadGuard, RwLockWriteGuard};

impl<T> RwLock<T> {
    /// An unlocked lock.
    #[track_caller]
    pub const fn new(value: T) -> Self {
        Self(shuttle::sync::RwLock::new(value))
    }

    /// Acquires the lock for reading, blocking.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acquires the lock for writing, blocking.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Like `arc_swap::ArcSwap`, which never blocks: only the points before a load and a store are scheduled.
#[derive(Debug)]
pub struct ArcSwap<T> {
    held: arc_swap::ArcSwap<T>,
    point: atomic::AtomicUsize,
}

impl<T> ArcSwap<T> {
    /// Holds `value` initially.
    #[track_caller]
    pub fn new(value: Arc<T>) -> Self {
        Self { held: arc_swap::ArcSwap::new(value), point: atomic::AtomicUsize::new(0) }
    }

    /// Holds a new `Arc` of `value` initially.
    #[track_caller]
    pub fn from_pointee(value: T) -> Self {
        Self::new(Arc::new(value))
    }

    /// The current value.
    pub fn load(&self) -> arc_swap::Guard<Arc<T>> {
        self.point.load(atomic::Ordering::SeqCst);
        self.held.load()
    }

    /// The current value, as an `Arc`.
    pub fn load_full(&self) -> Arc<T> {
        Arc::clone(&self.load())
    }

    /// Replaces the value.
    pub fn store(&self, value: Arc<T>) {
        self.point.fetch_add(1, atomic::Ordering::SeqCst);
        self.held.store(value);
    }
}

/// A thread that waits for a notification or a point in time.
#[derive(Debug)]
struct Waiter {
    wake: BatchSemaphore,
    state: AtomicU8,
}

const WAITS: u8 = 0;
const TOLD: u8 = 1;
const TIME_OVER: u8 = 2;

impl Waiter {
    /// Wakes the thread, unless something else already has.
    fn end(&self, why: u8) -> bool {
        let first = self.state.compare_exchange(WAITS, why, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if first {
            self.wake.release(1);
        }
        first
    }
}

/// Like `parking_lot::Condvar`.
#[derive(Debug, Default)]
pub struct Condvar {
    waiters: std::sync::Mutex<Vec<Arc<Waiter>>>,
}

/// Like `parking_lot::WaitTimeoutResult`.
#[derive(Clone, Copy, Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the wait timed out.
    pub fn timed_out(self) -> bool {
        self.0
    }
}

impl Condvar {
    /// A condition variable without waiters.
    pub const fn new() -> Self {
        Self { waiters: std::sync::Mutex::new(Vec::new()) }
    }

    /// Waits for a notification.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.wait_here(guard, None);
    }

    /// Waits for a notification, at most for `limit`.
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, limit: Duration) -> WaitTimeoutResult {
        WaitTimeoutResult(self.wait_here(guard, Some(limit)))
    }

    fn wait_here<T>(&self, guard: &mut MutexGuard<'_, T>, limit: Option<Duration>) -> bool {
        let wake = BatchSemaphore::new(0, Fairness::Unfair);
        let waiter = Arc::new(Waiter { wake, state: AtomicU8::new(WAITS) });
        self.list().push(Arc::clone(&waiter));
        if let Some(limit) = limit {
            Time::remember(limit, &waiter);
        }
        guard.guard = None;
        let _ = waiter.wake.acquire_blocking(1);
        self.list().retain(|other| !Arc::ptr_eq(other, &waiter));
        guard.guard = guard.mutex.lock().guard;
        waiter.state.load(Ordering::SeqCst) == TIME_OVER
    }

    /// Wakes one waiter.
    pub fn notify_one(&self) {
        point();
        loop {
            let waiter = {
                let mut list = self.list();
                match list.len() {
                    0 => return,
                    1 => list.swap_remove(0),
                    n => list.swap_remove(shuttle::rand::thread_rng().gen_range(0..n)),
                }
            };
            if waiter.end(TOLD) {
                return;
            }
        }
    }

    /// Wakes all waiters.
    pub fn notify_all(&self) {
        point();
        let waiters = std::mem::take(&mut *self.list());
        waiters.iter().for_each(|waiter| {
            waiter.end(TOLD);
        });
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Waiter>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A scheduling point.
fn point() {
    thread::sleep(Duration::ZERO);
}

std::thread_local! {
    // All threads of an execution are fibers of one thread.
    static STATE: RefCell<State> = RefCell::default();
}

#[derive(Default)]
struct State {
    now: Duration,
    limits: Vec<Limit>,
    /// One permit per timed wait: lets the clock's thread run.
    ticks: Option<Arc<BatchSemaphore>>,
    over: bool,
    /// Number of threads that the engine may still start; `None` for any number.
    threads: Option<usize>,
    /// No other thread could run when the clock's thread was chosen.
    alone: bool,
    waits_out: Vec<Duration>,
}

struct Limit {
    at: Duration,
    limit: Duration,
    waiter: Arc<Waiter>,
}

/// Most time that passes at once by chance: a runnable thread does not lose minutes between two of its steps.
const LONGEST_STEP: Duration = Duration::from_millis(20);

/// The simulated time of one execution.
#[derive(Debug)]
pub struct Time;

impl Time {
    /// Runs one execution, starting at time zero. It starts the clock's thread first.
    pub fn run<R>(execution: impl FnOnce() -> R) -> R {
        let ticks = Arc::new(BatchSemaphore::new(0, Fairness::Unfair));
        STATE.set(State { ticks: Some(Arc::clone(&ticks)), ..State::default() });
        let clock = thread::spawn({
            let ticks = Arc::clone(&ticks);
            move || {
                while ticks.acquire_blocking(1).is_ok() && !STATE.with_borrow(|state| state.over) {
                    Self::advance();
                }
            }
        });
        let result = execution();
        STATE.with_borrow_mut(|state| state.over = true);
        ticks.release(1);
        let _ = clock.join();
        result
    }

    /// Time since the execution started.
    pub fn now() -> Duration {
        STATE.with_borrow(|state| state.now)
    }

    /// The limits of the waits that timed out because no thread could run: none was notified.
    pub fn waits_out() -> Vec<Duration> {
        STATE.with_borrow(|state| state.waits_out.clone())
    }

    /// Limits how many further threads the engine can start.
    pub fn only_threads(number: usize) {
        STATE.with_borrow_mut(|state| state.threads = Some(number));
    }

    fn take_thread() -> bool {
        STATE.with_borrow_mut(|state| {
            let left = state.threads.map(|threads| threads.checked_sub(1));
            state.threads = left.map_or(state.threads, |left| left.or(Some(0)));
            left != Some(None)
        })
    }

    fn remember(limit: Duration, waiter: &Arc<Waiter>) {
        let ticks = STATE.with_borrow_mut(|state| {
            state.limits.push(Limit { at: state.now + limit, limit, waiter: Arc::clone(waiter) });
            state.ticks.clone()
        });
        if let Some(ticks) = ticks {
            ticks.release_no_scheduling_point(1);
        }
    }

    /// Advances time to the end of the next timed wait.
    fn advance() {
        let (next, ticks) = STATE.with_borrow_mut(|state| (state.next_limit(), state.ticks.clone()));
        match (next, ticks) {
            (Some(Some(waiter)), _) => {
                waiter.end(TIME_OVER);
            }
            // Its permit is returned, to be used later.
            (Some(None), Some(ticks)) => ticks.release_no_scheduling_point(1),
            _ => {}
        }
    }
}

impl State {
    /// Advances time by a step and returns the waiter whose wait ends, if any; `None` if no timed wait is left.
    fn next_limit(&mut self) -> Option<Option<Arc<Waiter>>> {
        self.limits.retain(|limit| limit.waiter.state.load(Ordering::SeqCst) == WAITS);
        let at = (0..self.limits.len()).min_by_key(|&at| self.limits.get(at).map(|limit| limit.at))?;
        if !self.alone && self.limits.get(at)?.at > self.now + LONGEST_STEP {
            self.now += LONGEST_STEP;
            return Some(None);
        }
        let next = self.limits.swap_remove(at);
        self.now = self.now.max(next.at);
        if self.alone {
            self.waits_out.push(next.limit);
        }
        Some(Some(next.waiter))
    }
}

/// A scheduler that runs the clock's thread at random, once in this many decisions, or when no other thread can run,
/// and leaves all other decisions to an inner scheduler.
#[derive(Debug)]
pub struct Timed<S> {
    inner: S,
    chance: Chance,
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chance {
    /// Only when no other thread can run.
    Never,
    OnceIn(u64),
    /// The inner scheduler decides this too: it repeats a recorded execution.
    Repeated,
}

/// The clock's thread is the first one started.
const CLOCK: usize = 1;

impl<S> Timed<S> {
    /// Time passes by chance once in `once_in` decisions; 0: only when no other thread can run.
    pub fn new(inner: S, once_in: u64, seed: u64) -> Self {
        let chance = if once_in > 0 { Chance::OnceIn(once_in) } else { Chance::Never };
        Self { inner, chance, seed }
    }

    /// The inner scheduler replays an execution, including its clock.
    pub fn replay(inner: S) -> Self {
        Self { inner, chance: Chance::Repeated, seed: 0 }
    }

    fn by_chance(&mut self) -> bool {
        // Knuth's linear congruential generator: its upper bits are random enough here.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        matches!(self.chance, Chance::OnceIn(n) if (self.seed >> 33).is_multiple_of(n))
    }
}

impl<S: Scheduler> Scheduler for Timed<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.inner.new_execution()
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, yields: bool) -> Option<TaskId> {
        let (clock, others): (Vec<&Task>, Vec<&Task>) =
            runnable.iter().partition(|task| usize::from(task.id()) == CLOCK);
        STATE.with_borrow_mut(|state| state.alone = others.is_empty());
        if self.chance == Chance::Repeated {
            return self.inner.next_task(runnable, current, yields);
        }
        match clock.first() {
            Some(clock) if others.is_empty() || self.by_chance() => Some(clock.id()),
            _ => self.inner.next_task(&others, current, yields),
        }
    }

    fn next_u64(&mut self) -> u64 {
        self.inner.next_u64()
    }
}
