//! Examines a database directory as a whole before anything is changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::manifest::{Ids, Loaded, ManifestState};
use crate::parallel::Threads;
use crate::paths::{self, FileName};
use crate::planted::{Bug, planted};
use crate::record::check_batch;
use crate::sst;
use crate::types::{FileId, Lsn, MAX_NUMBER, SeqNo};
use crate::vfs::{DirEntry, Mapping, Vfs};
use crate::wal::{self, Chain, LogOwner, LogRules, RecordRef, Segment};

/// Sequences skipped after an unclean end, so that a sequence that was assigned and lost is never assigned again.
pub(crate) const SEQ_GAP: u64 = 1 << 32;
/// Generations skipped after an unclean end: more than a handle can start while its syncs fail.
pub(crate) const GENERATION_GAP: u32 = 16;
/// The number of SSTs whose format is checked when a database is opened.
const NEWEST: usize = 64;
/// Above every generation of a log that can be opened. Leaves space for the generations that many openings skip.
pub(crate) const MAX_GENERATION: u32 = u32::MAX - (1 << 20);

/// A manifest whose files are all present.
#[derive(Debug)]
pub(crate) struct Validated {
    pub(crate) loaded: Loaded,
    pub(crate) listing: Vec<DirEntry>,
    pub(crate) chain: Chain,
    /// When reading the log started.
    pub(crate) began: Duration,
}

impl Validated {
    /// Checks that everything the manifest needs is present, and finds the end of the log. Loading the manifest has
    /// already rejected whatever this version does not support. `newest` is the result of [`check_newest`], which matters
    /// only if no SST is damaged.
    pub(super) fn of(
        path: &Path,
        loaded: Loaded,
        listing: Vec<DirEntry>,
        newest: Result<()>,
        vfs: &dyn Vfs,
        clock: &dyn Clock,
        threads: Threads,
    ) -> Result<Self> {
        match damaged_files(path, &loaded.state, &listing, &BTreeMap::new()).pop_first() {
            Some((_, error)) => Err(error),
            None => {
                newest?;
                let segments = wal::discover_in(&listing, vfs, path, log_owner(&loaded.ids))?;
                Self::of_log(path, loaded, listing, (vfs, segments), clock, threads, None)
            }
        }
    }

    /// The same without checking the SSTs. The log's segments are read through the file system beside them; they may
    /// have been written to when the manifest was at a later edit.
    pub(super) fn of_log(
        path: &Path,
        loaded: Loaded,
        listing: Vec<DirEntry>,
        (log, segments): (&dyn Vfs, Vec<Segment>),
        clock: &dyn Clock,
        threads: Threads,
        later_edit: Option<u64>,
    ) -> Result<Self> {
        let state = &loaded.state;
        let mut rules = log_rules(state);
        rules.last_edit = later_edit.unwrap_or(state.edit);
        let began = clock.monotonic();
        // Recovery writes before it replays, and a log that cannot be replayed must be left as it is.
        let check = |record: RecordRef<'_>| {
            let file = || paths::log(path, record.lsn.generation());
            check_batch(record.payload, record.count, file, record.lsn.offset().into())
        };
        let check = state.clean_end.is_none().then_some(&check as &wal::CheckBatch<'_>);
        let (chain, checked) = wal::validate_batches(log, path, &segments, &rules, threads, check)?;
        check_numbers(path, state, chain.last_seq, chain.max_generation)?;
        checked?;
        Ok(Self { loaded, listing, chain, began })
    }
}

/// The owner of the log, according to the manifest.
pub(crate) fn log_owner(ids: &Ids) -> LogOwner {
    LogOwner { database_id: ids.database_id, incarnation: ids.incarnation }
}

/// The facts that the manifest records about the log.
pub(crate) fn log_rules(state: &ManifestState) -> LogRules {
    LogRules {
        log_start: state.log_start,
        cuts: state.cuts.iter().copied().collect(),
        durable: state.durable,
        clean_end: state.clean_end.map(|clean| clean.end.unwrap_or(Lsn::ZERO)),
        last_edit: state.edit,
    }
}

/// The generation at which the log continues after an unclean end. If the sync of the directory failed, a removed
/// segment reappears after a power cut; it is then dead, as is every segment between the cut and this generation.
/// So its number must not be reused.
pub(super) fn next_generation(chain: &Chain) -> u32 {
    chain.max_generation + GENERATION_GAP
}

/// Rejects numbers that no database reaches by counting: they are damage, and counting on from them would overflow.
/// Opening, verify and repair all use this check. The last sequence and the highest generation are those found in the
/// log.
pub(crate) fn check_numbers(
    path: &Path,
    state: &ManifestState,
    last_seq: SeqNo,
    max_generation: u32,
) -> Result<()> {
    let clean = state.clean_end.as_ref();
    let last = last_seq.max(state.base_seq()).max(clean.map_or(0, |clean| clean.next_seq));
    let bad = |what: &str, number: u64| {
        let detail = format!("{what} {number} is higher than any that a database can reach");
        Err(Error::corrupt(&path.join(paths::MANIFEST), 0, detail))
    };
    for (what, number) in [
        ("sequence", last.saturating_add(SEQ_GAP)),
        ("file", state.files_below.max(clean.map_or(0, |clean| clean.next_file))),
        ("edit", state.edit),
    ] {
        if number > MAX_NUMBER {
            return bad(what, number);
        }
    }
    let cuts = state.cuts.iter().map(|cut| cut.next_generation);
    let known = [state.log_start.generation(), state.durable.generation()];
    let known = known.into_iter().chain(cuts).chain(clean.map(|clean| clean.next_generation));
    if let Some(generation) = known.max().filter(|&generation| generation >= MAX_GENERATION) {
        return bad("log generation", generation.into());
    }
    if max_generation >= MAX_GENERATION {
        let detail = "there is no log generation after it";
        return Err(Error::corrupt(&paths::log(path, max_generation), 0, detail));
    }
    Ok(())
}

/// Rejects SSTs that a newer version wrote in a format of its own. Only the newest are checked, so that opening does
/// not take longer the more SSTs there are: SSTs written by a newer version are among the last written. One that
/// remains among older files is rejected at its first use.
pub(super) fn check_newest(vfs: &dyn Vfs, path: &Path, state: &ManifestState) -> Result<()> {
    let mut newest = state.ssts.values().rev().take(NEWEST);
    newest.try_for_each(|meta| sst::refuse_newer(vfs, path, meta))
}

/// Listed SSTs that are missing or have the wrong length; their contents are checked when they are first read. An SST
/// that is held no longer needs its name.
pub(super) fn damaged_files(
    path: &Path,
    state: &ManifestState,
    listing: &[DirEntry],
    held: &BTreeMap<FileId, Arc<Mapping>>,
) -> BTreeMap<FileId, Error> {
    let mut damaged = BTreeMap::new();
    let ssts = listing.iter().filter_map(|entry| match paths::parse(&entry.name) {
        FileName::Sst { stripe, id } => Some(((id, stripe), entry)),
        _ => None,
    });
    let mut ssts: Vec<((FileId, usize), &DirEntry)> = ssts.collect();
    ssts.sort_unstable_by_key(|&(name, _)| name);
    let mut ssts = ssts.into_iter().peekable();
    // In the order of the files' numbers, like the listing.
    for meta in state.ssts.values() {
        let stripe = meta.stripe.into();
        while ssts.next_if(|&(name, _)| name < (meta.id, stripe)).is_some() {}
        let found = ssts.next_if(|&(name, _)| name == (meta.id, stripe));
        let (at, detail) = match found.map(|(_, entry)| entry) {
            Some(entry) if entry.is_file && entry.len == meta.len => continue,
            Some(&DirEntry { len, is_file: true, .. }) => {
                let detail = format!("the file has {len} bytes, the manifest lists {}", meta.len);
                (len.min(meta.len), detail)
            }
            Some(_) => (0, "it is not a regular file".into()),
            None if held.contains_key(&meta.id) => continue,
            None if planted(Bug::MissingSstBelieved) => continue,
            None => (0, "the manifest lists it, but it is missing".into()),
        };
        damaged.insert(meta.id, Error::corrupt(&paths::sst(path, stripe, meta.id), at, detail));
    }
    damaged
}
