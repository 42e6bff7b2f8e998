//! The manifest: the one file that says which files make up the database. It owns `MANIFEST` and
//! `MANIFEST.tmp`; what the edits mean is in `state`, their bytes are in `edit`.
//!
//! ```text
//!   0 128  file header (kind 1); in the bytes of the kind: the number of the first edit (8), zeros
//! 128   -  edits, one frame each, numbered without gaps
//! ```
//!
//! The first frame is a snapshot: it holds the whole state as changes. What follows are edits since. Once
//! these are longer than the snapshot and 64 KiB, the next edit rewrites the manifest instead.
//!
//! Invariants:
//! 1. A manifest appears under its name only when it is durable (written aside, synced, renamed, directory
//!    synced), so its first frame is never torn. Only the last frame can be: each one is synced before the
//!    next is written, and a file with a frame that failed to be written is never appended to again.
//! 2. The state in memory changes only once the edit is durable.
//! 3. A handle rewrites the manifest before it first appends. Bytes inherited from an earlier process may be
//!    readable and yet not on disk, if its last sync failed: an edit appended behind them could outlive them.
//! 4. An edit that failed may be on disk all the same: after a failed sync, a failed rename that may have been made, a
//!    failed write that left all of it behind. Whoever opens the database next finds the state with it, or the one
//!    without, and both must have their files: nothing is written any more ([`Manifest::is_broken`]), and whoever owns
//!    the manifest removes nothing either.
//! 5. Loading never writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::file_header::{FileHeader, FileKind, HEADER_LEN, Id};
use crate::paths::{MANIFEST, MANIFEST_TMP};
use crate::planted::{Bug, planted};
use crate::vfs::{OpenMode, Vfs, VfsFile, read_full_at, write_all_at};

mod edit;
mod load;
mod state;

pub(crate) use edit::{Change, CleanEnd, Facts};
pub(crate) use load::Fingerprint;
pub(crate) use state::ManifestState;

use edit::encode_frame;

/// Edits may take this much before the manifest is rewritten, however short the snapshot.
const LEAST_REWRITE_LEN: u64 = 64 << 10;

/// What the file header says of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) database_id: Id,
    pub(crate) incarnation: Id,
    pub(crate) created_ms: u64,
}

/// What was read from a directory.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) ids: Ids,
    pub(crate) state: ManifestState,
    /// Bytes of the file up to the end of its last valid edit.
    pub(crate) len: u64,
    /// Bytes of an edit that was cut short follow: its writer died, and nobody was told that it was made.
    pub(crate) torn: bool,
}

/// The manifest of a database that is open for writing.
#[derive(Debug)]
pub(crate) struct Manifest {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    ids: Ids,
    state: ManifestState,
    len: u64,
    snapshot_len: u64,
    tail: Tail,
}

/// What the next edit finds.
#[derive(Debug)]
enum Tail {
    /// A file that ends with a durable edit of this handle. -> `Rewrite` in `append_frame`, `Broken` in `break_off`
    Open(Arc<dyn VfsFile>),
    /// A file that must not be appended to. -> `Open` in `replace`
    Rewrite,
    /// An edit failed that may be there all the same: what is on disk is not known.
    Broken(String),
}

impl Manifest {
    /// Makes the manifest of a new database, durably. The first change is the facts.
    pub(crate) fn create(vfs: Arc<dyn Vfs>, dir: &Path, ids: Ids, changes: Vec<Change>) -> Result<Self> {
        let path = dir.join(MANIFEST);
        if vfs.kind(&path).map_err(Error::io("look for", &path))?.is_some() {
            let detail = format!("it holds a {MANIFEST}");
            return Err(Error::AlreadyExists { path: dir.to_path_buf(), detail });
        }
        let state = ManifestState::first(1, changes).and_then(|state| state.check().map(|()| state));
        let state = state.map_err(|why| invalid(&path, why))?;
        let mut manifest = Self::new(vfs, dir, ids, state, 0);
        let initial = manifest.state.clone();
        manifest.replace(&initial)?;
        Ok(manifest)
    }

    /// Goes on where [`Manifest::load`] found the manifest. Writes nothing; the first edit rewrites the file,
    /// torn or not, and its rename is the single commit point of a recovery.
    pub(crate) fn resume(vfs: Arc<dyn Vfs>, dir: &Path, loaded: Loaded) -> Self {
        Self::new(vfs, dir, loaded.ids, loaded.state, loaded.len)
    }

    fn new(vfs: Arc<dyn Vfs>, dir: &Path, ids: Ids, state: ManifestState, len: u64) -> Self {
        Self { vfs, dir: dir.to_path_buf(), ids, state, len, snapshot_len: 0, tail: Tail::Rewrite }
    }

    pub(crate) fn ids(&self) -> Ids {
        self.ids
    }

    pub(crate) fn state(&self) -> &ManifestState {
        &self.state
    }

    /// Length of the file in bytes. A rewrite takes about that much beside it for a moment.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// What it takes beyond its length until it has grown and been rewritten: the edits until then, and the new file
    /// beside the old one. What is listed meanwhile comes on top.
    pub(crate) fn room(&self) -> u64 {
        let snapshot = if self.snapshot_len == 0 { self.len } else { self.snapshot_len };
        let peak = snapshot.saturating_add(snapshot.max(LEAST_REWRITE_LEN));
        peak.saturating_sub(self.len).saturating_add(snapshot)
    }

    /// An edit failed that may be on disk all the same: the handle that owns this manifest must be poisoned, whatever
    /// the error was.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.tail, Tail::Broken(_))
    }

    /// Makes an edit durable and returns its number. After an error the state is as before; so is the disk, and the edit
    /// may be tried again, unless that is not known ([`Manifest::is_broken`]).
    pub(crate) fn append(&mut self, changes: Vec<Change>) -> Result<u64> {
        if let Tail::Broken(cause) = &self.tail {
            return Err(Error::Poisoned { cause: cause.clone() });
        }
        let number = self.state.edit.saturating_add(1);
        let frame = encode_frame(&self.ids.database_id, number, &changes);
        let frame = frame.map_err(|why| invalid(&self.path(), why))?;
        let mut next = self.state.clone();
        next.apply(number, changes).and_then(|()| next.check()).map_err(|why| invalid(&self.path(), why))?;
        self.commit(&next, &frame)?;
        self.state = next;
        Ok(number)
    }

    fn commit(&mut self, next: &ManifestState, frame: &[u8]) -> Result<()> {
        let Tail::Open(file) = &self.tail else {
            return self.replace(next);
        };
        let file = Arc::clone(file);
        if !self.is_rewrite_due(frame.len()) {
            return self.append_frame(&*file, frame);
        }
        let replaced = self.replace(next);
        // Without room for a second manifest the edit may still fit into this one.
        if replaced.is_err() && matches!(self.tail, Tail::Open(_)) {
            return self.append_frame(&*file, frame);
        }
        replaced
    }

    fn is_rewrite_due(&self, frame_len: usize) -> bool {
        let since = self.len.saturating_sub(HEADER_LEN as u64 + self.snapshot_len);
        since.saturating_add(frame_len as u64) > self.snapshot_len.max(LEAST_REWRITE_LEN)
    }

    fn append_frame(&mut self, file: &dyn VfsFile, frame: &[u8]) -> Result<()> {
        if let Err(e) = write_all_at(file, frame, self.len) {
            let error = Error::io("write", &self.path())(e);
            // What cannot be read back whole is not on disk whole, for what is written there is what can be read.
            if !planted(Bug::FailedEditForgotten) && may_hold(file, frame, self.len) {
                return Err(self.break_off(error));
            }
            // A part of the frame may be there: the next edit must not follow it.
            match planted(Bug::EditAfterPartialEdit) {
                true => self.len = self.len.saturating_add(frame.len() as u64),
                false => self.tail = Tail::Rewrite,
            }
            return Err(error);
        }
        if !planted(Bug::EditNotSynced)
            && let Err(e) = file.sync()
        {
            return Err(self.break_off(Error::io("sync", &self.path())(e)));
        }
        self.len = self.len.saturating_add(frame.len() as u64);
        Ok(())
    }

    /// Writes `state` into a new file, which takes the place of the old one.
    fn replace(&mut self, state: &ManifestState) -> Result<()> {
        let (path, tmp) = (self.path(), self.dir.join(MANIFEST_TMP));
        let frame = encode_frame(&self.ids.database_id, state.edit, &state.to_changes());
        let frame = frame.map_err(|why| invalid(&path, why))?;
        let bytes = [header(self.ids, state.edit).as_slice(), &frame].concat();
        let file = match self.write_aside(&tmp, &bytes) {
            Ok(file) => file,
            Err(e) => {
                self.give_back(&tmp);
                return Err(e);
            }
        };
        if !planted(Bug::ManifestRenamedBeforeSync)
            && let Err(e) = file.sync()
        {
            return Err(self.break_off(Error::io("sync", &tmp)(e)));
        }
        if let Err(e) = self.vfs.rename(&tmp, &path) {
            let error = Error::io("rename", &tmp)(e);
            // With its own name it has not taken the other's. Else the edit may be there, or come to be there, while its
            // caller learns that it is not.
            if !matches!(self.vfs.kind(&tmp), Ok(Some(_))) {
                return Err(self.break_off(error));
            }
            self.tail = Tail::Rewrite;
            self.give_back(&tmp);
            return Err(error);
        }
        if !planted(Bug::ManifestNameNotSynced)
            && let Err(e) = self.vfs.sync_dir(&self.dir)
        {
            return Err(self.break_off(Error::io("sync", &self.dir)(e)));
        }
        self.tail = Tail::Open(file);
        self.len = bytes.len() as u64;
        self.snapshot_len = frame.len() as u64;
        Ok(())
    }

    /// Puts a manifest with that state in the place of what is there, durably: the one step of a repair that counts.
    pub(crate) fn install(vfs: Arc<dyn Vfs>, dir: &Path, ids: Ids, state: ManifestState) -> Result<()> {
        let path = dir.join(MANIFEST);
        state.check().map_err(|why| invalid(&path, why))?;
        let mut manifest = Self::new(vfs, dir, ids, state, 0);
        let state = manifest.state.clone();
        manifest.replace(&state)
    }

    fn write_aside(&self, tmp: &Path, bytes: &[u8]) -> Result<Arc<dyn VfsFile>> {
        let file = self.vfs.open(tmp, OpenMode::Truncate).map_err(Error::io("create", tmp))?;
        write_all_at(&*file, bytes, 0).map_err(Error::io("write", tmp))?;
        Ok(file)
    }

    /// Removes what could not be finished: it would only take up space that is short. Failing is harmless,
    /// the next rewrite starts with an empty file anyway.
    fn give_back(&self, tmp: &Path) {
        let _ = self.vfs.remove(tmp);
    }

    fn break_off(&mut self, e: Error) -> Error {
        self.tail = Tail::Broken(e.to_string());
        e
    }

    fn path(&self) -> PathBuf {
        self.dir.join(MANIFEST)
    }

    /// Reads the manifest of a directory. A last edit that was cut short is left out ([`Loaded::torn`]);
    /// any other damage is `Corruption`.
    pub(crate) fn load(vfs: &dyn Vfs, dir: &Path) -> Result<Loaded> {
        load::load(vfs, &dir.join(MANIFEST))
    }

    /// The same, and what tells the file that was read from any other.
    pub(crate) fn load_marked(vfs: &dyn Vfs, dir: &Path) -> Result<(Fingerprint, Result<Loaded>)> {
        load::load_marked(vfs, &dir.join(MANIFEST))
    }

    /// What tells a directory's manifest as it is now from what it was before.
    pub(crate) fn fingerprint(vfs: &dyn Vfs, dir: &Path) -> Result<Fingerprint> {
        load::fingerprint(vfs, &dir.join(MANIFEST))
    }
}

/// The last state that a damaged manifest still tells, which may be old; `None` when it tells none. `Err` is an error of
/// reading, or a newer format.
pub(crate) fn load_what_passes(vfs: &dyn Vfs, dir: &Path) -> Result<(Option<Ids>, Option<ManifestState>)> {
    load::load_what_passes(vfs, &dir.join(MANIFEST))
}

fn header(ids: Ids, first_edit: u64) -> [u8; HEADER_LEN] {
    let mut extra = [0; 56];
    if let Some(field) = extra.first_chunk_mut::<8>() {
        *field = first_edit.to_le_bytes();
    }
    let Ids { database_id, incarnation, created_ms } = ids;
    FileHeader { kind: FileKind::Manifest, database_id, incarnation, created_ms, extra }.encode()
}

/// Whether all of these bytes are in the file there, as far as is known.
fn may_hold(file: &dyn VfsFile, bytes: &[u8], offset: u64) -> bool {
    let mut found = vec![0; bytes.len()];
    read_full_at(file, &mut found, offset).map_or(true, |read| found.get(..read) == Some(bytes))
}

/// An edit of ours that contradicts the state: the manifest is not touched.
fn invalid(path: &Path, why: String) -> Error {
    Error::io("edit", path)(std::io::Error::new(std::io::ErrorKind::InvalidInput, why))
}

#[cfg(test)]
mod tests;
