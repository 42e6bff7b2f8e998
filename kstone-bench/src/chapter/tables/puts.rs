//! Section 23.6: the criterion sample.

use anyhow::Result;

use crate::chapter::context::{Context, figures};
use crate::chapter::probe::{Probe, Puts};
use crate::chapter::said::{self, PUTS, S};
use crate::chapter::table::{ChapterTable, Group, Line};
use crate::chapter::unit::Unit;
use crate::chapter::verdict::at_most;

/// Items of one time.
const ITEMS: f64 = 1000.0;

/// `put_1000_items`.
///
/// # Errors
/// A measurement fails.
pub(crate) fn put_1000_items(context: &mut Context<'_>) -> Result<ChapterTable> {
    let times = if context.scale.divide > 1 { 3 } else { 100 };
    let found = context.interleaved(&[()], |context, (), _| {
        context.measure("1000 items into a new database", Probe::Puts(Puts { times }))
    })?;
    let nanos = figures(&found[0], "mean_nanos")?;
    let rates = nanos.iter().map(|nanos| ITEMS / (nanos / S)).collect();
    let mut time = Group::new("time", Unit::Nanos, "")
        .lines([Line::new("put_1000_items", nanos).says(said::about(PUTS.0))]);
    let measured = time.lines[0].measured.median().unwrap_or(f64::NAN);
    let points = [("put_1000_items".to_owned(), measured, PUTS.0.1)];
    time.shape = Some(at_most("no slower than the chapter's sample:", &points, 0.0));
    let rate = Group::new("throughput", Unit::PerSecond, "")
        .lines([Line::new("put_1000_items", rates).says(said::about(PUTS.1))]);
    let all = found[0].iter().filter_map(|found| found.series.get("nanos")).flatten().copied();
    let (low, high) = (all.clone().fold(f64::INFINITY, f64::min), all.fold(0.0, f64::max));
    Ok(ChapterTable {
        title: "put_1000_items".into(),
        done: format!(
            "1000 items through the library into a new database with all defaults (256 stripes), by one thread, \
             buffered; {times} times in each trial, of which the mean counts. `cargo bench` has the same with \
             criterion's statistics."
        ),
        groups: vec![time, rate],
        notes: vec![
            format!(
                "The fastest and the slowest of all: {} and {}.",
                Unit::Nanos.text(low),
                Unit::Nanos.text(high)
            ),
            "The chapter's own figures disagree: 22,000 items a second here, 50,000 writes a second in 23.1."
                .into(),
        ],
        ..ChapterTable::default()
    })
}
