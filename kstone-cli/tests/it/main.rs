//! Runs the binary as its users do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests, which inspect files from outside"
)]

mod advise;
mod broken;
mod expressions;
mod full;
mod hostile_names;
mod import;
mod inspect;
mod pages;
mod readme;
mod terminal;
mod transfer;
mod transfer_forms;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use assert_cmd::Command;
use flate2::Compression;
use flate2::write::GzEncoder;
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

const AIRPORTS: &str = r#"{"country":"US","icao":"KJFK","city":"New York","lat":40.639928,"elevation":13}
{"country":"US","icao":"KJFC","city":"Cotulla","lat":28.45,"elevation":477}

{"country":"NL","icao":"EHAM","city":"Amsterdam","lat":52.308056,"elevation":-11}
"#;

mod maintenance;
mod operate;

struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With an empty database.
    fn created() -> Self {
        let fixture = Self::new();
        fixture.run(&["create", "my.db"]).assert().success();
        fixture
    }

    /// With the airports imported.
    fn airports() -> Self {
        let fixture = Self::new();
        fixture.file("a.jsonl", AIRPORTS.as_bytes());
        fixture
            .run(&["import", "my.db", "a.jsonl", "--key-attr", "country", "--sort-attr", "icao", "--create"])
            .assert()
            .success();
        fixture
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn run(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("kstone").unwrap();
        command.current_dir(self.dir.path()).args(args).env_remove("NO_COLOR");
        command
    }

    fn stdout(&self, args: &[&str]) -> String {
        let output = self.run(args).assert().success().stderr(is_empty()).get_output().clone();
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Json {
        let args = [args, &["--format", "json"]].concat();
        serde_json::from_str(&self.stdout(&args)).unwrap()
    }
}

#[test]
fn put_get_delete_and_the_clear_no() {
    let db = Fixture::created();
    db.run(&["put", "my.db", "user#42", r#"{"name":"Ann","n":1.10}"#]).assert().success().stdout(is_empty());
    db.run(&["put", "my.db", "user#42", "a sort", "-"]).write_stdin("{\"x\":[1]}\n").assert().success();
    assert_eq!(db.stdout(&["get", "my.db", "user#42"]), "{\"n\":1.10,\"name\":\"Ann\"}\n");
    assert_eq!(
        db.json(&["get", "my.db", "user#42", "a sort"]),
        json!({"schema": "kstone.item/1", "key": "user#42", "sort": "a sort", "item": {"x": [1]}})
    );
    db.run(&["delete", "my.db", "user#42"]).assert().success();
    for verb in ["get", "delete"] {
        db.run(&[verb, "my.db", "user#42"])
            .assert()
            .code(1)
            .stdout(is_empty())
            .stderr("error: there is no item under user#42\n");
    }
    assert_eq!(db.stdout(&["count", "my.db"]), "1\n");
}

#[test]
fn explain_tells_the_steps_of_a_read() {
    let db = Fixture::airports();
    let text = db.stdout(&["explain", "get", "my.db", "US", "KJFK"]);
    assert!(text.starts_with("get \"US\" \"KJFK\"   6 bytes\n  stripe ") && text.contains("FOUND"), "{text}");
    assert!(text.contains("\nresult: item, ") && text.contains("\ncost: 0 runs in the stripe"), "{text}");
    assert!(db.stdout(&["explain", "get", "my.db", "XX"]).contains("result: no such key"));
    let json = db.json(&["explain", "get", "my.db", "US", "KJFK"]);
    assert_eq!(
        (&json["schema"], &json["memtables"][0]["found"]),
        (&json!("kstone.explain_get/1"), &json!(true))
    );

    let text = db.stdout(&["explain", "query", "my.db", "US", "--sort-prefix", "KJ"]);
    assert!(text.contains("result: 2 items of 2 records read"), "{text}");
    let json = db.json(&["explain", "query", "my.db", "US"]);
    assert_eq!((&json["schema"], &json["rows"]), (&json!("kstone.explain_query/1"), &json!(2)));
    db.run(&["explain", "get", "none.db", "k"]).assert().code(4).stdout(is_empty());
    db.run(&["explain", "my.db", "k"]).assert().code(2);
}

#[test]
fn usage_is_2() {
    let db = Fixture::created();
    db.run(&["improt", "my.db"]).assert().code(2).stderr(contains("import"));
    db.run(&[]).assert().code(2);
    db.run(&["get", "my.db", "\\q"]).assert().code(2).stderr(contains("backslash"));
    db.run(&["put", "my.db", "k\\q", "{}"]).assert().code(2);
    db.run(&["put", "my.db", "k", "{"]).assert().code(2).stderr(starts_with("error: invalid item: "));
    db.run(&["put", "my.db", "k", "{\"a\":1e999}"]).assert().code(2).stderr(contains("attribute \"a\""));
    db.run(&["put", "my.db", "", "{}"]).assert().code(2).stderr(contains("hint: "));
    db.run(&["query", "my.db", "p", "--sort-prefix", "a", "--sort-to", "b"]).assert().code(2);
    db.run(&["scan", "my.db", "--stripe", "256"]).assert().code(2);
}

#[test]
fn corruption_is_3() {
    let db = Fixture::airports();
    for entry in std::fs::read_dir(db.dir.path().join("my.db")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("MANIFEST") {
            let mut bytes = std::fs::read(&path).unwrap();
            let half = bytes.len() / 2;
            bytes[half..].iter_mut().for_each(|byte| *byte ^= 0x5a);
            std::fs::write(&path, bytes).unwrap();
        }
    }
    db.run(&["count", "my.db"]).assert().code(3).stderr(starts_with("error: "));
}

#[test]
fn the_environment_is_4() {
    let db = Fixture::created();
    db.run(&["info", "none.db"])
        .assert()
        .code(4)
        .stderr("error: none.db does not exist\nhint: kstone create none.db creates one\n");
    db.run(&["create", "my.db"]).assert().code(4).stderr(starts_with("error: my.db already exists"));
    db.run(&["import", "new.db", "none.jsonl", "--key-attr", "k", "--create"])
        .assert()
        .code(4)
        .stderr(contains("none.jsonl"));
    assert!(!db.dir.path().join("new.db").exists());
    db.file("text", b"x");
    db.run(&["info", "./text"]).assert().code(4).stderr(contains("not a KeystoneDB database"));
}

#[test]
fn locked_is_5() {
    let db = Fixture::created();
    let open = kstone_api::Database::open(db.dir.path().join("my.db")).unwrap();
    db.run(&["put", "my.db", "k", "{}"]).assert().code(5).stderr(starts_with("error: my.db is in use"));
    db.run(&["put", "my.db", "k", "{}", "--format", "json"])
        .assert()
        .code(5)
        .stderr(contains("\"code\":\"locked\""));
    // In place or not, a repair requires that nothing writes to the database. A verify does not.
    for how in [&["--yes"][..], &["--dry-run"], &["--into", "new.db"]] {
        let repair = [&["repair", "my.db"], how].concat();
        db.run(&repair).assert().code(5).stdout(is_empty()).stderr(starts_with("error: my.db is in use"));
    }
    assert!(!db.dir.path().join("new.db").exists() && !db.dir.path().join("my.db/quarantine").exists());
    assert!(db.stdout(&["verify", "my.db"]).contains("in use by another process"));
    // Reading works meanwhile.
    assert_eq!(db.stdout(&["count", "my.db"]), "0\n");
    drop(open);
    db.run(&["put", "my.db", "k", "{}"]).assert().success();
}

/// This process writes without a pause while the command, another process, makes one backup after another.
#[test]
fn backups_of_a_database_that_another_process_writes_to_are_whole() {
    let db = Fixture::created();
    let open = kstone_api::Database::open(db.dir.path().join("my.db")).unwrap();
    // The writer pauses only while the copies are checked.
    let (written, stop, rest) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                let item = kstone_api::ItemBuilder::new().number("n", n);
                open.put(format!("n-{n}").into_bytes(), item).unwrap();
                written.store(n + 1, Ordering::SeqCst);
                while rest.load(Ordering::SeqCst) && !stop.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                if n % 3000 == 2999 {
                    open.flush().unwrap();
                }
            }
        });
        let _stop = StopWhenDropped(&stop);
        let (mut ssts, mut beside) = (0, 0);
        for round in 0..3 {
            rest.store(false, Ordering::SeqCst);
            let until = written.load(Ordering::SeqCst) + 2000;
            while written.load(Ordering::SeqCst) < until {
                std::thread::yield_now();
            }
            let copy = format!("copy{round}.db");
            let mut args = vec!["backup", "my.db", &copy];
            args.extend((round % 2 == 1).then_some("--copy"));
            let before = written.load(Ordering::SeqCst);
            let report = db.json(&args);
            let after = written.load(Ordering::SeqCst);
            rest.store(true, Ordering::SeqCst);
            beside += after - before;
            ssts += report["ssts"].as_u64().unwrap();
            let count: u64 = db.stdout(&["count", &copy]).trim().parse().unwrap();
            assert!((before..=after + 1).contains(&count), "{count}, between {before} and {after}");
            // A consistent snapshot: none of the lower numbers is missing.
            db.run(&["get", &copy, &format!("n-{}", count - 1)]).assert().success();
            db.run(&["verify", &copy]).assert().success();
            db.run(&["put", &copy, "k", "{}"]).assert().success();
        }
        println!("3 backups by another process, {ssts} SSTs, {beside} items written meanwhile");
        assert!(ssts > 0 && beside > 0, "{ssts} SSTs, {beside} items written meanwhile");
    });
}

struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_backup_is_a_database_made_beside_a_program_that_writes() {
    let db = Fixture::airports();
    let open = kstone_api::Database::open(db.dir.path().join("my.db")).unwrap();
    open.flush().unwrap();
    let text = db.stdout(&["backup", "my.db", "copy.db"]);
    assert!(text.starts_with("copy.db   ") && text.contains(" SSTs, 2 linked   log "), "{text}");
    assert_eq!(db.stdout(&["count", "copy.db"]), "3\n");
    let json = db.json(&["backup", "my.db", "second.db", "--copy"]);
    assert_eq!(
        (&json["schema"], &json["path"], &json["ssts"], &json["linked"]),
        (&json!("kstone.backup/1"), &json!("second.db"), &json!(2), &json!(0))
    );
    db.run(&["backup", "my.db", "copy.db"])
        .assert()
        .code(4)
        .stderr("error: copy.db already exists: it is a database\nhint: choose a path that does not exist, or an empty directory\n");
    db.run(&["backup", "my.db", "my.db/copy"]).assert().code(2).stderr(contains("lies in the database"));
    db.run(&["backup", "none.db", "third.db"]).assert().code(4);
    drop(open);
    db.run(&["put", "copy.db", "k", "{}"]).assert().success();
    assert_eq!(
        (db.stdout(&["count", "copy.db"]), db.stdout(&["count", "my.db"])),
        ("4\n".into(), "3\n".into())
    );
}

#[test]
fn import_reads_plain_and_gzipped_lines() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(AIRPORTS.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let db = Fixture::new();
    db.file("a.jsonl.gz", &gzip);
    let import = ["--key-attr", "country", "--sort-attr", "icao", "--create"];
    for (name, file) in [("plain.db", "-"), ("gz.db", "a.jsonl.gz"), ("pipe.db", "-")] {
        let mut command = db.run(&[&["import", name, file], import.as_slice()].concat());
        command.write_stdin(if name == "pipe.db" { gzip.clone() } else { AIRPORTS.into() });
        command.assert().success().stdout("imported 3 items\n").stderr(is_empty());
        assert_eq!(
            db.stdout(&["get", name, "NL", "EHAM"]),
            r#"{"city":"Amsterdam","country":"NL","elevation":-11,"icao":"EHAM","lat":52.308056}"#.to_owned()
                + "\n"
        );
        assert_eq!(db.json(&["count", name]), json!({"schema": "kstone.count/1", "items": 3}));
    }
    // Numbers become keys as their text; a second import replaces items.
    db.run(&["import", "gz.db", "a.jsonl.gz", "--key-attr", "elevation"]).assert().success();
    assert!(db.stdout(&["get", "gz.db", "--", "-11"]).contains("Amsterdam"));
}

#[test]
fn import_rejects_bad_lines() {
    let db = Fixture::created();
    let lines = "{\"k\":\"a\"}\nnonsense\n{\"k\":true}\n{\"x\":1}\n{\"k\":\"\"}\n{\"k\":\"a\",\"n\":1e999}\n\
                 \u{0}\n{\"k\":\"b\"}";
    db.file("bad.jsonl", lines.as_bytes());
    db.run(&["import", "my.db", "bad.jsonl", "--key-attr", "k", "--on-error", "skip"])
        .assert()
        .code(6)
        .stdout("imported 2 items, rejected 6 lines\n")
        .stderr(contains("warning: line 2: ").and(contains("warning: line 3: attribute \"k\" is neither")))
        .stderr(contains("error: 6 lines not imported"));
    assert_eq!(
        db.stdout(&["scan", "my.db", "--keys-only", "--format", "jsonl"]),
        "{\"key\":\"a\"}\n{\"key\":\"b\"}\n"
    );
    db.run(&["import", "my.db", "bad.jsonl", "--key-attr", "k"])
        .assert()
        .code(6)
        .stdout("imported 1 item, 1 replaced\n")
        .stderr(starts_with("error: line 2: ").and(contains("hint: ")));
    // Invalid gzip data, and a truncated file.
    db.file("cut.gz", &[0x1f, 0x8b, 8, 0]);
    db.run(&["import", "my.db", "cut.gz", "--key-attr", "k"]).assert().code(4).stderr(starts_with("error: "));
}

#[test]
fn large_imports_take_many_batches() {
    let db = Fixture::new();
    let lines: String =
        (0..3000).map(|i| format!("{{\"k\":{i},\"text\":\"{}\"}}\n", "x".repeat(i % 50))).collect();
    db.run(&["import", "my.db", "--key-attr", "k", "--create"])
        .write_stdin(lines)
        .assert()
        .success()
        .stdout("imported 3,000 items\n");
    assert_eq!(db.stdout(&["count", "my.db"]), "3000\n");
    assert_eq!(
        db.stdout(&["scan", "my.db", "--prefix", "299", "--keys-only", "--format", "jsonl"]).lines().count(),
        11
    );
    let by_stripe: usize = (0..256)
        .step_by(64)
        .map(|n| {
            db.stdout(&["scan", "my.db", "--stripe", &n.to_string(), "--format", "jsonl"]).lines().count()
        })
        .sum();
    assert!((1..200).contains(&by_stripe), "{by_stripe}");
    assert!(db.stdout(&["compact", "my.db"]).contains("stripes compacted"));
    assert_eq!(db.stdout(&["count", "my.db"]), "3000\n");
    // A second run would gain nothing, and writes nothing.
    let before = ssts(&db);
    let again = db.stdout(&["compact", "my.db"]);
    assert!(again.starts_with("0 of 256 stripes compacted, 256 already compact   256 → 256 SSTs"), "{again}");
    assert_eq!(ssts(&db), before);
    let json = db.json(&["compact", "my.db", "--stripe", "7"]);
    assert_eq!((&json["stripes"], &json["skipped"]), (&json!(0), &json!(1)));
    db.run(&["compact", "my.db", "--stripe", "256"]).assert().code(2);
    // A delete leaves a tombstone, which a compaction of that stripe removes.
    db.run(&["delete", "my.db", "7"]).assert().success();
    assert_eq!(db.json(&["compact", "my.db"])["stripes"], 1);
}

#[test]
fn queries_and_scans() {
    let db = Fixture::airports();
    let keys = |args: &[&str]| {
        let items = db.json(args);
        assert_eq!(items["schema"], "kstone.items/1");
        let sorts =
            items["items"].as_array().unwrap().iter().map(|item| item["sort"].as_str().unwrap().to_owned());
        sorts.collect::<Vec<_>>()
    };
    assert_eq!(keys(&["query", "my.db", "US"]), ["KJFC", "KJFK"]);
    assert_eq!(keys(&["query", "my.db", "US", "--reverse", "--limit", "1"]), ["KJFK"]);
    assert_eq!(keys(&["query", "my.db", "US", "--sort-prefix", "KJFC"]), ["KJFC"]);
    assert_eq!(keys(&["query", "my.db", "US", "--sort-from", "KJFD", "--sort-to", "KZ"]), ["KJFK"]);
    assert_eq!(keys(&["query", "my.db", "XX"]), [""; 0]);
    assert_eq!(keys(&["scan", "my.db"]), ["EHAM", "KJFC", "KJFK"]);
    assert_eq!(keys(&["scan", "my.db", "--prefix", "U", "--limit", "1"]), ["KJFC"]);
    let table = db.stdout(&["query", "my.db", "US"]);
    let mut lines = table.lines();
    let words = |line: Option<&str>| line.unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines.next()), ["KEY", "SORT", "ITEM"]);
    assert_eq!(words(lines.next())[..2], ["US", "KJFC"]);
    assert_eq!(db.stdout(&["query", "my.db", "XX"]), "");
}

#[test]
fn printed_keys_can_be_pasted_back() {
    let db = Fixture::created();
    for (i, key) in
        ["a b", "\\x00\\xff7", "C:\\\\dir", "Zürich", "\\x0a", "-dash", "\\xe2\\x80\\xae"].iter().enumerate()
    {
        let item = format!("{{\"i\":{i}}}");
        db.run(&["put", "my.db", "--", key, &item]).assert().success();
        assert_eq!(db.stdout(&["get", "my.db", "--", key]), format!("{item}\n"));
    }
    for line in db.stdout(&["scan", "my.db", "--format", "jsonl"]).lines() {
        let entry: Json = serde_json::from_str(line).unwrap();
        let item = db.stdout(&["get", "my.db", "--", entry["key"].as_str().unwrap()]);
        assert_eq!(item.trim(), entry["item"].to_string());
    }
}

#[test]
fn info_is_the_command_of_a_path_alone() {
    let db = Fixture::airports();
    let info = db.stdout(&["my.db"]);
    assert_eq!(info, db.stdout(&["info", "my.db"]));
    assert!(info.starts_with("my.db   KeystoneDB format 1   256 stripes\n"), "{info}");
    for line in ["items        ~ 3 ", "disk  ", "SSTs  ", "durability   buffered", "health       good"] {
        assert!(info.contains(line), "{info}");
    }
    let json = db.json(&["my.db"]);
    assert_eq!(json["schema"], "kstone.info/1");
    assert_eq!(json["items_estimate"], 3);
    assert_eq!(json["stripe_count"], 256);
}

#[test]
fn errors_are_json_when_results_are() {
    let db = Fixture::new();
    let output = db.run(&["get", "none.db", "k", "--format", "jsonl"]).assert().code(4).get_output().clone();
    let error: Json = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["code"], "not_found");
    assert!(error["error"]["message"].as_str().unwrap().contains("none.db"));
    assert!(error["error"]["hint"].is_string());
}

#[test]
fn colour_is_for_terminals_or_on_demand() {
    let db = Fixture::new();
    let escape = "\u{1b}[";
    db.run(&["info", "none.db"]).assert().stderr(contains(escape).not());
    db.run(&["info", "none.db", "--color", "always"]).assert().stderr(contains(escape));
    db.run(&["info", "none.db"]).env("CLICOLOR_FORCE", "1").assert().stderr(contains(escape));
    db.run(&["info", "none.db", "--color", "never"])
        .env("CLICOLOR_FORCE", "1")
        .assert()
        .stderr(contains(escape).not());
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let db = Fixture::new();
    let lines: String = (0..20_000).map(|i| format!("{{\"k\":{i},\"x\":\"{i:0100}\"}}\n")).collect();
    db.run(&["import", "my.db", "--key-attr", "k", "--create"]).write_stdin(lines).assert().success();
    for format in ["table", "json", "jsonl"] {
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("kstone"))
            .current_dir(db.dir.path())
            .args(["scan", "my.db", "--format", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{format}: {output:?}");
        assert!(output.stderr.is_empty(), "{format}: {output:?}");
    }
}

#[test]
fn presets_are_code_to_paste() {
    let db = Fixture::new();
    let list = db.stdout(&["presets"]);
    let names: Vec<_> = list.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    let all = kstone_api::Preset::all();
    assert_eq!(names, all.iter().map(|preset| preset.name).collect::<Vec<_>>());
    let one = db.stdout(&["presets", "read-heavy"]);
    assert!(one.starts_with("// read-heavy: ") && one.contains(".with_sst_threshold(5)"), "{one}");
    let json = db.json(&["presets"]);
    assert_eq!(
        (&json["schema"], &json["presets"][0]["name"]),
        (&json!("kstone.presets/1"), &json!(names[0]))
    );
    assert_eq!(db.stdout(&["presets", "--format", "jsonl"]).lines().count(), names.len());
    let code = db.json(&["presets", "batch"])["preset"]["rust_code"].clone();
    assert!(code.as_str().unwrap().contains("CompactionConfig::disabled()"), "{code}");
    db.run(&["presets", "fastest"]).assert().code(2).stderr(contains("read-heavy"));
}

#[test]
fn info_tells_of_the_quota_and_of_settings_that_old_files_lack() {
    let db = Fixture::airports();
    let config = kstone_api::DatabaseConfig::new().with_max_total_disk_bytes(64 << 20);
    let open =
        kstone_api::Database::builder(db.dir.path().join("my.db")).config(config.clone()).open().unwrap();
    open.flush().unwrap();
    open.set_config(config.with_bloom_bits_per_key(16)).unwrap();
    open.close().unwrap();
    let info = db.stdout(&["info", "my.db"]);
    assert!(info.contains(" of 64.0 MiB limit "), "{info}");
    assert!(info.contains("pending      bloom_bits_per_key: 2 SSTs, "), "{info}");
    let json = db.json(&["info", "my.db"]);
    assert_eq!(json["disk"]["limit"], 64 << 20);
    let pending = &json["pending_rewrites"][0];
    assert_eq!((&pending["setting"], &pending["ssts"]), (&json!("bloom_bits_per_key"), &json!(2)));
    db.run(&["compact", "my.db"]).assert().success();
    assert!(!db.stdout(&["info", "my.db"]).contains("pending"));
}

#[test]
fn events_are_read_from_files_oldest_first() {
    let db = Fixture::airports();
    db.run(&["compact", "my.db"]).assert().success();
    let kinds = |args: &[&str]| {
        let events = db.json(&[&["events", "my.db"], args].concat());
        assert_eq!(events["schema"], "kstone.events/1");
        let events = events["events"].as_array().unwrap().clone();
        events.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(kinds(&[]).contains(&"flush".into()), "{:?}", kinds(&[]));
    // A rotated file, a truncated line, and a kind that this version does not know.
    let path = |name: &str| format!("my.db/{name}");
    db.file(
        &path("EVENTS.jsonl.1"),
        b"{\"seq\":1,\"unix_ms\":1700000000000,\"event\":\"stall\",\"reason\":\"runs\"}\n",
    );
    let lines = "{\"seq\":2,\"unix_ms\":1700000000001,\"event\":\"melted\",\"where\":\"here\"}\n{\"seq\":3,\"un\n\
                 {\"seq\":4,\"unix_ms\":1700000001000,\"event\":\"flush\",\"stripe\":3,\"nanos\":2100000}\n";
    db.file(&path("EVENTS.jsonl"), lines.as_bytes());
    assert_eq!(kinds(&[]), ["stall", "melted", "flush"]);
    assert_eq!(kinds(&["--limit", "2"]), ["melted", "flush"]);
    assert_eq!(kinds(&["--kind", "stall,flush"]), ["stall", "flush"]);
    assert_eq!(kinds(&["--kind", "flush", "--kind", "stall", "--limit", "1"]), ["flush"]);
    let table = db.stdout(&["events", "my.db"]);
    assert_eq!(
        table,
        "TIME                      EVENT   DETAILS\n\
         2023-11-14T22:13:20.000Z  stall   reason runs\n\
         2023-11-14T22:13:20.001Z  melted  where here\n\
         2023-11-14T22:13:21.000Z  flush   took 2.1ms, stripe 3\n"
    );
    assert_eq!(db.stdout(&["events", "my.db", "--format", "jsonl"]).lines().count(), 3);
    // Also while the database is in use.
    let _open = kstone_api::Database::open(db.dir.path().join("my.db")).unwrap();
    assert_eq!(db.stdout(&["events", "my.db"]), table);
    // A kind that only a newer version knows can be selected too.
    assert_eq!(kinds(&["--kind", "melted"]), ["melted"]);
    assert_eq!(db.stdout(&["events", "my.db", "--kind", "poisoned"]), "");
    db.run(&["events", "my.db", "--kind", "flush,nonsense"]).assert().code(2).stdout(is_empty()).stderr(
        contains("no event kind \"nonsense\"").and(contains("hint: event kinds are opened, flush, ")),
    );
    db.run(&["events", "none.db"]).assert().code(4);
}

/// `STATS.json` with these figures and an old timestamp.
fn snapshot(stats: Json) -> Vec<u8> {
    json!({"schema": "kstone.stats/1", "pid": 4711, "unix_ms": 1, "uptime_ms": 7_860_000, "stats": stats,
           "latencies": {"get": {"count": 5, "p99_nanos": 900}}})
    .to_string()
    .into_bytes()
}

#[test]
fn stats_are_those_of_files_and_of_the_running_program() {
    let db = Fixture::airports();
    let none = db.stdout(&["stats", "my.db"]);
    assert!(none.contains("\nfiles        SSTs 0 B in 0 files of 0 stripes   log "), "{none}");
    assert!(none.ends_with("runtime counters: none (enable with_stats_snapshot_interval)\n"), "{none}");
    assert_eq!(db.json(&["stats", "my.db"])["runtime"], Json::Null);

    let open = kstone_api::Database::open(db.dir.path().join("my.db")).unwrap();
    open.flush().unwrap();
    db.file("my.db/STATS.json", &snapshot(json!({"flushes": 42})));
    let text = db.stdout(&["stats", "my.db"]);
    for part in
        [" old (pid 4711), up 2 h 11 m\n", "\nflushes      42, ", "5 timed", " in 2 files of 2 stripes "]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let json = db.json(&["stats", "my.db"]);
    assert_eq!((&json["schema"], &json["files"]["ssts"]), (&json!("kstone.stats_report/1"), &json!(2)));
    let runtime = &json["runtime"];
    assert_eq!((&runtime["running"], &runtime["snapshot"]["stats"]["flushes"]), (&json!(true), &json!(42)));
    drop(open);

    db.file("my.db/STATS.json", &snapshot(json!({})));
    assert!(db.stdout(&["stats", "my.db"]).contains("of a process that has ended (pid 4711)"));
    db.file("my.db/STATS.json", b"{\"schema\":\"kstone.stats/9\"}");
    db.run(&["stats", "my.db"]).assert().code(4).stderr(contains("STATS.json").and(contains("hint: ")));
    db.run(&["stats", "none.db"]).assert().code(4);
}

#[test]
fn an_alert_is_1() {
    let db = Fixture::created();
    let calm = db.stdout(&["alerts", "my.db"]);
    assert_eq!(calm, "no alerts\nruntime counters: none (enable with_stats_snapshot_interval)\n");
    assert_eq!(db.json(&["alerts", "my.db"])["alerts"], json!([]));

    // An alert from the files: too many runs.
    let path = db.dir.path().join("my.db");
    let item = || kstone_api::ItemBuilder::new().number("n", 1);
    let compaction = kstone_api::CompactionConfig::disabled();
    let open = kstone_api::Database::builder(&path).compaction(compaction).open().unwrap();
    for _ in 0..16 {
        open.put("k", item()).unwrap();
        open.flush().unwrap();
    }
    open.close().unwrap();
    db.run(&["alerts", "my.db"])
        .assert()
        .code(1)
        .stdout(starts_with("High SST count: 16.0 runs per stripe (threshold 15.0)\nruntime counters: none"))
        .stderr("error: 1 alert\n");

    // Alerts from the counters, while the program runs.
    let open = kstone_api::Database::open(&path).unwrap();
    open.put("k", item()).unwrap();
    db.run(&["alerts", "my.db"]).assert().code(1).stdout(starts_with("High SST count: 16.0"));
    db.file("my.db/STATS.json", &snapshot(json!({"p99_read_nanos": 6_000_000, "poisoned": "a sync failed"})));
    let output = db.run(&["alerts", "my.db", "--format", "json"]).assert().code(1).get_output().clone();
    let json: Json = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> = json["alerts"].as_array().unwrap().iter().map(|alert| &alert["name"]).collect();
    assert_eq!(names, ["High SST count", "High read latency", "Writing has stopped"]);
}

/// The paths of a database's SSTs.
fn ssts(db: &Fixture) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(db.dir.path().join("my.db")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut ssts: Vec<_> = paths.filter(|path| path.extension().is_some_and(|ext| ext == "sst")).collect();
    ssts.sort();
    ssts
}

/// With items in SSTs of some stripes.
fn flushed() -> Fixture {
    let db = Fixture::airports();
    db.run(&["compact", "my.db"]).assert().success();
    assert!(!ssts(&db).is_empty());
    db
}

#[test]
fn verify_is_honest_and_its_exit_status_says_it() {
    let db = flushed();
    let text = db.stdout(&["verify", "my.db"]);
    assert!(text.starts_with("verify --deep   ") && text.contains("good, 0 bad, 0 missing"), "{text}");
    assert!(db.stdout(&["verify", "my.db", "--quick"]).contains("NOT READ the blocks of"));
    let json = db.json(&["verify", "my.db"]);
    assert_eq!((&json["schema"], &json["clean"]), (&json!("kstone.verify/1"), &json!(true)));
    assert_eq!(json["ssts"], json["good"]);

    db.file("my.db/notes.txt", b"mine");
    assert!(db.stdout(&["verify", "my.db"]).contains("WARN     notes.txt   foreign"));
    let file = ssts(&db).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[140] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    db.run(&["verify", "my.db"])
        .assert()
        .code(3)
        .stdout(contains("CORRUPT").and(contains("checksum mismatch")).and(contains("1 bad block")))
        .stderr(contains("hint: kstone repair my.db --dry-run"));
    let out = db.run(&["verify", "my.db", "--format", "json"]).assert().code(3).get_output().stdout.clone();
    let json: Json = serde_json::from_slice(&out).unwrap();
    let findings = json["findings"].as_array().unwrap();
    assert!(findings.iter().any(|found| found["kind"] == "block" && found["offset"] == 128), "{json}");
    db.run(&["verify", "none.db"]).assert().code(4).stdout(is_empty());
    db.run(&["verify", "my.db", "--quick", "--deep"]).assert().code(2);
}

#[test]
fn repair_asks_plans_and_tells_what_is_lost() {
    let db = flushed();
    assert_eq!(db.stdout(&["repair", "my.db", "--yes"]), "nothing is wrong, nothing was changed\n");
    let file = ssts(&db).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[140] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    db.run(&["repair", "my.db"]).write_stdin("").assert().code(2).stderr(contains("--yes"));

    let plan = db.run(&["repair", "my.db", "--dry-run", "--report", "lost.jsonl"]).assert().code(6);
    plan.stdout(contains("rewritten from what can be read of it").and(contains("nothing was changed")));
    let lost = std::fs::read_to_string(db.dir.path().join("lost.jsonl")).unwrap();
    let lines: Vec<Json> = lost.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| line["loss"] == "key"), "{lost}");
    db.run(&["verify", "my.db"]).assert().code(3);

    db.run(&["repair", "my.db", "--into", "new.db"]).assert().code(6);
    db.run(&["verify", "new.db"]).assert().success();
    db.run(&["verify", "my.db"]).assert().code(3);

    let done =
        db.run(&["repair", "my.db", "--yes", "--format", "json"]).assert().code(6).get_output().clone();
    let json: Json = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&json["schema"], &json["lost"]), (&json!("kstone.repair/1"), &json!(lines.len())));
    db.run(&["verify", "my.db"]).assert().success();
    let left: usize = db.stdout(&["count", "my.db"]).trim().parse().unwrap();
    assert_eq!(left + lines.len(), 3);
    assert_eq!(db.stdout(&["count", "new.db"]).trim(), left.to_string());
    // The printed key can be typed back, and its item is gone.
    let key = lines[0]["key"].as_str().unwrap();
    let words: Vec<&str> = key.split(' ').collect();
    db.run(&[&["get", "my.db"], words.as_slice()].concat()).assert().code(1);
    assert!(db.dir.path().join("my.db/quarantine").read_dir().unwrap().count() >= 2);
    db.run(&["repair", "none.db", "--yes"]).assert().code(4);
}

/// Losses that a table leaves out are in the report.
#[test]
fn repair_reports_every_loss() {
    let db = Fixture::created();
    let open = kstone_api::Database::open(db.dir.path().join("my.db")).unwrap();
    for n in 0..60 {
        let item = kstone_api::Item::from_json_str("{\"a\":\"some text\"}").unwrap();
        let key = kstone_api::Key::with_sort(&b"partition"[..], format!("s{n:02}").into_bytes());
        open.put(key, &item).unwrap();
    }
    open.flush().unwrap();
    open.close().unwrap();
    for file in ssts(&db) {
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[140] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    let out = db.run(&["repair", "my.db", "--yes", "--report", "lost.jsonl"]).assert().code(6);
    out.stdout(contains("and ").and(contains(" more\n")));
    let left: usize = db.stdout(&["count", "my.db"]).trim().parse().unwrap();
    let lost = std::fs::read_to_string(db.dir.path().join("lost.jsonl")).unwrap();
    assert!(left < 30, "{left}");
    assert_eq!(lost.lines().filter(|line| line.contains("\"loss\":\"key\"")).count(), 60 - left, "{lost}");
}
