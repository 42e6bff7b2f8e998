//! The keys of maps, which are attribute names: what serde describes as text, and back.

use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde::ser::{Impossible, Serialize, Serializer};

use super::de::{self, Integer};
use crate::item_error::ItemError;
use crate::number::{self, Number};

type Result<T, E = ItemError> = std::result::Result<T, E>;

/// Writes a key: text, a number, a boolean, a character, a variant without content, or a newtype of one.
pub(super) struct KeyWriter;

fn no_key<T>() -> Result<T> {
    Err(ItemError::new("a map's key is text, a number, a boolean or a variant of an enum"))
}

macro_rules! texts {
    ($($method:ident $type:ty)*) => {$(
        fn $method(self, value: $type) -> Result<String> {
            Ok(value.to_string())
        }
    )*};
}

impl Serializer for KeyWriter {
    type Ok = String;
    type Error = ItemError;
    type SerializeSeq = Impossible<String, ItemError>;
    type SerializeTuple = Impossible<String, ItemError>;
    type SerializeTupleStruct = Impossible<String, ItemError>;
    type SerializeTupleVariant = Impossible<String, ItemError>;
    type SerializeMap = Impossible<String, ItemError>;
    type SerializeStruct = Impossible<String, ItemError>;
    type SerializeStructVariant = Impossible<String, ItemError>;

    texts! {
        serialize_bool bool  serialize_char char  serialize_str &str
        serialize_i8 i8  serialize_i16 i16  serialize_i32 i32  serialize_i64 i64  serialize_i128 i128
        serialize_u8 u8  serialize_u16 u16  serialize_u32 u32  serialize_u64 u64  serialize_u128 u128
    }

    fn serialize_f32(self, value: f32) -> Result<String> {
        Ok(Number::from(value).check()?.to_owned())
    }

    fn serialize_f64(self, value: f64) -> Result<String> {
        Ok(Number::from(value).check()?.to_owned())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<String> {
        Ok(variant.to_owned())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<String> {
        value.serialize(self)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<String> {
        no_key()
    }

    fn serialize_none(self) -> Result<String> {
        no_key()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<String> {
        no_key()
    }

    fn serialize_unit(self) -> Result<String> {
        no_key()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<String> {
        no_key()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<String> {
        no_key()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq> {
        no_key()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple> {
        no_key()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct> {
        no_key()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant> {
        no_key()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap> {
        no_key()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct> {
        no_key()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant> {
        no_key()
    }
}

/// Reads a key.
#[derive(Clone, Copy)]
pub(super) struct KeyReader<'de>(pub(super) &'de str);

impl KeyReader<'_> {
    fn number(self) -> Result<Number> {
        self.0.parse().map_err(|e| ItemError::new(format!("a key is not a number: {e}")))
    }

    fn integer<T: Integer>(self) -> Result<T> {
        de::integer(&self.number()?)
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            visitor.$visit(self.integer()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for KeyReader<'de> {
    type Error = ItemError;

    integers! {
        deserialize_i8 visit_i8  deserialize_i16 visit_i16  deserialize_i32 visit_i32  deserialize_i64 visit_i64
        deserialize_u8 visit_u8  deserialize_u16 visit_u16  deserialize_u32 visit_u32  deserialize_u64 visit_u64
        deserialize_i128 visit_i128  deserialize_u128 visit_u128
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_f32(de::f32(&self.number()?)?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_f64(f64::try_from(&self.number()?)?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0 {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            text => visitor.visit_borrowed_str(text),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        // A number reads the text itself.
        if name == number::SERDE_NAME {
            visitor.visit_borrowed_str(self.0)
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
