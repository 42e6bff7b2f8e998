//! `kstone stats`: file sizes, and the counters that a running program writes to `STATS.json`.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use kstone_api::{Database, StatsSnapshot, escape, read_regular};
use serde::Serialize;

use crate::args::{self, Format, StatsArgs};
use crate::commands::{expect_database, unreadable, watch};
use crate::failure::{Failure, exit};
use crate::output::{counted, print_result, size, span};

/// More than the file takes with all stripes in use.
const MAX_BYTES: u64 = 4 << 20;

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    path: String,
    files: Files,
    runtime: Option<Runtime>,
}

/// Figures from the names and lengths of the files, independent of the process that has the database open.
#[derive(Default, Serialize)]
pub(crate) struct Files {
    ssts: u64,
    sst_bytes: u64,
    /// Stripes with at least one SST.
    stripes: u64,
    log_segments: u64,
    log_bytes: u64,
    manifest_bytes: u64,
    other_bytes: u64,
}

/// The counters of the process that wrote them, and their age.
#[derive(Serialize)]
pub(crate) struct Runtime {
    /// `None`: their timestamp is in the future, so a clock was set.
    age_ms: Option<u64>,
    /// Whether the database is open now; otherwise that process has died.
    running: bool,
    pub(crate) snapshot: StatsSnapshot,
}

pub(crate) fn run(args: &StatsArgs, format: Format) -> Result<()> {
    expect_database(&args.db)?;
    if let Some(interval) = args.watch {
        return watch::run(&args.db, interval, format);
    }
    let args = &args.db;
    let files = Files::of(&args.path)?;
    let runtime = Runtime::read(args);
    let text = screen(args, &files, &runtime)?;
    let path = args.path.display().to_string();
    let (runtime, trouble) = told(runtime);
    let report = Report { schema: "kstone.stats_report/1", path, files, runtime };
    print_result(format, text.trim_end(), report)?;
    Failure::all(trouble)
}

/// Splits the result of [`Runtime::read`] into the counters and the failure, if any.
pub(crate) fn told(runtime: Result<Option<Runtime>, Failure>) -> (Option<Runtime>, Vec<Failure>) {
    match runtime {
        Ok(runtime) => (runtime, Vec::new()),
        Err(failure) => (None, vec![failure]),
    }
}

fn screen(
    args: &args::Database,
    files: &Files,
    runtime: &Result<Option<Runtime>, Failure>,
) -> Result<String> {
    let mut text = String::new();
    let all = [files.sst_bytes, files.log_bytes, files.manifest_bytes, files.other_bytes];
    let all = all.into_iter().fold(0, u64::saturating_add);
    writeln!(text, "{}   {} on disk", escape::path(&args.path), size(all))?;
    writeln!(
        text,
        "files        SSTs {} in {} of {}   log {} in {}   manifest {}   other {}",
        size(files.sst_bytes),
        counted(files.ssts, "file"),
        counted(files.stripes, "stripe"),
        size(files.log_bytes),
        counted(files.log_segments, "segment"),
        size(files.manifest_bytes),
        size(files.other_bytes),
    )?;
    writeln!(text, "{}", Runtime::line(runtime))?;
    if let Ok(Some(Runtime { snapshot, .. })) = runtime {
        writeln!(text, "\n{}", snapshot.stats.to_string().trim_end())?;
        writeln!(text, "\n{}", snapshot.latencies.to_string().trim_end())?;
    }
    Ok(text)
}

impl Files {
    #[expect(
        clippy::disallowed_methods,
        reason = "names and lengths only, while another process has it open"
    )]
    fn of(dir: &Path) -> Result<Self> {
        let failed = || format!("cannot list {}", dir.display());
        let mut files = Self::default();
        let mut stripes = std::collections::BTreeSet::new();
        for entry in std::fs::read_dir(dir).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            // The file may have been removed meanwhile.
            let Ok(len) = entry.metadata().map(|metadata| metadata.len()) else { continue };
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let segment = name.strip_prefix("wal-").and_then(|name| name.strip_suffix(".log"));
            let sst = name.strip_suffix(".sst").and_then(|name| name.split_once('-'));
            if segment.is_some_and(digits) {
                files.log_segments += 1;
                files.log_bytes = files.log_bytes.saturating_add(len);
            } else if let Some((stripe, id)) = sst
                && digits(stripe)
                && digits(id)
            {
                files.ssts += 1;
                files.sst_bytes = files.sst_bytes.saturating_add(len);
                stripes.insert(stripe.to_owned());
            } else if matches!(&*name, "MANIFEST" | "MANIFEST.tmp") {
                files.manifest_bytes = files.manifest_bytes.saturating_add(len);
            } else {
                files.other_bytes = files.other_bytes.saturating_add(len);
            }
        }
        files.stripes = stripes.len() as u64;
        Ok(files)
    }
}

impl Runtime {
    /// Returns `None` if no process writes them.
    pub(crate) fn read(args: &args::Database) -> Result<Option<Self>, Failure> {
        let path = args.path.join(StatsSnapshot::FILE);
        let bytes = match read_regular(&path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unreadable(&path, &e)),
        };
        let snapshot: Option<StatsSnapshot> = serde_json::from_slice(&bytes).ok();
        let snapshot = snapshot.filter(|snapshot| snapshot.schema == StatsSnapshot::SCHEMA);
        let snapshot = snapshot.ok_or_else(|| Failure {
            exit: exit::ENVIRONMENT,
            code: "unknown_stats",
            message: format!("{} is not in the format of this version", path.display()),
            hint: Some(
                "use the kstone of the version that has the database open; that program rewrites the file"
                    .into(),
            ),
        })?;
        let age_ms = unix_ms().checked_sub(snapshot.unix_ms);
        Ok(Some(Self { age_ms, running: is_open(args), snapshot }))
    }

    /// Describes how far the counters can be trusted.
    pub(crate) fn line(runtime: &Result<Option<Self>, Failure>) -> String {
        let Self { age_ms, running, snapshot } = match runtime {
            Ok(Some(runtime)) => runtime,
            Ok(None) => return "runtime counters: none (enable with_stats_snapshot_interval)".into(),
            Err(failure) => return format!("runtime counters: unknown, {}", escape::text(&failure.message)),
        };
        let age = age_ms.map_or_else(
            || "of unknown age, as their timestamp is in the future".into(),
            |age| format!("{} old", span(age)),
        );
        let (pid, up) = (snapshot.pid, span(snapshot.uptime_ms));
        match running {
            true => format!("runtime counters: {age} (pid {pid}), up {up}"),
            false => {
                format!("runtime counters: {age}, of a process that has ended (pid {pid}), up {up} then")
            }
        }
    }
}

/// Whether some process has the database open for writing.
pub(crate) fn is_open(args: &args::Database) -> bool {
    Database::is_locked(&args.path).unwrap_or(false)
}

#[expect(clippy::disallowed_methods, reason = "the age of a file, for display only")]
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a clock that was set back, figures of any age were shown as "0 s old".
    #[test]
    fn the_age_of_figures_from_the_future_is_unknown() {
        let snapshot = serde_json::json!({"schema": StatsSnapshot::SCHEMA, "pid": 7, "unix_ms": u64::MAX,
            "uptime_ms": 61_000, "stats": {}, "latencies": {}});
        let snapshot: StatsSnapshot = serde_json::from_value(snapshot).unwrap();
        let line =
            |age_ms| Runtime::line(&Ok(Some(Runtime { age_ms, running: true, snapshot: snapshot.clone() })));
        assert_eq!(line(Some(5_000)), "runtime counters: 5 s old (pid 7), up 1 m 1 s");
        assert_eq!(
            line(None),
            "runtime counters: of unknown age, as their timestamp is in the future (pid 7), up 1 m 1 s"
        );
    }
}
