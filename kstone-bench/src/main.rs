//! `kstone-bench`: tries a build of KeystoneDB on this machine, from the command line.
//!
//! Results go to stdout. Exit status: 0 done, 1 something failed that must not, 2 usage.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod commands;

/// Tries a build of KeystoneDB on this machine.
#[derive(Debug, Parser)]
#[command(name = "kstone-bench", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run workloads on one engine or several, side by side.
    Run(commands::run::Args),
    /// Run a workload with several values of one setting.
    Sweep(commands::sweep::Args),
    /// List the workloads and the engines of this build.
    Workloads,
    /// Crash a database in memory at every changing I/O operation of random workloads, let every I/O operation fail,
    /// compare every answer, and check what is left.
    Torture(commands::torture::Args),
    /// Whether something became slower: exit status 1 if so, 2 if it cannot be told.
    Compare(commands::compare::Args),
    /// Tables and plots of what was measured.
    Report(commands::report::Args),
    /// What this machine and its disk can do, and what that means for a database here.
    Machine(commands::machine::Args),
    /// Measure every table of the specification's chapter on performance tuning.
    Chapter(commands::chapter::ChapterArgs),
    /// What `chapter` runs in a process of its own.
    #[command(hide = true)]
    ChapterProbe,
    /// What `run` and others run in a process of its own.
    #[command(hide = true)]
    Trial,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => commands::run::run(&args),
        Command::Sweep(args) => commands::sweep::run(&args),
        Command::Workloads => commands::workloads::run(),
        Command::Torture(args) => return commands::torture::run(&args),
        Command::Compare(args) => commands::compare::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Machine(args) => commands::machine::run(&args),
        Command::Chapter(args) => commands::chapter::run(&args),
        Command::ChapterProbe => kstone_bench::chapter::probe::serve().map(|()| ExitCode::SUCCESS),
        Command::Trial => kstone_bench::trial::serve().map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("kstone-bench: {error:#}");
        ExitCode::FAILURE
    })
}
