//! What went wrong: one `error:` line, at most one `hint:` line, and the exit status.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Error;
use clap::builder::styling::{AnsiColor, Style};
use kstone_api::{Database, Error as DbError, Exhausted};

use crate::args::{Cli, Format};

/// The exit statuses; 0 is success, and 2 is also clap's.
pub(crate) mod exit {
    /// A clear "no": there is no such key, or an alert.
    pub(crate) const NO: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const CORRUPTION: u8 = 3;
    /// Missing, permission, I/O, disk full.
    pub(crate) const ENVIRONMENT: u8 = 4;
    pub(crate) const LOCKED: u8 = 5;
    /// Data is lost, or lines were rejected.
    pub(crate) const REJECTED: u8 = 6;
    /// As the shell tells of SIGINT.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// A failure that is not one of the database's.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: u8,
    /// A stable word for programs.
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

    pub(crate) fn no_such_key(key: &str) -> Self {
        Self {
            exit: exit::NO,
            code: "no_such_key",
            message: format!("there is no item under {key}"),
            hint: None,
        }
    }
}

/// Prints the error and gives the exit status.
pub(crate) fn report(error: &Error, cli: &Cli) -> ExitCode {
    if is_closed_pipe(error) {
        // The reader has seen enough, as `head` does.
        return ExitCode::SUCCESS;
    }
    let (exit, code, mut hint) = classify(error);
    let mut message = error.to_string();
    if code == DbError::DiskFull.code()
        && let Some((figures, what_now)) = cli.command.written().and_then(shortage)
    {
        message = format!("{message}: {figures}");
        hint = Some(what_now.into());
    }
    if cli.format == Format::Table {
        let bad = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
        let good = Style::new().bold().fg_color(Some(AnsiColor::Green.into()));
        anstream::eprintln!("{bad}error:{bad:#} {}", one_line(&message));
        if cli.verbose {
            for cause in error.chain().skip(1) {
                anstream::eprintln!("cause: {}", one_line(&cause.to_string()));
            }
        }
        if let Some(hint) = hint {
            anstream::eprintln!("{good}hint:{good:#} {hint}");
        }
    } else {
        let json = serde_json::json!({"error": {"code": code, "message": message, "hint": hint}});
        anstream::eprintln!("{json}");
    }
    ExitCode::from(exit)
}

/// What has run out for a database, in words, and what to do about that.
fn shortage(path: &Path) -> Option<(String, &'static str)> {
    let usage = Database::open_read_only(path).and_then(|db| db.disk_usage()).ok()?;
    let (exhausted, figures) = usage.shortage();
    let what_now = match exhausted {
        Exhausted::Quota => {
            "delete items, or raise max_total_disk_bytes where the database is opened; nothing that was acknowledged is \
             lost"
        }
        Exhausted::Inodes => {
            "remove files from the file system, or delete items and run kstone compact; nothing that was acknowledged is \
             lost"
        }
        _ => "make room on the file system; nothing that was acknowledged is lost",
    };
    Some((figures, what_now))
}

/// Texts of others may hold line breaks and control characters.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

pub(crate) fn is_closed_pipe(error: &Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn classify(error: &Error) -> (u8, &'static str, Option<String>) {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return (failure.exit, failure.code, failure.hint.clone());
        }
        if let Some(e) = cause.downcast_ref::<DbError>() {
            return (exit_of(e), e.code(), hint_for(e));
        }
    }
    (exit::ENVIRONMENT, "io", None)
}

fn exit_of(error: &DbError) -> u8 {
    match error {
        DbError::Corruption { .. } => exit::CORRUPTION,
        DbError::Locked { .. } => exit::LOCKED,
        DbError::InvalidKey { .. }
        | DbError::KeyTooLarge { .. }
        | DbError::ItemTooLarge { .. }
        | DbError::BatchTooLarge { .. }
        | DbError::InvalidNumber { .. }
        | DbError::InvalidItem { .. }
        | DbError::InvalidConfig { .. } => exit::USAGE,
        _ => exit::ENVIRONMENT,
    }
}

/// What to do on the command line; the library's own hints speak of its calls.
fn hint_for(error: &DbError) -> Option<String> {
    Some(match error {
        DbError::NotFound { path } => format!("kstone create {} makes a new one", path.display()),
        DbError::AlreadyExists { .. } => "choose a path that does not exist, or an empty directory".into(),
        DbError::Locked { .. } => "end the program that has it open, then try again".into(),
        DbError::ItemTooLarge { .. } => "split the item".into(),
        DbError::DiskFull => "make room on the disk; nothing that was acknowledged is lost".into(),
        other => return other.hint().map(str::to_owned),
    })
}
