//! Whether writes may still be accepted: the first failure that made them unsafe sticks.

use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::planted::{Bug, planted};

/// Shared by everything that writes. A poisoned handle stays poisoned until it is reopened: the page cache may have
/// dropped the pages that a failed sync could not write, so the success of a retry would prove nothing.
#[derive(Debug, Default)]
pub(crate) struct Health {
    cause: OnceLock<String>,
}

impl Health {
    /// Fails with the first cause if the handle is poisoned.
    pub(crate) fn check(&self) -> Result<()> {
        match self.cause.get() {
            None => Ok(()),
            Some(_) if planted(Bug::PoisonForgotten) => Ok(()),
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
        }
    }

    /// Poisons the handle; the first cause is kept.
    pub(crate) fn poison(&self, cause: &Error) {
        // `set` fails if there is a cause already, which keeps the first.
        let _ = self.cause.set(cause.to_string());
    }

    /// Poisons the handle because of an impossible state, and returns the error for it.
    #[cold]
    #[track_caller]
    pub(crate) fn internal(&self, what: impl Into<String>) -> Error {
        let what = what.into();
        // Before `Error::internal`, which panics with debug assertions.
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
