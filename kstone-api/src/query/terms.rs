//! What [`Query`](super::Query) and [`Scan`](super::Scan) have in common.

use kstone_core::lsm::{Direction, Snapshot};
use kstone_core::{Error, Key, Result};

use super::token::{Origin, Token};
use crate::database::Database;
use crate::expression::{Condition, Projection};

/// What is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) database: &'a Database,
    pub(super) snapshot: Option<&'a Snapshot>,
}

/// How much of it, and from where.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) direction: Direction,
    /// The most items to return.
    pub(super) limit: usize,
    /// The most items to look at.
    pub(super) examine: usize,
    pub(super) after: Option<Token>,
    /// Which of the items looked at to return.
    pub(super) filter: Option<Condition>,
    /// Which of their attributes.
    pub(super) projection: Option<Projection>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            direction: Direction::Forward,
            limit: usize::MAX,
            examine: usize::MAX,
            after: None,
            filter: None,
            projection: None,
        }
    }
}

impl Terms {
    /// Adds a filter to those there are.
    pub(super) fn filter(&mut self, filter: Condition) {
        self.filter = Some(filter.added_to(self.filter.take()));
    }

    /// Checks the terms of a read. Returns the key after which it continues, if its token belongs to it.
    pub(super) fn start(&self, origin: impl FnOnce() -> Origin) -> Result<Option<Key<'static>>> {
        // Now, not at the first item: there may be none.
        self.filter.as_ref().map_or(Ok(()), Condition::check)?;
        self.projection.as_ref().map_or(Ok(()), Projection::check)?;
        self.after.as_ref().map(|token| token.position_in(origin())).transpose()
    }

    /// Refuses limits with which a page has nothing on it and the next one begins where this one did.
    pub(super) fn check_page(&self) -> Result<()> {
        for (field, limit) in [("limit", self.limit), ("examine", self.examine)] {
            if limit == 0 {
                return Err(Error::InvalidConfig { field, why: "pages of 0 items never end".into() });
            }
        }
        Ok(())
    }

    /// The name of a term that looks into items or counts them.
    pub(super) fn needs_items(&self) -> Option<&'static str> {
        let terms = [
            ("filter", self.filter.is_some()),
            ("project", self.projection.is_some()),
            ("examine", self.examine != usize::MAX),
        ];
        terms.into_iter().find_map(|(name, is_set)| is_set.then_some(name))
    }
}
