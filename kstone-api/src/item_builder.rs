//! [`ItemBuilder`]: builds an item, attribute by attribute.

use std::collections::BTreeSet;

use crate::item::Item;
use crate::number::Number;
use crate::value::Value;

/// Builds an [`Item`]. An attribute replaces an earlier one with the same name.
///
/// ```
/// use kstone_api::{ItemBuilder, Value};
///
/// let item = ItemBuilder::new()
///     .string("name", "Ann")
///     .number("height", 1.72)
///     .bool("active", true)
///     .string_set("roles", ["admin", "author"])
///     .list("visits", [Value::from(3), Value::from("last week")])
///     .map("address", ItemBuilder::new().string("city", "Ghent"))
///     .build();
/// assert_eq!(item.len(), 6);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ItemBuilder {
    attributes: Vec<(String, Value)>,
}

impl ItemBuilder {
    /// A builder without attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an attribute of any type.
    pub fn value(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// Adds a string.
    pub fn string(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.value(name, value.into())
    }

    /// Adds a number: an integer, a float, or a [`Number`] for decimals that neither holds exactly.
    pub fn number(self, name: impl Into<String>, value: impl Into<Number>) -> Self {
        self.value(name, value.into())
    }

    /// Adds a boolean.
    pub fn bool(self, name: impl Into<String>, value: bool) -> Self {
        self.value(name, value)
    }

    /// Adds an attribute that is null.
    pub fn null(self, name: impl Into<String>) -> Self {
        self.value(name, Value::Null)
    }

    /// Adds bytes.
    pub fn binary(self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.value(name, value.into())
    }

    /// Adds a list of values of any types.
    pub fn list<V: Into<Value>>(self, name: impl Into<String>, values: impl IntoIterator<Item = V>) -> Self {
        self.value(name, Value::L(values.into_iter().map(Into::into).collect()))
    }

    /// Adds a map: an item within the item.
    pub fn map(self, name: impl Into<String>, map: impl Into<Item>) -> Self {
        self.value(name, map.into())
    }

    /// Adds a set of strings; duplicates are dropped. An empty set cannot be stored.
    pub fn string_set<V: Into<String>>(
        self,
        name: impl Into<String>,
        members: impl IntoIterator<Item = V>,
    ) -> Self {
        self.value(name, Value::Ss(members.into_iter().map(Into::into).collect()))
    }

    /// Adds a set of numbers; of equal numbers, such as `1` and `1.0`, the first is kept. An empty set cannot be
    /// stored.
    pub fn number_set<V: Into<Number>>(
        self,
        name: impl Into<String>,
        members: impl IntoIterator<Item = V>,
    ) -> Self {
        let mut set = BTreeSet::new();
        for member in members {
            set.insert(member.into());
        }
        self.value(name, Value::Ns(set))
    }

    /// Adds a set of byte strings; duplicates are dropped. An empty set cannot be stored.
    pub fn binary_set<V: Into<Vec<u8>>>(
        self,
        name: impl Into<String>,
        members: impl IntoIterator<Item = V>,
    ) -> Self {
        self.value(name, Value::Bs(members.into_iter().map(Into::into).collect()))
    }

    /// Finishes the item.
    pub fn build(self) -> Item {
        Item::from_unsorted(self.attributes)
    }
}
