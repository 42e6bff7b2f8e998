//! The n-th I/O operation fails, for every n of many workloads and in every possible way: see
//! `kstone_core::torture::FaultRuns`. `KSTONE_SEED=n` runs only one workload, and with `KSTONE_FAULT=EIO:17:once` only
//! one run of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kstone_core::torture::{FaultRuns, FaultTotals};

const WORKLOADS: u64 = 44;
const OPERATIONS: u64 = 25;

fn runs(seed: u64, one_in: u64) -> FaultRuns {
    let command = "cargo run -p kstone-bench -- torture --operations 25 --replay".into();
    FaultRuns { operations: OPERATIONS, one_in, command, ..FaultRuns::new(seed) }
}

#[test]
fn every_operation_fails_in_every_way() {
    let env = |name| std::env::var(name).ok();
    if let Some(seed) = env("KSTONE_SEED") {
        let runs = runs(seed.parse().expect("KSTONE_SEED is a number"), 1);
        let totals = match env("KSTONE_FAULT") {
            None => runs.run(),
            Some(fault) => runs.run_named(&fault).expect("KSTONE_FAULT is none, or like EIO:17:once"),
        };
        println!("{}", totals.unwrap_or_else(|failure| panic!("{failure}")));
        return;
    }
    let next = AtomicU64::new(0);
    let done = Mutex::new((FaultTotals::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= WORKLOADS {
                        return;
                    }
                    let result = runs(seed, 1).run();
                    let mut done = done.lock().unwrap();
                    match result {
                        Ok(totals) => done.0.add(&totals),
                        Err(failure) => done.1.push(failure.to_string()),
                    }
                }
            });
        }
    });
    let (totals, failures) = done.into_inner().unwrap();
    println!("{totals}");
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
    assert!(totals.all_runs() >= 55_000, "only {} runs", totals.all_runs());
    for (fault, runs) in &totals.runs {
        assert!(*runs >= 400, "only {runs} runs with {fault}");
    }
    assert!(totals.poisoned > 5_000 && totals.healed > 20_000, "{totals}");
    assert!(totals.unmet > 5_000, "{totals}");
    assert!(totals.order.edits > 100_000 && totals.order.ssts > 10_000, "{totals}");
}
