//! Decides whether the figures have the shape that the chapter claims, and how they compare to a target: pure
//! functions.
//!
//! A tolerance is a fraction of the value compared with. Smaller differences count as noise: in favour of the claim
//! where a step goes the wrong way, and against it where the first and the last must differ.

use serde::{Deserialize, Serialize};

use crate::statistics::{Interval, paired_ratio};

/// A claim of the chapter about several figures together, and whether it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// The claim, in one sentence.
    pub claim: String,
    /// `None`: too little could be measured to decide.
    pub holds: Option<bool>,
    /// The figures that decided it, with the tolerance.
    pub why: String,
}

impl Shape {
    fn decided(claim: &str, wrong: Vec<String>, right: String) -> Self {
        let holds = wrong.is_empty();
        let why = if holds { right } else { wrong.join("; ") };
        Self { claim: claim.into(), holds: Some(holds), why }
    }

    fn open(claim: &str) -> Self {
        Self { claim: claim.into(), holds: None, why: "fewer than two figures to compare".into() }
    }
}

/// How a figure compares to a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Reaches the better target.
    Excellent,
    /// Reaches the target.
    Good,
    Missed,
    /// The target cannot be meant, and why.
    NotGraded(String),
}

/// The direction in which figures must go from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Rises,
    Falls,
}

/// Every figure is beyond the previous ones, within the tolerance, and the last is beyond the first by more than the
/// tolerance. Each is compared with the best of the previous figures, so that many small steps in the wrong direction
/// do not all count as noise.
pub fn monotone(claim: &str, direction: Direction, points: &[(String, f64)], tolerance: f64) -> Shape {
    let [(first, from), .., (last, to)] = points else { return Shape::open(claim) };
    let sign = if direction == Direction::Rises { 1.0 } else { -1.0 };
    let percent = |from: f64, to: f64| match from {
        0.0 => "up from nothing".to_owned(),
        _ => format!("{:+.0} %", 100.0 * (to / from - 1.0)),
    };
    let mut wrong = Vec::new();
    let (mut best_row, mut best) = (first, *from);
    for (row, value) in points {
        if sign * value < sign * best - tolerance * best.abs() {
            wrong.push(format!("{row} is {} of {best_row}", percent(best, *value)));
        }
        if sign * value > sign * best {
            (best_row, best) = (row, *value);
        }
    }
    let change = format!("{last} against {first}: {}", percent(*from, *to));
    if sign * (to - from) <= tolerance * from.abs() {
        wrong.push(format!("{change}, which is noise or the other way"));
    }
    let allowed = format!("tolerance {:.0} %", 100.0 * tolerance);
    Shape::decided(claim, wrong, format!("{change}, no step back; {allowed}"))
}

/// The same for points whose trials took turns, judged by what the trials show instead of a tolerance: a step goes the
/// wrong way if the whole interval of the ratio ([`paired_ratio`]) does, and the last differs from the first if the whole
/// interval is on the claimed side. `None` if there are too few trials for intervals.
pub(super) fn paired(claim: &str, direction: Direction, points: &[(String, &[f64])]) -> Option<Shape> {
    let [(first, from), .., (last, to)] = points else { return None };
    let rises = direction == Direction::Rises;
    let change = |from: &[f64], to: &[f64]| {
        if from.len() != to.len() {
            return None;
        }
        let turns: Vec<(f64, f64)> = from.iter().copied().zip(to.iter().copied()).collect();
        let ratio = paired_ratio(&turns)?;
        Some((ratio.value, ratio.interval?))
    };
    let text = |(value, interval): (f64, Interval)| {
        let percent = |ratio: f64| format!("{:+.1}", 100.0 * (ratio - 1.0));
        format!("{} % [{} … {}]", percent(value), percent(interval.low), percent(interval.high))
    };
    let mut wrong = Vec::new();
    for pair in points.windows(2) {
        let [(before, from), (row, to)] = pair else { continue };
        let step = change(from, to)?;
        let (low, high) = (step.1.low, step.1.high);
        if if rises { high < 1.0 } else { low > 1.0 } {
            wrong.push(format!("{row} is {} of {before}", text(step)));
        }
    }
    let whole = change(from, to)?;
    let difference = format!("{last} against {first}: {}", text(whole));
    if if rises { whole.1.low <= 1.0 } else { whole.1.high >= 1.0 } {
        wrong.push(format!("{difference}, which is noise or the other way"));
    }
    let by = format!("by the intervals of {} trials that took turns", from.len());
    Some(Shape::decided(claim, wrong, format!("{difference}, no step back; {by}")))
}

/// No figure differs from the claimed one by more than a fraction of it. For each: its row, the measured and the
/// claimed figure.
pub(super) fn agrees(claim: &str, points: &[(String, f64, f64)], tolerance: f64) -> Shape {
    if points.is_empty() {
        return Shape { why: "nothing could be measured".into(), ..Shape::open(claim) };
    }
    let off = |point: &&(String, f64, f64)| (point.1 / point.2 - 1.0).abs();
    let wrong: Vec<_> = points.iter().filter(|point| off(point).is_nan() || off(point) > tolerance).collect();
    let furthest = points.iter().map(|point| off(&point)).fold(0.0, f64::max);
    Shape::decided(
        claim,
        wrong.iter().map(|(row, is, said)| format!("{row}: {:.2} of what is said", is / said)).collect(),
        format!("the furthest is off by {:.0} %; tolerance {:.0} %", 100.0 * furthest, 100.0 * tolerance),
    )
}

/// No figure is above the claimed one by more than a fraction of it: for costs, where less is no fault.
pub(super) fn at_most(claim: &str, points: &[(String, f64, f64)], tolerance: f64) -> Shape {
    if points.is_empty() {
        return Shape { why: "nothing could be measured".into(), ..Shape::open(claim) };
    }
    let above = |(_, is, limit): &&(String, f64, f64)| is.is_nan() || *is > limit * (1.0 + tolerance);
    let wrong = points.iter().filter(above);
    Shape::decided(
        claim,
        wrong.map(|(row, is, limit)| format!("{row}: {:.3} of the limit", is / limit)).collect(),
        match tolerance {
            0.0 => "none is above".into(),
            _ => format!("none is above by more than {:.0} %", 100.0 * tolerance),
        },
    )
}

/// The ratio of the last to the first is within these bounds.
pub(super) fn factor(claim: &str, points: &[(String, f64)], low: f64, high: f64) -> Shape {
    let [(first, from), .., (last, to)] = points else { return Shape::open(claim) };
    let factor = to / from;
    let text = format!("{last} is {factor:.2} times {first}");
    let wrong = if (low..=high).contains(&factor) {
        Vec::new()
    } else {
        vec![format!("{text}, not {low:.2} to {high:.2}")]
    };
    Shape::decided(claim, wrong, text)
}

/// All of these named conditions hold.
pub(super) fn all(claim: &str, conditions: &[(&str, bool)]) -> Shape {
    let wrong = conditions.iter().filter(|(_, holds)| !holds).map(|(what, _)| format!("not so: {what}"));
    Shape::decided(
        claim,
        wrong.collect(),
        conditions.iter().map(|(what, _)| *what).collect::<Vec<_>>().join("; "),
    )
}

/// A pair of targets: for `Good` and for `Excellent`, which are the same where there is only one.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct Target {
    pub(super) good: f64,
    pub(super) excellent: f64,
    /// If true, more is better and reaching the target is enough; otherwise a value must be below it.
    #[serde(default)]
    pub(super) more: bool,
}

impl Target {
    pub(super) fn grade(&self, value: f64) -> Grade {
        let reaches = |target: f64| if self.more { value >= target } else { value < target };
        if reaches(self.excellent) {
            Grade::Excellent
        } else if reaches(self.good) {
            Grade::Good
        } else {
            Grade::Missed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[f64]) -> Vec<(String, f64)> {
        values.iter().enumerate().map(|(row, value)| (format!("row {row}"), *value)).collect()
    }

    fn holds(direction: Direction, values: &[f64], tolerance: f64) -> Option<bool> {
        monotone("", direction, &points(values), tolerance).holds
    }

    #[test]
    fn figures_rise_when_no_step_goes_back_and_the_ends_differ() {
        use Direction::{Falls, Rises};
        assert_eq!(holds(Rises, &[100.0, 98.0, 140.0, 160.0], 0.05), Some(true), "a step within the noise");
        assert_eq!(holds(Rises, &[100.0, 94.0, 140.0, 160.0], 0.05), Some(false), "a step back");
        assert_eq!(holds(Rises, &[100.0, 101.0, 102.0, 104.0], 0.05), Some(false), "flat");
        assert_eq!(holds(Rises, &[160.0, 140.0, 120.0], 0.05), Some(false), "falling");
        assert_eq!(holds(Rises, &[100.0, 140.0, 135.0, 130.0, 125.0], 0.05), Some(false), "a slow way back");
        assert_eq!(holds(Falls, &[160.0, 140.0, 120.0], 0.05), Some(true));
        assert_eq!(holds(Falls, &[160.0, 140.0, 150.0, 120.0], 0.05), Some(false));
        assert_eq!(holds(Falls, &[100.0, 200.0], 0.05), Some(false));
        assert_eq!(holds(Falls, &[100.0, 99.0], 0.05), Some(false));
        assert_eq!(holds(Rises, &[100.0], 0.05), None);
        assert_eq!(holds(Rises, &[], 0.05), None);
        let shape = monotone("more is more", Rises, &points(&[100.0, 80.0, 140.0]), 0.05);
        assert!(shape.why.contains("row 1") && shape.why.contains("row 0"), "{shape:?}");
        let shape = monotone("more is more", Rises, &points(&[100.0, 140.0]), 0.05);
        assert!(shape.why.contains("+40 %") && shape.why.contains("tolerance 5 %"), "{shape:?}");
    }

    #[test]
    fn trials_that_took_turns_show_small_differences() {
        use Direction::{Falls, Rises};
        let base = [100.0, 130.0, 90.0, 110.0, 105.0];
        let times = |factor: f64| base.map(|value| value * factor);
        let (less, more) = (times(0.97), times(1.02));
        let judge = |direction, trials: &[&[f64]]| {
            let points: Vec<_> = trials.iter().map(|trials| ("row".to_owned(), *trials)).collect();
            paired("", direction, &points).map(|shape| shape.holds)
        };
        assert_eq!(judge(Falls, &[&base, &less]), Some(Some(true)), "less than the noise, but in every turn");
        assert_eq!(judge(Rises, &[&base, &less]), Some(Some(false)));
        assert_eq!(judge(Rises, &[&base, &less, &more]), Some(Some(false)), "a step back");
        assert_eq!(judge(Rises, &[&base, &base, &more]), Some(Some(true)));
        let mixed = [90.0, 140.0, 80.0, 120.0, 100.0];
        assert_eq!(judge(Falls, &[&base, &mixed]), Some(Some(false)), "once so, once the other way");
        assert_eq!(judge(Falls, &[&base[..4], &less[..4]]), None, "too few trials");
        assert_eq!(judge(Falls, &[&base, &less[..4]]), None, "a trial without a figure");
        assert_eq!(judge(Falls, &[&base]), None);
    }

    #[test]
    fn figures_agree_within_a_share_on_either_side() {
        let judge = |measured: f64| agrees("", &[("10".into(), measured, 1.0)], 0.2).holds;
        assert_eq!(judge(1.19), Some(true));
        assert_eq!(judge(0.81), Some(true));
        assert_eq!(judge(1.21), Some(false));
        assert_eq!(judge(0.79), Some(false));
        assert_eq!(judge(f64::NAN), Some(false));
        assert_eq!(agrees("", &[], 0.2).holds, None);
        let two = [("6".to_owned(), 6.0, 6.0), ("8".to_owned(), 3.0, 2.0)];
        let shape = agrees("", &two, 0.2);
        assert!(shape.holds == Some(false) && shape.why == "8: 1.50 of what is said", "{shape:?}");
    }

    #[test]
    fn a_limit_holds_when_nothing_is_above_it() {
        let judge =
            |measured: f64, tolerance| at_most("", &[("log".into(), measured, 100.0)], tolerance).holds;
        assert_eq!(judge(100.0, 0.0), Some(true));
        assert_eq!(judge(100.1, 0.0), Some(false));
        assert_eq!(judge(1.0, 0.0), Some(true));
        assert_eq!(judge(119.0, 0.2), Some(true));
        assert_eq!(judge(121.0, 0.2), Some(false));
        assert_eq!(judge(f64::NAN, 0.2), Some(false));
        assert_eq!(at_most("", &[], 0.0).holds, None);
    }

    #[test]
    fn a_factor_is_between_its_bounds() {
        assert_eq!(factor("", &points(&[1.0, 9.0, 5.5]), 5.0, 6.0).holds, Some(true));
        assert_eq!(factor("", &points(&[1.0, 4.9]), 5.0, 6.0).holds, Some(false));
        assert_eq!(factor("", &points(&[1.0, 6.1]), 5.0, 6.0).holds, Some(false));
        assert_eq!(factor("", &points(&[1.0]), 5.0, 6.0).holds, None);
    }

    #[test]
    fn one_condition_that_fails_is_named() {
        let shape = all("", &[("most writes", true), ("fewest runs", false)]);
        assert_eq!((shape.holds, shape.why.as_str()), (Some(false), "not so: fewest runs"));
        assert_eq!(all("", &[("most writes", true)]).holds, Some(true));
    }

    #[test]
    fn grades_follow_the_targets() {
        let throughput = Target { good: 50_000.0, excellent: 100_000.0, more: true };
        assert_eq!(throughput.grade(49_999.0), Grade::Missed);
        assert_eq!(throughput.grade(50_000.0), Grade::Good);
        assert_eq!(throughput.grade(99_999.0), Grade::Good);
        assert_eq!(throughput.grade(100_000.0), Grade::Excellent);
        let latency = Target { good: 2e6, excellent: 5e5, more: false };
        assert_eq!(latency.grade(2e6), Grade::Missed, "below 2 ms, says the chapter");
        assert_eq!(latency.grade(1.9e6), Grade::Good);
        assert_eq!(latency.grade(5e5), Grade::Good);
        assert_eq!(latency.grade(4.9e5), Grade::Excellent);
        assert_eq!(latency.grade(f64::NAN), Grade::Missed);
    }
}
