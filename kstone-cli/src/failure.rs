//! How failures are reported: one `error:` line, the place in an expression, at most one `hint:` line, and the exit status.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Error;
use clap::builder::styling::{AnsiColor, Style};
use kstone_api::{Database, Error as DbError, Exhausted, ItemView, Key, escape};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::args::{Cli, Command, Format};
use crate::output::{cell, tell};

/// Exit statuses; 0 is success, and clap also uses 2.
pub(crate) mod exit {
    /// A negative answer: no such key, an alert, or a write that its condition or the item refuses.
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

    pub(crate) fn no_such_key(key: &Key<'_>) -> Self {
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
    if message.is_empty() {
        // A command that runs until it is interrupted.
        return ExitCode::from(exit);
    }
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
        if let Some((text, at)) = misread(error) {
            tell(excerpt(text, at));
        }
        if let (Some(there), Some(hint)) = (there(error), &mut hint) {
            hint.push_str(&format!("; the item is {there}"));
        }
        if cli.verbose {
            // The place in an expression was shown.
            for cause in error.chain().skip(1).filter(|_| misread(error).is_none()) {
                tell(format_args!("cause: {}", escape::text(&cause.to_string())));
            }
        }
        if let Some(hint) = hint {
            tell(format_args!("{good}hint:{good:#} {}", escape::text(&hint)));
        }
    } else {
        let report = Report { code, message: &message, hint: hint.as_deref(), details: details(error) };
        // Cannot fail: names are strings.
        let json = serde_json::to_string(&Document { error: report }).unwrap_or_default();
        tell(escape::json(&json));
    }
    ExitCode::from(exit)
}

/// A failure as JSON.
#[derive(Serialize)]
struct Document<'a> {
    error: Report<'a>,
}

#[derive(Serialize)]
struct Report<'a> {
    code: &'a str,
    message: &'a str,
    hint: Option<&'a str>,
    #[serde(flatten)]
    details: Option<Details<'a>>,
}

/// What a program needs to go on.
#[derive(Serialize)]
#[serde(untagged)]
enum Details<'a> {
    /// The item that a condition did not hold for, if there is one.
    Item { item: Option<Box<RawValue>> },
    /// An expression, and the byte at which it cannot be read.
    Expression { expression: &'a str, at: usize },
}

fn details(error: &Error) -> Option<Details<'_>> {
    if let Some((expression, at)) = misread(error) {
        return Some(Details::Expression { expression, at });
    }
    let refused = refused(error)?;
    let item = ItemView::of_failed(refused).and_then(|view| view.to_item().ok());
    Some(Details::Item { item: item.and_then(|item| RawValue::from_string(item.to_string()).ok()) })
}

/// The expression that could not be read, and the byte where.
fn misread(error: &Error) -> Option<(&str, usize)> {
    error.chain().find_map(|cause| match cause.downcast_ref::<DbError>()? {
        DbError::ExpressionSyntax { text, at, .. } => Some((text.as_str(), *at)),
        _ => None,
    })
}

fn refused(error: &Error) -> Option<&DbError> {
    let known = error.chain().find_map(|cause| cause.downcast_ref::<DbError>());
    known.filter(|error| matches!(error, DbError::ConditionFailed { .. }))
}

/// The item that a condition did not hold for, as in a table.
fn there(error: &Error) -> Option<String> {
    let view = ItemView::of_failed(refused(error)?)?;
    Some(cell(&view.to_item().ok()?, view.as_bytes().len()))
}

/// Characters of an expression that are shown on each side of a position.
const AROUND: usize = 40;

/// A position in an expression: the text around it, and a caret below. Whatever was read before it is ASCII.
fn excerpt(text: &str, at: usize) -> String {
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    let space = |c: char| if c.is_ascii_whitespace() { ' ' } else { c };
    let mut around: Vec<char> = before.chars().rev().take(AROUND).map(space).collect();
    around.reverse();
    let before = around.iter().collect::<String>();
    let before = escape::text(&before);
    let after: String = after.chars().take(AROUND).map(space).collect();
    let column = before.chars().count();
    format!("  {before}{}\n  {:column$}^", escape::text(after.trim_end()), "")
}

/// Which resource of a database is exhausted, with its figures, and what to do about it.
fn shortage(path: &Path) -> Option<(String, &'static str)> {
    let usage =
        Database::builder(path).hold_ssts(false).open_read_only().and_then(|db| db.disk_usage()).ok()?;
    let (exhausted, figures) = usage.shortage();
    let what_now = match exhausted {
        Exhausted::Quota => {
            "delete items, or raise the quota with kstone config set DB max_total_disk_bytes=SIZE; acknowledged \
             writes are not lost"
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
        DbError::Locked { .. } if matches!(command, Command::Config(_)) => {
            "the program that has it open must call set_config itself, or end first; kstone config DB shows the \
             settings meanwhile"
                .into()
        }
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
        DbError::ExpressionSyntax { text, at, expected } => return syntax_hint(text, *at, expected),
        DbError::InvalidExpression { why } if why.contains("there is no value for ") => {
            "values are given as JSON: --value ':v=3', --value ':v=\"text\"'".into()
        }
        DbError::InvalidExpression { why } if why.contains("there is no name for ") => {
            "names are given apart: --name '#n=NAME'".into()
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

/// What to write instead of a value or a name that cannot stand in an expression.
fn syntax_hint(text: &str, at: usize, expected: &str) -> Option<String> {
    let rest = text.get(at..).unwrap_or_default();
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let word = rest.get(..end).unwrap_or_default();
    let literal = ["true", "false", "null"].into_iter().find(|literal| literal.eq_ignore_ascii_case(word));
    if let Some(literal) = literal {
        return Some(format!("values are given apart: write :v, and add --value ':v={literal}'"));
    }
    if rest.is_empty() {
        return None;
    }
    if expected.contains(":v") {
        return Some("values are given apart: write :v, and add --value ':v=3' or ':v=\"text\"'".into());
    }
    if expected.starts_with("a name, and ") {
        return Some(format!("write #{word}, and add --name '#{word}={word}'"));
    }
    Some("a name that is reserved or not a plain word needs a placeholder: --name '#n=NAME'".into())
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
pub(crate) fn typed(path: &Path) -> String {
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
    fn hints_for_expressions_depend_on_what_stands_there() {
        let hint =
            |text: &str, at: usize, expected: &str| syntax_hint(text, at, expected).unwrap_or_default();
        let operand = "a path, a value such as :v, or a function";
        assert!(hint("n = 3", 4, operand).contains("--value ':v=3'"));
        assert!(hint("n = TRUE", 4, "a name, and TRUE is a reserved word").ends_with("--value ':v=true'"));
        assert_eq!(
            hint("status = :v", 0, "a name, and STATUS is a reserved word"),
            "write #status, and add --name '#status=status'"
        );
        assert!(hint("first-name = :v", 5, "=, <>, or IN").contains("--name '#n=NAME'"));
        assert_eq!((hint("n =", 3, operand), hint("ä", 1, operand)), (String::new(), String::new()));
    }

    /// A caret stands below the position, whatever the text contains.
    #[test]
    fn positions_in_expressions() {
        assert_eq!(excerpt("a = 3", 4), "  a = 3\n      ^");
        assert_eq!(excerpt("a =\n\t\u{1b}[31m\u{202e}", 5), "  a =  \\x1b[31m\\xe2\\x80\\xae\n       ^");
        assert_eq!(excerpt("a = ", 4), "  a = \n      ^");
        assert_eq!(excerpt("", 0), "  \n  ^");
        let long = format!("{} !{}", "a".repeat(100), "b".repeat(100));
        assert_eq!(excerpt(&long, 101), format!("  {} !{}\n{:42}^", "a".repeat(39), "b".repeat(39), ""));
        // Not a place in this text: nothing is lost, and nothing fails.
        assert_eq!(excerpt("ä", 1), "  ä\n   ^");
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
