//! Expressions on the command line: DynamoDB's text, with placeholders from `--name` and `--value`.

use std::collections::BTreeMap;

use anyhow::{Error, Result};
use kstone_api::{Condition, Error as DbError, Expressions, Params, Projection, Update, Value};
use serde_json::value::RawValue;

use crate::args::{Names, Placeholders};
use crate::failure::Failure;

/// DynamoDB's names of types.
const TYPES: [&str; 10] = ["S", "N", "B", "BOOL", "NULL", "L", "M", "SS", "NS", "BS"];

/// The placeholders of names and values.
pub(crate) fn placeholders(given: &Placeholders) -> Result<Params> {
    let params = given.values.iter().try_fold(Params::new(), |params, given| {
        let (placeholder, json) = split(given, "--value", "--value ':v=3'")?;
        let value = value(json).map_err(|why| bad_value(placeholder, &why, json))?;
        Ok::<_, Failure>(params.value(placeholder, value))
    })?;
    add_names(params, &given.names)
}

/// The placeholders of names, for expressions that have no values.
pub(crate) fn names(given: &Names) -> Result<Params> {
    add_names(Params::new(), given)
}

fn add_names(params: Params, given: &Names) -> Result<Params> {
    let params = given.names.iter().try_fold(params, |params, given| {
        let (placeholder, name) = split(given, "--name", "--name '#n=first name'")?;
        Ok::<_, Failure>(params.name(placeholder, name))
    })?;
    // The first use of bad parameters reports them. Here, so that the report does not name an expression.
    match Expressions::new(&params).projection("a") {
        Ok(_) => Ok(params),
        Err(error) => Err(on_one_line(error)),
    }
}

fn split<'a>(given: &'a str, option: &str, example: &str) -> Result<(&'a str, &'a str), Failure> {
    given.split_once('=').ok_or_else(|| {
        let mut failure = Failure::usage(format!("{option} {given:?} has no \"=\""));
        failure.hint = Some(format!("for example {example}"));
        failure
    })
}

/// A value from JSON: plain, or in DynamoDB's form if it is an object whose only member is named like a type. So sets and
/// bytes can be given, and what was copied from DynamoDB means the same here.
fn value(json: &str) -> Result<Value, String> {
    let members = serde_json::from_str::<BTreeMap<String, &RawValue>>(json).unwrap_or_default();
    if members.len() == 1 && members.keys().any(|name| TYPES.contains(&name.as_str())) {
        return serde_json::from_str(json).map_err(|e| format!("not DynamoDB JSON: {e}"));
    }
    Value::from_json_str(json).map_err(|error| match error {
        // Which value it is, is said before.
        DbError::InvalidItem { why } => why,
        DbError::InvalidNumber { attribute, why } if attribute.is_empty() => why,
        other => other.to_string(),
    })
}

fn bad_value(placeholder: &str, why: &str, json: &str) -> Failure {
    let mut failure = Failure::usage(format!("--value {placeholder}: {why}"));
    let is_word = !json.is_empty() && json.chars().all(char::is_alphanumeric);
    failure.hint = if json.trim_start().starts_with('{') {
        Some(
            "an object whose only member is named like a type is of that type: {\"M\":{..}} is any map"
                .into(),
        )
    } else if is_word && why.starts_with("not JSON") {
        Some(format!("text is quoted, within the quotes of the shell: --value '{placeholder}=\"{json}\"'"))
    } else {
        None
    };
    failure
}

/// Parses the expressions of one command, which share placeholders.
pub(crate) struct Parser<'a>(Expressions<'a>);

impl<'a> Parser<'a> {
    pub(crate) fn new(params: &'a Params) -> Self {
        Self(Expressions::new(params))
    }

    /// The condition given by an option, if there is one.
    pub(crate) fn condition(&mut self, option: &str, text: Option<&String>) -> Result<Option<Condition>> {
        text.map(|text| told(option, self.0.condition(text))).transpose()
    }

    /// The projection given by an option, if there is one.
    pub(crate) fn projection(&mut self, option: &str, text: Option<&String>) -> Result<Option<Projection>> {
        text.map(|text| told(option, self.0.projection(text))).transpose()
    }

    pub(crate) fn update(&mut self, text: &str) -> Result<Update> {
        told("the update", self.0.update(text))
    }

    /// Fails if a placeholder was given but not used.
    pub(crate) fn finish(self) -> Result<()> {
        self.0.finish().map_err(on_one_line)
    }
}

/// Adds which expression it is to an error.
fn told<T>(which: &str, parsed: Result<T, DbError>) -> Result<T> {
    parsed.map_err(|error| {
        let told = format!("{which}: {}", why(&error));
        Error::from(error).context(told)
    })
}

fn on_one_line(error: DbError) -> Error {
    let why = why(&error);
    Error::from(error).context(why)
}

/// The error on one line; `failure` shows the place in the text.
fn why(error: &DbError) -> String {
    match error {
        DbError::ExpressionSyntax { at, expected, .. } => format!("expected {expected} at byte {at}"),
        DbError::InvalidExpression { why } => why.clone(),
        other => other.to_string(),
    }
}
