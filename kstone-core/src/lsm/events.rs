//! What happens in the engine, and who is to hear of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backpressure::StallReason;
use crate::compaction::picker::Reason as CompactionReason;
use crate::quota::Exhausted;

/// Something that happened. As JSON an object whose `event` names it in snake case; times are nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The database was created or opened.
    #[non_exhaustive]
    Opened {
        /// It was made by this call.
        created: bool,
        /// It is new or was closed cleanly; otherwise it was recovered.
        clean: bool,
        /// Whether this handle can only read.
        read_only: bool,
        /// Records of the log that were replayed.
        replayed_records: u64,
        /// Bytes of keys and values in them.
        replayed_bytes: u64,
        /// How long opening took.
        #[serde(rename = "nanos", with = "nanos")]
        duration: Duration,
    },
    /// A memtable became a run.
    #[non_exhaustive]
    Flush {
        /// The stripe.
        stripe: usize,
        /// Records of the memtable, tombstones and superseded versions included.
        records: u64,
        /// Bytes of the SSTs written.
        bytes: u64,
        /// From its first step to its last.
        #[serde(rename = "nanos", with = "nanos")]
        duration: Duration,
    },
    /// Runs were merged into one.
    #[non_exhaustive]
    Compaction {
        /// The stripe.
        stripe: usize,
        /// The rule that asked for it, in snake case: `run_count`, `tombstones`, `requested`.
        reason: CompactionReason,
        /// Runs merged.
        runs: usize,
        /// SSTs merged.
        ssts: usize,
        /// Bytes of the SSTs read.
        bytes_in: u64,
        /// Bytes of the SSTs written.
        bytes_out: u64,
        /// Tombstones that were no longer needed.
        tombstones_dropped: u64,
        /// From its first step to its last.
        #[serde(rename = "nanos", with = "nanos")]
        duration: Duration,
    },
    /// SSTs were made durable, and the log before them given back.
    #[non_exhaustive]
    Checkpoint {
        /// SSTs made durable.
        ssts: usize,
        /// Bytes of the log's files given back.
        log_bytes_freed: u64,
        /// From its first step to its last.
        #[serde(rename = "nanos", with = "nanos")]
        duration: Duration,
    },
    /// Calls were held up: at most one event per second and reason, which sums up.
    #[non_exhaustive]
    Stall {
        /// What they waited for.
        reason: StallReason,
        /// How many writes.
        writes: u64,
        /// For how long in all.
        #[serde(rename = "nanos", with = "nanos")]
        duration: Duration,
    },
    /// There was no space: a write was refused or background work failed. At most one event per second.
    #[non_exhaustive]
    DiskFull {
        /// What has run out; `None` in events of older versions, which did not say.
        #[serde(default)]
        exhausted: Option<Exhausted>,
        /// The same in words, with its figures.
        #[serde(default)]
        detail: String,
    },
    /// Background work failed, and is tried again later.
    #[non_exhaustive]
    BackgroundError {
        /// Which: `flush`, `compaction`, `checkpoint`, `log_sync`, …
        job: String,
        /// Why.
        error: String,
    },
    /// This handle accepts no more writes.
    #[non_exhaustive]
    Poisoned {
        /// The first failure.
        cause: String,
    },
    /// Settings were changed on the open database.
    #[non_exhaustive]
    ConfigChanged {
        /// What is different now.
        changes: Vec<SettingChange>,
    },
    /// The handle was closed.
    #[non_exhaustive]
    Closed {
        /// Everything is durable, and the next open has nothing to recover.
        clean: bool,
    },
}

impl Event {
    /// All kinds, by the names that they have in JSON.
    pub const KINDS: [&str; 10] = [
        "opened",
        "flush",
        "compaction",
        "checkpoint",
        "stall",
        "disk_full",
        "background_error",
        "poisoned",
        "config_changed",
        "closed",
    ];
}

/// One setting's change, as numbers: times in milliseconds (check interval: seconds), sizes in bytes, `false` as 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SettingChange {
    /// Its name.
    pub name: String,
    /// `None`: the default held.
    pub old: Option<u64>,
    /// `None`: the default holds.
    pub new: Option<u64>,
}

mod nanos {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.as_nanos() as u64)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_nanos)
    }
}

/// Is told of everything that happens.
///
/// It is called from one thread at a time, in order, with no lock held: it may call the engine, also to flush or to
/// close it. It should be quick: what it holds up is later events and, on a worker, background work. A panic in it is
/// caught and changes nothing; it is called again for the next event.
///
/// It is usually made before the engine: give it the engine afterwards, through a `Weak` pointer, or dropping
/// the engine would never close it.
pub trait EventListener: Send + Sync + std::fmt::Debug {
    /// Something happened.
    fn on_event(&self, event: &Event) {
        // Named, and not `_event`, for the documentation.
        let _ = event;
    }
}

/// An event, and when it was.
#[derive(Clone, Debug)]
pub(crate) struct Stamped {
    pub(crate) unix_ms: u64,
    pub(crate) event: Event,
}
