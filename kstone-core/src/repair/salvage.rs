//! The readable contents of a damaged SST, and which of them have a place in the repaired database.

use std::cmp::Reverse;
use std::path::PathBuf;

use super::Versions;
use super::examine::Candidate;
use crate::error::Result;
use crate::key::{encoded_partition_hash, stripe_of};
use crate::sst::SalvagedTable;
use crate::types::{EntryKind, SeqNo};
use crate::verify::ValueCheck;
use crate::verify::check::refused;
use crate::vfs::Vfs;

/// Key, sequence, kind and value.
pub(super) type OwnedEntry = (Vec<u8>, SeqNo, EntryKind, Vec<u8>);

/// A version that was read but cannot be kept.
#[derive(Clone, Debug)]
pub(super) struct Dropped {
    pub(super) key: Vec<u8>,
    pub(super) seq: SeqNo,
    pub(super) kind: EntryKind,
    pub(super) file: PathBuf,
}

/// The entries of a file, each in one of three groups.
#[derive(Default)]
pub(super) struct FileEntries {
    /// Entries of the file's own stripe.
    pub(super) own: Versions,
    /// Entries of other stripes, with the hash of their partition.
    pub(super) strays: Vec<(u64, OwnedEntry)>,
    /// Unusable entries: an invalid key, a rejected value, or a sequence that the run cannot contain.
    pub(super) dropped: Vec<Dropped>,
    /// Every block could be read.
    pub(super) whole: bool,
    /// Maximum number of entries in the unreadable blocks, judging by their length.
    pub(super) room: u64,
}

impl FileEntries {
    /// Number of entries that were read.
    pub(super) fn found(&self) -> u64 {
        (self.own.len() + self.strays.len() + self.dropped.len()) as u64
    }

    /// Number of tombstones among these.
    pub(super) fn deletes(&self) -> u64 {
        let own = self.own.values().map(|(kind, _)| *kind);
        let strays = self.strays.iter().map(|(_, (_, _, kind, _))| *kind);
        let all = own.chain(strays).chain(self.dropped.iter().map(|dropped| dropped.kind));
        all.filter(|kind| *kind == EntryKind::Delete).count() as u64
    }
}

pub(super) fn salvage(
    vfs: &dyn Vfs,
    stripes: usize,
    values: Option<&ValueCheck>,
    part: &Candidate,
) -> Result<FileEntries> {
    let mut entries = FileEntries::default();
    let Some(path) = &part.path else { return Ok(entries) };
    let table = SalvagedTable::read(vfs, path, &part.meta)?;
    let (low, high) = part.meta.run_seq;
    entries.whole = table.has_entries() && table.blocks.iter().all(|place| place.good);
    entries.room =
        table.blocks.iter().filter(|place| !place.good).map(|place| most_entries(place.at.len())).sum();
    for entry in (0..table.blocks.len()).flat_map(|n| table.entries(n)) {
        let usable = (low..=high).contains(&entry.seq) && refused(values, entry.kind, &entry.value).is_none();
        match encoded_partition_hash(&entry.key).filter(|_| usable) {
            Some(hash) if stripe_of(hash, stripes) == usize::from(part.meta.stripe) => {
                entries.own.insert((entry.key, Reverse(entry.seq)), (entry.kind, entry.value));
            }
            Some(hash) => entries.strays.push((hash, (entry.key, entry.seq, entry.kind, entry.value))),
            None => {
                let (key, seq, kind, file) = (entry.key, entry.seq, entry.kind, path.clone());
                entries.dropped.push(Dropped { key, seq, kind, file });
            }
        }
    }
    Ok(entries)
}

/// The most entries that fit into that many bytes: none takes less than its header.
pub(super) fn most_entries(len: usize) -> u64 {
    (len / 6) as u64
}
