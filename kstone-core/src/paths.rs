//! All file names in a database directory. Names are built only from numbers.

use std::path::{Path, PathBuf};

use crate::types::FileId;

/// The manifest: lists the files that make up the database.
pub(crate) const MANIFEST: &str = "MANIFEST";
/// A manifest being written; renamed to [`MANIFEST`] once it is durable.
pub(crate) const MANIFEST_TMP: &str = "MANIFEST.tmp";
/// Locked by the one handle that may write.
pub(crate) const LOCK: &str = "LOCK";

/// The log buffer: records that need not be in their segment yet.
const LOG_BUFFER: &str = "wal.buffer";

/// In a directory without a manifest: a backup into it was started and not finished.
pub(crate) const UNFINISHED: &str = "BACKUP.unfinished";
/// The counters, for tools that read the directory; see [`crate::DatabaseConfig::stats_snapshot_interval`].
pub(crate) const STATS: &str = "STATS.json";
/// The counters being written; renamed to [`STATS`].
pub(crate) const STATS_TMP: &str = "STATS.json.tmp";
/// The event log; the newest of [`EVENT_FILES`].
const EVENTS: &str = "EVENTS.jsonl";
/// Number of event logs kept: [`EVENTS`], and older ones as `EVENTS.jsonl.1` and so on.
pub(crate) const EVENT_FILES: usize = 4;

/// The meaning of a name in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    Manifest,
    ManifestTmp,
    Lock,
    /// `BACKUP.unfinished`: there is no database yet; meaningless beside a manifest.
    Unfinished,
    /// `EVENTS.jsonl`, `EVENTS.jsonl.N`: not part of the database.
    Events,
    /// `STATS.json`, or its temporary file: not part of the database.
    Stats,
    /// `wal-NNNNNN.log`: a segment; the number is its generation at creation, but headers determine the order.
    Log(u32),
    /// `wal.buffer`
    LogBuffer,
    /// `NNN-<id>.sst`
    Sst {
        stripe: usize,
        id: FileId,
    },
    /// `NNN-<id>.sst.repair`: an SST being written by a repair, until a manifest lists it.
    Repairing {
        stripe: usize,
        id: FileId,
    },
    /// `quarantine`: repairs keep the originals of replaced files here.
    Quarantine,
    /// Not a KeystoneDB file: left alone.
    Foreign,
}

pub(crate) fn log(dir: &Path, generation: u32) -> PathBuf {
    dir.join(format!("wal-{generation:06}.log"))
}

pub(crate) fn log_buffer(dir: &Path) -> PathBuf {
    dir.join(LOG_BUFFER)
}

pub(crate) fn sst(dir: &Path, stripe: usize, id: FileId) -> PathBuf {
    dir.join(format!("{stripe:03}-{id:06}.sst"))
}

/// Directory in which repairs keep the originals of replaced files.
pub(crate) const QUARANTINE: &str = "quarantine";
/// Suffix of an SST being written by a repair, until a manifest lists it.
const REPAIRED: &str = ".repair";

/// The name of an SST being written by a repair.
pub(crate) fn repaired(sst: &Path) -> PathBuf {
    let mut name = sst.as_os_str().to_owned();
    name.push(REPAIRED);
    name.into()
}

/// The path of the event log that was rotated `age` times.
pub(crate) fn events(dir: &Path, age: usize) -> PathBuf {
    match age {
        0 => dir.join(EVENTS),
        age => dir.join(format!("{EVENTS}.{age}")),
    }
}

/// The meaning of `name`. Only names in the exact form that KeystoneDB writes are recognised.
pub(crate) fn parse(name: &str) -> FileName {
    // First, because most files are SSTs.
    if let Some(sst) = name.strip_suffix(".sst") {
        return parse_sst(sst).unwrap_or(FileName::Foreign);
    }
    match name {
        MANIFEST => return FileName::Manifest,
        MANIFEST_TMP => return FileName::ManifestTmp,
        LOCK => return FileName::Lock,
        UNFINISHED => return FileName::Unfinished,
        EVENTS => return FileName::Events,
        STATS | STATS_TMP => return FileName::Stats,
        QUARANTINE => return FileName::Quarantine,
        LOG_BUFFER => return FileName::LogBuffer,
        _ => {}
    }
    if let Some(sst) = name.strip_suffix(REPAIRED) {
        return match parse(sst) {
            FileName::Sst { stripe, id } => FileName::Repairing { stripe, id },
            _ => FileName::Foreign,
        };
    }
    if let Some(age) = name.strip_prefix(EVENTS).and_then(|rest| rest.strip_prefix('.'))
        && (1..EVENT_FILES).any(|n| age == n.to_string())
    {
        return FileName::Events;
    }
    if let Some(generation) = name.strip_prefix("wal-").and_then(|rest| rest.strip_suffix(".log"))
        && let Some(generation) = number(generation, 6).and_then(|n| u32::try_from(n).ok())
    {
        return FileName::Log(generation);
    }
    FileName::Foreign
}

fn parse_sst(name: &str) -> Option<FileName> {
    let (stripe, id) = name.split_at_checked(3)?;
    let (stripe, id) = (number(stripe, 3)?, number(id.strip_prefix('-')?, 6)?);
    (stripe < 256).then_some(FileName::Sst { stripe: stripe as usize, id })
}

/// A number as it is written: with leading zeros up to this many digits, and no further.
fn number(digits: &str, padded: usize) -> Option<u64> {
    let is_written = digits.len() == padded || (digits.len() > padded && !digits.starts_with('0'));
    let is_number = is_written && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_foreign() {
        let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(parse(&name(log(Path::new("d"), 7))), FileName::Log(7));
        assert_eq!(parse(&name(log(Path::new("d"), u32::MAX))), FileName::Log(u32::MAX));
        assert_eq!(parse(&name(sst(Path::new("d"), 3, 12))), FileName::Sst { stripe: 3, id: 12 });
        assert_eq!(
            parse(&name(sst(Path::new("d"), 255, u64::MAX))),
            FileName::Sst { stripe: 255, id: u64::MAX }
        );
        assert_eq!(parse("MANIFEST"), FileName::Manifest);
        assert_eq!(parse(&name(log_buffer(Path::new("d")))), FileName::LogBuffer);
        assert_eq!(parse("BACKUP.unfinished"), FileName::Unfinished);
        for age in 0..EVENT_FILES {
            assert_eq!(parse(&name(events(Path::new("d"), age))), FileName::Events);
        }
        for stats in [STATS, STATS_TMP] {
            assert_eq!(parse(stats), FileName::Stats);
        }
        assert_eq!(parse("quarantine"), FileName::Quarantine);
        assert_eq!(parse("003-000012.sst.repair"), FileName::Repairing { stripe: 3, id: 12 });
        for foreign in [
            "MANIFEST.repair",
            "003-000012.sst.repair.repair",
            "EVENTS.jsonl.0",
            "EVENTS.jsonl.4",
            "EVENTS.jsonl.01",
            "EVENTS.jsonl.",
            "STATS.json.bak",
        ] {
            assert_eq!(parse(foreign), FileName::Foreign, "{foreign}");
        }
        for foreign in [
            "notes.txt",
            "wal-7.log",
            "wal-.log",
            "wal-0000007.log",
            "3-000001.sst",
            "0003-000001.sst",
            "003-0000001.sst",
            "256-000001.sst",
            "003-+00001.sst",
            ".sst",
        ] {
            assert_eq!(parse(foreign), FileName::Foreign, "{foreign}");
        }
    }
}
