//! OPEN READ-ONLY: a database as of one moment, even while another handle writes to it.
//!
//! Nothing is locked and nothing is changed. Correctness follows from the order of the steps:
//! 1. Read the manifest.
//! 2. Hold every SST that it lists: a mapped file stays readable after it is unlinked.
//! 3. Copy the log.
//! 4. Read the manifest again.
//! 5. Validate and replay the copy.
//!
//! The writer removes SSTs and segments only after an edit that no longer needs them. So as long as the manifest has
//! not changed, everything it needs was there. If it has changed, the reading is still good if it is complete
//! ([`continues`]): the SSTs are held, and every segment removed by then is in the copy. Otherwise the reading starts
//! over but keeps the SSTs it holds: the next attempt only looks for new ones, so a reader catches up even with a
//! writer that makes edits faster than the files of a large database can be mapped. After [`PATIENCE`] it gives up with
//! [`Error::Busy`].
//!
//! The copied log is a prefix of the commits and contains at least everything that was in the log when the copy was
//! made. Anything that looks wrong may come from reading in the middle of a write. It is reported as damage only if the
//! manifest has not changed and a second reading finds the same.
//!
//! SSTs that are missing or have the wrong length are reported ([`LsmEngine::damage`]) and fail only the reads that
//! need them, so that the rest of a damaged database can be read. A backup needs all of them.
//!
//! With [`ReadMode::Pread`] nothing is held, because there may be more SSTs than files a process may open; nor without
//! [`EngineOptions::hold_ssts`]. A read that needs a file that the writer has removed meanwhile then gets
//! [`Error::Busy`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::assemble::Start;
use super::claim::{absolute, check_present};
use super::io::FileIds;
use super::lifecycle::Access;
use super::open::{check_stripes, settings, validate};
use super::options::EngineOptions;
use super::validate::{Validated, check_newest, damaged_files, log_owner};
use super::{LsmEngine, trace};
use crate::clock::Clock;
use crate::config::{DatabaseConfig, ReadMode};
use crate::error::{Error, Result};
use crate::manifest::{Ids, Loaded, Manifest, ManifestState};
use crate::parallel::Threads;
use crate::paths;
use crate::types::FileId;
use crate::vfs::{DirEntry, Mapping, OpenMode, Usage, Vfs};
use crate::wal::{self, LogCopy};

/// How long a database may change under a reader before the open fails with `Busy`. A reading takes milliseconds, and
/// after a changed manifest the next one has little left to do: this is far beyond bad luck.
const PATIENCE: Duration = Duration::from_secs(10);
/// Limit on the number of attempts, in case the clock stands still.
const ATTEMPTS: usize = 1 << 16;

/// A database as of one moment, with everything needed to read it.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) validated: Validated,
    pub(crate) log: Arc<LogCopy>,
    /// The listed SSTs; empty when they are not held.
    pub(crate) held: BTreeMap<FileId, Arc<Mapping>>,
    /// Listed SSTs that cannot be read.
    pub(crate) damage: Vec<Error>,
}

/// The outcome of a reading.
enum Reading {
    Whole(Box<Capture>),
    /// The manifest has changed, and the reading is not complete.
    Changed,
    /// Something is wrong, and the manifest has not changed.
    Wrong(Error),
}

impl Capture {
    /// Repeats the reading until it is complete. `holds` decides from the manifest whether its SSTs are held; with
    /// `all`, a reading is complete only with every SST.
    ///
    /// # Errors
    /// `Busy` when the database changed each time; any other error when two readings in a row found the same.
    pub(crate) fn take(
        vfs: &dyn Vfs,
        clock: &dyn Clock,
        path: &Path,
        all: bool,
        holds: impl Fn(&ManifestState) -> bool,
    ) -> Result<Self> {
        let until = clock.monotonic().saturating_add(PATIENCE);
        let mut before: Option<String> = None;
        let mut reader = DirectoryReader { vfs, clock, path, all, ids: None, held: BTreeMap::new() };
        for _ in 0..ATTEMPTS {
            match reader.read(&holds) {
                Reading::Whole(capture) => {
                    let found = capture.damage.iter().map(|error| format!("{error}\n")).collect();
                    if capture.damage.is_empty() || before.as_ref() == Some(&found) {
                        return Ok(*capture);
                    }
                    before = Some(found);
                }
                Reading::Changed => before = None,
                // Its checksums are right: a half-written file does not look like this.
                Reading::Wrong(error @ Error::UnsupportedFormat { .. }) => return Err(error),
                Reading::Wrong(error) => {
                    let found = error.to_string();
                    if before.as_ref() == Some(&found) {
                        return Err(error);
                    }
                    before = Some(found);
                }
            }
            if clock.monotonic() >= until {
                break;
            }
        }
        Err(Error::Busy)
    }
}

/// Reads a directory, possibly more than once.
struct DirectoryReader<'a> {
    vfs: &'a dyn Vfs,
    clock: &'a dyn Clock,
    path: &'a Path,
    /// Whether a reading is complete only with every SST.
    all: bool,
    /// The database that was read last.
    ids: Option<Ids>,
    /// SSTs that the readings so far have mapped. The number of an SST is never reused.
    held: BTreeMap<FileId, Arc<Mapping>>,
}

impl DirectoryReader<'_> {
    fn read(&mut self, holds: impl Fn(&ManifestState) -> bool) -> Reading {
        let (before, loaded) = match Manifest::load_marked(self.vfs, self.path) {
            Ok(found) => found,
            Err(error) => return Reading::Wrong(error),
        };
        let files = loaded.and_then(|loaded| self.files(loaded, holds));
        match Manifest::fingerprint(self.vfs, self.path) {
            Ok(now) if now == before => {
                let whole = files.and_then(|files| files.capture(self, None));
                return whole.map_or_else(Reading::Wrong, |whole| Reading::Whole(Box::new(whole)));
            }
            Ok(_) => {}
            Err(error) => return Reading::Wrong(error),
        }
        let whole = match (files, Manifest::load(self.vfs, self.path)) {
            (Ok(files), Ok(later)) if continues(&files, &later) => {
                // A file that is gone by now is no damage: the caller reads everything again.
                files.capture(self, Some(later.state.edit)).ok()
            }
            _ => None,
        };
        whole.map_or(Reading::Changed, |whole| Reading::Whole(Box::new(whole)))
    }

    /// Collects everything that a manifest needs, as found in the directory.
    fn files(&mut self, loaded: Loaded, holds: impl Fn(&ManifestState) -> bool) -> Result<Files> {
        let listing = self.vfs.list(self.path).map_err(Error::io("list", self.path))?;
        let ssts = &loaded.state.ssts;
        let holds = holds(&loaded.state);
        let is_same = self.ids.replace(loaded.ids) == Some(loaded.ids);
        self.held.retain(|id, _| holds && is_same && ssts.contains_key(id));
        let mut damage = damaged_files(self.path, &loaded.state, &listing, &self.held);
        for meta in ssts.values().filter(|_| holds) {
            if self.held.contains_key(&meta.id) || damage.contains_key(&meta.id) {
                continue;
            }
            let file = paths::sst(self.path, meta.stripe.into(), meta.id);
            let open = || self.vfs.open(&file, OpenMode::Read)?.map(meta.len);
            match open().map_err(|e| lost(&file, e)) {
                Ok(map) => _ = self.held.insert(meta.id, Arc::new(map)),
                Err(error @ Error::Corruption { .. }) => _ = damage.insert(meta.id, error),
                Err(error) => return Err(error),
            }
        }
        if self.all
            && let Some((_, error)) = damage.pop_first()
        {
            return Err(error);
        }
        check_newest(self.vfs, self.path, &loaded.state)?;
        let log = Arc::new(LogCopy::of(self.vfs, self.path)?);
        Ok(Files { loaded, listing, log, holds, damage: damage.into_values().collect() })
    }
}

/// The files that a manifest needs, as found; SSTs that are held are in the reader.
struct Files {
    loaded: Loaded,
    listing: Vec<DirEntry>,
    log: Arc<LogCopy>,
    holds: bool,
    /// Listed SSTs that cannot be read.
    damage: Vec<Error>,
}

impl Files {
    /// `edit` is the newest edit made by the time the log was copied, if later than the manifest's.
    fn capture(self, reader: &DirectoryReader<'_>, edit: Option<u64>) -> Result<Capture> {
        let Self { loaded, listing, log, damage, .. } = self;
        let segments = wal::discover(&*log, reader.path, log_owner(&loaded.ids))?;
        let log_files: (&dyn Vfs, _) = (&*log, segments);
        let validated =
            Validated::of_log(reader.path, loaded, listing, log_files, reader.clock, Threads::One, edit)?;
        Ok(Capture { validated, log, held: reader.held.clone(), damage })
    }
}

/// Whether files collected by one manifest form a consistent state of the database although the manifest has changed.
///
/// 1. It is the same copy of the same database, and no recovery has run since: the log continued where it was.
/// 2. Of the segments that the first manifest needs, those that the later one no longer needs are all in the copy. The
///    others were there all the time.
/// 3. Its SSTs were all there, and they are either held or none has been removed.
fn continues(files: &Files, later: &Loaded) -> bool {
    let (first, next) = (&files.loaded.state, &later.state);
    let is_same = files.loaded.ids == later.ids
        && first.cuts == next.cuts
        && first.clean_end.is_none()
        && next.clean_end.is_none();
    let is_dead = |generation: u32| {
        first.cuts.iter().any(|cut| cut.generation < generation && generation < cut.next_generation)
    };
    let mut retired = first.log_start.generation()..next.log_start.generation();
    is_same
        && retired.all(|generation| is_dead(generation) || files.log.has(generation))
        && files.damage.is_empty()
        && (files.holds || first.ssts.keys().all(|id| next.lists(*id)))
}

fn lost(file: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::corrupt(file, 0, "the manifest lists it, but it is missing"),
        std::io::ErrorKind::UnexpectedEof => Error::corrupt(file, 0, "it is shorter than the manifest says"),
        _ => Error::io("map", file)(error),
    }
}

/// Whether a database with these settings holds its SSTs.
pub(crate) fn holds(config: &DatabaseConfig) -> bool {
    config.read_mode == ReadMode::Mmap
}

impl LsmEngine {
    /// Opens a database as it is now, for reading, and changes nothing in it: the part of its log that is not in SSTs
    /// yet is replayed in memory only. No lock is taken: any number of handles may read, even while another one writes,
    /// and they do not see later writes. The directory may be a copy, or on a read-only file system. Settings given in
    /// the options are used for reading and not stored.
    ///
    /// With [`ReadMode::Mmap`] the handle keeps all SSTs that it needs, even those that the writer removes. With
    /// [`ReadMode::Pread`], or without [`EngineOptions::hold_ssts`], it does not, and a read may fail with `Busy`: open
    /// the database again.
    ///
    /// An SST that is missing or has the wrong length fails only the reads that need it; [`LsmEngine::damage`] lists
    /// these SSTs.
    ///
    /// # Errors
    /// `NotFound`, `NotADatabase`, `UnsupportedFormat`, `Corruption` of manifest or log, `InvalidConfig`; `Busy` when a
    /// writer kept changing the database for ten seconds.
    pub fn open_read_only(path: &Path, options: EngineOptions) -> Result<Self> {
        validate(&options)?;
        let path = &absolute(&*options.vfs, path)?;
        check_present(&*options.vfs, path)?;
        let since = options.clock.monotonic();
        let _span = trace::open(path, true);
        let mode = if options.hold_ssts { options.config.as_ref().map(holds) } else { Some(false) };
        let stored = |state: &ManifestState| holds(&DatabaseConfig::stored(&state.settings).0);
        let capture = Capture::take(&*options.vfs, &*options.clock, path, false, |state| {
            mode.unwrap_or_else(|| stored(state))
        })?;
        let Capture { validated: Validated { loaded, listing, chain, began }, log, held, damage } = capture;
        let mut usage = Usage::default();
        listing.iter().for_each(|entry| usage.add(&entry.name, entry.len));
        let state = &loaded.state;
        check_stripes(&options, state)?;
        let settings = settings(&options, state);
        let next_file = state.files_below;
        let clean = state.clean_end.is_some();
        let start = Start {
            next_seq: 1 + chain.last_seq.max(state.base_seq()),
            chain: Some(chain),
            file_ids: FileIds::new(next_file, next_file),
            settings,
            access: Access::Read { damage, usage },
            since,
            meter: Arc::default(),
            log,
            held,
        };
        let manifest = Manifest::resume(Arc::clone(&options.vfs), path, loaded);
        let engine = Self::assemble(path, options, manifest, start)?;
        engine.shared.measure_replay(began);
        engine.shared.observed.opened(false, clean, true);
        Ok(engine)
    }

    /// On a read-only handle: SSTs that were missing, or had the wrong length, when it was opened. There may be other
    /// damage, since no SST is read. Always empty on a handle for writing, which does not open in that case.
    pub fn damage(&self) -> &[Error] {
        self.shared.life.damage()
    }
}
