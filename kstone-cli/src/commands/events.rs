//! `kstone events`: prints `EVENTS.jsonl` and its rotated files.
//!
//! The database is not opened: it may be in use, or too damaged to open.

use std::io;
use std::path::Path;

use anyhow::Result;
use kstone_api::{Event as Known, escape, read_regular};
use serde_json::{Map, Value};

use crate::args::{EventsArgs, Format};
use crate::commands::{expect_database, unreadable};
use crate::failure::Failure;
use crate::output::{print_list, print_table, size, time, utc};

/// Event logs, oldest first.
const FILES: [&str; 4] = ["EVENTS.jsonl.3", "EVENTS.jsonl.2", "EVENTS.jsonl.1", "EVENTS.jsonl"];
/// Larger than a file grows.
const MAX_BYTES: u64 = 2 << 20;
/// Fields common to all events.
const COMMON: [&str; 3] = ["seq", "unix_ms", "event"];

type Event = Map<String, Value>;

pub(crate) fn run(args: &EventsArgs, format: Format) -> Result<()> {
    expect_database(&args.db)?;
    let (mut events, mut troubles) = (Vec::new(), Vec::new());
    for name in FILES {
        match read(&args.db.path.join(name)) {
            Ok(some) => events.extend(some),
            Err(trouble) => troubles.push(trouble),
        }
    }
    // A file that is renamed during this loop may be read twice.
    events.sort_by_key(seq);
    events.dedup_by_key(|event| seq(event));
    check_kinds(&args.kind, &events)?;
    if !args.kind.is_empty() {
        events.retain(|event| args.kind.iter().any(|kind| text(event, "event") == *kind));
    }
    let skip = events.len().saturating_sub(args.limit.unwrap_or(usize::MAX));
    let events = events.split_off(skip);
    if format != Format::Table {
        print_list(format, "kstone.events/1", "events", &events)?;
    } else if !events.is_empty() {
        let row = |event| {
            [utc(number(event, "unix_ms")), escape::text(text(event, "event")).into_owned(), details(event)]
        };
        let rows: Vec<_> = events.iter().map(row).collect();
        print_table(["TIME", "EVENT", "DETAILS"], &rows)?;
    }
    Failure::all(troubles)
}

/// Refuses unknown kinds of event, except those that a newer version wrote.
fn check_kinds(kinds: &[String], events: &[Event]) -> Result<()> {
    let known =
        |kind: &str| Known::KINDS.contains(&kind) || events.iter().any(|event| text(event, "event") == kind);
    match kinds.iter().find(|kind| !known(kind)) {
        None => Ok(()),
        Some(kind) => {
            let mut failure = Failure::usage(format!("there is no event kind {kind:?}"));
            failure.hint = Some(format!("event kinds are {}", Known::KINDS.join(", ")));
            Err(failure.into())
        }
    }
}

/// Reads the events of one file, if it exists. Skips a line that a crash cut off.
fn read(path: &Path) -> Result<Vec<Event>, Failure> {
    match read_regular(path, MAX_BYTES) {
        Ok(bytes) => {
            let lines = bytes.split(|&byte| byte == b'\n');
            Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(unreadable(path, &e)),
    }
}

fn number(event: &Event, field: &str) -> u64 {
    event.get(field).and_then(Value::as_u64).unwrap_or_default()
}

fn seq(event: &Event) -> u64 {
    number(event, "seq")
}

fn text<'a>(event: &'a Event, field: &str) -> &'a str {
    event.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The fields specific to its kind: `stripe 3, bytes 79.3 KiB`.
fn details(event: &Event) -> String {
    let fields = event.iter().filter(|(name, _)| !COMMON.contains(&name.as_str()));
    let shown = fields.filter_map(|(name, value)| {
        let (name, value) = match (name.as_str(), value) {
            ("nanos", Value::Number(n)) => ("took", time(n.as_u64().unwrap_or_default())),
            ("bytes" | "bytes_in" | "bytes_out" | "log_bytes_freed" | "replayed_bytes", Value::Number(n)) => {
                (name.as_str(), size(n.as_u64().unwrap_or_default()))
            }
            ("changes", Value::Array(changes)) => {
                return Some(changes.iter().filter_map(change).collect::<Vec<_>>().join(", "));
            }
            (name, Value::Bool(is)) => {
                return is.then(|| name.replace('_', " "));
            }
            (name, Value::String(text)) => (name, text.clone()),
            (name, value) => (name, value.to_string()),
        };
        Some(format!("{} {value}", name.replace('_', " ")))
    });
    escape::text(&shown.collect::<Vec<_>>().join(", ")).into_owned()
}

/// `sst_threshold 10 -> 5`
fn change(change: &Value) -> Option<String> {
    let side =
        |name| change.get(name).filter(|value| !value.is_null()).map_or("default".into(), Value::to_string);
    Some(format!("{} {} -> {}", change.get("name")?.as_str()?, side("old"), side("new")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_for_reading() {
        let details = |json: &str| details(&serde_json::from_str(json).unwrap());
        let flush =
            r#"{"seq":7,"unix_ms":1,"event":"flush","stripe":3,"bytes":2048,"nanos":2100000,"x":null}"#;
        assert_eq!(details(flush), "bytes 2.0 KiB, took 2.1ms, stripe 3, x null");
        let changed = r#"{"event":"config_changed","changes":[{"name":"a","old":null,"new":5}]}"#;
        assert_eq!(details(changed), "a default -> 5");
        let opened = r#"{"event":"opened","clean":true,"read_only":false,"error":"a\nb"}"#;
        assert_eq!(details(opened), "clean, error a\\x0ab");
    }
}
