//! The real file system.
//!
//! Owns every call that touches a file, and the unsafe line that maps them. What is opened
//! is always a regular file named directly: the last component of a path is never followed if it is a
//! link, a FIFO cannot make an open wait, and whatever turns out to be no regular file is refused before
//! a byte of it is read or written. New files and directories are their owner's alone (0600 and 0700,
//! less what the umask takes away).
//!
//! A signal whose handler does not ask for calls to be restarted may cut any call short (`EINTR`). Each call is made
//! within [`again`], but for reads and writes, whose callers go on where they were, and for the close of a file, which
//! is done whatever it answers. Also a sync may be made again after that: what was not written yet is still dirty, and
//! an error of writing is told by the next sync if this one did not tell it; only an *error* must not be tried again.

#![expect(clippy::disallowed_methods, reason = "this is where the engine touches files")]

use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::process::Process;

use super::{DirEntry, FileIdentity, Mapping, OpenMode, PathKind, Vfs, VfsFile};

/// How often a lock file may be replaced under us, or its lock be held, before we give up.
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

/// Reads only; the other rights are added by the caller.
fn read_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Without NONBLOCK, opening a FIFO waits for its other end. On regular files it changes nothing.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    options.read(true).mode(0o600).custom_flags(flags.bits().cast_signed());
    options
}

/// Makes a call again as long as a signal cuts it short.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            answered => return answered,
        }
    }
}

fn irregular(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a regular file", path.display()))
}

/// Opens a regular file, and nothing else.
fn open_regular(path: &Path, options: &OpenOptions) -> io::Result<(File, Metadata)> {
    let file =
        again(|| options.open(path)).map_err(|e| match e.raw_os_error().map(Errno::from_raw_os_error) {
            // What a link, a directory opened for writing, and a socket or FIFO without a peer answer.
            Some(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => irregular(path),
            _ => e,
        })?;
    let found = again(|| file.metadata())?;
    if found.is_file() { Ok((file, found)) } else { Err(irregular(path)) }
}

/// The directory as the system wants it named: the parent of a bare file name is here.
fn directory(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Opens a directory. One of a database may be reached through a link, so that one is followed here.
fn open_directory(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags((OFlags::DIRECTORY | OFlags::NONBLOCK).bits().cast_signed());
    again(|| options.open(directory(dir)))
}

/// Whether the error says that there is nothing at the path.
fn is_missing(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The names in a directory; the call that is made again.
fn list(dir: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in again(|| std::fs::read_dir(directory(dir)))? {
        let entry = entry?;
        // Of the name itself, not of what it may link to.
        let found = match again(|| entry.metadata()) {
            Ok(found) => found,
            // Removed since the directory was read.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let is_file = found.is_file();
        let len = if is_file { found.len() } else { 0 };
        entries.push(DirEntry { name: entry.file_name().to_string_lossy().into_owned(), len, is_file });
    }
    Ok(entries)
}

impl Vfs for DiskVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut options = read_only();
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => _ = options.write(true),
            OpenMode::Create => _ = options.write(true).create_new(true),
            // Emptied below, once it is known to be a regular file.
            OpenMode::Truncate => _ = options.write(true).create(true).truncate(false),
        }
        let (file, found) = open_regular(path, &options)?;
        if mode == OpenMode::Truncate && found.len() > 0 {
            again(|| file.set_len(0))?;
        }
        Ok(Arc::new(DiskFile { file }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        // From its beginning: how far an interrupted reading has come is not known.
        again(|| list(dir))
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
            // A database directory may be reached through a link; no file may.
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

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        let locks = lock_both(path)?;
        match again(|| locks.file.set_len(0)).and_then(|()| locks.file.write_all_at(owner.as_bytes(), 0)) {
            // The text is a courtesy to whoever finds the lock taken; a full disk must not keep a database
            // from being opened, least of all by someone who wants to delete from it.
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
        match lock_named(path, &read_only(), File::try_lock_shared) {
            Ok(file) => Ok(Some(Box::new(Locks::new(file, dir)))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// A lock file and its directory, locked.
struct Locks {
    file: File,
    dir: Option<File>,
    /// The process that took them. One that it forked has them open as well, and must not give them back.
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
        // Closing them is not enough: a process that is just being started has them open as well, until it runs its
        // program.
        for file in [Some(&self.file), self.dir.as_ref()].into_iter().flatten() {
            let _ = again(|| file.unlock());
        }
    }
}

/// Locks a file, made if need be, and its directory: that first, so that who finds it taken leaves the file, and what it
/// says, as they are. A directory that was removed meanwhile, and made again, is another one.
fn lock_both(path: &Path) -> io::Result<Locks> {
    let parent = path.parent().unwrap_or(path);
    let mut options = read_only();
    options.write(true).create(true).truncate(false);
    for _ in 0..LOCK_ATTEMPTS {
        let dir = lock_directory(parent, File::try_lock)?;
        let locks = Locks::new(lock_named(path, &options, File::try_lock)?, dir);
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

/// Locks a directory, by whatever path it was reached. A file in it can be removed and made again; the directory
/// cannot, as long as there is anything in it. `None` where the file system has no locks on directories.
fn lock_directory(dir: &Path, take: impl Fn(&File) -> Result<(), TryLockError>) -> io::Result<Option<File>> {
    let file = open_directory(dir)?;
    match patiently(|| take(&file)) {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        // Network file systems want a file that is open for writing. The lock on the file there is must do.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Tries a few times, without waiting: somebody may hold the lock just to learn whether it is free.
fn patiently(take: impl Fn() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    for _ in 1..LOCK_ATTEMPTS {
        match uninterrupted(&take) {
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            taken => return taken,
        }
    }
    uninterrupted(&take)
}

/// [`again`] for what has errors of its own.
fn uninterrupted(take: impl Fn() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    again(|| match take() {
        Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Interrupted => Err(e),
        taken => Ok(taken),
    })
    .map_err(TryLockError::Error)?
}

/// Opens and locks the file of this name. A lock on a file that has lost its name meanwhile would keep
/// nobody out, so the name is looked at again once the lock is held. Closing the file releases it.
fn lock_named(
    path: &Path,
    options: &OpenOptions,
    take: impl Fn(&File) -> Result<(), TryLockError>,
) -> io::Result<File> {
    for _ in 0..LOCK_ATTEMPTS {
        let (file, opened) = open_regular(path, options)?;
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

    /// A refusal may leave the file longer than it was: what was reserved is not given back here, because
    /// somebody may be appending meanwhile.
    fn allocate(&self, len: u64) -> io::Result<()> {
        let now = self.len()?;
        if len <= now {
            return Ok(());
        }
        again(|| reserve(&self.file, now, len - now)).map_err(|e| {
            match e.raw_os_error().map(Errno::from_raw_os_error) {
                // How file systems say that they do not do this, INVAL among them on ZFS.
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
        // SAFETY: nobody changes these bytes while they are mapped. The engine maps only files that it has
        // finished writing and never writes or cuts again (removing the name leaves the bytes in place),
        // and the lock on the database directory keeps other writers out. Someone who edits the files
        // behind the engine's back is outside of what any mapping can be safe against.
        let map = again(|| unsafe { memmap2::MmapOptions::new().len(len).map(&self.file) })?;
        // Else each fault of a get would load what lies around it, 128 KiB and on some systems megabytes, and drive out
        // what other gets need. Walks say what they need ([`Mapping::load_soon`]). A refusal only costs time.
        let _ = again(|| map.advise(memmap2::Advice::Random));
        Ok(Mapping::File(map))
    }
}

/// See [`Mapping::load_soon`]. In pieces: of longer ones some systems load only the start.
pub(super) fn will_need(map: &memmap2::Mmap, range: Range<usize>) {
    const PIECE: usize = 128 << 10;
    let end = range.end.min(map.len());
    for at in (range.start..end).step_by(PIECE) {
        // Advice may be refused: then the bytes are loaded when they are touched.
        let _ = again(|| map.advise_range(memmap2::Advice::WillNeed, at, PIECE.min(end - at)));
    }
}

/// See [`Mapping::load`]. `EFAULT` is what the system answers where a touch would raise `SIGBUS`; refusals because it
/// lacks the call, or memory for page tables, say nothing of the file.
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
                let why = "the file has become shorter, or its medium cannot be read";
                return Err(io::Error::other(why));
            }
            _ => return Ok(()),
        }
    }
}

/// There is no such call.
#[cfg(not(target_os = "linux"))]
pub(super) fn populate(_map: &memmap2::Mmap, _range: Range<usize>) -> io::Result<()> {
    Ok(())
}

/// Reserves space, growing the file with zeros.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn reserve(file: &File, offset: u64, len: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), offset, len)?)
}

/// Where there is no call that does this, files grow by being appended to.
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

    const MODES: [OpenMode; 4] = [OpenMode::Read, OpenMode::Write, OpenMode::Create, OpenMode::Truncate];

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn conforms() {
        conformance::check(&DiskVfs::new(), dir().path());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let (vfs, dir) = (DiskVfs::new(), dir());
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        std::fs::write(&target, "precious").unwrap();
        symlink(&target, &link).unwrap();
        symlink(dir.path().join("none"), dir.path().join("dangling")).unwrap();
        // By the command: the call is not there on every system.
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("fifo")).status().unwrap();
        assert!(made.success());
        let _listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        for name in ["link", "dangling", "fifo", "socket"] {
            let path = dir.path().join(name);
            for mode in MODES {
                let e = vfs.open(&path, mode).unwrap_err();
                if mode == OpenMode::Create {
                    assert_eq!(e.kind(), io::ErrorKind::AlreadyExists, "{name}");
                } else {
                    assert_eq!(e.kind(), io::ErrorKind::InvalidInput, "{name} {mode:?}");
                    assert!(e.to_string().ends_with(&format!("{name} is not a regular file")), "{e}");
                }
            }
            assert_eq!(vfs.lock(&path, "me").err().unwrap().kind(), io::ErrorKind::InvalidInput, "{name}");
            assert_eq!(vfs.lock_shared(&path).err().unwrap().kind(), io::ErrorKind::InvalidInput, "{name}");
            assert_eq!(vfs.kind(&path).unwrap(), Some(PathKind::Other));
        }
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
        assert_eq!(vfs.kind(&dir.path().join("none")).unwrap(), None);
        for entry in vfs.list(dir.path()).unwrap() {
            assert_eq!(
                (entry.is_file, entry.len),
                if entry.name == "target" { (true, 8) } else { (false, 0) }
            );
        }
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
            // What somebody else does between our open and our lock, once.
            let meanwhile = Cell::new(Some(meanwhile));
            let mut options = read_only();
            options.write(true).create(true).truncate(false);
            lock_named(&path, &options, |file| {
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

    /// Symptom: opening a database that was just closed failed with `Locked` by one's own process, when another thread
    /// was starting a program at that moment.
    /// Cause: the lock was given back by closing its file, which the process being started still had open.
    /// Fix: it is given back before it is closed.
    #[test]
    fn a_lock_is_given_back_although_a_process_being_started_has_its_files() {
        let (vfs, dir) = (DiskVfs::new(), dir());
        let path = dir.path().join("LOCK");
        let file = lock_named(&path, read_only().write(true).create(true).truncate(false), File::try_lock);
        let file = file.unwrap();
        let directory = lock_directory(dir.path(), File::try_lock).unwrap().unwrap();
        // What the system does for a new process.
        let inherited = (file.try_clone().unwrap(), directory.try_clone().unwrap());
        let locks = Locks::new(file, Some(directory));
        assert_eq!(vfs.lock(&path, "me").err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(locks);
        drop(vfs.lock(&path, "me").unwrap());
        drop(inherited);
    }

    /// A process that was forked and starts no program shares the locks of the one that it comes from: it does not
    /// give them back, and keeps them when the other one has died.
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
        let file = lock_named(&path, read_only().write(true).create(true).truncate(false), File::try_lock);
        let file = file.unwrap();
        let directory = lock_directory(dir.path(), File::try_lock).unwrap().unwrap();
        let of = |owner| Locks {
            file: file.try_clone().unwrap(),
            dir: Some(directory.try_clone().unwrap()),
            owner,
        };
        let (forked, survivor) = (of(Process::other()), of(Process::other()));
        drop(forked);
        refused("a forked process that ends takes the lock from the one it came from");
        // The death of a process closes its files, no more.
        drop((file, directory));
        refused("a forked process lives on");
        drop(survivor);
        drop(vfs.lock(&path, "me").unwrap());
    }

    /// Whether a page is in the page cache; `None` where that cannot be asked.
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
        // Asking has a page loaded: each is asked for once.
        if is_cached(&file, 0) != Some(false) {
            println!(
                "skipped: this file system does not let go of what it holds in memory, or does not tell"
            );
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

    /// Symptom: a signal that came while a directory was listed or a lock taken failed the call with "Interrupted system
    /// call". Cause: only reads and writes were made again. Fix: every other call is, in one place.
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

    /// No call of this file goes past that place; reads and writes do.
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
        // Questions to what a call has answered, and calls of functions of this file that make it again.
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
