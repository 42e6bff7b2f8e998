//! Locks, condition variables, atomics and threads: the engine takes all of them from here.
//!
//! In every ordinary build they are those of parking_lot, arc-swap and the standard library, by other names. Compiled
//! with `--cfg shuttle`, as the package `kstone-shuttle` does with these same sources, they have the same interface
//! and ask a scheduler at every use who goes on: a test then runs thousands of interleavings of the real engine on one
//! thread, and replays a failed one (`sync/scheduled.rs`).
//!
//! It is no cargo feature, because those add up: one crate that asked for it, or `--all-features`, would put every
//! other user's locks under a scheduler that is not there.
//!
//! 1. What decides something comes from here. What only counts (statistics, latencies, filters) takes its atomics from
//!    the standard library, so that interleavings that make no difference are not explored;
//!    `kstone-core/shuttle/tests/it/imports.rs` has the list.
//! 2. `Arc`, `OnceLock` and `LazyLock` are always the standard library's. A `OnceLock` must not be initialised by code
//!    that takes a lock or does I/O: scheduled threads are fibers of one thread, which would wait for itself.
//! 3. A thread-local must not be borrowed while a lock is taken, for the same reason.

#[cfg(shuttle)]
mod scheduled;

#[cfg(shuttle)]
pub use scheduled::*;

#[cfg(not(shuttle))]
pub(crate) use ordinary::*;

#[cfg(not(shuttle))]
mod ordinary {
    pub(crate) use std::sync::atomic;
    pub(crate) use std::thread;

    pub(crate) use arc_swap::ArcSwap;
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
}
