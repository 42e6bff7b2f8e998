//! OPEN READ-ONLY: a database as it is at one moment, also while somebody else writes to it.
//!
//! Nothing is locked and nothing is changed. The order is the argument:
//! 1. Read the manifest. 2. Hold every SST that it lists: mapped, a file stays readable when its name goes. 3. Copy the
//!    log. 4. Read the manifest again. The writer removes SSTs and segments only after an edit that says so, so while
//!    the manifest is the same, everything that it needs was there. When it has changed, all of it starts again.
//! 5. Validate and replay the copy.
//!
//! What the log says is a prefix of the commits, and at least all that was in it when it was copied. What is found wrong
//! may come from reading in the middle of a write: it is damage only when the manifest has not changed and a second
//! reading finds the same.
//!
//! SSTs that are missing or have another length are told ([`LsmEngine::damage`]), and fail the reads that need them, no
//! others: a look at what is left must be possible. A backup wants all of them.
//!
//! With [`ReadMode::Pread`] nothing is held, for there may be more SSTs than files that a process may open: a read that
//! needs a file which the writer has removed meanwhile gets [`Error::Busy`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::recover::{Start, check_present, check_stripes, settings, validate};
use super::survey::{Survey, damaged_files};
use super::{EngineOptions, FileIds, LsmEngine, trace};
use crate::clock::Clock;
use crate::config::{DatabaseConfig, ReadMode};
use crate::error::{Error, Result};
use crate::manifest::{Manifest, ManifestState};
use crate::paths;
use crate::types::FileId;
use crate::vfs::{Mapping, OpenMode, Vfs};
use crate::wal::LogCopy;

/// How often the database may change under a reader before he is told that it is busy.
const ATTEMPTS: usize = 16;

/// A database at one moment, with all that it takes to read it.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) survey: Survey,
    pub(crate) log: Arc<LogCopy>,
    /// The listed SSTs; empty when they are not held.
    pub(crate) held: BTreeMap<FileId, Arc<Mapping>>,
    /// Listed SSTs that cannot be read.
    pub(crate) damage: Vec<Error>,
}

/// What a reading came to.
enum Reading {
    Whole(Box<Capture>),
    /// The manifest is another one by now.
    Changed,
    /// Something is wrong, and the manifest is the same.
    Wrong(Error),
}

impl Capture {
    /// Reads until a reading is whole. `holds` says of a manifest whether its SSTs are to be held; `all`, that it is not
    /// whole without every SST.
    ///
    /// # Errors
    /// `Busy` when the database changed each time; what two readings in a row have found wrong.
    pub(crate) fn take(
        vfs: &dyn Vfs,
        clock: &dyn Clock,
        path: &Path,
        all: bool,
        holds: impl Fn(&ManifestState) -> bool,
    ) -> Result<Self> {
        let mut before: Option<String> = None;
        for _ in 0..ATTEMPTS {
            match Self::read(vfs, clock, path, all, &holds) {
                Reading::Whole(capture) => {
                    let found = capture.damage.iter().map(|error| format!("{error}\n")).collect();
                    if capture.damage.is_empty() || before.as_ref() == Some(&found) {
                        return Ok(*capture);
                    }
                    before = Some(found);
                }
                Reading::Changed => before = None,
                // Under right checksums: no half-written bytes look like that.
                Reading::Wrong(error @ Error::UnsupportedFormat { .. }) => return Err(error),
                Reading::Wrong(error) => {
                    let found = error.to_string();
                    if before.as_ref() == Some(&found) {
                        return Err(error);
                    }
                    before = Some(found);
                }
            }
        }
        Err(Error::Busy)
    }

    fn read(
        vfs: &dyn Vfs,
        clock: &dyn Clock,
        path: &Path,
        all: bool,
        holds: impl Fn(&ManifestState) -> bool,
    ) -> Reading {
        let manifest = match Manifest::read(vfs, path) {
            Ok(bytes) => bytes,
            Err(error) => return Reading::Wrong(error),
        };
        let result = Self::of(vfs, clock, path, &manifest, all, holds);
        match (Manifest::read(vfs, path), result) {
            (Err(error), _) => Reading::Wrong(error),
            (Ok(again), _) if again != manifest => Reading::Changed,
            (Ok(_), Ok(capture)) => Reading::Whole(Box::new(capture)),
            (Ok(_), Err(error)) => Reading::Wrong(error),
        }
    }

    fn of(
        vfs: &dyn Vfs,
        clock: &dyn Clock,
        path: &Path,
        manifest: &[u8],
        all: bool,
        holds: impl Fn(&ManifestState) -> bool,
    ) -> Result<Self> {
        let loaded = Manifest::decode(manifest, path)?;
        let listing = vfs.list(path).map_err(Error::io("list", path))?;
        let hold = holds(&loaded.state);
        let mut damage = damaged_files(path, &loaded.state, &listing);
        let mut held = BTreeMap::new();
        for meta in loaded.state.ssts.values().filter(|_| hold) {
            if damage.contains_key(&meta.id) {
                continue;
            }
            let file = paths::sst(path, meta.stripe.into(), meta.id);
            let open = || vfs.open(&file, OpenMode::Read)?.map(meta.len);
            match open().map_err(|e| lost(&file, e)) {
                Ok(map) => _ = held.insert(meta.id, Arc::new(map)),
                Err(error @ Error::Corruption { .. }) => _ = damage.insert(meta.id, error),
                Err(error) => return Err(error),
            }
        }
        if all && let Some((_, error)) = damage.pop_first() {
            return Err(error);
        }
        let log = Arc::new(LogCopy::of(vfs, path)?);
        let survey = Survey::of_log(path, loaded, listing, &*log, clock)?;
        Ok(Self { survey, log, held, damage: damage.into_values().collect() })
    }
}

fn lost(file: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::corrupt(file, 0, "the manifest lists it, but it is missing"),
        std::io::ErrorKind::UnexpectedEof => Error::corrupt(file, 0, "it is shorter than the manifest says"),
        _ => Error::io("map", file)(error),
    }
}

/// Whether the SSTs of a database with these settings are held.
pub(crate) fn holds(config: &DatabaseConfig) -> bool {
    config.read_mode == ReadMode::Mmap
}

impl LsmEngine {
    /// Opens a database as it is now, for reading, and changes nothing in it: its log, as far as it is not in SSTs
    /// yet, is replayed in memory only. No lock is taken: any number of handles may read, also while another one
    /// writes, and later writes do not show in them. The directory may be a copy, or on a read-only file system.
    /// Settings given in the options are used for reading and not stored.
    ///
    /// With [`ReadMode::Mmap`] the handle keeps all SSTs that it needs, also those that the writer removes.
    /// With [`ReadMode::Pread`] it does not, and a read may fail with `Busy`: open the database again.
    ///
    /// An SST that is missing, or has another length than it should, fails the reads that need it and no others:
    /// [`LsmEngine::damage`] tells which.
    ///
    /// # Errors
    /// `NotFound`, `NotADatabase`, `UnsupportedFormat`, `Corruption` of manifest or log, `InvalidConfig`; `Busy` when a
    /// writer changed the database each time that it was read: try again.
    pub fn open_read_only(path: &Path, options: EngineOptions) -> Result<Self> {
        validate(&options)?;
        check_present(&*options.vfs, path)?;
        let since = options.clock.monotonic();
        let _span = trace::open(path, true);
        let mode = options.config.as_ref().map(holds);
        let stored = |state: &ManifestState| holds(&DatabaseConfig::from_settings(&state.settings));
        let capture = Capture::take(&*options.vfs, &*options.clock, path, false, |state| {
            mode.unwrap_or_else(|| stored(state))
        })?;
        let Capture { survey: Survey { loaded, chain, began, .. }, log, held, damage } = capture;
        let state = &loaded.state;
        check_stripes(&options, state)?;
        let settings = settings(path, &options, state)?;
        let next_file = state.files_below;
        let clean = state.clean_end.is_some();
        let start = Start {
            next_seq: 1 + chain.last_seq.max(state.base_seq()),
            chain: Some(chain),
            file_ids: FileIds::new(next_file, next_file),
            settings,
            read_only: true,
            lock: None,
            since,
            meter: Arc::default(),
            place: Arc::default(),
            log,
            held,
            damage,
            unfinished: None,
        };
        let manifest = Manifest::resume(Arc::clone(&options.vfs), path, loaded);
        let engine = Self::assemble(path, options, manifest, start)?;
        engine.shared.measure_replay(began);
        engine.shared.opened(false, clean);
        Ok(engine)
    }

    /// Of a handle that only reads: SSTs that were found missing, or with another length, when it was opened. It is not
    /// all that may be wrong: no SST is read. Always empty for a handle that writes, which does not open then.
    pub fn damage(&self) -> &[Error] {
        &self.shared.damage
    }
}
