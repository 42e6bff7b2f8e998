//! [`Item`]: attribute names and their values.
//!
//! Invariant: attributes are sorted by name and names are unique, which is also the order of the encoding.

use std::fmt;
use std::ops::Index;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::item_builder::ItemBuilder;
use crate::item_error::ItemError;
use crate::steps::{Step, steps};
use crate::value::Value;

/// A set of attributes, ordered by name: the unit that is stored under a key. An item may have any number of
/// attributes, nested up to 32 levels deep, as long as its stored form is at most `max_item_bytes` (16 MiB by default).
///
/// ```
/// use kstone_api::{Item, ItemBuilder, Value};
///
/// let mut item = ItemBuilder::new().string("name", "Ann").number("age", 42).build();
/// item.insert("active", true);
/// assert_eq!(item.get("age").and_then(Value::as_i64), Some(42));
/// assert_eq!(item.to_string(), r#"{"active":true,"age":42,"name":"Ann"}"#);
/// assert_eq!(item, Item::from([("name", "Ann".into()), ("age", 42.into()), ("active", Value::from(true))]));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Item {
    attributes: Vec<(String, Value)>,
}

impl Item {
    /// An item without attributes, which can be stored like any other.
    ///
    /// ```
    /// assert!(kstone_api::Item::new().is_empty());
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts an item; the same as [`ItemBuilder::new`].
    ///
    /// ```
    /// let item = kstone_api::Item::builder().string("name", "Ann").build();
    /// assert!(item.contains("name"));
    /// ```
    pub fn builder() -> ItemBuilder {
        ItemBuilder::new()
    }

    /// Builds an item from attributes in any order; of attributes with the same name, the last one wins.
    pub(crate) fn from_unsorted(mut attributes: Vec<(String, Value)>) -> Self {
        if !attributes.is_sorted_by(|(a, _), (b, _)| a < b) {
            attributes.reverse();
            attributes.sort_by(|(a, _), (b, _)| a.cmp(b));
            // The sort is stable, so the first of equal names is the last one given.
            attributes.dedup_by(|(a, _), (b, _)| a == b);
        }
        Self { attributes }
    }

    /// The same, but refuses duplicate names: nothing that was read may be dropped.
    pub(crate) fn from_distinct(attributes: Vec<(String, Value)>) -> Result<Self, ItemError> {
        let mut names: Vec<&str> = attributes.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let twice = |pair: &&[&str]| matches!(pair, [a, b] if a == b);
        if let Some([name, ..]) = names.windows(2).find(twice) {
            return Err(ItemError::new("there are two attributes of this name").within(name));
        }
        Ok(Self::from_unsorted(attributes))
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.attributes.binary_search_by(|(here, _)| here.as_str().cmp(name))
    }

    /// The value of an attribute, if the item has it.
    ///
    /// ```
    /// # use kstone_api::{Item, Value};
    /// let item = Item::builder().number("age", 42).build();
    /// assert_eq!(item.get("age").and_then(Value::as_i64), Some(42));
    /// assert_eq!(item.get("name"), None);
    /// ```
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.attributes.get(self.find(name).ok()?).map(|(_, value)| value)
    }

    /// A mutable reference to the value of an attribute.
    ///
    /// ```
    /// # use kstone_api::{Item, Value};
    /// let mut item = Item::builder().list("tags", ["new"]).build();
    /// if let Some(Value::L(tags)) = item.get_mut("tags") {
    ///     tags.push(Value::from("sale"));
    /// }
    /// assert_eq!(item.to_string(), r#"{"tags":["new","sale"]}"#);
    /// ```
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        let at = self.find(name).ok()?;
        self.attributes.get_mut(at).map(|(_, value)| value)
    }

    /// The value at a path: attribute names separated by dots, with an index from 0 in brackets for each list on the way.
    ///
    /// `None` if there is no such value: an attribute is missing, a list is too short, a value on the way is neither a
    /// map nor a list, or the text is not a path. Names that contain a dot or a bracket cannot be part of a path; reach
    /// their values with [`get`](Self::get). The type of the value is not checked: chain [`Value::as_str`] and its like.
    ///
    /// ```
    /// # use kstone_api::{Item, Value};
    /// let order = Item::builder()
    ///     .map("customer", Item::builder().string("city", "Ghent"))
    ///     .list("lines", [Item::builder().string("product", "tea").number("count", 2).build()])
    ///     .build();
    /// assert_eq!(order.at("customer.city").and_then(Value::as_str), Some("Ghent"));
    /// assert_eq!(order.at("lines[0].count").and_then(Value::as_u64), Some(2));
    /// assert_eq!(order.at("lines[1].count"), None);
    /// ```
    pub fn at(&self, path: &str) -> Option<&Value> {
        let mut steps = steps(path);
        let Step::Name(name) = steps.next()?? else { return None };
        steps.try_fold(self.get(name)?, |value, step| value.child(step?))
    }

    /// A mutable reference to the value at a path; see [`at`](Self::at). It adds nothing: `None` if there is no value.
    ///
    /// ```
    /// # use kstone_api::{Item, Value};
    /// let mut user = Item::builder().map("address", Item::builder().string("city", "Ghent")).build();
    /// if let Some(city) = user.at_mut("address.city") {
    ///     *city = Value::from("Bruges");
    /// }
    /// assert_eq!(user.to_string(), r#"{"address":{"city":"Bruges"}}"#);
    /// ```
    pub fn at_mut(&mut self, path: &str) -> Option<&mut Value> {
        let mut steps = steps(path);
        let Step::Name(name) = steps.next()?? else { return None };
        steps.try_fold(self.get_mut(name)?, |value, step| value.child_mut(step?))
    }

    /// Whether the item has an attribute with this name.
    ///
    /// ```
    /// let item = kstone_api::Item::builder().null("deleted_at").build();
    /// assert!(item.contains("deleted_at") && !item.contains("name"));
    /// ```
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// Sets an attribute, and returns its previous value.
    ///
    /// ```
    /// # use kstone_api::{Item, Value};
    /// let mut item = Item::new();
    /// assert_eq!(item.insert("age", 42), None);
    /// assert_eq!(item.insert("age", 43), Some(Value::from(42)));
    /// ```
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (name, value) = (name.into(), value.into());
        match self.find(&name) {
            Ok(at) => self.attributes.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                self.attributes.insert(at, (name, value));
                None
            }
        }
    }

    /// Removes an attribute, and returns its value.
    ///
    /// ```
    /// # use kstone_api::{Item, Value};
    /// let mut item = Item::builder().bool("draft", true).build();
    /// assert_eq!(item.remove("draft"), Some(Value::Bool(true)));
    /// assert!(item.is_empty());
    /// ```
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.find(name).ok().map(|at| self.attributes.remove(at).1)
    }

    /// The number of attributes, not counting those within maps.
    ///
    /// ```
    /// assert_eq!(kstone_api::Item::builder().number("x", 1).number("y", 2).build().len(), 2);
    /// ```
    pub fn len(&self) -> usize {
        self.attributes.len()
    }

    /// Whether the item has no attributes.
    ///
    /// ```
    /// assert!(kstone_api::Item::new().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }

    /// The attributes, ordered by name.
    ///
    /// ```
    /// let item = kstone_api::Item::builder().number("y", 2).number("x", 1).build();
    /// let names: Vec<_> = item.iter().map(|(name, _)| name).collect();
    /// assert_eq!(names, ["x", "y"]);
    /// ```
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.attributes.iter())
    }
}

/// The attributes of an [`Item`], ordered by name.
#[derive(Clone, Debug)]
pub struct Iter<'a>(std::slice::Iter<'a, (String, Value)>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a Value);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name.as_str(), value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(|(name, value)| (name.as_str(), value))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Item {
    type Item = (&'a str, &'a Value);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl IntoIterator for Item {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.attributes.into_iter()
    }
}

/// Of attributes with the same name, the last one wins.
impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Item {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(attributes: I) -> Self {
        Self::from_unsorted(attributes.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// In any order; of attributes with the same name, the last one wins.
impl<N: Into<String>, V: Into<Value>, const LEN: usize> From<[(N, V); LEN]> for Item {
    fn from(attributes: [(N, V); LEN]) -> Self {
        Self::from_iter(attributes)
    }
}

/// The value of an attribute that the item is known to have, as for the maps of the standard library. Everywhere else, use
/// [`get`](Item::get) or [`at`](Item::at), which return an option.
///
/// ```
/// # use kstone_api::Item;
/// let item = Item::from([("name", "Ann")]);
/// assert_eq!(item["name"].as_str(), Some("Ann"));
/// ```
///
/// # Panics
/// If the item has no attribute with this name.
impl Index<&str> for Item {
    type Output = Value;

    #[expect(clippy::panic, reason = "an index must exist; `get` is for those that may not")]
    fn index(&self, name: &str) -> &Value {
        match self.get(name) {
            Some(value) => value,
            None => panic!("the item has no attribute {name:?}"),
        }
    }
}

impl From<&Item> for Item {
    fn from(item: &Item) -> Self {
        item.clone()
    }
}

impl From<ItemBuilder> for Item {
    fn from(builder: ItemBuilder) -> Self {
        builder.build()
    }
}

/// As compact JSON, in the plain form of [`Item::to_json`]; numbers are written with their exact text.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::json::write_item(self, f)
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// As a map of names to values.
impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Attributes;

        impl<'de> Visitor<'de> for Attributes {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of attribute names to values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
                // The length is only a claim of the input: nothing is reserved for it.
                let mut attributes = Vec::new();
                while let Some(attribute) = map.next_entry()? {
                    attributes.push(attribute);
                }
                Item::from_distinct(attributes).map_err(|error| A::Error::custom(error.into_error()))
            }
        }

        deserializer.deserialize_map(Attributes)
    }
}
