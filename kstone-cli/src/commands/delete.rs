//! `kstone delete`.

use anyhow::Result;

use crate::args::DeleteArgs;
use crate::commands::{key, open_to_write};
use crate::expressions::{self, Parser};
use crate::failure::Failure;

pub(crate) fn run(args: &DeleteArgs) -> Result<()> {
    let params = expressions::placeholders(&args.only.placeholders)?;
    let mut parser = Parser::new(&params);
    let condition = parser.condition("--if", args.only.condition.as_ref())?;
    parser.finish()?;
    let key = key(&args.key.key, args.key.sort.as_ref());
    let db = open_to_write(&args.key.db)?;
    let stored = args.key.types.stored(&key)?;
    // Still true below: no other process can write.
    let there = db.contains(&stored)?;
    match condition {
        Some(condition) => db.delete_if(&stored, condition)?,
        None if there => db.delete(&stored)?,
        None => {}
    }
    db.close()?;
    if there { Ok(()) } else { Err(Failure::no_such_key(&key).into()) }
}
