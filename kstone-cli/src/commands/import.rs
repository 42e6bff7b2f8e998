//! `kstone import`: stores items from DynamoDB JSON, JSON Lines or CSV in a database.
//!
//! However it ends, items read before that are stored and counted, and the line to continue from is printed.

use std::collections::HashSet;
use std::io;

use anyhow::Result;
use indicatif::ProgressBar;
use kstone_api::{Database, DatabaseConfig, EncodedItem, Error, Key, WriteBatch, escape};
use serde_json::json;

use crate::args::{Format, ImportArgs, OnConflict, OnError};
use crate::commands::open_to_read;
use crate::failure::{Failure, exit};
use crate::input;
use crate::interrupt::{Interrupt, interrupted};
use crate::output::{counted, grouped, print_result, tell};
use crate::records::{Form, Limits, Record, Records, refusal};

/// Items per batch: enough to amortise its overhead.
const BATCH_ITEMS: usize = 500;
/// Bytes per batch, unless the database allows fewer. A larger item gets a batch of its own.
const BATCH_BYTES: usize = 4 << 20;
/// Upper bound on the overhead of an operation in the log, beyond its key and item.
const OPERATION: usize = 32;
/// Rejected lines that are reported one by one.
const MAX_TOLD: u64 = 20;
/// The longest reason that is printed.
const MAX_REASON: usize = 300;

pub(crate) fn run(args: &ImportArgs, format: Format) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    // Before the database is opened: a misspelt file name must not leave an empty database behind.
    let (input, bar) = match input::open(&args.file, &interrupt) {
        Err(_) if interrupt.is_seen() => return Err(interrupted("nothing was read", None).into()),
        opened => opened?,
    };
    let (start, input) = input::first_line(input);
    let form = Form::of(args, &start)?;
    drop(start);
    let db = open(args)?;
    let config = db.as_ref().map_or_else(DatabaseConfig::default, Database::config);
    let limits = Limits { key: config.max_key_bytes, item: config.max_item_bytes };
    let mut import = Import {
        args,
        interrupt: &interrupt,
        bar: &bar,
        db,
        max_batch: config.max_batch_bytes.min(BATCH_BYTES),
        pending: Vec::new(),
        pending_bytes: 0,
        keys: HashSet::new(),
        done: Counts::default(),
    };
    let mut records = Records::new(form, input, args, limits);
    let stopped = import.read(&mut records).err();
    // The pending lines precede the line that reading stopped at.
    let stopped = import.write().err().or(stopped);
    bar.finish_and_clear();
    let Import { db, done, .. } = import;
    let closed = db.map_or(Ok(()), Database::close);
    report(args, format, &done, stopped.as_ref().map(Stopped::line))?;
    if let Some(stopped) = stopped {
        return Err(stopped.into_error(args, &interrupt));
    }
    closed?;
    if done.rejected == 0 {
        return Ok(());
    }
    let message = format!("{} not imported", counted(done.rejected, "line"));
    Err(Failure { exit: exit::REJECTED, code: "rejected", message, hint: None }.into())
}

/// Opens the database; `None` for a dry run on one that would be created.
fn open(args: &ImportArgs) -> Result<Option<Database>> {
    if args.dry_run {
        return match open_to_read(&args.db) {
            Err(e) if args.create && matches!(e.downcast_ref(), Some(Error::NotFound { .. })) => Ok(None),
            opened => opened.map(Some),
        };
    }
    let path = &args.db.path;
    Ok(Some(if args.create { Database::open_or_create(path)? } else { Database::open(path)? }))
}

fn report(args: &ImportArgs, format: Format, done: &Counts, next_line: Option<u64>) -> Result<()> {
    let verb = if args.dry_run { "would import" } else { "imported" };
    let mut text = format!("{verb} {}", counted(done.imported, "item"));
    if done.replaced > 0 {
        text += &format!(", {} replaced", grouped(done.replaced));
    }
    if done.skipped > 0 {
        text += &format!(", skipped {} that are there already", grouped(done.skipped));
    }
    if done.rejected > 0 {
        text += &format!(", rejected {}", counted(done.rejected, "line"));
    }
    if done.numbers > 0 {
        let option = if args.types.key_type.is_none() { "--key-type" } else { "--sort-type" };
        warn(&format!(
            "{} had a number as a key, stored as text: 10 sorts before 2, 1 and 1.0 are two keys, and 1 and \"1\" \
             are one; {option} N makes them sort as numbers, {option} S keeps them as text without this warning",
            counted(done.numbers, "item"),
        ));
    }
    let mut json = json!({
        "schema": "kstone.import/1",
        "imported": done.imported,
        "replaced": done.replaced,
        "rejected": done.rejected,
        "numbers_as_text": done.numbers,
        "next_line": next_line,
    });
    if args.on_conflict == OnConflict::Skip {
        json["skipped"] = done.skipped.into();
    }
    if args.dry_run {
        json["dry_run"] = true.into();
    }
    print_result(format, &text, json)
}

#[derive(Default)]
struct Counts {
    imported: u64,
    /// Of those imported: items whose key already had an item, from this import or from before.
    replaced: u64,
    /// Items that were skipped because their key already had an item.
    skipped: u64,
    rejected: u64,
    /// Of those imported: items with a number stored as text in their key.
    numbers: u64,
}

/// Why the import stopped early, and the first line that is not stored.
enum Stopped {
    BadLine(u64, String),
    Conflict(u64, Key<'static>),
    Header(u64, String),
    Input(u64, io::Error),
    Interrupted(u64),
    Database(u64, Error),
}

impl Stopped {
    fn line(&self) -> u64 {
        let (Self::BadLine(line, _)
        | Self::Conflict(line, _)
        | Self::Header(line, _)
        | Self::Input(line, _)
        | Self::Interrupted(line)
        | Self::Database(line, _)) = self;
        *line
    }

    fn into_error(self, args: &ImportArgs, interrupt: &Interrupt) -> anyhow::Error {
        let line = self.line();
        let before = if args.dry_run { "nothing was stored" } else { "the lines before it are imported" };
        let go_on = format!("{before}; --from-line {line} continues there");
        let rejected = |code, why: &str, hint: &str| {
            let (message, hint) = (format!("line {line}: {why}"), Some(format!("{before}; {hint}")));
            anyhow::Error::from(Failure { exit: exit::REJECTED, code, message, hint })
        };
        match self {
            Self::BadLine(_, why) => rejected("rejected", &why, "--on-error skip skips bad lines"),
            Self::Conflict(_, key) => rejected(
                "conflict",
                &format!("there is an item under {key} already"),
                "--on-conflict skip or replace goes on",
            ),
            Self::Header(_, why) => rejected("rejected", &why, "the first line of CSV names its columns"),
            Self::Interrupted(_) => interrupted(&format!("at line {line}"), Some(go_on)).into(),
            Self::Input(..) if interrupt.is_seen() => {
                interrupted(&format!("at line {line}"), Some(go_on)).into()
            }
            Self::Input(_, e) => Failure {
                exit: exit::ENVIRONMENT,
                code: "io",
                message: format!("cannot read line {line} of {}: {e}", args.file.display()),
                hint: Some(go_on),
            }
            .into(),
            // Keeps the exit status and the hint of the database's error.
            Self::Database(_, e) => {
                let message = format!("line {line}: {e}; {go_on}");
                anyhow::Error::from(e).context(message)
            }
        }
    }
}

/// An item waiting to be written.
struct Pending {
    line: u64,
    key: Key<'static>,
    item: EncodedItem,
    replaces: bool,
    number: bool,
}

struct Import<'a> {
    args: &'a ImportArgs,
    interrupt: &'a Interrupt,
    bar: &'a ProgressBar,
    /// `None`: it would be created.
    db: Option<Database>,
    max_batch: usize,
    pending: Vec<Pending>,
    pending_bytes: usize,
    /// Keys of the pending items.
    keys: HashSet<Key<'static>>,
    done: Counts,
}

impl Import<'_> {
    /// Reads to the end, or until something stops it.
    fn read(&mut self, records: &mut Records<'_>) -> Result<(), Stopped> {
        match records.skip_to(self.args.from_line) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(Stopped::Header(records.line(), why)),
            Err(e) => return Err(Stopped::Input(records.line(), e)),
        }
        loop {
            if self.interrupt.is_seen() {
                return Err(Stopped::Interrupted(records.next_line()));
            }
            let record = match records.next() {
                Ok(None) => return Ok(()),
                Ok(Some(record)) => record,
                Err(e) => return Err(Stopped::Input(records.line(), e)),
            };
            let line = records.line();
            match record {
                Ok(Record { key, item, number }) => {
                    self.add(Pending { line, key, item, replaces: false, number })?;
                }
                Err(why) => self.reject(line, &why)?,
            }
        }
    }

    fn add(&mut self, mut pending: Pending) -> Result<(), Stopped> {
        // A zero byte of a key is encoded as two bytes.
        let bytes = pending.item.as_bytes().len() + 2 * pending.key.len() + OPERATION;
        if self.pending.len() >= BATCH_ITEMS || self.pending_bytes + bytes > self.max_batch {
            self.write()?;
        }
        let there = match &self.db {
            Some(db) => db.contains(&pending.key).map_err(|e| Stopped::Database(pending.line, e))?,
            None => false,
        };
        // A dry run compares lines with what is stored alone: to remember all keys would take memory without bound.
        pending.replaces = there || !self.args.dry_run && self.keys.contains(&pending.key);
        match self.args.on_conflict {
            OnConflict::Skip if pending.replaces => {
                self.done.skipped += 1;
                return Ok(());
            }
            OnConflict::Fail if pending.replaces => {
                return Err(Stopped::Conflict(pending.line, pending.key));
            }
            _ => {}
        }
        self.keys.insert(pending.key.clone());
        self.pending_bytes += bytes;
        self.pending.push(pending);
        Ok(())
    }

    fn write(&mut self) -> Result<(), Stopped> {
        self.pending_bytes = 0;
        self.keys.clear();
        let pending = std::mem::take(&mut self.pending);
        let stored = self.store(&pending);
        self.bar.set_message(counted(self.done.imported, "item"));
        stored
    }

    /// Writes one batch, or ever smaller ones if the database has no space for more.
    fn store(&mut self, pending: &[Pending]) -> Result<(), Stopped> {
        let Some(db) = self.db.as_ref().filter(|_| !self.args.dry_run) else {
            self.count(pending);
            return Ok(());
        };
        let written = match pending {
            [] => return Ok(()),
            // Not as a batch, which has a limit of its own.
            [one] => db.put_encoded(&one.key, &one.item),
            many => {
                let mut batch = WriteBatch::new();
                let added =
                    many.iter().try_for_each(|one| batch.put_encoded(&one.key, one.item.clone()).map(drop));
                added.and_then(|()| db.write(batch))
            }
        };
        let line = pending.first().map_or(0, |one| one.line);
        match written {
            Ok(()) => {
                self.count(pending);
                Ok(())
            }
            Err(e) if pending.len() > 1 && (is_refusal(&e) || matches!(e, Error::DiskFull)) => {
                if let Error::BatchTooLarge { max, .. } = e {
                    self.max_batch = self.max_batch.min(max);
                }
                let (first, second) = pending.split_at(pending.len() / 2);
                self.store(first)?;
                self.store(second)
            }
            Err(e) if is_refusal(&e) => self.reject(line, &refusal(&e)),
            Err(e) => Err(Stopped::Database(line, e)),
        }
    }

    fn count(&mut self, stored: &[Pending]) {
        let count = |which: fn(&Pending) -> bool| stored.iter().filter(|one| which(one)).count() as u64;
        self.done.imported += stored.len() as u64;
        self.done.replaced += count(|one| one.replaces);
        self.done.numbers += count(|one| one.number);
    }

    fn reject(&mut self, line: u64, why: &str) -> Result<(), Stopped> {
        let why = shortened(why);
        if self.args.on_error == OnError::Fail {
            return Err(Stopped::BadLine(line, why));
        }
        self.done.rejected += 1;
        if self.done.rejected <= MAX_TOLD {
            self.bar.suspend(|| warn(&format!("line {line}: {why}")));
        } else if self.done.rejected == MAX_TOLD + 1 {
            self.bar.suspend(|| warn("more lines are rejected; from here on they are only counted"));
        }
        Ok(())
    }
}

/// Whether the error is about the item itself, so that retrying would not help.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidKey { .. }
            | Error::KeyTooLarge { .. }
            | Error::ItemTooLarge { .. }
            | Error::BatchTooLarge { .. }
    )
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_REASON) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Prints a warning in one line on stderr.
fn warn(text: &str) {
    tell(format_args!("warning: {}", escape::text(text)));
}
