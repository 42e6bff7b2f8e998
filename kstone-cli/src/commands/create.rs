//! `kstone create`.

use anyhow::Result;
use kstone_api::{Database, escape};
use serde_json::json;

use crate::args::{self, Format};
use crate::output::print_result;

pub(crate) fn run(args: &args::Database, format: Format) -> Result<()> {
    let db = Database::create(&args.path)?;
    let stripes = db.engine().stripe_count();
    db.close()?;
    let path = args.path.display().to_string();
    print_result(
        format,
        &format!("created {}, {stripes} stripes", escape::path(&args.path)),
        json!({"schema": "kstone.create/1", "path": path, "stripes": stripes}),
    )
}
