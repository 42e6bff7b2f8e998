//! JSON text converted to an item's stored form as it is read.

use std::io::{self, BufRead, BufReader, Read};

use kstone_api::{EncodedItem, Error, Item, JsonLines};
use proptest::prelude::*;

use crate::{item, nested};

const MAX: usize = 4 << 20;

/// Reads the text in pieces of this length.
fn read(text: &[u8], piece: usize, max: usize) -> kstone_api::Result<EncodedItem> {
    EncodedItem::read_json(&mut BufReader::with_capacity(piece, text), max).unwrap()
}

/// Checks that both ways to read a text give the same result.
fn agree(text: &str) -> bool {
    // A byte order mark is skipped.
    let bare = text.strip_prefix('\u{feff}').unwrap_or(text);
    let whole = Item::from_json_str(bare).and_then(|item| item.encode()).ok();
    for piece in [1, 3, 4096] {
        let read = read(text.as_bytes(), piece, MAX).ok();
        assert_eq!(read.as_ref().map(EncodedItem::as_bytes), whole.as_deref(), "{text}");
    }
    // Also as a line, if the text can be one.
    if !text.contains('\n') && !bare.trim_matches([' ', '\t', '\r']).is_empty() {
        let mut lines = JsonLines::new(text.as_bytes(), MAX);
        let line = lines.next_item().unwrap().unwrap().ok();
        assert_eq!(line.as_ref().map(EncodedItem::as_bytes), whole.as_deref(), "{text}");
        assert!(lines.next_item().unwrap().is_none());
    }
    whole.is_some()
}

#[test]
fn what_is_read_is_what_an_item_of_it_is() {
    for text in [
        r#"{}"#,
        " \t\r\n{ \"a\" : [ 1 , -2.50e+3 , true , false , null , \"x\" ] , \"b\" : { } }\n ",
        r#"{"b":1,"a":2,"c":{"y":1,"x":2}}"#,
        r#"{"e":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 é 😀","\u0061":1,"":0}"#,
        r#"{"n":[0,-0,1e5,1E-130,9.9999999999999999999999999999999999999E125,12345678901234567890123456789012345678]}"#,
    ] {
        assert!(agree(text), "{text}");
    }
    for text in [
        "",
        " ",
        "[]",
        "1",
        "null",
        "{",
        "}",
        "{}{}",
        "{} x",
        "{,}",
        "{\"b\":1,\"a\":2,\"b\":[]}",
        "{\"c\":{\"y\":1,\"x\":2,\"y\":3}}",
        "{\"\\u0061\":1,\"a\":2}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\":[1,]}",
        "{\"a\":[,1]}",
        "{\"a\":[1 2]}",
        "{\"a\":[1}",
        "{\"a\":01}",
        "{\"a\":+1}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":-}",
        "{\"a\":1e}",
        "{\"a\":1e126}",
        "{\"a\":NaN}",
        "{\"a\":tru}",
        "{\"a\":trueish}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\udc00\"}",
        "{\"a\":\"\\ud800\\u0041\"}",
        "{\"a\":\"\\ud800x\"}",
        "{\"a\":\"",
        "{\"a\":\"\t\"}",
        "{\"a\":\"\u{0}\"}",
    ] {
        assert!(!agree(text), "{text}");
    }
    for digits in [38, 39, 400, 401, 100_000] {
        agree(&format!("{{\"a\":{}}}", "9".repeat(digits)));
        agree(&format!("{{\"a\":0.{}}}", "0".repeat(digits)));
    }
    for depth in [30, 31, 32, 33, 100_000] {
        agree(&format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth)));
        agree(&format!("{}{{}}{}", "{\"a\":".repeat(depth), "}".repeat(depth)));
    }
    assert!(agree(&nested(32).to_string()));
    // Tables and names of all widths.
    for count in [0, 1, 31, 32, 84, 85, 86, 255, 256, 16_383, 16_384, 21_846, 70_000] {
        let values = vec!["1"; count].join(",");
        agree(&format!("{{\"a\":[{values}]}}"));
        let names: Vec<_> = (0..count).map(|n| format!("\"{}\":{n}", n * 7919 % 70_001)).collect();
        agree(&format!("{{{}}}", names.join(",")));
        agree(&format!("{{\"{}\":1}}", "n".repeat(count)));
    }
    for bytes in [&b"{\"a\":\"\xff\"}"[..], b"{\"\xc3\":1}", b"{\"a\":\"\xc3\\u0041\"}", b"\xff"] {
        assert!(read(bytes, 2, MAX).is_err());
    }
}

#[test]
fn errors_name_the_attribute() {
    let number = read(br#"{"a":{"b":[0,1e300]}}"#, 64, MAX);
    assert!(matches!(number, Err(Error::InvalidNumber { attribute, .. }) if attribute == "a.b.1"));
    let deep = read(format!("{{\"a\":{}", "[".repeat(40)).as_bytes(), 64, MAX).unwrap_err().to_string();
    assert!(deep.contains("attribute \"a.0.0") && deep.contains("deeper than 32"), "{deep}");
    // Errors are short however long the name is.
    let long = format!("{{\"{}\":x}}", "n".repeat(100_000));
    assert!(read(long.as_bytes(), 64, MAX).unwrap_err().to_string().len() < 300);
}

/// Exact to the byte: an item at the limit is read, and a limit one byte lower refuses it.
#[test]
fn the_limit_is_that_of_the_stored_form() {
    for text in [
        "{}".to_owned(),
        r#"{"a":1,"b":{"c":[null,null],"d":"text"}}"#.to_owned(),
        format!("{{\"a\":[{}]}}", vec!["0"; 70_000].join(",")),
        format!("{{\"a\":\"{}\"}}", "\\u0001".repeat(5000)),
        format!("{}{{}}{}", "{\"abc\":".repeat(30), "}".repeat(30)),
    ] {
        let len = Item::from_json_str(&text).unwrap().encode().unwrap().len();
        assert_eq!(read(text.as_bytes(), 100, len).unwrap().as_bytes().len(), len);
        match read(text.as_bytes(), 100, len - 1) {
            Err(Error::ItemTooLarge { len: counted, max }) => assert!(counted > max && max == len - 1),
            other => panic!("{other:?}"),
        }
    }
}

/// Returns endless text, and counts its bytes.
struct Endless(&'static [u8], usize);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in buffer.iter_mut() {
            *byte = self.0[self.1 % self.0.len()];
            self.1 += 1;
        }
        Ok(buffer.len())
    }
}

/// No more is read than could be stored, however the text continues.
#[test]
fn text_without_end_is_given_up() {
    for (start, more) in [
        ("{\"a\":\"", "x"),
        ("{\"a\":\"", "\\u0041"),
        ("{\"", "x"),
        ("{\"a\":[", "0,"),
        ("{\"a\":[", "[],"),
        ("{", "\"a\":1,"),
        ("{\"a\":{", "\"b\":null,"),
        ("{\"a\":", "9"),
        ("{\"a\":", "["),
        ("{\"a\":", "{\"a\":"),
        ("", "\0"),
        ("", "["),
    ] {
        let mut endless = BufReader::with_capacity(64, Endless(more.as_bytes(), 0));
        let text = start.as_bytes().chain(&mut endless);
        let result = EncodedItem::read_json(&mut BufReader::with_capacity(64, text), 10_000).unwrap();
        assert!(result.is_err());
        assert!(endless.get_ref().1 < 70_000, "{start}{more}: {}", endless.get_ref().1);
    }
}

#[test]
fn lines_are_numbered_whatever_is_in_them() {
    let mark = "\u{feff}";
    let long = "x".repeat(100_000);
    let text = format!(
        "{mark}{{\"n\":1}}\r\n\n  \t\n{{\"a\":\"{long}\",\"b\":[1,2]}}{{\"n\":9}}\n{mark}{{\"n\":2}}\n{{\"s\":\"cut\n\
         {mark}\n{{\"n\":3}}x\n{{\"n\":4}}"
    );
    for piece in [1, 7, 1 << 16] {
        let mut lines = JsonLines::new(BufReader::with_capacity(piece, text.as_bytes()), 1000);
        let mut found = Vec::new();
        while let Some(item) = lines.next_item().unwrap() {
            found.push((lines.line(), item.is_ok()));
        }
        assert_eq!(found, [(1, true), (4, false), (5, true), (6, false), (8, false), (9, true)]);
        let mut lines = JsonLines::new(text.as_bytes(), 1000);
        lines.skip_lines(4).unwrap();
        lines.next_item().unwrap().unwrap().unwrap();
        assert_eq!(lines.line(), 5);
        lines.skip_lines(100).unwrap();
        assert!(lines.next_item().unwrap().is_none());
    }
}

/// Fails after its text.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::from_raw_os_error(5)),
            read => Ok(read),
        }
    }
}

/// A complete line counts even without its line feed; a truncated one does not.
#[test]
fn what_was_read_before_a_failure_counts() {
    for (text, whole, failed_at) in [
        ("{}\n{\"a\":1}\n", 2, 3),
        ("{}\n{\"a\":1}", 2, 3),
        ("{}\n{\"a\":1", 1, 2),
        ("{}\n{\"a\":\"x", 1, 2),
        ("", 0, 1),
    ] {
        let mut lines = JsonLines::new(BufReader::with_capacity(4, Failing(text.as_bytes())), MAX);
        let mut items = 0;
        let error = loop {
            match lines.next_item() {
                Ok(item) => item.unwrap().map(|_| items += 1).unwrap(),
                Err(e) => break e,
            }
        };
        assert_eq!((items, lines.line(), error.raw_os_error()), (whole, failed_at, Some(5)), "{text}");
    }
    assert!(EncodedItem::read_json(&mut BufReader::new(Failing(b"{}")), MAX).is_err());
    let _: &dyn BufRead = &io::empty();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn printed_items_are_read_back(item in item()) {
        prop_assert!(agree(&item.to_string()));
    }

    #[test]
    fn any_text_is_read_as_serde_json_reads_it(text in ".{0,60}|[\\[\\]{}\",:0-9a-z.+-]{0,60}|\\{\"[\\\\\"u0-9a-f,:tn]{0,20}\":[-0-9.eE+]{0,9}\\}") {
        agree(&text);
    }

    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = read(&bytes, 3, 40);
        let mut lines = JsonLines::new(bytes.as_slice(), 40);
        while let Some(item) = lines.next_item().unwrap() {
            if let Ok(item) = item {
                Item::decode(item.as_bytes()).unwrap();
            }
        }
    }
}
