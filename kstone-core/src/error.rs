//! The error type of the engine. This module imports nothing from the rest of the crate.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An error: what went wrong, and where.
///
/// [`Error::code`] is a stable identifier for programs, also printed by the command line; [`Error::hint`] is a sentence
/// on what to do next. After `DiskFull`, `WriteStalled` and `Busy` the same call may succeed later; after `Poisoned`
/// the handle must be closed and the database reopened.
///
/// ```
/// # use kstone_core::Error;
/// fn may_retry(error: &Error) -> bool {
///     matches!(error, Error::DiskFull | Error::WriteStalled { .. } | Error::Busy)
/// }
/// assert!(may_retry(&Error::DiskFull));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing exists at this path.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// The requested database directory.
        path: PathBuf,
    },
    /// `create` was called on a directory that already holds something.
    #[error("{} already exists: {detail}", path.display())]
    AlreadyExists {
        /// The database directory.
        path: PathBuf,
        /// What was found in it.
        detail: String,
    },
    /// The path exists but is not a database. Nothing in it was changed.
    #[error("{} is not a KeystoneDB database: {detail}", path.display())]
    NotADatabase {
        /// The requested path.
        path: PathBuf,
        /// What is missing, or what is there instead.
        detail: String,
    },
    /// Another handle, in this process or another, has the database open.
    #[error("{} is in use{}", path.display(), pid.map(|p| format!(" by pid {p}")).unwrap_or_default())]
    Locked {
        /// The database directory.
        path: PathBuf,
        /// The process that holds the lock, if its pid could be read.
        pid: Option<u32>,
    },
    /// Disk space ran out: the database reached its quota, or the file system has no free bytes or inodes.
    /// [`LsmEngine::disk_usage`](crate::lsm::LsmEngine::disk_usage) reports which. Reads and deletes still work; puts
    /// resume once there is space.
    #[error("the disk is full, or the database has reached its size limit")]
    DiskFull,
    /// Bytes on disk differ from those that were written. Nothing was changed.
    #[error("{} is damaged at offset {offset}: {detail}", file.display())]
    Corruption {
        /// The damaged file.
        file: PathBuf,
        /// Byte offset of the damage in that file.
        offset: u64,
        /// What was expected, and what was found.
        detail: String,
    },
    /// The file was written by a newer version, or uses features that this version lacks.
    #[error("{} has format {found}; this version reads {supported}", file.display())]
    UnsupportedFormat {
        /// The file in the unknown format.
        file: PathBuf,
        /// The format of the file.
        found: String,
        /// The formats that this version reads.
        supported: String,
    },
    /// The key cannot be stored.
    #[error("invalid key: {why}")]
    InvalidKey {
        /// The reason.
        why: String,
    },
    /// The key (partition key plus sort key) is longer than the configured limit.
    #[error("the key is {len} bytes; the limit is {max}")]
    KeyTooLarge {
        /// Length of the key in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The encoded item is longer than the configured limit.
    #[error("the item is {len} bytes; the limit is {max}")]
    ItemTooLarge {
        /// Length of the item in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The batch is longer than the configured limit. None of it was written.
    #[error("the batch is {len} bytes; the limit is {max}")]
    BatchTooLarge {
        /// Length of the batch in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// An attribute is not a number that can be stored.
    #[error("attribute {attribute:?} is not a valid number: {why}")]
    InvalidNumber {
        /// The name of the attribute.
        attribute: String,
        /// The reason.
        why: String,
    },
    /// An item cannot be stored, or the stored bytes of one cannot be decoded.
    #[error("invalid item: {why}")]
    InvalidItem {
        /// The reason.
        why: String,
    },
    /// The condition of a write does not hold for the item. Nothing was written.
    #[error("the condition does not hold: {}", if old.is_some() { "the item is another" } else { "there is no item" })]
    ConditionFailed {
        /// The item, as stored, that the condition was evaluated on; `None` if there was none.
        old: Option<Vec<u8>>,
    },
    /// An operation of a transaction was refused. Nothing of the transaction was written.
    #[error("the transaction was cancelled: {}", Cancelled(reasons))]
    TransactionCancelled {
        /// For each operation, in order, why it was refused; `None` if it was not.
        reasons: Vec<Option<CancelReason>>,
    },
    /// What a transaction had read was changed by other writes, each time it was tried. Nothing was written.
    #[error("other writes changed what the transaction had read, in each of {attempts} attempts")]
    Conflict {
        /// How often it was tried.
        attempts: u32,
    },
    /// The text of an expression cannot be read.
    #[error("the expression cannot be read: expected {expected} at byte {at}\n  {}", Caret { text, at: *at })]
    ExpressionSyntax {
        /// The text.
        text: String,
        /// Where in the text reading stopped, in bytes.
        at: usize,
        /// What could stand there.
        expected: String,
    },
    /// An expression that can be read but has no meaning: its paths overlap, a placeholder is missing or unused, or a
    /// limit is exceeded.
    #[error("invalid expression: {why}")]
    InvalidExpression {
        /// The reason.
        why: String,
    },
    /// An update does not fit the item that it was to change. Nothing was written.
    #[error("the item cannot be updated: {path}: {why}")]
    UpdateFailed {
        /// The path of the attribute.
        path: String,
        /// The reason.
        why: String,
    },
    /// The token belongs to another query, or is not one.
    #[error("invalid token: {why}")]
    InvalidToken {
        /// The reason.
        why: String,
    },
    /// A setting is out of range or contradicts another.
    #[error("{field}: {why}")]
    InvalidConfig {
        /// The name of the setting.
        field: &'static str,
        /// The reason.
        why: String,
    },
    /// Background work did not catch up within `write_stall_limit`. The write was not made.
    #[error("the write waited too long for background work: {why}")]
    WriteStalled {
        /// The work that the write waited for.
        why: String,
    },
    /// The database changed under a read-only handle: too often while it was being opened, or a file was removed before
    /// the handle had mapped it. The database itself is intact; open it again.
    #[error("another handle changed the database while this one was reading it")]
    Busy,
    /// The caller cancelled the operation. Its partial output was removed.
    #[error("cancelled")]
    Cancelled,
    /// The handle was opened read-only.
    #[error("the database is open read-only")]
    ReadOnly,
    /// The handle was closed.
    #[error("the database is closed")]
    Closed,
    /// The handle belongs to the parent process that this one was forked from, and cannot be used here.
    #[error("the database was opened before this process was forked")]
    Forked,
    /// An earlier failure made further writes on this handle unsafe. Reads still work.
    #[error("writes stopped after an earlier failure: {cause}")]
    Poisoned {
        /// The first failure.
        cause: String,
    },
    /// The engine reached an impossible state: a bug. If a write or background work reached it, this handle accepts no
    /// further writes.
    #[error("internal error: {what}")]
    Internal {
        /// The state that was found.
        what: String,
    },
    /// The operating system refused an operation.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// The operation that failed.
        op: &'static str,
        /// The file or directory it was tried on.
        path: PathBuf,
        /// The error returned by the system.
        #[source]
        source: io::Error,
    },
}

/// Why an operation of a transaction was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelReason {
    /// Its condition does not hold.
    Condition {
        /// The item, as stored, that the condition was evaluated on; `None` if there was none.
        old: Option<Vec<u8>>,
    },
    /// The update does not fit the item.
    Update {
        /// The path of the attribute.
        path: String,
        /// The reason.
        why: String,
    },
    /// The updated item is longer than the configured limit.
    TooLarge {
        /// Length of the item in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The updated item cannot be stored.
    Invalid {
        /// The reason.
        why: String,
    },
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Condition { old: Some(_) } => {
                f.write_str("the condition does not hold: the item is another")
            }
            Self::Condition { old: None } => f.write_str("the condition does not hold: there is no item"),
            Self::Update { path, why } => write!(f, "the item cannot be updated: {path}: {why}"),
            Self::TooLarge { len, max } => write!(f, "the item is {len} bytes; the limit is {max}"),
            Self::Invalid { why } => write!(f, "invalid item: {why}"),
        }
    }
}

/// The reasons of a cancelled transaction, with the numbers of their operations.
struct Cancelled<'a>(&'a [Option<CancelReason>]);

impl fmt::Display for Cancelled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = self.0.iter().enumerate().filter_map(|(n, reason)| Some((n + 1, reason.as_ref()?)));
        for (nth, (n, reason)) in reasons.enumerate() {
            let before = if nth == 0 { "" } else { "; " };
            write!(f, "{before}operation {n} of {}: {reason}", self.0.len())?;
        }
        Ok(())
    }
}

/// The text around a position, and below it a caret.
struct Caret<'a> {
    text: &'a str,
    at: usize,
}

/// How many characters are shown on each side of the caret.
const AROUND: usize = 40;

impl fmt::Display for Caret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.text.split_at_checked(self.at).unwrap_or((self.text, ""));
        // A line of the terminal, whatever the text contains.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let mut shown: Vec<char> = before.chars().rev().take(AROUND).map(plain).collect();
        shown.reverse();
        let column = shown.len();
        shown.extend(after.chars().take(AROUND).map(plain));
        writeln!(f, "{}", shown.iter().collect::<String>().trim_end())?;
        write!(f, "  {:column$}^", "")
    }
}

/// The result of calls that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A stable identifier for programs; the JSON output of the command line contains it too.
    ///
    /// ```
    /// # use kstone_core::Error;
    /// assert_eq!(Error::DiskFull.code(), "disk_full");
    /// ```
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not_found",
            Self::AlreadyExists { .. } => "already_exists",
            Self::NotADatabase { .. } => "not_a_database",
            Self::Locked { .. } => "locked",
            Self::DiskFull => "disk_full",
            Self::Corruption { .. } => "corruption",
            Self::UnsupportedFormat { .. } => "unsupported_format",
            Self::InvalidKey { .. } => "invalid_key",
            Self::KeyTooLarge { .. } => "key_too_large",
            Self::ItemTooLarge { .. } => "item_too_large",
            Self::BatchTooLarge { .. } => "batch_too_large",
            Self::InvalidNumber { .. } => "invalid_number",
            Self::InvalidItem { .. } => "invalid_item",
            Self::ConditionFailed { .. } => "condition_failed",
            Self::TransactionCancelled { .. } => "transaction_cancelled",
            Self::Conflict { .. } => "conflict",
            Self::ExpressionSyntax { .. } => "expression_syntax",
            Self::InvalidExpression { .. } => "invalid_expression",
            Self::UpdateFailed { .. } => "update_failed",
            Self::InvalidToken { .. } => "invalid_token",
            Self::InvalidConfig { .. } => "invalid_config",
            Self::WriteStalled { .. } => "write_stalled",
            Self::Busy => "busy",
            Self::Cancelled => "cancelled",
            Self::ReadOnly => "read_only",
            Self::Closed => "closed",
            Self::Forked => "forked",
            Self::Poisoned { .. } => "poisoned",
            Self::Internal { .. } => "internal",
            Self::Io { .. } => "io",
        }
    }

    /// What to do next, in a sentence, if there is anything to do.
    ///
    /// ```
    /// # use kstone_core::Error;
    /// let error = Error::Busy;
    /// eprintln!("error: {error}");
    /// if let Some(hint) = error.hint() {
    ///     eprintln!("hint: {hint}");
    /// }
    /// ```
    pub fn hint(&self) -> Option<&str> {
        Some(match self {
            Self::NotFound { .. } => "create it first, or open it with open_or_create",
            Self::AlreadyExists { .. } => "open it instead, or choose an empty directory",
            Self::NotADatabase { .. } => "check the path; nothing in it was changed",
            Self::Locked { .. } => "close the other handle first; to read beside it, use open_read_only",
            Self::DiskFull => {
                "disk_usage() reports what ran out: delete items, raise the limit, or free space on the file system; \
                 writes then resume without a restart"
            }
            Self::Corruption { .. } => {
                "nothing was changed; restore the file from a copy, or work on a copy of the directory"
            }
            Self::UnsupportedFormat { .. } => {
                "use the version that wrote it, or a newer one; nothing was changed"
            }
            Self::InvalidKey { .. } => "a partition key has at least one byte",
            Self::KeyTooLarge { .. } => "shorten the key, or hash its long part",
            Self::ItemTooLarge { .. } => "split the item, or raise with_max_item_bytes",
            Self::BatchTooLarge { .. } => {
                "split the batch, or raise with_max_batch_bytes; none of it was written"
            }
            Self::InvalidNumber { .. } => "numbers are finite decimals of up to 38 significant digits",
            Self::ConditionFailed { .. } => "read the item again and decide anew; nothing was written",
            Self::TransactionCancelled { .. } => {
                "the reasons tell which operation was refused; nothing was written"
            }
            Self::Conflict { .. } => "try again, or read less in the transaction; nothing was written",
            Self::ExpressionSyntax { .. } => {
                "names that are reserved or not plain words need a placeholder: #name"
            }
            Self::UpdateFailed { .. } => "nothing was written",
            Self::InvalidToken { .. } => "continue the query that the token came from, or start without one",
            Self::WriteStalled { .. } => {
                "retry later, write more slowly, or give background work more resources; the write was not made"
            }
            Self::Busy => "the data is intact; open it again",
            Self::ReadOnly => "open the database for writing",
            Self::Closed => "open the database again",
            Self::Forked => {
                "open databases after the fork, or follow the fork with exec; nothing was changed"
            }
            Self::Poisoned { .. } => {
                "close the database and open it again; everything acknowledged as durable is safe"
            }
            Self::Internal { .. } => {
                "this is a bug, please report it; close the database, verify it, and open it again"
            }
            Self::Io { source, .. } => return io_hint(source),
            Self::InvalidItem { .. }
            | Self::InvalidExpression { .. }
            | Self::InvalidConfig { .. }
            | Self::Cancelled => return None,
        })
    }

    /// Wraps an I/O error with the operation ("open", "sync" ...) and the file it was tried on. Out of space becomes
    /// `DiskFull`, except from a sync, which may already have lost data.
    pub(crate) fn io(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            if op != "sync" && is_out_of_space(&source) {
                return Self::DiskFull;
            }
            // Not before there is an error: this is called for every read of a record.
            Self::Io { op, path: path.to_path_buf(), source }
        }
    }

    pub(crate) fn corrupt(file: &Path, offset: u64, detail: impl Into<String>) -> Self {
        Self::Corruption { file: file.to_path_buf(), offset, detail: detail.into() }
    }

    /// An impossible state. Panics with debug assertions: suites that inject failures would otherwise take it for an
    /// injected one.
    #[cold]
    #[track_caller]
    pub(crate) fn internal(what: impl Into<String>) -> Self {
        let what = what.into();
        debug_assert!(returns_internal_errors(), "internal error: {what}");
        Self::Internal { what }
    }

    pub(crate) fn config(field: &'static str, why: impl Into<String>) -> Self {
        Self::InvalidConfig { field, why: why.into() }
    }

    /// The same failure, for another caller affected by it.
    pub(crate) fn repeated(&self) -> Self {
        match self {
            Self::DiskFull => Self::DiskFull,
            Self::Closed => Self::Closed,
            Self::Forked => Self::Forked,
            Self::Poisoned { cause } => Self::Poisoned { cause: cause.clone() },
            Self::Internal { what } => Self::Internal { what: what.clone() },
            Self::WriteStalled { why } => Self::WriteStalled { why: why.clone() },
            Self::Io { op, path, source } => {
                let source = match source.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(source.kind(), source.to_string()),
                };
                Self::Io { op, path: path.clone(), source }
            }
            other => Self::Poisoned { cause: other.to_string() },
        }
    }

    /// Whether the sync of a directory failed before it started, because the directory could not be opened: nothing is
    /// lost, and the sync can be retried. Any other failed sync may have lost data.
    pub(crate) fn is_unbegun_sync(&self) -> bool {
        matches!(self, Self::Io { op: "sync", source, .. } if is_out_of_files(source))
    }

    /// No space left on the device: the only write error that can clear up.
    pub(crate) fn is_out_of_space(&self) -> bool {
        match self {
            Self::DiskFull => true,
            Self::Io { source, .. } => is_out_of_space(source),
            _ => false,
        }
    }
}

fn io_hint(source: &io::Error) -> Option<&'static str> {
    Some(match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "to read a database on a read-only file system, open it with open_read_only"
        }
        io::ErrorKind::PermissionDenied => {
            "check the owner and the permissions; to read without changing anything, open it with open_read_only"
        }
        _ if is_out_of_files(source) => "close other files, or raise the limit on open files (ulimit -n)",
        _ => return None,
    })
}

/// The limit on open files is reached: the operation did not start.
fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE))
}

fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether [`Error::internal`] returns on this thread despite debug assertions.
fn returns_internal_errors() -> bool {
    #[cfg(test)]
    return testing::RETURNS.get();
    #[cfg(not(test))]
    false
}

#[cfg(test)]
pub(crate) mod testing {
    use std::cell::Cell;

    thread_local! {
        pub(super) static RETURNS: Cell<bool> = const { Cell::new(false) };
    }

    /// Calls `f` as a build without debug assertions would: internal errors are returned and do not panic.
    pub(crate) fn returning_internal_errors<T>(f: impl FnOnce() -> T) -> T {
        RETURNS.set(true);
        let result = f();
        RETURNS.set(false);
        result
    }
}
