//! `kstone query`.

use anyhow::Result;

use crate::args::{Format, QueryArgs};
use crate::commands::{open_to_read, print_items};

pub(crate) fn run(args: &QueryArgs, format: Format) -> Result<()> {
    let db = open_to_read(&args.db)?;
    let mut query = db.query(&args.partition);
    if let Some(prefix) = &args.sort_prefix {
        query = query.sort_prefix(prefix);
    }
    if let Some(from) = &args.sort_from {
        query = query.sort_from(from);
    }
    if let Some(to) = &args.sort_to {
        query = query.sort_to(to);
    }
    if args.reverse {
        query = query.reverse();
    }
    print_items(query.run()?, args.limit, false, format)
}
