//! Reads of many items: requests ([`Query`], [`Scan`]) and results ([`Items`]).

use std::fmt;
use std::iter::FusedIterator;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::ops::Range;

use kstone_core::lsm::{Direction, Entries, Snapshot};
use kstone_core::{Error, Key, Result, SortRange};

use crate::damage;
use crate::database::Database;
use crate::item::Item;
use crate::view::ItemView;

/// A read of one partition, in the order of sort keys; see [`Database::query`]. It touches one stripe.
///
/// Bounds intersect, so `sort_prefix` can be combined with `sort_after` to read page by page.
///
/// ```
/// # fn main() -> kstone_api::Result<()> {
/// use kstone_api::{Database, ItemBuilder};
///
/// let db = Database::in_memory()?;
/// for icao in ["KJFK", "KJFC", "KLAX"] {
///     db.put(("US", icao), ItemBuilder::new().string("icao", icao))?;
/// }
/// let mut found = Vec::new();
/// for entry in db.query("US").sort_prefix("KJ").reverse().run()? {
///     let (key, _item) = entry?;
///     found.push(String::from_utf8_lossy(key.sort().unwrap_or_default()).into_owned());
/// }
/// assert_eq!(found, ["KJFK", "KJFC"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a query does nothing until it is run"]
pub struct Query<'a> {
    database: &'a Database,
    snapshot: Option<&'a Snapshot>,
    partition: Vec<u8>,
    prefix: Option<Vec<u8>>,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    direction: Direction,
    limit: usize,
}

impl<'a> Query<'a> {
    pub(crate) fn new(database: &'a Database, snapshot: Option<&'a Snapshot>, partition: &[u8]) -> Self {
        Self {
            database,
            snapshot,
            partition: partition.to_vec(),
            prefix: None,
            from: Unbounded,
            to: Unbounded,
            direction: Direction::Forward,
            limit: usize::MAX,
        }
    }

    /// Only sort keys that start with these bytes.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").sort_prefix("2026-02").run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn sort_prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        if let Some(before) = self.prefix.replace(prefix.as_ref().to_vec()) {
            let end = successor(&before).map_or(Unbounded, Excluded);
            (self.from, self.to) = (higher(self.from, Included(before)), lower(self.to, end));
        }
        self
    }

    /// Only this sort key and those after it.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").sort_from("2026-02-01").run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn sort_from(mut self, from: impl AsRef<[u8]>) -> Self {
        self.from = higher(self.from, Included(from.as_ref().to_vec()));
        self
    }

    /// Only sort keys after this one: to continue after the previous page.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").sort_after("2026-02-01").limit(100).run()?.count(), 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn sort_after(mut self, after: impl AsRef<[u8]>) -> Self {
        self.from = higher(self.from, Excluded(after.as_ref().to_vec()));
        self
    }

    /// Only this sort key and those before it.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").sort_to("2026-02-01").run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn sort_to(mut self, to: impl AsRef<[u8]>) -> Self {
        self.to = lower(self.to, Included(to.as_ref().to_vec()));
        self
    }

    /// Only sort keys before this one.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").sort_before("2026-02-01").run()?.count(), 1);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn sort_before(mut self, before: impl AsRef<[u8]>) -> Self {
        self.to = lower(self.to, Excluded(before.as_ref().to_vec()));
        self
    }

    /// Only sort keys between these two, both included, like DynamoDB's `BETWEEN`.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").sort_between("2026-01-31", "2026-02-01").run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn sort_between(self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Self {
        self.sort_from(from).sort_to(to)
    }

    /// In descending order of sort keys: newest first, if sort keys are times.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// let newest = db.query("log").reverse().limit(1).run()?.keys().next().expect("there are three")?;
    /// assert_eq!(newest.sort(), Some(&b"2026-02-28"[..]));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn reverse(mut self) -> Self {
        self.direction = Direction::Reverse;
        self
    }

    /// At most this many items. Default: all.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// assert_eq!(db.query("log").limit(2).run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Starts reading. The items are those of this moment; later writes do not appear.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for day in ["2026-01-31", "2026-02-01", "2026-02-28"] { db.put(("log", day), kstone_api::Item::new())?; }
    /// for entry in db.query("log").run()? {
    ///     let (key, item) = entry?;
    ///     println!("{key:?} {item}");
    /// }
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidKey` for an empty partition key. The iterator ends after yielding an error, `Corruption` or `Io`.
    pub fn run(self) -> Result<Items> {
        let range = sort_range(self.prefix, self.from, self.to);
        let engine = self.database.engine();
        let entries = engine.query(&self.partition, &range, self.direction, self.snapshot)?;
        Ok(Items::new(entries, self.limit))
    }
}

/// The intersection of all three bounds. An item without a sort key is in it only if there are no bounds at all.
fn sort_range(prefix: Option<Vec<u8>>, from: Bound<Vec<u8>>, to: Bound<Vec<u8>>) -> SortRange {
    let (from, to) = match (prefix, from, to) {
        (None, Unbounded, Unbounded) => return SortRange::All,
        (Some(prefix), Unbounded, Unbounded) => return SortRange::Prefix(prefix),
        (None, from, to) => (from, to),
        (Some(prefix), from, to) => {
            let end = successor(&prefix).map_or(Unbounded, Excluded);
            (higher(from, Included(prefix)), lower(to, end))
        }
    };
    // Bounds that cross contain nothing; normalise them to an ordinary empty range.
    if let (Included(a) | Excluded(a), Included(b) | Excluded(b)) = (&from, &to)
        && a > b
    {
        return SortRange::Between(Included(a.clone()), Excluded(a.clone()));
    }
    SortRange::Between(from, to)
}

/// The tighter of two lower bounds.
fn higher(a: Bound<Vec<u8>>, b: Bound<Vec<u8>>) -> Bound<Vec<u8>> {
    let rank = |bound: &Bound<Vec<u8>>| match bound {
        Unbounded => None,
        Included(at) => Some((at.clone(), false)),
        Excluded(at) => Some((at.clone(), true)),
    };
    if rank(&a) >= rank(&b) { a } else { b }
}

/// The tighter of two upper bounds.
fn lower(a: Bound<Vec<u8>>, b: Bound<Vec<u8>>) -> Bound<Vec<u8>> {
    match (&a, &b) {
        (_, Unbounded) => a,
        (Unbounded, _) => b,
        (Included(x) | Excluded(x), Included(y) | Excluded(y)) => {
            let tighter = x < y || (x == y && matches!(a, Excluded(_)));
            if tighter { a } else { b }
        }
    }
}

/// The smallest byte string above all those that start with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let (&byte, head) = prefix.get(..=last)?.split_last()?;
    Some([head, &[byte + 1]].concat())
}

/// A read of all items, in the order of keys; see [`Database::scan`].
#[derive(Clone, Debug)]
#[must_use = "a scan does nothing until it is run"]
pub struct Scan<'a> {
    database: &'a Database,
    snapshot: Option<&'a Snapshot>,
    prefix: Vec<u8>,
    direction: Direction,
    limit: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(database: &'a Database, snapshot: Option<&'a Snapshot>) -> Self {
        Self { database, snapshot, prefix: Vec::new(), direction: Direction::Forward, limit: usize::MAX }
    }

    /// Only partition keys that start with these bytes.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for key in ["order#1", "user#1", "user#2"] { db.put(key, kstone_api::Item::new())?; }
    /// assert_eq!(db.scan().prefix("user#").run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.prefix = prefix.as_ref().to_vec();
        self
    }

    /// In descending order of keys.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for key in ["order#1", "user#1", "user#2"] { db.put(key, kstone_api::Item::new())?; }
    /// let last = db.scan().reverse().run()?.keys().next().expect("there are three")?;
    /// assert_eq!(last.partition(), b"user#2");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn reverse(mut self) -> Self {
        self.direction = Direction::Reverse;
        self
    }

    /// At most this many items. Default: all.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for key in ["order#1", "user#1", "user#2"] { db.put(key, kstone_api::Item::new())?; }
    /// assert_eq!(db.scan().limit(2).run()?.count(), 2);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Starts reading. The items are those of this moment; later writes do not appear.
    ///
    /// ```
    /// # let db = kstone_api::Database::in_memory()?;
    /// # for key in ["order#1", "user#1", "user#2"] { db.put(key, kstone_api::Item::new())?; }
    /// for entry in db.scan().run()? {
    ///     let (key, item) = entry?;
    ///     println!("{key:?} {item}");
    /// }
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn run(self) -> Result<Items> {
        let entries = self.database.engine().scan(&self.prefix, self.direction, self.snapshot)?;
        Ok(Items::new(entries, self.limit))
    }
}

/// An iterator over keys and items, as they were when reading started; later writes do not appear. It ends after an
/// error.
///
/// [`Items::views`] reads items in place, and [`Items::keys`] skips them.
pub struct Items {
    entries: Raw,
}

/// A key and an item to be read in place, both lent; see [`Items::next_row`].
pub type Row<'a> = (Key<'a>, ItemView<&'a [u8]>);

/// The source of all three iterators: keys and encoded items, up to a limit or an error.
struct Raw {
    current: Option<Entries>,
    /// Stripes to read after the current one.
    stripes: Option<Stripes>,
    left: usize,
}

struct Stripes {
    database: Database,
    snapshot: Snapshot,
    left: Range<usize>,
}

impl Items {
    pub(crate) fn new(entries: Entries, limit: usize) -> Self {
        Self { entries: Raw { current: Some(entries), stripes: None, left: limit } }
    }

    pub(crate) fn of_stripes(database: Database, snapshot: Snapshot, stripes: Range<usize>) -> Self {
        let stripes = Some(Stripes { database, snapshot, left: stripes });
        Self { entries: Raw { current: None, stripes, left: usize::MAX } }
    }

    /// The same entries, with items read in place instead of decoded.
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
    /// and after an error.
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
        let Raw { current, left, .. } = &mut self.entries;
        let Some(entries) = current else { return Ok(None) };
        let Some((key, value)) = entries.entry() else { return Ok(None) };
        match ItemView::new(value) {
            Ok(view) => Ok(Some((key, view))),
            Err(error) => {
                *left = 0;
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
}

impl Raw {
    /// Moves to the next entry; false at the end, and after an error.
    #[inline]
    fn step(&mut self) -> Result<bool> {
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
                self.left = 0;
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
        self.entries.next(|_, value| ItemView::new(value)?.to_item())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::RangeBounds;

    #[test]
    fn bounds_meet() {
        let strings: Vec<Vec<u8>> =
            ["", "a", "a\0", "ab", "abc", "ac", "b", "\u{7f}"].map(|s| s.as_bytes().to_vec()).to_vec();
        let bounds = || {
            let each = strings.iter().flat_map(|s| [Included(s.clone()), Excluded(s.clone())]);
            each.chain([Unbounded]).collect::<Vec<_>>()
        };
        let prefixes =
            [None, Some(vec![]), Some(b"a".to_vec()), Some(b"ab".to_vec()), Some(vec![0xff, 0xff])];
        for prefix in &prefixes {
            for from in bounds() {
                for to in bounds() {
                    let range = sort_range(prefix.clone(), from.clone(), to.clone());
                    for key in &strings {
                        let wanted = prefix.as_ref().is_none_or(|p| key.starts_with(p))
                            && (from.clone(), to.clone()).contains(key);
                        let held = match &range {
                            SortRange::All => true,
                            SortRange::Prefix(p) => key.starts_with(p),
                            SortRange::Between(a, b) => (a.clone(), b.clone()).contains(key),
                        };
                        assert_eq!(held, wanted, "{key:?} in {prefix:?} {from:?} {to:?}: {range:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn successors() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xff"), None);
        assert_eq!(successor(b""), None);
    }
}
