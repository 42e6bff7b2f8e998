//! A file system in memory: the in-memory mode, and the ground of the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::{DirEntry, Mapping, OpenMode, PathKind, Vfs, VfsFile};

/// Files in memory. Clones share them. Directories exist once created; the root always does.
#[derive(Clone, Debug, Default)]
pub struct MemVfs {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Arc<MemFile>>,
    dirs: BTreeSet<PathBuf>,
    /// Holders of each lock: -1 for an exclusive one, else how many share it.
    locked: BTreeMap<PathBuf, i32>,
}

#[derive(Debug, Default)]
struct MemFile {
    // Behind an Arc so that a mapping shares the bytes; a write after that copies them first.
    bytes: RwLock<Arc<Vec<u8>>>,
}

impl MemVfs {
    /// An empty file system.
    pub fn new() -> Self {
        Self::default()
    }
}

fn exists(state: &State, dir: &Path) -> bool {
    dir.as_os_str().is_empty() || dir == Path::new("/") || state.dirs.contains(dir)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Vfs for MemVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.state.lock();
        let found = state.files.get(path).cloned();
        let file = match (mode, found) {
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
                let file = Arc::<MemFile>::default();
                state.files.insert(path.to_path_buf(), Arc::clone(&file));
                file
            }
        };
        Ok(file)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        if !exists(&state, dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let files = state.files.iter().filter(|(path, _)| parent(path) == dir).map(|(path, file)| DirEntry {
            name: name(path),
            len: file.bytes.read().len() as u64,
            is_file: true,
        });
        let dirs = state.dirs.iter().filter(|path| parent(path) == dir);
        Ok(files.chain(dirs.map(|path| DirEntry { name: name(path), len: 0, is_file: false })).collect())
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
        state.dirs.insert(dir.to_path_buf());
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
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

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        let guard = self.hold(path, -1)?;
        let file = self.open(path, OpenMode::Truncate)?;
        super::write_all_at(&*file, owner.as_bytes(), 0)?;
        Ok(Box::new(guard))
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        if self.kind(path)?.is_none() {
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

impl VfsFile for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes.read();
        let from = bytes.get(offset.min(bytes.len() as u64) as usize..).unwrap_or_default();
        let len = from.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), from.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut bytes = self.bytes.write();
        let bytes = Arc::make_mut(&mut bytes);
        let start = offset as usize;
        let end = start + buf.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(to) = bytes.get_mut(start..end) {
            to.copy_from_slice(buf);
        }
        Ok(buf.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Arc::make_mut(&mut self.bytes.write()).resize(len as usize, 0);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut bytes = self.bytes.write();
        if (bytes.len() as u64) < len {
            Arc::make_mut(&mut bytes).resize(len as usize, 0);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.read().len() as u64)
    }

    fn map(&self, len: u64) -> io::Result<Mapping> {
        let bytes = Arc::clone(&self.bytes.read());
        if (bytes.len() as u64) < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Mapping::Memory(bytes)) }
    }
}
