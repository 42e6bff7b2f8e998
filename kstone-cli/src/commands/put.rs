//! `kstone put`.

use std::io::Read as _;

use anyhow::{Context as _, Result};
use kstone_api::Item;

use crate::args::PutArgs;
use crate::commands::{key, open_to_write};
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
    let item = if item == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the item from stdin")?;
        Item::from_json_str(&text)?
    } else {
        Item::from_json_str(item)?
    };
    let db = open_to_write(&args.db)?;
    db.put(key(&partition, sort.as_ref()), item)?;
    Ok(db.close()?)
}
