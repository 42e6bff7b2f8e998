//! When stripes are compacted, and at what cost: measured by the lengths of the files written.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kstone_core::clock::ManualClock;
use kstone_core::lsm::{CompactionReason, CompactionStats, EngineOptions, LsmEngine, WriteOptions};
use kstone_core::vfs::MemVfs;
use kstone_core::{CompactionConfig, Compression, DatabaseConfig, Key};

use crate::model::{Rng, manual};

const DB: &str = "db";
const HOUR: Duration = Duration::from_secs(3600);

/// A single-threaded engine, its files and its clock.
struct Fixture {
    vfs: Arc<MemVfs>,
    clock: Arc<ManualClock>,
    engine: LsmEngine,
}

impl Fixture {
    fn with_stripes(stripes: usize, compaction: CompactionConfig) -> Self {
        let (vfs, clock) = (Arc::new(MemVfs::new()), Arc::new(ManualClock::new(1)));
        let mut options = Self::options(&vfs, &clock);
        // Uncompressed, so that bytes measure records.
        let config = DatabaseConfig::new().with_stripes(stripes).with_max_memtable_records(1 << 20);
        options.config = Some(config.with_compression(Compression::Never));
        options.compaction = Some(compaction);
        let engine = LsmEngine::create(Path::new(DB), options).unwrap();
        // The first sweep finds nothing.
        while engine.step(0) {}
        Self { vfs, clock, engine }
    }

    fn new(compaction: CompactionConfig) -> Self {
        Self::with_stripes(1, compaction)
    }

    fn options(vfs: &Arc<MemVfs>, clock: &Arc<ManualClock>) -> EngineOptions {
        let mut options = manual(Arc::<MemVfs>::clone(vfs), 1);
        options.clock = Arc::<ManualClock>::clone(clock);
        options
    }

    /// Closes the database and reopens it, with other compaction settings if given.
    fn reopen(self, compaction: Option<CompactionConfig>) -> Self {
        self.engine.close().unwrap();
        let mut options = Self::options(&self.vfs, &self.clock);
        options.compaction = compaction;
        let engine = LsmEngine::open(Path::new(DB), options).unwrap();
        Self { engine, ..self }
    }

    fn put(&self, keys: impl IntoIterator<Item = u64>) {
        for n in keys {
            self.engine.put(&key(n), &[n as u8; 100], WriteOptions::new()).unwrap();
        }
    }

    fn delete(&self, keys: impl IntoIterator<Item = u64>) {
        for n in keys {
            self.engine.delete(&key(n), WriteOptions::new()).unwrap();
        }
    }

    /// Flushes, then does all background work that is due.
    fn flush(&self) -> CompactionStats {
        self.engine.flush().unwrap();
        self.drain()
    }

    fn put_and_flush(&self, keys: impl IntoIterator<Item = u64>) -> CompactionStats {
        self.put(keys);
        self.flush()
    }

    fn drain(&self) -> CompactionStats {
        let mut steps = 0;
        while self.engine.step(0) {
            steps += 1;
            assert!(steps < 1_000_000, "background work never ends");
        }
        self.engine.compaction_stats()
    }

    fn wait(&self, time: Duration) -> CompactionStats {
        self.clock.advance(time);
        self.drain()
    }

    fn runs(&self) -> usize {
        self.engine.stats().unwrap().stripes.iter().map(|stripe| stripe.runs).sum()
    }

    fn sst_bytes(&self) -> u64 {
        self.engine.stats().unwrap().sst_bytes
    }
}

fn key(n: u64) -> Key<'static> {
    Key::new(format!("key{n:09}").into_bytes())
}

/// Only the number of runs triggers a compaction.
fn plain(threshold: usize) -> CompactionConfig {
    CompactionConfig::new()
        .with_sst_threshold(threshold)
        .with_idle_compaction(false)
        .with_tombstone_age(Duration::MAX)
        .with_tombstone_percent(100)
        .with_garbage_percent(10_000)
}

fn reasons(stats: &CompactionStats) -> Vec<(CompactionReason, u64)> {
    stats.by_reason.iter().map(|of| (of.reason, of.count)).collect()
}

/// The figures of the policy (see `compaction.rs`), with real files and the default rules for garbage.
#[test]
fn inserts_are_rewritten_as_rarely_as_the_policy_promises() {
    for (threshold, limit) in [(5, 3.6), (10, 2.2), (20, 1.1)] {
        let config = CompactionConfig::new().with_sst_threshold(threshold).with_idle_compaction(false);
        let fixture = Fixture::new(config.with_tombstone_age(Duration::MAX));
        for flush in 0..100u64 {
            // In random order, so that the key ranges of runs overlap, but each key once.
            let keys = (flush * 200..(flush + 1) * 200).map(|n| n.wrapping_mul(7919) % 20_011);
            fixture.put_and_flush(keys);
            assert!(fixture.runs() < threshold);
        }
        let (stats, compactions) = (fixture.engine.stats().unwrap(), fixture.engine.compaction_stats());
        assert_eq!(compactions.by_reason.len(), 1, "{compactions:?}");
        let written = compactions.total_bytes_written as f64 / stats.flush_bytes_written as f64;
        println!(
            "inserts, 100 flushes, K = {threshold}: {written:.2} bytes written by compactions per byte flushed"
        );
        assert!(written <= limit, "{threshold}: {written}");
    }
}

/// Overwrites random keys; returns the bytes written by compactions per byte flushed, and the maximum space of SSTs per
/// live byte, before and after the compactions that a flush makes due.
fn uniform_updates(keys: u64, flushes: usize, records: usize) -> (f64, f64, f64) {
    let config = CompactionConfig::new().with_idle_compaction(false).with_tombstone_age(Duration::MAX);
    let fixture = Fixture::new(config);
    let (mut rng, mut live) = (Rng(9), BTreeSet::new());
    let mut space = Vec::new();
    for _ in 0..flushes {
        let chosen: Vec<u64> = (0..records).map(|_| rng.below(keys)).collect();
        live.extend(chosen.iter().copied());
        fixture.put(chosen);
        fixture.engine.flush().unwrap();
        let before = fixture.sst_bytes();
        fixture.drain();
        space.push((before, fixture.sst_bytes(), live.len()));
    }
    let (stats, compactions) = (fixture.engine.stats().unwrap(), fixture.engine.compaction_stats());
    let written = compactions.total_bytes_written as f64 / stats.flush_bytes_written as f64;
    fixture.engine.trigger_compaction(0).unwrap();
    let item = fixture.sst_bytes() as f64 / live.len() as f64;
    let worst = |of: fn(&(u64, u64, usize)) -> u64| {
        space.iter().map(|moment| of(moment) as f64 / (moment.2 as f64 * item)).fold(0.0, f64::max)
    };
    let (before, after) = (worst(|moment| moment.0), worst(|moment| moment.1));
    let average = space.iter().map(|m| m.1 as f64 / (m.2 as f64 * item)).sum::<f64>() / space.len() as f64;
    println!(
        "updates of {keys} keys, {flushes} flushes of {records}, K = 10: {written:.2} bytes written by compactions \
         per byte flushed; space at worst {before:.2} before a compaction, {after:.2} after, {average:.2} on average"
    );
    (written, before, after)
}

#[test]
fn updates_cost_little_writing_and_at_most_twice_the_space() {
    let (written, before, after) = uniform_updates(10_000, 1000, 100);
    assert!(written <= 2.7, "{written}");
    assert!(before <= 2.1 && after <= 2.1, "{before} {after}");
}

#[test]
fn updates_of_many_keys_cost_little_writing_and_at_most_twice_the_space() {
    let (written, before, after) = uniform_updates(100_000, 1000, 1000);
    assert!(written <= 2.7, "{written}");
    assert!(before <= 2.1 && after <= 2.1, "{before} {after}");
}

#[test]
fn garbage_percent_says_when_superseded_versions_are_dropped() {
    for (percent, due_at) in [(50, 1), (100, 2), (250, 5)] {
        let fixture = Fixture::new(plain(100).with_garbage_percent(percent));
        fixture.put_and_flush(0..2000);
        for half in 0..due_at {
            assert_eq!(fixture.engine.compaction_stats().total_compactions, 0, "{percent} {half}");
            let from = half % 2 * 1000;
            fixture.put_and_flush(from..from + 1000);
        }
        let stats = fixture.engine.compaction_stats();
        assert_eq!(reasons(&stats), [(CompactionReason::Garbage, 1)], "{percent}");
        assert_eq!((fixture.runs(), fixture.engine.stats().unwrap().stripes[0].entries), (1, 2000));
    }
}

/// The samples of keys are in the manifest; SSTs need not be read to know how many keys they share.
#[test]
fn what_runs_have_in_common_is_known_after_opening() {
    let fixture = Fixture::new(plain(100));
    fixture.put_and_flush(0..2000);
    fixture.put_and_flush(0..2000);
    for _ in 0..2 {
        fixture.engine.verify().unwrap();
    }
    let fixture = fixture.reopen(None);
    fixture.put([5]);
    assert_eq!(fixture.drain().total_compactions, 0);
    fixture.engine.set_compaction_config(plain(100).with_garbage_percent(100)).unwrap();
    assert_eq!(reasons(&fixture.drain()), [(CompactionReason::Garbage, 1)]);
}

#[test]
fn a_snapshot_causes_no_merge_twice() {
    let config = plain(100).with_garbage_percent(100).with_tombstone_percent(25).with_tombstone_age(HOUR);
    let fixture = Fixture::new(config.with_check_interval(60));
    fixture.put_and_flush(0..1000);
    let snapshot = fixture.engine.snapshot().unwrap();
    for round in 0..20 {
        fixture.put(0..1000);
        fixture.delete(0..if round % 2 == 0 { 500 } else { 0 });
        fixture.flush();
        fixture.wait(HOUR);
    }
    let stats = fixture.drain();
    assert_eq!(stats.total_compactions, 0, "no compaction could have dropped anything: {stats:?}");
    // If requested, it is done, and drops nothing; nor is it done again automatically.
    fixture.engine.trigger_compaction(0).unwrap();
    let stats = fixture.wait(HOUR);
    assert_eq!(reasons(&stats), [(CompactionReason::Requested, 1)]);
    assert!(!fixture.engine.needs_compaction(0).unwrap());
    // A younger snapshot takes its place: most of the garbage is still pinned.
    let younger = fixture.engine.snapshot().unwrap();
    fixture.put_and_flush(0..1);
    drop(snapshot);
    let stats = fixture.wait(HOUR);
    assert_eq!(
        stats.total_compactions, 2,
        "the versions pinned by the older snapshot are dropped, once: {stats:?}"
    );
    assert_eq!(fixture.wait(HOUR).total_compactions, 2);
    drop(younger);
    let stats = fixture.wait(HOUR);
    assert!(stats.total_compactions <= 3 && fixture.engine.stats().unwrap().stripes[0].entries <= 1001);
    assert_eq!(fixture.wait(HOUR).total_compactions, stats.total_compactions);
}

#[test]
fn tombstone_percent_says_when_tombstones_are_dropped() {
    for (percent, deleted) in [(10, 112), (25, 334), (60, 1501)] {
        let fixture = Fixture::new(plain(100).with_tombstone_percent(percent));
        fixture.put_and_flush(0..1000);
        fixture.delete(10_000..10_000 + deleted - 1);
        // The flush drops no tombstones: the stripe has older runs.
        assert_eq!(fixture.flush().total_compactions, 0, "{percent}");
        fixture.delete([20_000, 20_001]);
        let stats = fixture.flush();
        assert_eq!(reasons(&stats), [(CompactionReason::Tombstones, 1)], "{percent}");
        assert_eq!(stats.total_tombstones_removed, deleted + 1);
        assert_eq!(fixture.engine.stats().unwrap().stripes[0].entries, 1000);
    }
}

#[test]
fn tombstone_age_says_when_what_was_deleted_is_gone_from_the_disk() {
    let fixture = Fixture::new(plain(100).with_tombstone_age(24 * HOUR).with_check_interval(60));
    fixture.put_and_flush(0..1000);
    fixture.wait(HOUR);
    fixture.delete([7]);
    assert_eq!(fixture.flush().total_compactions, 0);
    assert_eq!(fixture.wait(12 * HOUR).total_compactions, 0);
    // A merge that does not include the oldest run keeps the tombstone, and its age.
    fixture.delete([8]);
    assert_eq!(fixture.flush().total_compactions, 0);
    assert_eq!(fixture.wait(12 * HOUR).total_compactions, 0);
    // Pinned by a reader: it happens later.
    let snapshot = fixture.engine.snapshot().unwrap();
    fixture.put([2000]);
    fixture.flush();
    drop(snapshot);
    let stats = fixture.wait(Duration::from_secs(60));
    assert_eq!(reasons(&stats), [(CompactionReason::TombstoneAge, 1)]);
    assert_eq!(
        (stats.total_tombstones_removed, fixture.engine.stats().unwrap().stripes[0].entries),
        (2, 999)
    );
    let never = Fixture::new(plain(100));
    never.put_and_flush(0..1000);
    never.delete([7]);
    never.flush();
    assert_eq!(never.wait(10_000 * HOUR).total_compactions, 0);
}

#[test]
fn an_aged_tombstone_waits_for_the_reader_that_needs_what_it_hides() {
    let fixture = Fixture::new(plain(100).with_tombstone_age(HOUR).with_check_interval(60));
    fixture.put_and_flush(0..10);
    let snapshot = fixture.engine.snapshot().unwrap();
    fixture.delete([7]);
    fixture.flush();
    for _ in 0..5 {
        assert_eq!(fixture.wait(HOUR).total_compactions, 0);
    }
    assert!(fixture.engine.get_at(&key(7), &snapshot).unwrap().is_some());
    drop(snapshot);
    assert_eq!(reasons(&fixture.wait(HOUR)), [(CompactionReason::TombstoneAge, 1)]);
}

#[test]
fn idle_compaction_merges_soon_after_the_last_flush() {
    for on in [true, false] {
        let fixture = Fixture::new(plain(10).with_idle_compaction(on));
        for flush in 0..6 {
            fixture.put_and_flush(flush * 10..flush * 10 + 10);
            assert_eq!(fixture.wait(Duration::from_millis(1999)).total_compactions, 0);
        }
        assert!(!fixture.engine.needs_compaction(0).unwrap());
        assert_eq!(fixture.engine.is_settled().unwrap(), !on);
        let stats = fixture.wait(Duration::from_millis(1));
        assert_eq!(reasons(&stats), if on { vec![(CompactionReason::Idle, 1)] } else { vec![] });
        assert_eq!(fixture.runs(), if on { 1 } else { 6 });
        assert!(fixture.engine.is_settled().unwrap());
        assert_eq!(fixture.wait(HOUR).total_compactions, u64::from(on));
        // Too little to rewrite everything for.
        fixture.put_and_flush(60..70);
        fixture.wait(HOUR);
        assert_eq!(fixture.runs(), if on { 2 } else { 7 });
    }
}

/// Readers often follow a load, and pay for each block that they have to decompress. But what was compressed stays so.
#[test]
fn idle_compaction_compresses_nothing_for_the_first_time() {
    let fixture = Fixture::new(plain(10).with_idle_compaction(true));
    fixture.engine.set_config(fixture.engine.config().with_compression(Compression::Older)).unwrap();
    let idle = |keys: std::ops::Range<u64>| {
        let half = keys.start.midpoint(keys.end);
        fixture.put_and_flush(keys.start..half);
        fixture.put_and_flush(half..keys.end);
        fixture.wait(HOUR);
        assert_eq!(fixture.runs(), 1);
        fixture.sst_bytes()
    };
    assert!(idle(0..200) > 200 * 100);
    assert_eq!(fixture.engine.pending_rewrites().unwrap(), []);
    fixture.engine.trigger_compaction(0).unwrap();
    assert!(fixture.sst_bytes() < 200 * 50);
    assert!(idle(200..600) < 600 * 50);
}

/// A stripe that writers leave alone is idle, although others are flushed all the time.
#[test]
fn idle_compaction_merges_a_stripe_that_nobody_writes_to() {
    let fixture = Fixture::with_stripes(2, plain(10).with_idle_compaction(true).with_check_interval(60));
    let keys = |stripe: usize| (0..).map(key).filter(move |key| fixture_stripe(key) == stripe);
    let put = |stripe: usize, from: usize| {
        for key in keys(stripe).skip(from).take(10) {
            fixture.engine.put(&key, b"value", WriteOptions::new()).unwrap();
        }
        fixture.engine.flush().unwrap();
        fixture.drain()
    };
    put(0, 0);
    put(0, 10);
    // The second stripe is written to every second, and merged by its threshold only.
    let mut after = Vec::new();
    for second in 1..=125 {
        let stats = put(1, 10 * second);
        let runs = fixture.engine.stats().unwrap().stripes[0].runs;
        after.extend((runs == 1 && after.is_empty()).then_some(second));
        if second < 10 {
            assert_eq!(stats.total_compactions, 0);
        }
        fixture.wait(Duration::from_secs(1));
    }
    // Not flushed in the whole interval after the one in which it was flushed.
    assert!(matches!(after[..], [115..=121]), "{after:?}");
}

#[test]
fn idle_compaction_waits_until_there_is_nothing_else_to_do() {
    let config = plain(10).with_idle_compaction(true).with_check_interval(60);
    let fixture = Fixture::with_stripes(2, config);
    let of_stripe = |stripe: usize| {
        (0..).map(key).filter(move |key| fixture_stripe(key) == stripe).take(70).collect::<Vec<_>>()
    };
    let put = |stripe: usize, from: usize| {
        for key in &of_stripe(stripe)[from * 10..][..10] {
            fixture.engine.put(key, b"value", WriteOptions::new()).unwrap();
        }
        fixture.engine.flush().unwrap();
    };
    (0..6).for_each(|flush| put(0, flush));
    fixture.drain();
    fixture.wait(Duration::from_secs(60));
    // By the time that this stripe is found to be idle, the other has work due.
    put(1, 0);
    fixture.clock.advance(Duration::from_secs(60));
    fixture.engine.set_compaction_config(fixture.engine.compaction_config()).unwrap();
    let stats = fixture.drain();
    assert_eq!(reasons(&stats), [(CompactionReason::Idle, 1)]);
    let stripes = fixture.engine.stats().unwrap().stripes;
    assert_eq!(stripes.iter().map(|stripe| stripe.runs).collect::<Vec<_>>(), [1, 1]);
}

/// The first of two stripes holds the partition keys whose hash starts with a zero bit.
fn fixture_stripe(key: &Key<'_>) -> usize {
    (xxhash_rust::xxh3::xxh3_64(key.partition()) >> 63) as usize
}

#[test]
fn dephasing_lowers_the_thresholds_of_some_stripes() {
    for on in [false, true] {
        let fixture = Fixture::with_stripes(4, plain(8).with_dephasing(on));
        let mut merged_at = [0; 4];
        for flush in 1..=8u64 {
            fixture.put_and_flush(flush * 1000..flush * 1000 + 200);
            for stripe in fixture.engine.stats().unwrap().stripes {
                assert!(stripe.runs as u64 == flush || merged_at[stripe.stripe] > 0 || stripe.runs == 1);
                if stripe.runs == 1 && flush > 1 && merged_at[stripe.stripe] == 0 {
                    merged_at[stripe.stripe] = flush;
                }
            }
        }
        assert_eq!(merged_at, if on { [8, 7, 6, 8] } else { [8; 4] });
    }
}

#[test]
fn a_lowered_threshold_merges_until_it_is_met() {
    let shape = |fixture: &Fixture| {
        // Depths 2, 1, 0: a single merge under the depth rule is not enough.
        for flush in 0..40 {
            fixture.put_and_flush(flush * 10..flush * 10 + 10);
        }
        fixture.runs()
    };
    let live = Fixture::new(plain(10));
    let before = shape(&live);
    assert!(before >= 4, "{before}");
    live.engine.set_compaction_config(plain(2)).unwrap();
    let stats = live.drain();
    assert_eq!((live.runs(), stats.by_reason.len()), (1, 1), "{stats:?}");
    let closed = Fixture::new(plain(10));
    assert_eq!(shape(&closed), before);
    let opened = closed.reopen(Some(plain(2)));
    assert_eq!(opened.runs(), before);
    opened.put([1]);
    opened.drain();
    assert_eq!(opened.runs(), 1);
}

#[test]
fn disabled_compaction_does_nothing_on_its_own() {
    let mut config = plain(2).with_garbage_percent(1).with_tombstone_age(HOUR).with_tombstone_percent(1);
    config.enabled = false;
    let fixture = Fixture::new(config.with_idle_compaction(true));
    for _ in 0..10 {
        fixture.put(0..500);
        fixture.delete(0..250);
        fixture.flush();
        assert_eq!(fixture.wait(100 * HOUR).total_compactions, 0);
    }
    assert!(!fixture.engine.needs_compaction(0).unwrap());
    fixture.engine.trigger_compaction(0).unwrap();
    assert_eq!(reasons(&fixture.drain()), [(CompactionReason::Requested, 1)]);
}

#[test]
fn needs_compaction_says_what_the_background_would_do() {
    let config = plain(4).with_garbage_percent(100).with_tombstone_percent(25).with_tombstone_age(HOUR);
    type Cause = fn(&Fixture);
    let causes: [(Cause, CompactionReason); 4] = [
        (|f| (1..4).for_each(|n| f.put_no_work(n * 1000..n * 1000 + 10)), CompactionReason::RunCount),
        (|f| f.put_no_work(0..1000), CompactionReason::Garbage),
        (|f| f.delete_no_work(0..400), CompactionReason::Tombstones),
        (
            |f| {
                f.delete_no_work(0..1);
                f.clock.advance(HOUR + Duration::from_millis(1));
            },
            CompactionReason::TombstoneAge,
        ),
    ];
    for (cause, reason) in causes {
        let fixture = Fixture::new(config.clone());
        fixture.put_and_flush(0..1000);
        assert!(!fixture.engine.needs_compaction(0).unwrap());
        cause(&fixture);
        assert!(fixture.engine.needs_compaction(0).unwrap(), "{reason:?}");
        assert_eq!(reasons(&fixture.drain()), [(reason, 1)]);
        assert!(!fixture.engine.needs_compaction(0).unwrap(), "{reason:?}");
    }
}

impl Fixture {
    fn put_no_work(&self, keys: impl IntoIterator<Item = u64>) {
        self.put(keys);
        self.engine.flush().unwrap();
    }

    fn delete_no_work(&self, keys: impl IntoIterator<Item = u64>) {
        self.delete(keys);
        self.engine.flush().unwrap();
    }
}

#[test]
fn compaction_stats_add_up() {
    let fixture = Fixture::new(plain(4).with_tombstone_percent(25));
    assert_eq!(fixture.engine.compaction_stats(), CompactionStats::default());
    for flush in 0..4 {
        fixture.put_and_flush(flush * 100..flush * 100 + 100);
    }
    let before = fixture.sst_bytes();
    fixture.delete(0..200);
    fixture.flush();
    fixture.engine.trigger_compaction(0).unwrap();
    let (stats, engine) = (fixture.engine.compaction_stats(), fixture.engine.stats().unwrap());
    let expected = [CompactionReason::RunCount, CompactionReason::Tombstones, CompactionReason::Requested]
        .map(|r| (r, 1));
    assert_eq!(reasons(&stats), expected);
    assert_eq!((stats.total_compactions, stats.total_ssts_merged), (3, 4 + 2 + 1));
    assert_eq!(stats.total_tombstones_removed, 200);
    assert_eq!(stats.by_reason[0].bytes_written, before);
    assert_eq!(stats.by_reason[2].bytes_written, engine.sst_bytes);
    assert_eq!(stats.total_bytes_read, stats.by_reason.iter().map(|of| of.bytes_read).sum::<u64>());
    assert_eq!(stats.total_bytes_written, stats.by_reason.iter().map(|of| of.bytes_written).sum::<u64>());
    assert_eq!(stats.total_bytes_read, engine.compaction_bytes_read);
}
