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
//! With [`ReadMode::Pread`] nothing is held, for there may be more SSTs than files that a process may open: a read that
//! needs a file which the writer has removed meanwhile gets [`Error::Busy`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::recover::{Start, check_present, check_stripes, settings, validate};
use super::survey::Survey;
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
    /// Reads until a reading is whole. `holds` says of a manifest whether its SSTs are to be held.
    ///
    /// # Errors
    /// `Busy` when the database changed each time; what two readings in a row have found wrong.
    pub(crate) fn take(
        vfs: &dyn Vfs,
        clock: &dyn Clock,
        path: &Path,
        holds: impl Fn(&ManifestState) -> bool,
    ) -> Result<Self> {
        let mut before: Option<String> = None;
        for _ in 0..ATTEMPTS {
            match Self::read(vfs, clock, path, &holds) {
                Reading::Whole(capture) => return Ok(*capture),
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
        holds: impl Fn(&ManifestState) -> bool,
    ) -> Reading {
        let manifest = match Manifest::read(vfs, path) {
            Ok(bytes) => bytes,
            Err(error) => return Reading::Wrong(error),
        };
        let result = Self::of(vfs, clock, path, &manifest, holds);
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
        holds: impl Fn(&ManifestState) -> bool,
    ) -> Result<Self> {
        let loaded = Manifest::decode(manifest, path)?;
        let listing = vfs.list(path).map_err(Error::io("list", path))?;
        let hold = holds(&loaded.state);
        let mut held = BTreeMap::new();
        for meta in loaded.state.ssts.values().filter(|_| hold) {
            let file = paths::sst(path, meta.stripe.into(), meta.id);
            let open = || vfs.open(&file, OpenMode::Read)?.map(meta.len);
            held.insert(meta.id, Arc::new(open().map_err(|e| lost(&file, e))?));
        }
        let log = Arc::new(LogCopy::of(vfs, path)?);
        let survey = Survey::of(path, loaded, listing, &*log, clock)?;
        Ok(Self { survey, log, held })
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
    /// # Errors
    /// `NotFound`, `NotADatabase`, `UnsupportedFormat`, `Corruption`, `InvalidConfig`; `Busy` when a writer changed
    /// the database each time that it was read: try again.
    pub fn open_read_only(path: &Path, options: EngineOptions) -> Result<Self> {
        validate(&options)?;
        check_present(&*options.vfs, path)?;
        let since = options.clock.monotonic();
        let _span = trace::open(path, true);
        let mode = options.config.as_ref().map(holds);
        let stored = |state: &ManifestState| holds(&DatabaseConfig::stored(&state.settings).0);
        let capture = Capture::take(&*options.vfs, &*options.clock, path, |state| {
            mode.unwrap_or_else(|| stored(state))
        })?;
        let Capture { survey: Survey { loaded, chain, began, .. }, log, held } = capture;
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
            read_only: true,
            lock: None,
            since,
            meter: Arc::default(),
            place: Arc::default(),
            log,
            held,
            unfinished: None,
        };
        let manifest = Manifest::resume(Arc::clone(&options.vfs), path, loaded);
        let engine = Self::assemble(path, options, manifest, start)?;
        engine.shared.measure_replay(began);
        engine.shared.opened(false, clean);
        Ok(engine)
    }
}
