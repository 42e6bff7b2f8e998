//! All input, and how reading it ends: `import` and `put -`, and how other long-running commands end.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use kstone_api::{CompactionConfig, Database, DatabaseConfig};
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use crate::Fixture;

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// `count` lines whose keys are numbered from `from`.
pub(crate) fn lines(from: usize, count: usize, bytes: usize) -> String {
    (from..from + count)
        .map(|n| format!("{{\"k\":\"k{n:06}\",\"text\":\"{}\"}}\n", "x".repeat(bytes)))
        .collect()
}

impl Fixture {
    /// With an empty database of this configuration.
    fn configured(config: DatabaseConfig) -> Self {
        let fixture = Self::new();
        Database::builder(fixture.dir.path().join("my.db")).config(config).create().unwrap().close().unwrap();
        fixture
    }

    fn import(&self, more: &[&str]) -> assert_cmd::Command {
        self.run(&[&["import", "my.db", "--key-attr", "k"], more].concat())
    }

    pub(crate) fn count(&self) -> u64 {
        self.stdout(&["count", "my.db"]).trim().parse().unwrap()
    }

    pub(crate) fn spawn(&self, args: &[&str], stdin: impl Into<Stdio>) -> Child {
        Process::new(assert_cmd::cargo::cargo_bin("kstone"))
            .current_dir(self.dir.path())
            .args(args)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

/// Symptom: with `max_batch_bytes` of 64 KiB, none of 8,000 airports were stored, with or without `--on-error skip`.
/// Cause: the batch size was a constant. Fix: it follows the limit, and a rejected batch is split in half.
#[test]
fn batches_follow_the_limits_of_the_database() {
    let small = || DatabaseConfig::new().with_stripes(2).with_max_item_bytes(2000).with_max_key_bytes(64);
    for (config, what) in [
        (small().with_max_batch_bytes(2000), "max_batch_bytes"),
        (small().with_max_batch_bytes(64 << 10), "max_batch_bytes"),
        // A batch of this size does not fit into the log, which has a limit of its own.
        (small().with_wal_segment_size(64 << 10).with_max_wal_size_bytes(140 << 10), "max_wal_size_bytes"),
        (small().with_wal_segment_size(64 << 10).with_max_total_disk_bytes(8 << 20), "max_total_disk_bytes"),
    ] {
        config.validate().unwrap();
        let db = Fixture::configured(config);
        db.import(&[])
            .write_stdin(lines(0, 1500, 100) + &lines(1500, 300, 1900))
            .assert()
            .success()
            .stdout("imported 1,800 items\n")
            .stderr(is_empty());
        assert_eq!(db.count(), 1800, "{what}");
    }
}

/// An item that can never be stored is one bad line wherever it is in the input; the largest valid item is accepted.
#[test]
fn an_item_past_a_limit_is_one_bad_line() {
    let config =
        DatabaseConfig::new().with_max_item_bytes(1000).with_max_batch_bytes(1000).with_max_key_bytes(20);
    let db = Fixture::configured(config);
    // The size of the largest item, including its header and names.
    let item = |text: usize| format!("{{\"k\":\"largest\",\"t\":\"{}\"}}", "x".repeat(text));
    let most = (900..1000)
        .rev()
        .find(|&len| kstone_api::Item::from_json_str(&item(len)).unwrap().encode().unwrap().len() <= 1000);
    let text = format!(
        "{{\"k\":\"a\"}}\n{}\n{}\n{{\"k\":\"{}\"}}\n{{\"k\":\"b\",\"t\":[{}]}}\n{}{{\"k\":\"z\"}}\n",
        item(most.unwrap()),
        item(most.unwrap() + 1),
        "k".repeat(21),
        vec!["0"; 400].join(","),
        lines(0, 10, 100_000),
    );
    db.import(&["--on-error", "skip"])
        .write_stdin(text.clone())
        .assert()
        .code(6)
        .stdout("imported 3 items, rejected 13 lines\n")
        .stderr(contains("warning: line 3: the item is longer than the limit of 1000 bytes"))
        .stderr(contains("warning: line 4: its key is 21 bytes, the limit is 20"))
        .stderr(contains("warning: line 5: the item is longer than the limit"))
        .stderr(contains("warning: line 15: the item is longer"));
    db.import(&[])
        .write_stdin(text)
        .assert()
        .code(6)
        .stderr(starts_with("error: line 3: the item is longer"));
    db.run(&["put", "my.db", "k", "-"])
        .write_stdin(item(5000))
        .assert()
        .code(2)
        .stderr("error: the item is longer than the limit of 1000 bytes\nhint: split the item\n");
    db.run(&["put", "my.db", "k", &item(5000), "--format", "json"])
        .assert()
        .code(2)
        .stderr(contains("\"code\":\"item_too_large\""));
    db.run(&["put", "my.db", "k", "-"]).write_stdin(item(most.unwrap())).assert().success();
}

/// Symptom: a full disk or a reached quota ended an import with nothing but the error.
/// Cause: only a bad line led to a result. Fix: every ending does, with the line to continue from.
#[test]
fn a_full_disk_tells_what_is_stored_and_where_to_go_on() {
    let config = || {
        DatabaseConfig::new()
            .with_stripes(2)
            .with_wal_segment_size(64 << 10)
            .with_max_total_disk_bytes(2 << 20)
    };
    let db = Fixture::configured(config());
    let text = lines(0, 8_000, 200);
    let output =
        db.import(&["--format", "json"]).write_stdin(text.clone()).assert().code(4).get_output().clone();
    let result: Json = serde_json::from_slice(&output.stdout).unwrap();
    let (imported, next) = (result["imported"].as_u64().unwrap(), result["next_line"].as_u64().unwrap());
    assert!(imported > 100 && next == imported + 1, "{result}");
    assert_eq!(db.count(), imported);
    let error: Json = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["code"], "disk_full");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains(&format!("--from-line {next}")), "{message}");
    db.run(&["verify", "my.db"]).assert().success();
    // With enough space, the import continues from there.
    let open = Database::builder(db.dir.path().join("my.db"))
        .config(config().with_max_total_disk_bytes(256 << 20))
        .open()
        .unwrap();
    open.close().unwrap();
    let rest = format!("imported {} items\n", 8_000 - imported);
    let ungrouped = |text: &str| text.replace(',', "") == rest;
    db.import(&["--from-line", &next.to_string()])
        .write_stdin(text)
        .assert()
        .success()
        .stdout(predicate::function(ungrouped));
    assert_eq!(db.count(), 8_000);
}

/// Symptom: an input that failed while being read, or whose compressed data was damaged, ended without a result;
/// nothing of the last batch was stored.
/// Cause: the error returned early. Fix: items before the error are stored, counted and reported, whatever the error.
#[test]
fn what_came_before_a_damaged_input_is_stored() {
    let text = lines(0, 1200, 30);
    let whole = gzip(text.as_bytes());
    let ends = |name: &str, bytes: &[u8], reason: &str, least: u64| {
        let db = Fixture::created();
        db.file(name, bytes);
        let output = db.import(&[name, "--format", "json"]).assert().failure().get_output().clone();
        // Damaged data may decompress to invalid lines before the damage is detected.
        assert!(output.status.code() == Some(4) || reason.is_empty(), "{name}: {output:?}");
        let result: Json = serde_json::from_slice(&output.stdout).unwrap();
        let imported = result["imported"].as_u64().unwrap();
        assert!((least..=1200).contains(&imported), "{name}: {result}");
        assert_eq!(result["next_line"], imported + 1, "{name}");
        assert_eq!(db.count(), imported, "{name}");
        let error: Json = serde_json::from_slice(&output.stderr).unwrap();
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(reason) && message.contains(&format!("line {}", imported + 1)), "{message}");
        assert!(
            error["error"]["hint"].as_str().unwrap().contains("the lines before it are imported"),
            "{error}"
        );
    };
    ends("cut.gz", &whole[..whole.len() * 3 / 4], "the compressed data is cut short", 500);
    // The last bytes are the checksum and the length.
    ends("no-trailer.gz", &whole[..whole.len() - 8], "cut short", 1200);
    let mut bytes = whole.clone();
    bytes[whole.len() - 8] ^= 1;
    ends("checksum.gz", &bytes, "checksum", 1200);
    let mut bytes = whole.clone();
    bytes.truncate(whole.len() / 2);
    bytes.extend([0xff; 3000]);
    ends("damaged.gz", &bytes, "", 1);
    ends("garbage.gz", &[whole.as_slice(), b"garbage"].concat(), "neither padding nor gzip", 1200);
    ends("header.gz", &[whole.as_slice(), &[0x1f, 0x8b, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat(), "", 1200);
    ends("half-header.gz", &[whole.as_slice(), &[0x1f]].concat(), "cut short", 1200);
}

/// As gzip(1) reads them: members in sequence, with zeros after them.
#[test]
fn gzip_members_and_padding_are_read() {
    let (first, second) = (gzip(lines(0, 700, 3).as_bytes()), gzip(lines(700, 300, 3).as_bytes()));
    let zeros = vec![0; 300_000];
    for (name, parts) in [
        ("zeros", vec![&first, &second, &zeros]),
        ("between", vec![&first, &zeros, &second]),
        ("members", vec![&first, &second]),
    ] {
        let db = Fixture::created();
        let file = format!("{name}.gz");
        db.file(&file, &parts.into_iter().flatten().copied().collect::<Vec<_>>());
        db.import(&[&file]).assert().success().stdout("imported 1,000 items\n").stderr(is_empty());
    }
    // A line that continues in the next member.
    let db = Fixture::created();
    let halves = [gzip(b"{\"k\":"), gzip(b"\"a\"}\n"), gzip(b""), gzip(b"{\"k\":\"b\"}")].concat();
    db.import(&[]).write_stdin(halves).assert().success().stdout("imported 2 items\n");
}

/// A terminal whose other side is closed fails reads with EIO, after the data written before.
#[test]
fn what_came_before_a_read_error_is_stored() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let db = Fixture::created();
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let mut theirs = File::options().write(true).open(name.to_str().unwrap()).unwrap();
    // Less than a terminal buffers.
    theirs.write_all((lines(0, 20, 3) + "{\"k\":\"cut").as_bytes()).unwrap();
    drop(theirs);
    let output = db.spawn(&["import", "my.db", "--key-attr", "k"], ours).wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*stdout), (Some(4), "imported 20 items\n"), "{stderr}");
    assert!(
        stderr.starts_with("error: cannot read line 21 of -: ") && stderr.contains("os error 5"),
        "{stderr}"
    );
    assert!(stderr.contains("\nhint: ") && stderr.contains("--from-line 21"), "{stderr}");
    assert_eq!(db.count(), 20);
    // An input that cannot be read at all.
    db.run(&["import", "my.db", ".", "--key-attr", "k"]).assert().code(4).stderr(contains("cannot read ."));
}

/// Waits until the process has drained the pipe and waits for more.
pub(crate) fn wait_until_it_waits(child: &Child, pipe: &impl std::os::fd::AsFd) {
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let state = stat.rsplit(')').next().unwrap().trim().chars().next().unwrap();
        assert!("RSD".contains(state), "it has ended: {stat}");
        if rustix::io::ioctl_fionread(pipe).unwrap() == 0 && state == 'S' && catches_signals(child) {
            return;
        }
        std::thread::yield_now();
    }
}

/// Whether the process has a handler for SIGINT.
pub(crate) fn catches_signals(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"));
    caught.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask & 2 != 0)
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Symptom: Ctrl-C killed an import, which printed nothing, lost the items of the last batch, and left a database that
/// needed recovery. Cause: nothing handled signals. Fix: the command does, also while it waits for input.
#[test]
fn an_interrupted_import_closes_and_tells() {
    for which in [Signal::INT, Signal::TERM] {
        let db = Fixture::created();
        let (read, write) = std::io::pipe().unwrap();
        let (read, mut write) = (OwnedFd::from(read), File::from(OwnedFd::from(write)));
        let child = db.spawn(&["import", "my.db", "--key-attr", "k"], read);
        // 700 lines: more than a batch.
        write.write_all((lines(0, 700, 3) + "{\"k\":\"c").as_bytes()).unwrap();
        wait_until_it_waits(&child, &write);
        signal(&child, which);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "imported 700 items\n");
        assert_eq!(
            stderr,
            "error: interrupted: at line 701\nhint: the lines before it are imported; --from-line 701 continues there\n"
        );
        // Cleanly closed: there is nothing to recover.
        let open = Database::open(db.dir.path().join("my.db")).unwrap();
        assert!(open.stats().unwrap().recovery.clean);
        open.close().unwrap();
        assert_eq!(db.count(), 700);
    }
    // Before any input, and before there is a database.
    let db = Fixture::new();
    let (read, write) = std::io::pipe().unwrap();
    let child = db.spawn(&["import", "my.db", "--key-attr", "k", "--create"], OwnedFd::from(read));
    wait_until_it_waits(&child, &write);
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0), "{output:?}");
    assert!(!db.dir.path().join("my.db").exists());
}

/// The second signal ends the process even while it is blocked, here in opening a FIFO without a writer.
#[test]
fn a_second_signal_ends_it_at_once() {
    let db = Fixture::created();
    assert!(Process::new("mkfifo").arg(db.dir.path().join("pipe")).status().unwrap().success());
    let mut child = db.spawn(&["import", "my.db", "pipe", "--key-attr", "k"], Stdio::null());
    while !catches_signals(&child) {
        std::thread::yield_now();
    }
    // The first signal may arrive at any time before the process blocks; the handler records it.
    signal(&child, Signal::INT);
    let ended = loop {
        signal(&child, Signal::TERM);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::yield_now();
    };
    assert_eq!(ended.code(), Some(130));
    assert_eq!(db.count(), 0);
}

/// Each command is interrupted as early as it can notice. Sometimes it has already ended; then it must be complete.
#[test]
fn other_commands_that_are_interrupted_leave_nothing_half_made() {
    let compaction = CompactionConfig::disabled();
    let db = Fixture::new();
    let path = db.dir.path().join("my.db");
    let open = Database::builder(&path).compaction(compaction).create().unwrap();
    for round in 0..3 {
        for n in 0..5000 {
            let item = kstone_api::ItemBuilder::new().string("text", "x".repeat(300)).number("round", round);
            open.put(format!("k{n}").into_bytes(), item).unwrap();
        }
        open.flush().unwrap();
    }
    open.close().unwrap();
    let clean = |db: &str, fixture: &Fixture| {
        fixture.run(&["verify", db]).assert().success();
        assert_eq!(fixture.stdout(&["count", db]), "5000\n");
    };
    for args in [
        &["backup", "my.db", "copy.db", "--copy"][..],
        &["verify", "my.db"],
        &["repair", "my.db", "--into", "new.db"],
        &["repair", "my.db", "--yes"],
        &["compact", "my.db"],
    ] {
        let (mut interrupted, mut tries) = (0, 0);
        while interrupted < 2 && tries < 20 {
            tries += 1;
            let child = db.spawn(args, Stdio::null());
            while !catches_signals(&child) {
                std::thread::yield_now();
            }
            // At different moments of the run, the earliest at first: on a busy machine it may be over soon.
            for _ in 0..(tries - 1) % 5 * 20 {
                std::thread::yield_now();
            }
            signal(&child, Signal::INT);
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let made = args.iter().find(|arg| ["copy.db", "new.db"].contains(arg));
            match output.status.code() {
                Some(0) => made.into_iter().for_each(|made| clean(made, &db)),
                Some(130) => {
                    interrupted += 1;
                    assert!(stderr.starts_with("error: interrupted: "), "{args:?}: {stderr}");
                    if let Some(made) = made {
                        let left = std::fs::read_dir(db.dir.path().join(made)).map_or(0, Iterator::count);
                        assert_eq!(left, 0, "{args:?}");
                    }
                }
                code => panic!("{args:?}: {code:?} {stderr}"),
            }
            if let Some(made) = made {
                let _ = std::fs::remove_dir_all(db.dir.path().join(made));
            }
            assert!(!path.join("quarantine").exists(), "{args:?}");
        }
        println!("{args:?}: interrupted {interrupted} times in {tries} tries");
        assert!(interrupted > 0, "{args:?}: it was never interrupted");
    }
    clean("my.db", &db);
}

/// Symptom: the first item of a file with a byte order mark was a bad line. Cause: the mark was parsed as JSON. Fix: it
/// is skipped, also in the middle of concatenated files; UTF-16, which has other marks, is reported as such.
#[test]
fn a_byte_order_mark_loses_nothing() {
    let text = "\u{feff}{\"k\":\"a\"}\r\n{\"k\":\"b\"}\r\n\u{feff}{\"k\":\"c\"}\n\u{feff}\n";
    for bytes in [text.as_bytes().to_vec(), gzip(text.as_bytes())] {
        let db = Fixture::created();
        db.import(&[]).write_stdin(bytes).assert().success().stdout("imported 3 items\n").stderr(is_empty());
        db.run(&["get", "my.db", "a"]).assert().success();
    }
    let db = Fixture::created();
    db.import(&[]).write_stdin("\u{feff}").assert().success().stdout("imported 0 items\n");
    db.run(&["put", "my.db", "p", "-"]).write_stdin("\u{feff}{\"a\":1}").assert().success();
    let utf16 = |big: bool, mark: &str| -> Vec<u8> {
        let units = (mark.to_owned() + "{\"k\":\"a\"}\n").encode_utf16().collect::<Vec<_>>();
        units.into_iter().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    };
    for (big, mark) in [(false, "\u{feff}"), (true, "\u{feff}"), (false, ""), (true, "")] {
        for bytes in [utf16(big, mark), gzip(&utf16(big, mark))] {
            db.import(&["--on-error", "skip"]).write_stdin(bytes).assert().code(4).stderr(starts_with(
                "error: cannot read -: it is UTF-16, not JSON Lines in UTF-8; convert it with `iconv -f UTF-16",
            ));
        }
    }
    db.import(&[]).write_stdin(&b"\x28\xb5\x2f\xfd    "[..]).assert().code(4).stderr(contains("`zstd -dc`"));
}

/// Symptom: with 1, 1.0, "1", 10 and 2 as keys, 10 sorted before 2, 1.0 and 1 were different keys, "1" replaced 1, and
/// there was no warning. Cause: a number becomes a key as its text. Fix: a warning says so, and replaced items are
/// counted; with `--key-type N` and `--sort-type N`, keys sort as numbers.
#[test]
fn numbers_are_keys_as_numbers_where_that_is_asked_for() {
    let text =
        "{\"k\":1,\"n\":1}\n{\"k\":1.0}\n{\"k\":\"1\"}\n{\"k\":10}\n{\"k\":2}\n{\"k\":-3.5}\n{\"k\":1e0}\n";
    let db = Fixture::created();
    db.import(&[])
        .write_stdin(text)
        .assert()
        .success()
        .stdout("imported 7 items, 1 replaced\n")
        .stderr(
            starts_with("warning: 6 items had a number as a key, stored as text: ")
                .and(contains("--key-type N")),
        )
        .stderr(predicate::function(|stderr: &str| stderr.lines().count() == 1));
    // Replaced within one batch, across batches, and from before the import.
    db.import(&["--key-type", "S"])
        .write_stdin(text)
        .assert()
        .success()
        .stdout("imported 7 items, 7 replaced\n")
        .stderr(is_empty());

    let db = Fixture::created();
    db.import(&["--key-type", "N", "--on-error", "skip"])
        .write_stdin(text)
        .assert()
        .code(6)
        .stdout("imported 6 items, 2 replaced, rejected 1 line\n")
        .stderr(contains("warning: line 3: attribute \"k\" is not a number"));
    let keys = |args: &[&str]| {
        let items = db.json(args);
        let items = items["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&["scan", "my.db", "--keys-only", "--key-type", "n"]), ["-3.5", "1", "2", "10"]);
    assert_eq!(keys(&["scan", "my.db", "--keys-only"])[2], "\\x81\\x82\\x15");
    assert_eq!(db.stdout(&["get", "my.db", "1.00", "--key-type", "N"]), "{\"k\":1e0}\n");
    assert!(db.stdout(&["get", "my.db", "--key-type=N", "--", "-35e-1"]).contains("-3.5"));
    assert_eq!(db.json(&["get", "my.db", "20e-1", "--key-type", "N"])["key"], "20e-1");
    db.run(&["get", "my.db", "x", "--key-type", "N"])
        .assert()
        .code(2)
        .stderr(contains("\"x\" is not a number key"));
    db.run(&["scan", "my.db", "--prefix", "1", "--key-type", "N"]).assert().code(2);
    assert!(db.stdout(&["explain", "get", "my.db", "2", "--key-type", "N"]).contains("FOUND"));

    let db = Fixture::created();
    let text: String = (0..40).rev().map(|n| format!("{{\"k\":\"p\",\"s\":{}e-1}}\n", n * 5 - 50)).collect();
    db.import(&["--sort-attr", "s", "--sort-type", "N"])
        .write_stdin(text)
        .assert()
        .success()
        .stdout("imported 40 items\n")
        .stderr(is_empty());
    let sorts = |more: &[&str]| {
        let items = db.json(&[&["query", "my.db", "p", "--sort-type", "N"], more].concat());
        let items = items["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["sort"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(sorts(&["--sort-from=-1", "--sort-to", "1.00"]), ["-1", "-0.5", "0", "0.5", "1"]);
    assert_eq!(sorts(&["--reverse", "--limit", "2"]), ["14.5", "14"]);
    db.run(&["query", "my.db", "p", "--sort-type", "N", "--sort-prefix", "1"]).assert().code(2);
    db.run(&["put", "my.db", "p", "2.5", "{\"new\":true}", "--sort-type", "N"]).assert().success();
    assert_eq!(db.stdout(&["get", "my.db", "p", "25e-1", "--sort-type", "N"]), "{\"new\":true}\n");
    db.run(&["delete", "my.db", "p", "2.50", "--sort-type", "N"]).assert().success();
    assert_eq!(db.count(), 39);

    let db = Fixture::created();
    db.import(&["--key-type", "B", "--on-error", "skip"])
        .write_stdin("{\"k\":\"AP8=\"}\n{\"k\":\"!\"}\n{\"k\":1}\n")
        .assert()
        .code(6)
        .stdout("imported 1 item, rejected 2 lines\n");
    assert_eq!(db.stdout(&["get", "my.db", "\\x00\\xff", "--key-type", "B"]), "{\"k\":\"AP8=\"}\n");
}

/// Items that replace others are counted, whether those are from the same batch, another batch or before the import.
#[test]
fn replaced_items_are_counted() {
    let db = Fixture::created();
    let text = lines(0, 1200, 3) + &lines(1100, 100, 3) + &lines(0, 10, 3) + &lines(0, 10, 3);
    let output = db.import(&["--format", "json"]).write_stdin(text).assert().success().get_output().clone();
    let result: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        result,
        json!({"schema": "kstone.import/1", "imported": 1320, "replaced": 120, "rejected": 0,
               "numbers_as_text": 0, "next_line": null})
    );
    assert_eq!(db.count(), 1200);
}

/// Runs the command, and returns its output and its peak memory in KiB.
pub(crate) fn peak(command: &mut Process, fixture: &Fixture) -> (std::process::Output, u64) {
    // Polled from /proc, as GNU time would be another dependency.
    let mut child = command.current_dir(fixture.dir.path()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let figure = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(figure.unwrap_or(0));
        std::thread::yield_now();
    }
    (child.wait_with_output().unwrap(), peak)
}

/// Symptom: a gzip file of 510 KB made `import` take 10.6 GB, one of 122 KB 2.0 GB; the rest of a line that was cut at
/// 512 MiB was read as a line of its own. Cause: memory held a line, then its JSON, then the item, and the JSON takes
/// many times its length. Fix: a line is converted to the stored form of its item as it is read, and abandoned once
/// that exceeds the limit.
#[test]
fn memory_is_bounded_whatever_the_input() {
    const MIB: usize = 1 << 20;
    // Far beyond the limit on an item of 16 MiB, even where six bytes of text become one byte of the item.
    const TEXT: usize = 110;
    // Name, start, and the hostile text to repeat.
    let shapes: [(&str, &str, &str); 12] = [
        ("zeros", "", "\0"),
        ("blanks", "", " "),
        ("long string", "{\"k\":\"a\",\"t\":\"", "xxxxxxxxxxxxxxxx"),
        ("escapes", "{\"k\":\"a\",\"t\":\"", "\\u0041"),
        ("long name", "{\"k\":\"a\",\"", "xxxxxxxxxxxxxxxx"),
        ("digits", "{\"k\":\"a\",\"n\":", "9"),
        ("numbers", "{\"k\":\"a\",\"l\":[", "0,"),
        ("empty lists", "{\"k\":\"a\",\"l\":[", "[],"),
        ("maps", "{\"k\":\"a\",\"l\":[", "{\"\":0},"),
        ("attributes", "{\"k\":\"a\"", ",\"a\":0"),
        ("depth", "{\"k\":\"a\",\"l\":", "["),
        ("names", "{\"k\":\"a\",\"m\":", "{\"m\":"),
    ];
    let mut worst = 0;
    for (name, start, more) in shapes {
        let db = Fixture::created();
        let mut text = GzEncoder::new(Vec::new(), Compression::new(1));
        text.write_all(b"{\"k\":\"first\"}\n").unwrap();
        text.write_all(start.as_bytes()).unwrap();
        let piece = more.repeat(MIB / more.len());
        for _ in 0..TEXT {
            text.write_all(piece.as_bytes()).unwrap();
        }
        text.write_all(b"\n{\"k\":\"last\"}\n").unwrap();
        let file = text.finish().unwrap();
        db.file("hostile.gz", &file);
        let mut command = Process::new(assert_cmd::cargo::cargo_bin("kstone"));
        command.args(["import", "my.db", "hostile.gz", "--key-attr", "k", "--on-error", "skip"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (output, kib) = peak(&mut command, &db);
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!(
            "import of {name}: {} bytes of gzip, {} MiB of text, peak {} MiB",
            file.len(),
            TEXT,
            kib / 1024
        );
        let rejected = if name == "blanks" { "" } else { ", rejected 1 line" };
        assert_eq!(stdout, format!("imported 2 items{rejected}\n"), "{name}: {stderr}");
        assert_eq!(stderr.contains("warning: line 2: "), name != "blanks", "{name}: {stderr}");
        assert!(stderr.len() < 1000, "{name}: {stderr}");
        worst = worst.max(kib);
        if name != "blanks" {
            // The same input as an item for `put`.
            let mut command = Process::new("sh");
            command.arg("-c").arg("zcat hostile.gz | tail -n +2 | exec \"$0\" put my.db p -");
            command.arg(assert_cmd::cargo::cargo_bin("kstone")).stderr(Stdio::piped());
            let output = command.current_dir(db.dir.path()).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
        }
    }
    println!("the most memory of {} imports: {} MiB", shapes.len(), worst / 1024);
    assert!(worst > 0 && worst < (64 + 16) * 1024, "{worst} KiB");
}

/// The largest item that fits is stored; memory holds only its stored form.
#[test]
fn an_item_of_many_nodes_takes_no_more_than_its_stored_form() {
    let db = Fixture::created();
    let text = format!("{{\"k\":\"a\",\"l\":[{}]}}\n", vec!["0"; 2_500_000].join(","));
    db.file("nodes.gz", &gzip(text.as_bytes()));
    let mut command = Process::new(assert_cmd::cargo::cargo_bin("kstone"));
    command.args(["import", "my.db", "nodes.gz", "--key-attr", "k"]).stdout(Stdio::piped());
    let (output, kib) = peak(&mut command, &db);
    println!("an item of 2,500,000 numbers: peak {} MiB", kib / 1024);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "imported 1 item\n");
    assert!(kib > 0 && kib < 100 * 1024, "{kib} KiB");
}

/// Under a limit on address space, with a line that never ends: plain, gzipped, and as valid JSON so far.
#[test]
fn an_endless_line_is_given_up_at_once() {
    let db = Fixture::created();
    let command = |stdin: &str, more: &str| {
        let script = format!("ulimit -v 2000000; {stdin} | \"$0\" import my.db --key-attr k {more}");
        let mut command = Process::new("sh");
        command.arg("-c").arg(script).arg(assert_cmd::cargo::cargo_bin("kstone"));
        command.current_dir(db.dir.path()).output().unwrap()
    };
    for endless in ["cat /dev/zero", "gzip -c1 /dev/zero", "yes '{\"k\":[1,' | tr -d '\\n'"] {
        let output = command(endless, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{endless}: {stderr}");
        assert!(stderr.contains("error: line 1: ") && stderr.len() < 600, "{endless}: {stderr}");
    }
}

/// Symptom: `verify | head`, with `head` gone, exited with 0 whatever was found. Cause: a closed pipe counted as
/// success. Fix: for commands that print only a result, the exit status is that of the operation.
#[test]
fn a_closed_pipe_hides_no_failure() {
    let db = Fixture::created();
    let mut child = Process::new(assert_cmd::cargo::cargo_bin("kstone"))
        .current_dir(db.dir.path())
        .args(["import", "my.db", "--key-attr", "k", "--on-error", "skip"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(b"bad\n{\"k\":\"a\"}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    assert_eq!(db.count(), 1);
}

/// No command reports success if its results cannot be written.
#[test]
fn a_full_output_is_an_error() {
    let db = Fixture::airports();
    db.run(&["compact", "my.db"]).assert().success();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for args in [
        &["scan", "my.db"][..],
        &["scan", "my.db", "--keys-only"],
        &["export", "my.db"],
        &["export", "my.db", "--as", "jsonl", "--gzip"],
        &["query", "my.db", "US"],
        &["get", "my.db", "US", "KJFK"],
        &["count", "my.db"],
        &["info", "my.db"],
        &["stats", "my.db"],
        &["events", "my.db"],
        &["alerts", "my.db"],
        &["presets"],
        &["presets", "batch"],
        &["explain", "get", "my.db", "US", "KJFK"],
        &["explain", "query", "my.db", "US"],
        &["compact", "my.db"],
        &["verify", "my.db"],
        &["repair", "my.db", "--dry-run"],
        &["backup", "my.db", "copy"],
        &["create", "new.db"],
        &["import", "my.db", "a.jsonl", "--key-attr", "icao"],
    ] {
        for format in ["table", "json", "jsonl"] {
            let mut command = Process::new(assert_cmd::cargo::cargo_bin("kstone"));
            command.current_dir(db.dir.path()).args(args).args(["--format", format]).stdout(full());
            let output = command.stderr(Stdio::piped()).output().unwrap();
            assert_eq!(output.status.code(), Some(4), "{args:?} {format}: {output:?}");
            assert!(!output.stderr.is_empty(), "{args:?} {format}");
            for made in ["copy", "new.db"] {
                let _ = std::fs::remove_dir_all(db.dir.path().join(made));
            }
        }
    }
}

/// A scan that meets damage has printed the items before it.
#[test]
fn what_was_read_before_damage_is_printed() {
    let db = Fixture::created();
    let open = Database::open(db.dir.path().join("my.db")).unwrap();
    for n in 0..200 {
        let text = format!("{n:03}{}", "x".repeat(1000));
        let key = kstone_api::Key::with_sort(&b"p"[..], format!("{n:03}").into_bytes());
        open.put(key, kstone_api::ItemBuilder::new().string("t", text)).unwrap();
    }
    open.flush().unwrap();
    open.close().unwrap();
    let sst = crate::ssts(&db).remove(0);
    damage_middle(&sst);
    for format in ["table", "jsonl"] {
        let output = db.run(&["scan", "my.db", "--format", format]).assert().code(3).get_output().clone();
        let printed = BufReader::new(output.stdout.as_slice()).lines().count();
        assert!(printed > 20, "{format}: {printed} lines");
    }
}

fn damage_middle(sst: &Path) {
    let mut bytes = Vec::new();
    File::open(sst).unwrap().read_to_end(&mut bytes).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(sst, bytes).unwrap();
}
