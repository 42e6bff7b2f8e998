//! Projections, case by case.

use kstone_api::{Expressions, ItemView, Params, Path, Projection, attr};

use super::{check_error, item, params, unmarked};

const ITEM: &str = r#"{"a":1,"b":{"x":1,"y":{"z":2,"w":3},"name":4},"l":[0,[1,2],{"x":3,"y":4}],"name":"Ann","odd.name":7,"e":[],"em":{}}"#;

const CASES: &[(&str, &str)] = &[
    ("a", r#"{"a":1}"#),
    ("a, absent", r#"{"a":1}"#),
    ("absent", "{}"),
    ("#name, #odd", r#"{"name":"Ann","odd.name":7}"#),
    ("b", r#"{"b":{"name":4,"x":1,"y":{"w":3,"z":2}}}"#),
    ("b.x", r#"{"b":{"x":1}}"#),
    ("b.x, b.y.z", r#"{"b":{"x":1,"y":{"z":2}}}"#),
    ("b.y.z, b.y.w, a", r#"{"a":1,"b":{"y":{"w":3,"z":2}}}"#),
    ("b.#name", r#"{"b":{"name":4}}"#),
    ("b.absent", "{}"),
    ("a.x, l.x", "{}"),
    ("b[0], a[0]", "{}"),
    ("l[0]", r#"{"l":[0]}"#),
    ("l[2].y, l[0]", r#"{"l":[0,{"y":4}]}"#),
    ("l[1][1], l[2].x", r#"{"l":[[2],{"x":3}]}"#),
    ("l[1][1], l[1][0]", r#"{"l":[[1,2]]}"#),
    ("l[7], l[1]", r#"{"l":[[1,2]]}"#),
    ("l[7]", "{}"),
    ("e, em", r#"{"e":[],"em":{}}"#),
    ("e[0], em.x", "{}"),
];

const ERRORS: &[(&str, &str)] = &[
    ("¦", "syntax: a name"),
    ("a,¦", "syntax: a name"),
    ("a ¦b", "syntax: \",\" or the end"),
    ("¦:one", "syntax: a name"),
    ("¦*", "syntax: a name"),
    ("a, ¦name", "syntax: NAME is a reserved word"),
    ("a[¦*]", "syntax: an index"),
    ("a, b, a", "invalid: two paths overlap at a"),
    ("b.x, b", "invalid: overlap at b"),
    ("b, b.x", "invalid: overlap at b.x"),
    ("b.x, b[0]", "invalid: need a list and a map"),
    ("#missing", "invalid: there is no name for #missing"),
];

fn parse(text: &str) -> kstone_api::Result<Projection> {
    Expressions::new(&params()).projection(&unmarked(text))
}

#[test]
fn projections_copy_what_the_table_says() {
    let view = ItemView::new(item(ITEM).encode().unwrap()).unwrap();
    for (text, expected) in CASES {
        let projection = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(projection.apply(&view).unwrap().to_string(), *expected, "{text}");
        let mut printed = Params::new();
        let again = projection.to_dynamodb(&mut printed).unwrap();
        assert_eq!(Projection::parse(&again, &printed).unwrap(), projection, "{text}: {again}");
    }
    assert_eq!(Projection::new().apply(&view).unwrap().len(), 0);
    assert!(Projection::new().to_dynamodb(&mut Params::new()).is_err());
}

#[test]
fn errors_have_their_position() {
    for (text, expected) in ERRORS {
        check_error(text, &parse(text).expect_err(text), expected);
    }
}

#[test]
fn overlaps_are_found_in_builders_too() {
    let view = ItemView::new(item(ITEM).encode().unwrap()).unwrap();
    let twice = Projection::of(["a", "a"]);
    let error = twice.apply(&view).unwrap_err();
    assert_eq!(error.to_string(), "invalid expression: two paths overlap at a");
    assert_eq!(twice.to_string(), "<invalid expression: two paths overlap at a>");
}

#[test]
fn paths_are_parsed() {
    for (text, path) in [
        ("a", attr("a")),
        ("a.b", attr("a").field("b")),
        ("a[0][12].b", attr("a").at(0).at(12).field("b")),
        ("name.user-id. x", attr("name").field("user-id").field(" x")),
        ("é.ß", attr("é").field("ß")),
    ] {
        assert_eq!(Path::parse(text).unwrap(), path, "{text}");
    }
    for text in [
        "¦",
        "¦.a",
        "a.¦",
        "a.¦.b",
        "a.¦[0]",
        "a[¦]",
        "a[¦x]",
        "a[0¦",
        "a[0]¦b",
        "a¦]",
        "a[¦99999999999999999999999]",
        "é.¦",
    ] {
        let error = Path::parse(&unmarked(text)).unwrap_err();
        check_error(text, &error, "syntax");
    }
    assert_eq!(attr("a b").field("c.d").at(1).to_string(), r##"#"a b".#"c.d"[1]"##);
}
