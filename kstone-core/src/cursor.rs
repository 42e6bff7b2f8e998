//! What walks ordered entries: a memtable, an SST, or a merge of them.

use crate::error::Result;
use crate::slice::Slice;
use crate::types::{EntryRef, FileId};

/// A position in ordered entries. Once constructed it is at its first entry, and its direction is fixed.
///
/// An error of `advance` is never the end: until a later `advance` succeeds, `entry` and `value` say nothing,
/// and that later one tries the same step again.
pub(crate) trait Cursor: Send {
    /// The current entry; `None` past the last one.
    fn entry(&self) -> Option<EntryRef<'_>>;
    /// The current entry's value, without a copy where that can be; empty past the last entry.
    fn value(&self) -> Slice;
    /// Goes to the next entry; past the last one it stays there.
    fn advance(&mut self) -> Result<()>;
    /// The file and the number of the block that it reads from, if it reads a file.
    fn place(&self) -> Option<(FileId, usize)> {
        None
    }
}
