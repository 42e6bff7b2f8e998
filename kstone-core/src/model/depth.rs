//! The cost of the depth rule in closed form, without simulating the picker.
//!
//! With threshold K, a stripe at rest never has more than s = K - 1 runs. A run of depth d that is built while s slots
//! are free (itself in one of them) is made from runs of depth d - 1, built in s, s - 1, ... 1 free slots, and one more
//! flush, which triggers the merge of all of them. By induction, it follows from this recursion that:
//!
//! ```text
//! flushes in it        T(d, s) = C(s + d, d)
//! rewritten on the way W(d, s) = d C(s + d, d) - C(s + d - 1, s + 1)
//! sum of run counts    A(d, s) = s C(s + d, s) - C(s + d, s - 1) + 1       after each of its flushes
//! ```
//!
//! A stripe of n flushes consists of the deepest run that fits into n, and the remaining flushes in one slot less.

const MOST_FLUSHES: u64 = 1_000_000_000_000;

/// A stripe without overwrites after a number of equal-sized flushes.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct DepthRule {
    /// Records written by merges, per record flushed. The flush itself is not counted.
    pub write_amplification: f64,
    /// Average number of runs after each flush.
    pub average_runs: f64,
    /// Runs after the last flush.
    pub runs: usize,
    /// Number of runs that a reader consults before the one that holds a record, averaged over all records, as a
    /// fraction of the runs: 0 to 1. Large runs are old, and old runs are consulted last.
    pub position: f64,
}

impl DepthRule {
    /// The state after `flushes` flushes with the threshold `sst_threshold`; more than 10^12 count as 10^12.
    pub fn after(flushes: u64, sst_threshold: usize) -> Self {
        // Or finding the depth would take forever. No disk lives through as many.
        let flushes = flushes.min(MOST_FLUSHES);
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
            // While the rest is built, this run remains below it.
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

/// The greatest depth of a run made of at most `flushes` flushes in `free` free slots.
fn deepest(flushes: u64, free: u64) -> u64 {
    if free == 1 {
        return flushes.saturating_sub(1); // T(d, 1) = d + 1
    }
    let (mut depth, mut taken) = (0u64, 1.0);
    loop {
        let deeper = taken * (free + depth + 1) as f64 / (depth + 1) as f64;
        // Exact where it matters: for binomials below 2^53.
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
