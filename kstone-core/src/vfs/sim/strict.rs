//! A file system in memory that loses at a power cut everything that was not synced.
//!
//! Every file has its durable bytes (as of its last [`VfsFile::sync`]), its current ones, and the pending writes and
//! length changes that lead from the former to the latter, in order. Every directory has the same for its names, with
//! [`Vfs::sync_dir`]. A crash makes a new file system from the durable state and those pending operations that the
//! [`CrashMode`] keeps. It is stricter than any single real file system: syncing a file does not sync its name, nor the
//! reverse, and nothing orders the bytes of one file against those of another.
//!
//! Invariants: durable state + pending operations in order = current state, except for data lost by a failed sync
//! ([`VfsFile::lose_unsynced`]), which is in the current state only; a lock belongs to a file and not to a name, so a
//! crash image has none; the lock on the state is taken before a file's, and held by every change, so that a crash sees
//! a consistent moment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::{DirEntry, Mapping, OpenMode, PathKind, SharedBytes, Vfs, VfsFile, write_all_at};
use super::StoredByCalls;
use crate::sync::Mutex;

mod content;
mod crash;
#[cfg(test)]
mod tests;

use content::{Content, FileOp};
pub use crash::{CrashMode, Tear};

/// Maximum length of a file, as on disk.
const MAX_LEN: u64 = i64::MAX as u64;

/// The image that a crash at a certain moment would have left.
#[derive(Debug)]
#[non_exhaustive]
pub struct Image {
    /// Number of changing operations before that moment.
    pub point: u64,
    /// Which pending operations were kept.
    pub mode: CrashMode,
    /// The remaining file system.
    pub vfs: StrictVfs,
}

/// Selects the images to make at a moment, given the number of operations so far, and the number of syncs among them.
pub type Choose = Box<dyn FnMut(u64, u64) -> Vec<CrashMode> + Send>;

/// Files in memory that survive a simulated power cut only as far as they were synced. Clones share them. The root
/// always exists and is durable.
#[derive(Clone, Default)]
pub struct StrictVfs {
    state: Arc<Mutex<State>>,
}

struct State {
    /// Directories are never removed or renamed, so their paths identify them.
    dirs: BTreeMap<PathBuf, Dir>,
    /// Number of changing operations so far, and its limit.
    ops: u64,
    limit: Option<u64>,
    /// Number of syncs among them.
    syncs: u64,
    choose: Option<Choose>,
    images: Vec<Image>,
    /// Whether files can be written in place.
    shares: bool,
}

/// What is certain to survive a power cut of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Durability {
    /// Whether its name is durable.
    pub(crate) named: bool,
    /// Whether all of its present contents are durable.
    pub(crate) whole: bool,
    /// The durable contents.
    pub(crate) bytes: Vec<u8>,
}

type Names = BTreeMap<OsString, Node>;

#[derive(Clone)]
enum Node {
    File(Arc<Inode>),
    Dir,
}

#[derive(Default)]
struct Dir {
    current: Names,
    durable: Names,
    pending: Vec<NameOp>,
}

/// An atomic change of names: one is removed, one is added, or (for a rename) both.
#[derive(Clone)]
struct NameOp {
    /// The number of the operation that made it.
    at: u64,
    unset: Option<OsString>,
    set: Option<(OsString, Node)>,
}

#[derive(Default)]
struct Inode {
    content: Mutex<Content>,
    /// Holders of the lock: -1 for an exclusive one, otherwise the number of shared ones.
    holders: Mutex<i32>,
}

impl StrictVfs {
    /// Creates an empty file system.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets files be written in place ([`VfsFile::share`]), as file systems on disk do. Without it, the log of a database
    /// has no buffer, and each write to it is a call that can fail.
    #[must_use]
    pub fn with_shared_bytes(self) -> Self {
        self.state.lock().shares = true;
        self
    }

    /// Returns the number of changing operations so far: creating or emptying a file, write, set_len, allocate, sync,
    /// rename, remove, create_dir, sync_dir, and the changes that taking a lock makes to its file.
    pub fn ops(&self) -> u64 {
        self.state.lock().ops
    }

    /// Once [`StrictVfs::ops`] has reached this number, every further changing operation fails and changes nothing.
    /// `None` lifts the limit.
    pub fn stop_after(&self, ops: Option<u64>) {
        self.state.lock().limit = ops;
    }

    /// From now on, makes images of what a crash would leave right before every changing operation, in the modes that
    /// `choose` returns. [`StrictVfs::take_images`] returns the images. `None` stops this.
    pub fn record(&self, choose: Option<Choose>) {
        self.state.lock().choose = choose;
    }

    /// Takes the images made since the last call.
    pub fn take_images(&self) -> Vec<Image> {
        std::mem::take(&mut self.state.lock().images)
    }

    /// Returns what of a file is durable; `None` if no file has this name.
    pub(crate) fn durability(&self, path: &Path) -> Option<Durability> {
        let mut state = self.state.lock();
        let (name, inode) = state.find_file(path).ok()?;
        let durable = state.dir(parent(path)).ok()?.durable.get(&name).cloned();
        let named = matches!(durable, Some(Node::File(durable)) if Arc::ptr_eq(&durable, &inode));
        let content = inode.content.lock();
        Some(Durability { named, whole: content.is_durable(), bytes: content.durable_bytes() })
    }

    /// Returns the file system as found after a power cut at this moment. It is independent of this one, with no
    /// locks held, no pending operations, and no operations counted. After [`CrashMode::Process`], pending operations
    /// remain pending.
    pub fn crash(&self, mode: CrashMode) -> Self {
        self.state.lock().image(mode)
    }

    fn of(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

// Without the contents: images are many and large.
impl fmt::Debug for StrictVfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrictVfs").field("ops", &self.ops()).finish_non_exhaustive()
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Default for State {
    fn default() -> Self {
        let dirs = ["", "/"].map(|root| (root.into(), Dir::default())).into();
        Self { dirs, ops: 0, limit: None, syncs: 0, choose: None, images: Vec::new(), shares: false }
    }
}

impl State {
    /// Counts an operation that is about to change something; an error once the power has failed.
    fn spend(&mut self) -> io::Result<()> {
        if self.limit.is_some_and(|limit| self.ops >= limit) {
            return Err(io::Error::other("simulated power cut"));
        }
        if let Some(mut choose) = self.choose.take() {
            for mode in choose(self.ops, self.syncs) {
                let vfs = self.image(mode);
                self.images.push(Image { point: self.ops, mode, vfs });
            }
            self.choose = Some(choose);
        }
        self.ops += 1;
        Ok(())
    }

    fn dir(&mut self, path: &Path) -> io::Result<&mut Dir> {
        self.dirs.get_mut(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Changes the names of a directory, as part of the operation counted last.
    fn change_names(
        &mut self,
        dir: &Path,
        unset: Option<OsString>,
        set: Option<(OsString, Node)>,
    ) -> io::Result<()> {
        let at = self.ops;
        self.dir(dir)?.change(NameOp { at, unset, set });
        Ok(())
    }

    /// Returns the name of a path, and what has that name. The directory must exist.
    fn find(&mut self, path: &Path) -> io::Result<(OsString, Option<Node>)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let node = self.dir(parent(path))?.current.get(name).cloned();
        Ok((name.to_os_string(), node))
    }

    fn find_file(&mut self, path: &Path) -> io::Result<(OsString, Arc<Inode>)> {
        match self.find(path)? {
            (name, Some(Node::File(inode))) => Ok((name, inode)),
            (_, Some(Node::Dir)) => Err(io::ErrorKind::IsADirectory.into()),
            (_, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<Arc<Inode>> {
        if mode != OpenMode::Create && self.dirs.contains_key(path) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match (mode, self.find(path)?) {
            (OpenMode::Create, (_, Some(_))) => Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::Read | OpenMode::Write, (_, Some(Node::File(inode)))) => Ok(inode),
            (OpenMode::Read | OpenMode::Write, (_, None)) => Err(io::ErrorKind::NotFound.into()),
            (OpenMode::Truncate, (_, Some(Node::File(inode)))) => {
                self.spend()?;
                inode.content.lock().change(self.ops, FileOp::SetLen(0));
                Ok(inode)
            }
            (_, (_, Some(Node::Dir))) => Err(io::ErrorKind::InvalidInput.into()),
            (OpenMode::Create | OpenMode::Truncate, (name, None)) => {
                self.spend()?;
                let inode = Arc::<Inode>::default();
                let set = Some((name, Node::File(Arc::clone(&inode))));
                self.change_names(parent(path), None, set)?;
                Ok(inode)
            }
        }
    }
}

impl NameOp {
    fn apply(&self, names: &mut Names) {
        if let Some(name) = &self.unset {
            names.remove(name);
        }
        if let Some((name, node)) = &self.set {
            names.insert(name.clone(), node.clone());
        }
    }
}

impl Dir {
    fn change(&mut self, op: NameOp) {
        op.apply(&mut self.current);
        self.pending.push(op);
    }

    fn sync(&mut self) {
        for op in self.pending.drain(..) {
            op.apply(&mut self.durable);
        }
    }
}

impl Vfs for StrictVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let inode = self.state.lock().open(path, mode)?;
        Ok(Arc::new(self.handle(inode, mode != OpenMode::Read)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.state.lock();
        let entry = |(name, node): (&OsString, &Node)| {
            let (is_file, len) = match node {
                Node::File(inode) => (true, inode.content.lock().len()),
                Node::Dir => (false, 0),
            };
            DirEntry { name: name.to_string_lossy().into_owned(), len, is_file, is_dir: !is_file }
        };
        Ok(state.dir(dir)?.current.iter().map(entry).collect())
    }

    fn kind(&self, path: &Path) -> io::Result<Option<PathKind>> {
        let mut state = self.state.lock();
        if state.dirs.contains_key(path) {
            return Ok(Some(PathKind::Dir));
        }
        Ok(state.find_file(path).ok().map(|_| PathKind::File))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.dirs.contains_key(dir) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (name, None) = state.find(dir)? else {
            return Err(io::ErrorKind::AlreadyExists.into());
        };
        state.spend()?;
        state.change_names(parent(dir), None, Some((name, Node::Dir)))?;
        state.dirs.insert(dir.to_path_buf(), Dir::default());
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let (old, inode) = state.find_file(from)?;
        let (new, None | Some(Node::File(_))) = state.find(to)? else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        state.spend()?;
        let set = Some((new, Node::File(inode)));
        if parent(from) == parent(to) {
            state.change_names(parent(to), Some(old), set)?;
        } else {
            // One operation per directory: a crash may keep either one alone.
            state.change_names(parent(from), Some(old), None)?;
            state.change_names(parent(to), None, set)?;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let (name, _) = state.find_file(path)?;
        state.spend()?;
        state.change_names(parent(path), Some(name), None)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.dir(dir)?;
        state.spend()?;
        state.syncs += 1;
        state.dir(dir)?.sync();
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let (_, inode) = state.find_file(from)?;
        let (name, None) = state.find(to)? else {
            return Err(io::ErrorKind::AlreadyExists.into());
        };
        state.spend()?;
        state.change_names(parent(to), None, Some((name, Node::File(inode))))?;
        Ok(())
    }

    fn lose_unsynced_names(&self, dir: &Path) {
        if let Ok(dir) = self.state.lock().dir(dir) {
            dir.pending.clear();
        }
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state.lock();
        let inode = match state.open(path, OpenMode::Write) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => state.open(path, OpenMode::Create)?,
            opened => opened?,
        };
        drop(state);
        let guard = Guard::take(&inode, -1)?;
        let file = self.handle(inode, true);
        file.set_len(0)?;
        write_all_at(&file, owner.as_bytes(), 0)?;
        Ok(Box::new(guard))
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let opened = self.state.lock().open(path, OpenMode::Read);
        match opened {
            Ok(inode) => Ok(Some(Box::new(Guard::take(&inode, 1)?))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

struct Guard {
    inode: Arc<Inode>,
    by: i32,
}

impl Guard {
    fn take(inode: &Arc<Inode>, by: i32) -> io::Result<Self> {
        let mut holders = inode.holders.lock();
        if *holders < 0 || (by < 0 && *holders > 0) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        *holders += by;
        Ok(Self { inode: Arc::clone(inode), by })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        *self.inode.holders.lock() -= self.by;
    }
}

struct Handle {
    state: Arc<Mutex<State>>,
    inode: Arc<Inode>,
    writable: bool,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("writable", &self.writable).finish_non_exhaustive()
    }
}

impl StrictVfs {
    fn handle(&self, inode: Arc<Inode>, writable: bool) -> Handle {
        Handle { state: Arc::clone(&self.state), inode, writable }
    }
}

impl Handle {
    /// Applies the operation that `op` returns for the file's length. `end` is how far the operation may reach.
    fn change(&self, end: Option<u64>, op: impl FnOnce(u64) -> Option<FileOp>) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if end.is_none_or(|end| end > MAX_LEN) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut state = self.state.lock();
        state.spend()?;
        let mut content = self.inode.content.lock();
        if let Some(op) = op(content.len()) {
            content.change(state.ops, op);
        }
        Ok(())
    }
}

impl VfsFile for Handle {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(self.inode.content.lock().read(buf, offset))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        if !buf.is_empty() {
            let end = offset.checked_add(buf.len() as u64);
            self.change(end, |_| Some(FileOp::Write { offset, bytes: buf.into() }))?;
        }
        Ok(buf.len())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.spend()?;
        state.syncs += 1;
        self.inode.content.lock().sync();
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Some(len), |_| Some(FileOp::SetLen(len)))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(Some(len), |now| (now < len).then_some(FileOp::SetLen(len)))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inode.content.lock().len())
    }

    fn map(&self, len: u64) -> io::Result<Mapping> {
        let content = self.inode.content.lock();
        if content.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len)?;
        bytes.resize(len, 0);
        content.read(&mut bytes, 0);
        Ok(Mapping::Memory(Arc::new(bytes)))
    }

    fn share(&self, len: u64) -> io::Result<Box<dyn SharedBytes>> {
        if !self.state.lock().shares {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (state, inode) = (Arc::clone(&self.state), Arc::clone(&self.inode));
        StoredByCalls::of(Arc::new(Self { state, inode, writable: self.writable }), len)
    }

    fn lose_unsynced(&self) {
        let _state = self.state.lock();
        self.inode.content.lock().lose_pending();
    }
}
