//! Work that readers hold back, and that becomes due when the last of them ends.
//!
//! 1. An SST that is being read is not removed. The thread that finds one sets a flag ([`Held::wait_for_readers`]);
//!    when a walk or a snapshot ends, the SST is checked again. It is also checked from time to time, because the end
//!    of a get notifies nothing.
//! 2. Versions that a snapshot sees are not dropped. A stripe that would otherwise be merged is recorded, and checked
//!    when the horizon rises.
//!
//! A reader that holds nothing back finds two flags clear and does nothing else.

use std::collections::BTreeSet;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Set while SSTs wait to be removed until they are no longer read. `Relaxed`: a reader that does not see it in
    /// time leaves the SSTs to the next attempt.
    ssts: AtomicBool,
    /// Whether `stripes` is not empty. Set before the horizon is read again, and read after a snapshot has ended, both
    /// under the lock of the snapshots: one of the two sees the other.
    any: AtomicBool,
    /// Stripes that would be merged but for a snapshot.
    stripes: Mutex<BTreeSet<usize>>,
}

impl Held {
    pub(super) fn wait_for_readers(&self, wait: bool) {
        self.ssts.store(wait, Ordering::Relaxed);
    }

    pub(super) fn hold_back(&self, stripe: usize) {
        self.stripes.lock().insert(stripe);
        self.any.store(true, Ordering::Release);
    }

    /// Takes the stripes that were held back, once the horizon has risen. Usually empty, at the cost of reading one
    /// flag.
    pub(super) fn take_stripes(&self) -> BTreeSet<usize> {
        if !self.any.load(Ordering::Acquire) {
            return BTreeSet::new();
        }
        self.any.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.stripes.lock())
    }

    /// Whether SSTs waited for readers and, according to `unread`, no longer need to: true once for each wait, or
    /// slightly more often.
    pub(super) fn ends_wait(&self, unread: impl FnOnce() -> bool) -> bool {
        let ends = self.ssts.load(Ordering::Relaxed) && unread();
        if ends {
            self.ssts.store(false, Ordering::Relaxed);
        }
        ends
    }
}
