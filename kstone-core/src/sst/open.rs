//! Opens an SST: its frame is checked before anything in it is trusted.
//!
//! With mapping, the file is closed again and the mapping remains; with `pread`, the sections are kept in memory. A
//! failed open is retried on the next access, so that the error is reported every time and never taken for absence.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::context::Counted;
use super::fences::Fences;
use super::format::{self, FOOTER_LEN, Sections, SstHeader, unsupported};
use super::table::Table;
use crate::bloom::Filter;
use crate::coding::part;
use crate::config::ReadMode;
use crate::error::{Error, Result};
use crate::file_header::{FileHeader, FileKind, HEADER_LEN};
use crate::paths;
use crate::types::{SeqNo, SstMeta};
use crate::vfs::{Mapping, OpenMode, Vfs, VfsFile, read_full_at};

/// A section directory longer than this is not read when a database is opened.
const MOST_TAIL: usize = 64 << 10;

/// A file whose frame was checked.
#[derive(Debug)]
pub(super) struct OpenTable {
    pub(super) source: TableBytes,
    pub(super) base_seq: SeqNo,
    pub(super) prefix: Box<[u8]>,
    pub(super) fences: Fences,
    pub(super) filter: Filter,
    /// The sections' ranges in the bytes of the source.
    fences_at: Range<usize>,
    pub(super) filter_at: Range<usize>,
    index_at: Range<usize>,
    /// All blocks end at or before this offset.
    pub(super) blocks_end: usize,
    /// One bit per block of a mapping: its checksum was verified.
    pub(super) checked: Box<[AtomicU64]>,
}

/// The source that a table reads from.
#[derive(Debug)]
pub(super) enum TableBytes {
    /// The whole file.
    Mapped(Arc<Mapping>),
    /// The file's sections; blocks are read when needed.
    Pread(Counted),
}

/// Lengths of a table's sections in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SectionLengths {
    pub(crate) filter: u64,
    /// The key-hash index and the fences.
    pub(crate) index: u64,
}

impl OpenTable {
    #[inline]
    pub(super) fn bytes(&self, range: &Range<usize>) -> &[u8] {
        let all: &[u8] = match &self.source {
            TableBytes::Mapped(map) => map,
            TableBytes::Pread(sections) => sections,
        };
        part(all, range.clone())
    }

    #[inline]
    pub(super) fn fence_section(&self) -> &[u8] {
        self.bytes(&self.fences_at)
    }

    #[inline]
    pub(super) fn index_section(&self) -> &[u8] {
        self.bytes(&self.index_at)
    }

    #[inline]
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(self.bytes(&self.filter_at), hash)
    }

    /// Whether block `n` of the mapping was read and verified before.
    #[inline]
    pub(super) fn was_checked(&self, n: usize) -> bool {
        self.checked.get(n / 64).is_some_and(|word| word.load(Ordering::Relaxed) >> (n % 64) & 1 == 1)
    }

    fn lengths(&self) -> SectionLengths {
        SectionLengths {
            filter: self.filter_at.len() as u64,
            index: (self.index_at.len() + self.fences_at.len()) as u64,
        }
    }

    /// The whole file, if it is mapped.
    pub(super) fn mapped(&self) -> Option<&Mapping> {
        match &self.source {
            TableBytes::Mapped(map) => Some(map),
            TableBytes::Pread(_) => None,
        }
    }
}

impl Table {
    /// Returns the lengths of the sections that a get needs. If the file is not open yet, reads its section directory.
    pub(crate) fn section_lengths(&self) -> Result<SectionLengths> {
        if let Some(known) = self.open.get().map(OpenTable::lengths).or_else(|| self.lengths.get().copied()) {
            return Ok(known);
        }
        if self.held.is_some() {
            return Ok(self.opened()?.lengths());
        }
        let sections = self.sections(&*self.open_file()?)?;
        let lengths = SectionLengths {
            filter: sections.filter.at.len() as u64,
            index: (sections.index.at.len() + sections.fences.at.len()) as u64,
        };
        Ok(*self.lengths.get_or_init(|| lengths))
    }

    /// Opens the file, which checks its header, its footer and all its sections, but no blocks.
    pub(crate) fn check_frame(&self) -> Result<()> {
        self.opened().map(drop)
    }

    #[inline]
    pub(super) fn opened(&self) -> Result<&OpenTable> {
        match self.open.get() {
            Some(open) => Ok(open),
            None => self.open_now(),
        }
    }

    #[cold]
    fn open_now(&self) -> Result<&OpenTable> {
        let open = match self.context.read_mode() {
            ReadMode::Mmap => self.map_and_check()?,
            ReadMode::Pread => self.read_and_check()?,
        };
        // If two threads get here at the same time, both have checked the same bytes, and one result is kept.
        Ok(self.open.get_or_init(|| {
            let mapped = open.mapped().map_or(0, |map| map.len() as u64);
            self.context.mapped_bytes.fetch_add(mapped, Ordering::Relaxed);
            open
        }))
    }

    /// Maps the file and closes it.
    fn map_and_check(&self) -> Result<OpenTable> {
        let map = match &self.held {
            Some(held) => Arc::clone(held),
            None => self.map_file()?,
        };
        self.load(&map, &(0..HEADER_LEN))?;
        let header = self.header(map.get(..HEADER_LEN).unwrap_or_default())?;
        let tail = format::tail_at(&self.meta, self.path())?;
        self.load(&map, &tail)?;
        let sections = map.get(tail.clone()).unwrap_or_default();
        let sections = format::decode_sections(sections, &self.meta, self.path())?;
        self.load_whole(&map, &(sections.first..tail.end))?;
        self.frame(TableBytes::Mapped(map), 0, &header, &sections)
    }

    fn map_file(&self) -> Result<Arc<Mapping>> {
        let file = self.open_unread()?;
        let expected = self.meta.len;
        let map = file.map(expected).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::corrupt(self.path(), expected, "the file became shorter"),
            _ => Error::io("map", self.path())(error),
        })?;
        Ok(Arc::new(map))
    }

    /// Reads the header and all sections into memory. The file's length was checked, which bounds their size.
    fn read_and_check(&self) -> Result<OpenTable> {
        let file = self.open_file()?;
        let header = self.header(&self.read(&*file, 0..HEADER_LEN)?)?;
        let sections = self.sections(&*file)?;
        let base = sections.first;
        let directory_at = format::tail_at(&self.meta, self.path())?.start;
        let mut bytes = vec![0; directory_at.saturating_sub(base)].into_boxed_slice();
        let read = read_full_at(&*file, &mut bytes, base as u64).map_err(Error::io("read", self.path()))?;
        if read < bytes.len() {
            return Err(self.corrupt(base + read, "the file became shorter"));
        }
        self.frame(TableBytes::Pread(Counted::new(bytes, &self.context)), base, &header, &sections)
    }

    /// Reads the section directory only.
    fn sections(&self, file: &dyn VfsFile) -> Result<Sections> {
        let tail = self.read(file, format::tail_at(&self.meta, self.path())?)?;
        format::decode_sections(&tail, &self.meta, self.path())
    }

    /// Checks the sections, which `source` has from file offset `base` on.
    fn frame(
        &self,
        source: TableBytes,
        base: usize,
        header: &SstHeader,
        sections: &Sections,
    ) -> Result<OpenTable> {
        let all: &[u8] = match &source {
            TableBytes::Mapped(map) => map,
            TableBytes::Pread(sections) => sections,
        };
        let section = |placed: &format::Placed| placed.checked(all, base, &self.meta, self.path());
        let within = |placed: &format::Placed| {
            placed.at.start.saturating_sub(base)..placed.at.end.saturating_sub(base)
        };
        section(&sections.index)?;
        let properties_at = sections.properties.at.start as u64;
        format::check_properties(section(&sections.properties)?, &self.meta, self.path(), properties_at)?;
        let filter = Filter::parse(section(&sections.filter)?)
            .ok_or_else(|| unsupported(self.path(), "an unknown filter", "filters 1 and 2 of key hash 1"))?;
        let fence_bytes = section(&sections.fences)?;
        let (fences, prefix) = Fences::parse(fence_bytes)
            .and_then(|fences| Some((fences, fences.prefix(fence_bytes)?)))
            .ok_or_else(|| self.corrupt(sections.fences.at.start, "the fences are inconsistent"))?;
        let words = match &source {
            TableBytes::Mapped(_) => fences.blocks().div_ceil(64),
            TableBytes::Pread(_) => 0,
        };
        Ok(OpenTable {
            base_seq: header.base_seq,
            prefix: prefix.into(),
            fences,
            filter,
            fences_at: within(&sections.fences),
            filter_at: within(&sections.filter),
            index_at: within(&sections.index),
            blocks_end: sections.first,
            checked: (0..words).map(|_| AtomicU64::new(0)).collect(),
            source,
        })
    }

    /// Opens the file for reading, or returns it if it is open. Mapped tables need it only for opening and do not keep
    /// it.
    pub(super) fn open_file(&self) -> Result<Arc<dyn VfsFile>> {
        match self.context.read_mode() {
            ReadMode::Mmap if self.open.get().is_none_or(|open| open.mapped().is_some()) => {
                self.open_unread()
            }
            _ => self.context.files.get(self.meta.id, || self.open_unread()),
        }
    }

    fn open_unread(&self) -> Result<Arc<dyn VfsFile>> {
        let file = self.context.vfs.open(self.path(), OpenMode::Read).map_err(|e| self.open_error(e))?;
        let found = file.len().map_err(Error::io("read the length of", self.path()))?;
        let expected = self.meta.len;
        if found != expected || usize::try_from(expected).is_err() {
            let detail = format!("it has {found} bytes, the manifest says {expected}");
            return Err(Error::corrupt(self.path(), found.min(expected), detail));
        }
        if expected < (HEADER_LEN + FOOTER_LEN) as u64 {
            return Err(self.corrupt(0, format!("{expected} bytes are too few for an SST")));
        }
        Ok(file)
    }

    pub(super) fn open_error(&self, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::NotFound {
            if self.context.was_removed(self.meta.id) {
                return Error::Busy;
            }
            return self.corrupt(0, "the file is listed in the manifest, but missing");
        }
        Error::io("open", self.path())(error)
    }

    /// Checks that the header belongs to the file that the manifest lists. Returns its fields.
    fn header(&self, header: &[u8]) -> Result<SstHeader> {
        let header = FileHeader::decode(header, FileKind::Sst, self.path(), 0)?;
        let fields = SstHeader::decode(&header.extra, self.path())?;
        let meta = &self.meta;
        if (fields.id, fields.stripe, fields.keyspace) != (meta.id, meta.stripe, meta.keyspace) {
            let detail = format!(
                "the header says file {}, stripe {}, keyspace {}; the manifest file {}, stripe {}, keyspace {}",
                fields.id, fields.stripe, fields.keyspace, meta.id, meta.stripe, meta.keyspace
            );
            return Err(self.corrupt(0, detail));
        }
        if header.database_id != meta.origin {
            return Err(self.corrupt(0, "the file belongs to another database"));
        }
        Ok(fields)
    }
}

/// Fails if the file's header, directory or footer has a newer format. Any other fault is left to the reads that find
/// it.
pub(crate) fn refuse_newer(vfs: &dyn Vfs, dir: &Path, meta: &SstMeta) -> Result<()> {
    let path = paths::sst(dir, meta.stripe.into(), meta.id);
    let Ok(file) = vfs.open(&path, OpenMode::Read) else { return Ok(()) };
    let read = |at: Range<usize>| {
        let mut bytes = vec![0; at.len()];
        let read = read_full_at(&*file, &mut bytes, at.start as u64).ok()?;
        (read == bytes.len()).then_some(bytes)
    };
    if let Some(header) = read(0..HEADER_LEN) {
        let header = FileHeader::decode(&header, FileKind::Sst, &path, 0);
        newer(header.and_then(|header| SstHeader::decode(&header.extra, &path)))?;
    }
    let tail = format::tail_at(meta, &path).ok().filter(|tail| tail.len() <= MOST_TAIL);
    match tail.and_then(read) {
        Some(tail) => newer(format::decode_sections(&tail, meta, &path)),
        None => Ok(()),
    }
}

fn newer<T>(found: Result<T>) -> Result<()> {
    match found {
        Err(error @ Error::UnsupportedFormat { .. }) => Err(error),
        _ => Ok(()),
    }
}
