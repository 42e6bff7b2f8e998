//! Lines of DynamoDB JSON converted to the stored form as they are read, and items within other objects.

use std::io::BufReader;

use kstone_api::{EncodedItem, Error, Item, JsonLines, Value, ValueView};
use proptest::prelude::*;

use crate::{item, nested};

const MAX: usize = 4 << 20;

/// Reads `{"Item":text}` in pieces of this length.
fn read(text: &str, piece: usize, max: usize) -> kstone_api::Result<EncodedItem> {
    let line = format!("{{\"Item\":{text}}}\n");
    let mut lines = JsonLines::new(BufReader::with_capacity(piece, line.as_bytes()), max);
    let item = lines.next_dynamodb().unwrap().unwrap();
    assert!(lines.next_dynamodb().unwrap().is_none());
    item
}

/// Checks that a line gives the item that serde reads, or that both refuse it.
fn agree(text: &str) -> bool {
    let whole = serde_json::from_str::<Item>(text).ok().and_then(|item| item.encode().ok());
    for piece in [1, 3, 4096] {
        let read = read(text, piece, MAX).ok();
        assert_eq!(read.as_ref().map(EncodedItem::as_bytes), whole.as_deref(), "{text}");
    }
    whole.is_some()
}

#[test]
fn lines_of_every_type_are_read() {
    for text in [
        r#"{}"#,
        r#" { "a" : { "S" : "x\u0000\/" } , "b" : { "L" : [ { "N" : "1" } , { "M" : { } } ] } } "#,
        r#"{"n":{"N":"1.10"},"big":{"N":"99999999999999999999999999999999999999"},"plus":{"N":"+05."}}"#,
        r#"{"b":{"B":"AP8="},"empty":{"B":""},"slash":{"B":"\/\/8="}}"#,
        r#"{"y":{"BOOL":true},"n":{"BOOL":false},"z":{"NULL":true}}"#,
        r#"{"ss":{"SS":["b","a",""]},"ns":{"NS":["10","9","-1.5","1e2"]},"bs":{"BS":["/w==","AA==",""]}}"#,
        r#"{"b":{"S":"1"},"a":{"M":{"d":{"S":"2"},"c":{"L":[]}}}}"#,
    ] {
        assert!(agree(text), "{text}");
    }
    for text in [
        "[]",
        "1",
        "\"x\"",
        "null",
        "{",
        "{\"a\":1}",
        "{\"a\":\"S\"}",
        "{\"a\":{}}",
        "{\"a\":[]}",
        r#"{"a":{"X":"x"}}"#,
        r#"{"a":{"LONGERTHANANY":"x"}}"#,
        r#"{"a":{"S":1}}"#,
        r#"{"a":{"S":"x","N":"1"}}"#,
        r#"{"a":{"N":1}}"#,
        r#"{"a":{"N":"x"}}"#,
        r#"{"a":{"N":""}}"#,
        r#"{"a":{"N":"1e126"}}"#,
        r#"{"a":{"N":"123456789012345678901234567890123456789"}}"#,
        r#"{"a":{"B":"!"}}"#,
        r#"{"a":{"B":"AP8"}}"#,
        r#"{"a":{"NULL":false}}"#,
        r#"{"a":{"BOOL":"true"}}"#,
        r#"{"a":{"BOOL":null}}"#,
        r#"{"a":{"L":{}}}"#,
        r#"{"a":{"M":[]}}"#,
        r#"{"a":{"L":["x"]}}"#,
        r#"{"a":{"SS":[]}}"#,
        r#"{"a":{"SS":"x"}}"#,
        r#"{"a":{"SS":["x",1]}}"#,
        r#"{"a":{"SS":["x","y","x"]}}"#,
        r#"{"a":{"NS":["1","2","1.0"]}}"#,
        r#"{"a":{"BS":["AA==","AA=="]}}"#,
        r#"{"a":{"S":"x"},"a":{"S":"y"}}"#,
    ] {
        assert!(!agree(text), "{text}");
    }
}

#[test]
fn other_lines_are_refused_with_their_reason() {
    for (line, why) in [
        ("nonsense", "not a JSON object"),
        ("{\"pk\":{\"S\":\"a\"}}", "a line is {\"Item\":{...}}"),
        ("{\"item\":{}}", "a line is {\"Item\":{...}}"),
        ("{}", "a line is {\"Item\":{...}}"),
        ("{\"Item\":1}", "\"Item\" is not an object"),
        ("{\"Item\":{},\"Keys\":{}}", "other members than \"Item\""),
        ("{\"Item\":{}} x", "text after its end"),
        ("{\"Item\":{\"a\":{\"S\":\"x\"}", "at the end of the text"),
        (
            "{\"Item\":{\"a\":\"x\"}}",
            "attribute \"a\": not DynamoDB JSON: a value is an object with its type",
        ),
        (
            "{\"Item\":{\"a\":{\"M\":{\"b\":{\"Z\":1}}}}}",
            "attribute \"a.b\": not DynamoDB JSON: the types are",
        ),
        ("{\"Item\":{\"a\":{\"L\":[{\"NULL\":false}]}}}", "attribute \"a.0\": NULL can only be true"),
    ] {
        let text = format!("{line}\n{{\"Item\":{{}}}}");
        let mut lines = JsonLines::new(text.as_bytes(), MAX);
        let error = lines.next_dynamodb().unwrap().unwrap().unwrap_err();
        assert!(error.to_string().contains(why), "{line}: {error}");
        // The next line is read whatever was in this one.
        assert!(lines.next_dynamodb().unwrap().unwrap().is_ok(), "{line}");
        assert_eq!(lines.line(), 2);
    }
}

#[test]
fn depth_and_length_are_those_of_stored_items() {
    assert!(agree(&serde_json::to_string(&nested(32)).unwrap()));
    assert!(!agree(&serde_json::to_string(&nested(33)).unwrap()));
    // Members of a set count as nested in it.
    let deep = |levels: usize, inner: Value| {
        let value = (0..levels).fold(inner, |value, _| Value::L(vec![value]));
        serde_json::to_string(&Item::from([("a", value)])).unwrap()
    };
    let set = || Value::Ss(["x".to_owned()].into());
    assert!(agree(&deep(31, set())) && !agree(&deep(32, set())));
    // The text of binary is longer than its bytes.
    for bytes in [0, 1, 2, 100, 3000] {
        let item = Item::from([("b", Value::B(vec![7; bytes]))]);
        let (len, text) = (item.encode().unwrap().len(), serde_json::to_string(&item).unwrap());
        assert_eq!(read(&text, 100, len).unwrap().as_bytes(), item.encode().unwrap());
        assert!(matches!(read(&text, 100, len - 1), Err(Error::ItemTooLarge { .. })), "{bytes}");
    }
    // Text without end is given up.
    let endless = std::io::Read::chain(&br#"{"Item":{"b":{"B":""#[..], std::io::repeat(b'A'));
    let mut lines = JsonLines::new(BufReader::new(endless), 1 << 16);
    assert!(matches!(lines.next_dynamodb().unwrap().unwrap(), Err(Error::ItemTooLarge { .. })));
}

#[test]
fn an_item_within_an_object_may_be_as_deep_as_any() {
    let item = nested(32);
    let text = format!("{{\"key\":\"k\",\"item\":{item}}}");
    assert!(JsonLines::new(text.as_bytes(), MAX).next_item().unwrap().unwrap().is_err());
    let holder = JsonLines::new(text.as_bytes(), MAX).next_holder().unwrap().unwrap().unwrap();
    let view = holder.view().unwrap();
    let map = view.get("item").unwrap().and_then(ValueView::as_map).unwrap();
    assert_eq!(EncodedItem::of_map(map).as_bytes(), item.encode().unwrap());
    let text = format!("{{\"key\":\"k\",\"item\":{}}}", nested(33));
    assert!(JsonLines::new(text.as_bytes(), MAX).next_holder().unwrap().unwrap().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn printed_items_are_read_back(item in item()) {
        prop_assert!(agree(&serde_json::to_string(&item).unwrap()));
    }

    #[test]
    fn text_with_a_fault_is_read_as_serde_reads_it(item in item(), at in any::<prop::sample::Index>(), put in "[\\[\\]{}\",:0-9aSNBL]?") {
        let text: Vec<char> = serde_json::to_string(&item).unwrap().chars().collect();
        let at = at.index(text.len());
        let mut faulty: String = text[..at].iter().collect();
        faulty.push_str(&put);
        faulty.extend(&text[at + 1..]);
        // An escape can become another, of the name of a type.
        prop_assume!(!faulty.contains('\n'));
        agree(&faulty);
    }

    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let bytes = [br#"{"Item":{"a":{""#, bytes.as_slice()].concat();
        let mut lines = JsonLines::new(bytes.as_slice(), 40);
        while let Some(item) = lines.next_dynamodb().unwrap() {
            if let Ok(item) = item {
                Item::decode(item.as_bytes()).unwrap();
            }
        }
    }

    #[test]
    fn copies_of_maps_and_of_parts_are_items(item in item()) {
        let encoded = EncodedItem::new(&item).unwrap();
        prop_assert_eq!(EncodedItem::of_map(encoded.view().unwrap().as_map().unwrap()), encoded.clone());
        let names: Vec<&str> = item.iter().map(|(name, _)| name).step_by(2).collect();
        let rest: Item = item.iter().filter(|(name, _)| !names.contains(name)).map(|(n, v)| (n, v.clone())).collect();
        prop_assert_eq!(encoded.without(&names).unwrap(), EncodedItem::new(&rest).unwrap());
    }
}
