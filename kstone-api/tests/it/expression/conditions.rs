//! Conditions, case by case.

use kstone_api::{Condition, Expressions, ItemView, Params, fuzzing};

use super::{check_error, dynamodb, item, params, unmarked};

const ITEM: &str = r#"{
    "n":{"N":"1"}, "ten":{"N":"10"}, "text10":{"S":"10"}, "nines":{"N":"99999999999999999999999999999999999999"},
    "s":{"S":"abc"}, "es":{"S":""}, "accent":{"S":"éa"}, "name":{"S":"Ann"}, "odd.name":{"N":"7"}, "":{"N":"8"},
    "bin":{"B":"AQID"}, "t":{"BOOL":true}, "nul":{"NULL":true},
    "l":{"L":[{"N":"1"},{"S":"two"},{"L":[{"N":"3"},{"N":"4"}]},{"M":{"x":{"N":"5"}}}]}, "l2":{"L":[{"N":"1.0"},{"S":"two"}]},
    "m":{"M":{"x":{"N":"1"},"name":{"S":"inner"},"y":{"M":{"z":{"S":"deep"}}}}}, "m2":{"M":{"x":{"N":"1.00"}}},
    "ss":{"SS":["a","b"]}, "ns":{"NS":["1.0","2.50"]}, "bs":{"BS":["AQ=="]}, "el":{"L":[]}, "em":{"M":{}}
}"#;

/// Conditions that hold for the item.
const TRUE: &[&str] = &[
    // Comparison by value, numbers whatever their text.
    "n = :one",
    "n = :one0",
    "n <> :two",
    "n < :two",
    "n <= :one0",
    "n > :zero",
    "n >= :one",
    ":one = n",
    ":one < ten",
    "n < ten",
    "ten > n",
    "nines = :nines",
    "nines < :huge",
    "n > :tiny",
    // Strings and binary by bytes.
    "text10 < :nine",
    "s = :s",
    "s > :ab",
    "s < :b",
    "accent > :s",
    "es = :es",
    "es < s",
    "bin = :bin",
    "bin > :bin1",
    "bin < :bin23",
    // Other types only by equality, in depth.
    "t = :t",
    "t <> :f",
    "nul = :null",
    "l2 = :list",
    "m2 = :map",
    "ss = :ss",
    "ns = :ns",
    "bs = :bs",
    "el = :elist",
    "em = :emap",
    "ss <> :ssa",
    "l <> l2",
    "m <> m2",
    "em <> :elist",
    // Two types, or missing.
    "n <> :s",
    "text10 <> ten",
    "absent <> :one",
    "absent <> absent",
    ":one <> absent",
    "nul <> :f",
    "NOT absent = :one",
    "NOT n = :s",
    "NOT n < :s",
    // Paths.
    "l[0] = :one",
    "l[1] <> :s",
    "l[2][1] > :three",
    "l[3].x > :three",
    "m.x = :one",
    "m.y.z > :b",
    "m.#name <> #name",
    "m . y . z > :b",
    "#odd > :one",
    "#empty > :one",
    "l[2] [ 0 ] = :three",
    "l[00] = :one",
    // BETWEEN and IN.
    "n BETWEEN :zero AND :two",
    "n between :one and :one0",
    "s BETWEEN :ab AND :b",
    "n BETWEEN :zero AND :two AND t = :t",
    "size(s) BETWEEN :one AND :three",
    "n IN (:zero, :one)",
    "n in (:one0)",
    "s IN (:one, :s, absent)",
    "l2 IN (:one, :list)",
    // Functions.
    "attribute_exists(n)",
    "attribute_exists(nul)",
    "attribute_exists(m.y.z)",
    "attribute_not_exists(absent)",
    "attribute_not_exists(l[4])",
    "attribute_not_exists(m.y.z.a)",
    "attribute_not_exists(n.x)",
    "attribute_not_exists(l.x)",
    "attribute_not_exists(m[0])",
    "attribute_type(n, :N)",
    "attribute_type(t, :BOOL)",
    "attribute_type(nul, :NULL)",
    "attribute_type(ss, :SS)",
    "begins_with(s, :ab)",
    "begins_with(s, :es)",
    "begins_with(s, s)",
    "begins_with(bin, :bin1)",
    "contains(s, :b)",
    "contains(s, :es)",
    "contains(accent, :accent)",
    "contains(bin, :bin23)",
    "contains(ss, :b)",
    "contains(ns, :one)",
    "contains(bs, :bin1)",
    "contains(l, :one0)",
    "contains(l[2], :three)",
    "contains(s, s)",
    "size(s) = :three",
    "size(accent) = :three",
    "size(bin) > :two",
    "size(l) > size(ss)",
    "size(m) = :three",
    "size(ns) = :two",
    "size(el) = :zero",
    ":three = size(s)",
    "size(m.y) IN (:one)",
    "item_exists()",
    "NOT item_not_exists()",
    "NOT size(n) = :one",
    "NOT size(n) <> :one",
    "NOT size(absent) <> :one",
    // Precedence: NOT, AND, OR.
    "n = :one OR n = :two AND n = :three",
    "NOT n = :two AND n = :one",
    "NOT (n = :two OR n = :three)",
    "(n = :two OR n = :one) AND t = :t",
    "n = :two AND n = :three OR n = :one",
    "NOT NOT n = :one",
    "((((n = :one))))",
    "not n = :two and not n = :three or t = :f",
    "\n n\t=\r\n:one ",
];

/// Conditions that do not hold for it.
const FALSE: &[&str] = &[
    "n = :s",
    "n = :two",
    "n <> :one0",
    "s < :one",
    "s >= :one",
    "n < n",
    "absent = absent",
    "absent < :one",
    "absent >= absent",
    "absent = :null",
    "t < n",
    "l < l2",
    "m >= m2",
    "nul <= nul",
    "ss >= ss",
    "m.y.z = :one",
    "l[3].y = :one",
    "l[99999999999999] = :one",
    "n BETWEEN :two AND :one",
    "n BETWEEN :es AND :two",
    "s BETWEEN :zero AND :two",
    "absent BETWEEN :zero AND :two",
    "absent IN (absent, :one)",
    "n IN (:two, :s, :list)",
    "attribute_exists(absent)",
    "attribute_exists(l[4])",
    "attribute_exists(odd.x)",
    "attribute_not_exists(nul)",
    "attribute_type(n, :S)",
    "attribute_type(absent, :S)",
    "begins_with(s, :b)",
    "begins_with(absent, :b)",
    "begins_with(n, :es)",
    "begins_with(s, :bin1)",
    "begins_with(s, absent)",
    "contains(ss, :ab)",
    "contains(n, :one)",
    "contains(bin, :b)",
    "contains(m, :one)",
    "contains(absent, :one)",
    "contains(s, absent)",
    "contains(ss, :ss)",
    "contains(bs, :bin)",
    "size(n) = :one",
    "size(n) <> :two",
    "size(t) = :one",
    "size(nul) = :zero",
    "size(absent) < :one",
    "size(s) = :s",
    "item_not_exists()",
    "n = :two OR n = :three",
    "n = :one AND NOT t = :t",
    "NOT (n = :one AND t = :t)",
];

/// Texts that are not conditions, with a mark where reading stops, and what is expected there.
const ERRORS: &[(&str, &str)] = &[
    ("¦", "syntax: a path, a value such as :v"),
    ("   ¦", "syntax"),
    ("n¦", "syntax: BETWEEN or IN"),
    ("n =¦", "syntax: a path, a value such as :v"),
    ("n = ¦= :one", "syntax"),
    ("n =¦= :one", "syntax"),
    ("n ¦! :one", "syntax: BETWEEN or IN"),
    ("n = ¦1", "syntax: a value such as :v"),
    ("n = ¦'x'", "syntax"),
    ("n = ¦\"é\"", "syntax"),
    ("n = ¦: one", "syntax"),
    ("¦# = :one", "syntax"),
    ("n = :one ¦n = :one", "syntax: AND, OR, or the end"),
    ("n = :one ¦)", "syntax"),
    ("(n = :one¦", "syntax: AND, OR or \")\""),
    ("(n = :one ¦; n", "syntax"),
    ("n = :one AND¦", "syntax"),
    ("n = :one OR ¦AND n = :one", "syntax: AND is a reserved word"),
    ("NOT¦", "syntax"),
    ("n BETWEEN :one¦", "syntax: AND and the greatest value"),
    ("n BETWEEN :one ¦OR :two", "syntax: AND and the greatest value"),
    ("n IN ¦:one", "syntax: \"(\""),
    ("n IN (¦)", "syntax"),
    ("n IN (:one¦", "syntax"),
    ("n IN (:one,¦)", "syntax"),
    ("¦name = :one", "syntax: NAME is a reserved word; use a placeholder such as #name"),
    ("m.¦Name = :one", "syntax: NAME is a reserved word"),
    ("¦size = :one", "syntax: SIZE is a reserved word"),
    ("m. ¦= :one", "syntax: a name"),
    ("m.¦.x = :one", "syntax: a name"),
    ("m.¦0 = :one", "syntax: a name"),
    ("l[¦] = :one", "syntax: an index"),
    ("l[¦x] = :one", "syntax: an index"),
    ("l[¦-1] = :one", "syntax: an index"),
    ("l[0 ¦= :one", "syntax: \"]\""),
    ("l[¦99999999999999999999999999] = :one", "syntax: a smaller index"),
    ("¦é = :one", "syntax: a path"),
    ("¦unknown(n)", "syntax: one of the functions attribute_exists"),
    ("¦ATTRIBUTE_EXISTS(n)", "syntax: one of the functions"),
    ("¦if_not_exists(n, :one) = :one", "syntax: if_not_exists is for updates"),
    ("n = ¦list_append(n, n)", "syntax: size(path)"),
    ("attribute_exists¦", "syntax: BETWEEN or IN"),
    ("attribute_exists(¦)", "syntax: a name"),
    ("attribute_exists(¦:one)", "syntax: a name"),
    ("attribute_exists(n¦, n)", "syntax: \")\""),
    ("begins_with(s¦)", "syntax: \",\""),
    ("contains(¦:ss, s)", "syntax: a name"),
    ("size(¦:s) = :one", "syntax: a name"),
    ("size(s)¦", "syntax"),
    ("item_exists(¦n)", "syntax"),
    ("attribute_type(n, ¦n)", "syntax: a value such as :v"),
    ("n ¦+ :one = :two", "syntax: BETWEEN or IN"),
    ("attribute_type(n, :bool)", "invalid: at byte 18: the type is one of S, N"),
    ("attribute_type(n, :one)", "invalid: the type is one of"),
    ("begins_with(s, :one)", "invalid: this value is of type N"),
    ("begins_with(s, size(s))", "invalid: size() is a number"),
    (
        "n = :one OR t < :t",
        "invalid: at byte 12: < takes strings, numbers and binary, and this value is of type BOOL",
    ),
    ("l >= :list", "invalid: of type L"),
    ("n BETWEEN :one AND :null", "invalid: of type NULL"),
    ("n = :missing", "invalid: at byte 4: there is no value for :missing"),
    ("#missing = :one", "invalid: at byte 0: there is no name for #missing"),
];

fn parse(text: &str) -> kstone_api::Result<Condition> {
    Expressions::new(&params()).condition(&unmarked(text))
}

#[test]
fn conditions_hold_as_the_table_says() {
    let item = dynamodb(ITEM);
    let view = ItemView::new(item.encode().unwrap()).unwrap();
    let cases = TRUE.iter().map(|text| (text, true)).chain(FALSE.iter().map(|text| (text, false)));
    for (text, expected) in cases {
        let condition = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(condition.matches(&view).unwrap(), expected, "{text}");
        assert_eq!(condition.matches_item(&item).unwrap(), expected, "{text}");
        assert_eq!(fuzzing::holds(&condition, Some(&view)).unwrap(), expected, "{text}");
        let mut printed = Params::new();
        let again = condition.to_dynamodb(&mut printed).unwrap();
        assert_eq!(Condition::parse(&again, &printed).unwrap(), condition, "{text}: {again}");
    }
    assert!(TRUE.len() > 90 && FALSE.len() > 45);
}

#[test]
fn errors_have_their_position() {
    for (text, expected) in ERRORS {
        check_error(text, &parse(text).expect_err(text), expected);
    }
    assert!(ERRORS.len() > 55);
}

#[test]
fn where_there_is_no_item_every_path_is_missing() {
    for (text, expected) in [
        ("item_exists()", false),
        ("item_not_exists()", true),
        ("attribute_not_exists(n)", true),
        ("attribute_exists(n)", false),
        ("n <> :one", true),
        ("n = :one", false),
        ("size(n) <> :one", false),
        ("n IN (n)", false),
        ("attribute_not_exists(n) OR n < :one", true),
    ] {
        let condition = parse(text).unwrap();
        let none: Option<&ItemView<Vec<u8>>> = None;
        assert_eq!(fuzzing::holds(&condition, none).unwrap(), expected, "{text}");
    }
    // An item without attributes is an item.
    assert!(Condition::item_exists().matches_item(&item("{}")).unwrap());
}

#[test]
fn what_the_text_shows_people() {
    for (text, shown) in [
        ("n = :one AND (s = :s OR t = :t)", r#"n = 1 AND (s = "abc" OR t = true)"#),
        ("(n = :one AND s = :s) OR t = :t", r#"n = 1 AND s = "abc" OR t = true"#),
        ("NOT (n BETWEEN :one AND :two)", "NOT n BETWEEN 1 AND 2"),
        ("NOT (n = :one AND NOT t = :f)", "NOT (n = 1 AND NOT t = false)"),
        ("#odd IN (:one, :ss, :null)", r##"#"odd.name" IN (1, ["a","b"], null)"##),
        ("#name = :bin", r#"name = "AQID""#),
        ("attribute_type(l[0].x, :N) and size(l) < :two", r#"attribute_type(l[0].x, "N") AND size(l) < 2"#),
        ("begins_with(s, :ab)", r#"begins_with(s, "ab")"#),
    ] {
        assert_eq!(parse(text).unwrap().to_string(), shown);
    }
    // Without values and placeholders, it is a text.
    let text = "NOT (a = b OR attribute_exists(c.d[3])) AND size(x) < y";
    assert_eq!(parse(text).unwrap().to_string(), text);
}
