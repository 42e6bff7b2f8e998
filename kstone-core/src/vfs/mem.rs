//! A file system in memory: for the in-memory mode, and as a base for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DirEntry, FreeSpace, Mapping, OpenMode, PathKind, Vfs, VfsFile};
use crate::sync::{Mutex, RwLock};

/// Files in memory. Clones share them. Directories must be created, except for the root, which always exists.
#[derive(Clone, Default)]
pub struct MemVfs {
    state: Arc<Mutex<State>>,
}

// Without the contents: printing settings should not print a whole database.
impl fmt::Debug for MemVfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemVfs").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Arc<MemFile>>,
    dirs: BTreeSet<PathBuf>,
    /// Maximum number of files and directories.
    inodes: Option<u64>,
    /// Holders of each lock: -1 for an exclusive one, otherwise the number of shared ones.
    locked: BTreeMap<PathBuf, i32>,
}

#[derive(Default)]
struct MemFile {
    // Behind an Arc so that a mapping shares the bytes; a later write copies them first.
    bytes: RwLock<Arc<Vec<u8>>>,
}

struct Handle {
    file: Arc<MemFile>,
    writable: bool,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("writable", &self.writable).finish_non_exhaustive()
    }
}

impl MemVfs {
    /// Creates an empty file system.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum number of files and directories. Creating more fails as on a file system without free inodes.
    pub fn limit_inodes(&self, limit: Option<u64>) {
        self.state.lock().inodes = limit;
    }
}

/// The number of free inodes.
fn free_inodes(state: &State) -> u64 {
    let limit = state.inodes.unwrap_or(u64::MAX);
    limit.saturating_sub((state.files.len() + state.dirs.len()) as u64)
}

fn take_inode(state: &State) -> io::Result<()> {
    if free_inodes(state) == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

fn exists(state: &State, dir: &Path) -> bool {
    dir.as_os_str().is_empty() || dir == Path::new("/") || state.dirs.contains(dir)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Vfs for MemVfs {
    fn is_volatile(&self) -> bool {
        true
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.state.lock();
        if exists(&state, path) {
            let create = mode == OpenMode::Create;
            return Err(
                if create { io::ErrorKind::AlreadyExists } else { io::ErrorKind::InvalidInput }.into()
            );
        }
        let file = match (mode, state.files.get(path).cloned()) {
            (OpenMode::Read | OpenMode::Write, Some(file)) => file,
            (OpenMode::Read | OpenMode::Write, None) => return Err(io::ErrorKind::NotFound.into()),
            (OpenMode::Create, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (OpenMode::Truncate, Some(file)) => {
                *file.bytes.write() = Arc::default();
                file
            }
            (OpenMode::Create | OpenMode::Truncate, None) => {
                if !exists(&state, parent(path)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                take_inode(&state)?;
                let file = Arc::<MemFile>::default();
                state.files.insert(path.to_path_buf(), Arc::clone(&file));
                file
            }
        };
        Ok(Arc::new(Handle { file, writable: mode != OpenMode::Read }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        if !exists(&state, dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let name =
            |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let files = state.files.iter().filter(|(path, _)| parent(path) == dir).map(|(path, file)| DirEntry {
            name: name(path),
            len: file.bytes.read().len() as u64,
            is_file: true,
            is_dir: false,
        });
        let dirs = state.dirs.iter().filter(|path| parent(path) == dir);
        let dirs = dirs.map(|path| DirEntry { name: name(path), len: 0, is_file: false, is_dir: true });
        Ok(files.chain(dirs).collect())
    }

    fn kind(&self, path: &Path) -> io::Result<Option<PathKind>> {
        let state = self.state.lock();
        Ok(if exists(&state, path) {
            Some(PathKind::Dir)
        } else {
            state.files.contains_key(path).then_some(PathKind::File)
        })
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !exists(&state, parent(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if exists(&state, dir) || state.files.contains_key(dir) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        take_inode(&state)?;
        state.dirs.insert(dir.to_path_buf());
        Ok(())
    }

    fn free_space(&self, _dir: &Path) -> io::Result<Option<FreeSpace>> {
        let state = self.state.lock();
        Ok(state.inodes.map(|_| FreeSpace {
            bytes: u64::MAX,
            of_bytes: u64::MAX,
            inodes: Some(free_inodes(&state)),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if exists(&state, to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !exists(&state, parent(to)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state.lock().files.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if exists(&self.state.lock(), dir) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if exists(&state, to) || state.files.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !exists(&state, parent(to)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = state.files.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        state.files.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let inside = |path: &PathBuf| parent(path) == dir;
        if state.files.keys().any(inside) || state.dirs.iter().any(inside) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        if state.dirs.remove(dir) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        let guard = self.hold(path, -1)?;
        let file = self.open(path, OpenMode::Truncate)?;
        super::write_all_at(&*file, owner.as_bytes(), 0)?;
        Ok(Box::new(guard))
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        if self.kind(path)? != Some(PathKind::File) {
            return Ok(None);
        }
        Ok(Some(Box::new(self.hold(path, 1)?)))
    }
}

impl MemVfs {
    fn hold(&self, path: &Path, by: i32) -> io::Result<Guard> {
        let mut state = self.state.lock();
        let holders = state.locked.entry(path.to_path_buf()).or_default();
        if *holders < 0 || (by < 0 && *holders > 0) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        *holders += by;
        Ok(Guard { vfs: self.clone(), path: path.to_path_buf(), by })
    }
}

struct Guard {
    vfs: MemVfs,
    path: PathBuf,
    by: i32,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(holders) = self.vfs.state.lock().locked.get_mut(&self.path) {
            *holders -= self.by;
        }
    }
}

impl Handle {
    /// Changes the bytes, unless the file was opened for reading.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<u8>) -> io::Result<T>) -> io::Result<T> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        change(Arc::make_mut(&mut self.file.bytes.write()))
    }
}

/// Truncates or extends. Insufficient memory is an error and does not abort the process.
fn resize(bytes: &mut Vec<u8>, len: u64) -> io::Result<()> {
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.try_reserve(len.saturating_sub(bytes.len()))?;
    bytes.resize(len, 0);
    Ok(())
}

impl VfsFile for Handle {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.file.bytes.read();
        let from = bytes.get(offset.min(bytes.len() as u64) as usize..).unwrap_or_default();
        let len = from.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), from.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.change(|bytes| {
            if buf.is_empty() {
                return Ok(0);
            }
            let end = offset.checked_add(buf.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
            if (bytes.len() as u64) < end {
                resize(bytes, end)?;
            }
            if let Some(to) = bytes.get_mut(offset as usize..end as usize) {
                to.copy_from_slice(buf);
            }
            Ok(buf.len())
        })
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|bytes| resize(bytes, len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(|bytes| if (bytes.len() as u64) < len { resize(bytes, len) } else { Ok(()) })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.bytes.read().len() as u64)
    }

    fn map(&self, len: u64) -> io::Result<Mapping> {
        let bytes = self.file.bytes.read();
        // A mapping of the whole file, the usual case, shares its bytes; a part is copied.
        Ok(Mapping::Memory(match bytes.get(..len.min(usize::MAX as u64) as usize) {
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(part) if part.len() == bytes.len() => Arc::clone(&bytes),
            Some(part) => Arc::new(part.to_vec()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        conformance::check(&MemVfs::new(), Path::new(""));
        conformance::check(&MemVfs::new(), Path::new("/"));
    }

    #[test]
    fn clones_share_and_a_mapping_keeps_its_bytes() {
        let vfs = MemVfs::new();
        let path = Path::new("f");
        let file = vfs.open(path, OpenMode::Create).unwrap();
        file.write_at(b"before", 0).unwrap();
        let map = file.map(6).unwrap();
        vfs.clone().open(path, OpenMode::Write).unwrap().write_at(b"after!", 0).unwrap();
        assert_eq!(&*map, b"before");
        assert_eq!(&*file.map(6).unwrap(), b"after!");
    }
}

/// Behaviour that all file systems here must have in common, so that test results apply to the disk.
#[cfg(test)]
pub(super) mod conformance {
    use super::*;
    use crate::vfs::{read_all, write_all_at};

    /// Runs all checks in directories created below `root`.
    pub(crate) fn check(vfs: &dyn Vfs, root: &Path) {
        let dir = |name: &str| {
            let dir = root.join(name);
            vfs.create_dir(&dir).unwrap();
            dir
        };
        directories(vfs, &dir("directories"));
        opening(vfs, &dir("opening"));
        bytes(vfs, &dir("bytes"));
        lengths(vfs, &dir("lengths"));
        mapping(vfs, &dir("mapping"));
        names(vfs, &dir("names"));
        links(vfs, &dir("links"));
        locks(vfs, &dir("locks"));
    }

    fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
        result.err().map(|e| e.kind())
    }

    fn content(vfs: &dyn Vfs, path: &Path) -> Vec<u8> {
        read_all(&*vfs.open(path, OpenMode::Read).unwrap(), 1 << 20).unwrap()
    }

    fn directories(vfs: &dyn Vfs, dir: &Path) {
        let inner = dir.join("inner");
        assert_eq!(vfs.kind(&inner).unwrap(), None);
        assert_eq!(kind(vfs.list(&inner)), Some(io::ErrorKind::NotFound));
        assert_eq!(kind(vfs.sync_dir(&inner)), Some(io::ErrorKind::NotFound));
        assert_eq!(kind(vfs.create_dir(&inner.join("too deep"))), Some(io::ErrorKind::NotFound));
        vfs.create_dir(&inner).unwrap();
        assert_eq!(kind(vfs.create_dir(&inner)), Some(io::ErrorKind::AlreadyExists));
        assert_eq!(vfs.kind(&inner).unwrap(), Some(PathKind::Dir));
        assert_eq!(vfs.kind(Path::new("")).unwrap(), Some(PathKind::Dir));
        let file = vfs.open(&dir.join("file"), OpenMode::Create).unwrap();
        file.write_at(b"12345", 0).unwrap();
        assert_eq!(vfs.kind(&dir.join("file")).unwrap(), Some(PathKind::File));
        assert_eq!(vfs.kind(&dir.join("file/below")).unwrap(), None);
        assert_eq!(kind(vfs.create_dir(&dir.join("file"))), Some(io::ErrorKind::AlreadyExists));
        vfs.open(&inner.join("not listed"), OpenMode::Create).unwrap();
        let mut list = vfs.list(dir).unwrap();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        let entry = |name: &str, len, is_file| DirEntry { name: name.into(), len, is_file, is_dir: !is_file };
        assert_eq!(list, [entry("file", 5, true), entry("inner", 0, false)]);
        vfs.sync_dir(&inner).unwrap();
        vfs.sync_dir(dir).unwrap();
    }

    fn opening(vfs: &dyn Vfs, dir: &Path) {
        let path = dir.join("file");
        for mode in [OpenMode::Read, OpenMode::Write] {
            assert_eq!(kind(vfs.open(&path, mode)), Some(io::ErrorKind::NotFound));
        }
        for mode in [OpenMode::Create, OpenMode::Truncate] {
            assert_eq!(kind(vfs.open(&dir.join("none/file"), mode)), Some(io::ErrorKind::NotFound));
        }
        vfs.open(&path, OpenMode::Create).unwrap().write_at(b"text", 0).unwrap();
        assert_eq!(kind(vfs.open(&path, OpenMode::Create)), Some(io::ErrorKind::AlreadyExists));
        let reader = vfs.open(&path, OpenMode::Read).unwrap();
        assert!(reader.write_at(b"x", 0).is_err());
        assert!(reader.set_len(0).is_err());
        vfs.open(&path, OpenMode::Write).unwrap().write_at(b"N", 0).unwrap();
        assert_eq!(content(vfs, &path), b"Next");
        vfs.open(&path, OpenMode::Truncate).unwrap();
        assert_eq!(reader.len().unwrap(), 0, "emptied, not replaced");
        vfs.open(&dir.join("new"), OpenMode::Truncate).unwrap().sync().unwrap();
        for mode in [OpenMode::Read, OpenMode::Write, OpenMode::Truncate] {
            assert_eq!(kind(vfs.open(dir, mode)), Some(io::ErrorKind::InvalidInput), "{mode:?}");
        }
        assert_eq!(kind(vfs.open(dir, OpenMode::Create)), Some(io::ErrorKind::AlreadyExists));
    }

    fn bytes(vfs: &dyn Vfs, dir: &Path) {
        let file = vfs.open(&dir.join("file"), OpenMode::Create).unwrap();
        let mut buf = [7; 8];
        assert_eq!(file.read_at(&mut buf, 0).unwrap(), 0);
        assert_eq!(file.write_at(b"", 100).unwrap(), 0);
        assert_eq!(file.len().unwrap(), 0);
        // Across a page boundary and past a hole.
        write_all_at(&*file, b"abcdef", 4093).unwrap();
        assert_eq!(file.len().unwrap(), 4099);
        assert_eq!(file.read_at(&mut buf, 4091).unwrap(), 8);
        assert_eq!(&buf, b"\0\0abcdef");
        write_all_at(&*file, b"XY", 4095).unwrap();
        assert_eq!(file.read_at(&mut buf, 4094).unwrap(), 5);
        assert_eq!(&buf[..5], b"bXYef");
        assert_eq!(file.read_at(&mut buf, 4099).unwrap(), 0);
        assert_eq!(file.read_at(&mut buf, 1 << 40).unwrap(), 0);
        assert!(file.write_at(b"xx", u64::MAX).is_err());
        file.sync().unwrap();
    }

    fn lengths(vfs: &dyn Vfs, dir: &Path) {
        let path = dir.join("file");
        let file = vfs.open(&path, OpenMode::Create).unwrap();
        file.write_at(&[1; 5000], 0).unwrap();
        file.set_len(3).unwrap();
        file.set_len(6000).unwrap();
        let mut expected = vec![0; 6000];
        expected[..3].fill(1);
        assert_eq!(content(vfs, &path), expected, "truncated bytes do not reappear");
        assert!(file.set_len(u64::MAX).is_err());
        match file.allocate(9000) {
            Ok(()) => expected.resize(9000, 0),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::Unsupported),
        }
        file.allocate(10).unwrap();
        assert_eq!(content(vfs, &path), expected, "reserving never truncates");
    }

    fn mapping(vfs: &dyn Vfs, dir: &Path) {
        let path = dir.join("file");
        let file = vfs.open(&path, OpenMode::Create).unwrap();
        assert_eq!(file.map(0).unwrap().len(), 0);
        let bytes: Vec<u8> = (0..10_000_u32).map(|i| i as u8).collect();
        write_all_at(&*file, &bytes, 0).unwrap();
        drop(file);
        let file = vfs.open(&path, OpenMode::Read).unwrap();
        for len in [0, 1, 4096, 9999, 10_000] {
            assert_eq!(&*file.map(len).unwrap(), &bytes[..len as usize]);
        }
        for len in [10_001, u64::MAX] {
            assert_eq!(kind(file.map(len)), Some(io::ErrorKind::UnexpectedEof));
        }
        let map = file.map(10_000).unwrap();
        drop(file);
        vfs.remove(&path).unwrap();
        assert_eq!(&*map, &bytes[..], "a mapping outlives its file and its name");
    }

    fn names(vfs: &dyn Vfs, dir: &Path) {
        let (a, b) = (dir.join("a"), dir.join("b"));
        assert_eq!(kind(vfs.remove(&a)), Some(io::ErrorKind::NotFound));
        assert_eq!(kind(vfs.rename(&a, &b)), Some(io::ErrorKind::NotFound));
        vfs.open(&a, OpenMode::Create).unwrap().write_at(b"first", 0).unwrap();
        let replaced = vfs.open(&b, OpenMode::Create).unwrap();
        replaced.write_at(b"second", 0).unwrap();
        assert_eq!(kind(vfs.rename(&a, &dir.join("none/a"))), Some(io::ErrorKind::NotFound));
        vfs.rename(&a, &b).unwrap();
        vfs.rename(&b, &b).unwrap();
        assert_eq!(vfs.kind(&a).unwrap(), None);
        assert_eq!(content(vfs, &b), b"first");
        assert_eq!(read_all(&*replaced, 10).unwrap(), b"second", "open files outlive their names");
        let inner = dir.join("inner");
        vfs.create_dir(&inner).unwrap();
        assert!(vfs.rename(&b, &inner).is_err());
        assert!(vfs.remove(&inner).is_err());
        vfs.rename(&b, &inner.join("b")).unwrap();
        assert_eq!(content(vfs, &inner.join("b")), b"first");
        let removed = vfs.open(&inner.join("b"), OpenMode::Write).unwrap();
        vfs.remove(&inner.join("b")).unwrap();
        removed.write_at(b"F", 0).unwrap();
        assert_eq!(read_all(&*removed, 10).unwrap(), b"First");
        assert!(vfs.list(&inner).unwrap().is_empty());
    }

    fn links(vfs: &dyn Vfs, dir: &Path) {
        let (a, b, none) = (dir.join("a"), dir.join("b"), dir.join("none"));
        assert_eq!(kind(vfs.hard_link(&none, &b)), Some(io::ErrorKind::NotFound));
        // Only a file that was already open may be written to while it has two names.
        let open = vfs.open(&a, OpenMode::Create).unwrap();
        open.write_at(b"first", 0).unwrap();
        vfs.hard_link(&a, &b).unwrap();
        assert_eq!(kind(vfs.hard_link(&a, &b)), Some(io::ErrorKind::AlreadyExists));
        assert_eq!(kind(vfs.hard_link(&a, &none.join("b"))), Some(io::ErrorKind::NotFound));
        open.write_at(b"F", 0).unwrap();
        assert_eq!((content(vfs, &a), content(vfs, &b)), (b"First".to_vec(), b"First".to_vec()));
        vfs.remove(&a).unwrap();
        assert_eq!(content(vfs, &b), b"First");
        assert_eq!(vfs.list(dir).unwrap().len(), 1);
    }

    fn locks(vfs: &dyn Vfs, dir: &Path) {
        let path = dir.join("LOCK");
        let busy = Some(io::ErrorKind::WouldBlock);
        assert!(vfs.lock_shared(&path).unwrap().is_none());
        assert_eq!(vfs.kind(&path).unwrap(), None, "checking creates nothing");
        assert_eq!(kind(vfs.lock(&dir.join("none/LOCK"), "")), Some(io::ErrorKind::NotFound));

        let exclusive = vfs.lock(&path, "a longer owner").unwrap();
        assert_eq!(kind(vfs.lock(&path, "other")), busy);
        assert_eq!(kind(vfs.lock_shared(&path)), busy);
        assert_eq!(content(vfs, &path), b"a longer owner", "a failed attempt leaves the text unchanged");
        drop(exclusive);
        assert_eq!(vfs.kind(&path).unwrap(), Some(PathKind::File));

        let shared = vfs.lock_shared(&path).unwrap().unwrap();
        let second = vfs.lock_shared(&path).unwrap().unwrap();
        assert_eq!(kind(vfs.lock(&path, "other")), busy);
        drop(shared);
        assert_eq!(kind(vfs.lock(&path, "other")), busy);
        drop(second);

        let exclusive = vfs.lock(&path, "short").unwrap();
        assert_eq!(content(vfs, &path), b"short");
        drop(exclusive);
        drop(vfs.lock(&path, "").unwrap());
        assert_eq!(content(vfs, &path), b"");
    }
}
