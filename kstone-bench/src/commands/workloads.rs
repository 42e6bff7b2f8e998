//! `kstone-bench workloads`: lists workloads and engines.

use std::process::ExitCode;

use anyhow::Result;

use crate::engine;
use crate::workload::WORKLOADS;

pub(crate) fn run() -> Result<ExitCode> {
    for workload in WORKLOADS.iter() {
        println!("{:<22} {}", workload.name, workload.about);
    }
    println!("\nengines of this build: {}", engine::names().join(", "));
    Ok(ExitCode::SUCCESS)
}
