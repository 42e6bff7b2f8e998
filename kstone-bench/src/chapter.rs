//! Measures every table of the specification's chapter on performance tuning: the chapter's claim, the measured figure,
//! whether the claimed shape holds, and the grade by the chapter's targets.
//!
//! `claims.toml` holds the chapter: its tables as claims, each with the sweep that measures it. `sweep` measures, with
//! trials of the driver, and with a `probe` where the engine itself is needed; `claims` turns the results into tables;
//! `verdict` decides (pure functions). The report decides how a table is shown.

#![expect(clippy::disallowed_methods, reason = "it measures how long each table takes")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use minijinja::Value;

use crate::record::Trial;

mod claims;
pub(crate) mod probe;
mod scale;
mod sweep;
mod table;
mod verdict;

use claims::{Claims, TableClaim};
pub(crate) use scale::Scale;
use sweep::Sweeps;
pub use table::{ChapterTable, Group, Line, Measured, Says};
pub use verdict::{Direction, Grade, Shape, monotone};

/// The available tables, by the names that `--only` takes and in the chapter's order, with their contents.
pub fn list() -> Result<Vec<(String, String)>> {
    Ok(Claims::read()?.table.into_iter().map(|table| (table.id, table.about)).collect())
}

/// What to measure, and where.
#[derive(Clone, Debug)]
pub(crate) struct ChapterOptions {
    /// Tables; empty for all. A section selects all of its tables: `23.2`.
    pub(crate) only: Vec<String>,
    pub(crate) scale: Scale,
    /// An existing directory for databases, which are removed again.
    pub(crate) directory: PathBuf,
    /// The program that measures when called with `trial`: this one.
    pub(crate) program: PathBuf,
}

/// The requested tables, with an error in those that failed, and the trials of the driver.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) tables: Vec<ChapterTable>,
    pub(crate) trials: Vec<Trial>,
}

/// Runs the measurements. `progress` is called with each step as it starts, `finished` with each table as soon as it is
/// complete.
pub(crate) fn run(
    options: &ChapterOptions,
    progress: &mut dyn FnMut(&str),
    finished: &mut dyn FnMut(&ChapterTable),
) -> Result<Outcome> {
    let claims = Claims::read()?;
    let wanted = wanted(&claims, &options.only)?;
    let (scale, directory) = (options.scale.clone(), options.directory.clone());
    ensure!(directory.is_dir(), "{} is not a directory", directory.display());
    let common: BTreeMap<String, Value> = [
        ("scale", Value::from(scale.text())),
        ("stripes", scale.stripes.into()),
        ("divide", scale.divide.into()),
        ("reads", scale.reads.into()),
        ("load_items", scale.load_items.into()),
        ("load_seconds", scale.load_seconds.to_string().into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let trials = scale.trials;
    let program = options.program.clone();
    let mut sweeps =
        Sweeps { scale, program, directory, progress, trials: Vec::new(), done: BTreeMap::new() };
    let mut tables = Vec::new();
    for claim in wanted {
        let start = Instant::now();
        let swept: Result<Vec<_>> = claim.sweeps.iter().map(|name| sweeps.get(name)).collect();
        let made = swept.and_then(|swept| {
            claim.table(&claims, &common, &swept.iter().map(|swept| &**swept).collect::<Vec<_>>())
        });
        let mut table = made.unwrap_or_else(|error| ChapterTable {
            id: claim.id.clone(),
            title: claim.about.clone(),
            error: Some(format!("{error:#}")),
            ..ChapterTable::default()
        });
        table.seconds = start.elapsed().as_secs_f64();
        if table.trials == 0 {
            table.trials = trials;
        }
        finished(&table);
        tables.push(table);
    }
    Ok(Outcome { tables, trials: sweeps.trials })
}

fn wanted<'a>(claims: &'a Claims, only: &[String]) -> Result<Vec<&'a TableClaim>> {
    let takes = |asked: &str, id: &str| {
        id == asked || id.strip_prefix(asked).is_some_and(|rest| rest.starts_with('-'))
    };
    let ids = || claims.table.iter().map(|table| table.id.as_str());
    if let Some(unknown) = only.iter().find(|asked| !ids().any(|id| takes(asked, id))) {
        let all: Vec<_> = ids().collect();
        bail!("--only {unknown}: there is no such table; the tables are {}", all.join(", "));
    }
    let asked = |id: &str| only.is_empty() || only.iter().any(|asked| takes(asked, id));
    Ok(claims.table.iter().filter(|table| asked(&table.id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_chosen_by_name_or_by_section() {
        let claims = Claims::read().unwrap();
        let ids = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(|&only| only.to_owned()).collect();
            wanted(&claims, &only)
                .map(|tables| tables.into_iter().map(|table| table.id.as_str()).collect::<Vec<_>>())
        };
        assert_eq!(ids(&[]).unwrap().len(), 14);
        assert_eq!(ids(&["23.3"]).unwrap(), ["23.3-bits", "23.3-scenario"]);
        assert_eq!(ids(&["23.3-bits", "23.1-memory"]).unwrap(), ["23.1-memory", "23.3-bits"]);
        for wrong in ["23", "23.3-bit", "nothing", ""] {
            let error = ids(&[wrong]).unwrap_err().to_string();
            assert!(error.contains("23.1-throughput"), "{error}");
        }
    }
}
