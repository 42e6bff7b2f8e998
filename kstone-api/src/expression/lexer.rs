//! The tokens of an expression's text.

/// A piece of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'t> {
    /// A keyword, function or name.
    Word(&'t str),
    /// `#name`, with its sign.
    Name(&'t str),
    /// `:value`, with its sign.
    Value(&'t str),
    /// Decimal digits.
    Digits(&'t str),
    /// An operator or punctuation.
    Sign(&'static str),
    /// A character that no expression contains.
    Other,
    End,
}

/// Operators and punctuation, longer ones before those that they begin with.
const SIGNS: [&str; 14] = ["<>", "<=", ">=", "<", ">", "=", "(", ")", "[", "]", ",", ".", "+", "-"];

impl Token<'_> {
    /// Whether it is this keyword, in capital letters or not.
    pub(super) fn is_keyword(self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

/// The token at a byte of the text, where it starts after white space, and where it ends.
pub(super) fn token(text: &str, from: usize) -> (Token<'_>, usize, usize) {
    let rest = text.get(from..).unwrap_or_default();
    let rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
    let start = text.len() - rest.len();
    let found = |token, len: usize| (token, start, start + len);
    let word = |from: usize| {
        let part = rest.get(from..).unwrap_or_default();
        let len = part.bytes().position(|b| !is_word(b)).unwrap_or(part.len());
        rest.get(..from + len).unwrap_or_default()
    };
    match rest.as_bytes().first() {
        None => found(Token::End, 0),
        Some(b'#' | b':') => {
            let text = word(1);
            match (text.len(), rest.starts_with('#')) {
                (1, _) => found(Token::Other, 1),
                (len, true) => found(Token::Name(text), len),
                (len, false) => found(Token::Value(text), len),
            }
        }
        Some(b) if b.is_ascii_digit() => {
            let len = rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
            found(Token::Digits(rest.get(..len).unwrap_or_default()), len)
        }
        Some(&b) if is_word(b) => found(Token::Word(word(0)), word(0).len()),
        Some(_) => match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => found(Token::Sign(sign), sign.len()),
            None => found(Token::Other, rest.chars().next().map_or(0, char::len_utf8)),
        },
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

/// Whether a name can stand in a text without a placeholder, if it is not reserved.
pub(super) fn is_plain(name: &str) -> bool {
    name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) && name.bytes().all(is_word)
}
