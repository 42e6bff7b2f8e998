//! The commands, one per file, and the program that runs them. `kstone-bench/peers/` is a second program with more
//! engines.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::engine::{self, Open};

mod chapter;
mod compare;
mod machine;
mod measure;
mod report;
mod run;
mod speed;
mod sweep;
mod torture;
mod tune;
mod workloads;

/// Measures, compares and tortures a build of KeystoneDB on this machine.
#[derive(Debug, Parser)]
#[command(name = "kstone-bench", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run workloads on one or several engines, side by side.
    Run(run::Args),
    /// Run workloads with several values of one setting.
    Sweep(sweep::Args),
    /// Prove advice on copies of a database: replay its work under today's settings and under the advised ones.
    Tune(tune::Args),
    /// Print the tables of speed: KeystoneDB and its peers on the same work, with ratios and goals.
    Speed(speed::Args),
    /// List the workloads and the engines of this build.
    Workloads,
    /// Search for lost data and wrong answers: crash an in-memory database at every I/O operation of random workloads
    /// that changes a file, fail I/O operations, and compare every answer.
    Torture(torture::Args),
    /// Check whether anything became slower: exit status 1 if it did, 2 if the results cannot be compared.
    Compare(compare::Args),
    /// Turn results into tables and plots.
    Report(report::Args),
    /// Describe this machine and its disk, and what to expect of a database on it.
    Machine(machine::Args),
    /// Measure every table of the specification's chapter on performance tuning.
    Chapter(chapter::ChapterArgs),
    /// Run one trial: `run`, `sweep`, `tune`, `speed` and `chapter` start this.
    #[command(hide = true)]
    Trial,
}

/// The program: executes the command line, with these engines in addition to those of this crate.
///
/// Trials run in processes of their own, which run this same program and therefore have the same engines.
#[doc(hidden)]
pub fn main(more: &'static [(&'static str, Open)]) -> ExitCode {
    engine::add(more);
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Tune(args) => return tune::run(&args),
        Command::Speed(args) => speed::run(&args),
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
