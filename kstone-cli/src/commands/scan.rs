//! `kstone scan`.

use anyhow::Result;

use crate::args::{Format, ScanArgs};
use crate::commands::{open_to_read, print_items};
use crate::key_types::no_prefix;

pub(crate) fn run(args: &ScanArgs, format: Format) -> Result<()> {
    if args.prefix.is_some() {
        no_prefix(args.types.key_type)?;
    }
    let db = open_to_read(&args.db)?;
    let items = match (args.stripe, &args.prefix) {
        (Some(stripe), _) => db.snapshot()?.stripe(stripe)?,
        (None, Some(prefix)) => db.prefix(prefix)?,
        (None, None) => db.scan().run()?,
    };
    print_items(items, args.limit, args.keys_only, args.types, format)
}
