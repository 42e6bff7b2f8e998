//! Stored bytes that are not an item: errors that name their file and key. The engine's `verify` and `repair`, which
//! accept any bytes as a value, are extended by a check that values are items.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kstone_core::lsm::Verdict;
use kstone_core::repair::{self, Loss, RepairOptions, RepairReport};
use kstone_core::verify::{self, ValueCheck, VerifyOptions, VerifyReport};
use kstone_core::{Error, Key, Result, escape};

use crate::codec;
use crate::database::Database;
use crate::view::ItemView;

/// Checks a database directory, whether or not it can be opened, and whether or not a program has it open. A deep check
/// reads every item. See [`VerifyReport`].
///
/// ```
/// # fn main() -> kstone_api::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("mydb.keystone");
/// # kstone_api::Database::create(&path)?.close()?;
/// let report = kstone_api::verify(&path, &kstone_api::VerifyOptions::deep())?;
/// assert!(report.is_clean() && report.complete, "{:?}", report.findings);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `NotFound`, `NotADatabase`, and `Io` when the directory itself cannot be read. Everything else is a finding.
pub fn verify(path: &Path, options: &VerifyOptions) -> Result<VerifyReport> {
    verify::verify(path, &of_items(options))
}

/// Restores a damaged database to one that opens, with everything that can be read. Calls `on_loss` for each loss as it
/// is found; an item that cannot be decoded is lost. See [`kstone_core::repair::repair`] for memory and errors.
pub fn repair(path: &Path, options: &RepairOptions, on_loss: &mut dyn FnMut(&Loss)) -> Result<RepairReport> {
    let mut options = options.clone();
    options.values.get_or_insert_with(is_item);
    repair::repair(path, &options, on_loss)
}

/// The same options, with the check that values are items.
pub(crate) fn of_items(options: &VerifyOptions) -> VerifyOptions {
    let mut options = options.clone();
    options.values.get_or_insert_with(is_item);
    options
}

fn is_item() -> ValueCheck {
    Arc::new(|bytes| match ItemView::new(bytes).and_then(|view| view.validate()) {
        Ok(()) => Ok(()),
        Err(Error::Corruption { detail, .. }) => Err(detail),
        Err(error) => Err(error.to_string()),
    })
}

/// The error for an item of this database that cannot be decoded. It names the key, and the file if that version is
/// still the newest.
pub(crate) fn under(database: &Database, key: &Key<'_>, error: Error) -> Error {
    // An error while looking for the file must not replace the original error.
    let explained = database.engine().explain_get(key).ok();
    let found = explained.as_ref().and_then(|steps| {
        let run = steps.runs.iter().find(|run| matches!(run.verdict, Verdict::Found { .. }));
        let memtable = steps.memtables.iter().find(|memtable| memtable.found).and_then(|m| m.log.clone());
        let in_run = |run: &kstone_core::lsm::RunStep| {
            (run.file.clone(), run.blocks.last().map_or(0, |block| block.offset))
        };
        memtable.map(|log| (log, 0)).or_else(|| run.map(in_run))
    });
    let (file, at) = found.map_or((PathBuf::new(), 0), |(file, at)| (file.into(), at));
    with_key(database.path().join(file), at, key, error)
}

/// An error of a call that reads and decodes an item: of the item if it names no file, else of the engine.
pub(crate) fn of_item(database: &Database, key: &Key<'_>, error: Error) -> Error {
    match &error {
        Error::Corruption { file, .. } if file.as_os_str() == codec::A_STORED_ITEM => {
            under(database, key, error)
        }
        _ => error,
    }
}

/// The error for an item that cannot be decoded, with its key.
pub(crate) fn with_key(file: PathBuf, offset: u64, key: &Key<'_>, error: Error) -> Error {
    match error {
        Error::Corruption { detail, .. } => {
            let text = |bytes: &[u8]| format!("\"{}\"", escape::key(bytes));
            let sort = key.sort().map(|sort| format!(" {}", text(sort))).unwrap_or_default();
            let detail =
                format!("the item under {}{sort} cannot be decoded: {detail}", text(key.partition()));
            Error::Corruption { file, offset, detail }
        }
        other => other,
    }
}
