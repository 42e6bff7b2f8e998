//! `kstone-bench machine`: this machine, and what to expect of a database on it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use comfy_table::{Table, presets};

use crate::machine;
use crate::record::Machine;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Directory whose disk is examined: where the databases will be.
    #[arg(default_value = ".", value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Print the record as JSON, as result files contain it.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let machine = machine::record(&args.directory)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&machine)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", table(&machine).trim_fmt());
    println!();
    for line in machine::meaning(&machine) {
        println!("* {line}");
    }
    for warning in machine::warnings(&machine) {
        println!("warning: {warning}");
    }
    Ok(ExitCode::SUCCESS)
}

fn table(machine: &Machine) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in machine::rows(machine, &format!("{} ({})", machine.version, machine.commit)) {
        table.add_row([name, &value]);
    }
    table
}
