//! Detects whether a database's directory is still the locked one.
//!
//! Files are reached by their paths. If the directory is moved away and replaced by another one, the paths lead to the
//! new one, while the lock is on the moved one. If the lock file is removed, the next process to open the database
//! locks a new file; only a lock on the directory itself, where that is supported, still keeps it out.

use std::io;
use std::path::{Path, PathBuf};

use super::{FileIdentity, Vfs};

/// A directory and its lock file, as they were when the lock was taken.
#[derive(Debug)]
pub(crate) struct LockIdentity {
    dir: (PathBuf, FileIdentity),
    lock: (PathBuf, FileIdentity),
}

impl LockIdentity {
    /// The place of a lock file that was just locked. `None` if the file system cannot identify files.
    pub(crate) fn of(vfs: &dyn Vfs, lock: &Path) -> Option<Self> {
        let dir = lock.parent()?;
        // Without an identity there is nothing to compare later, and the lock is the only protection.
        let known = |path: &Path| Some((path.to_path_buf(), vfs.identity(path).ok()??));
        Some(Self { dir: known(dir)?, lock: known(lock)? })
    }

    /// Fails if the path no longer leads to the locked directory.
    pub(crate) fn check_directory(&self, vfs: &dyn Vfs) -> io::Result<()> {
        check(vfs, &self.dir, "the directory was moved, removed or replaced while the database was open")
    }

    /// The same, and fails also if the lock file is missing or was replaced.
    pub(crate) fn check(&self, vfs: &dyn Vfs) -> io::Result<()> {
        self.check_directory(vfs)?;
        let why = "the lock file was removed or replaced while the database was open, and may exclude no one";
        check(vfs, &self.lock, why)
    }
}

fn check(vfs: &dyn Vfs, (path, known): &(PathBuf, FileIdentity), why: &str) -> io::Result<()> {
    // If the path cannot be examined, nothing is known.
    match vfs.identity(path) {
        Ok(found) if found != Some(*known) => Err(io::Error::other(why)),
        _ => Ok(()),
    }
}
