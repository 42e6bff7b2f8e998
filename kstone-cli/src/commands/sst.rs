//! `kstone sst`: looks into SST files, one by one.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Result;
use kstone_api::inspect::{EntryKind, EntryRef, SstFile, SstSections};
use kstone_api::{Item, ItemView, escape};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use crate::args::{DumpArgs, FileCommand, FilesArgs, Format};
use crate::commands::find::word;
use crate::commands::for_each_file;
use crate::failure::{Failure, exit, from_here};
use crate::output::{Stream, cell, counted, grouped, key_texts, size, typed_key, utc};

pub(crate) fn run(command: &FileCommand, format: Format) -> Result<()> {
    match command {
        FileCommand::Dump(args) => dump(args, format),
        FileCommand::Props(args) => each(args, format, "kstone.sst_props/1", props),
        FileCommand::Bloom(args) => each(args, format, "kstone.sst_bloom/1", bloom),
        FileCommand::Verify(args) => each(args, format, "kstone.sst_verify/1", verify),
    }
}

/// Runs a command on each file, into one list.
pub(super) fn each(
    args: &FilesArgs,
    format: Format,
    schema: &str,
    one: impl Fn(&Path, &mut Stream) -> Result<()>,
) -> Result<()> {
    let mut out = Stream::new(format, schema, "files")?;
    let done = for_each_file(&args.files, |path| one(path, &mut out));
    out.finish()?;
    done
}

fn dump(args: &DumpArgs, format: Format) -> Result<()> {
    let mut out = Stream::new(format, "kstone.sst_dump/1", "entries")?;
    let done = for_each_file(&args.files.files, |path| {
        let file = SstFile::open(path)?;
        out.line(&summary(path, &file))?;
        let (mut left, mut result) = (args.limit.unwrap_or(u64::MAX), Ok(()));
        let read = file.for_each(&mut |entry| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            result = out.write(|| text(&entry), || document(path, &entry));
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        result?;
        Ok(read?)
    });
    out.finish()?;
    done
}

fn summary(path: &Path, file: &SstFile) -> String {
    let (first, last) = &file.meta().keys;
    let entries = grouped(file.meta().entries);
    format!("{}   entries {entries}   keys {} ... {}", escape::path(path), typed_key(first), typed_key(last))
}

fn text(entry: &EntryRef<'_>) -> String {
    let value = match (entry.kind, item(entry.value)) {
        (EntryKind::Delete, _) => String::new(),
        (EntryKind::Put, Some(item)) => cell(&item, entry.value.len()),
        (EntryKind::Put, None) => format!("{} B that are not an item", grouped(entry.value.len() as u64)),
    };
    format!("seq {:<10}  {:<6}  {}  {value}", entry.seq, word(entry.kind), typed_key(entry.key))
}

fn item(value: &[u8]) -> Option<Item> {
    ItemView::new(value).and_then(|view| view.to_item()).ok()
}

fn document(path: &Path, entry: &EntryRef<'_>) -> Json {
    let (key, sort) = key_texts(entry.key);
    let item = item(entry.value).and_then(|item| RawValue::from_string(item.to_string()).ok());
    json!({
        "file": path.to_string_lossy(),
        "seq": entry.seq,
        "op": word(entry.kind),
        "key": key,
        "sort": sort,
        "value_bytes": (entry.kind == EntryKind::Put).then_some(entry.value.len()),
        "item": item,
    })
}

fn props(path: &Path, out: &mut Stream) -> Result<()> {
    let file = SstFile::open(path)?;
    let sections = file.sections()?;
    out.write(|| props_text(path, &file, &sections), || props_json(path, &file, &sections))
}

fn props_text(path: &Path, file: &SstFile, sections: &SstSections) -> String {
    let meta = file.meta();
    let (first, last) = (typed_key(&meta.keys.0), typed_key(&meta.keys.1));
    let made = match meta.depth {
        0 => "by a flush".to_owned(),
        depth => format!("by a compaction, depth {depth}"),
    };
    let puts = meta.entries.saturating_sub(meta.tombstones);
    let mut lines = vec![
        format!(
            "file         {}   {} bytes   created {} {made}",
            escape::path(path),
            grouped(meta.len),
            utc(meta.created_ms)
        ),
        format!(
            "place        stripe {:03}   file {}   run {}   part {}",
            meta.stripe, meta.id, meta.run, meta.part
        ),
        format!(
            "entries      {}   puts {}   tombstones {}   seq {} ... {}",
            grouped(meta.entries),
            grouped(puts),
            grouped(meta.tombstones),
            meta.seq.0,
            meta.seq.1
        ),
        format!("keys         {first} ... {last}"),
        format!(
            "blocks       {}, average {}   index {}   fences {}   filter {}",
            grouped(sections.blocks as u64),
            size(sections.block_bytes / sections.blocks.max(1) as u64),
            size(sections.index_bytes),
            size(sections.fence_bytes),
            size(sections.filter_bytes)
        ),
        format!("filter       {}", filter(sections)),
        format!(
            "checksums    header, footer, index, fences, filter and properties match   file crc32c {:08x}",
            meta.checksum
        ),
    ];
    if let Some(details) = &meta.details {
        let codec = codec(details.codec);
        lines.push(format!(
            "written with bloom_bits_per_key={} block_size={} codec={codec}",
            details.bits_per_key, details.block_size
        ));
    }
    lines.join("\n")
}

fn codec(id: u8) -> String {
    match id {
        0 => "none".into(),
        1 => "lz4".into(),
        other => other.to_string(),
    }
}

fn filter(sections: &SstSections) -> String {
    format!(
        "{:.1} bits per key   {} probes   {} keys   {:.1} % of bits set   predicted false positives {:.3} %",
        sections.bits_per_key,
        sections.probes,
        grouped(sections.filter_keys),
        100.0 * sections.filter_fill,
        100.0 * sections.false_positives
    )
}

fn props_json(path: &Path, file: &SstFile, sections: &SstSections) -> Json {
    let meta = file.meta();
    json!({
        "file": path.to_string_lossy(),
        "bytes": meta.len,
        "created_ms": meta.created_ms,
        "stripe": meta.stripe,
        "id": meta.id,
        "run": meta.run,
        "part": meta.part,
        "depth": meta.depth,
        "entries": meta.entries,
        "tombstones": meta.tombstones,
        "raw_bytes": meta.raw_bytes,
        "first_seq": meta.seq.0,
        "last_seq": meta.seq.1,
        "first_key": typed_key(&meta.keys.0),
        "last_key": typed_key(&meta.keys.1),
        "crc32c": meta.checksum,
        "sections": sections,
        "written_with": meta.details.as_ref().map(|details| json!({
            "bloom_bits_per_key": details.bits_per_key,
            "block_size": details.block_size,
            "codec": codec(details.codec),
        })),
    })
}

fn bloom(path: &Path, out: &mut Stream) -> Result<()> {
    let sections = SstFile::open(path)?.sections()?;
    out.write(
        || format!("{}   {}   {}", escape::path(path), size(sections.filter_bytes), filter(&sections)),
        || {
            json!({
                "file": path.to_string_lossy(),
                "filter_bytes": sections.filter_bytes,
                "bits_per_key": sections.bits_per_key,
                "probes": sections.probes,
                "keys": sections.filter_keys,
                "fill": sections.filter_fill,
                "false_positives": sections.false_positives,
            })
        },
    )
}

fn verify(path: &Path, out: &mut Stream) -> Result<()> {
    let file = SstFile::open(path)?;
    let faults = file.check()?;
    let name = escape::path(path);
    let text = || match faults.as_slice() {
        [] => format!("good     {name}   {} bytes", grouped(file.meta().len)),
        faults => {
            let line = |fault: &kstone_api::inspect::SstFault| {
                let (part, offset, len) = (&fault.part, fault.offset, fault.len);
                format!("CORRUPT  {name}   {part} at {offset:#x} +{len}   {}", fault.detail)
            };
            faults.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    };
    out.write(
        text,
        || json!({"file": path.to_string_lossy(), "clean": faults.is_empty(), "faults": faults}),
    )?;
    if faults.is_empty() {
        return Ok(());
    }
    let count = counted(faults.len() as u64, "fault");
    let message = from_here(format!("{} has {count}", path.display()));
    Err(Failure { exit: exit::CORRUPTION, code: "corruption", message, hint: None }.into())
}
