//! [`Items`]: the results of a read, one by one, decoded or in place.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::Range;

use kstone_core::lsm::{Entries, Snapshot};
use kstone_core::{Error, Key, Result};

use super::page::Page;
use super::terms::Terms;
use super::token::{Reading, Token};
use crate::damage;
use crate::database::Database;
use crate::expression::{Condition, Projection};
use crate::item::Item;
use crate::view::ItemView;

/// An iterator over keys and items, as they were when reading started; later writes do not appear. It ends after an
/// error.
///
/// [`Items::views`] reads items in place, and [`Items::keys`] skips them.
pub struct Items {
    entries: Raw,
    /// The part of each item to decode, if not all of it.
    projection: Option<Projection>,
}

/// A key and an item to be read in place, both lent; see [`Items::next_row`].
pub type Row<'a> = (Key<'a>, ItemView<&'a [u8]>);

/// The source of all three iterators: keys and encoded items, up to a limit or an error.
struct Raw {
    current: Option<Entries>,
    /// Stripes to read after the current one.
    stripes: Option<Stripes>,
    /// The most items that may still be given out; 0 with a selection, which counts for itself.
    left: usize,
    /// The read that tokens belong to; `None` if there are no tokens, or no more.
    reading: Option<Reading>,
    /// `None`: every item is given out. Boxed, as it is rare.
    selection: Option<Box<Selection>>,
}

/// A filter at work.
struct Selection {
    filter: Condition,
    /// Items that may still be given out.
    wanted: usize,
    /// Items that may still be looked at.
    left: usize,
    /// Items looked at so far.
    examined: usize,
}

struct Stripes {
    database: Database,
    snapshot: Snapshot,
    left: Range<usize>,
}

impl Items {
    pub(crate) fn new(entries: Entries, limit: usize) -> Self {
        Self::over(Some(entries), None, limit)
    }

    pub(crate) fn of_stripes(database: Database, snapshot: Snapshot, stripes: Range<usize>) -> Self {
        Self::over(None, Some(Stripes { database, snapshot, left: stripes }), usize::MAX)
    }

    fn over(current: Option<Entries>, stripes: Option<Stripes>, left: usize) -> Self {
        let entries = Raw { current, stripes, left, reading: None, selection: None };
        Self { entries, projection: None }
    }

    pub(super) fn of_read(entries: Entries, reading: Reading, terms: Terms) -> Self {
        let Terms { limit, examine, filter, projection, .. } = terms;
        // Without a filter every item that is looked at is returned.
        let left = if filter.is_some() { 0 } else { limit.min(examine) };
        let selection =
            filter.map(|filter| Box::new(Selection { filter, wanted: limit, left: examine, examined: 0 }));
        let entries = Raw { current: Some(entries), stripes: None, left, reading: Some(reading), selection };
        Self { entries, projection }
    }

    /// The same entries, with items read in place instead of decoded. A view shows the whole item: a projection does not
    /// apply.
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder, ValueView};
    /// # let db = Database::in_memory()?;
    /// db.put(("US", "KJFK"), ItemBuilder::new().number("elevation", 13))?;
    /// for entry in db.query("US").run()?.views() {
    ///     let (_key, view) = entry?;
    ///     assert_eq!(view.get("elevation")?.and_then(ValueView::as_i64), Some(13));
    /// }
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn views(self) -> Views {
        Views { entries: self.entries }
    }

    /// The next key and item, lent until the next call: the fastest way to read, as neither is copied. `None` at the end,
    /// and after an error. The whole item: a projection does not apply.
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder, ValueView};
    /// # let db = Database::in_memory()?;
    /// # db.put(("US", "KJFK"), ItemBuilder::new().number("elevation", 13))?;
    /// # let mut sum = 0;
    /// let mut airports = db.query("US").run()?;
    /// while let Some((key, view)) = airports.next_row()? {
    ///     println!("{key:?}");
    ///     sum += view.get("elevation")?.and_then(ValueView::as_i64).unwrap_or(0);
    /// }
    /// # assert_eq!(sum, 13);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Corruption` and `Io`, as from the iterator.
    #[inline]
    pub fn next_row(&mut self) -> Result<Option<Row<'_>>> {
        if !self.entries.step()? {
            return Ok(None);
        }
        let Raw { current, left, reading, selection, .. } = &mut self.entries;
        let Some(entries) = current else { return Ok(None) };
        let Some((key, value)) = entries.entry() else { return Ok(None) };
        match ItemView::new(value) {
            Ok(view) => Ok(Some((key, view))),
            Err(error) => {
                (*left, *reading, *selection) = (0, None, None);
                Err(undecodable(entries, &key, error))
            }
        }
    }

    /// Only the keys; items are not read.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// db.put(("US", "KJFK"), kstone_api::Item::new())?;
    /// for key in db.query("US").run()?.keys() {
    ///     assert_eq!(key?.sort(), Some(&b"KJFK"[..]));
    /// }
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn keys(self) -> Keys {
        Keys { entries: self.entries }
    }

    /// The position after the last item given out, from which [`Query::after`](crate::Query::after) or
    /// [`Scan::after`](crate::Scan::after) continues. `None` before the first item, after an error, and at the end, when no
    /// item is left; after a limit has been reached, items may or may not be left. A read of stripes or segments has no
    /// tokens. [`Views::token`] and [`Keys::token`] do the same.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// let mut items = db.query("log").run()?;
    /// items.next().expect("there are three")?;
    /// let token = items.token().expect("an item was given out");
    /// assert_eq!(db.query("log").after(&token).count()?, 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn token(&self) -> Option<Token> {
        self.entries.token()
    }

    /// Ends the reading and says where a later read continues, as [`Page::next`] does: `None` if nothing is left to read,
    /// also after a limit. It looks for one more item. For results that are given out while they are read, up to a limit
    /// that may be too large for a page. [`Views::into_next`] and [`Keys::into_next`] do the same.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// let mut items = db.query("log").limit(2).run()?;
    /// for entry in items.by_ref() {
    ///     println!("{}", entry?.1);
    /// }
    /// let next = items.into_next().expect("there is a third");
    /// let mut items = db.query("log").limit(2).after(&next).run()?;
    /// assert_eq!(items.by_ref().count(), 1);
    /// assert_eq!(items.into_next(), None);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn into_next(mut self) -> Option<Token> {
        self.entries.next_page()
    }

    pub(super) fn into_page(mut self) -> Result<Page> {
        let items = self.by_ref().collect::<Result<Vec<_>>>()?;
        let examined = self.entries.selection.as_ref().map_or(items.len(), |selection| selection.examined);
        let next = self.entries.next_page();
        Ok(Page { items, next, examined })
    }

    pub(super) fn into_count(mut self) -> Result<u64> {
        let mut count = 0;
        while self.entries.step()? {
            count += 1;
        }
        Ok(count)
    }
}

impl Raw {
    /// Moves to the next entry; false at the end, and after an error.
    #[inline]
    fn step(&mut self) -> Result<bool> {
        // Each with its own `?`: the results of two calls in one place would go through memory, row by row.
        Ok(if self.selection.is_some() { self.select()? } else { self.step_all()? })
    }

    #[inline]
    fn step_all(&mut self) -> Result<bool> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(false) };
        let found = self.advance();
        self.left = if matches!(found, Ok(true)) { left } else { 0 };
        found
    }

    #[inline]
    fn advance(&mut self) -> Result<bool> {
        if let Some(entries) = &mut self.current
            && entries.step()?
        {
            return Ok(true);
        }
        if self.stripes.is_some() { self.next_stripe() } else { Ok(false) }
    }

    /// The same with a filter; false without one.
    #[inline(never)]
    fn select(&mut self) -> Result<bool> {
        let Some(wanted) = self.selection.as_ref().and_then(|selection| selection.wanted.checked_sub(1))
        else {
            return Ok(false);
        };
        let found = self.find();
        if let Some(selection) = &mut self.selection {
            selection.wanted = if matches!(found, Ok(true)) { wanted } else { 0 };
        }
        found
    }

    /// Moves to the next entry whose item passes the filter.
    fn find(&mut self) -> Result<bool> {
        loop {
            let left = self.selection.as_ref().map_or(usize::MAX, |selection| selection.left);
            if left == 0 || !self.advance()? {
                return Ok(false);
            }
            let (Some(entries), Some(selection)) = (&self.current, &mut self.selection) else {
                return Ok(true);
            };
            selection.left = left - 1;
            selection.examined += 1;
            let Some((key, value)) = entries.entry() else { return Ok(false) };
            match ItemView::new(value).and_then(|view| selection.filter.matches(&view)) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => {
                    self.reading = None;
                    return Err(undecodable(entries, &key, error));
                }
            }
        }
    }

    /// Moves to the first entry of the stripes after the current one.
    fn next_stripe(&mut self) -> Result<bool> {
        loop {
            let Some(stripes) = &mut self.stripes else { return Ok(false) };
            let Some(stripe) = stripes.left.next() else { return Ok(false) };
            let entries = stripes.database.engine().scan_stripe(stripe, Some(&stripes.snapshot))?;
            if self.current.insert(entries).step()? {
                return Ok(true);
            }
        }
    }

    fn token(&self) -> Option<Token> {
        let position = self.current.as_ref()?.encoded_key()?;
        Some(Token::new(self.reading.as_ref()?.origin(), position))
    }

    /// The position at which a read that has ended stopped, if there is more to read.
    fn next_page(&mut self) -> Option<Token> {
        let token = self.token()?;
        // An error is for the next page to report; the items of this one are good.
        self.advance().unwrap_or(true).then_some(token)
    }

    /// The key and item of the next entry, both of the caller's own. An item that cannot be read ends the iteration.
    fn next<T>(
        &mut self,
        read: impl FnOnce(&Entries, &[u8]) -> Result<T>,
    ) -> Option<Result<(Key<'static>, T)>> {
        match self.step() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => return Some(Err(error)),
        }
        let entries = self.current.as_ref()?;
        let (key, value) = entries.entry()?;
        Some(match read(entries, value) {
            Ok(item) => Ok((key.into_owned(), item)),
            Err(error) => {
                (self.left, self.reading, self.selection) = (0, None, None);
                Err(undecodable(entries, &key, error))
            }
        })
    }
}

/// The error of an item that cannot be decoded, which ends the iteration.
#[cold]
fn undecodable(entries: &Entries, key: &Key<'_>, error: Error) -> Error {
    damage::with_key(entries.path().to_path_buf(), 0, key, error)
}

impl Iterator for Items {
    type Item = Result<(Key<'static>, Item)>;

    fn next(&mut self) -> Option<Self::Item> {
        let projection = self.projection.as_ref();
        self.entries.next(|_, value| {
            let view = ItemView::new(value)?;
            projection.map_or_else(|| view.to_item(), |projection| projection.apply(&view))
        })
    }
}

impl FusedIterator for Items {}

/// An iterator over keys and items read in place; see [`Items::views`].
pub struct Views {
    entries: Raw,
}

impl Iterator for Views {
    type Item = Result<(Key<'static>, ItemView)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next(|entries, _| ItemView::new(entries.value()))
    }
}

impl FusedIterator for Views {}

impl Views {
    /// The position after the last entry given out; see [`Items::token`].
    pub fn token(&self) -> Option<Token> {
        self.entries.token()
    }

    /// Where a later read continues, if anything is left; see [`Items::into_next`].
    pub fn into_next(mut self) -> Option<Token> {
        self.entries.next_page()
    }
}

/// An iterator over keys only; see [`Items::keys`].
pub struct Keys {
    entries: Raw,
}

impl Iterator for Keys {
    type Item = Result<Key<'static>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next(|_, _| Ok(())).map(|entry| entry.map(|(key, ())| key))
    }
}

impl FusedIterator for Keys {}

impl Keys {
    /// The position after the last entry given out; see [`Items::token`].
    pub fn token(&self) -> Option<Token> {
        self.entries.token()
    }

    /// Where a later read continues, if anything is left; see [`Items::into_next`].
    pub fn into_next(mut self) -> Option<Token> {
        self.entries.next_page()
    }
}

macro_rules! opaque {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

opaque!(Items Views Keys);

const _: () = {
    const fn assert_send<T: Send>() {}
    assert_send::<Items>();
    assert_send::<Views>();
    assert_send::<Keys>();
};
