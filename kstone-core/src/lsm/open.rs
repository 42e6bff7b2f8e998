//! OPEN: which database, its lock, its settings. What follows is in `recover.rs` or `create.rs`.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use super::LsmEngine;
use super::claim::{PathContents, absolute, claim};
use super::lock::is_locked;
use super::options::EngineOptions;
use super::settings::{Settings, stored_replay_rate};
use crate::config::{CompactionConfig, DatabaseConfig};
use crate::error::{Error, Result};
use crate::manifest::ManifestState;
use crate::vfs::{MeteredVfs, Vfs};

impl LsmEngine {
    /// Opens a database, recovering it if it was not closed, and locks it until it is closed: other processes, and
    /// other handles in this one, get `Locked` meanwhile. The death of the process ends the lock; no file of it has to
    /// be removed. The lock is of the directory, by whatever path, and of the file `LOCK` in it, which alone counts on
    /// file systems that cannot lock directories.
    ///
    /// A process made by `fork` without `exec` shares the lock. Until such a process has ended too, the database stays
    /// locked after this one has died, though not after it has closed the handle. It cannot use the handle: calls fail
    /// with `Forked`, and dropping it does nothing. A program that is started (`exec`) does not inherit the lock.
    ///
    /// # Errors
    /// `NotFound`, `NotADatabase`, `Locked`, `UnsupportedFormat`, `Corruption`, `InvalidConfig`: nothing was
    /// changed.
    pub fn open(path: &Path, options: EngineOptions) -> Result<Self> {
        validate(&options)?;
        let path = &absolute(&*options.vfs, path)?;
        let (options, meter) = metered(path, options);
        let claim = claim(&*options.vfs, path, || Ok(PathContents::at(&*options.vfs, path)?.for_open(path)))?;
        Self::recover(path, options, claim.guard, &meter)
    }

    /// Opens the database, or creates it if there is none: also while others do the same, of whom one gets it and the
    /// others `Locked`. Errors otherwise as [`LsmEngine::open`] and [`LsmEngine::create`].
    pub fn open_or_create(path: &Path, options: EngineOptions) -> Result<Self> {
        validate(&options)?;
        let since = options.clock.monotonic();
        let path = &absolute(&*options.vfs, path)?;
        let (options, meter) = metered(path, options);
        let vfs = Arc::clone(&options.vfs);
        let is_database = Cell::new(false);
        let claim = claim(&*vfs, path, || {
            let found = PathContents::at(&*vfs, path)?;
            is_database.set(matches!(found, PathContents::Database(_)));
            Ok(if is_database.get() { found.for_open(path) } else { found.for_create(path) })
        })?;
        match is_database.get() {
            true => Self::recover(path, options, claim.guard, &meter),
            false => Self::create_in(path, options, claim, &meter, since),
        }
    }

    /// Whether some handle, of this process or another, has the database open for writing.
    ///
    /// # Errors
    /// `Io` when the lock cannot be looked at.
    pub fn is_locked(path: &Path, vfs: &dyn Vfs) -> Result<bool> {
        is_locked(vfs, path)
    }
}

/// The file system, with the database's directory counted.
pub(super) fn metered(path: &Path, options: EngineOptions) -> (EngineOptions, MeteredVfs) {
    let vfs = MeteredVfs::new(Arc::clone(&options.vfs), path);
    (EngineOptions { vfs: Arc::new(vfs.clone()), ..options }, vfs)
}

pub(super) fn take_stock(vfs: &MeteredVfs, path: &Path) -> Result<()> {
    vfs.take_stock().map_err(Error::io("list", path))
}

pub(super) fn validate(options: &EngineOptions) -> Result<()> {
    options.config.as_ref().map_or(Ok(()), DatabaseConfig::validate)?;
    options.compaction.as_ref().map_or(Ok(()), CompactionConfig::validate)
}

/// Settings given replace the stored ones whole. Of stored ones those that this version refuses are left out: `verify`
/// names them, and they are no reason not to read what is stored beside them.
pub(super) fn settings(options: &EngineOptions, state: &ManifestState) -> Settings {
    let database = options.config.clone();
    let database = database.unwrap_or_else(|| DatabaseConfig::stored(&state.settings).0);
    let compaction = options.compaction.clone();
    let compaction = compaction.unwrap_or_else(|| CompactionConfig::stored(&state.settings).0);
    let database = DatabaseConfig { stripes: Some(state.facts.stripes()), ..database };
    Settings::new(database, compaction, stored_replay_rate(&state.settings))
}

pub(super) fn check_stripes(options: &EngineOptions, state: &ManifestState) -> Result<()> {
    let stored = state.facts.stripes();
    match options.config.as_ref().and_then(|config| config.stripes) {
        Some(asked) if asked != stored => Err(Error::config(
            "stripes",
            format!("the database was created with {stored}, which cannot change, not {asked}"),
        )),
        _ => Ok(()),
    }
}
