//! Every table of the specification's chapter on performance tuning, measured: what the chapter says, what it is here,
//! whether the shape that it claims holds, and how it stands to the chapter's targets.
//!
//! `tables` has a function for each table, `said` the chapter's numbers, `verdict` what is decided of them (pure
//! functions), `render` how it is shown. Loads on engines are trials of the driver; what needs the engine itself is a
//! `probe`, in a process of its own as well.

#![expect(clippy::disallowed_methods, reason = "it says how long each table took")]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::record::Trial;

mod context;
mod load;
pub mod probe;
pub(crate) mod render;
mod said;
mod scale;
mod table;
mod tables;
mod unit;
pub mod verdict;

use context::Context;
pub use render::{markdown, text};
pub use scale::Scale;
pub use table::{ChapterTable, Group, Line, Measured, Says};
pub use unit::Unit;
pub use verdict::{Direction, Grade, Shape, Target};

type Make = fn(&mut Context<'_>) -> Result<ChapterTable>;

/// The tables by the names that `--only` takes, in the chapter's order, with what they show.
const TABLES: [(&str, &str, Make); 14] = [
    ("23.1-throughput", "memtable threshold: flushes and write throughput", tables::memtables::throughput),
    ("23.1-memory", "memtable threshold: memory", tables::memtables::memory),
    ("23.1-recovery", "memtable threshold: log and recovery time", tables::memtables::recovery),
    ("23.2-sst-count", "SST count and read latency", tables::merging::sst_count),
    ("23.2-threshold", "SST threshold: what the guidelines promise", tables::configurations::thresholds),
    ("23.2-check-interval", "check interval: lag and processor time", tables::merging::check_interval),
    ("23.2-concurrency", "concurrent compactions", tables::merging::concurrency),
    ("23.3-bits", "bits per key: memory and false positives", tables::filters::bits),
    ("23.3-scenario", "10 SSTs and a key that is in none", tables::filters::scenario),
    ("23.4-settings", "limits: each shown to hold", tables::limits::settings),
    ("23.5-configurations", "three configurations", tables::configurations::three),
    ("23.6-put-1000-items", "the criterion sample", tables::puts::put_1000_items),
    ("23.9-examples", "three real-world examples, open loop", tables::examples::three),
    ("23.10-targets", "the performance targets", tables::configurations::targets),
];

/// The tables there are, by name, with what they show.
pub fn list() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLES.iter().map(|(id, about, _)| (*id, *about))
}

/// What to measure, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tables; all when there is none. A section takes all of its tables: `23.2`.
    pub only: Vec<String>,
    /// How much is done.
    pub scale: Scale,
    /// A directory that exists, for databases that are removed again.
    pub directory: PathBuf,
    /// What measures, called with `chapter-probe`: this program.
    pub program: PathBuf,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// All tables asked for; one that failed says why.
    pub tables: Vec<ChapterTable>,
    /// Trials of the driver.
    pub trials: Vec<Trial>,
}

/// Measures. `progress` is told what goes on; `finished` each table as soon as it is complete.
///
/// # Errors
/// There is no such table. One that fails is in the outcome, and the others are measured all the same.
pub fn run(
    options: &Options,
    progress: &mut dyn FnMut(&str),
    finished: &mut dyn FnMut(&ChapterTable),
) -> Result<Outcome> {
    let wanted = wanted(&options.only)?;
    let (scale, program, directory) = (&options.scale, &options.program, &options.directory);
    ensure!(directory.is_dir(), "{}: there is no such directory", directory.display());
    let mut context = Context::new(scale.clone(), program.clone(), directory.clone(), progress);
    let mut outcome = Outcome::default();
    for (id, about, make) in wanted {
        let start = Instant::now();
        let mut table = make(&mut context).unwrap_or_else(|error| ChapterTable {
            title: about.to_owned(),
            error: Some(format!("{error:#}")),
            ..ChapterTable::default()
        });
        table.id = id.to_owned();
        table.seconds = start.elapsed().as_secs_f64();
        if table.trials == 0 {
            table.trials = scale.trials;
        }
        finished(&table);
        outcome.tables.push(table);
    }
    outcome.trials = context.trials;
    Ok(outcome)
}

fn wanted(only: &[String]) -> Result<Vec<(&'static str, &'static str, Make)>> {
    let takes = |asked: &str, id: &str| {
        id == asked || id.strip_prefix(asked).is_some_and(|rest| rest.starts_with('-'))
    };
    if let Some(unknown) = only.iter().find(|asked| !TABLES.iter().any(|(id, ..)| takes(asked, id))) {
        let all: Vec<_> = list().map(|(id, _)| id).collect();
        bail!("--only {unknown}: there is no such table; there are {}", all.join(", "));
    }
    let asked = |id: &str| only.is_empty() || only.iter().any(|asked| takes(asked, id));
    Ok(TABLES.into_iter().filter(|(id, ..)| asked(id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_chosen_by_name_or_by_section() {
        let ids = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(|&only| only.to_owned()).collect();
            wanted(&only).map(|tables| tables.into_iter().map(|(id, ..)| id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&[]).unwrap().len(), TABLES.len());
        assert_eq!(ids(&["23.3"]).unwrap(), ["23.3-bits", "23.3-scenario"]);
        assert_eq!(ids(&["23.3-bits", "23.1-memory"]).unwrap(), ["23.1-memory", "23.3-bits"]);
        for wrong in ["23", "23.3-bit", "nothing", ""] {
            let error = ids(&[wrong]).unwrap_err().to_string();
            assert!(error.contains("23.1-throughput"), "{error}");
        }
    }
}
