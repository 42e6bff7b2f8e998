//! Chooses the next item.

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use rand_distr::{Distribution, Zipf};

use super::Keys;
use crate::data::splitmix;

/// The exponent of YCSB.
pub const ZIPF_EXPONENT: f64 = 0.99;

#[derive(Clone, Debug)]
pub struct Chooser {
    keys: Keys,
    items: u64,
    zipf: Option<Zipf<f64>>,
    shuffle: Shuffle,
    /// Where each item is taken once: the position of the next one.
    at: u64,
    step: u64,
}

impl Chooser {
    /// Chooses for thread `thread` of `threads`; where each item is taken once, the threads share the items evenly.
    pub fn new(keys: Keys, items: u64, seed: u64, thread: usize, threads: usize) -> Result<Self> {
        let zipf = match keys {
            Keys::Zipf | Keys::Latest => {
                Some(Zipf::new(items as f64, ZIPF_EXPONENT).context("there are no items")?)
            }
            _ => None,
        };
        let shuffle = Shuffle::new(items, seed);
        Ok(Self { keys, items, zipf, shuffle, at: thread as u64, step: threads as u64 })
    }

    /// The next item, below `end` where items are added; `None` once each was taken.
    pub fn next(&mut self, random: &mut StdRng, end: u64) -> Option<u64> {
        match self.keys {
            Keys::InOrder | Keys::Shuffled => {
                let at = self.at;
                self.at += self.step;
                let place = |at| if self.keys == Keys::InOrder { at } else { self.shuffle.at(at) };
                (at < self.items).then(|| place(at))
            }
            Keys::Uniform => Some(random.random_range(0..self.items)),
            // Spread over all items, so that they are not neighbours.
            Keys::Hot => {
                let hot = (self.items / 100).max(1);
                Some(self.shuffle.at(random.random_range(0..hot)))
            }
            Keys::Zipf => Some(splitmix(self.rank(random)) % self.items),
            Keys::Latest => Some(end - self.rank(random).min(end)),
        }
    }

    /// The next rank; 1 is the most popular.
    fn rank(&self, random: &mut impl Rng) -> u64 {
        self.zipf.as_ref().map_or(1, |zipf| zipf.sample(random) as u64)
    }
}

/// A pseudorandom permutation of the numbers below a limit: a Feistel network over the next power of four, repeated
/// until the result is below the limit (Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002).
#[derive(Clone, Debug)]
pub struct Shuffle {
    below: u64,
    half: u32,
    seed: u64,
}

impl Shuffle {
    /// A permutation of the numbers below `below`.
    pub fn new(below: u64, seed: u64) -> Self {
        let bits = 64 - below.saturating_sub(1).leading_zeros();
        Self { below, half: bits.div_ceil(2).max(1), seed: splitmix(seed) }
    }

    /// The number at this position, which must be below the limit.
    pub fn at(&self, place: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let mut number = place;
        loop {
            let (mut left, mut right) = (number >> self.half, number & mask);
            for round in 0..4 {
                (left, right) = (right, left ^ (splitmix(right ^ self.seed.rotate_left(round * 16)) & mask));
            }
            number = (left << self.half) | right;
            if number < self.below {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    fn draw(keys: Keys, items: u64, count: usize) -> Vec<u64> {
        let mut random = StdRng::seed_from_u64(42);
        let mut chooser = Chooser::new(keys, items, 1, 0, 1).unwrap();
        (0..count).filter_map(|_| chooser.next(&mut random, items)).collect()
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_no_order() {
        for below in [1, 2, 3, 255, 256, 257, 5000] {
            let shuffle = Shuffle::new(below, 7);
            let numbers: Vec<u64> = (0..below).map(|place| shuffle.at(place)).collect();
            assert_eq!(numbers.iter().copied().collect::<BTreeSet<_>>(), (0..below).collect());
        }
        let shuffle = Shuffle::new(5000, 7);
        let rising = (1..5000).filter(|at| shuffle.at(at - 1) < shuffle.at(*at)).count();
        assert!((2300..2700).contains(&rising), "{rising}");
        assert!((0..5000).any(|at| Shuffle::new(5000, 8).at(at) != shuffle.at(at)));
    }

    #[test]
    fn threads_share_out_what_is_taken_once() {
        for keys in [Keys::InOrder, Keys::Shuffled] {
            let mut random = StdRng::seed_from_u64(1);
            let mut seen = Vec::new();
            for thread in 0..3 {
                let mut chooser = Chooser::new(keys, 1000, 9, thread, 3).unwrap();
                seen.extend(std::iter::from_fn(|| chooser.next(&mut random, 0)));
            }
            assert_eq!(seen.len(), 1000);
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), (0..1000).collect());
        }
    }

    /// The share of rank r is r^-0.99 divided by the sum over all ranks.
    #[test]
    fn zipf_has_its_shape() {
        let (items, count) = (1000_u64, 200_000);
        let total: f64 = (1..=items).map(|rank| (rank as f64).powf(-ZIPF_EXPONENT)).sum();
        let mut times = vec![0_u64; items as usize];
        for item in draw(Keys::Latest, items, count) {
            times[(items - 1 - item) as usize] += 1;
        }
        for rank in [1, 2, 3, 10, 30] {
            let expected = count as f64 * (rank as f64).powf(-ZIPF_EXPONENT) / total;
            let found = times[rank - 1] as f64;
            assert!((found / expected - 1.0).abs() < 0.1, "rank {rank}: {found}, not {expected}");
        }
        let tail: u64 = times[100..].iter().sum();
        let expected: f64 = (101..=items).map(|rank| (rank as f64).powf(-ZIPF_EXPONENT)).sum::<f64>() / total;
        assert!((tail as f64 / count as f64 - expected).abs() < 0.01);
    }

    #[test]
    fn popular_items_are_scattered() {
        let mut times = vec![0_u64; 1000];
        draw(Keys::Zipf, 1000, 100_000).into_iter().for_each(|item| times[item as usize] += 1);
        let mut order: Vec<usize> = (0..1000).collect();
        order.sort_by_key(|item| std::cmp::Reverse(times[*item]));
        assert!(times[order[0]] > 10_000);
        assert!(order[..10].windows(2).any(|pair| pair[0].abs_diff(pair[1]) > 100), "{:?}", &order[..10]);
    }

    #[test]
    fn hot_items_are_one_in_a_hundred_and_the_latest_are_below_the_end() {
        assert_eq!(draw(Keys::Hot, 10_000, 10_000).into_iter().collect::<BTreeSet<_>>().len(), 100);
        let mut random = StdRng::seed_from_u64(1);
        let mut chooser = Chooser::new(Keys::Latest, 100, 1, 0, 1).unwrap();
        for end in [1, 5, 100, 500] {
            assert!((0..1000).all(|_| chooser.next(&mut random, end).unwrap() < end));
        }
    }
}
