//! `kstone-bench`: measures, compares and tortures a build of KeystoneDB.
//!
//! Results go to stdout. Exit status: 0 done, 1 failure, 2 wrong usage.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    kstone_bench::commands::main(&[])
}
