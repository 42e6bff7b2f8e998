//! `kstone scan`.

use anyhow::Result;

use crate::args::{Format, ScanArgs};
use crate::commands::{open_to_read, print_items};
use crate::escape::Escaped;
use crate::key_types::{no_prefix, stored};
use crate::selection::Selected;

pub(crate) fn run(args: &ScanArgs, format: Format) -> Result<()> {
    let selected = Selected::new(&args.selection)?;
    if args.prefix.is_some() {
        no_prefix(args.types.key_type)?;
    }
    let bound = |at: &Option<Escaped>| at.as_ref().map(|at| stored(args.types.key_type, &at.0)).transpose();
    let (from, to) = (bound(&args.from)?, bound(&args.to)?);
    let db = open_to_read(&args.db)?;
    let items = match args.stripe {
        Some(stripe) => db.snapshot()?.stripe(stripe)?,
        None => {
            let mut scan = db.scan().limit(selected.limit).examine(selected.examine);
            if let Some(prefix) = &args.prefix {
                scan = scan.prefix(prefix);
            }
            if let Some(from) = from {
                scan = scan.from(from);
            }
            if let Some(to) = to {
                scan = scan.to(to);
            }
            if let Some(filter) = &selected.filter {
                scan = scan.filter(filter.clone());
            }
            if let Some(token) = &selected.after {
                scan = scan.after(token);
            }
            scan.run()?
        }
    };
    print_items(items, &selected, args.keys_only, args.types, format)
}
