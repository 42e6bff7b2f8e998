//! Collects what is left of a stripe: which SSTs are kept, and what goes into new ones.

use std::sync::Arc;

use super::Versions;
use super::examine::{Candidate, DamagedDatabase};
use super::plan::{Cluster, Plan};
use super::salvage::{Dropped, FileEntries, salvage};
use crate::error::Result;
use crate::key::stripe_of;
use crate::types::{RunId, SeqNo, SstMeta};

/// A run of the repaired database.
pub(super) struct RepairedRun {
    pub(super) run_seq: (SeqNo, SeqNo),
    pub(super) depth: u32,
    /// The number of a run that is kept; a new run is numbered after its first file.
    pub(super) run: Option<RunId>,
    /// The parts of the run, in key order.
    pub(super) parts: Vec<Part>,
}

/// A part of a run.
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
    pub(super) runs: Vec<RepairedRun>,
    pub(super) damaged: Vec<Damaged>,
    /// Versions that were read, but for which there is no place.
    pub(super) dropped: Vec<Dropped>,
    /// Operations in the log that no SST contains, and entries of other stripes' files that no run here can have
    /// contained.
    pub(super) fresh: Versions,
    /// Operations of the log that go into rewritten runs.
    pub(super) patch: Versions,
    /// Number of operations taken from the log in addition to `patch`.
    pub(super) from_log: u64,
}

/// A damaged SST, and how much of it was saved.
pub(super) struct Damaged {
    pub(super) part: Candidate,
    /// Maximum number of entries that it had.
    pub(super) had: u64,
    /// Number of entries that could be read.
    pub(super) found: u64,
    /// Number of entries that are kept.
    pub(super) saved: u64,
    /// Maximum number of tombstones that could not be read.
    pub(super) tombstones: u64,
    /// A completed merge contains everything up to this key.
    pub(super) merged_to: Option<Vec<u8>>,
}

impl Damaged {
    fn new(part: &Candidate, salvaged: &FileEntries) -> Self {
        let (found, deletes) = (salvaged.found(), salvaged.deletes());
        let (had, tombstones) = match salvaged.whole {
            true => (found, deletes),
            false if part.meta.entries > found => (part.meta.entries, part.meta.tombstones),
            // The only evidence of what it had is what was read of it.
            false => (found.saturating_add(salvaged.room), deletes.saturating_add(salvaged.room)),
        };
        Self {
            part: part.clone(),
            had,
            found,
            saved: found.saturating_sub(salvaged.dropped.len() as u64),
            tombstones: tombstones.saturating_sub(deletes),
            merged_to: None,
        }
    }
}

pub(super) fn gather(patient: &DamagedDatabase, plan: &Plan, stripe: u16) -> Result<Stripe> {
    let stripes = patient.stripes;
    let none = Vec::new();
    let clusters = plan.clusters.get(&stripe).unwrap_or(&none);
    let operations = patient.operations_of(stripe.into(), stripes);
    let of_stripe =
        patient.dropped.iter().filter(|(hash, _)| stripe_of(*hash, stripes) == usize::from(stripe));
    let mut work = Stripe {
        runs: Vec::new(),
        damaged: Vec::new(),
        dropped: of_stripe.map(|(_, dropped)| dropped.clone()).collect(),
        fresh: fresh(patient, clusters, stripe, &operations),
        patch: Versions::new(),
        from_log: 0,
    };
    if !plan.keep_log {
        work.from_log = work.fresh.len() as u64;
    }
    work.fresh.extend(plan.strays.get(&stripe).into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
    for cluster in clusters {
        if cluster.is_whole() {
            let kept = cluster.runs.iter().flatten().map(|part| Part::Kept(Arc::clone(&part.meta))).collect();
            let run = cluster.runs.iter().flatten().next().map(|part| part.meta.run);
            work.runs.push(RepairedRun { run_seq: cluster.run_seq, depth: cluster.depth, run, parts: kept });
            continue;
        }
        let patch: Versions = operations
            .iter()
            .filter(|((_, seq), _)| cluster.covers(seq.0))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let run = if cluster.keeps_parts() {
            part_by_part(patient, cluster, &patch, &mut work)?
        } else {
            merged(patient, cluster, &patch, &mut work)?
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

/// Operations that no SST contains.
fn fresh(patient: &DamagedDatabase, clusters: &[Cluster], stripe: u16, operations: &Versions) -> Versions {
    let flushed = patient.state.as_ref().filter(|_| patient.trusted).map(|state| state.flushed_to(stripe, 0));
    let is_fresh = |seq: SeqNo| match flushed {
        Some(flushed) => seq > flushed,
        // Without a manifest: those that no run can have contained.
        None => !clusters.iter().any(|cluster| cluster.covers(seq)),
    };
    operations.iter().filter(|((_, seq), _)| is_fresh(seq.0)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Adds runs for operations that are only in the log: one between each pair of existing runs.
fn add_fresh(clusters: &[Cluster], work: &mut Stripe) {
    let mut groups = std::collections::BTreeMap::<usize, Versions>::new();
    for (key, value) in &work.fresh {
        let region = clusters.iter().filter(|cluster| cluster.run_seq.0 <= key.1.0).count();
        groups.entry(region).or_default().insert(key.clone(), value.clone());
    }
    for versions in groups.into_values() {
        let seqs = || versions.keys().map(|(_, seq)| seq.0);
        // A group contains at least the version that it was created for.
        let (Some(low), Some(high)) = (seqs().min(), seqs().max()) else { continue };
        let parts = vec![Part::Made { versions, compress: false }];
        work.runs.push(RepairedRun { run_seq: (low, high), depth: 0, run: None, parts });
    }
}

fn salvaged(patient: &DamagedDatabase, part: &Candidate) -> Result<FileEntries> {
    salvage(&*patient.directory.vfs, patient.stripes, patient.values.as_ref(), part)
}

fn is_compressed(part: &Candidate) -> bool {
    part.meta.codec() == Some(crate::sst_block::LZ4)
}

/// Rebuilds one run; intact parts are kept.
fn part_by_part(
    patient: &DamagedDatabase,
    cluster: &Cluster,
    patch: &Versions,
    work: &mut Stripe,
) -> Result<RepairedRun> {
    let parts: Vec<&Candidate> = cluster.runs.iter().flatten().collect();
    let mut made = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        if part.clean {
            made.push(Part::Kept(Arc::clone(&part.meta)));
            continue;
        }
        let salvaged = salvaged(patient, part)?;
        let mut damaged = Damaged::new(part, &salvaged);
        // From the log, add what lies between the neighbours that are kept.
        let before = parts.get(..n).and_then(|before| before.iter().rev().find(|part| part.clean));
        let after = parts.get(n + 1..).and_then(|after| after.iter().find(|part| part.clean));
        let above = |key: &[u8]| before.is_none_or(|part| key > part.meta.keys.1.as_slice());
        let below = |key: &[u8]| after.is_none_or(|part| key < part.meta.keys.0.as_slice());
        let fits = |(key, _): &(Vec<u8>, _)| above(key) && below(key);
        let (mut versions, outside): (Versions, Versions) =
            salvaged.own.into_iter().partition(|(key, _)| fits(key));
        damaged.saved = damaged.saved.saturating_sub(outside.len() as u64);
        work.dropped.extend(salvaged.dropped);
        work.dropped.extend(outside.into_iter().map(|((key, seq), (kind, _))| {
            let file = part.path.clone().unwrap_or_default();
            Dropped { key, seq: seq.0, kind, file }
        }));
        work.damaged.push(damaged);
        let missing = patch.iter().filter(|((key, _), _)| above(key) && below(key));
        versions.extend(missing.map(|(k, v)| (k.clone(), v.clone())));
        // Two damaged neighbours become one file: operations from the log may belong anywhere in both.
        if let Some(Part::Made { versions: last, .. }) = made.last_mut() {
            last.extend(versions);
        } else if !versions.is_empty() {
            made.push(Part::Made { versions, compress: is_compressed(part) });
        }
    }
    let run = parts.first().map(|part| part.meta.run);
    Ok(RepairedRun { run_seq: cluster.run_seq, depth: cluster.depth, run, parts: made })
}

/// Merges overlapping runs into one. One of them may be the merge of the others: what that merge dropped stays dropped.
fn merged(
    patient: &DamagedDatabase,
    cluster: &Cluster,
    patch: &Versions,
    work: &mut Stripe,
) -> Result<RepairedRun> {
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
        let FileEntries { own, dropped, .. } = {
            let salvaged = salvaged(patient, part)?;
            if !part.clean {
                let merged_to = done.as_ref().map(|(_, last)| last.clone());
                work.damaged.push(Damaged { merged_to, ..Damaged::new(part, &salvaged) });
            }
            salvaged
        };
        // Keys above that may not have been merged yet, or the file with them is missing.
        let is_merged = |key: &[u8]| {
            done.as_ref().is_some_and(|(run, last)| part.meta.run != *run && key <= last.as_slice())
        };
        work.dropped.extend(dropped.into_iter().filter(|dropped| !is_merged(&dropped.key)));
        let own = own.into_iter().filter(|((key, _), _)| !is_merged(key));
        compress |= is_compressed(part);
        versions.extend(own);
    }
    for (key, value) in &cluster.strays {
        versions.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if done.is_none() {
        versions.extend(patch.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
    let parts = vec![Part::Made { versions, compress }];
    Ok(RepairedRun { run_seq: cluster.run_seq, depth: cluster.depth, run: None, parts })
}
