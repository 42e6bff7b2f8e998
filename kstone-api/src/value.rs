//! [`Value`]: the types an attribute can have, and their serde form.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::expression::Type;
use crate::item::Item;
use crate::number::Number;
use crate::steps::{Step, steps};

/// The value of an attribute. The types and their names are those of DynamoDB.
///
/// Strings, integers, floats, booleans, byte vectors, lists, sets, items and options of these convert into values with
/// `into`. Through serde a value has the form of DynamoDB JSON, `{"S":"Ann"}`; binary is base64 text in human-readable
/// formats and bytes in others.
///
/// ```
/// use kstone_api::Value;
///
/// assert_eq!(Value::from(42).as_i64(), Some(42));
/// assert_eq!(Value::from("Ann").as_i64(), None); // another type
/// assert_eq!(Value::from(Some(42)), Value::from(42));
/// assert_eq!(Value::from(None::<i64>), Value::Null);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string.
    S(String),
    /// A number.
    N(Number),
    /// Binary.
    B(Vec<u8>),
    /// True or false.
    Bool(bool),
    /// An attribute that exists but has no value.
    Null,
    /// A list of values of any types.
    L(Vec<Value>),
    /// A map of names to values of any types.
    M(Item),
    /// A set of strings. Empty sets cannot be stored.
    Ss(BTreeSet<String>),
    /// A set of numbers; equal numbers are one member, whatever their text.
    Ns(BTreeSet<Number>),
    /// A set of binaries.
    Bs(BTreeSet<Vec<u8>>),
}

impl Value {
    /// The string, if this is one.
    ///
    /// ```
    /// assert_eq!(kstone_api::Value::from("Ann").as_str(), Some("Ann"));
    /// ```
    pub fn as_str(&self) -> Option<&str> {
        if let Self::S(text) = self { Some(text) } else { None }
    }

    /// The number, if this is one, with its exact text.
    ///
    /// ```
    /// # use kstone_api::{Number, Value};
    /// let price = Value::N("9.90".parse::<Number>()?);
    /// assert_eq!(price.as_number().map(Number::as_str), Some("9.90"));
    /// # Ok::<(), kstone_api::NumberError>(())
    /// ```
    pub fn as_number(&self) -> Option<&Number> {
        if let Self::N(number) = self { Some(number) } else { None }
    }

    /// The number as an integer; `None` for other types, fractions, and integers that do not fit. What counts is the
    /// value, not its text: `1.0` and `1e3` are integers.
    ///
    /// ```
    /// # use kstone_api::Value;
    /// assert_eq!(Value::from(42).as_i64(), Some(42));
    /// assert_eq!(Value::from(1.5).as_i64(), None);
    /// ```
    pub fn as_i64(&self) -> Option<i64> {
        i64::try_from(self.as_number()?).ok()
    }

    /// The number as an unsigned integer; `None` for other types, fractions, negative numbers, and integers that do not
    /// fit. What counts is the value, not its text: `1.0` and `1e3` are integers.
    ///
    /// ```
    /// # use kstone_api::Value;
    /// assert_eq!(Value::from(u64::MAX).as_u64(), Some(u64::MAX));
    /// assert_eq!(Value::from(-1).as_u64(), None);
    /// ```
    pub fn as_u64(&self) -> Option<u64> {
        u64::try_from(self.as_number()?).ok()
    }

    /// The float nearest to the number, if this is a number.
    ///
    /// ```
    /// assert_eq!(kstone_api::Value::from(1.5).as_f64(), Some(1.5));
    /// ```
    pub fn as_f64(&self) -> Option<f64> {
        f64::try_from(self.as_number()?).ok()
    }

    /// The bytes of a binary, if this is one. A string is not.
    ///
    /// ```
    /// # use kstone_api::Value;
    /// assert_eq!(Value::from(vec![1, 2]).as_bytes(), Some(&[1, 2][..]));
    /// assert_eq!(Value::from("text").as_bytes(), None);
    /// ```
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::B(bytes) = self { Some(bytes) } else { None }
    }

    /// True or false, if this is a boolean.
    ///
    /// ```
    /// assert_eq!(kstone_api::Value::from(true).as_bool(), Some(true));
    /// ```
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    /// Whether this is [`Value::Null`].
    ///
    /// ```
    /// let item = kstone_api::Item::builder().null("deleted_at").build();
    /// assert!(item.get("deleted_at").is_some_and(|value| value.is_null()));
    /// ```
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The values of a list, if this is one. A set is not.
    ///
    /// ```
    /// # use kstone_api::Value;
    /// let list = Value::from(vec![Value::from(1), Value::from("two")]);
    /// assert_eq!(list.as_list().map(<[Value]>::len), Some(2));
    /// ```
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Self::L(list) = self { Some(list) } else { None }
    }

    /// Whether the value contains other values: a list, map or set.
    pub(crate) fn is_nest(&self) -> bool {
        matches!(self, Self::L(_) | Self::M(_) | Self::Ss(_) | Self::Ns(_) | Self::Bs(_))
    }

    /// The map, if this is one: an item within the item.
    ///
    /// ```
    /// # use kstone_api::{Item, Value};
    /// let address = Value::from(Item::builder().string("city", "Ghent").build());
    /// assert!(address.as_map().is_some_and(|map| map.contains("city")));
    /// ```
    pub fn as_map(&self) -> Option<&Item> {
        if let Self::M(map) = self { Some(map) } else { None }
    }

    /// The members of a set of strings, if this is one.
    ///
    /// ```
    /// let item = kstone_api::Item::builder().string_set("roles", ["admin", "author"]).build();
    /// assert!(item["roles"].as_string_set().is_some_and(|roles| roles.contains("admin")));
    /// ```
    pub fn as_string_set(&self) -> Option<&BTreeSet<String>> {
        if let Self::Ss(set) = self { Some(set) } else { None }
    }

    /// The members of a set of numbers, if this is one.
    ///
    /// ```
    /// let item = kstone_api::Item::builder().number_set("primes", [2, 3, 5]).build();
    /// assert!(item["primes"].as_number_set().is_some_and(|primes| primes.contains(&3.into())));
    /// ```
    pub fn as_number_set(&self) -> Option<&BTreeSet<Number>> {
        if let Self::Ns(set) = self { Some(set) } else { None }
    }

    /// The members of a set of binaries, if this is one.
    ///
    /// ```
    /// let item = kstone_api::Item::builder().binary_set("digests", [[1, 2], [3, 4]]).build();
    /// assert_eq!(item["digests"].as_binary_set().map(|digests| digests.len()), Some(2));
    /// ```
    pub fn as_binary_set(&self) -> Option<&BTreeSet<Vec<u8>>> {
        if let Self::Bs(set) = self { Some(set) } else { None }
    }

    /// The name of the type, as DynamoDB has it: `S`, `N`, `B`, `BOOL`, `NULL`, `L`, `M`, `SS`, `NS` or `BS`.
    ///
    /// ```
    /// assert_eq!(kstone_api::Value::from("Ann").type_name(), "S");
    /// ```
    pub fn type_name(&self) -> &'static str {
        Type::of(self).name()
    }

    /// The value at a path within this map or list; see [`Item::at`]. In a list the path begins with an index.
    ///
    /// ```
    /// # use kstone_api::Value;
    /// let list = Value::from(vec![Value::from(1), Value::from("two")]);
    /// assert_eq!(list.at("[1]").and_then(Value::as_str), Some("two"));
    /// assert_eq!(list.at("[2]"), None);
    /// ```
    pub fn at(&self, path: &str) -> Option<&Value> {
        steps(path).try_fold(self, |value, step| value.child(step?))
    }

    /// A mutable reference to the value at a path within this map or list; see [`Item::at`].
    ///
    /// ```
    /// # use kstone_api::Value;
    /// let mut list = Value::from(vec![Value::from(1), Value::from("two")]);
    /// *list.at_mut("[0]").expect("there are two") = Value::from(7);
    /// assert_eq!(list.to_string(), r#"[7,"two"]"#);
    /// ```
    pub fn at_mut(&mut self, path: &str) -> Option<&mut Value> {
        steps(path).try_fold(self, |value, step| value.child_mut(step?))
    }

    /// The value one step down.
    pub(crate) fn child(&self, step: Step<'_>) -> Option<&Value> {
        match (self, step) {
            (Self::M(map), Step::Name(name)) => map.get(name),
            (Self::L(list), Step::Index(index)) => list.get(index),
            _ => None,
        }
    }

    pub(crate) fn child_mut(&mut self, step: Step<'_>) -> Option<&mut Value> {
        match (self, step) {
            (Self::M(map), Step::Name(name)) => map.get_mut(name),
            (Self::L(list), Step::Index(index)) => list.get_mut(index),
            _ => None,
        }
    }
}

macro_rules! from {
    ($($source:ty => $variant:expr),* $(,)?) => {$(
        impl From<$source> for Value {
            fn from(source: $source) -> Self {
                let convert: fn($source) -> Value = $variant;
                convert(source)
            }
        }
    )*};
}

from! {
    String => Value::S,
    &str => |text| Value::S(text.to_owned()),
    &String => |text| Value::S(text.clone()),
    Number => Value::N,
    Vec<u8> => Value::B,
    &[u8] => |bytes| Value::B(bytes.to_vec()),
    bool => Value::Bool,
    Vec<Value> => Value::L,
    Item => Value::M,
    BTreeSet<String> => Value::Ss,
    BTreeSet<Number> => Value::Ns,
    BTreeSet<Vec<u8>> => Value::Bs,
}

macro_rules! from_number {
    ($($number:ty)*) => {$(
        impl From<$number> for Value {
            fn from(number: $number) -> Self {
                Self::N(Number::from(number))
            }
        }
    )*};
}

from_number!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize f32 f64);

/// `None` becomes [`Value::Null`], an attribute that exists but has no value.
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// As JSON; see [`Item`]'s Display.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::json::write_value(self, f)
    }
}

/// Binary as text.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// The bytes of [`to_base64`].
pub(crate) fn from_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    BASE64.decode(text)
}

/// Binary in serde: base64 text in human-readable formats, otherwise bytes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Bytes<T>(T);

impl<T: AsRef<[u8]>> Serialize for Bytes<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.serialize_str(&to_base64(self.0.as_ref())),
            false => serializer.serialize_bytes(self.0.as_ref()),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes<Vec<u8>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Binary;

        impl Visitor<'_> for Binary {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("binary")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }

        if !deserializer.is_human_readable() {
            return deserializer.deserialize_byte_buf(Binary).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        from_base64(&text).map(Self).map_err(|e| D::Error::custom(format_args!("not base64: {e}")))
    }
}

/// The name by which typed items recognize a value among the types of serde.
pub(crate) const SERDE_NAME: &str = "$kstone_api::Value";

/// In the form of DynamoDB JSON. In typed items, the value itself.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        macro_rules! variant {
            ($index:literal, $name:literal, $content:expr) => {
                serializer.serialize_newtype_variant(SERDE_NAME, $index, $name, $content)
            };
        }
        match self {
            Self::S(text) => variant!(0, "S", text),
            Self::N(number) => variant!(1, "N", number),
            Self::B(bytes) => variant!(2, "B", &Bytes(bytes)),
            Self::Bool(value) => variant!(3, "BOOL", value),
            Self::Null => variant!(4, "NULL", &true),
            Self::L(list) => variant!(5, "L", list),
            Self::M(map) => variant!(6, "M", map),
            Self::Ss(set) => variant!(7, "SS", set),
            Self::Ns(set) => variant!(8, "NS", set),
            Self::Bs(set) => variant!(9, "BS", &set.iter().map(Bytes).collect::<Vec<_>>()),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[cfg(feature = "typed")]
        if crate::typed::is_reading() {
            return crate::typed::value(deserializer);
        }

        #[derive(Deserialize)]
        #[serde(rename = "Value", rename_all = "UPPERCASE")]
        enum Tagged {
            S(String),
            N(Number),
            B(Bytes<Vec<u8>>),
            Bool(bool),
            Null(bool),
            L(Vec<Value>),
            M(Item),
            Ss(Vec<String>),
            Ns(Vec<Number>),
            Bs(Vec<Bytes<Vec<u8>>>),
        }

        Ok(match Tagged::deserialize(deserializer)? {
            Tagged::S(text) => Self::S(text),
            Tagged::N(number) => Self::N(number),
            Tagged::B(bytes) => Self::B(bytes.0),
            Tagged::Bool(value) => Self::Bool(value),
            Tagged::Null(true) => Self::Null,
            Tagged::Null(false) => return Err(D::Error::custom("NULL can only be true")),
            Tagged::L(list) => Self::L(list),
            Tagged::M(map) => Self::M(map),
            Tagged::Ss(members) => Self::Ss(distinct(members).map_err(D::Error::custom)?),
            Tagged::Ns(members) => Self::Ns(distinct(members).map_err(D::Error::custom)?),
            Tagged::Bs(members) => {
                Self::Bs(distinct(members.into_iter().map(|b| b.0).collect()).map_err(D::Error::custom)?)
            }
        })
    }
}

/// The members as a set; as in DynamoDB, duplicates are refused.
fn distinct<T: Ord>(members: Vec<T>) -> Result<BTreeSet<T>, &'static str> {
    let count = members.len();
    let set = BTreeSet::from_iter(members);
    if set.len() == count { Ok(set) } else { Err("a set has a duplicate member") }
}
