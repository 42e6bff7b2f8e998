//! The log's part of VERIFY.

use super::files::Look;
use super::look::log_rules;
use super::{Finding, FindingKind, LogReport, Severity};
use crate::error::{Error, Result};
use crate::escape;
use crate::key::encoded_partition_hash;
use crate::manifest::ManifestState;
use crate::paths;
use crate::record::Ops;
use crate::types::Lsn;
use crate::wal::{self, Chain, LogOwner, LogRules, RecordRef};

/// How often damage in the log of a live database must be found at the same place.
const SIGHTINGS: usize = 3;
/// How often a log that keeps changing is read.
const ATTEMPTS: usize = 10;

impl Look<'_> {
    /// Walks the log from its start to its end. Damage ends the walk, and what lies behind it is then looked at record
    /// by record.
    pub(super) fn look_at_log(&mut self, owner: LogOwner, state: &ManifestState) {
        let mut sightings: Vec<(Option<u64>, Error)> = Vec::new();
        let mut state = state.clone();
        for _ in 0..ATTEMPTS {
            let rules = log_rules(&state);
            let error = match self.walk_log(owner, &rules) {
                Ok(log) => return self.report.log = log,
                Err(error) => error,
            };
            let at = match &error {
                Error::Corruption { offset, .. } => Some(*offset),
                _ => None,
            };
            sightings.push((at, error));
            let same = sightings.iter().filter(|(before, _)| *before == at).count();
            if !self.report.live || same >= SIGHTINGS {
                let Some((_, error)) = sightings.pop() else { return };
                return self.log_is_damaged(owner, &rules, &error);
            }
            // A segment may have gone, and the log's start moved on, since the manifest was read.
            if let Some(newer) = self.reload() {
                state = newer;
            }
        }
        self.report.skipped.push("the log: it was written to faster than it could be read".into());
    }

    fn walk_log(&mut self, owner: LogOwner, rules: &LogRules) -> Result<LogReport> {
        let (vfs, dir) = (&*self.directory.vfs, &self.directory.dir);
        let segments = wal::discover(vfs, dir, owner)?;
        let chain = wal::validate(vfs, dir, &segments, rules)?;
        let mut log = LogReport {
            segments: chain.segments.len(),
            end: (chain.end > Lsn::ZERO).then(|| (chain.end.generation(), chain.end.offset())),
            ..LogReport::default()
        };
        let deep = self.is_deep();
        wal::replay(vfs, &chain, |record| {
            log.records += 1;
            if deep {
                log.operations += self.decode(&chain, &record)?;
            }
            Ok(())
        })?;
        self.report.bytes += chain.segments.iter().map(|info| info.len).sum::<u64>();
        Ok(log)
    }

    /// All operations of a batch; how many they are.
    fn decode(&self, _chain: &Chain, record: &RecordRef<'_>) -> Result<u64> {
        let file = paths::log(&self.directory.dir, record.lsn.generation());
        let offset = u64::from(record.lsn.offset());
        let mut operations = 0;
        for op in Ops::new(record.payload) {
            let op = op.map_err(|bad| bad.in_file(&file, offset))?;
            if encoded_partition_hash(op.key).is_none() {
                let detail = format!("\"{}\" is no key", escape::key(op.key));
                return Err(Error::corrupt(&file, offset, detail));
            }
            operations += 1;
        }
        if operations != u64::from(record.count) {
            let detail = format!("the record says {} operations and holds {operations}", record.count);
            return Err(Error::corrupt(&file, offset, detail));
        }
        Ok(operations)
    }

    fn log_is_damaged(&mut self, owner: LogOwner, rules: &LogRules, error: &Error) {
        let manifest = self.directory.dir.join(paths::MANIFEST);
        let mut operations = 0;
        let found = wal::salvage(&*self.directory.vfs, &self.directory.dir, owner, rules, |record| {
            operations += u64::from(record.count);
            Ok(())
        });
        let kind = match (error, &found) {
            (Error::Corruption { file, .. }, _) if *file == manifest => FindingKind::Manifest,
            (Error::Corruption { file, .. }, Ok(found)) if found.strangers.contains(file) => {
                FindingKind::Stranger
            }
            _ => FindingKind::Log,
        };
        self.report.damage(kind, error, &self.directory.dir);
        match found {
            Ok(found) => {
                self.report.log =
                    LogReport { segments: found.files.len(), records: found.records, operations, end: None };
                for gap in found.gaps {
                    let next = gap.before.map_or("an unknown one".into(), |seq| seq.to_string());
                    self.report.add(Finding {
                        severity: Severity::Damage,
                        kind: FindingKind::Log,
                        file: gap.file,
                        offset: gap.offset,
                        len: gap.len,
                        detail: format!(
                            "{}; the operations after sequence {} and before {next} are lost",
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
