//! Entry points for fuzzers: functions that accept any bytes and panic if a promise is broken. Not part of the library:
//! behind the feature `fuzzing`, which only `kstone-core/fuzz` and the tests that replay its corpus enable.

mod expression;

pub use expression::{Updated, apply_stored, expression, expression_seeds, holds};

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use kstone_core::fuzzing::Input;
use serde_json::Value as Json;

use crate::{
    EncodedItem, Item, ItemBuilder, ItemView, MapView, Number, Result, Value, ValueView, number_from_key,
};

mod token;

pub use token::{token, token_seeds};

/// The stored form of items. If the first byte is even, the rest is a stored form; if it is odd, the rest describes an
/// item to store.
pub fn item(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.byte().is_multiple_of(2) {
        return stored(input.rest());
    }
    let item = map(&mut input, 0);
    if let Ok(bytes) = item.encode() {
        assert_eq!(Item::decode(&bytes).expect("what was encoded"), item);
        stored(&bytes);
    } else {
        // An item is only refused if it contains something that cannot be stored.
        assert!(is_invalid(&Value::M(item), 0));
    }
}

/// Edits a stored item: sets attributes, or removes them.
pub fn patch(old: &[u8], edits: &[(&str, Option<&Value>)]) -> Result<Vec<u8>> {
    crate::codec::patch(old, edits)
}

/// Bytes that may be a stored item: an item has a single stored form, and a view shows the same as the item.
fn stored(bytes: &[u8]) {
    let decoded = Item::decode(bytes);
    let view = match ItemView::new(bytes) {
        Ok(view) => view,
        Err(_) => return assert!(decoded.is_err()),
    };
    assert_eq!(view.validate().is_ok(), decoded.is_ok());
    drop(format!("{view:?}"));
    let seen = view.as_map().map(|map| look_at(map, 0));
    let patched = patch(bytes, &[("a", None), ("name", Some(&Value::Null))]);
    let Ok(item) = decoded else {
        // Reading a view finds no more than decoding does.
        let _ = ["", "a", "name"].map(|name| view.get(name).is_ok());
        return drop(patched);
    };
    assert_eq!(item.encode().expect("what was decoded"), bytes, "{item:?} has two stored forms");
    let mut edited = item.clone();
    edited.remove("a");
    edited.insert("name", Value::Null);
    assert_eq!(patched.expect("a valid item"), edited.encode().expect("an item that was stored before"));
    assert_eq!(seen.expect("a valid item"), item.len());
    for (name, value) in &item {
        let found = view.get(name).expect("a valid item").expect("an attribute of it");
        assert_eq!(found.to_value().expect("a valid item"), *value);
        assert_eq!(found.as_i64(), value.as_i64());
        assert_eq!(found.as_u64(), value.as_u64());
        assert_eq!(found.as_f64().map(f64::to_bits), value.as_f64().map(f64::to_bits));
        assert_eq!(found.as_str(), value.as_str());
        assert_eq!(found.type_name(), value.type_name());
    }
    assert!(item.contains("name") || view.get("name").expect("a valid item").is_none());
    let text = item.to_string();
    drop(Item::from_json_str(&text).expect("an item prints as JSON"));
    dynamodb(&item);
}

/// Reads all attributes, whether or not they are valid; returns how many could be read.
fn look_at(map: MapView<'_>, depth: usize) -> usize {
    let mut read = 0;
    for attribute in map.iter().take(100) {
        let Ok((name, value)) = attribute else { continue };
        read += 1;
        let _ = map.get(name);
        look_at_value(value, depth);
    }
    read
}

fn look_at_value(value: ValueView<'_>, depth: usize) {
    // Views go as deep as the bytes do.
    if depth > 40 {
        return;
    }
    let _ = (value.as_i64(), value.as_f64(), value.as_bytes(), value.as_bool());
    match value {
        ValueView::L(list) => {
            list.iter().take(100).flatten().for_each(|value| look_at_value(value, depth + 1));
            let _ = (list.get(0), list.get(list.len()));
        }
        ValueView::M(map) => {
            look_at(map, depth + 1);
        }
        ValueView::Ss(set) | ValueView::Ns(set) | ValueView::Bs(set) => {
            assert_eq!(set.iter().count(), set.len());
        }
        _ => {}
    }
}

/// Text as the command line reads it: an item in plain or DynamoDB JSON, or a number.
pub fn json(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let parsed = serde_json::from_str::<Json>(&text);
    // Reading as a stream gives the same, except that only the stream skips a byte order mark.
    if !text.starts_with('\u{feff}') {
        let whole = Item::from_json_str(&text).and_then(|item| item.encode()).ok();
        let read = EncodedItem::read_json(&mut text.as_bytes(), usize::MAX).expect("bytes in memory").ok();
        assert_eq!(read.as_ref().map(EncodedItem::as_bytes), whole.as_deref());
    }
    if let Ok(item) = Item::from_json_str(&text) {
        let printed = item.to_string();
        assert_eq!(Item::from_json_str(&printed).expect("an item prints as JSON"), item);
        // A number too long for a float may keep its text, and then only the text form parses.
        if let Ok(other) =
            parsed.as_ref().map_err(|_| ()).and_then(|json| Item::from_json(json).map_err(|_| ()))
        {
            assert!(alike(&Value::M(item.clone()), &Value::M(other)));
        }
        drop(item.to_json());
        dynamodb(&item);
        storable(&item);
    }
    if let Ok(item) = serde_json::from_str::<Item>(&text) {
        let same = Item::from_dynamodb_json(&parsed.expect("JSON that was read")).expect("the same JSON");
        assert_eq!(same, item);
        dynamodb(&item);
        storable(&item);
        drop(Item::from_json_str(&item.to_string()));
    }
    let numbers = text.split([',', ' ', '[', ']', ':', '}']).take(20).map(str::parse::<Number>);
    let mut before: Option<Number> = None;
    for number in numbers {
        let Ok(number) = number else { continue };
        check_number(&number);
        if let Some(before) = before.replace(number.clone()) {
            assert_eq!(before.cmp(&number), number.cmp(&before).reverse());
            assert_eq!(before == number, hash(&before) == hash(&number), "{before:?} {number:?}");
            let floats = f64::try_from(&before).ok().zip(f64::try_from(&number).ok());
            assert!(
                floats.is_none_or(|(a, b)| a == b || (a < b) == (before < number)),
                "{before:?} {number:?}"
            );
        }
    }
}

/// DynamoDB JSON is lossless.
fn dynamodb(item: &Item) {
    let text = serde_json::to_string(item).expect("an item is JSON");
    assert_eq!(serde_json::from_str::<Item>(&text).expect("what was printed"), *item);
    assert_eq!(Item::from_dynamodb_json(&item.to_dynamodb_json()).expect("what was printed"), *item);
}

/// A parsed item can be stored, unless it has an empty set or is nested too deep.
fn storable(item: &Item) {
    match item.encode() {
        Ok(bytes) => assert_eq!(Item::decode(&bytes).expect("what was encoded"), *item),
        Err(error) => assert!(is_invalid(&Value::M(item.clone()), 0), "{error}"),
    }
}

fn check_number(number: &Number) {
    let again: Number = number.as_str().parse().expect("a number's text is one");
    assert_eq!((again.as_str(), again.is_valid()), (number.as_str(), true));
    serde_json::from_str::<Json>(number.as_str()).expect("a number's text is JSON");
    if let Ok(whole) = i64::try_from(number) {
        assert_eq!(Number::from(whole), *number);
    }
    if let Ok(whole) = u64::try_from(number) {
        assert_eq!(Number::from(whole), *number);
    }
}

/// Numbers as keys. The bytes are read as a key, as text with numbers in it, and as a description of two numbers that
/// differ little.
pub fn number_key(bytes: &[u8]) {
    for bytes in [bytes, bytes.get(1..).unwrap_or_default()] {
        if let Some(number) = number_from_key(bytes) {
            assert_eq!(key_of(&number), bytes, "{number} has two keys");
        }
    }
    let text = String::from_utf8_lossy(bytes);
    let parsed = text.split([',', ' ']).take(20).flat_map(str::parse::<Number>);
    let mut numbers: Vec<Number> = parsed.collect();
    numbers.extend(alike_numbers(&mut Input::new(bytes)));
    for (n, number) in numbers.iter().enumerate() {
        let key = key_of(number);
        assert!((1..=22).contains(&key.len()), "{number}");
        let read = number_from_key(&key).expect("the key of a number");
        assert_eq!((&read, key_of(&read)), (number, key.clone()));
        for other in numbers.iter().take(n) {
            assert_eq!(key.cmp(&key_of(other)), number.cmp(other), "the order of {number} and {other}");
        }
    }
}

fn key_of(number: &Number) -> Vec<u8> {
    crate::number_key(number).expect("a number that was parsed")
}

/// Numbers with the same first digits.
fn alike_numbers(input: &mut Input<'_>) -> Vec<Number> {
    let same: String = (0..input.below(37)).map(|_| char::from(b'0' + input.byte() % 10)).collect();
    let exponent = i32::from(input.byte()) - 150;
    let written = |_| {
        let form = input.byte();
        let sign = if form & 1 == 0 { "" } else { "-" };
        let last = char::from(b'0' + (form >> 1) % 10);
        let exponent = exponent + i32::from(form % 3) - 1;
        format!("{sign}{same}{last}e{exponent}").parse().ok()
    };
    (0..4).filter_map(written).collect()
}

fn hash(number: &Number) -> u64 {
    let mut hasher = DefaultHasher::new();
    number.hash(&mut hasher);
    hasher.finish()
}

/// Whether two values are equal, comparing numbers as floats, approximately.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::N(a), Value::N(b)) => {
            let floats = f64::try_from(a).ok().zip(f64::try_from(b).ok());
            // serde_json parses floats only to within their last bit.
            floats.is_some_and(|(a, b)| a == b || (a - b).abs() <= 1e-15 * a.abs())
        }
        (Value::L(a), Value::L(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::M(a), Value::M(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && alike(a.1, b.1))
        }
        (a, b) => a == b,
    }
}

/// Whether there is a reason to refuse to store the value.
fn is_invalid(value: &Value, depth: usize) -> bool {
    match value {
        Value::N(number) => !number.is_valid(),
        Value::L(list) => depth > 32 || list.iter().any(|value| is_invalid(value, depth + 1)),
        Value::M(map) => depth > 32 || map.iter().any(|(_, value)| is_invalid(value, depth + 1)),
        Value::Ss(set) => depth > 32 || set.is_empty(),
        Value::Ns(set) => depth > 32 || set.is_empty() || set.iter().any(|number| !number.is_valid()),
        Value::Bs(set) => depth > 32 || set.is_empty(),
        _ => false,
    }
}

fn text(input: &mut Input<'_>) -> String {
    let len = usize::from(input.byte() % 24);
    String::from_utf8_lossy(input.bytes(len)).into_owned()
}

fn number(input: &mut Input<'_>) -> Number {
    match input.byte() % 4 {
        0 => Number::from(i64::from(input.short()) - 5000),
        1 => Number::from(f64::from_bits(u64::from(input.short()) << 48 | u64::from(input.short()))),
        _ => text(input).parse().unwrap_or_else(|_| Number::from(0)),
    }
}

fn map(input: &mut Input<'_>, depth: usize) -> Item {
    let count = input.below(if depth == 0 { 12 } else { 4 });
    let attributes: Vec<(String, Value)> =
        (0..count).map(|_| (text(input), value(input, depth + 1))).collect();
    attributes.into_iter().collect()
}

fn value(input: &mut Input<'_>, depth: usize) -> Value {
    let tag = input.byte();
    let count = usize::from(tag >> 4) % 5;
    match tag % 12 {
        0 => Value::S(text(input).repeat(1 + usize::from(tag >> 5) * 30)),
        1 | 2 => Value::N(number(input)),
        3 => Value::B(text(input).into_bytes()),
        4 => Value::Bool(tag & 16 > 0),
        5 => Value::Null,
        6 if depth < 36 => Value::L((0..count).map(|_| value(input, depth + 1)).collect()),
        7 if depth < 36 => Value::M(map(input, depth + 1)),
        8 => Value::Ss((0..count).map(|_| text(input)).collect()),
        9 => Value::Ns((0..count).map(|_| number(input)).collect::<BTreeSet<_>>()),
        10 => Value::Bs((0..count).map(|_| text(input).into_bytes()).collect()),
        // Nested lists.
        11 => {
            let height = usize::from(input.byte() % 36);
            (0..height).fold(Value::Null, |inner, _| Value::L(vec![inner]))
        }
        _ => Value::Null,
    }
}

fn samples() -> Vec<Item> {
    let tower = |height| (0..height).fold(Value::Null, |inner, _| Value::L(vec![inner]));
    let numbers: BTreeSet<Number> = ["1", "-2.50", "6.02e23"].iter().flat_map(|text| text.parse()).collect();
    vec![
        Item::new(),
        ItemBuilder::new().string("name", "Ann").number("age", 42).build(),
        [
            ("a", Value::from(true)),
            ("b", Value::Null),
            ("c", Value::B(vec![0, 255])),
            ("d", Value::from(1.5)),
        ]
        .into_iter()
        .collect(),
        [
            ("l", Value::L(vec![Value::from(1), Value::from("x"), tower(3)])),
            ("m", Value::M(ItemBuilder::new().string("x", "y").build())),
            ("ns", Value::Ns(numbers)),
            ("ss", Value::Ss(["a".to_owned(), "b".to_owned()].into())),
            ("zs", Value::Bs([vec![], vec![1]].into())),
        ]
        .into_iter()
        .collect(),
        [("deep", tower(32)), ("long", Value::from("é".repeat(200)))].into_iter().collect(),
    ]
}

/// Seed inputs for [`item`].
pub fn item_seeds() -> Vec<Vec<u8>> {
    let stored =
        samples().into_iter().flat_map(|item| item.encode()).map(|bytes| [&[0][..], &bytes].concat());
    let built =
        (0..12u8).map(|n| (0..60u8).map(|i| if i == 0 { 1 } else { i.wrapping_mul(n * 2 + 1) }).collect());
    stored.chain(built).collect()
}

/// Seed inputs for [`json`].
pub fn json_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for item in samples() {
        seeds.push(item.to_string().into_bytes());
        seeds.push(serde_json::to_vec(&item).expect("an item is JSON"));
    }
    let texts = [
        r#"{"a":1,"a":2,"b":[1,2.50,-0,1e5,1E-130]}"#,
        r#"{"\u0000":"\ud83d\ude00\"\\","n":123456789012345678901234567890}"#,
        "1,01,+1,.5,5.,-0,0e0,1e125,9.99e125,1e126,1e-131,00.00100,18446744073709551615,9223372036854775808",
        r#"{"x":{"NULL":true},"y":{"BOOL":false},"z":{"B":"AP8="},"s":{"NS":["1","1.0"]}}"#,
        r#"{"s":{"SS":[]},"t":{"L":[{"M":{}}]}}"#,
    ];
    seeds.extend(texts.iter().map(|text| text.as_bytes().to_vec()));
    seeds.push([b"{\"a\":".repeat(40), vec![b'1'], b"}".repeat(40)].concat());
    seeds.push([b"[".repeat(200), b"]".repeat(200)].concat());
    seeds
}

/// Seed inputs for [`number_key`].
pub fn number_key_seeds() -> Vec<Vec<u8>> {
    let numbers = [
        "0",
        "42",
        "-42",
        "0.5",
        "-1.05",
        "1e-130",
        "-9.9999999999999999999999999999999999999e125",
        "12345678901234567890123456789012345678",
    ];
    let keys = numbers.iter().flat_map(|text| text.parse()).map(|number| key_of(&number));
    let texts = [
        "1,1.0,1e0,10e-1,0.1E1,-1,-0,0e5",
        "99,100,100.5,101,1000,-99,-100,-100.5,-101",
        "1e125,9.99e125,1e-130,-1e-130,1.5e-7,1e19,1e20,1e21",
    ];
    let described = (0..6u8).map(|n| (0..44u8).map(|i| i.wrapping_mul(2 * n + 1)).collect());
    keys.chain(texts.iter().map(|text| text.as_bytes().to_vec())).chain(described).collect()
}
