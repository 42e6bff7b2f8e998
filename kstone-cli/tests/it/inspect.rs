//! Commands that look into files: the numbers are right, damage is an error with the right exit status, and nothing is
//! changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kstone_api::{Database, EngineOptions, ItemBuilder, Key, LsmEngine, WriteOptions};
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use serde_json::{Value as Json, json};

use crate::{Fixture, ssts};

/// Keys that text cannot show as they are.
const ODD: &[u8] = b"\x00\xff\\ odd";

/// Bytes of every file, and nothing else, as they are.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), std::fs::read(&path).unwrap_or_default())).collect()
}

fn item(bytes: usize) -> Vec<u8> {
    ItemBuilder::new().string("a", "x".repeat(bytes)).build().encode().unwrap()
}

/// An engine without background work: the files are those that the test asks for.
fn engine(path: &Path) -> LsmEngine {
    let disk = EngineOptions::disk();
    let options = EngineOptions::reproducible(disk.vfs, disk.clock);
    LsmEngine::open(path, options).unwrap()
}

fn key(partition: &[u8], sort: &[u8]) -> Key<'static> {
    Key::with_sort(partition.to_vec(), sort.to_vec())
}

/// Versions of `user#1` in three SSTs, another in the log, and other keys. In the order of sequences:
/// 1 put user#1, 2 put ODD; 3 put user#1; 4 delete user#1; in the log: 5 put user#1, 6 put user#2.
fn versions() -> Fixture {
    let db = Fixture::created();
    let engine = engine(&db.dir.path().join("my.db"));
    let put = |key: &Key<'_>, bytes| engine.put(key, &item(bytes), WriteOptions::new()).unwrap();
    let user = key(b"user#1", b"s");
    put(&user, 10);
    put(&key(ODD, ODD), 1000);
    engine.flush().unwrap();
    put(&user, 20);
    engine.flush().unwrap();
    engine.delete(&user, WriteOptions::new()).unwrap();
    engine.flush().unwrap();
    put(&user, 30);
    put(&key(b"user#2", b"s"), 30);
    engine.close().unwrap();
    db
}

fn names(db: &Fixture, end: &str) -> Vec<String> {
    let entries = std::fs::read_dir(db.dir.path().join("my.db")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.filter(|name| name.ends_with(end)).map(|name| format!("my.db/{name}")).collect();
    names.sort();
    names
}

/// The log segment that has records.
fn log(db: &Fixture) -> String {
    let used = |name: &String| db.json(&["wal", "props", name])["files"][0]["puts"].as_u64() > Some(0);
    names(db, ".log").into_iter().find(used).unwrap()
}

fn flip(db: &Fixture, file: &str, at: usize) {
    let path = db.dir.path().join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn cut(db: &Fixture, file: &str, len: u64) {
    let path = db.dir.path().join(file);
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

#[test]
fn find_lists_every_version_of_a_key() {
    let db = versions();
    let found = db.json(&["find", "my.db", "user#1", "s"]);
    let versions = found["versions"].as_array().unwrap();
    let of = |name: &str| versions.iter().map(|version| version[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("seq"), [json!(5), json!(4), json!(3), json!(1)]);
    assert_eq!(of("op"), ["put", "delete", "put", "put"]);
    assert_eq!(of("in_log"), [true, false, false, false]);
    assert_eq!(of("newest"), [true, false, false, false]);
    let sizes = [json!(item(30).len()), Json::Null, json!(item(20).len()), json!(item(10).len())];
    assert_eq!(of("value_bytes"), sizes);
    assert_eq!((&found["schema"], &found["ssts_searched"]), (&json!("kstone.find/1"), &json!(3)));
    assert!(of("file")[0].as_str().unwrap().starts_with("wal-"), "{found}");
    let files: Vec<_> =
        of("file")[1..].iter().map(|file| format!("my.db/{}", file.as_str().unwrap())).collect();
    assert!(files.iter().all(|file| names(&db, ".sst").contains(file)) && files[0] > files[1], "{files:?}");
    let text = db.run(&["find", "my.db", "user#1", "s"]).assert().success();
    text.stdout(
        contains("seq 5").and(contains("newest  not flushed")).and(contains("seq 4           delete")),
    );
    let lines = db.stdout(&["find", "my.db", "user#1", "s", "--format", "jsonl"]);
    assert_eq!(lines.lines().count(), 4);

    // The key as another command prints it.
    let shown = db.json(&["scan", "my.db", "--keys-only"])["items"][0].clone();
    let (odd, sort) = (shown["key"].as_str().unwrap(), shown["sort"].as_str().unwrap());
    assert_eq!(odd, r"\x00\xff\\ odd");
    assert_eq!(db.json(&["find", "my.db", odd, sort])["versions"][0]["seq"], 2);
    db.run(&["find", "my.db", "none"]).assert().code(1).stderr(contains("there is no item under none"));
    db.run(&["find", "none.db", "k"]).assert().code(4).stdout(is_empty());
}

#[test]
fn files_lists_what_is_there_and_what_is_missing() {
    let db = versions();
    db.file("my.db/notes.txt", b"mine");
    db.file("my.db/007-999999.sst", b"left over");
    let files = db.json(&["files", "my.db"])["files"].as_array().unwrap().clone();
    let role = |name: &str| {
        let file = files.iter().find(|file| file["name"].as_str().unwrap().ends_with(name));
        file.unwrap_or_else(|| panic!("{name}: {files:?}")).clone()
    };
    let count = |role: &str| files.iter().filter(|file| file["role"] == role).count();
    assert_eq!((count("sst"), count("foreign"), count("sst_obsolete")), (4, 1, 1));
    assert_eq!(role("notes.txt")["bytes"], 4);
    assert_eq!(
        (&role("007-999999.sst")["role"], &role("007-999999.sst")["stripe"]),
        (&json!("sst_obsolete"), &json!(7))
    );
    assert_eq!((&role("MANIFEST")["role"], &role("LOCK")["role"]), (&json!("manifest"), &json!("lock")));
    assert!(count("log") >= 1, "{files:?}");
    let entries: u64 = files.iter().filter_map(|file| file["entries"].as_u64()).sum();
    let tombstones: u64 = files.iter().filter_map(|file| file["tombstones"].as_u64()).sum();
    assert_eq!((entries, tombstones), (4, 1));
    let odd = files.iter().find(|file| file["first_key"] == r"\x00\xff\\\x20odd \x00\xff\\\x20odd");
    assert_eq!(odd.unwrap()["last_key"], odd.unwrap()["first_key"]);
    let text = db.stdout(&["files", "my.db"]);
    let all: usize = tree(&db.dir.path().join("my.db")).len();
    assert!(text.contains(&format!("\n{all} files   ")), "{text}");
    assert!(text.contains("  sst obsolete") && text.contains("user#1 s ... user#1 s"), "{text}");

    let gone = ssts(&db).remove(0);
    let gone_name = gone.file_name().unwrap().to_str().unwrap().to_owned();
    // The first by name may be the foreign one.
    let gone = if gone_name.starts_with("007-999999") { ssts(&db).remove(1) } else { gone };
    let gone_name = gone.file_name().unwrap().to_str().unwrap().to_owned();
    std::fs::remove_file(gone).unwrap();
    let told = contains(format!("{gone_name} is missing")).and(contains("kstone verify my.db"));
    db.run(&["files", "my.db"]).assert().code(3).stdout(contains("sst missing")).stderr(told);
    std::fs::remove_file(db.dir.path().join("my.db/MANIFEST")).unwrap();
    let unknown = db.run(&["files", "my.db"]).assert().code(3).stderr(contains("MANIFEST"));
    unknown.stdout(contains("sst obsolete").not());
    db.run(&["files", "none.db"]).assert().code(4).stdout(is_empty());
}

#[test]
fn stripes_draws_every_stripe_and_names_the_worst() {
    let db = Fixture::created();
    let path = db.dir.path().join("my.db");
    let engine = engine(&path);
    for n in 0..12u8 {
        engine.put(&key(b"user#1", &[n]), &item(100), WriteOptions::new()).unwrap();
        if n < 2 {
            engine.put(&key(b"user#2", &[n]), &item(5_000), WriteOptions::new()).unwrap();
        }
        engine.flush().unwrap();
    }
    engine.close().unwrap();
    let stripe_of = |partition: &str| {
        db.json(&["find", "my.db", partition, r"\x00"])["stripe"].as_u64().unwrap() as usize
    };
    let (one, two) = (stripe_of("user#1"), stripe_of("user#2"));
    assert_ne!(one, two);

    let utf8 = |args: &[&str]| {
        let mut command = db.run(args);
        let output = command.env("LC_ALL", "C.UTF-8").assert().success().get_output().clone();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (text, hint) = utf8(&["stripes", "my.db"]);
    let rows: Vec<&str> = text.lines().skip(2).take(16).collect();
    for (n, row) in rows.iter().enumerate() {
        let (label, cells) = row.split_at(5);
        assert_eq!(label, format!("  {:03}", n * 16));
        let cells: Vec<_> = cells.split_whitespace().take(16).collect();
        for (column, cell) in cells.iter().enumerate() {
            let stripe = n * 16 + column;
            let expected = if stripe == one {
                "12"
            } else if stripe == two {
                "2"
            } else {
                "·"
            };
            assert_eq!(*cell, expected, "{text}");
        }
        assert_eq!(row.ends_with(&format!("   ← {one:03}")), one / 16 == n, "{row}");
    }
    assert!(
        text.contains(&format!("14 in all   median 0   p99 0   max 12 ({one:03})   empty 254\n")),
        "{text}"
    );
    assert!(text.contains(&format!("at or over the threshold of 10 runs: 1: {one:03}\n")), "{text}");
    assert_eq!(hint, format!("next: kstone compact my.db --stripe {one}\n"));
    // ASCII on request, and where the locale is not UTF-8. Colours only on request.
    let (ascii, _) = utf8(&["stripes", "my.db", "--ascii"]);
    assert!(ascii.is_ascii() && ascii.contains("  .  .") && ascii.contains("   <- "), "{ascii}");
    let c = db.run(&["stripes", "my.db"]).env("LC_ALL", "C").assert().success().get_output().clone();
    assert_eq!(String::from_utf8(c.stdout).unwrap(), ascii);
    let (colour, _) = utf8(&["stripes", "my.db", "--color", "always"]);
    assert!(colour.contains("\u{1b}[1m\u{1b}[31m12\u{1b}[0m") && !text.contains('\u{1b}'), "{colour}");

    for by in ["ssts", "runs", "bytes", "items", "tombstones", "age"] {
        let (text, _) = utf8(&["stripes", "my.db", "--by", by]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{by}:\n{text}");
    }
    let (bytes, _) = utf8(&["stripes", "my.db", "--by", "bytes"]);
    let all = db.json(&["stripes", "my.db"])["stripes"].as_array().unwrap().clone();
    assert_eq!(all.len(), 256);
    let kilobytes = format!("{}K", all[two]["bytes"].as_u64().unwrap() / 1000);
    assert!(bytes.contains(&kilobytes), "{kilobytes}:\n{bytes}");
    assert_eq!(
        [&all[one]["runs"], &all[one]["entries"], &all[one]["over_threshold"], &all[two]["entries"]],
        [&json!(12), &json!(12), &json!(true), &json!(2)]
    );
    let (top, _) = utf8(&["stripes", "my.db", "--top", "1", "--by", "bytes"]);
    let largest = if all[one]["bytes"].as_u64() > all[two]["bytes"].as_u64() { one } else { two };
    assert!(
        top.lines().count() == 2 && top.lines().nth(1).unwrap().starts_with(&format!("{largest:03} ")),
        "{top}"
    );
    let files =
        db.json(&["stripes", "my.db", "--stripe", &two.to_string()])["files"].as_array().unwrap().clone();
    assert_eq!(files.iter().map(|file| &file["entries"]).collect::<Vec<_>>(), [&json!(1), &json!(1)]);
    assert_eq!(files[0]["first_key"], r"user#2 \x01");
    db.run(&["stripes", "my.db", "--stripe", "256"])
        .assert()
        .code(2)
        .stderr(contains("stripes are 0 to 255"));
    db.run(&["stripes", "my.db", "--stripe", "1", "--top", "1"]).assert().code(2);
}

#[test]
fn a_database_with_few_stripes_has_few_rows() {
    let db = Fixture::new();
    let config = kstone_api::DatabaseConfig::new().with_stripes(4);
    Database::builder(db.dir.path().join("my.db")).config(config).create().unwrap().close().unwrap();
    let text = db.stdout(&["stripes", "my.db", "--ascii"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[1..3], ["      +0 +1 +2 +3", "  000  .  .  .  ."]);
    assert!(lines[3].is_empty() && lines[4].ends_with("max 0   empty 4"), "{text}");
}

#[test]
fn hist_and_big_count_what_is_there() {
    let db = versions();
    let versions = db.json(&["hist", "my.db", "versions"]);
    // user#1 has four, the others one.
    assert_eq!(
        versions["buckets"],
        json!([{"from": 1, "to": 1, "count": 2}, {"from": 2, "to": 3, "count": 0},
        {"from": 4, "to": 7, "count": 1}])
    );
    assert_eq!((&versions["count"], &versions["sum"]), (&json!(3), &json!(6)));
    let items = db.json(&["hist", "my.db", "items"]);
    assert_eq!((&items["count"], &items["max"]), (&json!(3), &json!(item(1000).len())));
    let keys = db.json(&["hist", "my.db", "keys"]);
    assert_eq!(
        [&keys["min"], &keys["max"], &keys["sum"]],
        [&json!(7), &json!(2 * ODD.len()), &json!(14 + 2 * ODD.len())]
    );
    let text = db.stdout(&["hist", "my.db", "versions", "--ascii"]);
    let bar = "#".repeat(40);
    assert!(
        text.starts_with("3 keys   versions: least 1   mean 2.0   most 4\n") && text.contains(&bar),
        "{text}"
    );
    db.run(&["hist", "my.db", "colours"]).assert().code(2);

    let big = db.json(&["big", "my.db", "--top", "1"]);
    let small = item(30).len();
    assert_eq!(
        big["items"],
        json!([{"key": r"\x00\xff\\ odd", "sort": r"\x00\xff\\ odd",
        "bytes": item(1000).len()}])
    );
    assert_eq!(big["partitions"][0]["bytes"], item(1000).len() + 2 * ODD.len());
    assert_eq!(big["prefixes"], json!([{"key": "user#", "items": 2, "bytes": 2 * (small + 7)}]));
    let all = db.json(&["big", "my.db"]);
    assert_eq!((all["items"].as_array().unwrap().len(), all["partitions"].as_array().unwrap().len()), (3, 3));
    assert!(db.stdout(&["big", "my.db"]).contains("           2  user#\n"));
    assert_eq!(db.json(&["big", "my.db", "--top", "0"])["items"], json!([]));
}

#[test]
fn sst_commands_read_a_file_on_its_own() {
    let db = versions();
    // Under another name and away from its database.
    let by_key = db.json(&["find", "my.db", r"\x00\xff\\ odd", r"\x00\xff\\ odd"]);
    let name = format!("my.db/{}", by_key["versions"][0]["file"].as_str().unwrap());
    std::fs::copy(db.dir.path().join(&name), db.dir.path().join("copy")).unwrap();
    for name in [name.as_str(), "copy"] {
        let props = db.json(&["sst", "props", name])["files"][0].clone();
        assert_eq!(
            [&props["entries"], &props["tombstones"], &props["first_seq"]],
            [&json!(1), &json!(0), &json!(2)]
        );
        assert_eq!(props["bytes"], std::fs::metadata(db.dir.path().join(name)).unwrap().len());
        assert_eq!((&props["stripe"], &props["depth"]), (&by_key["stripe"], &json!(0)));
        assert_eq!((&props["sections"]["blocks"], &props["sections"]["filter_keys"]), (&json!(1), &json!(1)));
        let dump = db.json(&["sst", "dump", name]);
        let entry = &dump["entries"][0];
        assert_eq!(
            [&entry["seq"], &entry["op"], &entry["key"]],
            [&json!(2), &json!("put"), &json!(r"\x00\xff\\ odd")]
        );
        assert_eq!(entry["item"]["a"], "x".repeat(1000));
        let bloom = db.json(&["sst", "bloom", name])["files"][0].clone();
        assert!(bloom["keys"] == 1 && bloom["fill"].as_f64() > Some(0.0), "{bloom}");
        assert_eq!(db.json(&["sst", "verify", name])["files"][0]["clean"], true);
    }
    assert!(
        db.stdout(&["sst", "props", "copy"])
            .contains("entries      1   puts 1   tombstones 0   seq 2 ... 2\n")
    );
    let all = names(&db, ".sst");
    let of = |command: &str, more: &[&str]| {
        let files: Vec<&str> = all.iter().map(String::as_str).collect();
        db.stdout(&[&["sst", command], more, &files].concat())
    };
    assert_eq!(of("verify", &[]).matches("good     my.db/").count(), 4);
    assert_eq!(of("dump", &["--format", "jsonl"]).lines().count(), 4);
    assert_eq!(of("dump", &["--limit", "0"]).lines().count(), 4);
    assert!(of("dump", &[]).contains("seq 4           delete  user#1 s\n"));
}

#[test]
fn damaged_and_foreign_ssts_are_3_and_missing_ones_4() {
    let db = versions();
    let name = names(&db, ".sst").remove(0);
    let good = std::fs::read(db.dir.path().join(&name)).unwrap();
    let verbs = ["dump", "props", "bloom", "verify"];
    db.file("foreign", b"no file of a database");
    db.file("empty", b"");
    for verb in verbs {
        for file in ["foreign", "empty"] {
            db.run(&["sst", verb, file]).assert().code(3).stderr(
                starts_with(format!("error: {file} is damaged")).and(contains("hint: nothing was changed")),
            );
        }
        db.run(&["sst", verb, "none"])
            .assert()
            .code(4)
            .stderr(contains("none").and(contains("No such file")));
        db.run(&["sst", verb, "my.db"]).assert().code(4).stderr(contains("my.db"));
        // One bad file does not hide the good ones.
        let more = db.run(&["sst", verb, "none", &name]).assert().code(4);
        more.stdout(is_empty().not());
    }
    // A block: its file is opened, and its entries are not.
    flip(&db, &name, 140);
    db.run(&["sst", "props", &name]).assert().success();
    db.run(&["sst", "dump", &name]).assert().code(3).stderr(contains("checksum mismatch"));
    let verify = db.run(&["sst", "verify", &name]).assert().code(3);
    verify.stdout(contains("block 0 at 0x80 +").and(contains("CORRUPT"))).stderr(contains("has 1 fault\n"));
    // Wherever it is cut, it is damaged, and no command panics or prints what is not there.
    for len in [0, 1, 127, 128, 200, good.len() as u64 / 2, good.len() as u64 - 1] {
        std::fs::write(db.dir.path().join(&name), &good).unwrap();
        cut(&db, &name, len);
        for verb in verbs {
            db.run(&["sst", verb, &name]).assert().code(3).stderr(starts_with("error: "));
        }
    }
    // So is every byte of its parts; between them are zeros, which only the manifest has a checksum of.
    for at in (128..good.len()).filter(|&at| good[at] != 0).step_by(17) {
        std::fs::write(db.dir.path().join(&name), &good).unwrap();
        flip(&db, &name, at);
        db.run(&["sst", "verify", &name]).assert().code(3);
    }
}

#[test]
fn wal_commands_tell_records_a_torn_tail_and_damage() {
    let db = versions();
    let name = log(&db);
    let records = db.json(&["wal", "dump", &name])["records"].as_array().unwrap().clone();
    let ops: Vec<_> = records.iter().filter(|record| record["kind"] == "batch").cloned().collect();
    assert_eq!(
        ops.iter().map(|op| &op["seq"]).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6].map(|n| json!(n)).each_ref()
    );
    assert_eq!(
        (&ops[5]["key"], &ops[5]["sort"], &ops[5]["op"]),
        (&json!("user#2"), &json!("s"), &json!("put"))
    );
    let stripe = db.json(&["find", "my.db", "user#2", "s"])["stripe"].clone();
    assert_eq!(ops[5]["stripe"], stripe);
    assert_eq!(records[0]["kind"], "link");
    let text = db.stdout(&["wal", "dump", &name]);
    assert!(text.contains("user#2 s   ") && text.contains("tail: clean end at 0x"), "{text}");
    let limited = db.stdout(&["wal", "dump", &name, "--limit", "1"]);
    assert_eq!(limited.lines().count(), 3, "{limited}");
    let props = db.json(&["wal", "props", &name])["files"][0].clone();
    assert_eq!(
        [&props["puts"], &props["deletes"], &props["first_seq"], &props["last_seq"]],
        [5, 1, 1, 6].map(|n: u64| json!(n)).each_ref()
    );
    assert!(db.stdout(&["wal", "verify", &name]).starts_with("good     my.db/wal-"));

    // Away from its database the stripes are not known, and the log buffer is not there.
    let offset = ops[5]["offset"].as_u64().unwrap();
    std::fs::copy(db.dir.path().join(&name), db.dir.path().join("copy.log")).unwrap();
    let copy = db.json(&["wal", "dump", "copy.log"])["records"].as_array().unwrap().clone();
    assert!(copy.iter().all(|record| record["stripe"].is_null()), "{copy:?}");

    // The last record is cut short.
    cut(&db, "copy.log", offset + 60);
    let torn = db.run(&["wal", "verify", "copy.log"]).assert().success();
    torn.stdout(starts_with("torn     copy.log").and(contains("TORN 60 bytes at 0x")));
    // A record in the middle is damaged: those after it are shown.
    std::fs::copy(db.dir.path().join(&name), db.dir.path().join("copy.log")).unwrap();
    flip(&db, "copy.log", ops[0]["offset"].as_u64().unwrap() as usize + 50);
    let dump = db.run(&["wal", "dump", "copy.log"]).output().unwrap();
    let shown = String::from_utf8(dump.stdout).unwrap();
    assert!(shown.contains("BAD  no record can be read here") && shown.contains("user#2 s"), "{shown}");
    // Later records prove that an earlier one was durable.
    let durable = db.json(&["wal", "props", &name])["files"][0]["segment"].clone();
    assert_eq!(durable["holes"], json!([]));

    db.file("foreign", b"no file of a database");
    for verb in ["dump", "props", "verify"] {
        db.run(&["wal", verb, "foreign"]).assert().code(3).stderr(contains("not a log segment"));
        db.run(&["wal", verb, "none"]).assert().code(4).stderr(contains("No such file"));
    }
    for len in [0, 1, 500, 1023] {
        std::fs::copy(db.dir.path().join(&name), db.dir.path().join("copy.log")).unwrap();
        cut(&db, "copy.log", len);
        db.run(&["wal", "dump", "copy.log"]).assert().code(if len < 128 { 3 } else { 0 });
    }
    // Whichever byte is wrong, records are never printed that were not written.
    let good = std::fs::read(db.dir.path().join(&name)).unwrap();
    for at in (0..good.len()).step_by(41) {
        std::fs::write(db.dir.path().join("copy.log"), &good).unwrap();
        flip(&db, "copy.log", at);
        let output = db.run(&["wal", "dump", "copy.log", "--format", "jsonl"]).output().unwrap();
        assert!(matches!(output.status.code(), Some(0 | 3)), "{at}: {:?}", output.status);
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let record: Json = serde_json::from_str(line).unwrap();
            let written = records
                .iter()
                .any(|known| known["offset"] == record["offset"] && known["seq"] == record["seq"]);
            assert!(record["kind"] == "unreadable" || written, "{at}: {record}");
        }
    }
}

/// A record is damage if a later one says that the log was durable beyond it.
#[test]
fn damage_to_durable_records_is_3() {
    let db = Fixture::created();
    let engine = engine(&db.dir.path().join("my.db"));
    for n in 0..3u8 {
        engine.put(&key(b"k", &[n]), &item(10), WriteOptions::sync()).unwrap();
    }
    // As after a crash: the log is left as it is.
    std::mem::forget(engine);
    let name = log(&db);
    let records = db.json(&["wal", "dump", &name])["records"].as_array().unwrap().clone();
    let first = records.iter().find(|record| record["seq"] == 1).unwrap()["offset"].as_u64().unwrap();
    std::fs::copy(db.dir.path().join(&name), db.dir.path().join("copy.log")).unwrap();
    flip(&db, "copy.log", first as usize + 50);
    for verb in ["dump", "verify"] {
        let told =
            contains(format!("copy.log is damaged at {first:#x}: ")).and(contains("that were durable"));
        db.run(&["wal", verb, "copy.log"]).assert().code(3).stderr(told);
    }
    db.run(&["wal", "verify", "copy.log"]).assert().code(3).stdout(starts_with("CORRUPT  copy.log"));
}

#[test]
fn manifest_dump_lists_the_changes() {
    let db = versions();
    let dump = db.json(&["manifest", "dump", "my.db"])["changes"].as_array().unwrap().clone();
    assert_eq!((&dump[0]["change"], &dump[0]["fields"]["stripes"]), (&json!("facts"), &json!(256)));
    let added: Vec<_> = dump.iter().filter(|change| change["change"] == "add_sst").collect();
    let files = names(&db, ".sst");
    assert!(
        files.iter().all(|file| added.iter().any(|add| add["fields"]["file"] == file["my.db/".len()..])),
        "{dump:?}"
    );
    assert!(
        added.iter().any(|add| add["fields"]["first_key"] == r"\x00\xff\\\x20odd \x00\xff\\\x20odd"),
        "{added:?}"
    );
    let text = db.stdout(&["manifest", "dump", "my.db"]);
    assert_eq!(text.lines().count(), dump.len() + 2);
    assert!(text.lines().last().unwrap().starts_with("end: 0x"), "{text}");
    assert_eq!(db.stdout(&["manifest", "dump", "my.db", "--limit", "2"]).lines().count(), 3);
    let len = std::fs::metadata(db.dir.path().join("my.db/MANIFEST")).unwrap().len();
    // A cut edit was never made; damage before it is damage.
    cut(&db, "my.db/MANIFEST", len - 1);
    let torn = db.run(&["manifest", "dump", "my.db"]).assert();
    let first_only = dump.iter().all(|change| change["edit"] == dump[0]["edit"]);
    if first_only {
        torn.code(3)
    } else {
        torn.success().stdout(contains("TORN edit at 0x"))
    };
    flip(&db, "my.db/MANIFEST", 150);
    db.run(&["manifest", "dump", "my.db"]).assert().code(3).stderr(contains("the first edit is damaged"));
    db.run(&["manifest", "dump", "none.db"]).assert().code(4);
}

#[test]
fn fifos_are_refused() {
    let db = Fixture::new();
    assert!(std::process::Command::new("mkfifo").arg(db.dir.path().join("fifo")).status().unwrap().success());
    for args in [
        ["sst", "dump"],
        ["sst", "props"],
        ["sst", "bloom"],
        ["sst", "verify"],
        ["wal", "dump"],
        ["wal", "verify"],
    ] {
        let mut command = db.run(&[args[0], args[1], "fifo"]);
        command.timeout(std::time::Duration::from_secs(60));
        command.assert().code(4).stderr(contains("fifo").and(contains("not a regular file")));
    }
}

#[test]
fn scripts_and_manuals_are_written() {
    let db = Fixture::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = db.stdout(&["completions", shell]);
        assert!(
            script.contains("kstone") && script.contains("stripes") && script.contains("tombstones"),
            "{shell}"
        );
    }
    db.run(&["completions", "cmd"]).assert().code(2);
    db.run(&["man", "share/man1"]).assert().success().stdout(is_empty());
    let page = std::fs::read_to_string(db.dir.path().join("share/man1/kstone-stripes.1")).unwrap();
    assert!(
        page.contains(".TH") && page.contains("threshold") || page.contains("map of all stripes"),
        "{page}"
    );
    let pages = std::fs::read_dir(db.dir.path().join("share/man1")).unwrap().count();
    assert!(pages > 30, "{pages}");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(db.stdout(&["version"]), format!("kstone {version}\n"));
    assert_eq!(
        db.stdout(&["version", "-v"]),
        format!("kstone {version}\nfile format   1\nkey encoding  1\n")
    );
    assert_eq!(db.json(&["version"])["file_format"], 1);
}

/// Every command that only looks, with its arguments.
fn looks(db: &Fixture) -> Vec<Vec<String>> {
    let mut looks: Vec<Vec<String>> = [
        "stripes my.db",
        "stripes my.db --by age",
        "stripes my.db --top 3",
        "stripes my.db --stripe 0",
        "files my.db",
        "hist my.db keys",
        "hist my.db items",
        "hist my.db versions",
        "big my.db",
        "find my.db user#1 s",
        "manifest dump my.db",
        "version",
        "info my.db",
        "stats my.db",
        "config my.db",
        "config my.db --diff",
        "events my.db",
        "advise my.db",
        "advise my.db --goal read",
        "get my.db user#1 s",
        "query my.db user#1",
        "scan my.db",
        "export my.db --out all.jsonl --force",
        "export my.db --as jsonl --out all.jsonl.gz --force",
        "count my.db",
        "explain get my.db user#1 s",
        "explain query my.db user#1",
        "verify my.db",
    ]
    .iter()
    .map(|line| line.split(' ').map(str::to_owned).collect())
    .collect();
    let with = |command: &str, verb: &str, files: Vec<String>| {
        [vec![command.to_owned(), verb.to_owned()], files].concat()
    };
    for verb in ["dump", "props", "bloom", "verify"] {
        looks.push(with("sst", verb, names(db, ".sst")));
    }
    for verb in ["dump", "props", "verify"] {
        looks.push(with("wal", verb, names(db, ".log")));
    }
    looks
}

#[test]
fn nothing_that_looks_changes_a_byte() {
    let db = versions();
    let dir = db.dir.path().join("my.db");
    let check = |codes: &[i32]| {
        for look in looks(&db) {
            let args: Vec<&str> = look.iter().map(String::as_str).collect();
            for format in ["table", "json", "jsonl"] {
                let before = tree(&dir);
                let output = db.run(&[&args[..], &["--format", format]].concat()).output().unwrap();
                let err = String::from_utf8(output.stderr).unwrap();
                assert!(
                    codes.contains(&output.status.code().unwrap()),
                    "{args:?}: {:?} {err}",
                    output.status
                );
                assert!(tree(&dir) == before, "{args:?} changed the directory");
                if format == "json" && output.status.code() == Some(0) {
                    let json: Json = serde_json::from_slice(&output.stdout).unwrap();
                    assert!(json["schema"].as_str().unwrap().starts_with("kstone."), "{json}");
                }
                if format == "jsonl" {
                    let text = String::from_utf8(output.stdout).unwrap();
                    assert!(
                        text.lines().all(|line| serde_json::from_str::<Json>(line).is_ok()),
                        "{args:?}: {text}"
                    );
                }
            }
        }
    };
    check(&[0]);
    // While a program has it open, with records in the log buffer.
    let live = engine(&dir);
    live.put(&key(b"user#3", b"s"), &item(10), WriteOptions::new()).unwrap();
    assert!(Database::is_locked(&dir).unwrap());
    check(&[0]);
    assert_eq!(db.json(&["find", "my.db", "user#3", "s"])["versions"][0]["in_log"], true);
    live.close().unwrap();
    // Damaged: an SST and the end of another.
    let damaged = names(&db, ".sst");
    flip(&db, &damaged[0], 140);
    cut(&db, &damaged[1], 200);
    check(&[0, 3]);
}

#[test]
fn a_foreign_directory_is_refused_and_left_alone() {
    let db = Fixture::new();
    let dir = db.dir.path().join("my.db");
    std::fs::create_dir(&dir).unwrap();
    db.file("my.db/notes.txt", b"mine");
    let before = tree(&dir);
    for look in looks(&db).iter().filter(|look| look.contains(&"my.db".to_owned())) {
        let args: Vec<&str> = look.iter().map(String::as_str).collect();
        db.run(&args).assert().code(4).stderr(predicates::str::contains("my.db"));
        assert!(tree(&dir) == before, "{args:?} changed the directory");
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let db = Fixture::created();
    let open = Database::open(db.dir.path().join("my.db")).unwrap();
    for n in 0..5_000 {
        open.put(("one", format!("{n:06}")), ItemBuilder::new().string("s", "x".repeat(50))).unwrap();
    }
    open.flush().unwrap();
    open.close().unwrap();
    let kstone = assert_cmd::cargo::cargo_bin("kstone");
    for command in
        [format!("sst dump {}", names(&db, ".sst")[0]), "files my.db".into(), "stripes my.db".into()]
    {
        let line = format!("'{}' {command} | head -1", kstone.display());
        let mut shell = assert_cmd::Command::new("sh");
        let done = shell.current_dir(db.dir.path()).args(["-c", &line]).assert().success();
        done.stdout(contains("\n").count(1)).stderr(contains("error").not());
    }
}
