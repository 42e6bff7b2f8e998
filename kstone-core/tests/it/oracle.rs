//! Random operations, with every result compared to a model. A failure's message has its seed; `KSTONE_SEED=n` runs
//! only that one.

use std::time::Duration;

use kstone_core::torture::{Oracle, Rng, SettingsOf, Totals, tiny_settings};
use kstone_core::{CompactionConfig, Compression, DatabaseConfig, MemtableMode, ReadMode};

use crate::model::only_seed;

/// The number of workloads with random settings, and their length.
const ROUNDS: u64 = 330;
const OPS: u64 = 2_100;
/// The number of workloads on each of the option sets, and their length.
const SHARED: u64 = 8;
const SHARED_OPS: u64 = 5_000;

#[test]
fn random_operations_agree_with_a_model() {
    let only = only_seed();
    let mut totals = Totals::default();
    for seed in only.map_or(0..ROUNDS, |seed| seed..seed + 1) {
        let oracle = Oracle { seed, operations: OPS, settings: SettingsOf::Random };
        totals.add(&oracle.run().unwrap_or_else(|failure| panic!("{failure}")));
    }
    println!("oracle: {totals}");
    if only.is_none() {
        assert!(totals.operations >= 690_000 && totals.reads > 200_000, "{totals}");
        assert!(
            totals.flushes > 50_000 && totals.compactions > 20_000 && totals.rotations > 10_000,
            "{totals}"
        );
        assert!(
            totals.reopens > 8_000 && totals.deaths > 3_000 && totals.read_only_opens > 1_000,
            "{totals}"
        );
        assert!(totals.snapshots > 9_000 && totals.settings > 3_000, "{totals}");
    }
}

/// Symptom: a full database that was opened after a crash, with smaller memtables than before, failed with
/// `WriteStalled`. Cause: the replay split the data in memory into many small memtables, whose runs took more pages
/// than were reserved. Fix: with a quota, the replay seals no memtables.
#[test]
fn a_full_database_is_opened_with_smaller_memtables() {
    let oracle = Oracle { seed: 400_995, operations: 3_000, settings: SettingsOf::Random };
    oracle.run().unwrap_or_else(|failure| panic!("{failure}"));
}

type Options = (DatabaseConfig, CompactionConfig);

/// Settings that must not affect any result.
fn option_sets() -> Vec<Options> {
    let (tiny, compaction) = tiny_settings(&mut Rng(1));
    let tiny = || tiny.clone().with_stripes(4).with_max_memtable_records(8);
    let often = || compaction.clone().with_sst_threshold(2);
    let plain = CompactionConfig::new;
    vec![
        (tiny(), often()),
        (tiny().with_stripes(1).with_read_mode(ReadMode::Pread), often()),
        (
            tiny().with_stripes(16).with_read_mode(ReadMode::Mmap).with_compression(Compression::Always),
            often(),
        ),
        (tiny().with_stripes(256).with_bloom_bits_per_key(1), plain()),
        (tiny().with_bloom_bits_per_key(1).with_compression(Compression::Never).with_block_size(64), often()),
        (tiny().with_memtable_mode(MemtableMode::Adaptive).with_memory_budget(2_000), often()),
        (tiny().with_sync_interval(Duration::ZERO).with_write_buffer_size(64), CompactionConfig::disabled()),
        (
            tiny().with_read_mode(ReadMode::Pread).with_compression(Compression::Always),
            often().with_dephasing(true),
        ),
        (tiny().with_max_memtable_records(3).with_recovery_target(Duration::from_millis(1)), often()),
        (DatabaseConfig::new().with_wal_segment_size(16 << 10).with_stripes(64), plain()),
    ]
}

#[test]
fn settings_make_no_difference_to_answers() {
    let only = only_seed();
    let sets = option_sets();
    let mut totals = Totals::default();
    for seed in only.map_or(0..SHARED, |seed| seed..seed + 1) {
        let oracle = Oracle { seed: seed + 1_000_000, operations: SHARED_OPS, settings: SettingsOf::Random };
        totals.add(&oracle.agree(&sets).unwrap_or_else(|failure| panic!("{failure}")));
    }
    println!("oracle: {} option sets, {totals}", sets.len());
    if only.is_none() {
        assert!(sets.len() >= 8 && totals.operations >= 400_000 && totals.refused == 0, "{totals}");
        assert!(totals.flushes > 10_000 && totals.compactions > 5_000 && totals.reopens > 5_000, "{totals}");
    }
}
