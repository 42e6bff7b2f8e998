//! What readers hold back, and that it is due as soon as the last of them lets go.
//!
//! 1. An SST that somebody reads is not removed. Who finds one notes it ([`Held::wait_for_readers`]); the end of a walk or
//!    a snapshot then has it looked at again, and so does time, for a get tells nobody when it ends.
//! 2. Versions that a snapshot sees are not dropped. A stripe that would be merged but for that is noted, and looked at
//!    when the horizon rises.
//!
//! A reader that holds back nothing finds two flags down, and that is all it does.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::state::Shared;
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
}

impl Shared {
    /// A walk or a snapshot has ended. The caller holds nothing of it any more, and no lock.
    pub(crate) fn reader_let_go(&self, horizon_rises: bool) {
        if horizon_rises && self.held.any.load(Ordering::Acquire) {
            self.held.any.store(false, Ordering::Relaxed);
            let stripes = std::mem::take(&mut *self.held.stripes.lock());
            stripes.into_iter().for_each(|stripe| self.background.queue_compaction(stripe));
        }
        // Walks may be many while one of them lasts long: who lets nothing go wakes nobody.
        let ends = || {
            let obsolete = self.obsolete.try_lock();
            obsolete.is_none_or(|obsolete| obsolete.iter().any(|table| Arc::strong_count(table) == 1))
        };
        if self.held.ssts.load(Ordering::Relaxed) && ends() {
            self.held.ssts.store(false, Ordering::Relaxed);
            self.background.remove_soon();
        }
    }
}
