//! `kstone events`: prints `EVENTS.jsonl` and its rotated files.
//!
//! The database is not opened: it may be in use, or too damaged to open.

use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use kstone_api::{Event as Known, escape, read_regular};
use serde_json::{Map, Value};

use crate::args::{EventsArgs, Format};
use crate::commands::stats::unix_ms;
use crate::commands::{expect_database, unreadable};
use crate::failure::Failure;
use crate::interrupt::{Interrupt, Waited, ended};
use crate::output::{print_list, print_table, size, stdout, time, utc};

/// Event logs, oldest first.
const FILES: [&str; 4] = ["EVENTS.jsonl.3", "EVENTS.jsonl.2", "EVENTS.jsonl.1", "EVENTS.jsonl"];
/// Larger than a file grows.
const MAX_BYTES: u64 = 2 << 20;
/// Fields common to all events.
const COMMON: [&str; 3] = ["seq", "unix_ms", "event"];

/// How often the newest file is looked at for new events.
const POLL: Duration = Duration::from_millis(100);

type Event = Map<String, Value>;

pub(crate) fn run(args: &EventsArgs, format: Format) -> Result<()> {
    if args.follow && format == Format::Json {
        return Err(Failure::usage("--follow prints without an end: use --format jsonl").into());
    }
    expect_database(&args.db)?;
    let (mut events, troubles) = read_after(args, 0);
    check_kinds(&args.kind, &events)?;
    let last = events.last().map_or(0, seq);
    let oldest = args.since.map(|age| unix_ms().saturating_sub(age.as_millis() as u64));
    events.retain(|event| is_chosen(args, event) && number(event, "unix_ms") >= oldest.unwrap_or(0));
    let skip = events.len().saturating_sub(args.limit.unwrap_or(usize::MAX));
    let events = events.split_off(skip);
    if args.follow {
        return follow(args, format, &events, last);
    }
    if format != Format::Table {
        print_list(format, "kstone.events/1", "events", &events)?;
    } else if !events.is_empty() {
        print_table(["TIME", "EVENT", "DETAILS"], &events.iter().map(row).collect::<Vec<_>>())?;
    }
    Failure::all(troubles)
}

fn is_chosen(args: &EventsArgs, event: &Event) -> bool {
    args.kind.is_empty() || args.kind.iter().any(|kind| text(event, "event") == *kind)
}

/// The events after a number, oldest first. Files that can have none are not read.
fn read_after(args: &EventsArgs, last: u64) -> (Vec<Event>, Vec<Failure>) {
    let (mut events, mut troubles) = (Vec::new(), Vec::new());
    for name in FILES.iter().rev() {
        match read(&args.db.path.join(name)) {
            Ok(some) => {
                let reaches_back = last > 0 && some.iter().any(|event| seq(event) <= last);
                events.extend(some);
                if reaches_back {
                    break;
                }
            }
            Err(trouble) => troubles.push(trouble),
        }
    }
    events.retain(|event| last == 0 || seq(event) > last);
    // A file that is renamed during this loop may be read twice.
    events.sort_by_key(seq);
    events.dedup_by_key(|event| seq(event));
    (events, troubles)
}

/// Prints events, and those that follow the number `last` as they are written.
fn follow(args: &EventsArgs, format: Format, events: &[Event], mut last: u64) -> Result<()> {
    let interrupt = Interrupt::watch()?;
    print_lines(format, events)?;
    // Unlike any state: events written since the reading above are found at the first look.
    let mut state = None;
    loop {
        match interrupt.wait(POLL)? {
            Waited::Elapsed => {}
            Waited::Interrupted => return Err(ended().into()),
            Waited::Unread => return Ok(()),
        }
        // Before reading: what is written meanwhile is noticed the next time.
        let now = Some(Newest::of(&args.db.path));
        if now == state {
            continue;
        }
        state = now;
        // What cannot be read now may be readable the next time.
        let (mut new, _) = read_after(args, last);
        last = new.last().map_or(last, seq);
        new.retain(|event| is_chosen(args, event));
        print_lines(format, &new)?;
    }
}

/// What changes with each event: the newest file is appended to, or replaced.
#[derive(PartialEq, Eq)]
struct Newest(Option<(u64, u64)>);

impl Newest {
    fn of(dir: &Path) -> Self {
        let [.., newest] = FILES;
        let metadata = std::fs::symlink_metadata(dir.join(newest)).ok();
        Self(metadata.map(|metadata| (metadata.ino(), metadata.len())))
    }
}

/// One line for each event. Columns are as wide as the usual text, since later rows are unknown.
fn print_lines(format: Format, events: &[Event]) -> Result<()> {
    let mut out = stdout(format);
    for event in events {
        match format {
            Format::Table => {
                let [time, kind, details] = row(event);
                writeln!(out, "{}", format!("{time}  {kind:16}  {details}").trim_end())?;
            }
            _ => {
                out.write_all(&serde_json::to_vec(event).map_err(io::Error::from)?)?;
                writeln!(out)?;
            }
        }
    }
    Ok(out.flush()?)
}

fn row(event: &Event) -> [String; 3] {
    [utc(number(event, "unix_ms")), escape::text(text(event, "event")).into_owned(), details(event)]
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
