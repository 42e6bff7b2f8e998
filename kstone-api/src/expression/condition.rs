//! [`Condition`]: what must hold for an item.

use std::fmt;
use std::ops::{BitAnd, BitOr, Not};

use kstone_core::{Error, Result};

use super::limits::{self, MAX_IN, Refusal};
use super::operand::Term;
use super::params::{Expressions, Params};
use super::path::Path;
use super::{Type, print};
use crate::value::Value;

/// What must hold for an item: of a write, or as a filter of a query.
///
/// Made by the methods of a [`Path`] and combined with `&`, `|` and `!`, or parsed from DynamoDB's text.
///
/// ```
/// use kstone_api::{Condition, Item, Params, attr};
///
/// let item = Item::builder().number("version", 3).string("state", "open").build();
/// let condition = attr("version").eq(3) & !attr("state").eq("closed");
/// assert!(condition.matches_item(&item)?);
///
/// let params = Params::new().name("#s", "state").value(":v", 3).value(":c", "closed");
/// assert_eq!(condition, Condition::parse("version = :v AND NOT #s = :c", &params)?);
/// assert_eq!(condition.to_string(), r#"version = 3 AND NOT state = "closed""#);
/// # Ok::<(), kstone_api::Error>(())
/// ```
///
/// A condition has at most 300 operators and functions and nests at most 32 deep. One that has more, or an operand in
/// the wrong place, is refused with `InvalidExpression` by the call that uses it.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Condition {
    test: Result<Test, Refusal>,
    operators: usize,
    /// NOT, AND and OR within each other.
    nesting: usize,
}

/// A condition on items that a query returns.
pub type Filter = Condition;

/// A condition that can be evaluated.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    Compare(Term, Comparison, Term),
    Between(Term, Term, Term),
    In(Term, Vec<Term>),
    Exists(Path),
    Absent(Path),
    IsType(Path, Type),
    BeginsWith(Path, Term),
    Contains(Path, Term),
    ItemExists,
    ItemAbsent,
    Not(Box<Test>),
    /// Two or more, none of which is an AND.
    And(Vec<Test>),
    /// Two or more, none of which is an OR.
    Or(Vec<Test>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Comparison {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "<>",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }
}

/// Refuses a value that nothing is less or greater than.
fn check_ordered(term: &Term, operator: &str) -> Result<(), Refusal> {
    match term {
        Term::Value(value) if !matches!(value, Value::S(_) | Value::N(_) | Value::B(_)) => {
            let kind = Type::of(value);
            Err(Refusal(format!(
                "{operator} takes strings, numbers and binary, and this value is of type {kind}"
            )))
        }
        _ => Ok(()),
    }
}

impl Test {
    pub(super) fn compare(a: Term, comparison: Comparison, b: Term) -> Result<Self, Refusal> {
        for term in [&a, &b] {
            term.check_in_condition()?;
            if !matches!(comparison, Comparison::Eq | Comparison::Ne) {
                check_ordered(term, comparison.symbol())?;
            }
        }
        Ok(Self::Compare(a, comparison, b))
    }

    pub(super) fn between(value: Term, least: Term, most: Term) -> Result<Self, Refusal> {
        for term in [&value, &least, &most] {
            term.check_in_condition()?;
            check_ordered(term, "BETWEEN")?;
        }
        Ok(Self::Between(value, least, most))
    }

    pub(super) fn is_in(value: Term, list: Vec<Term>) -> Result<Self, Refusal> {
        if list.is_empty() || list.len() > MAX_IN {
            return Err(Refusal(format!("IN takes 1 to {MAX_IN} operands")));
        }
        [&value].into_iter().chain(&list).try_for_each(Term::check_in_condition)?;
        Ok(Self::In(value, list))
    }

    pub(super) fn begins_with(path: Path, start: Term) -> Result<Self, Refusal> {
        start.check_in_condition()?;
        match &start {
            Term::Value(value) if !matches!(value, Value::S(_) | Value::B(_)) => Err(Refusal(format!(
                "begins_with takes a string or binary, and this value is of type {}",
                Type::of(value)
            ))),
            Term::Size(_) => {
                Err(Refusal::new("begins_with takes a string or binary, and size() is a number"))
            }
            _ => Ok(Self::BeginsWith(path, start)),
        }
    }

    pub(super) fn contains(path: Path, part: Term) -> Result<Self, Refusal> {
        part.check_in_condition()?;
        Ok(Self::Contains(path, part))
    }

    /// The operators and functions of a test other than NOT, AND and OR.
    fn operators(&self) -> usize {
        let of = |terms: &[&Term]| terms.iter().map(|term| term.size().0).sum::<usize>();
        1 + match self {
            Self::Compare(a, _, b) => of(&[a, b]),
            Self::Between(a, b, c) => of(&[a, b, c]),
            Self::In(a, list) => of(&[a]) + list.iter().map(|term| term.size().0).sum::<usize>(),
            Self::BeginsWith(_, term) | Self::Contains(_, term) => of(&[term]),
            _ => 0,
        }
    }
}

impl Condition {
    /// A condition that is neither NOT, AND nor OR.
    pub(super) fn leaf(make: impl FnOnce() -> Result<Test, Refusal>) -> Self {
        let test = make();
        let operators = test.as_ref().map_or(0, Test::operators);
        Self { test, operators, nesting: 0 }.bounded()
    }

    fn bounded(mut self) -> Self {
        if self.test.is_ok()
            && let Err(refusal) = limits::check_size(self.operators, self.nesting)
        {
            self.test = Err(refusal);
        }
        self
    }

    /// Holds if the item exists: something is stored under the key of the write. As text, `item_exists()`.
    ///
    /// DynamoDB has no such function: there, `attribute_exists` of a key attribute serves.
    ///
    /// ```
    /// # use kstone_api::{Condition, Params};
    /// let condition = Condition::item_exists();
    /// assert_eq!(condition.to_string(), "item_exists()");
    /// assert_eq!(condition, Condition::parse("item_exists()", &Params::new())?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn item_exists() -> Self {
        Self::leaf(|| Ok(Test::ItemExists))
    }

    /// Holds if the item does not exist. As text, `item_not_exists()`, which DynamoDB does not have either.
    ///
    /// ```
    /// # use kstone_api::{Condition, Item};
    /// assert!(!Condition::item_absent().matches_item(&Item::new())?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn item_absent() -> Self {
        Self::leaf(|| Ok(Test::ItemAbsent))
    }

    /// Parses the text of a condition or filter, as DynamoDB writes it; values, and names that are reserved or not plain
    /// words, are placeholders. For several texts that share placeholders, see [`Expressions`].
    ///
    /// ```
    /// use kstone_api::{Condition, Params, attr};
    ///
    /// let params = Params::new().value(":min", 18);
    /// let condition = Condition::parse("age >= :min AND attribute_exists(email)", &params)?;
    /// assert_eq!(condition, attr("age").ge(18) & attr("email").exists());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `ExpressionSyntax` with the position; `InvalidExpression` if a placeholder is missing or unused, a limit is
    /// exceeded, or an operand does not fit.
    pub fn parse(text: &str, params: &Params) -> Result<Self> {
        Expressions::only(params, |expressions| expressions.condition(text))
    }

    /// The text for DynamoDB. Names that need a placeholder, and all values, are added to the parameters under names that
    /// are still free.
    ///
    /// ```
    /// use kstone_api::{Condition, Params, attr};
    ///
    /// let condition = attr("name").eq("Ann"); // a reserved word
    /// let mut params = Params::new();
    /// let text = condition.to_dynamodb(&mut params)?;
    /// assert_eq!(text, "#n0 = :v0");
    /// assert_eq!(Condition::parse(&text, &params)?, condition);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidExpression` if the condition was refused, or its text is longer than 4096 bytes.
    pub fn to_dynamodb(&self, params: &mut Params) -> Result<String> {
        let test = self.test()?;
        print::for_dynamodb(params, |printer| printer.test(test))
    }

    /// What to evaluate; `InvalidExpression` if it was refused.
    pub(super) fn test(&self) -> Result<&Test> {
        self.test.as_ref().map_err(|refusal| Error::InvalidExpression { why: refusal.0.clone() })
    }

    /// Both, if there was one before.
    pub(crate) fn added_to(self, before: Option<Self>) -> Self {
        match before {
            Some(before) => before & self,
            None => self,
        }
    }

    /// Reports a refusal, for calls that use the condition later.
    pub(crate) fn check(&self) -> Result<()> {
        self.test().map(drop)
    }

    /// Joins the parts of both, where `parts` also returns the levels that joining adds above them: a chain of ANDs is
    /// one level, however long.
    fn join(self, other: Self, parts: fn(Test) -> (Vec<Test>, usize), make: fn(Vec<Test>) -> Test) -> Self {
        let (operators, nestings) = (self.operators + other.operators + 1, [self.nesting, other.nesting]);
        let (first, second) = match (self.test, other.test) {
            (Ok(first), Ok(second)) => (first, second),
            (Err(refusal), _) | (_, Err(refusal)) => {
                return Self { test: Err(refusal), operators: 0, nesting: 0 };
            }
        };
        let ((mut first, above), (second, above_second)) = (parts(first), parts(second));
        first.extend(second);
        let nesting = (nestings[0] + above).max(nestings[1] + above_second);
        Self { test: Ok(make(first)), operators, nesting }.bounded()
    }
}

/// Both hold. The second is not looked at if the first does not.
impl BitAnd for Condition {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        let parts = |test| match test {
            Test::And(parts) => (parts, 0),
            test => (vec![test], 1),
        };
        self.join(other, parts, Test::And)
    }
}

/// At least one holds. The second is not looked at if the first does.
impl BitOr for Condition {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        let parts = |test| match test {
            Test::Or(parts) => (parts, 0),
            test => (vec![test], 1),
        };
        self.join(other, parts, Test::Or)
    }
}

/// It does not hold.
impl Not for Condition {
    type Output = Self;

    fn not(self) -> Self {
        let test = self.test.map(|test| Test::Not(Box::new(test)));
        Self { test, operators: self.operators + 1, nesting: self.nesting + 1 }.bounded()
    }
}

/// For people: DynamoDB's text with names and values in place, values as JSON. It parses if it contains no values, and
/// no names that need a placeholder; [`Condition::to_dynamodb`] is for programs.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.test {
            Ok(test) => f.write_str(&print::for_people(|printer| printer.test(test))),
            Err(refusal) => print::refused(refusal, f),
        }
    }
}
