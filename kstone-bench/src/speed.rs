//! The tables of speed: KeystoneDB and its peers on the same work, the ratio to the best peer, and the goals.
//!
//! `speed/speed.toml` holds the tables with their rows and goals. The trials are those of the driver and take turns;
//! `table` turns them into figures and judges them (pure functions). The report decides how a table is shown.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::engine::{self, Durability, EngineSpec};
use crate::record::{StepSpec, Trial, TrialSpec};
use crate::trial;
use crate::units::Unit;
use crate::workload::{Operation, Place, Workload, plan};

mod table;

pub use table::{Against, Judged, SpeedRow, SpeedTable};

/// The table measured by default.
const DEFAULT: &str = "memory";
/// The bytes of a value.
const VALUE: usize = 200;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    row: Vec<RowPlan>,
    table: Vec<TablePlan>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowPlan {
    id: String,
    name: String,
    step: String,
    figure: Figure,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Figure {
    Rate,
    P50,
    P99,
    Written,
    Disk,
    Anonymous,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TablePlan {
    id: String,
    title: String,
    items: u64,
    value: Option<usize>,
    threads: Option<usize>,
    /// Memory limit of a trial, in bytes.
    memory: Option<u64>,
    /// Operations of each step that does not fill the database.
    operations: Option<u64>,
    place: Option<Place>,
    #[serde(default)]
    alone: bool,
    steps: Vec<String>,
    rows: Vec<String>,
    engines: Vec<String>,
    #[serde(default)]
    goals: Vec<Goal>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Goal {
    row: String,
    at_least: Option<f64>,
    at_most: Option<f64>,
    of: Option<String>,
    engine: Option<String>,
    items: Option<u64>,
}

impl Plan {
    fn read() -> Result<Self> {
        toml::from_str(include_str!("speed/speed.toml")).context("the tables of speed")
    }

    /// The tables with these names; a name also stands for all tables that continue it after a hyphen.
    fn tables(&self, names: &[String]) -> Result<Vec<&TablePlan>> {
        let default = [DEFAULT.to_owned()];
        let names = if names.is_empty() { &default } else { names };
        chosen("table", names, self.table.iter().map(|table| (table.id.as_str(), table)))
    }

    /// The rows of a table that were asked for; without names, all.
    fn rows(&self, table: &TablePlan, names: &[String]) -> Result<Vec<&RowPlan>> {
        let row = |id: &String| {
            let row = self.row.iter().find(|row| row.id == *id);
            row.map(|row| (row.id.as_str(), row)).with_context(|| format!("{}: no row {id}", table.id))
        };
        let rows = table.rows.iter().map(row).collect::<Result<Vec<_>>>()?;
        match names {
            [] => Ok(rows.into_iter().map(|(_, row)| row).collect()),
            names => chosen("row", names, rows.into_iter()),
        }
    }
}

fn chosen<'a, T>(
    what: &str,
    names: &[String],
    all: impl Iterator<Item = (&'a str, T)> + Clone,
) -> Result<Vec<T>> {
    let takes =
        |name: &str, id: &str| id == name || id.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
    if let Some(unknown) = names.iter().find(|name| !all.clone().any(|(id, _)| takes(name, id))) {
        let ids: Vec<_> = all.map(|(id, _)| id).collect();
        bail!("{unknown}: there is no such {what}; there are {}", ids.join(", "));
    }
    Ok(all.filter(|(id, _)| names.iter().any(|name| takes(name, id))).map(|(_, one)| one).collect())
}

/// The names and titles of all tables.
pub fn list() -> Result<Vec<(String, String)>> {
    Ok(Plan::read()?.table.into_iter().map(|table| (table.id, table.title)).collect())
}

/// What to measure; `None` and empty: as the table has it.
#[derive(Clone, Debug)]
pub(crate) struct SpeedOptions {
    pub(crate) tables: Vec<String>,
    /// Rows.
    pub(crate) only: Vec<String>,
    pub(crate) engines: Vec<String>,
    pub(crate) items: Option<u64>,
    pub(crate) threads: Option<usize>,
    pub(crate) memory: Option<u64>,
    /// Settings of KeystoneDB in columns that have none.
    pub(crate) settings: String,
    pub(crate) seed: u64,
    pub(crate) trials: trial::Options,
}

/// Measures the tables. `progress` is called with each trial as it starts, `finished` with each table.
pub(crate) fn run(
    options: &SpeedOptions,
    progress: &mut dyn FnMut(&str),
    finished: &mut dyn FnMut(&SpeedTable),
) -> Result<(Vec<SpeedTable>, Vec<Trial>)> {
    let plan = Plan::read()?;
    let wanted: Vec<_> = plan
        .tables(&options.tables)?
        .into_iter()
        .map(|table| Ok((table, plan.rows(table, &options.only)?)))
        .collect::<Result<_>>()?;
    let (mut tables, mut all) = (Vec::new(), Vec::new());
    for (table, rows) in wanted {
        let (columns, left_out) = columns(table, &rows, options)?;
        let trials = trial::run_all(&columns, &options.trials, progress)?;
        let mut made = table::make(table, &rows, &columns, &trials);
        if !left_out.is_empty() {
            made.notes.push(format!("not in this build: {}", left_out.join(", ")));
        }
        finished(&made);
        tables.push(made);
        all.extend(trials);
    }
    Ok((tables, all))
}

/// The trial of each column, and the engines that this build does not have.
fn columns(
    table: &TablePlan,
    rows: &[&RowPlan],
    options: &SpeedOptions,
) -> Result<(Vec<TrialSpec>, Vec<String>)> {
    let known = engine::names();
    let (mut engines, mut left_out) = (Vec::new(), Vec::new());
    for label in if options.engines.is_empty() { &table.engines } else { &options.engines } {
        let mut engine = EngineSpec::parse(label);
        if !known.contains(&engine.engine()) && options.engines.is_empty() {
            left_out.push(label.clone());
            continue;
        }
        if engine.is_ours() && engine.settings.is_empty() {
            engine.settings.clone_from(&options.settings);
        }
        if engine.is_ours() && options.trials.before.is_some() {
            engines.push(EngineSpec { name: format!("{}{}", engine.name, trial::BEFORE), ..engine.clone() });
        }
        engines.push(engine);
    }
    let spec = |engine: EngineSpec| {
        plan::resolve(&TrialSpec {
            engine,
            steps: steps(table, rows)?,
            items: options.items.unwrap_or(table.items),
            value_bytes: table.value.unwrap_or(VALUE),
            threads: options.threads.or(table.threads).unwrap_or(1),
            durability: Durability::Buffered,
            seed: options.seed,
            memory_limit: options.memory.or(table.memory),
            place: table.place.unwrap_or(Place::Rows),
            incompressible: true,
        })
    };
    let mut columns = engines.into_iter().map(spec).collect::<Result<Vec<_>>>()?;
    ensure!(!columns.is_empty(), "{}: this build has none of its engines", table.id);
    let alone = columns.iter().find(|spec| table.alone && spec.engine.name == "kstone" && spec.threads > 1);
    columns.extend(alone.map(|spec| TrialSpec { threads: 1, ..spec.clone() }));
    Ok((columns, left_out))
}

/// The steps that these rows need: their own, those that fill the database, and each wait for background work after one
/// of them.
fn steps(table: &TablePlan, rows: &[&RowPlan]) -> Result<Vec<StepSpec>> {
    let mut steps = Vec::new();
    let mut kept = false;
    for name in &table.steps {
        let workload = Workload::by_name(name)?;
        let fills = workload.fills() || workload.operations().any(|one| one == Operation::Insert);
        let waits = name == WAIT;
        kept = if waits { kept } else { fills || rows.iter().any(|row| row.step == *name) };
        if kept {
            let operations = table.operations.filter(|_| !fills && !waits);
            steps.push(StepSpec { operations, ..StepSpec::of(name) });
        }
    }
    Ok(steps)
}

/// The workload that waits for background work.
const WAIT: &str = "waitforcompaction";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_its_rows_steps_and_engines_and_every_goal_has_one_limit() {
        let plan = Plan::read().unwrap();
        for table in &plan.table {
            let rows = plan.rows(table, &[]).unwrap();
            for row in &rows {
                assert!(table.steps.contains(&row.step), "{}: {}", table.id, row.id);
            }
            assert_eq!(
                steps(table, &rows).unwrap().len(),
                table.steps.len(),
                "{}: a step too many",
                table.id
            );
            for goal in &table.goals {
                assert!(table.rows.contains(&goal.row), "{}: {goal:?}", table.id);
                assert!(goal.at_least.is_some() != goal.at_most.is_some(), "{goal:?}");
                let engine = goal.engine.as_deref().unwrap_or("kstone");
                assert!(table.engines.iter().any(|label| label == engine), "{goal:?}");
            }
        }
        assert!(plan.row.iter().all(|row| plan.table.iter().any(|table| table.rows.contains(&row.id))));
    }

    #[test]
    fn names_choose_tables_and_rows_and_rows_choose_steps() {
        let plan = Plan::read().unwrap();
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let tables = |asked: &[&str]| plan.tables(&names(asked)).map(|tables| tables.len());
        assert_eq!(plan.tables(&[]).unwrap()[0].id, DEFAULT);
        assert_eq!((tables(&["held"]).unwrap(), tables(&["held-1b", "limited"]).unwrap()), (6, 2));
        assert!(tables(&["all"]).unwrap_err().to_string().contains("threads"));
        let memory = plan.tables(&[]).unwrap()[0];
        let rows = plan.rows(memory, &names(&["get-hit", "disk"])).unwrap();
        let ids: Vec<_> = rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, ["get-hit", "get-hit-p50", "get-hit-p99", "disk"]);
        let steps: Vec<_> = steps(memory, &rows).unwrap().into_iter().map(|step| step.workload).collect();
        assert_eq!(steps, ["fillrandom", WAIT, "readrandom", "overwrite", WAIT]);
        assert!(plan.rows(memory, &names(&["delete"])).is_err());
    }
}
