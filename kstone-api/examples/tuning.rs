//! Runs all presets on the same work, each on a fresh database; then changes the settings of a database while it runs.
//!
//! `cargo run --release -p kstone-api --example tuning [--quick]`. The rates only show directions: everything fits in
//! memory, and the machine is whatever this runs on. Durability is the default, `Buffered`.
#![expect(clippy::disallowed_methods, reason = "an example that measures reads the clock and /proc")]

mod load;

use std::time::{Duration, Instant};

use kstone_api::{CompactionConfig, Database, DatabaseConfig, Error, Preset, Result};

fn main() -> Result<()> {
    let (_, quick) = load::length();
    let items: u64 = if quick { 5_000 } else { 300_000 };
    println!(
        "{:<20}{:>12}{:>12}{:>9}{:>13}{:>8}",
        "preset", "puts/s", "gets/s", "flushes", "compactions", "runs"
    );
    for preset in Preset::all() {
        let name = preset.name;
        let (path, _temporary) = load::directory()?;
        let db = Database::builder(path).preset(preset).create()?;
        let puts = rate(items, |n| db.put(format!("key{}", load::scatter(n)), load::item(n, 200)))?;
        let gets = rate(items, |n| db.get_view(format!("key{}", load::scatter(n))).map(drop))?;
        let stats = db.stats()?;
        let runs = stats.stripes.iter().map(|stripe| stripe.runs).max().unwrap_or(0);
        println!("{name:<20}{puts:>12.0}{gets:>12.0}{:>9}{:>13}{runs:>8}", stats.flushes, stats.compactions);
    }
    println!();
    live()
}

/// Runs a loop on one thread; returns operations per second.
fn rate(operations: u64, mut operation: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    (0..operations).try_for_each(&mut operation)?;
    Ok(operations as f64 / start.elapsed().as_secs_f64())
}

/// New settings apply from the next decision on, and are stored.
fn live() -> Result<()> {
    let (path, _temporary) = load::directory()?;
    let preset = Preset::batch();
    let db = Database::builder(&path).preset(preset).create()?;
    for n in 0..20 {
        db.put(("batch", format!("{n:03}")), load::item(n, 200))?;
        db.flush()?;
    }
    let runs = |db: &Database| -> Result<usize> {
        Ok(db.stats()?.stripes.iter().map(|stripe| stripe.runs).max().unwrap_or(0))
    };
    println!("loaded with compaction off: {} runs", runs(&db)?);

    // From here on tuned for reads: the stripe is over the new threshold, so it is merged in the background at once.
    db.set_compaction_config(Preset::read_heavy().compaction)?;
    let start = Instant::now();
    while runs(&db)? >= 5 && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("threshold 5 set while it runs: {} runs", runs(&db)?);

    // Applies to filters of new SSTs; a compaction rewrites the older ones.
    db.set_config(db.config().with_bloom_bits_per_key(16).with_sync_interval(Duration::from_millis(200)))?;
    db.compact_all()?;
    println!("filters of {} bits per key after a compaction", db.config().bloom_bits_per_key);

    // Invalid settings are refused by name, and change nothing.
    match db.set_compaction_config(CompactionConfig::new().with_sst_threshold(1)) {
        Err(Error::InvalidConfig { field, why }) => println!("refused: {field}: {why}"),
        other => other?,
    }
    match db.set_config(DatabaseConfig::new().with_stripes(16)) {
        Err(Error::InvalidConfig { field, why }) => println!("refused: {field}: {why}"),
        other => other?,
    }

    // The settings are stored in the database: opened without any, it still has them.
    db.close()?;
    let db = Database::open(&path)?;
    println!("opened again: threshold {}", db.compaction_config().sst_threshold);
    db.close()
}
