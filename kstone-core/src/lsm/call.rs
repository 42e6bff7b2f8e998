//! A call of the engine that may change the database, from its begin to its end.

use super::options::Workers;
use super::state::Shared;
use crate::sync::RwLockReadGuard;

/// A call that may change the database is under way: close waits for it. At its end, its events are delivered.
pub(crate) struct Call<'a> {
    gate: Option<RwLockReadGuard<'a, ()>>,
    shared: &'a Shared,
}

impl<'a> Call<'a> {
    pub(crate) fn begin(shared: &'a Shared) -> Self {
        Self { gate: Some(shared.life.enter()), shared }
    }

    /// Lets a close go on meanwhile: what is called may take long, or call the engine. The database may be closed
    /// afterwards.
    pub(crate) fn pause(&mut self, meanwhile: impl FnOnce()) {
        self.gate = None;
        meanwhile();
        self.gate = Some(self.shared.life.enter());
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.gate = None;
        if self.shared.observed.events().has_any() {
            match self.shared.workers {
                Workers::Manual => self.shared.observed.events().deliver(),
                Workers::Threads => self.shared.background.wake_surely(),
            }
        }
    }
}
