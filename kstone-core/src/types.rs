//! The vocabulary of the engine: identifiers, positions in the log, versions of a key.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a write. Strictly increasing over the life of a database, never reused; 0 is "none".
pub type SeqNo = u64;
/// The number in an SST's name. Never reused.
pub type FileId = u64;
/// The number of a run: the parts of one run share it.
pub type RunId = u64;

/// The most stripes a database can have, and the default.
pub const MAX_STRIPES: usize = 256;

/// A position in the log: the segment's generation and a byte offset in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before everything.
    pub const ZERO: Self = Self(0);

    /// The position `offset` bytes into segment `generation`.
    pub fn new(generation: u32, offset: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(offset))
    }

    /// The segment.
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The byte offset in the segment.
    pub fn offset(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.generation(), self.offset())
    }
}

/// What an entry says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// The key has this value.
    Put = 1,
    /// The key is gone (a tombstone).
    Delete = 2,
}

impl EntryKind {
    /// The kind of that number, if there is one.
    pub fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Put),
            2 => Some(Self::Delete),
            _ => None,
        }
    }
}

/// The order of a scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    #[default]
    Forward,
    /// Descending keys.
    Reverse,
}

/// One version of one key, borrowed. Entries are ordered by key, then by sequence DESCENDING, so that the
/// newest version of a key comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// The encoded key.
    pub key: &'a [u8],
    /// The write that made it.
    pub seq: SeqNo,
    /// Put or tombstone.
    pub kind: EntryKind,
    /// The value; empty for a tombstone.
    pub value: &'a [u8],
}

/// What the manifest says of an SST: all that opening a database needs, so that it reads no SST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SstMeta {
    /// The number in its name.
    pub id: FileId,
    /// Its stripe.
    pub stripe: u16,
    /// Its keyspace; 0 is the items.
    pub keyspace: u32,
    /// The run it is a part of.
    pub run: RunId,
    /// Its place among the run's parts, in key order, from 0.
    pub part: u32,
    /// How many parts the run has.
    pub parts: u32,
    /// The run's depth in the compaction tree; 0 for a flush.
    pub depth: u32,
    /// The lowest and highest sequence of the whole run's INPUTS: runs of a stripe never overlap here, and
    /// their order by it is their order by age.
    pub run_seq: (SeqNo, SeqNo),
    /// The lowest and highest sequence in this file.
    pub seq: (SeqNo, SeqNo),
    /// The first and last encoded key in this file.
    pub keys: (Vec<u8>, Vec<u8>),
    /// Entries, tombstones included.
    pub entries: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Bytes of keys and values before prefix truncation.
    pub raw_bytes: u64,
    /// Length of the file in bytes.
    pub len: u64,
    /// Offset and length of the section directory in the file.
    pub directory: (u64, u32),
    /// CRC-32C of the whole file.
    pub checksum: u32,
    /// When the oldest tombstone was written, Unix milliseconds; 0 when there is none.
    pub oldest_tombstone_ms: u64,
    /// When the file was written, Unix milliseconds.
    pub created_ms: u64,
    /// The database that wrote it.
    pub origin: [u8; 16],
}
