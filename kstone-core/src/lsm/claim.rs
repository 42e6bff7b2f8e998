//! Arbitrates between callers that create and open the same path at the same time.
//!
//! 1. Only what is seen under the lock decides who creates a database and who finds one.
//! 2. Locking creates a file, which must not appear in a directory that belongs to someone else. So the directory is
//!    checked before it is locked, and this check may see a half-finished creation. An objection that may be due to
//!    this is reported only if nobody holds the lock and a second check finds the same.
//! 3. A check ends with the manifest, which is written last in everything that creates a database: as long as it does
//!    not exist, what was found before it still holds.
//! 4. A directory may vanish before it is locked, if the process that created it fails; then everything starts over. A
//!    directory belongs to the process that locked it, even if another one created it.

use std::io;
use std::path::{Path, PathBuf};

use super::lock::LockGuard;
use super::lock::{is_locked, lock, lock_error};
use crate::error::{Error, Result};
use crate::paths::{self, FileName};
use crate::vfs::{PathKind, Vfs};
use crate::wal;

/// How often a directory may vanish, or appear, while trying to lock it.
const ATTEMPTS: usize = 32;

/// The absolute path, which the handle keeps even if the current directory changes.
pub(crate) fn absolute(vfs: &dyn Vfs, path: &Path) -> Result<PathBuf> {
    vfs.absolute(path).map_err(Error::io("find", path))
}

/// The result of checking a path.
pub(super) enum Suitability {
    /// Nothing exists there.
    Nothing,
    /// It is suitable.
    Fit,
    /// It is unsuitable and will remain so.
    Unfit(Error),
    /// It is unsuitable, unless someone else is working there right now.
    Unsettled(Error),
}

/// A locked directory.
pub(super) struct Claim {
    pub(super) guard: LockGuard,
    /// Whether this call created it.
    pub(super) made: bool,
}

/// Locks the directory at a path once `look` finds it suitable; `look` is called again under the lock. If nothing
/// exists there, the directory is created first.
pub(super) fn claim(vfs: &dyn Vfs, path: &Path, look: impl Fn() -> Result<Suitability>) -> Result<Claim> {
    let (mut made, mut again) = (false, false);
    let mut vanished = None;
    for _ in 0..ATTEMPTS {
        match look()? {
            Suitability::Fit => {}
            Suitability::Nothing => match vfs.create_dir(path) {
                Ok(()) => made = true,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(Error::io("create", path)(e)),
            },
            Suitability::Unfit(error) => return Err(error),
            Suitability::Unsettled(error) if again => return Err(error),
            // If this cannot be determined, the second check decides.
            Suitability::Unsettled(_) if is_locked(vfs, path).unwrap_or(false) => {
                return Err(lock_error(vfs, path, io::ErrorKind::WouldBlock.into()));
            }
            Suitability::Unsettled(_) => {
                again = true;
                continue;
            }
        }
        match lock(vfs, path) {
            Ok(guard) => {
                let found = look().inspect_err(|_| {
                    // The lock is held, so only files of this call are removed; a directory with anything else in it
                    // stays.
                    if made {
                        // The first error is the one to report; at worst an empty directory stays.
                        let _ = vfs.remove(&path.join(paths::LOCK));
                        let _ = vfs.remove_dir(path);
                    }
                })?;
                return match found {
                    Suitability::Fit => Ok(Claim { guard, made }),
                    Suitability::Nothing => Err(Error::NotFound { path: path.into() }),
                    Suitability::Unfit(error) | Suitability::Unsettled(error) => Err(error),
                };
            }
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                (made, vanished) = (false, Some(source));
            }
            Err(error) => {
                // As above.
                if made && !matches!(error, Error::Locked { .. }) {
                    let _ = vfs.remove_dir(path);
                }
                return Err(error);
            }
        }
    }
    let keeps = || io::Error::other("other processes keep creating and removing it");
    Err(Error::io("lock", path)(vanished.unwrap_or_else(keeps)))
}

/// What exists at a path.
pub(super) enum PathContents {
    Nothing,
    NotADirectory,
    /// A database; the kind of file at the name of its manifest.
    Database(PathKind),
    /// A directory that is empty, or contains only the remains of an interrupted creation.
    Vacant,
    UnfinishedBackup,
    /// SSTs or log records, including this file, without a manifest.
    WithoutManifest(String),
    /// A file of this name, which does not belong to a database.
    Foreign(String),
}

impl PathContents {
    pub(super) fn at(vfs: &dyn Vfs, path: &Path) -> Result<Self> {
        let manifest = path.join(paths::MANIFEST);
        match kind_of(vfs, path)? {
            None => return Ok(Self::Nothing),
            Some(PathKind::Dir) => {}
            Some(_) => return Ok(Self::NotADirectory),
        }
        if let Some(kind) = kind_of(vfs, &manifest)? {
            return Ok(Self::Database(kind));
        }
        let found = Self::without_manifest(vfs, path)?;
        Ok(kind_of(vfs, &manifest)?.map_or(found, Self::Database))
    }

    fn without_manifest(vfs: &dyn Vfs, path: &Path) -> Result<Self> {
        let listing = match vfs.list(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::Nothing),
            listing => listing.map_err(Error::io("list", path))?,
        };
        if listing.iter().any(|entry| entry.name == paths::UNFINISHED) {
            return Ok(Self::UnfinishedBackup);
        }
        let mut foreign = None;
        for entry in listing {
            match paths::parse(&entry.name) {
                FileName::Foreign | FileName::Quarantine => _ = foreign.get_or_insert(entry.name),
                FileName::Sst { .. } | FileName::Repairing { .. } | FileName::LogBuffer => {
                    return Ok(Self::WithoutManifest(entry.name));
                }
                FileName::Log(named) => match wal::has_records(vfs, &path.join(&entry.name), named) {
                    Ok(true) => return Ok(Self::WithoutManifest(entry.name)),
                    Ok(false) => {}
                    // Removed meanwhile by another process that is creating a database here.
                    Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                },
                FileName::Lock | FileName::Manifest | FileName::ManifestTmp | FileName::Unfinished => {}
                FileName::Events | FileName::Stats => {}
            }
        }
        Ok(foreign.map_or(Self::Vacant, Self::Foreign))
    }

    /// The view of a caller that wants to create a database.
    pub(super) fn for_create(self, path: &Path) -> Suitability {
        let exists = |detail: String| Error::AlreadyExists { path: path.into(), detail };
        match self {
            Self::Nothing => Suitability::Nothing,
            Self::Vacant => Suitability::Fit,
            Self::NotADirectory => Suitability::Unfit(exists("it is not a directory".into())),
            Self::Database(_) => Suitability::Unfit(exists("it is a database".into())),
            Self::UnfinishedBackup => Suitability::Unsettled(exists("it is an unfinished backup".into())),
            Self::WithoutManifest(name) => Suitability::Unsettled(without_manifest(path, &name)),
            Self::Foreign(name) if name == paths::QUARANTINE => Suitability::Unsettled(exists(format!(
                "it holds {name}, the originals of a repaired database"
            ))),
            Self::Foreign(name) => Suitability::Unsettled(exists(format!("it holds {name}, a foreign file"))),
        }
    }

    /// The view of a caller that wants to open one.
    pub(super) fn for_open(self, path: &Path) -> Suitability {
        let not = |detail: &str| Error::NotADatabase { path: path.into(), detail: detail.into() };
        match self {
            Self::Nothing => Suitability::Unfit(Error::NotFound { path: path.into() }),
            Self::Database(PathKind::File) => Suitability::Fit,
            Self::Database(_) => Suitability::Unfit(not("its MANIFEST is not a regular file")),
            Self::NotADirectory => Suitability::Unfit(not("it is not a directory")),
            Self::UnfinishedBackup => Suitability::Unsettled(not("it is an unfinished backup")),
            Self::WithoutManifest(name) => Suitability::Unsettled(without_manifest(path, &name)),
            Self::Vacant | Self::Foreign(_) => Suitability::Unsettled(not("it has no MANIFEST")),
        }
    }
}

/// Rejects a path that is no database, for readers, which take no lock.
pub(super) fn check_present(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    match PathContents::at(vfs, path)?.for_open(path) {
        Suitability::Fit => return Ok(()),
        Suitability::Unsettled(_) => {}
        Suitability::Nothing => return Err(Error::NotFound { path: path.into() }),
        Suitability::Unfit(error) => return Err(error),
    }
    match PathContents::at(vfs, path)?.for_open(path) {
        Suitability::Fit => Ok(()),
        Suitability::Nothing => Err(Error::NotFound { path: path.into() }),
        Suitability::Unfit(error) | Suitability::Unsettled(error) => Err(error),
    }
}

fn kind_of(vfs: &dyn Vfs, path: &Path) -> Result<Option<PathKind>> {
    vfs.kind(path).map_err(Error::io("stat", path))
}

fn without_manifest(path: &Path, name: &str) -> Error {
    Error::corrupt(&path.join(paths::MANIFEST), 0, format!("it is missing, but the directory holds {name}"))
}
