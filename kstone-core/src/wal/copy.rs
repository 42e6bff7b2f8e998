//! An in-memory snapshot of the log, for reading a database that another process may be writing to.
//!
//! Everything is read backwards: the newest segment first, each from its end to its start. Records are written in
//! order, so whatever is found was written after everything that is still to be read. The copy therefore ends somewhere
//! but has no holes, except within a piece that was being written while it was read. The log buffer, which has the
//! newest records of all, is read before the segments.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::paths::{self, FileName};
use crate::vfs::{DirEntry, Mapping, OpenMode, PathKind, Vfs, VfsFile, read_full_at};

use super::format::MAX_SEGMENT;
use super::reader::refuse_claims;

/// Bytes read at a time.
const PIECE: u64 = 64 << 10;
/// A segment longer than any default size is copied only after its headers were checked for impossible claims: a sparse
/// file can have any length.
const LONG: u64 = 64 << 20;

/// Copies of a directory's segments and of its log buffer, under their original paths. Read-only.
#[derive(Debug, Default)]
pub(crate) struct LogCopy {
    files: BTreeMap<PathBuf, Arc<CopiedFile>>,
}

/// The pieces of a file that are not all zeros, so that reserved space takes no memory.
#[derive(Debug)]
struct CopiedFile {
    len: u64,
    pieces: BTreeMap<u64, Box<[u8]>>,
}

impl LogCopy {
    /// Copies all segments in the directory.
    pub(crate) fn of(vfs: &dyn Vfs, dir: &Path) -> Result<Self> {
        let mut found: Vec<(u32, PathBuf)> = Vec::new();
        let mut buffer = None;
        for name in vfs.names(dir).map_err(Error::io("list", dir))? {
            match paths::parse(&name) {
                FileName::Log(named) => found.push((named, dir.join(&name))),
                FileName::LogBuffer => buffer = Some(dir.join(&name)),
                _ => {}
            }
        }
        found.sort();
        // Open all before reading the first: reading takes longer, and an open file remains readable after its removal.
        let open = |(named, path): (u32, PathBuf)| {
            let file = vfs.open(&path, OpenMode::Read).map_err(Error::io("open", &path))?;
            if file.len().map_err(Error::io("read", &path))? > LONG {
                refuse_claims(vfs, &path, named)?;
            }
            Ok((path, file))
        };
        let opened = found.into_iter().map(open).collect::<Result<Vec<_>>>()?;
        let mut files = BTreeMap::new();
        // First, since it has the newest records: those that leave it meanwhile are then found in their segment.
        if let Some(path) = buffer {
            match vfs.open(&path, OpenMode::Read) {
                // The database was closed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => {
                    let file = opened.map_err(Error::io("open", &path))?;
                    let copied = CopiedFile::of(&*file, &path)?;
                    files.insert(path, Arc::new(copied));
                }
            }
        }
        for (path, file) in opened.into_iter().rev() {
            let copied = CopiedFile::of(&*file, &path)?;
            files.insert(path, Arc::new(copied));
        }
        Ok(Self { files })
    }

    /// Whether the copy has the segment named after this generation.
    pub(crate) fn has(&self, generation: u32) -> bool {
        let name = paths::log(Path::new(""), generation);
        self.files.keys().any(|path| path.file_name() == Some(name.as_os_str()))
    }
}

impl CopiedFile {
    fn of(file: &dyn VfsFile, path: &Path) -> Result<Self> {
        let len = file.len().map_err(Error::io("read", path))?.min(MAX_SEGMENT);
        let mut pieces = BTreeMap::new();
        for piece in (0..len.div_ceil(PIECE)).rev() {
            let at = piece * PIECE;
            let mut bytes = vec![0; (len - at).min(PIECE) as usize];
            // If the file was truncated meanwhile, the rest reads as zeros.
            read_full_at(file, &mut bytes, at).map_err(Error::io("read", path))?;
            if bytes.iter().any(|&byte| byte != 0) {
                pieces.insert(piece, bytes.into_boxed_slice());
            }
        }
        Ok(Self { len, pieces })
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::PermissionDenied.into())
}

impl VfsFile for CopiedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let piece = offset / PIECE;
        let within = offset % PIECE;
        let len = self.len.saturating_sub(offset).min(PIECE - within).min(buf.len() as u64) as usize;
        let Some(to) = buf.get_mut(..len) else { return Ok(0) };
        let from = self.pieces.get(&piece).and_then(|bytes| bytes.get(within as usize..));
        match from.and_then(|bytes| bytes.get(..len)) {
            Some(from) => to.copy_from_slice(from),
            None => to.fill(0),
        }
        Ok(len)
    }

    fn write_at(&self, _buf: &[u8], _offset: u64) -> io::Result<usize> {
        refused()
    }

    fn sync(&self) -> io::Result<()> {
        refused()
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        refused()
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        refused()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn map(&self, _len: u64) -> io::Result<Mapping> {
        refused()
    }
}

impl Vfs for LogCopy {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        match self.files.get(path).cloned() {
            Some(file) if mode == OpenMode::Read => Ok(file),
            Some(_) => refused(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let here = self.files.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entry = |(path, file): (&PathBuf, &Arc<CopiedFile>)| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            DirEntry { name, len: file.len, is_file: true, is_dir: false }
        };
        Ok(here.map(entry).collect())
    }

    fn kind(&self, path: &Path) -> io::Result<Option<PathKind>> {
        Ok(self.files.contains_key(path).then_some(PathKind::File))
    }

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        refused()
    }

    fn lock(&self, _path: &Path, _owner: &str) -> io::Result<Box<dyn Send + Sync>> {
        refused()
    }

    fn lock_shared(&self, _path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        refused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{MemVfs, read_all};

    #[test]
    fn a_copy_reads_like_the_file_and_stays_as_it_was() {
        let vfs = MemVfs::new();
        let dir = Path::new("db");
        vfs.create_dir(dir).unwrap();
        let mut bytes = vec![0u8; 3 * PIECE as usize + 777];
        for at in [0, 1, 65_535, 65_536, 3 * PIECE as usize + 776] {
            bytes[at] = 7;
        }
        for (n, len) in [(1, bytes.len()), (2, 5), (3, 0)] {
            let file = vfs.open(&paths::log(dir, n), OpenMode::Create).unwrap();
            crate::vfs::write_all_at(&*file, &bytes[..len], 0).unwrap();
        }
        vfs.open(&dir.join("notes"), OpenMode::Create).unwrap();
        let copy = LogCopy::of(&vfs, dir).unwrap();
        vfs.open(&paths::log(dir, 1), OpenMode::Truncate).unwrap();
        vfs.remove(&paths::log(dir, 2)).unwrap();
        let read = |n| read_all(&*copy.open(&paths::log(dir, n), OpenMode::Read).unwrap(), 1 << 20).unwrap();
        assert_eq!((read(1) == bytes, read(2), read(3)), (true, bytes[..5].to_vec(), vec![]));
        assert_eq!(copy.list(dir).unwrap().len(), 3);
        let held = copy.files.values().map(|file| file.pieces.len()).sum::<usize>();
        assert_eq!(held, 4, "pieces that are all zero are not kept");
        let file = copy.open(&paths::log(dir, 1), OpenMode::Read).unwrap();
        let mut buf = [1; 10];
        assert_eq!(file.read_at(&mut buf, 1 << 40).unwrap(), 0);
        assert!(copy.open(&paths::log(dir, 1), OpenMode::Write).is_err() && file.set_len(0).is_err());
    }
}
