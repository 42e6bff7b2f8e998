//! Operations on the engine, on a file system that loses unsynced data, compared with a model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::Input;
use crate::clock::ManualClock;
use crate::config::{CompactionConfig, Compression, DatabaseConfig, ReadMode};
use crate::key::{Key, SortRange};
use crate::lsm::{Direction, EngineOptions, LsmEngine, Snapshot, WriteBatch, WriteOptions};
use crate::vfs::{CrashMode, StrictVfs};

type State = BTreeMap<Key<'static>, Vec<u8>>;

/// Maximum number of operations per input, which bounds its running time.
const MAX_OPS: usize = 400;

struct World {
    vfs: StrictVfs,
    engine: LsmEngine,
    config: DatabaseConfig,
    /// The state after each commit; commits up to `durable` survive a power cut.
    states: Vec<State>,
    durable: usize,
    snapshot: Option<(Snapshot, State)>,
}

/// Performs the operations in the input; every answer is compared with the model.
pub fn ops(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new(&mut input);
    for _ in 0..MAX_OPS {
        if input.is_empty() {
            break;
        }
        world.operation(&mut input);
    }
    world.check();
    world.engine.verify().expect("nothing was damaged");
    world.engine.close().expect("the file system holds");
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let (flags, size) = (input.byte(), input.byte());
        let compressions = [Compression::Never, Compression::Older, Compression::Always];
        let config = DatabaseConfig::new()
            .with_stripes(1 << (flags & 3))
            .with_max_memtable_records(2 + usize::from(size % 16))
            .with_block_size(64 + usize::from(size))
            .with_bloom_bits_per_key(1 + usize::from(size % 14))
            .with_compression(compressions[usize::from(flags >> 2) % 3])
            .with_read_mode(if flags & 64 > 0 { ReadMode::Pread } else { ReadMode::Mmap })
            .with_target_sst_size(4096)
            .with_wal_segment_size(16 << 10);
        let vfs = StrictVfs::new();
        let engine = LsmEngine::create(dir(), options(&vfs, &config)).expect("an empty file system");
        Self { vfs, engine, config, states: vec![State::new()], durable: 0, snapshot: None }
    }

    fn state(&self) -> &State {
        &self.states[self.states.len() - 1]
    }

    fn operation(&mut self, input: &mut Input<'_>) {
        match input.byte() % 20 {
            0..8 => {
                let most = if input.byte() > 200 { 6 } else { 1 };
                let count = 1 + input.below(most);
                self.write(count, input);
            }
            8..11 => {
                let key = key(input);
                let got = self.engine.get(&key).expect("nothing is damaged");
                assert_eq!(got.as_deref(), self.state().get(&key).map(Vec::as_slice), "{key:?}");
            }
            11..14 => drop(self.engine.step(input.byte().into())),
            14 => self.query(input),
            15 => {
                if input.byte().is_multiple_of(2) {
                    self.engine.sync().expect("the file system holds");
                } else {
                    self.engine.flush().expect("the file system holds");
                }
                self.durable = self.states.len() - 1;
            }
            16 => {
                let stripe = input.below(self.engine.stripe_count());
                self.engine.trigger_compaction(stripe).expect("the file system holds");
            }
            17 => {
                let snapshot = self.engine.snapshot().expect("it is open");
                let before = self.snapshot.replace((snapshot, self.state().clone()));
                if let Some((snapshot, state)) = before {
                    assert_eq!(scan(&self.engine, Direction::Forward, Some(&snapshot)), rows(&state));
                }
            }
            18 => self.check(),
            _ => self.reopen(input),
        }
    }

    fn write(&mut self, count: usize, input: &mut Input<'_>) {
        let (mut batch, mut state) = (WriteBatch::new(), self.state().clone());
        for _ in 0..count {
            let (key, len) = (key(input), input.byte());
            if len % 4 == 0 {
                state.remove(&key);
                batch.delete(key);
            } else {
                let value = vec![len; usize::from(len)];
                state.insert(key.clone(), value.clone());
                batch.put(key, value);
            }
        }
        let sync = input.byte().is_multiple_of(5);
        let options = if sync { WriteOptions::sync() } else { WriteOptions::buffered() };
        self.engine.write(&batch, options).expect("the file system holds");
        self.states.push(state);
        if sync {
            self.durable = self.states.len() - 1;
        }
    }

    fn query(&self, input: &mut Input<'_>) {
        let (partition, flags) = (partition(input), input.byte());
        let prefix = &b"s1"[..usize::from(flags % 3)];
        let direction = if flags & 8 > 0 { Direction::Reverse } else { Direction::Forward };
        let range = if flags & 16 > 0 { SortRange::All } else { SortRange::Prefix(prefix.to_vec()) };
        let within = |key: &Key<'_>| {
            let by_sort = flags & 16 > 0 || key.sort().is_some_and(|sort| sort.starts_with(prefix));
            key.partition() == partition && by_sort
        };
        let mut expected = rows(self.state());
        expected.retain(|(key, _)| within(key));
        if direction == Direction::Reverse {
            expected.reverse();
        }
        let entries = self.engine.query(&partition, &range, direction, None).expect("a partition");
        let got: Vec<_> = entries.map(|entry| entry.expect("nothing is damaged")).collect();
        let got: Vec<_> = got.into_iter().map(|(key, value)| (key, value.to_vec())).collect();
        assert_eq!(got, expected);
    }

    fn check(&self) {
        let mut all = rows(self.state());
        assert_eq!(scan(&self.engine, Direction::Forward, None), all);
        all.reverse();
        assert_eq!(scan(&self.engine, Direction::Reverse, None), all);
    }

    /// A clean close, the death of the process, or a power cut.
    fn reopen(&mut self, input: &mut Input<'_>) {
        self.snapshot = None;
        let how = input.byte() % 6;
        if how < 2 {
            self.engine.close().expect("the file system holds");
            self.durable = self.states.len() - 1;
        }
        let mode = match how {
            2 => CrashMode::Strict,
            3.. => CrashMode::Random { seed: input.short().into() },
            _ => CrashMode::All,
        };
        // Taken before the old engine is dropped, because dropping closes it.
        let image = self.vfs.crash(mode);
        self.engine = LsmEngine::open(dir(), options(&image, &self.config)).expect("nothing is damaged");
        self.vfs = image;
        let found = scan(&self.engine, Direction::Forward, None);
        let is = |state: &State| rows(state) == found;
        let place = (self.durable..self.states.len()).rev().find(|&n| is(&self.states[n]));
        let place = place.unwrap_or_else(|| panic!("no commit from {} on left {found:?}", self.durable));
        self.states.truncate(place + 1);
        // Recovery makes its result durable.
        self.durable = place;
    }
}

fn partition(input: &mut Input<'_>) -> Vec<u8> {
    match input.byte() % 6 {
        0 => b"a\0b".to_vec(),
        1 => b"a".to_vec(),
        n => format!("part{n}").into_bytes(),
    }
}

fn key(input: &mut Input<'_>) -> Key<'static> {
    let partition = partition(input);
    match input.byte() % 8 {
        0 => Key::new(partition),
        1 => Key::with_sort(partition, Vec::new()),
        n => Key::with_sort(partition, format!("s{n}").into_bytes()),
    }
}

fn rows(state: &State) -> Vec<(Key<'static>, Vec<u8>)> {
    state.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn scan(
    engine: &LsmEngine,
    direction: Direction,
    snapshot: Option<&Snapshot>,
) -> Vec<(Key<'static>, Vec<u8>)> {
    let entries = engine.scan(b"", direction, snapshot).expect("it is open");
    let rows = entries.map(|entry| entry.expect("nothing is damaged"));
    rows.map(|(key, value)| (key, value.to_vec())).collect()
}

fn dir() -> &'static Path {
    Path::new("/db")
}

fn options(vfs: &StrictVfs, config: &DatabaseConfig) -> EngineOptions {
    let mut options = EngineOptions::reproducible(Arc::new(vfs.clone()), Arc::new(ManualClock::new(1)));
    options.config = Some(config.clone());
    options.compaction = Some(CompactionConfig::new().with_sst_threshold(2));
    options
}

/// Initial inputs: programs of all operations, with a few settings.
pub fn ops_seeds() -> Vec<Vec<u8>> {
    let mut mutator = super::Mutator::new(4);
    let mut seeds = Vec::new();
    for flags in [0, 1, 5, 10, 66, 71] {
        let mut program: Vec<u8> = vec![flags, mutator.below(256) as u8];
        program.extend((0..600).map(|_| mutator.below(256) as u8));
        seeds.push(program);
    }
    seeds
}
