//! A cache: 50,000 reads and 5,000 writes per second, with 99 % of reads below a millisecond.
//!
//! `cargo run --release -p kstone-api --example low_latency_cache [DIRECTORY] [--quick]`; about a minute. It takes two
//! cores: reads and writes come from a thread each. Durability is the default, `Buffered`.
#![expect(clippy::disallowed_methods, reason = "an example that measures reads the clock and /proc")]

mod load;

use kstone_api::{Database, Preset, Result};

fn main() -> Result<()> {
    let (length, quick) = load::length();
    let (path, _temporary) = load::directory()?;
    let preset = Preset::low_latency_cache();
    println!("{preset}");
    let db = Database::builder(&path).preset(preset).create()?;

    let items: u64 = if quick { 20_000 } else { 200_000 };
    for n in 0..items {
        db.put(format!("session-{n}"), load::item(n, 200))?;
    }
    println!("filled        {items} items of 200 bytes");

    let key = |i: u64| format!("session-{}", load::scatter(i) % items);
    let (reads, writes) = std::thread::scope(|scope| {
        let writer = scope
            .spawn(|| load::offer(5_000, length, |i| db.put(key(i.wrapping_mul(31)), load::item(i, 200))));
        let reads = load::offer(50_000, length, |i| db.get_view(key(i)).map(drop));
        (reads, writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    println!("reads         {}", reads?);
    println!("aim           50,000/s, P99 600 us, 1000 us at most");
    println!("writes        {}", writes?);
    println!("aim           5,000/s offered, 25,000/s possible, ~150 MB of memory");
    load::report(&db)?;
    if quick {
        println!("(--quick: too short to say anything about rates)");
    }
    db.close()
}
