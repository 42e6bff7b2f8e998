//! Interrupted repairs, directories with entries that are not files, and a file that shrinks while it is mapped.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kstone_core::Compression;
use kstone_core::lsm::{EngineOptions, LsmEngine, WriteOptions};
use kstone_core::repair::{Loss, RepairOptions, repair};
use kstone_core::verify::{FindingKind, VerifyOptions, verify};
use kstone_core::vfs::{CrashMode, DiskVfs, MemVfs, OpenMode, StrictVfs, Vfs, write_all_at};
use kstone_core::{Error, Key};

use crate::damage::{Files, Fixture, check_repaired, files_in, files_of, fixture, mount, options};
use crate::model::{Rng, manual};

const DB: &str = "db";

/// The files, all of them durable. `mended`: the database was repaired before, and its quarantine exists.
fn durable(files: &Files, mended: bool) -> StrictVfs {
    let vfs = StrictVfs::new();
    vfs.create_dir(Path::new(DB)).unwrap();
    vfs.sync_dir(Path::new("")).unwrap();
    for (name, bytes) in files {
        let file = vfs.open(&Path::new(DB).join(name), OpenMode::Create).unwrap();
        write_all_at(&*file, bytes, 0).unwrap();
        file.sync().unwrap();
    }
    if mended {
        vfs.create_dir(&Path::new(DB).join("quarantine")).unwrap();
    }
    vfs.sync_dir(Path::new(DB)).unwrap();
    vfs
}

/// Checks that every file is unchanged, or that its bytes are in the quarantine.
fn check_originals(vfs: &dyn Vfs, files: &Files, context: &str) {
    let here = files_of(vfs);
    let quarantine = format!("{DB}/quarantine");
    let kept = match vfs.kind(Path::new(&quarantine)).unwrap() {
        Some(_) => files_in(vfs, &quarantine),
        None => Files::new(),
    };
    for (name, bytes) in files {
        let data = name == "MANIFEST" || name.ends_with(".sst") || name.ends_with(".log");
        let is_left = here.get(name) == Some(bytes) || kept.values().any(|copy| copy == bytes);
        assert!(!data || is_left, "nothing is left of {name}, {context}");
    }
}

fn damaged(fixture: &Fixture) -> Vec<(&'static str, Files)> {
    let name_of = |part: &str| fixture.files.keys().find(|name| name.contains(part)).unwrap().clone();
    // The first log segment may no longer contain anything that is needed.
    let log = fixture.files.keys().rfind(|name| name.contains(".log")).unwrap().clone();
    let sst = name_of(".sst");
    let flipped = |files: &Files, name: &str, at: usize| {
        let mut files = files.clone();
        let mut bytes = files[name].to_vec();
        bytes[at] ^= 0x55;
        files.insert(name.to_owned(), Arc::new(bytes));
        files
    };
    let without = |name: &str| {
        let mut files = fixture.files.clone();
        files.remove(name);
        files
    };
    let block = flipped(&fixture.files, &sst, 200);
    let end = fixture.files[&sst].len();
    vec![
        ("a block", block.clone()),
        ("a block and a footer", flipped(&block, &sst, end - 10)),
        ("the manifest", flipped(&fixture.files, "MANIFEST", 5)),
        ("no manifest", without("MANIFEST")),
        ("no manifest and a block", flipped(&without("MANIFEST"), &sst, 200)),
        ("an SST missing", without(&sst)),
        ("the log", flipped(&fixture.files, &log, 1100)),
    ]
}

/// After a power cut at any point of a repair, another repair completes it with the same result.
#[test]
fn a_repair_can_be_cut_off_anywhere_and_run_again() {
    let mut rng = Rng(5);
    let mut states = 0;
    for (fixture, mended) in [
        (fixture("closed", 2, Compression::Never, true), true),
        (fixture("died", 4, Compression::Never, false), false),
    ] {
        for (what, files) in damaged(&fixture) {
            let mut losses = Vec::<Loss>::new();
            let whole: Arc<dyn Vfs> = Arc::new(durable(&files, mended));
            let uncut =
                repair(Path::new(DB), &options(&whole), &mut |loss| losses.push(loss.clone())).unwrap();
            assert!(!uncut.actions.is_empty(), "{what}");
            let mut point = 0;
            loop {
                let vfs = durable(&files, mended);
                let before = vfs.ops();
                vfs.stop_after(Some(before + point));
                let cut: Arc<dyn Vfs> = Arc::new(vfs.clone());
                let done = repair(Path::new(DB), &options(&cut), &mut |_| {}).is_ok();
                let random = [(); 2].map(|()| CrashMode::Random { seed: rng.next() });
                for mode in [CrashMode::Strict, CrashMode::All].into_iter().chain(random) {
                    let context = format!("{what}, cut at {point}, {mode:?} ({})", fixture.name);
                    let image: Arc<dyn Vfs> = Arc::new(vfs.crash(mode));
                    check_originals(&*image, &files, &context);
                    repair(Path::new(DB), &options(&image), &mut |_| {})
                        .unwrap_or_else(|e| panic!("{e}, {context}"));
                    check_repaired(&image, &fixture, &losses, &context);
                    states += 1;
                }
                if done {
                    break;
                }
                point += 1;
            }
            assert!(point > 5, "{what}: only {point} operations");
        }
    }
    println!("repair: {states} cuts, each repaired by the next run");
    assert!(states > 400, "{states}");
}

/// Original files are kept, also those of a second repair.
#[test]
fn quarantine_keeps_every_original() {
    let fixture = fixture("closed", 2, Compression::Never, true);
    let (_, files) = damaged(&fixture).remove(0);
    let vfs = mount(&files);
    let sst = files.keys().find(|name| name.contains(".sst")).unwrap();
    repair(Path::new(DB), &options(&vfs), &mut |_| {}).unwrap();
    let kept = |vfs: &Arc<dyn Vfs>, name: &str| {
        let path = Path::new(DB).join("quarantine").join(name);
        let file = vfs.open(&path, OpenMode::Read).unwrap();
        kstone_core::vfs::read_all(&*file, 1 << 30).unwrap()
    };
    assert_eq!(kept(&vfs, &format!("{sst}.bad")), **files[sst]);
    assert_eq!(kept(&vfs, "MANIFEST.bad"), **files["MANIFEST"]);
    // The same file is damaged a second time.
    let again = files_of(&*vfs);
    let manifest = vfs.open(&Path::new(DB).join("MANIFEST"), OpenMode::Write).unwrap();
    write_all_at(&*manifest, b"XX", 20).unwrap();
    repair(Path::new(DB), &options(&vfs), &mut |_| {}).unwrap();
    assert_eq!(kept(&vfs, "MANIFEST.bad"), **files["MANIFEST"]);
    assert_eq!(kept(&vfs, "MANIFEST.bad.1")[22..], again["MANIFEST"][22..]);
}

/// A repair into a copy leaves the original unchanged.
#[test]
fn a_repair_into_another_directory_changes_nothing_here() {
    let fixture = fixture("died", 4, Compression::Never, false);
    for (what, files) in damaged(&fixture) {
        let vfs = mount(&files);
        let into = options(&vfs).into_dir("copy");
        let mut losses = Vec::new();
        repair(Path::new(DB), &into, &mut |loss| losses.push(loss.clone())).unwrap();
        assert_eq!(files_of(&*vfs), files, "{what}");
        let copy = MemVfs::new();
        copy.create_dir(Path::new(DB)).unwrap();
        for entry in vfs.list(Path::new("copy")).unwrap() {
            let file = vfs.open(&Path::new("copy").join(&entry.name), OpenMode::Read).unwrap();
            let bytes = kstone_core::vfs::read_all(&*file, 1 << 30).unwrap();
            write_all_at(&*copy.open(&Path::new(DB).join(&entry.name), OpenMode::Create).unwrap(), &bytes, 0)
                .unwrap();
        }
        let copy: Arc<dyn Vfs> = Arc::new(copy);
        check_repaired(&copy, &fixture, &losses, what);
        let second = repair(Path::new(DB), &into, &mut |_| {});
        assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
    }
}

/// An old manifest in place of the newest is refused, and a repair rebuilds the manifest from the files.
#[test]
fn a_manifest_of_before_is_refused() {
    let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
    let engine = LsmEngine::create(Path::new(DB), manual(Arc::clone(&vfs), 1)).unwrap();
    let put =
        |engine: &LsmEngine, key: &str| engine.put(&Key::from(key), b"value", WriteOptions::new()).unwrap();
    put(&engine, "first");
    engine.flush().unwrap();
    let before = files_of(&*vfs)["MANIFEST"].clone();
    put(&engine, "second");
    engine.flush().unwrap();
    // Everything is in SSTs now, and the log that the old manifest refers to is gone.
    engine.close().unwrap();
    drop(engine);
    let file = vfs.open(&Path::new(DB).join("MANIFEST"), OpenMode::Truncate).unwrap();
    write_all_at(&*file, &before, 0).unwrap();
    drop(file);
    let opened = LsmEngine::open(Path::new(DB), manual(Arc::clone(&vfs), 2));
    assert!(matches!(opened, Err(Error::Corruption { .. })), "{opened:?}");
    drop(opened);
    assert!(!verify(Path::new(DB), &VerifyOptions::deep().on(Arc::clone(&vfs))).unwrap().is_clean());
    repair(Path::new(DB), &options(&vfs), &mut |_| {}).unwrap();
    let engine = LsmEngine::open(Path::new(DB), manual(Arc::clone(&vfs), 3)).unwrap();
    for key in ["first", "second"] {
        assert!(engine.get(&Key::from(key)).unwrap().is_some(), "{key}");
    }
}

/// Verifying a database that is open for writing takes no lock, and finds nothing wrong.
#[test]
fn an_open_database_can_be_looked_at() {
    let fixture = fixture("closed", 2, Compression::Never, true);
    let vfs = mount(&fixture.files);
    let engine = LsmEngine::open(Path::new(DB), manual(Arc::clone(&vfs), 2)).unwrap();
    engine.put(&Key::from("k"), b"v", WriteOptions::new()).unwrap();
    let report = engine.verify_files(&VerifyOptions::deep()).unwrap();
    assert!(report.is_clean() && report.live && report.ssts > 0 && report.good == report.ssts, "{report:?}");
    assert!(report.log.records > 0 && report.bytes > 0);
    let refused = repair(Path::new(DB), &options(&vfs), &mut |_| {});
    assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
    // Cancelled: files that were not checked are not reported as good.
    let stop = Arc::new(|_: &kstone_core::verify::Progress<'_>| std::ops::ControlFlow::Break(()));
    let report = engine.verify_files(&VerifyOptions::deep().progress(stop)).unwrap();
    assert!(!report.complete && !report.skipped.is_empty() && report.good == 0);
}

fn on_disk(dir: &Path, files: &Files) -> PathBuf {
    let (vfs, db) = (DiskVfs::new(), dir.join(DB));
    vfs.create_dir(&db).unwrap();
    for (name, bytes) in files {
        write_all_at(&*vfs.open(&db.join(name), OpenMode::Create).unwrap(), bytes, 0).unwrap();
    }
    db
}

/// Directories, links and FIFOs in place of files cause an immediate error, never a wait, and nothing outside is
/// touched.
#[test]
fn what_is_no_file_is_refused_named_and_set_aside() {
    let fixture = fixture("died", 4, Compression::Never, false);
    let name_of = |part: &str| fixture.files.keys().find(|name| name.contains(part)).unwrap().clone();
    let mut tried = 0;
    for name in [name_of(".sst"), name_of(".log"), "MANIFEST".to_owned(), "LOCK".to_owned()] {
        for kind in ["directory", "link", "fifo"] {
            let dir = tempfile::tempdir().unwrap();
            let db = on_disk(dir.path(), &fixture.files);
            let (path, outside) = (db.join(&name), dir.path().join("outside"));
            std::fs::write(&outside, "precious").unwrap();
            let vfs = DiskVfs::new();
            let _ = vfs.remove(&path);
            match kind {
                "directory" => vfs.create_dir(&path).unwrap(),
                "link" => std::os::unix::fs::symlink(&outside, &path).unwrap(),
                _ => assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success()),
            }
            let context = format!("{name} is a {kind}");
            assert!(LsmEngine::open(&db, EngineOptions::disk()).is_err(), "{context}");
            // Opening read-only takes no lock, so it does not need the lock file.
            let read = LsmEngine::open_read_only(&db, EngineOptions::disk());
            let is_sst = name.ends_with(".sst");
            assert_eq!(read.is_ok(), name == "LOCK" || is_sst, "{context}");
            let damage = read.as_ref().map_or(0, |read| read.damage().len());
            assert_eq!(damage, usize::from(is_sst), "{context}");
            drop(read);
            let report = verify(&db, &VerifyOptions::deep()).unwrap();
            assert!(!report.is_clean(), "{context}");
            assert_eq!(
                report.findings.iter().any(|f| f.kind == FindingKind::Lock),
                name == "LOCK",
                "{context}"
            );
            let plan = repair(&db, &RepairOptions::new().dry_run(), &mut |_| {}).unwrap();
            assert!(plan.unchanged && !db.join("quarantine").exists(), "{context}");
            let done =
                repair(&db, &RepairOptions::new(), &mut |_| {}).unwrap_or_else(|e| panic!("{e}, {context}"));
            assert_eq!(plan.actions, done.actions, "{context}");
            assert!(!done.unchanged && done.actions.iter().any(|a| a.file == path), "{done:?}, {context}");
            assert_eq!(done.quarantine, Some(db.join("quarantine")), "{context}");
            assert!(
                db.join("quarantine").join(format!("{name}.bad")).symlink_metadata().is_ok(),
                "{context}"
            );
            let report = verify(&db, &VerifyOptions::deep()).unwrap();
            assert!(report.is_clean(), "{:?}, {context}", report.findings);
            let again = repair(&db, &RepairOptions::new(), &mut |_| {}).unwrap();
            assert!(again.unchanged && again.actions.is_empty(), "{again:?}, {context}");
            LsmEngine::open(&db, EngineOptions::disk()).unwrap().close().unwrap();
            assert_eq!(std::fs::read(&outside).unwrap(), b"precious", "{context}");
            tried += 1;
        }
    }
    assert_eq!(tried, 12);
}

/// Truncates each SST right after it is mapped, as another program might, or as a bad sector appears.
#[derive(Debug)]
struct Cutting {
    inner: Arc<dyn Vfs>,
}

const CHILD: &str = "KSTONE_SHRINK";

#[test]
#[ignore = "run by a_file_that_shrinks_under_its_mapping_is_an_error"]
fn shrinking_child() {
    let Ok(db) = std::env::var(CHILD) else { return };
    let path = Path::new(&db).read_dir().unwrap().map(|entry| entry.unwrap().path());
    let sst = path.filter(|path| path.extension().is_some_and(|ext| ext == "sst")).min().unwrap();
    let file = DiskVfs::new().open(&sst, OpenMode::Write).unwrap();
    let len = file.len().unwrap();
    let vfs = Cutting { inner: Arc::new(DiskVfs::new()) };
    let engine = LsmEngine::open_read_only(Path::new(&db), EngineOptions::on(Arc::new(vfs))).unwrap();
    let error = (0..1000).find_map(|n| engine.get(&Key::from(&format!("k{n}"))).err()).unwrap();
    assert!(matches!(&error, Error::Io { op: "read", path, .. } if *path == sst), "{error:?}");
    assert!(file.len().unwrap() < len);
    println!("an error: {error}");
}

/// Symptom: a process that reads a mapped SST which was truncated, or whose sectors have gone bad, dies of SIGBUS.
/// Cause: the first access to a page that does not exist. Fix: pages are loaded beforehand, by a call that returns an
/// error.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_shrinks_under_its_mapping_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join(DB);
    let mut options = EngineOptions::disk();
    options.config = Some(kstone_core::DatabaseConfig::new().with_stripes(1));
    let engine = LsmEngine::create(&db, options).unwrap();
    for n in 0..1000 {
        engine.put(&Key::from(&format!("k{n}")), &[n as u8; 100], WriteOptions::new()).unwrap();
    }
    engine.flush().unwrap();
    engine.close().unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["maintenance::shrinking_child", "--exact", "--ignored", "--nocapture"])
        .env(CHILD, &db)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("an error: "), "{:?}: {text}", output.status);
}

#[derive(Debug)]
struct CuttingFile {
    inner: Arc<dyn kstone_core::vfs::VfsFile>,
    path: PathBuf,
}

impl kstone_core::vfs::VfsFile for CuttingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.write_at(buf, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn map(&self, len: u64) -> io::Result<kstone_core::vfs::Mapping> {
        let map = self.inner.map(len)?;
        // One page remains, so that the header can be read but the rest cannot.
        DiskVfs::new().open(&self.path, OpenMode::Write)?.set_len(4096)?;
        Ok(map)
    }
}

impl Vfs for Cutting {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn kstone_core::vfs::VfsFile>> {
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(CuttingFile { inner, path: path.to_path_buf() }))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<kstone_core::vfs::DirEntry>> {
        self.inner.list(dir)
    }
    fn kind(&self, path: &Path) -> io::Result<Option<kstone_core::vfs::PathKind>> {
        self.inner.kind(path)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        self.inner.lock(path, owner)
    }
    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.inner.lock_shared(path)
    }
}
