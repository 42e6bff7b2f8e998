//! The stored form of an item, designed for reading single attributes in place.
//!
//! ```text
//! item     version 1 (u8), table of attributes
//! table    header (varint: count << 2 | width code), ends, entries
//!          width code 0, 1, 2: each end takes 1, 2 or 4 bytes, the fewest that hold the length of all entries
//!          ends: the end of each entry, relative to the start of the first entry, little-endian
//!          A table spans all of its bytes: its last end is their end.
//! attribute  name length (varint), name (UTF-8), value; sorted by name, each name once
//! value    tag (u8), payload up to the end of the entry
//!   1 S    UTF-8                           6 NULL   empty
//!   2 N    text of the number              7 L      table of values
//!   3 B    bytes                           8 M      table of attributes
//!   4, 5   false, true: empty              9 SS, 10 NS, 11 BS   table of members, in order, at least one
//! ```
//!
//! Varints are LEB128 of at most 32 bits, in their shortest form. Lists, maps and sets nest at most [`MAX_DEPTH`] deep
//! in an item: all code that writes or reads one calls [`check_nesting`].
//! No input is trusted: every length is checked before use, and bytes that do not decode are [`Damage`], never a panic.

use std::cell::Cell;
use std::collections::BTreeSet;

use kstone_core::{Error, Result};

use crate::item::Item;
use crate::item_error::ItemError;
use crate::number::{Number, NumberError, check_stored};
use crate::value::Value;

mod from_json;
mod patch;

pub(crate) use patch::patch;

pub use from_json::{EncodedItem, JsonLines};

/// The first byte of an item in this encoding.
pub(crate) const VERSION: u8 = 1;
/// How deep lists, maps and sets may nest within an item. Sets count because they become lists in plain JSON.
const MAX_DEPTH: usize = 32;

/// Refuses a list, map or set nested within `depth` others.
pub(crate) fn check_nesting(depth: usize) -> Result<(), ItemError> {
    if depth < MAX_DEPTH {
        return Ok(());
    }
    Err(ItemError::new(format!("lists, maps and sets nest deeper than {MAX_DEPTH} levels")))
}

const S: u8 = 1;
const N: u8 = 2;
const B: u8 = 3;
const FALSE: u8 = 4;
const TRUE: u8 = 5;
const NULL: u8 = 6;
const L: u8 = 7;
const M: u8 = 8;
const SS: u8 = 9;
const NS: u8 = 10;
const BS: u8 = 11;

// Encoding takes two passes: one checks the item and measures its tables, the other writes into a buffer that has room
// for all of it.

/// Encodes an item. Fails, naming the attribute, if the item contains something that cannot be stored.
pub(crate) fn encode(item: &Item) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    encode_into(item, &mut out)?;
    Ok(out)
}

/// Encodes an item, with the same errors, for a call that only borrows the bytes: into memory that the thread keeps.
#[inline]
pub(crate) fn with_encoded<T>(item: &Item, write: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    // The buffer is taken, not borrowed: `write` may call a listener, which may put an item itself. A thread that is ending
    // has none.
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    buffer.clear();
    let result = encode_into(item, &mut buffer).and_then(|()| write(&buffer));
    if buffer.capacity() <= KEPT_BUFFER {
        let _ = BUFFER.try_with(|kept| kept.set(buffer));
    }
    result
}

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A thread keeps a buffer of up to this capacity.
const KEPT_BUFFER: usize = 64 << 10;

/// Writes to an empty buffer, which is still empty after an error.
fn encode_into(item: &Item, out: &mut Vec<u8>) -> Result<()> {
    let mut measured = Lens::default();
    let body = measure_map(item, 0, &mut measured).map_err(ItemError::into_error)?;
    let len = 1 + table_len(item.len(), body);
    if u32::try_from(len).is_err() || item.len() >= 1 << 30 {
        return Err(Error::ItemTooLarge { len, max: u32::MAX as usize });
    }
    out.reserve_exact(len);
    out.push(VERSION);
    write_map(item, body, &mut measured.0.into_iter(), out);
    debug_assert_eq!(out.len(), len, "measured and written lengths differ");
    Ok(())
}

/// The length of all entries of each table within the item, in the order in which the tables are written.
#[derive(Default)]
struct Lens(Vec<usize>);

impl Lens {
    /// Measures a table within the item.
    fn table(
        &mut self,
        count: usize,
        measure: impl FnOnce(&mut Self) -> Result<usize, ItemError>,
    ) -> Result<usize, ItemError> {
        let at = self.0.len();
        self.0.push(0);
        let body = measure(self)?;
        if let Some(slot) = self.0.get_mut(at) {
            *slot = body;
        }
        Ok(table_len(count, body))
    }

    fn set<T>(
        &mut self,
        set: &BTreeSet<T>,
        len: impl Fn(&T) -> Result<usize, NumberError>,
    ) -> Result<usize, ItemError> {
        if set.is_empty() {
            return Err(ItemError::new("a set has at least one member"));
        }
        self.table(set.len(), |_| Ok(set.iter().map(len).sum::<Result<usize, _>>()?))
    }
}

fn measure_map(map: &Item, depth: usize, lens: &mut Lens) -> Result<usize, ItemError> {
    let mut body = 0;
    for (name, value) in map {
        let value = measure_value(value, depth, lens).map_err(|error| error.within(name))?;
        body += varint_len(name.len()) + name.len() + value;
    }
    Ok(body)
}

/// The length of a value, including its tag.
fn measure_value(value: &Value, depth: usize, lens: &mut Lens) -> Result<usize, ItemError> {
    if value.is_nest() {
        check_nesting(depth)?;
    }
    let payload = match value {
        Value::S(text) => text.len(),
        Value::N(number) => number.check()?.len(),
        Value::B(bytes) => bytes.len(),
        Value::Bool(_) | Value::Null => 0,
        Value::L(list) => lens.table(list.len(), |lens| {
            let values = list.iter().enumerate();
            let mut lens = values.map(|(i, value)| {
                measure_value(value, depth + 1, lens).map_err(|error| error.within(&i.to_string()))
            });
            lens.try_fold(0, |sum, len| Ok(sum + len?))
        })?,
        Value::M(map) => lens.table(map.len(), |lens| measure_map(map, depth + 1, lens))?,
        Value::Ss(set) => lens.set(set, |text| Ok(text.len()))?,
        Value::Ns(set) => lens.set(set, |number| number.check().map(str::len))?,
        Value::Bs(set) => lens.set(set, |bytes| Ok(bytes.len()))?,
    };
    Ok(1 + payload)
}

fn table_len(count: usize, body: usize) -> usize {
    varint_len(count << 2) + count * width_of(body).1 + body
}

/// The width code and the size of an end, for a table whose entries take `body` bytes.
fn width_of(body: usize) -> (usize, usize) {
    match body {
        0..=0xff => (0, 1),
        0x100..=0xffff => (1, 2),
        _ => (2, 4),
    }
}

fn varint_len(value: usize) -> usize {
    // 7 bits a byte, at least one byte.
    (value.checked_ilog2().unwrap_or(0) / 7 + 1) as usize
}

fn put_varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn write_table<T>(
    entries: impl ExactSizeIterator<Item = T>,
    body: usize,
    out: &mut Vec<u8>,
    mut write: impl FnMut(T, &mut Vec<u8>),
) {
    let (code, width) = width_of(body);
    put_varint(entries.len() << 2 | code, out);
    let mut slot = out.len();
    out.resize(slot + entries.len() * width, 0);
    let start = out.len();
    for entry in entries {
        write(entry, out);
        let end = ((out.len() - start) as u32).to_le_bytes();
        if let Some((to, from)) = out.get_mut(slot..slot + width).zip(end.get(..width)) {
            to.copy_from_slice(from);
        }
        slot += width;
    }
}

type Measured = std::vec::IntoIter<usize>;

fn write_map(map: &Item, body: usize, lens: &mut Measured, out: &mut Vec<u8>) {
    write_table(map.iter(), body, out, |(name, value), out| {
        put_varint(name.len(), out);
        out.extend_from_slice(name.as_bytes());
        write_value(value, lens, out);
    });
}

fn write_value(value: &Value, lens: &mut Measured, out: &mut Vec<u8>) {
    let mut table = |tag, out: &mut Vec<u8>| {
        out.push(tag);
        let len = lens.next();
        debug_assert!(len.is_some(), "the same tables were measured before");
        len.unwrap_or_default()
    };
    match value {
        Value::S(text) => {
            out.push(S);
            out.extend_from_slice(text.as_bytes());
        }
        Value::N(number) => {
            out.push(N);
            out.extend_from_slice(number.as_str().as_bytes());
        }
        Value::B(bytes) => {
            out.push(B);
            out.extend_from_slice(bytes);
        }
        Value::Bool(value) => out.push(if *value { TRUE } else { FALSE }),
        Value::Null => out.push(NULL),
        Value::L(list) => {
            let body = table(L, out);
            write_table(list.iter(), body, out, |value, out| write_value(value, lens, out));
        }
        Value::M(map) => {
            let body = table(M, out);
            write_map(map, body, lens, out);
        }
        Value::Ss(set) => {
            let body = table(SS, out);
            write_table(set.iter(), body, out, |text, out| out.extend_from_slice(text.as_bytes()));
        }
        Value::Ns(set) => {
            let body = table(NS, out);
            write_table(set.iter(), body, out, |n, out| out.extend_from_slice(n.as_str().as_bytes()));
        }
        Value::Bs(set) => {
            let body = table(BS, out);
            write_table(set.iter(), body, out, |bytes, out| out.extend_from_slice(bytes));
        }
    }
}

// Decoding.

/// The reason why bytes are not an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) &'static str);

impl From<Damage> for Error {
    #[cold]
    fn from(damage: Damage) -> Self {
        damaged(damage.0)
    }
}

/// What stands for the file in such an error.
pub(crate) const A_STORED_ITEM: &str = "a stored item";

/// The error for bytes that are not an item. The caller replaces the file by the real one: see [`crate::damage`].
fn damaged(why: impl Into<String>) -> Error {
    Error::Corruption { file: A_STORED_ITEM.into(), offset: 0, detail: why.into() }
}

const CUT_SHORT: Damage = Damage("a table is cut short");
const BAD_ENDS: Damage = Damage("the ends of a table do not fit its entries");
const BAD_ORDER: Damage = Damage("attributes are not in order");
const NOT_UTF8: Damage = Damage("text is not UTF-8");
pub(crate) const BAD_NUMBER: Damage = Damage("a number is not decimal text");

/// Where the attributes of an item are: what its version and the header of its table say. It is read and checked once;
/// each attribute is then found from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    count: u32,
    /// Bytes before the ends: the version and the header, of at most 5 bytes.
    ends_at: u8,
    width: u8,
}

impl Layout {
    #[inline]
    pub(crate) fn of(item: &[u8]) -> Result<Self> {
        let Some((&VERSION, table)) = item.split_first() else { return Err(other_encoding(item)) };
        let table = Table::parse(table)?;
        let ends_at = item.len() - table.ends.len() - table.body.len();
        // A header is a varint of 32 bits, two of which are the width.
        Ok(Self { count: table.count as u32, ends_at: ends_at as u8, width: table.width as u8 })
    }

    /// The attributes of the item that this is the layout of.
    #[inline]
    pub(crate) fn table(self, item: &[u8]) -> Result<Table<'_>, Damage> {
        let (count, width) = (self.count as usize, usize::from(self.width));
        let tail =
            item.get(usize::from(self.ends_at)..).and_then(|tail| tail.split_at_checked(count * width));
        let (ends, body) = tail.ok_or(CUT_SHORT)?;
        Ok(Table { count, width, ends, body })
    }
}

#[cold]
fn other_encoding(item: &[u8]) -> Error {
    match item.first() {
        Some(version) => damaged(format!("it has encoding {version}, this version reads {VERSION}")),
        None => Damage("there are no bytes").into(),
    }
}

/// A table whose header was checked. Its entries are checked individually as they are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    count: usize,
    /// Bytes per end.
    width: usize,
    ends: &'a [u8],
    body: &'a [u8],
}

#[inline(always)]
fn take_varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 { Some((usize::from(first), rest)) } else { take_long_varint(first, rest) }
}

#[cold]
fn take_long_varint(first: u8, mut rest: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = u32::from(first & 0x7f);
    let mut byte = first;
    let mut shift = 7;
    while byte >= 0x80 {
        (byte, rest) = rest.split_first().map(|(&byte, rest)| (byte, rest))?;
        let part = u32::from(byte & 0x7f);
        if shift > 28 || (shift == 28 && part > 0xf) {
            return None;
        }
        value |= part << shift;
        shift += 7;
    }
    // Only the shortest encoding of a number is valid, so that an item has a single encoding.
    (byte != 0).then_some((value as usize, rest))
}

impl<'a> Table<'a> {
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Damage> {
        let (header, rest) = take_varint(bytes).ok_or(CUT_SHORT)?;
        let count = header >> 2;
        let width = match header & 3 {
            0 => 1,
            1 => 2,
            2 => 4,
            _ => return Err(Damage("a table has an unknown width")),
        };
        let ends_len = count.checked_mul(width).ok_or(CUT_SHORT)?;
        let (ends, body) = rest.split_at_checked(ends_len).ok_or(CUT_SHORT)?;
        if width != width_of(body.len()).1 {
            return Err(Damage("a table is wider than it needs to be"));
        }
        let table = Self { count, width, ends, body };
        let last = if count == 0 { Some(0) } else { table.end(count - 1) };
        if last == Some(body.len()) { Ok(table) } else { Err(BAD_ENDS) }
    }

    /// Appends a copy of the table.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let (code, _) = width_of(self.body.len());
        put_varint(self.count << 2 | code, out);
        out.extend_from_slice(self.ends);
        out.extend_from_slice(self.body);
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    #[inline(always)]
    fn end(&self, i: usize) -> Option<usize> {
        let at = self.ends.get(i * self.width..)?;
        Some(match self.width {
            1 => usize::from(*at.first()?),
            2 => usize::from(u16::from_le_bytes(*at.first_chunk()?)),
            _ => u32::from_le_bytes(*at.first_chunk()?) as usize,
        })
    }

    /// The bytes of entry `i`, which must be below the count.
    #[inline(always)]
    pub(crate) fn entry(&self, i: usize) -> Result<&'a [u8], Damage> {
        let start = if i == 0 { Some(0) } else { self.end(i - 1) };
        start.zip(self.end(i)).and_then(|(start, end)| self.body.get(start..end)).ok_or(BAD_ENDS)
    }

    pub(crate) fn entries(self) -> impl ExactSizeIterator<Item = Result<&'a [u8], Damage>> {
        (0..self.count).map(move |i| self.entry(i))
    }

    /// The bytes of an attribute's name and value.
    #[inline(always)]
    pub(crate) fn attribute(&self, i: usize) -> Result<(&'a [u8], &'a [u8]), Damage> {
        take_varint(self.entry(i)?)
            .and_then(|(len, rest)| rest.split_at_checked(len))
            .ok_or(Damage("an attribute's name is cut short"))
    }

    /// The bytes of the value of the attribute with this name.
    #[inline]
    pub(crate) fn find(&self, name: &[u8]) -> Result<Option<&'a [u8]>, Damage> {
        let (mut from, mut to) = (0, self.count);
        while from < to {
            let middle = from + (to - from) / 2;
            let (here, value) = self.attribute(middle)?;
            // Names usually differ in their first byte, and comparing that takes no call.
            match here.first().cmp(&name.first()).then_with(|| here.cmp(name)) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
                std::cmp::Ordering::Equal => return Ok(Some(value)),
            }
        }
        Ok(None)
    }
}

/// A value whose own bytes were checked, but not yet the contents of a list, map or set.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Raw<'a> {
    S(&'a str),
    N(&'a str),
    B(&'a [u8]),
    Bool(bool),
    Null,
    L(Table<'a>),
    M(Table<'a>),
    Ss(Table<'a>),
    Ns(Table<'a>),
    Bs(Table<'a>),
}

#[cfg(test)]
thread_local! {
    /// How many values this thread has decoded.
    pub(crate) static PARSED: Cell<usize> = const { Cell::new(0) };
}

impl<'a> Raw<'a> {
    #[inline]
    pub(crate) fn parse(value: &'a [u8]) -> Result<Self, Damage> {
        #[cfg(test)]
        PARSED.set(PARSED.get() + 1);
        let (&tag, payload) = value.split_first().ok_or(Damage("a value has no type"))?;
        Ok(match tag {
            S => Self::S(text(payload)?),
            N => Self::N(number(payload)?),
            B => Self::B(payload),
            FALSE | TRUE | NULL if !payload.is_empty() => {
                return Err(Damage("a value is longer than its type"));
            }
            FALSE => Self::Bool(false),
            TRUE => Self::Bool(true),
            NULL => Self::Null,
            L => Self::L(Table::parse(payload)?),
            M => Self::M(Table::parse(payload)?),
            SS => Self::Ss(Table::parse(payload)?),
            NS => Self::Ns(Table::parse(payload)?),
            BS => Self::Bs(Table::parse(payload)?),
            _ => return Err(Damage("a value has an unknown type")),
        })
    }

    pub(crate) fn to_value(self, depth: usize) -> Result<Value, Damage> {
        check_depth(&self, depth)?;
        Ok(match self {
            Self::S(text) => Value::S(text.to_owned()),
            Self::N(text) => Value::N(Number::checked(text)),
            Self::B(bytes) => Value::B(bytes.to_vec()),
            Self::Bool(value) => Value::Bool(value),
            Self::Null => Value::Null,
            Self::L(table) => Value::L(
                table
                    .entries()
                    .map(|value| Raw::parse(value?)?.to_value(depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            Self::M(table) => Value::M(decode_map(table, depth + 1)?),
            Self::Ss(table) => Value::Ss(set(table, |bytes| text(bytes).map(str::to_owned))?),
            Self::Ns(table) => Value::Ns(set(table, |bytes| number(bytes).map(Number::checked))?),
            Self::Bs(table) => Value::Bs(set(table, |bytes| Ok(bytes.to_vec()))?),
        })
    }

    /// Checks the value and its contents.
    fn validate(self, depth: usize) -> Result<(), Damage> {
        check_depth(&self, depth)?;
        match self {
            Self::S(_) | Self::N(_) | Self::B(_) | Self::Bool(_) | Self::Null => Ok(()),
            Self::L(table) => table.entries().try_for_each(|value| Raw::parse(value?)?.validate(depth + 1)),
            Self::M(table) => validate_map(table, depth + 1),
            Self::Ss(_) | Self::Ns(_) | Self::Bs(_) => self.to_value(depth).map(drop),
        }
    }
}

fn check_depth(value: &Raw<'_>, depth: usize) -> Result<(), Damage> {
    let nests = !matches!(value, Raw::S(_) | Raw::N(_) | Raw::B(_) | Raw::Bool(_) | Raw::Null);
    match nests.then(|| check_nesting(depth)) {
        Some(Err(_)) => Err(Damage("lists, maps and sets nest too deep")),
        _ => Ok(()),
    }
}

#[inline]
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Damage> {
    std::str::from_utf8(bytes).map_err(|_| NOT_UTF8)
}

#[inline]
pub(crate) fn number(bytes: &[u8]) -> Result<&str, Damage> {
    let text = text(bytes)?;
    check_stored(text).map_err(|_| BAD_NUMBER)?;
    Ok(text)
}

fn set<T: Ord>(table: Table<'_>, member: impl Fn(&[u8]) -> Result<T, Damage>) -> Result<BTreeSet<T>, Damage> {
    let members = table.entries().map(|bytes| member(bytes?)).collect::<Result<Vec<T>, _>>()?;
    if members.is_empty() || !members.is_sorted_by(|a, b| a < b) {
        return Err(Damage("a set is empty or not in order"));
    }
    Ok(BTreeSet::from_iter(members))
}

/// Copies a map and its contents.
pub(crate) fn decode_map(table: Table<'_>, depth: usize) -> Result<Item, Damage> {
    let mut attributes: Vec<(String, Value)> = Vec::with_capacity(table.len());
    for i in 0..table.len() {
        let (name, value) = table.attribute(i)?;
        let name = text(name)?;
        if attributes.last().is_some_and(|(last, _)| last.as_str() >= name) {
            return Err(BAD_ORDER);
        }
        attributes.push((name.to_owned(), Raw::parse(value)?.to_value(depth)?));
    }
    Ok(Item::from_unsorted(attributes))
}

/// Checks a map and its contents.
pub(crate) fn validate_map(table: Table<'_>, depth: usize) -> Result<(), Damage> {
    let mut last: Option<&[u8]> = None;
    for i in 0..table.len() {
        let (name, value) = table.attribute(i)?;
        if last.is_some_and(|last| last >= name) {
            return Err(BAD_ORDER);
        }
        last = Some(name);
        text(name)?;
        Raw::parse(value)?.validate(depth)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_holds_one_item_after_the_other() {
        let item = |len| Item::builder().binary("b", vec![1; len]).string_set("s", ["x"]).build();
        let encoded = |item: &Item| with_encoded(item, |bytes| Ok(bytes.to_vec()));
        let kept = || {
            let buffer = BUFFER.take();
            let capacity = buffer.capacity();
            BUFFER.set(buffer);
            capacity
        };
        for len in [1000, 3, KEPT_BUFFER - 100, 7] {
            assert_eq!(encoded(&item(len)).unwrap(), item(len).encode().unwrap());
        }
        assert!(kept() > KEPT_BUFFER - 100);
        // Nor does an item that is refused leave anything behind.
        assert!(encoded(&Item::builder().string_set("s", [""; 0]).build()).is_err());
        assert_eq!(encoded(&item(7)).unwrap(), item(7).encode().unwrap());
        // A large buffer is freed.
        assert_eq!(encoded(&item(KEPT_BUFFER)).unwrap(), item(KEPT_BUFFER).encode().unwrap());
        assert_eq!(kept(), 0);
    }

    #[test]
    fn items_are_encoded_while_another_is_written() {
        let [outer, inner] = ["outer", "inner"].map(|text| Item::builder().string("s", text).build());
        let written = with_encoded(&outer, |bytes| {
            with_encoded(&inner, |bytes| {
                assert_eq!(bytes, inner.encode()?);
                Ok(())
            })?;
            Ok(bytes.to_vec())
        });
        assert_eq!(written.unwrap(), outer.encode().unwrap());
    }
}
