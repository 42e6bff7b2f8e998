//! Random operations over tiny settings, every answer compared with a model. The seed of a failure is in its
//! message; `KSTONE_SEED=n` runs that one alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kstone_core::clock::ManualClock;
use kstone_core::lsm::{LsmEngine, Snapshot, WriteOptions};
use kstone_core::vfs::{MemVfs, Vfs};
use kstone_core::{Error, Result};

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
    clock: Arc<ManualClock>,
    /// Since then the files of the database, and of its log, were within their limits: they may not leave them again.
    within: bool,
    log_within: bool,
    refused: u64,
    changes: u64,
}

#[test]
fn random_operations_agree_with_a_model() {
    let only = std::env::var("KSTONE_SEED").ok().map(|seed| seed.parse().expect("KSTONE_SEED is a number"));
    let mut operations = 0;
    let (mut flushes, mut compactions, mut reopens, mut refused, mut changes) = (0, 0, 0, 0, 0);
    for seed in only.map_or(0..ROUNDS, |seed| seed..seed + 1) {
        let mut world = World::new(seed);
        for _ in 0..OPS {
            let stats = world.operation();
            flushes += stats.0;
            compactions += stats.1;
            world.check_limits();
        }
        world.check();
        refused += world.refused;
        changes += world.changes;
        operations += OPS;
        reopens += world.reopens;
    }
    println!(
        "oracle: {operations} operations, {flushes} flushes, {compactions} compactions, {reopens} reopens, \
         {refused} refused for space, {changes} changes of settings"
    );
    if only.is_none() {
        assert!(operations >= 200_000 && flushes > 1000 && compactions > 1000 && reopens > 1000);
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
        let clock = Arc::new(ManualClock::new(seed));
        let mut options = manual(Arc::clone(&vfs), seed);
        options.clock = Arc::clone(&clock) as _;
        let (config, compaction) = any(&mut rng);
        (options.config, options.compaction) = (Some(config), Some(compaction));
        let engine = LsmEngine::create(Path::new("db"), options).unwrap();
        let (state, snapshots) = (State::new(), Vec::new());
        let (reopens, refused, changes, within, log_within) = (0, 0, 0, false, false);
        Self {
            vfs,
            engine,
            state,
            snapshots,
            rng,
            seed,
            reopens,
            clock,
            within,
            log_within,
            refused,
            changes,
        }
    }

    /// Whether it was done; with a limit on disk space it may have been refused whole.
    fn done<T>(&mut self, result: Result<T>) -> bool {
        match result {
            Ok(_) => true,
            Err(Error::DiskFull) if self.engine.config().max_total_disk_bytes.is_some() => {
                self.refused += 1;
                false
            }
            Err(error) => {
                let (usage, stats) = (self.engine.disk_usage().unwrap(), self.engine.stats().unwrap());
                panic!("{error}, {}, {:?}, {usage}, {stats:?}", self.context(), self.engine.config())
            }
        }
    }

    /// What was within a limit once stays within it.
    fn check_limits(&mut self) {
        let (config, usage) = (self.engine.config(), self.engine.disk_usage().unwrap());
        assert_eq!(usage.used, listed(&*self.vfs), "{usage}, {}", self.context());
        let fits = config.max_total_disk_bytes.is_none_or(|limit| usage.used <= limit);
        assert!(fits || !self.within, "{usage}, {}", self.context());
        // While less than what must stay free is left, files may grow beyond the limit for merging.
        self.within |= usage.available_for_writes.is_none_or(|available| available > 0);
        let log = self.engine.stats().unwrap().log_bytes;
        let fits = config.max_wal_size_bytes.is_none_or(|limit| log <= limit);
        assert!(fits || !self.log_within, "{log} bytes of log, {}, {config:?}", self.context());
        self.log_within = fits;
    }

    fn change_settings(&mut self) {
        (self.within, self.log_within) = (false, false);
        let (config, compaction) = any(&mut self.rng);
        if self.rng.below(2) == 0 {
            let result = self.engine.set_config(config.with_stripes(self.engine.stripe_count()));
            self.done(result);
        } else {
            let result = self.engine.set_compaction_config(compaction);
            self.done(result);
        }
        self.changes += 1;
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
                let result = match value {
                    Some(value) => self.engine.put(key, value, WriteOptions::new()),
                    None => self.engine.delete(key, WriteOptions::new()),
                };
                if self.done(result) {
                    apply(&mut self.state, &change);
                }
            }
            45..50 => {
                let ops = 1 + self.rng.below(12);
                let change = random_change(&mut self.rng, ops);
                let options =
                    if self.rng.below(2) == 0 { WriteOptions::sync() } else { WriteOptions::buffered() };
                let result = self.engine.write(&batch_of(&change), options);
                if self.done(result) {
                    apply(&mut self.state, &change);
                }
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
            94 => {
                self.engine.sync().unwrap();
                self.clock.advance(Duration::from_millis(self.rng.below(3000)));
            }
            95 => {
                let result = self.engine.flush();
                self.done(result);
            }
            96 => {
                let stripe = self.rng.below(self.engine.stripe_count() as u64) as usize;
                let result = self.engine.trigger_compaction(stripe);
                if !self.done(result) {
                    return (0, 0);
                }
                let stats = self.engine.stats().unwrap();
                let runs = stats.stripes.iter().find(|s| s.stripe == stripe).map_or(0, |s| s.runs);
                assert!(runs <= 1, "{runs} runs after a full compaction, {}", self.context());
            }
            97 if self.rng.below(2) == 0 => self.change_settings(),
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
        let tight = self.engine.config().max_total_disk_bytes.is_some();
        let error = stats.background_error.filter(|_| !tight);
        assert_eq!((stats.poisoned, error), (None, None), "{}", self.context());
        if self.rng.below(4) > 0 {
            self.engine.close().unwrap();
        }
        let mut options = manual(Arc::clone(&self.vfs), self.rng.next());
        options.clock = Arc::clone(&self.clock) as _;
        (self.within, self.log_within) = (false, false);
        if self.rng.below(3) == 0 {
            let (config, compaction) = any(&mut self.rng);
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
