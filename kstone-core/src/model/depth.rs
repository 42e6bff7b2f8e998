//! What the depth rule costs, in closed form: the picker's simulation without the simulation.
//!
//! With K the threshold, a stripe never rests with more than s = K - 1 runs. A run of depth d that is built while s
//! slots are free (itself in one of them) comes from runs of depth d - 1 built in s, s - 1, ... 1 free slots and one
//! flush more, that triggers the merge of all of them. From this recursion follow, by induction:
//!
//! ```text
//! flushes in it        T(d, s) = C(s + d, d)
//! rewritten on the way W(d, s) = d C(s + d, d) - C(s + d - 1, s + 1)
//! sum of run counts    A(d, s) = s C(s + d, s) - C(s + d, s - 1) + 1       after each of its flushes
//! ```
//!
//! A stripe of n flushes is the deepest run that fits into n, and the rest of the flushes in one slot less.

/// A stripe without overwrites after some flushes of equal size.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct DepthRule {
    /// Records that merges wrote, per record flushed. The flush itself is not counted.
    pub write_amplification: f64,
    /// Runs after each flush, on average.
    pub average_runs: f64,
    /// Runs after the last flush.
    pub runs: usize,
    /// How many of the runs a reader asks before it comes to the one that holds a record, on average over all
    /// records: as a part of the runs, 0 to 1. Large runs are old, and old runs are asked last.
    pub position: f64,
}

impl DepthRule {
    /// After `flushes` flushes with the threshold `sst_threshold`.
    pub fn after(flushes: u64, sst_threshold: usize) -> Self {
        let mut free = sst_threshold.max(2) as u64 - 1;
        let (mut left, mut rewritten, mut run_sum) = (flushes, 0.0, 0.0);
        let mut sizes = Vec::new();
        while left > 0 && free > 0 {
            let depth = deepest(left, free);
            let (d, s) = (depth as f64, free as f64);
            let taken = choose(free + depth, depth);
            rewritten += d * taken - if depth > 0 { choose(free + depth - 1, free + 1) } else { 0.0 };
            run_sum += s * taken - choose(free + depth, free - 1) + 1.0;
            left -= (taken as u64).min(left);
            // While the rest is built, this run stands below it.
            run_sum += left as f64;
            sizes.push(taken);
            free -= 1;
        }
        if flushes == 0 {
            return Self::default();
        }
        let (total, runs) = (flushes as f64, sizes.len());
        let before: f64 = sizes.iter().rev().enumerate().map(|(newer, size)| newer as f64 * size).sum();
        Self {
            write_amplification: rewritten / total,
            average_runs: run_sum / total,
            runs,
            position: if runs > 1 { before / total / (runs - 1) as f64 } else { 0.0 },
        }
    }
}

/// The greatest depth of a run that takes at most this many flushes in this many free slots.
fn deepest(flushes: u64, free: u64) -> u64 {
    if free == 1 {
        return flushes.saturating_sub(1); // T(d, 1) = d + 1
    }
    let (mut depth, mut taken) = (0u64, 1.0);
    loop {
        let deeper = taken * (free + depth + 1) as f64 / (depth + 1) as f64;
        // Exact as long as it matters: binomials below 2^53 are.
        if deeper.round() > flushes as f64 {
            return depth;
        }
        (depth, taken) = (depth + 1, deeper.round());
    }
}

/// The binomial coefficient; 0 when `k` is greater than `n`.
fn choose(n: u64, k: u64) -> f64 {
    if k > n {
        return 0.0;
    }
    let few = k.min(n - k);
    (0..few).fold(1.0, |product, i| (product * (n - i) as f64 / (i + 1) as f64).round())
}
