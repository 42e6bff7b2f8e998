//! Section 23.1, "Memtable Threshold Tuning".

use kstone_api::{Database, DatabaseConfig, ItemBuilder, MemtableMode};

use super::database_works;

#[test]
#[rustfmt::skip]
fn the_threshold_parameter() {
    // In kstone-core/src/lsm.rs
    const MEMTABLE_THRESHOLD: usize = 1000;  // Default: 1000 records per stripe
    assert_eq!(kstone_core::lsm::MEMTABLE_THRESHOLD, MEMTABLE_THRESHOLD);
    assert_eq!(DatabaseConfig::default().max_memtable_records, MEMTABLE_THRESHOLD);

    // Configurable via DatabaseConfig
    let config = DatabaseConfig::new()
        .with_max_memtable_records(5000);  // Increase to 5000
    database_works(config);
}

/// "Impact on Performance": flushes per 100,000 writes, here for 10,000 writes to one stripe.
#[test]
fn flushes_are_as_many_as_the_threshold_says() {
    for (threshold, flushes) in [(500, 20), (1000, 10), (5000, 2), (10_000, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let config = DatabaseConfig::new()
            .with_max_memtable_records(threshold)
            .with_memory_budget(1 << 30)
            .with_stripes(1);
        let db = Database::builder(dir.path()).config(config).create().unwrap();
        for n in 0..10_000 {
            db.put(format!("key{n}"), ItemBuilder::new().number("n", n)).unwrap();
        }
        db.flush().unwrap();
        assert_eq!(db.stats().unwrap().flushes, flushes, "threshold {threshold}");
    }
}

#[test]
#[rustfmt::skip]
fn tuning_guidelines() {
    // Maximize write throughput
    let config = DatabaseConfig::new()
        .with_max_memtable_records(5000);  // Or even 10000
    database_works(config);

    // Minimize memory footprint
    let config = DatabaseConfig::new()
        .with_max_memtable_records(500);
    database_works(config);

    // Keep default
    let config = DatabaseConfig::default();  // 1000 records
    database_works(config);
}

#[test]
#[rustfmt::skip]
fn dynamic_tuning() {
    // Pseudocode (not currently implemented)
    fn adaptive_threshold(write_rate: u64, available_memory: u64) -> usize {
        if write_rate > 10000 && available_memory > 1_000_000_000 {
            10000  // High write rate, plenty of memory
        } else if available_memory < 100_000_000 {
            500    // Low memory
        } else {
            1000   // Default
        }
    }

    assert_eq!(adaptive_threshold(10_001, 1_000_000_001), 10_000);
    assert_eq!(adaptive_threshold(10_001, 99_999_999), 500);
    assert_eq!(adaptive_threshold(10_000, 1_000_000_001), 1000);
    database_works(DatabaseConfig::new().with_memtable_mode(MemtableMode::Adaptive));
}
