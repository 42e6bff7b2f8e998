//! Internal operations for the benchmarks of `kstone-bench`: a filter, a memtable, the log, runs and their merge, each
//! with only the calls that a benchmark needs. Not part of the library: behind the feature `bench-internals`, which
//! only the benchmarks enable.
//!
//! The engine's work around these operations (stripe locks, the manifest, syncs) is left out.

use std::path::Path;
use std::sync::Arc;

use crate::bloom;
use crate::clock::SystemClock;
use crate::config::DatabaseConfig;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::{Key, KeyRange, key_hash};
use crate::memory::SystemMemory;
use crate::merge::MergeCursor;
use crate::sst::{SstParams, SstWriter, Table, TableContext, Unsynced};
use crate::types::{Direction, EntryKind, EntryRef, Lsn, SeqNo, SstMeta};
use crate::vfs::{DiskVfs, Floor, Vfs};
use crate::wal::{LogLimits, Route, Wal, WalContext, WalStart};

const DATABASE: [u8; 16] = [1; 16];
const INCARNATION: [u8; 16] = [2; 16];

/// A version of a key, as kept in a memtable and a run.
#[derive(Clone, Debug)]
pub struct Record {
    key: Vec<u8>,
    seq: SeqNo,
    value: Vec<u8>,
}

impl Record {
    /// A put with a partition key and no sort key. The encoded key and the value take `len` bytes together.
    ///
    /// # Errors
    ///
    /// `InvalidKey` if the key is empty, `KeyTooLarge` if it alone is longer than `len`.
    pub fn new(key: &str, seq: SeqNo, len: usize) -> Result<Self> {
        let key = Key::from(key).encode(len)?.bytes.to_vec();
        let value = (0..len.saturating_sub(key.len())).map(|n| (n as u64 ^ seq) as u8).collect();
        Ok(Self { key, seq, value })
    }

    /// The encoded key, by which records are ordered.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The hash of the key, from which filters are built.
    pub fn hash(&self) -> u64 {
        key_hash(&self.key)
    }

    fn entry(&self) -> EntryRef<'_> {
        EntryRef { key: &self.key, seq: self.seq, kind: EntryKind::Put, value: &self.value }
    }
}

/// The filter of a run.
#[derive(Debug)]
pub struct Filter {
    section: Vec<u8>,
    filter: bloom::Filter,
}

impl Filter {
    /// A filter for the keys with these hashes.
    pub fn new(hashes: &[u64], bits_per_key: u32) -> Self {
        let section = bloom::build(hashes, bits_per_key);
        let filter = bloom::Filter::parse(&section).expect("the section that was just made");
        Self { section, filter }
    }

    /// Whether the key with this hash may be in the run.
    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(&self.section, hash)
    }
}

/// A memtable without its stripe.
#[derive(Debug)]
pub struct Memtable(crate::memtable::Memtable);

impl Memtable {
    /// An empty memtable.
    #[expect(clippy::new_without_default, reason = "no caller needs one")]
    pub fn new() -> Self {
        Self(crate::memtable::Memtable::new(&Arc::default()))
    }

    /// Inserts a version.
    pub fn insert(&self, record: &Record) {
        let entry = record.entry();
        let inserted = self.0.insert(Lsn::new(1, record.seq as u32), key_hash(entry.key), entry);
        debug_assert!(inserted.is_some(), "a memtable for a benchmark is full");
    }

    /// Number of versions, and the bytes of their keys and values.
    pub fn contents(&self) -> (usize, usize) {
        (self.0.len(), self.0.data_bytes())
    }
}

/// A log with one segment, on disk.
#[derive(Debug)]
pub struct Log(Wal);

impl Log {
    /// Creates the log in an empty directory, with space for `bytes` of records allocated, and appends a first record
    /// of one byte: the segment's header is then durable, and the one-time work of a first record is done.
    ///
    /// # Errors
    ///
    /// `Io` and `DiskFull`, from the disk.
    pub fn create(dir: &Path, bytes: usize) -> Result<Self> {
        let context = WalContext {
            vfs: Arc::new(DiskVfs::new()),
            dir: dir.to_path_buf(),
            clock: Arc::new(SystemClock::new()),
            database_id: DATABASE,
            incarnation: INCARNATION,
            health: Arc::default(),
            latencies: Arc::default(),
            meter: Arc::default(),
        };
        let start = WalStart {
            next_generation: 1,
            next_seq: 1,
            end: Lsn::ZERO,
            resume: false,
            segments: Vec::new(),
            last_edit: 0,
        };
        let log = Self(Wal::new(context, start));
        log.0.set_limits(LogLimits {
            segment_size: 2 * bytes as u64,
            limit: u64::MAX,
            oversized: u64::MAX,
            write_buffer: DatabaseConfig::default().write_buffer_size as u64,
            buffer: DatabaseConfig::default().wal_buffer_size as u64,
        });
        drop(log.0.try_reserve(bytes, Floor::NONE)?);
        log.append(&[0])?;
        Ok(log)
    }

    /// Appends a record; afterwards it is in the page cache, not synced.
    ///
    /// # Errors
    ///
    /// `Io` and `DiskFull`, from the disk.
    pub fn append(&self, record: &[u8]) -> Result<()> {
        let reservation = self.0.try_reserve(record.len(), Floor::NONE)?;
        self.0.append(reservation.expect("a log without a limit"), 1, record, Route::Buffered, |_| ())?;
        Ok(())
    }

    /// Number of records written, and their bytes.
    pub fn written(&self) -> (u64, u64) {
        let writes = self.0.writes();
        (writes.records, writes.bytes)
    }

    /// Number of segments, including one prepared ahead.
    pub fn segments(&self) -> usize {
        self.0.segment_count()
    }
}

/// A run of one file, written but not synced.
#[derive(Debug)]
pub struct Written {
    meta: SstMeta,
    _unsynced: Unsynced,
}

impl Written {
    /// Writes file `id` into a directory, uncompressed, as a flush with the default settings does. The records are
    /// ordered by key, without duplicates.
    ///
    /// # Errors
    ///
    /// `Io` from the disk, if the file exists, or if the records are out of order.
    pub fn new(dir: &Path, id: u64, records: &[Record]) -> Result<Self> {
        let vfs: Arc<dyn Vfs> = Arc::new(DiskVfs::new());
        let config = DatabaseConfig::default();
        let key = |record: Option<&Record>| record.map(|record| record.key.clone()).unwrap_or_default();
        let seqs = records.iter().map(|record| record.seq);
        let params = SstParams {
            id,
            stripe: 0,
            keyspace: 0,
            run: id,
            part: 0,
            depth: 0,
            run_seq: (seqs.clone().min().unwrap_or(0), seqs.max().unwrap_or(0)),
            key_bounds: (key(records.first()), key(records.last())),
            block_size: config.block_size,
            bits_per_key: config.bloom_bits_per_key as u32,
            compress: false,
            pad: true,
            write_unit: config.write_buffer_size,
            database_id: DATABASE,
            incarnation: INCARNATION,
            created_ms: 1_000,
        };
        let mut writer = SstWriter::create(&vfs, dir, params)?;
        for record in records {
            writer.add(record.entry(), None)?;
        }
        let (meta, unsynced) = writer.finish()?;
        Ok(Self { meta, _unsynced: unsynced })
    }

    /// Number of entries, and the length of the file in bytes.
    pub fn contents(&self) -> (u64, u64) {
        (self.meta.entries, self.meta.len)
    }

    /// Opens the file for reading.
    ///
    /// # Errors
    ///
    /// `Corruption` if the file is not as it was written.
    pub fn open(&self, dir: &Path) -> Result<Run> {
        let (vfs, memory) = (Arc::new(DiskVfs::new()), Arc::new(SystemMemory));
        let context = TableContext::new(vfs, dir, &DatabaseConfig::default(), memory);
        let table = Table::new(&context, self.meta.clone().into());
        table.verify()?;
        Ok(Run(Arc::new(table)))
    }
}

/// A run read through a mapping.
#[derive(Debug)]
pub struct Run(Arc<Table>);

/// Visits all entries of several runs, by key and newest version first, as a compaction reads them.
///
/// # Errors
///
/// `Io` and `Corruption` from the files.
pub fn merge(runs: &[Run], mut visit: impl FnMut(EntryRef<'_>)) -> Result<()> {
    let cursor = |run: &Run| run.0.iter(&KeyRange::all(), Direction::Forward);
    let mut merge = MergeCursor::new(runs.iter().map(cursor).collect::<Result<_>>()?, Direction::Forward);
    while let Some(entry) = merge.entry() {
        visit(entry);
        merge.advance()?;
    }
    Ok(())
}
