//! Section 23.2, "Compaction Frequency Tuning".

use kstone_api::{CompactionConfig, Database, ItemBuilder, Result};

use super::compaction_works;

#[test]
#[rustfmt::skip]
fn compaction_config_parameters() {
    /// Assigning to these fields one by one compiles only if our types are the same.
    struct Printed {
        enabled: bool,               // Turn compaction on/off
        sst_threshold: usize,        // Trigger at N SSTs (default: 10)
        check_interval_secs: u64,    // How often to check (default: 60)
        max_concurrent_compactions: usize,  // Parallelism (default: 4)
    }

    let ours = CompactionConfig::default();
    let printed = Printed {
        enabled: ours.enabled,
        sst_threshold: ours.sst_threshold,
        check_interval_secs: ours.check_interval_secs,
        max_concurrent_compactions: ours.max_concurrent_compactions,
    };
    assert!(printed.enabled);
    assert_eq!(printed.sst_threshold, 10);
    assert_eq!(printed.check_interval_secs, 60);
    assert_eq!(printed.max_concurrent_compactions, 4);
}

#[test]
#[rustfmt::skip]
fn sst_threshold_impact() {
    // Aggressive compaction
    let config = CompactionConfig::new()
        .with_sst_threshold(5);  // Compact at 5 SSTs instead of 10
    compaction_works(config);

    // Lazy compaction
    let config = CompactionConfig::new()
        .with_sst_threshold(20);  // Compact at 20 SSTs instead of 10
    compaction_works(config);
}

#[test]
#[rustfmt::skip]
fn check_interval_impact() -> Result<()> {
    // High-churn workload (frequent updates to same keys)
    let config = CompactionConfig::new()
        .with_check_interval(10);  // Check every 10 seconds
    compaction_works(config);

    // Low-churn workload (mostly inserts, few updates)
    let config = CompactionConfig::new()
        .with_check_interval(300);  // Check every 5 minutes
    compaction_works(config);

    // Batch processing (disable automatic, run manually)
    let config = CompactionConfig::disabled();

    let db = Database::temporary()?;
    let engine = db.engine();
    db.set_compaction_config(config)?;
    for n in 0..20 {
        db.put(("batch", format!("{n:03}")), ItemBuilder::new().number("n", n))?;
        db.flush()?;
    }
    let stripe = db.stats()?.stripes[0].clone();
    assert_eq!(stripe.runs, 20, "nothing was merged by itself");
    let stripe_id = stripe.stripe;

    // Later:
    engine.trigger_compaction(stripe_id)?;

    assert_eq!(db.stats()?.stripes[0].runs, 1);
    assert_eq!(db.query("batch").run()?.count(), 20);
    Ok(())
}

#[test]
#[rustfmt::skip]
fn concurrent_compactions() {
    // High-end server (16+ cores, NVMe SSD)
    let config = CompactionConfig::new()
        .with_max_concurrent(8);  // Exploit parallelism
    compaction_works(config);

    // Mid-range server (4-8 cores, SATA SSD)
    let config = CompactionConfig::new()
        .with_max_concurrent(4);  // Default, balanced
    compaction_works(config);

    // Low-end server (2-4 cores, HDD)
    let config = CompactionConfig::new()
        .with_max_concurrent(1);  // Minimize contention
    compaction_works(config);

    // Latency-sensitive application
    let config = CompactionConfig::new()
        .with_max_concurrent(2)   // Low background load
        .with_check_interval(120); // Infrequent checks
    compaction_works(config);
}
