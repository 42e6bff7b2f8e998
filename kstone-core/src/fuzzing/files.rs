//! Conversion of a directory's files to data and back.

use std::path::Path;

use crate::vfs::{MemVfs, OpenMode, Vfs, read_all, write_all_at};

/// Files ordered by name.
pub(super) type Files = Vec<(String, Vec<u8>)>;

/// A file system with these files in `dir`.
pub(super) fn on_disk(dir: &Path, files: &Files) -> MemVfs {
    let vfs = MemVfs::new();
    // The root exists already.
    let _ = vfs.create_dir(dir);
    for (name, bytes) in files {
        let file = vfs.open(&dir.join(name), OpenMode::Truncate).expect("memory");
        write_all_at(&*file, bytes, 0).expect("memory");
    }
    vfs
}

/// The files in that directory.
pub(super) fn listed(dir: &Path, vfs: &MemVfs) -> Files {
    let files = vfs.list(dir).expect("memory").into_iter().filter(|entry| entry.is_file);
    let mut names: Vec<_> = files.map(|entry| entry.name).collect();
    names.sort();
    let read = |name: &str| {
        let file = vfs.open(&dir.join(name), OpenMode::Read).expect("memory");
        read_all(&*file, 1 << 30).expect("memory")
    };
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}
