//! One writer at a time, on the real file system, whatever happens to the lock file and whichever path is used.
#![allow(clippy::disallowed_methods, reason = "tests, which inspect files from outside")]

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kstone_core::lsm::{EngineOptions, LsmEngine, WriteOptions};
use kstone_core::torture::Watchdog;
use kstone_core::vfs::DiskVfs;
use kstone_core::{DatabaseConfig, Error, Key, ReadMode};

const CHILD: &str = "KSTONE_LOCK_CHILD";

fn options() -> EngineOptions {
    let mut options = EngineOptions::disk();
    options.config = Some(DatabaseConfig::new().with_stripes(4));
    options
}

fn put(engine: &LsmEngine, key: &str) -> Result<u64, Error> {
    engine.put(&Key::from(key), b"value", WriteOptions::new())
}

fn has(engine: &LsmEngine, key: &str) -> bool {
    engine.get(&Key::from(key)).unwrap().is_some()
}

fn locked(path: &Path) -> Option<u32> {
    assert!(LsmEngine::is_locked(path, &DiskVfs::new()).unwrap());
    match LsmEngine::open(path, options()) {
        Err(Error::Locked { pid, .. }) => pid,
        other => panic!("{other:?} at {}", path.display()),
    }
}

/// A database in its own directory, open for writing.
fn database() -> (tempfile::TempDir, PathBuf, LsmEngine) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my.keystone");
    let engine = LsmEngine::create(&path, options()).unwrap();
    put(&engine, "first").unwrap();
    (dir, path, engine)
}

#[test]
fn a_second_handle_is_refused_by_whatever_path_it_comes() {
    let (dir, path, engine) = database();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    std::fs::create_dir(dir.path().join("beside")).unwrap();
    for path in [&path, &link, &path.join("."), &dir.path().join("beside/../my.keystone")] {
        assert_eq!(locked(path), Some(std::process::id()));
    }
    let created = LsmEngine::open_or_create(&link, options());
    assert!(matches!(created, Err(Error::Locked { .. })), "{created:?}");
    engine.close().unwrap();
    assert!(!LsmEngine::is_locked(&path, &DiskVfs::new()).unwrap());
    assert!(has(&LsmEngine::open(&link, options()).unwrap(), "first"));
}

#[test]
fn a_removed_lock_file_lets_nobody_in_and_stops_the_writer() {
    let _watchdog = Watchdog::start("locks::a_removed_lock_file_lets_nobody_in_and_stops_the_writer");
    for replaced in [false, true] {
        let (_dir, path, engine) = database();
        std::fs::remove_file(path.join("LOCK")).unwrap();
        if replaced {
            std::fs::write(path.join("LOCK"), "1\n").unwrap();
        }
        // The directory itself is locked. Its owner's process id was in the removed file.
        assert_eq!(locked(&path), replaced.then_some(1));
        put(&engine, "second").unwrap();
        let Err(Error::Io { path: named, source, .. }) = engine.flush() else { panic!("flushed") };
        assert_eq!(named, path);
        assert!(source.to_string().contains("the lock file was removed or replaced"), "{source}");
        let Err(Error::Poisoned { cause }) = put(&engine, "third") else { panic!("written") };
        assert!(cause.contains("lock file"), "{cause}");
        assert!(has(&engine, "second"), "reads continue");
        assert_eq!(locked(&path), replaced.then_some(1));
        let _ = engine.close();
        let engine = LsmEngine::open(&path, options()).unwrap();
        assert!(has(&engine, "first") && has(&engine, "second"), "acknowledged writes are there");
        put(&engine, "third").unwrap();
        engine.flush().unwrap();
    }
}

/// All files of a directory.
fn files(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// The directory of a writer was moved, and its path now leads to another database, which must not be affected.
#[test]
fn another_database_in_the_place_of_a_moved_one_is_left_alone() {
    let (dir, path, engine) = database();
    let other = dir.path().join("other.keystone");
    let second = LsmEngine::create(&other, options()).unwrap();
    put(&second, "other").unwrap();
    std::fs::rename(&path, dir.path().join("moved")).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let before = files(&path);
    put(&engine, "second").unwrap();
    let flushed = engine.flush();
    assert!(
        flushed.as_ref().is_err_and(|e| e.to_string().contains("moved, removed or replaced")),
        "{flushed:?}"
    );
    let _ = engine.close();
    assert_eq!(files(&path), before);
    // The second writer's directory was moved as well, and it reports this.
    assert!(second.flush().is_err());
    drop(second);
    let engine = LsmEngine::open(&dir.path().join("moved"), options()).unwrap();
    assert!(has(&engine, "first") && has(&engine, "second"));
    assert!(has(&LsmEngine::open(&path, options()).unwrap(), "other"));
}

#[test]
fn readers_and_the_writer_do_not_keep_each_other_out() {
    let (_dir, path, engine) = database();
    let reader = LsmEngine::open_read_only(&path, EngineOptions::disk()).unwrap();
    assert!(has(&reader, "first"));
    put(&engine, "second").unwrap();
    engine.close().unwrap();
    let engine = LsmEngine::open(&path, options()).unwrap();
    let second = LsmEngine::open_read_only(&path, EngineOptions::disk()).unwrap();
    assert!(has(&second, "second") && !has(&reader, "second"), "a reader sees the state as of its open");
    put(&engine, "third").unwrap();
    engine.flush().unwrap();
    assert!(has(&reader, "first") && !has(&reader, "third"));
}

/// Opens the database, reports it, and waits to be killed, or for the end of its input.
#[test]
#[ignore = "started by the tests below"]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let engine = LsmEngine::open(Path::new(&path), options()).unwrap();
    put(&engine, "of the child").unwrap();
    println!("\nopened");
    std::io::stdout().flush().unwrap();
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
}

fn start_child(path: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["locks::child", "--exact", "--ignored", "--nocapture"])
        .env(CHILD, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "opened"), "the child did not open it");
    child
}

#[test]
fn another_process_is_named_and_a_dead_one_keeps_nobody_out() {
    let _watchdog = Watchdog::start("locks::another_process_is_named_and_a_dead_one_keeps_nobody_out");
    let (_dir, path, engine) = database();
    engine.close().unwrap();
    let mut child = start_child(&path);
    assert_eq!(locked(&path), Some(child.id()));
    let reader = LsmEngine::open_read_only(&path, EngineOptions::disk()).unwrap();
    assert!(has(&reader, "first") && has(&reader, "of the child"));
    std::fs::remove_file(path.join("LOCK")).unwrap();
    assert_eq!(locked(&path), None, "removing the lock file does not unlock the database");
    child.kill().unwrap();
    child.wait().unwrap();
    let engine = LsmEngine::open(&path, options()).unwrap();
    assert!(has(&engine, "of the child"));
    assert_eq!(locked(&path), Some(std::process::id()));
}

/// A process started while the database was open does not keep it locked after the close.
#[test]
fn a_program_started_meanwhile_does_not_inherit_the_lock() {
    let _watchdog = Watchdog::start("locks::a_program_started_meanwhile_does_not_inherit_the_lock");
    let (_dir, path, engine) = database();
    let mut sleeper = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    engine.close().unwrap();
    LsmEngine::open(&path, options()).unwrap().close().unwrap();
    drop(sleeper.stdin.take());
    sleeper.wait().unwrap();
}

fn mount(args: &[&str]) -> bool {
    Command::new("mount").args(args).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Unmounts on drop.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_bind_mount_is_the_same_directory() {
    let (dir, path, engine) = database();
    let bound = dir.path().join("bound");
    std::fs::create_dir(&bound).unwrap();
    if !mount(&["--bind", path.to_str().unwrap(), bound.to_str().unwrap()]) {
        println!("skipped: this user may not mount");
        return;
    }
    let _mounted = Mounted(bound.clone());
    assert_eq!(locked(&bound), Some(std::process::id()));
    std::fs::remove_file(bound.join("LOCK")).unwrap();
    assert_eq!(locked(&bound), None);
    drop(engine);
    LsmEngine::open(&bound, options()).unwrap().close().unwrap();
}

/// Nothing can be created in the directory, not even a lock file: reading works, and writing reports the reason.
#[test]
fn a_read_only_mount_can_be_read() {
    let (dir, path, engine) = database();
    engine.flush().unwrap();
    put(&engine, "in the log").unwrap();
    engine.sync().unwrap();
    std::mem::forget(engine); // never closed: opening has a log to replay
    let bound = dir.path().join("bound");
    std::fs::create_dir(&bound).unwrap();
    let (from, to) = (path.to_str().unwrap(), bound.to_str().unwrap());
    if !mount(&["--bind", from, to]) {
        println!("skipped: this user may not mount");
        return;
    }
    let _mounted = Mounted(bound.clone());
    if !mount(&["-o", "remount,ro,bind", to]) {
        println!("skipped: this user may not mount read-only");
        return;
    }
    std::fs::remove_file(path.join("LOCK")).unwrap();
    for mode in [ReadMode::Mmap, ReadMode::Pread] {
        let mut options = EngineOptions::disk();
        options.config = Some(DatabaseConfig::new().with_read_mode(mode));
        let reader = LsmEngine::open_read_only(&bound, options).unwrap();
        assert!(has(&reader, "first") && has(&reader, "in the log"));
        assert_eq!(reader.verify().unwrap(), 1);
        reader.close().unwrap();
    }
    // The unclosed handle still holds the lock on the directory, by its other path.
    let opened = LsmEngine::open(&bound, options());
    assert!(matches!(opened, Err(Error::Locked { .. })), "{opened:?}");
}

/// The same with permissions only; the superuser can write regardless, which leaves the read-only mount as the test.
#[test]
fn a_directory_without_the_right_to_write_can_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, path, engine) = database();
    engine.close().unwrap();
    std::fs::remove_file(path.join("LOCK")).unwrap();
    let allow = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    allow(0o500);
    let reader = LsmEngine::open_read_only(&path, EngineOptions::disk()).unwrap();
    assert!(has(&reader, "first") && !path.join("LOCK").exists());
    drop(reader);
    let writer = LsmEngine::open(&path, options());
    allow(0o700);
    match writer {
        Ok(_) => println!("skipped: this user may write everywhere"),
        Err(Error::Io { path: named, source, .. }) => {
            assert_eq!((named, source.kind()), (path.join("LOCK"), std::io::ErrorKind::PermissionDenied));
        }
        Err(other) => panic!("{other}"),
    }
}
