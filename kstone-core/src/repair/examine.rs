//! What is wrong, file by file. Reads everything, changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{RepairOptions, Versions};
use crate::error::{Error, Result};
use crate::file_header::{FileHeader, FileKind, HEADER_LEN, Id};
use crate::key::{encoded_partition_hash, stripe_of};
use crate::manifest::{Ids, ManifestState, load_what_passes};
use crate::paths::{self, FileName};
use crate::record::Ops;
use crate::sst::{Survey, Table, TableContext, describe};
use crate::types::{FileId, Lsn, SstMeta};
use crate::verify::Progress;
use crate::verify::look::{self, Directory};
use crate::vfs::{OpenMode, Vfs, read_full_at};
use crate::wal::{self, LogRules, LogSalvage};

/// An SST that is, or should be, part of the database.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) meta: Arc<SstMeta>,
    /// Where its bytes are; `None` when they are nowhere.
    pub(super) path: Option<PathBuf>,
    /// Nothing is wrong with it, and it is under its name.
    pub(super) clean: bool,
}

/// A database as it was found.
pub(super) struct Patient {
    pub(super) directory: Directory,
    pub(super) tables: Arc<TableContext>,
    pub(super) ids: Ids,
    /// As far as a manifest tells.
    pub(super) state: Option<ManifestState>,
    /// The manifest is what it should be; else the files have to say what they are.
    pub(super) trusted: bool,
    pub(super) candidates: Vec<Candidate>,
    /// Files of ours, or named as such, that are no part of it and in the way.
    pub(super) strangers: Vec<PathBuf>,
    /// SSTs of which nothing can be told.
    pub(super) unknown: Vec<PathBuf>,
    pub(super) log_is_good: bool,
    pub(super) log: LogSalvage,
    /// The operations in the log that are needed, by the hash of their partition. What the manifest says to be flushed is
    /// among them.
    pub(super) operations: Vec<(u64, Operation)>,
    /// Names that are no files where files should be.
    pub(super) irregular: Vec<PathBuf>,
}

/// One operation of the log.
pub(super) type Operation = (Vec<u8>, u64, crate::types::EntryKind, Vec<u8>);

impl Patient {
    pub(super) fn is_well(&self) -> bool {
        self.trusted
            && self.log_is_good
            && self.irregular.is_empty()
            && self.strangers.is_empty()
            && self.candidates.iter().all(|candidate| candidate.clean)
    }

    /// The operations of a stripe.
    pub(super) fn operations_of(&self, stripe: usize, stripes: usize) -> Versions {
        let own = self.operations.iter().filter(|(hash, _)| stripe_of(*hash, stripes) == stripe);
        own.map(|(_, (key, seq, kind, value))| {
            ((key.clone(), std::cmp::Reverse(*seq)), (*kind, value.clone()))
        })
        .collect()
    }
}

struct Examiner<'a> {
    options: &'a RepairOptions,
    directory: &'a Directory,
    tables: Arc<TableContext>,
    done: u64,
    total: u64,
}

pub(super) fn examine(path: &Path, options: &RepairOptions) -> Result<Patient> {
    let mut directory = Directory::read(&options.vfs, path)?;
    let vfs = Arc::clone(&options.vfs);
    let manifest = std::mem::replace(&mut directory.manifest, Err(Error::Closed));
    let (ids, state, mut trusted) = match manifest {
        Ok(loaded) => (Some(loaded.ids), Some(loaded.state), true),
        Err(error @ Error::UnsupportedFormat { .. }) => return Err(error),
        Err(_damaged) => {
            let (ids, state) = load_what_passes(&*vfs, path)?;
            (ids, state, false)
        }
    };
    let found = identity(&directory, options)?;
    let mut ids = ids.or(found.as_ref().map(|found| found.ids)).ok_or_else(|| {
        let detail = "nothing is left that says which database this was";
        Error::corrupt(&path.join(paths::MANIFEST), 0, detail)
    })?;
    let irregular = irregular(&directory);
    let tables = look::context(&vfs, path);
    let total = directory.listing.iter().map(|entry| entry.len).sum();
    let mut examiner =
        Examiner { options, directory: &directory, tables: Arc::clone(&tables), done: 0, total };
    let rules = state.as_ref().filter(|_| trusted).map(look::log_rules);
    let log_end = match rules.as_ref().filter(|_| irregular.is_empty()) {
        Some(rules) => log_end(&directory, &ids, rules, &mut trusted)?,
        None => None,
    };
    let mut candidates = Vec::new();
    if let Some(state) = state.as_ref().filter(|_| trusted) {
        candidates = examiner.listed(state)?;
        let lacking = candidates.iter().any(|candidate| candidate.path.is_none()) || log_end.is_none();
        let unlisted = directory.ssts().any(|(entry, _, id)| entry.is_file && !state.lists(id));
        // Files are missing and others are too many: it may be an old manifest.
        trusted = !(lacking && unlisted);
    }
    let (mut strangers, mut unknown) = (Vec::new(), Vec::new());
    if let Some(found) = found.filter(|found| !trusted && found.is_other_copy_than(&ids)) {
        // The manifest of one copy among the files of another.
        ids = found.ids;
    }
    if !trusted {
        (candidates, strangers, unknown) = examiner.all_there_are(&ids, state.as_ref())?;
    }
    let everything = LogRules::default();
    let rules = rules.filter(|_| trusted).unwrap_or(everything);
    let limit = log_end.filter(|_| trusted);
    // A log that stays is asked only for what damaged SSTs have lost.
    let stays = limit.is_some() && options.into.is_none();
    let hurt: BTreeSet<u16> = candidates.iter().filter(|c| !c.clean).map(|c| c.meta.stripe).collect();
    let stripes = state.as_ref().map_or(1, |state| state.facts.stripes());
    let needed = |hash| !stays || hurt.contains(&(stripe_of(hash, stripes) as u16));
    let (log, operations) = read_log(&directory, &ids, &rules, limit, needed)?;
    strangers.extend(log.strangers.iter().filter(|path| !irregular.contains(path)).cloned());
    let log_is_good = limit.is_some();
    Ok(Patient {
        tables,
        ids,
        state,
        trusted,
        candidates,
        strangers,
        unknown,
        log_is_good,
        log,
        operations,
        irregular,
        directory,
    })
}

/// Where the log ends, if opening would accept it. A manifest that lacks an edit which the log knows of is not trusted.
fn log_end(directory: &Directory, ids: &Ids, rules: &LogRules, trusted: &mut bool) -> Result<Option<Lsn>> {
    let (vfs, dir) = (&*directory.vfs, &directory.dir);
    let chain = wal::discover(vfs, dir, look::log_owner(ids))
        .and_then(|segments| wal::validate(vfs, dir, &segments, rules));
    match chain {
        Ok(chain) => Ok(Some(chain.end)),
        Err(error @ (Error::UnsupportedFormat { .. } | Error::Io { .. })) => Err(error),
        Err(Error::Corruption { file, .. }) if file == dir.join(paths::MANIFEST) => {
            *trusted = false;
            Ok(None)
        }
        Err(_damaged) => Ok(None),
    }
}

/// What the files that are no manifest say to be of.
struct Identity {
    ids: Ids,
    /// The copies of which there are segments.
    copies: BTreeSet<Id>,
}

impl Identity {
    /// The same database, and its log is of copies, but not of that one.
    fn is_other_copy_than(&self, ids: &Ids) -> bool {
        let logged = !self.copies.is_empty() && !self.copies.contains(&ids.incarnation);
        logged && self.ids.database_id == ids.database_id
    }
}

/// The database that most files say to be of, and the copy of it that most segments of its log do; `None` when there is
/// no such file. SSTs are shared by copies, and do not tell which one this is.
fn identity(directory: &Directory, options: &RepairOptions) -> Result<Option<Identity>> {
    #[derive(Default)]
    struct Vote {
        files: usize,
        created_ms: Option<u64>,
        copies: BTreeMap<Id, usize>,
    }
    let mut votes = BTreeMap::<Id, Vote>::new();
    for entry in directory.listing.iter().filter(|entry| entry.is_file) {
        let kind = match paths::parse(&entry.name) {
            FileName::Sst { .. } => FileKind::Sst,
            FileName::Log(_) => FileKind::Log,
            _ => continue,
        };
        let path = directory.dir.join(&entry.name);
        if let Some(header) = header_of(&*directory.vfs, &path, kind)? {
            let vote = votes.entry(header.database_id).or_default();
            vote.files += 1;
            vote.created_ms = Some(vote.created_ms.map_or(header.created_ms, |at| at.min(header.created_ms)));
            if kind == FileKind::Log {
                *vote.copies.entry(header.incarnation).or_default() += 1;
            }
        }
    }
    let Some((database_id, vote)) = votes.into_iter().max_by_key(|(_, vote)| vote.files) else {
        return Ok(None);
    };
    let most = vote.copies.iter().max_by_key(|(_, segments)| **segments).map(|(copy, _)| *copy);
    let incarnation = most.unwrap_or_else(|| random_id(options));
    let ids = Ids { database_id, incarnation, created_ms: vote.created_ms.unwrap_or_default() };
    Ok(Some(Identity { ids, copies: vote.copies.into_keys().collect() }))
}

/// For what is a copy of its own from here on.
pub(super) fn random_id(options: &RepairOptions) -> Id {
    (u128::from(options.clock.random()) << 64 | u128::from(options.clock.random())).to_le_bytes()
}

fn header_of(vfs: &dyn Vfs, path: &Path, kind: FileKind) -> Result<Option<FileHeader>> {
    let Ok(file) = vfs.open(path, OpenMode::Read) else { return Ok(None) };
    let mut head = vec![0; HEADER_LEN];
    if read_full_at(&*file, &mut head, 0).is_err() {
        return Ok(None);
    }
    match FileHeader::decode(&head, kind, path, 0) {
        Ok(header) => Ok(Some(header)),
        Err(error @ Error::UnsupportedFormat { .. }) => Err(error),
        Err(_damaged) => Ok(None),
    }
}

/// Directories, links and the like under names that should be files of ours.
fn irregular(directory: &Directory) -> Vec<PathBuf> {
    let ours = directory.listing.iter().filter(|entry| {
        !entry.is_file
            && matches!(
                paths::parse(&entry.name),
                FileName::Log(_) | FileName::Sst { .. } | FileName::Manifest
            )
    });
    ours.map(|entry| directory.dir.join(&entry.name)).collect()
}

fn read_log(
    directory: &Directory,
    ids: &Ids,
    rules: &LogRules,
    limit: Option<Lsn>,
    needed: impl Fn(u64) -> bool,
) -> Result<(LogSalvage, Vec<(u64, Operation)>)> {
    let mut operations = Vec::new();
    let mut log = wal::salvage(&*directory.vfs, &directory.dir, look::log_owner(ids), rules, |record| {
        if limit.is_some_and(|end| record.lsn >= end) {
            return Ok(());
        }
        let file = paths::log(&directory.dir, record.lsn.generation());
        for (i, op) in Ops::new(record.payload).enumerate() {
            let op = op.map_err(|bad| bad.in_file(&file, record.lsn.offset().into()));
            let op = match op {
                Ok(op) => op,
                Err(error @ Error::UnsupportedFormat { .. }) => return Err(error),
                // Its checksum holds: it was written like that, and nothing can be made of it.
                Err(_) => break,
            };
            if let Some(hash) = encoded_partition_hash(op.key).filter(|hash| needed(*hash)) {
                let seq = record.first_seq + i as u64;
                operations.push((hash, (op.key.to_vec(), seq, op.kind, op.value.to_vec())));
            }
        }
        Ok(())
    })?;
    if limit.is_some() {
        // What lies behind a good end was never promised: nothing of it is missing.
        log.gaps.clear();
    }
    Ok((log, operations))
}

impl Examiner<'_> {
    fn proceed(&mut self, file: &Path, len: u64) -> Result<()> {
        self.done += len;
        let progress = Progress { done: self.done.min(self.total), total: self.total, file };
        if self.options.progress.as_ref().is_some_and(|tell| tell(&progress).is_break()) {
            let stopped = std::io::Error::new(std::io::ErrorKind::Interrupted, "it was broken off");
            return Err(Error::io("repair", &self.directory.dir)(stopped));
        }
        Ok(())
    }

    /// What the manifest lists.
    fn listed(&mut self, state: &ManifestState) -> Result<Vec<Candidate>> {
        let stripes = state.facts.stripes();
        let mut candidates = Vec::new();
        for meta in state.ssts.values() {
            let path = paths::sst(&self.directory.dir, meta.stripe.into(), meta.id);
            self.proceed(&path, meta.len)?;
            let found = self.directory.entry(&path).is_some_and(|entry| entry.is_file);
            let survey = found.then(|| Survey::read(&*self.options.vfs, &path, meta)).transpose()?;
            let mut candidate = Candidate { meta: Arc::clone(meta), path: None, clean: false };
            let foreign =
                |survey: &Survey| survey.identity.is_some_and(|(database, _)| database != meta.origin);
            match survey {
                // A file of another database: its entries are none of ours, whatever their sequences.
                Some(survey) if foreign(&survey) => candidate.path = self.elsewhere(meta)?,
                Some(survey) if survey.is_clean() => {
                    candidate.clean =
                        Table::new(&self.tables, Arc::clone(meta)).verify_in(Some(stripes)).is_ok();
                    candidate.path = Some(path);
                }
                Some(survey) if survey.has_entries() => candidate.path = Some(path),
                // Something else is under its name, or nothing: it may be under another.
                _ => candidate.path = self.elsewhere(meta)?.or(found.then_some(path)),
            }
            candidates.push(candidate);
        }
        Ok(candidates)
    }

    /// The file that says to be this one, under whatever name.
    fn elsewhere(&self, meta: &SstMeta) -> Result<Option<PathBuf>> {
        for (entry, ..) in self.directory.ssts().filter(|(entry, ..)| entry.is_file) {
            let path = self.directory.dir.join(&entry.name);
            let header = header_of(&*self.options.vfs, &path, FileKind::Sst)?;
            let id =
                header.filter(|header| header.database_id == meta.origin).and_then(|header| file_id(&header));
            if id == Some(meta.id) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// All SSTs in the directory that say to be of this database, each once; and the files that are not.
    fn all_there_are(
        &mut self,
        ids: &Ids,
        state: Option<&ManifestState>,
    ) -> Result<(Vec<Candidate>, Vec<PathBuf>, Vec<PathBuf>)> {
        let (mut strangers, mut unknown) = (Vec::new(), Vec::new());
        let mut found = BTreeMap::<FileId, Candidate>::new();
        for (entry, stripe, id) in self.directory.ssts().filter(|(entry, ..)| entry.is_file) {
            let path = self.directory.dir.join(&entry.name);
            self.proceed(&path, entry.len)?;
            let listed = state.and_then(|state| state.ssts.get(&id)).map(|meta| SstMeta::clone(meta));
            let described = describe(&*self.options.vfs, &path, stripe as u16, id)?;
            let Some(mut meta) = described.or(listed) else {
                unknown.push(path);
                continue;
            };
            if meta.origin == [0; 16] {
                meta.origin = ids.database_id;
            }
            let named = (usize::from(meta.stripe), meta.id) == (stripe, id);
            if meta.origin != ids.database_id || found.contains_key(&meta.id) && !named {
                strangers.push(path);
                continue;
            }
            let survey = Survey::read(&*self.options.vfs, &path, &meta)?;
            let meta = Arc::new(meta);
            let whole = named && survey.is_clean();
            let clean = whole && Table::new(&self.tables, Arc::clone(&meta)).verify_in(None).is_ok();
            let before = found.insert(meta.id, Candidate { meta, path: Some(path), clean });
            strangers.extend(before.and_then(|before| before.path));
        }
        Ok((found.into_values().collect(), strangers, unknown))
    }
}

/// The number of an SST, in the fields of its header.
fn file_id(header: &FileHeader) -> Option<FileId> {
    header.extra.first_chunk().map(|id| u64::from_le_bytes(*id))
}
