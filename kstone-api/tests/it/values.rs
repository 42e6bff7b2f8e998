//! Values are read by type and by path, decoded and in place, with the same results.

use kstone_api::{Item, ItemBuilder, ItemView, Number, Value, ValueView};
use proptest::prelude::*;

use crate::item;

fn view(item: &Item) -> ItemView<Vec<u8>> {
    ItemView::new(item.encode().unwrap()).unwrap()
}

/// What all accessors return for a value, as text.
fn read(value: &Value) -> Vec<String> {
    let sets = (value.as_string_set(), value.as_number_set(), value.as_binary_set());
    let sets = (sets.0.map(|set| set.len()), sets.1.map(|set| set.len()), sets.2.map(|set| set.len()));
    vec![
        format!("{:?} {:?} {:?}", value.as_i64(), value.as_u64(), value.as_f64()),
        format!("{:?} {:?}", value.as_str(), value.as_number()),
        format!("{:?} {:?} {:?}", value.as_bytes(), value.as_bool(), value.is_null()),
        format!("{:?} {:?} {sets:?}", value.as_list().map(<[Value]>::len), value.as_map().map(Item::len)),
        value.type_name().to_owned(),
    ]
}

/// The same for a value that is read in place.
fn read_in_place(value: ValueView<'_>) -> Vec<String> {
    let sets = (value.as_string_set(), value.as_number_set(), value.as_binary_set());
    let sets = (sets.0.map(|set| set.len()), sets.1.map(|set| set.len()), sets.2.map(|set| set.len()));
    vec![
        format!("{:?} {:?} {:?}", value.as_i64(), value.as_u64(), value.as_f64()),
        format!("{:?} {:?}", value.as_str(), value.as_number()),
        format!("{:?} {:?} {:?}", value.as_bytes(), value.as_bool(), value.is_null()),
        format!("{:?} {:?} {sets:?}", value.as_list().map(|l| l.len()), value.as_map().map(|map| map.len())),
        value.type_name().to_owned(),
    ]
}

/// The text of a number, and what it is as each type.
type Case = (&'static str, Option<i64>, Option<u64>, Option<f64>);

#[test]
fn numbers_are_read_by_value() {
    const MAX: &str = "18446744073709551615";
    let cases: [Case; 22] = [
        ("0", Some(0), Some(0), Some(0.0)),
        ("-0", Some(0), Some(0), Some(-0.0)),
        ("42", Some(42), Some(42), Some(42.0)),
        ("-42", Some(-42), None, Some(-42.0)),
        ("1.0", Some(1), Some(1), Some(1.0)),
        ("-1.00", Some(-1), None, Some(-1.0)),
        ("1e3", Some(1000), Some(1000), Some(1000.0)),
        ("1.5e1", Some(15), Some(15), Some(15.0)),
        ("25e-1", None, None, Some(2.5)),
        ("20e-1", Some(2), Some(2), Some(2.0)),
        ("1.5", None, None, Some(1.5)),
        ("0.1", None, None, Some(0.1)),
        (MAX, None, Some(u64::MAX), Some(u64::MAX as f64)),
        ("18446744073709551616", None, None, Some(u64::MAX as f64)),
        ("1.8446744073709551615e19", None, Some(u64::MAX), Some(u64::MAX as f64)),
        ("9223372036854775807", Some(i64::MAX), Some(i64::MAX as u64), Some(i64::MAX as f64)),
        ("9223372036854775808", None, Some(1 << 63), Some(i64::MAX as f64)),
        ("-9223372036854775808", Some(i64::MIN), None, Some(i64::MIN as f64)),
        ("-9223372036854775809", None, None, Some(i64::MIN as f64)),
        ("1e125", None, None, Some(1e125)),
        ("-1e-130", None, None, Some(-1e-130)),
        ("12345678901234567890123456789012345678", None, None, Some(1.2345678901234567e37)),
    ];
    for (text, signed, unsigned, float) in cases {
        let value = Value::N(text.parse().unwrap());
        assert_eq!((value.as_i64(), value.as_u64(), value.as_f64()), (signed, unsigned, float), "{text}");
        assert_eq!(value.as_number().map(Number::as_str), Some(text));
        let view = view(&Item::from([("n", value)]));
        let found = view.get("n").unwrap().unwrap();
        assert_eq!((found.as_i64(), found.as_u64(), found.as_f64()), (signed, unsigned, float), "{text}");
        assert_eq!(found.as_number().unwrap().as_str(), text);
    }
    // Numbers that cannot be stored, and views that no item has.
    for float in [f64::NAN, f64::INFINITY, 1e300] {
        let value = Value::from(float);
        assert_eq!((value.as_i64(), value.as_u64(), value.as_f64()), (None, None, None), "{float}");
    }
    for text in ["NaN", "inf", "-inf", "1e400", "one", ""] {
        let found = ValueView::N(text);
        assert_eq!((found.as_i64(), found.as_u64(), found.as_f64()), (None, None, None), "{text}");
        assert!(found.as_number().is_none());
    }
}

#[test]
fn each_accessor_reads_its_type_alone() {
    let values = [
        ("S", Value::from("1")),
        ("N", Value::from(1)),
        ("B", Value::from(vec![1_u8])),
        ("BOOL", Value::from(true)),
        ("NULL", Value::Null),
        ("L", Value::from(vec![Value::from(1)])),
        ("M", Value::from(Item::from([("a", 1)]))),
        ("SS", Value::Ss(["1".to_owned()].into())),
        ("NS", Value::Ns([Number::from(1)].into())),
        ("BS", Value::Bs([vec![1]].into())),
    ];
    for (name, value) in values {
        let found = [
            ("S", value.as_str().is_some()),
            ("N", value.as_number().is_some()),
            ("N", value.as_i64().is_some()),
            ("N", value.as_u64().is_some()),
            ("N", value.as_f64().is_some()),
            ("B", value.as_bytes().is_some()),
            ("BOOL", value.as_bool().is_some()),
            ("NULL", value.is_null()),
            ("L", value.as_list().is_some()),
            ("M", value.as_map().is_some()),
            ("SS", value.as_string_set().is_some()),
            ("NS", value.as_number_set().is_some()),
            ("BS", value.as_binary_set().is_some()),
        ];
        assert_eq!(value.type_name(), name);
        assert!(found.iter().all(|(accessor, reads)| *reads == (*accessor == name)), "{name}: {found:?}");
        let view = view(&Item::from([("a", value.clone())]));
        assert_eq!(read_in_place(view.get("a").unwrap().unwrap()), read(&value));
    }
}

#[test]
fn options_and_arrays_convert() {
    assert_eq!(Value::from(Some("Ann")), Value::from("Ann"));
    assert_eq!(Value::from(None::<String>), Value::Null);
    assert_eq!(Value::from(Some(None::<i64>)), Value::Null);
    let item = ItemBuilder::new().value("a", Some(1)).value("b", None::<bool>).build();
    assert_eq!(item.to_string(), r#"{"a":1,"b":null}"#);

    assert_eq!(Item::from([("b", 2), ("a", 1), ("b", 3)]).to_string(), r#"{"a":1,"b":3}"#);
    assert_eq!(Item::from([(String::from("a"), Some(1.5)), (String::from("b"), None)]).len(), 2);
    assert!(Item::from([("", 0); 0]).is_empty());
    let db = kstone_api::Database::in_memory().unwrap();
    db.put("k", [("name", Value::from("Ann")), ("age", Value::from(42))]).unwrap();
    assert_eq!(db.get("k").unwrap().unwrap()["age"].as_u64(), Some(42));
}

#[test]
#[should_panic = "the item has no attribute \"nickname\""]
fn indexing_an_attribute_that_is_missing_panics() {
    let item = Item::from([("name", "Ann")]);
    assert_eq!(item["name"].as_str(), Some("Ann"));
    let _ = &item["nickname"];
}

fn order() -> Item {
    let line = |product: &str, count: u32| {
        ItemBuilder::new().string("product", product).number("count", count).build()
    };
    ItemBuilder::new()
        .map("customer", ItemBuilder::new().string("first name", "Ann").list("tags", ["new", "vip"]))
        .list("lines", [line("tea", 2), line("cups", 6)])
        .list("grid", [Value::from(vec![Value::from(1), Value::from(2)]), Value::from(vec![Value::from(3)])])
        .string("a.b", "by name alone")
        .string_set("set", ["x"])
        .build()
}

#[test]
fn a_path_leads_to_a_value_or_none() {
    let item = order();
    let view = view(&item);
    for (path, expected) in [
        ("customer.first name", Some("\"Ann\"")),
        ("customer.tags[1]", Some("\"vip\"")),
        ("lines[1].product", Some("\"cups\"")),
        ("lines[0].count", Some("2")),
        ("lines[0]", Some(r#"{"count":2,"product":"tea"}"#)),
        ("grid[0][1]", Some("2")),
        ("grid[1][0]", Some("3")),
        ("grid", Some("[[1,2],[3]]")),
        // What is not there.
        ("nobody", None),
        ("customer.nobody", None),
        ("lines[2]", None),
        ("lines[2].count", None),
        ("grid[1][1]", None),
        // A value of another type on the way.
        ("customer[0]", None),
        ("lines.count", None),
        ("lines[0].count.x", None),
        ("set[0]", None),
        ("[0]", None),
        // A name with a dot is reached by name.
        ("a.b", None),
        // No paths.
        ("", None),
        (".", None),
        ("customer.", None),
        (".customer", None),
        ("lines[]", None),
        ("lines[0", None),
        ("lines[-1]", None),
        ("lines[+1]", None),
        ("lines[0]count", None),
        ("lines.[0]", None),
        ("grid[99999999999999999999]", None),
    ] {
        assert_eq!(item.at(path).map(Value::to_string).as_deref(), expected, "{path}");
        let found = view.at(path).unwrap().map(|value| value.to_value().unwrap().to_string());
        assert_eq!(found.as_deref(), expected, "{path}");
        assert_eq!(Value::from(item.clone()).at(path).map(Value::to_string).as_deref(), expected, "{path}");
        let mut copy = item.clone();
        assert_eq!(copy.at_mut(path).map(|value| value.to_string()).as_deref(), expected, "{path}");
        if let Some(value) = copy.at_mut(path) {
            *value = Value::from("changed");
            assert_eq!(copy.at(path).and_then(Value::as_str), Some("changed"));
        } else {
            assert_eq!(copy, item);
        }
    }
    assert_eq!(item.get("a.b").and_then(Value::as_str), Some("by name alone"));
    assert_eq!(item["grid"].at("[0][1]").and_then(Value::as_i64), Some(2));
    let grid = view.get("grid").unwrap().unwrap();
    assert_eq!(grid.at("[0][1]").unwrap().and_then(ValueView::as_i64), Some(2));
    let customer = view.get("customer").unwrap().and_then(ValueView::as_map).unwrap();
    assert_eq!(customer.at("tags[0]").unwrap().and_then(ValueView::as_str), Some("new"));
    // A long path is walked, not descended into.
    assert!(item.at(&"x.".repeat(100_000)).is_none() && item.at(&"[0]".repeat(100_000)).is_none());
}

/// The paths to all values within a value, except through names that no path can contain.
fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    match value {
        Value::M(map) => {
            for (name, value) in map.iter().filter(|(name, _)| is_name(name)) {
                paths(value, &format!("{path}.{name}"), found);
            }
        }
        Value::L(list) => {
            for (n, value) in list.iter().enumerate() {
                paths(value, &format!("{path}[{n}]"), found);
            }
        }
        _ => {}
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['.', '[', ']'])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_value_is_found_by_its_path_and_read_in_place(mut item in item()) {
        let view = view(&item);
        let mut found = Vec::new();
        for (name, value) in item.iter().filter(|(name, _)| is_name(name)) {
            paths(value, name, &mut found);
        }
        for path in found {
            let value = item.at(&path).unwrap().clone();
            let in_place = view.at(&path).unwrap().unwrap();
            prop_assert_eq!(&in_place.to_value().unwrap(), &value);
            prop_assert_eq!(read_in_place(in_place), read(&value), "{}", path);
            prop_assert_eq!(item.at_mut(&path), Some(&mut value.clone()));
        }
    }

    #[test]
    fn any_text_is_a_path_to_the_same_value_or_none(item in item(), path in "[a-c.\\[\\]0-1]{0,8}") {
        let in_place = view(&item).at(&path).unwrap().map(|value| value.to_value().unwrap());
        prop_assert_eq!(in_place.as_ref(), item.at(&path));
    }
}
