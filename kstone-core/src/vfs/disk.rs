//! The real file system.
//!
//! Owns every call that touches a file, and the unsafe line that maps files. How files are opened is in `open`. New
//! directories are accessible to their owner only (0700, minus the umask).
//!
//! A signal whose handler does not request restarting can interrupt any call (`EINTR`). Every call is therefore made
//! within [`again`], except for reads and writes, whose callers continue where they were, and the close of a file,
//! which takes effect whatever it returns. An interrupted sync may be retried, too: data not written yet is still
//! dirty, and a write error that this sync does not report is reported by the next. Only a sync that returned an
//! *error* must not be retried.

#![expect(clippy::disallowed_methods, reason = "this is where the engine touches files")]

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{DirEntry, FileIdentity, FreeSpace, Mapping, OpenMode, PathKind, SharedBytes, Vfs, VfsFile};
use crate::process::Process;

mod open;

pub use open::read_regular;

/// How many times a lock file may be replaced under us, or its lock be held, before we give up.
const LOCK_ATTEMPTS: usize = 8;

/// Files on disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskVfs;

impl DiskVfs {
    /// The file system of the machine.
    pub const fn new() -> Self {
        Self
    }
}

/// Repeats a call for as long as signals interrupt it.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            answered => return answered,
        }
    }
}

/// The directory in the form that the system expects: the parent of a bare file name is the current directory.
fn directory(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Opens a directory. A database directory may be reached through a link, so links are followed here.
fn open_directory(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags((OFlags::DIRECTORY | OFlags::NONBLOCK).bits().cast_signed());
    again(|| options.open(directory(dir)))
}

/// Whether the error means that there is nothing at the path.
fn is_missing(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Returns the free space of the file system of a path, as available to unprivileged users.
///
/// # Errors
/// Any error of the system call.
pub fn free_space(path: &Path) -> io::Result<FreeSpace> {
    let found = again(|| Ok(rustix::fs::statvfs(directory(path))?))?;
    Ok(FreeSpace {
        bytes: found.f_bavail.saturating_mul(found.f_frsize),
        of_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        inodes: (found.f_files > 0).then_some(found.f_favail),
    })
}

/// Lists a directory once, without retrying.
fn list(dir: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in again(|| std::fs::read_dir(directory(dir)))? {
        let entry = entry?;
        // Of the entry itself, not of the target of a link.
        let found = match again(|| entry.metadata()) {
            Ok(found) => found,
            // Removed since the directory was read.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let (is_file, is_dir) = (found.is_file(), found.is_dir());
        let len = if is_file { found.len() } else { 0 };
        entries.push(DirEntry { name: text(entry.file_name()), len, is_file, is_dir });
    }
    Ok(entries)
}

/// The names in a directory, without a look at the files.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    again(|| std::fs::read_dir(directory(dir)))?.map(|entry| Ok(text(entry?.file_name()))).collect()
}

fn text(name: OsString) -> String {
    name.into_string().unwrap_or_else(|raw| raw.to_string_lossy().into_owned())
}

impl Vfs for DiskVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(DiskFile { file: open::open(path, mode)? }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        // Retry from the start: how far an interrupted listing got is unknown.
        again(|| list(dir))
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        again(|| names(dir))
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        again(|| std::path::absolute(directory(path))).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(e.kind(), "the current directory of this process was removed")
            }
            _ => e,
        })
    }

    fn kind(&self, path: &Path) -> io::Result<Option<PathKind>> {
        match again(|| directory(path).symlink_metadata()) {
            Ok(found) if found.is_file() => Ok(Some(PathKind::File)),
            Ok(found) if found.is_dir() => Ok(Some(PathKind::Dir)),
            // A database directory may be reached through a link; a file may not.
            Ok(found) if found.is_symlink() => match again(|| directory(path).metadata()) {
                Ok(linked) if linked.is_dir() => Ok(Some(PathKind::Dir)),
                _ => Ok(Some(PathKind::Other)),
            },
            Ok(_) => Ok(Some(PathKind::Other)),
            Err(e) if is_missing(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        again(|| DirBuilder::new().mode(0o700).create(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        again(|| std::fs::rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        again(|| std::fs::remove_file(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let file = open_directory(dir)?;
        again(|| file.sync_all())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        again(|| std::fs::hard_link(from, to))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        again(|| std::fs::remove_dir(dir))
    }

    fn identity(&self, path: &Path) -> io::Result<Option<FileIdentity>> {
        match again(|| directory(path).metadata()) {
            Ok(found) => Ok(Some(FileIdentity { device: found.dev(), inode: found.ino() })),
            Err(e) if is_missing(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn free_space(&self, dir: &Path) -> io::Result<Option<FreeSpace>> {
        free_space(dir).map(Some)
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        let locks = lock_both(path)?;
        match write_owner(&locks.file, owner.as_bytes()) {
            // The text only informs others who find the lock taken. A full disk must not prevent a database from being
            // opened, least of all by a user who wants to delete from it.
            Err(e) if !matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Err(e)
            }
            _ => Ok(Box::new(locks)),
        }
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let dir = match lock_directory(path.parent().unwrap_or(path), File::try_lock_shared) {
            Err(e) if is_missing(&e) => return Ok(None),
            locked => locked?,
        };
        match lock_named(path, |path| open::open_regular(path, &open::read_only()), File::try_lock_shared) {
            Ok(file) => Ok(Some(Box::new(Locks::new(file, dir)))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Replaces the text of a lock file. Overwriting costs less than emptying the file first, after which file systems write
/// it to disk when it is closed.
fn write_owner(file: &File, owner: &[u8]) -> io::Result<()> {
    file.write_all_at(owner, 0)?;
    match again(|| file.metadata())?.len() > owner.len() as u64 {
        true => again(|| file.set_len(owner.len() as u64)),
        false => Ok(()),
    }
}

/// A lock file and its directory, both locked.
struct Locks {
    file: File,
    dir: Option<File>,
    /// The process that took the locks. A child that it forked has the files open as well, and must not release them.
    owner: Process,
}

impl Locks {
    fn new(file: File, dir: Option<File>) -> Self {
        Self { file, dir, owner: Process::current() }
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        if !self.owner.is_current() {
            return;
        }
        // Closing the files is not enough: a process being started has them open, too, until it executes its program.
        for file in [Some(&self.file), self.dir.as_ref()].into_iter().flatten() {
            // If unlocking fails, closing the file, which follows, releases the lock as well, unless a process is being
            // started.
            let _ = again(|| file.unlock());
        }
    }
}

/// Locks a file, created if necessary, and its directory. The directory is first, so that a caller that finds it locked
/// leaves the file and its text unchanged. Retries if the directory was removed and recreated meanwhile.
fn lock_both(path: &Path) -> io::Result<Locks> {
    let parent = path.parent().unwrap_or(path);
    for _ in 0..LOCK_ATTEMPTS {
        let dir = lock_directory(parent, File::try_lock)?;
        let locks = Locks::new(lock_named(path, open::open_lock, File::try_lock)?, dir);
        let is_same = match &locks.dir {
            Some(dir) => same(&again(|| dir.metadata())?, &again(|| directory(parent).metadata())?),
            None => true,
        };
        if is_same {
            return Ok(locks);
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, format!("{} keeps being replaced", parent.display())))
}

fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Locks a directory, by whatever path it was reached. A file in it can be removed and recreated; the directory cannot,
/// for as long as it is not empty. `None` if the file system does not support locks on directories.
fn lock_directory(dir: &Path, take: impl Fn(&File) -> Result<(), TryLockError>) -> io::Result<Option<File>> {
    let file = open_directory(dir)?;
    match patiently(|| take(&file)) {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        // Network file systems require a file that is open for writing. The lock on the file has to suffice there.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Tries a few times without waiting: another process may hold the lock only to find out whether it is free.
fn patiently(take: impl Fn() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    for _ in 1..LOCK_ATTEMPTS {
        match uninterrupted(&take) {
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            taken => return taken,
        }
    }
    uninterrupted(&take)
}

/// [`again`] for calls with their own error type.
fn uninterrupted(take: impl Fn() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    again(|| match take() {
        Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted => Err(e),
        taken => Ok(taken),
    })
    .map_err(TryLockError::Error)?
}

/// Opens and locks the file of this name. A lock on a file that has lost its name meanwhile would exclude no one, so
/// the name is checked again once the lock is held. Closing the file releases the lock.
fn lock_named(
    path: &Path,
    open: impl Fn(&Path) -> io::Result<(File, Metadata)>,
    take: impl Fn(&File) -> Result<(), TryLockError>,
) -> io::Result<File> {
    for _ in 0..LOCK_ATTEMPTS {
        let (file, opened) = open(path)?;
        patiently(|| take(&file)).map_err(io::Error::from)?;
        match again(|| path.symlink_metadata()) {
            Ok(named) if same(&named, &opened) => return Ok(file),
            Err(e) if !is_missing(&e) => return Err(e),
            _ => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, format!("{} keeps being replaced", path.display())))
}

#[derive(Debug)]
struct DiskFile {
    file: File,
}

impl VfsFile for DiskFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        again(|| self.file.sync_data())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        again(|| self.file.set_len(len))
    }

    /// A failure may leave the file longer than it was: the space reserved is not released here, because a writer may
    /// be appending at the same time.
    fn allocate(&self, len: u64) -> io::Result<()> {
        let now = self.len()?;
        if len <= now {
            return Ok(());
        }
        again(|| reserve(&self.file, now, len - now)).map_err(|e| {
            match e.raw_os_error().map(Errno::from_raw_os_error) {
                // The errors by which file systems report that they do not support this; ZFS returns INVAL.
                Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => io::ErrorKind::Unsupported.into(),
                _ => e,
            }
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(again(|| self.file.metadata())?.len())
    }

    #[expect(
        unsafe_code,
        reason = "mapping a file is unsafe by nature, and this is the only place that does"
    )]
    fn map(&self, len: u64) -> io::Result<Mapping> {
        if self.len()? < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if len == 0 {
            return Ok(Mapping::Memory(Arc::default()));
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: these bytes do not change while they are mapped. The engine maps only files that it has finished
        // writing and never writes or truncates again (removing the name leaves the bytes in place), and the lock on
        // the database directory keeps other writers out. No mapping can be safe against someone who edits the files
        // behind the engine's back.
        let map = again(|| unsafe { memmap2::MmapOptions::new().len(len).map(&self.file) })?;
        // Otherwise each page fault of a get would load its surroundings, 128 KiB and on some systems megabytes, and
        // evict pages that other gets need. Scans request what they need ([`Mapping::load_soon`]). If this is refused,
        // only time is lost.
        let _ = again(|| map.advise(memmap2::Advice::Random));
        Ok(Mapping::File(map))
    }

    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "mapping a file is unsafe by nature")]
    fn share(&self, len: u64) -> io::Result<Box<dyn SharedBytes>> {
        if !stores_cannot_fail(&self.file)? {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if self.len()? < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: this process has no other mapping of the file, and writes to it in no other way while this one exists:
        // the engine shares only a file that it has just made, and the lock on the database directory keeps other
        // writers out. Other processes only read it. No mapping can be safe against someone who edits the files behind
        // the engine's back.
        let map = again(|| unsafe { memmap2::MmapOptions::new().len(len).map_mut(&self.file) })?;
        Ok(Box::new(MappedBytes(map)))
    }
}

/// Whether a store to a mapped page of this file, which has its place on the disk, needs no more space. Otherwise, as on
/// file systems that never overwrite in place, a store to a full one would raise `SIGBUS`.
#[cfg(target_os = "linux")]
fn stores_cannot_fail(file: &File) -> io::Result<bool> {
    /// From `linux/magic.h`: the family of ext2, ext3 and ext4, XFS, and files in memory.
    const OVERWRITE_IN_PLACE: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];
    let system = again(|| Ok(rustix::fs::fstatfs(file)?))?;
    Ok(OVERWRITE_IN_PLACE.contains(&(system.f_type as u64 & 0xFFFF_FFFF)))
}

#[cfg(target_os = "linux")]
#[derive(Debug)]
struct MappedBytes(memmap2::MmapMut);

#[cfg(target_os = "linux")]
impl SharedBytes for MappedBytes {
    fn store(&mut self, at: usize, bytes: &[u8]) {
        let len = bytes.len().min(self.0.len().saturating_sub(at));
        if let (Some(to), Some(bytes)) = (self.0.get_mut(at..at + len), bytes.get(..len)) {
            to.copy_from_slice(bytes);
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// See [`Mapping::load_soon`]. Split into pieces, because some systems load only the start of longer ranges.
pub(super) fn will_need(map: &memmap2::Mmap, range: Range<usize>) {
    const PIECE: usize = 128 << 10;
    let end = range.end.min(map.len());
    for at in (range.start..end).step_by(PIECE) {
        // Advice may be refused; the bytes are then loaded on access.
        let _ = again(|| map.advise_range(memmap2::Advice::WillNeed, at, PIECE.min(end - at)));
    }
}

/// See [`Mapping::load`]. The system returns `EFAULT` where an access would raise `SIGBUS`. Failures because the system
/// lacks the call, or has no memory for page tables, say nothing about the file.
#[cfg(target_os = "linux")]
pub(super) fn populate(map: &memmap2::Mmap, range: Range<usize>) -> io::Result<()> {
    let end = range.end.min(map.len());
    let Some(len) = end.checked_sub(range.start).filter(|len| *len > 0) else { return Ok(()) };
    loop {
        let populated = again(|| map.advise_range(memmap2::Advice::PopulateRead, range.start, len));
        let Err(error) = populated else { return Ok(()) };
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::AGAIN) => {}
            Some(Errno::FAULT | Errno::HWPOISON | Errno::IO) => {
                let why = "the file became shorter, or its medium cannot be read";
                return Err(io::Error::other(why));
            }
            _ => return Ok(()),
        }
    }
}

/// No-op: these systems lack such a call.
#[cfg(not(target_os = "linux"))]
pub(super) fn populate(_map: &memmap2::Mmap, _range: Range<usize>) -> io::Result<()> {
    Ok(())
}

/// Reserves space, extending the file with zeros.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn reserve(file: &File, offset: u64, len: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), offset, len)?)
}

/// On systems without such a call, files grow as they are appended to.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
fn reserve(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    Err(Errno::NOSYS.into())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::vfs::mem::conformance;

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn conforms() {
        conformance::check(&DiskVfs::new(), dir().path());
    }

    /// Symptom: a hard link named `LOCK`, `EVENTS.jsonl` or `MANIFEST.tmp` was written through to the other file that
    /// it names. A link or FIFO named `MANIFEST.tmp` kept the database from being opened. Cause: a regular file was
    /// assumed to be the database's own, however many names it had; a temporary file was opened in place if its name
    /// existed. Fix: a file that is written in place must have a single name; a temporary file replaces whatever has
    /// its name.
    #[test]
    fn only_regular_files_are_opened() {
        let (vfs, dir) = (DiskVfs::new(), dir());
        let target = dir.path().join("target");
        // By the command, because not every system has the call.
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("fifo")).status().unwrap();
        assert!(made.success());
        let _listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        symlink(&target, dir.path().join("link")).unwrap();
        symlink(dir.path().join("none"), dir.path().join("dangling")).unwrap();
        symlink("/dev/zero", dir.path().join("endless")).unwrap();
        symlink(dir.path(), dir.path().join("linked-dir")).unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        std::fs::write(&target, "precious").unwrap();
        for name in ["link", "dangling", "endless", "fifo", "socket", "linked-dir", "dir"] {
            let path = dir.path().join(name);
            let refused = |e: io::Error, what: &str| {
                assert_eq!(e.kind(), io::ErrorKind::InvalidInput, "{name} {what}");
                assert!(
                    e.to_string().ends_with(&format!("{name} is not a regular file")),
                    "{name} {what}: {e}"
                );
            };
            for mode in [OpenMode::Read, OpenMode::Write] {
                refused(vfs.open(&path, mode).unwrap_err(), "open");
            }
            refused(read_regular(&path, 1 << 20).unwrap_err(), "read");
            refused(vfs.lock(&path, "me").err().unwrap(), "lock");
            refused(vfs.lock_shared(&path).err().unwrap(), "lock shared");
            assert_eq!(
                vfs.open(&path, OpenMode::Create).unwrap_err().kind(),
                io::ErrorKind::AlreadyExists,
                "{name}"
            );
            let entry = vfs.list(dir.path()).unwrap().into_iter().find(|entry| entry.name == name).unwrap();
            assert_eq!((entry.is_file, entry.is_dir, entry.len), (false, name == "dir", 0), "{name}");
            if name == "dir" {
                refused(vfs.open(&path, OpenMode::Truncate).unwrap_err(), "replace");
                continue;
            }
            vfs.open(&path, OpenMode::Truncate).unwrap().write_at(b"mine", 0).unwrap();
            assert!(path.symlink_metadata().unwrap().is_file(), "{name}");
            assert_eq!(std::fs::read(&path).unwrap(), b"mine", "{name}");
        }
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
        assert_eq!(vfs.kind(&dir.path().join("none")).unwrap(), None);
    }

    #[test]
    fn what_has_another_name_is_read_and_not_written() {
        let (vfs, dir) = (DiskVfs::new(), dir());
        let (target, path) = (dir.path().join("target"), dir.path().join("LOCK"));
        std::fs::write(&target, "precious").unwrap();
        std::fs::hard_link(&target, &path).unwrap();
        for refused in [vfs.open(&path, OpenMode::Write).map(drop), vfs.lock(&path, "me").map(drop)] {
            let e = refused.unwrap_err();
            assert!(e.to_string().contains("LOCK has 2 names (hard links)"), "{e}");
        }
        assert_eq!(read_regular(&path, 8).unwrap(), b"precious");
        assert_eq!(read_regular(&path, 7).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(vfs.lock_shared(&path).unwrap());
        vfs.open(&path, OpenMode::Truncate).unwrap().write_at(b"mine", 0).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
        drop(vfs.lock(&path, "me").unwrap());
    }

    #[test]
    fn a_directory_may_be_reached_through_a_link() {
        let (vfs, dir) = (DiskVfs::new(), dir());
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        vfs.create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        vfs.open(&link.join("file"), OpenMode::Create).unwrap().write_at(b"x", 0).unwrap();
        vfs.sync_dir(&link).unwrap();
        assert_eq!(vfs.list(&link).unwrap(), vfs.list(&real).unwrap());
    }

    #[test]
    fn what_is_created_is_its_owners_alone() {
        let (vfs, dir) = (DiskVfs::new(), dir());
        let path = |name: &str| dir.path().join(name);
        vfs.create_dir(&path("dir")).unwrap();
        vfs.open(&path("created"), OpenMode::Create).unwrap();
        vfs.open(&path("emptied"), OpenMode::Truncate).unwrap();
        drop(vfs.lock(&path("LOCK"), "me").unwrap());
        for name in ["dir", "created", "emptied", "LOCK"] {
            assert_eq!(path(name).metadata().unwrap().permissions().mode() & 0o077, 0, "{name}");
        }
    }

    #[test]
    fn a_lock_on_a_file_that_lost_its_name_is_not_taken_for_the_lock() {
        let (vfs, dir) = (DiskVfs::new(), dir());
        let path = dir.path().join("LOCK");
        let take_after = |meanwhile: fn(&Path)| {
            // The action of another process between our open and our lock, once.
            let meanwhile = Cell::new(Some(meanwhile));
            lock_named(&path, open::open_lock, |file| {
                if let Some(act) = meanwhile.take() {
                    act(&path);
                }
                file.try_lock()
            })
        };
        let file = take_after(|path| std::fs::remove_file(path).unwrap()).unwrap();
        assert_eq!(file.metadata().unwrap().ino(), path.metadata().unwrap().ino());
        assert_eq!(vfs.lock(&path, "").err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(file);
        let file = take_after(|path| {
            std::fs::write(path.with_extension("new"), "").unwrap();
            std::fs::rename(path.with_extension("new"), path).unwrap();
        })
        .unwrap();
        assert_eq!(file.metadata().unwrap().ino(), path.metadata().unwrap().ino());
        assert_eq!(vfs.lock(&path, "").err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(file);
    }

    /// Symptom: opening a database that was just closed failed with `Locked` by the same process, if another thread was
    /// starting a program at that moment. Cause: the lock was released by closing its file, which the process being
    /// started still had open. Fix: the lock is released before the file is closed.
    #[test]
    fn a_lock_is_given_back_although_a_process_being_started_has_its_files() {
        let (vfs, dir) = (DiskVfs::new(), dir());
        let path = dir.path().join("LOCK");
        let file = lock_named(&path, open::open_lock, File::try_lock);
        let file = file.unwrap();
        let directory = lock_directory(dir.path(), File::try_lock).unwrap().unwrap();
        // As the system does for a new process.
        let inherited = (file.try_clone().unwrap(), directory.try_clone().unwrap());
        let locks = Locks::new(file, Some(directory));
        assert_eq!(vfs.lock(&path, "me").err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(locks);
        drop(vfs.lock(&path, "me").unwrap());
        drop(inherited);
    }

    /// A forked process that executes no program shares its parent's locks: it does not release them, and keeps them
    /// after the parent's death.
    #[test]
    fn a_forked_process_shares_the_lock_and_does_not_give_it_back() {
        let (vfs, dir) = (DiskVfs::new(), dir());
        let path = dir.path().join("LOCK");
        let refused = |what: &str| {
            assert_eq!(
                vfs.lock(&path, "me").err().map(|e| e.kind()),
                Some(io::ErrorKind::WouldBlock),
                "{what}"
            );
        };
        let file = lock_named(&path, open::open_lock, File::try_lock);
        let file = file.unwrap();
        let directory = lock_directory(dir.path(), File::try_lock).unwrap().unwrap();
        let of = |owner| Locks {
            file: file.try_clone().unwrap(),
            dir: Some(directory.try_clone().unwrap()),
            owner,
        };
        let (forked, survivor) = (of(Process::other()), of(Process::other()));
        drop(forked);
        refused("a forked process that ends releases its parent's lock");
        // The death of a process closes its files and does nothing else.
        drop((file, directory));
        refused("a forked process lives on");
        drop(survivor);
        drop(vfs.lock(&path, "me").unwrap());
    }

    /// Whether a page is in the page cache; `None` if the system cannot tell.
    #[cfg(target_os = "linux")]
    fn is_cached(file: &File, at: u64) -> Option<bool> {
        use rustix::io::ReadWriteFlags;
        let mut byte = [0];
        match rustix::io::preadv2(file, &mut [io::IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT) {
            Ok(read) => Some(read == 1),
            Err(Errno::AGAIN) => Some(false),
            Err(_) => None,
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn of_a_mapping_only_what_is_touched_or_asked_for_is_loaded() {
        const LEN: usize = 4 << 20;
        let (vfs, dir) = (DiskVfs::new(), dir());
        let path = dir.path().join("001-1.sst");
        std::fs::write(&path, vec![7; LEN]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        for advice in [rustix::fs::Advice::Random, rustix::fs::Advice::DontNeed] {
            rustix::fs::fadvise(&file, 0, None, advice).unwrap();
        }
        // The check itself has a page loaded, so each page is checked only once.
        if is_cached(&file, 0) != Some(false) {
            println!("skipped: this file system does not evict its cached pages, or does not report them");
            return;
        }
        let map = vfs.open(&path, OpenMode::Read).unwrap().map(LEN as u64).unwrap();
        let middle = LEN as u64 / 2;
        assert_eq!(map[LEN / 2], 7);
        assert_eq!(is_cached(&file, middle), Some(true));
        for beside in [middle - (64 << 10), middle - 4_096, middle + 4_096, middle + (64 << 10)] {
            assert_eq!(is_cached(&file, beside), Some(false), "{beside}");
        }
        map.load_soon(1 << 20..3 << 19);
        map.load(1 << 20..3 << 19).unwrap();
        assert!((1 << 20..3 << 19).step_by(4_096).all(|at| is_cached(&file, at) == Some(true)));
        assert_eq!(is_cached(&file, 3 << 19), Some(false));
    }

    #[test]
    fn the_system_sees_the_lock() {
        let (vfs, dir) = (DiskVfs::new(), dir());
        let path = dir.path().join("LOCK");
        let other = || OpenOptions::new().read(true).open(&path).unwrap();
        let lock = vfs.lock(&path, "me").unwrap();
        assert!(matches!(other().try_lock_shared(), Err(TryLockError::WouldBlock)));
        drop(lock);
        let shared = vfs.lock_shared(&path).unwrap().unwrap();
        other().try_lock_shared().unwrap();
        assert!(matches!(other().try_lock(), Err(TryLockError::WouldBlock)));
        drop(shared);
        other().try_lock().unwrap();
    }

    /// Symptom: a signal during the listing of a directory or the taking of a lock failed the call with "Interrupted
    /// system call". Cause: only reads and writes were retried. Fix: every other call is retried, in one place.
    #[test]
    fn a_call_that_a_signal_cuts_short_is_made_again() {
        let interrupted = || io::Error::from(Errno::INTR);
        let left = Cell::new(3);
        let call = || match left.get() {
            0 => Ok(7),
            n => {
                left.set(n - 1);
                Err(interrupted())
            }
        };
        assert_eq!(again(call).unwrap(), 7);
        assert_eq!(again(|| Err::<(), _>(Errno::IO.into())).unwrap_err().raw_os_error(), Some(5));
        left.set(2);
        let take = || match call() {
            Ok(_) => Err(TryLockError::WouldBlock),
            Err(e) => Err(TryLockError::Error(e)),
        };
        assert!(matches!(uninterrupted(take), Err(TryLockError::WouldBlock)));
        assert_eq!(left.get(), 0);
    }

    /// All calls in this file go through `again`, except reads and writes.
    #[test]
    fn no_call_can_be_cut_short() {
        const CALLS: [&str; 17] = [
            "std::fs::",
            ".open(",
            ".create(dir)",
            "metadata()",
            ".sync_all()",
            ".sync_data()",
            ".set_len(",
            ".unlock()",
            ".advise(",
            ".advise_range(",
            ".map(&self.file)",
            "reserve(&",
            "path::absolute(",
            "is_dir()",
            "is_file()",
            "read_dir(",
            ".try_lock",
        ];
        // Methods on results of calls, and functions of this file that retry by themselves.
        const NONE: [&str; 4] = ["found.is_", "linked.is_", "fallocate", "use std::fs::"];
        let source = include_str!("disk.rs");
        let (code, _) = source.split_once("#[cfg(test)]").unwrap();
        let mut seen = 0;
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            if CALLS.iter().any(|call| line.contains(call)) && !NONE.iter().any(|none| line.contains(none)) {
                assert!(line.contains("again(||"), "{line}");
                seen += 1;
            }
        }
        assert!(seen >= 20, "{seen} calls");
    }
}
