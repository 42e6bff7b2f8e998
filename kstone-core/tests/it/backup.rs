//! Backups: a copy is consistent and no older than the call, whatever happens meanwhile; an interrupted one is not a
//! database; and the source is not affected.
#![allow(clippy::disallowed_methods, reason = "tests, which inspect files from outside")]

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kstone_core::lsm::{BackupOptions, EngineOptions, LsmEngine, WriteBatch, WriteOptions};
use kstone_core::vfs::{
    CrashMode, DiskVfs, Errno, FaultVfs, MemVfs, Op, OpenMode, Rule, StrictVfs, Vfs, read_all, write_all_at,
};
use kstone_core::{CompactionConfig, DatabaseConfig, Error, Key, ReadMode};

use crate::model::{Rng, contents, manual};
use crate::readers::{Writer, check};

const DB: &str = "db";
const COPY: &str = "copy";

fn open(vfs: &Arc<dyn Vfs>, path: &str, seed: u64) -> LsmEngine {
    LsmEngine::open(Path::new(path), manual(Arc::clone(vfs), seed)).unwrap_or_else(|e| panic!("{e}: {path}"))
}

fn names(vfs: &dyn Vfs, path: &str) -> Vec<String> {
    let mut names: Vec<_> = vfs.list(Path::new(path)).unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    names
}

/// The size of the database's files, each rounded up to whole pages.
fn listed(vfs: &dyn Vfs) -> u64 {
    vfs.list(Path::new(DB)).unwrap().iter().map(|entry| entry.len.next_multiple_of(4096)).sum()
}

/// A file system with the same files in one directory.
fn files_of(vfs: &dyn Vfs, dir: &Path) -> Arc<dyn Vfs> {
    let image = MemVfs::new();
    image.create_dir(dir).unwrap();
    for entry in vfs.list(dir).unwrap() {
        let path = dir.join(entry.name);
        let bytes = read_all(&*vfs.open(&path, OpenMode::Read).unwrap(), 1 << 30).unwrap();
        write_all_at(&*image.open(&path, OpenMode::Create).unwrap(), &bytes, 0).unwrap();
    }
    Arc::new(image)
}

/// The names of SSTs and log segments.
fn data(vfs: &dyn Vfs, path: &str) -> BTreeSet<String> {
    names(vfs, path).into_iter().filter(|name| name.ends_with(".sst") || name.ends_with(".log")).collect()
}

/// Checks a copy: it is a state since commit `least`, opens cleanly, and is complete.
fn check_copy(vfs: &Arc<dyn Vfs>, path: &str, writer: &Writer, least: usize, context: &str) {
    let before = data(&**vfs, path);
    let reader = LsmEngine::open_read_only(Path::new(path), manual(Arc::clone(vfs), 5)).unwrap();
    check(&reader, writer, least, context);
    let copy = open(vfs, path, 6);
    check(&copy, writer, least, context);
    assert_eq!(contents(&copy, None), contents(&reader, None), "{context}");
    let listed: usize = copy.stats().unwrap().stripes.iter().map(|stripe| stripe.ssts).sum();
    assert_eq!(before.iter().filter(|name| name.ends_with(".sst")).count(), listed, "{context}");
    assert_eq!(data(&**vfs, path), before, "opening a copy changes nothing, {context}");
    assert!(!names(&**vfs, path).iter().any(|name| name.starts_with("BACKUP") || name.ends_with(".tmp")));
}

/// Makes a backup, during which `act` runs at each progress report.
fn backup_beside(
    writer: &mut Writer,
    copy: bool,
    mut act: impl FnMut(&mut Writer),
) -> Result<kstone_core::lsm::BackupReport, Error> {
    let engine = Arc::clone(&writer.engine);
    let mut progress = |_: &kstone_core::lsm::BackupProgress| {
        act(writer);
        ControlFlow::Continue(())
    };
    engine.backup_with(Path::new(COPY), BackupOptions::new().copy(copy).progress(&mut progress))
}

#[test]
fn a_copy_is_one_moment_whatever_goes_on_while_it_is_made() {
    let (mut copies, mut linked) = (0, 0);
    for seed in 0..8 {
        for copy in [false, true] {
            let context = format!("seed {seed}, copy {copy}");
            let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
            let mut writer = Writer::new(&vfs, seed);
            writer.write(seed as usize);
            let (least, mut calls) = (writer.commits(), 0);
            let report = backup_beside(&mut writer, copy, |writer| {
                calls += 1;
                writer.turn_over();
            });
            let report = report.unwrap_or_else(|e| panic!("{e}, {context}"));
            assert!(calls > report.ssts, "{context}");
            assert_eq!(report.linked, if copy { 0 } else { report.ssts }, "{context}");
            linked += report.linked;
            check_copy(&vfs, COPY, &writer, least, &context);
            // Nothing is kept longer than the backup takes.
            for _ in 0..2 {
                let stats = writer.engine.stats().unwrap();
                let ssts: usize = stats.stripes.iter().map(|stripe| stripe.ssts).sum();
                assert_eq!(data(&*vfs, DB).len(), ssts + stats.log_segments, "{context}");
                writer.turn_over();
            }
            copies += 1;
        }
    }
    println!("backup: {copies} copies made in the middle of writes, {linked} SSTs linked");
    assert!(copies == 16 && linked > 50, "{copies} copies, {linked} linked");
}

/// Databases in every possible state can be backed up.
#[test]
fn new_reopened_closed_recovered_and_copied_databases_can_be_backed_up() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let mut number = 0;
    let mut back_up = |engine: &LsmEngine, context: &str| {
        let path = format!("copy{number}");
        number += 1;
        engine.backup(Path::new(&path)).unwrap_or_else(|e| panic!("{e}, {context}"));
        for read_only in [true, false] {
            let options = manual(Arc::clone(&vfs), 3);
            let copy = if read_only {
                LsmEngine::open_read_only(Path::new(&path), options)
            } else {
                LsmEngine::open(Path::new(&path), options)
            };
            let copy = copy.unwrap_or_else(|e| panic!("{e}, {context}"));
            assert_eq!(contents(&copy, None), contents(engine, None), "{context}");
            copy.verify().unwrap();
        }
        path
    };
    let put = |engine: &LsmEngine, n: u64| {
        let mut batch = WriteBatch::new();
        batch
            .put(Key::from(&format!("key{n}")), *b"value")
            .put(Key::from(&format!("twin{n}")), vec![0; 3000]);
        engine.write(&batch, WriteOptions::new()).unwrap();
    };
    let mut options = manual(Arc::clone(&vfs), 1);
    options.config = Some(DatabaseConfig::new().with_stripes(4).with_wal_segment_size(16 << 10));
    let engine = LsmEngine::create(Path::new(DB), options.clone()).unwrap();
    back_up(&engine, "new");
    (0..20).for_each(|n| put(&engine, n));
    back_up(&engine, "only a log, of several segments");
    engine.close().unwrap();
    drop(engine);
    let engine = open(&vfs, DB, 2);
    let path = back_up(&engine, "reopened, not written to");
    put(&engine, 30);
    back_up(&engine, "a segment that is continued");
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(engine);
    let engine = open(&vfs, DB, 2);
    back_up(&engine, "closed without a log");
    drop(engine);
    let reader = LsmEngine::open_read_only(Path::new(DB), manual(Arc::clone(&vfs), 2)).unwrap();
    back_up(&reader, "read only");
    drop(reader);
    // Copies of copies, each written to and lost without a close: nested cuts of the log.
    let mut path = path;
    for round in 0..6 {
        let copy = open(&vfs, &path, 10 + round);
        let before = contents(&copy, None);
        back_up(&copy, "a copy");
        (0..round).for_each(|n| put(&copy, 100 * round + n));
        path = back_up(&copy, "a copy that was written to");
        assert_eq!(contents(&copy, None).len(), before.len() + 2 * round as usize);
        if round % 2 == 0 {
            // Not closed: its log continues after the copied one.
            let (before, own) = (contents(&copy, None), copy.path().to_path_buf());
            std::mem::forget(copy);
            let image = files_of(&*vfs, &own);
            let recovered =
                LsmEngine::open(&own, manual(image, 4)).unwrap_or_else(|e| panic!("{e}, {round}"));
            assert_eq!(contents(&recovered, None), before, "a copy that was lost without a close, {round}");
            let reader = LsmEngine::open_read_only(&own, manual(Arc::clone(&vfs), 2)).unwrap();
            assert_eq!(contents(&reader, None), before, "{round}");
            back_up(&reader, "a copy that was lost without a close, opened read-only");
        }
    }
}

#[test]
fn a_copy_and_its_source_are_independent() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let mut writer = Writer::new(&vfs, 3);
    let mut source_before = contents(&writer.engine, None);
    writer.engine.backup(Path::new(COPY)).unwrap();
    // A file number identifies a single file in both databases together.
    let (mut of_source, mut of_copy) = (data(&*vfs, DB), BTreeSet::new());
    let shared = data(&*vfs, COPY);
    let copy = open(&vfs, COPY, 2);
    copy.set_compaction_config(CompactionConfig::new().with_sst_threshold(2)).unwrap();
    for round in 0..5u8 {
        let copy_before = contents(&copy, None);
        writer.turn_over();
        assert_eq!(contents(&copy, None), copy_before, "writes to the source show in the copy");
        source_before.clone_from(&contents(&writer.engine, None));
        for n in 0..30 {
            copy.put(&Key::from(&format!("of the copy {n}")), &[round; 50], WriteOptions::new()).unwrap();
        }
        copy.flush().unwrap();
        (0..4).for_each(|stripe| copy.trigger_compaction(stripe).unwrap());
        assert_eq!(contents(&writer.engine, None), source_before, "writes to the copy show in the source");
        copy.verify().unwrap();
        writer.engine.verify().unwrap();
        of_source.extend(data(&*vfs, DB));
        of_copy.extend(data(&*vfs, COPY));
        let numbers = |names: &BTreeSet<String>| -> BTreeSet<String> {
            let ssts = names.difference(&shared).filter(|name| name.ends_with(".sst"));
            ssts.map(|name| name.split_once('-').unwrap().1.into()).collect()
        };
        let (ours, theirs) = (numbers(&of_source), numbers(&of_copy));
        assert!(!theirs.is_empty() && ours.is_disjoint(&theirs), "{ours:?} and {theirs:?}");
    }
    copy.close().unwrap();
    writer.engine.close().unwrap();
    let (copy, source) = (open(&vfs, COPY, 3), open(&vfs, DB, 3));
    assert_eq!(contents(&source, None), source_before);
    copy.verify().unwrap();
    source.verify().unwrap();
}

/// With a power cut at each operation of a backup, there is a whole copy or none, and the source is as after any other
/// power cut.
#[test]
fn a_power_cut_at_any_operation_leaves_a_whole_copy_or_none() {
    let (mut states, mut whole) = (0, 0);
    for copy in [false, true] {
        let run = |stop: Option<u64>| {
            let strict = StrictVfs::new();
            let vfs: Arc<dyn Vfs> = Arc::new(strict.clone());
            let writer = Writer::new(&vfs, 7);
            writer.engine.sync().unwrap();
            let before = strict.ops();
            strict.stop_after(stop.map(|n| before + n));
            let least = writer.commits();
            let made = writer.engine.backup_with(Path::new(COPY), BackupOptions::new().copy(copy));
            let after = strict.ops();
            strict.stop_after(Some(0));
            (strict, writer, least, made.is_ok(), after - before)
        };
        let (.., total) = run(None);
        let mut rng = Rng(1);
        for point in 0..=total {
            let (strict, writer, least, made, _) = run(Some(point));
            // The last two operations remove the mark, which no longer means anything.
            assert_eq!(made, point + 2 >= total, "operation {point} of {total}, copy {copy}");
            for mode in [
                CrashMode::Strict,
                CrashMode::All,
                CrashMode::Random { seed: rng.next() },
                CrashMode::Random { seed: rng.next() },
            ] {
                let context = format!("{mode:?} at operation {point} of {total}, copy {copy}");
                let image: Arc<dyn Vfs> = Arc::new(strict.crash(mode));
                states += 1;
                let source = open(&image, DB, 2);
                check(&source, &writer, least, &context);
                match LsmEngine::open(Path::new(COPY), manual(Arc::clone(&image), 3)) {
                    Ok(copy) => {
                        drop(copy);
                        check_copy_of(&image, &writer, least, &context);
                        whole += 1;
                    }
                    Err(error) => {
                        assert!(!made, "{error}, {context}");
                        assert!(matches!(error.code(), "not_found" | "not_a_database"), "{error}, {context}");
                        // A new backup can replace the remains.
                        source.backup(Path::new(COPY)).unwrap_or_else(|e| panic!("{e}, {context}"));
                        check_copy_of(&image, &writer, least, &context);
                    }
                }
                drop(source);
                open(&image, DB, 4).verify().unwrap_or_else(|e| panic!("{e}, {context}"));
            }
        }
    }
    println!("backup: {states} states after a power cut, {whole} of them with a whole copy");
    assert!(states >= 400 && whole > 8, "{states} states, {whole} whole");
}

fn check_copy_of(image: &Arc<dyn Vfs>, writer: &Writer, least: usize, context: &str) {
    let copy = open(image, COPY, 6);
    check(&copy, writer, least, context);
    copy.put(&Key::from("more"), b"value", WriteOptions::new()).unwrap();
    copy.flush().unwrap();
    copy.close().unwrap_or_else(|e| panic!("{e}, {context}"));
}

#[test]
fn a_destination_that_fails_is_named_and_cleaned_up_and_the_source_goes_on() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let mut writer = Writer::new(&vfs, 5);
    let mut failures = 0;
    for errno in [Errno::NoSpace, Errno::Io] {
        for n in 1.. {
            let target = FaultVfs::new(Arc::new(MemVfs::new()));
            let rule = target.add(Rule::fail(errno).on_changes().nth(n));
            let options = BackupOptions::new().to(Arc::new(target.clone()));
            let made = writer.engine.backup_with(Path::new(COPY), options);
            if rule.hits() == 0 {
                break;
            }
            if made.is_ok() {
                // Next to a manifest, the mark of an unfinished backup means nothing.
                let taken_away = target.count(Op::Remove);
                assert_eq!(taken_away, 1, "it succeeded in spite of {errno:?} at {n}");
                continue;
            }
            failures += 1;
            let Err(Error::Io { path, source, .. }) = made else { panic!("{made:?} at {n}") };
            assert!(path.starts_with(COPY), "{} at {n}", path.display());
            assert_eq!(source.kind(), errno.error().kind(), "{source} at {n}");
            assert_eq!(target.kind(Path::new(COPY)).unwrap(), None, "left behind at {n}");
            writer.write(1);
        }
    }
    writer.turn_over();
    println!("backup: {failures} failures of the destination");
    assert!(failures > 60, "{failures} failures");
}

#[test]
fn a_backup_can_be_called_off_at_any_time() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let writer = Writer::new(&vfs, 5);
    let mut calls = 0;
    for last in 1.. {
        calls = 0;
        let mut before = 0;
        let mut progress = |done: &kstone_core::lsm::BackupProgress| {
            calls += 1;
            assert!(done.bytes_done >= before && done.bytes_done <= done.bytes, "{done:?}");
            assert!(done.files_done <= done.files, "{done:?}");
            before = done.bytes_done;
            if calls == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let made = writer.engine.backup_with(Path::new(COPY), BackupOptions::new().progress(&mut progress));
        if calls < last {
            made.unwrap();
            break;
        }
        assert!(matches!(made, Err(Error::Cancelled)), "{made:?}");
        assert_eq!(vfs.kind(Path::new(COPY)).unwrap(), None, "left behind at {last}");
    }
    assert!(calls > 6, "{calls} calls");
    check_copy(&vfs, COPY, &writer, writer.commits(), "after all");
}

#[test]
fn closing_the_database_ends_its_backup() {
    // Also if nothing that remains to be copied changes.
    for busy in [true, false] {
        let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
        let mut writer = Writer::new(&vfs, 5);
        let mut calls = 0;
        let made = backup_beside(&mut writer, true, |writer| {
            calls += 1;
            match calls {
                1..5 if busy => writer.turn_over(),
                1..5 => {}
                5 => writer.engine.close().unwrap(),
                _ => panic!("it continues"),
            }
        });
        assert!(matches!(made, Err(Error::Closed)), "{made:?}");
        assert_eq!(vfs.kind(Path::new(COPY)).unwrap(), None);
        let before = data(&*vfs, DB);
        let engine = open(&vfs, DB, 3);
        check(&engine, &writer, writer.commits(), "reopened");
        let stats = engine.stats().unwrap();
        let ssts: usize = stats.stripes.iter().map(|stripe| stripe.ssts).sum();
        assert_eq!(before.len(), ssts + stats.log_segments, "pinned files are left over: {before:?}");
    }
}

#[test]
fn destinations_that_hold_something_or_lie_in_the_database_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let engine = LsmEngine::create(&at(DB), EngineOptions::disk()).unwrap();
    engine.put(&Key::from("key"), b"value", WriteOptions::new()).unwrap();
    std::fs::create_dir(at("full")).unwrap();
    std::fs::write(at("full/notes.txt"), "mine").unwrap();
    std::fs::write(at("file"), "mine").unwrap();
    std::fs::create_dir(at("lost")).unwrap();
    std::fs::write(at("lost/000-000001.sst"), "mine").unwrap();
    std::fs::write(at("lost/MANIFEST.tmp"), "mine").unwrap();
    LsmEngine::create(&at("another"), EngineOptions::disk()).unwrap().close().unwrap();
    std::os::unix::fs::symlink(at(DB), at("link")).unwrap();
    for name in ["full", "file", "another", "lost", "link"] {
        let made = engine.backup(&at(name));
        let fits = matches!(made, Err(Error::AlreadyExists { .. }));
        let inside = matches!(made, Err(Error::InvalidConfig { field: "destination", .. }));
        assert!(if name == "link" { inside } else { fits }, "{name}: {made:?}");
    }
    assert_eq!(std::fs::read_dir(at("full")).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(at("lost")).unwrap().count(), 2);
    std::fs::create_dir(at("db/inner")).unwrap();
    std::os::unix::fs::symlink(at("db/inner"), at("way in")).unwrap();
    for name in [DB, "db/copy", "db/inner/copy", "link/copy", "way in/copy", "full/../db/copy", "db/."] {
        let made = engine.backup(&at(name));
        assert!(matches!(made, Err(Error::InvalidConfig { field: "destination", .. })), "{name}: {made:?}");
    }
    assert!(matches!(engine.backup(&at("none/copy")), Err(Error::Io { op: "create", .. })));
    std::fs::create_dir(at("empty")).unwrap();
    let report = engine.backup(&at("empty")).unwrap();
    assert_eq!((report.ssts, report.log_bytes > 0), (0, true));
    LsmEngine::open(&at("empty"), EngineOptions::disk()).unwrap().verify().unwrap();
}

/// While a backup is being made, its destination is reserved; the remains of one are recognisable.
#[test]
fn a_destination_is_claimed_and_a_rest_says_what_it_is() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let mut writer = Writer::new(&vfs, 5);
    let mut seen = 0;
    backup_beside(&mut writer, false, |writer| {
        seen += 1;
        let again = writer.engine.backup(Path::new(COPY));
        assert!(matches!(again, Err(Error::Locked { .. })), "{again:?}");
        let opened = LsmEngine::open_read_only(Path::new(COPY), manual(Arc::clone(&vfs), 1));
        let Err(Error::NotADatabase { detail, .. }) = opened else { panic!("{opened:?}") };
        assert!(detail.contains("unfinished backup"), "{detail}");
        let created = LsmEngine::create(Path::new(COPY), manual(Arc::clone(&vfs), 1));
        assert!(matches!(created, Err(Error::Locked { .. })), "{created:?}");
    })
    .unwrap();
    assert!(seen > 5, "{seen}");
}

/// Files that a backup pins count towards the limit as long as they exist, and no longer.
#[test]
fn a_backup_does_not_break_the_limit_on_disk_space() {
    let limit = 1 << 20;
    for copy in [false, true] {
        let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
        let mut writer = Writer::new(&vfs, 5);
        let config = writer.engine.config().with_max_total_disk_bytes(limit);
        writer.engine.set_config(config).unwrap();
        let probe = Arc::clone(&vfs);
        let (mut most, mut refused, mut number) = (0, 0, 0u64);
        backup_beside(&mut writer, copy, |writer| {
            for n in 0..40 {
                number += 1;
                let key = Key::from(&format!("filler{number}")).into_owned();
                match writer.engine.put(&key, &[n; 4000], WriteOptions::new()) {
                    Ok(_) => {}
                    Err(Error::DiskFull) => refused += 1,
                    // The backup pins the oldest segment, and on a single thread it waits for this put.
                    Err(Error::WriteStalled { .. }) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
                writer.engine.step(u64::from(n));
                most = most.max(listed(&*probe));
                assert!(listed(&*probe) <= limit);
                let used = writer.engine.disk_usage().unwrap().used;
                assert_eq!(used, listed(&*probe), "pinned files count");
            }
        })
        .unwrap();
        assert!(most > limit / 3 && refused > 0, "{most} bytes at most, {refused} puts refused");
        open(&vfs, COPY, 3).verify().unwrap();
        writer.engine.flush().unwrap();
        writer.engine.put(&Key::from("after"), b"value", WriteOptions::new()).unwrap();
    }
}

/// The writer, which a read-only handle cannot hold back, removes all SSTs after the backup has started.
#[test]
fn a_backup_by_a_reader_has_what_it_holds_and_is_told_what_it_does_not() {
    for mode in [ReadMode::Mmap, ReadMode::Pread] {
        let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
        let mut writer = Writer::new(&vfs, 5);
        let mut options = manual(Arc::clone(&vfs), 2);
        options.config = Some(DatabaseConfig::new().with_read_mode(mode));
        let reader = LsmEngine::open_read_only(Path::new(DB), options).unwrap();
        writer.turn_over();
        let (least, before) = (writer.commits(), data(&*vfs, DB));
        let mut progress = |_: &kstone_core::lsm::BackupProgress| {
            if writer.commits() == least {
                writer.turn_over();
            }
            ControlFlow::Continue(())
        };
        let made = reader.backup_with(Path::new(COPY), BackupOptions::new().progress(&mut progress));
        let now = data(&*vfs, DB);
        assert!(before.difference(&now).any(|name| name.ends_with(".sst")), "{before:?} {now:?}");
        if mode == ReadMode::Mmap {
            let report = made.unwrap();
            assert!(report.linked < report.ssts, "{report:?}");
            check_copy(&vfs, COPY, &writer, least, "by a reader");
        } else {
            assert!(matches!(made, Err(Error::Busy)), "{made:?}");
            assert_eq!(vfs.kind(Path::new(COPY)).unwrap(), None);
        }
    }
}

/// The reader's path now leads to another database, even if that is a copy of the same.
#[test]
fn a_reader_does_not_back_up_another_database_than_it_has_open() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let engine = LsmEngine::create(&at(DB), EngineOptions::disk()).unwrap();
    engine.put(&Key::from("key"), b"value", WriteOptions::new()).unwrap();
    engine.backup(&at("same")).unwrap();
    drop(engine);
    LsmEngine::create(&at("another"), EngineOptions::disk()).unwrap().close().unwrap();
    for name in ["same", "another"] {
        let reader = LsmEngine::open_read_only(&at(DB), EngineOptions::disk()).unwrap();
        std::fs::rename(at(DB), at("moved")).unwrap();
        std::fs::rename(at(name), at(DB)).unwrap();
        let made = reader.backup(&at("copy"));
        let Err(Error::Io { path, source, .. }) = &made else { panic!("{name}: {made:?}") };
        assert_eq!(*path, at(DB));
        assert!(source.to_string().contains("the database has been replaced"), "{source}");
        assert!(!at("copy").exists());
        std::fs::rename(at(DB), at(name)).unwrap();
        std::fs::rename(at("moved"), at(DB)).unwrap();
        reader.backup(&at("copy")).unwrap();
        std::fs::remove_dir_all(at("copy")).unwrap();
    }
}

#[test]
fn a_database_in_memory_can_be_backed_up_to_disk() {
    let dir = tempfile::tempdir().unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let writer = Writer::new(&vfs, 5);
    let options = BackupOptions::new().to(Arc::new(DiskVfs::new()));
    writer.engine.backup_with(&dir.path().join("copy"), options).unwrap();
    let copy = LsmEngine::open(&dir.path().join("copy"), EngineOptions::disk()).unwrap();
    check(&copy, &writer, writer.commits(), "on disk");
}

/// A damaged SST is detected when it is copied, or when a copy that shares it is verified.
#[test]
fn damage_is_not_copied_in_silence() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let writer = Writer::new(&vfs, 5);
    let name = data(&*vfs, DB).into_iter().find(|name| name.ends_with(".sst")).unwrap();
    let path = Path::new(DB).join(name);
    let file = vfs.open(&path, OpenMode::Write).unwrap();
    file.write_at(b"x", 200).unwrap();
    let made = writer.engine.backup_with(Path::new(COPY), BackupOptions::new().copy(true));
    assert!(matches!(&made, Err(Error::Corruption { file, .. }) if *file == path), "{made:?}");
    writer.engine.backup(Path::new(COPY)).unwrap();
    assert!(matches!(open(&vfs, COPY, 2).verify(), Err(Error::Corruption { .. })));
    // A truncated file is noticed without reading it.
    let len = file.len().unwrap();
    file.set_len(len - 1).unwrap();
    for copy in [false, true] {
        let made = writer.engine.backup_with(Path::new("second"), BackupOptions::new().copy(copy));
        let Err(Error::Corruption { file, offset, .. }) = &made else { panic!("{made:?}") };
        assert_eq!((file, *offset), (&path, len - 1));
        assert_eq!(vfs.kind(Path::new("second")).unwrap(), None);
    }
}

fn on_disk() -> EngineOptions {
    let mut options = EngineOptions::disk();
    let config = DatabaseConfig::new().with_stripes(4).with_max_memtable_records(40);
    let interval = std::time::Duration::from_millis(3);
    options.config = Some(config.with_wal_segment_size(64 << 10).with_checkpoint_interval(interval));
    options.compaction = Some(CompactionConfig::new().with_sst_threshold(3));
    options
}

pub(crate) const KEYS: u64 = 300;

fn write_numbers(engine: &LsmEngine, acknowledged: &AtomicU64, stop: &AtomicBool) {
    for n in 1.. {
        let value = n.to_string().into_bytes();
        let mut batch = WriteBatch::new();
        batch.put(Key::from(&format!("key{}", n % KEYS)), value.clone());
        batch.put(Key::from(&format!("twin{}", n % KEYS)), value);
        let durable = if n % 16 == 0 { WriteOptions::sync() } else { WriteOptions::buffered() };
        engine.write(&batch, durable).unwrap();
        acknowledged.store(n, Ordering::Release);
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// The contents of a copy must be the newest of the first n numbers under each key, for some n of at least `least`;
/// returns n.
pub(crate) fn newest(engine: &LsmEngine, least: u64, context: &str) -> u64 {
    let number = |name: String| {
        let value = engine.get(&Key::from(&name)).unwrap_or_else(|e| panic!("{e}, {context}"));
        value.map_or(0, |value| String::from_utf8(value.to_vec()).unwrap().parse::<u64>().unwrap())
    };
    let found: Vec<u64> = (0..KEYS).map(|key| number(format!("key{key}"))).collect();
    let n = *found.iter().max().unwrap();
    assert!(n >= least, "{n} is the newest, {least} was acknowledged, {context}");
    for key in 0..KEYS {
        let expected =
            (0..n / KEYS + 1).rev().map(|round| round * KEYS + key).find(|&at| at <= n).unwrap_or(0);
        assert_eq!(found[key as usize], expected, "key {key} of {n}, {context}");
        assert_eq!(number(format!("twin{key}")), expected, "half a batch of {n}, {context}");
    }
    n
}

/// With real threads, on the real file system: backups by the writer's handle and by a read-only one.
#[test]
fn backups_under_load_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DB);
    let engine = LsmEngine::create(&path, on_disk()).unwrap();
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (mut made, mut busy, mut linked) = (0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| write_numbers(&engine, &acknowledged, &stop));
        let _stop = Stop(&stop);
        for round in 0..24u64 {
            while acknowledged.load(Ordering::Acquire) < round * 200 {
                std::thread::yield_now();
            }
            let copy = dir.path().join(format!("copy{round}"));
            let least = acknowledged.load(Ordering::Acquire);
            let result = if round % 2 == 0 {
                let options = BackupOptions::new().copy(round % 4 == 0);
                engine.backup_with(&copy, options)
            } else {
                LsmEngine::open_read_only(&path, EngineOptions::disk())
                    .and_then(|reader| reader.backup(&copy))
            };
            match result {
                Ok(report) => linked += report.linked,
                Err(Error::Busy) if round % 2 == 1 => {
                    busy += 1;
                    continue;
                }
                Err(error) => panic!("{error}, round {round}"),
            }
            let context = format!("round {round}");
            for mode in [ReadMode::Mmap, ReadMode::Pread] {
                let mut options = EngineOptions::disk();
                options.config = Some(DatabaseConfig::new().with_read_mode(mode));
                let reader = LsmEngine::open_read_only(&copy, options).unwrap();
                newest(&reader, least, &context);
            }
            let copied = LsmEngine::open(&copy, EngineOptions::disk()).unwrap();
            newest(&copied, least, &context);
            copied.verify().unwrap();
            copied.put(&Key::from("more"), b"value", WriteOptions::sync()).unwrap();
            made += 1;
        }
    });
    engine.verify().unwrap();
    println!("backup: {made} on disk under load, {linked} SSTs linked, {busy} times busy");
    assert!(made >= 16 && linked > 20, "{made} made, {linked} linked, {busy} busy");
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The result of `cp -r` on a database that is being written to is not a backup. It must lead to a clear error or to
/// all data as of some moment, however it is opened, and never to less.
#[test]
fn copies_made_with_cp_of_a_live_database_are_whole_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DB);
    let engine = LsmEngine::create(&path, on_disk()).unwrap();
    let (acknowledged, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut outcomes = std::collections::BTreeMap::<String, u32>::new();
    std::thread::scope(|scope| {
        scope.spawn(|| write_numbers(&engine, &acknowledged, &stop));
        let _stop = Stop(&stop);
        for round in 0..50u64 {
            while acknowledged.load(Ordering::Acquire) < round * 50 {
                std::thread::yield_now();
            }
            let copy: PathBuf = dir.path().join("copy");
            let least = acknowledged.load(Ordering::Acquire);
            // cp reports files that vanish while it copies, as happens with a live database.
            let _ = Command::new("cp")
                .arg("-r")
                .arg(&path)
                .arg(&copy)
                .stderr(std::process::Stdio::null())
                .status();
            for read_only in [true, false] {
                let context = format!("round {round}, read only {read_only}");
                let opened = if read_only {
                    LsmEngine::open_read_only(&copy, EngineOptions::disk())
                } else {
                    LsmEngine::open(&copy, EngineOptions::disk())
                };
                let lost = opened.as_ref().is_ok_and(|engine| !engine.damage().is_empty());
                let outcome = match opened {
                    Ok(_) if lost => "reported as damaged".into(),
                    Ok(engine) => {
                        newest(&engine, least, &context);
                        engine.verify().unwrap_or_else(|e| panic!("{e}, {context}"));
                        "whole".into()
                    }
                    Err(error @ Error::Corruption { .. }) => {
                        let text = error.to_string();
                        let why = [
                            "missing",
                            "synced up to",
                            "durable up to",
                            "bytes, the manifest",
                            "was durable when",
                        ];
                        why.iter()
                            .find(|why| text.contains(**why))
                            .map_or(text.clone(), |why| format!("... {why} ..."))
                    }
                    Err(error) => panic!("{error}, {context}"),
                };
                *outcomes
                    .entry(format!("{}: {outcome}", if read_only { "read" } else { "write" }))
                    .or_default() += 1;
            }
            std::fs::remove_dir_all(&copy).unwrap();
        }
    });
    println!("cp -r, 50 copies, each opened both ways: {outcomes:?}");
    assert_eq!(outcomes.values().sum::<u32>(), 100);
}
