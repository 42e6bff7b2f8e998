//! Decides whether one series of trials is slower than another, as far as the trials can show.
//!
//! A figure is a *regression* if it is worse by more than the limit, and by more than chance explains: the interval of
//! the ratio excludes 1. Either alone is not enough. Different files were measured at different times, so their trials
//! are resampled separately; engines in one file took turns, so whole turns are resampled ([`crate::statistics`]).

use std::fmt;

use anyhow::{Result, bail, ensure};

use crate::record::{Latency, RunFile, Step};
use crate::results::{self, Conditions, Series};
use crate::statistics::{self, FEWEST, Ratio, Summary};
use crate::{machine, units};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Operations a second: more is better.
    Throughput,
    /// The 99th percentile of a kind of operation: less is better.
    P99(String),
}

impl Metric {
    fn figure(&self, step: &Step) -> Option<f64> {
        match self {
            Self::Throughput => Some(step.rate),
            Self::P99(kind) => results::latency_of(step, kind).map(|latency: &Latency| latency.p99 as f64),
        }
    }

    /// How much worse a ratio makes it, as a fraction of the old value; below 0: better.
    fn worse_by(&self, ratio: f64) -> f64 {
        match self {
            Self::Throughput => 1.0 - ratio,
            Self::P99(_) => ratio - 1.0,
        }
    }

    pub fn show(&self, figure: f64) -> String {
        match self {
            Self::Throughput => format!("{}/s", units::count(figure.round())),
            Self::P99(_) => units::nanoseconds(figure),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Throughput => write!(f, "throughput"),
            Self::P99(kind) => write!(f, "p99 of {kind}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Worse by more than the limit, and not by chance.
    Regression,
    /// Better by more than the limit, and not by chance.
    Better,
    Same,
    /// Beyond the limit in either direction, but chance explains it.
    Chance,
    /// Worse by more than the limit, but with too few trials to rule out chance.
    TooFew,
    /// A figure is missing, zero or not a number.
    NoFigure,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Regression => "REGRESSION",
            Self::Better => "better",
            Self::Same => "within the limit",
            Self::Chance => "may be chance",
            Self::TooFew => "too few trials to tell",
            Self::NoFigure => "no figure",
        })
    }
}

#[derive(Clone, Debug)]
pub struct Compared {
    /// The engine; both, if two were compared.
    pub label: String,
    pub conditions: Conditions,
    pub metric: Metric,
    /// The old figure; `None` if there is no usable one.
    pub base: Option<Summary>,
    pub new: Option<Summary>,
    /// The new figure relative to the old one.
    pub ratio: Option<Ratio>,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, Default)]
pub struct Comparison {
    pub rows: Vec<Compared>,
    /// Reasons for doubt.
    pub warnings: Vec<String>,
    /// Failures as bad as a regression: wrong answers, and series that worked before but no longer do.
    pub failures: Vec<String>,
}

impl Comparison {
    pub fn regressed(&self) -> bool {
        !self.failures.is_empty() || self.rows.iter().any(|row| row.verdict == Verdict::Regression)
    }

    fn add(&mut self, base: &Series<'_>, new: &Series<'_>, label: &str, limit: f64, paired: bool) {
        let kinds = base.kinds();
        let kinds =
            kinds.intersection(&new.kinds()).map(|kind| Metric::P99((*kind).to_owned())).collect::<Vec<_>>();
        for metric in std::iter::once(Metric::Throughput).chain(kinds) {
            let figures = |series: &Series<'_>| series.figures(|step| metric.figure(step));
            let (before, after) = (figures(base), figures(new));
            let ratio = if paired {
                let turns = base.runs.iter().zip(&new.runs);
                let turns = turns.filter_map(|(a, b)| metric.figure(a.step).zip(metric.figure(b.step)));
                statistics::paired_ratio(&turns.collect::<Vec<_>>())
            } else {
                statistics::independent_ratio(&before, &after)
            };
            self.rows.push(Compared {
                label: label.to_owned(),
                conditions: base.conditions.clone(),
                verdict: verdict(&metric, ratio.as_ref(), limit),
                base: statistics::summary(&before),
                new: statistics::summary(&after),
                ratio,
                metric,
            });
        }
        if new.wrong() > 0 {
            let (wrong, conditions) = (units::count(new.wrong() as f64), &base.conditions);
            self.failures.push(format!("{}: {wrong} answers were wrong: {conditions}", new.label()));
        }
    }
}

/// Beyond the limit, and not by chance.
fn verdict(metric: &Metric, ratio: Option<&Ratio>, limit: f64) -> Verdict {
    let Some(ratio) = ratio else { return Verdict::NoFigure };
    let worse = metric.worse_by(ratio.value);
    match (ratio.interval.is_some(), ratio.excludes_no_change()) {
        _ if worse.abs() <= limit => Verdict::Same,
        (true, true) if worse > 0.0 => Verdict::Regression,
        (true, true) => Verdict::Better,
        (true, false) => Verdict::Chance,
        (false, _) => Verdict::TooFew,
    }
}

/// How series of two files are paired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pairing {
    /// Whether files of different machines and builds are compared.
    pub force: bool,
    /// Whether the settings of an engine may differ, if its name and all conditions are the same.
    pub across: bool,
}

/// The series of `after` that a series of `before` is compared with.
///
/// # Errors
/// Across settings, if it is not clear which series belong together.
fn partner<'a, 'b>(
    one: &Series<'_>,
    before: &[Series<'_>],
    after: &'b [Series<'a>],
    across: bool,
) -> Result<Option<&'b Series<'a>>> {
    let same = |other: &&Series<'_>| other.engine == one.engine && other.conditions == one.conditions;
    if !across {
        return Ok(after.iter().find(same));
    }
    let like = |other: &&Series<'_>| {
        (&other.engine.name, other.engine.tuned) == (&one.engine.name, one.engine.tuned)
            && other.conditions == one.conditions
    };
    let (bases, news) = (before.iter().filter(like), after.iter().filter(like).collect::<Vec<_>>());
    let bases: Vec<String> = bases.map(Series::label).collect();
    let all: Vec<String> = news.iter().map(|series| series.label()).collect();
    ensure!(
        all.is_empty() || bases.len() <= 1 && all.len() <= 1,
        "--across: several series could be paired: {} with {}, in {}. Use files with one setting of each engine, or \
         --engines within a file",
        bases.join("; "),
        all.join("; "),
        one.conditions
    );
    Ok(news.first().copied())
}

/// Compares two files, series by series. `limit` is a fraction: 0.05 accepts an increase of the time by a factor of
/// 1.05.
pub fn files(base: &RunFile, new: &RunFile, limit: f64, pairing: Pairing) -> Result<Comparison> {
    let Pairing { force, across } = pairing;
    let mut comparison = Comparison::default();
    let different = machine::differences(&base.machine, &new.machine);
    ensure!(
        force || !different.iter().any(|difference| difference.matters),
        "these results come from different machines or builds and cannot be compared; --force compares them \
         anyway:\n{}",
        different.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    );
    comparison.warnings.extend(different.iter().map(ToString::to_string));
    comparison.warnings.extend(doubts(base).map(|doubt| format!("base: {doubt}")));
    comparison.warnings.extend(doubts(new).map(|doubt| format!("new: {doubt}")));
    let (before, after) = (results::series(&[base]), results::series(&[new]));
    for one in &before {
        let name = format!("{}: {}", one.label(), one.conditions);
        match partner(one, &before, &after, across)? {
            Some(other) if other.engine == one.engine => {
                comparison.add(one, other, &one.label(), limit, false);
            }
            Some(other) => comparison.add(one, other, &between(one, other), limit, false),
            None if results::failed(new, &one.label()) > 0 => {
                comparison.failures.push(format!("{name}: every trial now ends in an error"));
            }
            None => comparison.warnings.push(format!("only in base: {name}")),
        }
    }
    for other in &after {
        if partner(other, &after, &before, across)?.is_none() {
            comparison.warnings.push(format!("only in new: {}: {}", other.label(), other.conditions));
        }
    }
    let hint = if across { "" } else { "\n--across compares series whose settings differ" };
    ensure!(
        !(comparison.rows.is_empty() && comparison.failures.is_empty()),
        "the files have no series in common:\n{}{hint}",
        comparison.warnings.join("\n")
    );
    Ok(finish(comparison))
}

/// Names two series of one engine by the settings in which they differ: `kstone sst_threshold=4 -> sst_threshold=20`.
fn between(one: &Series<'_>, other: &Series<'_>) -> String {
    let own = |of: &Series<'_>, against: &Series<'_>| {
        let parts = |series: &Series<'_>| {
            series
                .engine
                .settings
                .split(',')
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let common = parts(against);
        let own: Vec<String> = parts(of).into_iter().filter(|part| !common.contains(part)).collect();
        if own.is_empty() { "default".to_owned() } else { own.join(",") }
    };
    format!("{} {} -> {}", one.engine.name, own(one, other), own(other, one))
}

/// Compares two engines of one file, `first,second`: the second with the first, wherever both ran under the same
/// conditions. If both names are the same, trials at even places in the file are the first, those at odd places the
/// second, which shows how far a program differs from itself.
pub fn engines(file: &RunFile, names: &str, limit: f64) -> Result<Comparison> {
    let all = results::series(&[file]);
    let (first, second) = pair(&all, names)?;
    let mut comparison = Comparison { warnings: doubts(file).collect(), ..Comparison::default() };
    let label = format!("{first} -> {second}");
    for one in all.iter().filter(|one| one.label() == first) {
        if first == second {
            let half = |odd: usize| {
                let runs = one.runs.iter().skip(odd).step_by(2).copied().collect();
                Series { runs, ..one.clone() }
            };
            comparison.add(&half(0), &half(1), &label, limit, true);
            continue;
        }
        let same = |other: &&Series<'_>| other.label() == second && other.conditions == one.conditions;
        if let Some(other) = all.iter().find(same) {
            let (one, other) = results::turns(one, other);
            comparison.add(&one, &other, &label, limit, true);
        }
    }
    ensure!(!comparison.rows.is_empty(), "{first} and {second} never ran under the same conditions");
    Ok(finish(comparison))
}

/// Splits `first,second`; names may contain commas themselves, as settings do.
fn pair(all: &[Series<'_>], names: &str) -> Result<(String, String)> {
    let known = |name: &str| all.iter().any(|one| one.label() == name);
    let split = names.match_indices(',').map(|(at, _)| (&names[..at], &names[at + 1..]));
    if let Some((first, second)) = split.into_iter().find(|(first, second)| known(first) && known(second)) {
        return Ok((first.to_owned(), second.to_owned()));
    }
    let mut labels: Vec<String> = all.iter().map(Series::label).collect();
    labels.sort();
    labels.dedup();
    bail!("--engines {names}: expected two engines of the file, FIRST,SECOND; it has: {}", labels.join("; "))
}

fn doubts(file: &RunFile) -> impl Iterator<Item = String> {
    let mut doubts = file.warnings.clone();
    doubts
        .extend(machine::warnings(&file.machine).into_iter().filter(|doubt| !file.warnings.contains(doubt)));
    doubts.extend(results::troubles(&file.trials));
    doubts.into_iter()
}

/// Sorts rows with the same conditions together, and adds what is needed to interpret them.
fn finish(mut comparison: Comparison) -> Comparison {
    let rows = results::grouped(comparison.rows.into_iter().map(|row| (row.conditions.clone(), row)));
    comparison.rows = rows.into_iter().flat_map(|(_, rows)| rows).collect();
    let few = comparison.rows.iter().filter_map(|row| {
        let trials = |summary: &Option<Summary>| summary.map_or(0, |summary| summary.trials);
        Some(trials(&row.base).min(trials(&row.new))).filter(|trials| *trials > 0)
    });
    if let Some(fewest) = few.min() {
        if fewest < FEWEST {
            comparison.warnings.push(format!(
                "{fewest} trials cannot show that a change is real: without at least {FEWEST} (--trials {FEWEST}) nothing is \
                 reported as a regression"
            ));
        } else {
            let beyond =
                units::digits((1.0 - statistics::widest_coverage(fewest).min(statistics::LEVEL)) * 50.0);
            comparison.warnings.push(format!(
                "with {fewest} trials, chance alone puts about {beyond} of 100 figures beyond their interval on the \
                 worse side; {} were compared",
                comparison.rows.len()
            ));
        }
    }
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Interval;

    #[test]
    fn a_regression_is_beyond_the_limit_and_beyond_chance() {
        let ratio = |value: f64, low: f64, high: f64| Ratio { value, interval: Some(Interval { low, high }) };
        let (rate, p99) = (Metric::Throughput, Metric::P99("get".to_owned()));
        let of = |metric: &Metric, ratio: Ratio| verdict(metric, Some(&ratio), 0.05);
        assert_eq!(of(&rate, ratio(0.90, 0.85, 0.95)), Verdict::Regression);
        assert_eq!(of(&rate, ratio(0.96, 0.95, 0.97)), Verdict::Same, "real, but small");
        assert_eq!(of(&rate, ratio(0.90, 0.80, 1.01)), Verdict::Chance);
        assert_eq!(of(&rate, ratio(1.20, 1.10, 1.30)), Verdict::Better);
        assert_eq!(of(&p99, ratio(1.20, 1.10, 1.30)), Verdict::Regression);
        assert_eq!(of(&p99, ratio(0.80, 0.70, 0.90)), Verdict::Better);
        assert_eq!(of(&p99, Ratio { value: 3.0, interval: None }), Verdict::TooFew);
        assert_eq!(verdict(&rate, None, 0.05), Verdict::NoFigure);
    }
}
