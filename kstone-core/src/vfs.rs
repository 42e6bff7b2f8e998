//! The file system interface, limited to what the engine uses. The rest of the crate does all of its I/O through these
//! two traits. `disk` implements them on the real file system and `mem` in memory; `sim` has the implementations for
//! tests.

use std::fmt::Debug;
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::planted::{Bug, planted};

mod disk;
mod lock_identity;
mod mem;
mod metered;
#[cfg(feature = "testing")]
mod sim;
mod window;

pub use disk::{DiskVfs, free_space, read_regular};
pub(crate) use lock_identity::LockIdentity;
pub use mem::MemVfs;
pub(crate) use metered::{Below, Floor, Meter, MeteredVfs, PAGE, Promise, Usage, pages};
#[cfg(test)]
pub(crate) use sim::StoredByCalls;
#[cfg(feature = "testing")]
pub use sim::{
    Call, Choose, CrashMode, Effect, Errno, FaultVfs, Hook, Image, Op, Record, Rule, RuleHandle, StrictVfs,
    Tear,
};
pub(crate) use window::{WINDOW, Window};

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Opens an existing file for reading.
    Read,
    /// Opens an existing file for reading and writing. The file must have no other name.
    Write,
    /// Creates a file for reading and writing. `AlreadyExists` if the name is taken.
    Create,
    /// Creates a file for reading and writing, or empties an existing one; for temporary files. A link, a special file
    /// or a file with a second name is not opened: a new file takes its name.
    Truncate,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without its directory. A name that is not UTF-8 is converted lossily; no file of a database has one.
    pub name: String,
    /// Length in bytes; 0 unless it is a regular file.
    pub len: u64,
    /// Whether it is a regular file, not a directory, link, FIFO or device.
    pub is_file: bool,
    /// Whether it is a directory itself, not a link to one.
    pub is_dir: bool,
}

/// Directories and their entries.
///
/// Only [`VfsFile::read_at`] and [`VfsFile::write_at`] may fail with `Interrupted`; all other calls are retried
/// internally when a signal interrupts them.
///
/// What survives a power cut: the bytes of a file after [`VfsFile::sync`]; creations, renames and removals of names
/// after [`Vfs::sync_dir`] of their directory. Nothing else is guaranteed.
pub trait Vfs: Debug + Send + Sync {
    /// Opens a regular file. Links are not followed, and anything but a regular file is refused.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>>;
    /// Lists the entries of a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Returns the absolute form of a path, with links unresolved, which stays valid when the process changes its
    /// current directory. The default, for file systems without a current directory, returns the path unchanged.
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }
    /// Returns what is at the path, or `None` if nothing is. Links are followed to directories only.
    fn kind(&self, path: &Path) -> io::Result<Option<PathKind>>;
    /// Returns the names of the entries of a directory, in any order. By default those of [`Vfs::list`], which also looks
    /// at each file.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        Ok(self.list(dir)?.into_iter().map(|entry| entry.name).collect())
    }
    /// Creates a directory. Its parent must exist.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file, replacing an existing one of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives a regular file a second name. Both names refer to the same file; nothing is copied. `AlreadyExists` if the
    /// name is taken. `Unsupported`, the default, if the file system has no hard links.
    fn hard_link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Removes an empty directory. `Unsupported` by default.
    fn remove_dir(&self, _dir: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Returns the identity of the file or directory at a path, following links: the same for every path that leads to
    /// it, and unique while it exists. `None` if there is nothing at the path, or, as by default, if the identity is
    /// unknown.
    fn identity(&self, _path: &Path) -> io::Result<Option<FileIdentity>> {
        Ok(None)
    }
    /// Takes the exclusive lock on the file at `path`, creating the file if necessary and writing `owner` into it. Also
    /// locks its directory, where directories can be locked, so that removing the file does not let another process in.
    /// `WouldBlock` if either is locked already, by this process or another. Dropping the guard, or the end of the
    /// process, releases the lock. The file remains.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>>;
    /// Takes a shared lock on the file at `path` and on its directory, and changes nothing. Any number of shared locks
    /// may be held, but not together with [`Vfs::lock`] (`WouldBlock`). `None` if there is no file. It serves to find
    /// out whether the lock is held; callers must release it at once.
    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;
    /// Returns the free space of the directory's file system. `None`, the default, if it is unknown.
    fn free_space(&self, _dir: &Path) -> io::Result<Option<FreeSpace>> {
        Ok(None)
    }
    /// Whether files disappear with the process, which makes files that only other processes would read pointless.
    /// Default: no.
    fn is_volatile(&self) -> bool {
        false
    }
    /// In a simulated file system, changes to the names in a directory since its last sync remain visible, but no later
    /// sync makes them durable. Default: no-op.
    fn lose_unsynced_names(&self, _dir: &Path) {}
}

/// Free space of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    /// Bytes that can still be written.
    pub bytes: u64,
    /// Total size of the file system in bytes.
    pub of_bytes: u64,
    /// Number of files that can still be created; `None` if it is unlimited.
    pub inodes: Option<u64>,
}

/// Identifies a file or directory independently of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Number of the file system.
    pub device: u64,
    /// Number of the file in that file system.
    pub inode: u64,
}

/// What a path refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// A regular file.
    File,
    /// A directory, or a link to one.
    Dir,
    /// Anything else: a link to something else, a FIFO, a device.
    Other,
}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "no caller needs to know whether a file is empty")]
pub trait VfsFile: Debug + Send + Sync {
    /// Reads at an offset. Reads fewer bytes than requested, possibly none, at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at an offset, extending the file. May write fewer bytes than given; see [`write_all_at`].
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes the contents and the length durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Truncates the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space up to `len` bytes, extending the file with zeros. `Unsupported` if the file system cannot reserve
    /// space; `StorageFull` if there is not enough.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Returns the length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Maps the first `len` bytes for reading; pages are loaded on access. The bytes must not change while the mapping
    /// exists, which is true of SSTs. `UnexpectedEof` if the file is shorter.
    fn map(&self, len: u64) -> io::Result<Mapping>;
    /// Maps the first `len` bytes, which exist and have space on the disk, for one writer. `Unsupported`, the default,
    /// where a store could fail: a store cannot report an error.
    fn share(&self, _len: u64) -> io::Result<Box<dyn SharedBytes>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// In a simulated file system, data written since the last sync remains readable, but no later sync makes it
    /// durable. Default: no-op.
    fn lose_unsynced(&self) {}
}

/// Bytes of a file that are written in place: a store is at once what readers of the file find, and survives the death
/// of the process like a write.
#[expect(clippy::len_without_is_empty, reason = "no caller needs to know whether it is empty")]
pub trait SharedBytes: Debug + Send {
    /// Replaces the bytes from `at` on. What would be beyond the end is left out.
    fn store(&mut self, at: usize, bytes: &[u8]);
    /// Returns all bytes.
    fn bytes(&self) -> &[u8];
    /// Returns the number of bytes.
    fn len(&self) -> usize {
        self.bytes().len()
    }
}

/// Bytes of a file that are read in place.
#[derive(Debug)]
pub enum Mapping {
    /// Mapped from a file.
    File(memmap2::Mmap),
    /// Held in memory.
    Memory(Arc<Vec<u8>>),
}

impl Mapping {
    /// Loads the pages of these bytes, so that the next access cannot kill the process: if the file was truncated or
    /// its medium cannot be read, an access would raise `SIGBUS`, where this returns an error. It does not protect
    /// against pages that are evicted later and then cannot be read back. A no-op on systems that lack such a call.
    pub(crate) fn load(&self, range: Range<usize>) -> io::Result<()> {
        match self {
            Self::File(map) => disk::populate(map, range),
            Self::Memory(_) => Ok(()),
        }
    }

    /// Starts loading these bytes and does not wait. Errors surface on access.
    pub(crate) fn load_soon(&self, range: Range<usize>) {
        if let Self::File(map) = self {
            disk::will_need(map, range);
        }
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::File(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}

/// Whole files are read in pieces of this many bytes.
pub(crate) const READ_UNIT: usize = 256 << 10;
/// The unit of retries where such a piece cannot be read: a bad sector must not take the rest with it.
pub(crate) const RETRY_UNIT: usize = 4096;

/// Writes all of `buf`, in as many calls as the file needs.
pub fn write_all_at(file: &dyn VfsFile, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.write_at(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                let rest = buf.get(n..);
                buf = rest.ok_or_else(|| io::Error::other("more bytes were written than given"))?;
                offset += n as u64;
                if !buf.is_empty() && planted(Bug::ShortWriteIgnored) {
                    return Ok(());
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads until `buf` is full or the file ends. Returns the number of bytes read.
pub fn read_full_at(file: &dyn VfsFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Reads the whole file. A file longer than `max` bytes is refused before any memory is allocated.
pub fn read_all(file: &dyn VfsFile, max: u64) -> io::Result<Vec<u8>> {
    let len = file.len()?;
    if len > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{len} bytes, more than {max}")));
    }
    let mut bytes = vec![0; len as usize];
    let read = read_full_at(file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}
