//! `kstone delete`.

use anyhow::Result;

use crate::args::KeyArgs;
use crate::commands::{key, key_text, open_to_write};
use crate::failure::Failure;

pub(crate) fn run(args: &KeyArgs) -> Result<()> {
    let key = key(&args.key, args.sort.as_ref());
    let db = open_to_write(&args.db)?;
    let stored = args.types.stored(&key)?;
    let there = db.contains(&stored)?;
    if there {
        db.delete(&stored)?;
    }
    db.close()?;
    if there { Ok(()) } else { Err(Failure::no_such_key(&key_text(&key)).into()) }
}
