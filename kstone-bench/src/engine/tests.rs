//! What every engine must do the same: a seeded mix of operations against a map, and again after it was opened anew.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::data::{Layout, Values};

const PARTITION: u64 = 10;
const KEYS: u64 = 300;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(n: u64) -> BenchKey {
    BenchKey::new(Layout::Partitions(PARTITION), n)
}

fn obeys(spec: &EngineSpec, directory: &Path, durability: Durability) -> Result<()> {
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
            agrees(&mut *session, &model, rng.random_range(0..KEYS))?;
        }
        everything(&mut *session, &model)?;
        drop(session);
        if handle == 0 {
            engine.settle()?;
        } else {
            engine.compact()?;
        }
        let mut session = engine.session()?;
        everything(&mut *session, &model)?;
        drop(session);
        engine.counters()?;
        engine.close()?;
    }
    Ok(())
}

/// A get, a query, and gets of several keys.
fn agrees(session: &mut dyn Session, model: &Model, n: u64) -> Result<()> {
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
    let found = session.query(&from, limit, &mut |value| values.push(value.to_vec()))?;
    ensure!(values == expected && found == expected.len() as u64, "query from {n}");

    let keys = [n, n + 1, KEYS + n].map(key);
    let expected: Vec<_> = keys.iter().filter_map(|key| model.get(key.flat()).cloned()).collect();
    let mut values = Vec::new();
    let found = session.multi_get(&keys, &mut |value| values.push(value.to_vec()))?;
    ensure!(values == expected && found == expected.len() as u64, "gets from {n} on");
    Ok(())
}

fn everything(session: &mut dyn Session, model: &Model) -> Result<()> {
    for limit in [u64::MAX, 5] {
        let expected: Vec<_> = model.values().take(limit as usize).cloned().collect();
        let mut values = Vec::new();
        let found = session.scan(limit, &mut |value| values.push(value.to_vec()))?;
        ensure!(values == expected && found == expected.len() as u64, "scan of {limit}");
    }
    (0..KEYS).try_for_each(|n| agrees(session, model, n))
}

fn check(name: &str) -> Result<()> {
    for tuned in [false, true] {
        if tuned && matches!(name, "kstone" | "noop") {
            continue;
        }
        for durability in [Durability::Buffered, Durability::Sync] {
            let directory = tempfile::tempdir()?;
            let spec = EngineSpec { tuned, ..EngineSpec::new(name) };
            obeys(&spec, directory.path(), durability)
                .with_context(|| format!("{}, {durability:?}", spec.label()))?;
        }
    }
    Ok(())
}

#[test]
fn all_engines_answer_alike() {
    let checked: Vec<_> = names().into_iter().filter(|name| *name != "noop").collect();
    checked.iter().for_each(|name| check(name).unwrap_or_else(|error| panic!("{error:#}")));
    println!("engines that answer alike: {}", checked.join(", "));
}

#[test]
fn an_engine_that_does_nothing_is_found_out() {
    check("noop").unwrap_err();
}

#[test]
fn what_an_engine_cannot_be_told_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |spec: EngineSpec| {
        open(&spec, directory.path(), Durability::Buffered).map(drop).unwrap_err().to_string()
    };
    assert!(refused(EngineSpec::new("oracle")).contains("kstone"));
    assert!(refused(EngineSpec::parse("kstone-tuned")).contains("settings"));
    let settings = "sst_threshold=4".to_owned();
    assert!(refused(EngineSpec { settings, ..EngineSpec::new("noop") }).contains("kstone only"));
    let settings = "sst_threshold=1".to_owned();
    assert!(refused(EngineSpec { settings, ..EngineSpec::new("kstone") }).contains("sst_threshold"));
}
