//! One file a command.

mod alerts;
mod backup;
mod compact;
mod count;
mod create;
mod delete;
mod events;
mod explain;
mod get;
mod import;
mod info;
mod presets;
mod put;
mod query;
mod repair;
mod scan;
mod stats;
mod verify;

use anyhow::Result;
use kstone_api::{Database, Item, Items, Key};

use crate::args::{self, Cli, Command, Format};
use crate::escape::{Escaped, escape};
use crate::failure::Failure;
use crate::output::EntryWriter;

pub(crate) fn run(cli: &Cli) -> Result<()> {
    let format = cli.format;
    match &cli.command {
        Command::Info(db) => info::run(db, format),
        Command::Create(db) => create::run(db, format),
        Command::Get(args) => get::run(args, format),
        Command::Put(args) => put::run(args),
        Command::Delete(args) => delete::run(args),
        Command::Query(args) => query::run(args, format),
        Command::Scan(args) => scan::run(args, format),
        Command::Count(db) => count::run(db, format),
        Command::Explain(command) => explain::run(command, format),
        Command::Stats(db) => stats::run(db, format),
        Command::Events(args) => events::run(args, format),
        Command::Alerts(db) => alerts::run(db, format),
        Command::Presets(args) => presets::run(args, format),
        Command::Import(args) => import::run(args, format),
        Command::Compact(args) => compact::run(args, format),
        Command::Backup(args) => backup::run(args, format),
        Command::Verify(args) => verify::run(args, format),
        Command::Repair(args) => repair::run(args, format),
    }
}

/// Opens for reading, beside whoever has it open, and changes nothing.
fn open_to_read(db: &args::Database) -> Result<Database> {
    Ok(Database::open_read_only(&db.path)?)
}

/// For what looks at files without opening the database: fails as opening would where there is none.
fn expect_database(db: &args::Database) -> Result<()> {
    if db.path.join("MANIFEST").exists() {
        return Ok(());
    }
    open_to_read(db).map(drop)
}

fn open_to_write(db: &args::Database) -> Result<Database> {
    Ok(Database::open(&db.path)?)
}

fn key<'a>(partition: &'a Escaped, sort: Option<&'a Escaped>) -> Key<'a> {
    match sort {
        None => Key::new(partition.0.as_slice()),
        Some(sort) => Key::with_sort(partition.0.as_slice(), sort.0.as_slice()),
    }
}

/// The key as it is typed.
fn key_text(key: &Key<'_>) -> String {
    match key.sort() {
        None => escape(key.partition()),
        Some(sort) => format!("{} {}", escape(key.partition()), escape(sort)),
    }
}

/// Prints items, or only their keys, without decoding them then.
fn print_items(items: Items, limit: Option<usize>, keys_only: bool, format: Format) -> Result<()> {
    let mut out = EntryWriter::new(format)?;
    let limit = limit.unwrap_or(usize::MAX);
    if keys_only {
        for key in items.keys().take(limit) {
            out.write(&key?, None)?;
        }
    } else {
        for entry in items.take(limit) {
            let (key, item) = entry?;
            out.write(&key, Some(&item))?;
        }
    }
    out.finish()
}

/// What is stored under a key.
fn stored(db: &Database, key: &Key<'_>) -> Result<Item> {
    match db.get(key) {
        Ok(Some(item)) => Ok(item),
        Ok(None) => Err(Failure::no_such_key(&key_text(key)).into()),
        Err(e) => Err(e.into()),
    }
}
