//! CSV as items: the first row names the attributes. Memory holds one row, up to the limit on an item.

use std::io::{self, BufRead};

use csv_core::{ReadRecordResult, Reader};
use kstone_api::{EncodedItem, Item, Number, Value};

use super::refusal;

const UNCLOSED: &str = "a quote in it is not closed before the end of the input";

/// The most columns.
const COLUMNS: usize = 16 << 10;

pub(super) struct Csv<R> {
    input: R,
    parser: Reader,
    keys: Vec<String>,
    /// Names of the columns that are numbers.
    numbers: Vec<String>,
    /// Columns: their names, and whether they are numbers.
    columns: Vec<(String, bool)>,
    max: usize,
    /// Space for the fields of a row, one after the other, and for the end of each.
    fields: Vec<u8>,
    ends: Vec<usize>,
    /// How many fields the last row has.
    count: usize,
    /// The rest of the last row is still to be read.
    within: bool,
    /// The line at which the last row started.
    line: u64,
    /// Line feeds read so far.
    feeds: u64,
    /// Quotes read in this row.
    quotes: u64,
    /// There was nothing more to parse.
    at_end: bool,
}

/// What was read of a row.
enum Row {
    End,
    Whole,
    TooLong,
    TooManyFields,
    /// The input ends within quotes.
    Unclosed,
}

impl<R: BufRead> Csv<R> {
    pub(super) fn new(input: R, keys: Vec<String>, numbers: Vec<String>, max: usize) -> Self {
        Self {
            input,
            parser: Reader::new(),
            keys,
            numbers,
            columns: Vec::new(),
            max,
            fields: vec![0; 4096.min(max.max(1))],
            ends: vec![0; 64],
            count: 0,
            within: false,
            line: 0,
            feeds: 0,
            quotes: 0,
            at_end: false,
        }
    }

    pub(super) fn line(&self) -> u64 {
        self.line
    }

    pub(super) fn next_line(&self) -> u64 {
        self.feeds + 1
    }

    /// Reads the names of the columns. The inner error is the reason why rows cannot be read.
    pub(super) fn header(&mut self) -> io::Result<Result<(), String>> {
        match self.row()? {
            Row::End => return Ok(Err("there is no header, which names the columns".into())),
            Row::Whole => {}
            Row::TooLong | Row::TooManyFields => return Ok(Err("the header is too long".into())),
            Row::Unclosed => return Ok(Err(UNCLOSED.into())),
        }
        Ok(self.names())
    }

    fn names(&mut self) -> Result<(), String> {
        let mut columns: Vec<(String, bool)> = Vec::new();
        for (i, name) in self.row_fields().enumerate() {
            let Ok(name) = std::str::from_utf8(name) else {
                return Err(format!("the header is not UTF-8, in column {}", i + 1));
            };
            if name.is_empty() {
                return Err(format!("column {} of the header has no name", i + 1));
            }
            columns.push((name.to_owned(), self.numbers.iter().any(|number| number == name)));
        }
        let mut names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some([twice, _]) = names.windows(2).find(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(format!("two columns of the header have the name {twice:?}"));
        }
        let missing = self.keys.iter().chain(&self.numbers).find(|name| !names.contains(&name.as_str()));
        if let Some(missing) = missing {
            return Err(format!("the header has no column {missing:?}"));
        }
        self.columns = columns;
        Ok(())
    }

    /// Skips rows that start before this line.
    pub(super) fn skip_to(&mut self, line: u64) -> io::Result<()> {
        while self.next_line() < line {
            if matches!(self.row()?, Row::End) {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn next_item(&mut self) -> io::Result<Option<Result<EncodedItem, String>>> {
        Ok(match self.row()? {
            Row::End => None,
            Row::Whole => Some(self.item()),
            Row::TooLong => Some(Err(format!("the item is longer than the limit of {} bytes", self.max))),
            Row::Unclosed => Some(Err(UNCLOSED.into())),
            Row::TooManyFields => Some(Err(format!("it has more than {COLUMNS} fields"))),
        })
    }

    fn item(&self) -> Result<EncodedItem, String> {
        let (found, expected) = (self.count, self.columns.len());
        if found != expected {
            return Err(format!("it has {found} fields, the header has {expected}"));
        }
        let mut attributes = Vec::with_capacity(expected);
        for (field, (name, is_number)) in self.row_fields().zip(&self.columns) {
            if field.is_empty() {
                continue;
            }
            let text = std::str::from_utf8(field).map_err(|_| format!("column {name:?} is not UTF-8"))?;
            let value = if *is_number {
                Value::N(text.parse::<Number>().map_err(|e| format!("column {name:?}: {e}"))?)
            } else {
                Value::S(text.to_owned())
            };
            attributes.push((name.as_str(), value));
        }
        EncodedItem::new(&Item::from_iter(attributes)).map_err(|e| refusal(&e))
    }

    fn row_fields(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.ends.get(..self.count).unwrap_or_default();
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(ends).map(|(start, &end)| self.fields.get(start..end).unwrap_or_default())
    }

    /// Reads a row into `fields` and `ends`. One that is too long is abandoned, and its rest skipped by the next call.
    fn row(&mut self) -> io::Result<Row> {
        self.count = 0;
        while self.within {
            self.within = matches!(
                self.parse(0, 0)?.0,
                ReadRecordResult::InputEmpty
                    | ReadRecordResult::OutputFull
                    | ReadRecordResult::OutputEndsFull
            );
        }
        self.skip_blank_lines()?;
        (self.line, self.quotes) = (self.feeds + 1, 0);
        let mut filled = 0;
        loop {
            let (result, written, ended) = self.parse(filled, self.count)?;
            filled += written;
            self.count += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.fields.len() < self.max => {
                    self.fields.resize((self.fields.len() * 2).min(self.max), 0);
                }
                ReadRecordResult::OutputEndsFull if self.ends.len() < COLUMNS => {
                    self.ends.resize((self.ends.len() * 2).min(COLUMNS), 0);
                }
                ReadRecordResult::OutputFull => {
                    self.within = true;
                    return Ok(Row::TooLong);
                }
                ReadRecordResult::OutputEndsFull => {
                    self.within = true;
                    return Ok(Row::TooManyFields);
                }
                // Quotes come in pairs, those within a field too. The parser accepts a row that the end of the input
                // ends, also within quotes: then it may have swallowed the rest of the file.
                ReadRecordResult::Record if self.at_end && self.quotes % 2 == 1 => {
                    return Ok(Row::Unclosed);
                }
                ReadRecordResult::Record => return Ok(Row::Whole),
                ReadRecordResult::End => return Ok(Row::End),
            }
        }
    }

    /// Parses what is in the input's buffer, into the space after `filled` bytes and `ended` ends. Returns how much of
    /// it was written.
    fn parse(&mut self, filled: usize, ended: usize) -> io::Result<(ReadRecordResult, usize, usize)> {
        let input = loop {
            match self.input.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                input => break input?,
            }
        };
        self.at_end = input.is_empty();
        let to = self.fields.get_mut(filled..).unwrap_or_default();
        let ends = self.ends.get_mut(ended..).unwrap_or_default();
        let (result, read, written, more) = self.parser.read_record(input, to, ends);
        let parsed = input.get(..read).unwrap_or_default();
        self.feeds += count(parsed, b'\n');
        self.quotes += count(parsed, b'"');
        self.input.consume(read);
        Ok((result, written, more))
    }

    fn skip_blank_lines(&mut self) -> io::Result<()> {
        loop {
            let input = match self.input.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                input => input?,
            };
            let blank = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let done = blank < input.len() || input.is_empty();
            self.feeds += count(input.get(..blank).unwrap_or_default(), b'\n');
            self.input.consume(blank);
            if done {
                return Ok(());
            }
        }
    }
}

fn count(bytes: &[u8], which: u8) -> u64 {
    bytes.iter().filter(|&&byte| byte == which).count() as u64
}
