//! What is left on a file system.

use std::io;
use std::path::Path;

/// Room on a file system, for whoever is not its administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FreeSpace {
    /// Bytes that are free.
    pub bytes: u64,
    /// Of so many.
    pub of_bytes: u64,
    /// Files that may still be made; `None` where their number has no limit of its own.
    pub files: Option<u64>,
}

/// What is left where the path is.
///
/// # Errors
/// As the system refuses it.
pub fn free_space(path: &Path) -> io::Result<FreeSpace> {
    let found = rustix::fs::statvfs(super::directory(path))?;
    Ok(FreeSpace {
        bytes: found.f_bavail.saturating_mul(found.f_frsize),
        of_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        files: (found.f_files > 0).then_some(found.f_favail),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_can_be_written_to_has_room() {
        let dir = tempfile::tempdir().unwrap();
        let found = free_space(dir.path()).unwrap();
        assert!(0 < found.bytes && found.bytes <= found.of_bytes && found.files != Some(0), "{found:?}");
        assert_eq!(free_space(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
