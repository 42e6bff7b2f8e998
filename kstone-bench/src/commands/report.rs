//! `kstone-bench report`: turns results into tables and plots.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{report, results};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Files that `run`, `sweep` or `chapter` wrote, all on one machine.
    #[arg(value_name = "RUN.json", required = true)]
    files: Vec<PathBuf>,
    /// Write a self-contained page with tables and plots.
    #[arg(long, value_name = "REPORT.html")]
    html: Option<PathBuf>,
    /// Write the tables as Markdown. Without --html and --md they are printed.
    #[arg(long, value_name = "TABLES.md")]
    md: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let files = args.files.iter().map(|path| results::read(path)).collect::<Result<Vec<_>>>()?;
    let document = report::document(&files)?;
    if let Some(path) = &args.html {
        write(path, &report::html(&document)?)?;
    }
    match &args.md {
        Some(path) => write(path, &report::markdown(&document)?)?,
        None if args.html.is_none() => print!("{}", report::markdown(&document)?),
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
