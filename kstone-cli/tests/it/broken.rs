//! Commands on a database that is partly damaged: they show what they can, and report what is damaged.

use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use serde_json::{Value as Json, json};

use crate::{Fixture, flushed, ssts};

/// Symptom: one missing or truncated SST made `info`, `alerts` and `get` of unrelated keys fail.
/// Cause: a damaged SST prevented the database from being opened, even for reading.
/// Fix: only reads that need the file fail; everything else is shown, with the damage named, and exit status 3.
#[test]
fn one_damaged_sst_leaves_the_rest_to_be_seen() {
    for missing in [true, false] {
        let db = flushed();
        let sst = ssts(&db).remove(0);
        let name = sst.file_name().unwrap().to_str().unwrap();
        match missing {
            true => std::fs::remove_file(&sst).unwrap(),
            false => std::fs::OpenOptions::new().write(true).open(&sst).unwrap().set_len(100).unwrap(),
        }
        let hint = "hint: kstone verify my.db lists all damage, kstone repair my.db --dry-run what can be \
                    saved; nothing was changed\n";
        let told = || contains("error: my.db/").and(contains(name)).and(contains(hint));
        let info = db.run(&["info", "my.db"]).assert().code(3).stderr(told());
        info.stdout(
            starts_with("my.db   KeystoneDB format 1")
                .and(contains(format!("  damage       my.db/{name} is damaged")))
                .and(contains("  health       damaged\n")),
        );
        let out = db.run(&["info", "my.db", "--format", "json"]).assert().code(3).get_output().stdout.clone();
        let json: Json = serde_json::from_slice(&out).unwrap();
        assert!(json["damage"][0].as_str().unwrap().contains(name) && json["stripe_count"] == 256, "{json}");
        db.run(&["alerts", "my.db"])
            .assert()
            .code(3)
            .stderr(told())
            .stdout(starts_with("no alerts\nnot read: my.db/").and(contains("runtime counters: none")));
        assert!(db.stdout(&["stats", "my.db"]).contains("files        SSTs "));
        // One of the two partitions is in that file, the other is not.
        let codes: Vec<_> = [("US", "KJFK"), ("NL", "EHAM")]
            .map(|(key, sort)| {
                let output = db.run(&["get", "my.db", key, sort]).output().unwrap();
                let err = String::from_utf8(output.stderr).unwrap();
                assert!(err.is_empty() || told().eval(&err), "{err}");
                output.status.code().unwrap()
            })
            .to_vec();
        assert!(codes == [0, 3] || codes == [3, 0], "{codes:?}");
        db.run(&["scan", "my.db"]).assert().code(3).stderr(told());
        db.run(&["count", "my.db"]).assert().code(3).stdout(is_empty()).stderr(told());
        db.run(&["put", "my.db", "k", "{}"]).assert().code(3).stderr(told());
    }
}

/// Symptom: a damaged `STATS.json` made `stats` and `alerts` fail completely.
/// Cause: the file was read first, and an error ended the command.
/// Fix: the rest is shown, and the damage reported.
#[test]
fn a_broken_file_of_counters_leaves_the_rest_to_be_seen() {
    let db = flushed();
    let long = vec![b' '; 5 << 20];
    for (bytes, why) in [
        (&b"{\"schema\":\"kstone.stats/9\"}"[..], "my.db/STATS.json is not in the format of this version"),
        (b"nonsense", "my.db/STATS.json is not in the format of this version"),
        (&long, "cannot read my.db/STATS.json: 5242880 bytes, more than 4194304"),
    ] {
        db.file("my.db/STATS.json", bytes);
        let error = format!("error: {why}");
        db.run(&["stats", "my.db"])
            .assert()
            .code(4)
            .stdout(
                contains("\nfiles        SSTs ").and(contains(format!("\nruntime counters: unknown, {why}"))),
            )
            .stderr(contains(&error));
        db.run(&["alerts", "my.db"])
            .assert()
            .code(4)
            .stdout(starts_with("no alerts\nnot read: ").and(contains(why)))
            .stderr(contains(&error));
        let output = db.run(&["stats", "my.db", "--format", "json"]).assert().code(4).get_output().clone();
        let json: Json = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&json["files"]["ssts"], &json["runtime"]), (&json!(2), &Json::Null));
    }
    // An alert is printed next to the error.
    let open = kstone_api::Database::builder(db.dir.path().join("my.db"))
        .compaction(kstone_api::CompactionConfig::disabled())
        .open()
        .unwrap();
    for _ in 0..60 {
        open.put("k", kstone_api::ItemBuilder::new().number("n", 1)).unwrap();
        open.flush().unwrap();
    }
    open.close().unwrap();
    db.file("my.db/STATS.json", &long); // the close removed the earlier file
    db.run(&["alerts", "my.db"])
        .assert()
        .code(4)
        .stdout(starts_with("High SST count: "))
        .stderr(contains("cannot read my.db/STATS.json: ").and(contains("; 1 alert\n")));
}

/// Symptom: `info` reported "1 foreign file" without its name, and counted a repair's own `quarantine` as one.
#[test]
fn foreign_files_are_named_and_the_quarantine_is_none() {
    let db = flushed();
    std::fs::create_dir(db.dir.path().join("my.db/quarantine")).unwrap();
    assert!(db.stdout(&["info", "my.db"]).contains("health       good"));
    db.file("my.db/notes.txt", b"mine");
    let info = db.stdout(&["info", "my.db"]);
    assert!(info.contains("  health       1 warning\n               1 foreign file: notes.txt\n"), "{info}");
    assert_eq!(db.json(&["info", "my.db"])["warnings"], json!(["1 foreign file: notes.txt"]));
}

/// Symptom: `info` printed "health good" with the quota reached, nearly all entries tombstones, and one hot stripe.
#[test]
fn health_follows_from_rules_with_figures() {
    let db = Fixture::created();
    let path = db.dir.path().join("my.db");
    let key = |n: u32| kstone_api::Key::with_sort(&b"one"[..], format!("{n:06}").into_bytes());
    let disabled = kstone_api::CompactionConfig::disabled();
    let open = kstone_api::Database::builder(&path).compaction(disabled).open().unwrap();
    let small = kstone_api::ItemBuilder::new().number("n", 1).build();
    (0..1000).for_each(|n| open.put(key(n), &small).unwrap());
    for _ in 0..3 {
        open.flush().unwrap();
        (0..1000).for_each(|n| open.delete(key(n)).unwrap());
    }
    open.flush().unwrap();
    open.close().unwrap();
    let info = db.stdout(&["info", "my.db"]);
    for part in
        ["  health       ", "75 % of the entries in SSTs are tombstones, 3,000 of them", "is hot: 100 % of"]
    {
        assert!(info.contains(part), "{part} is not in {info}");
    }

    let config = kstone_api::DatabaseConfig::new().with_max_total_disk_bytes(8 << 20);
    let open = kstone_api::Database::builder(db.dir.path().join("full.db")).config(config).create().unwrap();
    let item = || kstone_api::ItemBuilder::new().binary("b", vec![7u8; 64 << 10]);
    let full = (0..1000).find_map(|n| open.put(key(n), item()).err());
    assert_eq!(full.unwrap().code(), "disk_full");
    open.close().unwrap();
    let info = db.stdout(&["info", "full.db"]);
    assert!(
        info.contains("               the quota is nearly reached: ") && !info.contains("good"),
        "{info}"
    );
}

/// Symptom: `cannot read FILE` gave no reason, except with `-v`.
#[test]
fn what_the_system_says_is_told_without_asking() {
    let db = Fixture::created();
    db.run(&["import", "my.db", "none.jsonl", "--key-attr", "k"])
        .assert()
        .code(4)
        .stderr(starts_with("error: cannot read none.jsonl: No such file or directory"));
    let long = "x".repeat(300);
    db.run(&["get", &long, "k"]).assert().code(4).stderr(contains("File name too long"));
}
