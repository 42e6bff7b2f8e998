//! Fields that are sets: modules for `#[serde(with = "...")]`.
//!
//! In serde a set is a sequence like any other, so a field must say that it is one. Its type is any that serde reads and
//! writes as a sequence, or an `Option` of one. In other formats than items it remains the plain sequence.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{SeqAccessDeserializer, UnitDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::state;
use crate::item_error::ItemError;
use crate::value::{Value, from_base64};

/// The kinds of set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ss,
    Ns,
    Bs,
}

impl Kind {
    pub(super) fn of_name(name: &str) -> Option<Self> {
        [Self::Ss, Self::Ns, Self::Bs].into_iter().find(|kind| kind.name() == name)
    }

    /// The name of the newtype in which a set is written, and by which it is recognized.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ss => "$kstone_api::SS",
            Self::Ns => "$kstone_api::NS",
            Self::Bs => "$kstone_api::BS",
        }
    }

    pub(super) const fn described(self) -> &'static str {
        match self {
            Self::Ss => "a string set",
            Self::Ns => "a number set",
            Self::Bs => "a binary set",
        }
    }

    /// A list as a set. Duplicates are refused, as everywhere.
    pub(super) fn collect(self, value: Value) -> Result<Value, ItemError> {
        let list = match value {
            Value::L(list) => list,
            // No set: the field is an `Option`.
            Value::Null => return Ok(Value::Null),
            other => {
                return Err(ItemError::new(format!(
                    "{} is written from a sequence, this is {}",
                    self.described(),
                    super::described(&other)
                )));
            }
        };
        let wrong = |i: usize, value: &Value| {
            ItemError::new(format!("{} cannot be a member of {}", super::described(value), self.described()))
                .at(i)
        };
        let twice = |i: usize| ItemError::new("a set has a duplicate member").at(i);
        let members = list.into_iter().enumerate();
        match self {
            Self::Ss => {
                let mut set = std::collections::BTreeSet::new();
                for (i, value) in members {
                    let Value::S(text) = value else { return Err(wrong(i, &value)) };
                    set.insert(text).then_some(()).ok_or_else(|| twice(i))?;
                }
                Ok(Value::Ss(set))
            }
            Self::Ns => {
                let mut set = std::collections::BTreeSet::new();
                for (i, value) in members {
                    let Value::N(number) = value else { return Err(wrong(i, &value)) };
                    set.insert(number).then_some(()).ok_or_else(|| twice(i))?;
                }
                Ok(Value::Ns(set))
            }
            Self::Bs => {
                let mut set = std::collections::BTreeSet::new();
                for (i, value) in members {
                    let bytes = member_bytes(&value).ok_or_else(|| wrong(i, &value))?;
                    set.insert(bytes).then_some(()).ok_or_else(|| twice(i))?;
                }
                Ok(Value::Bs(set))
            }
        }
    }
}

/// A member of a binary set: bytes, a list of bytes as serde writes a `Vec<u8>`, or base64 text, which a [`Value`]
/// becomes where serde buffers it.
fn member_bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::B(bytes) => Some(bytes.clone()),
        Value::S(text) => from_base64(text).ok(),
        Value::L(list) => list.iter().map(|byte| byte.as_number()?.as_str().parse().ok()).collect(),
        _ => None,
    }
}

macro_rules! module {
    ($(#[$doc:meta])* $module:ident $kind:ident) => {
        $(#[$doc])*
        pub mod $module {
            use serde::{Deserialize, Deserializer, Serialize, Serializer};

            use super::{Kind, read};

            /// For `#[serde(with)]` and `#[serde(serialize_with)]`.
            pub fn serialize<T: Serialize + ?Sized, S: Serializer>(set: &T, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_newtype_struct(Kind::$kind.name(), set)
            }

            /// For `#[serde(with)]` and `#[serde(deserialize_with)]`.
            pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<T, D::Error> {
                read(Kind::$kind, deserializer)
            }
        }
    };
}

module! {
    /// For a field that is a string set: `#[serde(with = "kstone_api::typed::string_set")]`. The field's type is a
    /// collection of what serde writes as text, such as `BTreeSet<String>`.
    ///
    /// An empty set cannot be stored, so a field that may be empty is left out:
    /// `#[serde(default, skip_serializing_if = "BTreeSet::is_empty", with = "...")]`.
    string_set Ss
}
module! {
    /// For a field that is a number set: `#[serde(with = "kstone_api::typed::number_set")]`; see [`string_set`].
    number_set Ns
}
module! {
    /// For a field that is a binary set: `#[serde(with = "kstone_api::typed::binary_set")]`; see [`string_set`]. Members
    /// are `Vec<u8>`, or `ByteBuf` of the crate `serde_bytes`.
    binary_set Bs
}

fn read<'de, T: Deserialize<'de>, D: Deserializer<'de>>(kind: Kind, deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_newtype_struct(kind.name(), Set { kind, read: PhantomData })
}

struct Set<T> {
    kind: Kind,
    read: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Set<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.described())
    }

    /// An attribute.
    fn visit_some<D: Deserializer<'de>>(self, set: D) -> Result<T, D::Error> {
        T::deserialize(set)
    }

    /// Another format; or an attribute that serde buffered, which is a marked map if sets are marked.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, set: D) -> Result<T, D::Error> {
        if state::get().marked { set.deserialize_any(self) } else { T::deserialize(set) }
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<T, E> {
        T::deserialize(UnitDeserializer::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut marked: A) -> Result<T, A::Error> {
        match marked.next_key::<String>()? {
            Some(name) if name == self.kind.name() => marked.next_value(),
            _ => Err(A::Error::custom(format_args!("{} is expected", self.kind.described()))),
        }
    }
}
