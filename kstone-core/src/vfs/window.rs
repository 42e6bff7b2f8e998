//! Reads a file through a window of fixed size, so that lengths claimed in the file cannot make it allocate memory.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::{VfsFile, read_full_at};

/// Bytes read at a time.
pub(crate) const WINDOW: u64 = 256 << 10;

/// A file of which [`WINDOW`] bytes are in memory, or the longest range that was requested as a whole.
#[derive(Debug)]
pub(crate) struct Window {
    file: Arc<dyn VfsFile>,
    len: u64,
    bytes: Vec<u8>,
    at: u64,
}

impl Window {
    /// A window over the first `len` bytes of a file, which must be at least that long.
    pub(crate) fn new(file: Arc<dyn VfsFile>, len: u64) -> Self {
        Self { file, len, bytes: Vec::new(), at: 0 }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The memory that it uses, in bytes.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Returns `len` bytes at `offset`, all in memory; `None` if they extend past the end.
    pub(crate) fn get(&mut self, offset: u64, len: u64) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(len).filter(|end| *end <= self.len) else { return Ok(None) };
        if offset < self.at || end > self.at + self.bytes.len() as u64 {
            self.load(offset, len)?;
        }
        let from = usize::try_from(offset - self.at).ok();
        Ok(from.and_then(|from| self.bytes.get(from..)?.get(..usize::try_from(len).ok()?)))
    }

    /// Returns the bytes in memory from `offset` on: at least `least`, or fewer at the end of the file.
    pub(crate) fn from(&mut self, offset: u64, least: u64) -> io::Result<&[u8]> {
        let least = least.min(self.len.saturating_sub(offset));
        if least == 0 {
            return Ok(&[]);
        }
        let have = self.at + self.bytes.len() as u64;
        if offset < self.at || offset + least > have {
            self.load(offset, least)?;
        }
        Ok(usize::try_from(offset - self.at).ok().and_then(|from| self.bytes.get(from..)).unwrap_or_default())
    }

    /// Continues a CRC-32C over a range of the file; `None` if the range extends past the end.
    pub(crate) fn crc(&mut self, crc: u32, range: Range<u64>) -> io::Result<Option<u32>> {
        if range.end > self.len {
            return Ok(None);
        }
        let (mut crc, mut at) = (crc, range.start);
        while at < range.end {
            let bytes = self.from(at, 1)?;
            // All of them, if the range extends past them.
            let bytes = bytes.get(..(range.end - at).min(bytes.len() as u64) as usize).unwrap_or(bytes);
            if bytes.is_empty() {
                return Ok(None);
            }
            crc = crc32c::crc32c_append(crc, bytes);
            at += bytes.len() as u64;
        }
        Ok(Some(crc))
    }

    fn load(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let wanted = len.max(WINDOW.min(self.len - offset));
        let wanted = usize::try_from(wanted).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let more = wanted.saturating_sub(self.bytes.len());
        self.bytes.try_reserve_exact(more).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.bytes.resize(wanted, 0);
        self.at = offset;
        match read_full_at(&*self.file, &mut self.bytes, offset) {
            Ok(read) => {
                self.bytes.truncate(read);
                Ok(())
            }
            Err(error) => {
                self.bytes.clear(); // partly overwritten
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::vfs::{MemVfs, OpenMode, Vfs, write_all_at};

    #[test]
    fn pieces_and_checksums_are_those_of_the_file_and_memory_is_a_window() {
        let vfs = MemVfs::new();
        let bytes: Vec<u8> = (0..3 * WINDOW as u32 + 777).map(|n| (n * 7 / 3) as u8).collect();
        let file = vfs.open(Path::new("f"), OpenMode::Create).unwrap();
        write_all_at(&*file, &bytes, 0).unwrap();
        let len = bytes.len() as u64;
        let mut window = Window::new(file, len);
        for (at, piece) in [(0, 10), (WINDOW - 3, 8), (5, 1), (len - 4, 4), (len, 0), (WINDOW + 1, WINDOW)] {
            let expected = &bytes[at as usize..(at + piece) as usize];
            assert_eq!(window.get(at, piece).unwrap(), Some(expected));
            assert!(window.from(at, piece).unwrap().starts_with(expected));
            let seeded = crc32c::crc32c_append(9, expected);
            assert_eq!(window.crc(9, at..at + piece).unwrap(), Some(seeded));
        }
        assert_eq!(window.crc(0, 0..len).unwrap(), Some(crc32c::crc32c(&bytes)));
        assert_eq!(window.held() as u64, WINDOW);
        for (at, piece) in [(len, 1), (0, len + 1), (u64::MAX, 2), (len - 1, u64::MAX)] {
            assert_eq!(window.get(at, piece).unwrap(), None);
        }
        assert_eq!(window.crc(0, 1..len + 1).unwrap(), None);
        assert_eq!(window.from(len - 2, 16).unwrap(), &bytes[bytes.len() - 2..]);
        assert_eq!(window.from(u64::MAX, 16).unwrap(), b"");
    }
}
