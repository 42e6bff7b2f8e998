//! Random operations over tiny settings, every answer compared with a model. The seed of a failure is in its
//! message; `KSTONE_SEED=n` runs that one alone.

use kstone_core::torture::{Oracle, SettingsOf, Totals};

use crate::model::only_seed;

const ROUNDS: u64 = 100;
const OPS: u64 = 2_100;

#[test]
fn random_operations_agree_with_a_model() {
    let only = only_seed();
    let mut totals = Totals::default();
    for seed in only.map_or(0..ROUNDS, |seed| seed..seed + 1) {
        let oracle = Oracle { seed, operations: OPS, settings: SettingsOf::Random };
        totals.add(&oracle.run().unwrap_or_else(|failure| panic!("{failure}")));
    }
    println!("oracle: {totals}");
    if only.is_none() {
        assert!(totals.operations >= 200_000 && totals.flushes > 1000 && totals.compactions > 1000);
        assert!(totals.reopens > 1000 && totals.deaths > 300 && totals.read_only_opens > 100);
    }
}
