//! Section 23.5, "Write vs Read Optimization".

use kstone_api::{CompactionConfig, DatabaseConfig, Preset};

use super::works;

#[test]
#[rustfmt::skip]
fn write_optimized_configuration() {
    let db_config = DatabaseConfig::new()
        .with_max_memtable_records(10000);  // Large memtable

    let compaction_config = CompactionConfig::new()
        .with_sst_threshold(20)             // Lazy compaction
        .with_check_interval(300)           // Infrequent checks
        .with_max_concurrent(2);            // Low background load

    let preset = Preset::write_optimized();
    assert_eq!((&preset.database, &preset.compaction), (&db_config, &compaction_config));
    works(db_config, compaction_config);
}

#[test]
#[rustfmt::skip]
fn read_optimized_configuration() {
    let db_config = DatabaseConfig::new()
        .with_max_memtable_records(1000);  // Default memtable

    let compaction_config = CompactionConfig::new()
        .with_sst_threshold(5)              // Aggressive compaction
        .with_check_interval(30)            // Frequent checks
        .with_max_concurrent(8);            // High parallelism

    // Also consider:
    const BITS_PER_KEY: usize = 16;  // Higher bloom filter accuracy

    let db_config = db_config.with_bloom_bits_per_key(BITS_PER_KEY);
    let preset = Preset::read_optimized();
    assert_eq!((&preset.database, &preset.compaction), (&db_config, &compaction_config));
    works(db_config, compaction_config);
}

#[test]
#[rustfmt::skip]
fn balanced_configuration() {
    // Use all defaults
    let db_config = DatabaseConfig::default();
    let compaction_config = CompactionConfig::default();

    let preset = Preset::balanced();
    assert_eq!((&preset.database, &preset.compaction), (&db_config, &compaction_config));
    works(db_config, compaction_config);
}
