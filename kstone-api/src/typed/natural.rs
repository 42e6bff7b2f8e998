//! [`Value`] and [`Number`] as fields of typed structs: they take what they are given for itself.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::set::Kind;
use super::{MARK, state};
use crate::item::Item;
use crate::number::{self, Number};
use crate::value::{self, Value};

/// Reads a [`Value`].
pub(crate) fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    deserializer.deserialize_newtype_struct(value::SERDE_NAME, Natural)
}

/// Reads a [`Number`] from a buffer of serde's.
pub(crate) fn buffered_number<'de, D: Deserializer<'de>>(buffer: D) -> Result<Number, D::Error> {
    state::update(|state| state.taken = true);
    match buffer.deserialize_any(Natural)? {
        Value::N(number) => Ok(number),
        other => Err(D::Error::custom(format_args!(
            "invalid type: {}, expected a number",
            super::described(&other)
        ))),
    }
}

/// As a visitor, and as the seed of what is within lists and maps.
#[derive(Clone, Copy)]
struct Natural;

impl<'de> DeserializeSeed<'de> for Natural {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Natural {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    /// An attribute.
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    /// A buffer.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, buffer: D) -> Result<Value, D::Error> {
        state::update(|state| state.taken = true);
        buffer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::S(text))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::from(bytes))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(Value::B(bytes))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::L(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut attributes = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name.starts_with(MARK) {
                return match Kind::of_name(&name) {
                    Some(kind) => {
                        kind.collect(map.next_value_seed(self)?).map_err(|e| A::Error::custom(e.into_error()))
                    }
                    None if name == number::SERDE_NAME => {
                        let text: String = map.next_value()?;
                        text.parse().map(Value::N).map_err(A::Error::custom)
                    }
                    None => Err(A::Error::custom(format_args!(
                        "attribute names that start with {MARK} are reserved"
                    ))),
                };
            }
            attributes.push((name, map.next_value_seed(self)?));
        }
        let map = Item::from_distinct(attributes).map_err(|e| A::Error::custom(e.into_error()))?;
        Ok(Value::M(map))
    }
}
