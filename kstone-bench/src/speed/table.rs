//! The figures of a table and what they mean, as data for JSON, a terminal and Markdown.

use serde::{Deserialize, Serialize};

use super::{Figure, Goal, RowPlan, TablePlan, WAIT};
use crate::data::BenchKey;
use crate::record::{Step, Trial, TrialSpec};
use crate::statistics::{self, Ratio};
use crate::trial::BEFORE;
use crate::units::Unit;
use crate::workload::plan;
use crate::{results, units};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpeedTable {
    /// The name that the command takes.
    pub id: String,
    pub title: String,
    /// The work, in a sentence.
    pub done: String,
    pub trials: usize,
    /// Engines.
    pub columns: Vec<String>,
    pub rows: Vec<SpeedRow>,
    /// Failures, and what else a reader must know.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpeedRow {
    pub id: String,
    pub name: String,
    pub unit: Unit,
    /// For each column, the figure of each trial; none where it was not measured.
    pub figures: Vec<Vec<f64>>,
    /// kstone's figure relative to the best peer's.
    pub best: Option<Against>,
    /// That of each engine of ours relative to its other build.
    pub before: Vec<Against>,
    pub goals: Vec<Judged>,
}

/// A figure relative to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// The other: the label of an engine.
    pub of: String,
    pub ratio: Ratio,
}

/// A goal, and whether it is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The goal in words: `>= 1.6 x heed`.
    pub goal: String,
    /// What is compared, if it could be measured.
    pub measured: Option<Against>,
    /// `None`: a figure is missing.
    pub reached: Option<bool>,
}

/// The trials of one column.
struct Column<'a> {
    spec: &'a TrialSpec,
    label: String,
    trials: Vec<&'a Trial>,
}

impl<'a> Column<'a> {
    fn new(spec: &'a TrialSpec, threads: usize, trials: &'a [Trial]) -> Self {
        let alone = if spec.threads < threads { ", 1 thread" } else { "" };
        let label = format!("{}{alone}", spec.engine.label());
        Self { spec, label, trials: trials.iter().filter(|trial| trial.spec == *spec).collect() }
    }

    /// A row's figure in each trial that has it, with the trial's number.
    fn figures(&self, row: &RowPlan) -> Vec<(usize, f64)> {
        let figure = |trial: &&Trial| Some((trial.number, figure(row, &trial.steps)?));
        self.trials.iter().filter_map(figure).collect()
    }

    /// Whether it competes with ours.
    fn is_peer(&self) -> bool {
        !self.spec.engine.is_ours() && self.spec.engine.engine() != "noop"
    }

    /// Whether a goal's `of` means it.
    fn is(&self, name: &str, threads: usize) -> bool {
        let engine = self.spec.engine.engine();
        let same = self.spec.threads == threads;
        match name {
            "peers" => self.is_peer(),
            "lsm" => matches!(engine, "fjall" | "rocksdb"),
            "one-thread" => !same && self.spec.engine.name == "kstone",
            // With its settings where several columns differ by those.
            _ if self.spec.engine.is_ours() => same && (self.label == name || self.spec.engine.name == name),
            _ => engine == name,
        }
    }
}

/// The table of these trials. A failed trial is a note.
pub(super) fn make(
    table: &TablePlan,
    rows: &[&RowPlan],
    specs: &[TrialSpec],
    trials: &[Trial],
) -> SpeedTable {
    let threads = specs.iter().map(|spec| spec.threads).max().unwrap_or(1);
    let columns: Vec<_> = specs.iter().map(|spec| Column::new(spec, threads, trials)).collect();
    SpeedTable {
        id: table.id.clone(),
        title: table.title.clone(),
        done: specs.first().map(|spec| done(spec, trials)).unwrap_or_default(),
        trials: columns.iter().map(|column| column.trials.len()).max().unwrap_or(0),
        columns: columns.iter().map(|column| column.label.clone()).collect(),
        rows: rows.iter().map(|row| made(table, row, &columns, threads)).collect(),
        notes: results::troubles(trials),
    }
}

fn done(spec: &TrialSpec, trials: &[Trial]) -> String {
    let key = plan::layout(spec).map_or(0, |layout| BenchKey::new(layout, 0).flat().len());
    let limit = match spec.memory_limit {
        None => String::new(),
        Some(limit) if trials.iter().all(|trial| trial.memory_limited) => {
            format!(", memory limited to {}", units::bytes(limit as f64))
        }
        Some(_) => ", memory limit not in force: the data may fit in memory".to_owned(),
    };
    format!(
        "{} items, keys of {key} bytes, values of {} that do not compress, {} {}, buffered{limit}.",
        units::count(spec.items as f64),
        Unit::Bytes.text(spec.value_bytes as f64),
        spec.threads,
        if spec.threads == 1 { "thread" } else { "threads" },
    )
}

/// A figure of a trial; `None` if it was not measured, or is not above 0.
fn figure(row: &RowPlan, steps: &[Step]) -> Option<f64> {
    let at = steps.iter().position(|step| step.workload == row.step)?;
    let step = steps.get(at)?;
    let wait = || steps.get(at + 1).filter(|step| step.workload == WAIT);
    let latency = || step.latencies.values().find(|latency| latency.count > 0);
    let figure = match row.figure {
        Figure::Rate => step.rate,
        Figure::P50 => latency()?.p50 as f64,
        Figure::P99 => latency()?.p99 as f64,
        Figure::Written => (step.written_bytes + wait()?.written_bytes) as f64,
        Figure::Disk => wait()?.disk_bytes as f64,
        Figure::Anonymous => wait()?.timeline.last()?.anonymous_bytes as f64,
    };
    (figure.is_finite() && figure > 0.0).then_some(figure)
}

fn made(table: &TablePlan, row: &RowPlan, columns: &[Column<'_>], threads: usize) -> SpeedRow {
    let goals = table.goals.iter().filter(|goal| goal.row == row.id);
    let goals = goals.filter_map(|goal| judged(goal, row, columns, threads));
    let ours = columns.iter().find(|column| column.is("kstone", threads));
    let before = columns.iter().filter_map(|column| {
        let name = column.spec.engine.name.strip_suffix(BEFORE)?;
        let now = columns.iter().find(|now| {
            now.spec.engine.name == name
                && now.spec.engine.settings == column.spec.engine.settings
                && now.spec.threads == column.spec.threads
        })?;
        against(row, now, column).map(|against| Against { of: column.label.clone(), ..against })
    });
    SpeedRow {
        id: row.id.clone(),
        name: row.name.clone(),
        unit: row.unit,
        figures: columns
            .iter()
            .map(|column| column.figures(row).into_iter().map(|one| one.1).collect())
            .collect(),
        best: ours.and_then(|ours| against(row, ours, best(row, columns, |column| column.is_peer())?)),
        before: before.collect(),
        goals: goals.collect(),
    }
}

/// The column with the best figure.
fn best<'c, 'a>(
    row: &RowPlan,
    columns: &'c [Column<'a>],
    among: impl Fn(&Column<'a>) -> bool,
) -> Option<&'c Column<'a>> {
    let median = |column: &Column<'_>| {
        let figures: Vec<f64> = column.figures(row).into_iter().map(|one| one.1).collect();
        statistics::median(&figures)
    };
    let measured = columns.iter().filter(|column| among(column)).filter_map(|one| Some((one, median(one)?)));
    let better = |a: &(_, f64), b: &(_, f64)| match row.unit {
        Unit::PerSecond => a.1.total_cmp(&b.1),
        _ => b.1.total_cmp(&a.1),
    };
    measured.max_by(better).map(|(column, _)| column)
}

/// The first relative to the second, of the trials that took turns.
fn against(row: &RowPlan, first: &Column<'_>, second: &Column<'_>) -> Option<Against> {
    let theirs = second.figures(row);
    let turns = first.figures(row).into_iter().filter_map(|(number, ours)| {
        theirs.iter().find(|(other, _)| *other == number).map(|(_, theirs)| (*theirs, ours))
    });
    let ratio = statistics::paired_ratio(&turns.collect::<Vec<_>>())?;
    Some(Against { of: second.label.clone(), ratio })
}

/// `None`: the goal is for another number of items.
fn judged(goal: &Goal, row: &RowPlan, columns: &[Column<'_>], threads: usize) -> Option<Judged> {
    let name = goal.engine.as_deref().unwrap_or("kstone");
    let ours = columns.iter().find(|column| column.is(name, threads));
    let spec = columns.first()?.spec;
    if goal.items.is_some_and(|items| items != spec.items) {
        return None;
    }
    let (sign, limit) = match (goal.at_least, goal.at_most) {
        (Some(limit), _) => (">=", limit),
        (None, limit) => ("<=", limit?),
    };
    let constant = |reference: f64, of: &str| {
        let figures = ours?.figures(row).into_iter().map(|(_, figure)| (reference, figure));
        let ratio = statistics::paired_ratio(&figures.collect::<Vec<_>>())?;
        Some(Against { of: of.to_owned(), ratio })
    };
    let payload = || {
        let key = BenchKey::new(plan::layout(spec).ok()?, 0).flat().len();
        Some(spec.items as f64 * (key + spec.value_bytes) as f64)
    };
    let whose = goal.engine.as_ref().map_or(String::new(), |engine| format!("{engine} "));
    let (text, measured) = match goal.of.as_deref() {
        None => (format!("{whose}{sign} {}", row.unit.text(limit)), constant(limit, "the goal")),
        Some("payload") => (
            format!("{whose}{sign} {} x payload", units::digits(limit)),
            payload().and_then(|payload| constant(payload, "payload")),
        ),
        Some(of) => (
            format!("{whose}{sign} {} x {of}", units::digits(limit)),
            best(row, columns, |column| column.is(of, threads))
                .and_then(|theirs| against(row, ours?, theirs)),
        ),
    };
    let limit = if goal.of.is_none() { 1.0 } else { limit };
    let reached = measured.as_ref().map(|measured| match goal.at_least {
        Some(_) => measured.ratio.value >= limit,
        None => measured.ratio.value <= limit,
    });
    Some(Judged { goal: text, measured, reached })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineSpec;
    use crate::record::StepSpec;
    use crate::workload::Place;

    fn spec(label: &str, threads: usize) -> TrialSpec {
        let spec = TrialSpec::of(EngineSpec::parse(label), vec![StepSpec::of("fillrandom")], 1000);
        TrialSpec { threads, place: Place::Rows, ..spec }
    }

    fn trials(spec: &TrialSpec, rates: &[f64]) -> Vec<Trial> {
        let step =
            |rate| Step { workload: "fillrandom".into(), rate, written_bytes: 400_000, ..Step::default() };
        let wait = Step { workload: WAIT.into(), written_bytes: 32_000, ..Step::default() };
        let trial = |(number, rate): (usize, &f64)| Trial {
            spec: spec.clone(),
            number,
            steps: vec![step(*rate), wait.clone()],
            error: None,
            memory_limited: false,
        };
        rates.iter().enumerate().map(trial).collect()
    }

    /// The rows of a table with these goals, whose columns have these rates.
    fn rows(goals: &str, columns: &[(&str, usize, &[f64])]) -> Vec<SpeedRow> {
        let row = |id: &str, figure, unit| RowPlan {
            id: id.into(),
            name: id.into(),
            step: "fillrandom".into(),
            figure,
            unit,
        };
        let plans =
            [row("fill", Figure::Rate, Unit::PerSecond), row("written", Figure::Written, Unit::Bytes)];
        let table = format!(
            "id = 'one'\ntitle = 'One'\nitems = 1000\nsteps = []\nrows = []\nengines = []\ngoals = [{goals}]"
        );
        let specs: Vec<_> = columns.iter().map(|(label, threads, _)| spec(label, *threads)).collect();
        let trials: Vec<_> =
            specs.iter().zip(columns).flat_map(|(spec, (_, _, rates))| trials(spec, rates)).collect();
        make(&toml::from_str(&table).unwrap(), &plans.iter().collect::<Vec<_>>(), &specs, &trials).rows
    }

    #[test]
    fn a_goal_is_judged_by_the_best_of_those_it_names() {
        let columns: [(&str, usize, &[f64]); 5] = [
            ("kstone", 2, &[100.0, 120.0, 110.0]),
            ("heed-tuned", 2, &[200.0, 220.0, 240.0]),
            ("fjall-tuned", 2, &[50.0, 55.0, 60.0]),
            ("noop", 2, &[1e6; 3]),
            ("kstone", 1, &[100.0; 3]),
        ];
        let goals = "{ row = 'fill', at_least = 0.6, of = 'peers' }, { row = 'fill', at_least = 2.0, of = 'lsm' },
            { row = 'fill', at_least = 1.2, of = 'one-thread' }, { row = 'fill', at_least = 1.0, of = 'rocksdb' },
            { row = 'fill', at_least = 100.0 }, { row = 'fill', at_least = 1.0, items = 7 },
            { row = 'written', at_most = 2.0, of = 'payload' }, { row = 'written', at_most = 1.9, of = 'payload' }";
        let [fill, written] = &rows(goals, &columns)[..] else { panic!("two rows") };
        let best = fill.best.as_ref().unwrap();
        assert_eq!((best.of.as_str(), best.ratio.value), ("heed-tuned", 0.5));
        let reached = |row: &SpeedRow| row.goals.iter().map(|goal| goal.reached).collect::<Vec<_>>();
        assert_eq!(reached(fill), [Some(false), Some(true), Some(false), None, Some(true)], "{fill:?}");
        assert_eq!(fill.goals[2].measured.as_ref().unwrap().of, "kstone, 1 thread");
        assert_eq!(reached(written), [Some(true), Some(false)], "432 bytes an item of 216: {written:?}");
    }

    #[test]
    fn another_build_is_compared_with_its_own_engine_in_turns() {
        let columns: [(&str, usize, &[f64]); 3] = [
            ("kstone#before", 1, &[100.0, 200.0, 50.0, 80.0, 90.0]),
            ("kstone", 1, &[110.0, 220.0, 55.0, 88.0, 99.0]),
            ("kstone-items#before", 1, &[1.0; 5]),
        ];
        let rows = rows("", &columns);
        let [before] = &rows[0].before[..] else { panic!("{:?}", rows[0]) };
        let interval = before.ratio.interval.unwrap();
        assert!((before.ratio.value - 1.1).abs() < 1e-9 && before.of == "kstone#before", "{before:?}");
        assert!(interval.low > 1.0, "{interval:?}");
        assert_eq!(rows[0].best, None, "none of them is a peer");
    }
}
