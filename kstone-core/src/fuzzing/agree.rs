//! Opening, verify and repair must agree about a directory: one that verify calls clean opens and is readable down to
//! the last version, a repaired one is clean, and all forms of a repair report the same.

use std::path::Path;
use std::sync::Arc;

use super::files::{Files, listed, on_disk};
use super::is_about_bytes;
use crate::clock::ManualClock;
use crate::error::Error;
use crate::key::Key;
use crate::lsm::{Direction, EngineOptions, LsmEngine, WriteOptions};
use crate::paths;
use crate::repair::{Loss, RepairOptions, RepairReport, repair};
use crate::verify::{FindingKind, Severity, VerifyOptions, VerifyReport, verify};
use crate::vfs::MemVfs;

const DB: &str = "/db";
const COPY: &str = "/copy";

/// The result for a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreed {
    /// Clean, and read completely.
    Good,
    /// Damaged, and repaired.
    Repaired {
        /// A loss was reported.
        lossy: bool,
    },
    /// A newer format, or not a database: refused by all.
    Refused,
}

fn dir() -> &'static Path {
    Path::new(DB)
}

fn options(vfs: &MemVfs) -> EngineOptions {
    EngineOptions::reproducible(Arc::new(vfs.clone()), Arc::new(ManualClock::new(1)))
}

/// Examines the directory in every possible way, with its stored settings.
pub(super) fn agree(files: &Files) -> Agreed {
    let on = |files: &Files| on_disk(dir(), files);
    let deep = look(dir(), &on(files), VerifyOptions::deep());
    let quick = look(dir(), &on(files), VerifyOptions::quick());
    let good = deep.as_ref().is_ok_and(VerifyReport::is_clean);
    let (opened, readable) = read(LsmEngine::open(dir(), options(&on(files))));
    let reader = LsmEngine::open_read_only(dir(), options(&on(files)));
    // A read-only handle opens despite missing files, and reports them.
    let lost = reader.as_ref().is_ok_and(|engine| !engine.damage().is_empty());
    let (seen, seeable) = read(reader);
    let seen = seen && !lost;
    // A damaged file may have sequences that only one of the two sees.
    assert_eq!(opened, seen, "only one of a handle that writes and one that reads could be opened");
    assert!(!good || readable && seeable, "verify calls an unreadable database clean: {deep:?}");
    let quick_is_good = quick.as_ref().is_ok_and(VerifyReport::is_clean);
    assert!(!quick_is_good || opened, "a quick check calls a database clean that does not open: {quick:?}");
    assert!(!good || quick_is_good, "a quick check finds more than a deep one: {quick:?}");

    let mut planned = Vec::new();
    let plan = mend(&on(files), RepairOptions::new().dry_run(), &mut planned);
    let here = on(files);
    let mut losses = Vec::new();
    let done = mend(&here, RepairOptions::new(), &mut losses);
    let (plan, report) = match (plan, done) {
        (Ok(plan), Ok(report)) => (plan, report),
        (Err(planned), Err(refused)) => {
            assert_eq!(planned.code(), refused.code(), "{planned} {refused}");
            assert!(!good, "{refused}");
            assert!(is_about_bytes(&refused) || matches!(refused, Error::NotADatabase { .. }), "{refused:?}");
            return Agreed::Refused;
        }
        (plan, done) => panic!("planned {plan:?}, done {done:?}"),
    };
    assert_eq!(planned, losses, "the plan reported other losses");
    same(&plan, &report);
    assert!(plan.unchanged);
    check_sums(&report, &losses);
    let before = without_lock(files.clone());
    let unchanged = without_lock(listed(dir(), &here)) == before;
    assert_eq!(report.unchanged, unchanged, "{report:?}");
    assert_eq!(report.unchanged, report.actions.is_empty(), "{report:?}");
    let notes = deep.iter().flat_map(|report| &report.findings).any(|f| {
        // Files that a repair removes, and a log that may have existed: not damage.
        matches!(f.kind, FindingKind::Orphan | FindingKind::Misplaced | FindingKind::Duplicate)
            || f.kind == FindingKind::Log && f.severity == Severity::Note
    });
    assert!(!good || notes || report.unchanged && losses.is_empty(), "clean, but repaired: {report:?}");
    assert!(good || !report.unchanged, "damaged, but not repaired: {deep:?}");

    let elsewhere = on(files);
    let mut copied = Vec::new();
    let copy = mend(&elsewhere, RepairOptions::new().into_dir(COPY), &mut copied);
    let copy = copy.unwrap_or_else(|error| panic!("a repair in place succeeded: {error}"));
    assert!(listed(dir(), &elsewhere) == *files, "a repair into a copy changed the original");
    assert_eq!(copied, losses, "the copy reported other losses");
    assert_eq!(told(&copy), told(&report));
    for (path, vfs) in [(dir(), &here), (Path::new(COPY), &elsewhere)] {
        let left = look(path, vfs, VerifyOptions::deep()).expect("it is a directory");
        assert!(left.is_clean(), "after repair in {path:?}: {:?}", left.findings);
        let mut again = Vec::new();
        let options = RepairOptions::new().dry_run().on(Arc::new(vfs.clone()));
        let second = repair(path, &options, &mut |loss| again.push(format!("{loss:?}"))).expect("it is good");
        assert!(second.actions.is_empty() && again.is_empty(), "{second:?}, {again:?}");
        let (_, readable) = read(LsmEngine::open(path, self::options(vfs)));
        assert!(readable, "the repaired database in {path:?} cannot be read");
        let engine = LsmEngine::open(path, self::options(vfs)).expect("it was opened just now");
        engine.put(&Key::from("written later"), b"v", WriteOptions::sync()).expect("it takes writes");
        engine.close().expect("it was just written to");
    }
    if report.unchanged { Agreed::Good } else { Agreed::Repaired { lossy: report.lost_data() } }
}

fn look(path: &Path, vfs: &MemVfs, options: VerifyOptions) -> Result<VerifyReport, Error> {
    let report = verify(path, &options.on(Arc::new(vfs.clone())))?;
    let sum = report.good + report.bad + report.missing + report.replaced + report.unread;
    assert_eq!(report.ssts, sum, "{report:?}");
    Ok(report)
}

fn mend(vfs: &MemVfs, options: RepairOptions, losses: &mut Vec<String>) -> Result<RepairReport, Error> {
    let options = options.on(Arc::new(vfs.clone())).clock(Arc::new(ManualClock::new(2)));
    repair(dir(), &options, &mut |loss| losses.push(text(loss)))
}

/// A loss, without the location of the file.
fn text(loss: &Loss) -> String {
    format!("{loss:?}")
}

/// The figures on losses.
fn told(report: &RepairReport) -> [u64; 9] {
    let RepairReport { saved, had, lost, fell_back, unnamed, tombstones, log_gaps, log_operations, .. } =
        report;
    let any = u64::from(report.lost_data());
    [*saved, *had, *lost, *fell_back, *unnamed, *tombstones, *log_gaps, *log_operations, any]
}

fn same(plan: &RepairReport, report: &RepairReport) {
    assert_eq!(plan.actions, report.actions);
    assert_eq!(told(plan), told(report));
    assert_eq!((plan.from_log, plan.manifest_rebuilt), (report.from_log, report.manifest_rebuilt));
    assert_eq!(plan.log_rewritten, report.log_rewritten);
}

/// Checks that the figures of a report are consistent.
fn check_sums(report: &RepairReport, losses: &[String]) {
    assert_eq!(report.lost_data(), !losses.is_empty(), "{report:?} {losses:?}");
    let gone = report.had.checked_sub(report.saved);
    let gone = gone.unwrap_or_else(|| panic!("more entries were saved than existed: {report:?}"));
    assert!(report.unnamed <= gone, "{report:?}");
    let keys = losses.iter().filter(|loss| loss.starts_with("Key")).count() as u64;
    assert_eq!(report.lost + report.fell_back, keys, "{report:?} {losses:?}");
    let gaps = losses.iter().filter(|loss| loss.starts_with("Log")).count() as u64;
    assert_eq!(report.log_gaps, gaps, "{report:?} {losses:?}");
}

/// Whether the database opened, and whether all of it is readable, with every way of reading in agreement.
fn read(opened: Result<LsmEngine, Error>) -> (bool, bool) {
    let engine = match opened {
        Ok(engine) => engine,
        Err(error) => {
            let told = matches!(error, Error::NotADatabase { .. }) || is_about_bytes(&error);
            assert!(told, "{error:?}");
            return (false, false);
        }
    };
    let scan = |direction| -> Result<Vec<_>, Error> {
        engine.scan(b"", direction, None)?.map(|entry| entry.map(|(k, v)| (k, v.to_vec()))).collect()
    };
    let readable = (|| {
        let (forwards, mut backwards) = (scan(Direction::Forward)?, scan(Direction::Reverse)?);
        backwards.reverse();
        let mut same = forwards == backwards;
        for (key, value) in &forwards {
            same &= engine.get(key)?.as_deref() == Some(value.as_slice());
        }
        Ok::<bool, Error>(same)
    })();
    (true, readable.unwrap_or(false))
}

fn without_lock(mut files: Files) -> Files {
    files.retain(|(name, _)| name != paths::LOCK);
    files
}
