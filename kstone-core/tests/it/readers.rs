//! Read-only handles next to a writing one: whatever the writer does between any two I/O operations of the reader, the
//! reader sees one consistent state, no older than its open, or fails because the database is busy.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kstone_core::clock::ManualClock;
use kstone_core::lsm::{LsmEngine, WriteOptions};
use kstone_core::types::Direction;
use kstone_core::vfs::{DirEntry, Mapping, MemVfs, OpenMode, PathKind, Vfs, VfsFile, read_all, write_all_at};
use kstone_core::{CompactionConfig, DatabaseConfig, Error, Key, ReadMode};

use crate::model::{Change, Entry, Rng, State, apply, batch_of, contents, entries, manual, random_change};

const DB: &str = "db";

type Between = Box<dyn FnMut(u64) + Send>;

/// Runs a callback between the operations of its user.
#[derive(Clone)]
struct Interleaved {
    inner: Arc<dyn Vfs>,
    operations: Arc<AtomicU64>,
    /// How often the manifest was opened: twice for each reading of the database.
    manifests: Arc<AtomicU64>,
    between: Arc<std::sync::Mutex<Between>>,
}

impl std::fmt::Debug for Interleaved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interleaved")
    }
}

impl Interleaved {
    fn new(inner: &Arc<dyn Vfs>, between: impl FnMut(u64) + Send + 'static) -> Self {
        let between = Arc::new(std::sync::Mutex::new(Box::new(between) as Between));
        Self { inner: Arc::clone(inner), operations: Arc::default(), manifests: Arc::default(), between }
    }

    fn step(&self) {
        let n = self.operations.fetch_add(1, Ordering::Relaxed);
        (self.between.lock().unwrap())(n);
    }

    fn count(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }
}

fn changes<T>() -> io::Result<T> {
    panic!("a reader changes something")
}

impl Vfs for Interleaved {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        assert_eq!(mode, OpenMode::Read, "{}", path.display());
        self.step();
        self.manifests.fetch_add(u64::from(path.ends_with("MANIFEST")), Ordering::Relaxed);
        Ok(Arc::new(File { file: self.inner.open(path, mode)?, vfs: self.clone() }))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.step();
        self.inner.list(dir)
    }
    fn kind(&self, path: &Path) -> io::Result<Option<PathKind>> {
        self.step();
        self.inner.kind(path)
    }
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        changes()
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        changes()
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        changes()
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        changes()
    }
    fn lock(&self, _: &Path, _: &str) -> io::Result<Box<dyn Send + Sync>> {
        changes()
    }
    fn lock_shared(&self, _: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        changes()
    }
}

#[derive(Debug)]
struct File {
    file: Arc<dyn VfsFile>,
    vfs: Interleaved,
}

impl VfsFile for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.vfs.step();
        self.file.read_at(buf, offset)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        changes()
    }
    fn sync(&self) -> io::Result<()> {
        changes()
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        changes()
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        changes()
    }
    fn len(&self) -> io::Result<u64> {
        self.vfs.step();
        self.file.len()
    }
    fn map(&self, len: u64) -> io::Result<Mapping> {
        self.vfs.step();
        self.file.map(len)
    }
}

/// A writer and everything that it has written.
pub(crate) struct Writer {
    pub(crate) engine: Arc<LsmEngine>,
    rng: Rng,
    /// The contents after each commit, starting with the empty database.
    pub(crate) states: Vec<Vec<Entry>>,
    state: State,
}

impl Writer {
    pub(crate) fn new(vfs: &Arc<dyn Vfs>, seed: u64) -> Self {
        let mut options = manual(Arc::clone(vfs), seed);
        let config = DatabaseConfig::new().with_stripes(4).with_max_memtable_records(8).with_block_size(128);
        options.config = Some(config.with_wal_segment_size(16 << 10));
        options.compaction = Some(CompactionConfig::new().with_sst_threshold(2));
        let engine = Arc::new(LsmEngine::create(Path::new(DB), options).unwrap());
        let mut writer = Self { engine, rng: Rng(seed), states: vec![Vec::new()], state: State::new() };
        for round in 0..6 {
            writer.write(6);
            if round % 2 == 0 {
                writer.engine.flush().unwrap();
            }
        }
        writer
    }

    /// Writes batches across stripes.
    pub(crate) fn write(&mut self, count: usize) {
        for _ in 0..count {
            let ops = 1 + self.rng.below(5);
            let change: Change = random_change(&mut self.rng, ops);
            self.engine.write(&batch_of(&change), WriteOptions::buffered()).unwrap();
            apply(&mut self.state, &change);
            self.states.push(entries(&self.state));
        }
    }

    /// Everything that removes files: a flush, compactions, checkpoints.
    pub(crate) fn turn_over(&mut self) {
        self.write(2);
        self.engine.flush().unwrap();
        for stripe in 0..4 {
            self.engine.trigger_compaction(stripe).unwrap();
        }
        self.write(1);
    }

    pub(crate) fn commits(&self) -> usize {
        self.states.len() - 1
    }
}

/// Opens a reader while the writer does `act` before the reader's operations selected by `when`. Returns the result of
/// the open, the writer, the number of commits before it, and the number of operations that it took.
/// How a reader keeps the SSTs that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    /// All, mapped at open.
    Mapped,
    /// None: `ReadMode::Pread`.
    Pread,
    /// None, until they are read.
    Unheld,
}

fn race(
    seed: u64,
    keeps: Keeps,
    when: impl Fn(u64) -> bool + Send + 'static,
    act: fn(&mut Writer),
) -> (Result<LsmEngine, Error>, Arc<std::sync::Mutex<Writer>>, usize, u64) {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let writer = Arc::new(std::sync::Mutex::new(Writer::new(&vfs, seed)));
    let before = writer.lock().unwrap().commits();
    let other = Arc::clone(&writer);
    let clock = Arc::new(ManualClock::new(3));
    let time = Arc::clone(&clock);
    let interleaved = Interleaved::new(&vfs, move |n| {
        time.advance(Duration::from_millis(5));
        // Not while the test itself holds the writer.
        if when(n)
            && let Ok(mut writer) = other.try_lock()
        {
            act(&mut writer);
        }
    });
    let mut options = manual(Arc::new(interleaved.clone()), 3);
    let mode = if keeps == Keeps::Pread { ReadMode::Pread } else { ReadMode::Mmap };
    options.config = Some(DatabaseConfig::new().with_read_mode(mode));
    options.hold_ssts = keeps != Keeps::Unheld;
    options.clock = clock;
    let opened = LsmEngine::open_read_only(Path::new(DB), options);
    let count = interleaved.count();
    (opened, writer, before, count)
}

/// Checks that the reader sees a state of the writer at or after commit `least`.
pub(crate) fn check(reader: &LsmEngine, writer: &Writer, least: usize, context: &str) {
    let found = contents(reader, None);
    let at = writer.states.iter().skip(least).position(|state| *state == found);
    assert!(at.is_some(), "{} items are not a state since commit {least}, {context}", found.len());
    reader.verify().unwrap_or_else(|e| panic!("{e}, {context}"));
}

#[test]
fn whatever_happens_between_two_operations_of_an_open_the_reader_sees_one_moment() {
    let (mut opens, mut restarts) = (0, 0);
    let all = [Keeps::Mapped, Keeps::Pread, Keeps::Unheld];
    for (seed, mode) in (0..9).map(|n| (n / 3, all[n as usize % 3])) {
        let (opened, .., total) = race(seed, mode, |_| false, |_| {});
        opened.unwrap();
        for n in 0..total {
            let context =
                format!("the writer turned over before operation {n} of {total}, {mode:?}, seed {seed}");
            let (opened, writer, before, count) = race(seed, mode, move |at| at == n, Writer::turn_over);
            let reader = opened.unwrap_or_else(|e| panic!("{e}, {context}"));
            let mut writer = writer.lock().unwrap();
            if mode != Keeps::Mapped && n + 2 >= total {
                // The manifest was already opened for its second reading, so files may be gone by the end.
                continue;
            }
            // In either mode: all files existed when the open ended, and the writer has done nothing since.
            check(&reader, &writer, before, &context);
            let seen = contents(&reader, None);
            if mode == Keeps::Mapped {
                // Also after all files that it reads have been unlinked.
                writer.turn_over();
                writer.turn_over();
                assert_eq!(contents(&reader, None), seen, "{context}");
            }
            opens += 1;
            restarts += u64::from(count > total);
        }
    }
    println!("readers: {opens} opens with the writer between two operations, {restarts} of them restarted");
    assert!(opens > 150 && restarts > opens / 3, "{opens} opens, {restarts} restarted");
}

#[test]
fn a_reader_that_is_never_left_alone_is_told_that_the_database_is_busy() {
    let (opened, ..) = race(1, Keeps::Mapped, |_| true, Writer::turn_over);
    assert!(matches!(opened, Err(Error::Busy)), "{opened:?}");
}

/// Symptom: `get` and `info` beside a writer that compacts ended with `another handle changed the database while this one
/// was reading it`. Cause: each manifest edit invalidated everything read so far, sixteen times in a row. Fix: a read in
/// which no file was missing is valid; files that are already held are not opened again; and the open is retried for a
/// while.
#[test]
fn a_writer_that_makes_edits_all_the_time_keeps_no_reader_from_opening() {
    let mut opens = 0;
    for seed in 0..4 {
        let (opened, .., total) = race(seed, Keeps::Mapped, |_| false, |_| {});
        opened.unwrap();
        // Several edits during each reading: with fewer operations between them, all SSTs would be replaced by the next
        // one.
        for every in total / 4..total {
            for offset in [0, every / 2] {
                let when = move |n: u64| n % every == offset;
                let (opened, writer, before, count) = race(seed, Keeps::Mapped, when, one_edit);
                let context = format!("one edit every {every} operations of {total}, seed {seed}");
                let reader = opened.unwrap_or_else(|e| panic!("{e} after {count} operations, {context}"));
                check(&reader, &writer.lock().unwrap(), before, &context);
                opens += 1;
            }
        }
    }
    assert!(opens > 100, "{opens}");
}

/// A flush or a compaction, with the checkpoint that removes files.
fn one_edit(writer: &mut Writer) {
    writer.write(1);
    match writer.commits() % 3 {
        0 => writer.engine.flush().unwrap(),
        n => writer.engine.trigger_compaction(n).unwrap(),
    }
}

#[test]
fn writes_alone_keep_no_reader_from_opening() {
    for seed in 0..5 {
        for mode in [Keeps::Mapped, Keeps::Pread, Keeps::Unheld] {
            let (opened, writer, before, _) = race(seed, mode, |_| true, |writer| writer.write(1));
            let context = format!("seed {seed}, {mode:?}");
            let reader = opened.unwrap_or_else(|e| panic!("{e}, {context}"));
            let writer = writer.lock().unwrap();
            assert!(writer.commits() > before + 10, "the writer wrote {}", writer.commits() - before);
            check(&reader, &writer, before, &context);
        }
    }
}

/// Between any two operations the log grows by records that span reads and segments, each of them synced, so that a
/// hole before one would be treated as damage.
fn grow_while_read(segment: u64, puts: usize, mode: ReadMode) {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let mut options = manual(Arc::clone(&vfs), 1);
    let config = DatabaseConfig::new().with_stripes(4).with_max_memtable_records(1 << 20);
    options.config = Some(config.with_wal_segment_size(segment).with_max_wal_size_bytes(1 << 30));
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    let name = |n: usize| Key::from(&format!("key{n:05}")).into_owned();
    let put = move |engine: &LsmEngine, n| {
        engine.put(&name(n), &[n as u8; 5000], WriteOptions::sync()).unwrap();
    };
    (0..20).for_each(|n| put(&engine, n));
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(20));
    let count = Arc::clone(&written);
    let interleaved = Interleaved::new(&vfs, move |_| {
        (0..puts).for_each(|_| put(&engine, count.fetch_add(1, Ordering::Relaxed)));
    });
    let mut options = manual(Arc::new(interleaved.clone()), 3);
    options.config = Some(DatabaseConfig::new().with_read_mode(mode));
    let context = format!("segments of {segment}, {puts} puts an operation, {mode:?}");
    let opened = LsmEngine::open_read_only(Path::new(DB), options);
    let reader = opened.unwrap_or_else(|e| panic!("{e}, {context}"));
    let found = contents(&reader, None).len();
    assert!(found >= 20, "{found} of the items written before, {context}");
    for n in 0..found {
        assert!(reader.get(&name(n)).unwrap().is_some(), "a hole at {n} of {found}, {context}");
    }
    let written = written.load(Ordering::Relaxed);
    assert!(written > 20 + 10 * puts, "{written} written meanwhile, {context}");
    let read = interleaved.manifests.load(Ordering::Relaxed);
    assert_eq!(read, 2, "a hole was found, and the log was read again, {context}");
}

#[test]
fn a_log_that_grows_meanwhile_is_read_without_holes() {
    for segment in [16 << 10, 2 << 20] {
        for puts in 1..=12_usize {
            let mode = if puts.is_multiple_of(2) { ReadMode::Mmap } else { ReadMode::Pread };
            grow_while_read(segment, puts, mode);
        }
    }
}

/// An error that a reader finds may be a write in progress: it is damage only if it is there a second time.
#[test]
fn what_was_read_in_the_middle_of_a_write_is_read_again() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let mut writer = Writer::new(&vfs, 3);
    let (log, bytes) =
        files(&*vfs).into_iter().find(|(path, _)| path.extension().is_some_and(|e| e == "log")).unwrap();
    // In a future record, which a later record proves to be synced.
    let at = bytes.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 40;
    writer.write(4);
    writer.engine.sync().unwrap();
    writer.write(1);
    let flip = move |vfs: &dyn Vfs| {
        let file = vfs.open(&log, OpenMode::Write).unwrap();
        let mut byte = [0];
        file.read_at(&mut byte, at).unwrap();
        file.write_at(&[byte[0] ^ 1], at).unwrap();
    };
    let open = |vfs: Arc<dyn Vfs>| LsmEngine::open_read_only(Path::new(DB), manual(vfs, 1));
    flip(&*vfs);
    let opened = open(Arc::clone(&vfs)).err();
    assert!(matches!(opened, Some(Error::Corruption { .. })), "a flip without effect: {opened:?}");
    flip(&*vfs);
    let still = Interleaved::new(&vfs, |_| {});
    open(Arc::new(still.clone())).unwrap();
    let total = still.count();
    let mut restarts = 0;
    for n in 0..total {
        let (files, flip_here) = (Arc::clone(&vfs), flip.clone());
        let interleaved = Interleaved::new(&vfs, move |at| {
            if at == n || at == n + 1 {
                flip_here(&*files);
            }
        });
        let reader = open(Arc::new(interleaved.clone())).unwrap_or_else(|e| panic!("{e}, at {n} of {total}"));
        check(&reader, &writer, writer.commits(), &format!("at {n} of {total}"));
        if interleaved.count() == n + 1 {
            flip(&*vfs);
        }
        restarts += u64::from(interleaved.count() > total + 1);
    }
    assert!(restarts > 0, "none of {total} operations read the changed bytes");
}

#[test]
fn a_reader_that_holds_no_files_is_told_when_one_is_gone() {
    for keeps in [Keeps::Pread, Keeps::Unheld] {
        let (opened, writer, before, _) = race(4, keeps, |_| false, |_| {});
        let reader = opened.unwrap();
        let mut writer = writer.lock().unwrap();
        check(&reader, &writer, before, "left alone");
        drop(reader);
        let (opened, writer2, ..) = race(4, keeps, |_| false, |_| {});
        let reader = opened.unwrap();
        writer2.lock().unwrap().turn_over();
        let scanned: Result<Vec<_>, Error> =
            reader.scan(b"", kstone_core::lsm::Direction::Forward, None).and_then(Iterator::collect);
        assert!(matches!(scanned, Err(Error::Busy)), "{keeps:?}: {scanned:?}");
        writer.turn_over();
    }
}

/// A handle for a look at the figures of a database with thousands of SSTs must not pay for each of them.
#[test]
fn a_reader_that_holds_no_files_opens_each_when_it_is_read() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let mut options = manual(Arc::clone(&vfs), 1);
    options.config = Some(DatabaseConfig::new().with_stripes(1).with_read_mode(ReadMode::Mmap));
    options.compaction = Some(CompactionConfig::disabled());
    let engine = LsmEngine::create(Path::new(DB), options).unwrap();
    let name = |n: u64| Key::from(&format!("key{n:05}")).into_owned();
    // More than those whose format is checked at open.
    for n in 0..200 {
        engine.put(&name(n), b"value", WriteOptions::new()).unwrap();
        engine.flush().unwrap();
    }
    drop(engine);
    let open = |hold_ssts: bool| {
        let interleaved = Interleaved::new(&vfs, |_| {});
        let mut options = manual(Arc::new(interleaved.clone()), 1);
        options.hold_ssts = hold_ssts;
        let reader = LsmEngine::open_read_only(Path::new(DB), options).unwrap();
        let stats = reader.stats().unwrap();
        assert_eq!(
            (
                stats.stripes.iter().map(|stripe| stripe.ssts).sum::<usize>(),
                reader.disk_usage().unwrap().ssts
            ),
            (200, 200 * 4096)
        );
        (reader, interleaved)
    };
    let (held, with) = open(true);
    let (unheld, without) = open(false);
    let (with, opened) = (with.count(), without.count());
    assert!(opened + 2 * 200 <= with, "{opened} operations, {with} if all SSTs are held");
    assert_eq!(unheld.get(&name(7)).unwrap().as_deref(), Some(&b"value"[..]));
    assert!(without.count() > opened, "nothing was opened to read it");
    assert_eq!(contents(&unheld, None), contents(&held, None));
}

/// The database's files, for changing them behind the engine's back.
fn files(vfs: &dyn Vfs) -> Vec<(PathBuf, Vec<u8>)> {
    let names = vfs.list(Path::new(DB)).unwrap().into_iter().map(|entry| Path::new(DB).join(entry.name));
    names
        .map(|path| {
            let bytes = read_all(&*vfs.open(&path, OpenMode::Read).unwrap(), 1 << 30).unwrap();
            (path, bytes)
        })
        .collect()
}

fn image(files: &[(PathBuf, Vec<u8>)]) -> Arc<dyn Vfs> {
    let vfs = MemVfs::new();
    vfs.create_dir(Path::new(DB)).unwrap();
    for (path, bytes) in files {
        write_all_at(&*vfs.open(path, OpenMode::Create).unwrap(), bytes, 0).unwrap();
    }
    Arc::new(vfs)
}

/// Persistent damage is reported, and not mistaken for a busy writer.
#[test]
fn damage_is_reported_after_a_second_look() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let writer = Writer::new(&vfs, 9);
    let whole = files(&*vfs);
    drop(writer);
    let sst = whole.iter().position(|(path, _)| path.extension().is_some_and(|e| e == "sst")).unwrap();
    let manifest = whole.iter().position(|(path, _)| path.ends_with("MANIFEST")).unwrap();
    type Damage<'a> = &'a dyn Fn(&mut Vec<(PathBuf, Vec<u8>)>);
    let damages: [(&str, Damage<'_>); 4] = [
        ("missing", &|files| _ = files.remove(sst)),
        ("shorter", &|files| _ = files[sst].1.pop()),
        ("manifest", &|files| files[manifest].1[140] ^= 1),
        ("logs", &|files| files.retain(|(path, _)| path.extension().is_none_or(|e| e != "log"))),
    ];
    for (what, damage) in damages {
        let mut files = whole.clone();
        damage(&mut files);
        let vfs = image(&files);
        let interleaved = Interleaved::new(&vfs, |_| {});
        let opened = LsmEngine::open_read_only(Path::new(DB), manual(Arc::new(interleaved), 1));
        if !matches!(what, "missing" | "shorter") {
            assert!(matches!(opened, Err(Error::Corruption { .. })), "{what}");
            continue;
        }
        // A damaged SST: reads that need it fail.
        let engine = opened.unwrap();
        assert!(
            matches!(engine.damage(), [Error::Corruption { file, .. }] if *file == whole[sst].0),
            "{what}"
        );
        let scanned = engine.scan(b"", Direction::Forward, None).and_then(|entries| entries.collect());
        assert!(matches!(scanned, Err::<Vec<_>, _>(Error::Corruption { .. })), "{what}");
        let backup = engine.backup(Path::new("copy"));
        assert!(matches!(backup, Err(Error::Corruption { .. })), "{what}: {backup:?}");
    }
}

/// Symptom: one missing or truncated SST made the whole database unreadable: `info`, `alerts` and a `get` of any key
/// failed.
/// Cause: a read-only handle refused to open with it, as a writing one must.
/// Fix: it opens, reports the damage, and fails the reads that need the file.
#[test]
fn one_damaged_sst_fails_the_reads_that_need_it_and_no_others() {
    for read_mode in [ReadMode::Mmap, ReadMode::Pread] {
        let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
        let config = DatabaseConfig::new().with_stripes(4).with_read_mode(read_mode);
        let mut options = manual(Arc::clone(&vfs), 1);
        options.config = Some(config);
        let engine = LsmEngine::create(Path::new(DB), options).unwrap();
        let key = |n: u32| Key::from(format!("key-{n}"));
        for n in 0..100 {
            engine.put(&key(n), b"value", WriteOptions::new()).unwrap();
        }
        engine.flush().unwrap();
        engine.close().unwrap();
        let name = vfs.list(Path::new(DB)).unwrap().into_iter().map(|entry| entry.name);
        let name = name.filter(|name| name.ends_with(".sst")).min().unwrap();
        let stripe: usize = name[..3].parse().unwrap();
        vfs.remove(&Path::new(DB).join(&name)).unwrap();
        let refused = LsmEngine::open(Path::new(DB), manual(Arc::clone(&vfs), 1));
        assert!(matches!(refused, Err(Error::Corruption { .. })));

        let engine = LsmEngine::open_read_only(Path::new(DB), manual(Arc::clone(&vfs), 1)).unwrap();
        assert_eq!(engine.damage().len(), 1);
        assert!(engine.damage()[0].to_string().contains(&name));
        assert!(engine.stats().unwrap().stripes.len() == 4 && engine.disk_usage().is_ok());
        let mut failed = 0;
        for n in 0..100 {
            match engine.get(&key(n)) {
                Ok(found) => assert_eq!(found.as_deref(), Some(b"value".as_slice())),
                Err(error) => {
                    assert!(matches!(error, Error::Corruption { .. }), "{error}");
                    assert_eq!(engine.explain_get(&key(n)).unwrap().stripe, stripe);
                    failed += 1;
                }
            }
        }
        assert!((10..50).contains(&failed), "{failed} of 100 keys in one of 4 stripes");
    }
}

/// A segment of the database that this one was copied from, or of another copy, is refused.
#[test]
fn a_segment_of_another_copy_is_refused() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let writer = Writer::new(&vfs, 9);
    writer.engine.backup(Path::new("copy")).unwrap();
    let copy = LsmEngine::open(Path::new("copy"), manual(Arc::clone(&vfs), 2)).unwrap();
    copy.put(&Key::from("key"), b"value", WriteOptions::sync()).unwrap();
    let names = vfs.list(Path::new("copy")).unwrap().into_iter().map(|entry| entry.name);
    let newest = names.filter(|name| name.ends_with(".log")).max().unwrap();
    let mut files = files(&*vfs);
    let bytes =
        read_all(&*vfs.open(&Path::new("copy").join(&newest), OpenMode::Read).unwrap(), 1 << 30).unwrap();
    let path = Path::new(DB).join(newest);
    files.retain(|(other, _)| *other != path);
    files.push((path.clone(), bytes));
    let vfs = image(&files);
    let opened = LsmEngine::open(Path::new(DB), manual(Arc::clone(&vfs), 2));
    let Err(Error::Corruption { file, detail, .. }) = opened else { panic!("{opened:?}") };
    assert!(file == path && detail.contains("another copy"), "{} {detail}", file.display());
}
