//! `kstone manifest dump`: the edits of a manifest.

use std::ops::ControlFlow;

use anyhow::Result;
use kstone_api::inspect::{self, ManifestItem};
use serde_json::{Map, Value as Json, json};

use crate::args::{Format, ManifestCommand, ManifestDumpArgs};
use crate::commands::expect_database;
use crate::output::Stream;

pub(crate) fn run(command: &ManifestCommand, format: Format) -> Result<()> {
    let ManifestCommand::Dump(args) = command;
    expect_database(&args.db)?;
    let mut out = Stream::new(format, "kstone.manifest_dump/1", "changes")?;
    out.line("offset      edit      change        fields")?;
    match dump(args, &mut out) {
        Ok(()) => out.finish(),
        Err(error) => {
            out.break_off();
            Err(error)
        }
    }
}

fn dump(args: &ManifestDumpArgs, out: &mut Stream) -> Result<()> {
    let (mut left, mut result) = (args.limit.unwrap_or(u64::MAX), Ok(()));
    let end = inspect::read_manifest(&args.db.path, &mut |item| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        left -= 1;
        result = out.write(|| text(&item), || document(&item));
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    result?;
    let end = end?;
    if left > 0 {
        let tail = match end.torn {
            false => format!("end: {:#010x}", end.offset),
            true => format!("TORN edit at {:#010x}: cut off by a crash, safe to drop", end.offset),
        };
        out.line(&tail)?;
    }
    Ok(())
}

fn text(item: &ManifestItem) -> String {
    let fields: Vec<_> = item.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{:#010x}  {:<8}  {:<12}  {}", item.offset, item.edit, item.kind, fields.join(" "))
}

fn document(item: &ManifestItem) -> Json {
    let fields: Map<String, Json> =
        item.fields.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({"edit": item.edit, "offset": item.offset, "change": item.kind, "fields": fields})
}
