//! What the tests share: a seeded generator, a model of the database with its history, tiny settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kstone_core::clock::ManualClock;
use kstone_core::lsm::Direction;
use kstone_core::lsm::{EngineOptions, LsmEngine, Snapshot, Workers, WriteBatch};
use kstone_core::vfs::Vfs;
use kstone_core::{CompactionConfig, Compression, DatabaseConfig, Key, MemtableMode, ReadMode, SortRange};

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `n` - 1.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub(crate) type Entry = (Key<'static>, Vec<u8>);
pub(crate) type State = BTreeMap<Key<'static>, Vec<u8>>;
/// The puts and deletes of one commit.
pub(crate) type Change = Vec<(Key<'static>, Option<Vec<u8>>)>;

pub(crate) fn apply(state: &mut State, change: &Change) {
    for (key, value) in change {
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
}

/// A small key space, so that keys meet again; zero bytes, missing and empty sort keys among them.
pub(crate) fn random_key(rng: &mut Rng) -> Key<'static> {
    let partition = match rng.below(8) {
        0 => b"a\0b".to_vec(),
        1 => b"a".to_vec(),
        n => format!("part{n}").into_bytes(),
    };
    match rng.below(12) {
        0 => Key::new(partition),
        1 => Key::with_sort(partition, Vec::new()),
        n => Key::with_sort(partition, format!("s{n}").into_bytes()),
    }
}

pub(crate) fn random_value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(50) {
        0 => 3000,
        1 => 0,
        n => n,
    };
    let byte = rng.next() as u8;
    vec![byte; len as usize]
}

pub(crate) fn random_change(rng: &mut Rng, ops: u64) -> Change {
    (0..ops)
        .map(|_| {
            let key = random_key(rng);
            let value = if rng.below(4) == 0 { None } else { Some(random_value(rng)) };
            (key, value)
        })
        .collect()
}

pub(crate) fn batch_of(change: &Change) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for (key, value) in change {
        match value {
            Some(value) => batch.put(key.clone(), value.clone()),
            None => batch.delete(key.clone()),
        };
    }
    batch
}

/// Settings so small that every path is reached within a hundred operations.
pub(crate) fn tiny(rng: &mut Rng) -> (DatabaseConfig, CompactionConfig) {
    let config = DatabaseConfig::new()
        .with_stripes(1 << rng.below(4))
        .with_max_memtable_records(2 + rng.below(19) as usize)
        .with_block_size(64 + rng.below(200) as usize)
        .with_target_sst_size(4096)
        .with_bloom_bits_per_key(1 + rng.below(12) as usize)
        .with_wal_segment_size(16 << 10);
    let compression = [Compression::Never, Compression::Older, Compression::Always][rng.below(3) as usize];
    let config = config
        .with_compression(compression)
        .with_read_mode(if rng.below(2) == 0 { ReadMode::Mmap } else { ReadMode::Pread })
        .with_block_cache_bytes(64 << 10 << rng.below(3));
    (config, CompactionConfig::new().with_sst_threshold(2 + rng.below(2) as usize))
}

/// As [`tiny`], with limits and rhythms at random too: one in three with a limit on disk space, some of them tight.
pub(crate) fn any(rng: &mut Rng) -> (DatabaseConfig, CompactionConfig) {
    let (mut config, mut compaction) = tiny(rng);
    if rng.below(3) == 0 {
        config = config.with_max_total_disk_bytes((512 << 10) << [0, 0, 1, 4][rng.below(4) as usize]);
    }
    if rng.below(2) == 0 {
        config = config.with_write_buffer_size(64 << rng.below(8));
    }
    if rng.below(3) == 0 {
        // Two segments, the largest batch of these tests, and up to as much again.
        let config_of = |config: DatabaseConfig| config.with_max_item_bytes(4096).with_max_key_bytes(100);
        config = config_of(config).with_max_wal_size_bytes((96 << 10) + 4096 * rng.below(24));
    }
    if rng.below(3) == 0 {
        config = config.with_recovery_target(Duration::from_millis(1 + rng.below(20)));
    }
    if rng.below(3) == 0 {
        config = config.with_memtable_mode(MemtableMode::Adaptive);
    }
    if rng.below(4) == 0 {
        config = config.with_memory_budget(1000 + rng.below(20_000) as usize);
    }
    if rng.below(3) == 0 {
        config = config.with_stats_snapshot_interval(Duration::from_millis(1 + rng.below(50)));
    }
    config = config.with_latency_sampling([0, 1, 3, 64][rng.below(4) as usize]);
    if rng.below(2) == 0 {
        compaction = compaction
            .with_tombstone_age(Duration::from_millis(1 + rng.below(5000)))
            .with_tombstone_percent(1 + rng.below(100) as u32)
            .with_garbage_percent(1 + rng.below(300) as u32)
            .with_idle_compaction(rng.below(2) == 0)
            .with_dephasing(rng.below(2) == 0)
            .with_check_interval(1 + rng.below(60))
            .with_max_concurrent(1 + rng.below(4) as usize);
    }
    if rng.below(8) == 0 {
        compaction.enabled = false;
    }
    (config, compaction)
}

/// The files of the database, each in whole pages.
pub(crate) fn listed(vfs: &dyn Vfs) -> u64 {
    let entries = vfs.list(std::path::Path::new("db")).unwrap();
    entries.iter().map(|entry| entry.len.next_multiple_of(4096)).sum()
}

/// Everything on one thread, time standing still.
pub(crate) fn manual(vfs: Arc<dyn Vfs>, seed: u64) -> EngineOptions {
    let mut options = EngineOptions::on(vfs);
    options.clock = Arc::new(ManualClock::new(seed));
    options.workers = Workers::Manual;
    options
}

/// All items, by an ordered scan.
pub(crate) fn contents(engine: &LsmEngine, snapshot: Option<&Snapshot>) -> Vec<Entry> {
    let scan = engine.scan(b"", Direction::Forward, snapshot).unwrap();
    scan.map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap()).collect()
}

pub(crate) fn entries(state: &State) -> Vec<Entry> {
    state.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Compares every way of reading with the model.
pub(crate) fn check_all(engine: &LsmEngine, state: &State, snapshot: Option<&Snapshot>, context: &str) {
    let expected = entries(state);
    assert_eq!(contents(engine, snapshot), expected, "scan, {context}");
    let mut reverse: Vec<Entry> = engine
        .scan(b"", Direction::Reverse, snapshot)
        .unwrap()
        .map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap())
        .collect();
    reverse.reverse();
    assert_eq!(reverse, expected, "reverse scan, {context}");
    let mut by_stripe: Vec<Entry> = (0..engine.stripe_count())
        .flat_map(|stripe| engine.scan_stripe(stripe, snapshot).unwrap())
        .map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap())
        .collect();
    by_stripe.sort();
    assert_eq!(by_stripe, expected, "scan by stripe, {context}");
}

pub(crate) fn check_query(
    engine: &LsmEngine,
    state: &State,
    snapshot: Option<&Snapshot>,
    rng: &mut Rng,
    context: &str,
) {
    let partition = random_key(rng).partition().to_vec();
    let bound = |rng: &mut Rng| {
        let sort = random_key(rng).sort().unwrap_or_default().to_vec();
        match rng.below(3) {
            0 => std::ops::Bound::Unbounded,
            1 => std::ops::Bound::Included(sort),
            _ => std::ops::Bound::Excluded(sort),
        }
    };
    let range = match rng.below(3) {
        0 => SortRange::All,
        1 => SortRange::Prefix(b"s1".to_vec()),
        _ => SortRange::Between(bound(rng), bound(rng)),
    };
    let within = |key: &Key<'_>| {
        key.partition() == partition
            && match &range {
                SortRange::All => true,
                SortRange::Prefix(prefix) => key.sort().is_some_and(|sort| sort.starts_with(prefix)),
                SortRange::Between(from, to) => key.sort().is_some_and(|sort| {
                    let sort = sort.to_vec();
                    std::ops::RangeBounds::contains(&(from.clone(), to.clone()), &sort)
                }),
            }
    };
    let mut expected: Vec<Entry> = entries(state).into_iter().filter(|(key, _)| within(key)).collect();
    let direction = if rng.below(2) == 0 { Direction::Forward } else { Direction::Reverse };
    if direction == Direction::Reverse {
        expected.reverse();
    }
    let got: Vec<Entry> = engine
        .query(&partition, &range, direction, snapshot)
        .unwrap()
        .map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap())
        .collect();
    assert_eq!(got, expected, "query {range:?} {direction:?} of {partition:?}, {context}");
}

/// What a file system around `self.inner` does that is not about files: the same as that one.
macro_rules! pass_on_names {
    () => {
        fn list(&self, dir: &std::path::Path) -> std::io::Result<Vec<kstone_core::vfs::DirEntry>> {
            self.inner.list(dir)
        }
        fn kind(&self, path: &std::path::Path) -> std::io::Result<Option<kstone_core::vfs::PathKind>> {
            self.inner.kind(path)
        }
        fn create_dir(&self, dir: &std::path::Path) -> std::io::Result<()> {
            self.inner.create_dir(dir)
        }
        fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
            self.inner.rename(from, to)
        }
        fn remove(&self, path: &std::path::Path) -> std::io::Result<()> {
            self.inner.remove(path)
        }
        fn sync_dir(&self, dir: &std::path::Path) -> std::io::Result<()> {
            self.inner.sync_dir(dir)
        }
        fn lock(&self, path: &std::path::Path, owner: &str) -> std::io::Result<Box<dyn Send + Sync>> {
            self.inner.lock(path, owner)
        }
        fn hard_link(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
            self.inner.hard_link(from, to)
        }
        fn identity(
            &self,
            path: &std::path::Path,
        ) -> std::io::Result<Option<kstone_core::vfs::FileIdentity>> {
            self.inner.identity(path)
        }
        fn lock_shared(&self, path: &std::path::Path) -> std::io::Result<Option<Box<dyn Send + Sync>>> {
            self.inner.lock_shared(path)
        }
    };
}

pub(crate) use pass_on_names;
