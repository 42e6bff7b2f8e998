//! Expressions: their meaning case by case, their text, and what hostile ones cost.

mod builders;
mod conditions;
mod hostile;
mod model;
mod model_update;
mod projections;
mod updates;

use kstone_api::{Error, Expressions, Item, Params, Value};

/// Placeholders that the tables share. Whether all of them are used is not judged there.
fn params() -> Params {
    let set = |json: &str| dynamodb(&format!(r#"{{"v":{json}}}"#)).remove("v").unwrap();
    Params::new()
        .name("#name", "name")
        .name("#odd", "odd.name")
        .name("#a", "a")
        .name("#x", "x")
        .name("#empty", "")
        .value(":zero", 0)
        .value(":one", 1)
        .value(":one0", set(r#"{"N":"1.0"}"#))
        .value(":two", 2)
        .value(":three", 3)
        .value(":neg", -1)
        .value(":half", 0.5)
        .value(":nines", set(r#"{"N":"99999999999999999999999999999999999999"}"#))
        .value(":tiny", set(r#"{"N":"1E-130"}"#))
        .value(":huge", set(r#"{"N":"9.9E+125"}"#))
        .value(":s", "abc")
        .value(":ab", "ab")
        .value(":b", "b")
        .value(":ten", "10")
        .value(":nine", "9")
        .value(":es", "")
        .value(":accent", "é")
        .value(":bin", vec![1u8, 2, 3])
        .value(":bin1", vec![1u8])
        .value(":bin23", vec![2u8, 3])
        .value(":t", true)
        .value(":f", false)
        .value(":null", Value::Null)
        .value(":list", vec![Value::from(1), Value::from("two")])
        .value(":elist", Vec::<Value>::new())
        .value(":map", Item::builder().number("x", 1).build())
        .value(":emap", Item::new())
        .value(":ss", set(r#"{"SS":["a","b"]}"#))
        .value(":ssa", set(r#"{"SS":["a"]}"#))
        .value(":ns", set(r#"{"NS":["1","2.5"]}"#))
        .value(":ns1", set(r#"{"NS":["1.0"]}"#))
        .value(":bs", set(r#"{"BS":["AQ=="]}"#))
        .value(":S", "S")
        .value(":N", "N")
        .value(":BOOL", "BOOL")
        .value(":NULL", "NULL")
        .value(":SS", "SS")
        .value(":bool", "bool")
}

/// An item in DynamoDB JSON.
fn dynamodb(json: &str) -> Item {
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{json}: {e}"))
}

/// An item in plain JSON, or after a `!` in DynamoDB JSON.
fn item(json: &str) -> Item {
    json.strip_prefix('!').map_or_else(|| Item::from_json_str(json).unwrap(), dynamodb)
}

/// Checks an error against what a table expects: `syntax` and words of what was expected, at the `¦` in the text; or the
/// code of another error, a colon, and words of its message.
fn check_error(text: &str, error: &Error, expected: &str) {
    let shown = error.to_string();
    let (code, words) = expected.split_once(": ").unwrap_or((expected, ""));
    assert!(shown.contains(words), "{text}: {shown}");
    match (code, error) {
        ("syntax", Error::ExpressionSyntax { text: whole, at, .. }) => {
            assert_eq!(Some(*at), text.find('¦'), "{text}: {shown}");
            assert!(whole.is_char_boundary(*at));
            // The caret is below the position.
            let lines: Vec<&str> = shown.lines().collect();
            assert!(lines.len() == 3 && lines[2].trim_start() == "^", "{shown}");
        }
        ("invalid", Error::InvalidExpression { .. }) | ("failed", Error::UpdateFailed { .. }) => {}
        _ => panic!("{text}: {error:?}, not {expected}"),
    }
}

/// Text from a table, without the mark of a position.
fn unmarked(text: &str) -> String {
    text.replace('¦', "")
}

#[test]
fn placeholders_are_used_and_given() {
    let error =
        |text: &str, params: Params| kstone_api::Condition::parse(text, &params).unwrap_err().to_string();
    assert!(error("a = :v", Params::new()).contains("at byte 4: there is no value for :v"));
    assert!(error("#n = :v", Params::new().value(":v", 1)).contains("at byte 0: there is no name for #n"));
    let more = Params::new().value(":v", 1).value(":w", 1);
    assert!(error("a = :v", more).contains(":w is given but not used"));
    let more = Params::new().value(":v", 1).name("#w", "w");
    assert!(error("a = :v", more).contains("#w is given but not used"));
    assert!(error("a = :v", Params::new().value(":v", 1).value(":v", 1)).contains(":v is given twice"));
    assert!(error("a = b", Params::new().value("v", 1)).contains("not a placeholder"));
    assert!(error("a = b", Params::new().value("#v", 1)).contains("not a placeholder"));
    assert!(error("a = b", Params::new().name(":v", "x")).contains("not a placeholder"));
    assert!(error("a = b", Params::new().name("#v.w", "x")).contains("not a placeholder"));
    assert!(error("a = b", Params::new().name("#", "x")).contains("not a placeholder"));
    let empty = Params::new().value(":v", Value::Ss([].into()));
    assert!(error("a = :v", empty).contains(":v: a value cannot be stored"));
    assert!(error("a = :v", Params::new().value(":v", f64::NAN)).contains("cannot be stored"));
}

#[test]
fn several_texts_share_placeholders() {
    let params = Params::new().name("#s", "state").value(":new", "new").value(":n", 1);
    let mut expressions = Expressions::new(&params);
    let condition = expressions.condition("#s = :new").unwrap();
    assert!(expressions.clone().finish().unwrap_err().to_string().contains(":n is given but not used"));
    let update = expressions.update("SET #s = :new ADD visits :n").unwrap();
    let projection = expressions.projection("#s, visits").unwrap();
    expressions.finish().unwrap();
    let mut item = item(r#"{"state":"new"}"#);
    assert!(condition.matches_item(&item).unwrap());
    update.apply(&mut item).unwrap();
    let view = kstone_api::ItemView::new(item.encode().unwrap()).unwrap();
    assert_eq!(projection.apply(&view).unwrap().to_string(), r#"{"state":"new","visits":1}"#);
}
