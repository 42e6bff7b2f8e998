//! Edits of the manifest and their encoding. The only module that uses bincode.
//!
//! An edit is one frame, applied completely or not at all. Integers are little-endian.
//!
//! ```text
//! frame   0  4  CRC-32C of the rest of the frame, seeded with the edit number and the database id
//!         4  4  length of the body
//!         8  8  edit number
//!        16  -  body: items, one after another
//!
//! item    0  2  type
//!         2  2  flags: bit 0 critical; the others are written as zero and ignored
//!         4  4  length of the body, at most 8 MiB; for settings, at most 64 KiB
//!         8  -  bincode of the type's fields (little-endian, variable-length integers)
//! ```
//!
//! | type | item | critical | fields |
//! |---|---|---|---|
//! | 1 | facts | yes | [`Facts`] |
//! | 2 | keyspace | yes | id, name |
//! | 3 | SST added | yes | [`SstMeta`] |
//! | 4 | SST removed | yes | file id |
//! | 5 | flushed to | yes | list of (stripe, keyspace, sequence) |
//! | 6 | log start | yes | start LSN, durable LSN |
//! | 7 | log cut | yes | [`LogCut`] |
//! | 8 | clean end | yes | [`CleanEnd`] |
//! | 9 | opened | yes | none |
//! | 10 | reservation | yes | first file id that is not reserved |
//! | 11 | settings | no | list of (name, number) |
//! | 12 | SST details | no | file id, [`SstDetails`]; after the item that adds the SST |
//!
//! An unknown critical item makes the file `UnsupportedFormat`. An unknown optional item is skipped, and lost when this
//! version rewrites the manifest, so anything that must survive older versions has to be critical. The fields of a type
//! never change; a new meaning gets a new type.
//!
//! Invariants:
//! 1. Nothing in a body is decoded before the frame's checksum matches.
//! 2. Decoding an item takes at most 32 times its length in memory.

use std::path::Path;
use std::sync::Arc;

use bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checksum::crc32c_seeded;
use crate::coding::Reader;
use crate::error::{Error, Result};
use crate::file_header::Id;
use crate::key::{KEY_ENCODING, KEY_HASH_SEED};
use crate::types::{FileId, LogCut, Lsn, MAX_STRIPES, SeqNo, SstDetails, SstMeta};

mod sst;

/// Bytes of a frame before its body.
pub(super) const FRAME_HEAD_LEN: usize = 16;
pub(super) const CRC_LEN: usize = 4;
/// Bytes of an item before its body.
pub(super) const ITEM_HEAD_LEN: usize = 8;
const CRITICAL: u16 = 1;
/// Maximum length of an item's body. The longest items, SSTs with two keys of 128 KiB, are far shorter.
const MAX_ITEM_LEN: usize = 8 << 20;
/// Maximum length of the settings, of which each edit makes a copy in memory. Many times the actual length.
const MAX_SETTINGS_LEN: usize = 64 << 10;
/// bincode counts eight bytes for an integer that takes one, so its limit has to be eight times ours.
const DECODE_LIMIT: usize = 8 * MAX_ITEM_LEN;
const CONFIG: Configuration<LittleEndian, Varint, Limit<DECODE_LIMIT>> = standard().with_limit();

const FACTS: u16 = 1;
const KEYSPACE: u16 = 2;
const ADD_SST: u16 = 3;
const REMOVE_SST: u16 = 4;
const FLUSHED_TO: u16 = 5;
const LOG_START: u16 = 6;
const CUT: u16 = 7;
const CLEAN_END: u16 = 8;
const OPENED: u16 = 9;
const RESERVE: u16 = 10;
const SETTINGS: u16 = 11;
const SST_DETAILS: u16 = 12;

/// A change within an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The facts that never change. Occurs once, as the first change of the first edit.
    Facts(Facts),
    Keyspace {
        id: u32,
        name: String,
    },
    AddSst(Arc<SstMeta>),
    /// Details of a listed SST. Optional: a version that drops them only has less to base its compactions on.
    SstDetails(FileId, Arc<SstDetails>),
    RemoveSst(FileId),
    /// Per stripe and keyspace: every write up to this sequence is in a listed SST, or no longer needed.
    FlushedTo(Vec<(u16, u32, SeqNo)>),
    /// Records below `start` are no longer needed; the log is durable up to `durable`.
    LogStart {
        start: Lsn,
        durable: Lsn,
    },
    Cut(LogCut),
    CleanEnd(CleanEnd),
    /// The database was opened for writing, which cancels the clean end.
    Opened,
    /// File ids below this may be in use, including by files that no edit lists.
    Reserve {
        files_below: FileId,
    },
    /// The settings last used; replaces the previous ones.
    Settings(Vec<(String, u64)>),
}

/// Facts fixed when a database is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The database has two to the power of this many stripes.
    pub(crate) stripe_bits: u8,
    pub(crate) key_encoding: u32,
    /// Hash of partition keys; selects the stripe.
    pub(crate) stripe_hash: HashFn,
    /// Hash of encoded keys; selects filter bits and slots of hash indexes.
    pub(crate) key_hash: HashFn,
    pub(crate) created_ms: u64,
}

/// A hash function and its seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HashFn {
    /// 1 is xxh3_64.
    pub(crate) id: u32,
    pub(crate) seed: u64,
}

const XXH3_64: u32 = 1;

impl Facts {
    /// The facts for a database that this version creates. `stripes` is a power of two.
    pub(crate) fn new(stripes: usize, created_ms: u64) -> Self {
        Self {
            stripe_bits: stripes.trailing_zeros() as u8,
            key_encoding: KEY_ENCODING,
            stripe_hash: HashFn { id: XXH3_64, seed: 0 },
            key_hash: HashFn { id: XXH3_64, seed: KEY_HASH_SEED },
            created_ms,
        }
    }

    pub(crate) fn stripes(&self) -> usize {
        // An out-of-range shift yields more stripes than a database can have, which `check_supported` refuses.
        1usize.checked_shl(u32::from(self.stripe_bits)).unwrap_or(usize::MAX)
    }

    /// Returns an error for facts that this version would misread.
    pub(crate) fn check_supported(&self, file: &Path) -> Result<()> {
        let ours = Self { stripe_bits: self.stripe_bits, ..Self::new(MAX_STRIPES, self.created_ms) };
        if *self == ours && self.stripes() <= MAX_STRIPES {
            return Ok(());
        }
        Err(Error::UnsupportedFormat {
            file: file.to_path_buf(),
            found: format!("{self:?}"),
            supported: format!("{ours:?} with at most {MAX_STRIPES} stripes"),
        })
    }
}

/// The state in which a database was cleanly closed, so that opening it needs no scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CleanEnd {
    /// The end of the log; `None` if there is no log.
    pub(crate) end: Option<Lsn>,
    pub(crate) next_seq: SeqNo,
    pub(crate) next_generation: u32,
    pub(crate) next_file: FileId,
}

impl Change {
    /// The changes that list an SST, with its details if it has any.
    pub(crate) fn adding(meta: &Arc<SstMeta>) -> impl Iterator<Item = Self> {
        let details = meta.details.as_ref().map(|details| Self::SstDetails(meta.id, Arc::clone(details)));
        std::iter::once(Self::AddSst(Arc::clone(meta))).chain(details)
    }
}

/// Encodes an edit. Fails only on an item beyond the length limit, which the error names.
pub(crate) fn encode_frame(database_id: &Id, number: u64, changes: &[Change]) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    for change in changes {
        put_item(&mut body, change)?;
    }
    let len = u32::try_from(body.len()).map_err(|_| format!("the edit is {} bytes", body.len()))?;
    Ok(frame_of(database_id, number, len, &body))
}

fn frame_of(database_id: &Id, number: u64, len: u32, body: &[u8]) -> Vec<u8> {
    let (number_bytes, len) = (number.to_le_bytes(), len.to_le_bytes());
    let crc = crc32c_seeded(number, &[database_id, &len, &number_bytes, body]);
    [crc.to_le_bytes().as_slice(), &len, &number_bytes, body].concat()
}

fn put_item(out: &mut Vec<u8>, change: &Change) -> Result<(), String> {
    let (kind, body) = match change {
        Change::Facts(facts) => (FACTS, to_bytes(facts)),
        Change::Keyspace { id, name } => (KEYSPACE, to_bytes(&(id, name))),
        Change::AddSst(meta) => (ADD_SST, to_bytes(meta.as_ref())),
        Change::SstDetails(id, details) => (SST_DETAILS, to_bytes(&(id, details.as_ref()))),
        Change::RemoveSst(id) => (REMOVE_SST, to_bytes(id)),
        Change::FlushedTo(list) => (FLUSHED_TO, to_bytes(list)),
        Change::LogStart { start, durable } => (LOG_START, to_bytes(&(start, durable))),
        Change::Cut(cut) => (CUT, to_bytes(cut)),
        Change::CleanEnd(end) => (CLEAN_END, to_bytes(end)),
        Change::Opened => (OPENED, Ok(Vec::new())),
        Change::Reserve { files_below } => (RESERVE, to_bytes(files_below)),
        Change::Settings(settings) => (SETTINGS, to_bytes(settings)),
    };
    let body = body?;
    check_len(kind, body.len()).map_err(|why| format!("an item of type {kind} has {why}"))?;
    let flags = if matches!(kind, SETTINGS | SST_DETAILS) { 0 } else { CRITICAL };
    put_raw_item(out, kind, flags, &body);
    Ok(())
}

fn put_raw_item(out: &mut Vec<u8>, kind: u16, flags: u16, body: &[u8]) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(body);
}

fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, String> {
    bincode::serde::encode_to_vec(value, CONFIG).map_err(|e| e.to_string())
}

/// Decodes type, flags and length of an item.
pub(super) fn item_head(bytes: &[u8]) -> Option<(u16, u16, usize)> {
    let mut reader = Reader::new(bytes);
    Some((reader.u16()?, reader.u16()?, usize::try_from(reader.u32()?).ok()?))
}

/// Whether this version knows items of this type.
pub(super) fn is_known(kind: u16) -> bool {
    (FACTS..=SST_DETAILS).contains(&kind)
}

/// Returns an error for an item of an unknown type, unless it may be skipped.
pub(super) fn check_optional(kind: u16, flags: u16, file: &Path) -> Result<()> {
    if flags & CRITICAL == 0 {
        return Ok(());
    }
    Err(Error::UnsupportedFormat {
        file: file.to_path_buf(),
        found: format!("manifest item of type {kind}"),
        supported: format!("types {FACTS} to {SST_DETAILS}"),
    })
}

/// Checks an item against the maximum length of its type, before it is read.
pub(super) fn check_len(kind: u16, len: usize) -> Result<(), String> {
    let most = if kind == SETTINGS { MAX_SETTINGS_LEN } else { MAX_ITEM_LEN };
    if len > most {
        return Err(format!("{len} bytes, the limit is {most}"));
    }
    Ok(())
}

/// Decodes an item; `None` for a type that this version does not know.
pub(super) fn decode_item(kind: u16, body: &[u8]) -> Result<Option<Change>, String> {
    Ok(Some(match kind {
        FACTS => Change::Facts(from_bytes(body)?),
        KEYSPACE => {
            let (id, name) = from_bytes(body)?;
            Change::Keyspace { id, name }
        }
        ADD_SST => Change::AddSst(Arc::new(sst::meta(body)?)),
        REMOVE_SST => Change::RemoveSst(from_bytes(body)?),
        FLUSHED_TO => Change::FlushedTo(from_bytes(body)?),
        LOG_START => {
            let (start, durable) = from_bytes(body)?;
            Change::LogStart { start, durable }
        }
        CUT => Change::Cut(from_bytes(body)?),
        CLEAN_END => Change::CleanEnd(from_bytes(body)?),
        OPENED => from_bytes(body).map(|()| Change::Opened)?,
        RESERVE => Change::Reserve { files_below: from_bytes(body)? },
        SETTINGS => Change::Settings(from_bytes(body)?),
        SST_DETAILS => {
            let (id, details) = sst::details(body)?;
            Change::SstDetails(id, Arc::new(details))
        }
        _ => return Ok(None),
    }))
}

fn from_bytes<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let (value, used) = bincode::serde::decode_from_slice(body, CONFIG).map_err(|e| e.to_string())?;
    if used != body.len() {
        return Err(format!("{} of {} bytes remain after decoding", body.len() - used, body.len()));
    }
    Ok(value)
}

/// An item of any type and flags, for tests of files that other versions may have written.
#[cfg(test)]
pub(crate) fn raw_frame(database_id: &Id, number: u64, kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut items = Vec::new();
    put_raw_item(&mut items, kind, flags, body);
    frame_of(database_id, number, items.len() as u32, &items)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::load::Frames;
    use super::*;
    use crate::file_header::{FileHeader, FileKind};
    use crate::vfs::{MemVfs, OpenMode, Vfs, write_all_at};

    const ID: Id = [7; 16];

    fn sst() -> SstMeta {
        SstMeta {
            id: 300,
            stripe: 255,
            keyspace: 1,
            run: 299,
            part: 0,
            parts: 1,
            depth: 2,
            run_seq: (1, u64::MAX),
            seq: (5, 1 << 40),
            keys: (b"a\0\0".to_vec(), vec![0xff; 300]),
            entries: 1000,
            tombstones: 3,
            raw_bytes: 1 << 33,
            len: 1 << 25,
            directory: (1 << 24, 100),
            checksum: u32::MAX,
            oldest_tombstone_ms: 9,
            created_ms: 10,
            origin: [3; 16],
            details: None,
        }
    }

    fn all_changes() -> Vec<Change> {
        vec![
            Change::Facts(Facts::new(256, 42)),
            Change::Keyspace { id: 9, name: "by_city".into() },
            Change::AddSst(Arc::new(sst())),
            Change::SstDetails(
                300,
                Arc::new(SstDetails {
                    keys: 900,
                    sample: vec![0, 250, 251, u32::MAX],
                    bits_per_key: 10,
                    block_size: 4096,
                    codec: 1,
                }),
            ),
            Change::RemoveSst(u64::MAX),
            Change::FlushedTo(vec![(0, 0, 1), (255, 9, u64::MAX)]),
            Change::LogStart { start: Lsn::new(u32::MAX, 7), durable: Lsn::new(3, 4) },
            Change::Cut(LogCut { generation: 1, end: 2, next_generation: 3, seq: 4 }),
            Change::CleanEnd(CleanEnd { end: None, next_seq: 1, next_generation: 2, next_file: 3 }),
            Change::CleanEnd(CleanEnd {
                end: Some(Lsn(u64::MAX)),
                next_seq: 1,
                next_generation: 2,
                next_file: 3,
            }),
            Change::Opened,
            Change::Reserve { files_below: 1 << 50 },
            Change::Settings(vec![("sst_threshold".into(), 10), (String::new(), u64::MAX)]),
        ]
    }

    fn read(bytes: &[u8]) -> Result<Vec<Change>> {
        read_of(ID, bytes)
    }

    /// The changes of a frame in the database with this id.
    fn read_of(database_id: Id, bytes: &[u8]) -> Result<Vec<Change>> {
        let (vfs, path) = (MemVfs::new(), Path::new("M"));
        let (incarnation, extra) = (Id::default(), [0; 56]);
        let header = FileHeader { kind: FileKind::Manifest, database_id, incarnation, created_ms: 0, extra };
        let file = vfs.open(path, OpenMode::Create).unwrap();
        write_all_at(&*file, &[&header.encode(), bytes].concat(), 0).unwrap();
        let (mut frames, header) = Frames::open(&vfs, path)?;
        let at = header.encode().len() as u64;
        let frame = frames.frame(at)?.ok_or_else(|| Error::corrupt(path, 0, "no frame"))?;
        assert_eq!((frame.number > 0, frame.end), (true, at + bytes.len() as u64));
        let mut changes = Vec::new();
        frames.changes(&frame, |change| {
            changes.push(change);
            Ok(())
        })?;
        Ok(changes)
    }

    #[test]
    fn every_change_round_trips() {
        let bytes = encode_frame(&ID, 12, &all_changes()).unwrap();
        assert_eq!(read(&bytes).unwrap(), all_changes());
        assert!(read(&encode_frame(&ID, 12, &[]).unwrap()).unwrap().is_empty());
    }

    /// Files of this format exist: these bytes must not change without a new item type.
    #[test]
    fn the_bytes_are_those_of_the_format() {
        let durable = Lsn::new(1, 1024);
        let changes = [
            Change::Keyspace { id: 300, name: "by".into() },
            Change::LogStart { start: Lsn::new(1, 0), durable },
            Change::CleanEnd(CleanEnd {
                end: Some(durable),
                next_seq: 7,
                next_generation: 2,
                next_file: 250,
            }),
        ];
        let body: &[u8] = &[
            2, 0, 1, 0, 6, 0, 0, 0, 251, 44, 1, 2, b'b', b'y', // 300 is encoded as 251 and two bytes
            6, 0, 1, 0, 18, 0, 0, 0, // LSNs above 2^32: 253 and eight bytes
            253, 0, 0, 0, 0, 1, 0, 0, 0, 253, 0, 4, 0, 0, 1, 0, 0, 0, 8, 0, 1, 0, 13, 0, 0, 0, 1, 253, 0, 4,
            0, 0, 1, 0, 0, 0, 7, 2, 250,
        ];
        let frame = encode_frame(&ID, 12, &changes).unwrap();
        assert_eq!(&frame[FRAME_HEAD_LEN..], body);
        assert_eq!(&frame[CRC_LEN..FRAME_HEAD_LEN], [61, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0]);
        let crc = crc32c::crc32c(&[&[12, 0, 0, 0, 0, 0, 0, 0], ID.as_slice(), &frame[4..]].concat());
        assert_eq!(frame[..CRC_LEN], crc.to_le_bytes());
        assert_eq!(to_bytes(&sst()).unwrap()[..3], [251, 44, 1]);
    }

    #[test]
    fn damage_and_other_databases_are_no_frames() {
        let bytes = encode_frame(&ID, 12, &all_changes()).unwrap();
        assert!(read_of([8; 16], &bytes).is_err());
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_err(), "length {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn unknown_items_are_refused_when_critical_and_skipped_otherwise() {
        let critical = read(&raw_frame(&ID, 1, 999, CRITICAL, b"x"));
        assert!(matches!(critical, Err(Error::UnsupportedFormat { .. })), "{critical:?}");
        assert!(read(&raw_frame(&ID, 1, 999, 0, b"x")).unwrap().is_empty());
    }

    #[test]
    fn facts_of_another_version_are_unsupported() {
        let facts = Facts::new(16, 1);
        assert_eq!(facts.stripes(), 16);
        facts.check_supported(Path::new("M")).unwrap();
        for other in [
            Facts { stripe_bits: 9, ..facts.clone() },
            Facts { stripe_bits: 255, ..facts.clone() },
            Facts { key_encoding: 2, ..facts.clone() },
            Facts { stripe_hash: HashFn { id: 2, seed: 0 }, ..facts.clone() },
            Facts { key_hash: HashFn { id: 1, seed: 0 }, ..facts.clone() },
        ] {
            let refused = other.check_supported(Path::new("M"));
            assert!(matches!(refused, Err(Error::UnsupportedFormat { .. })), "{other:?}");
        }
    }

    #[test]
    fn oversized_items_are_refused_when_written() {
        let long = Change::Keyspace { id: 1, name: "x".repeat(MAX_ITEM_LEN) };
        assert!(encode_frame(&ID, 1, &[long]).is_err());
        // bincode counts eight bytes for each number, which takes one: its limit must not refuse an edit that was
        // written.
        let most = Change::FlushedTo(vec![(0, 0, 1); MAX_ITEM_LEN / 3 - 2]);
        let bytes = encode_frame(&ID, 1, std::slice::from_ref(&most)).unwrap();
        assert_eq!(read(&bytes).unwrap(), [most]);
    }

    proptest! {
        #[test]
        fn items_with_a_right_checksum_never_panic(
            kind in 0u16..14, flags in 0u16..4, body in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = read(&raw_frame(&ID, 1, kind, flags, &body));
        }

        #[test]
        fn cut_and_lengthened_items_are_corruption(kind in 1u16..=12, cut in 0usize..40) {
            for change in all_changes() {
                let mut item = Vec::new();
                put_item(&mut item, &change).unwrap();
                let body = &item[8..];
                if u16::from_le_bytes([item[0], item[1]]) != kind {
                    continue;
                }
                if cut < body.len() {
                    let got = read(&raw_frame(&ID, 1, kind, CRITICAL, &body[..cut]));
                    prop_assert!(matches!(got, Err(Error::Corruption { .. })), "{:?}", got);
                }
                let longer = [body, &[0]].concat();
                let got = read(&raw_frame(&ID, 1, kind, CRITICAL, &longer));
                prop_assert!(matches!(got, Err(Error::Corruption { .. })), "{:?}", got);
            }
        }
    }
}
