//! The statistics of a database in which none of them is zero.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kstone_api::{
    AlertThresholds, CompactionConfig, CompactionReason, Database, DatabaseConfig, EngineOptions, Error,
    ItemBuilder, LsmEngine, ReadMode, WriteBatch,
};
use kstone_core::clock::Clock;
use kstone_core::vfs::StrictVfs;

/// A clock that advances by a millisecond with each reading.
#[derive(Debug, Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn unix_ms(&self) -> u64 {
        1_700_000_000_000
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }
    fn random(&self) -> u64 {
        self.0.load(Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// A kilobyte of incompressible data.
fn noise(n: u64) -> ItemBuilder {
    let mut state = n;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    ItemBuilder::new().binary("data", (0..1000).map(|_| next()).collect::<Vec<_>>())
}

/// A single-threaded database in which everything has happened, and its file system.
pub(crate) fn eventful() -> (Database, StrictVfs) {
    let vfs = StrictVfs::new();
    let mut options = EngineOptions::reproducible(Arc::new(vfs.clone()), Arc::new(Ticking::default()));
    let config = DatabaseConfig::new()
        .with_stripes(1)
        .with_max_memtable_records(50)
        .with_memory_budget(200_000)
        .with_latency_sampling(1)
        .with_bloom_bits_per_key(2)
        .with_read_mode(ReadMode::Pread)
        .with_block_cache_bytes(64 << 10)
        .with_wal_segment_size(64 << 10);
    (options.config, options.compaction) = (Some(config.clone()), Some(CompactionConfig::disabled()));
    let db = Database::from(LsmEngine::create("figures".as_ref(), options).unwrap());
    // More at once than memtables may hold: the next write has to wait.
    let mut batch = WriteBatch::new();
    for n in 0..400 {
        batch.put(format!("key{n}"), noise(n)).unwrap();
    }
    db.write(batch).unwrap();
    db.put("next", noise(1)).unwrap();
    db.flush().unwrap();
    for n in 0..20 {
        db.delete(format!("key{n}")).unwrap();
    }
    db.compact_all().unwrap();
    for n in (0..400).chain(390..400).chain(10_000..10_200) {
        assert_eq!(db.get(format!("key{n}")).unwrap().is_some(), (20..400).contains(&n));
    }
    db.put("next", noise(1)).unwrap();
    assert_eq!(db.query("next").run().unwrap().count(), 1);
    assert_eq!(db.scan().run().unwrap().count(), 381);
    // A sealed memtable, and an active one.
    for n in 0..51 {
        db.put(format!("new{n}"), noise(n)).unwrap();
    }
    assert!(db.get("new3").unwrap().is_some() && db.get("new50").unwrap().is_some());
    db.set_config(config.with_max_total_disk_bytes(4 << 20)).unwrap();
    let mut batch = WriteBatch::new();
    for n in 0..2000 {
        batch.put(format!("more{n}"), noise(n)).unwrap();
    }
    assert!(matches!(db.write(batch), Err(Error::DiskFull)));
    for n in 0..51 {
        db.put(format!("new{n}"), noise(n)).unwrap();
    }
    assert!(db.get("new3").unwrap().is_some() && db.get("new50").unwrap().is_some());
    (db, vfs)
}

/// Makes all I/O fail from now on, until background work and a sync have noticed.
pub(crate) fn fail(db: &Database, vfs: &StrictVfs) {
    vfs.stop_after(Some(0));
    let failing = || db.stats().unwrap().background_error.is_some();
    assert!((0..1000).any(|n| db.engine().step(n) && failing()), "there was nothing to do");
    assert!(db.engine().sync().is_err() && db.stats().unwrap().poisoned.is_some());
}

#[test]
fn compactions_are_told_by_the_database_as_by_its_engine() {
    let db = Database::in_memory().unwrap();
    db.set_compaction_config(CompactionConfig::disabled()).unwrap();
    assert_eq!(db.compaction_stats(), kstone_api::CompactionStats::default());
    for n in 0..2 {
        db.put("key", noise(n)).unwrap();
        db.flush().unwrap();
    }
    let before = db.stats().unwrap().sst_bytes;
    db.delete("key").unwrap();
    db.put("other", noise(7)).unwrap();
    let stripes: Vec<usize> = db.stats().unwrap().stripes.iter().map(|stripe| stripe.stripe).collect();
    stripes.iter().for_each(|&stripe| db.trigger_compaction(stripe).unwrap());
    let stats = db.compaction_stats();
    let [of] = stats.by_reason[..] else { panic!("{stats:?}") };
    assert_eq!((stats.total_compactions, of.count, of.reason), (2, 2, CompactionReason::Requested));
    // Three runs of one key, and one run of the other.
    assert_eq!((stats.total_ssts_merged, stats.total_tombstones_removed), (4, 1));
    assert!(stats.total_bytes_read > before && stats.total_bytes_read == of.bytes_read, "{stats:?}");
    assert_eq!(stats.total_bytes_written, db.stats().unwrap().sst_bytes);
    assert_eq!(of.bytes_written, stats.total_bytes_written);
}

#[test]
fn alerts_tell_the_figures_of_the_database() {
    let (db, vfs) = eventful();
    let mut thresholds = AlertThresholds::default();
    for threshold in [
        &mut thresholds.average_ssts,
        &mut thresholds.write_amplification,
        &mut thresholds.read_p99_us,
        &mut thresholds.held_up_percent,
        &mut thresholds.disk_percent,
        &mut thresholds.recovery_secs,
        &mut thresholds.log_percent,
    ] {
        *threshold = 0.0;
    }
    let (stats, disk) = (db.stats().unwrap(), db.disk_usage().unwrap());
    let alerts = db.check_alerts(&thresholds);
    let of = |name: &str| alerts.iter().find(|alert| alert.name == name).map(|alert| alert.current);
    let stripe = &stats.stripes[0];
    let writes = (stats.operations.puts + stats.operations.deletes) as f64;
    let backlogs = stats.stalls.iter().filter(|stall| stall.reason.is_backlog());
    let held_up = backlogs.map(|stall| stall.count).sum::<u64>();
    assert!(held_up > 0 && stats.disk_full_refusals == 1);
    for (name, value) in [
        ("High SST count", stripe.runs as f64),
        ("High write amplification", stats.amplification.write_tables.unwrap()),
        ("High read latency", stats.p99_read_nanos.unwrap() as f64 / 1e3),
        ("Writes held up", held_up as f64 * 100.0 / writes),
        ("Disk quota nearly full", (disk.used + disk.reserved) as f64 * 100.0 / f64::from(4 << 20)),
        ("Slow recovery", stats.estimated_recovery_nanos as f64 / 1e9),
        ("Log near its limit", stats.log_bytes as f64 * 100.0 / db.config().wal_limit_bytes() as f64),
    ] {
        assert!(
            value > 0.0 && of(name).is_some_and(|current| (current / value - 1.0).abs() < 1e-9),
            "{name}: {alerts:?}"
        );
    }
    assert_eq!(alerts.len(), 7, "{alerts:?}");
    fail(&db, &vfs);
    let alerts = db.check_alerts(&AlertThresholds::default());
    let of = |name: &str| alerts.iter().find(|alert| alert.name == name).map(|alert| alert.current);
    assert_eq!(
        (of("Background work fails"), of("Writing has stopped")),
        (Some(1.0), Some(1.0)),
        "{alerts:?}"
    );
    let other = db.clone();
    db.close().unwrap_err();
    let alerts = other.check_alerts(&AlertThresholds::default());
    assert_eq!(alerts.iter().map(|alert| alert.name).collect::<Vec<_>>(), ["Database closed"]);
}
