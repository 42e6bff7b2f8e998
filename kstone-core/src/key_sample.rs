//! Samples of the keys of SSTs, from which the number of keys that several SSTs share is estimated.
//!
//! A sample is the lowest [`SMALL`] or [`LARGE`] hashes among a file's keys (bottom-k, or KMV: Bar-Yossef et al., 2002;
//! Cohen and Kaplan, 2007). Take the highest hash of each sample: up to the lowest of these, each sample has *all*
//! hashes of its file, so the files are compared exactly there, and the result extends to the whole, apart from
//! sampling error. The number of keys of each file is known exactly; only the share of them that other files also have
//! is estimated. Files without common keys therefore come out as disjoint, and a file wholly contained in a larger one
//! as contained, without error.
//!
//! The alternative, counting the versions that merges drop, costs nothing but only reflects the past of the files. It
//! does not tell how the newest files overlap with the oldest, which matters most.

use crate::types::SstDetails;

/// Size of the sample for a file with few keys.
const SMALL: usize = 64;
/// Size of the sample for a file with many keys. Its range limits that of the other samples, so doubling the size pays
/// off most here. The standard error is at most about 1 in 2 * sqrt(128) of the smaller files' keys, and the memory 512
/// bytes per file.
const LARGE: usize = 128;
/// The least number of keys that counts as many.
const MANY_KEYS: u64 = 4096;

/// Collects the sample while a file is written or read.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    keys: u64,
    /// The lowest [`LARGE`] hashes, and others: sorting now and then costs less than keeping an order.
    lowest: Vec<u32>,
    /// The highest of the lowest hashes, if there are enough of them: none from here on is another one.
    bound: Option<u32>,
}

impl Sampler {
    /// Adds the hash of the next key. The upper half suffices: two of the lowest hashes of a file are hardly ever
    /// equal.
    pub(crate) fn add(&mut self, hash: u64) {
        let hash = (hash >> 32) as u32;
        self.keys += 1;
        if self.bound.is_none_or(|bound| hash < bound) {
            self.lowest.push(hash);
            if self.lowest.len() == 4 * LARGE {
                self.trim();
            }
        }
    }

    /// Leaves only the lowest hashes, ascending, each once.
    fn trim(&mut self) {
        self.lowest.sort_unstable();
        self.lowest.dedup();
        self.lowest.truncate(LARGE);
        self.bound = self.lowest.get(LARGE - 1).copied();
    }

    /// Returns the sample, ascending.
    pub(crate) fn finish(mut self) -> Vec<u32> {
        self.trim();
        self.lowest.truncate(if self.keys < MANY_KEYS { SMALL } else { LARGE });
        self.lowest.shrink_to_fit(); // it is kept as long as the file
        self.lowest
    }
}

/// The highest hash up to which the file's sample is complete.
fn reach(file: &SstDetails) -> u32 {
    if file.sample.len() as u64 >= file.keys { u32::MAX } else { file.sample.last().copied().unwrap_or(0) }
}

/// Estimates how many keys would disappear if these runs became one: the sum of the runs' key counts, less the number
/// of distinct keys. The parts of a run have no key in common.
pub(crate) fn repeated_keys<'a>(runs: &[impl AsRef<[&'a SstDetails]>]) -> u64 {
    let parts = || runs.iter().flat_map(AsRef::as_ref);
    let keys = |run: &[&SstDetails]| run.iter().map(|part| part.keys).fold(0, u64::saturating_add);
    // Without a run there is nothing to count.
    let Some(reach) = parts().map(|part| reach(part)).min() else { return 0 };
    let mut sampled: Vec<u32> = Vec::new();
    // Each repetition can be attributed to a run other than the largest, so only the other runs contribute to the
    // error.
    let (mut all, mut largest) = (0u64, (0u64, 0usize));
    for run in runs {
        let (keys, before) = (keys(run.as_ref()), sampled.len());
        for part in run.as_ref() {
            sampled.extend(part.sample.iter().take_while(|&&hash| hash <= reach));
        }
        all = all.saturating_add(keys);
        largest = largest.max((keys, sampled.len() - before));
    }
    let samples = sampled.len();
    sampled.sort_unstable();
    sampled.dedup();
    let repeated = (samples - sampled.len()) as u64;
    let (rest, rest_samples) = (all - largest.0, (samples - largest.1) as u64);
    if rest_samples == 0 {
        return 0;
    }
    // Neither the product nor the quotient overflows: there are few samples, and no more repeated ones than
    // `rest_samples`.
    (u128::from(rest) * u128::from(repeated.min(rest_samples)) / u128::from(rest_samples)) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::ops::Range;

    use super::*;
    use crate::key::key_hash;

    fn file(keys: impl Iterator<Item = u64>, seed: u64) -> SstDetails {
        let mut sampler = Sampler::default();
        let mut count = 0;
        for key in keys {
            sampler.add(key_hash(&[key.to_be_bytes(), seed.to_be_bytes()].concat()));
            count += 1;
        }
        SstDetails { keys: count, sample: sampler.finish(), ..SstDetails::default() }
    }

    fn estimate(files: &[SstDetails]) -> u64 {
        let runs: Vec<[&SstDetails; 1]> = files.iter().map(|file| [file]).collect();
        repeated_keys(&runs)
    }

    /// The root mean square error over seeds, as a fraction of `scale`.
    fn error(ranges: &[Range<u64>], truth: u64, scale: u64) -> f64 {
        let seeds = 40;
        let square = |seed| {
            let files: Vec<_> = ranges.iter().map(|range| file(range.clone(), seed)).collect();
            ((estimate(&files) as f64 - truth as f64) / scale as f64).powi(2)
        };
        ((0..seeds).map(square).sum::<f64>() / seeds as f64).sqrt()
    }

    #[test]
    fn the_sample_is_the_lowest_hashes_each_once() {
        let mut sampler = Sampler::default();
        for n in (0..200u64).rev().chain(0..200) {
            sampler.add(n << 32 | 7);
        }
        assert_eq!(sampler.finish(), (0..64).collect::<Vec<u32>>());
        let mut sampler = Sampler::default();
        (0..4096u64).rev().for_each(|n| sampler.add(n << 32));
        assert_eq!(sampler.finish(), (0..128).collect::<Vec<u32>>());
    }

    /// The figure that the trigger uses: superseded versions as a share of the keys that remain.
    #[test]
    fn two_runs_of_any_overlap_are_estimated_well() {
        for keys in [1000, 10_000, 100_000] {
            for percent in [0, 10, 25, 50, 75, 90, 100] {
                let shared = keys * percent / 100;
                let error = error(&[0..keys, keys - shared..2 * keys - shared], shared, keys);
                println!("two runs of {keys} keys, {percent} % in common: error {:.1} %", error * 100.0);
                assert!(error < 0.085, "{keys} {percent}: {error}");
                // Exact at both ends.
                assert!(!(percent == 0 || percent == 100) || error < 0.004, "{keys} {percent}: {error}");
            }
        }
    }

    #[test]
    fn small_runs_over_a_large_one_are_estimated_well() {
        // Nine runs over a base: only updates; only inserts; half of each.
        for (base, small) in [(1000u64, 100u64), (10_000, 1000), (100_000, 10_000), (100_000, 1000)] {
            let total = 9 * small;
            for (what, step) in [("updates", 0u64), ("inserts", small), ("half", small / 2)] {
                let from = |n: u64| if step == small { base + n * small } else { n * small };
                let mut ranges: Vec<Range<u64>> = std::iter::once(0..base).collect();
                let mut truth = 0;
                for n in 0..9 {
                    let start = from(n);
                    if step == small / 2 {
                        // Half in the base, half beyond it.
                        ranges.push(start..start + small / 2);
                        ranges.push(2 * base + start..2 * base + start + small / 2);
                        truth += small / 2;
                    } else {
                        ranges.push(start..start + small);
                        truth += if step == 0 { small } else { 0 };
                    }
                }
                let error = error(&ranges, truth, base);
                println!(
                    "9 runs of {small} over {base}, {what}: {total} records, error {:.1} %",
                    error * 100.0
                );
                assert!(error < 0.085, "{base} {small} {what}: {error}");
            }
        }
    }

    #[test]
    fn small_files_are_compared_exactly() {
        assert_eq!(estimate(&[]), 0);
        assert_eq!(estimate(&[file(0..30, 1)]), 0);
        assert_eq!(estimate(&[file(0..30, 1), file(20..60, 1), file(10..25, 1)]), 10 + 15);
    }

    #[test]
    fn parts_of_a_run_count_as_one() {
        let parts: Vec<_> = [0..5000, 5000..9000, 9000..20_000].map(|range| file(range, 3)).into();
        let newer = file(4000..14_000, 3);
        let runs = [parts.iter().collect::<Vec<_>>(), vec![&newer]];
        let got = repeated_keys(&runs);
        assert_eq!(got, 10_000);
        let apart = file(50_000..60_000, 3);
        assert_eq!(repeated_keys(&[runs[0].clone(), vec![&apart]]), 0);
    }

    #[test]
    fn figures_that_make_no_sense_do_no_harm() {
        let odd =
            |keys, sample: &[u32]| SstDetails { keys, sample: sample.to_vec(), ..SstDetails::default() };
        let files = [odd(u64::MAX, &[1, 1, 1]), odd(u64::MAX, &[9, 1]), odd(0, &[1, 2]), odd(7, &[])];
        estimate(&files);
        estimate(&files[..3]);
        let unique: HashSet<u64> = (0..3).map(|n| estimate(&files[n..])).collect();
        assert!(!unique.is_empty());
    }
}
