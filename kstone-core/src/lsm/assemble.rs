//! Assembles an engine from its parts, and replays the log into it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::LsmEngine;
use super::background::{Background, Pool};
use super::event_log::EventLog;
use super::event_queue::Events;
use super::io::{FileIds, Io};
use super::lifecycle::{Access, Identity, Lifecycle};
use super::observe::Observed;
use super::options::{EngineOptions, Workers};
use super::removal::Removal;
use super::settings::Settings;
use super::space::Space;
use super::state::Shared;
use super::stripes::Stripes;
use super::validate::next_generation;
use crate::clock::Now;
use crate::config::DatabaseConfig;
use crate::error::Result;
use crate::health::Health;
use crate::latency::Recorder;
use crate::manifest::{Manifest, ManifestState};
use crate::memtable::ChunkPool;
use crate::sst::{Table, TableContext};
use crate::stripe::Stripe;
use crate::sync::{ArcSwap, Mutex};
use crate::types::{FileId, Lsn, SeqNo, SstMeta};
use crate::version::Run;
use crate::vfs::{Mapping, Meter, Vfs};
use crate::wal::{Chain, Wal, WalContext, WalStart};

/// Entries that one step of a job processes: enough to be cheap, few enough to stop soon.
const CHUNK: usize = 4096;
/// The same for tests, so that steps of different jobs interleave.
const CHUNK_MANUAL: usize = 8;

/// The state that an engine starts from.
#[derive(Debug)]
pub(super) struct Start {
    /// The log to replay; `None` for a new database.
    pub(super) chain: Option<Chain>,
    pub(super) next_seq: SeqNo,
    pub(super) file_ids: FileIds,
    pub(super) settings: Settings,
    pub(super) access: Access,
    /// When opening started.
    pub(super) since: Duration,
    pub(super) meter: Arc<Meter>,
    /// The file system to read the log from.
    pub(super) log: Arc<dyn Vfs>,
    /// SSTs that are already mapped.
    pub(super) held: BTreeMap<FileId, Arc<Mapping>>,
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

impl LsmEngine {
    /// Assembles the parts and replays the log into them.
    pub(super) fn assemble(
        path: &Path,
        options: EngineOptions,
        manifest: Manifest,
        mut start: Start,
    ) -> Result<Self> {
        let limit = start.settings.database.max_total_disk_bytes;
        let kept = DatabaseConfig::from_settings(&manifest.state().settings).max_total_disk_bytes == limit
            && limit.is_some_and(|limit| start.meter.used() <= limit);
        let wal_start = start.wal_start(manifest.state());
        let (chain, log, next_seq) = (start.chain.take(), Arc::clone(&start.log), start.next_seq);
        let shared = Arc::new(Shared::new(path, options, manifest, start, wal_start));
        // From here on dropping the engine closes it, even when the replay fails.
        let engine = Self { shared, pool: Pool::default(), closing: Mutex::default() };
        if let Some(chain) = &chain {
            let recovered = engine.shared.finish_and_replay(&*log, chain);
            if let Err(error) = &recovered {
                // A clean close of the partial state would discard the rest of the log.
                engine.shared.life.health().poison(error);
            }
            recovered?;
        }
        engine.shared.commits.replayed(next_seq.saturating_sub(1));
        // Not earlier: space for what recovery writes was reserved by the writes that it restores.
        engine.shared.limit_disk(kept);
        Ok(engine)
    }
}

impl Shared {
    /// Starts with the runs that the manifest lists, and empty memtables.
    fn new(
        path: &Path,
        options: EngineOptions,
        manifest: Manifest,
        start: Start,
        wal_start: WalStart,
    ) -> Self {
        let ids = manifest.ids();
        let identity = Identity { database_id: ids.database_id, incarnation: ids.incarnation };
        let health = Arc::<Health>::default();
        let latencies = Arc::<Recorder>::default();
        let life =
            Lifecycle::new(identity, Arc::clone(&health), manifest.state().clean_end.is_some(), start.access);
        let log = (!life.is_read_only() && !options.vfs.is_volatile())
            .then(|| EventLog::new(Arc::clone(&options.vfs), path.to_path_buf(), Arc::clone(&start.meter)));
        let clock = || Arc::clone(&options.clock);
        let events = Events::new(clock(), Arc::clone(&health), options.listener, log);
        let observed = Observed::new(clock(), options.counters, Arc::clone(&latencies), events, start.since);
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
        let wal = Wal::new(context, wal_start);
        wal.set_limits(start.settings.log_limits());
        let tables = {
            let memory = Arc::clone(&options.memory_probe);
            TableContext::new(Arc::clone(&options.vfs), path, &start.settings.database, memory)
        };
        if life.is_read_only() {
            tables.observe();
        }
        Self {
            life,
            space: Space::new(start.meter, manifest.room()),
            stripes: stripes(&tables, manifest.state(), &start.held, Now::of(&*options.clock)),
            io: Io::new(path.to_path_buf(), options.vfs, wal, manifest, start.file_ids, tables),
            clock: options.clock,
            workers: options.workers,
            durability: options.durability,
            chunk: if options.workers == Workers::Manual { CHUNK_MANUAL } else { CHUNK },
            settings: ArcSwap::from_pointee(start.settings),
            commits: super::commit::Commits::default(),
            removal: Removal::default(),
            held: super::held::Held::default(),
            background: Background::default(),
            observed,
            tuner: super::tuning::Tuner::new(options.memory_probe),
        }
    }
}

/// The stripes that have SSTs, with their runs, newest first. No SST is opened.
fn stripes(
    tables: &Arc<TableContext>,
    state: &ManifestState,
    held: &BTreeMap<FileId, Arc<Mapping>>,
    now: Now,
) -> Stripes {
    let mut metas: Vec<_> = state.ssts.values().collect();
    metas.sort_by_key(|meta| (meta.stripe, Reverse(meta.run_seq.1), meta.part));
    let mut metas = metas.as_slice();
    let table = |meta: &Arc<SstMeta>| {
        Arc::new(match held.get(&meta.id) {
            Some(held) => Table::holding(tables, Arc::clone(meta), Arc::clone(held)),
            None => Table::new(tables, Arc::clone(meta)),
        })
    };
    let chunks = Arc::<ChunkPool>::default();
    let mut stripe = |id: usize| {
        let flushed_to = state.flushed_to(id as u16, 0);
        let of_stripe;
        (of_stripe, metas) = metas.split_at(metas.partition_point(|meta| usize::from(meta.stripe) <= id));
        if flushed_to == 0 && of_stripe.is_empty() {
            return None;
        }
        let runs = of_stripe.chunk_by(|a, b| a.run_seq.1 == b.run_seq.1);
        let runs =
            runs.map(|parts| Arc::new(Run::found(parts.iter().map(|meta| table(meta)).collect(), now)));
        Some(Stripe::new(id, runs.collect(), flushed_to, &chunks))
    };
    Stripes::new((0..state.facts.stripes()).map(&mut stripe), Arc::clone(&chunks))
}
