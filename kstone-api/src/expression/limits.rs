//! Limits of expressions, and why an expression made by builders cannot be used.
//!
//! Builders enforce the limits as they build: what would exceed one becomes a [`Refusal`], which the call that uses the
//! expression reports. So every expression in memory is small, and code may recurse over it.

use kstone_core::Error;

use crate::codec::check_nesting;
use crate::item_error::ItemError;
use crate::number::NumberError;
use crate::value::Value;

/// Bytes of the text of an expression.
pub(super) const MAX_TEXT: usize = 4 << 10;
/// Operators and functions in an expression.
pub(super) const MAX_OPERATORS: usize = 300;
/// Operands in the list of an IN.
pub(super) const MAX_IN: usize = 100;
/// How deep NOT, AND, OR, parentheses and functions nest.
pub(super) const MAX_NESTING: usize = 32;
/// Steps of a path after its first name: as deep as items nest.
pub(super) const MAX_STEPS: usize = 32;

/// Why an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) String);

impl Refusal {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    pub(super) fn into_error(self) -> Error {
        Error::InvalidExpression { why: self.0 }
    }
}

/// Checks the size of an expression or of a part of one.
pub(super) fn check_size(operators: usize, nesting: usize) -> Result<(), Refusal> {
    if operators > MAX_OPERATORS {
        return Err(Refusal(format!("it has more than {MAX_OPERATORS} operators and functions")));
    }
    if nesting > MAX_NESTING {
        return Err(Refusal(format!("it nests deeper than {MAX_NESTING} levels")));
    }
    Ok(())
}

/// Checks that a value can be stored, within `depth` lists and maps.
pub(super) fn check_value(value: &Value, depth: usize) -> Result<(), ItemError> {
    if value.is_nest() {
        check_nesting(depth)?;
    }
    let empty = || Err(ItemError::new("a set has at least one member"));
    match value {
        Value::S(_) | Value::B(_) | Value::Bool(_) | Value::Null => Ok(()),
        Value::N(number) => number.check().map(drop).map_err(ItemError::from),
        Value::L(list) => list.iter().enumerate().try_for_each(|(i, value)| {
            check_value(value, depth + 1).map_err(|error| error.within(&i.to_string()))
        }),
        Value::M(map) => map
            .iter()
            .try_for_each(|(name, value)| check_value(value, depth + 1).map_err(|error| error.within(name))),
        Value::Ss(set) if set.is_empty() => empty(),
        Value::Bs(set) if set.is_empty() => empty(),
        Value::Ns(set) if set.is_empty() => empty(),
        Value::Ss(_) | Value::Bs(_) => Ok(()),
        Value::Ns(set) => Ok(set
            .iter()
            .try_for_each(|number| number.check().map(drop))
            .map_err(|error: NumberError| ItemError::from(error))?),
    }
}

/// The same for a value that an expression contains.
pub(super) fn check_literal(value: &Value) -> Result<(), Refusal> {
    check_value(value, 0)
        .map_err(|error| Refusal(format!("a value cannot be stored: {}", error.into_error())))
}
