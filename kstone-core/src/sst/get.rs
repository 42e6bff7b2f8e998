//! Looks up a key in an SST: filter, index, group, value.

use super::blocks::{BlockData, CacheFill};
use super::index::{self, GroupAddress};
use super::open::OpenTable;
use super::table::Table;
use super::trace::{FilterAnswer, Trace};
use crate::error::Result;
use crate::slice::Found;
use crate::sst_block::BadBlock;
use crate::types::SeqNo;

/// The result of searching a group for a key at a sequence.
enum Lookup {
    /// The key is not in the group.
    Absent,
    Found(Found),
    /// All versions in the file are newer.
    Newer,
    /// All versions so far are newer, but the next group may have more.
    Unfinished,
}

impl Table {
    /// Prefetches the memory that [`Table::get`] reads first, if the file is open.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(open) = self.open.get() {
            open.filter.prefetch(open.bytes(&open.filter_at), hash);
        }
    }

    /// Prefetches what [`Table::get`] reads next, if the file is open: the slot of the index.
    #[inline]
    pub(crate) fn prefetch_slot(&self, hash: u64) {
        if let Some(open) = self.open.get() {
            index::prefetch_slot(open.index_section(), hash);
        }
    }

    /// Prefetches what it reads then, the heads of a block, if the file may have the key; false if not, or if it is not
    /// open.
    #[inline]
    pub(crate) fn prefetch_heads(&self, hash: u64) -> bool {
        let Some(open) = self.open.get().filter(|open| open.may_contain(hash)) else { return false };
        let place = index::probe(open.index_section(), hash).next();
        place.inspect(|place| self.prefetch_block(open, place.block)).is_some()
    }

    /// Returns the newest version of a key with `seq <= max_seq`. `hash` is the key's `key_hash`. Reports each step to
    /// `trace`.
    #[inline]
    pub(crate) fn get(
        &self,
        key: &[u8],
        hash: u64,
        max_seq: SeqNo,
        trace: &mut impl Trace,
    ) -> Result<Option<Found>> {
        let open = self.opened()?;
        let passed = open.may_contain(hash);
        trace.filter(passed);
        if !passed {
            trace.answered(FilterAnswer::No, &open.filter);
            return Ok(None);
        }
        let lookup = self.find(open, key, hash, max_seq, trace)?;
        let absent = matches!(lookup, Lookup::Absent);
        trace.answered(if absent { FilterAnswer::FalseYes } else { FilterAnswer::Yes }, &open.filter);
        Ok(if let Lookup::Found(found) = lookup { Some(found) } else { None })
    }

    fn find(
        &self,
        open: &OpenTable,
        key: &[u8],
        hash: u64,
        max_seq: SeqNo,
        trace: &mut impl Trace,
    ) -> Result<Lookup> {
        let Some(key) = key.strip_prefix(&*open.prefix) else { return Ok(Lookup::Absent) };
        for place in index::probe(open.index_section(), hash) {
            trace.group(place.block, place.group);
            match self.look_up(open, place, key, max_seq)? {
                Lookup::Absent => {} // another key with the same fingerprint
                Lookup::Unfinished => return self.find_older(open, place, key, max_seq, trace),
                other => return Ok(other),
            }
        }
        Ok(Lookup::Absent)
    }

    /// Continues with the groups after `place` while they start with the key.
    #[cold]
    fn find_older(
        &self,
        open: &OpenTable,
        place: GroupAddress,
        key: &[u8],
        max_seq: SeqNo,
        trace: &mut impl Trace,
    ) -> Result<Lookup> {
        let mut place = place;
        loop {
            let data = self.block(open, place.block, CacheFill::Cache)?;
            place = if place.group + 1 < self.parse(&data)?.groups() {
                GroupAddress { group: place.group + 1, ..place }
            } else if place.block + 1 < open.fences.blocks() {
                GroupAddress { block: place.block + 1, group: 0 }
            } else {
                return Ok(Lookup::Newer);
            };
            trace.group(place.block, place.group);
            match self.look_up(open, place, key, max_seq)? {
                Lookup::Absent | Lookup::Newer => return Ok(Lookup::Newer),
                Lookup::Unfinished => {}
                found => return Ok(found),
            }
        }
    }

    #[inline]
    fn look_up(&self, open: &OpenTable, place: GroupAddress, key: &[u8], max_seq: SeqNo) -> Result<Lookup> {
        let data = self.block(open, place.block, CacheFill::Cache)?;
        self.look_up_in(open, &data, place.group, key, max_seq)
    }

    #[inline]
    fn look_up_in(
        &self,
        open: &OpenTable,
        data: &BlockData<'_>,
        group: usize,
        key: &[u8],
        max_seq: SeqNo,
    ) -> Result<Lookup> {
        let bad = |why| self.bad_block(data.at, why);
        let mut group = self.parse(data)?.group(group, open.base_seq).map_err(bad)?;
        let mut seen = false;
        while let Some(entry) = group.next_entry().map_err(bad)? {
            if !entry.is(key) {
                if seen {
                    return Ok(Lookup::Newer);
                }
                continue;
            }
            if entry.seq <= max_seq {
                let value = data
                    .slice(entry.value_at, entry.value_len)
                    .ok_or_else(|| bad(BadBlock::Malformed("a value is out of bounds")))?;
                return Ok(Lookup::Found(Found { seq: entry.seq, kind: entry.kind, value }));
            }
            seen = true;
        }
        Ok(if seen { Lookup::Unfinished } else { Lookup::Absent })
    }

    /// Whether the index leads to this version of a key (without the prefix), which is in block `n` with contents
    /// `data`.
    pub(super) fn leads_to(
        &self,
        open: &OpenTable,
        key: (&[u8], u64, SeqNo),
        n: usize,
        data: &BlockData<'_>,
    ) -> Result<bool> {
        let (key, hash, seq) = key;
        for place in index::probe(open.index_section(), hash) {
            let lookup = if place.block == n {
                self.look_up_in(open, data, place.group, key, SeqNo::MAX)?
            } else {
                let other = self.block(open, place.block, CacheFill::Bypass)?;
                self.look_up_in(open, &other, place.group, key, SeqNo::MAX)?
            };
            match lookup {
                Lookup::Absent => {}
                Lookup::Found(found) => return Ok(found.seq == seq),
                Lookup::Newer | Lookup::Unfinished => return Ok(false),
            }
        }
        Ok(false)
    }
}
