//! Keys as text: as the command line takes them, and for debugging.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use super::Key;
use crate::error::Error;
use crate::escape;

/// An empty part. A part of two quotes is escaped, so that it looks different.
const EMPTY: &str = "\"\"";

/// As the command line takes keys: the partition key, and after a space the sort key if there is one. Printable text is
/// unchanged; every other byte is written `\xNN`, as are spaces, so that the two parts can be told apart; a backslash is
/// written `\\`, and an empty part `""`. [`FromStr`] reads it back, and so does the command line, word by word. In a
/// shell, quote words with special characters, such as the backslash.
///
/// ```
/// use kstone_core::Key;
///
/// assert_eq!(Key::from("user#42").to_string(), "user#42");
/// assert_eq!(Key::from(("US", "KJFK")).to_string(), "US KJFK");
/// assert_eq!(Key::from(("New York", 7_u16)).to_string(), r"New\x20York \x00\x07");
/// assert_eq!(Key::from(("US", "")).to_string(), r#"US """#);
/// ```
impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = word(self.partition());
        if let Some(sort) = self.sort() {
            text.push(' ');
            text.push_str(&word(sort));
        }
        f.pad(&text)
    }
}

fn word(part: &[u8]) -> String {
    match part {
        b"" => EMPTY.to_owned(),
        b"\"\"" => "\\x22\\x22".to_owned(),
        _ => escape::key(part).replace(' ', "\\x20"),
    }
}

/// Reads a key from the text that its [`Display`](fmt::Display) prints: one word, or two with one space between them.
///
/// ```
/// use kstone_core::Key;
///
/// assert_eq!("user#42".parse::<Key>()?, Key::from("user#42"));
/// assert_eq!(r"New\x20York \x00\x07".parse::<Key>()?, Key::from(("New York", 7_u16)));
/// assert_eq!("one two three".parse::<Key>().unwrap_err().code(), "invalid_key");
/// # Ok::<(), kstone_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidKey` if there are more than two words, a word is missing, the partition key is empty, or a backslash starts
/// neither `\xNN` nor `\\`; `KeyTooLarge`.
impl FromStr for Key<'static> {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let part = |word: &str| match word {
            "" => Err(Error::InvalidKey {
                why: "a part is missing: an empty one is written \"\", a space \\x20".into(),
            }),
            EMPTY => Ok(Vec::new()),
            word if word.contains(' ') => Err(Error::InvalidKey {
                why: "it has more than two parts: a space within a part is written \\x20".into(),
            }),
            word => escape::parse_key(word),
        };
        let key = match text.split_once(' ') {
            None => Key::new(part(text)?),
            Some((partition, sort)) => Key::with_sort(part(partition)?, part(sort)?),
        };
        key.check()?;
        Ok(key)
    }
}

/// `Key("US", "KJFK")`, with bytes that are not printable text as `\xNN`.
impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = f.debug_tuple("Key");
        parts.field(&Quoted(self.partition()));
        if let Some(sort) = self.sort() {
            parts.field(&Quoted(sort));
        }
        parts.finish()
    }
}

struct Quoted<'a>(&'a [u8]);

impl fmt::Debug for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        f.write_str(&escape::key(self.0).replace('"', "\\\""))?;
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part() -> impl Strategy<Value = Vec<u8>> {
        let near = proptest::collection::vec(
            prop_oneof![Just(b' '), Just(b'"'), Just(b'\\'), Just(b'x'), Just(b'0'), Just(0)],
            0..5,
        );
        prop_oneof![
            near,
            proptest::collection::vec(any::<u8>(), 0..12),
            ".{0,8}".prop_map(String::into_bytes)
        ]
    }

    proptest! {
        #[test]
        fn the_text_of_a_key_is_read_back(partition in part(), sort in proptest::option::of(part())) {
            let key = match &sort {
                None => Key::new(&partition),
                Some(sort) => Key::with_sort(&partition, sort),
            };
            let text = key.to_string();
            prop_assert!(text.chars().all(escape::is_shown), "{}", text);
            match text.parse::<Key<'_>>() {
                Ok(read) => prop_assert_eq!(&read, &key),
                Err(error) => prop_assert!(partition.is_empty(), "{}: {}", text, error),
            }
            let debug = format!("{key:?}");
            prop_assert!(debug.chars().all(escape::is_shown), "{}", debug);
        }

        #[test]
        fn any_text_is_a_key_or_refused(text in ".{0,12}") {
            if let Ok(key) = text.parse::<Key<'_>>() {
                prop_assert_eq!(key.to_string().parse::<Key<'_>>().unwrap(), key);
            }
        }
    }

    #[test]
    fn text_that_is_no_key_is_refused() {
        for text in ["", " ", "a ", " a", "a  b", "a b c", "\"\"", "\"\" a", "a\\", "a \\n", "\\x4"] {
            assert!(matches!(text.parse::<Key<'_>>(), Err(Error::InvalidKey { .. })), "{text:?}");
        }
        let long = "x".repeat(65_537);
        assert!(matches!(long.parse::<Key<'_>>(), Err(Error::KeyTooLarge { .. })));
        assert_eq!("a \"\"".parse::<Key<'_>>().unwrap(), Key::from(("a", "")));
        assert_eq!("\\x22\\x22".parse::<Key<'_>>().unwrap(), Key::from("\"\""));
    }

    #[test]
    fn debug_can_be_read() {
        let debug = |key: Key<'_>| format!("{key:?}");
        assert_eq!(debug(Key::from(("US", "KJFK"))), r#"Key("US", "KJFK")"#);
        assert_eq!(debug(Key::from("Zürich")), r#"Key("Zürich")"#);
        assert_eq!(debug(Key::from((b"a\0\xff\n", ""))), r#"Key("a\x00\xff\x0a", "")"#);
        assert_eq!(debug(Key::from(("say \"hi\"", "a\\b"))), r#"Key("say \"hi\"", "a\\b")"#);
        assert_eq!(format!("{:#?}", Key::from("a")), "Key(\n    \"a\",\n)");
        assert_eq!(format!("[{:>9}]", Key::from(("US", "KJFK"))), "[  US KJFK]");
    }
}
