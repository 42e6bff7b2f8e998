//! `kstone files`: every file of a database directory, and what it is.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::Result;
use kstone_api::escape;
use kstone_api::inspect::{self, DirectoryFile, FileRole};
use serde_json::{Value as Json, json};

use crate::args::{Database, Format};
use crate::commands::expect_database;
use crate::failure::{Failure, damage_hint, exit, from_here};
use crate::output::{counted, grouped, print_list, size, stdout, typed_key};

pub(crate) fn run(args: &Database, format: Format) -> Result<()> {
    let found = inspect::files(&args.path).or_else(|error| {
        // Fails like opening does, if that fails too.
        expect_database(args)?;
        Err(anyhow::Error::from(error))
    })?;
    match format {
        Format::Table => table(&found.files)?,
        _ => {
            let files: Vec<Json> = found.files.iter().map(document).collect();
            print_list(format, "kstone.files/1", "files", &files)?;
        }
    }
    let corrupt = |message: String| Failure {
        exit: exit::CORRUPTION,
        code: "corruption",
        message,
        hint: Some(damage_hint(Some(&args.path))),
    };
    let mut failures: Vec<_> = found.manifest.iter().map(|e| corrupt(from_here(e.to_string()))).collect();
    let missing = found.files.iter().filter(|file| file.role == FileRole::SstMissing);
    failures.extend(missing.map(|file| corrupt(format!("{} is missing", file.name))));
    Failure::all(failures)
}

fn table(files: &[DirectoryFile]) -> Result<()> {
    let mut rows = vec![["FILE", "ROLE", "STRIPE", "ENTRIES", "BYTES", "KEYS"].map(str::to_owned)];
    rows.extend(files.iter().map(|file| {
        let sst = file.sst.as_deref();
        let keys = sst.map(|sst| format!("{} ... {}", typed_key(&sst.keys.0), typed_key(&sst.keys.1)));
        [
            escape::text(&file.name).into_owned(),
            file.role.as_str().replace('_', " "),
            file.stripe.map(|stripe| format!("{stripe:03}")).unwrap_or_default(),
            sst.map(|sst| grouped(sst.entries)).unwrap_or_default(),
            grouped(file.len),
            keys.unwrap_or_default(),
        ]
    }));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let [name, role, stripe, entries, bytes, _] = widths;
    let mut out = stdout(Format::Table);
    for [a, b, c, d, e, f] in &rows {
        let line = format!("{a:name$}  {b:role$}  {c:stripe$}  {d:>entries$}  {e:>bytes$}  {f}");
        writeln!(out, "{}", line.trim_end())?;
    }
    let mut totals = BTreeMap::<&str, (u64, u64)>::new();
    for file in files {
        let total = totals.entry(file.role.as_str()).or_default();
        *total = (total.0 + 1, total.1.saturating_add(file.len));
    }
    let all = files.iter().map(|file| file.len).fold(0, u64::saturating_add);
    writeln!(out, "\n{}   {}", counted(files.len() as u64, "file"), size(all))?;
    for (role, (count, bytes)) in totals {
        writeln!(out, "  {:18}  {:>6}  {}", role.replace('_', " "), grouped(count), size(bytes))?;
    }
    Ok(out.flush()?)
}

/// A file for programs; also used for the files of one stripe.
pub(super) fn document(file: &DirectoryFile) -> Json {
    let sst = file.sst.as_deref();
    json!({
        "name": file.name,
        "role": file.role.as_str(),
        "bytes": file.len,
        "stripe": file.stripe,
        "entries": sst.map(|sst| sst.entries),
        "tombstones": sst.map(|sst| sst.tombstones),
        "first_key": sst.map(|sst| typed_key(&sst.keys.0)),
        "last_key": sst.map(|sst| typed_key(&sst.keys.1)),
    })
}
