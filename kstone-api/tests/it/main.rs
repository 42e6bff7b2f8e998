//! The crate's tests, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod advise;
mod arithmetic;
mod chapter_23;
mod codec;
mod conversions;
mod database;
mod docs;
mod dynamodb_lines;
mod examples;
mod expression;
mod figures;
mod filters;
mod from_json;
mod fuzz_corpus;
mod items;
mod json;
mod model;
mod number_key;
mod openmetrics;
mod paging;
mod patch;
mod preset;
mod transactions;
mod typed;
mod values;

use std::collections::BTreeSet;

use kstone_api::{CompactionConfig, DatabaseConfig, Item, Number, Value};
use proptest::prelude::*;

/// Any number that can be stored, in all notations.
fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<i64>().prop_map(Number::from),
        any::<u64>().prop_map(Number::from),
        (-1e20..1e20).prop_map(Number::from),
        "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,19})?([eE][+-]?[0-9]{1,2})?"
            .prop_map(|text| text.parse().unwrap()),
    ]
}

/// Any value that can be stored, of small depth.
fn value() -> impl Strategy<Value = Value> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let leaf = prop_oneof![
        ".{0,40}".prop_map(Value::S),
        number().prop_map(Value::N),
        bytes().prop_map(Value::B),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
        proptest::collection::btree_set(".{0,8}", 1..5).prop_map(Value::Ss),
        proptest::collection::vec(number(), 1..5).prop_map(|v| Value::Ns(BTreeSet::from_iter(v))),
        proptest::collection::btree_set(bytes(), 1..5).prop_map(Value::Bs),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::L),
            proptest::collection::vec((".{0,6}", inner), 0..6).prop_map(|a| Value::M(Item::from_iter(a))),
        ]
    })
}

fn item() -> impl Strategy<Value = Item> {
    proptest::collection::vec((".{0,12}", value()), 0..12).prop_map(Item::from_iter)
}

/// Nested lists, this many in total.
fn nested(depth: usize) -> Item {
    let value = (0..depth).fold(Value::Null, |inner, _| Value::L(vec![inner]));
    Item::from_iter([("a", value)])
}

/// The names of all builder methods of the two structs of settings.
fn builders() -> Vec<&'static str> {
    let settings = DatabaseConfig::SETTINGS.iter().chain(CompactionConfig::SETTINGS);
    let found: Vec<_> =
        settings.map(|setting| setting.builder).filter(|name| !name.ends_with("()")).collect();
    assert!(found.len() >= 32, "{found:?}");
    found
}
