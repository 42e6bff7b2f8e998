//! Damaged directories: every byte of every file flipped, every length truncated, files swapped, missing, duplicated,
//! replaced.
//!
//! A damaged database may refuse to open or to read, or return correct data; it never returns wrong data. A deep
//! `verify` finds whatever a read fails on, and a read-only handle gets the same results and changes nothing. After a
//! `repair` the database is clean, and each key whose value changed is reported.
//!
//! `KSTONE_SEED=n` chooses other bits; `KSTONE_EVERY=n` takes one state in n, and `KSTONE_ONLY=text` takes those whose
//! description contains the text, all of them verified and repaired: a failure prints its own description.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kstone_core::clock::ManualClock;
use kstone_core::lsm::{Direction, LsmEngine, WriteOptions};
use kstone_core::repair::{Loss, RepairOptions, RepairReport, repair};
use kstone_core::torture::Watchdog;
use kstone_core::verify::{FindingKind, Severity, VerifyOptions, VerifyReport, verify};
use kstone_core::vfs::{MemVfs, OpenMode, StrictVfs, Vfs, read_all, write_all_at};
use kstone_core::{CompactionConfig, Compression, DatabaseConfig, Error, Key, ReadMode};

use crate::model::{Entry, Rng, State, manual};
use crate::reported_losses::in_every_form;

const DB: &str = "db";
/// The minimum number of states in a full run.
const LEAST_STATES: u64 = 300_000;
/// One state in this many is also verified, opened read-only, repaired, and repaired in every form.
const VERIFIED: u64 = 4;
const READ_ONLY: u64 = 8;
const REPAIRED: u64 = 64;
const FORMS: u64 = 256;

pub(crate) type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// A database at rest, and its contents.
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    pub(crate) files: Files,
    /// The same files at an earlier time.
    pub(crate) older: Files,
    /// The states that may be read after damage to the log: the last one, or any since the last sync.
    pub(crate) allowed: Vec<State>,
    /// The states that may be read if the end of the log of an unclean database is missing, which looks like a log that
    /// was never written: all since the last checkpoint.
    torn: Vec<State>,
    /// Every value that a key has had.
    pub(crate) ever: BTreeMap<Key<'static>, BTreeSet<Vec<u8>>>,
}

impl Fixture {
    /// The states that may be read after this damage. The end of the log may be lost only if a log file is truncated or
    /// missing: a flipped bit, an extra file or extra length is no reason to lose anything.
    pub(crate) fn allowed(&self, what: &str) -> &[State] {
        if ends_a_log(what) { &self.torn } else { &self.allowed }
    }

    pub(crate) fn last(&self) -> &State {
        self.allowed.last().unwrap()
    }
}

/// Whether this damage may look like a log that ends earlier.
fn ends_a_log(what: &str) -> bool {
    let log = what.starts_with("wal-") || what.contains(" and wal-");
    log && ![" longer by ", " also as ", " added"].iter().any(|harmless| what.contains(harmless))
}

pub(crate) fn files_of(vfs: &dyn Vfs) -> Files {
    files_in(vfs, DB)
}

pub(crate) fn files_in(vfs: &dyn Vfs, dir: &str) -> Files {
    let listing = vfs.list(Path::new(dir)).unwrap();
    let ours = listing.into_iter().filter(|entry| entry.is_file);
    let read =
        |name: &str| read_all(&*vfs.open(&Path::new(dir).join(name), OpenMode::Read).unwrap(), 1 << 30);
    ours.map(|entry| (entry.name.clone(), Arc::new(read(&entry.name).unwrap()))).collect()
}

pub(crate) fn mount(files: &Files) -> Arc<dyn Vfs> {
    let vfs = MemVfs::new();
    vfs.create_dir(Path::new(DB)).unwrap();
    for (name, bytes) in files {
        let file = vfs.open(&Path::new(DB).join(name), OpenMode::Create).unwrap();
        write_all_at(&*file, bytes, 0).unwrap();
    }
    Arc::new(vfs)
}

struct Writer {
    engine: LsmEngine,
    state: State,
    ever: BTreeMap<Key<'static>, BTreeSet<Vec<u8>>>,
}

impl Writer {
    fn put(&mut self, rng: &mut Rng) {
        let n = rng.below(60);
        let key = match n % 3 {
            0 => Key::new(format!("k{n}").into_bytes()),
            _ => Key::with_sort(format!("p{}", n % 8).into_bytes(), format!("s{n:02}").into_bytes()),
        };
        if rng.below(5) == 0 {
            self.engine.delete(&key, WriteOptions::new()).unwrap();
            self.state.remove(&key);
            return;
        }
        // Long enough to be compressed, and always unique.
        let value = format!("{:016x}", rng.next()).repeat(1 + rng.below(4) as usize).into_bytes();
        self.engine.put(&key, &value, WriteOptions::new()).unwrap();
        self.ever.entry(key.clone()).or_default().insert(value.clone());
        self.state.insert(key, value);
    }
}

/// Creates runs of several ages, merges among them, deletes, and a log. `clean`: closed at the end; otherwise as left
/// by a process that dies some writes after a sync.
pub(crate) fn fixture(name: &'static str, seed: u64, compression: Compression, clean: bool) -> Fixture {
    let vfs = StrictVfs::new();
    let mut rng = Rng(seed);
    let mut options = manual(Arc::new(vfs.clone()), seed);
    options.config = Some(
        DatabaseConfig::new()
            .with_stripes(2)
            .with_max_memtable_records(12)
            .with_block_size(300)
            .with_target_sst_size(4096)
            .with_compression(compression)
            .with_wal_segment_size(16 << 10)
            .with_read_mode(if seed.is_multiple_of(2) { ReadMode::Mmap } else { ReadMode::Pread }),
    );
    options.compaction = Some(CompactionConfig::new().with_sst_threshold(3));
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    let mut writer = Writer { engine, state: State::new(), ever: BTreeMap::new() };
    for n in 0..150 {
        writer.put(&mut rng);
        if n % 3 == 0 {
            writer.engine.step(rng.next());
        }
        if n == 70 {
            writer.engine.trigger_compaction(0).unwrap();
        }
    }
    writer.engine.flush().unwrap();
    let older = files_of(&vfs);
    let mut torn = vec![writer.state.clone()];
    for n in 0..36 {
        writer.put(&mut rng);
        torn.push(writer.state.clone());
        if n == 29 {
            writer.engine.sync().unwrap();
        }
    }
    let mut allowed = torn.split_off(30);
    torn.extend(allowed.iter().cloned());
    if clean {
        writer.engine.close().unwrap();
        allowed = vec![writer.state.clone()];
        torn.clone_from(&allowed);
    }
    let mut files = files_of(&vfs);
    let stats = br#"{"schema":"kstone.stats/1","pid":7,"unix_ms":8}"#.to_vec();
    files.insert("STATS.json".to_owned(), Arc::new(stats));
    std::mem::forget(writer.engine);
    Fixture { name, files, older, allowed, torn, ever: writer.ever }
}

#[derive(Default)]
struct Tally {
    states: AtomicU64,
    found: AtomicU64,
    harmless: AtomicU64,
    verified: AtomicU64,
    read_only: AtomicU64,
    repaired: AtomicU64,
    forms: AtomicU64,
    lossy: AtomicU64,
}

fn count(of: &AtomicU64) {
    of.fetch_add(1, Ordering::Relaxed);
}

/// The result of reading a damaged database.
#[derive(Debug)]
enum Outcome {
    Right,
    /// It did not open.
    Refused(Error),
    /// This many keys could not be read.
    Unread(usize, #[expect(dead_code, reason = "printed on failure")] Error),
}

/// Reads everything in every way; panics if anything is wrong.
fn read_everything(vfs: &Arc<dyn Vfs>, fixture: &Fixture, context: &str) -> Outcome {
    read_all_of(LsmEngine::open(Path::new(DB), manual(Arc::clone(vfs), 7)), fixture, context)
}

/// The same with a read-only handle, which must not change a single byte, whatever it finds.
fn read_only(files: &Files, fixture: &Fixture, context: &str) -> Outcome {
    let vfs = mount(files);
    let opened = LsmEngine::open_read_only(Path::new(DB), manual(Arc::clone(&vfs), 7));
    let outcome = read_all_of(opened, fixture, context);
    assert!(files_of(&*vfs) == *files, "a read-only handle changed something, {context}");
    outcome
}

fn read_all_of(opened: Result<LsmEngine, Error>, fixture: &Fixture, context: &str) -> Outcome {
    let engine = match opened {
        Ok(engine) => engine,
        Err(error) => {
            let typed = matches!(
                error,
                Error::Corruption { .. } | Error::UnsupportedFormat { .. } | Error::NotADatabase { .. }
            );
            assert!(typed, "{error:?}, {context}");
            return Outcome::Refused(error);
        }
    };
    let allowed = fixture.allowed(context);
    let mut failed = None;
    let mut scanned = Vec::<Entry>::new();
    let mut read = |engine: &LsmEngine| -> Result<(), Error> {
        for entry in engine.scan(b"", Direction::Forward, None)? {
            let (key, value) = entry?;
            scanned.push((key, value.to_vec()));
        }
        Ok(())
    };
    if let Err(error) = read(&engine) {
        failed = Some((0, error));
    }
    let is_this = |state: &State| {
        state.len() == scanned.len()
            && state.iter().zip(&scanned).all(|((k, v), entry)| *k == entry.0 && *v == entry.1)
    };
    let state = if failed.is_none() {
        // The scan succeeded: its result must be one of the allowed states.
        let state = allowed.iter().find(|state| is_this(state));
        state.unwrap_or_else(|| panic!("silent: a scan returns a state that never existed, {context}"))
    } else {
        fixture.last()
    };
    let mut unread = 0;
    for key in fixture.ever.keys() {
        match engine.get(key) {
            Ok(found) => {
                let found = found.map(|value| value.to_vec());
                let right = allowed.iter().any(|state| state.get(key) == found.as_ref());
                let exact = failed.is_some() || state.get(key) == found.as_ref();
                assert!(right && exact, "silent: {key:?} is {found:?}, {context}");
            }
            Err(error) => {
                assert!(
                    matches!(error, Error::Corruption { .. } | Error::UnsupportedFormat { .. }),
                    "{error:?}, {context}"
                );
                unread += 1;
                failed = Some((unread, error));
            }
        }
    }
    match failed {
        None => Outcome::Right,
        Some((unread, error)) => Outcome::Unread(unread, error),
    }
}

fn deep(vfs: &Arc<dyn Vfs>) -> Result<VerifyReport, Error> {
    verify(Path::new(DB), &VerifyOptions::deep().on(Arc::clone(vfs)))
}

fn damages(report: &VerifyReport) -> Vec<String> {
    let damage = report.findings.iter().filter(|finding| finding.severity == Severity::Damage);
    damage
        .map(|f| format!("{} {} at {}: {}", f.kind.as_str(), f.file.display(), f.offset, f.detail))
        .collect()
}

pub(crate) fn options(vfs: &Arc<dyn Vfs>) -> RepairOptions {
    RepairOptions::new().on(Arc::clone(vfs)).clock(Arc::new(ManualClock::new(11)))
}

/// Repairs, then checks that the result is clean and writable, and that every changed key was reported.
pub(crate) fn check_repair(vfs: &Arc<dyn Vfs>, fixture: &Fixture, context: &str) -> Option<RepairReport> {
    let mut planned = Vec::new();
    let before = files_of(&**vfs);
    let plan = repair(Path::new(DB), &options(vfs).dry_run(), &mut |loss| planned.push(format!("{loss:?}")));
    assert_eq!(files_of(&**vfs), before, "a dry run changed something, {context}");
    let mut losses = Vec::new();
    let report = match repair(Path::new(DB), &options(vfs), &mut |loss| losses.push(loss.clone())) {
        Ok(report) => report,
        Err(Error::UnsupportedFormat { .. } | Error::NotADatabase { .. }) => return None,
        Err(error @ Error::Corruption { .. }) => panic!("repair failed: {error}, {context}"),
        Err(error) => panic!("{error:?}, {context}"),
    };
    let plan = plan.unwrap_or_else(|e| panic!("the dry run failed, {e}, {context}"));
    assert_eq!(plan.actions, report.actions, "{context}");
    let told: Vec<String> = losses.iter().map(|loss| format!("{loss:?}")).collect();
    assert_eq!(planned, told, "the dry run reported something else, {context}");
    check_repaired(vfs, fixture, &losses, context);
    Some(report)
}

pub(crate) fn check_repaired(vfs: &Arc<dyn Vfs>, fixture: &Fixture, losses: &[Loss], context: &str) {
    let after = deep(vfs).unwrap_or_else(|e| panic!("{e}, {context}"));
    assert!(after.is_clean(), "after repair: {:?}, {context}", damages(&after));
    let engine = LsmEngine::open(Path::new(DB), manual(Arc::clone(vfs), 8))
        .unwrap_or_else(|e| panic!("after repair: {e}, {context}"));
    let scan = engine.scan(b"", Direction::Forward, None).unwrap();
    let found: State = scan.map(|entry| entry.map(|(k, v)| (k, v.to_vec())).unwrap()).collect();
    let allowed = fixture.allowed(context);
    let is_prefix = allowed.contains(&found);
    // Two files are damaged at once: the end of the log is missing, so the reported losses are relative to an earlier
    // state.
    let two = context.contains(" swapped") && ends_a_log(context);
    for key in fixture.ever.keys() {
        let (was, is) = (fixture.last().get(key), found.get(key));
        assert_eq!(engine.get(key).unwrap().map(|v| v.to_vec()).as_ref(), is, "{context}");
        assert!(
            is.is_none_or(|value| fixture.ever[key].contains(value)),
            "{key:?} never was {is:?}, {context}"
        );
        assert!(
            was == is
                || is_prefix
                || two && allowed.iter().any(|state| state.get(key) == is)
                || losses.iter().any(|loss| tells_of(loss, key)),
            "{key:?} was {was:?} and is {is:?}, unreported, {context}: {losses:?}"
        );
    }
    assert!(found.keys().all(|key| fixture.ever.contains_key(key)), "{context}");
    // The repaired database is writable, and keeps what is written.
    let mut expected = found;
    let mut keys = fixture.ever.keys();
    let (written, deleted) = (keys.next().unwrap(), keys.next().unwrap());
    for key in [&Key::from("after"), written] {
        engine.put(key, b"repair", WriteOptions::sync()).unwrap();
        expected.insert(key.clone(), b"repair".to_vec());
    }
    engine.delete(deleted, WriteOptions::new()).unwrap();
    expected.remove(deleted);
    engine.flush().unwrap();
    engine.close().unwrap();
    let engine = LsmEngine::open(Path::new(DB), manual(Arc::clone(vfs), 9)).unwrap();
    let left = engine.scan(b"", Direction::Forward, None).unwrap();
    let left: State = left.map(|entry| entry.map(|(k, v)| (k, v.to_vec())).unwrap()).collect();
    assert!(left == expected, "writes to a repaired database are lost, {context}");
}

pub(crate) fn tells_of(loss: &Loss, key: &Key<'static>) -> bool {
    match loss {
        Loss::Key { key: lost, .. } => lost == key,
        Loss::Range { affected, .. } => {
            affected.from.as_ref().is_none_or(|from| from <= key)
                && affected.to.as_ref().is_none_or(|to| key <= to)
        }
        // The keys of these operations are unknown.
        Loss::Log { .. } => true,
        _ => false,
    }
}

/// Runs all checks on one damaged state.
fn check(fixture: &Fixture, files: &Files, tally: &Tally, context: &str) {
    let n = tally.states.fetch_add(1, Ordering::Relaxed);
    // The choice of states to check more closely must not correlate with their order.
    let all = std::env::var_os("KSTONE_ONLY").is_some();
    let pick = |every: u64| all || Rng(n).below(every) == 0;
    let report = pick(VERIFIED).then(|| {
        count(&tally.verified);
        deep(&mount(files))
    });
    if pick(FORMS) {
        count(&tally.forms);
        in_every_form(files, fixture.allowed(context), context);
    }
    if pick(REPAIRED)
        && let Some(report) = check_repair(&mount(files), fixture, context)
    {
        count(&tally.repaired);
        if report.lost_data() {
            count(&tally.lossy);
        }
    }
    let outcome = read_everything(&mount(files), fixture, context);
    if pick(READ_ONLY) {
        count(&tally.read_only);
        let other = read_only(files, fixture, &format!("{context}, read-only"));
        let same = std::mem::discriminant(&other) == std::mem::discriminant(&outcome);
        // A read-only handle opens even if a damaged SST prevents opening for writing.
        let beside = matches!(
            (&outcome, &other),
            (Outcome::Refused(Error::Corruption { file, .. }), Outcome::Unread(..))
                if file.extension().is_some_and(|extension| extension == "sst")
        );
        assert!(same || beside, "{outcome:?}, but read-only {other:?}, {context}");
    }
    if matches!(outcome, Outcome::Right) {
        let seen = report.is_some_and(|report| report.is_ok_and(|report| !report.is_clean()));
        return count(if seen { &tally.found } else { &tally.harmless });
    }
    count(&tally.found);
    let Some(Ok(report)) = report else { return };
    assert!(!report.is_clean(), "{outcome:?}, but verify finds nothing, {context}");
    let only_blocks = report.bad_blocks == 1
        && report.findings.iter().all(|f| f.severity < Severity::Damage || f.kind == FindingKind::Block);
    if only_blocks {
        let most = report.findings.iter().filter_map(|f| f.affected.as_ref()).map(|a| a.entries).sum::<u64>();
        let Outcome::Unread(unread, _) = outcome else { panic!("a bad block prevents opening, {context}") };
        assert!(
            unread as u64 <= most,
            "{unread} keys cannot be read for a block of {most} entries, {context}"
        );
    }
}

fn with(files: &Files, name: &str, bytes: Vec<u8>) -> Files {
    let mut files = files.clone();
    files.insert(name.to_owned(), Arc::new(bytes));
    files
}

/// Calls `f` with each damaged state of a file.
fn flips_and_cuts(fixture: &Fixture, name: &str, rng: &mut Rng, mut f: impl FnMut(Files, String)) {
    let bytes = &fixture.files[name];
    // Preallocated space that was never written is as good as one of its bytes.
    let used = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    let places = (0..bytes.len()).filter(|at| *at < used || at % 64 == 0);
    for at in places {
        let mut bad = bytes.to_vec();
        let mask = 1 + rng.below(255) as u8;
        bad[at] ^= mask;
        f(with(&fixture.files, name, bad), format!("byte {at} of {name} xor {mask:#04x}"));
        f(with(&fixture.files, name, bytes[..at].to_vec()), format!("{name} cut to {at} bytes"));
    }
    for more in [1, 7, 64, 5000] {
        let longer = [bytes.as_slice(), &vec![rng.next() as u8; more]].concat();
        f(with(&fixture.files, name, longer), format!("{name} longer by {more}"));
    }
    let zeros = vec![0; bytes.len()];
    f(with(&fixture.files, name, zeros), format!("{name} all zeros"));
}

/// Calls `f` with directories in which whole files are wrong.
fn misplaced(fixture: &Fixture, others: &[&Fixture], mut f: impl FnMut(Files, String)) {
    let names: Vec<&String> = fixture.files.keys().collect();
    let class = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    for name in &names {
        let mut without = fixture.files.clone();
        without.remove(*name);
        f(without, format!("{name} missing"));
        for other in names.iter().filter(|other| other != &name) {
            let mut swapped = fixture.files.clone();
            swapped.insert((*name).clone(), Arc::clone(&fixture.files[*other]));
            f(swapped.clone(), format!("{name} replaced by {other}"));
            swapped.insert((*other).clone(), Arc::clone(&fixture.files[*name]));
            f(swapped, format!("{name} and {other} swapped"));
        }
        for double in ["000-009999.sst", "001-009999.sst", "wal-009999.log", "wal-000777.log", "MANIFEST.tmp"]
        {
            if class(name) == class(double) || double == "MANIFEST.tmp" {
                let mut doubled = fixture.files.clone();
                doubled.insert(double.to_owned(), Arc::clone(&fixture.files[*name]));
                f(doubled, format!("{name} also as {double}"));
            }
        }
        for other in others {
            for (theirs, bytes) in other.files.iter().filter(|(theirs, _)| class(theirs) == class(name)) {
                let mut mixed = fixture.files.clone();
                mixed.insert((*name).clone(), Arc::clone(bytes));
                f(mixed.clone(), format!("{name} replaced by {theirs} of another database"));
                mixed.insert((*name).clone(), Arc::clone(&fixture.files[*name]));
                if !mixed.contains_key(theirs) {
                    mixed.insert(theirs.clone(), Arc::clone(bytes));
                    f(mixed, format!("{theirs} of another database added"));
                }
            }
        }
    }
    for (name, bytes) in &fixture.older {
        if fixture.files.get(name) != Some(bytes) {
            let mut older = fixture.files.clone();
            older.insert(name.clone(), Arc::clone(bytes));
            f(older, format!("{name} as it was before"));
        }
    }
}

fn fixtures() -> Vec<Fixture> {
    vec![
        fixture("closed, plain", 2, Compression::Never, true),
        fixture("closed, LZ4", 3, Compression::Always, true),
        fixture("died, plain", 4, Compression::Never, false),
        fixture("died, LZ4", 5, Compression::Always, false),
    ]
}

#[test]
fn damage_is_found_or_harmless_and_repaired() {
    let _watchdog = Watchdog::start("damage::damage_is_found_or_harmless_and_repaired");
    let seed = std::env::var("KSTONE_SEED").ok().map(|seed| seed.parse().expect("KSTONE_SEED is a number"));
    let every =
        std::env::var("KSTONE_EVERY").map_or(1, |every| every.parse().expect("KSTONE_EVERY is a number"));
    let only = std::env::var("KSTONE_ONLY").ok();
    let seen = AtomicU64::new(0);
    let fixtures = fixtures();
    let totals = Tally::default();
    let mut jobs = Vec::new();
    for (n, fixture) in fixtures.iter().enumerate() {
        jobs.extend(fixture.files.keys().map(|name| (n, Some(name.clone()))));
        jobs.push((n, None));
    }
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((n, name)) = jobs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let fixture = &fixtures[*n];
                    let mut rng = Rng(seed.unwrap_or(1)
                        ^ (*n as u64) << 32
                        ^ name.as_ref().map_or(0, |n| n.len() as u64));
                    let each = |files: Files, what: String| {
                        let context = format!("{what} ({})", fixture.name);
                        if only.as_ref().is_some_and(|only| !context.contains(only)) {
                            return;
                        }
                        if !seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(every) {
                            return;
                        }
                        let run = AssertUnwindSafe(|| check(fixture, &files, &totals, &context));
                        if catch_unwind(run).is_err() {
                            failures.lock().unwrap().push(context);
                        }
                    };
                    match name {
                        Some(name) => flips_and_cuts(fixture, name, &mut rng, each),
                        None => {
                            let others: Vec<&Fixture> =
                                fixtures.iter().filter(|other| other.name != fixture.name).collect();
                            misplaced(fixture, &others, each);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} states went wrong: {failures:#?}", failures.len());
    let figure = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let (states, found, harmless) = (figure(&totals.states), figure(&totals.found), figure(&totals.harmless));
    let (verified, repaired, lossy) =
        (figure(&totals.verified), figure(&totals.repaired), figure(&totals.lossy));
    let (read_only, forms) = (figure(&totals.read_only), figure(&totals.forms));
    println!(
        "damage: {states} states, {found} found, {harmless} harmless, 0 silent; {verified} verified, {read_only} read \
         without a change, {repaired} repaired, {lossy} of them with losses, all told, {forms} in every form"
    );
    if every > 1 || only.is_some() {
        return;
    }
    assert!(
        states >= LEAST_STATES && found > harmless,
        "{states} states, {found} found, {harmless} harmless"
    );
    assert!(
        verified > states / 5 && read_only > states / 10 && repaired > states / 100 && lossy > 1000,
        "{verified}, {read_only}, {repaired}, {lossy}"
    );
}
