//! Expressions that are too large: refused, in little time and without deep recursion.

use kstone_api::{Condition, Item, Operand, Params, Path, Projection, Update, Value, attr};

fn refused<T: std::fmt::Debug>(result: kstone_api::Result<T>, why: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), "invalid_expression");
    assert!(error.to_string().contains(why), "{error}");
}

/// Builds, copies, prints, compares, evaluates and drops.
fn exercise(condition: Condition, why: &str) {
    let copy = condition.clone();
    assert_eq!(copy, condition);
    assert!(condition.to_string().contains(why), "{condition}");
    refused(condition.to_dynamodb(&mut Params::new()), why);
    refused(condition.matches_item(&Item::new()), why);
}

#[test]
fn long_and_deep_texts() {
    let params = Params::new();
    let texts = [
        "x".repeat(1 << 20),
        "(".repeat(100_000),
        "NOT ".repeat(100_000),
        format!("a{} = b", ".a".repeat(10_000)),
        format!("a{} = b", "[0]".repeat(10_000)),
        format!("{}a = b{}", "(".repeat(100_000), ")".repeat(100_000)),
    ];
    for text in &texts {
        refused(Condition::parse(text, &params), "longer than 4096 bytes");
        refused(Update::parse(text, &params), "longer than 4096 bytes");
        refused(Projection::parse(text, &params), "longer than 4096 bytes");
        refused(Path::parse(text), "longer than 4096 bytes");
    }
    refused(Condition::parse(&"(".repeat(4096), &params), "it nests deeper than 32 levels");
    refused(Condition::parse(&"NOT ".repeat(1000), &params), "it nests deeper than 32 levels");
    refused(
        Condition::parse(&format!("{}a = b{}", "(".repeat(33), ")".repeat(33)), &params),
        "at byte 33: it nests deeper than 32 levels",
    );
    assert!(Condition::parse(&format!("{}a = b{}", "(".repeat(32), ")".repeat(32)), &params).is_ok());
    assert!(Condition::parse(&format!("{}a = b", "NOT ".repeat(32)), &params).is_ok());
    let sets = |n: usize| format!("SET a = {}b{}", "if_not_exists(x, ".repeat(n), ")".repeat(n));
    refused(Update::parse(&sets(200), &params), "it nests deeper than 32 levels");
    refused(Update::parse(&sets(33), &params), "it nests deeper than 32 levels");
    assert!(Update::parse(&sets(32), &params).is_ok());
    refused(Update::parse(&format!("SET a = {}", "(".repeat(4000)), &params), "it nests deeper");
    let path = |n: usize| format!("a{}", ".a".repeat(n));
    refused(Projection::parse(&path(33), &params), "more than 32 steps");
    refused(Projection::parse(&path(2000), &params), "more than 32 steps");
    refused(Path::parse(&path(33)), "more than 32 steps");
    assert!(Projection::parse(&path(32), &params).is_ok() && Path::parse(&path(32)).is_ok());
}

#[test]
fn many_operators_in_a_text() {
    let params = Params::new();
    let chain = |n: usize, between: &str| vec!["a=b"; n].join(between);
    assert!(Condition::parse(&chain(150, " OR "), &params).is_ok()); // 150 + 149
    refused(Condition::parse(&chain(151, " OR "), &params), "more than 300 operators and functions");
    refused(Condition::parse(&chain(500, " AND "), &params), "more than 300 operators and functions");
    let list = |n: usize| format!("a IN ({})", vec!["b"; n].join(","));
    assert!(Condition::parse(&list(100), &params).is_ok());
    refused(Condition::parse(&list(101), &params), "IN takes 1 to 100 operands");
    let removes =
        |n: usize| format!("REMOVE {}", (0..n).map(|i| format!("a{i}")).collect::<Vec<_>>().join(","));
    assert!(Update::parse(&removes(300), &params).is_ok());
    refused(Update::parse(&removes(301), &params), "more than 300 operators and functions");
}

#[test]
fn chains_of_a_million() {
    let leaf = || attr("a").eq(1);
    let operators = "more than 300 operators and functions";
    exercise((0..1_000_000).fold(leaf(), |chain, _| chain & leaf()), operators);
    exercise((0..1_000_000).fold(leaf(), |chain, _| leaf() & chain), operators);
    exercise((0..1_000_000).fold(leaf(), |chain, _| chain | leaf()), operators);
    exercise((0..1_000_000).fold(leaf(), |chain, _| leaf() | chain), operators);
    exercise((0..1_000_000).fold(leaf(), |chain, _| !chain), "nests deeper than 32 levels");
    let zigzag = |n| (0..n).fold(leaf(), |chain, i| if i % 2 == 0 { chain & leaf() } else { leaf() | chain });
    exercise(zigzag(1_000_000), "nests deeper than 32 levels");
    // Just within the limits, one by one and by text.
    for condition in [
        (0..149).fold(leaf(), |chain, _| chain & leaf()),
        (0..149).fold(leaf(), |chain, _| leaf() | chain),
        (0..32).fold(leaf(), |chain, _| !chain),
        zigzag(32),
    ] {
        let mut params = Params::new();
        let text = condition.to_dynamodb(&mut params).unwrap();
        assert_eq!(Condition::parse(&text, &params).unwrap(), condition);
        condition.matches_item(&Item::new()).unwrap();
    }
    assert!(zigzag(33).matches_item(&Item::new()).is_err());
}

#[test]
fn long_paths_and_operands() {
    let fields = (0..10_000).fold(attr("a"), |path, _| path.field("a"));
    let indexes = (0..10_000).fold(attr("a"), |path, _| path.at(0));
    for path in [fields, indexes] {
        refused(path.clone().exists().matches_item(&Item::new()), "more than 32 steps");
        refused(path.clone().size().eq(1).matches_item(&Item::new()), "more than 32 steps");
        refused(Update::new().remove(path.clone()).apply(&mut Item::new()), "more than 32 steps");
        refused(Update::new().set("x", path.clone().or(1)).apply(&mut Item::new()), "more than 32 steps");
        refused(Projection::of([path]).to_dynamodb(&mut Params::new()), "more than 32 steps");
    }
    let chain = (0..100_000).fold(Operand::from(1), |chain, _| attr("a").or(chain));
    refused(Update::new().set("x", chain).apply(&mut Item::new()), "nests deeper than 32 levels");
    let sum = (0..100_000).fold(Operand::from(1), |chain, _| chain.plus(1));
    refused(Update::new().set("x", sum).apply(&mut Item::new()), "adds once");
    // Endless iterators.
    refused(attr("a").is_in(0..).matches_item(&Item::new()), "IN takes 1 to 100 operands");
}

#[test]
fn many_actions_and_paths() {
    let update = (0..100_000).fold(Update::new(), |update, i| update.set(format!("a{i}"), 1));
    refused(update.apply(&mut Item::new()), "more than 300 operators and functions");
    let same = (0..300).fold(Update::new(), |update, _| update.remove("a"));
    refused(same.apply(&mut Item::new()), "overlap at a");
    let all = (0..300).fold(Update::new(), |update, i| update.set(format!("a{i}"), i));
    let mut item = Item::new();
    all.apply(&mut item).unwrap();
    assert_eq!(item.len(), 300);
    let view = kstone_api::ItemView::new(item.encode().unwrap()).unwrap();
    let names = (0..10_000).map(|i| format!("a{i}"));
    let projection = Projection::of(names);
    assert_eq!(projection.apply(&view).unwrap(), item);
    refused(projection.to_dynamodb(&mut Params::new()), "longer than 4096 bytes");
    // Long names are not part of the text.
    let long = attr("x y".repeat(10_000)).exists();
    assert_eq!(long.to_dynamodb(&mut Params::new()).unwrap(), "attribute_exists(#n0)");
}

#[test]
fn damaged_items_are_errors() {
    let item = Item::builder().list("a", [1, 2]).string("b", "x").build();
    let bytes = item.encode().unwrap();
    let conditions =
        [attr("a").eq(attr("a")), attr("a").at(1).ge(2), attr("b").contains("x"), attr("c").absent()];
    let update = Update::new().append("a", [3]).set("c", attr("b"));
    for i in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[i] ^= 1 << bit;
            let Ok(view) = kstone_api::ItemView::new(&damaged) else { continue };
            for condition in &conditions {
                let _ = condition.matches(&view);
            }
            let _ = Projection::of([attr("a").at(0), attr("b")]).apply(&view);
            let _ = kstone_api::fuzzing::apply_stored(&update, Some(&damaged));
        }
    }
    // Lists that nest deeper than items do, which no encoder makes: a list of one list, and so on.
    // A table: the header with the count 1 and the width of ends, the end, the entry.
    let table = |tag: u8, entry: &[u8]| {
        let len = u16::try_from(entry.len()).unwrap().to_le_bytes();
        let (code, end) = if entry.len() < 256 { (0, &len[..1]) } else { (1, &len[..]) };
        [&[tag, 1 << 2 | code], end, entry].concat()
    };
    let mut deep = vec![7u8, 0];
    while deep.len() < 60_000 {
        deep = table(7, &deep);
    }
    let stored = table(1, &[&[1, b'a'][..], &deep].concat());
    let view = kstone_api::ItemView::new(&stored).unwrap();
    assert!(attr("a").eq(attr("a")).matches(&view).is_err());
    assert!(attr("a").size().eq(1).matches(&view).unwrap());
    assert!(Projection::of(["a"]).apply(&view).is_err());
    assert!(
        kstone_api::fuzzing::apply_stored(&Update::new().append("a", [Value::Null]), Some(&stored)).is_err()
    );
}
