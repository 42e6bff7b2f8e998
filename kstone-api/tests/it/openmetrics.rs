//! The text for Prometheus: every line is valid, and the values are those of the statistics.

use std::collections::{BTreeMap, BTreeSet};

use kstone_api::{Database, DatabaseConfig, EngineOptions, ItemBuilder, LsmEngine, StallReason, WriteBatch};
use kstone_core::lsm::Workers;

/// A database that has done a little of everything, and is idle.
fn used() -> Database {
    // No background work between reading the text and the statistics.
    let mut options = EngineOptions::memory();
    options.workers = Workers::Manual;
    let config = DatabaseConfig::new().with_latency_sampling(1).with_max_total_disk_bytes(256 << 20);
    options.config = Some(config);
    let db = Database::from(LsmEngine::create("metrics".as_ref(), options).unwrap());
    for n in 0..300 {
        db.put(format!("key{n}"), ItemBuilder::new().number("n", n)).unwrap();
    }
    db.flush().unwrap();
    for n in 0..100 {
        db.delete(format!("key{n}")).unwrap();
    }
    let mut batch = WriteBatch::new();
    batch.put(("p", "a"), ItemBuilder::new().number("n", 1)).unwrap();
    batch.put(("p", "b"), ItemBuilder::new().number("n", 2)).unwrap();
    db.write(batch).unwrap();
    db.compact_all().unwrap();
    for n in 50..150 {
        assert_eq!(db.get(format!("key{n}")).unwrap().is_some(), n >= 100);
    }
    assert_eq!(db.query("p").run().unwrap().count(), 2);
    assert_eq!(db.scan().run().unwrap().count(), 202);
    db
}

/// Parses samples by name and labels, checking each line against the format.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no # EOF at the end of {text}"));
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let (mut samples, mut families) = (BTreeMap::new(), BTreeMap::new());
    let mut helped = BTreeSet::new();
    let mut family = (String::new(), String::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty(), "{line}");
            assert!(helped.insert(name.to_string()), "{name} is there twice");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(helped.contains(name), "{name} has no help");
            assert!(families.insert(name.to_string(), kind.to_string()).is_none(), "{name} is there twice");
            family = (name.to_string(), kind.to_string());
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line:?}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("not a number: {line:?}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let (name, labels) = match sample.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"))),
            None => (sample, ""),
        };
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label), "{line}");
            assert!(value.len() > 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
        }
        let suffix =
            name.strip_prefix(family.0.as_str()).unwrap_or_else(|| panic!("{line} under {}", family.0));
        let allowed: &[&str] = match family.1.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            _ => &["_bucket", "_count", "_sum"],
        };
        assert!(name.starts_with("keystonedb_") && allowed.contains(&suffix), "{line}");
        assert!(samples.insert(sample.to_string(), value).is_none(), "{sample} is there twice");
    }
    samples
}

#[test]
fn every_line_is_valid_and_the_values_are_those_of_the_statistics() {
    let db = used();
    let samples = parse(&db.openmetrics());
    let stats = db.stats().unwrap();
    let disk = db.disk_usage().unwrap();
    let compactions = db.compaction_stats();
    let stripes =
        |of: fn(&kstone_api::StripeStats) -> usize| stats.stripes.iter().map(of).sum::<usize>() as u64;

    for (name, value) in [
        ("up", 1),
        ("writes_total", 402),
        ("deletes_total", 100),
        ("batches_total", 1),
        ("reads_total", 100),
        ("queries_total", 1),
        ("scans_total", 1),
        ("items_scanned_total", 204),
        ("user_bytes_written_total", stats.operations.user_bytes_written),
        ("user_bytes_read_total", stats.operations.user_bytes_read),
        ("disk_full_refusals_total", 0),
        ("flushes_total", stats.flushes),
        ("flush_bytes_written_total", stats.flush_bytes_written),
        ("compactions_total{reason=\"requested\"}", stats.compactions),
        ("compaction_bytes_read_total{reason=\"requested\"}", compactions.total_bytes_read),
        ("compaction_bytes_written_total{reason=\"requested\"}", compactions.total_bytes_written),
        ("ssts_merged_total", compactions.total_ssts_merged),
        ("tombstones_removed_total", 100),
        ("checkpoints_total", stats.checkpoints),
        ("log_records_total", 401),
        ("log_writes_total", stats.log_writes),
        ("log_bytes_written_total", stats.log_bytes_written),
        ("reads_by_source_total{source=\"sst\"}", 50),
        ("reads_by_source_total{source=\"none\"}", 50),
        ("reads_by_source_total{source=\"memtable\"}", 0),
        ("runs_read_total", stats.reads.runs_looked_at),
        ("blocks_read_total", stats.reads.blocks_read),
        ("filter_tests_total", stats.filter.tests),
        ("filter_negatives_total", stats.filter.negatives),
        ("filter_false_positives_total", stats.filter.false_positives),
        ("block_cache_capacity_bytes", 8 << 20),
        ("items_estimate", 202),
        ("ssts", stripes(|stripe| stripe.ssts)),
        ("runs", stripes(|stripe| stripe.runs)),
        ("runs_worst", 1),
        ("memtable_records", 0),
        ("memtable_bytes", stripes(|stripe| stripe.memtable_bytes)),
        ("memtable_budget_bytes", db.config().memory_budget_bytes() as u64),
        ("sst_bytes", stats.sst_bytes),
        ("log_bytes", stats.log_bytes),
        ("log_limit_bytes", db.config().wal_limit_bytes()),
        ("log_segments", stats.log_segments as u64),
        ("manifest_bytes", stats.manifest_bytes),
        ("disk_used_bytes", disk.used),
        ("disk_limit_bytes", 256 << 20),
        ("background_failing", 0),
        ("poisoned", 0),
        ("write_latency_microseconds_count", 300),
        ("read_latency_microseconds_count", 100),
        ("delete_latency_microseconds_count", 100),
        ("batch_latency_microseconds_count", 1),
        ("write_latency_microseconds_bucket{le=\"+Inf\"}", 300),
        ("flush_duration_microseconds_count", stats.flushes),
        ("compaction_duration_microseconds_count", stats.compactions),
    ] {
        let sample = samples.get(&format!("keystonedb_{name}"));
        assert_eq!(sample, Some(&(value as f64)), "{name}\n{samples:#?}");
    }
    let amplification = &stats.amplification;
    for (name, value) in [
        ("write_amplification{by=\"ssts\"}", amplification.write_tables),
        ("write_amplification{by=\"all\"}", amplification.write_total),
        ("read_amplification{in=\"runs\"}", amplification.read_runs),
        ("space_amplification", amplification.space),
        ("recovery_estimate_seconds", Some(stats.estimated_recovery_nanos as f64 / 1e9)),
    ] {
        assert_eq!(samples.get(&format!("keystonedb_{name}")).copied(), value, "{name}");
    }
    // Histogram buckets are cumulative.
    let bucket = |le: &str| samples[&format!("keystonedb_read_latency_microseconds_bucket{{le=\"{le}\"}}")];
    assert!(bucket("1.0") <= bucket("10.0") && bucket("10.0") <= bucket("10000000.0"));
    assert_eq!(bucket("+Inf"), 100.0);
}

#[test]
fn a_closed_database_says_that_it_is_down() {
    let db = Database::in_memory().unwrap();
    let other = db.clone();
    db.close().unwrap();
    assert_eq!(parse(&other.openmetrics()), BTreeMap::from([("keystonedb_up".to_string(), 0.0)]));
}

/// Every exported metric can be non-zero, and then equals the statistics.
#[test]
fn no_metric_is_always_zero() {
    let (db, vfs) = crate::figures::eventful();
    crate::figures::fail(&db, &vfs);
    let samples = parse(&db.openmetrics());
    let (stats, disk, latencies) = (db.stats().unwrap(), db.disk_usage().unwrap(), db.latencies());
    let compactions = db.compaction_stats();
    let (ops, reads, cache, filter) = (&stats.operations, &stats.reads, &stats.block_cache, &stats.filter);
    let stripe = &stats.stripes[0];
    let amplification = &stats.amplification;
    let stall = stats.stalls.iter().find(|stall| stall.reason == StallReason::Memtables).unwrap();
    let reason = &compactions.by_reason[compactions.by_reason.len() - 1];
    let whole = |value: u64| value as f64;
    for (name, value) in [
        ("up", 1.0),
        ("writes_total", whole(ops.puts + ops.deletes)),
        ("deletes_total", 20.0),
        ("batches_total", 1.0),
        ("reads_total", 614.0),
        ("queries_total", 1.0),
        ("scans_total", 1.0),
        ("items_scanned_total", 382.0),
        ("entries_passed_total", 2.0),
        ("user_bytes_written_total", whole(ops.user_bytes_written)),
        ("user_bytes_read_total", whole(ops.user_bytes_read)),
        ("disk_full_refusals_total", 1.0),
        ("flushes_total", whole(stats.flushes)),
        ("flush_bytes_written_total", whole(stats.flush_bytes_written)),
        ("compactions_total{reason=\"requested\"}", whole(reason.count)),
        ("compaction_bytes_read_total{reason=\"requested\"}", whole(reason.bytes_read)),
        ("compaction_bytes_written_total{reason=\"requested\"}", whole(reason.bytes_written)),
        ("ssts_merged_total", whole(compactions.total_ssts_merged)),
        ("tombstones_removed_total", 20.0),
        ("checkpoints_total", whole(stats.checkpoints)),
        ("log_writes_total", whole(stats.log_writes)),
        ("log_records_total", whole(stats.log_records)),
        ("log_bytes_written_total", whole(stats.log_bytes_written)),
        ("stalls_total{reason=\"memtables\"}", whole(stall.count)),
        ("stall_seconds_total{reason=\"memtables\"}", stall.nanos as f64 / 1e9),
        ("reads_by_source_total{source=\"memtable\"}", whole(reads.memtable)),
        ("reads_by_source_total{source=\"sealed\"}", whole(reads.sealed)),
        ("reads_by_source_total{source=\"sst\"}", whole(reads.runs.iter().sum())),
        ("reads_by_source_total{source=\"none\"}", 220.0),
        ("runs_read_total", whole(reads.runs_looked_at)),
        ("blocks_read_total", whole(reads.blocks_read)),
        ("filter_tests_total", whole(filter.tests)),
        ("filter_negatives_total", whole(filter.negatives)),
        ("filter_false_positives_total", whole(filter.false_positives)),
        ("block_cache_hits_total", whole(cache.hits)),
        ("block_cache_misses_total", whole(cache.misses)),
        ("block_cache_evictions_total", whole(cache.evictions)),
        ("block_cache_bytes", whole(cache.bytes)),
        ("block_cache_capacity_bytes", whole(64 << 10)),
        ("items_estimate", whole(stats.items_estimate)),
        ("ssts", stripe.ssts as f64),
        ("runs", stripe.runs as f64),
        ("runs_worst", stripe.runs as f64),
        ("memtable_records", stripe.memtable_records as f64),
        ("memtable_bytes", stripe.memtable_bytes as f64),
        ("memtable_budget_bytes", 200_000.0),
        ("sst_bytes", whole(stats.sst_bytes)),
        ("log_bytes", whole(stats.log_bytes)),
        ("log_limit_bytes", whole(db.config().wal_limit_bytes())),
        ("log_segments", stats.log_segments as f64),
        ("manifest_bytes", whole(stats.manifest_bytes)),
        ("disk_used_bytes", whole(disk.used)),
        ("disk_limit_bytes", whole(4 << 20)),
        ("write_amplification{by=\"compaction\"}", amplification.write_compaction.unwrap()),
        ("write_amplification{by=\"ssts\"}", amplification.write_tables.unwrap()),
        ("write_amplification{by=\"all\"}", amplification.write_total.unwrap()),
        ("read_amplification{in=\"runs\"}", amplification.read_runs.unwrap()),
        ("read_amplification{in=\"blocks\"}", amplification.read_blocks.unwrap()),
        ("space_amplification", amplification.space.unwrap()),
        ("recovery_estimate_seconds", stats.estimated_recovery_nanos as f64 / 1e9),
        ("background_failing", 1.0),
        ("poisoned", 1.0),
        ("write_latency_microseconds_count", whole(latencies.put.count)),
        ("read_latency_microseconds_count", 614.0),
        ("delete_latency_microseconds_count", 20.0),
        ("query_latency_microseconds_count", 2.0),
        ("batch_latency_microseconds_count", 1.0),
        ("flush_duration_microseconds_count", whole(latencies.flush.count)),
        ("compaction_duration_microseconds_count", whole(latencies.compaction.count)),
        ("checkpoint_duration_microseconds_count", whole(latencies.checkpoint.count)),
        ("log_sync_duration_microseconds_count", whole(latencies.log_sync.count)),
    ] {
        assert!(value > 0.0, "{name} is nothing\n{stats:#?}");
        let sample = samples.get(&format!("keystonedb_{name}")).copied();
        assert!(
            sample.is_some_and(|sample| (sample / value - 1.0).abs() < 1e-9),
            "{name}: {sample:?}, not {value}"
        );
    }
}
