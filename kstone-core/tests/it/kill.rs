//! kill -9 of a real process during a flush-heavy load on a real file system, repeatedly on the same database. No
//! acknowledged write may be lost, at either durability, and the database always opens.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kstone_core::lsm::{EngineOptions, LsmEngine, WriteBatch, WriteOptions};
use kstone_core::torture::Watchdog;
use kstone_core::{CompactionConfig, DatabaseConfig, Durability, Key};

use crate::model::Rng;

/// Default number of rounds; `KSTONE_ROUNDS` overrides it.
const ROUNDS: u64 = 100;
const KEYS: u64 = 400;
const CHILD: &str = "KSTONE_KILL_CHILD";

fn options(durability: Durability) -> EngineOptions {
    let mut options = EngineOptions::disk();
    options.durability = durability;
    options.config = Some(
        DatabaseConfig::new()
            .with_stripes(4)
            .with_max_memtable_records(20)
            .with_wal_segment_size(16 << 10)
            .with_max_wal_size_bytes(1 << 20)
            .with_max_item_bytes(64 << 10)
            .with_checkpoint_interval(Duration::from_millis(5))
            .with_sync_interval(Duration::from_millis(5)),
    );
    options.compaction = Some(CompactionConfig::new().with_sst_threshold(3));
    options
}

fn key(n: u64) -> Key<'static> {
    Key::with_sort(format!("p{}", n % 7).into_bytes(), format!("{n:04}").into_bytes())
}

/// A second key written with each key, in another partition: a batch is applied as a whole or not at all.
fn twin(n: u64) -> Key<'static> {
    Key::new(format!("twin{n}").into_bytes())
}

fn number(value: Option<impl AsRef<[u8]>>) -> u64 {
    value.map_or(0, |value| u64::from_le_bytes(value.as_ref()[..8].try_into().unwrap()))
}

/// The process to be killed: writes increasing numbers, and prints each one once it is acknowledged.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let Ok(spec) = std::env::var(CHILD) else { return };
    let (start, path) = spec.split_once(' ').unwrap();
    let start: u64 = start.parse().unwrap();
    let durability = if start.is_multiple_of(2) { Durability::Buffered } else { Durability::Sync };
    let engine = LsmEngine::open(Path::new(path), options(durability)).unwrap();
    let mut out = std::io::stdout().lock();
    for n in start.. {
        let mut value = n.to_le_bytes().to_vec();
        value.resize(8 + (n % 300) as usize, n as u8);
        let mut batch = WriteBatch::new();
        batch.put(key(n % KEYS), value.clone()).put(twin(n % KEYS), value);
        engine.write(&batch, WriteOptions::new()).unwrap();
        writeln!(out, "ack {n}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn nothing_acknowledged_is_lost() {
    let _watchdog = Watchdog::start("kill::nothing_acknowledged_is_lost");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kill.keystone");
    LsmEngine::create(&path, options(Durability::Buffered)).unwrap().close().unwrap();
    let rounds = std::env::var("KSTONE_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let mut rng = Rng(1);
    let mut acknowledged = BTreeMap::new();
    let (mut next, mut writes) = (1, 0);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["kill::child", "--exact", "--ignored", "--nocapture"])
            .env(CHILD, format!("{next} {}", path.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let acks = 50 + rng.below(600);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last = next;
        for _ in 0..acks {
            let line = lines
                .by_ref()
                .map(|line| line.unwrap())
                .find(|line| line.contains("ack "))
                .expect("the writer died");
            last = line.rsplit(' ').next().unwrap().parse().unwrap();
            acknowledged.insert(last % KEYS, last);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Acknowledgements printed before it died but not yet read count as well.
        for line in lines.map_while(Result::ok).filter(|line| line.contains("ack ")) {
            if let Ok(n) = line.rsplit(' ').next().unwrap().parse() {
                last = n;
                acknowledged.insert(last % KEYS, last);
            }
        }
        writes += last - next + 1;

        let engine = LsmEngine::open(&path, options(Durability::Buffered))
            .unwrap_or_else(|e| panic!("{e}, round {round}"));
        let mut newest = last;
        for n in 0..KEYS {
            let got = number(engine.get(&key(n)).unwrap());
            let least = acknowledged.get(&n).copied().unwrap_or(0);
            assert!(got >= least, "key {n} is at {got}, {least} was acknowledged, round {round}");
            assert_eq!(got, number(engine.get(&twin(n)).unwrap()), "half a batch, key {n}, round {round}");
            newest = newest.max(got);
        }
        assert!(newest <= last + 1, "{newest} was never written, round {round}");
        acknowledged.insert(newest % KEYS, newest);
        if rng.below(2) == 0 {
            engine.close().unwrap();
        }
        // Odd starts write with `Sync`, even ones with `Buffered`.
        next = newest + 1;
        next += (next + round) % 2;
    }
    println!("kill -9: {rounds} rounds, {writes} acknowledged writes, none lost");
}
