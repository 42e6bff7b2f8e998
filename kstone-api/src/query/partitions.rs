//! [`Partitions`]: the distinct partition keys.

use std::iter::FusedIterator;

use kstone_core::{Result, lsm};

use crate::database::Database;
use crate::snapshot::Snapshot;

/// An iterator over distinct partition keys, in order, as they were when reading started; see [`Database::partitions`]. It
/// ends after an error.
#[derive(Debug)]
pub struct Partitions {
    partitions: lsm::Partitions,
    left: usize,
}

impl Partitions {
    pub(super) fn new(partitions: lsm::Partitions, limit: usize) -> Self {
        Self { partitions, left: limit }
    }
}

impl Iterator for Partitions {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let next = self.partitions.next();
        if !matches!(next, Some(Ok(_))) {
            self.left = 0;
        }
        next
    }
}

impl FusedIterator for Partitions {}

const _: () = {
    const fn assert_send<T: Send>() {}
    assert_send::<Partitions>();
};

impl Database {
    /// The distinct partition keys, in order. It jumps from each partition to the next, so that large partitions cost no
    /// more than small ones. Starting it touches every stripe, as a scan does. For those with a prefix, or in descending
    /// order, see [`Scan::partitions`](crate::Scan::partitions).
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// for key in [("US", "KJFK"), ("US", "KLAX"), ("IS", "BIRK")] {
    ///     db.put(key, Item::new())?;
    /// }
    /// assert_eq!(db.partitions()?.collect::<Result<Vec<_>, _>>()?, [b"IS", b"US"]);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// The iterator ends after yielding an error, `Corruption` or `Io`.
    pub fn partitions(&self) -> Result<Partitions> {
        self.scan().partitions()
    }
}

impl Snapshot {
    /// The distinct partition keys, in order; see [`Database::partitions`].
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// # let db = Database::in_memory()?;
    /// db.put(("US", "KJFK"), Item::new())?;
    /// let snapshot = db.snapshot()?;
    /// db.put(("IS", "BIRK"), Item::new())?;
    /// assert_eq!(snapshot.partitions()?.count(), 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn partitions(&self) -> Result<Partitions> {
        self.scan().partitions()
    }
}
