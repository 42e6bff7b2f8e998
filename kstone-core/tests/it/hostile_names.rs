//! Names in an open database's directory that are not files of ours: the program continues or reports which file is in
//! the way, and nothing outside the directory changes.
#![allow(clippy::disallowed_methods, reason = "links and other files are put in the way from outside")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kstone_core::clock::ManualClock;
use kstone_core::lsm::{EngineOptions, LsmEngine, WriteOptions};
use kstone_core::repair::{RepairOptions, repair};
use kstone_core::torture::Watchdog;
use kstone_core::vfs::DiskVfs;
use kstone_core::{DatabaseConfig, Key, Result};

const NAMES: [&str; 12] = [
    "LOCK",
    "MANIFEST.tmp",
    "STATS.json",
    "STATS.json.tmp",
    "EVENTS.jsonl",
    "EVENTS.jsonl.1",
    "EVENTS.jsonl.3",
    "quarantine",
    "000-000001.sst",
    "000-000002.sst",
    "wal-000001.log",
    "wal-000002.log",
];

const KINDS: [&str; 6] = ["link", "dangling", "hard link", "link to a directory", "fifo", "directory"];

fn put_in_the_way(path: &Path, outside: &Path, kind: &str) {
    match kind {
        "link" => symlink(outside.join("file"), path).unwrap(),
        "dangling" => symlink(outside.join("none"), path).unwrap(),
        "hard link" => std::fs::hard_link(outside.join("file"), path).unwrap(),
        "link to a directory" => symlink(outside, path).unwrap(),
        "fifo" => assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success()),
        _ => std::fs::create_dir(path).unwrap(),
    }
}

/// Everything that a program does: writes, merges, checkpoints, and the files for tools.
fn use_it(db: &Path, fresh: bool) -> Result<()> {
    let clock = Arc::new(ManualClock::new(1));
    let mut options = EngineOptions::reproducible(Arc::new(DiskVfs::new()), clock.clone());
    options.config = Some(
        DatabaseConfig::new()
            .with_stripes(1)
            .with_max_memtable_records(10)
            .with_stats_snapshot_interval(Duration::from_secs(1)),
    );
    let engine = if fresh { LsmEngine::create(db, options) } else { LsmEngine::open(db, options) }?;
    for round in 0..3 {
        for n in 0..10 {
            engine.put(&Key::from(format!("key-{n}")), b"value", WriteOptions::sync())?;
        }
        clock.advance(Duration::from_secs(2));
        while engine.step(round) {}
        engine.flush()?;
    }
    engine.trigger_compaction(0)?;
    engine.close()
}

/// Symptom: hard links were written through; a link or FIFO named `MANIFEST.tmp` prevented opening the database.
/// Cause and fix: see `vfs/disk/open.rs`.
#[test]
fn whatever_a_name_is_a_program_goes_on_or_names_it() {
    let _watchdog = Watchdog::start("hostile_names::whatever_a_name_is_a_program_goes_on_or_names_it");
    let (mut refused, mut tried) = (0, 0);
    for name in NAMES {
        for kind in KINDS {
            for fresh in [true, false] {
                let dir = tempfile::tempdir().unwrap();
                let (db, outside) = (dir.path().join("db"), dir.path().join("outside"));
                std::fs::create_dir(&outside).unwrap();
                std::fs::write(outside.join("file"), "precious").unwrap();
                std::fs::create_dir(&db).unwrap();
                if !fresh {
                    use_it(&db, true).unwrap();
                }
                if db.join(name).symlink_metadata().is_ok() {
                    std::fs::remove_file(db.join(name)).unwrap();
                }
                put_in_the_way(&db.join(name), &outside, kind);
                let what = format!("{name} is a {kind}, fresh: {fresh}");
                tried += 1;
                if let Err(error) = use_it(&db, fresh) {
                    refused += 1;
                    assert!(error.to_string().contains(name), "{what}: {error}");
                }
                let repaired = repair(&db, &RepairOptions::new(), &mut |_| {});
                if let Err(error) = repaired
                    && !fresh
                {
                    assert!(error.to_string().contains(name), "{what}: {error}");
                }
                let left: Vec<_> =
                    outside.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
                assert_eq!(left, ["file"], "{what}");
                assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"precious", "{what}");
            }
        }
    }
    println!("{tried} cases, {refused} refused with the name of the file");
    assert!(refused < tried / 2, "{refused} of {tried}");
}

/// Symptom: with an SST of another database under the name that the next SST would get, a flush failed with `file
/// exists`; files of other databases are kept, so each of them cost a flush. Cause: the name of a new SST was believed
/// to be free. Fix: names that are taken are skipped.
#[test]
fn names_of_new_ssts_that_are_taken_are_skipped() {
    let _watchdog = Watchdog::start("hostile_names::names_of_new_ssts_that_are_taken_are_skipped");
    let tmp = tempfile::tempdir().unwrap();
    let db = tmp.path().join("db");
    let mut options = crate::model::manual(Arc::new(DiskVfs::new()), 1);
    options.config = Some(DatabaseConfig::new().with_stripes(1));
    let engine = LsmEngine::create(&db, options).unwrap();
    let flush = |n: u32| {
        engine.put(&Key::from(format!("key-{n}")), b"value", WriteOptions::new()).unwrap();
        engine.flush().unwrap();
    };
    let last = || {
        let entries = std::fs::read_dir(&db).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let ssts = names.filter(|name| name.ends_with(".sst"));
        ssts.map(|name| name[4..10].parse::<u64>().unwrap()).max().unwrap()
    };
    flush(0);
    let next = last() + 1;
    let taken: Vec<_> = (next..next + 40).map(|id| db.join(format!("000-{id:06}.sst"))).collect();
    for path in &taken {
        std::fs::write(path, "of another database").unwrap();
    }
    flush(1);
    assert_eq!(last(), next + 40);
    for path in &taken {
        assert_eq!(std::fs::read_to_string(path).unwrap(), "of another database");
    }
    for n in 0..2 {
        assert!(engine.get(&Key::from(format!("key-{n}"))).unwrap().is_some());
    }
}
