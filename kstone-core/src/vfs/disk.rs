//! The real file system. (being written)

/// Files on disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskVfs;
