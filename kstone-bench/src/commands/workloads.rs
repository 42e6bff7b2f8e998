//! `kstone-bench workloads`: what there is to run, and on what.

use std::process::ExitCode;

use anyhow::Result;
use kstone_bench::engine;
use kstone_bench::workload::WORKLOADS;

pub(crate) fn run() -> Result<ExitCode> {
    for workload in WORKLOADS {
        println!("{:<22} {}", workload.name, workload.about);
    }
    println!("\nengines of this build: {}", engine::names().join(", "));
    Ok(ExitCode::SUCCESS)
}
