//! Latencies of several engines, one above the other on the same axis, with lines at percentiles.

use anyhow::Result;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::{Axis, BOTTOM, LEFT, RIGHT, TOP, Tip, WIDTH, finish, mesh, style};
use crate::units;

const PANEL: i32 = 104;

/// One engine.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Its name.
    pub name: String,
    /// Its colour.
    pub look: usize,
    /// Of each bucket: where it begins and ends, in nanoseconds, and its share of all operations, 0 to 1.
    pub buckets: Vec<(f64, f64, f64)>,
    /// Names of percentiles and where they are, in nanoseconds.
    pub percentiles: Vec<(&'static str, f64)>,
}

/// A plot of panels.
#[derive(Clone, Debug)]
pub struct Histograms {
    /// Its title.
    pub title: String,
    /// What it shows, for those who do not see it.
    pub description: String,
    /// What the latencies are of, and how they were taken.
    pub label: String,
    /// From above to below.
    pub panels: Vec<Panel>,
}

impl Histograms {
    /// The plot as an element for a page.
    ///
    /// # Errors
    /// None in practice: what is drawn has an extent.
    pub fn svg(&self) -> Result<String> {
        let count = self.panels.len() as i32;
        let height = (TOP + count * PANEL + BOTTOM) as u32;
        let edges = self.panels.iter().flat_map(|panel| panel.buckets.iter()).flat_map(|b| [b.0, b.1]);
        let x = Axis::log(&self.label, edges, units::tick);
        let (mut svg, mut tips) = (String::new(), Vec::new());
        {
            let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
            root.fill(&WHITE)?;
            for (row, panel) in self.panels.iter().enumerate() {
                let last = row + 1 == self.panels.len();
                let top = TOP + row as i32 * PANEL;
                let bottom = if last { height as i32 } else { top + PANEL };
                let area = root.clone().shrink((0, top), (WIDTH, (bottom - top) as u32));
                panel.draw(&area, &root, &x, last, &mut tips)?;
            }
            root.present()?;
        }
        Ok(finish(&svg, (WIDTH, height), &self.title, &self.description, &tips))
    }
}

impl Panel {
    fn draw<'a>(
        &self,
        area: &super::Area<'a>,
        root: &super::Area<'a>,
        x: &Axis,
        last: bool,
        tips: &mut Vec<Tip>,
    ) -> Result<()> {
        let mut y = Axis::from_zero("share", self.buckets.iter().map(|bucket| bucket.2), percent);
        // For names of percentiles above the bulk.
        y.range.1 *= 1.25;
        let mut plane = ChartBuilder::on(area)
            .margin_top(10)
            .margin_right(RIGHT)
            .x_label_area_size(if last { BOTTOM } else { 0 })
            .y_label_area_size(LEFT)
            .build_cartesian_2d((x.range.0..x.range.1).log_scale(), y.range.0..y.range.1)?;
        mesh(&mut plane, x, &y, 3)?;
        let fill = style::colour(self.look).mix(0.75);
        for (begin, end, share) in self.buckets.iter().copied().filter(|bucket| bucket.2 > 0.0) {
            let (low, high) = (plane.backend_coord(&(begin, 0.0)), plane.backend_coord(&(end, share)));
            root.draw(&Rectangle::new([(low.0, high.1), (high.0, low.1)], fill.filled()))?;
            let range = format!("{} to {}", units::nanoseconds(begin), units::nanoseconds(end));
            let text = format!("{}: {} of all, {range}", self.name, units::percent(share));
            tips.push(Tip { at: (i32::midpoint(low.0, high.0), high.1), radius: 6, text });
        }
        let (right, top) = plane.backend_coord(&(x.range.1, y.range.1));
        let bottom = plane.backend_coord(&(x.range.0, 0.0)).1;
        root.draw(&Text::new(style::shortened(&self.name, 24), (right + 8, top - 2), style::bold(13.0)))?;
        for (row, (name, nanos)) in self.percentiles.iter().enumerate() {
            let text = format!("{name}  {}", units::nanoseconds(*nanos));
            root.draw(&Text::new(text.clone(), (right + 8, top + 15 + row as i32 * 16), style::text(12.5)))?;
            if *nanos < x.range.0 || *nanos > x.range.1 {
                continue;
            }
            let at = plane.backend_coord(&(*nanos, 0.0)).0;
            let dash =
                DashedPathElement::new(vec![(at, bottom), (at, top)], 4, 3, style::DARK.stroke_width(1));
            root.draw(&dash)?;
            root.draw(&Text::new((*name).to_owned(), (at + 3, top + row as i32 * 14), style::text(11.5)))?;
            tips.push(Tip { at: (at, top + 8), radius: 6, text: format!("{}: {text}", self.name) });
        }
        Ok(())
    }
}

fn percent(share: f64) -> String {
    format!("{} %", units::short(share * 100.0))
}
