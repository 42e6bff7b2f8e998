//! [`Page`]: a part of a result, and where the next one begins.

use kstone_core::Key;

use super::token::Token;
use crate::item::Item;

/// A part of the result of a [`Query`](crate::Query) or a [`Scan`](crate::Scan), with the position at which the next one
/// begins. See [`Query::page`](crate::Query::page).
///
/// ```
/// # let db = kstone_api::Database::in_memory()?;
/// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
/// let page = db.query("log").limit(3).page()?;
/// assert!(page.is_last(), "there is no fourth item");
/// for (key, item) in page {
///     println!("{key:?} {item}");
/// }
/// # Ok::<(), kstone_api::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The items, in the order of the read.
    pub items: Vec<(Key<'static>, Item)>,
    /// Where the next page begins; `None` if there was nothing left to read, also after a full page. With a filter there
    /// may be items left of which none passes it: the next page is empty then.
    pub next: Option<Token>,
    /// The number of items that were looked at, including those that a filter held back.
    pub examined: usize,
}

impl Page {
    /// Whether there was nothing left to read.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// assert!(db.scan().limit(10).page()?.is_last());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn is_last(&self) -> bool {
        self.next.is_none()
    }

    /// The keys of the items.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// db.put("user#1", kstone_api::Item::new())?;
    /// assert!(db.scan().page()?.keys().eq([&"user#1".into()]));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key<'static>> {
        self.items.iter().map(|(key, _)| key)
    }
}

impl IntoIterator for Page {
    type Item = (Key<'static>, Item);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<'a> IntoIterator for &'a Page {
    type Item = &'a (Key<'static>, Item);
    type IntoIter = std::slice::Iter<'a, (Key<'static>, Item)>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}
