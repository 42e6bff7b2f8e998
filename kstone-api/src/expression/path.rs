//! [`Path`]: where in an item a value is.

use std::fmt;

use kstone_core::{Error, Result};

use super::limits::{MAX_STEPS, MAX_TEXT, Refusal};
use super::print;

/// Where in an item a value is: the name of an attribute, followed by names within maps and indexes within lists.
///
/// A name given to [`attr`] and [`Path::field`] is one name, whatever characters it contains; [`Path::parse`] takes
/// dots and brackets apart. A path has up to 32 steps after its first name, as deep as items nest; one that is longer
/// is refused with `InvalidExpression` by the call that uses it.
///
/// Methods such as [`Path::eq`] make conditions, [`Path::plus`] and [`Path::or`] operands of an update.
///
/// ```
/// use kstone_api::{Path, attr};
///
/// let path = attr("address").field("lines").at(0);
/// assert_eq!(path, Path::parse("address.lines[0]")?);
/// assert_eq!(path.to_string(), "address.lines[0]");
/// # Ok::<(), kstone_api::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    name: String,
    /// At most one more than a path may have: then it is refused.
    steps: Vec<Step>,
}

/// A step from a value to one within it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Step {
    /// An element of a list, from 0.
    Index(usize),
    /// A member of a map.
    Field(String),
}

/// The attribute with exactly this name, dots and all.
///
/// ```
/// use kstone_api::{Item, attr};
///
/// let item = Item::builder().number("a.b", 1).build();
/// assert!(attr("a.b").eq(1).matches_item(&item)?);
/// # Ok::<(), kstone_api::Error>(())
/// ```
pub fn attr(name: impl Into<String>) -> Path {
    Path { name: name.into(), steps: Vec::new() }
}

impl Path {
    /// The member of the map at this path with exactly this name.
    ///
    /// ```
    /// # use kstone_api::attr;
    /// assert_eq!(attr("address").field("city").to_string(), "address.city");
    /// ```
    pub fn field(self, name: impl Into<String>) -> Self {
        self.step(Step::Field(name.into()))
    }

    /// The element of the list at this path with this index, starting at 0.
    ///
    /// ```
    /// # use kstone_api::attr;
    /// assert_eq!(attr("tags").at(2).to_string(), "tags[2]");
    /// ```
    pub fn at(self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    pub(super) fn step(mut self, step: Step) -> Self {
        if self.steps.len() <= MAX_STEPS {
            self.steps.push(step);
        }
        self
    }

    /// Parses a path: names separated by dots, each followed by any number of indexes in brackets. A name is any text
    /// without dots and brackets, reserved words included. The text has at most 4096 bytes.
    ///
    /// ```
    /// use kstone_api::{Path, attr};
    ///
    /// assert_eq!(Path::parse("user-data.visits[0][1]")?, attr("user-data").field("visits").at(0).at(1));
    /// assert_eq!(Path::parse("a..b").unwrap_err().code(), "expression_syntax");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `ExpressionSyntax` with the position; `InvalidExpression` for a text that is too long or a path with too many
    /// steps.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > MAX_TEXT {
            return Err(Error::InvalidExpression {
                why: format!("its text is longer than {MAX_TEXT} bytes"),
            });
        }
        let failed = |rest: &str, expected: &str| {
            let at = text.len().saturating_sub(rest.len());
            Err(Error::ExpressionSyntax { text: text.to_owned(), at, expected: expected.into() })
        };
        let name_of = |text| split(text, |c| matches!(c, '.' | '[' | ']'));
        let (name, mut rest) = name_of(text);
        if name.is_empty() {
            return failed(rest, "a name");
        }
        let mut path = attr(name);
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let (name, after) = name_of(after);
                if name.is_empty() {
                    return failed(after, "a name");
                }
                path = path.field(name);
                rest = after;
            } else if let Some(after) = rest.strip_prefix('[') {
                let (digits, end) = split(after, |c| !c.is_ascii_digit());
                let Ok(index) = digits.parse() else { return failed(after, "an index") };
                let Some(end) = end.strip_prefix(']') else { return failed(end, "]") };
                path = path.at(index);
                rest = end;
            } else {
                return failed(rest, "a dot, a bracket, or the end");
            }
        }
        path.check().map_err(Refusal::into_error)?;
        Ok(path)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.steps.len() > MAX_STEPS {
            return Err(Refusal(format!("a path has more than {MAX_STEPS} steps")));
        }
        Ok(())
    }
}

/// The text before the first character of this kind, and the rest.
fn split(text: &str, is_end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at_checked(text.find(is_end).unwrap_or(text.len())).unwrap_or((text, ""))
}

/// One name, as [`attr`].
impl From<&str> for Path {
    fn from(name: &str) -> Self {
        attr(name)
    }
}

/// One name, as [`attr`].
impl From<String> for Path {
    fn from(name: String) -> Self {
        attr(name)
    }
}

impl From<&Path> for Path {
    fn from(path: &Path) -> Self {
        path.clone()
    }
}

/// As [`Path::parse`] reads it, if its names are words; other names are quoted, for people.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print::for_people(|printer| printer.path(self)))
    }
}
