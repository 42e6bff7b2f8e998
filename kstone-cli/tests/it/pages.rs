//! Reading page by page: tokens are printed, pasted back, and belong to one query.

use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use serde_json::{Value as Json, json};

use crate::Fixture;

/// Runs a read, in a format; returns stdout, and the token that was printed.
fn page(db: &Fixture, args: &[&str], format: &str) -> (String, Option<String>) {
    let output = db.run(&[args, &["--format", format]].concat()).assert().success().get_output().clone();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let token = match format {
        "json" => {
            assert_eq!(err, "");
            let document: Json = serde_json::from_str(&out).unwrap();
            document.get("next").map(|token| token.as_str().unwrap().to_owned())
        }
        "jsonl" if err.is_empty() => None,
        "jsonl" => {
            let line: Json = serde_json::from_str(&err).unwrap();
            Some(line["next"].as_str().unwrap().to_owned())
        }
        _ if err.is_empty() => None,
        _ => {
            let line = err.strip_prefix("more: --after ").and_then(|line| line.strip_suffix('\n'));
            Some(line.unwrap_or_else(|| panic!("{err:?}")).to_owned())
        }
    };
    (out, token)
}

/// Keys and items of a read, in any format, as lines without headings and with one space between columns.
fn lines(out: &str, format: &str) -> Vec<String> {
    match format {
        "json" => {
            let document: Json = serde_json::from_str(out).unwrap();
            document["items"].as_array().unwrap().iter().map(Json::to_string).collect()
        }
        "jsonl" => out.lines().map(str::to_owned).collect(),
        _ => {
            let rows = out.lines().filter(|line| *line != "KEY" && !line.starts_with("KEY "));
            rows.map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        }
    }
}

/// Reads page by page with the printed tokens; returns the lines of all pages, and how many pages there were.
fn walk(db: &Fixture, args: &[&str], format: &str) -> (Vec<String>, usize) {
    let (mut all, mut pages, mut next) = (Vec::new(), 0, None::<String>);
    loop {
        let mut args = args.to_vec();
        if let Some(token) = &next {
            args.extend(["--after", token]);
        }
        let (out, token) = page(db, &args, format);
        all.extend(lines(&out, format));
        pages += 1;
        next = token;
        if next.is_none() {
            return (all, pages);
        }
        assert!(pages < 100, "pages do not end");
    }
}

/// A partition of 7 items, two of them with keys that are no text, and 5 items of other partitions.
fn items() -> Fixture {
    let db = Fixture::created();
    let open = kstone_api::Database::open(db.dir.path().join("my.db")).unwrap();
    for (i, sort) in ["", "a", "b", "b\0", "c", "\u{1b}[31m", "z"].iter().enumerate() {
        open.put(("p", *sort), kstone_api::ItemBuilder::new().number("i", i as u64)).unwrap();
    }
    for i in 0..5u64 {
        open.put(format!("q{i}"), kstone_api::ItemBuilder::new().number("i", i)).unwrap();
    }
    open.close().unwrap();
    db
}

#[test]
fn pages_together_are_the_whole() {
    let db = items();
    let even = ["--filter", "i IN (:0, :2, :4, :6)", "--value", ":0=0", "--value", ":2=2"];
    let even = [&even[..], &["--value", ":4=4", "--value", ":6=6"]].concat();
    for format in ["table", "json", "jsonl"] {
        for (read, items) in [
            (&["scan", "my.db"][..], 12),
            (&["scan", "my.db", "--prefix", "q"], 5),
            (&["scan", "my.db", "--keys-only"], 12),
            (&["query", "my.db", "p"], 7),
            (&["query", "my.db", "p", "--reverse"], 7),
            (&["query", "my.db", "p", "--sort-from", "a", "--sort-to", "c"], 4),
        ] {
            let (whole, token) = page(&db, read, format);
            assert_eq!(token, None);
            let whole = lines(&whole, format);
            assert_eq!(whole.len(), items);
            for (paged, pages) in [
                (&["--limit", "3"][..], items.div_ceil(3)),
                (&["--examine", "5"], items.div_ceil(5)),
                (&["--limit", "4", "--examine", "2"], items.div_ceil(2)),
                // No more, and exactly as many as there are: one page.
                (&["--limit", "1000000000000"], 1),
                (&["--limit", &items.to_string()], 1),
            ] {
                let walked = walk(&db, &[read, paged].concat(), format);
                assert_eq!(walked, (whole.clone(), pages), "{read:?} {paged:?} as {format}");
            }
            let filtered = lines(&page(&db, &[read, &even].concat(), format).0, format);
            assert!(!filtered.is_empty() && filtered.len() < whole.len());
            // A page may be empty: none of the items that were looked at met the filter.
            for paged in [&["--limit", "1"][..], &["--examine", "1"], &["--limit", "2", "--examine", "3"]] {
                let (walked, pages) = walk(&db, &[read, &even, paged].concat(), format);
                assert_eq!(walked, filtered, "{read:?} {paged:?} as {format}");
                assert!(pages > 1);
            }
        }
    }
}

#[test]
fn a_token_is_printed_where_it_disturbs_nobody() {
    let db = items();
    let (out, token) = page(&db, &["query", "my.db", "p", "--limit", "1"], "table");
    assert!(out.starts_with("KEY") && token.is_some_and(|token| token.starts_with("AQ")), "{out}");
    let document = db.stdout(&["query", "my.db", "p", "--limit", "1", "--format", "json"]);
    let document: Json = serde_json::from_str(&document).unwrap();
    let names: Vec<_> = document.as_object().unwrap().keys().collect();
    assert_eq!(names, ["items", "next", "schema"]);
    // Without limits, at the end, and for stripes there is none; and no page is the first.
    for args in [
        &["query", "my.db", "p"][..],
        &["scan", "my.db", "--limit", "0"],
        &["scan", "my.db", "--limit", "12"],
    ] {
        assert_eq!(page(&db, args, "table").1, None);
        assert_eq!(db.json(args).as_object().unwrap().len(), 2);
    }
    for stripe in 0..256 {
        if stripe % 16 == 0 {
            db.stdout(&["scan", "my.db", "--stripe", &stripe.to_string(), "--limit", "1"]);
        }
    }
}

#[test]
fn a_token_stays_valid_when_items_are_written() {
    let db = items();
    let (_, token) = page(&db, &["query", "my.db", "p", "--limit", "3"], "jsonl");
    let token = token.unwrap();
    // The item at which it was made goes, and others come before and after it.
    db.run(&["delete", "my.db", "p", "a"]).assert().success();
    for sort in ["0", "b1"] {
        db.run(&["put", "my.db", "p", sort, "{}"]).assert().success();
    }
    db.run(&["compact", "my.db"]).assert().success();
    let (whole, _) = page(&db, &["query", "my.db", "p"], "jsonl");
    let (rest, _) = page(&db, &["query", "my.db", "p", "--after", &token], "jsonl");
    assert!(whole.ends_with(&rest) && rest.contains("b1") && !rest.contains("\"0\""), "{rest}");
    // Limits, filters and projections may differ.
    db.run(&["query", "my.db", "p", "--after", &token, "--filter", "item_exists()", "--project", "i"])
        .assert()
        .success();
}

#[test]
fn tokens_of_other_queries_and_no_tokens_are_usage_errors() {
    let db = items();
    let token = |args: &[&str]| page(&db, args, "json").1.unwrap();
    let scan = token(&["scan", "my.db", "--limit", "1"]);
    let query = token(&["query", "my.db", "p", "--limit", "1"]);
    let hint = "hint: repeat the command that printed it, and add --after\n";
    let other = "error: invalid token: it belongs to another query\n";
    for (args, after) in [
        (&["scan", "my.db"][..], &query),
        (&["scan", "my.db", "--prefix", "q"], &scan),
        (&["query", "my.db", "p"], &scan),
        (&["query", "my.db", "q0"], &query),
        (&["query", "my.db", "p", "--sort-from", "a"], &query),
        (&["query", "my.db", "p", "--sort-prefix", ""], &query),
    ] {
        let args = [args, &["--after", after]].concat();
        db.run(&args).assert().code(2).stdout(is_empty()).stderr(format!("{other}{hint}"));
    }
    db.run(&["query", "my.db", "p", "--reverse", "--after", &query])
        .assert()
        .code(2)
        .stderr(format!("error: invalid token: it belongs to a query in the other direction\n{hint}"));
    let last = if query.ends_with('A') { "B" } else { "A" };
    let damaged = format!("{}{last}", &query[..query.len() - 1]);
    let long = "A".repeat(120_000);
    let short = &query[..query.len() / 2];
    for text in ["", "nonsense", "A A", "AQ==", "\u{1b}[31m", &format!("{query}="), &damaged, short, &long] {
        db.run(&["query", "my.db", "p", "--after", text])
            .assert()
            .code(2)
            .stdout(is_empty())
            .stderr(contains("error: invalid token: ").and(contains(hint)));
        let output = db.run(&["scan", "my.db", "--format", "json", "--after", text]).assert().code(2);
        let error: Json = serde_json::from_slice(&output.get_output().stderr).unwrap();
        assert_eq!(error["error"]["code"], json!("invalid_token"));
    }
    db.run(&["query", "my.db", "p", "--limit", "-1"]).assert().code(2);
}
