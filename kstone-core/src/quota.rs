//! Allocation of the space below `max_total_disk_bytes`.
//!
//! Nothing starts that might not finish: records in memtables have the space of their SSTs reserved, a merge the space
//! of its output before it starts, and the manifest the space of its rewrite. Beyond that, puts leave space for deletes
//! and for merging the largest stripe, and deletes leave space for that merge, so that a full database can always be
//! emptied; merges that exceed the space for one merge of the largest stripe leave the space for deletes. Of the
//! further space that puts leave free, they may take as much as merges are going to free:
//!
//! ```text
//! | used | flushes | merges under way | manifest | largest merge | deletes | garbage | puts ... limit
//!                                               ^merges          ^deletes            ^puts stop here
//! ```
//!
//! Files are allocated in the same way where the file system has few inodes left ([`Inodes`]). A stripe with data needs
//! one file permanently, and up to two more while it is flushed and merged; checkpoints release those.
//!
//! Decisions are pure functions of [`Load`]; [`Quota`] holds the figures, and a [`Share`] of one is held by the
//! operation that reserved it.

use std::sync::Arc;

use crate::sst_block::NO_CODEC;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::types::SstMeta;
use crate::vfs::{Meter, PAGE, pages};

/// The most that an SST takes beyond its records: its last page, frame, alignment of sections, keys in its properties,
/// and its lines in the manifest and in the rewritten manifest.
pub(crate) const SST_FRAME: u64 = 8 << 10;
/// Bytes that an entry takes beyond key, value and filter: its header, and its slot in the hash index.
pub(crate) const ENTRY_FRAME: u64 = 18;
/// Bytes that a block takes beyond its entries and its separator: trailer and fence.
const BLOCK_FRAME: u64 = 40;
/// Entries per group; the first of each stores its key in full.
const GROUP: u64 = 8;
/// The least that the log record of a delete takes.
const DELETE_IN_LOG: u64 = 64;

/// The purpose of a new file, which determines how many inodes it must leave free: the work it belongs to needs further
/// files, down to the rewrite of the manifest, which gets the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inodes {
    /// A segment for puts, or the first record of a stripe; also leaves the inodes that memtables of stripes without
    /// SSTs will need.
    Put,
    /// A segment for deletes.
    Delete,
    /// The first SST of a stripe.
    FirstRun,
    /// The output of a flush, which is then merged with the stripe's other runs.
    Run,
    Merge,
}

impl Inodes {
    pub(crate) fn leave(self) -> u64 {
        match self {
            Self::Put => 8,
            Self::Delete | Self::FirstRun => 4,
            Self::Run => 2,
            Self::Merge => 1,
        }
    }
}

/// Below this, files are created one at a time, so that each creation sees how many inodes the others have left.
pub(crate) const FEW_INODES: u64 = 64;

/// The resource that ran out, when a call fails with [`Error::DiskFull`](crate::Error::DiskFull).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Exhausted {
    /// [`max_total_disk_bytes`](crate::DatabaseConfig::max_total_disk_bytes).
    Quota,
    /// Space on the file system.
    Bytes,
    /// Inodes: the number of files that the file system can hold, whatever their length.
    Inodes,
}

/// The purpose of a request for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Put,
    /// Only deletes.
    Delete,
    Merge,
}

/// The figures at one moment, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) limit: u64,
    /// Memory of all memtables, as they account for it: keys, values and
    /// [`RECORD_OVERHEAD`](crate::memtable::RECORD_OVERHEAD) per record.
    pub(crate) memory: u64,
    /// Number of memtables that are not empty.
    pub(crate) memtables: u64,
    /// Bytes written by flushes whose memtable still counts.
    pub(crate) flushing: u64,
    /// Bytes for writes that are not in a memtable yet.
    pub(crate) admitted: u64,
    /// Bytes that running merges have still to write.
    pub(crate) merging: u64,
    /// Bytes that will be gone once running merges have ended and the inputs of finished ones are unlinked.
    pub(crate) pending_delete: u64,
    /// Bytes that merging the whole of the largest stripe would write.
    pub(crate) largest: u64,
    /// Approximate bytes that merging all stripes whole would free.
    pub(crate) garbage: u64,
    /// The part of `admitted` that is for frames and separators.
    pub(crate) admitted_frames: u64,
    /// Bytes in log segments.
    pub(crate) log: u64,
    /// Bytes that the manifest takes until its next rewrite, including the rewritten one.
    pub(crate) manifest: u64,
    pub(crate) segment: u64,
    pub(crate) stripes: u64,
    pub(crate) target_sst: u64,
}

impl Load {
    /// Bytes that a claim must leave free.
    pub(crate) fn keep(&self, claim: Claim) -> u64 {
        let unflushed =
            flush_bytes(self.memory, self.memtables, self.target_sst).saturating_sub(self.flushing);
        let promised = unflushed.saturating_add(self.admitted).saturating_add(self.manifest_room());
        // The next merge needs this much beside the unfinished ones, until their inputs are removed. The extra
        // thirty-second is for edits to the manifest until it is rewritten.
        let next_merge = self.largest.saturating_sub(self.pending_delete).max(self.merging);
        let next_merge = next_merge.saturating_add(self.limit / 32);
        let within_one = self.pending_delete.saturating_add(self.merging) <= self.largest;
        match claim {
            Claim::Merge if within_one => promised.saturating_add(self.merging),
            Claim::Merge => promised.saturating_add(self.merging).saturating_add(self.delete_room()),
            Claim::Delete => promised.saturating_add(next_merge),
            Claim::Put => {
                let kept = promised.saturating_add(next_merge).saturating_add(self.delete_room());
                kept.saturating_add(self.room_for_garbage().saturating_sub(self.passing()))
            }
        }
    }

    /// The most that puts may take beyond the free space because flushes and merges are going to free as much. So the
    /// space of deleted data is usable at once, and no put waits for it, although a full database is merged only when
    /// that frees a good deal.
    pub(crate) fn room_for_garbage(&self) -> u64 {
        self.limit / 16
    }

    /// Approximate bytes that would become free if everything was flushed and merged. If it turns out to be less, the
    /// limit still holds.
    pub(crate) fn passing(&self) -> u64 {
        let frames = self.memtables.saturating_mul(SST_FRAME).saturating_add(self.memory / 4);
        let log = self.log.saturating_sub(self.segment);
        let parts = [frames, self.admitted_frames, log];
        parts.into_iter().fold(self.garbage, u64::saturating_add)
    }

    /// Bytes that will be written in any case, from the space reserved for them.
    pub(crate) fn promised(&self) -> u64 {
        Self { largest: u64::MAX, ..*self }.keep(Claim::Merge)
    }

    /// Space for the manifest, in whole pages of two files, and its header.
    fn manifest_room(&self) -> u64 {
        pages(self.manifest) + 2 * PAGE
    }

    /// A segment full of deletes, and the SSTs of their tombstones.
    fn delete_room(&self) -> u64 {
        let memtables = self.stripes.min(self.segment / DELETE_IN_LOG).saturating_mul(SST_FRAME);
        let memtables = memtables.min(self.limit / 16);
        self.segment.saturating_mul(11) / 4 + PAGE + memtables
    }
}

/// The most that flushing this many memtables of this much memory writes. The memory per record beyond its bytes
/// ([`RECORD_OVERHEAD`](crate::memtable::RECORD_OVERHEAD)) exceeds its headers, its index and filter slots, and a block of
/// its own; a quarter more is for separators.
pub(crate) fn flush_bytes(memory: u64, memtables: u64, target_sst: u64) -> u64 {
    let records = memory.saturating_add(memory / 4);
    let parts = (records / target_sst.max(1)).saturating_add(memtables);
    records.saturating_add(parts.saturating_mul(SST_FRAME))
}

/// The most that merging writes, for SSTs that take `inputs` bytes when rewritten ([`rewritten_bytes`]).
pub(crate) fn merge_bytes(inputs: u64, target_sst: u64) -> u64 {
    let parts = (inputs / target_sst.max(1)).saturating_add(1);
    inputs.saturating_add(inputs / 32).saturating_add(parts.saturating_mul(SST_FRAME))
}

/// The most that the entries of an SST take when rewritten with these settings. That is the current size if it was
/// written with settings that saved nothing. Otherwise it may be more: compressed entries may end up uncompressed, next
/// to incompressible ones or under another setting, and smaller blocks and larger filters take more space.
pub(crate) fn rewritten_bytes(meta: &SstMeta, block_size: usize, bits_per_key: usize) -> u64 {
    let (low, high) = (&meta.keys.0, &meta.keys.1);
    let plain = meta.details.as_ref().is_some_and(|made| {
        made.codec == NO_CODEC
            && made.bits_per_key as usize >= bits_per_key
            && made.block_size as usize <= block_size
    });
    if plain {
        // The common prefix of all keys is stored once per file, and may not be common to a file with other keys.
        let common = low.iter().zip(high).take_while(|(a, b)| a == b).count() as u64;
        return meta.len.saturating_add(common.saturating_mul(meta.entries / GROUP + 1));
    }
    let entries = meta.entries.max(1);
    let payload = meta.raw_bytes.saturating_add(entries * ENTRY_FRAME);
    // A block ends before the entry that would make it too long.
    let block = block_size as u64;
    let blocks = payload / (block - (payload / entries).min(block / 2)).max(1) + 1;
    let block_frame = BLOCK_FRAME + low.len().max(high.len()) as u64;
    let filter = entries * bits_per_key as u64 / 8;
    payload.saturating_add(filter).saturating_add(blocks.min(entries) * block_frame).max(meta.len)
}

/// Space used and reserved by one database.
#[derive(Debug)]
pub(crate) struct Quota {
    pub(crate) meter: Arc<Meter>,
    pub(crate) memtables: AtomicU64,
    pub(crate) flushing: AtomicU64,
    pub(crate) admitted: AtomicU64,
    pub(crate) merging: AtomicU64,
    pub(crate) pending_delete: AtomicU64,
    pub(crate) largest: AtomicU64,
    pub(crate) garbage: AtomicU64,
    pub(crate) admitted_frames: AtomicU64,
    pub(crate) manifest: AtomicU64,
    /// A write was refused, or is about to be: free whatever can be freed.
    pub(crate) reclaim: AtomicBool,
    /// Everything that could be freed was, when a put was refused, and the garbage made by puts since is known.
    pub(crate) searched: AtomicBool,
    /// Some memtables should be flushed to free space.
    pub(crate) seal_some: AtomicBool,
    /// The file system has no space for another log segment: the rest of the current one is for deletes.
    pub(crate) starved: AtomicBool,
    /// The file system has too few inodes left for the contents of memory.
    pub(crate) few_inodes: AtomicBool,
    /// Held while a file is created when few inodes are left.
    pub(crate) making: Mutex<()>,
    pub(crate) refusals: AtomicU64,
    /// All reservations were found to fit at least once.
    pub(crate) kept: AtomicBool,
}

impl Quota {
    pub(crate) fn new(meter: Arc<Meter>) -> Self {
        Self {
            meter,
            memtables: AtomicU64::new(0),
            flushing: AtomicU64::new(0),
            admitted: AtomicU64::new(0),
            merging: AtomicU64::new(0),
            pending_delete: AtomicU64::new(0),
            largest: AtomicU64::new(0),
            garbage: AtomicU64::new(0),
            admitted_frames: AtomicU64::new(0),
            manifest: AtomicU64::new(0),
            reclaim: AtomicBool::new(false),
            searched: AtomicBool::new(false),
            seal_some: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            few_inodes: AtomicBool::new(false),
            making: Mutex::default(),
            refusals: AtomicU64::new(0),
            kept: AtomicBool::new(false),
        }
    }

    /// Whether space is being reclaimed for a write that waits for it or was refused.
    pub(crate) fn is_short(&self) -> bool {
        self.reclaim.load(Ordering::Relaxed)
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.meter.limit() != u64::MAX
    }
}

/// A contribution to one of the quota's figures, subtracted when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    quota: Arc<Quota>,
    of: fn(&Quota) -> &AtomicU64,
    bytes: u64,
}

impl Share {
    pub(crate) fn new(quota: &Arc<Quota>, of: fn(&Quota) -> &AtomicU64, bytes: u64) -> Self {
        of(quota).fetch_add(bytes, Ordering::SeqCst);
        Self { quota: Arc::clone(quota), of, bytes }
    }

    /// Changes the contribution to `bytes`.
    pub(crate) fn set(&mut self, bytes: u64) {
        let figure = (self.of)(&self.quota);
        if bytes > self.bytes {
            figure.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            figure.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Leaves the contribution in the figure; other code subtracts it.
    pub(crate) fn leave(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        (self.of)(&self.quota).fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn load() -> Load {
        Load {
            limit: 64 * MIB,
            largest: 10 * MIB,
            manifest: PAGE,
            segment: MIB,
            stripes: 256,
            target_sst: 32 * MIB,
            ..Load::default()
        }
    }

    #[test]
    fn puts_leave_room_for_deletes_and_those_for_merges() {
        let load = load();
        let [merge, delete, put] = [Claim::Merge, Claim::Delete, Claim::Put].map(|claim| load.keep(claim));
        assert_eq!(merge, 3 * PAGE);
        assert_eq!(delete, merge + 12 * MIB);
        // A segment, one and three quarters of it for tombstones, and a memtable in each stripe.
        assert_eq!(put, delete + MIB * 11 / 4 + PAGE + 256 * SST_FRAME + 4 * MIB);
        let small = Load { limit: 16 * MIB, ..load };
        assert_eq!(put - small.keep(Claim::Put), MIB + 3 * MIB / 2 + 3 * MIB);
    }

    #[test]
    fn all_that_is_promised_counts_once() {
        let calm = load().keep(Claim::Delete);
        let memory = Load { memory: MIB, memtables: 2, ..load() };
        assert_eq!(memory.keep(Claim::Delete), calm + MIB * 5 / 4 + 2 * SST_FRAME);
        assert_eq!(Load { flushing: MIB, ..memory }.keep(Claim::Delete), calm + MIB / 4 + 2 * SST_FRAME);
        assert_eq!(Load { admitted: 77, ..load() }.keep(Claim::Delete), load().keep(Claim::Delete) + 77);
        // While the largest stripe is merged, and until its inputs are gone, no space is kept for a second merge of it.
        let merging = Load { merging: 4 * MIB, pending_delete: 10 * MIB, ..load() };
        let least = load().promised();
        assert_eq!(merging.keep(Claim::Delete), least + 6 * MIB);
        let merged = Load { merging: 0, ..merging };
        assert_eq!((merged.keep(Claim::Delete), merged.keep(Claim::Merge)), (least + 2 * MIB, least));
        // A merge beside that one leaves the space for deletes.
        assert_eq!(merging.keep(Claim::Merge), least + 4 * MIB + load().delete_room());
        assert_eq!(merging.promised(), least + 4 * MIB);
    }

    #[test]
    fn puts_take_what_will_be_free() {
        let calm = load();
        let keep = |load: Load| load.keep(Claim::Put);
        assert_eq!(keep(calm) - keep(Load { garbage: MIB, ..calm }), MIB);
        assert_eq!(keep(calm) - keep(Load { garbage: 5 * MIB, ..calm }), calm.limit / 16);
        // Of the memory, everything but the records themselves will be free once it is merged.
        let memory = Load { memory: MIB, memtables: 2, ..calm };
        assert_eq!(keep(memory) - keep(calm), MIB);
        // No other claim may take it.
        let garbage = Load { garbage: MIB, ..calm };
        assert_eq!(garbage.keep(Claim::Delete), calm.keep(Claim::Delete));
        assert_eq!(garbage.promised(), calm.promised());
    }

    #[test]
    fn small_parts_have_frames_of_their_own() {
        assert_eq!(flush_bytes(80_000, 1, 10_000), 100_000 + 11 * SST_FRAME);
        assert_eq!(merge_bytes(32_000, 10_000), 33_000 + 4 * SST_FRAME);
        assert_eq!(flush_bytes(0, 0, 10_000), 0);
    }

    #[test]
    fn shares_come_and_go() {
        let quota = Arc::new(Quota::new(Arc::default()));
        let of: fn(&Quota) -> &AtomicU64 = |quota| &quota.merging;
        let get = || quota.merging.load(Ordering::Relaxed);
        let mut share = Share::new(&quota, of, 10);
        share.set(4);
        assert_eq!(get(), 4);
        share.set(7);
        let other = Share::new(&quota, of, 3);
        drop(share);
        assert_eq!(get(), 3);
        other.leave();
        assert_eq!(get(), 3);
    }
}
