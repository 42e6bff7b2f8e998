//! The work to replay: shares of operations and sizes of values, from the counters of the program that uses the
//! database, or from named workloads.

use anyhow::{Result, bail};
use kstone_api::{EngineStats, SizeSummary};
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::units;
use crate::workload::{self, Keys, MULTI_GET_KEYS, QUERY_ITEMS, Task, Workload};

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Insert,
    Overwrite,
    Delete,
    Hit,
    Miss,
    Query,
}

const DEEDS: [Deed; 6] = [Deed::Insert, Deed::Overwrite, Deed::Delete, Deed::Hit, Deed::Miss, Deed::Query];

/// Shares of operations, in the order of [`DEEDS`]; they need not add up to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) shares: [f64; 6],
    /// Items that a query reads, at most.
    pub(super) query_items: u64,
    /// Sizes of the values written; `None`: those of the values that are there.
    pub(super) sizes: Option<Sizes>,
    /// How existing keys are chosen.
    pub(super) keys: Keys,
    /// The part of the work that is not replayed, in words.
    pub(super) left_out: Vec<String>,
}

/// A distribution of sizes: evenly between the least and the median, from there to the 99th percentile by a power that
/// makes small ones more frequent, and evenly to the maximum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sizes {
    least: f64,
    p50: f64,
    p99: f64,
    max: f64,
    power: f64,
}

impl Sizes {
    /// The distribution with these percentiles and, where possible, this mean. The mean decides how far sizes reach
    /// below the median, down to half of it, and beyond that how quickly they rise above it.
    fn of(seen: &SizeSummary) -> Self {
        let (mean, p50) = (seen.mean as f64, seen.p50 as f64);
        let p99 = (seen.p99 as f64).max(p50);
        let max = (seen.max as f64).max(p99);
        // What is left for a range of sizes once all others have their share of the mean.
        let lower = |power: f64| {
            let middle = p50 + (p99 - p50) / (power + 1.0);
            4.0 * (mean - 0.49 * middle - 0.01 * f64::midpoint(p99, max)) - p50
        };
        let power = if lower(1.0) >= p50 / 2.0 {
            1.0
        } else {
            let middle = (mean - 0.5 * 0.75 * p50 - 0.01 * f64::midpoint(p99, max)) / 0.49;
            ((p99 - p50) / (middle - p50).max(1e-9) - 1.0).clamp(1.0, 1000.0)
        };
        Self { least: lower(power).clamp(0.0, p50), p50, p99, max, power }
    }

    pub(super) fn draw(&self, random: &mut impl Rng) -> usize {
        let at: f64 = random.random();
        let between = |from: f64, to: f64, share: f64| from + (to - from) * share;
        let size = match at {
            low if low < 0.5 => between(self.least, self.p50, low / 0.5),
            middle if middle < 0.99 => between(self.p50, self.p99, ((middle - 0.5) / 0.49).powf(self.power)),
            high => between(self.p99, self.max, (high - 0.99) / 0.01),
        };
        size.round() as usize
    }
}

impl Work {
    /// The work since open; `None` if nothing was counted.
    ///
    /// Counters do not tell inserts from overwrites. Like the cost model, this takes writes beyond the number of items
    /// for overwrites.
    pub(super) fn observed(stats: &EngineStats) -> Option<Self> {
        let operations = &stats.operations;
        let writes = operations.puts.saturating_add(operations.deletes);
        let items = stats.items_estimate.max(1);
        let new = items as f64 / items.max(writes) as f64;
        let puts = operations.puts as f64;
        let (hits, gets) = (stats.reads.hits().min(operations.gets), operations.gets);
        let queries = operations.queries as f64;
        let shares = [
            puts * new,
            puts * (1.0 - new),
            operations.deletes as f64,
            hits as f64,
            (gets - hits) as f64,
            queries,
        ];
        let all: f64 = shares.iter().sum();
        let asked = operations.queries.saturating_add(operations.scans).max(1);
        let mut left_out = Vec::new();
        if operations.scans > 0 {
            left_out.push(super::counted(operations.scans, "scan"));
        }
        let sizes = stats.written_sizes.values;
        (all > 0.0).then(|| Self {
            shares: shares.map(|share| share / all),
            query_items: operations.entries_read.div_ceil(asked).max(1),
            sizes: (sizes.count > 0).then(|| Sizes::of(&sizes)),
            keys: Keys::Uniform,
            left_out,
        })
    }

    /// The operations of named workloads, on the keys of the database. Several count for the same number of operations
    /// each.
    pub(super) fn named(names: &[String]) -> Result<Self> {
        let mut work = Self {
            shares: [0.0; 6],
            query_items: QUERY_ITEMS,
            sizes: None,
            keys: Keys::Uniform,
            left_out: Vec::new(),
        };
        for name in names {
            let workload = Workload::by_name(name)?;
            if workload.task != Task::Operations {
                bail!(
                    "{name} is not made of operations on single keys or partitions, so it cannot be replayed"
                );
            }
            // Those that take each item once have no such order here.
            if matches!(workload.keys, Keys::Hot | Keys::Zipf | Keys::Latest) {
                work.keys = workload.keys;
            }
            let total: u32 = workload.mix.iter().map(|(_, weight)| weight).sum();
            let beside = workload.beside.map(|operation| (operation, total));
            let whole = f64::from(total) * if beside.is_some() { 2.0 } else { 1.0 };
            for (operation, weight) in workload.mix.iter().copied().chain(beside) {
                work.add(operation, f64::from(weight) / whole / names.len() as f64, workload.fills());
            }
        }
        Ok(work)
    }

    /// The same work with values of these sizes, if any were seen.
    pub(super) fn of_sizes(self, seen: &SizeSummary) -> Self {
        Self { sizes: (seen.count > 0).then(|| Sizes::of(seen)), ..self }
    }

    fn add(&mut self, operation: workload::Operation, share: f64, fills: bool) {
        use workload::Operation;
        let [insert, overwrite, delete, hit, miss, query] = &mut self.shares;
        match operation {
            Operation::Put if fills => *insert += share,
            Operation::Put => *overwrite += share,
            Operation::Insert => *insert += share,
            Operation::Delete => *delete += share,
            Operation::Get => *hit += share,
            Operation::GetMissing => *miss += share,
            Operation::MultiGet => *hit += share * MULTI_GET_KEYS as f64,
            Operation::Query | Operation::Partition | Operation::Scan => *query += share,
            Operation::ReadModifyWrite => {
                *hit += share;
                *overwrite += share;
            }
        }
    }

    /// Counters as this work would have left them: a million operations in a thousand seconds.
    pub(super) fn pretend(&self, stats: &mut EngineStats) {
        let all: f64 = self.shares.iter().sum();
        let count = |share: f64| (1e6 * share / all).round() as u64;
        let [insert, overwrite, delete, hit, miss, query] = self.shares;
        stats.operations.puts = count(insert + overwrite);
        stats.operations.deletes = count(delete);
        stats.operations.gets = count(hit + miss);
        stats.operations.queries = count(query);
        stats.reads.misses = Default::default();
        if let Some(first) = stats.reads.misses.first_mut() {
            *first = count(miss);
        }
        stats.uptime_ms = 1_000_000;
    }

    pub(super) fn chooser(&self) -> Result<impl Fn(&mut StdRng) -> Deed + use<>> {
        let index = WeightedIndex::new(self.shares)?;
        Ok(move |random: &mut StdRng| DEEDS.get(index.sample(random)).copied().unwrap_or(Deed::Hit))
    }

    /// In words: `40 % gets, 10 % gets that find nothing, 50 % inserts`.
    pub(super) fn text(&self) -> String {
        let all: f64 = self.shares.iter().sum();
        let names = ["inserts", "overwrites", "deletes", "gets", "gets that find nothing", "queries"];
        let parts = self.shares.iter().zip(names).filter(|(share, _)| **share > 0.0);
        let parts = parts.map(|(share, name)| format!("{} {name}", units::percent(share / all)));
        let mut text = parts.collect::<Vec<_>>().join(", ");
        if !self.left_out.is_empty() {
            text += &format!(" (not replayed: {})", self.left_out.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn stats() -> EngineStats {
        let mut stats = EngineStats::default();
        stats.items_estimate = 250;
        (stats.operations.puts, stats.operations.deletes, stats.operations.gets) = (900, 100, 3_000);
        (stats.operations.queries, stats.operations.scans, stats.operations.entries_read) = (1_000, 1, 5_005);
        (stats.reads.memtable, stats.reads.runs[0], stats.reads.misses[2]) = (1_000, 500, 1_500);
        stats
    }

    #[test]
    fn the_work_observed_has_the_shares_of_the_counters() {
        let work = Work::observed(&stats()).unwrap();
        // A quarter of the writes made the 250 items, the others replaced them.
        let expected = [225.0, 675.0, 100.0, 1_500.0, 1_500.0, 1_000.0].map(|count| count / 5_000.0);
        assert_eq!((work.shares, work.query_items), (expected, 5));
        assert_eq!(work.left_out, ["1 scan"]);
        assert_eq!(Work::observed(&EngineStats::default()), None);
        let mut again = EngineStats::default();
        work.pretend(&mut again);
        assert_eq!(again.operations.gets, 600_000);
        assert_eq!(again.reads.misses.iter().sum::<u64>(), 300_000);
    }

    #[test]
    fn operations_are_drawn_in_their_proportion() {
        let work = Work::observed(&stats()).unwrap();
        let (draw, mut random) = (work.chooser().unwrap(), StdRng::seed_from_u64(1));
        let mut counts = [0_u32; 6];
        for _ in 0..100_000 {
            let deed = draw(&mut random);
            counts[DEEDS.iter().position(|one| *one == deed).unwrap()] += 1;
        }
        for (count, share) in counts.iter().zip(work.shares) {
            assert!((f64::from(*count) / 1e5 - share).abs() < 0.01, "{counts:?}");
        }
    }

    #[test]
    fn sizes_have_the_percentiles_and_the_mean_that_were_seen() {
        let summary = |mean: u64, p50: u64, p99: u64, max: u64| -> SizeSummary {
            serde_json::from_value(serde_json::json!({
                "count": 9, "mean": mean, "p50": p50, "p99": p99, "max": max
            }))
            .unwrap()
        };
        for (mean, p50, p99, max) in [(200, 200, 200, 200), (160, 150, 300, 900), (1_000, 900, 3_000, 9_000)]
        {
            let sizes = Sizes::of(&summary(mean, p50, p99, max));
            let mut random = StdRng::seed_from_u64(3);
            let mut drawn: Vec<usize> = (0..100_000).map(|_| sizes.draw(&mut random)).collect();
            let found = drawn.iter().sum::<usize>() as f64 / 1e5;
            assert!((found / mean as f64 - 1.0).abs() < 0.02, "{found}, not {mean}: {sizes:?}");
            drawn.sort_unstable();
            assert!((drawn[50_000] as f64 / p50 as f64 - 1.0).abs() < 0.02, "{}", drawn[50_000]);
            assert!(*drawn.last().unwrap() <= max as usize);
        }
        // What a file of counters says need not fit together.
        let odd = Sizes::of(&summary(u64::MAX, 7, 3, 0));
        assert!((0..1_000).all(|_| odd.draw(&mut StdRng::seed_from_u64(1)) <= 7));
    }

    #[test]
    fn named_workloads_keep_their_proportions() {
        let named =
            |names: &[&str]| Work::named(&names.iter().map(|name| (*name).into()).collect::<Vec<_>>());
        assert_eq!(named(&["readmissing"]).unwrap().shares, [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let both = named(&["fillrandom", "readrandom"]).unwrap();
        assert_eq!(both.shares, [0.5, 0.0, 0.0, 0.5, 0.0, 0.0]);
        let a = named(&["ycsb-a"]).unwrap();
        assert_eq!((a.keys, a.shares), (Keys::Zipf, [0.0, 0.5, 0.0, 0.5, 0.0, 0.0]));
        assert!(named(&["compact"]).unwrap_err().to_string().contains("cannot be replayed"));
        assert!(named(&["nonsense"]).unwrap_err().to_string().contains("the workloads are"));
        assert!(a.text().contains("50.0 % overwrites"), "{}", a.text());
    }
}
