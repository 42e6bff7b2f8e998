//! The commands, one file each, and the program that has them. Another one has them too: `kstone-bench/peers/`, with more engines.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::engine::{self, Open};

mod chapter;
mod compare;
mod machine;
mod measure;
mod report;
mod run;
mod sweep;
mod torture;
mod workloads;

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
    Run(run::Args),
    /// Run a workload with several values of one setting.
    Sweep(sweep::Args),
    /// List the workloads and the engines of this build.
    Workloads,
    /// Crash a database in memory at every changing I/O operation of random workloads, let every I/O operation fail,
    /// compare every answer, and check what is left.
    Torture(torture::Args),
    /// Whether something became slower: exit status 1 if so, 2 if it cannot be told.
    Compare(compare::Args),
    /// Tables and plots of what was measured.
    Report(report::Args),
    /// What this machine and its disk can do, and what that means for a database here.
    Machine(machine::Args),
    /// Measure every table of the specification's chapter on performance tuning.
    Chapter(chapter::ChapterArgs),
    /// What `run`, `chapter` and others run in a process of its own.
    #[command(hide = true)]
    Trial,
}

/// The program: does what the command line says, with these engines besides those of this crate.
///
/// Trials run in processes of their own, which are this program again and hence have the same engines.
#[doc(hidden)]
pub fn main(more: &'static [(&'static str, Open)]) -> ExitCode {
    engine::add(more);
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Workloads => workloads::run(),
        Command::Torture(args) => return torture::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Machine(args) => machine::run(&args),
        Command::Chapter(args) => chapter::run(&args),
        Command::Trial => crate::trial::serve().map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("kstone-bench: {error:#}");
        ExitCode::FAILURE
    })
}
