//! Plots of sweeps: trials of KeystoneDB that differ in a setting, or in the number of runs per stripe, compared with
//! theory.

use std::collections::BTreeMap;

use anyhow::Result;
use kstone_core::config::{CompactionConfig, DatabaseConfig, text};
use kstone_core::model::{Model, Point as Settings, Workload};

use super::{Plot, Section, Table};
use crate::engine::counter;
use crate::plot::{Axis, Chart, Curve, Look, Point};
use crate::record::Step;
use crate::results::{Series, grouped, latency_of};
use crate::statistics::{self, Summary};
use crate::units;

/// Length of a key without a sort key, in bytes.
const KEY_BYTES: u64 = 16;

/// One series of a sweep: its position and its figures.
struct Spot<'a> {
    at: f64,
    series: &'a Series<'a>,
    measured: Summary,
    database: DatabaseConfig,
    compaction: CompactionConfig,
}

/// Sections for the sweeps among the series; most files contain none.
pub(super) fn sections(all: &[Series<'_>]) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    let ours = all.iter().filter(|series| series.engine.engine() == "kstone");
    for (conditions, series) in grouped(ours.map(|series| (&series.conditions, series))) {
        let mut plots = Vec::new();
        plots.extend(reads(&series)?);
        plots.extend(false_positives(&series)?);
        plots.extend(write_amplification(&series)?);
        if !plots.is_empty() {
            sections.push(Section {
                title: format!("Sweep: {}", conditions.workload),
                about: conditions.circumstances(),
                plots,
                ..Section::default()
            });
        }
    }
    Ok(sections)
}

type Figure = fn(&Step) -> Option<f64>;

/// Resets the settings that a sweep varies to their defaults, to see whether the rest is the same.
type Reset = fn(&mut DatabaseConfig, &mut CompactionConfig);

/// The series that have a position on an axis and a figure there, from left to right, grouped by their other settings.
/// Only groups with at least two positions.
fn spots<'a>(
    group: &[&'a Series<'a>],
    reset: Reset,
    place: impl Fn(&Series<'a>, &DatabaseConfig, &CompactionConfig) -> Option<f64>,
    figure: impl Fn(&Step) -> Option<f64>,
) -> Vec<Vec<Spot<'a>>> {
    let mut sweeps: BTreeMap<String, Vec<Spot<'a>>> = BTreeMap::new();
    for series in group.iter().copied() {
        let defaults = (DatabaseConfig::default(), CompactionConfig::default());
        let Ok((database, compaction)) = text::changed(&series.engine.settings, &defaults.0, &defaults.1)
        else {
            continue;
        };
        let measured = statistics::summary(&series.figures(&figure));
        let at = place(series, &database, &compaction).filter(|at| at.is_finite());
        if let Some((at, measured)) = at.zip(measured) {
            let mut others = (database.clone(), compaction.clone());
            reset(&mut others.0, &mut others.1);
            let others = text::differing(&others.0, &others.1);
            sweeps.entry(others).or_default().push(Spot { at, series, measured, database, compaction });
        }
    }
    let mut sweeps: Vec<Vec<Spot<'a>>> = sweeps.into_values().collect();
    for spots in &mut sweeps {
        spots.sort_by(|a, b| a.at.total_cmp(&b.at));
    }
    sweeps.retain(|spots| spots.first().zip(spots.last()).is_some_and(|(first, last)| first.at < last.at));
    sweeps
}

/// Runs per stripe, averaged over the stripes that have any.
fn runs(step: &Step) -> Option<f64> {
    step.share("runs", "stripes_used").filter(|runs| *runs > 0.0)
}

fn reads(group: &[&Series<'_>]) -> Result<Vec<Plot>> {
    let reset: Reset = |database, compaction| {
        let defaults = (DatabaseConfig::default(), CompactionConfig::default());
        database.max_memtable_records = defaults.0.max_memtable_records;
        compaction.sst_threshold = defaults.1.sst_threshold;
    };
    // The runs that gets search replace the number of runs if that is unknown: for absent keys the two are equal.
    for (label, place) in
        [("runs of a stripe", runs as Figure), ("runs looked at per get", Step::runs_per_get)]
    {
        let place = |series: &Series<'_>, _: &DatabaseConfig, _: &CompactionConfig| {
            statistics::median(&series.figures(place))
        };
        let p50 = spots(group, reset, place, |step| latency_of(step, "get").map(|get| get.p50 as f64));
        let p99 = spots(group, reset, place, |step| latency_of(step, "get").map(|get| get.p99 as f64));
        // A sweep of another setting changes the number of runs slightly; that is not a sweep of runs.
        let wide =
            |spots: &[Spot<'_>]| spots.first().zip(spots.last()).is_some_and(|(a, b)| b.at >= a.at * 1.5);
        let sweeps: Vec<_> = p50.iter().zip(&p99).filter(|(p50, _)| wide(p50)).collect();
        if !sweeps.is_empty() {
            return sweeps.into_iter().map(|(p50, p99)| reads_of(label, p50, p99)).collect();
        }
    }
    Ok(Vec::new())
}

fn reads_of(label: &str, p50: &[Spot<'_>], p99: &[Spot<'_>]) -> Result<Plot> {
    let conditions = &p50[0].series.conditions;
    let line = |name: &str, look: usize, spots: &[Spot<'_>]| Curve {
        name: name.to_owned(),
        look: Look::points(look),
        points: spots.iter().map(|spot| point(spot, units::nanoseconds)).collect(),
    };
    let lines = vec![line("p50", 0, p50), line("p99", 1, p99)];
    let title = format!("{}: read latency against runs", conditions.workload);
    let mut table = Table::new(&title, &[label, "looked at per get", "p50", "min … max", "p99"]);
    for (spot, other) in p50.iter().zip(p99) {
        let looked = statistics::median(&spot.series.figures(Step::runs_per_get));
        table.push(
            false,
            vec![
                units::short(spot.at),
                units::optional(looked, units::digits),
                units::nanoseconds(spot.measured.median),
                spot.measured.range(units::nanoseconds),
                units::nanoseconds(other.measured.median),
            ],
        );
    }
    let values = lines.iter().flat_map(|line| &line.points);
    let values = values.flat_map(|point| [point.y, point.whisker.map_or(point.y, |whisker| whisker.1)]);
    let chart = Chart {
        title,
        description: format!(
            "Lines of the latency of gets, p50 and p99, by runs of a stripe, in {conditions}."
        ),
        x: Axis::from_zero(&format!("{label}, mean"), p50.iter().map(|spot| spot.at), units::short),
        y: Axis::from_zero("latency of a get (service time)", values, units::tick),
        lines,
        strips: Vec::new(),
    };
    Plot::of(chart, "Medians of the trials, whiskers from the smallest to the largest.", Some(table))
}

fn false_positives(group: &[&Series<'_>]) -> Result<Vec<Plot>> {
    let reset: Reset =
        |database, _| database.bloom_bits_per_key = DatabaseConfig::default().bloom_bits_per_key;
    let place = |_: &Series<'_>, database: &DatabaseConfig, _: &CompactionConfig| {
        Some(database.bloom_bits_per_key as f64)
    };
    let theory = |_: &Spot<'_>, bits: usize| {
        let point = Settings { bloom_bits_per_key: bits, ..Settings::default() };
        Model::new(Workload::inserts(1, KEY_BYTES, 0)).predict(&point).false_positive_rate
    };
    let against = Against {
        what: "false positives against bits per key",
        head: &["bits per key", "measured", "min … max", "theory", "measured/theory", "seen"],
        name: "theory",
        expected: &theory,
        show: units::percent,
        more: &|spot| {
            let counted = |step: &Step| step.counters.get(counter::FILTER_FALSE_POSITIVES).copied();
            vec![units::count(spot.series.figures(counted).iter().sum())]
        },
        description: "Share of filter tests of absent keys that pass, measured and by theory, by bits per key.",
        x: |first, last| {
            let mut x = Axis::from_zero("bits per key", [last], units::short);
            x.range = (first - 1.0, last + 1.0);
            x
        },
        y: |values| {
            let percent = |share: f64| format!("{} %", units::short(share * 100.0));
            Axis::log("filter tests of absent keys that pass", values, percent)
        },
        caption: "Theory: the false positive rate of the filters as they are built, without chance. A rate of which n \
                  were seen is uncertain by about 1/√n of itself; a rate of 0 has no place on this axis.",
    };
    spots(group, reset, place, Step::false_positives).iter().map(|spots| against.plot(spots)).collect()
}

/// Bytes that flushes and merges wrote for each byte of keys and values, counted like in the model.
fn rewritten(step: &Step) -> Option<f64> {
    let flushed = step.share(counter::FLUSH_BYTES, counter::USER_BYTES_WRITTEN)?;
    let merged = step.share(counter::COMPACTION_BYTES, counter::USER_BYTES_WRITTEN)?;
    Some(flushed + merged).filter(|sum| *sum > 0.0)
}

fn write_amplification(group: &[&Series<'_>]) -> Result<Vec<Plot>> {
    let reset: Reset = |_, compaction| compaction.sst_threshold = CompactionConfig::default().sst_threshold;
    let place = |_: &Series<'_>, _: &DatabaseConfig, compaction: &CompactionConfig| {
        Some(compaction.sst_threshold as f64)
    };
    let against = Against {
        what: "write amplification against sst_threshold",
        head: &["sst_threshold K", "measured", "min … max", "model", "measured/model", "log and all", "runs"],
        name: "model",
        expected: &predicted,
        show: units::digits,
        more: &|spot| {
            let all = statistics::median(&spot.series.figures(|step| step.write_amplification));
            let runs = statistics::median(&spot.series.figures(runs));
            [all, runs].map(|figure| units::optional(figure, units::digits)).to_vec()
        },
        description: "Write amplification without the log, measured and by the model, by sst_threshold.",
        x: |_, last| Axis::from_zero("sst_threshold K", [last], units::short),
        y: |values| {
            let largest = values.iter().copied().fold(0.0, f64::max);
            // A small K costs so much that the rest would be a flat line at the bottom.
            match values.iter().copied().fold(f64::INFINITY, f64::min) {
                least if largest > least * 12.0 => {
                    Axis::log("bytes rewritten per byte put (logarithmic)", values, units::short)
                }
                _ => Axis::from_zero("bytes rewritten per byte put", values, units::short),
            }
        },
        caption: "Without the log. The model counts from an empty database; what is measured leaves the warm-up out.",
    };
    spots(group, reset, place, rewritten).iter().map(|spots| against.plot(spots)).collect()
}

/// Figures measured at several values of a parameter, compared with the expected figures.
struct Against<'a> {
    what: &'static str,
    head: &'a [&'a str],
    /// The name of the line of expected figures.
    name: &'static str,
    expected: &'a dyn Fn(&Spot<'_>, usize) -> f64,
    show: fn(f64) -> String,
    /// Additional cells of a row.
    more: &'a dyn Fn(&Spot<'_>) -> Vec<String>,
    description: &'static str,
    x: fn(f64, f64) -> Axis,
    y: fn(Vec<f64>) -> Axis,
    caption: &'static str,
}

impl Against<'_> {
    fn plot(&self, spots: &[Spot<'_>]) -> Result<Plot> {
        let (first, last, show) = (&spots[0], &spots[spots.len() - 1], self.show);
        let title = format!("{}: {}", first.series.conditions.workload, self.what);
        let mut table = Table::new(&title, self.head);
        for spot in spots {
            let (measured, expected) = (spot.measured.median, (self.expected)(spot, spot.at as usize));
            let mut cells = vec![units::short(spot.at), show(measured), spot.measured.range(show)];
            cells.extend([show(expected), units::digits(measured / expected)]);
            cells.extend((self.more)(spot));
            table.push(false, cells);
        }
        let curve = (first.at as usize..=last.at as usize).map(|at| {
            let y = (self.expected)(first, at);
            let unit = if self.name == "model" { format!("K {at}") } else { format!("{at} bits") };
            Point { x: at as f64, y, whisker: None, tip: format!("{unit}, {}", show(y)) }
        });
        let points = spots.iter().map(|spot| point(spot, show)).collect();
        let lines = vec![
            Curve { name: self.name.to_owned(), look: Look::theory(), points: curve.collect() },
            Curve { name: "measured".to_owned(), look: Look::points(0), points },
        ];
        let values: Vec<f64> = lines.iter().flat_map(|line| &line.points).map(|point| point.y).collect();
        let chart = Chart {
            title,
            description: self.description.to_owned(),
            x: (self.x)(first.at, last.at),
            y: (self.y)(values),
            lines,
            strips: Vec::new(),
        };
        Plot::of(chart, self.caption, Some(table))
    }
}

/// The model's prediction for the items and writes of a series, with this K.
fn predicted(spot: &Spot<'_>, k: usize) -> f64 {
    let conditions = &spot.series.conditions;
    let writes = spot.series.figures(|step| Some((step.warm_up_operations + step.operations) as f64));
    let mut workload = Workload::inserts(conditions.items, KEY_BYTES, conditions.value_bytes as u64);
    workload.writes = statistics::median(&writes).unwrap_or(0.0) as u64;
    workload.stripes = spot.database.stripes.unwrap_or(workload.stripes);
    let settings = Settings::of(&spot.database, &spot.compaction);
    Model::new(workload).predict(&Settings { sst_threshold: k, ..settings }).write_amplification
}

fn point(spot: &Spot<'_>, show: fn(f64) -> String) -> Point {
    let Spot { at, measured, .. } = spot;
    Point {
        x: *at,
        y: measured.median,
        whisker: Some((measured.min, measured.max)),
        tip: format!("{} at {} [{}]", show(measured.median), units::short(*at), measured.range(show)),
    }
}
