//! `kstone-bench compare`: whether anything became slower. Exit status: 0 no, 1 yes, 2 the results cannot be compared.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use comfy_table::{Table, presets};

use crate::compare::{self, Compared, Comparison, Pairing, Verdict};
use crate::statistics::Summary;
use crate::{results, units};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Results to compare with.
    #[arg(value_name = "BASE.json")]
    base: PathBuf,
    /// Results to check.
    #[arg(value_name = "NEW.json", required_unless_present = "engines", conflicts_with = "engines")]
    new: Option<PathBuf>,
    /// Compare two engines of one file, trial by trial, the second with the first: `kstone,fjall`. The same engine twice
    /// compares every other trial with those between, which shows how far it differs from itself.
    #[arg(long, value_name = "FIRST,SECOND")]
    engines: Option<String>,
    /// A figure is a regression if it is worse by more than this, and by more than chance explains.
    #[arg(long, default_value = "5%", value_name = "PERCENT", value_parser = percent)]
    max_regress: f64,
    /// Compare results even if they come from different machines or build profiles.
    #[arg(long)]
    force: bool,
    /// Pair series of one engine under the same conditions even if its settings differ between the files: the effect of
    /// the settings.
    #[arg(long, conflicts_with = "engines")]
    across: bool,
}

/// `5%`, or `5`.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim_end().parse::<f64>();
    match number {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number / 100.0),
        _ => Err("expected a number of percent, such as 5%".to_owned()),
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match compared(args) {
        Ok(comparison) => {
            print(&comparison, args.max_regress);
            Ok(if comparison.regressed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        // Not 1: that status is for regressions.
        Err(error) => {
            eprintln!("kstone-bench: {error:#}");
            Ok(ExitCode::from(2))
        }
    }
}

fn compared(args: &Args) -> Result<Comparison> {
    let base = results::read(&args.base)?;
    match (&args.engines, &args.new) {
        (Some(engines), None) => compare::engines(&base, engines, args.max_regress),
        (None, Some(new)) => {
            let pairing = Pairing { force: args.force, across: args.across };
            compare::files(&base, &results::read(new)?, args.max_regress, pairing)
        }
        _ => bail!("expected either a second file or --engines"),
    }
}

fn print(comparison: &Comparison, limit: f64) {
    for rows in comparison.rows.chunk_by(|a, b| a.conditions == b.conditions) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["engine", "what", "base", "new", "new/base", "95 % interval", ""]);
        table.add_rows(rows.iter().map(cells));
        if let Some(row) = rows.first() {
            println!("{}\n{}\n", row.conditions, table.trim_fmt());
        }
    }
    for warning in &comparison.warnings {
        println!("warning: {warning}");
    }
    for failure in &comparison.failures {
        println!("FAILED: {failure}");
    }
    let slower = comparison.rows.iter().filter(|row| row.verdict == Verdict::Regression).count();
    let verdict = match (slower, comparison.failures.len()) {
        (0, 0) => "no regression".to_owned(),
        (0, failures) => format!("{failures} FAILED"),
        (slower, _) => format!("{slower} slower for real"),
    };
    println!("{verdict}: {} figures compared, limit {}", comparison.rows.len(), units::percent(limit));
}

fn cells(row: &Compared) -> [String; 7] {
    let summary = |summary: &Option<Summary>| {
        units::optional(summary.as_ref(), |summary| summary.text(|figure| row.metric.show(figure)))
    };
    let ratio = units::optional(row.ratio, |ratio| format!("{:.3}", ratio.value));
    let interval = row.ratio.and_then(|ratio| ratio.interval);
    let interval = units::optional(interval, |ends| format!("{:.3} … {:.3}", ends.low, ends.high));
    [
        row.label.clone(),
        row.metric.to_string(),
        summary(&row.base),
        summary(&row.new),
        ratio,
        interval,
        row.verdict.to_string(),
    ]
}
