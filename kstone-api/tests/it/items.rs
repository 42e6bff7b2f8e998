//! Items, their builder, and numbers.

use std::collections::{BTreeSet, HashSet};

use kstone_api::{Condition, Error, Item, ItemBuilder, Number, Value, attr};
use proptest::prelude::*;

#[test]
fn builder_sorts_and_the_last_of_a_name_stays() {
    let item = ItemBuilder::new()
        .string("b", "first")
        .null("z")
        .string("b", "second")
        .bool("a", false)
        .number("b", 3)
        .binary("c", b"\x00\xff")
        .build();
    assert_eq!(item.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "b", "c", "z"]);
    assert_eq!(item.get("b"), Some(&Value::from(3)));
    assert_eq!(item.len(), 4);
}

#[test]
fn items_get_insert_remove() {
    let mut item = Item::new();
    assert!(item.is_empty());
    assert_eq!(item.insert("b", 1), None);
    assert_eq!(item.insert("a", "x"), None);
    assert_eq!(item.insert("b", true), Some(Value::from(1)));
    assert_eq!(item.get("b").and_then(Value::as_bool), Some(true));
    if let Some(value) = item.get_mut("a") {
        *value = Value::Null;
    }
    assert_eq!(item.remove("a"), Some(Value::Null));
    assert_eq!(item.remove("a"), None);
    assert!(item.contains("b") && !item.contains("a"));
    assert_eq!(item, Item::from_iter([("b", true)]));
}

#[test]
fn display_is_json_and_debug_shows_types() {
    let item = ItemBuilder::new()
        .string("s", "a \"b\"\n\u{1}")
        .value("n", "1.10".parse::<Number>().unwrap())
        .list("l", [Value::Null, Value::from(false), Value::from(vec![0u8, 1])])
        .map("m", ItemBuilder::new().string_set("ss", ["b", "a"]))
        .number_set("ns", [2, 10, 1])
        .build();
    assert_eq!(
        item.to_string(),
        r#"{"l":[null,false,"AAE="],"m":{"ss":["a","b"]},"n":1.10,"ns":[1,2,10],"s":"a \"b\"\n\u0001"}"#
    );
    assert_eq!(format!("{:?}", Item::from_iter([("a", 1)])), r#"{"a": N(1)}"#);
}

#[test]
fn numbers_keep_their_text_in_json_shape() {
    for (text, kept) in [
        ("0", "0"),
        ("-0", "-0"),
        ("1.50", "1.50"),
        ("+7", "7"),
        ("007", "7"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("5.", "5.0"),
        ("000", "0"),
        ("00.10e+5", "0.10e+5"),
        ("6.02E23", "6.02E23"),
        ("99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
        ("9.9999999999999999999999999999999999999E125", "9.9999999999999999999999999999999999999E125"),
        ("1e-130", "1e-130"),
        ("0e999", "0e999"),
    ] {
        assert_eq!(text.parse::<Number>().map(|n| n.to_string()).as_deref(), Ok(kept), "{text}");
    }
    for text in [
        "",
        "-",
        "+",
        ".",
        "e5",
        "1e",
        "1e+",
        "1e++5",
        "1_000",
        "0x10",
        " 1",
        "1 ",
        "NaN",
        "inf",
        "Infinity",
        "1.2.3",
        "--1",
        "1e126",
        "1e-131",
        "10e125",
        "0.1e-130",
        "123456789012345678901234567890123456789",
        "1e99999999999",
        "١",
        "9.99999999999999999999999999999999999999E125",
    ] {
        assert!(text.parse::<Number>().is_err(), "{text}");
    }
    assert!("0".repeat(401).parse::<Number>().is_err());
}

#[test]
fn numbers_from_floats() {
    for (float, text) in [
        (9.99, "9.99"),
        (5.0, "5"),
        (-0.0, "-0"),
        (1e100, "1e100"),
        (1.5e-9, "1.5e-9"),
        (38.704022, "38.704022"),
        (1e20, "100000000000000000000"),
    ] {
        assert_eq!(Number::from(float).to_string(), text);
    }
    assert_eq!(Number::from(0.1f32).to_string(), "0.1");
    for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, f64::MIN_POSITIVE, f64::MAX] {
        let number = Number::from(float);
        assert!(!number.is_valid(), "{float}");
        let item = ItemBuilder::new().map("a", ItemBuilder::new().list("b", [number])).build();
        let Err(Error::InvalidNumber { attribute, .. }) = item.encode() else { panic!("{float} was stored") };
        assert_eq!(attribute, "a.b.0");
    }
}

#[test]
fn numbers_convert_to_integers_when_they_are_integers() {
    let parse = |text: &str| text.parse::<Number>().unwrap();
    assert_eq!(i64::try_from(parse("1.50e1")), Ok(15));
    assert_eq!(i64::try_from(parse("-9223372036854775808")), Ok(i64::MIN));
    assert_eq!(u64::try_from(parse("18446744073709551615.000")), Ok(u64::MAX));
    assert_eq!(i64::try_from(parse("0.0e5")), Ok(0));
    for text in ["1.5", "9223372036854775808", "1e125", "0.1", "1e-5"] {
        assert!(i64::try_from(&parse(text)).is_err(), "{text}");
    }
    assert!(u64::try_from(parse("-1")).is_err());
    assert_eq!(f64::try_from(parse("0.1")), Ok(0.1));
    assert!(f64::try_from(Number::from(f64::NAN)).is_err());
}

#[test]
fn numbers_compare_by_what_they_say() {
    let parse = |text: &str| text.parse::<Number>().unwrap();
    let ascending = [
        "-1e125",
        "-12",
        "-11.99",
        "-11.9",
        "-1",
        "-0.1",
        "-1e-130",
        "0",
        "1e-130",
        "0.099",
        "0.1",
        "0.11",
        "1",
        "1.000000000000000000000000000001",
        "9",
        "10",
        "1e2",
        "12345678901234567890123456789012345678",
    ];
    for (i, a) in ascending.iter().enumerate() {
        for (j, b) in ascending.iter().enumerate() {
            assert_eq!(parse(a).cmp(&parse(b)), i.cmp(&j), "{a} {b}");
        }
    }
    for same in [["1", "1.0"], ["100", "1e2"], ["0.010", "1E-2"], ["0", "-0.00"], ["0", "0e5"]] {
        let [a, b] = same.map(parse);
        assert_eq!(a, b);
        assert_eq!(HashSet::from([a.clone(), b.clone()]).len(), 1);
        assert_eq!(BTreeSet::from([a, b]).len(), 1);
    }
}

/// Conditions compare short integers in a faster way.
#[test]
fn conditions_order_numbers_as_numbers_are_ordered() {
    let texts = ["0", "-0", "7", "-7", "07", "-1", "1.0", "1e2", "100", "-100.5", "0.1"];
    // 18, 19 and 20 digits: the longest that fit, and more.
    let long = ["999999999999999999", "1000000000000000000", "9999999999999999999", "18446744073709551616"];
    let negative = long.map(|text| format!("-{text}"));
    let texts = texts.into_iter().chain(long).chain(negative.iter().map(String::as_str));
    let numbers: Vec<Number> = texts.map(|text| text.parse().unwrap()).collect();
    for a in &numbers {
        let item = ItemBuilder::new().number("n", a.clone()).build();
        for b in &numbers {
            let is = |condition: Condition| condition.matches_item(&item).unwrap();
            let n = || attr("n");
            assert_eq!(is(n().lt(b.clone())), a < b, "{a} < {b}");
            assert_eq!(is(n().ge(b.clone())), a >= b, "{a} >= {b}");
            assert_eq!(is(n().eq(b.clone())), a == b, "{a} = {b}");
        }
    }
}

proptest! {
    #[test]
    fn integers_and_floats_come_back(int in any::<i64>(), unsigned in any::<u64>(), float in -1e100..1e100) {
        prop_assert_eq!(i64::try_from(Number::from(int)), Ok(int));
        prop_assert_eq!(u64::try_from(Number::from(unsigned)), Ok(unsigned));
        prop_assert_eq!(f64::try_from(Number::from(float)), Ok(float));
    }

    #[test]
    fn order_of_numbers_is_that_of_integers_and_floats(
        a in any::<i64>(), b in any::<i64>(), x in any::<f64>(), y in any::<f64>(),
    ) {
        prop_assert_eq!(Number::from(a).cmp(&Number::from(b)), a.cmp(&b));
        let (n, m) = (Number::from(x), Number::from(y));
        if n.is_valid() && m.is_valid() {
            prop_assert_eq!(n.partial_cmp(&m), x.partial_cmp(&y));
        }
    }

    #[test]
    fn number_parser_never_panics(text in "[-+0-9.eE]{0,30}|.{0,10}") {
        if let Ok(number) = text.parse::<Number>() {
            let again = number.as_str().parse::<Number>().unwrap();
            prop_assert_eq!(again.as_str(), number.as_str());
            prop_assert!(serde_json::from_str::<serde_json::Value>(number.as_str()).is_ok());
        }
    }
}
