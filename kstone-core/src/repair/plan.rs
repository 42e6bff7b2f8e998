//! What becomes of each run. Decides, and reads only what it needs to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::RepairOptions;
use super::examine::{Candidate, Patient};
use crate::error::{Error, Result};
use crate::key::{encoded_partition_hash, stripe_of};
use crate::manifest::Facts;
use crate::paths;
use crate::sst::Survey;
use crate::types::{FileId, MAX_STRIPES, RunId, SeqNo};

/// Sequences that are skipped, as a recovery does: a number that was given out and lost must not be given out again.
const SEQ_GAP: u64 = 1 << 32;
/// File numbers that are skipped without a manifest, which alone knows what was reserved.
const FILE_GAP: u64 = 1 << 20;

/// Runs that stay, are rewritten, or become one.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) run_seq: (SeqNo, SeqNo),
    pub(super) depth: u32,
    /// Each with its parts in key order.
    pub(super) runs: Vec<Vec<Candidate>>,
}

impl Cluster {
    /// Whether it is one run of which nothing is wrong.
    pub(super) fn is_whole(&self) -> bool {
        self.keeps_parts() && self.runs.iter().flatten().all(|part| part.clean)
    }

    /// Whether it is one run, of which parts can stay as they are.
    pub(super) fn keeps_parts(&self) -> bool {
        self.runs.len() == 1
    }

    pub(super) fn covers(&self, seq: SeqNo) -> bool {
        (self.run_seq.0..=self.run_seq.1).contains(&seq)
    }
}

/// What is to be done.
pub(super) struct Plan {
    pub(super) rebuilt: bool,
    pub(super) keep_log: bool,
    pub(super) facts: Facts,
    pub(super) settings: Vec<(String, u64)>,
    pub(super) keyspaces: BTreeMap<u32, Arc<str>>,
    /// The number of the new manifest's edit.
    pub(super) edit: u64,
    pub(super) clusters: BTreeMap<u16, Vec<Cluster>>,
    pub(super) next_seq: SeqNo,
    pub(super) next_file: FileId,
    /// Every generation of the log below it is done with.
    pub(super) generation: u32,
    /// Files that are replaced: kept in quarantine, then removed.
    pub(super) replaced: Vec<PathBuf>,
}

pub(super) fn plan(patient: &Patient, options: &RepairOptions) -> Result<Plan> {
    let state = patient.state.as_ref();
    let facts = match state {
        Some(state) => state.facts.clone(),
        None => Facts::new(stripes(patient)?, patient.ids.created_ms),
    };
    let keep_log = patient.trusted && patient.log_is_good && options.into.is_none();
    let clusters = clusters(patient);
    let mut plan = Plan {
        rebuilt: !patient.trusted,
        keep_log,
        settings: state.map(|state| state.settings.clone()).unwrap_or_default(),
        keyspaces: state.map_or_else(|| [(0, "items".into())].into(), |state| state.keyspaces.clone()),
        edit: state.map_or(0, |state| state.edit).max(patient.log.last_edit).saturating_add(1),
        next_seq: next_seq(patient),
        next_file: next_file(patient),
        generation: generation(patient),
        replaced: Vec::new(),
        facts,
        clusters,
    };
    for cluster in plan.clusters.values().flatten().filter(|cluster| !cluster.is_whole()) {
        let gone = |part: &&Candidate| !part.clean || !cluster.keeps_parts();
        for part in cluster.runs.iter().flatten().filter(gone) {
            let named = paths::sst(&patient.directory.dir, part.meta.stripe.into(), part.meta.id);
            plan.replaced.extend(part.path.clone());
            plan.replaced
                .extend(patient.directory.entry(&named).filter(|entry| entry.is_file).map(|_| named));
        }
    }
    plan.replaced.extend(patient.strangers.iter().chain(&patient.unknown).cloned());
    if !keep_log {
        plan.replaced.extend(patient.log.files.iter().cloned());
    }
    plan.replaced.retain(|path| !patient.irregular.contains(path));
    plan.replaced.sort();
    plan.replaced.dedup();
    Ok(plan)
}

/// How many stripes make every key belong to the stripe of its file: any number that does will do.
fn stripes(patient: &Patient) -> Result<usize> {
    let mut possible: Vec<usize> = (0..=MAX_STRIPES.trailing_zeros()).map(|bits| 1 << bits).collect();
    for candidate in &patient.candidates {
        let Some(path) = &candidate.path else { continue };
        let survey = Survey::read(&*patient.directory.vfs, path, &candidate.meta)?;
        for entry in (0..survey.blocks.len()).flat_map(|n| survey.entries(n)) {
            if let Some(hash) = encoded_partition_hash(&entry.key) {
                possible.retain(|&stripes| stripe_of(hash, stripes) == usize::from(candidate.meta.stripe));
            }
        }
    }
    possible.pop().ok_or_else(|| {
        let detail = "the keys in the SSTs do not agree on how many stripes there are";
        Error::corrupt(&patient.directory.dir.join(paths::MANIFEST), 0, detail)
    })
}

/// Runs by stripe, oldest first; those that overlap in sequence together.
fn clusters(patient: &Patient) -> BTreeMap<u16, Vec<Cluster>> {
    let mut runs = BTreeMap::<(u16, SeqNo, SeqNo, RunId), Vec<Candidate>>::new();
    for candidate in &patient.candidates {
        let meta = &candidate.meta;
        let run = (meta.stripe, meta.run_seq.0, meta.run_seq.1, meta.run);
        runs.entry(run).or_default().push(candidate.clone());
    }
    let mut clusters = BTreeMap::<u16, Vec<Cluster>>::new();
    for ((stripe, low, high, _), mut parts) in runs {
        parts.sort_by_key(|part| part.meta.part);
        let depth = parts.iter().map(|part| part.meta.depth).max().unwrap_or(0);
        let of_stripe = clusters.entry(stripe).or_default();
        match of_stripe.last_mut().filter(|last| last.run_seq.1 >= low) {
            Some(last) => {
                last.run_seq.1 = last.run_seq.1.max(high);
                last.depth = last.depth.max(depth);
                last.runs.push(parts);
            }
            None => of_stripe.push(Cluster { run_seq: (low, high), depth, runs: vec![parts] }),
        }
    }
    clusters
}

fn next_seq(patient: &Patient) -> SeqNo {
    let state = patient.state.as_ref();
    let known = [
        state.map_or(0, |state| state.max_flushed_to()),
        state.and_then(|state| state.clean_end).map_or(0, |clean| clean.next_seq),
        state.map_or(0, |state| state.cuts.iter().map(|cut| cut.seq).max().unwrap_or(0)),
        patient.log.last_seq,
        patient.log.gaps.iter().filter_map(|gap| gap.before).max().unwrap_or(0),
        patient.candidates.iter().map(|candidate| candidate.meta.run_seq.1).max().unwrap_or(0),
    ];
    known.into_iter().max().unwrap_or(0).saturating_add(SEQ_GAP)
}

fn next_file(patient: &Patient) -> FileId {
    let named = patient.directory.ssts().map(|(_, _, id)| id.saturating_add(1)).max().unwrap_or(1);
    let found =
        patient.candidates.iter().map(|candidate| candidate.meta.id.saturating_add(1)).max().unwrap_or(1);
    match &patient.state {
        Some(state) if patient.trusted => state.files_below.max(named),
        Some(state) => state.files_below.max(named).max(found).saturating_add(FILE_GAP),
        None => named.max(found).saturating_add(FILE_GAP),
    }
}

fn generation(patient: &Patient) -> u32 {
    let state = patient.state.as_ref();
    let known = [
        patient.log.max_generation,
        state.map_or(0, |state| state.log_start.generation().max(state.durable.generation())),
        state.map_or(0, |state| state.cuts.iter().map(|cut| cut.next_generation).max().unwrap_or(0)),
        state.and_then(|state| state.clean_end).map_or(0, |clean| clean.next_generation),
    ];
    known.into_iter().max().unwrap_or(0).saturating_add(1)
}
