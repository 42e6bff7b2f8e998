//! One file per command.

mod advise;
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
mod update;
mod verify;

use std::path::Path;

use anyhow::Result;
use kstone_api::{Database, Error, Items, Key, Token};

use crate::args::{self, Cli, Command, Format};
use crate::escape::Escaped;
use crate::failure::{Failure, damage_hint, exit, from_here};
use crate::key_types::KeyTypes;
use crate::output::EntryWriter;
use crate::selection::Selected;

pub(crate) fn run(cli: &Cli) -> Result<()> {
    let format = cli.format;
    match &cli.command {
        Command::Info(db) => info::run(db, format),
        Command::Create(db) => create::run(db, format),
        Command::Get(args) => get::run(args, format),
        Command::Put(args) => put::run(args),
        Command::Update(args) => update::run(args, format),
        Command::Delete(args) => delete::run(args),
        Command::Query(args) => query::run(args, format),
        Command::Scan(args) => scan::run(args, format),
        Command::Count(db) => count::run(db, format),
        Command::Explain(command) => explain::run(command, format),
        Command::Stats(db) => stats::run(db, format),
        Command::Events(args) => events::run(args, format),
        Command::Advise(args) => advise::run(args, format),
        Command::Alerts(db) => alerts::run(db, format),
        Command::Presets(args) => presets::run(args, format),
        Command::Import(args) => import::run(args, format),
        Command::Compact(args) => compact::run(args, format),
        Command::Backup(args) => backup::run(args, format),
        Command::Verify(args) => verify::run(args, format),
        Command::Repair(args) => repair::run(args, format),
    }
}

/// Opens read-only: other processes may have the database open, and nothing changes.
fn open_to_read(db: &args::Database) -> Result<Database> {
    Ok(Database::open_read_only(&db.path)?)
}

/// Checks that there is a database, for commands that read its files without opening it. Fails like opening does.
fn expect_database(db: &args::Database) -> Result<()> {
    if db.path.join("MANIFEST").symlink_metadata().is_ok() {
        return Ok(());
    }
    open_to_read(db).map(drop)
}

/// A file of the directory that cannot be read; the rest is still shown.
fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let (what, path) = (error.to_string(), path.display().to_string());
    // The error for a file that is not regular, or has a second name, already contains its path.
    let message = if what.contains(&path) { what } else { format!("cannot read {path}: {what}") };
    Failure { exit: exit::ENVIRONMENT, code: "unreadable", message, hint: None }
}

/// SSTs found missing or damaged when the database was opened.
fn damage(db: &Database) -> Vec<Failure> {
    let failure = |error: &Error| Failure {
        exit: exit::CORRUPTION,
        code: "corruption",
        message: from_here(error.to_string()),
        hint: Some(damage_hint(Some(db.path()))),
    };
    db.engine().damage().iter().map(failure).collect()
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

/// The key and the last argument of `KEY [SORT] LAST`.
fn key_and_more<'a>(
    words: &'a [String],
    usage: &str,
) -> Result<(Escaped, Option<Escaped>, &'a String), Failure> {
    let (partition, sort, last) = match words {
        [key, last] => (key, None, last),
        [key, sort, last] => (key, Some(sort), last),
        _ => return Err(Failure::usage(usage)),
    };
    let unescape =
        |text: &String| text.parse::<Escaped>().map_err(|why| Failure::usage(format!("{text}: {why}")));
    Ok((unescape(partition)?, sort.map(unescape).transpose()?, last))
}

/// Prints items, or only their keys, in which case items are not decoded; and where to continue if a limit ended it.
fn print_items(
    items: Items,
    selected: &Selected,
    keys_only: bool,
    types: KeyTypes,
    format: Format,
) -> Result<()> {
    let mut out = EntryWriter::new(format)?;
    match print_each(items, selected, keys_only, types, &mut out) {
        Ok(next) => out.finish(next.as_ref()),
        Err(e) => {
            out.break_off();
            Err(e)
        }
    }
}

fn print_each(
    items: Items,
    selected: &Selected,
    keys_only: bool,
    types: KeyTypes,
    out: &mut EntryWriter,
) -> Result<Option<Token>> {
    // Again here for stripes, which are read without options.
    let limit = selected.limit;
    if keys_only {
        let mut keys = items.keys();
        for key in keys.by_ref().take(limit) {
            out.write(&types.typed(key?), None)?;
        }
        return Ok(keys.into_next());
    }
    let mut views = items.views();
    for entry in views.by_ref().take(limit) {
        let (key, view) = entry?;
        let damaged = |error: &Error| damaged(&key, error);
        let (item, stored) = match &selected.projection {
            None => (view.to_item().map_err(|e| damaged(&e))?, view.as_bytes().len()),
            Some(projection) => {
                let item = projection.apply(&view).map_err(|e| damaged(&e))?;
                let stored = item.encode()?.len();
                (item, stored)
            }
        };
        out.write(&types.typed(key), Some((&item, stored)))?;
    }
    Ok(views.into_next())
}

/// A stored item that does not decode: the data is at fault, not the request.
fn damaged(key: &Key<'_>, error: &Error) -> Failure {
    Failure {
        exit: exit::CORRUPTION,
        code: "corruption",
        message: format!("the item under {key}: {error}"),
        hint: Some("it was written by something other than KeystoneDB, or by a newer version".into()),
    }
}
