//! `kstone-bench speed`: the tables of speed, with the ratio to the best peer and the goals.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::measure::{TableArgs, all_is_well, begin, number, save, settings};
use crate::record::RunFile;
use crate::report::{speed_markdown, speed_text};
use crate::speed::{self, SpeedOptions};
use crate::trial;

/// The width of a printed table, in columns.
const WIDTH: u16 = 190;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Tables, by name; `held` stands for all tables whose name starts with it. Default: memory.
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// Only these rows, by name, with the steps that they need: `fill,get-hit`.
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// Engines instead of the table's, whose trials take turns: `kstone`, `kstone read_mode=1`, `fjall-tuned`.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    engine: Vec<String>,
    /// Items in the database instead of the table's number: `4M`.
    #[arg(long, value_parser = number, value_name = "N")]
    items: Option<u64>,
    /// Threads that send requests, instead of the table's.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=256), value_name = "T")]
    threads: Option<u64>,
    /// Memory limit of a trial, page cache included, instead of the table's: `256MiB`.
    #[arg(long, value_parser = number, value_name = "SIZE")]
    mem_limit: Option<u64>,
    /// Trials of each column. An interval needs at least five.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=999), value_name = "N")]
    trials: u64,
    /// Settings of kstone: a preset, then single ones.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Settings of kstone, `name=value,...` as in docs/settings-and-counters.md.
    #[arg(long, default_value = "", value_name = "SETTINGS")]
    set: String,
    /// Another build of this program: its kstone takes turns with this one, and a column has the ratio.
    #[arg(long, value_name = "PROGRAM")]
    before: Option<PathBuf>,
    /// Seed of all random choices.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    #[command(flatten)]
    common: TableArgs,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.common.list {
        speed::list()?.iter().for_each(|(id, title)| println!("{id:<12} {title}"));
        return Ok(ExitCode::SUCCESS);
    }
    let options = SpeedOptions {
        tables: args.tables.clone(),
        only: args.only.clone(),
        engines: args.engine.clone(),
        items: args.items,
        threads: args.threads.map(|threads| threads as usize),
        memory: args.mem_limit,
        settings: settings(args.preset.as_deref(), &args.set)?,
        seed: args.seed,
        trials: trial::Options {
            directory: args.common.directory(),
            trials: args.trials as usize,
            keep: false,
            program: std::env::current_exe().context("cannot find the path of this program")?,
            before: args.before.clone(),
        },
    };
    let file = begin(&options.trials.directory)?;
    let (tables, trials) = speed::run(&options, &mut |what| eprintln!("  {what}"), &mut |table| {
        println!("{}", speed_text(table, WIDTH));
    })?;
    args.common.save_markdown(&tables, speed_markdown)?;
    let file = RunFile { trials, speed: Some(tables), ..file };
    if let Some(path) = &args.common.out {
        save(&file, path)?;
    }
    Ok(if all_is_well(&file) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
