//! Compares what was measured with what was predicted, and decides whether a change is worth making.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use kstone_api::Expected;

use super::figures;
use crate::chapter::probe::Figures;
use crate::statistics::{self, Difference, FEWEST, Interval, Summary};
use crate::units;

/// A prediction: a figure of advice, or of the model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claim {
    /// As in [`figures::name`].
    pub(super) figure: String,
    pub(super) before: f64,
    pub(super) after: f64,
    /// Whether this is what the change is for; otherwise it is a side effect.
    pub(super) purpose: bool,
}

impl Claim {
    pub(super) fn of(expected: &Expected, purpose: bool) -> Self {
        let Expected { before, after, .. } = *expected;
        Self { figure: figures::name(expected.figure, expected.unit), before, after, purpose }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A figure that the change is for moved as predicted, by more than chance explains, and none the other way.
    Apply,
    /// The same, but the work as a whole got slower, by more than chance explains.
    Mixed,
    /// A figure that the change is for moved the other way, by more than chance explains.
    Worse,
    /// Chance explains the difference.
    Chance,
    TooFew,
    /// No figure that the change is for could be measured.
    NotMeasured,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) figure: String,
    /// `None`: the row is there to show the cost.
    pub(super) claim: Option<Claim>,
    pub(super) today: Option<Summary>,
    pub(super) changed: Option<Summary>,
    pub(super) difference: Option<Difference>,
}

/// Figures of interest whatever the advice: the cost of a change. For the first, more is better.
const ALWAYS: [&str; 7] = [
    figures::RATE,
    figures::GET.mean,
    figures::GET.p99,
    figures::PUT.mean,
    figures::PUT.p99,
    "runs searched by a get",
    "SSTs [MB]",
];

/// The rows of a change: what was claimed, then what else was measured. `turns` has the figures under today's settings
/// and under the changed ones, for each turn.
pub(super) fn rows(claims: &[Claim], turns: &[(&Figures, &Figures)]) -> Vec<Row> {
    let others = ALWAYS.iter().filter(|name| !claims.iter().any(|claim| claim.figure == **name));
    let claimed = claims.iter().map(|claim| (claim.figure.clone(), Some(claim.clone())));
    let all = claimed.chain(others.map(|name| ((*name).to_owned(), None)));
    let rows = all.map(|(figure, claim)| {
        let pair = |(a, b): &(&Figures, &Figures)| Some((*a.0.get(&figure)?, *b.0.get(&figure)?));
        let pairs: Vec<_> = turns.iter().filter_map(pair).collect();
        let (first, second): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        Row {
            claim,
            today: statistics::summary(&first),
            changed: statistics::summary(&second),
            difference: statistics::paired_difference(&pairs),
            figure,
        }
    });
    rows.filter(|row| row.claim.is_some() || row.today.is_some()).collect()
}

impl Row {
    /// By how much more than predicted was measured, as a fraction; `None` if that cannot be said.
    pub(super) fn error(&self) -> Option<f64> {
        let (claim, changed) = (self.claim.as_ref()?, self.changed?);
        match claim.after {
            0.0 if changed.median == 0.0 => Some(0.0),
            0.0 => None,
            after => Some(changed.median / after - 1.0),
        }
    }

    /// Whether it moved in the predicted direction: 1; the other way: -1; 0: by no more than chance explains. `None`
    /// if no move was predicted, or it cannot be said.
    fn moved(&self) -> Option<i8> {
        let (claim, difference) = (self.claim.as_ref()?, self.difference?);
        let predicted = claim.after - claim.before;
        let meant = claim.purpose && predicted != 0.0;
        (meant && difference.interval.is_some()).then(|| match difference.excludes_no_change() {
            false => 0,
            true if (difference.value > 0.0) == (predicted > 0.0) => 1,
            true => -1,
        })
    }

    fn cells(&self) -> [String; 6] {
        let show = |value: f64| units::digits(value);
        let summary = |of: Option<Summary>| units::optional(of, |of| of.text(show));
        let change = units::optional(self.difference, |difference| {
            let ends = |Interval { low, high }: Interval| format!(" [{} … {}]", signed(low), signed(high));
            let interval = difference.interval.map_or(String::new(), ends);
            format!("{}{interval}", signed(difference.value))
        });
        [
            self.figure.clone(),
            summary(self.today),
            units::optional(self.claim.as_ref(), |claim| show(claim.after)),
            summary(self.changed),
            units::optional(self.error(), |error| format!("{:+.0} %", 100.0 * error)),
            change,
        ]
    }
}

fn signed(value: f64) -> String {
    if value > 0.0 { format!("+{}", units::digits(value)) } else { units::digits(value) }
}

pub(super) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED);
    table.set_header(["figure", "today", "predicted", "measured", "error", "change, 95 % interval"]);
    table.add_rows(rows.iter().map(Row::cells));
    table.to_string()
}

pub(super) fn verdict(rows: &[Row]) -> Verdict {
    let moved: Vec<i8> = rows.iter().filter_map(Row::moved).collect();
    let claimed = |row: &&Row| row.claim.as_ref().is_some_and(|claim| claim.purpose);
    let trials =
        rows.iter().filter(claimed).filter_map(|row| row.changed).map(|changed| changed.trials).max();
    match () {
        () if moved.contains(&-1) => Verdict::Worse,
        () if moved.contains(&1) && by_rate(rows) == Verdict::Worse => Verdict::Mixed,
        () if moved.contains(&1) => Verdict::Apply,
        () if !moved.is_empty() => Verdict::Chance,
        () if trials.is_some_and(|trials| trials < FEWEST) => Verdict::TooFew,
        () => Verdict::NotMeasured,
    }
}

/// The verdict of the work as a whole, for a change of which nothing is predicted.
pub(super) fn by_rate(rows: &[Row]) -> Verdict {
    let rate = rows.iter().find(|row| row.figure == figures::RATE).and_then(|row| row.difference);
    match rate {
        None => Verdict::NotMeasured,
        Some(change) if change.interval.is_none() => Verdict::TooFew,
        Some(change) if !change.excludes_no_change() => Verdict::Chance,
        Some(change) if change.value > 0.0 => Verdict::Apply,
        Some(_) => Verdict::Worse,
    }
}

/// What got worse although the change is not about it, beyond chance: a phrase for each figure.
pub(super) fn costs(rows: &[Row]) -> Vec<String> {
    let worse = rows.iter().filter(|row| row.claim.as_ref().is_none_or(|claim| !claim.purpose));
    let worse = worse.filter(|row| {
        let more_is_better = row.figure == figures::RATE;
        row.difference
            .is_some_and(|change| change.excludes_no_change() && (change.value < 0.0) == more_is_better)
    });
    let phrases = worse.filter_map(|row| {
        let (from, to) = (row.today?.median, row.changed?.median);
        Some(format!("{}: {} -> {}", row.figure, units::digits(from), units::digits(to)))
    });
    phrases.collect()
}

/// The figures of a variant, turn by turn; those that only one of the two processes of a turn reports are joined.
pub(super) fn joined(parts: impl IntoIterator<Item = Figures>) -> Figures {
    let all: BTreeMap<_, _> = parts.into_iter().flat_map(|part| part.0).collect();
    Figures(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: &str = "runs of a stripe";

    fn figures(runs: f64, rate: f64) -> Figures {
        let mut figures = Figures::default();
        figures.set(RUNS, runs);
        figures.set(figures::RATE, rate);
        figures
    }

    fn claim(figure: &str, before: f64, after: f64) -> Claim {
        Claim { figure: figure.into(), before, after, purpose: true }
    }

    /// Runs and rate, today and changed.
    type Turn = ((f64, f64), (f64, f64));

    fn judged(claims: &[Claim], turns: &[Turn]) -> (Verdict, Vec<Row>) {
        let turns: Vec<_> = turns.iter().map(|(a, b)| (figures(a.0, a.1), figures(b.0, b.1))).collect();
        let rows = rows(claims, &turns.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
        (verdict(&rows), rows)
    }

    #[test]
    fn a_change_is_worth_making_if_its_figure_moves_as_predicted_by_more_than_chance_explains() {
        let claims = [claim(RUNS, 29.0, 1.0)];
        let better = [((29.0, 100.0), (1.2, 100.0)); 5];
        assert_eq!(judged(&claims, &better).0, Verdict::Apply);
        let slower = [((29.0, 100.0), (1.2, 80.0)); 5];
        let (verdict, rows) = judged(&claims, &slower);
        assert_eq!(verdict, Verdict::Mixed, "and the work gets slower");
        assert!((rows[0].error().unwrap() - 0.2).abs() < 1e-9);
        assert_eq!(costs(&rows), ["operations a second: 100 -> 80.0"]);
        let text = table(&rows);
        for cell in ["29.0 [29.0 … 29.0]", "1.20 [1.20 … 1.20]", "+20 %", "-27.8 [-27.8 … -27.8]"] {
            assert!(text.contains(cell), "{cell}: {text}");
        }
        assert_eq!(judged(&claims, &better[..4]).0, Verdict::TooFew);
        assert_eq!(judged(&claims, &[((1.0, 1.0), (9.0, 1.0)); 5]).0, Verdict::Worse);
        let noise = [3.0, -2.0, 1.0, -1.0, 0.5].map(|by| ((29.0, 1.0), (29.0 + by, 1.0)));
        assert_eq!(judged(&claims, &noise).0, Verdict::Chance);
    }

    #[test]
    fn without_predictions_the_rate_decides() {
        let by = |turns: &[Turn]| by_rate(&judged(&[], turns).1);
        assert_eq!(by(&[((1.0, 100.0), (1.0, 120.0)); 5]), Verdict::Apply);
        assert_eq!(by(&[((1.0, 100.0), (1.0, 80.0)); 5]), Verdict::Worse);
        assert_eq!(by(&[((1.0, 100.0), (1.0, 100.0)); 5]), Verdict::Chance);
        assert_eq!(by(&[((1.0, 100.0), (1.0, 120.0)); 2]), Verdict::TooFew);
        assert_eq!(by_rate(&[]), Verdict::NotMeasured);
    }

    #[test]
    fn a_figure_that_gets_worse_outweighs_others_and_side_effects_do_not_count() {
        let turns = [((29.0, 100.0), (1.0, 50.0)); 5];
        let (apply, mixed) = (Verdict::Apply, Verdict::Mixed);
        let both = [claim(RUNS, 29.0, 1.0), claim(figures::RATE, 100.0, 200.0)];
        assert_eq!(judged(&both, &turns).0, Verdict::Worse);
        let side = [both[0].clone(), Claim { purpose: false, ..both[1].clone() }];
        assert_eq!(judged(&side, &turns).0, mixed);
        assert_eq!(judged(&side, &[((29.0, 100.0), (1.0, 150.0)); 5]).0, apply);
        assert_eq!(judged(&side[1..], &turns).0, Verdict::NotMeasured);
        assert_eq!(judged(&[claim("temper", 1.0, 2.0)], &turns).0, Verdict::NotMeasured);
        assert_eq!(judged(&[claim(RUNS, 1.0, 1.0)], &turns).0, Verdict::NotMeasured, "no move was predicted");
    }

    #[test]
    fn figures_may_start_or_end_at_nothing() {
        let (verdict, rows) = judged(&[claim(RUNS, 5.0, 0.0)], &[((5.0, 1.0), (0.0, 1.0)); 5]);
        assert_eq!((verdict, rows[0].error()), (Verdict::Apply, Some(0.0)));
        let (verdict, rows) = judged(&[claim(RUNS, 5.0, 0.0)], &[((5.0, 1.0), (1.0, 1.0)); 5]);
        assert_eq!((verdict, rows[0].error()), (Verdict::Apply, None));
    }
}
