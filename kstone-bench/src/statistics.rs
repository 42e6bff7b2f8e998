//! Statistics of a handful of trials: medians, their spread, and how far chance alone may have moved them. Pure
//! functions of their arguments: the random choices are seeded.
//!
//! Intervals are percentile bootstrap intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter
//! 13): trials are drawn with replacement [`RESAMPLES`] times, and the interval holds the middle 95 % of the medians of
//! the draws.
//!
//! A few trials cannot prove much, whatever is computed from them. The median of the measured quantity lies between the
//! smallest and the largest of `n` trials with a probability of `1 - 2^(1-n)` ([`widest_coverage`]): 50 % for 2, 75 %
//! for 3, 93.75 % for 5. No interval computed from 5 trials alone covers more, so theirs, which always spans the
//! smallest to the largest, must be taken as a 95 % interval with a pinch of salt. With fewer than [`FEWEST`] trials,
//! there is no interval.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// The nominal probability that an interval contains the true value.
pub const LEVEL: f64 = 0.95;
/// The number of resamples of a bootstrap. The ends of an interval are then accurate to a fraction of a percentile.
pub const RESAMPLES: usize = 4000;
/// The minimum number of trials for an interval. With four, all are on one side of the truth by chance in one case of
/// eight.
pub const FEWEST: usize = 5;

/// The seed of all resampling: the same trials always have the same interval.
const SEED: u64 = 42;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// Whether the interval contains the value, ends included.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// A summary of some trials.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    pub trials: usize,
    /// The median; for an even number of trials, the mean of the two in the middle.
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// The interval of the median; `None` for fewer than [`FEWEST`] trials.
    pub interval: Option<Interval>,
}

impl Summary {
    /// `212,400 [208,900 … 215,700]`, with the ends only for several trials.
    pub fn text(&self, show: impl Fn(f64) -> String) -> String {
        match self.trials {
            1 => show(self.median),
            _ => format!("{} [{}]", show(self.median), self.range(show)),
        }
    }

    /// `208,900 … 215,700`.
    pub fn range(&self, show: impl Fn(f64) -> String) -> String {
        format!("{} … {}", show(self.min), show(self.max))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The median of the second relative to that of the first.
    pub value: f64,
    /// `None` if either has fewer than [`FEWEST`] trials.
    pub interval: Option<Interval>,
}

impl Ratio {
    /// Whether chance alone rarely produces this ratio. Always false for few trials.
    pub fn excludes_no_change(&self) -> bool {
        self.interval.is_some_and(|interval| !interval.contains(1.0))
    }
}

/// How far one figure is above another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The median of the second less that of the first.
    pub value: f64,
    /// `None` for fewer than [`FEWEST`] turns.
    pub interval: Option<Interval>,
}

impl Difference {
    /// Whether chance alone rarely produces this difference. Always false for few turns.
    pub fn excludes_no_change(&self) -> bool {
        self.interval.is_some_and(|interval| !interval.contains(0.0))
    }
}

/// The median of finite numbers; `None` if there are none, or one is not finite.
pub fn median(values: &[f64]) -> Option<f64> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mut sorted = values.to_vec();
    Some(middle(&mut sorted))
}

/// The summary of some trials; `None` as for [`median`].
pub fn summary(values: &[f64]) -> Option<Summary> {
    let median = median(values)?;
    let interval = (values.len() >= FEWEST).then(|| {
        let mut draw = vec![0.0; values.len()];
        interval(|random| {
            draw.fill_with(|| values[random.random_range(0..values.len())]);
            middle(&mut draw)
        })
    });
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Some(Summary { trials: values.len(), median, min, max, interval })
}

/// The ratio of series whose trials took turns, with `(first, second)` for each turn: whole turns are resampled, so
/// that anything that slowed both down does not widen the interval. `None` without turns, or if a value is not finite
/// and above 0.
pub fn paired_ratio(turns: &[(f64, f64)]) -> Option<Ratio> {
    let (first, second): (Vec<f64>, Vec<f64>) = turns.iter().copied().unzip();
    let value = ratio_of_medians(&first, &second)?;
    let interval = (turns.len() >= FEWEST).then(|| {
        let (mut a, mut b) = (first.clone(), second.clone());
        interval(|random| {
            for at in 0..turns.len() {
                (a[at], b[at]) = turns[random.random_range(0..turns.len())];
            }
            middle(&mut b) / middle(&mut a)
        })
    });
    Some(Ratio { value, interval })
}

/// The difference of series whose trials took turns, resampled like [`paired_ratio`]; for figures that may be 0. `None`
/// without turns, or if a value is not finite.
pub fn paired_difference(turns: &[(f64, f64)]) -> Option<Difference> {
    let (first, second): (Vec<f64>, Vec<f64>) = turns.iter().copied().unzip();
    let value = median(&second)? - median(&first)?;
    let interval = (turns.len() >= FEWEST).then(|| {
        let (mut a, mut b) = (first.clone(), second.clone());
        interval(|random| {
            for at in 0..turns.len() {
                (a[at], b[at]) = turns[random.random_range(0..turns.len())];
            }
            middle(&mut b) - middle(&mut a)
        })
    });
    Some(Difference { value, interval })
}

/// The ratio of series that were measured at different times. `None` as for [`paired_ratio`].
pub fn independent_ratio(first: &[f64], second: &[f64]) -> Option<Ratio> {
    let value = ratio_of_medians(first, second)?;
    let interval = (first.len().min(second.len()) >= FEWEST).then(|| {
        let (mut a, mut b) = (first.to_vec(), second.to_vec());
        interval(|random| {
            a.fill_with(|| first[random.random_range(0..first.len())]);
            b.fill_with(|| second[random.random_range(0..second.len())]);
            middle(&mut b) / middle(&mut a)
        })
    });
    Some(Ratio { value, interval })
}

/// The probability that the median of a continuous distribution lies between the smallest and the largest of `trials`
/// draws: the complement of the case that all are on one side of it.
pub fn widest_coverage(trials: usize) -> f64 {
    match trials {
        0 => 0.0,
        trials => 1.0 - 2.0 * 0.5_f64.powi(trials.min(1000) as i32),
    }
}

fn ratio_of_medians(first: &[f64], second: &[f64]) -> Option<f64> {
    let positive = |values: &[f64]| values.iter().all(|value| *value > 0.0);
    if !positive(first) || !positive(second) {
        return None;
    }
    Some(median(second)? / median(first)?)
}

/// The middle [`LEVEL`] of the resampled values.
fn interval(mut draw: impl FnMut(&mut StdRng) -> f64) -> Interval {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut drawn: Vec<f64> = (0..RESAMPLES).map(|_| draw(&mut random)).collect();
    drawn.sort_by(f64::total_cmp);
    let outside = ((1.0 - LEVEL) / 2.0 * RESAMPLES as f64) as usize;
    Interval { low: drawn[outside], high: drawn[RESAMPLES - 1 - outside] }
}

/// The median of at least one number; reorders the numbers.
fn middle(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, Exp, LogNormal, Normal};

    use super::*;

    #[test]
    fn medians_and_extremes_are_those_of_the_trials() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!((median(&[]), median(&[1.0, f64::NAN])), (None, None));
        let five = summary(&[5.0, 1.0, 3.0, 2.0, 4.0]).unwrap();
        assert_eq!((five.trials, five.median, five.min, five.max), (5, 3.0, 1.0, 5.0));
        assert_eq!(five.interval, Some(Interval { low: 1.0, high: 5.0 }), "of five trials: all of them");
        assert_eq!(summary(&[1.0, 2.0, 3.0, 4.0]).unwrap().interval, None, "four cannot tell");
    }

    #[test]
    fn the_same_trials_have_the_same_interval() {
        let values: Vec<f64> = (0..20).map(|n| f64::from(n * n)).collect();
        assert_eq!(summary(&values), summary(&values));
    }

    #[test]
    fn ratios_need_figures_above_nothing() {
        let turns = [(100.0, 110.0), (200.0, 220.0), (50.0, 55.0), (80.0, 88.0), (90.0, 99.0)];
        let ratio = paired_ratio(&turns).unwrap();
        assert!((ratio.value - 1.1).abs() < 1e-9 && ratio.excludes_no_change(), "{ratio:?}");
        assert!(!paired_ratio(&turns[..4]).unwrap().excludes_no_change(), "four cannot tell");
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(paired_ratio(&[(bad, 1.0)]), None, "{bad}");
            assert_eq!(independent_ratio(&[1.0], &[bad]), None, "{bad}");
        }
        assert_eq!(paired_ratio(&[]), None);
    }

    #[test]
    fn differences_are_between_medians_and_may_start_at_nothing() {
        let turns = [(0.0, 2.0), (0.0, 3.0), (1.0, 3.5), (0.5, 2.5), (0.0, 2.0)];
        let difference = paired_difference(&turns).unwrap();
        assert_eq!(difference.value, 2.5);
        assert!(difference.excludes_no_change(), "{difference:?}");
        assert!(!paired_difference(&turns[..4]).unwrap().excludes_no_change(), "four cannot tell");
        assert!(!paired_difference(&[(1.0, 1.0); 5]).unwrap().excludes_no_change(), "none");
        let noise = [(1.0, 2.0), (2.0, 1.0), (3.0, 3.1), (2.0, 1.9), (1.0, 1.2)];
        assert!(!paired_difference(&noise).unwrap().excludes_no_change());
        assert_eq!((paired_difference(&[]), paired_difference(&[(f64::NAN, 1.0)])), (None, None));
    }

    /// How often the interval of `trials` draws contains the truth.
    fn coverage(trials: usize, truth: f64, distribution: &impl Distribution<f64>) -> f64 {
        const TIMES: usize = 400;
        let mut random = StdRng::seed_from_u64(7);
        let holds = (0..TIMES).filter(|_| {
            let values: Vec<f64> = (0..trials).map(|_| distribution.sample(&mut random)).collect();
            summary(&values).unwrap().interval.unwrap().contains(truth)
        });
        holds.count() as f64 / TIMES as f64
    }

    #[test]
    fn intervals_hold_the_truth_about_as_often_as_they_say() {
        let normal = Normal::new(1000.0, 50.0).unwrap();
        let skewed = LogNormal::new(3.0, 0.8).unwrap();
        let tail = Exp::new(0.01).unwrap();
        let (skewed_median, tail_median) = (3.0_f64.exp(), 2.0_f64.ln() / 0.01);
        for trials in [5, 9, 15] {
            let found = [
                coverage(trials, 1000.0, &normal),
                coverage(trials, skewed_median, &skewed),
                coverage(trials, tail_median, &tail),
            ];
            println!("{trials} trials: {found:?}, at best {}", widest_coverage(trials));
            for share in found {
                assert!((0.91..=0.985).contains(&share), "{trials} trials: {found:?}");
                assert!(share <= widest_coverage(trials) + 0.03, "{trials} trials: {found:?}");
            }
        }
    }

    #[test]
    fn few_trials_hold_as_little_as_said() {
        assert_eq!([1, 2, 3, 5].map(widest_coverage), [0.0, 0.5, 0.75, 0.9375]);
        let normal = Normal::new(0.0, 1.0).unwrap();
        let mut random = StdRng::seed_from_u64(3);
        let held = (0..4000).filter(|_| {
            let values: Vec<f64> = (0..3).map(|_| normal.sample(&mut random)).collect();
            let figures = summary(&values).unwrap();
            figures.min < 0.0 && 0.0 < figures.max
        });
        let share = held.count() as f64 / 4000.0;
        assert!((share - widest_coverage(3)).abs() < 0.02, "{share}");
    }

    /// Turns of two series, the second of which is `truth` times the first; both share the drift of the machine.
    fn turns(random: &mut StdRng, trials: usize, truth: f64, drift: f64) -> Vec<(f64, f64)> {
        let (machine, noise) = (Normal::new(0.0, drift).unwrap(), Normal::new(0.0, 0.02).unwrap());
        let turn = |_| {
            let common = machine.sample(random);
            let first = 1e5 * f64::exp(common + noise.sample(random));
            (first, 1e5 * truth * f64::exp(common + noise.sample(random)))
        };
        (0..trials).map(turn).collect()
    }

    #[test]
    fn intervals_of_ratios_hold_the_truth_and_pairs_make_them_narrow() {
        const TIMES: usize = 300;
        let mut random = StdRng::seed_from_u64(11);
        for trials in [5, 9] {
            let (mut paired, mut independent, mut narrower) = (0, 0, 0);
            for _ in 0..TIMES {
                let turns = turns(&mut random, trials, 1.1, 0.1);
                let (first, second): (Vec<f64>, Vec<f64>) = turns.iter().copied().unzip();
                let a = paired_ratio(&turns).unwrap().interval.unwrap();
                let b = independent_ratio(&first, &second).unwrap().interval.unwrap();
                paired += usize::from(a.contains(1.1));
                independent += usize::from(b.contains(1.1));
                narrower += usize::from(a.high - a.low < b.high - b.low);
            }
            let share = |count: usize| count as f64 / TIMES as f64;
            println!("{trials}: {} {} {}", share(paired), share(independent), share(narrower));
            assert!(share(paired) > 0.9 && share(independent) > 0.9, "{trials}");
            assert!(share(narrower) > 0.8, "{trials}");
        }
    }

    #[test]
    fn no_change_is_rarely_taken_for_one() {
        const TIMES: usize = 300;
        let mut random = StdRng::seed_from_u64(5);
        let alarms = (0..TIMES).filter(|_| {
            let ratio = paired_ratio(&turns(&mut random, 5, 1.0, 0.1)).unwrap();
            ratio.excludes_no_change() && ratio.value < 0.95
        });
        let alarms = alarms.count();
        assert!(alarms * 50 < TIMES, "{alarms} of {TIMES}");
        let slower = (0..TIMES)
            .filter(|_| paired_ratio(&turns(&mut random, 5, 0.85, 0.1)).unwrap().excludes_no_change());
        let slower = slower.count();
        assert!(slower * 10 > TIMES * 9, "{slower} of {TIMES} that were 15 % slower");
    }
}
