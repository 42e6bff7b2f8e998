//! Lines of JSON as items.

use std::io::{self, BufRead};

use kstone_core::Result;

use super::{EncodedItem, MAX_DEPTH, Parser, Stop};

/// Reads items from JSON Lines, using memory for one item at a time, whatever the lines contain.
///
/// ```
/// use kstone_api::JsonLines;
///
/// let text = b"{\"n\":1}\nnonsense\n\n{\"n\":2}\n";
/// let mut lines = JsonLines::new(&text[..], 1 << 20);
/// let mut good = Vec::new();
/// while let Some(item) = lines.next_item()? {
///     good.extend(item.ok().map(|_| lines.line()));
/// }
/// assert_eq!(good, [1, 4]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct JsonLines<R> {
    input: R,
    max: usize,
    line: u64,
    /// The last read stopped before the end of its line.
    within: bool,
    /// An error that occurred after a complete item.
    failed: Option<io::Error>,
}

impl<R: BufRead> JsonLines<R> {
    /// Reads from this input; the stored form of an item may take at most `max_item_bytes`.
    pub fn new(input: R, max_item_bytes: usize) -> Self {
        Self { input, max: max_item_bytes, line: 0, within: false, failed: None }
    }

    /// The number of the last line that was read, valid or not; the first is 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Skips this many lines, or all remaining lines if there are fewer.
    pub fn skip_lines(&mut self, count: u64) -> io::Result<()> {
        for _ in 0..count {
            self.line += 1;
            self.within = true;
            self.skip_rest()?;
        }
        Ok(())
    }

    /// Reads the item of the next non-blank line; `None` at the end. The inner error is about the line, as from
    /// [`EncodedItem::read_json`]; the next call continues after it. If reading fails after a complete line, that line
    /// is returned, and the next call fails. A byte order mark at the start of a line is ignored.
    pub fn next_item(&mut self) -> io::Result<Option<Result<EncodedItem>>> {
        self.next_by(MAX_DEPTH, |parser| parser.item())
    }

    /// The same for an object that holds an item in one of its attributes, and so may nest one level deeper.
    ///
    /// ```
    /// use kstone_api::{JsonLines, ValueView};
    ///
    /// let mut lines = JsonLines::new(&br#"{"key":"user#42","item":{"age":42}}"#[..], 1 << 20);
    /// let line = lines.next_holder()?.expect("there is a line")?;
    /// let view = line.view()?;
    /// assert_eq!(view.get("key")?.and_then(ValueView::as_str), Some("user#42"));
    /// assert!(view.at("item.age")?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_holder(&mut self) -> io::Result<Option<Result<EncodedItem>>> {
        self.next_by(MAX_DEPTH + 1, |parser| parser.item())
    }

    /// The same for lines of DynamoDB JSON, `{"Item":{...}}`, as DynamoDB exports a table. An item is refused for the
    /// same reasons as by [`Item::from_dynamodb_json`](crate::Item::from_dynamodb_json).
    ///
    /// ```
    /// use kstone_api::JsonLines;
    ///
    /// let mut lines = JsonLines::new(&br#"{"Item":{"pk":{"S":"user#42"},"age":{"N":"42"}}}"#[..], 1 << 20);
    /// let item = lines.next_dynamodb()?.expect("there is a line")?;
    /// assert_eq!(item.view()?.to_item()?.to_string(), r#"{"age":42,"pk":"user#42"}"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_dynamodb(&mut self) -> io::Result<Option<Result<EncodedItem>>> {
        self.next_by(MAX_DEPTH, |parser| parser.dynamodb_line())
    }

    fn next_by(
        &mut self,
        max_depth: usize,
        read: impl Fn(&mut Parser<'_, R>) -> Result<(), Stop>,
    ) -> io::Result<Option<Result<EncodedItem>>> {
        if let Some(failed) = self.failed.take() {
            self.line += 1;
            return Err(failed);
        }
        loop {
            self.skip_rest()?;
            self.line += 1;
            let mut parser = Parser::new(&mut self.input, true, self.max);
            parser.max_depth = max_depth;
            if parser.byte()?.is_none() {
                return Ok(None);
            }
            self.within = true;
            let read = match parser.skip_mark().and_then(|()| parser.space()) {
                Err(e) => return Err(e),
                Ok(()) if parser.peek()?.is_none() => continue,
                Ok(()) => read(&mut parser),
            };
            return match read.and_then(|()| parser.expect_end()) {
                Ok(()) => Ok(Some(Ok(EncodedItem { bytes: parser.out }))),
                Err(Stop::Io(e)) if parser.whole => {
                    let item = EncodedItem { bytes: parser.out };
                    self.failed = Some(e);
                    Ok(Some(Ok(item)))
                }
                Err(stop) => stop.into_result().map(Some),
            };
        }
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        while self.within {
            let buffer = match self.input.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                buffer => buffer?,
            };
            let end = buffer.iter().position(|&b| b == b'\n');
            let len = buffer.len();
            self.within = end.is_none() && len > 0;
            self.input.consume(end.map_or(len, |at| at + 1));
        }
        Ok(())
    }
}
