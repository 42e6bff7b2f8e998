//! A table of the chapter with its claims and the measured figures, as data for JSON, a terminal and Markdown.
//!
//! A table has groups, one for each quantity. A group has a line for each row of the chapter's table, and one shape:
//! the relation between its lines that the chapter claims.

use serde::{Deserialize, Serialize};

use super::verdict::{Grade, Shape};
use crate::units::Unit;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChapterTable {
    /// The name that `--only` takes: the section and a word, `23.1-throughput`.
    pub id: String,
    pub title: String,
    /// What was done, in a sentence or two: items, stripes, threads, durability, cold or warm.
    pub done: String,
    pub trials: usize,
    pub groups: Vec<Group>,
    /// Further notes for the reader.
    pub notes: Vec<String>,
    /// How long measuring took, in seconds. Work shared by several tables counts for the table that measured it.
    pub seconds: f64,
    /// Why the table is empty or incomplete.
    pub error: Option<String>,
}

/// One quantity for all rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The quantity measured: `write throughput`.
    pub quantity: String,
    pub unit: Unit,
    /// The parameter that differs from line to line: `threshold`.
    pub by: String,
    pub lines: Vec<Line>,
    /// The chapter's claim about all of them together, and whether it holds.
    #[serde(default)]
    pub shape: Option<Shape>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The row's name in the chapter.
    pub row: String,
    /// The row as a number, for plots.
    #[serde(default)]
    pub at: Option<f64>,
    /// The chapter's figure; `None` if it gives none.
    #[serde(default)]
    pub says: Option<Says>,
    pub measured: Measured,
    /// The prediction of `kstone_core::model` for the same settings and items.
    #[serde(default)]
    pub model: Option<f64>,
    /// The grade against a target of section 23.10, or a claim of an example.
    #[serde(default)]
    pub grade: Option<Grade>,
}

/// A figure of the chapter, in its own words and as numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Says {
    pub text: String,
    /// The lowest number that agrees with the words, in the group's unit; `None`: they are not a number.
    pub low: Option<f64>,
    pub high: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// One value per trial, in the group's unit.
    Values(Vec<f64>),
    /// Not measurable on this machine, for this reason.
    NotHere(String),
}

impl Line {
    /// A row with measured figures. Omits trials in which nothing was counted, because there is nothing to divide by.
    pub fn new(row: impl Into<String>, mut values: Vec<f64>) -> Self {
        values.retain(|value| value.is_finite());
        let measured = match values.is_empty() {
            true => Measured::NotHere("nothing was counted".into()),
            false => Measured::Values(values),
        };
        Self { row: row.into(), at: None, says: None, measured, model: None, grade: None }
    }

    /// A row that cannot be measured on this machine.
    pub fn not_here(row: impl Into<String>, why: impl Into<String>) -> Self {
        Self { measured: Measured::NotHere(why.into()), ..Self::new(row, Vec::new()) }
    }

    /// The measured figure relative to the chapter's: 1 within its range, otherwise as a fraction of the nearer end. A
    /// change in percent is compared by its effect on 100.
    pub fn ratio(&self, unit: Unit) -> Option<f64> {
        let says = self.says.as_ref()?;
        let whole = if unit == Unit::PercentMore { 100.0 } else { 0.0 };
        let measured = self.measured.median()? + whole;
        let (low, high) = (says.low? + whole, says.high? + whole);
        let nearest = measured.clamp(low, high);
        let ratio = if low < high && nearest == measured { 1.0 } else { measured / nearest };
        ratio.is_finite().then_some(ratio)
    }
}

impl Says {
    pub fn about(text: impl Into<String>, value: f64) -> Self {
        Self::between(text, value, value)
    }

    pub fn between(text: impl Into<String>, low: f64, high: f64) -> Self {
        Self { text: text.into(), low: Some(low), high: Some(high) }
    }

    pub fn words(text: impl Into<String>) -> Self {
        Self { text: text.into(), low: None, high: None }
    }
}

impl Measured {
    /// One value per trial; none if nothing was measured.
    pub fn values(&self) -> &[f64] {
        match self {
            Self::Values(values) => values,
            Self::NotHere(_) => &[],
        }
    }

    /// The median; for an even number of values, the mean of the two in the middle.
    pub fn median(&self) -> Option<f64> {
        let Self::Values(values) = self else { return None };
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (below, above) = (sorted.get(sorted.len().checked_sub(1)? / 2)?, sorted.get(sorted.len() / 2)?);
        Some((below + above) / 2.0)
    }

    /// The minimum and maximum, if there were several trials.
    pub fn range(&self) -> Option<(f64, f64)> {
        let Self::Values(values) = self else { return None };
        let low = values.iter().copied().min_by(f64::total_cmp)?;
        let high = values.iter().copied().max_by(f64::total_cmp)?;
        (values.len() > 1).then_some((low, high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[f64], says: Says) -> Line {
        Line { says: Some(says), ..Line::new("row", values.to_vec()) }
    }

    #[test]
    fn the_ratio_is_to_what_is_said_or_to_the_nearer_end_of_a_range() {
        assert_eq!(line(&[100.0, 300.0, 200.0], Says::about("~100", 100.0)).ratio(Unit::Nanos), Some(2.0));
        assert_eq!(line(&[15.0], Says::between("10-20", 10.0, 20.0)).ratio(Unit::Nanos), Some(1.0));
        assert_eq!(line(&[5.0], Says::between("10-20", 10.0, 20.0)).ratio(Unit::Nanos), Some(0.5));
        assert_eq!(line(&[40.0], Says::between("10-20", 10.0, 20.0)).ratio(Unit::Nanos), Some(2.0));
        assert_eq!(line(&[40.0], Says::words("Lower")).ratio(Unit::Nanos), None);
        assert_eq!(line(&[40.0], Says::about("0 %", 0.0)).ratio(Unit::Nanos), None);
        let absent =
            Line { measured: Measured::NotHere("2 cores".into()), ..line(&[], Says::about("1", 1.0)) };
        assert_eq!(absent.ratio(Unit::Nanos), None);
        assert_eq!(Line::new("row", vec![1.0]).ratio(Unit::Nanos), None);
        let change = |percent: f64| line(&[percent], Says::between("20-40% lower", -40.0, -20.0));
        assert_eq!(change(20.0).ratio(Unit::PercentMore), Some(1.5));
        assert_eq!(change(-30.0).ratio(Unit::PercentMore), Some(1.0));
        assert_eq!(line(&[0.0], Says::about("the default", 0.0)).ratio(Unit::PercentMore), Some(1.0));
    }

    #[test]
    fn medians_and_ranges_are_of_all_trials() {
        let counted_once = Line::new("", vec![f64::NAN, 7.0]);
        assert_eq!(counted_once.measured, Measured::Values(vec![7.0]));
        assert!(matches!(Line::new("", vec![f64::INFINITY]).measured, Measured::NotHere(_)));
        assert_eq!(Measured::Values(vec![3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(Measured::Values(vec![4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
        assert_eq!(Measured::Values(vec![]).median(), None);
        assert_eq!(Measured::Values(vec![f64::NAN, 7.0]).median(), Some(7.0));
        assert_eq!(Measured::Values(vec![3.0, 1.0, 2.0]).range(), Some((1.0, 3.0)));
        assert_eq!(Measured::Values(vec![3.0]).range(), None);
        assert_eq!(Measured::NotHere("no".into()).median(), None);
    }

    #[test]
    fn tables_come_back_from_json() {
        let graded =
            |grade, line: Line| Line { grade: Some(grade), model: Some(1e8), at: Some(1000.0), ..line };
        let group = Group {
            quantity: "recovery time".into(),
            unit: Unit::Nanos,
            by: "threshold".into(),
            lines: vec![
                graded(Grade::Excellent, line(&[1.5e8], Says::about("~200ms", 2e8))),
                graded(Grade::NotGraded("the chapter's arithmetic".into()), Line::not_here("10000", "why")),
            ],
            shape: None,
        };
        let table =
            ChapterTable { id: "23.1-recovery".into(), groups: vec![group], ..ChapterTable::default() };
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<ChapterTable>(&text).unwrap(), table);
    }
}
