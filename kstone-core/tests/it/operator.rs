//! What an operator would try, with the tools of the system: a file system without space, files that may not be
//! changed. If the system does not permit a test, it says so and checks nothing.

#![expect(clippy::disallowed_methods, reason = "inspects the system from outside the engine")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kstone_core::lsm::{EngineOptions, LsmEngine, WriteOptions};
use kstone_core::torture::Watchdog;
use kstone_core::{DatabaseConfig, Error, Key};

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// An in-memory file system of the given size; unmounted on drop.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let path = dir.path().to_str().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &options, "kstone-test", path]).then(|| Self(dir))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[self.0.path().to_str().unwrap()]);
    }
}

/// A file or directory that is immutable until this is dropped.
struct Immutable(PathBuf);

impl Immutable {
    fn new(path: &Path) -> Option<Self> {
        run("chattr", &["+i", path.to_str().unwrap()]).then(|| Self(path.to_path_buf()))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        run("chattr", &["-i", self.0.to_str().unwrap()]);
    }
}

fn key(n: u64) -> Key<'static> {
    Key::new(format!("key{n:06}").into_bytes())
}

fn value(n: u64) -> Vec<u8> {
    let mut rng = crate::model::Rng(n);
    (0..1000).map(|_| rng.next() as u8).collect()
}

fn check(engine: &LsmEngine, keys: impl IntoIterator<Item = u64>) {
    for n in keys {
        assert_eq!(engine.get(&key(n)).unwrap().as_deref(), Some(&value(n)[..]), "key {n}");
    }
}

/// Puts until the disk is full; returns the first key that was refused.
fn fill(engine: &LsmEngine, from: u64) -> u64 {
    for n in from..from + 100_000 {
        match engine.put(&key(n), &value(n), WriteOptions::new()) {
            Ok(_) => {}
            Err(Error::DiskFull | Error::WriteStalled { .. }) => return n,
            Err(error) => panic!("put {n}: {error}"),
        }
    }
    panic!("the disk never fills up");
}

#[test]
fn a_file_system_of_20_mb_filled_to_the_brim_and_emptied_again() {
    let _watchdog = Watchdog::start("operator::a_file_system_of_20_mb_filled_to_the_brim_and_emptied_again");
    for quota in [Some(18 << 20), None] {
        let Some(mounted) = Mounted::new("20m") else {
            println!("operator: skipped, no file system can be mounted here (root is required)");
            return;
        };
        let dir = mounted.0.path().join("full.keystone");
        let mut options = EngineOptions::disk();
        let config = DatabaseConfig::new();
        let config =
            quota.map_or_else(|| config.clone(), |quota| config.clone().with_max_total_disk_bytes(quota));
        let config = config.with_stripes(4).with_wal_segment_size(1 << 20).with_max_memtable_records(500);
        let limit = |secs| config.clone().with_write_stall_limit(std::time::Duration::from_secs(secs));
        // Some writes to a full disk wait as long as they may.
        let (to_be_refused, to_succeed) = (limit(2), limit(120));
        options.config = Some(to_be_refused.clone());
        let mut engine = LsmEngine::create(&dir, options.clone()).unwrap();
        let (mut next, ballast) = (0, mounted.0.path().join("of somebody else"));
        for round in 0..3 {
            let start = next;
            if quota.is_none() {
                std::fs::write(&ballast, vec![0; 6 << 20]).unwrap();
            }
            next = fill(&engine, start);
            assert!(next - start > 1000, "{} keys fit, round {round}, quota {quota:?}", next - start);
            check(&engine, start..next);
            if round == 1 {
                // While full, the database is closed or dies, and is reopened.
                drop(engine);
                engine = LsmEngine::open(&dir, options.clone()).unwrap();
                check(&engine, start..next);
            }
            let refused =
                (start..next).filter(|&n| engine.delete(&key(n), WriteOptions::new()).is_err()).count();
            println!(
                "operator: quota {quota:?}, round {round}: {} keys fit, {refused} deletes refused",
                next - start
            );
            if quota.is_some() {
                assert_eq!(refused, 0, "deletes are refused, round {round}");
            }
            // Without a limit that reserves space for them, deletes and flushes may be refused too, until space is
            // freed.
            if quota.is_none() {
                std::fs::remove_file(&ballast).unwrap();
            }
            // However slow a loaded machine is.
            engine.set_config(to_succeed.clone()).unwrap();
            if quota.is_none() {
                for n in start..next {
                    engine.delete(&key(n), WriteOptions::new()).unwrap_or_else(|e| panic!("delete {n}: {e}"));
                }
            }
            for stripe in 0..4 {
                engine.trigger_compaction(stripe).unwrap();
            }
            engine.set_config(to_be_refused.clone()).unwrap();
        }
        engine.close().unwrap();
        let left: u64 =
            std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(left < 2 << 20, "{left} bytes are left of an empty database");
    }
}

/// The file of a database whose name ends with `suffix`, or the directory itself.
fn find(dir: &Path, suffix: &str) -> PathBuf {
    if suffix.is_empty() {
        return dir.to_path_buf();
    }
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names.into_iter().find(|path| path.to_str().unwrap().ends_with(suffix)).unwrap()
}

#[test]
fn a_file_that_may_not_be_changed_ends_in_a_clear_error_and_nothing_is_lost() {
    let _watchdog =
        Watchdog::start("operator::a_file_that_may_not_be_changed_ends_in_a_clear_error_and_nothing_is_lost");
    for suffix in ["MANIFEST", ".sst", ".log", ""] {
        for live in [true, false] {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("immutable.keystone");
            let mut options = EngineOptions::disk();
            options.config = Some(
                DatabaseConfig::new()
                    .with_stripes(1)
                    .with_max_memtable_records(100)
                    .with_wal_segment_size(64 << 10)
                    .with_write_stall_limit(std::time::Duration::from_millis(200)),
            );
            let engine = LsmEngine::create(&dir, options.clone()).unwrap();
            (0..150).for_each(|n| assert!(engine.put(&key(n), &value(n), WriteOptions::sync()).is_ok()));
            engine.flush().unwrap();
            (150..200).for_each(|n| assert!(engine.put(&key(n), &value(n), WriteOptions::sync()).is_ok()));
            let engine = if live {
                Some(engine)
            } else {
                drop(engine);
                None
            };
            let Some(immutable) = Immutable::new(&find(&dir, suffix)) else {
                println!(
                    "operator: skipped, chattr +i does not work here (root and a file system that supports it are required)"
                );
                return;
            };
            let (mut told, mut acknowledged) = (Vec::new(), 200);
            let mut tell = |error: Error| {
                assert!(matches!(error.code(), "io" | "poisoned" | "write_stalled"), "{suffix}: {error}");
                told.push(error.to_string());
            };
            match engine.map_or_else(|| LsmEngine::open(&dir, options.clone()), Ok) {
                Ok(engine) => {
                    check(&engine, 0..200);
                    for n in 200..400 {
                        match engine.put(&key(n), &value(n), WriteOptions::new()) {
                            Ok(_) => acknowledged = n + 1,
                            Err(error) => {
                                tell(error);
                                break;
                            }
                        }
                    }
                    check(&engine, 0..acknowledged);
                    [engine.flush(), engine.trigger_compaction(0), engine.close()]
                        .into_iter()
                        .for_each(|done| done.err().into_iter().for_each(&mut tell));
                }
                Err(error) => tell(error),
            }
            drop(immutable);
            println!("operator: {suffix:?} immutable, live: {live}: {:?}", told.first());
            let engine = LsmEngine::open(&dir, options).unwrap();
            check(&engine, 0..acknowledged);
            engine.put(&key(1000), &value(1000), WriteOptions::sync()).unwrap();
            engine.trigger_compaction(0).unwrap();
            engine.close().unwrap();
        }
    }
}
