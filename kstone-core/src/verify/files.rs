//! The names, the manifest and the SSTs: the rest of VERIFY.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::look::{self, Directory};
use super::{Affected, Finding, FindingKind, Progress, Severity, VerifyMode, VerifyOptions, VerifyReport};
use crate::error::{Error, Result};
use crate::file_header::{FileHeader, FileKind, HEADER_LEN, Id};
use crate::key::key_hash;
use crate::manifest::{Loaded, Manifest, ManifestState};
use crate::paths::{self, FileName};
use crate::sst::{Fault, Part, Survey, Table, TableContext, describe};
use crate::types::{SeqNo, SstMeta};
use crate::vfs::{DirEntry, OpenMode, PathKind, read_all, read_full_at};

/// The longest text file that is read whole to see whether its lines are JSON.
const MAX_TEXT: u64 = 4 << 20;

/// A look under way.
pub(super) struct Look<'a> {
    options: &'a VerifyOptions,
    pub(super) directory: Directory,
    pub(super) report: VerifyReport,
    tables: Arc<TableContext>,
    total: u64,
    /// Keeps writers out while a database that nobody has open is looked at.
    _lock: Option<Box<dyn Send + Sync>>,
}

impl<'a> Look<'a> {
    pub(super) fn begin(path: &Path, options: &'a VerifyOptions) -> Result<Self> {
        let mut report = VerifyReport::new(options);
        // Before the names are read: a database that is closed stays as it is from here on.
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
        match options.vfs.kind(&file).map_err(Error::io("look at", &file))? {
            Some(PathKind::File) | None => {}
            Some(_) => report.note(
                Severity::Damage,
                FindingKind::Lock,
                &file,
                "it is not a regular file, so that the database cannot be opened",
            ),
        }
        let total = directory.listing.iter().map(|entry| entry.len).sum();
        let tables = look::context(&options.vfs, path);
        Ok(Self { options, directory, report, tables, total, _lock: lock })
    }

    pub(super) fn is_deep(&self) -> bool {
        self.options.mode == VerifyMode::Deep
    }

    pub(super) fn run(mut self) -> Result<VerifyReport> {
        let manifest = self.directory.dir.join(paths::MANIFEST);
        if self.proceed(&manifest) {
            match std::mem::replace(&mut self.directory.manifest, Err(Error::Closed)) {
                Ok(loaded) => self.look_with(&manifest, &loaded),
                Err(error) => self.look_without(&manifest, &error),
            }
            self.look_at_texts();
        }
        if !self.report.complete {
            self.report.skipped.push("everything after the point where this was broken off".into());
        }
        Ok(self.report)
    }

    /// Tells how far it is; false when it is to end.
    fn proceed(&mut self, file: &Path) -> bool {
        let progress = Progress { done: self.report.bytes, total: self.total.max(self.report.bytes), file };
        let on = self.report.complete
            && self.options.progress.as_ref().is_none_or(|tell| tell(&progress).is_continue());
        self.report.complete = on;
        on
    }

    fn look_with(&mut self, path: &Path, loaded: &Loaded) {
        self.report.bytes += loaded.len;
        if loaded.torn {
            let detail = "its last edit was cut short by a crash, and does not count";
            self.report.note(Severity::Note, FindingKind::Manifest, path, detail);
        }
        let (state, id) = (&loaded.state, loaded.ids.database_id);
        self.look_at_names(Some((state, id)));
        self.report.ssts = state.ssts.len();
        self.report.entries = state.ssts.values().map(|meta| meta.entries).sum();
        for meta in state.ssts.values() {
            let file = paths::sst(&self.directory.dir, meta.stripe.into(), meta.id);
            if !self.proceed(&file) {
                return;
            }
            self.look_at_sst(&file, meta, state, id);
        }
        if !self.is_deep() && self.report.ssts > 0 {
            let blocks = format!("the blocks of {} SSTs: a quick look reads none", self.report.ssts);
            self.report.skipped.push(blocks);
        }
        if self.proceed(path) {
            self.look_at_log(look::log_owner(&loaded.ids), state);
        }
    }

    /// Without a manifest nobody knows what should be there: each file is judged by what it says of itself.
    fn look_without(&mut self, path: &Path, error: &Error) {
        self.report.damage(FindingKind::Manifest, error, path);
        self.look_at_names(None);
        let files: Vec<_> =
            self.directory.ssts().map(|(entry, stripe, id)| (entry.name.clone(), stripe, id)).collect();
        for (name, stripe, id) in files {
            let file = self.directory.dir.join(name);
            if !self.proceed(&file) {
                return;
            }
            self.report.ssts += 1;
            match describe(&*self.directory.vfs, &file, stripe as u16, id) {
                Ok(Some(meta)) if self.is_deep() => self.survey(&file, &meta, None),
                Ok(Some(meta)) => self.report.bytes += meta.len,
                Ok(None) => {
                    let detail = "it does not say what it is";
                    self.report.note(Severity::Damage, FindingKind::Frame, &file, detail);
                }
                Err(error) => self.report.damage(FindingKind::Frame, &error, &file),
            }
        }
        self.report
            .skipped
            .push("the log, and whether any file is missing: only the manifest can tell".into());
    }

    /// Every name in the directory that is not a listed SST or a segment of the log.
    fn look_at_names(&mut self, known: Option<(&ManifestState, Id)>) {
        let mut numbers = BTreeMap::<u64, PathBuf>::new();
        for entry in self.directory.listing.clone() {
            let path = self.directory.dir.join(&entry.name);
            match paths::parse(&entry.name) {
                FileName::Foreign => {
                    let detail = "not a KeystoneDB file (ignored)";
                    self.report.note(Severity::Warning, FindingKind::Foreign, &path, detail);
                }
                FileName::ManifestTmp => {
                    let detail = "a manifest that was being written when a process died; it means nothing";
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
                        self.look_at_orphan(&entry, &path, id, state, database_id);
                    }
                }
                FileName::Log(_) if !entry.is_file => {
                    let detail = "it is not a regular file";
                    self.report.note(Severity::Damage, FindingKind::NotAFile, &path, detail);
                }
                _ => {}
            }
        }
    }

    fn look_at_orphan(
        &mut self,
        entry: &DirEntry,
        path: &Path,
        id: u64,
        state: &ManifestState,
        database: Id,
    ) {
        if self.report.live {
            return; // it may be about to be listed, or to be removed
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
        let header = read.ok().and_then(|_| FileHeader::decode(&head, FileKind::Sst, path, 0).ok());
        let (kind, detail) = match header {
            Some(header) if header.database_id != database => {
                (FindingKind::Stranger, "it is of another database, and not listed".to_owned())
            }
            _ if id >= state.files_below => (
                FindingKind::Orphan,
                format!("not listed, and numbers below {} are reserved", state.files_below),
            ),
            _ => (FindingKind::Orphan, "not listed: left over by a crash".to_owned()),
        };
        self.report.note(Severity::Warning, kind, path, detail);
    }

    /// A newer state of the manifest of a live database.
    pub(super) fn reload(&self) -> Option<ManifestState> {
        Manifest::load(&*self.directory.vfs, &self.directory.dir).ok().map(|loaded| loaded.state)
    }

    /// Whether a file that seems wrong has been merged away meanwhile.
    fn is_gone(&self, meta: &SstMeta) -> bool {
        self.report.live && self.reload().is_some_and(|state| !state.lists(meta.id))
    }

    fn look_at_sst(&mut self, file: &Path, meta: &Arc<SstMeta>, state: &ManifestState, database_id: Id) {
        let found = self.directory.vfs.kind(file);
        let entry = self.directory.entry(file).map(|entry| entry.len);
        let problem = match (found, entry) {
            (Ok(Some(PathKind::File)), _) => None,
            (Ok(None), _) => Some((FindingKind::Missing, "the manifest lists it, but it is missing".into())),
            (Ok(Some(_)), _) => Some((FindingKind::NotAFile, "it is not a regular file".into())),
            (Err(e), _) => Some((FindingKind::Unreadable, e.to_string())),
        };
        if let Some((kind, detail)) = problem {
            if self.is_gone(meta) {
                return;
            }
            self.report.missing += 1;
            let affected = Some(self.elsewhere_of_all(meta));
            let (severity, file) = (Severity::Damage, file.to_path_buf());
            return self.report.add(Finding {
                severity,
                kind,
                file,
                offset: 0,
                len: meta.len,
                detail,
                affected,
            });
        }
        if meta.origin != database_id {
            let detail = "the manifest says that another database wrote it";
            self.report.note(Severity::Note, FindingKind::Stranger, file, detail);
        }
        if self.is_deep() {
            return self.survey(file, meta, Some(state));
        }
        let table = Table::new(&self.tables, Arc::clone(meta));
        match table.check_frame() {
            Ok(()) => self.report.good += 1,
            Err(_) if self.is_gone(meta) => {}
            // The frame is damaged: what else is, and which keys it concerns, takes the whole file.
            Err(error) => self.report.damage(FindingKind::Frame, &error, file),
        }
        self.report.bytes += meta.len - meta.directory.0.min(meta.len);
    }

    /// All of a file. Part by part first; if these are whole, what they say of each other.
    fn survey(&mut self, file: &Path, meta: &SstMeta, state: Option<&ManifestState>) {
        let survey = match Survey::read(&*self.directory.vfs, file, meta) {
            Ok(survey) => survey,
            Err(_) if self.is_gone(meta) => return,
            Err(error) => return self.report.damage(FindingKind::Unreadable, &error, file),
        };
        self.report.bytes += survey.len();
        self.report.blocks += survey.blocks.len() as u64;
        self.report.bad_blocks += survey.blocks.iter().filter(|place| !place.good).count() as u64;
        if survey.is_clean() {
            let Some(state) = state else {
                self.report.good += 1;
                return;
            };
            drop(survey);
            let table = Table::new(&self.tables, Arc::new(meta.clone()));
            match table.verify_in(Some(state.facts.stripes())) {
                Ok(()) => self.report.good += 1,
                Err(_) if self.is_gone(meta) => {}
                Err(error) => self.report.damage(FindingKind::Invariant, &error, file),
            }
            return;
        }
        if self.is_gone(meta) {
            return;
        }
        for fault in &survey.faults {
            let affected = match fault.part {
                Part::Block(n) => Some(self.elsewhere(&survey, n, state)),
                _ => None,
            };
            self.report.add(finding(file, fault, affected));
        }
    }

    /// How many of the keys in a damaged block have another version in another SST.
    fn elsewhere(&self, survey: &Survey, block: usize, state: Option<&ManifestState>) -> Affected {
        let mut affected = look::affected(survey, block);
        let others: Vec<Table> = state
            .into_iter()
            .flat_map(|state| state.ssts.values())
            .filter(|meta| meta.stripe == survey.meta.stripe && meta.id != survey.meta.id)
            .map(|meta| Table::new(&self.tables, Arc::clone(meta)))
            .collect();
        let has = |key: &[u8]| {
            let found = |table: &Table| table.get(key, key_hash(key), SeqNo::MAX, &mut ());
            others.iter().any(|table| matches!(found(table), Ok(Some(_))))
        };
        affected.elsewhere = survey.names_in(block).iter().filter(|key| has(key)).count() as u64;
        affected
    }

    fn elsewhere_of_all(&self, meta: &SstMeta) -> Affected {
        look::affected_by_all(meta)
    }

    /// The files for people. Nothing depends on them.
    fn look_at_texts(&mut self) {
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
                let detail = format!("{bad} lines are no JSON: cut off by a crash, or damaged");
                self.report.note(Severity::Note, FindingKind::Text, &path, detail);
            }
        }
    }
}

fn finding(file: &Path, fault: &Fault, affected: Option<Affected>) -> Finding {
    let kind = match fault.part {
        Part::Header if fault.detail.starts_with("it is ") => FindingKind::Stranger,
        Part::Header | Part::Frame => FindingKind::Frame,
        Part::Block(_) => FindingKind::Block,
        Part::Section(_) => FindingKind::Section,
        Part::Length => FindingKind::Length,
        Part::Whole if fault.detail.starts_with("cannot be read") => FindingKind::Unreadable,
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
