//! Input: a file or stdin, gunzipped if necessary.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read};
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use flate2::bufread::GzDecoder;
use indicatif::{ProgressBar, ProgressStyle};

use crate::interrupt::Interrupt;

const BUFFER: usize = 256 << 10;
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Bytes at the start that identify the format.
const START: u64 = 6;

/// Formats that are not lines of UTF-8, by their first bytes, and the tools that convert them.
const OTHERS: [(&[u8], &str, &str); 8] = [
    (b"\xff\xfe", "is UTF-16", "iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "is UTF-16", "iconv -f UTF-16 -t UTF-8"),
    (b"{\0", "is UTF-16", "iconv -f UTF-16LE -t UTF-8"),
    (b"\0{", "is UTF-16", "iconv -f UTF-16BE -t UTF-8"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "zstd -dc"),
    (b"\xfd7zXZ\0", "is compressed with xz", "xz -dc"),
    (b"BZh", "is compressed with bzip2", "bzip2 -dc"),
    (b"PK\x03\x04", "is a ZIP archive", "unzip -p"),
];

/// Opens a file, or stdin for `-`, with a progress bar. A signal interrupts a blocked read.
#[expect(clippy::disallowed_methods, reason = "the user's own file, which is no part of a database")]
pub(crate) fn open(path: &Path, interrupt: &Interrupt) -> Result<(Box<dyn BufRead>, ProgressBar)> {
    let failed = || format!("cannot read {}", path.display());
    let file = if path == Path::new("-") {
        // Not `Stdin` itself: poll(2) cannot see data that is already in its buffer.
        File::from(io::stdin().as_fd().try_clone_to_owned().with_context(failed)?)
    } else {
        File::open(path).with_context(failed)?
    };
    let metadata = file.metadata().with_context(failed)?;
    let bar = progress(metadata.is_file().then_some(metadata.len()));
    let raw = bar.wrap_read(interrupt.reader(file));
    let (start, raw) = start_of(raw).with_context(failed)?;
    let (start, input): (Vec<u8>, Box<dyn BufRead>) = if start.starts_with(&GZIP) {
        let lines = Gunzip { member: Some(GzDecoder::new(raw)) };
        let (start, lines) = start_of(lines).with_context(failed)?;
        (start, Box::new(lines))
    } else {
        (start, Box::new(raw))
    };
    if let Some((_, what, tool)) = OTHERS.iter().find(|(bytes, ..)| start.starts_with(bytes)) {
        bail!("cannot read {}: it {what}, not JSON Lines in UTF-8; convert it with `{tool}`", path.display());
    }
    Ok((input, bar))
}

type Started<R> = BufReader<io::Chain<io::Cursor<Vec<u8>>, R>>;

/// Peeks at the first bytes. Not with `fill_buf`: a pipe may return a single byte at first.
fn start_of<R: Read>(mut input: R) -> io::Result<(Vec<u8>, Started<R>)> {
    let mut start = Vec::new();
    input.by_ref().take(START).read_to_end(&mut start)?;
    Ok((start.clone(), BufReader::with_capacity(BUFFER, io::Cursor::new(start).chain(input))))
}

/// The most bytes of a first line that are looked at: enough for any key.
const FIRST_LINE: usize = 300 << 10;

/// Peeks at the input up to the end of its first line that is not blank. An error is kept for whoever reads on.
pub(crate) fn first_line(mut input: Box<dyn BufRead>) -> (Vec<u8>, Box<dyn BufRead>) {
    let (mut start, mut seen, mut failed) = (Vec::new(), 0, None);
    while start.len() < FIRST_LINE {
        match input.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => failed = Some(e),
            Ok([]) => {}
            Ok(bytes) => {
                start.extend_from_slice(bytes);
                let len = bytes.len();
                input.consume(len);
                let mut lines =
                    start.split_inclusive(|&byte| byte == b'\n').skip_while(|line| is_blank(line));
                seen = start.len();
                match lines.next() {
                    Some(line) if line.ends_with(b"\n") => {}
                    _ => continue,
                }
            }
        }
        break;
    }
    let seen = start.get(..seen).unwrap_or_default().to_vec();
    (seen, Box::new(io::Cursor::new(start).chain(Rest { failed, input })))
}

fn is_blank(line: &[u8]) -> bool {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).iter().all(u8::is_ascii_whitespace)
}

/// An input that may have failed already.
struct Rest {
    failed: Option<io::Error>,
    input: Box<dyn BufRead>,
}

impl Read for Rest {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.failed.take() {
            Some(e) => Err(e),
            None => self.input.read(buffer),
        }
    }
}

impl BufRead for Rest {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.failed.take() {
            Some(e) => Err(e),
            None => self.input.fill_buf(),
        }
    }

    fn consume(&mut self, len: usize) {
        self.input.consume(len);
    }
}

/// Reads what gzip(1) accepts: members in sequence, with zeros after them as padding. Anything else after a member is
/// an error, as it may be a member whose header is damaged.
struct Gunzip<R> {
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            match member.read(buffer) {
                Ok(0) if !buffer.is_empty() => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(io::Error::new(e.kind(), "the compressed data is cut short"));
                }
                read => return read,
            }
            let mut rest = self.member.take().map(GzDecoder::into_inner);
            while let Some(input) = &mut rest {
                let bytes = input.fill_buf()?;
                let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
                match bytes.get(zeros) {
                    Some(&byte) if byte == GZIP[0] => {
                        input.consume(zeros);
                        self.member = rest.take().map(GzDecoder::new);
                    }
                    Some(_) => {
                        let why = "the data after the compressed data is neither padding nor gzip";
                        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                    }
                    None if bytes.is_empty() => rest = None,
                    None => input.consume(zeros),
                }
            }
        }
        Ok(0)
    }
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
