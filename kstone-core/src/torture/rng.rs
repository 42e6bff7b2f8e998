//! A seeded random number generator.

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for the same seed, forever.
#[derive(Clone, Debug)]
pub struct Rng(
    /// The seed, then the state.
    pub u64,
);

impl Rng {
    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "an endless source, drawn from in many places at once")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `n` - 1; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `first` and `others`.
    pub fn pick<T: Copy>(&mut self, first: T, others: &[T]) -> T {
        let at = self.below(others.len() as u64 + 1) as usize;
        at.checked_sub(1).and_then(|at| others.get(at).copied()).unwrap_or(first)
    }
}
