//! REPAIR: restores a damaged database to one that opens, and reports what is lost.
//!
//! A damaged block loses its own entries and no others; the rest of an SST is rebuilt from its other blocks. A damaged
//! log keeps every batch that still passes its checksum. A lost manifest is rebuilt from the files themselves. Entries
//! lost from an SST that the log still has are taken from the log.
//!
//! 1. New files are written beside the old ones and synced; originals are copied into `quarantine/`; then one manifest
//!    is installed, which is the commit point; then files are renamed and originals removed. A repair interrupted
//!    before the manifest has changed nothing; after it, running a repair again finishes the renames.
//! 2. Only files with a copy in `quarantine/` are deleted, and no copy there is overwritten.
//! 3. Only bytes that pass their checksum are restored. A loss is reported as precisely as possible: by key if the
//!    index of the damaged file confirms the key, otherwise by range and number.
//! 4. Memory is bounded by the amount of damage: see [`repair`].

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
    /// Changes nothing, and reports what would be done and lost. Default: no.
    pub dry_run: bool,
    /// Builds a repaired copy in this directory, which must not exist, be empty, or hold an unfinished copy, and leaves
    /// the original unchanged.
    pub into: Option<PathBuf>,
    /// The file system that holds the files. Default: the disk.
    pub vfs: Arc<dyn Vfs>,
    /// The source of the time.
    pub clock: Arc<dyn Clock>,
    /// Receives the progress; returning `Break` ends the repair with an error, and nothing has changed.
    pub progress: Option<ProgressFn>,
    /// A check of each value; a rejected value is set aside, and its key reported. Default: none.
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

    /// Repairs in place, on disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes nothing.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    /// Builds a repaired copy in that directory.
    #[must_use]
    pub fn into_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.into = Some(dir.into());
        self
    }

    /// Works on the given file system.
    #[must_use]
    pub fn on(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = vfs;
        self
    }

    /// Uses the given clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the function to call with the progress.
    #[must_use]
    pub fn progress(mut self, progress: ProgressFn) -> Self {
        self.progress = Some(progress);
        self
    }
}

/// The state of a key after a repair that lost its newest version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Now {
    /// No other version is left.
    Absent,
    /// An older value, from the write with this sequence. If the lost version was a delete, the item has come back.
    Older(SeqNo),
    /// Deleted, by an older write with this sequence.
    Deleted(SeqNo),
}

/// Something that a repair cannot restore.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// The newest version of a key.
    Key {
        /// The key.
        key: Key<'static>,
        /// The file that contained it.
        file: PathBuf,
        /// The state of the key now.
        now: Now,
    },
    /// Versions of unknown keys. Each key in the range may be missing, or have an older value.
    Range {
        /// The file that contained them.
        file: PathBuf,
        /// The offset in the file, in bytes.
        offset: u64,
        /// The range of keys, and the maximum number of affected versions.
        affected: Affected,
        /// Maximum number of tombstones that the file lost, here and elsewhere: deleted items may have come back.
        tombstones: u64,
    },
    /// Operations of the log, with unknown keys. Operations that are also in SSTs are not lost.
    Log {
        /// The segment.
        file: PathBuf,
        /// The offset in the segment, in bytes.
        offset: u64,
        /// The last sequence read before them.
        after: SeqNo,
        /// The next sequence after them; `None` if unknown.
        before: Option<SeqNo>,
        /// Maximum number of these operations; `None` if unknown.
        operations: Option<u64>,
    },
}

/// A step that a repair takes, or would take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Action {
    /// The file.
    pub file: PathBuf,
    /// What is done to it.
    pub what: String,
}

/// The result of a repair, or of a dry run.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Nothing was changed or created, because of [`RepairOptions::dry_run`] or because nothing is wrong.
    pub unchanged: bool,
    /// The steps, file by file; with [`RepairOptions::into`], only for files that are not copied unchanged. Empty if
    /// nothing is wrong.
    pub actions: Vec<Action>,
    /// The manifest was rebuilt from the files themselves: a file that is missing without a trace goes unnoticed.
    pub manifest_rebuilt: bool,
    /// The readable rest of the log was moved to SSTs.
    pub log_rewritten: bool,
    /// Number of entries saved from damaged SSTs.
    pub saved: u64,
    /// Maximum number of entries that the damaged SSTs had.
    pub had: u64,
    /// Number of operations taken from the log.
    pub from_log: u64,
    /// Number of keys known to be lost, with no version left.
    pub lost: u64,
    /// Number of keys known to have fallen back to an older version or an older delete.
    pub fell_back: u64,
    /// Maximum number of lost versions of unknown keys. Together with those of known keys, at most `had` minus `saved`,
    /// plus operations that were only in the log.
    pub unnamed: u64,
    /// Maximum number of lost tombstones: deleted items may have come back.
    pub tombstones: u64,
    /// Number of lost ranges of the log.
    pub log_gaps: u64,
    /// Maximum number of operations in these ranges; ranges of unknown length are not counted.
    pub log_operations: u64,
    /// The directory with the originals.
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

/// Repairs the database in a directory. `on_loss` is called for each loss as it is found.
///
/// Memory: the manifest, and one SST at a time while they are examined. Then, one stripe at a time, the entries of its
/// damaged SSTs, decompressed, at up to four times their bytes. From an intact log, the operations of stripes with
/// damaged SSTs; from a damaged one, or one rewritten for [`RepairOptions::into_dir`], all operations once, and those
/// of one stripe up to three more times. The log is at most
/// [`DatabaseConfig::max_wal_size_bytes`](crate::DatabaseConfig::max_wal_size_bytes) long. Each entry and operation
/// takes about 150 further bytes. A healthy database needs memory for one SST and a window of the log.
///
/// # Errors
/// `NotFound`, `NotADatabase`; `Locked` while another handle has it open; `UnsupportedFormat` if any file has a newer
/// version; `Corruption` if nothing can be restored; `Io`. The database is then unchanged, except that a `LOCK` that
/// was not a file is set aside; or, once the new manifest is installed, it is repaired except for file names, which the
/// next repair corrects.
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
            commit::has_quarantine(&*options.vfs, path)?; // Fail before much has been written.
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

/// The lock of a repair: an exclusive lock for a repair in place, otherwise a lock that keeps out writers only.
struct Locked {
    /// `LOCK` is, or was, not a regular file. It cannot be locked then, only the directory, whose lock is tried first.
    irregular: bool,
    _guard: Option<Box<dyn Send + Sync>>,
}

impl Locked {
    fn take(path: &Path, options: &RepairOptions) -> Result<Self> {
        let (vfs, file) = (&options.vfs, path.join(paths::LOCK));
        match vfs.kind(path).map_err(Error::io("stat", path))? {
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
        let kind = vfs.kind(&file).map_err(Error::io("stat", &file))?;
        let irregular = kind.is_some_and(|kind| kind != PathKind::File);
        let guard = match lock() {
            Err(e) if irregular && e.kind() != std::io::ErrorKind::WouldBlock => {
                if !options.is_in_place() {
                    return Ok(Self { irregular, _guard: None });
                }
                verify::check::Directory::read(vfs, path)?; // Nothing is moved in a directory without a database.
                commit::set_aside(vfs, path, &file)?;
                lock()
            }
            locked => locked,
        };
        Ok(Self { irregular, _guard: guard.map_err(refused)? })
    }
}
