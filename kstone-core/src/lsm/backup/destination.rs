//! The destination directory of a backup: claimed, filled, and finished or cleaned up.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::claim::{Claim, Suitability, claim};
use super::super::lock::LockGuard;
use crate::error::{Error, Result};
use crate::paths::{self, FileName};
use crate::vfs::{OpenMode, PathKind, Vfs, VfsFile, write_all_at};

/// The maximum number of directories in a path.
const MOST_DIRECTORIES: usize = 4096;

/// A directory that a backup is being written to. No other backup can be written there.
pub(crate) struct Destination {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) dir: PathBuf,
    /// Whether this backup created it.
    created: bool,
    _lock: LockGuard,
}

/// Error of an operation on the destination. `DiskFull` is about the database, where deletes may help; here they would
/// not.
pub(super) fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { op, path, source }
}

/// Rejects a destination inside the database's own directory or below it, whatever path leads there.
pub(crate) fn check_outside(vfs: &dyn Vfs, database: &Path, destination: &Path) -> Result<()> {
    let inside = || {
        let why = format!("{} lies in the database {}", destination.display(), database.display());
        Err(Error::config("destination", why))
    };
    if destination.starts_with(database) {
        return inside();
    }
    let known = |path: &Path| vfs.identity(path).map_err(failed("stat", path));
    // The file system has no identities, or the source is gone: there is nothing to compare.
    let Some(database) = known(database)? else { return Ok(()) };
    // Upwards from the first directory that exists, by the directories themselves rather than by the path.
    let Some(mut at) = destination.ancestors().find(|path| matches!(vfs.identity(path), Ok(Some(_)))) else {
        return Ok(());
    };
    let mut up = if at.as_os_str().is_empty() { PathBuf::from(".") } else { at.to_path_buf() };
    for _ in 0..MOST_DIRECTORIES {
        at = &up;
        let Some(here) = known(at)? else { return Ok(()) };
        if here == database {
            return inside();
        }
        let parent = at.join("..");
        if known(&parent)? == Some(here) {
            return Ok(());
        }
        up = parent;
    }
    Ok(())
}

impl Destination {
    /// Prepares the directory, which must not exist, be empty, or contain an unfinished backup.
    pub(crate) fn claim(vfs: Arc<dyn Vfs>, database: &Path, dir: &Path) -> Result<Self> {
        let claimed = claim(&*vfs, dir, || look(&*vfs, dir)).map_err(|e| match e {
            Error::DiskFull => failed("create", dir)(io::ErrorKind::StorageFull.into()),
            other => other,
        });
        let Claim { guard, made } = claimed?;
        let claimed = Self { vfs, dir: dir.to_path_buf(), created: made, _lock: guard };
        match claimed.mark(database) {
            Ok(()) => Ok(claimed),
            Err(error) => {
                claimed.clean_up();
                Err(error)
            }
        }
    }

    /// Marks the directory durably as not being a database yet.
    fn mark(&self, database: &Path) -> Result<()> {
        let rest = ours(&*self.vfs, &self.dir)?;
        if !rest.is_empty() {
            self.sync_names()?; // a removed manifest must not reappear: it lists the files removed next
        }
        for name in rest {
            let path = self.dir.join(name);
            self.vfs.remove(&path).map_err(failed("remove", &path))?;
        }
        let mark = self.dir.join(paths::UNFINISHED);
        let text = format!("An unfinished backup of {}. It may be removed.\n", database.display());
        let write = || -> io::Result<()> {
            let file: Arc<dyn VfsFile> = self.vfs.open(&mark, OpenMode::Truncate)?;
            write_all_at(&*file, text.as_bytes(), 0)?;
            file.sync()
        };
        write().map_err(failed("write", &mark))?;
        self.sync_names()?;
        // Syncs the directory's own name, without which the copy would be lost. A root has no parent, and its name
        // needs no sync.
        let parent = self.dir.parent().unwrap_or(Path::new(""));
        self.vfs.sync_dir(parent).map_err(failed("sync the directory that holds", &self.dir))
    }

    pub(super) fn create(&self, path: &Path) -> Result<Arc<dyn VfsFile>> {
        self.vfs.open(path, OpenMode::Create).map_err(failed("create", path))
    }

    pub(super) fn sync_names(&self) -> Result<()> {
        self.vfs.sync_dir(&self.dir).map_err(failed("sync", &self.dir))
    }

    /// Removes the mark: the copy is a database now. If that fails, it does not matter: beside a manifest the mark
    /// means nothing.
    pub(crate) fn finish(self) {
        if self.vfs.remove(&self.dir.join(paths::UNFINISHED)).is_ok() {
            // As with the removal: beside a manifest the mark means nothing.
            let _ = self.sync_names();
        }
    }

    /// Removes what was created, as far as possible. The manifest goes first, durably: as long as there may be one, the
    /// directory is a database and must have its files. The mark goes last, but for the lock, so that remains can be
    /// recognized.
    pub(crate) fn clean_up(self) {
        let gone = match self.vfs.remove(&self.dir.join(paths::MANIFEST)) {
            Ok(()) => self.sync_names().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if !gone {
            return;
        }
        let remove = |name: &str| self.vfs.remove(&self.dir.join(name)).is_ok();
        let rest = ours(&*self.vfs, &self.dir);
        let left = rest.is_err() || rest.into_iter().flatten().filter(|name| !remove(name)).count() > 0;
        if left || self.vfs.sync_dir(&self.dir).is_err() {
            return;
        }
        remove(paths::UNFINISHED);
        remove(paths::LOCK);
        if self.created {
            // At worst an empty directory stays.
            let _ = self.vfs.remove_dir(&self.dir);
        }
    }
}

/// Whether a backup can be written to this directory: it does not exist, or contains at most an unfinished backup.
fn look(vfs: &dyn Vfs, dir: &Path) -> Result<Suitability> {
    let exists = |detail: String| Error::AlreadyExists { path: dir.into(), detail };
    match vfs.kind(dir).map_err(failed("stat", dir))? {
        None => return Ok(Suitability::Nothing),
        Some(PathKind::Dir) => {}
        Some(_) => return Ok(Suitability::Unfit(exists("it is not a directory".into()))),
    }
    let listing = match vfs.list(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Suitability::Nothing),
        listing => listing.map_err(failed("list", dir))?,
    };
    let has = |name: &str| listing.iter().any(|entry| entry.name == name);
    if has(paths::MANIFEST) {
        return Ok(Suitability::Unfit(exists("it is a database".into())));
    }
    for entry in &listing {
        match paths::parse(&entry.name) {
            FileName::Lock | FileName::Unfinished => {}
            FileName::Sst { .. } | FileName::Log(_) | FileName::ManifestTmp
                if has(paths::UNFINISHED) && entry.is_file => {}
            _ => return Ok(Suitability::Unsettled(exists(format!("it holds {}", entry.name)))),
        }
    }
    Ok(Suitability::Fit)
}

/// The files of a database in a directory known to contain only an unfinished backup.
fn ours(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<String>> {
    let listing = vfs.list(dir).map_err(failed("list", dir))?;
    let part = |name: &str| {
        matches!(paths::parse(name), FileName::Sst { .. } | FileName::Log(_) | FileName::ManifestTmp)
    };
    Ok(listing.into_iter().map(|entry| entry.name).filter(|name| part(name)).collect())
}
