//! `kstone import`: JSON Lines into a database.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read};
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use kstone_api::{Database, Item, Key, Value, WriteBatch};
use serde_json::json;

use crate::args::{Format, ImportArgs, OnError};
use crate::failure::{Failure, exit};
use crate::output::{counted, print_result};

/// Items of one batch: enough that its cost does not count, few enough to be far below any limit.
const BATCH_ITEMS: usize = 500;
/// A batch is written early when its lines are this long together.
const BATCH_BYTES: usize = 4 << 20;
/// The longest line that is read into memory.
const MAX_LINE: u64 = 512 << 20;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Rejected lines that are told one by one.
const MAX_TOLD: u64 = 20;

pub(crate) fn run(args: &ImportArgs, format: Format) -> Result<()> {
    // Before the database: a misspelt file must not leave an empty one behind.
    let (input, bar) = open_input(&args.file)?;
    let db =
        if args.create { Database::open_or_create(&args.db.path)? } else { Database::open(&args.db.path)? };
    let mut import = Import {
        args,
        max_item: db.config().max_item_bytes,
        max_key: db.config().max_key_bytes,
        db,
        batch: WriteBatch::new(),
        batch_bytes: 0,
        imported: 0,
        rejected: 0,
    };
    let stopped = import.read(input, &bar);
    bar.finish_and_clear();
    let (imported, rejected) = (import.imported, import.rejected);
    import.db.close()?;
    let stopped = stopped?;
    let mut text = format!("imported {}", counted(imported, "item"));
    if rejected > 0 {
        text += &format!(", rejected {}", counted(rejected, "line"));
    }
    print_result(
        format,
        &text,
        json!({"schema": "kstone.import/1", "imported": imported, "rejected": rejected}),
    )?;
    match (stopped, rejected) {
        (Some(failure), _) => Err(failure.into()),
        (None, 0) => Ok(()),
        (None, n) => Err(Failure {
            exit: exit::REJECTED,
            code: "rejected",
            message: format!("{} not imported", counted(n, "line")),
            hint: None,
        }
        .into()),
    }
}

struct Import<'a> {
    args: &'a ImportArgs,
    db: Database,
    max_item: usize,
    max_key: usize,
    batch: WriteBatch,
    batch_bytes: usize,
    imported: u64,
    rejected: u64,
}

impl Import<'_> {
    /// Reads to the end, or to the line that stops it.
    fn read(&mut self, mut input: Box<dyn BufRead>, bar: &ProgressBar) -> Result<Option<Failure>> {
        let mut line = Vec::new();
        for number in 1u64.. {
            line.clear();
            let read = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
            if read.with_context(|| format!("cannot read line {number} of {}", self.args.file.display()))?
                == 0
            {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            if let Err(why) = self.add(&line) {
                if self.args.on_error == OnError::Fail {
                    self.write()?;
                    return Ok(Some(rejected(number, &why)));
                }
                self.rejected += 1;
                if self.rejected <= MAX_TOLD {
                    bar.suspend(|| anstream::eprintln!("warning: line {number}: {why}"));
                } else if self.rejected == MAX_TOLD + 1 {
                    bar.suspend(|| {
                        anstream::eprintln!("warning: more lines are rejected, only counted from here on")
                    });
                }
            }
            if self.batch.len() >= BATCH_ITEMS || self.batch_bytes >= BATCH_BYTES {
                self.write()?;
                bar.set_message(counted(self.imported, "item"));
            }
        }
        self.write()?;
        Ok(None)
    }

    /// Adds the item of a line to the batch, or says why it cannot be stored.
    fn add(&mut self, line: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(line).map_err(|e| format!("not UTF-8: {e}"))?;
        let item = Item::from_json_str(text).map_err(|e| e.to_string())?;
        let partition = key_text(&item, &self.args.key_attr)?;
        let sort = self.args.sort_attr.as_ref().map(|name| key_text(&item, name)).transpose()?;
        let key = match sort {
            None => Key::from(partition),
            Some(sort) => Key::from((partition, sort)),
        };
        if key.partition().is_empty() {
            return Err(format!("attribute {:?}, the key, is empty", self.args.key_attr));
        }
        if key.len() > self.max_key {
            return Err(format!("its key is {} bytes, the limit is {}", key.len(), self.max_key));
        }
        // The stored form is hardly ever longer than the JSON: only long lines are worth a second look.
        if line.len() > self.max_item / 2 {
            let len = item.encode().map_err(|e| e.to_string())?.len();
            if len > self.max_item {
                return Err(format!("the item is {len} bytes, the limit is {}", self.max_item));
            }
        }
        let key = key.into_owned();
        self.batch.put(key, item).map_err(|e| e.to_string())?;
        self.batch_bytes += line.len();
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let items = batch.len() as u64;
        self.batch_bytes = 0;
        self.db.write(batch)?;
        self.imported += items;
        Ok(())
    }
}

fn rejected(line: u64, why: &str) -> Failure {
    Failure {
        exit: exit::REJECTED,
        code: "rejected",
        message: format!("line {line}: {why}"),
        hint: Some("the lines before it are imported; --on-error skip leaves such lines out".into()),
    }
}

/// The text of an attribute that is part of the key.
fn key_text<'a>(item: &'a Item, name: &str) -> Result<&'a str, String> {
    match item.get(name) {
        Some(Value::S(text)) => Ok(text),
        Some(Value::N(number)) => Ok(number.as_str()),
        Some(_) => Err(format!("attribute {name:?} is neither a string nor a number")),
        None => Err(format!("there is no attribute {name:?}")),
    }
}

/// The input, gunzipped if need be, and a bar that follows it.
#[expect(clippy::disallowed_methods, reason = "the user's own file, which is no part of a database")]
fn open_input(path: &Path) -> Result<(Box<dyn BufRead>, ProgressBar)> {
    let failed = || format!("cannot read {}", path.display());
    let (raw, len): (Box<dyn Read>, Option<u64>) = if path == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path).with_context(failed)?;
        let metadata = file.metadata().with_context(failed)?;
        (Box::new(file), metadata.is_file().then_some(metadata.len()))
    };
    let bar = progress(len);
    let mut raw = bar.wrap_read(raw);
    // Not fill_buf: a pipe may give a single byte at first.
    let mut start = Vec::with_capacity(GZIP_MAGIC.len());
    raw.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut start).with_context(failed)?;
    let gzipped = start == GZIP_MAGIC;
    let input = BufReader::with_capacity(256 << 10, io::Cursor::new(start).chain(raw));
    if gzipped {
        return Ok((Box::new(BufReader::with_capacity(256 << 10, MultiGzDecoder::new(input))), bar));
    }
    Ok((Box::new(input), bar))
}

fn progress(len: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match len {
        Some(len) => {
            (ProgressBar::new(len), "{bar:30} {percent:>3} %  {binary_bytes_per_sec}  {msg}  {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {binary_bytes}  {binary_bytes_per_sec}  {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
