//! `kstone get`.

use anyhow::Result;

use crate::args::{Format, GetArgs};
use crate::commands::{damaged, key, open_to_look};
use crate::expressions::{self, Parser};
use crate::failure::Failure;
use crate::output::print_item;

pub(crate) fn run(args: &GetArgs, format: Format) -> Result<()> {
    let params = expressions::names(&args.names)?;
    let mut parser = Parser::new(&params);
    let projection = parser.projection("--project", args.project.as_ref())?;
    parser.finish()?;
    let key = key(&args.key.key, args.key.sort.as_ref());
    let (db, stored) = (open_to_look(&args.key.db)?, args.key.types.stored(&key)?);
    let item = match projection {
        None => db.get(&stored)?,
        Some(projection) => {
            let view = db.get_view(&stored)?;
            view.map(|view| projection.apply(&view).map_err(|e| damaged(&key, &e))).transpose()?
        }
    };
    let item = item.ok_or_else(|| Failure::no_such_key(&key))?;
    print_item(format, &key, Some(&item))
}
