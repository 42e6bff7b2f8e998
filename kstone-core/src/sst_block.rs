//! Data blocks of an SST: entries in order, in groups of 8, each of which is searched from its first entry on.
//!
//! ```text
//! payload, before it is encoded
//!   values          of all entries, in order; then any number of zeros, see `SstWriter`
//!   groups          up to 8 groups, each with the heads of up to 8 entries
//!   group table     per group: u32 start of its heads, u32 start of its values (in the payload)
//!   u8              number of groups
//! trailer
//!   u8              codec of the payload: 0 none, 1 LZ4 (a single block of the LZ4 block format)
//!   u32             length of the payload before encoding; at most 32 MiB, and with codec 1 at most 255 times the
//!                   encoded length
//!   u32             checksum of the preceding bytes of the block, see `checksum_at`
//!
//! head of an entry
//!   u8              kind in the low half (1 put, 2 tombstone), flags in the high half; no flags are known yet
//!                   (0x10 is reserved for "has an expiry", 0x20 for "the value is a reference")
//!   varint          length shared with the first key of the group; 0 in the group's first entry
//!   varint          length of the rest of the key
//!   varint          length of the value
//!   varint          sequence minus the file's base sequence
//!   bytes           the rest of the key; keys omit the file's common prefix
//! ```
//!
//! Heads are stored apart from values so that a search reads two or three adjacent cache lines instead of at least one
//! per entry, and a scan over large values only touches those that are requested. Keys are truncated against the
//! group's first key rather than the previous one, so that every key of a group can be compared and rebuilt
//! independently, in both directions.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use smallvec::SmallVec;

use crate::checksum::crc32c_seeded;
use crate::coding::{Reader, part, put_varint, shared_prefix, varint_len};
use crate::planted::{Bug, planted};
use crate::types::{EntryKind, FileId, SeqNo};

/// Default bits per key for the filters of new SSTs; see [`crate::DatabaseConfig::bloom_bits_per_key`].
pub const BITS_PER_KEY: usize = crate::config::DatabaseConfig::DEFAULT.bloom_bits_per_key;

/// Maximum number of entries in a group.
pub(crate) const GROUP_LEN: usize = 8;
/// Maximum number of groups in a block: the hash index has three bits for a group's number.
pub(crate) const MAX_GROUPS: usize = 8;
/// Key and value of an entry must together be shorter than this, so that offsets in a block fit into 32 bits.
pub(crate) const MAX_ENTRY_BYTES: usize = 1 << 31;

const TABLE_ENTRY_LEN: usize = 8;
pub(crate) const TRAILER_LEN: usize = 9;
pub(crate) const NO_CODEC: u8 = 0;
pub(crate) const LZ4: u8 = 1;
/// A longer payload is stored uncompressed, so that no trailer can make a reader allocate more than this.
const MAX_ENCODED_PAYLOAD: usize = 32 << 20;
/// The maximum number of bytes that one byte of LZ4 can represent.
pub(crate) const LZ4_MAX_RATIO: usize = 255;
const KIND_MASK: u8 = 0x0f;

/// Why a block cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadBlock {
    /// The bytes differ from those written.
    Checksum { stored: u32, computed: u32 },
    /// The checksum matches, if there is one, but the contents are invalid.
    Malformed(&'static str),
    /// A newer version compressed the block.
    UnknownCodec(u8),
    /// A newer version wrote this kind of entry.
    UnknownEntry(u8),
}

impl fmt::Display for BadBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum { stored, computed } => {
                write!(f, "block checksum mismatch: computed {computed:08x}, stored {stored:08x}")
            }
            Self::Malformed(what) => write!(f, "the block is malformed: {what}"),
            Self::UnknownCodec(codec) => write!(f, "block codec {codec}"),
            Self::UnknownEntry(tag) => write!(f, "entry kind and flags {tag:#04x}"),
        }
    }
}

/// The checksum of bytes at an offset of a file: CRC-32C over file id, offset (u64 each) and bytes, rotated right by 15
/// bits, plus 0xa282ead8.
///
/// Without the last step, any CRC that continues over both some bytes and their CRC would be independent of those
/// bytes: the checksum of the whole file would not depend on the contents of its blocks.
pub(crate) fn checksum_at(file_id: FileId, offset: u64, bytes: &[u8]) -> u32 {
    crc32c_seeded(file_id, &[&offset.to_le_bytes(), bytes]).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Builds blocks in succession at the end of an output buffer. Values are appended immediately, heads when a block is
/// finished.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    /// Start of the block in the output.
    start: usize,
    heads: Vec<u8>,
    /// The first key of the last group.
    first: Vec<u8>,
    /// Per group, the start of its heads in `heads` and of its values in the payload.
    groups: SmallVec<[(u32, u32); MAX_GROUPS]>,
    entries: usize,
    compressor: Option<Compressor>,
}

/// Compression state, reused from block to block.
struct Compressor {
    table: CompressTable,
    out: Vec<u8>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// Returns the compressed payload if compression saves a third.
    fn compress(&mut self, payload: &[u8]) -> Option<&[u8]> {
        if payload.len() > MAX_ENCODED_PAYLOAD {
            return None;
        }
        self.out.resize(get_maximum_output_size(payload.len()), 0);
        let len = compress_into_with_table(payload, &mut self.out, &mut self.table).ok()?;
        self.out.get(..len).filter(|_| len * 3 <= payload.len() * 2)
    }
}

impl BlockBuilder {
    /// `compress` enables compression of the blocks for which it pays off.
    pub(crate) fn new(compress: bool) -> Self {
        let compressor = compress.then(|| Compressor { table: CompressTable::small(), out: Vec::new() });
        Self { compressor, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries == GROUP_LEN * MAX_GROUPS
    }

    /// Length of the block being built, before compression; its values end at the end of `out`.
    pub(crate) fn len(&self, out: &[u8]) -> usize {
        if self.is_empty() {
            return 0;
        }
        out.len().saturating_sub(self.start) + self.pending_len()
    }

    /// Maximum number of bytes by which an entry lengthens the block: `key` as for [`BlockBuilder::add`].
    pub(crate) fn len_of(&self, key: &[u8], seq: u64, value: &[u8]) -> usize {
        let table = if self.entries.is_multiple_of(GROUP_LEN) { TABLE_ENTRY_LEN } else { 0 };
        let numbers = 2 * varint_len(key.len() as u64) + varint_len(value.len() as u64) + varint_len(seq);
        table + 1 + numbers + key.len() + value.len()
    }

    /// Number of bytes that [`BlockBuilder::finish`] will append, if it neither pads nor compresses.
    pub(crate) fn pending_len(&self) -> usize {
        self.heads.len() + self.groups.len() * TABLE_ENTRY_LEN + 1 + TRAILER_LEN
    }

    /// Adds an entry: `key` without the common prefix, `seq` as distance from the base. The block must not be full, and
    /// nothing else may be appended to `out` before [`BlockBuilder::finish`]. Returns the entry's group.
    pub(crate) fn add(
        &mut self,
        out: &mut Vec<u8>,
        key: &[u8],
        kind: EntryKind,
        seq: u64,
        value: &[u8],
    ) -> usize {
        if self.entries == 0 {
            self.start = out.len();
        }
        let shared = if self.entries.is_multiple_of(GROUP_LEN) {
            self.groups.push((self.heads.len() as u32, (out.len() - self.start) as u32));
            self.first.clear();
            self.first.extend_from_slice(key);
            0
        } else {
            shared_prefix(&self.first, key)
        };
        let rest = part(key, shared..);
        let numbers = [shared as u64, rest.len() as u64, value.len() as u64, seq];
        if let Some((head, len)) = short_head(kind, numbers) {
            let end = self.heads.len() + len;
            self.heads.extend_from_slice(&head);
            self.heads.truncate(end);
        } else {
            self.heads.push(kind as u8);
            numbers.into_iter().for_each(|number| put_varint(&mut self.heads, number));
        }
        self.heads.extend_from_slice(rest);
        out.extend_from_slice(value);
        self.entries += 1;
        self.groups.len() - 1
    }

    /// Finishes the block, so that the next one can start. The output starts at offset `out_at` of the file. Unless it is
    /// compressed, the block becomes `padding` bytes longer. Returns whether it is.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>, file_id: FileId, out_at: u64, padding: usize) -> bool {
        let offset = out_at + self.start as u64;
        let values_end = out.len();
        self.append_heads(out);
        let mut raw_len = out.len() - self.start;
        let payload = part(out, self.start..);
        let compressed = self.compressor.as_mut().and_then(|compressor| compressor.compress(payload));
        let is_compressed = compressed.is_some();
        if let Some(compressed) = compressed {
            out.truncate(self.start);
            out.extend_from_slice(compressed);
        } else if padding > 0 {
            out.truncate(values_end);
            out.resize(values_end + padding, 0);
            self.append_heads(out);
            raw_len += padding;
        }
        out.push(if is_compressed { LZ4 } else { NO_CODEC });
        out.extend_from_slice(&(raw_len as u32).to_le_bytes());
        let covered = part(out, self.start..);
        let crc = checksum_at(file_id, offset, covered);
        out.extend_from_slice(&crc.to_le_bytes());
        self.heads.clear();
        self.groups.clear();
        self.entries = 0;
        is_compressed
    }

    /// Appends the part of the payload behind the values.
    fn append_heads(&self, out: &mut Vec<u8>) {
        let heads_at = (out.len() - self.start) as u32;
        out.extend_from_slice(&self.heads);
        for (head, value) in &self.groups {
            out.extend_from_slice(&(heads_at + head).to_le_bytes());
            out.extend_from_slice(&value.to_le_bytes());
        }
        out.push(self.groups.len() as u8);
    }
}

/// The head of an entry without its key, if it has at most 8 bytes, as nearly all have; and its length.
fn short_head(kind: EntryKind, numbers: [u64; 4]) -> Option<([u8; 8], usize)> {
    let (mut word, mut bits) = (kind as u64, 8);
    for number in numbers {
        let (varint, more) = match number {
            0..0x80 => (number, 8),
            0x80..0x4000 => (number & 0x7f | 0x80 | number >> 7 << 8, 16),
            0x4000..0x20_0000 => {
                (number & 0x7f | (number >> 7 & 0x7f) << 8 | number >> 14 << 16 | 0x8080, 24)
            }
            _ => return None,
        };
        word |= varint.checked_shl(bits)?;
        bits += more;
    }
    (bits <= u64::BITS).then_some((word.to_le_bytes(), bits as usize / 8))
}

/// A block as stored in the file: the payload, still encoded, and the contents of the trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    pub(crate) payload: &'a [u8],
    compressed: bool,
    raw_len: usize,
}

/// Verifies a block's checksum and splits the block.
pub(crate) fn check(block: &[u8], file_id: FileId, offset: u64) -> Result<Stored<'_>, BadBlock> {
    let Some((covered, stored)) = block.split_last_chunk() else {
        return Err(BadBlock::Malformed("it is shorter than its checksum"));
    };
    let stored = u32::from_le_bytes(*stored);
    let computed = checksum_at(file_id, offset, covered);
    if stored != computed && !planted(Bug::BlockChecksumIgnored) {
        return Err(BadBlock::Checksum { stored, computed });
    }
    Stored::parse(block)
}

impl<'a> Stored<'a> {
    /// Splits a block whose checksum was verified before.
    #[inline]
    pub(crate) fn parse(block: &'a [u8]) -> Result<Self, BadBlock> {
        let (payload, trailer) = split(block)?;
        let mut reader = Reader::new(trailer);
        let (Some(codec), Some(raw_len)) = (reader.u8(), reader.u32()) else {
            return Err(BadBlock::Malformed("its trailer is truncated"));
        };
        let raw_len = raw_len as usize;
        let possible = match codec {
            NO_CODEC => raw_len == payload.len(),
            LZ4 => raw_len <= MAX_ENCODED_PAYLOAD.min(payload.len().saturating_mul(LZ4_MAX_RATIO)),
            _ => return Err(BadBlock::UnknownCodec(codec)),
        };
        if !possible {
            return Err(BadBlock::Malformed("its length does not match its trailer"));
        }
        Ok(Self { payload, compressed: codec == LZ4, raw_len })
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// Decompresses the payload.
    pub(crate) fn decompress(&self) -> Result<Arc<[u8]>, BadBlock> {
        // A single allocation of the length that `parse` found possible; it is not shared yet.
        let mut raw: Arc<[u8]> = std::iter::repeat_n(0, self.raw_len).collect();
        let done = Arc::get_mut(&mut raw).and_then(|raw| decompress_into(self.payload, raw).ok());
        if done != Some(self.raw_len) {
            return Err(BadBlock::Malformed("it does not decompress to the length in its trailer"));
        }
        Ok(raw)
    }
}

fn split(block: &[u8]) -> Result<(&[u8], &[u8]), BadBlock> {
    let at = block.len().checked_sub(TRAILER_LEN);
    at.and_then(|at| block.split_at_checked(at)).ok_or(BadBlock::Malformed("it is shorter than its trailer"))
}

/// The decoded payload of a verified block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    payload: &'a [u8],
    table: &'a [u8],
    /// Start of the group table, which is the end of the last group.
    table_at: usize,
}

impl<'a> Block<'a> {
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, BadBlock> {
        let parse = || {
            let (&groups, rest) = payload.split_last()?;
            let groups = usize::from(groups);
            let table_at = rest.len().checked_sub(groups.checked_mul(TABLE_ENTRY_LEN)?)?;
            let table = rest.get(table_at..)?;
            (1..=MAX_GROUPS).contains(&groups).then_some(Self { payload, table, table_at })
        };
        parse().ok_or(BadBlock::Malformed("it has no group table"))
    }

    pub(crate) fn payload(&self) -> &'a [u8] {
        self.payload
    }

    pub(crate) fn groups(&self) -> usize {
        self.table.len() / TABLE_ENTRY_LEN
    }

    /// The start of a group's heads and of its values; `None` past the last group.
    fn table_entry(&self, group: usize) -> Option<(usize, usize)> {
        let mut reader = Reader::new(self.table.get(group.checked_mul(TABLE_ENTRY_LEN)?..)?);
        Some((reader.u32()? as usize, reader.u32()? as usize))
    }

    /// The number of bytes between values and heads.
    #[cfg(test)]
    pub(crate) fn padding(&self) -> Result<usize, BadBlock> {
        let (heads_at, mut values_end) = (self.table_entry(0).map_or(0, |(start, _)| start), 0);
        for n in 0..self.groups() {
            let mut group = self.group(n, 0)?;
            while let Some(entry) = group.next_entry()? {
                values_end = entry.value_at + entry.value_len;
            }
        }
        Ok(heads_at - values_end)
    }

    /// Returns the entries of a group. `base_seq` is the file's.
    pub(crate) fn group(&self, group: usize, base_seq: SeqNo) -> Result<Group<'a>, BadBlock> {
        let parse = || {
            let (start, value_at) = self.table_entry(group)?;
            let end = self.table_entry(group + 1).map_or(self.table_at, |(end, _)| end);
            let heads = Reader::new(self.payload.get(start..end)?);
            Some(Group {
                payload: self.payload,
                heads,
                end,
                value_at,
                first: None,
                base_seq,
                left: GROUP_LEN,
            })
        };
        parse().ok_or(BadBlock::Malformed("a group is out of bounds"))
    }
}

/// The remaining entries of a group.
#[derive(Clone, Debug)]
pub(crate) struct Group<'a> {
    payload: &'a [u8],
    heads: Reader<'a>,
    /// End of the heads in the payload.
    end: usize,
    value_at: usize,
    first: Option<&'a [u8]>,
    base_seq: SeqNo,
    /// Maximum number of remaining entries: a lookup reads a whole group, and must not take long.
    left: usize,
}

/// An entry in its block. Its key consists of the file's common prefix, `head` and `tail`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockEntry<'a> {
    pub(crate) kind: EntryKind,
    pub(crate) seq: SeqNo,
    /// The part of the key shared with the first key of the group: the start of that key's tail.
    pub(crate) head: &'a [u8],
    pub(crate) tail: &'a [u8],
    /// Start of the tail in the block.
    pub(crate) tail_at: usize,
    pub(crate) value_len: usize,
    /// Start of the value in the block.
    pub(crate) value_at: usize,
}

impl<'a> Group<'a> {
    /// Returns the next entry, if there is one.
    #[inline]
    pub(crate) fn next_entry(&mut self) -> Result<Option<BlockEntry<'a>>, BadBlock> {
        if self.heads.is_empty() {
            return Ok(None);
        }
        self.left = self.left.checked_sub(1).ok_or(BadBlock::Malformed("a group has too many entries"))?;
        if let Some(entry) = self.short_head() {
            return Ok(Some(entry));
        }
        let tag = self.heads.u8().ok_or(BadBlock::Malformed("an entry is out of bounds"))?;
        // Flags share the byte: any that is set makes the kind unknown.
        let kind = EntryKind::from_u8(tag & KIND_MASK).filter(|_| tag & !KIND_MASK == 0);
        let kind = kind.ok_or(BadBlock::UnknownEntry(tag))?;
        self.fields(kind).map(Some).ok_or(BadBlock::Malformed("an entry is out of bounds"))
    }

    /// Reads a head of at most 8 bytes without its key, as nearly all are, from one word. `None` for any other, and for
    /// one that is invalid.
    #[inline]
    fn short_head(&mut self) -> Option<BlockEntry<'a>> {
        let word = self.heads.peek_u64()?;
        let kind = EntryKind::from_u8(word as u8)?;
        if word & 0x80_8000 != 0 {
            return None;
        }
        let (shared, tail_len) = (word >> 8 & 0x7f, word >> 16 & 0x7f);
        let (value_len, rest, used) = match word >> 24 {
            word if word & 0x80 == 0 => (word & 0x7f, word >> 8, 4),
            word if word & 0x8000 == 0 => (word & 0x7f | word >> 1 & 0x3f80, word >> 16, 5),
            _ => return None,
        };
        let (seq, used) = match rest {
            rest if rest & 0x80 == 0 => (rest & 0x7f, used + 1),
            rest if rest & 0x8000 == 0 => (rest & 0x7f | rest >> 1 & 0x3f80, used + 2),
            rest if rest & 0x80_0000 == 0 => {
                (rest & 0x7f | rest >> 1 & 0x3f80 | rest >> 2 & 0x1f_c000, used + 3)
            }
            _ => return None,
        };
        let mut heads = self.heads;
        heads.bytes(used)?;
        self.finish(heads, kind, [shared as usize, tail_len as usize, value_len as usize], seq)
    }

    fn fields(&mut self, kind: EntryKind) -> Option<BlockEntry<'a>> {
        let mut heads = self.heads;
        let shared = usize::try_from(heads.varint()?).ok()?;
        let tail_len = usize::try_from(heads.varint()?).ok()?;
        let value_len = usize::try_from(heads.varint()?).ok()?;
        let seq = heads.varint()?;
        self.finish(heads, kind, [shared, tail_len, value_len], seq)
    }

    /// The entry with these lengths, whose tail is next in `heads`.
    #[inline(always)]
    fn finish(
        &mut self,
        mut heads: Reader<'a>,
        kind: EntryKind,
        [shared, tail_len, value_len]: [usize; 3],
        seq: u64,
    ) -> Option<BlockEntry<'a>> {
        let seq = self.base_seq.checked_add(seq)?;
        let tail_at = self.end.checked_sub(heads.remaining())?;
        let tail = heads.bytes(tail_len)?;
        // The first entry shares nothing, because there is no earlier key.
        let head = self.first.unwrap_or_default().get(..shared)?;
        self.first.get_or_insert(tail);
        let value_at = self.value_at;
        self.value_at = value_at.checked_add(value_len).filter(|&end| end <= self.payload.len())?;
        self.heads = heads;
        Some(BlockEntry { kind, seq, head, tail, tail_at, value_len, value_at })
    }
}

impl BlockEntry<'_> {
    /// Whether the entry's key equals `key`. Both omit the common prefix.
    #[inline]
    pub(crate) fn is(&self, key: &[u8]) -> bool {
        let Some((head, tail)) = key.split_at_checked(self.head.len()) else { return false };
        // Comparing lengths and the byte after the head, where the keys of a group differ, avoids most string
        // comparisons.
        tail.len() == self.tail.len()
            && tail.first() == self.tail.first()
            && tail == self.tail
            && head == self.head
    }

    /// Compares the entry's key with `key`. Both omit the common prefix.
    pub(crate) fn cmp_key(&self, key: &[u8]) -> Ordering {
        match key.split_at_checked(self.head.len()) {
            Some((head, tail)) => self.head.cmp(head).then_with(|| self.tail.cmp(tail)),
            None => self.head.cmp(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Row = (Vec<u8>, EntryKind, u64, Vec<u8>);

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let row = (
            proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0)], 0..12),
            prop_oneof![Just(EntryKind::Put), Just(EntryKind::Delete)],
            prop_oneof![0u64..200, any::<u64>()],
            proptest::collection::vec(any::<u8>(), 0..200),
        );
        proptest::collection::vec(row, 1..=64).prop_map(|mut rows| {
            rows.sort_by(|a, b| a.0.cmp(&b.0).then(b.2.cmp(&a.2)));
            rows
        })
    }

    fn encode(rows: &[Row], lead: usize) -> Vec<u8> {
        encode_as(rows, lead, false, 0)
    }

    fn encode_as(rows: &[Row], lead: usize, compress: bool, padding: usize) -> Vec<u8> {
        let mut out = vec![0; lead];
        let mut builder = BlockBuilder::new(compress);
        for (n, (key, kind, seq, value)) in rows.iter().enumerate() {
            let most = builder.len(&out) + builder.len_of(key, *seq, value);
            assert_eq!(builder.add(&mut out, key, *kind, *seq, value), n / GROUP_LEN);
            assert!(builder.len(&out) <= most || n == 0);
        }
        let len = builder.len(&out);
        let is_compressed = builder.finish(&mut out, 7, 11 - lead as u64, padding);
        assert!(builder.is_empty());
        assert!(is_compressed || len + padding == out.len() - lead);
        out.split_off(lead)
    }

    /// Decodes without verifying the checksum.
    fn decode(block: &[u8]) -> Result<Vec<Row>, BadBlock> {
        let stored = Stored::parse(block)?;
        if stored.is_compressed() {
            decode_payload(&stored.decompress()?)
        } else {
            decode_payload(stored.payload)
        }
    }

    fn decode_payload(block: &[u8]) -> Result<Vec<Row>, BadBlock> {
        let parsed = Block::parse(block)?;
        let mut rows = Vec::new();
        for n in 0..parsed.groups() {
            let mut group = parsed.group(n, 0)?;
            while let Some(e) = group.next_entry()? {
                assert_eq!(&block[e.tail_at..e.tail_at + e.tail.len()], e.tail);
                let key = [e.head, e.tail].concat();
                assert!(e.is(&key) && e.cmp_key(&key).is_eq());
                rows.push((key, e.kind, e.seq, block[e.value_at..e.value_at + e.value_len].to_vec()));
            }
        }
        Ok(rows)
    }

    proptest! {
        #[test]
        fn a_short_head_is_the_varints_of_its_numbers(
            numbers in proptest::array::uniform4(prop_oneof![
                4 => 0u64..0x80, 2 => 0u64..0x5000, 2 => 0u64..0x30_0000, 1 => any::<u64>(),
            ]),
        ) {
            let mut expected = vec![EntryKind::Delete as u8];
            numbers.iter().for_each(|&number| put_varint(&mut expected, number));
            let head = short_head(EntryKind::Delete, numbers).map(|(head, len)| head[..len].to_vec());
            let is_short = expected.len() <= 8 && numbers.iter().all(|number| *number < 0x20_0000);
            prop_assert_eq!(head, is_short.then_some(expected));
        }

        #[test]
        fn round_trips(rows in rows(), lead in 0usize..12, compress: bool, padding in 0usize..300) {
            let block = encode_as(&rows, lead, compress, padding);
            prop_assert!(check(&block, 7, 11).is_ok());
            prop_assert_eq!(decode(&block).unwrap(), rows);
        }

        #[test]
        fn blocks_that_shrink_by_a_third_are_compressed(mut rows in rows(), byte: Option<u8>) {
            for row in &mut rows {
                // Values that repeat a single byte, or remain random.
                row.3 = byte.map_or_else(|| row.3.clone(), |byte| vec![byte; 200]);
            }
            let (plain, block) = (encode(&rows, 0), encode_as(&rows, 0, true, 0));
            let compressed = check(&block, 7, 11).unwrap().is_compressed();
            let limit = (plain.len() - TRAILER_LEN) * 2 / 3 + TRAILER_LEN;
            let fits = if compressed { block.len() <= limit } else { block == plain };
            prop_assert!(fits);
            prop_assert!(compressed || byte.is_none());
            prop_assert_eq!(decode(&block).unwrap(), rows);
        }

        #[test]
        fn forged_compressed_blocks_are_refused_or_bounded(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), raw_len in prop_oneof![0u32..2_000, any::<u32>()],
        ) {
            let mut block = bytes;
            let payload = block.len();
            block.push(LZ4);
            block.extend_from_slice(&raw_len.to_le_bytes());
            let crc = checksum_at(7, 11, &block);
            block.extend_from_slice(&crc.to_le_bytes());
            // In either case, nothing larger is allocated than the payload could fill.
            if let Ok(stored) = check(&block, 7, 11) {
                prop_assert!(stored.raw_len <= payload * LZ4_MAX_RATIO);
                let _ = stored.decompress().map(|raw| decode_payload(&raw));
            }
        }

        #[test]
        fn compares_like_whole_keys(rows in rows(), key in proptest::collection::vec(0u8..3, 0..6)) {
            let key: Vec<u8> = key.iter().map(|&b| b"ab\0"[usize::from(b)]).collect();
            let block = encode(&rows, 0);
            let block = Block::parse(Stored::parse(&block).unwrap().payload).unwrap();
            let mut at = 0;
            for n in 0..block.groups() {
                let mut group = block.group(n, 0).unwrap();
                while let Some(e) = group.next_entry().unwrap() {
                    prop_assert_eq!(e.cmp_key(&key), rows[at].0.cmp(&key));
                    prop_assert_eq!(e.is(&key), rows[at].0 == key);
                    at += 1;
                }
            }
        }

        #[test]
        fn damage_is_found_and_never_panics(
            rows in rows(), at in any::<prop::sample::Index>(), bit in 0u8..8, compress: bool,
        ) {
            let mut block = encode_as(&rows, 0, compress, 0);
            let len = at.index(block.len());
            prop_assert!(check(&block[..len], 7, 11).is_err());
            let _ = decode(&block[..len]);
            block[len] ^= 1 << bit;
            prop_assert!(check(&block, 7, 11).is_err());
            let _ = decode(&block);
        }

        #[test]
        fn decode_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode_payload(&bytes);
        }
    }

    /// Symptom: verifying a forged SST took quadratic time. Cause: a forged group could have as many entries as fit
    /// into its block, and each was looked up by reading its group. Fix: a group with more entries than the format
    /// allows is an error.
    #[test]
    fn groups_of_more_entries_than_the_format_allows_are_refused() {
        let heads = [1u8, 0, 1, 0, 0, b'k'].repeat(GROUP_LEN + 1);
        let table = [&[0; TABLE_ENTRY_LEN][..], &[1]].concat();
        let of = |entries: usize| decode_payload(&[&heads[..entries * 6], &table].concat());
        assert_eq!(of(GROUP_LEN).unwrap().len(), GROUP_LEN);
        assert!(matches!(of(GROUP_LEN + 1), Err(BadBlock::Malformed(_))));
    }

    #[test]
    fn checksum_covers_file_and_offset() {
        let block = encode(&[(b"k".to_vec(), EntryKind::Put, 1, b"v".to_vec())], 0);
        assert!(check(&block, 7, 11).is_ok());
        assert!(matches!(check(&block, 8, 11), Err(BadBlock::Checksum { .. })));
        assert!(matches!(check(&block, 7, 12), Err(BadBlock::Checksum { .. })));
    }

    #[test]
    fn unknown_codecs_kinds_and_flags_are_told_apart_from_damage() {
        let rows = [(b"k".to_vec(), EntryKind::Put, 1, b"v".to_vec())];
        let mut block = encode(&rows, 0);
        let codec_at = block.len() - TRAILER_LEN;
        block[codec_at] = 9;
        let crc = checksum_at(7, 11, &block[..block.len() - 4]);
        let end = block.len() - 4;
        block[end..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(check(&block, 7, 11), Err(BadBlock::UnknownCodec(9)));

        for tag in [0x00, 0x03, 0x0f, 0x11, 0x21, 0x81] {
            let mut block = encode(&rows, 0);
            block[1] = tag; // after the one value byte
            assert_eq!(decode(&block), Err(BadBlock::UnknownEntry(tag)));
        }
    }
}
