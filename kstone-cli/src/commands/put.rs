//! `kstone put`.

use std::io::{self, BufReader};

use anyhow::{Context as _, Result};
use kstone_api::EncodedItem;

use crate::args::PutArgs;
use crate::commands::{import, key, open_to_write};
use crate::escape::Escaped;
use crate::failure::Failure;

pub(crate) fn run(args: &PutArgs) -> Result<()> {
    let (partition, sort, item) = match args.key_and_item.as_slice() {
        [key, item] => (key, None, item),
        [key, sort, item] => (key, Some(sort), item),
        _ => return Err(Failure::usage("put takes KEY [SORT] ITEM").into()),
    };
    let unescape =
        |text: &String| text.parse::<Escaped>().map_err(|why| Failure::usage(format!("{text}: {why}")));
    let partition = unescape(partition)?;
    let sort = sort.map(unescape).transpose()?;
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
        let why = import::refusal(&e);
        anyhow::Error::from(e).context(why)
    })?;
    db.put_encoded(key, &item)?;
    Ok(db.close()?)
}
