//! Immutable, reference-counted bytes; a slice keeps the mapping, block or value that it points into alive.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::coding::part;
use crate::types::{EntryKind, SeqNo};
use crate::vfs::Mapping;

/// The newest version of a key that is visible to a reader.
#[derive(Clone, Debug)]
pub struct Found {
    /// Sequence number of the write.
    pub seq: SeqNo,
    /// Whether this is a put or a tombstone.
    pub kind: EntryKind,
    /// The value; empty for a tombstone.
    pub value: Slice,
}

/// Immutable bytes that keep their owner alive: a view, without a copy, into a mapped file, a block in memory or a
/// value in a memtable. Clones share the owner.
#[derive(Clone)]
pub struct Slice {
    owner: Owner,
    start: usize,
    len: usize,
}

#[derive(Clone)]
enum Owner {
    Shared(Arc<[u8]>),
    Mapped(Arc<Mapping>),
}

impl Slice {
    /// Returns `len` bytes of a mapped file from offset `start`; `None` if the file is shorter.
    pub fn mapped(map: &Arc<Mapping>, start: usize, len: usize) -> Option<Self> {
        map.get(start..start.checked_add(len)?)?;
        Some(Self { owner: Owner::Mapped(Arc::clone(map)), start, len })
    }

    /// Returns `len` of these bytes from offset `start`, with the same owner; `None` if the range is out of bounds.
    pub fn slice(&self, start: usize, len: usize) -> Option<Self> {
        (start.checked_add(len)? <= self.len).then(|| Self {
            owner: self.owner.clone(),
            start: self.start + start,
            len,
        })
    }
}

impl Default for Slice {
    /// An empty slice.
    fn default() -> Self {
        Self::from(Arc::<[u8]>::default())
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.owner {
            Owner::Shared(bytes) => bytes,
            Owner::Mapped(map) => map,
        };
        // The constructors checked the range, and an owner never changes.
        part(all, self.start..self.start + self.len)
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Arc<[u8]>> for Slice {
    fn from(bytes: Arc<[u8]>) -> Self {
        let len = bytes.len();
        Self { owner: Owner::Shared(bytes), start: 0, len }
    }
}

impl From<&[u8]> for Slice {
    fn from(bytes: &[u8]) -> Self {
        Self::from(Arc::<[u8]>::from(bytes))
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Slice {}
