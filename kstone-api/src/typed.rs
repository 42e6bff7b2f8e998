//! Typed items: structs that serde describes, as items and back. Needs the feature `typed`.
//!
//! ```
//! use std::collections::BTreeSet;
//!
//! use kstone_api::Database;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct User {
//!     name: String,
//!     age: u8,
//!     email: Option<String>,
//!     #[serde(with = "kstone_api::typed::string_set")]
//!     roles: BTreeSet<String>,
//! }
//!
//! let db = Database::in_memory()?;
//! let ann = User { name: "Ann".into(), age: 42, email: None, roles: BTreeSet::from(["admin".into()]) };
//! db.put_as("user#42", &ann)?;
//! assert_eq!(db.get_as::<User>("user#42")?, Some(ann));
//! # Ok::<(), kstone_api::Error>(())
//! ```
//!
//! The calls: [`Database::put_as`](crate::Database::put_as), [`Database::get_as`](crate::Database::get_as),
//! [`Snapshot::get_as`](crate::Snapshot::get_as), [`Items::typed`](crate::Items::typed) for queries and scans;
//! [`Item::from_serialize`], [`Item::deserialize_as`] and the same of [`Value`] for all else, such as batches.
//!
//! # What becomes what
//!
//! | in Rust | in the item |
//! |---|---|
//! | integers up to 128 bits | N, exact; `u128` and `i128` of more than 38 significant digits are refused |
//! | `f32`, `f64` | N, the shortest text that reads back as the same float; NaN, infinities and floats beyond 9.99E+125 or nearer to 0 than 1E-130 are refused |
//! | `bool` | BOOL |
//! | `char`, strings | S |
//! | bytes: `serde_bytes`, `#[serde(with = "serde_bytes")]` | B. A plain `Vec<u8>` is a list of numbers, as everywhere in serde |
//! | `Option`: `None` | NULL; both NULL and a missing attribute read as `None` |
//! | `()`, unit structs | NULL |
//! | newtype structs, `Some`, `Box` | what they contain |
//! | sequences, tuples, tuple structs | L |
//! | the same, with [`string_set`], [`number_set`], [`binary_set`] | SS, NS, BS |
//! | structs, maps | M; the outermost one is the item |
//! | keys of maps: text, `char`, numbers, `bool`, unit variants | the attribute's name |
//! | enums: a variant without content | S, its name |
//! | enums: a variant with content | M of one attribute, its name; or as `#[serde(tag)]`, `#[serde(untagged)]` say |
//! | [`Value`], [`Number`](crate::Number), [`Item`] | itself |
//!
//! An attribute that is NULL exists. Where a condition asks whether there is one, leave a `None` out:
//! `#[serde(skip_serializing_if = "Option::is_none")]`.
//!
//! # Reading
//!
//! Nothing is rounded silently, and nothing wraps. An integer field takes every number that is an integer of its type,
//! `1.0` and `1e2` too; a float field takes the nearest float. A set reads into any collection; a list reads into a
//! set's field. An attribute that no field has is ignored, unless the struct has `#[serde(deny_unknown_fields)]`.
//!
//! serde buffers the fields of flattened structs, and of enums that are `untagged` or have a `tag`. There, maps with
//! keys of numbers and integers beyond 64 bits cannot be read, which is so in every format. What gathers the attributes
//! that no other field has, `#[serde(flatten)] rest: Item`, is exact by value, sets included.
//!
//! # Errors
//!
//! `InvalidNumber` names the attribute of a number that is out of range or does not fit the type of its field:
//! `a.b[2]`. `InvalidItem` is any other mismatch, and names the attribute too. Lists, maps and sets nest at most 32 deep.

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use kstone_core::{Error, Key, Result};

use crate::database::Database;
use crate::item::Item;
use crate::item_error::ItemError;
use crate::query::Items;
use crate::snapshot::Snapshot;
use crate::value::Value;

mod de;
mod key;
mod level;
mod natural;
mod rows;
mod ser;
mod set;
mod state;

pub(crate) use natural::{buffered_number, value};
pub use rows::TypedItems;
pub use set::{binary_set, number_set, string_set};

use de::Reader;
use ser::Writer;

/// What the names of types start with that are recognized while serde reads and writes.
const MARK: &str = "$kstone_api::";

/// Whether this thread is reading an item into a type.
pub(crate) fn is_reading() -> bool {
    state::get().reading
}

impl Item {
    /// The item of a struct or map; see [`typed`](crate::typed) for what becomes what.
    ///
    /// ```
    /// use kstone_api::Item;
    /// use serde::Serialize;
    ///
    /// #[derive(Serialize)]
    /// struct Point {
    ///     x: f64,
    ///     y: f64,
    /// }
    ///
    /// let item = Item::from_serialize(&Point { x: 0.5, y: -1.0 })?;
    /// assert_eq!(item, Item::builder().number("x", 0.5).number("y", -1).build());
    /// assert_eq!(Item::from_serialize(&Point { x: f64::NAN, y: 0.0 }).unwrap_err().code(), "invalid_number");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidNumber` and `InvalidItem`, naming the attribute: a number that cannot be stored, a map's key that is not
    /// text, two attributes of one name, a nesting of more than 32 levels; or `value` is not a struct or map.
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        value.serialize(Writer::ITEM).and_then(ser::item).map_err(ItemError::into_error)
    }

    /// Reads the item as a type; see [`typed`](crate::typed). Text and bytes may be borrowed from the item.
    ///
    /// ```
    /// use kstone_api::Item;
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Name<'a> {
    ///     name: &'a str,
    /// }
    ///
    /// let item = Item::builder().string("name", "Ann").number("age", 42).build();
    /// assert_eq!(item.deserialize_as::<Name>()?.name, "Ann");
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidNumber` and `InvalidItem`, naming the attribute that does not fit the type.
    pub fn deserialize_as<'de, T: Deserialize<'de>>(&'de self) -> Result<T> {
        read(Reader::of_item(self))
    }
}

impl Value {
    /// The value of an attribute from anything that serde can write; like [`Item::from_serialize`].
    ///
    /// ```
    /// use kstone_api::Value;
    ///
    /// assert_eq!(Value::from_serialize(&(1, "two"))?, Value::from(vec![Value::from(1), Value::from("two")]));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        value.serialize(Writer::VALUE).map_err(ItemError::into_error)
    }

    /// Reads the value as a type; like [`Item::deserialize_as`].
    ///
    /// ```
    /// use kstone_api::Value;
    ///
    /// assert_eq!(Value::from(300).deserialize_as::<u16>()?, 300);
    /// assert!(Value::from(300).deserialize_as::<u8>().is_err());
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn deserialize_as<'de, T: Deserialize<'de>>(&'de self) -> Result<T> {
        read(Reader::of_value(self))
    }
}

fn read<'de, T: Deserialize<'de>>(reader: Reader<'de>) -> Result<T> {
    let (value, may_have_lost) = state::reading(false, || T::deserialize(reader));
    if value.is_err() || !may_have_lost {
        return value.map_err(ItemError::into_error);
    }
    let (value, _) = state::reading(true, || T::deserialize(reader));
    value.map_err(|e| e.noting(BUFFERED).into_error())
}

/// Added to the error of a second reading, whose cause may be a mark.
const BUFFERED: &str = "; a set, or a number that is no float, is read together with attributes of any type by serde's \
                        flatten or tag: give its field a set's module, or the type Number";

impl Database {
    /// Puts a struct or map as an item; see [`typed`](crate::typed).
    ///
    /// ```
    /// # use kstone_api::{Database, Item};
    /// use std::collections::BTreeMap;
    ///
    /// let db = Database::in_memory()?;
    /// db.put_as("stock", &BTreeMap::from([("apples", 3), ("pears", 5)]))?;
    /// assert_eq!(db.get("stock")?, Some(Item::builder().number("apples", 3).number("pears", 5).build()));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Item::from_serialize`] and of [`Database::put`].
    pub fn put_as<'k, T: Serialize + ?Sized>(&self, key: impl Into<Key<'k>>, value: &T) -> Result<()> {
        self.put(key, Item::from_serialize(value)?)
    }

    /// Gets the item under a key as a type; see [`typed`](crate::typed).
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder};
    /// use std::collections::BTreeMap;
    ///
    /// let db = Database::in_memory()?;
    /// db.put("stock", ItemBuilder::new().number("apples", 3))?;
    /// assert_eq!(db.get_as("stock")?, Some(BTreeMap::from([("apples".to_owned(), 3u32)])));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Item::deserialize_as`] and of [`Database::get`].
    pub fn get_as<'k, T: DeserializeOwned>(&self, key: impl Into<Key<'k>>) -> Result<Option<T>> {
        self.get(key)?.map(|item| item.deserialize_as()).transpose()
    }
}

impl Snapshot {
    /// Gets the item under a key as a type; see [`Database::get_as`].
    ///
    /// ```
    /// # use kstone_api::{Database, ItemBuilder};
    /// use std::collections::BTreeMap;
    ///
    /// let db = Database::in_memory()?;
    /// db.put("stock", ItemBuilder::new().number("apples", 3))?;
    /// let stock: Option<BTreeMap<String, u32>> = db.snapshot()?.get_as("stock")?;
    /// assert_eq!(stock.unwrap()["apples"], 3);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn get_as<'k, T: DeserializeOwned>(&self, key: impl Into<Key<'k>>) -> Result<Option<T>> {
        self.get(key)?.map(|item| item.deserialize_as()).transpose()
    }
}

impl Items {
    /// The same entries, with items read as a type; see [`typed`](crate::typed). An item that does not fit the type is
    /// an error that names its key; the items after it can still be read.
    ///
    /// ```
    /// use kstone_api::{Database, ItemBuilder};
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Airport {
    ///     city: String,
    /// }
    ///
    /// let db = Database::in_memory()?;
    /// db.put(("US", "KJFK"), ItemBuilder::new().string("city", "New York"))?;
    /// for entry in db.query("US").run()?.typed::<Airport>() {
    ///     let (_key, airport) = entry?;
    ///     assert_eq!(airport.city, "New York");
    /// }
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn typed<T: DeserializeOwned>(self) -> TypedItems<T> {
        TypedItems::new(self)
    }
}

/// For messages.
fn described(value: &Value) -> &'static str {
    match value {
        Value::S(_) => "a string",
        Value::N(_) => "a number",
        Value::B(_) => "binary",
        Value::Bool(_) => "a boolean",
        Value::Null => "null",
        Value::L(_) => "a list",
        Value::M(_) => "a map",
        Value::Ss(_) => "a string set",
        Value::Ns(_) => "a number set",
        Value::Bs(_) => "a binary set",
    }
}

impl std::fmt::Display for ItemError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.why())
    }
}

impl std::error::Error for ItemError {}

impl serde::ser::Error for ItemError {
    fn custom<T: std::fmt::Display>(why: T) -> Self {
        Self::new(why.to_string())
    }
}

impl serde::de::Error for ItemError {
    fn custom<T: std::fmt::Display>(why: T) -> Self {
        Self::new(why.to_string())
    }
}

/// The error of one item of many.
fn of_key(key: &Key<'_>, error: Error) -> Error {
    let sort = key.sort().map(|sort| format!(", {}", kstone_core::escape::key(sort))).unwrap_or_default();
    let why = match error {
        Error::InvalidItem { why } => why,
        other => other.to_string(),
    };
    Error::InvalidItem { why: format!("the item {}{sort}: {why}", kstone_core::escape::key(key.partition())) }
}
