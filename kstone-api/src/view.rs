//! Items read in place: only the requested attribute is decoded.

use std::fmt;

use kstone_core::slice::Slice;
use kstone_core::{Error, Result};

use crate::codec::{self, Damage, Layout, Raw, Table};
use crate::item::Item;
use crate::number::Number;
use crate::steps::{Step, steps};
use crate::value::Value;

/// A stored item, not decoded. Reading an attribute takes a binary search and copies nothing.
///
/// The bytes belong to the database ([`Slice`], kept alive by the view), or are any other bytes. They are checked as
/// they are read; [`ItemView::validate`] checks all of them at once.
///
/// ```
/// # fn main() -> kstone_api::Result<()> {
/// use kstone_api::{Database, ItemBuilder, ValueView};
///
/// let db = Database::in_memory()?;
/// db.put("user#42", ItemBuilder::new().string("name", "Ann").number("age", 42))?;
/// if let Some(view) = db.get_view("user#42")? {
///     assert_eq!(view.get("name")?.and_then(ValueView::as_str), Some("Ann"));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ItemView<B = Slice> {
    bytes: B,
    layout: Layout,
}

impl<B: AsRef<[u8]>> ItemView<B> {
    /// A view of bytes from [`Item::encode`]. Fails with `Corruption` if they do not start like an item.
    #[inline]
    pub fn new(bytes: B) -> Result<Self> {
        let layout = Layout::of(bytes.as_ref())?;
        Ok(Self { bytes, layout })
    }

    #[inline]
    fn table(&self) -> Result<Table<'_>, Damage> {
        self.layout.table(self.bytes.as_ref())
    }

    /// The value of an attribute, if the item has it. `Corruption` if the bytes are damaged.
    #[inline]
    pub fn get(&self, name: &str) -> Result<Option<ValueView<'_>>> {
        self.as_map()?.get(name)
    }

    /// The value at a path such as `lines[0].price`, if there is one; see [`Item::at`]. `Corruption` if bytes on the way
    /// are damaged.
    ///
    /// ```
    /// # use kstone_api::{Item, ItemView, ValueView};
    /// let item = Item::builder().map("address", Item::builder().string("city", "Ghent")).build();
    /// let view = ItemView::new(item.encode()?)?;
    /// assert_eq!(view.at("address.city")?.and_then(ValueView::as_str), Some("Ghent"));
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn at(&self, path: &str) -> Result<Option<ValueView<'_>>> {
        self.as_map()?.at(path)
    }

    /// The attributes.
    #[inline]
    pub fn as_map(&self) -> Result<MapView<'_>> {
        Ok(MapView { table: self.table()? })
    }

    /// The whole item, decoded.
    pub fn to_item(&self) -> Result<Item> {
        Ok(codec::decode_map(self.table()?, 0)?)
    }

    /// Checks every byte: after this, no read of the view fails.
    pub fn validate(&self) -> Result<()> {
        Ok(codec::validate_map(self.table()?, 0)?)
    }

    /// The stored bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<B: AsRef<[u8]>> fmt::Debug for ItemView<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_item() {
            Ok(item) => item.fmt(f),
            Err(e) => write!(f, "<{e}>"),
        }
    }
}

impl Item {
    /// The stored form, as the database writes it.
    ///
    /// ```
    /// # use kstone_api::Item;
    /// let item = Item::builder().string("name", "Ann").build();
    /// assert_eq!(Item::decode(&item.encode()?)?, item);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidNumber` or `InvalidItem`, naming the attribute: a number that is not finite or out of range, an empty set,
    /// lists, maps and sets nested more than 32 deep.
    pub fn encode(&self) -> Result<Vec<u8>> {
        codec::encode(self)
    }

    /// Decodes an item from its stored form. `InvalidItem` if the bytes are not one.
    ///
    /// ```
    /// assert_eq!(kstone_api::Item::decode(b"nonsense").unwrap_err().code(), "invalid_item");
    /// ```
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        ItemView::new(bytes).and_then(|view| view.to_item()).map_err(|error| match error {
            // The bytes are the caller's, not a file's.
            Error::Corruption { detail, .. } => Error::InvalidItem { why: detail },
            other => other,
        })
    }
}

/// A value that is not decoded.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ValueView<'a> {
    /// A string.
    S(&'a str),
    /// The text of a number.
    N(&'a str),
    /// Binary.
    B(&'a [u8]),
    /// True or false.
    Bool(bool),
    /// An attribute that exists but has no value.
    Null,
    /// A list.
    L(ListView<'a>),
    /// A map.
    M(MapView<'a>),
    /// A set of strings.
    Ss(SetView<'a>),
    /// A set of numbers.
    Ns(SetView<'a>),
    /// A set of binaries.
    Bs(SetView<'a>),
}

impl<'a> ValueView<'a> {
    #[inline]
    fn parse(value: &'a [u8]) -> Result<Self, Damage> {
        Ok(match Raw::parse(value)? {
            Raw::S(text) => Self::S(text),
            Raw::N(text) => Self::N(text),
            Raw::B(bytes) => Self::B(bytes),
            Raw::Bool(value) => Self::Bool(value),
            Raw::Null => Self::Null,
            Raw::L(table) => Self::L(ListView { table }),
            Raw::M(table) => Self::M(MapView { table }),
            Raw::Ss(table) => Self::Ss(SetView { table }),
            Raw::Ns(table) => Self::Ns(SetView { table }),
            Raw::Bs(table) => Self::Bs(SetView { table }),
        })
    }

    /// The value, decoded.
    pub fn to_value(self) -> Result<Value> {
        let raw = match self {
            Self::S(text) => Raw::S(text),
            // Not necessarily text of a stored number: a caller may have made the view.
            Self::N(text) => return Ok(Value::N(Number::from_stored(text).map_err(|_| codec::BAD_NUMBER)?)),
            Self::B(bytes) => Raw::B(bytes),
            Self::Bool(value) => Raw::Bool(value),
            Self::Null => Raw::Null,
            Self::L(ListView { table }) => Raw::L(table),
            Self::M(MapView { table }) => Raw::M(table),
            Self::Ss(SetView { table }) => Raw::Ss(table),
            Self::Ns(SetView { table }) => Raw::Ns(table),
            Self::Bs(SetView { table }) => Raw::Bs(table),
        };
        Ok(raw.to_value(0)?)
    }

    /// The string, if this is one.
    pub fn as_str(self) -> Option<&'a str> {
        if let Self::S(text) = self { Some(text) } else { None }
    }

    /// The number, if this is one, with its exact text. `None` too if the text of a view that the caller made is not that
    /// of a stored number.
    pub fn as_number(self) -> Option<Number> {
        if let Self::N(text) = self { Number::from_stored(text).ok() } else { None }
    }

    /// The number as an integer; `None` for other types, fractions, and integers that do not fit. What counts is the
    /// value, not its text: `1.0` and `1e3` are integers.
    pub fn as_i64(self) -> Option<i64> {
        let Self::N(text) = self else { return None };
        // Most integers are written as digits.
        text.parse().ok().or_else(|| i64::try_from(self.as_number()?).ok())
    }

    /// The number as an unsigned integer; `None` for other types, fractions, negative numbers, and integers that do not
    /// fit. What counts is the value, not its text: `1.0` and `1e3` are integers.
    pub fn as_u64(self) -> Option<u64> {
        let Self::N(text) = self else { return None };
        text.parse().ok().or_else(|| u64::try_from(self.as_number()?).ok())
    }

    /// The float nearest to the number, if this is a number.
    pub fn as_f64(self) -> Option<f64> {
        let Self::N(text) = self else { return None };
        // The text of a view that the caller made may be that of an infinity.
        text.parse().ok().filter(|float: &f64| float.is_finite())
    }

    /// The binary, if this is one.
    pub fn as_bytes(self) -> Option<&'a [u8]> {
        if let Self::B(bytes) = self { Some(bytes) } else { None }
    }

    /// The boolean, if this is one.
    pub fn as_bool(self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(value) } else { None }
    }

    /// Whether this is an attribute without a value.
    pub fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }

    /// The list, if this is one. A set is not.
    pub fn as_list(self) -> Option<ListView<'a>> {
        if let Self::L(list) = self { Some(list) } else { None }
    }

    /// The map, if this is one.
    pub fn as_map(self) -> Option<MapView<'a>> {
        if let Self::M(map) = self { Some(map) } else { None }
    }

    /// The set of strings, if this is one.
    pub fn as_string_set(self) -> Option<SetView<'a>> {
        if let Self::Ss(set) = self { Some(set) } else { None }
    }

    /// The set of numbers, if this is one.
    pub fn as_number_set(self) -> Option<SetView<'a>> {
        if let Self::Ns(set) = self { Some(set) } else { None }
    }

    /// The set of binaries, if this is one.
    pub fn as_binary_set(self) -> Option<SetView<'a>> {
        if let Self::Bs(set) = self { Some(set) } else { None }
    }

    /// The name of the type, as DynamoDB has it; see [`Value::type_name`].
    pub fn type_name(self) -> &'static str {
        match self {
            Self::S(_) => "S",
            Self::N(_) => "N",
            Self::B(_) => "B",
            Self::Bool(_) => "BOOL",
            Self::Null => "NULL",
            Self::L(_) => "L",
            Self::M(_) => "M",
            Self::Ss(_) => "SS",
            Self::Ns(_) => "NS",
            Self::Bs(_) => "BS",
        }
    }

    /// The value at a path within this map or list, if there is one; see [`Value::at`]. `Corruption` if bytes on the way
    /// are damaged.
    pub fn at(self, path: &str) -> Result<Option<ValueView<'a>>> {
        let mut value = self;
        for step in steps(path) {
            let child = match (value, step) {
                (Self::M(map), Some(Step::Name(name))) => map.get(name)?,
                (Self::L(list), Some(Step::Index(index))) => list.get(index)?,
                _ => None,
            };
            let Some(child) = child else { return Ok(None) };
            value = child;
        }
        Ok(Some(value))
    }
}

/// A map that is not decoded.
#[derive(Clone, Copy, Debug)]
pub struct MapView<'a> {
    table: Table<'a>,
}

impl<'a> MapView<'a> {
    pub(crate) fn table(self) -> Table<'a> {
        self.table
    }

    /// The value of an attribute.
    #[inline]
    pub fn get(&self, name: &str) -> Result<Option<ValueView<'a>>> {
        match self.table.find(name.as_bytes())? {
            Some(value) => Ok(Some(ValueView::parse(value)?)),
            None => Ok(None),
        }
    }

    /// The value at a path, if there is one; see [`Item::at`].
    pub fn at(&self, path: &str) -> Result<Option<ValueView<'a>>> {
        ValueView::M(*self).at(path)
    }

    /// The number of attributes.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no attributes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The attributes, ordered by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<(&'a str, ValueView<'a>)>> + use<'a> {
        let table = self.table;
        (0..table.len()).map(move |i| {
            let (name, value) = table.attribute(i)?;
            Ok((codec::text(name)?, ValueView::parse(value)?))
        })
    }
}

/// A list that is not decoded.
#[derive(Clone, Copy, Debug)]
pub struct ListView<'a> {
    table: Table<'a>,
}

impl<'a> ListView<'a> {
    /// The value at an index, starting at 0.
    pub fn get(&self, i: usize) -> Result<Option<ValueView<'a>>> {
        if i >= self.len() {
            return Ok(None);
        }
        Ok(Some(ValueView::parse(self.table.entry(i)?)?))
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<ValueView<'a>>> + use<'a> {
        self.table.entries().map(|value| Ok(ValueView::parse(value?)?))
    }
}

/// A set that is not decoded.
#[derive(Clone, Copy, Debug)]
pub struct SetView<'a> {
    table: Table<'a>,
}

impl<'a> SetView<'a> {
    /// The number of members.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the members, in order: the text of strings and numbers, or binary.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<&'a [u8]>> + use<'a> {
        self.table.entries().map(|member| Ok(member?))
    }
}
