//! The format of a log segment.
//!
//! ```text
//! segment     0  128  file header (kind 2), with the fields: 4 generation, 8 salt, 8 number of the last manifest edit
//!                     that was durable when the segment was created
//!           512  128  the same header again, in a sector of its own
//!          1024       records, each at a multiple of 8; the first one is a link
//!
//! record      0    4  CRC-32C of bytes 4 to 48, seeded with the salt
//! record      0    4  CRC-32C of bytes 4 to 48, seeded with the salt
//!             4    4  CRC-32C of payload and padding, seeded with salt XOR position
//!            12    1  type: 1 batch, 2 watermark, 3 carry (reserved), 4 pad, 5 link
//!            13    1  flags, none known
//!            14    2  zero
//!            16    8  its own position (LSN)
//!            16    8  the record's own position (LSN)
//!            24    8  sequence of the first operation; without operations, the next sequence to be assigned
//!            32    8  watermark: the log was durable up to this LSN before this record was written
//!            44    4  commit time, seconds since the Unix epoch
//!            48       payload, then zeros up to a multiple of 8
//!
//! link payload     4  generation of the previous segment, 4 offset of its end; zeros for the very first
//! ```
//!
//! The position in the header and the salt in the checksums invalidate stale bytes and bytes from another position or
//! segment. Pads are skipped. An unknown type or flag under a valid checksum means a newer format.

use std::path::Path;

use crate::checksum::crc32c_seeded;
use crate::coding::Reader;
use crate::error::{Error, Result};
use crate::file_header::{FileHeader, FileKind, HEADER_LEN, Id};
use crate::planted::{Bug, planted};
use crate::types::{Lsn, MAX_BATCH_BYTES, SeqNo};

/// Offset of the first record in a segment.
pub(crate) const RECORDS_START: u32 = 1024;
const SECOND_COPY: usize = 512;
pub(crate) const RECORD_HEADER: usize = 48;
/// Offset of a record's own position in the record.
pub(crate) const LSN_FIELD: u32 = 16;
pub(crate) const ALIGN: u32 = 8;
/// Length of a link record.
pub(crate) const LINK_LEN: u64 = RECORD_HEADER as u64 + 8;
/// Maximum size of a segment: offsets have 32 bits.
pub(crate) const MAX_SEGMENT: u64 = (u32::MAX - u32::MAX % ALIGN) as u64;

pub(crate) const BATCH: u8 = 1;
pub(crate) const WATERMARK: u8 = 2;
pub(crate) const PAD: u8 = 4;
pub(crate) const LINK: u8 = 5;

/// The header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) database_id: Id,
    pub(crate) incarnation: Id,
    pub(crate) created_ms: u64,
    pub(crate) generation: u32,
    pub(crate) salt: u64,
    pub(crate) last_edit: u64,
}

impl SegmentHeader {
    /// Encodes all bytes before the records: both copies of the header and the bytes between them.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(56);
        fields.extend_from_slice(&self.generation.to_le_bytes());
        fields.extend_from_slice(&self.salt.to_le_bytes());
        fields.extend_from_slice(&self.last_edit.to_le_bytes());
        let mut extra = [0; 56];
        for (to, from) in extra.iter_mut().zip(fields) {
            *to = from;
        }
        let header = FileHeader {
            kind: FileKind::Log,
            database_id: self.database_id,
            incarnation: self.incarnation,
            created_ms: self.created_ms,
            extra,
        }
        .encode();
        let mut out = Vec::with_capacity(RECORDS_START as usize);
        out.extend_from_slice(&header);
        out.resize(SECOND_COPY, 0);
        out.extend_from_slice(&header);
        out.resize(RECORDS_START as usize, 0);
        out
    }

    /// Decodes the first bytes of a segment. One intact copy suffices; `None` if both are damaged. A newer format in
    /// either copy is an error.
    pub(crate) fn decode(bytes: &[u8], file: &Path) -> Result<Option<Self>> {
        for offset in [0, SECOND_COPY] {
            let copy = bytes.get(offset..).unwrap_or_default();
            let copy = copy.get(..HEADER_LEN).unwrap_or(copy);
            match FileHeader::decode(copy, FileKind::Log, file, offset as u64) {
                Ok(header) => return Ok(Self::from_file_header(&header)),
                Err(error @ Error::UnsupportedFormat { .. }) => return Err(error),
                Err(_damaged) => {}
            }
        }
        Ok(None)
    }

    /// The header for a copy of the segment in another incarnation of the database.
    fn copied(self, incarnation: Id, created_ms: u64, last_edit: u64) -> Self {
        Self { incarnation, created_ms, last_edit, ..self }
    }

    fn from_file_header(header: &FileHeader) -> Option<Self> {
        let mut fields = Reader::new(&header.extra);
        Some(Self {
            database_id: header.database_id,
            incarnation: header.incarnation,
            created_ms: header.created_ms,
            generation: fields.u32()?,
            salt: fields.u64()?,
            last_edit: fields.u64()?,
        })
    }
}

/// All bytes before the records for a copy of a segment, made from the `bytes` there in the original. Generation and
/// salt are kept, so that the records are valid in the copy.
pub(crate) fn copied_header(
    bytes: &[u8],
    file: &Path,
    incarnation: Id,
    created_ms: u64,
    last_edit: u64,
) -> Result<Vec<u8>> {
    let header = SegmentHeader::decode(bytes, file)?;
    let header = header.ok_or_else(|| Error::corrupt(file, 0, "both copies of the header are damaged"))?;
    Ok(header.copied(incarnation, created_ms, last_edit).encode())
}

/// A record's header, without the fields that only verify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) lsn: Lsn,
    pub(crate) first_seq: SeqNo,
    pub(crate) watermark: Lsn,
    pub(crate) count: u32,
    pub(crate) time: u32,
    payload_len: u32,
    payload_crc: u32,
}

/// The length in the log of a record with a payload of `payload_len` bytes.
pub(crate) fn record_len(payload_len: usize) -> u64 {
    (payload_len as u64).saturating_add(RECORD_HEADER as u64).next_multiple_of(u64::from(ALIGN))
}

impl RecordHeader {
    pub(crate) fn new(kind: u8, lsn: Lsn, first_seq: SeqNo, watermark: Lsn, count: u32, time: u32) -> Self {
        Self { kind, flags: 0, lsn, first_seq, watermark, count, time, payload_len: 0, payload_crc: 0 }
    }

    /// Appends the record to `out`. The caller has checked that the payload's length fits into 32 bits.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, salt: u64, payload: &[u8]) {
        let start = out.len();
        out.resize(start + RECORD_HEADER, 0);
        out.extend_from_slice(payload);
        out.resize(start + record_len(payload.len()) as usize, 0);
        if let Some(record) = out.get_mut(start..) {
            self.seal(record, salt, payload.len());
        }
    }

    /// Fills in the header of a record whose payload and padding are in place.
    pub(crate) fn seal(&self, record: &mut [u8], salt: u64, payload_len: usize) {
        let Some((header, padded)) = record.split_first_chunk_mut::<RECORD_HEADER>() else {
            debug_assert!(false, "a record is shorter than its header");
            return;
        };
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let words = [
            pair(0, crc32c_seeded(salt ^ self.lsn.0, &[padded])),
            pair(payload_len as u32, u32::from_le_bytes([self.kind, self.flags, 0, 0])),
            self.lsn.0,
            self.first_seq,
            self.watermark.0,
            pair(self.count, self.time),
        ];
        let (fields, _) = header.as_chunks_mut::<8>();
        for (field, word) in fields.iter_mut().zip(words) {
            *field = word.to_le_bytes();
        }
        if let Some((crc, covered)) = header.split_first_chunk_mut::<4>() {
            *crc = crc32c_seeded(salt, &[covered]).to_le_bytes();
        }
    }

    /// Decodes the header at position `at`; `None` if the bytes are not a header, or not one for this position.
    pub(crate) fn decode(bytes: &[u8], salt: u64, at: Lsn) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        let mut reader = Reader::new(bytes);
        let (crc, payload_crc, payload_len) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (kind, flags, _zero) = (reader.u8()?, reader.u8()?, reader.u16()?);
        let lsn = Lsn(reader.u64()?);
        if lsn != at || crc32c_seeded(salt, &[bytes.get(4..)?]) != crc {
            return None;
        }
        let (first_seq, watermark) = (reader.u64()?, Lsn(reader.u64()?));
        let (count, time) = (reader.u32()?, reader.u32()?);
        Some(Self { kind, flags, lsn, first_seq, watermark, count, time, payload_len, payload_crc })
    }

    /// The length of the whole record.
    pub(crate) fn record_len(&self) -> u64 {
        record_len(self.payload_len as usize)
    }

    /// Whether the payload is longer than any that is ever written.
    pub(crate) fn is_too_long(&self) -> bool {
        u64::from(self.payload_len) > MAX_BATCH_BYTES
    }

    /// Returns the payload, given the bytes of the whole record; `None` if its checksum does not match.
    pub(crate) fn payload<'a>(&self, salt: u64, record: &'a [u8]) -> Option<&'a [u8]> {
        let padded = record.get(RECORD_HEADER..)?;
        let holds = self.is_payload(crc32c::crc32c_append(self.payload_seed(salt), padded));
        self.unchecked_payload(record).filter(|_| holds)
    }

    /// The same without verifying the checksum, for callers that have done so.
    pub(crate) fn unchecked_payload<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        record.get(RECORD_HEADER..)?.get(..self.payload_len as usize)
    }

    /// The initial value of the payload's checksum.
    pub(crate) fn payload_seed(&self, salt: u64) -> u32 {
        crc32c_seeded(salt ^ self.lsn.0, &[])
    }

    /// Whether `crc` matches the checksum stored for the payload.
    pub(crate) fn is_payload(&self, crc: u32) -> bool {
        crc == self.payload_crc || planted(Bug::TornRecordBelieved)
    }

    /// Returns an error for a type or flags that this version does not support. Valid only after both checksums
    /// matched.
    pub(crate) fn check_known(&self, file: &Path) -> Result<()> {
        if matches!(self.kind, BATCH | WATERMARK | PAD | LINK) && self.flags == 0 {
            return Ok(());
        }
        Err(Error::UnsupportedFormat {
            file: file.to_path_buf(),
            found: format!(
                "log record type {} with flags {:#x} at {}",
                self.kind,
                self.flags,
                self.lsn.offset()
            ),
            supported: "log record types 1, 2, 4 and 5 without flags".into(),
        })
    }
}

/// Encodes the payload of a link to the segment that ends at `previous`.
pub(crate) fn encode_link(previous: Lsn) -> [u8; 8] {
    // Generation first, as in the table above; the bytes of the LSN itself are the other way round.
    let mut out = [0; 8];
    let fields = previous.generation().to_le_bytes().into_iter().chain(previous.offset().to_le_bytes());
    for (to, from) in out.iter_mut().zip(fields) {
        *to = from;
    }
    out
}

pub(crate) fn decode_link(payload: &[u8]) -> Option<Lsn> {
    let mut reader = Reader::new(payload);
    let link = Lsn::new(reader.u32()?, reader.u32()?);
    reader.is_empty().then_some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Lsn = Lsn((7 << 32) | 1024);

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        RecordHeader::new(BATCH, AT, 9, Lsn(5), 2, 77).encode(&mut out, 42, payload);
        out
    }

    fn decode(bytes: &[u8], salt: u64, at: Lsn) -> Option<Vec<u8>> {
        let header = RecordHeader::decode(bytes, salt, at)?;
        assert_eq!((header.kind, header.first_seq, header.watermark), (BATCH, 9, Lsn(5)));
        assert_eq!((header.count, header.time), (2, 77));
        header.payload(salt, bytes.get(..header.record_len() as usize)?).map(<[u8]>::to_vec)
    }

    #[test]
    fn records_round_trip_at_their_place_only() {
        for len in 0..40 {
            let payload: Vec<u8> = (0..len).collect();
            let bytes = record(&payload);
            assert_eq!((bytes.len() % 8, bytes.len() as u64), (0, record_len(payload.len())));
            assert_eq!(decode(&bytes, 42, AT), Some(payload));
            assert_eq!(decode(&bytes, 43, AT), None);
            assert_eq!(decode(&bytes, 42, Lsn(AT.0 + 8)), None);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_record_is_found() {
        let good = record(b"payload with padding");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad, 42, AT), None, "bit {bit}");
        }
        for len in 0..good.len() {
            assert_eq!(decode(&good[..len], 42, AT), None, "length {len}");
        }
    }

    fn header() -> SegmentHeader {
        let (database_id, incarnation) = ([1; 16], [2; 16]);
        SegmentHeader { database_id, incarnation, created_ms: 3, generation: 4, salt: 5, last_edit: 6 }
    }

    #[test]
    fn either_copy_of_the_segment_header_will_do() {
        let file = Path::new("f");
        let good = header().encode();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(SegmentHeader::decode(&bad, file).unwrap(), Some(header()), "byte {at}");
        }
        for len in 0..good.len() {
            let got = SegmentHeader::decode(&good[..len], file).unwrap();
            assert_eq!(got, (len >= HEADER_LEN).then(header), "length {len}");
        }
        let mut bad = good;
        (bad[3], bad[600]) = (0, 0xee);
        assert_eq!(SegmentHeader::decode(&bad, file).unwrap(), None);
    }

    #[test]
    fn links_round_trip() {
        let link = Lsn::new(3, 0x0102_0304);
        assert_eq!(encode_link(link), [3, 0, 0, 0, 4, 3, 2, 1]);
        assert_eq!(decode_link(&encode_link(link)), Some(link));
        assert_eq!(decode_link(&[0; 7]), None);
        assert_eq!(decode_link(&[0; 9]), None);
    }
}
