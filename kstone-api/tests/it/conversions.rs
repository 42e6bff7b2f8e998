//! Conversions to something that is stored lose nothing, are refused, or are documented to merge.
#![allow(
    clippy::needless_borrows_for_generic_args,
    clippy::redundant_closure,
    reason = "every form is given"
)]

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use kstone_api::{
    Database, DatabaseConfig, Error, Item, ItemBuilder, Key, KeyPart, Number, Value, WriteBatch,
    integer_from_key,
};
use serde_json::json;

/// Symptom: `("chat", ("room1", "m1"))` was stored under `("chat", "room1")`.
/// Cause: a pair accepted anything that converts into a key as a component, and used only its partition key.
/// Fix: components implement a trait that keys and pairs do not; the documentation of `KeyPart` shows that these do not
/// compile.
#[test]
fn every_component_of_a_key_is_kept() {
    fn pair<'a>(partition: impl KeyPart<'a>, sort: impl KeyPart<'a>) -> (Vec<u8>, Vec<u8>) {
        let key = Key::with_sort(partition, sort);
        (key.partition().to_vec(), key.sort().unwrap().to_vec())
    }
    fn one<'a>(key: impl Into<Key<'a>>) -> Vec<u8> {
        let key: Key<'_> = key.into();
        assert_eq!(key.sort(), None);
        key.partition().to_vec()
    }
    let (text, bytes) = ("k\u{e9}y".to_owned(), vec![0u8, 255, 7]);
    for found in [
        one(&text),
        one(text.as_str()),
        one(text.as_bytes()),
        one(text.clone()),
        one(Cow::from(&text)),
        one(&Cow::from(&text)),
        one(Box::<str>::from(text.as_str())),
        one(&Box::<str>::from(text.as_str())),
        one(Arc::<str>::from(text.as_str())),
        one(&Arc::<str>::from(text.as_str())),
        ["k\u{e9}y"].iter().map(|text: &&str| one(text)).next().unwrap(),
        one(*b"k\xc3\xa9y"),
        one(b"k\xc3\xa9y"),
    ] {
        assert_eq!(found, text.as_bytes());
    }
    for found in [
        one(&bytes),
        one(bytes.as_slice()),
        one(bytes.clone()),
        one(bytes.clone().into_boxed_slice()),
        one(Arc::<[u8]>::from(bytes.as_slice())),
        one(Cow::from(&bytes)),
        one([0u8, 255, 7]),
        one(&[0u8, 255, 7]),
    ] {
        assert_eq!(found, bytes);
    }
    assert_eq!(one('\u{e9}'), "\u{e9}".as_bytes());
    assert_eq!(pair(&text, bytes.clone()), (text.clone().into_bytes(), bytes.clone()));
    assert_eq!(pair(7u64.to_be_bytes(), ""), (vec![0, 0, 0, 0, 0, 0, 0, 7], vec![]));
    let key: Key<'_> = (text.as_str(), 9u32.to_be_bytes()).into();
    assert_eq!((key.partition(), key.sort()), (text.as_bytes(), Some(&[0, 0, 0, 9][..])));
    assert_eq!(Key::from(&key), key);

    // Pairs by reference, and what iterators over references yield.
    let owned = (text.clone(), bytes.clone());
    assert_eq!(Key::from(&owned), Key::with_sort(text.as_str(), bytes.as_slice()));
    for pair in &[("a", 1_u64), ("b", 2)] {
        assert_eq!(Key::from(pair), Key::with_sort(pair.0, pair.1));
    }
    for (text, n) in [String::from("a")].iter().zip(&[7_i16]) {
        assert_eq!(Key::from((text, n)), Key::with_sort("a", 7_i16));
        assert_eq!(Key::new([text].first().copied().unwrap()), Key::new("a"));
    }
}

/// Every call that takes a key, a partition or a bound takes integers.
#[test]
fn integers_are_keys_everywhere() {
    let db = Database::in_memory().unwrap();
    let item = |n: i64| ItemBuilder::new().number("n", n);
    for n in [300_i64, -7, 0, 255, 256, i64::MIN, i64::MAX] {
        db.put((42_u64, n), item(n)).unwrap();
    }
    // A literal without a suffix is an i32, wherever it is.
    db.put(("literal", 42), item(42)).unwrap();
    assert!(db.contains(("literal", 42_i32)).unwrap() && !db.contains(("literal", 42_u64)).unwrap());
    db.put(7_u32, item(7)).unwrap();
    assert!(db.contains(7_u32).unwrap() && !db.contains(7_u64).unwrap() && !db.contains(7_i32).unwrap());

    let read = |query: kstone_api::Query<'_>| -> Vec<i64> {
        let keys = query.run().unwrap().keys();
        keys.map(|key| key.unwrap().sort().and_then(integer_from_key).unwrap()).collect()
    };
    let query = || db.query(42_u64);
    assert_eq!(read(query()), [i64::MIN, -7, 0, 255, 256, 300, i64::MAX]);
    assert_eq!(read(query().sort_from(-7_i64).sort_before(256_i64)), [-7, 0, 255]);
    assert_eq!(read(query().sort_between(0_i64, 256_i64).reverse()), [256, 255, 0]);
    assert_eq!(read(query().sort_after(300_i64)), [i64::MAX]);
    assert_eq!(read(query().sort_to(-8_i64)), [i64::MIN]);
    assert_eq!(db.snapshot().unwrap().query(42_u64).run().unwrap().count(), 7);
    let keys = db.query(42_u64).run().unwrap().keys();
    let partitions = keys.map(|key| integer_from_key::<u64>(key.unwrap().partition()));
    assert!(partitions.eq([Some(42); 7]));
    db.write(WriteBatch::new().delete((42_u64, 0_i64)).unwrap()).unwrap();
    assert_eq!(read(query().limit(3)), [i64::MIN, -7, 255]);
}

/// Symptom: a batch accepted `put("")`, and its write failed without saying which put it was.
/// Cause: keys were checked only by the write.
/// Fix: every call that adds to a batch refuses keys that no database accepts; only the lower limit of a database is left
/// to the write.
#[test]
fn a_batch_refuses_a_bad_key_when_it_gets_it() {
    let db = Database::in_memory().unwrap();
    let item = || ItemBuilder::new().number("n", 1);
    let mut batch = WriteBatch::new();
    assert!(matches!(batch.put("", item()), Err(Error::InvalidKey { .. })));
    assert!(matches!(batch.put(("", "x"), item()), Err(Error::InvalidKey { .. })));
    let long = "x".repeat(65_537);
    assert!(matches!(batch.put(&long, item()), Err(Error::KeyTooLarge { len: 65_537, max: 65_536 })));
    assert!(matches!(batch.put((&long[1..], "x"), item()), Err(Error::KeyTooLarge { .. })));
    assert!(matches!(batch.delete(""), Err(Error::InvalidKey { .. })));
    assert!(matches!(batch.delete(("", "x")), Err(Error::InvalidKey { .. })));
    assert!(matches!(batch.delete(&long), Err(Error::KeyTooLarge { len: 65_537, max: 65_536 })));
    assert!(batch.is_empty());
    assert!(matches!(WriteBatch::new().with_put("", item()), Err(Error::InvalidKey { .. })));
    assert!(matches!(WriteBatch::new().with_delete(("", "x")), Err(Error::InvalidKey { .. })));
    batch.put(&long[1..], item()).unwrap().put("a", item()).unwrap();
    db.write(batch).unwrap();

    // The lower limit of a database.
    let dir = tempfile::tempdir().unwrap();
    let config = DatabaseConfig::new().with_max_key_bytes(100);
    let limited = Database::builder(dir.path().join("db")).config(config).create().unwrap();
    limited.put("a", item()).unwrap();
    let batch = WriteBatch::new().with_delete("a").unwrap().with_delete(&long[..101]).unwrap();
    assert!(matches!(limited.write(batch), Err(Error::KeyTooLarge { len: 101, max: 100 })));
    assert!(limited.contains("a").unwrap(), "nothing of it was written");

    // All other calls that take a key report it themselves.
    for refused in [
        db.put("", item()).err(),
        db.get("").err(),
        db.get_view("").err(),
        db.contains("").err(),
        db.delete("").err(),
        db.query("").run().err(),
        db.explain_get("").err(),
        db.snapshot().unwrap().get("").err(),
        db.snapshot().unwrap().query("").run().err(),
    ] {
        assert!(matches!(refused, Some(Error::InvalidKey { .. })), "{refused:?}");
    }
}

#[test]
fn a_batch_is_made_and_written_in_one_expression() {
    let db = Database::in_memory().unwrap();
    let item = |n: i64| ItemBuilder::new().number("n", n);
    db.put("c", item(0)).unwrap();
    let chained = || -> kstone_api::Result<()> {
        db.write(WriteBatch::new().put("a", item(1))?.put("b", item(2))?.delete("c")?)
    };
    chained().unwrap();
    assert_eq!(db.scan().run().unwrap().count(), 2);
    let mut batch = WriteBatch::new();
    batch.delete("a").unwrap();
    db.write(&mut batch).unwrap();
    assert!(batch.is_empty());
    let owned = || WriteBatch::new().with_put(("c", 1_u8), item(3))?.with_delete("b");
    db.write(owned().unwrap()).unwrap();
    let keys: Vec<_> = db.scan().run().unwrap().keys().map(|key| key.unwrap().to_string()).collect();
    assert_eq!(keys, ["c \\x01"]);
}

/// Symptom: of two JSON attributes with the same name the first was dropped, and an import did not mention it.
/// Cause: parsed attributes were collected into an item in the same way as built ones.
/// Fix: text with a duplicate name is refused, naming it, at every depth and in both forms.
#[test]
fn json_that_names_an_attribute_twice_is_refused() {
    for text in [
        r#"{"a":1,"a":2}"#,
        r#"{"a":1,"b":2,"a":1}"#,
        r#"{"x":{"a":1,"\u0061":1}}"#,
        r#"{"x":[{"y":[{"a":null,"a":null}]}]}"#,
    ] {
        let refused = Item::from_json_str(text).unwrap_err();
        let message = refused.to_string();
        assert!(matches!(refused, Error::InvalidItem { .. }) && message.contains('a'), "{message}");
        assert!(message.contains("two attributes of this name"), "{message}");
    }
    for text in [r#"{"a":{"N":"1"},"a":{"N":"2"}}"#, r#"{"x":{"M":{"a":{"N":"1"},"a":{"N":"2"}}}}"#] {
        let refused = serde_json::from_str::<Item>(text).unwrap_err().to_string();
        assert!(refused.contains("two attributes of this name"), "{refused}");
    }
    assert_eq!(Item::from_json_str(r#"{"a":{"a":1},"b":{"a":1}}"#).unwrap().len(), 2);
}

#[test]
fn json_that_is_no_value_is_refused() {
    for bad in [
        json!({"a": {"X": "1"}}),
        json!({"a": {"s": "1"}}),
        json!({"a": {"S": "1", "N": "1"}}),
        json!({"a": {}}),
        json!({"a": "text"}),
        json!({"a": {"NULL": false}}),
        json!({"a": {"N": "one"}}),
        json!({"a": {"N": "1e126"}}),
        json!({"a": {"N": "123456789012345678901234567890123456789"}}),
        json!({"a": {"B": "AB=="}}),
        json!({"a": {"SS": ["x", "x"]}}),
        json!({"a": {"NS": ["1", "1.0"]}}),
        json!({"a": {"BS": ["AA==", "AA=="]}}),
    ] {
        assert!(Item::from_dynamodb_json(&bad).is_err(), "{bad}");
        assert!(serde_json::from_str::<Item>(&bad.to_string()).is_err(), "{bad}");
    }
    for bad in ["1e126", "1e400", "123456789012345678901234567890123456789", "-0.1e-131"] {
        let refused = Item::from_json_str(&format!("{{\"a\":{bad}}}")).unwrap_err();
        assert!(matches!(&refused, Error::InvalidNumber { attribute, .. } if attribute == "a"), "{refused}");
    }
}

#[test]
fn numbers_keep_their_text_and_what_is_none_is_refused_when_written() {
    let db = Database::in_memory().unwrap();
    let number = |number: Number| ItemBuilder::new().number("n", number).build();
    for (number, text) in [
        (Number::from(u64::MAX), "18446744073709551615"),
        (Number::from(i64::MIN), "-9223372036854775808"),
        (Number::from(usize::MAX), "18446744073709551615"),
        (Number::from(0.1f32), "0.1"),
        (Number::from(0.1f64 + 0.2), "0.30000000000000004"),
        ("1.0".parse().unwrap(), "1.0"),
        ("1e0".parse().unwrap(), "1e0"),
        ("-0".parse().unwrap(), "-0"),
        ("9.90".parse().unwrap(), "9.90"),
        ("12345678901234567890123456789012345678".parse().unwrap(), "12345678901234567890123456789012345678"),
    ] {
        db.put("k", ItemBuilder::new().number("n", number.clone())).unwrap();
        let found = db.get("k").unwrap().unwrap();
        assert_eq!(found.get("n").and_then(Value::as_number).map(Number::as_str), Some(text));
        assert_eq!(found.to_string(), format!("{{\"n\":{text}}}"));
        assert_eq!(serde_json::from_str::<Item>(&serde_json::to_string(&found).unwrap()).unwrap(), found);
    }
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, 1e-200] {
        let nested = ItemBuilder::new().list("l", [Value::from(bad)]);
        let set = ItemBuilder::new().number_set("s", [1.0, bad]);
        for item in [number(bad.into()), nested.build(), set.build()] {
            assert!(matches!(db.put("bad", item.clone()), Err(Error::InvalidNumber { .. })), "{item:?}");
            assert!(WriteBatch::new().put("bad", item).is_err());
        }
    }
    assert!(!db.contains("bad").unwrap());
    let equal: Vec<Number> = ["1", "1.0", "1e0", "0.1e1", "10e-1"].map(|text| text.parse().unwrap()).into();
    assert_eq!(equal.iter().collect::<BTreeSet<_>>().len(), 1);
}

#[test]
fn sets_and_builders_merge_as_they_say() {
    let text = |item: ItemBuilder| item.build().to_string();
    let numbers = ["2", "1", "1.0", "2.00"].map(|text| text.parse::<Number>().unwrap());
    assert_eq!(text(ItemBuilder::new().number_set("s", numbers)), r#"{"s":[1,2]}"#);
    assert_eq!(text(ItemBuilder::new().string_set("s", ["b", "a", "b"])), r#"{"s":["a","b"]}"#);
    let binaries = ItemBuilder::new().binary_set("s", [vec![0], vec![0]]).build();
    assert!(matches!(binaries.get("s"), Some(Value::Bs(set)) if set.len() == 1));
    // Where items are built, the last of equal names wins.
    assert_eq!(text(ItemBuilder::new().number("a", 1).string("b", "").number("a", 2)), r#"{"a":2,"b":""}"#);
    assert_eq!(Item::from_iter([("a", 1), ("a", 2)]).to_string(), r#"{"a":2}"#);
}

/// Symptom: a set within 32 lists was stored and printed, but could not be imported again.
/// Cause: sets did not count towards the depth when items were written, but are lists when plain JSON is read.
/// Fix: one limit, checked in one place, for lists, maps and sets.
#[test]
fn what_nests_as_deep_as_can_be_is_stored_printed_and_read_again() {
    let sets = [
        Value::Ss(["x".to_owned()].into()),
        Value::Ns([Number::from(1)].into()),
        Value::Bs([vec![1]].into()),
        Value::L(vec![]),
        Value::M(Item::new()),
    ];
    let list = |value: Value| Value::L(vec![value]);
    let map = |value: Value| Value::M(Item::from_iter([("m", value)]));
    for innermost in sets {
        for wrap in [&list as &dyn Fn(Value) -> Value, &map] {
            let within = |depth: usize| {
                Item::from_iter([("a", (0..depth).fold(innermost.clone(), |value, _| wrap(value)))])
            };
            let deepest = within(31);
            let db = Database::in_memory().unwrap();
            db.put("k", &deepest).unwrap();
            assert_eq!(db.get("k").unwrap().as_ref(), Some(&deepest));
            db.get_view("k").unwrap().unwrap().validate().unwrap();
            let plain = Item::from_json_str(&deepest.to_string()).unwrap();
            assert_eq!(Item::from_json(&deepest.to_json()).unwrap().to_string(), plain.to_string());
            db.put("k", plain).unwrap();
            let typed = serde_json::to_string(&deepest).unwrap();
            db.put("k", serde_json::from_str::<Item>(&typed).unwrap()).unwrap();

            let deeper = within(32);
            let refused = db.put("k", &deeper).unwrap_err().to_string();
            assert!(refused.contains("nest deeper than 32 levels"), "{refused}");
            for refused in [Item::from_json_str(&deeper.to_string()), Item::from_json(&deeper.to_json())] {
                let refused = refused.unwrap_err().to_string();
                assert!(refused.contains("nest deeper than 32 levels"), "{refused}");
            }
        }
    }
}

/// Symptom: a second bound of a query replaced the first, although bounds are documented to intersect.
#[test]
fn bounds_of_a_query_narrow_one_another() {
    let db = Database::in_memory().unwrap();
    for sort in ["a", "b", "ba", "bb", "c"] {
        db.put(("p", sort), ItemBuilder::new()).unwrap();
    }
    let found = |query: kstone_api::Query<'_>| -> Vec<String> {
        let keys = query.run().unwrap().keys();
        keys.map(|key| String::from_utf8(key.unwrap().sort().unwrap().to_vec()).unwrap()).collect()
    };
    let query = || db.query("p");
    assert_eq!(found(query().sort_after("b").sort_from("a")), ["ba", "bb", "c"]);
    assert_eq!(found(query().sort_from("b").sort_after("b")), ["ba", "bb", "c"]);
    assert_eq!(found(query().sort_after("b").sort_from("b")), ["ba", "bb", "c"]);
    assert_eq!(found(query().sort_before("bb").sort_to("c")), ["a", "b", "ba"]);
    assert_eq!(found(query().sort_to("bb").sort_before("bb")), ["a", "b", "ba"]);
    assert_eq!(found(query().sort_to("ba").sort_between("b", "c")), ["b", "ba"]);
    assert_eq!(found(query().sort_prefix("ba").sort_prefix("b")), ["ba"]);
    assert_eq!(found(query().sort_prefix("b").sort_prefix("ba")), ["ba"]);
    assert_eq!(found(query().sort_prefix("a").sort_prefix("b")), [""; 0]);
}
