//! The engines that are measured, behind one interface: keys and bytes.
//!
//! One file each. `kstone` is ours and `noop` does nothing, to measure the harness; peers are behind features of their
//! own and not built by default, or in the workspace `kstone-bench/peers/` where they cannot be built with this crate's
//! dependencies. All get the same keys, the same values and the same promise of durability.

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

/// What a write survives once it has returned. Each engine's file states how it is implemented there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The death of the process.
    #[default]
    Buffered,
    /// A power cut as well.
    Sync,
}

/// Which engine, and how it is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineSpec {
    /// Its name: `kstone`, `noop`, or a peer's.
    pub name: String,
    /// A peer's own defaults, or one sensible setting for a larger machine, which its file states. For `kstone` the
    /// settings below say it.
    #[serde(default)]
    pub tuned: bool,
    /// Of `kstone`: settings that are not the default, `name=value,...` as in docs/settings-and-counters.md.
    #[serde(default)]
    pub settings: String,
}

impl EngineSpec {
    /// That engine with its defaults.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), tuned: false, settings: String::new() }
    }

    /// `name`, or `name-tuned` for a peer's tuned setting.
    pub fn parse(text: &str) -> Self {
        match text.strip_suffix("-tuned") {
            Some(name) => Self { tuned: true, ..Self::new(name) },
            None => Self::new(text),
        }
    }

    /// The engine's name. `kstone#2` is kstone too: to measure the same twice in one run, and see what chance does.
    pub fn engine(&self) -> &str {
        self.name.split_once('#').map_or(self.name.as_str(), |(engine, _)| engine)
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
    /// A view of it for one thread, with whatever that thread needs for itself.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// Returns when nothing is going on in the background any more, as far as the engine lets it be known.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Rewrites everything into its smallest form, where the engine can.
    fn compact(&self) -> Result<()> {
        self.settle()
    }

    /// What the engine counts itself, by name; totals since it was opened. Names in [`counter`] mean the same for all.
    fn counters(&self) -> Result<Counters> {
        Ok(Counters::new())
    }

    /// Flushes and compactions that have ended; none for engines that do not report them.
    fn marks(&self) -> Vec<Mark> {
        Vec::new()
    }

    /// Closes it in order.
    fn close(self: Box<Self>) -> Result<()> {
        self.settle()
    }
}

/// What an engine counts itself.
pub type Counters = BTreeMap<String, f64>;

/// Names of counters that mean the same for all engines which have them.
pub mod counter {
    /// Memtables written out.
    pub const FLUSHES: &str = "flushes";
    pub const COMPACTIONS: &str = "compactions";
    /// Bytes of keys and values that callers wrote.
    pub const USER_BYTES_WRITTEN: &str = "user_bytes_written";
    pub const FLUSH_BYTES: &str = "flush_bytes";
    pub const COMPACTION_BYTES: &str = "compaction_bytes";
    pub const LOG_BYTES: &str = "log_bytes";
    /// Times a writer was held up.
    pub const STALLS: &str = "stalls";
    /// For how long in all, in nanoseconds.
    pub const STALL_NANOS: &str = "stall_nanos";
    /// The longest, in nanoseconds; not a total.
    pub const LONGEST_STALL_NANOS: &str = "longest_stall_nanos";
    pub const GETS: &str = "gets";
    pub const RUNS_LOOKED_AT: &str = "runs_looked_at";
    /// Filter tests of keys that their run does not have.
    pub const FILTER_NEGATIVES: &str = "filter_negatives";
    /// Those of them that passed.
    pub const FILTER_FALSE_POSITIVES: &str = "filter_false_positives";
    pub const FILTER_BYTES: &str = "filter_memory_bytes";
    /// Bytes of memory for memtables; not a total.
    pub const MEMTABLE_BYTES: &str = "memtable_bytes";
    /// Bytes of log that a crash now would have to replay; not a total.
    pub const REPLAY_BYTES: &str = "replay_bytes";
}

/// Something in the background that ended, for time lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When, as the clock of `std::time::Instant` has it.
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

/// Before and behind every key. LMDB has no empty keys.
const BEFORE_ALL: [u8; 1] = [0];
const PAST_ALL: [u8; 17] = [0xff; 17];

/// One thread's access. Durability is that of the engine.
pub trait Session {
    /// Sets a key.
    fn put(&mut self, key: &BenchKey, value: &[u8]) -> Result<()>;

    /// Removes a key.
    fn delete(&mut self, key: &BenchKey) -> Result<()>;

    /// Reads a key: `visit` sees the value, in place where the engine can. Whether there is one.
    fn get(&mut self, key: &BenchKey, visit: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Reads several keys at one moment; how many there were.
    fn multi_get(&mut self, keys: &[BenchKey], visit: &mut dyn FnMut(&[u8])) -> Result<u64>;

    /// Reads up to `limit` items of the partition of `from`, in order, from that key on; how many there were. For keys
    /// without a sort key at most that one item.
    fn query(&mut self, from: &BenchKey, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        // Past all keys of the partition, whose sort keys are hexadecimal digits.
        let mut end = PAST_ALL;
        end[..from.partition().len()].copy_from_slice(from.partition());
        self.range(from.flat(), &end, limit, visit)
    }

    /// Reads everything in the order of the keys; how many items there were. Stops after `limit`.
    fn scan(&mut self, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        self.range(&BEFORE_ALL, &PAST_ALL, limit, visit)
    }

    /// For engines with one order of all keys, which need neither a query nor a scan of their own: reads up to `limit`
    /// items from one key until before another.
    fn range(&mut self, _: &[u8], _: &[u8], _: u64, _: &mut dyn FnMut(&[u8])) -> Result<u64> {
        bail!("this engine has no ranges of keys")
    }
}

#[doc(hidden)]
pub type Open = fn(&EngineSpec, &Path, Durability) -> Result<Box<dyn Engine>>;

/// The engines of this crate.
const ENGINES: &[(&str, Open)] = &[
    ("kstone", kstone::open),
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

/// Engines that only the workspace `kstone-bench/peers/` has.
const ELSEWHERE: [&str; 2] = ["dynoxide", "keystonedb-0.1"];

/// Adds engines to those of this crate, for the whole process. Only the first call counts.
#[doc(hidden)]
pub fn add(more: &'static [(&'static str, Open)]) {
    MORE.get_or_init(|| more);
}

fn engines() -> impl Iterator<Item = &'static (&'static str, Open)> {
    ENGINES.iter().chain(MORE.get().copied().unwrap_or_default())
}

/// Opens a database in `directory`, which exists and is empty, or holds one that the same engine has made.
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
    ensure!(name == "kstone" || spec.settings.is_empty(), "{name}: settings are for kstone only");
    ensure!(
        !spec.tuned || !matches!(name, "kstone" | "noop"),
        "{name}-tuned: only peers have a tuned setting; use --set and --preset for kstone settings"
    );
    open(spec, directory, durability)
}

pub fn names() -> Vec<&'static str> {
    engines().map(|(name, _)| *name).collect()
}

/// Counts the entries that `see` finds there, among the first `limit`.
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
fn at_rest(mut done: impl FnMut() -> Result<Option<u64>>) -> Result<()> {
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
