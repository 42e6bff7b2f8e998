//! [`Seen`]: a value as expressions see it, decoded or stored, and how values compare.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use kstone_core::Result;

use super::Type;
use crate::codec::check_nesting;
use crate::item::Item;
use crate::item_error::ItemError;
use crate::number::{self, Number};
use crate::value::Value;
use crate::view::{ListView, MapView, SetView, ValueView};

/// A value that is borrowed: from an expression, an item, or a stored item. Its contents are decoded as they are read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen<'a> {
    S(&'a str),
    N(&'a str),
    B(&'a [u8]),
    Bool(bool),
    Null,
    L(List<'a>),
    M(Map<'a>),
    Ss(Set<'a>),
    Ns(Set<'a>),
    Bs(Set<'a>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum List<'a> {
    Values(&'a [Value]),
    View(ListView<'a>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Map<'a> {
    Item(&'a Item),
    View(MapView<'a>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Set<'a> {
    Strings(&'a BTreeSet<String>),
    Numbers(&'a BTreeSet<Number>),
    Binaries(&'a BTreeSet<Vec<u8>>),
    View(SetView<'a>),
}

impl<'a> From<&'a Value> for Seen<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::S(text) => Self::S(text),
            Value::N(number) => Self::N(number.as_str()),
            Value::B(bytes) => Self::B(bytes),
            Value::Bool(value) => Self::Bool(*value),
            Value::Null => Self::Null,
            Value::L(list) => Self::L(List::Values(list)),
            Value::M(map) => Self::M(Map::Item(map)),
            Value::Ss(set) => Self::Ss(Set::Strings(set)),
            Value::Ns(set) => Self::Ns(Set::Numbers(set)),
            Value::Bs(set) => Self::Bs(Set::Binaries(set)),
        }
    }
}

impl<'a> From<ValueView<'a>> for Seen<'a> {
    fn from(value: ValueView<'a>) -> Self {
        match value {
            ValueView::S(text) => Self::S(text),
            ValueView::N(text) => Self::N(text),
            ValueView::B(bytes) => Self::B(bytes),
            ValueView::Bool(value) => Self::Bool(value),
            ValueView::Null => Self::Null,
            ValueView::L(list) => Self::L(List::View(list)),
            ValueView::M(map) => Self::M(Map::View(map)),
            ValueView::Ss(set) => Self::Ss(Set::View(set)),
            ValueView::Ns(set) => Self::Ns(Set::View(set)),
            ValueView::Bs(set) => Self::Bs(Set::View(set)),
        }
    }
}

impl<'a> List<'a> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Values(list) => list.len(),
            Self::View(list) => list.len(),
        }
    }

    pub(super) fn get(self, index: usize) -> Result<Option<Seen<'a>>> {
        Ok(match self {
            Self::Values(list) => list.get(index).map(Seen::from),
            Self::View(list) => list.get(index)?.map(Seen::from),
        })
    }

    fn iter(self) -> impl Iterator<Item = Result<Seen<'a>>> {
        (0..self.len()).filter_map(move |index| self.get(index).transpose())
    }
}

impl<'a> Map<'a> {
    fn len(self) -> usize {
        match self {
            Self::Item(map) => map.len(),
            Self::View(map) => map.len(),
        }
    }

    pub(super) fn get(self, name: &str) -> Result<Option<Seen<'a>>> {
        Ok(match self {
            Self::Item(map) => map.get(name).map(Seen::from),
            Self::View(map) => map.get(name)?.map(Seen::from),
        })
    }

    fn iter(self) -> Box<dyn Iterator<Item = Result<(&'a str, Seen<'a>)>> + 'a> {
        match self {
            Self::Item(map) => Box::new(map.iter().map(|(name, value)| Ok((name, Seen::from(value))))),
            Self::View(map) => {
                Box::new(map.iter().map(|entry| entry.map(|(name, value)| (name, Seen::from(value)))))
            }
        }
    }
}

impl<'a> Set<'a> {
    fn len(self) -> usize {
        match self {
            Self::Strings(set) => set.len(),
            Self::Numbers(set) => set.len(),
            Self::Binaries(set) => set.len(),
            Self::View(set) => set.len(),
        }
    }

    /// The bytes of the members, in order: the text of strings and numbers, or binary.
    fn iter(self) -> Box<dyn Iterator<Item = Result<&'a [u8]>> + 'a> {
        match self {
            Self::Strings(set) => Box::new(set.iter().map(|member| Ok(member.as_bytes()))),
            Self::Numbers(set) => Box::new(set.iter().map(|member| Ok(member.as_str().as_bytes()))),
            Self::Binaries(set) => Box::new(set.iter().map(|member| Ok(member.as_slice()))),
            Self::View(set) => Box::new(set.iter()),
        }
    }
}

impl Seen<'_> {
    pub(super) fn kind(self) -> Type {
        match self {
            Self::S(_) => Type::S,
            Self::N(_) => Type::N,
            Self::B(_) => Type::B,
            Self::Bool(_) => Type::Bool,
            Self::Null => Type::Null,
            Self::L(_) => Type::L,
            Self::M(_) => Type::M,
            Self::Ss(_) => Type::Ss,
            Self::Ns(_) => Type::Ns,
            Self::Bs(_) => Type::Bs,
        }
    }

    /// Bytes of a string or binary, members of a list, map or set.
    pub(super) fn size(self) -> Option<usize> {
        match self {
            Self::S(text) => Some(text.len()),
            Self::B(bytes) => Some(bytes.len()),
            Self::L(list) => Some(list.len()),
            Self::M(map) => Some(map.len()),
            Self::Ss(set) | Self::Ns(set) | Self::Bs(set) => Some(set.len()),
            Self::N(_) | Self::Bool(_) | Self::Null => None,
        }
    }

    /// The value, decoded.
    pub(super) fn to_value(self) -> Result<Value> {
        let view = match self {
            Self::L(List::Values(list)) => return Ok(Value::L(list.to_vec())),
            Self::M(Map::Item(map)) => return Ok(Value::M(map.clone())),
            Self::Ss(Set::Strings(set)) => return Ok(Value::Ss(set.clone())),
            Self::Ns(Set::Numbers(set)) => return Ok(Value::Ns(set.clone())),
            Self::Bs(Set::Binaries(set)) => return Ok(Value::Bs(set.clone())),
            Self::S(text) => ValueView::S(text),
            Self::N(text) => ValueView::N(text),
            Self::B(bytes) => ValueView::B(bytes),
            Self::Bool(value) => ValueView::Bool(value),
            Self::Null => ValueView::Null,
            Self::L(List::View(list)) => ValueView::L(list),
            Self::M(Map::View(map)) => ValueView::M(map),
            Self::Ss(Set::View(set)) => ValueView::Ss(set),
            Self::Ns(Set::View(set)) => ValueView::Ns(set),
            Self::Bs(Set::View(set)) => ValueView::Bs(set),
            // A set of one type that holds members of another: no code makes it.
            Self::Ss(_) | Self::Ns(_) | Self::Bs(_) => ValueView::Null,
        };
        view.to_value()
    }

    /// The order of two strings, numbers or binaries; `None` for other types, and for two types.
    pub(super) fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::S(a), Self::S(b)) => Some(a.cmp(b)),
            (Self::N(a), Self::N(b)) => number::compare(a, b),
            (Self::B(a), Self::B(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// Whether type and contents are equal. Fails if one of them is damaged.
    pub(super) fn equals(self, other: Self) -> Result<bool> {
        self.equals_within(other, 0)
    }

    fn equals_within(self, other: Self, depth: usize) -> Result<bool> {
        match (self, other) {
            (Self::S(_), Self::S(_)) | (Self::N(_), Self::N(_)) | (Self::B(_), Self::B(_)) => {
                Ok(self.order(other) == Some(Ordering::Equal))
            }
            (Self::Bool(a), Self::Bool(b)) => Ok(a == b),
            (Self::Null, Self::Null) => Ok(true),
            (Self::L(a), Self::L(b)) => {
                // Bytes that are damaged may nest deeper than items do.
                check_nesting(depth).map_err(ItemError::into_error)?;
                if a.len() != b.len() {
                    return Ok(false);
                }
                all_equal(a.iter().zip(b.iter()), |a, b| a.equals_within(b, depth + 1))
            }
            (Self::M(a), Self::M(b)) => {
                check_nesting(depth).map_err(ItemError::into_error)?;
                if a.len() != b.len() {
                    return Ok(false);
                }
                all_equal(a.iter().zip(b.iter()), |a, b| Ok(a.0 == b.0 && a.1.equals_within(b.1, depth + 1)?))
            }
            (Self::Ss(a), Self::Ss(b)) | (Self::Bs(a), Self::Bs(b)) => {
                Ok(a.len() == b.len() && all_equal(a.iter().zip(b.iter()), |a, b| Ok(a == b))?)
            }
            (Self::Ns(a), Self::Ns(b)) => {
                Ok(a.len() == b.len() && all_equal(a.iter().zip(b.iter()), |a, b| Ok(same_number(a, b)))?)
            }
            _ => Ok(false),
        }
    }

    /// Whether the other is a part of this string or binary, a member of this set, or an element of this list.
    pub(super) fn contains(self, other: Self) -> Result<bool> {
        let any = |set: Set<'_>, is: &dyn Fn(&[u8]) -> bool| {
            set.iter()
                .find_map(|member| member.map(|member| is(member).then_some(true)).transpose())
                .unwrap_or(Ok(false))
        };
        match (self, other) {
            (Self::S(text), Self::S(part)) => Ok(text.contains(part)),
            (Self::B(bytes), Self::B(part)) => Ok(contains_bytes(bytes, part)),
            (Self::Ss(set), Self::S(member)) => any(set, &|here| here == member.as_bytes()),
            (Self::Bs(set), Self::B(member)) => any(set, &|here| here == member),
            (Self::Ns(set), Self::N(member)) => any(set, &|here| same_number(here, member.as_bytes())),
            (Self::L(list), other) => list
                .iter()
                .find_map(|value| match value.and_then(|value| value.equals_within(other, 1)) {
                    Ok(false) => None,
                    found => Some(found),
                })
                .unwrap_or(Ok(false)),
            _ => Ok(false),
        }
    }

    /// Whether both are strings or both binaries, and this one begins with the other.
    pub(super) fn begins_with(self, start: Self) -> bool {
        match (self, start) {
            (Self::S(text), Self::S(start)) => text.starts_with(start),
            (Self::B(bytes), Self::B(start)) => bytes.starts_with(start),
            _ => false,
        }
    }
}

fn same_number(a: &[u8], b: &[u8]) -> bool {
    let texts = std::str::from_utf8(a).ok().zip(std::str::from_utf8(b).ok());
    texts.is_some_and(|(a, b)| number::compare(a, b) == Some(Ordering::Equal))
}

fn all_equal<T>(
    mut pairs: impl Iterator<Item = (Result<T>, Result<T>)>,
    mut equal: impl FnMut(T, T) -> Result<bool>,
) -> Result<bool> {
    pairs
        .find_map(|(a, b)| match a.and_then(|a| equal(a, b?)) {
            Ok(true) => None,
            other => Some(other),
        })
        .unwrap_or(Ok(true))
}

/// Whether bytes contain others, in time that grows with their length alone.
fn contains_bytes(bytes: &[u8], part: &[u8]) -> bool {
    // Latin 1 as text: each byte is one character, so the search of strings finds what the bytes contain.
    let text = |bytes: &[u8]| bytes.iter().map(|&b| char::from(b)).collect::<String>();
    part.is_empty() || (part.len() <= bytes.len() && text(bytes).contains(&text(part)))
}
