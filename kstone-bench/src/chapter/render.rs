//! Tables on a terminal and in Markdown: the same cells.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};

use super::table::{ChapterTable, Group, Line, Measured};
use super::verdict::Grade;

/// The heads of the columns. That of the second is what differs from line to line.
pub(crate) const HEADS: [&str; 8] =
    ["quantity", "by", "chapter says", "measured", "ratio", "model", "shape holds?", "grade"];

/// For a terminal, at most `width` columns wide.
pub fn text(table: &ChapterTable, width: u16) -> String {
    let mut text = format!("{} {}\n{}\n", table.id, table.title, around(table));
    let rows = rows(table);
    if !rows.is_empty() {
        let mut grid = Table::new();
        grid.load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width)
            .set_header(HEADS);
        rows.into_iter().for_each(|row| {
            grid.add_row(row);
        });
        let _ = writeln!(text, "{grid}");
    }
    after(table).into_iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    text
}

/// For a document, with a heading of the third level.
pub fn markdown(table: &ChapterTable) -> String {
    let mut text = format!("### {} {}\n\n{}\n\n", table.id, table.title, around(table));
    let rows = rows(table);
    if !rows.is_empty() {
        let _ = writeln!(text, "| {} |\n|{}", HEADS.join(" | "), "---|".repeat(HEADS.len()));
        for row in rows {
            let cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text.push('\n');
    }
    for line in after(table) {
        let _ = writeln!(text, "* {line}");
    }
    text
}

pub(crate) fn around(table: &ChapterTable) -> String {
    let trials = if table.trials == 1 { "1 trial.".into() } else { format!("{} trials.", table.trials) };
    format!("{} {trials}", table.done)
}

/// Claims with what decided them, reasons, notes.
pub(crate) fn after(table: &ChapterTable) -> Vec<String> {
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

/// Why lines have no figure or no grade; rows with the same reason together.
fn reasons(group: &Group) -> Vec<String> {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for line in &group.lines {
        let reason = match (&line.measured, &line.grade) {
            (Measured::NotHere(why), _) => format!("not measurable here: {why}"),
            (_, Some(Grade::NotGraded(why))) => format!("not graded: {why}"),
            _ => continue,
        };
        match reasons.iter_mut().find(|(same, _)| *same == reason) {
            Some((_, rows)) => rows.push(&line.row),
            None => reasons.push((reason, vec![&line.row])),
        }
    }
    let text =
        |(reason, rows): (String, Vec<&str>)| format!("{}, {}: {reason}", group.quantity, rows.join(", "));
    reasons.into_iter().map(text).collect()
}

pub(crate) fn rows(table: &ChapterTable) -> Vec<Vec<String>> {
    table.groups.iter().flat_map(group_rows).collect()
}

fn group_rows(group: &Group) -> Vec<Vec<String>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chapter::table::Says;
    use crate::chapter::unit::Unit;
    use crate::chapter::verdict::{Direction, monotone};

    fn table() -> ChapterTable {
        let group = Group::new("write throughput", Unit::PerSecond, "threshold")
            .lines([
                Line::new("500", vec![90_000.0, 110_000.0])
                    .says(Says::words("Lower"))
                    .graded(|_| Grade::Good),
                Line::new("1000", vec![80_000.0]).says(Says::about("50,000", 50_000.0)).model(70_000.0),
                Line::not_here("5000", "it needs more cores").says(Says::about("70,000", 70_000.0)),
                Line::new("10000 | most", vec![60_000.0]).not_graded("the arithmetic fails"),
            ])
            .judged(|points| monotone("more is faster.", Direction::Rises, points, 0.05));
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
        let text = markdown(&table());
        println!("{text}");
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 6, "{text}");
        assert_eq!(
            rows[2],
            "| write throughput | threshold 500 | Lower | 100,000/s [90,000/s … 110,000/s] | - | - | NO | Good |"
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
        let lines = ["4", "8"].map(|row| Line::not_here(row, "2 cores"));
        let group = Group::new("speed", Unit::Times, "").lines(lines);
        assert_eq!(reasons(&group), ["speed, 4, 8: not measurable here: 2 cores"]);
    }

    #[test]
    fn a_terminal_gets_the_same_cells() {
        let text = text(&table(), 160);
        for words in
            ["23.1-throughput Write throughput", "chapter says", "shape holds?", "80,000/s", "1.60", "NO"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 160), "{text}");
    }
}
