//! The directory that a backup is made in: claimed, filled, and finished or cleaned up.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::LockGuard;
use super::super::recover::lock;
use crate::error::{Error, Result};
use crate::paths::{self, FileName};
use crate::vfs::{OpenMode, PathKind, Vfs, VfsFile, write_all_at};

/// A path has at most so many directories.
const MOST_DIRECTORIES: usize = 4096;

/// A directory in which a backup is being made. Nobody else makes one there.
pub(super) struct Destination {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) dir: PathBuf,
    /// It was not there before.
    created: bool,
    /// What was or may have been made in it, the mark and the lock file aside.
    files: Vec<PathBuf>,
    _lock: LockGuard,
}

/// The error of an operation on the destination. `DiskFull` is of the database, and can be healed by deletes; this is
/// neither.
pub(super) fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { op, path, source }
}

/// Refuses a destination in the database's own directory, or below it, by whatever path.
pub(super) fn check_outside(vfs: &dyn Vfs, database: &Path, destination: &Path) -> Result<()> {
    let inside = || {
        let why = format!("{} lies in the database {}", destination.display(), database.display());
        Err(Error::config("destination", why))
    };
    if destination.starts_with(database) {
        return inside();
    }
    let known = |path: &Path| vfs.identity(path).map_err(failed("look at", path));
    let Some(database) = known(database)? else { return Ok(()) };
    // Up from the first directory that exists, along the directories themselves rather than along the path.
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
    /// Makes the directory ready: it does not exist, is empty, or holds a backup that was not finished.
    pub(super) fn claim(vfs: Arc<dyn Vfs>, database: &Path, dir: &Path) -> Result<Self> {
        let exists = |detail: &str| Error::AlreadyExists { path: dir.into(), detail: detail.into() };
        let created = match vfs.kind(dir).map_err(failed("look at", dir))? {
            Some(PathKind::Dir) => {
                check_free(&*vfs, dir)?;
                false
            }
            Some(_) => return Err(exists("it is not a directory")),
            None => {
                vfs.create_dir(dir).map_err(failed("create", dir))?;
                true
            }
        };
        let locked = lock(&*vfs, dir).map_err(|e| match e {
            Error::DiskFull => failed("lock", &dir.join(paths::LOCK))(io::ErrorKind::StorageFull.into()),
            other => other,
        });
        let guard = locked.inspect_err(|_| {
            if created {
                let _ = vfs.remove_dir(dir);
            }
        })?;
        let mut claimed = Self { vfs, dir: dir.to_path_buf(), created, files: Vec::new(), _lock: guard };
        match claimed.mark(database) {
            Ok(()) => Ok(claimed),
            Err(error) => {
                claimed.clean_up();
                Err(error)
            }
        }
    }

    /// Says, durably, that what comes here is no database yet.
    fn mark(&mut self, database: &Path) -> Result<()> {
        // Nobody else can have come in between from here on.
        let rest = check_free(&*self.vfs, &self.dir)?;
        if !rest.is_empty() {
            self.sync_names()?; // a manifest that was removed must stay so, for it lists what is removed now
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
        // The directory's own name, which the copy would be lost without.
        let parent = self.dir.parent().unwrap_or(Path::new(""));
        self.vfs.sync_dir(parent).map_err(failed("sync the directory that holds", &self.dir))
    }

    pub(super) fn create(&mut self, path: &Path) -> Result<Arc<dyn VfsFile>> {
        self.makes(path);
        self.vfs.open(path, OpenMode::Create).map_err(failed("create", path))
    }

    /// Something is about to be made there; it may be there even if that fails.
    pub(super) fn makes(&mut self, path: &Path) {
        self.files.push(path.to_path_buf());
    }

    pub(super) fn sync_names(&self) -> Result<()> {
        self.vfs.sync_dir(&self.dir).map_err(failed("sync", &self.dir))
    }

    /// It is a database: the mark goes. Should that fail, it means nothing beside a manifest.
    pub(super) fn finish(self) {
        if self.vfs.remove(&self.dir.join(paths::UNFINISHED)).is_ok() {
            let _ = self.sync_names();
        }
    }

    /// Removes what was made, as far as that can be; the mark last but for the lock, so that a rest is known for what
    /// it is. The manifest first, durably: as long as there may be one it is a database, and must have its files.
    pub(super) fn clean_up(self) {
        let _ = self.vfs.remove(&self.dir.join(paths::MANIFEST_TMP));
        let gone = match self.vfs.remove(&self.dir.join(paths::MANIFEST)) {
            Ok(()) => self.sync_names().is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if !gone {
            return;
        }
        for path in &self.files {
            let _ = self.vfs.remove(path);
        }
        let _ = self.sync_names();
        for name in [paths::UNFINISHED, paths::LOCK] {
            let _ = self.vfs.remove(&self.dir.join(name));
        }
        if self.created {
            let _ = self.vfs.remove_dir(&self.dir);
        }
    }
}

/// The rest of an unfinished backup, to be removed, in a directory that holds nothing else.
fn check_free(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<String>> {
    let exists = |detail: String| Err(Error::AlreadyExists { path: dir.into(), detail });
    let listing = vfs.list(dir).map_err(failed("list", dir))?;
    let has = |name: &str| listing.iter().any(|entry| entry.name == name);
    if has(paths::MANIFEST) {
        return exists("it is a database".into());
    }
    let mut rest = Vec::new();
    for entry in &listing {
        match paths::parse(&entry.name) {
            FileName::Lock | FileName::Unfinished => {}
            FileName::Sst { .. } | FileName::Log(_) | FileName::ManifestTmp
                if has(paths::UNFINISHED) && entry.is_file =>
            {
                rest.push(entry.name.clone());
            }
            _ => return exists(format!("it holds {}", entry.name)),
        }
    }
    Ok(rest)
}
