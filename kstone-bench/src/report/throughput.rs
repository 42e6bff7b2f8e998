//! Plots of sweeps: throughput by the value of the only setting in which some series differ.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use kstone_core::config::text;

use super::contest::{Contest, rate};
use super::{Plot, Table};
use crate::plot::{Axis, Chart, Curve, Look, Point};
use crate::results::Series;
use crate::statistics::{self, Summary};
use crate::units;

/// From this ratio of the largest value to the smallest on, values have a logarithmic axis.
const WIDE: f64 = 12.0;

/// A plot for each sweep in the contest.
pub(super) fn plots(contest: &Contest<'_>) -> Result<Vec<Plot>> {
    let ours = contest.series.iter().filter(|series| series.engine.is_ours());
    let parsed: Vec<_> = ours.filter_map(|series| Some((*series, settings(series)?))).collect();
    let names: BTreeSet<&str> = parsed.iter().flat_map(|(_, settings)| settings.keys().copied()).collect();
    let mut plots = Vec::new();
    for name in names {
        for points in sweeps(&parsed, name) {
            plots.push(plot(contest, name, &points)?);
        }
    }
    Ok(plots)
}

/// The settings that differ from the defaults.
type Settings = BTreeMap<&'static str, u64>;

fn settings(series: &Series<'_>) -> Option<Settings> {
    let (database, compaction) =
        text::changed(&series.engine.settings, &Default::default(), &Default::default()).ok()?;
    let listed = text::listed(&database, &compaction).into_iter();
    let differing = listed.filter(|listed| listed.number != listed.default);
    Some(differing.filter_map(|listed| Some((listed.setting.stored, listed.number?))).collect())
}

/// The value and the throughput of series that differ in this setting only, from left to right.
fn sweeps(parsed: &[(&Series<'_>, Settings)], name: &str) -> Vec<Vec<(f64, Summary)>> {
    let defaults = text::listed(&Default::default(), &Default::default());
    let default =
        defaults.iter().find(|listed| listed.setting.stored == name).and_then(|listed| listed.number);
    let mut groups: BTreeMap<_, Vec<(f64, Summary)>> = BTreeMap::new();
    for (series, settings) in parsed {
        let value = settings.get(name).copied().or(default);
        let (Some(value), Some(rates)) = (value, statistics::summary(&series.rates())) else { continue };
        let mut others = settings.clone();
        others.remove(name);
        groups.entry((&series.engine.name, series.build, others)).or_default().push((value as f64, rates));
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    for points in &mut groups {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    groups.retain(|points| points.first().zip(points.last()).is_some_and(|(first, last)| first.0 < last.0));
    groups
}

fn plot(contest: &Contest<'_>, name: &str, points: &[(f64, Summary)]) -> Result<Plot> {
    let title = format!("{}: throughput against {name}", contest.conditions.workload);
    let mut table = Table::new(&title, &[name, "operations/s", "min … max"]);
    for (value, rates) in points {
        table.push(false, vec![units::short(*value), rate(rates.median), rates.range(rate)]);
    }
    let spots = points.iter().map(|(value, rates)| Point {
        x: *value,
        y: rates.median,
        whisker: Some((rates.min, rates.max)),
        tip: format!("{} at {name}={}", rates.text(rate), units::short(*value)),
    });
    let lines = vec![Curve { name: "throughput".to_owned(), look: Look::points(0), points: spots.collect() }];
    let values = || points.iter().map(|(value, _)| *value);
    let least = values().fold(f64::INFINITY, f64::min);
    let wide = least > 0.0 && values().any(|value| value >= least * WIDE);
    let x = match wide {
        true => Axis::log(&format!("{name} (logarithmic)"), values(), units::short),
        false => Axis::from_zero(name, values(), units::short),
    };
    let highest = points.iter().map(|(_, rates)| rates.max);
    let description = format!("Lines of throughput by {name}, in {}.", contest.conditions);
    let y = Axis::from_zero("operations/s", highest, units::short);
    let chart = Chart { title, description, x, y, lines, strips: Vec::new() };
    Plot::of(chart, "Medians of the trials, whiskers from the smallest to the largest.", Some(table))
}
