//! The search for the best settings for a goal.

use std::fmt;

use serde::Serialize;

use super::{MEMTABLE_OVERHEAD, Model, Point, Prediction};
use crate::bloom;
use crate::config::DatabaseConfig;

const THRESHOLDS: std::ops::RangeInclusive<usize> = 4..=30;
const MEMTABLES: [usize; 9] = [200, 350, 500, 750, 1000, 2000, 3500, 6000, 10_000];
const BITS: std::ops::RangeInclusive<usize> = 6..=20;
/// Deviations of the mix of writes and reads for which a point must also do well.
const MIX: [(f64, f64); 3] = [(1.0, 1.0), (1.2, 0.8), (0.8, 1.2)];
/// Points whose cost is within this factor of the lowest are equally good: the one with the least memory is chosen.
const EQUALLY_GOOD: f64 = 1.02;
/// How much more time than the cheapest point a point may cost to save memory or recovery time.
const WORTH: f64 = 1.25;
/// Weight of writes, or of reads, under the goals named after them.
const FAVOUR: f64 = 8.0;

/// The quantity to optimise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Goal {
    /// Total time spent on writes and reads in the given mix.
    #[default]
    Balanced,
    /// Writes count eight times as much as reads.
    Write,
    /// Reads count eight times as much as writes.
    Read,
    /// The least memory that costs at most a quarter more time.
    Memory,
    /// The least space on disk that costs at most a quarter more time.
    Space,
    /// The shortest recovery that costs at most a quarter more time.
    Recovery,
}

/// Limits that the settings must respect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Constraints {
    /// Maximum bytes of memtables, filters and indexes together.
    pub memory_bytes: Option<u64>,
    /// Maximum duration of a recovery, in nanoseconds.
    pub replay_ns: Option<f64>,
    /// Maximum write amplification.
    pub write_amplification: Option<f64>,
    /// Maximum average number of runs in a stripe.
    pub average_runs: Option<f64>,
}

impl Constraints {
    fn allow(&self, prediction: &Prediction) -> bool {
        let within = |limit: Option<f64>, value: f64| limit.is_none_or(|limit| value <= limit);
        within(self.memory_bytes.map(|bytes| bytes as f64), prediction.memory_bytes())
            && within(self.replay_ns, prediction.replay_ns)
            && within(self.write_amplification, prediction.write_amplification)
            && within(self.average_runs, prediction.average_runs)
    }
}

/// Recommended settings, their predicted effect, and the evidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Advice {
    /// The settings.
    pub point: Point,
    /// The predicted effect of the settings.
    pub prediction: Prediction,
    /// The predicted effect of the default settings.
    pub default: Prediction,
    /// How far these settings fall behind the best ones if the mix of writes and reads is off by a fifth, in the worst
    /// case: 0.05 is 5 %.
    pub regret: f64,
    /// Number of points examined.
    pub points: usize,
    /// Number of points that satisfy the constraints.
    pub allowed: usize,
    /// The evidence, one sentence each.
    pub why: Vec<String>,
}

/// One point; kept small, as there are thousands.
struct Candidate {
    point: Point,
    /// Cost with each mix.
    costs: [f64; MIX.len()],
    /// Among points that are good enough, the one with the lowest value of this is chosen.
    wanted: f64,
}

impl Candidate {
    /// The worst of the costs, each relative to the lowest cost for that mix: 1 is the best for all mixes.
    fn score(&self, least: &[f64; MIX.len()]) -> f64 {
        self.costs
            .iter()
            .zip(least)
            .map(|(cost, least)| cost / least.max(f64::MIN_POSITIVE))
            .fold(0.0, f64::max)
    }
}

impl Model {
    /// The settings that suit the goal best, out of some 3,600: K from 4 to 30, memtables of 200 to 10,000 records with
    /// the budget they need, filters of 6 to 20 bits. They must also do well if the mix of writes and reads is off by a
    /// fifth. `None` if no settings satisfy the constraints.
    pub fn best(&self, goal: Goal, constraints: &Constraints) -> Option<Advice> {
        let rates: Vec<(usize, f64)> =
            BITS.map(|bits| (bits, bloom::expected_false_positives(bits as u32))).collect();
        let (slack, wanted): (f64, fn(&Prediction) -> f64) = match goal {
            Goal::Balanced | Goal::Write | Goal::Read => (EQUALLY_GOOD, Prediction::memory_bytes),
            Goal::Memory => (WORTH, Prediction::memory_bytes),
            Goal::Space => (WORTH, |prediction| prediction.sst_bytes),
            Goal::Recovery => (WORTH, |prediction| prediction.replay_ns),
        };
        let mut points = 0;
        let mut allowed = Vec::new();
        for point in MEMTABLES.iter().flat_map(|&records| self.shapes(records)) {
            let shape = self.shape(&point);
            for &(bits, false_positives) in &rates {
                points += 1;
                let point = Point { bloom_bits_per_key: bits, ..point };
                let prediction = self.predict_from(&point, &shape, false_positives);
                if constraints.allow(&prediction) {
                    let costs = MIX.map(|mix| self.cost(goal, &prediction, mix));
                    allowed.push(Candidate { point, costs, wanted: wanted(&prediction) });
                }
            }
        }
        let mut least = [f64::INFINITY; MIX.len()];
        for candidate in &allowed {
            for (least, cost) in least.iter_mut().zip(candidate.costs) {
                *least = least.min(cost);
            }
        }
        let best_score =
            allowed.iter().map(|candidate| candidate.score(&least)).fold(f64::INFINITY, f64::min);
        let good = allowed.iter().filter(|candidate| candidate.score(&least) <= best_score * slack);
        let best = good.min_by(|a, b| {
            let wanted = a.wanted.total_cmp(&b.wanted);
            wanted.then_with(|| a.score(&least).total_cmp(&b.score(&least)))
        })?;
        let (prediction, default) = (self.predict(&best.point), self.predict(&Point::default()));
        Some(Advice {
            point: best.point,
            prediction,
            default,
            regret: best.score(&least) - 1.0,
            points,
            allowed: allowed.len(),
            why: self.evidence(&best.point, &prediction, &default),
        })
    }

    /// The points with that memtable limit, one for each K, with the budget and the log that the limit needs.
    fn shapes(&self, records: usize) -> impl Iterator<Item = Point> {
        let bytes = self.workload.record() + MEMTABLE_OVERHEAD;
        let budget = ((records as f64 * bytes * self.stripes() / 2.0) as usize).max(1);
        let config = DatabaseConfig::new().with_max_memtable_records(records).with_memory_budget(budget);
        let base =
            Point { memory_budget: budget as u64, log_limit: config.wal_limit_bytes(), ..Point::default() };
        THRESHOLDS.map(move |sst_threshold| Point { sst_threshold, max_memtable_records: records, ..base })
    }

    /// Time per second spent on writes and reads, in nanoseconds, weighted by the goal.
    fn cost(&self, goal: Goal, prediction: &Prediction, (more_writes, more_reads): (f64, f64)) -> f64 {
        let writes = self.workload.writes_per_second * more_writes * prediction.write_ns;
        let reads = self.workload.reads_per_second * more_reads * prediction.read_ns;
        match goal {
            Goal::Write => FAVOUR * writes + reads,
            Goal::Read => writes + FAVOUR * reads,
            Goal::Balanced | Goal::Memory | Goal::Space | Goal::Recovery => writes + reads,
        }
    }

    fn evidence(&self, point: &Point, chosen: &Prediction, default: &Prediction) -> Vec<String> {
        let base = Point::default();
        let mut why = Vec::new();
        why.push(format!(
            "sst_threshold {}: {:.1} runs a stripe and {:.2} x write amplification, with {} {:.1} and {:.2}",
            point.sst_threshold,
            chosen.average_runs,
            chosen.write_amplification,
            base.sst_threshold,
            default.average_runs,
            default.write_amplification,
        ));
        why.push(format!(
            "max_memtable_records {}: {:.1} flushes a stripe, {:.1} MB of memtables and {:.0} ms of recovery, \
             with {} {:.1}, {:.1} and {:.0}",
            point.max_memtable_records,
            chosen.flushes_per_stripe,
            chosen.memtable_bytes / 1e6,
            chosen.replay_ns / 1e6,
            base.max_memtable_records,
            default.flushes_per_stripe,
            default.memtable_bytes / 1e6,
            default.replay_ns / 1e6,
        ));
        why.push(format!(
            "bloom_bits_per_key {}: {:.3} % false positives in {:.1} MB of filters, with {} {:.3} % in {:.1} MB",
            point.bloom_bits_per_key,
            100.0 * chosen.false_positive_rate,
            chosen.filter_bytes / 1e6,
            base.bloom_bits_per_key,
            100.0 * default.false_positive_rate,
            default.filter_bytes / 1e6,
        ));
        why.push(format!(
            "a write takes {:.2} us instead of {:.2}, a read {:.2} instead of {:.2}",
            chosen.write_ns / 1e3,
            default.write_ns / 1e3,
            chosen.read_ns / 1e3,
            default.read_ns / 1e3,
        ));
        why
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.point)?;
        for why in &self.why {
            writeln!(f, "  {why}")?;
        }
        write!(
            f,
            "  {} of {} points satisfy the constraints; at most {:.1} % behind the best if the mix is off by a fifth",
            self.allowed,
            self.points,
            100.0 * self.regret
        )
    }
}
