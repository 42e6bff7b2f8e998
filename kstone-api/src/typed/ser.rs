//! Writing: what serde describes becomes a [`Value`].

use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::described;
use super::key::KeyWriter;
use super::level::Level;
use super::set::Kind;
use crate::item::Item;
use crate::item_error::ItemError;
use crate::value::{Value, from_base64};
use crate::{number, value};

type Result<T, E = ItemError> = std::result::Result<T, E>;

#[derive(Clone, Copy)]
pub(super) struct Writer {
    level: Level,
    /// Whether types should prefer text. Only binary within a [`Value`] should not.
    readable: bool,
}

impl Writer {
    /// Of an item, whose attributes are the root.
    pub(super) const ITEM: Self = Self { level: Level::ITEM, readable: true };
    /// Of the value of an attribute.
    pub(super) const VALUE: Self = Self { level: Level::VALUE, ..Self::ITEM };

    /// The writer of what is within a list or map.
    fn nest(self) -> Result<Self> {
        Ok(Self { level: self.level.nest()?, ..self })
    }

    fn wrap(self) -> Result<Self> {
        Ok(Self { level: self.level.wrap()?, ..self })
    }

    fn list(self, len: Option<usize>) -> Result<List> {
        let values = Vec::with_capacity(len.unwrap_or(0).min(1 << 10));
        Ok(List { values, within: self.nest()?, variant: None })
    }

    fn map(self, len: Option<usize>) -> Result<Map> {
        let attributes = Vec::with_capacity(len.unwrap_or(0).min(1 << 10));
        Ok(Map { attributes, key: None, within: self.nest()?, variant: None })
    }

    /// A value, written as the variant of an enum that it is.
    fn tagged<T: Serialize + ?Sized>(self, tag: &str, content: &T) -> Result<Value> {
        let binary = Self { readable: false, ..self };
        match tag {
            "NULL" => Ok(Value::Null),
            "B" => match content.serialize(binary)? {
                // From a buffer of serde's.
                Value::S(text) => from_base64(&text).map(Value::B).map_err(ItemError::custom),
                bytes => Ok(bytes),
            },
            "SS" => Kind::Ss.collect(content.serialize(binary)?),
            "NS" => Kind::Ns.collect(content.serialize(binary)?),
            "BS" => Kind::Bs.collect(content.serialize(binary)?),
            _ => content.serialize(self),
        }
    }
}

fn variant_of(name: &str, content: Value) -> Value {
    Value::M(Item::from_iter([(name, content)]))
}

macro_rules! integers {
    ($($method:ident $int:ty)*) => {$(
        fn $method(self, value: $int) -> Result<Value> {
            Ok(Value::from(value))
        }
    )*};
}

impl Serializer for Writer {
    type Ok = Value;
    type Error = ItemError;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = List;
    type SerializeMap = Map;
    type SerializeStruct = Map;
    type SerializeStructVariant = Map;

    integers! {
        serialize_i8 i8  serialize_i16 i16  serialize_i32 i32  serialize_i64 i64
        serialize_u8 u8  serialize_u16 u16  serialize_u32 u32  serialize_u64 u64
    }

    fn serialize_i128(self, value: i128) -> Result<Value> {
        Ok(Value::N(value.to_string().parse()?))
    }

    fn serialize_u128(self, value: u128) -> Result<Value> {
        Ok(Value::N(value.to_string().parse()?))
    }

    fn serialize_f32(self, value: f32) -> Result<Value> {
        checked(number::Number::from(value))
    }

    fn serialize_f64(self, value: f64) -> Result<Value> {
        checked(number::Number::from(value))
    }

    fn serialize_bool(self, value: bool) -> Result<Value> {
        Ok(Value::Bool(value))
    }

    fn serialize_char(self, value: char) -> Result<Value> {
        Ok(Value::S(value.to_string()))
    }

    fn serialize_str(self, text: &str) -> Result<Value> {
        Ok(Value::S(text.to_owned()))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Value> {
        Ok(Value::B(bytes.to_vec()))
    }

    fn serialize_none(self) -> Result<Value> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value> {
        value.serialize(self.wrap()?)
    }

    fn serialize_unit(self) -> Result<Value> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Value> {
        Ok(Value::S(variant.to_owned()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<Value> {
        if name == number::SERDE_NAME {
            return match value.serialize(self.wrap()?)? {
                Value::S(text) => parse_number(&text),
                other => Ok(other),
            };
        }
        match Kind::of_name(name) {
            Some(kind) => kind.collect(value.serialize(self.wrap()?)?),
            None => value.serialize(self.wrap()?),
        }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value> {
        if name == value::SERDE_NAME {
            return self.tagged(variant, value);
        }
        let content = value.serialize(self.nest()?).map_err(|e| e.within(variant))?;
        Ok(variant_of(variant, content))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<List> {
        self.list(len)
    }

    fn serialize_tuple(self, len: usize) -> Result<List> {
        self.list(Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<List> {
        self.list(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<List> {
        Ok(List { variant: Some(variant), ..self.nest()?.list(Some(len))? })
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Map> {
        self.map(len)
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Map> {
        self.map(Some(len))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Map> {
        Ok(Map { variant: Some(variant), ..self.nest()?.map(Some(len))? })
    }

    fn is_human_readable(&self) -> bool {
        self.readable
    }
}

fn checked(number: number::Number) -> Result<Value> {
    number.check()?;
    Ok(Value::N(number))
}

/// The text of a [`Number`](number::Number), which may be one that cannot be stored.
fn parse_number(text: &str) -> Result<Value> {
    match text.parse() {
        Ok(number) => Ok(Value::N(number)),
        Err(e) => checked(text.parse::<f64>().map_err(|_| e)?.into()),
    }
}

/// A list whose members are written one after the other.
pub(super) struct List {
    values: Vec<Value>,
    within: Writer,
    variant: Option<&'static str>,
}

impl List {
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let value = value.serialize(self.within).map_err(|e| {
            let e = e.at(self.values.len());
            self.variant.into_iter().fold(e, ItemError::within)
        })?;
        self.values.push(value);
        Ok(())
    }

    fn finish(self) -> Result<Value> {
        let list = Value::L(self.values);
        Ok(self.variant.into_iter().fold(list, |list, variant| variant_of(variant, list)))
    }
}

macro_rules! list {
    ($($trait:ident $method:ident)*) => {$(
        impl $trait for List {
            type Ok = Value;
            type Error = ItemError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
                self.add(value)
            }

            fn end(self) -> Result<Value> {
                self.finish()
            }
        }
    )*};
}

list! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

/// A map whose attributes are written one after the other.
pub(super) struct Map {
    attributes: Vec<(String, Value)>,
    key: Option<String>,
    within: Writer,
    variant: Option<&'static str>,
}

impl Map {
    fn add<T: Serialize + ?Sized>(&mut self, name: String, value: &T) -> Result<()> {
        match value.serialize(self.within) {
            Ok(value) => {
                self.attributes.push((name, value));
                Ok(())
            }
            Err(e) => Err(self.variant.into_iter().fold(e.within(&name), ItemError::within)),
        }
    }

    fn finish(self) -> Result<Value> {
        // Two fields may have one name, by `flatten`.
        let map = Value::M(Item::from_distinct(self.attributes)?);
        Ok(self.variant.into_iter().fold(map, |map, variant| variant_of(variant, map)))
    }
}

impl SerializeMap for Map {
    type Ok = Value;
    type Error = ItemError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.key = Some(key.serialize(KeyWriter)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        match self.key.take() {
            Some(key) => self.add(key, value),
            None => Err(ItemError::custom("a map has a value without a key")),
        }
    }

    fn end(self) -> Result<Value> {
        self.finish()
    }
}

macro_rules! fields {
    ($($trait:ident)*) => {$(
        impl $trait for Map {
            type Ok = Value;
            type Error = ItemError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<()> {
                self.add(name.to_owned(), value)
            }

            fn end(self) -> Result<Value> {
                self.finish()
            }
        }
    )*};
}

fields!(SerializeStruct SerializeStructVariant);

/// The item that a value is.
pub(super) fn item(value: Value) -> Result<Item> {
    match value {
        Value::M(item) => Ok(item),
        other => Err(ItemError::new(format!(
            "an item is written from a struct or a map, this is {}",
            described(&other)
        ))),
    }
}
