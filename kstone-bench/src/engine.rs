//! The engines to be measured, behind one interface of keys and bytes.
//!
//! One file per engine. `kstone` is KeystoneDB's engine and `kstone-items` its items; `noop` does nothing, to measure the
//! harness; peers are behind features that are off by default, or in the workspace `kstone-bench/peers/` if they cannot be built with this
//! crate's dependencies. All get the same keys, the same values and the same durability requirements.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::data::BenchKey;

#[doc(hidden)]
pub mod contract;
#[cfg(feature = "peer-fjall")]
mod fjall;
#[cfg(feature = "peer-heed")]
mod heed;
mod kstone;
mod noop;
#[cfg(feature = "peer-redb")]
mod redb;
#[cfg(feature = "peer-rocksdb")]
mod rocksdb;
#[cfg(feature = "peer-sqlite")]
mod sqlite;

/// What a write survives once it has returned. Each engine's file states how it implements this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The death of the process.
    #[default]
    Buffered,
    /// A power cut as well.
    Sync,
}

/// An engine and its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineSpec {
    /// The name: `kstone`, `kstone-items`, `noop`, or a peer's.
    pub name: String,
    /// False: a peer's own defaults. True: one sensible configuration for a larger machine, stated in the peer's file.
    /// KeystoneDB uses the settings below.
    #[serde(default)]
    pub tuned: bool,
    /// For KeystoneDB: the settings that differ from the defaults, `name=value,...` as in docs/settings-and-counters.md.
    #[serde(default)]
    pub settings: String,
}

impl EngineSpec {
    /// The engine with its defaults.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), tuned: false, settings: String::new() }
    }

    /// Parses a label: `name`, `name-tuned` for a peer's tuned configuration, or `name settings`.
    pub fn parse(label: &str) -> Self {
        if let Some((name, settings)) = label.split_once(' ') {
            return Self { settings: settings.to_owned(), ..Self::new(name) };
        }
        match label.strip_suffix("-tuned") {
            Some(name) => Self { tuned: true, ..Self::new(name) },
            None => Self::new(label),
        }
    }

    /// The engine's name. `kstone#2` is kstone, too: it measures the same engine twice in one run, to show the effect
    /// of chance.
    pub fn engine(&self) -> &str {
        self.name.split_once('#').map_or(self.name.as_str(), |(engine, _)| engine)
    }

    /// Whether it is KeystoneDB, whose settings can be chosen.
    pub fn is_ours(&self) -> bool {
        matches!(self.engine(), "kstone" | "kstone-items")
    }

    pub fn label(&self) -> String {
        match (self.tuned, self.settings.is_empty()) {
            (true, _) => format!("{}-tuned", self.name),
            (false, true) => self.name.clone(),
            (false, false) => format!("{} {}", self.name, self.settings),
        }
    }
}

pub trait Engine: Send + Sync {
    /// Opens a session for one thread, with whatever state that thread needs.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// Waits until no background work is running, as far as the engine reports it.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Rewrites everything into its smallest form, if the engine can.
    fn compact(&self) -> Result<()> {
        self.settle()
    }

    /// The engine's own counters, by name; totals since it was opened. Names in [`counter`] mean the same for all
    /// engines.
    fn counters(&self) -> Result<Counters> {
        Ok(Counters::new())
    }

    /// Flushes and compactions that have ended; empty for engines that do not report them.
    fn marks(&self) -> Vec<Mark> {
        Vec::new()
    }

    /// Closes the database in order.
    fn close(self: Box<Self>) -> Result<()> {
        self.settle()
    }
}

/// The engine's own counters.
pub type Counters = BTreeMap<String, f64>;

/// Names of counters that mean the same for all engines that have them.
pub mod counter {
    /// Memtables written out.
    pub const FLUSHES: &str = "flushes";
    pub const COMPACTIONS: &str = "compactions";
    /// Bytes of keys and values that callers wrote.
    pub const USER_BYTES_WRITTEN: &str = "user_bytes_written";
    pub const FLUSH_BYTES: &str = "flush_bytes";
    pub const COMPACTION_BYTES: &str = "compaction_bytes";
    pub const LOG_BYTES: &str = "log_bytes";
    /// The number of times a writer was held up.
    pub const STALLS: &str = "stalls";
    /// Total time of those waits, in nanoseconds.
    pub const STALL_NANOS: &str = "stall_nanos";
    /// The longest of them, in nanoseconds; not a total.
    pub const LONGEST_STALL_NANOS: &str = "longest_stall_nanos";
    pub const GETS: &str = "gets";
    pub const RUNS_LOOKED_AT: &str = "runs_looked_at";
    /// Filter tests of keys that are not in the run.
    pub const FILTER_NEGATIVES: &str = "filter_negatives";
    /// The number of those that passed.
    pub const FILTER_FALSE_POSITIVES: &str = "filter_false_positives";
    pub const FILTER_BYTES: &str = "filter_memory_bytes";
    /// Bytes of memory for memtables; not a total.
    pub const MEMTABLE_BYTES: &str = "memtable_bytes";
    /// Bytes of log that would have to be replayed after a crash now; not a total.
    pub const REPLAY_BYTES: &str = "replay_bytes";
}

/// A piece of background work that ended, for time lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When it ended, by the clock of `std::time::Instant`.
    pub at: std::time::Instant,
    pub kind: MarkKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MarkKind {
    /// A memtable was written out.
    Flush,
    /// Runs were merged.
    Compaction,
}

/// Keys before and after all others. LMDB has no empty keys.
const BEFORE_ALL: [u8; 1] = [0];
const PAST_ALL: [u8; 17] = [0xff; 17];

/// The access of one thread. Durability is that of the engine.
pub trait Session {
    /// Sets a key.
    fn put(&mut self, key: &BenchKey, value: &[u8]) -> Result<()>;

    /// Deletes a key.
    fn delete(&mut self, key: &BenchKey) -> Result<()>;

    /// Reads a key: `visit` sees the value, in place if the engine can do that. Returns whether there is one.
    fn get(&mut self, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Reads several keys at one point in time; returns the number found.
    fn multi_get(&mut self, keys: &[BenchKey], visit: &mut dyn FnMut(&[u8])) -> Result<u64>;

    /// Reads up to `limit` items of the partition of `from`, in order, starting at that key; returns the number found.
    /// For keys without a sort key, at most one item.
    fn query(&mut self, from: &BenchKey, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        // After all keys of the partition: no sort key starts with 0xff.
        let mut end = PAST_ALL;
        end[..from.partition().len()].copy_from_slice(from.partition());
        self.range(from.flat(), &end, limit, visit)
    }

    /// Reads a whole partition in order; `first` is its first key. Returns the number found.
    fn partition(&mut self, first: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        self.query(first, u32::MAX.into(), visit)
    }

    /// Reads everything in any order, up to `limit` items; returns the number found.
    fn scan_unordered(&mut self, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        self.scan(limit, visit)
    }

    /// Reads everything in key order, up to `limit` items; returns the number found.
    fn scan(&mut self, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        self.range(&BEFORE_ALL, &PAST_ALL, limit, visit)
    }

    /// For engines with a single key order, which need no query or scan of their own: reads up to `limit` items from
    /// one key to another, exclusive.
    fn range(&mut self, _: &[u8], _: &[u8], _: u64, _: &mut dyn FnMut(&[u8])) -> Result<u64> {
        bail!("this engine has no ranges of keys")
    }
}

#[doc(hidden)]
pub type Open = fn(&EngineSpec, &Path, Durability) -> Result<Box<dyn Engine>>;

/// The engines of this crate.
const ENGINES: &[(&str, Open)] = &[
    ("kstone", |spec, directory, durability| kstone::open(spec, directory, durability, false)),
    ("kstone-items", |spec, directory, durability| kstone::open(spec, directory, durability, true)),
    ("noop", noop::open),
    #[cfg(feature = "peer-fjall")]
    ("fjall", fjall::open),
    #[cfg(feature = "peer-redb")]
    ("redb", redb::open),
    #[cfg(feature = "peer-heed")]
    ("heed", heed::open),
    #[cfg(feature = "peer-sqlite")]
    ("sqlite", sqlite::open),
    #[cfg(feature = "peer-rocksdb")]
    ("rocksdb", rocksdb::open),
];

/// Additional engines of a program.
static MORE: OnceLock<&[(&str, Open)]> = OnceLock::new();

/// Engines that only exist in the workspace `kstone-bench/peers/`.
const ELSEWHERE: [&str; 2] = ["dynoxide", "keystonedb-0.1"];

/// Adds engines to those of this crate, for the whole process. Only the first call has an effect.
#[doc(hidden)]
pub fn add(more: &'static [(&'static str, Open)]) {
    MORE.get_or_init(|| more);
}

fn engines() -> impl Iterator<Item = &'static (&'static str, Open)> {
    ENGINES.iter().chain(MORE.get().copied().unwrap_or_default())
}

/// Opens a database in `directory`, which exists and is empty, or contains one created by the same engine.
pub fn open(spec: &EngineSpec, directory: &Path, durability: Durability) -> Result<Box<dyn Engine>> {
    let name = spec.engine();
    let Some((_, open)) = engines().find(|(known, _)| *known == name) else {
        let elsewhere = if ELSEWHERE.contains(&name) {
            "this one is in a workspace of its own: cargo run --release --manifest-path kstone-bench/peers/Cargo.toml"
        } else {
            "peers are features of kstone-bench, such as peer-fjall"
        };
        bail!("{name}: not in this build, which has {}; {elsewhere}", names().join(", "));
    };
    ensure!(spec.is_ours() || spec.settings.is_empty(), "{name}: settings are for kstone only");
    ensure!(
        !spec.tuned || !(spec.is_ours() || name == "noop"),
        "{name}-tuned: only peers have a tuned setting; use --set and --preset for kstone settings"
    );
    open(spec, directory, durability)
}

pub fn names() -> Vec<&'static str> {
    engines().map(|(name, _)| *name).collect()
}

/// Counts the entries that `see` accepts among the first `limit`.
fn counted<T>(
    entries: impl Iterator<Item = T>,
    limit: u64,
    mut see: impl FnMut(T) -> Result<bool>,
) -> Result<u64> {
    let mut found = 0;
    for entry in entries.take(limit as usize) {
        found += u64::from(see(entry)?);
    }
    Ok(found)
}

/// Waits until `done` returns the same total twice in a row, a tenth of a second apart; `None` while work goes on.
#[expect(clippy::disallowed_methods, reason = "other engines cannot be waited for otherwise")]
pub(crate) fn at_rest(mut done: impl FnMut() -> Result<Option<u64>>) -> Result<()> {
    let mut before = None;
    loop {
        let now = done()?;
        if now.is_some() && now == before {
            return Ok(());
        }
        before = now;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests;
