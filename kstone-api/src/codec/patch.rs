//! Editing a stored item: the table of its attributes is rebuilt around entries that are copied as they are.
//!
//! Of an attribute that is kept only the name is looked at, for its place in the order, so an edit costs a copy of the
//! bytes, whatever they contain. For the same reason damage within a kept value is not found here: it stays what it was,
//! and is found when the value is read.

use kstone_core::{Error, Result};

use super::{
    BAD_ORDER, Layout, Lens, VERSION, measure_value, put_varint, table_len, varint_len, write_table,
    write_value,
};
use crate::item_error::ItemError;
use crate::value::Value;

/// An entry of the new table.
enum Entry<'a> {
    Kept(&'a [u8]),
    Set(&'a str, &'a Value),
}

/// Sets attributes of a stored item to a value, or removes them (`None`). The edits may have any order; of several edits
/// of one name, the last one counts. Returns the bytes that encoding the edited item would give.
///
/// Fails with `Corruption` if the table of attributes is damaged, and like [`encode`](super::encode) if a new value cannot
/// be stored.
pub(crate) fn patch(old: &[u8], edits: &[(&str, Option<&Value>)]) -> Result<Vec<u8>> {
    let table = Layout::of(old)?.table(old)?;
    let mut edits: Vec<_> = edits.iter().rev().copied().collect();
    // The sort is stable, so the first of equal names is the last one given.
    edits.sort_by_key(|(name, _)| *name);
    edits.dedup_by_key(|(name, _)| *name);
    let mut edits = edits.into_iter().peekable();

    let mut plan =
        Plan { entries: Vec::with_capacity(table.len() + edits.len()), body: 0, lens: Lens::default() };
    let mut last: Option<&[u8]> = None;
    for i in 0..table.len() {
        let (name, _) = table.attribute(i)?;
        if last.is_some_and(|last| last >= name) {
            return Err(BAD_ORDER.into());
        }
        last = Some(name);
        while let Some(edit) = edits.next_if(|(edited, _)| edited.as_bytes() < name) {
            plan.set(edit)?;
        }
        match edits.next_if(|(edited, _)| edited.as_bytes() == name) {
            Some(edit) => plan.set(edit)?,
            None => plan.keep(table.entry(i)?),
        }
    }
    edits.try_for_each(|edit| plan.set(edit))?;
    plan.write()
}

struct Plan<'a> {
    entries: Vec<Entry<'a>>,
    /// The length of all entries.
    body: usize,
    /// The tables within the new values.
    lens: Lens,
}

impl<'a> Plan<'a> {
    fn keep(&mut self, entry: &'a [u8]) {
        self.body += entry.len();
        self.entries.push(Entry::Kept(entry));
    }

    fn set(&mut self, (name, value): (&'a str, Option<&'a Value>)) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let len = measure_value(value, 0, &mut self.lens).map_err(|e| e.within(name));
        self.body += varint_len(name.len()) + name.len() + len.map_err(ItemError::into_error)?;
        self.entries.push(Entry::Set(name, value));
        Ok(())
    }

    fn write(self) -> Result<Vec<u8>> {
        let len = 1 + table_len(self.entries.len(), self.body);
        if u32::try_from(len).is_err() || self.entries.len() >= 1 << 30 {
            return Err(Error::ItemTooLarge { len, max: u32::MAX as usize });
        }
        let mut out = Vec::with_capacity(len);
        out.push(VERSION);
        let mut lens = self.lens.0.into_iter();
        write_table(self.entries.into_iter(), self.body, &mut out, |entry, out| match entry {
            Entry::Kept(bytes) => out.extend_from_slice(bytes),
            Entry::Set(name, value) => {
                put_varint(name.len(), out);
                out.extend_from_slice(name.as_bytes());
                write_value(value, &mut lens, out);
            }
        });
        debug_assert_eq!(out.len(), len, "measured and written lengths differ");
        Ok(out)
    }
}
