//! What readers hold back, and that it is due as soon as the last of them lets go.
//!
//! 1. An SST that somebody reads is not removed. Who finds one notes it ([`Held::wait_for_readers`]); the end of a walk or
//!    a snapshot then has it looked at again, and so does time, for a get tells nobody when it ends.
//! 2. Versions that a snapshot sees are not dropped. A stripe that would be merged but for that is noted, and looked at
//!    when the horizon rises.
//!
//! A reader that holds back nothing finds two flags down, and that is all it does.

use std::collections::BTreeSet;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Held {
    /// SSTs are to be removed once nobody reads them. `Relaxed`: a reader that does not see it in time leaves them to
    /// the next try.
    ssts: AtomicBool,
    /// There is something in `stripes`. Set before the horizon is read once more, and read after a snapshot has ended,
    /// both under the lock of the snapshots: one of the two sees the other.
    any: AtomicBool,
    /// Would be merged, were it not for a snapshot.
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

    /// Stripes that were held back, once the horizon has risen; empty at the price of a look at a flag for most.
    pub(super) fn take_stripes(&self) -> BTreeSet<usize> {
        if !self.any.load(Ordering::Acquire) {
            return BTreeSet::new();
        }
        self.any.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.stripes.lock())
    }

    /// Whether SSTs waited for readers and, as `unread` says, need not any more: true once for each wait, or a little more often.
    pub(super) fn ends_wait(&self, unread: impl FnOnce() -> bool) -> bool {
        let ends = self.ssts.load(Ordering::Relaxed) && unread();
        if ends {
            self.ssts.store(false, Ordering::Relaxed);
        }
        ends
    }
}
