//! A directory from an untrusted source: every name in it, as every kind of file, for every command.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::contains;

use crate::{Fixture, flushed};

/// Each of these commands takes less than 0.1 s, but one that opens a FIFO without a peer blocks for ever.
const WATCHDOG: Duration = Duration::from_secs(60);
/// Limit on a command's address space, in KiB: far below what reading an endless file would take.
const MEMORY: &str = "1500000";
const SECRET: &str = "a secret of another user";

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A link to a file elsewhere: to a copy of the original, if there was one, so that following the link would work.
    Link,
    HardLink,
    /// A link to a path that does not exist: following it creates a file.
    Dangling,
    Endless,
    LinkedDir,
    Fifo,
    Dir,
    Socket,
}

const KINDS: [Kind; 8] = [
    Kind::Link,
    Kind::HardLink,
    Kind::Dangling,
    Kind::Endless,
    Kind::LinkedDir,
    Kind::Fifo,
    Kind::Dir,
    Kind::Socket,
];

/// All names in a database directory, those that exist and those that KeystoneDB may create.
fn names(db: &Path) -> Vec<String> {
    let mut found: Vec<String> =
        db.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    let one = |end: &str| found.iter().find(|name| name.ends_with(end)).unwrap().clone();
    let (sst, log) = (one(".sst"), one(".log"));
    let mut names: Vec<String> = [
        "LOCK",
        "MANIFEST",
        "MANIFEST.tmp",
        "255-999999.sst",
        "wal-000002.log",
        "wal-000099.log",
        "EVENTS.jsonl",
        "EVENTS.jsonl.1",
        "EVENTS.jsonl.3",
        "STATS.json",
        "STATS.json.tmp",
        "quarantine",
        "BACKUP.unfinished",
    ]
    .map(String::from)
    .to_vec();
    names.extend([format!("{sst}.repair"), sst, log]);
    names
}

/// A database, a directory `outside` next to it, and a file of the given kind under the given name.
struct Case {
    db: Fixture,
    outside: PathBuf,
    what: String,
    name: String,
    kind: Kind,
    _socket: Option<UnixListener>,
}

impl Case {
    fn new(template: &Path, name: &str, kind: Kind) -> Self {
        let db = Fixture::new();
        let (dir, outside) = (db.dir.path().join("my.db"), db.dir.path().join("outside"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::create_dir_all(outside.join("dir")).unwrap();
        std::fs::write(outside.join("dir/file"), SECRET).unwrap();
        for entry in template.read_dir().unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
        }
        let (path, target) = (dir.join(name), outside.join("target"));
        if path.exists() {
            std::fs::rename(&path, &target).unwrap();
        } else {
            let event = format!("{{\"seq\":1,\"unix_ms\":1,\"event\":\"flush\",\"x\":\"{SECRET}\"}}\n");
            std::fs::write(&target, event).unwrap();
        }
        let mut socket = None;
        match kind {
            Kind::Link => symlink(&target, &path).unwrap(),
            Kind::HardLink => std::fs::hard_link(&target, &path).unwrap(),
            Kind::Dangling => symlink(outside.join("none"), &path).unwrap(),
            Kind::Endless => symlink("/dev/zero", &path).unwrap(),
            Kind::LinkedDir => symlink(outside.join("dir"), &path).unwrap(),
            Kind::Fifo => {
                assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            }
            Kind::Dir => {
                std::fs::create_dir(&path).unwrap();
                std::fs::write(path.join("file"), SECRET).unwrap();
            }
            Kind::Socket => socket = Some(UnixListener::bind(&path).unwrap()),
        }
        Self { db, outside, what: format!("{name} as {kind:?}"), name: name.into(), kind, _socket: socket }
    }

    /// Runs a command and checks that it ends, names the file if it fails, and neither touches nor prints anything
    /// outside.
    fn run(&self, args: &[&str]) {
        let before = contents(&self.outside);
        let mut command = Command::new("sh");
        command.current_dir(self.db.dir.path()).timeout(WATCHDOG);
        command.args(["-c", &format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\"")]);
        command.arg(assert_cmd::cargo::cargo_bin("kstone")).args(args);
        let output = command.write_stdin("{\"k\":\"imported\"}\n").output().unwrap();
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let what = format!("{}: kstone {}\n{out}{err}", self.what, args.join(" "));
        // `None`: the process was killed, by the watchdog or for lack of memory.
        let code = output.status.code().expect(&what);
        assert!((0..=6).contains(&code), "{code}: {what}");
        if code > 1 {
            assert!(err.starts_with("error: ") || err.starts_with("{\"error\":"), "{what}");
            let told = out.contains(&self.name) || err.contains(&self.name);
            // If MANIFEST or the log is a link, its contents are lost; `create` fails because the directory is a
            // database.
            assert!(told || code == 6 || args[0] == "create", "the error does not name the file: {what}");
        }
        // Reading through a second hard link is harmless.
        let printed = out.contains(SECRET) || err.contains(SECRET);
        assert!(!printed || matches!(self.kind, Kind::HardLink), "{what}");
        assert_eq!(contents(&self.outside), before, "{what}");
    }
}

/// All files under a directory, and the targets of links.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in dir.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if let Ok(target) = path.read_link() {
            found.insert(path, target.into_os_string().into_encoded_bytes());
        } else if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// A database with SSTs, a log and events.
fn template() -> Fixture {
    let db = flushed();
    db.run(&["put", "my.db", "US", "in the log", "{}"]).assert().success();
    db
}

fn for_each_case(check: impl Fn(&dyn Fn() -> Case) + Sync) {
    let template = template();
    let dir = template.dir.path().join("my.db");
    let names = names(&dir);
    let cases: Vec<_> = names.iter().flat_map(|name| KINDS.map(|kind| (name, kind))).collect();
    println!("{} names x {} kinds of things", names.len(), KINDS.len());
    assert!(names.len() >= 16);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (cases, check, dir) = (&cases, &check, &dir);
            scope.spawn(move || {
                for (name, kind) in cases.iter().skip(worker).step_by(4) {
                    check(&|| Case::new(dir, name, *kind));
                }
            });
        }
    });
}

/// Symptom: a FIFO named `EVENTS.jsonl` or `STATS.json` made `events`, `stats` and `alerts` hang for ever; a link to an
/// endless file filled memory, and a link to another user's file printed it.
/// Cause: these commands did not open files the way the engine does.
/// Fix: one way to open the files of a database, for the whole product.
#[test]
fn whatever_a_name_is_commands_that_look_end_and_touch_nothing_outside() {
    for_each_case(|case| {
        let case = case();
        let looks: [&[&str]; 21] = [
            &["info", "my.db"],
            &["stats", "my.db"],
            &["events", "my.db"],
            &["events", "my.db", "--format", "json"],
            &["alerts", "my.db"],
            &["get", "my.db", "US", "KJFK"],
            &["query", "my.db", "US"],
            &[
                "query",
                "my.db",
                "US",
                "--filter",
                "attribute_exists(city)",
                "--project",
                "city",
                "--limit",
                "1",
            ],
            &["scan", "my.db"],
            &["count", "my.db"],
            &["explain", "get", "my.db", "US", "KJFK"],
            &["verify", "my.db"],
            &["verify", "my.db", "--quick"],
            &["repair", "my.db", "--dry-run"],
            &["backup", "my.db", "copy.db"],
            &["files", "my.db"],
            &["stripes", "my.db"],
            &["find", "my.db", "US", "KJFK"],
            &["hist", "my.db", "versions"],
            &["big", "my.db"],
            &["manifest", "dump", "my.db"],
        ];
        for look in looks {
            case.run(look);
        }
        case.run(&["repair", "my.db", "--into", "new.db"]);
        let file = format!("my.db/{}", case.name);
        for command in ["sst", "wal"] {
            case.run(&[command, "dump", &file]);
            case.run(&[command, "verify", &file]);
        }
    });
}

/// Symptom: with a `quarantine` that is a link, `repair` moved files out of the directory; a hard link named `LOCK`,
/// `EVENTS.jsonl` or `MANIFEST.tmp` was written through.
/// Cause and fix: as above; files written in place must have a single name, and new ones are created exclusively.
#[test]
fn whatever_a_name_is_commands_that_write_end_and_touch_nothing_outside() {
    for_each_case(|case| {
        let writes: [&[&str]; 7] = [
            &["put", "my.db", "k", "{}"],
            &["update", "my.db", "US", "KJFK", "REMOVE city", "--if", "item_exists()"],
            &["delete", "my.db", "US", "KJFK"],
            &["import", "my.db", "--key-attr", "k"],
            &["compact", "my.db"],
            &["create", "my.db"],
            &["repair", "my.db", "--yes"],
        ];
        for write in writes {
            let case = case();
            case.run(write);
            case.run(&["count", "my.db"]);
            // Once more, on the state that the first run left.
            case.run(write);
        }
    });
}

/// Symptom: `repair --report FILE` overwrote existing files and followed links; `--report DB/MANIFEST` destroyed the
/// manifest.
/// Cause: the file was created or truncated, wherever it was.
/// Fix: it is created exclusively, and never in the database.
#[test]
fn a_report_replaces_no_file_and_is_not_in_the_database() {
    let db = flushed();
    db.file("mine.txt", b"mine");
    symlink(db.dir.path().join("mine.txt"), db.dir.path().join("link")).unwrap();
    symlink(db.dir.path().join("elsewhere"), db.dir.path().join("dangling")).unwrap();
    symlink(db.dir.path().join("my.db"), db.dir.path().join("linked.db")).unwrap();
    std::fs::create_dir(db.dir.path().join("my.db/quarantine")).unwrap();
    let before = contents(db.dir.path());
    let repair = |report: &str| db.run(&["repair", "my.db", "--dry-run", "--report", report]).assert();
    for (report, code, why) in [
        ("mine.txt", 4, "error: the report mine.txt exists already\nhint: choose a new name"),
        ("link", 4, "error: the report link exists already\n"),
        ("dangling", 4, "error: the report dangling exists already\n"),
        (
            "my.db/MANIFEST",
            2,
            "error: the report my.db/MANIFEST would be inside the database\nhint: choose a path",
        ),
        ("my.db/lost.jsonl", 2, "would be inside the database"),
        ("my.db/../my.db/quarantine/lost.jsonl", 2, "would be inside the database"),
        ("linked.db/lost.jsonl", 2, "would be inside the database"),
        ("my.db", 4, "exists already"),
        ("none/lost.jsonl", 4, "error: cannot write none/lost.jsonl: No such file"),
    ] {
        repair(report).code(code).stdout("").stderr(contains(why));
        assert_eq!(contents(db.dir.path()), before, "{report}");
    }
    for into in ["my.db/copy", "linked.db/copy", "my.db/quarantine/copy"] {
        let refused = db.run(&["repair", "my.db", "--into", into]).assert().code(2);
        refused.stdout("").stderr(contains(format!("error: the copy {into} would be inside the database\n")));
        assert_eq!(contents(db.dir.path()), before, "{into}");
    }
    // Also through a link to the database.
    db.run(&["repair", "linked.db", "--dry-run", "--report", "my.db/lost.jsonl"]).assert().code(2);
    // A repair that did not start leaves no report behind.
    db.run(&["repair", "none.db", "--yes", "--report", "lost.jsonl"]).assert().code(4);
    assert!(!db.dir.path().join("lost.jsonl").exists());
    repair("lost.jsonl").success();
    assert!(db.dir.path().join("lost.jsonl").exists());
}

/// Paths that the user names may be anything: links and FIFOs are as good as files.
#[test]
fn the_users_own_paths_may_be_links_and_fifos() {
    let db = flushed();
    symlink(db.dir.path().join("my.db"), db.dir.path().join("linked.db")).unwrap();
    assert_eq!(db.stdout(&["count", "linked.db"]), "3\n");
    db.run(&["put", "linked.db", "k", "{}"]).assert().success();
    db.run(&["compact", "linked.db"]).assert().success();
    db.run(&["verify", "linked.db"]).assert().success();
    db.file("lines.jsonl", b"{\"k\":\"a\"}\n");
    symlink(db.dir.path().join("lines.jsonl"), db.dir.path().join("link")).unwrap();
    db.run(&["import", "my.db", "link", "--key-attr", "k"]).assert().success();
    let fifo = db.dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::thread::scope(|scope| {
        scope.spawn(|| std::fs::write(&fifo, "{\"k\":\"b\"}\n").unwrap());
        db.run(&["import", "my.db", "fifo", "--key-attr", "k"]).timeout(WATCHDOG).assert().success();
    });
    assert_eq!(db.stdout(&["count", "my.db"]), "6\n");
}

/// A backup shares SSTs with the original, and SSTs are only read.
#[test]
fn a_backup_that_shares_its_files_can_be_used_as_any_database() {
    let db = flushed();
    assert!(db.stdout(&["backup", "my.db", "copy.db"]).contains("2 linked"));
    for name in ["my.db", "copy.db"] {
        db.run(&["put", name, "k", "{}"]).assert().success();
        db.run(&["compact", name]).assert().success();
        db.run(&["verify", name]).assert().success().stdout(contains("CORRUPT").not());
        db.run(&["repair", name, "--yes"]).assert().success();
        assert_eq!(db.stdout(&["count", name]), "4\n");
    }
}
