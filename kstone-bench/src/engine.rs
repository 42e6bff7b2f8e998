//! The engines that are measured, behind one interface: keys and bytes.
//!
//! One file each. `kstone` is ours and `noop` does nothing, to measure the harness; peers are behind features of their
//! own and not built by default. All get the same keys, the same values and the same promise of durability.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::data::BenchKey;

mod kstone;
mod noop;

/// What a write has survived when it returns. Engines name it differently; each file says what it maps it to.
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

    /// How results name it.
    pub fn label(&self) -> String {
        match (self.tuned, self.settings.is_empty()) {
            (true, _) => format!("{}-tuned", self.name),
            (false, true) => self.name.clone(),
            (false, false) => format!("{} {}", self.name, self.settings),
        }
    }
}

/// An open database.
pub trait Engine: Send + Sync {
    /// A view of it for one thread, with whatever that thread needs for itself.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// Returns when nothing is going on in the background any more, as far as the engine lets it be known.
    fn settle(&self) -> Result<()>;

    /// Rewrites everything into its smallest form.
    fn compact(&self) -> Result<()>;

    /// What the engine counts itself, by name; totals since it was opened. Names in [`counter`] mean the same for all.
    fn counters(&self) -> Result<Counters>;

    /// Events of flushes and compactions as they happen; none for engines that do not tell.
    fn marks(&self) -> Vec<Mark> {
        Vec::new()
    }

    /// Closes it in order.
    fn close(self: Box<Self>) -> Result<()>;
}

/// What an engine counts itself.
pub type Counters = BTreeMap<String, f64>;

/// Names of counters that mean the same for all engines which have them.
pub mod counter {
    /// Memtables written out.
    pub const FLUSHES: &str = "flushes";
    /// Merges done.
    pub const COMPACTIONS: &str = "compactions";
    /// Bytes of keys and values that callers wrote.
    pub const USER_BYTES_WRITTEN: &str = "user_bytes_written";
    /// Bytes that flushes wrote.
    pub const FLUSH_BYTES: &str = "flush_bytes";
    /// Bytes that merges wrote.
    pub const COMPACTION_BYTES: &str = "compaction_bytes";
    /// Bytes that went to the log.
    pub const LOG_BYTES: &str = "log_bytes";
    /// Times a writer was held up.
    pub const STALLS: &str = "stalls";
    /// For how long in all, in nanoseconds.
    pub const STALL_NANOS: &str = "stall_nanos";
    /// The longest, in nanoseconds; not a total.
    pub const LONGEST_STALL_NANOS: &str = "longest_stall_nanos";
    /// Gets.
    pub const GETS: &str = "gets";
    /// Runs they looked at.
    pub const RUNS_LOOKED_AT: &str = "runs_looked_at";
    /// Filters asked about keys that their run does not have.
    pub const FILTER_NEGATIVES: &str = "filter_negatives";
    /// Of those, the ones that said it might.
    pub const FILTER_FALSE_POSITIVES: &str = "filter_false_positives";
    /// Bytes of memory for filters.
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
    /// What.
    pub kind: MarkKind,
}

/// What ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MarkKind {
    /// A memtable was written out.
    Flush,
    /// Runs were merged.
    Compaction,
}

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
    fn query(&mut self, from: &BenchKey, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64>;

    /// Reads everything in the order of the keys; how many items there were. Stops after `limit`.
    fn scan(&mut self, limit: u64, visit: &mut dyn FnMut(&[u8])) -> Result<u64>;
}

/// Opens a database in `directory`, which exists and is empty, or holds one that the same engine has made.
///
/// # Errors
/// There is no such engine in this build, or it fails.
pub fn open(spec: &EngineSpec, directory: &Path, durability: Durability) -> Result<Box<dyn Engine>> {
    match spec.name.as_str() {
        "kstone" => Ok(Box::new(kstone::Kstone::open(spec, directory, durability)?)),
        "noop" => Ok(Box::new(noop::Noop::default())),
        other => bail!("{other}: not in this build, which has {}", names().join(", ")),
    }
}

/// The engines of this build.
pub fn names() -> Vec<&'static str> {
    vec!["kstone", "noop"]
}
