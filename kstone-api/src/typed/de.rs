//! Reading: a [`Value`] describes itself to serde.

use std::collections::{BTreeSet, btree_set};
use std::slice;

use serde::de::Error as _;
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::key::KeyReader;
use super::level::Level;
use super::set::Kind;
use super::{MARK, state};
use crate::item::{Item, Iter};
use crate::item_error::ItemError;
use crate::number::{self, Number};
use crate::value::{self, Value};

type Result<T, E = ItemError> = std::result::Result<T, E>;

/// What is read: a value, an item, or a member of a set.
#[derive(Clone, Copy)]
pub(super) enum Node<'de> {
    S(&'de str),
    N(&'de Number),
    B(&'de [u8]),
    Bool(bool),
    Null,
    L(&'de [Value]),
    M(&'de Item),
    Ss(&'de BTreeSet<String>),
    Ns(&'de BTreeSet<Number>),
    Bs(&'de BTreeSet<Vec<u8>>),
    /// A member of a binary set, which may also be read as a sequence of bytes.
    Member(&'de [u8]),
}

impl<'de> From<&'de Value> for Node<'de> {
    fn from(value: &'de Value) -> Self {
        match value {
            Value::S(text) => Self::S(text),
            Value::N(number) => Self::N(number),
            Value::B(bytes) => Self::B(bytes),
            Value::Bool(value) => Self::Bool(*value),
            Value::Null => Self::Null,
            Value::L(list) => Self::L(list),
            Value::M(map) => Self::M(map),
            Value::Ss(set) => Self::Ss(set),
            Value::Ns(set) => Self::Ns(set),
            Value::Bs(set) => Self::Bs(set),
        }
    }
}

impl<'de> Node<'de> {
    /// The members of a list or set.
    fn members(self) -> Option<Members<'de>> {
        match self {
            Self::L(list) => Some(Members::L(list.iter())),
            Self::Ss(set) => Some(Members::Ss(set.iter())),
            Self::Ns(set) => Some(Members::Ns(set.iter())),
            Self::Bs(set) => Some(Members::Bs(set.iter())),
            Self::Member(bytes) => Some(Members::Bytes(bytes.iter())),
            _ => None,
        }
    }

    fn set(self) -> Option<Kind> {
        match self {
            Self::Ss(_) => Some(Kind::Ss),
            Self::Ns(_) => Some(Kind::Ns),
            Self::Bs(_) => Some(Kind::Bs),
            _ => None,
        }
    }

    /// For the message of an error.
    fn unexpected(self) -> Unexpected<'de> {
        match self {
            Self::S(text) => Unexpected::Str(text),
            Self::N(number) => Unexpected::Other(number.as_str()),
            Self::B(bytes) | Self::Member(bytes) => Unexpected::Bytes(bytes),
            Self::Bool(value) => Unexpected::Bool(value),
            Self::Null => Unexpected::Unit,
            Self::L(_) | Self::Ss(_) | Self::Ns(_) | Self::Bs(_) => Unexpected::Seq,
            Self::M(_) => Unexpected::Map,
        }
    }
}

enum Members<'de> {
    L(slice::Iter<'de, Value>),
    Ss(btree_set::Iter<'de, String>),
    Ns(btree_set::Iter<'de, Number>),
    Bs(btree_set::Iter<'de, Vec<u8>>),
    Bytes(slice::Iter<'de, u8>),
}

impl Members<'_> {
    fn len(&self) -> usize {
        match self {
            Self::L(list) => list.len(),
            Self::Ss(set) => set.len(),
            Self::Ns(set) => set.len(),
            Self::Bs(set) => set.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Reader<'de> {
    node: Node<'de>,
    level: Level,
    /// Whether a [`Value`] reads this, so that all sets and numbers are marked.
    exact: bool,
}

impl<'de> Reader<'de> {
    pub(super) fn of_item(item: &'de Item) -> Self {
        Self { node: Node::M(item), level: Level::ITEM, exact: false }
    }

    pub(super) fn of_value(value: &'de Value) -> Self {
        Self { node: value.into(), level: Level::VALUE, exact: false }
    }

    /// The reader of what is within a list or map, but for its node.
    fn nest(self) -> Result<Self> {
        Ok(Self { level: self.level.nest()?, ..self })
    }

    fn to(self, node: impl Into<Node<'de>>) -> Self {
        Self { node: node.into(), ..self }
    }

    fn wrap(self) -> Result<Self> {
        Ok(Self { level: self.level.wrap()?, ..self })
    }

    fn list<V: Visitor<'de>>(self, members: Members<'de>, visitor: V) -> Result<V::Value> {
        let len = members.len();
        let mut list = List { members, at: 0, within: self.nest()? };
        let value = visitor.visit_seq(&mut list)?;
        match list.members.len() {
            0 => Ok(value),
            left => Err(ItemError::new(format!("it has {len} members, {} are expected", len - left))),
        }
    }

    fn map<V: Visitor<'de>>(self, item: &'de Item, visitor: V) -> Result<V::Value> {
        let mut map = Map { attributes: item.iter(), current: None, within: self.nest()? };
        let value = visitor.visit_map(&mut map)?;
        match map.attributes.len() {
            0 => Ok(value),
            left => Err(ItemError::new(format!("{left} of its attributes are not expected"))),
        }
    }

    /// A number for a type that did not say which kind it expects.
    fn number<V: Visitor<'de>>(self, number: &'de Number, visitor: V) -> Result<V::Value> {
        if self.exact {
            return visitor.visit_map(Marked::Number(Some(number)));
        }
        let float = f64::try_from(number)?;
        // -0.0 is an integer by value, but has a sign to keep.
        if float != 0.0 || !number.as_str().starts_with('-') {
            if let Ok(integer) = u64::try_from(number) {
                return visitor.visit_u64(integer);
            }
            if let Ok(integer) = i64::try_from(number) {
                return visitor.visit_i64(integer);
            }
        }
        if Number::from(float) != *number {
            if state::get().marked {
                return visitor.visit_map(Marked::Number(Some(number)));
            }
            state::update(|state| state.lossy = true);
        }
        visitor.visit_f64(float)
    }

    fn type_error<T>(self, expected: &str) -> Result<T> {
        Err(ItemError::invalid_type(self.node.unexpected(), &expected))
    }
}

/// The integer types.
pub(super) trait Integer: Sized {
    const NAME: &'static str;
    fn new(negative: bool, magnitude: u128) -> Option<Self>;
}

macro_rules! integer_types {
    ($($int:ident)*) => {$(
        impl Integer for $int {
            const NAME: &'static str = stringify!($int);

            fn new(negative: bool, magnitude: u128) -> Option<Self> {
                match negative {
                    true if magnitude > 0 => {
                        let value = 0i128.checked_sub_unsigned(magnitude)?;
                        Self::try_from(value).ok()
                    }
                    _ => Self::try_from(magnitude).ok(),
                }
            }
        }
    )*};
}

integer_types!(i8 i16 i32 i64 i128 u8 u16 u32 u64 u128);

/// The integer that a number is, however it is written.
pub(super) fn integer<T: Integer>(number: &Number) -> Result<T> {
    let (negative, magnitude, digits) = number.significant()?;
    let misfit = || ItemError::of_number(format!("{} does not fit {}", number.as_str(), T::NAME));
    let (mut count, mut value) = (0, 0u128);
    for digit in digits {
        count += 1;
        // At most 38 digits.
        value = value * 10 + u128::from(digit - b'0');
    }
    if value == 0 {
        return T::new(false, 0).ok_or_else(misfit);
    }
    let Ok(zeros) = u32::try_from(magnitude + 1 - count) else {
        return Err(ItemError::of_number(format!(
            "{} is not an integer, {} is expected",
            number.as_str(),
            T::NAME
        )));
    };
    let value = 10u128.checked_pow(zeros).and_then(|power| value.checked_mul(power));
    value.and_then(|value| T::new(negative, value)).ok_or_else(misfit)
}

pub(super) fn f32(number: &Number) -> Result<f32> {
    // From the text, as rounding twice may round wrongly.
    match number.check()?.parse::<f32>() {
        Ok(float) if float.is_finite() => Ok(float),
        _ => Err(ItemError::of_number(format!("{} does not fit f32", number.as_str()))),
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            match self.node {
                Node::N(number) => visitor.$visit(integer(number)?),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = ItemError;

    integers! {
        deserialize_i8 visit_i8  deserialize_i16 visit_i16  deserialize_i32 visit_i32  deserialize_i64 visit_i64
        deserialize_u8 visit_u8  deserialize_u16 visit_u16  deserialize_u32 visit_u32  deserialize_u64 visit_u64
        deserialize_i128 visit_i128  deserialize_u128 visit_u128
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::S(text) => visitor.visit_borrowed_str(text),
            Node::N(number) => self.number(number, visitor),
            Node::B(bytes) | Node::Member(bytes) => visitor.visit_borrowed_bytes(bytes),
            Node::Bool(value) => visitor.visit_bool(value),
            Node::Null => visitor.visit_unit(),
            Node::M(item) if item.iter().next().is_some_and(|(name, _)| name.starts_with(MARK)) => {
                Err(ItemError::new(format!("attribute names that start with {MARK} are reserved")))
            }
            Node::M(item) => self.map(item, visitor),
            Node::L(list) => self.list(Members::L(list.iter()), visitor),
            Node::Ss(_) | Node::Ns(_) | Node::Bs(_) => {
                if self.exact || state::get().marked {
                    return visitor.visit_map(Marked::Set(Some(self)));
                }
                state::update(|state| state.lossy = true);
                self.deserialize_seq(visitor)
            }
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::N(number) => visitor.visit_f32(f32(number)?),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::N(number) => visitor.visit_f64(f64::try_from(number)?),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::Null => visitor.visit_none(),
            _ => visitor.visit_some(self.wrap()?),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        match (name, self.node) {
            (number::SERDE_NAME, Node::N(number)) => visitor.visit_borrowed_str(number.check()?),
            (number::SERDE_NAME, _) => self.type_error("a number"),
            // The visitor knows by `some` that this is no buffer.
            (value::SERDE_NAME, _) => visitor.visit_some(Self { exact: true, ..self.wrap()? }),
            _ => match Kind::of_name(name) {
                None => visitor.visit_newtype_struct(self.wrap()?),
                Some(kind) if self.node.set() == Some(kind) => visitor.visit_some(self.wrap()?),
                Some(kind) => match self.node {
                    // A list was a set's form in other programs.
                    Node::L(_) | Node::Null => visitor.visit_some(self.wrap()?),
                    _ => self.type_error(kind.described()),
                },
            },
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.node.members() {
            Some(members) => self.list(members, visitor),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.node {
            Node::M(item) => self.map(item, visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.node {
            Node::S(variant) => visitor.visit_enum(BorrowedStrDeserializer::new(variant)),
            Node::M(item) => match (item.iter().next(), item.len()) {
                (Some((name, value)), 1) => {
                    visitor.visit_enum(Variant { name, content: self.nest()?.to(value) })
                }
                (_, len) => Err(ItemError::new(format!(
                    "a variant with content is a map of one attribute, the variant's name; this one has {len}"
                ))),
            },
            _ => Err(ItemError::invalid_type(self.node.unexpected(), &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { bool char str string bytes byte_buf unit unit_struct identifier }
}

struct List<'de> {
    members: Members<'de>,
    at: usize,
    within: Reader<'de>,
}

impl<'de> List<'de> {
    fn read<T: DeserializeSeed<'de>>(&mut self, seed: T, reader: Reader<'de>) -> Result<Option<T::Value>> {
        let value = seed.deserialize(reader).map_err(|e| e.at(self.at))?;
        self.at += 1;
        Ok(Some(value))
    }
}

impl<'de> SeqAccess<'de> for &mut List<'de> {
    type Error = ItemError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        let node = match &mut self.members {
            Members::L(list) => list.next().map(Node::from),
            Members::Ss(set) => set.next().map(|text| Node::S(text)),
            Members::Ns(set) => set.next().map(Node::N),
            Members::Bs(set) => set.next().map(|bytes| Node::Member(bytes)),
            Members::Bytes(bytes) => {
                let Some(&byte) = bytes.next() else { return Ok(None) };
                return seed.deserialize(byte.into_deserializer()).map(Some);
            }
        };
        let Some(node) = node else { return Ok(None) };
        self.read(seed, Reader { node, ..self.within })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.members.len())
    }
}

struct Map<'de> {
    attributes: Iter<'de>,
    current: Option<(&'de str, &'de Value)>,
    within: Reader<'de>,
}

impl<'de> MapAccess<'de> for &mut Map<'de> {
    type Error = ItemError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        self.current = self.attributes.next();
        let Some((name, _)) = self.current else { return Ok(None) };
        seed.deserialize(KeyReader(name)).map(Some).map_err(|e| e.within(name))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        let Some((name, value)) = self.current.take() else {
            return Err(ItemError::new("a value is read before its name"));
        };
        seed.deserialize(self.within.to(value)).map_err(|e| e.within(name))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.attributes.len())
    }
}

/// A variant with content.
struct Variant<'de> {
    name: &'de str,
    content: Reader<'de>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = ItemError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self)> {
        Ok((seed.deserialize(KeyReader(self.name))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = ItemError;

    fn unit_variant(self) -> Result<()> {
        match self.content.node {
            Node::Null => Ok(()),
            _ => self.content.type_error("a variant without content").map_err(|e| e.within(self.name)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value> {
        seed.deserialize(self.content).map_err(|e| e.within(self.name))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.content.deserialize_seq(visitor).map_err(|e| e.within(self.name))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value> {
        self.content.deserialize_map(visitor).map_err(|e| e.within(self.name))
    }
}

/// A mark: a map of one name that no attribute has. See [`state`].
enum Marked<'de> {
    Number(Option<&'de Number>),
    Set(Option<Reader<'de>>),
}

impl<'de> MapAccess<'de> for Marked<'de> {
    type Error = ItemError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let name = match self {
            Self::Number(Some(_)) => number::SERDE_NAME,
            Self::Set(Some(set)) => set.node.set().map_or(MARK, Kind::name),
            _ => return Ok(None),
        };
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        match self {
            Self::Number(number) => match number.take() {
                Some(number) => seed.deserialize(BorrowedStrDeserializer::new(number.check()?)),
                None => Err(ItemError::new("a mark is read twice")),
            },
            Self::Set(set) => match set.take() {
                Some(set) => seed.deserialize(Sequence(set)),
                None => Err(ItemError::new("a mark is read twice")),
            },
        }
    }
}

/// A set as a sequence, without a mark.
struct Sequence<'de>(Reader<'de>);

impl<'de> Deserializer<'de> for Sequence<'de> {
    type Error = ItemError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.0.deserialize_seq(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
