//! Commands of operators: settings, alerts, events, compaction, watching, sizing, removal.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use kstone_api::model::{Model, Point, Workload};
use kstone_api::{CompactionConfig, Database, DatabaseConfig, Error, Item, ItemBuilder, Preset};
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use crate::{Fixture, ssts};

/// Names and values of all settings, or of those that differ from the defaults.
fn settings(db: &Fixture, args: &[&str]) -> Vec<(String, Json)> {
    let json = db.json(&[&["config", "my.db"], args].concat());
    assert_eq!((&json["schema"], &json["invalid"]), (&json!("kstone.config/1"), &json!([])));
    let rows = json["settings"].as_array().unwrap().iter();
    rows.map(|row| (row["name"].as_str().unwrap().into(), row["value"].clone())).collect()
}

fn created_with(args: &[&str]) -> Fixture {
    let db = Fixture::new();
    db.run(&[&["create", "my.db"], args].concat()).assert().success();
    db
}

fn diff(db: &Fixture) -> Vec<(String, u64)> {
    settings(db, &["--diff"]).into_iter().map(|(name, value)| (name, value.as_u64().unwrap())).collect()
}

fn named(of: &[(&str, u64)]) -> Vec<(String, u64)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[test]
fn settings_are_shown_and_changed() {
    let db = Fixture::created();
    let count = DatabaseConfig::SETTINGS.len() + CompactionConfig::SETTINGS.len();
    assert_eq!(settings(&db, &[]).len(), count);
    assert_eq!(db.stdout(&["config", "my.db"]).lines().count(), count + 1);
    assert_eq!(db.stdout(&["config", "my.db", "--diff"]), "all settings have their defaults\n");
    assert_eq!(db.stdout(&["config", "my.db", "--diff", "--format", "jsonl"]), "");

    let set =
        ["config", "set", "my.db", "max_total_disk_bytes=64MiB", "sync_interval=10s", "read_mode=pread"];
    assert_eq!(
        db.stdout(&[&set[..], &["bloom_bits_per_key=12", "compaction_enabled=off"]].concat()),
        "bloom_bits_per_key   10 -> 12   takes effect: new SSTs\n\
         max_total_disk_bytes   none -> 64MiB   takes effect: now\n\
         read_mode   Mmap -> Pread   takes effect: SSTs opened from then on\n\
         sync_interval_ms   1s -> 10s   takes effect: now\n\
         compaction_enabled   on -> off   takes effect: now\n"
    );
    assert_eq!(
        diff(&db),
        named(&[
            ("bloom_bits_per_key", 12),
            ("max_total_disk_bytes", 64 << 20),
            ("read_mode", 1),
            ("sync_interval_ms", 10_000),
            ("compaction_enabled", 0),
        ])
    );
    let table = db.stdout(&["config", "my.db", "--diff"]);
    let row = table.lines().find(|line| line.starts_with("sync_interval_ms")).unwrap();
    let cells: Vec<_> = row.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect();
    assert_eq!(cells, ["sync_interval_ms", "10s", "10000 ms", "1s", "now", "1 ms to 1 day, or zero: never"]);

    // Back to the defaults, and nothing else changes.
    let json = db.json(&[
        "config",
        "set",
        "my.db",
        "max_total_disk_bytes=none",
        "sync_interval_ms=default",
        "read_mode=0",
    ]);
    let changes = json["changes"].as_array().unwrap();
    assert_eq!((&changes[0]["old"], &changes[0]["new"]), (&json!(64 << 20), &Json::Null));
    assert_eq!(diff(&db), named(&[("bloom_bits_per_key", 12), ("compaction_enabled", 0)]));
    db.stdout(&["config", "set", "my.db", "compaction_enabled=on"]);
    assert_eq!(diff(&db), named(&[("bloom_bits_per_key", 12)]));
    assert_eq!(
        db.stdout(&["config", "set", "my.db", "bloom_bits_per_key=12"]),
        "nothing to change: these are the stored settings\n"
    );
}

#[test]
fn a_change_of_how_ssts_are_written_names_the_compaction() {
    let db = crate::flushed();
    let ssts = ssts(&db).len();
    let text = db.stdout(&["config", "set", "my.db", "bloom_bits_per_key=20"]);
    assert_eq!(
        text,
        format!(
            "bloom_bits_per_key   10 -> 20   takes effect: new SSTs; {ssts} SSTs to rewrite: kstone compact my.db\n"
        )
    );
    db.stdout(&["compact", "my.db"]);
    let json = db.json(&["config", "set", "my.db", "block_size=8KiB"]);
    assert_eq!(json["to_rewrite"].as_array().unwrap().len(), 1, "{json}");
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let db = Fixture::created();
    let refused = |args: &[&str], said: &str, hint: &str| {
        let args = [&["config", "set", "my.db"], args].concat();
        db.run(&args).assert().code(2).stdout(is_empty()).stderr(contains(said).and(contains(hint)));
        assert_eq!(diff(&db), [], "{args:?}");
    };
    refused(
        &["block_size=512", "max_total_disk_byte=1GiB"],
        "there is no setting \"max_total_disk_byte\"",
        "hint: did you mean max_total_disk_bytes",
    );
    refused(&["zzz=1"], "there is no setting", "hint: kstone config DB lists all settings");
    refused(&["block_size=512", "sst_threshold=1"], "sst_threshold", "hint: sst_threshold accepts 2 to ");
    refused(&["read_mode=disk"], "there is no such choice", "hint: read_mode accepts Mmap, Pread");
    refused(&["sync_interval=soon"], "not a time such as 10s", "hint: sync_interval_ms accepts 1 ms to");
    refused(&["sst_threshold"], "is not NAME=VALUE", "");
    refused(&["stripes=4"], "stripes never changes", "hint: kstone create NEWDB --set stripes=N");
    refused(&["--preset", "nonsense"], "there is no preset", "");
    refused(&[], "required", "");
    // The program that has it open is asked to do it.
    let open = Database::open(db.dir.path().join("my.db")).unwrap();
    db.run(&["config", "set", "my.db", "block_size=512"])
        .assert()
        .code(5)
        .stderr(contains("hint: the program that has it open must call set_config itself"));
    assert_eq!(settings(&db, &["--diff"]), []);
    open.close().unwrap();
    db.run(&["config", "none.db"]).assert().code(4);
    db.run(&["config", "set", "none.db", "block_size=512"]).assert().code(4);
}

#[test]
fn presets_and_settings_of_a_new_database() {
    let db = created_with(&["--preset", "write-heavy", "--set", "stripes=4", "--set", "sst_threshold=7"]);
    let expected =
        [("max_memtable_records", 10_000), ("sst_threshold", 7), ("max_concurrent_compactions", 2)];
    let found = diff(&db);
    let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(found, expected);
    assert_eq!(db.json(&["info", "my.db"])["stripe_count"], 4);
    // A preset undoes another, and leaves what no preset names.
    db.stdout(&["config", "set", "my.db", "max_total_disk_bytes=1GiB"]);
    db.stdout(&["config", "set", "my.db", "--preset", "balanced"]);
    assert_eq!(diff(&db), named(&[("max_total_disk_bytes", 1 << 30)]));
    db.stdout(&["config", "set", "my.db", "--preset", "read-heavy", "sst_threshold=6"]);
    assert!(diff(&db).contains(&("sst_threshold".into(), 6)) && diff(&db).len() > 3);

    let db = Fixture::new();
    for args in [&["--set", "nonsense=1"][..], &["--set", "stripes=3"], &["--preset", "none"]] {
        db.run(&[&["create", "my.db"], args].concat()).assert().code(2).stdout(is_empty());
        assert!(!db.dir.path().join("my.db").exists());
    }
}

/// A full database becomes writable by one command.
#[test]
fn a_quota_that_is_reached_can_be_raised() {
    let db = created_with(&["--set", "max_total_disk_bytes=1MiB"]);
    let path = db.dir.path().join("my.db");
    let open = Database::open(&path).unwrap();
    let item = |n: usize| {
        let text: String = (0..60).map(|i| format!("{:x}", (n * 60 + i).wrapping_mul(0x9e37_79b9))).collect();
        ItemBuilder::new().string("text", text)
    };
    let refused = (0..100_000).find_map(|n| open.put(format!("k{n}"), item(n)).err());
    assert!(matches!(refused, Some(Error::DiskFull)));
    open.close().unwrap();
    let text = format!("{{\"text\":\"{}\"}}", "some text ".repeat(2_000));
    let put = |n: usize| db.run(&["put", "my.db", &format!("new{n}"), &text]).output().unwrap();
    let refused = (0..200).map(put).find(|output| !output.status.success()).unwrap();
    assert_eq!(refused.status.code(), Some(4));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("kstone config set DB max_total_disk_bytes=SIZE"), "{said}");
    assert_eq!(
        db.stdout(&["config", "set", "my.db", "max_total_disk_bytes=16MiB"]),
        "max_total_disk_bytes   1MiB -> 16MiB   takes effect: now\n"
    );
    assert!(put(1_000).status.success());
}

/// `STATS.json` with these figures.
fn snapshot(unix_ms: u64, stats: &Json) -> Vec<u8> {
    json!({"schema": "kstone.stats/1", "pid": 4711, "unix_ms": unix_ms, "uptime_ms": unix_ms, "stats": stats,
           "latencies": {"put": {"count": 9, "p50_nanos": 1500, "p99_nanos": 61_000, "max_nanos": 2_000_000}}})
    .to_string()
    .into_bytes()
}

#[test]
fn each_alert_has_its_threshold() {
    let db = created_with(&["--set", "max_total_disk_bytes=64MiB", "--set", "idle_compaction=off"]);
    let open = Database::open(db.dir.path().join("my.db")).unwrap();
    open.put("k", Item::new()).unwrap();
    open.flush().unwrap();
    open.put("k", Item::new()).unwrap();
    let stalls =
        json!([{"reason": "runs", "count": 5, "nanos": 1, "longest_nanos": 1, "delays": 5, "stops": 0}]);
    let stats = json!({"p99_read_nanos": 4_000_000, "amplification": {"write_tables": 8.0},
                       "operations": {"puts": 1000}, "stalls": stalls});
    db.file("my.db/STATS.json", &snapshot(1, &stats));
    assert!(db.stdout(&["alerts", "my.db"]).starts_with("no alerts\n"));
    for (option, low, high, name) in [
        ("--max-ssts", "0.5", "1", "High SST count"),
        ("--max-write-amp", "7.9", "8", "High write amplification"),
        ("--max-p99", "3ms", "4ms", "High read latency"),
        ("--max-held-up", "0.4", "0.5", "Writes held up"),
        ("--max-disk", "0.001", "100", "Disk quota nearly full"),
        ("--max-recovery", "0s", "1m", "Slow recovery"),
        ("--max-log", "0.001", "100", "Log near its limit"),
    ] {
        let json = db.run(&["alerts", "my.db", option, low, "--format", "json"]).assert().code(1);
        let json: Json = serde_json::from_slice(&json.get_output().stdout).unwrap();
        let names: Vec<_> = json["alerts"].as_array().unwrap().iter().map(|alert| &alert["name"]).collect();
        assert_eq!(names, [name], "{option}");
        assert!(db.stdout(&["alerts", "my.db", option, high]).starts_with("no alerts\n"), "{option}");
    }
    for wrong in ["--max-ssts=-1", "--max-ssts=NaN", "--max-p99=fast"] {
        db.run(&["alerts", "my.db", wrong]).assert().code(2);
    }
}

fn event(seq: u64, unix_ms: u64, kind: &str) -> String {
    format!("{{\"seq\":{seq},\"unix_ms\":{unix_ms},\"event\":\"{kind}\",\"stripe\":{seq}}}\n")
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

#[test]
fn events_are_chosen_by_age() {
    let db = Fixture::created();
    let (now, hour) = (now(), 3_600_000);
    let text = event(1, now - 3 * hour, "flush") + &event(2, now - hour, "stall") + &event(3, now, "flush");
    db.file("my.db/EVENTS.jsonl", text.as_bytes());
    let seqs = |args: &[&str]| {
        let lines = db.stdout(&[&["events", "my.db", "--format", "jsonl"], args].concat());
        let line = |line: &str| serde_json::from_str::<Json>(line).unwrap()["seq"].as_u64().unwrap();
        lines.lines().map(line).collect::<Vec<_>>()
    };
    assert_eq!(seqs(&[]), [1, 2, 3]);
    assert_eq!(seqs(&["--since", "2h"]), [2, 3]);
    assert_eq!(seqs(&["--since", "30m"]), [3]);
    assert_eq!(seqs(&["--since", "2h", "--kind", "stall"]), [2]);
    db.run(&["events", "my.db", "--since", "yesterday"]).assert().code(2);
    db.run(&["events", "my.db", "--follow", "--format", "json"]).assert().code(2);
}

/// A command that runs until it is ended, and its lines as they are printed.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kstone"));
        command.current_dir(dir).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    /// Ends it as Ctrl-C does.
    fn interrupt(self) {
        let Self { child, lines } = self;
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), String::from_utf8(output.stderr).unwrap()),
            (Some(130), String::new())
        );
        drop(lines);
    }

    /// Stops reading, as `head` does.
    fn stop_reading(self) {
        let Self { child, lines } = self;
        drop(lines);
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), String::from_utf8(output.stderr).unwrap()),
            (Some(0), String::new())
        );
    }
}

#[test]
fn events_are_followed_across_a_rotation() {
    let db = Fixture::created();
    let (dir, file) = (db.dir.path(), db.dir.path().join("my.db/EVENTS.jsonl"));
    db.file("my.db/EVENTS.jsonl", (event(1, 1, "flush") + &event(2, 1, "stall")).as_bytes());
    let mut all = Running::start(dir, &["events", "my.db", "--follow", "--limit", "1"]);
    let mut stalls =
        Running::start(dir, &["events", "my.db", "--follow", "--kind", "stall", "--format", "jsonl"]);
    assert_eq!(all.line(), "1970-01-01T00:00:00.001Z  stall             stripe 2");
    assert!(stalls.line().contains("\"seq\":2,"));
    // Event 3 is written to the old file, which is then rotated, and 4 to the new one.
    let old = event(1, 1, "flush") + &event(2, 1, "stall") + &event(3, 1, "flush");
    std::fs::write(&file, old).unwrap();
    std::fs::rename(&file, dir.join("my.db/EVENTS.jsonl.1")).unwrap();
    std::fs::write(&file, event(4, 1, "stall")).unwrap();
    assert_eq!(all.line(), "1970-01-01T00:00:00.001Z  flush             stripe 3");
    assert_eq!(all.line(), "1970-01-01T00:00:00.001Z  stall             stripe 4");
    assert!(stalls.line().contains("\"seq\":4,"));
    std::fs::write(&file, event(4, 1, "stall") + &event(5, 1, "stall")).unwrap();
    assert_eq!(all.line(), "1970-01-01T00:00:00.001Z  stall             stripe 5");
    assert!(stalls.line().contains("\"seq\":5,"));
    all.interrupt();
    stalls.stop_reading();
}

/// Runs of stripes that have any.
fn runs(db: &Fixture) -> Vec<u64> {
    let json = db.json(&["info", "my.db"]);
    let mut runs: Vec<u64> =
        json["stripes"].as_array().unwrap().iter().map(|stripe| stripe["runs"].as_u64().unwrap()).collect();
    runs.sort_unstable();
    runs
}

#[test]
fn stripes_are_compacted_by_their_runs_and_side_by_side() {
    let db = created_with(&["--set", "compaction_enabled=off"]);
    let open = Database::open(db.dir.path().join("my.db")).unwrap();
    for (key, flushes) in [("a", 5), ("b", 3), ("c", 2)] {
        for n in 0..flushes {
            open.put(key, ItemBuilder::new().number("n", n)).unwrap();
            open.flush().unwrap();
        }
    }
    open.close().unwrap();
    assert_eq!(runs(&db), [2, 3, 5]);
    let figures = |args: &[&str]| {
        let json = db.json(&[&["compact", "my.db"], args].concat());
        ["stripes", "skipped", "not_over"].map(|name| json[name].as_u64().unwrap())
    };
    assert_eq!(figures(&["--over", "5"]), [0, 0, 3]);
    assert_eq!(figures(&["--over", "3"]), [1, 0, 2]);
    assert_eq!(runs(&db), [1, 2, 3]);
    assert_eq!(figures(&["--jobs", "3"]), [2, 1, 0]);
    assert_eq!(runs(&db), [1, 1, 1]);
    assert_eq!(
        db.stdout(&["compact", "my.db"]).split("   ").next(),
        Some("0 of 256 stripes compacted, 3 already compact")
    );
    let before = ssts(&db);
    assert_eq!(figures(&["--all", "--jobs", "2"]), [3, 0, 0]);
    assert!(ssts(&db).iter().all(|sst| !before.contains(sst)), "{before:?}");
    for key in ["a", "b", "c"] {
        db.run(&["get", "my.db", key]).assert().success();
    }
    for wrong in [&["--jobs", "0"][..], &["--over", "1", "--stripe", "2"], &["--all", "--over", "1"]] {
        db.run(&[&["compact", "my.db"], wrong].concat()).assert().code(2);
    }
}

#[test]
fn a_scan_has_bounds() {
    let db = Fixture::created();
    let open = Database::open(db.dir.path().join("my.db")).unwrap();
    for key in ["a", "b", "b\0", "ba", "c"] {
        open.put(key, Item::new()).unwrap();
        open.put((key, "s"), Item::new()).unwrap();
    }
    open.close().unwrap();
    let keys = |args: &[&str]| {
        let lines = db.stdout(&[&["scan", "my.db", "--keys-only", "--format", "jsonl"], args].concat());
        let key =
            |line: &str| serde_json::from_str::<Json>(line).unwrap()["key"].as_str().unwrap().to_owned();
        lines.lines().map(key).collect::<Vec<_>>()
    };
    assert_eq!(keys(&["--from", "ba"]), ["ba", "ba", "c", "c"]);
    assert_eq!(keys(&["--to", "b"]), ["a", "a", "b", "b"]);
    assert_eq!(keys(&["--from", "b", "--to", "b\\x00"]), ["b", "b", "b\\x00", "b\\x00"]);
    assert_eq!(keys(&["--from", "aa", "--to", "az"]), [""; 0]);
    assert_eq!(keys(&["--from", "c", "--to", "a"]), [""; 0]);
    // Page by page, and each range has tokens of its own.
    let page = |args: &[&str]| db.json(&[&["scan", "my.db", "--limit", "3"], args].concat());
    let first = page(&["--from", "b", "--to", "ba"]);
    let token = first["next"].as_str().unwrap();
    let rest = page(&["--from", "b", "--to", "ba", "--after", token]);
    let keys: Vec<_> =
        rest["items"].as_array().unwrap().iter().map(|item| item["key"].as_str().unwrap()).collect();
    assert_eq!((keys, &rest["next"]), (vec!["b\\x00", "ba", "ba"], &Json::Null));
    db.run(&["scan", "my.db", "--from", "b", "--after", token]).assert().code(2);
    for wrong in [["--prefix", "a"], ["--stripe", "1"]] {
        db.run(&[&["scan", "my.db", "--from", "a"], &wrong[..]].concat()).assert().code(2);
    }
}

#[test]
fn rates_are_watched() {
    let db = Fixture::created();
    let (dir, stats) = (db.dir.path(), db.dir.path().join("my.db/STATS.json"));
    db.run(&["stats", "my.db", "--watch"]).assert().code(1).stdout(is_empty()).stderr(
        "error: no program writes STATS.json in my.db\nhint: kstone config set my.db \
             stats_snapshot_interval_ms=2s turns it on for the next program that opens it\n",
    );
    db.stdout(&["config", "set", "my.db", "stats_snapshot_interval_ms=2s"]);
    db.run(&["stats", "my.db", "--watch", "--format", "json"]).assert().code(2);
    db.run(&["stats", "my.db", "--watch=soon"]).assert().code(2);

    let write = |unix_ms: u64, puts: u64| {
        // As a whole, like the engine.
        db.file("stats.new", &snapshot(unix_ms, &json!({"operations": {"puts": puts, "gets": 7}})));
        std::fs::rename(dir.join("stats.new"), &stats).unwrap();
    };
    write(1_000, 100);
    let mut table = Running::start(dir, &["stats", "my.db", "--watch=10ms"]);
    let mut lines = Running::start(dir, &["stats", "my.db", "--watch=10ms", "--format", "jsonl"]);
    let put = |table: &mut Running| loop {
        let line = table.line();
        if line.starts_with("put ") {
            return line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        }
    };
    assert_eq!(put(&mut table), ["put", "100", "-", "1.5µs", "61.0µs", "2.0ms"]);
    let json: Json = serde_json::from_str(&lines.line()).unwrap();
    assert_eq!((&json["schema"], &json["per_second"]["put"]), (&json!("kstone.watch/1"), &Json::Null));
    write(3_000, 2_300);
    // Blocks until the new figures are seen.
    let seen = std::iter::repeat_with(|| put(&mut table)).find(|cells| cells[1] == "2,300").unwrap();
    assert_eq!(seen[2], "1,100");
    let is_bars = |line: &String| line.starts_with("puts   ");
    let bars = std::iter::repeat_with(|| table.line()).find(is_bars).unwrap();
    assert_eq!(bars, "puts   █   most 1,100/s");
    let rate = std::iter::repeat_with(|| serde_json::from_str::<Json>(&lines.line()).unwrap())
        .find(|json| !json["per_second"]["put"].is_null());
    assert_eq!(rate.unwrap()["per_second"]["put"], json!(1100.0));
    table.interrupt();
    lines.stop_reading();
}

#[test]
fn sizes_are_estimated_without_a_database() {
    let db = Fixture::new();
    let base = ["model", "--items", "10M", "--item-size", "200B"];
    let predicted = |args: &[&str]| db.json(&[&base[..], args].concat())["prediction"].clone();
    let expected = |change: &dyn Fn(&mut Workload), preset: &Preset| {
        let mut workload = Workload::inserts(10_000_000, 24, 200);
        change(&mut workload);
        let point = Point::of(&preset.database, &preset.compaction);
        // Through text, which is read with the same rounding.
        let text = serde_json::to_string(&Model::new(workload).predict(&point)).unwrap();
        serde_json::from_str::<Json>(&text).unwrap()
    };
    let (balanced, heavy) = (Preset::balanced(), Preset::write_heavy());
    assert_eq!(predicted(&[]), expected(&|_| {}, &balanced));
    for (args, change) in [
        (["--key-size", "64B"], &(|w: &mut Workload| w.key_bytes = 64) as &dyn Fn(&mut Workload)),
        (["--writes-per-second", "5k"], &|w| w.writes_per_second = 5_000.0),
        (["--ram", "1GiB"], &|w| w.memory_bytes = Some(1 << 30)),
    ] {
        let with = expected(change, &balanced);
        assert_ne!(with, expected(&|_| {}, &balanced), "{args:?}");
        assert_eq!(predicted(&args), with, "{args:?}");
    }
    assert_eq!(predicted(&["--preset", "write-heavy"]), expected(&|_| {}, &heavy));
    let table = |args: &[&str]| db.stdout(&[&base[..], args].concat());
    let text = table(&[]);
    assert!(text.starts_with("ESTIMATE ") && text.contains("items x 10 bits / 8, mapped"), "{text}");
    let busy = |text: &str| text.lines().find(|line| line.starts_with("busy reading")).unwrap().to_owned();
    assert_ne!(busy(&text), busy(&table(&["--reads-per-second", "50k"])));
    db.run(&["model", "--items", "many", "--item-size", "200B"]).assert().code(2);
    db.run(&["model", "--items", "1"]).assert().code(2);
    db.run(&["model", "--items", "1", "--item-size", "1", "--preset", "x"]).assert().code(2);
}

#[test]
fn counters_are_text_for_prometheus() {
    let db = Fixture::created();
    db.run(&["metrics", "my.db"])
        .assert()
        .code(1)
        .stdout(contains("keystonedb_up 0\n"))
        .stderr(contains("hint: kstone config set my.db stats_snapshot_interval_ms=2s"));
    let open = Database::open(db.dir.path().join("my.db")).unwrap();
    db.file("my.db/STATS.json", &snapshot(1500, &json!({"flushes": 42, "operations": {"gets": 7}})));
    let text = db.stdout(&["metrics", "my.db"]);
    for line in [
        "keystonedb_up 1",
        "keystonedb_stats_timestamp_seconds 1.5",
        "keystonedb_flushes_total 42",
        "keystonedb_reads_total 7",
        "keystonedb_latency_p50_microseconds{operation=\"put\"} 1.5",
        "keystonedb_latency_p99_microseconds{operation=\"put\"} 61.0",
        "keystonedb_latency_max_microseconds{operation=\"put\"} 2000.0",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    }
    drop(open);
    db.run(&["metrics", "none.db"]).assert().code(4).stdout(is_empty());
}

#[test]
fn a_database_is_removed_and_nothing_else() {
    let db = crate::flushed();
    let path = db.dir.path().join("my.db");
    db.file("my.db/notes.txt", b"mine");
    std::fs::create_dir(path.join("EVENTS.jsonl.2")).unwrap();
    let names = || {
        let entries = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    let before = names();
    db.run(&["destroy", "my.db"]).write_stdin("y\n").assert().code(2).stderr(contains("--yes"));
    let open = Database::open(&path).unwrap();
    db.run(&["destroy", "my.db", "--yes"]).assert().code(5);
    assert_eq!(db.stdout(&["count", "my.db"]), "3\n");
    open.close().unwrap();
    assert!(before.iter().all(|name| names().contains(name) || name == "wal.buffer"), "{before:?}");
    db.run(&["destroy", "my.db", "--yes"]).assert().success().stdout(
        starts_with("removed my.db: ")
            .and(contains("\nkept notes.txt, which is not a file of the database\n")),
    );
    assert_eq!(names(), ["EVENTS.jsonl.2", "notes.txt"]);
    // What is no database is left alone.
    db.run(&["destroy", "my.db", "--yes"]).assert().code(4).stdout(is_empty());
    assert_eq!(names(), ["EVENTS.jsonl.2", "notes.txt"]);
    db.run(&["destroy", "none.db", "--yes"]).assert().code(4);

    let db = crate::flushed();
    let json = db.json(&["destroy", "my.db", "--yes"]);
    assert_eq!((&json["schema"], &json["kept"]), (&json!("kstone.destroy/1"), &json!([])));
    assert!(json["files"].as_u64().unwrap() >= 4);
    assert!(!db.dir.path().join("my.db").exists());
}

#[test]
fn there_is_nothing_to_upgrade() {
    let db = crate::flushed();
    let manifest = || std::fs::read(db.dir.path().join("my.db/MANIFEST")).unwrap();
    let before = manifest();
    let text = db.stdout(&["upgrade", "my.db"]);
    assert_eq!(text, "my.db is in format 1, the current one: nothing was changed\n");
    assert_eq!(db.json(&["upgrade", "my.db"])["changed"], json!(false));
    assert_eq!(manifest(), before);
    db.run(&["upgrade", "none.db"]).assert().code(4);
    std::fs::write(db.dir.path().join("my.db/MANIFEST"), "nonsense").unwrap();
    db.run(&["upgrade", "my.db"]).assert().code(3).stdout(is_empty());
}

/// No sort key, an empty one and one of two quotes are three keys, in every command that prints them.
#[test]
fn an_empty_sort_key_is_printed_as_one() {
    let db = Fixture::created();
    for sort in [&[][..], &[""], &["\\x22\\x22"]] {
        db.run(&[&["put", "my.db", "k"], sort, &["{}"]].concat()).assert().success();
    }
    let words: [&[&str]; 3] = [&["k"], &["k", ""], &["k", "\\x22\\x22"]];
    let shown = ["k", "k \"\"", "k \\x22\\x22"];
    for (key, shown) in words.iter().zip(shown) {
        db.run(&[&["delete", "my.db"], *key].concat()).assert().success();
        let missing = format!("error: there is no item under {shown}\n");
        for verb in ["get", "delete"] {
            db.run(&[&[verb, "my.db"], *key].concat()).assert().code(1).stderr(missing.clone());
        }
    }
    let explained = |key: &[&str]| {
        let text = db.stdout(&[&["explain", "get", "my.db"], key].concat());
        text.lines().next().unwrap().to_owned()
    };
    let explained: std::collections::BTreeSet<_> = words.iter().map(|key| explained(key)).collect();
    assert_eq!(explained.len(), 3, "{explained:?}");
    // JSON has a field for it, or not.
    db.run(&["put", "my.db", "k", "", "{}"]).assert().success();
    db.run(&["put", "my.db", "k", "{}"]).assert().success();
    let lines = db.stdout(&["scan", "my.db", "--keys-only", "--format", "jsonl"]);
    assert_eq!(lines, "{\"key\":\"k\"}\n{\"key\":\"k\",\"sort\":\"\"}\n");
}
