//! CREATE, OPEN and RECOVER.
//!
//! The order after an unclean end is the crash argument; each step is safe to be cut off anywhere and rerun:
//! 1. lock; 2. read the manifest; 3. validate the log and find where it ends. Nothing is written so far.
//! 4. [`wal::harden`]: the log's bytes above the last known sync are written again, identically, and synced: pages
//!    that a failed sync marked clean may be readable and yet not on the disk.
//! 5. A new manifest records where the log was cut: the single commit point. Bytes past the cut are dead by that
//!    decree; old segments are neither truncated nor appended to.
//! 6. Files of ours that the manifest does not list are removed.
//! 7. [`Replay`]: the log's records go through the same insert as a put, leaving out what is in SSTs already.
//!
//! After a clean end only 1, 2, the check of the recorded end, and 7 remain, and nothing is written.
//!
//! On a full medium 4 to 6 are put off ([`Unfinished`]): what is there can be read, and whatever would write first
//! tries them again, and is refused with `DiskFull` as long as there is no space.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::background::{Background, Pool};
use super::claim::{Claim, Found, absolute, claim};
use super::event_log::EventLog;
use super::events::Events;
use super::observe::Observed;
use super::survey::{GENERATION_GAP, SEQ_GAP, Survey};
use super::{
    EngineOptions, FileIds, Identity, LockGuard, LsmEngine, Settings, Shared, Workers, replay_rate, trace,
};
use crate::clock::{Clock, Now, Since};
use crate::config::{CompactionConfig, DatabaseConfig};
use crate::error::{Error, Result};
use crate::file_header::Id;
use crate::health::Health;
use crate::key::{encoded_partition_hash, stripe_of};
use crate::latency::Recorder;
use crate::manifest::{Change, Facts, Ids, Manifest, ManifestState};
use crate::paths::{self, FileName};
use crate::planted::{Bug, planted};
use crate::process::Process;
use crate::quota::Quota;
use crate::record::Ops;
use crate::sst::{Table, TableContext};
use crate::stripe::Stripe;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use crate::sync::{ArcSwap, Mutex, RwLock};
use crate::types::{EntryKind, EntryRef, FileId, Lsn, SeqNo};
use crate::version::Run;
use crate::vfs::{DirEntry, Floor, Mapping, Meter, MeteredVfs, Place, Vfs};
use crate::wal::{self, Chain, LogCut, RecordRef, Wal, WalContext, WalStart};

/// Entries that one step of a job takes: long enough to be cheap, short enough to stop soon.
const CHUNK: usize = 4096;
/// The same for tests, so that steps of different jobs mix.
const CHUNK_MANUAL: usize = 8;

impl LsmEngine {
    /// Creates a database. The directory may exist if it is empty; its parent must exist.
    ///
    /// # Errors
    /// `AlreadyExists` if there is a database or anything else; `Corruption` if there are SSTs or log records
    /// without a manifest; `InvalidConfig`. In all these cases nothing is changed.
    pub fn create(path: &Path, options: EngineOptions) -> Result<Self> {
        validate(&options)?;
        let since = options.clock.monotonic();
        let path = &absolute(&*options.vfs, path)?;
        let (options, meter) = metered(path, options);
        let vfs = Arc::clone(&options.vfs);
        let claim = claim(&*vfs, path, || Ok(Found::at(&*vfs, path)?.into_create_look(path)))?;
        Self::create_in(path, options, claim, &meter, since)
    }

    /// Makes a database in a directory that has room for one.
    fn create_in(
        path: &Path,
        options: EngineOptions,
        Claim { guard: lock, made }: Claim,
        meter: &MeteredVfs,
        since: Duration,
    ) -> Result<Self> {
        let vfs = Arc::clone(&options.vfs);
        if let Some(parent) = path.parent().filter(|_| !(made && planted(Bug::CreationNotSynced))) {
            match vfs.sync_dir(parent) {
                // Whoever made it may not have made its name durable. Who may not read what it is in cannot either.
                Err(e) if !made && e.kind() == std::io::ErrorKind::PermissionDenied => {}
                synced => synced.map_err(Error::io("sync", parent))?,
            }
        }
        remove_leftovers(&*vfs, path)?;
        take_stock(meter, path)?;
        let database = options.config.clone().unwrap_or_default();
        let stripes = database.stripes.unwrap_or_else(|| database.default_stripes());
        let database = DatabaseConfig { stripes: Some(stripes), ..database };
        let compaction = options.compaction.clone().unwrap_or_default();
        let now = options.clock.unix_ms();
        let ids = Ids {
            database_id: random_id(&*options.clock),
            incarnation: random_id(&*options.clock),
            created_ms: now,
        };
        let changes = vec![
            Change::Facts(Facts::new(stripes, now)),
            Change::Keyspace { id: 0, name: "items".into() },
            Change::Settings(Settings::new(database.clone(), compaction.clone(), None).stored()),
            Change::Reserve { files_below: 1 + FileIds::BLOCK },
        ];
        let manifest = Manifest::create(Arc::clone(&vfs), path, ids, changes)?;
        let start = Start {
            chain: None,
            next_seq: 1,
            file_ids: FileIds::new(1, 1 + FileIds::BLOCK),
            settings: Settings::new(database, compaction, None),
            read_only: false,
            lock: Some(lock),
            since,
            meter: Arc::clone(meter.meter()),
            place: Arc::clone(meter.place()),
            log: Arc::clone(&options.vfs),
            held: BTreeMap::new(),
            damage: Vec::new(),
            unfinished: None,
        };
        let engine = Self::assemble(path, options, manifest, start)?;
        // A handle whose directory is removed while it is open goes on working in its first segment.
        // Should that fail, the database is there all the same: its first write will meet the cause again.
        drop(engine.shared.wal.try_reserve(0, Floor::NONE));
        engine.shared.opened(true, true);
        engine.keep_time();
        Ok(engine)
    }

    /// Opens a database, recovering it if it was not closed, and locks it until it is closed: other processes, and
    /// other handles in this one, get `Locked` meanwhile. The death of the process ends the lock; no file of it has to
    /// be removed. The lock is of the directory, by whatever path, and of the file `LOCK` in it, which alone counts on
    /// file systems that cannot lock directories.
    ///
    /// A process made by `fork` without `exec` shares the lock. Until such a process has ended too, the database stays
    /// locked after this one has died, though not after it has closed the handle. It cannot use the handle: calls fail
    /// with `Forked`, and dropping it does nothing. A program that is started (`exec`) does not inherit the lock.
    ///
    /// # Errors
    /// `NotFound`, `NotADatabase`, `Locked`, `UnsupportedFormat`, `Corruption`, `InvalidConfig`: nothing was
    /// changed.
    pub fn open(path: &Path, options: EngineOptions) -> Result<Self> {
        validate(&options)?;
        let path = &absolute(&*options.vfs, path)?;
        let (options, meter) = metered(path, options);
        let claim = claim(&*options.vfs, path, || Ok(Found::at(&*options.vfs, path)?.into_open_look(path)))?;
        Self::recover(path, options, claim.guard, &meter)
    }

    /// Opens the database, or creates it if there is none: also while others do the same, of whom one gets it and the
    /// others `Locked`. Errors otherwise as [`LsmEngine::open`] and [`LsmEngine::create`].
    pub fn open_or_create(path: &Path, options: EngineOptions) -> Result<Self> {
        validate(&options)?;
        let since = options.clock.monotonic();
        let path = &absolute(&*options.vfs, path)?;
        let (options, meter) = metered(path, options);
        let vfs = Arc::clone(&options.vfs);
        let is_database = Cell::new(false);
        let claim = claim(&*vfs, path, || {
            let found = Found::at(&*vfs, path)?;
            is_database.set(matches!(found, Found::Database(_)));
            Ok(if is_database.get() { found.into_open_look(path) } else { found.into_create_look(path) })
        })?;
        match is_database.get() {
            true => Self::recover(path, options, claim.guard, &meter),
            false => Self::create_in(path, options, claim, &meter, since),
        }
    }

    /// Whether some handle, of this process or another, has the database open for writing.
    ///
    /// # Errors
    /// `Io` when the lock cannot be looked at.
    pub fn is_locked(path: &Path, vfs: &dyn Vfs) -> Result<bool> {
        let file = path.join(paths::LOCK);
        match vfs.lock_shared(&file) {
            Ok(_) => Ok(false),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Ok(true),
            Err(e) => Err(Error::io("look at the lock", &file)(e)),
        }
    }

    fn recover(path: &Path, options: EngineOptions, lock: LockGuard, metered: &MeteredVfs) -> Result<Self> {
        let since = options.clock.monotonic();
        take_stock(metered, path)?;
        let _span = trace::open(path, false);
        let vfs = Arc::clone(&options.vfs);
        let loaded = Manifest::load(&*vfs, path)?;
        let listing = vfs.list(path).map_err(Error::io("list", path))?;
        check_stripes(&options, &loaded.state)?;
        let Survey { loaded, listing, chain, began } =
            Survey::of(path, loaded, listing, &*vfs, &*options.clock)?;
        let state = &loaded.state;
        // An edit cut short behind the clean end is the one that would have cancelled it: nothing was written.
        let clean_end = state.clean_end;
        let base = chain.last_seq.max(state.base_seq());
        let settings = settings(&options, state);

        let orphans = orphans(path, state, &chain, &listing);
        let gap = if planted(Bug::SequencesReissued) { 1 } else { SEQ_GAP };
        let next_seq = clean_end.map_or(base.saturating_add(gap), |clean| clean.next_seq);
        let unused = match planted(Bug::FileIdReused) {
            true => state.ssts.last_key_value().map_or(1, |(&id, _)| id + 1),
            false => state.files_below,
        };
        let next_file = clean_end.map_or(unused, |clean| clean.next_file);
        let mut unfinished = clean_end.is_none().then(|| Unfinished {
            harden_from: chain.watermark.max(state.durable),
            changes: cut_changes(state, &chain, next_seq - 1),
            chain: chain.clone(),
            orphans,
            hardened: false,
        });
        let mut manifest = Manifest::resume(Arc::clone(&vfs), path, loaded);
        let mut tidy = true;
        if let Some(rest) = &mut unfinished {
            match rest.finish(&*vfs, path, |changes| manifest.append(changes).map(drop)) {
                Ok(all_removed) => {
                    tidy = all_removed;
                    unfinished = None;
                }
                Err(error) if error.is_out_of_space() && !manifest.is_broken() => {}
                Err(error) => return Err(error),
            }
        }
        let file_ids = FileIds::new(next_file, manifest.state().files_below.max(next_file));
        let store_settings = options.config.is_some() || options.compaction.is_some();
        let start = Start {
            chain: Some(chain),
            next_seq,
            file_ids,
            settings,
            read_only: false,
            lock: Some(lock),
            since,
            meter: Arc::clone(metered.meter()),
            place: Arc::clone(metered.place()),
            log: vfs,
            held: BTreeMap::new(),
            damage: Vec::new(),
            unfinished,
        };
        let engine = Self::assemble(path, options, manifest, start)?;
        engine.shared.measure_replay(began);
        engine.shared.untidy.store(!tidy, Ordering::Relaxed);
        if store_settings {
            match engine.shared.store_settings() {
                // They hold all the same, and are stored with the next edit.
                Err(error) if error.is_out_of_space() && engine.shared.health.check().is_ok() => {}
                stored => stored?,
            }
        }
        engine.shared.opened(false, clean_end.is_some());
        // A process that only read may have died and left one behind a clean end.
        let stats = |entry: &DirEntry| matches!(paths::parse(&entry.name), FileName::Stats);
        engine.shared.observed.stats_file.fetch_or(listing.iter().any(stats), Ordering::Relaxed);
        engine.keep_time();
        Ok(engine)
    }

    /// Puts the parts together and replays the log into them.
    pub(super) fn assemble(
        path: &Path,
        options: EngineOptions,
        manifest: Manifest,
        start: Start,
    ) -> Result<Self> {
        let ids = manifest.ids();
        let identity = Identity { database_id: ids.database_id, incarnation: ids.incarnation };
        let health = Arc::<Health>::default();
        let latencies = Arc::<Recorder>::default();
        let log = (!start.read_only && !options.vfs.is_volatile()).then(|| EventLog::new(path.to_path_buf()));
        let context = WalContext {
            vfs: Arc::clone(&options.vfs),
            dir: path.to_path_buf(),
            clock: Arc::clone(&options.clock),
            database_id: identity.database_id,
            incarnation: identity.incarnation,
            health: Arc::clone(&health),
            latencies: Arc::clone(&latencies),
            meter: Arc::clone(&start.meter),
        };
        let quota = Quota::new(Arc::clone(&start.meter));
        let limit = start.settings.database.max_total_disk_bytes;
        let kept = DatabaseConfig::from_settings(&manifest.state().settings).max_total_disk_bytes == limit
            && limit.is_some_and(|limit| start.meter.used() <= limit);
        quota.manifest.store(manifest.room(), Ordering::Relaxed);
        let state = manifest.state();
        let wal = Wal::new(context, start.wal_start(state));
        wal.set_limits(start.settings.log_limits());
        let tables = TableContext::new(Arc::clone(&options.vfs), path, &start.settings.database);
        if start.read_only {
            tables.observe();
        }
        let shared = Arc::new(Shared {
            stripes: stripes(&tables, state, &start.held, Now::of(&*options.clock)),
            tables,
            dir: path.to_path_buf(),
            vfs: options.vfs,
            clock: options.clock,
            workers: options.workers,
            durability: options.durability,
            read_only: start.read_only,
            damage: start.damage,
            identity,
            chunk: if options.workers == Workers::Manual { CHUNK_MANUAL } else { CHUNK },
            health,
            settings: ArcSwap::from_pointee(start.settings),
            wal,
            opened: AtomicBool::new(state.clean_end.is_none() && start.unfinished.is_none()),
            unfinished: Mutex::new(start.unfinished),
            manifest: Mutex::new(manifest),
            file_ids: start.file_ids,
            commits: super::commit::Commits::default(),
            memory: AtomicUsize::new(0),
            sealed_memory: AtomicUsize::new(0),
            newest_generation: AtomicU32::new(0),
            replayed: OnceLock::new(),
            obsolete: Mutex::default(),
            pins: super::pins::Pins::default(),
            held: super::held::Held::default(),
            untidy: AtomicBool::new(false),
            leftovers: Mutex::default(),
            background: Background::default(),
            quota: Arc::new(quota),
            counters: super::stats::Counters::default(),
            observed: Observed::new(options.counters, latencies, start.since),
            events: Events::new(options.listener, log),
            tuner: super::tuning::Tuner::new(options.memory_probe),
            closed: AtomicBool::new(false),
            process: Process::current(),
            gate: RwLock::new(()),
            lock: Mutex::new(start.lock),
            place: start.place,
        });
        // From here on dropping the engine closes it, also when the replay fails.
        let engine = Self { shared, pool: Pool::default(), closing: Mutex::default() };
        if let Some(chain) = &start.chain {
            let replayed = engine.shared.replay(&*start.log, chain);
            if let Err(error) = &replayed {
                // A clean close of what is in memory by now would give the rest of the log away.
                engine.shared.health.poison(error);
            }
            replayed?;
        }
        engine.shared.commits.replayed(start.next_seq.saturating_sub(1));
        // Not before: what recovery writes was paid for by the writes that it brings back.
        engine.shared.limit_disk(kept);
        Ok(engine)
    }
}

/// Where an engine goes on.
#[derive(Debug)]
pub(super) struct Start {
    /// The log to replay; `None` for a new database.
    pub(super) chain: Option<Chain>,
    pub(super) next_seq: SeqNo,
    pub(super) file_ids: FileIds,
    pub(super) settings: Settings,
    pub(super) read_only: bool,
    pub(super) lock: Option<LockGuard>,
    /// When opening began.
    pub(super) since: Duration,
    pub(super) meter: Arc<Meter>,
    pub(super) place: Arc<OnceLock<Place>>,
    /// Where the log to replay is read.
    pub(super) log: Arc<dyn Vfs>,
    /// SSTs that are mapped already.
    pub(super) held: BTreeMap<FileId, Arc<Mapping>>,
    /// SSTs that cannot be read: only a handle that reads opens beside them.
    pub(super) damage: Vec<Error>,
    pub(super) unfinished: Option<Unfinished>,
}

/// What recovery still has to write: steps 4 to 6. Done over when it fails.
#[derive(Debug)]
pub(crate) struct Unfinished {
    chain: Chain,
    harden_from: Lsn,
    changes: Vec<Change>,
    orphans: Vec<PathBuf>,
    hardened: bool,
}

impl Unfinished {
    /// `commit` appends an edit. Returns whether all orphans were removed: those that cannot be now are harmless, and
    /// tried again next time.
    pub(crate) fn finish(
        &mut self,
        vfs: &dyn Vfs,
        dir: &Path,
        commit: impl FnOnce(Vec<Change>) -> Result<()>,
    ) -> Result<bool> {
        if !self.hardened && !planted(Bug::TailNotHardened) {
            // All bytes are written before they are synced, so it may be tried again also after a failed sync.
            wal::harden(vfs, dir, &self.chain, self.harden_from)
                .map_err(|error| if error.is_out_of_space() { Error::DiskFull } else { error })?;
            self.hardened = true;
        }
        // The first edit of a resumed manifest writes a new one: its rename is the commit point.
        if !planted(Bug::CutNotRecorded) {
            commit(self.changes.clone())?;
        }
        if planted(Bug::OrphansKept) {
            return Ok(true);
        }
        let left = self.orphans.iter().filter(|orphan| vfs.remove(orphan).is_err()).count();
        Ok(left == 0)
    }
}

impl Start {
    fn wal_start(&self, state: &ManifestState) -> WalStart {
        let mut start = WalStart {
            next_generation: 1,
            next_seq: self.next_seq,
            end: Lsn::ZERO,
            resume: false,
            segments: Vec::new(),
            last_edit: state.edit,
        };
        if let Some(chain) = &self.chain {
            start.next_generation = match state.clean_end {
                Some(_) => chain.max_generation + 1,
                None => next_generation(chain),
            };
            start.end = chain.end;
            start.segments = chain.segments.clone();
            start.resume = chain.resumable;
        }
        if let Some(clean) = state.clean_end {
            start.next_generation = start.next_generation.max(clean.next_generation);
        }
        start
    }
}

impl Shared {
    /// Records go through the same insert as a put; full memtables are flushed on the way.
    fn replay(&self, log: &dyn Vfs, chain: &Chain) -> Result<()> {
        let flushed: BTreeMap<usize, SeqNo> =
            self.used_stripes().map(|stripe| (stripe.id, stripe.lock().state.flushed_to)).collect();
        let mut full = false;
        wal::replay(log, chain, |record| {
            self.replay_record(&record, &flushed)?;
            if !full {
                full = !self.flush_ahead()?;
            }
            Ok(())
        })?;
        self.newest_generation.store(chain.end.generation(), Ordering::Relaxed);
        Ok(())
    }

    fn replay_record(&self, record: &RecordRef<'_>, flushed: &BTreeMap<usize, SeqNo>) -> Result<()> {
        let damaged = |detail: String| {
            Error::corrupt(
                &paths::log(&self.dir, record.lsn.generation()),
                record.lsn.offset().into(),
                detail,
            )
        };
        let settings = self.settings.load();
        let (mut ops, mut bytes) = (0, 0);
        for (i, op) in Ops::new(record.payload).enumerate() {
            ops += 1;
            let file = paths::log(&self.dir, record.lsn.generation());
            let op = op.map_err(|bad| bad.in_file(&file, record.lsn.offset().into()))?;
            let seq = record.first_seq + i as u64;
            bytes += op.key.len() + op.value.len();
            let Some(hash) = encoded_partition_hash(op.key) else {
                return Err(damaged(format!("\"{}\" is no key", crate::escape::key(op.key))));
            };
            let id = stripe_of(hash, self.stripes.len());
            if flushed.get(&id).is_some_and(|&to| seq <= to) && !planted(Bug::FlushedReplayed) {
                continue;
            }
            let stripe = self.stripe(id)?.lock();
            let entry = EntryRef { key: op.key, seq, kind: op.kind, value: op.value };
            let inserted = stripe.insert(record.lsn, entry);
            if op.kind == EntryKind::Delete {
                stripe.deleted(|| Since::stamped(u64::from(record.time) * 1000, self.now()));
            }
            self.quota.memtables.fetch_add(u64::from(inserted.first), Ordering::Relaxed);
            self.memory.fetch_add(inserted.memory, Ordering::Relaxed);
            // With a quota as little as can be is written: each run takes a page at least, and space was set aside for
            // the memtables that there were when the limits may have been others. The next write seals it.
            if settings.database.max_total_disk_bytes.is_none()
                && stripe.is_full(&settings.database)
                && !self.read_only
                && let Some(memory) = stripe.seal()
            {
                self.sealed(id, memory);
            }
        }
        if ops != record.count {
            return Err(damaged(format!("the record says {} operations and holds {ops}", record.count)));
        }
        self.observed.replayed(bytes);
        self.commits.replayed(record.first_seq + u64::from(record.count.saturating_sub(1)));
        Ok(())
    }

    /// Keeps the replay within the memory budget: there are no workers yet. False when there is no space for that, and
    /// so all of the log must be in memory.
    fn flush_ahead(&self) -> Result<bool> {
        let budget = self.settings.load().memory_budget;
        while !self.read_only && self.memory.load(Ordering::Relaxed) > budget {
            let fullest = self.used_stripes().max_by_key(|stripe| {
                stripe.version().memtables().map(|memtable| memtable.memory()).sum::<usize>()
            });
            let Some(stripe) = fullest else { break };
            match self.ensure_opened().and_then(|()| self.flush_stripe_now(stripe.id)) {
                // Not from a sync, after which nothing may be written any more.
                Err(error) if error.is_out_of_space() && self.health.check().is_ok() => return Ok(false),
                flushed => flushed?,
            }
        }
        Ok(true)
    }

    /// Stores the settings in force.
    fn store_settings(&self) -> Result<()> {
        if self.settings_change(self.manifest.lock().state()).is_none() {
            return Ok(());
        }
        self.ensure_opened()?;
        let mut manifest = self.manifest.lock();
        match self.settings_change(manifest.state()) {
            Some(change) => self.append_edit(&mut manifest, vec![change]),
            None => Ok(()),
        }
    }
}

/// Settings given replace the stored ones whole. Of stored ones those that this version refuses are left out: `verify`
/// names them, and they are no reason not to read what is stored beside them.
pub(super) fn settings(options: &EngineOptions, state: &ManifestState) -> Settings {
    let database = options.config.clone();
    let database = database.unwrap_or_else(|| DatabaseConfig::stored(&state.settings).0);
    let compaction = options.compaction.clone();
    let compaction = compaction.unwrap_or_else(|| CompactionConfig::stored(&state.settings).0);
    let database = DatabaseConfig { stripes: Some(state.facts.stripes()), ..database };
    Settings::new(database, compaction, replay_rate::stored(&state.settings))
}

/// Where the log goes on after an unclean end. A segment that was removed comes back with a power cut if the sync of the
/// directory had failed, and is then dead as all between the cut and this one: its number must not be used again.
fn next_generation(chain: &Chain) -> u32 {
    chain.max_generation + GENERATION_GAP
}

/// The edit of an unclean open: the cut, and fresh reservations.
fn cut_changes(state: &ManifestState, chain: &Chain, seq: SeqNo) -> Vec<Change> {
    let cut = LogCut {
        generation: chain.end.generation(),
        end: chain.end.offset(),
        next_generation: next_generation(chain),
        seq,
    };
    vec![
        Change::Cut(cut),
        Change::LogStart { start: state.log_start, durable: chain.end.max(state.durable) },
        Change::Reserve { files_below: state.files_below + FileIds::BLOCK },
    ]
}

/// The file system, with the database's directory counted.
fn metered(path: &Path, options: EngineOptions) -> (EngineOptions, MeteredVfs) {
    let vfs = MeteredVfs::new(Arc::clone(&options.vfs), path);
    (EngineOptions { vfs: Arc::new(vfs.clone()), ..options }, vfs)
}

fn take_stock(vfs: &MeteredVfs, path: &Path) -> Result<()> {
    vfs.take_stock().map_err(Error::io("list", path))
}

pub(super) fn validate(options: &EngineOptions) -> Result<()> {
    options.config.as_ref().map_or(Ok(()), DatabaseConfig::validate)?;
    options.compaction.as_ref().map_or(Ok(()), CompactionConfig::validate)
}

/// A new id.
pub(super) fn random_id(clock: &dyn Clock) -> Id {
    (u128::from(clock.random()) << 64 | u128::from(clock.random())).to_le_bytes()
}

/// Removes the segments that a creation which was cut off left behind: they hold no records, and their names are
/// wanted.
fn remove_leftovers(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    for entry in vfs.list(path).map_err(Error::io("list", path))? {
        if matches!(paths::parse(&entry.name), FileName::Log(_)) {
            let file = path.join(&entry.name);
            vfs.remove(&file).map_err(Error::io("remove", &file))?;
        }
    }
    Ok(())
}

/// Takes the lock of a directory.
pub(super) fn lock(vfs: &dyn Vfs, path: &Path) -> Result<LockGuard> {
    let file = path.join(paths::LOCK);
    let owner = format!("{}\n", std::process::id());
    if planted(Bug::LockNotHeld) {
        return Ok(LockGuard(Box::new(())));
    }
    vfs.lock(&file, &owner).map(LockGuard).map_err(|e| lock_error(vfs, path, e))
}

/// Why the lock of a directory could not be taken, and who has it.
pub(super) fn lock_error(vfs: &dyn Vfs, path: &Path, error: std::io::Error) -> Error {
    let file = path.join(paths::LOCK);
    if error.kind() != std::io::ErrorKind::WouldBlock {
        return Error::io("lock", &file)(error);
    }
    let owner = vfs.open(&file, crate::vfs::OpenMode::Read).and_then(|f| crate::vfs::read_all(&*f, 64)).ok();
    let pid = owner.and_then(|owner| String::from_utf8(owner).ok()?.trim().parse().ok());
    Error::Locked { path: path.into(), pid }
}

pub(super) fn check_stripes(options: &EngineOptions, state: &ManifestState) -> Result<()> {
    let stored = state.facts.stripes();
    match options.config.as_ref().and_then(|config| config.stripes) {
        Some(asked) if asked != stored => Err(Error::config(
            "stripes",
            format!("the database was created with {stored}, which cannot change, not {asked}"),
        )),
        _ => Ok(()),
    }
}

/// The stripes that have SSTs, with their runs, newest first. No SST is opened.
fn stripes(
    tables: &Arc<TableContext>,
    state: &ManifestState,
    held: &BTreeMap<FileId, Arc<Mapping>>,
    now: Now,
) -> Box<[OnceLock<Box<Stripe>>]> {
    let mut runs: BTreeMap<u16, BTreeMap<std::cmp::Reverse<SeqNo>, Vec<Arc<Table>>>> = BTreeMap::new();
    for meta in state.ssts.values() {
        let age = std::cmp::Reverse(meta.run_seq.1);
        let table = match held.get(&meta.id) {
            Some(held) => Table::holding(tables, Arc::clone(meta), Arc::clone(held)),
            None => Table::new(tables, Arc::clone(meta)),
        };
        let table = Arc::new(table);
        runs.entry(meta.stripe).or_default().entry(age).or_default().push(table);
    }
    let mut stripe = |id: usize| {
        let flushed_to = state.flushed_to(id as u16, 0);
        let runs = runs.remove(&(id as u16)).unwrap_or_default();
        if flushed_to == 0 && runs.is_empty() {
            return OnceLock::new();
        }
        let runs = runs.into_values().map(|mut parts| {
            parts.sort_by_key(|table| table.meta().part);
            Arc::new(Run::found(parts, now))
        });
        OnceLock::from(Box::new(Stripe::new(id, runs.collect(), flushed_to)))
    };
    (0..state.facts.stripes()).map(&mut stripe).collect()
}

/// Files of ours that belong to nothing: SSTs that no edit lists, log segments that are dead.
fn orphans(path: &Path, state: &ManifestState, chain: &Chain, listing: &[DirEntry]) -> Vec<PathBuf> {
    let ours = listing.iter().filter(|entry| entry.is_file);
    let unlisted = ours
        .filter(|entry| matches!(paths::parse(&entry.name), FileName::Sst { id, .. } if !state.lists(id)));
    unlisted.map(|entry| path.join(&entry.name)).chain(chain.dead.iter().cloned()).collect()
}

#[cfg(test)]
mod tests;
