//! Opening files: the only place in the product that does.
//!
//! A database directory may come from an untrusted source, and any name in it may be anything. Therefore only regular
//! files are opened, by their own name:
//! 1. The last component of a path is never followed if it is a link.
//! 2. A FIFO cannot block an open, and anything but a regular file is refused before a byte of it is read or written.
//! 3. A file that is written in place has no second name: otherwise a file elsewhere would change as well. Reads do not
//!    check this: SSTs of a backup are shared intentionally, and never written.
//! 4. A new file is created, never found. If its name is taken, that is an error; for a temporary file, the name is
//!    removed instead, which does not affect what it leads to.
//! 5. A file that is read as a whole has a size limit ([`read_regular`]).
//! 6. New files are accessible to their owner only (0600, minus the umask).

#![expect(clippy::disallowed_methods, reason = "this is where the engine opens files")]

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{DiskFile, again};
use crate::vfs::{OpenMode, read_all};

/// How many times others may retake a temporary file's name while it is being created.
const REPLACE_ATTEMPTS: usize = 8;

/// Opens a file.
pub(super) fn open(path: &Path, mode: OpenMode) -> io::Result<File> {
    match mode {
        OpenMode::Read => Ok(open_regular(path, &read_only())?.0),
        OpenMode::Write => {
            let (file, found) = open_regular(path, read_only().write(true))?;
            check_single(path, &found)?;
            Ok(file)
        }
        OpenMode::Create => Ok(open_regular(path, read_only().write(true).create_new(true))?.0),
        OpenMode::Truncate => replace(path),
    }
}

/// Opens the file named `LOCK`, creating it if necessary, so that the owner's process id can be written to it.
pub(super) fn open_lock(path: &Path) -> io::Result<(File, Metadata)> {
    let (file, found) = open_regular(path, read_only().write(true).create(true).truncate(false))?;
    check_single(path, &found)?;
    Ok((file, found))
}

/// Reads a whole regular file of at most `max` bytes, opened by the same rules as the engine's files. For tools that
/// inspect a database directory.
///
/// # Errors
/// `InvalidInput` for anything but a regular file, `InvalidData` for a longer one.
pub fn read_regular(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    read_all(&DiskFile { file: open(path, OpenMode::Read)? }, max)
}

/// Options for reading; callers add other rights.
pub(super) fn read_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Without NONBLOCK, opening a FIFO waits for its other end. The flag has no effect on regular files.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    options.read(true).mode(0o600).custom_flags(flags.bits().cast_signed());
    options
}

/// Opens a regular file, and nothing else.
pub(super) fn open_regular(path: &Path, options: &OpenOptions) -> io::Result<(File, Metadata)> {
    let file =
        again(|| options.open(path)).map_err(|e| match e.raw_os_error().map(Errno::from_raw_os_error) {
            // The errors for a link, a directory opened for writing, and a socket or FIFO without a peer.
            Some(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => irregular(path),
            _ => e,
        })?;
    let found = again(|| file.metadata())?;
    if found.is_file() { Ok((file, found)) } else { Err(irregular(path)) }
}

/// Empties a file without another name, or replaces whatever is there by a new file.
fn replace(path: &Path) -> io::Result<File> {
    for _ in 0..REPLACE_ATTEMPTS {
        match again(|| path.symlink_metadata()) {
            Ok(found) if found.is_file() && found.nlink() == 1 => {
                let (file, found) = open_regular(path, read_only().write(true))?;
                if found.nlink() == 1 {
                    again(|| file.set_len(0))?;
                    return Ok(file);
                }
            }
            Ok(found) if found.is_dir() => return Err(irregular(path)),
            Ok(_) => again(|| std::fs::remove_file(path))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                match open_regular(path, read_only().write(true).create_new(true)) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    opened => return Ok(opened?.0),
                }
            }
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} keeps being recreated", path.display())))
}

fn check_single(path: &Path, found: &Metadata) -> io::Result<()> {
    match found.nlink() {
        // 0: removed meanwhile, which the caller detects for itself.
        0 | 1 => Ok(()),
        names => {
            let detail = format!(
                "{} has {names} names (hard links), and writing to it would change them all: replace it by a copy",
                path.display()
            );
            Err(io::Error::new(io::ErrorKind::InvalidInput, detail))
        }
    }
}

fn irregular(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a regular file", path.display()))
}
