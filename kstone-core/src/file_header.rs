//! The first 128 bytes of every file.
//!
//! ```text
//!   0  8  magic "KSTONEDB"
//!   8  1  kind: 1 manifest, 2 log segment, 3 SST
//!   9  1  checksum id: 1 CRC-32C
//!  10  2  format version
//!  12  4  compat features: unknown bits are ignored
//!  16  4  read-only-compat features: unknown bits refuse writing
//!  20  4  incompat features: unknown bits refuse opening
//!  24 16  database id
//!  40 16  incarnation id
//!  56  8  creation time, milliseconds since the Unix epoch
//!  64 56  fields of the kind
//! 120  4  zero
//! 124  4  CRC-32C of bytes 0 to 124
//! ```

use std::path::Path;

use crate::checksum::{CRC32C, crc32c_seeded};
use crate::coding::Reader;
use crate::error::{Error, Result};

pub(crate) const HEADER_LEN: usize = 128;
const MAGIC: &[u8; 8] = b"KSTONEDB";
/// The version shared by all file formats.
pub(crate) const FORMAT_VERSION: u16 = 1;
const EXTRA_LEN: usize = 56;
const CRC_OFFSET: usize = 124;

/// Sixteen random bytes.
pub(crate) type Id = [u8; 16];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FileKind {
    Manifest = 1,
    Log = 2,
    Sst = 3,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) kind: FileKind,
    /// Generated when the database is created; the same in all of its files and in all of its copies.
    pub(crate) database_id: Id,
    /// Regenerated for each copy, to tell files of a database from those of its copies.
    pub(crate) incarnation: Id,
    pub(crate) created_ms: u64,
    /// Fields specific to the kind, little-endian, zero-filled.
    pub(crate) extra: [u8; EXTRA_LEN],
}

impl FileHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[self.kind as u8, CRC32C]);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 12]); // no optional features yet
        out.extend_from_slice(&self.database_id);
        out.extend_from_slice(&self.incarnation);
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.extend_from_slice(&self.extra);
        out.extend_from_slice(&[0; 4]);
        let crc = crc32c_seeded(0, &[&out]);
        out.extend_from_slice(&crc.to_le_bytes());
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&out);
        header
    }

    /// Decodes the header at `offset` of `file`, which should be of this kind. A bad magic or checksum is `Corruption`;
    /// a version or feature that this version does not support is `UnsupportedFormat`.
    pub(crate) fn decode(bytes: &[u8], kind: FileKind, file: &Path, offset: u64) -> Result<Self> {
        let bad = |detail: String| Error::corrupt(file, offset, detail);
        let Some(covered) = bytes.get(..CRC_OFFSET) else {
            return Err(bad(format!("the header is truncated at {} of {HEADER_LEN} bytes", bytes.len())));
        };
        let mut reader = Reader::new(bytes);
        let mut field = || -> Option<_> {
            let magic = reader.bytes(8)?;
            let (found_kind, checksum, version) = (reader.u8()?, reader.u8()?, reader.u16()?);
            let (_compat, ro_compat, incompat) = (reader.u32()?, reader.u32()?, reader.u32()?);
            let (database_id, incarnation) = (reader.id()?, reader.id()?);
            let created_ms = reader.u64()?;
            let extra: [u8; EXTRA_LEN] = reader.bytes(EXTRA_LEN)?.try_into().ok()?;
            let (_zero, crc) = (reader.u32()?, reader.u32()?);
            Some((
                magic,
                found_kind,
                checksum,
                version,
                ro_compat,
                incompat,
                database_id,
                incarnation,
                created_ms,
                extra,
                crc,
            ))
        };
        let Some((
            magic,
            found_kind,
            checksum,
            version,
            ro_compat,
            incompat,
            database_id,
            incarnation,
            created_ms,
            extra,
            crc,
        )) = field()
        else {
            return Err(bad(format!("the header is truncated at {} of {HEADER_LEN} bytes", bytes.len())));
        };
        if magic != MAGIC {
            return Err(bad("the header does not start with KSTONEDB".into()));
        }
        let computed = crc32c_seeded(0, &[covered]);
        if crc != computed {
            return Err(bad(format!("header checksum mismatch: computed {computed:08x}, stored {crc:08x}")));
        }
        // These fields can be trusted now that the checksum matches.
        if version != FORMAT_VERSION || checksum != CRC32C || ro_compat != 0 || incompat != 0 {
            return Err(Error::UnsupportedFormat {
                file: file.to_path_buf(),
                found: format!(
                    "version {version}, checksum {checksum}, features {ro_compat:#x} and {incompat:#x}"
                ),
                supported: format!("version {FORMAT_VERSION}, checksum {CRC32C}, no optional features"),
            });
        }
        if found_kind != kind as u8 {
            return Err(bad(format!("the file is of kind {found_kind}, expected {} ({kind:?})", kind as u8)));
        }
        Ok(Self { kind, database_id, incarnation, created_ms, extra })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FileHeader {
        FileHeader {
            kind: FileKind::Sst,
            database_id: [1; 16],
            incarnation: [2; 16],
            created_ms: 3,
            extra: [4; 56],
        }
    }

    #[test]
    fn round_trips() {
        let bytes = header().encode();
        assert_eq!(FileHeader::decode(&bytes, FileKind::Sst, Path::new("f"), 0).unwrap(), header());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&bad, FileKind::Sst, Path::new("f"), 0).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(
                FileHeader::decode(&bytes[..len], FileKind::Sst, Path::new("f"), 0).is_err(),
                "length {len}"
            );
        }
    }

    #[test]
    fn newer_versions_and_unknown_features_are_unsupported_not_damaged() {
        for offset in [10, 16, 20] {
            let mut bytes = header().encode();
            bytes[offset] = 2;
            let crc = crc32c_seeded(0, &[&bytes[..CRC_OFFSET]]);
            bytes[CRC_OFFSET..].copy_from_slice(&crc.to_le_bytes());
            let got = FileHeader::decode(&bytes, FileKind::Sst, Path::new("f"), 0);
            assert!(matches!(got, Err(Error::UnsupportedFormat { .. })), "{offset}: {got:?}");
        }
    }
}
