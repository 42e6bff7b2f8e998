//! Reads an SST through a mapping.
//!
//! A [`Table`] costs nothing until it is read: the first touch opens and maps the file, checks its frame and
//! the checksums of all sections but the blocks, and closes it again; the mapping stays. A block's checksum is
//! checked when it is first touched. What fails is tried again at the next touch, so that an error is
//! reported every time and never taken for absence.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::fences::Fences;
use super::format::{self, FOOTER_LEN, SstHeader, unsupported};
use super::index::{self, Place};
use crate::bloom::Filter;
use crate::error::{Error, Result};
use crate::file_header::{FileHeader, FileKind, HEADER_LEN};
use crate::paths;
use crate::slice::{Found, Slice};
use crate::sst_block::{self, BadBlock, Block};
use crate::types::{SeqNo, SstMeta};
use crate::vfs::{Mapping, OpenMode, Vfs};

/// An SST that a manifest lists, or will.
#[derive(Debug)]
pub(crate) struct Table {
    vfs: Arc<dyn Vfs>,
    path: PathBuf,
    meta: Arc<SstMeta>,
    open: OnceLock<OpenTable>,
}

/// A mapped file whose frame was checked.
#[derive(Debug)]
pub(super) struct OpenTable {
    pub(super) map: Arc<Mapping>,
    pub(super) base_seq: SeqNo,
    pub(super) prefix: Box<[u8]>,
    pub(super) fences: Fences,
    pub(super) filter: Filter,
    fences_at: Range<usize>,
    filter_at: Range<usize>,
    index_at: Range<usize>,
    /// Blocks lie below this.
    blocks_end: usize,
    /// One bit a block: its checksum was found right.
    checked: Box<[AtomicU64]>,
}

impl OpenTable {
    fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.map.get(range.clone()).unwrap_or_default()
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
    /// The SST that `meta` describes, in `dir`. Nothing is read yet.
    pub(crate) fn new(vfs: Arc<dyn Vfs>, dir: &Path, meta: Arc<SstMeta>) -> Self {
        let path = paths::sst(dir, usize::from(meta.stripe), meta.id);
        Self { vfs, path, meta, open: OnceLock::new() }
    }

    pub(crate) fn meta(&self) -> &Arc<SstMeta> {
        &self.meta
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The newest version of a key with `seq <= max_seq`. `hash` is the key's `key_hash`.
    pub(crate) fn get(&self, key: &[u8], hash: u64, max_seq: SeqNo) -> Result<Option<Found>> {
        let open = self.opened()?;
        if !open.may_contain(hash) {
            return Ok(None);
        }
        let Some(key) = key.strip_prefix(&*open.prefix) else { return Ok(None) };
        for place in index::probe(open.index_section(), hash) {
            match self.look_up(open, place, key, max_seq)? {
                Lookup::Absent => {} // another key with the same fingerprint
                Lookup::Found(found) => return Ok(Some(found)),
                Lookup::Newer => return Ok(None),
                Lookup::Unfinished => return self.get_older(open, place, key, max_seq),
            }
        }
        Ok(None)
    }

    /// Goes on with the groups after `place` while they start with the key.
    #[cold]
    fn get_older(&self, open: &OpenTable, place: Place, key: &[u8], max_seq: SeqNo) -> Result<Option<Found>> {
        let mut place = place;
        loop {
            place = if place.group + 1 < self.block(open, place.block)?.0.groups() {
                Place { group: place.group + 1, ..place }
            } else if place.block + 1 < open.fences.blocks() {
                Place { block: place.block + 1, group: 0 }
            } else {
                return Ok(None);
            };
            match self.look_up(open, place, key, max_seq)? {
                Lookup::Absent | Lookup::Newer => return Ok(None),
                Lookup::Found(found) => return Ok(Some(found)),
                Lookup::Unfinished => {}
            }
        }
    }

    #[inline]
    fn look_up(&self, open: &OpenTable, place: Place, key: &[u8], max_seq: SeqNo) -> Result<Lookup> {
        let (block, at) = self.block(open, place.block)?;
        let bad = |why| self.bad_block(at, why);
        let mut group = block.group(place.group, open.base_seq).map_err(bad)?;
        let mut seen = false;
        while let Some(entry) = group.next_entry().map_err(bad)? {
            if !entry.is(key) {
                if seen {
                    return Ok(Lookup::Newer);
                }
                continue;
            }
            if entry.seq <= max_seq {
                let value = Slice::mapped(&open.map, at + entry.value_at, entry.value_len)
                    .ok_or_else(|| bad(BadBlock::Malformed("a value lies outside of it")))?;
                return Ok(Lookup::Found(Found { seq: entry.seq, kind: entry.kind, value }));
            }
            seen = true;
        }
        Ok(if seen { Lookup::Unfinished } else { Lookup::Absent })
    }

    /// A block and where it starts. All reads of blocks come through here; the first of each checks it.
    #[inline]
    pub(super) fn block<'a>(&self, open: &'a OpenTable, n: usize) -> Result<(Block<'a>, usize)> {
        let (bytes, at) = self.block_bytes(open, n)?;
        let bit = 1 << (n % 64);
        let word = open.checked.get(n / 64);
        if word.is_none_or(|word| word.load(Ordering::Relaxed) & bit == 0) {
            self.check_block(bytes, at)?;
            // Relaxed will do: the bytes never change, so the bit says nothing of any other memory.
            if let Some(word) = word {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        Ok((Block::parse(bytes).map_err(|why| self.bad_block(at, why))?, at))
    }

    fn block_bytes<'a>(&self, open: &'a OpenTable, n: usize) -> Result<(&'a [u8], usize)> {
        let range = open.fences.block(open.fence_section(), n);
        range
            .filter(|range| range.start >= HEADER_LEN && range.end <= open.blocks_end)
            .and_then(|range| Some((open.map.get(range.clone())?, range.start)))
            .ok_or_else(|| self.corrupt(open.fences_at.start, format!("no place for block {n}")))
    }

    #[cold]
    fn check_block(&self, bytes: &[u8], at: usize) -> Result<()> {
        sst_block::check(bytes, self.meta.id, at as u64).map_err(|why| self.bad_block(at, why))
    }

    /// Checks a block again, whether or not it was before.
    pub(super) fn recheck_block(&self, open: &OpenTable, n: usize) -> Result<()> {
        let (bytes, at) = self.block_bytes(open, n)?;
        self.check_block(bytes, at)
    }

    #[cold]
    pub(super) fn bad_block(&self, at: usize, why: BadBlock) -> Error {
        match why {
            BadBlock::Checksum { .. } | BadBlock::Malformed(_) => self.corrupt(at, why.to_string()),
            BadBlock::UnknownCodec(_) | BadBlock::UnknownEntry(_) => {
                unsupported(&self.path, why.to_string(), "codec 0, puts and tombstones without flags")
            }
        }
    }

    pub(super) fn corrupt(&self, at: usize, detail: impl Into<String>) -> Error {
        Error::corrupt(&self.path, at as u64, detail)
    }

    /// Makes the file durable; its name needs a sync of the directory as well.
    pub(crate) fn sync(&self) -> Result<()> {
        let file = self.vfs.open(&self.path, OpenMode::Write).map_err(|e| self.open_error(e))?;
        file.sync().map_err(Error::io("sync", &self.path))
    }

    fn open_error(&self, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::NotFound {
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
        let open = self.map_and_check()?;
        // When two threads come here at once, both have checked the same bytes: one of the two stays.
        Ok(self.open.get_or_init(|| open))
    }

    fn map_and_check(&self) -> Result<OpenTable> {
        let map = self.map()?;
        let len = self.meta.len as usize;
        let bytes = map.get(..len).unwrap_or_default();
        let header = self.header(bytes)?;
        let sections = format::decode_sections(bytes, &self.meta, &self.path)?;
        let section = |range: &Range<usize>| bytes.get(range.clone()).unwrap_or_default();
        let properties_at = sections.properties.start as u64;
        format::check_properties(section(&sections.properties), &self.meta, &self.path, properties_at)?;
        let filter = Filter::parse(section(&sections.filter))
            .ok_or_else(|| unsupported(&self.path, "an unknown filter", "filters 1 and 2 of key hash 1"))?;
        let fence_bytes = section(&sections.fences);
        let (fences, prefix) = Fences::parse(fence_bytes)
            .and_then(|fences| Some((fences, fences.prefix(fence_bytes)?)))
            .ok_or_else(|| self.corrupt(sections.fences.start, "the fences make no sense"))?;
        Ok(OpenTable {
            base_seq: header.base_seq,
            prefix: prefix.into(),
            fences,
            filter,
            fences_at: sections.fences.clone(),
            filter_at: sections.filter.clone(),
            index_at: sections.index.clone(),
            blocks_end: sections.first,
            checked: (0..fences.blocks().div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            map: Arc::clone(&map),
        })
    }

    /// Maps the file; it is closed again at the end.
    fn map(&self) -> Result<Arc<Mapping>> {
        let file = self.vfs.open(&self.path, OpenMode::Read).map_err(|e| self.open_error(e))?;
        let found = file.len().map_err(Error::io("read the length of", &self.path))?;
        let expected = self.meta.len;
        if found != expected || usize::try_from(expected).is_err() {
            let detail = format!("it has {found} bytes, the manifest says {expected}");
            return Err(Error::corrupt(&self.path, found.min(expected), detail));
        }
        if expected < (HEADER_LEN + FOOTER_LEN) as u64 {
            return Err(self.corrupt(0, format!("{expected} bytes are too few")));
        }
        let map = file.map(expected).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::corrupt(&self.path, expected, "it became shorter"),
            _ => Error::io("map", &self.path)(error),
        })?;
        Ok(Arc::new(map))
    }

    /// Checks that the header is the file's that the manifest lists; returns its fields.
    fn header(&self, bytes: &[u8]) -> Result<SstHeader> {
        let header = bytes.get(..HEADER_LEN).unwrap_or(bytes);
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
