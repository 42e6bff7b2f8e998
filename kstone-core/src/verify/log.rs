//! The log part of VERIFY.

use super::check::{BatchOp, check_batch, log_file};
use super::files::Checking;
use super::{Finding, FindingKind, LogReport, Severity};
use crate::error::{Error, Result};
use crate::lsm::validate::{check_numbers, log_rules};
use crate::manifest::ManifestState;
use crate::paths::{self, FileName};
use crate::types::{Lsn, SeqNo};
use crate::wal::{self, LogOwner, LogRules, RecordRef};

/// How often damage in the log of a live database must be found in the same place.
const SIGHTINGS: usize = 3;
/// Maximum number of times that a changing log is read.
const ATTEMPTS: usize = 10;

impl Checking<'_> {
    /// Walks the log from its start to its end. Damage ends the walk, and everything behind it is then checked record
    /// by record.
    pub(super) fn check_log(&mut self, owner: LogOwner, state: &ManifestState) {
        let mut sightings: Vec<(Option<u64>, Error)> = Vec::new();
        let mut state = state.clone();
        for _ in 0..ATTEMPTS {
            let rules = log_rules(&state);
            let error = match self.walk_log(owner, &rules, &state) {
                Ok((log, findings)) => {
                    self.report.log = log;
                    self.report.bytes = self.report.bytes.saturating_add(log.bytes);
                    findings.into_iter().for_each(|finding| self.report.add(finding));
                    return self.check_unlisted_log(&state);
                }
                Err(error) => error,
            };
            let at = match &error {
                Error::Corruption { offset, .. } => Some(*offset),
                _ => None,
            };
            sightings.push((at, error));
            let same = sightings.iter().filter(|(before, _)| *before == at).count();
            if !self.report.live || same >= SIGHTINGS {
                // There is at least the one pushed above.
                let Some((_, error)) = sightings.pop() else { return };
                let next = state.clean_end.map(|clean| clean.next_seq);
                return self.log_is_damaged(owner, &rules, next, &error);
            }
            // Since the manifest was read, a segment may have been removed, and the start of the log may have moved on.
            if let Some(newer) = self.reload() {
                state = newer;
            }
        }
        self.report.skipped.push("the log: it was written to faster than it could be read".into());
    }

    fn walk_log(
        &self,
        owner: LogOwner,
        rules: &LogRules,
        state: &ManifestState,
    ) -> Result<(LogReport, Vec<Finding>)> {
        let (vfs, dir) = (&*self.directory.vfs, &self.directory.dir);
        let segments = wal::discover(vfs, dir, owner)?;
        let chain = wal::validate(vfs, dir, &segments, rules)?;
        check_numbers(dir, state, chain.last_seq, chain.max_generation)?;
        let mut log = LogReport {
            segments: chain.segments.len(),
            end: (chain.end > Lsn::ZERO).then(|| (chain.end.generation(), chain.end.offset())),
            bytes: chain.segments.iter().map(|info| info.len).fold(0, u64::saturating_add),
            ..LogReport::default()
        };
        let mut findings = Vec::new();
        wal::replay(vfs, &chain, |record| {
            log.records += 1;
            log.operations += self.decode(&record, &mut findings)?;
            Ok(())
        })?;
        Ok((log, findings))
    }

    /// Decodes all operations of a batch and returns their number. Anything that prevents a replay is an error; an
    /// unreadable value is only a finding.
    fn decode(&self, record: &RecordRef<'_>, findings: &mut Vec<Finding>) -> Result<u64> {
        let (dir, offset) = (&self.directory.dir, u64::from(record.lsn.offset()));
        let corrupt = |detail: String| Error::corrupt(&log_file(dir, record), offset, detail);
        let mut operations = 0;
        check_batch(dir, record, self.values(), |op| {
            operations += 1;
            match op {
                BatchOp::Good(..) => Ok(()),
                BatchOp::NoValue(op, _, _, why) => {
                    findings.push(Finding::no_value(&log_file(dir, record), offset, op.key, why));
                    Ok(())
                }
                BatchOp::Unreadable(_, _, why) => Err(corrupt(why)),
                BatchOp::Surplus(_) => {
                    Err(corrupt(format!("the record claims {} operations and holds more", record.count)))
                }
            }
        })?;
        Ok(operations)
    }

    /// A database that was not closed has a log, unless it crashed before it created one.
    fn check_unlisted_log(&mut self, state: &ManifestState) {
        let is_log = |name: &str| matches!(paths::parse(name), FileName::Log(_));
        let has_log = self.directory.listing.iter().any(|entry| is_log(&entry.name));
        if state.clean_end.is_some() || self.report.live || has_log {
            return;
        }
        let dir = self.directory.dir.clone();
        let detail = "there is no log file, and the database was not closed: if one was removed, all writes since \
                      the last checkpoint are lost";
        self.report.note(Severity::Note, FindingKind::Log, &dir, detail);
    }

    fn log_is_damaged(&mut self, owner: LogOwner, rules: &LogRules, next: Option<SeqNo>, error: &Error) {
        let manifest = self.directory.dir.join(paths::MANIFEST);
        let mut operations = 0;
        let found = wal::salvage(&*self.directory.vfs, &self.directory.dir, owner, rules, |record| {
            operations += u64::from(record.count);
            Ok(())
        });
        let kind = match (error, &found) {
            (Error::Corruption { file, .. }, _) if *file == manifest => FindingKind::Manifest,
            (Error::Corruption { file, .. }, Ok(found)) if found.foreign.contains(file) => {
                FindingKind::Misplaced
            }
            _ => FindingKind::Log,
        };
        self.report.damage(kind, error, &self.directory.dir);
        match found {
            Ok(found) => {
                self.report.log = LogReport {
                    segments: found.files.len(),
                    records: found.records,
                    operations,
                    ..LogReport::default()
                };
                for gap in found.gaps {
                    // A clean end records the next sequence.
                    let before =
                        gap.before.or(next).map_or_else(String::new, |seq| format!(" and before {seq}"));
                    self.report.add(Finding {
                        severity: Severity::Damage,
                        kind: FindingKind::Log,
                        file: gap.file,
                        offset: gap.offset,
                        len: gap.len,
                        detail: format!(
                            "{}; operations after sequence {}{before} may be lost",
                            gap.why, gap.after
                        ),
                        affected: None,
                    });
                }
            }
            Err(error) => self.report.damage(FindingKind::Log, &error, &self.directory.dir),
        }
    }
}
