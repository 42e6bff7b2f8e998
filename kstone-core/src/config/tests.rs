//! Both tables, compared with values that are written out here.

use std::time::Duration;

use super::*;
use crate::error::{Error, Result};
use crate::types::{MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_STRIPES};

/// Names and numbers are part of the format: those asserted here must never change, only be added to.
#[test]
fn settings_are_stored_by_these_names_and_numbers_and_come_back() {
    let ms = Duration::from_millis;
    let config = DatabaseConfig::new()
        .with_max_memtable_records(7)
        .with_max_memtable_size_bytes(8)
        .with_max_wal_size_bytes(9 << 20)
        .with_bloom_bits_per_key(11)
        .with_memory_budget(12)
        .with_sync_interval(ms(13))
        .with_checkpoint_interval(ms(14))
        .with_block_size(150)
        .with_wal_segment_size(16 << 10)
        .with_target_sst_size(17 << 10)
        .with_max_key_bytes(18)
        .with_max_item_bytes(19)
        .with_max_batch_bytes(20)
        .with_write_stall_limit(ms(21))
        .with_max_total_disk_bytes(22 << 30)
        .with_write_buffer_size(230)
        .with_wal_buffer_size(231)
        .with_memtable_mode(MemtableMode::Adaptive)
        .with_recovery_target(ms(24))
        .with_compression(Compression::Always)
        .with_read_mode(ReadMode::Pread)
        .with_block_cache_bytes(25 << 20)
        .with_stats_snapshot_interval(ms(26))
        .with_latency_sampling(27);
    config.validate().unwrap();
    assert_eq!(
        config.to_settings(),
        [
            ("max_memtable_size_bytes", 8),
            ("max_memtable_records", 7),
            ("max_wal_size_bytes", 9 << 20),
            ("bloom_bits_per_key", 11),
            ("max_total_disk_bytes", 22 << 30),
            ("write_buffer_size", 230),
            ("wal_buffer_size", 231),
            ("memory_budget", 12),
            ("memtable_mode", 1),
            ("recovery_target_ms", 24),
            ("compression", 2),
            ("read_mode", 1),
            ("block_cache_bytes", 25 << 20),
            ("stats_snapshot_interval_ms", 26),
            ("latency_sampling", 27),
            ("sync_interval_ms", 13),
            ("checkpoint_interval_ms", 14),
            ("block_size", 150),
            ("wal_segment_size", 16 << 10),
            ("target_sst_size", 17 << 10),
            ("max_key_bytes", 18),
            ("max_item_bytes", 19),
            ("max_batch_bytes", 20),
            ("write_stall_limit_ms", 21),
        ]
        .map(|(name, number)| (name.to_owned(), number))
    );
    assert_eq!(DatabaseConfig::from_settings(&config.to_settings()), config);
    // Stored with the facts about the database, not here.
    assert_eq!(config.clone().with_stripes(16).to_settings(), config.to_settings());
    assert_eq!(DatabaseConfig::from_settings(&[("stripes".to_owned(), 16)]), DatabaseConfig::new());

    let compaction = CompactionConfig::disabled()
        .with_sst_threshold(3)
        .with_check_interval(4)
        .with_max_concurrent(5)
        .with_tombstone_age(ms(6))
        .with_tombstone_percent(7)
        .with_garbage_percent(8)
        .with_idle_compaction(false)
        .with_dephasing(true);
    let mut stored = [
        ("compaction_enabled", 0),
        ("sst_threshold", 3),
        ("check_interval_secs", 4),
        ("max_concurrent_compactions", 5),
        ("tombstone_age_ms", 6),
        ("tombstone_percent", 7),
        ("garbage_percent", 8),
        ("idle_compaction", 0),
        ("dephasing", 1),
    ]
    .map(|(name, number)| (name.to_owned(), number));
    assert_eq!(compaction.to_settings(), stored);
    assert_eq!(CompactionConfig::from_settings(&stored), compaction);
    stored[4].1 = 0;
    let never = compaction.with_tombstone_age(Duration::MAX);
    assert_eq!((never.tombstone_age, never.to_settings()), (None, stored.to_vec()));
    assert_eq!(CompactionConfig::from_settings(&stored), never);

    // Only the defaults that have a number.
    DatabaseConfig::default().validate().unwrap();
    CompactionConfig::default().validate().unwrap();
    let unset = DatabaseConfig::SETTINGS.iter().filter(|setting| setting.default == "none").count();
    assert_eq!((DatabaseConfig::new().to_settings().len(), unset), (17, 3));
}

/// The numbers of variants are stored, and each is read back.
#[test]
fn every_choice_comes_back_and_an_unknown_number_is_the_default() {
    for (name, choices) in [("memtable_mode", 2), ("compression", 3), ("read_mode", 2)] {
        let stored = |number| DatabaseConfig::from_settings(&[(name.to_owned(), number)]);
        for number in 0..choices {
            assert!(stored(number).to_settings().contains(&(name.to_owned(), number)), "{name} {number}");
        }
        assert_eq!(stored(choices), DatabaseConfig::new(), "{name}");
        let setting = DatabaseConfig::SETTINGS.iter().find(|setting| setting.name == name).unwrap();
        assert_eq!(setting.range.choices.len() as u64, choices, "{name}");
    }
}

/// Checks every row, including future ones.
#[test]
fn both_ends_of_every_range_are_accepted_and_what_lies_beyond_is_refused_with_them() {
    let (mut checked, mut left) = (0, Vec::new());
    let mut sides = |setting: &Setting, refused: &dyn Fn(u64) -> Option<String>| {
        let Some((least, most)) = setting.range.bounds else {
            left.push(setting.name);
            return;
        };
        assert_eq!((refused(least.number), refused(most.number)), (None, None), "{}", setting.name);
        let why = format!("is not between {least} and {most}");
        assert!(refused(most.number + 1).unwrap().ends_with(&why), "{}", setting.name);
        if let Some(below) = least.number.checked_sub(1) {
            let refused = refused(below);
            let accepts_zero = below == 0 && setting.range.or_zero;
            assert_eq!(refused.is_none(), accepts_zero, "{}", setting.name);
            assert!(refused.is_none_or(|refused| refused.ends_with(&why)), "{}", setting.name);
        }
        checked += 1;
    };
    for (at, setting) in DatabaseConfig::SETTINGS.iter().enumerate() {
        sides(setting, &|number| {
            let mut config = DatabaseConfig::new();
            config.rows_mut()[at].1.set(number, setting);
            config.rows()[at].1.out_of_range(setting)
        });
    }
    for (at, setting) in CompactionConfig::SETTINGS.iter().enumerate() {
        sides(setting, &|number| {
            let mut config = CompactionConfig::new();
            config.rows_mut()[at].1.set(number, setting);
            config.rows()[at].1.out_of_range(setting)
        });
    }
    // These are choices and switches, or bounded by other settings.
    let others = "max_wal_size_bytes max_total_disk_bytes memtable_mode compression read_mode enabled idle_compaction \
                  dephasing";
    assert_eq!((checked, left.join(" ").as_str()), (26, others));
}

/// Where a format has a bound, its setting has the same.
#[test]
fn ranges_end_where_formats_do() {
    let most = |name| {
        let mut all = DatabaseConfig::SETTINGS.iter().chain(CompactionConfig::SETTINGS);
        all.find(|setting| setting.name == name).unwrap().range.bounds.unwrap().1.number
    };
    assert_eq!(most("max_batch_bytes"), MAX_BATCH_BYTES);
    assert_eq!(most("max_key_bytes"), MAX_KEY_BYTES as u64);
    assert_eq!(most("stripes"), MAX_STRIPES as u64);
    assert_eq!(most("max_concurrent_compactions"), MAX_STRIPES as u64);
}

#[test]
fn settings_are_described_in_words() {
    let all = DatabaseConfig::SETTINGS.iter().chain(CompactionConfig::SETTINGS);
    let told: Vec<_> = all.map(|setting| format!("{setting}; {}", setting.unit)).collect();
    for line in [
        "max_memtable_records: 1000 records; 1 to 100,000,000 records; records",
        "block_size: 4 KiB; 64 bytes to 1 MiB; bytes",
        "sync_interval: 1 s; 1 ms to 1 day, or zero: never; ms",
        "max_wal_size_bytes: three times the memory budget, at least eight segments; at least two segments and the \
         largest item; bytes",
        "compression: `Older`; `Never`, `Older`, `Always`; ",
        "max_batch_bytes: 64 MiB; 1 byte to 1 GiB, at least `max_item_bytes`; bytes",
        "enabled: `true`; `false`, `true`; ",
        "tombstone_age: 7 days; 1 ms to 10 years, or `Duration::MAX`: never; ms",
        "garbage_percent: 100 percent; 1 to 10,000 percent; percent",
    ] {
        assert!(told.iter().any(|told| told == line), "{line}\n{told:#?}");
    }
}

/// The name of the rejected setting, and why.
fn refused(result: Result<()>) -> (&'static str, String) {
    match result {
        Err(Error::InvalidConfig { field, why }) => (field, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn zeros_and_what_is_absurdly_large_are_refused_by_name_with_the_range() {
    let c = DatabaseConfig::new;
    let ms = Duration::from_millis;
    for (field, config) in [
        ("max_memtable_records", c().with_max_memtable_records(0)),
        ("max_memtable_records", c().with_max_memtable_records(usize::MAX)),
        ("max_memtable_size_bytes", c().with_max_memtable_size_bytes(0)),
        ("max_memtable_size_bytes", c().with_max_memtable_size_bytes(usize::MAX)),
        ("bloom_bits_per_key", c().with_bloom_bits_per_key(0)),
        ("bloom_bits_per_key", c().with_bloom_bits_per_key(65)),
        ("memory_budget", c().with_memory_budget(0)),
        ("memory_budget", c().with_memory_budget(usize::MAX)),
        ("write_buffer_size", c().with_write_buffer_size(63)),
        ("write_buffer_size", c().with_write_buffer_size((16 << 20) + 1)),
        ("wal_buffer_size", c().with_wal_buffer_size((16 << 20) + 1)),
        ("block_cache_bytes", c().with_block_cache_bytes(0)),
        ("block_cache_bytes", c().with_block_cache_bytes(usize::MAX)),
        ("latency_sampling", c().with_latency_sampling(u32::MAX)),
        ("block_size", c().with_block_size(63)),
        ("block_size", c().with_block_size((1 << 20) + 1)),
        ("target_sst_size", c().with_target_sst_size(4095)),
        ("target_sst_size", c().with_target_sst_size(u64::MAX)),
        ("wal_segment_size", c().with_wal_segment_size((16 << 10) - 1)),
        ("wal_segment_size", c().with_wal_segment_size(u64::MAX)),
        ("max_key_bytes", c().with_max_key_bytes(0)),
        ("max_key_bytes", c().with_max_key_bytes((64 << 10) + 1)),
        ("max_item_bytes", c().with_max_item_bytes(0)),
        ("max_item_bytes", c().with_max_item_bytes(usize::MAX)),
        ("max_batch_bytes", c().with_max_batch_bytes(0)),
        ("max_batch_bytes", c().with_max_batch_bytes(usize::MAX)),
        ("checkpoint_interval", c().with_checkpoint_interval(Duration::ZERO)),
        ("checkpoint_interval", c().with_checkpoint_interval(Duration::MAX)),
        ("sync_interval", c().with_sync_interval(Duration::from_micros(999))),
        ("sync_interval", c().with_sync_interval(Duration::MAX)),
        ("write_stall_limit", c().with_write_stall_limit(Duration::ZERO)),
        ("write_stall_limit", c().with_write_stall_limit(Duration::MAX)),
        ("recovery_target", c().with_recovery_target(Duration::ZERO)),
        ("recovery_target", c().with_recovery_target(Duration::MAX)),
        ("stats_snapshot_interval", c().with_stats_snapshot_interval(Duration::ZERO)),
        ("stats_snapshot_interval", c().with_stats_snapshot_interval(ms(86_400_001))),
        ("stripes", c().with_stripes(0)),
        ("stripes", c().with_stripes(3)),
        ("stripes", c().with_stripes(512)),
    ] {
        let (named, why) = refused(config.validate());
        assert_eq!(named, field);
        assert!(why.contains("is not between") || why.contains("is not a power of two"), "{field}: {why}");
    }
    let c = CompactionConfig::new;
    for (field, config) in [
        ("sst_threshold", c().with_sst_threshold(1)),
        ("sst_threshold", c().with_sst_threshold(1001)),
        ("check_interval_secs", c().with_check_interval(0)),
        ("check_interval_secs", c().with_check_interval(u64::MAX)),
        ("max_concurrent_compactions", c().with_max_concurrent(0)),
        ("max_concurrent_compactions", c().with_max_concurrent(257)),
        ("tombstone_percent", c().with_tombstone_percent(0)),
        ("tombstone_percent", c().with_tombstone_percent(101)),
        ("garbage_percent", c().with_garbage_percent(0)),
        ("garbage_percent", c().with_garbage_percent(10_001)),
        ("tombstone_age", c().with_tombstone_age(Duration::ZERO)),
        ("tombstone_age", c().with_tombstone_age(Duration::MAX - ms(1))),
    ] {
        let (named, why) = refused(config.validate());
        assert_eq!(named, field);
        assert!(why.contains("is not between"), "{field}: {why}");
    }
}

/// Symptom: with a stored setting out of range, every command failed as if called incorrectly. Cause: stored settings
/// were checked like given ones. Fix: settings that cannot be used are left out, and verify names them.
#[test]
fn stored_settings_that_cannot_be_used_are_left_out() {
    let stored = |settings: &[(&str, u64)]| {
        let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let (config, invalid) = DatabaseConfig::stored(&settings);
        config.validate().unwrap();
        (config, invalid)
    };
    let (config, invalid) =
        stored(&[("block_size", 0), ("max_key_bytes", 77), ("sync_interval_ms", u64::MAX)]);
    assert_eq!((config.block_size, config.max_key_bytes), (DatabaseConfig::new().block_size, 77));
    let names: Vec<_> = invalid.iter().map(|setting| setting.name.as_str()).collect();
    assert_eq!(names.len(), 2, "{invalid:?}");
    assert!(names.contains(&"block_size") && names.contains(&"sync_interval_ms"), "{invalid:?}");
    assert!(invalid[0].to_string().contains("is not between"), "{}", invalid[0]);
    // A quota is never dropped.
    let (config, invalid) = stored(&[("max_total_disk_bytes", 1000)]);
    let quota = config.max_total_disk_bytes.unwrap();
    assert!((1000..=4 << 20).contains(&quota) && invalid[0].instead == Some(quota), "{quota} {invalid:?}");
    // Of two contradictory settings, the non-default one.
    let (config, invalid) = stored(&[("max_item_bytes", 200 << 20), ("block_size", 4096)]);
    assert_eq!((config.max_item_bytes, config.block_size), (DatabaseConfig::new().max_item_bytes, 4096));
    assert_eq!(invalid.len(), 1, "{invalid:?}");
    // However many there are.
    let many: Vec<_> = (0..100_000).map(|n| ("block_size", n % 2)).collect();
    assert_eq!(stored(&many).1.len(), 1);
    let settings = vec![("tombstone_percent".to_owned(), 101)];
    assert_eq!(CompactionConfig::stored(&settings).1.len(), 1);
    let all = DatabaseConfig::new().to_settings();
    assert_eq!(DatabaseConfig::stored(&all), (DatabaseConfig::new(), Vec::new()));
}

/// A batch and the log must each have space for one largest item. A memtable need not, nor must the memory budget: an
/// item larger than they are is accepted and flushed at once.
#[test]
fn contradictions_are_refused_by_name_with_the_other_side() {
    let c = DatabaseConfig::new;
    for (field, reason, config) in [
        ("max_batch_bytes", "max_item_bytes", c().with_max_batch_bytes((16 << 20) - 1)),
        ("max_wal_size_bytes", "largest item", c().with_max_wal_size_bytes(0)),
        ("max_wal_size_bytes", "max_item_bytes", c().with_max_wal_size_bytes(16 << 20)),
        (
            "max_wal_size_bytes",
            "wal_segment_size",
            c().with_max_wal_size_bytes(40 << 20).with_wal_segment_size(16 << 20),
        ),
        ("max_total_disk_bytes", "524288", c().with_max_total_disk_bytes(0)),
        ("max_total_disk_bytes", "two log segments", c().with_max_total_disk_bytes((512 << 10) - 1)),
        (
            "max_total_disk_bytes",
            "the space kept free",
            c().with_max_total_disk_bytes((8 << 20) - 1).with_wal_segment_size(1 << 20),
        ),
    ] {
        let (named, why) = refused(config.validate());
        assert_eq!(named, field);
        assert!(why.contains(reason), "{field}: {why}");
    }
    c().with_max_batch_bytes(16 << 20).validate().unwrap();
    c().with_max_wal_size_bytes(40 << 20).validate().unwrap();
    c().with_max_total_disk_bytes(512 << 10).validate().unwrap();
    c().with_max_total_disk_bytes(8 << 20).with_wal_segment_size(1 << 20).validate().unwrap();
    c().with_max_memtable_size_bytes(1).validate().unwrap();
    c().with_memory_budget(1).validate().unwrap();
}
