//! `kstone info`: an overview on one screen, from the manifest, the log and the directory.

use std::fmt::Write as _;

use anyhow::Result;
use kstone_api::{CompactionConfig, Database, DiskUsage, EngineStats, PendingRewrite, escape};
use serde::Serialize;

use crate::args::{self, Format};
use crate::commands::advise::Figures;
use crate::commands::stats::Runtime;
use crate::commands::{damage, open_to_look};
use crate::failure::Failure;
use crate::output::{counted, grouped, print_result, size};

#[derive(Serialize)]
struct Info<'a> {
    schema: &'static str,
    path: String,
    damage: Vec<&'a str>,
    warnings: &'a [String],
    disk: &'a DiskUsage,
    pending_rewrites: &'a [PendingRewrite],
    #[serde(flatten)]
    stats: &'a EngineStats,
}

pub(crate) fn run(args: &args::Database, format: Format) -> Result<()> {
    let db = open_to_look(args)?;
    let stats = db.stats()?;
    let (disk, pending) = (db.disk_usage()?, db.pending_rewrites()?);
    let damage = damage(&db);
    // What a file of counters that cannot be read has to say, `kstone stats` tells.
    let runtime = Runtime::read(args).ok().flatten();
    let advice = Figures::with(stats.clone(), disk, &db, runtime.as_ref()).situation().advise();
    let advised = !advice.is_empty();
    let causes = advice.into_iter().map(|advice| advice.cause);
    let warnings: Vec<String> = causes.chain(foreign_files(&stats)).collect();
    let mut text = screen(args, &db, &stats, &disk, &pending)?;
    for failure in &damage {
        writeln!(text, "  damage       {}", escape::text(&failure.message))?;
    }
    let count = counted(warnings.len() as u64, "warning");
    match (&*warnings, &*damage) {
        ([], []) => writeln!(text, "  health       good")?,
        ([], _) => writeln!(text, "  health       damaged")?,
        (_, []) => writeln!(text, "  health       {count}")?,
        _ => writeln!(text, "  health       damaged, {count}")?,
    }
    for warning in &warnings {
        writeln!(text, "               {}", escape::text(warning))?;
    }
    if advised {
        writeln!(text, "  next         kstone advise {}", escape::shell_word(&args.path))?;
    }
    let info = Info {
        schema: "kstone.info/1",
        path: args.path.display().to_string(),
        damage: damage.iter().map(|failure| failure.message.as_str()).collect(),
        warnings: &warnings,
        disk: &disk,
        pending_rewrites: &pending,
        stats: &stats,
    };
    print_result(format, text.trim_end(), info)?;
    Failure::all(damage)
}

fn screen(
    args: &args::Database,
    db: &Database,
    stats: &EngineStats,
    disk: &DiskUsage,
    pending: &[PendingRewrite],
) -> Result<String> {
    let mut text = String::new();
    writeln!(
        text,
        "{}   KeystoneDB format {}   {}",
        escape::path(&args.path),
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
        writeln!(text, "  pending      {setting}: {files}, {}, until they are merged", size(*bytes))?;
    }
    Ok(text)
}

/// What writes survive by default.
fn durability(config: &kstone_api::DatabaseConfig) -> String {
    match config.sync_interval {
        interval if interval.is_zero() => "buffered, never synced in the background".into(),
        interval => format!("buffered by default, synced every {interval:?}"),
    }
}

fn ssts_line(stats: &EngineStats, compaction: &CompactionConfig) -> String {
    let all: usize = stats.stripes.iter().map(|stripe| stripe.ssts).sum();
    let mut runs: Vec<usize> = stats.stripes.iter().map(|stripe| stripe.runs).collect();
    // Empty stripes are not listed.
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

/// Foreign files, which no setting is about.
fn foreign_files(stats: &EngineStats) -> Option<String> {
    // A repair keeps the original files there.
    let foreign: Vec<_> = stats.foreign_files.iter().filter(|name| *name != "quarantine").collect();
    (!foreign.is_empty()).then(|| {
        let count = counted(foreign.len() as u64, "foreign file");
        let named: Vec<_> = foreign.iter().take(5).map(|name| name.as_str()).collect();
        let more = if foreign.len() > named.len() { ", ..." } else { "" };
        format!("{count}: {}{more}", named.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_files_are_named_but_not_what_a_repair_keeps() {
        let mut stats: EngineStats = serde_json::from_str("{}").unwrap();
        assert_eq!(foreign_files(&stats), None);
        stats.foreign_files = vec!["quarantine".into()];
        assert_eq!(foreign_files(&stats), None);
        stats.foreign_files.push("notes.txt".into());
        assert_eq!(foreign_files(&stats).unwrap(), "1 foreign file: notes.txt");
        stats.foreign_files.extend(["a", "b", "c", "d", "e"].map(String::from));
        assert_eq!(foreign_files(&stats).unwrap(), "6 foreign files: notes.txt, a, b, c, d, ...");
    }
}
