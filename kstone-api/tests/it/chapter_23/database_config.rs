//! Section 23.4, "DatabaseConfig Options".

use kstone_api::DatabaseConfig;

use super::database_works;

#[test]
#[rustfmt::skip]
fn the_struct() {
    /// Assigning to these fields one by one compiles only if our types are the same.
    struct Printed {
        max_memtable_size_bytes: Option<usize>,  // Memory limit
        max_memtable_records: usize,             // Record limit (default: 1000)
        max_wal_size_bytes: Option<u64>,         // WAL size limit
        max_total_disk_bytes: Option<u64>,       // Total DB size limit
        write_buffer_size: usize,                // Write buffer (default: 1024)
    }

    let ours = DatabaseConfig::default();
    let printed = Printed {
        max_memtable_size_bytes: ours.max_memtable_size_bytes,
        max_memtable_records: ours.max_memtable_records,
        max_wal_size_bytes: ours.max_wal_size_bytes,
        max_total_disk_bytes: ours.max_total_disk_bytes,
        write_buffer_size: ours.write_buffer_size,
    };
    assert_eq!(printed.max_memtable_size_bytes, None);
    assert_eq!(printed.max_memtable_records, 1000);
    assert_eq!(printed.max_wal_size_bytes, None);
    assert_eq!(printed.max_total_disk_bytes, None);
    assert_eq!(printed.write_buffer_size, 1024);
}

#[test]
#[rustfmt::skip]
fn max_memtable_size() {
    let config = DatabaseConfig::new()
        .with_max_memtable_size_bytes(10 * 1024 * 1024);  // 10MB per stripe
    database_works(config);
}

#[test]
#[rustfmt::skip]
fn wal_size_limits() {
    let config = DatabaseConfig::new()
        .with_max_wal_size_bytes(100 * 1024 * 1024);  // 100MB WAL limit
    database_works(config);
}

#[test]
#[rustfmt::skip]
fn total_disk_size_limits() {
    let config = DatabaseConfig::new()
        .with_max_total_disk_bytes(10 * 1024 * 1024 * 1024);  // 10GB limit
    database_works(config);
}

#[test]
#[rustfmt::skip]
fn write_buffer_size() {
    let config = DatabaseConfig::new()
        .with_write_buffer_size(4096);  // 4KB buffer
    database_works(config);
}
