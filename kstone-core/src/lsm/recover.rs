//! RECOVER: opens a database, however its last handle ended.
//!
//! The order after an unclean end is the crash argument. Each step may be interrupted anywhere and repeated:
//! 1. Lock.
//! 2. Read the manifest.
//! 3. Validate the log and find its end. Nothing has been written so far.
//! 4. [`crate::wal::harden`]: the log's bytes above the last known sync are rewritten identically and synced: pages
//!    that a failed sync marked clean may be readable although they are not on disk.
//! 5. A new manifest records where the log was cut: the single commit point. Bytes past the cut are dead by that
//!    record; old segments are neither truncated nor appended to.
//! 6. The database's files that the manifest does not list are removed.
//! 7. [`replay`]: the log's records take the same insert path as a put, except those that are already in SSTs.
//!
//! With a long log, 4 to 6 and 7 happen at the same time, on threads that end with the call: memtables are nothing that
//! a crash leaves behind. A replay that has to flush first waits for 4 to 6.
//!
//! After a clean end only 1, 2, the check of the recorded end, and 7 remain, and nothing is written.
//!
//! On a full disk, 4 to 6 are postponed ([`unfinished::Unfinished`]): the data can be read, and the first write retries
//! these steps; it fails with `DiskFull` as long as there is no space.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::assemble::Start;
use super::io::FileIds;
use super::lifecycle::Access;
use super::lock::LockGuard;
use super::open::{check_stripes, settings, take_stock};
use super::options::EngineOptions;
use super::state::Shared;
use super::validate::{SEQ_GAP, Validated, check_newest, next_generation};
use super::{LsmEngine, trace};
use crate::error::Result;
use crate::manifest::{Change, Manifest, ManifestState};
use crate::parallel;
use crate::paths::{self, FileName};
use crate::planted::{Bug, planted};
use crate::types::{LogCut, SeqNo};
use crate::vfs::{DirEntry, MeteredVfs};
use crate::wal::Chain;

mod replay;
#[cfg(test)]
mod tests;
pub(super) mod unfinished;

use unfinished::Unfinished;

impl LsmEngine {
    pub(super) fn recover(
        path: &Path,
        options: EngineOptions,
        lock: LockGuard,
        metered: &MeteredVfs,
    ) -> Result<Self> {
        let since = options.clock.monotonic();
        let _span = trace::open(path, false);
        let vfs = Arc::clone(&options.vfs);
        let threads = options.workers.threads();
        // Nothing else changes the directory from here on: it is locked.
        let (listing, loaded) = parallel::both(
            threads.for_manifest(|| Manifest::len_of(&*vfs, path)),
            || take_stock(metered, path),
            || Manifest::load(&*vfs, path).map(|loaded| (check_newest(&*vfs, path, &loaded.state), loaded)),
        );
        let (listing, (newest, loaded)) = (listing?, loaded?);
        check_stripes(&options, &loaded.state)?;
        let Validated { loaded, listing, chain, began } =
            Validated::of(path, loaded, listing, newest, &*vfs, &*options.clock, threads)?;
        let state = &loaded.state;
        // An incomplete edit after the clean end would have cancelled it: nothing was written since.
        let clean_end = state.clean_end;
        let base = chain.last_seq.max(state.base_seq());
        let settings = settings(&options, state);

        let gap = if planted(Bug::SequencesReissued) { 1 } else { SEQ_GAP };
        let next_seq = clean_end.map_or(base.saturating_add(gap), |clean| clean.next_seq);
        let unused = match planted(Bug::FileIdReused) {
            true => state.ssts.last_key_value().map_or(1, |(&id, _)| id + 1),
            false => state.files_below,
        };
        let next_file = clean_end.map_or(unused, |clean| clean.next_file);
        let unfinished = clean_end.is_none().then(|| Unfinished {
            harden_from: chain.watermark.max(state.durable),
            changes: cut_changes(state, &chain, next_seq - 1),
            chain: chain.clone(),
            orphans: orphans(path, state, &chain, &listing),
            hardened: false,
        });
        let manifest = Manifest::resume(Arc::clone(&vfs), path, loaded);
        let file_ids = FileIds::new(next_file, manifest.state().files_below.max(next_file));
        let store_settings = options.config.is_some() || options.compaction.is_some();
        let start = Start {
            chain: Some(chain),
            next_seq,
            file_ids,
            settings,
            access: Access::Write { lock, place: Arc::clone(metered.place()), unfinished },
            since,
            meter: Arc::clone(metered.meter()),
            log: vfs,
            held: BTreeMap::new(),
        };
        let engine = Self::assemble(path, options, manifest, start)?;
        engine.shared.measure_replay(began);
        if store_settings {
            match engine.shared.store_settings() {
                // The settings are in force nevertheless, and are stored with the next edit.
                Err(error) if error.is_out_of_space() && engine.shared.life.health().check().is_ok() => {}
                stored => stored?,
            }
        }
        engine.shared.observed.opened(false, clean_end.is_some(), false);
        // A process that only read may have died after a clean end and left a statistics file behind.
        let stats = |entry: &DirEntry| matches!(paths::parse(&entry.name), FileName::Stats);
        if listing.iter().any(stats) {
            engine.shared.observed.note_stats_file();
        }
        engine.keep_time();
        Ok(engine)
    }
}

impl Shared {
    /// Stores the settings in force.
    fn store_settings(&self) -> Result<()> {
        if self.settings_change(self.io.manifest().state()).is_none() {
            return Ok(());
        }
        self.ensure_opened()?;
        let mut manifest = self.io.manifest();
        match self.settings_change(manifest.state()) {
            Some(change) => self.append_edit(&mut manifest, vec![change]),
            None => Ok(()),
        }
    }
}

/// The changes of an unclean open: the cut, and fresh reservations.
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

/// The database's files that are not in use: SSTs that no edit lists, dead log segments, and the log buffer, whose
/// records are in their segment when these files are removed.
fn orphans(path: &Path, state: &ManifestState, chain: &Chain, listing: &[DirEntry]) -> Vec<PathBuf> {
    let ours = listing.iter().filter(|entry| entry.is_file);
    let unlisted = ours.filter(|entry| match paths::parse(&entry.name) {
        FileName::Sst { id, .. } => !state.lists(id),
        FileName::LogBuffer => true,
        _ => false,
    });
    unlisted.map(|entry| path.join(&entry.name)).chain(chain.dead.iter().cloned()).collect()
}
