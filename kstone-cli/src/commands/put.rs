//! `kstone put`.

use std::io::{self, BufReader};

use anyhow::{Context as _, Result};
use kstone_api::EncodedItem;

use crate::args::PutArgs;
use crate::commands::{key, key_and_more, open_to_write};
use crate::expressions::{self, Parser};
use crate::records::refusal;

pub(crate) fn run(args: &PutArgs) -> Result<()> {
    let params = expressions::placeholders(&args.only.placeholders)?;
    let mut parser = Parser::new(&params);
    let condition = parser.condition("--if", args.only.condition.as_ref())?;
    parser.finish()?;
    let (partition, sort, item) = key_and_more(&args.key_and_item, "put takes KEY [SORT] ITEM")?;
    let key = args.types.stored(&key(&partition, sort.as_ref()))?;
    // Opened first, for its item size limit: no more than that is read from stdin.
    let db = open_to_write(&args.db)?;
    let max = db.config().max_item_bytes;
    let item = if item == "-" {
        let read = EncodedItem::read_json(&mut BufReader::new(io::stdin().lock()), max);
        read.context("cannot read the item from stdin")?
    } else {
        EncodedItem::read_json(&mut item.as_bytes(), max)?
    };
    let item = item.map_err(|e| {
        let why = refusal(&e);
        anyhow::Error::from(e).context(why)
    })?;
    match condition {
        None => db.put_encoded(key, &item)?,
        // Encoded again, the same item has the same bytes.
        Some(condition) => db.put_if(key, item.view()?.to_item()?, condition)?,
    }
    Ok(db.close()?)
}
