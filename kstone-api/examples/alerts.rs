//! Alerts: a database is neglected until metrics exceed their thresholds, and is then put right.
//!
//! `cargo run -p kstone-api --example alerts`

use kstone_api::{AlertThresholds, CompactionConfig, Database, ItemBuilder, Result};

fn main() -> Result<()> {
    let db = Database::temporary()?;

    // Nothing is merged, so each flush adds a run for reads to search; and disk space is short.
    db.set_compaction_config(CompactionConfig::disabled())?;
    for n in 0..20 {
        for m in 0..100 {
            let item = ItemBuilder::new().string("data", "x".repeat(2000));
            db.put(("partition", format!("{:05}", n * 100 + m)), item)?;
        }
        db.flush()?;
    }
    let used = db.disk_usage()?.used;
    db.set_config(db.config().with_wal_segment_size(64 << 10).with_max_total_disk_bytes(used * 21 / 20))?;
    show("neglected", &db, &AlertThresholds::default());

    // One stripe has all the runs. Merging it, and a higher limit, clear the alerts.
    db.set_config(db.config().with_max_total_disk_bytes(used * 20))?;
    for stripe in 0..db.engine().stripe_count() {
        db.trigger_compaction(stripe)?;
    }
    show("after a compaction and with a larger quota", &db, &AlertThresholds::default());

    // Custom thresholds.
    let mut strict = AlertThresholds::default();
    strict.write_amplification = 1.0;
    strict.disk_percent = f64::INFINITY;
    show("with a strict threshold for write amplification", &db, &strict);
    db.close()
}

fn show(when: &str, db: &Database, thresholds: &AlertThresholds) {
    let alerts = db.check_alerts(thresholds);
    println!("{when}: {}", if alerts.is_empty() { "no alerts" } else { "" });
    for alert in alerts {
        println!("  {alert}");
    }
}
