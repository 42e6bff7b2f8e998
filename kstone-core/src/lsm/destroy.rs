//! DESTROY: removes the files of a database, and no others.

use std::path::Path;

use super::LsmEngine;
use super::claim::{PathContents, absolute, claim};
use crate::error::{Error, Result};
use crate::paths::{self, FileName};
use crate::vfs::Vfs;

/// What [`LsmEngine::destroy`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Destroyed {
    /// Files removed.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Names that stay in the directory: foreign files, and the originals that a repair kept.
    pub kept: Vec<String>,
}

impl LsmEngine {
    /// Removes all files of a database under its lock, and then its directory, unless something else is in it. The
    /// manifest goes last, so that what a crash leaves behind is still known to be a database, and can be destroyed
    /// again. A damaged database is removed like any other. `quarantine`, where repairs keep originals, stays.
    ///
    /// # Errors
    /// `NotFound`, `NotADatabase`, `Locked`: nothing was removed. `Io`: some files may be left.
    pub fn destroy(path: &Path, vfs: &dyn Vfs) -> Result<Destroyed> {
        let path = &absolute(vfs, path)?;
        let claim = claim(vfs, path, || Ok(PathContents::at(vfs, path)?.for_open(path)))?;
        let mut destroyed = Destroyed::default();
        let listing = vfs.list(path).map_err(Error::io("list", path))?;
        let (mut last, mut manifest) = (Vec::new(), Vec::new());
        for entry in listing {
            match paths::parse(&entry.name) {
                _ if !entry.is_file => destroyed.kept.push(entry.name),
                FileName::Foreign | FileName::Quarantine => destroyed.kept.push(entry.name),
                FileName::Manifest => manifest.push(entry),
                FileName::Lock => last.push(entry),
                _ => {
                    remove(vfs, path, &entry.name)?;
                    destroyed.count(entry.len);
                }
            }
        }
        // Or a power cut might undo the removal of the others, and not that of the manifest.
        vfs.sync_dir(path).map_err(Error::io("sync", path))?;
        for entry in manifest.into_iter().chain(last) {
            remove(vfs, path, &entry.name)?;
            destroyed.count(entry.len);
        }
        drop(claim);
        destroyed.kept.sort();
        if destroyed.kept.is_empty() {
            // A file created meanwhile is not ours: the directory stays for it.
            let _ = vfs.remove_dir(path);
        }
        Ok(destroyed)
    }
}

impl Destroyed {
    fn count(&mut self, len: u64) {
        self.files += 1;
        self.bytes += len;
    }
}

fn remove(vfs: &dyn Vfs, dir: &Path, name: &str) -> Result<()> {
    let file = dir.join(name);
    vfs.remove(&file).map_err(Error::io("remove", &file))
}
