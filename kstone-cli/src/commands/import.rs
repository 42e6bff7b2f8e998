//! `kstone import`: stores JSON Lines in a database.
//!
//! However it ends, items read before that are stored and counted, and the line to continue from is printed.

use std::collections::HashSet;
use std::io::{self, BufRead};

use anyhow::Result;
use indicatif::ProgressBar;
use kstone_api::{Database, EncodedItem, Error, JsonLines, Key, WriteBatch, escape};
use serde_json::json;

use crate::args::{Format, ImportArgs, OnError};
use crate::failure::{Failure, exit};
use crate::input;
use crate::interrupt::{Interrupt, interrupted};
use crate::key_types::of_attribute;
use crate::output::{counted, grouped, print_result, tell};

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
    let db =
        if args.create { Database::open_or_create(&args.db.path)? } else { Database::open(&args.db.path)? };
    let config = db.config();
    let mut import = Import {
        args,
        interrupt: &interrupt,
        bar: &bar,
        db,
        max_key: config.max_key_bytes,
        max_batch: config.max_batch_bytes.min(BATCH_BYTES),
        pending: Vec::new(),
        pending_bytes: 0,
        keys: HashSet::new(),
        done: Counts::default(),
    };
    let mut lines = JsonLines::new(input, config.max_item_bytes);
    let read =
        lines.skip_lines(args.from_line.saturating_sub(1)).map_err(|e| Stopped::Input(lines.line(), e));
    let stopped = read.and_then(|()| import.read(&mut lines)).err();
    // The pending lines precede the line that reading stopped at.
    let stopped = import.write().err().or(stopped);
    bar.finish_and_clear();
    let Import { db, done, .. } = import;
    let closed = db.close();
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

fn report(args: &ImportArgs, format: Format, done: &Counts, next_line: Option<u64>) -> Result<()> {
    let mut text = format!("imported {}", counted(done.imported, "item"));
    if done.replaced > 0 {
        text += &format!(", {} replaced", grouped(done.replaced));
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
    let json = json!({
        "schema": "kstone.import/1",
        "imported": done.imported,
        "replaced": done.replaced,
        "rejected": done.rejected,
        "numbers_as_text": done.numbers,
        "next_line": next_line,
    });
    print_result(format, &text, json)
}

#[derive(Default)]
struct Counts {
    imported: u64,
    /// Of those imported: items whose key already had an item, from this import or from before.
    replaced: u64,
    rejected: u64,
    /// Of those imported: items with a number stored as text in their key.
    numbers: u64,
}

/// Why the import stopped early, and the first line that is not stored.
enum Stopped {
    BadLine(u64, String),
    Input(u64, io::Error),
    Interrupted(u64),
    Database(u64, Error),
}

impl Stopped {
    fn line(&self) -> u64 {
        let (Self::BadLine(line, _)
        | Self::Input(line, _)
        | Self::Interrupted(line)
        | Self::Database(line, _)) = self;
        *line
    }

    fn into_error(self, args: &ImportArgs, interrupt: &Interrupt) -> anyhow::Error {
        let line = self.line();
        let go_on = format!("the lines before it are imported; --from-line {line} continues there");
        match self {
            Self::BadLine(_, why) => Failure {
                exit: exit::REJECTED,
                code: "rejected",
                message: format!("line {line}: {why}"),
                hint: Some("the lines before it are imported; --on-error skip skips bad lines".into()),
            }
            .into(),
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
    db: Database,
    max_key: usize,
    max_batch: usize,
    pending: Vec<Pending>,
    pending_bytes: usize,
    /// Keys of the pending items.
    keys: HashSet<Key<'static>>,
    done: Counts,
}

impl Import<'_> {
    /// Reads to the end, or until something stops it.
    fn read(&mut self, lines: &mut JsonLines<Box<dyn BufRead>>) -> Result<(), Stopped> {
        loop {
            if self.interrupt.is_seen() {
                return Err(Stopped::Interrupted(lines.line() + 1));
            }
            let item = match lines.next_item() {
                Ok(None) => return Ok(()),
                Ok(Some(item)) => item,
                Err(e) => return Err(Stopped::Input(lines.line(), e)),
            };
            match item.map_err(|e| refusal(&e)).and_then(|item| self.take(lines.line(), item)) {
                Ok(pending) => self.add(pending)?,
                Err(why) => self.reject(lines.line(), &why)?,
            }
        }
    }

    /// Returns the item of a line with its key, or the reason why it cannot be stored.
    fn take(&self, line: u64, item: EncodedItem) -> Result<Pending, String> {
        let view = item.view().map_err(|e| e.to_string())?;
        let part = |kind, name: &String| {
            let value = view.get(name).map_err(|e| e.to_string())?;
            of_attribute(kind, name, value)
        };
        let (partition, mut number) = part(self.args.types.key_type, &self.args.key_attr)?;
        if partition.is_empty() {
            return Err(format!("attribute {:?}, the key, is empty", self.args.key_attr));
        }
        let key = match &self.args.sort_attr {
            None => Key::new(partition),
            Some(name) => {
                let (sort, is_number) = part(self.args.types.sort_type, name)?;
                number |= is_number;
                Key::with_sort(partition, sort)
            }
        };
        if key.len() > self.max_key {
            return Err(format!("its key is {} bytes, the limit is {}", key.len(), self.max_key));
        }
        Ok(Pending { line, key, item, replaces: false, number })
    }

    fn add(&mut self, mut pending: Pending) -> Result<(), Stopped> {
        // A zero byte of a key is encoded as two bytes.
        let bytes = pending.item.as_bytes().len() + 2 * pending.key.len() + OPERATION;
        if self.pending.len() >= BATCH_ITEMS || self.pending_bytes + bytes > self.max_batch {
            self.write()?;
        }
        let there = self.db.contains(&pending.key).map_err(|e| Stopped::Database(pending.line, e))?;
        pending.replaces = !self.keys.insert(pending.key.clone()) || there;
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
        let written = match pending {
            [] => return Ok(()),
            // Not as a batch, which has a limit of its own.
            [one] => self.db.put_encoded(&one.key, &one.item),
            many => {
                let mut batch = WriteBatch::new();
                let added =
                    many.iter().try_for_each(|one| batch.put_encoded(&one.key, one.item.clone()).map(drop));
                added.and_then(|()| self.db.write(batch))
            }
        };
        let line = pending.first().map_or(0, |one| one.line);
        match written {
            Ok(()) => {
                let count =
                    |which: fn(&Pending) -> bool| pending.iter().filter(|one| which(one)).count() as u64;
                self.done.imported += pending.len() as u64;
                self.done.replaced += count(|one| one.replaces);
                self.done.numbers += count(|one| one.number);
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

/// The reason why an item cannot be stored.
pub(super) fn refusal(error: &Error) -> String {
    match error {
        // The actual length is unknown: reading stopped at the limit.
        Error::ItemTooLarge { max, .. } => format!("the item is longer than the limit of {max} bytes"),
        other => other.to_string(),
    }
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
