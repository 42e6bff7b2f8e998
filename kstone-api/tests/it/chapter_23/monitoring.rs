//! Section 23.7, "Performance Monitoring".

use std::path::Path;
use std::process::Command;

use kstone_api::{
    AlertThresholds, CompactionConfig, Compression, Database, ItemBuilder, Result, measure_average_sst_count,
    measure_p99_read_latency,
};

/// Creates a database in `mydb.keystone` below the directory, with 20 SSTs in one stripe.
fn neglected(dir: &Path) -> Result<Database> {
    let builder = Database::builder(dir.join("mydb.keystone"));
    let db = builder.compaction(CompactionConfig::disabled()).create()?;
    for n in 0..20 {
        db.put(("one partition", format!("{n:03}")), ItemBuilder::new().number("n", n))?;
        db.flush()?;
    }
    // And one SST in a few other stripes.
    for n in 0..50 {
        db.put(format!("key{n}"), ItemBuilder::new().number("n", n))?;
    }
    db.flush()?;
    Ok(db)
}

/// The output of a script run in the directory; `None`, with a note on stderr, if there is no such shell.
fn shell(shell: &str, script: &str, dir: &Path) -> Option<String> {
    let output = match Command::new(shell).arg("-c").arg(script).current_dir(dir).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: {shell}: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
#[rustfmt::skip]
fn operation_counts() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let db = neglected(dir.path())?;
    db.delete(("one partition", "000"))?;
    db.compact_all()?;
    let engine = db.engine();

    let stats = engine.compaction_stats();
    println!("Total compactions: {}", stats.total_compactions);
    println!("SSTs merged: {}", stats.total_ssts_merged);
    println!("Tombstones removed: {}", stats.total_tombstones_removed);

    assert!(stats.total_compactions >= 1);
    assert!(stats.total_ssts_merged >= 21);
    assert_eq!(stats.total_tombstones_removed, 1);
    assert_eq!(db.compaction_stats(), stats);
    Ok(())
}

#[test]
fn sst_file_counts() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let db = neglected(dir.path())?;
    let script = r#"
# Per-stripe SST count
for stripe in {0..255}; do
    count=$(ls mydb.keystone/$(printf "%03d" $stripe)-*.sst 2>/dev/null | wc -l)
    if [ $count -gt 15 ]; then
        echo "Warning: Stripe $stripe has $count SSTs (threshold: 10)"
    fi
done
"#;
    let Some(output) = shell("bash", script, dir.path()) else { return Ok(()) };
    let stats = db.stats()?;
    let over: Vec<_> = stats.stripes.iter().filter(|stripe| stripe.ssts > 15).collect();
    assert_eq!(over.len(), 1, "{stats:?}");
    let expected = format!("Warning: Stripe {} has {} SSTs (threshold: 10)\n", over[0].stripe, over[0].ssts);
    assert_eq!(output, expected);

    db.compact_all()?;
    assert_eq!(shell("bash", script, dir.path()).unwrap(), "");
    Ok(())
}

#[test]
fn disk_usage() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let _db = neglected(dir.path())?;
    let script = r"
# Total database size
du -sh mydb.keystone/

# Per-component breakdown
du -sh mydb.keystone/wal*.log   # WAL files
du -sh mydb.keystone/*.sst      # SST files
";
    let Some(output) = shell("sh", script, dir.path()) else { return Ok(()) };
    let lines = |end: &str| output.lines().filter(|line| line.ends_with(end)).count();
    assert_eq!(lines("\tmydb.keystone/"), 1, "{output}");
    assert!(lines(".log") >= 1, "{output}");
    assert!(lines(".sst") >= 21, "{output}");
    Ok(())
}

#[test]
#[rustfmt::skip]
fn memory_usage() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let db = neglected(dir.path())?;
    db.put("in memory", ItemBuilder::new().number("n", 1))?;
    let stats = db.stats()?;
    let memtable_size_per_stripe = stats.stripes.iter().map(|stripe| stripe.memtable_bytes as u64).sum::<u64>() / 256;
    let estimate_bloom_memory = || db.engine().estimate_bloom_memory().unwrap();
    let estimate_index_memory = || db.engine().estimate_index_memory().unwrap();

    // Estimate memory usage
    let memtable_memory = 256 * memtable_size_per_stripe;
    let bloom_filter_memory = estimate_bloom_memory();
    let index_memory = estimate_index_memory();

    let total_memory = memtable_memory + bloom_filter_memory + index_memory;
    println!("Estimated memory usage: {}MB", total_memory / 1_000_000);

    assert!(bloom_filter_memory > 0 && index_memory > 0);
    assert!(total_memory < 1_000_000, "{total_memory} bytes for 70 items");
    Ok(())
}

/// The function of "Setting Up Alerts", as printed.
#[rustfmt::skip]
mod printed {
    use kstone_api::{Database, measure_average_sst_count, measure_p99_read_latency};

    pub(super) struct PerformanceAlert {
        pub(super) name: &'static str,
        pub(super) threshold: f64,
        pub(super) current: f64,
    }

    pub(super) fn check_alerts(db: &Database) -> Vec<PerformanceAlert> {
        let original_writes = db.stats().unwrap().operations.user_bytes_written;

        let mut alerts = Vec::new();

        // Check SST accumulation
        let avg_sst_count = measure_average_sst_count(db);
        if avg_sst_count > 15.0 {
            alerts.push(PerformanceAlert {
                name: "High SST count",
                threshold: 15.0,
                current: avg_sst_count,
            });
        }

        // Check write amplification
        let stats = db.compaction_stats();
        let write_amp = stats.total_bytes_written as f64 / original_writes as f64;
        if write_amp > 10.0 {
            alerts.push(PerformanceAlert {
                name: "High write amplification",
                threshold: 10.0,
                current: write_amp,
            });
        }

        // Check read latency
        let p99_latency = measure_p99_read_latency(db);
        if p99_latency > 5000.0 {  // 5ms
            alerts.push(PerformanceAlert {
                name: "High read latency",
                threshold: 5000.0,
                current: p99_latency,
            });
        }

        alerts
    }
}

#[test]
fn setting_up_alerts() -> Result<()> {
    let db = Database::in_memory()?;
    db.set_compaction_config(CompactionConfig::disabled())?;
    // Data that is merged repeatedly must be as large as the data written.
    db.set_config(db.config().with_compression(Compression::Never))?;
    let item = || ItemBuilder::new().string("data", "x".repeat(50_000));
    for n in 0..15 {
        db.put(("one partition", format!("{n:03}")), item())?;
        db.flush()?;
    }
    // At the threshold there is no alert, above it there is one.
    assert_eq!(measure_average_sst_count(&db), 15.0);
    assert!(printed::check_alerts(&db).is_empty());
    assert_eq!(kstone_api::check_alerts(&db), []);
    db.put(("one partition", "015"), item())?;
    db.flush()?;
    let (theirs, ours) = (printed::check_alerts(&db), kstone_api::check_alerts(&db));
    assert_eq!((theirs.len(), ours.len()), (1, 1));
    for (name, threshold, current) in [
        (theirs[0].name, theirs[0].threshold, theirs[0].current),
        (ours[0].name, ours[0].threshold, ours[0].current),
    ] {
        assert_eq!((name, threshold, current), ("High SST count", 15.0, 16.0));
    }
    let stripe = db.stats()?.stripes[0].stripe;
    db.trigger_compaction(stripe)?;
    assert!(printed::check_alerts(&db).is_empty());
    assert_eq!(kstone_api::check_alerts(&db), []);

    // Repeated merges without any benefit.
    for _ in 0..16 {
        db.trigger_compaction(stripe)?;
    }
    let theirs = printed::check_alerts(&db);
    assert_eq!(theirs.iter().map(|alert| alert.name).collect::<Vec<_>>(), ["High write amplification"]);
    assert_eq!(kstone_api::check_alerts(&db)[0].name, "High write amplification");

    // Every get exceeds this latency threshold.
    db.set_config(db.config().with_latency_sampling(1))?;
    assert_eq!(measure_p99_read_latency(&db), 0.0);
    assert!(db.get(("one partition", "015"))?.is_some());
    assert!(measure_p99_read_latency(&db) > 0.0);
    let mut thresholds = AlertThresholds::default();
    thresholds.read_p99_us = 0.0;
    let names: Vec<_> = db.check_alerts(&thresholds).iter().map(|alert| alert.name).collect();
    assert_eq!(names, ["High write amplification", "High read latency"]);

    let closed = db.clone();
    db.close()?;
    assert_eq!(kstone_api::check_alerts(&closed)[0].name, "Database closed");
    Ok(())
}

/// "Prometheus Integration": the names that it registers.
#[test]
fn prometheus_integration() -> Result<()> {
    let db = Database::temporary()?;
    db.set_config(db.config().with_latency_sampling(1))?;
    db.put("key", ItemBuilder::new().number("n", 1))?;
    let text = db.openmetrics();
    assert!(text.contains("# TYPE keystonedb_writes counter\nkeystonedb_writes_total 1\n"), "{text}");
    assert!(text.contains("# TYPE keystonedb_write_latency_microseconds histogram\n"), "{text}");
    assert!(text.contains("keystonedb_write_latency_microseconds_count 1\n"), "{text}");
    Ok(())
}
