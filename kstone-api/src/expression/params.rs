//! [`Params`]: what the placeholders of an expression's text stand for.

use std::collections::{BTreeMap, BTreeSet};

use kstone_core::{Error, Result};

use super::condition::Condition;
use super::limits::{self, Refusal};
use super::parser::Parser;
use super::projection::Projection;
use super::update::Update;
use crate::value::Value;

/// What the placeholders of an expression's text stand for: `#name` for the name of an attribute, `:value` for a value.
///
/// A placeholder is `#` or `:`, followed by letters, digits and underscores. Faults, such as a placeholder given twice,
/// are reported by the call that uses the parameters.
///
/// ```
/// use kstone_api::{Params, Update, attr};
///
/// let params = Params::new().name("#v", "version").value(":n", 3);
/// assert_eq!(Update::parse("SET #v = :n", &params)?, Update::new().set("version", 3));
/// # Ok::<(), kstone_api::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Params {
    names: BTreeMap<String, String>,
    values: BTreeMap<String, Value>,
    refused: Option<Refusal>,
    /// Placeholders that printing gave out, by name.
    printed: BTreeMap<String, String>,
    /// Numbers from which on placeholders may still be free.
    next_name: usize,
    next_value: usize,
}

impl Params {
    /// No placeholders.
    ///
    /// ```
    /// # use kstone_api::{Params, Projection};
    /// assert!(Projection::parse("city, address.zip", &Params::new()).is_ok());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a placeholder such as `#v` stand for the name of an attribute: one name, dots and all.
    ///
    /// ```
    /// # use kstone_api::{Params, Projection, attr};
    /// let params = Params::new().name("#n", "first.name");
    /// assert_eq!(Projection::parse("#n", &params)?, Projection::new().path(attr("first.name")));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn name(mut self, placeholder: impl Into<String>, name: impl Into<String>) -> Self {
        let placeholder = placeholder.into();
        self.check(&placeholder, '#');
        if self.names.insert(placeholder.clone(), name.into()).is_some() {
            self.refuse(format!("{placeholder} is given twice"));
        }
        self
    }

    /// Lets a placeholder such as `:n` stand for a value.
    ///
    /// ```
    /// # use kstone_api::{Condition, Params, attr};
    /// let params = Params::new().value(":n", 3);
    /// assert_eq!(Condition::parse("version = :n", &params)?, attr("version").eq(3));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn value(mut self, placeholder: impl Into<String>, value: impl Into<Value>) -> Self {
        let (placeholder, value) = (placeholder.into(), value.into());
        self.check(&placeholder, ':');
        if let Err(refusal) = limits::check_literal(&value) {
            self.refuse(format!("{placeholder}: {}", refusal.0));
        }
        if self.values.insert(placeholder.clone(), value).is_some() {
            self.refuse(format!("{placeholder} is given twice"));
        }
        self
    }

    /// The placeholders of names, with the names.
    ///
    /// ```
    /// # use kstone_api::Params;
    /// let params = Params::new().name("#v", "version");
    /// assert_eq!(params.names().collect::<Vec<_>>(), [("#v", "version")]);
    /// ```
    pub fn names(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.names.iter().map(|(placeholder, name)| (placeholder.as_str(), name.as_str()))
    }

    /// The placeholders of values, with the values.
    ///
    /// ```
    /// # use kstone_api::{Params, Value};
    /// let params = Params::new().value(":n", 3);
    /// assert_eq!(params.values().collect::<Vec<_>>(), [(":n", &Value::from(3))]);
    /// ```
    pub fn values(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.values.iter().map(|(placeholder, value)| (placeholder.as_str(), value))
    }

    fn check(&mut self, placeholder: &str, sign: char) {
        let word = placeholder.strip_prefix(sign).unwrap_or_default();
        if word.is_empty() || !word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            self.refuse(format!(
                "{placeholder:?} is not a placeholder: {sign} followed by letters, digits and underscores"
            ));
        }
    }

    fn refuse(&mut self, why: String) {
        self.refused.get_or_insert(Refusal(why));
    }

    /// The placeholder of a name that is printed.
    pub(super) fn print_name(&mut self, name: &str) -> &str {
        if !self.printed.contains_key(name) {
            let placeholder = free("#n", &self.names, &mut self.next_name);
            self.names.insert(placeholder.clone(), name.to_owned());
            self.printed.insert(name.to_owned(), placeholder);
        }
        self.printed.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The placeholder of a value that is printed.
    pub(super) fn print_value(&mut self, value: &Value) -> String {
        let placeholder = free(":v", &self.values, &mut self.next_value);
        self.values.insert(placeholder.clone(), value.clone());
        placeholder
    }
}

/// By placeholders and what they stand for.
impl PartialEq for Params {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names && self.values == other.values && self.refused == other.refused
    }
}

/// A placeholder that is not in the map.
fn free<T>(start: &str, taken: &BTreeMap<String, T>, next: &mut usize) -> String {
    loop {
        let placeholder = format!("{start}{next}");
        *next += 1;
        if !taken.contains_key(&placeholder) {
            return placeholder;
        }
    }
}

/// Parses several texts that share placeholders, as of a call with a condition and an update: a placeholder may be used in
/// any of them, and must be in one.
///
/// ```
/// use kstone_api::{Expressions, Params};
///
/// let params = Params::new().value(":old", 3).value(":new", 4);
/// let mut expressions = Expressions::new(&params);
/// let condition = expressions.condition("version = :old")?;
/// let update = expressions.update("SET version = :new")?;
/// expressions.finish()?; // all placeholders were used
/// # Ok::<(), kstone_api::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Expressions<'a> {
    params: &'a Params,
    names: BTreeSet<&'a str>,
    values: BTreeSet<&'a str>,
}

impl<'a> Expressions<'a> {
    /// Starts with these parameters.
    ///
    /// ```
    /// # use kstone_api::{Expressions, Params};
    /// let params = Params::new();
    /// assert!(Expressions::new(&params).finish().is_ok());
    /// ```
    pub fn new(params: &'a Params) -> Self {
        Self { params, names: BTreeSet::new(), values: BTreeSet::new() }
    }

    /// Parses a condition or filter.
    ///
    /// ```
    /// # use kstone_api::{Expressions, Params, attr};
    /// let params = Params::new().value(":n", 3);
    /// assert_eq!(Expressions::new(&params).condition("n = :n")?, attr("n").eq(3));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Condition::parse`], except for unused placeholders.
    pub fn condition(&mut self, text: &str) -> Result<Condition> {
        self.parser(text)?.condition()
    }

    /// Parses an update.
    ///
    /// ```
    /// # use kstone_api::{Expressions, Params, Update};
    /// let params = Params::new().value(":n", 1);
    /// assert_eq!(Expressions::new(&params).update("ADD visits :n")?, Update::new().add("visits", 1));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Update::parse`], except for unused placeholders.
    pub fn update(&mut self, text: &str) -> Result<Update> {
        self.parser(text)?.update()
    }

    /// Parses a projection.
    ///
    /// ```
    /// # use kstone_api::{Expressions, Params, Projection};
    /// let params = Params::new();
    /// assert_eq!(Expressions::new(&params).projection("a, b")?, Projection::of(["a", "b"]));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Projection::parse`], except for unused placeholders.
    pub fn projection(&mut self, text: &str) -> Result<Projection> {
        self.parser(text)?.projection()
    }

    /// Fails with `InvalidExpression` if a placeholder was used in no text.
    ///
    /// ```
    /// # use kstone_api::{Expressions, Params};
    /// let params = Params::new().value(":n", 3);
    /// assert_eq!(Expressions::new(&params).finish().unwrap_err().code(), "invalid_expression");
    /// ```
    pub fn finish(self) -> Result<()> {
        self.check()?;
        let unused = |mut given: Box<dyn Iterator<Item = &str> + '_>, used: &BTreeSet<&str>| {
            given.find(|placeholder| !used.contains(placeholder)).map(str::to_owned)
        };
        let name = unused(Box::new(self.params.names.keys().map(String::as_str)), &self.names);
        let value = || unused(Box::new(self.params.values.keys().map(String::as_str)), &self.values);
        match name.or_else(value) {
            Some(placeholder) => {
                Err(Error::InvalidExpression { why: format!("{placeholder} is given but not used") })
            }
            None => Ok(()),
        }
    }

    /// Parses a single text.
    pub(super) fn only<T>(params: &'a Params, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let mut expressions = Self::new(params);
        let parsed = parse(&mut expressions)?;
        expressions.finish()?;
        Ok(parsed)
    }

    fn check(&self) -> Result<()> {
        self.params.refused.clone().map_or(Ok(()), |refusal| Err(refusal.into_error()))
    }

    fn parser<'t, 'e>(&'e mut self, text: &'t str) -> Result<Parser<'t, 'e, 'a>> {
        self.check()?;
        Parser::new(text, self)
    }

    /// The name that a placeholder in a text stands for.
    pub(super) fn use_name(&mut self, placeholder: &str) -> Option<&'a str> {
        let (placeholder, name) = self.params.names.get_key_value(placeholder)?;
        self.names.insert(placeholder);
        Some(name)
    }

    /// The value that a placeholder in a text stands for.
    pub(super) fn use_value(&mut self, placeholder: &str) -> Option<&'a Value> {
        let (placeholder, value) = self.params.values.get_key_value(placeholder)?;
        self.values.insert(placeholder);
        Some(value)
    }
}
