//! A contest: engines that ran the same workload under the same conditions, in one section.

use anyhow::Result;

use super::{Section, Table, figures, resource_usage};
use crate::record::Latency;
use crate::results::{Conditions, Series, grouped, turns};
use crate::statistics::{self, Ratio};
use crate::units;

/// Series with the same conditions.
pub(super) struct Contest<'a> {
    pub(super) conditions: &'a Conditions,
    /// Sorted from the fastest to the slowest.
    pub(super) series: Vec<&'a Series<'a>>,
}

/// The contests, in the order in which their conditions first appear.
pub(super) fn contests<'a>(all: &'a [Series<'a>]) -> Vec<Contest<'a>> {
    let rate = |series: &Series<'_>| statistics::median(&series.rates()).unwrap_or(0.0);
    let contest = |(conditions, mut series): (_, Vec<&'a Series<'a>>)| {
        series.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
        Contest { conditions, series }
    };
    grouped(all.iter().map(|series| (&series.conditions, series))).into_iter().map(contest).collect()
}

impl<'a> Contest<'a> {
    /// The reference of ratios: KeystoneDB with its defaults, or otherwise with the settings that come first.
    pub(super) fn ours(&self) -> Option<&'a Series<'a>> {
        let mut ours: Vec<_> =
            self.series.iter().copied().filter(|series| series.engine.engine() == "kstone").collect();
        ours.sort_by_key(|series| (!series.engine.settings.is_empty(), series.label()));
        ours.first().copied()
    }

    /// Engines that store something: `noop` shows the cost of the harness and is not a rival.
    pub(super) fn rivals(&self) -> impl Iterator<Item = &'a Series<'a>> {
        self.series.iter().copied().filter(|series| series.engine.engine() != "noop")
    }

    /// The throughput of a series relative to KeystoneDB's; `None` for KeystoneDB itself.
    pub(super) fn ratio(&self, series: &Series<'a>) -> Option<Ratio> {
        let ours = self.ours()?;
        if ours.label() == series.label() {
            return None;
        }
        let (first, second) = turns(ours, series);
        let pairs = first.rates().into_iter().zip(second.rates());
        statistics::paired_ratio(&pairs.collect::<Vec<_>>())
    }

    /// The colour and dash of each series: KeystoneDB has the first, others are assigned by name, so that they stay the
    /// same in all sections.
    pub(super) fn looks(&self) -> Vec<usize> {
        const KNOWN: [&str; 7] = ["kstone", "fjall", "redb", "heed", "rusqlite", "rocksdb", "noop"];
        let by_name = |series: &&Series<'_>| {
            let name = if series.engine.name == "sqlite" { "rusqlite" } else { &series.engine.name };
            KNOWN.iter().position(|known| *known == name)
        };
        let looks: Vec<Option<usize>> = self.series.iter().map(by_name).collect();
        let distinct: std::collections::BTreeSet<_> = looks.iter().flatten().collect();
        if distinct.len() == self.series.len() {
            return looks.into_iter().flatten().collect();
        }
        // If the same engine occurs several times: KeystoneDB first, then in order.
        let ours = self.ours().map(Series::label);
        let mut next = 0;
        let look = |series: &&Series<'_>| {
            if Some(series.label()) == ours {
                return 0;
            }
            next += 1;
            next
        };
        self.series.iter().map(look).collect()
    }

    /// Names, without the settings common to all series, which are returned as well.
    pub(super) fn names(&self) -> (Vec<String>, Vec<&'a str>) {
        let parts =
            |series: &'a Series<'a>| series.engine.settings.split(',').filter(|part| !part.is_empty());
        let Some(first) = self.series.first() else { return (Vec::new(), Vec::new()) };
        if self.series.len() == 1 {
            return (vec![first.label()], Vec::new());
        }
        let in_all = |part: &&str| self.series.iter().all(|series| parts(series).any(|other| other == *part));
        let common: Vec<&str> = parts(first).filter(in_all).collect();
        let one_engine = self.series.iter().all(|series| series.engine.name == first.engine.name);
        let name = |series: &&'a Series<'a>| {
            let own: Vec<&str> = parts(series).filter(|part| !common.contains(part)).collect();
            if own.is_empty() || series.build.is_some() {
                return if common.is_empty() { series.label() } else { series.engine.name.clone() };
            }
            let own = own.join(" ");
            if one_engine { own } else { format!("{} {own}", series.engine.name) }
        };
        (self.series.iter().map(name).collect(), common)
    }

    /// All series with their names.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'a Series<'a>, String)> {
        self.series.clone().into_iter().zip(self.names().0)
    }

    pub(super) fn section(&self) -> Result<Section> {
        let mut notes = Vec::new();
        for series in &self.series {
            let unsteady = series.runs.iter().filter(|run| !run.step.steady).count();
            if unsteady > 0 {
                let of = series.runs.len();
                notes.push(format!(
                    "{}: throughput had not become steady when the figures began, in {unsteady} of {of} trials",
                    series.label()
                ));
            }
            if series.wrong() > 0 {
                let wrong = units::count(series.wrong() as f64);
                notes.push(format!("{}: {wrong} answers were WRONG", series.label()));
            }
        }
        if let Some(ours) = self.ours().filter(|ours| ours.label() != "kstone") {
            notes.push(format!("ratios are to {}", ours.label()));
        }
        let (_, common) = self.names();
        if !common.is_empty() {
            notes.push(format!("common to all, and left out of the names: {}", common.join(", ")));
        }
        Ok(Section {
            title: self.conditions.workload.clone(),
            about: self.conditions.circumstances(),
            plots: figures::plots(self, &mut notes)?,
            tables: [self.speed(), self.latencies()]
                .into_iter()
                .chain(resource_usage::tables(self))
                .collect(),
            notes,
            ..Section::default()
        })
    }

    fn speed(&self) -> Table {
        let head = ["engine", "trials", "operations/s", "min … max", "× kstone", "95 % interval"];
        let mut table = Table::new("Throughput", &head);
        for (series, name) in self.named() {
            let summary = statistics::summary(&series.rates());
            let ratio = self.ratio(series);
            let interval = ratio.and_then(|ratio| ratio.interval);
            let ours = self.ours().is_some_and(|ours| ours.label() == series.label());
            table.push(
                ours,
                vec![
                    name,
                    series.runs.len().to_string(),
                    units::optional(summary, |summary| rate(summary.median)),
                    units::optional(summary, |summary| summary.range(rate)),
                    if ours {
                        "1".to_owned()
                    } else {
                        units::optional(ratio, |ratio| format!("{:.2}", ratio.value))
                    },
                    units::optional(interval, |ends| format!("{:.2} … {:.2}", ends.low, ends.high)),
                ],
            );
        }
        table
    }

    fn latencies(&self) -> Table {
        let head = ["engine", "operation", "counted from", "p50", "p90", "p99", "p99.9", "max", "count"];
        let mut table = Table::new("Latency, medians of the trials; the slowest of all of them", &head);
        for (series, name) in self.named() {
            let ours = self.ours().is_some_and(|ours| ours.label() == series.label());
            for kind in series.kinds() {
                let measured: Vec<&Latency> =
                    series.runs.iter().filter_map(|run| run.step.latencies.get(kind)).collect();
                let intended = measured.iter().any(|latency| latency.from_intended);
                let from = if intended { "when it was due" } else { "its start" };
                table.push(ours, latency_cells(&name, kind, from, &measured));
                let service: Vec<&Latency> =
                    measured.iter().filter_map(|latency| latency.service.as_deref()).collect();
                if !service.is_empty() {
                    table.push(ours, latency_cells(&name, kind, "its start", &service));
                }
            }
        }
        table
    }
}

fn latency_cells(name: &str, kind: &str, from: &str, measured: &[&Latency]) -> Vec<String> {
    let middle = |figure: fn(&Latency) -> u64| {
        let values: Vec<f64> = measured.iter().map(|latency| figure(latency) as f64).collect();
        units::optional(statistics::median(&values), units::nanoseconds)
    };
    let slowest = measured.iter().map(|latency| latency.max).max().unwrap_or(0);
    let count: u64 = measured.iter().map(|latency| latency.count).sum();
    vec![
        name.to_owned(),
        kind.to_owned(),
        from.to_owned(),
        middle(|latency| latency.p50),
        middle(|latency| latency.p90),
        middle(|latency| latency.p99),
        middle(|latency| latency.p999),
        units::nanoseconds(slowest as f64),
        units::count(count as f64),
    ]
}

pub(super) fn rate(rate: f64) -> String {
    units::count(if rate.abs() < 100.0 { rate } else { rate.round() })
}
