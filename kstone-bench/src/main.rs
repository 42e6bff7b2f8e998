//! `kstone-bench`: tries a build of KeystoneDB on this machine, from the command line.
//!
//! Results go to stdout. Exit status: 0 done, 1 something failed that must not, 2 usage.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    kstone_bench::commands::main(&[])
}
