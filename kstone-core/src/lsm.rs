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
//! The scheduler's queue never waits for the log lock, whose holder writes. `retiring` (pins) and `obsolete` are held
//! while files are looked for, `retiring` also while they are removed; the queue may be taken under `retiring`, to note
//! a failure.
//!
//! Atomics are `Relaxed` where they only count, or where a lock taken afterwards tells who must know; each other one says
//! at its place why it is enough. No `Arc` leads back to its holder: workers, snapshots and iterators hold `Shared`,
//! which holds none of them, and SSTs hold what they are read with, which holds no SST. Whoever lets go of the engine
//! last closes it, also a listener on a worker, which does not wait for itself then; what outlives it finds it closed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::clock::{Clock, Now, SystemClock};
use crate::compaction::picker::Ask;
use crate::config::{CompactionConfig, DEFAULT_REPLAY_RATE, DatabaseConfig, Durability, LogBounds};
use crate::error::{Error, Result};
use crate::file_header::Id;
use crate::health::Health;
use crate::manifest::{Change, Manifest};
use crate::memory::{MemoryProbe, SystemMemory};
use crate::planted::{Bug, Race, planted, raced};
use crate::process::Process;
use crate::quota::Quota;
use crate::sst::{Table, TableContext};
use crate::stripe::Stripe;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{ArcSwap, Mutex, RwLock};
use crate::types::FileId;
use crate::vfs::{DiskVfs, MemVfs, Place, Vfs};
use crate::wal::{LogLimits, Wal};

mod assemble;
mod background;
mod backup;
mod checkpoint;
mod claim;
mod close;
mod commit;
mod compact;
mod compaction_stats;
mod create;
mod event_log;
mod events;
mod explain;
mod flush;
mod held;
mod idle;
mod job;
mod observe;
mod open;
mod pending;
mod pins;
mod quota;
mod read;
mod read_only;
mod reading;
mod recover;
mod replay_rate;
mod run_writer;
mod scan;
mod stall;
mod stats;
mod stats_file;
pub(crate) mod survey;
mod trace;
mod tuning;
mod write;

use events::Call;

pub use crate::backpressure::StallReason;
pub use crate::latency::{Latencies, LatencyBuckets, LatencySummary};
pub use crate::quota::Exhausted;
pub use crate::sst::{BlockCacheStats, FilterStats};
pub use crate::types::Direction;
pub use backup::{BackupOptions, BackupProgress, BackupReport};
pub(crate) use backup::{Destination, check_outside};
pub(crate) use claim::absolute;
pub use compaction_stats::{CompactionReason, CompactionReasonStats, CompactionStats};
pub use events::{Event, EventListener, SettingChange};
pub use explain::{
    BlockRead, Expected, Explain, ExplainQuery, MemtableStep, OlderVersion, RunStep, SourceStep, Verdict,
};
pub use pending::PendingRewrite;
pub use quota::DiskUsage;
pub use read::Snapshot;
pub use scan::Entries;
pub use stats::{
    Amplification, EngineStats, OperationStats, ReadStats, RecoveryStats, StallStats, StripeStats,
};
pub use stats_file::StatsSnapshot;
pub use write::WriteBatch;

/// Records in a stripe's memtable before it is flushed, unless [`DatabaseConfig::max_memtable_records`] says
/// otherwise.
pub const MEMTABLE_THRESHOLD: usize = DatabaseConfig::DEFAULT.max_memtable_records;

/// How background work runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// On threads of the engine, started with the first write; one with open, if time will make something due.
    #[default]
    Threads,
    /// Only inside of [`LsmEngine::step`] and of calls that would otherwise wait: for deterministic tests.
    Manual,
}

/// How to open a database.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Replaces the stored settings whole; `None` uses those, or the defaults for a new database.
    pub config: Option<DatabaseConfig>,
    /// The same for compaction.
    pub compaction: Option<CompactionConfig>,
    /// For writes that do not say. Default [`Durability::Buffered`].
    pub durability: Durability,
    /// Where the files are.
    pub vfs: Arc<dyn Vfs>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Who does the background work.
    pub workers: Workers,
    /// Is told of flushes, compactions, stalls, errors and so on. Default: nobody.
    pub listener: Option<Arc<dyn EventListener>>,
    /// Whether reads and writes are counted, in [`EngineStats::operations`], [`EngineStats::reads`] and what is
    /// computed from them; a few nanoseconds each. Default: they are.
    pub counters: bool,
    /// Where [`MemtableMode::Adaptive`](crate::MemtableMode::Adaptive) learns how much memory is left.
    pub memory_probe: Arc<dyn MemoryProbe>,
}

impl EngineOptions {
    /// On disk.
    pub fn disk() -> Self {
        Self::on(Arc::new(DiskVfs::new()))
    }

    /// In memory, on a file system of its own: gone with the engine.
    pub fn memory() -> Self {
        Self::on(Arc::new(MemVfs::new()))
    }

    /// On that file system.
    pub fn on(vfs: Arc<dyn Vfs>) -> Self {
        Self {
            config: None,
            compaction: None,
            durability: Durability::default(),
            vfs,
            clock: Arc::new(SystemClock::new()),
            workers: Workers::default(),
            listener: None,
            counters: true,
            memory_probe: Arc::new(SystemMemory),
        }
    }
}

/// Options of a single write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteOptions {
    /// Overrides the durability of the handle. Default: `None`, as the handle.
    pub durability: Option<Durability>,
}

impl WriteOptions {
    /// As durable as the handle was opened.
    ///
    /// ```
    /// # use kstone_core::lsm::WriteOptions;
    /// assert_eq!(WriteOptions::new().durability, None);
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// On the disk when the call returns: survives a power cut.
    ///
    /// ```
    /// # use kstone_core::{Durability, lsm::WriteOptions};
    /// assert_eq!(WriteOptions::sync().durability, Some(Durability::Sync));
    /// ```
    pub fn sync() -> Self {
        Self { durability: Some(Durability::Sync) }
    }

    /// With the operating system when the call returns: survives the death of the process.
    ///
    /// ```
    /// # use kstone_core::{Durability, lsm::WriteOptions};
    /// assert_eq!(WriteOptions::buffered().durability, Some(Durability::Buffered));
    /// ```
    pub fn buffered() -> Self {
        Self { durability: Some(Durability::Buffered) }
    }
}

/// The engine. Shared by reference between threads; dropping it closes it and ignores errors, see
/// [`LsmEngine::close`].
#[derive(Debug)]
pub struct LsmEngine {
    shared: Arc<Shared>,
    pool: background::Pool,
    closing: Mutex<()>,
}

/// Who a database is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) database_id: Id,
    pub(crate) incarnation: Id,
}

/// The settings in force, with what follows from them.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) database: DatabaseConfig,
    pub(crate) compaction: CompactionConfig,
    pub(crate) memory_budget: usize,
    pub(crate) log: LogBounds,
    /// Bytes of log that this machine replays in a second, once that was measured.
    pub(crate) replay_rate: Option<u64>,
}

impl Settings {
    fn new(database: DatabaseConfig, compaction: CompactionConfig, replay_rate: Option<u64>) -> Self {
        Self {
            memory_budget: database.memory_budget_bytes(),
            log: database.log_bounds(replay_rate.unwrap_or(DEFAULT_REPLAY_RATE)),
            database,
            compaction,
            replay_rate,
        }
    }

    /// All of them as the manifest stores them: named numbers.
    fn stored(&self) -> Vec<(String, u64)> {
        let mut stored = self.database.to_settings();
        stored.extend(self.compaction.to_settings());
        stored.extend(replay_rate::to_store(self));
        stored
    }

    /// What the log needs to know of them.
    fn log_limits(&self) -> LogLimits {
        LogLimits {
            segment_size: self.log.segment,
            limit: self.log.limit,
            oversized: self.log.oversized,
            write_buffer: self.database.write_buffer_size as u64,
        }
    }
}

/// Everything that threads, snapshots and iterators of one open database share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) workers: Workers,
    pub(crate) durability: Durability,
    pub(crate) read_only: bool,
    /// See [`LsmEngine::damage`].
    pub(crate) damage: Vec<Error>,
    pub(crate) identity: Identity,
    /// Entries of a memtable or a merge that one step of a job takes.
    pub(crate) chunk: usize,
    pub(crate) health: Arc<Health>,
    pub(crate) settings: ArcSwap<Settings>,
    /// Made when something first goes into them.
    pub(crate) stripes: Box<[OnceLock<Box<Stripe>>]>,
    pub(crate) tables: Arc<TableContext>,
    pub(crate) wal: Wal,
    /// The manifest records no clean end any more, and recovery is finished, so that writing may begin.
    pub(crate) opened: AtomicBool,
    /// Set while recovery is not finished, for want of space. Taken under the manifest's lock.
    pub(crate) unfinished: Mutex<Option<recover::Unfinished>>,
    pub(crate) manifest: Mutex<Manifest>,
    pub(crate) file_ids: FileIds,
    pub(crate) commits: commit::Commits,
    /// Bytes of all memtables, and of the sealed ones among them.
    pub(crate) memory: AtomicUsize,
    pub(crate) sealed_memory: AtomicUsize,
    /// The log segment that the last write went to.
    pub(crate) newest_generation: AtomicU32,
    /// What this handle's replay took.
    pub(crate) replayed: OnceLock<replay_rate::Replayed>,
    /// SSTs that no version holds any more, to be unlinked once nobody refers to them.
    pub(crate) obsolete: Mutex<Vec<Arc<Table>>>,
    /// What backups under way keep from being removed.
    pub(crate) pins: pins::Pins,
    /// What readers keep from being removed or merged.
    pub(crate) held: held::Held,
    /// A file that belongs to nothing could not be removed.
    pub(crate) untidy: AtomicBool,
    /// Files that nobody needs and that could not be removed yet.
    pub(crate) leftovers: Mutex<Vec<PathBuf>>,
    pub(crate) background: background::Background,
    pub(crate) quota: Arc<Quota>,
    pub(crate) counters: stats::Counters,
    pub(crate) observed: observe::Observed,
    pub(crate) events: events::Events,
    pub(crate) tuner: tuning::Tuner,
    pub(crate) closed: AtomicBool,
    /// Who has opened it.
    pub(crate) process: Process,
    /// Shared by whatever writes for a caller, taken alone by close.
    pub(crate) gate: RwLock<()>,
    /// Held from open to close.
    pub(crate) lock: Mutex<Option<LockGuard>>,
    /// Where that was taken, as far as it is known.
    pub(crate) place: Arc<OnceLock<Place>>,
}

/// Keeps the database locked.
pub(crate) struct LockGuard(#[expect(dead_code, reason = "dropping it is its use")] Box<dyn Send + Sync>);

impl std::fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LockGuard")
    }
}

/// The numbers of new SSTs. They are reserved in the manifest ahead of use, so that none is used twice even if a
/// crash brings a removed file back.
#[derive(Debug)]
pub(crate) struct FileIds {
    next: AtomicU64,
    /// Reserved up to here, exclusive.
    limit: AtomicU64,
}

impl FileIds {
    const BLOCK: u64 = 1024;

    fn new(next: FileId, limit: FileId) -> Self {
        Self { next: AtomicU64::new(next), limit: AtomicU64::new(limit) }
    }

    /// The number that comes next.
    pub(crate) fn next(&self) -> FileId {
        self.next.load(Ordering::Relaxed)
    }

    /// The change that extends the reservation, once half of it is used.
    pub(crate) fn top_up(&self) -> Option<Change> {
        let left = self.limit.load(Ordering::Relaxed).saturating_sub(self.next());
        (left < Self::BLOCK / 2).then(|| Change::Reserve { files_below: self.next() + Self::BLOCK })
    }
}

impl Shared {
    /// The stripe, made if need be. Ids come from `stripe_of` or were checked.
    pub(crate) fn stripe(&self, id: usize) -> Result<&Stripe> {
        let Some(stripe) = self.stripes.get(id) else { return Err(self.no_stripe(id)) };
        Ok(stripe.get_or_init(|| Box::new(Stripe::new(id, Vec::new(), 0))))
    }

    #[cold]
    fn no_stripe(&self, id: usize) -> Error {
        self.health.internal(format!("there is no stripe {id}, of {}", self.stripes.len()))
    }

    /// The stripe, if anything was ever put into it.
    pub(crate) fn stripe_if_used(&self, id: usize) -> Option<&Stripe> {
        self.stripes.get(id)?.get().map(|stripe| &**stripe)
    }

    pub(crate) fn used_stripes(&self) -> impl Iterator<Item = &Stripe> {
        self.stripes.iter().filter_map(|stripe| stripe.get().map(|stripe| &**stripe))
    }

    pub(crate) fn now(&self) -> Now {
        Now::of(&*self.clock)
    }

    /// Puts settings in force: what reads them at each decision finds them, the rest is notified.
    fn apply(&self, settings: Settings) {
        self.wal.set_limits(settings.log_limits());
        self.tables.apply(&settings.database);
        self.settings.store(Arc::new(settings));
        self.limit_disk(false);
    }

    /// Refuses in a forked process, where locks may be held by threads that it does not have: to be asked before any is
    /// taken.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.process.is_current() { Ok(()) } else { Err(Error::Forked) }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        self.check_process()?;
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// What a read has met, or `Closed`: a close takes away files that only readers still needed, which is no damage.
    pub(crate) fn closed_or(&self, error: Error) -> Error {
        self.check_open().err().unwrap_or(error)
    }

    /// A number for a new SST.
    pub(crate) fn next_file_id(&self) -> Result<FileId> {
        let id = self.file_ids.next.fetch_add(1, Ordering::Relaxed);
        if id >= self.file_ids.limit.load(Ordering::Acquire) {
            let mut manifest = self.manifest.lock();
            if id >= manifest.state().files_below {
                let reserve = Change::Reserve { files_below: id + FileIds::BLOCK };
                self.append_edit(&mut manifest, vec![reserve])?;
            }
        }
        Ok(id)
    }

    /// Appends one durable edit. Out of space is an error that passes, unless a sync met it; any other makes the
    /// handle read-only, for nobody knows what a failed sync left behind.
    pub(crate) fn edit_manifest(&self, changes: Vec<Change>) -> Result<()> {
        self.append_edit(&mut self.manifest.lock(), changes)
    }

    fn append_edit(&self, manifest: &mut Manifest, changes: Vec<Change>) -> Result<()> {
        self.health.check()?;
        self.check_place()?;
        let result = manifest.append(changes);
        if manifest.is_broken()
            && let Err(error) = &result
        {
            self.health.poison(error);
        }
        self.wal.set_last_edit(result?);
        self.quota.manifest.store(manifest.room(), Ordering::Relaxed);
        self.file_ids.limit.fetch_max(manifest.state().files_below, Ordering::Release);
        Ok(())
    }

    /// Poisons the handle when what it has locked is not where its files are any more: somebody else may write there.
    fn check_place(&self) -> Result<()> {
        let Some(place) = self.place.get() else { return Ok(()) };
        let held = place.check(&*self.vfs).map_err(Error::io("go on writing to", &self.dir));
        self.poison_on_error(held)
    }

    /// Before the first write after a clean open, also of background work: cancels the recorded end, so that a crash from
    /// here on is taken for what it is. After a recovery that found no space: finishes it. The caller holds the gate, or
    /// is a worker, which close stops before it looks, or is the only one yet.
    pub(crate) fn ensure_opened(&self) -> Result<()> {
        if self.opened.load(Ordering::Acquire) {
            return Ok(());
        }
        let since = self.clock.monotonic();
        let mut manifest = self.manifest.lock();
        if self.opened.load(Ordering::Acquire) {
            self.waited(StallReason::Recovery, since);
        } else {
            let settings = self.settings_change(manifest.state());
            let mut unfinished = self.unfinished.lock();
            if let Some(rest) = &mut *unfinished {
                let tidy = rest.finish(&*self.vfs, &self.dir, |mut changes| {
                    changes.extend(settings);
                    self.append_edit(&mut manifest, changes)
                });
                self.waited(StallReason::Recovery, since);
                let tidy = tidy?;
                self.untidy.fetch_or(!tidy, Ordering::Relaxed);
            } else if !planted(Bug::CleanEndNotCancelled) {
                self.append_edit(&mut manifest, [Change::Opened].into_iter().chain(settings).collect())?;
            }
            *unfinished = None;
            self.opened.store(true, Ordering::Release);
        }
        Ok(())
    }

    pub(crate) fn sync_dir(&self) -> Result<()> {
        let synced = self.vfs.sync_dir(&self.dir).map_err(Error::io("sync", &self.dir));
        if synced.as_ref().is_err_and(Error::is_unbegun_sync) { synced } else { self.poison_on_error(synced) }
    }

    /// For syncs: whatever the error, also without space, a second one would succeed without the lost pages.
    pub(crate) fn poison_on_error<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.health.poison(error);
        }
        result
    }
}

/// Poisons the handle when it is dropped by a panic; forgotten otherwise.
struct PoisonOnUnwind<'a> {
    shared: &'a Shared,
    what: &'static str,
}

impl Drop for PoisonOnUnwind<'_> {
    fn drop(&mut self) {
        self.shared.health.poison(&Error::Poisoned { cause: format!("{} panicked", self.what) });
    }
}

impl LsmEngine {
    /// The database directory.
    pub fn path(&self) -> &Path {
        &self.shared.dir
    }

    /// Whether this is a process that was forked off the opener of the database: calls fail with
    /// [`Error::Forked`] here, and dropping what belongs to it does nothing.
    pub fn is_forked(&self) -> bool {
        !self.shared.process.is_current()
    }

    /// How many stripes the database has.
    pub fn stripe_count(&self) -> usize {
        self.shared.stripes.len()
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

    /// Changes the settings of the running database and stores them. They hold from the next decision on; what is
    /// running ends as it began. Settings of SSTs (filter bits, block size, compression, SST size) apply to the files
    /// written from now on, the read mode to those opened from now on: each file is opened once, when it is first read.
    ///
    /// # Errors
    /// `InvalidConfig` names the field: also `stripes`, when it is given and not what the database was created with.
    /// When storing fails the old settings stay in force.
    pub fn set_config(&self, config: DatabaseConfig) -> Result<()> {
        config.validate()?;
        let stripes = self.stripe_count();
        if config.stripes.is_some_and(|asked| asked != stripes) {
            return Err(Error::config("stripes", format!("the database has {stripes}, which cannot change")));
        }
        let quota = config.max_total_disk_bytes.unwrap_or(u64::MAX);
        let lower = quota < self.config().max_total_disk_bytes.unwrap_or(u64::MAX);
        if lower {
            // While there is space for it: under the lower limit there may be none for what memtables still need.
            self.flush()?;
        }
        self.change_settings(|settings| {
            settings.database = DatabaseConfig { stripes: Some(stripes), ..config }
        })?;
        if lower { self.shared.give_back_log() } else { Ok(()) }
    }

    /// Changes the compaction settings of the running database and stores them. They hold from the next decision
    /// on; what is running ends as it began.
    ///
    /// # Errors
    /// `InvalidConfig` names the field. When storing fails the old settings stay in force.
    pub fn set_compaction_config(&self, compaction: CompactionConfig) -> Result<()> {
        compaction.validate()?;
        self.change_settings(|settings| settings.compaction = compaction)
    }

    fn change_settings(&self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let (shared, _open) = self.writable()?;
        // Stored and in force in the same order, whoever else sets them.
        let mut manifest = shared.manifest.lock();
        let mut settings = Settings::clone(&shared.settings.load());
        change(&mut settings);
        let settings = Settings::new(settings.database, settings.compaction, settings.replay_rate);
        let stored = Change::Settings(settings.stored());
        shared.append_edit(&mut manifest, vec![stored])?;
        shared.raise_config_changed(&shared.settings.load(), &settings);
        shared.apply(settings);
        drop(manifest);
        self.grow_pool()?;
        // Limits may have become lower than what is there. And when that job ends, who sleeps for as long as the old
        // intervals said looks again.
        if !raced(Race::NewSettingsUnheard) {
            shared.background.want_relief();
        }
        for stripe in shared.used_stripes() {
            shared.background.queue_compaction(stripe.id);
        }
        Ok(())
    }

    /// Writes all memtables to SSTs and makes those durable. Nobody needs this for safety: the log has everything.
    pub fn flush(&self) -> Result<()> {
        let (shared, _open) = self.writable()?;
        for stripe in shared.used_stripes() {
            shared.check_open()?;
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
        self.shared.check_process()?;
        self.check_stripe(stripe)?;
        Ok(self.shared.compaction_due(stripe, Ask::Due).is_some())
    }

    /// The file system that the database is on.
    pub(crate) fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.shared.vfs
    }

    /// Reads all SSTs whole and checks everything in them: checksums, order, counts, that the index and the filter
    /// find every key. Returns how many there were.
    ///
    /// # Errors
    /// `Corruption` names the first damage found.
    pub fn verify(&self) -> Result<usize> {
        self.shared.check_open()?;
        let mut verified = 0;
        for stripe in self.shared.used_stripes() {
            let version = Arc::clone(&stripe.version());
            for table in version.tables() {
                table.verify().map_err(|error| self.shared.closed_or(error))?;
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
        if !shared.process.is_current() {
            return false;
        }
        let done = shared.workers == Workers::Manual && shared.step(choice);
        shared.deliver_events();
        done
    }

    /// The state, if this handle may change the database, and what keeps a close waiting meanwhile.
    fn writable(&self) -> Result<(&Shared, Call<'_>)> {
        let shared = &*self.shared;
        shared.check_process()?;
        let open = Call::begin(shared);
        shared.check_open()?;
        if shared.read_only {
            return Err(Error::ReadOnly);
        }
        shared.health.check()?;
        shared.ensure_opened()?;
        self.start_workers()?;
        Ok((shared, open))
    }

    /// Why this handle accepts no writes any more.
    #[cfg(feature = "testing")]
    pub(crate) fn poisoned(&self) -> Option<&str> {
        self.shared.health.cause()
    }

    fn check_stripe(&self, stripe: usize) -> Result<()> {
        let stripes = self.stripe_count();
        if stripe < stripes {
            return Ok(());
        }
        Err(Error::config("stripe", format!("there is no stripe {stripe}, they are 0 to {}", stripes - 1)))
    }
}
