//! A file system that tracks how many bytes a directory takes, and lets none of its files grow beyond a ceiling.
//!
//! Every file counts with its length rounded up to whole pages of 4 KiB, whatever made it grow. Bytes are counted
//! before the file grows and released after it has shrunk, so at any moment the count is at least what a listing would
//! show. Files opened for reading, and other directories, are passed through.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::{
    DirEntry, FileIdentity, FreeSpace, LockIdentity, Mapping, OpenMode, PathKind, SharedBytes, Vfs, VfsFile,
};
use crate::paths::{self, FileName};
use crate::planted::{Bug, planted};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// File lengths are rounded up to a multiple of this.
pub(crate) const PAGE: u64 = 4096;

/// Rounds a length up to whole pages.
pub(crate) fn pages(len: u64) -> u64 {
    // On overflow: too long for a file, and above every limit.
    len.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

/// The bytes that a directory takes, and may take.
#[derive(Debug)]
pub(crate) struct Meter {
    used: AtomicU64,
    /// `u64::MAX` for no limit.
    limit: AtomicU64,
    /// Bytes promised but not taken yet: [`Meter::promise`].
    pending: AtomicU64,
    /// No file grows beyond this total: the limit, or more if the directory did not fit below the limit when that was
    /// set, until it does.
    most: AtomicU64,
    /// The same, but lowered as usage falls.
    ceiling: AtomicU64,
    /// How far the ceiling may be above the usage while the ceiling exceeds the limit.
    slack: AtomicU64,
    /// Files that the database does not require leave this much free below the limit.
    kept: AtomicU64,
    files: Mutex<MeteredFiles>,
}

/// By name: all are in one directory.
type MeteredFiles = HashMap<OsString, Arc<Metered>>;

impl Default for Meter {
    fn default() -> Self {
        Self {
            used: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            pending: AtomicU64::new(0),
            most: AtomicU64::new(u64::MAX),
            ceiling: AtomicU64::new(u64::MAX),
            slack: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            files: Mutex::default(),
        }
    }
}

/// The amount that must remain free.
#[derive(Clone, Copy)]
pub(crate) struct Floor<'a> {
    /// Bytes, evaluated when a request is checked, after the request itself was registered.
    pub(crate) keep: &'a dyn Fn() -> u64,
    /// Number of files that can still be created; evaluated only when creating a file.
    pub(crate) inodes: &'a dyn Fn() -> u64,
    pub(crate) below: Below,
}

impl Floor<'_> {
    /// Nothing has to remain free.
    pub(crate) const NONE: Self = Self { keep: &|| 0, inodes: &|| 0, below: Below::Most };
}

/// The bound that must not be exceeded. All are equal, unless the directory was too large for the limit when that was
/// set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    /// The limit.
    Limit,
    /// The ceiling, which falls with usage.
    Ceiling,
    /// The total beyond which no file grows.
    Most,
}

/// Space promised to a file that is about to grow; released on drop.
#[derive(Debug)]
pub(crate) struct Promise<'a> {
    meter: &'a Meter,
    bytes: u64,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.meter.pending.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

/// The bytes of one file.
#[derive(Debug, Default)]
struct Metered {
    bytes: AtomicU64,
    /// The file's name was removed or given to another file, so it no longer counts.
    gone: AtomicBool,
    /// The database does not require this file.
    optional: bool,
}

/// Bytes by kind of file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) log: u64,
    pub(crate) ssts: u64,
    pub(crate) manifest: u64,
    pub(crate) other: u64,
}

impl Usage {
    pub(crate) fn add(&mut self, name: &str, bytes: u64) {
        let kind = match paths::parse(name) {
            FileName::Log(_) => &mut self.log,
            FileName::Sst { .. } => &mut self.ssts,
            FileName::Manifest | FileName::ManifestTmp => &mut self.manifest,
            _ => &mut self.other,
        };
        *kind = kind.saturating_add(pages(bytes));
    }

    pub(crate) fn total(&self) -> u64 {
        self.log.saturating_add(self.ssts).saturating_add(self.manifest).saturating_add(self.other)
    }
}

impl Meter {
    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The limit; `u64::MAX` for none.
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets the limit. `slack` is the space that must remain free. If the limit leaves less than that, files may grow
    /// by `slack` beyond the present usage, and the ceiling falls with usage.
    pub(crate) fn set_limit(&self, limit: u64, slack: u64) {
        let ceiling = self.used().saturating_add(slack).max(limit);
        self.slack.store(slack, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
        self.ceiling.store(ceiling, Ordering::Relaxed);
        self.most.store(ceiling, Ordering::Relaxed);
    }

    /// Enforces the limit on all files once usage and the free space to be kept fit below it.
    pub(crate) fn settle(&self, keep: &dyn Fn() -> u64) {
        let (most, limit) = (self.most.load(Ordering::Relaxed), self.limit());
        let fits = || self.fits(0, Floor { keep, below: Below::Limit, ..Floor::NONE });
        if most <= limit || !fits() {
            return;
        }
        self.most.store(limit, Ordering::SeqCst);
        if fits() {
            self.ceiling.store(limit, Ordering::Relaxed);
        } else {
            self.most.store(most, Ordering::SeqCst); // more was promised meanwhile
        }
    }

    /// Sets how much files that the database does not require must leave free.
    pub(crate) fn keep(&self, bytes: u64) {
        self.kept.store(bytes, Ordering::Relaxed);
    }

    /// See [`Meter::keep`].
    fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Whether `len` more bytes fit.
    pub(crate) fn fits(&self, len: u64, floor: Floor<'_>) -> bool {
        let below = match floor.below {
            Below::Limit => &self.limit,
            Below::Ceiling => &self.ceiling,
            Below::Most => &self.most,
        };
        let below = below.load(Ordering::Relaxed);
        let pending = || self.pending.load(Ordering::SeqCst);
        below == u64::MAX
            || pending().saturating_add(self.used()).saturating_add(len).saturating_add((floor.keep)())
                <= below
    }

    /// The same, but reserves the bytes; `None` if they do not fit. The promise must be held until the file has grown.
    pub(crate) fn promise(&self, len: u64, floor: Floor<'_>) -> Option<Promise<'_>> {
        // Registered first, so that of two concurrent requests at least one sees the other.
        self.pending.fetch_add(len, Ordering::SeqCst);
        let promise = Promise { meter: self, bytes: len };
        self.fits(0, floor).then_some(promise)
    }

    /// Whether a total of `bytes` may be used.
    pub(crate) fn allows(&self, bytes: u64) -> bool {
        bytes <= self.most.load(Ordering::Relaxed)
    }

    /// Bytes by kind of file, as counted.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for (name, file) in &*self.files.lock() {
            usage.add(&name.to_string_lossy(), file.bytes.load(Ordering::Relaxed));
        }
        usage
    }

    /// Lets a file take `to` bytes, or fails.
    fn grow(&self, file: &Metered, to: u64) -> io::Result<()> {
        let to = pages(to);
        if file.bytes.load(Ordering::Relaxed) >= to {
            return Ok(());
        }
        // Serializes concurrent growth of the same file, and growth with removal.
        let _files = self.files.lock();
        let now = file.bytes.load(Ordering::Relaxed);
        let Some(more) = to.checked_sub(now).filter(|_| !file.gone.load(Ordering::Relaxed)) else {
            return Ok(());
        };
        let most = self.most.load(Ordering::Relaxed);
        let kept = if file.optional && most != u64::MAX { self.kept() } else { 0 };
        if self.used().saturating_add(more).saturating_add(kept) > most {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.used.fetch_add(more, Ordering::Relaxed);
        file.bytes.store(to, Ordering::Relaxed);
        Ok(())
    }

    /// Records that a file was shortened to `len`.
    fn shrunk(&self, file: &Metered, len: u64) {
        let _files = self.files.lock();
        let less = file.bytes.load(Ordering::Relaxed).saturating_sub(pages(len));
        if !file.gone.load(Ordering::Relaxed) {
            self.give_back(less);
            file.bytes.fetch_sub(less, Ordering::Relaxed);
        }
    }

    /// Releases bytes. The caller holds the lock on `files`.
    fn give_back(&self, bytes: u64) {
        let used = self.used().saturating_sub(bytes);
        self.used.store(used, Ordering::Relaxed);
        let (limit, ceiling) = (self.limit(), self.ceiling.load(Ordering::Relaxed));
        if ceiling > limit {
            let lower = used.saturating_add(self.slack.load(Ordering::Relaxed));
            self.ceiling.store(ceiling.min(lower).max(limit), Ordering::Relaxed);
        }
    }

    fn register(&self, name: &OsStr, len: u64) -> Arc<Metered> {
        Arc::clone(self.counted(&mut self.files.lock(), name, len))
    }

    fn register_all(&self, listing: &[DirEntry]) {
        let mut files = self.files.lock();
        files.reserve(listing.len());
        for entry in listing {
            self.counted(&mut files, OsStr::new(&entry.name), entry.len);
        }
    }

    /// The file of this name, which is counted from now on.
    fn counted<'a>(&self, files: &'a mut MeteredFiles, name: &OsStr, len: u64) -> &'a Arc<Metered> {
        files.entry(name.to_os_string()).or_insert_with(|| {
            let optional = !matches!(
                paths::parse(&name.to_string_lossy()),
                FileName::Log(_)
                    | FileName::Sst { .. }
                    | FileName::Manifest
                    | FileName::ManifestTmp
                    | FileName::Lock
            );
            self.used.fetch_add(pages(len), Ordering::Relaxed);
            Arc::new(Metered { bytes: AtomicU64::new(pages(len)), gone: AtomicBool::new(false), optional })
        })
    }

    fn removed(&self, path: &Path) {
        let mut files = self.files.lock();
        if let Some(file) = files.remove(name_of(path)) {
            file.gone.store(true, Ordering::Relaxed);
            self.give_back(file.bytes.load(Ordering::Relaxed));
        }
    }

    fn renamed(&self, from: &Path, to: &Path) {
        self.removed(to);
        let mut files = self.files.lock();
        if let Some(file) = files.remove(name_of(from)) {
            files.insert(name_of(to).to_os_string(), file);
        }
    }
}

fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

/// Counts the bytes in one directory of another file system.
#[derive(Clone, Debug)]
pub(crate) struct MeteredVfs {
    inner: Arc<dyn Vfs>,
    dir: PathBuf,
    meter: Arc<Meter>,
    /// The place of the lock, once it was taken.
    place: Arc<OnceLock<LockIdentity>>,
}

impl MeteredVfs {
    pub(crate) fn new(inner: Arc<dyn Vfs>, dir: &Path) -> Self {
        Self { inner, dir: dir.to_path_buf(), meter: Arc::default(), place: Arc::default() }
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// The place where the lock was taken; empty before that, and if the file system cannot identify files.
    pub(crate) fn place(&self) -> &Arc<OnceLock<LockIdentity>> {
        &self.place
    }

    /// Must precede any change made by path: fails if the path now leads into another directory.
    fn check_place(&self, path: &Path) -> io::Result<()> {
        match self.place.get() {
            Some(place) if self.counts(path) => place.check_directory(&*self.inner),
            _ => Ok(()),
        }
    }

    /// Counts the existing files, and returns them. To be called once, while nothing else writes.
    pub(crate) fn take_stock(&self) -> io::Result<Vec<DirEntry>> {
        let listing = self.inner.list(&self.dir)?;
        self.meter.register_all(&listing);
        Ok(listing)
    }

    fn counts(&self, path: &Path) -> bool {
        path.parent() == Some(&self.dir)
    }
}

impl Vfs for MeteredVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        if mode != OpenMode::Read {
            self.check_place(path)?;
        }
        let inner = self.inner.open(path, mode)?;
        let forgotten = mode == OpenMode::Create && planted(Bug::NewFilesNotCounted);
        if mode == OpenMode::Read || !self.counts(path) || forgotten {
            return Ok(inner);
        }
        let file = self.meter.register(name_of(path), inner.len()?);
        if mode == OpenMode::Truncate {
            self.meter.shrunk(&file, 0);
        }
        Ok(Arc::new(MeteredFile { inner, file, meter: Arc::clone(&self.meter) }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(dir)
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.absolute(path)
    }

    fn kind(&self, path: &Path) -> io::Result<Option<PathKind>> {
        self.inner.kind(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_place(to)?;
        self.inner.rename(from, to)?;
        self.meter.renamed(from, to);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check_place(path)?;
        let removed = self.inner.remove(path);
        if removed.is_ok() || removed.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            self.meter.removed(path);
        }
        removed
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.hard_link(from, to)?;
        if self.counts(to) {
            self.meter.register(name_of(to), self.inner.open(to, OpenMode::Read)?.len()?);
        }
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.remove_dir(dir)
    }

    fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        self.inner.identity(path)
    }

    fn free_space(&self, dir: &Path) -> io::Result<Option<FreeSpace>> {
        self.inner.free_space(dir)
    }

    fn is_volatile(&self) -> bool {
        self.inner.is_volatile()
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        let guard = self.inner.lock(path, owner)?;
        if self.counts(path) {
            self.meter.register(name_of(path), owner.len() as u64);
            if let Some(place) = LockIdentity::of(&*self.inner, path) {
                // A handle takes its lock once.
                let _ = self.place.set(place);
            }
        }
        Ok(guard)
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.inner.lock_shared(path)
    }
}

#[derive(Debug)]
struct MeteredFile {
    inner: Arc<dyn VfsFile>,
    file: Arc<Metered>,
    meter: Arc<Meter>,
}

impl MeteredFile {
    /// Grows to `to` bytes by calling `with`; bytes that were not taken after all are released.
    fn grow<T>(&self, to: u64, with: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.meter.grow(&self.file, to)?;
        let result = with();
        if result.is_err()
            && let Ok(len) = self.inner.len()
        {
            self.meter.shrunk(&self.file, len);
        }
        result
    }
}

impl VfsFile for MeteredFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.grow(offset.saturating_add(buf.len() as u64), || self.inner.write_at(buf, offset))
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.grow(len, || self.inner.set_len(len))?;
        self.meter.shrunk(&self.file, len);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.grow(len, || self.inner.allocate(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn map(&self, len: u64) -> io::Result<Mapping> {
        self.inner.map(len)
    }

    fn share(&self, len: u64) -> io::Result<Box<dyn SharedBytes>> {
        self.inner.share(len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemVfs, write_all_at};
    use super::*;

    fn listed(vfs: &MemVfs) -> u64 {
        vfs.list(Path::new("/")).unwrap().iter().map(|entry| pages(entry.len)).sum()
    }

    #[test]
    fn the_count_is_what_a_listing_finds() {
        let mem = MemVfs::new();
        let before = mem.open(Path::new("/old"), OpenMode::Create).unwrap();
        before.allocate(5000).unwrap();
        let vfs = MeteredVfs::new(Arc::new(mem.clone()), Path::new("/"));
        vfs.take_stock().unwrap();
        let meter = vfs.meter();
        let check = |expected: u64| {
            assert_eq!((meter.used(), listed(&mem), meter.usage().total()), (expected, expected, expected));
        };
        check(8192);
        let file = vfs.open(Path::new("/MANIFEST.tmp"), OpenMode::Truncate).unwrap();
        write_all_at(&*file, &[1; 4096], 0).unwrap();
        check(12_288);
        write_all_at(&*file, &[1; 1], 4096).unwrap();
        check(16_384);
        file.set_len(1).unwrap();
        check(12_288);
        vfs.rename(Path::new("/MANIFEST.tmp"), Path::new("/old")).unwrap();
        check(4096);
        write_all_at(&*file, &[1; 9000], 0).unwrap();
        check(12_288);
        vfs.open(Path::new("/old"), OpenMode::Truncate).unwrap();
        vfs.remove(Path::new("/old")).unwrap();
        vfs.remove(Path::new("/old")).unwrap_err();
        write_all_at(&*file, &[1; 90_000], 0).unwrap();
        check(0);
        let _lock = vfs.lock(Path::new("/LOCK"), "1\n").unwrap();
        check(4096);
    }

    #[test]
    fn nothing_grows_beyond_the_ceiling_which_comes_down_with_what_is_used() {
        let mem = MemVfs::new();
        let vfs = MeteredVfs::new(Arc::new(mem.clone()), Path::new("/"));
        let meter = vfs.meter();
        let file = vfs.open(Path::new("/wal-000001.log"), OpenMode::Create).unwrap();
        let full = |result: io::Result<()>| result.unwrap_err().kind() == io::ErrorKind::StorageFull;
        meter.set_limit(8192, 0);
        assert!(
            full(file.allocate(8193)) && full(file.set_len(8193)) && full(write_all_at(&*file, &[0], 8192))
        );
        assert_eq!(listed(&mem), 0);
        file.allocate(8192).unwrap();
        meter.set_limit(u64::MAX, 0);
        file.allocate(40_960).unwrap();
        // Already over the limit: files may grow as far as needed to shrink, but once usage is down, never up again.
        meter.set_limit(16_384, 8192);
        let floor = |below| Floor { below, ..Floor::NONE };
        assert!(full(file.allocate(49_153)));
        file.allocate(49_152).unwrap();
        file.set_len(20_480).unwrap();
        assert!(!meter.fits(0, floor(Below::Limit)));
        assert!(meter.fits(8192, floor(Below::Ceiling)) && !meter.fits(8193, floor(Below::Ceiling)));
        assert!(meter.fits(28_672, floor(Below::Most)) && !meter.fits(28_673, floor(Below::Most)));
        file.set_len(12_288).unwrap();
        assert!(full(file.allocate(49_153)));
        meter.settle(&|| 8192);
        file.allocate(49_152).unwrap();
        file.set_len(8192).unwrap();
        meter.settle(&|| 8192);
        assert!(full(file.allocate(16_385)));
        file.allocate(16_384).unwrap();
        // Files that the database does not require leave free what is to be kept.
        file.set_len(0).unwrap();
        meter.keep(8192);
        let other = vfs.open(Path::new("/notes"), OpenMode::Create).unwrap();
        assert!(full(other.allocate(8193)));
        other.allocate(8192).unwrap();
        let floor = Floor { keep: &|| 4096, below: Below::Limit, ..Floor::NONE };
        assert!(meter.fits(4096, floor) && !meter.fits(4097, floor));
        let promise = meter.promise(1000, floor).unwrap();
        assert!(meter.promise(3097, floor).is_none() && meter.fits(3096, floor) && !meter.fits(3097, floor));
        drop(promise);
        assert!(meter.fits(4096, floor));
    }
}
