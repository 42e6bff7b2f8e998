//! `kstone advise`, and the health that `info` shows, which follows from the same rules.

use kstone_api::{CompactionConfig, Database, DatabaseConfig, ItemBuilder};
use predicates::str::contains;
use serde_json::json;

use crate::Fixture;

/// Compaction off, and this many runs in the only stripe.
fn with_runs(fixture: &Fixture, name: &str, runs: u64) {
    let config = DatabaseConfig::new().with_stripes(1);
    let builder = Database::builder(fixture.dir.path().join(name)).config(config);
    let db = builder.compaction(CompactionConfig::disabled()).create().unwrap();
    for n in 0..runs {
        db.put(format!("key{n}"), ItemBuilder::new().number("n", n)).unwrap();
        db.flush().unwrap();
    }
    db.close().unwrap();
}

#[test]
fn the_cause_comes_with_evidence_and_the_line_that_changes_it() {
    let db = Fixture::new();
    with_runs(&db, "my.db", 29);
    let text = db.stdout(&["advise", "my.db"]);
    for line in [
        "1  HIGH     compaction is off, so each get of an absent key searches every run of its stripe: 29 in the \
         worst\n",
        "            because  compaction_enabled is 0   [settings]\n",
        "            because  29.0 runs in a stripe on average, 29 at most; with compaction fewer than 10   [files]\n",
        "            do       kstone config set my.db compaction_enabled=1\n",
        "            then     kstone compact my.db\n",
        "            expect   runs of a stripe: 29 -> 1.00\n",
        "            costs    merging reads and writes ",
        "            check    kstone info my.db\n",
        "other causes (kstone advise --list)\n",
        "runtime counters: none",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let json = db.json(&["advise", "my.db"]);
    assert_eq!((&json["schema"], &json["runtime"]), (&json!("kstone.advise/1"), &json!(false)));
    let advice = &json["advice"][0];
    assert_eq!((&advice["rule"], &advice["urgency"]), (&json!("compaction-off"), &json!("high")));
    assert_eq!(advice["command"], json!("kstone config set my.db compaction_enabled=1"));
    assert!(advice["rust"].as_str().unwrap().contains("config.enabled = true"), "{advice}");
    assert_eq!(advice["expected"][0]["after"], json!(1.0));

    // `info` says the same, and where to read on.
    let info = db.stdout(&["info", "my.db"]);
    for line in
        ["  health       1 warning\n", "compaction is off, so each get", "  next         kstone advise my.db"]
    {
        assert!(info.contains(line), "{line} is not in\n{info}");
    }
    assert_eq!(db.json(&["info", "my.db"])["warnings"].as_array().unwrap().len(), 1);
    let alerts = db.run(&["alerts", "my.db"]).assert().code(1).get_output().stdout.clone();
    assert!(String::from_utf8(alerts).unwrap().ends_with("next: kstone advise my.db\n"));

    // The commands it prints are ones that work, and then there is nothing left to say.
    let commands: Vec<_> = ["do       ", "then     "]
        .map(|label| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(label)).unwrap();
            line.strip_prefix("kstone ").unwrap().split(' ').collect::<Vec<_>>()
        })
        .into();
    for command in commands {
        db.run(&command).assert().success();
    }
    assert!(db.stdout(&["advise", "my.db"]).starts_with("nothing to change"));
    assert!(db.stdout(&["info", "my.db"]).contains("health       good"));
}

#[test]
fn a_healthy_database_gets_no_advice_and_learns_why() {
    let db = Fixture::airports();
    let text = db.stdout(&["advise", "my.db"]);
    assert!(text.starts_with("nothing to change: no sign of 2"), "{text}");
    assert!(text.contains(" causes (kstone advise --list)\n"), "{text}");
    assert_eq!(db.json(&["advise", "my.db"])["advice"], json!([]));
    assert!(!db.stdout(&["info", "my.db"]).contains("  next "));
}

/// The counters of a process that has the database open are used, and not those of the files alone.
#[test]
fn counters_of_a_running_process_are_evidence() {
    let db = Fixture::airports();
    let open = Database::open_read_only(db.dir.path().join("my.db")).unwrap();
    let mut stats = serde_json::to_value(open.stats().unwrap()).unwrap();
    stats["operations"]["puts"] = json!(100_000);
    stats["stalls"] = json!([{"reason": "runs", "count": 9_000, "nanos": 5, "longest_nanos": 5, "delays": 9_000, "stops": 0}]);
    let latencies = serde_json::to_value(open.latencies()).unwrap();
    drop(open);
    let snapshot = json!({"schema": "kstone.stats/1", "pid": 7, "unix_ms": 1, "uptime_ms": 60_000, "stats": stats,
        "latencies": latencies});
    db.file("my.db/STATS.json", snapshot.to_string().as_bytes());
    let text = db.stdout(&["advise", "my.db"]);
    assert!(text.starts_with("1  HIGH     merging is slower than writing"), "{text}");
    assert!(text.contains("because  9.0 % of the writes waited for merges   [runtime]"), "{text}");
    assert!(text.contains("runtime counters: "), "{text}");
    assert_eq!(db.json(&["advise", "my.db"])["runtime"], json!(true));
    assert!(db.stdout(&["info", "my.db"]).contains("merging is slower than writing"));
}

#[test]
fn goals_have_a_limit_of_memory_and_rules_are_listed() {
    let db = Fixture::new();
    let config = DatabaseConfig::new().with_max_memtable_records(10_000).with_stripes(4);
    let open = Database::builder(db.dir.path().join("my.db")).config(config).create().unwrap();
    for n in 0..20_000 {
        open.put(format!("key{n}"), ItemBuilder::new().number("n", n)).unwrap();
    }
    open.close().unwrap();
    assert!(db.stdout(&["advise", "my.db"]).starts_with("nothing to change"));
    let text = db.stdout(&["advise", "my.db", "--goal", "memory"]);
    assert!(text.contains("INFO     other settings suit this work and the goal memory better"), "{text}");
    assert!(
        text.contains("do       kstone config set my.db ") && text.contains("max_memtable_records="),
        "{text}"
    );
    // No settings fit into that.
    let text = db.stdout(&["advise", "my.db", "--goal", "memory", "--ram", "1KB"]);
    assert!(text.starts_with("nothing to change"), "{text}");
    db.run(&["advise", "my.db", "--ram", "64MiB"]).assert().code(2).stderr(contains("--goal"));
    let list = db.stdout(&["advise", "--list"]);
    assert!(list.lines().count() > 20 && list.contains("compaction-off"), "{list}");
    db.run(&["advise"]).assert().code(2);
    db.run(&["advise", "none.db"]).assert().code(4).stderr(contains("none.db"));
}
