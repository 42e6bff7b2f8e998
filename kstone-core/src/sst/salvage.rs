//! Reads what is left of an SST: checks every part of the file separately and continues after damage.
//!
//! Owns the bytes of one file, in memory. Unreadable bytes count as zeros and as damage. Entries are only taken from
//! blocks whose checksums match. If the fences are damaged, blocks are found by their checksums: these cover the file's
//! id and the offset, so nothing else passes for a block.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::fences::Fences;
use super::format::{self, FOOTER_LEN, SectionKind};
use super::index::{self, GroupAddress};
use crate::bloom::Filter;
use crate::coding::{Reader, part};
use crate::error::{Error, Result};
use crate::file_header::{FileHeader, FileKind, HEADER_LEN, Id};
use crate::key::key_hash;
use crate::sst_block::{self, BadBlock, Block, BlockEntry, Stored, TRAILER_LEN, checksum_at};
use crate::types::{EntryKind, SeqNo, SstMeta};
use crate::vfs::{OpenMode, READ_UNIT, RETRY_UNIT, Vfs, VfsFile, read_full_at};

/// Bytes that a search for blocks without fences may hash, per byte of the file.
const SEARCH: usize = 64;

/// The damaged part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Header,
    /// An intact header of another file or database.
    Identity,
    /// The index in [`SalvagedTable::blocks`].
    Block(usize),
    Section(&'static str),
    Frame,
    Length,
    /// A range that the file system fails to read.
    Unreadable,
    Whole,
}

/// A single fault.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) part: Part,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) detail: String,
}

/// A range of the file that holds or held a block.
#[derive(Clone, Debug)]
pub(crate) struct BlockPlace {
    pub(crate) at: Range<usize>,
    /// The block's number in the file; unknown after damage if the fences are damaged as well.
    pub(crate) number: Option<usize>,
    pub(crate) good: bool,
}

/// An entry that survived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SalvagedEntry {
    pub(crate) key: Vec<u8>,
    pub(crate) seq: SeqNo,
    pub(crate) kind: EntryKind,
    pub(crate) value: Vec<u8>,
}

/// The state of a file as found.
#[derive(Debug)]
pub(crate) struct SalvagedTable {
    pub(crate) path: PathBuf,
    pub(crate) meta: SstMeta,
    pub(crate) faults: Vec<Fault>,
    pub(crate) blocks: Vec<BlockPlace>,
    /// Database id and incarnation from the header, if it can be read.
    pub(crate) identity: Option<(Id, Id)>,
    bytes: Vec<u8>,
    base_seq: SeqNo,
    prefix: Option<Vec<u8>>,
    fences: Option<(Fences, Range<usize>)>,
    index: Option<Range<usize>>,
}

/// Reads as much of a file as possible. Unreadable ranges are zeroed and returned, with the reasons.
fn read_what_there_is(file: &dyn VfsFile, len: usize) -> (Vec<u8>, Vec<(Range<usize>, String)>) {
    let (mut bytes, mut unread) = (vec![0; len], Vec::<(Range<usize>, String)>::new());
    let mut at = 0;
    while at < len {
        let end = (at + READ_UNIT).min(len);
        let whole = bytes.get_mut(at..end).map(|buf| read_full_at(file, buf, at as u64));
        if !matches!(whole, Some(Ok(_))) {
            for start in (at..end).step_by(RETRY_UNIT) {
                let sector = start..(start + RETRY_UNIT).min(end);
                let Some(buf) = bytes.get_mut(sector.clone()) else { continue };
                if let Err(e) = read_full_at(file, buf, start as u64) {
                    buf.fill(0);
                    unread.push((sector, e.to_string()));
                }
            }
        }
        at = end;
    }
    (bytes, unread)
}

impl SalvagedTable {
    /// Examines the file at `path`, which `meta` should describe. Fails only if there is no file, or it cannot be
    /// opened.
    pub(crate) fn read(vfs: &dyn Vfs, path: &Path, meta: &SstMeta) -> Result<Self> {
        let file = vfs.open(path, OpenMode::Read).map_err(Error::io("open", path))?;
        let found = file.len().map_err(Error::io("read the length of", path))?;
        // Of a file that has grown, only the recorded length is examined. A file that does not fit into memory is
        // treated as empty: all of it is damaged.
        let len = usize::try_from(found.min(meta.len)).unwrap_or(0);
        let (bytes, unread) = read_what_there_is(&*file, len);
        let mut table = Self {
            path: path.to_path_buf(),
            meta: meta.clone(),
            faults: Vec::new(),
            blocks: Vec::new(),
            identity: None,
            bytes,
            base_seq: meta.run_seq.0,
            prefix: None,
            fences: None,
            index: None,
        };
        if found != meta.len {
            let detail = format!("it has {found} bytes, but {} are recorded", meta.len);
            table.fault(Part::Length, found.min(meta.len), found.abs_diff(meta.len), detail);
        }
        for (at, why) in unread {
            table.fault(Part::Unreadable, at.start as u64, at.len() as u64, format!("cannot be read: {why}"));
        }
        table.read_header();
        let blocks_end = table.read_sections();
        table.read_blocks(blocks_end);
        table.find_prefix();
        if found == meta.len {
            let computed = crc32c::crc32c(&table.bytes);
            if computed != meta.checksum && table.faults.is_empty() {
                let stored = meta.checksum;
                let detail =
                    format!("file checksum mismatch: computed {computed:08x}, recorded {stored:08x}");
                table.fault(Part::Whole, 0, meta.len, detail);
            }
        }
        Ok(table)
    }

    fn fault(&mut self, part: Part, offset: u64, len: u64, detail: impl Into<String>) {
        self.faults.push(Fault { part, offset, len, detail: detail.into() });
    }

    fn fault_from(&mut self, part: Part, len: u64, error: &Error) {
        let (offset, detail) = match error {
            Error::Corruption { offset, detail, .. } => (*offset, detail.clone()),
            other => (0, other.to_string()),
        };
        self.fault(part, offset, len, detail);
    }

    fn read_header(&mut self) {
        let bytes = self.bytes.get(..HEADER_LEN).unwrap_or(&self.bytes);
        let header = FileHeader::decode(bytes, FileKind::Sst, &self.path, 0)
            .and_then(|header| Ok((format::SstHeader::decode(&header.extra, &self.path)?, header)));
        let (fields, header) = match header {
            Ok(found) => found,
            Err(error) => return self.fault_from(Part::Header, HEADER_LEN as u64, &error),
        };
        self.identity = Some((header.database_id, header.incarnation));
        let meta = &self.meta;
        let wrong = if header.database_id != meta.origin {
            Some("the file belongs to another database".to_owned())
        } else if (fields.id, fields.stripe, fields.keyspace) != (meta.id, meta.stripe, meta.keyspace) {
            Some(format!(
                "the header is of file {} in stripe {}, not file {} in stripe {}",
                fields.id, fields.stripe, meta.id, meta.stripe
            ))
        } else {
            None
        };
        match wrong {
            Some(detail) => self.fault(Part::Identity, 0, HEADER_LEN as u64, detail),
            None => self.base_seq = fields.base_seq,
        }
    }

    /// Returns the offset at or before which all blocks end.
    fn read_sections(&mut self) -> usize {
        let tail = format::tail_at(&self.meta, &self.path).and_then(|at| {
            format::decode_sections(self.bytes.get(at).unwrap_or_default(), &self.meta, &self.path)
        });
        if let Err(error) = tail {
            let len = u64::from(self.meta.directory.1) + FOOTER_LEN as u64;
            self.fault_from(Part::Frame, len, &error);
        }
        // Each section has its own checksum: the directory's entries are tried even if the directory is damaged.
        let directory_at = usize::try_from(self.meta.directory.0).unwrap_or(usize::MAX);
        let directory = directory_at.checked_add(self.meta.directory.1 as usize).map(|end| directory_at..end);
        let mut first = directory_at.min(self.bytes.len());
        let places = directory
            .and_then(|at| self.bytes.get(at))
            .map(|directory| format::sections_in(directory, directory_at))
            .unwrap_or_default();
        for (kind, name) in [
            (SectionKind::Index, "index"),
            (SectionKind::Fences, "fences"),
            (SectionKind::Filter, "filter"),
            (SectionKind::Properties, "properties"),
        ] {
            let Some(section) = places.iter().find(|section| section.kind == kind) else {
                self.fault(
                    Part::Section(name),
                    directory_at as u64,
                    0,
                    format!("the {name} cannot be found"),
                );
                continue;
            };
            let at = section.offset as usize..(section.offset + section.len) as usize;
            if let Some(detail) = self.check_section(kind, section.crc, &at) {
                self.fault(Part::Section(name), section.offset, section.len, detail);
                continue;
            }
            first = first.min(at.start);
            match kind {
                SectionKind::Index => self.index = Some(at),
                SectionKind::Fences => {
                    let parsed = self.bytes.get(at.clone()).and_then(Fences::parse);
                    self.fences = parsed.map(|fences| (fences, at));
                }
                SectionKind::Filter | SectionKind::Properties => {}
            }
        }
        first
    }

    /// The fault of a section, if it has one.
    fn check_section(&self, kind: SectionKind, stored: u32, at: &Range<usize>) -> Option<String> {
        let section = self.bytes.get(at.clone()).unwrap_or_default();
        let computed = checksum_at(self.meta.id, at.start as u64, section);
        if computed != stored || section.len() != at.len() {
            return Some(format!("section checksum mismatch: computed {computed:08x}, stored {stored:08x}"));
        }
        match kind {
            SectionKind::Fences if Fences::parse(section).is_none() => {
                Some("the fences are inconsistent".into())
            }
            SectionKind::Filter if Filter::parse(section).is_none() => Some("the filter is unknown".into()),
            SectionKind::Properties => {
                let checked = format::check_properties(section, &self.meta, &self.path, at.start as u64);
                checked.err().map(|e| match e {
                    Error::Corruption { detail, .. } => detail,
                    other => other.to_string(),
                })
            }
            _ => None,
        }
    }

    fn read_blocks(&mut self, end: usize) {
        let fenced = self.fenced_blocks(end);
        if fenced.is_none() && self.fences.take().is_some() {
            self.fault(Part::Section("fences"), 0, 0, "the fences contain impossible block positions");
        }
        self.blocks = fenced.unwrap_or_else(|| self.search_blocks(end));
        for n in 0..self.blocks.len() {
            let Some(place) = self.blocks.get(n) else { continue };
            let (at, block) = (place.at.clone(), self.bytes.get(place.at.clone()).unwrap_or_default());
            let checked = if block.len() == at.len() {
                sst_block::check(block, self.meta.id, at.start as u64)
                    .and_then(|stored| self.each_of(&stored, |_, _| ()))
            } else {
                Err(BadBlock::Malformed("the file ends before it"))
            };
            if let Some(place) = self.blocks.get_mut(n) {
                place.good = checked.is_ok();
            }
            if let Err(why) = checked {
                self.fault(Part::Block(n), at.start as u64, at.len() as u64, why.to_string());
            }
        }
    }

    /// The positions of blocks according to the fences; `None` if these are impossible.
    fn fenced_blocks(&self, end: usize) -> Option<Vec<BlockPlace>> {
        let (fences, at) = self.fences.as_ref()?;
        let section = self.bytes.get(at.clone())?;
        let mut places = Vec::new();
        let mut next = HEADER_LEN;
        for n in 0..fences.blocks() {
            let at = fences.block(section, n)?;
            if at.start != next || at.end <= at.start || at.end > end {
                return None;
            }
            next = at.end;
            places.push(BlockPlace { at, number: Some(n), good: true });
        }
        Some(places)
    }

    /// Finds blocks by their checksums, from the start on. The bytes between blocks are damaged.
    fn search_blocks(&self, end: usize) -> Vec<BlockPlace> {
        let mut places = Vec::new();
        let mut budget = self.bytes.len().saturating_mul(SEARCH);
        let (mut next, mut chained) = (HEADER_LEN, Some(0));
        while let Some(at) = self.next_block(next..end, &mut budget) {
            if at.start > next {
                places.push(BlockPlace { at: next..at.start, number: None, good: false });
                chained = None;
            }
            next = at.end;
            places.push(BlockPlace { at, number: chained, good: true });
            chained = chained.map(|n| n + 1);
        }
        // A truncated file, even if cut right after a block, has lost the bytes before its sections.
        let reached = usize::try_from(self.meta.directory.0).unwrap_or(usize::MAX);
        if end == self.bytes.len() && end < reached {
            places.push(BlockPlace { at: next..reached, number: None, good: false });
            return places;
        }
        // Padding before the sections is zero, and shorter than any block.
        let rest = self.bytes.get(next..end).unwrap_or_default();
        if rest.len() >= format::SECTION_ALIGN || rest.iter().any(|&b| b != 0) {
            places.push(BlockPlace { at: next..end, number: None, good: false });
        }
        places
    }

    /// The first block within `range`.
    fn next_block(&self, range: Range<usize>, budget: &mut usize) -> Option<Range<usize>> {
        let mut is_block = |at: Range<usize>| {
            *budget = budget.checked_sub(at.len())?;
            let block = self.bytes.get(at.clone())?;
            sst_block::check(block, self.meta.id, at.start as u64).ok().map(|_| at)
        };
        let mut misses = 0;
        for end in range.start + TRAILER_LEN + 1..=range.end {
            let trailer = self.bytes.get(end - TRAILER_LEN..end)?;
            let mut reader = Reader::new(trailer);
            let (codec, raw_len) = (reader.u8()?, reader.u32()? as usize);
            let stored = end - TRAILER_LEN - range.start;
            match codec {
                // The length in the trailer gives the block's start.
                sst_block::NO_CODEC if (1..=stored).contains(&raw_len) => {
                    if let Some(found) = is_block(end - TRAILER_LEN - raw_len..end) {
                        return Some(found);
                    }
                }
                sst_block::LZ4 if raw_len > 0 && raw_len / sst_block::LZ4_MAX_RATIO <= stored => {
                    if let Some(found) = is_block(range.start..end) {
                        return Some(found);
                    }
                    // After damage a block may start anywhere. Only a few ends are tried that thoroughly.
                    misses += 1;
                    let starts = range.start + 1..end - TRAILER_LEN;
                    if misses <= 4
                        && let Some(found) = starts.into_iter().find_map(|start| is_block(start..end))
                    {
                        return Some(found);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Finds the common prefix of all keys: from the fences, or else from the first or the last key.
    fn find_prefix(&mut self) {
        let fenced = self.fences.as_ref().and_then(|(fences, at)| fences.prefix(self.bytes.get(at.clone())?));
        if let Some(prefix) = fenced {
            self.prefix = Some(prefix.to_vec());
            return;
        }
        let (first, last) = &self.meta.keys;
        let ends = |key: &[u8], n: usize, last: bool| {
            let place = self.blocks.get(n).filter(|place| place.good)?;
            let mut end = None;
            self.each(place, |entry, _| {
                if last || end.is_none() {
                    end = Some([entry.head, entry.tail].concat());
                }
            });
            key.strip_suffix(end?.as_slice()).map(<[u8]>::to_vec)
        };
        let blocks = self.blocks.len();
        self.prefix = ends(first, 0, false).or_else(|| ends(last, blocks.checked_sub(1)?, true));
        if self.prefix.is_none() && self.blocks.iter().any(|place| place.good) {
            self.fault(
                Part::Section("fences"),
                0,
                0,
                "the common prefix of the keys is lost, and with it all keys",
            );
        }
    }

    /// Calls `f` with each entry of a good block, and its value.
    fn each(&self, place: &BlockPlace, f: impl FnMut(&BlockEntry<'_>, &[u8])) {
        let stored = Stored::parse(part(&self.bytes, place.at.clone()));
        let read = stored.and_then(|stored| self.each_of(&stored, f));
        // A block is only marked good after it was read to its end.
        debug_assert!(read.is_ok(), "a good block of {} cannot be read: {read:?}", self.path.display());
    }

    /// Parses a block with a matching checksum to its end.
    fn each_of(
        &self,
        stored: &Stored<'_>,
        mut f: impl FnMut(&BlockEntry<'_>, &[u8]),
    ) -> Result<(), BadBlock> {
        let raw;
        let payload = if stored.is_compressed() {
            raw = stored.decompress()?;
            &*raw
        } else {
            stored.payload
        };
        let block = Block::parse(payload)?;
        for n in 0..block.groups() {
            let mut group = block.group(n, self.base_seq)?;
            while let Some(entry) = group.next_entry()? {
                f(&entry, part(payload, entry.value_at..entry.value_at + entry.value_len));
            }
        }
        Ok(())
    }

    /// Whether no part has a fault. The parts were not checked against each other.
    pub(crate) fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// The number of bytes read.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether any entries can be recovered.
    pub(crate) fn has_entries(&self) -> bool {
        self.prefix.is_some() && self.blocks.iter().any(|place| place.good)
    }

    /// Whether the key ranges of its blocks can be determined, even if all blocks are damaged.
    pub(crate) fn has_places(&self) -> bool {
        self.prefix.is_some() && !self.blocks.is_empty()
    }

    /// The entries of a block, in order; none if it is damaged.
    pub(crate) fn entries(&self, n: usize) -> Vec<SalvagedEntry> {
        let mut entries = Vec::new();
        let place = self.blocks.get(n).filter(|place| place.good);
        if let (Some(place), Some(prefix)) = (place, &self.prefix) {
            self.each(place, |entry, value| {
                let key = [prefix, entry.head, entry.tail].concat();
                entries.push(SalvagedEntry { key, seq: entry.seq, kind: entry.kind, value: value.to_vec() });
            });
        }
        entries
    }

    /// Bounds on the keys that a block held, even if it is damaged: they are at or above the first bound, and at or
    /// below the second. `None` if there is no bound.
    pub(crate) fn bounds(&self, n: usize) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let number = self.blocks.get(n).and_then(|place| place.number);
        let fence = |n: usize| {
            let (fences, at) = self.fences.as_ref()?;
            let separator = fences.separator(self.bytes.get(at.clone())?, n)?;
            Some([self.prefix.as_deref()?, separator].concat())
        };
        let below = number.filter(|&n| n > 0).and_then(fence);
        let above = number.and_then(|n| fence(n + 1));
        let before = || {
            let good = self.blocks.get(..n)?.iter().rposition(|place| place.good)?;
            self.entries(good).pop().map(|entry| entry.key)
        };
        let after = || {
            let good = self.blocks.get(n + 1..)?.iter().position(|place| place.good)?;
            self.entries(n + 1 + good).into_iter().next().map(|entry| entry.key)
        };
        let (first, last) = &self.meta.keys;
        let known = |key: &Vec<u8>| (!key.is_empty()).then(|| key.clone());
        (below.or_else(before).or_else(|| known(first)), above.or_else(after).or_else(|| known(last)))
    }

    /// The number of keys whose newest version is in this block according to the index; `None` if that is unknown.
    pub(crate) fn keys_in(&self, n: usize) -> Option<u64> {
        let number = self.blocks.get(n)?.number?;
        let index = self.bytes.get(self.index.clone()?)?;
        Some(index::places(index).filter(|place| place.block == number).count() as u64)
    }

    /// Whether the index leads to this block for this key.
    pub(crate) fn leads_to(&self, n: usize, key: &[u8]) -> bool {
        self.group_of(n, key).is_some()
    }

    fn group_of(&self, n: usize, key: &[u8]) -> Option<GroupAddress> {
        let number = self.blocks.get(n)?.number?;
        let index = self.bytes.get(self.index.clone()?)?;
        index::probe(index, key_hash(key)).find(|place| place.block == number)
    }

    /// Keys in a damaged block that the index confirms: their hashes lead to the very group in which they were found.
    pub(crate) fn names_in(&self, n: usize) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        let (Some(place), Some(prefix)) = (self.blocks.get(n), &self.prefix) else { return names };
        let block = self.bytes.get(place.at.clone()).unwrap_or_default();
        let Some(payload) = block.len().checked_sub(TRAILER_LEN).and_then(|len| block.get(..len)) else {
            return names;
        };
        // The block is damaged: take the keys that can still be parsed.
        let Ok(parsed) = Block::parse(payload) else { return names };
        for g in 0..parsed.groups() {
            let Ok(mut group) = parsed.group(g, self.base_seq) else { continue };
            for _ in 0..sst_block::GROUP_LEN {
                let Ok(Some(entry)) = group.next_entry() else { break };
                let key = [prefix, entry.head, entry.tail].concat();
                if names.last() != Some(&key) && self.group_of(n, &key).is_some_and(|place| place.group == g)
                {
                    names.push(key);
                }
            }
        }
        names
    }
}

/// Describes a file without a manifest, from its own contents. `None` if they are insufficient: header and properties
/// are both damaged, or it is not an SST.
pub(crate) fn describe(vfs: &dyn Vfs, path: &Path, stripe: u16, id: u64) -> Result<Option<SstMeta>> {
    let file = vfs.open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    let len = file.len().map_err(Error::io("read the length of", path))?;
    let (bytes, _unread) = read_what_there_is(&*file, usize::try_from(len).unwrap_or(0));
    let header = FileHeader::decode(&bytes, FileKind::Sst, path, 0);
    let fields = header.as_ref().ok().and_then(|header| format::SstHeader::decode(&header.extra, path).ok());
    let (id, stripe) = fields.as_ref().map_or((id, stripe), |fields| (fields.id, fields.stripe));
    // Every file lists four sections. The footer gives the position of the directory.
    let footer = format::footer_place(&bytes, id);
    let guess = len
        .checked_sub(FOOTER_LEN as u64 + format::DIRECTORY_LEN)
        .map(|at| (at, format::DIRECTORY_LEN as u32));
    let Some(directory) = footer.or(guess) else { return Ok(None) };
    let mut meta = format::blank_meta(id, stripe, len, directory);
    meta.keyspace = fields.as_ref().map_or(0, |fields| fields.keyspace);
    if let Ok(header) = &header {
        (meta.origin, meta.created_ms) = (header.database_id, header.created_ms);
    }
    let at = directory.0 as usize;
    let sections = bytes.get(at..at.saturating_add(directory.1 as usize)).map(|d| format::sections_in(d, at));
    let properties = sections.unwrap_or_default().into_iter().find(|s| s.kind == SectionKind::Properties);
    let known = properties.is_some_and(|section| {
        let range = section.offset as usize..(section.offset + section.len) as usize;
        let Some(body) = bytes.get(range) else { return false };
        checksum_at(id, section.offset, body) == section.crc && format::decode_properties(body, &mut meta)
    });
    meta.checksum = crc32c::crc32c(&bytes);
    if known {
        return Ok(Some(meta));
    }
    let Some(fields) = fields else { return Ok(None) };
    // The rest must come from the entries. The first key is the first entry's of the first block, after the prefix in
    // the fences.
    meta.run_seq = (fields.base_seq, fields.base_seq);
    let table = SalvagedTable::read(vfs, path, &meta)?;
    for n in 0..table.blocks.len() {
        for entry in table.entries(n) {
            if meta.entries == 0 {
                (meta.keys.0, meta.seq) = (entry.key.clone(), (entry.seq, entry.seq));
            }
            meta.keys.1 = entry.key;
            meta.seq = (meta.seq.0.min(entry.seq), meta.seq.1.max(entry.seq));
            meta.entries += 1;
            meta.tombstones += u64::from(entry.kind == EntryKind::Delete);
        }
    }
    meta.run_seq.1 = meta.seq.1.max(meta.run_seq.0);
    Ok((meta.entries > 0).then_some(meta))
}
