//! `kstone get`.

use anyhow::Result;
use kstone_api::escape;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::args::{Format, KeyArgs};
use crate::commands::{key, open_to_read, stored};
use crate::output::print_result;

#[derive(Serialize)]
struct Found {
    schema: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort: Option<String>,
    item: Box<RawValue>,
}

pub(crate) fn run(args: &KeyArgs, format: Format) -> Result<()> {
    let key = key(&args.key, args.sort.as_ref());
    let text = stored(&open_to_read(&args.db)?, &args.types.stored(&key)?)?.to_string();
    let found = Found {
        schema: "kstone.item/1",
        key: escape::key(key.partition()),
        sort: key.sort().map(escape::key),
        item: RawValue::from_string(text.clone())?,
    };
    print_result(format, &escape::json(&text), found)
}
