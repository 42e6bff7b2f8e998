//! The engine: bytes under keys, one verb a file.
//!
//! ```text
//! PUT      write       log append -> stripe.insert -> publish -> seal if full
//! GET      read        memtable -> sealed -> runs, newest first
//! SCAN     scan        the same sources, merged
//! FLUSH    flush       sealed memtable -> SSTs -> stripe.install_flush
//! COMPACT  compact     picker -> merge -> SSTs -> stripe.install_compaction
//! CHECKPOINT           sync log, SSTs, names -> manifest edit -> give the log back
//! BACKUP   backup      sync log -> pin files -> copy log, link SSTs -> a manifest for them
//! RECOVER  recover     lock -> manifest -> log's end -> new manifest -> orphans -> replay
//! ```
//!
//! Lock order, outermost first: gate -> stripes (ascending) -> log -> commits in flight; the scheduler's queue may be
//! taken under a stripe, and under it only leaves (snapshots, the log's figures, the queue of events). `obsolete` ->
//! `manifest` stand apart: under them only leaves are taken (settings in force: the log's room, the files that the
//! disk limit counts, the events), nor they under a stripe. No SST, manifest or sync I/O happens under a stripe's
//! lock. A listener is called with none of them held.
//!
//! The scheduler's queue never waits for the log lock, whose holder writes. `retiring` and `obsolete` (removal) are held
//! while files are looked for, `retiring` also while they are removed; the queue may be taken under `retiring`, to note
//! a failure.
//!
//! Atomics are `Relaxed` where they only count, or where a lock taken afterwards tells who must know; each other one says
//! at its place why it is enough. No `Arc` leads back to its holder: workers, snapshots and iterators hold `Shared`,
//! which holds none of them, and SSTs hold what they are read with, which holds no SST. Whoever lets go of the engine
//! last closes it, also a listener on a worker, which does not wait for itself then; what outlives it finds it closed.

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
mod counts;
mod create;
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
mod space;
mod stall;
mod state;
mod stats;
mod stats_file;
mod stripes;
mod trace;
mod tuning;
pub(crate) mod validate;
mod write;

use call::Call;
use state::Shared;

pub use crate::backpressure::StallReason;
pub use crate::latency::{Latencies, LatencyBuckets, LatencySummary};
pub use crate::quota::Exhausted;
pub use crate::sst::{BlockCacheStats, FilterStats};
pub use crate::types::Direction;
pub use backup::{BackupOptions, BackupProgress, BackupReport};
pub(crate) use backup::{Destination, check_outside};
pub use batch::WriteBatch;
pub(crate) use claim::absolute;
pub use compaction_stats::{CompactionReason, CompactionReasonStats, CompactionStats};
pub use disk_usage::DiskUsage;
pub use events::{Event, EventListener, SettingChange};
pub use explain::{
    BlockRead, Expected, Explain, ExplainQuery, MemtableStep, OlderVersion, RunStep, SourceStep, Verdict,
};
pub use options::{EngineOptions, Workers, WriteOptions};
pub use pending::PendingRewrite;
pub use read::Snapshot;
pub use scan::Entries;
pub use stats::{
    Amplification, EngineStats, OperationStats, ReadStats, RecoveryStats, StallStats, StripeStats,
};
pub use stats_file::StatsSnapshot;

/// Records in a stripe's memtable before it is flushed, unless [`DatabaseConfig::max_memtable_records`] says
/// otherwise.
pub const MEMTABLE_THRESHOLD: usize = DatabaseConfig::DEFAULT.max_memtable_records;

/// The engine. Shared by reference between threads; dropping it closes it and ignores errors, see
/// [`LsmEngine::close`].
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

    /// Whether this is a process that was forked off the opener of the database: calls fail with
    /// [`Error::Forked`] here, and dropping what belongs to it does nothing.
    pub fn is_forked(&self) -> bool {
        self.shared.life.is_forked()
    }

    /// How many stripes the database has.
    pub fn stripe_count(&self) -> usize {
        self.shared.stripes.count()
    }

    /// The durability of writes that do not say.
    pub fn durability(&self) -> Durability {
        self.shared.durability
    }

    /// The settings in force, `stripes` always filled in. What SSTs written before do not have yet is told by
    /// [`LsmEngine::pending_rewrites`].
    pub fn config(&self) -> DatabaseConfig {
        self.shared.settings.load().database.clone()
    }

    /// The compaction settings in force.
    pub fn compaction_config(&self) -> CompactionConfig {
        self.shared.settings.load().compaction.clone()
    }

    /// Writes all memtables to SSTs and makes those durable. Nobody needs this for safety: the log has everything.
    pub fn flush(&self) -> Result<()> {
        let (shared, _open) = self.writable()?;
        for stripe in shared.stripes.used() {
            shared.life.check_open()?;
            shared.once_there_is_space(|| shared.flush_stripe_now(stripe.id))?;
        }
        shared.checkpoint_now()
    }

    /// Flushes the stripe and merges it into a single run, dropping what no reader needs; returns when that is
    /// durable. Works also when automatic compaction is off.
    ///
    /// # Errors
    /// `InvalidConfig` for a stripe that does not exist.
    pub fn trigger_compaction(&self, stripe: usize) -> Result<()> {
        self.check_stripe(stripe)?;
        let (shared, _open) = self.writable()?;
        shared.compact_now(stripe)?;
        shared.checkpoint_now()
    }

    /// Whether the rules ask for a compaction of the stripe now, those for idle times left out; always false when
    /// automatic compaction is off. Errors as [`LsmEngine::trigger_compaction`].
    pub fn needs_compaction(&self, stripe: usize) -> Result<bool> {
        self.shared.life.check_process()?;
        self.check_stripe(stripe)?;
        Ok(self.shared.compaction_due(stripe, Ask::Due).is_some())
    }

    /// The file system that the database is on.
    pub(crate) fn vfs(&self) -> &Arc<dyn Vfs> {
        self.shared.io.vfs()
    }

    /// Reads all SSTs whole and checks everything in them: checksums, order, counts, that the index and the filter
    /// find every key. Returns how many there were.
    ///
    /// # Errors
    /// `Corruption` names the first damage found.
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

    /// With [`Workers::Manual`]: does one step of the background work that is due, which one being up to `choice`;
    /// false when nothing is due. As on threads, only what time or changed settings ask for is before the first write to
    /// a database that was closed.
    pub fn step(&self, choice: u64) -> bool {
        let shared = &*self.shared;
        if shared.life.is_forked() {
            return false;
        }
        let done = shared.workers == Workers::Manual && shared.step(choice);
        shared.observed.events().deliver();
        done
    }

    /// The state, if this handle may change the database, and what keeps a close waiting meanwhile.
    fn writable(&self) -> Result<(&Shared, Call<'_>)> {
        let shared = &*self.shared;
        shared.life.check_process()?;
        let open = Call::begin(shared);
        shared.life.check_writable()?;
        shared.ensure_opened()?;
        self.start_workers()?;
        Ok((shared, open))
    }

    /// Why this handle accepts no writes any more.
    #[cfg(feature = "testing")]
    pub(crate) fn poisoned(&self) -> Option<&str> {
        self.shared.life.health().cause()
    }

    fn check_stripe(&self, stripe: usize) -> Result<()> {
        let stripes = self.stripe_count();
        if stripe < stripes {
            return Ok(());
        }
        Err(Error::config("stripe", format!("there is no stripe {stripe}, they are 0 to {}", stripes - 1)))
    }
}
