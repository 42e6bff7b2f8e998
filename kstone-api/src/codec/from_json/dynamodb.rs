//! DynamoDB JSON, which names the type of every value. Read like plain JSON: to the stored form, with its limit.

use std::cmp::Ordering;
use std::io::BufRead;

use super::super::{B, BS, L, M, N, NS, NULL, S, SS, VERSION};
use super::{Parser, Stop, invalid};
use crate::item_error::ItemError;
use crate::number::{Number, compare};
use crate::value::from_base64;

/// Longer words are no name that is expected here.
const MAX_WORD: usize = 8;

impl<'r, R: BufRead> Parser<'r, R> {
    /// Reads the item of `{"Item":{...}}`.
    pub(super) fn dynamodb_line(&mut self) -> Result<(), Stop> {
        self.out = Vec::with_capacity(256);
        self.out.push(VERSION);
        if self.peek()? != Some(b'{') {
            return invalid("not a JSON object, as a line of DynamoDB JSON must be");
        }
        self.bump();
        self.space()?;
        if self.peek()? != Some(b'"') || self.quoted_word()? != "Item" {
            return invalid("not DynamoDB JSON: a line is {\"Item\":{...}}");
        }
        self.colon()?;
        if self.peek()? != Some(b'{') {
            return invalid("not DynamoDB JSON: \"Item\" is not an object");
        }
        self.object(0, Self::typed_value)?;
        self.space()?;
        if self.peek()? == Some(b',') {
            return invalid("not DynamoDB JSON: a line has other members than \"Item\"");
        }
        self.expect(b'}')?;
        self.whole = true;
        Ok(())
    }

    fn colon(&mut self) -> Result<(), Stop> {
        self.space()?;
        self.expect(b':')?;
        Ok(self.space()?)
    }

    /// Reads a short string of letters; returns an empty one in place of any other.
    fn quoted_word(&mut self) -> Result<String, Stop> {
        self.expect(b'"')?;
        let mut word = String::new();
        loop {
            match self.next()? {
                Some(b'"') => return Ok(word),
                Some(byte) if byte.is_ascii_alphabetic() && word.len() < MAX_WORD => {
                    word.push(char::from(byte));
                }
                _ => return Ok(String::new()),
            }
        }
    }

    /// Reads `{"TYPE":value}`.
    fn typed_value(&mut self, depth: usize) -> Result<(), Stop> {
        const NO_TYPE: &str =
            "not DynamoDB JSON: a value is an object with its type, such as {\"S\":\"text\"}";
        if self.peek()? != Some(b'{') {
            return invalid(NO_TYPE);
        }
        self.bump();
        self.space()?;
        if self.peek()? != Some(b'"') {
            return invalid(NO_TYPE);
        }
        let kind = self.quoted_word()?;
        let known = ["S", "N", "B", "BOOL", "NULL", "L", "M", "SS", "NS", "BS"];
        if !known.contains(&kind.as_str()) {
            return invalid(format!("not DynamoDB JSON: the types are {}", known.join(", ")));
        }
        self.colon()?;
        match kind.as_str() {
            "S" => {
                self.push(S)?;
                self.text()?;
            }
            "N" => {
                self.push(N)?;
                self.quoted_number()?;
            }
            "B" => {
                self.push(B)?;
                self.base64()?;
            }
            "BOOL" if self.peek()? == Some(b't') => self.word("true", super::TRUE)?,
            "BOOL" => self.word("false", super::FALSE)?,
            "NULL" if self.peek()? == Some(b'f') => return invalid("NULL can only be true"),
            "NULL" => self.word("true", NULL)?,
            "M" => {
                self.opens(b'{')?;
                self.nested(depth)?;
                self.push(M)?;
                self.object(depth + 1, Self::typed_value)?;
            }
            "L" => {
                self.opens(b'[')?;
                self.nested(depth)?;
                self.push(L)?;
                self.list(depth + 1, Self::typed_value)?;
            }
            "SS" => self.set(depth, SS, Self::text, |a, b| a.cmp(b))?,
            "NS" => self.set(depth, NS, Self::quoted_number, by_value)?,
            _ => self.set(depth, BS, Self::base64, |a, b| a.cmp(b))?,
        }
        self.space()?;
        self.expect(b'}')
    }

    /// Fails unless a table starts here.
    fn opens(&mut self, byte: u8) -> Result<(), Stop> {
        if self.peek()? == Some(byte) {
            return Ok(());
        }
        self.unexpected(&format!("a {:?}", char::from(byte)))
    }

    fn text(&mut self) -> Result<(), Stop> {
        self.opens(b'"')?;
        self.string()
    }

    fn quoted_number(&mut self) -> Result<(), Stop> {
        let from = self.out.len();
        self.text()?;
        // The text of a string is UTF-8.
        let text = std::str::from_utf8(self.out.get(from..).unwrap_or_default()).unwrap_or_default();
        let number: Number = text.parse().map_err(|e| Stop::ItemError(ItemError::from(e)))?;
        self.out.truncate(from);
        self.out.extend_from_slice(number.as_str().as_bytes());
        Ok(())
    }

    fn base64(&mut self) -> Result<(), Stop> {
        let from = self.out.len();
        // Text takes four bytes for three.
        let max = self.max;
        self.max = max.saturating_add(max / 3 + 4);
        let read = self.text();
        self.max = max;
        read?;
        let text = std::str::from_utf8(self.out.get(from..).unwrap_or_default()).unwrap_or_default();
        let bytes = match from_base64(text) {
            Ok(bytes) => bytes,
            Err(e) => return invalid(format!("not base64: {e}")),
        };
        self.out.truncate(from);
        self.out.extend_from_slice(&bytes);
        self.check()
    }

    /// Reads the members of a set, each with `member`, and sorts them.
    fn set(
        &mut self,
        depth: usize,
        tag: u8,
        member: fn(&mut Self) -> Result<(), Stop>,
        order: fn(&[u8], &[u8]) -> Ordering,
    ) -> Result<(), Stop> {
        self.opens(b'[')?;
        self.nested(depth)?;
        self.push(tag)?;
        let sorted = |this: &mut Self| {
            if this.starts.len() == this.frame.first {
                return invalid("a set has at least one member");
            }
            match this.arrange(|this, a, b| order(this.entry(a), this.entry(b))) {
                None => Ok(()),
                Some(_) => invalid("a set has a duplicate member"),
            }
        };
        self.table(b']', |this, _| member(this), sorted)
    }
}

/// The order of two numbers that were checked.
fn by_value(a: &[u8], b: &[u8]) -> Ordering {
    let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    compare(text(a), text(b)).unwrap_or(Ordering::Equal)
}
