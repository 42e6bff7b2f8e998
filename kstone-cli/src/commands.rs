//! One file per command.

mod advise;
mod alerts;
mod backup;
mod big;
mod compact;
mod completions;
mod config;
mod count;
mod create;
mod delete;
mod destroy;
mod events;
mod explain;
mod export;
mod files;
mod find;
mod get;
mod hist;
mod import;
mod info;
mod man;
mod manifest;
mod metrics;
mod model;
mod presets;
mod put;
mod query;
mod repair;
mod scan;
mod sst;
mod stats;
mod stripes;
mod update;
mod upgrade;
mod verify;
mod version;
mod wal;
mod watch;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{io, thread};

use anyhow::Result;
use kstone_api::{Database, Error, Items, Key, Token};

use crate::args::{self, Cli, Command, Format};
use crate::escape::Escaped;
use crate::failure::{Failure, damage_hint, exit, from_here, is_closed_pipe};
use crate::key_types::KeyTypes;
use crate::output::{self, EntryWriter};
use crate::selection::Selected;

/// Attempts of a command that reads while a writer changes the database under it.
const ATTEMPTS: usize = 10;
/// The wait before the second attempt; each later one waits as much longer.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn run(cli: &Cli) -> Result<()> {
    // What was printed cannot be taken back.
    repeated(|| run_once(cli), || !cli.command.writes() && !output::has_printed())
}

/// Repeats an attempt that met a change by another program, as long as it may be repeated.
#[expect(
    clippy::disallowed_methods,
    reason = "another process changes the database: nothing here can be waited for"
)]
fn repeated(attempt: impl Fn() -> Result<()>, may_repeat: impl Fn() -> bool) -> Result<()> {
    for pause in (1..ATTEMPTS as u32).map(|n| PAUSE * n) {
        match attempt() {
            Err(e) if matches!(e.downcast_ref(), Some(Error::Busy)) && may_repeat() => thread::sleep(pause),
            done => return done,
        }
    }
    attempt()
}

fn run_once(cli: &Cli) -> Result<()> {
    let format = cli.format;
    match &cli.command {
        Command::Info(db) => info::run(db, format),
        Command::Create(args) => create::run(args, format),
        Command::Get(args) => get::run(args, format),
        Command::Put(args) => put::run(args),
        Command::Update(args) => update::run(args, format),
        Command::Delete(args) => delete::run(args),
        Command::Query(args) => query::run(args, format),
        Command::Scan(args) => scan::run(args, format),
        Command::Count(db) => count::run(db, format),
        Command::Explain(command) => explain::run(command, format),
        Command::Config(args) => config::run(args, format),
        Command::Stats(args) => stats::run(args, format),
        Command::Events(args) => events::run(args, format),
        Command::Advise(args) => advise::run(args, format),
        Command::Alerts(args) => alerts::run(args, format),
        Command::Presets(args) => presets::run(args, format),
        Command::Model(args) => model::run(args, format),
        Command::Metrics(db) => metrics::run(db),
        Command::Export(args) => export::run(args, format),
        Command::Import(args) => import::run(args, format),
        Command::Compact(args) => compact::run(args, format),
        Command::Backup(args) => backup::run(args, format),
        Command::Verify(args) => verify::run(args, format),
        Command::Repair(args) => repair::run(args, format),
        Command::Stripes(args) => stripes::run(args, format),
        Command::Files(db) => files::run(db, format),
        Command::Hist(args) => hist::run(args, format),
        Command::Big(args) => big::run(args, format),
        Command::Find(args) => find::run(args, format),
        Command::Sst(command) => sst::run(command, format),
        Command::Wal(command) => wal::run(command, format),
        Command::Manifest(command) => manifest::run(command, format),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        Command::Version => version::run(cli.verbose, format),
        Command::Upgrade(db) => upgrade::run(db, format),
        Command::Destroy(args) => destroy::run(args, format),
    }
}

/// Opens read-only: other processes may have the database open, and nothing changes.
fn open_to_read(db: &args::Database) -> Result<Database> {
    Ok(Database::open_read_only(&db.path)?)
}

/// The same, for a look at the figures or at a few items: SSTs are opened when they are read, which may end in `Busy`.
fn open_to_look(db: &args::Database) -> Result<Database> {
    Ok(Database::builder(&db.path).hold_ssts(false).open_read_only()?)
}

/// Checks that there is a database, for commands that read its files without opening it. Fails like opening does.
fn expect_database(db: &args::Database) -> Result<()> {
    if db.path.join("MANIFEST").symlink_metadata().is_ok() {
        return Ok(());
    }
    open_to_look(db).map(drop)
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

/// Calls `each` for every file. Failures are reported at the end, so that one bad file does not hide the others.
fn for_each_file(files: &[PathBuf], mut each: impl FnMut(&Path) -> Result<()>) -> Result<()> {
    let mut failures = Vec::new();
    for file in files {
        match each(file) {
            Err(error) if is_closed_pipe(&error) => return Err(error),
            Err(error) => failures.push(failed(&error)),
            Ok(()) => {}
        }
    }
    Failure::all(failures)
}

/// A failure that does not end the command, about a file whose database is not known.
fn failed(error: &anyhow::Error) -> Failure {
    let mut failure = match error.downcast_ref::<Failure>() {
        Some(Failure { exit, code, message, hint }) => {
            Failure { exit: *exit, code, message: message.clone(), hint: hint.clone() }
        }
        None => Failure { hint: None, ..Failure::of(error, Path::new("DB")) },
    };
    if failure.exit == exit::CORRUPTION {
        let hint =
            "nothing was changed; kstone verify on the database of the file shows which keys are affected";
        failure.hint = Some(hint.into());
    }
    failure
}

/// Whether to draw with characters beyond ASCII: unless `--ascii` is given, or the locale is not UTF-8.
fn draws_unicode(drawing: args::Drawing) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(|name| std::env::var(name).ok());
    let locale = locale.map(|value| value.to_lowercase()).find(|value| !value.is_empty()).unwrap_or_default();
    !drawing.ascii && (locale.contains("utf-8") || locale.contains("utf8"))
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

/// Asks a question on the terminal; without one, the command must have been confirmed beforehand. `unasked` is the
/// refusal then.
fn confirm(question: &str, unasked: impl FnOnce() -> Failure) -> Result<()> {
    if !io::stdin().is_terminal() {
        return Err(unasked().into());
    }
    // If the question cannot be printed, the answer is not yes.
    write!(anstream::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure { exit: exit::NO, code: "declined", message: "nothing was changed".into(), hint: None }
        .into())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn reads_are_repeated_while_a_writer_changes_the_database() {
        let run = |busy: usize, may: bool| {
            let made = Cell::new(0);
            let attempt = || {
                made.set(made.get() + 1);
                if made.get() <= busy { Err(Error::Busy.into()) } else { Ok(()) }
            };
            let done = repeated(attempt, || may).map_err(|e| e.to_string());
            (made.get(), done.is_ok())
        };
        assert_eq!(run(0, true), (1, true));
        assert_eq!(run(3, true), (4, true));
        assert_eq!(run(ATTEMPTS, true), (ATTEMPTS, false));
        assert_eq!(run(3, false), (1, false));
        let (made, other) = (Cell::new(0), || Err(Error::DiskFull.into()));
        assert!(
            repeated(
                || {
                    made.set(made.get() + 1);
                    other()
                },
                || true
            )
            .is_err()
        );
        assert_eq!(made.get(), 1);
    }
}
