//! Editing stored items: the same bytes as encoding the edited item, and nothing else is looked at.

use kstone_api::{Error, Item, ItemBuilder, Number, Value, fuzzing::patch};
use proptest::prelude::*;

use crate::{item, nested, value};

type Edits = Vec<(String, Option<Value>)>;

fn patched(old: &[u8], edits: &Edits) -> Result<Vec<u8>, Error> {
    let edits: Vec<_> = edits.iter().map(|(name, value)| (name.as_str(), value.as_ref())).collect();
    patch(old, &edits)
}

fn edited(item: &Item, edits: &Edits) -> Item {
    let mut item = item.clone();
    for (name, value) in edits {
        match value {
            Some(value) => drop(item.insert(name.clone(), value.clone())),
            None => drop(item.remove(name)),
        }
    }
    item
}

/// An item, and edits of its attributes and of others.
fn item_and_edits() -> impl Strategy<Value = (Item, Edits)> {
    let edit = (any::<prop::sample::Index>(), ".{0,12}", proptest::option::weighted(0.6, value()));
    (item(), proptest::collection::vec(edit, 0..8)).prop_map(|(item, edits)| {
        let names: Vec<String> = item.iter().map(|(name, _)| name.to_owned()).collect();
        let edits = edits.into_iter().map(|(at, other, value)| {
            let known = if names.is_empty() || at.index(3) == 0 { other } else { at.get(&names).clone() };
            (known, value)
        });
        let edits = edits.collect();
        (item, edits)
    })
}

proptest! {
    #[test]
    fn an_edit_is_what_encoding_the_edited_item_gives((item, edits) in item_and_edits()) {
        let old = item.encode().unwrap();
        prop_assert_eq!(patched(&old, &edits).unwrap(), edited(&item, &edits).encode().unwrap());
        prop_assert_eq!(patched(&old, &vec![]).unwrap(), old);
    }

    #[test]
    fn damage_is_an_error_or_stays(
        (item, edits) in item_and_edits(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut old = item.encode().unwrap();
        for (at, byte) in damage {
            let at = at.index(old.len());
            old[at] = byte;
        }
        if let Some(cut) = cut {
            old.truncate(cut.index(old.len()));
        }
        match patched(&old, &edits) {
            Err(e) => {
                prop_assert!(matches!(e, Error::Corruption { .. }), "{e:?}");
                prop_assert!(Item::decode(&old).is_err());
            }
            Ok(new) => match Item::decode(&old) {
                Ok(item) => prop_assert_eq!(new, edited(&item, &edits).encode().unwrap()),
                // What is broken was replaced, or is still broken.
                Err(_) => drop(Item::decode(&new)),
            },
        }
    }
}

#[test]
fn widths_of_ends_follow_the_length() {
    for len in [0, 200, 240, 255, 256, 65_000, 65_535, 65_536, 100_000] {
        for new_len in [0, 230, 256, 65_520, 65_536, 100_000] {
            let item = ItemBuilder::new().string("a", "x".repeat(len)).number("b", 1).build();
            for name in ["a", "b", "0", "c"] {
                let edits = vec![(name.to_owned(), Some(Value::from("y".repeat(new_len))))];
                let new = patched(&item.encode().unwrap(), &edits).unwrap();
                assert_eq!(new, edited(&item, &edits).encode().unwrap());
            }
        }
    }
}

#[test]
fn the_last_of_several_edits_of_a_name_counts() {
    let old = ItemBuilder::new().number("n", 1).build().encode().unwrap();
    let (two, three) = (Value::from(2), Value::from(3));
    let new = patch(&old, &[("n", Some(&two)), ("z", Some(&two)), ("n", Some(&three)), ("z", None)]).unwrap();
    assert_eq!(Item::decode(&new).unwrap(), ItemBuilder::new().number("n", 3).build());
}

/// Attributes that are kept are not decoded: values that are no values are copied as they are.
#[test]
fn kept_attributes_are_not_looked_at() {
    // Tag 99 does not exist; the text and the number are none.
    let old = b"\x01\x0c\x05\x0a\x0f\x01a\x63\xff\xfe\x01b\x01\xff\xff\x01c\x02xx";
    assert!(Item::decode(old).is_err());
    let one = Value::from(1);
    let new = patch(old, &[("bb", Some(&one))]).unwrap();
    assert_eq!(new, b"\x01\x10\x05\x0a\x0f\x14\x01a\x63\xff\xfe\x01b\x01\xff\xff\x02bb\x021\x01c\x02xx");
    // Replacing all three mends the item.
    let mended = patch(old, &[("a", Some(&one)), ("b", None), ("c", None)]).unwrap();
    assert_eq!(Item::decode(&mended).unwrap(), ItemBuilder::new().number("a", 1).build());
}

#[test]
fn damaged_tables_are_corruption() {
    let item = ItemBuilder::new().number("a", 1).number("b", 2).build().encode().unwrap();
    let refused = |bytes: &[u8]| match patch(bytes, &[("c", Some(&Value::Null))]) {
        Err(Error::Corruption { detail, .. }) => detail,
        other => panic!("{other:?}"),
    };
    for len in 0..item.len() {
        refused(&item[..len]);
    }
    let with = |at: usize, byte: u8| {
        let mut damaged = item.clone();
        damaged[at] = byte;
        refused(&damaged)
    };
    assert_eq!(with(0, 2), "it has encoding 2, this version reads 1");
    assert_eq!(with(1, 0x7c), "a table is cut short");
    assert_eq!(with(2, 0xff), "the ends of a table do not fit its entries");
    assert_eq!(with(4, 0x7f), "an attribute's name is cut short");
    assert_eq!(with(5, b'b'), "attributes are not in order");
}

#[test]
fn what_cannot_be_stored_is_named() {
    let old = ItemBuilder::new().number("a", 1).build().encode().unwrap();
    let deep = |levels| nested(levels).get("a").unwrap().clone();
    assert!(patch(&old, &[("x", Some(&deep(32)))]).is_ok());
    let error = patch(&old, &[("x", Some(&deep(33)))]).unwrap_err().to_string();
    assert!(error.contains("nest deeper than 32"), "{error}");
    let bad = Value::from(vec![Value::N(Number::from(f64::NAN))]);
    match patch(&old, &[("x", Some(&bad))]) {
        Err(Error::InvalidNumber { attribute, .. }) => assert_eq!(attribute, "x.0"),
        other => panic!("{other:?}"),
    }
}
