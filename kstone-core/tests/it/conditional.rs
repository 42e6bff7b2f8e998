//! Conditional writes and transactions: what they decide on, what they write, and what they refuse.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use kstone_core::lsm::{Changes, EngineOptions, LsmEngine, WriteOptions};
use kstone_core::slice::Slice;
use kstone_core::vfs::MemVfs;
use kstone_core::{CompactionConfig, DatabaseConfig, Key, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::model::manual;

mod decisions;
mod refusals;
mod threads;
mod transactions;

const STRIPES: usize = 4;

fn config() -> DatabaseConfig {
    DatabaseConfig::new().with_stripes(STRIPES).with_latency_sampling(1)
}

/// A database on one thread, which flushes and merges only when told to.
fn options(config: DatabaseConfig) -> EngineOptions {
    let mut options = manual(Arc::new(MemVfs::new()), 1);
    options.config = Some(config);
    options.compaction = Some(CompactionConfig::disabled());
    options
}

fn create(config: DatabaseConfig) -> LsmEngine {
    LsmEngine::create(Path::new("db"), options(config)).unwrap()
}

/// A key in that stripe, different for each `n`.
fn key(stripe: u64, n: usize) -> Key<'static> {
    let in_stripe = |name: &String| xxh3_64(name.as_bytes()) >> 62 == stripe;
    Key::new((0..).map(|i| format!("k{i}")).filter(in_stripe).nth(n).unwrap().into_bytes())
}

fn put(engine: &LsmEngine, key: &Key<'_>, value: &[u8]) {
    engine.put(key, value, WriteOptions::new()).unwrap();
}

fn delete(engine: &LsmEngine, key: &Key<'_>) {
    engine.delete(key, WriteOptions::new()).unwrap();
}

fn get(engine: &LsmEngine, key: &Key<'_>) -> Option<Vec<u8>> {
    engine.get(key).unwrap().map(|value| value.to_vec())
}

fn bytes(values: &[Option<Slice>]) -> Vec<Option<Vec<u8>>> {
    values.iter().map(|value| value.as_ref().map(|value| value.to_vec())).collect()
}

/// Everything that a write would change, but for the contents.
fn written(engine: &LsmEngine) -> (u64, u64, u64, u64) {
    let stats = engine.stats().unwrap();
    (stats.log_records, stats.operations.puts, stats.operations.deletes, stats.operations.batches)
}

/// A conditional write with `meanwhile` run in the middle of its first decision, as by another thread. Returns the
/// values that each decision was made on.
fn decide_while(
    engine: &LsmEngine,
    keys: &[Key<'_>],
    meanwhile: impl FnOnce(),
    mut decide: impl FnMut(&[Option<Slice>], &mut Changes),
) -> Result<Vec<Vec<Option<Vec<u8>>>>> {
    let (meanwhile, mut seen) = (Cell::new(Some(meanwhile)), Vec::new());
    engine.write_with(keys, WriteOptions::new(), |values, changes| {
        seen.push(bytes(values));
        if let Some(others) = meanwhile.take() {
            others();
        }
        decide(values, changes);
        Ok(())
    })?;
    Ok(seen)
}
