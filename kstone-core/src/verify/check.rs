//! Code shared by VERIFY and REPAIR: the names in a directory, its manifest, and keys in readable form.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{DatabaseConfig, ReadMode};
use crate::error::{Error, Result};
use crate::escape;
use crate::key::{Key, encoded_partition_hash};
use crate::manifest::{Loaded, Manifest};
use crate::memory::SystemMemory;
use crate::paths::{self, FileName};
use crate::record::{BadOp, OpRef, Ops};
use crate::sst::{SalvagedTable, TableContext};
use crate::types::{EntryKind, FileId, SeqNo, SstMeta};
use crate::verify::{Affected, ValueCheck};
use crate::vfs::{DirEntry, PathKind, Vfs};
use crate::wal::RecordRef;

/// The names in a database's directory, and its manifest.
pub(crate) struct Directory {
    pub(crate) dir: PathBuf,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) listing: Vec<DirEntry>,
    pub(crate) manifest: Result<Loaded>,
}

impl Directory {
    /// Reads the directory listing and the manifest.
    ///
    /// # Errors
    /// `NotFound`; `NotADatabase` if no file in it belongs to a database; `Io` for the directory.
    pub(crate) fn read(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<Self> {
        match vfs.kind(dir).map_err(Error::io("stat", dir))? {
            None => return Err(Error::NotFound { path: dir.into() }),
            Some(PathKind::Dir) => {}
            Some(_) => {
                return Err(Error::NotADatabase { path: dir.into(), detail: "it is not a directory".into() });
            }
        }
        let mut listing = vfs.list(dir).map_err(Error::io("list", dir))?;
        listing.sort_by(|a, b| a.name.cmp(&b.name));
        let ours = listing.iter().any(|entry| {
            matches!(paths::parse(&entry.name), FileName::Manifest | FileName::Sst { .. } | FileName::Log(_))
        });
        if !ours {
            return Err(Error::NotADatabase { path: dir.into(), detail: "it has no MANIFEST".into() });
        }
        let path = dir.join(paths::MANIFEST);
        let manifest = match vfs.kind(&path).map_err(Error::io("stat", &path))? {
            Some(PathKind::File) => Manifest::load(&**vfs, dir),
            Some(_) => Err(Error::corrupt(&path, 0, "it is not a regular file")),
            None => Err(Error::corrupt(&path, 0, "it is missing")),
        };
        Ok(Self { dir: dir.to_path_buf(), vfs: Arc::clone(vfs), listing, manifest })
    }

    /// The SSTs in the listing, with their stripe and number.
    pub(crate) fn ssts(&self) -> impl Iterator<Item = (&DirEntry, usize, FileId)> {
        self.listing.iter().filter_map(|entry| match paths::parse(&entry.name) {
            FileName::Sst { stripe, id } => Some((entry, stripe, id)),
            _ => None,
        })
    }

    pub(crate) fn entry(&self, path: &Path) -> Option<&DirEntry> {
        let name = path.file_name()?.to_str()?;
        self.listing.iter().find(|entry| entry.name == name)
    }
}

/// Why `check` rejects a value; `None` if it accepts it or there is none.
pub(crate) fn refused(check: Option<&ValueCheck>, kind: EntryKind, value: &[u8]) -> Option<String> {
    check.filter(|_| kind == EntryKind::Put)?(value).err()
}

/// A piece of a batch whose checksum matches.
pub(crate) enum BatchOp<'a> {
    /// An operation, with its sequence and the hash of its partition.
    Good(OpRef<'a>, SeqNo, u64),
    /// An operation whose value is not one that the database may hold.
    NoValue(OpRef<'a>, SeqNo, u64, String),
    /// An operation that decodes but exceeds the count in the record's header: it has no sequence.
    Surplus(OpRef<'a>),
    /// The operations with these sequences cannot be decoded.
    Unreadable(SeqNo, SeqNo, String),
}

/// Visits a whole batch as a replay would, continuing past anything that a replay rejects.
///
/// # Errors
/// `UnsupportedFormat` for an operation of a newer version; errors from `each`.
pub(crate) fn check_batch(
    dir: &Path,
    record: &RecordRef<'_>,
    values: Option<&ValueCheck>,
    mut each: impl FnMut(BatchOp<'_>) -> Result<()>,
) -> Result<()> {
    let last = record.first_seq.saturating_add(record.count.into()).saturating_sub(1);
    let mut seq = record.first_seq;
    for op in Ops::new(record.payload) {
        let op = match op {
            Ok(op) => op,
            Err(BadOp::Damaged) => break,
            Err(newer) => {
                return Err(newer.in_file(&log_file(dir, record), record.lsn.offset().into()));
            }
        };
        if seq > last {
            each(BatchOp::Surplus(op))?;
            continue;
        }
        let hash = encoded_partition_hash(op.key);
        each(match (hash, refused(values, op.kind, op.value)) {
            (None, _) => BatchOp::Unreadable(seq, seq, format!("\"{}\" is not a key", escape::key(op.key))),
            (Some(hash), Some(why)) => BatchOp::NoValue(op, seq, hash, why),
            (Some(hash), None) => BatchOp::Good(op, seq, hash),
        })?;
        seq = seq.saturating_add(1);
    }
    if seq <= last {
        let held = seq.saturating_sub(record.first_seq);
        let why = format!("the record claims {} operations, and {held} can be decoded", record.count);
        each(BatchOp::Unreadable(seq, last, why))?;
    }
    Ok(())
}

/// The segment that contains a record.
pub(crate) fn log_file(dir: &Path, record: &RecordRef<'_>) -> PathBuf {
    paths::log(dir, record.lsn.generation())
}

/// Tables of that directory, read with `pread`: a file that shrinks or rots is an error and never a signal.
pub(crate) fn context(vfs: &Arc<dyn Vfs>, dir: &Path) -> Arc<TableContext> {
    let config = DatabaseConfig::new().with_read_mode(ReadMode::Pread).with_block_cache_bytes(1 << 20);
    TableContext::new(Arc::clone(vfs), dir, &config, Arc::new(SystemMemory))
}

/// The key that these bytes encode, or whose encoding they start.
pub(crate) fn readable(encoded: &[u8]) -> Key<'static> {
    let decode = |bytes: &[u8]| Key::decode(bytes).map(Key::into_owned);
    let whole = |tail: &[u8]| decode(&[encoded, tail].concat());
    let cut = || decode(&[encoded.strip_suffix(&[0])?, &[0, 0]].concat());
    whole(&[]).or_else(|| whole(&[0, 0])).or_else(cut).unwrap_or_else(|| Key::new(encoded.to_vec()))
}

/// The keys lost with a damaged block. `elsewhere` is left to the caller.
pub(crate) fn affected(salvaged: &SalvagedTable, block: usize) -> Affected {
    let (from, to) = salvaged.bounds(block);
    let bad = salvaged.blocks.iter().filter(|place| !place.good).count();
    let keys = salvaged.keys_in(block);
    let numbered = salvaged.blocks.get(block).is_some_and(|place| place.number.is_some());
    let rest = || {
        let good: u64 = (0..salvaged.blocks.len()).map(|n| salvaged.entries(n).len() as u64).sum();
        salvaged.meta.entries.saturating_sub(good)
    };
    let most = (crate::sst_block::GROUP_LEN * crate::sst_block::MAX_GROUPS) as u64;
    Affected {
        from: from.filter(|key| !key.is_empty()).map(|key| readable(&key)),
        to: to.map(|key| readable(&key)),
        entries: if bad == 1 || !numbered { rest() } else { most.min(rest()) },
        keys,
        named: salvaged.names_in(block).iter().map(|key| readable(key)).collect(),
        elsewhere: 0,
    }
}

/// The keys lost with a whole file.
pub(crate) fn affected_by_all(meta: &SstMeta) -> Affected {
    Affected {
        from: Some(readable(&meta.keys.0)),
        to: Some(readable(&meta.keys.1)),
        entries: meta.entries,
        keys: meta.details.as_ref().map(|details| details.keys),
        named: Vec::new(),
        elsewhere: 0,
    }
}
