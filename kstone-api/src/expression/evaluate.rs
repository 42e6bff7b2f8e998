//! Whether a condition holds for an item: read in place, only what it compares.

use kstone_core::Result;

use super::condition::{Comparison, Condition, Test};
use super::operand::Term;
use super::path::{Path, Step};
use super::seen::{Map, Seen};
use crate::item::Item;
use crate::value::Value;
use crate::view::ItemView;

/// What expressions are evaluated on.
pub(super) trait Source {
    /// The attributes; `None` if there is no item.
    fn attributes(&self) -> Result<Option<Map<'_>>>;
}

impl Source for Item {
    fn attributes(&self) -> Result<Option<Map<'_>>> {
        Ok(Some(Map::Item(self)))
    }
}

impl<B: AsRef<[u8]>> Source for ItemView<B> {
    fn attributes(&self) -> Result<Option<Map<'_>>> {
        Ok(Some(Map::View(self.as_map()?)))
    }
}

impl<S: Source> Source for Option<&S> {
    fn attributes(&self) -> Result<Option<Map<'_>>> {
        self.map_or(Ok(None), Source::attributes)
    }
}

/// The value at a path.
pub(super) fn find<'a>(source: &'a impl Source, path: &Path) -> Result<Option<Seen<'a>>> {
    let Some(attributes) = source.attributes()? else { return Ok(None) };
    let mut found = attributes.get(path.name())?;
    for step in path.steps() {
        found = match (found, step) {
            (Some(Seen::M(map)), Step::Field(name)) => map.get(name)?,
            (Some(Seen::L(list)), Step::Index(index)) => list.get(*index)?,
            _ => return Ok(None),
        };
    }
    Ok(found)
}

/// What an operand of a condition gives.
enum Given<'a> {
    Value(Seen<'a>),
    Missing,
    /// The text of a number.
    Size(String),
    /// The size of something that has none: no comparison holds.
    NoSize,
}

impl<'a> Given<'a> {
    fn of(term: &'a Term, source: &'a impl Source) -> Result<Self> {
        Ok(match term {
            Term::Value(value) => Self::Value(value.into()),
            Term::Path(path) => find(source, path)?.map_or(Self::Missing, Self::Value),
            Term::Size(path) => match find(source, path)?.and_then(Seen::size) {
                Some(size) => Self::Size(size.to_string()),
                None => Self::NoSize,
            },
            // Conditions refuse the others.
            Term::IfAbsent(..) | Term::Append(..) | Term::Plus(..) | Term::Minus(..) => Self::NoSize,
        })
    }

    fn seen(&self) -> Option<Seen<'_>> {
        match self {
            Self::Value(seen) => Some(*seen),
            Self::Size(text) => Some(Seen::N(text)),
            Self::Missing | Self::NoSize => None,
        }
    }
}

fn compare(a: &Given<'_>, comparison: Comparison, b: &Given<'_>) -> Result<bool> {
    if matches!(a, Given::NoSize) || matches!(b, Given::NoSize) {
        return Ok(false);
    }
    let (Some(a), Some(b)) = (a.seen(), b.seen()) else { return Ok(comparison == Comparison::Ne) };
    let order = || a.order(b);
    Ok(match comparison {
        Comparison::Eq => a.equals(b)?,
        Comparison::Ne => !a.equals(b)?,
        Comparison::Lt => order().is_some_and(|order| order.is_lt()),
        Comparison::Le => order().is_some_and(|order| order.is_le()),
        Comparison::Gt => order().is_some_and(|order| order.is_gt()),
        Comparison::Ge => order().is_some_and(|order| order.is_ge()),
    })
}

/// Evaluates a test, which nests at most [`MAX_NESTING`](super::limits::MAX_NESTING) deep.
fn holds(test: &Test, source: &impl Source) -> Result<bool> {
    Ok(match test {
        Test::Compare(a, comparison, b) => {
            compare(&Given::of(a, source)?, *comparison, &Given::of(b, source)?)?
        }
        Test::Between(value, least, most) => {
            let value = Given::of(value, source)?;
            compare(&value, Comparison::Ge, &Given::of(least, source)?)?
                && compare(&value, Comparison::Le, &Given::of(most, source)?)?
        }
        Test::In(value, list) => {
            let value = Given::of(value, source)?;
            any(list, |term| compare(&value, Comparison::Eq, &Given::of(term, source)?))?
        }
        Test::Exists(path) => find(source, path)?.is_some(),
        Test::Absent(path) => find(source, path)?.is_none(),
        Test::IsType(path, kind) => find(source, path)?.is_some_and(|value| value.kind() == *kind),
        Test::BeginsWith(path, start) => {
            let start = Given::of(start, source)?;
            find(source, path)?.zip(start.seen()).is_some_and(|(value, start)| value.begins_with(start))
        }
        Test::Contains(path, part) => {
            let part = Given::of(part, source)?;
            match find(source, path)?.zip(part.seen()) {
                Some((value, part)) => value.contains(part)?,
                None => false,
            }
        }
        Test::ItemExists => source.attributes()?.is_some(),
        Test::ItemAbsent => source.attributes()?.is_none(),
        Test::Not(test) => !holds(test, source)?,
        Test::And(tests) => !any(tests, |test| Ok(!holds(test, source)?))?,
        Test::Or(tests) => any(tests, |test| holds(test, source))?,
    })
}

fn any<T>(things: &[T], mut is: impl FnMut(&T) -> Result<bool>) -> Result<bool> {
    for thing in things {
        if is(thing)? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Condition {
    /// Whether it holds for a stored item. Only what it compares is decoded.
    ///
    /// ```
    /// use kstone_api::{Item, ItemView, attr};
    ///
    /// let view = ItemView::new(Item::builder().number("age", 42).build().encode()?)?;
    /// assert!(attr("age").ge(18).matches(&view)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidExpression` if the condition was refused; `Corruption` if the item is damaged where it is read.
    pub fn matches<B: AsRef<[u8]>>(&self, item: &ItemView<B>) -> Result<bool> {
        holds(self.test()?, item)
    }

    /// Whether it holds for an item.
    ///
    /// ```
    /// use kstone_api::{Item, attr};
    ///
    /// let item = Item::builder().string("state", "open").build();
    /// assert!((attr("state").eq("open") & attr("closed_at").absent()).matches_item(&item)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidExpression` if the condition was refused.
    pub fn matches_item(&self, item: &Item) -> Result<bool> {
        holds(self.test()?, item)
    }

    /// Whether it holds where there is no item.
    ///
    /// ```
    /// # use kstone_api::{Condition, attr};
    /// assert!((Condition::item_absent() | attr("n").lt(3)).matches_absence()?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidExpression` if the condition was refused.
    pub fn matches_absence(&self) -> Result<bool> {
        self.holds::<&[u8]>(None)
    }

    /// Whether it holds for what is stored under a key, which may be nothing.
    pub(crate) fn holds<B: AsRef<[u8]>>(&self, item: Option<&ItemView<B>>) -> Result<bool> {
        holds(self.test()?, &item)
    }
}

/// The value at a path, decoded.
pub(super) fn value_at(source: &impl Source, path: &Path) -> Result<Option<Value>> {
    find(source, path)?.map(Seen::to_value).transpose()
}
