//! `kstone query`.

use anyhow::Result;

use crate::args::{Format, QueryArgs};
use crate::commands::{open_to_read, print_items};
use crate::escape::Escaped;
use crate::key_types::{no_prefix, stored};
use crate::selection::Selected;

pub(crate) fn run(args: &QueryArgs, format: Format) -> Result<()> {
    let selected = Selected::new(&args.selection)?;
    let db = open_to_read(&args.db)?;
    let (types, sort) = (args.types, |part: &Escaped| stored(args.types.sort_type, &part.0));
    let mut query = db.query(stored(types.key_type, &args.partition.0)?);
    if let Some(prefix) = &args.sort_prefix {
        no_prefix(types.sort_type)?;
        query = query.sort_prefix(prefix.0.as_slice());
    }
    if let Some(from) = &args.sort_from {
        query = query.sort_from(sort(from)?);
    }
    if let Some(to) = &args.sort_to {
        query = query.sort_to(sort(to)?);
    }
    if args.reverse {
        query = query.reverse();
    }
    query = query.limit(selected.limit).examine(selected.examine);
    if let Some(filter) = &selected.filter {
        query = query.filter(filter.clone());
    }
    if let Some(token) = &selected.after {
        query = query.after(token);
    }
    print_items(query.run()?, &selected, false, types, format)
}
