//! The contract of all engines: compares a seeded mix of operations with a map, and does so again after a reopen.
//!
//! Not a test, so that `kstone-bench/peers/` can test its engines with it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Durability, EngineSpec, Session, open};
use crate::data::{BenchKey, Layout, Values};

const PARTITION: u64 = 10;
const KEYS: u64 = 300;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// The operations that an engine declares not to support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacks {
    Tuned,
    Query,
    /// Scans in key order.
    Scan,
}

fn key(n: u64) -> BenchKey {
    BenchKey::new(Layout::Partitions(PARTITION), n)
}

fn obeys(spec: &EngineSpec, directory: &Path, durability: Durability, lacks: &[Lacks]) -> Result<()> {
    let mut rng = SmallRng::seed_from_u64(7);
    let values = Values::new(100, 1)?;
    let (mut model, mut value) = (Model::new(), Vec::new());
    for handle in 0..2 {
        let engine = open(spec, directory, durability)?;
        let mut session = engine.session()?;
        for version in 0..600 {
            let n = rng.random_range(0..KEYS);
            if rng.random_ratio(1, 4) {
                session.delete(&key(n))?;
                model.remove(key(n).flat());
            } else {
                values.fill(n, version, &mut value);
                session.put(&key(n), &value)?;
                model.insert(key(n).flat().to_vec(), value.clone());
            }
            agrees(&mut *session, &model, rng.random_range(0..KEYS), lacks)?;
        }
        everything(&mut *session, &model, lacks)?;
        drop(session);
        if handle == 0 {
            engine.settle()?;
        } else {
            engine.compact()?;
        }
        let mut session = engine.session()?;
        everything(&mut *session, &model, lacks)?;
        drop(session);
        engine.counters()?;
        engine.close()?;
    }
    Ok(())
}

/// Compares a get, a query, and a read of several keys.
fn agrees(session: &mut dyn Session, model: &Model, n: u64, lacks: &[Lacks]) -> Result<()> {
    let (from, mut seen) = (key(n), None);
    let found = session.get(&from, &mut |value| seen = Some(value.to_vec()))?;
    ensure!(seen.as_ref() == model.get(from.flat()), "get of {n}");
    ensure!(found == seen.is_some(), "get of {n} says that it is there: {found}");

    let limit = 1 + n % 4;
    let end = key(n - n % PARTITION + PARTITION - 1);
    let expected: Vec<_> = model
        .range(from.flat().to_vec()..=end.flat().to_vec())
        .map(|(_, value)| value.clone())
        .take(limit as usize)
        .collect();
    let mut values = Vec::new();
    let found = session.query(&from, limit, &mut |value| values.push(value.to_vec()));
    let agree = |found| values == expected && found == expected.len() as u64;
    answered(found, lacks.contains(&Lacks::Query), agree).with_context(|| format!("query from {n}"))?;

    let first = n - n % PARTITION;
    let expected: Vec<_> = model
        .range(key(first).flat().to_vec()..=key(first + PARTITION - 1).flat().to_vec())
        .map(|(_, value)| value.clone())
        .collect();
    let mut values = Vec::new();
    let found = session.partition(&key(first), &mut |value| values.push(value.to_vec()));
    let agree = |found| values == expected && found == expected.len() as u64;
    answered(found, lacks.contains(&Lacks::Query), agree).with_context(|| format!("partition of {n}"))?;

    let keys = [n, n + 1, KEYS + n].map(key);
    let expected: Vec<_> = keys.iter().filter_map(|key| model.get(key.flat()).cloned()).collect();
    let mut values = Vec::new();
    let found = session.multi_get(&keys, &mut |value| values.push(value.to_vec()))?;
    ensure!(values == expected && found == expected.len() as u64, "gets from {n} on");
    Ok(())
}

/// Checks that an answer is right, or rejected if the engine lacks the operation.
fn answered(found: Result<u64>, lacking: bool, agrees: impl FnOnce(u64) -> bool) -> Result<()> {
    match (found, lacking) {
        (Err(_), true) => Ok(()),
        (Ok(_), true) => bail!("it answers what it is declared not to support"),
        (found, false) => {
            ensure!(agrees(found?), "the answer is wrong");
            Ok(())
        }
    }
}

fn everything(session: &mut dyn Session, model: &Model, lacks: &[Lacks]) -> Result<()> {
    for limit in [u64::MAX, 5] {
        let expected: Vec<_> = model.values().take(limit as usize).cloned().collect();
        let mut values = Vec::new();
        let found = session.scan(limit, &mut |value| values.push(value.to_vec()));
        let agree = |found| values == expected && found == expected.len() as u64;
        answered(found, lacks.contains(&Lacks::Scan), agree).with_context(|| format!("scan of {limit}"))?;
    }
    let mut expected: Vec<_> = model.values().cloned().collect();
    expected.sort();
    let mut values = Vec::new();
    let found = session.scan_unordered(u64::MAX, &mut |value| values.push(value.to_vec()));
    values.sort();
    let agree = |found| values == expected && found == expected.len() as u64;
    answered(found, lacks.contains(&Lacks::Scan), agree).context("scan in any order")?;
    (0..KEYS).try_for_each(|n| agrees(session, model, n, lacks))
}

/// Checks the contract with each durability and setting, except for what the engine `lacks`.
pub fn check(name: &str, lacks: &[Lacks]) -> Result<()> {
    for tuned in [false, true] {
        if tuned && (EngineSpec::new(name).is_ours() || name == "noop") {
            continue;
        }
        for durability in [Durability::Buffered, Durability::Sync] {
            let directory = tempfile::tempdir()?;
            let spec = EngineSpec { tuned, ..EngineSpec::new(name) };
            let what = || format!("{}, {durability:?}", spec.label());
            if tuned && lacks.contains(&Lacks::Tuned) {
                let opened = open(&spec, directory.path(), durability);
                ensure!(opened.is_err(), "{} opens", what());
                continue;
            }
            obeys(&spec, directory.path(), durability, lacks).with_context(what)?;
        }
    }
    Ok(())
}
