//! Tables of the specification's chapter: the same cells on a terminal, in Markdown and on a page, with a plot for each
//! quantity whose rows are numbers.

use anyhow::Result;

use super::{Plot, Section, Table, page};
use crate::chapter::{ChapterTable, Grade, Group, Line, Measured};
use crate::plot::{Axis, Chart, Curve, Look, Point};
use crate::results::grouped;
use crate::units::{self, Unit};

/// Values further apart than this factor are plotted on a logarithmic axis.
const WIDE: f64 = 20.0;
/// The headings of the columns. The second depends on the parameter that differs from line to line.
const HEADS: [&str; 8] =
    ["quantity", "by", "chapter says", "measured", "ratio", "model", "shape holds?", "grade"];

/// One table, without its plots.
fn cells(table: &ChapterTable) -> Section {
    let mut cells = Table::new("", &HEADS);
    table.groups.iter().flat_map(rows).for_each(|row| cells.push(false, row));
    let trials = if table.trials == 1 { "1 trial.".into() } else { format!("{} trials.", table.trials) };
    Section {
        title: format!("{} {}", table.id, table.title),
        about: format!("{} {trials}", table.done),
        tables: vec![cells],
        notes: notes(table),
        ..Section::default()
    }
}

/// One table in a report.
pub(super) fn section(table: &ChapterTable) -> Result<Section> {
    let mut section = cells(table);
    section.title.insert_str(0, "Chapter ");
    section.tables[0].caption = "Chapter and measurement".to_owned();
    let plots = table.groups.iter().filter_map(|group| plot(table, group).transpose());
    section.plots = plots.collect::<Result<_>>()?;
    Ok(section)
}

/// A table for a document, with a third-level heading.
pub fn chapter_markdown(table: &ChapterTable) -> Result<String> {
    page::section(&cells(table))
}

/// A table for a terminal, at most `width` columns wide.
pub fn chapter_text(table: &ChapterTable, width: u16) -> String {
    super::text(&cells(table), width)
}

/// Claims with the figures that decided them, reasons, notes.
fn notes(table: &ChapterTable) -> Vec<String> {
    let mut lines = Vec::new();
    for group in &table.groups {
        if let Some(shape) = &group.shape {
            lines.push(format!("{}: {} {} ({})", group.quantity, shape.claim, holds(shape.holds), shape.why));
        }
        lines.extend(reasons(group));
    }
    lines.extend(table.notes.iter().cloned());
    lines.extend(table.error.iter().map(|error| format!("FAILED: {error}")));
    lines
}

/// Why lines have no figure or no grade, with rows of the same reason combined.
fn reasons(group: &Group) -> Vec<String> {
    let reason = |line: &Line| match (&line.measured, &line.grade) {
        (Measured::NotHere(why), _) => Some(format!("not measurable here: {why}")),
        (_, Some(Grade::NotGraded(why))) => Some(format!("not graded: {why}")),
        _ => None,
    };
    let reasons = grouped(group.lines.iter().filter_map(|line| Some((reason(line)?, line.row.as_str()))));
    let text =
        |(reason, rows): (String, Vec<&str>)| format!("{}, {}: {reason}", group.quantity, rows.join(", "));
    reasons.into_iter().map(text).collect()
}

fn rows(group: &Group) -> Vec<Vec<String>> {
    let numbered = group.lines.iter().enumerate();
    numbered
        .map(|(number, line)| {
            let first = |text: String| if number == 0 { text } else { String::new() };
            let none = String::from("-");
            vec![
                first(group.quantity.clone()),
                format!("{} {}", group.by, line.row).trim().to_owned(),
                line.says.as_ref().map_or(none.clone(), |says| says.text.clone()),
                measured(group, line),
                line.ratio(group.unit).map_or(none.clone(), ratio_text),
                line.model.map_or(none.clone(), |model| group.unit.text(model)),
                first(group.shape.as_ref().map_or(none.clone(), |shape| holds(shape.holds).into())),
                line.grade.as_ref().map_or(none, |grade| grade_text(grade).into()),
            ]
        })
        .collect()
}

fn measured(group: &Group, line: &Line) -> String {
    let Some(median) = line.measured.median() else { return "not measurable here".into() };
    let text = group.unit.text(median);
    match line.measured.range() {
        Some((low, high)) => format!("{text} [{} … {}]", group.unit.text(low), group.unit.text(high)),
        None => text,
    }
}

fn ratio_text(ratio: f64) -> String {
    let size = ratio.abs();
    let places = match size {
        _ if size >= 9.95 || size == 0.0 => 0,
        _ if size >= 0.095 => 2,
        _ => (1.0 - size.log10().floor()).clamp(2.0, 8.0) as usize,
    };
    format!("{ratio:.places$}")
}

fn holds(holds: Option<bool>) -> &'static str {
    match holds {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "not measurable here",
    }
}

fn grade_text(grade: &Grade) -> &'static str {
    match grade {
        Grade::Excellent => "Excellent",
        Grade::Good => "Good",
        Grade::Missed => "missed",
        Grade::NotGraded(_) => "not graded",
    }
}

fn plot(table: &ChapterTable, group: &Group) -> Result<Option<Plot>> {
    let measured = points(group, |line| {
        let median = line.measured.median()?;
        Some((median, line.measured.range()))
    });
    // A relative change cannot be shown on an axis that starts at 0.
    if measured.len() < 2 || group.unit == Unit::PercentMore {
        return Ok(None);
    }
    let model = points(group, |line| line.model.map(|model| (model, None)));
    let says = points(group, |line| {
        let (low, high) = line.says.as_ref().and_then(|says| says.low.zip(says.high))?;
        Some((f64::midpoint(low, high), Some((low, high))))
    });
    let lines: Vec<Curve> = [
        ("measured", Look::points(0), measured),
        ("model", Look::theory(), model),
        ("chapter says", Look::scattered(1), says),
    ]
    .into_iter()
    .filter(|(_, _, points)| !points.is_empty())
    .map(|(name, look, points)| Curve { name: name.to_owned(), look, points })
    .collect();
    let title = format!("{}: {} by {}", table.id, group.quantity, group.by);
    let all = || lines.iter().flat_map(|line| &line.points);
    let ends = all().flat_map(|point| point.whisker.map_or([point.y; 2], |(low, high)| [low, high]));
    let chart = Chart {
        title,
        description: format!(
            "{} by {}, measured, and what the chapter and the model say.",
            group.quantity, group.by
        ),
        x: axis(&group.by, all().map(|point| point.x).collect(), units::short),
        y: axis(&format!("{}{}", group.quantity, suffix(group.unit)), ends.collect(), format(group.unit)),
        lines,
        strips: Vec::new(),
    };
    let shape = group.shape.as_ref();
    let caption = shape.map_or_else(
        || "Medians, whiskers from the smallest to the largest.".to_owned(),
        |shape| format!("{} {}", shape.claim, shape.why),
    );
    Plot::of(chart, &caption, None).map(Some)
}

/// The lines that have both a position and a figure.
fn points(group: &Group, figure: impl Fn(&Line) -> Option<(f64, Option<(f64, f64)>)>) -> Vec<Point> {
    let mut points: Vec<Point> = group
        .lines
        .iter()
        .filter(|line| !matches!(line.measured, Measured::NotHere(_)))
        .filter_map(|line| {
            let (x, (y, whisker)) = line.at.zip(figure(line))?;
            let tip = format!("{} at {}", group.unit.text(y), line.row);
            (x.is_finite() && y.is_finite() && y >= 0.0).then_some(Point { x, y, whisker, tip })
        })
        .collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    points
}

fn axis(label: &str, values: Vec<f64>, format: fn(f64) -> String) -> Axis {
    let (low, high) =
        values.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(*v), high.max(*v)));
    if low > 0.0 && high > low * WIDE {
        return Axis::log(&format!("{label} (logarithmic)"), values, format);
    }
    Axis::from_zero(label, values, format)
}

fn format(unit: Unit) -> fn(f64) -> String {
    match unit {
        Unit::Nanos => units::tick,
        Unit::Bytes | Unit::BytesPerSecond => {
            |bytes| bytesize::ByteSize(bytes.max(0.0) as u64).display().si().to_string()
        }
        Unit::Percent | Unit::PercentMore => |percent| format!("{} %", units::short(percent)),
        Unit::Count | Unit::PerSecond | Unit::Times | Unit::Cores => units::short,
    }
}

/// The unit that figures on the axis omit.
fn suffix(unit: Unit) -> &'static str {
    match unit {
        Unit::PerSecond | Unit::BytesPerSecond => ", per second",
        Unit::Cores => ", cores",
        Unit::Times => ", times",
        Unit::Nanos | Unit::Bytes | Unit::Percent | Unit::PercentMore | Unit::Count => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chapter::{Direction, Says, monotone};

    fn table() -> ChapterTable {
        let said = |text: &str, value| Some(Says::about(text, value));
        let points =
            [("500", 1e5), ("1000", 8e4), ("10000 | most", 6e4)].map(|(row, value)| (row.into(), value));
        let group = Group {
            quantity: "write throughput".into(),
            unit: Unit::PerSecond,
            by: "threshold".into(),
            lines: vec![
                Line {
                    says: Some(Says::words("Lower")),
                    grade: Some(Grade::Good),
                    ..Line::new("500", vec![90_000.0, 110_000.0])
                },
                Line { says: said("50,000", 5e4), model: Some(7e4), ..Line::new("1000", vec![80_000.0]) },
                Line { says: said("70,000", 7e4), ..Line::not_here("5000", "it needs more cores") },
                Line {
                    grade: Some(Grade::NotGraded("the arithmetic fails".into())),
                    ..Line::new("10000 | most", vec![60_000.0])
                },
            ],
            shape: Some(monotone("more is faster.", Direction::Rises, &points, 0.05)),
        };
        ChapterTable {
            id: "23.1-throughput".into(),
            title: "Write throughput".into(),
            done: "Nothing was done.".into(),
            trials: 2,
            groups: vec![group],
            notes: vec!["A note.".into()],
            seconds: 1.0,
            error: Some("the disk is full".into()),
        }
    }

    #[test]
    fn markdown_has_a_row_for_each_line_and_every_column() {
        let text = chapter_markdown(&table()).unwrap();
        println!("{text}");
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 6, "{text}");
        assert_eq!(
            rows[2],
            "| write throughput | threshold 500 | Lower | 100,000/s \\[90,000/s … 110,000/s\\] | - | - | NO | Good |"
        );
        assert_eq!(rows[3], "|  | threshold 1000 | 50,000 | 80,000/s | 1.60 | 70,000/s |  | - |");
        assert_eq!(rows[4], "|  | threshold 5000 | 70,000 | not measurable here | - | - |  | - |");
        assert_eq!(rows[5], "|  | threshold 10000 \\| most | - | 60,000/s | - | - |  | not graded |");
        for words in [
            "Nothing was done. 2 trials.",
            "more is faster. NO (",
            "5000: not measurable here: it needs more cores",
            "not graded: the arithmetic fails",
            "* A note.",
            "* FAILED: the disk is full",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn small_ratios_have_two_digits_and_reasons_are_told_once() {
        let texts =
            [("0.0083", 0.008_31), ("0.10", 0.1), ("1.00", 1.0), ("30", 30.4), ("0.00041", 0.000_412)];
        texts.into_iter().for_each(|(text, ratio)| assert_eq!(ratio_text(ratio), text));
        let lines = ["4", "8"].map(|row| Line::not_here(row, "2 cores")).to_vec();
        let (quantity, unit, by) = ("speed".into(), Unit::Times, String::new());
        let group = Group { quantity, unit, by, lines, shape: None };
        assert_eq!(reasons(&group), ["speed, 4, 8: not measurable here: 2 cores"]);
    }

    #[test]
    fn a_terminal_gets_the_same_cells() {
        let text = chapter_text(&table(), 160);
        for words in
            ["23.1-throughput Write throughput", "chapter says", "shape holds?", "80,000/s", "1.60", "NO"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 160), "{text}");
    }
}
