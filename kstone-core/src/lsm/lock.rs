//! The lock of a database directory: acquired when the database is opened, held until it is closed.

use std::path::Path;

use crate::error::{Error, Result};
use crate::paths;
use crate::planted::{Bug, planted};
use crate::vfs::Vfs;

/// Keeps the directory locked.
pub(crate) struct LockGuard(#[expect(dead_code, reason = "dropping it is its use")] Box<dyn Send + Sync>);

impl std::fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LockGuard")
    }
}

/// Locks a directory.
pub(super) fn lock(vfs: &dyn Vfs, path: &Path) -> Result<LockGuard> {
    let file = path.join(paths::LOCK);
    let owner = format!("{}\n", std::process::id());
    if planted(Bug::LockNotHeld) {
        return Ok(LockGuard(Box::new(())));
    }
    vfs.lock(&file, &owner).map(LockGuard).map_err(|e| lock_error(vfs, path, e))
}

/// Whether any handle, in this process or another, has the directory locked.
pub(super) fn is_locked(vfs: &dyn Vfs, path: &Path) -> Result<bool> {
    let file = path.join(paths::LOCK);
    match vfs.lock_shared(&file) {
        Ok(_) => Ok(false),
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(Error::io("test the lock", &file)(e)),
    }
}

/// The error for a lock that could not be acquired, with the process that holds it.
pub(super) fn lock_error(vfs: &dyn Vfs, path: &Path, error: std::io::Error) -> Error {
    let file = path.join(paths::LOCK);
    if error.kind() != std::io::ErrorKind::WouldBlock {
        return Error::io("lock", &file)(error);
    }
    let owner = vfs.open(&file, crate::vfs::OpenMode::Read).and_then(|f| crate::vfs::read_all(&*f, 64)).ok();
    let pid = owner.and_then(|owner| String::from_utf8(owner).ok()?.trim().parse().ok());
    Error::Locked { path: path.into(), pid }
}
