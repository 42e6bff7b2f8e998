//! The forms that `import` reads, how it tells them apart, and what it says about input that is none of them.

use kstone_api::{Database, DatabaseConfig};
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use serde_json::{Value as Json, json};

use crate::Fixture;
use crate::import::{gzip, lines};

/// A line of an export by DynamoDB: types, escapes and the order of attributes as there.
const AWS: &str = r#"{"Item":{"Authors":{"SS":["Author1","Author2"]},"Dimensions":{"S":"8.5 x 11.0 x 1.5"},"ISBN":{"S":"333-3333333333"},"Id":{"N":"103"},"InPublication":{"BOOL":false},"Cover":{"B":"iVBORw=="},"PageCount":{"N":"600"},"Price":{"N":"2000"},"Notes":{"NULL":true},"Sold":{"M":{"de":{"L":[{"N":"1"}]}}},"Title":{"S":"Book 103 \u00e9"}}}
"#;

impl Fixture {
    /// Creates `small.db`, whose items take at most 1,000 bytes, and keys as given.
    fn create_small(&self, max_key_bytes: usize) {
        let config = DatabaseConfig::new().with_max_item_bytes(1000).with_max_key_bytes(max_key_bytes);
        let db = Database::builder(self.dir.path().join("small.db")).config(config).create();
        db.unwrap().close().unwrap();
    }

    fn import_into(&self, db: &str, more: &[&str], text: impl Into<Vec<u8>>) -> assert_cmd::assert::Assert {
        let args = [&["import", db, "--create"], more].concat();
        self.run(&args).write_stdin(text.into()).assert()
    }

    fn dynamodb(&self, db: &str) -> Vec<Json> {
        let text = self.stdout(&["export", db]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn exports_of_dynamodb_are_read() {
    let db = Fixture::new();
    let keys = ["--key-attr", "Id", "--sort-attr", "ISBN"];
    for (name, text) in [("a.db", AWS.as_bytes().to_vec()), ("b.db", gzip(AWS.as_bytes()))] {
        db.import_into(name, &keys, text).success().stdout("imported 1 item\n").stderr(is_empty());
        let item = db.stdout(&["get", name, "103", "333-3333333333", "--key-type", "N"]);
        assert_eq!(
            item,
            "{\"Authors\":[\"Author1\",\"Author2\"],\"Cover\":\"iVBORw==\",\"Dimensions\":\"8.5 x 11.0 x 1.5\",\
             \"InPublication\":false,\"Notes\":null,\"PageCount\":600,\"Price\":2000,\"Sold\":{\"de\":[1]},\
             \"Title\":\"Book 103 é\"}\n"
        );
    }
    // Back, with the types that the table has.
    let types = ["--key-type", "N", "--sort-type", "S"];
    let export = db.stdout(&[&["export", "a.db"][..], &keys, &types].concat());
    assert_eq!(serde_json::from_str::<Json>(&export).unwrap(), serde_json::from_str::<Json>(AWS).unwrap());
    // With its key left in the item.
    db.import_into("c.db", &[&keys[..], &["--key-in-item"]].concat(), AWS).success();
    let item: Json =
        serde_json::from_str(&db.stdout(&["get", "c.db", "103", "333-3333333333", "--key-type", "N"]))
            .unwrap();
    assert_eq!((&item["Id"], &item["ISBN"]), (&json!(103), &json!("333-3333333333")));
    let kept = db.stdout(&[&["export", "c.db", "--key-in-item"][..], &keys].concat());
    assert_eq!(serde_json::from_str::<Json>(&kept).unwrap(), serde_json::from_str::<Json>(AWS).unwrap());
    // A key that is missing, or no key.
    for (key, why) in [
        ("pk", "line 1: there is no attribute \"pk\""),
        ("Authors", "line 1: attribute \"Authors\" is neither a string nor a number nor binary, as keys are"),
    ] {
        db.import_into("d.db", &["--key-attr", key], AWS).code(6).stderr(contains(why));
    }
    db.import_into("d.db", &["--key-attr", "Id", "--sort-attr", "sort"], AWS)
        .code(6)
        .stderr(contains("line 1: there is no attribute \"sort\""));
    db.import_into("d.db", &["--key-attr", "Id", "--sort-attr", "sort", "--sort-optional"], AWS).success();
    let blank = AWS.replace("333-3333333333", "");
    db.import_into("e.db", &["--key-attr", "ISBN"], blank.clone())
        .code(6)
        .stderr(contains("line 1: attribute \"ISBN\", the key, is empty"));
    db.import_into("e.db", &keys, blank).success();
    assert_eq!(db.dynamodb("e.db")[0]["Item"]["sk"], json!({"B": ""}));
}

#[test]
fn a_bad_line_is_named_and_skipped_or_ends_it() {
    let db = Fixture::new();
    let good = |n: usize| format!("{{\"Item\":{{\"pk\":{{\"S\":\"k{n}\"}}}}}}\n");
    let bad = "{\"Item\":{\"pk\":{\"S\":\"k\"},\"a\":{\"L\":[{\"N\":\"one\"}]}}}\n";
    let text = good(1) + bad + &good(2) + "nonsense\n" + &good(3);
    db.import_into("a.db", &[], text.clone()).code(6).stdout("imported 1 item\n").stderr(
        starts_with("error: line 2: ")
            .and(contains("\"a.0\"").and(contains("the lines before it are imported; --on-error skip"))),
    );
    db.import_into("a.db", &["--on-error", "skip", "--from-line", "2"], text)
        .code(6)
        .stdout("imported 2 items, rejected 2 lines\n")
        .stderr(
            contains("warning: line 2: ").and(contains("warning: line 4: invalid item: not a JSON object")),
        );
    // Cut short in a compressed line.
    let text: String = (0..3000).map(good).collect();
    let whole = gzip(text.as_bytes());
    let output =
        db.import_into("b.db", &["--format", "json"], &whole[..whole.len() / 2]).code(4).get_output().clone();
    let result: Json = serde_json::from_slice(&output.stdout).unwrap();
    let imported = result["imported"].as_u64().unwrap();
    assert!(imported > 100 && result["next_line"] == imported + 1, "{result}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("the compressed data is cut short"));
    db.import_into("b.db", &["--from-line", &(imported + 1).to_string()], whole).success();
    assert_eq!(db.stdout(&["count", "b.db"]), "3000\n");
}

/// Damage that is found while the first line is looked at is reported as if it were read later.
#[test]
fn damage_in_the_first_line_is_not_lost() {
    let db = Fixture::new();
    let mut bytes = gzip(b"{\"key\":\"a\",\"item\":{}}");
    let checksum = bytes.len() - 8;
    bytes[checksum] ^= 1;
    for form in ["auto", "jsonl"] {
        db.import_into("a.db", &["--from", form], bytes.clone())
            .code(4)
            .stdout(starts_with("imported 1 item"))
            .stderr(contains("error: cannot read line 2 of -: ").and(contains("checksum")));
    }
}

#[test]
fn types_that_are_lost_are_seen_wherever_they_are() {
    let db = Fixture::new();
    let values = [
        "{\"L\":[{\"M\":{\"a\":{\"SS\":[\"x\"]}}}]}",
        "{\"M\":{\"a\":{\"B\":\"\"}}}",
        "{\"L\":[{\"NS\":[\"1\"]}]}",
        "{\"BS\":[\"\"]}",
    ];
    for (n, value) in values.into_iter().enumerate() {
        let name = format!("{n}.db");
        db.import_into(&name, &[], format!("{{\"Item\":{{\"pk\":{{\"S\":\"a\"}},\"v\":{value}}}}}"))
            .success();
        let export = db.run(&["export", &name, "--as", "jsonl"]).assert().success();
        export.stderr(starts_with(
            "warning: sets become lists and binary becomes text, first in the item under a;",
        ));
    }
}

#[test]
fn lines_of_scan_and_export_are_checked() {
    let db = Fixture::new();
    let text = "{\"key\":\"a\\\\x00\",\"sort\":\"\",\"item\":{\"key\":1}}\n{\"item\":{},\"key\":\"b\"}\n";
    db.import_into("a.db", &[], text).success().stdout("imported 2 items\n");
    assert_eq!(db.stdout(&["get", "a.db", "a\\x00", ""]), "{\"key\":1}\n");
    for (line, why) in [
        (
            "{\"key\":\"a\",\"item\":{},\"x\":1}",
            "it has a member \"x\": without --key-attr, a line has key, sort and item",
        ),
        ("{\"key\":\"a\"}", "there is no \"item\": a list of keys alone cannot be imported"),
        ("{\"key\":\"a\",\"item\":1}", "\"item\" is not an object"),
        ("{\"sort\":\"a\",\"item\":{}}", "there is no \"key\""),
        ("{\"key\":\"\",\"item\":{}}", "attribute \"key\", the key, is empty"),
        ("{\"key\":1,\"item\":{}}", "\"key\" is not a string, as keys are printed"),
        ("{\"key\":\"\\\\n\",\"item\":{}}", "\"key\": "),
        ("{\"key\":\"a\",\"key\":\"b\",\"item\":{}}", "two attributes of this name"),
        ("{\"key\":\"a\",\"item\":{\"a\":1,\"a\":2}}", "two attributes of this name"),
    ] {
        db.import_into("b.db", &["--from", "jsonl"], line)
            .code(6)
            .stdout("imported 0 items\n")
            .stderr(starts_with("error: line 1: ").and(contains(why)));
    }
    // Numbers as keys, in both directions.
    let numbers = "{\"key\":\"10\",\"item\":{}}\n{\"key\":\"9\",\"item\":{}}\n";
    db.import_into("n.db", &["--key-type", "N"], numbers).success();
    let scan = db.stdout(&["scan", "n.db", "--key-type", "N", "--format", "jsonl"]);
    assert_eq!(scan, "{\"key\":\"9\",\"item\":{}}\n{\"key\":\"10\",\"item\":{}}\n");
    db.import_into("m.db", &["--key-type", "N"], "{\"key\":\"ten\",\"item\":{}}")
        .code(6)
        .stderr(contains("line 1: \"ten\" is not a number key"));
    // With --key-attr, the same lines are items.
    db.import_into("c.db", &["--key-attr", "key"], text).success();
    assert!(db.stdout(&["get", "c.db", "b"]).contains("\"key\":\"b\""));
    // An item at the limit, which the key around it does not count for.
    db.create_small(100);
    let item = |len: usize| kstone_api::Item::from([("t", "x".repeat(len))]);
    let most = (900..1000).rev().find(|&len| item(len).encode().unwrap().len() <= 1000).unwrap();
    let key = "k".repeat(100);
    for (len, code) in [(most, 0), (most + 1, 6)] {
        let entry = format!("{{\"key\":\"{key}\",\"item\":{}}}\n", item(len));
        let typed = json!({"Item": {"pk": {"S": key}, "t": {"S": "x".repeat(len)}}}).to_string();
        for text in [entry, typed] {
            let ended = db.import_into("small.db", &[], text).code(code);
            if code != 0 {
                ended.stderr(contains("the item is longer than the limit of 1000 bytes"));
            }
        }
    }
}

#[test]
fn what_cannot_be_told_is_asked_for() {
    let db = Fixture::new();
    for (text, message, hint) in [
        (
            "{\"a\":1}\n",
            "the first line is an item without its key",
            "--key-attr A says which attribute is the key",
        ),
        ("\n [1]\n", "the first line is a JSON array, not an object", "`jq -c '.[]'`"),
        ("a,b\n1,2\n", "cannot tell what the file contains", "--from dynamodb-json, jsonl or csv"),
        ("{\"Item\":{\"a\":1}}", "the first line is an item without its key", "{\"Item\":{...}}"),
    ] {
        db.import_into("a.db", &[], text)
            .code(2)
            .stdout(is_empty())
            .stderr(starts_with(format!("error: {message}")).and(contains("\nhint: ")).and(contains(hint)));
    }
    for (args, message) in [
        (&["--from", "csv"][..], "--key-attr is missing"),
        (&["--from", "jsonl", "--sort-attr", "b"], "--sort-attr needs --key-attr"),
        (&["--from", "jsonl", "--key-attr", "a", "--key-in-item"], "--key-in-item is for DynamoDB JSON"),
        (&["--from", "jsonl", "--csv-numbers", "a"], "--csv-numbers is for CSV"),
        (&["--sort-optional"], "--sort-attr"),
    ] {
        db.import_into("a.db", args, "").code(2).stderr(contains(message));
    }
    assert!(!db.dir.path().join("a.db").exists());
    // The wrong form.
    let entry = "{\"key\":\"a\",\"item\":{}}\n";
    for (form, text, why) in [
        ("dynamodb-json", entry, "line 1: invalid item: not DynamoDB JSON: a line is {\"Item\":{...}}"),
        ("jsonl", AWS, "line 1: it has a member \"Item\""),
        ("jsonl", "a,b\n", "line 1: invalid item: not a JSON object"),
    ] {
        db.import_into("a.db", &["--from", form], text)
            .code(6)
            .stdout("imported 0 items\n")
            .stderr(contains(why));
    }
    db.import_into("a.db", &["--from", "csv", "--key-attr", "a"], entry)
        .code(6)
        .stderr(starts_with("error: line 1: the header has no column \"a\"\n"));
    // Blank lines and a byte order mark come before the first line that counts; an empty file is no mistake.
    let text = format!("\n\u{feff}\n  \n{entry}");
    db.import_into("a.db", &[], text).success().stdout("imported 1 item\n");
    db.import_into("a.db", &[], "").success().stdout("imported 0 items\n");
}

#[test]
fn csv_is_read() {
    let db = Fixture::new();
    let text = "\u{feff}id,\"na\"\"me\",n\r\n1,\"Ann, the\nfirst\",1.50\r\n\r\n2,,\n3,\" é \",-1e3";
    let args = ["--key-attr", "id", "--csv-numbers", "n"];
    db.file("a.csv.gz", &gzip(text.as_bytes()));
    db.run(&[&["import", "a.db", "a.csv.gz", "--create"][..], &args].concat())
        .assert()
        .success()
        .stdout("imported 3 items\n")
        .stderr(is_empty());
    // Without the name of the file: the header has the key.
    db.import_into("b.db", &args, text).success().stdout("imported 3 items\n");
    for name in ["a.db", "b.db"] {
        let items: Vec<_> = ["1", "2", "3"].map(|key| db.stdout(&["get", name, key])).into();
        assert_eq!(
            items,
            [
                "{\"id\":\"1\",\"n\":1.50,\"na\\\"me\":\"Ann, the\\nfirst\"}\n",
                "{\"id\":\"2\"}\n",
                "{\"id\":\"3\",\"n\":-1e3,\"na\\\"me\":\" é \"}\n"
            ]
        );
    }
    // The key as a number, and a sort key.
    db.import_into(
        "c.db",
        &["--key-attr", "id", "--sort-attr", "n", "--key-type", "N", "--sort-optional"],
        text,
    )
    .success();
    assert_eq!(
        db.stdout(&["get", "c.db", "--key-type", "N", "--", "3.0", "-1e3"]),
        "{\"id\":3,\"n\":\"-1e3\",\"na\\\"me\":\" é \"}\n"
    );
    // Rows are numbered by the line at which they start, and reading goes on after a bad one.
    let text = "k,n\na,\"1\n\n2\"\nb\nc,3,\nd,x\n,1\n\"e\",\"5\"\n";
    db.import_into("d.db", &["--key-attr", "k", "--on-error", "skip", "--csv-numbers", "n"], text)
        .code(6)
        .stdout("imported 1 item, rejected 5 lines\n")
        .stderr(
            contains("warning: line 2: column \"n\": ")
                .and(contains("warning: line 5: it has 1 fields, the header has 2"))
                .and(contains("warning: line 6: it has 3 fields, the header has 2"))
                .and(contains("warning: line 7: column \"n\": "))
                .and(contains("warning: line 8: there is no attribute \"k\"")),
        );
    db.import_into("e.db", &["--key-attr", "k", "--from-line", "6", "--on-error", "skip"], text)
        .code(6)
        .stdout("imported 2 items, rejected 2 lines\n");
    // A quote that is not closed swallows the rows after it; one within a field does no harm.
    for text in ["k,n\na,1\nb,\"2\nc,3\nd,4\n", "k,n\na,1\nb,\"2\nc,3"] {
        db.import_into("g.db", &["--key-attr", "k"], text)
            .code(6)
            .stdout(starts_with("imported 1 item"))
            .stderr(starts_with("error: line 3: a quote in it is not closed before the end of the input\n"));
    }
    db.import_into("h.db", &["--key-attr", "k"], "k,n\na,5\" pipe\nb,\"a \"\"b\"\"\"\n").success();
    assert_eq!(db.stdout(&["get", "h.db", "a"]), "{\"k\":\"a\",\"n\":\"5\\\" pipe\"}\n");
    assert_eq!(db.stdout(&["get", "h.db", "b"]), "{\"k\":\"b\",\"n\":\"a \\\"b\\\"\"}\n");
    let stopped =
        db.import_into("f.db", &["--key-attr", "k", "--format", "json"], text).code(6).get_output().clone();
    let result: Json = serde_json::from_slice(&stopped.stdout).unwrap();
    assert_eq!((&result["imported"], &result["next_line"]), (&json!(1), &json!(5)));
}

#[test]
fn csv_without_a_header_or_with_a_bad_one_is_refused() {
    let db = Fixture::new();
    let wide = vec!["c"; 20_000].join(",");
    for (text, why) in [
        ("", "there is no header"),
        ("\n\n", "there is no header"),
        ("k,a,k\n", "two columns of the header have the name \"k\""),
        ("k,,a\n", "column 2 of the header has no name"),
        ("a,b\n", "the header has no column \"k\""),
        (wide.as_str(), "the header is too long"),
    ] {
        db.import_into("a.db", &["--from", "csv", "--key-attr", "k", "--on-error", "skip"], text)
            .code(6)
            .stdout("imported 0 items\n")
            .stderr(contains(why).and(contains("the first line of CSV names its columns")));
    }
    db.import_into("a.db", &["--from", "csv", "--key-attr", "k"], &b"k,\xff\n"[..])
        .code(6)
        .stderr(contains("the header is not UTF-8, in column 2"));
    db.import_into("a.db", &["--from", "csv", "--key-attr", "k"], &b"k,a\nx,\xff\n"[..])
        .code(6)
        .stderr(contains("line 2: column \"a\" is not UTF-8"));
    db.import_into("a.db", &["--key-attr", "k", "--csv-numbers", "m"], "k,n\n")
        .code(6)
        .stderr(contains("the header has no column \"m\""));
}

/// Rows that never end, or have no end of fields, are given up, and the rows after a long one are read.
#[test]
fn memory_is_bounded_whatever_the_csv() {
    let db = Fixture::created();
    let kstone = assert_cmd::cargo::cargo_bin("kstone");
    for endless in ["cat /dev/zero", "yes , | tr -d '\\n'", "yes '\"' | tr -d '\\n'", "gzip -c1 /dev/zero"] {
        let script =
            format!("ulimit -v 2000000; (echo k,a; {endless}) | \"$0\" import my.db --from csv --key-attr k");
        // Compressed data in the middle of a file is just bytes here.
        let mut command = std::process::Command::new("sh");
        let output = command.arg("-c").arg(script).arg(&kstone).current_dir(db.dir.path()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{endless}: {stderr}");
        assert!(stderr.contains("error: line ") && stderr.len() < 600, "{endless}: {stderr}");
    }
    let long = "x".repeat(40 << 20);
    let text = format!("k,a\n1,{long}\n2,\"{long}\n\"\n3,{}\n4,y\n", vec![","; 20_000].concat());
    db.import_into("my.db", &["--key-attr", "k", "--on-error", "skip"], text)
        .code(6)
        .stdout("imported 1 item, rejected 3 lines\n")
        .stderr(
            contains("line 2: the item is longer than the limit")
                .and(contains("line 3: the item is longer"))
                .and(contains("line 5: it has more than 16384 fields")),
        );
    assert_eq!(db.stdout(&["get", "my.db", "4"]), "{\"a\":\"y\",\"k\":\"4\"}\n");
}

#[test]
fn items_that_are_there_are_replaced_or_kept_or_end_it() {
    let old = "{\"key\":\"b\",\"item\":{\"old\":1}}\n";
    let new = "{\"key\":\"a\",\"item\":{\"n\":1}}\n{\"key\":\"b\",\"item\":{\"n\":2}}\n{\"key\":\"a\",\"item\":{\"n\":3}}\n";
    let db = Fixture::new();
    let fresh = |name: &str| db.import_into(name, &[], old).success();
    let items = |name: &str| [db.stdout(&["get", name, "a"]), db.stdout(&["get", name, "b"])];
    fresh("replace.db");
    db.import_into("replace.db", &["--on-conflict", "replace"], new)
        .success()
        .stdout("imported 3 items, 2 replaced\n");
    assert_eq!(items("replace.db"), ["{\"n\":3}\n", "{\"n\":2}\n"]);
    fresh("skip.db");
    db.import_into("skip.db", &["--on-conflict", "skip"], new)
        .success()
        .stdout("imported 1 item, skipped 2 that are there already\n");
    assert_eq!(items("skip.db"), ["{\"n\":1}\n", "{\"old\":1}\n"]);
    fresh("fail.db");
    db.import_into("fail.db", &["--on-conflict", "fail"], new)
        .code(6)
        .stdout("imported 1 item\n")
        .stderr(
            "error: line 2: there is an item under b already\nhint: the lines before it are imported; --on-conflict \
             skip or replace goes on\n",
        );
    assert_eq!(items("fail.db"), ["{\"n\":1}\n", "{\"old\":1}\n"]);
    // Within the input, in one batch.
    db.import_into("twice.db", &["--on-conflict", "fail", "--from-line", "1"], new)
        .code(6)
        .stderr(contains("line 3: there is an item under a already"));
    let output = db.import_into("skip.db", &["--on-conflict", "skip", "--format", "json"], new).success();
    let result: Json = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!((&result["imported"], &result["skipped"]), (&json!(0), &json!(3)));
}

#[test]
fn a_dry_run_stores_nothing() {
    let db = Fixture::created();
    let text = lines(0, 1200, 10) + "{\"k\":1,\n" + &lines(1200, 10, 10);
    let import = ["--key-attr", "k", "--on-error", "skip"];
    let dry = [&import[..], &["--dry-run"]].concat();
    let before = db.names_and_bytes();
    db.import_into("my.db", &dry, text.clone())
        .code(6)
        .stdout("would import 1,210 items, rejected 1 line\n")
        .stderr(contains("warning: line 1201: "));
    db.import_into("new.db", &dry, text.clone())
        .code(6)
        .stdout("would import 1,210 items, rejected 1 line\n");
    db.run(&["import", "new.db", "--key-attr", "k", "--dry-run"]).write_stdin("").assert().code(4);
    db.import_into("my.db", &["--key-attr", "k", "--dry-run"], text.clone())
        .code(6)
        .stdout("would import 1,200 items\n")
        .stderr(contains("hint: nothing was stored"));
    assert!(db.names_and_bytes() == before, "a dry run changed something");
    // Beside a program that has the database open, and with items that are there.
    db.import_into("my.db", &import, text.clone()).code(6);
    let open = kstone_api::Database::open(db.dir.path().join("my.db")).unwrap();
    db.import_into("my.db", &[&dry[..], &["--format", "json"]].concat(), text.clone())
        .code(6)
        .stdout(contains("\"replaced\":1210").and(contains("\"dry_run\":true")));
    db.import_into("my.db", &[&dry[..], &["--on-conflict", "skip"]].concat(), text)
        .code(6)
        .stdout("would import 0 items, skipped 1,210 that are there already, rejected 1 line\n");
    open.close().unwrap();
    // The limits are those of the database.
    db.create_small(3);
    db.import_into("small.db", &dry, lines(0, 2, 10) + "{\"k\":\"a\"}\n")
        .code(6)
        .stdout("would import 1 item, rejected 2 lines\n");
}

impl Fixture {
    /// Every file of the database, and what is beside it.
    fn names_and_bytes(&self) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let entries =
            |dir: &std::path::Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let all = entries(self.dir.path()).chain(entries(&self.dir.path().join("my.db")));
        let mut all: Vec<_> =
            all.map(|path| (path.clone(), std::fs::read(&path).unwrap_or_default())).collect();
        all.sort();
        all
    }
}
