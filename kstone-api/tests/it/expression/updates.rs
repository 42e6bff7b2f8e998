//! Updates, case by case.

use kstone_api::{Expressions, Item, Params, Update, fuzzing};

use super::{check_error, item, params, unmarked};

/// An item, an update, and the item after it.
const CASES: &[(&str, &str, &str)] = &[
    // SET.
    (r#"{}"#, "SET n = :one", r#"{"n":1}"#),
    (r#"{"n":5,"s":"x"}"#, "SET n = :one", r#"{"n":1,"s":"x"}"#),
    (r#"{}"#, "set n = :one0", r#"{"n":1.0}"#),
    (r#"{"a":1,"b":2}"#, "SET #a = b, b = a", r#"{"a":2,"b":1}"#),
    (r#"{"m":{"x":1}}"#, "SET m.y = m.x", r#"{"m":{"x":1,"y":1}}"#),
    (r#"{"m":{"x":1}}"#, "SET c = m", r#"{"c":{"x":1},"m":{"x":1}}"#),
    (r#"{"l":[1,2]}"#, "SET l[1] = :s", r#"{"l":[1,"abc"]}"#),
    (r#"{"l":[1,2]}"#, "SET l[9] = :s", r#"{"l":[1,2,"abc"]}"#),
    (r#"{"l":[1]}"#, "SET l[9] = :two, l[5] = :one, l[0] = :zero", r#"{"l":[0,1,2]}"#),
    (r#"{"l":[1]}"#, "SET l[1] = l[0], l[0] = :two", r#"{"l":[2,1]}"#),
    (r#"{"l":[{"x":1}]}"#, "SET l[0].x = :two, l[0].y = :one", r#"{"l":[{"x":2,"y":1}]}"#),
    (r#"{"l":[[1]]}"#, "SET l[0][0] = :two", r#"{"l":[[2]]}"#),
    (r#"{}"#, "SET #odd = :one", r#"{"odd.name":1}"#),
    (r#"{}"#, "SET l = :elist, m = :emap, s = :es", r#"{"l":[],"m":{},"s":""}"#),
    // Sums.
    (r#"{"n":1}"#, "SET n = n + :two", r#"{"n":3}"#),
    (r#"{"n":1}"#, "SET n = n - :two", r#"{"n":-1}"#),
    (r#"{"n":1}"#, "SET n = :two - n", r#"{"n":1}"#),
    (r#"{"n":0.1}"#, "SET n = n + n", r#"{"n":0.2}"#),
    (r#"{"n":1.50}"#, "SET m = n, n = n - :half", r#"{"m":1.50,"n":1}"#),
    (r#"{"n":1}"#, "SET m = :one + :two", r#"{"m":3,"n":1}"#),
    (r#"{"n":1}"#, "SET m = (n + :two)", r#"{"m":3,"n":1}"#),
    (r#"{"n":1}"#, "SET m = (n) + (:two)", r#"{"m":3,"n":1}"#),
    (r#"{}"#, "SET n = if_not_exists(n, :zero) + :one", r#"{"n":1}"#),
    (r#"{"n":4}"#, "SET n = if_not_exists(n, :zero) + :one", r#"{"n":5}"#),
    (r#"{"a":1,"b":2}"#, "SET a = a + b, b = a - b", r#"{"a":3,"b":-1}"#),
    (
        r#"{"n":99999999999999999999999999999999999998}"#,
        "ADD n :one",
        r#"{"n":99999999999999999999999999999999999999}"#,
    ),
    // if_not_exists and list_append.
    (r#"{"a":1}"#, "SET a = if_not_exists(a, :two), b = if_not_exists(b, :two)", r#"{"a":1,"b":2}"#),
    (r#"{}"#, "SET a = if_not_exists(b, if_not_exists(c, :one))", r#"{"a":1}"#),
    (r#"{"m":{}}"#, "SET m.x = if_not_exists(m.x, :one)", r#"{"m":{"x":1}}"#),
    (r#"{"l":[0]}"#, "SET l = list_append(l, :list)", r#"{"l":[0,1,"two"]}"#),
    (r#"{"l":[0]}"#, "SET l = list_append(:list, l)", r#"{"l":[1,"two",0]}"#),
    (r#"{"l":[0]}"#, "SET l = list_append(l, l)", r#"{"l":[0,0]}"#),
    (r#"{}"#, "SET l = list_append(if_not_exists(l, :elist), :list)", r#"{"l":[1,"two"]}"#),
    (r#"{"l":[0]}"#, "SET l = list_append(list_append(l, :list), l)", r#"{"l":[0,1,"two",0]}"#),
    // REMOVE.
    (r#"{"a":1,"b":2}"#, "REMOVE a", r#"{"b":2}"#),
    (r#"{"a":1}"#, "REMOVE b", r#"{"a":1}"#),
    (r#"{"a":1}"#, "REMOVE b.c, a.b, c[0], d[1].e", r#"{"a":1}"#),
    (r#"{}"#, "REMOVE a", r#"{}"#),
    (r#"{"m":{"x":1,"y":2}}"#, "REMOVE m.x", r#"{"m":{"y":2}}"#),
    (r#"{"m":{"x":1}}"#, "REMOVE m.x", r#"{"m":{}}"#),
    (r#"{"l":[0,1,2,3]}"#, "REMOVE l[0], l[2]", r#"{"l":[1,3]}"#),
    (r#"{"l":[0,1,2,3]}"#, "REMOVE l[2], l[0]", r#"{"l":[1,3]}"#),
    (r#"{"l":[0,1]}"#, "REMOVE l[2]", r#"{"l":[0,1]}"#),
    (r#"{"l":[0,1,2]}"#, "SET l[2] = :s REMOVE l[0], l[1]", r#"{"l":["abc"]}"#),
    (r#"{"l":[0]}"#, "REMOVE l[0] SET l[7] = :s", r#"{"l":["abc"]}"#),
    (r#"{"l":[[1,2],[3]]}"#, "REMOVE l[0][0], l[1]", r#"{"l":[[2]]}"#),
    (r#"{"a":1,"b":2}"#, "SET b = a REMOVE a", r#"{"b":1}"#),
    (r#"{"remove":1}"#, "REMOVE remove", r#"{}"#),
    (r#"{}"#, "SET remove = :one", r#"{"remove":1}"#),
    (r#"{"remove":1,"x":2}"#, "SET x = remove REMOVE remove", r#"{"x":1}"#),
    // ADD.
    (r#"{}"#, "ADD n :two", r#"{"n":2}"#),
    (r#"{}"#, "ADD n :one0", r#"{"n":1.0}"#),
    (r#"{"n":1}"#, "ADD n :neg, m :half", r#"{"m":0.5,"n":0}"#),
    (r#"{"m":{"n":1}}"#, "ADD m.n :two, m.k :one", r#"{"m":{"k":1,"n":3}}"#),
    (r#"{"l":[1]}"#, "ADD l[0] :one, l[5] :two", r#"{"l":[2,2]}"#),
    (r#"!{}"#, "ADD s :ss", r#"!{"s":{"SS":["a","b"]}}"#),
    (r#"!{"s":{"SS":["a","c"]}}"#, "ADD s :ss", r#"!{"s":{"SS":["a","b","c"]}}"#),
    (r#"!{"s":{"NS":["1","3"]}}"#, "ADD s :ns", r#"!{"s":{"NS":["1","2.5","3"]}}"#),
    (r#"!{"s":{"BS":["AQ==","Ag=="]}}"#, "ADD s :bs", r#"!{"s":{"BS":["AQ==","Ag=="]}}"#),
    // DELETE.
    (r#"!{"s":{"SS":["a","c"]}}"#, "DELETE s :ss", r#"!{"s":{"SS":["c"]}}"#),
    (r#"!{"s":{"SS":["a","b"]},"x":{"N":"1"}}"#, "DELETE s :ss", r#"!{"x":{"N":"1"}}"#),
    (r#"!{"s":{"NS":["1","3"]}}"#, "DELETE s :ns1", r#"!{"s":{"NS":["3"]}}"#),
    (r#"!{"s":{"BS":["AQ=="]}}"#, "DELETE s :bs", r#"!{}"#),
    (r#"!{"s":{"SS":["x"]}}"#, "DELETE s :ss", r#"!{"s":{"SS":["x"]}}"#),
    (r#"!{"l":{"L":[{"SS":["a"]},{"N":"1"}]}}"#, "DELETE l[0] :ssa", r#"!{"l":{"L":[{"N":"1"}]}}"#),
    (r#"!{}"#, "DELETE s :ss", r#"!{}"#),
    (r#"{}"#, "DELETE m.s :ss", r#"{}"#),
    // All clauses, in any order.
    (r#"{"a":1,"d":3}"#, "REMOVE d ADD b :one SET a = :two", r#"{"a":2,"b":1}"#),
    (
        r#"!{"s":{"SS":["a","z"]}}"#,
        "DELETE s :ssa ADD n :one SET t = :t REMOVE q",
        r#"!{"n":{"N":"1"},"s":{"SS":["z"]},"t":{"BOOL":true}}"#,
    ),
];

/// An item, a text that is no update or one that does not fit the item, and why.
const ERRORS: &[(&str, &str, &str)] = &[
    ("{}", "¦", "syntax: SET, REMOVE, ADD or DELETE"),
    ("{}", "¦UPSERT a = :one", "syntax: SET, REMOVE, ADD or DELETE"),
    ("{}", "SET¦", "syntax: a name"),
    ("{}", "SET a¦", "syntax: \"=\""),
    ("{}", "SET a ¦:one", "syntax: \"=\""),
    ("{}", "SET a =¦", "syntax: a path, a value such as :v"),
    ("{}", "SET a = ¦5", "syntax"),
    ("{}", "SET a = :one,¦", "syntax: a name"),
    ("{}", "SET a = :one ¦b = :two", "syntax: \",\", SET, REMOVE"),
    ("{}", "SET a = :one +¦", "syntax"),
    ("{}", "SET a = :one + :two ¦+ :three", "syntax"),
    ("{}", "SET ¦name = :one", "syntax: NAME is a reserved word"),
    ("{}", "SET a = ¦size(b)", "syntax: if_not_exists or list_append"),
    ("{}", "SET a = ¦foo(b)", "syntax: if_not_exists or list_append"),
    ("{}", "SET a = if_not_exists(¦:one, b)", "syntax: a name"),
    ("{}", "SET a = if_not_exists(b¦)", "syntax: \",\""),
    ("{}", "SET a = list_append(b, c¦", "syntax: \")\""),
    ("{}", "SET a = (b¦", "syntax: \")\""),
    ("{}", "REMOVE a ¦= :one", "syntax"),
    ("{}", "REMOVE ¦:one", "syntax: a name"),
    ("{}", "ADD a¦", "syntax: a value such as :v"),
    ("{}", "ADD a ¦b", "syntax: a value such as :v"),
    ("{}", "ADD a ¦= :one", "syntax"),
    ("{}", "DELETE a ¦,", "syntax"),
    ("{}", "SET a = :one SET b = :two", "invalid: at byte 13: SET occurs twice"),
    ("{}", "REMOVE a ADD b :one remove c", "invalid: REMOVE occurs twice"),
    ("{}", "SET a = :one, a = :two", "invalid: two paths overlap at a"),
    ("{}", "SET a = :one REMOVE a", "invalid: overlap at a"),
    ("{}", "SET a = :one, #a = :two", "invalid: overlap at a"),
    ("{}", "SET a.b = :one, a.b.c = :two", "invalid: overlap at a.b.c"),
    ("{}", "SET a.b.c = :one, a.b = :two", "invalid: overlap at a.b"),
    ("{}", "SET a[1].b = :one REMOVE a[1]", "invalid: overlap at a[1]"),
    ("{}", "SET a.b = :one, a[0] = :two", "invalid: need a list and a map at the same place"),
    ("{}", "ADD a :s", "invalid: at byte 4: ADD takes a number or a set, and this value is of type S"),
    ("{}", "ADD a :list", "invalid: of type L"),
    ("{}", "DELETE a :one", "invalid: DELETE takes a set, and this value is of type N"),
    ("{}", "SET a = b + :s", "invalid: at byte 8: + and - take numbers, and this value is of type S"),
    ("{}", "SET a = :ss - b", "invalid: of type SS"),
    ("{}", "SET a = list_append(b, :one)", "invalid: list_append takes lists, and this value is of type N"),
    ("{}", "SET a = (b + c) + d", "invalid: an update adds once"),
    ("{}", "SET a = if_not_exists(b, c + d)", "invalid: an update adds once"),
    ("{}", "SET a = list_append(b, c) + d", "invalid: list_append gives a list"),
    ("{}", "SET a = :missing", "invalid: at byte 8: there is no value for :missing"),
    ("{}", "SET a = b", "failed: b: it does not exist"),
    ("{}", "SET a = b + :one", "failed: b: it does not exist"),
    ("{}", "SET a = list_append(a, :list)", "failed: a: it does not exist"),
    ("{}", "SET a.b = :one", "failed: a: it does not exist, so nothing"),
    (r#"{"a":{}}"#, "SET a.b.c = :one", "failed: a.b: it does not exist"),
    (r#"{"a":1}"#, "SET a.b = :one", "failed: a: it is not a map"),
    (r#"{"a":{}}"#, "SET a[0] = :one", "failed: a: it is not a list"),
    (r#"{"a":[]}"#, "SET a.b = :one", "failed: a: it is not a map"),
    (r#"{"a":[]}"#, "SET a[0].b = :one", "failed: a[0]: it does not exist"),
    (r#"{"a":[]}"#, "ADD a[3].b :one", "failed: a[3]: it does not exist"),
    (r#"{"s":"x"}"#, "SET n = s + :one", "failed: s: + and - take numbers, and this is of type S"),
    (r#"{"s":"x"}"#, "SET n = if_not_exists(s, :one) - :one", "failed: s: + and - take numbers"),
    (
        r#"{"s":"x"}"#,
        "SET n = list_append(:list, s)",
        "failed: s: list_append takes lists, and this is of type S",
    ),
    (r#"{"s":"x"}"#, "ADD s :one", "failed: s: it is of type S, and the value of type N"),
    (r#"{"s":1}"#, "ADD s :ss", "failed: s: it is of type N, and the value of type SS"),
    (r#"!{"s":{"SS":["a"]}}"#, "ADD s :ns", "failed: s: it is of type SS"),
    (r#"!{"s":{"SS":["a"]}}"#, "DELETE s :ns", "failed: s: it is of type SS, and the value of type NS"),
    (r#"{"s":1}"#, "DELETE s :ss", "failed: s: it is of type N"),
    // Never rounded.
    (
        r#"{"n":99999999999999999999999999999999999999}"#,
        "ADD n :two",
        "failed: n: the result cannot be stored",
    ),
    (r#"{"n":1}"#, "ADD n :tiny", "failed: n: the result cannot be stored"),
    (r#"{"n":9.9E+125}"#, "ADD n :huge", "failed: n: the result cannot be stored"),
    (r#"{"m":{"n":1}}"#, "SET m.n = m.n + :tiny", "failed: m.n: the result cannot be stored"),
];

fn parse(text: &str) -> kstone_api::Result<Update> {
    Expressions::new(&params()).update(&unmarked(text))
}

#[test]
fn updates_do_what_the_table_says() {
    for (before, text, after) in CASES {
        let update = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let before = item(before);
        let mut changed = before.clone();
        update.apply(&mut changed).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(changed, item(after), "{text}");
        // The text of numbers too.
        assert_eq!(changed.encode().unwrap(), item(after).encode().unwrap(), "{text}");
        let stored = before.encode().unwrap();
        let applied = fuzzing::apply_stored(&update, Some(&stored)).unwrap();
        assert_eq!(applied.item, changed.encode().unwrap(), "{text}");
        if before.is_empty() {
            let created = fuzzing::apply_stored(&update, None).unwrap();
            assert_eq!(created.item, applied.item, "{text}");
        }
        let mut printed = Params::new();
        let again = update.to_dynamodb(&mut printed).unwrap();
        assert_eq!(Update::parse(&again, &printed).unwrap(), update, "{text}: {again}");
    }
    assert!(CASES.len() > 60);
}

#[test]
fn errors_have_their_position_or_path_and_change_nothing() {
    for (before, text, expected) in ERRORS {
        let before = item(before);
        let mut changed = before.clone();
        let error = match parse(text) {
            Err(error) => error,
            Ok(update) => {
                let stored = before.encode().unwrap();
                let error = fuzzing::apply_stored(&update, Some(&stored)).expect_err(text);
                check_error(text, &error, expected);
                update.apply(&mut changed).expect_err(text)
            }
        };
        check_error(text, &error, expected);
        assert_eq!(changed, before);
    }
    assert!(ERRORS.len() > 60);
}

#[test]
fn what_the_update_names_before_and_after() {
    let before = item(r#"{"a":1,"b":{"x":1},"c":3}"#);
    let update = parse("SET b.x = :two ADD n :one REMOVE a, q").unwrap();
    let applied = fuzzing::apply_stored(&update, Some(&before.encode().unwrap())).unwrap();
    assert_eq!(applied.old.to_string(), r#"{"a":1,"b":{"x":1}}"#);
    assert_eq!(applied.new.to_string(), r#"{"b":{"x":2},"n":1}"#);
    let applied = fuzzing::apply_stored(&parse("ADD n :one").unwrap(), None).unwrap();
    assert_eq!((applied.old, applied.new), (Item::new(), item(r#"{"n":1}"#)));
}

#[test]
fn what_the_text_shows_people() {
    for (text, shown) in [
        ("add n :one set a = b + :two, #odd = :s", r##"SET a = b + 2, #"odd.name" = "abc" ADD n 1"##),
        ("DELETE s :ss REMOVE a, l[0]", r#"REMOVE a, l[0] DELETE s ["a","b"]"#),
        ("SET a = if_not_exists(a, :zero) - :one", "SET a = if_not_exists(a, 0) - 1"),
        ("SET a = list_append(a, :list)", r#"SET a = list_append(a, [1,"two"])"#),
    ] {
        assert_eq!(parse(text).unwrap().to_string(), shown);
    }
}

#[test]
fn results_that_nest_too_deep_are_refused() {
    let mut deep = crate::nested(32);
    let text = "SET b = :list, b2 = a".to_owned();
    parse(&text).unwrap().apply(&mut deep).unwrap();
    let before = deep.clone();
    let error = parse("SET l = :list, b[0] = a").unwrap().apply(&mut deep).unwrap_err();
    assert_eq!(error.code(), "update_failed");
    assert!(error.to_string().contains("deeper than 32"), "{error}");
    assert_eq!(deep, before);
}
