//! Types of keys: text and bytes, stored as they are, or numbers, stored so that they sort numerically.

use clap::{Args, ValueEnum};
use kstone_api::{Key, Number, Value, ValueView, number_from_key, number_key};
use serde_json::json;

use crate::failure::Failure;

/// The type of one part of a key; the names are those of DynamoDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "verbatim")]
pub(crate) enum KeyType {
    /// Text; numbers are stored as their text
    S,
    /// Number, stored so that keys sort numerically
    N,
    /// Bytes; base64 in an attribute
    B,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct KeyTypes {
    /// Type of the partition key: S text, N a number that sorts numerically, B bytes (base64 if it is an attribute).
    #[arg(long, value_enum, value_name = "S|N|B", hide_possible_values = true, ignore_case = true)]
    pub(crate) key_type: Option<KeyType>,
    /// Type of the sort key, likewise.
    #[arg(long, value_enum, value_name = "S|N|B", hide_possible_values = true, ignore_case = true)]
    pub(crate) sort_type: Option<KeyType>,
}

impl KeyTypes {
    /// Converts a key from its typed form to its stored form.
    pub(crate) fn stored(self, key: &Key<'_>) -> Result<Key<'static>, Failure> {
        let partition = stored(self.key_type, key.partition())?;
        Ok(match key.sort() {
            None => Key::new(partition),
            Some(sort) => Key::with_sort(partition, stored(self.sort_type, sort)?),
        })
    }

    /// Converts a key from its stored form to its typed form.
    pub(crate) fn typed(self, key: Key<'_>) -> Key<'_> {
        if self.key_type != Some(KeyType::N) && self.sort_type != Some(KeyType::N) {
            return key;
        }
        let partition = typed(self.key_type, key.partition());
        match key.sort() {
            None => Key::new(partition),
            Some(sort) => Key::with_sort(partition, typed(self.sort_type, sort)),
        }
    }
}

/// Converts one part of a key from its typed form to the bytes that are stored.
pub(crate) fn stored(kind: Option<KeyType>, part: &[u8]) -> Result<Vec<u8>, Failure> {
    if kind != Some(KeyType::N) {
        return Ok(part.to_vec());
    }
    let text = String::from_utf8_lossy(part);
    number(&text).map_err(|why| Failure::usage(format!("{text:?} is not a number key: {why}")))
}

/// Refuses a prefix of a number: numbers do not sort by the start of their text.
pub(crate) fn no_prefix(kind: Option<KeyType>) -> Result<(), Failure> {
    if kind != Some(KeyType::N) {
        return Ok(());
    }
    let mut failure = Failure::usage("a number has no prefix");
    failure.hint = Some("give a range instead: --sort-from A --sort-to B".into());
    Err(failure)
}

fn typed(kind: Option<KeyType>, part: &[u8]) -> Vec<u8> {
    // A part that is not a stored number was stored with another type, and is shown as it is.
    let number = number_from_key(part).filter(|_| kind == Some(KeyType::N));
    number.map_or_else(|| part.to_vec(), |number| number.to_string().into_bytes())
}

fn number(text: &str) -> Result<Vec<u8>, String> {
    let number = text.parse::<Number>().map_err(|e| e.to_string())?;
    number_key(&number).map_err(|e| e.to_string())
}

/// Converts an attribute to a part of a key. Also returns whether it is a number stored as text without having been
/// requested.
pub(crate) fn of_attribute(
    kind: Option<KeyType>,
    name: &str,
    value: Option<ValueView<'_>>,
) -> Result<(Vec<u8>, bool), String> {
    match (kind, value) {
        (None | Some(KeyType::S), Some(ValueView::S(text))) => Ok((text.into(), false)),
        (None | Some(KeyType::S), Some(ValueView::N(text))) => Ok((text.into(), kind.is_none())),
        (Some(KeyType::N), Some(ValueView::N(text))) => Ok((number(text)?, false)),
        (Some(KeyType::N), Some(_)) => Err(format!("attribute {name:?} is not a number")),
        (Some(KeyType::B), Some(ValueView::S(text))) => {
            match serde_json::from_value::<Value>(json!({"B": text})) {
                Ok(Value::B(bytes)) => Ok((bytes, false)),
                _ => Err(format!("attribute {name:?} is not base64")),
            }
        }
        (Some(KeyType::B), Some(_)) => Err(format!("attribute {name:?} is not a base64 string")),
        (_, Some(_)) => Err(format!("attribute {name:?} is neither a string nor a number")),
        (_, None) => Err(format!("there is no attribute {name:?}")),
    }
}

/// The same for an attribute of DynamoDB JSON, whose own type counts where none was requested: numbers sort as numbers.
pub(crate) fn of_typed_attribute(
    kind: Option<KeyType>,
    name: &str,
    value: Option<ValueView<'_>>,
) -> Result<(Vec<u8>, bool), String> {
    match (kind, value) {
        (None, Some(ValueView::N(text))) => Ok((number(text)?, false)),
        (None | Some(KeyType::B), Some(ValueView::B(bytes))) => Ok((bytes.into(), false)),
        (None, Some(value)) if value.as_str().is_none() => {
            Err(format!("attribute {name:?} is neither a string nor a number nor binary, as keys are"))
        }
        _ => of_attribute(kind, name, value),
    }
}

/// The attribute that one part of a key becomes in an export: binary unless another type was requested.
pub(crate) fn to_attribute(kind: Option<KeyType>, part: &[u8]) -> Result<Value, String> {
    match kind {
        None | Some(KeyType::B) => Ok(Value::B(part.into())),
        Some(KeyType::S) => match std::str::from_utf8(part) {
            Ok(text) => Ok(Value::S(text.into())),
            Err(_) => Err("is not UTF-8 text".into()),
        },
        Some(KeyType::N) => match number_from_key(part) {
            Some(number) => Ok(Value::N(number)),
            None => Err("was not stored as a number".into()),
        },
    }
}
