//! Events of the engine, and the trait of their listeners.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backpressure::StallReason;
use crate::compaction::picker::Reason as CompactionReason;
use crate::quota::Exhausted;

/// An event. In JSON, an object whose `event` field names it in snake case; durations are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The database was created or opened.
    #[non_exhaustive]
    Opened {
        /// Whether this call created it.
        created: bool,
        /// Whether it is new or was closed cleanly; otherwise it was recovered.
        clean: bool,
        /// Whether this handle is read-only.
        read_only: bool,
        /// Log records replayed.
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
        /// Records of the memtable, including tombstones and shadowed versions.
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
        /// The rule that triggered it, in snake case: `run_count`, `tombstones`, `requested`.
        reason: CompactionReason,
        /// Runs merged.
        runs: usize,
        /// SSTs merged.
        ssts: usize,
        /// Bytes of the SSTs read.
        bytes_in: u64,
        /// Bytes of the SSTs written.
        bytes_out: u64,
        /// Tombstones dropped.
        tombstones_dropped: u64,
        /// From its first step to its last.
        #[serde(rename = "nanos", with = "nanos")]
        duration: Duration,
    },
    /// SSTs were made durable, and the log before them was retired.
    #[non_exhaustive]
    Checkpoint {
        /// SSTs made durable.
        ssts: usize,
        /// Bytes of retired log segments.
        log_bytes_freed: u64,
        /// From its first step to its last.
        #[serde(rename = "nanos", with = "nanos")]
        duration: Duration,
    },
    /// Calls were held up. At most one event per second and reason, with the totals.
    #[non_exhaustive]
    Stall {
        /// What they waited for.
        reason: StallReason,
        /// The number of writes.
        writes: u64,
        /// The total time.
        #[serde(rename = "nanos", with = "nanos")]
        duration: Duration,
    },
    /// There was no space: a write was rejected or background work failed. At most one event per second.
    #[non_exhaustive]
    DiskFull {
        /// The resource that has run out; `None` in events of older versions, which did not record it.
        #[serde(default)]
        exhausted: Option<Exhausted>,
        /// A description of it, with figures.
        #[serde(default)]
        detail: String,
    },
    /// Background work failed, and will be retried.
    #[non_exhaustive]
    BackgroundError {
        /// The job: `flush`, `compaction`, `checkpoint`, `log_sync`, …
        job: String,
        /// The error.
        error: String,
    },
    /// This handle no longer accepts writes.
    #[non_exhaustive]
    Poisoned {
        /// The first failure.
        cause: String,
    },
    /// Settings were changed on the open database.
    #[non_exhaustive]
    ConfigChanged {
        /// The settings that changed.
        changes: Vec<SettingChange>,
    },
    /// The handle was closed.
    #[non_exhaustive]
    Closed {
        /// Whether everything is durable, so that the next open has nothing to recover.
        clean: bool,
    },
}

impl Event {
    /// The names of all kinds of events in JSON.
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

/// A change of one setting, as numbers: times in milliseconds (check interval: seconds), sizes in bytes, `false` as 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SettingChange {
    /// Its name.
    pub name: String,
    /// `None`: the default was in force.
    pub old: Option<u64>,
    /// `None`: the default is in force.
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

/// Receives every event.
///
/// Called from one thread at a time, in order, with no lock held: it may call the engine, and even flush or close it.
/// It should be quick, because it holds up later events and, on a worker, background work. If it panics, the panic is
/// caught and has no effect; it is called again for the next event.
///
/// A listener is usually created before the engine. To give it the engine afterwards, use a `Weak` pointer; otherwise
/// dropping the engine would never close it.
pub trait EventListener: Send + Sync + std::fmt::Debug {
    /// Called for each event.
    fn on_event(&self, event: &Event) {
        // Named, and not `_event`, for the documentation.
        let _ = event;
    }
}

/// An event and its time.
#[derive(Clone, Debug)]
pub(crate) struct Stamped {
    pub(crate) unix_ms: u64,
    pub(crate) event: Event,
}
