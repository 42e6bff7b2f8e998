//! What the tests share: the seeded generator and the model of `kstone_core::torture`, options without threads.

use std::sync::Arc;

use kstone_core::clock::ManualClock;
use kstone_core::lsm::{Direction, EngineOptions, LsmEngine, Snapshot, Workers};
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

/// The seed that the environment asks for alone.
pub(crate) fn only_seed() -> Option<u64> {
    let seed = std::env::var("KSTONE_SEED").ok()?;
    Some(seed.parse().unwrap_or_else(|_| panic!("KSTONE_SEED={seed} is not a number")))
}

/// Everything on one thread, time standing still.
pub(crate) fn manual(vfs: Arc<dyn Vfs>, seed: u64) -> EngineOptions {
    let mut options = EngineOptions::on(vfs);
    options.clock = Arc::new(ManualClock::new(seed));
    options.workers = Workers::Manual;
    options
}

/// All items, by an ordered scan.
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

/// What a file system around `self.inner` does that is not about files: the same as that one.
macro_rules! pass_on_names {
    () => {
        fn list(&self, dir: &std::path::Path) -> std::io::Result<Vec<kstone_core::vfs::DirEntry>> {
            self.inner.list(dir)
        }
        fn kind(&self, path: &std::path::Path) -> std::io::Result<Option<kstone_core::vfs::PathKind>> {
            self.inner.kind(path)
        }
        fn create_dir(&self, dir: &std::path::Path) -> std::io::Result<()> {
            self.inner.create_dir(dir)
        }
        fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
            self.inner.rename(from, to)
        }
        fn remove(&self, path: &std::path::Path) -> std::io::Result<()> {
            self.inner.remove(path)
        }
        fn sync_dir(&self, dir: &std::path::Path) -> std::io::Result<()> {
            self.inner.sync_dir(dir)
        }
        fn lock(&self, path: &std::path::Path, owner: &str) -> std::io::Result<Box<dyn Send + Sync>> {
            self.inner.lock(path, owner)
        }
        fn lock_shared(&self, path: &std::path::Path) -> std::io::Result<Option<Box<dyn Send + Sync>>> {
            self.inner.lock_shared(path)
        }
    };
}

pub(crate) use pass_on_names;
