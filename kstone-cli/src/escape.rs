//! Keys as they are typed.

use std::str::FromStr;

use kstone_api::{Error, escape};

/// Bytes given as the text that [`escape::key`] prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Escaped(pub(crate) Vec<u8>);

impl AsRef<[u8]> for Escaped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Escaped {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        escape::parse_key(text).map(Self).map_err(|error| match error {
            // Whoever reports it says which argument it is.
            Error::InvalidKey { why } => why,
            other => other.to_string(),
        })
    }
}
