//! Writes the repaired files, and commits them as the database in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::examine::{DamagedDatabase, random_id};
use super::gather::{self, Part, RepairedRun};
use super::losses;
use super::plan::Plan;
use super::salvage::most_entries;
use super::{Action, Loss, RepairOptions, RepairReport, Versions};
use crate::config::DatabaseConfig;
use crate::error::{Error, Result};
use crate::lsm::{Destination, check_outside};
use crate::manifest::{Change, CleanEnd, Ids, Manifest, ManifestState, load_what_passes};
use crate::paths::{self, FileName};
use crate::sst::{SstParams, SstWriter};
use crate::types::{EntryRef, FileId, Lsn, SeqNo, SstMeta};
use crate::verify::Affected;
use crate::vfs::{OpenMode, READ_UNIT, RETRY_UNIT, Vfs, read_full_at, write_all_at};

/// File numbers reserved beyond those in use.
const RESERVE: u64 = 1024;

/// The destination of the new files.
struct Target<'a> {
    vfs: &'a Arc<dyn Vfs>,
    dir: &'a Path,
    /// Files get temporary names until they are listed.
    aside: bool,
    ids: Ids,
    next_file: FileId,
    config: DatabaseConfig,
    created_ms: u64,
    /// Files written under temporary names, with their final names.
    renames: Vec<(PathBuf, PathBuf)>,
    /// Dry run: nothing is written.
    dry: bool,
}

/// Carries out the plan. A copy is made in a directory that is claimed like that of a backup, and cleaned up if it
/// cannot be finished.
pub(super) fn carry_out(
    patient: &DamagedDatabase,
    plan: Plan,
    options: &RepairOptions,
    report: &mut RepairReport,
    on_loss: &mut dyn FnMut(&Loss),
) -> Result<()> {
    let Some(into) = options.into.as_ref().filter(|_| !options.dry_run) else {
        return write(patient, plan, options, report, on_loss);
    };
    let source = &patient.directory.dir;
    check_outside(&*options.vfs, source, into)?;
    let claimed = Destination::claim(Arc::clone(&options.vfs), source, into)?;
    match write(patient, plan, options, report, on_loss) {
        Ok(()) => claimed.finish(),
        Err(error) => {
            claimed.clean_up();
            return Err(error);
        }
    }
    Ok(())
}

fn write(
    patient: &DamagedDatabase,
    plan: Plan,
    options: &RepairOptions,
    report: &mut RepairReport,
    on_loss: &mut dyn FnMut(&Loss),
) -> Result<()> {
    let mut ids = patient.ids;
    let dir = match &options.into {
        Some(into) => {
            ids.incarnation = random_id(options);
            into.as_path()
        }
        None => patient.directory.dir.as_path(),
    };
    let mut target = Target {
        vfs: &options.vfs,
        dir,
        aside: options.into.is_none(),
        ids,
        next_file: plan.next_file,
        config: DatabaseConfig::stored(&plan.settings).0,
        created_ms: options.clock.unix_ms(),
        renames: Vec::new(),
        dry: options.dry_run,
    };
    tell_of_the_rest(patient, report, on_loss);
    let (mut metas, mut flushed) = (Vec::new(), BTreeMap::<u16, SeqNo>::new());
    // Files may claim stripes that do not exist.
    let stripes: BTreeSet<u16> = (0..patient.stripes as u16).chain(plan.clusters.keys().copied()).collect();
    for stripe in stripes {
        let work = gather::gather(patient, &plan, stripe)?;
        losses::tell(patient, &work, report, on_loss)?;
        for run in work.runs {
            flushed.insert(stripe, run.run_seq.1.max(flushed.get(&stripe).copied().unwrap_or(0)));
            metas.extend(target.write_run(stripe, run)?);
        }
    }
    tell_actions(patient, &plan, options, report);
    if options.dry_run {
        return Ok(());
    }
    report.unchanged = false;
    let next_file = target.next_file;
    let state = new_state(patient, &plan, metas, flushed, next_file)?;
    if options.into.is_some() {
        copy_kept(patient, &state, &target)?;
        target.vfs.sync_dir(dir).map_err(Error::io("sync", dir))?;
        return Manifest::install(Arc::clone(target.vfs), dir, ids, state);
    }
    let quarantine = dir.join(paths::QUARANTINE);
    keep_originals(patient, &plan, &quarantine, target.vfs)?;
    report.quarantine = Some(quarantine);
    target.vfs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    Manifest::install(Arc::clone(target.vfs), dir, ids, state)?;
    // The repair is committed. The rest only corrects names, and can be repeated.
    for (from, to) in &target.renames {
        target.vfs.rename(from, to).map_err(Error::io("rename", from))?;
    }
    target.vfs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    for path in &plan.replaced {
        if target.vfs.kind(path).map_err(Error::io("stat", path))?.is_some() {
            target.vfs.remove(path).map_err(Error::io("remove", path))?;
        }
    }
    target.vfs.sync_dir(dir).map_err(Error::io("sync", dir))
}

/// Reports losses that belong to no stripe.
fn tell_of_the_rest(patient: &DamagedDatabase, report: &mut RepairReport, on_loss: &mut dyn FnMut(&Loss)) {
    for gap in &patient.log.gaps {
        report.log_gaps += 1;
        // A gap of unknown length is reported as such, and adds nothing here.
        report.log_operations = report.log_operations.saturating_add(gap.operations().unwrap_or(0));
        on_loss(&Loss::Log {
            file: gap.file.clone(),
            offset: gap.offset,
            after: gap.after,
            before: gap.before,
            operations: gap.operations(),
        });
    }
    for path in &patient.unknown {
        let len = patient.directory.entry(path).map_or(0, |entry| entry.len);
        let entries = most_entries(usize::try_from(len).unwrap_or(usize::MAX));
        report.had = report.had.saturating_add(entries);
        // An empty file was still being created, and loses nothing.
        losses::tell_range(path, 0, Affected { entries, ..Affected::default() }, 0, report, on_loss);
    }
}

fn tell_actions(patient: &DamagedDatabase, plan: &Plan, options: &RepairOptions, report: &mut RepairReport) {
    let mut add =
        |file: &Path, what: &str| report.actions.push(Action { file: file.into(), what: what.into() });
    let manifest = patient.directory.dir.join(paths::MANIFEST);
    if plan.rebuilt {
        add(&manifest, "rebuilt from what the files record about themselves");
    } else if options.into.is_none() {
        add(&manifest, "rewritten with what is left");
    }
    let gone = |file: &&PathBuf| patient.directory.entry(file).is_none();
    let missing: BTreeSet<&PathBuf> = patient.log.gaps.iter().map(|gap| &gap.file).filter(gone).collect();
    missing.into_iter().for_each(|file| add(file, "missing: anything that only it contained is lost"));
    for cluster in plan.clusters.values().flatten().filter(|cluster| !cluster.is_whole()) {
        for part in cluster.runs.iter().flatten().filter(|part| !part.clean || !cluster.keeps_parts()) {
            let named = paths::sst(&patient.directory.dir, part.meta.stripe.into(), part.meta.id);
            let what = match &part.path {
                None => "missing: no longer listed",
                Some(_) if part.clean && cluster.strays.is_empty() => "merged with others that overlap it",
                Some(_) if part.clean => "rewritten with entries found in files of other stripes",
                Some(_) => "rewritten from what can be read of it",
            };
            add(&named, what);
        }
    }
    for path in &patient.foreign_files {
        add(path, "not part of this database: set aside");
    }
    for path in &patient.unknown {
        add(path, "unreadable: set aside");
    }
    for path in &patient.irregular {
        add(path, "not a regular file: set aside");
    }
    if !plan.keep_log {
        let log = patient.log.files.iter().chain(&patient.log.buffer);
        log.for_each(|path| add(path, "the readable rest of it goes into SSTs"));
    }
}

impl Target<'_> {
    /// Writes the new parts of a run; returns all its parts, numbered.
    fn write_run(&mut self, stripe: u16, run: RepairedRun) -> Result<Vec<SstMeta>> {
        let mut metas = Vec::new();
        let mut number = run.run;
        for part in run.parts {
            match part {
                Part::Kept(meta) => metas.push(SstMeta::clone(&meta)),
                Part::Made { versions, compress } if !self.dry => {
                    let frame = (stripe, run.run_seq, run.depth, compress);
                    let made = self.write_part(frame, number, &versions)?;
                    number = number.or(made.first().map(|meta| meta.id));
                    metas.extend(made);
                }
                Part::Made { .. } => {}
            }
        }
        let (parts, number) = (metas.len() as u32, number.unwrap_or_default());
        for (n, meta) in (0..).zip(&mut metas) {
            (meta.run, meta.part, meta.parts) = (number, n, parts);
            (meta.depth, meta.run_seq) = (run.depth, run.run_seq);
        }
        Ok(metas)
    }

    fn write_part(
        &mut self,
        (stripe, run_seq, depth, compress): (u16, (SeqNo, SeqNo), u32, bool),
        run: Option<u64>,
        versions: &Versions,
    ) -> Result<Vec<SstMeta>> {
        let (mut metas, mut writer) = (Vec::new(), None::<SstWriter>);
        let Some(((last, _), _)) = versions.last_key_value() else { return Ok(metas) };
        let mut before: Option<&[u8]> = None;
        for ((key, seq), (kind, value)) in versions {
            let full = writer.as_ref().is_some_and(|sst| sst.is_full(self.config.target_sst_size));
            if full && before != Some(key.as_slice()) {
                metas.extend(writer.take().map(|sst| self.finish(sst)).transpose()?);
            }
            let sst = match &mut writer {
                Some(sst) => sst,
                none => {
                    let id = self.next_file;
                    self.next_file = self.next_file.saturating_add(1);
                    let named = paths::sst(self.dir, stripe.into(), id);
                    let path = if self.aside { paths::repaired(&named) } else { named.clone() };
                    if self.aside {
                        self.renames.push((path.clone(), named));
                    }
                    let params = SstParams {
                        id,
                        stripe,
                        keyspace: 0,
                        run: run.unwrap_or(id),
                        part: metas.len() as u32,
                        depth,
                        run_seq,
                        key_bounds: (key.clone(), last.clone()),
                        block_size: self.config.block_size,
                        bits_per_key: self.config.bloom_bits_per_key as u32,
                        compress,
                        pad: self.config.max_total_disk_bytes.is_none(),
                        write_unit: self.config.write_buffer_size,
                        database_id: self.ids.database_id,
                        incarnation: self.ids.incarnation,
                        created_ms: self.created_ms,
                    };
                    none.insert(SstWriter::create_at(self.vfs, path, params)?)
                }
            };
            sst.add(EntryRef { key, seq: seq.0, kind: *kind, value }, None)?;
            before = Some(key);
        }
        metas.extend(writer.take().map(|sst| self.finish(sst)).transpose()?);
        Ok(metas)
    }

    fn finish(&self, mut writer: SstWriter) -> Result<SstMeta> {
        let (meta, unsynced) = match writer.finish() {
            Ok(finished) => finished,
            Err(error) => {
                let _ = writer.abandon(); // The next repair removes what is left.
                return Err(error);
            }
        };
        let named = paths::sst(self.dir, meta.stripe.into(), meta.id);
        let path = if self.aside { paths::repaired(&named) } else { named };
        let file = self.vfs.open(&path, OpenMode::Write).map_err(Error::io("open", &path))?;
        file.sync().map_err(Error::io("sync", &path))?;
        drop(unsynced);
        Ok(meta)
    }
}

fn new_state(
    patient: &DamagedDatabase,
    plan: &Plan,
    metas: Vec<SstMeta>,
    flushed: BTreeMap<u16, SeqNo>,
    next_file: FileId,
) -> Result<ManifestState> {
    let state = patient.state.as_ref();
    let files_below = next_file.saturating_add(RESERVE);
    let mut changes = vec![Change::Facts(plan.facts.clone())];
    changes.extend(plan.keyspaces.iter().map(|(&id, name)| Change::Keyspace { id, name: name.to_string() }));
    let stripes = 0..patient.stripes as u16;
    let known = |stripe| state.filter(|_| patient.trusted).map_or(0, |state| state.flushed_to(stripe, 0));
    let to = stripes.map(|stripe| (stripe, 0, known(stripe).max(flushed.get(&stripe).copied().unwrap_or(0))));
    changes.push(Change::FlushedTo(to.collect()));
    changes.push(Change::Reserve { files_below });
    let metas: Vec<Arc<SstMeta>> = metas.into_iter().map(Arc::new).collect();
    changes.extend(metas.iter().flat_map(Change::adding));
    let (start, clean) = match state {
        Some(state) if plan.keep_log => {
            let clean = state.clean_end.map(|clean| CleanEnd { next_file, ..clean });
            changes.push(Change::LogStart { start: state.log_start, durable: state.durable });
            changes.extend(state.cuts.iter().map(|&cut| Change::Cut(cut)));
            (state.log_start, clean)
        }
        // Nothing in the old log is needed: it ends where the next segment will start.
        _ => {
            let start = Lsn::new(plan.generation, 0);
            let next_generation = plan.generation.saturating_add(1);
            changes.push(Change::LogStart { start, durable: start });
            (start, Some(CleanEnd { end: Some(start), next_seq: plan.next_seq, next_generation, next_file }))
        }
    };
    if !plan.settings.is_empty() {
        changes.push(Change::Settings(plan.settings.clone()));
    }
    changes.extend(clean.map(Change::CleanEnd));
    let path = patient.directory.dir.join(paths::MANIFEST);
    let made = ManifestState::first(plan.edit, changes).and_then(|state| state.check().map(|()| state));
    made.map_err(|why| Error::corrupt(&path, start.0, format!("what is left is not a database: {why}")))
}

fn copy_kept(patient: &DamagedDatabase, state: &ManifestState, target: &Target<'_>) -> Result<()> {
    for candidate in &patient.candidates {
        // A missing file cannot be copied; the state does not list it.
        let (Some(from), meta) = (&candidate.path, &candidate.meta) else { continue };
        if state.lists(meta.id) {
            copy(target.vfs, from, &paths::sst(target.dir, meta.stripe.into(), meta.id))?;
        }
    }
    Ok(())
}

/// Copies everything that will be replaced or removed, each file under a unique name.
fn keep_originals(
    patient: &DamagedDatabase,
    plan: &Plan,
    quarantine: &Path,
    vfs: &Arc<dyn Vfs>,
) -> Result<()> {
    let dir = &patient.directory.dir;
    make_quarantine(vfs, dir, quarantine)?;
    for path in &patient.irregular {
        // It cannot be copied, and occupies the name that a file needs.
        let to = vacant(vfs, quarantine, path)?;
        vfs.rename(path, &to).map_err(Error::io("rename", path))?;
    }
    let manifest = dir.join(paths::MANIFEST);
    let manifest = patient.directory.entry(&manifest).filter(|entry| entry.is_file).map(|_| manifest);
    for path in plan.replaced.iter().chain(&manifest) {
        let to = vacant(vfs, quarantine, path)?;
        copy(vfs, path, &to)?;
    }
    vfs.sync_dir(quarantine).map_err(Error::io("sync", quarantine))
}

fn make_quarantine(vfs: &Arc<dyn Vfs>, dir: &Path, quarantine: &Path) -> Result<()> {
    if !has_quarantine(&**vfs, dir)? {
        vfs.create_dir(quarantine).map_err(Error::io("create", quarantine))?;
        vfs.sync_dir(dir).map_err(Error::io("sync", dir))?;
    }
    Ok(())
}

/// Whether there is a quarantine directory. Anything else with that name, such as a link that leads elsewhere, is an
/// error: files would be moved out of the database.
pub(super) fn has_quarantine(vfs: &dyn Vfs, dir: &Path) -> Result<bool> {
    let listing = vfs.list(dir).map_err(Error::io("list", dir))?;
    match listing.iter().find(|entry| entry.name == paths::QUARANTINE) {
        None => Ok(false),
        Some(entry) if entry.is_dir => Ok(true),
        Some(_) => {
            let why = "originals are kept in a directory with this name, and it is a file or a link";
            let error = std::io::Error::new(std::io::ErrorKind::NotADirectory, why);
            Err(Error::io("use", &dir.join(paths::QUARANTINE))(error))
        }
    }
}

/// Moves something that has the name of a file, but is not one, into the quarantine.
pub(super) fn set_aside(vfs: &Arc<dyn Vfs>, dir: &Path, path: &Path) -> Result<()> {
    let quarantine = dir.join(paths::QUARANTINE);
    make_quarantine(vfs, dir, &quarantine)?;
    let to = vacant(vfs, &quarantine, path)?;
    vfs.rename(path, &to).map_err(Error::io("rename", path))?;
    vfs.sync_dir(&quarantine).map_err(Error::io("sync", &quarantine))?;
    vfs.sync_dir(dir).map_err(Error::io("sync", dir))
}

/// An unused name in the quarantine.
fn vacant(vfs: &Arc<dyn Vfs>, quarantine: &Path, path: &Path) -> Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut n = 0u64;
    loop {
        let to = quarantine.join(if n == 0 { format!("{name}.bad") } else { format!("{name}.bad.{n}") });
        if vfs.kind(&to).map_err(Error::io("stat", &to))?.is_none() {
            return Ok(to);
        }
        n += 1;
    }
}

/// Copies the readable part of a file, durably.
fn copy(vfs: &Arc<dyn Vfs>, from: &Path, to: &Path) -> Result<()> {
    let source = vfs.open(from, OpenMode::Read).map_err(Error::io("open", from))?;
    let len = source.len().map_err(Error::io("read the length of", from))?;
    let file = vfs.open(to, OpenMode::Create).map_err(Error::io("create", to))?;
    let (mut at, mut buffer) = (0, Vec::new());
    while at < len {
        buffer.clear();
        buffer.resize((len - at).min(READ_UNIT as u64) as usize, 0);
        if read_full_at(&*source, &mut buffer, at).is_err() {
            buffer.fill(0);
            for (n, sector) in (0..).zip(buffer.chunks_mut(RETRY_UNIT)) {
                if read_full_at(&*source, sector, at + n * RETRY_UNIT as u64).is_err() {
                    sector.fill(0);
                }
            }
        }
        write_all_at(&*file, &buffer, at).map_err(Error::io("write", to))?;
        at += buffer.len() as u64;
    }
    file.sync().map_err(Error::io("sync", to))
}

/// Files left by an interrupted repair in place, each with what must be done with it: before the manifest was installed
/// they are meaningless; after it they are part of the database.
pub(super) fn interrupted(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<Vec<Leftover>> {
    let listing = vfs.list(dir).map_err(Error::io("list", dir))?;
    let mut leftovers = Vec::new();
    let mut known = None;
    for entry in listing.iter().filter(|entry| entry.is_file) {
        let FileName::Repairing { stripe, id } = paths::parse(&entry.name) else { continue };
        let (from, to) = (dir.join(&entry.name), paths::sst(dir, stripe, id));
        let (state, damaged) = match &known {
            Some(known) => known,
            None => known.insert(last_known(&**vfs, dir)?),
        };
        let meta = state.as_ref().and_then(|state| state.ssts.get(&id));
        let listed = meta.is_some_and(|meta| usize::from(meta.stripe) == stripe && meta.len == entry.len);
        let is_free = vfs.kind(&to).map_err(Error::io("stat", &to))?.is_none();
        let fate = match (listed && is_free, damaged) {
            (true, _) => Fate::Named(to),
            // It may be all that is left.
            (false, true) => Fate::SetAside,
            (false, false) => Fate::Removed,
        };
        leftovers.push(Leftover { from, fate });
    }
    leftovers.sort_by(|a, b| a.from.cmp(&b.from));
    Ok(leftovers)
}

/// The state in the manifest, and whether the manifest is damaged and may have listed more. A manifest that cannot be
/// read at the moment is an error: that is no reason to remove anything.
fn last_known(vfs: &dyn Vfs, dir: &Path) -> Result<(Option<ManifestState>, bool)> {
    match Manifest::load(vfs, dir) {
        Ok(loaded) => Ok((Some(loaded.state), false)),
        Err(Error::Corruption { .. }) => Ok((load_what_passes(vfs, dir)?.1, true)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok((None, false)),
        Err(error) => Err(error),
    }
}

/// A file left by an earlier repair.
pub(super) struct Leftover {
    from: PathBuf,
    fate: Fate,
}

/// What to do with such a file.
enum Fate {
    Named(PathBuf),
    SetAside,
    Removed,
}

impl Leftover {
    pub(super) fn action(&self) -> Action {
        let what = match &self.fate {
            Fate::Named(_) => "left by an interrupted repair: renamed to its final name",
            Fate::SetAside => "left by an interrupted repair, beside a damaged manifest: set aside",
            Fate::Removed => "left by an interrupted repair, and not needed: removed",
        };
        Action { file: self.from.clone(), what: what.into() }
    }
}

/// Finishes an earlier repair.
pub(super) fn finish(vfs: &Arc<dyn Vfs>, dir: &Path, leftovers: &[Leftover]) -> Result<()> {
    for Leftover { from, fate } in leftovers {
        match fate {
            Fate::Named(to) => vfs.rename(from, to).map_err(Error::io("rename", from))?,
            Fate::SetAside => set_aside(vfs, dir, from)?,
            Fate::Removed => vfs.remove(from).map_err(Error::io("remove", from))?,
        }
    }
    vfs.sync_dir(dir).map_err(Error::io("sync", dir))
}
