//! The file system as the engine uses it, and nothing more. Everything else in the crate does its I/O
//! through these two traits; `disk` is the real thing, `mem` the in-memory mode, `sim` what tests put in their place.

use std::fmt::Debug;
use std::io;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::planted::{Bug, planted};

mod disk;
mod mem;
mod metered;
mod place;
#[cfg(feature = "testing")]
mod sim;
mod window;

pub use disk::{DiskVfs, free_space, read_regular};
pub use mem::MemVfs;
pub(crate) use metered::{Below, Floor, Meter, MeteredVfs, PAGE, Promise, Usage, pages};
pub(crate) use place::Place;
#[cfg(feature = "testing")]
pub use sim::{
    Call, Choose, CrashMode, Effect, Errno, FaultVfs, Hook, Image, Op, Record, Rule, RuleHandle, StrictVfs,
    Tear,
};
pub(crate) use window::{WINDOW, Window};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; only reads.
    Read,
    /// It must exist, and have no other name; reads and writes.
    Write,
    /// It must not exist (`AlreadyExists` otherwise); reads and writes.
    Create,
    /// It is created, or emptied if it exists; a link or the like, or a file with another name too,
    /// loses its name to a new one: for temporary files. Reads and writes.
    Truncate,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without its directory. Names that are not UTF-8 come lossily converted: none of ours is.
    pub name: String,
    /// Length in bytes; 0 for what is not a regular file.
    pub len: u64,
    /// A regular file, not a directory, link, FIFO or device.
    pub is_file: bool,
    /// A directory itself, not a link to one.
    pub is_dir: bool,
}

/// Directories and names.
///
/// No call but [`VfsFile::read_at`] and [`VfsFile::write_at`] is cut short by a signal (`Interrupted`): it is tried again
/// where that happens.
///
/// What survives a power cut: bytes of a file after [`VfsFile::sync`]; names, renames and removals after
/// [`Vfs::sync_dir`] of their directory. Nothing else is promised.
pub trait Vfs: Debug + Send + Sync {
    /// Opens a regular file. Links are not followed, and what is no regular file is refused.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>>;
    /// The names in a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// The path from the root, links in it kept: it leads to the same place also when the process changes its current
    /// directory. The path as it is, which is the default, where nothing changes what paths mean.
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }
    /// Whether there is anything at that path, and whether that is a directory.
    fn kind(&self, path: &Path) -> io::Result<Option<PathKind>>;
    /// Creates one directory; its parent must exist.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names of a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives a regular file a second name. Both are the same file from then on; neither is a copy. `AlreadyExists`
    /// when that name is taken. `Unsupported`, which is the default, where there are no such names.
    fn hard_link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Removes an empty directory. `Unsupported` by default.
    fn remove_dir(&self, _dir: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Who is at a path, links followed: the same by whatever path it is reached, and nobody else's as long as it
    /// exists. `None` when there is nothing, or, which is the default, when it cannot be told.
    fn identity(&self, _path: &Path) -> io::Result<Option<FileIdentity>> {
        Ok(None)
    }
    /// Takes the exclusive lock on the file at `path`, creating it if need be and writing `owner` into it, and on the
    /// directory it is in, where directories can be locked: so that nobody gets in who removes the file.
    /// `WouldBlock` when somebody, also in this process, holds either. Dropping the guard, or the death of the
    /// process, releases it. The file stays.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>>;
    /// Takes a shared lock on the file at `path`, and on its directory, changing nothing: any number may hold it, but
    /// not together with [`Vfs::lock`] (`WouldBlock`). `None` when there is no such file. For who wants to know whether
    /// somebody has the lock: to be given back at once.
    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;
    /// What the file system of that directory has left for us. `None`, which is the default, where that is not known.
    fn free_space(&self, _dir: &Path) -> io::Result<Option<FreeSpace>> {
        Ok(None)
    }
    /// Whether the files are gone with the process, so that nothing is written for others to read. Default: no.
    fn is_volatile(&self) -> bool {
        false
    }
    /// Of a simulated file system: what has happened to names in a directory since its last sync stays to be seen, but
    /// no later sync makes it durable. Default: nothing.
    fn lose_unsynced_names(&self, _dir: &Path) {}
}

/// What a file system has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    /// Bytes that may still be written.
    pub bytes: u64,
    /// Of how many.
    pub of_bytes: u64,
    /// Files that may still be made; `None` where their number has no limit.
    pub inodes: Option<u64>,
}

/// Tells files and directories apart, whatever their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// The file system it is in.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// A regular file.
    File,
    /// A directory, or a link to one.
    Dir,
    /// Anything else: another link, a FIFO, a device.
    Other,
}

/// One open file.
#[expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait VfsFile: Debug + Send + Sync {
    /// Reads at an offset; fewer bytes than asked for, or none, at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at an offset, growing the file; may write fewer bytes than given. See [`write_all_at`].
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes the bytes and the length durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Cuts or grows (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space up to `len` bytes, growing the file with zeros. `Unsupported` where the file system
    /// cannot; `StorageFull` when there is no room.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Maps the first `len` bytes for reading, of which only what is touched is loaded. They must not change any more
    /// while the mapping lives, which holds for SSTs. `UnexpectedEof` when the file is shorter.
    fn map(&self, len: u64) -> io::Result<Mapping>;
    /// Of a simulated file system: what was written since the last sync stays readable, but no later sync makes it
    /// durable. Default: nothing.
    fn lose_unsynced(&self) {}
}

/// Bytes of a file, readable in place.
#[derive(Debug)]
pub enum Mapping {
    /// Mapped from a file.
    File(memmap2::Mmap),
    /// Held in memory.
    Memory(Arc<Vec<u8>>),
}

impl Mapping {
    /// Loads the pages of these bytes, so that touching them next cannot end the process: where the file has become
    /// shorter or its medium cannot be read, a touch would raise `SIGBUS`, and this is an error. Pages that are evicted
    /// later and cannot be read again are outside of it. Where the system has no such call this does nothing.
    pub(crate) fn load(&self, range: Range<usize>) -> io::Result<()> {
        match self {
            Self::File(map) => disk::populate(map, range),
            Self::Memory(_) => Ok(()),
        }
    }

    /// Has the system begin to load these bytes, and does not wait for it. Failures come when they are touched.
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
/// What is tried where such a piece cannot be read: a bad sector must not take the rest of it along.
pub(crate) const RETRY_UNIT: usize = 4096;

/// Writes all of `buf`, however often the file takes only a part of it.
pub fn write_all_at(file: &dyn VfsFile, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.write_at(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                let rest = buf.get(n..);
                buf = rest.ok_or_else(|| io::Error::other("more was written than was given"))?;
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

/// Reads until `buf` is full or the file ends; returns the bytes read.
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

/// The whole file, refusing one longer than `max` bytes before anything is allocated.
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
