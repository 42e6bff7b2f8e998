//! Whether writes may still be accepted: the first failure that made them unsafe is kept for good.

use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::planted::{Bug, planted};

/// Shared by everything that writes. Once poisoned, a handle stays so until it is opened anew: the page cache
/// may have dropped what a failed sync could not write, so no retry can be believed.
#[derive(Debug, Default)]
pub(crate) struct Health {
    cause: OnceLock<String>,
}

impl Health {
    /// Refuses with the first cause when the handle is poisoned.
    pub(crate) fn check(&self) -> Result<()> {
        match self.cause.get() {
            None => Ok(()),
            Some(_) if planted(Bug::PoisonForgotten) => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
        }
    }

    /// Poisons the handle; the first cause stays.
    pub(crate) fn poison(&self, cause: &Error) {
        // A later cause loses against the first: that is what `set` does.
        let _ = self.cause.set(cause.to_string());
    }

    /// Poisons the handle for a state that cannot be, and returns the error that says so.
    #[cold]
    #[track_caller]
    pub(crate) fn internal(&self, what: impl Into<String>) -> Error {
        let what = what.into();
        // Before the panic that this is with debug assertions.
        self.poison(&Error::Internal { what: what.clone() });
        Error::internal(what)
    }

    /// The first cause, if the handle is poisoned.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.cause.get().map(String::as_str)
    }
}

/// Poisons the handle when it is dropped by a panic; disarmed otherwise.
#[must_use]
pub(crate) struct PoisonOnUnwind<'a> {
    health: &'a Health,
    what: &'static str,
}

impl<'a> PoisonOnUnwind<'a> {
    pub(crate) fn new(health: &'a Health, what: &'static str) -> Self {
        Self { health, what }
    }
}

impl Drop for PoisonOnUnwind<'_> {
    fn drop(&mut self) {
        self.health.poison(&Error::Poisoned { cause: format!("{} panicked", self.what) });
    }
}
