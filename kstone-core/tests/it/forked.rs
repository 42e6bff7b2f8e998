//! A process that forks while a database is open.
//!
//! Symptom: a forked child that returned from `main` panicked when it dropped the handle, and could have unlocked,
//! written and removed files in use by the parent. Cause: a handle did not know which process it belongs to. Fix: in
//! any other process, calls fail with `Forked` before they take a lock, and drop does nothing.
#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "tests, which inspect files from outside")]
#![allow(unsafe_code, reason = "there is no safe way to fork")]

use std::path::Path;
use std::process::Command;

use kstone_core::lsm::{Direction, EngineOptions, LsmEngine, Workers, WriteBatch, WriteOptions};
use kstone_core::torture::Watchdog;
use kstone_core::verify::VerifyOptions;
use kstone_core::{DatabaseConfig, Error, Key, SortRange};

const CHILD: &str = "KSTONE_FORKED";

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(status: i32) -> !;
}

/// Runs a function in a forked child, and returns its exit status.
fn in_child(run: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs `run` and exits without returning.
    match unsafe { fork() } {
        0 => {
            let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(100);
            // SAFETY: it does not return, and no state of this process needs cleaning up.
            unsafe { _exit(status) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: `status` is a valid pointer to an integer.
            assert_eq!(unsafe { waitpid(pid, &raw mut status, 0) }, pid);
            assert_eq!(status & 0x7f, 0, "the child died of signal {}", status & 0x7f);
            status >> 8
        }
    }
}

fn options() -> EngineOptions {
    let mut options = EngineOptions::disk();
    options.config = Some(DatabaseConfig::new().with_stripes(4).with_max_memtable_records(100));
    options
}

fn put(engine: &LsmEngine, n: u64) -> Result<u64, Error> {
    engine.put(&Key::from(&format!("key{n}")), &[7; 100], WriteOptions::new())
}

/// The result of each call.
fn calls(engine: &LsmEngine, path: &Path) -> Vec<Option<Error>> {
    let key = Key::from("key1");
    let mut batch = WriteBatch::new();
    batch.put(key.clone(), *b"value");
    vec![
        put(engine, 1).err(),
        engine.delete(&key, WriteOptions::new()).err(),
        engine.write(&batch, WriteOptions::sync()).err(),
        engine.get(&key).err(),
        engine.snapshot().err(),
        engine.scan(b"", Direction::Forward, None).err(),
        engine.query(b"key1", &SortRange::All, Direction::Forward, None).err(),
        engine.sync().err(),
        engine.flush().err(),
        engine.trigger_compaction(0).err(),
        engine.needs_compaction(0).err(),
        engine.set_config(DatabaseConfig::new()).err(),
        engine.stats().err(),
        engine.disk_usage().err(),
        engine.verify().err(),
        engine.verify_files(&VerifyOptions::quick()).err(),
        engine.explain_get(&key).err(),
        engine.backup(&path.with_extension("copy")).err(),
        engine.close().err(),
    ]
}

/// In a separate process, which forks while threads of the engine are working.
#[test]
#[ignore = "started by the test below"]
fn parent() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let path = Path::new(&path);
    let mut engine = Some(LsmEngine::create(path, options()).unwrap());
    let mut written = 0;
    for _ in 0..20 {
        let own = engine.as_ref().unwrap();
        for _ in 0..300 {
            put(own, written).unwrap();
            written += 1;
        }
        let mut snapshot = Some(own.snapshot().unwrap());
        let mut walk = own.scan(b"", Direction::Forward, None).ok();
        walk.as_mut().unwrap().next().unwrap().unwrap();
        let (engine, snapshot_, walk_) = (&mut engine, &mut snapshot, &mut walk);
        let status = in_child(move || {
            let refused = |error: &Option<Error>| matches!(error, Some(Error::Forked));
            let own = engine.as_ref().unwrap();
            let said = calls(own, path);
            if let Some(at) = said.iter().position(|error| !refused(error)) {
                return 1 + at as i32;
            }
            if !refused(&own.get_at(&Key::from("key1"), snapshot_.as_ref().unwrap()).err())
                || !refused(&walk_.as_mut().unwrap().next().and_then(Result::err))
            {
                return 50;
            }
            // The parent has it open: for this process, that is another handle.
            if !matches!(LsmEngine::open(path, options()), Err(Error::Locked { .. })) {
                return 51;
            }
            // A handle that the child opens is its own. It has no threads: locks that the parent's threads held at the
            // fork, also within libraries, stay locked.
            let mut alone = options();
            alone.workers = Workers::Manual;
            let other = LsmEngine::create(&path.with_extension("child"), alone).unwrap();
            put(&other, 1).unwrap();
            other.flush().unwrap();
            other.close().unwrap();
            std::fs::remove_dir_all(path.with_extension("child")).unwrap();
            if !refused(&own.get(&Key::from("key1")).err()) {
                return 52;
            }
            drop((snapshot_.take(), walk_.take(), engine.take()));
            0
        });
        assert_eq!(status, 0);
        let locked = LsmEngine::open(path, options());
        assert!(matches!(locked, Err(Error::Locked { .. })), "the child has released the lock: {locked:?}");
        drop((snapshot, walk));
    }
    let engine = engine.unwrap();
    // The children have removed no files: every listed file exists.
    engine.verify().unwrap();
    engine.close().unwrap();
    drop(engine);
    let engine = LsmEngine::open(path, options()).unwrap();
    for n in 0..written {
        assert!(engine.get(&Key::from(&format!("key{n}"))).unwrap().is_some(), "{n}");
    }
    println!("forked 20 times");
}

#[test]
fn a_forked_process_can_do_nothing_with_a_handle_and_nothing_to_it() {
    let _watchdog =
        Watchdog::start("forked::a_forked_process_can_do_nothing_with_a_handle_and_nothing_to_it");
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["forked::parent", "--exact", "--ignored", "--nocapture"])
        .env(CHILD, dir.path().join("db"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("forked 20 times"), "{:?} {out} {err}", output.status);
    assert!(!err.contains("panicked"), "{err}");
}
