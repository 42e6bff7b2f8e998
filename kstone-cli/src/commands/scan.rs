//! `kstone scan`.

use anyhow::Result;

use crate::args::{Format, ScanArgs};
use crate::commands::{open_to_read, print_items};

pub(crate) fn run(args: &ScanArgs, format: Format) -> Result<()> {
    let db = open_to_read(&args.db)?;
    let items = match (args.stripe, &args.prefix) {
        (Some(stripe), _) => db.snapshot()?.stripe(stripe)?,
        (None, Some(prefix)) => db.prefix(prefix)?,
        (None, None) => db.scan().run()?,
    };
    print_items(items, args.limit, args.keys_only, format)
}
