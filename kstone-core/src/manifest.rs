//! The manifest: the file that lists the files of the database. This module owns `MANIFEST` and `MANIFEST.tmp`; `state`
//! has the meaning of the edits, `edit` their encoding.
//!
//! ```text
//!   0 128  file header (kind 1); its fields: the number of the first edit (8), zeros
//! 128   -  edits, one frame each, numbered without gaps
//! ```
//!
//! The first frame is a snapshot: it holds the whole state as changes. The other frames are the edits since. Once these
//! are longer than both the snapshot and 64 KiB, the next edit rewrites the manifest instead.
//!
//! Invariants:
//! 1. A manifest appears under its name only when it is durable (written to a temporary file, synced, renamed,
//!    directory synced), so its first frame is never torn. Only the last frame can be: each frame is synced before the
//!    next is written, and a file in which a frame failed to be written is never appended to again.
//! 2. The state in memory changes only once the edit is durable.
//! 3. A handle rewrites the manifest before its first append. Bytes inherited from an earlier process may be readable
//!    but not on disk, if its last sync failed, and an edit appended after them could outlive them.
//! 4. A failed edit may be on disk nevertheless: after a failed sync, a failed rename that took effect, or a failed
//!    write that left all of its bytes. The next process to open the database may find the state with or without the
//!    edit, and both need their files. So nothing more is written ([`Manifest::is_broken`]), and the owner of the
//!    manifest must not remove anything either.
//! 5. Loading never writes.

use std::ops::ControlFlow;
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

/// Length that the edits may reach before the manifest is rewritten, however short the snapshot.
const LEAST_REWRITE_LEN: u64 = 64 << 10;

/// The identity of the database in the file header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) database_id: Id,
    pub(crate) incarnation: Id,
    pub(crate) created_ms: u64,
}

/// The result of loading a manifest.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) ids: Ids,
    pub(crate) state: ManifestState,
    /// Length of the file up to the end of its last valid edit.
    pub(crate) len: u64,
    /// A truncated edit follows: its writer died before the edit was reported as made.
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

/// Where the next edit is written.
#[derive(Debug)]
enum Tail {
    /// A file that ends with a durable edit of this handle. -> `Rewrite` in `append_frame`, `Broken` in `break_off`
    Open(Arc<dyn VfsFile>),
    /// A file that must not be appended to. -> `Open` in `replace`
    Rewrite,
    /// An edit failed but may have been written: the contents of the disk are unknown.
    Broken(String),
}

impl Manifest {
    /// Creates the manifest of a new database, durably. The first change is the facts.
    pub(crate) fn create(vfs: Arc<dyn Vfs>, dir: &Path, ids: Ids, changes: Vec<Change>) -> Result<Self> {
        let path = dir.join(MANIFEST);
        if vfs.kind(&path).map_err(Error::io("stat", &path))?.is_some() {
            let detail = format!("it has a {MANIFEST}");
            return Err(Error::AlreadyExists { path: dir.to_path_buf(), detail });
        }
        let state = ManifestState::first(1, changes).and_then(|state| state.check().map(|()| state));
        let state = state.map_err(|why| invalid(&path, why))?;
        let mut manifest = Self::new(vfs, dir, ids, state, 0);
        let initial = manifest.state.clone();
        manifest.replace(&initial)?;
        Ok(manifest)
    }

    /// Continues from the manifest that [`Manifest::load`] returned. Writes nothing; the first edit rewrites the file,
    /// torn or not, and the rename is the single commit point of a recovery.
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

    /// Length of the file in bytes. A rewrite temporarily takes about as much again.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Additional space that the manifest takes until it has grown and been rewritten: the edits until then, and the
    /// new file beside the old one. SSTs added meanwhile come on top.
    pub(crate) fn room(&self) -> u64 {
        let snapshot = if self.snapshot_len == 0 { self.len } else { self.snapshot_len };
        let peak = snapshot.saturating_add(snapshot.max(LEAST_REWRITE_LEN));
        peak.saturating_sub(self.len).saturating_add(snapshot)
    }

    /// Whether an edit failed but may be on disk. If so, the handle that owns this manifest must be poisoned, whatever
    /// the error was.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.tail, Tail::Broken(_))
    }

    /// Makes an edit durable and returns its number. After an error the state is unchanged. The disk is unchanged as
    /// well, and the edit may be retried, unless the contents of the disk are unknown ([`Manifest::is_broken`]).
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
        // If there is no space for a second manifest, the edit may still fit into this one.
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
            // If the frame cannot be read back completely, it is not on disk completely: the disk has nothing that
            // reads do not see.
            if !planted(Bug::FailedEditForgotten) && may_hold(file, frame, self.len) {
                return Err(self.break_off(error));
            }
            // A part of the frame may have been written: the next edit must not follow it.
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

    /// Writes `state` to a new file and renames it over the old one.
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
            // If the file still has its temporary name, the rename did not happen. Otherwise it may have taken effect,
            // now or later, although the caller is told that it failed.
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

    /// Replaces the manifest, if any, by one with this state, durably: the commit point of a repair.
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

    /// Removes an unfinished file, because space may be short. A failure is harmless: the next rewrite truncates the
    /// file.
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

    /// The length of a directory's manifest; 0 if it cannot be determined, which loading it will report.
    pub(crate) fn len_of(vfs: &dyn Vfs, dir: &Path) -> u64 {
        vfs.open(&dir.join(MANIFEST), OpenMode::Read).and_then(|file| file.len()).unwrap_or(0)
    }

    /// Loads the manifest of a directory. A truncated last edit is left out ([`Loaded::torn`]); any other damage is
    /// `Corruption`.
    pub(crate) fn load(vfs: &dyn Vfs, dir: &Path) -> Result<Loaded> {
        load::load(vfs, &dir.join(MANIFEST))
    }

    /// The same, with the fingerprint of the file that was read.
    pub(crate) fn load_marked(vfs: &dyn Vfs, dir: &Path) -> Result<(Fingerprint, Result<Loaded>)> {
        load::load_marked(vfs, &dir.join(MANIFEST))
    }

    /// The fingerprint of a directory's manifest as it is now.
    pub(crate) fn fingerprint(vfs: &dyn Vfs, dir: &Path) -> Result<Fingerprint> {
        load::fingerprint(vfs, &dir.join(MANIFEST))
    }
}

/// Passes the changes of the manifest in `dir` to `each`, in order, with the number and the offset of their edit, until
/// it breaks. Returns the offset after the last edit, and whether a truncated edit follows.
pub(crate) fn each_edit(
    vfs: &dyn Vfs,
    dir: &Path,
    each: &mut dyn FnMut(u64, u64, Change) -> ControlFlow<()>,
) -> Result<(u64, bool)> {
    load::each_edit(vfs, &dir.join(MANIFEST), each)
}

/// Recovers the last state that can be read from a damaged manifest, which may be old; `None` if there is none. Fails
/// only on a read error or a newer format.
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

/// Whether the file may hold all of these bytes at `offset`; true if reading fails.
fn may_hold(file: &dyn VfsFile, bytes: &[u8], offset: u64) -> bool {
    let mut found = vec![0; bytes.len()];
    read_full_at(file, &mut found, offset).map_or(true, |read| found.get(..read) == Some(bytes))
}

/// The error for an edit that contradicts the state. The manifest was not changed.
fn invalid(path: &Path, why: String) -> Error {
    Error::io("edit", path)(std::io::Error::new(std::io::ErrorKind::InvalidInput, why))
}

#[cfg(test)]
mod tests;
