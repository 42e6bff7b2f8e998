//! Databases made sick on purpose: the cause is the first advice, and after the change the figure is as predicted.
//! Healthy ones: no advice.

use std::collections::BTreeSet;

use kstone_api::config::text;
use kstone_api::{
    Advice, CompactionConfig, Compression, Database, DatabaseConfig, DiskUsage, EngineStats, Error,
    ItemBuilder, Preset, ReadMode, Situation, Urgency, model::Goal,
};
use tempfile::TempDir;

fn item(n: u64, bytes: usize) -> ItemBuilder {
    // Not compressible to nothing: numbers that follow each other differ.
    let text: String = (0..bytes as u64 / 16)
        .map(|i| format!("{:016x}", (n + i).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    ItemBuilder::new().number("n", n).string("text", text)
}

fn fill(db: &Database, keys: std::ops::Range<u64>, bytes: usize) {
    for n in keys {
        db.put(format!("key{n:06}"), item(n, bytes)).unwrap();
    }
}

/// A database in a directory of its own.
struct Sick {
    db: Database,
    _dir: TempDir,
}

/// With 16 stripes, unless the settings have a number.
fn sick(config: DatabaseConfig, compaction: CompactionConfig) -> Sick {
    let dir = TempDir::new().unwrap();
    let stripes = config.stripes.unwrap_or(16);
    let builder = Database::builder(dir.path().join("db")).config(config.with_stripes(stripes));
    Sick { db: builder.compaction(compaction).create().unwrap(), _dir: dir }
}

/// The first advice, which must be of this rule.
fn first(db: &Database, rule: &str) -> Advice {
    let advice = db.advise(None).unwrap();
    let rules: Vec<_> = advice.iter().map(|advice| advice.rule).collect();
    assert_eq!(
        rules.first(),
        Some(&rule),
        "{rules:?}\n{}",
        advice.iter().map(|a| format!("{a}\n")).collect::<String>()
    );
    let first = advice.into_iter().next().unwrap();
    println!("{first}");
    for text in [&first.cause, &first.cost, &first.check] {
        assert!(!text.is_empty(), "{first:?}");
    }
    assert!(!first.evidence.is_empty(), "{first:?}");
    assert!(!first.settings.is_empty() || !first.action.is_empty(), "{first:?}");
    first
}

/// Does what the advice says.
fn follow(db: &Database, advice: &Advice) {
    let (database, compaction) =
        text::changed(&advice.settings, &db.config(), &db.compaction_config()).unwrap();
    db.set_config(database).unwrap();
    db.set_compaction_config(compaction).unwrap();
    if advice.action == "kstone compact DB" {
        db.flush().unwrap();
        db.compact_all().unwrap();
    }
}

/// The figure measured after the change is within 30 % of the one predicted.
fn as_predicted(advice: &Advice, figure: &str, measured: f64) {
    let expected = advice.expected.iter().find(|expected| expected.figure.starts_with(figure)).unwrap();
    let error = measured / expected.after - 1.0;
    println!(
        "{}: {figure}: before {:.3}, predicted {:.3}, measured {measured:.3}, error {:+.0} %",
        advice.rule,
        expected.before,
        expected.after,
        100.0 * error
    );
    let exact = (measured - expected.after).abs() < 1e-9;
    assert!(exact || error.abs() <= 0.3, "{advice}");
    assert!((measured - expected.before).abs() > 1e-9, "nothing changed: {advice}");
}

fn runs(db: &Database) -> f64 {
    let stats = db.stats().unwrap();
    stats.stripes.iter().map(|stripe| stripe.runs).sum::<usize>() as f64 / stats.stripes.len() as f64
}

#[test]
fn compaction_off_with_29_runs_a_stripe() {
    let sick = sick(DatabaseConfig::new().with_stripes(4), CompactionConfig::disabled());
    let db = &sick.db;
    for round in 0..29 {
        fill(db, 200 * round..200 * round + 200, 100);
        db.flush().unwrap();
    }
    assert_eq!(runs(db), 29.0);
    let advice = first(db, "compaction-off");
    assert_eq!(advice.settings, "compaction_enabled=1");
    assert!(advice.rust_code().unwrap().contains("enabled = true"), "{advice}");
    assert_eq!(
        advice.command(std::path::Path::new("my.db")).unwrap(),
        "kstone config set my.db compaction_enabled=1"
    );
    follow(db, &advice);
    as_predicted(&advice, "runs of a stripe", runs(db));
    let tested = |db: &Database| db.stats().unwrap().reads.runs_looked_at;
    let before = tested(db);
    (0..400).for_each(|n| assert!(db.get(format!("absent{n}")).unwrap().is_none()));
    as_predicted(&advice, "filters tested", (tested(db) - before) as f64 / 400.0);
    assert_eq!(db.advise(None).unwrap(), []);
}

#[test]
fn one_filter_bit() {
    let sick = sick(DatabaseConfig::new().with_bloom_bits_per_key(1), CompactionConfig::new());
    let db = &sick.db;
    fill(db, 0..20_000, 50);
    db.flush().unwrap();
    let absent = |from: u64| {
        let before = db.stats().unwrap().filter;
        for n in from..from + 20_000 {
            assert!(db.get(format!("absent{n}")).unwrap().is_none());
        }
        let after = db.stats().unwrap().filter;
        let (passed, held) =
            (after.false_positives - before.false_positives, after.negatives - before.negatives);
        passed as f64 / (passed + held) as f64
    };
    assert!(absent(0) > 0.3);
    assert_eq!(first(db, "false-positives").settings, "bloom_bits_per_key=16", "all gets miss");
    gets(db, 60_000, 20_000);
    let advice = first(db, "false-positives");
    assert_eq!(advice.settings, "bloom_bits_per_key=10");
    follow(db, &advice);
    as_predicted(&advice, "absent keys that pass", 100.0 * absent(20_000));
}

#[test]
fn a_log_of_more_than_a_second() {
    let config = DatabaseConfig::new()
        .with_max_memtable_records(1_000_000)
        .with_memory_budget(1 << 30)
        .with_max_wal_size_bytes(1 << 30)
        .with_wal_segment_size(4 << 20);
    let sick = sick(config, CompactionConfig::new());
    let db = &sick.db;
    fill(db, 0..13_000, 10_000);
    let advice = first(db, "long-log");
    assert_eq!(advice.settings, "recovery_target_ms=1000");
    let expected = advice.expected[0].clone();
    assert!(expected.before > 1.2, "{advice}");
    follow(db, &advice);
    fill(db, 0..500, 10_000);
    let stats = db.stats().unwrap();
    let measured = stats.log_bytes as f64 / stats.replay_rate as f64;
    println!("long-log: predicted at most {}, measured {measured:.2}", expected.after);
    assert!(measured <= 1.3 * expected.after, "{measured}");
}

#[test]
fn a_quota_that_is_reached() {
    let config = DatabaseConfig::new().with_max_total_disk_bytes(2 << 20).with_stripes(4);
    let sick = sick(config, CompactionConfig::new());
    let db = &sick.db;
    let mut n = 0;
    let full = loop {
        match db.put(format!("key{n}"), item(n, 400)) {
            Ok(()) => n += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::DiskFull), "{full}");
    let advice = first(db, "quota-reached");
    assert_eq!(advice.urgency, Urgency::Critical);
    follow(db, &advice);
    let disk = db.disk_usage().unwrap();
    as_predicted(
        &advice,
        "used and reserved",
        100.0 * (disk.used + disk.reserved) as f64 / disk.limit.unwrap() as f64,
    );
    fill(db, 10_000..10_100, 400);
    // The waits near the old limit are still counted, since open.
    assert!(!db.advise(None).unwrap().iter().any(|advice| advice.rule == "quota-reached"));
}

#[test]
fn tombstones_of_98_percent() {
    let sick =
        sick(DatabaseConfig::new().with_stripes(1), CompactionConfig::disabled().with_tombstone_percent(99));
    let db = &sick.db;
    fill(db, 0..100, 50);
    db.flush().unwrap();
    for n in 0..4_900 {
        db.delete(format!("other{n}")).unwrap();
    }
    db.flush().unwrap();
    let advice = first(db, "tombstones");
    assert_eq!(advice.settings, "tombstone_percent=25");
    assert!((advice.expected[0].before - 98.0).abs() < 0.1, "{advice}");
    follow(db, &advice);
    let stripe = &db.stats().unwrap().stripes[0];
    as_predicted(&advice, "tombstones among", stripe.tombstones as f64);
    as_predicted(&advice, "entries read by a scan", stripe.entries as f64 / 100.0);
    assert_eq!(db.advise(None).unwrap(), []);
}

#[test]
fn one_hot_partition() {
    let config = DatabaseConfig::new().with_stripes(64).with_max_memtable_records(100);
    let sick = sick(config, CompactionConfig::new());
    let db = &sick.db;
    let write = |from: u64| {
        for n in from..from + 10_000 {
            match n % 5 {
                0 => db.put(format!("key{n}"), item(n, 50)).unwrap(),
                _ => db.put(("hot", n), item(n, 50)).unwrap(),
            }
        }
    };
    write(0);
    let advice = first(db, "hot-stripes");
    assert!(advice.cause.contains("is hot: 80 % of the entries"), "{advice}");
    // Without the last flush of each stripe, which has less than a memtable may hold.
    let mut last = 0;
    let mut flushes = || {
        db.flush().unwrap();
        last += db.stats().unwrap().stripes.len() as u64;
        db.stats().unwrap().flushes - last
    };
    let before = flushes();
    follow(db, &advice);
    write(10_000);
    let measured = flushes() - before;
    println!("hot-stripes: {before} flushes for 10,000 writes before, {measured} after");
    assert!(before >= 70 && measured <= 10, "{before} {measured}");
}

#[test]
fn few_stripes_in_use() {
    let sick = sick(DatabaseConfig::new().with_stripes(256), CompactionConfig::new());
    for n in 0..3_000 {
        sick.db.put((["a", "b", "c", "d", "e", "f", "g", "h"][n as usize % 8], n), item(n, 50)).unwrap();
    }
    let advice = first(&sick.db, "hot-stripes");
    assert!(advice.cause.contains("of 256 stripes hold data, because there are few partitions"), "{advice}");
    assert!(advice.action.contains("spread"), "{advice}");
}

#[test]
fn a_memory_budget_too_small() {
    let config = DatabaseConfig::new().with_memory_budget(100_000);
    let sick = sick(config, CompactionConfig::new());
    let db = &sick.db;
    fill(db, 0..20_000, 100);
    let advice = first(db, "small-memory-budget");
    let flushed = |db: &Database| {
        let stats = db.stats().unwrap();
        let held: usize = stats.stripes.iter().map(|stripe| stripe.memtable_records).sum();
        (stats.operations.puts - held as u64, stats.flushes)
    };
    follow(db, &advice);
    let before = flushed(db);
    fill(db, 20_000..80_000, 100);
    let after = flushed(db);
    as_predicted(&advice, "records in a flush", (after.0 - before.0) as f64 / (after.1 - before.1) as f64);
}

#[test]
fn items_too_large() {
    let sick = sick(DatabaseConfig::new(), CompactionConfig::new());
    fill(&sick.db, 0..200, 200_000);
    sick.db.flush().unwrap();
    let advice = first(&sick.db, "large-items");
    assert!(advice.action.contains("parts"), "{advice}");
}

#[test]
fn a_snapshot_that_holds_garbage() {
    let sick = sick(DatabaseConfig::new().with_stripes(4), CompactionConfig::new());
    let db = &sick.db;
    fill(db, 0..6_000, 100);
    let snapshot = db.snapshot().unwrap();
    for round in 1..3 {
        fill(db, 0..6_000, 100 + round);
        db.flush().unwrap();
        db.compact_all().unwrap();
    }
    let advice = first(db, "snapshot-held");
    drop(snapshot);
    db.compact_all().unwrap();
    let entries = db.stats().unwrap().amplification.entries.unwrap();
    as_predicted(&advice, "entries in SSTs", entries);
    assert_eq!(db.advise(None).unwrap(), []);
}

/// Gets of keys in no order.
fn gets(db: &Database, count: u64, keys: u64) {
    for n in 0..count {
        assert!(db.get(format!("key{:06}", n.wrapping_mul(7_919) % keys)).unwrap().is_some());
    }
}

#[test]
fn a_block_cache_too_small_for_pread() {
    let config = DatabaseConfig::new().with_read_mode(ReadMode::Pread).with_block_cache_bytes(64 << 10);
    let sick = sick(config, CompactionConfig::new());
    let db = &sick.db;
    fill(db, 0..20_000, 200);
    db.flush().unwrap();
    db.compact_all().unwrap();
    gets(db, 3_000, 20_000);
    let advice = first(db, "small-block-cache");
    follow(db, &advice);
    gets(db, 20_000, 20_000); // warms it
    let before = db.stats().unwrap().block_cache;
    gets(db, 5_000, 20_000);
    let after = db.stats().unwrap().block_cache;
    let (hits, misses) = (after.hits - before.hits, after.misses - before.misses);
    as_predicted(&advice, "blocks found in the cache", 100.0 * hits as f64 / (hits + misses) as f64);
}

#[test]
fn compression_that_costs_reads() {
    let config = DatabaseConfig::new().with_compression(Compression::Always).with_block_cache_bytes(64 << 10);
    let sick = sick(config, CompactionConfig::new());
    let db = &sick.db;
    for n in 0..20_000 {
        db.put(format!("key{n:06}"), ItemBuilder::new().string("text", "as like as two peas ".repeat(20)))
            .unwrap();
    }
    db.flush().unwrap();
    db.compact_all().unwrap();
    gets(db, 3_000, 20_000);
    let advice = first(db, "compressed-reads");
    assert_eq!(advice.settings, "compression=0");
    follow(db, &advice);
    let before = db.stats().unwrap().block_cache.misses;
    gets(db, 3_000, 20_000);
    as_predicted(
        &advice,
        "blocks decompressed",
        (db.stats().unwrap().block_cache.misses - before) as f64 / 3_000.0,
    );
}

#[test]
fn checkpoints_too_rare() {
    let config = DatabaseConfig::new()
        .with_checkpoint_interval(std::time::Duration::from_secs(3_600))
        .with_max_memtable_records(100)
        .with_wal_segment_size(1 << 20)
        .with_max_wal_size_bytes(1 << 30);
    let sick = sick(config, CompactionConfig::new());
    let db = &sick.db;
    fill(db, 0..40_000, 1_000);
    let advice = first(db, "rare-checkpoints");
    assert_eq!(advice.settings, "checkpoint_interval_ms=2000");
    assert!(
        advice.rust_code().unwrap().contains("with_checkpoint_interval(Duration::from_secs(2))"),
        "{advice}"
    );
    follow(db, &advice);
    // A checkpoint, as the shorter interval makes one, without waiting for it.
    db.flush().unwrap();
    let log = db.stats().unwrap().log_bytes as f64 / 1e6;
    let expected = &advice.expected[0];
    println!(
        "rare-checkpoints: before {:.1} MB, predicted {:.1}, measured {log:.1}",
        expected.before, expected.after
    );
    assert!(expected.before > 20.0 && log <= 1.3 * expected.after, "{log}");
}

#[test]
fn a_goal_is_met_by_the_settings_of_the_model() {
    let config = DatabaseConfig::new().with_max_memtable_records(50).with_stripes(4);
    let sick = sick(config, CompactionConfig::new().with_sst_threshold(4));
    let db = &sick.db;
    fill(db, 0..20_000, 100);
    let advice = db.advise(Some(Goal::Write)).unwrap();
    let goal = advice.iter().find(|advice| advice.rule == "goal").unwrap();
    println!("{goal}");
    assert!(
        goal.settings.contains("max_memtable_records=") && !goal.settings.contains("compaction_enabled"),
        "{goal}"
    );
    assert!(goal.expected[0].after < goal.expected[0].before, "{goal}");
    follow(db, goal);
    // Nothing better is left for the same work.
    let again = db.advise(Some(Goal::Write)).unwrap();
    assert!(!again.iter().any(|advice| advice.rule == "goal"), "{again:?}");
}

#[test]
fn healthy_databases_get_no_advice() {
    let none = |what: &str, db: &Database| {
        let advice = db.advise(None).unwrap();
        assert_eq!(advice, [], "{what}:\n{}", advice.iter().map(|a| format!("{a}\n")).collect::<String>());
    };
    none("empty", &Database::in_memory().unwrap());

    let small = Database::in_memory().unwrap();
    fill(&small, 0..50, 100);
    none("small", &small);

    let settled = sick(DatabaseConfig::new().with_stripes(256), CompactionConfig::new());
    fill(&settled.db, 0..50_000, 200);
    settled.db.flush().unwrap();
    settled.db.compact_all().unwrap();
    gets(&settled.db, 10_000, 50_000);
    none("settled", &settled.db);

    // Work under way: overwrites, deletes, absent keys, scans.
    let busy = sick(DatabaseConfig::new().with_max_memtable_records(200), CompactionConfig::new());
    for round in 0..4 {
        fill(&busy.db, 0..10_000, 100 + round);
        for n in (0..10_000).step_by(7) {
            busy.db.delete(format!("key{n:06}")).unwrap();
            assert!(busy.db.get(format!("absent{n}")).unwrap().is_none());
        }
        assert!(busy.db.scan().count().unwrap() > 8_000);
    }
    none("busy", &busy.db);

    for preset in ["write-heavy", "embedded", "low-latency-cache", "memory-constrained"] {
        let dir = TempDir::new().unwrap();
        let builder = Database::builder(dir.path().join("db")).preset(Preset::by_name(preset).unwrap());
        let db = builder.create().unwrap();
        fill(&db, 0..30_000, 150);
        gets(&db, 5_000, 30_000);
        none(preset, &db);
    }

    let quota = sick(DatabaseConfig::new().with_max_total_disk_bytes(256 << 20), CompactionConfig::new());
    fill(&quota.db, 0..20_000, 200);
    none("with a quota", &quota.db);
}

/// Rules whose sickness cannot be made here without waiting, or without breaking the machine.
#[test]
fn rules_that_figures_alone_decide() {
    let base = || {
        let mut stats: EngineStats = serde_json::from_str("{}").unwrap();
        (stats.stripe_count, stats.uptime_ms, stats.items_estimate) = (256, 60_000, 256_000);
        stats.stripes = (0..256)
            .map(|n| {
                let json = serde_json::json!({
                    "stripe": n, "runs": 3, "ssts": 3, "entries": 1000, "writes": 1000, "sst_bytes": 200_000,
                });
                serde_json::from_value(json).unwrap()
            })
            .collect();
        (stats.operations.puts, stats.operations.gets) = (256_000, 100_000);
        (stats.flushes, stats.flush_bytes_written, stats.flush_nanos) = (256, 50_000_000, 100_000_000);
        (stats.written_sizes.keys.count, stats.written_sizes.keys.mean) = (4_000, 20);
        (stats.written_sizes.values.count, stats.written_sizes.values.mean) = (4_000, 180);
        stats.replay_rate = 100_000_000;
        stats
    };
    let stall = |reason: &str, count: u64| {
        let json = serde_json::json!({
            "reason": reason, "count": count, "nanos": 1_000_000 * count, "longest_nanos": 5_000_000, "delays": count,
            "stops": 0,
        });
        serde_json::from_value(json).unwrap()
    };
    let rules = |stats: &EngineStats, disk: &DiskUsage| {
        let (database, compaction) = (DatabaseConfig::new(), CompactionConfig::new());
        let advice = Situation::new(stats, disk, &database, &compaction).advise();
        advice.iter().for_each(|advice| println!("{advice}"));
        advice.iter().map(|advice| advice.rule).collect::<Vec<_>>()
    };
    let disk = DiskUsage::default();
    assert_eq!(rules(&base(), &disk), [""; 0]);

    let mut stats = base();
    stats.poisoned = Some("sync failed".into());
    stats.background_error = Some("sync failed".into());
    assert_eq!(rules(&stats, &disk), ["writing-stopped"]);
    stats.poisoned = None;
    assert_eq!(rules(&stats, &disk), ["background-fails"]);

    let mut full = DiskUsage::default();
    full.free_bytes = Some(1 << 20);
    assert_eq!(rules(&stats, &full), ["file-system-full"]);
    full.free_bytes = Some(100 << 20);
    assert_eq!(rules(&base(), &full), [""; 0]);
    full = DiskUsage::default();
    full.free_inodes = Some(0);
    assert_eq!(rules(&base(), &full), ["file-system-full"]);

    let mut stats = base();
    stats.amplification.entries = Some(3.4);
    assert_eq!(rules(&stats, &disk), ["garbage"]);

    let mut stats = base();
    (stats.stalls, stats.flush_nanos) = (vec![stall("memtables", 20_000)], 10_000_000_000);
    assert_eq!(rules(&stats, &disk), ["slow-flushes"]);
    stats.flush_nanos = 100_000_000;
    assert_eq!(rules(&stats, &disk), ["writes-held-up"], "the disk is not slow");
    stats.stalls = vec![stall("runs", 20_000)];
    assert_eq!(rules(&stats, &disk), ["merging-behind"]);
    stats.stalls = vec![stall("runs", 2_000)];
    assert_eq!(rules(&stats, &disk), [""; 0], "0.8 % of the writes");

    let mut stats = base();
    stats.stripes[3].runs = 15;
    assert_eq!(rules(&stats, &disk), ["many-runs"]);
    stats.stripes[3].runs = 14;
    assert_eq!(rules(&stats, &disk), [""; 0]);

    let mut stats = base();
    stats.log_bytes = DatabaseConfig::new().wal_limit_bytes();
    assert_eq!(rules(&stats, &disk), ["full-log"]);

    let mut stats = base();
    stats.major_faults = Some(50_000);
    assert_eq!(rules(&stats, &disk), ["larger-than-memory"]);

    let mut stats = base();
    (stats.amplification.write_tables, stats.operations.user_bytes_written) = (Some(14.0), 50_000_000);
    assert_eq!(rules(&stats, &disk), ["write-amplification"]);

    let stats = base();
    let mut latencies = kstone_api::Latencies::default();
    (latencies.get.count, latencies.get.p99_nanos) = (1_000, 7_000_000);
    let (database, compaction) = (DatabaseConfig::new(), CompactionConfig::new());
    let situation = Situation::new(&stats, &disk, &database, &compaction).latencies(&latencies);
    assert_eq!(situation.advise()[0].rule, "slow-gets");
}

/// Figures may come from a file that anything has written: no panic, and only settings that can be set.
#[test]
fn figures_of_any_size_are_taken() {
    fn all(value: &mut serde_json::Value, number: &serde_json::Value) {
        match value {
            serde_json::Value::Number(found) => {
                *value = if found.is_f64() { 1e300.into() } else { number.clone() }
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(|value| all(value, number)),
            serde_json::Value::Object(map) => map.values_mut().for_each(|value| all(value, number)),
            _ => {}
        }
    }
    let sick = sick(DatabaseConfig::new(), CompactionConfig::new());
    fill(&sick.db, 0..2_000, 50);
    sick.db.flush().unwrap();
    let real = serde_json::to_value(sick.db.stats().unwrap()).unwrap();
    let large = DatabaseConfig::new().with_max_memtable_records(100_000_000).with_memory_budget(1 << 40);
    let pread = DatabaseConfig::new().with_read_mode(ReadMode::Pread).with_block_cache_bytes(1 << 40);
    let compressed = DatabaseConfig::new().with_compression(Compression::Always).with_bloom_bits_per_key(1);
    let quota = DatabaseConfig::new().with_max_total_disk_bytes(u64::MAX);
    let mut disk = DiskUsage::default();
    (disk.used, disk.reserved, disk.limit) = (u64::MAX, u64::MAX, Some(u64::MAX));
    let mut advised = 0;
    for number in [0, 1, 15, 1 << 20, 1 << 40, u64::MAX >> 1, u64::MAX] {
        let mut json = real.clone();
        all(&mut json, &number.into());
        json["major_faults"] = number.into();
        json["stalls"] = serde_json::json!([{"reason": "runs", "count": number, "nanos": number,
            "longest_nanos": number, "delays": number, "stops": number}]);
        // Numbers of stripes and formats are narrower.
        json["format_version"] = 1.into();
        json["stripe_count"] = number.min(256).into();
        let stats: EngineStats = serde_json::from_value(json).unwrap();
        for database in [&DatabaseConfig::new(), &large, &pread, &compressed, &quota] {
            for compaction in [CompactionConfig::new(), CompactionConfig::disabled().with_sst_threshold(2)] {
                for goal in [Goal::Read, Goal::Memory] {
                    let situation = Situation::new(&stats, &disk, database, &compaction);
                    for advice in situation.goal(goal).memory(number).advise() {
                        advised += 1;
                        assert!(!advice.to_string().is_empty());
                        advice.rust_code().unwrap_or_else(|error| panic!("{error}: {advice:?}"));
                        text::changed(&advice.settings, database, &compaction)
                            .unwrap_or_else(|error| panic!("{error}: {advice:?}"));
                    }
                }
            }
        }
    }
    assert!(advised > 100, "{advised}");
}

/// Each rule is the first advice of a test above.
#[test]
fn every_rule_has_a_test() {
    let source = include_str!("advise.rs");
    let rules: BTreeSet<_> = Situation::rules().map(|(name, _)| name).collect();
    assert_eq!(rules.len(), Situation::rules().count());
    for rule in rules {
        let (first, alone) = (format!("\"{rule}\")"), format!("[\"{rule}\"]"));
        assert!(
            [first, alone, format!("rule, \"{rule}\"")].iter().any(|text| source.contains(text)),
            "{rule}"
        );
    }
}

#[test]
fn advice_is_json_and_text() {
    let sick = sick(DatabaseConfig::new().with_stripes(1), CompactionConfig::disabled());
    for n in 0..12 {
        fill(&sick.db, n..n + 1, 10);
        sick.db.flush().unwrap();
    }
    let advice = first(&sick.db, "compaction-off");
    let json = serde_json::to_value(&advice).unwrap();
    assert_eq!((json["rule"].as_str(), json["urgency"].as_str()), (Some("compaction-off"), Some("high")));
    assert_eq!(json["evidence"][0]["source"], "settings");
    let text = advice.display(std::path::Path::new("my.db")).to_string();
    assert!(text.starts_with("HIGH     compaction is off"), "{text}");
    for line in [
        "do       kstone config set my.db compaction_enabled=1",
        "then     kstone compact my.db",
        "check    kstone info my.db",
    ] {
        assert!(text.contains(&format!("\n         {line}")), "{text}");
    }
    let quoted = advice.command(std::path::Path::new("it's my.db")).unwrap();
    assert_eq!(quoted, r"kstone config set 'it'\''s my.db' compaction_enabled=1");
}
