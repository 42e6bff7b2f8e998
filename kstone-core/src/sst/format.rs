//! The frame of an SST: its header fields, properties, section directory and footer.
//!
//! ```text
//! fields of this file kind in the file header
//!   0  8  file id
//!   8  8  base sequence: entries store their distance from it
//!  16  4  keyspace
//!  20  2  stripe
//!  22  1  key encoding
//!  23  1  key hash
//!  24 32  zero
//!
//! properties, one after another
//!   u16  tag    u16  flags, bit 0: critical    u32  length    bytes
//!   1 entries u64                  5 first key            9 run u64, part u32, depth u32,
//!   2 tombstones u64               6 last key               lowest and highest sequence of the run's inputs
//!   3 bytes of keys and values u64 7 oldest tombstone, ms u64 (0: none)
//!   4 lowest, highest sequence     8 version of the writer, text
//!   10 written with: bits per key u32, block size u32, codec u8
//!   11 keys: their number u64, then the lowest of the upper halves of their hashes, u32 each, ascending
//!
//! section directory, 28 bytes an entry
//!   u16  kind   u16  flags, bit 0: critical    u64  offset   u64  length   u32  checksum   u32  zero
//!   1 key-hash index   2 fences   3 filter   4 properties
//!
//! footer, at the end of the file
//!   0  8  offset of the section directory
//!   8  4  its length
//!  12  4  its checksum
//!  16  8  file id
//!  24  8  length of the file
//!  32 20  zero
//!  52  8  magic "KSTONSST"
//!  60  4  checksum of the footer's bytes 0 to 60
//! ```
//!
//! Checksums are computed by `sst_block::checksum_at`. An unknown section or property is skipped, or refused if it is
//! critical.

use std::ops::Range;
use std::path::Path;

use crate::bloom::KEY_HASH_ID;
use crate::coding::{Reader, part};
use crate::error::{Error, Result};
use crate::file_header::HEADER_LEN;
use crate::key::KEY_ENCODING;
use crate::sst_block::checksum_at;
use crate::types::{FileId, SeqNo, SstDetails, SstMeta};

pub(super) const FOOTER_LEN: usize = 64;
/// Alignment of sections.
pub(super) const SECTION_ALIGN: usize = 64;

const MAGIC: &[u8; 8] = b"KSTONSST";
const FOOTER_CRC_AT: usize = 60;
const DIRECTORY_ENTRY_LEN: usize = 28;
const CRITICAL: u16 = 1;

/// Header fields of an SST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SstHeader {
    pub(super) id: FileId,
    pub(super) base_seq: SeqNo,
    pub(super) keyspace: u32,
    pub(super) stripe: u16,
}

impl SstHeader {
    pub(super) fn encode(&self) -> [u8; 56] {
        let mut extra = [0; 56];
        let fields = (self.id.to_le_bytes().into_iter())
            .chain(self.base_seq.to_le_bytes())
            .chain(self.keyspace.to_le_bytes())
            .chain(self.stripe.to_le_bytes())
            .chain([KEY_ENCODING as u8, KEY_HASH_ID]);
        extra.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        extra
    }

    pub(super) fn decode(extra: &[u8], file: &Path) -> Result<Self> {
        let mut reader = Reader::new(extra);
        let mut fields = || {
            let (id, base_seq) = (reader.u64()?, reader.u64()?);
            let (keyspace, stripe) = (reader.u32()?, reader.u16()?);
            Some((Self { id, base_seq, keyspace, stripe }, reader.u8()?, reader.u8()?))
        };
        let (header, encoding, hash) =
            fields().ok_or_else(|| Error::corrupt(file, 0, "the header's fields are truncated"))?;
        if u32::from(encoding) != KEY_ENCODING || hash != KEY_HASH_ID {
            let found = format!("key encoding {encoding}, key hash {hash}");
            return Err(unsupported(
                file,
                found,
                format!("key encoding {KEY_ENCODING}, key hash {KEY_HASH_ID}"),
            ));
        }
        Ok(header)
    }
}

pub(super) fn unsupported(file: &Path, found: impl Into<String>, supported: impl Into<String>) -> Error {
    Error::UnsupportedFormat { file: file.to_path_buf(), found: found.into(), supported: supported.into() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum SectionKind {
    Index = 1,
    Fences = 2,
    Filter = 3,
    Properties = 4,
}

/// An entry of the section directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) kind: SectionKind,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) crc: u32,
}

pub(super) fn encode_directory(sections: &[Section]) -> Vec<u8> {
    let mut out = Vec::with_capacity(sections.len() * DIRECTORY_ENTRY_LEN);
    for section in sections {
        out.extend_from_slice(&(section.kind as u16).to_le_bytes());
        out.extend_from_slice(&CRITICAL.to_le_bytes());
        out.extend_from_slice(&section.offset.to_le_bytes());
        out.extend_from_slice(&section.len.to_le_bytes());
        out.extend_from_slice(&section.crc.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }
    out
}

/// The length of the directory in every file of this version: four sections.
pub(super) const DIRECTORY_LEN: u64 = 4 * DIRECTORY_ENTRY_LEN as u64;

/// The known sections in a directory at `at` whose position is possible. Each must be verified against its own
/// checksum, because the directory's checksum was not.
pub(super) fn sections_in(directory: &[u8], at: usize) -> Vec<Section> {
    let mut sections = Vec::new();
    for entry in directory.chunks_exact(DIRECTORY_ENTRY_LEN) {
        let mut reader = Reader::new(entry);
        let mut fields = || Some((reader.u16()?, reader.u16()?, reader.u64()?, reader.u64()?, reader.u32()?));
        let Some((kind, _flags, offset, len, crc)) = fields() else { continue };
        let kind = match kind {
            1 => SectionKind::Index,
            2 => SectionKind::Fences,
            3 => SectionKind::Filter,
            4 => SectionKind::Properties,
            _ => continue,
        };
        let end = offset.checked_add(len).filter(|&end| end <= at as u64 && offset >= HEADER_LEN as u64);
        if end.is_some() {
            sections.push(Section { kind, offset, len, crc });
        }
    }
    sections
}

/// The position of the directory according to the footer at the end of a file; `None` if the footer's checksum does not
/// match.
pub(super) fn footer_place(bytes: &[u8], id: FileId) -> Option<(u64, u32)> {
    let at = bytes.len().checked_sub(FOOTER_LEN)?;
    let footer = bytes.get(at..)?;
    let crc = Reader::new(footer.get(FOOTER_CRC_AT..)?).u32()?;
    if checksum_at(id, at as u64, footer.get(..FOOTER_CRC_AT)?) != crc {
        return None;
    }
    let mut reader = Reader::new(footer);
    let (directory, len) = (reader.u64()?, reader.u32()?);
    (directory.checked_add(u64::from(len))? == at as u64).then_some((directory, len))
}

/// The description of a file about which nothing else is known.
pub(super) fn blank_meta(id: FileId, stripe: u16, len: u64, directory: (u64, u32)) -> SstMeta {
    SstMeta {
        id,
        stripe,
        keyspace: 0,
        run: id,
        part: 0,
        parts: 1,
        depth: 0,
        run_seq: (0, 0),
        seq: (0, 0),
        keys: (Vec::new(), Vec::new()),
        entries: 0,
        tombstones: 0,
        raw_bytes: 0,
        len,
        directory,
        checksum: 0,
        oldest_tombstone_ms: 0,
        created_ms: 0,
        origin: [0; 16],
        details: None,
    }
}

/// Copies the properties into `meta`; false if a required one is missing.
pub(super) fn decode_properties(section: &[u8], meta: &mut SstMeta) -> bool {
    let mut reader = Reader::new(section);
    let (mut found, mut details) = (0u32, SstDetails::default());
    while !reader.is_empty() {
        let mut next = || {
            let (tag, _flags, len) = (reader.u16()?, reader.u16()?, reader.u32()?);
            Some((tag, reader.bytes(len as usize)?))
        };
        let Some((tag, bytes)) = next() else { return false };
        if take_property(tag, bytes, meta, &mut details).is_none() {
            return false;
        }
        // A tag without a bit is not a required one.
        found |= 1u32.checked_shl(u32::from(tag)).unwrap_or(0);
    }
    let both = 1 << WRITTEN_WITH | 1 << KEYS;
    meta.details = (found & both == both).then(|| std::sync::Arc::new(details));
    let needed = [ENTRIES, TOMBSTONES, RAW_BYTES, SEQ, FIRST_KEY, LAST_KEY, RUN];
    needed.iter().all(|&tag| found & 1 << tag != 0)
}

fn take_property(tag: u16, bytes: &[u8], meta: &mut SstMeta, details: &mut SstDetails) -> Option<()> {
    let mut value = Reader::new(bytes);
    match tag {
        ENTRIES => meta.entries = value.u64()?,
        TOMBSTONES => meta.tombstones = value.u64()?,
        RAW_BYTES => meta.raw_bytes = value.u64()?,
        SEQ => meta.seq = (value.u64()?, value.u64()?),
        FIRST_KEY => meta.keys.0 = bytes.to_vec(),
        LAST_KEY => meta.keys.1 = bytes.to_vec(),
        OLDEST_TOMBSTONE => meta.oldest_tombstone_ms = value.u64()?,
        RUN => {
            (meta.run, meta.part, meta.depth) = (value.u64()?, value.u32()?, value.u32()?);
            meta.run_seq = (value.u64()?, value.u64()?);
        }
        WRITTEN_WITH => {
            (details.bits_per_key, details.block_size) = (value.u32()?, value.u32()?);
            details.codec = value.u8()?;
        }
        KEYS => {
            details.keys = value.u64()?;
            details.sample.clear();
            while !value.is_empty() {
                details.sample.push(value.u32()?);
            }
        }
        _ => {}
    }
    Some(())
}

/// The position of a section, and the expected checksum of its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) at: Range<usize>,
    crc: u32,
}

impl Placed {
    /// Returns the section's bytes after verifying them. `bytes` start at file offset `base`.
    pub(super) fn checked<'a>(
        &self,
        bytes: &'a [u8],
        base: usize,
        meta: &SstMeta,
        file: &Path,
    ) -> Result<&'a [u8]> {
        let offset = self.at.start as u64;
        let range = self.at.start.checked_sub(base).zip(self.at.end.checked_sub(base));
        let section = range
            .and_then(|(start, end)| bytes.get(start..end))
            .ok_or_else(|| Error::corrupt(file, offset, "a section is out of bounds"))?;
        let computed = checksum_at(meta.id, offset, section);
        if computed != self.crc {
            let detail =
                format!("section checksum mismatch: computed {computed:08x}, stored {:08x}", self.crc);
            return Err(Error::corrupt(file, offset, detail));
        }
        Ok(section)
    }
}

/// The positions of the sections, whose bytes are not verified yet.
#[derive(Clone, Debug)]
pub(super) struct Sections {
    pub(super) index: Placed,
    pub(super) fences: Placed,
    pub(super) filter: Placed,
    pub(super) properties: Placed,
    /// All blocks end at or before this offset.
    pub(super) first: usize,
}

/// Decodes the section directory at the end of a file. `tail` starts with the directory.
pub(super) fn decode_sections(tail: &[u8], meta: &SstMeta, file: &Path) -> Result<Sections> {
    let (at, directory) = decode_footer(tail, meta, file)?;
    let bad = |detail: String| Error::corrupt(file, at as u64, detail);
    if !directory.len().is_multiple_of(DIRECTORY_ENTRY_LEN) {
        return Err(bad(format!("the section directory has {} bytes", directory.len())));
    }
    let mut found: [Option<Placed>; 4] = Default::default();
    let mut first = at;
    for entry in directory.chunks_exact(DIRECTORY_ENTRY_LEN) {
        let mut reader = Reader::new(entry);
        let mut fields = || Some((reader.u16()?, reader.u16()?, reader.u64()?, reader.u64()?, reader.u32()?));
        let Some((kind, flags, offset, len, crc)) = fields() else { continue };
        let range = usize::try_from(offset).ok().zip(usize::try_from(offset.saturating_add(len)).ok());
        let range = range.map(|(start, end)| start..end).filter(|r| r.start >= HEADER_LEN && r.end <= at);
        let Some(range) = range else {
            return Err(bad(format!("section {kind} is out of bounds, at {offset} for {len} bytes")));
        };
        first = first.min(range.start);
        let Some(slot) = usize::from(kind).checked_sub(1).and_then(|n| found.get_mut(n)) else {
            if flags & CRITICAL != 0 {
                return Err(unsupported(file, format!("section kind {kind}"), "section kinds 1 to 4"));
            }
            continue;
        };
        if slot.replace(Placed { at: range, crc }).is_some() {
            return Err(bad(format!("there are two sections of kind {kind}")));
        }
    }
    let [Some(index), Some(fences), Some(filter), Some(properties)] = found else {
        return Err(bad("a section is missing from the directory".into()));
    };
    Ok(Sections { index, fences, filter, properties, first })
}

/// The range of directory and footer according to the manifest, if it is possible in a file of the listed length.
pub(super) fn tail_at(meta: &SstMeta, file: &Path) -> Result<Range<usize>> {
    let (at, len) = (usize::try_from(meta.directory.0).ok(), usize::try_from(meta.len).ok());
    let range = at.zip(len).filter(|&(at, len)| {
        let rest = len.checked_sub(at);
        at >= HEADER_LEN && rest == (meta.directory.1 as usize).checked_add(FOOTER_LEN)
    });
    range.map(|(at, len)| at..len).ok_or_else(|| {
        let (at, len) = meta.directory;
        let detail = format!("a directory at {at} for {len} bytes does not fit a file of {} bytes", meta.len);
        Error::corrupt(file, 0, detail)
    })
}

/// Returns the start of the directory, and its bytes.
fn decode_footer<'a>(tail: &'a [u8], meta: &SstMeta, file: &Path) -> Result<(usize, &'a [u8])> {
    let at = tail_at(meta, file)?.start;
    let split = tail.len().checked_sub(FOOTER_LEN).and_then(|len| tail.split_at_checked(len));
    let (directory, footer) =
        split.ok_or_else(|| Error::corrupt(file, at as u64, "the footer is truncated"))?;
    let footer_at = at + directory.len();
    let bad = |detail: String| Error::corrupt(file, footer_at as u64, detail);
    let mut reader = Reader::new(footer);
    let mut fields = || {
        let directory = (reader.u64()?, reader.u32()?);
        let (directory_crc, id, len) = (reader.u32()?, reader.u64()?, reader.u64()?);
        let _zero = reader.bytes(20)?;
        Some((directory, directory_crc, id, len, reader.bytes(8)?, reader.u32()?))
    };
    let Some((place, directory_crc, id, len, magic, crc)) = fields() else {
        return Err(bad("the footer is truncated".into()));
    };
    let covered = part(footer, ..FOOTER_CRC_AT);
    let computed = checksum_at(meta.id, footer_at as u64, covered);
    if magic != MAGIC || computed != crc {
        return Err(bad(format!("footer checksum mismatch: computed {computed:08x}, stored {crc:08x}")));
    }
    if id != meta.id || len != meta.len || place != meta.directory || directory.len() != place.1 as usize {
        let found = format!("file {id}, {len} bytes, directory at {} for {}", place.0, place.1);
        let (at, for_len) = meta.directory;
        return Err(bad(format!(
            "the footer says {found}; the manifest file {}, {} bytes, directory at {at} for {for_len}",
            meta.id, meta.len
        )));
    }
    let computed = checksum_at(id, at as u64, directory);
    if computed != directory_crc {
        let detail =
            format!("directory checksum mismatch: computed {computed:08x}, stored {directory_crc:08x}");
        return Err(Error::corrupt(file, at as u64, detail));
    }
    Ok((at, directory))
}

pub(super) fn encode_footer(directory_at: u64, directory: &[u8], id: FileId) -> Vec<u8> {
    let len = directory_at + (directory.len() + FOOTER_LEN) as u64;
    let mut out = Vec::with_capacity(FOOTER_LEN);
    out.extend_from_slice(&directory_at.to_le_bytes());
    out.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    out.extend_from_slice(&checksum_at(id, directory_at, directory).to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[0; 20]);
    out.extend_from_slice(MAGIC);
    let crc = checksum_at(id, directory_at + directory.len() as u64, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

const ENTRIES: u16 = 1;
const TOMBSTONES: u16 = 2;
const RAW_BYTES: u16 = 3;
const SEQ: u16 = 4;
const FIRST_KEY: u16 = 5;
const LAST_KEY: u16 = 6;
const OLDEST_TOMBSTONE: u16 = 7;
const WRITER: u16 = 8;
const RUN: u16 = 9;
const WRITTEN_WITH: u16 = 10;
const KEYS: u16 = 11;

fn written_with(details: &SstDetails) -> Vec<u8> {
    let (bits, block) = (details.bits_per_key.to_le_bytes(), details.block_size.to_le_bytes());
    [&bits[..], &block, &[details.codec]].concat()
}

fn keys(details: &SstDetails) -> Vec<u8> {
    let sample = details.sample.iter().flat_map(|hash| hash.to_le_bytes());
    details.keys.to_le_bytes().into_iter().chain(sample).collect()
}

/// Encodes the properties section: the manifest's description of the file, for use when the manifest is lost.
pub(super) fn encode_properties(meta: &SstMeta) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |tag: u16, parts: &[&[u8]]| {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(len as u32).to_le_bytes());
        parts.iter().for_each(|part| out.extend_from_slice(part));
    };
    put(ENTRIES, &[&meta.entries.to_le_bytes()]);
    put(TOMBSTONES, &[&meta.tombstones.to_le_bytes()]);
    put(RAW_BYTES, &[&meta.raw_bytes.to_le_bytes()]);
    put(SEQ, &[&meta.seq.0.to_le_bytes(), &meta.seq.1.to_le_bytes()]);
    put(FIRST_KEY, &[&meta.keys.0]);
    put(LAST_KEY, &[&meta.keys.1]);
    put(OLDEST_TOMBSTONE, &[&meta.oldest_tombstone_ms.to_le_bytes()]);
    put(WRITER, &[env!("CARGO_PKG_VERSION").as_bytes()]);
    let (low, high) = meta.run_seq;
    let run = [meta.run.to_le_bytes(), low.to_le_bytes(), high.to_le_bytes()];
    let [run, low, high] = &run;
    put(RUN, &[run, &meta.part.to_le_bytes(), &meta.depth.to_le_bytes(), low, high]);
    if let Some(details) = &meta.details {
        put(WRITTEN_WITH, &[&written_with(details)]);
        put(KEYS, &[&keys(details)]);
    }
    out
}

/// Checks that the properties, at `offset`, match the file's description in the manifest.
pub(super) fn check_properties(section: &[u8], meta: &SstMeta, file: &Path, offset: u64) -> Result<()> {
    let bad = |detail: String| Error::corrupt(file, offset, detail);
    let mut reader = Reader::new(section);
    let mut known = 0;
    while !reader.is_empty() {
        let mut next = || {
            let (tag, flags, len) = (reader.u16()?, reader.u16()?, reader.u32()?);
            Some((tag, flags, reader.bytes(len as usize)?))
        };
        let (tag, flags, bytes) = next().ok_or_else(|| bad("the properties are truncated".into()))?;
        let mut value = Reader::new(bytes);
        let mut number = || value.u64();
        let same = match tag {
            ENTRIES => number() == Some(meta.entries),
            TOMBSTONES => number() == Some(meta.tombstones),
            RAW_BYTES => number() == Some(meta.raw_bytes),
            SEQ => number() == Some(meta.seq.0) && number() == Some(meta.seq.1),
            FIRST_KEY => bytes == meta.keys.0,
            LAST_KEY => bytes == meta.keys.1,
            // Origin of the file: not compared, because it changes when files are moved, and the manifest is
            // authoritative.
            OLDEST_TOMBSTONE | WRITER | RUN => continue,
            WRITTEN_WITH | KEYS => {
                let of = if tag == KEYS { keys } else { written_with };
                // Not every manifest has these.
                if meta.details.as_ref().is_none_or(|details| bytes == of(details)) {
                    continue;
                }
                false
            }
            _ if flags & CRITICAL != 0 => {
                return Err(unsupported(file, format!("property {tag}"), "properties 1 to 11"));
            }
            _ => continue,
        };
        if !same {
            return Err(bad(format!("property {tag} does not match the manifest")));
        }
        known += 1;
    }
    if known != 6 {
        return Err(bad(format!("only {known} of 6 properties are present")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn details() -> SstDetails {
        SstDetails { keys: 8, sample: (1..9).collect(), bits_per_key: 10, block_size: 4096, codec: 0 }
    }

    fn meta() -> SstMeta {
        SstMeta {
            id: 7,
            stripe: 3,
            keyspace: 0,
            run: 1,
            part: 0,
            parts: 1,
            depth: 0,
            run_seq: (1, 9),
            seq: (2, 8),
            keys: (b"a".to_vec(), b"z".to_vec()),
            entries: 5,
            tombstones: 1,
            raw_bytes: 100,
            len: 0,
            directory: (0, 0),
            checksum: 0,
            oldest_tombstone_ms: 4,
            created_ms: 5,
            origin: [1; 16],
            details: Some(std::sync::Arc::new(details())),
        }
    }

    fn frame(kinds: &[(u16, u16)]) -> (Vec<u8>, SstMeta) {
        let mut bytes = vec![0; HEADER_LEN];
        let mut directory = Vec::new();
        for &(kind, flags) in kinds {
            let (offset, body) = (bytes.len() as u64, [kind as u8; 3]);
            bytes.extend_from_slice(&body);
            let section =
                Section { kind: SectionKind::Index, offset, len: 3, crc: checksum_at(7, offset, &body) };
            let mut entry = encode_directory(&[section]);
            entry[..2].copy_from_slice(&kind.to_le_bytes());
            entry[2..4].copy_from_slice(&flags.to_le_bytes());
            directory.append(&mut entry);
        }
        let at = bytes.len() as u64;
        let footer = encode_footer(at, &directory, 7);
        bytes.extend(directory);
        let directory = (at, (bytes.len() as u64 - at) as u32);
        bytes.extend(footer);
        let meta = SstMeta { len: bytes.len() as u64, directory, ..meta() };
        (bytes, meta)
    }

    #[test]
    fn sections_are_found_unknown_ones_skipped_critical_ones_refused() {
        let file = Path::new("f");
        let (bytes, meta) = frame(&[(1, 1), (2, 1), (77, 0), (3, 1), (4, 1)]);
        let sections = decode_sections(&bytes[tail_at(&meta, file).unwrap()], &meta, file).unwrap();
        assert_eq!((sections.index.at.clone(), sections.properties.at), (128..131, 140..143));
        assert_eq!(sections.index.checked(&bytes, 0, &meta, file).unwrap(), [1; 3]);
        assert_eq!(sections.index.checked(&bytes[100..], 100, &meta, file).unwrap(), [1; 3]);
        assert!(sections.index.checked(&bytes[..130], 0, &meta, file).is_err());
        assert!(sections.index.checked(&bytes[1..], 0, &meta, file).is_err());
        assert_eq!(sections.first, 128);
        let (bytes, meta) = frame(&[(1, 1), (2, 1), (77, 1), (3, 1), (4, 1)]);
        let got = decode_sections(&bytes[tail_at(&meta, file).unwrap()], &meta, file);
        assert!(matches!(got, Err(Error::UnsupportedFormat { .. })), "{got:?}");
        for kinds in [&[(1, 1), (2, 1), (3, 1)][..], &[(1, 1), (2, 1), (3, 1), (4, 1), (2, 1)], &[]] {
            let (bytes, meta) = frame(kinds);
            let got = decode_sections(&bytes[tail_at(&meta, file).unwrap()], &meta, file);
            assert!(matches!(got, Err(Error::Corruption { .. })), "{got:?}");
        }
    }

    #[test]
    fn properties_match_their_meta_only() {
        let (file, good) = (Path::new("f"), meta());
        let section = encode_properties(&good);
        check_properties(&section, &good, file, 0).unwrap();
        for cut in 0..section.len() {
            // A cut after the sixth property leaves everything that is compared.
            if let Err(error) = check_properties(&section[..cut], &good, file, 0) {
                assert!(matches!(error, Error::Corruption { .. }), "{error}");
            } else {
                assert!(section.len() - cut >= 40, "length {cut}");
            }
        }
        check_properties(&section, &SstMeta { details: None, ..meta() }, file, 0).unwrap();
        let with = |details| SstMeta { details: Some(std::sync::Arc::new(details)), ..meta() };
        let others = [
            SstMeta { entries: 6, ..meta() },
            SstMeta { tombstones: 6, ..meta() },
            SstMeta { raw_bytes: 6, ..meta() },
            SstMeta { seq: (2, 9), ..meta() },
            SstMeta { keys: (b"a".to_vec(), b"y".to_vec()), ..meta() },
            with(SstDetails { keys: 9, ..details() }),
            with(SstDetails { sample: (2..10).collect(), ..details() }),
            with(SstDetails { bits_per_key: 9, ..details() }),
            with(SstDetails { block_size: 9, ..details() }),
            with(SstDetails { codec: 1, ..details() }),
        ];
        for other in others {
            assert!(check_properties(&section, &other, file, 0).is_err());
        }
        for (flags, fits) in [(0u8, true), (1, false)] {
            let mut more = section.clone();
            more.extend_from_slice(&[99, 0, flags, 0, 1, 0, 0, 0, 42]);
            match check_properties(&more, &good, file, 0) {
                Ok(()) => assert!(fits),
                Err(error) => assert!(!fits && matches!(error, Error::UnsupportedFormat { .. }), "{error}"),
            }
        }
    }

    proptest! {
        #[test]
        fn decoders_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let (file, meta) = (Path::new("f"), SstMeta { len: bytes.len() as u64, ..meta() });
            let meta = SstMeta { directory: (HEADER_LEN as u64, bytes.len() as u32), ..meta };
            let meta = SstMeta { len: (HEADER_LEN + bytes.len() + FOOTER_LEN) as u64, ..meta };
            let _ = decode_sections(&bytes, &meta, file);
            let _ = tail_at(&meta, file);
            let _ = check_properties(&bytes, &meta, file, 0);
            let _ = SstHeader::decode(&bytes, file);
        }
    }
}
