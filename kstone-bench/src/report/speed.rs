//! Tables of speed: the same cells on a terminal, in Markdown and on a page.

use anyhow::Result;

use super::{Section, Table, page};
use crate::speed::{Against, Judged, SpeedRow, SpeedTable};
use crate::statistics::{self, Ratio};
use crate::units::{self, NOTHING, Unit};

/// One table.
pub(super) fn section(table: &SpeedTable) -> Section {
    let mut head = vec![String::new()];
    head.extend(table.columns.iter().cloned());
    head.extend(["against the best peer", "against before", "goals"].map(str::to_owned));
    let mut cells = Table { head, ..Table::default() };
    table.rows.iter().for_each(|row| cells.push(false, row_cells(row)));
    let goals = || table.rows.iter().flat_map(|row| &row.goals);
    let count = |reached| goals().filter(|goal| goal.reached == reached).count();
    let trials =
        if table.trials == 1 { "1 trial".into() } else { format!("medians of {} trials", table.trials) };
    let mut notes = table.notes.clone();
    if goals().next().is_some() {
        notes.push(format!(
            "goals: {} reached, {} not, {} without a figure",
            count(Some(true)),
            count(Some(false)),
            count(None)
        ));
    }
    Section {
        title: format!("Speed: {} {}", table.id, table.title),
        about: format!("{} {trials}.", table.done),
        tables: vec![cells.without_empty()],
        notes,
        ..Section::default()
    }
}

/// A table for a document, with a third-level heading.
pub fn speed_markdown(table: &SpeedTable) -> Result<String> {
    page::section(&section(table))
}

/// A table for a terminal, at most `width` columns wide.
pub fn speed_text(table: &SpeedTable, width: u16) -> String {
    super::text(&section(table), width)
}

fn row_cells(row: &SpeedRow) -> Vec<String> {
    let figure = |figures: &Vec<f64>| {
        let show = |figure| match row.unit {
            Unit::PerSecond => units::rate(figure),
            unit => unit.text(figure),
        };
        units::optional(statistics::median(figures), show)
    };
    let lines = |lines: Vec<String>| if lines.is_empty() { NOTHING.to_owned() } else { lines.join(";\n") };
    let mut cells = vec![row.name.clone()];
    cells.extend(row.figures.iter().map(figure));
    cells.push(units::optional(row.best.as_ref(), against));
    cells.push(lines(row.before.iter().map(against).collect()));
    cells.push(lines(row.goals.iter().map(goal).collect()));
    cells
}

/// `0.78 [0.70 … 0.81] x heed-tuned`.
fn against(against: &Against) -> String {
    format!("{} x {}", ratio(&against.ratio), against.of)
}

fn ratio(ratio: &Ratio) -> String {
    let digits = |value| format!("{value:.2}");
    match ratio.interval {
        Some(ends) => format!("{} [{} … {}]", digits(ratio.value), digits(ends.low), digits(ends.high)),
        None => digits(ratio.value),
    }
}

/// `>= 1.60 x heed: NO, 0.78 [0.70 … 0.81]`.
fn goal(judged: &Judged) -> String {
    let measured = units::optional(judged.measured.as_ref(), |measured| ratio(&measured.ratio));
    match judged.reached {
        Some(true) => format!("{}: yes, {measured}", judged.goal),
        Some(false) => format!("{}: NO, {measured}", judged.goal),
        None => format!("{}: no figure", judged.goal),
    }
}
