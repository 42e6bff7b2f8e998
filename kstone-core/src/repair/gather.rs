//! Collects what is left of a stripe: which SSTs stay, and what goes into new ones.

use std::cmp::Reverse;
use std::sync::Arc;

use super::Versions;
use super::examine::{Candidate, Patient};
use super::plan::{Cluster, Plan};
use crate::error::Result;
use crate::key::{encoded_partition_hash, stripe_of};
use crate::sst::Survey;
use crate::types::{EntryKind, RunId, SeqNo, SstMeta};

/// A run of the repaired database.
pub(super) struct Run {
    pub(super) run_seq: (SeqNo, SeqNo),
    pub(super) depth: u32,
    /// The number of a run that goes on; a new one is numbered after its first file.
    pub(super) run: Option<RunId>,
    /// In key order.
    pub(super) parts: Vec<Part>,
}

/// A part of it.
pub(super) enum Part {
    Kept(Arc<SstMeta>),
    /// To be written, compressed or not.
    Made {
        versions: Versions,
        compress: bool,
    },
}

/// A stripe of the repaired database.
pub(super) struct Stripe {
    pub(super) runs: Vec<Run>,
    /// SSTs that are damaged, with how many of their entries and of their tombstones were saved.
    pub(super) damaged: Vec<(Candidate, u64, u64)>,
    /// Operations in the log that no SST has.
    pub(super) fresh: Versions,
    /// Operations of the log that were put into rewritten runs.
    pub(super) patch: Versions,
}

pub(super) fn gather(patient: &Patient, plan: &Plan, stripe: u16) -> Result<Stripe> {
    let stripes = plan.facts.stripes();
    let none = Vec::new();
    let clusters = plan.clusters.get(&stripe).unwrap_or(&none);
    let operations = patient.operations_of(stripe.into(), stripes);
    let mut work = Stripe {
        runs: Vec::new(),
        damaged: Vec::new(),
        fresh: fresh(patient, clusters, stripe, &operations),
        patch: Versions::new(),
    };
    for cluster in clusters {
        if cluster.is_whole() {
            let kept = cluster.runs.iter().flatten().map(|part| Part::Kept(Arc::clone(&part.meta))).collect();
            let run = cluster.runs.iter().flatten().next().map(|part| part.meta.run);
            work.runs.push(Run { run_seq: cluster.run_seq, depth: cluster.depth, run, parts: kept });
            continue;
        }
        let patch: Versions = operations
            .iter()
            .filter(|((_, seq), _)| cluster.covers(seq.0))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let run = if cluster.keeps_parts() {
            part_by_part(patient, stripes, cluster, &patch, &mut work)?
        } else {
            merged(patient, stripes, cluster, &patch, &mut work)?
        };
        work.patch.extend(patch);
        work.runs.push(run);
    }
    if !plan.keep_log {
        add_fresh(clusters, &mut work);
    }
    work.runs.retain(|run| !run.parts.is_empty());
    work.runs.sort_by_key(|run| run.run_seq);
    Ok(work)
}

/// Operations that no SST has.
fn fresh(patient: &Patient, clusters: &[Cluster], stripe: u16, operations: &Versions) -> Versions {
    let flushed = patient.state.as_ref().filter(|_| patient.trusted).map(|state| state.flushed_to(stripe, 0));
    let is_fresh = |seq: SeqNo| match flushed {
        Some(flushed) => seq > flushed,
        // Without a manifest: what no run can have had.
        None => !clusters.iter().any(|cluster| cluster.covers(seq)),
    };
    operations.iter().filter(|((_, seq), _)| is_fresh(seq.0)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Runs for operations that only the log has: one between each two runs that there are.
fn add_fresh(clusters: &[Cluster], work: &mut Stripe) {
    let mut groups = std::collections::BTreeMap::<usize, Versions>::new();
    for (key, value) in &work.fresh {
        let region = clusters.iter().filter(|cluster| cluster.run_seq.0 <= key.1.0).count();
        groups.entry(region).or_default().insert(key.clone(), value.clone());
    }
    for versions in groups.into_values() {
        let seqs = || versions.keys().map(|(_, seq)| seq.0);
        let (Some(low), Some(high)) = (seqs().min(), seqs().max()) else { continue };
        let parts = vec![Part::Made { versions, compress: false }];
        work.runs.push(Run { run_seq: (low, high), depth: 0, run: None, parts });
    }
}

/// The entries of a file that can be told, without those that cannot be right.
fn salvage(patient: &Patient, stripes: usize, part: &Candidate) -> Result<Versions> {
    let mut versions = Versions::new();
    let Some(path) = &part.path else { return Ok(versions) };
    let survey = Survey::read(&*patient.directory.vfs, path, &part.meta)?;
    let (low, high) = part.meta.run_seq;
    for entry in (0..survey.blocks.len()).flat_map(|n| survey.entries(n)) {
        let own = encoded_partition_hash(&entry.key)
            .is_some_and(|hash| stripe_of(hash, stripes) == usize::from(part.meta.stripe));
        if own && (low..=high).contains(&entry.seq) {
            versions.insert((entry.key, Reverse(entry.seq)), (entry.kind, entry.value));
        }
    }
    Ok(versions)
}

fn note(part: &Candidate, saved: &Versions, work: &mut Stripe) {
    if !part.clean {
        let deletes = saved.values().filter(|(kind, _)| *kind == EntryKind::Delete).count() as u64;
        work.damaged.push((part.clone(), saved.len() as u64, deletes));
    }
}

fn is_compressed(part: &Candidate) -> bool {
    part.meta.details.as_ref().is_some_and(|details| details.codec == crate::sst_block::LZ4)
}

/// One run: whole parts stay.
fn part_by_part(
    patient: &Patient,
    stripes: usize,
    cluster: &Cluster,
    patch: &Versions,
    work: &mut Stripe,
) -> Result<Run> {
    let parts: Vec<&Candidate> = cluster.runs.iter().flatten().collect();
    let mut made = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        if part.clean {
            made.push(Part::Kept(Arc::clone(&part.meta)));
            continue;
        }
        let mut versions = salvage(patient, stripes, part)?;
        note(part, &versions, work);
        // From the log, what lies between the neighbours that stay.
        let before = parts.get(..n).and_then(|before| before.iter().rev().find(|part| part.clean));
        let after = parts.get(n + 1..).and_then(|after| after.iter().find(|part| part.clean));
        let above = |key: &[u8]| before.is_none_or(|part| key > part.meta.keys.1.as_slice());
        let below = |key: &[u8]| after.is_none_or(|part| key < part.meta.keys.0.as_slice());
        versions.retain(|(key, _), _| above(key) && below(key));
        let missing = patch.iter().filter(|((key, _), _)| above(key) && below(key));
        versions.extend(missing.map(|(k, v)| (k.clone(), v.clone())));
        // Two damaged neighbours become one file: what the log has may lie anywhere in both.
        if let Some(Part::Made { versions: last, .. }) = made.last_mut() {
            last.extend(versions);
        } else if !versions.is_empty() {
            made.push(Part::Made { versions, compress: is_compressed(part) });
        }
    }
    let run = parts.first().map(|part| part.meta.run);
    Ok(Run { run_seq: cluster.run_seq, depth: cluster.depth, run, parts: made })
}

/// Runs that overlap become one. One of them may be the merge of the others: what it has dropped stays dropped.
fn merged(
    patient: &Patient,
    stripes: usize,
    cluster: &Cluster,
    patch: &Versions,
    work: &mut Stripe,
) -> Result<Run> {
    let spans_all = |run: &&Vec<Candidate>| {
        run.iter().all(|part| part.clean && part.meta.run_seq == cluster.run_seq)
            && (0u32..).zip(run.iter()).all(|(n, part)| part.meta.part == n)
            && run.iter().any(|part| part.meta.depth == cluster.depth)
    };
    let whole =
        cluster.runs.iter().filter(spans_all).max_by_key(|run| run.first().map(|part| part.meta.depth));
    let done = whole.and_then(|run| run.last()).map(|part| (part.meta.run, part.meta.keys.1.clone()));
    let mut versions = Versions::new();
    let mut compress = false;
    for part in cluster.runs.iter().flatten() {
        let mut own = salvage(patient, stripes, part)?;
        note(part, &own, work);
        if let Some((run, last)) = &done
            && part.meta.run != *run
        {
            // What is above may not have been merged yet, or its file is missing.
            own.retain(|(key, _), _| key > last);
        }
        compress |= is_compressed(part);
        versions.extend(own);
    }
    if done.is_none() {
        versions.extend(patch.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
    let parts = vec![Part::Made { versions, compress }];
    Ok(Run { run_seq: cluster.run_seq, depth: cluster.depth, run: None, parts })
}
