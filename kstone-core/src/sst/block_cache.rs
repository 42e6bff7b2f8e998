//! Blocks in memory: those read with `pread`, and those that were decompressed from a mapping.
//!
//! The capacity bounds what the cache itself keeps alive. A block that a value or a cursor still points into lives on
//! beside it until that is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::slice::Slice;
use crate::types::FileId;

/// What an entry takes besides its block's bytes: its slots in the cache's tables, the counts of the `Arc`.
const ENTRY_OVERHEAD: usize = 128;
/// A shard holds at least this much, where the capacity allows more than one: so that large blocks fit.
const SHARD_BYTES: usize = 512 << 10;
const MAX_SHARDS: usize = 16;
/// For sizing tables: they grow when blocks are smaller.
const USUAL_BLOCK: usize = 4 << 10;

/// The cache of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BlockCacheStats {
    /// Bytes that it holds now; never more than `capacity`.
    pub bytes: u64,
    /// Bytes that it may hold: [`crate::DatabaseConfig::block_cache_bytes`].
    pub capacity: u64,
    /// Blocks found in it, since open. Blocks that are read in place, in a mapping, are not looked for.
    pub hits: u64,
    /// Blocks that had to be read or decompressed, since open.
    pub misses: u64,
    /// Blocks that made way for others, also for themselves read again by somebody else at the same time, or were too
    /// large to be kept, since open. What goes when the capacity changes, all of it, is not counted.
    pub evictions: u64,
    /// Bytes of indexes, fences and filters of SSTs opened with [`crate::ReadMode::Pread`]: held beside the cache, about
    /// 7 for each record.
    pub section_bytes: u64,
}

/// Which block: file and number. File ids are never reused, so what a removed file left just grows cold.
type BlockKey = (FileId, u32);

#[derive(Clone, Copy)]
struct ByLength;

fn weight(block: &Slice) -> usize {
    block.len() + ENTRY_OVERHEAD
}

impl Weighter<BlockKey, Slice> for ByLength {
    fn weight(&self, _key: &BlockKey, block: &Slice) -> u64 {
        weight(block) as u64
    }
}

/// Counts what is evicted, and drops it as the cache does by itself: when its locks are released.
#[derive(Clone, Default)]
struct Counting {
    evictions: Arc<AtomicU64>,
    drops: DefaultLifecycle<BlockKey, Slice>,
}

impl Lifecycle<BlockKey, Slice> for Counting {
    type RequestState = <DefaultLifecycle<BlockKey, Slice> as Lifecycle<BlockKey, Slice>>::RequestState;

    fn on_evict(&self, state: &mut Self::RequestState, key: BlockKey, block: Slice) {
        self.evictions.fetch_add(1, Ordering::Relaxed);
        self.drops.on_evict(state, key, block);
    }
}

type Blocks = Cache<BlockKey, Slice, ByLength, DefaultHashBuilder, Counting>;

pub(crate) struct BlockCache {
    /// Replaced as a whole when the capacity changes.
    blocks: ArcSwap<Store>,
    hits: AtomicU64,
    misses: AtomicU64,
    lifecycle: Counting,
}

struct Store {
    capacity: usize,
    blocks: Blocks,
}

impl std::fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockCache").field("capacity", &self.blocks.load().capacity).finish_non_exhaustive()
    }
}

impl Store {
    fn new(capacity: usize, lifecycle: Counting) -> Self {
        let shards = (capacity / SHARD_BYTES).clamp(1, MAX_SHARDS);
        let shards = if shards.is_power_of_two() { shards } else { shards.next_power_of_two() / 2 };
        let items = (capacity / USUAL_BLOCK).clamp(32 * shards, 1 << 16);
        // Shards share the capacity evenly and round up, which must not add to it.
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(items)
            .weight_capacity((capacity / shards * shards) as u64)
            // A block larger than the hot part is not kept: leave some of the shard to blocks that were used once.
            .hot_allocation(0.9)
            .build();
        let blocks = match options {
            Ok(options) => Blocks::with_options(options, ByLength, Default::default(), lifecycle),
            // Both values are given, so this is never met; a cache of the same size without them is as good.
            Err(_) => Blocks::with(items, capacity as u64, ByLength, Default::default(), lifecycle),
        };
        Self { capacity, blocks }
    }
}

impl BlockCache {
    pub(super) fn new(capacity: usize) -> Self {
        let lifecycle = Counting::default();
        Self {
            blocks: ArcSwap::from_pointee(Store::new(capacity, lifecycle.clone())),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            lifecycle,
        }
    }

    /// Starts anew, empty, if that is another capacity.
    pub(super) fn set_capacity(&self, capacity: usize) {
        if self.blocks.load().capacity != capacity {
            self.blocks.store(Arc::new(Store::new(capacity, self.lifecycle.clone())));
        }
    }

    /// The block, and whether using it should keep it from eviction.
    pub(super) fn get(&self, file: FileId, block: usize, touch: bool) -> Option<Slice> {
        let blocks = &self.blocks.load().blocks;
        let key = (file, block as u32);
        let found = if touch { blocks.get(&key) } else { blocks.peek(&key) };
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub(super) fn insert(&self, file: FileId, block: usize, bytes: &Slice) {
        let cache = self.blocks.load();
        cache.blocks.insert((file, block as u32), bytes.clone());
    }

    pub(super) fn stats(&self, section_bytes: u64) -> BlockCacheStats {
        let cache = self.blocks.load();
        BlockCacheStats {
            bytes: cache.blocks.weight(),
            capacity: cache.capacity as u64,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.lifecycle.evictions.load(Ordering::Relaxed),
            section_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(len: usize) -> Slice {
        Slice::from(vec![1; len].as_slice())
    }

    #[test]
    fn never_holds_more_than_its_capacity_and_keeps_what_is_used() {
        for capacity in [64 << 10, 100_001, 1 << 20, 3_000_000] {
            let cache = BlockCache::new(capacity);
            cache.insert(1, 0, &block(1_000));
            let mut most = 0;
            for n in 0..20_000 {
                assert!(cache.get(1, 0, true).is_some() || n > 0, "{capacity}");
                cache.insert(2, n, &block(n * 7 % 9_000));
                let bytes = cache.stats(0).bytes;
                assert!(bytes <= capacity as u64, "{bytes} of {capacity}");
                most = most.max(bytes);
            }
            assert!(most > capacity as u64 * 7 / 10, "{most} of {capacity}");
            assert!(cache.get(1, 0, true).is_some(), "a block that is used all the time was evicted");
        }
    }

    #[test]
    fn bytes_are_those_of_the_blocks() {
        let cache = BlockCache::new(1 << 20);
        for n in 0..10 {
            cache.insert(1, n, &block(100));
            cache.insert(1, n, &block(100)); // the same again
        }
        assert_eq!(cache.stats(0).bytes, 10 * (100 + ENTRY_OVERHEAD as u64));
        assert_eq!(cache.stats(0).evictions, 10);
        cache.insert(1, 99, &block(2 << 20)); // larger than all of it
        assert_eq!(cache.stats(0).evictions, 11);
        assert_eq!(cache.stats(5).bytes, 10 * (100 + ENTRY_OVERHEAD as u64));
        assert!(cache.get(1, 99, true).is_none() && cache.get(1, 3, false).is_some());
        let stats = cache.stats(5);
        assert_eq!((stats.hits, stats.misses, stats.section_bytes), (1, 1, 5));
        cache.set_capacity(1 << 20);
        assert!(cache.stats(0).bytes > 0);
        cache.set_capacity(1 << 16);
        assert_eq!((cache.stats(0).bytes, cache.stats(0).capacity), (0, 1 << 16));
        assert_eq!(cache.stats(0).evictions, 11);
    }

    #[test]
    fn what_is_not_in_it_any_more_was_evicted() {
        let cache = BlockCache::new(64 << 10);
        for n in 0..1_000 {
            cache.insert(1, n, &block(1_000));
        }
        let kept = (0..1_000).filter(|&n| cache.get(1, n, false).is_some()).count() as u64;
        assert!((40..60).contains(&kept), "{kept}");
        assert_eq!(cache.stats(0).evictions, 1_000 - kept);
    }
}
