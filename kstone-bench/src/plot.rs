//! Plots as SVG, drawn by `plotters`: lines and points over linear or logarithmic axes, with whiskers, marks along the
//! time axis, and a label beside each line.
//!
//! Colours are those of Okabe and Ito (Color Universal Design, 2008), which colour-blind people tell apart; lines differ
//! in their dashes or markers as well. Text is dark, and 12 pixels high at least. What a point stands for is in its
//! tooltip.

use std::fmt::Write as _;

use anyhow::Result;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

mod bars;
mod histogram;
mod style;

pub use bars::{Bar, Bars};
pub use histogram::{Histograms, Panel};
pub use style::{Look, Marker};

/// Pixels, when a plot is not made smaller.
pub const WIDTH: u32 = 880;
const LEFT: i32 = 78;
/// For labels beside lines.
const RIGHT: i32 = 210;
const BOTTOM: i32 = 46;
const TOP: i32 = 12;
const STRIP: i32 = 22;
/// From the axis to below its figures.
const TICKS: i32 = 30;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plane<'a, X, Y> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>;

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithms.
    Log,
}

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, and in what unit.
    pub label: String,
    /// How.
    pub scale: Scale,
    /// From where to where.
    pub range: (f64, f64),
    /// A value on it, as text.
    pub format: fn(f64) -> String,
}

impl Axis {
    /// From 0 to a bit above the largest.
    pub fn from_zero(label: &str, values: impl IntoIterator<Item = f64>, format: fn(f64) -> String) -> Self {
        let largest = values.into_iter().filter(|value| value.is_finite()).fold(0.0, f64::max);
        let top = if largest > 0.0 { largest * 1.06 } else { 1.0 };
        Self { label: label.to_owned(), scale: Scale::Linear, range: (0.0, top), format }
    }

    /// By logarithms, from below the smallest to above the largest of those that have one.
    pub fn log(label: &str, values: impl IntoIterator<Item = f64>, format: fn(f64) -> String) -> Self {
        let usable = values.into_iter().filter(|value| value.is_finite() && *value > 0.0);
        let (low, high) = usable.fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        let range = if low <= high { (below(low), above(high)) } else { (1.0, 10.0) };
        Self { label: label.to_owned(), scale: Scale::Log, range, format }
    }

    fn shows(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }
}

/// 1, 2 or 5 times a power of ten that is below.
fn below(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor());
    let step = [5.0, 2.0].into_iter().find(|step| unit * step < value * 0.95).unwrap_or(1.0);
    if value > unit * 1.05 { unit * step } else { unit / 2.0 }
}

fn above(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().find(|step| unit * step > value * 1.05).unwrap_or(10.0);
    unit * step
}

/// A point of a line.
#[derive(Clone, Debug)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// Where.
    pub y: f64,
    /// The smallest and the largest of what `y` is the middle of.
    pub whisker: Option<(f64, f64)>,
    /// What it stands for.
    pub tip: String,
}

/// A line, its points, or both.
#[derive(Clone, Debug)]
pub struct Line {
    /// What stands beside it.
    pub name: String,
    /// How it looks.
    pub look: Look,
    /// From left to right.
    pub points: Vec<Point>,
}

/// Moments below the plot, on the same time axis.
#[derive(Clone, Debug)]
pub struct Strip {
    /// What happened.
    pub name: String,
    /// When.
    pub moments: Vec<f64>,
}

/// A plot of lines.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Its title, which whoever shows the plot shows above it.
    pub title: String,
    /// What it shows, for those who do not see it.
    pub description: String,
    /// From left to right.
    pub x: Axis,
    /// From below to above.
    pub y: Axis,
    /// The lines.
    pub lines: Vec<Line>,
    /// Moments, a row each.
    pub strips: Vec<Strip>,
}

/// Text that appears where the pointer rests.
struct Tip {
    at: (i32, i32),
    radius: i32,
    text: String,
}

impl Chart {
    /// The plot as an element for a page.
    ///
    /// # Errors
    /// An axis has no extent.
    pub fn svg(&self) -> Result<String> {
        let strips = if self.strips.is_empty() { 0 } else { self.strips.len() as i32 * STRIP + 6 };
        let height = 340 + strips;
        let (mut svg, mut tips) = (String::new(), Vec::new());
        {
            let root = SVGBackend::with_string(&mut svg, (WIDTH, height as u32)).into_drawing_area();
            root.fill(&WHITE)?;
            let mut builder = ChartBuilder::on(&root);
            builder.margin_top(TOP).margin_right(RIGHT);
            builder.x_label_area_size(BOTTOM + strips).y_label_area_size(LEFT);
            let (x, y) = (self.x.range.0..self.x.range.1, self.y.range.0..self.y.range.1);
            match (self.x.scale, self.y.scale) {
                (Scale::Linear, Scale::Linear) => {
                    self.draw(builder.build_cartesian_2d(x, y)?, &root, &mut tips)?;
                }
                (Scale::Linear, Scale::Log) => {
                    self.draw(builder.build_cartesian_2d(x, y.log_scale())?, &root, &mut tips)?;
                }
                (Scale::Log, Scale::Linear) => {
                    self.draw(builder.build_cartesian_2d(x.log_scale(), y)?, &root, &mut tips)?;
                }
                (Scale::Log, Scale::Log) => {
                    self.draw(builder.build_cartesian_2d(x.log_scale(), y.log_scale())?, &root, &mut tips)?;
                }
            }
            root.present()?;
        }
        Ok(finish(&svg, (WIDTH, height as u32), &self.title, &self.description, &tips))
    }

    fn draw<'a, X, Y>(&self, mut plane: Plane<'a, X, Y>, root: &Area<'a>, tips: &mut Vec<Tip>) -> Result<()>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        mesh(&mut plane, &self.x, &self.y, 6)?;
        let mut ends = Vec::new();
        for line in &self.lines {
            let shown = |point: &&Point| self.x.shows(point.x) && self.y.shows(point.y);
            let points: Vec<&Point> = line.points.iter().filter(shown).collect();
            let pixels: Vec<(i32, i32)> =
                points.iter().map(|point| plane.backend_coord(&(point.x, point.y))).collect();
            let mut tipped = i32::MIN / 2;
            for (point, pixel) in points.iter().zip(&pixels) {
                // One each, but where points are so near each other that only the first would be found.
                if (pixel.0 - tipped).abs() >= 9 {
                    tips.push(Tip { at: *pixel, radius: 7, text: format!("{}: {}", line.name, point.tip) });
                    tipped = pixel.0;
                }
                if let Some((low, high)) =
                    point.whisker.filter(|(low, high)| low < high && self.y.shows(*low))
                {
                    let end = |y: f64| plane.backend_coord(&(point.x, y)).1;
                    style::whisker(root, line.look.colour, pixel.0, end(low), end(high))?;
                }
            }
            line.look.draw(root, &pixels)?;
            ends.extend(pixels.last().map(|end| (end.1, line)));
        }
        let (right, bottom) = plane.backend_coord(&(self.x.range.1, self.y.range.0));
        let left = plane.backend_coord(&(self.x.range.0, self.y.range.0)).0;
        labels(root, ends, right, bottom)?;
        for (row, strip) in self.strips.iter().enumerate() {
            let top = bottom + TICKS + row as i32 * STRIP;
            let pixel = |moment: f64| plane.backend_coord(&(moment, self.y.range.0)).0;
            let inside = strip.moments.iter().filter(|moment| (0.0..=self.x.range.1).contains(*moment));
            let moments: Vec<i32> = inside.map(|moment| pixel(*moment)).collect();
            style::strip(root, row, &strip.name, (left, right, top), &moments, tips)?;
        }
        Ok(())
    }
}

/// Axes, their labels and a light grid.
fn mesh<X, Y>(plane: &mut Plane<'_, X, Y>, x: &Axis, y: &Axis, y_labels: usize) -> Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    plane
        .configure_mesh()
        .x_desc(x.label.clone())
        .y_desc(y.label.clone())
        .x_labels(8)
        .y_labels(y_labels)
        .label_style(style::text(12.5))
        .axis_desc_style(style::text(13.5))
        .axis_style(style::GREY)
        .bold_line_style(style::LIGHT)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|value| (x.format)(*value))
        .y_label_formatter(&|value| (y.format)(*value))
        .draw()?;
    Ok(())
}

/// The lines' names beside where they end, apart from each other.
fn labels(root: &Area<'_>, mut ends: Vec<(i32, &Line)>, right: i32, bottom: i32) -> Result<()> {
    const GAP: i32 = 18;
    ends.sort_by_key(|(y, _)| *y);
    let mut next = TOP + 4;
    let mut places: Vec<i32> = Vec::new();
    for (y, _) in &ends {
        let place = (*y).max(next);
        next = place + GAP;
        places.push(place);
    }
    // From the bottom up again, if they do not fit.
    let mut limit = bottom;
    for place in places.iter_mut().rev() {
        *place = (*place).min(limit);
        limit = *place - GAP;
    }
    for ((_, line), y) in ends.iter().zip(places) {
        line.look.sample(root, (right + 10, right + 38), y)?;
        root.draw(&Text::new(style::shortened(&line.name, 22), (right + 46, y - 7), style::text(12.5)))?;
    }
    Ok(())
}

/// The element, with names for those who do not see it, and tooltips.
fn finish(svg: &str, size: (u32, u32), title: &str, description: &str, tips: &[Tip]) -> String {
    let body = svg.split_once('>').map_or("", |(_, body)| body).trim_end().trim_end_matches("</svg>");
    let mut text = format!(
        "<svg class=\"plot\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\"><title>{}</title>{body}",
        size.0,
        size.1,
        style::escape(description),
        style::escape(title)
    );
    text.push_str("<g fill-opacity=\"0\">\n");
    for Tip { at: (x, y), radius, text: tip } in tips {
        let tip = style::escape(tip);
        let _ = writeln!(text, "<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"><title>{tip}</title></circle>");
    }
    text.push_str("</g></svg>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_by_logarithms_begin_and_end_at_round_numbers_around_the_values() {
        let ends = |values: [f64; 2]| Axis::log("x", values, |x| x.to_string()).range;
        assert_eq!(ends([3.0, 40.0]), (2.0, 50.0));
        assert_eq!(ends([1.0, 9.0]), (0.5, 10.0));
        assert_eq!(ends([f64::NAN, 0.0]), (1.0, 10.0), "nothing to show");
        assert_eq!(Axis::from_zero("x", [], |x| x.to_string()).range, (0.0, 1.0));
    }
}
