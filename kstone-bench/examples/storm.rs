//! Mixed load on the real disk while a live setting changes at random every second.
//!
//! `cargo run --release -p kstone-bench --example storm [SECONDS] [SEED]`: 600 seconds by default. Ends with an error
//! when anything acknowledged is not there, anything fails, or a call takes longer than a second.

use std::error::Error;
use std::time::Duration;

use kstone_bench::storm::{After, Storm};

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<u64>());
    let seconds = numbers.next().transpose()?.unwrap_or(600);
    let seed = numbers.next().transpose()?.unwrap_or(1);
    let dir = tempfile::tempdir()?;
    let storm = Storm {
        seed,
        keys: 1_000_000,
        threads: 2,
        until: After::Time(Duration::from_secs(seconds)),
        change: After::Time(Duration::from_secs(1)),
    };
    let outcome = storm.run(&dir.path().join("db"))?;
    println!("{seconds} s, seed {seed}: {outcome}");
    if outcome.longest > Duration::from_secs(1) {
        return Err("a call took longer than a second".into());
    }
    Ok(())
}
