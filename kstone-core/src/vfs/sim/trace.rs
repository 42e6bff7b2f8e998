//! Descriptions of file system operations, and a record of them.
//!
//! [`super::FaultVfs`] describes each operation as a [`Call`] before executing it, for the rules that may make it fail
//! and for hooks, and on request keeps a [`Record`] of it afterwards.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A kind of file system operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Op {
    /// [`crate::vfs::OpenMode::Read`].
    OpenRead,
    /// [`crate::vfs::OpenMode::Write`].
    OpenWrite,
    /// [`crate::vfs::OpenMode::Create`].
    Create,
    /// [`crate::vfs::OpenMode::Truncate`].
    Truncate,
    /// [`crate::vfs::VfsFile::read_at`].
    Read,
    /// [`crate::vfs::VfsFile::write_at`].
    Write,
    /// [`crate::vfs::VfsFile::sync`].
    Sync,
    /// [`crate::vfs::VfsFile::set_len`].
    SetLen,
    /// [`crate::vfs::VfsFile::allocate`].
    Allocate,
    /// [`crate::vfs::VfsFile::len`].
    Len,
    /// [`crate::vfs::VfsFile::map`].
    Map,
    /// [`crate::vfs::Vfs::list`].
    List,
    /// [`crate::vfs::Vfs::kind`].
    Kind,
    /// [`crate::vfs::Vfs::create_dir`].
    CreateDir,
    /// [`crate::vfs::Vfs::rename`].
    Rename,
    /// [`crate::vfs::Vfs::remove`].
    Remove,
    /// [`crate::vfs::Vfs::sync_dir`].
    SyncDir,
    /// [`crate::vfs::Vfs::hard_link`].
    HardLink,
    /// [`crate::vfs::Vfs::remove_dir`].
    RemoveDir,
    /// [`crate::vfs::Vfs::identity`].
    Identity,
    /// [`crate::vfs::Vfs::lock`].
    Lock,
    /// [`crate::vfs::Vfs::lock_shared`].
    LockShared,
}

impl Op {
    /// All kinds, in the order of their discriminants.
    pub const ALL: [Self; 22] = [
        Self::OpenRead,
        Self::OpenWrite,
        Self::Create,
        Self::Truncate,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::SetLen,
        Self::Allocate,
        Self::Len,
        Self::Map,
        Self::List,
        Self::Kind,
        Self::CreateDir,
        Self::Rename,
        Self::Remove,
        Self::SyncDir,
        Self::HardLink,
        Self::RemoveDir,
        Self::Identity,
        Self::Lock,
        Self::LockShared,
    ];

    /// Whether the operation may change contents or lengths of files, names, or what of these is durable.
    pub const fn changes(self) -> bool {
        !matches!(
            self,
            Self::OpenRead
                | Self::OpenWrite
                | Self::Read
                | Self::Len
                | Self::Map
                | Self::List
                | Self::Kind
                | Self::Identity
                | Self::LockShared
        )
    }

    /// Whether a full file system may refuse the operation although no file grows, because it creates a name.
    pub(super) const fn takes_space(self) -> bool {
        matches!(self, Self::Create | Self::Truncate | Self::CreateDir | Self::HardLink)
    }
}

/// An operation that is about to be executed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Call<'a> {
    /// The kind of operation.
    pub op: Op,
    /// The file or directory; for a rename or link, the old name.
    pub path: &'a Path,
    /// The new name, for a rename or link.
    pub to: Option<&'a Path>,
    /// The start of a read or write; the requested length for `set_len`, `allocate` and `map`.
    pub offset: u64,
    /// The number of bytes to read or write.
    pub len: u64,
    /// The bytes of a write.
    pub bytes: &'a [u8],
}

impl<'a> Call<'a> {
    pub(super) fn new(op: Op, path: &'a Path) -> Self {
        Self { op, path, to: None, offset: 0, len: 0, bytes: &[] }
    }

    /// Returns the last component of the path.
    pub fn name(&self) -> std::borrow::Cow<'a, str> {
        name(self.path)
    }
}

pub(super) fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default()
}

/// An operation that was attempted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Its number among all operations of the file system, from 1.
    pub number: u64,
    /// The kind of operation.
    pub op: Op,
    /// The file or directory; for a rename or link, the old name.
    pub path: PathBuf,
    /// The new name, for a rename or link.
    pub to: Option<PathBuf>,
    /// See [`Call::offset`].
    pub offset: u64,
    /// See [`Call::len`].
    pub len: u64,
    /// The error, if it failed.
    pub error: Option<String>,
}

impl Record {
    pub(super) fn of(number: u64, call: &Call<'_>, error: Option<&io::Error>) -> Self {
        Self {
            number,
            op: call.op,
            path: call.path.to_path_buf(),
            to: call.to.map(Path::to_path_buf),
            offset: call.offset,
            len: call.len,
            error: error.map(ToString::to_string),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>5} {:?} {}", self.number, self.op, self.path.display())?;
        if let Some(to) = &self.to {
            write!(f, " -> {}", to.display())?;
        }
        match self.op {
            Op::Read | Op::Write => write!(f, " at {}, {} bytes", self.offset, self.len)?,
            Op::SetLen | Op::Allocate | Op::Map => write!(f, " to {}", self.offset)?,
            _ => {}
        }
        self.error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}
