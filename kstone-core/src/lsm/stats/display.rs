//! Renders the statistics as text.

use std::fmt;
use std::time::Duration;

use super::{EngineStats, ReadStats};
use crate::escape;

impl fmt::Display for EngineStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ops = &self.operations;
        let sum =
            |of: fn(&super::StripeStats) -> usize| self.stripes.iter().map(of).fold(0, usize::saturating_add);
        let (runs, ssts) = (sum(|s| s.runs), sum(|s| s.ssts));
        let most = self.stripes.iter().map(|s| s.runs).max().unwrap_or(0);
        writeln!(f, "open         {} s, last write {}", self.uptime_ms / 1000, self.last_seq)?;
        writeln!(f, "items        about {}", self.items_estimate)?;
        writeln!(
            f,
            "stripes      {} of {} in use, {runs} runs (most {most}), {ssts} SSTs, {:.1} a stripe",
            self.stripes.len(),
            self.stripe_count,
            self.ssts_per_stripe
        )?;
        writeln!(f, "SSTs         {}", size(self.sst_bytes))?;
        writeln!(f, "log          {} in {} segments", size(self.log_bytes), self.log_segments)?;
        writeln!(
            f,
            "memtables    {} records in {}",
            sum(|s| s.memtable_records),
            size(sum(|s| s.memtable_bytes) as u64)
        )?;
        writeln!(
            f,
            "writes       {} puts, {} deletes, {} batches, {}",
            ops.puts,
            ops.deletes,
            ops.batches,
            size(ops.user_bytes_written)
        )?;
        writeln!(
            f,
            "reads        {} gets, {} queries, {} scans, {} items of those (and {} entries passed over), {}",
            ops.gets,
            ops.queries,
            ops.scans,
            ops.entries_read,
            ops.entries_passed,
            size(ops.user_bytes_read)
        )?;
        self.fmt_gets(f)?;
        self.fmt_background(f)?;
        let a = &self.amplification;
        writeln!(
            f,
            "write amp    {} compaction, {} with flushes, {} with the log",
            times(a.write_compaction),
            times(a.write_tables),
            times(a.write_total)
        )?;
        writeln!(f, "read amp     {} runs a get, {} blocks", times(a.read_runs), times(a.read_blocks))?;
        writeln!(f, "space amp    {}", times(a.space))?;
        self.fmt_troubles(f)
    }
}

impl EngineStats {
    fn fmt_gets(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReadStats { memtable, sealed, runs, misses, .. } = &self.reads;
        let p99 = self.p99_read_nanos.map_or("not timed".into(), |nanos| time(nanos).to_string());
        writeln!(
            f,
            "gets ended   {memtable} in memtables, {sealed} in sealed ones, {} in runs, {} found nothing; p99 {p99}",
            total(runs),
            total(misses)
        )?;
        write!(f, "by runs     ")?;
        let by_runs = runs.iter().zip(misses).map(|(hits, misses)| hits.saturating_add(*misses)).enumerate();
        for (n, gets) in by_runs.filter(|&(_, gets)| gets > 0) {
            let more = if n + 1 == runs.len() { "+" } else { "" };
            write!(f, " {n}{more}: {gets}")?;
        }
        writeln!(f)
    }

    fn fmt_background(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "flushes      {}, {} written in {}",
            self.flushes,
            size(self.flush_bytes_written),
            time(self.flush_nanos)
        )?;
        writeln!(
            f,
            "compactions  {} of {} SSTs, {} read, {} written in {}, {} tombstones removed",
            self.compactions,
            self.ssts_merged,
            size(self.compaction_bytes_read),
            size(self.compaction_bytes_written),
            time(self.compaction_nanos),
            self.tombstones_removed
        )?;
        writeln!(f, "checkpoints  {} in {}", self.checkpoints, time(self.checkpoint_nanos))
    }

    fn fmt_troubles(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = &self.recovery;
        writeln!(
            f,
            "opened       {} in {}, {} records replayed ({}) in {}",
            if r.clean { "cleanly" } else { "after a crash" },
            time(r.open_nanos),
            r.replayed_records,
            size(r.replayed_bytes),
            time(r.replay_nanos)
        )?;
        if self.stalls.is_empty() {
            writeln!(f, "stalls       none")?;
        }
        for stall in &self.stalls {
            writeln!(
                f,
                "stalls       {} of {} in all, longest {}: {}",
                stall.count,
                time(stall.nanos),
                time(stall.longest_nanos),
                stall.reason.describe()
            )?;
        }
        if let Some(cause) = &self.poisoned {
            writeln!(f, "POISONED     {}", escape::text(cause))?;
        }
        if let Some(error) = &self.background_error {
            writeln!(f, "last error   {}", escape::text(error))?;
        }
        if !self.foreign_files.is_empty() {
            writeln!(f, "foreign      {}", escape::text(&self.foreign_files.join(", ")))?;
        }
        Ok(())
    }
}

/// Figures may come from a file, where they can have any value: sums saturate.
fn total(figures: &[u64]) -> u64 {
    figures.iter().copied().fold(0, u64::saturating_add)
}

fn time(nanos: u64) -> impl fmt::Display {
    format!("{:.1?}", Duration::from_nanos(nanos))
}

fn times(factor: Option<f64>) -> String {
    factor.map_or("-".into(), |factor| format!("{factor:.2}"))
}

fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.2} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_about_twenty_lines_without_trouble_and_names_what_is_wrong() {
        let mut stats = EngineStats::default();
        let lines = stats.to_string().lines().count();
        assert!((17..=22).contains(&lines), "{stats}");
        stats.poisoned = Some("a failed sync".into());
        stats.foreign_files = vec!["notes.txt".into()];
        let text = stats.to_string();
        assert!(text.contains("a failed sync") && text.contains("notes.txt"), "{text}");
        assert_eq!(
            (size(1023), size(1536), size(3 << 30)),
            ("1023 B".into(), "1.50 KiB".into(), "3.00 GiB".into())
        );
    }
}
