//! `kstone-bench`: tries a build of KeystoneDB on this machine, from the command line.
//!
//! Results go to stdout. Exit status: 0 done, 1 something failed that must not, 2 usage.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use kstone_bench::torture::{Replay, Torture};
use kstone_core::torture::SettingsOf;

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
    /// Crash a database in memory at every changing I/O operation of random workloads, let every I/O operation fail,
    /// compare every answer, and check what is left.
    Torture(TortureArgs),
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
}

#[derive(Args, Debug)]
struct TortureArgs {
    /// Go on for so many minutes.
    #[arg(long, default_value_t = 1.0, value_name = "N")]
    minutes: f64,
    /// The first seed; each further workload has the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Settings of the databases: `random` (tiny ones, other ones for each seed, changed while it runs), `default`, or
    /// `name=value,...` as listed in docs/settings-and-counters.md, sizes in bytes.
    #[arg(long, default_value = "random", value_name = "SETTINGS")]
    config: String,
    /// Workloads that run at the same time; 0 is one for each processor core.
    #[arg(long, default_value_t = 0, value_name = "T")]
    threads: usize,
    /// Operations of each workload.
    #[arg(long, default_value_t = 60, value_name = "N")]
    operations: u64,
    /// Only this: the workload of a seed, only the crashes during one of its operations, only those of one kind. A
    /// failure prints what to give here.
    #[arg(long, value_name = "SEED[:OPERATION[:KIND]]", conflicts_with_all = ["minutes", "seed", "threads"])]
    replay: Option<Replay>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Torture(args) => return torture(&args),
        Command::Compare(args) => commands::compare::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Machine(args) => commands::machine::run(&args),
        Command::Chapter(args) => commands::chapter::run(&args),
        Command::ChapterProbe => kstone_bench::chapter::probe::serve().map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("kstone-bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn torture(args: &TortureArgs) -> ExitCode {
    let settings = match SettingsOf::named(&args.config) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("kstone-bench: --config: {error}");
            return ExitCode::from(2);
        }
    };
    let threads = match args.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let torture = Torture {
        minutes: args.minutes,
        seed: args.seed,
        threads,
        operations: args.operations,
        settings,
        config: args.config.clone(),
    };
    let done = match &args.replay {
        Some(replay) => torture.replay(replay),
        None => torture.run(&mut |line| println!("{line}")),
    };
    match done {
        Ok(done) => {
            println!("{}", kstone_bench::torture::table(&done));
            println!("nothing was lost");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}
