//! The interface of everything that iterates over ordered entries: a memtable, an SST, or a merge of these.

use crate::error::Result;
use crate::slice::Slice;
use crate::types::{EntryHead, EntryRef, FileId};

/// A position in ordered entries. A new cursor is at its first entry, and its direction is fixed.
///
/// An error from `advance` never means the end: until a later `advance` succeeds, `entry` and `value` are meaningless,
/// and that later call retries the same step.
pub(crate) trait Cursor: Send {
    /// The current entry; `None` past the last one.
    fn entry(&self) -> Option<EntryRef<'_>>;
    /// The current entry without its value.
    #[inline]
    fn head(&self) -> Option<EntryHead<'_>> {
        let EntryRef { key, seq, kind, value } = self.entry()?;
        Some(EntryHead { key, seq, kind, value_len: value.len() })
    }
    /// The value of the current entry, without a copy where possible; empty past the last entry.
    fn value(&self) -> Slice;
    /// Moves to the next entry; a cursor past the last entry stays there.
    fn advance(&mut self) -> Result<()>;
    /// The file and the number of the block that the cursor is reading, if it reads a file.
    fn place(&self) -> Option<(FileId, usize)> {
        None
    }
}
