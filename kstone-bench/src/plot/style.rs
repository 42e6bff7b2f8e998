//! Colours, dashes, markers and text of plots.

use anyhow::Result;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::{FontStyle, TextStyle};

use super::{Area, Tip};

pub(super) const GREY: RGBColor = RGBColor(0x55, 0x55, 0x55);
pub(super) const LIGHT: RGBColor = RGBColor(0xe2, 0xe2, 0xe2);
pub(super) const DARK: RGBColor = RGBColor(0x22, 0x22, 0x22);

/// Okabe and Ito's colours but for yellow, which is too light on white. Ours is the first.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x00, 0x00),
];
/// Pixels that are drawn and left out; nothing left out: a whole line.
const DASHES: [(u32, u32); 5] = [(0, 0), (9, 4), (3, 3), (14, 5), (6, 8)];

/// What a point looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Points are not shown.
    None,
    /// A disc.
    Disc,
    /// A square.
    Square,
    /// A triangle.
    Triangle,
    /// A cross.
    Cross,
    /// A ring.
    Ring,
}

const MARKERS: [Marker; 5] = [Marker::Disc, Marker::Square, Marker::Triangle, Marker::Cross, Marker::Ring];

/// What a line looks like.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub(super) colour: RGBColor,
    dash: Option<(u32, u32)>,
    marker: Marker,
}

impl Look {
    /// A line, dashed or whole, without points.
    pub fn line(index: usize) -> Self {
        Self {
            colour: COLOURS[index % COLOURS.len()],
            dash: Some(DASHES[index % DASHES.len()]),
            marker: Marker::None,
        }
    }

    /// A whole line with points.
    pub fn points(index: usize) -> Self {
        Self { dash: Some((0, 0)), marker: MARKERS[index % MARKERS.len()], ..Self::line(index) }
    }

    /// A dashed line in grey: what theory says.
    pub fn theory() -> Self {
        Self { colour: GREY, dash: Some((5, 4)), marker: Marker::None }
    }

    /// Points that no line connects.
    pub fn scattered(index: usize) -> Self {
        Self { dash: None, marker: Marker::Ring, ..Self::line(index) }
    }

    /// Draws through these pixels.
    pub(super) fn draw(&self, root: &Area<'_>, pixels: &[(i32, i32)]) -> Result<()> {
        let stroke = self.colour.stroke_width(2);
        match self.dash {
            None => {}
            Some((0, _)) => root.draw(&PathElement::new(pixels.to_vec(), stroke))?,
            Some((drawn, left_out)) => {
                root.draw(&DashedPathElement::new(pixels.to_vec(), drawn, left_out, stroke))?;
            }
        }
        pixels.iter().try_for_each(|pixel| self.mark(root, *pixel))
    }

    /// A short piece of it, from left to right.
    pub(super) fn sample(&self, root: &Area<'_>, (left, right): (i32, i32), y: i32) -> Result<()> {
        Self { marker: Marker::None, ..*self }.draw(root, &[(left, y), (right, y)])?;
        self.mark(root, (i32::midpoint(left, right), y))
    }

    fn mark(&self, root: &Area<'_>, (x, y): (i32, i32)) -> Result<()> {
        let stroke = self.colour.stroke_width(2);
        match self.marker {
            Marker::None => {}
            Marker::Disc => root.draw(&Circle::new((x, y), 4, self.colour.filled()))?,
            Marker::Ring => root.draw(&Circle::new((x, y), 5, stroke))?,
            Marker::Square => {
                root.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], self.colour.filled()))?;
            }
            Marker::Triangle => root.draw(&TriangleMarker::new((x, y), 5, self.colour.filled()))?,
            Marker::Cross => root.draw(&Cross::new((x, y), 4, stroke))?,
        }
        Ok(())
    }
}

/// The colour of an index, for areas.
pub(super) fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// Dark text of that many pixels.
pub(super) fn text(pixels: f64) -> TextStyle<'static> {
    // The SVG backend divides sizes by this.
    ("sans-serif", pixels * 1.24).into_font().color(&DARK)
}

/// The same in bold.
pub(super) fn bold(pixels: f64) -> TextStyle<'static> {
    ("sans-serif", pixels * 1.24).into_font().style(FontStyle::Bold).color(&DARK)
}

/// From `low` to `high`, with ends.
pub(super) fn whisker(root: &Area<'_>, colour: RGBColor, x: i32, low: i32, high: i32) -> Result<()> {
    let stroke = colour.stroke_width(1);
    for path in [[(x, low), (x, high)], [(x - 4, low), (x + 4, low)], [(x - 4, high), (x + 4, high)]] {
        root.draw(&PathElement::new(path.to_vec(), stroke))?;
    }
    Ok(())
}

/// A row of moments, darker where more fall on the same few pixels.
pub(super) fn strip(
    root: &Area<'_>,
    index: usize,
    name: &str,
    (left, right, top): (i32, i32, i32),
    moments: &[i32],
    tips: &mut Vec<Tip>,
) -> Result<()> {
    const CELL: i32 = 3;
    const HEIGHT: i32 = 14;
    root.draw(&Rectangle::new([(left, top), (right, top + HEIGHT)], LIGHT.stroke_width(1)))?;
    let mut cells = std::collections::BTreeMap::new();
    for moment in moments {
        *cells.entry((moment - left) / CELL).or_insert(0_u32) += 1;
    }
    let most = f64::from(cells.values().copied().max().unwrap_or(1));
    for (cell, count) in cells {
        let x = left + cell * CELL;
        let fill = colour(index * 2 + 1).mix(0.35 + 0.65 * f64::from(count) / most);
        root.draw(&Rectangle::new([(x, top + 1), (x + CELL, top + HEIGHT - 1)], fill.filled()))?;
        tips.push(Tip { at: (x + 1, top + HEIGHT / 2), radius: 5, text: format!("{name}: {count} here") });
    }
    let label = format!("{name}: {}", moments.len());
    root.draw(&Text::new(shortened(&label, 28), (right + 8, top), text(12.5)))?;
    Ok(())
}

/// At most so many characters.
pub(super) fn shortened(label: &str, most: usize) -> String {
    if label.chars().count() <= most {
        return label.to_owned();
    }
    label.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// For element text and attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
