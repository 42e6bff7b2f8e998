//! `kstone find`: every version of a key in every file.

use std::io::Write as _;

use anyhow::Result;
use kstone_api::inspect::EntryKind;
use kstone_api::{Error, KeyVersion, KeyVersions, escape};
use serde_json::{Value as Json, json};

use crate::args::{Format, KeyArgs};
use crate::commands::{damage, key, open_to_look};
use crate::failure::Failure;
use crate::output::{counted, grouped, stdout, tell};

pub(crate) fn run(args: &KeyArgs, format: Format) -> Result<()> {
    let db = open_to_look(&args.db)?;
    let key = args.types.stored(&key(&args.key, args.sort.as_ref()))?;
    let mut found = db.engine().versions_of(&key)?;
    let mut out = stdout(format);
    match format {
        Format::Table => {
            for line in lines(&found) {
                writeln!(out, "{line}")?;
            }
        }
        Format::Json => {
            let versions: Vec<Json> = found.versions.iter().enumerate().map(document).collect();
            let document = json!({
                "schema": "kstone.find/1",
                "key": escape::key(key.partition()),
                "sort": key.sort().map(escape::key),
                "stripe": found.stripe,
                "ssts_searched": found.searched,
                "versions": versions,
            });
            writeln!(out, "{document}")?;
        }
        Format::Jsonl => {
            for version in found.versions.iter().enumerate().map(document) {
                writeln!(out, "{version}")?;
            }
        }
    }
    out.flush()?;
    let mut failures = damage(&db);
    for error in std::mem::take(&mut found.errors) {
        // An SST that is missing or of the wrong length was found at opening already.
        if failures.is_empty() || !matches!(error, Error::Corruption { .. }) {
            failures.push(Failure::of(&error.into(), &args.db.path));
        }
    }
    Failure::all(failures)?;
    if found.versions.is_empty() {
        return Err(Failure::no_such_key(&key).into());
    }
    if found.versions.len() > 1 && format == Format::Table {
        let (db, stripe) = (escape::path(&args.db.path), found.stripe);
        tell(format_args!(
            "next: kstone compact {db} --stripe {stripe} drops the older versions that no reader needs"
        ));
    }
    Ok(())
}

fn lines(found: &KeyVersions) -> Vec<String> {
    let searched = counted(found.searched as u64, "SST");
    let mut lines = vec![format!("stripe {:03}   {searched} may hold the key", found.stripe)];
    let width = found.versions.iter().map(|version| version.file.len()).max().unwrap_or(0);
    for (n, version) in found.versions.iter().enumerate() {
        let size = match version.kind {
            EntryKind::Put => format!("{} B", grouped(version.value_bytes as u64)),
            EntryKind::Delete => String::new(),
        };
        let place = if version.in_log { "not flushed" } else { "" };
        let now = if n == 0 { "newest" } else { "" };
        let line = format!(
            "{:width$}  seq {:<10}  {:<6}  {size:>12}  {now:6}  {place}",
            version.file,
            version.seq,
            word(version.kind)
        );
        lines.push(line.trim_end().to_owned());
    }
    lines
}

pub(super) fn word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Put => "put",
        EntryKind::Delete => "delete",
    }
}

fn document((n, version): (usize, &KeyVersion)) -> Json {
    json!({
        "file": version.file,
        "in_log": version.in_log,
        "seq": version.seq,
        "op": word(version.kind),
        "value_bytes": (version.kind == EntryKind::Put).then_some(version.value_bytes),
        "newest": n == 0,
    })
}
