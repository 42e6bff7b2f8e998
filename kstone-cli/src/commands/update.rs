//! `kstone update`.

use anyhow::Result;
use kstone_api::Returning;

use crate::args::{Format, Returned, UpdateArgs};
use crate::commands::{key, key_and_more, open_to_write};
use crate::expressions::{self, Parser};
use crate::output::print_item;

pub(crate) fn run(args: &UpdateArgs, format: Format) -> Result<()> {
    let (partition, sort, text) = key_and_more(&args.key_and_update, "update takes KEY [SORT] UPDATE")?;
    let params = expressions::placeholders(&args.only.placeholders)?;
    let mut parser = Parser::new(&params);
    let update = parser.update(text)?;
    let condition = parser.condition("--if", args.only.condition.as_ref())?;
    parser.finish()?;
    let key = key(&partition, sort.as_ref());
    let stored = args.types.stored(&key)?;
    let db = open_to_write(&args.db)?;
    let mut call = db.update(&stored).apply(update).returning(match args.returning {
        None => Returning::Nothing,
        Some(Returned::Old) => Returning::Old,
        Some(Returned::New) => Returning::New,
        Some(Returned::UpdatedOld) => Returning::UpdatedOld,
        Some(Returned::UpdatedNew) => Returning::UpdatedNew,
    });
    if let Some(condition) = condition {
        call = call.when(condition);
    }
    let item = call.run()?;
    db.close()?;
    match args.returning {
        None => Ok(()),
        Some(_) => print_item(format, &key, item.as_ref()),
    }
}
