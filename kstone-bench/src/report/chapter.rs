//! Tables of the specification's chapter, and a plot for each quantity whose rows are numbers.

use anyhow::Result;

use super::{Plot, Section, Table};
use crate::chapter::{ChapterTable, Group, Line, Measured, Unit, render};
use crate::plot::{self, Axis, Chart, Look, Point};
use crate::units;

/// Values that lie further apart are shown by their logarithms.
const WIDE: f64 = 20.0;

/// One table.
pub(super) fn section(table: &ChapterTable) -> Result<Section> {
    let mut cells = Table::new("Chapter and measurement", &render::HEADS);
    for row in render::rows(table) {
        cells.push(false, row);
    }
    let plots = table.groups.iter().filter_map(|group| plot(table, group).transpose());
    Ok(Section {
        title: format!("Chapter {} {}", table.id, table.title),
        about: render::around(table),
        plots: plots.collect::<Result<_>>()?,
        tables: vec![cells],
        notes: render::after(table),
        ..Section::default()
    })
}

fn plot(table: &ChapterTable, group: &Group) -> Result<Option<Plot>> {
    let measured = points(group, |line| {
        let median = line.measured.median()?;
        Some((median, line.measured.range()))
    });
    // More or less than something has no place on an axis that begins at 0.
    if measured.len() < 2 || group.unit == Unit::PercentMore {
        return Ok(None);
    }
    let model = points(group, |line| line.model.map(|model| (model, None)));
    let says = points(group, |line| {
        let (low, high) = line.says.as_ref().and_then(|says| says.low.zip(says.high))?;
        Some((f64::midpoint(low, high), Some((low, high))))
    });
    let lines: Vec<plot::Line> = [
        ("measured", Look::points(0), measured),
        ("model", Look::theory(), model),
        ("chapter says", Look::scattered(1), says),
    ]
    .into_iter()
    .filter(|(_, _, points)| !points.is_empty())
    .map(|(name, look, points)| plot::Line { name: name.to_owned(), look, points })
    .collect();
    let title = format!("{}: {} by {}", table.id, group.quantity, group.by);
    let all = || lines.iter().flat_map(|line| &line.points);
    let ends = all().flat_map(|point| point.whisker.map_or([point.y; 2], |(low, high)| [low, high]));
    let chart = Chart {
        title: title.clone(),
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
    Ok(Some(Plot { title, caption, svg: chart.svg()?, table: None }))
}

/// Where a line has both a place and a figure.
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

/// What the figures on the axis leave out.
fn suffix(unit: Unit) -> &'static str {
    match unit {
        Unit::PerSecond | Unit::BytesPerSecond => ", per second",
        Unit::Cores => ", cores",
        Unit::Times => ", times",
        Unit::Nanos | Unit::Bytes | Unit::Percent | Unit::PercentMore | Unit::Count => "",
    }
}
