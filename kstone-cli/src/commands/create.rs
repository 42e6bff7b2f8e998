//! `kstone create`.

use anyhow::Result;
use kstone_api::{CompactionConfig, Database, DatabaseConfig, escape};
use serde_json::json;

use crate::args::{CreateArgs, Format};
use crate::output::print_result;
use crate::settings::Changes;

pub(crate) fn run(args: &CreateArgs, format: Format) -> Result<()> {
    let changes = Changes::parse(&args.settings, args.preset.as_deref())?;
    let (config, compaction) = changes.apply(&(DatabaseConfig::new(), CompactionConfig::new()))?;
    let path = &args.db.path;
    let db = Database::builder(path).config(config).compaction(compaction).create()?;
    let stripes = db.engine().stripe_count();
    db.close()?;
    let shown = path.display().to_string();
    print_result(
        format,
        &format!("created {}, {stripes} stripes", escape::path(path)),
        json!({"schema": "kstone.create/1", "path": shown, "stripes": stripes}),
    )
}
