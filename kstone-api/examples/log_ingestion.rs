//! Log ingestion: 100,000 writes per second, mostly inserts and hardly any reads, with the preset for this workload.
//!
//! `cargo run --release -p kstone-api --example log_ingestion [DIRECTORY] [--quick]`; a minute, and some 600 MB of
//! disk while it runs. Durability is the default, `Buffered`.
#![expect(clippy::disallowed_methods, reason = "an example that measures reads the clock and /proc")]

mod load;

use kstone_api::{Database, Preset, Result};

fn main() -> Result<()> {
    let (length, quick) = load::length();
    let (path, _temporary) = load::directory()?;
    let preset = Preset::log_ingestion();
    println!("{preset}");
    let db = Database::builder(&path).preset(preset).create()?;

    // Log lines of 1000 hosts in time order: each host is a partition, and its lines are read as one range.
    let writes = load::offer(100_000, length, |i| {
        let host = format!("host-{:04}", load::scatter(i) % 1000);
        db.put((host, format!("{i:012}")), load::item(i, 80))
    })?;
    println!("writes        {writes}");
    println!("aim           100,000/s offered, 120,000/s possible, ~600 MB of memory");
    load::report(&db)?;

    // One of the rare reads.
    let lines = db.query("host-0001").run()?.try_fold(0, |lines, entry| entry.map(|_| lines + 1))?;
    println!("host-0001     {lines} lines");
    if quick {
        println!("(--quick: too short to say anything about rates)");
    }
    db.close()
}
