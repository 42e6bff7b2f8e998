//! Random operations over tiny settings, every answer compared with a model. The seed of a failure is in its
//! message; `KSTONE_SEED=n` runs that one alone.

use std::path::Path;
use std::sync::Arc;

use kstone_core::lsm::{LsmEngine, Snapshot, WriteOptions};
use kstone_core::vfs::{MemVfs, Vfs};

use crate::model::*;

const ROUNDS: u64 = 100;
const OPS: u64 = 2_100;

struct World {
    vfs: Arc<dyn Vfs>,
    engine: LsmEngine,
    state: State,
    snapshots: Vec<(Snapshot, State)>,
    rng: Rng,
    seed: u64,
    reopens: u64,
}

#[test]
fn random_operations_agree_with_a_model() {
    let only = std::env::var("KSTONE_SEED").ok().map(|seed| seed.parse().expect("KSTONE_SEED is a number"));
    let mut operations = 0;
    let (mut flushes, mut compactions, mut reopens) = (0, 0, 0);
    for seed in only.map_or(0..ROUNDS, |seed| seed..seed + 1) {
        let mut world = World::new(seed);
        for _ in 0..OPS {
            let stats = world.operation();
            flushes += stats.0;
            compactions += stats.1;
        }
        world.check();
        operations += OPS;
        reopens += world.reopens;
    }
    println!(
        "oracle: {operations} operations, {flushes} flushes, {compactions} compactions, {reopens} reopens"
    );
    if only.is_none() {
        assert!(operations >= 200_000 && flushes > 1000 && compactions > 1000 && reopens > 1000);
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
        let mut options = manual(Arc::clone(&vfs), seed);
        let (config, compaction) = tiny(&mut rng);
        (options.config, options.compaction) = (Some(config), Some(compaction));
        let engine = LsmEngine::create(Path::new("db"), options).unwrap();
        Self { vfs, engine, state: State::new(), snapshots: Vec::new(), rng, seed, reopens: 0 }
    }

    fn context(&self) -> String {
        format!("KSTONE_SEED={}", self.seed)
    }

    /// Does one operation; returns the flushes and compactions of an engine that it ended.
    fn operation(&mut self) -> (u64, u64) {
        match self.rng.below(100) {
            0..45 => {
                let change = random_change(&mut self.rng, 1);
                let (key, value) = &change[0];
                match value {
                    Some(value) => self.engine.put(key, value, WriteOptions::new()),
                    None => self.engine.delete(key, WriteOptions::new()),
                }
                .unwrap();
                apply(&mut self.state, &change);
            }
            45..50 => {
                let ops = 1 + self.rng.below(12);
                let change = random_change(&mut self.rng, ops);
                let options =
                    if self.rng.below(2) == 0 { WriteOptions::sync() } else { WriteOptions::buffered() };
                self.engine.write(&batch_of(&change), options).unwrap();
                apply(&mut self.state, &change);
            }
            50..75 => {
                let key = random_key(&mut self.rng);
                let got = self.engine.get(&key).unwrap().map(|value| value.to_vec());
                assert_eq!(got.as_ref(), self.state.get(&key), "get {key:?}, {}", self.context());
            }
            75..85 => {
                let choice = self.rng.next();
                self.engine.step(choice);
            }
            85..88 => self.snapshot_operation(),
            88..93 => {
                let context = self.context();
                check_query(&self.engine, &self.state, None, &mut self.rng, &context);
            }
            93 => check_all(&self.engine, &self.state, None, &self.context()),
            94 => self.engine.sync().unwrap(),
            95 => self.engine.flush().unwrap(),
            96 => {
                let stripe = self.rng.below(self.engine.stripe_count() as u64) as usize;
                self.engine.trigger_compaction(stripe).unwrap();
                let stats = self.engine.stats().unwrap();
                let runs = stats.stripes.iter().find(|s| s.stripe == stripe).map_or(0, |s| s.runs);
                assert!(runs <= 1, "{runs} runs after a full compaction, {}", self.context());
            }
            _ => return self.reopen(),
        }
        (0, 0)
    }

    fn snapshot_operation(&mut self) {
        if self.snapshots.len() < 4 && self.rng.below(2) == 0 {
            self.snapshots.push((self.engine.snapshot().unwrap(), self.state.clone()));
        } else if !self.snapshots.is_empty() {
            let at = self.rng.below(self.snapshots.len() as u64) as usize;
            let (snapshot, state) = &self.snapshots[at];
            let context = format!("snapshot {}, KSTONE_SEED={}", snapshot.seq(), self.seed);
            for _ in 0..5 {
                let key = random_key(&mut self.rng);
                let got = self.engine.get_at(&key, snapshot).unwrap().map(|value| value.to_vec());
                assert_eq!(got.as_ref(), state.get(&key), "get {key:?}, {context}");
            }
            check_query(&self.engine, state, Some(snapshot), &mut self.rng, &context);
            check_all(&self.engine, state, Some(snapshot), &context);
            if self.rng.below(2) == 0 {
                self.snapshots.swap_remove(at);
            }
        }
    }

    fn reopen(&mut self) -> (u64, u64) {
        self.snapshots.clear();
        let stats = self.engine.stats().unwrap();
        assert_eq!((stats.poisoned, stats.background_error), (None, None), "{}", self.context());
        if self.rng.below(4) > 0 {
            self.engine.close().unwrap();
        }
        let mut options = manual(Arc::clone(&self.vfs), self.rng.next());
        if self.rng.below(3) == 0 {
            let (config, compaction) = tiny(&mut self.rng);
            let stripes = self.engine.stripe_count();
            (options.config, options.compaction) = (Some(config.with_stripes(stripes)), Some(compaction));
        }
        // The old engine is dropped, and closed by that, only after the new one could not be opened beside it.
        match LsmEngine::open(Path::new("db"), options.clone()) {
            Ok(engine) => self.engine = engine,
            Err(error) => {
                assert_eq!(error.code(), "locked", "{}", self.context());
                self.engine.close().unwrap();
                self.engine = LsmEngine::open(Path::new("db"), options).unwrap();
            }
        }
        self.reopens += 1;
        check_all(&self.engine, &self.state, None, &self.context());
        (stats.flushes, stats.compactions)
    }

    fn check(&self) {
        self.engine.verify().unwrap_or_else(|e| panic!("{e}, {}", self.context()));
        check_all(&self.engine, &self.state, None, &self.context());
    }
}
