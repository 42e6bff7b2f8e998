//! `kstone wal`: looks into log segments, one by one.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Result;
use kstone_api::escape;
use kstone_api::inspect::{
    EntryKind, LogOperation, LogPiece, LogRecord, LogRecordKind, LogSegment, read_log, stripe_count,
    stripe_of_key,
};
use serde_json::{Value as Json, json};

use crate::args::{DumpArgs, Format, LogCommand};
use crate::commands::find::word;
use crate::commands::for_each_file;
use crate::commands::sst::each;
use crate::failure::{Failure, exit, from_here};
use crate::output::{Stream, counted, grouped, key_texts, size, typed_key, utc};

pub(crate) fn run(command: &LogCommand, format: Format) -> Result<()> {
    match command {
        LogCommand::Dump(args) => dump(args, format),
        LogCommand::Props(args) => each(args, format, "kstone.wal_props/1", |path, out| {
            let totals = Totals::of(path)?;
            out.write(|| totals.text(path), || totals.document(path))
        }),
        LogCommand::Verify(args) => each(args, format, "kstone.wal_verify/1", verify),
    }
}

fn dump(args: &DumpArgs, format: Format) -> Result<()> {
    let mut out = Stream::new(format, "kstone.wal_dump/1", "records")?;
    let done = for_each_file(&args.files.files, |path| dump_one(path, args.limit, &mut out));
    out.finish()?;
    done
}

fn dump_one(path: &Path, limit: Option<u64>, out: &mut Stream) -> Result<()> {
    // Without a manifest beside the segment, the number of stripes is not known.
    let stripes = path.parent().and_then(|dir| stripe_count(dir).ok());
    let (mut left, mut result, mut headed) = (limit.unwrap_or(u64::MAX), Ok(()), false);
    let read = read_log(path, &mut |piece| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        left -= 1;
        if !headed {
            headed = true;
            result = out.line("offset         len  crc  seq         stripe  op         key");
        }
        if result.is_ok() {
            result = write_piece(path, &piece, stripes, out);
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    result?;
    let segment = read?;
    match segment.complete {
        true => {
            out.line(&format!("tail: {}", tail(&segment)))?;
            damage_of(path, &segment)
        }
        false => out.line(&format!("more records follow; the file has {}", size(segment.len))),
    }
}

fn write_piece(path: &Path, piece: &LogPiece<'_>, stripes: Option<usize>, out: &mut Stream) -> Result<()> {
    let file = path.to_string_lossy();
    match *piece {
        LogPiece::Record(record) if record.kind == LogRecordKind::Batch => {
            let mut first = true;
            for op in record.operations() {
                out.write(
                    || operation_text(&record, op.as_ref(), stripes, first),
                    || operation_json(&file, &record, op.as_ref(), stripes),
                )?;
                first = false;
            }
            Ok(())
        }
        LogPiece::Record(record) => out.write(
            || {
                let name = kind(record.kind);
                format!("{:#010x} {:>7}  ok   {:<10}  {:<6}  {name}", record.offset, record.len, "-", "-")
            },
            || json!({"file": file, "offset": record.offset, "len": record.len, "kind": record.kind}),
        ),
        LogPiece::Hole { offset, len } => out.write(
            || format!("{offset:#010x} {len:>7}  BAD  no record can be read here"),
            || json!({"file": file, "offset": offset, "len": len, "kind": "unreadable"}),
        ),
        _ => Ok(()),
    }
}

fn kind(kind: LogRecordKind) -> &'static str {
    match kind {
        LogRecordKind::Batch => "batch",
        LogRecordKind::Watermark => "watermark",
        LogRecordKind::Pad => "pad",
        LogRecordKind::Link => "link to the segment before",
        _ => "unknown",
    }
}

fn operation_text(
    record: &LogRecord<'_>,
    op: Option<&LogOperation<'_>>,
    stripes: Option<usize>,
    first: bool,
) -> String {
    // Further operations of a batch are part of the same record.
    let place = match first {
        true => format!("{:#010x} {:>7}  ok ", record.offset, record.len),
        false => format!("{:23}", ""),
    };
    let Some(op) = op else { return format!("{place}  an operation cannot be decoded") };
    let stripe = stripes.and_then(|stripes| stripe_of_key(op.key, stripes));
    let stripe = stripe.map_or_else(|| "-".into(), |stripe| format!("{stripe:03}"));
    let size = match op.kind {
        EntryKind::Put => format!("   {} B", grouped(op.value.len() as u64)),
        EntryKind::Delete => String::new(),
    };
    format!("{place}  {:<10}  {stripe:<6}  {:<9}  {}{size}", op.seq, word(op.kind), typed_key(op.key))
}

fn operation_json(
    file: &str,
    record: &LogRecord<'_>,
    op: Option<&LogOperation<'_>>,
    stripes: Option<usize>,
) -> Json {
    let place = (record.offset, record.len);
    let Some(op) = op else {
        return json!({"file": file, "offset": place.0, "len": place.1, "kind": "unreadable"});
    };
    let (key, sort) = key_texts(op.key);
    json!({
        "file": file,
        "offset": place.0,
        "len": place.1,
        "kind": record.kind,
        "seq": op.seq,
        "stripe": stripes.and_then(|stripes| stripe_of_key(op.key, stripes)),
        "op": word(op.kind),
        "key": key,
        "sort": sort,
        "value_bytes": (op.kind == EntryKind::Put).then_some(op.value.len()),
    })
}

/// Where the segment ends, and what follows.
fn tail(segment: &LogSegment) -> String {
    let end = segment.end;
    if segment.generation.is_none() {
        return "the segment was reserved and never used".into();
    }
    let lost = segment.holes.iter().filter(|hole| hole.damage).count() as u64;
    if lost > 0 {
        return format!("end at {end:#010x}, after {}", counted(lost, "damaged place"));
    }
    match segment.holes.last() {
        None => format!("clean end at {end:#010x}"),
        Some(torn) => format!(
            "TORN {} bytes at {:#010x}: cut off by a crash before they were durable, safe to drop",
            grouped(torn.len),
            torn.offset
        ),
    }
}

fn damage_of(path: &Path, segment: &LogSegment) -> Result<()> {
    let Some(first) = segment.holes.iter().find(|hole| hole.damage) else { return Ok(()) };
    let message = from_here(format!(
        "{} is damaged at {:#x}: {} bytes that were durable cannot be read",
        path.display(),
        first.offset,
        grouped(first.len)
    ));
    Err(Failure { exit: exit::CORRUPTION, code: "corruption", message, hint: None }.into())
}

fn verify(path: &Path, out: &mut Stream) -> Result<()> {
    let totals = Totals::of(path)?;
    let segment = &totals.segment;
    let is_bad = totals.undecodable > 0 || segment.holes.iter().any(|hole| hole.damage);
    let word = match (is_bad, segment.holes.is_empty()) {
        (true, _) => "CORRUPT",
        (false, true) => "good",
        (false, false) => "torn",
    };
    let text = || {
        let records = counted(totals.records, "record");
        format!("{word:8} {}   {records}   {}", escape::path(path), tail(segment))
    };
    out.write(
        text,
        || json!({"file": path.to_string_lossy(), "clean": !is_bad, "records": totals.records, "holes": segment.holes}),
    )?;
    damage_of(path, segment)?;
    if totals.undecodable > 0 {
        let message = from_here(format!(
            "{}: the checksums of {} match, but not all operations can be decoded",
            path.display(),
            counted(totals.undecodable, "record")
        ));
        return Err(Failure { exit: exit::CORRUPTION, code: "corruption", message, hint: None }.into());
    }
    Ok(())
}

/// Sums over a segment.
#[derive(Default)]
struct Totals {
    segment: LogSegment,
    records: u64,
    batches: u64,
    puts: u64,
    deletes: u64,
    undecodable: u64,
    seqs: Option<(u64, u64)>,
    seconds: Option<(u32, u32)>,
}

impl Totals {
    fn of(path: &Path) -> Result<Self> {
        let mut totals = Self::default();
        totals.segment = read_log(path, &mut |piece| {
            if let LogPiece::Record(record) = piece {
                totals.add(&record);
            }
            ControlFlow::Continue(())
        })?;
        Ok(totals)
    }

    fn add(&mut self, record: &LogRecord<'_>) {
        self.records += 1;
        if record.kind != LogRecordKind::Batch {
            return;
        }
        self.batches += 1;
        let last = record.first_seq.saturating_add(record.count.into()).saturating_sub(1);
        self.seqs = Some((self.seqs.map_or(record.first_seq, |(first, _)| first), last));
        self.seconds = Some((self.seconds.map_or(record.time, |(first, _)| first), record.time));
        let mut count = 0;
        for op in record.operations() {
            match op.map(|op| op.kind) {
                Some(EntryKind::Put) => self.puts += 1,
                Some(EntryKind::Delete) => self.deletes += 1,
                None => count = u32::MAX,
            }
            count = count.saturating_add(1);
        }
        self.undecodable += u64::from(count != record.count);
    }

    fn text(&self, path: &Path) -> String {
        let segment = &self.segment;
        let Some(generation) = segment.generation else {
            return format!("file         {}   {}", escape::path(path), tail(segment));
        };
        let mut lines = vec![
            format!(
                "file         {}   {} bytes, {} used   created {}",
                escape::path(path),
                grouped(segment.len),
                grouped(segment.end),
                utc(segment.created_ms)
            ),
            format!(
                "place        generation {generation}   after edit {} of the manifest",
                segment.last_edit
            ),
            format!(
                "records      {}   batches {}   puts {}   deletes {}",
                grouped(self.records),
                grouped(self.batches),
                grouped(self.puts),
                grouped(self.deletes)
            ),
        ];
        if let (Some(seqs), Some(seconds)) = (self.seqs, self.seconds) {
            let time = |seconds: u32| utc(u64::from(seconds) * 1000);
            lines.push(format!("sequences    {} ... {}", seqs.0, seqs.1));
            lines.push(format!("written      {} ... {}", time(seconds.0), time(seconds.1)));
        }
        lines.push(format!("tail         {}", tail(segment)));
        lines.join("\n")
    }

    fn document(&self, path: &Path) -> Json {
        json!({
            "file": path.to_string_lossy(),
            "segment": self.segment,
            "records": self.records,
            "batches": self.batches,
            "puts": self.puts,
            "deletes": self.deletes,
            "first_seq": self.seqs.map(|(first, _)| first),
            "last_seq": self.seqs.map(|(_, last)| last),
        })
    }
}
