//! Converts JSON text to the stored form as it is read: neither the text nor an [`Item`](crate::Item) is ever in memory
//! as a whole. Memory holds the stored form, a second copy of it while attributes are sorted, and four bytes per entry.
//!
//! The entries of a table are written in sequence, and the start of each is recorded; at the end of the table, its
//! header and ends are inserted before them. The limit is enforced while text is read, so a line that cannot become an
//! item, even an endless one, is abandoned as soon as its stored form would exceed the limit.
//!
//! Numbers are the reason for a parser of our own: they are stored with their exact text, which serde_json exposes only
//! for values that are in memory as a whole.

use std::cmp::Ordering;
use std::io::{self, BufRead};

use kstone_core::{Error, Result};

use super::{
    FALSE, L, M, MAX_DEPTH, N, NULL, S, TRUE, VERSION, patch, put_varint, take_varint, varint_len, width_of,
};
use crate::item::Item;
use crate::item_error::ItemError;
use crate::number::check_stored;
use crate::view::{ItemView, MapView};

mod dynamodb;
mod lines;

pub use lines::JsonLines;

/// Longer text cannot be a number.
const MAX_NUMBER: usize = 400;
/// Names are cut off at this length in errors.
const NAME_SHOWN: usize = 64;
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// An item in its stored form, built from JSON text without an intermediate [`Item`](crate::Item).
///
/// ```
/// use kstone_api::EncodedItem;
///
/// let item = EncodedItem::read_json(&mut &br#"{"name":"Ann","age":42}"#[..], 1 << 20)??;
/// assert_eq!(item.view()?.to_item()?.to_string(), r#"{"age":42,"name":"Ann"}"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedItem {
    bytes: Vec<u8>,
}

impl EncodedItem {
    /// Reads one JSON object, which must be the whole input. The inner error is about the text, as from
    /// [`Item::from_json_str`](crate::Item::from_json_str); it is `ItemTooLarge` as soon as the item would exceed
    /// `max_item_bytes`, with the length counted so far.
    pub fn read_json(input: &mut impl BufRead, max_item_bytes: usize) -> io::Result<Result<Self>> {
        let mut parser = Parser::new(input, false, max_item_bytes);
        parser.skip_mark()?;
        match parser.item().and_then(|()| parser.expect_end()) {
            Ok(()) => Ok(Ok(Self { bytes: parser.out })),
            Err(stop) => stop.into_result(),
        }
    }

    /// Encodes an item.
    ///
    /// ```
    /// use kstone_api::{EncodedItem, Item};
    ///
    /// let item = Item::from([("age", 42)]);
    /// assert_eq!(EncodedItem::new(&item)?.as_bytes(), item.encode()?);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidNumber` or `InvalidItem` if the item cannot be stored.
    pub fn new(item: &Item) -> Result<Self> {
        Ok(Self { bytes: item.encode()? })
    }

    /// A copy of a map within an item, as an item of its own.
    ///
    /// ```
    /// use kstone_api::{EncodedItem, ValueView};
    ///
    /// let outer = EncodedItem::read_json(&mut &br#"{"item":{"age":42}}"#[..], 1 << 20).unwrap()?;
    /// let view = outer.view()?;
    /// let map = view.get("item")?.and_then(ValueView::as_map).expect("it is a map");
    /// assert_eq!(EncodedItem::of_map(map).view()?.to_item()?.to_string(), r#"{"age":42}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    pub fn of_map(map: MapView<'_>) -> Self {
        let mut bytes = vec![VERSION];
        map.table().write(&mut bytes);
        Self { bytes }
    }

    /// A copy without these attributes; those that are not there are ignored.
    ///
    /// ```
    /// use kstone_api::EncodedItem;
    ///
    /// let item = EncodedItem::read_json(&mut &br#"{"pk":"user#42","age":42}"#[..], 1 << 20).unwrap()?;
    /// assert_eq!(item.without(&["pk", "sk"])?.view()?.to_item()?.to_string(), r#"{"age":42}"#);
    /// # Ok::<(), kstone_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// None for an item that was read or encoded here.
    pub fn without(&self, names: &[&str]) -> Result<Self> {
        let edits: Vec<_> = names.iter().map(|&name| (name, None)).collect();
        Ok(Self { bytes: patch(&self.bytes, &edits)? })
    }

    /// A view of the item, for reading attributes in place.
    pub fn view(&self) -> Result<ItemView<&[u8]>> {
        ItemView::new(self.bytes.as_slice())
    }

    /// The stored bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The reason why parsing an item stopped early.
enum Stop {
    Io(io::Error),
    ItemError(ItemError),
    TooLarge { len: usize, max: usize },
}

impl Stop {
    fn into_result<T>(self) -> io::Result<Result<T>> {
        match self {
            Self::Io(e) => Err(e),
            Self::ItemError(error) => Ok(Err(error.into_error())),
            Self::TooLarge { len, max } => Ok(Err(Error::ItemTooLarge { len, max })),
        }
    }

    fn within(self, name: &str) -> Self {
        match self {
            Self::ItemError(error) => Self::ItemError(error.within(name)),
            other => other,
        }
    }
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

fn invalid<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::ItemError(ItemError::new(why)))
}

/// The table being written: where its entries start in `out` and in `starts`.
#[derive(Clone, Copy)]
struct Frame {
    body: usize,
    first: usize,
}

struct Parser<'r, R> {
    input: &'r mut R,
    /// Whether a line feed ends the text.
    line: bool,
    /// Bytes read so far.
    at: u64,
    out: Vec<u8>,
    /// Where entries start in `out`, for all open tables.
    starts: Vec<u32>,
    frame: Frame,
    max: usize,
    /// How deep values may nest.
    max_depth: usize,
    /// The item is complete.
    whole: bool,
}

/// Reads one value; the number is how many others it is nested in.
type ReadValue<'r, R> = fn(&mut Parser<'r, R>, usize) -> Result<(), Stop>;

impl<'r, R: BufRead> Parser<'r, R> {
    fn new(input: &'r mut R, line: bool, max: usize) -> Self {
        // The largest length that `starts` and the header of a table can represent.
        let max = max.min(1 << 29);
        let frame = Frame { body: 1, first: 0 };
        let (out, starts) = (Vec::new(), Vec::new());
        Self { input, line, at: 0, out, starts, frame, max, max_depth: MAX_DEPTH, whole: false }
    }

    /// The next byte, without consuming it.
    fn byte(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.input.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                buffer => return Ok(buffer?.first().copied()),
            }
        }
    }

    /// The next byte of the text, without consuming it; `None` at its end.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.byte()?.filter(|&byte| byte != b'\n' || !self.line))
    }

    fn bump(&mut self) {
        self.input.consume(1);
        self.at += 1;
    }

    fn next(&mut self) -> io::Result<Option<u8>> {
        let byte = self.peek()?;
        if byte.is_some() {
            self.bump();
        }
        Ok(byte)
    }

    fn space(&mut self) -> io::Result<()> {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek()? {
            self.bump();
        }
        Ok(())
    }

    fn skip_mark(&mut self) -> io::Result<()> {
        // The first byte of the mark cannot start JSON, so an incomplete mark is reported as an error later.
        for byte in BYTE_ORDER_MARK {
            if self.peek()? != Some(byte) {
                break;
            }
            self.bump();
        }
        Ok(())
    }

    fn unexpected<T>(&mut self, expected: &str) -> Result<T, Stop> {
        let end = if self.peek()?.is_none() { ", at the end of the text" } else { "" };
        invalid(format!("not a JSON object: {expected} is missing at byte {}{end}", self.at + 1))
    }

    fn expect(&mut self, byte: u8) -> Result<(), Stop> {
        if self.peek()? == Some(byte) {
            self.bump();
            return Ok(());
        }
        self.unexpected(&format!("a {:?}", char::from(byte)))
    }

    fn expect_end(&mut self) -> Result<(), Stop> {
        self.space()?;
        match self.peek()? {
            None => Ok(()),
            Some(_) => {
                invalid(format!("not a JSON object: there is text after its end, at byte {}", self.at + 1))
            }
        }
    }

    /// Checks the length so far against the limit: the bytes, and the ends at their smallest possible width.
    fn check(&self) -> Result<(), Stop> {
        let (_, width) = width_of(self.out.len() - self.frame.body);
        let ends = self.frame.first + (self.starts.len() - self.frame.first) * width;
        self.check_len(self.out.len() + ends)
    }

    fn check_len(&self, len: usize) -> Result<(), Stop> {
        if len <= self.max { Ok(()) } else { Err(Stop::TooLarge { len, max: self.max }) }
    }

    fn push(&mut self, byte: u8) -> Result<(), Stop> {
        self.out.push(byte);
        self.check()
    }

    fn item(&mut self) -> Result<(), Stop> {
        self.out = Vec::with_capacity(256);
        self.out.push(VERSION);
        self.space()?;
        if self.peek()? != Some(b'{') {
            return invalid("not a JSON object, as an item must be");
        }
        self.object(0, Self::value)?;
        self.whole = true;
        Ok(())
    }

    /// Reads a table: entries read by `entry`, separated by commas, up to `close`.
    fn table(
        &mut self,
        close: u8,
        mut entry: impl FnMut(&mut Self, usize) -> Result<(), Stop>,
        done: impl FnOnce(&mut Self) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.bump();
        let frame = Frame { body: self.out.len(), first: self.starts.len() };
        let outer = std::mem::replace(&mut self.frame, frame);
        self.space()?;
        if self.peek()? == Some(close) {
            self.bump();
        } else {
            for i in 0.. {
                self.space()?;
                self.starts.push(self.out.len() as u32);
                entry(self, i)?;
                self.check()?;
                self.space()?;
                match self.peek()? {
                    Some(b',') => self.bump(),
                    Some(byte) if byte == close => {
                        self.bump();
                        break;
                    }
                    _ => return self.unexpected(&format!("a ',' or a {:?}", char::from(close))),
                }
            }
        }
        done(self)?;
        self.close()?;
        self.frame = outer;
        Ok(())
    }

    /// Reads a table of attributes, whose values `value` reads.
    fn object(&mut self, depth: usize, value: ReadValue<'r, R>) -> Result<(), Stop> {
        let attribute = |this: &mut Self, _| {
            let name = this.out.len();
            if this.peek()? != Some(b'"') {
                return this.unexpected("a name in quotes");
            }
            this.string()?;
            let len = this.out.len() - name;
            let end = this.out.len();
            put_varint(len, &mut this.out);
            let prefix = this.out.len() - end;
            if let Some(bytes) = this.out.get_mut(name..) {
                bytes.rotate_right(prefix);
            }
            this.space()?;
            this.expect(b':')?;
            this.space()?;
            value(this, depth).map_err(|stop| {
                let shown = name + prefix..name + prefix + len.min(NAME_SHOWN);
                stop.within(&String::from_utf8_lossy(this.out.get(shown).unwrap_or_default()))
            })
        };
        self.table(b'}', attribute, Self::sort)
    }

    /// Reads a table of values.
    fn list(&mut self, depth: usize, value: ReadValue<'r, R>) -> Result<(), Stop> {
        let value =
            |this: &mut Self, i: usize| value(this, depth).map_err(|stop| stop.within(&i.to_string()));
        self.table(b']', value, |_| Ok(()))
    }

    fn nested(&self, depth: usize) -> Result<(), Stop> {
        if depth < self.max_depth {
            return Ok(());
        }
        invalid(format!("lists and maps nest deeper than {MAX_DEPTH} levels"))
    }

    fn value(&mut self, depth: usize) -> Result<(), Stop> {
        match self.peek()? {
            Some(b'"') => {
                self.push(S)?;
                self.string()
            }
            Some(b'{') => {
                self.nested(depth)?;
                self.push(M)?;
                self.object(depth + 1, Self::value)
            }
            Some(b'[') => {
                self.nested(depth)?;
                self.push(L)?;
                self.list(depth + 1, Self::value)
            }
            Some(b't') => self.word("true", TRUE),
            Some(b'f') => self.word("false", FALSE),
            Some(b'n') => self.word("null", NULL),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.unexpected("a value"),
        }
    }

    fn word(&mut self, word: &str, tag: u8) -> Result<(), Stop> {
        for byte in word.bytes() {
            if self.peek()? != Some(byte) {
                return self.unexpected(&format!("the rest of {word:?}"));
            }
            self.bump();
        }
        self.push(tag)
    }

    fn number(&mut self) -> Result<(), Stop> {
        self.push(N)?;
        let from = self.out.len();
        while let Some(byte @ (b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) = self.peek()?
            && self.out.len() - from <= MAX_NUMBER
        {
            self.bump();
            self.out.push(byte);
        }
        // All of the text is ASCII.
        let text = std::str::from_utf8(self.out.get(from..).unwrap_or_default()).unwrap_or_default();
        check_stored(text).map_err(|e| Stop::ItemError(e.into()))
    }

    fn string(&mut self) -> Result<(), Stop> {
        self.bump();
        let from = self.out.len();
        loop {
            let (len, found) = match self.input.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
                Ok([]) => return self.unexpected("a closing quote"),
                Ok(buffer) => {
                    let special = |&byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
                    let end = buffer.iter().position(special);
                    let plain = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
                    self.out.extend_from_slice(plain);
                    (plain.len(), end.and_then(|at| buffer.get(at).copied()))
                }
            };
            self.input.consume(len);
            self.at += len as u64;
            self.check()?;
            match found {
                None => {}
                Some(b'"') => {
                    self.bump();
                    break;
                }
                Some(b'\\') => self.escape()?,
                Some(b'\n') if self.line => return self.unexpected("a closing quote"),
                Some(_) => {
                    return invalid(format!(
                        "not a JSON object: a control character in a string, at byte {}",
                        self.at + 1
                    ));
                }
            }
        }
        match std::str::from_utf8(self.out.get(from..).unwrap_or_default()) {
            Ok(_) => Ok(()),
            Err(_) => invalid(format!("not UTF-8: the string that ends at byte {}", self.at)),
        }
    }

    fn escape(&mut self) -> Result<(), Stop> {
        self.bump();
        let c = match self.next()? {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => self.escaped_char()?,
            _ => return self.unexpected("a valid character after a backslash"),
        };
        self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        self.check()
    }

    fn escaped_char(&mut self) -> Result<char, Stop> {
        let first = self.hex()?;
        let code = match first {
            0xd800..0xdc00 => {
                self.expect(b'\\')?;
                self.expect(b'u')?;
                match self.hex()? {
                    second @ 0xdc00..0xe000 => 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                    _ => first,
                }
            }
            code => code,
        };
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => {
                invalid(format!("not a JSON object: half of a surrogate pair, before byte {}", self.at + 1))
            }
        }
    }

    fn hex(&mut self) -> Result<u32, Stop> {
        let mut code = 0;
        for _ in 0..4 {
            match self.peek()?.and_then(|byte| char::from(byte).to_digit(16)) {
                Some(digit) => code = code << 4 | digit,
                None => return self.unexpected("a hexadecimal digit"),
            }
            self.bump();
        }
        Ok(code)
    }

    /// The bytes of an entry of the innermost table.
    fn entry(&self, i: u32) -> &[u8] {
        let at = self.frame.first + i as usize;
        let start = self.starts.get(at);
        debug_assert!(start.is_some(), "callers stay below the number of entries");
        let Some(&start) = start else { return &[] };
        let end = self.starts.get(at + 1).map_or(self.out.len(), |&end| end as usize);
        self.out.get(start as usize..end).unwrap_or_default()
    }

    /// The name that an entry of the innermost table starts with.
    fn name(&self, i: u32) -> &[u8] {
        take_varint(self.entry(i)).and_then(|(len, rest)| rest.get(..len)).unwrap_or_default()
    }

    /// Sorts the attributes of the innermost table by name, and refuses duplicate names.
    fn sort(&mut self) -> Result<(), Stop> {
        let twice = self.arrange(|this, a, b| this.name(a).cmp(this.name(b)));
        let Some(twice) = twice else { return Ok(()) };
        let name = self.name(twice);
        let shown = String::from_utf8_lossy(name.get(..NAME_SHOWN).unwrap_or(name)).into_owned();
        Err(Stop::ItemError(ItemError::new("there are two attributes of this name")).within(&shown))
    }

    /// Sorts the entries of the innermost table, unless two of them are equal: then it returns one of these.
    fn arrange(&mut self, order_of: impl Fn(&Self, u32, u32) -> Ordering) -> Option<u32> {
        let count = (self.starts.len() - self.frame.first) as u32;
        if (1..count).all(|i| order_of(self, i - 1, i).is_lt()) {
            return None;
        }
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_unstable_by(|&a, &b| order_of(self, a, b));
        let next = order.iter().skip(1);
        let twice = order.iter().zip(next).find(|&(&a, &b)| order_of(self, a, b).is_eq());
        if let Some((&twice, _)) = twice {
            return Some(twice);
        }
        let mut sorted = Vec::with_capacity(self.out.len() - self.frame.body);
        for place in &mut order {
            let start = self.frame.body + sorted.len();
            sorted.extend_from_slice(self.entry(*place));
            *place = start as u32;
        }
        self.out.truncate(self.frame.body);
        self.out.append(&mut sorted);
        self.starts.truncate(self.frame.first);
        self.starts.append(&mut order);
        None
    }

    /// Inserts the header and the ends of the innermost table before its entries.
    fn close(&mut self) -> Result<(), Stop> {
        let Frame { body: from, first } = self.frame;
        let (len, count) = (self.out.len() - from, self.starts.len() - first);
        let (code, width) = width_of(len);
        let head = varint_len(count << 2) + count * width;
        self.check_len(self.out.len() + head + first)?;
        let mut header = Vec::with_capacity(8);
        put_varint(count << 2 | code, &mut header);
        self.out.resize(from + len + head, 0);
        self.out.copy_within(from..from + len, from + head);
        let mut write = |at: usize, bytes: &[u8]| {
            if let Some(to) = self.out.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        };
        write(from, &header);
        let mut slot = from + header.len();
        // An empty table has no more starts.
        let starts = self.starts.get(first + 1..).unwrap_or_default();
        let ends = starts.iter().map(|&start| start as usize - from).chain((count > 0).then_some(len));
        for end in ends {
            write(slot, (end as u32).to_le_bytes().get(..width).unwrap_or_default());
            slot += width;
        }
        self.starts.truncate(first);
        Ok(())
    }
}
