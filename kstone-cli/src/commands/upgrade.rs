//! `kstone upgrade`: there is one format so far, so that a database that can be read is in it.

use anyhow::Result;
use kstone_api::escape;
use serde_json::json;

use crate::args::{self, Format};
use crate::commands::{damage, open_to_look};
use crate::failure::Failure;
use crate::output::print_result;

pub(crate) fn run(args: &args::Database, format: Format) -> Result<()> {
    let db = open_to_look(args)?;
    let version = db.stats()?.format_version;
    let path = escape::path(&args.path);
    print_result(
        format,
        &format!("{path} is in format {version}, the current one: nothing was changed"),
        json!({"schema": "kstone.upgrade/1", "format": version, "changed": false}),
    )?;
    Failure::all(damage(&db))
}
