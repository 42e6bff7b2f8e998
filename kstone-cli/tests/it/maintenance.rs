//! `verify` and `repair` as people read them: statements about files are true, and the numbers add up.

use std::path::Path;

use kstone_api::{Database, LsmEngine, WriteOptions};
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use serde_json::{Value as Json, json};

use crate::{Fixture, flushed, ssts};

fn logs(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|ext| ext == "log")).collect()
}

fn printed(output: &[u8]) -> Json {
    serde_json::from_slice(output).unwrap()
}

/// Symptom: `repair --yes` after a lost log printed `nothing is wrong, nothing was changed` and exited with 6, although
/// it changed the manifest and the item was lost. Cause: the text depended on the files acted on, and a missing file is
/// not one. Fix: it depends on the changes, which are listed file by file.
#[test]
fn a_lost_log_is_told_in_every_form() {
    let db = Fixture::created();
    for value in [r#"{"v":1}"#, r#"{"v":2}"#] {
        db.run(&["put", "my.db", "a", value]).assert().success();
    }
    let path = db.dir.path().join("my.db");
    logs(&path).iter().for_each(|log| std::fs::remove_file(log).unwrap());
    db.run(&["verify", "my.db"])
        .assert()
        .code(3)
        .stdout(contains("operations after sequence 0 and before 3 may be lost"));
    for (form, changes) in [
        (&["--dry-run"][..], false),
        (&["--into", "new.db", "--dry-run"], false),
        (&["--into", "new.db"], false),
        (&["--yes"], true),
    ] {
        let again = [&["repair", "my.db", "--format", "json"], form].concat();
        let text = [&["repair", "my.db"], form].concat();
        let told = contains("up to 2 operations of unknown keys may be lost, after sequence 0 and before 3")
            .and(contains("in all: 1 gap in the log, up to 2 operations"))
            .and(contains("0 keys").not());
        let manifest = std::fs::read(path.join("MANIFEST")).unwrap();
        let output = if form == ["--yes"] {
            db.run(&text).assert().code(6).stdout(told.and(contains("nothing was changed").not()))
        } else {
            let json = db.run(&again).assert().code(6).get_output().stdout.clone();
            let json = printed(&json);
            assert_eq!((&json["log_gaps"], &json["log_operations"]), (&json!(1), &json!(2)), "{json}");
            assert_eq!(json["losses"][0]["before_sequence"], json!(3), "{json}");
            let _ = std::fs::remove_dir_all(db.dir.path().join("new.db"));
            db.run(&text).assert().code(6).stdout(told)
        };
        output.stderr(contains("may"));
        assert_eq!(std::fs::read(path.join("MANIFEST")).unwrap() != manifest, changes, "{form:?}");
    }
    db.run(&["verify", "my.db"]).assert().success();
    assert_eq!(db.stdout(&["repair", "my.db", "--yes"]), "nothing is wrong, nothing was changed\n");
    assert_eq!(db.stdout(&["count", "my.db"]), "0\n");
}

/// Symptom: at an item that cannot be decoded, `scan` and `query` exited with 2 and `get` with 3, while `verify`,
/// `count` and `repair` found nothing. Cause: it was reported as an input error, and only the engine's bytes were
/// checked. Fix: it is damage wherever it is met, and `verify` and `repair` decode items.
#[test]
fn an_item_that_cannot_be_decoded_is_damage_to_all() {
    for flush in [true, false] {
        let db = Fixture::airports();
        let path = db.dir.path().join("my.db");
        let open = Database::open(&path).unwrap();
        let engine: &LsmEngine = open.engine();
        let key = kstone_api::Key::from(("US", "KXXX"));
        engine.put(&key, b"\x01no item", WriteOptions::new()).unwrap();
        if flush {
            open.flush().unwrap();
        }
        open.close().unwrap();
        let get = ["get", "my.db", "US", "KXXX"];
        let commands: [&[&str]; 12] = [
            &get,
            &["get", "my.db", "US", "KXXX", "--project", "city"],
            &["scan", "my.db"],
            &["scan", "my.db", "--project", "city"],
            &["scan", "my.db", "--filter", "attribute_exists(city)", "--keys-only"],
            &["query", "my.db", "US"],
            &["query", "my.db", "US", "--filter", "attribute_exists(city)", "--limit", "3"],
            &["put", "my.db", "US", "KXXX", "{}", "--if", "attribute_exists(city)"],
            &["update", "my.db", "US", "KXXX", "REMOVE city"],
            &["delete", "my.db", "US", "KXXX", "--if", "attribute_exists(city)"],
            &["count", "my.db"],
            &["verify", "my.db"],
        ];
        for command in commands {
            let assert = db.run(command).assert().code(3);
            assert.stderr(contains("damage").or(contains("cannot be decoded")));
        }
        let file = if flush { ".sst" } else { "wal-" };
        db.run(&get).assert().stderr(contains(file).and(contains("KXXX")));
        db.run(&["verify", "my.db", "--quick"]).assert().success();
        db.run(&["repair", "my.db", "--dry-run"]).assert().code(6).stdout(contains("\"US KXXX\"   lost"));
        db.run(&["repair", "my.db", "--yes"]).assert().code(6).stdout(contains("in all: 1 key lost\n"));
        db.run(&["verify", "my.db"]).assert().success();
        assert_eq!(db.stdout(&["count", "my.db"]), "3\n");
        db.run(&get).assert().code(1);
    }
}

/// Symptom: after a kill, `verify` printed a line for each of 220 orphaned files. Cause: each is a finding. Fix: a
/// table sums them up; JSON lists them.
#[test]
fn what_a_crash_left_over_is_one_line() {
    let db = flushed();
    let sst = ssts(&db).remove(0);
    for n in 0..220 {
        std::fs::copy(&sst, db.dir.path().join(format!("my.db/007-{:06}.sst", 500 + n))).unwrap();
    }
    let text = db.stdout(&["verify", "my.db"]);
    assert_eq!(text.lines().filter(|line| line.starts_with("WARN")).count(), 1, "{text}");
    assert!(text.contains("220 files not in the manifest, "), "{text}");
    let json = db.json(&["verify", "my.db"]);
    assert_eq!(json["findings"].as_array().unwrap().len(), 220);
    assert_eq!(json["clean"], json!(true));
}

/// Symptom: the directory that a repair creates was reported as a foreign file for ever. Cause: its name was not among
/// the known names. Fix: it is.
#[test]
fn the_quarantine_is_ours() {
    let db = flushed();
    let sst = ssts(&db).remove(0);
    let mut bytes = std::fs::read(&sst).unwrap();
    bytes[140] ^= 1;
    std::fs::write(&sst, bytes).unwrap();
    let verified = db.run(&["verify", "my.db"]).assert().code(3).get_output().stdout.clone();
    let text = String::from_utf8(verified).unwrap();
    let all = ssts(&db).len();
    assert!(
        text.contains(&format!("{all} SSTs: {} good, 1 bad (1 bad block), 0 missing", all - 1)),
        "{text}"
    );
    db.run(&["repair", "my.db", "--yes"]).assert().code(6);
    assert!(db.dir.path().join("my.db/quarantine").is_dir());
    assert!(!db.stdout(&["verify", "my.db"]).contains("WARN"));
    assert!(!db.stdout(&["info", "my.db"]).contains("foreign"));
    db.run(&["create", "my.db"]).assert().failure().stdout(is_empty());
}

/// Symptom: `979 SSTs`, then `795 good, 0 bad, 0 missing` for a database that a program was writing to. Cause: SSTs
/// merged away meanwhile were not counted. Fix: they are, and the SSTs that replaced them are checked.
#[test]
fn the_sums_of_a_verify_add_up_while_it_is_written_to() {
    let db = Fixture::created();
    let open = Database::open(db.dir.path().join("my.db")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for _ in 0..400 {
                    let item = kstone_api::ItemBuilder::new().number("n", n as i64);
                    open.put(format!("k{}", n % 1000), item).unwrap();
                    n += 1;
                }
                open.flush().unwrap();
                open.compact_all().unwrap();
            }
        });
        for _ in 0..10 {
            let json = db.json(&["verify", "my.db"]);
            let sum: u64 = ["good", "bad", "missing", "replaced", "unread"]
                .iter()
                .map(|part| json[part].as_u64().unwrap())
                .sum();
            assert_eq!(json["ssts"].as_u64(), Some(sum), "{json}");
            assert_eq!((&json["clean"], &json["live"]), (&json!(true), &json!(true)), "{json}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
