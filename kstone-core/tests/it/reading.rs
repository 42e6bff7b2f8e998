//! How SSTs are written and read: compression, the read mode, the block cache, filters and their costs. Reads, mappings
//! and open files are counted below the engine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kstone_core::lsm::{Direction, EngineStats, LsmEngine, WriteOptions};
use kstone_core::vfs::{Call, Errno, FaultVfs, MemVfs, Op, OpenMode, Rule, RuleHandle, Vfs};
use kstone_core::{CompactionConfig, Compression, DatabaseConfig, Error, Key, ReadMode};

use crate::model::manual;

const DB: &str = "db";

/// Counts the operations on SSTs.
#[derive(Clone, Debug)]
struct CountingVfs {
    vfs: FaultVfs,
    reads: RuleHandle,
    maps: RuleHandle,
    created: RuleHandle,
    most_open: Arc<AtomicU64>,
}

impl Default for CountingVfs {
    fn default() -> Self {
        let vfs = FaultVfs::new(Arc::new(MemVfs::new()));
        let count = |op| vfs.add(Rule::hook(|_| Ok(())).on(&[op]).files("*.sst"));
        let (reads, maps, created) = (count(Op::Read), count(Op::Map), count(Op::Create));
        let (most_open, counting) = (Arc::<AtomicU64>::default(), vfs.clone());
        let most = Arc::clone(&most_open);
        let opened = Rule::hook(move |_| {
            most.fetch_max(1 + counting.open_now("*.sst").len() as u64, Ordering::Relaxed);
            Ok(())
        });
        vfs.add(opened.on(&[Op::OpenRead, Op::OpenWrite]).files("*.sst"));
        Self { vfs, reads, maps, created, most_open }
    }
}

impl CountingVfs {
    fn reads(&self) -> u64 {
        self.reads.seen()
    }

    /// Mappings for reading. The writer of a file also maps it, to keep it in the page cache, but never reads from that
    /// mapping.
    fn maps(&self) -> u64 {
        self.maps.seen() - self.created.seen()
    }
}

/// One stripe, flushed and merged only on request.
fn config() -> DatabaseConfig {
    DatabaseConfig::new().with_stripes(1).with_max_memtable_records(1_000_000)
}

fn engine_with(vfs: &CountingVfs, config: DatabaseConfig, compaction: CompactionConfig) -> LsmEngine {
    let mut options = manual(Arc::new(vfs.vfs.clone()), 1);
    (options.config, options.compaction) = (Some(config), Some(compaction));
    LsmEngine::create(Path::new(DB), options).unwrap()
}

fn engine(vfs: &CountingVfs, config: DatabaseConfig) -> LsmEngine {
    engine_with(vfs, config, CompactionConfig::disabled())
}

fn key(n: usize) -> Key<'static> {
    Key::new(format!("k{n:06}").into_bytes())
}

/// Text that compresses well.
fn text(n: usize) -> Vec<u8> {
    format!("{{\"number\": {n}, \"status\": \"delivered\", \"country\": \"Switzerland\"}} ")
        .repeat(4)
        .into_bytes()
}

/// Incompressible bytes.
fn noise(n: usize) -> Vec<u8> {
    let mut rng = crate::model::Rng(n as u64);
    (0..30).flat_map(|_| rng.next().to_le_bytes()).collect()
}

fn fill(engine: &LsmEngine, keys: std::ops::Range<usize>, value: fn(usize) -> Vec<u8>) {
    for n in keys {
        engine.put(&key(n), &value(n), WriteOptions::new()).unwrap();
    }
    engine.flush().unwrap();
}

fn check(engine: &LsmEngine, keys: std::ops::Range<usize>, value: fn(usize) -> Vec<u8>) {
    for n in keys {
        assert_eq!(engine.get(&key(n)).unwrap().as_deref(), Some(&*value(n)), "key {n}");
    }
}

fn stats(engine: &LsmEngine) -> EngineStats {
    let stats = engine.stats().unwrap();
    let cache = stats.block_cache;
    assert!(cache.bytes <= cache.capacity, "{cache:?}");
    stats
}

/// The size of SSTs after a flush, and after a full merge.
fn flushed_and_merged(compression: Compression, value: fn(usize) -> Vec<u8>) -> (u64, u64) {
    let engine = engine(&CountingVfs::default(), config().with_compression(compression));
    fill(&engine, 0..500, value);
    let flushed = stats(&engine).sst_bytes;
    check(&engine, 0..500, value);
    engine.trigger_compaction(0).unwrap();
    let merged = stats(&engine).sst_bytes;
    check(&engine, 0..500, value);
    assert_eq!(engine.scan(b"", Direction::Reverse, None).unwrap().count(), 500);
    assert_eq!(engine.verify().unwrap(), 1);
    (flushed, merged)
}

#[test]
fn compression_says_which_blocks_shrink() {
    let plain = flushed_and_merged(Compression::Never, text);
    assert_eq!(plain.0, plain.1);
    let older = flushed_and_merged(Compression::Older, text);
    assert_eq!(older.0, plain.0, "a flush was compressed");
    assert!(older.1 < plain.1 / 3, "{older:?}, plain {plain:?}");
    let always = flushed_and_merged(Compression::Always, text);
    assert_eq!(always, (older.1, older.1));
    // Values that do not shrink are stored uncompressed.
    let noise = [Compression::Never, Compression::Always].map(|mode| flushed_and_merged(mode, noise));
    assert_eq!(noise[0], noise[1]);
}

#[test]
fn older_compresses_only_merges_that_take_in_the_oldest_run() {
    let compaction = CompactionConfig::new().with_sst_threshold(3);
    let engine =
        engine_with(&CountingVfs::default(), config().with_compression(Compression::Older), compaction);
    let merge = |keys: std::ops::Range<usize>| {
        fill(&engine, keys, text);
        while engine.step(0) {}
        (stats(&engine).stripes[0].runs, stats(&engine).sst_bytes, stats(&engine).compactions)
    };
    let raw = |keys: usize| keys as u64 * text(0).len() as u64;
    merge(0..200);
    let (_, two_runs, compactions) = merge(200..400);
    assert!(compactions == 0 && two_runs > raw(400), "{two_runs}");
    let (runs, oldest, compactions) = merge(400..600);
    assert!((runs, compactions) == (1, 1) && oldest < raw(600) / 3, "{runs}, {oldest}");
    merge(600..800);
    let (runs, all, compactions) = merge(800..1_000);
    assert_eq!((runs, compactions), (2, 2));
    assert!(all - oldest > raw(400), "a merge above the oldest run was compressed: {all} - {oldest}");
    check(&engine, 0..1_000, text);
}

#[test]
fn compression_changes_live() {
    let engine = engine(&CountingVfs::default(), config().with_compression(Compression::Never));
    fill(&engine, 0..500, text);
    let plain = stats(&engine).sst_bytes;
    engine.set_config(engine.config().with_compression(Compression::Always)).unwrap();
    fill(&engine, 500..1_000, text);
    assert!(stats(&engine).sst_bytes < plain * 4 / 3);
    check(&engine, 0..1_000, text);
}

#[test]
fn read_mode_maps_or_reads() {
    for (compression, mode) in [
        (Compression::Never, ReadMode::Mmap),
        (Compression::Always, ReadMode::Mmap),
        (Compression::Never, ReadMode::Pread),
        (Compression::Always, ReadMode::Pread),
    ] {
        let vfs = CountingVfs::default();
        let engine = engine(&vfs, config().with_compression(compression).with_read_mode(mode));
        fill(&engine, 0..500, text);
        check(&engine, 0..500, text);
        let (maps, reads) = (vfs.maps(), vfs.reads());
        let cache = stats(&engine).block_cache;
        match mode {
            ReadMode::Mmap => assert_eq!((maps, reads, cache.section_bytes), (1, 0, 0)),
            _ => assert!(maps == 0 && reads > 10 && cache.section_bytes > 2_500, "{reads}, {cache:?}"),
        }
        // Uncompressed blocks in a mapping are read in place.
        let in_place = (compression, mode) == (Compression::Never, ReadMode::Mmap);
        assert_eq!((cache.bytes == 0, cache.hits == 0, cache.misses == 0), (in_place, in_place, in_place));
    }
}

#[test]
fn read_mode_changes_live_for_files_opened_from_then_on() {
    let vfs = CountingVfs::default();
    let engine = engine(&vfs, config().with_read_mode(ReadMode::Pread));
    fill(&engine, 0..500, noise);
    check(&engine, 0..500, noise);
    assert_eq!(vfs.maps(), 0);
    engine.set_config(engine.config().with_read_mode(ReadMode::Mmap)).unwrap();
    fill(&engine, 500..1_000, noise);
    check(&engine, 0..1_000, noise);
    assert_eq!(vfs.maps(), 1);
    // The merged file is a new one, and the cached blocks of the old ones are released.
    engine.trigger_compaction(0).unwrap();
    check(&engine, 0..1_000, noise);
    assert_eq!((vfs.maps(), stats(&engine).block_cache.section_bytes), (2, 0));
}

#[test]
fn block_cache_bytes_bounds_the_cache_and_saves_reads() {
    let reads_with = |bytes: usize| {
        let vfs = CountingVfs::default();
        let engine = engine(&vfs, config().with_read_mode(ReadMode::Pread).with_block_cache_bytes(bytes));
        fill(&engine, 0..2_000, noise);
        let mut rng = crate::model::Rng(1);
        let mut held = Vec::new();
        for n in 0..6_000 {
            let at = rng.below(2_000) as usize;
            let value = engine.get(&key(at)).unwrap().unwrap();
            assert_eq!(*value, *noise(at));
            if n % 50 == 0 {
                held.push((at, value)); // remains valid whatever happens to its block
                stats(&engine);
            }
        }
        assert!(held.iter().all(|(at, value)| **value == *noise(*at)));
        let cache = stats(&engine).block_cache;
        // A get reads one block, or two if the index leads to another key first.
        assert!(cache.capacity == bytes as u64 && (6_000..6_100).contains(&(cache.hits + cache.misses)));
        assert!(cache.bytes > bytes.min(480_000) as u64 / 2, "{cache:?}");
        // Blocks that were read but are no longer cached were evicted.
        let there = cache.misses - cache.evictions;
        assert!((cache.bytes / 4500..=cache.bytes / 2000).contains(&there), "{cache:?}");
        // One pread for each uncached block, and a few to open the file.
        assert!((cache.misses..cache.misses + 5).contains(&vfs.reads()));
        vfs.reads()
    };
    let reads = [64 << 10, 256 << 10, 1 << 20].map(reads_with);
    assert!(reads[0] > reads[1] * 3 / 2 && reads[1] > reads[2] * 3, "{reads:?}");
    assert!(reads[2] < 200, "all blocks fit, but there were {} reads", reads[2]);
}

#[test]
fn block_cache_bytes_changes_live() {
    let engine = engine(&CountingVfs::default(), config().with_read_mode(ReadMode::Pread));
    fill(&engine, 0..2_000, noise);
    check(&engine, 0..2_000, noise);
    assert!(stats(&engine).block_cache.bytes > 400_000);
    engine.set_config(engine.config().with_block_cache_bytes(64 << 10)).unwrap();
    check(&engine, 0..2_000, noise);
    let cache = stats(&engine).block_cache;
    assert!(cache.capacity == 64 << 10 && cache.bytes > 32 << 10, "{cache:?}");
}

#[test]
fn scans_and_merges_leave_the_cache_to_gets() {
    let vfs = CountingVfs::default();
    let config = config().with_read_mode(ReadMode::Pread).with_block_cache_bytes(64 << 10);
    let engine = engine(&vfs, config);
    fill(&engine, 0..2_000, noise);
    let hot = || check(&engine, 700..780, noise);
    hot();
    hot();
    let before = stats(&engine).block_cache;
    assert_eq!(engine.scan(b"", Direction::Forward, None).unwrap().count(), 2_000);
    assert_eq!(engine.scan(b"", Direction::Reverse, None).unwrap().count(), 2_000);
    engine.verify().unwrap();
    let scanned = stats(&engine).block_cache;
    assert_eq!(scanned.bytes, before.bytes);
    hot();
    assert_eq!(stats(&engine).block_cache.misses, scanned.misses, "blocks used by gets were evicted");
    // A query may cache what it reads, as it is likely to be repeated.
    let query =
        || engine.query(b"k001500", &kstone_core::SortRange::All, Direction::Forward, None).unwrap().count();
    assert_eq!(query(), 1);
    let reads = vfs.reads();
    assert_eq!((query(), vfs.reads()), (1, reads));
    // A scan reads each block once.
    assert_eq!(engine.scan(b"", Direction::Forward, None).unwrap().count(), 2_000);
    assert!(vfs.reads() - reads < 2_000 / 8, "{} reads", vfs.reads() - reads);
}

#[test]
fn a_batch_get_answers_as_gets_do_at_one_moment() {
    let engine = engine(&CountingVfs::default(), config().with_stripes(4));
    fill(&engine, 0..300, text);
    fill(&engine, 100..200, noise);
    for n in (0..300).step_by(7) {
        engine.delete(&key(n), WriteOptions::new()).unwrap();
    }
    let snapshot = engine.snapshot().unwrap();
    for n in (0..300).step_by(3) {
        engine.put(&key(n), b"new", WriteOptions::new()).unwrap();
    }
    // Far more than are prefetched together, some absent, one twice.
    let keys: Vec<_> = (0..400).rev().chain([5]).map(key).collect();
    let one_by_one = |get: &dyn Fn(&Key<'_>) -> _| keys.iter().map(get).collect::<Vec<_>>();
    let now = one_by_one(&|key| engine.get(key).unwrap());
    let then = one_by_one(&|key| engine.get_at(key, &snapshot).unwrap());
    assert_ne!(now, then);
    let before = stats(&engine).operations.gets;
    assert_eq!(engine.batch_get(&keys, None).unwrap(), now);
    assert_eq!(engine.batch_get(&keys, Some(&snapshot)).unwrap(), then);
    assert_eq!(stats(&engine).operations.gets - before, 2 * keys.len() as u64);
    assert!(engine.batch_get(&[], None).unwrap().is_empty());
    let bad = [key(1), Key::new(Vec::new())];
    assert!(matches!(engine.batch_get(&bad, None), Err(Error::InvalidKey { .. })));
}

#[test]
fn few_files_are_open_however_many_there_are() {
    let vfs = CountingVfs::default();
    let config = config().with_read_mode(ReadMode::Pread).with_target_sst_size(4 << 10);
    let engine = engine(&vfs, config.with_compression(Compression::Never));
    fill(&engine, 0..6_000, noise);
    let ssts = stats(&engine).stripes[0].ssts;
    assert!(ssts > 300, "{ssts} SSTs");
    check(&engine, 0..6_000, noise);
    assert_eq!(engine.scan(b"", Direction::Forward, None).unwrap().count(), 6_000);
    let most = vfs.most_open.load(Ordering::Relaxed);
    assert!((20..=40).contains(&most), "{most} were open at once");
    // A removed file that is still open takes space.
    engine.trigger_compaction(0).unwrap();
    let listing = vfs.vfs.list(Path::new(DB)).unwrap();
    let paths: Vec<_> = listing.into_iter().map(|entry| Path::new(DB).join(entry.name)).collect();
    let open = vfs.vfs.open_now("*.sst");
    assert!(open.iter().all(|path| paths.contains(path)), "{open:?}");
    drop(engine);
    assert!(vfs.vfs.open_now("*.sst").is_empty());
}

#[test]
fn a_bad_sector_is_an_error_as_long_as_it_is_bad() {
    let vfs = CountingVfs::default();
    let engine = engine(&vfs, config().with_read_mode(ReadMode::Pread));
    fill(&engine, 0..500, noise);
    engine.get(&key(3)).unwrap();
    vfs.vfs.clear();
    vfs.vfs.add(Rule::fail(Errno::Io).on(&[Op::Read]).files("*.sst"));
    for _ in 0..2 {
        assert!(matches!(engine.get(&key(400)), Err(Error::Io { .. })));
        assert!(engine.get(&key(3)).unwrap().is_some()); // from the cache
    }
    assert!(matches!(engine.verify(), Err(Error::Io { .. })));
    vfs.vfs.clear();
    check(&engine, 0..500, noise);
}

#[test]
fn damage_in_compressed_blocks_is_found_each_time() {
    for mode in [ReadMode::Mmap, ReadMode::Pread] {
        let vfs = CountingVfs::default();
        let engine = engine(&vfs, config().with_read_mode(mode).with_compression(Compression::Always));
        fill(&engine, 0..500, text);
        let name =
            vfs.vfs.list(Path::new(DB)).unwrap().into_iter().find(|e| e.name.ends_with(".sst")).unwrap().name;
        let path = Path::new(DB).join(&name);
        let file = vfs.vfs.inner().open(&path, OpenMode::Write).unwrap();
        // After the header, in the first block.
        let mut byte = [0];
        file.read_at(&mut byte, 300).unwrap();
        file.write_at(&[byte[0] ^ 4], 300).unwrap();
        for _ in 0..3 {
            match engine.get(&key(0)) {
                Err(Error::Corruption { file, offset, .. }) => {
                    assert_eq!((file, offset), (path.clone(), 128), "{mode:?}");
                }
                other => panic!("{mode:?}: {other:?}"),
            }
        }
        assert!(matches!(engine.verify(), Err(Error::Corruption { .. })));
        assert!(engine.scan(b"", Direction::Forward, None).is_err());
        check(&engine, 400..500, text);
        file.write_at(&byte, 300).unwrap();
        if mode == ReadMode::Pread {
            check(&engine, 0..500, text);
            engine.verify().unwrap();
        }
    }
}

#[test]
fn filters_are_counted_and_as_wrong_as_predicted() {
    let engine = engine(&CountingVfs::default(), config().with_bloom_bits_per_key(6));
    for run in 0..3 {
        fill(&engine, run * 2_000..(run + 1) * 2_000, noise);
    }
    assert_eq!(stats(&engine).filter, Default::default());
    // In the newest run: one test each.
    check(&engine, 4_000..6_000, noise);
    let filter = stats(&engine).filter;
    assert_eq!((filter.tests, filter.negatives, filter.false_positives), (2_000, 0, 0));
    let absent = 20_000;
    for n in 0..absent {
        assert_eq!(engine.get(&key(100_000 + n)).unwrap(), None);
    }
    let filter = stats(&engine).filter;
    assert_eq!(filter.tests, 2_000 + 3 * absent as u64);
    assert_eq!(filter.negatives + filter.false_positives, 3 * absent as u64);
    let rate = filter.false_positives as f64 / (3 * absent) as f64;
    assert!((filter.measured_rate - rate).abs() < 1e-12);
    println!("6 bits: measured {:.4}, predicted {:.4}", filter.measured_rate, filter.predicted_rate);
    assert!((0.045..0.07).contains(&filter.measured_rate), "{filter:?}");
    assert!((filter.measured_rate / filter.predicted_rate - 1.0).abs() < 0.1, "{filter:?}");
    // Verifying and scanning use no filters.
    engine.verify().unwrap();
    engine.scan(b"", Direction::Forward, None).unwrap().count();
    assert_eq!(stats(&engine).filter, filter);
}

#[test]
fn memory_of_filters_and_indexes_is_known_without_opening_ssts() {
    const KEYS: usize = 50_000;
    for mode in [ReadMode::Mmap, ReadMode::Pread] {
        let vfs = CountingVfs::default();
        let engine = engine(&vfs, config().with_read_mode(mode).with_bloom_bits_per_key(16));
        assert_eq!(
            (engine.estimate_bloom_memory().unwrap(), engine.estimate_index_memory().unwrap()),
            (0, 0)
        );
        fill(&engine, 0..KEYS, noise);
        let estimates = || (engine.estimate_bloom_memory().unwrap(), engine.estimate_index_memory().unwrap());
        let (filter, index) = estimates();
        // 2 MB for a million keys at 16 bits; 4 bytes per slot at a load of 0.8.
        let expected = KEYS as u64 * 2;
        assert!(filter.abs_diff(expected) < expected / 10, "{filter} bytes of filters");
        assert!((KEYS as u64 * 5..KEYS as u64 * 8).contains(&index), "{index} bytes of indexes");
        assert!(vfs.maps() == 0 && vfs.reads() <= 2, "{} reads", vfs.reads());
        let reads = vfs.reads();
        assert_eq!((estimates(), vfs.reads()), ((filter, index), reads));
        check(&engine, 0..100, noise);
        assert_eq!(estimates(), (filter, index));
        if mode == ReadMode::Pread {
            let held = stats(&engine).block_cache.section_bytes;
            assert!(held.abs_diff(filter + index) < 1_000, "{held} bytes of {filter} + {index}");
        }
    }
}

/// Symptom: a get during a close reported that an SST is listed but missing. Cause: a close removes files that were
/// merged away, even if a reader still pins them, and the get had not opened the file yet. Fix: an error that occurs
/// after a close is reported as `Closed`, as iterators do.
#[test]
fn a_read_that_a_close_overtakes_says_so() {
    type Read = fn(&LsmEngine) -> Option<Error>;
    let reads: [Read; 3] = [
        |engine| engine.get(&key(0)).err(),
        |engine| {
            engine
                .scan(b"", Direction::Forward, None)
                .and_then(|mut entries| entries.next().transpose())
                .err()
        },
        |engine| engine.verify().err(),
    ];
    for mode in [ReadMode::Mmap, ReadMode::Pread] {
        for read in reads {
            let vfs = CountingVfs::default();
            let engine =
                Arc::new(engine_with(&vfs, config().with_read_mode(mode), CompactionConfig::disabled()));
            for _ in 0..2 {
                engine.put(&key(0), b"v", WriteOptions::new()).unwrap();
                engine.flush().unwrap();
            }
            let closing = Arc::downgrade(&engine);
            let overtake = move |_: &Call<'_>| {
                let engine = closing.upgrade().unwrap();
                engine.trigger_compaction(0).unwrap();
                engine.close().unwrap();
                Ok(())
            };
            vfs.vfs.clear();
            let overtaken = vfs.vfs.add(Rule::hook(overtake).on(&[Op::OpenRead]).files("*.sst").nth(1));
            let error = read(&engine);
            assert!(matches!(error, Some(Error::Closed)), "{mode:?}: {error:?}");
            assert_eq!(overtaken.hits(), 1);
        }
    }
}
