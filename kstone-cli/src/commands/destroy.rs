//! `kstone destroy`.

use anyhow::Result;
use kstone_api::{Database, escape};
use serde_json::json;

use crate::args::{DestroyArgs, Format};
use crate::commands::{confirm, expect_database};
use crate::failure::Failure;
use crate::output::{counted, print_result, size};

pub(crate) fn run(args: &DestroyArgs, format: Format) -> Result<()> {
    // Before the question, which names the database.
    expect_database(&args.db)?;
    let path = escape::path(&args.db.path);
    if !args.yes {
        confirm(&format!("Remove the database {path} and everything in it?"), || {
            let mut refusal = Failure::usage("destroy removes the database: pass --yes; nothing was changed");
            refusal.hint = Some(format!("kstone backup {path} DEST makes a copy first"));
            refusal
        })?;
    }
    let destroyed = Database::destroy(&args.db.path)?;
    let mut text =
        format!("removed {path}: {}, {}", counted(destroyed.files as u64, "file"), size(destroyed.bytes));
    for name in &destroyed.kept {
        text += &format!("\nkept {}, which is not a file of the database", escape::text(name));
    }
    let json = json!({
        "schema": "kstone.destroy/1", "files": destroyed.files, "bytes": destroyed.bytes, "kept": destroyed.kept,
    });
    print_result(format, &text, json)
}
