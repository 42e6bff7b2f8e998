//! `kstone-bench machine`: what this machine can do, and what that means for a database on it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use comfy_table::{Table, presets};
use kstone_bench::record::Machine;
use kstone_bench::{machine, units};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The directory whose disk is looked at: where databases will be.
    #[arg(default_value = ".", value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Print the record as JSON, as it stands in files of results.
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
    let nanoseconds = |nanos: u64| match nanos {
        0 => "not known".to_owned(),
        nanos => units::nanoseconds(nanos as f64),
    };
    let features = if machine.features.is_empty() { "none".to_owned() } else { machine.features.join(", ") };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in [
        ("processor", machine.cpu.clone()),
        ("cores", machine.cores.to_string()),
        ("memory", units::bytes(machine.memory_bytes)),
        ("governor", machine.governor.clone()),
        ("kernel", machine.kernel.clone()),
        ("file system", machine.file_system.clone()),
        ("disk", machine.disk.clone()),
        ("4 KiB appended, fdatasync", nanoseconds(machine.fsync_p50_nanos)),
        ("4 KiB read past the cache", nanoseconds(machine.read_4k_p50_nanos)),
        ("load", format!("{:.2}", machine.load)),
        ("compiler", machine.rustc.clone()),
        ("version", format!("{} ({})", machine.version, machine.commit)),
        ("features", features),
        ("profile", machine.profile.clone()),
        ("allocator", machine.allocator.clone()),
    ] {
        table.add_row([name, &value]);
    }
    table
}
