//! `kstone stripes`: a map of all stripes, the worst of them, or the files of one.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::Result;
use clap::builder::styling::{AnsiColor, Style};
use kstone_api::inspect::{SstMeta, sst_name};
use kstone_api::{Database, escape};
use serde::Serialize;

use crate::args::{Format, Measure, StripesArgs};
use crate::commands::stats::unix_ms;
use crate::commands::{damage, draws_unicode, open_to_look};
use crate::failure::Failure;
use crate::output::{grouped, print_list, print_table, short, size, span, stdout, tell, typed_key};

const COLUMNS: usize = 16;
/// Stripes named in a row, or in the summary; more are counted.
const NAMED_IN_ROW: usize = 2;
const NAMED: usize = 8;

#[derive(Clone, Default, Serialize)]
struct Stripe {
    stripe: usize,
    runs: usize,
    ssts: usize,
    bytes: u64,
    entries: u64,
    tombstones: u64,
    memtable_records: u64,
    /// Age of the oldest SST.
    age_seconds: u64,
    over_threshold: bool,
}

impl Stripe {
    fn measured(&self, by: Measure) -> u64 {
        match by {
            Measure::Ssts => self.ssts as u64,
            Measure::Runs => self.runs as u64,
            Measure::Bytes => self.bytes,
            Measure::Items => {
                self.entries.saturating_sub(self.tombstones).saturating_add(self.memtable_records)
            }
            Measure::Tombstones => self.tombstones,
            Measure::Age => self.age_seconds,
        }
    }
}

/// All stripes, and the number of runs at which they are compacted.
struct Map {
    stripes: Vec<Stripe>,
    /// `None`: compaction is off.
    threshold: Option<usize>,
}

pub(crate) fn run(args: &StripesArgs, format: Format) -> Result<()> {
    let db = open_to_look(&args.db)?;
    let ssts = db.engine().ssts()?;
    if let Some(stripe) = args.stripe {
        one(&db, &ssts, stripe, format)?;
    } else {
        let map = Map::of(&db, &ssts)?;
        match (format, args.top) {
            (Format::Table, None) => map.draw(args)?,
            (Format::Table, Some(top)) => map.table(&map.worst(args.by, top))?,
            (_, None) => print_list(format, "kstone.stripes/1", "stripes", &map.stripes)?,
            (_, Some(top)) => print_list(format, "kstone.stripes/1", "stripes", &map.worst(args.by, top))?,
        }
    }
    Failure::all(damage(&db))
}

impl Map {
    fn of(db: &Database, ssts: &[Arc<SstMeta>]) -> Result<Self> {
        let stats = db.stats()?;
        let compaction = db.compaction_config();
        let threshold = compaction.enabled.then_some(compaction.sst_threshold);
        let mut stripes = vec![Stripe::default(); stats.stripe_count];
        (stripes.iter_mut().zip(0..)).for_each(|(stripe, n)| stripe.stripe = n);
        for found in &stats.stripes {
            if let Some(stripe) = stripes.get_mut(found.stripe) {
                (stripe.runs, stripe.ssts, stripe.bytes) = (found.runs, found.ssts, found.sst_bytes);
                (stripe.entries, stripe.tombstones) = (found.entries, found.tombstones);
                stripe.memtable_records = found.memtable_records as u64;
                stripe.over_threshold = threshold.is_some_and(|threshold| found.runs >= threshold);
            }
        }
        let now = unix_ms();
        for sst in ssts {
            if let Some(stripe) = stripes.get_mut(usize::from(sst.stripe)) {
                let age = now.saturating_sub(sst.created_ms) / 1000;
                stripe.age_seconds = stripe.age_seconds.max(age);
            }
        }
        Ok(Self { stripes, threshold })
    }

    /// The stripes with the most, the worst first.
    fn worst(&self, by: Measure, top: usize) -> Vec<Stripe> {
        let mut worst: Vec<_> =
            self.stripes.iter().filter(|stripe| stripe.measured(by) > 0).cloned().collect();
        worst.sort_by_key(|stripe| (std::cmp::Reverse(stripe.measured(by)), stripe.stripe));
        worst.truncate(top);
        worst
    }

    fn table(&self, stripes: &[Stripe]) -> Result<()> {
        let rows: Vec<_> = stripes
            .iter()
            .map(|stripe| {
                [
                    format!("{:03}", stripe.stripe),
                    grouped(stripe.ssts as u64),
                    grouped(stripe.runs as u64),
                    size(stripe.bytes),
                    grouped(stripe.measured(Measure::Items)),
                    grouped(stripe.tombstones),
                    if stripe.ssts > 0 {
                        span(stripe.age_seconds.saturating_mul(1000))
                    } else {
                        String::new()
                    },
                    if stripe.over_threshold { "at or over the threshold".into() } else { String::new() },
                ]
            })
            .collect();
        print_table(["STRIPE", "SSTS", "RUNS", "SIZE", "ITEMS", "TOMBSTONES", "OLDEST", ""], &rows)
    }

    fn draw(&self, args: &StripesArgs) -> Result<()> {
        let by = args.by;
        let unicode = draws_unicode(args.drawing);
        let (empty, arrow) = if unicode { ("·", "←") } else { (".", "<-") };
        let values: Vec<u64> = self.stripes.iter().map(|stripe| stripe.measured(by)).collect();
        let most = values.iter().copied().max().unwrap_or(0);
        let width = values.iter().map(|&value| cell(by, value).len()).max().unwrap_or(1).max(2) + 1;
        let mut out = stdout(Format::Table);
        writeln!(out, "{} per stripe   row: its first stripe, column: + offset (hex)", title(by))?;
        let columns: String =
            (0..COLUMNS.min(values.len())).map(|n| format!("{:>width$}", format!("+{n:X}"))).collect();
        writeln!(out, "     {columns}")?;
        for (row, stripes) in self.stripes.chunks(COLUMNS).enumerate() {
            write!(out, "  {:03}", row * COLUMNS)?;
            for stripe in stripes {
                let value = stripe.measured(by);
                let text = if value == 0 { empty.to_owned() } else { cell(by, value) };
                write!(out, "{:space$}", "", space = width.saturating_sub(text.chars().count()))?;
                out.write_styled(shade(value, most, stripe.over_threshold), &text)?;
            }
            let over: Vec<&Stripe> = stripes.iter().filter(|stripe| stripe.over_threshold).collect();
            if !over.is_empty() && matches!(by, Measure::Ssts | Measure::Runs) {
                write!(out, "   {arrow} {}", names(&over, NAMED_IN_ROW))?;
            }
            writeln!(out)?;
        }
        writeln!(out, "\n{}", self.summary(by, &values))?;
        out.flush()?;
        let over: Vec<_> = self.stripes.iter().filter(|stripe| stripe.over_threshold).collect();
        let db = escape::path(&args.db.path);
        match over.as_slice() {
            [] => {}
            [one] => tell(format_args!("next: kstone compact {db} --stripe {}", one.stripe)),
            _ => tell(format_args!("next: kstone compact {db}")),
        }
        Ok(())
    }

    fn summary(&self, by: Measure, values: &[u64]) -> String {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let at =
            |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)));
        let shown = |value: Option<&u64>| exact(by, value.copied().unwrap_or(0));
        let worst = self.stripes.iter().rev().max_by_key(|stripe| stripe.measured(by));
        let mut text = match by {
            Measure::Age => String::new(),
            _ => {
                let sum = values.iter().copied().fold(0, u64::saturating_add);
                format!("{} in all   ", exact(by, sum))
            }
        };
        text += &format!("median {}   p99 {}   max {}", shown(at(50)), shown(at(99)), shown(sorted.last()));
        if let Some(worst) = worst.filter(|worst| worst.measured(by) > 0) {
            text += &format!(" ({:03})", worst.stripe);
        }
        let empty = values.iter().filter(|&&value| value == 0).count();
        if empty > 0 {
            text += &format!("   empty {empty}");
        }
        let over: Vec<_> = self.stripes.iter().filter(|stripe| stripe.over_threshold).collect();
        match self.threshold {
            None => text += "\ncompaction is off",
            Some(threshold) if over.is_empty() => {
                text += &format!("\nno stripe is at its threshold of {threshold} runs");
            }
            Some(threshold) => {
                let count = over.len();
                text += &format!(
                    "\nat or over the threshold of {threshold} runs: {count}: {}",
                    names(&over, NAMED)
                );
            }
        }
        text
    }
}

fn names(stripes: &[&Stripe], most: usize) -> String {
    let named: Vec<_> = stripes.iter().take(most).map(|stripe| format!("{:03}", stripe.stripe)).collect();
    match stripes.len().saturating_sub(most) {
        0 => named.join(" "),
        more => format!("{} +{more}", named.join(" ")),
    }
}

fn title(by: Measure) -> &'static str {
    match by {
        Measure::Ssts => "SSTs",
        Measure::Runs => "runs",
        Measure::Bytes => "bytes",
        Measure::Items => "items",
        Measure::Tombstones => "tombstones",
        Measure::Age => "age of the oldest",
    }
}

/// A value in at most three characters.
fn cell(by: Measure, value: u64) -> String {
    if by != Measure::Age {
        return short(value);
    }
    match value {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86_400 => format!("{}h", s / 3600),
        s @ 86_400..8_640_000 => format!("{}d", s / 86_400),
        s => format!("{}y", (s / 31_557_600).min(99)),
    }
}

fn exact(by: Measure, value: u64) -> String {
    match by {
        Measure::Age => span(value.saturating_mul(1000)),
        Measure::Bytes => size(value),
        _ => grouped(value),
    }
}

/// The more, the more conspicuous.
fn shade(value: u64, most: u64, over: bool) -> Style {
    let style = Style::new();
    if over {
        return style.bold().fg_color(Some(AnsiColor::Red.into()));
    }
    match value.saturating_mul(4) / most.max(1) {
        0 => style.dimmed(),
        1 | 2 => style,
        _ => style.bold(),
    }
}

/// Prints the files of a stripe, the newest run first.
fn one(db: &Database, ssts: &[Arc<SstMeta>], stripe: usize, format: Format) -> Result<()> {
    let count = db.engine().stripe_count();
    if stripe >= count {
        let message = format!("there is no stripe {stripe}; stripes are 0 to {}", count.saturating_sub(1));
        return Err(Failure::usage(message).into());
    }
    let of_it = ssts.iter().filter(|sst| usize::from(sst.stripe) == stripe);
    let files: Vec<StripeFile> = of_it.map(|sst| StripeFile::of(sst)).collect();
    if format != Format::Table {
        return print_list(format, "kstone.stripe/1", "files", &files);
    }
    let rows: Vec<_> = files
        .iter()
        .map(|file| {
            [
                file.name.clone(),
                file.depth.to_string(),
                grouped(file.entries),
                grouped(file.tombstones),
                size(file.bytes),
                span(file.age_seconds.saturating_mul(1000)),
                format!("{}-{}", file.first_seq, file.last_seq),
                format!("{} ... {}", file.first_key, file.last_key),
            ]
        })
        .collect();
    print_table(["FILE", "DEPTH", "ENTRIES", "TOMBSTONES", "SIZE", "AGE", "SEQUENCES", "KEYS"], &rows)
}

#[derive(Serialize)]
struct StripeFile {
    name: String,
    run: u64,
    depth: u32,
    entries: u64,
    tombstones: u64,
    bytes: u64,
    age_seconds: u64,
    first_seq: u64,
    last_seq: u64,
    first_key: String,
    last_key: String,
}

impl StripeFile {
    fn of(sst: &SstMeta) -> Self {
        Self {
            name: sst_name(sst),
            run: sst.run,
            depth: sst.depth,
            entries: sst.entries,
            tombstones: sst.tombstones,
            bytes: sst.len,
            age_seconds: unix_ms().saturating_sub(sst.created_ms) / 1000,
            first_seq: sst.seq.0,
            last_seq: sst.seq.1,
            first_key: typed_key(&sst.keys.0),
            last_key: typed_key(&sst.keys.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_three_characters() {
        for power in 0..64 {
            for by in [Measure::Ssts, Measure::Bytes, Measure::Age] {
                for value in [1u64 << power, (1u64 << power) - 1] {
                    assert!((1..=3).contains(&cell(by, value).len()), "{by:?} {value}");
                }
            }
        }
        assert_eq!(
            [59, 3599, 86_399, 8_639_999].map(|s| cell(Measure::Age, s)),
            ["59s", "59m", "23h", "99d"]
        );
    }
}
