//! Ranges of sort keys, by name.

use std::ops::Bound::{Excluded, Included, Unbounded};

use super::SortRange;

/// The names are those of the bounds of a query. Except for [`SortRange::All`], no range includes the item without a sort
/// key.
impl SortRange {
    /// Sort keys that start with these bytes.
    ///
    /// ```
    /// # use kstone_core::SortRange;
    /// assert_eq!(SortRange::prefix("2026-02"), SortRange::Prefix(b"2026-02".to_vec()));
    /// ```
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        Self::Prefix(prefix.as_ref().to_vec())
    }

    /// This sort key and those after it.
    ///
    /// ```
    /// # use kstone_core::SortRange;
    /// # use std::ops::Bound::{Included, Unbounded};
    /// assert_eq!(SortRange::from("a"), SortRange::Between(Included(b"a".to_vec()), Unbounded));
    /// ```
    pub fn from(from: impl AsRef<[u8]>) -> Self {
        Self::Between(Included(from.as_ref().to_vec()), Unbounded)
    }

    /// The sort keys after this one.
    ///
    /// ```
    /// # use kstone_core::SortRange;
    /// # use std::ops::Bound::{Excluded, Unbounded};
    /// assert_eq!(SortRange::after("a"), SortRange::Between(Excluded(b"a".to_vec()), Unbounded));
    /// ```
    pub fn after(after: impl AsRef<[u8]>) -> Self {
        Self::Between(Excluded(after.as_ref().to_vec()), Unbounded)
    }

    /// This sort key and those before it.
    ///
    /// ```
    /// # use kstone_core::SortRange;
    /// # use std::ops::Bound::{Included, Unbounded};
    /// assert_eq!(SortRange::to("z"), SortRange::Between(Unbounded, Included(b"z".to_vec())));
    /// ```
    pub fn to(to: impl AsRef<[u8]>) -> Self {
        Self::Between(Unbounded, Included(to.as_ref().to_vec()))
    }

    /// The sort keys before this one.
    ///
    /// ```
    /// # use kstone_core::SortRange;
    /// # use std::ops::Bound::{Excluded, Unbounded};
    /// assert_eq!(SortRange::before("2026"), SortRange::Between(Unbounded, Excluded(b"2026".to_vec())));
    /// ```
    pub fn before(before: impl AsRef<[u8]>) -> Self {
        Self::Between(Unbounded, Excluded(before.as_ref().to_vec()))
    }

    /// The sort keys between these two, both included. If the first is the greater one, there are none.
    ///
    /// ```
    /// # use kstone_core::SortRange;
    /// # use std::ops::Bound::Included;
    /// assert_eq!(SortRange::between("a", "b"), SortRange::Between(Included(b"a".to_vec()), Included(b"b".to_vec())));
    /// ```
    pub fn between(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Self {
        Self::Between(Included(from.as_ref().to_vec()), Included(to.as_ref().to_vec()))
    }
}
