//! `export` and `import` together: nothing is lost on the way, and nothing is left half done.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Command as Process, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::read::MultiGzDecoder;
use kstone_api::{
    CompactionConfig, Database, DatabaseConfig, Item, ItemBuilder, Key, Number, ReadMode, Value, WriteBatch,
    number_key,
};
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::Fixture;
use crate::import::{catches_signals, peak, signal, wait_until_it_waits};

const ITEMS: usize = 10_000;

/// An item of every type, which plain JSON cannot hold.
fn every_type(n: usize) -> Item {
    let number = |text: &str| text.parse::<Number>().unwrap();
    let deep = (0..31).fold(Value::Ss(["x".to_owned()].into()), |value, _| Value::L(vec![value]));
    ItemBuilder::new()
        .string("text", format!("{n} é \u{1b}[31m \u{202e} \0 \" \\ \u{10ffff}"))
        .value("digits", number("-1.2345678901234567890123456789012345678e-99"))
        .value("written", number("1.50"))
        .value("large", number("99999999999999999999999999999999999999"))
        .value("bytes", Value::B((0..n % 300).map(|byte| byte as u8).collect()))
        .value("yes", true)
        .value("none", Value::Null)
        .value("list", Value::L(vec![Value::L(vec![]), Value::M(Item::new()), Value::S(String::new())]))
        .value("map", Item::from([("", Value::B(vec![])), ("Item", Value::Null), ("\u{7f}", n.into())]))
        .value("ss", BTreeSet::from([String::new(), "b".into(), "\u{9b}".into()]))
        .value("ns", BTreeSet::from([number("10"), number("9.0"), number("-1e125")]))
        .value("bs", BTreeSet::from([vec![], vec![0xff], vec![0, n as u8]]))
        .value("deep", deep)
        .build()
}

/// An item that plain JSON holds.
fn plain(n: usize) -> Item {
    ItemBuilder::new()
        .string("text", format!("{n} \u{1b}[31m \u{202e} \0 \" \\ "))
        .value("digits", "1.2345678901234567890123456789012345678e-99".parse::<Number>().unwrap())
        .value("list", Value::L(vec![Value::Null, true.into(), Value::M(Item::from([("a", n)]))]))
        .value("deep", (0..32).fold(Value::Null, |value, _| Value::L(vec![value])))
        .build()
}

fn hostile_keys() -> Vec<Key<'static>> {
    let all: Vec<u8> = (0..=255).collect();
    vec![
        Key::new(&b"k"[..]),
        Key::with_sort(&b"k"[..], &b""[..]),
        Key::with_sort(&b"k"[..], &b"\0"[..]),
        Key::new(&b"\0"[..]),
        Key::with_sort(&b"\0"[..], &b"\0\0"[..]),
        Key::new(all.clone()),
        Key::with_sort(all.clone(), all),
        Key::new(&b"\xff\xfe\x80"[..]),
        Key::new(&b"\x1b]0;title\x07\r\n\t"[..]),
        Key::new("\u{202e}\u{feff}é\\x41\\\\\"{}".as_bytes()),
        Key::with_sort(&b"pk"[..], &b"sk"[..]),
        Key::new(vec![b'l'; 1000]),
        Key::with_sort(number_key(&Number::from(-5)).unwrap(), number_key(&Number::from(7)).unwrap()),
    ]
}

impl Fixture {
    /// With a database of such items under every kind of key.
    fn filled(item: fn(usize) -> Item) -> Self {
        let fixture = Self::new();
        let db = Database::create(fixture.dir.path().join("my.db")).unwrap();
        for (n, key) in hostile_keys().into_iter().enumerate() {
            db.put(key, item(n)).unwrap();
        }
        db.put("empty", Item::new()).unwrap();
        db.flush().unwrap();
        for from in (0..ITEMS).step_by(500) {
            let mut batch = WriteBatch::new();
            for n in from..from + 500 {
                let key =
                    Key::with_sort(format!("p{}", n % 100).into_bytes(), format!("{n:06}").into_bytes());
                batch.put(key, item(n)).unwrap();
            }
            db.write(batch).unwrap();
        }
        db.close().unwrap();
        fixture
    }

    /// All keys and stored items.
    fn content(&self, db: &str) -> Vec<(Key<'static>, Vec<u8>)> {
        let open = Database::open_read_only(self.dir.path().join(db)).unwrap();
        let views = open.scan().run().unwrap().views();
        let entries = views.map(|entry| entry.map(|(key, view)| (key, view.as_bytes().to_vec())));
        entries.map(Result::unwrap).collect()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(name)).unwrap()
    }

    /// Names of the files beside the databases.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs a pipe of commands, in which `kstone` is the binary under test.
    fn shell(&self, line: &str) -> std::process::Output {
        let kstone = assert_cmd::cargo::cargo_bin("kstone");
        let script = format!("kstone() {{ '{}' \"$@\"; }}; {line}", kstone.display());
        Process::new("sh").current_dir(self.dir.path()).args(["-c", &script]).output().unwrap()
    }
}

#[test]
fn every_item_comes_back_as_it_was() {
    let db = Fixture::filled(every_type);
    let before = db.content("my.db");
    assert!(before.len() > ITEMS);
    let same = |name: &str| assert!(db.content(name) == before, "{name} differs");
    let count = kstone_count(before.len());

    db.run(&["export", "my.db", "--out", "all.jsonl"])
        .assert()
        .success()
        .stdout(format!("exported {count} items to all.jsonl\n"))
        .stderr(is_empty());
    db.run(&["import", "a.db", "all.jsonl", "--create"])
        .assert()
        .success()
        .stdout(format!("imported {count} items\n"))
        .stderr(is_empty());
    same("a.db");
    let scan = |name: &str| db.stdout(&["scan", name, "--format", "jsonl"]);
    assert!(scan("my.db") == scan("a.db"));
    assert_eq!(db.run(&["export", "a.db"]).output().unwrap().stdout, db.read("all.jsonl"));

    // Through a pipe, compressed, in files of both kinds, and with other attributes.
    let output = db.shell("kstone export my.db --gzip | kstone import b.db --create --from dynamodb-json");
    assert!(output.status.success(), "{output:?}");
    same("b.db");
    db.run(&["export", "my.db", "--out", "all.gz"]).assert().success();
    let mut text = Vec::new();
    MultiGzDecoder::new(db.read("all.gz").as_slice()).read_to_end(&mut text).unwrap();
    assert!(text == db.read("all.jsonl"), "a name that ends with .gz is compressed");
    db.run(&["import", "c.db", "all.gz", "--create"]).assert().success();
    same("c.db");
    let names = ["--key-attr", "the key", "--sort-attr", "\u{202e}"];
    let export = db.run(&[&["export", "my.db"][..], &names].concat()).output().unwrap().stdout;
    db.run(&[&["import", "d.db", "--create", "--sort-optional"][..], &names].concat())
        .write_stdin(export)
        .assert()
        .success();
    same("d.db");
    assert_eq!(db.names(), ["a.db", "all.gz", "all.jsonl", "b.db", "c.db", "d.db", "my.db"]);
}

fn kstone_count(n: usize) -> String {
    format!("{},{:03}", n / 1000, n % 1000)
}

#[test]
fn lines_of_plain_json_come_back_where_they_can() {
    let db = Fixture::filled(plain);
    let before = db.content("my.db");
    for (name, line) in [
        ("a.db", "kstone export my.db --as jsonl | kstone import a.db --create"),
        ("b.db", "kstone export my.db --as jsonl --gzip | kstone import b.db --create --from jsonl"),
        ("c.db", "kstone scan my.db --format jsonl | kstone import c.db --create"),
    ] {
        let output = db.shell(line);
        assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
        assert!(db.content(name) == before, "{line}");
    }
    // The same lines, in another order.
    let sorted = |text: String| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let scan = sorted(db.stdout(&["scan", "my.db", "--format", "jsonl"]));
    assert!(sorted(db.stdout(&["export", "my.db", "--as", "jsonl"])) == scan);

    // What has no type in plain JSON is reported, once.
    let db = Fixture::filled(every_type);
    let lossy = db.run(&["export", "my.db", "--as", "jsonl", "--out", "all.jsonl"]).assert().success();
    lossy.stderr(
        starts_with("warning: sets become lists and binary becomes text, first in the item under ")
            .and(contains("--as dynamodb-json keeps every type\n"))
            .and(contains("\n").count(1)),
    );
    db.run(&["import", "a.db", "all.jsonl", "--create"]).assert().success();
    let keys = |name: &str| db.content(name).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert!(keys("a.db") == keys("my.db"));
}

/// Two keys are always written together: no export shows one without the other, while a writer is at work.
#[test]
fn an_export_is_of_one_moment() {
    let db = Fixture::new();
    // Few stripes, so that files are replaced often.
    let config = DatabaseConfig::new().with_stripes(4);
    let open = Database::builder(db.dir.path().join("my.db")).config(config).create().unwrap();
    let write = |n: u64| {
        let mut batch = WriteBatch::new();
        for key in ["a", "m", "z"] {
            batch.put(key, Item::from([("n", n)])).unwrap();
        }
        batch.put(format!("filler {n:09}"), Item::from([("text", "x".repeat(100))])).unwrap();
        open.write(batch).unwrap();
    };
    (0..5000).for_each(write);
    let stop = AtomicBool::new(false);
    let seen: BTreeSet<String> = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 5000;
            while !stop.load(Ordering::Relaxed) {
                write(n);
                n += 1;
                // Files that an export is reading are replaced.
                if n.is_multiple_of(300) {
                    open.flush().unwrap();
                    open.compact_all().unwrap();
                }
            }
        });
        let export = || {
            let text = db.stdout(&["export", "my.db", "--as", "jsonl"]);
            let lines = text.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
            let numbers: Vec<_> = lines.filter_map(|line| line["item"].get("n").cloned()).collect();
            assert!(numbers.len() == 3 && numbers.iter().all(|n| *n == numbers[0]), "{numbers:?}");
            numbers[0].to_string()
        };
        let exports = || {
            let mut seen = BTreeSet::new();
            for _ in 0..200 {
                seen.insert(export());
                if seen.len() == 4 {
                    break;
                }
            }
            seen
        };
        // The writer must end also if an export failed.
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(exports));
        stop.store(true, Ordering::Relaxed);
        seen.unwrap()
    });
    assert_eq!(seen.len(), 4, "the writer stood still: {seen:?}");
    open.close().unwrap();
}

#[test]
fn keys_in_items_are_never_overwritten() {
    let db = Fixture::airports();
    // The attributes are those of the key: exported as they are, and imported with the same option.
    let names = ["--key-attr", "icao", "--sort-attr", "country"];
    let right = ["--key-attr", "country", "--sort-attr", "icao", "--key-in-item"];
    db.run(&[&["export", "my.db"][..], &right[..4]].concat()).assert().code(1).stdout(is_empty()).stderr(
        starts_with(
            "error: the item under NL EHAM has an attribute \"country\", which its key would replace\n",
        )
        .and(contains("hint: --key-attr NAME chooses a name that no item has"))
        .and(contains("--key-in-item")),
    );
    let export = db.stdout(&[&["export", "my.db"][..], &right].concat());
    assert!(
        export.starts_with("{\"Item\":{\"city\":{\"S\":\"Amsterdam\"},\"country\":{\"S\":\"NL\"}"),
        "{export}"
    );
    db.run(&[&["import", "a.db", "--create"][..], &right].concat()).write_stdin(export).assert().success();
    assert_eq!(db.content("a.db"), db.content("my.db"));
    db.run(&[&["export", "my.db", "--key-in-item"][..], &names].concat()).assert().code(1).stderr(contains(
        "the item under NL EHAM does not contain its key: attribute \"icao\" is another key",
    ));
    db.run(&["export", "my.db", "--key-in-item"])
        .assert()
        .code(1)
        .stderr(contains("there is no attribute \"pk\""));
    db.run(&["export", "my.db", "--key-attr", "country", "--sort-attr", "none", "--key-in-item"])
        .assert()
        .code(1)
        .stderr(contains("there is no attribute \"none\""));
    // By default, the names are others, and all of it is added.
    let export = db.stdout(&["export", "my.db", "--key-type", "S", "--sort-type", "s"]);
    let first: Json = serde_json::from_str(export.lines().next().unwrap()).unwrap();
    assert_eq!((&first["Item"]["pk"], &first["Item"]["sk"]), (&json!({"S": "NL"}), &json!({"S": "EHAM"})));
    db.run(&["import", "b.db", "--create"]).write_stdin(export).assert().success();
    assert_eq!(db.content("b.db"), db.content("my.db"));

    // An attribute that would become a sort key on the way back.
    let db = Fixture::created();
    db.run(&["put", "my.db", "k", "{\"sk\":1}"]).assert().success();
    db.run(&["export", "my.db"]).assert().code(1).stderr(contains("--sort-attr NAME chooses a name"));
    db.run(&["put", "my.db", "k", "{\"pk\":\"k\",\"sk\":\"s\"}"]).assert().success();
    db.run(&["export", "my.db", "--key-in-item"])
        .assert()
        .code(1)
        .stderr(contains("attribute \"sk\" would become its sort key, and it has none"));
    db.run(&["export", "my.db", "--sort-attr", "pk"]).assert().code(2).stderr(contains("cannot be both"));
    db.run(&["export", "my.db", "--as", "jsonl", "--key-attr", "a"]).assert().code(2);
}

#[test]
fn keys_have_the_type_that_is_asked_for() {
    let db = Fixture::created();
    for key in ["10", "9", "-2.50"] {
        db.run(&["put", "my.db", "--key-type", "N", "--", key, "{}"]).assert().success();
    }
    let export = db.stdout(&["export", "my.db", "--key-type", "N"]);
    let mut lines: Vec<_> = export.lines().collect();
    lines.sort_unstable();
    let line = |number: &str| format!("{{\"Item\":{{\"pk\":{{\"N\":\"{number}\"}}}}}}");
    assert_eq!(lines, [line("-2.5"), line("10"), line("9")]);
    db.run(&["import", "a.db", "--create"]).write_stdin(export.clone()).assert().success().stderr(is_empty());
    assert_eq!(db.content("a.db"), db.content("my.db"));
    db.run(&["import", "b.db", "--create", "--key-type", "S"]).write_stdin(export).assert().success();
    assert_eq!(db.stdout(&["scan", "b.db", "--keys-only", "--format", "jsonl"]).lines().count(), 3);
    assert!(db.stdout(&["export", "b.db", "--key-type", "S"]).contains("{\"S\":\"10\"}"));
    db.run(&["export", "my.db", "--key-type", "S"]).assert().code(1).stderr(
        contains("the partition key of ").and(contains("is not UTF-8 text\nhint: --key-type B, the default")),
    );
    db.run(&["put", "my.db", "text", "{}"]).assert().success();
    db.run(&["export", "my.db", "--key-type", "N"])
        .assert()
        .code(1)
        .stderr("error: the partition key of text was not stored as a number\nhint: --key-type B, the default, writes any key\n");
    assert!(db.stdout(&["export", "my.db"]).contains("{\"Item\":{\"pk\":{\"B\":\"dGV4dA==\"}}}\n"));
}

#[test]
fn a_file_has_its_name_once_it_is_complete() {
    let db = Fixture::airports();
    db.file("mine", b"mine");
    db.run(&["export", "my.db", "--out", "mine"])
        .assert()
        .code(4)
        .stderr("error: mine exists; nothing was written\nhint: --force replaces it\n");
    assert_eq!(db.read("mine"), b"mine");
    db.run(&["export", "my.db", "--out", "mine", "--force"]).assert().success();
    assert!(db.read("mine").starts_with(b"{\"Item\":"));
    // Through a link; what it leads to is replaced, and not the link.
    db.file("target", b"old");
    std::os::unix::fs::symlink("target", db.dir.path().join("link")).unwrap();
    db.run(&["export", "my.db", "--out", "link", "--force"]).assert().success();
    assert_eq!(db.read("target"), db.read("mine"));
    assert!(db.dir.path().join("link").symlink_metadata().unwrap().is_symlink());
    for (out, code, message) in [
        ("none/out", 4, "error: cannot write none/out: No such file or directory"),
        ("my.db/out", 2, "error: cannot write my.db/out: it is in the directory of the database"),
        ("my.db", 4, "is not a regular file"),
        ("/dev/full", 4, "is not a regular file"),
        ("mine/out", 4, "error: cannot write mine/out: Not a directory"),
    ] {
        db.run(&["export", "my.db", "--out", out, "--force"])
            .assert()
            .code(code)
            .stdout(is_empty())
            .stderr(contains(message));
    }
    // Refused midway: items before it were fine.
    db.run(&["put", "my.db", "zz", "{\"pk\":1}"]).assert().success();
    db.run(&["export", "my.db", "--out", "new"]).assert().code(1).stderr(contains("attribute \"pk\""));
    // A damaged SST ends it as well.
    db.run(&["compact", "my.db"]).assert().success();
    db.run(&["delete", "my.db", "zz"]).assert().success();
    for sst in crate::ssts(&db) {
        let mut bytes = std::fs::read(&sst).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(sst, bytes).unwrap();
    }
    db.run(&["export", "my.db", "--out", "new"]).assert().code(3);
    // A full disk, as a limit on the length of files.
    let output = Fixture::filled(plain)
        .shell("ulimit -f 100; trap '' XFSZ; kstone export my.db --out new; s=$?; ls -A; exit $s");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*stdout), (Some(4), "my.db\n"), "{stderr}");
    assert!(stderr.starts_with("error: cannot write new; no file was written: File too large"), "{stderr}");
    assert_eq!(db.names(), ["a.jsonl", "link", "mine", "my.db", "target"]);
    // Permissions are those of any new file.
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |name: &str| db.dir.path().join(name).metadata().unwrap().permissions().mode();
    let output = Fixture::airports().shell("umask 027; kstone export my.db --out new; stat -c %a new");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("\n640\n"), "{output:?}");
    assert_eq!(mode("mine") & 0o111, 0);
}

#[test]
fn a_reader_that_has_seen_enough_ends_it() {
    let db = Fixture::filled(plain);
    for line in ["kstone export my.db", "kstone export my.db --as jsonl", "kstone export my.db --gzip"] {
        let output = db.shell(&format!("{{ {line}; echo $? >&2; }} | head -c 100"));
        assert_eq!(
            (String::from_utf8_lossy(&output.stderr).as_ref(), output.stdout.len()),
            ("0\n", 100),
            "{line}"
        );
    }
}

/// Interrupted as early as it can notice, and later.
#[test]
fn an_interrupted_export_leaves_no_file() {
    let db = Fixture::new();
    let open = Database::builder(db.dir.path().join("my.db")).compaction(CompactionConfig::disabled());
    let open = open.create().unwrap();
    for n in 0..20_000 {
        open.put(format!("k{n}").into_bytes(), Item::from([("text", "x".repeat(300))])).unwrap();
    }
    open.close().unwrap();
    let (mut interrupted, mut tries) = (0, 0);
    while interrupted < 3 && tries < 30 {
        tries += 1;
        let child = db.spawn(&["export", "my.db", "--out", "out.jsonl"], Stdio::null());
        while !catches_signals(&child) {
            std::thread::yield_now();
        }
        for _ in 0..(tries - 1) % 5 * 20 {
            std::thread::yield_now();
        }
        signal(&child, if tries % 2 == 0 { Signal::INT } else { Signal::TERM });
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => {
                assert_eq!(db.names(), ["my.db", "out.jsonl"]);
                std::fs::remove_file(db.dir.path().join("out.jsonl")).unwrap();
            }
            Some(130) => {
                interrupted += 1;
                assert!(stderr.starts_with("error: interrupted: after "), "{stderr}");
                assert!(stderr.ends_with("; no file was written\n") && output.stdout.is_empty(), "{stderr}");
                assert_eq!(db.names(), ["my.db"]);
            }
            code => panic!("{code:?} {stderr}"),
        }
    }
    println!("interrupted {interrupted} times in {tries} tries");
    assert!(interrupted > 0, "it was never interrupted");
}

/// An import that is interrupted, and continued where it says, gives the same database.
#[test]
fn an_interrupted_import_continues() {
    let db = Fixture::filled(every_type);
    let export = db.stdout(&["export", "my.db"]);
    let part: usize = export.split_inclusive('\n').take(700).map(str::len).sum();
    for form in ["auto", "dynamodb-json"] {
        let copy = format!("{form}.db");
        let (read, write) = std::io::pipe().unwrap();
        let (read, mut write) = (OwnedFd::from(read), File::from(OwnedFd::from(write)));
        let child = db.spawn(&["import", &copy, "--create", "--from", form], read);
        write.write_all(&export.as_bytes()[..part + 20]).unwrap();
        wait_until_it_waits(&child, &write);
        signal(&child, Signal::INT);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "imported 700 items\n");
        assert!(stderr.contains("--from-line 701 continues there"), "{stderr}");
        let rest =
            db.run(&["import", &copy, "--from-line", "701"]).write_stdin(export.clone()).assert().success();
        rest.stdout(format!("imported {} items\n", kstone_count(ITEMS + 14 - 700)));
        assert!(db.content(&copy) == db.content("my.db"));
    }
}

/// Memory follows the longest item and not the database, in both directions.
#[test]
fn memory_does_not_follow_the_database() {
    let db = Fixture::new();
    // Read with pread: pages of mapped files would count as memory of the process.
    let config = DatabaseConfig::new().with_read_mode(ReadMode::Pread);
    let open = Database::builder(db.dir.path().join("my.db")).config(config).create().unwrap();
    for n in 0..160 {
        open.put(format!("k{n}").into_bytes(), Item::from([("b", Value::B(vec![n as u8; 1 << 20]))]))
            .unwrap();
    }
    // What is in the log is in the memory of readers.
    open.flush().unwrap();
    open.close().unwrap();
    for (args, most) in
        [(["export", "my.db", "--out", "all.gz"], 48), (["import", "new.db", "all.gz", "--create"], 130)]
    {
        let mut command = Process::new(assert_cmd::cargo::cargo_bin("kstone"));
        let (output, kib) = peak(command.args(args).stdout(Stdio::piped()), &db);
        assert!(output.status.success());
        println!("{} of 160 MiB: peak {} MiB", args[0], kib / 1024);
        assert!(kib > 0 && kib < most * 1024, "{args:?}: {kib} KiB");
    }
    assert!(db.content("new.db") == db.content("my.db"));
}
