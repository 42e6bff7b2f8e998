//! Histories of real threads, checked afterwards: single keys against a register that each operation reads, changes or
//! compares and changes at one moment between its call and its return, snapshots and batches against the order of
//! commits.
//!
//! Times are numbers from one counter, taken before each call and after its return. It is not a clock, so that if an
//! operation is recorded to end before another starts, this holds for every thread.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kstone_core::lsm::{Direction, EngineOptions, LsmEngine, WriteBatch, WriteOptions};
use kstone_core::torture::Watchdog;
use kstone_core::vfs::{CrashMode, StrictVfs};
use kstone_core::{CompactionConfig, DatabaseConfig, Key};

const DB: &str = "db";
const STRIPES: usize = 8;
const WRITERS: u64 = 3;
const READERS: u64 = 3;
const KEYS: u64 = 6;
/// Keys beyond those of commits and snapshots, which are also compared and changed: such a write does not tell its number.
const SWAPPED: std::ops::Range<u64> = KEYS + 2..KEYS + 4;
const ROUNDS: u64 = 4;
const WRITES: u64 = 2_000;
const READS: u64 = 5_000;

/// The times at which an operation was called and returned.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    end: u64,
}

/// An operation on a register. Every write has a unique value.
#[derive(Clone, Copy, Debug)]
enum Op {
    Write(u64),
    Read(u64),
    /// Found the first value, and replaced it by the second.
    Swap(u64, u64),
}

/// A commit of one or more keys; `None` is a delete.
#[derive(Clone, Debug)]
struct Commit {
    span: Span,
    seq: u64,
    changes: Vec<(u64, Option<u64>)>,
}

/// The values of all keys in a snapshot.
#[derive(Clone, Debug)]
struct Seen {
    span: Span,
    seq: u64,
    values: BTreeMap<u64, u64>,
}

/// The operations of one thread, or of all.
#[derive(Debug, Default)]
struct History {
    ops: Vec<(u64, Span, Op)>,
    commits: Vec<Commit>,
    seen: Vec<Seen>,
}

impl History {
    fn append(&mut self, mut other: Self) {
        self.ops.append(&mut other.ops);
        self.commits.append(&mut other.commits);
        self.seen.append(&mut other.seen);
    }
}

/// The operations on a register that read or write one value, or a series of values of which each replaced the one before.
struct Cluster {
    value: u64,
    written: Option<Span>,
    first_end: u64,
    last_start: u64,
    /// The value that was compared with this one and replaced it.
    next: Option<u64>,
}

impl Cluster {
    fn covers(&mut self, first_end: u64, last_start: u64) {
        self.first_end = self.first_end.min(first_end);
        self.last_start = self.last_start.max(last_start);
    }
}

/// The operations by value.
fn clusters(first: u64, ops: &[(Span, Op)]) -> Result<HashMap<u64, Cluster>, String> {
    let mut clusters = HashMap::<u64, Cluster>::new();
    let before_all = Span { start: 0, end: 0 };
    for (span, op) in [(before_all, Op::Write(first))].iter().chain(ops) {
        let (read, write) = match *op {
            Op::Read(value) => (Some(value), None),
            Op::Write(value) => (None, Some(value)),
            Op::Swap(from, to) => (Some(from), Some(to)),
        };
        for value in read.into_iter().chain(write) {
            let new = Cluster { value, written: None, first_end: u64::MAX, last_start: 0, next: None };
            let cluster = clusters.entry(value).or_insert(new);
            cluster.covers(span.end, span.start);
            if write == Some(value) {
                if cluster.written.replace(*span).is_some() {
                    return Err(format!("{value} was written twice: the test is wrong"));
                }
            } else if let Some(by) = write
                && cluster.next.replace(by).is_some()
            {
                return Err(format!("{value} was compared with and replaced twice"));
            }
        }
    }
    for cluster in clusters.values() {
        let Some(written) = cluster.written else {
            return Err(format!("{} was never written", cluster.value));
        };
        if cluster.first_end < written.start {
            return Err(format!("{} was read before it had been written", cluster.value));
        }
    }
    Ok(clusters)
}

/// Joins the clusters of values that replaced each other, with nothing in between.
fn joined(mut clusters: HashMap<u64, Cluster>) -> Result<Vec<Cluster>, String> {
    let replacing: HashSet<u64> = clusters.values().filter_map(|cluster| cluster.next).collect();
    let starts: Vec<u64> = clusters.keys().copied().filter(|value| !replacing.contains(value)).collect();
    let mut joined = Vec::new();
    for start in starts {
        let mut series = clusters.remove(&start).unwrap();
        let mut next = series.next;
        while let Some(cluster) = next.and_then(|value| clusters.remove(&value)) {
            if cluster.first_end < series.last_start {
                return Err(format!("{} was read before and after {start} was", cluster.value));
            }
            series.covers(cluster.first_end, cluster.last_start);
            next = cluster.next;
        }
        joined.push(series);
    }
    match clusters.keys().next() {
        Some(value) => Err(format!("{value} replaced itself")),
        None => Ok(joined),
    }
}

/// Checks whether the operations on one register, which held `first`, can be ordered consistently with their times
/// (Gibbons and Korach, "Testing Shared Memories", 1997). The operations with the same value form its cluster, and
/// values that were compared and replaced form one with those that replaced them. Clusters do not interleave, so if the
/// first end in a cluster is before its last start, the register held its values in between. Two of these intervals must
/// not overlap, and no other cluster may lie within one.
fn check_register(first: u64, ops: &[(Span, Op)]) -> Result<(), String> {
    let mut held = Vec::new();
    let mut others = Vec::new();
    for cluster in joined(clusters(first, ops)?)? {
        let zone = if cluster.first_end < cluster.last_start { &mut held } else { &mut others };
        zone.push(cluster);
    }
    held.sort_by_key(|cluster| cluster.first_end);
    for pair in held.windows(2) {
        if pair[1].first_end < pair[0].last_start {
            return Err(format!("{} was read after {} had replaced it", pair[0].value, pair[1].value));
        }
    }
    for cluster in others {
        let at = held.partition_point(|held| held.first_end < cluster.last_start);
        if let Some(around) = at.checked_sub(1).map(|at| &held[at])
            && cluster.first_end < around.last_start
        {
            return Err(format!("{} was read before and after {} was written", around.value, cluster.value));
        }
    }
    Ok(())
}

/// Checks that commits were numbered in the order in which they happened, and that a snapshot shows exactly the commits
/// up to its own number.
fn check_snapshots(history: &History) -> Result<(), String> {
    let mut commits: Vec<&Commit> = history.commits.iter().collect();
    in_order("a commit", commits.iter().map(|commit| (commit.span, commit.seq)), true)?;
    in_order("a snapshot", history.seen.iter().map(|seen| (seen.span, seen.seq)), false)?;
    commits.sort_by_key(|commit| commit.seq);
    let mut seen: Vec<&Seen> = history.seen.iter().collect();
    seen.sort_by_key(|seen| seen.seq);
    let (mut state, mut applied) = (BTreeMap::new(), 0);
    // For each prefix of the commits: the latest call of a commit in it, and the earliest return of one after it.
    let mut latest_start = vec![0; commits.len() + 1];
    let mut earliest_end = vec![u64::MAX; commits.len() + 1];
    for (at, commit) in commits.iter().enumerate() {
        latest_start[at + 1] = latest_start[at].max(commit.span.start);
    }
    for (at, commit) in commits.iter().enumerate().rev() {
        earliest_end[at] = earliest_end[at + 1].min(commit.span.end);
    }
    for seen in seen {
        while let Some(commit) = commits.get(applied).filter(|commit| commit.seq <= seen.seq) {
            for (key, value) in &commit.changes {
                match value {
                    Some(value) => state.insert(*key, *value),
                    None => state.remove(key),
                };
            }
            applied += 1;
        }
        if state != seen.values {
            return Err(format!("the snapshot at {} shows {:?} instead of {state:?}", seen.seq, seen.values));
        }
        if latest_start[applied] > seen.span.end {
            return Err(format!("the snapshot at {} shows a commit that had not started", seen.seq));
        }
        if earliest_end[applied] < seen.span.start {
            return Err(format!("the snapshot at {} lacks a commit that had returned", seen.seq));
        }
    }
    Ok(())
}

/// Checks that operations which ended before another started have a lower number, or, unless `differ`, the same.
fn in_order(what: &str, all: impl Iterator<Item = (Span, u64)>, differ: bool) -> Result<(), String> {
    let mut events: Vec<(u64, bool, u64)> =
        all.flat_map(|(span, seq)| [(span.start, false, seq), (span.end, true, seq)]).collect();
    events.sort_unstable();
    let mut highest = 0;
    for (_, ended, seq) in events {
        if ended {
            highest = highest.max(seq);
        } else if seq < highest || (differ && seq == highest) {
            return Err(format!("{what} at {seq} started after one at {highest} had returned"));
        }
    }
    Ok(())
}

struct Run<'a> {
    engine: &'a LsmEngine,
    moments: &'a AtomicU64,
    values: &'a AtomicU64,
    seed: u64,
}

impl Run<'_> {
    fn now(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }

    fn below(&mut self, n: u64) -> u64 {
        // Knuth's linear congruential generator.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % n
    }

    fn write(&mut self, n: u64, history: &mut History) {
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        let how = if n.is_multiple_of(64) { WriteOptions::sync() } else { WriteOptions::new() };
        let key = self.below(KEYS);
        let mut changes = vec![(key, Some(value))];
        match self.below(4) {
            // The two additional keys are always written and deleted together.
            0 => changes = vec![(KEYS, Some(value)), (KEYS + 1, Some(value))],
            1 if n.is_multiple_of(8) => changes = vec![(KEYS, None), (KEYS + 1, None)],
            _ => {}
        }
        let mut batch = WriteBatch::new();
        for (key, value) in &changes {
            match value {
                Some(value) => batch.put(name(*key), value.to_le_bytes()),
                None => batch.delete(name(*key)),
            };
        }
        let start = self.now();
        let seq = match &changes[..] {
            [(key, Some(value))] => self.engine.put(&name(*key), &value.to_le_bytes(), how),
            _ => self.engine.write(&batch, how),
        };
        let span = Span { start, end: self.now() };
        if let [(key, Some(value))] = changes[..] {
            history.ops.push((key, span, Op::Write(value)));
        }
        history.commits.push(Commit { span, seq: seq.unwrap(), changes });
    }

    /// A put, or a conditional write: of whatever is there, or only if it is the value that a get found before.
    fn swap(&mut self, n: u64, history: &mut History) {
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        let key = SWAPPED.start + self.below(SWAPPED.end - SWAPPED.start);
        if n % 8 == 7 {
            let start = self.now();
            self.engine.put(&name(key), &value.to_le_bytes(), WriteOptions::new()).unwrap();
            let span = Span { start, end: self.now() };
            history.ops.push((key, span, Op::Write(value)));
            return;
        }
        let expected = n.is_multiple_of(2).then(|| self.read_key(key, history));
        let start = self.now();
        let (found, swapped) = self
            .engine
            .write_with(&[name(key)], WriteOptions::new(), |values, changes| {
                let found = number(values[0].as_ref().unwrap());
                let swapped = expected.is_none_or(|expected| found == expected);
                if swapped {
                    changes.put(0, value.to_le_bytes().to_vec());
                }
                Ok((found, swapped))
            })
            .unwrap();
        let span = Span { start, end: self.now() };
        let op = if swapped { Op::Swap(found, value) } else { Op::Read(found) };
        history.ops.push((key, span, op));
    }

    fn read_key(&mut self, key: u64, history: &mut History) -> u64 {
        let start = self.now();
        let found = self.engine.get(&name(key)).unwrap().unwrap_or_else(|| panic!("a key is missing"));
        let (span, found) = (Span { start, end: self.now() }, number(&found));
        history.ops.push((key, span, Op::Read(found)));
        found
    }

    fn read(&mut self, n: u64, history: &mut History) {
        if !n.is_multiple_of(16) {
            let key = self.below(KEYS + SWAPPED.end - SWAPPED.start);
            let key = if key < KEYS { key } else { SWAPPED.start + key - KEYS };
            self.read_key(key, history);
            return;
        }
        let start = self.now();
        let snapshot = self.engine.snapshot().unwrap();
        let span = Span { start, end: self.now() };
        let values: BTreeMap<u64, u64> = if n.is_multiple_of(32) {
            let entries = self.engine.scan(b"", Direction::Forward, Some(&snapshot)).unwrap();
            entries
                .map(|entry| entry.unwrap())
                .map(|(key, value)| (key.partition()[1].into(), number(&value)))
                .filter(|(key, _)| !SWAPPED.contains(key))
                .collect()
        } else {
            let get = |key| Some((key, number(&self.engine.get_at(&name(key), &snapshot).unwrap()?)));
            (0..KEYS + 2).filter_map(get).collect()
        };
        history.seen.push(Seen { span, seq: snapshot.seq(), values });
    }
}

fn name(key: u64) -> Key<'static> {
    Key::new(vec![b'k', key as u8])
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().unwrap())
}

fn options(vfs: StrictVfs) -> EngineOptions {
    let mut options = EngineOptions::on(Arc::new(vfs));
    options.config = Some(config(20));
    options.compaction = Some(CompactionConfig::new().with_sst_threshold(3));
    options
}

fn config(records: usize) -> DatabaseConfig {
    DatabaseConfig::new()
        .with_stripes(STRIPES)
        .with_max_memtable_records(records)
        .with_wal_segment_size(32 << 10)
        .with_checkpoint_interval(Duration::from_millis(1))
        .with_sync_interval(Duration::from_millis(1))
}

/// One round of all threads on one handle.
fn round(engine: &LsmEngine, moments: &AtomicU64, values: &AtomicU64, round: u64) -> History {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS + READERS)
            .map(|thread| {
                let mut run = Run { engine, moments, values, seed: round * 100 + thread };
                scope.spawn(move || {
                    let mut history = History::default();
                    if thread < WRITERS {
                        for n in 0..WRITES {
                            run.write(n, &mut history);
                            if n.is_multiple_of(2) {
                                run.swap(n / 2, &mut history);
                            }
                        }
                    } else {
                        (0..READS).for_each(|n| run.read(n, &mut history));
                    }
                    history
                })
            })
            .collect();
        scope.spawn(|| {
            for n in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                match n % 5 {
                    0 => engine.flush().unwrap(),
                    1 => engine.set_config(config(1 + n % 37)).unwrap(),
                    2 => engine
                        .set_compaction_config(CompactionConfig::new().with_sst_threshold(2 + n % 4))
                        .unwrap(),
                    _ => engine.trigger_compaction(n % STRIPES).unwrap(),
                }
            }
        });
        let mut history = History::default();
        threads.into_iter().for_each(|thread| history.append(thread.join().unwrap()));
        done.store(true, Ordering::Relaxed);
        history
    })
}

/// Writers and readers on few keys, with concurrent flushes, merges and changes of settings, over several handles: some
/// closed, some abandoned as by a killed process.
#[test]
fn what_threads_see_can_be_put_into_one_order() {
    let _watchdog = Watchdog::start("linearizable::what_threads_see_can_be_put_into_one_order");
    let mut vfs = StrictVfs::new();
    let (moments, values) = (AtomicU64::new(1), AtomicU64::new(SWAPPED.end));
    let mut history = History::default();
    let (mut flushes, mut merges) = (0, 0);
    for n in 0..ROUNDS {
        let engine = match n {
            0 => LsmEngine::create(Path::new(DB), options(vfs.clone())).unwrap(),
            _ => LsmEngine::open(Path::new(DB), options(vfs.clone())).unwrap(),
        };
        if n == 0 {
            for key in SWAPPED {
                engine.put(&name(key), &key.to_le_bytes(), WriteOptions::new()).unwrap();
            }
            for key in 0..KEYS {
                let start = moments.fetch_add(1, Ordering::SeqCst);
                let seq = engine.put(&name(key), &key.to_le_bytes(), WriteOptions::new()).unwrap();
                let span = Span { start, end: moments.fetch_add(1, Ordering::SeqCst) };
                history.commits.push(Commit { span, seq, changes: vec![(key, Some(key))] });
            }
        }
        history.append(round(&engine, &moments, &values, n));
        let stats = engine.stats().unwrap();
        flushes += stats.flushes;
        merges += stats.compactions;
        assert_eq!((stats.poisoned, stats.background_error), (None, None));
        if n.is_multiple_of(2) {
            vfs = vfs.crash(CrashMode::All);
        } else {
            engine.close().unwrap();
        }
    }
    for key in (0..KEYS).chain(SWAPPED) {
        let ops: Vec<_> =
            history.ops.iter().filter(|(of, _, _)| *of == key).map(|(_, span, op)| (*span, *op)).collect();
        check_register(key, &ops).unwrap_or_else(|error| panic!("key {key}: {error}"));
    }
    check_snapshots(&history).unwrap_or_else(|error| panic!("{error}"));
    let swaps = history.ops.iter().filter(|(_, _, op)| matches!(op, Op::Swap(..))).count();
    let (ops, commits, seen) = (history.ops.len(), history.commits.len(), history.seen.len());
    println!(
        "linearizable: {ops} operations on single keys, {swaps} of them swaps, {commits} commits, {seen} snapshots, {flushes} flushes, \
         {merges} compactions, {ROUNDS} handles"
    );
    assert!(ops > 60_000 && commits >= (ROUNDS * WRITERS * WRITES) as usize && seen > 3_000);
    assert!(flushes > 500 && merges > 100 && swaps > 6_000);
}

#[test]
fn the_checks_find_what_cannot_be_put_into_one_order() {
    let at = |start, end, op| (Span { start, end }, op);
    let bad: [&[(Span, Op)]; 9] = [
        // A stale read; a read that goes back in time; a value from nowhere; a value before its write; a lost write.
        &[at(1, 2, Op::Write(7)), at(3, 4, Op::Read(0))],
        &[at(1, 9, Op::Write(7)), at(2, 3, Op::Read(7)), at(4, 5, Op::Read(0))],
        &[at(1, 2, Op::Read(7))],
        &[at(1, 2, Op::Read(7)), at(3, 4, Op::Write(7))],
        &[at(1, 2, Op::Write(7)), at(3, 4, Op::Write(8)), at(5, 6, Op::Read(7))],
        // A value replaced twice; one replaced after another had replaced it; one between the two of a swap; a value
        // read after its replacement was.
        &[at(1, 9, Op::Swap(0, 7)), at(1, 9, Op::Swap(0, 8))],
        &[at(1, 2, Op::Write(7)), at(3, 4, Op::Swap(0, 8))],
        &[at(1, 20, Op::Swap(0, 8)), at(4, 5, Op::Write(7)), at(6, 7, Op::Read(7)), at(8, 9, Op::Read(8))],
        &[at(1, 9, Op::Swap(0, 7)), at(2, 3, Op::Read(7)), at(4, 5, Op::Read(0))],
    ];
    for ops in bad {
        check_register(0, ops).unwrap_err();
    }
    check_register(0, &[at(1, 9, Op::Write(7)), at(2, 3, Op::Read(0)), at(4, 5, Op::Read(7))]).unwrap();
    check_register(0, &[at(1, 9, Op::Write(7)), at(2, 8, Op::Write(8)), at(10, 11, Op::Read(7))]).unwrap();
    let swaps =
        [at(1, 9, Op::Swap(8, 7)), at(1, 9, Op::Swap(0, 8)), at(2, 3, Op::Read(0)), at(4, 5, Op::Read(7))];
    check_register(0, &swaps).unwrap();

    let commit =
        |start, end, seq, key, value| Commit { span: Span { start, end }, seq, changes: vec![(key, value)] };
    let seen = |start, end, seq, values: &[(u64, u64)]| Seen {
        span: Span { start, end },
        seq,
        values: values.iter().copied().collect(),
    };
    let commits = vec![commit(1, 2, 1, 0, Some(5)), commit(3, 4, 2, 1, Some(6)), commit(5, 6, 3, 0, None)];
    let with = |seen| History { commits: commits.clone(), seen, ops: Vec::new() };
    check_snapshots(&with(vec![seen(3, 5, 2, &[(0, 5), (1, 6)]), seen(7, 8, 3, &[(1, 6)])])).unwrap();
    for bad in [
        vec![seen(4, 5, 2, &[(1, 6)])],         // shows only a part of a commit
        vec![seen(7, 8, 2, &[(0, 5), (1, 6)])], // lacks a commit that had returned
        vec![seen(1, 2, 2, &[(0, 5), (1, 6)])], // shows a commit that had not started
        vec![seen(3, 4, 2, &[(0, 5), (1, 6)]), seen(5, 6, 1, &[(0, 5)])], // goes back in time
    ] {
        check_snapshots(&with(bad)).unwrap_err();
    }
    let swapped = vec![commit(1, 2, 2, 0, Some(5)), commit(3, 4, 1, 1, Some(6))];
    check_snapshots(&History { commits: swapped, ..History::default() }).unwrap_err();
}
