//! Locks, condition variables, atomics and threads: the engine imports all of them from here.
//!
//! In ordinary builds these are re-exports from parking_lot, arc-swap and the standard library. Compiled with `--cfg
//! shuttle`, as the package `kstone-shuttle` does with these same sources, they keep the interface but yield to a
//! scheduler at each use: a test then runs thousands of interleavings of the real engine on one thread, and replays a
//! failing one (`sync/scheduled.rs`).
//!
//! This is not a cargo feature, because features are additive: one crate that enabled it, or `--all-features`, would
//! put every other user's locks under a scheduler that is not running.
//!
//! 1. State that decides something uses these types. State that only counts (statistics, latencies, filters) uses
//!    atomics from the standard library, so that interleavings that make no difference are not explored;
//!    `kstone-core/shuttle/tests/it/imports.rs` has the list.
//! 2. `Arc`, `OnceLock` and `LazyLock` are always the standard library's. A `OnceLock` must not be initialised by code
//!    that takes a lock or does I/O: scheduled threads are fibers of one thread, which would deadlock with itself.
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
