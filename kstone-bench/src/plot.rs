//! Plots as SVG: lines and points over linear or logarithmic axes with whiskers and moments along the time axis, bars,
//! and histograms one above the other. This file decides what is drawn where; `plot.svg` renders it.
//!
//! The colours are those of Okabe and Ito (Color Universal Design, 2008), which colour-blind people can tell apart;
//! lines also differ in dashes or markers. Text is dark, and at least 11 pixels high. Each point has a tooltip.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;

use crate::units;

/// Width in pixels, unless a plot is scaled down.
const WIDTH: f64 = 880.0;
/// Margins of the plane; the right one holds the names of lines, the bottom one the figures and the name of the axis.
const LEFT: f64 = 78.0;
const RIGHT: f64 = 210.0;
const BOTTOM: f64 = 46.0;
const TOP: f64 = 12.0;
const GREY: &str = "#555555";
const LIGHT: &str = "#e2e2e2";
const DARK: &str = "#222222";
/// The colours of Okabe and Ito, except for yellow, which is too light on white. KeystoneDB's is the first.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#000000"];
const DASHES: [&str; 5] = ["", "9 4", "3 3", "14 5", "6 8"];
const MARKERS: [&str; 5] = ["disc", "square", "triangle", "cross", "ring"];

/// How values are placed on an axis, and how they are formatted.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    label: String,
    log: bool,
    pub(crate) range: (f64, f64),
    format: fn(f64) -> String,
}

impl Axis {
    /// From 0 to slightly above the largest value.
    pub(crate) fn from_zero(
        label: &str,
        values: impl IntoIterator<Item = f64>,
        format: fn(f64) -> String,
    ) -> Self {
        let largest = values.into_iter().filter(|value| value.is_finite()).fold(0.0, f64::max);
        let top = if largest > 0.0 { largest * 1.06 } else { 1.0 };
        Self { label: label.to_owned(), log: false, range: (0.0, top), format }
    }

    /// Logarithmic, from below the smallest to above the largest positive value.
    pub(crate) fn log(label: &str, values: impl IntoIterator<Item = f64>, format: fn(f64) -> String) -> Self {
        let usable = values.into_iter().filter(|value| value.is_finite() && *value > 0.0);
        let (low, high) = usable.fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        let range = if low <= high { (below(low), above(high)) } else { (1.0, 10.0) };
        Self { label: label.to_owned(), log: true, range, format }
    }

    fn shows(&self, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0)
    }

    /// The position of a value: 0 at the start, 1 at the end.
    fn place(&self, value: f64) -> f64 {
        let on = |value: f64| if self.log { value.ln() } else { value };
        (on(value) - on(self.range.0)) / (on(self.range.1) - on(self.range.0))
    }

    /// Round numbers: at most `most` on a linear axis, powers of ten on a logarithmic one if there are several.
    fn ticks(&self, most: usize) -> Vec<f64> {
        let (low, high) = self.range;
        let power = |value: f64| 10_f64.powf(value.log10().floor());
        let inside = |tick: &f64| (low * 0.999..=high * 1.001).contains(tick);
        if self.log {
            let steps: &[f64] = if high / low > 200.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
            let powers = std::iter::successors(Some(power(low)), |power| Some(power * 10.0));
            let ticks = powers
                .take_while(|power| *power <= high)
                .flat_map(|power| steps.iter().map(move |step| step * power));
            return ticks.filter(inside).collect();
        }
        let least = (high - low) / most as f64;
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|step| step * power(least)).into_iter().find(|step| *step >= least);
        let step = step.unwrap_or(high - low);
        let first = (low / step).ceil();
        (0..=most).map(|n| (first + n as f64) * step).take_while(|tick| *tick <= high).collect()
    }
}

/// The next number below the value that is 1, 2 or 5 times a power of ten.
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

#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// The minimum and maximum of the values whose median is `y`.
    pub(crate) whisker: Option<(f64, f64)>,
    /// The text of its tooltip.
    pub(crate) tip: String,
}

/// A line, its points, or both, from left to right.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) look: Look,
    pub(crate) points: Vec<Point>,
}

/// The appearance of a line; without a dash, only its points are drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    colour: &'static str,
    dash: Option<&'static str>,
    marker: &'static str,
}

impl Look {
    /// A line, dashed or solid, without points.
    pub(crate) fn line(index: usize) -> Self {
        Self { colour: colour(index), dash: Some(DASHES[index % DASHES.len()]), marker: "" }
    }

    /// A solid line with points.
    pub(crate) fn points(index: usize) -> Self {
        Self { dash: Some(""), marker: MARKERS[index % MARKERS.len()], ..Self::line(index) }
    }

    /// A dashed grey line, for theory.
    pub(crate) fn theory() -> Self {
        Self { colour: GREY, dash: Some("5 4"), marker: "" }
    }

    /// Points without a connecting line.
    pub(crate) fn scattered(index: usize) -> Self {
        Self { dash: None, marker: "ring", ..Self::line(index) }
    }
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// Moments below the plot, on the same time axis.
#[derive(Clone, Debug)]
pub(crate) struct Strip {
    pub(crate) name: String,
    pub(crate) moments: Vec<f64>,
}

/// A plot of lines.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// Shown above the plot.
    pub(crate) title: String,
    /// A description in words, for screen readers.
    pub(crate) description: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Curve>,
    pub(crate) strips: Vec<Strip>,
}

/// One engine: its throughput, that of its slowest and fastest trial, and the text beside it.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) look: usize,
    pub(crate) value: f64,
    pub(crate) whisker: (f64, f64),
    pub(crate) text: String,
}

/// Engines as bars, from top to bottom.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) description: String,
    /// The quantity of the lengths, and its unit.
    pub(crate) label: String,
    pub(crate) format: fn(f64) -> String,
    pub(crate) bars: Vec<Bar>,
}

/// One engine's latencies.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) name: String,
    pub(crate) look: usize,
    /// For each bucket: its start and end in nanoseconds, and its share of all operations, 0 to 1.
    pub(crate) buckets: Vec<(f64, f64, f64)>,
    /// Names and values of percentiles, in nanoseconds.
    pub(crate) percentiles: Vec<(&'static str, f64)>,
}

/// Latencies of several engines, one above the other on the same axis.
#[derive(Clone, Debug)]
pub(crate) struct Histograms {
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) label: String,
    pub(crate) panels: Vec<Panel>,
}

type At = (f64, f64);

/// The elements drawn, in this order.
#[derive(Default, Serialize)]
struct Drawing {
    title: String,
    description: String,
    width: f64,
    height: f64,
    shapes: Vec<Element>,
    tips: Vec<Tip>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Element {
    Path { points: Vec<At>, colour: &'static str, width: u8, dash: &'static str },
    Area { at: At, size: At, colour: &'static str, opacity: f64 },
    Mark { at: At, marker: &'static str, colour: &'static str },
    Text { at: At, size: f64, anchor: &'static str, style: &'static str, text: String },
}

/// Text shown where the pointer rests.
#[derive(Serialize)]
struct Tip {
    at: At,
    radius: u8,
    text: String,
}

/// Rounds to a tenth of a pixel, which is enough.
fn round((x, y): At) -> At {
    ((x * 10.0).round() / 10.0, (y * 10.0).round() / 10.0)
}

impl Drawing {
    fn new(title: &str, description: &str, height: f64) -> Self {
        let (title, description) = (title.to_owned(), description.to_owned());
        Self { title, description, width: WIDTH, height, ..Self::default() }
    }

    fn path(&mut self, points: &[At], colour: &'static str, width: u8, dash: &'static str) {
        let points = points.iter().copied().map(round).collect();
        self.shapes.push(Element::Path { points, colour, width, dash });
    }

    /// A rectangle between two corners.
    fn area(&mut self, (left, top): At, (right, bottom): At, colour: &'static str, opacity: f64) {
        let size = round((right - left, bottom - top));
        self.shapes.push(Element::Area { at: round((left, top)), size, colour, opacity });
    }

    fn text(&mut self, at: At, size: f64, anchor: &'static str, text: &str) {
        self.styled(at, size, anchor, text, "");
    }

    /// Text in a style that the template knows: `bold` or `upright`.
    fn styled(&mut self, at: At, size: f64, anchor: &'static str, text: &str, style: &'static str) {
        self.shapes.push(Element::Text { at: round(at), size, anchor, style, text: text.to_owned() });
    }

    fn tip(&mut self, at: At, radius: u8, text: String) {
        self.tips.push(Tip { at: round(at), radius, text });
    }

    /// A line from `low` to `high`, with end marks.
    fn whisker(&mut self, low: At, high: At, colour: &'static str, width: u8) {
        self.path(&[low, high], colour, width, "");
        let across = if low.0 == high.0 { (4.0, 0.0) } else { (0.0, 5.0) };
        for (x, y) in [low, high] {
            self.path(&[(x - across.0, y - across.1), (x + across.0, y + across.1)], colour, width, "");
        }
    }

    fn line(&mut self, look: &Look, points: &[At]) {
        if let Some(dash) = look.dash {
            self.path(points, look.colour, 2, dash);
        }
        self.marks(look, points);
    }

    fn marks(&mut self, look: &Look, points: &[At]) {
        let (marker, colour) = (look.marker, look.colour);
        self.shapes.extend(points.iter().map(|at| Element::Mark { at: round(*at), marker, colour }));
    }

    /// The element for a page.
    fn svg(&self) -> Result<String> {
        let mut environment = Environment::new();
        environment.add_filter("xml", escape);
        environment.add_template("plot", include_str!("plot.svg")).context("the template of plots")?;
        environment.get_template("plot")?.render(Serde(self)).context("a plot")
    }
}

/// The position of a plane, and its axes.
struct Plane<'a> {
    x: &'a Axis,
    y: &'a Axis,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Plane<'_> {
    fn at(&self, x: f64, y: f64) -> At {
        let (across, up) = (self.x.place(x), self.y.place(y));
        (self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top))
    }

    /// Draws the axes, their figures and names, and a light grid.
    fn mesh(&self, drawing: &mut Drawing, y_ticks: usize, below: f64) {
        let Self { left, right, .. } = *self;
        for tick in self.y.ticks(y_ticks) {
            let (_, y) = self.at(self.x.range.0, tick);
            drawing.path(&[(left, y), (right, y)], LIGHT, 1, "");
            drawing.text((left - 8.0, y + 4.0), 12.5, "end", &(self.y.format)(tick));
        }
        self.upright(drawing, &self.y.label);
        self.mesh_x(drawing, below);
    }

    fn mesh_x(&self, drawing: &mut Drawing, below: f64) {
        let Self { left, right, top, bottom, .. } = *self;
        for tick in self.x.ticks(8) {
            let (x, _) = self.at(tick, self.y.range.0);
            drawing.path(&[(x, top), (x, bottom)], LIGHT, 1, "");
            if below > 0.0 {
                drawing.text((x, bottom + 17.0), 12.5, "middle", &(self.x.format)(tick));
            }
        }
        drawing.path(&[(left, top), (left, bottom), (right, bottom)], GREY, 1, "");
        if below > 0.0 {
            drawing.text((f64::midpoint(left, right), bottom + below), 13.5, "middle", &self.x.label);
        }
    }

    fn upright(&self, drawing: &mut Drawing, text: &str) {
        let at = (16.0, f64::midpoint(self.top, self.bottom));
        drawing.styled(at, 13.5, "middle", text, "upright");
    }
}

impl Chart {
    /// The plot as an element for a page.
    pub(crate) fn svg(&self) -> Result<String> {
        const STRIP: f64 = 22.0;
        let strips = if self.strips.is_empty() { 0.0 } else { self.strips.len() as f64 * STRIP + 6.0 };
        let height = 340.0 + strips;
        let mut drawing = Drawing::new(&self.title, &self.description, height);
        let (right, bottom) = (WIDTH - RIGHT, height - BOTTOM - strips);
        let plane = Plane { x: &self.x, y: &self.y, left: LEFT, right, top: TOP, bottom };
        plane.mesh(&mut drawing, 6, 36.0 + strips);
        let mut ends = Vec::new();
        for line in &self.lines {
            let shown = |point: &&Point| self.x.shows(point.x) && self.y.shows(point.y);
            let points: Vec<(&Point, At)> =
                line.points.iter().filter(shown).map(|point| (point, plane.at(point.x, point.y))).collect();
            let mut tipped = f64::NEG_INFINITY;
            for (point, at) in &points {
                // One tooltip per point, unless points are so close together that only the first would be found.
                if (at.0 - tipped).abs() >= 9.0 {
                    drawing.tip(*at, 7, format!("{}: {}", line.name, point.tip));
                    tipped = at.0;
                }
                let whisker = point.whisker.filter(|(low, high)| low < high && self.y.shows(*low));
                if let Some((low, high)) = whisker {
                    let (low, high) = (plane.at(point.x, low), plane.at(point.x, high));
                    drawing.whisker(low, high, line.look.colour, 1);
                }
            }
            let places: Vec<At> = points.iter().map(|(_, at)| *at).collect();
            drawing.line(&line.look, &places);
            ends.extend(places.last().map(|end| (end.1, line)));
        }
        names(&mut drawing, ends, right, bottom);
        for (row, strip) in self.strips.iter().enumerate() {
            strip.draw(&mut drawing, row, &plane, bottom + 26.0 + row as f64 * STRIP);
        }
        drawing.svg()
    }
}

/// The names of lines beside their ends, without overlaps.
fn names(drawing: &mut Drawing, mut ends: Vec<(f64, &Curve)>, right: f64, bottom: f64) {
    const GAP: f64 = 18.0;
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut next = TOP + 4.0;
    for (y, _) in &mut ends {
        *y = y.max(next);
        next = *y + GAP;
    }
    // Upwards from the bottom, if they do not fit.
    let mut limit = bottom;
    for (y, line) in ends.iter_mut().rev() {
        *y = y.min(limit);
        limit = *y - GAP;
        let sample = [(right + 10.0, *y), (right + 38.0, *y)];
        drawing.line(&Look { marker: "", ..line.look }, &sample);
        drawing.marks(&line.look, &[(right + 24.0, *y)]);
        drawing.text((right + 46.0, *y + 4.0), 12.5, "start", &shortened(&line.name, 22));
    }
}

impl Strip {
    /// Draws a row of moments, darker where several fall on the same few pixels.
    fn draw(&self, drawing: &mut Drawing, row: usize, plane: &Plane<'_>, top: f64) {
        const CELL: f64 = 3.0;
        const HEIGHT: f64 = 14.0;
        drawing.area((plane.left, top), (plane.right, top + HEIGHT), LIGHT, 0.4);
        let inside = self.moments.iter().filter(|moment| (0.0..=plane.x.range.1).contains(*moment));
        let places: Vec<f64> = inside.map(|moment| plane.at(*moment, plane.y.range.0).0).collect();
        let mut cells = BTreeMap::new();
        for place in &places {
            *cells.entry(((place - plane.left) / CELL) as u32).or_insert(0_u32) += 1;
        }
        let most = f64::from(cells.values().copied().max().unwrap_or(1));
        for (cell, count) in cells {
            let x = plane.left + f64::from(cell) * CELL;
            let opacity = 0.35 + 0.65 * f64::from(count) / most;
            drawing.area((x, top + 1.0), (x + CELL, top + HEIGHT - 1.0), colour(row * 2 + 1), opacity);
            drawing.tip((x + 1.0, top + HEIGHT / 2.0), 5, format!("{}: {count} here", self.name));
        }
        let label = shortened(&format!("{}: {}", self.name, places.len()), 28);
        drawing.text((plane.right + 8.0, top + 11.0), 12.5, "start", &label);
    }
}

impl Bars {
    /// The plot as an element for a page.
    pub(crate) fn svg(&self) -> Result<String> {
        const ROW: f64 = 30.0;
        let height = self.bars.len() as f64 * ROW + BOTTOM + 16.0;
        let mut drawing = Drawing::new(&self.title, &self.description, height);
        let x = Axis::from_zero(
            &self.label,
            self.bars.iter().map(|bar| bar.whisker.1.max(bar.value)),
            self.format,
        );
        let y = Axis::from_zero("engine", [self.bars.len() as f64 / 1.06], |_| String::new());
        let plane =
            Plane { x: &x, y: &y, left: 205.0, right: WIDTH - 250.0, top: 8.0, bottom: height - BOTTOM };
        plane.upright(&mut drawing, "engine");
        plane.mesh_x(&mut drawing, 36.0);
        for (row, bar) in self.bars.iter().enumerate() {
            let at = |value: f64| plane.at(value.clamp(0.0, x.range.1), (self.bars.len() - row) as f64 - 0.5);
            let ((left, y), (end, _)) = (at(0.0), at(bar.value));
            drawing.area((left, y - 9.0), (end, y + 9.0), colour(bar.look), 0.85);
            drawing.whisker(at(bar.whisker.0), at(bar.whisker.1), DARK, 2);
            drawing.text((left - 8.0, y + 4.0), 12.5, "end", &shortened(&bar.name, 24));
            drawing.text((plane.right + 8.0, y + 4.0), 12.5, "start", &bar.text);
            drawing.tip((end, y), 12, format!("{}: {}", bar.name, bar.text));
        }
        drawing.svg()
    }
}

impl Histograms {
    /// The plot as an element for a page.
    pub(crate) fn svg(&self) -> Result<String> {
        const PANEL: f64 = 104.0;
        let count = self.panels.len();
        let mut drawing = Drawing::new(&self.title, &self.description, TOP + count as f64 * PANEL + BOTTOM);
        let edges = self.panels.iter().flat_map(|panel| panel.buckets.iter()).flat_map(|b| [b.0, b.1]);
        let x = Axis::log(&self.label, edges, units::tick);
        for (row, panel) in self.panels.iter().enumerate() {
            let top = TOP + row as f64 * PANEL + 10.0;
            let below = if row + 1 == count { 36.0 } else { 0.0 };
            panel.draw(&mut drawing, &x, (top, top + PANEL - 10.0), below);
        }
        drawing.svg()
    }
}

impl Panel {
    fn draw(&self, drawing: &mut Drawing, x: &Axis, (top, bottom): (f64, f64), below: f64) {
        let percent = |share: f64| format!("{} %", units::short(share * 100.0));
        let mut y = Axis::from_zero("share", self.buckets.iter().map(|bucket| bucket.2), percent);
        // Leaves space for the names of percentiles above the bulk.
        y.range.1 *= 1.25;
        let right = WIDTH - RIGHT;
        let plane = Plane { x, y: &y, left: LEFT, right, top, bottom };
        plane.mesh(drawing, 3, below);
        for (begin, end, share) in self.buckets.iter().copied().filter(|bucket| bucket.2 > 0.0) {
            let ((left, bottom), (right, top)) = (plane.at(begin, 0.0), plane.at(end, share));
            drawing.area((left, top), (right, bottom), colour(self.look), 0.75);
            let range = format!("{} to {}", units::nanoseconds(begin), units::nanoseconds(end));
            let text = format!("{}: {} of all, {range}", self.name, units::percent(share));
            drawing.tip((f64::midpoint(left, right), top), 6, text);
        }
        drawing.styled((right + 8.0, top + 10.0), 13.0, "start", &shortened(&self.name, 24), "bold");
        for (row, (name, nanos)) in self.percentiles.iter().enumerate() {
            let text = format!("{name}  {}", units::nanoseconds(*nanos));
            drawing.text((right + 8.0, top + 27.0 + row as f64 * 16.0), 12.5, "start", &text);
            if (x.range.0..=x.range.1).contains(nanos) {
                let (at, _) = plane.at(*nanos, 0.0);
                drawing.path(&[(at, bottom), (at, top)], DARK, 1, "4 3");
                drawing.text((at + 3.0, top + 11.0 + row as f64 * 14.0), 11.5, "start", name);
                drawing.tip((at, top + 8.0), 6, format!("{}: {text}", self.name));
            }
        }
    }
}

/// Escapes element text and attributes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Cuts the label to `most` characters.
fn shortened(label: &str, most: usize) -> String {
    if label.chars().count() <= most {
        return label.to_owned();
    }
    label.chars().take(most.saturating_sub(1)).chain(['…']).collect()
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

    #[test]
    fn ticks_are_round_and_on_the_axis() {
        assert_eq!(
            Axis::from_zero("x", [100.0], units::short).ticks(6),
            [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
        );
        assert_eq!(Axis::log("x", [3.0, 40.0], units::short).ticks(6), [2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(Axis::log("x", [3.0, 4000.0], units::short).ticks(6), [10.0, 100.0, 1000.0]);
    }
}
