//! Presets: their numbers against the specification, their names, and the code that they print.

use std::time::Duration;

use kstone_api::{
    CompactionConfig, Compression, Database, DatabaseConfig, Error, MemtableMode, Preset, ReadMode,
};

/// The specification's values: section, records, bits per key; whether compaction is enabled, threshold, interval in
/// seconds, concurrent compactions. `None`: not mentioned there, hence the default.
type Row = (
    &'static str,
    &'static str,
    Option<usize>,
    Option<usize>,
    bool,
    Option<usize>,
    Option<u64>,
    Option<usize>,
);

#[rustfmt::skip]
const SPECIFICATION: [Row; 16] = [
    ("balanced",           "23.5",  None,         None,     true,  None,     None,      None),
    ("write-optimized",    "23.5",  Some(10_000), None,     true,  Some(20), Some(300), Some(2)),
    ("read-optimized",     "23.5",  Some(1000),   Some(16), true,  Some(5),  Some(30),  Some(8)),
    ("write-heavy",        "23.10", Some(10_000), None,     true,  Some(20), None,      Some(2)),
    ("read-heavy",         "23.10", Some(1000),   Some(16), true,  Some(5),  None,      Some(8)),
    ("memory-constrained", "23.10", Some(500),    Some(8),  true,  None,     None,      Some(1)),
    ("high-end-server",    "23.2",  None,         None,     true,  None,     None,      Some(8)),
    ("mid-range-server",   "23.2",  None,         None,     true,  None,     None,      Some(4)),
    ("low-end-server",     "23.2",  None,         None,     true,  None,     None,      Some(1)),
    ("latency-sensitive",  "23.2",  None,         None,     true,  None,     Some(120), Some(2)),
    ("high-churn",         "23.2",  None,         None,     true,  None,     Some(10),  None),
    ("low-churn",          "23.2",  None,         None,     true,  None,     Some(300), None),
    ("batch",              "23.2",  None,         None,     false, None,     None,      None),
    ("log-ingestion",      "23.9",  Some(10_000), None,     true,  Some(30), Some(600), Some(1)),
    ("low-latency-cache",  "23.9",  Some(2000),   Some(16), true,  Some(4),  Some(15),  Some(8)),
    ("embedded",           "23.9",  Some(200),    Some(8),  true,  Some(8),  Some(120), Some(1)),
];

#[test]
fn every_preset_has_the_numbers_of_the_specification() {
    assert_eq!(Preset::all().len(), SPECIFICATION.len());
    for (preset, row) in Preset::all().into_iter().zip(SPECIFICATION) {
        let (name, section, records, bits, enabled, threshold, interval, concurrent) = row;
        assert_eq!(preset.name, name);
        // The specification's defaults, as numbers, so that a changed default fails here.
        let mut database = DatabaseConfig::default();
        database.max_memtable_records = records.unwrap_or(1000);
        database.bloom_bits_per_key = bits.unwrap_or(10);
        assert_eq!(preset.database, database, "{name}, section {section}");
        let mut compaction = CompactionConfig::default();
        compaction.enabled = enabled;
        compaction.sst_threshold = threshold.unwrap_or(10);
        compaction.check_interval_secs = interval.unwrap_or(60);
        compaction.max_concurrent_compactions = concurrent.unwrap_or(4);
        assert_eq!(preset.compaction, compaction, "{name}, section {section}");
        preset.database.validate().unwrap();
        preset.compaction.validate().unwrap();
    }
}

#[test]
fn names_find_presets_and_an_unknown_one_lists_them() {
    for preset in Preset::all() {
        assert_eq!(Preset::by_name(preset.name).unwrap(), preset);
        assert!(preset.trade_off().ends_with('.'), "{}: {:?}", preset.name, preset.trade_off());
        assert!(preset.to_string().starts_with(&format!("// {}: {}", preset.name, preset.trade_off())));
    }
    let error = Preset::by_name("write_heavy").unwrap_err();
    let Error::InvalidConfig { field: "preset", why } = &error else { panic!("{error}") };
    assert!(why.starts_with("there is no preset \"write_heavy\"; presets are balanced, "), "{why}");
    for (name, ..) in SPECIFICATION {
        assert!(why.contains(name), "{why}");
    }
}

#[test]
fn a_preset_gives_a_database_its_settings_and_later_ones_win() {
    let dir = tempfile::tempdir().unwrap();
    let preset = Preset::low_latency_cache();
    let db = Database::builder(dir.path()).preset(preset.clone()).create().unwrap();
    assert_eq!(db.config(), preset.database.clone().with_stripes(256));
    assert_eq!(db.compaction_config(), preset.compaction);
    db.close().unwrap();

    let batch = CompactionConfig::disabled();
    let db = Database::builder(dir.path()).preset(Preset::embedded()).compaction(batch).open().unwrap();
    assert_eq!(db.config().max_memtable_records, 200);
    assert!(!db.compaction_config().enabled);
}

#[test]
fn the_code_has_the_settings_that_are_not_the_default() {
    assert_eq!(
        Preset::balanced().rust_code(),
        "let database = DatabaseConfig::new();\nlet compaction = CompactionConfig::new();\n"
    );
    assert_eq!(
        Preset::batch().rust_code(),
        "let database = DatabaseConfig::new();\nlet compaction = CompactionConfig::disabled();\n"
    );
    assert_eq!(
        Preset::log_ingestion().rust_code(),
        "let database = DatabaseConfig::new()\n    .with_max_memtable_records(10000);\n\
         let compaction = CompactionConfig::new()\n    .with_sst_threshold(30)\n    .with_check_interval(600)\n    \
         .with_max_concurrent(1);\n"
    );
}

/// Includes settings that no preset changes: users can modify the struct.
#[test]
fn the_code_knows_every_setting() {
    let mut preset = Preset::balanced();
    preset.database = DatabaseConfig::new()
        .with_max_memtable_size_bytes(1)
        .with_max_memtable_records(2)
        .with_max_wal_size_bytes(3)
        .with_max_total_disk_bytes(4)
        .with_write_buffer_size(5)
        .with_wal_buffer_size(27)
        .with_bloom_bits_per_key(6)
        .with_memory_budget(7)
        .with_memtable_mode(MemtableMode::Adaptive)
        .with_recovery_target(Duration::from_millis(8))
        .with_sync_interval(Duration::from_micros(9))
        .with_checkpoint_interval(Duration::from_secs(10))
        .with_block_size(11)
        .with_compression(Compression::Always)
        .with_read_mode(ReadMode::Pread)
        .with_block_cache_bytes(12)
        .with_wal_segment_size(13)
        .with_target_sst_size(14)
        .with_max_key_bytes(15)
        .with_max_item_bytes(16)
        .with_max_batch_bytes(17)
        .with_write_stall_limit(Duration::from_secs(18))
        .with_stats_snapshot_interval(Duration::from_secs(19))
        .with_latency_sampling(20)
        .with_stripes(32);
    preset.compaction = CompactionConfig::new()
        .with_sst_threshold(21)
        .with_check_interval(22)
        .with_max_concurrent(23)
        .with_tombstone_age(Duration::MAX)
        .with_tombstone_percent(24)
        .with_garbage_percent(26)
        .with_idle_compaction(false)
        .with_dephasing(true);
    let code = preset.rust_code();
    for call in [
        "with_max_memtable_size_bytes(1)\n",
        "with_max_total_disk_bytes(4)\n",
        "with_memtable_mode(MemtableMode::Adaptive)\n",
        "with_recovery_target(Duration::from_millis(8))\n",
        "with_sync_interval(Duration::new(0, 9000))\n",
        "with_checkpoint_interval(Duration::from_secs(10))\n",
        "with_compression(Compression::Always)\n",
        "with_read_mode(ReadMode::Pread)\n",
        "with_tombstone_age(Duration::MAX)\n",
        "with_idle_compaction(false)\n",
    ] {
        assert!(code.contains(call), "{call:?} is missing in\n{code}");
    }
    for method in super::builders() {
        assert!(code.contains(&format!(".{method}(")), "{method} is missing in\n{code}");
    }
}
