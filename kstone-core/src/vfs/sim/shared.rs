//! Bytes of a simulated file that are written in place.

use std::io;
use std::sync::Arc;

use super::super::{SharedBytes, VfsFile, read_full_at, write_all_at};

/// Shared bytes whose stores are writes to the file, so that the file system counts them as such and a simulated crash
/// treats them alike. Once writes fail, stores no longer take place.
#[derive(Debug)]
pub(crate) struct StoredByCalls {
    file: Arc<dyn VfsFile>,
    bytes: Vec<u8>,
}

impl StoredByCalls {
    pub(crate) fn of(file: Arc<dyn VfsFile>, len: u64) -> io::Result<Box<dyn SharedBytes>> {
        if file.len()? < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?];
        read_full_at(&*file, &mut bytes, 0)?;
        Ok(Box::new(Self { file, bytes }))
    }
}

impl SharedBytes for StoredByCalls {
    fn store(&mut self, at: usize, bytes: &[u8]) {
        let bytes = bytes.get(..self.bytes.len().saturating_sub(at).min(bytes.len())).unwrap_or_default();
        if let Some(to) = self.bytes.get_mut(at..at + bytes.len())
            && write_all_at(&*self.file, bytes, at as u64).is_ok()
        {
            to.copy_from_slice(bytes);
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
