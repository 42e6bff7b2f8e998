//! A whole database: the input damages its files, which are then opened, read, verified, written to and opened again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use super::agree::agree;
use super::edits;
use super::files::{Files, listed, on_disk};
use super::{Input, expect_corruption, is_about_bytes, seal};
use crate::clock::ManualClock;
use crate::config::{CompactionConfig, Compression, DatabaseConfig, ReadMode};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lsm::{Direction, EngineOptions, LsmEngine, WriteBatch, WriteOptions};
use crate::paths::{self, FileName};
use crate::vfs::{MemVfs, Vfs};

type State = BTreeMap<Key<'static>, Vec<u8>>;

/// A genuine database.
struct DirectorySample {
    files: Files,
    /// Earlier versions of the files.
    older: Files,
    /// Its contents after each commit, starting with none.
    states: Vec<State>,
    /// Number of commits in SSTs that the manifest lists.
    durable: usize,
}

/// Databases that were closed, cut off, recovered, and merged.
static WRITTEN: LazyLock<Vec<DirectorySample>> = LazyLock::new(|| (0..4).map(written).collect());

/// The files of each of these databases.
pub(super) fn written_files() -> impl Iterator<Item = Files> {
    WRITTEN.iter().map(|written| written.files.clone())
}

/// Opens the directory described by the input.
pub fn directory(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mode, which) = (input.byte(), input.byte());
    let written = &WRITTEN[usize::from(which) % WRITTEN.len()];
    let config = config(if mode & 2 > 0 { ReadMode::Pread } else { ReadMode::Mmap });
    let mut files = written.files.clone();
    let mut done = edits::apply(&mut files, &written.older, &mut input);
    files.sort();
    let changed = |file: &&(String, Vec<u8>)| !files.contains(file);
    let kinds: Vec<_> = written.files.iter().filter(changed).map(|(name, _)| paths::parse(name)).collect();
    let has_log = kinds.iter().any(|kind| matches!(kind, FileName::Log(_)));
    done.unvouched = has_log && kinds.contains(&FileName::Manifest);
    if mode & 1 == 0 {
        if mode & 4 > 0 {
            agree(&files);
        }
        damage(written, files, &done, config);
    } else {
        for (name, bytes) in &mut files {
            if written.files.iter().any(|(same, before)| same == name && before == bytes) {
                continue;
            }
            match paths::parse(name) {
                FileName::Manifest => seal::manifest(bytes, |_| false),
                FileName::Log(_) => seal::segment(bytes, None, |_| false),
                FileName::Sst { .. } if bytes.len() >= 192 => drop(seal::sst(bytes, 0)),
                _ => {}
            }
        }
        if mode & 4 > 0 {
            agree(&files);
        }
        anything(files, config);
    }
}

/// Genuine damage: a read returns the state after some commit, or an error; a directory that was refused is unchanged.
fn damage(written: &DirectorySample, files: Files, done: &edits::Done, config: DatabaseConfig) {
    let vfs = on_disk(dir(), &files);
    let read_only = LsmEngine::open_read_only(dir(), options(&vfs, config.clone()));
    if let Ok(engine) = &read_only {
        check(engine, written, done);
    }
    // With files missing, only a read-only handle opens, and reports them.
    let may_read = read_only.as_ref().is_ok_and(|engine| engine.damage().is_empty());
    drop(read_only);
    assert!(listed(dir(), &vfs) == files, "reading changed something");
    match LsmEngine::open(dir(), options(&vfs, config.clone())) {
        Err(error) => {
            assert!(done.edits > 0 && !may_read, "{error}");
            let same = without_lock(listed(dir(), &vfs)) == without_lock(files);
            assert!(same, "opening failed and changed something: {error}");
            match error {
                Error::NotADatabase { .. } => {}
                error => expect_corruption(&error),
            }
        }
        Ok(engine) => {
            assert!(may_read, "it can be opened for writing, but not for reading");
            let before = check(&engine, written, done);
            let key = Key::from(("new", "key"));
            // A damaged block obstructs the merges of its stripe, and eventually its writes.
            let put = engine.put(&key, b"value", WriteOptions::sync());
            let value = match put {
                Ok(_) => Some(&b"value"[..]),
                Err(Error::WriteStalled { .. }) => None,
                Err(error) => panic!("{error}"),
            };
            assert!(value.is_none() || engine.get(&key).expect("it is in memory").as_deref() == value);
            for choice in 0..20 {
                engine.step(choice);
            }
            for result in [engine.flush(), engine.trigger_compaction(0), engine.close()] {
                let _ = result.inspect_err(expect_corruption);
            }
            drop(engine);
            let engine = LsmEngine::open(dir(), options(&vfs, config)).expect("it was opened before");
            if value.is_some() {
                assert_eq!(engine.get(&key).expect("it was written just now").as_deref(), value);
                match engine.delete(&key, WriteOptions::buffered()) {
                    Ok(_) => {}
                    Err(Error::WriteStalled { .. }) => return,
                    Err(error) => panic!("{error}"),
                }
            }
            let after = check(&engine, written, done);
            assert!(after.iter().any(|state| before.contains(state)), "from {before:?} to {after:?}");
        }
    }
}

/// The commits whose resulting state matches what can be read.
fn check(engine: &LsmEngine, written: &DirectorySample, done: &edits::Done) -> Vec<usize> {
    let mut candidates: Vec<usize> = (0..written.states.len()).collect();
    let (mut errors, mut seen) = (0, Vec::new());
    let keys: std::collections::BTreeSet<_> = written.states.iter().flat_map(State::keys).collect();
    for key in keys {
        match engine.get(key) {
            Ok(value) => {
                candidates.retain(|&n| written.states[n].get(key).map(Vec::as_slice) == value.as_deref());
                seen.push((key, value.map(|value| value.to_vec())));
            }
            Err(error) => {
                expect_corruption(&error);
                errors += 1;
            }
        }
    }
    let (forwards, forward_error) = scan(engine, Direction::Forward);
    let (mut backwards, backward_error) = scan(engine, Direction::Reverse);
    backwards.reverse();
    candidates.retain(|&n| {
        let all: Vec<_> = written.states[n].iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let forwards = if forward_error { all.starts_with(&forwards) } else { all == forwards };
        forwards && if backward_error { all.ends_with(&backwards) } else { all == backwards }
    });
    let newest = candidates.last().copied();
    assert!(newest.is_some(), "a state was read that never existed: {seen:?}, {forwards:?}, {backwards:?}");
    // The log headers reveal that a manifest lost its last edits, unless both are damaged.
    let known = done.unvouched || newest >= Some(written.durable);
    assert!(known, "commit {newest:?} of {} durable ones", written.durable);
    let verified = engine.verify().inspect_err(expect_corruption).is_ok();
    assert!(!verified || (errors == 0 && !forward_error && !backward_error), "verified, but not readable");
    if done.edits == 0 {
        assert!(verified && newest == Some(written.states.len() - 1));
    }
    candidates
}

/// Forged files: whatever they contain, nothing may panic, hang or take unbounded memory.
fn anything(files: Files, config: DatabaseConfig) {
    let vfs = on_disk(dir(), &files);
    if let Ok(engine) = LsmEngine::open_read_only(dir(), options(&vfs, config.clone())) {
        use_all(&engine);
    }
    assert!(listed(dir(), &vfs) == files, "reading changed something");
    for _ in 0..2 {
        let engine = match LsmEngine::open(dir(), options(&vfs, config.clone())) {
            Ok(engine) => engine,
            Err(error) => {
                let told = matches!(
                    error,
                    Error::NotADatabase { .. } | Error::InvalidConfig { .. } | Error::Poisoned { .. }
                );
                return assert!(told || is_about_bytes(&error), "{error:?}");
            }
        };
        use_all(&engine);
        let mut batch = WriteBatch::new();
        batch.put(("part1", "s3"), *b"new").delete(("part2", "s1"));
        let _ = engine.write(&batch, WriteOptions::sync());
        for choice in 0..20 {
            engine.step(choice);
        }
        let _ = engine.flush();
        for stripe in 0..engine.stripe_count() {
            let _ = engine.trigger_compaction(stripe);
        }
        use_all(&engine);
        let _ = engine.close();
    }
}

/// Calls everything that can be called.
fn use_all(engine: &LsmEngine) {
    for part in 0..6 {
        let partition = format!("part{part}");
        for sort in 0..4 {
            let _ = engine.get(&Key::from((partition.as_str(), format!("s{sort}").as_str())));
        }
        let _ = engine.get(&Key::from(partition.as_str()));
    }
    for direction in [Direction::Forward, Direction::Reverse] {
        scan(engine, direction);
    }
    let _ = engine.verify();
    let _ = engine.pending_rewrites();
    let _ = engine.disk_usage();
    let stats = engine.stats();
    let _ = stats.map(|stats| format!("{stats} {stats:?}"));
    let _ = (engine.estimate_bloom_memory(), engine.estimate_index_memory());
    for stripe in 0..engine.stripe_count() {
        let _ = engine.needs_compaction(stripe);
    }
}

/// The rows that a scan returns, and whether it ended with an error.
fn scan(engine: &LsmEngine, direction: Direction) -> (Vec<(Key<'static>, Vec<u8>)>, bool) {
    let mut rows = Vec::new();
    match engine.scan(b"", direction, None) {
        Err(error) => {
            assert!(is_about_bytes(&error), "{error:?}");
            return (rows, true);
        }
        Ok(entries) => {
            for entry in entries.take(10_000) {
                match entry {
                    Ok((key, value)) => rows.push((key, value[..value.len().min(4096)].to_vec())),
                    Err(error) => {
                        assert!(is_about_bytes(&error), "{error:?}");
                        return (rows, true);
                    }
                }
            }
        }
    }
    (rows, false)
}

fn dir() -> &'static Path {
    Path::new("/db")
}

fn without_lock(mut files: Files) -> Files {
    files.retain(|(name, _)| name != paths::LOCK);
    files
}

fn config(mode: ReadMode) -> DatabaseConfig {
    DatabaseConfig::new()
        .with_stripes(2)
        .with_max_memtable_records(8)
        .with_block_size(128)
        .with_compression(Compression::Older)
        .with_wal_segment_size(16 << 10)
        .with_block_cache_bytes(64 << 10)
        .with_read_mode(mode)
}

fn options(vfs: &MemVfs, config: DatabaseConfig) -> EngineOptions {
    let mut options = EngineOptions::reproducible(Arc::new(vfs.clone()), Arc::new(ManualClock::new(1)));
    options.config = Some(config);
    options.compaction = Some(CompactionConfig::new().with_sst_threshold(2));
    options
}

/// A database with a history. `kind` 0: closed; 1: cut off; 2: recovered and cut off again; 3: merged and cut off.
fn written(kind: u8) -> DirectorySample {
    let vfs = MemVfs::new();
    vfs.create_dir(dir()).expect("memory");
    let (mut states, mut durable, mut older) = (vec![State::new()], 0, Files::new());
    let mut files = Files::new();
    for handle in 0..if kind == 2 { 2 } else { 1 } {
        let vfs = if handle == 0 { vfs.clone() } else { on_disk(dir(), &files) };
        let options = options(&vfs, config(ReadMode::Mmap));
        let engine = LsmEngine::open_or_create(dir(), options).expect("memory");
        for n in 0..60u64 {
            commit(&engine, n + 60 * handle, &mut states).expect("memory");
            if n == 20 {
                older = listed(dir(), &vfs);
            }
            if n == 40 {
                engine.flush().expect("memory");
                durable = states.len() - 1;
            }
            if n % 7 == 0 {
                engine.step(n);
            }
        }
        if kind == 3 {
            (0..2).for_each(|stripe| engine.trigger_compaction(stripe).expect("memory"));
            durable = states.len() - 1;
            commit(&engine, 200, &mut states).expect("memory");
        }
        if kind == 0 {
            engine.close().expect("memory");
            durable = states.len() - 1;
        }
        files = listed(dir(), &vfs);
    }
    DirectorySample { files, older, states, durable }
}

fn commit(engine: &LsmEngine, n: u64, states: &mut Vec<State>) -> Result<()> {
    let (mut batch, mut state) = (WriteBatch::new(), states[states.len() - 1].clone());
    for op in 0..1 + n % 3 {
        let partition = format!("part{}", (n * 7 + op) % 6);
        let key = match (n + op) % 5 {
            0 => Key::from(partition).into_owned(),
            sort => Key::from((partition, format!("s{sort}"))).into_owned(),
        };
        if n % 4 == 3 {
            state.remove(&key);
            batch.delete(key);
        } else {
            let value = format!("{n}-{op}-{}", "x".repeat((n % 30) as usize)).into_bytes();
            state.insert(key.clone(), value.clone());
            batch.put(key, value);
        }
    }
    engine
        .write(&batch, if n.is_multiple_of(5) { WriteOptions::sync() } else { WriteOptions::buffered() })?;
    states.push(state);
    Ok(())
}

/// Initial inputs.
pub fn directory_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for which in 0..WRITTEN.len() as u8 {
        let files = WRITTEN[usize::from(which)].files.len() as u8;
        for mode in 0..8 {
            seeds.push(vec![mode, which]);
            for op in 0..14 {
                let file = (op * 5 + which) % files;
                seeds.push(vec![mode, which, op, file, 130 + op * 8, 1, 3 + op]);
            }
        }
    }
    seeds
}
