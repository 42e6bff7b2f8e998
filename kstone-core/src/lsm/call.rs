//! A call of the engine that may change the database, from start to end.

use super::options::Workers;
use super::state::Shared;
use crate::sync::RwLockReadGuard;

/// A running call that may change the database: close waits for it. At its end, its events are delivered.
pub(crate) struct Call<'a> {
    gate: Option<RwLockReadGuard<'a, ()>>,
    shared: &'a Shared,
}

impl<'a> Call<'a> {
    pub(crate) fn begin(shared: &'a Shared) -> Self {
        Self { gate: Some(shared.life.enter()), shared }
    }

    /// Lets a close proceed during `meanwhile`, which may take long or call the engine. The database may be closed
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
