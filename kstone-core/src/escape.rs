//! Escaping of keys and foreign text for printing, so that they can neither control a terminal nor imitate other
//! output.
//!
//! In keys, printable text is unchanged, any other byte becomes `\xNN`, and a backslash `\\`, so that the printed form
//! can be typed as a key. Other text is unchanged except for characters that [`is_shown`] rejects.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

use crate::error::Error;

/// Whether a character is printed unchanged. Excluded are control characters (C0, DEL and C1), characters that change
/// the direction of text or break lines, and invisible characters.
pub fn is_shown(c: char) -> bool {
    match c {
        ' '..='~' => true,
        // Soft hyphen, Arabic letter mark, Mongolian vowel separator, byte order mark, interlinear annotation.
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => false,
        // Zero width space; direction marks. Between these are the joiners, which scripts and emoji need.
        '\u{200b}' | '\u{200e}' | '\u{200f}' => false,
        // Line and paragraph separators; direction embeddings and overrides.
        '\u{2028}'..='\u{202e}' => false,
        // Word joiner and invisible operators; direction isolates.
        '\u{2060}'..='\u{206f}' => false,
        // Tags.
        '\u{e0000}'..='\u{e007f}' => false,
        c => !c.is_control(),
    }
}

/// A key, or part of one, in the form in which it can be typed.
pub fn key(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' | '\'' => text.push(c),
                // Characters that the standard library would print unchanged.
                _ if is_shown(c) && c.escape_debug().eq([c]) => text.push(c),
                _ => push_hex(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut text),
            }
        }
        push_hex(chunk.invalid(), &mut text);
    }
    text
}

/// The bytes of a key or part of one from the text of [`key`]: the inverse.
///
/// ```
/// # use kstone_core::escape;
/// assert_eq!(escape::parse_key(r"a\x00\xff\\b")?, b"a\x00\xff\\b");
/// assert_eq!(escape::parse_key(r"a\nb").unwrap_err().code(), "invalid_key");
/// # Ok::<(), kstone_core::Error>(())
/// ```
///
/// # Errors
/// `InvalidKey` if a backslash starts neither `\xNN`, a byte, nor `\\`, a backslash.
pub fn parse_key(text: &str) -> Result<Vec<u8>, Error> {
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
            return Err(Error::InvalidKey {
                why: "a backslash starts \\xNN (a byte) or \\\\ (a backslash)".into(),
            });
        };
        bytes.push(byte);
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

fn hex_byte(hex: &str) -> Option<u8> {
    // from_str_radix would accept a sign.
    hex.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u8::from_str_radix(hex, 16).ok())?
}

/// Text on one line, with unsafe characters as `\xNN` for each of their bytes.
pub fn text(text: &str) -> Cow<'_, str> {
    replace(text, |c, out| push_hex(c.encode_utf8(&mut [0; 4]).as_bytes(), out))
}

/// A path on one line, escaped in the same way.
pub fn path(path: &Path) -> String {
    let mut shown = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        shown.push_str(&text(chunk.valid()));
        push_hex(chunk.invalid(), &mut shown);
    }
    shown
}

/// A path as one word of a shell's command line, quoted if it has to be.
pub fn shell_word(path: &Path) -> String {
    let text = self::path(path);
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// JSON text with unsafe characters as `\uNNNN`; it remains equivalent JSON.
pub fn json(text: &str) -> Cow<'_, str> {
    replace(text, |c, out| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _: Result<(), std::fmt::Error> = write!(out, "\\u{unit:04x}");
        }
    })
}

fn replace(text: &str, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if text.chars().all(is_shown) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_shown(c) { shown.push(c) } else { escape(c, &mut shown) }
    }
    Cow::Owned(shown)
}

/// Appends `\xNN` for each byte.
pub fn push_hex(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _: Result<(), std::fmt::Error> = write!(text, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Characters that must never reach a terminal.
    fn harmful() -> impl Iterator<Item = char> {
        let ranges = [0..=0x1f, 0x7f..=0x9f, 0x200e..=0x200f, 0x2028..=0x202e, 0x2066..=0x2069];
        ranges.into_iter().flatten().chain([0x61c, 0xfeff]).map(|c| char::from_u32(c).unwrap())
    }

    #[test]
    fn nothing_that_acts_on_a_terminal_is_shown() {
        for c in harmful() {
            assert!(!is_shown(c), "{c:?}");
            let given = format!("a{c}b");
            for shown in [text(&given).into_owned(), path(Path::new(&given)), key(given.as_bytes())] {
                assert!(
                    shown.starts_with("a\\x") && shown.ends_with('b') && shown.chars().all(is_shown),
                    "{c:?}"
                );
            }
        }
        for shown in ["plain", "Zürich 東京", "👩‍🚀", "नमस्ते", "שלום", "a\\b \"c\""]
        {
            assert_eq!((&*text(shown), &*json(shown), &*path(Path::new(shown))), (shown, shown, shown));
        }
        assert_eq!(text("a\u{202e}b"), "a\\xe2\\x80\\xaeb");
    }

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
            assert_eq!(key(bytes), text);
            assert_eq!(parse_key(text).unwrap(), bytes);
        }
        for first in 0..=255 {
            for second in 0..=255 {
                let bytes = vec![first, second, 0xbf];
                assert_eq!(parse_key(&key(&bytes)).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn unknown_escapes_are_refused() {
        for text in ["\\", "\\n", "\\x", "\\x4", "\\xg0", "\\x+1", "\\xé", "a\\"] {
            assert!(matches!(parse_key(text), Err(Error::InvalidKey { .. })), "{text}");
        }
    }

    #[test]
    fn json_stays_the_same_json() {
        for c in harmful().chain(['\u{e0041}', '\u{ad}', 'é']) {
            let value = serde_json::json!({ format!("n{c}"): [format!("v{c}")] });
            let shown = json(&value.to_string()).into_owned();
            assert!(shown.chars().all(is_shown), "{c:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }

    #[test]
    fn a_path_that_is_no_text_is_shown_too() {
        use std::os::unix::ffi::OsStrExt as _;
        let given = std::ffi::OsStr::from_bytes(b"a\xff\x9b\nb");
        assert_eq!(path(Path::new(given)), "a\\xff\\x9b\\x0ab");
    }
}
