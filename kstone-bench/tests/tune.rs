//! `tune` finds that sick databases get better by what advice predicts, leaves the database as it is, and says what it
//! cannot do.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use assert_cmd::Command;
use kstone_api::{CompactionConfig, Database, DatabaseConfig, ItemBuilder, StatsSnapshot};
use tempfile::TempDir;

/// A database of some runs, and the counters of the program that made it.
struct Patient {
    directory: TempDir,
    db: PathBuf,
}

const KEYS: u32 = 6_000;

impl Patient {
    /// With this many runs in each of 4 stripes, and counters of reads of which a quarter find nothing.
    fn new(config: DatabaseConfig, compaction: CompactionConfig, runs: u32) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("my db");
        let config = config.with_stripes(4).with_latency_sampling(1);
        let db = Database::builder(&path).config(config).compaction(compaction).create().unwrap();
        for run in 0..runs {
            for n in (KEYS / runs * run)..(KEYS / runs * (run + 1)) {
                let text = format!("{:0>1$}", n, 60 + n as usize % 40);
                db.put(format!("user{n:06}"), ItemBuilder::new().string("t", text)).unwrap();
            }
            db.flush().unwrap();
        }
        db.close().unwrap();
        // Only this work is in the counters.
        let db = Database::open(&path).unwrap();
        for n in 0..200 {
            db.put(format!("user{n:06}"), ItemBuilder::new().number("n", n)).unwrap();
        }
        for n in 0..4_000 {
            assert_eq!(db.get(format!("user{:06}", n * 2)).unwrap().is_some(), n * 2 < KEYS);
        }
        let stats = serde_json::json!({
            "schema": StatsSnapshot::SCHEMA, "pid": 1, "unix_ms": 1, "uptime_ms": 60_000,
            "stats": db.stats().unwrap(), "latencies": db.latencies(),
        });
        db.close().unwrap();
        // Beside it, not in it: closing removes the file, and a stale one would be read by other tools.
        std::fs::write(directory.path().join("stats.json"), stats.to_string()).unwrap();
        Self { directory, db: path }
    }

    fn tune(&self, arguments: &str) -> (bool, String) {
        let stats = self.directory.path().join("stats.json");
        let mut command = self.command(arguments);
        output(command.arg("--stats").arg(stats))
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::cargo_bin("kstone-bench").unwrap();
        command.arg("tune").arg("--db").arg(&self.db).args(arguments.split_whitespace());
        command.args(["--ops", "8k"]);
        command
    }

    /// All files in and beside the database, with their contents.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(self.directory.path(), &mut files);
        files
    }
}

#[expect(clippy::disallowed_methods, reason = "to see that nothing changes")]
fn collect(directory: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => drop(files.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
}

fn output(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("{text}");
    (output.status.success(), text)
}

/// The cells of a figure's row, after its name: today, predicted, measured, error, change.
fn row(text: &str, figure: &str) -> Vec<String> {
    let start = format!("| {figure} ");
    let line =
        text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{figure}: {text}"));
    line.split('|').skip(2).map(|cell| cell.trim().to_owned()).collect()
}

/// The number at the start of a cell.
fn number(cell: &str) -> f64 {
    cell.split([' ', '[']).next().unwrap().parse().unwrap_or_else(|_| panic!("{cell}"))
}

/// The figure is within 30 % of what was predicted, and better than today by more than chance.
fn as_predicted(text: &str, figure: &str, today: f64) {
    let cells = row(text, figure);
    let (was, predicted, measured) = (number(&cells[0]), number(&cells[1]), number(&cells[2]));
    assert!((was / today - 1.0).abs() < 0.3, "today {was}, not {today}: {text}");
    assert!((measured / predicted - 1.0).abs() <= 0.3, "{figure}: {measured}, not {predicted}: {text}");
    assert!(measured < was / 2.0 && cells[4].contains(" … -"), "{figure}: {cells:?}");
}

#[test]
fn compaction_that_is_off_is_proved_to_cost_runs_and_the_database_stays_as_it_was() {
    let patient = Patient::new(DatabaseConfig::new(), CompactionConfig::disabled(), 24);
    let before = patient.files();
    let (good, text) = patient.tune("--rounds 5");
    assert!(good && text.contains("compaction-off: compaction is off"), "{text}");
    as_predicted(&text, "runs of a stripe", 24.0);
    as_predicted(&text, "filters tested by a get of an absent key", 24.0);
    let db = format!("'{}'", patient.db.display());
    // Whether the work is faster depends on the machine; what to type does not.
    let merge = text.lines().find(|line| line.ends_with(&format!(" kstone compact {db}")));
    assert!(
        merge.is_some() && text.contains(&format!(" kstone config set {db} compaction_enabled=1\n")),
        "{text}"
    );
    assert!(!text.contains("were copied, not linked"), "{text}");
    assert!(before == patient.files(), "the database, or what is beside it, has changed");
    let order: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("round ")).collect();
    assert!(order[1].ends_with("compaction_enabled=1, kstone compact DB"), "{order:?}");
    assert!(order[2].starts_with("2 of 5: compaction_enabled=1"), "turns alternate: {order:?}");
}

#[test]
fn a_filter_of_two_bits_is_proved_to_pass_absent_keys() {
    let patient = Patient::new(DatabaseConfig::new().with_bloom_bits_per_key(2), CompactionConfig::new(), 3);
    let (good, text) = patient.tune("--rounds 5");
    assert!(good && text.contains("false-positives: "), "{text}");
    let cells = row(&text, "absent keys that pass a filter [%]");
    as_predicted(&text, "absent keys that pass a filter [%]", number(&cells[0]));
    assert!(text.contains("bloom_bits_per_key=1") && text.contains(": kstone config set "), "{text}");
    // Four rounds find the same figures, but no interval.
    let (good, text) = patient.tune("--rounds 2");
    assert!(good && !text.contains("kstone config set") && text.contains("2 rounds cannot show"), "{text}");
}

#[test]
fn settings_that_are_given_are_compared_with_the_model() {
    let patient = Patient::new(DatabaseConfig::new(), CompactionConfig::new(), 2);
    let given =
        "--rounds 5 --set bloom_bits_per_key=4 --set idle_compaction=0 --workload fillrandom,readmissing";
    let (good, text) = patient.tune(given);
    assert!(good && text.contains("50.0 % inserts, 50.0 % gets that find nothing"), "{text}");
    let cells = row(&text, "absent keys that pass a filter [%]");
    assert!(number(&cells[0]) < 3.0 && number(&cells[2]) > 8.0, "{cells:?}");
    assert!((number(&cells[2]) / number(&cells[1]) - 1.0).abs() < 0.3, "{cells:?}");
    assert!(text.contains("--set idle_compaction=0"), "{text}");
    let puts = row(&text, "time of a write [us]");
    assert!(number(&puts[0]) > 0.0 && number(&puts[2]) > 0.0, "{puts:?}");
}

#[test]
fn recovery_is_measured_by_killing_the_process() {
    let patient = Patient::new(DatabaseConfig::new(), CompactionConfig::new(), 2);
    let given = "--rounds 1 --goal recovery --set max_memtable_records=100 --workload fillrandom";
    let (good, text) = patient.tune(given);
    assert!(good && text.contains("--set max_memtable_records=100"), "{text}");
    let cells = row(&text, "recovery [ms]");
    assert!(number(&cells[0]) > 0.0 && number(&cells[2]) > 0.0, "{cells:?}");
}

#[test]
fn a_database_in_use_is_copied_as_of_now_and_its_counters_are_read() {
    let patient = Patient::new(DatabaseConfig::new(), CompactionConfig::disabled(), 24);
    let db = Database::open(&patient.db).unwrap();
    db.put("late", ItemBuilder::new().number("n", 1)).unwrap();
    std::fs::copy(patient.directory.path().join("stats.json"), patient.db.join(StatsSnapshot::FILE)).unwrap();
    let (good, text) = output(&mut patient.command("--rounds 1"));
    assert!(
        good && text.contains("compaction-off: ") && text.contains("another process has the database open")
    );
    assert!(
        text.contains("replayed on 6001 sampled keys"),
        "what is only in the log is replayed, too: {text}"
    );
    drop(db);
}

#[test]
fn on_another_file_system_ssts_are_copied_and_that_is_said() {
    let patient = Patient::new(DatabaseConfig::new(), CompactionConfig::disabled(), 24);
    let other = Path::new("/dev/shm");
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    if device(other).is_none() || device(other) == device(&patient.db) {
        println!("there is no other file system to try");
        return;
    }
    let (good, text) = patient.tune("--rounds 1 --dir /dev/shm");
    assert!(
        good && text.contains("96 of 96 SSTs were copied, not linked, because /dev/shm/kstone-tune-"),
        "{text}"
    );
    let copies = text.split("copying to ").nth(1).unwrap().lines().next().unwrap();
    assert!(copies.starts_with("/dev/shm/kstone-tune-") && !Path::new(copies).exists(), "{copies}");
}

#[test]
fn an_interrupt_removes_the_copies() {
    let patient = Patient::new(DatabaseConfig::new(), CompactionConfig::disabled(), 24);
    let before = patient.files();
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("kstone-bench"));
    command.arg("tune").arg("--db").arg(&patient.db).args(["--workload", "readmissing", "--rounds", "999"]);
    let mut child =
        command.args(["--ops", "100"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("round 1 of 999")));
    assert!(before != patient.files(), "the copies are beside the database");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let said: Vec<_> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said:?}");
    assert!(said.last().unwrap().contains("interrupted; the copies were removed"), "{said:?}");
    assert!(before == patient.files(), "{said:?}");
}

#[test]
fn a_healthy_database_needs_no_measurement() {
    let patient = Patient::new(DatabaseConfig::new(), CompactionConfig::new(), 2);
    let before = patient.files();
    for arguments in ["", "--workload readrandom"] {
        let (good, text) = patient.tune(arguments);
        assert!(good && text.contains("nothing to measure") && !text.contains("round"), "{text}");
    }
    assert!(before == patient.files());
}

#[test]
fn without_a_record_of_the_work_the_error_says_how_to_give_one() {
    let patient = Patient::new(DatabaseConfig::new(), CompactionConfig::disabled(), 24);
    for arguments in ["", "--goal read"] {
        let (good, text) = output(&mut patient.command(arguments));
        assert!(!good, "{text}");
        for word in
            ["no record of the work", "stats_snapshot_interval_ms=10000", "--stats FILE", "--workload NAME"]
        {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
    // A workload by name is a record enough.
    let (good, text) = output(&mut patient.command("--rounds 1 --workload readmissing"));
    assert!(
        good && text.contains("compaction-off") && text.contains("100 % gets that find nothing"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_replayed_is_refused_before_anything_is_copied() {
    let patient = Patient::new(DatabaseConfig::new(), CompactionConfig::disabled(), 24);
    let before = patient.files();
    for (arguments, why) in [
        ("--workload compact", "cannot be replayed"),
        ("--workload nonsense", "the workloads are"),
        ("--set stripes=8", "fixed when a database is created"),
        ("--set sst_threshold=one", "--set sst_threshold=one"),
        ("--minutes 0", "number of minutes"),
        ("--dir /no/such/directory", "/no/such/directory"),
    ] {
        let (good, text) = patient.tune(arguments);
        assert!(!good && text.contains(why) && !text.contains("round"), "{arguments}: {text}");
    }
    let odd = patient.directory.path().join("stats.json");
    let whole = std::fs::read_to_string(&odd).unwrap();
    for text in ["", "{}", &whole[..whole.len() / 2], &whole.replacen("kstone.stats/1", "kstone.stats/9", 1)]
    {
        std::fs::write(&odd, text).unwrap();
        let (good, said) = patient.tune("");
        assert!(!good && said.contains("nothing was copied"), "{said}");
    }
    std::fs::write(&odd, whole).unwrap();
    assert!(before == patient.files());
}
