//! `kstone count`.

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::args::{self, Format};
use crate::commands::open_to_read;
use crate::output::print_result;

pub(crate) fn run(args: &args::Database, format: Format) -> Result<()> {
    let db = open_to_read(args)?;
    // In no order: stripe by stripe, without merging them. Items that cannot be decoded are errors, not counted.
    let mut items = 0u64;
    for entry in db.segment(0, 1)?.views() {
        let (key, view) = entry?;
        view.validate().with_context(|| format!("the item under {key}"))?;
        items += 1;
    }
    print_result(format, &items.to_string(), json!({"schema": "kstone.count/1", "items": items}))
}
