//! `kstone-bench torture`: searches for lost data and wrong answers, with the user's own settings.

use std::process::ExitCode;

use kstone_core::torture::SettingsOf;

use crate::torture::{Replay, Torture};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Run for this many minutes.
    #[arg(long, default_value_t = 1.0, value_name = "N")]
    minutes: f64,
    /// Seed of the first workload; each further workload has the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Settings of the databases: `random` (tiny values, different for each seed, changed during the run), `default`, or
    /// `name=value,...` as in docs/settings-and-counters.md, with sizes in bytes.
    #[arg(long, default_value = "random", value_name = "SETTINGS")]
    config: String,
    /// Workloads to run at the same time; 0: one for each processor core.
    #[arg(long, default_value_t = 0, value_name = "T")]
    threads: usize,
    /// Operations of each workload.
    #[arg(long, default_value_t = 60, value_name = "N")]
    operations: u64,
    /// Replay one workload, or only the crashes during one of its operations, or only those of one kind. A failure
    /// prints the value to give here.
    #[arg(long, value_name = "SEED[:OPERATION[:KIND]]", conflicts_with_all = ["minutes", "seed", "threads"])]
    replay: Option<Replay>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
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
            println!("{}", crate::torture::table(&done));
            println!("nothing was lost");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}
