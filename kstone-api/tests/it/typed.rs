//! Structs as items and back.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::num::NonZeroU8;

use kstone_api::{Database, Error, Item, ItemBuilder, Number, Value};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::{item, number, value};

/// Writes a value, checks the text of what it becomes (as DynamoDB JSON), stores it and reads it back.
#[track_caller]
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, expected: &str) {
    let written = Value::from_serialize(&value).unwrap();
    assert_eq!(serde_json::to_string(&written).unwrap(), expected, "{value:?}");
    let stored = Item::from_iter([("a", written)]).encode().unwrap();
    let item = Item::decode(&stored).unwrap();
    assert_eq!(item.get("a").unwrap().deserialize_as::<T>().unwrap(), value, "{expected}");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Newtype(u8);
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Pair(u8, String);
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Generic<T> {
    x: T,
}
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Color {
    Red,
    Green,
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum External {
    Unit,
    Newtype(u8),
    Tuple(u8, bool),
    Struct { x: u8 },
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t")]
enum Internal {
    Unit,
    Struct { x: u8, f: f64, o: Option<String> },
    Newtype(Generic<Vec<u8>>),
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    Unit,
    Newtype(Option<u8>),
    Tuple(u8, bool),
    Struct { x: u8 },
}
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Text(String),
    Struct { x: Option<u8> },
}

#[test]
fn every_shape_of_serde() {
    round_trip(u64::MAX, r#"{"N":"18446744073709551615"}"#);
    round_trip(i64::MIN, r#"{"N":"-9223372036854775808"}"#);
    round_trip(i8::MIN, r#"{"N":"-128"}"#);
    round_trip(u128::from(u64::MAX) + 1, r#"{"N":"18446744073709551616"}"#);
    round_trip(
        200_000_000_000_000_000_000_000_000_000_000_000_000u128,
        &format!(r#"{{"N":"2{}"}}"#, "0".repeat(38)),
    );
    round_trip(
        -99_999_999_999_999_999_999_999_999_999_999_999_999i128,
        &format!(r#"{{"N":"-{}"}}"#, "9".repeat(38)),
    );
    round_trip(0.1f32, r#"{"N":"0.1"}"#);
    round_trip(16_777_217.0f64, r#"{"N":"16777217"}"#);
    round_trip(1e-130, r#"{"N":"1e-130"}"#);
    round_trip(9.99e125, r#"{"N":"9.99e125"}"#);
    round_trip(true, r#"{"BOOL":true}"#);
    round_trip('ß', r#"{"S":"ß"}"#);
    round_trip("".to_owned(), r#"{"S":""}"#);
    round_trip(Cow::<str>::from("x"), r#"{"S":"x"}"#);
    round_trip(ByteBuf::from(vec![1, 255]), r#"{"B":"Af8="}"#);
    round_trip(vec![1u8, 255], r#"{"L":[{"N":"1"},{"N":"255"}]}"#);
    round_trip(None::<u8>, r#"{"NULL":true}"#);
    round_trip(Some(5u8), r#"{"N":"5"}"#);
    round_trip((), r#"{"NULL":true}"#);
    round_trip(Unit, r#"{"NULL":true}"#);
    round_trip(Newtype(5), r#"{"N":"5"}"#);
    round_trip(NonZeroU8::MIN, r#"{"N":"1"}"#);
    round_trip(
        (1u8, "x".to_owned(), [false; 2]),
        r#"{"L":[{"N":"1"},{"S":"x"},{"L":[{"BOOL":false},{"BOOL":false}]}]}"#,
    );
    round_trip(Pair(1, "x".into()), r#"{"L":[{"N":"1"},{"S":"x"}]}"#);
    round_trip(Box::new(Generic { x: Generic { x: 1u8 } }), r#"{"M":{"x":{"M":{"x":{"N":"1"}}}}}"#);
    round_trip(Generic { x: [Some(1u8), None] }, r#"{"M":{"x":{"L":[{"N":"1"},{"NULL":true}]}}}"#);
    round_trip(std::time::Duration::new(3, 5), r#"{"M":{"nanos":{"N":"5"},"secs":{"N":"3"}}}"#);
    round_trip(std::net::Ipv4Addr::LOCALHOST, r#"{"S":"127.0.0.1"}"#);
    round_trip(Ok::<u8, String>(1), r#"{"M":{"Ok":{"N":"1"}}}"#);
}

#[test]
fn enums_in_all_representations() {
    round_trip(Color::Green, r#"{"S":"green"}"#);
    round_trip(External::Unit, r#"{"S":"Unit"}"#);
    round_trip(External::Newtype(1), r#"{"M":{"Newtype":{"N":"1"}}}"#);
    round_trip(External::Tuple(1, true), r#"{"M":{"Tuple":{"L":[{"N":"1"},{"BOOL":true}]}}}"#);
    round_trip(External::Struct { x: 1 }, r#"{"M":{"Struct":{"M":{"x":{"N":"1"}}}}}"#);
    round_trip(Internal::Unit, r#"{"M":{"t":{"S":"Unit"}}}"#);
    round_trip(
        Internal::Struct { x: 1, f: -0.0, o: None },
        r#"{"M":{"f":{"N":"-0"},"o":{"NULL":true},"t":{"S":"Struct"},"x":{"N":"1"}}}"#,
    );
    round_trip(
        Internal::Newtype(Generic { x: vec![7] }),
        r#"{"M":{"t":{"S":"Newtype"},"x":{"L":[{"N":"7"}]}}}"#,
    );
    round_trip(Adjacent::Unit, r#"{"M":{"t":{"S":"Unit"}}}"#);
    round_trip(Adjacent::Newtype(None), r#"{"M":{"c":{"NULL":true},"t":{"S":"Newtype"}}}"#);
    round_trip(Adjacent::Tuple(1, true), r#"{"M":{"c":{"L":[{"N":"1"},{"BOOL":true}]},"t":{"S":"Tuple"}}}"#);
    round_trip(Adjacent::Struct { x: 1 }, r#"{"M":{"c":{"M":{"x":{"N":"1"}}},"t":{"S":"Struct"}}}"#);
    round_trip(Untagged::Number(i64::MIN), r#"{"N":"-9223372036854775808"}"#);
    round_trip(Untagged::Text("x".into()), r#"{"S":"x"}"#);
    round_trip(Untagged::Struct { x: None }, r#"{"M":{"x":{"NULL":true}}}"#);
}

#[test]
fn keys_of_maps() {
    round_trip(BTreeMap::from([(-5i8, 'a'), (7, 'b')]), r#"{"M":{"-5":{"S":"a"},"7":{"S":"b"}}}"#);
    round_trip(BTreeMap::from([(u64::MAX, 1u8)]), r#"{"M":{"18446744073709551615":{"N":"1"}}}"#);
    round_trip(
        BTreeMap::from([(u128::MAX, 1u8)]).into_iter().map(|(k, v)| (k >> 3, v)).collect::<BTreeMap<_, _>>(),
        r#"{"M":{"42535295865117307932921825928971026431":{"N":"1"}}}"#,
    );
    round_trip(BTreeMap::from([(true, 1u8), (false, 0)]), r#"{"M":{"false":{"N":"0"},"true":{"N":"1"}}}"#);
    round_trip(BTreeMap::from([('x', 1u8)]), r#"{"M":{"x":{"N":"1"}}}"#);
    round_trip(BTreeMap::from([(Color::Red, 1u8)]), r#"{"M":{"red":{"N":"1"}}}"#);
    round_trip(BTreeMap::from([(Number::from(1.5), 1u8)]), r#"{"M":{"1.5":{"N":"1"}}}"#);
    round_trip(HashMap::from([("k".to_owned(), None::<u8>)]), r#"{"M":{"k":{"NULL":true}}}"#);
    for refused in [
        Value::from_serialize(&BTreeMap::from([((1, 2), 3)])),
        Value::from_serialize(&BTreeMap::from([(None::<u8>, 3)])),
        Value::from_serialize(&BTreeMap::from([(vec![1], 3)])),
    ] {
        assert!(refused.unwrap_err().to_string().contains("a map's key is text"));
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Sets<S, B> {
    #[serde(with = "kstone_api::typed::string_set")]
    s: BTreeSet<String>,
    #[serde(with = "kstone_api::typed::string_set", bound = "S: Serialize + DeserializeOwned")]
    e: S,
    #[serde(with = "kstone_api::typed::number_set")]
    n: HashSet<i32>,
    #[serde(with = "kstone_api::typed::binary_set", bound = "B: Serialize + DeserializeOwned")]
    b: B,
    #[serde(with = "kstone_api::typed::string_set")]
    o: Option<Vec<String>>,
}

#[test]
fn sets_are_sets() {
    let text = r#"{"M":{"b":{"BS":["AQI="]},"e":{"SS":["green","red"]},"n":{"NS":["-1"]},"o":{"NULL":true},"s":{"SS":["x"]}}}"#;
    fn sets<B>(b: B) -> Sets<BTreeSet<Color>, B> {
        let e = BTreeSet::from([Color::Red, Color::Green]);
        Sets { s: BTreeSet::from(["x".into()]), e, n: HashSet::from([-1]), b, o: None }
    }
    round_trip(sets(BTreeSet::from([vec![1u8, 2]])), text);
    round_trip(sets(BTreeSet::from([ByteBuf::from([1, 2])])), text);
    round_trip(sets([[1u8, 2]]), text);
    // In JSON they are plain arrays.
    let sets = Sets { o: Some(vec!["x".into()]), ..sets(vec![vec![1u8, 2]]) };
    let json = serde_json::to_string(&sets).unwrap();
    assert_eq!(json, r#"{"s":["x"],"e":["red","green"],"n":[-1],"b":[[1,2]],"o":["x"]}"#);
    assert_eq!(serde_json::from_str::<Sets<_, _>>(&json).unwrap(), sets);

    // A set reads into any collection, and a list into a set's field.
    let item = ItemBuilder::new()
        .string_set("s", ["b", "a"])
        .number_set("n", [2, 1])
        .binary_set("b", [[1u8]])
        .build();
    #[derive(Debug, PartialEq, Deserialize)]
    struct Collections {
        s: Vec<String>,
        n: BTreeSet<u8>,
        b: HashSet<ByteBuf>,
    }
    let collections: Collections = item.deserialize_as().unwrap();
    assert_eq!((collections.s, collections.n), (vec!["a".into(), "b".into()], BTreeSet::from([1, 2])));
    assert_eq!(collections.b, HashSet::from([ByteBuf::from([1])]));
    let list = ItemBuilder::new()
        .list("s", ["x"])
        .list("e", ["red"])
        .list("n", [1])
        .list("b", [vec![1u8]])
        .null("o");
    let read: Sets<HashSet<String>, Vec<ByteBuf>> = list.build().deserialize_as().unwrap();
    assert_eq!((read.e, read.n), (HashSet::from(["red".into()]), HashSet::from([1])));
    assert_eq!((read.s, read.b, read.o), (BTreeSet::from(["x".into()]), vec![ByteBuf::from([1])], None));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flat<R> {
    id: u32,
    #[serde(flatten)]
    position: Position,
    #[serde(flatten)]
    rest: R,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Position {
    lat: f64,
    name: Option<String>,
    #[serde(with = "serde_bytes")]
    hash: Vec<u8>,
    #[serde(with = "kstone_api::typed::string_set")]
    tags: BTreeSet<String>,
}

fn position() -> Position {
    Position { lat: 38.704022, name: None, hash: vec![1, 2], tags: BTreeSet::from(["a".into(), "b".into()]) }
}

#[test]
fn flattened_structs() {
    let text = r#"{"hash":{"B":"AQI="},"id":{"N":"1"},"lat":{"N":"38.704022"},"left":{"S":"x"},"name":{"NULL":true},"tags":{"SS":["a","b"]}}"#;
    round_trip(
        Flat { id: 1, position: position(), rest: BTreeMap::from([("left".to_owned(), "x".to_owned())]) },
        &format!(r#"{{"M":{text}}}"#),
    );
    // Two fields of one name.
    let twice = Flat { id: 1, position: position(), rest: BTreeMap::from([("id".to_owned(), 2)]) };
    let error = Item::from_serialize(&twice).unwrap_err().to_string();
    assert_eq!(error, r#"invalid item: attribute "id": there are two attributes of this name"#);
}

/// The attributes that no field has are kept as they are, sets and long numbers included; although serde buffers them.
#[test]
fn what_is_left_over_is_kept_exactly() {
    let pi: Number = "3.1415926535897932384626433832795028841".parse().unwrap();
    let rest = ItemBuilder::new()
        .value("pi", pi.clone())
        .string_set("ss", ["x"])
        .number_set("ns", [pi.clone(), Number::from(1)])
        .binary_set("bs", [[1u8, 2]])
        .binary("b", [0])
        .list("l", [Value::from(BTreeSet::from(["y".to_owned()])), Value::Null, Value::from(u64::MAX)])
        .map("S", ItemBuilder::new().string("S", "no DynamoDB JSON"))
        .build();
    let flat = Flat { id: 1, position: position(), rest: rest.clone() };
    let item = Item::from_serialize(&flat).unwrap();
    assert_eq!(rest.iter().filter(|(name, value)| item.get(name) != Some(*value)).count(), 0);
    assert_eq!(item.deserialize_as::<Flat<Item>>().unwrap(), flat);
    let map: Flat<BTreeMap<String, Value>> = item.deserialize_as().unwrap();
    assert_eq!(Item::from_iter(map.rest), rest);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Event {
        Measured { by: Number, raw: Value, list: Vec<Value> },
    }
    let event = Event::Measured { by: pi, raw: Value::from(rest), list: vec![Value::from(vec![1u8])] };
    let item = Item::from_serialize(&event).unwrap();
    assert_eq!(item.deserialize_as::<Event>().unwrap(), event);

    // A set in a plain collection is fine, unless a value of any type is read with it, which needs marks.
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Plain { tags: Vec<String> },
        Beside { tags: Vec<String>, rest: Value },
    }
    let builder = |kind| ItemBuilder::new().string("kind", kind).string_set("tags", ["a"]).number("rest", 1);
    let plain: Tagged = builder("Plain").build().deserialize_as().unwrap();
    assert_eq!(plain, Tagged::Plain { tags: vec!["a".into()] });
    let error = builder("Beside").build().deserialize_as::<Tagged>().unwrap_err().to_string();
    assert!(error.contains("give its field a set's module"), "{error}");
}

proptest! {
    #[test]
    fn values_and_items_are_themselves(item in item(), value in value()) {
        prop_assert_eq!(&Item::from_serialize(&item).unwrap(), &item);
        prop_assert_eq!(&item.deserialize_as::<Item>().unwrap(), &item);
        prop_assert_eq!(&Value::from_serialize(&value).unwrap(), &value);
        prop_assert_eq!(&value.deserialize_as::<Value>().unwrap(), &value);
        let within = Generic { x: (Some(value), item) };
        let written = Item::from_serialize(&within).unwrap();
        let read: Generic<(Option<Value>, Item)> = written.deserialize_as().unwrap();
        // A null reads as none.
        prop_assert_eq!(read.x.0.unwrap_or(Value::Null), within.x.0.unwrap());
        prop_assert_eq!(read.x.1, within.x.1);
    }

    #[test]
    fn items_are_exact_through_a_buffer(item in item()) {
        #[derive(Deserialize)]
        struct Rest {
            #[serde(flatten)]
            rest: Item,
        }
        prop_assert_eq!(&item.deserialize_as::<Rest>().unwrap().rest, &item);
    }

    #[test]
    fn numbers_are_exact(n in number(), i in any::<i128>(), shift in 0..128u32, bits in any::<u64>()) {
        // Text and all.
        let read: Number = Value::N(n.clone()).deserialize_as().unwrap();
        prop_assert_eq!(read.as_str(), n.as_str());
        let i = i >> shift;
        match Value::from_serialize(&i) {
            Ok(value) => prop_assert_eq!(value.deserialize_as::<i128>().unwrap(), i),
            Err(e) => prop_assert!(i.unsigned_abs().to_string().trim_end_matches('0').len() > 38, "{i}: {e}"),
        }
        let float = f64::from_bits(bits);
        match Value::from_serialize(&float) {
            Ok(value) => prop_assert_eq!(value.deserialize_as::<f64>().unwrap().to_bits(), bits),
            Err(_) => prop_assert!(!float.is_finite() || !(1e-130..1e126).contains(&float.abs())),
        }
        let float = f32::from_bits(bits as u32);
        match Value::from_serialize(&float) {
            Ok(value) => prop_assert_eq!(value.deserialize_as::<f32>().unwrap().to_bits(), bits as u32),
            Err(_) => prop_assert!(!float.is_finite()),
        }
        // Integers agree with a conversion that does not wrap.
        let value = Value::N(n.clone());
        prop_assert_eq!(value.deserialize_as::<i64>().ok(), i64::try_from(&n).ok());
        prop_assert_eq!(value.deserialize_as::<u64>().ok(), u64::try_from(&n).ok());
        let wide = value.deserialize_as::<i128>().ok();
        prop_assert_eq!(value.deserialize_as::<u8>().ok(), wide.and_then(|wide| u8::try_from(wide).ok()));
        prop_assert_eq!(value.deserialize_as::<i16>().ok(), wide.and_then(|wide| i16::try_from(wide).ok()));
    }
}

#[test]
fn numbers_in_other_notations_are_integers() {
    for (text, expected) in [("1.0", 1), ("1e2", 100), ("0.5e1", 5), ("-0", 0), ("25.50e1", 255), ("0e9", 0)]
    {
        assert_eq!(Value::N(text.parse().unwrap()).deserialize_as::<u8>().unwrap(), expected);
    }
}

#[test]
fn errors_name_the_attribute() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Outer {
        a: Inner,
    }
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read into")]
    struct Inner {
        b: Vec<u8>,
        c: Option<External>,
        d: Option<(u8, u8)>,
        e: Option<f32>,
        #[serde(default, with = "kstone_api::typed::string_set")]
        s: Vec<String>,
    }
    let error = |inner: ItemBuilder| {
        let item = ItemBuilder::new().map("a", inner).build();
        item.deserialize_as::<Outer>().unwrap_err()
    };
    let b = || ItemBuilder::new().list("b", [1]);
    match error(ItemBuilder::new().list("b", [1, 2, 300])) {
        Error::InvalidNumber { attribute, why } => {
            assert_eq!((attribute.as_str(), why.as_str()), ("a.b[2]", "300 does not fit u8"));
        }
        other => panic!("{other:?}"),
    }
    for (inner, expected) in [
        (
            ItemBuilder::new().list("b", [1.5]),
            r#"attribute "a.b[0]" is not a valid number: 1.5 is not an integer, u8 is expected"#,
        ),
        (
            ItemBuilder::new().list("b", [-1]),
            r#"attribute "a.b[0]" is not a valid number: -1 does not fit u8"#,
        ),
        (b().number("e", 1e39), r#"attribute "a.e" is not a valid number: 1e39 does not fit f32"#),
        (ItemBuilder::new(), r#"invalid item: attribute "a": missing field `b`"#),
        (
            ItemBuilder::new().string("b", "x"),
            r#"invalid item: attribute "a.b": invalid type: string "x", expected a sequence"#,
        ),
        (
            ItemBuilder::new().list("b", ["x"]),
            r#"invalid item: attribute "a.b[0]": invalid type: string "x", expected u8"#,
        ),
        (
            ItemBuilder::new().binary("b", [1]),
            r#"invalid item: attribute "a.b": invalid type: byte array, expected a sequence"#,
        ),
        (b().list("d", [1, 2, 3]), r#"invalid item: attribute "a.d": it has 3 members, 2 are expected"#),
        (
            b().list("d", [1]),
            r#"invalid item: attribute "a.d": invalid length 1, expected a tuple of size 2"#,
        ),
        (
            b().string("c", "Unknown"),
            r#"invalid item: attribute "a.c": unknown variant `Unknown`, expected one of `Unit`, `Newtype`, `Tuple`, `Struct`"#,
        ),
        (
            b().map("c", ItemBuilder::new().string("Newtype", "x")),
            r#"invalid item: attribute "a.c.Newtype": invalid type: string "x", expected u8"#,
        ),
        (
            b().map("c", ItemBuilder::new().list("Tuple", [1, 2])),
            r#"invalid item: attribute "a.c.Tuple[1]": invalid type: integer `2`, expected a boolean"#,
        ),
        (
            b().map("c", Item::new()),
            r#"invalid item: attribute "a.c": a variant with content is a map of one attribute, the variant's name; this one has 0"#,
        ),
        (
            b().string("s", "x"),
            r#"invalid item: attribute "a.s": invalid type: string "x", expected a string set"#,
        ),
        (
            b().number_set("s", [1]),
            r#"invalid item: attribute "a.s": invalid type: sequence, expected a string set"#,
        ),
    ] {
        assert_eq!(error(inner).to_string(), expected);
    }
}

#[test]
fn what_cannot_be_an_item_is_refused() {
    let refused = |error: Error| error.to_string();
    let nan = Item::from_serialize(&Generic { x: [[1.0, f64::NAN]] }).unwrap_err();
    assert_eq!(refused(nan), r#"attribute "x[0][1]" is not a valid number: it is not a number (NaN)"#);
    for (float, why) in [(f64::INFINITY, "infinite"), (1e300, "magnitude"), (1e-200, "magnitude")] {
        let error = refused(Item::from_serialize(&Generic { x: Some(float) }).unwrap_err());
        assert!(error.starts_with(r#"attribute "x" is not"#) && error.contains(why), "{error}");
        let error = refused(Item::from_serialize(&Generic { x: Number::from(float) }).unwrap_err());
        assert!(error.starts_with(r#"attribute "x" is not"#) && error.contains(why), "{error}");
    }
    let error = refused(Item::from_serialize(&Generic { x: u128::MAX }).unwrap_err());
    assert_eq!(error, r#"attribute "x" is not a valid number: it has more than 38 significant digits"#);
    assert_eq!(
        refused(Item::from_serialize("text").unwrap_err()),
        "invalid item: an item is written from a struct or a map, this is a string"
    );
    assert!(refused(Item::from_serialize(&[1]).unwrap_err()).ends_with("this is a list"));
    assert!(refused(Item::from_serialize(&None::<Position>).unwrap_err()).ends_with("this is null"));

    #[derive(Serialize)]
    struct Set<T> {
        #[serde(with = "kstone_api::typed::string_set", bound(serialize = "T: Serialize"))]
        s: T,
    }
    let error = |set: Result<Item, Error>| refused(set.unwrap_err());
    assert_eq!(
        error(Item::from_serialize(&Set { s: ["a", "a"] })),
        r#"invalid item: attribute "s[1]": a set has a duplicate member"#
    );
    assert_eq!(
        error(Item::from_serialize(&Set { s: [1] })),
        r#"invalid item: attribute "s[0]": a number cannot be a member of a string set"#
    );
    assert_eq!(
        error(Item::from_serialize(&Set { s: "a" })),
        r#"invalid item: attribute "s": a string set is written from a sequence, this is a string"#
    );
    // As with any empty set.
    let empty = Item::from_serialize(&Set { s: [""; 0] }).unwrap();
    assert_eq!(
        refused(empty.encode().unwrap_err()),
        r#"invalid item: attribute "s": a set has at least one member"#
    );
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Chain(Option<Box<Chain>>);

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tree {
    children: Vec<Tree>,
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Not recursively.
        let mut rest = std::mem::take(&mut self.children);
        while let Some(mut tree) = rest.pop() {
            rest.append(&mut tree.children);
        }
    }
}

#[test]
fn depth_is_bounded() {
    let tree = |depth| (0..depth).fold(Tree::default(), |tree, _| Tree { children: vec![tree] });
    // Each level is a list and a map.
    let item = Item::from_serialize(&tree(15)).unwrap();
    assert_eq!(Item::decode(&item.encode().unwrap()).unwrap().deserialize_as::<Tree>().unwrap(), tree(15));
    for depth in [17, 100, 10_000] {
        let error = Item::from_serialize(&tree(depth)).unwrap_err().to_string();
        assert!(error.contains("nest deeper than 32 levels"), "{error}");
    }
    // An item in memory can be deeper than one that can be stored.
    let deep = crate::nested(200);
    let error = deep.deserialize_as::<Item>().unwrap_err().to_string();
    assert!(error.contains("nest deeper than 32 levels"), "{error}");
    assert!(deep.deserialize_as::<BTreeMap<String, serde_json::Value>>().is_err());

    // Types that nest in themselves without a list or map.
    let chain = (0..1000).fold(Chain(None), |chain, _| Chain(Some(Box::new(chain))));
    assert!(Value::from_serialize(&chain).unwrap_err().to_string().contains("nest deeper than 64"));
    let error = Value::from(1).deserialize_as::<Chain>().unwrap_err().to_string();
    assert!(error.contains("nest deeper than 64"), "{error}");
}

#[test]
fn names_of_marks_are_refused_where_they_could_be_mistaken() {
    let hostile = ItemBuilder::new().map("m", ItemBuilder::new().string("$kstone_api::N", "5")).build();
    assert_eq!(hostile.deserialize_as::<BTreeMap<String, BTreeMap<String, String>>>().unwrap().len(), 1);
    let error = hostile.deserialize_as::<BTreeMap<String, Value>>().unwrap_err().to_string();
    assert_eq!(
        error,
        r#"invalid item: attribute "m": attribute names that start with $kstone_api:: are reserved"#
    );
}

#[test]
fn other_formats_are_as_before() {
    let value = Value::from(vec![Value::N("9.90".parse().unwrap()), Value::from(vec![1u8])]);
    let json = r#"{"L":[{"N":"9.90"},{"B":"AQ=="}]}"#;
    assert_eq!(serde_json::to_string(&value).unwrap(), json);
    assert_eq!(serde_json::from_str::<Value>(json).unwrap(), value);
    assert_eq!(serde_json::to_string(&Number::from(1.5)).unwrap(), r#""1.5""#);
    assert_eq!(serde_json::from_str::<Number>(r#""1.50""#).unwrap().as_str(), "1.50");
    assert!(serde_json::from_str::<Number>("1.5").is_err());
    assert_eq!(serde_json::from_value::<Number>("1.50".into()).unwrap().as_str(), "1.50");
}

#[test]
fn through_the_database() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Airport<'a> {
        city: Cow<'a, str>,
        elevation: i32,
    }
    let db = Database::in_memory().unwrap();
    let airport = |city: &'static str, elevation| Airport { city: city.into(), elevation };
    db.put_as(("US", "KJFK"), &airport("New York", 13)).unwrap();
    db.put_as(("US", "KLAX"), &airport("Los Angeles", 128)).unwrap();
    let snapshot = db.snapshot().unwrap();
    db.put_as(("US", "KJFK"), &airport("New York", 14)).unwrap();
    assert_eq!(db.get_as(("US", "KJFK")).unwrap(), Some(airport("New York", 14)));
    assert_eq!(snapshot.get_as(("US", "KJFK")).unwrap(), Some(airport("New York", 13)));
    assert_eq!(db.get_as::<Airport<'static>>("nobody").unwrap(), None);

    db.put(("US", "KSEA"), ItemBuilder::new().string("city", "Seattle").number("elevation", 1.5)).unwrap();
    db.put(("US", "KSFO"), Item::from_serialize(&airport("San Francisco", 13)).unwrap()).unwrap();
    let entries: Vec<_> = db.query("US").run().unwrap().typed::<Airport<'_>>().collect();
    let cities: Vec<_> = entries.iter().flatten().map(|(_, airport)| airport.city.as_ref()).collect();
    assert_eq!(cities, ["New York", "Los Angeles", "San Francisco"]);
    let errors: Vec<_> =
        entries.iter().filter_map(|entry| entry.as_ref().err()).map(Error::to_string).collect();
    assert_eq!(
        errors,
        [
            r#"invalid item: the item US, KSEA: attribute "elevation" is not a valid number: 1.5 is not an integer, i32 is expected"#
        ]
    );

    #[derive(Deserialize)]
    struct City<'a> {
        city: &'a str,
    }
    let item = db.get(("US", "KLAX")).unwrap().unwrap();
    assert_eq!(item.deserialize_as::<City<'_>>().unwrap().city, "Los Angeles");
}
