//! What counting and timing cost: the same puts and gets on two databases, one with counters and latency sampling at
//! their defaults, one without either, in small turns one after the other. Prints the median of the ratios of each
//! pair of turns, so that what else the machine does meanwhile, and what becomes slower as the databases grow, falls
//! on both.
//!
//! `cargo run --release -p kstone-bench --example observability_cost [TURNS]`. Durability is `Buffered`; engine calls,
//! without the encoding of items; compaction is off, so that no merge falls on one of the two.
use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use kstone_api::{CompactionConfig, DatabaseConfig, EngineOptions, Key, LsmEngine, WriteOptions};
use kstone_bench::statistics::median;
use kstone_bench::{cpu_time, key};

/// In one turn.
const OPS: u64 = 1_000;
const VALUE: [u8; 200] = [7; 200];

fn main() -> Result<(), Box<dyn Error>> {
    let turns: u64 = std::env::args().nth(1).map_or(Ok(1001), |turns| turns.parse())?;
    let dir = tempfile::tempdir()?;
    let open = |name: &str, observed: bool| {
        let mut options = EngineOptions::disk();
        options.config = Some(match observed {
            true => DatabaseConfig::new(),
            false => DatabaseConfig::new().with_latency_sampling(0),
        });
        options.compaction = Some(CompactionConfig::disabled());
        options.counters = observed;
        LsmEngine::create(&dir.path().join(name), options)
    };
    let (on, off) = (open("on", true)?, open("off", false)?);
    for n in 0..100_000 {
        put(&on, n)?;
        put(&off, n)?;
    }
    let (mut puts, mut gets, mut both) = (Vec::new(), Vec::new(), Vec::new());
    let mut absolute = (Vec::new(), Vec::new());
    for turn in 0..turns {
        let timed = |engine: &LsmEngine| -> Result<(Duration, Duration), Box<dyn Error>> {
            let start = cpu_time();
            for n in turn * OPS..(turn + 1) * OPS {
                put(engine, n)?;
            }
            let put = cpu_time().saturating_sub(start);
            let start = cpu_time();
            for n in turn * OPS..(turn + 1) * OPS {
                // All but the newest tenth of the keys come from SSTs.
                let n = n.wrapping_mul(7_919) % ((turn + 1) * OPS);
                black_box(engine.get(&Key::from(&key(n)))?);
            }
            Ok((put, cpu_time().saturating_sub(start)))
        };
        // The second of a pair finds warmer caches or a more loaded machine: they take turns at being the second.
        let (with, without) = if turn % 2 == 0 {
            let with = timed(&on)?;
            (with, timed(&off)?)
        } else {
            let without = timed(&off)?;
            (timed(&on)?, without)
        };
        let ratio = |with: Duration, without: Duration| with.as_secs_f64() / without.as_secs_f64();
        puts.push(ratio(with.0, without.0));
        gets.push(ratio(with.1, without.1));
        both.push(ratio(with.0 + with.1, without.0 + without.1));
        absolute.0.push(without.0.as_nanos() as f64 / OPS as f64);
        absolute.1.push(without.1.as_nanos() as f64 / OPS as f64);
    }
    println!(
        "{turns} pairs of turns of {OPS} puts and {OPS} gets, durability buffered, CPU time of the calling thread"
    );
    let median = |nanos: &[f64]| median(nanos).unwrap_or(f64::NAN);
    println!("without: put {:.0} ns, get {:.0} ns", median(&absolute.0), median(&absolute.1));
    for (what, mut ratios) in [("put", puts), ("get", gets), ("put + get", both)] {
        ratios.sort_by(f64::total_cmp);
        let [low, middle, high] = [1, 2, 3].map(|part| ratios[ratios.len() * part / 4]);
        println!("{what:<10} with / without {middle:.3}   quartiles {low:.3} to {high:.3}");
    }
    Ok(())
}

fn put(engine: &LsmEngine, n: u64) -> kstone_api::Result<u64> {
    engine.put(&Key::from(&key(n)), &VALUE, WriteOptions::new())
}
