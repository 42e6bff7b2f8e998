//! Every way of reading, compared with a model.

use std::ops::{Bound, RangeBounds};

use super::history::{Entry, Mismatch, State, differences};
use super::{Rng, random_key};
use crate::error::Result;
use crate::key::{Key, SortRange};
use crate::lsm::{Direction, Entries, LsmEngine, Snapshot};

fn collected(entries: Result<Entries>) -> Result<Vec<Entry>> {
    entries?.map(|entry| entry.map(|(key, value)| (key, value.to_vec()))).collect()
}

/// All items, by an ordered scan.
pub fn contents(engine: &LsmEngine, snapshot: Option<&Snapshot>) -> Result<State> {
    Ok(collected(engine.scan(b"", Direction::Forward, snapshot))?.into_iter().collect())
}

/// Compares an ordered list with the model.
fn compare(
    doing: &str,
    expected: &State,
    found: Result<Vec<Entry>>,
    direction: Direction,
) -> Result<(), Mismatch> {
    let mut found = found.map_err(|error| Mismatch::error(doing, &error))?;
    if direction == Direction::Reverse {
        found.reverse();
    }
    if found.iter().map(|(key, value)| (key, value)).eq(expected) {
        return Ok(());
    }
    let ordered = found.is_sorted_by(|a, b| a.0 < b.0);
    let state: State = found.into_iter().collect();
    Err(Mismatch {
        expected: format!("{doing}: {} items", expected.len()),
        found: format!("{} items, in order: {ordered}: {}", state.len(), differences(expected, &state)),
    })
}

/// Compares scans in both directions, scans stripe by stripe and, for some of the keys, gets with the model, which has
/// all items.
///
/// # Errors
/// The first difference, or the error that reading returned.
pub fn check_all(
    engine: &LsmEngine,
    state: &State,
    snapshot: Option<&Snapshot>,
    rng: &mut Rng,
) -> Result<(), Mismatch> {
    for (doing, direction) in [("scan", Direction::Forward), ("reverse scan", Direction::Reverse)] {
        compare(doing, state, collected(engine.scan(b"", direction, snapshot)), direction)?;
    }
    let mut by_stripe = Vec::new();
    for stripe in 0..engine.stripe_count() {
        let entries = collected(engine.scan_stripe(stripe, snapshot));
        by_stripe.extend(entries.map_err(|error| Mismatch::error("scan by stripe", &error))?);
    }
    by_stripe.sort();
    compare("scan by stripe", state, Ok(by_stripe), Direction::Forward)?;
    check_gets(engine, state, snapshot, rng, 8)
}

/// Compares gets of `count` random keys, present or not, with the model.
///
/// # Errors
/// The first difference, or the error that reading returned.
pub fn check_gets(
    engine: &LsmEngine,
    state: &State,
    snapshot: Option<&Snapshot>,
    rng: &mut Rng,
    count: usize,
) -> Result<(), Mismatch> {
    for _ in 0..count {
        let key = random_key(rng);
        let got = match snapshot {
            Some(snapshot) => engine.get_at(&key, snapshot),
            None => engine.get(&key),
        };
        let got = got.map_err(|error| Mismatch::error("get", &error))?.map(|value| value.to_vec());
        if got.as_ref() != state.get(&key) {
            let of = |value: Option<State>| value.unwrap_or_default();
            let one = |value: Option<Vec<u8>>| value.map(|value| State::from([(key.clone(), value)]));
            let (expected, found) = (of(one(state.get(&key).cloned())), of(one(got)));
            return Err(Mismatch {
                expected: format!("get {key:?}: {} items", expected.len()),
                found: differences(&expected, &found),
            });
        }
    }
    Ok(())
}

/// Compares a random query of one partition with the model.
///
/// # Errors
/// The difference, or the error that reading returned.
pub fn check_query(
    engine: &LsmEngine,
    state: &State,
    snapshot: Option<&Snapshot>,
    rng: &mut Rng,
) -> Result<(), Mismatch> {
    let partition = random_key(rng).partition().to_vec();
    let range = match rng.below(3) {
        0 => SortRange::All,
        1 => SortRange::Prefix(b"s1".to_vec()),
        _ => SortRange::Between(random_bound(rng), random_bound(rng)),
    };
    let direction = rng.pick(Direction::Forward, &[Direction::Reverse]);
    let expected: State = state
        .iter()
        .filter(|(key, _)| key.partition() == partition && within(&range, key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let found = collected(engine.query(&partition, &range, direction, snapshot));
    compare(&format!("query {range:?} {direction:?} of {partition:?}"), &expected, found, direction)
}

fn random_bound(rng: &mut Rng) -> Bound<Vec<u8>> {
    let sort = random_key(rng).sort().unwrap_or_default().to_vec();
    match rng.below(3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(sort),
        _ => Bound::Excluded(sort),
    }
}

fn within(range: &SortRange, key: &Key<'_>) -> bool {
    match range {
        SortRange::All => true,
        SortRange::Prefix(prefix) => key.sort().is_some_and(|sort| sort.starts_with(prefix)),
        SortRange::Between(from, to) => {
            key.sort().is_some_and(|sort| (from.clone(), to.clone()).contains(&sort.to_vec()))
        }
    }
}
