//! Items as JSON, in two forms.
//!
//! *Plain* JSON is what people write: `{"name":"Ann","age":42}`. Strings, numbers, booleans, null, lists and maps keep
//! their type. The rest is lossy: sets become arrays, and are read back as lists; binary becomes base64 text, and is
//! read back as a string.
//!
//! *DynamoDB JSON* names every type, `{"name":{"S":"Ann"},"age":{"N":"42"}}`, and is lossless. It is also the serde
//! form of an [`Item`], so `serde_json::from_str::<Item>(text)` reads it.
//!
//! Numbers: [`Item::from_json_str`] and an item's `Display` keep the exact text of a number, all 38 digits. A
//! `serde_json::Value` holds 64-bit integers and floats: [`Item::to_json`] gives the nearest, which prints as the same
//! text if that is the shortest for its float, such as `38.704022`.
//!
//! Reading never drops data silently: a repeated attribute name, a repeated member of a set, an unknown type, or a
//! number of more than 38 digits is refused, naming the attribute. This does not hold for a `serde_json::Value`, as
//! serde_json itself keeps the last of two equal names, and no number beyond the range of floats.

use std::fmt;

use kstone_core::{Error, Result};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use crate::codec::check_nesting;
use crate::item::Item;
use crate::item_error::ItemError;
use crate::number::Number;
use crate::value::{Value, to_base64};

impl Item {
    /// Converts plain JSON, which must be an object. For numbers of more than 17 digits, use [`Item::from_json_str`].
    ///
    /// ```
    /// use kstone_api::Item;
    ///
    /// let item = Item::from_json(&serde_json::json!({"name": "Ann", "height": 1.72}))?;
    /// assert_eq!(item.to_string(), r#"{"height":1.72,"name":"Ann"}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn from_json(json: &Json) -> Result<Self> {
        from_object(object(json)?, 0).map_err(ItemError::into_error)
    }

    /// Parses the text of plain JSON; every number keeps its text.
    ///
    /// ```
    /// use kstone_api::Item;
    ///
    /// let text = r#"{"pi":3.14159265358979323846264338327950288}"#;
    /// assert_eq!(Item::from_json_str(text)?.to_string(), text);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn from_json_str(text: &str) -> Result<Self> {
        from_raw_object(text, 0).map_err(ItemError::into_error)
    }

    /// Converts the item to plain JSON. Sets, binary and long numbers are converted as described in
    /// [`json`](crate::json); a number that cannot be stored becomes null.
    ///
    /// ```
    /// let item = kstone_api::Item::builder().string("name", "Ann").build();
    /// assert_eq!(item.to_json(), serde_json::json!({"name": "Ann"}));
    /// ```
    pub fn to_json(&self) -> Json {
        Json::Object(self.iter().map(|(name, value)| (name.to_owned(), to_json(value))).collect())
    }

    /// Converts DynamoDB JSON: an object of names and typed values.
    ///
    /// ```
    /// use kstone_api::Item;
    ///
    /// let json = serde_json::json!({"name": {"S": "Ann"}, "roles": {"SS": ["admin", "author"]}});
    /// let item = Item::from_dynamodb_json(&json)?;
    /// assert_eq!(item.to_dynamodb_json(), json);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn from_dynamodb_json(json: &Json) -> Result<Self> {
        let attributes = object(json)?.iter().map(|(name, json)| match Value::deserialize(json) {
            Ok(value) => Ok((name.clone(), value)),
            Err(e) => Err(ItemError::new(e.to_string()).within(name).into_error()),
        });
        attributes.collect()
    }

    /// Converts the item to DynamoDB JSON, which names every type and is lossless.
    ///
    /// ```
    /// let item = kstone_api::Item::builder().number("age", 42).build();
    /// assert_eq!(item.to_dynamodb_json(), serde_json::json!({"age": {"N": "42"}}));
    /// ```
    pub fn to_dynamodb_json(&self) -> Json {
        // Cannot fail: names are strings, and there are no floats.
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Value {
    /// Parses the text of plain JSON, which may be any value; every number keeps its text. See [`json`](crate::json).
    ///
    /// ```
    /// use kstone_api::Value;
    ///
    /// assert_eq!(Value::from_json_str("[1.10, \"two\"]")?.to_string(), r#"[1.10,"two"]"#);
    /// assert_eq!(Value::from_json_str("two").unwrap_err().code(), "invalid_item");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidItem` if it is not JSON, or no attribute can have it as its value; `InvalidNumber`.
    pub fn from_json_str(text: &str) -> Result<Self> {
        let raw = serde_json::from_str::<&RawValue>(text);
        let raw = raw.map_err(|e| Error::InvalidItem { why: format!("not JSON: {e}") })?;
        from_raw(raw, 0).map_err(ItemError::into_error)
    }
}

fn object(json: &Json) -> Result<&Map<String, Json>> {
    json.as_object().ok_or_else(|| Error::InvalidItem { why: "an item is a JSON object".into() })
}

fn from_object(object: &Map<String, Json>, depth: usize) -> Result<Item, ItemError> {
    let attributes = object.iter().map(|(name, json)| match from_json(json, depth) {
        Ok(value) => Ok((name.clone(), value)),
        Err(error) => Err(error.within(name)),
    });
    attributes.collect()
}

fn from_json(json: &Json, depth: usize) -> Result<Value, ItemError> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => Value::N(number.to_string().parse()?),
        Json::String(text) => Value::S(text.clone()),
        Json::Array(values) => {
            check_nesting(depth)?;
            let values = values.iter().enumerate();
            let values = values
                .map(|(i, json)| from_json(json, depth + 1).map_err(|error| error.within(&i.to_string())));
            Value::L(values.collect::<Result<_, _>>()?)
        }
        Json::Object(object) => {
            check_nesting(depth)?;
            Value::M(from_object(object, depth + 1)?)
        }
    })
}

/// An object whose values are still text: the only way to see the text of a number without `arbitrary_precision`, which
/// would change serde_json for the whole program.
struct RawObject<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Members).map(Self)
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ItemError> {
    serde_json::from_str(text).map_err(|e| ItemError::new(format!("not a JSON object: {e}")))
}

fn from_raw_object(text: &str, depth: usize) -> Result<Item, ItemError> {
    let RawObject(members) = parse(text)?;
    let attributes = members.into_iter().map(|(name, raw)| match from_raw(raw, depth) {
        Ok(value) => Ok((name, value)),
        Err(error) => Err(error.within(&name)),
    });
    Item::from_distinct(attributes.collect::<Result<_, _>>()?)
}

fn from_raw(raw: &RawValue, depth: usize) -> Result<Value, ItemError> {
    // The syntax was checked, so the first byte determines the type.
    let text = raw.get();
    Ok(match text.as_bytes().first() {
        Some(b'"') => Value::S(parse(text)?),
        Some(b'{') => {
            check_nesting(depth)?;
            Value::M(from_raw_object(text, depth + 1)?)
        }
        Some(b'[') => {
            check_nesting(depth)?;
            let values = parse::<Vec<&RawValue>>(text)?.into_iter().enumerate();
            let values =
                values.map(|(i, raw)| from_raw(raw, depth + 1).map_err(|error| error.within(&i.to_string())));
            Value::L(values.collect::<Result<_, _>>()?)
        }
        Some(b't' | b'f') => Value::Bool(parse(text)?),
        Some(b'n') => Value::Null,
        _ => Value::N(text.parse()?),
    })
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::S(text) => Json::from(text.as_str()),
        Value::N(number) => number_to_json(number),
        Value::B(bytes) => Json::from(to_base64(bytes)),
        Value::Bool(value) => Json::from(*value),
        Value::Null => Json::Null,
        Value::L(list) => list.iter().map(to_json).collect(),
        Value::M(map) => map.to_json(),
        Value::Ss(set) => set.iter().map(String::as_str).collect(),
        Value::Ns(set) => set.iter().map(number_to_json).collect(),
        Value::Bs(set) => set.iter().map(|bytes| to_base64(bytes)).collect(),
    }
}

fn number_to_json(number: &Number) -> Json {
    let text = number.as_str();
    if let Ok(value) = text.parse::<i64>() {
        return Json::from(value);
    }
    if let Ok(value) = text.parse::<u64>() {
        return Json::from(value);
    }
    // Null for NaN and infinities.
    text.parse::<f64>().map_or(Json::Null, Json::from)
}

fn write_string(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

fn write_number(number: &Number, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(if number.is_valid() { number.as_str() } else { "null" })
}

fn write_array<T>(
    values: impl IntoIterator<Item = T>,
    f: &mut fmt::Formatter<'_>,
    mut write: impl FnMut(T, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    f.write_str("[")?;
    for (i, value) in values.into_iter().enumerate() {
        f.write_str(if i == 0 { "" } else { "," })?;
        write(value, f)?;
    }
    f.write_str("]")
}

/// Writes an item as plain JSON text.
pub(crate) fn write_item(item: &Item, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("{")?;
    for (i, (name, value)) in item.iter().enumerate() {
        f.write_str(if i == 0 { "" } else { "," })?;
        write_string(name, f)?;
        f.write_str(":")?;
        write_value(value, f)?;
    }
    f.write_str("}")
}

pub(crate) fn write_value(value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::S(text) => write_string(text, f),
        Value::N(number) => write_number(number, f),
        Value::B(bytes) => write_string(&to_base64(bytes), f),
        Value::Bool(value) => write!(f, "{value}"),
        Value::Null => f.write_str("null"),
        Value::L(list) => write_array(list, f, write_value),
        Value::M(map) => write_item(map, f),
        Value::Ss(set) => write_array(set, f, |text, f| write_string(text, f)),
        Value::Ns(set) => write_array(set, f, write_number),
        Value::Bs(set) => write_array(set, f, |bytes, f| write_string(&to_base64(bytes), f)),
    }
}
