//! Readers of a database that another process writes to, on the real file system: opened while it writes, and after it
//! was killed.
//!
//! Buffered data has reached the operating system when its write is acknowledged. So a reader must see everything
//! acknowledged before its open started, even if the writer is killed meanwhile; no partial batch; and nothing newer
//! than a write that it does not see. The writer publishes what is acknowledged through a file, which is up to date at
//! once, unlike a pipe.
#![allow(clippy::disallowed_methods, reason = "tests, which inspect files from outside")]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kstone_core::lsm::{BackupOptions, EngineOptions, LsmEngine, WriteBatch, WriteOptions};
use kstone_core::torture::Watchdog;
use kstone_core::{CompactionConfig, DatabaseConfig, Error, Key, ReadMode};

use crate::backup::{KEYS, newest};

const CHILD: &str = "KSTONE_BESIDE_CHILD";
/// Each round ends with a kill.
const ROUNDS: u64 = 8;
const OPENS: u64 = 30;

fn writing() -> EngineOptions {
    let mut options = EngineOptions::disk();
    let config = DatabaseConfig::new().with_stripes(4).with_max_memtable_records(60);
    let interval = Duration::from_millis(10);
    options.config = Some(config.with_wal_segment_size(64 << 10).with_checkpoint_interval(interval));
    options.compaction = Some(CompactionConfig::new().with_sst_threshold(3));
    options
}

fn reading(mode: ReadMode) -> EngineOptions {
    let mut options = EngineOptions::disk();
    options.config = Some(DatabaseConfig::new().with_read_mode(mode));
    options
}

/// The writing process: increasing numbers, each under two keys in one batch, continuing from the database's newest.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let acknowledged = File::options().write(true).open(acknowledged_in(Path::new(&path))).unwrap();
    let engine = LsmEngine::open(Path::new(&path), writing()).unwrap();
    for n in newest(&engine, 0, "the child's start") + 1.. {
        let value = n.to_string().into_bytes();
        let mut batch = WriteBatch::new();
        batch.put(Key::from(&format!("key{}", n % KEYS)), value.clone());
        batch.put(Key::from(&format!("twin{}", n % KEYS)), value);
        let options = if n % 64 == 0 { WriteOptions::sync() } else { WriteOptions::buffered() };
        engine.write(&batch, options).unwrap();
        acknowledged.write_all_at(&n.to_le_bytes(), 0).unwrap();
    }
}

fn acknowledged_in(path: &Path) -> PathBuf {
    path.with_extension("acknowledged")
}

/// The writer as seen by its observer.
struct Observed {
    dir: tempfile::TempDir,
    path: PathBuf,
    acknowledged: File,
    child: Option<Child>,
}

impl Observed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("beside.keystone");
        LsmEngine::create(&path, writing()).unwrap().close().unwrap();
        std::fs::write(acknowledged_in(&path), 0u64.to_le_bytes()).unwrap();
        let acknowledged = File::open(acknowledged_in(&path)).unwrap();
        Self { dir, path, acknowledged, child: None }
    }

    fn start(&mut self) {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["other_process::child", "--exact", "--ignored", "--nocapture"])
            .env(CHILD, &self.path)
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
    }

    fn acknowledged(&self) -> u64 {
        let mut bytes = [0; 8];
        self.acknowledged.read_exact_at(&mut bytes, 0).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// Waits until it has written this much more.
    fn let_write(&mut self, more: u64) {
        let until = self.acknowledged() + more;
        while self.acknowledged() < until {
            let child = self.child.as_mut().unwrap();
            assert!(child.try_wait().unwrap().is_none(), "the writer died");
            std::thread::yield_now();
        }
    }

    fn kill(&mut self) {
        self.child.as_mut().unwrap().kill().unwrap();
    }

    fn wait(&mut self) {
        self.child.take().unwrap().wait().unwrap();
    }

    fn ssts(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(&self.path).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".sst")).collect()
    }

    /// Opens the database, and compares its contents with the writes acknowledged before and after. `None` if it is
    /// busy.
    fn open(&self, mode: ReadMode, context: &str) -> Option<(LsmEngine, u64)> {
        let least = self.acknowledged();
        let reader = match LsmEngine::open_read_only(&self.path, reading(mode)) {
            Err(Error::Busy) => return None,
            opened => opened.unwrap_or_else(|e| panic!("{e}, {context}")),
        };
        // A number is in the log before it is acknowledged, one at a time.
        let most = self.acknowledged() + 1;
        let found = match number(&reader, least, context) {
            Err(Error::Busy) if mode == ReadMode::Pread => return None,
            found => found.unwrap_or_else(|e| panic!("{e}, {context}")),
        };
        assert!(found <= most, "{found} was not written yet, only {most}, {context}");
        Some((reader, found))
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Like [`newest`], but fails if an SST that the handle does not hold open has been removed.
fn number(reader: &LsmEngine, least: u64, context: &str) -> Result<u64, Error> {
    // Reads everything that this handle has not yet read, so that it is this call that fails.
    for key in 0..KEYS {
        reader.get(&Key::from(&format!("key{key}")))?;
        reader.get(&Key::from(&format!("twin{key}")))?;
    }
    Ok(newest(reader, least, context))
}

#[derive(Debug, Default)]
struct Seen {
    opens: u64,
    busy: u64,
    backups: u64,
    backups_busy: u64,
    rereads: u64,
    rereads_busy: u64,
    kills: u64,
    ssts_gone: usize,
    written: u64,
}

/// Makes a backup with a reader's handle, and checks its contents, opened in every way.
fn back_up(writer: &Observed, reader: &LsmEngine, copy: bool, seen: &mut Seen, context: &str) {
    let to = writer.dir.path().join("copy");
    let least = writer.acknowledged();
    match reader.backup_with(&to, BackupOptions::new().copy(copy)) {
        Err(Error::Busy) => {
            seen.backups_busy += 1;
            assert!(!to.exists(), "a failed backup is left behind, {context}");
            return;
        }
        made => _ = made.unwrap_or_else(|e| panic!("{e}, {context}")),
    }
    for mode in [ReadMode::Mmap, ReadMode::Pread] {
        let copied = LsmEngine::open_read_only(&to, reading(mode)).unwrap();
        newest(&copied, least, context);
    }
    let copied = LsmEngine::open(&to, EngineOptions::disk()).unwrap();
    newest(&copied, least, context);
    copied.verify().unwrap_or_else(|e| panic!("{e}, {context}"));
    copied.close().unwrap();
    std::fs::remove_dir_all(&to).unwrap();
    seen.backups += 1;
}

/// Checks that a handle still reads the state as of its open, long after.
fn read_again(reader: &LsmEngine, mode: ReadMode, found: u64, seen: &mut Seen, context: &str) {
    match number(reader, found, context) {
        Err(Error::Busy) if mode == ReadMode::Pread => seen.rereads_busy += 1,
        again => {
            assert_eq!(again.unwrap_or_else(|e| panic!("{e}, {context}")), found, "{context}");
            seen.rereads += 1;
        }
    }
}

fn round(writer: &mut Observed, round: u64, seen: &mut Seen) {
    writer.start();
    let mut held: Option<(LsmEngine, ReadMode, u64)> = None;
    let (mut opens, mut ssts) = (0, writer.ssts());
    for attempt in 0..OPENS * 20 {
        let mode = if attempt % 2 == 0 { ReadMode::Mmap } else { ReadMode::Pread };
        let context = format!("round {round}, attempt {attempt}, {mode:?}");
        writer.let_write(20 + attempt % 7 * 10);
        let now = writer.ssts();
        seen.ssts_gone += ssts.difference(&now).count();
        ssts = now;
        let Some((reader, found)) = writer.open(mode, &context) else {
            seen.busy += 1;
            continue;
        };
        opens += 1;
        if opens % 4 == 0 {
            back_up(writer, &reader, opens % 8 == 0, seen, &context);
        }
        if let Some((reader, mode, found)) = held.take_if(|_| opens % 5 == 0) {
            read_again(&reader, mode, found, seen, &context);
        }
        held.get_or_insert((reader, mode, found));
        if opens == OPENS {
            break;
        }
    }
    assert_eq!(opens, OPENS, "round {round}: {seen:?}");
    seen.opens += opens;
}

/// Kills the writer, and opens the database while it dies and once it is dead.
fn kill(writer: &mut Observed, round: u64, seen: &mut Seen) {
    writer.let_write(30);
    writer.kill();
    let mode = if round.is_multiple_of(2) { ReadMode::Mmap } else { ReadMode::Pread };
    let dying = writer.open(mode, &format!("round {round}, dying"));
    writer.wait();
    seen.opens += u64::from(dying.is_some());
    for mode in [ReadMode::Mmap, ReadMode::Pread] {
        let context = format!("round {round}, dead, {mode:?}");
        let Some((reader, found)) = writer.open(mode, &context) else {
            panic!("it is busy although nothing writes, {context}")
        };
        back_up(writer, &reader, round.is_multiple_of(2), seen, &context);
        assert!(dying.as_ref().is_none_or(|(_, before)| *before <= found), "{context}");
        seen.opens += 1;
    }
    if let Some((dying, before)) = dying {
        read_again(&dying, mode, before, seen, "opened while the writer died");
    }
    seen.kills += 1;
}

#[test]
fn readers_beside_another_process_that_writes_and_is_killed() {
    let _watchdog =
        Watchdog::start("other_process::readers_beside_another_process_that_writes_and_is_killed");
    let mut writer = Observed::new();
    let mut seen = Seen::default();
    for n in 0..ROUNDS {
        round(&mut writer, n, &mut seen);
        kill(&mut writer, n, &mut seen);
    }
    seen.written = writer.acknowledged();
    let engine = LsmEngine::open(&writer.path, writing()).unwrap();
    newest(&engine, seen.written, "at the end");
    engine.verify().unwrap();
    println!("readers beside a process that writes: {seen:?}");
    assert!(seen.opens >= ROUNDS * (OPENS + 2) && seen.kills == ROUNDS, "{seen:?}");
    assert!(seen.backups >= ROUNDS * OPENS / 8 && seen.rereads >= ROUNDS * 2, "{seen:?}");
    assert!(seen.ssts_gone > 100, "the writer removed too little: {seen:?}");
}
