//! Observes the steps of a lookup in an SST. A get counts them, explaining records all of them, and `()` records
//! nothing.

use super::table::Table;
use crate::bloom::Filter;
use crate::error::Result;
use crate::types::GetCost;

/// The result of testing a filter, and whether it was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterAnswer {
    No,
    Yes,
    /// The filter passed a key that is not in the file.
    FalseYes,
}

/// Receives each step as it happens, so that an account of a lookup cannot differ from the lookup.
pub(crate) trait Trace {
    /// The filter was tested; `passed` is the result.
    #[inline]
    fn filter(&mut self, _passed: bool) {}

    /// The index pointed to this group of this block, and the group was read.
    #[inline]
    fn group(&mut self, _block: usize, _group: usize) {}

    /// Whether the filter's result turned out to be right.
    #[inline]
    fn answered(&mut self, _answer: FilterAnswer, _filter: &Filter) {}
}

impl Trace for () {}

impl Trace for GetCost {
    #[inline]
    fn group(&mut self, _block: usize, _group: usize) {
        self.blocks += 1;
    }

    #[inline]
    fn answered(&mut self, answer: FilterAnswer, filter: &Filter) {
        let tally = &mut self.filter;
        match answer {
            FilterAnswer::No => tally.negatives += 1,
            FilterAnswer::Yes => tally.true_positives += 1,
            FilterAnswer::FalseYes => tally.false_positives += 1,
        }
        if answer != FilterAnswer::Yes {
            tally.expected += u64::from(filter.expected());
        }
    }
}

impl Table {
    /// Returns the bits per key of the filter.
    pub(crate) fn filter_bits_per_key(&self) -> Result<f64> {
        Ok(self.opened()?.filter.bits_per_key())
    }

    /// Returns the offset of block `n` in the file, and its length; `None` if there is no such block.
    pub(crate) fn block_extent(&self, n: usize) -> Result<Option<(u64, u64)>> {
        let open = self.opened()?;
        let range = open.fences.block(open.fence_section(), n);
        Ok(range.map(|range| (range.start as u64, range.len() as u64)))
    }
}
