//! VERIFY: reads a database directory and says everything that is wrong with it.
//!
//! It looks from outside: nothing is opened as a database, locked against readers, or changed, so that it works on a
//! directory that does not open. It does not stop at the first damage.
//!
//! 1. What was not looked at is not called good: it is in [`VerifyReport::skipped`].
//! 2. A directory that somebody writes to meanwhile is judged by what its manifest lists at the time: a file that is no
//!    longer listed when it is found missing was merged away, and damage in the log must stay at its place.
//! 3. Memory: one SST at a time, and a window of the log.

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::key::Key;
use crate::lsm::{LsmEngine, absolute};
use crate::vfs::{DiskVfs, Vfs};

mod files;
mod log;
pub(crate) mod look;

/// How thorough a look is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyMode {
    /// Metadata: the manifest, that every listed file is there with its length, the header, footer and sections of each
    /// SST, and the log from its start to its end, with all its operations. No block of an SST is read. Nothing found:
    /// the database opens.
    Quick,
    /// Everything: also every block and entry of every SST, that filter, index and fences find each key, that each key
    /// is in its stripe, whole-file checksums, and every value ([`VerifyOptions::values`]). Nothing found: the database
    /// opens, and everything in it can be read.
    Deep,
}

impl VerifyMode {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Deep => "deep",
        }
    }
}

/// How far a look or a repair has come.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// Bytes of files looked at.
    pub done: u64,
    /// Bytes that there are to look at.
    pub total: u64,
    /// The file that is next.
    pub file: &'a Path,
}

/// Is told how far it is; breaking off ends a look, with a report of what was seen until then.
pub type ProgressFn = Arc<dyn Fn(&Progress<'_>) -> ControlFlow<()> + Send + Sync>;

/// Says of the value of a put why it is none of those that the database holds.
pub type ValueCheck = Arc<dyn Fn(&[u8]) -> std::result::Result<(), String> + Send + Sync>;

/// What to look at, and how.
#[derive(Clone)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// How thorough. Default [`VerifyMode::Deep`].
    pub mode: VerifyMode,
    /// Where the files are. Default: on disk.
    pub vfs: Arc<dyn Vfs>,
    /// Is told how far it is, before each file. Default: nobody.
    pub progress: Option<ProgressFn>,
    /// Findings that a report holds, at most; more are only counted. Default 10,000.
    pub max_findings: usize,
    /// What a deep look asks of each value. Default: nothing, for the engine stores any bytes.
    pub values: Option<ValueCheck>,
}

impl fmt::Debug for VerifyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyOptions").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl VerifyOptions {
    fn new(mode: VerifyMode) -> Self {
        Self { mode, vfs: Arc::new(DiskVfs::new()), progress: None, max_findings: 10_000, values: None }
    }

    /// Metadata only, on disk.
    pub fn quick() -> Self {
        Self::new(VerifyMode::Quick)
    }

    /// Everything, on disk.
    pub fn deep() -> Self {
        Self::new(VerifyMode::Deep)
    }

    /// On that file system.
    #[must_use]
    pub fn on(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = vfs;
        self
    }

    /// Tells it how far it is.
    #[must_use]
    pub fn progress(mut self, progress: ProgressFn) -> Self {
        self.progress = Some(progress);
        self
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing depends on it.
    Note,
    /// Something is not as it should be, and no data is affected.
    Warning,
    /// Data is lost or in doubt, or the database does not open.
    Damage,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindingKind {
    /// The manifest cannot be read, contradicts itself, or is older than the log says.
    Manifest,
    /// The lock cannot be taken.
    Lock,
    /// A listed file is missing.
    Missing,
    /// A file is longer or shorter than recorded.
    Length,
    /// What should be a file is a directory, a link or something else.
    NotAFile,
    /// The file cannot be read.
    Unreadable,
    /// A file's header, footer or section directory.
    Frame,
    /// An index, filter, fences or properties section of an SST.
    Section,
    /// A block of an SST.
    Block,
    /// The checksum of a whole file.
    Checksum,
    /// All bytes are as they were written, and they contradict each other.
    Invariant,
    /// A value that [`VerifyOptions::values`] refuses: its key cannot be read.
    Value,
    /// A stored setting that cannot be used; another value is in force.
    Setting,
    /// Of another database, or another file's content.
    Stranger,
    /// A record of the log that was durable cannot be read.
    Log,
    /// A file of ours that nothing lists, left over by a crash; the next opening removes it.
    Orphan,
    /// Two files hold the same.
    Duplicate,
    /// A file that KeystoneDB did not make.
    Foreign,
    /// `EVENTS.jsonl` or `STATS.json`, which are no part of the database.
    Text,
    /// A newer version wrote it.
    Unsupported,
}

impl FindingKind {
    /// A stable word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Lock => "lock",
            Self::Missing => "missing",
            Self::Length => "length",
            Self::NotAFile => "not_a_file",
            Self::Unreadable => "unreadable",
            Self::Frame => "frame",
            Self::Section => "section",
            Self::Block => "block",
            Self::Checksum => "checksum",
            Self::Invariant => "invariant",
            Self::Value => "value",
            Self::Setting => "setting",
            Self::Stranger => "stranger",
            Self::Log => "log",
            Self::Orphan => "orphan",
            Self::Duplicate => "duplicate",
            Self::Foreign => "foreign",
            Self::Text => "text",
            Self::Unsupported => "unsupported",
        }
    }
}

/// What cannot be read because of a damage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Affected {
    /// No affected key is below; `None` when nothing bounds them.
    pub from: Option<Key<'static>>,
    /// No affected key is above.
    pub to: Option<Key<'static>>,
    /// Versions that cannot be read, at most.
    pub entries: u64,
    /// Keys whose newest version in the file is among them, where the file's index tells.
    pub keys: Option<u64>,
    /// Keys that are known to be among them: read from the damaged bytes and confirmed by the index.
    pub named: Vec<Key<'static>>,
    /// How many of the named keys have another version in another SST.
    pub elsewhere: u64,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub kind: FindingKind,
    /// In which file.
    pub file: PathBuf,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// How many bytes it concerns; 0 when that is not known.
    pub len: u64,
    /// What was expected and what was found.
    pub detail: String,
    /// Which keys cannot be read because of it; `None` when none, or when that is not known.
    pub affected: Option<Affected>,
}

impl Finding {
    /// A value that is none.
    fn no_value(file: &Path, offset: u64, key: &[u8], why: String) -> Self {
        let key = look::readable(key);
        let affected = Affected {
            from: Some(key.clone()),
            to: Some(key.clone()),
            entries: 1,
            keys: None,
            named: vec![key],
            elsewhere: 0,
        };
        Self {
            severity: Severity::Damage,
            kind: FindingKind::Value,
            file: file.to_path_buf(),
            offset,
            len: 0,
            detail: format!("the value of a key cannot be read: {why}"),
            affected: Some(affected),
        }
    }
}

/// The log as it was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogReport {
    /// Files.
    pub segments: usize,
    /// Batches that can be read.
    pub records: u64,
    /// Operations in them.
    pub operations: u64,
    /// Bytes of the files that were read.
    pub bytes: u64,
    /// The generation of the segment where the log ends, and the offset in it; `None` when the log is damaged.
    pub end: Option<(u32, u32)>,
}

/// What a look came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// How thorough it was.
    pub mode: VerifyMode,
    /// Somebody had the database open for writing.
    pub live: bool,
    /// The whole of it was looked at: nobody broke it off.
    pub complete: bool,
    /// What was found, in order of files.
    pub findings: Vec<Finding>,
    /// Findings beyond [`VerifyOptions::max_findings`].
    pub more_findings: u64,
    /// SSTs that the manifest lists, or that were found without one: as many as all that follow, together.
    pub ssts: usize,
    /// Those among them in which nothing was found to be wrong, by what was looked at.
    pub good: usize,
    /// Those that are damaged.
    pub bad: usize,
    /// Those that are missing, or no files.
    pub missing: usize,
    /// Those that a writer has merged into others meanwhile; the others are looked at as well, and count.
    pub replaced: usize,
    /// Those that were not looked at, because the look was broken off.
    pub unread: usize,
    /// Blocks of SSTs that were read.
    pub blocks: u64,
    /// Those that are damaged.
    pub bad_blocks: u64,
    /// Entries that the manifest lists.
    pub entries: u64,
    /// The log.
    pub log: LogReport,
    /// Bytes of files looked at.
    pub bytes: u64,
    /// What was not looked at, and why.
    pub skipped: Vec<String>,
    worst: Option<Severity>,
    max_findings: usize,
}

impl VerifyReport {
    fn new(options: &VerifyOptions) -> Self {
        Self {
            mode: options.mode,
            live: false,
            complete: true,
            findings: Vec::new(),
            more_findings: 0,
            ssts: 0,
            good: 0,
            bad: 0,
            missing: 0,
            replaced: 0,
            unread: 0,
            blocks: 0,
            bad_blocks: 0,
            entries: 0,
            log: LogReport::default(),
            bytes: 0,
            skipped: Vec::new(),
            worst: None,
            max_findings: options.max_findings,
        }
    }

    /// No damage was found in what was looked at. Warnings do not count.
    pub fn is_clean(&self) -> bool {
        self.worst < Some(Severity::Damage)
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        self.worst = self.worst.max(Some(finding.severity));
        if self.findings.len() < self.max_findings {
            self.findings.push(finding);
        } else {
            self.more_findings += 1;
        }
    }

    fn note(&mut self, severity: Severity, kind: FindingKind, file: &Path, detail: impl Into<String>) {
        let (file, detail) = (file.to_path_buf(), detail.into());
        self.add(Finding { severity, kind, file, offset: 0, len: 0, detail, affected: None });
    }

    /// An error that names a file and an offset, as damage.
    fn damage(&mut self, kind: FindingKind, error: &Error, fallback: &Path) {
        let (kind, file, offset, detail) = match error {
            Error::Corruption { file, offset, detail } => (kind, file.clone(), *offset, detail.clone()),
            Error::UnsupportedFormat { file, .. } => {
                (FindingKind::Unsupported, file.clone(), 0, error.to_string())
            }
            Error::Io { path, .. } => (FindingKind::Unreadable, path.clone(), 0, error.to_string()),
            other => (kind, fallback.to_path_buf(), 0, other.to_string()),
        };
        let severity = Severity::Damage;
        self.add(Finding { severity, kind, file, offset, len: 0, detail, affected: None });
    }
}

/// Looks at a database directory, whether or not it opens and whether or not somebody has it open.
///
/// ```
/// # use kstone_core::lsm::{EngineOptions, LsmEngine};
/// # let dir = std::path::Path::new("db");
/// # let options = EngineOptions::memory();
/// # let vfs = std::sync::Arc::clone(&options.vfs);
/// # LsmEngine::create(dir, options)?.close()?;
/// use kstone_core::verify::{VerifyOptions, verify};
///
/// let report = verify(dir, &VerifyOptions::deep().on(vfs))?;
/// assert!(report.is_clean() && report.complete, "{:?}", report.findings);
/// # Ok::<(), kstone_core::Error>(())
/// ```
///
/// # Errors
/// `NotFound`, `NotADatabase`, and `Io` when the directory itself cannot be read. Everything else is a finding.
pub fn verify(path: &Path, options: &VerifyOptions) -> Result<VerifyReport> {
    files::Look::begin(&absolute(&*options.vfs, path)?, options)?.run()
}

impl LsmEngine {
    /// Looks at the files of this open database, as [`verify`] does; reads and writes go on meanwhile.
    pub fn verify_files(&self, options: &VerifyOptions) -> Result<VerifyReport> {
        if self.is_forked() {
            return Err(Error::Forked);
        }
        verify(self.path(), &options.clone().on(Arc::clone(self.vfs())))
    }
}
