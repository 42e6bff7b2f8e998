//! What only the inside of the crate can count.

use super::{Condition, Projection, Update, attr};
use crate::codec::PARSED;
use crate::{Item, ItemView, Value};

/// An item of 100 attributes, `a00` to `a99`; each is a number, but for `a50`, a map, and `a51`, a list.
fn stored() -> Vec<u8> {
    let mut item: Item = (0..100).map(|i| (format!("a{i:02}"), i)).collect();
    item.insert("a50", Item::from_iter([("x", Value::from(1)), ("y", Value::from(vec![Value::from(2)]))]));
    item.insert("a51", (0..10).map(Value::from).collect::<Vec<_>>());
    item.encode().unwrap()
}

/// The values that this decodes, those within others included.
fn decoded(run: impl FnOnce()) -> usize {
    let before = PARSED.get();
    run();
    PARSED.get() - before
}

#[test]
fn an_update_decodes_what_it_touches() {
    let stored = stored();
    for (update, expected) in [
        (Update::new().add("a07", 1), 1),
        (Update::new().add("new", 1), 0),
        (Update::new().set("a07", 1), 0),
        (Update::new().remove("a50"), 0),
        (Update::new().set("a07", attr("a08").plus(attr("a09"))), 2),
        (Update::new().set("a07", attr("a07").or(1)), 1),
        // The map, its two members, and the element of the list within.
        (Update::new().set(attr("a50").field("z"), 1), 4),
        // An operand is looked up without the rest of the map.
        (Update::new().set("a07", attr("a50").field("x")), 2),
        (Update::new().append("a51", [1]), 11),
    ] {
        let mut applied = None;
        let found = decoded(|| applied = Some(update.apply_stored(Some(&stored)).unwrap()));
        assert_eq!(found, expected, "{update}");
        let mut item = Item::decode(&stored).unwrap();
        update.apply(&mut item).unwrap();
        assert_eq!(applied.unwrap().item, item.encode().unwrap(), "{update}");
    }
}

#[test]
fn conditions_and_projections_decode_what_they_name() {
    let stored = stored();
    let view = ItemView::new(&stored).unwrap();
    let conditions: [(Condition, usize); 6] = [
        (attr("a07").eq(7), 1),
        (attr("a07").eq(8) & attr("a08").eq(8), 1),
        (attr("a07").eq(7) | attr("a08").eq(8), 1),
        (attr("a50").field("x").eq(1), 2),
        (attr("a51").size().eq(10), 1),
        (attr("missing").absent() & Condition::item_exists(), 0),
    ];
    for (condition, expected) in conditions {
        assert_eq!(decoded(|| assert!(condition.holds(Some(&view)).is_ok())), expected, "{condition}");
    }
    let projection = Projection::of([attr("a07"), attr("a51").at(3), attr("missing")]);
    assert_eq!(decoded(|| drop(projection.apply(&view).unwrap())), 3);
}

#[test]
fn there_are_573_reserved_words() {
    assert!(super::reserved::WORDS.is_sorted_by(|a, b| a < b) && super::reserved::WORDS.len() == 573);
    for word in ["ABORT", "zone", "Name", "size", "set"] {
        assert!(super::reserved::is_reserved(word), "{word}");
    }
    for word in ["REMOVE", "version", "ABORTS", "", "names_", "é"] {
        assert!(!super::reserved::is_reserved(word), "{word}");
    }
}
