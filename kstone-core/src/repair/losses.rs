//! Determines which keys are lost, and which have an older version now.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use std::cmp::Reverse;

use super::examine::{Candidate, DamagedDatabase};
use super::gather::{Damaged, Part, Stripe};
use super::salvage::{Dropped, most_entries};
use super::{Loss, Now, RepairReport, Versions};
use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::{KeyRange, key_hash};
use crate::sst::{SalvagedTable, Table};
use crate::types::{Direction, EntryKind, SeqNo};
use crate::verify::Affected;
use crate::verify::check::{affected, affected_by_all, readable};

/// The stripe after the repair.
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
            // An unreadable key is not known to be kept: better to report one loss too many than one too few.
            let found = table.get(key, key_hash(key), SeqNo::MAX, &mut ()).ok()??;
            Some((found.seq, found.kind))
        });
        let made = self.made.iter().filter_map(|versions| newest_in(versions, key));
        kept.chain(made).chain(newest_in(&self.work.fresh, key)).max_by_key(|(seq, _)| *seq)
    }

    /// Keys in other files that were also in a damaged block, according to its index.
    fn names(&self, salvaged: &SalvagedTable, n: usize) -> Vec<Vec<u8>> {
        let (from, to) = salvaged.bounds(n);
        let within = |key: &[u8]| to.as_deref().is_none_or(|to| key <= to);
        let start = from.unwrap_or_default();
        let mut names = Vec::new();
        for table in &self.kept {
            let range = KeyRange { start: start.clone(), end: None };
            // These files were intact before; one that fails now names no keys.
            let Ok(mut cursor) = table.iter(&range, Direction::Forward) else { continue };
            while let Some(entry) = cursor.entry().filter(|entry| within(entry.key)) {
                if salvaged.leads_to(n, entry.key) {
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
            names.extend(keys.filter(|key| salvaged.leads_to(n, key)).cloned());
        }
        names
    }

    /// The state of a key after losing its newest version in a file, which may be as new as `highest`; `None` if
    /// nothing shows that a version was lost.
    fn now(&self, key: &[u8], highest: SeqNo) -> Option<Now> {
        match self.newest(key) {
            Some((seq, _)) if seq > highest => None,
            // The log had the version.
            Some((seq, _)) if self.work.patch.contains_key(&(key.to_vec(), Reverse(seq))) => None,
            Some((seq, EntryKind::Put)) => Some(Now::Older(seq)),
            Some((seq, EntryKind::Delete)) => Some(Now::Deleted(seq)),
            None => Some(Now::Absent),
        }
    }
}

/// Reports everything that is lost in a stripe.
pub(super) fn tell(
    patient: &DamagedDatabase,
    work: &Stripe,
    report: &mut RepairReport,
    on_loss: &mut dyn FnMut(&Loss),
) -> Result<()> {
    report.from_log += work.from_log;
    if work.damaged.is_empty() && work.dropped.is_empty() {
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
    for damaged in &work.damaged {
        report.saved = report.saved.saturating_add(damaged.saved);
        report.had = report.had.saturating_add(damaged.had);
        if !is_in_log(patient, &damaged.part) {
            tell_of(patient, &after, damaged, report, on_loss)?;
        }
    }
    report.from_log += work.patch.len() as u64;
    tell_dropped(&after, report, on_loss);
    Ok(())
}

/// Reports keys whose newest version was read but could not be kept.
fn tell_dropped(after: &After<'_>, report: &mut RepairReport, on_loss: &mut dyn FnMut(&Loss)) {
    let mut newest = BTreeMap::<&[u8], &Dropped>::new();
    for dropped in &after.work.dropped {
        let known = newest.entry(&dropped.key).or_insert(dropped);
        if known.seq < dropped.seq {
            *known = dropped;
        }
    }
    for (key, dropped) in newest {
        match after.now(key, dropped.seq) {
            // A lost delete is no loss if nothing is left that it hid: the key is still absent.
            Some(Now::Absent | Now::Deleted(_)) if dropped.kind == EntryKind::Delete => {}
            Some(now) => tell_key(key, &dropped.file, now, report, on_loss),
            None => {}
        }
    }
}

fn tell_key(key: &[u8], file: &Path, now: Now, report: &mut RepairReport, on_loss: &mut dyn FnMut(&Loss)) {
    match now {
        Now::Absent => report.lost += 1,
        Now::Older(_) | Now::Deleted(_) => report.fell_back += 1,
    }
    on_loss(&Loss::Key { key: readable(key), file: file.to_path_buf(), now });
}

/// Whether the log contains every operation that the run was made of.
fn is_in_log(patient: &DamagedDatabase, part: &Candidate) -> bool {
    let (log, (low, high)) = (&patient.log, part.meta.run_seq);
    log.gaps.is_empty()
        && patient.dropped.is_empty()
        && log.records > 0
        && log.first_seq <= low
        && log.last_seq >= high
}

fn tell_of(
    patient: &DamagedDatabase,
    after: &After<'_>,
    damaged: &Damaged,
    report: &mut RepairReport,
    on_loss: &mut dyn FnMut(&Loss),
) -> Result<()> {
    let Damaged { part, tombstones, .. } = damaged;
    // No more versions can be lost than could not be read, whatever the blocks claim.
    let mut left = damaged.had.saturating_sub(damaged.found);
    if left == 0 {
        return Ok(());
    }
    let mut range =
        |file: &Path, offset: u64, mut affected: Affected, left: u64, report: &mut RepairReport| {
            affected.entries = affected.entries.min(left);
            tell_range(file, offset, affected, *tombstones, report, on_loss);
        };
    let unnamed = report.unnamed;
    let salvaged = part
        .path
        .as_ref()
        .map(|path| SalvagedTable::read(&*patient.directory.vfs, path, &part.meta))
        .transpose()?;
    let Some(salvaged) = salvaged.filter(SalvagedTable::has_places) else {
        let file = crate::paths::sst(&patient.directory.dir, part.meta.stripe.into(), part.meta.id);
        range(&file, 0, affected_by_all(&part.meta), left, report);
        report.tombstones = report.tombstones.saturating_add(*tombstones);
        return Ok(());
    };
    let mut keys = Vec::new();
    for n in (0..salvaged.blocks.len()).filter(|&n| salvaged.blocks.get(n).is_some_and(|place| !place.good)) {
        let mut names = salvaged.names_in(n);
        names.extend(after.names(&salvaged, n));
        names.sort();
        names.dedup();
        let mut affected = affected(&salvaged, n);
        if affected.entries == 0 {
            affected.entries = salvaged.blocks.get(n).map_or(0, |place| most_entries(place.at.len()));
        }
        let unknown = affected.keys.map_or(affected.entries, |keys| keys.saturating_sub(names.len() as u64));
        left = left.saturating_sub(names.len() as u64);
        if unknown > 0 {
            affected.entries = unknown;
            let offset = salvaged.blocks.get(n).map_or(0, |place| place.at.start as u64);
            range(&salvaged.path, offset, affected, left, report);
        }
        keys.extend(names);
    }
    if report.unnamed > unnamed {
        // Each range of a file may have held everything that is missing, but not all ranges together.
        report.unnamed = report.unnamed.min(unnamed.saturating_add(left));
        report.tombstones = report.tombstones.saturating_add(*tombstones);
    }
    for key in keys.iter().filter(|key| damaged.merged_to.as_ref().is_none_or(|last| *key > last)) {
        if let Some(now) = after.now(key, part.meta.run_seq.1) {
            tell_key(key, &salvaged.path, now, report, on_loss);
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
    if affected.entries == 0 {
        return;
    }
    report.unnamed = report.unnamed.saturating_add(affected.entries);
    on_loss(&Loss::Range { file: file.to_path_buf(), offset, affected, tombstones });
}
