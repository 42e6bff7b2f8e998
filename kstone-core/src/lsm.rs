//! The engine: a key-value store over byte keys, with one file per operation.
//!
//! ```text
//! PUT      write       log append -> stripe.insert -> seal if full -> publish
//! COND.    conditional read -> decide -> locks -> decide again on what is newer -> as a put
//! GET      read        memtable -> sealed -> runs, newest first
//! SCAN     scan        the same sources, merged
//! FLUSH    flush       sealed memtable -> SSTs -> stripe.install_flush
//! COMPACT  compact     picker -> merge -> SSTs -> stripe.install_compaction
//! CHECKPOINT           sync log, SSTs, names -> manifest edit -> retire the log
//! BACKUP   backup      sync log -> pin files -> copy log, link SSTs -> a manifest for them
//! RECOVER  recover     lock -> manifest -> log's end -> new manifest -> orphans -> replay
//! ```
//!
//! Lock order, outermost first: gate -> stripes (ascending) -> log -> commits in flight. The scheduler's queue may be
//! acquired while a stripe is held; while the queue is held, only leaf locks may be acquired (snapshots, the log's
//! statistics, the event queue). `obsolete` -> `manifest` form an order of their own: neither is acquired while a
//! stripe is held, and under them only leaf locks are acquired (when settings are put in force: those of the log's
//! space, of the files counted against the disk limit, and of the events). No SST, manifest or sync I/O happens while a
//! stripe is locked. Listeners are called with none of these locks held.
//!
//! The scheduler's queue never waits for the log lock, whose holder performs writes. `retiring` and `obsolete` (in
//! `removal.rs`) are held while looking for files to remove; `retiring` is also held while removing them. The queue may
//! be acquired under `retiring`, to record a failure.
//!
//! Atomics are `Relaxed` where they only count, or where a lock acquired later synchronizes with every thread that
//! depends on the value; every other ordering is justified at its use. There are no `Arc` cycles: workers, snapshots
//! and iterators hold `Shared`, which holds none of them, and SSTs hold the resources they are read with, which hold no
//! SST. Dropping the last handle to the engine closes it. If a listener on a worker thread drops it, that worker does
//! not wait for itself. Whatever outlives the engine finds it closed.

use std::path::Path;
use std::sync::Arc;

use crate::compaction::picker::Ask;
use crate::config::{CompactionConfig, DatabaseConfig, Durability};
use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::vfs::Vfs;

mod assemble;
mod background;
mod backup;
mod batch;
mod call;
mod checkpoint;
mod claim;
mod close;
mod commit;
mod compact;
mod compaction_stats;
mod conditional;
mod counts;
mod create;
mod delete_range;
mod destroy;
mod disk_usage;
mod event_log;
mod event_queue;
mod events;
mod explain;
mod flush;
mod held;
mod idle;
mod io;
mod job;
mod lifecycle;
mod lock;
mod observe;
mod open;
mod options;
mod pending;
mod pins;
mod quota;
mod read;
mod read_only;
mod reading;
mod recover;
mod removal;
mod remove;
mod replay_rate;
mod run_writer;
mod scan;
mod set_config;
mod settings;
mod sizes;
mod space;
mod stall;
mod state;
mod stats;
mod stats_file;
mod stripes;
mod trace;
mod tuning;
pub(crate) mod validate;
mod versions;
mod workload;
mod write;

use call::Call;
use state::Shared;

pub use crate::backpressure::StallReason;
pub use crate::key::after::After;
pub use crate::latency::{Latencies, LatencyBuckets, LatencySummary};
pub use crate::quota::Exhausted;
pub use crate::sst::{BlockCacheStats, FilterStats};
pub use crate::types::Direction;
pub use backup::{BackupOptions, BackupProgress, BackupReport};
pub(crate) use backup::{Destination, check_outside};
pub use batch::WriteBatch;
pub(crate) use claim::absolute;
pub use compaction_stats::{CompactionReason, CompactionReasonStats, CompactionStats};
pub use conditional::{Changes, ReadSet};
pub use delete_range::DeletedRange;
pub use destroy::Destroyed;
pub use disk_usage::DiskUsage;
pub use events::{Event, EventListener, SettingChange};
pub use explain::{
    BlockRead, Expected, Explain, ExplainQuery, MemtableStep, OlderVersion, RunStep, SourceStep, Verdict,
};
pub use options::{EngineOptions, Workers, WriteOptions};
pub use pending::PendingRewrite;
pub use read::Snapshot;
pub use scan::{Entries, Partitions};
pub use sizes::{SizeSummary, WrittenSizes};
pub use stats::{
    Amplification, EngineStats, OperationStats, ReadStats, RecoveryStats, StallStats, StripeStats,
};
pub use stats_file::StatsSnapshot;
pub use versions::{KeyVersion, KeyVersions};

/// Default number of records at which a stripe's memtable is flushed; see [`DatabaseConfig::max_memtable_records`].
pub const MEMTABLE_THRESHOLD: usize = DatabaseConfig::DEFAULT.max_memtable_records;

/// The engine. Shared by reference between threads. Dropping it closes it and ignores errors; see [`LsmEngine::close`].
#[derive(Debug)]
pub struct LsmEngine {
    shared: Arc<Shared>,
    pool: background::Pool,
    closing: Mutex<()>,
}

impl LsmEngine {
    /// The database directory.
    pub fn path(&self) -> &Path {
        self.shared.io.dir()
    }

    /// Whether this process was forked from the process that opened the database. If so, calls fail with
    /// [`Error::Forked`], and dropping the engine or anything obtained from it is a no-op.
    pub fn is_forked(&self) -> bool {
        self.shared.life.is_forked()
    }

    /// The number of stripes.
    pub fn stripe_count(&self) -> usize {
        self.shared.stripes.count()
    }

    /// The default durability of writes.
    pub fn durability(&self) -> Durability {
        self.shared.durability
    }

    /// The settings in force, `stripes` always filled in. [`LsmEngine::pending_rewrites`] lists the settings that
    /// existing SSTs were not written with.
    pub fn config(&self) -> DatabaseConfig {
        self.shared.settings.load().database.clone()
    }

    /// The compaction settings in force.
    pub fn compaction_config(&self) -> CompactionConfig {
        self.shared.settings.load().compaction.clone()
    }

    /// Writes all memtables to SSTs and makes those durable. Not needed for durability: the log already has every
    /// record.
    pub fn flush(&self) -> Result<()> {
        let (shared, _open) = self.writable()?;
        for stripe in shared.stripes.used() {
            shared.life.check_open()?;
            shared.once_there_is_space(|| shared.flush_stripe_now(stripe.id))?;
        }
        shared.checkpoint_now()
    }

    /// Flushes the stripe and merges it into a single run, dropping all versions and tombstones that no reader needs.
    /// Returns once the result is durable. Works even when automatic compaction is off.
    ///
    /// # Errors
    /// `InvalidConfig` for a stripe that does not exist.
    pub fn trigger_compaction(&self, stripe: usize) -> Result<()> {
        self.check_stripe(stripe)?;
        let (shared, _open) = self.writable()?;
        shared.compact_now(stripe)?;
        shared.checkpoint_now()
    }

    /// Whether the compaction rules call for a compaction of the stripe now, not counting those for idle stripes;
    /// always false when automatic compaction is off. Errors as [`LsmEngine::trigger_compaction`].
    pub fn needs_compaction(&self, stripe: usize) -> Result<bool> {
        self.shared.life.check_process()?;
        self.check_stripe(stripe)?;
        Ok(self.shared.compaction_due(stripe, Ask::Due).is_some())
    }

    /// Whether background work is done for now: nothing to flush or to checkpoint, and nothing to merge, counting what
    /// is merged once the database is idle ([`CompactionConfig::idle_compaction`]), a few seconds after the last flush.
    /// For measurements, and for maintenance that wants a quiet database. What reaches its age later is not counted.
    ///
    /// # Errors
    /// `Poisoned` if background work has ended for good. Work that fails and is retried is not done; its error is in
    /// [`EngineStats::background_error`].
    pub fn is_settled(&self) -> Result<bool> {
        self.shared.life.check_process()?;
        self.shared.life.health().check()?;
        Ok(self.shared.is_settled())
    }

    /// The file system that the database is on.
    pub(crate) fn vfs(&self) -> &Arc<dyn Vfs> {
        self.shared.io.vfs()
    }

    /// Reads every SST in full and checks everything in it: checksums, order, counts, and that the index and the filter
    /// find every key. Returns the number of SSTs checked.
    ///
    /// # Errors
    /// `Corruption` with the first damage found.
    pub fn verify(&self) -> Result<usize> {
        self.shared.life.check_open()?;
        let mut verified = 0;
        for stripe in self.shared.stripes.used() {
            let version = Arc::clone(&stripe.version());
            for table in version.tables() {
                table.verify().map_err(|error| self.shared.life.closed_or(error))?;
                verified += 1;
            }
            drop(version);
            self.shared.reader_let_go(false);
        }
        Ok(verified)
    }

    /// With [`Workers::Manual`]: performs one step of the background work that is due, selected by `choice`; returns
    /// false when nothing is due. As with worker threads, a database that was closed cleanly does only work that is due
    /// by time or by changed settings until its first write.
    pub fn step(&self, choice: u64) -> bool {
        let shared = &*self.shared;
        if shared.life.is_forked() {
            return false;
        }
        let done = shared.workers == Workers::Manual && shared.step(choice);
        shared.observed.events().deliver();
        done
    }

    /// The shared state, if this handle may change the database, and a guard that holds up a close meanwhile.
    fn writable(&self) -> Result<(&Shared, Call<'_>)> {
        let shared = &*self.shared;
        shared.life.check_process()?;
        let open = Call::begin(shared);
        shared.life.check_writable()?;
        shared.ensure_opened()?;
        self.start_workers()?;
        Ok((shared, open))
    }

    /// Why this handle no longer accepts writes.
    #[cfg(feature = "testing")]
    pub(crate) fn poisoned(&self) -> Option<&str> {
        self.shared.life.health().cause()
    }

    fn check_stripe(&self, stripe: usize) -> Result<()> {
        let stripes = self.stripe_count();
        if stripe < stripes {
            return Ok(());
        }
        Err(Error::config("stripe", format!("there is no stripe {stripe}; stripes are 0 to {}", stripes - 1)))
    }
}
