//! Section 23.8, "Troubleshooting Performance Issues".

use kstone_api::{CompactionConfig, Database, DatabaseConfig, EngineOptions, ItemBuilder, LsmEngine, Result};
use kstone_core::lsm::Workers;

use super::{compaction_works, database_works};

#[test]
#[rustfmt::skip]
fn low_write_throughput() {
    // 1. Reduce compaction frequency
    let config = CompactionConfig::new()
        .with_sst_threshold(20);

    // 2. Increase memtable size
    let db_config = DatabaseConfig::new()
        .with_max_memtable_records(5000);

    // 3. Check disk performance
    // iostat -x 1  (on Linux)
    // If disk at 100% utilization, need faster storage

    compaction_works(config);
    database_works(db_config);
}

#[test]
#[rustfmt::skip]
fn high_read_latency() -> Result<()> {
    // Without background work, so that the stripe still has its runs when it is checked.
    let mut options = EngineOptions::memory();
    options.workers = Workers::Manual;
    let db = Database::from(LsmEngine::create("memory".as_ref(), options)?);
    let engine = db.engine();
    for n in 0..12 {
        db.put(("hot", format!("{n:03}")), ItemBuilder::new().number("n", n))?;
        db.flush()?;
    }
    let needs_compaction = |stripe_id| engine.needs_compaction(stripe_id);
    let mut compacted = 0;

    // 1. Trigger manual compaction
    for stripe_id in 0..256 {
        if needs_compaction(stripe_id)? {
            engine.trigger_compaction(stripe_id)?;
            compacted += 1;
        }
    }

    assert_eq!(compacted, 1);
    assert_eq!(db.stats()?.stripes[0].runs, 1);

    // 2. Increase bloom filter accuracy (requires code change)
    const BITS_PER_KEY: usize = 16;  // From 10
    database_works(DatabaseConfig::new().with_bloom_bits_per_key(BITS_PER_KEY));

    // 3. Increase memtable size (keep more in memory)
    let config = DatabaseConfig::new()
        .with_max_memtable_records(2000);
    database_works(config);
    Ok(())
}

#[test]
#[rustfmt::skip]
fn high_memory_usage() -> Result<()> {
    let db = Database::temporary()?;
    let engine = db.engine();

    // 1. Reduce memtable size
    let config = DatabaseConfig::new()
        .with_max_memtable_records(500);
    database_works(config);

    // 2. Trigger compaction (fewer SSTs = fewer bloom filters)
    engine.set_compaction_config(
        CompactionConfig::new().with_sst_threshold(5)
    )?;
    assert_eq!(engine.compaction_config().sst_threshold, 5);

    // 3. Reduce bloom filter size (requires code change)
    const BITS_PER_KEY: usize = 8;  // From 10
    database_works(DatabaseConfig::new().with_bloom_bits_per_key(BITS_PER_KEY));
    Ok(())
}

#[test]
#[rustfmt::skip]
fn slow_crash_recovery() {
    // Reduce memtable size (smaller WAL)
    let config = DatabaseConfig::new()
        .with_max_memtable_records(500);  // From 1000
    database_works(config);

    // Set WAL size limit
    let config = DatabaseConfig::new()
        .with_max_wal_size_bytes(50 * 1024 * 1024);  // 50MB max
    database_works(config);
}
