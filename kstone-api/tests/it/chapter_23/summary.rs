//! Section 23.10, "Summary": its presets.

use kstone_api::{CompactionConfig, DatabaseConfig, Preset};

use super::works;

#[test]
#[rustfmt::skip]
fn write_heavy() {
    let database =
DatabaseConfig::new().with_max_memtable_records(10000)
    ;
    let compaction =
CompactionConfig::new()
    .with_sst_threshold(20)
    .with_max_concurrent(2)
    ;
    let preset = Preset::write_heavy();
    assert_eq!((&preset.database, &preset.compaction), (&database, &compaction));
    works(database, compaction);
}

#[test]
#[rustfmt::skip]
fn read_heavy() {
    let database =
DatabaseConfig::new().with_max_memtable_records(1000)
    ;
    let compaction =
CompactionConfig::new()
    .with_sst_threshold(5)
    .with_max_concurrent(8)
    ;
const BITS_PER_KEY: usize = 16;

    let database = database.with_bloom_bits_per_key(BITS_PER_KEY);
    let preset = Preset::read_heavy();
    assert_eq!((&preset.database, &preset.compaction), (&database, &compaction));
    works(database, compaction);
}

#[test]
#[rustfmt::skip]
fn memory_constrained() {
    let database =
DatabaseConfig::new().with_max_memtable_records(500)
    ;
    let compaction =
CompactionConfig::new().with_max_concurrent(1)
    ;
const BITS_PER_KEY: usize = 8;

    let database = database.with_bloom_bits_per_key(BITS_PER_KEY);
    let preset = Preset::memory_constrained();
    assert_eq!((&preset.database, &preset.compaction), (&database, &compaction));
    works(database, compaction);
}
