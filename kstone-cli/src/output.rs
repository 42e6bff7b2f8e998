//! Results on stdout: tables, one JSON document, or JSON Lines.

use std::borrow::Cow;
use std::io::{BufWriter, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use bytesize::ByteSize;
use clap::builder::styling::Style;
use comfy_table::Table;
use kstone_api::{Item, Key, Token, escape};
use serde::Serialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::args::Format;
use crate::failure::is_closed_pipe;

/// Rows per page of a table: a long scan is printed while it is read, one page at a time.
const PAGE: usize = 1000;

/// A page also ends when the text of its rows reaches this length.
const PAGE_BYTES: usize = 256 << 10;
/// Longest text of an item in a table; the rest is cut off.
const CELL_BYTES: usize = 1024;

/// Where results go. Even if a caller forgets to escape, no character that acts on a terminal gets through: see
/// [`escape::is_shown`]. In JSON, such characters occur only in strings, where they become `\u` escapes.
pub(crate) struct Stdout {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
    /// Whether styles are written.
    colour: bool,
    /// The start of a character whose remaining bytes have not been written yet.
    begun: Vec<u8>,
}

pub(crate) fn stdout(format: Format) -> Stdout {
    let out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    let json = format != Format::Table;
    let colour = !json && anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
    Stdout { out, json, colour, begun: Vec::new() }
}

/// Whether anything was written to stdout.
static PRINTED: AtomicBool = AtomicBool::new(false);

pub(crate) fn has_printed() -> bool {
    PRINTED.load(Ordering::Relaxed)
}

/// Records that something else was written to stdout.
pub(crate) fn printing() {
    PRINTED.store(true, Ordering::Relaxed);
}

impl Stdout {
    /// Writes text in a style if colour is on. No meaning may depend on the style.
    pub(crate) fn write_styled(&mut self, style: Style, text: &str) -> std::io::Result<()> {
        if !self.colour {
            return self.write_text(text);
        }
        write!(self.out, "{style}")?;
        self.write_text(text)?;
        write!(self.out, "{style:#}")
    }

    fn write_text(&mut self, text: &str) -> std::io::Result<()> {
        for line in text.split_inclusive('\n') {
            let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
            let shown = if self.json { escape::json(line) } else { escape::text(line) };
            self.out.write_all(shown.as_bytes())?;
            self.out.write_all(end.as_bytes())?;
        }
        Ok(())
    }

    /// Bytes that are not UTF-8.
    fn write_others(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut hex = String::new();
        escape::push_hex(bytes, &mut hex);
        self.out.write_all(hex.as_bytes())
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        PRINTED.store(true, Ordering::Relaxed);
        let whole: Cow<'_, [u8]> = match std::mem::take(&mut self.begun) {
            begun if begun.is_empty() => bytes.into(),
            begun => [begun.as_slice(), bytes].concat().into(),
        };
        let mut rest = &*whole;
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.write_text(text)?;
                    return Ok(bytes.len());
                }
                Err(error) => error,
            };
            let (text, others) = rest.split_at(error.valid_up_to());
            self.write_text(std::str::from_utf8(text).unwrap_or_default())?;
            let Some(len) = error.error_len() else {
                self.begun = others.to_vec();
                return Ok(bytes.len());
            };
            let (bad, after) = others.split_at(len);
            self.write_others(bad)?;
            rest = after;
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let begun = std::mem::take(&mut self.begun);
        self.write_others(&begun)?;
        self.out.flush()
    }
}

/// Prints a line for people to stderr. Errors are ignored: if stderr is unwritable, there is nowhere to report that.
pub(crate) fn tell(line: impl std::fmt::Display) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// Prints one result: a line for people, or a JSON document that names its schema. A closed pipe is not a failure here:
/// the caller may still have one to report.
pub(crate) fn print_result(format: Format, text: &str, json: impl Serialize) -> Result<()> {
    write_result(format, text, json).or_else(|e| if is_closed_pipe(&e) { Ok(()) } else { Err(e) })
}

fn write_result(format: Format, text: &str, json: impl Serialize) -> Result<()> {
    let mut out = stdout(format);
    match format {
        Format::Table => writeln!(out, "{text}")?,
        Format::Json | Format::Jsonl => {
            // In one write: the writer escapes each write on its own.
            let json = serde_json::to_vec(&json).map_err(std::io::Error::from)?;
            out.write_all(&json)?;
            writeln!(out)?;
        }
    }
    Ok(out.flush()?)
}

/// The item under a key, or null.
#[derive(Serialize)]
struct Found {
    schema: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort: Option<String>,
    item: Option<Box<RawValue>>,
}

/// Prints one item. For people, none is an empty output.
pub(crate) fn print_item(format: Format, key: &Key<'_>, item: Option<&Item>) -> Result<()> {
    if item.is_none() && format == Format::Table {
        return Ok(());
    }
    let text = item.map(Item::to_string);
    let found = Found {
        schema: "kstone.item/1",
        key: escape::key(key.partition()),
        sort: key.sort().map(escape::key),
        item: text.clone().map(RawValue::from_string).transpose()?,
    };
    print_result(format, &escape::json(&text.unwrap_or_default()), found)
}

/// A key, with its item if requested.
#[derive(Serialize)]
struct Entry {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<Box<RawValue>>,
}

/// Prints keys and items one at a time, buffering at most one page.
pub(crate) struct EntryWriter {
    out: Stdout,
    format: Format,
    rows: Vec<[String; 3]>,
    /// Length of the text in `rows`.
    bytes: usize,
    pages: usize,
    any: bool,
}

impl EntryWriter {
    pub(crate) fn new(format: Format) -> Result<Self> {
        let mut out = stdout(format);
        if format == Format::Json {
            write!(out, "{{\"schema\":\"kstone.items/1\",\"items\":[")?;
        }
        Ok(Self { out, format, rows: Vec::new(), bytes: 0, pages: 0, any: false })
    }

    /// The item is given with its stored size in bytes.
    pub(crate) fn write(&mut self, key: &Key<'_>, item: Option<(&Item, usize)>) -> Result<()> {
        if self.format == Format::Table {
            let item = item.map(|(item, stored)| cell(item, stored)).unwrap_or_default();
            let row = [escape::key(key.partition()), sort_text(key), item];
            self.bytes += row.iter().map(String::len).sum::<usize>();
            self.rows.push(row);
            if self.rows.len() >= PAGE || self.bytes >= PAGE_BYTES {
                self.write_page()?;
            }
            return Ok(());
        }
        let entry = Entry {
            key: escape::key(key.partition()),
            sort: key.sort().map(escape::key),
            item: item.map(|(item, _)| RawValue::from_string(item.to_string())).transpose()?,
        };
        if self.format == Format::Json {
            write!(self.out, "{}", if self.any { ",\n" } else { "\n" })?;
        }
        let json = serde_json::to_vec(&entry).map_err(std::io::Error::from)?;
        self.out.write_all(&json)?;
        if self.format == Format::Jsonl {
            writeln!(self.out)?;
        }
        self.any = true;
        Ok(())
    }

    fn write_page(&mut self) -> Result<()> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        let used =
            |column: usize| rows.iter().any(|row| row.get(column).is_some_and(|cell| !cell.is_empty()));
        let columns: Vec<usize> = (0..3).filter(|&column| column == 0 || used(column)).collect();
        let pick = |row: [String; 3]| {
            let cells = row.into_iter().enumerate().filter(|(column, _)| columns.contains(column));
            cells.map(|(_, cell)| cell).collect::<Vec<_>>()
        };
        let mut table = plain_table();
        if self.pages == 0 {
            table.set_header(pick(["KEY", "SORT", "ITEM"].map(str::to_owned)));
        }
        table.add_rows(rows.into_iter().map(pick));
        // Two spaces between columns, none before the first.
        table.column_iter_mut().for_each(|column| {
            column.set_padding((0, 2));
        });
        self.pages += 1;
        Ok(write_table(&table, &mut self.out)?)
    }

    /// Prints the buffered rows, without the ending that would make the output look complete. The caller already has an
    /// error to report.
    pub(crate) fn break_off(mut self) {
        if !self.rows.is_empty() {
            let _ = self.write_page();
        }
        let _ = self.out.flush();
    }

    /// Ends the output, with the token to continue after, if more is left: in the document, or beside the items.
    pub(crate) fn finish(mut self, next: Option<&Token>) -> Result<()> {
        match (self.format, next) {
            (Format::Table, _) if !self.rows.is_empty() => self.write_page()?,
            (Format::Json, Some(token)) => writeln!(self.out, "\n],\"next\":\"{token}\"}}")?,
            (Format::Json, None) => writeln!(self.out, "\n]}}")?,
            _ => {}
        }
        self.out.flush()?;
        match (self.format, next) {
            (Format::Table, Some(token)) => tell(format_args!("more: --after {token}")),
            // Every line of stdout is an item.
            (Format::Jsonl, Some(token)) => tell(format_args!("{{\"next\":\"{token}\"}}")),
            _ => {}
        }
        Ok(())
    }
}

/// An item in a table: its JSON, or the beginning of it and the item's size.
pub(crate) fn cell(item: &Item, stored: usize) -> String {
    use std::fmt::Write as _;
    let mut text = Beginning(String::new());
    let whole = write!(text, "{item}").is_ok();
    let shown = escape::json(&text.0);
    if whole { shown.into_owned() } else { format!("{shown}… ({} in all)", size(stored as u64)) }
}

/// Accepts what fits into a cell, then fails.
struct Beginning(String);

impl std::fmt::Write for Beginning {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let free = CELL_BYTES.saturating_sub(self.0.len());
        if text.len() <= free {
            self.0.push_str(text);
            return Ok(());
        }
        let fits = text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= free);
        self.0.extend(fits.map(|(_, c)| c));
        Err(std::fmt::Error)
    }
}

/// A sort key as it is typed: `""` for an empty one, nothing for none.
fn sort_text(key: &Key<'_>) -> String {
    match key.sort() {
        None => String::new(),
        Some(b"") => "\"\"".into(),
        // Otherwise it would look like the empty one.
        Some(b"\"\"") => "\\x22\\x22".into(),
        Some(sort) => escape::key(sort),
    }
}

/// Prints rows under headings. Columns are as wide as their widest cell; the last one is not padded.
pub(crate) fn print_table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> Result<()> {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(headings.get(column).map(|heading| heading.len())).max().unwrap_or(0)
    });
    let mut out = stdout(Format::Table);
    for row in std::iter::once(&headings.map(str::to_owned)).chain(rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(out.flush()?)
}

/// Prints values as one JSON document, under `name` beside its schema, or one per line. Not for tables.
pub(crate) fn print_list<T: Serialize>(format: Format, schema: &str, name: &str, values: &[T]) -> Result<()> {
    let mut out = stdout(format);
    if format == Format::Json {
        let document = serde_json::json!({"schema": schema, name: values});
        writeln!(out, "{document}")?;
    } else {
        for value in values {
            out.write_all(&serde_json::to_vec(value).map_err(std::io::Error::from)?)?;
            writeln!(out)?;
        }
    }
    Ok(out.flush()?)
}

/// Prints values one at a time, while they are read: as lines of text, as one JSON document, or as JSON Lines.
pub(crate) struct Stream {
    out: Stdout,
    format: Format,
    any: bool,
}

impl Stream {
    /// In a document the values are a list with this name.
    pub(crate) fn new(format: Format, schema: &str, name: &str) -> Result<Self> {
        let mut out = stdout(format);
        if format == Format::Json {
            write!(out, "{{\"schema\":\"{schema}\",\"{name}\":[")?;
        }
        Ok(Self { out, format, any: false })
    }

    /// Prints one value: the text for people, the other for programs.
    pub(crate) fn write(&mut self, text: impl FnOnce() -> String, json: impl FnOnce() -> Json) -> Result<()> {
        match self.format {
            Format::Table => return self.line(&text()),
            Format::Json => writeln!(self.out, "{}", if self.any { "," } else { "" })?,
            Format::Jsonl => {}
        }
        self.any = true;
        let json = serde_json::to_vec(&json()).map_err(std::io::Error::from)?;
        self.out.write_all(&json)?;
        if self.format == Format::Jsonl {
            writeln!(self.out)?;
        }
        Ok(())
    }

    /// Prints a line that is for people only.
    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        if self.format == Format::Table {
            writeln!(self.out, "{}", text.trim_end())?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        if self.format == Format::Json {
            writeln!(self.out, "\n]}}")?;
        }
        Ok(self.out.flush()?)
    }

    /// Prints what is buffered, without the ending that would make the output look complete. The caller already has an
    /// error to report.
    pub(crate) fn break_off(mut self) {
        let _ = self.out.flush();
    }
}

/// A partition key and a sort key as they are typed; bytes that are no key as they are.
pub(crate) fn key_texts(encoded: &[u8]) -> (String, Option<String>) {
    match Key::decode(encoded) {
        Some(key) => (escape::key(key.partition()), key.sort().map(escape::key)),
        None => (escape::key(encoded), None),
    }
}

/// A key as it is typed on a command line.
pub(crate) fn typed_key(encoded: &[u8]) -> String {
    match Key::decode(encoded) {
        Some(key) => key.to_string(),
        None => escape::key(encoded),
    }
}

/// A table without borders, with columns two spaces apart.
fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table
}

fn write_table(table: &Table, out: &mut impl Write) -> std::io::Result<()> {
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 item`, `2,000 items`.
pub(crate) fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// `15.2 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// `999`, `9K`, `.4M`, `18E`: a number in at most three characters, rounded down.
pub(crate) fn short(n: u64) -> String {
    if n < 1000 {
        return n.to_string();
    }
    let mut rest = n;
    for (unit, next) in [("K", "M"), ("M", "G"), ("G", "T"), ("T", "P"), ("P", "E"), ("E", "Z")] {
        rest /= 1000;
        match rest {
            0..100 => return format!("{rest}{unit}"),
            // Hundreds of a unit are tenths of the next.
            100..1000 => return format!(".{}{next}", rest / 100),
            _ => {}
        }
    }
    // Not reached: 64 bits have 18 of the last unit.
    "max".into()
}

/// `2.1 ms`: a duration in nanoseconds.
pub(crate) fn time(nanos: u64) -> String {
    format!("{:.1?}", std::time::Duration::from_nanos(nanos))
}

/// `4 s`, `2 h 11 m`: a duration in its two largest units.
pub(crate) fn span(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} m {} s", s / 60, s % 60),
        s @ 3600..86_400 => format!("{} h {} m", s / 3600, s % 3600 / 60),
        s => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// `2026-11-22T07:51:16.042Z`: a time in milliseconds since the Unix epoch.
pub(crate) fn utc(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Years start in March here, so that a leap day is the last day of its year; 400 years are an era.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (era * 400 + year, month + 3),
        _ => (era * 400 + year + 1, month - 9),
    };
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{of_month:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(utc(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!([999, 61_000, 7_860_000, 90_000_000].map(span), ["0 s", "1 m 1 s", "2 h 11 m", "1 d 1 h"]);
        assert_eq!(time(2_100_000), "2.1ms");
    }

    #[test]
    fn figures() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(counted(1, "item"), "1 item");
        let shortened = [0, 99, 999, 1000, 99_999, 100_000, 999_999, 1_000_000, 123_456_789].map(short);
        assert_eq!(shortened, ["0", "99", "999", "1K", "99K", ".1M", ".9M", "1M", ".1G"]);
        assert_eq!(short(u64::MAX), "18E");
        assert_eq!(size(1536), "1.5 KiB");
    }
}
