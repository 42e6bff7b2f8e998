//! Builders make what the texts do, and refuse what the texts do.

use std::collections::BTreeSet;

use kstone_api::{Condition, Item, Operand, Params, Type, Update, Value, attr};

fn parse(text: &str, params: Params) -> Condition {
    Condition::parse(text, &params).unwrap()
}

#[test]
fn conditions() {
    let v = || Params::new().value(":v", 1);
    let vw = || v().value(":w", 2);
    for (built, parsed) in [
        (attr("a").eq(1), parse("a = :v", v())),
        (attr("a").ne(1), parse("a <> :v", v())),
        (attr("a").lt(1), parse("a < :v", v())),
        (attr("a").le(1), parse("a <= :v", v())),
        (attr("a").gt(1), parse("a > :v", v())),
        (attr("a").ge(1), parse("a >= :v", v())),
        (attr("a").between(1, 2), parse("a BETWEEN :v AND :w", vw())),
        (attr("a").is_in([1, 2]), parse("a IN (:v, :w)", vw())),
        (attr("a").eq(attr("b").at(0)), parse("a = b[0]", Params::new())),
        (attr("a").size().eq(1), parse("size(a) = :v", v())),
        (attr("a").lt(attr("b").size()), parse("a < size(b)", Params::new())),
        (Operand::from(1).eq(attr("a")), parse(":v = a", v())),
        (attr("a").exists(), parse("attribute_exists(a)", Params::new())),
        (attr("a").absent(), parse("attribute_not_exists(a)", Params::new())),
        (attr("a").is_type(Type::N), parse("attribute_type(a, :v)", Params::new().value(":v", "N"))),
        (attr("a").begins_with("x"), parse("begins_with(a, :v)", Params::new().value(":v", "x"))),
        (attr("a").contains(1), parse("contains(a, :v)", v())),
        (
            Condition::item_exists() | Condition::item_absent(),
            parse("item_exists() OR item_not_exists()", Params::new()),
        ),
        (
            attr("a").exists() & attr("b").exists() & !attr("c").exists(),
            parse("attribute_exists(a) AND attribute_exists(b) AND NOT attribute_exists(c)", Params::new()),
        ),
        (
            attr("a").exists() & (attr("b").exists() & attr("c").exists()),
            parse("attribute_exists(a) AND attribute_exists(b) AND attribute_exists(c)", Params::new()),
        ),
        (
            (attr("a").exists() | attr("b").exists()) & attr("c").exists(),
            parse("(attribute_exists(a) OR attribute_exists(b)) AND attribute_exists(c)", Params::new()),
        ),
    ] {
        assert_eq!(built, parsed);
    }
}

#[test]
fn updates() {
    let set = BTreeSet::from(["x".to_owned()]);
    let params = Params::new()
        .value(":n", 1)
        .value(":s", set.clone())
        .value(":l", vec![Value::from(1)])
        .value(":e", Vec::<Value>::new());
    let text = "ADD b :n, c :s DELETE d :s REMOVE e SET a = :n, f = if_not_exists(f, :n), \
                g = list_append(if_not_exists(g, :e), :l), h = list_append(:l, if_not_exists(h, :e)), i = j - :n";
    let built = Update::new()
        .set("a", 1)
        .add("b", 1)
        .insert("c", set.clone())
        .delete_from("d", set)
        .remove("e")
        .set_if_absent("f", 1)
        .append("g", [1])
        .prepend("h", [1])
        .set("i", attr("j").minus(1));
    assert_eq!(built, Update::parse(text, &params).unwrap());
}

#[test]
fn what_texts_refuse_builders_refuse() {
    let item = Item::builder().number("a", 1).build();
    for (condition, why) in [
        (attr("a").lt(true), "< takes strings, numbers and binary"),
        (attr("a").begins_with(1), "begins_with takes a string or binary"),
        (attr("a").eq(attr("b").plus(1)), "+ is for updates"),
        (attr("a").eq(attr("b").or(1)), "if_not_exists is for updates"),
        (attr("a").is_in([0; 0]), "IN takes 1 to 100 operands"),
        (attr("a").is_in(0..101), "IN takes 1 to 100 operands"),
        (attr("a").eq(f64::NAN), "a value cannot be stored"),
        (attr("a").eq(Value::Ss(BTreeSet::new())), "a set has at least one member"),
        (attr("a").eq(1) & attr("a").lt(true), "< takes"),
        (!(attr("a").lt(true) | attr("a").eq(1)), "< takes"),
    ] {
        let error = condition.matches_item(&item).unwrap_err();
        assert_eq!(error.code(), "invalid_expression");
        assert!(error.to_string().contains(why), "{error}");
        assert!(condition.to_dynamodb(&mut Params::new()).is_err());
        assert!(condition.to_string().contains(why), "{condition}");
    }
    for (update, why) in [
        (Update::new().set("a", attr("b").size()), "size() is for conditions"),
        (Update::new().set("a", attr("b").plus("x")), "+ and - take numbers"),
        (Update::new().set("a", attr("b").plus(1).plus(1)), "adds once"),
        (Update::new().insert("a", 1), "insert takes a set"),
        (Update::new().delete_from("a", "x"), "DELETE takes a set"),
        (Update::new().insert("a", BTreeSet::<String>::new()), "at least one member"),
        (Update::new().add("a", f64::INFINITY), "cannot be stored"),
        (Update::new().append("a", [f64::NAN]), "cannot be stored"),
        (Update::new().set("a", 1).remove("a"), "overlap at a"),
        (Update::new().set(attr("a").field("b"), 1).remove("a"), "overlap at a"),
    ] {
        let mut changed = item.clone();
        let error = update.apply(&mut changed).unwrap_err();
        assert_eq!(error.code(), "invalid_expression");
        assert!(error.to_string().contains(why), "{error}");
        assert!(update.to_dynamodb(&mut Params::new()).is_err());
        assert_eq!(changed, item);
    }
}

#[test]
fn printing_reuses_names_and_avoids_placeholders_that_are_taken() {
    let mut params = Params::new().name("#n0", "x").value(":v0", 7);
    let condition = attr("name").eq(attr("name").field("name")) & attr("name").ne("x");
    assert_eq!(condition.to_dynamodb(&mut params).unwrap(), "#n1 = #n1.#n1 AND #n1 <> :v1");
    let update = Update::new().set("name", "y");
    assert_eq!(update.to_dynamodb(&mut params).unwrap(), "SET #n1 = :v2");
    assert_eq!(params.names().count(), 2);
    assert_eq!(params.values().count(), 3);
    // Nothing is added if printing fails.
    let before = params.clone();
    assert!(Update::new().set("name", attr("a").size()).to_dynamodb(&mut params).is_err());
    assert_eq!(params, before);
}

#[test]
fn names_that_need_a_placeholder() {
    for (name, plain) in [
        ("version", true),
        ("Version_2", true),
        ("name", false),
        ("NAME", false),
        ("remove", false),
        ("_x", false),
        ("2x", false),
        ("a.b", false),
        ("a-b", false),
        ("é", false),
        ("", false),
    ] {
        let condition = attr(name).exists();
        let mut params = Params::new();
        let text = condition.to_dynamodb(&mut params).unwrap();
        assert_eq!(params.names().count() == 0, plain, "{name}: {text}");
        assert_eq!(Condition::parse(&text, &params).unwrap(), condition);
    }
}
