//! `kstone stats --watch`: rates between two `STATS.json`, again and again.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Result;
use kstone_api::{LatencySummary, StatsSnapshot, escape};
use serde_json::{Value as Json, json};

use crate::args::{self, Format};
use crate::commands::stats::Runtime;
use crate::failure::{Failure, exit, typed};
use crate::interrupt::{Interrupt, Waited, ended};
use crate::output::{grouped, stdout, time};

/// How much of the past the bars show, and the most bars: a line must not wrap, or it could not be drawn over.
const HISTORY_MS: u64 = 60_000;
const MOST_BARS: usize = 40;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The failure when no program writes `STATS.json`, and what makes it do so.
pub(crate) fn none_written(args: &args::Database) -> Failure {
    let db = typed(&args.path);
    Failure {
        exit: exit::NO,
        code: "no_stats",
        message: format!("no program writes {} in {}", StatsSnapshot::FILE, escape::path(&args.path)),
        hint: Some(format!(
            "kstone config set {db} stats_snapshot_interval_ms=2s turns it on for the next program that opens it"
        )),
    }
}

pub(crate) fn run(args: &args::Database, interval: Duration, format: Format) -> Result<()> {
    if format == Format::Json {
        return Err(Failure::usage("--watch prints many results: use --format jsonl").into());
    }
    // A shorter one would do nothing but read the same file.
    let interval = interval.max(Duration::from_millis(10));
    let interrupt = Interrupt::watch()?;
    let in_place = format == Format::Table && std::io::stdout().is_terminal();
    let mut history = History::default();
    let mut drawn = 0;
    if matches!(Runtime::read(args), Ok(None)) {
        return Err(none_written(args).into());
    }
    loop {
        let read = Runtime::read(args);
        if let Ok(Some(runtime)) = &read {
            history.add(&runtime.snapshot);
        }
        if in_place && drawn > 0 {
            // Up to the first line of the last block, and clear to the end of the screen.
            write!(std::io::stdout(), "\x1b[{drawn}A\x1b[J")?;
        }
        let mut out = stdout(format);
        if format == Format::Table {
            let block = history.block(&Runtime::line(&read));
            drawn = block.lines().count();
            write!(out, "{block}")?;
        } else {
            writeln!(out, "{}", history.json(read.ok().flatten()))?;
        }
        out.flush()?;
        drop(out);
        match interrupt.wait(interval)? {
            Waited::Elapsed => {}
            Waited::Interrupted => return Err(ended().into()),
            Waited::Unread => return Ok(()),
        }
    }
}

/// The statistics of the last minute, oldest first.
#[derive(Default)]
struct History {
    snapshots: VecDeque<StatsSnapshot>,
}

/// An operation: its name, its total, and its latency.
type Operation = (&'static str, fn(&StatsSnapshot) -> u64, fn(&StatsSnapshot) -> LatencySummary);

const OPERATIONS: [Operation; 6] = [
    ("put", |s| s.stats.operations.puts, |s| s.latencies.put),
    ("get", |s| s.stats.operations.gets, |s| s.latencies.get),
    ("delete", |s| s.stats.operations.deletes, |s| s.latencies.delete),
    ("batch", |s| s.stats.operations.batches, |s| s.latencies.batch),
    ("query", |s| s.stats.operations.queries.saturating_add(s.stats.operations.scans), |s| s.latencies.query),
    ("flush", |s| s.stats.flushes, |s| s.latencies.flush),
];

impl History {
    fn add(&mut self, snapshot: &StatsSnapshot) {
        if let Some(last) = self.snapshots.back() {
            if last.pid == snapshot.pid && last.unix_ms == snapshot.unix_ms {
                return;
            }
            // Another program counts from zero.
            if last.pid != snapshot.pid || snapshot.uptime_ms < last.uptime_ms {
                self.snapshots.clear();
            }
        }
        self.snapshots.push_back(snapshot.clone());
        let oldest = snapshot.unix_ms.saturating_sub(HISTORY_MS);
        while self.snapshots.front().is_some_and(|first| first.unix_ms < oldest) {
            self.snapshots.pop_front();
        }
    }

    /// The rates per second between statistics and the next ones; the last is the current one.
    fn rates(&self, total: fn(&StatsSnapshot) -> u64) -> Vec<f64> {
        self.rates_by(total, 1)
    }

    /// The same between every `step`th.
    fn rates_by(&self, total: fn(&StatsSnapshot) -> u64, step: usize) -> Vec<f64> {
        let mut chosen: Vec<_> = self.snapshots.iter().rev().step_by(step).collect();
        chosen.reverse();
        let pairs = chosen.iter().zip(chosen.iter().skip(1));
        let rate = |(a, b): (&&StatsSnapshot, &&StatsSnapshot)| {
            let ms = b.uptime_ms.saturating_sub(a.uptime_ms).max(1);
            total(b).saturating_sub(total(a)) as f64 * 1e3 / ms as f64
        };
        pairs.map(rate).collect()
    }

    fn block(&self, line: &str) -> String {
        let mut text = format!("{line}\n");
        let Some(last) = self.snapshots.back() else { return text };
        // Writing to a string does not fail.
        let _ =
            writeln!(text, "{:8}{:>12}{:>12}{:>12}{:>12}{:>12}", "", "total", "per s", "p50", "p99", "max");
        for (name, total, latency) in OPERATIONS {
            let rate = self.rates(total).last().map_or("-".into(), |rate| grouped(rate.round() as u64));
            let LatencySummary { count, p50_nanos, p99_nanos, max_nanos, .. } = latency(last);
            let shown = |nanos| if count == 0 { "-".into() } else { time(nanos) };
            let (p50, p99, max) = (shown(p50_nanos), shown(p99_nanos), shown(max_nanos));
            let total = grouped(total(last));
            let _ = writeln!(text, "{name:8}{total:>12}{rate:>12}{p50:>12}{p99:>12}{max:>12}");
        }
        for (name, total, _) in OPERATIONS.iter().take(2) {
            let rates = self.rates_by(*total, self.snapshots.len().div_ceil(MOST_BARS).max(1));
            let most = rates.iter().copied().fold(0.0, f64::max);
            let _ = writeln!(text, "{name}s   {}   most {}/s", bars(&rates), grouped(most.round() as u64));
        }
        text
    }

    fn json(&self, runtime: Option<Runtime>) -> Json {
        let rates: serde_json::Map<String, Json> = OPERATIONS
            .iter()
            .map(|(name, total, _)| ((*name).to_owned(), json!(self.rates(*total).last())))
            .collect();
        json!({"schema": "kstone.watch/1", "per_second": rates, "runtime": runtime})
    }
}

/// A bar for each number, in proportion to the highest.
fn bars(numbers: &[f64]) -> String {
    let most = numbers.iter().copied().fold(0.0, f64::max);
    let bar = |number: &f64| {
        let eighths = if most > 0.0 { (number / most * 7.0).round() as usize } else { 0 };
        BARS.get(eighths).copied().unwrap_or('█')
    };
    numbers.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(unix_ms: u64, puts: u64) -> StatsSnapshot {
        let json = json!({"schema": StatsSnapshot::SCHEMA, "pid": 7, "unix_ms": unix_ms, "uptime_ms": unix_ms,
            "stats": {"operations": {"puts": puts}}, "latencies": {}});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn rates_are_those_between_statistics_of_the_last_minute() {
        let mut history = History::default();
        for (ms, puts) in [(0, 0), (1_000, 500), (1_000, 500), (3_000, 1_500), (64_000, 1_500)] {
            history.add(&snapshot(ms, puts));
        }
        let puts = OPERATIONS[0].1;
        assert_eq!(history.rates(puts), [] as [f64; 0]);
        history.add(&snapshot(65_000, 1_600));
        assert_eq!(history.rates(puts), [100.0]);
        // Bars for a minute, however often the program writes.
        let mut often = History::default();
        (0..=600).for_each(|n| often.add(&snapshot(n * 100, n * 10)));
        let block = often.block("");
        let line = block.lines().find(|line| line.starts_with("puts")).unwrap();
        assert_eq!(line, format!("puts   {}   most 100/s", "█".repeat(37)));
        // The counters of another program are not compared with these.
        history.add(&snapshot(10, 5));
        assert_eq!(history.snapshots.len(), 1);
        assert_eq!(bars(&[0.0, 50.0, 100.0]), "▁▅█");
    }
}
