//! The verdict of a sweep: which value is best, and whether chance explains that.

use crate::record::Step;
use crate::results::{self, Series};
use crate::statistics::{self, FEWEST, Ratio};

/// What decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Operations a second: more is better.
    Throughput,
    /// The 99th percentile of the latency, where the rate is given: less is better.
    P99,
}

/// A value of the sweep, with its figure in each trial; trials with the same number took turns.
#[derive(Clone, Debug)]
pub struct Value {
    /// `sst_threshold=10`.
    pub name: String,
    pub figures: Vec<(usize, f64)>,
    /// Whether it is the default of the setting.
    pub default: bool,
}

impl Measure {
    /// The measure for a workload under these conditions.
    pub fn of(series: &Series<'_>) -> Self {
        if series.conditions.offered.is_some() { Self::P99 } else { Self::Throughput }
    }

    pub fn figures(self, series: &Series<'_>) -> Vec<(usize, f64)> {
        let kind = series.kinds().into_iter().next().unwrap_or_default().to_owned();
        let figure = |step: &Step| match self {
            Self::Throughput => Some(step.rate),
            Self::P99 => results::latency_of(step, &kind).map(|latency| latency.p99 as f64),
        };
        series.runs.iter().filter_map(|run| Some((run.number, figure(run.step)?))).collect()
    }

    /// How good `value` is in relation to `other`, above 1 if it is better; over the turns that both took.
    fn ratio(self, value: &Value, other: &Value) -> Option<Ratio> {
        let turns = value.figures.iter().filter_map(|(number, figure)| {
            let (_, against) = other.figures.iter().find(|(same, _)| same == number)?;
            Some(match self {
                Self::Throughput => (*against, *figure),
                Self::P99 => (*figure, *against),
            })
        });
        statistics::paired_ratio(&turns.collect::<Vec<_>>())
    }

    fn words(self, ratio: &Ratio) -> String {
        let interval =
            ratio.interval.map_or(String::new(), |ends| format!(" [{:.2} … {:.2}]", ends.low, ends.high));
        match self {
            Self::Throughput => format!("{:.2}{interval} times as fast as", ratio.value),
            Self::P99 => format!("by {:.2}{interval} times lower in its p99 than", ratio.value),
        }
    }
}

/// A sentence: the best value against the runner-up and the default, or that chance explains the differences.
pub fn verdict(values: &[Value], measure: Measure) -> String {
    let mut ranked: Vec<(&Value, f64)> = Vec::new();
    for value in values {
        let figures: Vec<f64> = value.figures.iter().map(|(_, figure)| *figure).collect();
        if let Some(median) = statistics::median(&figures) {
            ranked.push((value, median));
        }
    }
    ranked.sort_by(|(_, a), (_, b)| match measure {
        Measure::Throughput => b.total_cmp(a),
        Measure::P99 => a.total_cmp(b),
    });
    let [(best, _), (second, _), ..] = ranked[..] else {
        return "verdict: none, since fewer than two values have figures".to_owned();
    };
    let default = ranked.iter().map(|(value, _)| *value).find(|value| value.default);
    let name = &best.name;
    let Some(ahead) = measure.ratio(best, second) else {
        return format!("verdict: none, since {name} and {} have no figures to compare", second.name);
    };
    if ahead.interval.is_none() {
        return format!(
            "verdict: {name} was {} {}, but without {FEWEST} trials of each value (--trials {FEWEST}) that may be chance",
            measure.words(&ahead),
            second.name
        );
    }
    let over_default = default
        .filter(|default| !std::ptr::eq(*default, best) && !std::ptr::eq(*default, second))
        .and_then(|default| Some((default, measure.ratio(best, default)?)));
    let beyond =
        |default: &Value, ratio: &Ratio| format!("{} {}, the default", measure.words(ratio), default.name);
    let mark = |value: &Value| if value.default { ", the default" } else { "" };
    match (ahead.excludes_no_change(), over_default) {
        (true, over) => {
            let over =
                over.map_or(String::new(), |(default, ratio)| format!(", and {}", beyond(default, &ratio)));
            let (words, next) = (measure.words(&ahead), &second.name);
            format!("verdict: {name}{} is best: {words} {next}{}, the next{over}", mark(best), mark(second))
        }
        (false, Some((default, ratio))) if ratio.excludes_no_change() => format!(
            "verdict: {name} is {}; that it is ahead of {}, the next, may be chance: {}",
            beyond(default, &ratio),
            second.name,
            measure
                .words(&ahead)
                .trim_end_matches(" times as fast as")
                .trim_end_matches(" times lower in its p99 than")
        ),
        (false, _) => format!(
            "verdict: no difference that chance does not explain between the best two: {name}{} is {} {}{}",
            mark(best),
            measure.words(&ahead),
            second.name,
            mark(second)
        ),
    }
}

/// A warning if no get of a series had to search a run: all were answered by memtables, so nothing is known of SSTs.
pub fn only_memtables(series: &Series<'_>) -> Option<String> {
    use crate::engine::counter::{GETS, RUNS_LOOKED_AT};
    let sum = |name: &str| -> Option<f64> {
        let figures = series.figures(|step| step.counters.get(name).copied());
        (!figures.is_empty()).then(|| figures.iter().sum())
    };
    let (gets, searched) = (sum(GETS)?, sum(RUNS_LOOKED_AT)?);
    (gets > 0.0 && searched == 0.0).then(|| {
        format!(
            "warning: {}, {}: no get left the memtables, so this says nothing of reads from SSTs; more items, or \
             waitforcompaction before it, which flushes",
            series.conditions.workload,
            series.label()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, figures: &[f64], default: bool) -> Value {
        Value { name: format!("k={name}"), figures: figures.iter().copied().enumerate().collect(), default }
    }

    #[test]
    fn the_best_value_is_named_with_its_interval_against_the_next_and_the_default() {
        let values = [
            value("5", &[100.0, 101.0, 99.0, 100.0, 102.0], true),
            value("10", &[110.0, 111.0, 109.0, 110.0, 112.0], false),
            value("20", &[121.0, 122.0, 120.0, 121.0, 123.0], false),
        ];
        let text = verdict(&values, Measure::Throughput);
        assert_eq!(
            text,
            "verdict: k=20 is best: 1.10 [1.10 … 1.10] times as fast as k=10, the next, and 1.21 [1.21 … 1.21] times as \
             fast as k=5, the default"
        );
        let lower = verdict(&values, Measure::P99);
        assert!(lower.starts_with("verdict: k=5, the default is best: by 1.10"), "{lower}");
        let few: Vec<_> = values
            .iter()
            .map(|value| Value { figures: value.figures[..3].to_vec(), ..value.clone() })
            .collect();
        let text = verdict(&few, Measure::Throughput);
        assert!(
            text.contains("k=20 was 1.10 times as fast as k=10") && text.contains("--trials 5"),
            "{text}"
        );
    }

    #[test]
    fn what_chance_explains_is_no_difference() {
        let near = [
            value("5", &[50.0, 51.0, 49.0, 50.0, 52.0], true),
            value("10", &[110.0, 99.0, 111.0, 98.0, 105.0], false),
            value("20", &[100.0, 112.0, 99.0, 110.0, 106.0], false),
        ];
        let text = verdict(&near[1..], Measure::Throughput);
        assert!(text.starts_with("verdict: no difference that chance does not explain"), "{text}");
        let text = verdict(&near, Measure::Throughput);
        assert!(text.starts_with("verdict: k=20 is 2.12 [") && text.contains("k=5, the default; "), "{text}");
        assert!(text.contains("ahead of k=10, the next, may be chance: 1.01 ["), "{text}");
    }

    #[test]
    fn values_without_figures_are_left_out() {
        let five = [1.0, 2.0, 3.0, 4.0, 5.0];
        let values = [value("1", &[], false), value("2", &[f64::NAN; 5], false), value("3", &five, true)];
        assert!(verdict(&values, Measure::Throughput).contains("fewer than two values"));
        let none = [value("1", &[0.0; 5], false), value("2", &five, false)];
        assert!(verdict(&none, Measure::Throughput).contains("no figures to compare"));
    }
}
