//! VERIFY: reads a database directory and reports everything that is wrong with it.
//!
//! It checks from outside: nothing is opened as a database, locked against readers, or changed, so it also works on a
//! directory that does not open. It does not stop at the first damage.
//!
//! 1. Nothing unchecked is reported as good: it is listed in [`VerifyReport::skipped`].
//! 2. A directory with a live writer is checked against the manifest current at the time: a missing file that is no
//!    longer listed was merged away, and damage in the log counts only if it stays in the same place.
//! 3. Memory: one SST at a time, and a window of the log.

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::key::Key;
use crate::lsm::{LsmEngine, absolute};
use crate::vfs::{DiskVfs, Vfs};

pub(crate) mod check;
mod files;
mod log;

/// How thorough a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyMode {
    /// Metadata: the manifest, that every listed file exists with its recorded length, the header, footer and sections
    /// of each SST, and the log from start to end, with all its operations. No SST block is read. Without findings, the
    /// database opens.
    Quick,
    /// Everything: also every block and entry of every SST, that filter, index and fences find each key, that each key
    /// is in its stripe, whole-file checksums, and every value ([`VerifyOptions::values`]). Without findings, the
    /// database opens, and everything in it can be read.
    Deep,
}

impl VerifyMode {
    /// The name of the mode, as one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Deep => "deep",
        }
    }
}

/// The progress of a check or a repair.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// Bytes of files read so far.
    pub done: u64,
    /// Total bytes to read.
    pub total: u64,
    /// The next file.
    pub file: &'a Path,
}

/// Receives the progress; returning `Break` ends the check, with a report of what was checked so far.
pub type ProgressFn = Arc<dyn Fn(&Progress<'_>) -> ControlFlow<()> + Send + Sync>;

/// Checks the value of a put; the error says why the value is not valid.
pub type ValueCheck = Arc<dyn Fn(&[u8]) -> std::result::Result<(), String> + Send + Sync>;

/// What to check, and how.
#[derive(Clone)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// Thoroughness. Default [`VerifyMode::Deep`].
    pub mode: VerifyMode,
    /// The file system that holds the files. Default: the disk.
    pub vfs: Arc<dyn Vfs>,
    /// Called with the progress before each file. Default: none.
    pub progress: Option<ProgressFn>,
    /// Maximum number of findings listed; further ones are only counted. Default 10,000.
    pub max_findings: usize,
    /// A check of each value, in a deep check. Default: none, since the engine stores any bytes.
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

    /// Reads from the given file system.
    #[must_use]
    pub fn on(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = vfs;
        self
    }

    /// Sets the function to call with the progress.
    #[must_use]
    pub fn progress(mut self, progress: ProgressFn) -> Self {
        self.progress = Some(progress);
        self
    }
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Informational; no data depends on it.
    Note,
    /// Something is wrong, but no data is affected.
    Warning,
    /// Data is lost or doubtful, or the database does not open.
    Damage,
}

/// The kind of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindingKind {
    /// The manifest cannot be read, contradicts itself, or is older than the log requires.
    Manifest,
    /// The lock cannot be taken.
    Lock,
    /// A listed file is missing.
    Missing,
    /// A file is longer or shorter than recorded.
    Length,
    /// A directory, a link or something else in place of a file.
    NotAFile,
    /// The file cannot be read.
    Unreadable,
    /// Damage to a file's header, footer or section directory.
    Frame,
    /// Damage to an index, filter, fences or properties section of an SST.
    Section,
    /// Damage to a block of an SST.
    Block,
    /// The checksum of a whole file does not match.
    Checksum,
    /// All checksums match, but the contents contradict each other.
    Invariant,
    /// A value rejected by [`VerifyOptions::values`]: its key cannot be read.
    Value,
    /// A stored setting that cannot be used; another value is in force.
    Setting,
    /// A file of another database, or with the content of another file.
    Misplaced,
    /// A durable record of the log cannot be read.
    Log,
    /// A file of the database that nothing lists, left over by a crash; the next open removes it.
    Orphan,
    /// Two files have the same content.
    Duplicate,
    /// A file that KeystoneDB did not create.
    Foreign,
    /// `EVENTS.jsonl` or `STATS.json`, which are not part of the database.
    Text,
    /// A file written by a newer version.
    Unsupported,
}

impl FindingKind {
    /// A stable word for programs.
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
            Self::Misplaced => "misplaced",
            Self::Log => "log",
            Self::Orphan => "orphan",
            Self::Duplicate => "duplicate",
            Self::Foreign => "foreign",
            Self::Text => "text",
            Self::Unsupported => "unsupported",
        }
    }
}

/// The keys that cannot be read because of a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Affected {
    /// No affected key is below this; `None` if nothing bounds them.
    pub from: Option<Key<'static>>,
    /// No affected key is above this; `None` if nothing bounds them.
    pub to: Option<Key<'static>>,
    /// Maximum number of versions that cannot be read.
    pub entries: u64,
    /// Number of keys whose newest version in the file is among these, if the index of the file shows that.
    pub keys: Option<u64>,
    /// Keys known to be affected: read from the damaged bytes and confirmed by the index.
    pub named: Vec<Key<'static>>,
    /// Number of named keys that have another version in another SST.
    pub elsewhere: u64,
}

/// Something wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The kind.
    pub kind: FindingKind,
    /// The file.
    pub file: PathBuf,
    /// The offset in the file, in bytes.
    pub offset: u64,
    /// The length, in bytes; 0 if unknown.
    pub len: u64,
    /// What was expected, and what was found.
    pub detail: String,
    /// The keys that cannot be read because of this finding; `None` if there are none, or if they are unknown.
    pub affected: Option<Affected>,
}

impl Finding {
    /// A value rejected by [`VerifyOptions::values`].
    fn no_value(file: &Path, offset: u64, key: &[u8], why: String) -> Self {
        let key = check::readable(key);
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

/// The state of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogReport {
    /// Number of segments.
    pub segments: usize,
    /// Number of readable batches.
    pub records: u64,
    /// Number of operations in these batches.
    pub operations: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Generation of the segment where the log ends, and the offset in it; `None` if the log is damaged.
    pub end: Option<(u32, u32)>,
}

/// The result of a check.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// How thorough the check was.
    pub mode: VerifyMode,
    /// Whether a handle had the database open for writing.
    pub live: bool,
    /// Whether everything was checked; `false` if the check was cancelled.
    pub complete: bool,
    /// The findings, in the order of files.
    pub findings: Vec<Finding>,
    /// Number of findings beyond [`VerifyOptions::max_findings`].
    pub more_findings: u64,
    /// SSTs listed in the manifest, or found without a manifest: the sum of the following counts.
    pub ssts: usize,
    /// SSTs without findings, to the extent that they were checked.
    pub good: usize,
    /// Damaged SSTs.
    pub bad: usize,
    /// SSTs that are missing or not files.
    pub missing: usize,
    /// SSTs that a writer merged into others meanwhile; those others are checked and counted too.
    pub replaced: usize,
    /// SSTs left unchecked because the check was cancelled.
    pub unread: usize,
    /// SST blocks read.
    pub blocks: u64,
    /// Damaged blocks.
    pub bad_blocks: u64,
    /// Number of entries listed in the manifest.
    pub entries: u64,
    /// The log.
    pub log: LogReport,
    /// Bytes of files read.
    pub bytes: u64,
    /// What was left unchecked, and why.
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

    /// Whether no damage was found in anything that was checked. Warnings do not count.
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

    /// Adds an error, which names a file and an offset, as a finding.
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

/// Checks a database directory, whether or not it can be opened, and whether or not a program has it open.
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
/// `NotFound`, `NotADatabase`, and `Io` if the directory itself cannot be read. Everything else is a finding.
pub fn verify(path: &Path, options: &VerifyOptions) -> Result<VerifyReport> {
    files::Checking::begin(&absolute(&*options.vfs, path)?, options)?.run()
}

impl LsmEngine {
    /// Checks the files of this open database, as [`verify`] does, while reads and writes continue.
    pub fn verify_files(&self, options: &VerifyOptions) -> Result<VerifyReport> {
        if self.is_forked() {
            return Err(Error::Forked);
        }
        verify(self.path(), &options.clone().on(Arc::clone(self.vfs())))
    }
}
