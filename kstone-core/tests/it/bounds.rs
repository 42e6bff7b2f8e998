//! Resources of the process that a handle uses, on the real disk: open files, mappings and threads, all of which are
//! released; and that no call and no drop blocks for ever or panics, whatever happens to the directory.

#![expect(clippy::disallowed_methods, reason = "inspects the system from outside the engine")]

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kstone_core::lsm::{Direction, EngineOptions, LsmEngine, WriteBatch, WriteOptions};
use kstone_core::torture::Watchdog;
use kstone_core::{CompactionConfig, DatabaseConfig, Key, ReadMode};

const CHILD: &str = "KSTONE_BOUNDS_CHILD";
const MOST_OPEN: usize = 64;
const STRIPES: usize = 256;
const ROUNDS: usize = 10;
const READERS: usize = 8;

/// Resources that the process holds for a directory: open files and mappings; and its total number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    files: usize,
    maps: usize,
    threads: usize,
}

fn open_files(dir: &Path) -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    fds.filter(|fd| {
        let target = fd.as_ref().ok().and_then(|fd| std::fs::read_link(fd.path()).ok());
        target.is_some_and(|target| target.starts_with(dir))
    })
    .count()
}

fn held(dir: &Path) -> Held {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    Held {
        files: open_files(dir),
        maps: maps.lines().filter(|line| line.contains(dir.to_str().unwrap())).count(),
        threads: std::fs::read_dir("/proc/self/task").unwrap().count(),
    }
}

fn key(n: usize) -> Key<'static> {
    Key::new(format!("key{n:05}").into_bytes())
}

fn options(mode: ReadMode) -> EngineOptions {
    let mut options = EngineOptions::disk();
    options.config = Some(DatabaseConfig::new().with_stripes(STRIPES).with_read_mode(mode));
    options.compaction = Some(CompactionConfig::disabled());
    options
}

/// In a separate process, so that threads and files of other tests do not count.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let dir = Path::new(&path);
    let keys = 8 * STRIPES;
    let before = held(dir);
    let engine = LsmEngine::create(dir, options(ReadMode::Mmap)).unwrap();
    for round in 0..ROUNDS {
        let mut batch = WriteBatch::new();
        for n in 0..keys {
            batch.put(key(n), format!("{round} {n}").into_bytes());
        }
        engine.write(&batch, WriteOptions::new()).unwrap();
        engine.flush().unwrap();
    }
    engine.close().unwrap();
    drop(engine);
    for mode in [ReadMode::Mmap, ReadMode::Pread] {
        let engine = LsmEngine::open(dir, options(mode)).unwrap();
        let ssts: usize = engine.stats().unwrap().stripes.iter().map(|stripe| stripe.ssts).sum();
        assert!(ssts >= STRIPES * ROUNDS, "{ssts} SSTs");
        // A write, so that the threads are running as well.
        engine.put(&key(0), b"9 0", WriteOptions::new()).unwrap();
        let most = AtomicUsize::new(0);
        let sample = || most.fetch_max(open_files(dir), Ordering::Relaxed);
        std::thread::scope(|scope| {
            for reader in 0..READERS {
                let (engine, sample) = (&engine, &sample);
                scope.spawn(move || {
                    for n in 0..keys {
                        // Each reader in a different order.
                        let n = (n * (2 * reader + 1) + reader * 97) % keys;
                        let value = engine.get(&key(n)).unwrap().unwrap();
                        assert_eq!(value.as_ref(), format!("9 {n}").as_bytes());
                        if n.is_multiple_of(32) {
                            sample();
                        }
                    }
                    let rows = engine.scan(b"", Direction::Forward, None).unwrap();
                    assert_eq!(
                        rows.inspect(|row| assert!(row.is_ok()))
                            .step_by(64)
                            .inspect(|_| _ = sample())
                            .count(),
                        keys / 64
                    );
                });
            }
        });
        let during = held(dir);
        let most = most.into_inner();
        println!("bounds: {mode:?}: {ssts} SSTs, {READERS} readers, at most {most} files open, {during:?}");
        assert!(most <= MOST_OPEN && most > 0, "{most} files open");
        engine.close().unwrap();
        drop(engine);
        let after = held(dir);
        println!("bounds: {mode:?}: before {before:?}, after the close {after:?}");
        assert_eq!(after, before);
    }
}

#[test]
fn few_files_are_open_with_thousands_of_ssts_and_everything_is_given_back() {
    let _watchdog =
        Watchdog::start("bounds::few_files_are_open_with_thousands_of_ssts_and_everything_is_given_back");
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["bounds::child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir.path().canonicalize().unwrap().join("bounds.keystone"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|line| line.contains("bounds: ")) {
        println!("{line}");
    }
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("after the close").count(), 2, "{text}");
}

/// Nothing may block for ever, and nothing may panic: not the calls, not the threads, not the drop.
#[test]
fn a_directory_that_is_removed_under_a_live_handle_ends_in_errors_and_a_drop() {
    let _watchdog =
        Watchdog::start("bounds::a_directory_that_is_removed_under_a_live_handle_ends_in_errors_and_a_drop");
    for close in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("gone.keystone");
        let mut options = EngineOptions::disk();
        let config = DatabaseConfig::new()
            .with_stripes(4)
            .with_max_memtable_records(50)
            .with_wal_segment_size(64 << 10)
            .with_max_item_bytes(1 << 10)
            .with_write_stall_limit(Duration::from_millis(200))
            .with_checkpoint_interval(Duration::from_millis(1))
            .with_sync_interval(Duration::from_millis(1));
        options.config = Some(config);
        options.compaction = Some(CompactionConfig::new().with_sst_threshold(2));
        let engine = LsmEngine::create(&dir, options).unwrap();
        let acknowledged =
            (0..500).filter(|&n| engine.put(&key(n), &[7; 100], WriteOptions::new()).is_ok()).count();
        assert_eq!(acknowledged, 500);
        engine.sync().unwrap();
        // The engine's threads may create a file while `remove_dir_all` is running.
        while let Err(e) = std::fs::remove_dir_all(&dir) {
            assert_eq!(e.kind(), std::io::ErrorKind::DirectoryNotEmpty, "{e}");
        }
        // From some write on, all writes are refused; reads that still work return the right values.
        let refused = (500..20_000).find_map(|n| engine.put(&key(n), &[7; 100], WriteOptions::sync()).err());
        let refused = refused.expect("writes to a removed directory were accepted without end");
        assert!(matches!(refused.code(), "io" | "poisoned" | "write_stalled" | "corruption"), "{refused}");
        for n in 0..500 {
            if let Ok(value) = engine.get(&key(n)) {
                assert_eq!(value.as_deref(), Some(&[7; 100][..]), "key {n}");
            }
        }
        drop(engine.flush());
        drop(engine.trigger_compaction(0));
        if close {
            engine.close().unwrap_err();
        }
        drop(engine);
        assert!(!dir.exists());
    }
}
