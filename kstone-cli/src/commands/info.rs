//! `kstone info`: one screen, from the manifest, the log and the directory.

use std::fmt::Write as _;

use anyhow::Result;
use kstone_api::{CompactionConfig, Database, DiskUsage, EngineStats, PendingRewrite};
use serde::Serialize;

use crate::args::{self, Format};
use crate::commands::open_to_read;
use crate::output::{counted, grouped, print_result, size};

#[derive(Serialize)]
struct Info<'a> {
    schema: &'static str,
    path: String,
    warnings: &'a [String],
    disk: &'a DiskUsage,
    pending_rewrites: &'a [PendingRewrite],
    #[serde(flatten)]
    stats: &'a EngineStats,
}

pub(crate) fn run(args: &args::Database, format: Format) -> Result<()> {
    let db = open_to_read(args)?;
    let stats = db.stats()?;
    let (disk, pending) = (db.disk_usage()?, db.pending_rewrites()?);
    let warnings = warnings(&stats, &db.compaction_config());
    let text = screen(args, &db, &stats, &disk, &pending, &warnings)?;
    let path = args.path.display().to_string();
    let info = Info {
        schema: "kstone.info/1",
        path,
        warnings: &warnings,
        disk: &disk,
        pending_rewrites: &pending,
        stats: &stats,
    };
    print_result(format, text.trim_end(), info)
}

fn screen(
    args: &args::Database,
    db: &Database,
    stats: &EngineStats,
    disk: &DiskUsage,
    pending: &[PendingRewrite],
    warnings: &[String],
) -> Result<String> {
    let mut text = String::new();
    writeln!(
        text,
        "{}   KeystoneDB format {}   {}",
        args.path.display(),
        stats.format_version,
        counted(stats.stripe_count as u64, "stripe")
    )?;
    writeln!(
        text,
        "  items        ~ {}   (estimate, older versions included; exact: kstone count)",
        grouped(stats.items_estimate)
    )?;
    writeln!(
        text,
        "  disk         {}{}     sst {}   wal {} in {}   other {}",
        size(disk.used),
        disk.limit.map(|limit| format!(" of {} limit", size(limit))).unwrap_or_default(),
        size(disk.ssts),
        size(disk.log),
        counted(stats.log_segments as u64, "segment"),
        size(disk.manifest + disk.other),
    )?;
    writeln!(text, "  SSTs         {}", ssts_line(stats, &db.compaction_config()))?;
    let memtables: u64 = stats.stripes.iter().map(|stripe| stripe.memtable_records as u64).sum();
    writeln!(text, "  not flushed  {}, only in the log", counted(memtables, "record"))?;
    writeln!(text, "  durability   {}", durability(&db.config()))?;
    for PendingRewrite { setting, ssts, bytes, .. } in pending {
        let files = counted(*ssts, "SST");
        writeln!(text, "  not yet so   {setting}: {files}, {}, until they are merged", size(*bytes))?;
    }
    match warnings {
        [] => writeln!(text, "  health       good")?,
        some => {
            writeln!(text, "  health       {}   {}", counted(some.len() as u64, "warning"), some.join("; "))?
        }
    }
    Ok(text)
}

/// What writes survive when they do not ask for more.
fn durability(config: &kstone_api::DatabaseConfig) -> String {
    match config.sync_interval {
        interval if interval.is_zero() => "buffered, never synced in the background".into(),
        interval => format!("buffered by default, synced every {interval:?}"),
    }
}

fn ssts_line(stats: &EngineStats, compaction: &CompactionConfig) -> String {
    let all: usize = stats.stripes.iter().map(|stripe| stripe.ssts).sum();
    let mut runs: Vec<usize> = stats.stripes.iter().map(|stripe| stripe.runs).collect();
    // Stripes that hold nothing are not listed.
    runs.resize(stats.stripe_count.max(runs.len()), 0);
    runs.sort_unstable();
    let median = runs.get(runs.len() / 2).copied().unwrap_or_default();
    let worst = stats.stripes.iter().max_by_key(|stripe| stripe.runs);
    let worst = worst.map(|stripe| format!(", worst {} (stripe {:03})", stripe.runs, stripe.stripe));
    let threshold = match compaction.enabled {
        true => format!("threshold {}", compaction.sst_threshold),
        false => "compaction is off".into(),
    };
    format!(
        "{}     runs: median {median} per stripe{}, {threshold}",
        grouped(all as u64),
        worst.unwrap_or_default()
    )
}

fn warnings(stats: &EngineStats, compaction: &CompactionConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    let over = stats.stripes.iter().filter(|stripe| stripe.runs >= compaction.sst_threshold).count();
    if over > 0 {
        warnings.push(format!("{} at or over the compaction threshold", counted(over as u64, "stripe")));
    }
    if !stats.foreign_files.is_empty() {
        warnings.push(counted(stats.foreign_files.len() as u64, "foreign file"));
    }
    if let Some(error) = &stats.background_error {
        warnings.push(format!("background work failed: {error}"));
    }
    if let Some(cause) = &stats.poisoned {
        warnings.push(format!("writes stopped: {cause}"));
    }
    warnings
}
