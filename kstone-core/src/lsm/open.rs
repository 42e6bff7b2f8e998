//! OPEN: claims the database directory, its lock and its settings. `recover.rs` or `create.rs` does the rest.

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
use crate::vfs::{DirEntry, MeteredVfs, Vfs};

impl LsmEngine {
    /// Opens a database, recovering it if it was not closed, and locks it until it is closed: meanwhile other
    /// processes, and other handles in this one, get `Locked`. The lock ends with the process; no file has to be
    /// removed. The lock covers the directory, whatever path leads to it, and the file `LOCK` in it. On file systems
    /// that cannot lock directories only the file counts.
    ///
    /// A process created by `fork` without `exec` shares the lock. If the parent dies, the database stays locked until
    /// that process has ended too; if the parent closes the handle, it is unlocked. The child cannot use the handle:
    /// calls fail with `Forked`, and dropping it is a no-op. A program started with `exec` does not inherit the lock.
    ///
    /// # Errors
    /// `NotFound`, `NotADatabase`, `Locked`, `UnsupportedFormat`, `Corruption`, `InvalidConfig`: nothing was changed.
    pub fn open(path: &Path, options: EngineOptions) -> Result<Self> {
        validate(&options)?;
        let path = &absolute(&*options.vfs, path)?;
        let (options, meter) = metered(path, options);
        let claim = claim(&*options.vfs, path, || Ok(PathContents::at(&*options.vfs, path)?.for_open(path)))?;
        Self::recover(path, options, claim.guard, &meter)
    }

    /// Opens the database, or creates it if there is none. If several callers do this at once, one of them gets the
    /// database and the others get `Locked`. Other errors as [`LsmEngine::open`] and [`LsmEngine::create`].
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

    /// Whether any handle, in this process or another, has the database open for writing.
    ///
    /// # Errors
    /// `Io` when the lock cannot be tested.
    pub fn is_locked(path: &Path, vfs: &dyn Vfs) -> Result<bool> {
        is_locked(vfs, path)
    }
}

/// Wraps the file system so that the database's directory is metered.
pub(super) fn metered(path: &Path, options: EngineOptions) -> (EngineOptions, MeteredVfs) {
    let vfs = MeteredVfs::new(Arc::clone(&options.vfs), path);
    (EngineOptions { vfs: Arc::new(vfs.clone()), ..options }, vfs)
}

pub(super) fn take_stock(vfs: &MeteredVfs, path: &Path) -> Result<Vec<DirEntry>> {
    vfs.take_stock().map_err(Error::io("list", path))
}

pub(super) fn validate(options: &EngineOptions) -> Result<()> {
    options.config.as_ref().map_or(Ok(()), DatabaseConfig::validate)?;
    options.compaction.as_ref().map_or(Ok(()), CompactionConfig::validate)
}

/// Settings in the options replace the stored ones entirely. Stored settings that this version rejects are left out:
/// `verify` reports them, and they are no reason to ignore the settings stored beside them.
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
