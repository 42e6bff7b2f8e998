//! Reads an SST, through a mapping or with `pread`.
//!
//! A [`Table`] costs nothing until it is read. Its first touch opens the file and checks its frame and the checksums of
//! all sections but the blocks. Mapped, the file is closed again and the mapping stays; a block's checksum is checked
//! when it is first touched. With `pread`, the sections are kept in memory and each block read is checked. What fails
//! is tried again at the next touch, so that an error is reported every time and never taken for absence.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::context::{Counted, TableContext};
use super::fences::Fences;
use super::format::{self, FOOTER_LEN, Sections, SstHeader, unsupported};
use super::index::{self, Place};
use super::read_ahead::ReadAhead;
use super::trace::{FilterAnswer, Trace};
use super::writer::Unsynced;
use crate::bloom::Filter;
use crate::config::ReadMode;
use crate::error::{Error, Result};
use crate::file_header::{FileHeader, FileKind, HEADER_LEN};
use crate::paths;
use crate::slice::{Found, Slice};
use crate::sst_block::{self, BadBlock, Block, Stored};
use crate::sync::Mutex;
use crate::types::{SeqNo, SstMeta};
use crate::vfs::{Mapping, OpenMode, Vfs, VfsFile, read_full_at};

/// Blocks that are loaded together, a part of 64, and how many bytes at most.
const AROUND: usize = 8;
const MOST_AROUND: usize = 64 << 10;
/// A longer section directory is not looked at when a database is opened.
const MOST_TAIL: usize = 64 << 10;

/// An SST that a manifest lists, or will.
#[derive(Debug)]
pub(crate) struct Table {
    context: Arc<TableContext>,
    path: PathBuf,
    meta: Arc<SstMeta>,
    open: OnceLock<OpenTable>,
    /// Its bytes, whatever becomes of its name.
    held: Option<Arc<Mapping>>,
    /// Known from the section directory as long as it is not open.
    lengths: OnceLock<SectionLengths>,
    /// Of a new file, until it is synced.
    unsynced: Mutex<Option<Unsynced>>,
}

/// A file whose frame was checked.
#[derive(Debug)]
pub(super) struct OpenTable {
    source: Source,
    pub(super) base_seq: SeqNo,
    pub(super) prefix: Box<[u8]>,
    pub(super) fences: Fences,
    pub(super) filter: Filter,
    /// Where the sections lie in the source's bytes.
    fences_at: Range<usize>,
    filter_at: Range<usize>,
    index_at: Range<usize>,
    /// Blocks lie below this.
    pub(super) blocks_end: usize,
    /// One bit a block of a mapping: its checksum was found right.
    checked: Box<[AtomicU64]>,
}

/// What a table reads from.
#[derive(Debug)]
enum Source {
    /// The whole file.
    Mapped(Arc<Mapping>),
    /// The file's sections; blocks are read when they are needed.
    Pread(Counted),
}

/// The bytes of a table's sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SectionLengths {
    pub(crate) filter: u64,
    /// The key-hash index and the fences.
    pub(crate) index: u64,
}

/// What a block that is not in the cache does there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fill {
    /// It goes in.
    Cache,
    /// Nothing: whoever reads everything once must not drive out what is read often.
    Bypass,
}

/// The payload of a block, wherever it is.
pub(super) struct BlockData<'a> {
    bytes: Payload<'a>,
    /// Where the block starts in the file.
    pub(super) at: usize,
}

enum Payload<'a> {
    /// In the mapping, at this place.
    Mapped(&'a Arc<Mapping>, usize, &'a [u8]),
    Owned(Slice),
}

impl BlockData<'_> {
    #[inline]
    pub(super) fn payload(&self) -> &[u8] {
        match &self.bytes {
            Payload::Mapped(_, _, bytes) => bytes,
            Payload::Owned(slice) => slice,
        }
    }

    /// A part of the payload that keeps alive what it lies in.
    #[inline]
    fn slice(&self, start: usize, len: usize) -> Option<Slice> {
        match &self.bytes {
            Payload::Mapped(map, at, _) => Slice::mapped(map, at + start, len),
            Payload::Owned(slice) => slice.slice(start, len),
        }
    }

    /// All of the payload, the same way.
    pub(super) fn to_slice(&self) -> Option<Slice> {
        self.slice(0, self.payload().len())
    }
}

impl OpenTable {
    fn bytes(&self, range: &Range<usize>) -> &[u8] {
        let all: &[u8] = match &self.source {
            Source::Mapped(map) => map,
            Source::Pread(sections) => sections,
        };
        all.get(range.clone()).unwrap_or_default()
    }

    pub(super) fn fence_section(&self) -> &[u8] {
        self.bytes(&self.fences_at)
    }

    pub(super) fn index_section(&self) -> &[u8] {
        self.bytes(&self.index_at)
    }

    pub(super) fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(self.bytes(&self.filter_at), hash)
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
            Source::Mapped(map) => Some(map),
            Source::Pread(_) => None,
        }
    }
}

/// What a group says of a key at a sequence.
enum Lookup {
    /// Nothing.
    Absent,
    Found(Found),
    /// All versions that there are in the file are newer.
    Newer,
    /// All versions so far are newer, and the next group may have more.
    Unfinished,
}

impl Table {
    /// The SST that `meta` describes. Nothing is read yet.
    pub(crate) fn new(context: &Arc<TableContext>, meta: Arc<SstMeta>) -> Self {
        let path = paths::sst(&context.dir, usize::from(meta.stripe), meta.id);
        let context = Arc::clone(context);
        Self {
            context,
            path,
            meta,
            open: OnceLock::new(),
            held: None,
            lengths: OnceLock::new(),
            unsynced: Mutex::default(),
        }
    }

    /// The same, mapped already. With `ReadMode::Pread` it is read from its file all the same.
    pub(crate) fn holding(context: &Arc<TableContext>, meta: Arc<SstMeta>, held: Arc<Mapping>) -> Self {
        let mut table = Self::new(context, meta);
        table.held = Some(held);
        table
    }

    /// The SST that `meta` describes, just written.
    pub(crate) fn written(context: &Arc<TableContext>, meta: Arc<SstMeta>, unsynced: Unsynced) -> Self {
        let table = Self::new(context, meta);
        *table.unsynced.lock() = Some(unsynced);
        table
    }

    pub(crate) fn meta(&self) -> &Arc<SstMeta> {
        &self.meta
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How long the sections are that a get needs. Of a file that is not open yet, the section directory is read.
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

    /// Opens the file, which checks its header, its footer and all its sections, but no block.
    pub(crate) fn check_frame(&self) -> Result<()> {
        self.opened().map(drop)
    }

    /// Has the processor begin to load what [`Table::get`] looks at first, if the file is open.
    #[inline]
    pub(crate) fn load_early(&self, hash: u64) -> u8 {
        self.open.get().map_or(0, |open| open.filter.first_byte(open.bytes(&open.filter_at), hash))
    }

    /// The newest version of a key with `seq <= max_seq`. `hash` is the key's `key_hash`. Tells
    /// `trace` the steps to it.
    #[inline]
    pub(crate) fn get(
        &self,
        key: &[u8],
        hash: u64,
        max_seq: SeqNo,
        trace: &mut impl Trace,
    ) -> Result<Option<Found>> {
        let open = self.opened()?;
        let passed = open.may_contain(hash);
        trace.filter(passed);
        if !passed {
            trace.answered(FilterAnswer::No, &open.filter);
            return Ok(None);
        }
        let lookup = self.find(open, key, hash, max_seq, trace)?;
        let absent = matches!(lookup, Lookup::Absent);
        trace.answered(if absent { FilterAnswer::FalseYes } else { FilterAnswer::Yes }, &open.filter);
        Ok(if let Lookup::Found(found) = lookup { Some(found) } else { None })
    }

    fn find(
        &self,
        open: &OpenTable,
        key: &[u8],
        hash: u64,
        max_seq: SeqNo,
        trace: &mut impl Trace,
    ) -> Result<Lookup> {
        let Some(key) = key.strip_prefix(&*open.prefix) else { return Ok(Lookup::Absent) };
        for place in index::probe(open.index_section(), hash) {
            trace.group(place.block, place.group);
            match self.look_up(open, place, key, max_seq)? {
                Lookup::Absent => {} // another key with the same fingerprint
                Lookup::Unfinished => return self.find_older(open, place, key, max_seq, trace),
                other => return Ok(other),
            }
        }
        Ok(Lookup::Absent)
    }

    /// Goes on with the groups after `place` while they start with the key.
    #[cold]
    fn find_older(
        &self,
        open: &OpenTable,
        place: Place,
        key: &[u8],
        max_seq: SeqNo,
        trace: &mut impl Trace,
    ) -> Result<Lookup> {
        let mut place = place;
        loop {
            let data = self.block(open, place.block, Fill::Cache)?;
            place = if place.group + 1 < self.parse(&data)?.groups() {
                Place { group: place.group + 1, ..place }
            } else if place.block + 1 < open.fences.blocks() {
                Place { block: place.block + 1, group: 0 }
            } else {
                return Ok(Lookup::Newer);
            };
            trace.group(place.block, place.group);
            match self.look_up(open, place, key, max_seq)? {
                Lookup::Absent | Lookup::Newer => return Ok(Lookup::Newer),
                Lookup::Unfinished => {}
                found => return Ok(found),
            }
        }
    }

    #[inline]
    fn look_up(&self, open: &OpenTable, place: Place, key: &[u8], max_seq: SeqNo) -> Result<Lookup> {
        let data = self.block(open, place.block, Fill::Cache)?;
        self.look_up_in(open, &data, place.group, key, max_seq)
    }

    #[inline]
    fn look_up_in(
        &self,
        open: &OpenTable,
        data: &BlockData<'_>,
        group: usize,
        key: &[u8],
        max_seq: SeqNo,
    ) -> Result<Lookup> {
        let bad = |why| self.bad_block(data.at, why);
        let mut group = self.parse(data)?.group(group, open.base_seq).map_err(bad)?;
        let mut seen = false;
        while let Some(entry) = group.next_entry().map_err(bad)? {
            if !entry.is(key) {
                if seen {
                    return Ok(Lookup::Newer);
                }
                continue;
            }
            if entry.seq <= max_seq {
                let value = data
                    .slice(entry.value_at, entry.value_len)
                    .ok_or_else(|| bad(BadBlock::Malformed("a value lies outside of it")))?;
                return Ok(Lookup::Found(Found { seq: entry.seq, kind: entry.kind, value }));
            }
            seen = true;
        }
        Ok(if seen { Lookup::Unfinished } else { Lookup::Absent })
    }

    /// Whether the index leads to this version of a key (without the prefix), which is in block `n`, whose bytes are
    /// `data`.
    pub(super) fn leads_to(
        &self,
        open: &OpenTable,
        key: (&[u8], u64, SeqNo),
        n: usize,
        data: &BlockData<'_>,
    ) -> Result<bool> {
        let (key, hash, seq) = key;
        for place in index::probe(open.index_section(), hash) {
            let lookup = if place.block == n {
                self.look_up_in(open, data, place.group, key, SeqNo::MAX)?
            } else {
                let other = self.block(open, place.block, Fill::Bypass)?;
                self.look_up_in(open, &other, place.group, key, SeqNo::MAX)?
            };
            match lookup {
                Lookup::Absent => {}
                Lookup::Found(found) => return Ok(found.seq == seq),
                Lookup::Newer | Lookup::Unfinished => return Ok(false),
            }
        }
        Ok(false)
    }

    /// The groups of a block.
    #[inline]
    pub(super) fn parse<'a>(&self, data: &'a BlockData<'_>) -> Result<Block<'a>> {
        Block::parse(data.payload()).map_err(|why| self.bad_block(data.at, why))
    }

    /// A block, decoded. All reads of blocks come through here.
    #[inline]
    pub(super) fn block<'a>(&self, open: &'a OpenTable, n: usize, fill: Fill) -> Result<BlockData<'a>> {
        let range = self.block_range(open, n)?;
        let Source::Mapped(map) = &open.source else { return self.cached_block(range, n, fill) };
        let (stored, at) = (self.mapped_block(open, map, n, &range, fill)?, range.start);
        if stored.is_compressed() {
            return self.decompressed_block(&stored, at, n, fill);
        }
        Ok(BlockData { bytes: Payload::Mapped(map, at, stored.payload), at })
    }

    /// A block in the mapping; the first touch of each checks it.
    #[inline]
    fn mapped_block<'a>(
        &self,
        open: &OpenTable,
        map: &'a Mapping,
        n: usize,
        range: &Range<usize>,
        fill: Fill,
    ) -> Result<Stored<'a>> {
        let bytes = map.get(range.clone()).unwrap_or_default();
        let bit = 1 << (n % 64);
        let word = open.checked.get(n / 64);
        let touched = word.map_or(0, |word| word.load(Ordering::Relaxed));
        if touched & bit == 0 {
            if fill == Fill::Cache && touched >> (n % 64 / AROUND * AROUND) & ((1 << AROUND) - 1) == 0 {
                map.load_soon(self.around(open, n, range));
            }
            self.load(map, range)?;
            let stored = self.check_block(bytes, range.start)?;
            // Relaxed will do: the bytes never change, so the bit says nothing of any other memory.
            if let Some(word) = word {
                word.fetch_or(bit, Ordering::Relaxed);
            }
            return Ok(stored);
        }
        Stored::parse(bytes).map_err(|why| self.bad_block(range.start, why))
    }

    /// Looks in the cache first: decompressing costs more than that.
    fn decompressed_block(
        &self,
        stored: &Stored<'_>,
        at: usize,
        n: usize,
        fill: Fill,
    ) -> Result<BlockData<'static>> {
        self.through_cache(at, n, fill, || {
            Ok(Slice::from(stored.decompress().map_err(|why| self.bad_block(at, why))?))
        })
    }

    /// From the cache, else from the file.
    fn cached_block(&self, range: Range<usize>, n: usize, fill: Fill) -> Result<BlockData<'static>> {
        self.through_cache(range.start, n, fill, || self.read_block(range))
    }

    fn through_cache(
        &self,
        at: usize,
        n: usize,
        fill: Fill,
        load: impl FnOnce() -> Result<Slice>,
    ) -> Result<BlockData<'static>> {
        let cache = &self.context.cache;
        if let Some(found) = cache.get(self.meta.id, n, fill == Fill::Cache) {
            return Ok(BlockData { bytes: Payload::Owned(found), at });
        }
        let payload = load()?;
        if fill == Fill::Cache {
            cache.insert(self.meta.id, n, &payload);
        }
        Ok(BlockData { bytes: Payload::Owned(payload), at })
    }

    /// Reads a block from the file, checks and decodes it.
    fn read_block(&self, range: Range<usize>) -> Result<Slice> {
        let at = range.start;
        let bytes = self.read(&*self.open_file()?, range)?;
        let stored = self.check_block(&bytes, at)?;
        if stored.is_compressed() {
            return Ok(Slice::from(stored.decompress().map_err(|why| self.bad_block(at, why))?));
        }
        let len = stored.payload.len();
        let slice = Slice::from(bytes);
        slice.slice(0, len).ok_or_else(|| self.corrupt(at, "the block is shorter than its payload"))
    }

    /// Bytes of the file, whose length was checked when it was opened.
    fn read(&self, file: &dyn VfsFile, range: Range<usize>) -> Result<Arc<[u8]>> {
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, range.len()).collect();
        let buffer = Arc::get_mut(&mut bytes).unwrap_or_default(); // nobody else has it yet
        let read = read_full_at(file, buffer, range.start as u64).map_err(Error::io("read", &self.path))?;
        if read < range.len() {
            return Err(self.corrupt(range.start + read, "the file became shorter"));
        }
        Ok(bytes)
    }

    fn block_range(&self, open: &OpenTable, n: usize) -> Result<Range<usize>> {
        let range = open.fences.block(open.fence_section(), n);
        range
            .filter(|range| {
                range.start >= HEADER_LEN && range.start <= range.end && range.end <= open.blocks_end
            })
            .ok_or_else(|| self.corrupt(open.blocks_end, format!("no place for block {n}")))
    }

    /// A walk comes to block `n`: has what is in front of it loaded. Files that are read need nothing: the system sees
    /// that they are read in order.
    #[inline]
    pub(super) fn load_ahead(&self, open: &OpenTable, n: usize, ahead: &mut ReadAhead) -> Result<()> {
        let Source::Mapped(map) = &open.source else { return Ok(()) };
        let block = self.block_range(open, n)?;
        if let Some(wanted) = ahead.arrive(&block, &(HEADER_LEN..open.blocks_end)) {
            map.load_soon(wanted);
        }
        Ok(())
    }

    /// With a get's first touch among so many blocks all of them are loaded: a database that was just opened comes into
    /// memory with fewer reads. Only then: of one that is larger than memory, a get reads later what it needs and no more.
    #[cold]
    fn around(&self, open: &OpenTable, n: usize, block: &Range<usize>) -> Range<usize> {
        let first = n / AROUND * AROUND;
        let last = (first + AROUND).min(open.fences.blocks()).saturating_sub(1);
        match (self.block_range(open, first), self.block_range(open, last)) {
            (Ok(first), Ok(last)) if last.end.saturating_sub(first.start) <= MOST_AROUND => {
                first.start..last.end
            }
            _ => block.clone(),
        }
    }

    /// The same as [`Table::load`] for what is longer than a block: read at once, not page by page.
    pub(super) fn load_whole(&self, map: &Mapping, range: &Range<usize>) -> Result<()> {
        map.load_soon(range.clone());
        self.load(map, range)
    }

    /// Before the first touch of bytes of a mapping: see [`Mapping::load`].
    #[cold]
    pub(super) fn load(&self, map: &Mapping, range: &Range<usize>) -> Result<()> {
        map.load(range.clone()).map_err(|e| {
            let detail = format!("bytes {} to {} cannot be read: {e}", range.start, range.end);
            Error::io("read", &self.path)(io::Error::new(e.kind(), detail))
        })
    }

    #[cold]
    fn check_block<'a>(&self, bytes: &'a [u8], at: usize) -> Result<Stored<'a>> {
        sst_block::check(bytes, self.meta.id, at as u64).map_err(|why| self.bad_block(at, why))
    }

    /// Reads a block of the file itself and checks it, whether or not that was done before.
    pub(super) fn recheck_block(&self, open: &OpenTable, n: usize) -> Result<()> {
        let range = self.block_range(open, n)?;
        let at = range.start;
        match &open.source {
            Source::Mapped(map) => {
                self.load(map, &range)?;
                self.check_block(map.get(range).unwrap_or_default(), at).map(drop)
            }
            Source::Pread(_) => self.check_block(&self.read(&*self.open_file()?, range)?, at).map(drop),
        }
    }

    #[cold]
    pub(super) fn bad_block(&self, at: usize, why: BadBlock) -> Error {
        match why {
            BadBlock::Checksum { .. } | BadBlock::Malformed(_) => self.corrupt(at, why.to_string()),
            BadBlock::UnknownCodec(_) | BadBlock::UnknownEntry(_) => {
                unsupported(&self.path, why.to_string(), "codecs 0 and 1, puts and tombstones without flags")
            }
        }
    }

    pub(super) fn corrupt(&self, at: usize, detail: impl Into<String>) -> Error {
        Error::corrupt(&self.path, at as u64, detail)
    }

    /// Opens the file to be synced, which may be tried again: a failed sync must not. Nothing is written to it any more,
    /// and it may have a second name by now.
    pub(crate) fn open_to_sync(&self) -> Result<Arc<dyn VfsFile>> {
        self.context.vfs.open(&self.path, OpenMode::Read).map_err(|e| self.open_error(e))
    }

    /// Makes the file durable; its name needs a sync of the directory as well.
    pub(crate) fn sync(&self, file: &dyn VfsFile) -> Result<()> {
        file.sync().map_err(Error::io("sync", &self.path))?;
        *self.unsynced.lock() = None;
        Ok(())
    }

    fn open_error(&self, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::NotFound {
            if self.context.was_removed(self.meta.id) {
                return Error::Busy;
            }
            return self.corrupt(0, "listed in the manifest, missing");
        }
        Error::io("open", &self.path)(error)
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
        // When two threads come here at once, both have checked the same bytes: one of the two stays.
        Ok(self.open.get_or_init(|| open))
    }

    /// Maps the file, which is closed again at the end.
    fn map_and_check(&self) -> Result<OpenTable> {
        let map = match &self.held {
            Some(held) => Arc::clone(held),
            None => self.map_file()?,
        };
        self.load(&map, &(0..HEADER_LEN))?;
        let header = self.header(map.get(..HEADER_LEN).unwrap_or_default())?;
        let tail = format::tail_at(&self.meta, &self.path)?;
        self.load(&map, &tail)?;
        let sections = map.get(tail.clone()).unwrap_or_default();
        let sections = format::decode_sections(sections, &self.meta, &self.path)?;
        self.load_whole(&map, &(sections.first..tail.end))?;
        self.frame(Source::Mapped(map), 0, &header, &sections)
    }

    fn map_file(&self) -> Result<Arc<Mapping>> {
        let file = self.open_unread()?;
        let expected = self.meta.len;
        let map = file.map(expected).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::corrupt(&self.path, expected, "it became shorter"),
            _ => Error::io("map", &self.path)(error),
        })?;
        Ok(Arc::new(map))
    }

    /// Reads the header and all sections into memory: as much as a part of the file whose length was checked.
    fn read_and_check(&self) -> Result<OpenTable> {
        let file = self.open_file()?;
        let header = self.header(&self.read(&*file, 0..HEADER_LEN)?)?;
        let sections = self.sections(&*file)?;
        let base = sections.first;
        let directory_at = format::tail_at(&self.meta, &self.path)?.start;
        let mut bytes = vec![0; directory_at.saturating_sub(base)].into_boxed_slice();
        let read = read_full_at(&*file, &mut bytes, base as u64).map_err(Error::io("read", &self.path))?;
        if read < bytes.len() {
            return Err(self.corrupt(base + read, "the file became shorter"));
        }
        self.frame(Source::Pread(Counted::new(bytes, &self.context)), base, &header, &sections)
    }

    /// Reads the section directory alone.
    fn sections(&self, file: &dyn VfsFile) -> Result<Sections> {
        let tail = self.read(file, format::tail_at(&self.meta, &self.path)?)?;
        format::decode_sections(&tail, &self.meta, &self.path)
    }

    /// Checks the sections, which `source` holds from `base` of the file on.
    fn frame(
        &self,
        source: Source,
        base: usize,
        header: &SstHeader,
        sections: &Sections,
    ) -> Result<OpenTable> {
        let all: &[u8] = match &source {
            Source::Mapped(map) => map,
            Source::Pread(sections) => sections,
        };
        let section = |placed: &format::Placed| placed.checked(all, base, &self.meta, &self.path);
        let within = |placed: &format::Placed| {
            placed.at.start.saturating_sub(base)..placed.at.end.saturating_sub(base)
        };
        section(&sections.index)?;
        let properties_at = sections.properties.at.start as u64;
        format::check_properties(section(&sections.properties)?, &self.meta, &self.path, properties_at)?;
        let filter = Filter::parse(section(&sections.filter)?)
            .ok_or_else(|| unsupported(&self.path, "an unknown filter", "filters 1 and 2 of key hash 1"))?;
        let fence_bytes = section(&sections.fences)?;
        let (fences, prefix) = Fences::parse(fence_bytes)
            .and_then(|fences| Some((fences, fences.prefix(fence_bytes)?)))
            .ok_or_else(|| self.corrupt(sections.fences.at.start, "the fences make no sense"))?;
        let words = match &source {
            Source::Mapped(_) => fences.blocks().div_ceil(64),
            Source::Pread(_) => 0,
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

    /// The file, open for reading. Mapped tables need it only to be opened, so they do not keep it.
    pub(super) fn open_file(&self) -> Result<Arc<dyn VfsFile>> {
        match self.context.read_mode() {
            ReadMode::Mmap if self.open.get().is_none_or(|open| open.mapped().is_some()) => {
                self.open_unread()
            }
            _ => self.context.files.get(self.meta.id, || self.open_unread()),
        }
    }

    fn open_unread(&self) -> Result<Arc<dyn VfsFile>> {
        let file = self.context.vfs.open(&self.path, OpenMode::Read).map_err(|e| self.open_error(e))?;
        let found = file.len().map_err(Error::io("read the length of", &self.path))?;
        let expected = self.meta.len;
        if found != expected || usize::try_from(expected).is_err() {
            let detail = format!("it has {found} bytes, the manifest says {expected}");
            return Err(Error::corrupt(&self.path, found.min(expected), detail));
        }
        if expected < (HEADER_LEN + FOOTER_LEN) as u64 {
            return Err(self.corrupt(0, format!("{expected} bytes are too few")));
        }
        Ok(file)
    }

    /// Checks that the header is the file's that the manifest lists; returns its fields.
    fn header(&self, header: &[u8]) -> Result<SstHeader> {
        let header = FileHeader::decode(header, FileKind::Sst, &self.path, 0)?;
        let fields = SstHeader::decode(&header.extra, &self.path)?;
        let meta = &self.meta;
        if (fields.id, fields.stripe, fields.keyspace) != (meta.id, meta.stripe, meta.keyspace) {
            let detail = format!(
                "the header says file {}, stripe {}, keyspace {}; the manifest file {}, stripe {}, keyspace {}",
                fields.id, fields.stripe, fields.keyspace, meta.id, meta.stripe, meta.keyspace
            );
            return Err(self.corrupt(0, detail));
        }
        if header.database_id != meta.origin {
            return Err(self.corrupt(0, "it is of another database"));
        }
        Ok(fields)
    }
}

/// Refuses a file whose header, directory or footer is of a newer format. Nothing else that is wrong with it is said
/// here: whoever reads it is told.
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

impl Drop for Table {
    fn drop(&mut self) {
        // Its file may be removed, and takes up space for as long as it is open.
        self.context.files.close(self.meta.id);
    }
}
