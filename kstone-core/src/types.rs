//! The vocabulary of the engine: identifiers, positions in the log, versions of a key.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The number of a write. Strictly increasing over the life of a database, never reused; 0 is "none".
pub type SeqNo = u64;
/// The number in an SST's name. Never reused.
pub type FileId = u64;
/// The number of a run: the parts of one run share it.
pub type RunId = u64;

/// The most stripes a database can have, and the default.
pub const MAX_STRIPES: usize = 256;
/// The most bytes of a key, partition and sort key together.
pub(crate) const MAX_KEY_BYTES: usize = 64 << 10;
/// The most bytes of a batch: no record of the log has a longer payload.
pub(crate) const MAX_BATCH_BYTES: u64 = 1 << 30;
/// No sequence, file id or number of an edit is above it: a thousand years of a hundred million a second.
pub(crate) const MAX_NUMBER: u64 = 1 << 62;

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

/// Where a get found its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The memtable that is written to.
    #[default]
    Memtable,
    /// One that waits to be flushed.
    Sealed,
    /// An SST, or nowhere.
    Runs,
}

/// What the filters said in one look-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilterTally {
    pub(crate) negatives: u64,
    pub(crate) true_positives: u64,
    pub(crate) false_positives: u64,
    /// False positives that were to be expected, in billionths.
    pub(crate) expected: u64,
}

/// What a get looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetCost {
    /// Runs, also those whose filter said no.
    pub runs: u32,
    /// Blocks of SSTs.
    pub blocks: u32,
    /// Where it ended.
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
    /// What the manifest says beside this, in an item of its own; `None` when it does not.
    #[serde(skip)]
    pub details: Option<Arc<SstDetails>>,
}

/// What helps to decide about an SST but is not needed to read it: a manifest may lack it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SstDetails {
    /// Distinct keys; the entries beyond are older versions of the same keys.
    pub keys: u64,
    /// The lowest of the keys' hashes (upper 32 bits), at most 128, ascending and distinct: files are compared by it.
    pub sample: Vec<u32>,
    /// The setting that its filter was made with.
    pub bits_per_key: u32,
    /// The setting that its blocks were cut with, in bytes.
    pub block_size: u32,
    /// The codec of its blocks: 0 none, 1 LZ4. Blocks that it does not make smaller are stored without.
    pub codec: u8,
}

/// An end of the log by decree of a recovery: what follows `end` in that segment is dead, and so are the
/// segments up to `next_generation`, where the log goes on if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct LogCut {
    pub(crate) generation: u32,
    /// Offset in that segment.
    pub(crate) end: u32,
    pub(crate) next_generation: u32,
    /// Sequences up to here belong to what came before the cut, or are skipped.
    pub(crate) seq: SeqNo,
}

impl LogCut {
    pub(crate) fn position(&self) -> Lsn {
        Lsn::new(self.generation, self.end)
    }
}
