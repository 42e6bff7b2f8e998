//! `kstone explain`.

use anyhow::Result;
use kstone_api::SortRange;
use serde::Serialize;

use crate::args::{ExplainCommand, Format};
use crate::commands::{key, open_to_look};
use crate::key_types::{no_prefix, stored};
use crate::output::print_result;

/// The account of a read, with its schema.
#[derive(Serialize)]
struct Account<'a, T> {
    schema: &'static str,
    #[serde(flatten)]
    account: &'a T,
}

pub(crate) fn run(command: &ExplainCommand, format: Format) -> Result<()> {
    match command {
        ExplainCommand::Get(args) => {
            let db = open_to_look(&args.db)?;
            let key = args.types.stored(&key(&args.key, args.sort.as_ref()))?;
            let account = db.explain_get(key.clone())?;
            print_result(
                format,
                &account.to_string(),
                Account { schema: "kstone.explain_get/1", account: &account },
            )?;
            if account.error.is_some() {
                // Takes the exit status from the get itself, which meets the same error.
                db.engine().get(&key)?;
            }
        }
        ExplainCommand::Query(args) => {
            let db = open_to_look(&args.db)?;
            let prefix = args.sort_prefix.as_ref().map(|prefix| SortRange::Prefix(prefix.0.clone()));
            if prefix.is_some() {
                no_prefix(args.types.sort_type)?;
            }
            let range = prefix.unwrap_or_default();
            let partition = stored(args.types.key_type, &args.partition.0)?;
            let account = db.explain_query(&partition, &range)?;
            print_result(
                format,
                &account.to_string(),
                Account { schema: "kstone.explain_query/1", account: &account },
            )?;
            if account.error.is_some() {
                let query = db.query(&partition);
                let query = match &args.sort_prefix {
                    Some(prefix) => query.sort_prefix(prefix.0.as_slice()),
                    None => query,
                };
                for entry in query.run()?.views() {
                    entry?;
                }
            }
        }
    }
    Ok(())
}
