//! Blocks in memory: those read with `pread`, and those decompressed from a mapping.
//!
//! The capacity bounds the memory that the cache itself keeps alive. A block that a value or cursor still points into
//! outlives its eviction until the last of these is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::slice::Slice;
use crate::types::FileId;

/// Memory per entry besides the block's bytes: slots in the cache's tables, the counts of the `Arc`.
const ENTRY_OVERHEAD: usize = 128;
/// Minimum size of a shard, if the capacity allows more than one: large blocks must fit.
const SHARD_BYTES: usize = 512 << 10;
const MAX_SHARDS: usize = 16;
/// For sizing tables, which grow if blocks are smaller.
const USUAL_BLOCK: usize = 4 << 10;

/// State of the block cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct BlockCacheStats {
    /// Bytes held now; never more than `capacity`.
    pub bytes: u64,
    /// Maximum bytes held: [`crate::DatabaseConfig::block_cache_bytes`].
    pub capacity: u64,
    /// Lookups since open that found their block. Blocks that are read in place, in a mapping, are not looked up.
    pub hits: u64,
    /// Lookups since open whose block had to be read or decompressed.
    pub misses: u64,
    /// Blocks evicted since open. Includes blocks replaced by a concurrent read of the same block, and blocks too large
    /// to be kept. Blocks dropped by a change of the capacity, which empties the cache, are not counted.
    pub evictions: u64,
    /// Bytes of indexes, fences and filters of SSTs opened with [`crate::ReadMode::Pread`], about 7 for each record.
    /// They are held outside the cache.
    pub section_bytes: u64,
}

/// File and block number. File ids are never reused, so blocks of a removed file just become cold.
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

/// Counts evictions, and otherwise drops blocks as the cache does by default: after releasing its locks.
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
        // Shards share the capacity evenly and round up, which must not exceed the capacity.
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(items)
            .weight_capacity((capacity / shards * shards) as u64)
            // A block larger than the hot part is not kept: leave some of the shard to blocks that were used once.
            .hot_allocation(0.9)
            .build();
        let blocks = match options {
            Ok(options) => Blocks::with_options(options, ByLength, Default::default(), lifecycle),
            // Both required values are set, so this cannot happen; if it did, a cache with default options would do.
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

    /// Replaces the cache by an empty one, if the capacity changed.
    pub(super) fn set_capacity(&self, capacity: usize) {
        if self.blocks.load().capacity != capacity {
            self.blocks.store(Arc::new(Store::new(capacity, self.lifecycle.clone())));
        }
    }

    /// Looks up a block. `touch` makes the lookup count towards keeping the block in the cache.
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
            assert!(cache.get(1, 0, true).is_some(), "a block in constant use was evicted");
        }
    }

    #[test]
    fn bytes_are_those_of_the_blocks() {
        let cache = BlockCache::new(1 << 20);
        for n in 0..10 {
            cache.insert(1, n, &block(100));
            cache.insert(1, n, &block(100)); // the same block again
        }
        assert_eq!(cache.stats(0).bytes, 10 * (100 + ENTRY_OVERHEAD as u64));
        assert_eq!(cache.stats(0).evictions, 10);
        cache.insert(1, 99, &block(2 << 20)); // larger than the whole cache
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
