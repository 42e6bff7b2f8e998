//! What keys are: text and bytes as they are, or numbers, stored so that they sort as numbers.

use clap::{Args, ValueEnum};
use kstone_api::{Key, Number, Value, ValueView, number_from_key, number_key};
use serde_json::json;

use crate::failure::Failure;

/// The type of a part of a key; the names are those of DynamoDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "verbatim")]
pub(crate) enum KeyType {
    /// Text; a number by the text it has
    S,
    /// A number, stored so that numbers sort by what they say
    N,
    /// Bytes; base64 in an attribute
    B,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct KeyTypes {
    /// The type of the partition key: S text, N a number, stored so that it sorts as one, B bytes (base64 where it is
    /// an attribute).
    #[arg(long, value_enum, value_name = "S|N|B", hide_possible_values = true, ignore_case = true)]
    pub(crate) key_type: Option<KeyType>,
    /// The type of the sort key, likewise.
    #[arg(long, value_enum, value_name = "S|N|B", hide_possible_values = true, ignore_case = true)]
    pub(crate) sort_type: Option<KeyType>,
}

impl KeyTypes {
    /// The key that is stored for one that was typed.
    pub(crate) fn stored(self, key: &Key<'_>) -> Result<Key<'static>, Failure> {
        let partition = stored(self.key_type, key.partition())?;
        Ok(match key.sort() {
            None => Key::new(partition),
            Some(sort) => Key::with_sort(partition, stored(self.sort_type, sort)?),
        })
    }

    /// The key as it is typed, for one that is stored.
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

/// The bytes that are stored for a part of a key that was typed.
pub(crate) fn stored(kind: Option<KeyType>, part: &[u8]) -> Result<Vec<u8>, Failure> {
    if kind != Some(KeyType::N) {
        return Ok(part.to_vec());
    }
    let text = String::from_utf8_lossy(part);
    number(&text).map_err(|why| Failure::usage(format!("{text:?} as a number: {why}")))
}

/// Numbers do not sort by what their text begins with.
pub(crate) fn no_prefix(kind: Option<KeyType>) -> Result<(), Failure> {
    if kind != Some(KeyType::N) {
        return Ok(());
    }
    let mut failure = Failure::usage("numbers have no prefix");
    failure.hint = Some("take those from one to another: --sort-from A --sort-to B".into());
    Err(failure)
}

fn typed(kind: Option<KeyType>, part: &[u8]) -> Vec<u8> {
    // What is no number was stored in another way, and is shown as it is.
    let number = number_from_key(part).filter(|_| kind == Some(KeyType::N));
    number.map_or_else(|| part.to_vec(), |number| number.to_string().into_bytes())
}

fn number(text: &str) -> Result<Vec<u8>, String> {
    let number = text.parse::<Number>().map_err(|e| e.to_string())?;
    number_key(&number).map_err(|e| e.to_string())
}

/// The part of a key that an attribute is, and whether it is a number by its text, which nobody asked for.
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
        (Some(KeyType::B), Some(_)) => Err(format!("attribute {name:?} is not base64, in a string")),
        (_, Some(_)) => Err(format!("attribute {name:?} is neither a string nor a number")),
        (_, None) => Err(format!("there is no attribute {name:?}")),
    }
}
