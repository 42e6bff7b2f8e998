//! `kstone metrics`: the counters in `STATS.json` as OpenMetrics text, whatever the output format.

use std::io::Write as _;

use anyhow::Result;
use kstone_api::openmetrics_of;

use crate::args::{self, Format};
use crate::commands::expect_database;
use crate::commands::stats::{Runtime, is_open, told};
use crate::commands::watch::none_written;
use crate::failure::Failure;
use crate::output::stdout;

pub(crate) fn run(args: &args::Database) -> Result<()> {
    expect_database(args)?;
    let (runtime, mut troubles) = told(Runtime::read(args));
    let snapshot = runtime.as_ref().map(|runtime| &runtime.snapshot);
    let mut out = stdout(Format::Table);
    out.write_all(openmetrics_of(snapshot, is_open(args)).as_bytes())?;
    out.flush()?;
    if runtime.is_none() && troubles.is_empty() {
        troubles.push(none_written(args));
    }
    Failure::all(troubles)
}
