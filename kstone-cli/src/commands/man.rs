//! `kstone man`.

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use crate::args::{Cli, ManArgs};

pub(crate) fn run(args: &ManArgs) -> Result<()> {
    let failed = || format!("cannot write to {}", args.dir.display());
    std::fs::create_dir_all(&args.dir).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).with_context(failed)
}
