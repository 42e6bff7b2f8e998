//! What there is in a database's directory: looked at whole, before anything is changed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::manifest::{Loaded, ManifestState};
use crate::paths;
use crate::planted::{Bug, planted};
use crate::types::{Lsn, MAX_NUMBER, SeqNo};
use crate::vfs::{DirEntry, Vfs};
use crate::wal::{self, Chain, LogOwner, LogRules};

/// Sequences that are skipped after an unclean end, so that a number which was given out and lost is never given
/// out again.
pub(crate) const SEQ_GAP: u64 = 1 << 32;
/// Generations that are skipped after an unclean end: more than a handle begins while its syncs fail.
pub(crate) const GENERATION_GAP: u32 = 16;
/// No generation of a log that can be opened reaches it: what an opening skips still fits many times.
pub(crate) const MAX_GENERATION: u32 = u32::MAX - (1 << 20);

/// A manifest, and that what it needs is there.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) loaded: Loaded,
    pub(crate) listing: Vec<DirEntry>,
    pub(crate) chain: Chain,
    /// When reading the log began.
    pub(crate) began: Duration,
}

impl Survey {
    /// Looks whether everything that the manifest needs is there, and where the log ends; `log` is where its
    /// segments are read.
    pub(super) fn of(
        path: &Path,
        loaded: Loaded,
        listing: Vec<DirEntry>,
        log: &dyn Vfs,
        clock: &dyn Clock,
    ) -> Result<Self> {
        let (state, ids) = (&loaded.state, &loaded.ids);
        check_listed_files(path, state, &listing)?;
        let owner = LogOwner { database_id: ids.database_id, incarnation: ids.incarnation };
        let segments = wal::discover(log, path, owner)?;
        let rules = LogRules {
            log_start: state.log_start,
            cuts: state.cuts.clone(),
            durable: state.durable,
            clean_end: state.clean_end.map(|clean| clean.end.unwrap_or(Lsn::ZERO)),
            last_edit: state.edit,
        };
        let began = clock.monotonic();
        let chain = wal::validate(log, path, &segments, &rules)?;
        check_numbers(path, state, chain.last_seq, chain.max_generation)?;
        Ok(Self { loaded, listing, chain, began })
    }
}

/// Numbers that nobody counts up to are damage, and counting on from them would overflow. Opening, verify and repair all
/// ask here. The last sequence and the highest generation are those of the log.
pub(crate) fn check_numbers(
    path: &Path,
    state: &ManifestState,
    last_seq: SeqNo,
    max_generation: u32,
) -> Result<()> {
    let clean = state.clean_end.as_ref();
    let last = last_seq.max(state.base_seq()).max(clean.map_or(0, |clean| clean.next_seq));
    let bad = |what: &str, number: u64| {
        let detail = format!("{what} {number} is beyond all that a database reaches");
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

/// Every listed SST is there with its length; what is in it is checked when it is first read.
fn check_listed_files(path: &Path, state: &ManifestState, listing: &[DirEntry]) -> Result<()> {
    let lengths: BTreeMap<&str, (u64, bool)> =
        listing.iter().map(|entry| (entry.name.as_str(), (entry.len, entry.is_file))).collect();
    for meta in state.ssts.values() {
        let file = paths::sst(path, meta.stripe.into(), meta.id);
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match lengths.get(name.as_str()) {
            Some(&(len, true)) if len == meta.len => {}
            Some(&(len, true)) => {
                let detail = format!("the file has {len} bytes, the manifest lists {}", meta.len);
                return Err(Error::corrupt(&file, len.min(meta.len), detail));
            }
            Some(_) => return Err(Error::corrupt(&file, 0, "it is not a regular file")),
            None if planted(Bug::MissingSstBelieved) => {}
            None => return Err(Error::corrupt(&file, 0, "the manifest lists it, but it is missing")),
        }
    }
    Ok(())
}
