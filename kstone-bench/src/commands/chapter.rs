//! `kstone-bench chapter`: measures the tables of the specification's chapter on performance tuning.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use super::measure::{TableArgs, begin, save};
use crate::chapter::{self, ChapterOptions, ChapterTable, Grade, Measured, Scale};
use crate::record::RunFile;
use crate::report::{chapter_markdown, chapter_text};

/// The width of a printed table, in columns.
const WIDTH: u16 = 150;

#[derive(Args, Debug)]
pub(crate) struct ChapterArgs {
    /// Only these tables, by name, or all of a section: `23.1-throughput,23.3`.
    #[arg(long, value_delimiter = ',', value_name = "TABLE")]
    only: Vec<String>,
    /// How much to measure: `quick` is one trial with 16 stripes, in a few minutes; `full` is five trials with 256.
    #[arg(long, default_value = "quick", value_name = "SCALE")]
    scale: String,
    /// Trials of each measurement, instead of the scale's number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=99))]
    trials: Option<u64>,
    #[command(flatten)]
    common: TableArgs,
}

pub(crate) fn run(args: &ChapterArgs) -> Result<ExitCode> {
    if args.common.list {
        chapter::list()?.iter().for_each(|(id, about)| println!("{id:<24} {about}"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut scale = Scale::named(&args.scale)?;
    if let Some(trials) = args.trials {
        scale.trials = trials as usize;
    }
    let options = ChapterOptions {
        only: args.only.clone(),
        scale,
        directory: args.common.directory(),
        program: std::env::current_exe().context("cannot find the path of this program")?,
    };
    let file = begin(&options.directory)?;
    let outcome = chapter::run(&options, &mut |what| eprintln!("  {what}"), &mut |table| {
        println!("{}", chapter_text(table, WIDTH));
    })?;
    println!("{}", summary(&outcome.tables));
    args.common.save_markdown(&outcome.tables, chapter_markdown)?;
    if let Some(path) = &args.common.out {
        save(&RunFile { trials: outcome.trials, chapter: Some(outcome.tables.clone()), ..file }, path)?;
    }
    let failed = outcome.tables.iter().any(|table| table.error.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The number of each verdict and grade, and the failures.
fn summary(tables: &[ChapterTable]) -> String {
    let groups = || tables.iter().flat_map(|table| &table.groups);
    let lines = || groups().flat_map(|group| &group.lines);
    let shapes = |holds| {
        groups().filter_map(|group| group.shape.as_ref()).filter(|shape| shape.holds == holds).count()
    };
    let grades = |wanted: &Grade| lines().filter(|line| line.grade.as_ref() == Some(wanted)).count();
    let absent = lines().filter(|line| matches!(line.measured, Measured::NotHere(_))).count();
    let seconds: f64 = tables.iter().map(|table| table.seconds).sum();
    let mut text = format!(
        "{} tables in {seconds:.0} s. Shapes: {} hold, {} do not, {} are undecided. Grades: {} Excellent, {} \
         Good, {} missed. {absent} figures not measurable here.",
        tables.len(),
        shapes(Some(true)),
        shapes(Some(false)),
        shapes(None),
        grades(&Grade::Excellent),
        grades(&Grade::Good),
        grades(&Grade::Missed),
    );
    for table in tables {
        if let Some(error) = &table.error {
            text.push_str(&format!("\nFAILED {}: {error}", table.id));
        }
    }
    text
}
