//! How failures are reported: one `error:` line, at most one `hint:` line, and the exit status.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Error;
use clap::builder::styling::{AnsiColor, Style};
use kstone_api::{Database, Error as DbError, Exhausted, escape};

use crate::args::{Cli, Command, Format};
use crate::output::tell;

/// Exit statuses; 0 is success, and clap also uses 2.
pub(crate) mod exit {
    /// A negative answer: no such key, a write that is refused by its condition, or an alert.
    pub(crate) const NO: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const CORRUPTION: u8 = 3;
    /// Missing, permission, I/O, disk full.
    pub(crate) const ENVIRONMENT: u8 = 4;
    pub(crate) const LOCKED: u8 = 5;
    /// Data is lost, or lines were rejected.
    pub(crate) const REJECTED: u8 = 6;
    /// As shells report SIGINT.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// A failure that is not an error of the database.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: u8,
    /// A stable identifier for programs.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: exit::USAGE, code: "usage", message: message.into(), hint: None }
    }

    /// Converts an error that does not end the command.
    pub(crate) fn of(error: &Error, database: &Path) -> Self {
        let known = error.chain().find_map(|cause| cause.downcast_ref::<DbError>());
        let hint = matches!(known, Some(DbError::Corruption { .. })).then(|| damage_hint(Some(database)));
        Self {
            exit: known.map_or(exit::ENVIRONMENT, exit_of),
            code: known.map_or("io", DbError::code),
            message: message(error),
            hint,
        }
    }

    /// Combines failures that occurred beside what could be shown: the worst one decides the exit status.
    pub(crate) fn all(mut failures: Vec<Self>) -> anyhow::Result<()> {
        // Corruption first, then the environment, then everything else.
        failures.sort_by_key(|failure| match failure.exit {
            exit::CORRUPTION => 0,
            exit::ENVIRONMENT => 1,
            _ => 2,
        });
        let messages: Vec<_> = failures.iter().map(|failure| failure.message.clone()).collect();
        match failures.into_iter().next() {
            None => Ok(()),
            Some(first) => Err(Self { message: messages.join("; "), ..first }.into()),
        }
    }

    pub(crate) fn no_such_key(key: &str) -> Self {
        Self {
            exit: exit::NO,
            code: "no_such_key",
            message: format!("there is no item under {key}"),
            hint: None,
        }
    }
}

/// Prints the error and returns the exit status.
pub(crate) fn report(error: &Error, cli: &Cli) -> ExitCode {
    if is_closed_pipe(error) {
        // The reader has seen enough, as with `head`.
        return ExitCode::SUCCESS;
    }
    let (exit, code, mut hint) = classify(error, &cli.command);
    let mut message = message(error);
    if code == DbError::DiskFull.code()
        && cli.command.writes()
        && let Some((figures, what_now)) = cli.command.database().and_then(shortage)
    {
        message = format!("{message}: {figures}");
        hint = Some(what_now.into());
    }
    if cli.format == Format::Table {
        let bad = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let good = Style::new().bold().fg_color(Some(AnsiColor::Green.into()));
        tell(format_args!("{bad}error:{bad:#} {}", escape::text(&message)));
        if cli.verbose {
            for cause in error.chain().skip(1) {
                tell(format_args!("cause: {}", escape::text(&cause.to_string())));
            }
        }
        if let Some(hint) = hint {
            tell(format_args!("{good}hint:{good:#} {}", escape::text(&hint)));
        }
    } else {
        let json = serde_json::json!({"error": {"code": code, "message": message, "hint": hint}});
        tell(escape::json(&json.to_string()));
    }
    ExitCode::from(exit)
}

/// Which resource of a database is exhausted, with its figures, and what to do about it.
fn shortage(path: &Path) -> Option<(String, &'static str)> {
    let usage = Database::open_read_only(path).and_then(|db| db.disk_usage()).ok()?;
    let (exhausted, figures) = usage.shortage();
    let what_now = match exhausted {
        Exhausted::Quota => {
            "delete items, or raise max_total_disk_bytes where the database is opened; acknowledged writes are not \
             lost"
        }
        Exhausted::Inodes => {
            "remove files from the file system, or delete items and run kstone compact; acknowledged writes are not \
             lost"
        }
        _ => "free space on the file system; acknowledged writes are not lost",
    };
    Some((figures, what_now))
}

/// The directory that paths are shown relative to; `None` at the root, where nothing would be gained.
fn current_dir() -> Option<PathBuf> {
    std::env::current_dir().ok().filter(|dir| dir.parent().is_some())
}

/// Shortens paths below the current directory as a user there would type them.
pub(crate) fn from_here(text: String) -> String {
    match current_dir() {
        Some(dir) => text.replace(&format!("{}/", dir.display()), ""),
        None => text,
    }
}

/// The error, followed by the system's reason.
fn message(error: &Error) -> String {
    let mut message = from_here(error.to_string());
    let causes = error.chain().skip(1).filter(|cause| cause.is::<io::Error>()).map(ToString::to_string);
    for cause in causes.map(from_here) {
        if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

pub(crate) fn is_closed_pipe(error: &Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn classify(error: &Error, command: &Command) -> (u8, &'static str, Option<String>) {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return (failure.exit, failure.code, failure.hint.clone());
        }
        if let Some(e) = cause.downcast_ref::<DbError>() {
            return (exit_of(e), e.code(), hint_for(e, command));
        }
    }
    (exit::ENVIRONMENT, "io", None)
}

fn exit_of(error: &DbError) -> u8 {
    match error {
        DbError::Corruption { .. } => exit::CORRUPTION,
        DbError::ConditionFailed { .. }
        | DbError::TransactionCancelled { .. }
        | DbError::UpdateFailed { .. } => exit::NO,
        DbError::Locked { .. } => exit::LOCKED,
        DbError::InvalidKey { .. }
        | DbError::KeyTooLarge { .. }
        | DbError::ItemTooLarge { .. }
        | DbError::BatchTooLarge { .. }
        | DbError::InvalidNumber { .. }
        | DbError::InvalidItem { .. }
        | DbError::ExpressionSyntax { .. }
        | DbError::InvalidExpression { .. }
        | DbError::InvalidToken { .. }
        | DbError::InvalidConfig { .. } => exit::USAGE,
        _ => exit::ENVIRONMENT,
    }
}

/// What to do on the command line; the library's own hints name its calls.
fn hint_for(error: &DbError, command: &Command) -> Option<String> {
    Some(match error {
        DbError::NotFound { path } => format!("kstone create {} creates one", typed(path)),
        DbError::AlreadyExists { .. } => "choose a path that does not exist, or an empty directory".into(),
        DbError::NotADatabase { .. } => "check the path; nothing in it was changed".into(),
        DbError::Locked { .. } => {
            "end the program that has it open, then try again; read-only commands work meanwhile".into()
        }
        DbError::DiskFull => "free space on the disk; acknowledged writes are not lost".into(),
        DbError::Corruption { .. } => damage_hint(command.database()),
        DbError::UnsupportedFormat { .. } => {
            "use the kstone of the version that wrote it, or a newer one; nothing was changed".into()
        }
        DbError::InvalidKey { .. } => "a partition key has at least one byte".into(),
        DbError::KeyTooLarge { .. } => "shorten the key, or hash its long part".into(),
        DbError::ItemTooLarge { .. } => "split the item".into(),
        DbError::BatchTooLarge { .. } => "split the batch; nothing of it was written".into(),
        DbError::InvalidNumber { .. } => "numbers are finite decimals of up to 38 significant digits".into(),
        DbError::ConditionFailed { .. }
        | DbError::TransactionCancelled { .. }
        | DbError::Conflict { .. }
        | DbError::UpdateFailed { .. } => "nothing was written".into(),
        DbError::ExpressionSyntax { .. } => {
            "a name that is reserved or not a plain word needs a placeholder: --name '#n=NAME'".into()
        }
        DbError::InvalidToken { .. } => "repeat the command that printed it, and add --after".into(),
        DbError::WriteStalled { .. } => "try again later; nothing was written".into(),
        DbError::Busy => "try again: another program was changing the database".into(),
        DbError::Poisoned { .. } => {
            "fix the cause, then try again; writes acknowledged as durable are safe".into()
        }
        DbError::Internal { .. } => {
            "this is a bug, please report it; kstone verify checks the database for damage".into()
        }
        DbError::Io { source, .. } => return io_hint(error, source, command.writes()),
        _ => return None,
    })
}

fn io_hint(error: &DbError, source: &io::Error, writes: bool) -> Option<String> {
    Some(match (source.kind(), writes) {
        (io::ErrorKind::ReadOnlyFilesystem, true) => {
            "the file system is mounted read-only; read-only commands work".into()
        }
        (io::ErrorKind::ReadOnlyFilesystem, false) => return None,
        (io::ErrorKind::PermissionDenied, true) => {
            "check the owner and the permissions; read-only commands need only read access".into()
        }
        (io::ErrorKind::PermissionDenied, false) => "check the owner and the permissions".into(),
        // Such as too many open files.
        _ => return error.hint().map(str::to_owned),
    })
}

/// What to do about damage.
pub(crate) fn damage_hint(database: Option<&Path>) -> String {
    let db = database.map_or_else(|| "DB".into(), typed);
    format!(
        "kstone verify {db} lists all damage, kstone repair {db} --dry-run what can be saved; nothing was changed"
    )
}

/// A path as it would be typed in a shell.
fn typed(path: &Path) -> String {
    let here = current_dir();
    let from_here = here.as_deref().and_then(|dir| path.strip_prefix(dir).ok());
    let shown = escape::path(from_here.filter(|rest| !rest.as_os_str().is_empty()).unwrap_or(path));
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%,:=".contains(c);
    if !shown.is_empty() && shown.chars().all(plain) {
        return shown;
    }
    format!("'{}'", shown.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn errors() -> Vec<DbError> {
        let (path, why) = (|| std::path::PathBuf::from("my.db"), || String::from("why"));
        let io = |kind: io::ErrorKind| DbError::Io { op: "open", path: path(), source: kind.into() };
        vec![
            DbError::NotFound { path: path() },
            DbError::AlreadyExists { path: path(), detail: why() },
            DbError::NotADatabase { path: path(), detail: why() },
            DbError::Locked { path: path(), pid: None },
            DbError::DiskFull,
            DbError::Corruption { file: path(), offset: 0, detail: why() },
            DbError::UnsupportedFormat { file: path(), found: why(), supported: why() },
            DbError::InvalidKey { why: why() },
            DbError::KeyTooLarge { len: 2, max: 1 },
            DbError::ItemTooLarge { len: 2, max: 1 },
            DbError::BatchTooLarge { len: 2, max: 1 },
            DbError::InvalidNumber { attribute: why(), why: why() },
            DbError::InvalidItem { why: why() },
            DbError::ConditionFailed { old: None },
            DbError::TransactionCancelled { reasons: vec![None] },
            DbError::Conflict { attempts: 16 },
            DbError::ExpressionSyntax { text: why(), at: 0, expected: why() },
            DbError::InvalidExpression { why: why() },
            DbError::UpdateFailed { path: why(), why: why() },
            DbError::InvalidToken { why: why() },
            DbError::InvalidConfig { field: "stripes", why: why() },
            DbError::WriteStalled { why: why() },
            DbError::Busy,
            DbError::Cancelled,
            DbError::ReadOnly,
            DbError::Closed,
            DbError::Poisoned { cause: why() },
            DbError::Internal { what: why() },
            io(io::ErrorKind::ReadOnlyFilesystem),
            io(io::ErrorKind::PermissionDenied),
            io(io::ErrorKind::Other),
            DbError::Io { op: "open", path: path(), source: io::Error::from_raw_os_error(24) },
        ]
    }

    /// Symptom: the hint for a damaged file named no command, and a permission error in a read-only command mentioned
    /// `open_read_only`, a call of the library.
    /// Cause: hints of the library were passed on.
    /// Fix: the command line has its own hints, which depend on whether the command writes.
    #[test]
    fn hints_are_for_people_at_a_command_line() {
        const DAMAGE: &str = "kstone verify my.db lists all damage, kstone repair my.db --dry-run what can be \
                              saved; nothing was changed";
        // Hints for a command that reads, and for one that writes; `=`: the same.
        let expected: &[(&str, &str, &str)] = &[
            ("not_found", "kstone create my.db creates one", "="),
            ("already_exists", "choose a path that does not exist, or an empty directory", "="),
            ("not_a_database", "check the path; nothing in it was changed", "="),
            (
                "locked",
                "end the program that has it open, then try again; read-only commands work meanwhile",
                "=",
            ),
            ("disk_full", "free space on the disk; acknowledged writes are not lost", "="),
            ("corruption", DAMAGE, "="),
            (
                "unsupported_format",
                "use the kstone of the version that wrote it, or a newer one; nothing was changed",
                "=",
            ),
            ("invalid_key", "a partition key has at least one byte", "="),
            ("key_too_large", "shorten the key, or hash its long part", "="),
            ("item_too_large", "split the item", "="),
            ("batch_too_large", "split the batch; nothing of it was written", "="),
            ("invalid_number", "numbers are finite decimals of up to 38 significant digits", "="),
            ("invalid_item", "", "="),
            ("condition_failed", "nothing was written", "="),
            ("transaction_cancelled", "nothing was written", "="),
            ("conflict", "nothing was written", "="),
            (
                "expression_syntax",
                "a name that is reserved or not a plain word needs a placeholder: --name '#n=NAME'",
                "=",
            ),
            ("invalid_expression", "", "="),
            ("update_failed", "nothing was written", "="),
            ("invalid_token", "repeat the command that printed it, and add --after", "="),
            ("invalid_config", "", "="),
            ("write_stalled", "try again later; nothing was written", "="),
            ("busy", "try again: another program was changing the database", "="),
            ("cancelled", "", "="),
            ("read_only", "", "="),
            ("closed", "", "="),
            ("poisoned", "fix the cause, then try again; writes acknowledged as durable are safe", "="),
            (
                "internal",
                "this is a bug, please report it; kstone verify checks the database for damage",
                "=",
            ),
            ("io", "", "the file system is mounted read-only; read-only commands work"),
            (
                "io",
                "check the owner and the permissions",
                "check the owner and the permissions; read-only commands need only read access",
            ),
            ("io", "", "="),
            ("io", "close other files, or raise the limit on open files (ulimit -n)", "="),
        ];
        let command = |args: &[&str]| Cli::try_parse_from(args).unwrap().command;
        let reading = command(&["kstone", "get", "my.db", "k"]);
        let writing = command(&["kstone", "delete", "my.db", "k"]);
        assert!(!reading.writes() && writing.writes());
        let errors = errors();
        assert_eq!(errors.len(), expected.len());
        for (error, (code, when_reading, when_writing)) in errors.iter().zip(expected) {
            assert_eq!(error.code(), *code);
            let when_writing = if *when_writing == "=" { when_reading } else { when_writing };
            for (command, expected) in [(&reading, when_reading), (&writing, when_writing)] {
                let hint = hint_for(error, command).unwrap_or_default();
                assert_eq!(hint, **expected, "{code}");
                for call in ["open_", "with_", "handle", "()"] {
                    assert!(!hint.contains(call), "{code}: {hint}");
                }
            }
        }
    }

    #[test]
    fn paths_in_hints_can_be_pasted() {
        assert_eq!(typed(Path::new("a/b-1.db")), "a/b-1.db");
        assert_eq!(typed(Path::new("my db's")), r"'my db'\''s'");
        assert_eq!(typed(Path::new("")), "''");
    }

    #[test]
    fn what_the_system_says_is_told_once() {
        let system = || io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(
            message(&Error::from(system()).context("cannot read x")),
            "cannot read x: entity not found"
        );
        let told = DbError::Io { op: "open", path: "x".into(), source: system() };
        assert_eq!(message(&told.into()), "cannot open x: entity not found");
    }
}
