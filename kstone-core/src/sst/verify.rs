//! Reads a whole SST and checks it for consistency, with itself and with the manifest.

use super::blocks::{BlockData, CacheFill};
use super::index;
use super::open::OpenTable;
use super::read_ahead::{MOST_AHEAD, ReadAhead};
use super::table::Table;
use crate::coding::part;
use crate::error::{Error, Result};
use crate::key::{encoded_partition_hash, key_hash, stripe_of};
use crate::key_sample::Sampler;
use crate::types::{Direction, EntryKind, SeqNo};
use crate::vfs::{READ_UNIT, read_full_at};

/// The running totals.
#[derive(Default)]
struct Seen {
    /// The last key, without the common prefix, and its last sequence.
    key: Option<Vec<u8>>,
    seq: SeqNo,
    entries: u64,
    tombstones: u64,
    keys: u64,
    raw_bytes: u64,
    seqs: Option<(SeqNo, SeqNo)>,
    sampler: Sampler,
    /// Number of stripes of the database, if keys are to be checked for belonging to the file's stripe.
    stripes: Option<usize>,
}

impl Table {
    /// Verifies every block's checksum, even if it was verified before; the order and the counts of the entries, and
    /// their ranges; that filter, index and fences lead to every key; and the whole file's checksum.
    pub(crate) fn verify(&self) -> Result<()> {
        self.verify_in(None)
    }

    /// The same, and that all keys belong to the file's stripe in a database of `stripes` stripes.
    pub(crate) fn verify_in(&self, stripes: Option<usize>) -> Result<()> {
        let open = self.opened()?;
        if let Some(map) = open.mapped() {
            // Load the sections again: their pages may have been evicted since they were checked.
            self.load_whole(map, &(open.blocks_end..map.len()))?;
        }
        let mut seen = Seen { stripes, ..Seen::default() };
        let mut ahead = ReadAhead::new(Direction::Forward, true, MOST_AHEAD);
        let blocks = open.fences.blocks();
        let extent = self.extent(open, blocks.saturating_sub(1), Direction::Forward)?;
        for n in 0..blocks {
            self.load_ahead(open, n, &mut ahead, &extent)?;
            self.recheck_block(open, n)?;
            self.verify_block(open, n, &mut seen)?;
        }
        self.verify_totals(open, seen)?;
        let (computed, stored) = (self.file_checksum(open)?, self.meta().checksum);
        if computed != stored {
            return Err(self.corrupt(
                0,
                format!("file checksum mismatch: computed {computed:08x}, in the manifest {stored:08x}"),
            ));
        }
        Ok(())
    }

    fn file_checksum(&self, open: &OpenTable) -> Result<u32> {
        if let Some(map) = open.mapped() {
            let (mut at, mut checksum) = (0, 0);
            for piece in map.chunks(READ_UNIT) {
                self.load_whole(map, &(at..at + piece.len()))?;
                checksum = crc32c::crc32c_append(checksum, piece);
                at += piece.len();
            }
            return Ok(checksum);
        }
        let (file, mut at, mut checksum) = (self.open_file()?, 0, 0);
        let mut buffer = vec![0; READ_UNIT];
        loop {
            let read = read_full_at(&*file, &mut buffer, at).map_err(Error::io("read", self.path()))?;
            checksum = crc32c::crc32c_append(checksum, part(&buffer, ..read));
            at += read as u64;
            if read < READ_UNIT {
                return Ok(checksum);
            }
        }
    }

    fn verify_block(&self, open: &OpenTable, n: usize, seen: &mut Seen) -> Result<()> {
        let data = self.block(open, n, CacheFill::Bypass)?;
        let (block, at) = (self.parse(&data)?, data.at);
        let separator = open.fences.separator(open.fence_section(), n);
        let separator = separator.ok_or_else(|| self.corrupt(at, "the block has no separator"))?;
        if !open.fences.agrees(open.fence_section(), n) {
            return Err(self.corrupt(at, "the block's fence is not the start of its separator"));
        }
        let before = seen.key.clone();
        let mut key = Vec::new();
        for g in 0..block.groups() {
            let mut group = block.group(g, open.base_seq).map_err(|why| self.bad_block(at, why))?;
            let mut entries = 0;
            while let Some(entry) = group.next_entry().map_err(|why| self.bad_block(at, why))? {
                key.clear();
                key.extend_from_slice(entry.head);
                key.extend_from_slice(entry.tail);
                if g == 0 && entries == 0 {
                    // The separator may equal the last key of the previous block only if that key's versions continue
                    // in this block.
                    let parts = |last| separator > last || (separator == last && key == last);
                    if separator > key.as_slice() || !before.as_deref().is_none_or(parts) {
                        return Err(self.corrupt(at, "the block's separator does not match its first key"));
                    }
                }
                self.verify_entry(open, (n, &data), &key, entry.seq, seen)?;
                seen.entries += 1;
                seen.tombstones += u64::from(entry.kind == EntryKind::Delete);
                seen.raw_bytes += (open.prefix.len() + key.len() + entry.value_len) as u64;
                entries += 1;
            }
            if entries == 0 {
                return Err(self.corrupt(at, "a group has no entries"));
            }
        }
        Ok(())
    }

    fn verify_entry(
        &self,
        open: &OpenTable,
        (n, data): (usize, &BlockData<'_>),
        key: &[u8],
        seq: SeqNo,
        seen: &mut Seen,
    ) -> Result<()> {
        let at = data.at;
        let last = seen.key.as_deref();
        let is_new = last != Some(key);
        if last.is_some_and(|last| last > key || (last == key && seen.seq <= seq)) {
            return Err(self.corrupt(at, "an entry is not above the previous one"));
        }
        seen.seq = seq;
        let (low, high) = seen.seqs.unwrap_or((seq, seq));
        seen.seqs = Some((low.min(seq), high.max(seq)));
        if !is_new {
            return Ok(());
        }
        seen.keys += 1;
        let whole = [&open.prefix, key].concat();
        let hash = key_hash(&whole);
        seen.sampler.add(hash);
        if !open.may_contain(hash) {
            return Err(self.corrupt(at, "the filter rejects a key in the file"));
        }
        if !self.leads_to(open, (key, hash, seq), n, data)? {
            return Err(self.corrupt(at, "the index does not lead to a key's newest version"));
        }
        if let Some(stripes) = seen.stripes {
            let stripe = encoded_partition_hash(&whole).map(|hash| stripe_of(hash, stripes));
            if stripe != Some(self.meta().stripe.into()) {
                return Err(self.corrupt(at, "a key belongs to another stripe, or is invalid"));
            }
        }
        let (first, last) = &self.meta().keys;
        if whole < *first || whole > *last || (seen.keys == 1 && whole != *first) {
            return Err(self.corrupt(at, "a key is outside the range in the manifest"));
        }
        seen.key = Some(key.to_vec());
        Ok(())
    }

    fn verify_totals(&self, open: &OpenTable, seen: Seen) -> Result<()> {
        let meta = self.meta();
        let last = [&*open.prefix, seen.key.as_deref().unwrap_or_default()].concat();
        let sample = seen.sampler.finish();
        let sampled =
            meta.details.as_ref().is_none_or(|known| known.keys == seen.keys && known.sample == sample);
        let checks = [
            ("entries", seen.entries == meta.entries),
            ("tombstones", seen.tombstones == meta.tombstones),
            ("bytes", seen.raw_bytes == meta.raw_bytes),
            ("sequences", seen.seqs == Some(meta.seq)),
            ("the last key", last == meta.keys.1),
            ("the index", index::count(open.index_section()) == seen.keys),
            ("the filter", open.filter.keys() == seen.keys),
            ("the sample of keys", sampled),
        ];
        match checks.iter().find(|(_, right)| !right) {
            Some((what, _)) => Err(self.corrupt(0, format!("{what}: does not match the contents"))),
            None => Ok(()),
        }
    }
}
