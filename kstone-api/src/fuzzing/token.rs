//! Tokens of pages.

use std::sync::OnceLock;

use kstone_core::fuzzing::Input;
use kstone_core::lsm::Direction;
use kstone_core::{Error, Key, PartitionRange, SortRange};

use crate::query::token::Origin;
use crate::{Database, Item, Query, Result, Scan, Token};

/// Keys that differ where their stored forms are escaped or end.
fn database() -> &'static Database {
    static DATABASE: OnceLock<Database> = OnceLock::new();
    DATABASE.get_or_init(|| {
        let db = Database::in_memory().expect("memory");
        for partition in ["p", "p\0", "p\0\0", "q"] {
            db.put(partition, Item::new()).expect("a key");
            for sort in ["", "\0", "\u{1}", "a", "a\0", "b"] {
                db.put((partition, sort), Item::new()).expect("a key");
            }
        }
        db
    })
}

/// One of the reads that tokens are made for.
#[derive(Clone, Copy)]
struct Read {
    kind: u8,
    reverse: bool,
}

impl Read {
    fn of(byte: u8) -> Self {
        Self { kind: byte / 2 % 5, reverse: byte.is_multiple_of(2) }
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..10).map(Self::of)
    }

    fn query(self) -> Query<'static> {
        let query = database().query("p");
        let query = match self.kind {
            0 => query,
            1 => query.sort_prefix("a"),
            _ => query.sort_after("\0").sort_to("a"),
        };
        if self.reverse { query.reverse() } else { query }
    }

    fn scan(self) -> Scan<'static> {
        let scan = database().scan().prefix(if self.kind == 3 { "" } else { "p\0" });
        if self.reverse { scan.reverse() } else { scan }
    }

    fn origin(self) -> Origin {
        let direction = if self.reverse { Direction::Reverse } else { Direction::Forward };
        let prefixed =
            |prefix: &[u8]| PartitionRange { prefix: prefix.to_vec(), ..PartitionRange::default() };
        let bytes = |text: &str| std::ops::Bound::Included(text.as_bytes().to_vec());
        match self.kind {
            0 => Origin::of_query(b"p", &SortRange::All, direction),
            1 => Origin::of_query(b"p", &SortRange::prefix("a"), direction),
            2 => {
                let range = SortRange::Between(std::ops::Bound::Excluded(vec![0]), bytes("a"));
                Origin::of_query(b"p", &range, direction)
            }
            3 => Origin::of_scan(&prefixed(b""), direction),
            _ => Origin::of_scan(&prefixed(b"p\0"), direction),
        }
    }

    fn keys(self, after: Option<&Token>) -> Result<Vec<Key<'static>>> {
        let items = if self.kind < 3 {
            let query = self.query();
            if let Some(token) = after { query.after(token) } else { query }.run()?
        } else {
            let scan = self.scan();
            if let Some(token) = after { scan.after(token) } else { scan }.run()?
        };
        items.keys().collect()
    }
}

/// If the first byte is even, the rest is the text of a token; if it is odd, the second chooses a read, and the rest is a
/// position in it.
pub fn token(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.byte().is_multiple_of(2) {
        let text = String::from_utf8_lossy(input.rest());
        match text.parse::<Token>() {
            Ok(token) => {
                assert_eq!(token.to_string(), text, "a token with two texts");
                // At most one of these is the read that it belongs to.
                let read = Read::all().filter(|read| read.keys(Some(&token)).is_ok()).count();
                assert!(read <= 1);
            }
            Err(error) => assert!(matches!(error, Error::InvalidToken { .. })),
        }
        return;
    }
    let read = Read::of(input.byte());
    let position = input.rest();
    let made = Token::new(read.origin(), position).to_string();
    let key = Key::decode(position).filter(|key| key.check().is_ok());
    let Some(key) = key else {
        assert!(matches!(made.parse::<Token>(), Err(Error::InvalidToken { .. })));
        return;
    };
    let token = made.parse::<Token>().expect("a position");
    let mut expected = read.keys(None).expect("a read");
    expected.retain(|other| if read.reverse { *other < key } else { *other > key });
    assert_eq!(read.keys(Some(&token)).expect("a token of this read"), expected, "{key:?}");
    let other = Read::all().find(|other| other.origin() != read.origin()).expect("there are ten");
    assert!(matches!(other.keys(Some(&token)), Err(Error::InvalidToken { .. })));
}

/// Seed inputs for [`token`].
pub fn token_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (n, read) in (0..).zip(Read::all()) {
        for (key, position) in [
            ("p", &b"p\0\0"[..]),
            ("p a", b"p\0\x01a"),
            ("p\0 b", b"p\0\xff\0\x01b"),
            ("before", b"\x01\0\x01"),
            ("behind", b"\xff\0\0"),
        ] {
            seeds.push([&[1, n], position].concat());
            if key.len() == 3 {
                let text = Token::new(read.origin(), position).to_string();
                seeds.push([&[0], text.as_bytes()].concat());
            }
        }
    }
    seeds.push(vec![1, 0]);
    seeds.push(b"\0AQ".to_vec());
    seeds
}
