//! [`Type`]: the type of a value.

use std::fmt;

use crate::value::Value;

/// The type of a [`Value`], for [`Path::is_type`](super::Path::is_type). Displayed as DynamoDB names it, such as `BOOL`.
///
/// ```
/// use kstone_api::{Type, Value};
///
/// assert_eq!(Type::of(&Value::from(true)), Type::Bool);
/// assert_eq!(Type::Bool.to_string(), "BOOL");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// A string.
    S,
    /// A number.
    N,
    /// Binary.
    B,
    /// True or false.
    Bool,
    /// Null.
    Null,
    /// A list.
    L,
    /// A map.
    M,
    /// A set of strings.
    Ss,
    /// A set of numbers.
    Ns,
    /// A set of binaries.
    Bs,
}

const ALL: [Type; 10] =
    [Type::S, Type::N, Type::B, Type::Bool, Type::Null, Type::L, Type::M, Type::Ss, Type::Ns, Type::Bs];

impl Type {
    /// The type of a value.
    ///
    /// ```
    /// # use kstone_api::{Type, Value};
    /// assert_eq!(Type::of(&Value::from("Ann")), Type::S);
    /// ```
    pub fn of(value: &Value) -> Self {
        match value {
            Value::S(_) => Self::S,
            Value::N(_) => Self::N,
            Value::B(_) => Self::B,
            Value::Bool(_) => Self::Bool,
            Value::Null => Self::Null,
            Value::L(_) => Self::L,
            Value::M(_) => Self::M,
            Value::Ss(_) => Self::Ss,
            Value::Ns(_) => Self::Ns,
            Value::Bs(_) => Self::Bs,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::S => "S",
            Self::N => "N",
            Self::B => "B",
            Self::Bool => "BOOL",
            Self::Null => "NULL",
            Self::L => "L",
            Self::M => "M",
            Self::Ss => "SS",
            Self::Ns => "NS",
            Self::Bs => "BS",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
