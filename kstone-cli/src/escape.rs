//! Parses keys as they are typed: the inverse of [`kstone_api::escape::key`], so that printed keys can be pasted back.

use std::str::FromStr;

/// Bytes given as escaped text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Escaped(pub(crate) Vec<u8>);

impl AsRef<[u8]> for Escaped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Escaped {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some((plain, tail)) = rest.split_once('\\') {
            bytes.extend_from_slice(plain.as_bytes());
            if let Some(after) = tail.strip_prefix('\\') {
                bytes.push(b'\\');
                rest = after;
                continue;
            }
            let digits = tail.strip_prefix('x').and_then(|tail| tail.split_at_checked(2));
            let Some((byte, after)) = digits.and_then(|(hex, after)| Some((hex_byte(hex)?, after))) else {
                return Err("a backslash starts \\xNN (a byte) or \\\\ (a backslash)".into());
            };
            bytes.push(byte);
            rest = after;
        }
        bytes.extend_from_slice(rest.as_bytes());
        Ok(Self(bytes))
    }
}

fn hex_byte(hex: &str) -> Option<u8> {
    // from_str_radix would accept a sign.
    hex.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u8::from_str_radix(hex, 16).ok())?
}

#[cfg(test)]
mod tests {
    use kstone_api::escape::key as escape;

    use super::*;

    #[test]
    fn what_is_printed_can_be_pasted_back() {
        for (bytes, text) in [
            (b"user#42".as_slice(), "user#42"),
            (b"a b\"'", "a b\"'"),
            (b"C:\\x41", "C:\\\\x41"),
            (b"\x00\xff7\n", "\\x00\\xff7\\x0a"),
            ("Zürich 東京".as_bytes(), "Zürich 東京"),
            ("\u{202e}".as_bytes(), "\\xe2\\x80\\xae"),
            (b"", ""),
        ] {
            assert_eq!(escape(bytes), text);
            assert_eq!(text.parse(), Ok(Escaped(bytes.to_vec())));
        }
        for first in 0..=255 {
            for second in 0..=255 {
                let bytes = vec![first, second, 0xbf];
                assert_eq!(escape(&bytes).parse(), Ok(Escaped(bytes)));
            }
        }
    }

    /// Applies the part of the fuzz target that is not about encoding keys to its corpus.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the corpus is no database")]
    fn keys_of_the_fuzz_corpus_can_be_pasted_back() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../kstone-core/fuzz/corpus/key");
        let files: Vec<_> = std::fs::read_dir(corpus).unwrap().collect();
        println!("fuzz key: {} corpus inputs as text", files.len());
        assert!(!files.is_empty());
        for file in files {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert_eq!(escape(&bytes).parse(), Ok(Escaped(bytes.clone())));
            if let Ok(Escaped(key)) = String::from_utf8_lossy(&bytes).parse::<Escaped>() {
                assert_eq!(escape(&key).parse(), Ok(Escaped(key)));
            }
        }
    }

    #[test]
    fn unknown_escapes_are_refused() {
        for text in ["\\", "\\n", "\\x", "\\x4", "\\xg0", "\\x+1", "\\xé", "a\\"] {
            assert!(text.parse::<Escaped>().is_err(), "{text}");
        }
    }
}
