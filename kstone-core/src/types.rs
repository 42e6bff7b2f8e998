//! The vocabulary of the engine: identifiers, log positions, versions of a key.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The sequence number of a write. Strictly increasing over the life of a database, never reused; 0 means none.
pub type SeqNo = u64;
/// The number in the name of an SST. Never reused.
pub type FileId = u64;
/// The number of a run, shared by all its parts.
pub type RunId = u64;

/// The maximum number of stripes in a database, and the default.
pub const MAX_STRIPES: usize = 256;
/// The most bytes of a key, partition and sort key together.
pub(crate) const MAX_KEY_BYTES: usize = 64 << 10;
/// The most bytes of a batch: no record of the log has a longer payload.
pub(crate) const MAX_BATCH_BYTES: u64 = 1 << 30;
/// Upper bound on sequences, file ids and edit numbers: a hundred million a second for a thousand years stay below it.
pub(crate) const MAX_NUMBER: u64 = 1 << 62;

/// A position in the log: the segment's generation and a byte offset in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Precedes every position.
    pub const ZERO: Self = Self(0);

    /// The position `offset` bytes into segment `generation`.
    pub fn new(generation: u32, offset: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(offset))
    }

    /// The generation of the segment.
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

/// What an entry records about its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// The key has the entry's value.
    Put = 1,
    /// The key was deleted (a tombstone).
    Delete = 2,
}

impl EntryKind {
    /// The kind encoded as `byte`, if there is one.
    pub fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Put),
            2 => Some(Self::Delete),
            _ => None,
        }
    }
}

/// Which structure answered a get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The active memtable.
    #[default]
    Memtable,
    /// A sealed memtable, waiting for its flush.
    Sealed,
    /// An SST, or none of them.
    Runs,
}

/// Filter results of one look-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilterTally {
    pub(crate) negatives: u64,
    pub(crate) true_positives: u64,
    pub(crate) false_positives: u64,
    /// Expected number of false positives, in billionths.
    pub(crate) expected: u64,
}

/// What a get read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetCost {
    /// Runs consulted, including those whose filter was negative.
    pub runs: u32,
    /// SST blocks read.
    pub blocks: u32,
    /// Where the get ended.
    pub source: Source,
    pub(crate) filter: FilterTally,
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
    /// The sequence of the write that made this version.
    pub seq: SeqNo,
    /// Put or tombstone.
    pub kind: EntryKind,
    /// The value; empty for a tombstone.
    pub value: &'a [u8],
}

/// The same without the value itself, which may take longer to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryHead<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) seq: SeqNo,
    pub(crate) kind: EntryKind,
    pub(crate) value_len: usize,
}

/// An SST as described in the manifest: everything that opening a database needs, so that opening reads no SST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SstMeta {
    /// The number in the file name.
    pub id: FileId,
    /// The stripe it belongs to.
    pub stripe: u16,
    /// The keyspace it belongs to; 0 holds the items.
    pub keyspace: u32,
    /// The run that this SST is a part of.
    pub run: RunId,
    /// Index among the parts of the run, in key order, from 0.
    pub part: u32,
    /// Number of parts in the run.
    pub parts: u32,
    /// Depth of the run in the compaction tree; 0 for a flush.
    pub depth: u32,
    /// The lowest and highest sequence over the INPUTS of the whole run: these ranges never overlap within a stripe, so
    /// they order its runs by age.
    pub run_seq: (SeqNo, SeqNo),
    /// The lowest and highest sequence in this file.
    pub seq: (SeqNo, SeqNo),
    /// The first and last encoded key in this file.
    pub keys: (Vec<u8>, Vec<u8>),
    /// Number of entries, including tombstones.
    pub entries: u64,
    /// Number of tombstones.
    pub tombstones: u64,
    /// Bytes of keys and values before prefix truncation.
    pub raw_bytes: u64,
    /// Length of the file in bytes.
    pub len: u64,
    /// Offset and length of the section directory within the file.
    pub directory: (u64, u32),
    /// CRC-32C of the whole file.
    pub checksum: u32,
    /// When the oldest tombstone was written, in Unix milliseconds; 0 if there is none.
    pub oldest_tombstone_ms: u64,
    /// When the file was written, in Unix milliseconds.
    pub created_ms: u64,
    /// The database that wrote it.
    pub origin: [u8; 16],
    /// Further details, which the manifest keeps in a separate item; `None` if it has none.
    #[serde(skip)]
    pub details: Option<Arc<SstDetails>>,
}

impl SstMeta {
    /// The codec that it was written with, if that is known.
    pub(crate) fn codec(&self) -> Option<u8> {
        self.details.as_ref().map(|details| details.codec)
    }
}

/// Facts that inform decisions about an SST but are not needed to read it: a manifest may lack them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SstDetails {
    /// Number of distinct keys; entries in excess of this are older versions of the same keys.
    pub keys: u64,
    /// The lowest hashes of the keys (upper 32 bits), at most 128, ascending and distinct: used to estimate the overlap
    /// of files.
    pub sample: Vec<u32>,
    /// The setting that the filter was built with.
    pub bits_per_key: u32,
    /// The setting that the blocks were cut with, in bytes.
    pub block_size: u32,
    /// Codec of the blocks: 0 none, 1 LZ4. Blocks that it would not shrink are stored uncompressed.
    pub codec: u8,
}

/// The end that a recovery set for the log: everything after `end` in that segment is dead, and so are the segments
/// before `next_generation`, where the log continues if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct LogCut {
    pub(crate) generation: u32,
    /// Offset within that segment.
    pub(crate) end: u32,
    pub(crate) next_generation: u32,
    /// Sequences up to this one belong to records before the cut, or are skipped.
    pub(crate) seq: SeqNo,
}

impl LogCut {
    pub(crate) fn position(&self) -> Lsn {
        Lsn::new(self.generation, self.end)
    }
}
