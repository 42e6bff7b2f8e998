//! How the space below `max_total_disk_bytes` is shared out.
//!
//! Nothing may start that could not end: what is in memtables has the space of its SSTs set aside, a merge that of its
//! output before it begins, the manifest that of being rewritten. Below that, puts leave room for deletes and for
//! merging the largest stripe, and deletes for merging it, so that a full database can always be emptied; merges that
//! take more than the room for the largest one at a time leave that for deletes. What puts leave free beyond that they may
//! take themselves, to the extent that merges are going to free it:
//!
//! ```text
//! | used | flushes | merges under way | manifest | largest merge | deletes | garbage | puts ... limit
//!                                               ^merges          ^deletes            ^puts stop here
//! ```
//!
//! Files are shared out in the same way where the file system has only a limited number left ([`Inodes`]). A stripe with
//! data needs one for good, and two more while it is flushed and merged; each other is given back by a checkpoint.
//!
//! What decides is pure ([`Load`]); the figures live in [`Quota`], and who promises space holds a [`Share`] of them.

use std::sync::Arc;

use crate::sst_block::NO_CODEC;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::types::SstMeta;
use crate::vfs::{Meter, PAGE, pages};

/// What an SST takes at most beyond its records: its last page, frame, sections' starts, keys in its properties, and
/// its lines in the manifest and in the rewritten one.
pub(crate) const SST_FRAME: u64 = 8 << 10;
/// What an entry takes beyond key, value and filter: its head, and its place in the hash index.
pub(crate) const ENTRY_FRAME: u64 = 18;
/// What a block takes beyond its entries and its separator: trailer, and fence.
const BLOCK_FRAME: u64 = 40;
/// Entries of which the first has its key in full.
const GROUP: u64 = 8;
/// A delete's record in the log takes at least this.
const DELETE_IN_LOG: u64 = 64;

/// Who wants to make a file, and how many others that must leave: what it is needed for goes on after it, down to the
/// manifest's rewriting, for which the last one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inodes {
    /// A segment for puts, or the first record of a stripe; beside those that memtables of stripes without SSTs need.
    Put,
    /// A segment for deletes.
    Delete,
    /// The first SST of a stripe.
    FirstRun,
    /// The output of a flush that is merged with what the stripe has.
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

/// Below this, files are made one after the other, so that each sees what the others have left.
pub(crate) const FEW_INODES: u64 = 64;

/// What has run out. [`Error::DiskFull`](crate::Error::DiskFull) says that something has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Exhausted {
    /// [`max_total_disk_bytes`](crate::DatabaseConfig::max_total_disk_bytes).
    Quota,
    /// The space of the file system.
    Bytes,
    /// The files that the file system can hold, whatever their length.
    Inodes,
}

/// Who wants space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Put,
    /// Nothing but deletes.
    Delete,
    Merge,
}

/// The figures at one moment, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    pub(crate) limit: u64,
    /// Of all memtables, as those count it: keys, values and [`RECORD_OVERHEAD`](crate::memtable::RECORD_OVERHEAD).
    pub(crate) memory: u64,
    /// Memtables that hold something.
    pub(crate) memtables: u64,
    /// Written by flushes whose memtable still counts.
    pub(crate) flushing: u64,
    /// Of writes that are not in a memtable yet.
    pub(crate) admitted: u64,
    /// That merges under way have still to write.
    pub(crate) merging: u64,
    /// What will be gone once merges under way have ended and the inputs of those done are unlinked.
    pub(crate) dying: u64,
    /// What merging the largest stripe whole would write.
    pub(crate) largest: u64,
    /// What merging all stripes whole would free, about.
    pub(crate) garbage: u64,
    /// Of `admitted`, what is for frames and separators.
    pub(crate) admitted_frames: u64,
    /// Segments of the log.
    pub(crate) log: u64,
    /// What the manifest takes until it is rewritten, and that.
    pub(crate) manifest: u64,
    pub(crate) segment: u64,
    pub(crate) stripes: u64,
    pub(crate) target_sst: u64,
}

impl Load {
    /// What a claim must leave free.
    pub(crate) fn keep(&self, claim: Claim) -> u64 {
        let unflushed =
            flush_bytes(self.memory, self.memtables, self.target_sst).saturating_sub(self.flushing);
        let promised = unflushed.saturating_add(self.admitted).saturating_add(self.manifest_room());
        // What the next merge takes beside those that are not done with, up to the removal of their inputs.
        // A thirty-second more is for the lines that the manifest gets until it is rewritten.
        let next_merge = self.largest.saturating_sub(self.dying).max(self.merging);
        let next_merge = next_merge.saturating_add(self.limit / 32);
        let within_one = self.dying.saturating_add(self.merging) <= self.largest;
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

    /// What puts may take beyond the space that is free, because flushes and merges are going to free as much. So what
    /// was deleted is free at once, though in a full database nothing is merged before it frees a good deal, and no put
    /// waits for it.
    pub(crate) fn room_for_garbage(&self) -> u64 {
        self.limit / 16
    }

    /// What would be free if all was flushed and merged, about. Should it be less, the limit holds all the same.
    pub(crate) fn passing(&self) -> u64 {
        let frames = self.memtables.saturating_mul(SST_FRAME).saturating_add(self.memory / 4);
        let log = self.log.saturating_sub(self.segment);
        let parts = [frames, self.admitted_frames, log];
        parts.into_iter().fold(self.garbage, u64::saturating_add)
    }

    /// What will be written whatever happens, out of what is kept for it.
    pub(crate) fn promised(&self) -> u64 {
        Self { largest: u64::MAX, ..*self }.keep(Claim::Merge)
    }

    /// That, in whole pages of two files, and its header.
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

/// What flushing this many memtables of this much memory writes at most. What a record takes in memory
/// beyond its bytes ([`RECORD_OVERHEAD`](crate::memtable::RECORD_OVERHEAD)) is more than its heads, its places in index
/// and filter and a block of its own take; a quarter is for separators.
pub(crate) fn flush_bytes(memory: u64, memtables: u64, target_sst: u64) -> u64 {
    let records = memory.saturating_add(memory / 4);
    let parts = (records / target_sst.max(1)).saturating_add(memtables);
    records.saturating_add(parts.saturating_mul(SST_FRAME))
}

/// What merging SSTs that take this many bytes when they are rewritten ([`rewritten_bytes`]) writes at most.
pub(crate) fn merge_bytes(inputs: u64, target_sst: u64) -> u64 {
    let parts = (inputs / target_sst.max(1)).saturating_add(1);
    inputs.saturating_add(inputs / 32).saturating_add(parts.saturating_mul(SST_FRAME))
}

/// What an SST takes at most when its entries are written again into SSTs with those settings. As much as now, when it
/// was made with settings that saved nothing. What was compressed may not be any more, beside entries that do not
/// shrink or by another setting, and smaller blocks and larger filters take more.
pub(crate) fn rewritten_bytes(meta: &SstMeta, block_size: usize, bits_per_key: usize) -> u64 {
    let (low, high) = (&meta.keys.0, &meta.keys.1);
    let plain = meta.details.as_ref().is_some_and(|made| {
        made.codec == NO_CODEC
            && made.bits_per_key as usize >= bits_per_key
            && made.block_size as usize <= block_size
    });
    if plain {
        // What all of its keys have in common is left out of it, and may be not of a file with others.
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

/// What is used and promised of one database's space.
#[derive(Debug)]
pub(crate) struct Quota {
    pub(crate) meter: Arc<Meter>,
    pub(crate) memtables: AtomicU64,
    pub(crate) flushing: AtomicU64,
    pub(crate) admitted: AtomicU64,
    pub(crate) merging: AtomicU64,
    pub(crate) dying: AtomicU64,
    pub(crate) largest: AtomicU64,
    pub(crate) garbage: AtomicU64,
    pub(crate) admitted_frames: AtomicU64,
    pub(crate) manifest: AtomicU64,
    /// A write was refused, or is about to be: whatever can be freed should be.
    pub(crate) reclaim: AtomicBool,
    /// All that could be freed was, when a put was refused, and what puts replaced since is known.
    pub(crate) searched: AtomicBool,
    /// Some of what is in memtables should be flushed for it.
    pub(crate) seal_some: AtomicBool,
    /// The file system has no room for another log segment: what is left of this one is for deletes.
    pub(crate) starved: AtomicBool,
    /// The file system has too few inodes left for what is in memory.
    pub(crate) few_inodes: AtomicBool,
    /// Held while a file is made when there are few.
    pub(crate) making: Mutex<()>,
    pub(crate) refusals: AtomicU64,
    /// All promises were once found to be kept.
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
            dying: AtomicU64::new(0),
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

    /// Space is being reclaimed for somebody who waits for it, or was refused.
    pub(crate) fn is_short(&self) -> bool {
        self.reclaim.load(Ordering::Relaxed)
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.meter.limit() != u64::MAX
    }
}

/// A part of one of the quota's figures, taken back when it is dropped.
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

    /// It is that much now.
    pub(crate) fn set(&mut self, bytes: u64) {
        let figure = (self.of)(&self.quota);
        if bytes > self.bytes {
            figure.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            figure.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Leaves it in the figure: somebody else takes it out.
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
        // A segment, one and three quarters of it as tombstones, a memtable in each stripe.
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
        // While the largest stripe is merged, and until its inputs are gone, no second merge of it is kept free.
        let merging = Load { merging: 4 * MIB, dying: 10 * MIB, ..load() };
        let least = load().promised();
        assert_eq!(merging.keep(Claim::Delete), least + 6 * MIB);
        let merged = Load { merging: 0, ..merging };
        assert_eq!((merged.keep(Claim::Delete), merged.keep(Claim::Merge)), (least + 2 * MIB, least));
        // A merge beside that one leaves the room of deletes alone.
        assert_eq!(merging.keep(Claim::Merge), least + 4 * MIB + load().delete_room());
        assert_eq!(merging.promised(), least + 4 * MIB);
    }

    #[test]
    fn puts_take_what_will_be_free() {
        let calm = load();
        let keep = |load: Load| load.keep(Claim::Put);
        assert_eq!(keep(calm) - keep(Load { garbage: MIB, ..calm }), MIB);
        assert_eq!(keep(calm) - keep(Load { garbage: 5 * MIB, ..calm }), calm.limit / 16);
        // Of what is in memory, all but the records themselves will be free once it is merged.
        let memory = Load { memory: MIB, memtables: 2, ..calm };
        assert_eq!(keep(memory) - keep(calm), MIB);
        // Nobody else may take it.
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
