//! Shared by the tests: the seeded generator and the model of `kstone_core::torture`, and options without threads.

use std::sync::Arc;

use kstone_core::clock::ManualClock;
use kstone_core::lsm::{Direction, EngineOptions, LsmEngine, Snapshot};
pub(crate) use kstone_core::torture::{
    self, Change, Entry, Rng, State, batch_of, random_change, random_key, tiny_settings as tiny,
};
use kstone_core::vfs::Vfs;

pub(crate) fn apply(state: &mut State, change: &Change) {
    for (key, value) in change {
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
}

/// The seed to run exclusively, if the environment requests one.
pub(crate) fn only_seed() -> Option<u64> {
    let seed = std::env::var("KSTONE_SEED").ok()?;
    Some(seed.parse().unwrap_or_else(|_| panic!("KSTONE_SEED={seed} is not a number")))
}

/// Options for a single thread, with time standing still.
pub(crate) fn manual(vfs: Arc<dyn Vfs>, seed: u64) -> EngineOptions {
    EngineOptions::reproducible(vfs, Arc::new(ManualClock::new(seed)))
}

/// All items, from an ordered scan.
pub(crate) fn contents(engine: &LsmEngine, snapshot: Option<&Snapshot>) -> Vec<Entry> {
    let scan = engine.scan(b"", Direction::Forward, snapshot).unwrap();
    scan.map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap()).collect()
}

pub(crate) fn entries(state: &State) -> Vec<Entry> {
    state.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Compares every way of reading with the model.
pub(crate) fn check_all(engine: &LsmEngine, state: &State, snapshot: Option<&Snapshot>, context: &str) {
    torture::check_all(engine, state, snapshot, &mut Rng(state.len() as u64))
        .unwrap_or_else(|found| panic!("{found:?}, {context}"));
}
