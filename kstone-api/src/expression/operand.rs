//! [`Operand`]: what conditions compare, and what updates set.

use std::fmt;

use super::condition::{Comparison, Condition, Test};
use super::limits::{self, MAX_IN, Refusal};
use super::path::Path;
use super::print;
use crate::value::Value;

/// What a condition compares or an update sets: a value, the value at a [`Path`], or something computed from them.
///
/// Everything that converts into a [`Value`] converts into an operand, as does a path. Conditions take values, paths and
/// [`Path::size`]; updates take values, paths, [`Path::or`], sums and differences. An operand in the wrong place is
/// refused with `InvalidExpression` by the call that uses the expression.
///
/// ```
/// use kstone_api::{Item, Update, attr};
///
/// let mut item = Item::builder().number("price", 20).number("discount", 3).build();
/// Update::new()
///     .set("total", attr("price").minus(attr("discount")))
///     .set("visits", attr("visits").or(0).plus(1))
///     .apply(&mut item)?;
/// assert_eq!(item.to_string(), r#"{"discount":3,"price":20,"total":17,"visits":1}"#);
/// # Ok::<(), kstone_api::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Operand(pub(super) Result<Term, Refusal>);

/// An operand that can be used, at least in some places.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    Value(Value),
    Path(Path),
    Size(Path),
    /// `if_not_exists`: the value at the path, else the other.
    IfAbsent(Path, Box<Term>),
    /// `list_append`.
    Append(Box<Term>, Box<Term>),
    Plus(Box<Term>, Box<Term>),
    Minus(Box<Term>, Box<Term>),
}

impl Term {
    /// Operators and functions, and how deep they nest.
    pub(super) fn size(&self) -> (usize, usize) {
        let (operators, nesting) = match self {
            Self::Value(_) | Self::Path(_) => return (0, 0),
            Self::Size(_) => (0, 0),
            Self::IfAbsent(_, term) => term.size(),
            Self::Append(a, b) | Self::Plus(a, b) | Self::Minus(a, b) => {
                let (a, b) = (a.size(), b.size());
                (a.0 + b.0, a.1.max(b.1))
            }
        };
        (operators + 1, nesting + 1)
    }

    /// What a number or a list is needed for must not be a value of another type, nor a sum.
    fn expect(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Result<(), Refusal> {
        match self {
            Self::Value(value) if !fits(value) => {
                let kind = super::Type::of(value);
                Err(Refusal(format!("{what}, and this value is of type {kind}")))
            }
            Self::Plus(..) | Self::Minus(..) => {
                Err(Refusal::new("an operand is not itself a sum or a difference: an update adds once"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn if_absent(path: Path, other: Self) -> Result<Self, Refusal> {
        path.check()?;
        other.expect("", |_| true)?;
        Self::IfAbsent(path, Box::new(other)).checked()
    }

    pub(super) fn append(first: Self, second: Self) -> Result<Self, Refusal> {
        for list in [&first, &second] {
            list.expect("list_append takes lists", |value| matches!(value, Value::L(_)))?;
        }
        Self::Append(Box::new(first), Box::new(second)).checked()
    }

    pub(super) fn plus(first: Self, second: Self) -> Result<Self, Refusal> {
        let (first, second) = Self::numbers(first, second)?;
        Self::Plus(first, second).checked()
    }

    pub(super) fn minus(first: Self, second: Self) -> Result<Self, Refusal> {
        let (first, second) = Self::numbers(first, second)?;
        Self::Minus(first, second).checked()
    }

    fn numbers(first: Self, second: Self) -> Result<(Box<Self>, Box<Self>), Refusal> {
        for number in [&first, &second] {
            number.expect("+ and - take numbers", |value| matches!(value, Value::N(_)))?;
            if matches!(number, Self::Append(..)) {
                return Err(Refusal::new("+ and - take numbers, and list_append gives a list"));
            }
        }
        Ok((Box::new(first), Box::new(second)))
    }

    fn checked(self) -> Result<Self, Refusal> {
        let (operators, nesting) = self.size();
        limits::check_size(operators, nesting)?;
        Ok(self)
    }

    /// Checks that an update can set it.
    pub(super) fn check_in_update(&self) -> Result<(), Refusal> {
        match self {
            Self::Value(_) | Self::Path(_) => Ok(()),
            Self::Size(_) => Err(Refusal::new("size() is for conditions, not for updates")),
            Self::IfAbsent(_, term) => term.check_in_update(),
            Self::Append(a, b) | Self::Plus(a, b) | Self::Minus(a, b) => {
                a.check_in_update().and_then(|()| b.check_in_update())
            }
        }
    }

    /// Checks that a condition can compare it.
    pub(super) fn check_in_condition(&self) -> Result<(), Refusal> {
        let refused = |what| Err(Refusal(format!("{what} is for updates, not for conditions")));
        match self {
            Self::Value(_) | Self::Path(_) | Self::Size(_) => Ok(()),
            Self::IfAbsent(..) => refused("if_not_exists"),
            Self::Append(..) => refused("list_append"),
            Self::Plus(..) => refused("+"),
            Self::Minus(..) => refused("-"),
        }
    }
}

impl Operand {
    fn combine(self, other: Self, make: impl FnOnce(Term, Term) -> Result<Term, Refusal>) -> Self {
        Self(self.0.and_then(|first| make(first, other.0?)))
    }

    /// Of an update: the sum of two numbers, exact to 38 digits. An update adds once: the operands are not sums
    /// themselves.
    ///
    /// ```
    /// # use kstone_api::{Update, attr};
    /// let update = Update::new().set("visits", attr("visits").or(0).plus(1));
    /// assert_eq!(update.to_string(), "SET visits = if_not_exists(visits, 0) + 1");
    /// ```
    pub fn plus(self, other: impl Into<Operand>) -> Self {
        self.combine(other.into(), Term::plus)
    }

    /// Of an update: the difference of two numbers, exact to 38 digits.
    ///
    /// ```
    /// # use kstone_api::{Update, attr};
    /// let update = Update::new().set("left", attr("left").or(10).minus(1));
    /// assert_eq!(update.to_string(), "SET left = if_not_exists(left, 10) - 1");
    /// ```
    pub fn minus(self, other: impl Into<Operand>) -> Self {
        self.combine(other.into(), Term::minus)
    }

    fn compare(self, comparison: Comparison, other: impl Into<Operand>) -> Condition {
        let other = other.into();
        Condition::leaf(|| Test::compare(self.0?, comparison, other.0?))
    }

    /// Holds if both are there, of one type, and equal; lists, maps and sets by their contents, numbers by value.
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// let item = Item::builder().number("n", 1).build();
    /// assert!(attr("n").eq(1.0).matches_item(&item)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn eq(self, other: impl Into<Operand>) -> Condition {
        self.compare(Comparison::Eq, other)
    }

    /// Holds if [`Operand::eq`] does not: also if one is missing, or the types differ.
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// assert!(attr("n").ne(1).matches_item(&Item::new())?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn ne(self, other: impl Into<Operand>) -> Condition {
        self.compare(Comparison::Ne, other)
    }

    /// Holds if both are numbers, strings or binaries, and this one is less. Strings and binaries compare by their
    /// bytes.
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// let item = Item::builder().number("n", 2).build();
    /// assert!(attr("n").lt(10).matches_item(&item)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn lt(self, other: impl Into<Operand>) -> Condition {
        self.compare(Comparison::Lt, other)
    }

    /// Less or equal, for the types of [`Operand::lt`].
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// let item = Item::builder().number("n", 2).build();
    /// assert!(attr("n").le(2).matches_item(&item)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn le(self, other: impl Into<Operand>) -> Condition {
        self.compare(Comparison::Le, other)
    }

    /// Greater, for the types of [`Operand::lt`].
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// let item = Item::builder().string("name", "Ann").build();
    /// assert!(attr("name").size().gt(2).matches_item(&item)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn gt(self, other: impl Into<Operand>) -> Condition {
        self.compare(Comparison::Gt, other)
    }

    /// Greater or equal, for the types of [`Operand::lt`].
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// let item = Item::builder().number("n", 2).build();
    /// assert!(attr("n").ge(2).matches_item(&item)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn ge(self, other: impl Into<Operand>) -> Condition {
        self.compare(Comparison::Ge, other)
    }

    /// At least the first and at most the second, for the types of [`Operand::lt`].
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// let item = Item::builder().number("n", 2).build();
    /// assert!(attr("n").between(1, 2).matches_item(&item)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn between(self, least: impl Into<Operand>, most: impl Into<Operand>) -> Condition {
        let (least, most) = (least.into(), most.into());
        Condition::leaf(|| Test::between(self.0?, least.0?, most.0?))
    }

    /// Holds if it equals one of the operands: 1 to 100.
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// let item = Item::builder().string("state", "open").build();
    /// assert!(attr("state").is_in(["new", "open"]).matches_item(&item)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn is_in<O: Into<Operand>>(self, operands: impl IntoIterator<Item = O>) -> Condition {
        // Endless iterators too.
        let operands: Vec<Operand> = operands.into_iter().take(MAX_IN + 1).map(Into::into).collect();
        Condition::leaf(|| {
            Test::is_in(self.0?, operands.into_iter().map(|operand| operand.0).collect::<Result<_, _>>()?)
        })
    }
}

/// Conditions on the value at a path, and operands made of it.
impl Path {
    /// Holds if the value equals the other: both are there, of one type, and equal; lists, maps and sets by their
    /// contents, numbers by value.
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// let item = Item::builder().number("version", 3).build();
    /// assert!(attr("version").eq(3).matches_item(&item)?);
    /// assert!(!attr("version").eq("3").matches_item(&item)?); // another type
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn eq(self, other: impl Into<Operand>) -> Condition {
        Operand::from(self).eq(other)
    }

    /// Holds if [`Path::eq`] does not: also if one of the values is missing, or the types differ.
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// assert!(attr("state").ne("closed").matches_item(&Item::new())?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn ne(self, other: impl Into<Operand>) -> Condition {
        Operand::from(self).ne(other)
    }

    /// Holds if both are numbers, strings or binaries, and this one is less. Numbers compare by value, strings and
    /// binaries by their bytes.
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// let item = Item::builder().number("n", 2).string("s", "2").build();
    /// assert!(attr("n").lt(10).matches_item(&item)?);
    /// assert!(!attr("s").lt("10").matches_item(&item)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn lt(self, other: impl Into<Operand>) -> Condition {
        Operand::from(self).lt(other)
    }

    /// Less or equal, for the types of [`Path::lt`].
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// assert!(attr("n").le(2).matches_item(&Item::builder().number("n", 2).build())?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn le(self, other: impl Into<Operand>) -> Condition {
        Operand::from(self).le(other)
    }

    /// Greater, for the types of [`Path::lt`].
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// assert!(attr("n").gt(attr("m")).matches_item(&Item::builder().number("n", 2).number("m", 1).build())?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn gt(self, other: impl Into<Operand>) -> Condition {
        Operand::from(self).gt(other)
    }

    /// Greater or equal, for the types of [`Path::lt`].
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// assert!(!attr("n").ge(2).matches_item(&Item::new())?); // missing
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn ge(self, other: impl Into<Operand>) -> Condition {
        Operand::from(self).ge(other)
    }

    /// At least the first and at most the second, for the types of [`Path::lt`].
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// let item = Item::builder().string("day", "2026-11-30").build();
    /// assert!(attr("day").between("2026-11-01", "2026-11-30").matches_item(&item)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn between(self, least: impl Into<Operand>, most: impl Into<Operand>) -> Condition {
        Operand::from(self).between(least, most)
    }

    /// Holds if the value equals one of the operands: 1 to 100.
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// let item = Item::builder().string("state", "open").build();
    /// assert!(attr("state").is_in(["new", "open"]).matches_item(&item)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn is_in<O: Into<Operand>>(self, operands: impl IntoIterator<Item = O>) -> Condition {
        Operand::from(self).is_in(operands)
    }

    /// Holds if there is a value, null included.
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// assert!(attr("deleted_at").exists().matches_item(&Item::builder().null("deleted_at").build())?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn exists(self) -> Condition {
        Condition::leaf(|| Ok(Test::Exists(self.checked()?)))
    }

    /// Holds if there is no value. It does for every path if there is no item.
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// assert!(attr("deleted_at").absent().matches_item(&Item::new())?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn absent(self) -> Condition {
        Condition::leaf(|| Ok(Test::Absent(self.checked()?)))
    }

    /// Holds if there is a value of this type.
    ///
    /// ```
    /// # use kstone_api::{Item, Type, attr};
    /// assert!(attr("n").is_type(Type::N).matches_item(&Item::builder().number("n", 2).build())?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn is_type(self, kind: super::Type) -> Condition {
        Condition::leaf(|| Ok(Test::IsType(self.checked()?, kind)))
    }

    /// Holds if both are strings or both are binaries, and the value begins with the other.
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// assert!(attr("city").begins_with("New ").matches_item(&Item::builder().string("city", "New York").build())?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn begins_with(self, start: impl Into<Operand>) -> Condition {
        let start = start.into();
        Condition::leaf(|| Test::begins_with(self.checked()?, start.0?))
    }

    /// Holds if the value is a string or binary that the other is a part of, a set that the other is a member of, or a
    /// list with an element equal to it.
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// let item = Item::builder().string_set("roles", ["admin", "author"]).build();
    /// assert!(attr("roles").contains("admin").matches_item(&item)?);
    /// assert!(!attr("roles").contains("adm").matches_item(&item)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn contains(self, part: impl Into<Operand>) -> Condition {
        let part = part.into();
        Condition::leaf(|| Test::contains(self.checked()?, part.0?))
    }

    /// In a condition: the length in bytes of a string or binary, or the number of members of a list, map or set. A
    /// comparison with it does not hold, not even [`Operand::ne`], if the value is missing or of another type.
    ///
    /// ```
    /// # use kstone_api::{Item, attr};
    /// let item = Item::builder().list("tags", ["new", "sale"]).build();
    /// assert!(attr("tags").size().lt(5).matches_item(&item)?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn size(self) -> Operand {
        Operand(self.checked().map(Term::Size))
    }

    /// In an update: this number plus another, exact to 38 digits. [`Update::add`](super::Update::add) also creates
    /// the number if it is missing.
    ///
    /// ```
    /// # use kstone_api::{Item, Update, attr};
    /// let mut item = Item::builder().number("n", 1).build();
    /// Update::new().set("next", attr("n").plus(1)).apply(&mut item)?;
    /// assert_eq!(item.to_string(), r#"{"n":1,"next":2}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn plus(self, other: impl Into<Operand>) -> Operand {
        Operand::from(self).plus(other)
    }

    /// In an update: this number minus another, exact to 38 digits.
    ///
    /// ```
    /// # use kstone_api::{Item, Update, attr};
    /// let mut item = Item::builder().number("n", 1).build();
    /// Update::new().set("n", attr("n").minus(0.1)).apply(&mut item)?;
    /// assert_eq!(item.to_string(), r#"{"n":0.9}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn minus(self, other: impl Into<Operand>) -> Operand {
        Operand::from(self).minus(other)
    }

    /// In an update: the value, or the other if it is missing. DynamoDB's `if_not_exists`.
    ///
    /// ```
    /// # use kstone_api::{Item, Update, attr};
    /// let mut item = Item::new();
    /// Update::new().set("state", attr("state").or("new")).apply(&mut item)?;
    /// assert_eq!(item.to_string(), r#"{"state":"new"}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn or(self, other: impl Into<Operand>) -> Operand {
        let other = other.into();
        Operand(other.0.and_then(|other| Term::if_absent(self, other)))
    }

    fn checked(self) -> Result<Self, Refusal> {
        self.check()?;
        Ok(self)
    }
}

impl From<Path> for Operand {
    fn from(path: Path) -> Self {
        Self(path.checked().map(Term::Path))
    }
}

impl From<&Path> for Operand {
    fn from(path: &Path) -> Self {
        Self::from(path.clone())
    }
}

impl<V: Into<Value>> From<V> for Operand {
    fn from(value: V) -> Self {
        let value = value.into();
        Self(limits::check_literal(&value).map(|()| Term::Value(value)))
    }
}

/// For people, with names and values in place.
impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(term) => f.write_str(&print::for_people(|printer| printer.term(term))),
            Err(refusal) => print::refused(refusal, f),
        }
    }
}
