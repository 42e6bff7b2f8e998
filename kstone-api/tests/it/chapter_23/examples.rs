//! Section 23.9, "Real-World Tuning Examples". The programs under `examples/` generate the loads.

use kstone_api::{CompactionConfig, DatabaseConfig, Preset};

use super::works;

#[test]
#[rustfmt::skip]
fn high_throughput_log_ingestion() {
    let db_config = DatabaseConfig::new()
        .with_max_memtable_records(10000);  // Large memtable

    let compaction_config = CompactionConfig::new()
        .with_sst_threshold(30)      // Very lazy
        .with_check_interval(600)    // 10 minute checks
        .with_max_concurrent(1);     // Minimal background load

    let preset = Preset::log_ingestion();
    assert_eq!((&preset.database, &preset.compaction), (&db_config, &compaction_config));
    works(db_config, compaction_config);
}

#[test]
#[rustfmt::skip]
fn low_latency_cache() {
    let db_config = DatabaseConfig::new()
        .with_max_memtable_records(2000);  // Keep more in memory

    let compaction_config = CompactionConfig::new()
        .with_sst_threshold(4)       // Very aggressive
        .with_check_interval(15)     // Frequent checks
        .with_max_concurrent(8);     // High parallelism

    // Also:
    const BITS_PER_KEY: usize = 16;  // Low false positives

    let db_config = db_config.with_bloom_bits_per_key(BITS_PER_KEY);
    let preset = Preset::low_latency_cache();
    assert_eq!((&preset.database, &preset.compaction), (&db_config, &compaction_config));
    works(db_config, compaction_config);
}

#[test]
#[rustfmt::skip]
fn embedded_system() {
    let db_config = DatabaseConfig::new()
        .with_max_memtable_records(200);  // Small memtable

    let compaction_config = CompactionConfig::new()
        .with_sst_threshold(8)
        .with_check_interval(120)
        .with_max_concurrent(1);     // SD cards don't benefit from parallelism

    // Also:
    const BITS_PER_KEY: usize = 8;   // Reduce bloom filter memory

    let db_config = db_config.with_bloom_bits_per_key(BITS_PER_KEY);
    let preset = Preset::embedded();
    assert_eq!((&preset.database, &preset.compaction), (&db_config, &compaction_config));
    works(db_config, compaction_config);
}
