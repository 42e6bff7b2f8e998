//! `kstone count`.

use anyhow::Result;
use serde_json::json;

use crate::args::{self, Format};
use crate::commands::open_to_read;
use crate::output::print_result;

pub(crate) fn run(args: &args::Database, format: Format) -> Result<()> {
    let db = open_to_read(args)?;
    // In no order: stripe after stripe, without merging them.
    let mut items = 0u64;
    for key in db.segment(0, 1)?.keys() {
        key?;
        items += 1;
    }
    print_result(format, &items.to_string(), json!({"schema": "kstone.count/1", "items": items}))
}
