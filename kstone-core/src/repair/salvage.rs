//! What can be read of a damaged SST, and whether there is a place for it.

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

/// A version that was read and cannot be kept.
#[derive(Clone, Debug)]
pub(super) struct Dropped {
    pub(super) key: Vec<u8>,
    pub(super) seq: SeqNo,
    pub(super) kind: EntryKind,
    pub(super) file: PathBuf,
}

/// The entries of a file, each in one of three places.
#[derive(Default)]
pub(super) struct FileEntries {
    /// Those of its own stripe.
    pub(super) own: Versions,
    /// Those of others, with the hash of their partition.
    pub(super) strays: Vec<(u64, OwnedEntry)>,
    /// Those that are none: no key, no value, or a sequence that its run cannot have.
    pub(super) dropped: Vec<Dropped>,
    /// Every block could be read.
    pub(super) whole: bool,
    /// Entries in the blocks that could not be read, at most, by how long these are.
    pub(super) room: u64,
}

impl FileEntries {
    /// Entries that were read.
    pub(super) fn found(&self) -> u64 {
        (self.own.len() + self.strays.len() + self.dropped.len()) as u64
    }

    /// Tombstones among them.
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

/// The most entries that fit into that many bytes: none takes less than its head.
pub(super) fn most_entries(len: usize) -> u64 {
    (len / 6) as u64
}
