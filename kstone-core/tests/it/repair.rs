//! Results of verify and repair beyond reporting every loss: minimal losses, numbers and settings that must continue,
//! copies of one database that are mixed up, unreadable disks.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use kstone_core::lsm::{LsmEngine, WriteOptions};
use kstone_core::repair::{Loss, RepairReport, repair};
use kstone_core::torture::State;
use kstone_core::verify::{FindingKind, Progress, Severity, VerifyOptions, VerifyReport, verify};
use kstone_core::vfs::{Errno, FaultVfs, MemVfs, Op, OpenMode, Rule, Vfs, write_all_at};
use kstone_core::{Compression, Error, Key};

use crate::damage::{Files, Fixture, files_in, files_of, fixture, mount, options};
use crate::model::{contents, entries, manual};

const DB: &str = "db";

fn closed() -> Fixture {
    fixture("closed", 2, Compression::Never, true)
}

fn changed(files: &Files, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Files {
    let mut files = files.clone();
    let mut bytes = files[name].to_vec();
    change(&mut bytes);
    files.insert(name.to_owned(), Arc::new(bytes));
    files
}

fn without(files: &Files, name: &str) -> Files {
    let mut files = files.clone();
    files.remove(name);
    files
}

fn with(files: &Files, name: &str, like: &str) -> Files {
    let mut files = files.clone();
    files.insert(name.to_owned(), Arc::clone(&files[like]));
    files
}

fn ssts(files: &Files) -> Vec<String> {
    files.keys().filter(|name| name.ends_with(".sst")).cloned().collect()
}

fn number(sst: &str) -> u64 {
    sst[4..].trim_end_matches(".sst").parse().unwrap()
}

fn open(vfs: &Arc<dyn Vfs>, seed: u64) -> LsmEngine {
    LsmEngine::open(Path::new(DB), manual(Arc::clone(vfs), seed)).unwrap()
}

fn look(vfs: &Arc<dyn Vfs>, options: VerifyOptions) -> VerifyReport {
    verify(Path::new(DB), &options.on(Arc::clone(vfs))).unwrap()
}

fn mend(vfs: &Arc<dyn Vfs>) -> (RepairReport, Vec<Loss>) {
    let mut losses = Vec::new();
    let report = repair(Path::new(DB), &options(vfs), &mut |loss| losses.push(loss.clone())).unwrap();
    let after = look(vfs, VerifyOptions::deep());
    assert!(after.is_clean(), "{:?}", after.findings);
    (report, losses)
}

fn has(report: &VerifyReport, severity: Severity, kind: FindingKind, file: &str) -> bool {
    report.findings.iter().any(|f| f.severity == severity && f.kind == kind && f.file.ends_with(file))
}

/// Misplaced data is put in its place, and nothing is lost.
#[test]
fn what_is_all_there_is_all_kept() {
    let fixture = closed();
    let names = ssts(&fixture.files);
    let mut swapped = fixture.files.clone();
    swapped.insert(names[0].clone(), Arc::clone(&fixture.files[&names[1]]));
    swapped.insert(names[1].clone(), Arc::clone(&fixture.files[&names[0]]));
    let renamed = without(&with(&fixture.files, "000-777777.sst", &names[0]), &names[0]);
    let end = fixture.files[&names[0]].len();
    let footer = changed(&fixture.files, &names[0], |bytes| bytes[end - 10] ^= 1);
    let header = changed(&fixture.files, &names[0], |bytes| bytes[70] ^= 1);
    for (what, files) in [
        ("swapped", swapped),
        ("renamed", renamed),
        ("a footer", footer),
        ("a header", header),
        ("a manifest", without(&fixture.files, "MANIFEST")),
    ] {
        let vfs = mount(&files);
        let (report, losses) = mend(&vfs);
        assert!(losses.is_empty() && !report.lost_data(), "{what}: {losses:?}");
        assert_eq!((report.had, report.saved), (report.saved, report.had), "{what}");
        assert_eq!(contents(&open(&vfs, 3), None), entries(fixture.last()), "{what}");
    }
}

/// A damaged block loses its own entries and no others, and keys are named where possible.
#[test]
fn a_block_loses_its_own_entries() {
    let fixture = closed();
    let (mut named, mut seen) = (0, 0);
    for name in ssts(&fixture.files) {
        let files = changed(&fixture.files, &name, |bytes| bytes[140] ^= 1);
        let vfs = mount(&files);
        let found = look(&vfs, VerifyOptions::deep());
        let block = found.findings.iter().find(|f| f.kind == FindingKind::Block).unwrap();
        let affected = block.affected.clone().unwrap();
        assert_eq!(found.bad_blocks, 1, "{name}");
        assert!(affected.elsewhere <= affected.named.len() as u64);
        let (report, losses) = mend(&vfs);
        assert_eq!(report.saved, report.had - affected.entries, "{name}");
        let (mut lost, mut fell_back, mut others) = (0, 0, 0);
        for loss in &losses {
            if let Loss::Key { key, now, .. } = loss {
                let read = open(&vfs, 4).get(key).unwrap();
                match now {
                    kstone_core::repair::Now::Older(_) => assert!(read.is_some(), "{key:?}"),
                    _ => assert!(read.is_none(), "{key:?}"),
                }
                lost += u64::from(matches!(now, kstone_core::repair::Now::Absent));
                fell_back += u64::from(!matches!(now, kstone_core::repair::Now::Absent));
                others += u64::from(
                    affected.named.contains(key) && !matches!(now, kstone_core::repair::Now::Absent),
                );
                // From the index: all keys whose bytes are intact.
                named += 1;
            }
        }
        assert_eq!((report.lost, report.fell_back), (lost, fell_back), "{name}");
        // For a key known from elsewhere, the index tells whether the block had its newest version.
        let engine = open(&vfs, 5);
        for key in fixture.ever.keys() {
            let (read, was) = (engine.get(key).unwrap().map(|v| v.to_vec()), fixture.last().get(key));
            let named = losses.iter().any(|loss| matches!(loss, Loss::Key { key: lost, .. } if lost == key));
            assert!(read.is_none() || read.as_ref() == was || named, "{key:?} fell back, {name}: {losses:?}");
        }
        // An older version can only be in another SST: versions in the log are newer.
        assert!(affected.elsewhere >= others, "{name}: {} of {others} seen", affected.elsewhere);
        seen += affected.elsewhere;
    }
    assert!(seen > 3, "{seen}");
    assert!(named > 10, "{named}");
}

/// A run that was merged away reappears, but not the one with deletes for some of its items: items dropped by the merge
/// stay dropped, even if no manifest says which run counts.
#[test]
fn deleted_items_do_not_come_back_out_of_files_that_were_merged_away() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let mut first = manual(Arc::clone(&vfs), 1);
    first.config = Some(kstone_core::DatabaseConfig::new().with_stripes(1));
    first.compaction = Some(kstone_core::CompactionConfig::new().with_sst_threshold(2));
    let engine = LsmEngine::create(Path::new(DB), first).unwrap();
    for key in ["a", "k", "z"] {
        engine.put(&Key::from(key), b"value", WriteOptions::new()).unwrap();
    }
    engine.flush().unwrap();
    let old = ssts(&files_of(&*vfs)).remove(0);
    let bytes = Arc::clone(&files_of(&*vfs)[&old]);
    engine.delete(&Key::from("k"), WriteOptions::new()).unwrap();
    engine.put(&Key::from("c"), b"value", WriteOptions::new()).unwrap();
    engine.flush().unwrap();
    engine.trigger_compaction(0).unwrap();
    while engine.step(0) {}
    let expected = contents(&engine, None);
    engine.close().unwrap();
    drop(engine);
    let mut files = files_of(&*vfs);
    assert!(ssts(&files).len() == 1 && !files.contains_key(&old), "{:?}", ssts(&files));
    assert_eq!(expected.len(), 3);
    files.insert(old, bytes);
    for files in [without(&files, "MANIFEST"), files] {
        let vfs = mount(&files);
        mend(&vfs);
        assert_eq!(contents(&open(&vfs, 2), None), expected);
    }
}

/// After a repair the database is like any other: settings, numbers, a concurrent reader, a backup.
#[test]
fn a_repaired_database_goes_on_like_any_other() {
    let fixture = closed();
    let names = ssts(&fixture.files);
    let before = open(&mount(&fixture.files), 1).config();
    let ever = fixture.files.keys().chain(fixture.older.keys()).filter(|name| name.ends_with(".sst"));
    let highest = ever.map(|name| number(name)).max().unwrap();
    let block = |files: &Files| changed(files, &names[0], |bytes| bytes[140] ^= 1);
    for (what, files, least) in [
        ("a block", block(&fixture.files), highest + 1),
        ("no manifest", without(&fixture.files, "MANIFEST"), 1 << 20),
        ("neither", block(&without(&fixture.files, "MANIFEST")), 1 << 20),
    ] {
        let vfs = mount(&files);
        mend(&vfs);
        let engine = open(&vfs, 2);
        if what == "a block" {
            assert_eq!(engine.config(), before, "{what}");
        }
        let key = Key::from("new");
        engine.put(&key, b"value", WriteOptions::sync()).unwrap();
        let reader = LsmEngine::open_read_only(Path::new(DB), manual(Arc::clone(&vfs), 3)).unwrap();
        assert_eq!(contents(&reader, None), contents(&engine, None), "{what}");
        engine.flush().unwrap();
        let made = ssts(&files_of(&*vfs)).into_iter().filter(|name| !files.contains_key(name));
        let lowest = made.map(|name| number(&name)).min().unwrap();
        assert!(lowest >= least, "{what}: {lowest} was used before");
        for stripe in 0..2 {
            engine.trigger_compaction(stripe).unwrap();
            while engine.step(0) {}
        }
        engine.backup(Path::new("copy")).unwrap();
        let expected = contents(&engine, None);
        engine.close().unwrap();
        assert_eq!(contents(&open(&vfs, 4), None), expected, "{what}");
        let copy = LsmEngine::open(Path::new("copy"), manual(Arc::clone(&vfs), 5)).unwrap();
        assert_eq!(contents(&copy, None), expected, "{what}");
        copy.close().unwrap();
        let copy = verify(Path::new("copy"), &VerifyOptions::deep().on(Arc::clone(&vfs))).unwrap();
        assert!(copy.is_clean(), "{:?}", copy.findings);
    }
}

/// A quick verify finds errors in metadata, and reports what it did not read.
#[test]
fn a_quick_look_is_honest() {
    let fixture = closed();
    let name = ssts(&fixture.files).remove(0);
    let report = look(&mount(&fixture.files), VerifyOptions::quick());
    assert!(report.is_clean() && report.skipped.iter().any(|what| what.contains("blocks")), "{report:?}");
    let block = changed(&fixture.files, &name, |bytes| bytes[140] ^= 1);
    assert!(look(&mount(&block), VerifyOptions::quick()).is_clean());
    let end = fixture.files[&name].len();
    for (kind, files) in [
        (FindingKind::Frame, changed(&fixture.files, &name, |bytes| bytes[end - 10] ^= 1)),
        (FindingKind::Missing, without(&fixture.files, &name)),
    ] {
        let report = look(&mount(&files), VerifyOptions::quick());
        assert!(!report.is_clean() && report.good == report.ssts - 1, "{report:?}");
        assert!(has(&report, Severity::Damage, kind, &name), "{report:?}");
    }
}

/// Verify continues after damage in the log, and reports what is missing by position and sequence numbers.
#[test]
fn a_look_goes_on_behind_damage_in_the_log() {
    let fixture = fixture("died", 4, Compression::Never, false);
    let log = fixture.files.keys().rfind(|name| name.ends_with(".log")).unwrap();
    let whole = look(&mount(&fixture.files), VerifyOptions::deep());
    assert!(whole.is_clean() && whole.log.end.is_some() && whole.log.operations >= 36, "{whole:?}");
    // The payload of the segment's first batch.
    let bad = changed(&fixture.files, log, |bytes| bytes[1080 + 50] ^= 1);
    let report = look(&mount(&bad), VerifyOptions::deep());
    assert!(!report.is_clean() && report.log.end.is_none(), "{report:?}");
    assert_eq!(report.log.records, whole.log.records - 1, "{report:?}");
    let gap = report.findings.iter().find(|f| f.kind == FindingKind::Log && f.detail.contains("may be lost"));
    let gap = gap.unwrap_or_else(|| panic!("{report:?}"));
    assert!(gap.file.ends_with(log) && gap.offset == 1080 && gap.len > 0, "{gap:?}");
    let (repaired, losses) = mend(&mount(&bad));
    assert!(repaired.log_gaps == 1 && repaired.log_rewritten, "{repaired:?}");
    assert!(matches!(&losses[..], [Loss::Log { offset: 1080, before: Some(_), .. }]), "{losses:?}");
}

/// The offsets of the records in a segment.
fn records(log: &[u8]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut at = 1080;
    while at + 48 <= log.len() && log[at..at + 4] != [0; 4] {
        places.push(at);
        let payload = u32::from_le_bytes(log[at + 8..at + 12].try_into().unwrap()) as usize;
        at += 48 + payload.next_multiple_of(8);
    }
    places
}

/// A hole in the unsynced tail ends the log: records after it were never guaranteed, and with them the state would be
/// one that never existed. A repaired copy has the same contents as an open.
#[test]
fn a_repaired_copy_ends_where_the_log_ends() {
    let fixture = fixture("died", 4, Compression::Never, false);
    let log = fixture.files.keys().rfind(|name| name.ends_with(".log")).unwrap();
    let places = records(&fixture.files[log]);
    assert!(places.len() > 6, "{places:?}");
    let hole = places[places.len() - 3];
    let torn = changed(&fixture.files, log, |bytes| bytes[hole + 50] ^= 1);
    let opened = contents(&open(&mount(&torn), 1), None);
    let three_before = &fixture.allowed[fixture.allowed.len() - 4];
    assert!(opened == entries(three_before) && opened != entries(fixture.last()));
    let vfs = mount(&torn);
    assert!(look(&vfs, VerifyOptions::deep()).is_clean() && mend(&vfs).0.unchanged);
    let mut losses = 0;
    repair(Path::new(DB), &options(&vfs).into_dir("copy"), &mut |_| losses += 1).unwrap();
    let copy = LsmEngine::open(Path::new("copy"), manual(Arc::clone(&vfs), 5)).unwrap();
    assert!(contents(&copy, None) == opened && losses == 0, "{losses}");
}

/// Findings that are only counted are damage all the same, and extra files are reported.
#[test]
fn a_report_holds_what_was_found() {
    let fixture = closed();
    let name = ssts(&fixture.files).remove(0);
    let block = changed(&fixture.files, &name, |bytes| bytes[140] ^= 1);
    let mut few = VerifyOptions::deep();
    few.max_findings = 0;
    let report = look(&mount(&block), few);
    assert!(report.more_findings > 0 && report.findings.is_empty() && !report.is_clean(), "{report:?}");

    let twin = format!("001{}", &name[3..]);
    let extra = with(&with(&fixture.files, "001-888888.sst", &name), &twin, &name);
    let report = look(&mount(&extra), VerifyOptions::deep());
    assert!(report.is_clean(), "{:?}", report.findings);
    assert!(has(&report, Severity::Warning, FindingKind::Orphan, "001-888888.sst"), "{report:?}");
    assert!(has(&report, Severity::Warning, FindingKind::Duplicate, &twin), "{report:?}");
    let other = crate::damage::fixture("other", 9, Compression::Never, true);
    let mut foreign = fixture.files.clone();
    foreign.insert("001-888889.sst".into(), Arc::clone(&other.files[&ssts(&other.files)[0]]));
    let report = look(&mount(&foreign), VerifyOptions::deep());
    assert!(has(&report, Severity::Warning, FindingKind::Misplaced, "001-888889.sst"), "{report:?}");
    // A listed name with the content of another database's file, and of another file of this one.
    let names = ssts(&fixture.files);
    for content in [&other.files[&ssts(&other.files)[0]], &fixture.files[&names[1]]] {
        let mut replaced = fixture.files.clone();
        replaced.insert(names[0].clone(), Arc::clone(content));
        let report = look(&mount(&replaced), VerifyOptions::deep());
        assert!(has(&report, Severity::Damage, FindingKind::Misplaced, &names[0]), "{report:?}");
    }
}

/// Damage in an open database is found as in a closed one.
#[test]
fn damage_in_an_open_database_is_told() {
    let fixture = closed();
    let name = ssts(&fixture.files).remove(0);
    let vfs = mount(&fixture.files);
    let engine = open(&vfs, 2);
    let sst = vfs.open(&Path::new(DB).join(&name), OpenMode::Write).unwrap();
    let was = fixture.files[&name][140];
    write_all_at(&*sst, &[was ^ 1], 140).unwrap();
    for options in [VerifyOptions::deep(), VerifyOptions::quick()] {
        let report = engine.verify_files(&options).unwrap();
        let deep = options.mode == kstone_core::verify::VerifyMode::Deep;
        assert_eq!(report.is_clean(), !deep, "{report:?}");
    }
    vfs.remove(&Path::new(DB).join(&name)).unwrap();
    let report = engine.verify_files(&VerifyOptions::quick()).unwrap();
    assert!(has(&report, Severity::Damage, FindingKind::Missing, &name) && report.live, "{report:?}");
}

/// A cancelled repair has changed nothing, and a repair into another directory leaves the remains of an earlier one.
#[test]
fn a_repair_that_changes_nothing_here_changes_nothing() {
    let fixture = closed();
    let name = ssts(&fixture.files).remove(0);
    let block = changed(&fixture.files, &name, |bytes| bytes[140] ^= 1);
    let vfs = mount(&block);
    let stop = Arc::new(|_: &Progress<'_>| ControlFlow::Break(()));
    let stopped = repair(Path::new(DB), &options(&vfs).progress(stop), &mut |_| {});
    assert!(matches!(stopped, Err(Error::Io { .. })), "{stopped:?}");
    assert!(files_of(&*vfs) == block && !vfs.list(Path::new(DB)).unwrap().iter().any(|entry| !entry.is_file));

    let rests = with(&block, "000-888888.sst.repair", &name);
    let vfs = mount(&rests);
    repair(Path::new(DB), &options(&vfs).into_dir("copy"), &mut |_| {}).unwrap();
    repair(Path::new(DB), &options(&vfs).dry_run(), &mut |_| {}).unwrap();
    assert!(files_of(&*vfs) == rests, "a repair into another directory cleaned up here");
    mend(&vfs);
    assert!(!files_of(&*vfs).contains_key("000-888888.sst.repair"));
}

/// A bad sector damages only its contents; the rest of the file is salvaged and kept.
#[test]
fn a_sector_that_cannot_be_read_loses_what_is_in_it() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let mut first = manual(Arc::clone(&vfs), 1);
    first.config = Some(kstone_core::DatabaseConfig::new().with_stripes(1).with_block_size(1024));
    let engine = LsmEngine::create(Path::new(DB), first).unwrap();
    let mut written = State::new();
    for n in 0..400 {
        let (key, value) = (Key::new(format!("k{n:03}").into_bytes()), vec![n as u8; 100]);
        engine.put(&key, &value, WriteOptions::new()).unwrap();
        written.insert(key, value);
    }
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(engine);
    let files = files_of(&*vfs);
    let name = ssts(&files).remove(0);
    assert!(files[&name].len() > 40_000);
    let bad = 8192..12288;
    let sector = bad.clone();
    let faults = FaultVfs::new(vfs);
    faults.add(
        Rule::hook(move |call| {
            let range = call.offset..call.offset + call.len;
            let hit = range.start < sector.end && sector.start < range.end;
            if hit { Err(Errno::Io.error()) } else { Ok(()) }
        })
        .on(&[Op::Read])
        .files(format!("*{name}")),
    );
    let disk: Arc<dyn Vfs> = Arc::new(faults.clone());
    let report = look(&disk, VerifyOptions::deep());
    assert!(has(&report, Severity::Damage, FindingKind::Unreadable, &name), "{report:?}");
    let (report, losses) = mend(&disk);
    let lost = report.had - report.saved;
    assert!((30..=60).contains(&lost), "{lost} of {} entries lost for one sector", report.had);
    assert!(!losses.is_empty());
    let left = contents(&open(&disk, 2), None);
    assert_eq!(left.len() as u64, 400 - lost);
    assert!(left.iter().all(|(key, value)| written[key] == *value));
    // The readable part of the original is kept, at its offset.
    let kept = &files_in(&*disk, "db/quarantine")[&format!("{name}.bad")];
    let original = &files[&name];
    assert_eq!(kept.len(), original.len());
    assert_eq!(kept[..bad.start as usize], original[..bad.start as usize]);
    assert!(kept[bad.start as usize..bad.end as usize].iter().all(|&b| b == 0));
    assert_eq!(kept[bad.end as usize..], original[bad.end as usize..]);
}

/// A database that was written to after a backup, as its process left it when it died, and the backup.
fn two_copies(flush: bool) -> (Files, Files, State) {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let mut first = manual(Arc::clone(&vfs), 1);
    first.config = Some(kstone_core::DatabaseConfig::new().with_stripes(1));
    let engine = LsmEngine::create(Path::new(DB), first).unwrap();
    let mut state = State::new();
    let mut put = |n: u32| {
        let (key, value) = (Key::new(format!("k{n}").into_bytes()), n.to_le_bytes());
        engine.put(&key, &value, WriteOptions::sync()).unwrap();
        state.insert(key, value.to_vec());
    };
    (0..5).for_each(&mut put);
    engine.flush().unwrap();
    (5..8).for_each(&mut put);
    engine.backup(Path::new("copy")).unwrap();
    (8..10).for_each(&mut put);
    if flush {
        engine.flush().unwrap();
    }
    (10..12).for_each(&mut put);
    let files = files_of(&*vfs);
    let copy = files_in(&*vfs, "copy");
    std::mem::forget(engine);
    (files, copy, state)
}

/// Symptom: `verify` and `repair` found nothing wrong with a database that does not open because a segment of its log
/// belongs to a backup of it. Cause: they compared the database's id but not the incarnation's. Fix: both are compared
/// where segments are looked up, and all callers use that code.
#[test]
fn copies_of_one_database_are_not_mixed() {
    let log_of = |files: &Files| files.keys().rfind(|name| name.ends_with(".log")).unwrap().clone();
    for flush in [false, true] {
        let (files, copy, state) = two_copies(flush);
        let (log, theirs) = (log_of(&files), log_of(&copy));
        let put = |name: &str, from: &str| {
            let mut mixed = files.clone();
            mixed.insert(name.to_owned(), Arc::clone(&copy[from]));
            mixed
        };
        // What must remain: everything, or the flushed items, with the rest reported.
        for (what, mixed, whole) in [
            ("a segment replaced", put(&log, &theirs), false),
            ("a segment added", put("wal-000777.log", &theirs), true),
            ("the manifest replaced", put("MANIFEST", "MANIFEST"), flush),
        ] {
            let context = format!("{what}, flushed after it: {flush}");
            let vfs = mount(&mixed);
            for opened in [
                LsmEngine::open(Path::new(DB), manual(Arc::clone(&vfs), 2)),
                LsmEngine::open_read_only(Path::new(DB), manual(Arc::clone(&vfs), 2)),
            ] {
                assert!(matches!(opened, Err(Error::Corruption { .. })), "{opened:?}, {context}");
            }
            for options in [VerifyOptions::deep(), VerifyOptions::quick()] {
                let report = look(&vfs, options);
                assert!(!report.is_clean(), "{context}");
                let misplaced = report.findings.iter().any(|f| f.kind == FindingKind::Misplaced);
                assert!(misplaced, "{:?}, {context}", report.findings);
            }
            let (report, losses) = mend(&vfs);
            assert!(!report.unchanged && !report.actions.is_empty(), "{context}");
            assert_eq!(losses.is_empty(), whole, "{losses:?}, {context}");
            let engine = open(&vfs, 3);
            let left: State = contents(&engine, None).into_iter().collect();
            assert!(left.iter().all(|(key, value)| state[key] == *value), "{context}");
            let flushed = if flush { 10 } else { 5 };
            assert!(left.len() >= if whole { state.len() } else { flushed }, "{}, {context}", left.len());
            engine.backup(Path::new("another")).unwrap();
            engine.close().unwrap();
            // Shared SSTs belong to the copy that wrote them, and are valid in both.
            let copy = verify(Path::new("another"), &VerifyOptions::deep().on(Arc::clone(&vfs))).unwrap();
            assert!(copy.is_clean(), "{:?}, {context}", copy.findings);
        }
        // The backup's SSTs have the source's incarnation.
        let vfs = mount(&copy);
        assert!(look(&vfs, VerifyOptions::deep()).is_clean());
        assert!(mend(&vfs).0.unchanged);
        assert_eq!(contents(&open(&vfs, 2), None).len(), 8);
        let vfs = mount(&without(&copy, "MANIFEST"));
        assert!(mend(&vfs).1.is_empty());
        assert_eq!(contents(&open(&vfs, 2), None).len(), 8);
    }
}

/// Nothing is moved or locked in a directory that is not a database, or is in use.
#[test]
fn what_is_not_ours_is_left_alone() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    vfs.create_dir(Path::new(DB)).unwrap();
    vfs.create_dir(&Path::new(DB).join("LOCK")).unwrap();
    let refused = repair(Path::new(DB), &options(&vfs), &mut |_| {});
    assert!(matches!(refused, Err(Error::NotADatabase { .. })), "{refused:?}");
    let names: BTreeSet<String> = vfs.list(Path::new(DB)).unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["LOCK".to_owned()].into());
    for (path, refused) in [("none", "NotFound"), ("file", "NotADatabase")] {
        vfs.open(Path::new("file"), OpenMode::Truncate).unwrap();
        let error = repair(Path::new(path), &options(&vfs), &mut |_| {}).unwrap_err();
        assert!(format!("{error:?}").starts_with(refused), "{error:?}");
    }
    let vfs = mount(&closed().files);
    let engine = open(&vfs, 1);
    let before = files_of(&*vfs);
    for options in [options(&vfs), options(&vfs).dry_run(), options(&vfs).into_dir("copy")] {
        let refused = repair(Path::new(DB), &options, &mut |_| {});
        assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    }
    assert!(files_of(&*vfs) == before && vfs.kind(Path::new("copy")).unwrap().is_none());
    engine.close().unwrap();
}
