//! Finds what is wrong, file by file. Reads everything, changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::salvage::{Dropped, OwnedEntry, salvage};
use super::{RepairOptions, Versions};
use crate::error::{Error, Result};
use crate::file_header::{FileHeader, FileKind, HEADER_LEN, Id};
use crate::key::{encoded_partition_hash, stripe_of};
use crate::lsm::validate::{SEQ_GAP, check_numbers, log_owner, log_rules};
use crate::manifest::{Ids, ManifestState, load_what_passes};
use crate::paths::{self, FileName};
use crate::sst::{SalvagedTable, Table, TableContext, describe};
use crate::types::{FileId, Lsn, MAX_NUMBER, MAX_STRIPES, SstMeta};
use crate::verify::check::{self, BatchOp, Directory, check_batch, log_file};
use crate::verify::{Progress, ValueCheck};
use crate::vfs::{OpenMode, Vfs, read_full_at};
use crate::wal::{self, Chain, LogGap, LogRules, LogSalvage};

/// An SST that is, or should be, part of the database.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) meta: Arc<SstMeta>,
    /// Where its bytes are; `None` if they are nowhere.
    pub(super) path: Option<PathBuf>,
    /// The file is intact and has the right name.
    pub(super) clean: bool,
}

/// A database as it was found.
pub(super) struct DamagedDatabase {
    pub(super) directory: Directory,
    pub(super) tables: Arc<TableContext>,
    pub(super) ids: Ids,
    /// The state in the manifest, or what is readable of it.
    pub(super) state: Option<ManifestState>,
    /// The manifest is intact; otherwise the files have to identify themselves.
    pub(super) trusted: bool,
    pub(super) stripes: usize,
    pub(super) candidates: Vec<Candidate>,
    /// Database files, or files with such names, that are not part of this database and are in the way.
    pub(super) foreign_files: Vec<PathBuf>,
    /// SSTs of which nothing can be read.
    pub(super) unknown: Vec<PathBuf>,
    pub(super) log_is_good: bool,
    /// No operation in the log has to go into SSTs.
    pub(super) log_stays: bool,
    pub(super) log: LogSalvage,
    /// The operations needed from the log, by the hash of their partition. They include operations that the manifest
    /// records as flushed.
    pub(super) operations: Vec<(u64, OwnedEntry)>,
    /// Operations in the log that can be read but not used.
    pub(super) dropped: Vec<(u64, Dropped)>,
    /// Entries of damaged SSTs that belong to other stripes.
    pub(super) strays: Vec<(u64, OwnedEntry)>,
    pub(super) values: Option<ValueCheck>,
    /// Directory entries that should be files and are not.
    pub(super) irregular: Vec<PathBuf>,
}

impl DamagedDatabase {
    pub(super) fn is_well(&self) -> bool {
        self.trusted
            && self.log_is_good
            && self.irregular.is_empty()
            && self.foreign_files.is_empty()
            && self.candidates.iter().all(|candidate| candidate.clean)
    }

    /// The operations of one stripe.
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

pub(super) fn examine(path: &Path, options: &RepairOptions) -> Result<DamagedDatabase> {
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
        let detail = "nothing is left that identifies the database";
        Error::corrupt(&path.join(paths::MANIFEST), 0, detail)
    })?;
    let irregular = irregular(&directory);
    let tables = check::context(&vfs, path);
    let total = directory.listing.iter().map(|entry| entry.len).fold(0, u64::saturating_add);
    let mut examiner =
        Examiner { options, directory: &directory, tables: Arc::clone(&tables), done: 0, total };
    if let Some(state) = state.as_ref().filter(|_| trusted) {
        trusted = check_numbers(path, state, 0, 0).is_ok();
    }
    let rules = state.as_ref().filter(|_| trusted).map(log_rules);
    let mut end = LogEnd::default();
    if let Some(state) = state.as_ref().filter(|_| trusted && irregular.is_empty()) {
        end = examiner.log_end(&ids, state, &mut trusted)?;
    }
    let mut candidates = Vec::new();
    if let Some(state) = state.as_ref().filter(|_| trusted) {
        candidates = examiner.listed(state)?;
        let lacking = candidates.iter().any(|candidate| candidate.path.is_none()) || end.at.is_none();
        let unlisted = directory.ssts().any(|(entry, _, id)| entry.is_file && !state.lists(id));
        // Files are missing while others are not listed: it may be an old manifest.
        trusted = !(lacking && unlisted);
    }
    let (mut foreign_files, mut unknown) = (Vec::new(), Vec::new());
    if let Some(found) = found.filter(|found| !trusted && found.is_other_copy_than(&ids)) {
        // The manifest of one copy among the files of another copy.
        ids = found.ids;
    }
    let mut stripes = state.as_ref().map_or(MAX_STRIPES, |state| state.facts.stripes());
    if !trusted {
        (candidates, foreign_files, unknown) = examiner.all_there_are(&ids, state.as_ref())?;
        if state.is_none() {
            stripes = elect_stripes(&directory, &candidates)?;
        }
        for candidate in candidates.iter_mut().filter(|candidate| candidate.clean) {
            candidate.clean = examiner.is_right(&candidate.meta, stripes);
        }
    }
    let mut strays = Vec::new();
    for candidate in candidates.iter().filter(|candidate| !candidate.clean) {
        strays.extend(salvage(&*vfs, stripes, options.values.as_ref(), candidate)?.strays);
    }
    let rules = rules.filter(|_| trusted).unwrap_or_default();
    let limit = end.at.filter(|_| trusted);
    let mut log_is_good = trusted && end.is_good;
    // A log that stays is read only for what damaged SSTs have lost.
    let log_stays = log_is_good && options.into.is_none() && strays.is_empty();
    let hurt: BTreeSet<u16> = candidates.iter().filter(|c| !c.clean).map(|c| c.meta.stripe).collect();
    let needed = |hash| !log_stays || hurt.contains(&(stripe_of(hash, stripes) as u16));
    let mut read = read_log(&directory, &ids, &rules, limit, options.values.as_ref(), needed)?;
    log_is_good &= has_its_log(&directory, state.as_ref().filter(|_| trusted), &mut read.log);
    if let Some(state) = state.as_ref().filter(|_| trusted) {
        let next = state.clean_end.map(|clean| clean.next_seq);
        // A clean end records the next sequence.
        read.log.gaps.iter_mut().filter(|gap| gap.before.is_none()).for_each(|gap| gap.before = next);
    }
    foreign_files.extend(read.log.foreign.iter().filter(|path| !irregular.contains(path)).cloned());
    Ok(DamagedDatabase {
        tables,
        ids,
        state,
        trusted,
        stripes,
        candidates,
        foreign_files,
        unknown,
        log_is_good,
        log_stays: log_stays && log_is_good,
        log: read.log,
        operations: read.operations,
        dropped: read.dropped,
        strays,
        values: options.values.clone(),
        irregular,
        directory,
    })
}

/// Where the log ends, if opening the database would accept its records, and whether it would accept their contents.
#[derive(Default)]
struct LogEnd {
    at: Option<Lsn>,
    is_good: bool,
}

/// A database that was not closed and has no log file had one, unless it crashed before it created one: its contents
/// may be lost. Without a manifest it is unknown whether the database was closed.
fn has_its_log(directory: &Directory, state: Option<&ManifestState>, log: &mut LogSalvage) -> bool {
    let is_log = |name: &str| matches!(paths::parse(name), FileName::Log(_));
    let closed = state.is_some_and(|state| state.clean_end.is_some());
    if closed || directory.listing.iter().any(|entry| is_log(&entry.name)) {
        return true;
    }
    if log.gaps.is_empty() {
        let cut = state.and_then(|state| state.cuts.iter().max_by_key(|cut| cut.seq));
        let start = state.map_or(1, |state| state.log_start.generation());
        log.gaps.push(LogGap {
            file: paths::log(&directory.dir, cut.map_or(1, |cut| cut.next_generation).max(start)),
            offset: 0,
            len: 0,
            after: cut.map_or(0, |cut| cut.seq),
            before: None,
            why: "there is no log file, and no record that the database was closed".into(),
        });
    }
    false
}

/// The stripe count that most keys agree with, given the stripe of the file that each is in.
fn elect_stripes(directory: &Directory, candidates: &[Candidate]) -> Result<usize> {
    let highest = candidates.iter().map(|candidate| usize::from(candidate.meta.stripe)).max().unwrap_or(0);
    let possible = (0..=MAX_STRIPES.trailing_zeros()).map(|bits| 1 << bits);
    let mut votes: Vec<(usize, u64)> =
        possible.filter(|&stripes| stripes > highest).map(|stripes| (stripes, 0)).collect();
    for candidate in candidates {
        // A file that is listed but missing has no vote.
        let Some(path) = &candidate.path else { continue };
        let salvaged = SalvagedTable::read(&*directory.vfs, path, &candidate.meta)?;
        for entry in (0..salvaged.blocks.len()).flat_map(|n| salvaged.entries(n)) {
            // An invalid key belongs to no stripe.
            let Some(hash) = encoded_partition_hash(&entry.key) else { continue };
            for (stripes, votes) in &mut votes {
                *votes += u64::from(stripe_of(hash, *stripes) == usize::from(candidate.meta.stripe));
            }
        }
    }
    // If several counts have as many votes, any of them will do: take the highest.
    Ok(votes.into_iter().max_by_key(|&(stripes, votes)| (votes, stripes)).map_or(MAX_STRIPES, |(n, _)| n))
}

/// The identity that the files other than the manifest carry.
struct Identity {
    ids: Ids,
    /// The copies that the log segments belong to.
    copies: BTreeSet<Id>,
}

impl Identity {
    /// Whether these are files of the same database, whose log belongs to other copies than that one.
    fn is_other_copy_than(&self, ids: &Ids) -> bool {
        let logged = !self.copies.is_empty() && !self.copies.contains(&ids.incarnation);
        logged && self.ids.database_id == ids.database_id
    }
}

/// The database that most files belong to, and the copy of it that most of its log segments belong to; `None` if there
/// is no such file. SSTs are shared by copies and do not identify the copy.
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

/// An identity for a database that becomes a separate copy.
pub(super) fn random_id(options: &RepairOptions) -> Id {
    (u128::from(options.clock.random()) << 64 | u128::from(options.clock.random())).to_le_bytes()
}

fn header_of(vfs: &dyn Vfs, path: &Path, kind: FileKind) -> Result<Option<FileHeader>> {
    // An unreadable file does not identify itself; it is examined and reported like any other.
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

/// Directories, links and the like under names that should be database files.
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

/// The contents of the log.
struct ReadLog {
    log: LogSalvage,
    operations: Vec<(u64, OwnedEntry)>,
    dropped: Vec<(u64, Dropped)>,
}

fn read_log(
    directory: &Directory,
    ids: &Ids,
    rules: &LogRules,
    limit: Option<Lsn>,
    values: Option<&ValueCheck>,
    needed: impl Fn(u64) -> bool,
) -> Result<ReadLog> {
    let (mut operations, mut dropped, mut unreadable) = (Vec::new(), Vec::new(), Vec::<LogGap>::new());
    let dir = &directory.dir;
    let mut log = wal::salvage(&*directory.vfs, dir, log_owner(ids), rules, |record| {
        if limit.is_some_and(|end| record.lsn >= end) {
            return Ok(());
        }
        let file = log_file(dir, &record);
        let last = record.first_seq.saturating_add(record.count.into()).saturating_sub(1);
        let lost = |key: &[u8], seq, kind| Dropped { key: key.to_vec(), seq, kind, file: file.clone() };
        check_batch(dir, &record, values, |op| {
            match op {
                BatchOp::Good(op, seq, hash) if needed(hash) => {
                    operations.push((hash, (op.key.to_vec(), seq, op.kind, op.value.to_vec())));
                }
                BatchOp::Good(..) => {}
                BatchOp::NoValue(op, seq, hash, _) => dropped.push((hash, lost(op.key, seq, op.kind))),
                BatchOp::Surplus(op) => {
                    // A loss is reported under some stripe, even if its key is invalid.
                    let hash = encoded_partition_hash(op.key).unwrap_or_default();
                    dropped.push((hash, lost(op.key, last, op.kind)));
                }
                // Its checksum matches, so it was written like that, and cannot be decoded.
                BatchOp::Unreadable(first, last, why) => unreadable.push(LogGap {
                    file: file.clone(),
                    offset: record.lsn.offset().into(),
                    len: record.payload.len() as u64,
                    after: first.saturating_sub(1),
                    before: Some(last.saturating_add(1)),
                    why,
                }),
            }
            Ok(())
        })
    })?;
    if limit.is_some() {
        // Anything behind an intact end was never acknowledged as durable: none of it is missing.
        log.gaps.clear();
    }
    log.gaps.extend(unreadable);
    Ok(ReadLog { log, operations, dropped })
}

impl Examiner<'_> {
    fn proceed(&mut self, file: &Path, len: u64) -> Result<()> {
        self.done = self.done.saturating_add(len);
        let progress = Progress { done: self.done.min(self.total), total: self.total, file };
        if self.options.progress.as_ref().is_some_and(|tell| tell(&progress).is_break()) {
            let stopped = std::io::Error::new(std::io::ErrorKind::Interrupted, "it was cancelled");
            return Err(Error::io("repair", &self.directory.dir)(stopped));
        }
        Ok(())
    }

    /// Finds the end of the log, and whether opening the database would accept it. A manifest that lacks an edit which
    /// the log refers to, or whose numbers are impossible, is not trusted.
    fn log_end(&self, ids: &Ids, state: &ManifestState, trusted: &mut bool) -> Result<LogEnd> {
        let (vfs, dir, rules) = (&*self.options.vfs, &self.directory.dir, log_rules(state));
        let chain = wal::discover(vfs, dir, log_owner(ids))
            .and_then(|segments| wal::validate(vfs, dir, &segments, &rules))
            .and_then(|chain| {
                check_numbers(dir, state, chain.last_seq, chain.max_generation).map(|()| chain)
            });
        match chain {
            Ok(chain) => Ok(LogEnd { at: Some(chain.end), is_good: self.is_readable(&chain)? }),
            Err(error @ (Error::UnsupportedFormat { .. } | Error::Io { .. })) => Err(error),
            Err(Error::Corruption { file, .. }) if file == dir.join(paths::MANIFEST) => {
                *trusted = false;
                Ok(LogEnd::default())
            }
            Err(_damaged) => Ok(LogEnd::default()),
        }
    }

    /// Whether all operations in the log can be replayed, and their values read.
    fn is_readable(&self, chain: &Chain) -> Result<bool> {
        let (dir, mut all) = (&self.directory.dir, true);
        wal::replay(&*self.options.vfs, chain, |record| {
            check_batch(dir, &record, self.options.values.as_ref(), |op| {
                all &= matches!(op, BatchOp::Good(..));
                Ok(())
            })
        })?;
        Ok(all)
    }

    /// Whether the parts of an intact file are consistent with each other.
    fn is_right(&self, meta: &Arc<SstMeta>, stripes: usize) -> bool {
        usize::from(meta.stripe) < stripes
            && Table::new(&self.tables, Arc::clone(meta)).verify_in(Some(stripes)).is_ok()
    }

    fn has_values(&self, salvaged: &SalvagedTable) -> bool {
        let Some(values) = &self.options.values else { return true };
        (0..salvaged.blocks.len())
            .flat_map(|n| salvaged.entries(n))
            .all(|entry| check::refused(Some(values), entry.kind, &entry.value).is_none())
    }

    /// The SSTs that the manifest lists.
    fn listed(&mut self, state: &ManifestState) -> Result<Vec<Candidate>> {
        let stripes = state.facts.stripes();
        let mut candidates = Vec::new();
        for meta in state.ssts.values() {
            let path = paths::sst(&self.directory.dir, meta.stripe.into(), meta.id);
            self.proceed(&path, meta.len)?;
            let found = self.directory.entry(&path).is_some_and(|entry| entry.is_file);
            let salvaged = found.then(|| SalvagedTable::read(&*self.options.vfs, &path, meta)).transpose()?;
            let mut candidate = Candidate { meta: Arc::clone(meta), path: None, clean: false };
            let foreign = |salvaged: &SalvagedTable| {
                salvaged.identity.is_some_and(|(database, _)| database != meta.origin)
            };
            match salvaged {
                // A file of another database: its entries do not belong here, whatever their sequences.
                Some(salvaged) if foreign(&salvaged) => candidate.path = self.elsewhere(meta)?,
                Some(salvaged) if salvaged.is_clean() => {
                    candidate.clean = self.has_values(&salvaged) && self.is_right(meta, stripes);
                    candidate.path = Some(path);
                }
                Some(salvaged) if salvaged.has_entries() => candidate.path = Some(path),
                // Something else has its name, or nothing: it may be under another name.
                _ => candidate.path = self.elsewhere(meta)?.or(found.then_some(path)),
            }
            if let Some(path) = candidate.path.as_ref().filter(|_| self.would_be_named(meta, &candidate)) {
                candidate.clean = SalvagedTable::read(&*self.options.vfs, path, meta)?.is_clean();
            }
            candidates.push(candidate);
        }
        Ok(candidates)
    }

    /// Whether the file is one that a repair in place would rename first, which this repair leaves alone.
    fn would_be_named(&self, meta: &SstMeta, candidate: &Candidate) -> bool {
        let repaired = paths::repaired(&paths::sst(&self.directory.dir, meta.stripe.into(), meta.id));
        !self.options.is_in_place() && candidate.path.as_ref() == Some(&repaired)
    }

    /// The file that identifies itself as this SST, under any name.
    fn elsewhere(&self, meta: &SstMeta) -> Result<Option<PathBuf>> {
        let named = paths::sst(&self.directory.dir, meta.stripe.into(), meta.id);
        // An interrupted repair in place would continue by renaming this file.
        let repaired = paths::repaired(&named);
        if self.directory.entry(&repaired).is_some_and(|entry| entry.is_file && entry.len == meta.len) {
            return Ok(Some(repaired));
        }
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

    /// All SSTs in the directory that belong to this database, each once; and the files that do not.
    fn all_there_are(
        &mut self,
        ids: &Ids,
        state: Option<&ManifestState>,
    ) -> Result<(Vec<Candidate>, Vec<PathBuf>, Vec<PathBuf>)> {
        let (mut foreign_files, mut unknown) = (Vec::new(), Vec::new());
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
            // A file records less about its run than about itself.
            meta.run_seq = (meta.run_seq.0.min(meta.seq.0), meta.run_seq.1.max(meta.seq.1));
            if meta.keyspace != 0 || meta.run_seq.1 > MAX_NUMBER - SEQ_GAP {
                unknown.push(path);
                continue;
            }
            let named = (usize::from(meta.stripe), meta.id) == (stripe, id);
            if meta.origin != ids.database_id || found.contains_key(&meta.id) && !named {
                foreign_files.push(path);
                continue;
            }
            let salvaged = SalvagedTable::read(&*self.options.vfs, &path, &meta)?;
            let meta = Arc::new(meta);
            // Whether its parts are consistent is checked once the number of stripes is known.
            let clean = named && meta.id <= MAX_NUMBER && salvaged.is_clean() && self.has_values(&salvaged);
            let before = found.insert(meta.id, Candidate { meta, path: Some(path), clean });
            foreign_files.extend(before.and_then(|before| before.path));
        }
        Ok((found.into_values().collect(), foreign_files, unknown))
    }
}

/// The number of an SST, from the fields of its header.
fn file_id(header: &FileHeader) -> Option<FileId> {
    header.extra.first_chunk().map(|id| u64::from_le_bytes(*id))
}
