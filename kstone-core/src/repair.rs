//! REPAIR: makes a database open again out of what is left of it, and says what is lost.
//!
//! A damaged block loses its own entries and no others; whatever else is in an SST is made anew from its blocks. A
//! damaged log keeps every batch that still passes. A manifest that is lost is made anew from what the files say of
//! themselves. Where the log still has what a damaged SST lost, it comes from there.
//!
//! 1. What is new is written beside what is there and synced; originals are copied into `quarantine/`; then one manifest
//!    is installed, which is the only step that counts; then names are put right and originals removed. Cut off before
//!    the manifest, nothing has changed; after it, running again finishes the names.
//! 2. Nothing is deleted that is not in `quarantine/`, and no copy there is overwritten.
//! 3. Only what passes its checksum comes back. A loss is told as far as it is known: by key where the index of the
//!    damaged file confirms the key, else by range and number.
//! 4. Memory is bounded by what is damaged: see [`repair`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::lsm::absolute;
use crate::paths;
use crate::types::{EntryKind, SeqNo};
use crate::verify::{self, Affected, ProgressFn, ValueCheck};
use crate::vfs::{DiskVfs, PathKind, Vfs};

mod commit;
mod examine;
mod gather;
mod losses;
mod plan;
mod salvage;

use commit::Leftover;

/// How to repair.
#[derive(Clone)]
#[non_exhaustive]
pub struct RepairOptions {
    /// Change nothing, and tell what would be done and lost. Default: no.
    pub dry_run: bool,
    /// Build a repaired copy in this directory, which must not exist, be empty, or hold a copy that was not finished, and
    /// leave the original as it is.
    pub into: Option<PathBuf>,
    /// Where the files are. Default: on disk.
    pub vfs: Arc<dyn Vfs>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Is told how far it is; breaking off ends the repair with an error, and nothing has changed.
    pub progress: Option<ProgressFn>,
    /// What is asked of each value; one that is refused is set aside, and its key told of. Default: nothing.
    pub values: Option<ValueCheck>,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self {
            dry_run: false,
            into: None,
            vfs: Arc::new(DiskVfs::new()),
            clock: Arc::new(SystemClock::new()),
            progress: None,
            values: None,
        }
    }
}

impl fmt::Debug for RepairOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dry_run, into, .. } = self;
        f.debug_struct("RepairOptions").field("dry_run", dry_run).field("into", into).finish_non_exhaustive()
    }
}

impl RepairOptions {
    fn is_in_place(&self) -> bool {
        !self.dry_run && self.into.is_none()
    }

    /// In place, on disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes nothing.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Builds a repaired copy there.
    #[must_use]
    pub fn into_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.into = Some(dir.into());
        self
    }

    /// On that file system.
    #[must_use]
    pub fn on(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = vfs;
        self
    }

    /// With that clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Tells it how far it is.
    #[must_use]
    pub fn progress(mut self, progress: ProgressFn) -> Self {
        self.progress = Some(progress);
        self
    }
}

/// What a key has after a repair that lost its newest version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Now {
    /// Nothing: no other version is left.
    Absent,
    /// An older value, by the write with this sequence. If what was lost is a delete, the item has come back.
    Older(SeqNo),
    /// It is deleted, by an older write with this sequence.
    Deleted(SeqNo),
}

/// Something that a repair cannot bring back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// The newest version of a key.
    Key {
        /// Which key.
        key: Key<'static>,
        /// The file that had it.
        file: PathBuf,
        /// What it has now.
        now: Now,
    },
    /// Versions of keys that are not known. Each key in the range may be missing, or have an older value.
    Range {
        /// The file that had them.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// Between which keys, and how many at most.
        affected: Affected,
        /// Tombstones among all that the file lost, here and elsewhere, at most: deleted items may have come back.
        tombstones: u64,
    },
    /// Operations that were in the log. Those that are in SSTs as well are not lost; which keys they were of is not known.
    Log {
        /// The segment.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// The last sequence before them that was read.
        after: SeqNo,
        /// The sequence that came next; `None` when that is not known.
        before: Option<SeqNo>,
        /// How many they may have been, at most; `None` when that is not known.
        operations: Option<u64>,
    },
}

/// One thing that a repair does, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Action {
    /// The file it is about.
    pub file: PathBuf,
    /// What is done with it.
    pub what: String,
}

/// What a repair did, or would do.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Nothing was changed or made, because that was asked for or because nothing is wrong.
    pub unchanged: bool,
    /// What is done, file by file; with [`RepairOptions::into`], for what is not copied as it is. Empty: nothing is wrong.
    pub actions: Vec<Action>,
    /// The manifest was made anew out of what the files say of themselves: a file that is missing without trace
    /// cannot be told.
    pub manifest_rebuilt: bool,
    /// What was left of the log is in SSTs.
    pub log_rewritten: bool,
    /// Entries of damaged SSTs that were saved.
    pub saved: u64,
    /// Entries that the damaged SSTs had, at most.
    pub had: u64,
    /// Operations that came out of the log.
    pub from_log: u64,
    /// Keys that are known to be lost: nothing is left of them.
    pub lost: u64,
    /// Keys that are known to have fallen back to an older version or an older delete.
    pub fell_back: u64,
    /// Versions of unknown keys that are lost, at most. With those of known keys, no more than `had` without `saved`, and
    /// what was in the log only.
    pub unnamed: u64,
    /// Tombstones that are lost, at most: deleted items may have come back.
    pub tombstones: u64,
    /// Stretches of the log that are lost.
    pub log_gaps: u64,
    /// Operations that may have been in them, at most; those of gaps of which that is not known are not counted.
    pub log_operations: u64,
    /// Where the originals are.
    pub quarantine: Option<PathBuf>,
}

impl RepairReport {
    /// Whether anything is lost.
    pub fn lost_data(&self) -> bool {
        self.lost + self.fell_back + self.unnamed + self.tombstones + self.log_gaps > 0
    }
}

/// Versions of keys, in the order of SSTs.
type Versions = BTreeMap<(Vec<u8>, Reverse<SeqNo>), (EntryKind, Vec<u8>)>;

/// Repairs the database in a directory. `on_loss` is told of each thing that is lost, as it is found.
///
/// Memory: the manifest, and one SST at a time while they are looked at. Then, a stripe at a time, the entries of its
/// damaged SSTs, decompressed, up to four times their bytes. Of a log that stays, the operations of stripes with damaged
/// SSTs; of one that is damaged, or rewritten for [`RepairOptions::into_dir`], all of them: once, and those of one stripe
/// up to three times more. The log never takes more than
/// [`DatabaseConfig::max_wal_size_bytes`](crate::DatabaseConfig::max_wal_size_bytes). Each entry and operation takes some
/// 150 bytes beside its own. A healthy database takes one SST and a window of the log.
///
/// # Errors
/// `NotFound`, `NotADatabase`; `Locked` while somebody has it open; `UnsupportedFormat` when anything in it is of a newer
/// version; `Corruption` when nothing can be made of it; `Io`. The database is then as it was, but for a `LOCK` that was
/// no file and is set aside; or, after its new manifest was installed, repaired but for names that the next repair puts
/// right.
pub fn repair(path: &Path, options: &RepairOptions, on_loss: &mut dyn FnMut(&Loss)) -> Result<RepairReport> {
    let path = &absolute(&*options.vfs, path)?;
    let into = options.into.as_ref().map(|into| absolute(&*options.vfs, into)).transpose()?;
    let options = &RepairOptions { into, ..options.clone() };
    let locked = Locked::take(path, options)?;
    let mut report = RepairReport { unchanged: true, ..RepairReport::default() };
    if options.into.is_none() {
        let leftovers = commit::interrupted(&options.vfs, path)?;
        report.actions.extend(leftovers.iter().map(Leftover::action));
        if options.is_in_place() {
            commit::has_quarantine(&*options.vfs, path)?; // else found out when much is written already
        }
        if options.is_in_place() && !leftovers.is_empty() {
            commit::finish(&options.vfs, path, &leftovers)?;
            report.unchanged = false;
        }
    }
    let patient = examine::examine(path, options)?;
    if locked.irregular && options.into.is_none() {
        let (file, what) = (path.join(paths::LOCK), "not a regular file: set aside".to_owned());
        report.actions.push(Action { file, what });
        report.quarantine = options.is_in_place().then(|| path.join(paths::QUARANTINE));
        report.unchanged = !options.is_in_place();
    }
    if patient.is_well() && options.into.is_none() {
        return Ok(report);
    }
    let plan = plan::plan(&patient);
    (report.manifest_rebuilt, report.log_rewritten) = (plan.rebuilt, !plan.keep_log);
    commit::carry_out(&patient, plan, options, &mut report, on_loss)?;
    Ok(report)
}

/// Keeps others out: all of them from a repair in place, writers from a look.
struct Locked {
    /// `LOCK` is, or was, no regular file. Nobody can hold it then, only the lock on the directory, which is tried first.
    irregular: bool,
    _guard: Option<Box<dyn Send + Sync>>,
}

impl Locked {
    fn take(path: &Path, options: &RepairOptions) -> Result<Self> {
        let (vfs, file) = (&options.vfs, path.join(paths::LOCK));
        match vfs.kind(path).map_err(Error::io("look at", path))? {
            Some(PathKind::Dir) => {}
            Some(_) => {
                return Err(Error::NotADatabase {
                    path: path.into(),
                    detail: "it is not a directory".into(),
                });
            }
            None => return Err(Error::NotFound { path: path.into() }),
        }
        let lock = || match options.is_in_place() {
            true => vfs.lock(&file, &format!("{}\n", std::process::id())).map(Some),
            false => vfs.lock_shared(&file),
        };
        let refused = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::WouldBlock => Error::Locked { path: path.into(), pid: None },
            _ => Error::io("lock", &file)(e),
        };
        let kind = vfs.kind(&file).map_err(Error::io("look at", &file))?;
        let irregular = kind.is_some_and(|kind| kind != PathKind::File);
        let guard = match lock() {
            Err(e) if irregular && e.kind() != std::io::ErrorKind::WouldBlock => {
                if !options.is_in_place() {
                    return Ok(Self { irregular, _guard: None });
                }
                verify::look::Directory::read(vfs, path)?; // of a directory that is none of ours, nothing is moved
                commit::set_aside(vfs, path, &file)?;
                lock()
            }
            locked => locked,
        };
        Ok(Self { irregular, _guard: guard.map_err(refused)? })
    }
}
