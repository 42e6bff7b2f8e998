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

/// Rows of a table that are laid out together: a long scan is printed as it is read, in tables of this size.
const PAGE: usize = 1000;

pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, std::io::stdout().lock())
}

/// One result: a line for people, or a JSON document that names its schema.
pub(crate) fn print_result(format: Format, text: &str, json: impl Serialize) -> Result<()> {
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

    pub(crate) fn finish(mut self) -> Result<()> {
        match self.format {
            Format::Table if !self.rows.is_empty() => self.write_page()?,
            Format::Json => writeln!(self.out, "\n]}}")?,
            _ => {}
        }
        Ok(self.out.flush()?)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(counted(1, "item"), "1 item");
        assert_eq!(size(1536), "1.5 KiB");
    }
}
