//! The record limit of a stripe's memtable with `MemtableMode::Adaptive`: a pure function of measurements.
//!
//! Three points are fixed. At [`BUSY`] writes a second or more and at least [`PLENTY`] of memory: [`MOST`] records. At
//! less than [`SCARCE`] memory: [`LEAST`]. Otherwise the configured limit, the base. Between the base and [`MOST`] the
//! limit grows with the square root of the write rate and in proportion to the memory, so that nothing jumps:
//!
//! ```text
//! wanted = MOST * sqrt(rate of the stripe * stripes / BUSY) * available / PLENTY    each factor at most 1
//! limit  = clamp(wanted, base, base + pool * share)
//! pool   = records that the memory budget holds, less the bases of all stripes
//! share  = sqrt(rate of the stripe) / sum of sqrt(rate of each stripe)
//! ```
//!
//! Each stripe gets the limit that suits a database in which all stripes are written at its rate: with even writes, all
//! get the limit for the database's total rate; with uneven writes, busy stripes get more and none gets less than the
//! base.
//!
//! Why roots: a stripe with rate r and limit m flushes r / m times a second, and for a fixed sum of limits the total
//! over all stripes is lowest when each limit is proportional to sqrt(r).
//!
//! Half of the sum of all limits counts against the budget, as in the budget's default: stripes fill out of step and
//! are half full on average. Sealing the fullest memtable enforces what this average cannot guarantee
//! (`lsm/background/sealing.rs`).
//!
//! A limit changes only when its target is at least twice or at most half of it, or is an end of its range; leaving
//! that end again takes the factor of two. Memory that was [`SCARCE`] stays so up to twice that amount. So a signal
//! that swings by less than a factor of two moves a limit at most twice. Only the budget takes effect immediately.

/// Writes a second, over all stripes, at which memtables are largest.
pub(crate) const BUSY: f64 = 10_000.0;
/// Available memory, in bytes, from which memory does not limit memtables.
pub(crate) const PLENTY: u64 = 1_000_000_000;
/// Available memory, in bytes, below which memtables are smallest.
pub(crate) const SCARCE: u64 = 100_000_000;
/// The largest limit, in records; a larger base takes precedence.
pub(crate) const MOST: usize = crate::config::ADAPTIVE_RECORDS;
/// The smallest limit, in records; a smaller base takes precedence.
pub(crate) const LEAST: usize = 500;

/// Measurements and settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs {
    /// `max_memtable_records`.
    pub(crate) base: usize,
    /// Number of stripes in the database.
    pub(crate) stripes: usize,
    /// Writes a second to the stripe.
    pub(crate) rate: f64,
    /// The square root of that rate as a fraction of the sum over all stripes: 0 to 1.
    pub(crate) share: f64,
    /// Memory available on the machine, in bytes; `None` if unknown, which counts as plenty.
    pub(crate) available: Option<u64>,
    /// Bytes that memtables hold already, and which are therefore no reason to shrink them.
    pub(crate) held: u64,
    /// Bytes per record in a memtable.
    pub(crate) record_bytes: u64,
    /// `memory_budget`, in bytes.
    pub(crate) budget: u64,
}

impl Inputs {
    fn least(&self) -> usize {
        self.base.min(LEAST)
    }

    fn most(&self) -> usize {
        self.base.max(MOST)
    }

    fn share(&self) -> f64 {
        if self.share.is_nan() { 0.0 } else { self.share.clamp(0.0, 1.0) }
    }

    /// Records that this stripe may have above the base.
    fn pool(&self) -> f64 {
        let records = (self.budget as f64 * 2.0) / self.record_bytes.max(1) as f64;
        (records - self.base as f64 * self.stripes as f64).max(0.0) * self.share()
    }

    /// The limit without the hysteresis that depends on the current one.
    fn target(&self, current: usize) -> usize {
        let least = self.least();
        let scarce = if current <= least { 2 * SCARCE } else { SCARCE };
        if self.available.is_some_and(|available| available < scarce) {
            return least;
        }
        let room = self.available.map_or(PLENTY, |available| available.saturating_add(self.held));
        let busy = (self.rate.max(0.0) * self.stripes as f64 / BUSY).sqrt().min(1.0);
        let wanted = MOST as f64 * busy * (room as f64 / PLENTY as f64).min(1.0);
        // Rounded, so that 10,000 on paper does not become 9,999.
        (wanted.round() as usize).min(self.cap()).max(self.base)
    }

    /// The most that the budget allows the stripe.
    fn cap(&self) -> usize {
        self.base.saturating_add(self.pool() as usize)
    }
}

/// The new limit, in records, of a stripe whose limit is `current`.
pub(crate) fn limit(current: usize, inputs: &Inputs) -> usize {
    let target = inputs.target(current);
    let arrives = target == inputs.most() || target == inputs.least();
    if arrives || target >= current.saturating_mul(2) || target <= current / 2 {
        return target;
    }
    current.clamp(inputs.least(), inputs.most()).min(inputs.cap())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GB: u64 = 1_000_000_000;
    const MB: u64 = 1_000_000;

    /// 256 stripes, written evenly, with a budget that does not limit them.
    fn even() -> Inputs {
        Inputs {
            base: 1000,
            stripes: 256,
            rate: 0.0,
            share: 1.0 / 256.0,
            available: Some(8 * GB),
            held: 0,
            record_bytes: 350,
            budget: 448 * MB,
        }
    }

    #[test]
    fn the_three_cases_hold_at_their_points() {
        let at = |rate, available| {
            let now = Inputs { rate: rate / 256.0, available, ..even() };
            [500, 1000, 2000, 7000, 10_000].map(|current| limit(current, &now))
        };
        assert_eq!(at(10_001.0, Some(GB + 1)), [10_000; 5]);
        assert_eq!(at(1e9, None), [10_000; 5], "unknown memory is plenty");
        for rate in [0.0, 10_001.0] {
            assert_eq!(at(rate, Some(100 * MB - 1)), [500; 5]);
        }
        // Below twice the base nothing moves: the hysteresis.
        assert_eq!(at(0.0, Some(8 * GB)), [1000, 1000, 1000, 1000, 1000]);
        assert_eq!(at(100.0, Some(8 * GB)), [1000, 1000, 1000, 1000, 1000]);
        assert_eq!(limit(1999, &even()), 1999);
        assert_eq!(at(1e9, Some(100 * MB)), [500, 1000, 1000, 1000, 1000]);
    }

    #[test]
    fn in_between_it_is_the_root_of_the_rate() {
        for (rate, expected) in [(400.0, 2000), (2500.0, 5000), (4900.0, 7000), (9000.0, 9487)] {
            assert_eq!(limit(1, &Inputs { rate: rate / 256.0, ..even() }), expected);
        }
        let half = Inputs { rate: 1e6, available: Some(500 * MB), ..even() };
        assert_eq!(limit(1000, &half), 5000);
        assert_eq!(
            limit(1000, &Inputs { held: 500 * MB, ..half }),
            10_000,
            "memtables do not crowd themselves out"
        );
    }

    #[test]
    fn busy_stripes_get_more_of_the_same_sum() {
        // Enough for the bases and 9,000 more records of 350 bytes, of which half count.
        let budget = (5 * 10 + 9_000) * 350 / 2;
        let rates: [f64; 5] = [9.0, 4.0, 1.0, 1.0, 0.0];
        let sum: f64 = rates.iter().map(|rate| rate.sqrt()).sum();
        let of = |rate: f64, budget| {
            let share = rate.sqrt() / sum;
            limit(1, &Inputs { base: 10, stripes: 5, rate: rate * 20.0, share, budget, ..even() })
        };
        assert_eq!(rates.map(|rate| of(rate, GB)), [3000, 2000, 1000, 1000, 10]);
        assert_eq!(rates.map(|rate| of(rate * 100.0, GB)), [10_000, 10_000, 10_000, 10_000, 10]);
        let limits = rates.map(|rate| of(rate, budget / 2));
        assert_eq!(limits, [1927, 1288, 649, 649, 10], "in the same proportion under a smaller budget");
    }

    fn inputs() -> impl Strategy<Value = Inputs> {
        let size = || prop_oneof![0u64..300 * MB, 0u64..2 * GB, Just(u64::MAX)];
        let base = prop_oneof![1usize..2000, 1usize..30_000];
        let stripes = (0u32..9).prop_map(|bits| 1usize << bits);
        (
            base,
            stripes,
            0.0f64..40_000.0,
            0.0f64..1.0,
            proptest::option::of(size()),
            0u64..GB,
            1u64..5000,
            1u64..GB,
        )
            .prop_map(|(base, stripes, rate, share, available, held, record_bytes, budget)| Inputs {
                base,
                stripes,
                rate,
                share,
                available,
                held,
                record_bytes,
                budget,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn bounds_hold(inputs in inputs(), current in 1usize..40_000) {
            let limit = limit(current, &inputs);
            prop_assert!((inputs.least()..=inputs.most()).contains(&limit), "{limit}");
        }

        #[test]
        fn more_writes_memory_or_budget_never_shrink_it(
            inputs in inputs(), current in 1usize..40_000, more in 1.0f64..4.0, which in 0usize..5,
        ) {
            let mut larger = inputs;
            match which {
                0 => larger.rate *= more,
                1 => larger.available = inputs.available.map(|bytes| (bytes as f64 * more) as u64),
                2 => larger.available = None,
                3 => larger.budget = (inputs.budget as f64 * more) as u64,
                _ => larger.share = (inputs.share * more).min(1.0),
            }
            prop_assert!(limit(current, &larger) >= limit(current, &inputs), "{larger:?}");
        }

        #[test]
        fn all_limits_together_stay_within_the_budget(
            inputs in inputs(), rates in proptest::collection::vec((0.0f64..1000.0, 1usize..40_000), 1..256),
        ) {
            let sum: f64 = rates.iter().map(|(rate, _)| rate.sqrt()).sum();
            let inputs = Inputs { stripes: rates.len(), ..inputs };
            let of = |&(rate, current): &(f64, usize)| {
                limit(current, &Inputs { share: if sum > 0.0 { rate.sqrt() / sum } else { 0.0 }, ..inputs })
            };
            let all: usize = rates.iter().map(of).sum();
            let budget = (inputs.budget as f64 * 2.0 / inputs.record_bytes as f64) as usize;
            let budget = budget.max(inputs.base * rates.len());
            // Allows one record per stripe for the rounding of shares.
            prop_assert!(all <= budget + rates.len(), "{all} records of {budget}");
        }

        #[test]
        fn a_signal_that_swings_by_less_than_twice_moves_it_at_most_twice(
            inputs in inputs(), start in 1usize..40_000, swings in proptest::collection::vec(1.0f64..1.9, 1..40),
            memory in any::<bool>(),
        ) {
            let mut current = start;
            let mut changes = 0;
            for swing in swings {
                let mut now = Inputs { held: 0, ..inputs };
                if memory {
                    now.available = inputs.available.map(|bytes| (bytes as f64 * swing) as u64);
                } else {
                    now.rate *= swing;
                }
                let next = limit(current, &now);
                changes += usize::from(next != current);
                current = next;
            }
            prop_assert!(changes <= 2, "{changes} changes");
        }
    }
}
