//! Results on stdout: tables, one JSON document, or JSON Lines.

use std::io::{BufWriter, StdoutLock, Write};

use anyhow::Result;
use bytesize::ByteSize;
use comfy_table::Table;
use kstone_api::{Item, Key};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::args::Format;
use crate::escape::escape;
use crate::failure::is_closed_pipe;

/// Rows of a table that are laid out together: a long scan is printed as it is read, in tables of this size.
const PAGE: usize = 1000;

pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, std::io::stdout().lock())
}

/// One result: a line for people, or a JSON document that names its schema. Where nobody reads it, that is no failure:
/// the caller may still have one to tell.
pub(crate) fn print_result(format: Format, text: &str, json: impl Serialize) -> Result<()> {
    write_result(format, text, json).or_else(|e| if is_closed_pipe(&e) { Ok(()) } else { Err(e) })
}

fn write_result(format: Format, text: &str, json: impl Serialize) -> Result<()> {
    let mut out = stdout();
    match format {
        Format::Table => writeln!(out, "{text}")?,
        Format::Json | Format::Jsonl => {
            serde_json::to_writer(&mut out, &json).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(out.flush()?)
}

/// A key, and the item under it if that is wanted.
#[derive(Serialize)]
struct Entry {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<Box<RawValue>>,
}

/// Prints keys and items one after the other, holding no more than a page of them.
pub(crate) struct EntryWriter {
    out: BufWriter<StdoutLock<'static>>,
    format: Format,
    rows: Vec<[String; 3]>,
    pages: usize,
    any: bool,
}

impl EntryWriter {
    pub(crate) fn new(format: Format) -> Result<Self> {
        let mut out = stdout();
        if format == Format::Json {
            write!(out, "{{\"schema\":\"kstone.items/1\",\"items\":[")?;
        }
        Ok(Self { out, format, rows: Vec::new(), pages: 0, any: false })
    }

    pub(crate) fn write(&mut self, key: &Key<'_>, item: Option<&Item>) -> Result<()> {
        let entry = Entry {
            key: escape(key.partition()),
            sort: key.sort().map(escape),
            item: item.map(|item| RawValue::from_string(item.to_string())).transpose()?,
        };
        match self.format {
            Format::Table => {
                let item = entry.item.map(|item| item.get().to_owned());
                self.rows.push([entry.key, entry.sort.unwrap_or_default(), item.unwrap_or_default()]);
                if self.rows.len() >= PAGE {
                    self.write_page()?;
                }
            }
            Format::Json => {
                write!(self.out, "{}", if self.any { ",\n" } else { "\n" })?;
                serde_json::to_writer(&mut self.out, &entry).map_err(std::io::Error::from)?;
            }
            Format::Jsonl => {
                serde_json::to_writer(&mut self.out, &entry).map_err(std::io::Error::from)?;
                writeln!(self.out)?;
            }
        }
        self.any = true;
        Ok(())
    }

    fn write_page(&mut self) -> Result<()> {
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

    /// Prints what is held, without the end that would make it look whole. The caller has an error to tell already.
    pub(crate) fn break_off(mut self) {
        if !self.rows.is_empty() {
            let _ = self.write_page();
        }
        let _ = self.out.flush();
    }

    pub(crate) fn finish(mut self) -> Result<()> {
        match self.format {
            Format::Table if !self.rows.is_empty() => self.write_page()?,
            Format::Json => writeln!(self.out, "\n]}}")?,
            _ => {}
        }
        Ok(self.out.flush()?)
    }
}

/// Prints rows under headings: columns as wide as they need to be, the last one as it comes.
pub(crate) fn print_table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> Result<()> {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(headings.get(column).map(|heading| heading.len())).max().unwrap_or(0)
    });
    let mut out = stdout();
    for row in std::iter::once(&headings.map(str::to_owned)).chain(rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(out.flush()?)
}

/// Prints values as one JSON document, under a name beside its schema, or as a line each.
pub(crate) fn print_list<T: Serialize>(format: Format, schema: &str, name: &str, values: &[T]) -> Result<()> {
    let mut out = stdout();
    if format == Format::Json {
        let document = serde_json::json!({"schema": schema, name: values});
        writeln!(out, "{document}")?;
    } else {
        for value in values {
            serde_json::to_writer(&mut out, value).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(out.flush()?)
}

/// A table without lines: columns, two spaces apart.
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

/// `2.1 ms`: a time in nanoseconds.
pub(crate) fn time(nanos: u64) -> String {
    format!("{:.1?}", std::time::Duration::from_nanos(nanos))
}

/// `4 s`, `2 h 11 m`: how long something has been, to its largest units.
pub(crate) fn span(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} m {} s", s / 60, s % 60),
        s @ 3600..86_400 => format!("{} h {} m", s / 3600, s % 3600 / 60),
        s => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// `2026-11-22T07:51:16.042Z`: a moment given in milliseconds since the Unix epoch.
pub(crate) fn utc(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Years begin in March here, so that the day that comes and goes is their last; 400 of them are an era.
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
        assert_eq!(size(1536), "1.5 KiB");
    }
}
