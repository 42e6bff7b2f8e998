//! `kstone info`: an overview on one screen, from the manifest, the log and the directory.

use std::fmt::Write as _;

use anyhow::Result;
use kstone_api::{
    CompactionConfig, Database, DiskUsage, EngineStats, FreeSpace, PendingRewrite, StripeStats, escape,
    free_space,
};
use serde::Serialize;

use crate::args::{self, Format};
use crate::commands::{damage, open_to_read};
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
    let db = open_to_read(args)?;
    let stats = db.stats()?;
    let (disk, pending) = (db.disk_usage()?, db.pending_rewrites()?);
    let damage = damage(&db);
    let vitals = Vitals {
        stats: &stats,
        disk: &disk,
        sst_threshold: db.compaction_config().sst_threshold,
        log_limit: db.config().wal_limit_bytes(),
        // If the file system cannot be queried, the rest is shown all the same.
        free: free_space(&args.path).ok(),
    };
    let warnings = vitals.warnings();
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

/// The inputs of the health rules.
struct Vitals<'a> {
    stats: &'a EngineStats,
    disk: &'a DiskUsage,
    sst_threshold: usize,
    log_limit: u64,
    free: Option<FreeSpace>,
}

/// Fewer entries than this are too few to judge hot stripes or the share of tombstones.
const FEW_ENTRIES: u64 = 1000;
/// A file system with less free space than this may cause a warning.
const LITTLE_SPACE: u64 = 256 << 20;

/// Rounded down, so that 100 % means all of it.
fn percent(part: u64, of: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(of.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

impl Vitals<'_> {
    /// One line for each violated rule, with its figure.
    fn warnings(&self) -> Vec<String> {
        let Self { stats, .. } = self;
        let rules = [self.runs(), self.tombstones(), self.hot_stripe(), self.quota(), self.log()];
        let mut warnings: Vec<String> = rules.into_iter().flatten().chain(self.free_space()).collect();
        if let Some(error) = &stats.background_error {
            warnings.push(format!("background work failed: {error}"));
        }
        if let Some(cause) = &stats.poisoned {
            warnings.push(format!("writes stopped: {cause}"));
        }
        // A repair keeps the original files there.
        let foreign: Vec<_> = stats.foreign_files.iter().filter(|name| *name != "quarantine").collect();
        if !foreign.is_empty() {
            let count = counted(foreign.len() as u64, "foreign file");
            let named: Vec<_> = foreign.iter().take(5).map(|name| name.as_str()).collect();
            let more = if foreign.len() > named.len() { ", ..." } else { "" };
            warnings.push(format!("{count}: {}{more}", named.join(", ")));
        }
        warnings
    }

    fn runs(&self) -> Option<String> {
        let runs = || self.stats.stripes.iter().map(|stripe| stripe.runs);
        let over = runs().filter(|&runs| runs >= self.sst_threshold).count() as u64;
        let most = runs().max().unwrap_or_default();
        (over > 0).then(|| {
            let stripes = counted(over, "stripe");
            format!(
                "{stripes} at or over the compaction threshold of {}, at most {most} runs",
                self.sst_threshold
            )
        })
    }

    /// Counts the entries of all SSTs; unlike `hot_stripe`, without memtables.
    fn tombstones(&self) -> Option<String> {
        let sum =
            |of: fn(&StripeStats) -> u64| self.stats.stripes.iter().map(of).fold(0, u64::saturating_add);
        let (tombstones, entries) = (sum(|stripe| stripe.tombstones), sum(|stripe| stripe.entries));
        let share = percent(tombstones, entries);
        (tombstones >= FEW_ENTRIES / 10 && share >= 50).then(|| {
            format!("{share} % of the entries in SSTs are tombstones, {} of them", grouped(tombstones))
        })
    }

    fn hot_stripe(&self) -> Option<String> {
        let entries = |stripe: &StripeStats| stripe.entries.saturating_add(stripe.memtable_records as u64);
        let all = self.stats.stripes.iter().map(entries).fold(0, u64::saturating_add);
        let hottest = self.stats.stripes.iter().max_by_key(|stripe| entries(stripe))?;
        let share = percent(entries(hottest), all);
        // With few stripes, a quarter is the fair share of each.
        let even = percent(1, self.stats.stripe_count as u64);
        (all >= FEW_ENTRIES && share >= 25 && share >= 4 * even)
            .then(|| format!("stripe {:03} is hot: {share} % of the entries are in it", hottest.stripe))
    }

    fn quota(&self) -> Option<String> {
        let limit = self.disk.limit?;
        let share = percent(self.disk.used.saturating_add(self.disk.reserved), limit);
        let word = if share >= 100 { "reached" } else { "nearly reached" };
        let (used, reserved) = (size(self.disk.used), size(self.disk.reserved));
        (share >= 90).then(|| {
            format!(
                "the quota is {word}: {used} used and {reserved} reserved are {share} % of {}",
                size(limit)
            )
        })
    }

    fn log(&self) -> Option<String> {
        let share = percent(self.stats.log_bytes, self.log_limit);
        (self.log_limit > 0 && share >= 90)
            .then(|| format!("the log has {}, {share} % of its limit", size(self.stats.log_bytes)))
    }

    fn free_space(&self) -> Option<String> {
        let FreeSpace { bytes, of_bytes, inodes } = self.free?;
        if inodes == Some(0) {
            return Some("the file system has no inodes left".into());
        }
        let share = percent(bytes, of_bytes);
        let short = bytes == 0 || bytes < LITTLE_SPACE && share < 5;
        short.then(|| format!("the file system is nearly full: {} free, {share} % of it", size(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symptom: `info` printed "health good" with the quota reached, 98 % tombstones, one hot stripe or a full disk.
    /// Cause: it only checked the number of runs and foreign files.
    /// Fix: a rule for each, which prints its figure.
    #[test]
    fn each_rule_of_health_fires_with_its_figure() {
        let stripe = |stripe, runs, entries, tombstones| {
            let json = serde_json::json!({
                "stripe": stripe, "runs": runs, "entries": entries, "tombstones": tombstones,
            });
            serde_json::from_value::<StripeStats>(json).unwrap()
        };
        let calm = || {
            let mut stats = serde_json::from_str::<EngineStats>("{}").unwrap();
            stats.stripe_count = 256;
            stats.stripes = (0..256).map(|n| stripe(n, 1, 100, 10)).collect();
            stats
        };
        let check = |stats: &EngineStats, disk: &DiskUsage, free, expected: &[&str]| {
            let vitals = Vitals { stats, disk, sst_threshold: 10, log_limit: 1000, free };
            assert_eq!(vitals.warnings(), expected);
        };
        let none = DiskUsage::default();
        check(&calm(), &none, None, &[]);
        let mut stats = calm();
        stats.stripes[3].runs = 19;
        stats.stripes[4].runs = 10;
        check(&stats, &none, None, &["2 stripes at or over the compaction threshold of 10, at most 19 runs"]);
        let mut stats = calm();
        stats.stripes.iter_mut().for_each(|stripe| stripe.tombstones = 98);
        check(&stats, &none, None, &["98 % of the entries in SSTs are tombstones, 25,088 of them"]);
        let mut stats = calm();
        stats.stripes[74].entries = 25_500;
        check(&stats, &none, None, &["stripe 074 is hot: 50 % of the entries are in it"]);
        let mut stats = calm();
        stats.log_bytes = 950;
        check(&stats, &none, None, &["the log has 950 B, 95 % of its limit"]);
        let mut stats = calm();
        stats.foreign_files = vec!["quarantine".into()];
        check(&stats, &none, None, &[]);
        stats.foreign_files.push("notes.txt".into());
        check(&stats, &none, None, &["1 foreign file: notes.txt"]);
        // The figures of damaged files may add up to anything.
        let mut stats = calm();
        stats
            .stripes
            .iter_mut()
            .for_each(|stripe| (stripe.entries, stripe.tombstones) = (u64::MAX, u64::MAX));
        let vitals = Vitals { stats: &stats, disk: &none, sst_threshold: 10, log_limit: 0, free: None };
        assert_eq!(vitals.warnings().len(), 2);
        let mut disk = none;
        (disk.used, disk.reserved, disk.limit) = (60 << 10, 35 << 10, Some(100 << 10));
        check(
            &calm(),
            &disk,
            None,
            &["the quota is nearly reached: 60.0 KiB used and 35.0 KiB reserved are 95 % of 100.0 KiB"],
        );
        disk.used = 65 << 10;
        check(
            &calm(),
            &disk,
            None,
            &["the quota is reached: 65.0 KiB used and 35.0 KiB reserved are 100 % of 100.0 KiB"],
        );
    }

    #[test]
    fn a_full_file_system_is_told() {
        let stats = serde_json::from_str("{}").unwrap();
        let told = |bytes: u64, of_bytes: u64, inodes| {
            let free = FreeSpace { bytes, of_bytes, inodes };
            let disk = DiskUsage::default();
            Vitals { stats: &stats, disk: &disk, sst_threshold: 10, log_limit: 0, free: Some(free) }
                .warnings()
        };
        assert_eq!(told(10 << 30, 100 << 30, None), [""; 0]);
        assert_eq!(told(100 << 20, 200 << 20, Some(7)), [""; 0]);
        assert_eq!(told(10 << 30, 100 << 30, Some(0)), ["the file system has no inodes left"]);
        assert_eq!(
            told(1 << 20, 100 << 20, None),
            ["the file system is nearly full: 1.0 MiB free, 1 % of it"]
        );
    }
}
