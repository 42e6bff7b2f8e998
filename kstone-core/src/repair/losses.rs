//! Which keys are lost, and which have an older version now.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use std::cmp::Reverse;

use super::examine::{Candidate, Patient};
use super::gather::{Part, Stripe};
use super::{Loss, Now, RepairReport, Versions};
use crate::error::Result;
use crate::key::{KeyRange, key_hash};
use crate::merge::Cursor;
use crate::sst::{Survey, Table};
use crate::types::{Direction, EntryKind, SeqNo};
use crate::verify::Affected;
use crate::verify::look::{affected, affected_by_all, readable};

/// The stripe as it will be.
struct After<'a> {
    kept: Vec<Arc<Table>>,
    made: Vec<&'a Versions>,
    work: &'a Stripe,
}

fn newest_in(versions: &Versions, key: &[u8]) -> Option<(SeqNo, EntryKind)> {
    let from = (key.to_vec(), Reverse(SeqNo::MAX));
    let ((found, seq), (kind, _)) = versions.range((Bound::Included(from), Bound::Unbounded)).next()?;
    (found == key).then_some((seq.0, *kind))
}

impl After<'_> {
    fn newest(&self, key: &[u8]) -> Option<(SeqNo, EntryKind)> {
        let kept = self.kept.iter().filter_map(|table| {
            let found = table.get(key, key_hash(key), SeqNo::MAX, &mut ()).ok()??;
            Some((found.seq, found.kind))
        });
        let made = self.made.iter().filter_map(|versions| newest_in(versions, key));
        kept.chain(made).chain(newest_in(&self.work.fresh, key)).max_by_key(|(seq, _)| *seq)
    }

    /// Keys that other files have and that were in a damaged block, too, as its index says.
    fn names(&self, survey: &Survey, n: usize) -> Vec<Vec<u8>> {
        let (from, to) = survey.bounds(n);
        let within = |key: &[u8]| to.as_deref().is_none_or(|to| key <= to);
        let start = from.unwrap_or_default();
        let mut names = Vec::new();
        for table in &self.kept {
            let range = KeyRange { start: start.clone(), end: None };
            let Ok(mut cursor) = table.iter(range, Direction::Forward) else { continue };
            while let Some(entry) = cursor.entry().filter(|entry| within(entry.key)) {
                if survey.leads_to(n, entry.key) {
                    names.push(entry.key.to_vec());
                }
                if cursor.advance().is_err() {
                    break;
                }
            }
        }
        for versions in self.made.iter().copied().chain([&self.work.fresh]) {
            let from = (start.clone(), Reverse(SeqNo::MAX));
            let keys = versions.range(from..).map(|((key, _), _)| key).take_while(|key| within(key));
            names.extend(keys.filter(|key| survey.leads_to(n, key)).cloned());
        }
        names
    }

    /// What a key has now whose newest version in that file is lost; `None` when that does not show.
    fn now(&self, key: &[u8], lost: &Candidate) -> Option<Now> {
        match self.newest(key) {
            Some((seq, _)) if seq > lost.meta.run_seq.1 => None,
            // The log had it.
            Some((seq, _)) if self.work.patch.contains_key(&(key.to_vec(), Reverse(seq))) => None,
            Some((seq, EntryKind::Put)) => Some(Now::Older(seq)),
            Some((seq, EntryKind::Delete)) => Some(Now::Deleted(seq)),
            None => Some(Now::Absent),
        }
    }
}

/// Tells of everything that is lost in a stripe.
pub(super) fn tell(
    patient: &Patient,
    work: &Stripe,
    report: &mut RepairReport,
    on_loss: &mut dyn FnMut(&Loss),
) -> Result<()> {
    if work.damaged.is_empty() {
        return Ok(());
    }
    let parts = || work.runs.iter().flat_map(|run| &run.parts);
    let kept = parts().filter_map(|part| match part {
        Part::Kept(meta) => Some(Arc::new(Table::new(&patient.tables, Arc::clone(meta)))),
        Part::Made { .. } => None,
    });
    let made = parts().filter_map(|part| match part {
        Part::Made { versions, .. } => Some(versions),
        Part::Kept(_) => None,
    });
    let after = After { kept: kept.collect(), made: made.collect(), work };
    for (part, saved, deletes) in &work.damaged {
        report.saved += saved;
        report.had += part.meta.entries;
        if !is_in_log(patient, part) {
            let tombstones = part.meta.tombstones.saturating_sub(*deletes);
            tell_of(patient, &after, part, tombstones, report, on_loss)?;
        }
    }
    report.from_log += work.patch.len() as u64;
    Ok(())
}

/// Whether the log has every operation that the run was made of.
fn is_in_log(patient: &Patient, part: &Candidate) -> bool {
    let (log, (low, high)) = (&patient.log, part.meta.run_seq);
    log.gaps.is_empty() && log.records > 0 && log.first_seq <= low && log.last_seq >= high
}

fn tell_of(
    patient: &Patient,
    after: &After<'_>,
    part: &Candidate,
    tombstones: u64,
    report: &mut RepairReport,
    on_loss: &mut dyn FnMut(&Loss),
) -> Result<()> {
    report.tombstones += tombstones;
    let survey =
        part.path.as_ref().map(|path| Survey::read(&*patient.directory.vfs, path, &part.meta)).transpose()?;
    let Some(survey) = survey.filter(Survey::has_places) else {
        let file = crate::paths::sst(&patient.directory.dir, part.meta.stripe.into(), part.meta.id);
        tell_range(&file, 0, affected_by_all(&part.meta), tombstones, report, on_loss);
        return Ok(());
    };
    for n in (0..survey.blocks.len()).filter(|&n| survey.blocks.get(n).is_some_and(|place| !place.good)) {
        let mut names = survey.names_in(n);
        names.extend(after.names(&survey, n));
        names.sort();
        names.dedup();
        for key in &names {
            let Some(now) = after.now(key, part) else { continue };
            match now {
                Now::Absent => report.lost += 1,
                Now::Older(_) | Now::Deleted(_) => report.fell_back += 1,
            }
            on_loss(&Loss::Key { key: readable(key), file: survey.path.clone(), now });
        }
        let mut affected = affected(&survey, n);
        let unknown = affected.keys.map_or(affected.entries, |keys| keys.saturating_sub(names.len() as u64));
        if unknown > 0 {
            affected.entries = unknown;
            let offset = survey.blocks.get(n).map_or(0, |place| place.at.start as u64);
            tell_range(&survey.path, offset, affected, tombstones, report, on_loss);
        }
    }
    Ok(())
}

pub(super) fn tell_range(
    file: &Path,
    offset: u64,
    affected: Affected,
    tombstones: u64,
    report: &mut RepairReport,
    on_loss: &mut dyn FnMut(&Loss),
) {
    report.unnamed += affected.entries;
    on_loss(&Loss::Range { file: file.to_path_buf(), offset, affected, tombstones });
}
