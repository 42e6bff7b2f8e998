//! [`Token`]: a position within a query, as text.
//!
//! ```text
//! version    1 byte, 1
//! direction  1 byte: 0 forward, 1 reverse
//! origin     8 bytes, little-endian: the hash of the query
//! position   the stored form of a key
//! checksum   4 bytes, little-endian: of all before it
//! ```
//!
//! The text is that in base64url without padding. Tokens are kept by programs and their clients, so all of this, the hash
//! included, is a format.

use std::fmt;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kstone_core::lsm::Direction;
use kstone_core::{Error, Key, PartitionRange, Result, SortRange};
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u8 = 1;
const HEAD: usize = 10;
const CHECKSUM: usize = 4;
/// A key of zero bytes takes twice its length, and two bytes end it.
const LONGEST_POSITION: usize = 2 * (64 << 10) + 2;
/// Base64 writes three bytes as four characters.
const LONGEST_TEXT: usize = (HEAD + LONGEST_POSITION + CHECKSUM).div_ceil(3) * 4;

/// A position within the result of a [`Query`](crate::Query) or a [`Scan`](crate::Scan), from which a later read
/// continues: [`Page::next`](crate::Page::next), [`Items::token`](crate::Items::token),
/// [`Query::after`](crate::Query::after).
///
/// `Display` and `FromStr` convert it to and from text without characters that need escaping in a URL, for clients to
/// keep. It stays valid when the database is written to or reopened. The text contains the key of an item, encoded but not
/// encrypted, and a checksum against damage, not against forgery: whoever may send a token chooses where in the query, and
/// nowhere else, a read begins.
///
/// ```
/// use kstone_api::{Database, Item, Token};
///
/// let db = Database::in_memory()?;
/// for day in ["2026-02-01", "2026-02-02"] {
///     db.put(("log", day), Item::new())?;
/// }
/// let page = db.query("log").limit(1).page()?;
/// let text = page.next.expect("there is a second").to_string();
///
/// let token: Token = text.parse()?;
/// assert_eq!(db.query("log").after(&token).count()?, 1);
/// assert_eq!(db.query("other").after(&token).count().unwrap_err().code(), "invalid_token");
/// # Ok::<(), kstone_api::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token {
    origin: Origin,
    /// The stored form of a valid key.
    position: Box<[u8]>,
}

/// The query that a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    reverse: bool,
    hash: u64,
}

/// A read that tokens may be made of. Most reads make none, so that what they belong to is hashed only then.
#[derive(Debug)]
pub(super) enum Reading {
    Query(Vec<u8>, SortRange, Direction),
    Scan(PartitionRange, Direction),
}

impl Reading {
    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::Query(partition, range, direction) => Origin::of_query(partition, range, *direction),
            Self::Scan(partitions, direction) => Origin::of_scan(partitions, *direction),
        }
    }
}

/// What is hashed: numbers and byte strings, none of which can be taken for a part of another.
struct Identity(Vec<u8>);

/// The numbers of a table and of an index. There is one table, and no index.
const TABLE: u32 = 0;
const INDEX: u32 = 0;

impl Identity {
    fn new(kind: u8, table: u32, index: u32, direction: Direction) -> Self {
        let mut bytes = b"kstone token".to_vec();
        bytes.extend_from_slice(&[VERSION, kind, u8::from(direction == Direction::Reverse)]);
        bytes.extend_from_slice(&table.to_le_bytes());
        bytes.extend_from_slice(&index.to_le_bytes());
        Self(bytes)
    }

    fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.0.push(tag);
        self.0.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn bound(&mut self, bound: &Bound<Vec<u8>>) {
        match bound {
            Unbounded => self.bytes(0, &[]),
            Included(sort) => self.bytes(1, sort),
            Excluded(sort) => self.bytes(2, sort),
        }
    }

    fn origin(self, direction: Direction) -> Origin {
        Origin { reverse: direction == Direction::Reverse, hash: xxh3_64(&self.0) }
    }
}

impl Origin {
    pub(crate) fn of_query(partition: &[u8], range: &SortRange, direction: Direction) -> Self {
        Self::of_query_in(TABLE, INDEX, partition, range, direction)
    }

    fn of_query_in(
        table: u32,
        index: u32,
        partition: &[u8],
        range: &SortRange,
        direction: Direction,
    ) -> Self {
        let mut identity = Identity::new(1, table, index, direction);
        identity.bytes(0, partition);
        match range {
            SortRange::All => identity.bytes(3, &[]),
            SortRange::Prefix(prefix) => identity.bytes(4, prefix),
            SortRange::Between(from, to) => {
                identity.bound(from);
                identity.bound(to);
            }
        }
        identity.origin(direction)
    }

    pub(crate) fn of_scan(partitions: &PartitionRange, direction: Direction) -> Self {
        let PartitionRange { prefix, from, to } = partitions;
        let mut identity = Identity::new(2, TABLE, INDEX, direction);
        identity.bytes(0, prefix);
        // Tokens of scans without bounds are older than bounds.
        from.iter().for_each(|from| identity.bytes(1, from));
        to.iter().for_each(|to| identity.bytes(2, to));
        identity.origin(direction)
    }
}

impl Token {
    /// `position`: the stored form of a key.
    pub(crate) fn new(origin: Origin, position: &[u8]) -> Self {
        Self { origin, position: position.into() }
    }

    /// The position, if the token belongs to that query.
    pub(crate) fn position_in(&self, origin: Origin) -> Result<Key<'static>> {
        if self.origin.reverse != origin.reverse {
            return Err(invalid("it belongs to a query in the other direction"));
        }
        if self.origin != origin {
            return Err(invalid("it belongs to another query"));
        }
        let key = Key::decode(&self.position).ok_or_else(damaged)?;
        Ok(key.into_owned())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.position.len() + CHECKSUM);
        bytes.extend_from_slice(&[VERSION, self.origin.reverse.into()]);
        bytes.extend_from_slice(&self.origin.hash.to_le_bytes());
        bytes.extend_from_slice(&self.position);
        bytes.extend_from_slice(&checksum(&bytes));
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(version) => return Err(invalid(&format!("version {version} is not known"))),
            None => return Err(invalid("it is empty")),
        }
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or_else(damaged)?;
        if checksum(body) != *sum {
            return Err(damaged());
        }
        let ([_, direction, hash @ ..], position) = body.split_first_chunk::<HEAD>().ok_or_else(damaged)?;
        let reverse = match direction {
            0 => false,
            1 => true,
            _ => return Err(damaged()),
        };
        Key::decode(position).filter(|key| key.check().is_ok()).ok_or_else(damaged)?;
        Ok(Self::new(Origin { reverse, hash: u64::from_le_bytes(*hash) }, position))
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    (xxh3_64(bytes) as u32).to_le_bytes()
}

fn invalid(why: &str) -> Error {
    Error::InvalidToken { why: why.into() }
}

fn damaged() -> Error {
    invalid("it is damaged")
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.encode()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

impl FromStr for Token {
    type Err = Error;

    /// Reads what `Display` writes, and nothing else: no padding, no spaces.
    ///
    /// # Errors
    /// `InvalidToken`: the text is damaged, or no token.
    fn from_str(text: &str) -> Result<Self> {
        // Before any memory is allocated for it.
        if text.len() > LONGEST_TEXT {
            return Err(invalid(&format!("{} characters are more than a token has", text.len())));
        }
        let bytes =
            URL_SAFE_NO_PAD.decode(text).map_err(|error| invalid(&format!("not base64url: {error}")))?;
        Self::decode(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixed(prefix: &[u8]) -> PartitionRange {
        PartitionRange { prefix: prefix.to_vec(), ..PartitionRange::default() }
    }
    use std::collections::BTreeSet;

    /// Every part of a query changes its hash, and no part can be moved into its neighbour.
    #[test]
    fn each_query_has_a_hash_of_its_own() {
        let (forward, reverse) = (Direction::Forward, Direction::Reverse);
        let text = |text: &str| text.as_bytes().to_vec();
        let ranges = [
            SortRange::All,
            SortRange::prefix(""),
            SortRange::prefix("a"),
            SortRange::prefix("ab"),
            SortRange::from("a"),
            SortRange::after("a"),
            SortRange::to("a"),
            SortRange::before("a"),
            SortRange::between("a", "b"),
            SortRange::between("a", ""),
            SortRange::between("", "a"),
            SortRange::Between(Unbounded, Unbounded),
            SortRange::Between(Included(text("a")), Excluded(text("b"))),
            SortRange::Between(Excluded(text("a")), Included(text("b"))),
        ];
        let mut origins = Vec::new();
        for direction in [forward, reverse] {
            for partition in ["p", "pa", "q", "p\0"] {
                for range in &ranges {
                    origins.push(Origin::of_query(partition.as_bytes(), range, direction));
                }
            }
            for prefix in ["", "p", "pa"] {
                origins.push(Origin::of_scan(&prefixed(prefix.as_bytes()), direction));
            }
            for (from, to) in
                [(Some("a"), None), (None, Some("a")), (Some("a"), Some("b")), (Some("ab"), None)]
            {
                let (from, to) = (from.map(text), to.map(text));
                origins.push(Origin::of_scan(&PartitionRange { from, to, ..prefixed(b"") }, direction));
            }
            for (table, index) in [(1, 0), (0, 1), (1, 1), (1 << 8, 0)] {
                origins.push(Origin::of_query_in(table, index, b"p", &SortRange::All, direction));
            }
        }
        let hashes: BTreeSet<u64> = origins.iter().map(|origin| origin.hash).collect();
        assert_eq!(hashes.len(), origins.len());
        let token = Token::new(origins[0], b"p\0\0");
        for origin in &origins[1..] {
            assert_eq!(token.position_in(*origin).unwrap_err().code(), "invalid_token", "{origin:?}");
        }
        assert_eq!(token.position_in(origins[0]).unwrap(), Key::new("p"));
    }

    #[test]
    fn only_what_was_written_is_read() {
        let origin = Origin::of_scan(&prefixed(b""), Direction::Reverse);
        let forged = |head: &[u8], position: &[u8]| {
            let mut bytes = [head, &7u64.to_le_bytes(), position].concat();
            bytes.extend_from_slice(&checksum(&bytes));
            URL_SAFE_NO_PAD.encode(bytes).parse::<Token>()
        };
        let token = Token::new(origin, b"user\0\x01sort");
        assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        assert!(forged(&[1, 1], b"user\0\x01sort").is_ok());
        let long = [&[b'k'; 65_537][..], &[0, 0]].concat();
        for (head, position) in [
            (&[2, 0], &b"user\0\0"[..]),
            (&[0, 0], b"user\0\0"),
            (&[1, 2], b"user\0\0"),
            (&[1, 0], b""),
            (&[1, 0], b"\0\0"),
            (&[1, 0], b"user"),
            (&[1, 0], b"user\0\0x"),
            (&[1, 0], &long),
        ] {
            assert_eq!(forged(head, position).unwrap_err().code(), "invalid_token", "{head:?} {position:?}");
        }
    }

    /// Tokens outlive the program that made them. These were computed from the description of the format, by another
    /// program.
    #[test]
    fn the_text_is_a_format() {
        let range = SortRange::Between(Included(b"2026".to_vec()), Unbounded);
        let query = Origin::of_query(b"log", &range, Direction::Forward);
        let scan = Origin::of_scan(&prefixed(b"user#"), Direction::Reverse);
        assert_eq!(Token::new(query, b"log\0\x012026-02").to_string(), "AQA5RZfPQ-t_p2xvZwABMjAyNi0wMtX_PKs");
        assert_eq!(Token::new(scan, b"user#1\0\0").to_string(), "AQFuxW1cbWxxP3VzZXIjMQAA9bxtJw");
    }

    #[test]
    fn the_longest_key_has_a_token() {
        let origin = Origin::of_scan(&prefixed(b""), Direction::Forward);
        let position = [[0, 0xff].repeat(64 << 10), vec![0, 0]].concat();
        let text = Token::new(origin, &position).to_string();
        assert_eq!(text.len().div_ceil(4) * 4, LONGEST_TEXT);
        let key = text.parse::<Token>().unwrap().position_in(origin).unwrap();
        assert_eq!(key.partition(), vec![0; 64 << 10]);
        let error = format!("{text}AAAA").parse::<Token>().unwrap_err();
        assert!(error.to_string().contains("more than a token has"), "{error}");
    }
}
