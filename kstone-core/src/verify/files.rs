//! The names, the manifest and the SSTs: the rest of VERIFY.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{self, Directory};
use super::{
    Affected, Finding, FindingKind, Progress, Severity, ValueCheck, VerifyMode, VerifyOptions, VerifyReport,
};
use crate::config::{CompactionConfig, DatabaseConfig};
use crate::error::{Error, Result};
use crate::file_header::{FileHeader, FileKind, HEADER_LEN, Id};
use crate::key::key_hash;
use crate::lsm::validate::log_owner;
use crate::manifest::{Loaded, Manifest, ManifestState};
use crate::paths::{self, FileName};
use crate::sst::{Fault, Part, SalvagedTable, Table, TableContext, describe};
use crate::types::{SeqNo, SstMeta};
use crate::vfs::{DirEntry, OpenMode, PathKind, read_all, read_full_at};

/// The longest text file that is read to check whether its lines are JSON.
const MAX_TEXT: u64 = 4 << 20;
/// How many times SSTs that replaced others during the check are checked in turn.
const ROUNDS: usize = 4;

/// The result of checking an SST: each is counted under one of these.
#[derive(Clone, Copy)]
enum TableState {
    Good,
    Bad,
    Missing,
    /// A writer has merged the SST into others meanwhile.
    Replaced,
}

/// A check in progress.
pub(super) struct Checking<'a> {
    options: &'a VerifyOptions,
    pub(super) directory: Directory,
    pub(super) report: VerifyReport,
    tables: Arc<TableContext>,
    total: u64,
    /// Keeps writers out while a database that is not open anywhere is checked.
    _lock: Option<Box<dyn Send + Sync>>,
}

impl<'a> Checking<'a> {
    pub(super) fn begin(path: &Path, options: &'a VerifyOptions) -> Result<Self> {
        let mut report = VerifyReport::new(options);
        // Taken before the names are read: from here on a closed database does not change.
        let file = path.join(paths::LOCK);
        let lock = match options.vfs.lock_shared(&file) {
            Ok(lock) => lock,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                report.live = true;
                None
            }
            Err(_) => None,
        };
        let directory = Directory::read(&options.vfs, path)?;
        match options.vfs.kind(&file).map_err(Error::io("stat", &file))? {
            Some(PathKind::File) | None => {}
            Some(_) => report.note(
                Severity::Damage,
                FindingKind::Lock,
                &file,
                "it is not a regular file, so the database cannot be opened",
            ),
        }
        let total = directory.listing.iter().map(|entry| entry.len).fold(0, u64::saturating_add);
        let tables = check::context(&options.vfs, path);
        Ok(Self { options, directory, report, tables, total, _lock: lock })
    }

    pub(super) fn is_deep(&self) -> bool {
        self.options.mode == VerifyMode::Deep
    }

    /// The check of values, in a mode that reads them.
    pub(super) fn values(&self) -> Option<&'a ValueCheck> {
        self.options.values.as_ref().filter(|_| self.is_deep())
    }

    pub(super) fn run(mut self) -> Result<VerifyReport> {
        let manifest = self.directory.dir.join(paths::MANIFEST);
        if self.proceed(&manifest) {
            match std::mem::replace(&mut self.directory.manifest, Err(Error::Closed)) {
                Ok(loaded) => self.check_with_manifest(&manifest, &loaded),
                Err(error) => self.check_without_manifest(&manifest, &error),
            }
            self.check_texts();
        }
        if !self.report.complete {
            self.report.skipped.push("everything after the point where the check was cancelled".into());
        }
        Ok(self.report)
    }

    /// Reports the progress; returns false if the check should end.
    fn proceed(&mut self, file: &Path) -> bool {
        let progress = Progress { done: self.report.bytes, total: self.total.max(self.report.bytes), file };
        let on = self.report.complete
            && self.options.progress.as_ref().is_none_or(|tell| tell(&progress).is_continue());
        self.report.complete = on;
        on
    }

    fn check_with_manifest(&mut self, path: &Path, loaded: &Loaded) {
        self.report.bytes += loaded.len;
        if loaded.torn {
            let detail = "its last edit was cut short by a crash, and is ignored";
            self.report.note(Severity::Note, FindingKind::Manifest, path, detail);
        }
        let (state, id) = (&loaded.state, loaded.ids.database_id);
        self.check_names(Some((state, id)));
        self.check_settings(path, state);
        self.report.entries = state.ssts.values().map(|meta| meta.entries).fold(0, u64::saturating_add);
        if !self.check_ssts(state, id) {
            return;
        }
        if !self.is_deep() && self.report.ssts > 0 {
            let blocks = format!("the blocks of {} SSTs: a quick check reads none", self.report.ssts);
            self.report.skipped.push(blocks);
        }
        if self.proceed(path) {
            self.check_log(log_owner(&loaded.ids), state);
        }
    }

    /// Checks all listed SSTs; in a database that is being written to, also those listed by the time that some of the
    /// first are gone. Returns false if the check was cancelled.
    fn check_ssts(&mut self, state: &ManifestState, id: Id) -> bool {
        let (mut state, mut seen) = (state.clone(), BTreeSet::new());
        for round in 0.. {
            let new: Vec<_> = state.ssts.values().filter(|meta| seen.insert(meta.id)).cloned().collect();
            if round == ROUNDS {
                if !new.is_empty() {
                    let what = format!("{} SSTs that replaced others during the check", new.len());
                    self.report.skipped.push(what);
                }
                return true;
            }
            self.report.ssts += new.len();
            let replaced = self.report.replaced;
            for (n, meta) in new.iter().enumerate() {
                let file = paths::sst(&self.directory.dir, meta.stripe.into(), meta.id);
                if !self.proceed(&file) {
                    self.report.unread += new.len() - n;
                    return false;
                }
                let verdict = self.check_sst(&file, meta, &state, id);
                self.count(verdict);
            }
            match self.reload().filter(|_| self.report.replaced > replaced) {
                Some(newer) => state = newer,
                None => return true,
            }
        }
        true
    }

    fn count(&mut self, verdict: TableState) {
        let report = &mut self.report;
        *match verdict {
            TableState::Good => &mut report.good,
            TableState::Bad => &mut report.bad,
            TableState::Missing => &mut report.missing,
            TableState::Replaced => &mut report.replaced,
        } += 1;
    }

    fn check_settings(&mut self, manifest: &Path, state: &ManifestState) {
        let invalid =
            [DatabaseConfig::stored(&state.settings).1, CompactionConfig::stored(&state.settings).1];
        for setting in invalid.into_iter().flatten() {
            self.report.note(Severity::Warning, FindingKind::Setting, manifest, setting.to_string());
        }
    }

    /// Without a manifest, the expected files are unknown: each file is judged by its own contents.
    fn check_without_manifest(&mut self, path: &Path, error: &Error) {
        self.report.damage(FindingKind::Manifest, error, path);
        self.check_names(None);
        let files: Vec<_> =
            self.directory.ssts().map(|(entry, stripe, id)| (entry.name.clone(), stripe, id)).collect();
        self.report.ssts = files.len();
        for (n, (name, stripe, id)) in files.iter().enumerate() {
            let file = self.directory.dir.join(name);
            if !self.proceed(&file) {
                self.report.unread = files.len() - n;
                return;
            }
            let verdict = match describe(&*self.directory.vfs, &file, *stripe as u16, *id) {
                Ok(Some(meta)) if self.is_deep() => self.salvaged(&file, &meta, None),
                Ok(Some(meta)) => {
                    self.report.bytes = self.report.bytes.saturating_add(meta.len);
                    TableState::Good
                }
                Ok(None) => {
                    let detail = "it does not identify itself";
                    self.report.note(Severity::Damage, FindingKind::Frame, &file, detail);
                    TableState::Bad
                }
                Err(error) => self.damaged(FindingKind::Frame, &error, &file),
            };
            self.count(verdict);
        }
        self.report
            .skipped
            .push("the log, and whether any file is missing: only the manifest records that".into());
    }

    /// Checks every name in the directory that is not a listed SST or a log segment.
    fn check_names(&mut self, known: Option<(&ManifestState, Id)>) {
        let mut numbers = BTreeMap::<u64, PathBuf>::new();
        for entry in self.directory.listing.clone() {
            let path = self.directory.dir.join(&entry.name);
            match paths::parse(&entry.name) {
                FileName::Foreign => {
                    let detail = "not a KeystoneDB file (ignored)";
                    self.report.note(Severity::Warning, FindingKind::Foreign, &path, detail);
                }
                FileName::ManifestTmp => {
                    let detail = "an unfinished manifest, left over by a crash; it is ignored";
                    self.report.note(Severity::Note, FindingKind::Orphan, &path, detail);
                }
                FileName::Sst { stripe, id } => {
                    if let Some(other) = numbers.insert(id, path.clone()) {
                        let detail = format!("it has the same number as {}", other.display());
                        self.report.note(Severity::Warning, FindingKind::Duplicate, &path, detail);
                    }
                    if let Some((state, database_id)) = known
                        && state.ssts.get(&id).is_none_or(|meta| usize::from(meta.stripe) != stripe)
                    {
                        self.check_orphan(&entry, &path, id, state, database_id);
                    }
                }
                FileName::Repairing { .. } => {
                    let detail =
                        "an SST that an interrupted repair was writing; the next repair deals with it";
                    self.report.add(Finding { len: entry.len, ..orphan(&path, detail) });
                }
                FileName::Log(_) if !entry.is_file => {
                    let detail = "it is not a regular file";
                    self.report.note(Severity::Damage, FindingKind::NotAFile, &path, detail);
                }
                _ => {}
            }
        }
    }

    fn check_orphan(&mut self, entry: &DirEntry, path: &Path, id: u64, state: &ManifestState, database: Id) {
        if self.report.live {
            return; // It may be about to be listed, or to be removed.
        }
        if !entry.is_file {
            return self.report.note(
                Severity::Warning,
                FindingKind::NotAFile,
                path,
                "it is not a regular file",
            );
        }
        let mut head = vec![0; HEADER_LEN];
        let read =
            self.directory.vfs.open(path, OpenMode::Read).and_then(|f| read_full_at(&*f, &mut head, 0));
        // An unreadable file is still reported as an orphan.
        let header = read.ok().and_then(|_| FileHeader::decode(&head, FileKind::Sst, path, 0).ok());
        let (kind, detail) = match header {
            Some(header) if header.database_id != database => {
                (FindingKind::Misplaced, "it belongs to another database, and is not listed".to_owned())
            }
            _ if id >= state.files_below => (
                FindingKind::Orphan,
                format!("not listed, and only numbers below {} are reserved", state.files_below),
            ),
            _ => (FindingKind::Orphan, "not listed: left over by a crash".to_owned()),
        };
        self.report.add(Finding { kind, len: entry.len, ..orphan(path, detail) });
    }

    /// The current manifest state of a live database.
    pub(super) fn reload(&self) -> Option<ManifestState> {
        Manifest::load(&*self.directory.vfs, &self.directory.dir).ok().map(|loaded| loaded.state)
    }

    /// Whether a file that looks damaged or missing has been merged away meanwhile.
    fn is_gone(&self, meta: &SstMeta) -> bool {
        self.report.live && self.reload().is_some_and(|state| !state.lists(meta.id))
    }

    fn damaged(&mut self, kind: FindingKind, error: &Error, file: &Path) -> TableState {
        self.report.damage(kind, error, file);
        TableState::Bad
    }

    fn check_sst(
        &mut self,
        file: &Path,
        meta: &Arc<SstMeta>,
        state: &ManifestState,
        database_id: Id,
    ) -> TableState {
        let problem = match self.directory.vfs.kind(file) {
            Ok(Some(PathKind::File)) => None,
            Ok(None) => Some((FindingKind::Missing, "the manifest lists it, but it is missing".into())),
            Ok(Some(_)) => Some((FindingKind::NotAFile, "it is not a regular file".into())),
            Err(e) => Some((FindingKind::Unreadable, e.to_string())),
        };
        if let Some((kind, detail)) = problem {
            if self.is_gone(meta) {
                return TableState::Replaced;
            }
            let affected = Some(check::affected_by_all(meta));
            let (severity, file) = (Severity::Damage, file.to_path_buf());
            self.report.add(Finding { severity, kind, file, offset: 0, len: meta.len, detail, affected });
            return TableState::Missing;
        }
        if meta.origin != database_id {
            let detail = "the manifest says that another database wrote it";
            self.report.note(Severity::Note, FindingKind::Misplaced, file, detail);
        }
        if self.is_deep() {
            return self.salvaged(file, meta, Some(state));
        }
        let looked_at = meta.len.saturating_sub(meta.directory.0);
        self.report.bytes = self.report.bytes.saturating_add(looked_at);
        match Table::new(&self.tables, Arc::clone(meta)).check_frame() {
            Ok(()) => TableState::Good,
            Err(_) if self.is_gone(meta) => TableState::Replaced,
            // The frame is damaged: finding other damage and the affected keys takes a read of the whole file.
            Err(error) => self.damaged(FindingKind::Frame, &error, file),
        }
    }

    /// Checks the whole of a file: each part on its own first; if all are intact, their consistency.
    fn salvaged(&mut self, file: &Path, meta: &SstMeta, state: Option<&ManifestState>) -> TableState {
        let salvaged = match SalvagedTable::read(&*self.directory.vfs, file, meta) {
            Ok(salvaged) => salvaged,
            Err(_) if self.is_gone(meta) => return TableState::Replaced,
            Err(error) => return self.damaged(FindingKind::Unreadable, &error, file),
        };
        self.report.bytes = self.report.bytes.saturating_add(salvaged.len());
        self.report.blocks += salvaged.blocks.len() as u64;
        if !salvaged.is_clean() && self.is_gone(meta) {
            return TableState::Replaced;
        }
        self.report.bad_blocks += salvaged.blocks.iter().filter(|place| !place.good).count() as u64;
        for fault in &salvaged.faults {
            let affected = match fault.part {
                Part::Block(n) => Some(self.elsewhere(&salvaged, n, state)),
                _ => None,
            };
            self.report.add(finding(file, fault, affected));
        }
        let readable = self.check_values(file, &salvaged);
        if !salvaged.is_clean() || !readable {
            return TableState::Bad;
        }
        // Without a manifest there is nothing else that the file must agree with.
        let Some(state) = state else { return TableState::Good };
        drop(salvaged);
        let table = Table::new(&self.tables, Arc::new(meta.clone()));
        match table.verify_in(Some(state.facts.stripes())) {
            Ok(()) => TableState::Good,
            Err(_) if self.is_gone(meta) => TableState::Replaced,
            Err(error) => self.damaged(FindingKind::Invariant, &error, file),
        }
    }

    /// Whether all readable values are ones that the database may hold.
    fn check_values(&mut self, file: &Path, salvaged: &SalvagedTable) -> bool {
        let Some(values) = self.values() else { return true };
        let mut all = true;
        for (n, place) in salvaged.blocks.iter().enumerate() {
            for entry in salvaged.entries(n) {
                if let Some(why) = check::refused(Some(values), entry.kind, &entry.value) {
                    self.report.add(Finding::no_value(file, place.at.start as u64, &entry.key, why));
                    all = false;
                }
            }
        }
        all
    }

    /// The keys affected by a damaged block, with the number of them that have another version in another SST.
    fn elsewhere(&self, salvaged: &SalvagedTable, block: usize, state: Option<&ManifestState>) -> Affected {
        let mut affected = check::affected(salvaged, block);
        let others: Vec<Table> = state
            .into_iter()
            .flat_map(|state| state.ssts.values())
            .filter(|meta| meta.stripe == salvaged.meta.stripe && meta.id != salvaged.meta.id)
            .map(|meta| Table::new(&self.tables, Arc::clone(meta)))
            .collect();
        let has = |key: &[u8]| {
            let found = |table: &Table| table.get(key, key_hash(key), SeqNo::MAX, &mut ());
            others.iter().any(|table| matches!(found(table), Ok(Some(_))))
        };
        affected.elsewhere = salvaged.names_in(block).iter().filter(|key| has(key)).count() as u64;
        affected
    }

    /// Checks the files for human readers. Nothing depends on them.
    fn check_texts(&mut self) {
        for entry in self.directory.listing.clone() {
            let path = self.directory.dir.join(&entry.name);
            let lines = match paths::parse(&entry.name) {
                FileName::Events => true,
                FileName::Stats => false,
                _ => continue,
            };
            if !entry.is_file {
                self.report.note(Severity::Warning, FindingKind::NotAFile, &path, "it is not a regular file");
                continue;
            }
            let read = self.directory.vfs.open(&path, OpenMode::Read).and_then(|f| read_all(&*f, MAX_TEXT));
            let Ok(bytes) = read else {
                self.report.note(
                    Severity::Warning,
                    FindingKind::Text,
                    &path,
                    "it cannot be read, or is too long",
                );
                continue;
            };
            self.report.bytes += bytes.len() as u64;
            let is_json = |text: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
            let bad = if lines {
                bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty() && !is_json(line)).count()
            } else {
                usize::from(!self.report.live && !is_json(&bytes))
            };
            if bad > 0 {
                let detail = format!("{bad} lines are not JSON: cut off by a crash, or damaged");
                self.report.note(Severity::Note, FindingKind::Text, &path, detail);
            }
        }
    }
}

/// A file of this database that nothing lists.
fn orphan(file: &Path, detail: impl Into<String>) -> Finding {
    let (severity, kind, file) = (Severity::Warning, FindingKind::Orphan, file.to_path_buf());
    Finding { severity, kind, file, offset: 0, len: 0, detail: detail.into(), affected: None }
}

fn finding(file: &Path, fault: &Fault, affected: Option<Affected>) -> Finding {
    let kind = match fault.part {
        Part::Identity => FindingKind::Misplaced,
        Part::Header | Part::Frame => FindingKind::Frame,
        Part::Block(_) => FindingKind::Block,
        Part::Section(_) => FindingKind::Section,
        Part::Length => FindingKind::Length,
        Part::Unreadable => FindingKind::Unreadable,
        Part::Whole => FindingKind::Checksum,
    };
    Finding {
        severity: Severity::Damage,
        kind,
        file: file.to_path_buf(),
        offset: fault.offset,
        len: fault.len,
        detail: fault.detail.clone(),
        affected,
    }
}
