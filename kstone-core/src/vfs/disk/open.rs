//! How files are opened: the one place for the whole product.
//!
//! A database's directory may come from somebody else, and any name in it may be anything. So what is opened is a
//! regular file, named directly:
//! 1. The last component of a path is never followed if it is a link.
//! 2. A FIFO cannot make an open wait, and whatever turns out to be no regular file is refused before a byte of it is
//!    read or written.
//! 3. What is written in place has no second name: else a file elsewhere would change with it. Reading does not ask:
//!    SSTs of a backup are shared on purpose, and never written.
//! 4. What is new is created, and never found: who is in the way of it is an error, or for a temporary file is removed,
//!    which touches the name and not what it leads to.
//! 5. What is read whole has a limit ([`read_regular`]).
//! 6. New files are their owner's alone (0600, less what the umask takes away).

#![expect(clippy::disallowed_methods, reason = "this is where the engine opens files")]

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{DiskFile, again};
use crate::vfs::{OpenMode, read_all};

/// How often a temporary file's name may be taken again by somebody else while it is being created.
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

/// The file named `LOCK`: it is created if need be, and the owner's number is written into it.
pub(super) fn open_lock(path: &Path) -> io::Result<(File, Metadata)> {
    let (file, found) = open_regular(path, read_only().write(true).create(true).truncate(false))?;
    check_single(path, &found)?;
    Ok((file, found))
}

/// A whole regular file of at most `max` bytes, by the rules by which the engine opens files: for tools that look at
/// what lies in a database's directory.
///
/// # Errors
/// `InvalidInput` for what is no regular file, `InvalidData` for what is longer.
pub fn read_regular(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    read_all(&DiskFile { file: open(path, OpenMode::Read)? }, max)
}

/// Reads only; the other rights are added by the caller.
pub(super) fn read_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Without NONBLOCK, opening a FIFO waits for its other end. On regular files it changes nothing.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    options.read(true).mode(0o600).custom_flags(flags.bits().cast_signed());
    options
}

/// Opens a regular file, and nothing else.
pub(super) fn open_regular(path: &Path, options: &OpenOptions) -> io::Result<(File, Metadata)> {
    let file =
        again(|| options.open(path)).map_err(|e| match e.raw_os_error().map(Errno::from_raw_os_error) {
            // What a link, a directory opened for writing, and a socket or FIFO without a peer answer.
            Some(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => irregular(path),
            _ => e,
        })?;
    let found = again(|| file.metadata())?;
    if found.is_file() { Ok((file, found)) } else { Err(irregular(path)) }
}

/// Empties a file that has no other name, or creates one in the place of what is there.
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
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} keeps being made anew", path.display())))
}

fn check_single(path: &Path, found: &Metadata) -> io::Result<()> {
    match found.nlink() {
        // None: it was removed meanwhile, which whoever opened it finds out by itself.
        0 | 1 => Ok(()),
        names => {
            let detail = format!(
                "{} has {names} names (hard links), and to write to it would change the others too: put a copy in its place",
                path.display()
            );
            Err(io::Error::new(io::ErrorKind::InvalidInput, detail))
        }
    }
}

fn irregular(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not a regular file", path.display()))
}
