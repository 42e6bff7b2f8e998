//! `kstone-bench tune`: whether advice holds for this database on this machine. Exit status: 0 measured, or nothing to
//! measure; 1 an error; 130 interrupted.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::ValueEnum;
use kstone_api::model;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::measure::{Promise, number};
use crate::tune::{self, Options};

/// The exit status after Ctrl-C, as shells report it.
const INTERRUPTED: u8 = 130;

/// The database is only read. The copies are in a temporary directory beside it, where their SSTs are hard links, and are
/// removed at the end.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The database. A program may have it open: the copy is as of now.
    #[arg(long, value_name = "DIRECTORY")]
    db: PathBuf,
    /// Also measure the settings that suit this goal best.
    #[arg(long, value_enum, value_name = "GOAL")]
    goal: Option<GoalName>,
    /// Also measure these settings, `name=value,...` as in docs/settings-and-counters.md; may be repeated.
    #[arg(long, value_name = "SETTINGS")]
    set: Vec<String>,
    /// Replay the operations of these workloads on the keys of the database, instead of the work in STATS.json; advice is
    /// then for them. `kstone-bench workloads` lists them.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    workload: Vec<String>,
    /// Counters of the work: a copy of STATS.json, or the output of `kstone stats --format json`.
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
    /// Minutes that all replays take together, without copying and merging.
    #[arg(long, default_value_t = 2.0, value_parser = minutes, value_name = "N")]
    minutes: f64,
    /// Operations of each replay; it ends after its share of --minutes in any case.
    #[arg(long, value_parser = number, value_name = "N")]
    ops: Option<u64>,
    /// Rounds, in each of which every variant has its turn. An interval needs at least five.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=999), value_name = "N")]
    rounds: u64,
    /// Threads that replay the work.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256), value_name = "T")]
    threads: u64,
    /// What a replayed write survives once it has returned.
    #[arg(long, value_enum, default_value_t = Promise::Buffered)]
    durability: Promise,
    /// Seed of all random choices.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Directory for the copies, which are removed afterwards; default: beside the database.
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum GoalName {
    Balanced,
    Write,
    Read,
    Memory,
    Recovery,
    Space,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 10_000.0 => Ok(number),
        _ => Err("expected a number of minutes, such as 2 or 0.5".to_owned()),
    }
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let interrupted = Arc::new(AtomicBool::new(false));
    let done = measured(args, &interrupted);
    if interrupted.load(Ordering::SeqCst) {
        eprintln!("kstone-bench: interrupted; the copies were removed, and the database is as it was");
        return ExitCode::from(INTERRUPTED);
    }
    match done {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("kstone-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measured(args: &Args, interrupted: &Arc<AtomicBool>) -> Result<String> {
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal sets the flag, and the second finds it set and ends the process at once.
        flag::register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(interrupted))
            .and_then(|_| flag::register(signal, Arc::clone(interrupted)))
            .context("cannot watch for signals")?;
    }
    let options = Options {
        database: args.db.clone(),
        goal: args.goal.map(|goal| match goal {
            GoalName::Balanced => model::Goal::Balanced,
            GoalName::Write => model::Goal::Write,
            GoalName::Read => model::Goal::Read,
            GoalName::Memory => model::Goal::Memory,
            GoalName::Recovery => model::Goal::Recovery,
            GoalName::Space => model::Goal::Space,
        }),
        set: args.set.clone(),
        workload: args.workload.clone(),
        stats: args.stats.clone(),
        seconds: args.minutes * 60.0,
        operations: args.ops,
        rounds: args.rounds as usize,
        threads: args.threads as usize,
        durability: args.durability.into(),
        seed: args.seed,
        directory: args.dir.clone(),
        program: std::env::current_exe().context("cannot find the path of this program")?,
        interrupted: Arc::clone(interrupted),
    };
    tune::tune(&options, &mut |what| eprintln!("  {what}"))
}
