//! Engines as bars from left to right, with what lies between the smallest and the largest trial.

use anyhow::Result;
use plotters::prelude::*;

use super::{BOTTOM, Tip, WIDTH, finish, style};

const LEFT: i32 = 205;
const RIGHT: i32 = 250;
const ROW: i32 = 30;

/// One engine.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Its name.
    pub name: String,
    /// Its colour.
    pub look: usize,
    /// The middle trial.
    pub value: f64,
    /// The smallest and the largest.
    pub whisker: (f64, f64),
    /// What stands to the right of it.
    pub text: String,
}

/// A plot of bars.
#[derive(Clone, Debug)]
pub struct Bars {
    /// Its title.
    pub title: String,
    /// What it shows, for those who do not see it.
    pub description: String,
    /// What the lengths are, and their unit.
    pub label: String,
    /// A value, as text.
    pub format: fn(f64) -> String,
    /// From above to below.
    pub bars: Vec<Bar>,
}

impl Bars {
    /// The plot as an element for a page.
    ///
    /// # Errors
    /// None in practice: what is drawn has an extent.
    pub fn svg(&self) -> Result<String> {
        let count = self.bars.len() as u32;
        let height = (self.bars.len() as i32 * ROW + BOTTOM + 16) as u32;
        let largest = self.bars.iter().map(|bar| bar.whisker.1.max(bar.value)).fold(0.0, f64::max);
        let top = if largest > 0.0 && largest.is_finite() { largest * 1.04 } else { 1.0 };
        let (mut svg, mut tips) = (String::new(), Vec::new());
        {
            let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
            root.fill(&WHITE)?;
            let mut plane = ChartBuilder::on(&root)
                .margin_top(8)
                .margin_right(RIGHT)
                .x_label_area_size(BOTTOM)
                .y_label_area_size(LEFT)
                .build_cartesian_2d(0.0..top, (0..count.saturating_sub(1)).into_segmented())?;
            plane
                .configure_mesh()
                .disable_y_mesh()
                .x_labels(6)
                .y_labels(self.bars.len() + 1)
                .x_desc(self.label.clone())
                .y_desc("engine")
                .label_style(style::text(12.5))
                .axis_desc_style(style::text(13.5))
                .axis_style(style::GREY)
                .bold_line_style(style::LIGHT)
                .light_line_style(TRANSPARENT)
                .x_label_formatter(&|value| (self.format)(*value))
                .y_label_formatter(&|row| self.name(row))
                .draw()?;
            let right = plane.backend_coord(&(top, SegmentValue::Exact(0))).0;
            for (row, bar) in self.bars.iter().enumerate() {
                let at = SegmentValue::CenterOf(count - 1 - row as u32);
                let pixel = |value: f64| plane.backend_coord(&(value.clamp(0.0, top), at.clone()));
                let ((left, y), (end, _)) = (pixel(0.0), pixel(bar.value));
                let fill = style::colour(bar.look).mix(0.85);
                root.draw(&Rectangle::new([(left, y - 9), (end, y + 9)], fill.filled()))?;
                let (low, high) = (pixel(bar.whisker.0).0, pixel(bar.whisker.1).0);
                for path in
                    [[(low, y), (high, y)], [(low, y - 5), (low, y + 5)], [(high, y - 5), (high, y + 5)]]
                {
                    root.draw(&PathElement::new(path.to_vec(), style::DARK.stroke_width(2)))?;
                }
                root.draw(&Text::new(bar.text.clone(), (right + 8, y - 7), style::text(12.5)))?;
                tips.push(Tip { at: (end, y), radius: 12, text: format!("{}: {}", bar.name, bar.text) });
            }
            root.present()?;
        }
        Ok(finish(&svg, (WIDTH, height), &self.title, &self.description, &tips))
    }

    fn name(&self, row: &SegmentValue<u32>) -> String {
        let SegmentValue::CenterOf(row) = row else { return String::new() };
        let place = self.bars.len().checked_sub(1 + *row as usize);
        place
            .and_then(|place| self.bars.get(place))
            .map_or(String::new(), |bar| style::shortened(&bar.name, 24))
    }
}
