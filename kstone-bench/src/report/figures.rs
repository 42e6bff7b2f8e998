//! The plots of engines side by side: throughput, throughput over time, latencies.

use anyhow::Result;
use hdrhistogram::Histogram;

use super::contest::{Contest, rate};
use super::{Plot, throughput};
use crate::engine::MarkKind;
use crate::plot::{Axis, Bar, Bars, Chart, Curve, Histograms, Look, Panel, Point, Strip};
use crate::record::Step;
use crate::results::Series;
use crate::{statistics, units};

/// The number of lines beyond which a plot becomes illegible.
const MOST: usize = 8;
/// The maximum number of slices of a time line: neighbours are merged until there are no more than this.
const SLICES: usize = 240;
/// The start of the first latency bucket in nanoseconds, and the factor by which each is wider than the previous one.
const FIRST_BUCKET: u64 = 32;
const BUCKET_GROWTH: f64 = 1.189_207;
/// The shares of operations at which a curve of percentiles has points.
const SHARES: [f64; 15] =
    [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999, 0.999_999];

/// All plots of a contest. Adds a note for anything that could not be shown.
pub(super) fn plots(contest: &Contest<'_>, notes: &mut Vec<String>) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    plots.extend(bars(contest)?);
    plots.extend(throughput::plots(contest)?);
    if contest.series.len() > MOST {
        let all = contest.series.len();
        notes.push(format!("{all} engines and settings are too many for one plot of time or latency"));
        return Ok(plots);
    }
    plots.extend(timeline(contest)?);
    let kinds: std::collections::BTreeSet<&str> =
        contest.series.iter().flat_map(|series| series.kinds()).collect();
    for kind in kinds {
        plots.extend(latencies(contest, kind, notes)?);
    }
    Ok(plots)
}

/// All series with their names and looks in plots.
fn named<'a>(contest: &Contest<'a>) -> impl Iterator<Item = (&'a Series<'a>, String, usize)> {
    let (names, _) = contest.names();
    contest
        .series
        .clone()
        .into_iter()
        .zip(names)
        .zip(contest.looks())
        .map(|((series, name), look)| (series, name, look))
}

fn bars(contest: &Contest<'_>) -> Result<Option<Plot>> {
    let mut bars = Vec::new();
    for (series, name, look) in named(contest).filter(|(series, ..)| series.engine.engine() != "noop") {
        let Some(summary) = statistics::summary(&series.rates()) else { continue };
        let text = summary.text(units::short);
        let (value, whisker) = (summary.median, (summary.min, summary.max));
        bars.push(Bar { name, look, value, whisker, text });
    }
    if bars.len() < 2 {
        return Ok(None);
    }
    let title = format!("{}: operations a second", contest.conditions.workload);
    let said: Vec<String> = bars.iter().map(|bar| format!("{} {}", bar.name, bar.text)).collect();
    let description = format!("Bars of throughput. {}", said.join("; "));
    let label = "operations/s (more is better)".to_owned();
    let svg = Bars { title: title.clone(), description, label, format: units::short, bars }.svg()?;
    let caption = "Medians of the trials; the line goes from the smallest to the largest.".to_owned();
    Ok(Some(Plot { title, caption, svg, table: None }))
}

/// The trial whose throughput is closest to the median.
fn typical<'a>(series: &Series<'a>) -> Option<&'a Step> {
    let median = statistics::median(&series.rates())?;
    let distance = |step: &Step| (step.rate - median).abs();
    series.runs.iter().map(|run| run.step).min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

fn timeline(contest: &Contest<'_>) -> Result<Option<Plot>> {
    let mut lines = Vec::new();
    let mut strips = Vec::new();
    for (series, name, look) in named(contest).filter(|(series, ..)| series.engine.engine() != "noop") {
        let Some(step) = typical(series).filter(|step| step.timeline.len() > 1) else { continue };
        let points = over_time(step);
        lines.push(Curve { name, look: Look::line(look), points });
        let marked =
            contest.ours().map_or_else(|| !step.marks.is_empty(), |ours| ours.label() == series.label());
        if marked && strips.is_empty() && !step.marks.is_empty() {
            for (kind, name) in [(MarkKind::Flush, "flushes"), (MarkKind::Compaction, "merges")] {
                let moments = step.marks.iter().filter(|mark| mark.1 == kind).map(|mark| mark.0).collect();
                strips.push(Strip { name: format!("{name} of {}", series.engine.name), moments });
            }
        }
    }
    if lines.is_empty() {
        return Ok(None);
    }
    let title = format!("{}: throughput over time", contest.conditions.workload);
    let ends = lines.iter().filter_map(|line| line.points.last()).map(|point| point.x);
    let mut x = Axis::from_zero("seconds since the figures began", ends, units::short);
    x.range.1 /= 1.06;
    let rates = lines.iter().flat_map(|line| &line.points).map(|point| point.y);
    let y = Axis::from_zero("operations/s", rates, units::short);
    let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
    let description = format!("Lines of throughput over time, of {}.", names.join(", "));
    let caption = if strips.is_empty() {
        "Of each engine the trial nearest to the median."
    } else {
        "Of each engine the trial nearest to the median. Rows below: when memtables had been written out and runs \
         merged; the darker, the more."
    };
    Plot::of(Chart { title, description, x, y, lines, strips }, caption, None).map(Some)
}

/// The throughput of each slice of time, placed at its middle.
fn over_time(step: &Step) -> Vec<Point> {
    let together = step.timeline.len().div_ceil(SLICES).max(1);
    let mut begin = 0.0;
    let mut points = Vec::new();
    for slices in step.timeline.chunks(together) {
        let end = slices.last().map_or(begin, |slice| slice.end);
        let operations: u64 = slices.iter().map(|slice| slice.operations).sum();
        let slowest = slices.iter().map(|slice| slice.slowest).max().unwrap_or(0);
        if end > begin {
            let y = operations as f64 / (end - begin);
            let x = f64::midpoint(begin, end);
            let tip = format!(
                "{}/s at {} s, the slowest took {}",
                rate(y.round()),
                units::digits(x),
                units::nanoseconds(slowest as f64)
            );
            points.push(Point { x, y, whisker: None, tip });
        }
        begin = end;
    }
    points
}

fn latencies(contest: &Contest<'_>, kind: &str, notes: &mut Vec<String>) -> Result<Vec<Plot>> {
    let (mut panels, mut lines) = (Vec::new(), Vec::new());
    for (series, name, look) in named(contest) {
        let Some(all) = series.merged(kind, notes) else { continue };
        let percentiles = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
        panels.push(Panel {
            name: name.clone(),
            look,
            buckets: buckets(&all),
            percentiles: percentiles
                .map(|(name, share)| (name, all.value_at_quantile(share) as f64))
                .to_vec(),
        });
        lines.push(Curve { name, look: Look::points(look), points: percentile_curve(&all) });
    }
    if panels.is_empty() {
        return Ok(Vec::new());
    }
    let workload = &contest.conditions.workload;
    let from = if contest.conditions.offered.is_some() { "since it was due" } else { "service time" };
    let names: Vec<String> = panels.iter().map(|panel| panel.name.clone()).collect();
    let title = format!("{workload}: latency of {kind}");
    let description =
        format!("Histograms of latencies of {kind}, one above the other: {}.", names.join(", "));
    let label = format!("latency of {kind}, {from} (logarithmic)");
    let svg = Histograms { title: title.clone(), description, label, panels }.svg()?;
    let caption = "All trials together. Heights are shares of all operations.".to_owned();
    let histograms = Plot { title, caption, svg, table: None };

    let title = format!("{workload}: percentiles of {kind}");
    let description = format!("Curves of latency by percentile of {kind}, of {}.", names.join(", "));
    let points = || lines.iter().flat_map(|line| &line.points);
    let x =
        Axis::log("share of operations that were not slower", points().map(|point| point.x), share_of_odds);
    let y = Axis::log(&format!("latency of {kind}"), points().map(|point| point.y), units::tick);
    let chart = Chart { title, description, x, y, lines, strips: Vec::new() };
    let caption =
        "Of the operations to the right of a mark on the axis, a tenth are to the right of the next.";
    Ok(vec![histograms, Plot::of(chart, caption, None)?])
}

fn buckets(all: &Histogram<u64>) -> Vec<(f64, f64, f64)> {
    let mut begin = FIRST_BUCKET as f64 / BUCKET_GROWTH;
    let mut buckets = Vec::new();
    for bucket in all.iter_log(FIRST_BUCKET, BUCKET_GROWTH) {
        let end = (bucket.value_iterated_to() + 1) as f64;
        if end > begin {
            let share = bucket.count_since_last_iteration() as f64 / all.len() as f64;
            buckets.push((begin, end, share));
            begin = end;
        }
    }
    while buckets.first().is_some_and(|bucket| bucket.2 == 0.0) {
        buckets.remove(0);
    }
    buckets
}

/// Uses only shares that at least ten operations exceeded.
fn percentile_curve(all: &Histogram<u64>) -> Vec<Point> {
    let enough = |share: &f64| (1.0 - share) * all.len() as f64 >= 10.0;
    let point = |share: f64| {
        let nanos = all.value_at_quantile(share) as f64;
        let x = 1.0 / (1.0 - share);
        let tip = format!("{} were not slower than {}", share_of_odds(x), units::nanoseconds(nanos));
        Point { x, y: nanos, whisker: None, tip }
    };
    SHARES.into_iter().filter(enough).map(point).collect()
}

/// Converts one slower operation in this many to the share that is not slower.
fn share_of_odds(odds: f64) -> String {
    let text = format!("{:.5}", (1.0 - 1.0 / odds) * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_written_with_the_digits_they_need() {
        assert_eq!(
            [1.0, 2.0, 10.0, 100.0, 1e4].map(share_of_odds),
            ["0 %", "50 %", "90 %", "99 %", "99.99 %"]
        );
    }

    #[test]
    fn buckets_hold_every_operation_once() {
        let mut all = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        for nanos in [5, 90, 100, 1_000, 1_000, 50_000, 3_000_000_000] {
            all.record(nanos).unwrap();
        }
        let buckets = buckets(&all);
        let sum: f64 = buckets.iter().map(|bucket| bucket.2).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        assert!(buckets.windows(2).all(|pair| pair[0].1 == pair[1].0 && pair[0].0 < pair[0].1));
        let thousand = buckets.iter().find(|bucket| bucket.0 <= 1000.0 && 1000.0 < bucket.1).unwrap();
        assert!((thousand.2 - 2.0 / 7.0).abs() < 1e-9, "{thousand:?}");
    }

    #[test]
    fn time_is_put_together_without_losing_operations() {
        let slice = |n: u32| crate::record::Slice {
            end: f64::from(n + 1) * 0.1,
            operations: 50,
            ..crate::record::Slice::default()
        };
        let step = Step { timeline: (0..1000).map(slice).collect(), ..Step::default() };
        let points = over_time(&step);
        assert!(points.len() <= SLICES, "{}", points.len());
        assert!(points.iter().all(|point| (point.y - 500.0).abs() < 1e-6), "{points:?}");
    }
}
