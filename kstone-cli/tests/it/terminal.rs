//! Whatever the source, no output acts on the terminal, and no line can be mistaken for one of ours.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use kstone_api::{Database, Item, ItemBuilder, Key, Value, escape};
use serde_json::{Value as Json, json};

use crate::{Fixture, ssts};

/// Starts a line that must not occur in the output.
const FORGED: &str = "FORGED";

/// Every character that must not reach a terminal: C0, DEL, C1, bidirectional marks and overrides, line separators, the
/// byte order mark, and invisible characters.
fn harmful() -> String {
    let ranges = [1..=0x1f, 0x7f..=0x9f, 0x200e..=0x200f, 0x2028..=0x202e, 0x2066..=0x2069];
    let others = [0x61c, 0xfeff, 0xad, 0x200b, 0x2060, 0xe0041];
    let all = ranges.into_iter().flatten().chain(others).map(|c| char::from_u32(c).unwrap());
    let all: String = all.collect();
    format!("\u{1b}]0;title\u{7}\u{1b}[31m\u{9b}31m\n{FORGED}\r{all}")
}

/// A database whose path, keys, items, events, statistics and neighbouring files all contain these characters.
struct Hostile {
    fixture: Fixture,
    db: PathBuf,
    item: Item,
}

impl Hostile {
    fn new() -> Self {
        let fixture = Fixture::new();
        let evil = harmful();
        let db = fixture.dir.path().join(format!("my{evil}.db"));
        let item = ItemBuilder::new()
            .string(evil.clone(), evil.clone())
            .value("list", Value::L(vec![Value::S(format!("\0{evil}"))]))
            .string("plain", "Zürich 東京 👩‍🚀")
            .build();
        let open = Database::create(&db).unwrap();
        let key = || Key::with_sort(evil.as_bytes().to_vec(), format!("\0{evil}").into_bytes());
        open.put(key(), &item).unwrap();
        open.flush().unwrap();
        open.close().unwrap();
        Self { fixture, db, item }
    }

    fn file(&self, name: impl AsRef<OsStr>, bytes: &[u8]) {
        std::fs::write(self.db.join(name.as_ref()), bytes).unwrap();
    }

    fn with_texts(self) -> Self {
        let evil = harmful();
        let event = json!({"seq": 1, "unix_ms": 1, "event": evil, "stripe": evil, evil.clone(): evil,
                           "changes": [{"name": evil, "old": evil}], "nested": {evil.clone(): evil}});
        // Once escaped by JSON, and once with every character that JSON allows unescaped.
        let raw = evil.replace(|c: char| u32::from(c) < 0x20, "");
        let event =
            format!("{event}\n{{\"seq\":2,\"event\":\"{raw}\",\"{raw}\":\"{raw}\"}}\nnonsense {evil}\n");
        self.file("EVENTS.jsonl", event.as_bytes());
        let stats = json!({
            "schema": "kstone.stats/1", "pid": 1, "unix_ms": u64::MAX, "uptime_ms": u64::MAX,
            "stats": {"poisoned": evil, "background_error": evil, "foreign_files": [evil, "x"],
                      "operations": {"puts": u64::MAX, "deletes": u64::MAX},
                      "reads": {"memtable": u64::MAX, "sealed": u64::MAX, "runs": vec![u64::MAX; 18],
                                "misses": vec![u64::MAX; 18]}},
            "latencies": {"get": {"count": u64::MAX, "max_nanos": u64::MAX}},
        });
        self.file("STATS.json", stats.to_string().as_bytes());
        self.file(harmful(), b"foreign");
        self.file(OsStr::from_bytes(b"no text \xff\x9b31m\n"), b"foreign");
        self
    }

    /// Runs a command in each format; returns the output of `jsonl`.
    fn run(&self, args: &[&OsStr]) -> String {
        let mut last = String::new();
        for format in ["table", "json", "jsonl"] {
            let mut command = self.fixture.run(&["--format", format]);
            let output = command.args(args).write_stdin("").output().unwrap();
            assert!(output.status.code().is_some_and(|code| code <= 6), "{args:?}: {output:?}");
            for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
                let text = String::from_utf8(bytes.clone()).unwrap();
                let bad = text.chars().find(|&c| c != '\n' && !escape::is_shown(c));
                assert_eq!(bad, None, "{name} of {args:?} as {format}: {text:?}");
                assert!(
                    text.lines().all(|line| !line.starts_with(FORGED)),
                    "{name} of {args:?} as {format}: {text}"
                );
            }
            last = String::from_utf8(output.stdout).unwrap();
            if format != "table" {
                let mut values = serde_json::Deserializer::from_str(&last).into_iter::<Json>();
                assert!(values.all(|value| value.is_ok()), "{args:?} as {format}: {last}");
            }
        }
        last
    }
}

/// Symptom: an escape sequence in the kind of an event reached the terminal raw; so did C1, DEL and characters that
/// change the direction of text in names and values of attributes and in details.
/// Cause: each column was escaped separately, or not at all.
/// Fix: one definition of printable characters, with one function for text and one for JSON; and everything written to
/// stdout passes through it once more, whoever printed it.
#[test]
fn nothing_that_acts_on_a_terminal_gets_there() {
    let hostile = Hostile::new().with_texts();
    let evil = harmful();
    let (db, evil_arg, key) = (hostile.db.as_os_str(), OsStr::new(&evil), escape::key(evil.as_bytes()));
    let sort = escape::key(format!("\0{evil}").as_bytes());
    let (key, sort, arg) = (OsStr::new(&key), OsStr::new(&sort), OsStr::new);

    // From files.
    for command in ["info", "stats", "events", "alerts", "scan", "count", "verify", "config", "upgrade"] {
        hostile.run(&[arg(command), db]);
    }
    let found = hostile.run(&[arg("get"), db, key, sort]);
    let found: Json = serde_json::from_str(&found).unwrap();
    assert_eq!(found["item"], hostile.item.to_json());
    assert_eq!(found["sort"].as_str(), sort.to_str());
    let found: Json = serde_json::from_str(&hostile.run(&[arg("scan"), db])).unwrap();
    assert_eq!(found["item"], hostile.item.to_json());
    let events = hostile.run(&[arg("events"), db]);
    let events: Vec<Json> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["event"], evil.as_str());
    assert_eq!(events[1]["event"], evil.replace(|c: char| u32::from(c) < 0x20, "").as_str());
    for args in [
        &[arg("scan"), db, arg("--keys-only")][..],
        &[arg("export"), db],
        &[arg("export"), db, arg("--as"), arg("jsonl")],
        &[arg("export"), db, arg("--key-attr"), evil_arg],
        &[arg("scan"), db, arg("--limit"), arg("1")],
        &[arg("query"), db, key],
        &[arg("explain"), arg("get"), db, key, sort],
        &[arg("explain"), arg("query"), db, key],
        &[arg("verify"), db, arg("--quick")],
        &[arg("repair"), db, arg("--dry-run")],
    ] {
        hostile.run(args);
    }

    // From arguments, valid or not.
    let no_text = OsStr::from_bytes(b"\xff\x9b31m\x1b[31m");
    for args in [
        &[evil_arg][..],
        &[arg("info"), evil_arg],
        &[arg("info"), no_text],
        &[arg("get"), db, evil_arg],
        &[arg("get"), db, no_text],
        &[arg("get"), db, arg("\\q\u{1b}[31m")],
        &[arg("get"), db, evil_arg, evil_arg, evil_arg],
        &[arg("put"), db, evil_arg, arg("{\u{1b}")],
        &[arg("put"), db, evil_arg, arg("{\"a\u{9b}\":1e999}")],
        &[arg("put"), db, arg("k"), arg("{}"), arg("--if"), evil_arg],
        &[arg("update"), db, arg("k"), evil_arg],
        &[arg("update"), db, arg("k"), arg(&format!("SET a = \n\u{1b}[31m{evil}"))],
        &[arg("update"), db, arg("k"), arg("REMOVE #n"), arg("--name"), arg(&format!("#n={evil}"))],
        &[arg("update"), db, arg("k"), arg("SET #n = #n + :v"), arg("--name"), arg(&format!("#n={evil}"))],
        &[
            arg("delete"),
            db,
            arg("k"),
            arg("--if"),
            arg("a = :v"),
            arg("--value"),
            arg(&format!(":v={evil}")),
        ],
        &[arg("delete"), db, key, sort, arg("--if"), arg("item_not_exists()")],
        &[arg("get"), db, key, sort, arg("--project"), evil_arg],
        &[arg("scan"), db, arg("--filter"), evil_arg, arg("--name"), evil_arg, arg("--value"), evil_arg],
        &[arg("scan"), db, arg("--after"), evil_arg],
        &[arg("delete"), db, evil_arg],
        &[arg("query"), db, arg("p"), arg("--limit"), evil_arg],
        &[arg("scan"), db, arg("--stripe"), evil_arg],
        &[arg("scan"), db, arg(&format!("--\u{1b}[31m{evil}"))],
        &[arg("events"), db, arg("--kind"), evil_arg],
        &[arg("import"), db, evil_arg, arg("--key-attr"), evil_arg],
        &[arg("presets"), evil_arg],
        &[arg("config"), arg("set"), db, evil_arg],
        &[arg("config"), arg("set"), db, arg(&format!("{evil}={evil}"))],
        &[arg("config"), arg("set"), db, arg(&format!("read_mode={evil}"))],
        &[arg("stats"), db, arg(&format!("--watch={evil}"))],
        &[arg("model"), arg("--items"), evil_arg, arg("--item-size"), evil_arg],
        &[arg("destroy"), db],
        &[arg("destroy"), evil_arg, arg("--yes")],
        &[arg("backup"), db, evil_arg],
        &[arg("create"), evil_arg],
        &[arg("create"), evil_arg],
        &[arg("repair"), db, arg("--dry-run"), arg("--report"), evil_arg],
        &[arg("repair"), db],
        &[arg("compact"), db],
        &[arg("repair"), arg(&format!("none{evil}")), arg("--yes")],
    ] {
        hostile.run(args);
    }
}

#[test]
fn nothing_that_acts_on_a_terminal_comes_out_of_a_damaged_database() {
    let commands = ["info", "stats", "events", "alerts", "scan", "count", "verify", "compact"];
    let (arg, damages) = (OsStr::new, ["STATS.json", "EVENTS.jsonl", "MANIFEST", "sst", "LOCK"]);
    for damage in damages {
        let hostile = Hostile::new().with_texts();
        let evil = harmful();
        let path = match damage {
            "sst" => {
                let names = std::fs::read_dir(&hostile.db).unwrap().map(|entry| entry.unwrap().path());
                names.filter(|path| path.extension().is_some_and(|ext| ext == "sst")).min().unwrap()
            }
            name => hostile.db.join(name),
        };
        if damage == "LOCK" {
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(&path).unwrap();
        } else {
            std::fs::write(&path, evil).unwrap();
        }
        let db = hostile.db.as_os_str();
        for command in commands {
            hostile.run(&[arg(command), db]);
        }
        hostile.run(&[arg("get"), db, arg("k")]);
        hostile.run(&[arg("repair"), db, arg("--dry-run")]);
        hostile.run(&[arg("repair"), db, arg("--into"), arg("new\u{1b}.db")]);
        hostile.run(&[arg("repair"), db, arg("--yes")]);
        hostile.run(&[arg("verify"), db]);
    }
}

/// Arguments that are not UTF-8 are answered with a hint how to write such keys.
#[test]
fn keys_that_are_no_text_are_told_how_to_be_given() {
    let db = Fixture::created();
    let mut command = db.run(&["get", "my.db"]);
    let output = command.arg(OsStr::from_bytes(b"a\xff")).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(err.contains("hint: ") && err.contains("\\xNN"), "{err}");
}

/// Symptom: the item under the empty sort key looked like the one without a sort key.
/// Cause: nothing was printed for either. Fix: an empty sort key is printed as `""`.
#[test]
fn the_empty_sort_key_is_not_none() {
    let db = Fixture::created();
    for sort in [&[][..], &[""], &["\"\""]] {
        db.run(&[&["put", "my.db", "k"], sort, &["{}"]].concat()).assert().success();
    }
    assert_eq!(db.stdout(&["scan", "my.db", "--keys-only"]), "KEY  SORT\nk\nk    \"\"\nk    \\x22\\x22\n");
    db.run(&["get", "my.db", "j", ""]).assert().code(1).stderr("error: there is no item under j \"\"\n");
    db.run(&["get", "my.db", "j"]).assert().code(1).stderr("error: there is no item under j\n");
    assert_eq!(db.stdout(&["get", "my.db", "k", "\\x22\\x22"]), "{}\n");
    assert_eq!(ssts(&db).len(), 0);
}

/// Symptom: a table of 40 items of 31 MB took 1.3 GB, and one item of 8 MiB took 1.8 s instead of 0.1 s.
/// Cause: 1,000 rows were buffered whatever their length, and each was laid out in full, character by character.
/// Fix: a page also ends when its text reaches a limit, and long items are cut off, with their size.
#[test]
fn long_items_are_shortened_in_a_table_and_whole_in_json() {
    let db = Fixture::created();
    let open = Database::open(db.dir.path().join("my.db")).unwrap();
    for n in 0..40 {
        let text = if n == 7 { "é".repeat(4 << 20) } else { "x".repeat(1 << 20) };
        open.put(format!("k{n:02}").into_bytes(), ItemBuilder::new().string("a", text)).unwrap();
    }
    open.put("short", ItemBuilder::new().string("a", "b")).unwrap();
    open.close().unwrap();
    let limited = |args: &[&str]| {
        // Without enough memory for all of it.
        let mut command = assert_cmd::Command::new("sh");
        command.current_dir(db.dir.path()).args(["-c", "ulimit -v 350000; exec \"$0\" \"$@\""]);
        command.arg(assert_cmd::cargo::cargo_bin("kstone")).args(args);
        String::from_utf8(command.assert().success().get_output().stdout.clone()).unwrap()
    };
    for args in [&["scan", "my.db"][..], &["query", "my.db", "k07"]] {
        let table = limited(args);
        assert!(table.lines().all(|line| line.len() < 1200), "{}", table.len());
        let long = table.lines().find(|line| line.starts_with("k07")).unwrap();
        assert!(long.contains("{\"a\":\"éé") && long.ends_with("é… (8.0 MiB in all)"), "{long}");
    }
    assert!(limited(&["scan", "my.db"]).lines().any(|line| line.ends_with("  {\"a\":\"b\"}")));
    let whole = db.stdout(&["get", "my.db", "k07"]);
    assert_eq!(whole.len(), "{\"a\":\"\"}\n".len() + (8 << 20));
    let lines = limited(&["scan", "my.db", "--format", "jsonl"]);
    assert_eq!(
        lines.lines().nth(7).unwrap().len(),
        "{\"key\":\"k07\",\"item\":{\"a\":\"\"}}".len() + (8 << 20)
    );
}
