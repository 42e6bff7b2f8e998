//! Decides what happens to each run, reading as little as possible.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::Versions;
use super::examine::{Candidate, DamagedDatabase};
use crate::key::stripe_of;
use crate::lsm::validate::{GENERATION_GAP, MAX_GENERATION, SEQ_GAP};
use crate::manifest::Facts;
use crate::paths;
use crate::types::{FileId, MAX_NUMBER, RunId, SeqNo};

/// File numbers skipped without a manifest, because only the manifest records which numbers were reserved.
const FILE_GAP: u64 = 1 << 20;

/// Runs that are kept, rewritten, or merged into one.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) run_seq: (SeqNo, SeqNo),
    pub(super) depth: u32,
    /// Each run with its parts in key order.
    pub(super) runs: Vec<Vec<Candidate>>,
    /// Entries found in files of other stripes that belong here.
    pub(super) strays: Versions,
}

impl Cluster {
    /// Whether this is one run, and intact.
    pub(super) fn is_whole(&self) -> bool {
        self.keeps_parts() && self.runs.iter().flatten().all(|part| part.clean)
    }

    /// Whether this is one run, whose parts can be kept.
    pub(super) fn keeps_parts(&self) -> bool {
        self.runs.len() == 1 && self.strays.is_empty()
    }

    pub(super) fn covers(&self, seq: SeqNo) -> bool {
        (self.run_seq.0..=self.run_seq.1).contains(&seq)
    }
}

/// The repair to carry out.
pub(super) struct Plan {
    pub(super) rebuilt: bool,
    pub(super) keep_log: bool,
    pub(super) facts: Facts,
    pub(super) settings: Vec<(String, u64)>,
    pub(super) keyspaces: BTreeMap<u32, Arc<str>>,
    /// The number of the new manifest's edit.
    pub(super) edit: u64,
    pub(super) clusters: BTreeMap<u16, Vec<Cluster>>,
    /// Entries found in files of other stripes, by the stripe that they belong to, that no run can have contained.
    pub(super) strays: BTreeMap<u16, Versions>,
    pub(super) next_seq: SeqNo,
    pub(super) next_file: FileId,
    /// All log generations below this are obsolete.
    pub(super) generation: u32,
    /// Files that are replaced: kept in quarantine, then removed.
    pub(super) replaced: Vec<PathBuf>,
}

pub(super) fn plan(patient: &DamagedDatabase) -> Plan {
    let state = patient.state.as_ref();
    let facts = state.map(|state| state.facts.clone());
    let facts = facts.unwrap_or_else(|| Facts::new(patient.stripes, patient.ids.created_ms));
    let keep_log = patient.log_stays;
    let mut clusters = clusters(patient);
    let strays = place_strays(patient, &mut clusters);
    let mut plan = Plan {
        rebuilt: !patient.trusted,
        keep_log,
        settings: state.map(|state| state.settings.clone()).unwrap_or_default(),
        keyspaces: state.map_or_else(|| [(0, "items".into())].into(), |state| state.keyspaces.clone()),
        edit: highest([state.map_or(0, |state| state.edit), patient.log.last_edit]).saturating_add(1),
        next_seq: next_seq(patient),
        next_file: next_file(patient),
        generation: generation(patient),
        replaced: Vec::new(),
        facts,
        clusters,
        strays,
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
    plan.replaced.extend(patient.foreign_files.iter().chain(&patient.unknown).cloned());
    if !keep_log {
        plan.replaced.extend(patient.log.files.iter().chain(&patient.log.buffer).cloned());
    }
    plan.replaced.retain(|path| !patient.irregular.contains(path));
    plan.replaced.sort();
    plan.replaced.dedup();
    plan
}

/// The highest of these numbers that a database can reach; higher ones are damage.
fn highest(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().filter(|&number| number <= MAX_NUMBER - SEQ_GAP).max().unwrap_or(0)
}

/// Assigns each entry found in another stripe's file to the cluster that can have contained it; returns the others, by
/// stripe.
fn place_strays(
    patient: &DamagedDatabase,
    clusters: &mut BTreeMap<u16, Vec<Cluster>>,
) -> BTreeMap<u16, Versions> {
    let mut rest = BTreeMap::<u16, Versions>::new();
    for (hash, (key, seq, kind, value)) in &patient.strays {
        let stripe = stripe_of(*hash, patient.stripes) as u16;
        let of_stripe = clusters.get_mut(&stripe);
        let cluster = of_stripe.and_then(|all| all.iter_mut().find(|cluster| cluster.covers(*seq)));
        let place = match cluster {
            Some(cluster) => &mut cluster.strays,
            None => rest.entry(stripe).or_default(),
        };
        place.insert((key.clone(), Reverse(*seq)), (*kind, value.clone()));
    }
    rest
}

/// Runs by stripe, oldest first; runs whose sequences overlap form one cluster.
fn clusters(patient: &DamagedDatabase) -> BTreeMap<u16, Vec<Cluster>> {
    let mut runs = BTreeMap::<(u16, SeqNo, SeqNo, RunId), Vec<Candidate>>::new();
    for candidate in &patient.candidates {
        let meta = &candidate.meta;
        let run = (meta.stripe, meta.run_seq.0, meta.run_seq.1, meta.run);
        runs.entry(run).or_default().push(candidate.clone());
    }
    let mut clusters = BTreeMap::<u16, Vec<Cluster>>::new();
    for ((stripe, low, high, _), mut parts) in runs {
        parts.sort_by_key(|part| part.meta.part);
        let fit = |pair: &[Candidate]| match pair {
            [a, b] => a.meta.keys.1 < b.meta.keys.0,
            _ => true,
        };
        let fits = parts.windows(2).all(fit);
        let depth = parts.iter().map(|part| part.meta.depth).max().unwrap_or(0);
        let of_stripe = clusters.entry(stripe).or_default();
        match of_stripe.last_mut().filter(|last| last.run_seq.1 >= low) {
            Some(last) => {
                last.run_seq.1 = last.run_seq.1.max(high);
                last.depth = last.depth.max(depth);
            }
            None => of_stripe.push(Cluster {
                run_seq: (low, high),
                depth,
                runs: Vec::new(),
                strays: Versions::new(),
            }),
        }
        // There is one: it was found above, or just pushed.
        let Some(cluster) = of_stripe.last_mut() else { continue };
        match fits {
            true => cluster.runs.push(parts),
            // Parts that overlap do not form a run: each is treated as a run.
            false => cluster.runs.extend(parts.into_iter().map(|part| vec![part])),
        }
    }
    clusters
}

fn next_seq(patient: &DamagedDatabase) -> SeqNo {
    let state = patient.state.as_ref();
    let known = [
        state.map_or(0, |state| state.max_flushed_to()),
        state.and_then(|state| state.clean_end).map_or(0, |clean| clean.next_seq),
        state.map_or(0, |state| state.cuts.iter().map(|cut| cut.seq).max().unwrap_or(0)),
        patient.log.last_seq,
        patient.log.gaps.iter().filter_map(|gap| gap.before).max().unwrap_or(0),
        patient.candidates.iter().map(|candidate| candidate.meta.run_seq.1).max().unwrap_or(0),
    ];
    highest(known).saturating_add(SEQ_GAP)
}

fn next_file(patient: &DamagedDatabase) -> FileId {
    let named = highest(patient.directory.ssts().map(|(_, _, id)| id)).saturating_add(1);
    let found = highest(patient.candidates.iter().map(|candidate| candidate.meta.id)).saturating_add(1);
    let reserved = highest(patient.state.iter().map(|state| state.files_below));
    match patient.trusted {
        true => reserved.max(named),
        false => reserved.max(named).max(found).saturating_add(FILE_GAP),
    }
}

fn generation(patient: &DamagedDatabase) -> u32 {
    let state = patient.state.as_ref();
    let log = patient.log.generations.iter().copied();
    let cuts = state.iter().flat_map(|state| &state.cuts).map(|cut| cut.next_generation);
    let known = state.iter().flat_map(|state| {
        let next = state.clean_end.map_or(0, |clean| clean.next_generation);
        [state.log_start.generation(), state.durable.generation(), next]
    });
    // Higher generations are damage.
    let most = MAX_GENERATION - 2 * GENERATION_GAP;
    let all = log.chain(cuts).chain(known);
    all.filter(|&generation| generation < most).max().unwrap_or(0).saturating_add(1)
}
