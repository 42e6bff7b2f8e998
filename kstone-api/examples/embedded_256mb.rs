//! A device with 256 MB of memory and an SD card: 100 writes and 500 reads a second in as little memory as possible.
//!
//! `cargo run --release -p kstone-api --example embedded_256mb [DIRECTORY] [--quick]`; about a minute. Give a directory
//! on the card. Durability is the default, `Buffered`.
#![expect(clippy::disallowed_methods, reason = "an example that measures reads the clock and /proc")]

mod load;

use kstone_api::{Database, Preset, Result};

fn main() -> Result<()> {
    let (length, quick) = load::length();
    let (path, _temporary) = load::directory()?;
    let preset = Preset::embedded();
    println!("{preset}");
    let before = load::memory();
    let db = Database::builder(&path).preset(preset).create()?;

    let items: u64 = if quick { 5_000 } else { 50_000 };
    for n in 0..items {
        db.put(format!("sensor-{n}"), load::item(n, 200))?;
    }
    println!("filled        {items} items of 200 bytes");

    let key = |i: u64| format!("sensor-{}", load::scatter(i) % items);
    let (reads, writes) = std::thread::scope(|scope| {
        let writer =
            scope.spawn(|| load::offer(100, length, |i| db.put(key(i.wrapping_mul(31)), load::item(i, 200))));
        let reads = load::offer(500, length, |i| db.get_view(key(i)).map(drop));
        (reads, writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    println!("reads         {}", reads?);
    println!("aim           500/s, P99 3000 us");
    println!("writes        {}", writes?);
    println!("aim           100/s offered, 500/s possible, ~20 MB of memory");
    if let (Some((_, before)), Some((_, after))) = (before, load::memory()) {
        println!(
            "memory        {:.1} MB anonymous more than before",
            after.saturating_sub(before) as f64 / 1e6
        );
    }
    load::report(&db)?;
    if quick {
        println!("(--quick: too short to say anything about rates)");
    }
    db.close()
}
