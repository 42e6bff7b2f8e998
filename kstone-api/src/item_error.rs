//! The reason why something cannot become an item or be stored as one, with the path of names that leads to it.

use kstone_core::Error;

use crate::number::NumberError;

#[derive(Debug)]
pub(crate) struct ItemError {
    path: String,
    why: String,
    is_number: bool,
}

impl ItemError {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self { path: String::new(), why: why.into(), is_number: false }
    }

    /// Prepends the attribute or list index that contains the fault.
    pub(crate) fn within(mut self, name: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{dot}{}", self.path);
        self
    }

    /// A fault of a number, rather than of the item.
    #[cfg(feature = "typed")]
    pub(crate) fn of_number(why: impl Into<String>) -> Self {
        Self { is_number: true, ..Self::new(why) }
    }

    /// Prepends the position, in a list, of what contains the fault: `a.b[2]`.
    #[cfg(feature = "typed")]
    pub(crate) fn at(mut self, i: usize) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("[{i}]{dot}{}", self.path);
        self
    }

    /// The reason, without the path.
    #[cfg(feature = "typed")]
    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    /// Appends to the reason.
    #[cfg(feature = "typed")]
    pub(crate) fn noting(mut self, what: &str) -> Self {
        self.why.push_str(what);
        self
    }

    pub(crate) fn into_error(self) -> Error {
        match self {
            Self { path, why, is_number: true } => Error::InvalidNumber { attribute: path, why },
            Self { path, why, .. } if path.is_empty() => Error::InvalidItem { why },
            Self { path, why, .. } => Error::InvalidItem { why: format!("attribute {path:?}: {why}") },
        }
    }
}

impl From<NumberError> for ItemError {
    fn from(e: NumberError) -> Self {
        Self { is_number: true, ..Self::new(e.to_string()) }
    }
}
