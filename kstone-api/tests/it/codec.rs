//! The stored form: round trips, reads in place, and bytes that are not an item.

use std::collections::BTreeSet;

use kstone_api::{Error, Item, ItemBuilder, ItemView, Slice, Value, ValueView};
use proptest::prelude::*;

use crate::{item, nested};

fn sample() -> Item {
    ItemBuilder::new()
        .string("name", "Ann")
        .number("age", 42)
        .bool("active", true)
        .null("nothing")
        .binary("blob", [0, 1, 255])
        .list("list", [Value::from(1), Value::from("two"), Value::L(vec![])])
        .map("map", ItemBuilder::new().string("city", "Ghent").map("empty", Item::new()))
        .string_set("ss", ["b", "a"])
        .number_set("ns", [2, 1])
        .binary_set("bs", [[9u8, 9], [1, 2]])
        .build()
}

/// Reads everything that can be read. Whatever the bytes are, this must terminate without a panic.
fn read_all(bytes: &[u8]) -> Result<Item, Error> {
    let decoded = Item::decode(bytes);
    let view = ItemView::new(bytes);
    assert!(view.is_ok() || decoded.is_err());
    let Ok(view) = view else { return decoded };
    let valid = view.validate();
    assert_eq!(valid.is_ok(), decoded.is_ok(), "{valid:?} {decoded:?}");
    for name in ["", "a", "age", "map", "name", "zzz"] {
        let got = view.get(name).and_then(|v| v.map(ValueView::to_value).transpose());
        if let Ok(item) = &decoded {
            assert_eq!(got.unwrap().as_ref(), item.get(name));
        }
    }
    for entry in view.as_map().unwrap().iter() {
        match entry {
            Ok((_, ValueView::L(list))) => list.iter().for_each(drop),
            Ok((_, ValueView::Ss(set) | ValueView::Ns(set) | ValueView::Bs(set))) => {
                set.iter().for_each(drop)
            }
            _ => {}
        }
    }
    let _ = format!("{view:?}");
    decoded
}

#[test]
fn one_attribute_is_read_in_place() {
    let bytes = sample().encode().unwrap();
    let view = ItemView::new(Slice::from(bytes.as_slice())).unwrap();
    assert_eq!(view.get("name").unwrap().and_then(ValueView::as_str), Some("Ann"));
    assert_eq!(view.get("age").unwrap().and_then(ValueView::as_i64), Some(42));
    assert_eq!(view.get("age").unwrap().and_then(ValueView::as_f64), Some(42.0));
    assert_eq!(view.get("active").unwrap().and_then(ValueView::as_bool), Some(true));
    assert_eq!(view.get("blob").unwrap().and_then(ValueView::as_bytes), Some(&[0, 1, 255][..]));
    assert!(matches!(view.get("nothing"), Ok(Some(ValueView::Null))));
    // A view need not come from an item.
    assert!(ValueView::N("1.5").to_value().is_ok() && ValueView::N("+1").to_value().is_err());
    assert!(matches!(view.get("nobody"), Ok(None)));
    let Ok(Some(ValueView::M(map))) = view.get("map") else { panic!() };
    assert_eq!(map.get("city").unwrap().and_then(ValueView::as_str), Some("Ghent"));
    assert_eq!(map.len(), 2);
    let Ok(Some(ValueView::L(list))) = view.get("list") else { panic!() };
    assert_eq!(list.get(1).unwrap().and_then(ValueView::as_str), Some("two"));
    assert!(list.get(3).unwrap().is_none());
    let Ok(Some(ValueView::Ns(set))) = view.get("ns") else { panic!() };
    assert_eq!(set.iter().map(Result::unwrap).collect::<Vec<_>>(), [b"1", b"2"]);
    view.validate().unwrap();
    assert_eq!(view.to_item().unwrap(), sample());
}

#[test]
fn the_format_is_what_it_was() {
    // Written once, readable for ever: changing these bytes requires a new version number.
    let item = ItemBuilder::new().string("name", "Ann").number("age", 42).list("l", [true]).build();
    let bytes = b"\x01\x0c\x07\x0d\x16\x03age\x0242\x01l\x07\x04\x01\x05\x04name\x01Ann";
    assert_eq!(item.encode().unwrap().escape_ascii().to_string(), bytes.escape_ascii().to_string());
    assert_eq!(Item::decode(bytes).unwrap(), item);
}

#[test]
fn all_widths_and_many_attributes() {
    for len in [0, 1, 200, 255, 256, 65_000, 65_536, 100_000] {
        for count in [1, 2, 200] {
            let item = Item::from_iter((0..count).map(|i| (format!("a{i:03}"), "x".repeat(len / count))));
            let bytes = item.encode().unwrap();
            assert_eq!(read_all(&bytes).unwrap(), item);
            let view = ItemView::new(bytes.as_slice()).unwrap();
            for (name, value) in &item {
                assert_eq!(view.get(name).unwrap().and_then(ValueView::as_str), value.as_str());
            }
        }
    }
}

#[test]
fn what_cannot_be_stored_is_named() {
    let refused = |item: Item| match item.encode() {
        Err(Error::InvalidItem { why }) => why,
        other => panic!("{other:?}"),
    };
    let why = refused(
        ItemBuilder::new().map("m", ItemBuilder::new().value("s", BTreeSet::<String>::new())).build(),
    );
    assert_eq!(why, r#"attribute "m.s": a set has at least one member"#);
    assert!(nested(32).encode().is_ok());
    assert!(refused(nested(33)).contains("nest deeper than 32"));
    assert!(refused(nested(1000)).contains("nest deeper than 32"));
}

#[test]
fn every_truncation_is_refused() {
    for item in [Item::new(), sample(), nested(32)] {
        let bytes = item.encode().unwrap();
        for len in 0..bytes.len() {
            assert!(read_all(&bytes[..len]).is_err(), "{len} of {}", bytes.len());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(read_all(&longer).is_err());
        assert_eq!(read_all(&bytes).unwrap(), item);
    }
}

#[test]
fn bit_flips_give_an_item_or_an_error() {
    let bytes = sample().encode().unwrap();
    for i in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[i / 8] ^= 1 << (i % 8);
        if let Ok(item) = read_all(&flipped) {
            // If the bytes are a valid item, it is encoded as the same bytes.
            assert_eq!(item.encode().unwrap(), flipped);
        }
    }
}

/// Symptom: an item had many stored forms. Cause: decoding accepted lengths and counts encoded in more bytes than
/// necessary. Fix: it accepts only the shortest encoding, the only one ever written.
#[test]
fn an_item_has_one_stored_form() {
    assert!(read_all(&[1, 0]).is_ok());
    for padded in [&[1, 0x80, 0][..], &[1, 0x80, 0x80, 0]] {
        assert!(read_all(padded).is_err(), "{padded:?}");
    }
}

#[test]
fn depth_in_stored_bytes_is_bounded() {
    // Lists nested in lists: 3 bytes per level, built from the inside.
    let mut value = vec![6u8];
    for _ in 0..20_000 {
        let width: (u8, &[u8]) = match value.len() {
            0..=0xff => (0, &(value.len() as u8).to_le_bytes()),
            0x100..=0xffff => (1, &(value.len() as u16).to_le_bytes()),
            _ => (2, &(value.len() as u32).to_le_bytes()),
        };
        value = [&[7, 1 << 2 | width.0], width.1, &value].concat();
    }
    let entry = [b"\x01a".as_slice(), &value].concat();
    let item = [&[1, 1 << 2 | 2], (entry.len() as u32).to_le_bytes().as_slice(), &entry].concat();
    assert!(matches!(read_all(&item), Err(Error::InvalidItem { why }) if why.contains("nest too deep")));
}

#[test]
fn claims_of_huge_tables_allocate_nothing() {
    for count in [1u32 << 20, 1 << 29] {
        for code in 0..4u32 {
            let mut header = count << 2 | code;
            let mut bytes = vec![1u8];
            while header >= 0x80 {
                bytes.push(header as u8 | 0x80);
                header >>= 7;
            }
            bytes.push(header as u8);
            bytes.extend([0xff; 40]);
            assert!(read_all(&bytes).is_err());
        }
    }
    assert!(matches!(Item::decode(&[9, 0]), Err(Error::InvalidItem { why }) if why.contains("encoding 9")));
    assert!(Item::decode(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
}

#[test]
fn tables_out_of_order_are_refused() {
    for bytes in [
        b"\x01\x08\x03\x06\x01b\x06\x01a\x06".as_slice(), // attributes b, a
        b"\x01\x08\x03\x06\x01a\x06\x01a\x06",            // a twice
        b"\x01\x04\x03\x01a\x04\x04",                     // an end before the end of the bytes
        b"\x01\x04\x08\x01a\x09\x08\x01\x02ba",           // a set b, a
        b"\x01\x04\x04\x01a\x09\x00",                     // a set with no members
        b"\x01\x04\x05\x01a\x0201",                       // a number that is not in canonical form
        b"\x01\x04\x04\x01a\x01\xff",                     // a string that is not UTF-8
        b"\x01\x04\x04\x01a\x04\x00",                     // a boolean with more bytes
    ] {
        assert!(read_all(bytes).is_err(), "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn items_round_trip(item in item()) {
        let bytes = item.encode().unwrap();
        let decoded = read_all(&bytes).unwrap();
        prop_assert_eq!(&decoded, &item);
        // Numbers are equal if their values are; their text must be the same too.
        prop_assert_eq!(decoded.to_string(), item.to_string());
        prop_assert_eq!(decoded.encode().unwrap(), bytes);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_all(&bytes);
        let mut item = vec![1];
        item.extend(bytes);
        let _ = read_all(&item);
    }

    #[test]
    fn changed_items_are_read_without_panic(item in item(), changes in proptest::collection::vec(any::<(usize, u8)>(), 1..6)) {
        let mut bytes = item.encode().unwrap();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let _ = read_all(&bytes);
        bytes.truncate(bytes.len() / 2);
        let _ = read_all(&bytes);
    }
}
