//! JSON, plain and DynamoDB.

use kstone_api::{Error, Item, ItemBuilder, Number, Value};
use proptest::prelude::*;
use serde_json::json;

use crate::{item, nested};

#[test]
fn plain_json_is_what_people_write() {
    let json = json!({
        "name": "Ann", "age": 42, "lat": 38.704022, "big": u64::MAX, "ok": true, "none": null,
        "list": [1, "two", {"three": 3}], "map": {"empty": {}, "none": []},
    });
    let item = Item::from_json(&json).unwrap();
    assert_eq!(item.get("lat"), Some(&Value::from(38.704022)));
    assert_eq!(item.get("lat").and_then(Value::as_number).map(Number::as_str), Some("38.704022"));
    assert_eq!(item.to_json(), json);
    assert_eq!(Item::from_json_str(&json.to_string()).unwrap(), item);
}

#[test]
fn text_keeps_numbers_exactly() {
    let text = r#"{"a":1.10,"b":12345678901234567890123456789012345678,"c":[1e5,-0.0],"d":{"e":1E-7}}"#;
    assert_eq!(Item::from_json_str(text).unwrap().to_string(), text);
    // A serde_json::Value has the nearest float.
    assert_eq!(Item::from_json_str(text).unwrap().to_json().get("b"), Some(&json!(1.2345678901234568e37)));
}

#[test]
fn sets_and_binary_lose_their_type_in_plain_json() {
    let item = ItemBuilder::new()
        .string_set("ss", ["b", "a"])
        .number_set("ns", [2, 1])
        .binary_set("bs", [[0u8, 255]])
        .binary("b", [0, 255])
        .number("nan", f64::NAN)
        .build();
    let json = json!({"ss": ["a", "b"], "ns": [1, 2], "bs": ["AP8="], "b": "AP8=", "nan": null});
    assert_eq!(item.to_json(), json);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&item.to_string()).unwrap(), json);
}

#[test]
fn what_is_no_item_is_named() {
    for text in ["", "[]", "1", "{", "{\"a\":}", "{\"a\":1} x", "null", "{\"a\":01}", "{\"a\":\"\\ud800\"}"] {
        assert!(matches!(Item::from_json_str(text), Err(Error::InvalidItem { .. })), "{text}");
    }
    for text in
        [r#"{"a":{"b":[0,1e300]}}"#, r#"{"a":{"b":[0,123456789012345678901234567890123456789e-300]}}"#]
    {
        let Err(Error::InvalidNumber { attribute, .. }) = Item::from_json_str(text) else { panic!("{text}") };
        assert_eq!(attribute, "a.b.1");
    }
    assert!(matches!(Item::from_json(&json!([])), Err(Error::InvalidItem { .. })));
    assert!(matches!(
        Item::from_json(&json!({"a": 1e300})),
        Err(Error::InvalidNumber { attribute, .. }) if attribute == "a"
    ));
}

#[test]
fn depth_is_bounded() {
    assert!(Item::from_json_str(&nested(32).to_string()).is_ok());
    assert!(Item::from_json(&nested(32).to_json()).is_ok());
    for depth in [33, 100, 100_000] {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(Item::from_json_str(&text).is_err());
    }
    assert!(Item::from_json(&nested(33).to_json()).is_err());
}

#[test]
fn dynamodb_json_has_every_type() {
    let json = json!({
        "s": {"S": "Ann"}, "n": {"N": "1.10"}, "b": {"B": "AP8="}, "bool": {"BOOL": false}, "null": {"NULL": true},
        "l": {"L": [{"N": "1"}, {"L": []}]}, "m": {"M": {"x": {"S": ""}}},
        "ss": {"SS": ["a", "b"]}, "ns": {"NS": ["1", "2"]}, "bs": {"BS": ["AA==", "AQ=="]},
    });
    let item = Item::from_dynamodb_json(&json).unwrap();
    assert_eq!(item.get("n").and_then(Value::as_number).map(Number::as_str), Some("1.10"));
    assert_eq!(item.to_dynamodb_json(), json);
    assert_eq!(serde_json::from_str::<Item>(&json.to_string()).unwrap(), item);
    for bad in [
        json!([]),
        json!({"a": "x"}),
        json!({"a": {"X": "x"}}),
        json!({"a": {"S": 1}}),
        json!({"a": {"N": "x"}}),
        json!({"a": {"N": "1e126"}}),
        json!({"a": {"NULL": false}}),
        json!({"a": {"B": "!"}}),
        json!({"a": {"SS": ["x", "x"]}}),
        json!({"a": {"NS": ["1", "1.0"]}}),
        json!({"a": {"S": "x", "N": "1"}}),
    ] {
        match Item::from_dynamodb_json(&bad) {
            Err(Error::InvalidItem { why }) if bad.is_array() || why.contains("\"a\"") => {}
            other => panic!("{bad}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn dynamodb_json_loses_nothing(item in item()) {
        let json = item.to_dynamodb_json();
        let back = Item::from_dynamodb_json(&json).unwrap();
        prop_assert_eq!(&back, &item);
        prop_assert_eq!(back.to_dynamodb_json(), json);
    }

    #[test]
    fn display_is_json_that_reads_back(item in item()) {
        let text = item.to_string();
        let back = Item::from_json_str(&text).unwrap();
        prop_assert_eq!(back.to_string(), text);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&item.to_string()).is_ok());
    }

    #[test]
    fn any_text_is_read_without_panic(text in ".{0,60}|[\\[\\]{}\",:0-9a-z]{0,60}") {
        let _ = Item::from_json_str(&text);
        let _ = serde_json::from_str::<Item>(&text);
    }
}
