//! INSPECT: looks into the files of a database directory, one by one and without opening the database. Nothing is
//! locked or changed.
//!
//! A file may come from anywhere: it may be damaged, cut short, or no file of a database at all. What cannot be read is
//! an error that names the offset. Only regular files are opened. Memory is bounded by the longest record or edit, by
//! the sections of an SST, and for [`SstFile::check`] by its length.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::cursor::Cursor as _;
use crate::error::{Error, Result};
use crate::file_header::FORMAT_VERSION;
use crate::key::{KEY_ENCODING, KeyRange, encoded_partition_hash, stripe_of};
use crate::manifest::{Change, Manifest, each_edit};
use crate::paths::{self, FileName};
use crate::record::Ops;
use crate::sst::{Part, SalvagedTable, Table};
use crate::types::Direction;
use crate::verify::check::{self, Directory};
use crate::vfs::{DiskVfs, Vfs};
use crate::wal::{self, Piece};

pub use crate::types::{EntryKind, EntryRef, Lsn, SeqNo, SstMeta};

/// How often the files of a changing directory are listed before the last listing is taken as it is.
const ATTEMPTS: usize = 5;

/// Longer SSTs are checked up to their first fault only, which takes little memory. None is written that long.
const MOST_SALVAGED: u64 = 4 << 30;

/// The version of the file formats that this version reads and writes.
pub const FILE_FORMAT: u16 = FORMAT_VERSION;
/// The version of the encoding of keys.
pub const KEY_FORMAT: u32 = KEY_ENCODING;

/// The stripe of an encoded key in a database with this many stripes; `None` if it is no key.
pub fn stripe_of_key(encoded: &[u8], stripes: usize) -> Option<usize> {
    Some(stripe_of(encoded_partition_hash(encoded)?, stripes))
}

fn disk() -> Arc<dyn Vfs> {
    Arc::new(DiskVfs::new())
}

/// An SST, described by its own contents.
#[derive(Debug)]
pub struct SstFile {
    vfs: Arc<dyn Vfs>,
    table: Arc<Table>,
}

/// The sizes of an SST's parts, and the properties of its filter.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct SstSections {
    /// Data blocks.
    pub blocks: usize,
    /// Bytes of these.
    pub block_bytes: u64,
    /// Bytes of the hash index.
    pub index_bytes: u64,
    /// Bytes of the fences.
    pub fence_bytes: u64,
    /// Bytes of the filter.
    pub filter_bytes: u64,
    /// Bits of the filter per key, including the rounding up to whole lines.
    pub bits_per_key: f64,
    /// Bits that each key sets.
    pub probes: u8,
    /// Distinct keys in the filter.
    pub filter_keys: u64,
    /// The share of the filter's bits that are set.
    pub filter_fill: f64,
    /// Predicted rate of false positives.
    pub false_positives: f64,
}

/// A fault of an SST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SstFault {
    /// The damaged part, such as `block 21` or `filter`.
    pub part: String,
    /// Its offset in the file.
    pub offset: u64,
    /// Its length; 0 if unknown.
    pub len: u64,
    /// What was expected, and what was found.
    pub detail: String,
}

impl SstFile {
    /// Opens an SST on disk. Its header, footer and properties are checked; its other parts when they are read.
    ///
    /// # Errors
    /// `Corruption` if these are damaged, or the file is no SST; `UnsupportedFormat`; `Io`.
    pub fn open(path: &Path) -> Result<Self> {
        let vfs = disk();
        let dir = path.parent().unwrap_or(path);
        let table = Table::alone(&check::context(&vfs, dir), path)?;
        Ok(Self { vfs, table: Arc::new(table) })
    }

    /// Its description. The number of parts of its run is not in the file, and 1 here.
    pub fn meta(&self) -> &SstMeta {
        self.table.meta()
    }

    /// Reads and checks its sections.
    pub fn sections(&self) -> Result<SstSections> {
        let frame = self.table.frame_sizes()?;
        Ok(SstSections {
            blocks: frame.blocks,
            block_bytes: frame.block_bytes,
            index_bytes: frame.index_bytes,
            fence_bytes: frame.fence_bytes,
            filter_bytes: frame.filter_bytes,
            bits_per_key: frame.bits_per_key,
            probes: frame.probes,
            filter_keys: frame.filter_keys,
            filter_fill: frame.filter_fill,
            false_positives: frame.false_positives,
        })
    }

    /// Passes its entries to `each`, in order.
    ///
    /// # Errors
    /// `Corruption` at the first damaged block, after the entries before it.
    pub fn for_each(&self, each: &mut dyn FnMut(EntryRef<'_>) -> ControlFlow<()>) -> Result<()> {
        let mut cursor = self.table.iter(&KeyRange::all(), Direction::Forward)?;
        while let Some(entry) = cursor.entry() {
            if each(entry).is_break() {
                break;
            }
            cursor.advance()?;
        }
        Ok(())
    }

    /// Checks every part and every entry, and does not stop at the first fault. Reads the whole file into memory.
    pub fn check(&self) -> Result<Vec<SstFault>> {
        let faults = if self.meta().len <= MOST_SALVAGED { self.faults()? } else { Vec::new() };
        if !faults.is_empty() {
            return Ok(faults);
        }
        match self.table.verify_in(None) {
            Ok(()) => Ok(faults),
            Err(Error::Corruption { offset, detail, .. }) => {
                Ok(vec![SstFault { part: "entries".into(), offset, len: 0, detail }])
            }
            Err(error) => Err(error),
        }
    }

    /// The faults of each part on its own.
    fn faults(&self) -> Result<Vec<SstFault>> {
        let salvaged = SalvagedTable::read(&*self.vfs, self.table.path(), self.meta())?;
        let faults = salvaged.faults.iter().map(|fault| SstFault {
            part: match fault.part {
                Part::Block(n) => format!("block {n}"),
                Part::Section(name) => name.to_owned(),
                Part::Header | Part::Identity => "header".into(),
                Part::Frame => "footer".into(),
                Part::Length | Part::Unreadable | Part::Whole => "file".into(),
            },
            offset: fault.offset,
            len: fault.len,
            detail: fault.detail.clone(),
        });
        Ok(faults.collect())
    }
}

/// The kind of a log record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogRecordKind {
    /// Puts and deletes.
    Batch,
    /// Only says how far the log was durable.
    Watermark,
    /// Fills space.
    Pad,
    /// Names the segment before.
    Link,
}

/// A record of the log whose checksums match.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LogRecord<'a> {
    /// Its offset in the segment.
    pub offset: u64,
    /// Its length, with header and padding.
    pub len: u64,
    /// Its kind.
    pub kind: LogRecordKind,
    /// The sequence of its first operation.
    pub first_seq: SeqNo,
    /// The number of operations.
    pub count: u32,
    /// When it was written, in seconds since the Unix epoch.
    pub time: u32,
    /// The log was durable up to here before it was written.
    pub durable: Lsn,
    payload: &'a [u8],
}

/// An operation of a batch.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LogOperation<'a> {
    /// Its sequence.
    pub seq: SeqNo,
    /// Put or delete.
    pub kind: EntryKind,
    /// The encoded key.
    pub key: &'a [u8],
    /// The value; empty for a delete.
    pub value: &'a [u8],
}

impl<'a> LogRecord<'a> {
    /// The operations of a batch; `None` in place of the first that cannot be decoded, and then no more. Other records
    /// have none.
    pub fn operations(&self) -> impl Iterator<Item = Option<LogOperation<'a>>> + use<'a> {
        let payload = if self.kind == LogRecordKind::Batch { self.payload } else { &[] };
        let first = self.first_seq;
        let seqs = (0..).map(move |n| first.saturating_add(n));
        Ops::new(payload).zip(seqs).map(|(op, seq)| {
            let op = op.ok()?;
            Some(LogOperation { seq, kind: op.kind, key: op.key, value: op.value })
        })
    }
}

/// A record of a segment, or bytes that hold none.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum LogPiece<'a> {
    /// A record.
    Record(LogRecord<'a>),
    /// Bytes that cannot be read, up to the next record or the end of the file.
    Hole {
        /// Their offset in the segment.
        offset: u64,
        /// Their number.
        len: u64,
    },
}

/// Unreadable bytes in a log segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogHole {
    /// Their offset in the segment.
    pub offset: u64,
    /// Their number.
    pub len: u64,
    /// Whether they were durable, so that data is lost. Otherwise they are what a crash left of writes that were never
    /// durable.
    pub damage: bool,
}

/// A log segment.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct LogSegment {
    /// Its generation; `None` if it was reserved and never used.
    pub generation: Option<u32>,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// The number of the last manifest edit that was durable then.
    pub last_edit: u64,
    /// Length of the file, including space reserved ahead.
    pub len: u64,
    /// The end of the last record that was read.
    pub end: u64,
    /// Whether the segment was read to its end.
    pub complete: bool,
    /// What cannot be read. Only a segment that was read to its end tells damage from a write cut off by a crash.
    pub holes: Vec<LogHole>,
    /// Further holes.
    pub more_holes: u64,
}

/// Passes the records of the log segment at `path` to `each`, in order, with those that are still in the log buffer
/// beside it. Continues after damage.
///
/// # Errors
/// `Corruption` if both copies of its header are damaged, or the file is no segment; `UnsupportedFormat`; `Io`.
pub fn read_log(path: &Path, each: &mut dyn FnMut(LogPiece<'_>) -> ControlFlow<()>) -> Result<LogSegment> {
    let walk = wal::walk_alone(&*disk(), path, &mut |_, piece| {
        each(match piece {
            Piece::Hole { offset, len } => LogPiece::Hole { offset, len },
            Piece::Record { header, end, payload } => {
                let offset = header.lsn.offset();
                LogPiece::Record(LogRecord {
                    offset: offset.into(),
                    len: end.saturating_sub(offset).into(),
                    kind: match header.kind {
                        wal::format::BATCH => LogRecordKind::Batch,
                        wal::format::WATERMARK => LogRecordKind::Watermark,
                        wal::format::LINK => LogRecordKind::Link,
                        _ => LogRecordKind::Pad,
                    },
                    first_seq: header.first_seq,
                    count: header.count,
                    time: header.time,
                    durable: header.watermark,
                    payload,
                })
            }
        })
    })?;
    let Some(header) = walk.header else {
        return Ok(LogSegment { len: walk.len, complete: walk.complete, ..LogSegment::default() });
    };
    let is_durable = |offset: u64| Lsn(u64::from(header.generation) << 32 | offset) < walk.durable;
    let holes = walk.holes.iter().map(|&(offset, len)| LogHole { offset, len, damage: is_durable(offset) });
    Ok(LogSegment {
        generation: Some(header.generation),
        created_ms: header.created_ms,
        last_edit: header.last_edit,
        len: walk.len,
        end: walk.end,
        complete: walk.complete,
        holes: holes.collect(),
        more_holes: walk.more_holes,
    })
}

/// The value of a field of a manifest item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Field {
    /// A number.
    Number(u64),
    /// Text.
    Text(String),
    /// An encoded key.
    Key(#[serde(serialize_with = "escaped")] Vec<u8>),
}

fn escaped<S: serde::Serializer>(key: &[u8], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(&check::readable(key))
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::Key(key) => write!(f, "\"{}\"", check::readable(key)),
        }
    }
}

/// A change that an edit of the manifest makes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestItem {
    /// The number of the edit.
    pub edit: u64,
    /// The offset of the edit in the file.
    pub offset: u64,
    /// The kind of change, as a word.
    pub kind: &'static str,
    /// Its fields, by name.
    pub fields: Vec<(String, Field)>,
}

/// The end of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestEnd {
    /// The end of the last edit that was read.
    pub offset: u64,
    /// Whether an edit follows that was cut short by a crash; it was never reported as made.
    pub torn: bool,
}

/// Passes the changes of the manifest in `dir` to `each`, in order.
///
/// # Errors
/// `Corruption` at the first damaged edit, after the changes before it; `UnsupportedFormat`; `Io`.
pub fn read_manifest(
    dir: &Path,
    each: &mut dyn FnMut(ManifestItem) -> ControlFlow<()>,
) -> Result<ManifestEnd> {
    let (offset, torn) = each_edit(&*disk(), dir, &mut |edit, offset, change| {
        let (kind, fields) = described(change);
        each(ManifestItem { edit, offset, kind, fields })
    })?;
    Ok(ManifestEnd { offset, torn })
}

/// The number of stripes of the database in `dir`, from the start of its manifest.
pub fn stripe_count(dir: &Path) -> Result<usize> {
    let mut first = None;
    each_edit(&*disk(), dir, &mut |_, _, change| {
        first = Some(change);
        ControlFlow::Break(())
    })?;
    let path = manifest_path(dir);
    let Some(Change::Facts(facts)) = first else {
        return Err(Error::corrupt(&path, 0, "it does not start with the facts of the database"));
    };
    facts.check_supported(&path)?;
    Ok(facts.stripes())
}

fn manifest_path(dir: &Path) -> PathBuf {
    dir.join(paths::MANIFEST)
}

fn described(change: Change) -> (&'static str, Vec<(String, Field)>) {
    let number = |name: &str, n: u64| (name.to_owned(), Field::Number(n));
    let lsn = |name: &str, lsn: Lsn| (name.to_owned(), Field::Text(lsn.to_string()));
    match change {
        Change::Facts(facts) => (
            "facts",
            vec![
                number("stripes", facts.stripes() as u64),
                number("key_encoding", facts.key_encoding.into()),
                number("created_ms", facts.created_ms),
            ],
        ),
        Change::Keyspace { id, name } => {
            ("keyspace", vec![number("id", id.into()), ("name".into(), Field::Text(name))])
        }
        Change::AddSst(meta) => (
            "add_sst",
            vec![
                ("file".into(), Field::Text(sst_name(&meta))),
                number("run", meta.run),
                number("part", meta.part.into()),
                number("parts", meta.parts.into()),
                number("depth", meta.depth.into()),
                number("entries", meta.entries),
                number("tombstones", meta.tombstones),
                number("bytes", meta.len),
                number("first_seq", meta.seq.0),
                number("last_seq", meta.seq.1),
                ("first_key".into(), Field::Key(meta.keys.0.clone())),
                ("last_key".into(), Field::Key(meta.keys.1.clone())),
            ],
        ),
        Change::SstDetails(id, details) => (
            "sst_details",
            vec![
                number("id", id),
                number("keys", details.keys),
                number("bits_per_key", details.bits_per_key.into()),
                number("block_size", details.block_size.into()),
                number("codec", details.codec.into()),
            ],
        ),
        Change::RemoveSst(id) => ("remove_sst", vec![number("id", id)]),
        Change::FlushedTo(list) => {
            let named = list.into_iter().map(|(stripe, _, seq)| number(&format!("{stripe:03}"), seq));
            ("flushed_to", named.collect())
        }
        Change::LogStart { start, durable } => {
            ("log_start", vec![lsn("start", start), lsn("durable", durable)])
        }
        Change::Cut(cut) => (
            "log_cut",
            vec![
                lsn("end", cut.position()),
                number("next_generation", cut.next_generation.into()),
                number("last_seq", cut.seq),
            ],
        ),
        Change::CleanEnd(end) => {
            let mut fields: Vec<_> = end.end.map(|end| lsn("end", end)).into_iter().collect();
            fields.push(number("next_seq", end.next_seq));
            fields.push(number("next_generation", end.next_generation.into()));
            fields.push(number("next_file", end.next_file));
            ("clean_end", fields)
        }
        Change::Opened => ("opened", Vec::new()),
        Change::Reserve { files_below } => ("reserve", vec![number("files_below", files_below)]),
        Change::Settings(settings) => {
            ("settings", settings.iter().map(|(name, value)| number(name, *value)).collect())
        }
    }
}

/// The name of an SST.
pub fn sst_name(meta: &SstMeta) -> String {
    let path = paths::sst(Path::new(""), meta.stripe.into(), meta.id);
    path.to_string_lossy().into_owned()
}

/// What a file in a database directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileRole {
    /// The manifest.
    Manifest,
    /// A manifest being written, or left over by a crash.
    ManifestTemporary,
    /// The lock.
    Lock,
    /// An SST that the manifest lists.
    Sst,
    /// An SST that the manifest does not list: merged away, not listed yet, or left over by a crash.
    SstObsolete,
    /// An SST that the manifest lists, but that is not there.
    SstMissing,
    /// An SST that a repair has written.
    SstRepaired,
    /// A log segment.
    Log,
    /// A log segment that is no longer needed.
    LogObsolete,
    /// The log buffer.
    LogBuffer,
    /// Events, for people.
    Events,
    /// Counters, for people.
    Stats,
    /// Originals that a repair has replaced.
    Quarantine,
    /// The mark of an unfinished backup.
    Unfinished,
    /// Not a file of the database.
    Foreign,
}

impl FileRole {
    /// A stable word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::ManifestTemporary => "manifest_temporary",
            Self::Lock => "lock",
            Self::Sst => "sst",
            Self::SstObsolete => "sst_obsolete",
            Self::SstMissing => "sst_missing",
            Self::SstRepaired => "sst_repaired",
            Self::Log => "log",
            Self::LogObsolete => "log_obsolete",
            Self::LogBuffer => "log_buffer",
            Self::Events => "events",
            Self::Stats => "stats",
            Self::Quarantine => "quarantine",
            Self::Unfinished => "unfinished",
            Self::Foreign => "foreign",
        }
    }
}

/// A file of a database directory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DirectoryFile {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: FileRole,
    /// Its length in bytes.
    pub len: u64,
    /// The stripe of an SST.
    pub stripe: Option<usize>,
    /// What the manifest says about an SST that it lists.
    pub sst: Option<Arc<SstMeta>>,
}

/// The files of a database directory.
#[derive(Debug)]
#[non_exhaustive]
pub struct DirectoryFiles {
    /// In order of their names.
    pub files: Vec<DirectoryFile>,
    /// Why the manifest cannot be read: which files are live is then unknown, and none counts as obsolete.
    pub manifest: Option<Error>,
}

/// Lists the files of a database directory, and what they are. Reads the manifest, and no other file.
///
/// # Errors
/// `NotFound`, `NotADatabase`, and `Io` for the directory itself.
pub fn files(dir: &Path) -> Result<DirectoryFiles> {
    let vfs = disk();
    for _ in 1..ATTEMPTS {
        let found = Directory::read(&vfs, dir)?;
        // Listed in between two edits, a live directory looks as if files were missing.
        let edit = |manifest: &Result<_>| {
            manifest.as_ref().ok().map(|loaded: &crate::manifest::Loaded| loaded.state.edit)
        };
        if edit(&found.manifest) == edit(&Manifest::load(&*vfs, dir)) {
            return Ok(roles(found));
        }
    }
    Ok(roles(Directory::read(&vfs, dir)?))
}

fn roles(found: Directory) -> DirectoryFiles {
    let (state, manifest) = match found.manifest {
        Ok(loaded) => (Some(loaded.state), None),
        Err(error) => (None, Some(error)),
    };
    let mut present = BTreeSet::new();
    let mut files: Vec<_> = found
        .listing
        .into_iter()
        .map(|entry| {
            let (mut stripe, mut sst) = (None, None);
            let role = match paths::parse(&entry.name) {
                _ if !entry.is_file && entry.name != paths::QUARANTINE => FileRole::Foreign,
                FileName::Manifest => FileRole::Manifest,
                FileName::ManifestTmp => FileRole::ManifestTemporary,
                FileName::Lock => FileRole::Lock,
                FileName::Unfinished => FileRole::Unfinished,
                FileName::Events => FileRole::Events,
                FileName::Stats => FileRole::Stats,
                FileName::LogBuffer => FileRole::LogBuffer,
                FileName::Quarantine => FileRole::Quarantine,
                FileName::Foreign => FileRole::Foreign,
                FileName::Repairing { stripe: of, .. } => {
                    stripe = Some(of);
                    FileRole::SstRepaired
                }
                FileName::Log(generation) => match &state {
                    Some(state) if generation < state.log_start.generation() => FileRole::LogObsolete,
                    _ => FileRole::Log,
                },
                FileName::Sst { stripe: of, id } => {
                    stripe = Some(of);
                    let listed = state.as_ref().map(|state| state.ssts.get(&id));
                    sst = listed.flatten().filter(|meta| usize::from(meta.stripe) == of).cloned();
                    if sst.is_some() {
                        present.insert(id);
                    }
                    if listed.is_some() && sst.is_none() { FileRole::SstObsolete } else { FileRole::Sst }
                }
            };
            DirectoryFile { name: entry.name, role, len: entry.len, stripe, sst }
        })
        .collect();
    let listed = state.iter().flat_map(|state| state.ssts.values());
    files.extend(listed.filter(|meta| !present.contains(&meta.id)).map(|meta| DirectoryFile {
        name: sst_name(meta),
        role: FileRole::SstMissing,
        len: 0,
        stripe: Some(meta.stripe.into()),
        sst: Some(Arc::clone(meta)),
    }));
    files.sort_by(|a, b| a.name.cmp(&b.name));
    DirectoryFiles { files, manifest }
}
