//! Conditions, updates, filters and projections, as people type them.

use std::collections::BTreeMap;

use kstone_api::Database;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use serde_json::{Value as Json, json};

use crate::Fixture;

/// The files of a database and their contents.
fn files(db: &Fixture) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let entries = std::fs::read_dir(db.dir.path().join("my.db")).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
}

fn error(db: &Fixture, args: &[&str], code: i32) -> Json {
    let args = [args, &["--format", "json"]].concat();
    let output = db.run(&args).assert().code(code).stdout(is_empty()).get_output().clone();
    let json: Json = serde_json::from_slice(&output.stderr).unwrap();
    json["error"].clone()
}

#[test]
fn a_put_with_a_condition_is_refused_or_done() {
    let db = Fixture::created();
    let new = ["put", "my.db", "name#ann", r#"{"user":1.10}"#, "--if", "attribute_not_exists(#u)"];
    let new = [&new[..], &["--name", "#u=user"]].concat();
    db.run(&new).assert().success().stdout(is_empty()).stderr(is_empty());
    db.run(&new).assert().code(1).stdout(is_empty()).stderr(
        "error: the condition does not hold: the item is another\n\
         hint: nothing was written; the item is {\"user\":1.10}\n",
    );
    assert_eq!(db.stdout(&["get", "my.db", "name#ann"]), "{\"user\":1.10}\n");
    // The option may stand between the arguments; the item may come from stdin.
    db.run(&["put", "my.db", "name#ann", "--if", "#u = :u", "--name", "#u=user", "--value", ":u=1.1", "-"])
        .write_stdin("{\"user\":2}")
        .assert()
        .success();
    assert_eq!(db.stdout(&["get", "my.db", "name#ann"]), "{\"user\":2}\n");
    // Programs get the item that is there, with the text of its numbers, or null.
    db.run(&["put", "my.db", "k", "a sort", r#"{"n":12345678901234567890.10}"#]).assert().success();
    let refused = error(&db, &["put", "my.db", "k", "a sort", "{}", "--if", "item_not_exists()"], 1);
    assert_eq!(
        (&refused["code"], &refused["hint"]),
        (&json!("condition_failed"), &json!("nothing was written"))
    );
    let exact = db
        .run(&["put", "my.db", "k", "a sort", "{}", "--if", "item_not_exists()", "--format", "jsonl"])
        .assert()
        .code(1);
    exact.stderr(contains("\"item\":{\"n\":12345678901234567890.10}}}\n"));
    let refused = error(&db, &["put", "my.db", "k", "{}", "--if", "item_exists()"], 1);
    assert_eq!(refused.get("item"), Some(&Json::Null));
    db.run(&["put", "my.db", "k", "{}", "--if", "item_exists()"])
        .assert()
        .code(1)
        .stderr("error: the condition does not hold: there is no item\nhint: nothing was written\n");
    // A large item is cut off.
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(5000));
    db.run(&["put", "my.db", "large", &large]).assert().success();
    db.run(&["put", "my.db", "large", "{}", "--if", "item_not_exists()"])
        .assert()
        .code(1)
        .stderr(contains("xxx… (4.9 KiB in all)\n"));
}

#[test]
fn a_put_with_a_condition_stores_the_same_bytes() {
    let db = Fixture::created();
    let items = [
        r#"{"n":1.10,"big":123456789012345678901234567890.12345678,"e":1e30,"z":-0.0,"E":2.50E-7}"#,
        r#"{"b":{"é":[null,true,{"x":[]}],"A":"\u0000\u001b"},"a":{},"":"","c":[1,[2.0,["3"]]]}"#,
        "{}",
    ];
    for (i, item) in items.iter().enumerate() {
        db.run(&["put", "my.db", "plain", &i.to_string(), item]).assert().success();
        let only = ["--if", "item_not_exists()"];
        db.run(&[&["put", "my.db", "if", &i.to_string(), item], &only[..]].concat()).assert().success();
    }
    let open = Database::open_read_only(db.dir.path().join("my.db")).unwrap();
    for i in ["0", "1", "2"] {
        let (plain, only) = (open.get_view(("plain", i)).unwrap(), open.get_view(("if", i)).unwrap());
        assert_eq!(plain.unwrap().as_bytes(), only.unwrap().as_bytes(), "{i}");
    }
}

#[test]
fn a_delete_with_a_condition() {
    let db = Fixture::airports();
    let delete = ["delete", "my.db", "US", "KJFK", "--if", "elevation > :e"];
    db.run(&[&delete[..], &["--value", ":e=100"]].concat()).assert().code(1).stdout(is_empty()).stderr(
        contains("error: the condition does not hold: the item is another\n").and(contains("\"New York\"")),
    );
    assert_eq!(db.stdout(&["count", "my.db"]), "3\n");
    db.run(&[&delete[..], &["--value", ":e=12"]].concat()).assert().success().stdout(is_empty());
    assert_eq!(db.stdout(&["count", "my.db"]), "2\n");
    // There is nothing left to delete, whether or not the condition holds for nothing.
    for (condition, why) in [
        ("item_exists()", "the condition does not hold: there is no item\nhint: nothing was written\n"),
        ("item_not_exists()", "there is no item under US KJFK\n"),
    ] {
        db.run(&["delete", "my.db", "US", "KJFK", "--if", condition])
            .assert()
            .code(1)
            .stderr(format!("error: {why}"));
    }
}

#[test]
fn updates_change_what_they_name() {
    let db = Fixture::created();
    let one = ["--value", ":one=1"];
    let count = ["update", "my.db", "page", "ADD visits :one"];
    for _ in 0..3 {
        db.run(&[&count[..], &one].concat()).assert().success().stdout(is_empty()).stderr(is_empty());
    }
    assert_eq!(db.stdout(&["get", "my.db", "page"]), "{\"visits\":3}\n");
    let set =
        ["update", "my.db", "page", "SET visits = visits + :one, title = :t", "--value", ":t=\"Start\""];
    let returned = |what: &str| db.stdout(&[&set[..], &one, &["--return", what]].concat());
    assert_eq!(returned("updated-old"), "{\"visits\":3}\n");
    db.run(&["update", "my.db", "page", "SET extra = :one", "--value", ":one=1"]).assert().success();
    assert_eq!(returned("old"), "{\"extra\":1,\"title\":\"Start\",\"visits\":4}\n");
    assert_eq!(returned("new"), "{\"extra\":1,\"title\":\"Start\",\"visits\":6}\n");
    assert_eq!(returned("updated-new"), "{\"title\":\"Start\",\"visits\":7}\n");
    // As `get` prints it; with a sort key, and numbers as keys.
    let add = ["update", "my.db", "n", "7", "ADD x :x", "--value", ":x=0.10", "--sort-type", "N"];
    assert_eq!(
        db.json(&[&add[..], &["--return", "new"]].concat()),
        json!({"schema": "kstone.item/1", "key": "n", "sort": "7", "item": {"x": 0.1}})
    );
    assert_eq!(db.stdout(&["get", "my.db", "n", "7.0", "--sort-type", "N"]), "{\"x\":0.10}\n");
    // There was no item.
    let create = |key: &str, more: &[&str]| {
        let create = ["update", "my.db", key, "SET a = :a", "--value", ":a=true", "--return", "old"];
        db.stdout(&[&create[..], more].concat())
    };
    assert_eq!(create("fresh", &[]), "");
    let fresh: Json = serde_json::from_str(&create("fresher", &["--format", "json"])).unwrap();
    assert_eq!(fresh, json!({"schema": "kstone.item/1", "key": "fresher", "item": null}));
    assert_eq!(db.stdout(&["get", "my.db", "fresher"]), "{\"a\":true}\n");
}

#[test]
fn refused_updates_write_nothing() {
    let db = Fixture::airports();
    let update = |update: &[&str]| db.run(&[&["update", "my.db", "US", "KJFK"], update].concat()).assert();
    let before = db.stdout(&["scan", "my.db", "--format", "jsonl"]);
    update(&["SET elevation = :e", "--if", "elevation > :e", "--value", ":e=14"])
        .code(1)
        .stdout(is_empty())
        .stderr(
            contains("the condition does not hold")
                .and(contains("hint: nothing was written; the item is {\"city\"")),
        );
    update(&["SET city = city + :e", "--value", ":e=1"]).code(1).stdout(is_empty()).stderr(
        contains("error: the item cannot be updated: city: ").and(contains("hint: nothing was written\n")),
    );
    let big = "9".repeat(38);
    update(&["SET elevation = elevation + :e", "--value", &format!(":e={big}")])
        .code(1)
        .stderr(contains("38"));
    // An expression that cannot be read is reported before anything is opened.
    update(&["SET elevation = 1"]).code(2);
    db.run(&["update", "none.db", "k", "SET elevation = 1"]).assert().code(2);
    db.run(&["update", "none.db", "k", "REMOVE a"])
        .assert()
        .code(4)
        .stderr(contains("none.db does not exist"));
    db.run(&["update", "my.db", "k"]).assert().code(2).stderr("error: update takes KEY [SORT] UPDATE\n");
    db.run(&["update", "my.db", "k", "s", "REMOVE a", "more"]).assert().code(2).stdout(is_empty());
    db.run(&["update", "my.db", "k\\q", "REMOVE a"]).assert().code(2);
    db.run(&["update", "my.db", "k", "REMOVE a", "--return", "all"])
        .assert()
        .code(2)
        .stderr(contains("updated-old"));
    assert_eq!(db.stdout(&["scan", "my.db", "--format", "jsonl"]), before);
    let open = Database::open(db.dir.path().join("my.db")).unwrap();
    update(&["REMOVE city"]).code(5);
    drop(open);
    // An update may make an item too large.
    let large = format!(":x=\"{}\"", "x".repeat(100_000));
    let config = kstone_api::DatabaseConfig::new().with_max_item_bytes(1 << 10);
    Database::builder(db.dir.path().join("small.db")).config(config).create().unwrap().close().unwrap();
    db.run(&["update", "small.db", "k", "SET x = :x", "--value", &large])
        .assert()
        .code(2)
        .stderr(contains("the limit is 1024"));
    assert_eq!(db.stdout(&["count", "small.db"]), "0\n");
}

#[test]
fn projections_print_parts() {
    let db = Fixture::created();
    let item = r#"{"name":"Ann","n":1.10,"a":{"b":[{"c":1},{"c":2}],"x":0},"first.name":"A"}"#;
    db.run(&["put", "my.db", "k", item]).assert().success();
    let get =
        |paths: &str, more: &[&str]| db.stdout(&[&["get", "my.db", "k", "--project", paths], more].concat());
    assert_eq!(get("n", &[]), "{\"n\":1.10}\n");
    assert_eq!(get("n, a.b[1].c", &[]), "{\"a\":{\"b\":[{\"c\":2}]},\"n\":1.10}\n");
    let names = ["--name", "#n=name", "--name", "#f=first.name"];
    assert_eq!(get("#n, #f", &names), "{\"first.name\":\"A\",\"name\":\"Ann\"}\n");
    assert_eq!(get("nowhere", &[]), "{}\n");
    assert_eq!(db.json(&["get", "my.db", "k", "--project", "n"])["item"], json!({"n": 1.1}));
    db.run(&["get", "my.db", "other", "--project", "n"])
        .assert()
        .code(1)
        .stderr("error: there is no item under other\n");
    db.run(&["get", "my.db", "k", "--project", "a, a.b"]).assert().code(2).stderr(contains("overlap"));
    // A projection has no values.
    db.run(&["get", "my.db", "k", "--project", "n", "--value", ":n=3"]).assert().code(2);
    let scan = ["scan", "my.db", "--project", "a.x", "--format", "jsonl"];
    assert_eq!(db.stdout(&scan), "{\"key\":\"k\",\"item\":{\"a\":{\"x\":0}}}\n");
    db.run(&["scan", "my.db", "--project", "a", "--keys-only"]).assert().code(2);
    assert!(db.stdout(&["query", "my.db", "k", "--project", "n"]).ends_with("{\"n\":1.10}\n"));
}

#[test]
fn filters_choose_items() {
    let db = Fixture::airports();
    let sorts = |args: &[&str]| {
        let items = db.json(args);
        let items = items["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["sort"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let low = ["--filter", "elevation < :e", "--value", ":e=100"];
    assert_eq!(sorts(&[&["query", "my.db", "US"], &low[..]].concat()), ["KJFK"]);
    assert_eq!(sorts(&[&["scan", "my.db"], &low[..]].concat()), ["EHAM", "KJFK"]);
    assert_eq!(sorts(&[&["scan", "my.db", "--keys-only"], &low[..]].concat()), ["EHAM", "KJFK"]);
    assert_eq!(sorts(&[&["scan", "my.db", "--prefix", "U"], &low[..]].concat()), ["KJFK"]);
    // Filter and projection share placeholders.
    let both =
        ["--filter", "begins_with(#c, :c)", "--project", "#c", "--name", "#c=city", "--value", ":c=\"New\""];
    assert_eq!(
        db.stdout(&[&["query", "my.db", "US", "--format", "jsonl"], &both[..]].concat()),
        "{\"key\":\"US\",\"sort\":\"KJFK\",\"item\":{\"city\":\"New York\"}}\n"
    );
    assert_eq!(db.stdout(&["query", "my.db", "US", "--filter", "attribute_exists(nothing)"]), "");
    // Stripes are for looking at the engine: they are read as they are.
    for option in ["--filter", "--project", "--after", "--examine"] {
        let value = if option == "--examine" { "1" } else { "a" };
        db.run(&["scan", "my.db", "--stripe", "0", option, value])
            .assert()
            .code(2)
            .stderr(contains("--stripe"));
    }
}

#[test]
fn values_are_json_in_either_form() {
    let db = Fixture::created();
    let item = r#"{"n":3,"s":"3","t":true,"u":null,"l":[1,"two"],"m":{"a":{"b":1.0}},"one":{"n":1}}"#;
    db.run(&["put", "my.db", "k", item]).assert().success();
    let set = ["update", "my.db", "k", "SET tags = :s, pic = :b", "--value", r#":s={"SS":["a","b"]}"#];
    db.run(&[&set[..], &["--value", r#":b={"B":"AP8="}"#]].concat()).assert().success();
    for (attribute, value) in [
        ("n", "3"),
        ("n", " 3.00 "),
        ("n", r#"{"N":"3"}"#),
        ("s", r#""3""#),
        ("s", r#"{"S":"3"}"#),
        ("s", r#""\u0033""#),
        ("t", "true"),
        ("t", r#"{"BOOL":true}"#),
        ("u", "null"),
        ("u", r#"{"NULL":true}"#),
        ("l", r#"[1,"two"]"#),
        ("l", r#"{"L":[{"N":"1"},{"S":"two"}]}"#),
        ("m", r#"{"a":{"b":1}}"#),
        ("m", r#"{"M":{"a":{"M":{"b":{"N":"1"}}}}}"#),
        ("one", r#"{"n":1}"#),
        ("tags", r#"{"SS":["b","a"]}"#),
        ("pic", r#"{"B":"AP8="}"#),
    ] {
        let filter = format!("{attribute} = :v");
        let args = ["scan", "my.db", "--keys-only", "--format", "jsonl", "--filter", &filter];
        let found = db.stdout(&[&args[..], &["--value", &format!(":v={value}")]].concat());
        assert_eq!(found, "{\"key\":\"k\"}\n", "{attribute} = {value}");
    }
    // An equals sign belongs to the value, or to the name.
    let update = ["update", "my.db", "e", "SET #e = :e", "--name", "#e=a=b", "--value", ":e=\"x=y\""];
    assert_eq!(db.stdout(&[&update[..], &["--return", "new"]].concat()), "{\"a=b\":\"x=y\"}\n");
}

#[test]
fn bad_placeholders_are_usage_errors() {
    let db = Fixture::airports();
    for (options, message) in [
        (&["--value", "3"][..], "--value \"3\" has no \"=\"\nhint: for example --value ':v=3'"),
        (&["--name", "#n"], "--name \"#n\" has no \"=\"\nhint: for example --name '#n=first name'"),
        (&["--value", ":v=3"], ":v is given but not used"),
        (&["--name", "#n=a"], "#n is given but not used"),
        (&["--filter", "city = :v", "--value", ":v=1", "--value", ":w=2"], ":w is given but not used"),
        (&["--filter", "city = :v", "--value", ":v=1", "--value", ":v=1"], ":v is given twice"),
        (&["--filter", "#c = city", "--name", "#c=a", "--name", "#c=b"], "#c is given twice"),
        (&["--value", "v=3"], "\"v\" is not a placeholder: : followed by letters, digits and underscores"),
        (&["--name", "n=a"], "\"n\" is not a placeholder: # followed by letters, digits and underscores"),
        (
            &["--filter", "city = :v"],
            "--filter: at byte 7: there is no value for :v\n\
             hint: values are given as JSON: --value ':v=3', --value ':v=\"text\"'",
        ),
        (
            &["--project", "city, #n"],
            "--project: at byte 6: there is no name for #n\nhint: names are given apart: --name '#n=NAME'",
        ),
        (
            &["--value", ":v=Ann"],
            "--value :v: not JSON: expected value at line 1 column 1\n\
             hint: text is quoted, within the quotes of the shell: --value ':v=\"Ann\"'",
        ),
        (&["--value", ":v=1 2"], "--value :v: not JSON: trailing characters at line 1 column 3"),
        (&["--value", ":v="], "--value :v: not JSON: EOF while parsing a value at line 1 column 0"),
    ] {
        let stderr = format!("error: {message}\n");
        db.run(&[&["scan", "my.db"], options].concat()).assert().code(2).stdout(is_empty()).stderr(stderr);
    }
    for (value, why) in [
        (r#"{"N":3}"#, "--value :v: not DynamoDB JSON: "),
        (r#"{"SS":[]}"#, ":v"),
        (r#"{"SS":["a","a"]}"#, "duplicate"),
        (r#"{"S":"a","S":"b"}"#, "--value :v: not DynamoDB JSON: "),
        (r#"{"a":1,"a":2}"#, "--value :v: "),
        ("1e999", "--value :v: "),
        (&"1".repeat(39), "38"),
        (&format!("{}1{}", "[".repeat(100), "]".repeat(100)), ":v"),
    ] {
        let args = ["scan", "my.db", "--filter", "city = :v", "--value", &format!(":v={value}")];
        db.run(&args).assert().code(2).stdout(is_empty()).stderr(contains(why));
    }
    let error = error(&db, &["scan", "my.db", "--filter", "city = :v"], 2);
    assert_eq!(error["code"], "invalid_expression");
}

#[test]
fn a_caret_shows_where_an_expression_cannot_be_read() {
    let db = Fixture::airports();
    let values = "hint: values are given apart: write :v, and add --value ':v=3' or ':v=\"text\"'\n";
    let names = "hint: a name that is reserved or not a plain word needs a placeholder: --name '#n=NAME'\n";
    for (filter, expected, excerpt, hint) in [
        ("n = 3", "a path, a value such as :v, or a function at byte 4", "  n = 3\n      ^\n", values),
        ("n = 'x'", "a path, a value such as :v, or a function at byte 4", "  n = 'x'\n      ^\n", values),
        (
            "icao-code = n",
            "=, <>, <, <=, >, >=, BETWEEN or IN at byte 4",
            "  icao-code = n\n      ^\n",
            names,
        ),
        ("n =", "a path, a value such as :v, or a function at byte 3", "  n =\n     ^\n", ""),
        (
            "status = n",
            "a name, and STATUS is a reserved word; use a placeholder such as #status at byte 0",
            "  status = n\n  ^\n",
            "hint: write #status, and add --name '#status=status'\n",
        ),
        (
            "n = true",
            "a name, and TRUE is a reserved word; use a placeholder such as #true at byte 4",
            "  n = true\n      ^\n",
            "hint: values are given apart: write :v, and add --value ':v=true'\n",
        ),
        (
            "n\t=\n\u{1b}[31m",
            "a path, a value such as :v, or a function at byte 4",
            "  n = \\x1b[31m\n      ^\n",
            values,
        ),
        (
            "n = ü\u{202e}",
            "a path, a value such as :v, or a function at byte 4",
            "  n = ü\\xe2\\x80\\xae\n      ^\n",
            values,
        ),
    ] {
        let stderr = format!("error: --filter: expected {expected}\n{excerpt}{hint}");
        db.run(&["scan", "my.db", "--filter", filter]).assert().code(2).stdout(is_empty()).stderr(stderr);
        let error = error(&db, &["query", "my.db", "US", "--filter", filter], 2);
        assert_eq!((&error["code"], &error["expression"]), (&json!("expression_syntax"), &json!(filter)));
        let message = error["message"].as_str().unwrap();
        assert_eq!(message, format!("--filter: expected {expected}"));
        assert!(message.ends_with(&format!(" at byte {}", error["at"])), "{error}");
    }
    // Which of several it is, is said.
    let update = |args: &[&str]| db.run(&[&["update", "my.db", "k"], args].concat()).assert().code(2);
    update(&["PUT a"])
        .stderr(contains("error: the update: expected SET, REMOVE, ADD or DELETE at byte 0\n  PUT a\n  ^\n"));
    update(&["REMOVE a", "--if", "(a"]).stderr(contains("error: --if: ").and(contains("\n  (a\n    ^\n")));
    db.run(&["get", "my.db", "k", "--project", "a,"])
        .assert()
        .code(2)
        .stderr("error: --project: expected a name at byte 2\n  a,\n    ^\n");
    db.run(&["put", "my.db", "k", "{}", "--if", ""])
        .assert()
        .code(2)
        .stderr(contains("error: --if: expected "));
    // Long and deep texts end in an error, not in memory or on the stack.
    for text in ["(".repeat(100_000), "a = b AND ".repeat(10_000), format!("a{}", ".b".repeat(2000))] {
        db.run(&["scan", "my.db", "--filter", &text]).assert().code(2).stderr(contains("error: --filter: "));
    }
    // The causes repeat nothing.
    db.run(&["scan", "my.db", "--filter", "n = 3", "-v"]).assert().code(2).stderr(contains("cause").not());
}

/// Reading with every option changes nothing in the directory, also while another process writes to it.
#[test]
fn reading_with_expressions_writes_nothing() {
    let db = Fixture::airports();
    let open = Database::open(db.dir.path().join("my.db")).unwrap();
    let before = files(&db);
    let filter = ["--filter", "elevation > :e", "--project", "city", "--limit", "1", "--examine", "3"];
    let filter = [&filter[..], &["--value", ":e=0"]].concat();
    db.run(&[&["query", "my.db", "US"], filter.as_slice()].concat()).assert().success();
    db.run(&[&["scan", "my.db"], filter.as_slice()].concat()).assert().success();
    db.run(&["get", "my.db", "US", "KJFK", "--project", "city"]).assert().success();
    db.run(&["scan", "my.db", "--filter", "("]).assert().code(2);
    assert_eq!(files(&db), before);
    drop(open);
}

#[test]
fn help_tells_how_to_write_expressions_and_what_the_exit_statuses_mean() {
    let db = Fixture::new();
    let help = db.stdout(&["--help"]);
    assert!(help.contains("\n  1  no such key, a refused write, an alert   5 "), "{help}");
    assert!(help.contains("\n  update "), "{help}");
    for command in ["put", "update", "delete", "query", "scan"] {
        let help = db.stdout(&[command, "--help"]);
        for part in ["--value <:V=JSON>", "--name <#N=NAME>", "--value ':v=3' --name '#s=state'"] {
            assert!(help.contains(part), "{help}");
        }
    }
    assert!(db.stdout(&["get", "--help"]).contains("--name '#z=zip code'"));
}
