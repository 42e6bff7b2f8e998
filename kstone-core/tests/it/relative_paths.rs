//! Databases with relative paths, in a process that changes its current directory.
//!
//! Symptom: after `chdir`, a flush failed with "the directory was moved, removed or replaced", puts continued until the
//! log was full, and closing failed. Cause: the path was kept as given. Fix: it is made absolute at the start of a
//! call.
#![allow(clippy::disallowed_methods, reason = "tests, which inspect files from outside")]

use std::path::Path;
use std::process::Command;

use kstone_core::lsm::{BackupOptions, EngineOptions, LsmEngine, WriteOptions};
use kstone_core::repair::{RepairOptions, repair};
use kstone_core::torture::Watchdog;
use kstone_core::verify::{VerifyOptions, verify};
use kstone_core::{Error, Key};

const CHILD: &str = "KSTONE_ELSEWHERE";

fn put(engine: &LsmEngine, key: &str) {
    engine.put(&Key::from(key), b"value", WriteOptions::new()).unwrap();
}

fn has(engine: &LsmEngine, key: &str) -> bool {
    engine.get(&Key::from(key)).unwrap().is_some()
}

/// In a separate process, as all threads share the current directory.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Ok(root) = std::env::var(CHILD) else { return };
    let root = Path::new(&root);
    let go = |to: &str| std::env::set_current_dir(root.join(to)).unwrap();
    for name in ["here", "there", "gone"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    std::os::unix::fs::symlink("here", root.join("link")).unwrap();
    for (n, name) in ["db", "./db2", "../link/db3", "../here/../here/db4"].into_iter().enumerate() {
        go("here");
        let engine = LsmEngine::open_or_create(Path::new(name), EngineOptions::disk()).unwrap();
        put(&engine, "a");
        go("there");
        engine.flush().unwrap();
        put(&engine, "b");
        engine.trigger_compaction(0).unwrap();
        // The destination is relative to the current directory at the start of the call.
        let copy = format!("copy{n}");
        let mut leave = |_: &_| {
            go("here");
            std::ops::ControlFlow::Continue(())
        };
        engine.backup_with(Path::new(&copy), BackupOptions::new().progress(&mut leave)).unwrap();
        assert!(root.join("there").join(&copy).join("MANIFEST").exists());
        go("there");
        engine.close().unwrap();
        drop(engine);
        go("here");
        let engine = LsmEngine::open(Path::new(name), EngineOptions::disk()).unwrap();
        let reader = LsmEngine::open_read_only(Path::new(name), EngineOptions::disk()).unwrap();
        go("there");
        assert!(has(&engine, "a") && has(&engine, "b") && has(&reader, "a"));
        assert!(reader.disk_usage().unwrap().used > 0);
        put(&engine, "c");
        engine.flush().unwrap();
        engine.close().unwrap();
    }
    // Repair and verify, with the current directory changed while they run.
    go("there");
    let engine = LsmEngine::open(Path::new("copy0"), EngineOptions::disk()).unwrap();
    put(&engine, "d");
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(engine);
    let leave = |root: std::path::PathBuf| -> kstone_core::verify::ProgressFn {
        std::sync::Arc::new(move |_| {
            std::env::set_current_dir(root.join("here")).unwrap();
            std::ops::ControlFlow::Continue(())
        })
    };
    let options = RepairOptions::new().into_dir("repaired").progress(leave(root.into()));
    repair(Path::new("copy0"), &options, &mut |_| {}).unwrap();
    assert!(root.join("there/repaired/MANIFEST").exists());
    go("there");
    let report = verify(Path::new("repaired"), &VerifyOptions::deep().progress(leave(root.into()))).unwrap();
    assert!(report.is_clean(), "{report:?}");
    // The current directory is removed: open databases keep working, and relative paths cannot be resolved.
    go("here");
    let engine = LsmEngine::open(Path::new("db"), EngineOptions::disk()).unwrap();
    go("gone");
    std::fs::remove_dir(root.join("gone")).unwrap();
    put(&engine, "e");
    engine.flush().unwrap();
    engine.close().unwrap();
    let Err(Error::Io { op: "find", source, .. }) =
        LsmEngine::create(Path::new("new"), EngineOptions::disk())
    else {
        panic!("created nowhere")
    };
    assert!(source.to_string().contains("current directory"), "{source}");
    assert!(has(&LsmEngine::open(&root.join("here/db"), EngineOptions::disk()).unwrap(), "e"));
    println!("been elsewhere");
}

#[test]
fn a_changed_current_directory_changes_nothing() {
    let _watchdog = Watchdog::start("relative_paths::a_changed_current_directory_changes_nothing");
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["relative_paths::child", "--exact", "--ignored", "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("been elsewhere"), "{:?} {out} {err}", output.status);
}
