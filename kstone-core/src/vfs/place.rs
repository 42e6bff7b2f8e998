//! Whether a database's directory is still the locked one.
//!
//! Files are reached by their paths. When somebody moves the directory away and puts another one in its place, the
//! paths lead there, and the lock is on the moved one. When somebody removes the lock file, the next opener
//! locks a new one; only a lock on the directory itself, where there is such a thing, still keeps him out.

use std::io;
use std::path::{Path, PathBuf};

use super::{FileIdentity, Vfs};

/// A directory and the lock file in it, as they were when the lock was taken.
#[derive(Debug)]
pub(crate) struct Place {
    dir: (PathBuf, FileIdentity),
    lock: (PathBuf, FileIdentity),
}

impl Place {
    /// The place of a lock file that was just locked. `None` where the file system cannot tell.
    pub(crate) fn of(vfs: &dyn Vfs, lock: &Path) -> Option<Self> {
        let dir = lock.parent()?;
        // Without an identity there is nothing to compare later, and the lock alone protects.
        let known = |path: &Path| Some((path.to_path_buf(), vfs.identity(path).ok()??));
        Some(Self { dir: known(dir)?, lock: known(lock)? })
    }

    /// An error when another directory, or nothing, is where the locked one was.
    pub(crate) fn check_directory(&self, vfs: &dyn Vfs) -> io::Result<()> {
        check(vfs, &self.dir, "the directory was moved, removed or replaced while the database was open")
    }

    /// The same, and when the lock file is not there any more, or not the same.
    pub(crate) fn check(&self, vfs: &dyn Vfs) -> io::Result<()> {
        self.check_directory(vfs)?;
        let why =
            "the lock file was removed or replaced while the database was open, and may keep nobody out";
        check(vfs, &self.lock, why)
    }
}

fn check(vfs: &dyn Vfs, (path, known): &(PathBuf, FileIdentity), why: &str) -> io::Result<()> {
    // That it cannot be looked at says nothing.
    match vfs.identity(path) {
        Ok(found) if found != Some(*known) => Err(io::Error::other(why)),
        _ => Ok(()),
    }
}
